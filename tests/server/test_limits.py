"""Who may come in, how much each may hold, and that nobody pays for another."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable

import pytest

from tests.support import Failure, Server, Wire, encode, free_port, wait_for

Start = Callable[..., Server]


def outside_address() -> str:
    """An address of this machine that is not the loopback; the test is skipped where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing
        address = str(probe.getsockname()[0])
        if not address.startswith("127."):
            return address
    pytest.skip("this machine has only a loopback")


def test_maxclients_turns_the_next_one_away(start_server: Start) -> None:
    server = start_server("--maxclients", "3")
    wait_for(lambda: counted(server) == 1, what="the probe of the start has gone")
    held = [server.wire() for _ in range(3)]
    assert [each("PING") for each in held] == ["PONG"] * 3
    with server.wire() as refused:
        assert refused.read() == "ERR max number of clients reached"
        assert refused.closed()
    held.pop().close()

    def admitted() -> bool:
        with server.wire() as fresh:
            try:
                return bool(fresh("PING") == "PONG")
            except (EOFError, ConnectionError):
                return False

    wait_for(admitted, what="a place is free again")
    rejected = held[0]("INFO", "stats").decode()
    assert "rejected_connections:0" not in rejected


def counted(server: Server) -> int:
    with server.wire() as wire:
        return len(wire("CLIENT", "LIST").decode().splitlines())


def test_timeout_ends_who_is_idle(start_server: Start) -> None:
    server = start_server("--timeout", "1")
    with server.wire() as idle, server.wire() as busy:
        assert idle("PING") == "PONG"
        idle.socket.settimeout(0.1)

        def ended() -> bool:
            assert busy("PING") == "PONG"
            try:
                return idle.socket.recv(1) == b""
            except TimeoutError:
                return False

        wait_for(ended, 5, "the idle connection is closed")


def test_requirepass(start_server: Start) -> None:
    server = start_server("--requirepass", "secret")
    with server.wire() as wire:
        for command in (("GET", "k"), ("PING",), ("HELLO", 3), ("CONFIG", "GET", "*"), ("NOSUCH",), ("CLIENT", "ID")):
            reply = wire(*command)
            assert isinstance(reply, Failure), command
            assert reply.startswith(("NOAUTH", "ERR unknown command")), reply
        assert wire("AUTH", "wrong") == "WRONGPASS invalid username-password pair or user is disabled."
        assert wire("AUTH", "default", "wrong").startswith("WRONGPASS")
        assert wire("AUTH", "secret") == "OK"
        assert wire("PING") == "PONG"
        assert wire("RESET") == "RESET"
        assert wire("PING").startswith("NOAUTH")
        assert wire("HELLO", 3, "AUTH", "default", "secret")[b"proto"] == 3
        assert wire("CONFIG", "SET", "requirepass", "") == "OK"
    with server.wire() as wire:
        assert wire("PING") == "PONG"
        assert wire("AUTH", "x").startswith("ERR AUTH <password> called without any password configured")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"*11\r\n", "ERR Protocol error: unauthenticated multibulk length"),
        (b"*2\r\n$3\r\nGET\r\n$16385\r\n", "ERR Protocol error: unauthenticated bulk length"),
    ],
)
def test_before_the_password_little_is_taken(start_server: Start, data: bytes, error: str) -> None:
    server = start_server("--requirepass", "secret")
    with server.wire() as wire:
        wire.send(data)
        assert wire.read() == error
        assert wire.closed()


def test_protected_mode_refuses_the_outside(start_server: Start) -> None:
    address = outside_address()
    server = start_server("--bind", f"127.0.0.1 {address}")
    with Wire((address, server.port)) as wire:
        reply = wire.read()
        assert isinstance(reply, Failure)
        assert reply.startswith("DENIED Redis is running in protected mode")
        assert wire.closed()
    with server.wire() as inside:
        assert inside("CONFIG", "SET", "protected-mode", "no") == "OK"
    with Wire((address, server.port)) as wire:
        assert wire("PING") == "PONG"


def test_unix_socket_and_its_permissions(start_server: Start) -> None:
    server = start_server("--unixsocketperm", "700", unix=True)
    with server.wire() as wire:
        assert wire("SET", "k", b"x" * 1_000_000) == "OK"
        assert wire("STRLEN", "k") == 1_000_000
        assert server.unix in wire("CLIENT", "INFO").decode()
    assert stat.S_IMODE(os.stat(server.unix).st_mode) == 0o700
    assert server.terminate() == 0
    assert not os.path.exists(server.unix)


def test_several_addresses_and_a_missing_one(start_server: Start) -> None:
    server = start_server("--bind", "127.0.0.1 127.0.0.2 -::1")
    for address in ("127.0.0.1", "127.0.0.2"):
        with Wire((address, server.port)) as wire:
            assert wire("PING") == "PONG"
    with pytest.raises(OSError), Wire(("127.0.0.3", server.port)):
        pass
    with contextlib.suppress(OSError), Wire(("::1", server.port)) as wire:
        assert wire("PING") == "PONG"


def test_a_taken_port_ends_the_start_with_a_message(start_server: Start) -> None:
    first = start_server()
    second = start_server(port=first.port, wait=False)
    assert second.process.wait(20) != 0
    assert "Address already in use" in second.log() or "in use" in second.log()


def test_bind_and_port_change_at_run_time(start_server: Start) -> None:
    server = start_server()
    port = free_port()
    with server.wire() as wire:
        assert wire("CONFIG", "SET", "port", port) == "OK"
        assert wire("PING") == "PONG"  # who is in stays in
        with Wire(("127.0.0.1", port)) as fresh:
            assert fresh("PING") == "PONG"
        with pytest.raises(ConnectionError):
            server.wire()


def test_output_buffer_hard_limit_ends_the_slow_reader_only(start_server: Start) -> None:
    server = start_server("--client-output-buffer-limit", "normal 1000000 0 0")
    with server.wire() as wire, server.wire() as slow:
        wire("SET", "big", b"x" * 400_000)
        slow.socket.settimeout(20)
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                slow.send(encode("GET", "big") * 10)
                assert wire("PING") == "PONG"
        wait_for(lambda: counted(server) <= 2, what="the slow reader is gone")
        assert wire("PING") == "PONG"
        assert server.rss_bytes() < 500_000_000


def test_query_buffer_limit(start_server: Start) -> None:
    server = start_server("--client-query-buffer-limit", "1mb")
    with server.wire() as wire:
        with contextlib.suppress(ConnectionError):
            wire.send(encode("SET", "k", b"x" * (8 << 20)))
        assert wire.closed()
    with server.wire() as wire:
        assert wire("EXISTS", "k") == 0


def test_proto_max_bulk_len(start_server: Start) -> None:
    server = start_server("--proto-max-bulk-len", "2mb")
    with server.wire() as wire:
        assert wire("SET", "k", b"x" * (2 << 20)) == "OK"
        assert wire("APPEND", "k", b"x") == "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
        assert wire("SETRANGE", "k", 2 << 20, b"x") == "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
        wire.send(b"*2\r\n$3\r\nGET\r\n$%d\r\n" % ((2 << 20) + 1))
        assert wire.read() == "ERR Protocol error: invalid bulk length"


def test_a_thousand_idle_connections_cost_little(start_server: Start) -> None:
    server = start_server()
    before = server.rss_bytes()
    held = [server.wire() for _ in range(400)]
    assert all(each("PING") == "PONG" for each in held)
    per_connection = (server.rss_bytes() - before) / len(held)
    for each in held:
        each.close()
    assert per_connection < 40 * 1024
    wait_for(lambda: counted(server) == 1, what="all are gone")


def test_large_arguments_while_large_replies_wait() -> None:
    """A reply that goes out in pieces must not wake the parser over an argument that is half received."""
    value = bytes(range(256)) * 4096
    commands = [(b"SET", b"big", value), (b"GET", b"big"), (b"APPEND", b"big", value), (b"GET", b"big"),
                (b"RPUSH", b"l", value, b"a", value), (b"LRANGE", b"l", b"0", b"-1"),
                (b"SET", b"big", value)]  # fmt: skip
    with Server("--save", "", unix=True) as server:
        for _ in range(20):
            with server.wire(60) as wire:
                replies = wire.pipeline([(b"FLUSHALL",), *commands])
                assert replies[2] == value
                assert replies[4] == value * 2
                assert replies[6] == [value, b"a", value]
                assert wire.pipeline([(b"PING",)])
