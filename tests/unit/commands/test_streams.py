"""Stream commands on a keyspace without a server: ids, trimming, groups, and what they tell the journal."""

from __future__ import annotations

from typing import Any

import pytest

import zeekdb.commands.generic
import zeekdb.commands.stream_groups
import zeekdb.commands.stream_info
import zeekdb.commands.streams
import zeekdb.commands.strings  # noqa: F401
from tests.journal import listening
from tests.unit.commands.harness import NOW_MS, Bench
from zeekdb.commands.reply import NULL_ARRAY, Pairs

MAX = "18446744073709551615"
TOO_SMALL = "ERR The ID specified in XADD is equal or smaller than the target stream top item"
INVALID = "ERR Invalid stream ID specified as stream command argument"


@pytest.fixture
def bench() -> Bench:
    return Bench(stream_node_max_entries=100, stream_node_max_bytes=4096)


def ids(reply: Any) -> list[str]:
    """Of a reply of entries."""
    return [id.decode() for id, _ in reply]


def fill(bench: Bench, key: str, *numbers: int) -> None:
    for number in numbers:
        assert bench("XADD", key, number, "f", number) == b"%d-0" % number


# --- the log ----------------------------------------------------------------------------------------------------------


def test_ids_that_xadd_finds(bench: Bench) -> None:
    assert bench("XADD", "s", "*", "f", "v") == b"%d-0" % NOW_MS
    assert bench("XADD", "s", "*", "f", "v") == b"%d-1" % NOW_MS
    bench.advance(5)
    assert bench("XADD", "s", "*", "f", "v") == b"%d-0" % (NOW_MS + 5)
    bench.advance(-100)
    assert bench("XADD", "s", "*", "f", "v") == b"%d-1" % (NOW_MS + 5)
    assert bench("XADD", "t", "0-*", "f", "v") == b"0-1"
    assert bench("XADD", "t", "7-*", "f", "v") == b"7-0"
    assert bench("XADD", "t", "7-*", "f", "v") == b"7-1"
    assert bench("XADD", "t", f"7-{MAX}", "f", "v") == f"7-{MAX}".encode()
    assert bench("XADD", "t", "7-*", "f", "v") == TOO_SMALL
    assert bench("XADD", "t", "8", "f", "v") == b"8-0"
    assert bench("XADD", "t", "8", "f", "v") == TOO_SMALL
    assert bench("XADD", "t", "6-*", "f", "v") == TOO_SMALL
    assert bench("XADD", "t", f"{MAX}-{MAX}", "f", "v") == f"{MAX}-{MAX}".encode()
    assert bench("XADD", "t", "*", "f", "v") == (
        "ERR The stream has exhausted the last possible ID, unable to add more items"
    )


NO_IDS = ["-", "+", "", "a", "1-", "-1", "1-2-3", "1-a", "*-1", "1.5", f"{MAX}0", "1--2", "x" * 200]


@pytest.mark.parametrize("id", NO_IDS)
def test_ids_that_are_none(bench: Bench, id: str) -> None:
    assert bench("XADD", "s", id, "f", "v") == INVALID
    assert bench("EXISTS", "s") == 0


def test_ids_as_strtoull_reads_them(bench: Bench) -> None:
    assert bench("XADD", "s", "007-01", "f", "v") == b"7-1"
    assert bench("XADD", "s", " +7-2", "f", "v") == b"7-2"
    assert bench("XADD", "s", b"7-3\0junk", "f", "v") == b"7-3"
    assert bench("XADD", "s", "9- -1", "f", "v") == f"9-{MAX}".encode()


def test_what_xadd_refuses(bench: Bench) -> None:
    assert bench("XADD", "s", "0-0", "f", "v") == "ERR The ID specified in XADD must be greater than 0-0"
    assert bench("XADD", "s", "1-1", "f", "v", "g") == "ERR wrong number of arguments for 'xadd' command"
    assert bench("XADD", "s", "MAXLEN", "-1", "1-1", "f", "v") == "ERR The MAXLEN argument must be >= 0."
    assert "without the special ~" in bench("XADD", "s", "MAXLEN", "5", "LIMIT", "1", "*", "f", "v")
    assert "without specifying a trimming strategy" in bench("XADD", "s", "LIMIT", "1", "*", "f", "v")
    assert "not compatible" in bench("XADD", "s", "MAXLEN", "5", "MINID", "1", "*", "f", "v")
    assert bench("EXISTS", "s") == 0
    assert bench("XADD", "s", "NOMKSTREAM", "*", "f", "v") is None
    assert bench("EXISTS", "s") == 0
    bench("SET", "s", "v")
    assert bench("XADD", "s", "*", "f", "v").startswith("WRONGTYPE")


def test_trimming(bench: Bench) -> None:
    fill(bench, "s", *range(1, 251))
    assert bench("XTRIM", "s", "MAXLEN", "~", "220") == 0
    assert bench("XTRIM", "s", "MAXLEN", "~", "140", "LIMIT", "50") == 0
    assert bench("XTRIM", "s", "MAXLEN", "~", "140", "LIMIT", "100") == 100
    assert bench("XTRIM", "s", "MINID", "~", "190") == 0
    assert bench("XTRIM", "s", "MINID", "=", "190") == 89
    assert bench("XLEN", "s") == 61
    assert ids(bench("XRANGE", "s", "-", "+", "COUNT", "1")) == ["190-0"]
    assert bench("XADD", "s", "MAXLEN", "2", "300", "f", "v") == b"300-0"
    assert ids(bench("XRANGE", "s", "-", "+")) == ["250-0", "300-0"]
    assert bench("XTRIM", "s", "MAXLEN", "0") == 2
    assert bench("EXISTS", "s") == 1
    assert bench("XTRIM", "none", "MAXLEN", "0") == 0


def test_ranges(bench: Bench) -> None:
    for id in ("1-1", "1-2", "2-0", "3-5"):
        bench("XADD", "s", id, "f", "v")
    assert ids(bench("XRANGE", "s", "-", "+")) == ["1-1", "1-2", "2-0", "3-5"]
    assert ids(bench("XREVRANGE", "s", "+", "-", "COUNT", "2")) == ["3-5", "2-0"]
    assert ids(bench("XRANGE", "s", "1", "1")) == ["1-1", "1-2"]
    assert ids(bench("XRANGE", "s", "(1-1", "(3-5")) == ["1-2", "2-0"]
    assert ids(bench("XRANGE", "s", "(1", "(3")) == ["1-1", "1-2", "2-0", "3-5"]
    assert bench("XRANGE", "s", "3", "1") == []
    assert bench("XRANGE", "s", "-", "+", "COUNT", "0") is NULL_ARRAY
    assert bench("XRANGE", "none", "-", "+", "COUNT", "0") == []
    assert bench("XRANGE", "s", f"({MAX}-{MAX}", "+") == "ERR invalid start ID for the interval"
    assert bench("XRANGE", "s", "-", "(0-0") == "ERR invalid end ID for the interval"
    assert bench("XRANGE", "s", "(-", "+") == INVALID
    assert bench("XRANGE", "s", "-", "+", "BOGUS", "1") == "ERR syntax error"


def test_deleting_and_setting_the_last_id(bench: Bench) -> None:
    fill(bench, "s", 1, 2, 3)
    assert bench("XDEL", "s", "2", "9", "2") == 1
    assert bench("XDEL", "s", "3", "x") == INVALID
    assert bench("XLEN", "s") == 2
    info = bench("XINFO", "STREAM", "s")
    assert info[b"max-deleted-entry-id"] == b"2-0"
    assert info[b"entries-added"] == 3
    assert bench("XDEL", "s", "1", "3") == 2
    assert bench("EXISTS", "s") == 1
    assert bench("XSETID", "s", "2") == "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id"
    assert bench("XSETID", "s", "9-9", "ENTRIESADDED", "100", "MAXDELETEDID", "4-0") == "OK"
    info = bench("XINFO", "STREAM", "s")
    assert (info[b"last-generated-id"], info[b"entries-added"]) == (b"9-9", 100)
    assert info[b"max-deleted-entry-id"] == b"4-0"
    fill(bench, "t", 5)
    assert bench("XSETID", "t", "4").endswith("smaller than the target stream top item")
    assert bench("XSETID", "t", "6", "ENTRIESADDED", "0", "MAXDELETEDID", "1").endswith("target stream length")
    assert bench("XSETID", "t", "6", "ENTRIESADDED", "-1").endswith("must be positive")
    assert bench("XSETID", "t", "6", "MAXDELETEDID", "7").endswith("the provided max_deleted_entry_id")
    assert bench("XSETID", "t", "6", "ENTRIESADDED") == "ERR syntax error"
    assert bench("XSETID", "none", "6") == "ERR no such key"


def test_events_and_counted_changes(bench: Bench) -> None:
    assert bench.events_of("XADD", "s", "1", "f", "v") == ["xadd"]
    assert bench.events_of("XADD", "s", "MAXLEN", "5", "2", "f", "v") == ["xadd"]
    assert bench.events_of("XADD", "s", "MAXLEN", "1", "3", "f", "v") == ["xadd", "xtrim"]
    assert bench.events_of("XGROUP", "CREATE", "s", "g", "0") == ["xgroup-create"]
    assert bench.events_of("XGROUP", "SETID", "s", "g", "0") == ["xgroup-setid"]
    assert bench.events_of("XGROUP", "CREATECONSUMER", "s", "g", "c") == ["xgroup-createconsumer"]
    assert bench.events_of("XREADGROUP", "GROUP", "g", "d", "STREAMS", "s", ">") == ["xgroup-createconsumer"]
    assert bench.events_of("XGROUP", "DELCONSUMER", "s", "g", "c") == ["xgroup-delconsumer"]
    assert bench.events_of("XGROUP", "DESTROY", "s", "g") == ["xgroup-destroy"]
    assert bench.events_of("XDEL", "s", "3") == ["xdel"]
    assert bench.events_of("XSETID", "s", "9") == ["xsetid"]
    assert bench.events_of("XTRIM", "s", "MAXLEN", "0") == []
    fill(bench, "s", 10, 11, 12)
    before = bench.keyspace.dirty
    assert bench.events_of("XTRIM", "s", "MAXLEN", "1") == ["xtrim"]
    assert bench.keyspace.dirty == before + 2


# --- groups -----------------------------------------------------------------------------------------------------------


def read(bench: Bench, consumer: str, *options: str, id: str = ">") -> Any:
    reply = bench("XREADGROUP", "GROUP", "g", consumer, *options, "STREAMS", "s", id)
    return ids(reply[0][1]) if isinstance(reply, list) else reply


@pytest.fixture
def grouped(bench: Bench) -> Bench:
    """Five entries, two read by Alice, one by Bob."""
    fill(bench, "s", 1, 2, 3, 4, 5)
    assert bench("XGROUP", "CREATE", "s", "g", "0") == "OK"
    assert read(bench, "Alice", "COUNT", "2") == ["1-0", "2-0"]
    assert read(bench, "Bob", "COUNT", "1") == ["3-0"]
    return bench


def test_creating_groups(bench: Bench) -> None:
    assert "requires the key to exist" in bench("XGROUP", "CREATE", "s", "g", "$")
    assert bench("XGROUP", "CREATE", "s", "g", "x", "MKSTREAM") == INVALID
    assert bench("EXISTS", "s") == 0
    assert bench("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM") == "OK"
    assert bench("XGROUP", "CREATE", "s", "g", "$").startswith("BUSYGROUP")
    assert bench("XGROUP", "CREATE", "s", "h", "$", "ENTRIESREAD", "-2").endswith("must be positive or -1")
    assert "unknown subcommand or wrong number" in bench("XGROUP", "SETID", "s", "g", "0", "MKSTREAM")
    assert bench("XGROUP", "SETID", "s", "none", "0").startswith("NOGROUP")
    assert bench("XGROUP", "CREATECONSUMER", "s", "g", "c") == 1
    assert bench("XGROUP", "CREATECONSUMER", "s", "g", "c") == 0
    assert bench("XGROUP", "DESTROY", "s", "none") == 0
    assert bench("XGROUP", "DESTROY", "s", "g") == 1
    bench("SET", "t", "v")
    assert bench("XGROUP", "CREATE", "t", "g", "$", "MKSTREAM").startswith("WRONGTYPE")


def test_reading_history_and_acknowledging(grouped: Bench) -> None:
    assert read(grouped, "Alice", id="0") == ["1-0", "2-0"]
    assert read(grouped, "Alice", id="1") == ["2-0"]
    assert read(grouped, "Carol", id="0") == []
    grouped("XDEL", "s", "1")
    reply = grouped("XREADGROUP", "GROUP", "g", "Alice", "STREAMS", "s", "0")
    assert reply == [[b"s", [[b"1-0", NULL_ARRAY], [b"2-0", [b"f", b"2"]]]]]
    assert grouped("XACK", "s", "g", "1", "2-0", "7") == 2
    assert grouped("XACK", "s", "g", "1", "x") == INVALID
    assert grouped("XACK", "s", "none", "x") == 0
    assert read(grouped, "Alice", id="0") == []
    assert read(grouped, "Alice", "NOACK") == ["4-0", "5-0"]
    assert read(grouped, "Alice") is NULL_ARRAY
    assert grouped("XPENDING", "s", "g") == [1, b"3-0", b"3-0", [[b"Bob", b"1"]]]


def test_setid_hands_entries_over_again(grouped: Bench) -> None:
    assert grouped("XGROUP", "SETID", "s", "g", "-") == "OK"
    assert read(grouped, "Carol") == ["1-0", "2-0", "3-0", "4-0", "5-0"]
    assert grouped("XPENDING", "s", "g") == [5, b"1-0", b"5-0", [[b"Carol", b"5"]]]
    assert grouped("XGROUP", "DELCONSUMER", "s", "g", "Carol") == 5
    assert grouped("XPENDING", "s", "g") == [0, None, None, NULL_ARRAY]


def test_what_reading_refuses(grouped: Bench) -> None:
    assert grouped("XREADGROUP", "GROUP", "no", "c", "STREAMS", "s", ">").startswith("NOGROUP No such key 's'")
    assert "$ ID is meaningless" in grouped("XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", "$")
    assert "GROUP option is only supported" in grouped("XREAD", "GROUP", "g", "c", "STREAMS", "s", ">")
    assert "> ID can be specified only" in grouped("XREAD", "STREAMS", "s", ">")
    assert grouped("XREAD", "STREAMS", "s", "t", "0").startswith("ERR Unbalanced 'xread' list of streams")
    assert "Missing GROUP option" in grouped("XREADGROUP", "COUNT", "1", "NOACK", "STREAMS", "s", ">")
    assert grouped("XREAD", "BLOCK", "-1", "STREAMS", "s", "0") == "ERR timeout is negative"
    assert grouped("XREAD", "BLOCK", "x", "STREAMS", "s", "0") == "ERR timeout is not an integer or out of range"
    assert grouped("XREAD", "BLOCK", "9223372036854775807", "STREAMS", "s", "0") == "ERR timeout is out of range"
    assert grouped("XREAD", "COUNT", "1", "s", "0") == "ERR syntax error"


def test_xread(grouped: Bench) -> None:
    fill(grouped, "t", 7)
    assert grouped("XREAD", "COUNT", "1", "STREAMS", "s", "none", "t", "2", "0", "0") == [
        [b"s", [[b"3-0", [b"f", b"3"]]]],
        [b"t", [[b"7-0", [b"f", b"7"]]]],
    ]
    assert grouped("XREAD", "STREAMS", "s", "t", "$", "$") is NULL_ARRAY
    assert grouped("XREAD", "STREAMS", "s", f"{MAX}-{MAX}") is NULL_ARRAY
    grouped.client.protocol = 3
    reply = grouped("XREAD", "STREAMS", "t", "0")
    assert isinstance(reply, Pairs)
    assert reply.items == [(b"t", [[b"7-0", [b"f", b"7"]]])]


def test_pending(grouped: Bench) -> None:
    grouped.advance(1000)
    read(grouped, "Bob", "COUNT", "1")
    assert grouped("XPENDING", "s", "g", "-", "+", "10") == [
        [b"1-0", b"Alice", 1000, 1], [b"2-0", b"Alice", 1000, 1], [b"3-0", b"Bob", 1000, 1], [b"4-0", b"Bob", 0, 1],
    ]  # fmt: skip
    assert [row[0] for row in grouped("XPENDING", "s", "g", "IDLE", "500", "(1", "+", "10")] == [b"2-0", b"3-0"]
    assert [row[0] for row in grouped("XPENDING", "s", "g", "-", "+", "1", "Bob")] == [b"3-0"]
    assert grouped("XPENDING", "s", "g", "-", "+", "10", "none") == []
    assert grouped("XPENDING", "s", "g", "-", "+", "-1") == []
    assert grouped("XPENDING", "s", "g", "-") == "ERR syntax error"
    assert grouped("XPENDING", "s", "no").startswith("NOGROUP")


def test_claiming(grouped: Bench) -> None:
    grouped.advance(1000)
    assert ids(grouped("XCLAIM", "s", "g", "Bob", "500", "1", "9")) == ["1-0"]
    assert grouped("XCLAIM", "s", "g", "Bob", "500", "1") == []
    assert grouped("XCLAIM", "s", "g", "Bob", "0", "2", "JUSTID") == [b"2-0"]
    assert grouped("XCLAIM", "s", "g", "Carol", "0", "5") == []
    assert ids(grouped("XCLAIM", "s", "g", "Carol", "0", "5", "FORCE", "RETRYCOUNT", "9", "IDLE", "700")) == ["5-0"]
    grouped("XDEL", "s", "3")
    assert grouped("XCLAIM", "s", "g", "Carol", "0", "3") == []
    assert grouped("XPENDING", "s", "g", "-", "+", "10") == [
        [b"1-0", b"Bob", 0, 2], [b"2-0", b"Bob", 0, 1], [b"5-0", b"Carol", 700, 9],
    ]  # fmt: skip
    assert grouped("XCLAIM", "s", "g", "Bob", "0", "1", "BOGUS") == "ERR Unrecognized XCLAIM option 'BOGUS'"
    assert grouped("XCLAIM", "s", "g", "Bob", "x", "1") == "ERR Invalid min-idle-time argument for XCLAIM"
    grouped("XCLAIM", "s", "g", "Bob", "0", "1", "LASTID", "5-0")
    assert read(grouped, "Bob") is NULL_ARRAY


def test_claiming_what_is_idle(grouped: Bench) -> None:
    grouped("XDEL", "s", "2")
    assert grouped("XAUTOCLAIM", "s", "g", "Bob", "10", "-") == [b"0-0", [], [b"2-0"]]
    grouped.advance(1000)
    assert grouped("XAUTOCLAIM", "s", "g", "Bob", "500", "0", "COUNT", "1") == [b"3-0", [[b"1-0", [b"f", b"1"]]], []]
    assert grouped("XAUTOCLAIM", "s", "g", "Bob", "500", "(1", "JUSTID") == [b"0-0", [b"3-0"], []]
    assert grouped("XAUTOCLAIM", "s", "g", "Bob", "0", "0", "COUNT", "0") == "ERR COUNT must be > 0"
    assert grouped("XAUTOCLAIM", "s", "no", "Bob", "0", "0").startswith("NOGROUP")


def test_information(grouped: Bench) -> None:
    grouped.advance(50)
    read(grouped, "Carol")
    full = grouped("XINFO", "STREAM", "s", "FULL", "COUNT", "1")
    assert list(full)[:3] == [b"length", b"radix-tree-keys", b"radix-tree-nodes"]
    assert full[b"entries"] == [[b"1-0", [b"f", b"1"]]]
    [group] = full[b"groups"]
    assert (group[b"entries-read"], group[b"lag"], group[b"pel-count"]) == (5, 0, 5)
    assert group[b"pending"] == [[b"1-0", b"Alice", NOW_MS, 1]]
    assert [consumer[b"name"] for consumer in group[b"consumers"]] == [b"Alice", b"Bob", b"Carol"]
    assert group[b"consumers"][1] == {
        b"name": b"Bob", b"seen-time": NOW_MS, b"active-time": NOW_MS, b"pel-count": 1,
        b"pending": [[b"3-0", NOW_MS, 1]],
    }  # fmt: skip
    grouped("XGROUP", "CREATECONSUMER", "s", "g", "Dave")
    assert grouped("XINFO", "CONSUMERS", "s", "g")[::3] == [
        {b"name": b"Alice", b"pending": 2, b"idle": 50, b"inactive": 50},
        {b"name": b"Dave", b"pending": 0, b"idle": 0, b"inactive": -1},
    ]
    assert grouped("XINFO", "STREAM", "none") == "ERR no such key"
    assert grouped("XINFO", "CONSUMERS", "s", "no") == "NOGROUP No such consumer group 'no' for key name 's'"
    assert "unknown subcommand or wrong number" in grouped("XINFO", "STREAM", "s", "BOGUS")


def test_what_others_are_told_is_the_same_anywhere(grouped: Bench) -> None:
    with listening() as told:
        grouped("XADD", "s", "*", "f", "v")
        grouped("XADD", "s", "MAXLEN", "~", "3", "*", "f", "v")
        grouped("XTRIM", "s", "MAXLEN", "4")
        read(grouped, "Alice", "COUNT", "1")
        read(grouped, "Alice", "NOACK", "COUNT", "1")
        assert told() == [
            f"XADD s {NOW_MS}-0 f v",
            f"XADD s MAXLEN = 7 {NOW_MS}-1 f v",
            "XTRIM s MAXLEN = 4",
            f"XCLAIM s g Alice 0 4-0 TIME {NOW_MS} RETRYCOUNT 1 FORCE JUSTID LASTID 4-0",
            "XGROUP SETID s g 4-0 ENTRIESREAD 4",
            "XGROUP SETID s g 5-0 ENTRIESREAD 5",
        ]
        grouped("XDEL", "s", "4")
        grouped("XAUTOCLAIM", "s", "g", "Zoe", "0", "0")
        assert told() == ["XGROUP CREATECONSUMER s g Zoe", *(f"XACK s g {number}-0" for number in (1, 2, 3, 4))]
