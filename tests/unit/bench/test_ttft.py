"""bench/ttft.py without a server: prefixes saved and loaded by tokens give the answers that computing gives."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("redis", reason="redis is not installed")

from bench import ttft  # noqa: E402
from bench.llama import DTYPES, Llama, Shape  # noqa: E402
from bench.prefixes import Prefixes, encoded  # noqa: E402

TINY = Shape(layers=3, hidden=48, heads=6, kv_heads=2, dim=8, mlp=80, vocabulary=97)
BLOCK = 8
PROMPT = [(7 * at * at + 3) % 97 for at in range(30)]  # three whole blocks and six tokens


class FakeRegion:
    """KV.MODEL SET, KV.STORE, KV.MATCH and KV.FETCH of one model, in a dict from the tokens up to a block's end."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, bytes] = {}
        self.layout: dict[str, Any] = {}

    def execute_command(self, *words: Any) -> Any:
        if words[:2] == ("KV.MODEL", "SET"):
            self.layout = dict(zip(words[3::2], words[4::2], strict=True))
            return b"OK"
        names = [words[2][:end] for end in range(self.stride, len(words[2]) + 1, self.stride)]
        if words[0] == "KV.STORE":
            assert len(names) == len(words) - 3
            new = [name not in self.blocks for name in names]
            self.blocks |= {name: bytes(block) for name, block in zip(names, words[3:], strict=True)}
            return [int(each) for each in new]
        here = 0
        while here < len(names) and names[here] in self.blocks:
            here += 1
        if words[0] == "KV.MATCH":
            assert words[3:] == ("LEASE", 2000)
            return [here * self.layout["BLOCK"], here]
        assert words[0] == "KV.FETCH"
        return [self.blocks[name] for name in names[:here]]

    @property
    def stride(self) -> int:
        return 4 * int(self.layout["BLOCK"])


@pytest.fixture
def region() -> FakeRegion:
    return FakeRegion()


def stored(region: FakeRegion, dtype: str = "f32", tokens: Sequence[int] = PROMPT) -> tuple[Llama, Prefixes]:
    """A model, and the blocks of the tokens kept."""
    model = Llama.random(TINY, DTYPES[dtype], seed=5)
    prefixes = Prefixes(region, "m", TINY, dtype, BLOCK)
    cache = model.cache(len(tokens))
    model.forward(tokens, cache)
    assert prefixes.save(tokens, cache) == [1] * (len(tokens) // BLOCK)
    return model, prefixes


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_answer_is_the_same_both_ways(region: FakeRegion, dtype: str) -> None:
    model, prefixes = stored(region, dtype)
    prompt = [*PROMPT[:24], 11, 12, 13, 14, 15]
    computed, loaded = (ttft.answer(model, prompt, 8, way) for way in (None, prefixes))
    assert computed.loaded.tokens == 0
    assert loaded.loaded.tokens == 24
    assert loaded.loaded.bytes == 24 * model.cache(1).token_bytes
    assert ttft.distance(computed, loaded) < (1e-4 if dtype == "f32" else 0.2)
    if dtype == "f32":
        assert computed.tokens == loaded.tokens


def test_a_damaged_block_does_not_go_unnoticed(region: FakeRegion) -> None:
    model, prefixes = stored(region)
    name = list(region.blocks)[1]
    region.blocks[name] = bytes(len(region.blocks[name]))
    computed, loaded = (ttft.answer(model, PROMPT, 8, way) for way in (None, prefixes))
    assert ttft.distance(computed, loaded) > 1e-2


def test_the_layout_and_the_tokens_are_the_wires(region: FakeRegion) -> None:
    model, _ = stored(region)
    expected = {"LAYERS": 3, "HEADS": 2, "DIM": 8, "DTYPE": "f32", "BLOCK": BLOCK}
    assert region.layout == expected
    assert encoded([1, 256, 2**32 - 1]) == b"\1\0\0\0\0\1\0\0\xff\xff\xff\xff"
    cache = model.cache(16)
    model.forward(PROMPT[:16], cache)
    second = torch.frombuffer(bytearray(region.blocks[encoded(PROMPT[:16])]), dtype=torch.float32)
    torch.testing.assert_close(second.view(2, 3, BLOCK, 2, 8), cache.kv[:, :, 8:16], rtol=1e-4, atol=1e-4)


def test_what_is_stored_already_is_shared(region: FakeRegion) -> None:
    model, prefixes = stored(region, tokens=PROMPT[:16])
    cache = model.cache(len(PROMPT))
    model.forward(PROMPT, cache)
    assert prefixes.save(PROMPT, cache) == [0, 0, 1]
    assert prefixes.save(PROMPT[:7], cache) == []


def test_an_unknown_prompt_is_computed(region: FakeRegion) -> None:
    model, prefixes = stored(region)
    answer = ttft.answer(model, [1, *PROMPT], 4, prefixes)
    assert answer.loaded.tokens == answer.loaded.bytes == 0
    assert answer.tokens == ttft.answer(model, [1, *PROMPT], 4, None).tokens


def test_the_last_token_is_computed_even_if_all_are_known(region: FakeRegion) -> None:
    model, prefixes = stored(region)
    computed, loaded = (ttft.answer(model, PROMPT[:24], 4, way) for way in (None, prefixes))
    assert loaded.loaded.tokens == 23
    assert computed.tokens == loaded.tokens
    assert ttft.distance(computed, loaded) < 1e-4


def test_blocks_that_left_after_the_match_are_computed(region: FakeRegion) -> None:
    model, prefixes = stored(region)
    plain = region.execute_command

    def evicting(*words: Any) -> Any:
        reply = plain(*words)
        return reply[:1] if words[0] == "KV.FETCH" else reply

    region.execute_command = evicting  # type: ignore[method-assign]
    computed, loaded = (ttft.answer(model, PROMPT, 4, way) for way in (None, prefixes))
    assert loaded.loaded.tokens == BLOCK
    assert computed.tokens == loaded.tokens


def test_a_block_of_another_size_is_refused(region: FakeRegion) -> None:
    model, prefixes = stored(region)
    name = next(iter(region.blocks))
    region.blocks[name] = region.blocks[name][:-4]
    with pytest.raises(ValueError, match="a block of 3068 bytes, where 3072 belong"):
        prefixes.load(PROMPT, model.cache(len(PROMPT)))


def test_a_row_is_measured_and_shown(region: FakeRegion) -> None:
    model = Llama.random(TINY, torch.float32)
    prefixes = Prefixes(region, "m", TINY, "f32", BLOCK)
    row = ttft.Row("f32", 24, 0.1)
    ttft.measure(model, prefixes, row, argparse.Namespace(seed=0, suffix=3, prompts=2, tokens=4))
    assert (row.equal, row.prompts) == (2, 2)
    assert row.difference < 1e-4 < row.other_prefix
    assert row.recompute_ms > 0 < row.load_ms
    assert row.load_ms == pytest.approx(sum(row.parts_ms.values()))
    assert f"{row.ratio:.1f}×" in ttft.report([row])
    row = ttft.Row("f32", 2048, 50.3, recompute_ms=2000.0, load_ms=400.0, parts_ms={"suffix": 400.0})
    assert "5× met" in ttft.report([row])
    row.load_ms = 500.0
    assert "5× missed" in ttft.report([row])
    assert ttft.chart([row]).splitlines() == [
        " f32  2,048  computed  " + "█" * 60 + " 2,000 ms",
        "             loaded    " + "█" * 15 + " 500 ms",
    ]


def test_a_region_without_room_is_an_error(region: FakeRegion) -> None:
    model, prefixes = stored(region)
    with pytest.raises(RuntimeError, match=r"replied \[0, 0, 0\]"):
        ttft.keep(model, prefixes, PROMPT, 24)
