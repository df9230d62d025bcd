"""What was packed comes back, within the codec's bound where it is lossy; what was changed on the way does not."""

from __future__ import annotations

import builtins
import re
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from zeekdb.errors import Unavailable
from zeekdb.hot.checksum import checksum
from zeekdb.tensors import floats
from zeekdb.tensors.codecs import for_model
from zeekdb.tensors.layout import Layout
from zeekdb.tiers import packing
from zeekdb.tiers.envelope import CODINGS, Sealed, seal, unseal
from zeekdb.tiers.packing import PIECE, STRIDES, ZSTD_HEAD, Packer, is_asked
from zeekdb.tiers.tier import Meta

LAYOUTS = {
    b"f32": Layout(3, 2, 16, "f32", 24),
    b"bf16": Layout(3, 2, 16, "bf16", 24),
    b"f16": Layout(2, 2, 16, "f16", 24),
    b"f8": Layout(2, 2, 16, "f8e4m3", 24),
    b"mla": Layout(3, 1, 48, "bf16", 24, 1),
}
GUARD = b"\xa5" * 64


def meta_of(data: bytes | memoryview, model: bytes = b"m", codec: str = "raw") -> Meta:
    return Meta(model, b"s", b"k", memoryview(data).nbytes, checksum(data), 0, b"g", codec)


def packer(coding: str) -> Packer:
    return Packer(coding, LAYOUTS.get)


def round_trip(sealed: Sealed, payload: Any) -> bytes | None:
    """The block, or None; the header goes through its wire form, and nothing is written outside of the room."""
    sealed = unseal(seal(sealed))[0]
    room = bytearray(GUARD + b"\x5a" * sealed.meta.size + GUARD)
    into = memoryview(room)[64 : 64 + sealed.meta.size]
    is_whole = Packer().unpack(sealed, payload, into)
    assert bytes(room[:64]) == bytes(room[64 + sealed.meta.size :]) == GUARD
    return bytes(into) if is_whole else None


def numbers(layout: Layout, seed: int = 1) -> bytes:
    """A block like those of a model: numbers of one scale."""
    plain = np.random.default_rng(seed).standard_normal(layout.block_bytes // layout.item_bytes, np.float32)
    codes = np.empty(plain.size, floats.FORMATS[layout.dtype].codes)
    floats.convert("f32", layout.dtype, plain.view(np.uint32), codes)
    return codes.tobytes()


def blocks() -> st.SearchStrategy[bytes]:
    """Noise, repetitions, numbers, and mixtures, of awkward sizes."""
    sizes = st.sampled_from([0, 1, 2, 3, 4, 5, 7, 100, 4095, 40_001, PIECE - 1, PIECE, PIECE + 3, 3 * PIECE + 1])
    noise = st.builds(lambda seed, size: Random(seed).randbytes(size), st.integers(0, 99), sizes)
    plain = st.builds(lambda unit, size: (unit * (size // len(unit) + 1))[:size], st.binary(min_size=1), sizes)
    model = st.builds(
        lambda name, cut: numbers(LAYOUTS[name])[cut:], st.sampled_from(sorted(LAYOUTS)), st.integers(0, 9)
    )
    return st.one_of(noise, plain, model, st.builds(bytes.__add__, noise, plain), st.binary(max_size=300))


@given(blocks(), st.sampled_from(["raw", "zstd"]))
@settings(max_examples=200, deadline=None)
def test_lossless_blocks_come_back(data: bytes, coding: str) -> None:
    meta = meta_of(data)
    sealed, payload = packer(coding).pack(meta, data)
    assert sealed.meta == meta
    assert sealed.stored_size == len(payload) <= len(data)
    assert sealed.stored_checksum == checksum(payload)
    assert sealed.coding == "raw" or len(payload) <= 0.95 * len(data)
    assert round_trip(sealed, payload) == data


@pytest.mark.parametrize("coding", ["fp16", "int8"])
@pytest.mark.parametrize("model", sorted(LAYOUTS))
def test_lossy_blocks_come_back_within_the_codecs_bound(model: bytes, coding: str) -> None:
    layout = LAYOUTS[model]
    data = numbers(layout, 7)
    meta = meta_of(data, model)
    sealed, payload = packer(coding).pack(meta, data)
    gains = layout.dtype == "f32" or (coding == "int8" and layout.dtype in ("bf16", "f16"))
    assert (sealed.coding == coding) == gains
    got = round_trip(sealed, payload)
    assert got is not None
    if not gains:
        assert got == data
        return
    assert len(payload) < 0.8 * len(data)
    codec = for_model(coding, layout)
    encoded, decoded = bytearray(codec.encoded_size), bytearray(layout.block_bytes)
    codec.encode(data, encoded)
    codec.decode(encoded, decoded)
    assert got == decoded
    assert sealed.plain_checksum == checksum(got) != meta.checksum
    form = floats.FORMATS[layout.dtype].codes
    plain, back = (floats.values(layout.dtype, np.frombuffer(each, form)) for each in (data, got))
    half_place = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}[layout.dtype] * np.abs(back)
    if coding == "fp16":
        bound = np.maximum(2.0**-11 * np.abs(plain), 2.0**-25)
    else:  # largest / 254 of its row or channel, which no largest of the whole is under
        bound = np.abs(plain).max() / 254 * 1.001 + half_place
    assert (np.abs(plain - back) <= bound).all()
    assert is_asked(sealed, meta)
    assert is_asked(sealed, meta_of(got, model))
    assert not is_asked(sealed, meta._replace(checksum=meta.checksum ^ 1))
    assert not is_asked(sealed, meta._replace(key=b"other"))


def test_lossy_codings_leave_alone_what_they_do_not_know() -> None:
    data = numbers(LAYOUTS[b"f32"])
    some = packer("int8")
    for meta, block in [
        (meta_of(data, b"unknown"), data),
        (meta_of(data, b"f32", codec="fp16"), data),
        (meta_of(data[4:], b"f32"), data[4:]),
    ]:
        sealed, payload = some.pack(meta, block)
        assert (sealed.coding, bytes(payload)) == ("raw", block)


def test_planes_help_numbers_and_noise_stays_raw() -> None:
    some = packer("zstd")
    layout = Layout(4, 8, 64, "bf16", 64)
    block = numbers(layout)
    sealed, payload = some.pack(meta_of(block), block)
    assert payload[ZSTD_HEAD.size - 3] == 2, "elements of two bytes were not seen"
    assert len(payload) < len(zstandard.compress(block, 1)) < len(block)
    assert sealed.coding == "zstd"
    noise = Random(1).randbytes(1 << 20)
    sealed, payload = some.pack(meta_of(noise), noise)
    assert sealed.coding == "raw"
    assert memoryview(payload).obj is noise, "raw is not copied"


def test_other_programs_read_the_frames() -> None:
    text = b"a block of text, and again " * 20_000
    _, payload = packer("zstd").pack(meta_of(text), text)
    reader = zstandard.ZstdDecompressor().stream_reader(bytes(payload)[ZSTD_HEAD.size :], read_across_frames=True)
    assert reader.read(len(text) + 1) == text


@pytest.fixture(scope="module")
def packed() -> dict[str, tuple[Sealed, bytes]]:
    """A block in each coding."""
    data = numbers(LAYOUTS[b"f32"])
    made = {coding: packer(coding).pack(meta_of(data, b"f32"), data) for coding in CODINGS}
    assert [sealed.coding for sealed, _ in made.values()] == list(CODINGS)
    return {coding: (sealed, bytes(payload)) for coding, (sealed, payload) in made.items()}


@given(st.sampled_from(CODINGS), st.data())
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_is_found(packed: dict[str, tuple[Sealed, bytes]], coding: str, data: st.DataObject) -> None:
    sealed, payload = packed[coding]
    bit = data.draw(st.integers(0, 8 * len(payload) - 1))
    damaged = bytearray(payload)
    damaged[bit // 8] ^= 1 << bit % 8
    assert round_trip(sealed, damaged) is None
    assert round_trip(sealed, payload) is not None


@given(st.sampled_from(CODINGS), st.data())
@settings(max_examples=300, deadline=None)
def test_damage_with_a_matching_checksum_is_no_block_and_no_crash(
    packed: dict[str, tuple[Sealed, bytes]], coding: str, data: st.DataObject
) -> None:
    """Whoever can write to the engine can write the right checksum of the stored bytes as well."""
    sealed, payload = packed[coding]
    damaged = bytearray(payload)
    for at in data.draw(st.lists(st.integers(0, min(200, len(payload)) - 1), min_size=1, max_size=8)):
        damaged[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 1, 100]))
    lie = bytes(damaged[: len(damaged) - cut])
    got = round_trip(sealed._replace(stored_size=len(lie), stored_checksum=checksum(lie)), lie)
    assert got is None or checksum(got) == sealed.plain_checksum


def bomb(mib: int, **parameters: Any) -> bytes:
    """A few bytes that become many."""
    made = zstandard.ZstdCompressionParameters.from_level(1, **parameters)
    some = zstandard.ZstdCompressor(compression_params=made).compressobj()
    return b"".join([*(some.compress(bytes(1 << 20)) for _ in range(mib)), some.flush()])


def peak_bytes() -> int:
    """The most memory this process has had since it was last told to forget that."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1)) << 10  # type: ignore[union-attr]


def hostile(payload: bytes, coding: str, size: int = 1000) -> bool:
    meta = Meta(b"m", b"", b"k", size, 1)
    sealed = Sealed(meta, coding, len(payload), checksum(payload), 1)
    return Packer().unpack(sealed, payload, memoryview(bytearray(size)))


def test_bombs_take_no_memory() -> None:
    heads = [ZSTD_HEAD.pack(packing.SKIPPABLE, 4, 1, stride) for stride in STRIDES]
    lie = struct.pack("<IBQ", 0xFD2FB528, 0b11100000, 1 << 60) + b"\x01\x00\x00"  # a size out of this world
    wide = bomb(100, window_log=27, write_content_size=False)  # wants to be remembered as a whole
    layout = packing.LOSSY_HEAD.pack(packing.LOSSY_MAGIC, 1, 0, 2, 1024, 65_536, 1024, 65_536)
    bombs = [(head + each, "zstd") for head in heads for each in (bomb(100), bomb(100) * 3, wide, lie)]
    bombs += [(layout, "int8"), (layout + bytes(100), "fp16")]
    assert not hostile(heads[0] + bomb(1), "zstd")  # all that it needs has been imported
    assert not hostile(layout, "int8")
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    for payload, coding in bombs:
        assert not hostile(payload, coding)
    assert peak_bytes() - before < 16 << 20


@pytest.mark.parametrize("payload", [b"", b"x", ZSTD_HEAD.pack(packing.SKIPPABLE, 4, 1, 3), b"\0" * 11, b"\0" * 300])
@pytest.mark.parametrize("coding", CODINGS)
def test_what_is_no_payload_is_no_block(payload: bytes, coding: str) -> None:
    assert not hostile(payload, coding)
    assert not hostile(payload, coding, 0) or (coding, payload) == ("raw", b"")


def test_rooms_and_sizes_must_agree(packed: dict[str, tuple[Sealed, bytes]]) -> None:
    for sealed, payload in packed.values():
        size = sealed.meta.size
        assert not Packer().unpack(sealed, payload, memoryview(bytearray(size - 1)))
        assert not Packer().unpack(sealed, payload, memoryview(bytearray(size + 1)))
        assert not Packer().unpack(sealed, payload + b"x", memoryview(bytearray(size)))
        other = sealed._replace(meta=sealed.meta._replace(checksum=sealed.meta.checksum ^ 1))
        is_lossy = sealed.coding in packing.LOSSY
        assert Packer().unpack(other, payload, memoryview(bytearray(size))) == is_lossy
    with pytest.raises(ValueError, match="not 5"):
        Packer().pack(Meta(b"m", b"", b"k", 5, 0), b"1234")
    with pytest.raises(ValueError, match="no such coding"):
        Packer("lz4")


def test_raw_bytes_that_are_in_their_place(packed: dict[str, tuple[Sealed, bytes]]) -> None:
    sealed, payload = packed["raw"]
    assert Packer().is_whole(sealed, memoryview(payload))
    assert not Packer().is_whole(sealed, memoryview(payload[:-1] + b"\0"))
    assert not Packer().is_whole(sealed, memoryview(payload[:-1]))
    assert not Packer().is_whole(sealed._replace(coding="zstd"), memoryview(payload))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_memory_of_any_kind_serves(coding: str, offset: int) -> None:
    data = numbers(LAYOUTS[b"f32"])
    held = memoryview(bytearray(offset) + data)[offset:]
    sealed, payload = packer(coding).pack(meta_of(data, b"f32"), held)
    moved = memoryview(b"x" * offset + bytes(payload))[offset:]
    into = memoryview(np.zeros(len(data) // 4 + 1, np.uint32)).cast("B")[offset : offset + len(data)]
    assert Packer().unpack(sealed, moved, into)
    if coding in ("raw", "zstd"):
        assert into == data
    array = np.frombuffer(data, np.float32).reshape(2, -1)
    assert bytes(packer(coding).pack(meta_of(data, b"f32"), memoryview(array))[1]) == bytes(payload)
    with pytest.raises(ValueError, match="one piece"):
        packer(coding).pack(meta_of(data, b"f32"), memoryview(data)[::2])


def test_threads_do_not_disturb_each_other() -> None:
    def work(seed: int) -> bool:
        coding = CODINGS[seed % len(CODINGS)]
        data = numbers(LAYOUTS[b"f32"], seed) if seed % 3 else b"text of a block " * 30_000
        sealed, payload = packer(coding).pack(meta_of(data, b"f32"), data)
        into = bytearray(len(data))
        return Packer().unpack(sealed, payload, memoryview(into)) and (coding in packing.LOSSY or into == data)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(96)))


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "zstandard", raising=False)
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "zstandard":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(packing, "_local", [])
    with pytest.raises(Unavailable, match="pip install"):
        Packer("zstd")
    assert not hostile(ZSTD_HEAD.pack(packing.SKIPPABLE, 4, 1, 1), "zstd")
    sealed, payload = Packer("raw").pack(meta_of(b"block"), b"block")
    assert round_trip(sealed, payload) == b"block"
