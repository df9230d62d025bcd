"""Vector sets over a socket: exact replies in both protocols, redis-py, and searches that let others in."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
import redis
from redis.commands.vectorset.commands import QuantizationOptions

from tests.support import NullArray, Server, Wire, encode
from zeekdb.hot.crc64 import crc64


def fill(wire: Wire) -> None:
    wire("VADD", "k", "VALUES", 2, 1, 0, "a")
    wire("VADD", "k", "VALUES", 2, 0, 1, "b", "SETATTR", '{"n":1}')


def test_replies_in_resp2(wire: Wire) -> None:
    assert wire("VADD", "k", "FP32", struct.pack("<2f", 1, 0), "a") == 1
    assert wire("VADD", "k", "VALUES", 2, 1, 0, "a") == 0
    assert wire("VADD", "k", "VALUES", 2, 0, 1, "b", "SETATTR", '{"n":1}') == 1
    assert wire("VSIM", "k", "ELE", "a", "WITHSCORES", "WITHATTRIBS") == [b"a", b"1", None, b"b", b"0.5", b'{"n":1}']
    assert wire("VEMB", "k", "b") == [b"0", b"1"]
    assert wire("VEMB", "k", "b", "RAW") == ["int8", b"\0\x7f", b"1", b"1"]
    assert wire("VLINKS", "k", "a", "WITHSCORES") == [[b"b", b"0.5"]]
    assert wire("VINFO", "k")[:4] == ["quant-type", "int8", "hnsw-m", 16]
    assert isinstance(wire("VINFO", "none"), NullArray)
    assert wire("VGETATTR", "k", "a") is None
    assert wire("VISMEMBER", "k", "a") == 1
    assert wire("VREM", "k", "a") == 1
    assert wire("TYPE", "k") == "vectorset"
    assert wire("OBJECT", "ENCODING", "k") == b"raw"


def test_replies_in_resp3(wire: Wire) -> None:
    wire("HELLO", 3)
    assert wire("VADD", "k", "VALUES", 2, 1, 0, "a") is True
    assert wire("VADD", "k", "VALUES", 2, 1, 0, "a") is False
    fill(wire)
    assert wire("VSIM", "k", "ELE", "a", "WITHSCORES") == {b"a": 1.0, b"b": 0.5}
    assert wire("VSIM", "k", "ELE", "a", "WITHSCORES", "WITHATTRIBS") == {b"a": [1.0, None], b"b": [0.5, b'{"n":1}']}
    assert wire("VSIM", "k", "ELE", "a", "WITHATTRIBS") == {b"a": None, b"b": b'{"n":1}'}
    assert wire("VEMB", "k", "b") == [0.0, 1.0]
    assert wire("VLINKS", "k", "a", "WITHSCORES") == [{b"b": 0.5}]
    assert wire("VINFO", "k")["size"] == 2
    assert wire("VINFO", "none") is None
    assert wire("VISMEMBER", "none", "a") is False
    assert wire("VSETATTR", "k", "a", "x") is True


def test_keys_are_keys(wire: Wire) -> None:
    fill(wire)
    assert wire("COPY", "k", "copy") == 1
    assert wire("VREM", "copy", "a") == 1
    assert wire("RENAME", "copy", "other") == "OK"
    assert (wire("VCARD", "k"), wire("VCARD", "other")) == (2, 1)
    assert wire("EXPIRE", "k", 100) == 1
    assert wire("MEMORY", "USAGE", "k") > 300
    assert wire("VREM", "other", "b") == 1
    assert wire("EXISTS", "other") == 0
    assert wire("DEL", "k") == 1


def test_dump_and_restore(wire: Wire) -> None:
    fill(wire)
    payload = wire("DUMP", "k")
    assert wire("RESTORE", "back", 0, payload) == "OK"
    search = ("ELE", "a", "WITHSCORES", "WITHATTRIBS")
    assert wire("VSIM", "back", *search) == wire("VSIM", "k", *search) != []
    assert wire("VREM", "back", "a") == 1
    body = bytearray(payload[:-8])
    body[-30] ^= 0xFF
    assert wire("RESTORE", "other", 0, bytes(body) + crc64(bytes(body)).to_bytes(8, "little")).startswith("ERR")
    assert wire("EXISTS", "other") == 0


def test_inside_a_transaction(wire: Wire) -> None:
    wire("MULTI")
    fill(wire)
    wire("VSIM", "k", "ELE", "a", "FILTER", ".n == 1")
    assert wire("EXEC") == [1, 1, [b"b"]]


def test_watching(server: Server, wire: Wire) -> None:
    fill(wire)
    with server.wire() as other:
        for change in (("VADD", "k", "VALUES", 2, 1, 1, "c"), ("VSETATTR", "k", "a", "x"), ("VREM", "k", "a")):
            wire("WATCH", "k")
            other(*change)
            wire("MULTI")
            wire("PING")
            assert wire("EXEC") == NullArray()


def test_a_long_filter_lets_others_in(server: Server, wire: Wire) -> None:
    count = 20_000
    commands = [("VADD", "k", "VALUES", 2, 1, place, place, "EF", 1, "SETATTR", '{"n":1}') for place in range(count)]
    assert wire.pipeline(commands) == [1] * count
    with server.wire() as other:
        wire.send(encode("VSIM", "k", "VALUES", 2, 1, 1, "FILTER", ".n == 2", "FILTER-EF", 0))
        assert other("PING") == "PONG"
        assert other("VREM", "k", "7") == 1
        assert wire.read() == []
        wire.send(encode("VSIM", "k", "VALUES", 2, 1, 1, "FILTER", ".n == 2", "FILTER-EF", 0))
        wire.send(encode("PING"))
        assert other("DEL", "k") == 1
        assert (wire.read(), wire.read()) == ([], "PONG")
        other("VADD", "k", "VALUES", 2, 1, 1, "x")


def test_a_client_that_leaves_during_its_search(server: Server, wire: Wire) -> None:
    commands = [("VADD", "k", "VALUES", 1, 1, place, "EF", 1, "SETATTR", '{"n":1}') for place in range(5000)]
    wire.pipeline(commands)
    with server.wire() as other:
        other.send(encode("VSIM", "k", "VALUES", 1, 1, "FILTER", ".n == 2", "FILTER-EF", 0))
    assert wire("VCARD", "k") == 5000


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py(server: Server, protocol: int) -> None:
    client: Any = redis.Redis(port=server.port, protocol=protocol, socket_timeout=10, decode_responses=True)
    client.flushall()
    vectors = client.vset()
    points = np.random.default_rng(1).standard_normal((20, 8)).astype(np.float32)
    for place, point in enumerate(points):
        given = point.tobytes() if place % 2 else point.tolist()
        assert vectors.vadd("k", given, str(place), attributes={"place": place}, quantization=QuantizationOptions.Q8)
    assert (vectors.vcard("k"), vectors.vdim("k")) == (20, 8)
    assert vectors.vsim("k", points[3].tolist(), count=1) == ["3"]
    assert list(vectors.vsim("k", "5", with_scores=True, count=1).items()) == [("5", 1.0)]
    found = vectors.vsim("k", "5", with_scores=True, with_attribs=True, count=2, filter=".place < 10", epsilon=0.9)
    assert found["5"] == {"score": 1.0, "attributes": {"place": 5}}
    assert vectors.vemb("k", "5") == pytest.approx(points[5].tolist(), abs=0.02)
    raw = vectors.vemb("k", "5", raw=True)
    assert (raw["quantization"], len(raw["raw"]), raw["l2"]) == ("int8", 8, pytest.approx(np.linalg.norm(points[5])))
    assert vectors.vinfo("k")["size"] == 20
    assert len(vectors.vlinks("k", "5", with_scores=True)[0]) == 19
    assert vectors.vgetattr("k", "5") == {"place": 5}
    assert vectors.vsetattr("k", "5", {"place": -5})
    assert vectors.vrandmember("k") in map(str, range(20))
    assert len(vectors.vrandmember("k", 5)) == 5
    assert vectors.vrange("k", "[5", "+", 2) == ["5", "6"]
    assert vectors.vrem("k", "5")
    assert vectors.vrem("k", "5") in (0, False)
    client.close()
