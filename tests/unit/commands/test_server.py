"""Commands about the server: figures, configuration, logs, databases, DEBUG and COMMAND."""

from __future__ import annotations

import pytest

from tests.unit.commands.desk import Desk
from zeekdb.commands import debug, introspection
from zeekdb.commands.spec import REGISTRY
from zeekdb.observe import info
from zeekdb.observe.stats import CommandCounters


@pytest.fixture
def desk() -> Desk:
    return Desk(clients=2)


# --- INFO ---------------------------------------------------------------------------------------------------------


def sections(text: str) -> list[str]:
    """Titles of INFO's sections."""
    return [line[2:].lower() for line in text.split("\r\n") if line.startswith("# ")]


def test_info_sections(desk: Desk) -> None:
    default = sections(desk("INFO").data.decode())
    assert default == [name for name in info.SECTIONS if name not in ("commandstats", "latencystats")]
    assert sections(desk("INFO", "everything").data.decode()) == list(info.SECTIONS)
    assert sections(desk("INFO", "Keyspace", "cpu").data.decode()) == ["cpu", "keyspace"]
    assert desk("INFO", "nonsense").data == b""


def test_info_fields(desk: Desk) -> None:
    desk("SET", "a", "1")
    desk("SET", "b", "1", "EX", "100")
    buckets = [0] * 40
    buckets[3] = 2
    desk.server.counters["config|get"] = CommandCounters(2, 30, 1, 0, buckets, 1.0)
    lines = desk("INFO", "all").data.decode().split("\r\n")
    assert "redis_version:7.2.4" in lines
    assert "listener0:name=tcp,bind=127.0.0.1,bind=::1,port=6379" in lines
    assert "connected_clients:2" in lines
    assert "cmdstat_config|get:calls=2,usec=30,usec_per_call=15.00,rejected_calls=1,failed_calls=0" in lines
    assert any(line.startswith("latency_percentiles_usec_config|get:p50=12.000,p99=") for line in lines)
    assert "errorstat_ERR:count=2" in lines
    assert any(line.startswith("db0:keys=2,expires=1,avg_ttl=") for line in lines)
    desk.server.config.set({"latency-tracking": "no"})
    assert "latency_percentiles" not in desk("INFO", "latencystats").data.decode()


# --- configuration and databases ----------------------------------------------------------------------------------


def test_config(desk: Desk) -> None:
    assert desk("CONFIG", "GET", "maxmemory", "nope*") == {b"maxmemory": b"0"}
    assert desk("CONFIG", "SET", "timeout", "5", "hz", "20") == "OK"
    assert desk.server.config.timeout == 5
    assert desk("CONFIG", "SET", "timeout", "5", "hz") == "ERR syntax error"
    assert desk("CONFIG", "SET", "timeout") == "ERR wrong number of arguments for 'config|set' command"
    assert desk("CONFIG", "REWRITE") == "ERR The server is running without a config file"
    desk.server.stats.evicted_clients = 3
    assert desk("CONFIG", "RESETSTAT") == "OK"
    assert desk.server.stats.evicted_clients == 0


def test_flush_and_swap(desk: Desk) -> None:
    desk("SET", "a", "1")
    assert desk("FLUSHDB", "maybe") == desk("FLUSHALL", "SYNC", "ASYNC") == "ERR syntax error"
    assert desk("SWAPDB", "x", "1") == "ERR invalid first DB index"
    assert desk("SWAPDB", "0", "x") == "ERR invalid second DB index"
    assert desk("SWAPDB", "0", "99") == "ERR DB index is out of range"
    assert desk("SWAPDB", "0", "1") == "OK"
    assert [len(db) for db in desk.keyspace.databases[:2]] == [0, 1]
    assert desk("SWAPDB", "1", "0") == "OK"
    assert desk("DBSIZE") == 1
    assert desk("FLUSHDB", "ASYNC") == "OK"
    assert desk("DBSIZE") == 0
    assert desk("FLUSHALL") == "OK"


def test_shutdown(desk: Desk) -> None:
    assert desk("SHUTDOWN", "x") == desk("SHUTDOWN", "SAVE", "NOSAVE") == "ERR syntax error"
    assert desk("SHUTDOWN", "ABORT") == "ERR No shutdown in progress."
    assert desk("SHUTDOWN", "ABORT", "NOW") == "ERR syntax error"
    desk("SHUTDOWN")
    desk("SHUTDOWN", "nosave", "now", "force")
    assert desk.server.deeds == [("shutdown", None, False, False), ("shutdown", False, True, True)]


def test_small_ones(desk: Desk) -> None:
    seconds, micros = map(int, desk("TIME"))
    assert seconds > 1_600_000_000
    assert 0 <= micros < 1_000_000
    assert desk("ROLE") == [b"master", 0, []]
    assert desk("LASTSAVE") == 0
    assert b"Redis ver. 7.2" in desk("LOLWUT").data
    assert desk("LOLWUT", "VERSION", "6").data != desk("LOLWUT", "VERSION", "7").data
    assert desk("LOLWUT", "VERSION", "x") == "ERR value is not an integer or out of range"
    assert desk("MONITOR") == "OK"
    assert desk.me.is_monitor


# --- logs ---------------------------------------------------------------------------------------------------------


def test_slowlog(desk: Desk) -> None:
    desk.server.slowlog.add([b"GET", b"a"], 12, "1.2.3.4:5", b"me", 10)
    assert desk("SLOWLOG", "GET") == [[0, 1000, 12, [b"GET", b"a"], b"1.2.3.4:5", b"me"]]
    assert desk("SLOWLOG", "GET", "0") == []
    assert desk("SLOWLOG", "LEN") == 1
    assert desk("SLOWLOG", "GET", "-2") == "ERR count should be greater than or equal to -1"
    assert desk("SLOWLOG", "RESET") == "OK"
    assert desk("SLOWLOG", "LEN") == 0


def test_latency(desk: Desk) -> None:
    desk.server.latency.add("command", 12)
    assert desk("LATENCY", "LATEST") == [[b"command", 1000, 12, 12]]
    assert desk("LATENCY", "HISTORY", "command") == [[1000, 12]]
    assert desk("LATENCY", "HISTORY", "x") == []
    assert desk("LATENCY", "GRAPH", "x") == "ERR No samples available for event 'x'"
    assert b"high 12 ms" in desk("LATENCY", "GRAPH", "command").data
    assert desk("LATENCY", "RESET", "x", "command") == 1
    desk.server.counters["get"] = CommandCounters(3, 30, 0, 0, [0, 0, 3] + [0] * 37, 1.0)
    assert desk("LATENCY", "HISTOGRAM", "set", "get") == {b"get": {b"calls": 3, b"histogram_usec": {8: 3}}}


def test_memory(desk: Desk) -> None:
    desk("SET", "a", "x" * 1000)
    assert desk("MEMORY", "USAGE", "a") >= 1000
    assert desk("MEMORY", "USAGE", "none") is None
    assert desk("MEMORY", "USAGE", "a", "SAMPLES", "-1") == "ERR syntax error"
    assert desk("MEMORY", "USAGE", "a", "SAMPLES") == "ERR syntax error"
    stats = desk("MEMORY", "STATS")
    assert stats[b"keys.count"] == 1
    assert stats[b"total.allocated"] >= 1000
    assert b"db.0" in stats
    assert b"Sam" in desk("MEMORY", "DOCTOR").data  # what he finds is this process's past


# --- COMMAND ------------------------------------------------------------------------------------------------------


def test_command_info(desk: Desk) -> None:
    name, arity, flags, first, last, step, acl, tips, keys, subcommands = desk("COMMAND", "INFO", "GET")[0]
    assert (name, arity, first, last, step) == (b"get", 2, 1, 1, 1)
    assert sorted(flags) == ["fast", "readonly"]
    assert sorted(acl) == ["@fast", "@read", "@string"]
    assert (list(tips), list(subcommands)) == ([], [])
    assert next(iter(keys))[b"find_keys"] == {b"type": b"range", b"spec": {b"lastkey": 0, b"keystep": 1, b"limit": 0}}
    assert desk("COMMAND", "INFO", "nope", "config|get")[0] is None
    assert desk("COMMAND", "INFO", "config|get")[0][0] == b"config|get"
    assert desk("COMMAND", "COUNT") == len(desk("COMMAND", "INFO")) == len(REGISTRY)


def test_command_docs(desk: Desk) -> None:
    docs = desk("COMMAND", "DOCS", "config", "nope")
    assert list(docs) == [b"config"]
    assert docs[b"config"][b"group"] == b"server"
    assert b"config|get" in docs[b"config"][b"subcommands"]
    assert len(desk("COMMAND", "DOCS")) == len(REGISTRY)


def test_command_list(desk: Desk) -> None:
    assert len(desk("COMMAND", "LIST")) == sum(1 + len(spec.subcommands) for spec in REGISTRY.values())
    assert desk("COMMAND", "LIST", "FILTERBY", "PATTERN", "CONFIG|r*") == [b"config|rewrite", b"config|resetstat"]
    assert b"get" in desk("COMMAND", "LIST", "FILTERBY", "ACLCAT", "string")
    assert desk("COMMAND", "LIST", "FILTERBY", "MODULE", "x") == []
    assert desk("COMMAND", "LIST", "FILTERBY", "x", "y") == "ERR syntax error"


@pytest.mark.parametrize(
    ("call", "keys"),
    [
        ("GET a", [b"a"]),
        ("MSET a 1 b 2", [b"a", b"b"]),
        ("MEMORY USAGE a", [b"a"]),
        ("OBJECT ENCODING a", [b"a"]),
        ("SORT a BY x GET y STORE b", [b"a", b"b"]),
        ("DEL a b c", [b"a", b"b", b"c"]),
        ("nope a", "ERR Invalid command specified"),
        ("PING a", "ERR The command has no key arguments"),
        ("GET a b", "ERR Invalid number of arguments specified for command"),
    ],
)
def test_getkeys(desk: Desk, call: str, keys: list[bytes] | str) -> None:
    assert desk("COMMAND", "GETKEYS", *call.split()) == keys


def test_getkeysandflags(desk: Desk) -> None:
    def flags(*call: str) -> list[list[str]]:
        return [sorted(access) for _, access in desk("COMMAND", "GETKEYSANDFLAGS", *call)]

    assert flags("SET", "a", "b") == [["OW", "update"]]
    assert flags("SET", "a", "b", "GET") == [["RW", "access", "update"]]
    assert flags("COPY", "a", "b") == [["RO", "access"], ["OW", "update"]]


def test_sets_of_what_cannot_be_hashed() -> None:
    made = introspection.SetOf([{}, {}])
    assert len(made) == 2
    assert list(made) == [{}, {}]
    assert isinstance(made, frozenset)


# --- DEBUG --------------------------------------------------------------------------------------------------------


def test_debug_is_locked(desk: Desk) -> None:
    assert desk("DEBUG", "SLEEP", "0").startswith("ERR DEBUG command not allowed.")
    desk.server.config.enable_debug_command = "local"
    assert desk("DEBUG", "SLEEP", "0") == "OK"
    desk.me.addr = "10.0.0.1:1"
    assert desk("DEBUG", "SLEEP", "0").startswith("ERR DEBUG command not allowed.")


@pytest.fixture
def open_desk(desk: Desk) -> Desk:
    desk.server.config.enable_debug_command = "yes"
    return desk


def test_digests_are_redis_digests(open_desk: Desk) -> None:
    desk = open_desk
    desk("SET", "foo", "bar")
    desk("SET", "e", "1", "EX", "100")
    desk("SADD", "s", "a", "b", "c")
    desk("HSET", "h", "a", "b", "c", "d")
    assert desk("DEBUG", "DIGEST-VALUE", "s", "h", "e", "none") == [
        "593c2414786d75446e97f4ea5d4b731f3313da72",
        "aa24f9a69bf2aba8194de0a98bbe35c79d2090d3",
        "5279988c5d1911f474bcbbf2f0a87012d40f8459",
        "0" * 40,
    ]
    before = desk("DEBUG", "DIGEST")
    desk("SET", "foo", "baz")
    assert desk("DEBUG", "DIGEST") != before
    desk("SET", "foo", "bar")
    assert desk("DEBUG", "DIGEST") == before
    desk("FLUSHALL")
    assert desk("DEBUG", "DIGEST") == "0" * 40


def test_debug_switches(open_desk: Desk) -> None:
    desk = open_desk
    assert desk("DEBUG", "SET-ACTIVE-EXPIRE", "0") == "OK"
    assert not desk.keyspace.active_expire
    assert desk("DEBUG", "PAUSE-CRON", "1") == "OK"
    assert desk.server.cron_paused
    old = desk.server.replication_id
    assert desk("DEBUG", "CHANGE-REPL-ID") == "OK"
    assert desk.server.replication_id != old
    assert desk("DEBUG", "POPULATE", "3", "p", "12") == "OK"
    assert desk("GET", "p:2") == b"value:2\0\0\0\0\0"
    assert desk("DEBUG", "STRINGMATCH-LEN", "a*", "abc") == 1
    assert desk("DEBUG", "RELOAD") == "OK"
    assert desk("DEBUG", "ERROR", "FOO bar") == "FOO bar"
    assert desk("DEBUG", "QUICKLIST-PACKED-THRESHOLD", "5zz").startswith("ERR argument must be a memory value")


def test_debug_errors(open_desk: Desk) -> None:
    desk = open_desk
    unknown = "ERR unknown subcommand or wrong number of arguments for 'dance'. Try DEBUG HELP."
    assert desk("DEBUG", "dance") == unknown
    assert desk("DEBUG", "OBJECT", "none") == "ERR no such key"
    desk("SET", "a", "1")
    assert desk("DEBUG", "LISTPACK", "a") == "ERR Not a listpack encoded object."
    assert "encoding:int" in desk("DEBUG", "OBJECT", "a")
    assert desk("DEBUG", "HTSTATS", "99") == "ERR Out of range database"
    assert b"number of elements: 1" in desk("DEBUG", "HTSTATS", "0").data


def test_debug_help_names_what_there_is(open_desk: Desk) -> None:
    named = {line.split()[0].encode() for line in open_desk("DEBUG", "HELP")[1:] if not line.startswith(" ")}
    assert named <= set(debug.SUBCOMMANDS)
