"""maxmemory-clients, and what else counts in used_memory beside the data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from tests.support import Server, Wire, encode, wait_for

Start = Callable[..., Server]
MIB = 1 << 20
REPLICA = ("REPLICAOF", "127.0.0.1")


def info(wire: Wire, section: str) -> dict[str, str]:
    """INFO's fields."""
    return dict(line.split(":", 1) for line in wire("INFO", section).decode().splitlines() if ":" in line)


def used(wire: Wire) -> int:
    return int(info(wire, "memory")["used_memory"])


def names(wire: Wire) -> set[str]:
    """Of all clients that have one."""
    words = wire("CLIENT", "LIST").decode().split()
    return {word.removeprefix("name=") for word in words if word.startswith("name=")} - {""}


@pytest.fixture
def server(start_server: Start) -> Server:
    return start_server("--maxmemory-clients", "4mb", "--save", "", "--loglevel", "notice")


@pytest.fixture
def wire(server: Server) -> Wire:
    """One that stays whatever it takes."""
    connection = server.wire()
    assert connection("CLIENT", "NO-EVICT", "on") == "OK"
    return connection


def hoarder(server: Server, name: str, size: int) -> Wire:
    """A connection that has sent so many bytes of a command and not its end."""
    connection = server.wire()
    assert connection("CLIENT", "SETNAME", name) == "OK"
    with contextlib.suppress(OSError):
        connection.send(b"*2\r\n$3\r\nGET\r\n$%d\r\n" % (size + 1) + b"x" * size)
    return connection


def test_those_that_hold_most_go_first(server: Server, wire: Wire) -> None:
    kept = [hoarder(server, name, size) for name, size in (("small", 100_000), ("middle", 700_000))]
    wait_for(lambda: {"small", "middle"} <= names(wire))
    large = hoarder(server, "large", 5 * MIB)
    wait_for(lambda: info(wire, "stats")["evicted_clients"] == "1")
    assert names(wire) == {"small", "middle"}
    assert large.closed()
    assert "Evicting client: id=" in server.log()
    for each in kept:
        each.close()


def test_unread_output_counts(server: Server, wire: Wire) -> None:
    wire("SET", "big", "x" * 500_000)
    with server.wire() as greedy:
        greedy("CLIENT", "SETNAME", "greedy")
        with contextlib.suppress(OSError):
            greedy.send(encode("GET", "big") * 100)
        wait_for(lambda: info(wire, "stats")["evicted_clients"] == "1")
        assert names(wire) == set()


@pytest.mark.parametrize("command", ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "WATCH"])
def test_what_python_holds_counts(server: Server, wire: Wire, command: str) -> None:
    before = used(wire)
    with server.wire() as holder:
        for n in range(12):
            holder.send(encode(command, str(n) + "x" * 300_000))
            holder.read()
        assert used(wire) - before > 3 * MIB
        with contextlib.suppress(OSError, EOFError):
            for n in range(12, 20):
                holder.send(encode(command, str(n) + "x" * 300_000))
                holder.read()
        wait_for(lambda: info(wire, "stats")["evicted_clients"] == "1")
    wait_for(lambda: abs(used(wire) - before) < MIB)


def test_a_client_may_be_kept(server: Server, wire: Wire) -> None:
    keeper = server.wire()
    assert keeper("CLIENT", "NO-EVICT", "ON") == "OK"
    assert keeper("CLIENT", "SETNAME", "keeper") == "OK"
    keeper.send(b"*2\r\n$3\r\nGET\r\n$%d\r\n" % (6 * MIB) + b"x" * (5 * MIB))
    wait_for(lambda: int(info(wire, "memory")["mem_clients_normal"]) > 5 * MIB)
    assert info(wire, "stats")["evicted_clients"] == "0"
    assert "keeper" in names(wire)
    keeper.close()


def test_the_limit_can_be_a_share_and_can_sink(server: Server, wire: Wire) -> None:
    each = hoarder(server, "one", 2 * MIB)
    wait_for(lambda: int(info(wire, "memory")["mem_clients_normal"]) > 2 * MIB)
    assert wire("CONFIG", "SET", "maxmemory", "100mb") == "OK"
    assert wire("CONFIG", "SET", "maxmemory-clients", "5%") == "OK"
    assert names(wire) == {"one"}
    assert wire("CONFIG", "SET", "maxmemory-clients", "1%") == "OK"
    wait_for(lambda: names(wire) == set())
    assert wire("CONFIG", "GET", "maxmemory-clients") == [b"maxmemory-clients", b"1%"]
    each.close()


def test_the_sums_are_those_of_the_list(server: Server, wire: Wire) -> None:
    connections = [server.wire() for _ in range(20)]
    for n, connection in enumerate(connections):
        connection("SUBSCRIBE", *[f"{n}:{k}" for k in range(n + 1)])
    words = wire("CLIENT", "LIST").decode().split()
    total = sum(int(word.split("=")[1]) for word in words if word.startswith("tot-mem="))
    assert abs(total - int(info(wire, "memory")["mem_clients_normal"])) < 4096
    for connection in connections:
        connection.close()
    wait_for(lambda: int(info(wire, "memory")["mem_clients_normal"]) < 10_000)


def test_the_backlog_counts(start_server: Start) -> None:
    server = start_server("--repl-backlog-size", "8mb", "--save", "")
    with server.wire() as wire, server.wire() as replica:
        replica.send(b"SYNC\r\n")
        wait_for(lambda: info(wire, "replication")["connected_slaves"] == "1")
        before = used(wire)
        for _ in range(4):
            wire("SET", "k", "x" * MIB)
        assert used(wire) - before > 4 * MIB
        assert int(info(wire, "memory")["mem_replication_backlog"]) > 4 * MIB


def test_unread_output_of_replicas_evicts_no_keys(start_server: Start) -> None:
    server = start_server("--maxmemory", "40mb", "--maxmemory-policy", "allkeys-lru", "--save", "")
    with server.wire() as wire, server.wire() as replica:
        replica.send(b"SYNC\r\n")
        wait_for(lambda: "state=online" in info(wire, "replication").get("slave0", ""))
        for n in range(100):
            wire("SET", f"kept:{n}", "x" * 1000)
        for _ in range(60):
            wire("SET", "k", "x" * MIB)  # and the replica reads nothing
        told = info(wire, "memory")
        assert int(told["mem_not_counted_for_evict"]) > 30 * MIB
        assert int(told["used_memory"]) > 40 * MIB
        assert info(wire, "stats")["evicted_keys"] == "0"


def test_lua_counts(start_server: Start) -> None:
    server = start_server("--save", "")
    with server.wire() as wire:
        before = used(wire)
        for n in range(1000):
            wire("EVAL", f"return #'{n}{'x' * 1000}'", 0)
        wait_for(lambda: used(wire) - before > 500_000)
