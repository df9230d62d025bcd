"""Fields that expire by the clock, in a server that nobody asks about them; and the twins that meet them."""

from __future__ import annotations

import re

import pytest

from tests.support import Server, Wire, wait_for


def info(wire: Wire, name: str) -> int:
    """A number of INFO; 0 when the database is not listed."""
    found = re.search(rf"{name}[:=](\d+)", wire("INFO", "everything").decode())
    return int(found[1]) if found else 0


@pytest.mark.parametrize("entries", [128, 0])
def test_fields_go_by_the_clock_and_the_key_with_the_last(server: Server, wire: Wire, entries: int) -> None:
    wire("FLUSHALL")
    wire("CONFIG", "RESETSTAT")
    wire("CONFIG", "SET", "hash-max-listpack-entries", entries)
    for size in (1, 15, 16, 17, 40, 300):
        fields = [text for n in range(size) for text in (f"f{n}", "v")]
        names = fields[::2]
        wire("HSET", f"all{size}", *fields)
        wire("HPEXPIRE", f"all{size}", 30, "FIELDS", size, *names)
        wire("HSET", f"some{size}", *fields, "stays", "here")
        wire("HPEXPIRE", f"some{size}", 30, "FIELDS", size, *names)
    assert info(wire, "subexpiry") == 12
    wait_for(lambda: wire("DBSIZE") == 6, what="the hashes without a field that stays are gone")
    wait_for(lambda: info(wire, "subexpiry") == 0, what="nothing is left to expire")
    assert info(wire, "expired_subkeys") == 2 * (1 + 15 + 16 + 17 + 40 + 300)
    for size in (1, 15, 16, 17, 40, 300):
        assert wire("HGETALL", f"some{size}") == [b"stays", b"here"]
    wire("CONFIG", "SET", "hash-max-listpack-entries", 128)


def test_subexpiry_counts_hashes_with_a_deadline(wire: Wire) -> None:
    wire("FLUSHALL")
    for key in ("a", "b", "c"):
        wire("HSET", key, "f", "1", "g", "2")
    counts = []
    for words in (
        "HEXPIRE a 100 FIELDS 1 f", "HEXPIRE b 100 FIELDS 2 f g", "HEXPIRE c 100 FIELDS 1 f", "HDEL a f",
        "HGETDEL c FIELDS 1 f", "HSET b f 1", "HPERSIST b FIELDS 1 g", "HGETEX b EX 9 FIELDS 1 g", "DEL b",
    ):  # fmt: skip
        wire(*words.split())
        counts.append(info(wire, "subexpiry"))
    assert counts == [1, 2, 3, 2, 1, 1, 0, 1, 0]


def test_twins_meet_fields_that_are_due(server: Server, wire: Wire) -> None:
    """HSET, HGET and HMGET have twins; the clock must not help here."""
    wire("FLUSHALL")
    wire("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    try:
        for key in ("small", "large"):
            wire("HSET", key, "stays", "1", "goes", "2", "changes", "3")
            if key == "large":
                wire("HSET", key, "long", "v" * 100)
            assert wire("HPEXPIRE", key, 20, "FIELDS", 2, "goes", "changes") == [1, 1]
            assert wire("HSET", key, "changes", "4") == 0
            assert wire("HPEXPIRE", key, 20, "FIELDS", 1, "stays") == [1]
            assert wire("HPERSIST", key, "FIELDS", 1, "stays") == [1]
            wait_for(lambda key=key: wire("HGET", key, "goes") is None)  # type: ignore[misc]
            assert wire("HMGET", key, "stays", "goes", "changes") == [b"1", None, b"4"]
            assert wire("HSET", key, "goes", "5") == 1
            assert wire("HTTL", key, "FIELDS", 2, "goes", "changes") == [-1, -1]
            wire("HSETEX", key, "PX", 1, "FIELDS", 1, "goes", "6")
            wait_for(lambda key=key: wire("HGET", key, "goes") is None)  # type: ignore[misc]
        assert wire("OBJECT", "ENCODING", "small") == b"listpackex"
        assert wire("OBJECT", "ENCODING", "large") == b"hashtable"
        wire("HSETEX", "last", "PX", 1, "FIELDS", 1, "f", "v")
        wait_for(lambda: wire("EXISTS", "last") == 0)
        assert wire("HSET", "last", "f", "w") == 1
    finally:
        wire("DEBUG", "SET-ACTIVE-EXPIRE", 1)


def test_a_watched_key_whose_field_expires(server: Server, wire: Wire) -> None:
    wire("HSETEX", "watched", "PX", 5, "FIELDS", 1, "f", "v")
    wire("WATCH", "watched")
    with server.wire() as other:
        wait_for(lambda: other("EXISTS", "watched") == 0)
    wire("MULTI")
    wire("PING")
    assert wire("EXEC") != [b"PONG"]
    assert wire("EXISTS", "watched") == 0


def test_both_protocols(wire: Wire) -> None:
    wire("DEL", "h")
    wire("HSET", "h", "a", "1")
    for protocol in (2, 3):
        wire("HELLO", protocol)
        assert wire("HEXPIRE", "h", 100, "FIELDS", 2, "a", "b") == [1, -2]
        assert wire("HGETEX", "h", "PERSIST", "FIELDS", 2, "a", "b") == [b"1", None]
        assert wire("HTTL", "h", "FIELDS", 2, "a", "b") == [-1, -2]
        assert wire("HSETEX", "h", "FXX", "FIELDS", 1, "b", "1") == 0
