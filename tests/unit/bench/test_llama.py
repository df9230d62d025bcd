"""The decoder of bench/ttft.py: what it keeps is what it would compute again, and its arithmetic is transformers'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from bench.llama import DTYPES, Cache, Llama, NotAModel, Shape, greedy  # noqa: E402

TINY = Shape(layers=3, hidden=48, heads=6, kv_heads=2, dim=8, mlp=80, vocabulary=97)
PROMPT = [(7 * at * at + 3) % 97 for at in range(50)]


def whole(model: Llama, tokens: list[int]) -> tuple[torch.Tensor, Cache]:
    """Logits after all tokens, computed at once."""
    cache = model.cache(len(tokens))
    return model.forward(tokens, cache), cache


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("pieces", [[49, 1], [1, 49], [1] * 50, [16, 16, 18], [25, 25]])
def test_tokens_in_pieces_are_the_tokens_at_once(pieces: list[int], kv_heads: int) -> None:
    shape = Shape(layers=3, hidden=48, heads=6, kv_heads=kv_heads, dim=8, mlp=80, vocabulary=97)
    model = Llama.random(shape, torch.float32, seed=4)
    expected, once = whole(model, PROMPT)
    cache, at = model.cache(len(PROMPT)), 0
    for count in pieces:
        logits = model.forward(PROMPT[at : at + count], cache)
        at += count
        assert cache.tokens == at
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cache.kv, once.kv, rtol=1e-4, atol=1e-4)


def test_tokens_in_pieces_in_bf16() -> None:
    model = Llama.random(TINY, torch.bfloat16, seed=4)
    expected, _ = whole(model, PROMPT)
    cache = model.cache(len(PROMPT))
    model.forward(PROMPT[:30], cache)
    torch.testing.assert_close(model.forward(PROMPT[30:], cache), expected, rtol=0.1, atol=0.1)


def test_what_comes_later_changes_nothing_before() -> None:
    model = Llama.random(TINY, torch.float32)
    _, one = whole(model, PROMPT)
    _, other = whole(model, PROMPT[:30] + [5] * 20)
    torch.testing.assert_close(one.kv[:, :, :30], other.kv[:, :, :30], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(one.kv[:, :, 30:], other.kv[:, :, 30:], atol=1e-2)


def test_what_came_before_changes_the_logits() -> None:
    model = Llama.random(TINY, torch.float32)
    one, _ = whole(model, PROMPT)
    other, _ = whole(model, [*PROMPT[:5], 96 - PROMPT[5], *PROMPT[6:]])
    assert (one - other).abs().max() > 1e-2


def test_greedy_tokens_are_those_of_computing_all_again() -> None:
    model = Llama.random(TINY, torch.float32, seed=1)
    cache = model.cache(len(PROMPT) + 8)
    tokens, seen = greedy(model, model.forward(PROMPT, cache), cache, 8)
    assert len(tokens) == len(seen) == 8
    for at, token in enumerate(tokens):
        logits, _ = whole(model, PROMPT + tokens[:at])
        assert int(logits.argmax()) == token
        torch.testing.assert_close(logits, seen[at], rtol=1e-4, atol=1e-4)


def test_a_full_cache_and_no_tokens_are_refused() -> None:
    model = Llama.random(TINY, torch.float32)
    cache = model.cache(10)
    model.forward(PROMPT[:8], cache)
    for tokens in ([], [1, 2, 3]):
        with pytest.raises(ValueError, match="tokens behind 8, with room for 10"):
            model.forward(tokens, cache)
    assert cache.tokens == 8


def test_a_seed_names_its_weights() -> None:
    one, same, other = (Llama.random(TINY, torch.float32, seed) for seed in (3, 3, 4))
    assert all(torch.equal(one.weights[name], same.weights[name]) for name in TINY.weights())
    assert not torch.equal(one.weights["lm_head.weight"], other.weights["lm_head.weight"])
    assert TINY.parameters == sum(weight.numel() for weight in one.weights.values())


def test_the_default_size_is_the_one_that_is_stated() -> None:
    assert round(Shape().parameters / 1e6) == 101
    assert Cache(Shape(), torch.float32, 1).token_bytes == 2 * 12 * 4 * 64 * 4


# --- checkpoints --------------------------------------------------------------------------------------------------


CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 3,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "vocab_size": 97,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "hidden_act": "silu",
}


@pytest.fixture
def model() -> Llama:
    return Llama.random(TINY, torch.float32, seed=9)


def write(folder: Path, weights: dict[str, torch.Tensor], files: int = 1, **config: object) -> None:
    """A checkpoint's folder."""
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    if files == 1:
        safetensors.save_file(weights, folder / "model.safetensors")
        return
    names = [f"model-{at + 1:05}-of-{files:05}.safetensors" for at in range(files)]
    places = {key: names[at % files] for at, key in enumerate(weights)}
    for name in names:
        safetensors.save_file({key: weights[key] for key, place in places.items() if place == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize("files", [1, 3])
def test_a_checkpoint_is_loaded(tmp_path: Path, model: Llama, files: int) -> None:
    rotary = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}  # old checkpoints have it: not wanted
    write(tmp_path, model.weights | rotary, files)
    loaded = Llama.load(tmp_path, torch.float32)
    assert loaded.shape == model.shape
    assert loaded.weights.keys() == model.weights.keys()
    assert all(torch.equal(loaded.weights[name], model.weights[name]) for name in TINY.weights())
    torch.testing.assert_close(whole(loaded, PROMPT)[0], whole(model, PROMPT)[0], rtol=1e-4, atol=1e-4)
    assert Llama.load(tmp_path, DTYPES["bf16"]).dtype == torch.bfloat16


def test_a_checkpoint_that_is_not_what_it_says(tmp_path: Path, model: Llama) -> None:
    write(tmp_path, {key: value for key, value in model.weights.items() if "norm" not in key})
    with pytest.raises(NotAModel, match=r"lacks model\.layers\.0\.input_layernorm\.weight"):
        Llama.load(tmp_path, torch.float32)
    write(tmp_path, model.weights, vocab_size=98)
    with pytest.raises(NotAModel, match=r"embed_tokens\.weight is \(97, 48\), config\.json makes it \(98, 48\)"):
        Llama.load(tmp_path, torch.float32)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, "yarn"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2}}, "linear"),
    ],
)
def test_what_the_decoder_does_not_know_is_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(NotAModel, match=said):
        Shape.of_config(CONFIG | changed)


def test_a_config_that_lacks_something_is_refused() -> None:
    with pytest.raises(NotAModel, match="intermediate_size"):
        Shape.of_config({name: value for name, value in CONFIG.items() if name != "intermediate_size"})


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rope", [{"rope_type": "default", "rope_theta": 10_000.0}, LLAMA3], ids=["default", "llama3"])
def test_the_arithmetic_is_that_of_transformers(tmp_path: Path, rope: dict[str, object], tied: bool) -> None:
    transformers = pytest.importorskip("transformers", minversion="5", reason="transformers is not installed")
    torch.manual_seed(2)
    config = transformers.LlamaConfig(
        **{name: value for name, value in CONFIG.items() if name not in ("model_type", "rope_theta")},
        rope_parameters=rope,
        tie_word_embeddings=tied,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = Llama.load(tmp_path, torch.float32)
    assert ours.shape.tied is tied
    with torch.inference_mode():
        expected = theirs(torch.tensor([PROMPT])).logits[0, -1]
    torch.testing.assert_close(whole(ours, PROMPT)[0], expected, rtol=1e-4, atol=1e-4)
