"""What database tiers cost those who do not need them: the hot path, and reads of memory while a tier fails.

    python bench/tiers.py [--hot] [--faults] [--rounds 7] [--turn 4.0] [--write]

*Hot path.* Two servers, one without tiers and one with an SSD, a warm Redis, PostgreSQL, vectors and objects open below
it; pipelines of 100 GETs of plain keys on each in turns, a fraction of a second each, the order changing from turn to
turn. What counts is the median of the rounds' ratios. `busy` is the same with 50 blocks of 64 KiB a second stored on
the second server, which go down to every tier; those are paid for with cores that the GETs want, too.

*Faults.* One server with an SSD and one remote tier at a time, that one behind a proxy in a process of its own. A
connection asks KV.LOOKUP and KV.MGET of blocks that host memory holds, while another stores blocks that the remote
tier is to get. Turns without and with the fault alternate; of each turn the p99 is taken, of a round's two the ratio,
of all rounds the median. A fault's turn begins before the breaker has opened, and is long enough for it to open.

Bars: 5 % of the GETs' rate, 20 % of the p99s. On a machine that does other things the rates swing; the server's CPU for
a GET, which has all that its tiers do in it, is steadier.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.servers import Server, command_line, encode, machine, median, publish, table
from tests.rigs.postgres import Postgres
from tests.rigs.proxy import ProxyProcess
from tests.rigs.s3 import ACCESS_KEY, S3
from tests.support import Wire, wait_for

KEYS = 10_000  # plain ones
PIPELINE = 100
HOT_BLOCKS = 64
HOT_BYTES = 16 << 10
LOOKUP_KEYS = 32
MGET_KEYS = 4
STORED_BYTES = 64 << 10
STORED_PER_S = 50
TIMEOUT_MS = "500"
FAULTS: dict[str, tuple[str, float | None]] = {
    "dead": ("dead", None),
    "slow 2 s": ("slow", 2.0),
    "hang": ("hang", None),
    "cut in mid-reply": ("cut", 3),
}


def percentile(times: list[float], share: float) -> float:
    """Of a turn's times, in microseconds."""
    ordered = sorted(times)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e6


class Storing(threading.Thread):
    """Stores fresh blocks at a steady pace, a connection of its own."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.wire = Wire(("127.0.0.1", server.port), 60)
        self.stopping = threading.Event()
        self.stored = self.refused = 0
        self.data = Random(1).randbytes(STORED_BYTES + 4096)

    def run(self) -> None:
        number = 0
        while not self.stopping.wait(1 / STORED_PER_S):
            number += 1
            shift = number % 4096
            data = self.data[shift : shift + STORED_BYTES]
            (said,) = self.wire("KV.MSET", "m", 1, b"%d:%d" % (id(self), number), data)
            self.stored += said == 1
            self.refused += said == -1

    def __enter__(self) -> Storing:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.join(60)


# ---- the hot path --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def everything() -> Iterator[list[str]]:
    """Directives of a server with every tier, and what they need."""
    with contextlib.ExitStack() as ends:
        folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="bench-tiers-"))
        redis = ends.enter_context(Server("redis"))
        yield [
            "--kv-memory", "64mb", "--kv-ssd-path", f"{folder}/ssd", "--kv-ssd-size", "1gb", "--kv-ssd-uses", "1",
            "--kv-warm-url", f"redis://127.0.0.1:{redis.port}/0", "--kv-postgres-url", f"embedded:{folder}/postgres",
            "--kv-postgres-write", "store", "--kv-qdrant-url", f"embedded:{folder}/vectors",
            "--kv-objects-url", f"file://{folder}/objects", "--kv-objects-min", "0", "--kv-objects-write", "store",
        ]  # fmt: skip


def gets(server: Server, wire: Wire, pipeline: bytes, reply_bytes: int, turn_s: float) -> tuple[float, float]:
    """(GETs/s, µs of the server's CPU for each) of pipelines, one after the other, for a while."""
    cpu_s = server.cpu_s()
    count, begin = 0, time.perf_counter()
    buffer = bytearray(reply_bytes)
    while (now := time.perf_counter()) - begin < turn_s:
        wire.send(pipeline)
        if wire.file.readinto(buffer) != reply_bytes:
            raise RuntimeError("a short reply")
        count += PIPELINE
    return count / (now - begin), (server.cpu_s() - cpu_s) * 1e6 / count


def hot_path(rounds: int, turn_s: float) -> dict[str, Any]:
    """Medians of rates and CPU without and with tiers, and of the rounds' ratios."""
    value = b"v" * 32
    random = Random(7)
    names = [b"key:%d" % number for number in range(KEYS)]
    pipeline = b"".join(encode(b"GET", random.choice(names)) for _ in range(PIPELINE))
    reply_bytes = PIPELINE * (len(value) + len(b"$32\r\n\r\n"))
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as ends:
        plain = ends.enter_context(Server("zeekdb"))
        tiered = ends.enter_context(Server("zeekdb", *ends.enter_context(everything())))
        servers = (plain, tiered)
        wires = [ends.enter_context(Wire(("127.0.0.1", server.port), 60)) for server in servers]
        assert wires[1]("KV.MODEL", "SET", "m") == "OK"
        for wire in wires:
            wire.pipeline([("SET", name, value) for name in names])
        for kind in ("idle", "busy"):
            found_: list[list[tuple[float, float]]] = [[], []]
            with Storing(tiered) if kind == "busy" else contextlib.nullcontext():
                for number in range(rounds):
                    for which in (0, 1) if number % 2 else (1, 0):
                        got = gets(servers[which], wires[which], pipeline, reply_bytes, turn_s)
                        found_[which].append(got)
            pairs = list(zip(*found_, strict=True))
            found[kind] = {
                "rates": [median(rate for rate, _ in each) for each in found_],
                "rate_ratio": median(b[0] / a[0] for a, b in pairs),
                "cpu_us": [median(cpu for _, cpu in each) for each in found_],
                "cpu_ratio": median(b[1] / a[1] for a, b in pairs),
                "tiers": tiers_of(wires[1]),
            }
    return found


def tiers_of(wire: Wire) -> dict[str, str]:
    """Name and state of each, so that the figures say what ran."""
    return {name: str(fields.get("state", "")) for name, fields in tiers_fields(wire).items()}


def tiers_fields(wire: Wire) -> dict[str, dict[str, Any]]:
    """KV.TIERS by name."""
    found = {}
    for words in wire("KV.TIERS"):
        fields = {key.decode(): value for key, value in zip(words[::2], words[1::2], strict=True)}
        fields = {name: value.decode() if isinstance(value, bytes) else value for name, value in fields.items()}
        found[fields["name"]] = fields
    return found


# ---- faults --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def remote(name: str) -> Iterator[tuple[ProxyProcess, list[str]]]:
    """A proxy before an engine, and the directives that use it."""
    with contextlib.ExitStack() as ends:

        def before(port: int) -> ProxyProcess:
            proxy = ProxyProcess("127.0.0.1", port)
            ends.callback(proxy.close)
            return proxy

        if name == "warm":
            proxy = before(ends.enter_context(Server("redis")).port)
            yield proxy, ["--kv-warm-url", f"redis://127.0.0.1:{proxy.port}/0", "--kv-warm-timeout", TIMEOUT_MS]
        elif name == "postgres":
            server = Postgres()
            ends.callback(server.stop)
            proxy = before(server.port)
            url = server.tcp_url(port=proxy.port)
            yield proxy, ["--kv-postgres-url", url, "--kv-postgres-write", "store", "--kv-postgres-timeout", TIMEOUT_MS]
        else:
            s3 = S3()
            ends.callback(s3.stop)
            proxy = before(s3.port)
            url = f"s3://{s3.bucket()}/p?endpoint=http://127.0.0.1:{proxy.port}&access_key_id={ACCESS_KEY}"
            yield proxy, [
                "--kv-objects-url", f"{url}&secret_access_key=secret&region=us-east-1", "--kv-objects-min", "0",
                "--kv-objects-write", "store", "--kv-objects-timeout", TIMEOUT_MS,
            ]  # fmt: skip


def turn(wire: Wire, commands: list[bytes], reply_bytes: list[int], turn_s: float) -> list[float]:
    """p99 in µs of each command, asked in alternation for a while."""
    times: list[list[float]] = [[] for _ in commands]
    end = time.perf_counter() + turn_s
    buffers = [bytearray(size) for size in reply_bytes]
    while (begin := time.perf_counter()) < end:
        for which, command in enumerate(commands):
            wire.send(command)
            if wire.file.readinto(buffers[which]) != reply_bytes[which]:
                raise RuntimeError("a short reply")
            now = time.perf_counter()
            times[which].append(now - begin)
            begin = now
    return [percentile(each, 0.99) for each in times]


def reply_size(wire: Wire, command: bytes) -> int:
    """Bytes of the reply, which is the same each time."""
    wire.send(command)
    wire.socket.settimeout(0.3)
    size = 0
    with contextlib.suppress(TimeoutError):
        while data := wire.socket.recv(1 << 20):
            size += len(data)
    wire.socket.settimeout(60)
    return size


def faults(names: list[str], rounds: int, turn_s: float, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each tier and fault."""
    rows = []
    keys = [b"hot:%d" % number for number in range(HOT_BLOCKS)]
    random = Random(3)
    commands = [
        encode(b"KV.LOOKUP", b"m", b"%d" % LOOKUP_KEYS, *random.sample(keys, LOOKUP_KEYS)),
        encode(b"KV.MGET", b"m", b"%d" % MGET_KEYS, *random.sample(keys, MGET_KEYS)),
    ]
    for name in names:
        with contextlib.ExitStack() as ends:
            folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="bench-tiers-"))
            proxy, directives = ends.enter_context(remote(name))
            ssd = ["--kv-ssd-path", f"{folder}/ssd", "--kv-ssd-size", "8gb", "--kv-ssd-uses", "1"]
            server = ends.enter_context(Server("zeekdb", "--kv-memory", "128mb", *ssd, *directives))
            wire = ends.enter_context(Wire(("127.0.0.1", server.port), 60))
            assert wire("KV.MODEL", "SET", "m") == "OK"
            for key in keys:
                assert wire("KV.MSET", "m", 1, key, random.randbytes(HOT_BYTES)) == [1]
            assert wire("KV.PIN", "m", len(keys), *keys) == len(keys)
            sizes = [reply_size(wire, command) for command in commands]
            wait_for(lambda wire=wire, name=name: tiers_fields(wire)[name]["state"] == "ok", 30, "the tier is open")
            with Storing(server) as storing:
                for fault, (mode, value) in FAULTS.items():
                    p99s: list[list[list[float]]] = [[], []]
                    opens = int(tiers_fields(wire)[name]["breaker_opens"])
                    for _ in range(rounds):
                        p99s[0].append(turn(wire, commands, sizes, turn_s))
                        proxy(mode, value)
                        p99s[1].append(turn(wire, commands, sizes, turn_s))
                        proxy("passing")
                        wait_for(lambda wire=wire, name=name: tiers_fields(wire)[name]["state"] == "ok", 30, "it heals")
                    row: dict[str, Any] = {"tier": name, "fault": fault}
                    for which, word in enumerate(("lookup", "mget")):
                        well, ill = ([turns[which] for turns in each] for each in p99s)
                        row[f"{word}_p99_us"] = [median(well), median(ill)]
                        row[f"{word}_ratio"] = median(b / a for a, b in zip(well, ill, strict=True))
                    row["opened"] = int(tiers_fields(wire)[name]["breaker_opens"]) - opens
                    row["stored"], row["refused"] = storing.stored, storing.refused
                    tell(str(row))
                    rows.append(row)
    return rows


# ---- and what came out ---------------------------------------------------------------------------------------------


def text_of(data: dict[str, Any]) -> str:
    """For people."""
    parts = [machine() + "."]
    if "hot" in data:
        rows = [
            [
                kind, " → ".join(f"{rate:,.0f}" for rate in each["rates"]) + f" ({each['rate_ratio']:.3f})",
                " → ".join(f"{cpu:.3f}" for cpu in each["cpu_us"]) + f" ({each['cpu_ratio']:.3f})",
                ", ".join(each["tiers"]),
            ]
            for kind, each in data["hot"].items()
        ]  # fmt: skip
        head = ["tiers", "GETs/s without → with tiers (ratio of rounds)", "µs of CPU for a GET (ratio)", "open"]
        parts.append(table(head, rows))
    if "faults" in data:
        rows = []
        for row in data["faults"]:
            cells = [row["tier"], row["fault"]]
            for word in ("lookup", "mget"):
                well, ill = row[f"{word}_p99_us"]
                cells.append(f"{well:,.0f} → {ill:,.0f} µs ({row[f'{word}_ratio']:.2f})")
            rows.append([*cells, str(row["opened"])])
        parts.append(table(["tier", "fault", "p99 of KV.LOOKUP", "p99 of KV.MGET", "breaker opened"], rows))
    return "\n\n".join(parts)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--hot", action="store_true", help="only the hot path")
    parser.add_argument("--faults", action="store_true", help="only the faults")
    parser.add_argument("--tiers", default="warm,postgres,objects")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn", type=float, default=4.0, help="seconds")
    options = parser.parse_args()
    data: dict[str, Any] = {}
    if options.hot or not options.faults:
        data["hot"] = hot_path(options.rounds * 2, min(options.turn, 0.5))
    if options.faults or not options.hot:
        names = options.tiers.split(",")
        data["faults"] = faults(names, options.rounds, options.turn, lambda text: print(text, file=sys.stderr))
    publish("tiers", data, text_of(data), options.write)


if __name__ == "__main__":
    main()
