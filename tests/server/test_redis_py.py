"""The Python client that most people have, over both protocols."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio

from tests.support import Server


@pytest.fixture(params=[2, 3])
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[Any]:
    connection = redis.Redis(port=server.port, protocol=request.param, socket_timeout=10)
    connection.flushall()
    yield connection
    connection.close()


def test_every_type(client: Any) -> None:
    assert client.set("s", "v", ex=100, nx=True)
    assert client.get("s") == b"v"
    assert 0 < client.ttl("s") <= 100
    assert client.incrby("n", 5) == 5
    assert client.rpush("l", 1, 2, 3) == 3
    assert client.lrange("l", 0, -1) == [b"1", b"2", b"3"]
    assert client.hset("h", mapping={"a": 1, "b": 2}) == 2
    assert client.hgetall("h") == {b"a": b"1", b"b": b"2"}
    assert client.sadd("set", "x", "y") == 2
    assert set(client.smembers("set")) == {b"x", b"y"}
    assert client.zadd("z", {"one": 1, "two": 2.5}) == 2
    assert client.zscore("z", "two") == 2.5
    assert [list(row) for row in client.zrange("z", 0, -1, withscores=True)] == [[b"one", 1.0], [b"two", 2.5]]
    assert client.setbit("bits", 7, 1) == 0
    assert client.bitcount("bits") == 1
    assert sorted(client.scan_iter(count=2)) == [b"bits", b"h", b"l", b"n", b"s", b"set", b"z"]
    assert client.type("z") == b"zset"


def test_pipeline_without_transaction(client: Any) -> None:
    with client.pipeline(transaction=False) as pipe:
        for n in range(500):
            pipe.set(f"k{n}", n).get(f"k{n}")
        replies = pipe.execute()
    assert replies[1::2] == [str(n).encode() for n in range(500)]


def test_errors_have_their_class(client: Any) -> None:
    client.rpush("l", 1)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.get("l")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        client.execute_command("DPING")


def test_server_side(client: Any) -> None:
    info = client.info()
    assert info["redis_version"].startswith("7.2")
    assert info["arch_bits"] == 64
    assert info["cluster_enabled"] == 0
    assert client.config_get("maxclients") == {"maxclients": "10000"}
    assert client.config_set("timeout", 0)
    assert client.dbsize() == 0
    assert client.client_info()["id"] == client.client_id()
    assert client.command_count() > 100
    assert len(client.time()) == 2
    client.slowlog_get()


@pytest.mark.parametrize("protocol", [2, 3])
async def test_asyncio(server: Server, protocol: int) -> None:
    client: Any = redis.asyncio.Redis(port=server.port, protocol=protocol)
    await client.flushall()
    assert await client.set("k", "v")
    assert await client.mget("k", "absent") == [b"v", None]
    await client.aclose()
