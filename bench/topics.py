"""Contexts that have something in common, and the keys that a small Llama computes for them; torch and numpy.

The text is Python's own library: its modules (code) and its language reference (prose, `pydoc_data`), which every
interpreter has. A *topic* is a passage of a module or a page: windows of it that follow one another, without overlap,
are its contexts. A *family* is code or prose. Contexts with a *common prefix* begin with the same window and go on with
windows of others. Every second document is for training, only the others are for measuring.

The decoder is that of `llama.py`: with its random weights, or trained here for some minutes to predict the next word,
which is little, and enough for keys that have something to do with the text.
"""

from __future__ import annotations

import collections
import random
import re
import sysconfig
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, scaled_dot_product_attention, silu

from bench.llama import Llama, Shape, rotated

WORD = re.compile(r"[A-Za-z_]+|[0-9]|[^\sA-Za-z0-9]")
VOCABULARY, RARE = 8192, 512  # rare words share so many of the tokens
WORDS_LEAST = 4096  # of a document
WINDOW = 512  # tokens of a context
BLOCK = 256
WINDOWS = 4  # contexts of a topic
PREFIXES, SUFFIXES = 40, 3
BATCH, TRAINED_WINDOW, RATE = 8, 192, 2e-3
SHAPE = Shape(layers=6, hidden=256, heads=8, kv_heads=4, dim=32, mlp=704, vocabulary=VOCABULARY, tied=True)


@dataclass
class Contexts:
    """Tokens [n, WINDOW], the label that those with something in common share, and their family."""

    tokens: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    families: npt.NDArray[np.int64]


def documents() -> dict[tuple[int, str], list[int]]:
    """By family (0 code, 1 prose) and name: tokens."""
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = {(0, path.name): path.read_text(errors="replace") for path in sorted(library.glob("*.py"))}
    from pydoc_data.topics import topics

    texts |= {(1, name): text for name, text in sorted(topics.items())}
    words = {name: WORD.findall(text.lower()) for name, text in texts.items()}
    words = {name: found for name, found in words.items() if len(found) >= WORDS_LEAST}
    counts = collections.Counter(word for found in words.values() for word in found)
    known = {word: at for at, (word, _) in enumerate(counts.most_common(VOCABULARY - RARE))}

    def token(word: str) -> int:
        return known.get(word, VOCABULARY - RARE + zlib.crc32(word.encode()) % RARE)

    return {name: [token(word) for word in found] for name, found in words.items()}


def sampled(texts: dict[tuple[int, str], list[int]], seed: int = 3) -> tuple[Contexts, Contexts]:
    """Contexts by topic, and contexts by common prefix."""
    chance = random.Random(seed)
    topical, labels, families = [], [], []
    for at, ((family, _), tokens) in enumerate(texts.items()):
        begin = chance.randrange(len(tokens) - WINDOWS * WINDOW)
        for number in range(WINDOWS):
            topical.append(tokens[begin + number * WINDOW : begin + (number + 1) * WINDOW])
            labels.append(at)
            families.append(family)

    def window(tokens: int) -> list[int]:
        found = chance.choice(list(texts.values()))
        begin = chance.randrange(len(found) - tokens)
        return found[begin : begin + tokens]

    prefixed = []
    for _ in range(PREFIXES):
        prefix = window(BLOCK)
        prefixed += [prefix + window(WINDOW - BLOCK) for _ in range(SUFFIXES)]
    groups = np.repeat(np.arange(PREFIXES), SUFFIXES)
    return (
        Contexts(np.array(topical), np.array(labels), np.array(families)),
        Contexts(np.array(prefixed), groups, np.zeros(len(groups), np.int64)),
    )


class Model:
    """The decoder, many contexts at a time, and trainable."""

    def __init__(self, seed: int = 1) -> None:
        self.llama = Llama.random(SHAPE, torch.float32, seed)
        self.weights = self.llama.weights

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """For tokens [n, t]: the last layer's output [n, t, hidden] and all keys [n, layers, t, kv heads, dim]."""
        n, length = tokens.shape
        turns = torch.outer(torch.arange(length, dtype=torch.float32), self.llama.frequencies)
        turns = torch.cat((turns, turns), -1)[:, None]
        rotation = turns.cos(), turns.sin()
        x = self.weights["model.embed_tokens.weight"][tokens]
        kept = []
        group = SHAPE.heads // SHAPE.kv_heads
        for layer in range(SHAPE.layers):
            at = f"model.layers.{layer}"
            h = self._norm(x, f"{at}.input_layernorm")
            queries, keys, values = (
                linear(h, self.weights[f"{at}.self_attn.{name}_proj.weight"]).view(n, length, -1, SHAPE.dim)
                for name in "qkv"
            )
            queries, keys = rotated(queries, rotation), rotated(keys, rotation)
            kept.append(keys)
            keys, values = (each.transpose(1, 2).repeat_interleave(group, 1) for each in (keys, values))
            mixed = scaled_dot_product_attention(queries.transpose(1, 2), keys, values, is_causal=True)
            x = x + linear(mixed.transpose(1, 2).reshape(n, length, -1), self.weights[f"{at}.self_attn.o_proj.weight"])
            h = self._norm(x, f"{at}.post_attention_layernorm")
            gate, up, down = (self.weights[f"{at}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
            x = x + linear(silu(linear(h, gate)) * linear(h, up), down)
        return self._norm(x, "model.norm"), torch.stack(kept, 1)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + SHAPE.norm_epsilon)
        return self.weights[f"{name}.weight"] * (x * scale)

    def train(self, texts: list[list[int]], steps: int, say: Callable[[str], None]) -> float:
        """Learns to predict the next word; the mean loss of the last 20 steps, nats."""
        chance = random.Random(5)
        for name, weight in self.weights.items():  # random weights are made for peaked attention, not for learning
            weight.mul_(0.05 if "embed" in name else 1 / 3 if "q_proj" in name else 1)
        parameters = [weight.requires_grad_() for weight in self.weights.values()]
        optimiser = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.95), weight_decay=0.01)
        losses: list[float] = []
        for step in range(steps):
            rows = []
            for _ in range(BATCH):
                text = chance.choice(texts)
                at = chance.randrange(len(text) - TRAINED_WINDOW - 1)
                rows.append(text[at : at + TRAINED_WINDOW + 1])
            batch = torch.tensor(rows)
            output = self.forward(batch[:, :-1])[0]
            logits = linear(output, self.weights["model.embed_tokens.weight"])
            loss = cross_entropy(logits.reshape(-1, VOCABULARY), batch[:, 1:].reshape(-1))
            optimiser.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 50) * max(0.1, 1 - step / steps)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            losses.append(float(loss))
            if not len(losses) % 100:
                say(f"step {len(losses)}, loss {losses[-1]:.2f}")
        for weight in parameters:
            weight.requires_grad_(False)
        return sum(losses[-20:]) / len(losses[-20:])

    @torch.inference_mode()
    def keys(self, contexts: Contexts) -> npt.NDArray[np.float16]:
        """[n, layers, WINDOW, kv heads, dim]."""
        parts = [self.forward(torch.from_numpy(some))[1].half().numpy() for some in np.array_split(contexts.tokens, 32)]
        return np.concatenate(parts)
