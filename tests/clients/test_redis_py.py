"""redis-py against every family of commands, over both protocols."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tests.support import Server, wait_for

Connect = Callable[..., Any]
Need = Callable[..., None]


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def connect(server: Server, request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Opens clients of one protocol, with text for bytes; they close with the test."""
    opened: list[Any] = []

    def make(**options: Any) -> Any:
        settings = {"protocol": request.param, "decode_responses": True, "socket_timeout": 10, **options}
        opened.append(redis.Redis(port=server.port, **settings))
        return opened[-1]

    make().flushall()
    yield make
    for each in opened:
        each.close()


@pytest.fixture
def client(connect: Connect) -> Any:
    """The first of them."""
    return connect()


def rows(pairs: Any) -> list[list[Any]]:
    """Pairs as lists, whatever the protocol made of them."""
    return [list(pair) for pair in pairs]


# --- values -------------------------------------------------------------------------------------------------------


def test_strings(client: Any) -> None:
    assert client.set("a", "1", ex=100, nx=True)
    assert client.set("a", "2", xx=True, get=True, keepttl=True) == "1"
    assert 0 < client.ttl("a") <= 100
    assert client.mset({"b": "x", "c": "y"})
    assert client.mget("a", "b", "absent") == ["2", "x", None]
    assert client.msetnx({"b": 1, "d": 1}) in (0, False)
    assert (client.incrby("a", 40), client.decr("a")) == (42, 41)
    assert float(client.incrbyfloat("f", 1.5)) == 1.5
    assert (client.append("b", "yz"), client.strlen("b"), client.getrange("b", 1, 2)) == (3, 3, "yz")
    assert client.setrange("b", 5, "!") == 6
    assert (client.getex("c", px=5000), client.getdel("c"), client.get("c")) == ("y", "y", None)
    assert client.psetex("p", 1000, "v")
    assert client.lcs("a", "b") == ""


def test_bitmaps(client: Any) -> None:
    assert client.setbit("b", 7, 1) == 0
    assert (client.getbit("b", 7), client.bitcount("b"), client.bitpos("b", 1)) == (1, 1, 7)
    client.set("o", b"\xf0")
    assert client.bitop("OR", "r", "b", "o") == 1
    assert client.bitcount("r", 0, 7, "BIT") == 5
    field = client.bitfield("f")
    assert field.set("u8", "#1", 200).incrby("u8", "#1", 100).overflow("SAT").incrby("u8", "#1", 255).execute() == [
        0, 44, 255,
    ]  # fmt: skip


def test_lists(client: Any) -> None:
    assert client.rpush("l", *"abcde") == 5
    assert client.lpush("l", "z") == 6
    assert client.lrange("l", 0, 2) == ["z", "a", "b"]
    assert (client.lindex("l", -1), client.llen("l"), client.lpos("l", "c")) == ("e", 6, 3)
    assert client.linsert("l", "BEFORE", "a", "y") == 7
    assert client.lset("l", 0, "Z")
    assert client.lrem("l", 1, "y") == 1
    assert client.ltrim("l", 0, 3)
    assert (client.lpop("l"), client.rpop("l", 2)) == ("Z", ["c", "b"])
    assert client.lmove("l", "m", "LEFT", "RIGHT") == "a"
    assert client.lmpop(2, "l", "m", direction="LEFT") == ["m", ["a"]]


def test_hashes(client: Any) -> None:
    assert client.hset("h", "a", "1", mapping={"b": "2", "c": "3"}) == 3
    assert client.hgetall("h") == {"a": "1", "b": "2", "c": "3"}
    assert (client.hmget("h", "a", "x"), client.hlen("h"), client.hstrlen("h", "a")) == (["1", None], 3, 1)
    assert client.hincrby("h", "a", 5) == 6
    assert float(client.hincrbyfloat("h", "b", 0.5)) == 2.5
    assert client.hsetnx("h", "a", "9") in (0, False)
    assert sorted(client.hkeys("h")) == ["a", "b", "c"]
    assert client.hdel("h", "c", "x") == 1
    assert dict(client.hscan_iter("h")) == {"a": "6", "b": "2.5"}
    assert client.hrandfield("h") in ("a", "b")


def test_hash_field_expiry(need: Need, client: Any) -> None:
    need("HEXPIRE", "HGETEX", "HSETEX", "HGETDEL")
    client.hset("h", mapping={"a": 1, "b": 2, "c": 3})
    assert client.hexpire("h", 100, "a", "x") == [1, -2]
    assert 0 < client.httl("h", "a")[0] <= 100
    assert client.hpttl("h", "b") == [-1]
    assert client.hpersist("h", "a") == [1]
    assert client.hpexpireat("h", 4102444800000, "a") == [1]
    assert client.hexpiretime("h", "a") == [4102444800]
    assert client.hgetdel("h", "c") == ["3"]
    assert client.hsetex("h", "d", "4", ex=100) == 1
    assert client.hgetex("h", "d", persist=True) == ["4"]
    assert client.hexpire("h", 0, "d") == [2]
    assert client.hkeys("h") == ["a", "b"]


def test_sets(client: Any) -> None:
    assert client.sadd("s", *"abc") == 3
    client.sadd("t", *"bcd")
    assert set(client.smembers("s")) == set("abc")
    assert (client.sismember("s", "a"), client.smismember("s", ["a", "x"])) in ((1, [1, 0]), (True, [True, False]))
    assert set(client.sinter("s", "t")) == {"b", "c"}
    assert set(client.sunion("s", "t")) == set("abcd")
    assert set(client.sdiff("s", "t")) == {"a"}
    assert (client.sinterstore("i", "s", "t"), client.sintercard(2, ["s", "t"])) == (2, 2)
    assert client.smove("s", "t", "a") in (1, True)
    assert client.spop("i") in ("b", "c")
    assert client.srandmember("t", -3)
    assert (client.scard("t"), client.srem("t", "a", "x")) == (4, 1)
    assert set(client.sscan_iter("t")) == set("bcd")


def test_sorted_sets(client: Any) -> None:
    assert client.zadd("z", {"a": 1, "b": 2.5, "c": 3}) == 3
    assert client.zadd("z", {"a": 5}, gt=True, ch=True) == 1
    assert rows(client.zrange("z", 0, -1, withscores=True)) == [["b", 2.5], ["c", 3.0], ["a", 5.0]]
    assert client.zrange("z", "(2.5", "+inf", byscore=True, offset=0, num=1) == ["c"]
    assert (client.zscore("z", "b"), client.zrank("z", "a"), client.zrevrank("z", "a")) == (2.5, 2, 0)
    assert client.zmscore("z", ["a", "x"]) == [5.0, None]
    assert client.zincrby("z", 10, "b") == 12.5
    assert (client.zcount("z", 3, 5), client.zcard("z"), client.zlexcount("z", "-", "+")) == (2, 3, 3)
    client.zadd("y", {"b": 1, "d": 2})
    assert client.zunionstore("u", {"z": 1, "y": 2}, aggregate="MAX") == 4
    assert client.zinter(["z", "y"]) == ["b"]
    assert client.zdiff(["z", "y"]) == ["c", "a"]
    assert rows(client.zpopmin("u", 1)) == [["c", 3.0]]
    assert client.zrangestore("r", "u", 0, 0) == 1
    assert client.zremrangebyscore("u", 5, 5) == 1
    assert client.zmpop(1, ["y"], min=True)[0] == "y"
    assert dict(client.zscan_iter("z")) == {"a": 5.0, "b": 12.5, "c": 3.0}


def test_hyperloglog(need: Need, client: Any) -> None:
    need("PFADD")
    assert client.pfadd("a", *range(100)) == 1
    assert client.pfadd("b", *range(50, 150)) == 1
    assert abs(client.pfcount("a") - 100) <= 3
    assert abs(client.pfcount("a", "b") - 150) <= 5
    assert client.pfmerge("c", "a", "b")
    assert client.pfcount("c") == client.pfcount("a", "b")


def test_geo(need: Need, client: Any) -> None:
    need("GEOADD")
    assert client.geoadd("g", (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania")) == 2
    assert float(client.geodist("g", "Palermo", "Catania", "km")) == pytest.approx(166.2742, abs=1e-4)
    assert client.geohash("g", "Palermo") == ["sqc8b49rny0"]
    assert client.geopos("g", "Palermo", "x")[0] == pytest.approx((13.361389, 38.115556), abs=1e-5)
    found = client.geosearch("g", longitude=15, latitude=37, radius=200, unit="km", sort="ASC", withdist=True)
    assert [[name, float(distance)] for name, distance in found] == [
        ["Catania", pytest.approx(56.4413, abs=1e-4)], ["Palermo", pytest.approx(190.4424, abs=1e-4)],
    ]  # fmt: skip
    assert client.geosearchstore("near", "g", member="Catania", width=10, height=10, unit="km") == 1


def test_streams(need: Need, client: Any) -> None:
    need("XADD", "XREADGROUP", "XAUTOCLAIM")
    assert [client.xadd("x", {"n": n}, id=f"{n}-0") for n in range(1, 6)] == [f"{n}-0" for n in range(1, 6)]
    assert client.xlen("x") == 5
    assert rows(client.xrange("x", "2", "3")) == [["2-0", {"n": "2"}], ["3-0", {"n": "3"}]]
    assert client.xrevrange("x", count=1)[0][0] == "5-0"
    assert client.xgroup_create("x", "g", id="0")
    found = client.xreadgroup("g", "one", {"x": ">"}, count=2)
    entries = found["x"] if isinstance(found, dict) else found[0][1]
    assert "1-0" in json.dumps(entries)
    assert client.xack("x", "g", "1-0") == 1
    assert client.xpending("x", "g")["pending"] == 1
    assert client.xpending_range("x", "g", "-", "+", 10)[0]["message_id"] == "2-0"
    assert client.xclaim("x", "g", "two", 0, ["2-0"], justid=True) == ["2-0"]
    assert client.xautoclaim("x", "g", "one", 0, count=10)[0] == "0-0"
    assert client.xinfo_stream("x")["length"] == 5
    assert client.xinfo_groups("x")[0]["name"] == "g"
    assert {each["name"] for each in client.xinfo_consumers("x", "g")} == {"one", "two"}
    assert client.xtrim("x", maxlen=2, approximate=False) == 3
    assert client.xdel("x", "4-0") == 1
    assert client.xread({"x": "4-0"})
    assert client.xgroup_destroy("x", "g") == 1


def test_vector_sets(need: Need, client: Any) -> None:
    need("VADD")
    vectors = client.vset()
    for name, point in {"a": [1.0, 0.0], "b": [0.5, 0.5], "c": [-1.0, 0.0]}.items():
        assert vectors.vadd("v", point, name, attributes={"name": name})
    assert vectors.vadd("v", struct.pack("<2f", 0, 1), "d")
    assert (vectors.vcard("v"), vectors.vdim("v")) == (4, 2)
    assert vectors.vsim("v", [1.0, 0.1], count=2) == ["a", "b"]
    assert vectors.vsim("v", "a", with_scores=True, count=1) == {"a": 1.0}
    assert vectors.vsim("v", "a", filter='.name in ["b", "c"]') == ["b", "c"]
    assert vectors.vemb("v", "c") == [-1, 0]
    assert vectors.vgetattr("v", "b") == {"name": "b"}
    assert vectors.vinfo("v")["size"] == 4
    assert vectors.vrem("v", "d")


# --- keys and the server ------------------------------------------------------------------------------------------


def test_keys(client: Any) -> None:
    client.mset({"a": 1, "b": 2, "ab": 3})
    assert sorted(client.keys("a*")) == ["a", "ab"]
    assert sorted(client.scan_iter(match="*b", count=1)) == ["ab", "b"]
    assert (client.exists("a", "x"), client.touch("a"), client.type("a")) == (1, 1, "string")
    assert client.expire("a", 100, nx=True) in (1, True)
    assert client.expireat("b", 4102444800)
    assert client.expiretime("b") == 4102444800
    assert client.persist("a") in (1, True)
    assert client.rename("a", "c")
    assert client.copy("c", "d") in (1, True)
    assert client.move("d", 1) in (1, True)
    assert client.unlink("c", "ab") == 2
    assert client.randomkey() == "b"
    assert client.object("ENCODING", "b") == "int"
    client.rpush("l", 3, 1, 2)
    assert client.sort("l", desc=True) == ["3", "2", "1"]
    assert client.dbsize() == 2


def test_dump_and_restore(need: Need, connect: Connect) -> None:
    need("DUMP")
    client = connect(decode_responses=False)
    client.zadd("z", {"a": 1})
    payload = client.dump("z")
    assert client.restore("copy", 0, payload)
    assert client.zscore("copy", "a") == 1.0
    with pytest.raises(redis.ResponseError, match="BUSYKEY"):
        client.restore("copy", 0, payload)
    assert client.restore("copy", 5000, payload, replace=True)


def test_transactions(connect: Connect) -> None:
    client, other = connect(), connect()
    with client.pipeline() as pipe:
        assert pipe.set("a", 1).incr("a").lpush("a", 1).get("a").execute(raise_on_error=False)[::3] == [True, "2"]
    with client.pipeline() as pipe:
        pipe.watch("a")
        other.set("a", 10)
        pipe.multi()
        pipe.set("a", 3)
        with pytest.raises(redis.WatchError):
            pipe.execute()
    assert client.transaction(lambda pipe: [pipe.multi(), pipe.incr("a")], "a") == [11]


def test_blocking(connect: Connect) -> None:
    client, other = connect(), connect()
    got: list[Any] = []
    waiter = threading.Thread(target=lambda: got.append(client.blpop(["l", "m"], timeout=10)))
    waiter.start()
    wait_for(lambda: other.info("clients")["blocked_clients"] == 1)
    other.rpush("m", "x")
    waiter.join(10)
    assert [list(each) for each in got] == [["m", "x"]]
    assert client.brpop("l", timeout=0.01) is None
    other.zadd("z", {"a": 1})
    assert [*client.bzpopmin("z", timeout=1)] == ["z", "a", 1.0]
    other.rpush("l", "y")
    assert client.blmove("l", "n", 1) == "y"


def test_pubsub(need: Need, connect: Connect) -> None:
    need("SUBSCRIBE", "SSUBSCRIBE")
    client, other = connect(), connect()
    with client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe("news")
        channel.psubscribe("n*s")
        wait_for(lambda: [channel.get_message(timeout=0.01), other.pubsub_numpat()][1] == 1)
        assert [list(row) for row in other.pubsub_numsub("news")] == [["news", 1]]
        assert other.publish("news", "hello") == 2
        messages = [wait_for(lambda: channel.get_message(timeout=0.1)) for _ in range(2)]
        assert sorted((m["type"], m["data"]) for m in messages) == [("message", "hello"), ("pmessage", "hello")]
        assert other.pubsub_channels() == ["news"]


def test_keyspace_notifications(need: Need, connect: Connect) -> None:
    need("SUBSCRIBE")
    client, other = connect(), connect()
    other.config_set("notify-keyspace-events", "KEA")
    try:
        with client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.psubscribe("__keyevent@0__:*")
            wait_for(lambda: [channel.get_message(timeout=0.01), other.pubsub_numpat()][1] == 1)
            other.set("k", 1)
            other.delete("k")
            seen = [wait_for(lambda: channel.get_message(timeout=0.1)) for _ in range(2)]
            assert [(m["channel"], m["data"]) for m in seen] == [
                ("__keyevent@0__:set", "k"), ("__keyevent@0__:del", "k"),
            ]  # fmt: skip
    finally:
        other.config_set("notify-keyspace-events", "")


def test_scripts(need: Need, client: Any) -> None:
    need("EVAL", "SCRIPT")
    assert client.eval("return {KEYS[1], ARGV[1], 3}", 1, "k", "v") == ["k", "v", 3]
    add = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert [add(keys=["n"], args=[5]), add(keys=["n"], args=[2])] == [5, 7]
    assert client.script_exists(add.sha) in ([True], [1])
    assert client.eval_ro("return redis.call('GET', KEYS[1])", 1, "n") == "7"
    with pytest.raises(redis.ResponseError, match="wrong"):
        client.eval("return redis.error_reply('ERR wrong')", 0)
    assert client.script_flush()


def test_functions(need: Need, client: Any) -> None:
    need("FUNCTION", "FCALL")
    code = "#!lua name=lib\nredis.register_function('twice', function(keys, args) return args[1] * 2 end)"
    assert client.function_load(code, replace=True) == "lib"
    assert client.fcall("twice", 0, 21) == 42
    assert "twice" in json.dumps(client.function_list())
    assert client.function_delete("lib")


def test_client_side_caching(need: Need, connect: Connect) -> None:
    """By hand: redis-py's own cache asks for a server that calls itself 7.4."""
    need("CLIENT|TRACKING")
    client, other = connect(), connect()
    reader, listener = (client.connection_pool.get_connection() for _ in range(2))

    def ask(connection: Any, *words: Any) -> Any:
        connection.send_command(*words)
        return connection.read_response()

    ask(reader, "SET", "k", "one")
    if client.connection_pool.connection_kwargs["protocol"] == 3:
        seen: list[Any] = []
        reader._parser.set_invalidation_push_handler(seen.append)
        assert ask(reader, "CLIENT", "TRACKING", "ON") == "OK"
        assert ask(reader, "GET", "k") == "one"
        other.set("k", "two")
        wait_for(lambda: [ask(reader, "PING"), seen][1])
        assert seen == [["invalidate", ["k"]]]
    else:
        number = ask(listener, "CLIENT", "ID")
        ask(listener, "SUBSCRIBE", "__redis__:invalidate")
        assert ask(reader, "CLIENT", "TRACKING", "ON", "REDIRECT", number) == "OK"
        assert ask(reader, "GET", "k") == "one"
        other.set("k", "two")
        assert listener.read_response() == ["message", "__redis__:invalidate", ["k"]]


def test_acl(need: Need, connect: Connect) -> None:
    need("ACL")
    client = connect()
    assert client.acl_whoami() == "default"
    assert client.acl_setuser("alice", enabled=True, passwords=["+secret"], keys=["a:*"], commands=["+get", "+set"])
    try:
        alice = connect(username="alice", password="secret")
        assert alice.set("a:1", "x")
        with pytest.raises(redis.exceptions.NoPermissionError):
            alice.set("b:1", "x")
        with pytest.raises(redis.exceptions.NoPermissionError):
            alice.delete("a:1")
        with pytest.raises(redis.AuthenticationError):
            connect(username="alice", password="wrong").ping()
        assert client.acl_getuser("alice")["flags"]
        assert "string" in client.acl_cat()
        assert client.acl_log()[0]["reason"]
    finally:
        assert client.acl_deluser("alice") == 1


def test_connections_and_introspection(client: Any) -> None:
    assert client.ping()
    assert client.echo("x") == "x"
    assert client.client_setname("tester")
    assert client.client_getname() == "tester"
    assert any(each["name"] == "tester" for each in client.client_list())
    assert client.client_no_touch("ON")
    assert client.command_count() > 200
    assert client.command_getkeys("MSET", "a", 1, "b", 2) == ["a", "b"]
    assert client.config_get("maxmemory")
    assert client.config_resetstat()
    assert client.info("server")["redis_version"]
    assert client.memory_usage("absent") is None
    assert client.slowlog_len() >= 0
    assert client.execute_command("LATENCY", "RESET") >= 0
    assert client.execute_command("COMMAND DOCS", "GET")
    assert client.wait(0, 10) >= 0
    assert client.swapdb(0, 1)
    assert client.swapdb(0, 1)
    assert client.lastsave()
