"""The object tier beyond what every tier keeps to: parts, names, damage, archives, expiry, URLs, bounds."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import subprocess
import sys
import time
import traceback
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from tests.contract.object_stores import MIB, Bed, Store, bed, fast, got, item, opened, put_of, store
from tests.rigs.s3 import SECRET_KEY
from zeekdb.errors import Unavailable
from zeekdb.hot.checksum import checksum
from zeekdb.tensors.layout import Layout
from zeekdb.tiers import objects
from zeekdb.tiers.buckets import PART, parse_url
from zeekdb.tiers.envelope import digest, seal, unseal
from zeekdb.tiers.objects import DAY_S, PARTITIONS, ObjectTier, archive_path, path_of
from zeekdb.tiers.packing import Packer
from zeekdb.tiers.tier import Held, Put, name_of, place_of

__all__ = ["bed", "fast", "store"]  # fixtures


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
        assert all(re.fullmatch("blocks/[0-9a-f]{2}/[0-9a-f]{30}", key) for key in store.paths())
        assert len(store.paths()) == len(words)
        assert await tier.find([name_of(block.meta) for block in blocks]) == [block.meta for block in blocks]
        for block in blocks:
            assert await got(tier, block.meta) == block.data
        assert await tier.find([name_of(item(1, 1, key=b"..").meta)]) == [None]
        (too_long,) = await tier.put([item(1, 10, key=b"k" * 70_000)])
        assert too_long is None
        assert await tier.delete([Held(block.meta, place_of(block.meta)) for block in blocks]) == [True] * len(blocks)
        assert not store.paths()


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
        assert not store.paths()
        assert tier.stats().more["expired"] == 30


async def test_what_is_past_its_deadline_takes_no_room(tmp_path: Path) -> None:
    now, folder = int(time.time()), tmp_path / "o"
    blocks = [item(seed, 100, deadline=(0, now + 100, now + 300)[seed % 3]) for seed in range(30)]
    async with opened(f"file://{folder}") as tier:
        await tier.put(blocks)
        (folder / "blocks/ab").mkdir(exist_ok=True)
        (folder / "blocks/ab/not-ours").write_bytes(b"x")
        assert sum([await tier.expire(now + 200) for _ in range(PARTITIONS)]) == 10
        left = [block for block in blocks if block.meta.deadline != now + 100]
        assert await tier.find([name_of(block.meta) for block in left]) == [block.meta for block in left]
        assert (folder / "blocks/ab/not-ours").exists()


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
            for _ in range(pause * pause * 20):
                await asyncio.sleep(0)
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
    wrong = ["file://host/x", "file:x", "file:///x?y=z", "ftp://x", "s3:///x", "s3://", "s3://key@b", "gs://a:b@c"]
    for url in wrong:
        with pytest.raises(Unavailable):
            parse_url(url)


async def test_google_and_azure_sign_urls_too(tmp_path: Path) -> None:
    """Without asking anybody: what they serve is theirs, how a URL becomes a store of theirs is ours."""
    azure = ObjectTier(f"az://acc:{quote(base64.b64encode(b'k' * 32), safe='')}@box/a/p")
    url = await azure.bucket.sign("blocks/ab/cd", 60)
    assert url.startswith("https://acc.blob.core.windows.net/box/a/p/blocks/ab/cd?") and "sig=" in url
    key = subprocess.run(["openssl", "genrsa", "2048"], capture_output=True, check=True).stdout.decode()  # noqa: ASYNC221
    account = {"type": "service_account", "private_key": key, "private_key_id": "1", "client_email": "a@b.example",
               "client_id": "1", "token_uri": "https://oauth2.example/token"}  # fmt: skip
    (tmp_path / "account.json").write_text(json.dumps(account))
    google = ObjectTier(f"gs://box/a/p?service_account={tmp_path}/account.json")
    url = await google.bucket.sign("blocks/ab/cd", 60)
    assert "/box/a/p/blocks/ab/cd?" in url and "X-Goog-Signature=" in url and "X-Goog-Expires=60" in url
    await azure.close()
    await google.close()


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
    with pytest.raises(Unavailable) as told:
        ObjectTier(url)
    assert "verysecret" not in "".join(traceback.format_exception(told.value))
    assert str(told.value).startswith("kv-objects-url: ")


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
