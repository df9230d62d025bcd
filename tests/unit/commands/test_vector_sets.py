"""Vector set commands: replies in both protocols, errors, events."""

from __future__ import annotations

import struct
import sys
from typing import Any

import pytest

import zeekdb.commands.strings
import zeekdb.commands.vector_sets  # noqa: F401
from tests.unit.commands.harness import Bench
from zeekdb.commands.reply import NULL_ARRAY, Pairs
from zeekdb.errors import CommandError
from zeekdb.persistence import payload

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
INVALID = "ERR invalid vector specification"
READS: dict[str, list[Any]] = {
    "VCARD": [], "VDIM": [], "VINFO": [], "VRANDMEMBER": [], "VISMEMBER": ["a"], "VEMB": ["a"], "VGETATTR": ["a"],
    "VLINKS": ["a"], "VRANGE": ["-", "+"], "VSIM": ["ELE", "a"],
}  # fmt: skip


def filled(protocol: int = 2) -> Bench:
    made = Bench(protocol)
    made("SET", "string", "v")
    assert made("VADD", "k", "VALUES", 2, 1, 0, "a") is True
    assert made("VADD", "k", "VALUES", 2, 0, 1, "b", "SETATTR", '{"n":1}') is True
    assert made("VADD", "k", "VALUES", 2, -1, 0, "c", "SETATTR", '{"n":2}') is True
    made.events.clear()
    return made


@pytest.fixture
def bench() -> Bench:
    return filled()


def fp32(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


# --- writing ------------------------------------------------------------------------------------------------------


def test_vadd(bench: Bench) -> None:
    assert bench("VADD", "k", "values", "2", "0.6", ".8", "d", "cas", "q8", "ef", "300", "m", "16") is True
    assert bench("VADD", "k", "FP32", fp32(-0.5, 0), "d") is False
    assert bench("VEMB", "k", "d") == pytest.approx([-0.5, 0])
    assert bench.events == [("vadd", b"k"), ("vadd", b"k")]
    assert bench("VADD", "new", "VALUES", 3, "1e-3", "-2E+1", "0x1p3", "x", "NOQUANT", "M", 4) is True
    assert bench("VEMB", "new", "x") == pytest.approx([0.001, -20, 8])
    assert bench("VADD", "string", "VALUES", 1, 1, "x") == WRONG_TYPE


def test_vadd_sets_attributes(bench: Bench) -> None:
    bench("VADD", "k", "VALUES", 2, 1, 1, "b")
    assert bench("VGETATTR", "k", "b") == b'{"n":1}'
    bench("VADD", "k", "VALUES", 2, 1, 1, "b", "SETATTR", "any")
    assert bench("VGETATTR", "k", "b") == b"any"
    bench("VADD", "k", "VALUES", 2, 1, 1, "b", "SETATTR", "")
    assert bench("VGETATTR", "k", "b") is None


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["VALUES", 2, 1, 1], "ERR wrong number of arguments for 'vadd' command"),
        (["VALUES", 2, 1], INVALID),
        (["VALUES", 3, 1, 1, "x"], INVALID),
        (["VALUES", 0, "x", "y"], INVALID),
        (["VALUES", -1, "x", "y"], INVALID),
        (["VALUES", "two", 1, 1, "x"], INVALID),
        (["VALUES", 65537, 1, 1, "x"], INVALID),
        (["VALUES", 2, 1, "one", "x"], INVALID),
        (["VALUES", 2, 1, "1,5", "x"], INVALID),
        (["VALUES", 2, 1, "", "x"], INVALID),
        (["VALUES", 2, 1, "nan", "x"], INVALID),
        (["VALUES", 2, 1, "inf", "x"], INVALID),
        (["VALUES", 2, 1, "1e39", "x"], INVALID),
        (["VALUES", 2, "1e38", "1_0", "x"], INVALID),
        (["FP32", "abc", "x"], INVALID),
        (["FP32", "", "x"], INVALID),
        (["FP32", fp32(1, float("nan")), "x"], INVALID),
        (["FP32", bytes(4 * 65537), "x"], INVALID),
        (["FP64", fp32(1, 1), "x"], INVALID),
        (["REDUCE", 0, "VALUES", 2, 1, 1, "x"], INVALID),
        (["REDUCE", "one", "VALUES", 2, 1, 1, "x"], INVALID),
        (["REDUCE", 3, "VALUES", 2, 1, 1, "x"], INVALID),
        (["REDUCE", 1, "VALUES"], INVALID),
        (["REDUCE", 1, "VALUES", 2, 1, 1, "x"], "ERR cannot add projection to existing set without projection"),
        (["REDUCE", 2, "VALUES", 2, 1, 1, "x"], "ERR cannot add projection to existing set without projection"),
        (["VALUES", 3, 1, 1, 1, "x"], "ERR Vector dimension mismatch - got 3 but set has 2"),
        (["VALUES", 2, 1, 1, "x", "BIN"], "ERR asked quantization mismatch with existing vector set"),
        (["VALUES", 2, 1, 1, "x", "NOQUANT"], "ERR asked quantization mismatch with existing vector set"),
        (["VALUES", 2, 1, 1, "x", "M", 17], "ERR asked M value mismatch with existing vector set"),
        (["VALUES", 2, 1, 1, "x", "M", 3], "ERR invalid M"),
        (["VALUES", 2, 1, 1, "x", "M", 4097], "ERR invalid M"),
        (["VALUES", 2, 1, 1, "x", "EF", 0], "ERR invalid EF"),
        (["VALUES", 2, 1, 1, "x", "EF", 1000001], "ERR invalid EF"),
        (["VALUES", 2, 1, 1, "x", "EF"], "ERR invalid option after element"),
        (["VALUES", 2, 1, 1, "x", "y"], "ERR invalid option after element"),
        (["VALUES", 2, 1, 1, "x", "SETATTR"], "ERR invalid option after element"),
    ],
)
def test_vadd_errors(bench: Bench, words: list[Any], error: str) -> None:
    assert bench("VADD", "k", *words) == error
    assert bench("VCARD", "k") == 3
    assert bench.events == []


def test_a_failed_vadd_creates_nothing(bench: Bench) -> None:
    assert bench("VADD", "none", "FP32", fp32(3e38, 3e38), "x") == INVALID
    assert bench("VCARD", "none") == 0


def test_reduce() -> None:
    bench = Bench()
    assert bench("VADD", "r", "REDUCE", 2, "VALUES", 4, 1, 2, 3, 4, "x") is True
    assert bench("VADD", "r", "REDUCE", 2, "VALUES", 4, -4, 3, -2, 1, "y") is True
    assert bench("VDIM", "r") == 2
    assert dict(bench("VINFO", "r").items)["projection-input-dim"] == 4
    assert bench("VSIM", "r", "VALUES", 4, 1, 2, 3, 4, "COUNT", 1) == [b"x"]
    assert bench("VSIM", "r", "VALUES", 2, *bench("VEMB", "r", "y"), "COUNT", 1) == [b"y"]
    assert bench("VADD", "r", "VALUES", 4, 1, 2, 3, 4, "z") == "ERR Vector dimension mismatch - got 4 but set has 2"
    assert bench("VADD", "r", "REDUCE", 3, "VALUES", 4, 1, 2, 3, 4, "z").startswith("ERR Vector dimension mismatch")
    wrong = "ERR Input dimension mismatch for projection - got 5 but projection expects 4"
    assert bench("VADD", "r", "REDUCE", 2, "VALUES", 5, 1, 2, 3, 4, 5, "z") == wrong
    assert bench("VSIM", "r", "VALUES", 5, 1, 2, 3, 4, 5) == wrong


def test_vrem(bench: Bench) -> None:
    assert bench("VREM", "k", "a") is True
    assert bench("VREM", "k", "a") is False
    assert bench("VREM", "none", "a") is False
    assert bench.events == [("vrem", b"k")]
    assert bench("VSIM", "k", "ELE", "c") == [b"c", b"b"]
    bench("VREM", "k", "b")
    assert bench.events_of("VREM", "k", "c") == ["vrem", "del"]
    assert bench("VCARD", "k") == 0
    assert bench("VREM", "string", "a") == WRONG_TYPE


def test_vsetattr(bench: Bench) -> None:
    assert bench("VSETATTR", "k", "a", '{"x":1}') is True
    assert bench("VGETATTR", "k", "a") == b'{"x":1}'
    assert bench("VSETATTR", "k", "a", "") is True
    assert bench("VGETATTR", "k", "a") is None
    assert bench.events == [("vsetattr", b"k")] * 2
    assert bench("VSETATTR", "k", "z", "x") is False
    assert bench("VSETATTR", "none", "a", "x") is False
    assert bench("VSETATTR", "string", "a", "x") == WRONG_TYPE


# --- searching ----------------------------------------------------------------------------------------------------


def test_vsim(bench: Bench) -> None:
    assert bench("VSIM", "k", "ELE", "a") == [b"a", b"b", b"c"]
    assert bench("VSIM", "k", "values", 2, 0.1, 2) == [b"b", b"a", b"c"]
    assert bench("VSIM", "k", "FP32", fp32(-3, 0.1), "count", 2) == [b"c", b"b"]
    assert bench("VSIM", "k", "ELE", "a", "COUNT", 2**62, "EF", 1000000, "TRUTH", "NOTHREAD") == [b"a", b"b", b"c"]
    assert bench("VSIM", "k", "ELE", "a", "EPSILON", 0.5) == [b"a", b"b"]
    assert bench("VSIM", "k", "ELE", "a", "EPSILON", "0.4999") == [b"a"]
    assert bench("VSIM", "none", "anything", "goes") == []
    assert bench.events == []


def test_vsim_scores_and_attributes(bench: Bench) -> None:
    assert bench("VSIM", "k", "ELE", "a", "WITHSCORES") == [b"a", 1.0, b"b", 0.5, b"c", 0.0]
    assert bench("VSIM", "k", "ELE", "a", "WITHATTRIBS") == [b"a", None, b"b", b'{"n":1}', b"c", b'{"n":2}']
    assert bench("VSIM", "k", "ELE", "a", "WITHATTRIBS", "WITHSCORES", "COUNT", 2) == [
        b"a", 1.0, None, b"b", 0.5, b'{"n":1}',
    ]  # fmt: skip


def test_vsim_in_resp3() -> None:
    bench = filled(protocol=3)

    def pairs(*options: Any) -> Any:
        found = bench("VSIM", "k", "ELE", "a", *options)
        assert isinstance(found, Pairs)
        return found.items

    assert bench("VSIM", "k", "ELE", "a") == [b"a", b"b", b"c"]
    assert pairs("WITHSCORES", "COUNT", 2) == [(b"a", 1.0), (b"b", 0.5)]
    assert pairs("WITHATTRIBS", "COUNT", 2) == [(b"a", None), (b"b", b'{"n":1}')]
    assert pairs("WITHATTRIBS", "WITHSCORES", "COUNT", 2) == [(b"a", [1.0, None]), (b"b", [0.5, b'{"n":1}'])]


def test_vsim_filter(bench: Bench) -> None:
    assert bench("VSIM", "k", "ELE", "a", "FILTER", ".n >= 1") == [b"b", b"c"]
    assert bench("VSIM", "k", "ELE", "a", "FILTER", ".n >= 1", "COUNT", 1) == [b"b"]
    assert bench("VSIM", "k", "ELE", "a", "FILTER", ".n == 2", "FILTER-EF", 0, "TRUTH") == [b"c"]
    assert bench("VSIM", "k", "ELE", "a", "FILTER", ".n == 2", "FILTER-EF", 2, "EF", 1) == []
    assert bench("VSIM", "k", "ELE", "a", "FILTER", ".x") == []
    assert bench("VSIM", "k", "ELE", "a", "FILTER", ".n >") == "ERR syntax error in FILTER expression near: >"
    assert bench("VSIM", "k", "ELE", "a", "FILTER", ".n 1") == "ERR syntax error in FILTER expression near: .n 1"
    assert bench("VSIM", "k", "ELE", "a", "FILTER", "\xff") == "ERR syntax error in FILTER expression near: \xff"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["ELE", "z"], "ERR element not found in set"),
        (["FP32", "abc"], INVALID),
        (["VALUES", 2, 1], INVALID),
        (["REDUCE", 1, "VALUES", 2, 1, 1], INVALID),
        (["VALUES", 3, 1, 1, 1], "ERR Vector dimension mismatch - got 3 but set has 2"),
        (["ELE", "a", "COUNT", 0], "ERR invalid COUNT"),
        (["ELE", "a", "COUNT", "x"], "ERR invalid COUNT"),
        (["ELE", "a", "EF", 0], "ERR invalid EF"),
        (["ELE", "a", "EF", 1000001], "ERR invalid EF"),
        (["ELE", "a", "EPSILON", 0], "ERR invalid EPSILON"),
        (["ELE", "a", "EPSILON", "x"], "ERR invalid EPSILON"),
        (["ELE", "a", "FILTER-EF", -1], "ERR invalid FILTER-EF"),
        (["ELE", "a", "COUNT"], "ERR syntax error in VSIM command"),
        (["ELE", "a", "NONSENSE"], "ERR syntax error in VSIM command"),
        (["ELE", "a", "NONSENSE", "x"], "ERR syntax error in VSIM command"),
    ],
)
def test_vsim_errors(bench: Bench, words: list[Any], error: str) -> None:
    assert bench("VSIM", "k", *words) == error


# --- reading ------------------------------------------------------------------------------------------------------


def test_counts_and_membership(bench: Bench) -> None:
    assert [bench("VCARD", "k"), bench("VCARD", "none"), bench("VDIM", "k")] == [3, 0, 2]
    assert bench("VDIM", "none") == "ERR key does not exist"
    assert [bench("VISMEMBER", "k", "a"), bench("VISMEMBER", "k", "z"), bench("VISMEMBER", "none", "a")] == [
        True, False, False,
    ]  # fmt: skip
    assert [bench("VGETATTR", "k", "z"), bench("VGETATTR", "none", "a")] == [None, None]


def test_vemb(bench: Bench) -> None:
    assert bench("VEMB", "k", "c") == [-1.0, 0.0]
    assert bench("VEMB", "k", "c", "raw") == ["int8", b"\x81\0", 1.0, 1.0]
    assert [bench("VEMB", "k", "z"), bench("VEMB", "none", "a", "RAW")] == [None, None]
    assert bench("VEMB", "k", "a", "ROW") == "ERR invalid option"
    bench("VADD", "f", "VALUES", 2, 3, -4, "x", "NOQUANT")
    assert bench("VEMB", "f", "x", "RAW") == ["f32", fp32(0.6, -0.8), 5.0]
    bench("VADD", "b", "VALUES", 2, 3, -4, "x", "BIN")
    assert bench("VEMB", "b", "x", "RAW") == ["bin", b"\x01" + bytes(7), 5.0]
    assert bench("VEMB", "b", "x") == [1.0, -1.0]


def test_vinfo(bench: Bench) -> None:
    info = dict(bench("VINFO", "k").items)
    assert list(info) == [
        "quant-type", "hnsw-m", "vector-dim", "projection-input-dim", "size", "max-level", "attributes-count",
        "vset-uid", "hnsw-max-node-uid",
    ]  # fmt: skip
    assert [info["quant-type"], info["hnsw-m"], info["vector-dim"], info["size"]] == ["int8", 16, 2, 3]
    assert [info["attributes-count"], info["hnsw-max-node-uid"]] == [2, 3]
    assert bench("VINFO", "none") is NULL_ARRAY


def test_vlinks(bench: Bench) -> None:
    assert bench("VLINKS", "k", "a") == [[b"b", b"c"]]
    assert bench("VLINKS", "k", "a", "withscores") == [{b"b": 0.5, b"c": 0.0}]
    assert [bench("VLINKS", "k", "z"), bench("VLINKS", "none", "a")] == [None, None]
    for options in (["SCORES"], ["WITHSCORES", "WITHSCORES"]):
        assert bench("VLINKS", "k", "a", *options) == "ERR wrong number of arguments for 'vlinks' command"


def test_vrandmember(bench: Bench) -> None:
    everyone = [b"a", b"b", b"c"]
    assert bench("VRANDMEMBER", "k") in everyone
    assert sorted(bench("VRANDMEMBER", "k", 10)) == everyone
    assert len(set(bench("VRANDMEMBER", "k", 2))) == 2
    drawn = bench("VRANDMEMBER", "k", -50)
    assert len(drawn) == 50
    assert set(drawn) <= set(everyone)
    assert bench("VRANDMEMBER", "k", 0) == []
    assert [bench("VRANDMEMBER", "none"), bench("VRANDMEMBER", "none", 2)] == [None, []]
    assert bench("VRANDMEMBER", "k", "x") == "ERR COUNT value is not an integer"
    assert bench("VRANDMEMBER", "k", -(2**62)) == "ERR value is out of range"
    assert bench("VRANDMEMBER", "k", 1, 2) == "ERR wrong number of arguments for 'vrandmember' command"


def test_vrange(bench: Bench) -> None:
    assert bench("VRANGE", "k", "-", "+") == [b"a", b"b", b"c"]
    assert bench("VRANGE", "k", "[b", "+", 1) == [b"b"]
    assert bench("VRANGE", "k", "(a", "(c", -1) == [b"b"]
    assert bench("VRANGE", "k", "-", "[b", 0) == []
    assert bench("VRANGE", "none", "-", "+") == []
    assert bench("VRANGE", "k", "a", "+") == "ERR invalid start range format"
    assert bench("VRANGE", "k", "[", "+") == "ERR invalid start range format"
    assert bench("VRANGE", "k", "-", "") == "ERR invalid end range format"
    order = "ERR '-' can only be used as first argument, '+' only as second"
    assert [bench("VRANGE", "k", "+", "+"), bench("VRANGE", "k", "-", "-")] == [order, order]
    assert bench("VRANGE", "k", "-", "+", "x") == "ERR invalid COUNT value"
    assert bench("VRANGE", "k", "-", "+", 1, 2) == "ERR wrong number of arguments for 'vrange' command"


@pytest.mark.parametrize("name", READS)
def test_reads_refuse_other_types(bench: Bench, name: str) -> None:
    assert bench(name, "string", *READS[name]) == WRONG_TYPE


MISSING = "vector sets need the Python packages numpy and usearch, and usearch is not installed"


@pytest.fixture
def without_usearch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch", None)
    for name in list(sys.modules):
        if name.startswith(("zeekdb.types.vector", "usearch.")):
            monkeypatch.delitem(sys.modules, name)


def test_what_is_missing_is_said(bench: Bench, without_usearch: None) -> None:
    assert bench("VCARD", "k") == f"ERR {MISSING}"


def test_what_is_missing_is_said_of_a_payload(
    bench: Bench, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    value = payload.dump(bench.ctx.db, b"k")
    assert value is not None
    request.getfixturevalue("without_usearch")
    with pytest.raises(CommandError, match="Bad data format"):
        payload.restore(bench.ctx.db, b"new", value)
    assert MISSING in caplog.text  # it is not the payload's fault, and the log says so
