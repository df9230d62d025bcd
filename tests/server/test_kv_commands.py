"""The tensor region's commands over the wire: replies, errors, bytes in any pieces, and all that may interfere."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.support import Failure, Server, Wire, encode, wait_for
from zeekdb.tensors.layout import CODECS, ITEM_BYTES, RANGES

Start = Callable[..., Server]
MIB = 1 << 20
LAYERS, HEADS, DIM, BLOCK = 4, 2, 8, 16
LAYOUT = ("LAYERS", LAYERS, "HEADS", HEADS, "DIM", DIM, "DTYPE", "f16", "BLOCK", BLOCK)
BLOCK_BYTES = 2 * LAYERS * BLOCK * HEADS * DIM * 2


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("--kv-memory", "64mb", "--save", "", "--kv-lease-max", "60000", unix=True) as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    """A connection to a region without models."""
    with server.wire() as connection:
        for name in connection("KV.MODEL", "LIST"):
            connection("KV.MODEL", "DEL", name)
        assert used(connection) == 0
        yield connection


def used(wire: Wire) -> int:
    """Bytes of the arena in use."""
    host = wire("KV.TIERS")[0]
    fields = host if isinstance(host, dict) else dict(zip(host[::2], host[1::2], strict=True))
    return int(fields[b"used_bytes"])


def stats(wire: Wire, *names: str) -> dict[str, Any]:
    found = wire("KV.STATS", *names)
    fields = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    return {key.decode(): value for key, value in fields}


def payload(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def tokens(*ids: int) -> bytes:
    return struct.pack(f"<{len(ids)}I", *ids)


# ---- replies and errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
def test_every_command_answers(wire: Wire, protocol: int) -> None:
    wire("HELLO", protocol)
    assert wire("KV.MODEL", "SET", "m") == "OK"
    fields = wire("KV.MODEL", "GET", "m")
    expected = {b"codec": b"raw", b"ttl": 0, b"quota": 0}
    assert fields == expected if protocol == 3 else dict(zip(fields[::2], fields[1::2], strict=True)) == expected
    assert wire("KV.MODEL", "LIST") == [b"m"]
    assert wire("KV.MSET", "m", 3, "a", "1", "b", "", "c", "333") == [1, 1, 1]
    assert wire("KV.MSET", "m", 2, "a", "1", "d", "4") == [0, 1]
    assert wire("KV.MGET", "m", 5, "a", "b", "none", "c", "d") == [b"1", b"", None, b"333", b"4"]
    assert wire("KV.LOOKUP", "m", 4, "a", "b", "none", "c") == [2, b"\x0b", b"\2\2\0\2"]
    assert wire("KV.LOOKUP", "m", "LEASE", 1000, 2, "a", "none") == [1, b"\1", b"\2\0"]
    assert wire("KV.UNLOCK", "m", 2, "a", "b") == 1
    assert wire("KV.UNLOCK", "m", 1, "a") == 0
    assert wire("KV.EXISTS", "m", 3, "a", "a", "none") == 2
    assert wire("KV.PIN", "m", 2, "a", "none") == 1
    assert wire("KV.UNPIN", "m", 2, "a", "a") == 1
    assert wire("KV.TTL", "m", "a") == -1
    assert wire("KV.TTL", "m", "none") == -2
    assert wire("KV.PREFETCH", "m", 2, "a", "none") == 0
    assert wire("KV.DEMOTE", "m", 1, "a") == 0
    assert wire("KV.DEL", "m", 2, "a", "none") == 1
    assert stats(wire, "m")["blocks"] == 3
    assert stats(wire)["models"] == 1
    assert wire("KV.MODEL", "DEL", "m") == 3
    assert wire("KV.MODEL", "GET", "m").startswith("ERR no such model 'm'")
    assert used(wire) == 0


def test_what_says_try_help_has_help(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    assert wire("KV.MODEL", "NONE", "m").endswith("Try KV.MODEL HELP.")
    words = " ".join(map(str, wire("KV.MODEL", "HELP")))
    for name in ("SET", "GET", "DEL", "LIST", *RANGES, "DTYPE", *ITEM_BYTES, *CODECS):
        assert name in words, name


def test_figures_of_a_model_without_blocks(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    before, whole = stats(wire, "m"), stats(wire)
    assert before["tenants"] == 0 and set(map(float, before.values())) == {0}
    wire("KV.MSET", "m", 1, "a", "12345")
    wire("KV.MGET", "m", 2, "a", "b")
    after = stats(wire, "m")
    assert list(after) == list(before) and list(stats(wire)) == list(whole)
    assert (after["hits"], after["misses"], after["bytes_in"], after["bytes_out"]) == (1, 1, 5, 5)


def test_info_stays_in_its_lines(wire: Wire) -> None:
    for name in ("a\r\nb:c#", "a__b:c#", "plain"):
        wire("KV.MODEL", "SET", name)
    lines = wire("INFO", "tensors").decode().split("\r\n")
    models = [line.split(":")[0] for line in lines if line.startswith("tensors_model_")]
    assert models == ["tensors_model_a__b_c_", "tensors_model_a__b_c_", "tensors_model_plain"]
    assert [line for line in lines if line and line[0] != "#" and not line.startswith("tensors_")] == []


ERRORS = [
    (("KV.MSET", "m"), "ERR wrong number of arguments for 'kv.mset' command"),
    (("KV.MSET", "m", 1, "k"), "ERR wrong number of arguments"),
    (("KV.MSET", "none", 1, "k", "v"), "ERR no such model 'none'"),
    (("KV.MSET", "m", 2, "k", "v"), "ERR the number of keys does not match"),
    (("KV.MSET", "m", 1, "k", "v", "w"), "ERR the number of keys does not match"),
    (("KV.MSET", "m", 0, "k", "v"), "ERR the number of keys must be"),
    (("KV.MSET", "m", -1, "k", "v"), "ERR the number of keys must be"),
    (("KV.MSET", "m", "x", "k", "v"), "ERR "),
    (("KV.MSET", "m", 1 << 70, "k", "v"), "ERR "),
    (("KV.MSET", "m", 65_537, "k", "v"), "ERR the number of keys must be"),
    (("KV.MSET", "m", "TTL", 0, 1, "k", "v"), "ERR invalid expire time"),
    (("KV.MSET", "m", "TTL", -5, 1, "k", "v"), "ERR invalid expire time"),
    (("KV.MSET", "m", "TTL", 1 << 62, 1, "k", "v"), "ERR invalid expire time"),
    (("KV.MSET", "m", "TTL", 1, "TTL", 1, 1, "k", "v"), "ERR syntax error"),
    (("KV.MSET", "m", "SALT", "a", "SALT", "b", 1, "k", "v"), "ERR syntax error"),
    (("KV.MSET", "m", "NOSUCH", 1, 1, "k", "v"), "ERR "),
    (("KV.MSET", "m", 1, "k" * 16385, "v"), "ERR a key has at most 16384 bytes"),
    (("KV.MSET", "m", 1, "k" * 70_000, "v"), "ERR a key has at most 16384 bytes"),
    (("KV.MSET", "m", "GROUP", "g" * 70_000, 1, "k", "v"), "ERR a GROUP has at most 16384 bytes"),
    (("KV.MSET", "m", "PARENT", "p" * 16385, 1, "k", "v"), "ERR a PARENT has at most 16384 bytes"),
    (("KV.MSET", "m", "SALT", "s" * 257, 1, "k", "v"), "ERR a salt has at most 256 bytes"),
    (("KV.MSET", "m" * 70_000, 1, "k", "v"), "ERR a model has at most"),
    (("KV.MGET", "m", 1), "ERR wrong number of arguments"),
    (("KV.MGET", "m", 2, "k"), "ERR the number of keys does not match"),
    (("KV.LOOKUP", "m", "LEASE", 0, 1, "k"), "ERR a lease is from 1 to 60000 ms"),
    (("KV.LOOKUP", "m", "LEASE", 60_001, 1, "k"), "ERR a lease is from 1 to 60000 ms"),
    (("KV.LOOKUP", "m", "LEASE", "soon", 1, "k"), "ERR "),
    (("KV.LOOKUP", "m", "LOCATE", 1, "k"), "ERR LOCATE needs LEASE"),
    (("KV.LOOKUP", "m", "LEASE", 1000, "LOCATE", 1, "k"), "ERR LOCATE needs LEASE"),
    (("KV.TTL", "m", "k", "l"), "ERR wrong number of arguments for 'kv.ttl'"),
    (("KV.STORE", "m", tokens(*range(16)), "v"), "ERR model 'm' has no layout"),
    (("KV.PUT", "m", "s", 0, 0, 1, "k", "v"), "ERR model 'm' has no layout"),
    (("KV.STORE", "l", b"abc", "v"), "ERR tokens are little-endian"),
    (("KV.STORE", "l", tokens(*range(16)), "v"), f"ERR a block of this model has {BLOCK_BYTES} bytes"),
    (("KV.STORE", "l", tokens(*range(32)), b"v" * BLOCK_BYTES), "ERR the tokens make 2 blocks"),
    (("KV.MSET", "l", 1, "k", "v"), f"ERR a block of this model has {BLOCK_BYTES} bytes, not 1"),
    (("KV.MATCH", "l", tokens(1), "LEASE"), "ERR syntax error"),
    (("KV.MATCH", "l", tokens(1), "LEASE", 5, "x"), "ERR syntax error"),
    (("KV.FETCH", "l", tokens(1), "LAYERS", 0), "ERR syntax error"),
    (("KV.FETCH", "l", tokens(1), "LAYERS", 0, 5), "ERR LAYERS must be a range"),
    (("KV.FETCH", "l", tokens(1), "LAYERS", 2, 2), "ERR LAYERS must be a range"),
    (("KV.FETCH", "l", tokens(1), "LAYERS", "a", "b"), "ERR value is not an integer"),
    (("KV.PUT", "l", "s", 4, 0, 1, "k", "v"), "ERR the model has no such layer"),
    (("KV.PUT", "l", "s", 0, 1, 1, "k", "v"), "ERR the token range is empty"),
    (("KV.PUT", "l", "s", 0, 0, 1 << 40, "k", "v"), "ERR "),
    (("KV.PUT", "l", "s", 0, 0, 1, "k", "v"), "ERR 1 tokens of a layer have 32 bytes"),
    (("KV.GET", "l", "s", 0, 0), "ERR wrong number of arguments"),
    (("KV.GET", "l", "s", 0, 0, 1, 2), "ERR wrong number of arguments"),
    (("KV.STATS", "none"), "ERR no such model"),
    (("KV.STATS", "m", "l"), "ERR wrong number of arguments"),
    (("KV.MODEL", "SET", "x", "LAYERS", 1), "ERR LAYERS without HEADS"),
    (("KV.MODEL", "SET", "x", "TTL"), "ERR syntax error"),
    (("KV.MODEL", "SET", "x", "TTL", 1, "TTL", 1), "ERR syntax error"),
    (("KV.MODEL", "SET", "", "TTL", 1), "ERR the name of a model"),
    (("KV.MODEL", "DEL", "none"), "ERR no such model"),
    (("KV.MODEL", "NOSUCH"), "ERR unknown subcommand"),
    (("KV.ATTACH", "x"), "ERR wrong number of arguments"),
    (("KV.RESERVE", 1, 100), "ERR the connection has not called KV.ATTACH"),
    (("KV.COMMIT", "m", 1, "k", 0), "ERR the connection has not called KV.ATTACH"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error"), ERRORS, ids=[f"{i}-{call[0]}" for i, (call, _) in enumerate(ERRORS)])
def test_errors(wire: Wire, call: tuple[Any, ...], error: str) -> None:
    wire("KV.MODEL", "SET", "m")
    wire("KV.MODEL", "SET", "l", *LAYOUT)
    reply = wire(*call)
    assert isinstance(reply, Failure) and reply.startswith(error), reply
    assert wire("PING") == "PONG"
    assert used(wire) == 0 and stats(wire).get("blocks", 0) == 0


def test_keys_are_any_bytes(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m\r\n\xff")
    keys = [b"", b"\0", b"\r\n", bytes(range(256)), b"k" * 4096, b"TTL", b"1"]
    pairs = [word for key in keys for word in (key, b"v" + key)]
    assert wire("KV.MSET", "m\r\n\xff", len(keys), *pairs) == [1] * len(keys)
    assert wire("KV.MGET", "m\r\n\xff", len(keys), *keys) == [b"v" + key for key in keys]


def test_who_stores_nothing_makes_no_tenant(wire: Wire) -> None:
    def tenants() -> int:
        found = wire("KV.STATS", "m")
        return int((found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True)))[b"tenants"])

    wire("KV.MODEL", "SET", "m")
    wire("KV.MSET", "m", "SALT", "known", 1, "k", "v")
    before = tenants()
    for at in range(50):
        salt = ("SALT", f"s{at}")
        assert wire("KV.MGET", "m", *salt, 1, "k") == [None]
        assert wire("KV.LOOKUP", "m", *salt, "LEASE", 100, 1, "k")[0] == 0
        for name in ("EXISTS", "DEL", "PIN", "UNPIN", "UNLOCK", "PREFETCH", "DEMOTE"):
            assert wire(f"KV.{name}", "m", *salt, 1, "k") == 0
        assert wire("KV.TTL", "m", *salt, "k") == -2
    assert tenants() == before


def test_salts_keep_tenants_apart(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    for salt in ("", "one", "two"):
        assert wire("KV.MSET", "m", "SALT", salt, 1, "k", f"of {salt}") == [1]
    assert wire("KV.MGET", "m", 1, "k") == [b"of "]
    assert wire("KV.MGET", "m", "SALT", "one", 1, "k") == [b"of one"]
    assert wire("KV.DEL", "m", "SALT", "two", 1, "k") == 1
    assert wire("KV.EXISTS", "m", "SALT", "two", 1, "k") == 0
    assert wire("KV.EXISTS", "m", "SALT", "one", 1, "k") == 1
    assert wire("KV.EXISTS", "m", "SALT", "three", 1, "k") == 0


def test_blocks_expire(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m", "TTL", 100)
    wire("KV.MSET", "m", 1, "a", "1")
    assert 98 <= wire("KV.TTL", "m", "a") <= 100
    wire("KV.MSET", "m", "TTL", 1, 1, "b", payload(1, MIB))
    assert 0 <= wire("KV.TTL", "m", "b") <= 1
    wait_for(lambda: wire("KV.TTL", "m", "b") == -2)
    assert wire("KV.MGET", "m", 2, "a", "b") == [b"1", None]
    wait_for(lambda: used(wire) < MIB, what="the expired block's memory is free")


def test_a_quota_is_the_models_own(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m", "QUOTA", 300_000)
    for i in range(20):
        assert wire("KV.MSET", "m", 1, f"k{i}", payload(i, 70_000)) == [1]
    assert stats(wire, "m")["host_bytes"] <= 300_000
    assert wire("KV.MSET", "m", 1, "large", payload(0, 300_001)) == [-1]
    wait_for(lambda: used(wire) <= 300_000 + 40 * 4096)


def test_pinned_and_leased_blocks_stay(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    data = payload(3, MIB)
    wire("KV.MSET", "m", "GROUP", "g", 2, "pinned", data, "mate", data)
    wire("KV.MSET", "m", 1, "leased", data)
    wire("KV.PIN", "m", 1, "pinned")
    wire("KV.LOOKUP", "m", "LEASE", 60_000, 1, "leased")
    for i in range(150):
        assert wire("KV.MSET", "m", 1, f"k{i}", data) == [1]
    assert wire("KV.MGET", "m", 3, "pinned", "mate", "leased") == [data] * 3
    wire("KV.UNPIN", "m", 1, "pinned")
    wire("KV.UNLOCK", "m", 1, "leased")
    for i in range(250):
        wire("KV.MSET", "m", 1, f"l{i}", data)
    assert wire("KV.EXISTS", "m", 3, "pinned", "mate", "leased") == 0


# ---- bytes in any pieces ---------------------------------------------------------------------------------------------

SIZES = [0, 1, 65_533, 65_534, 65_535, 65_536, 65_537, 69_630, 69_632, 131_072, MIB - 2, MIB, MIB + 1]


@pytest.mark.parametrize("size", SIZES)
def test_values_of_every_size_in_pieces(server: Server, wire: Wire, size: int) -> None:
    wire("KV.MODEL", "SET", "m")
    dice = random.Random(size)
    data = dice.randbytes(size)
    command = encode("KV.MSET", "m", 2, "a", data, "b", "tail")
    head = command.index(b"$%d\r\n" % size) + len(b"$%d\r\n" % size)
    places = [1, head - 1, head, head + 1, *(head + size + at for at in (-1, 0, 1, 2)), len(command) - 1]
    places += [dice.randrange(1, len(command)) for _ in range(6)] + [head + 4096, head + 65_536]
    for place in sorted({place for place in places if 0 < place < len(command)}):
        with server.wire() as other:
            other.send(command[:place])
            assert wire("PING") == "PONG"  # in the same or a later turn of the server's
            other.send(command[place:])
            assert other.read() == [1, 1]
            assert other("KV.MGET", "m", 2, "a", "b") == [data, b"tail"]
            assert other("KV.DEL", "m", 2, "a", "b") == 2
    assert used(wire) == 0


def test_many_stores_in_one_pipeline(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    sizes = [10, 70_000, 200_000, 65_536]
    calls = [("KV.MSET", "m", 2, f"a{i}", payload(i, sizes[i % 4]), f"b{i}", b"x") for i in range(120)]
    assert wire.pipeline(calls) == [[1, 1]] * 120
    found = wire.pipeline([("KV.MGET", "m", 2, f"a{i}", f"b{i}") for i in range(120)])
    assert found == [[payload(i, sizes[i % 4]), b"x"] for i in range(120)]


def test_a_connection_that_closes_half_way_gives_its_memory_back(server: Server, wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    for cut in (100, 70_000, 8 * MIB):
        with server.wire() as other:
            other.send(encode("KV.MSET", "m", 2, "a", bytes(MIB), "b", bytes(8 * MIB))[: MIB + cut])
            wait_for(lambda: used(wire) > 0, what="the first value has come")
        wait_for(lambda: used(wire) == 0, what="its memory is free")
    assert wire("KV.EXISTS", "m", 2, "a", "b") == 0


def test_a_client_killed_in_the_middle_of_a_value(server: Server, wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    with server.wire() as other:
        number = other("CLIENT", "ID")
        other.send(encode("KV.MSET", "m", 1, "a", bytes(8 * MIB))[: 3 * MIB])
        wait_for(lambda: used(wire) > 0)
        assert wire("CLIENT", "KILL", "ID", number) == 1
        assert other.closed()
    wait_for(lambda: used(wire) == 0)


def test_a_model_is_deleted_while_its_blocks_are_being_sent(server: Server, wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    data = [payload(i, 8 * MIB) for i in range(4)]
    for i in range(4):
        assert wire("KV.MSET", "m", 1, f"k{i}", data[i]) == [1]
    with server.wire() as slow:
        slow.send(encode("KV.MGET", "m", 4, "k0", "k1", "k2", "k3"))
        first = slow.socket.recv(1)
        assert wire("KV.MODEL", "DEL", "m") == 4
        wire("KV.MODEL", "SET", "m")
        for i in range(30):
            wire("KV.MSET", "m", 1, f"other{i}", bytes(4 * MIB))
        slow.file = _Prefixed(first, slow.file)
        assert slow.read() == data
    wire("KV.MODEL", "DEL", "m")
    wait_for(lambda: used(wire) == 0)


class _Prefixed:
    """A file with bytes in front that were read already."""

    def __init__(self, first: bytes, file: Any) -> None:
        self.first, self.file = first, file

    def readline(self) -> bytes:
        first, self.first = self.first, b""
        return bytes(first + self.file.readline())

    def read(self, n: int) -> bytes:
        return bytes(self.file.read(n))

    def close(self) -> None:
        self.file.close()


# ---- by tokens -------------------------------------------------------------------------------------------------------


def block(seed: int) -> np.ndarray[Any, Any]:
    dice = np.random.default_rng(seed)
    return dice.standard_normal((2, LAYERS, BLOCK, HEADS, DIM)).astype(np.float16)


def test_by_tokens(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "l", *LAYOUT)
    blocks = [block(i) for i in range(4)]
    ids = list(range(1000, 1000 + 4 * BLOCK + 5))
    whole = b"".join(each.tobytes() for each in blocks)
    assert wire("KV.STORE", "l", tokens(*ids[: 2 * BLOCK]), whole[: 2 * BLOCK_BYTES]) == [1, 1]
    assert wire("KV.STORE", "l", tokens(*ids), *(each.tobytes() for each in blocks)) == [0, 0, 1, 1]
    assert wire("KV.MATCH", "l", tokens(*ids)) == [4 * BLOCK, 4]
    assert wire("KV.MATCH", "l", tokens(*ids[: BLOCK + 3]), "LEASE", 100) == [BLOCK, 1]
    assert wire("KV.MATCH", "l", tokens(7, *ids)) == [0, 0]
    assert wire("KV.FETCH", "l", tokens(*ids)) == [each.tobytes() for each in blocks]
    assert wire("KV.FETCH", "l", tokens(1, 2)) == []
    for first in range(LAYERS):
        for last in range(first + 1, LAYERS + 1):
            found = wire("KV.FETCH", "l", tokens(*ids), "LAYERS", first, last)
            assert found == [each[:, first:last].tobytes() for each in blocks]
    assert wire("KV.MATCH", "l", "SALT", "other", tokens(*ids)) == [0, 0]


def test_layers_of_large_blocks(wire: Wire) -> None:
    """Blocks that lie in the arena as they came, sent in parts."""
    wire("KV.MODEL", "SET", "l", "LAYERS", 8, "HEADS", 8, "DIM", 64, "DTYPE", "f16", "BLOCK", 32)
    shape = (2, 8, 32, 8, 64)
    blocks = [np.random.default_rng(i).integers(0, 255, (*shape, 2), np.uint8) for i in range(3)]
    ids = tokens(*range(96))
    assert wire("KV.STORE", "l", ids, *(each.tobytes() for each in blocks)) == [1, 1, 1]
    for first, last in ((0, 1), (3, 5), (7, 8), (0, 8)):
        assert wire("KV.FETCH", "l", ids, "LAYERS", first, last) == [each[:, first:last].tobytes() for each in blocks]


def test_a_shared_prefix_is_stored_once(wire: Wire) -> None:
    """64 conversations with 4,096 tokens in common and 512 of their own."""
    wire("KV.MODEL", "SET", "l", "LAYERS", 2, "HEADS", 2, "DIM", 16, "DTYPE", "f16", "BLOCK", 256)
    block_bytes = 2 * 2 * 256 * 2 * 16 * 2
    shared = list(range(4096))
    before = stats(wire, "l").get("shared", 0)
    for i in range(64):
        own = [100_000 + i * 512 + j for j in range(512)]
        said = wire("KV.STORE", "l", tokens(*shared, *own), bytes(18 * block_bytes))
        assert said == ([1] * 18 if i == 0 else [0] * 16 + [1, 1])
    ideal = (16 + 64 * 2) * block_bytes
    assert ideal <= used(wire) <= ideal * 1.05
    assert stats(wire, "l")["shared"] - before == 63 * 16


# ---- by position -----------------------------------------------------------------------------------------------------


def test_by_position_the_newest_version_wins(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "l", *LAYOUT)
    dice = random.Random(5)
    row = HEADS * DIM * 2
    length = 60
    shown = np.zeros((2, length, row), np.uint8)
    versions = np.zeros(length, np.int64)
    for i in range(200):
        begin = dice.randrange(length)
        end = dice.randrange(begin + 1, min(length, begin + 20) + 1)
        data = np.frombuffer(dice.randbytes(2 * (end - begin) * row), np.uint8).reshape(2, end - begin, row)
        version = wire("KV.PUT", "l", "seq", 1, begin, end, data[0].tobytes(), data[1].tobytes())
        assert version > versions.max()
        shown[:, begin:end], versions[begin:end] = data, version
        low = dice.randrange(length)
        high = dice.randrange(low + 1, length + 1)
        last = low
        seen = np.zeros(length, bool)
        for first, end_, version, keys, values in wire("KV.GET", "l", "seq", 1, low, high):
            assert low <= last <= first < end_ <= high, i
            assert (versions[first:end_] == version).all()
            assert keys == shown[0, first:end_].tobytes() and values == shown[1, first:end_].tobytes()
            seen[first:end_] = True
            last = end_
        assert (seen[low:high] == (versions[low:high] > 0)).all()
    assert wire("KV.GET", "l", "seq", 0, 0, length) == []
    assert wire("KV.GET", "l", "other", 1, 0, length) == []


def test_a_sequence_of_single_tokens(wire: Wire) -> None:
    """As decoding stores them; neither storing nor asking may take longer than linear in their number."""
    wire("KV.MODEL", "SET", "l", *LAYOUT)
    row = bytes(HEADS * DIM * 2)
    count = 20_000
    for first in range(0, count, 2000):
        replies = wire.pipeline([("KV.PUT", "l", "seq", 0, at, at + 1, row, row) for at in range(first, first + 2000)])
        assert all(isinstance(each, int) for each in replies)
    pieces = wire("KV.GET", "l", "seq", 0, 0, count)
    assert [each[0] for each in pieces] == list(range(count))
    whole = bytes(len(row) * count)
    wire("KV.PUT", "l", "seq", 0, 0, count, whole, whole)
    assert len(wire("KV.GET", "l", "seq", 0, 0, count)) == 1
    assert stats(wire, "l")["blocks"] == 2, "what is covered whole is gone"


def test_ranges_whose_blocks_are_gone_are_forgotten(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "l", *LAYOUT, "QUOTA", 64 * 1024)
    row = bytes(HEADS * DIM * 2)
    for i in range(50):
        wire.pipeline([("KV.PUT", "l", f"seq{i}", 0, at, at + 1, row, row) for at in range(100)])
    assert wire("KV.GET", "l", "seq0", 0, 0, 100) == []
    assert len(wire("KV.GET", "l", "seq49", 0, 0, 100)) == 100


# ---- what may interfere ----------------------------------------------------------------------------------------------


def test_a_refused_value_is_not_kept(server: Server, wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    with server.wire() as other:
        other("SUBSCRIBE", "channel")
        assert other("KV.MSET", "m", 1, "a", bytes(MIB)).startswith("ERR Can't execute 'kv.mset'")
        assert wire("KV.MSET", "m", "TTL", 1, "TTL", 1, 1, "k", bytes(MIB)) == "ERR syntax error"
        with server.wire() as silent:
            silent.send(encode("CLIENT", "REPLY", "OFF") + encode("KV.MSET", "none", 1, "a", bytes(MIB)))
            silent.send(encode("CLIENT", "REPLY", "ON"))
            assert silent.read() == "OK"
        wait_for(lambda: used(wire) == 0)


def test_a_value_that_begins_behind_a_command_that_waits(server: Server, wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    data = payload(1, MIB)
    call = encode("KV.MSET", "m", 1, "a", data)
    with server.wire() as other:
        other.send(encode("BLPOP", "list", 0) + encode("PING") + call[:2000])
        assert other.quiet()
        wire("RPUSH", "list", "x")
        assert [other.read(), other.read()] == [[b"list", b"x"], "PONG"]
        other.send(call[2000:])
        assert other.read() == [1]
        assert other("KV.MGET", "m", 1, "a") == [data]
    with server.wire() as other:
        other.send(encode("BLPOP", "list", 0) + encode("PING") + call[:2000])
        assert other.quiet()
    wire("KV.DEL", "m", 1, "a")
    wait_for(lambda: used(wire) == 0)


def test_a_value_begun_again_leaves_nothing_of_the_first_time(server: Server, wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    call = encode("KV.MSET", "m", 1, "a", bytes(100_000))

    def blocked() -> bool:
        return b"blocked_clients:1\r" in wire("INFO", "clients")

    def memory() -> int:
        return int(wire("INFO", "memory").split(b"used_memory:")[1].split(b"\r")[0])

    with server.wire() as other:
        began = 0
        for at in range(300):
            other.send(encode("BLPOP", "list", 0) + encode("PING") + call[:2000])
            wait_for(blocked)
            wire("RPUSH", "list", "x")
            assert [other.read(), other.read()] == [[b"list", b"x"], "PONG"]
            other.send(call[2000:])
            assert other.read() == [int(at == 0)]
            began = began or memory()
        assert memory() - began < 20_000


def test_transactions(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    data = payload(1, 300_000)
    wire("MULTI")
    for call in (("KV.MSET", "m", 2, "a", data, "b", "x"), ("SET", "plain", "y"), ("KV.MGET", "m", 2, "a", "b"),
                 ("KV.MSET", "m", 5, "a", "b"), ("KV.DEL", "m", 1, "a")):  # fmt: skip
        assert wire(*call) == "QUEUED"
    first, plain, second, wrong, removed = wire("EXEC")
    assert (first, plain, second, removed) == ([1, 1], "OK", [data, b"x"], 1)
    assert wrong.startswith("ERR the number of keys")
    wire("MULTI")
    assert wire("KV.ATTACH") == "ERR Command not allowed inside a transaction"
    assert wire("EXEC").startswith("EXECABORT")
    wire("MULTI")
    wire("KV.MSET", "m", 1, "c", data)
    wire("DISCARD")
    wait_for(lambda: used(wire) < 1000, what="what was discarded is free")


def test_scripts_may_not_call_them(wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    reply = wire("EVAL", "return redis.call('KV.MGET', 'm', '1', 'a')", 0)
    assert isinstance(reply, Failure) and "not allowed from script" in reply


def test_monitors_see_large_values(server: Server, wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    data = b"v" * MIB
    with server.wire() as monitor:
        assert monitor("MONITOR") == "OK"
        assert wire("KV.MSET", "m", 2, "a", data, "b", "small") == [1, 1]
        assert wire("KV.MGET", "m", 2, "a", "b") == [data, b"small"]
        assert wire("KV.MSET", "m", 1, "k" * 70_000, data).startswith("ERR a key has at most")
        line = monitor.read()
        assert '"KV.MSET" "m" "2" "a" "vvvv' in line
        assert '"KV.MGET" "m" "2" "a" "b"' in monitor.read()
        monitor.read()
    assert wire("KV.MGET", "m", 1, "a") == [data]


def test_the_slow_log_takes_large_values(server: Server, wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    before = wire("CONFIG", "GET", "slowlog-log-slower-than")[1]
    wire("SLOWLOG", "RESET")
    wire("CONFIG", "SET", "slowlog-log-slower-than", 0)
    try:
        assert wire("KV.MSET", "m", 1, "a", b"v" * MIB) == [1]
        with server.wire() as monitor:  # another way through the server
            monitor("MONITOR")
            assert wire("KV.MSET", "m", 1, "b", b"v" * MIB) == [1]
        wire("MULTI")
        wire("KV.MSET", "m", 1, "c", b"v" * MIB)
        assert wire("EXEC") == [[1]]
        logged = [entry[3] for entry in wire("SLOWLOG", "GET", -1) if entry[3][0] == b"KV.MSET"]
        assert {words[3] for words in logged} == {b"c", b"b", b"a"}
        assert all(words[4].startswith(b"vvvv") and len(words[4]) < 200 for words in logged)
    finally:
        wire("CONFIG", "SET", "slowlog-log-slower-than", before)
        wire("SLOWLOG", "RESET")


def test_users(server: Server, wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    wire("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+kv.mget", "+kv.lookup")
    wire("ACL", "SETUSER", "tensors", "on", ">pw", "~*", "+@write", "+@read")
    data = payload(1, 200_000)
    with server.wire() as reader, server.wire() as tensors:
        assert reader("AUTH", "reader", "pw") == "OK" and tensors("AUTH", "tensors", "pw") == "OK"
        assert reader("KV.MSET", "m", 1, "a", data).startswith("NOPERM")
        wait_for(lambda: used(wire) == 0)
        assert tensors("KV.MSET", "m", 1, "a", data) == [1]
        assert reader("KV.MGET", "m", 1, "a") == [data]
        assert reader("KV.DEL", "m", 1, "a").startswith("NOPERM")
    wire("ACL", "DELUSER", "reader", "tensors")
    wire("ACL", "LOG", "RESET")


def test_a_pause_holds_large_values_back(server: Server, wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    data = payload(1, 200_000)
    with server.wire() as other:
        wire("CLIENT", "PAUSE", 60_000)
        other.send(encode("KV.MSET", "m", 1, "a", data))
        assert other.quiet()
        wire("CLIENT", "UNPAUSE")
        assert other.read() == [1]
        assert wire("KV.MGET", "m", 1, "a") == [data]
        wire("CLIENT", "PAUSE", 60_000)
        other.send(encode("KV.MSET", "m", 1, "b", data))
        assert other.quiet()
    wire("CLIENT", "UNPAUSE")
    wire("KV.DEL", "m", 2, "a", "b")
    wait_for(lambda: used(wire) == 0, what="the value of a client that did not wait")


def test_replies_off_and_client_tracking(server: Server, wire: Wire) -> None:
    wire("KV.MODEL", "SET", "m")
    data = payload(1, 200_000)
    with server.wire() as other:
        other("HELLO", 3)
        assert other("CLIENT", "TRACKING", "ON", "BCAST") == "OK"
        other.send(encode("CLIENT", "REPLY", "SKIP") + encode("KV.MSET", "m", 1, "a", data))
        assert other("KV.MGET", "m", 1, "a") == [data]


def test_memory_of_clients_is_bounded(start_server: Start) -> None:
    server = start_server("--kv-memory", "64mb", "--maxmemory-clients", "8mb", "--save", "")
    with server.wire() as wire, server.wire() as idle:
        wire("CLIENT", "NO-EVICT", "ON")
        wire("KV.MODEL", "SET", "m")
        data = payload(1, 4 * MIB)
        assert [wire("KV.MSET", "m", 1, f"k{i}", data) for i in range(4)] == [[1]] * 4
        idle.send(encode("KV.MGET", "m", 4, "k0", "k1", "k2", "k3") * 20)  # and reads nothing
        wait_for(lambda: b"cmd=kv.mget" not in wire("CLIENT", "LIST"), what="the one that holds most is gone")
        assert wire("KV.MGET", "m", 1, "k3") == [data]


def test_without_an_arena_nothing_is_stored(start_server: Start) -> None:
    server = start_server("--kv-memory", "0", "--save", "")
    with server.wire() as wire:
        wire("KV.MODEL", "SET", "m")
        assert wire("KV.MSET", "m", 2, "a", "1", "b", payload(1, 100_000)) == [-1, -1]
        assert wire("KV.MGET", "m", 1, "a") == [None]
