"""A Llama-like decoder on the CPU: RMSNorm, rotary positions, grouped-query attention, SwiGLU; torch and nothing else.

It is as small as a model can be whose keys and values are worth keeping. Weights are a dict under the names of Hugging
Face's Llama checkpoints, random ones from a seed or those of a checkpoint's folder, and the arithmetic is that of
`transformers`' LlamaForCausalLM, against which the tests hold it.

Keys and values of all tokens so far lie in one tensor [2, layers, tokens, kv heads, dim], part 0 the keys (rotated:
position is in them), part 1 the values. That is the layout of a block in the tensor region, so that a block of T
tokens is the slice [:, :, t : t + T], and loading it is one strided copy.

Random weights are drawn so that a prefix matters. With the usual deviation of 0.02 attention is almost uniform, the
mean over thousands of values almost nothing, and logits would agree whatever had been loaded. Here queries are three
times as large as their norm gives, which makes attention scores deviate by three, about as peaked as in a trained
model.

Sources: Touvron et al., arXiv:2302.13971 (Llama); Su et al., arXiv:2104.09864 (rotary positions); Ainslie et al.,
arXiv:2305.13245 (grouped-query attention); Shazeer, arXiv:2002.05202 (SwiGLU).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
SCORE_DEVIATION = 3.0  # of random weights' attention scores


class NotAModel(ValueError):
    """A checkpoint that this decoder cannot run; the text says why."""


@dataclass(frozen=True)
class Shape:
    """What a model looks like. The defaults make 101 million parameters."""

    layers: int = 12
    hidden: int = 768
    heads: int = 12
    kv_heads: int = 4
    dim: int = 64  # of a head
    mlp: int = 2048
    vocabulary: int = 16_384
    norm_epsilon: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: dict[str, Any] = field(default_factory=dict)  # of Llama 3.1's kind, or empty
    tied: bool = False  # whether the output's weights are the embedding's

    @classmethod
    def of_config(cls, config: dict[str, Any]) -> Shape:
        """What a Hugging Face `config.json` describes. NotAModel."""
        if config.get("model_type") != "llama":
            raise NotAModel(f"model_type is {config.get('model_type')!r}, only 'llama' is known here")
        for name in ("attention_bias", "mlp_bias"):
            if config.get(name):
                raise NotAModel(f"{name} is not known here")
        if config.get("hidden_act", "silu") != "silu":
            raise NotAModel(f"hidden_act is {config['hidden_act']!r}, only 'silu' is known here")
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", "llama3"):
            raise NotAModel(f"rotary positions of type {kind!r} are not known here")
        try:
            heads = config["num_attention_heads"]
            return cls(
                layers=config["num_hidden_layers"],
                hidden=config["hidden_size"],
                heads=heads,
                kv_heads=config.get("num_key_value_heads") or heads,
                dim=config.get("head_dim") or config["hidden_size"] // heads,
                mlp=config["intermediate_size"],
                vocabulary=config["vocab_size"],
                norm_epsilon=config.get("rms_norm_eps", 1e-6),
                rope_theta=rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
                rope_scaling=rope if kind == "llama3" else {},
                tied=config.get("tie_word_embeddings", False),
            )
        except KeyError as error:
            raise NotAModel(f"config.json says nothing of {error}") from None

    def weights(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight by its name."""
        queries, keys = self.heads * self.dim, self.kv_heads * self.dim
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            found |= {
                f"model.layers.{layer}.{name}.weight": shape
                for name, shape in (
                    ("input_layernorm", (self.hidden,)),
                    ("self_attn.q_proj", (queries, self.hidden)),
                    ("self_attn.k_proj", (keys, self.hidden)),
                    ("self_attn.v_proj", (keys, self.hidden)),
                    ("self_attn.o_proj", (self.hidden, queries)),
                    ("post_attention_layernorm", (self.hidden,)),
                    ("mlp.gate_proj", (self.mlp, self.hidden)),
                    ("mlp.up_proj", (self.mlp, self.hidden)),
                    ("mlp.down_proj", (self.hidden, self.mlp)),
                )
            }
        found["model.norm.weight"] = (self.hidden,)
        if not self.tied:
            found["lm_head.weight"] = (self.vocabulary, self.hidden)
        return found

    @property
    def parameters(self) -> int:
        """How many numbers the weights are."""
        return sum(math.prod(shape) for shape in self.weights().values())


class Cache:
    """Keys and values of the tokens so far.

    `kv` is [2, layers, room, kv heads, dim]; `tokens` of the `room` are there.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype, room: int) -> None:
        self.kv = torch.empty(2, shape.layers, room, shape.kv_heads, shape.dim, dtype=dtype)
        self.tokens = 0

    @property
    def room(self) -> int:
        """Tokens that there is room for."""
        return self.kv.shape[2]

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values."""
        return self.kv[:, :, 0].numel() * self.kv.element_size()


class Llama:
    """A decoder and its weights."""

    def __init__(self, shape: Shape, weights: dict[str, Tensor]) -> None:
        self.shape = shape
        self.weights = weights
        self.dtype = weights["model.embed_tokens.weight"].dtype
        self.frequencies = frequencies(shape)

    @classmethod
    def random(cls, shape: Shape, dtype: torch.dtype, seed: int = 0) -> Llama:
        """A model with random weights, the same ones for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        weights = {}
        for name, size in shape.weights().items():
            if len(size) == 1:
                weights[name] = torch.ones(size, dtype=dtype)
                continue
            deviation = 1.0 if "embed_tokens" in name else 1 / math.sqrt(size[1])
            if "q_proj" in name:
                deviation *= SCORE_DEVIATION
            elif "o_proj" in name or "down_proj" in name:
                deviation /= math.sqrt(2 * shape.layers)  # the sum of all layers stays about as large as one of them
            weights[name] = (torch.randn(size, generator=generator) * deviation).to(dtype)
        return cls(shape, weights)

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype) -> Llama:
        """The model of a checkpoint's folder: config.json, and safetensors in one file or several.

        NotAModel, OSError; ImportError without the package safetensors.
        """
        from safetensors.torch import load_file

        shape = Shape.of_config(json.loads((folder / "config.json").read_text()))
        index = folder / "model.safetensors.index.json"
        names = ["model.safetensors"]
        if index.exists():
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        wanted = shape.weights()
        weights: dict[str, Tensor] = {}
        for name in names:
            weights |= {key: value.to(dtype) for key, value in load_file(folder / name).items() if key in wanted}
        for key, size in wanted.items():
            if key not in weights:
                raise NotAModel(f"the checkpoint lacks {key}")
            if tuple(weights[key].shape) != size:
                raise NotAModel(f"{key} is {tuple(weights[key].shape)}, config.json makes it {size}")
        return cls(shape, weights)

    def cache(self, room: int) -> Cache:
        """An empty cache with room for that many tokens."""
        return Cache(self.shape, self.dtype, room)

    @torch.inference_mode()
    def forward(self, tokens: Sequence[int], cache: Cache) -> Tensor:
        """Runs tokens that follow those in the cache, which takes their keys and values.

        Logits [vocabulary] after the last of them, f32. ValueError for no tokens, or more than there is room for.
        """
        past, end = cache.tokens, cache.tokens + len(tokens)
        if not tokens or end > cache.room:
            raise ValueError(f"{len(tokens)} tokens behind {past}, with room for {cache.room}")
        turns = torch.outer(torch.arange(past, end, dtype=torch.float32), self.frequencies)
        turns = torch.cat((turns, turns), -1)[:, None]
        rotation = turns.cos().to(self.dtype), turns.sin().to(self.dtype)
        # A query sees all that is before it: torch's own causal mask would begin at the first key, not at the last.
        mask = torch.ones(len(tokens), end, dtype=torch.bool).tril(past) if past and len(tokens) > 1 else None
        x = embedding(torch.tensor(tokens), self.weights["model.embed_tokens.weight"])
        for layer in range(self.shape.layers):
            x = x + self._attend(layer, self._norm(x, f"model.layers.{layer}.input_layernorm"), rotation, mask, cache)
            x = x + self._mlp(layer, self._norm(x, f"model.layers.{layer}.post_attention_layernorm"))
        cache.tokens = end
        output = "model.embed_tokens.weight" if self.shape.tied else "lm_head.weight"
        return linear(self._norm(x[-1], "model.norm"), self.weights[output]).float()

    def _norm(self, x: Tensor, name: str) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.shape.norm_epsilon)
        return self.weights[f"{name}.weight"] * (wide * scale).to(x.dtype)

    def _attend(
        self, layer: int, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache
    ) -> Tensor:
        shape, here = self.shape, f"model.layers.{layer}.self_attn"
        past, end = cache.tokens, cache.tokens + len(x)

        def project(which: str, heads: int) -> Tensor:
            return linear(x, self.weights[f"{here}.{which}_proj.weight"]).view(len(x), heads, shape.dim)

        queries = rotated(project("q", shape.heads), rotation)
        cache.kv[0, layer, past:end] = rotated(project("k", shape.kv_heads), rotation)
        cache.kv[1, layer, past:end] = project("v", shape.kv_heads)
        # [kv heads, queries of each, tokens, dim]; the keys of a group are one in memory, seen by each of its queries
        group = shape.heads // shape.kv_heads
        queries = queries.view(len(x), shape.kv_heads, group, shape.dim).permute(1, 2, 0, 3)
        keys, values = (
            part[:end].transpose(0, 1)[:, None].expand(-1, group, -1, -1) for part in cache.kv[:, layer].unbind(0)
        )
        causal = mask is None and len(x) > 1
        mixed = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal)
        return linear(mixed.permute(2, 0, 1, 3).reshape(len(x), -1), self.weights[f"{here}.o_proj.weight"])

    def _mlp(self, layer: int, x: Tensor) -> Tensor:
        gate, up, down = (
            self.weights[f"model.layers.{layer}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down")
        )
        return linear(silu(linear(x, gate)) * linear(x, up), down)


def rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """x [tokens, heads, dim] turned by its positions; a head's halves are the pairs, as in Hugging Face's weights."""
    cosine, sine = rotation
    half = x.shape[-1] // 2
    return x * cosine + torch.cat((-x[..., half:], x[..., :half]), -1) * sine


def frequencies(shape: Shape) -> Tensor:
    """Radians per position of each pair [dim / 2]; with Llama 3.1's scaling slow ones are slowed further."""
    plain = shape.rope_theta ** -(torch.arange(0, shape.dim, 2, dtype=torch.float32) / shape.dim)
    scaling = shape.rope_scaling
    if not scaling:
        return plain
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * plain / (2 * math.pi)  # in the context it was trained for
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return plain * (kept + (1 - kept) / scaling["factor"])


def greedy(model: Llama, logits: Tensor, cache: Cache, count: int) -> tuple[list[int], list[Tensor]]:
    """The `count` likeliest tokens one after the other, and the logits that each was chosen from."""
    tokens, seen = [int(logits.argmax())], [logits]
    while len(tokens) < count:
        seen.append(model.forward(tokens[-1:], cache))
        tokens.append(int(seen[-1].argmax()))
    return tokens, seen
