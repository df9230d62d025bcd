"""Plain keys that `kv-namespace` gives to the tensor region, as clients of a cache that speaks Redis use them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from tests.support import Failure, Server, encode, wait_for

Start = Callable[..., Server]
KIB, MIB = 1 << 10, 1 << 20


def payload(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    names = ["--kv-namespace", "vllm@*", "lm", "--kv-namespace", "other:*", "second"]
    with Server("--kv-memory", "16mb", "--save", "", "--kv-exists-lease", "30000", *names) as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


@pytest.mark.parametrize("size", [0, 5, 65_535, 65_536, MIB])
def test_plain_keys(plain: Server, size: int) -> None:
    data = payload(size, size)
    with plain.wire() as wire:
        assert wire("SET", "vllm@1", "first") == "OK"
        assert wire("SET", "vllm@1", data) == "OK"
        assert wire("GET", "vllm@1") == data
        assert wire("SET", "usual", "here") == "OK"
        assert wire("MGET", "usual", "vllm@1", "none", "vllm@none", "usual") == [b"here", data, None, None, b"here"]
        assert wire("EXISTS", "vllm@1", "usual", "vllm@none", "vllm@1") == 3
        assert wire("DBSIZE") == 1
        assert wire("KV.MGET", "lm", 1, "vllm@1") == [data]
        assert wire("DEL", "vllm@1", "usual", "vllm@none") == 2
        assert wire("GET", "vllm@1") is None
        assert wire("UNLINK", "vllm@1") == 0
        assert wire("DBSIZE") == 0


def test_plain_keys_take_options_or_say_so(plain: Server) -> None:
    with plain.wire() as wire:
        assert wire("SET", "vllm@t", "x", "EX", 100) == "OK"
        assert 98 <= wire("KV.TTL", "lm", "vllm@t") <= 100
        assert wire("SET", "vllm@t", "x") == "OK"
        assert wire("KV.TTL", "lm", "vllm@t") == -1
        for words in (("NX",), ("EX",), ("EX", 0), ("EX", -1), ("EX", "x"), ("EX", 1, "NX"), ("KEEPTTL",), ("GET",)):
            assert isinstance(wire("SET", "vllm@t", "y", *words), Failure), words
        assert isinstance(wire("SET", "vllm@" + "k" * 17_000, "x"), Failure)
        for command in ("GET", "EXISTS", "DEL"):
            assert isinstance(wire(command, "vllm@" + "k" * 17_000), Failure), command
        assert isinstance(wire("MGET", "vllm@t", "other:t"), Failure)
        assert wire("SET", "vllm@t", "x", "PX", 1) == "OK"
        wait_for(lambda: wire("GET", "vllm@t") is None)


def test_the_models_lifetime_is_every_blocks(plain: Server) -> None:
    """However long: what passes the 32 bits of the index is as good as for ever."""
    with plain.wire() as wire:
        for ttl_s, least, most in ((1, 1, 2), (100, 98, 101), (9_000_000_000, 1 << 31, 1 << 32)):
            assert wire("KV.MODEL", "SET", "lm", "TTL", ttl_s) == "OK"
            assert wire("SET", "vllm@l", "x") == "OK"
            assert least <= wire("KV.TTL", "lm", "vllm@l") <= most
        assert wire("DEL", "vllm@l") == 1
        assert wire("KV.MODEL", "SET", "lm") == "OK"


def test_large_words_that_are_no_values(plain: Server) -> None:
    large = b"x" * MIB
    with plain.wire() as wire:
        assert wire("SET", large, "usual") == "OK"
        assert wire("MGET", large, "vllm@w") == [b"usual", None]
        assert wire("EXISTS", "vllm@w", large) == 1
        assert wire("DEL", "vllm@w", large) == 1
        for call in (("SET", b"vllm@" + large, "v"), ("GET", b"vllm@" + large), ("SET", "vllm@w", "v", large),
                     ("SET", "vllm@w", "v", "EX", large), ("SET", "vllm@w", large, "EX", large)):  # fmt: skip
            assert isinstance(wire(*call), Failure)


def test_a_full_store_answers_ok(plain: Server) -> None:
    data = payload(1, MIB)
    with plain.wire() as wire:
        for i in range(40):
            assert wire("SET", f"vllm@full{i}", data) == "OK"
            assert wire("EXISTS", f"vllm@full{i}") in (0, 1)  # which leases it
        there = [i for i in range(40) if wire("GET", f"vllm@full{i}") == data]
        assert there == list(range(len(there))) and len(there) >= 14
        assert wire("SET", "vllm@huge", bytes(17 * MIB)) == "OK"
        assert wire("GET", "vllm@huge") is None
        assert wire("DEL", *(f"vllm@full{i}" for i in range(40))) == len(there)


def test_both_halves_of_a_chunk_stay_or_go(plain: Server) -> None:
    data = payload(1, 256 * KIB)
    with plain.wire() as wire:
        held = ["vllm@held0", "vllm@held1", "vllm@held2"]
        for name in held:
            wire("SET", f"{name}kv_bytes", data)
            wire("SET", f"{name}metadata", "shape")
        assert wire("EXISTS", *(f"{name}kv_bytes" for name in held[:2]), f"{held[2]}metadata") == 3
        for i in range(200):
            wire("SET", f"vllm@chunk{i}kv_bytes", data)
            wire("SET", f"vllm@chunk{i}metadata", "shape")
            if i % 10 == 0:
                names = [f"vllm@chunk{j}" for j in range(i)]
                both = [wire("KV.LOOKUP", "lm", 2, f"{name}kv_bytes", f"{name}metadata")[2] for name in names]
                assert set(both) <= {b"\2\2", b"\0\0"}, both
        for name in held:
            assert wire("MGET", f"{name}kv_bytes", f"{name}metadata") == [data, b"shape"]
        assert b"\0\0" in both
        wire("DEL", *(f"vllm@chunk{i}{half}" for i in range(200) for half in ("kv_bytes", "metadata")))
        wire("DEL", *(f"{name}{half}" for name in held for half in ("kv_bytes", "metadata")))
        assert wire("KV.STATS", "lm")[3] == 0


def test_plain_keys_in_transactions_under_users_and_monitors(plain: Server) -> None:
    data = b"z" * MIB
    with plain.wire() as wire, plain.wire() as monitor, plain.wire() as user:
        wire("ACL", "SETUSER", "half", "on", ">pw", "~vllm@a*", "+@all")
        assert user("AUTH", "half", "pw") == "OK"
        assert user("SET", "vllm@a1", data) == "OK"
        assert user("SET", "vllm@b1", data).startswith("NOPERM")
        assert user("MGET", "vllm@a1", "vllm@b1").startswith("NOPERM")
        assert monitor("MONITOR") == "OK"
        assert user("GET", "vllm@a1") == data
        assert '"GET" "vllm@a1"' in monitor.read()
        assert user("SET", "vllm@a2", data) == "OK"
        assert '"SET" "vllm@a2" "zzzz' in monitor.read()
        wire("MULTI")
        assert wire("SET", "vllm@a3", data) == "QUEUED"
        assert wire("GET", "vllm@a3") == "QUEUED"
        assert wire("SET", "plain", "x") == "QUEUED"
        assert wire("DEL", "vllm@a3", "plain") == "QUEUED"
        assert wire("EXEC") == ["OK", data, "OK", 2]
        before = wire("CONFIG", "GET", "slowlog-log-slower-than")[1]
        wire("CONFIG", "SET", "slowlog-log-slower-than", 0)
        assert wire("SET", "vllm@a4", data) == "OK"
        wire("CONFIG", "SET", "slowlog-log-slower-than", before)
        wire("CLIENT", "PAUSE", 60_000, "WRITE")
        user.send(encode("SET", "vllm@a5", data))
        assert user.quiet()
        wire("CLIENT", "UNPAUSE")
        assert user.read() == "OK"
        assert wire("GET", "vllm@a5") == data
        wire("ACL", "DELUSER", "half")
        assert wire("EVAL", "return redis.call('GET', KEYS[1])", 1, "vllm@a5") is not False


def test_pipelined_plain_keys_among_others(plain: Server) -> None:
    with plain.wire() as wire:
        calls = [("SET", f"{'vllm@' if i % 3 else 'usual'}{i}", payload(i, 10 + i * 997 % 90_000)) for i in range(150)]
        assert wire.pipeline(calls) == ["OK"] * 150
        found = wire.pipeline([("GET", key) for _, key, _ in calls])
        assert found == [data for _, _, data in calls]
        assert wire.pipeline([("DEL", key) for _, key, _ in calls]) == [1] * 150


def test_namespaces_change_at_run_time(start_server: Start) -> None:
    server = start_server("--kv-memory", "16mb", "--save", "", "--rename-command", "GET", "FETCH")
    with server.wire() as wire:
        assert wire("SET", "vllm@1", "plain") == "OK"
        assert wire("CONFIG", "SET", "kv-namespace", "vllm@* lm") == "OK"
        assert wire("FETCH", "vllm@1") is None
        assert wire("SET", "vllm@1", "block") == "OK"
        assert wire("FETCH", "vllm@1") == b"block"
        assert wire("KV.MODEL", "DEL", "lm").startswith("ERR kv-namespace gives keys to model 'lm'")
        assert wire("CONFIG", "SET", "kv-namespace", "") == "OK"
        assert wire("FETCH", "vllm@1") == b"plain"
        assert wire("KV.MODEL", "DEL", "lm") == 1
