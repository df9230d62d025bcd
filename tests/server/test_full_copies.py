"""Full copies for replicas: clients are served meanwhile, what they write arrives, and both forms of image are read."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import REDIS, Server, Wire, encode, wait_for

Start = Callable[..., Server]
KEYS = 300_000
DEBUG = ("--enable-debug-command", "local", "--save", "", "--rdbcompression", "no")
PAUSE_MAX_S = 0.5  # for a PING on a machine that does other things too; one piece takes some thousandths


@pytest.fixture
def server() -> Iterator[Server]:
    """One whose images are large, and whose counters begin at 0."""
    with Server(*DEBUG) as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


def field(wire: Wire, section: str, name: str) -> str:
    """INFO's value; empty when there is none."""
    lines = wire("INFO", section).decode().splitlines()
    return next((line.partition(":")[2] for line in lines if line.startswith(f"{name}:")), "")


def link_is_up(wire: Wire) -> bool:
    return field(wire, "replication", "master_link_status") == "up"


@contextlib.contextmanager
def pinging(server: Server) -> Iterator[list[float]]:
    """A connection that asks all the time; the seconds that each answer took."""
    waits: list[float] = []
    done = threading.Event()

    def ask() -> None:
        with server.wire() as wire:
            while not done.is_set():
                begin = time.monotonic()
                assert wire("PING") == "PONG"
                waits.append(time.monotonic() - begin)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield waits
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("diskless", ["yes", "no"])
@pytest.mark.parametrize("theirs", [False, True], ids=["zeekdb", "redis-server"])
def test_clients_are_served_and_their_writes_arrive(start_server: Start, diskless: str, theirs: bool) -> None:
    primary = start_server("--repl-diskless-sync", diskless, *DEBUG)
    replica = start_server("--save", "", program=REDIS) if theirs else start_server(*DEBUG)
    with primary.wire() as wire, replica.wire() as other:
        wire("DEBUG", "POPULATE", KEYS, "key", 100)
        with pinging(primary) as waits:
            other("REPLICAOF", "127.0.0.1", str(primary.port))
            wait_for(lambda: field(wire, "persistence", "rdb_bgsave_in_progress") == "1")
            written = 0
            while not link_is_up(other):
                wire.pipeline([("SET", f"new:{written + n}", n) for n in range(10)])
                wire.pipeline([("SET", f"key:{written + n}", "changed") for n in range(10)])
                written += 10
            count = len(waits)
        assert count > 20
        assert max(waits) < PAUSE_MAX_S
        assert wire("WAIT", 1, 10_000) == 1
        assert other("DBSIZE") == wire("DBSIZE") == KEYS + written
        for number in (0, written - 1):
            assert other("GET", f"new:{number}") == b"%d" % (number % 10)
            assert other("GET", f"key:{number}") == b"changed"
        assert wire("DEBUG", "DIGEST") == other("DEBUG", "DIGEST") if not theirs else True
        assert field(wire, "replication", "slave0").split(",")[2] == "state=online"


class Copy:
    """A connection that says PSYNC and reads an image with a mark, slowly or not at all."""

    def __init__(self, server: Server, *capabilities: str) -> None:
        self.wire = server.wire()
        for capability in capabilities:
            assert self.wire("REPLCONF", "capa", capability) == "OK"
        self.wire.send(encode("PSYNC", "?", "-1"))

    def line(self) -> bytes:
        """The next line that says something."""
        while not (line := self.wire.file.readline().strip()):
            pass
        return line

    def image(self) -> bytes:
        """Whichever form it has."""
        assert self.line().startswith(b"+FULLRESYNC ")
        head = self.line()
        if not head.startswith(b"$EOF:"):
            return self.wire.file.read(int(head[1:]))
        mark, data = head.removeprefix(b"$EOF:"), bytearray()
        assert len(mark) == 40
        while not data.endswith(mark):
            data += self.wire.file.read1(1 << 16)  # type: ignore[attr-defined]
        return bytes(data[:-40])


def states(wire: Wire) -> list[str]:
    """Of all replicas."""
    lines = wire("INFO", "replication").decode().splitlines()
    return [line.split("state=")[1].split(",")[0] for line in lines if line.startswith("slave") and "state=" in line]


def test_nothing_follows_a_mark_before_the_replica_has_acknowledged(server: Server, wire: Wire) -> None:
    wire("SET", "a", "1")
    copy = Copy(server, "eof")
    image = copy.image()
    assert image.startswith(b"REDIS")
    wire("SET", "b", "2")
    assert copy.wire.quiet()
    copy.wire.send(encode("REPLCONF", "ACK", "0"))
    assert copy.wire.read() == [b"SELECT", b"0"]
    assert copy.wire.read() == [b"SET", b"b", b"2"]
    copy.wire.close()


def test_whoever_takes_no_mark_is_told_the_size(server: Server, wire: Wire) -> None:
    wire("SET", "a", "1")
    copy = Copy(server)
    assert copy.image().startswith(b"REDIS")
    wire("SET", "b", "2")
    assert copy.wire.read() == [b"SELECT", b"0"]
    assert copy.wire.read() == [b"SET", b"b", b"2"]
    assert not list(server.directory.glob("temp-*"))
    copy.wire.close()


def test_those_who_wait_share_a_snapshot(server: Server, wire: Wire) -> None:
    wire("DEBUG", "POPULATE", KEYS, "key", 100)
    first = Copy(server, "eof")  # it does not read, and so holds the others up
    wait_for(lambda: field(wire, "persistence", "rdb_bgsave_in_progress") == "1")
    others = [Copy(server, "eof") for _ in range(3)]
    wait_for(lambda: states(wire) == ["wait_bgsave"] * 4)
    assert wire("BGSAVE") == "ERR Background save already in progress"
    assert field(wire, "stats", "sync_full") == "1"
    wire("SET", "between", "1")
    threads = [threading.Thread(target=each.image) for each in (first, *others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: states(wire) == ["online"] * 4)
    assert field(wire, "stats", "sync_full") == "4"
    assert field(wire, "persistence", "rdb_bgsave_in_progress") == "0"
    first.wire.send(encode("REPLCONF", "ACK", "0"))
    assert first.wire.read() == [b"SELECT", b"0"]
    assert first.wire.read() == [b"SET", b"between", b"1"]
    for each in (first, *others):
        each.wire.close()


def test_what_waits_behind_an_image_is_limited(start_server: Start) -> None:
    server = start_server("--client-output-buffer-limit", "replica 1mb 0 0", "--repl-backlog-size", "16kb", *DEBUG)
    with server.wire() as wire:
        wire("DEBUG", "POPULATE", KEYS, "key", 100)
        copy = Copy(server, "eof")
        wait_for(lambda: field(wire, "persistence", "rdb_bgsave_in_progress") == "1")
        wire.pipeline([("SET", "big", "x" * 300_000)] * 3)
        assert states(wire) == ["wait_bgsave"]
        wire.pipeline([("SET", "big", "x" * 300_000)] * 3)
        wait_for(lambda: states(wire) == [])
        assert field(wire, "stats", "client_output_buffer_limit_disconnections") == "1"
        wait_for(lambda: field(wire, "persistence", "rdb_bgsave_in_progress") == "0")
        copy.wire.close()


def test_a_flush_ends_a_copy(server: Server, wire: Wire) -> None:
    wire("DEBUG", "POPULATE", KEYS, "key", 100)
    copy = Copy(server, "eof")
    wait_for(lambda: field(wire, "persistence", "rdb_bgsave_in_progress") == "1")
    wire("FLUSHALL")
    assert copy.wire.closed()
    wait_for(lambda: states(wire) == [])
    again = Copy(server, "eof")
    assert len(again.image()) < 1000
    for each in (copy, again):
        each.wire.close()


def test_whoever_wants_only_the_image_is_let_go(server: Server, wire: Wire) -> None:
    wire("SET", "a", "1")
    with server.wire() as reader:
        assert reader("REPLCONF", "rdb-only", "1") == "OK"
        reader.send(b"SYNC\r\n")
        assert reader.file.read(int(reader.file.readline()[1:])).startswith(b"REDIS")
        assert reader.closed()


def test_a_chain_is_told_the_database_of_the_stream(start_server: Start) -> None:
    top, middle, low = (start_server(*DEBUG) for _ in range(3))
    with top.wire() as first, middle.wire() as second, low.wire() as third:
        second("REPLICAOF", "127.0.0.1", str(top.port))
        wait_for(lambda: link_is_up(second))
        first.pipeline([("SELECT", "5"), ("SET", "a", "1")])
        assert first("WAIT", 1, 5000) == 1
        third("REPLICAOF", "127.0.0.1", str(middle.port))
        wait_for(lambda: link_is_up(third))
        first("SET", "b", "2")
        third("SELECT", "5")
        wait_for(lambda: third("GET", "b") == b"2")
        assert third("GET", "a") == b"1"


def test_a_full_copy_is_in_the_append_only_file(start_server: Start) -> None:
    primary, replica = start_server(*DEBUG), start_server(*DEBUG, "--appendonly", "yes")
    with primary.wire() as wire, replica.wire() as other:
        wire("DEBUG", "POPULATE", 1000)
        other("SET", "old", "1")
        other("REPLICAOF", "127.0.0.1", str(primary.port))
        wait_for(lambda: link_is_up(other))
        wait_for(lambda: field(other, "persistence", "aof_rewrite_in_progress") == "0")
    replica.terminate()
    again = start_server("--appendonly", "yes", "--dir", str(replica.directory))
    with again.wire() as other:
        assert other("DBSIZE") == 1000
