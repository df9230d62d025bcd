"""redis-server in the three shapes that a warm tier knows: alone, behind Sentinel, and as a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.rigs.process import STARTS_MAX, Process, program
from tests.rigs.tls import Certificates
from tests.support import Server, Wire, free_port, wait_for

SLOTS = 16384
MASTER = "mymaster"
PERSISTENCE_OFF = ("--save", "", "--appendonly", "no")


class Redis:
    """One redis-server of a test's own, without persistence."""

    def __init__(
        self,
        *options: str,
        password: str = "",
        maxmemory: str = "",
        unix: bool = False,
        tls: Certificates | None = None,
    ) -> None:
        """`options` are directives, `--name`, `value` …; with `tls` it speaks TLS alone, certificates not asked for."""
        self.password = password
        self.tls = tls
        self._words = [*PERSISTENCE_OFF, "--bind", "127.0.0.1", *options]
        if password:
            self._words += ["--requirepass", password, "--masterauth", password]
        if maxmemory:
            self._words += ["--maxmemory", maxmemory, "--maxmemory-policy", "noeviction"]
        self.process = Process("redis")
        self.unix = str(self.process.folder / "socket") if unix else ""
        self.port = 0
        for attempt in range(STARTS_MAX):
            self.port = free_port()
            try:
                self.start()
                return
            except RuntimeError:
                if attempt == STARTS_MAX - 1:
                    self.process.stop()
                    raise

    def start(self) -> None:
        """Begin (again), where it was."""
        words = [program("redis-server", "redis-server"), *self._words]
        if self.tls:
            words += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            words += ["--tls-cert-file", str(self.tls.certificate), "--tls-key-file", str(self.tls.key)]
            words += ["--tls-ca-cert-file", str(self.tls.authority)]
        else:
            words += ["--port", str(self.port)]
        if self.unix or self.tls:
            words += ["--unixsocket", self.unix or str(self.process.folder / "socket")]
        self.process.start(words, self.answers)

    @property
    def address(self) -> tuple[str, int] | str:
        """Where plain connections go."""
        return self.unix or (str(self.process.folder / "socket") if self.tls else ("127.0.0.1", self.port))

    @property
    def url(self) -> str:
        """As redis-py takes it."""
        password = f":{self.password}@" if self.password else ""
        if self.unix:
            return f"unix://{password}{self.unix}"
        return f"redis{'s' if self.tls else ''}://{password}127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        """Whether it serves."""
        try:
            return self("PING") == "PONG"
        except (OSError, EOFError):
            return False

    def __call__(self, *words: bytes | str | int) -> Any:
        """One command, over a connection of its own."""
        with Wire(self.address) as wire:
            if self.password:
                wire("AUTH", self.password)
            return wire(*words)

    def stop(self) -> None:
        """The end."""
        self.process.stop()


@contextlib.contextmanager
def redis(*options: str, **shape: Any) -> Iterator[Redis]:
    """A redis-server: see `Redis`."""
    server = Redis(*options, **shape)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def zeekdb(*options: str, unix: bool = False) -> Iterator[Server]:
    """ZeekDB itself, without persistence: `port` or `unix`, and what else `tests.support.Server` has."""
    with Server(*PERSISTENCE_OFF, *options, unix=unix) as server:
        yield server


# ---- Sentinel ------------------------------------------------------------------------------------------------------


@dataclass
class SentinelSet:
    """A primary, its replicas, and the sentinels that watch them under the name MASTER."""

    servers: list[Redis]  # the first is the primary at the start
    sentinels: list[Process] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)  # of the sentinels

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Of the sentinels."""
        return [("127.0.0.1", port) for port in self.ports]

    def primary(self) -> Redis:
        """Who it is now, as the first sentinel that answers says."""
        for address in self.addresses:
            with contextlib.suppress(OSError, EOFError), Wire(address) as wire:
                _, port = wire("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
                return next(server for server in self.servers if server.port == int(port))
        raise RuntimeError("no sentinel answers")

    def fail_over(self) -> Redis:
        """Kill the primary; who follows it, once the sentinels agree."""
        old = self.primary()
        old.process.kill()

        def follower() -> Redis | None:
            new = self.primary()
            return new if new is not old and "role:master" in new("INFO", "replication").decode() else None

        return wait_for(follower, 30, "a replica becomes the primary")  # type: ignore[return-value]


@contextlib.contextmanager
def sentinel_set(replicas: int = 1, sentinels: int = 1, password: str = "") -> Iterator[SentinelSet]:
    """One primary, `replicas` that follow it, and `sentinels` whose majority decides; they notice a death in 1 s."""
    with contextlib.ExitStack() as ends:
        primary = ends.enter_context(redis(password=password))
        follow = ("--replicaof", f"127.0.0.1 {primary.port}", "--repl-diskless-sync-delay", "0")
        set_ = SentinelSet([primary, *(ends.enter_context(redis(*follow, password=password)) for _ in range(replicas))])
        for _ in range(sentinels):
            process, port = _sentinel(primary, sentinels // 2 + 1)
            ends.callback(process.stop)
            set_.sentinels.append(process)
            set_.ports.append(port)

        def settled() -> bool:
            for address in set_.addresses:
                with Wire(address) as wire:
                    flat = wire("SENTINEL", "MASTER", MASTER)
                    seen = dict(zip(flat[::2], flat[1::2], strict=True))
                    if (int(seen[b"num-slaves"]), int(seen[b"num-other-sentinels"])) != (replicas, sentinels - 1):
                        return False
            return all("master_link_status:up" in server("INFO", "replication").decode() for server in set_.servers[1:])

        wait_for(settled, 30, "the sentinels know each other and the replicas")
        yield set_


def _sentinel(primary: Redis, quorum: int) -> tuple[Process, int]:
    process = Process("sentinel")
    port = free_port()
    lines = [
        f"port {port}",
        "bind 127.0.0.1",
        f"sentinel monitor {MASTER} 127.0.0.1 {primary.port} {quorum}",
        f"sentinel down-after-milliseconds {MASTER} 1000",
        f"sentinel failover-timeout {MASTER} 3000",
        *([f"sentinel auth-pass {MASTER} {primary.password}"] if primary.password else []),
    ]
    file: Path = process.folder / "sentinel.conf"
    file.write_text("\n".join(lines) + "\n")

    def answers() -> bool:
        try:
            with Wire(("127.0.0.1", port)) as wire:
                return bool(wire("PING") == "PONG")
        except (OSError, EOFError):
            return False

    try:
        process.start([program("redis-server", "redis-server"), str(file), "--sentinel"], answers)
    except BaseException:
        process.stop()
        raise
    return process, port


# ---- Cluster -------------------------------------------------------------------------------------------------------


@dataclass
class Cluster:
    """Three primaries that share the slots."""

    nodes: Sequence[Redis]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Of all nodes."""
        return [("127.0.0.1", node.port) for node in self.nodes]

    @property
    def url(self) -> str:
        """Of the first node, as redis-py's RedisCluster.from_url takes it."""
        return self.nodes[0].url

    def flush(self) -> None:
        """Empty every node."""
        for node in self.nodes:
            assert node("FLUSHALL") == "OK"


@contextlib.contextmanager
def redis_cluster(nodes: int = 3, password: str = "") -> Iterator[Cluster]:
    """A Redis Cluster without replicas, all slots covered."""
    with contextlib.ExitStack() as ends:
        shape = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        # The bus listens 10,000 above the port unless told otherwise: there may be no such port.
        buses = [free_port() for _ in range(nodes)]
        members = [ends.enter_context(redis(*shape, "--cluster-port", str(bus), password=password)) for bus in buses]
        for number, member in enumerate(members):
            first, last = SLOTS * number // nodes, SLOTS * (number + 1) // nodes - 1
            assert member("CLUSTER", "ADDSLOTSRANGE", first, last) == "OK"
            assert member("CLUSTER", "SET-CONFIG-EPOCH", number + 1) == "OK"
        for member, bus in zip(members[1:], buses[1:], strict=True):
            assert members[0]("CLUSTER", "MEET", "127.0.0.1", member.port, bus) == "OK"

        def whole() -> bool:
            said = [dict(_pairs(member("CLUSTER", "INFO"))) for member in members]
            return all((each["cluster_state"], each["cluster_known_nodes"]) == ("ok", str(nodes)) for each in said)

        wait_for(whole, 30, "the cluster is whole")
        yield Cluster(members)


def _pairs(text: bytes) -> Iterator[tuple[str, str]]:
    for line in text.decode().split():
        name, colon, value = line.partition(":")
        if colon:
            yield name, value


# ---- as the warm tier takes them -----------------------------------------------------------------------------------


def sentinel_url(set_: SentinelSet) -> str:
    """Of a service, by all of its sentinels."""
    password = set_.servers[0].password
    login = f":{password}@" if password else ""
    return f"redis+sentinel://{login}{','.join(f'{host}:{port}' for host, port in set_.addresses)}/{MASTER}"


def cluster_url(cluster: Cluster) -> str:
    """Of all nodes."""
    password = cluster.nodes[0].password
    login = f":{password}@" if password else ""
    return f"redis+cluster://{login}{','.join(f'{host}:{port}' for host, port in cluster.addresses)}"
