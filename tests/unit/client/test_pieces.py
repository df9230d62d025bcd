"""Addresses, the caller's memory as bytes, tokens, and a lease's end, without a server."""

from __future__ import annotations

import array
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from zeekdb.client.address import Address
from zeekdb.client.buffers import THREAD_BYTES_MIN, copy_all, memory_of
from zeekdb.client.calls import BATCH_BYTES, BATCH_KEYS, _batches, tokens_of
from zeekdb.client.leases import Mapping, SyncLease, View, end_of
from zeekdb.errors import Unavailable


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("redis://h:7", Address("h", 7)),
        ("redis://h", Address("h", 6379)),
        ("redis://u:p%40@h:7", Address("h", 7, "", "u", "p@")),
        ("redis://:p@[::1]:7", Address("::1", 7, "", "", "p")),
        ("unix:///a/b.sock", Address(path="/a/b.sock")),
        ("unix://u:p@/a%20b", Address(path="/a b", user="u", password="p")),
        ("/a/b", Address(path="/a/b")),
        ("./b", Address(path="./b")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize("text", ["", "host", "http://h", "rediss://h", "unix://host/path", "redis://h:x"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError):
        Address.parse(text)


def test_signing_in_shows_no_password() -> None:
    address = Address.parse("redis://u:secret@h")
    assert address.sign_in() == [b"AUTH", b"u", b"secret"]
    assert Address.parse("redis://:secret@h").sign_in() == [b"AUTH", b"secret"]
    assert Address.parse("redis://h").sign_in() is None
    assert "secret" not in repr(address) + str(address)


@pytest.mark.parametrize(
    "buffer",
    [
        b"abcd", bytearray(b"abcd"), memoryview(b"abcd"), array.array("i", [1, 2]), np.arange(6, dtype=np.float16),
        np.arange(6.0).reshape(2, 3), np.array(3.0), np.zeros((0, 4)), b"", np.zeros(2, "<U3"), np.zeros(3, ">i4"),
        np.zeros(2, [("a", "u1"), ("b", "f4")]), np.array([True]),
    ],
)  # fmt: skip
def test_memory_is_the_buffers_bytes(buffer: Any) -> None:
    view = memory_of(buffer)
    assert (view.format, view.ndim, view.nbytes) == ("B", 1, len(bytes(view)))
    assert bytes(view) == (buffer.tobytes() if hasattr(buffer, "tobytes") else bytes(buffer))


def test_memory_is_written_in_place() -> None:
    array_ = np.zeros((2, 3), np.float16)
    memory_of(array_, writable=True)[:] = np.arange(6, dtype=np.float16).tobytes()
    assert array_.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_memory_that_does_not_do() -> None:
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    for bad in (b"abc", frozen, memoryview(bytearray(9))[::2], np.zeros((3, 3)).T, np.zeros(9)[::2]):
        with pytest.raises(ValueError):
            memory_of(bad, writable=True)
    with pytest.raises(TypeError):
        memory_of("text")


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.uint8):
        tensor = torch.zeros(4, 5, dtype=dtype)
        view = memory_of(tensor, writable=True)
        assert view.nbytes == tensor.numel() * tensor.element_size()
        view[:] = bytes(torch.ones(4, 5, dtype=dtype).view(torch.uint8).numpy().tobytes())
        assert bool((tensor == 1).all())
    with pytest.raises(ValueError):
        memory_of(torch.zeros(4, 5).T)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_copies_shared_by_threads(count: int) -> None:
    sizes = [0, 1, THREAD_BYTES_MIN // 2, 3 * THREAD_BYTES_MIN + 7, 5]
    chance = np.random.default_rng(1)
    sources = [chance.integers(0, 256, size, np.uint8) for size in sizes]
    targets = [np.zeros(size, np.uint8) for size in sizes]
    pairs = [(memory_of(target), memory_of(source)) for target, source in zip(targets, sources, strict=True)]
    with ThreadPoolExecutor(count) as pool:
        copy_all(pairs, pool if count > 1 else None, count)
    assert all((target == source).all() for target, source in zip(targets, sources, strict=True))


@pytest.mark.parametrize(
    "tokens", [b"\1\0\0\0\377\377\0\0", [1, 65535], (1, 65535), np.array([1, 65535]), np.array([1, 65535], np.uint16)]
)
def test_tokens(tokens: Any) -> None:
    assert tokens_of(tokens) == b"\1\0\0\0\377\377\0\0"


def test_tokens_have_32_bits() -> None:
    for bad in ([-1], [1 << 32]):
        with pytest.raises(OverflowError):
            tokens_of(bad)


def test_batches_hold_their_bounds_and_everything() -> None:
    block = memoryview(bytearray(BATCH_BYTES // 3))
    assert _batches([block] * 7) == [(0, 3), (3, 6), (6, 7)]
    assert _batches([memoryview(b"")] * (2 * BATCH_KEYS + 1)) == [
        (0, BATCH_KEYS), (BATCH_KEYS, 2 * BATCH_KEYS), (2 * BATCH_KEYS, 2 * BATCH_KEYS + 1),
    ]  # fmt: skip
    assert _batches([block, block], 1) == [(0, 1), (1, 2)]
    assert _batches([]) == []


def test_a_lease_is_given_back_once_and_not_after_its_end() -> None:
    given: list[Any] = []

    def give(keys: Any) -> int:
        given.append(keys)
        return len(keys)

    lease = SyncLease([b"a"], time.monotonic() + 60, give)
    assert lease.valid and lease.left_s > 0
    with lease:
        pass
    assert lease.unlock() == 0 and not lease.valid and lease.left_s == 0
    over = SyncLease([b"a"], time.monotonic() - 1, give)
    assert not over.valid and over.unlock() == 0
    assert given == [[b"a"]]


def test_a_lease_that_the_network_keeps_from_being_given_back() -> None:
    def fail(keys: Any) -> int:
        raise Unavailable("gone")

    with SyncLease([b"a"], time.monotonic() + 60, fail):
        pass


def test_the_clients_end_comes_before_the_servers() -> None:
    assert 100 < end_of(100, 5000) < 105
    assert 100 < end_of(100, 1) < 100.001


def test_a_view_of_memory_of_its_own() -> None:
    view = View(b"k", memoryview(np.arange(4, dtype=np.float32).tobytes()), None)
    assert view.valid and view.is_copy and view.nbytes == 16 and view.memory.readonly
    array_ = view.numpy(np.float32, (2, 2))
    assert array_.tolist() == [[0, 1], [2, 3]] and not array_.flags.writeable


def test_a_mapping_knows_its_bounds() -> None:
    with open("/dev/zero", "rb") as file, pytest.raises(Unavailable):
        Mapping(file.fileno(), 0, 1)
