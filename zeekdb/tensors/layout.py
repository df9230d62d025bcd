"""What a model's blocks look like, and what KV.MODEL SET declares.

A block holds the keys and values of some consecutive tokens, of all layers, as one C-ordered array

    [parts, layers, block, heads, dim] of dtype

which is LMCache's `[2, L, T, H·D]`. `parts` is 2, keys and then values; models with latent attention (MLA, DeepSeek)
have one vector per token and layer instead: `parts` 1, heads 1, dim 576, LMCache's `[1, L, T, D]`. It cannot be
declared as two halves of 288: the sizes would agree, but the layers would not lie where `slices` says.

A *plane* is one layer of one part, [block, heads, dim]: the smallest piece that is encoded on its own (see `codecs`).

All numbers come from clients. Each has a bound here, and so has their product, so that nothing further down needs to
fear an overflow or an allocation without limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from zeekdb.errors import CommandError, OutOfRange, SyntaxError_

LAYERS_MAX: Final = 1024
HEADS_MAX: Final = 1024
DIM_MAX: Final = 65_536
BLOCK_TOKENS_MAX: Final = 65_536
BLOCK_TOKENS_DEFAULT: Final = 256  # LMCache's chunk
BLOCK_BYTES_MAX: Final = 512 << 20  # a block travels as one bulk string: Redis's proto-max-bulk-len
PARTS_MAX: Final = 2
TTL_S_MAX: Final = (1 << 63) // 1000 - 1  # as milliseconds it fits 64 bits
QUOTA_BYTES_MAX: Final = (1 << 63) - 1
NAME_BYTES_MAX: Final = 256
WORD_BYTES_MAX: Final = 16  # of a DTYPE or CODEC: no name is longer
RANGES: Final = {
    "LAYERS": (1, LAYERS_MAX),
    "HEADS": (1, HEADS_MAX),
    "DIM": (1, DIM_MAX),
    "BLOCK": (1, BLOCK_TOKENS_MAX),
    "PARTS": (1, PARTS_MAX),
    "TTL": (0, TTL_S_MAX),
    "QUOTA": (0, QUOTA_BYTES_MAX),
}
"""What each number of KV.MODEL SET may be, both ends included."""

ITEM_BYTES: Final = {"f32": 4, "f16": 2, "bf16": 2, "f8e4m3": 1}
CODECS: Final = {
    "raw": frozenset(ITEM_BYTES),
    "fp16": frozenset({"f32", "f16", "bf16"}),
    "bf16": frozenset({"f32", "f16", "bf16"}),
    "fp8": frozenset(ITEM_BYTES),
    "int8": frozenset({"f32", "f16", "bf16"}),
    "int8-channel": frozenset({"f32", "f16", "bf16"}),
    "int8-token": frozenset({"f32", "f16", "bf16"}),
}
"""The types of element that each codec takes."""

_INTEGER = re.compile(rb"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape of a model's blocks. OutOfRange for a number outside its bounds."""

    layers: int
    heads: int  # of keys and values: fewer than the model's attention heads where queries share them
    dim: int
    dtype: str
    block: int = BLOCK_TOKENS_DEFAULT  # tokens
    parts: int = 2

    def __post_init__(self) -> None:
        _check("LAYERS", self.layers)
        _check("HEADS", self.heads)
        _check("DIM", self.dim)
        _check("BLOCK", self.block)
        _check("PARTS", self.parts)
        if self.dtype not in ITEM_BYTES:
            raise OutOfRange(f"ERR DTYPE must be {_choice(ITEM_BYTES)}")
        if self.block_bytes > BLOCK_BYTES_MAX:
            raise OutOfRange(f"ERR a block of {self.block_bytes} bytes is too large, the limit is {BLOCK_BYTES_MAX}")

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """[parts, layers, block, heads, dim]."""
        return self.parts, self.layers, self.block, self.heads, self.dim

    @property
    def item_bytes(self) -> int:
        """Bytes of an element."""
        return ITEM_BYTES[self.dtype]

    @property
    def row_bytes(self) -> int:
        """Bytes of a token in one plane: what KV.PUT takes per token as keys, and again as values."""
        return self.heads * self.dim * self.item_bytes

    @property
    def token_bytes(self) -> int:
        """Bytes of a token in all planes."""
        return self.parts * self.layers * self.row_bytes

    @property
    def plane_items(self) -> int:
        """Elements of one layer of one part."""
        return self.block * self.heads * self.dim

    @property
    def block_bytes(self) -> int:
        """Bytes of a block."""
        return self.block * self.token_bytes

    def some_layers(self, first: int, last: int) -> Layout:
        """The layout of what `slices` cuts out: layers from `first` to `last`, which is excluded."""
        self._check_layers(first, last)
        return Layout(last - first, self.heads, self.dim, self.dtype, self.block, self.parts)

    def slices(self, first: int, last: int) -> tuple[tuple[int, int], ...]:
        """Where layers from `first` to `last` (excluded) lie in a block: (offset, bytes) for each part.

        Joined they are a block of `some_layers(first, last)`. OutOfRange unless 0 <= first < last <= layers.
        """
        self._check_layers(first, last)
        plane = self.block * self.row_bytes
        return tuple(((part * self.layers + first) * plane, (last - first) * plane) for part in range(self.parts))

    def check_block(self, size: int) -> None:
        """OutOfRange unless a block has `size` bytes."""
        if size != self.block_bytes:
            raise OutOfRange(f"ERR a block of this model has {self.block_bytes} bytes, not {size}")

    def _check_layers(self, first: int, last: int) -> None:
        if not 0 <= first < last <= self.layers:
            raise OutOfRange(f"ERR LAYERS must be a range within 0 and {self.layers}")


@dataclass(frozen=True, slots=True)
class Model:
    """A model as KV.MODEL SET declares it. A layout of None means opaque blocks, of any size, kept as they come."""

    name: bytes
    layout: Layout | None = None
    codec: str = "raw"
    ttl_s: int = 0  # what a block gets that comes without TTL; 0: it stays until evicted
    quota_bytes: int = 0  # most that its blocks may take; 0: no limit

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= NAME_BYTES_MAX:
            raise OutOfRange(f"ERR the name of a model must have from 1 to {NAME_BYTES_MAX} bytes")
        _check("TTL", self.ttl_s)
        _check("QUOTA", self.quota_bytes)
        if self.codec not in CODECS:
            raise OutOfRange(f"ERR CODEC must be {_choice(CODECS)}")
        if self.codec == "raw":
            return
        if self.layout is None:
            raise CommandError(f"ERR CODEC {self.codec} needs LAYERS, HEADS, DIM and DTYPE")
        if self.layout.dtype not in CODECS[self.codec]:
            raise CommandError(f"ERR CODEC {self.codec} does not take DTYPE {self.layout.dtype}")

    @classmethod
    def parse(cls, name: bytes, words: Sequence[bytes]) -> Model:
        """From what follows KV.MODEL SET: options and their values, in any order, each at most once. CommandError."""
        if len(words) % 2:
            raise SyntaxError_
        given: dict[str, bytes] = {}
        for word, value in zip(words[::2], words[1::2], strict=True):
            option = word.upper().decode("ascii", "replace")
            if option not in _OPTIONS or option in given:
                raise SyntaxError_
            given[option] = value
        numbers = {option: _number(option, given[option]) for option in given if option not in ("DTYPE", "CODEC")}
        layout = None
        if wanted := [option for option in given if option in _LAYOUT]:
            missing = [option for option in _LAYOUT_NEEDED if option not in given]
            if missing:
                raise CommandError(f"ERR {wanted[0]} without {missing[0]}: LAYERS, HEADS, DIM and DTYPE go together")
            layout = Layout(
                numbers["LAYERS"],
                numbers["HEADS"],
                numbers["DIM"],
                _word(given["DTYPE"]),
                numbers.get("BLOCK", BLOCK_TOKENS_DEFAULT),
                numbers.get("PARTS", 2),
            )
        codec = _word(given.get("CODEC", b"raw"))
        return cls(name, layout, codec, numbers.get("TTL", 0), numbers.get("QUOTA", 0))

    def fields(self) -> dict[str, str | int]:
        """What KV.MODEL GET replies; an opaque model has no fields of a layout."""
        found: dict[str, str | int] = {"codec": self.codec, "ttl": self.ttl_s, "quota": self.quota_bytes}
        layout = self.layout
        if layout is None:
            return found
        return found | {
            "layers": layout.layers,
            "heads": layout.heads,
            "dim": layout.dim,
            "dtype": layout.dtype,
            "block": layout.block,
            "parts": layout.parts,
            "token-bytes": layout.token_bytes,
            "block-bytes": layout.block_bytes,
        }


_LAYOUT: Final = ("LAYERS", "HEADS", "DIM", "DTYPE", "BLOCK", "PARTS")
_LAYOUT_NEEDED: Final = _LAYOUT[:4]
_OPTIONS: Final = frozenset({*_LAYOUT, "CODEC", "TTL", "QUOTA"})


def _choice(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}"


def _check(option: str, value: int) -> None:
    low, high = RANGES[option]
    if not low <= value <= high:
        raise OutOfRange(f"ERR {option} must be an integer from {low} to {high}")


def _number(option: str, text: bytes) -> int:
    """A number as Redis spells them: no sign, no leading zero."""
    value = int(text) if _INTEGER.fullmatch(text) else -1
    _check(option, value)
    return value


def _word(text: bytes) -> str:
    """A name out of a short list, in lower case; what is not ASCII is none of them."""
    return text[: WORD_BYTES_MAX + 1].lower().decode("ascii", "replace")
