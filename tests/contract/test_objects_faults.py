"""Object storage that is dead, slow, cut, refusing, full, read-only, or was killed in the middle."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.contract.object_stores import MIB, Bed, bed, fast, got, item, opened, store
from tests.contract.region import wait_until
from tests.rigs.s3 import SECRET_KEY
from tests.support import DEADLINE_S
from zeekdb.tiers import buckets, guard
from zeekdb.tiers.buckets import TEMPORARY
from zeekdb.tiers.guard import TierFailed
from zeekdb.tiers.objects import path_of
from zeekdb.tiers.tier import Held, name_of, place_of

__all__ = ["bed", "fast", "store"]  # fixtures

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
        assert bed.paths() == []
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


async def test_a_disk_that_hangs_hides_nothing(
    tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    goes_on, real, block = threading.Event(), os.fsync, item(1, 200_000)
    async with opened(f"file://{tmp_path}/o") as tier:
        await tier.put([block])
        monkeypatch.setattr(buckets.os, "fsync", lambda fd: (goes_on.wait(DEADLINE_S), real(fd))[1])
        try:
            tier.timeout_s = 0.05
            assert await tier.put([item(seed, 100) for seed in range(2, 20)]) == [None] * 18
            assert "in time" in tier.stats().error
            tier.timeout_s = DEADLINE_S
            assert await got(tier, block.meta) == block.data
        finally:
            goes_on.set()
        await wait_until(lambda: tier.stats().state == "ok")
        assert await tier.put([item(2, 100)]) != [None]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]).returncode:
        pytest.skip("mounting a small file system takes root's rights")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def remount(place: Path, how: str) -> None:
    words = ["mount", "-o", f"remount,{how}", str(place)]
    await asyncio.to_thread(subprocess.run, words, check=True)


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
    await remount(small_disk, "ro")
    async with opened(f"file://{small_disk}") as tier:
        for seed in range(2, 5):
            assert await tier.put([item(seed, 1000)]) == [None]
        assert tier.stats().state == "failing"
        assert "ead-only" in tier.stats().error
        assert await got(tier, block.meta) == block.data
        assert await tier.delete([Held(block.meta, 0)]) == [False]
        await remount(small_disk, "rw")
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
