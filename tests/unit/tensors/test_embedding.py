"""The vector of a context: the same everywhere, in steps or at once, and nearer for what has something in common."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from zeekdb.tensors import embedding, floats
from zeekdb.tensors.codecs import for_model
from zeekdb.tensors.embedding import Embedder, embedder, finished, layers_of, projection, resumed
from zeekdb.tensors.layout import CODECS, ITEM_BYTES, Layout

DIM = 128
LAYERS, HEADS, HEAD, BLOCK = 6, 4, 32, 64
LAYOUT = Layout(LAYERS, HEADS, HEAD, "f32", BLOCK)


def encoded(values: np.ndarray, dtype: str) -> bytes:
    """Numbers as a block's bytes."""
    plain = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
    out = np.empty(len(plain), floats.FORMATS[dtype].codes)
    floats.convert("f32", dtype, plain, out)
    return out.tobytes()


def block(seed: int, layout: Layout = LAYOUT) -> np.ndarray:
    """[parts, layers, block, heads, dim] with a mean that the seed chooses."""
    random = np.random.default_rng(seed)
    mean = random.standard_normal((layout.parts, layout.layers, 1, layout.heads, layout.dim))
    return (mean + random.standard_normal(layout.shape)).astype(np.float32)


def vector(*blocks: np.ndarray, dtype: str = "f32", dim: int = DIM) -> np.ndarray:
    maker = Embedder(Layout(LAYERS, HEADS, HEAD, dtype, BLOCK), "raw", dim)
    total = maker.nothing()
    for each in blocks:
        total = total + maker.block(encoded(each, dtype))
    made = finished(total)
    assert made is not None
    return np.frombuffer(made.vector, "<f4")


def test_layers_are_from_the_middle() -> None:
    assert [layers_of(count) for count in (1, 2, 3, 6, 12, 32, 80)] == [
        (0,), (0,), (1,), (2, 3, 4), (4, 5, 7, 9), (10, 15, 20, 25), (26, 39, 52, 65),
    ]  # fmt: skip
    for count in range(1, 1025):
        assert set(layers_of(count)) <= set(range(count)) and len(layers_of(count)) <= embedding.LAYERS_MAX


def test_the_projection_never_changes() -> None:
    """Vectors that are kept somewhere depend on it: whoever changes it counts VERSION up."""
    outputs, signs = projection(1000, 512)
    said = hashlib.blake2b(outputs.astype("<i4").tobytes() + np.sign(signs).astype("i1").tobytes(), digest_size=8)
    assert (embedding.VERSION, said.hexdigest()) == (1, "11d5515c561c1be5")


def test_the_vector_of_a_block_never_changes() -> None:
    values = (np.arange(np.prod(LAYOUT.shape), dtype=np.float64) * 0.61803398875 % 2 - 1).reshape(LAYOUT.shape)
    found = vector(values, dim=16)
    assert np.allclose(found, FIRST, atol=2e-6), found.tolist()


FIRST = [
    0.254914, -0.097639, 0.445418, 0.201229, 0.310522, 0.317449, 0.067008, -0.258032,
    0.101423, -0.338149, 0.310187, -0.081643, 0.379869, -0.166015, -0.00232, 0.137646,
]  # fmt: skip


@pytest.mark.parametrize("dim", [8, 12, 100, 512, 4096])
def test_the_projection_keeps_angles(dim: int) -> None:
    """Johnson-Lindenstrauss: an error of a few times 1/sqrt(dim)."""
    random = np.random.default_rng(1)
    features = random.standard_normal((40, 2048))
    features[1::2] = features[::2] + random.standard_normal((20, 2048))  # cosines of 0.7 and of 0
    outputs, signs = projection(2048, dim)
    assert outputs.min() >= 0 and outputs.max() < dim
    projected = np.stack([np.bincount(outputs, weights=(signs * each).reshape(-1), minlength=dim) for each in features])

    def cosines(rows: np.ndarray) -> np.ndarray:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit @ unit.T

    assert np.abs(cosines(projected) - cosines(features)).std() < 1.5 / np.sqrt(dim)


@pytest.mark.parametrize("dtype", sorted(ITEM_BYTES))
def test_every_dtype_gives_the_same_vector(dtype: str) -> None:
    assert vector(block(1), dtype=dtype) @ vector(block(1)) > (0.99 if dtype == "f8e4m3" else 0.9999)
    assert abs(vector(block(2), dtype=dtype) @ vector(block(1))) < 0.5


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_every_codec_gives_the_same_vector(codec: str) -> None:
    layout = Layout(LAYERS, HEADS, HEAD, "bf16", BLOCK)
    plain = encoded(block(1), "bf16")
    expected = Embedder(layout, "raw", DIM).block(plain)
    maker = Embedder(layout, codec, DIM)
    kept = bytearray(maker.block_bytes)
    for_model(codec, layout).encode(plain, kept)
    found = maker.block(kept)
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > (0.99 if codec == "fp8" else 0.999)


def test_values_and_other_layers_do_not_matter() -> None:
    one, other = block(1), block(1)
    other[1] = 7
    other[0, [each for each in range(LAYERS) if each not in layers_of(LAYERS)]] = 7
    assert (vector(one) == vector(other)).all()


def test_in_steps_as_at_once() -> None:
    maker = Embedder(LAYOUT, "raw", DIM)
    parts = [maker.block(encoded(block(seed), "f32")) for seed in range(5)]
    whole = finished(sum(parts[1:], parts[0]))
    begun = finished(sum(parts[1:3], parts[0]))
    assert whole is not None and begun is not None
    went_on = finished(resumed(begun.vector, begun.norm) + parts[3] + parts[4])
    assert went_on is not None and went_on.norm == pytest.approx(whole.norm, rel=1e-6)
    assert np.allclose(np.frombuffer(went_on.vector, "<f4"), np.frombuffer(whole.vector, "<f4"), atol=1e-6)
    assert np.linalg.norm(np.frombuffer(whole.vector, "<f4")) == pytest.approx(1, abs=1e-6)


def test_a_common_prefix_is_nearer_than_none() -> None:
    prefix = [block(100), block(101)]
    contexts = [vector(*prefix, block(seed)) for seed in range(8)]
    others = [vector(*(block(seed * 10 + each) for each in range(3))) for seed in range(20, 28)]
    same = [one @ two for at, one in enumerate(contexts) for two in contexts[:at]]
    assert min(same) > max(one @ two for one in contexts for two in others) + 0.2


def test_the_order_of_tokens_is_lost() -> None:
    turned = block(1)
    assert np.allclose(vector(block(1)), vector(turned[:, :, ::-1].copy()), atol=1e-5)


def test_a_few_large_channels_do_not_make_all_alike() -> None:
    def with_outliers(seed: int) -> np.ndarray:
        keys = block(seed)
        keys[:, :, :, :, 3] += 50
        return keys

    assert vector(with_outliers(1)) @ vector(with_outliers(2)) < 0.8


def test_what_is_not_a_number_does_not_spread() -> None:
    keys = block(1)
    keys[0, 2, 0, 0, 0] = np.nan
    keys[0, 3, 1, 1, 1] = np.inf
    keys[0, 4, 2, 2, 2] = -np.inf
    found = vector(keys)
    assert np.isfinite(found).all() and found @ vector(block(1)) > 0.8
    empty = np.zeros(LAYOUT.shape, np.float32)
    maker = Embedder(LAYOUT, "raw", DIM)
    assert finished(maker.block(encoded(empty, "f32"))) is None
    assert not maker.block(encoded(np.full(LAYOUT.shape, np.nan), "f32")).any()


def test_latent_attention_has_one_part() -> None:
    layout = Layout(LAYERS, 1, 576, "bf16", BLOCK, parts=1)
    made = embedder(layout, "raw", DIM)
    assert made is not None
    assert made.block(encoded(block(1, layout), "bf16")).any()


def test_a_block_of_another_size_is_refused() -> None:
    maker = Embedder(LAYOUT, "raw", DIM)
    with pytest.raises(ValueError, match="a block has"):
        maker.block(b"x" * (LAYOUT.block_bytes - 4))


def test_layouts_too_wide_have_none() -> None:
    assert embedder(Layout(8, 1024, 128, "f8e4m3", 1), "raw", DIM) is None
    assert embedder(LAYOUT, "raw", DIM) is embedder(LAYOUT, "raw", DIM)
