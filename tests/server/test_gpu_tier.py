"""The GPU tier over the wire: on its twin, on a stand-in for CuPy, and, marked `gpu`, on a GPU."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.contract.devices import gpu
from tests.support import ROOT, ZEEKDB, Failure, Server, Wire, wait_for
from zeekdb.tensors.device import HostAttachment, Place, places_of

BLOCK = 2 * 4 * 16 * 4 * 64 * 2  # bytes: 64 KiB
LAYOUT = ("LAYERS", 4, "HEADS", 4, "DIM", 64, "DTYPE", "f16", "BLOCK", 16)
SLOTS = 8
HOST_BLOCKS = 32
DEVICE, HOST, SSD = 1, 2, 3
FAKE = """
import os
from tests.contract import fake_cupy
fake_cupy.install()
from zeekdb.cli import server_main
try:
    server_main()
finally:
    if fake_cupy.runtime.memory or fake_cupy.runtime.locked:
        os._exit(9)  # something was not given back
"""
MEMORY = ("--kv-memory", str(HOST_BLOCKS * BLOCK), "--kv-watermark", "100", "--save", "")
COMMON = (*MEMORY, "--kv-gpu", "m", str(SLOTS * BLOCK))


def start(kind: str, *more: str) -> Server:
    if kind == "fake CuPy":
        return Server(*COMMON, *more, program=(sys.executable, "-c", FAKE), unix=True)
    return Server(*COMMON, *more, "--kv-gpu-twin", "yes" if kind == "twin" else "no", program=ZEEKDB, unix=True)


KINDS = ["twin", "fake CuPy", pytest.param("gpu", marks=gpu)]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with start(request.param) as made:
        made.kind = request.param  # type: ignore[attr-defined]
        yield made
        assert made.terminate() == 0
        assert "Traceback" not in made.log(), made.log()


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    """A connection to a server whose model `m` is empty, its slots all free."""
    with server.wire() as made:
        declare(made)
        yield made


def declare(wire: Wire, *more: Any, name: str = "m") -> None:
    wire("KV.MODEL", "DEL", name)
    assert wire("KV.MODEL", "SET", name, *LAYOUT, *more) == "OK"
    wait_for(lambda: row(wire)["state"] == b"ok" and row(wire)["slots"] == SLOTS, what="the slots are open")
    assert row(wire)["blocks"] == 0


def fields(flat: list[Any]) -> dict[str, Any]:
    names = [name if isinstance(name, str) else name.decode() for name in flat[::2]]
    return dict(zip(names, flat[1::2], strict=True))


def row(wire: Wire, name: bytes = b"gpu") -> dict[str, Any]:
    """The tier's line of KV.TIERS."""
    return next(each for each in map(fields, wire("KV.TIERS")) if each["name"] == name)


def stats(wire: Wire) -> dict[str, Any]:
    return fields(wire("KV.STATS", "m"))


def block(seed: Any) -> bytes:
    return np.random.default_rng(abs(hash(seed))).bytes(BLOCK)


def put(wire: Wire, *keys: str) -> list[int]:
    return wire("KV.MSET", "m", len(keys), *(word for key in keys for word in (key, block(key))))


def tiers(wire: Wire, *keys: str) -> list[int]:
    """Where they are, without a use."""
    return list(wire("KV.LOOKUP", "m", len(keys), *keys)[2])


def heat(wire: Wire, *keys: str) -> None:
    """Uses the blocks until the device has them."""

    def is_there() -> bool:
        return tiers(wire, *keys) == [DEVICE] * len(keys)

    wait_for(is_there, what=f"{keys} on the device")


def push_out(wire: Wire, count: int = 4 * HOST_BLOCKS) -> None:
    """Stores so many others that host memory forgets what was there."""
    for at in range(count):
        wire("KV.MSET", "m", "SALT", "others", 1, f"filler{at}", block("filler"))


# ---------------------------------------------------------------- up


def test_a_hot_block_goes_up(wire: Wire) -> None:
    assert put(wire, "a", "b", "c") == [1, 1, 1]
    assert tiers(wire, "a", "b", "c", "d") == [HOST, HOST, HOST, 0]  # the first use
    heat(wire, "a", "b")
    assert wire("KV.MGET", "m", 2, "a", "b") == [block("a"), block("b")]
    found = row(wire)
    assert found["blocks"] >= 2 and found["promotions"] >= 2 and found["write_bytes"] == found["promotions"] * BLOCK
    assert found["demotions"] == 0 and float(found["write_p99_us"]) > 0
    hits = stats(wire)["gpu_hits"]
    tiers(wire, "a", "b")
    assert stats(wire)["gpu_hits"] == hits + 2
    info = wire("INFO", "tensors").decode()
    assert "gpu_promoted=" in info and "tier_gpu:state=ok" in wire("INFO", "tiers").decode()


def test_few_uses_are_no_heat(wire: Wire) -> None:
    put(wire, "cold", "hot")
    tiers(wire, "cold")
    heat(wire, "hot")  # what was asked for earlier would have come by then
    assert wire("KV.LOOKUP", "m", 1, "cold")[2] == bytes([HOST])


def test_prefetch_to_the_gpu(wire: Wire) -> None:
    put(wire, "a", "b")
    assert wire("KV.PREFETCH", "m", "GPU", 3, "a", "b", "absent") == 2
    wait_for(lambda: row(wire)["blocks"] == 2)
    assert wire("KV.PREFETCH", "m", "GPU", 2, "a", "b") == 0


def test_another_size_stays(wire: Wire) -> None:
    half = block("x")[: BLOCK // 8]
    assert wire("KV.PUT", "m", "s", 0, 0, 16, half, half) > 0
    for _ in range(5):
        assert [bytes(piece[3]) for piece in wire("KV.GET", "m", "s", 0, 0, 16)] == [half]
    put(wire, "a")
    heat(wire, "a")
    assert row(wire)["blocks"] == 1


# ---------------------------------------------------------------- down


def test_what_host_memory_forgets_is_served_from_the_device(wire: Wire) -> None:
    put(wire, "a", "b", "c")
    heat(wire, "a", "b")
    wire("KV.MODEL", "GET", "m")
    push_out(wire)
    assert wire("KV.LOOKUP", "m", 3, "a", "b", "c")[2] == bytes([DEVICE, DEVICE, 0])
    demotions = row(wire)["demotions"]
    assert wire("KV.MGET", "m", 3, "b", "c", "a") == [block("b"), None, block("a")]
    assert row(wire)["demotions"] == demotions + 2
    assert wire("KV.MGET", "m", 2, "a", "b") == [block("a"), block("b")]
    assert row(wire)["demotions"] == demotions + 2  # they were in host memory again
    assert stats(wire)["gpu_blocks"] == 2


def test_inside_multi_nothing_waits(wire: Wire) -> None:
    put(wire, "a")
    heat(wire, "a")
    push_out(wire)
    wire("MULTI")
    wire("KV.MGET", "m", 1, "a")
    assert wire("EXEC") == [[None]]
    assert wire("KV.MGET", "m", 1, "a") == [block("a")]


def test_served_although_host_memory_has_no_room(wire: Wire) -> None:
    put(wire, "a")
    heat(wire, "a")
    push_out(wire)
    names = [f"p{at}" for at in range(HOST_BLOCKS)]
    said = [put(wire, name)[0] for name in names]
    kept = [name for name, each in zip(names, said, strict=True) if each == 1]
    assert wire("KV.PIN", "m", len(kept), *kept) >= 1
    while (more := put(wire, f"q{len(kept)}")[0]) == 1:
        kept.append(f"q{len(kept)}")
        wire("KV.PIN", "m", 1, kept[-1])
    assert more == -1
    assert wire("KV.LOOKUP", "m", 1, "a")[2] == bytes([DEVICE])
    for _ in range(2):
        assert wire("KV.MGET", "m", 1, "a") == [block("a")]
    assert wire("KV.LOOKUP", "m", 1, "a")[2] == bytes([DEVICE])


def test_demote(wire: Wire) -> None:
    put(wire, "a", "b")
    heat(wire, "a", "b")
    assert wire("KV.DEMOTE", "m", 1, "a") == 1  # host memory has it: at once
    assert tiers(wire, "a") == [HOST]
    push_out(wire)
    assert wire("KV.DEMOTE", "m", 2, "b", "absent") == 1  # it has to be copied first
    wait_for(lambda: wire("KV.LOOKUP", "m", 1, "b")[2] == bytes([HOST]))
    assert wire("KV.MGET", "m", 1, "b") == [block("b")]


def test_stored_again_it_is_in_both(wire: Wire) -> None:
    put(wire, "a")
    heat(wire, "a")
    push_out(wire)
    assert put(wire, "a") == [0]
    demotions = row(wire)["demotions"]
    assert wire("KV.MGET", "m", 1, "a") == [block("a")] and row(wire)["demotions"] == demotions
    assert wire("KV.DEMOTE", "m", 1, "a") == 1
    assert wire("KV.LOOKUP", "m", 1, "a")[2] == bytes([HOST])
    push_out(wire)
    assert wire("KV.LOOKUP", "m", 1, "a")[2] == b"\0"  # host memory could forget it again


# ---------------------------------------------------------------- slots


def test_slots_recycle_and_the_oldest_goes(wire: Wire) -> None:
    names = [f"r{at}" for at in range(3 * SLOTS)]
    for name in names:
        put(wire, name)
        heat(wire, name)
        assert row(wire)["blocks"] <= SLOTS
    on_device = [name for name in names if wire("KV.LOOKUP", "m", 1, name)[2] == bytes([DEVICE])]
    assert on_device == names[-SLOTS:]
    assert wire("KV.MGET", "m", SLOTS, *on_device) == [block(name) for name in on_device]


def test_an_only_copy_is_brought_down_before_its_slot_goes(wire: Wire) -> None:
    names = [f"o{at}" for at in range(SLOTS)]
    put(wire, *names)
    heat(wire, *names)
    push_out(wire)
    assert wire("KV.LOOKUP", "m", SLOTS, *names)[2] == bytes([DEVICE] * SLOTS)
    put(wire, "new")
    heat(wire, "new")
    assert wire("KV.LOOKUP", "m", SLOTS, *names)[0] == SLOTS  # nothing was lost
    assert wire("KV.MGET", "m", SLOTS, *names) == [block(name) for name in names]


def test_what_is_leased_or_pinned_keeps_its_slot(wire: Wire) -> None:
    names = [f"l{at}" for at in range(SLOTS)]
    put(wire, *names)
    heat(wire, *names)
    half = SLOTS // 2
    wire("KV.LOOKUP", "m", "LEASE", 600_000, half, *names[:half])
    assert wire("KV.PIN", "m", half, *names[half:]) == half
    put(wire, "more")
    refused = row(wire)["refused"]
    for _ in range(4):
        tiers(wire, "more")
    wait_for(lambda: row(wire)["refused"] > refused, what="there was no slot")
    assert wire("KV.LOOKUP", "m", SLOTS, *names)[2] == bytes([DEVICE] * SLOTS)
    assert wire("KV.DEMOTE", "m", SLOTS, *names) == 0
    assert wire("KV.UNLOCK", "m", 1, names[1]) == 1
    heat(wire, "more")
    assert list(wire("KV.LOOKUP", "m", SLOTS, *names)[2]).count(DEVICE) == SLOTS - 1
    assert tiers(wire, names[1]) == [HOST]


def test_leases_hold_what_the_device_alone_has(wire: Wire) -> None:
    put(wire, "a")
    heat(wire, "a")
    push_out(wire)
    assert wire("KV.LOOKUP", "m", "LEASE", 600_000, 1, "a")[2] == bytes([DEVICE])
    names = [f"x{at}" for at in range(2 * SLOTS)]
    for name in names:
        put(wire, name)
        heat(wire, name)
    assert wire("KV.LOOKUP", "m", 1, "a")[2] == bytes([DEVICE])
    assert wire("KV.UNLOCK", "m", 1, "a") == 1


def test_whatever_removes_a_block_frees_its_slot(wire: Wire) -> None:
    put(wire, "a", "b")
    wire("KV.MSET", "m", "SALT", "s", 1, "a", block("other"))
    heat(wire, "a", "b")
    assert row(wire)["blocks"] == 2
    assert wire("KV.DEL", "m", 1, "a") == 1
    assert row(wire)["blocks"] == 1 and tiers(wire, "a", "b") == [0, DEVICE]
    wire("KV.MSET", "m", "TTL", 1, 1, "t", block("t"))
    for _ in range(3):
        tiers(wire, "t")
    wait_for(lambda: tiers(wire, "t") == [0], what="it has expired")
    wait_for(lambda: row(wire)["blocks"] == 1, what="it was swept")
    push_out(wire)
    assert wire("KV.DEL", "m", 1, "b") == 1  # the device alone had it
    assert row(wire)["blocks"] == 0
    names = [f"n{at}" for at in range(SLOTS)]
    put(wire, *names)
    heat(wire, *names)  # all slots are there to be had
    assert row(wire)["blocks"] == SLOTS
    declare(wire)
    assert wire("KV.LOOKUP", "m", 1, names[0])[2] == b"\0"


def test_groups_stay_whole(wire: Wire) -> None:
    """A mate that no slot fits stays in host memory with what the device has, or both go."""
    assert wire("KV.MODEL", "LIST") == [b"m"]
    half = block("x")[: BLOCK // 8]
    said = wire("KV.PUT", "m", "seq", 0, 0, 16, half, half)
    assert said > 0
    wire("KV.MSET", "m", "GROUP", "g", 2, "a", block("a"), "b", block("b"))
    heat(wire, "a", "b")
    assert wire("KV.DEMOTE", "m", 1, "b") == 1
    assert wire("KV.LOOKUP", "m", 2, "a", "b")[2] in (bytes([DEVICE, HOST]), bytes([DEVICE, DEVICE]))
    push_out(wire)
    found = wire("KV.MGET", "m", 2, "a", "b")
    assert found in ([block("a"), block("b")], [None, None])


# ---------------------------------------------------------------- attached


def read(server: Server, reply: dict[str, Any], places: list[Place]) -> list[bytes]:
    """Slots read in place: on a GPU, in another process."""
    if server.kind == "gpu":  # type: ignore[attr-defined]
        program = (
            "import json, sys, cupy; from zeekdb.tensors.device import Place; "
            "from zeekdb.tensors.device_cupy import CupyAttachment; seen = CupyAttachment(); found = []\n"
            "for handle, offset, size in json.load(sys.stdin):\n"
            "    out = cupy.empty(size, cupy.uint8); seen.read(Place(bytes.fromhex(handle), offset, size), out)\n"
            "    found.append(out.get().tobytes().hex())\n"
            "print(json.dumps(found)); seen.close()"
        )
        told = json.dumps([(place.handle.hex(), place.offset, place.size) for place in places])
        out = subprocess.run([sys.executable, "-c", program], input=told, capture_output=True, text=True, cwd=ROOT)
        assert out.returncode == 0, out.stderr
        return [bytes.fromhex(each) for each in json.loads(out.stdout)]
    attachment = HostAttachment()
    found = []
    for place in places:
        out = np.empty(place.size, np.uint8)
        attachment.read(place, out)
        found.append(out.tobytes())
    attachment.close()
    return found


def test_attached_clients_read_slots_in_place(server: Server, wire: Wire) -> None:
    put(wire, "a", "b", "c")
    heat(wire, "a", "c")
    wire("KV.DEMOTE", "m", 1, "b")
    push_out(wire, 1)
    refused = wire("KV.LOOKUP", "m", "LEASE", 1000, "LOCATE", 1, "a")
    assert isinstance(refused, Failure) and "KV.ATTACH" in refused
    assert isinstance(wire("KV.ATTACH", "GPU", "none"), Failure)
    assert isinstance(wire("KV.ATTACH", "GPU"), Failure)
    reply = fields(wire("KV.ATTACH", "GPU", "m"))
    assert reply["kind"] == (b"twin" if server.kind == "twin" else b"cuda")  # type: ignore[attr-defined]
    assert (reply["slot-bytes"], reply["slots"], reply["codec"], reply["device"]) == (BLOCK, SLOTS, b"raw", 0)
    found = wire("KV.LOOKUP", "m", "LEASE", 60_000, "LOCATE", 4, "a", "b", "c", "absent")
    assert len(found) == 5 and found[3] == b""  # host memory is not attached
    places = places_of(reply["handles"], found[4])
    assert [place is not None for place in places] == [tier == DEVICE for tier in found[2]]
    there = [(key, place) for key, place in zip("abc", places, strict=False) if place is not None]
    assert {"a", "c"} <= {key for key, _ in there}
    assert read(server, reply, [place for _, place in there]) == [block(key) for key, _ in there]
    assert wire("KV.UNLOCK", "m", 3, "a", "b", "c") == 3
    declare(wire)  # the slabs are others now: nothing is where the client looks
    put(wire, "a")
    heat(wire, "a")
    assert fields(wire("KV.STATS"))["attached_gpu_clients"] == 1
    with server.wire() as other:
        other("KV.ATTACH", "GPU", "m")
        assert fields(wire("KV.STATS"))["attached_gpu_clients"] == 2
    wait_for(lambda: fields(wire("KV.STATS"))["attached_gpu_clients"] == 1)
    stale = wire("KV.LOOKUP", "m", "LEASE", 1000, "LOCATE", 1, "a")
    assert places_of([], stale[4]) == [None]


def test_codecs_keep_slots_small(server: Server, wire: Wire) -> None:
    from zeekdb.tensors.codecs import for_model
    from zeekdb.tensors.layout import Layout

    wire("KV.MODEL", "DEL", "m")
    wire("KV.MODEL", "SET", "m", *LAYOUT, "CODEC", "fp8")
    wait_for(lambda: row(wire)["state"] == b"ok" and row(wire)["slots"] == 2 * SLOTS)
    numbers = np.random.default_rng(0).standard_normal((2, BLOCK // 2)).astype("<f2")
    values = {key: each.tobytes() for key, each in zip("ab", numbers, strict=True)}
    wire("KV.MSET", "m", 2, "a", values["a"], "b", values["b"])
    heat(wire, "a", "b")
    before = wire("KV.MGET", "m", 1, "a")[0]
    reply = fields(wire("KV.ATTACH", "GPU", "m"))
    assert reply["codec"] == b"fp8" and reply["slot-bytes"] == BLOCK // 2
    found = wire("KV.LOOKUP", "m", "LEASE", 60_000, "LOCATE", 1, "a")
    (place,) = places_of(reply["handles"], found[4])
    assert place is not None
    encoded = np.frombuffer(read(server, reply, [place])[0], np.uint8)
    decoded = np.empty(BLOCK, np.uint8)
    for_model("fp8", Layout(4, 4, 64, "f16", 16)).decode(encoded, decoded)
    assert decoded.tobytes() == before
    wire("KV.UNLOCK", "m", 1, "a")
    push_out_encoded(wire)
    assert wire("KV.MGET", "m", 1, "a") == [before]


def push_out_encoded(wire: Wire) -> None:
    value = np.zeros(BLOCK // 2, "<f2").tobytes()
    for at in range(8 * HOST_BLOCKS):
        wire("KV.MSET", "m", "SALT", "others", 1, f"filler{at}", value)


def test_only_over_the_unix_socket() -> None:
    with Server(*COMMON, "--kv-gpu-twin", "yes") as server, server.wire() as wire:
        declare(wire)
        assert isinstance(wire("KV.ATTACH", "GPU", "m"), Failure)


# ---------------------------------------------------------------- everything at once


@pytest.mark.parametrize("seed", range(3))
def test_many_random_operations(server: Server, wire: Wire, seed: int) -> None:
    """A key has one value for ever: whatever is answered is that, or nothing."""
    chance = random.Random(seed)
    names = [f"z{at}" for at in range(3 * HOST_BLOCKS)]
    values = {name: block((seed, name)) for name in names}
    hot = names[: 2 * SLOTS]
    deleted: set[str] = set()
    with server.wire() as other:
        for _ in range(600):
            some = chance.sample(hot if chance.random() < 0.7 else names, chance.randint(1, 4))
            what = chance.random()
            speaker = chance.choice((wire, other))
            if what < 0.3:
                pairs = [word for name in some for word in (name, values[name])]
                assert set(speaker("KV.MSET", "m", len(some), *pairs)) <= {0, 1, -1}
                deleted -= set(some)
            elif what < 0.6:
                found = speaker("KV.MGET", "m", len(some), *some)
                assert all(it in (None, values[name]) for name, it in zip(some, found, strict=True)), "wrong bytes"
                assert all(it is None for name, it in zip(some, found, strict=True) if name in deleted)
            elif what < 0.75:
                found = speaker("KV.LOOKUP", "m", "LEASE", chance.choice((1, 20)), len(some), *some)[2]
                assert all(tier == 0 for name, tier in zip(some, found, strict=True) if name in deleted)
            elif what < 0.8:
                speaker("KV.DEL", "m", len(some), *some)
                deleted |= set(some)
            elif what < 0.85:
                speaker("KV.DEMOTE", "m", len(some), *some)
            elif what < 0.95:
                speaker("KV.PREFETCH", "m", "GPU", len(some), *some)
            else:
                speaker("KV.PIN", "m", 1, some[0])
                speaker("KV.UNPIN", "m", 1, some[0])
            assert row(wire)["blocks"] <= SLOTS
    assert row(wire)["promotions"] > 0 and row(wire)["corrupt"] == 0 and row(wire)["error"] == b""
    wire("KV.DEL", "m", len(names), *names)
    wait_for(lambda: row(wire)["blocks"] == 0 and stats(wire)["blocks"] == 0, what="no block is left anywhere")
    wait_for(lambda: row(wire, b"host")["used_bytes"] == 0, what="nobody holds host memory")


def test_model_del_while_copies_are_under_way(wire: Wire) -> None:
    for _ in range(10):
        names = [f"d{at}" for at in range(SLOTS)]
        put(wire, *names)
        wire("KV.PREFETCH", "m", "GPU", SLOTS, *names)
        declare(wire)
    wait_for(lambda: row(wire, b"host")["used_bytes"] == 0, what="nobody holds host memory")


@pytest.mark.parametrize("kind", KINDS)
def test_shutdown_while_copies_are_under_way(kind: str) -> None:
    with start(kind) as server:
        with server.wire() as wire:
            declare(wire)
            names = [f"e{at}" for at in range(HOST_BLOCKS - 4)]
            put(wire, *names)
            pipelined = [("KV.PREFETCH", "m", "GPU", len(names), *names), ("KV.DEMOTE", "m", len(names), *names)]
            wire.pipeline(pipelined * 3)
        assert server.terminate() == 0
        assert "Traceback" not in server.log(), server.log()


@pytest.mark.parametrize("kind", KINDS)
def test_above_the_ssd(kind: str, tmp_path: Any) -> None:
    """Three tiers; a restart finds what the SSD has, the model's slots are opened again."""
    more = ("--kv-ssd-path", str(tmp_path / "ssd"), "--kv-ssd-size", "256mb", "--kv-ssd-uses", "1")
    more += ("--kv-watermark", "70")
    names = [f"s{at}" for at in range(2 * HOST_BLOCKS)]
    with start(kind, *more) as server:
        with server.wire() as wire:
            declare(wire)
            for name in names:
                wait_for(lambda name=name: put(wire, name)[0] >= 0)
            heat(wire, *names[-4:])
            for name in names:  # a null while memory waits to be written
                assert wait_for(lambda name=name: wire("KV.MGET", "m", 1, name)[0]) == block(name)
            assert wire("KV.PREFETCH", "m", "GPU", 2, *names[:2]) == 2
            wait_for(lambda: wire("KV.LOOKUP", "m", 2, *names[:2])[2] == bytes([DEVICE, DEVICE]))
        assert server.terminate() == 0
        assert "Traceback" not in server.log(), server.log()
    with start(kind, *more) as server, server.wire() as wire:
        wait_for(lambda: row(wire)["slots"] == SLOTS)
        present = [name for name in names if wire("KV.EXISTS", "m", 1, name)]
        assert present
        for name in present[:3]:
            assert wire("KV.MGET", "m", 1, name) == [block(name)]
        heat(wire, present[0])


# ---------------------------------------------------------------- without


def test_without_a_gpu_the_server_serves_and_says_so() -> None:
    from tests.contract.devices import gpu_missing

    if not gpu_missing():
        pytest.skip("there is a GPU")
    with Server(*COMMON) as server, server.wire() as wire:
        assert wire("KV.MODEL", "SET", "m", *LAYOUT) == "OK"
        assert put(wire, "a") == [1]
        found = row(wire)
        assert found["state"] == b"off" and found["error"]
        assert tiers(wire, "a") == [HOST] and wire("KV.PREFETCH", "m", "GPU", 1, "a") == 0
        assert "kv-gpu" in server.log()


def test_too_little_memory_for_a_block_is_told() -> None:
    with Server("--kv-memory", "4mb", "--kv-gpu", "m", "100", "--kv-gpu-twin", "yes") as server, server.wire() as wire:
        assert wire("KV.MODEL", "SET", "m", *LAYOUT) == "OK"
        wait_for(lambda: row(wire)["state"] == b"failing")
        assert b"hold no block" in row(wire)["error"]
        assert put(wire, "a") == [1] and wire("KV.MGET", "m", 1, "a") == [block("a")]


def test_the_directive_wants_pairs() -> None:
    with Server("--kv-gpu", "m", "1gb", "n", wait=False) as server:
        assert server.process.wait(10) != 0
        assert "pairs" in server.log()
