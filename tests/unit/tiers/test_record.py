"""Headers: what was written is read, and nothing else is taken for a header."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zeekdb.tiers.log import tombstones
from zeekdb.tiers.record import (
    BODY_MAX,
    GRID,
    HEADER_PAGES_MAX,
    NUMBER_MAX,
    PAGE_MAX,
    PREFIX,
    Kind,
    Seed,
    header_pages,
    pack_block,
    pack_body,
    pages_of,
    place_of,
    split_place,
)
from zeekdb.tiers.tier import PLACE_MAX, Meta
from zeekdb.tiers.transfer import layout, pages

U64 = (1 << 64) - 1
SEED = Seed(b"n" * 16, 7)
METAS = st.builds(
    Meta,
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.binary(max_size=9000),
    st.integers(0, 1 << 40),
    st.integers(0, U64),
    st.integers(0, 1 << 40),
    st.binary(max_size=40),
    st.sampled_from(["raw", "fp16", "int8"]),
)


def framed(body: bytes, page: int, seed: Seed = SEED) -> memoryview:
    into = pages(header_pages(body))
    seed.write(into, 0, page, body)
    return into


@given(METAS, st.integers(0, 1 << 31), st.integers(1, PAGE_MAX))
def test_a_header_comes_back(meta: Meta, batch: int, page: int) -> None:
    body = pack_block(batch, meta)
    record = SEED.read(framed(body, page), page)
    assert record is not None
    assert (record.kind, record.batch, record.page, record.meta) == (Kind.BLOCK, batch, page, meta)
    assert record.end == page + header_pages(body) + pages_of(meta.size)


@given(METAS, st.data())
def test_a_flipped_bit_makes_it_none(meta: Meta, data: st.DataObject) -> None:
    body = pack_block(1, meta)
    into = framed(body, 5)
    into[data.draw(st.integers(0, PREFIX.size + len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert SEED.read(into, 5) is None


def test_a_header_counts_at_its_own_place_only() -> None:
    body = pack_block(1, Meta(b"m", b"", b"k", 10, 1))
    assert SEED.read(framed(body, 5), 5) is not None
    assert SEED.read(framed(body, 5), 6) is None
    assert SEED.read(framed(body, 5, Seed(b"n" * 16, 8)), 5) is None
    assert SEED.read(framed(body, 5, Seed(b"o" * 16, 7)), 5) is None


@given(st.binary(max_size=200))
def test_other_bytes_are_no_header(data: bytes) -> None:
    assert SEED.read(memoryview(data), 1) is None
    assert SEED.read(memoryview(b"ZKV1" + data), 1) is None


@given(st.integers(1, NUMBER_MAX), st.integers(0, PAGE_MAX), st.integers(1, HEADER_PAGES_MAX))
def test_places(number: int, page: int, count: int) -> None:
    place = place_of(number, page, count)
    assert 0 <= place <= PLACE_MAX
    assert split_place(place) == (number, page, count)


@given(st.lists(st.tuples(st.binary(max_size=50), st.binary(max_size=50), st.binary(max_size=30_000)), max_size=12))
def test_tombstones_fit_their_headers(names: list[tuple[bytes, bytes, bytes]]) -> None:
    records = tombstones(names)
    assert [name for record in records for name in record.names] == names
    for record in records:
        body = record.body((1 << 31) - 1)
        assert len(body) <= BODY_MAX
        found = SEED.read(framed(body, 1), 1)
        assert found is not None
        assert [tuple(name) for name in found.fields] == list(record.names)


def test_a_body_that_makes_no_sense() -> None:
    for body in (pack_body(Kind.BLOCK, 1, 10, b"too", b"few"), b"\xc1", b"", pack_body(Kind.BLOCK, 1, -1)):
        assert SEED.read(framed(body, 1), 1) is None


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3 * GRID)), min_size=1, max_size=8))
def test_a_layout_is_the_file(records: list[tuple[int, int]]) -> None:
    """Headers, data and padding in order, every buffer on the grid, no byte of data copied but the tails."""
    datas = [memoryview(bytearray(size)) for _, size in records]
    scratch, headers, buffers = layout([(count, data) for (count, _), data in zip(records, datas, strict=True)])
    assert sum(buffer.nbytes for buffer in buffers) == sum((n + pages_of(size)) * GRID for n, size in records)
    assert all(buffer.nbytes % GRID == 0 for buffer in buffers)
    for index, ((count, size), data, at) in enumerate(zip(records, datas, headers, strict=True)):
        scratch[at] = data[:1].nbytes and index + 1
        if tail := size % GRID:
            scratch[at + count * GRID : at + count * GRID + tail] = bytes([100 + index]) * tail
        data[: size - size % GRID] = bytes([100 + index]) * (size - size % GRID)
    whole, at = b"".join(buffers), 0
    for index, (count, size) in enumerate(records):
        assert whole[at] == (index + 1 if size else 0)
        at += count * GRID
        assert whole[at : at + size] == bytes([100 + index]) * size
        assert not any(whole[at + size : at + pages_of(size) * GRID])
        at += pages_of(size) * GRID
