"""While a server loads its data: who asks is told so, and it can be ended."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import Server, Wire, wait_for
from zeekdb.hot.rdb import encode_string
from zeekdb.persistence import rdb

Start = Callable[..., Server]
KEYS = 1_500_000
REFUSAL = "LOADING Redis is loading the dataset in memory"
DEBUG = ("--enable-debug-command", "local", "--rdbcompression", "no")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a `dump.rdb` that takes a while to load."""
    folder = tmp_path_factory.mktemp("snapshot")
    with Server("--dir", str(folder), *DEBUG) as server, server.wire(60) as wire:
        assert wire("DEBUG", "POPULATE", KEYS) == "OK"
        assert wire("SAVE") == "OK"
    return folder


def connected(server: Server) -> Wire:
    """A connection, as soon as the server takes one."""

    def attempt() -> Wire | None:
        try:
            return server.wire(30)
        except OSError:
            return None

    return wait_for(attempt)


def persistence(wire: Wire) -> dict[str, str]:
    """INFO persistence."""
    return dict(line.split(":", 1) for line in wire("INFO", "persistence").decode().splitlines() if ":" in line)


def watch(server: Server) -> None:
    """What can be asked while it loads, and that it ends."""
    with connected(server) as wire:
        assert wire("GET", "key:1") == REFUSAL
        assert wire("PING") == REFUSAL
        assert wire("SAVE") == REFUSAL
        assert wire("SELECT", "1") == "OK"
        assert wire("HELLO")[1] == b"redis"
        other = "no" if b"yes" in wire("CONFIG", "GET", "appendonly") else "yes"
        assert wire("CLIENT", "SETNAME", "me") == "OK"
        assert "Redis is loading the dataset" in wire("CONFIG", "SET", "appendonly", other)
        assert wire.pipeline([("MULTI",), ("ECHO", "x"), ("EXEC",)])[2] == [b"x"]
        assert wire.pipeline([("MULTI",), ("GET", "x"), ("EXEC",)])[2].startswith("EXECABORT ")
        told = persistence(wire)
        assert (told["loading"], told["async_loading"]) == ("1", "0")
        assert 0 < int(told["loading_loaded_bytes"]) < int(told["loading_total_bytes"])
        assert 0 < float(told["loading_loaded_perc"]) < 100
        assert int(told["loading_eta_seconds"]) >= 0
        assert int(told["loading_start_time"]) > 0
        wait_for(lambda: wire("PING") == "PONG", 60)
        told = persistence(wire)
        assert told["loading"] == "0"
        assert "loading_start_time" not in told
        wire("SELECT", "0")
        assert wire("DBSIZE") == KEYS
        assert wire("GET", "key:1") == b"value:1"


def test_whoever_asks_is_told(snapshot: Path) -> None:
    with Server("--dir", str(snapshot), "--save", "", wait=False) as server:
        watch(server)


def test_an_append_only_file_too(tmp_path: Path) -> None:
    with Server("--dir", str(tmp_path), "--appendonly", "yes", *DEBUG) as server, server.wire(60) as wire:
        for begin in range(0, KEYS, 100_000):
            commands = (b"SET key:%d value:%d\r\n" % (n, n) for n in range(begin, begin + 100_000))
            wire.send(b"".join(commands))
            assert {wire.read() for _ in range(100_000)} == {"OK"}
        assert server.terminate() == 0
    with Server("--dir", str(tmp_path), "--appendonly", "yes", wait=False) as server:
        watch(server)


def test_an_end_while_it_loads_leaves_the_file(snapshot: Path) -> None:
    size = (snapshot / "dump.rdb").stat().st_size
    for how in ("signal", "SHUTDOWN"):
        with Server("--dir", str(snapshot), "--save", "3600 1", wait=False) as server:
            with connected(server) as wire:
                assert wire("PING") == REFUSAL
                if how == "SHUTDOWN":
                    wire.send(b"SHUTDOWN SAVE\r\n")
                    assert server.process.wait(10) == 0
                else:
                    assert server.terminate() == 0
            assert (snapshot / "dump.rdb").stat().st_size == size
            assert "Traceback" not in server.log(), server.log()


class Primary:
    """The other side of a replica's link, as far as the image."""

    def __init__(self, listener: socket.socket) -> None:
        self.link, _ = listener.accept()
        self.file = self.link.makefile("rb")

    def send(self, image: bytes) -> None:
        """Answers until it has asked for one, and sends that."""
        while (name := self.command()[0].upper()) != b"PSYNC":
            self.link.sendall(b"+PONG\r\n" if name == b"PING" else b"+OK\r\n")
        self.link.sendall(b"+FULLRESYNC %b 0\r\n$%d\r\n" % (b"1" * 40, len(image)))
        self.link.sendall(image)

    def command(self) -> list[bytes]:
        """The next one."""
        words = []
        for _ in range(int(self.file.readline()[1:])):
            size = int(self.file.readline()[1:])
            words.append(self.file.read(size + 2)[:-2])
        return words

    def ended(self) -> bool:
        """Waits until the replica has left."""
        while self.file.read1(4096):  # type: ignore[attr-defined]
            pass
        self.link.close()
        return True


@contextlib.contextmanager
def listening(wire: Wire) -> Iterator[socket.socket]:
    """The server follows whoever accepts there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        assert wire("REPLICAOF", "127.0.0.1", str(listener.getsockname()[1])) == "OK"
        yield listener


def test_a_replica_is_heard_while_it_loads_and_keeps_no_part_of_an_image(
    snapshot: Path, start_server: Start
) -> None:
    """A primary ends links on which nothing was heard for `repl-timeout`; data that are half there are nobody's."""
    image, server = (snapshot / "dump.rdb").read_bytes(), start_server("--save", "")
    with server.wire(60) as wire, listening(wire) as listener:
        wire("SET", "old", "1")
        first = Primary(listener)
        first.send(image[: len(image) // 2])
        assert first.ended()
        assert wire("DBSIZE") == 0
        second = Primary(listener)
        second.send(image)
        assert second.file.read(1) == b"\n"
        wait_for(lambda: b"master_link_status:up" in wire("INFO", "replication"), 60)
        assert wire("DBSIZE") == KEYS
        second.link.close()


def test_a_replica_asks_again_after_an_image_that_it_cannot_take(start_server: Start) -> None:
    server = start_server("--save", "")
    code = b"#!lua name=lib\nthis is no Lua"
    image = rdb.image([], b"\xf5" + encode_string(code))
    with server.wire() as wire, listening(wire) as listener:
        for _ in range(2):
            primary = Primary(listener)
            primary.send(image)
            assert primary.ended()
        assert "Connection with master lost" in server.log()
