"""Prefixes kept in ZeekDB by their tokens: what an inference engine does with KV.MATCH, KV.FETCH and KV.STORE.

Tokens go as u32, little-endian. A block is [2, layers, tokens, kv heads, dim], which is what `llama.Cache` is, too.
Blocks travel as raw bytes; elements of f32 and bf16 alike are copied as integers of their size, since numpy has no
bf16, and nothing here looks at a value.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from bench.llama import DTYPES, Cache, Shape

LEASE_MS = 2_000  # between MATCH and FETCH a full region must not take the blocks away
INTEGERS = {4: (torch.int32, np.int32), 2: (torch.int16, np.int16)}


class Client(Protocol):
    """What a connection must be able to do; redis.Redis does."""

    def execute_command(self, *words: Any) -> Any:
        """A command and its reply."""


@dataclass
class Loaded:
    """What was loaded in front of a prompt, and the seconds it took."""

    tokens: int = 0
    bytes: int = 0
    match_s: float = 0.0
    fetch_s: float = 0.0
    copy_s: float = 0.0  # from the reply into the cache


class Prefixes:
    """Prefixes of one model. The model is declared with its layout, which the server checks blocks against."""

    def __init__(self, client: Client, name: str, shape: Shape, dtype: str, block: int) -> None:
        self.client = client
        self.name = name
        self.block = block
        item_bytes = DTYPES[dtype].itemsize
        self.torch_integer, self.integer = INTEGERS[item_bytes]
        self.shape = (2, shape.layers, block, shape.kv_heads, shape.dim)
        self.block_bytes = int(np.prod(self.shape)) * item_bytes
        layout = ("LAYERS", shape.layers, "HEADS", shape.kv_heads, "DIM", shape.dim, "DTYPE", dtype, "BLOCK", block)
        client.execute_command("KV.MODEL", "SET", name, *layout)

    def save(self, tokens: Sequence[int], cache: Cache) -> list[int]:
        """Keeps the whole blocks of the tokens, which begin the cache; for each: 1 stored, 0 was there, -1 no room."""
        kv = cache.kv.view(self.torch_integer)
        begins = range(0, len(tokens) - self.block + 1, self.block)
        blocks = [kv[:, :, begin : begin + self.block].contiguous().numpy() for begin in begins]
        if not blocks:
            return []
        stored: list[int] = self.client.execute_command(
            "KV.STORE", self.name, encoded(tokens), *(memoryview(block).cast("B") for block in blocks)
        )
        return stored

    def load(self, tokens: Sequence[int], cache: Cache) -> Loaded:
        """Puts the longest known prefix of the tokens into an empty cache, but never all of them.

        The last token is left to be computed, since logits are not kept. ValueError for a block of another size.
        """
        wire = encoded(tokens)
        began = time.perf_counter()
        matched: int = self.client.execute_command("KV.MATCH", self.name, wire, "LEASE", LEASE_MS)[0]
        loaded = Loaded(match_s=time.perf_counter() - began)
        if not matched:
            return loaded
        began = time.perf_counter()
        blocks: list[bytes] = self.client.execute_command("KV.FETCH", self.name, wire[: 4 * matched])
        loaded.fetch_s = time.perf_counter() - began
        began = time.perf_counter()
        kv = cache.kv.view(self.torch_integer).numpy()
        for number, block in enumerate(blocks):
            if len(block) != self.block_bytes:
                raise ValueError(f"a block of {len(block)} bytes, where {self.block_bytes} belong")
            begin = number * self.block
            kv[:, :, begin : begin + self.block] = np.frombuffer(block, self.integer).reshape(self.shape)
            loaded.bytes += len(block)
        loaded.tokens = cache.tokens = min(len(blocks) * self.block, len(tokens) - 1)
        loaded.copy_s = time.perf_counter() - began
        return loaded


def encoded(tokens: Sequence[int]) -> bytes:
    """Tokens as the commands take them: u32, little-endian."""
    return np.asarray(tokens, dtype="<u4").tobytes()
