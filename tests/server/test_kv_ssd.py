"""The tensor region over its SSD tier, as a whole server: what comes back, who waits, what goes wrong with disks."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kv import HOST, MIB, SSD, Disk, Kv, payload
from tests.support import Server, encode, wait_for

Start = Callable[..., Server]
Open = Callable[..., Server]


@pytest.fixture
def opened(start_server: Start, tmp_path: Path) -> Iterator[Open]:
    """Starts a server over the test's own folder, again and again; options replace the usual ones."""
    running: list[Server] = []

    def start(environment: dict[str, str] | None = None, *more: str, **options: str) -> Server:
        settings = {"memory": "16mb", "ssd_size": "1gb", "ssd_uses": "1", "ssd_path": str(tmp_path / "ssd"), **options}
        words = [word for name, value in settings.items() for word in (f"--kv-{name.replace('_', '-')}", value)]
        running.append(start_server("--save", "", *words, *more, environment=environment))
        return running[-1]

    yield start
    for each in running:
        assert "Traceback" not in each.log(), each.log()
        assert "never awaited" not in each.log(), each.log()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def blocks(count: int, size: int = MIB, first: int = 0) -> dict[str, bytes]:
    return {f"k{n}": payload(n, size) for n in range(first, first + count)}


def check(kv: Kv, expected: dict[str, bytes], *options: str) -> None:
    """All of them are there, and right."""
    for key, data in expected.items():
        assert kv.get([key], *options) == [data], key


def flood(kv: Kv, bytes_: int, first: int = 1_000_000) -> None:
    """Other blocks, so that those who may leave memory do."""
    for n in range(bytes_ // MIB):
        kv.store({f"other{first + n}": payload(first + n)})


# ---- more than memory holds ------------------------------------------------------------------------------------------


def test_a_working_set_four_times_the_arena(opened: Open) -> None:
    """No error and no wrong byte, and nothing is lost: what leaves memory has been written."""
    server = opened(memory="64mb")
    size, count = 4 * MIB, 64
    failures: list[Any] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        try:
            with Kv(server) as kv:
                for n in range(seed, count, 4):
                    wait_for(lambda n=n: kv.store({f"k{n}": payload(n, size)})[0] >= 0, what="there is room")  # type: ignore[misc]
                for _ in range(24):
                    numbers = dice.sample(range(seed, count, 4), 3)
                    got = kv.get([f"k{n}" for n in numbers])
                    pairs = zip(numbers, got, strict=True)
                    failures.extend((n, data is None) for n, data in pairs if data != payload(n, size))
        except BaseException as error:
            failures.append(repr(error))

    with Kv(server).declare() as kv:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        check(kv, {f"k{n}": payload(n, size) for n in range(count)})
        assert kv.tier()["blocks"] >= 44
        assert kv.tier()["corrupt"] == 0


def test_groups_and_blocks_of_any_size_go_below(opened: Open) -> None:
    """A block, or a group, may be larger than what may wait to be written; one that no segment takes is forgotten."""
    server = opened(ssd_size="32mb")
    with Kv(server).declare() as kv:
        assert kv.store({"large": payload(1, 6 * MIB)}) == [1]
        assert kv.store({f"rank{n}": payload(10 + n) for n in range(6)}, "GROUP", "chunk") == [1] * 6
        flood(kv, 12 * MIB)
        wait_for(lambda: kv.where(["large"]) == [SSD] and set(kv.where([f"rank{n}" for n in range(6)])) == {SSD})
        check(kv, {"large": payload(1, 6 * MIB), **{f"rank{n}": payload(10 + n) for n in range(6)}})
        assert kv.store({"huge": payload(2, 9 * MIB)}) == [1]
        wait_for(lambda: kv("KV.DEMOTE", "m", 1, "huge") == 0 and kv.where(["huge"]) != [HOST])
        flood(kv, 32 * MIB, 2_000_000)
        assert kv.where(["huge"]) == [0]


def test_demoting_a_group(opened: Open) -> None:
    with Kv(opened()).declare() as kv:
        ranks = {f"rank{n}": payload(n) for n in range(4)}
        kv.store(ranks, "GROUP", "chunk")
        kv.sink(list(ranks))
        check(kv, ranks)


def test_what_was_used_again_is_written(opened: Open) -> None:
    with Kv(opened(ssd_uses="2")).declare() as kv:
        kv.store(blocks(8))
        used = ["k1", "k4", "k6"]
        kv.get(used)
        flood(kv, 64 * MIB)
        wait_for(lambda: set(kv.where(used)) == {SSD})
        assert set(kv.where([f"k{n}" for n in (0, 2, 3, 5, 7)])) == {0}
        assert kv.tier()["write_count"] == 3
        assert kv("CONFIG", "SET", "kv-ssd-uses", 1) == "OK"
        kv.store({"later": payload(99)})
        flood(kv, 32 * MIB, 2_000_000)
        assert kv.where(["later"]) == [SSD]


def test_the_size_limit(opened: Open) -> None:
    """The oldest segments are emptied under load; what is in use is copied on."""
    server = opened(ssd_size="40mb")
    with Kv(server).declare() as kv:
        kv.store(blocks(4))
        kept = list(blocks(4))
        for n in range(150):
            kv.store({f"b{n}": payload(5000 + n)})
            if n % 5 == 0:
                assert all(data in (None, payload(at)) for at, data in enumerate(kv.get(kept)))
        wait_for(lambda: kv.tier()["used_bytes"] <= 50 * MIB)
        found = [n for n in range(150) if kv.where([f"b{n}"]) != [0]]
        assert len(found) >= 20
        assert all(kv.get([f"b{n}"])[0] in (None, payload(5000 + n)) for n in found)
        assert kv.tier()["state"] == b"ok"
        assert kv.tier()["dropped"] > 0


def test_a_quota_makes_room_below(opened: Open) -> None:
    with Kv(opened()).declare("QUOTA", 4 * MIB) as kv:
        for n in range(12):
            wait_for(lambda n=n: kv.store({f"k{n}": payload(n)}, "SALT", "s") != [-1])  # type: ignore[misc]
        assert kv.stats("m")["host_bytes"] <= 4 * MIB
        check(kv, blocks(12), "SALT", "s")
        assert kv.stats("m")["host_bytes"] <= 4 * MIB


# ---- what comes back -------------------------------------------------------------------------------------------------

LAYOUT = ("LAYERS", 2, "HEADS", 2, "DIM", 8, "DTYPE", "f32", "BLOCK", 16)
ROW = 2 * 8 * 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_blocks_come_back(opened: Open, number: int) -> None:
    server = opened()
    with Kv(server).declare("TTL", 5000, "QUOTA", 64 * MIB) as kv:
        for name, options in (("laid", LAYOUT), ("coded", (*LAYOUT, "CODEC", "fp16")), ("gone", ())):
            kv("KV.MODEL", "SET", name, *options)
        models = {name: kv("KV.MODEL", "GET", name) for name in kv("KV.MODEL", "LIST") if name != b"gone"}
        kv.store(blocks(6))
        kv.store({"k0": payload(70), "only": payload(71)}, "SALT", "tenant")
        kv.store({"rank0": payload(72), "rank1": payload(73)}, "GROUP", "chunk", "TTL", 100)
        kv.store({"short": payload(74)}, "TTL", 1)
        kv("KV.MSET", "gone", 1, "k0", payload(80))
        first, second = payload(75, 16 * ROW), payload(76, 16 * ROW)
        version = kv("KV.PUT", "laid", "seq", 1, 0, 16, first, second)
        names = [b"\0%c1:0:16:%d:seq" % (letter, version) for letter in b"kv"]
        kv.sink([*blocks(6), "rank0", "rank1", "short"])
        kv.sink(["k0", "only"], "SALT", "tenant")
        for model, keys in (("laid", names), ("gone", ["k0"])):
            kv.model = model
            kv.sink(keys)
        kv.model = "m"
        assert kv("KV.DEL", "m", 2, "k4", "k5") == 2
        assert kv("KV.MODEL", "DEL", "gone") == 1
        wait_for(lambda: kv.where(["short"]) == [0])
        kv.store({"k5": payload(77)})  # another one of that name
        kv.sink(["k5"])
    server.terminate(number)
    with Kv(opened()) as kv:
        assert {name: kv("KV.MODEL", "GET", name) for name in kv("KV.MODEL", "LIST")} == models
        assert kv.where([*blocks(6), "short"]) == [SSD] * 4 + [0, SSD, 0]
        check(kv, blocks(4) | {"k5": payload(77), "rank0": payload(72), "rank1": payload(73)})
        check(kv, {"k0": payload(70), "only": payload(71)}, "SALT", "tenant")
        assert kv.get(["only"]) == [None]
        assert 50 < kv("KV.TTL", "m", "rank0") <= 100
        assert 4000 < kv("KV.TTL", "m", "k0") <= 5000
        assert kv("KV.GET", "laid", "seq", 1, 0, 16) == [[0, 16, version, first, second]]
        assert kv("KV.PUT", "laid", "seq", 1, 0, 16, second, first) > version
        kv.of_keys("KV.LOOKUP", ["rank0"], "LEASE", 60_000)
        flood(kv, 48 * MIB)
        assert kv.where(["rank0", "rank1"]) == [HOST, HOST]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_deletions_stay(opened: Open, number: int) -> None:
    """What KV.DEL has answered holds, also of blocks that are just being written; so does what came after."""
    server = opened()
    with Kv(server).declare() as kv:
        for turn in range(8):
            calls = []
            for n in range(8):
                calls.append(("KV.MSET", "m", 1, f"k{n}", payload(100 * turn + n, 300_000)))
                calls.append(("KV.DEMOTE", "m", 1, f"k{n}"))
                if (turn + n) % 3 == 0:
                    calls.append(("KV.DEL", "m", 1, f"k{n}"))
            assert all(isinstance(reply, int | list) for reply in kv.wire.pipeline(calls))
            if turn < 7:
                kv.of_keys("KV.DEL", [f"k{n}" for n in range(8)])
        left = {f"k{n}": payload(700 + n, 300_000) for n in range(8) if (7 + n) % 3}
        kv.sink(list(left))
    server.terminate(number)
    with Kv(opened()) as kv:
        assert kv.where([f"k{n}" for n in range(8)]) == [SSD if f"k{n}" in left else 0 for n in range(8)]
        check(kv, left)


def test_without_its_models_file(opened: Open, tmp_path: Path) -> None:
    """Blocks whose form nobody knows any more are not served as if they were plain."""
    server = opened()
    with Kv(server, "coded").declare(*LAYOUT, "CODEC", "fp16") as kv:
        kv("KV.MODEL", "SET", "m")
        kv.store({"k": payload(1, 2 * 2 * 16 * ROW)})
        kv.sink(["k"])
        kv.model = "m"
        kv.store(blocks(1))
        kv.sink(["k0"])
    server.terminate()
    (tmp_path / "ssd" / "models.json").unlink()
    server = opened()
    with Kv(server) as kv:
        check(kv, blocks(1))
        assert kv("KV.MODEL", "LIST") == [b"m"]
        kv("KV.MODEL", "SET", "coded", *LAYOUT, "CODEC", "bf16")
        assert kv("KV.EXISTS", "coded", 1, "k") == 0


def test_codecs(opened: Open) -> None:
    numpy = pytest.importorskip("numpy")
    tensor = numpy.random.default_rng(1).standard_normal((8, 2, 2, 16, 2, 8)).astype("f4")
    server = opened()
    names = [f"k{n}" for n in range(8)]
    with Kv(server, "coded").declare(*LAYOUT, "CODEC", "fp16") as kv:
        assert kv.store({name: each.tobytes() for name, each in zip(names, tensor, strict=True)}) == [1] * 8
        kv.sink(names)
        assert kv.get(names) == [each.astype("f2").astype("f4").tobytes() for each in tensor]
        kv.sink(names)
        kv("MULTI")
        kv.get(["k0"])
        assert str(kv("EXEC")[0]).startswith("ERR blocks of a model with a codec")
    server.terminate(signal.SIGKILL)
    with Kv(opened(), "coded") as kv:
        assert kv.get(names) == [each.astype("f2").astype("f4").tobytes() for each in tensor]


def test_plain_keys(opened: Open) -> None:
    options = ("--kv-namespace", "vllm@*", "lm", "--kv-exists-lease", "0")
    server = opened(None, *options)
    with Kv(server, "lm") as kv:
        keys = {f"vllm@{n}": payload(n) for n in range(48)}
        for key, data in keys.items():
            assert kv("SET", key, data, "EX", 1000) == "OK"
        assert kv("SET", "usual", "here") == "OK"
        assert kv.where(list(keys)).count(SSD) > 30
        for key, data in keys.items():
            assert kv("GET", key) == data
        assert kv("MGET", "usual", *list(keys)[:3], "vllm@none") == [b"here", *list(keys.values())[:3], None]
        kv.sink(list(keys))
        assert kv("SET", "vllm@1", payload(99)) == "OK"  # another value
        assert kv("SET", "vllm@2", payload(2), "EX", 50) == "OK"  # the same for a shorter time
        kv.sink(["vllm@1", "vllm@2"])
        assert kv("DEL", "vllm@0", "usual") == 2
        assert kv("KV.MODEL", "SET", "lm", *LAYOUT, "CODEC", "fp8").startswith("ERR kv-namespace gives keys")
        kv("KV.DEL", "lm", 1, "vllm@3")
    server.terminate()
    with Kv(opened(None, *options), "lm") as kv:
        assert kv("MGET", *list(keys)[:4]) == [None, payload(99), payload(2), None]
        assert 0 < kv("KV.TTL", "lm", "vllm@2") <= 50
        assert kv("EXISTS", "usual", "vllm@4") == 1


# ---- who waits -------------------------------------------------------------------------------------------------------


def test_life_below(opened: Open) -> None:
    """Pins, leases, prefetches and transactions of blocks that are on the SSD alone."""
    with Kv(opened()).declare() as kv:
        kv.store(blocks(8))
        keys = list(blocks(8))
        kv.sink(keys)
        assert kv.of_keys("KV.PIN", ["k0"]) == 1
        assert kv.of_keys("KV.LOOKUP", ["k1"], "LEASE", 60_000)[0] == 1
        assert kv.of_keys("KV.PREFETCH", [*keys[:4], "none"]) == 4
        wait_for(lambda: kv.where(keys) == [HOST] * 4 + [SSD] * 4)
        assert kv.of_keys("KV.DEMOTE", keys) == 2  # at once: they are below, but two are held
        assert kv.where(keys) == [HOST] * 2 + [SSD] * 6
        assert kv.of_keys("KV.UNPIN", keys) == 1
        assert kv.of_keys("KV.UNLOCK", keys) == 1
        assert kv.of_keys("KV.DEMOTE", keys) == 2
        kv("MULTI")
        kv.get(["k0"])
        kv.of_keys("KV.PREFETCH", ["k0"])
        assert kv("EXEC") == [[None], 1]
        wait_for(lambda: kv.where(["k0"]) == [HOST])
        assert kv.of_keys("KV.EXISTS", [*keys, "none"]) == 8
        assert kv.of_keys("KV.DEL", keys) == 8
        assert kv.get(keys) == [None] * 8
        assert kv.tier()["blocks"] == 0


def test_what_comes_from_below_is_counted(opened: Open) -> None:
    """As hits and bytes, once, by either way of replying; inside a transaction, where nothing waits, as misses."""
    with Kv(opened()).declare() as kv:
        keys = list(blocks(4))
        for protocol in (2, 3):
            kv.store(blocks(4))
            kv.sink(keys)
            before = kv.stats("m")
            kv("HELLO", protocol)
            kv.get([*keys[:3], "none"])
            kv("MULTI")
            kv.get(keys[2:])
            kv("EXEC")
            kv("HELLO", 2)
            after = kv.stats("m")
            gained = {name: after[name] - before[name] for name in ("hits", "misses", "bytes_out")}
            assert gained == {"hits": 4, "misses": 2, "bytes_out": 4 * MIB}
            kv.of_keys("KV.DEL", keys)


def test_what_is_leased_does_not_keep_others_from_reading(opened: Open) -> None:
    with Kv(opened()).declare() as kv:
        kv.store(blocks(6))
        kv.sink(list(blocks(6)))
        held = [n for n in range(100, 140) if kv.store({f"h{n}": payload(n)}) == [1]
                and kv.of_keys("KV.LOOKUP", [f"h{n}"], "LEASE", 60_000)]  # fmt: skip
        assert len(held) >= 12
        assert kv.store({"more": payload(1)}) == [-1]
        check(kv, blocks(6))
        assert kv.get(list(blocks(6))) == list(blocks(6).values())
        assert kv.where(list(blocks(6))) == [SSD] * 6
        assert kv.stats()["leased_blocks"] == len(held)


def test_blocks_are_read_once(opened: Open, disk: Disk) -> None:
    server = opened(disk.environment)
    with Kv(server) as one, Kv(server) as two, Kv(server).declare() as kv:
        kv.store(blocks(4))
        keys = list(blocks(4))
        kv.sink(keys)
        before = kv.tier()["read_count"]
        disk.hang("read")
        one.wire.send(encode("KV.MGET", "m", 4, *keys))
        two.wire.send(encode("KV.MGET", "m", 3, *keys[1:]))
        kv.of_keys("KV.PREFETCH", keys)
        wait_for(lambda: kv.info("blocked_clients") == 2)
        assert kv("SET", "others", "do not wait") == "OK"
        assert kv.where(keys) == [SSD] * 4
        disk.go_on("read")
        assert one.wire.read() == list(blocks(4).values())
        assert two.wire.read() == list(blocks(4).values())[1:]
        assert kv.tier()["read_count"] == before + 4
        assert kv.info("blocked_clients") == 0


def test_what_was_stored_since_is_what_is_read(opened: Open, disk: Disk) -> None:
    """While a block is on its way up it is removed, and another one stored under its key."""
    server = opened(disk.environment)
    with Kv(server) as early, Kv(server) as late, Kv(server).declare() as kv:
        kv.store({"k": payload(1)})
        kv.sink(["k"])
        disk.hang("read")
        early.wire.send(encode("KV.MGET", "m", 1, "k"))
        wait_for(lambda: kv.info("blocked_clients") == 1)
        assert kv.of_keys("KV.DEL", ["k"]) == 1
        kv.store({"k": payload(2)})
        kv.sink(["k"])
        late.wire.send(encode("KV.MGET", "m", 1, "k"))
        wait_for(lambda: kv.info("blocked_clients") == 2)
        disk.go_on("read")
        assert early.wire.read() in ([payload(1)], [None])
        assert late.wire.read() == [payload(2)]
        assert kv.get(["k"]) == [payload(2)]
        disk.hang("read")
        kv.sink(["k"])
        early.wire.send(encode("KV.MGET", "m", 1, "k"))
        wait_for(lambda: kv.info("blocked_clients") == 1)
        assert kv("KV.MODEL", "DEL", "m") == 1
        kv.model = "another"  # which gets its place in the index
        kv.declare().store({"k": payload(3)})
        kv.sink(["k"])
        disk.go_on("read")
        assert early.wire.read() in ([payload(2)], [None])
        assert kv.get(["k"]) == [payload(3)]


def test_clients_that_wait(opened: Open, disk: Disk) -> None:
    """INFO, CLIENT LIST, UNBLOCK, KILL and PAUSE while a command waits for the SSD; and clients that hang up."""
    server = opened(disk.environment)
    with Kv(server) as one, Kv(server) as two, Kv(server) as three, Kv(server).declare() as kv:
        kv.store(blocks(4))
        keys = list(blocks(4))
        kv.sink(keys)
        ids = [each("CLIENT", "ID") for each in (one, two, three)]
        disk.hang("read")
        for each in (one, two, three):
            each.wire.send(encode("KV.MGET", "m", 4, *keys) + encode("PING"))
        wait_for(lambda: kv.info("blocked_clients") == 3)
        listed = kv("CLIENT", "LIST", "ID", *ids).decode().splitlines()
        assert all("flags=b" in line and "cmd=kv.mget" in line for line in listed), listed
        assert kv("CLIENT", "UNBLOCK", ids[0]) == 0  # it waits for a device, not for somebody's deed
        assert kv("CLIENT", "UNBLOCK", ids[0], "ERROR") == 0
        assert kv("CLIENT", "KILL", "ID", ids[1]) == 1
        assert two.wire.closed()
        three.wire.close()
        wait_for(lambda: kv.info("blocked_clients") == 1)
        kv("CLIENT", "PAUSE", 60_000, "ALL")
        disk.go_on("read")
        assert one.wire.read() == list(blocks(4).values())  # it had begun
        assert one.wire.quiet()
        kv("CLIENT", "UNPAUSE")
        assert one.wire.read() == "PONG"
        kv.sink(keys)
        assert kv.info("connected_clients") == 2


def test_clients_that_hang_up_leave_nothing(opened: Open, disk: Disk) -> None:
    server = opened(disk.environment)
    with Kv(server).declare() as kv:
        kv.store(blocks(12))
        keys = list(blocks(12))
        kv.sink(keys)
        used = kv.tier("host")["used_bytes"]
        before = kv.tier()["read_count"]
        disk.hang("read")
        for n in range(40):
            with Kv(server) as other:
                other.wire.send(encode("KV.MGET", "m", 4, *keys[n % 3 * 4 :][:4]))
                wait_for(lambda: kv.info("blocked_clients") == 1)
            wait_for(lambda: kv.info("blocked_clients") == 0)
        disk.go_on("read")
        check(kv, blocks(12))
        assert kv.tier()["read_count"] <= before + 24
        kv.sink(keys)
        wait_for(lambda: kv.tier("host")["used_bytes"] <= used)


def test_a_reply_comes_in_parts(opened: Open, disk: Disk) -> None:
    """What is in memory is sent while what is below is read; under RESP3, where pushes may come, all in one piece."""
    server = opened(disk.environment)
    with Kv(server) as one, Kv(server) as three, Kv(server) as pusher, Kv(server).declare() as kv:
        three("HELLO", 3)
        three("SUBSCRIBE", "channel")
        kv.store(blocks(6))
        keys = list(blocks(6))
        kv.sink(keys[1:])
        kv.get(keys[:1])
        disk.hang("read")
        for each in (one, three):
            each.wire.send(encode("KV.MGET", "m", 7, *keys, "none") + encode("PING"))
        assert one.wire.file.read(4 + 10 + MIB)[-MIB:] == payload(0)
        assert pusher("PUBLISH", "channel", "word") == 1
        assert three.wire.read() == [b"message", b"channel", b"word"]
        assert three.wire.quiet()
        kv("CLIENT", "PAUSE", 1, "ALL")
        disk.go_on("read")
        assert one.wire.file.read(2) == b"\r\n"
        assert [one.wire.read() for _ in range(6)] == [*(payload(n) for n in range(1, 6)), None]
        assert one.wire.read() == "PONG"
        assert three.wire.read() == [*blocks(6).values(), None]
        assert three.wire.read() == "PONG"


def test_users_and_silence(opened: Open, disk: Disk) -> None:
    server = opened(disk.environment)
    with Kv(server) as one, Kv(server).declare() as kv:
        kv.store(blocks(1))
        kv.sink(["k0"])
        one.wire.send(encode("CLIENT", "REPLY", "SKIP") + encode("KV.MGET", "m", 1, "k0") + encode("PING"))
        assert one.wire.read() == "PONG"
        assert one("HELLO", 3)[b"proto"] == 3
        kv.sink(["k0"])
        assert one.get(["k0", "none"]) == [payload(0), None]


# ---- the end ---------------------------------------------------------------------------------------------------------


def test_a_busy_end(opened: Open) -> None:
    """SIGTERM while blocks go both ways and commands wait: it ends soon, and what was on the SSD is there."""
    server = opened()
    with Kv(server).declare() as kv:
        kv.store(blocks(12))
        kv.sink(list(blocks(12)))
        others = [Kv(server) for _ in range(6)]
        for n, other in enumerate(others[:3]):
            other.wire.send(encode("KV.MGET", "m", 12, *blocks(12)))
            other.wire.send(encode("KV.PREFETCH", "m", 12, *blocks(12)))
            words = [word for pair in blocks(10, MIB, 100 + 10 * n).items() for word in pair]
            others[3 + n].wire.send(encode("KV.MSET", "m", 10, *words))
        server.terminate(deadline_s=5)
        for other in others:
            other.wire.close()
    with Kv(opened()) as kv:
        check(kv, blocks(12))
        for n in range(100, 130):
            assert kv.get([f"k{n}"])[0] in (None, payload(n))


@pytest.mark.parametrize("what", ["read", "write"])
def test_an_end_while_the_disk_hangs(opened: Open, disk: Disk, what: str) -> None:
    """It waits for the disk, as it must: the threads have its memory. It ends once the disk goes on."""
    server = opened(disk.environment)
    with Kv(server).declare() as kv, Kv(server) as other:
        kv.store(blocks(12))
        kv.sink(list(blocks(12)))
        disk.hang(what)
        other.wire.send(encode("KV.MGET", "m", 12, *blocks(12)))
        words = [word for pair in blocks(24, MIB, 100).items() for word in pair]
        kv.wire.send(encode("KV.MSET", "m", 24, *words))
        if what == "write":
            assert other.wire.read() == list(blocks(12).values())
            assert set(kv.wire.read()) <= {1, -1}
        else:
            kv.wire.read()
        server.process.send_signal(signal.SIGTERM)
        disk.go_on(what)
        assert server.process.wait(5) == 0
    with Kv(opened()) as kv:
        check(kv, blocks(12))


# ---- disks that fail -------------------------------------------------------------------------------------------------


def test_flipped_bits(opened: Open, tmp_path: Path) -> None:
    """Damage of what is on the device while the server runs: a miss, counted, and never a wrong byte."""
    dice = random.Random(5)
    server = opened()
    with Kv(server).declare() as kv:
        kv.store(blocks(12))
        keys = list(blocks(12))
        kv.sink(keys)
        for path in (tmp_path / "ssd").glob("*.seg"):
            with path.open("r+b") as file:
                for at in range(0, path.stat().st_size, 3 * MIB):
                    file.seek(at + dice.randrange(min(MIB, path.stat().st_size - at)))
                    byte = file.read(1)
                    file.seek(-1, os.SEEK_CUR)
                    file.write(bytes([byte[0] ^ 1 << dice.randrange(8)]))
                file.flush()
                os.fsync(file.fileno())
        found = kv.get(keys)
        wrong = [n for n, data in enumerate(found) if data not in (None, payload(n))]
        assert not wrong
        lost = found.count(None)
        assert 2 <= lost <= 6
        assert kv.tier()["corrupt"] == lost
        assert kv.where(keys).count(0) == lost
        assert sorted(set(kv.store(blocks(12)))) == [0, 1]  # and they can be stored again
        kv.sink(keys)
        check(kv, blocks(12))
    server.terminate(signal.SIGKILL)
    with Kv(opened()) as kv:
        check(kv, blocks(12))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB, of which 30 are taken by `ballast`."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)]).returncode:
        pytest.skip("mounting a small file system takes root's rights")
    (place / "ballast").write_bytes(bytes(30 * MIB))
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk(opened: Open, small_disk: Path) -> None:
    server = opened(ssd_path=str(small_disk / "ssd"), ssd_size="200mb")
    with Kv(server).declare() as kv:
        for n in range(60):
            assert kv.store({f"k{n}": payload(n)})[0] in (1, -1)
        wait_for(lambda: kv.tier()["state"] == b"failing")
        assert kv.tier()["error"] == b"No space left on device"
        for n in range(60, 90):
            kv.store({f"k{n}": payload(n)})
            assert kv.get([f"k{n}"])[0] in (None, payload(n))
        wait_for(lambda: kv.store({"new": payload(1000)})[0] >= 0)  # what has no room goes, as without an SSD
        before = [n for n in range(60) if kv.where([f"k{n}"]) == [SSD]]
        assert len(before) >= 8
        (small_disk / "ballast").unlink()
        wait_for(lambda: kv.tier()["state"] == b"ok", 20)
        kv.sink(["new"])
        check(kv, {f"k{n}": payload(n) for n in before} | {"new": payload(1000)})
    server.terminate(signal.SIGKILL)
    with Kv(opened(ssd_path=str(small_disk / "ssd"), ssd_size="200mb")) as kv:
        check(kv, {f"k{n}": payload(n) for n in before} | {"new": payload(1000)})


@pytest.mark.parametrize("error", [errno.EROFS, errno.EIO])
def test_a_disk_that_takes_nothing_for_a_while(opened: Open, disk: Disk, error: int) -> None:
    server = opened(disk.environment)
    with Kv(server).declare() as kv:
        kv.store(blocks(8))
        kv.sink(list(blocks(8)))
        disk.fail("write", error)
        assert kv.of_keys("KV.DEL", ["k7"]) == 1
        for n in range(100, 140):
            kv.store({f"k{n}": payload(n)})
        wait_for(lambda: kv.tier()["state"] == b"failing")
        assert kv.tier()["error"] == os.strerror(error).encode()
        check(kv, blocks(7))
        wait_for(lambda: kv.store({"new": payload(1000)})[0] >= 0)
        disk.go_on("write")
        wait_for(lambda: kv.tier()["state"] == b"ok", 20)
        kv.sink(["new"])
    server.terminate(signal.SIGKILL)
    with Kv(opened()) as kv:
        check(kv, blocks(7) | {"new": payload(1000)})
        assert kv.where(["k7"]) == [0]


def test_a_disk_that_cannot_be_read_for_a_while(opened: Open, disk: Disk) -> None:
    server = opened(disk.environment)
    with Kv(server).declare() as kv:
        kv.store(blocks(4))
        kv.sink(list(blocks(4)))
        disk.fail("read", errno.EIO)
        assert kv.get(["k0"]) == [None]
        disk.go_on("read")
        check(kv, blocks(3, first=1))
        assert kv.store({"k0": payload(0)}) in ([0], [1])
        check(kv, blocks(4))
        assert kv.tier()["read_errors"] == 1
