"""Layouts of models that exist, and KV.MODEL SET's words."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from zeekdb.errors import CommandError, OutOfRange, SyntaxError_
from zeekdb.tensors import layout as module
from zeekdb.tensors.layout import CODECS, ITEM_BYTES, Layout, Model


@pytest.mark.parametrize(
    ("layout", "token_bytes", "block_bytes"),
    [
        pytest.param(Layout(32, 8, 128, "bf16", 256), 131_072, 32 << 20, id="Llama-3.1-8B"),
        pytest.param(Layout(80, 8, 128, "bf16", 256), 327_680, 80 << 20, id="Llama-3.3-70B"),
        pytest.param(Layout(80, 1, 128, "bf16", 256), 40_960, 10 << 20, id="Llama-3.3-70B, one rank of 8"),
        pytest.param(Layout(36, 8, 128, "bf16", 256), 147_456, 36 << 20, id="Qwen3-8B"),
        pytest.param(Layout(61, 1, 576, "bf16", 256, parts=1), 70_272, 17_989_632, id="DeepSeek-V3 MLA"),
        pytest.param(Layout(32, 8, 128, "f8e4m3", 16), 65_536, 1 << 20, id="Llama-3.1-8B in fp8, vLLM's block"),
    ],
)
def test_sizes_of_real_models(layout: Layout, token_bytes: int, block_bytes: int) -> None:
    assert (layout.token_bytes, layout.block_bytes) == (token_bytes, block_bytes)
    assert np.prod(layout.shape) * layout.item_bytes == block_bytes
    assert layout.row_bytes * layout.layers * layout.parts == token_bytes
    layout.check_block(block_bytes)
    for wrong in (block_bytes - 1, block_bytes + 1, 0):
        with pytest.raises(OutOfRange, match="a block of this model has"):
            layout.check_block(wrong)


@pytest.mark.parametrize("parts", [1, 2])
def test_slices_are_what_numpy_cuts_out(parts: int) -> None:
    layout = Layout(5, 2, 3, "f16", 4, parts)
    block = np.arange(np.prod(layout.shape), dtype=np.uint16).reshape(layout.shape)
    data = block.tobytes()
    for first, last in itertools.combinations(range(6), 2):
        slices = layout.slices(first, last)
        assert len(slices) == parts
        assert b"".join(data[at : at + size] for at, size in slices) == block[:, first:last].tobytes()
        assert sum(size for _, size in slices) == layout.some_layers(first, last).block_bytes
    for first, last in ((0, 0), (3, 2), (-1, 2), (0, 6), (5, 6)):
        with pytest.raises(OutOfRange, match="LAYERS must be a range within 0 and 5"):
            layout.slices(first, last)
        with pytest.raises(OutOfRange):
            layout.some_layers(first, last)


def words(text: str) -> list[bytes]:
    return text.encode().split()


SET = "LAYERS 32 HEADS 8 DIM 128 DTYPE bf16"


def test_options_stand_in_any_order_and_case() -> None:
    model = Model.parse(b"m", words("ttl 60 Codec INT8 dtype BF16 dim 128 QUOTA 1000000 heads 8 LAYERS 32 block 16"))
    assert model == Model(b"m", Layout(32, 8, 128, "bf16", 16), "int8", 60, 1_000_000)
    assert model.fields() == {
        "codec": "int8", "ttl": 60, "quota": 1_000_000, "layers": 32, "heads": 8, "dim": 128, "dtype": "bf16",
        "block": 16, "parts": 2, "token-bytes": 131_072, "block-bytes": 2 << 20,
    }  # fmt: skip


def test_defaults() -> None:
    assert Model.parse(b"m", []) == Model(b"m", None, "raw", 0, 0)
    assert Model.parse(b"m", []).fields() == {"codec": "raw", "ttl": 0, "quota": 0}
    assert Model.parse(b"m", words("CODEC raw TTL 5")) == Model(b"m", None, "raw", 5, 0)
    assert Model.parse(b"m", words(SET)).layout == Layout(32, 8, 128, "bf16", 256, 2)
    mla = Model.parse(b"m", words("LAYERS 61 HEADS 1 DIM 576 DTYPE bf16 PARTS 1")).layout
    assert mla is not None and mla.token_bytes == 70_272


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("LAYERS", "ERR syntax error"),
        ("LAYER 3", "ERR syntax error"),
        ("TTL 3 TTL 4", "ERR syntax error"),
        (f"{SET} layers 3", "ERR syntax error"),
        ("LAYERS 3", "ERR LAYERS without HEADS: LAYERS, HEADS, DIM and DTYPE go together"),
        ("BLOCK 16", "ERR BLOCK without LAYERS: LAYERS, HEADS, DIM and DTYPE go together"),
        ("LAYERS 0 HEADS 8 DIM 128 DTYPE bf16", "ERR LAYERS must be an integer from 1 to 1024"),
        ("LAYERS 1025 HEADS 8 DIM 128 DTYPE bf16", "ERR LAYERS must be an integer from 1 to 1024"),
        ("LAYERS 08 HEADS 8 DIM 128 DTYPE bf16", "ERR LAYERS must be an integer from 1 to 1024"),
        ("LAYERS 1 HEADS 1025 DIM 128 DTYPE bf16", "ERR HEADS must be an integer from 1 to 1024"),
        ("LAYERS 1 HEADS +1 DIM 128 DTYPE bf16", "ERR HEADS must be an integer from 1 to 1024"),
        ("LAYERS 1 HEADS 1 DIM 65537 DTYPE bf16", "ERR DIM must be an integer from 1 to 65536"),
        ("LAYERS 1 HEADS 1 DIM x DTYPE bf16", "ERR DIM must be an integer from 1 to 65536"),
        (f"{SET} BLOCK 65537", "ERR BLOCK must be an integer from 1 to 65536"),
        (f"{SET} BLOCK 18446744073709551617", "ERR BLOCK must be an integer from 1 to 65536"),
        (f"{SET} BLOCK -1", "ERR BLOCK must be an integer from 1 to 65536"),
        (f"{SET} BLOCK 8192", "ERR a block of 1073741824 bytes is too large, the limit is 536870912"),
        (f"{SET} PARTS 3", "ERR PARTS must be an integer from 1 to 2"),
        ("LAYERS 1 HEADS 1 DIM 1 DTYPE bf17", "ERR DTYPE must be f32, f16, bf16 or f8e4m3"),
        ("LAYERS 1 HEADS 1 DIM 1 DTYPE bf16bf16bf16bf16bf16", "ERR DTYPE must be f32, f16, bf16 or f8e4m3"),
        (f"{SET} CODEC zip", "ERR CODEC must be raw, fp16, bf16, fp8, int8, int8-channel or int8-token"),
        ("CODEC fp8", "ERR CODEC fp8 needs LAYERS, HEADS, DIM and DTYPE"),
        ("LAYERS 1 HEADS 1 DIM 1 DTYPE f8e4m3 CODEC int8", "ERR CODEC int8 does not take DTYPE f8e4m3"),
        ("TTL -1", "ERR TTL must be an integer from 0 to 9223372036854774"),
        ("TTL 9223372036854775", "ERR TTL must be an integer from 0 to 9223372036854774"),
        ("QUOTA 1gb", "ERR QUOTA must be an integer from 0 to 9223372036854775807"),
        ("QUOTA 9223372036854775808", "ERR QUOTA must be an integer from 0 to 9223372036854775807"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(CommandError) as caught:
        Model.parse(b"m", words(text))
    assert caught.value.message == message


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(SyntaxError_):
        Model.parse(b"m", [b"\xff\xfe", b"1"])
    with pytest.raises(OutOfRange, match="DTYPE must be"):
        Model.parse(b"m", [*words("LAYERS 1 HEADS 1 DIM 1 DTYPE"), b"bf\xc316"])
    for name in (b"", b"x" * (module.NAME_BYTES_MAX + 1)):
        with pytest.raises(OutOfRange, match="name of a model"):
            Model.parse(name, [])
    assert Model.parse(b"\xff" * module.NAME_BYTES_MAX, []).layout is None


def test_every_limit_can_be_reached() -> None:
    Layout(module.LAYERS_MAX, 1, 1, "f32", 1)
    Layout(1, module.HEADS_MAX, 1, "f32", 1)
    Layout(1, 1, module.DIM_MAX, "f32", 1)
    Layout(1, 1, 1, "f32", module.BLOCK_TOKENS_MAX)
    assert Layout(1, 1024, 1024, "bf16", 256, 1).block_bytes == module.BLOCK_BYTES_MAX
    Model(b"m", None, "raw", module.TTL_S_MAX, module.QUOTA_BYTES_MAX)


def test_codecs_and_types_are_listed_once() -> None:
    assert all(len(name) <= module.WORD_BYTES_MAX for name in (*CODECS, *ITEM_BYTES))
    assert all(dtypes <= ITEM_BYTES.keys() for dtypes in CODECS.values())
