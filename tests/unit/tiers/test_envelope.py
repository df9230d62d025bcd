"""The header of a block in an engine that others share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeekdb.tiers.envelope import Damaged, Sealed, digest, seal, unseal
from zeekdb.tiers.tier import Meta, Name

NAMES = st.builds(Name, st.binary(max_size=64), st.binary(max_size=300), st.binary(max_size=10_240))
WORD = st.integers(0, (1 << 64) - 1)
METAS = st.builds(
    lambda name, size, check, deadline, group, codec: Meta(*name, size, check, deadline, group, codec),
    NAMES, WORD, WORD, st.integers(0, (1 << 32) - 1), st.binary(max_size=64), st.sampled_from(["raw", "fp8", "int8"]),
)  # fmt: skip
SEALED = st.builds(Sealed, METAS, st.sampled_from(["raw", "zstd", "fp16", "int8"]), WORD, WORD, WORD)


@given(SEALED, st.binary(max_size=100))
def test_what_was_sealed_comes_back(sealed: Sealed, payload: bytes) -> None:
    header = seal(sealed)
    assert unseal(header + payload) == (sealed, len(header))


@given(SEALED, st.data())
def test_no_flipped_bit_and_no_cut_passes(sealed: Sealed, data: st.DataObject) -> None:
    header = bytearray(seal(sealed))
    with pytest.raises(Damaged):
        unseal(header[: data.draw(st.integers(0, len(header) - 1))])
    header[data.draw(st.integers(0, len(header) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Damaged):
        unseal(header)


@given(st.binary(max_size=200))
def test_bytes_of_strangers_are_no_header(data: bytes) -> None:
    with pytest.raises(Damaged):
        unseal(data)


@given(NAMES, NAMES)
def test_a_digest_is_of_all_parts(one: Name, other: Name) -> None:
    assert (digest(one) == digest(other)) == (one == other)
    assert digest(Name(b"a", b"b", b"c")) != digest(Name(b"ab", b"", b"c"))
    assert len(digest(one)) == 32


def test_names_that_are_too_long_are_refused() -> None:
    meta = Meta(b"m", b"", b"k" * 70_000, 1, 1)
    with pytest.raises(ValueError, match="too long"):
        seal(Sealed(meta, "raw", 1, 1, 1))
