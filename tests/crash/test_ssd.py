"""The SSD tier when the process is killed, bits flip, files are cut, the disk is full or fails."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from tests.contract.region import Region, aligned, block, checksum, content, wait_until
from tests.crash import ssd_writer
from tests.support import ROOT
from zeekdb.errors import Unavailable
from zeekdb.tiers import segment, transfer
from zeekdb.tiers.cleaning import COPY_SHARE
from zeekdb.tiers.record import GRID, Kind, Record
from zeekdb.tiers.segment import file_name
from zeekdb.tiers.ssd import SsdTier
from zeekdb.tiers.tier import Get, Held, Put, TierStats
from zeekdb.tiers.transfer import Device

MIB = 1 << 20
KILLED_LIMIT_BYTES = 12 * MIB
RETRY_S = (0.001, 0.01)


def ssd(folder: Path, region: Region, **options: object) -> SsdTier:
    settings = {"limit_bytes": 64 * MIB, "segment_bytes": 4 * MIB, "retry_s": RETRY_S, **options}
    limit_bytes = settings.pop("limit_bytes")
    return SsdTier(folder, limit_bytes, region, checksum, **settings)  # type: ignore[arg-type]


async def loaded(folder: Path, region: Region | None = None, **options: object) -> tuple[SsdTier, Region]:
    """An open tier, and a region that knows what it holds."""
    region = region or Region()
    tier = ssd(folder, region, **options)
    await region.load(tier)
    return tier, region


async def left(folder: Path) -> dict[bytes, bytes | None]:
    """What a start finds in the folder: keys, and what reading them gives."""
    tier, region = await loaded(folder)
    keys = [name[2] for name in region.index]
    found = dict(zip(keys, await region.get(tier, keys), strict=True))
    await tier.close()
    return found


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


async def abandon(tier: SsdTier) -> None:
    """What a killed process leaves: no summary, no trailer."""
    tier.log.active = None
    await tier.close()


# ---- killed --------------------------------------------------------------------------------------------------------


class Told:
    """What the killed processes have said, and what must follow."""

    def __init__(self) -> None:
        self.sure: dict[int, int] = {}  # seed: size
        self.gone: set[int] = set()
        self.puts = 0

    def hear(self, line: str) -> None:
        word, *numbers, _ = line.split()
        seed = int(numbers[0])
        if word == "put":
            self.sure[seed] = int(numbers[1])
            self.puts += 1
        elif word in ("will-delete", "dropped"):
            self.sure.pop(seed, None)
        elif word == "deleted":
            self.gone.add(seed)


async def check_told(folder: Path, told: Told) -> int:
    region = Region()
    tier = ssd_writer.open_tier(folder, region, 1 << 30)  # which drops nothing
    await region.load(tier)
    seeds = {int(name[2][4:]): held for name, held in region.index.items()}
    assert not set(told.sure) - set(seeds), "confirmed and not there"
    assert not told.gone & set(seeds), "deleted and there again"
    keys = [b"key:%d" % seed for seed in seeds]
    for (seed, held), got in zip(seeds.items(), await region.get(tier, keys), strict=True):
        assert got == content(seed, held.meta.size), f"{seed} is corrupt"
    used = sum(path.stat().st_size for path in segments(folder))
    assert used <= KILLED_LIMIT_BYTES * (1 + 1 / ssd_writer.SEGMENTS)
    await tier.close()
    told.sure = {seed: held.meta.size for seed, held in seeds.items()}
    return len(seeds)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Rounds over the same folder, each ended by a SIGKILL after a random number of confirmations."""
    random, told = Random(11), Told()
    command = [sys.executable, "-m", "tests.crash.ssd_writer", str(tmp_path), str(KILLED_LIMIT_BYTES)]
    writer = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdin
    assert writer.stdout
    try:
        for number in range(1, 41):
            writer.stdin.write(f"{number}\n")
            writer.stdin.flush()
            pid, heard, most = 0, 0, random.choice((1, 5, 30, 150))
            while not (line := writer.stdout.readline()).startswith("ended"):
                assert line, "the writer has ended"
                if line.startswith("pid"):
                    pid = int(line.split()[1])
                elif not line.startswith("open"):
                    told.hear(line)
                heard += 1
                if heard > most and pid:
                    os.kill(pid, 9)
                    most = 1 << 60
            assert asyncio.run(check_told(tmp_path, told)) > 0
    finally:
        writer.kill()
        writer.wait()
    assert told.puts > 500
    assert told.gone


# ---- damaged -------------------------------------------------------------------------------------------------------


def flip(path: Path, at: int, mask: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ mask]))


async def records_of(folder: Path) -> list[Record]:
    """Of the only segment."""
    tier, _ = await loaded(folder)
    (segment,) = tier.log.segments.values()
    records = tier.files.records(segment)
    await tier.close()
    return records


async def filled(folder: Path, count: int, size: int, finish: bool) -> dict[bytes, bytes]:
    """A folder with one segment of so many blocks."""
    tier, region = await loaded(folder)
    assert all(await region.put(tier, [block(seed, size) for seed in range(count)]))
    await (tier.close() if finish else abandon(tier))
    return {b"key:%d" % seed: content(seed, size) for seed in range(count)}


@pytest.mark.parametrize("finish", [True, False])
async def test_flipped_bits_are_misses(tmp_path: Path, finish: bool) -> None:
    """While the tier runs, and found by the next start: never other bytes, and the neighbours live on."""
    random = Random(3)
    for number in range(12):
        folder = tmp_path / str(number)
        tier, region = await loaded(folder)
        assert all(await region.put(tier, [block(seed, 6000) for seed in range(5)]))
        ((segment,), victim) = tier.log.segments.values(), random.randrange(5)
        record = tier.files.header(segment, region.index[b"m", b"", b"key:%d" % victim].place & 0xFFFFFFFF, 1)
        assert record is not None
        header = 12 + len(b"key:0") + 20
        at = random.choice((
            record.page * GRID + random.randrange(header), record.data_page * GRID + random.randrange(6000),
        ))  # fmt: skip
        tier.files.files.forget()
        flip(Path(segment.path), at, 1 << random.randrange(8))
        keys = [b"key:%d" % seed for seed in range(5)]
        wanted = [None if seed == victim else content(seed, 6000) for seed in range(5)]
        assert await region.get(tier, keys) == wanted, f"round {number}"
        assert tier.stats().corrupt == 1
        await (tier.close() if finish else abandon(tier))
        found = await left(folder)
        assert [found.get(key) for key in keys] == wanted, f"round {number}"


async def test_any_page_may_be_lost(tmp_path: Path) -> None:
    """Also the first of the file, and those that were written when the segment was finished."""
    whole = await filled(tmp_path / "source", 6, 10_000, True)
    data = segments(tmp_path / "source")[0].read_bytes()
    for page in range(len(data) // GRID):
        folder = tmp_path / str(page)
        folder.mkdir()
        torn = bytearray(data)
        torn[page * GRID : (page + 1) * GRID] = Random(page).randbytes(GRID)
        (folder / file_name(1)).write_bytes(torn)
        if page == 0:
            shutil.copy(tmp_path / "source" / "LOCK", folder)
        found = await left(folder)
        assert all(got in (None, whole[key]) for key, got in found.items())
        assert sum(got is not None for got in found.values()) >= len(whole) - (page > 0), f"page {page}"


async def test_a_first_page_lost_where_others_know_the_nonce(tmp_path: Path) -> None:
    tier, region = await loaded(tmp_path)
    assert all(await region.put(tier, [block(seed, MIB) for seed in range(8)]))
    await tier.close()
    assert len(segments(tmp_path)) > 2
    (tmp_path / "LOCK").unlink()
    for path in segments(tmp_path)[:-1]:
        flip(path, 30)
    assert await left(tmp_path) == {b"key:%d" % seed: content(seed, MIB) for seed in range(8)}


@pytest.mark.parametrize("size", [3000, 9000])
async def test_truncation_at_every_sector_of_the_end(tmp_path: Path, size: int) -> None:
    whole = await filled(tmp_path / "source", 4, size, False)
    data = segments(tmp_path / "source")[0].read_bytes()
    *_, last = (record for record in await records_of(tmp_path / "source") if record.kind == Kind.BLOCK)
    for number, cut in enumerate(range(last.page * GRID, len(data), 512)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / file_name(1)).write_bytes(data[:cut])
        assert await left(folder) == {key: value for key, value in whole.items() if key != b"key:3"}, f"cut at {cut}"
        assert await left(folder) == {key: value for key, value in whole.items() if key != b"key:3"}, "a second time"
    (tmp_path / "0" / file_name(1)).write_bytes(data)
    assert await left(tmp_path / "0") == whole


async def test_a_batch_that_reached_the_device_in_part(tmp_path: Path) -> None:
    """Writes of one batch reach the device in any order: whatever is whole stays, whatever is not is gone."""
    whole = await filled(tmp_path / "source", 5, 9000, False)
    data = segments(tmp_path / "source")[0].read_bytes()
    records = await records_of(tmp_path / "source")
    for number, present in enumerate(itertools.product((False, True), repeat=len(records))):
        folder = tmp_path / str(number)
        folder.mkdir()
        torn = bytearray(data)
        for record, is_there in zip(records, present, strict=True):
            begin = record.page if number % 2 else record.end - 1  # the header is missing, or the end of the data
            if not is_there:
                torn[begin * GRID : record.end * GRID] = bytes((record.end - begin) * GRID)
        (folder / file_name(1)).write_bytes(torn)
        wanted = {record.meta.key for record, is_there in zip(records, present, strict=True) if is_there}
        assert await left(folder) == {key: whole[key] for key in wanted}


async def test_a_block_cannot_pass_for_a_record(tmp_path: Path) -> None:
    """A block that holds a segment's bytes, behind a header that is lost: nothing in it is taken for a record."""
    await filled(tmp_path / "source", 4, 100, True)
    inner = segments(tmp_path / "source")[0].read_bytes()
    tier, _ = await loaded(tmp_path / "outer")
    places = await tier.put([Put(block(9, 1)[0]._replace(size=len(inner), checksum=1), aligned(inner))])
    assert places[0] is not None
    await abandon(tier)
    flip(segments(tmp_path / "outer")[0], GRID + 9)
    assert await left(tmp_path / "outer") == {}


# ---- a device that fails -------------------------------------------------------------------------------------------


class Failing(Device):
    """Fails the calls of the given names while `error` is set; or only the n-th of them."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.error = 0
        self.at = 0
        self.calls = 0

    def _count(self, name: str) -> None:
        if name in self.names:
            self.calls += 1
            if self.error and (not self.at or self.calls == self.at):
                raise OSError(self.error, os.strerror(self.error))

    def open(self, path: str, flags: int) -> int:
        self._count("create" if flags & os.O_CREAT else "open")
        return super().open(path, flags)

    def pwritev(self, fd: int, buffers: Sequence[memoryview], at: int) -> int:
        self._count("pwritev")
        return super().pwritev(fd, buffers, at)

    def preadv(self, fd: int, buffers: Sequence[memoryview], at: int) -> int:
        self._count("preadv")
        return super().preadv(fd, buffers, at)

    def fdatasync(self, fd: int) -> None:
        self._count("fdatasync")
        super().fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        self._count("truncate")
        super().truncate(fd, size)

    def unlink(self, path: str) -> None:
        self._count("unlink")
        super().unlink(path)

    def sync_folder(self, path: str) -> None:
        self._count("sync_folder")
        super().sync_folder(path)


WRITES = ("create", "pwritev", "fdatasync", "truncate", "unlink", "sync_folder")


def state(tier: SsdTier) -> TierStats:
    return tier.stats()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("names", [("fdatasync",), ("pwritev",), ("pwritev", "truncate", "fdatasync"), WRITES])
async def test_a_device_that_fails_and_heals(tmp_path: Path, names: tuple[str, ...], number: int) -> None:
    device = Failing(*names)
    tier, region = await loaded(tmp_path, device=device)
    assert all(await region.put(tier, [block(seed, 9000) for seed in range(3)]))
    device.error = number
    assert not any(await region.put(tier, [block(seed, 9000) for seed in range(10, 13)]))
    assert (tier.stats().state, tier.stats().error) == ("failing", os.strerror(number))
    assert tier.stats().write.errors == 3
    assert await region.put(tier, [block(20, 9000)]) == [False]
    assert await region.get(tier, [b"key:0", b"key:1"]) == [content(0, 9000), content(1, 9000)]
    assert await region.delete(tier, [b"key:1"]) == [False]
    seen = device.calls
    await wait_until(lambda: device.calls > seen + 3, what="it tries again")
    assert state(tier).state == "failing"
    device.error = 0
    await wait_until(lambda: state(tier).state == "ok")
    assert all(await region.put(tier, [block(seed, 9000) for seed in range(30, 33)]))
    await abandon(tier)
    wanted = {b"key:%d" % seed: content(seed, 9000) for seed in (0, 2, 30, 31, 32)}
    found = await left(tmp_path)
    for seed in (10, 11, 12):  # nobody was told that these are there, nor that they are not
        assert found.pop(b"key:%d" % seed, None) in (None, content(seed, 9000))
    assert found == wanted


async def churn(folder: Path, device: Failing) -> tuple[set[bytes], set[bytes]]:
    """Work that uses every call there is: (keys that must be there, keys that must not)."""
    tier, region = await loaded(folder, device=device, limit_bytes=8 * MIB, segment_bytes=MIB)
    gone: set[bytes] = set()
    for number in range(30):
        region.worth = {b"key:%d" % (number * 2 - at) for at in range(12)}
        items = [block(number * 2 + at, 200_000, offset=at) for at in range(2)]
        stored = await region.put(tier, items)
        if number % 7 == 6 and stored[0]:
            key = items[0].meta.key
            if await region.delete(tier, [key]) == [True]:
                gone.add(key)
    await wait_until(lambda: tier.stats().state == "ok")
    if tier.cleaner._task is not None:
        await tier.cleaner.wait()
    for held in region.index.values():
        assert (await region.get(tier, [held.meta.key]))[0] in (None, content(int(held.meta.key[4:]), 200_000))
    await tier.close()
    return {name[2] for name in region.index}, gone


async def test_any_one_call_may_fail(tmp_path: Path) -> None:
    """The n-th call of all, for n = 1, 2, …: what was confirmed is there, what was deleted is not."""
    quiet = Failing(*WRITES)
    await churn(tmp_path / "quiet", quiet)
    assert quiet.calls > 100
    for number in range(1, quiet.calls, 11):
        device = Failing(*WRITES)
        device.error, device.at = errno.EIO, number
        folder = tmp_path / str(number)
        sure, gone = await churn(folder, device)
        found = await left(folder)
        assert not sure - set(found), f"call {number}"
        assert not gone & set(found), f"call {number}"
        assert all(found[key] == content(int(key[4:]), 200_000) for key in found), f"call {number}"


async def test_reads_that_fail_are_misses(tmp_path: Path) -> None:
    device = Failing("preadv")
    tier, region = await loaded(tmp_path, device=device)
    assert all(await region.put(tier, [block(seed, 9000) for seed in range(4)]))
    keys = [b"key:%d" % seed for seed in range(4)]
    device.error = errno.EIO
    assert await region.get(tier, keys) == [None] * 4
    assert await tier.contains(list(region.index.values())) == [False] * 4
    assert tier.stats().read.errors == 4
    assert tier.stats().state == "ok"
    device.error, device.at, device.calls = errno.EIO, 2, 0  # a run of four fails, then the first of them alone
    assert (await region.get(tier, keys)).count(None) == 0
    device.at, device.calls = 1, 0
    assert (await region.get(tier, keys)).count(None) == 0
    device.error = 0
    assert await region.get(tier, keys) == [content(seed, 9000) for seed in range(4)]
    await tier.close()


@pytest.mark.parametrize("finish", [True, False])
@pytest.mark.parametrize("name", ["preadv", "open"])
async def test_a_start_at_which_one_read_fails_loses_nothing(tmp_path: Path, name: str, finish: bool) -> None:
    """What cannot be read now may be readable tomorrow."""
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        whole = await filled(folder, 4, 9000, finish)
        device = Failing(name)
        device.error, device.at = errno.EIO, number
        with contextlib.suppress(Unavailable):
            tier, _ = await loaded(folder, device=device)
            await tier.close()
        assert await left(folder) == whole, f"call {number}"
        if device.calls < number:
            break
    assert number > 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]).returncode:
        pytest.skip("mounting a small file system takes root's rights")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)


@pytest.mark.parametrize("is_direct", [True, False])
async def test_a_full_disk(small_disk: Path, is_direct: bool) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(5 * MIB))
    folder = small_disk / "ssd"
    tier, region = await loaded(folder, segment_bytes=MIB, is_direct=is_direct)
    stored = [(await region.put(tier, [block(seed, 300_000)]))[0] for seed in range(14)]
    assert 5 < sum(stored) < 12
    assert tier.stats().state == "failing" or not all(stored)
    assert "No space left" in tier.stats().error
    keys = [name[2] for name in region.index]
    assert await region.get(tier, keys) == [content(int(key[4:]), 300_000) for key in keys]
    ballast.unlink()
    await wait_until(lambda: tier.stats().state == "ok")
    assert await region.put(tier, [block(100, 300_000)]) == [True]
    await abandon(tier)
    found = await left(folder)
    assert {*keys, b"key:100"} <= set(found)
    assert None not in found.values()


async def test_a_folder_that_may_only_be_read(small_disk: Path) -> None:
    whole = await filled(small_disk / "ssd", 4, 9000, False)
    remount(small_disk, "ro")
    tier, region = await loaded(small_disk / "ssd")
    assert await region.get(tier, list(whole)) == list(whole.values())
    assert await region.put(tier, [block(9, 9000)]) == [False]
    assert tier.stats().state == "failing"
    remount(small_disk, "rw")
    await wait_until(lambda: tier.stats().state == "ok")
    assert await region.put(tier, [block(9, 9000)]) == [True]
    await tier.close()
    assert await left(small_disk / "ssd") == {**whole, b"key:9": content(9, 9000)}


async def test_a_file_system_without_direct_io(tmp_path: Path) -> None:
    class NoDirect(Device):
        def open(self, path: str, flags: int) -> int:
            if flags & os.O_DIRECT:
                raise OSError(errno.EINVAL, "no direct I/O")
            return super().open(path, flags)

    tier, region = await loaded(tmp_path, device=NoDirect())
    assert all(await region.put(tier, [block(seed, 9000) for seed in range(3)]))
    assert tier.stats().more["direct_io"] == 0
    assert await region.get(tier, [b"key:0", b"key:2"]) == [content(0, 9000), content(2, 9000)]
    await tier.close()
    assert len(await left(tmp_path)) == 3


async def test_a_format_of_the_future_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "FORMAT", 9)
    await filled(tmp_path, 3, 9000, False)
    monkeypatch.undo()
    before = segments(tmp_path)[0].read_bytes()
    with pytest.raises(Unavailable, match="format 9 is not known here"):
        await ssd(tmp_path, Region()).open()
    assert segments(tmp_path)[0].read_bytes() == before


async def test_two_servers_never_share_a_folder(tmp_path: Path) -> None:
    tier, _ = await loaded(tmp_path)
    with pytest.raises(Unavailable, match="another process uses it"):
        await ssd(tmp_path, Region()).open()
    await tier.close()
    other, _ = await loaded(tmp_path)
    await other.close()
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable):
        await ssd(tmp_path / "file", Region()).open()


# ---- the size limit ------------------------------------------------------------------------------------------------


async def test_cleaning_keeps_what_is_worth_it_and_the_limit(tmp_path: Path) -> None:
    limit, segment = 16 * MIB, 2 * MIB
    region = Region()
    seeds = range(0, 8 * 13, 13)  # far enough apart that no segment has more than may be copied
    worth = [b"key:%d" % seed for seed in seeds]
    region.worth = set(worth)
    tier, _ = await loaded(tmp_path, region, limit_bytes=limit, segment_bytes=segment)
    for number in range(120):
        items = [block(number * 4 + at, 200_000) for at in range(4)]
        assert all(await region.put(tier, items))
        assert sum(path.stat().st_size for path in segments(tmp_path)) <= limit + segment
        assert tier.stats().used_bytes <= limit + segment
        recent = [item.meta.key for item in items]
        assert None not in await region.get(tier, recent)
    assert await region.get(tier, worth) == [content(seed, 200_000) for seed in seeds]
    await tier.cleaner.wait()
    stats = tier.stats()
    assert stats.moved > 8
    assert stats.dropped > 300
    assert stats.blocks == len(region.index) == 480 - stats.dropped
    keys = [name[2] for name in region.index]
    assert await region.get(tier, keys) == [content(int(key[4:]), 200_000) for key in keys]
    await tier.close()
    assert set(await left(tmp_path)) >= set(keys)


async def test_cleaning_ends_when_everything_is_worth_it(tmp_path: Path) -> None:
    """Copies are bounded, so puts find room; what goes is told."""
    region = Region()
    region.worth = None
    tier, _ = await loaded(tmp_path, region, limit_bytes=8 * MIB, segment_bytes=MIB)
    for seed in range(200):
        assert await region.put(tier, [block(seed, 150_000)]) == [True]
    await tier.cleaner.wait()
    stats = tier.stats()
    assert 0 < stats.moved <= stats.write.count * COPY_SHARE / (1 - COPY_SHARE)
    assert len(region.index) == 200 - stats.dropped == stats.blocks
    await tier.close()


async def test_what_is_deleted_while_it_is_moved_stays_deleted(tmp_path: Path) -> None:
    region = Region()
    tier, _ = await loaded(tmp_path, region, limit_bytes=8 * MIB, segment_bytes=MIB)
    region.worth = None
    random = Random(5)
    deletions: list[asyncio.Future[list[bool]]] = []
    for number in range(150):
        key = b"key:%d" % random.randrange(max(number, 1))
        if held := region.index.pop((b"m", b"", key), None):
            deletions.append(asyncio.ensure_future(tier.delete([held])))
        assert await region.put(tier, [block(number, 150_000)]) == [True]
    assert all(answer == [True] for answer in await asyncio.gather(*deletions))
    await tier.cleaner.wait()
    await tier.close()
    there = {name[2] for name in region.index}
    dropped = {key for word, key in region.told if word == "dropped"}
    found = set(await left(tmp_path))
    assert there <= found <= there | dropped
    assert tier.stats().moved


class Gate(Device):
    """Reads of blocks wait at a gate, once it is shut."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.reached = False

    def preadv(self, fd: int, buffers: Sequence[memoryview], at: int) -> int:
        if sum(buffer.nbytes for buffer in buffers) > 200_000:
            self.reached = True
            assert self.gate.wait(10)
        return super().preadv(fd, buffers, at)


async def test_a_deletion_overtakes_no_copy(tmp_path: Path) -> None:
    """The block is deleted, tombstone and all, while cleaning reads it in order to copy it."""
    region, device = Region(), Gate()
    region.worth = {b"key:0"}
    tier, _ = await loaded(tmp_path, region, device=device, limit_bytes=8 * MIB, segment_bytes=MIB)
    device.gate.clear()
    seed = 0
    while not device.reached:
        assert await region.put(tier, [block(seed, 300_000)]) == [True]
        seed += 1
        if tier.cleaner._task is not None:
            await wait_until(lambda: device.reached)
    assert await region.delete(tier, [b"key:0"]) == [True]
    device.gate.set()
    await tier.cleaner.wait()
    await tier.close()
    assert tier.stats().moved == 0
    assert b"key:0" not in await left(tmp_path)


async def test_a_segment_without_live_blocks_goes_at_once(tmp_path: Path) -> None:
    tier, region = await loaded(tmp_path, segment_bytes=MIB)
    assert all(await region.put(tier, [block(seed, 300_000) for seed in range(10)]))
    before = len(segments(tmp_path))
    assert all(await region.delete(tier, [b"key:%d" % seed for seed in range(9)]))
    await wait_until(lambda: len(segments(tmp_path)) <= 2)
    assert before > 3
    await tier.close()
    assert list(await left(tmp_path)) == [b"key:9"]


async def test_a_smaller_limit_after_a_restart(tmp_path: Path) -> None:
    tier, region = await loaded(tmp_path, segment_bytes=MIB)
    assert all(await region.put(tier, [block(seed, 300_000) for seed in range(40)]))
    await tier.close()
    tier, region = await loaded(tmp_path, segment_bytes=MIB, limit_bytes=4 * MIB)
    await tier.cleaner.wait()
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= 4 * MIB
    keys = [name[2] for name in region.index]
    assert keys
    assert await region.get(tier, keys) == [content(int(key[4:]), 300_000) for key in keys]
    await tier.close()


async def test_reads_of_a_segment_that_goes_are_finished_first(tmp_path: Path) -> None:
    device = Gate()
    tier, region = await loaded(tmp_path, segment_bytes=MIB, device=device)
    assert all(await region.put(tier, [block(seed, 300_000) for seed in range(10)]))
    held = region.index[b"m", b"", b"key:0"]
    item = Get(held.meta, held.place, aligned(bytes(300_000)))
    device.gate.clear()
    reading = asyncio.ensure_future(tier.get([item]))
    await wait_until(lambda: tier.log.segments[held.place >> 36].users > 0)
    reading.cancel()
    deleting = asyncio.ensure_future(region.delete(tier, [b"key:%d" % seed for seed in range(10)]))
    await wait_until(deleting.done)
    await wait_until(lambda: tier.log.segments[held.place >> 36].is_retired)
    for _ in range(4):
        await tier.log.run(lambda: None)  # behind whatever its threads were given
    assert not reading.done(), "its view is still being filled"
    assert held.place >> 36 in tier.log.segments
    device.gate.set()
    await asyncio.wait([reading])
    assert reading.cancelled()
    assert bytes(item.into) == content(0, 300_000)
    await wait_until(lambda: held.place >> 36 not in tier.log.segments)
    assert await tier.get([item]) == [False]
    await tier.close()


async def test_descriptors_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FILES_OPEN_MAX", 3)
    tier, region = await loaded(tmp_path, segment_bytes=MIB)
    assert all(await region.put(tier, [block(seed, 300_000) for seed in range(40)]))
    keys = [b"key:%d" % seed for seed in range(40)]
    assert await region.get(tier, keys) == [content(seed, 300_000) for seed in range(40)]
    assert len(tier.files.files._open) <= 3
    assert len(segments(tmp_path)) > 10
    await tier.close()
    assert not tier.files.files._open


async def test_held_places_are_those_of_the_scan(tmp_path: Path) -> None:
    tier, region = await loaded(tmp_path)
    assert all(await region.put(tier, [block(seed, 5000) for seed in range(20)]))
    places = {held.meta.key: held.place for held in region.index.values()}
    await tier.close()
    tier, region = await loaded(tmp_path)
    assert {held.meta.key: held.place for held in region.index.values()} == places
    assert all(await tier.contains([Held(*held) for held in region.index.values()]))
    await tier.close()
