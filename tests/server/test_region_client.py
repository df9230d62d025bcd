"""zeekdb.client against a real server: TCP, a Unix socket, shared memory, each blocking and with asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import ROOT, Server, Wire, free_port, wait_for
from zeekdb.client import AsyncRegion, Region
from zeekdb.client.calls import BATCH_KEYS
from zeekdb.errors import CommandError, OutOfRange, Unavailable

ARENA_BYTES = 64 << 20
FORMS = ("tcp", "unix", "attached")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that listens on both kinds of socket."""
    path = str(tmp_path_factory.mktemp("s") / "s")
    options = ("--kv-memory", str(ARENA_BYTES), "--kv-lease-max", "5000", "--unixsocket", path, "--save", "")
    with Server(*options) as server:
        server.path = path  # type: ignore[attr-defined]
        yield server
        assert "Traceback" not in server.log(), server.log()


def address(server: Server, form: str) -> str:
    return f"redis://127.0.0.1:{server.port}" if form == "tcp" else f"unix://{server.path}"  # type: ignore[attr-defined]


@pytest.fixture(params=FORMS)
def region(request: pytest.FixtureRequest, both: Server) -> Iterator[Region]:
    """A model of opaque blocks that is empty, in each way to reach it."""
    with Region(address(both, request.param), "m", timeout_s=10) as made:
        clean(both)
        if request.param == "attached":
            assert made.attach() >= ARENA_BYTES
        yield made


@pytest.fixture
def attached(both: Server) -> Iterator[Region]:
    with Region(address(both, "unix"), "m", timeout_s=10) as made:
        clean(both)
        made.attach()
        yield made


@pytest.fixture(params=FORMS)
async def aregion(request: pytest.FixtureRequest, both: Server) -> AsyncIterator[AsyncRegion]:
    async with AsyncRegion(address(both, request.param), "m", timeout_s=10) as made:
        clean(both)
        if request.param == "attached":
            assert await made.attach() >= ARENA_BYTES
        yield made


def clean(server: Server) -> None:
    with server.wire() as wire:
        for name in wire("KV.MODEL", "LIST"):
            wire("KV.MODEL", "DEL", name)
        assert wire("KV.MODEL", "SET", "m") == "OK"
        wait_for(lambda: used_bytes(server) == 0, what="what earlier tests had reserved is free")


def used_bytes(server: Server) -> int:
    with server.wire() as wire:
        host = wire("KV.TIERS")[0]
    fields = dict(zip(host[::2], host[1::2], strict=True))
    return int(fields[b"used_bytes"])


def blocks(count: int, size: int = 1000) -> tuple[list[str], list[bytes]]:
    chance = np.random.default_rng(count)
    return [f"k{at}" for at in range(count)], [chance.bytes(size) for _ in range(count)]


# ---------------------------------------------------------------- round trips


def test_bytes(region: Region) -> None:
    keys, values = blocks(5)
    assert region.put_from(keys, values) == [1] * 5
    assert region.put_from([*keys[3:], "new"], [*values[3:], b"n"], parent=keys[2]) == [0, 0, 1]
    assert region.get([*keys, "absent"]) == [*values, None]
    targets = [bytearray(1000) for _ in range(6)]
    assert region.get_into([*keys, "absent"], targets) == [True] * 5 + [False]
    assert targets[:5] == values
    assert region.delete([*keys, "absent"]) == 5
    assert region.get_into(keys, targets[:5]) == [False] * 5


def test_models_with_a_codec(region: Region) -> None:
    """What lies in the server's memory is encoded: the server decodes, attached or not."""
    region.declare(layers=1, heads=1, dim=64, dtype="f32", block=4, codec="fp16")
    values = [np.random.default_rng(at).integers(-9, 9, 512).astype(np.float32) for at in range(3)]  # fp16 has them all
    assert region.put_from(["a", "b", "c"], values) == [1, 1, 1]
    targets = [np.zeros_like(value) for value in values]
    assert region.get_into(["a", "b", "absent"], targets) == [True, True, False]
    assert all((target == value).all() for target, value in zip(targets[:2], values, strict=False))
    with region.views(["c", "absent"], 1000) as views:
        assert views[0] is not None and views[0].is_copy and views[1] is None
        assert (views[0].numpy(np.float32) == values[2]).all()
    assert region.unlock(["a", "b", "c"]) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_arrays(region: Region, dtype: Any) -> None:
    values = [np.arange(2 * 3 * 40_000 // at, dtype=dtype).reshape(2, -1) for at in (1, 2, 3)]
    assert region.put_from(["a", "b", "c"], values) == [1, 1, 1]
    targets = [np.zeros_like(value) for value in values]
    assert region.get_into(["a", "b", "c"], targets) == [True] * 3
    assert all((target == value).all() for target, value in zip(targets, values, strict=True))


def test_tensors(region: Region) -> None:
    torch = pytest.importorskip("torch")
    values = [torch.arange(600, dtype=torch.bfloat16).reshape(2, 300), torch.rand(70_000)]
    assert region.put_from(["a", "b"], values) == [1, 1]
    targets = [torch.zeros_like(value) for value in values]
    assert region.get_into(["a", "b"], targets) == [True, True]
    assert all(bool((target == value).all()) for target, value in zip(targets, values, strict=True))
    with region.views(["a"], 5000) as views:
        assert views[0] is not None
        assert bool((views[0].torch(torch.bfloat16, (2, 300)) == values[0]).all())


def test_blocks_larger_than_any_socket_buffer(region: Region) -> None:
    value = np.random.default_rng(0).integers(0, 256, 7 << 20, np.uint8)
    target = np.zeros_like(value)
    assert region.put_from(["big"], [value]) == [1]
    assert region.get_into(["big"], [target]) == [True] and (target == value).all()
    assert region.get(["big"]) == [value.tobytes()]


def test_empty_blocks_and_nothing_at_all(region: Region) -> None:
    assert region.put_from(["e", "f"], [b"", b"x"]) == [1, 1]
    assert region.get_into(["e", "f"], [bytearray(), bytearray(1)]) == [True, True]
    assert region.put_from([], []) == region.get_into([], []) == region.get([]) == []
    found = region.lookup([], 100)
    assert found.prefix == 0 and not len(found.present) and not found.lease.valid


def test_lookups(region: Region) -> None:
    keys, values = blocks(9)
    region.put_from(keys, values)
    region.delete([keys[4]])
    with region.lookup(keys, 5000) as found:
        assert found.prefix == 4
        assert found.present.dtype == bool and found.present.tolist() == [True] * 4 + [False] + [True] * 4
        assert found.tiers.tolist() == [2] * 4 + [0] + [2] * 4
        assert found.lease.valid and 4 < found.lease.left_s < 5
        assert len(found.lease.keys) == 8
    assert not found.lease.valid
    assert region.unlock(keys) == 0
    again = region.lookup(keys, 5000)
    assert again.lease.unlock() == 8 and again.lease.unlock() == 0
    assert not region.lookup(keys).lease.valid


def test_pins(region: Region) -> None:
    keys, values = blocks(3)
    region.put_from(keys, values)
    assert (region.pin([*keys, "absent"]), region.unpin(keys), region.unpin(keys)) == (3, 3, 0)


def test_salts_are_apart(both: Server, region: Region) -> None:
    region.put_from(["a"], [b"1"])
    with Region(address(both, "tcp"), "m", "other") as other:
        assert other.put_from(["a"], [b"2"]) == [1]
        assert other.get(["a"]) == [b"2"]
    assert region.get(["a"]) == [b"1"]


def test_lifetimes(both: Server, region: Region) -> None:
    region.put_from(["t", "u"], [b"1", b"2"], ttl=1000, group="g", parent="p")
    region.put_from(["v"], [b"1"])
    with both.wire() as wire:
        assert 990 < wire("KV.TTL", "m", "t") <= 1000 and wire("KV.TTL", "m", "v") == -1


def test_tokens(both: Server, region: Region) -> None:
    with Region(address(both, "tcp"), "laid", timeout_s=10) as other:
        other.declare(layers=2, heads=1, dim=4, dtype="f16", block=8)
    region._calls.model = b"laid"
    region._calls.salt = os.urandom(8)
    block_bytes = 2 * 2 * 8 * 1 * 4 * 2
    tokens = np.arange(20, dtype=np.uint32)  # two whole blocks
    tensor = np.random.default_rng(0).integers(0, 256, (2, block_bytes), np.uint8)
    assert region.store(tokens, tensor) == [1, 1]
    assert region.store(tokens, list(tensor)) == [0, 0]
    assert region.match(tokens.tolist(), 100) == (16, 2)
    assert region.fetch(tokens) == [tensor[0].tobytes(), tensor[1].tobytes()]
    into = np.zeros_like(tensor)
    assert region.fetch_into(tokens, list(into)) == 2 and (into == tensor).all()
    layers = region.fetch(tokens, (1, 2))
    assert layers[0] == tensor[0].reshape(2, 2, -1)[:, 1].tobytes()
    assert region.fetch_into(tokens + 1, list(into)) == 0
    with pytest.raises(CommandError):
        region.put_from(["a"], [b"no block"])


def test_many_keys_at_once(region: Region) -> None:
    count = 2 * BATCH_KEYS + 100
    keys = [f"k{at}" for at in range(count)]
    values = [b"%08d" % at for at in range(count)]
    assert region.put_from(keys, values) == [1] * count
    into = np.zeros(count, "S8")
    assert all(region.get_into(keys, [into[at : at + 1] for at in range(count)]))
    assert into.tolist() == values
    found = region.lookup([*keys, "absent"], 5000)
    assert found.prefix == count and found.present.sum() == count
    assert found.lease.unlock() == count
    assert region.delete(keys) == count


def test_what_finds_no_room_is_dropped_and_the_rest_is_whole(region: Region) -> None:
    value = np.random.default_rng(0).integers(0, 256, 4 << 20, np.uint8)
    keys = [f"k{at}" for at in range(24)]
    said = [region.put_from([key], [value])[0] for key in keys[:2]]
    region.pin(keys[:2])
    for at in range(2, 24):  # pinned as they come, so that none can go
        said += region.put_from([keys[at]], [value], parent=keys[at - 1])
        region.pin([keys[at]])
    assert said.count(1) >= 12 and said.count(-1) >= 4, said
    targets = [np.zeros_like(value) for _ in keys]
    assert region.get_into(keys, targets) == [each == 1 for each in said]
    assert all((target == value).all() for target, each in zip(targets, said, strict=True) if each == 1)


# ---------------------------------------------------------------- mistakes and failures


def test_wrong_sizes_leave_the_connection_fit(region: Region) -> None:
    keys, values = blocks(3, 100_000)
    region.put_from(keys, values)
    with pytest.raises(OutOfRange, match="block 1 has 100000 bytes, its buffer 8"):
        region.get_into(keys, [bytearray(100_000), bytearray(8), bytearray(100_000)])
    assert region.get(keys) == values
    with pytest.raises(ValueError):
        region.get_into(keys, [bytearray(1)])
    with pytest.raises(ValueError):
        region.get_into(keys[:1], [bytes(100_000)])
    assert region.unlock(keys) == 0


def test_the_servers_errors(region: Region) -> None:
    region._calls.model = b"undeclared"
    for call in (
        lambda: region.get(["a"]), lambda: region.get_into(["a"], [bytearray(1)]), lambda: region.lookup(["a"]),
        lambda: region.put_from(["a"], [b"x"]), lambda: region.delete(["a"]),
    ):  # fmt: skip
        with pytest.raises(CommandError, match="no such model"):
            call()
    with pytest.raises(CommandError, match="a lease is from"):
        region.lookup(["a"], 1 << 40)
    region._calls.model = b"m"
    assert region.put_from(["a"], [b"x"]) == [1]


def test_room_reserved_for_a_commit_that_fails_is_free_again(both: Server, attached: Region) -> None:
    attached._calls.model = b"undeclared"
    with pytest.raises(CommandError, match="no such model"):
        attached.put_from(["a"], [bytes(1 << 20)])
    wait_for(lambda: used_bytes(both) == 0)
    attached._calls.model = b"m"
    assert attached.put_from(["a"], [bytes(1 << 20)]) == [1]


def test_attaching_is_refused_over_tcp(both: Server) -> None:
    with Region(address(both, "tcp"), "m") as region:
        with pytest.raises(CommandError, match="Unix socket"):
            region.attach()
        assert region.put_from(["tcp"], [b"x"])[0] in (0, 1)


def test_a_server_that_goes_while_it_hands_its_memory_over(tmp_path: Path) -> None:
    """The descriptor has come, the reply is torn: nothing stays open."""
    path = str(tmp_path / "s")
    with socket.create_server(path, family=socket.AF_UNIX) as torn:

        def serve() -> None:
            for _ in range(2):
                peer, _ = torn.accept()
                with peer:
                    assert b"KV.ATTACH" in peer.recv(100)
                    socket.send_fds(peer, [b"*2\r\n:1"], [torn.fileno()])

        async def attach() -> None:
            async with AsyncRegion(path, "m") as region:
                await region.attach()

        server = threading.Thread(target=serve)
        server.start()
        with Region(path, "m") as region, pytest.raises(Unavailable):
            region.attach()
        with pytest.raises(Unavailable):
            asyncio.run(attach())
        server.join()
        assert times_open(torn.fileno()) == 1


def times_open(fd: int) -> int:
    """How many descriptors this process has of the same file."""
    found = []
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{each}"))
    return found.count(os.readlink(f"/proc/self/fd/{fd}"))


def test_nobody_listens() -> None:
    for text in (f"redis://127.0.0.1:{free_port()}", "/nowhere/s"):
        with Region(text, "m") as region, pytest.raises(Unavailable):
            region.lookup(["a"])


def test_a_server_that_says_nothing() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Region(f"redis://127.0.0.1:{silent.getsockname()[1]}", "m", timeout_s=0.05) as region,
        pytest.raises(Unavailable, match="timed out"),
    ):
        region.get(["a"])


async def test_a_server_that_says_nothing_to_a_task() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with AsyncRegion(f"redis://127.0.0.1:{silent.getsockname()[1]}", "m", timeout_s=0.05) as region:
            with pytest.raises(Unavailable, match="timed out"):
                await region.get(["a"])


def test_passwords(start_server: Callable[..., Server]) -> None:
    server = start_server("--requirepass", "se cret")
    with Region(f"redis://:se%20cret@127.0.0.1:{server.port}", "m") as region:
        region.declare()
        assert region.put_from(["a"], [b"x"]) == [1]
    with Region(f"redis://default:wrong@127.0.0.1:{server.port}", "m") as region, pytest.raises(CommandError):
        region.get(["a"])
    with Region(f"redis://127.0.0.1:{server.port}", "m") as region, pytest.raises(CommandError, match="NOAUTH"):
        region.get(["a"])


@pytest.mark.parametrize("form", FORMS)
def test_a_server_that_starts_again(form: str, start_server: Callable[..., Server], tmp_path: Any) -> None:
    port, path = free_port(), str(tmp_path / "s")
    options = ("--kv-memory", str(ARENA_BYTES), "--unixsocket", path)
    first = start_server(*options, port=port)
    with Region(f"redis://127.0.0.1:{port}" if form == "tcp" else path, "m", timeout_s=10) as region:
        region.declare()
        if form == "attached":
            region.attach()
        region.put_from(["a"], [b"abc"])
        views = region.views(["a"], 5000)
        first.terminate(signal.SIGKILL)
        assert views[0] is not None and bytes(views[0].memory) == b"abc"  # no longer anybody's, but still there
        with pytest.raises(Unavailable):
            region.get_into(["a"], [bytearray(3)])
        start_server(*options, port=port)
        region.declare()
        assert region.get_into(["a"], [bytearray(3)]) == [False]
        assert region.put_from(["a"], [b"xyz"]) == [1]
        target = bytearray(3)
        assert region.get_into(["a"], [target]) == [True] and target == b"xyz"
        assert (region._link is not None and region._link.mapping is not None) == (form == "attached")


def test_a_connection_that_the_server_has_ended(both: Server, region: Region) -> None:
    region.put_from(["a"], [b"abc"])
    kill_clients(both)
    target = bytearray(3)
    assert region.get_into(["a"], [target]) == [True] and target == b"abc"
    kill_clients(both)
    assert region.put_from(["b"], [b"x"]) == [1]
    kill_clients(both)
    with pytest.raises(Unavailable):
        region.pin(["a"])  # twice would count twice
    assert region.pin(["a"]) == 1


def kill_clients(server: Server) -> None:
    with server.wire() as wire:
        wire("CLIENT", "KILL", "TYPE", "normal")


def test_threads_take_turns(region: Region) -> None:
    failures: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for turn in range(20):
                key, value = f"{name}:{turn}", bytes([name]) * 50_000
                assert region.put_from([key], [value]) == [1]
                target = bytearray(50_000)
                assert region.get_into([key], [target]) == [True] and target == value
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ---------------------------------------------------------------- shared memory


def test_views_show_the_servers_memory(attached: Region) -> None:
    value = np.arange(300_000, dtype=np.float32)
    attached.put_from(["a"], [value])
    with attached.views(["a", "absent"], 5000) as views:
        view = views[0]
        assert view is not None and views[1] is None
        assert view.valid and not view.is_copy and view.nbytes == value.nbytes
        assert (view.numpy(np.float32, (3, -1)) == value.reshape(3, -1)).all()
        with pytest.raises(ValueError):
            view.numpy()[0] = 1
    assert not view.valid
    assert attached.unlock(["a"]) == 0


def test_a_view_ends_with_its_lease(attached: Region) -> None:
    attached.put_from(["a"], [b"x"])
    view = attached.views(["a"], 40)[0]
    assert view is not None and view.valid
    wait_for(lambda: not view.valid)


def test_views_without_shared_memory_are_copies(both: Server) -> None:
    with Region(address(both, "tcp"), "m") as region:
        region.put_from(["copied"], [b"xyz"])
        with region.views(["copied", "absent"], 1000) as views:
            assert views[0] is not None and views[0].is_copy and bytes(views[0].memory) == b"xyz" and views[1] is None


def disturb(region: Region, act: Callable[[], object]) -> list[int]:
    """Does `act` at each copy out of or into shared memory, after the bytes were copied; how many there were."""
    copies: list[int] = []
    copy = region._calls.copy

    def disturbed(pairs: Any, *more: Any) -> None:
        copy(pairs, *more)
        copies.append(len(pairs))
        act()

    region._calls.copy = disturbed
    return copies


def test_a_lease_that_ends_while_copying(attached: Region) -> None:
    keys, values = blocks(3)
    attached.put_from(keys, values)
    begin = time.monotonic()
    copies = disturb(attached, lambda: wait_for(lambda: time.monotonic() > begin + 0.1))
    targets = [bytearray(1000) for _ in keys]
    said: list[bytes] = []
    exchange = attached._exchange

    def heard(step: Any) -> Any:
        said.append(step.words[0])
        return exchange(step)

    attached._exchange = heard  # type: ignore[method-assign]
    assert attached.get_into(keys, targets, lease_ms=20) == [True] * 3
    assert targets == values and copies == [3]
    assert said == [b"KV.LOOKUP", b"KV.MGET"]


def test_blocks_that_go_while_copying(both: Server, attached: Region) -> None:
    keys, values = blocks(3)
    attached.put_from(keys, values)

    def replace() -> None:
        with both.wire() as wire:
            assert wire("KV.DEL", "m", 2, keys[0], keys[1]) == 2
            assert wire("KV.MSET", "m", 1, keys[1], b"z" * 1000) == [1]

    disturb(attached, replace)
    targets = [bytearray(1000) for _ in keys]
    assert attached.get_into(keys, targets) == [False, True, True]
    assert targets[1:] == [b"z" * 1000, values[2]]


def test_a_connection_that_breaks_while_copying(both: Server, attached: Region) -> None:
    keys, values = blocks(3)
    broken = disturb(attached, lambda: kill_clients(both))
    assert attached.put_from(keys, values) == [1] * 3
    targets = [bytearray(1000) for _ in keys]
    assert attached.get_into(keys, targets) == [True] * 3
    assert targets == values and broken == [3, 3]


def test_a_copy_that_fails_leaves_nothing_reserved(both: Server, attached: Region) -> None:
    def fail() -> None:
        raise MemoryError

    disturb(attached, fail)
    with pytest.raises(MemoryError):
        attached.put_from(["a"], [bytes(1 << 20)])
    wait_for(lambda: used_bytes(both) == 0)


DIES = """
import os, sys
from zeekdb.client import Region
region = Region(sys.argv[1], "m")
region.attach()
def die(pairs, *more):
    print(len(pairs), flush=True)
    sys.stdin.read()
region._calls.copy = die
region.put_from(["a", "b"], [bytes(1 << 20), bytes(1 << 20)])
"""


def test_what_a_killed_client_had_reserved_is_free_again(both: Server, attached: Region) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", DIES, both.path],  # type: ignore[attr-defined]
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert child.stdin and child.stdout
    with child.stdin, child.stdout:
        assert child.stdout.readline() == b"2\n"
        assert used_bytes(both) >= 2 << 20
        child.kill()
        child.wait()
    wait_for(lambda: used_bytes(both) == 0)


def test_blocks_on_the_ssd_come_through_the_socket(start_server: Callable[..., Server], tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    options = ("--kv-ssd-path", str(tmp_path / "ssd"), "--kv-ssd-size", "256mb", "--kv-ssd-uses", "1")
    start_server("--kv-memory", str(ARENA_BYTES), "--unixsocket", path, *options)
    with Region(path, "m", timeout_s=20) as region, Wire(path) as wire:
        region.declare()
        region.attach()
        values = [np.full(1 << 20, at, np.uint8) for at in range(6)]
        keys = [f"k{at}" for at in range(6)]
        assert region.put_from(keys, values) == [1] * 6

        def is_below() -> bool:
            wire("KV.DEMOTE", "m", 3, *keys[:3])
            return region.lookup(keys).tiers.tolist() == [3] * 3 + [2] * 3

        wait_for(is_below)
        with region.views([*keys, "absent"], 5000) as views:
            assert [view is None or view.is_copy for view in views] == [True] * 3 + [False] * 3 + [True]
            assert all((view.numpy() == at).all() for at, view in enumerate(views) if view is not None)
        wait_for(is_below)
        targets = [np.zeros(1 << 20, np.uint8) for _ in keys]
        assert all(region.get_into(keys, targets))
        assert all((target == at).all() for at, target in enumerate(targets))


# ---------------------------------------------------------------- asyncio


async def test_async_round_trip(aregion: AsyncRegion) -> None:
    values = [np.random.default_rng(at).integers(0, 256, size, np.uint8) for at, size in enumerate((1, 1000, 5 << 20))]
    keys = ["a", "b", "c"]
    assert await aregion.put_from(keys, values) == [1] * 3
    targets = [np.zeros_like(value) for value in values]
    assert await aregion.get_into(keys, targets) == [True] * 3
    assert all((target == value).all() for target, value in zip(targets, values, strict=True))
    assert await aregion.get(["b", "absent"]) == [values[1].tobytes(), None]
    async with await aregion.lookup([*keys, "absent"], 5000) as found:
        assert found.prefix == 3 and found.lease.valid
    async with await aregion.views([*keys, "absent"], 5000) as views:
        assert views[3] is None
        assert views[2] is not None and (views[2].numpy() == values[2]).all()
    assert await aregion.unlock(keys) == 0
    assert (await aregion.pin(keys), await aregion.unpin(keys), await aregion.delete(keys)) == (3, 3, 3)


async def test_async_errors(aregion: AsyncRegion) -> None:
    await aregion.put_from(["a"], [b"abc"])
    with pytest.raises(OutOfRange):
        await aregion.get_into(["a"], [bytearray(8)])
    aregion._calls.model = b"undeclared"
    with pytest.raises(CommandError, match="no such model"):
        await aregion.put_from(["a"], [b"abc"])
    aregion._calls.model = b"m"
    assert await aregion.get(["a"]) == [b"abc"]


async def test_async_tokens(both: Server) -> None:
    async with AsyncRegion(address(both, "tcp"), "alaid", os.urandom(4)) as region:
        await region.declare(layers=1, heads=1, dim=2, dtype="f16", block=4)
        tensor = np.arange(64, dtype=np.uint8)
        assert await region.store([1, 2, 3, 4, 5], tensor[:32]) == [1]
        assert await region.match([1, 2, 3, 4, 5]) == (4, 1)
        assert await region.fetch([1, 2, 3, 4]) == [tensor[:32].tobytes()]
        assert await region.fetch_into([1, 2, 3, 4], [bytearray(32)]) == 1


async def test_tasks_take_turns_and_the_loop_goes_on(aregion: AsyncRegion) -> None:
    value = np.random.default_rng(0).integers(0, 256, 4 << 20, np.uint8)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def work(name: int) -> None:
        target = np.zeros_like(value)
        assert await aregion.put_from([f"{name}"], [value]) == [1]
        assert await aregion.get_into([f"{name}"], [target]) == [True] and (target == value).all()

    counting = asyncio.create_task(count())
    await asyncio.gather(*(work(name) for name in range(4)))
    counting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await counting
    assert turns > 8


async def test_a_cancelled_call_leaves_a_region_that_works(aregion: AsyncRegion) -> None:
    value = np.ones(8 << 20, np.uint8)
    await aregion.put_from(["a"], [value])
    target = np.zeros_like(value)
    for turns in range(6):
        call = asyncio.create_task(aregion.get_into(["a"], [target]))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        assert await aregion.get_into(["a"], [target]) == [True] and (target == value).all()
        target[:] = 0
