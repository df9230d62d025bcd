"""The object tier beyond what every tier keeps to: storage that fails, lies, fills up, and gives out URLs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from tests.contract.region import wait_until
from tests.rigs.proxy import Proxy
from tests.rigs.s3 import ACCESS_KEY, REGION, S3, SECRET_KEY
from tests.rigs.shared import Rigs
from tests.support import ROOT
from zeekdb.errors import Unavailable
from zeekdb.hot.checksum import checksum
from zeekdb.tensors.layout import Layout
from zeekdb.tiers import buckets, guard, objects
from zeekdb.tiers.buckets import MARKER, PART, TEMPORARY, TEMPORARY_S, parse_url
from zeekdb.tiers.envelope import digest, seal, unseal
from zeekdb.tiers.guard import TierFailed
from zeekdb.tiers.objects import DAY_S, PARTITIONS, ObjectTier, archive_path, path_of
from zeekdb.tiers.packing import Packer
from zeekdb.tiers.tier import Get, Held, Meta, Put, name_of, place_of

MIB = 1 << 20


def item(seed: int, size: int, **fields: Any) -> Put:
    """A block of noise."""
    return put_of(Random(seed).randbytes(size), **{"key": b"key:%d" % seed} | fields)


def put_of(data: bytes, **fields: Any) -> Put:
    meta = Meta(b"m", b"", b"k", len(data), checksum(data))
    return Put(meta._replace(**fields), memoryview(bytearray(data)))


async def got(tier: ObjectTier, meta: Meta) -> bytes | bool | None:
    """The block, or what get said instead."""
    into = memoryview(bytearray(meta.size))
    (said,) = await tier.get([Get(meta, place_of(meta), into)])
    return bytes(into) if said else said


@contextlib.asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[ObjectTier]:
    tier = ObjectTier(url, **options)
    await tier.open()
    try:
        yield tier
    finally:
        await tier.close()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that does not take its time."""
    monkeypatch.setattr(guard, "BACKOFF_S", 0.001)
    monkeypatch.setattr(guard, "PROBE_S", 0.01)
    monkeypatch.setattr(guard, "PROBE_MAX_S", 0.05)


@dataclasses.dataclass
class Bed:
    """A bucket of moto's, with a network before it that fails on request."""

    server: S3
    bucket: str
    proxy: Proxy

    def url(self, endpoint: str = "", prefix: str = "/p") -> str:
        keys = f"access_key_id={ACCESS_KEY}&secret_access_key={quote(SECRET_KEY, safe='')}"
        at = endpoint or f"http://127.0.0.1:{self.proxy.port}"
        return f"s3://{self.bucket}{prefix}?endpoint={at}&region={REGION}&{keys}"

    def keys(self) -> list[str]:
        """Of all objects in the bucket."""
        return re.findall("<Key>([^<]*)</Key>", self.server.ask("GET", f"/{self.bucket}?list-type=2")[1].decode())

    def object(self, key: str) -> bytes:
        status, body = self.server.ask("GET", f"/{self.bucket}/{key}")
        assert status == 200
        return body

    def replace(self, key: str, body: bytes) -> None:
        assert self.server.ask("PUT", f"/{self.bucket}/{key}", body)[0] == 200


@pytest.fixture
def bed(rigs: Rigs) -> Bed:
    server = rigs.s3()
    return Bed(server, server.bucket(), rigs.proxy(server.address))


# ---- both kinds of storage -----------------------------------------------------------------------------------------


class Store:
    """A directory or a bucket, as a test wants to look into it."""

    def __init__(self, url: str, folder: Path | None, bed: Bed | None) -> None:
        self.url, self.folder, self.bed = url, folder, bed

    def keys(self) -> list[str]:
        if self.folder is None:
            assert self.bed is not None
            assert all(key.startswith("p/") for key in self.bed.keys())
            return [key.removeprefix("p/") for key in self.bed.keys()]
        found = [str(each.relative_to(self.folder)) for each in self.folder.rglob("*") if each.is_file()]
        return [path for path in found if path != MARKER]

    def read(self, key: str) -> bytes:
        if self.folder is None:
            assert self.bed is not None
            return self.bed.object(f"p/{key}")
        return (self.folder / key).read_bytes()

    def write(self, key: str, body: bytes) -> None:
        if self.folder is None:
            assert self.bed is not None
            self.bed.replace(f"p/{key}", body)
        else:
            (self.folder / key).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / key).write_bytes(body)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(f"file://{tmp_path}/objects", tmp_path / "objects", None)
    bed: Bed = request.getfixturevalue("bed")
    return Store(bed.url(), None, bed)


@pytest.mark.parametrize("coding", ["raw", "zstd", "int8"])
async def test_large_blocks_go_in_parts(store: Store, coding: str) -> None:
    layout = Layout(32, 8, 128, "f32", 256)
    size = layout.block_bytes
    assert size == 64 * MIB
    block = put_of(np.random.default_rng(1).standard_normal(size // 4, np.float32).tobytes())
    async with opened(store.url, coding=coding, layout_of=lambda _: layout, timeout_s=60) as tier:
        assert await tier.put([block]) == [place_of(block.meta)]
        assert sum(tier.stats().more[name] for name in ("failures", "retries")) == 0  # type: ignore[misc]
        data = await got(tier, block.meta)
    assert isinstance(data, bytes)
    assert coding == "int8" or data == block.data
    assert checksum(data) == unseal(store.read(path_of(block.meta)))[0].plain_checksum
    if store.bed is not None:
        listing = store.bed.server.ask("GET", f"/{store.bed.bucket}?list-type=2")[1].decode()
        parts = int(re.search(r"-(\d+)[^<0-9]*</ETag>", listing).group(1))  # type: ignore[union-attr]
        assert parts == -(-len(store.read(path_of(block.meta))) // PART)


async def test_what_is_there_is_not_written_again(store: Store) -> None:
    block = item(1, 50_000)
    async with opened(store.url) as here, opened(store.url) as there:
        await here.put([block])
        before = there.stats().more["sent_bytes"]
        assert await there.put([block]) == [place_of(block.meta)]
        assert (there.stats().more["sent_bytes"], there.stats().more["unchanged"]) == (before, 1)
        soon = int(time.time()) + 1000
        assert await there.find([name_of(block.meta)]) == [block.meta]
        await there.put([block._replace(meta=block.meta._replace(deadline=soon))])
        assert there.stats().more["sent_bytes"] == before, "it lives longer than it need"
        timed = item(2, 1000, deadline=soon)
        await here.put([timed])
        later = timed.meta._replace(deadline=soon + 1000)
        await there.put([timed._replace(meta=later)])
        assert await here.find([name_of(later)]) == [later]


async def test_names_of_all_kinds_stay_below_the_prefix(store: Store) -> None:
    words = [b"", b"..", b"../../x", b"/etc/passwd", b"a/b\\c", b"'; DROP TABLE x; --", b'"', b"\x00", b"\xff\xfe",
             b"%2e%2e/", b"#1", b"x" * 10_240, b"\r\nHost: x"]  # fmt: skip
    blocks = [item(at, 100, model=words[at - 3], salt=words[at - 7], key=word, group=words[at - 5])
              for at, word in enumerate(words)]  # fmt: skip
    async with opened(store.url) as tier:
        assert None not in await tier.put(blocks)
        assert all(re.fullmatch("blocks/[0-9a-f]{2}/[0-9a-f]{30}", key) for key in store.keys())
        assert len(store.keys()) == len(words)
        assert await tier.find([name_of(block.meta) for block in blocks]) == [block.meta for block in blocks]
        for block in blocks:
            assert await got(tier, block.meta) == block.data
        assert await tier.find([name_of(item(1, 1, key=b"..").meta)]) == [None]
        (too_long,) = await tier.put([item(1, 10, key=b"k" * 70_000)])
        assert too_long is None
        assert await tier.delete([Held(block.meta, place_of(block.meta)) for block in blocks]) == [True] * len(blocks)
        assert not store.keys()


async def test_damage_is_a_miss_and_the_next_put_heals_it(store: Store) -> None:
    block = item(1, 20_000)
    path = path_of(block.meta)
    async with opened(store.url) as tier:
        await tier.put([block])
        whole = store.read(path)
        (head, other) = (unseal(whole)[1], item(2, 20_000))
        await tier.put([other])
        sealed = unseal(whole)[0]
        swollen = seal(sealed._replace(stored_size=1 << 60)) + bytes(100)
        for damaged in (
            whole[: head + 5] + bytes([whole[head + 5] ^ 1]) + whole[head + 6 :],
            whole[:10] + bytes([whole[10] ^ 1]) + whole[11:],
            whole[:-1], whole[:head], whole[: head - 1], b"x", b"", whole[head:],
            store.read(path_of(other.meta)), swollen, b"ZKBH\x01\xff\xff\xff\xff",
        ):  # fmt: skip
            store.write(path, damaged)
            assert await got(tier, block.meta) is False, damaged[:20]
            assert await tier.put([block]) == [place_of(block.meta)]
            assert store.read(path) == whole
            assert await got(tier, block.meta) == block.data
        assert tier.stats().corrupt == 11


async def test_archives_outlive_the_block(store: Store) -> None:
    versions = {number: item(number, 9000 + number, key=b"k") for number in (3, 10, 2)}
    name = name_of(versions[3].meta)
    async with opened(store.url) as tier:
        for number, block in versions.items():
            assert await tier.archive(block.meta, block.data, number)
        assert await tier.archived(name) == [2, 3, 10]
        assert await tier.find([name]) == [None], "an archived version is no block"
        await tier.put([versions[10]])
        await tier.delete([Held(versions[10].meta, 0)])
        for number, block in versions.items():
            assert await tier.restore(name, number) == (block.meta, block.data)
        assert await tier.restore(name, 4) is None
        assert await tier.discard(name, [3, 10, 99])
        assert await tier.archived(name) == [2]
        sealed = Packer().pack(versions[2].meta, versions[2].data)[0]
        bomb = sealed._replace(meta=sealed.meta._replace(size=1 << 50), coding="zstd")
        store.write(archive_path(name, 2), seal(bomb) + bytes(9002))
        assert await tier.restore(name, 2) is None
        store.write(archive_path(name, 2), b"nothing of ours")
        assert await tier.restore(name, 2) is None
        assert [held async for held in tier.scan()] in ([], [[]])


async def test_what_has_stayed_too_long_goes(store: Store) -> None:
    blocks = [item(seed, 100) for seed in range(30)]
    async with opened(store.url) as tier:
        await tier.put(blocks)
        now = time.time()

        async def turn(now_s: float) -> int:
            return sum([await tier.expire(now_s) for _ in range(PARTITIONS)])

        assert await turn(now + 100 * DAY_S) == 0, "for good"
        tier.ttl_days = 7
        assert await turn(now + 6 * DAY_S) == 0
        assert await turn(now + 8 * DAY_S) == 30
        assert not store.keys()
        assert tier.stats().more["expired"] == 30


async def test_scan_leaves_out_what_is_not_ours(store: Store) -> None:
    block, late = item(1, 100), item(2, 100, deadline=int(time.time()) - 1)
    async with opened(store.url) as tier:
        await tier.put([block, late])
        store.write("blocks/ab/readme.txt", b"hello")
        store.write("blocks/ab/" + "0" * 30, store.read(path_of(block.meta)))
        store.write("elsewhere/x", b"")
        assert [[Held(block.meta, place_of(block.meta))]] == [held async for held in tier.scan()]
        assert await tier.find([name_of(late.meta)]) == [None]
        assert await got(tier, late.meta) is False


async def test_cancelled_calls_leave_memory_alone(store: Store) -> None:
    block = item(1, 20 * MIB)
    async with opened(store.url) as tier:
        for pause in range(6):
            task = asyncio.ensure_future(tier.put([block]))
            for _ in range(pause * 3):
                await asyncio.sleep(0.001)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            probe = memoryview(block.data.obj)
            block.data.release()  # BufferError if somebody still reads it
            block = Put(block.meta, probe)
        await tier.put([block])
        assert await got(tier, block.meta) == block.data


# ---- URLs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["raw", "zstd"])
async def test_a_presigned_url_serves_the_object(bed: Bed, coding: str) -> None:
    text = put_of(b"numbers of a model " * 5000)
    async with opened(bed.url(), coding=coding) as tier:
        await tier.put([text])
        url = await tier.url(name_of(text.meta), 60)
        assert url is not None
        assert "X-Amz-Expires=60" in url and "X-Amz-Signature=" in url
        body = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read())
        assert body == bed.object("p/" + path_of(text.meta))
        sealed, begin = unseal(body)  # what docs/KV.md tells readers to do
        into = bytearray(sealed.meta.size)
        assert Packer().unpack(sealed, memoryview(body)[begin:], memoryview(into))
        assert into == text.data
        assert await tier.url(name_of(item(2, 1).meta), 60) is None
        for seconds in (0, -1, 8 * DAY_S):
            with pytest.raises(ValueError, match="lives from 1"):
                await tier.url(name_of(text.meta), seconds)
        bed.proxy.dead()
        with pytest.raises(Unavailable) as said:
            await tier.url(name_of(text.meta), 60)
        assert SECRET_KEY not in str(said.value)


async def test_a_directory_has_no_urls(tmp_path: Path) -> None:
    async with opened(f"file://{tmp_path}/o") as tier:
        await tier.put([item(1, 10)])
        with pytest.raises(Unavailable, match="only object storage"):
            await tier.url(name_of(item(1, 10).meta), 60)


# ---- storage that fails --------------------------------------------------------------------------------------------


async def test_a_reply_cut_in_the_middle(bed: Bed, fast: None) -> None:
    block = item(1, 3 * MIB)
    async with opened(bed.url()) as tier:
        await tier.put([block])
        bed.proxy.cut(100_000)
        assert await got(tier, block.meta) is None, "the storage may well have it"
        assert bed.proxy.cuts > 0
        bed.proxy.passing()
        await wait_until(lambda: tier.stats().state == "ok")
        assert await got(tier, block.meta) == block.data
        assert tier.stats().read.errors == 1


async def test_dead_storage_is_told_and_comes_back(bed: Bed, fast: None, caplog: pytest.LogCaptureFixture) -> None:
    block, new = item(1, 1000), item(2, 1000)
    async with opened(bed.url()) as tier:
        await tier.put([block])
        bed.proxy.dead()
        for _ in range(3):
            assert await got(tier, block.meta) is None
            assert await tier.put([new]) == [None]
            assert await tier.find([name_of(block.meta)]) == [None]
            assert await tier.delete([Held(block.meta, 0)]) == [False]
        stats = tier.stats()
        assert stats.state == "failing" and stats.error
        assert stats.more["breaker"] != "closed"
        bed.proxy.passing()
        await wait_until(lambda: tier.stats().state == "ok")
        assert await got(tier, block.meta) == block.data
        assert await tier.put([new]) == [place_of(new.meta)]
        assert not tier.stats().error
    assert SECRET_KEY not in caplog.text and quote(SECRET_KEY, safe="") not in caplog.text


async def test_storage_that_is_dead_at_the_start(bed: Bed, fast: None) -> None:
    bed.proxy.dead()
    async with opened(bed.url()) as tier:
        assert [page async for page in tier.scan()] == []
        assert tier.stats().error
        bed.proxy.passing()
        await wait_until(lambda: tier.stats().state == "ok")
        assert await tier.put([item(1, 10)]) != [None]


async def test_silent_storage_is_waited_for_no_longer_than_told(bed: Bed, fast: None) -> None:
    block = item(1, 100_000)
    async with opened(bed.url(), timeout_s=0.2) as tier:
        await tier.put([block])
        bed.proxy.hang()
        assert await got(tier, block.meta) is None
        assert await tier.put([item(2, MIB)]) == [None]
        assert "in time" in tier.stats().error or "operation timed out" in tier.stats().error, tier.stats().error
        bed.proxy.passing()
        await wait_until(lambda: tier.stats().state == "ok")


SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def reply(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status.encode(), len(body), body)


async def test_slow_down_is_tried_again(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BACKOFF_S", 0.2)
    block = item(1, 1000)
    async with opened(bed.url()) as tier:
        bed.proxy.answer(reply("503 Slow Down", SLOW_DOWN), closes=True)
        task = asyncio.ensure_future(tier.put([block]))
        await wait_until(lambda: bed.proxy.answered > 0)
        bed.proxy.passing()
        assert await task == [place_of(block.meta)]
        assert tier.reading.retries + tier.writing.retries >= 1
        assert tier.stats().state == "ok"
        assert await got(tier, block.meta) == block.data


@pytest.mark.parametrize(
    ("status", "code"), [("403 Forbidden", b"AccessDenied"), ("503 Slow Down", b"SlowDown"), ("500 Oops", b"")]
)
async def test_refusals_are_told(bed: Bed, fast: None, status: str, code: bytes) -> None:
    async with opened(bed.url()) as tier:
        await tier.put([item(1, 1000)])
        secret = b"<Error><Code>%s</Code><Url>?X-Amz-Signature=abcdef0123&amp;x</Url>%s</Error>"
        bed.proxy.answer(reply(status, secret % (code, SECRET_KEY.encode())), closes=True)
        assert await tier.put([item(2, 1000)]) == [None]
        assert await got(tier, item(1, 1000).meta) is None
        stats = tier.stats()
        assert stats.state == "failing"
        assert status[:3] in stats.error
        assert SECRET_KEY not in stats.error and "abcdef0123" not in stats.error
        bed.proxy.passing()
        await wait_until(lambda: tier.stats().state == "ok")
        assert await got(tier, item(1, 1000).meta) == item(1, 1000).data


async def test_a_missing_bucket_is_no_miss(bed: Bed, fast: None) -> None:
    url = bed.url().replace(bed.bucket, "there-is-no-such-bucket")
    async with opened(url) as tier:
        for _ in range(2):
            assert await got(tier, item(1, 1000).meta) is None
            assert await tier.put([item(1, 1000)]) == [None]
        assert tier.stats().state == "failing"
        assert "NoSuchBucket" in tier.stats().error or "not exist" in tier.stats().error
        assert [page async for page in tier.scan()] == []
        with pytest.raises(TierFailed):
            await tier.restore(name_of(item(1, 1000).meta), 1)
        assert not await tier.archive(item(1, 1000).meta, item(1, 1000).data, 1)


async def test_a_large_put_that_is_cut_leaves_no_block(bed: Bed, fast: None) -> None:
    block = item(1, 20 * MIB)
    async with opened(bed.url(), timeout_s=2) as tier:
        task = asyncio.ensure_future(tier.put([block]))
        await wait_until(lambda: bed.proxy.bytes_up > 9 * MIB)
        bed.proxy.dead()
        assert await task == [None]
        assert bed.keys() == []
        block.data.release()  # nobody reads it any more
        bed.proxy.passing()
        await wait_until(lambda: tier.stats().state == "ok")


async def test_keys_from_the_environment(
    bed: Bed, fast: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in bed.server.environment.items():
        monkeypatch.setenv(name, value)
    async with opened(f"s3://{bed.bucket}/p?endpoint=http://127.0.0.1:{bed.proxy.port}") as tier:
        await tier.put([item(1, 100)])
        assert await got(tier, item(1, 100).meta) == item(1, 100).data
        bed.proxy.answer(reply("403 Forbidden", SECRET_KEY.encode()), closes=True)
        assert await tier.put([item(2, 100)]) == [None]
        assert "403" in tier.stats().error and SECRET_KEY not in tier.stats().error
    assert SECRET_KEY not in caplog.text


# ---- directories ---------------------------------------------------------------------------------------------------


WRITER = """
import asyncio, os, sys
from random import Random
from zeekdb.hot.checksum import checksum
from zeekdb.tiers.objects import ObjectTier
from zeekdb.tiers.tier import Meta, Put

async def main(url, seed):
    tier = ObjectTier(url)
    await tier.open()
    number = 0
    async def one():
        nonlocal number
        while True:
            number += 1
            key = b"%d:%d" % (seed, number % 50)
            data = Random(hash((seed, number))).randbytes(Random(number).choice([100, 70_000, 3_000_000]))
            meta = Meta(b"m", b"", key, len(data), checksum(data))
            os.write(1, b"began %s %d\\n" % (key, meta.checksum))
            if (await tier.put([Put(meta, memoryview(data))]))[0] is not None:
                os.write(1, b"put %s %d %d\\n" % (key, meta.size, meta.checksum))
    await asyncio.gather(*(one() for _ in range(4)))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_a_killed_process_leaves_whole_blocks_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    confirmed: dict[bytes, set[int]] = {}  # what may lie under a key: the last that was put, and what was begun since
    random, total = Random(4), 0
    for seed in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, f"file://{folder}", str(seed)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(random.randrange(20, 120))]
        writer.kill()
        lines += writer.stdout.read().splitlines()
        writer.wait()
        for line in lines:
            word, key, *numbers = line.split()
            if word == b"put":
                confirmed[key] = {int(numbers[1])} | (confirmed.get(key, set()) - {0} if key in confirmed else set())
                total += 1
            else:
                confirmed.setdefault(key, {0}).add(int(numbers[0]))
        async with opened(f"file://{folder}") as tier:
            found = {held.meta.key: held.meta async for page in tier.scan() for held in page}
            for meta in found.values():
                assert isinstance(await got(tier, meta), bytes), "a torn block can be seen"
            for key, checksums in confirmed.items():
                assert key in found or 0 in checksums, "a block that was confirmed is gone"
                assert key not in found or found[key].checksum in checksums
            assert tier.stats().corrupt == 0
    assert total > 50
    left = list((folder / TEMPORARY).iterdir())
    for each in left:
        os.utime(each, (time.time() - TEMPORARY_S - 1,) * 2)
    async with opened(f"file://{folder}"):
        assert not list((folder / TEMPORARY).iterdir())


async def test_put_syncs_before_it_confirms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, name, directory, in this order, and nothing is confirmed before."""
    steps: list[str] = []

    def spy(name: str, real: Callable[..., Any], label: Callable[..., str]) -> None:
        def call(*arguments: Any) -> Any:
            steps.append(f"{name} {label(*arguments)}")
            return real(*arguments)

        monkeypatch.setattr(buckets.os, name, call)

    async with opened(f"file://{tmp_path}/o") as tier:
        meta = item(1, 100).meta
        spy("fsync", os.fsync, lambda fd: os.readlink(f"/proc/self/fd/{fd}").removeprefix(f"{tmp_path}/o"))
        spy("replace", os.replace, lambda _, path: str(path).removeprefix(f"{tmp_path}/o"))
        assert await tier.put([item(1, 100)]) == [place_of(meta)]
        path = "/" + path_of(meta)
        steps = [re.sub(f"{TEMPORARY}/.*", TEMPORARY, step) for step in steps]
        parent = path.rpartition("/")[0]
        wanted = [f"fsync /{TEMPORARY}", "fsync ", "fsync /blocks", f"replace {path}", f"fsync {parent}"]
        assert [step for step in steps if step in wanted] == wanted
        steps.clear()
        assert await tier.delete([Held(meta, 0)]) == [True]
        assert steps == [f"fsync {parent}"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]).returncode:
        pytest.skip("mounting a small file system takes root's rights")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_full_disk_hides_nothing(small_disk: Path, fast: None) -> None:
    async with opened(f"file://{small_disk}") as tier:
        stored = [block for block in (item(seed, MIB) for seed in range(12)) if await tier.put([block]) != [None]]
        assert 4 <= len(stored) <= 7
        assert "space" in tier.stats().error
        assert tier.reading.failures_total == 0
        for block in stored:
            assert await got(tier, block.meta) == block.data
        assert not list((small_disk / TEMPORARY).iterdir()), "what could not be written takes no room"
        await wait_until(lambda: tier.stats().state == "ok")
        assert await tier.delete([Held(block.meta, 0) for block in stored]) == [True] * len(stored)
        assert await tier.put([item(99, MIB)]) != [None]


async def test_a_disk_that_may_only_be_read(small_disk: Path, fast: None) -> None:
    block = item(1, 1000)
    async with opened(f"file://{small_disk}") as tier:
        await tier.put([block])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    async with opened(f"file://{small_disk}") as tier:
        for seed in range(2, 5):
            assert await tier.put([item(seed, 1000)]) == [None]
        assert tier.stats().state == "failing"
        assert "ead-only" in tier.stats().error
        assert await got(tier, block.meta) == block.data
        assert await tier.delete([Held(block.meta, 0)]) == [False]
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        await wait_until(lambda: tier.stats().state == "ok")
        assert await tier.put([item(2, 1000)]) != [None]


async def test_a_disk_that_is_not_there_is_no_empty_disk(tmp_path: Path, fast: None) -> None:
    folder, block = tmp_path / "o", item(1, 1000)
    async with opened(f"file://{folder}") as tier:
        await tier.put([block])
        folder.rename(tmp_path / "away")
        folder.mkdir()
        assert await got(tier, block.meta) is None
        assert await tier.put([item(2, 10)]) == [None]
        assert not list(folder.iterdir()), "what lies below a mount point is lost when the disk is back"
        assert "mounted" in tier.stats().error
        folder.rmdir()
        (tmp_path / "away").rename(folder)
        await wait_until(lambda: tier.stats().state == "ok")
        assert await got(tier, block.meta) == block.data


# ---- what the URL says ---------------------------------------------------------------------------------------------


def test_urls() -> None:
    place = parse_url("s3://key:se%2Fcret@bucket/a/b/?endpoint=http://h:1&REGION=x&secret_access_key=a+b%2Bc")
    assert (place.scheme, place.name, place.prefix) == ("s3", "bucket", "a/b")
    assert place.config == {
        "access_key_id": "key", "secret_access_key": "a+b+c", "endpoint": "http://h:1", "region": "x",
    }  # fmt: skip
    assert place.client == {"allow_http": True}
    assert parse_url("s3://b?endpoint=https://h").client == {}
    assert parse_url("az://acc:k%3D%3D@box/p").config == {"account_name": "acc", "account_key": "k=="}
    assert parse_url("gs://b/p?service_account=/x.json").config == {"service_account": "/x.json"}
    assert parse_url("file:///a%20b/c").prefix == "/a b/c"
    for wrong in ("file://host/x", "file:x", "file:///x?y=z", "ftp://x", "s3:///x", "s3://", "s3://key@b", "gs://a:b@c"):
        with pytest.raises(Unavailable):
            parse_url(wrong)


@pytest.mark.parametrize(
    "url",
    [
        "s3://b?nonsense=verysecret",
        "s3://b?endpoint=http://x:99999999&secret_access_key=verysecret",
        "s3://b/a/../c?secret_access_key=verysecret",
        "az://b?account_key=verysecret&account_name=x",
        "gs://b?service_account_key=verysecret",
        "s3://b?checksum_algorithm=verysecret",
    ],
)
async def test_a_url_that_will_not_do_is_told_without_its_secrets(url: str) -> None:
    try:
        tier = ObjectTier(url)
    except Unavailable as error:
        assert "verysecret" not in str(error)
        assert str(error).startswith("kv-objects-url: ")
        assert error.__suppress_context__ or error.__context__ is None
    else:
        assert "99999999" in url, "it was taken"
        await tier.close()


async def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="kv-objects-url: can't make"):
        ObjectTier(f"file://{tmp_path}/file/o")


async def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(Unavailable, match="pip install"):
        ObjectTier(f"file://{tmp_path}/o")


async def test_bounds_on_what_is_under_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "UNDER_WAY_BYTES", 3 * MIB)
    async with opened(store.url, pool=3, max_bytes=2 * MIB) as tier:
        most, real = [0, 0], tier.bucket.write

        async def write(path: str, pieces: Any) -> None:
            most[0] = max(most[0], tier.stats().more["requests"])  # type: ignore[type-var]
            most[1] = max(most[1], tier.stats().queue_bytes)
            await real(path, pieces)

        monkeypatch.setattr(tier.bucket, "write", write)
        blocks = [item(seed, MIB) for seed in range(12)]
        places = await asyncio.gather(*(tier.put(blocks[at : at + 4]) for at in range(0, 12, 4)))
        assert all(None not in each for each in places)
        assert most == [3, 3 * MIB]
        assert tier.stats().queue_bytes == tier.stats().more["requests"] == 0
        assert await tier.put([item(1, 2 * MIB + 1)]) == [None]


def test_a_digest_is_all_that_a_path_is_made_of() -> None:
    name = name_of(item(1, 1).meta)
    assert path_of(name) == f"blocks/{digest(name)[:2]}/{digest(name)[2:]}"
    assert archive_path(name, 7) == f"archive/{digest(name)}/7"
