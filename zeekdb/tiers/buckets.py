"""Object storage by its URL: S3 and what speaks it, Google's, Azure's, or a directory, all through obstore.

    s3://[KEY:SECRET@]bucket[/prefix][?endpoint=…&region=…&access_key_id=…&secret_access_key=…&…]
    gs://bucket[/prefix][?service_account=FILE&…]
    az://[ACCOUNT:KEY@]container[/prefix][?account_name=…&account_key=…&endpoint=…&…]
    file:///DIR

Parameters are those of obstore's stores, and some of its HTTP client's (CLIENT_OPTIONS). What the URL does not say
comes from where the cloud's own tools find it: AWS_…, GOOGLE_…, AZURE_… of the environment, or the machine's role.

*A directory* is made durable here. obstore writes an object beside its place and renames it, so that nobody sees half
of one, but it syncs nothing: after a power cut the name may be there and the bytes not. So an object is written as a
temporary one first, synced, renamed by us, and then the directory is synced. What a killed process leaves is in `tmp/`,
which `open` clears of what is old. A file of ours in the root tells an empty directory from a disk that is not mounted.

*Buffers.* An upload reads the caller's memory without a copy, in threads that Python does not see. Who gives up waiting
(a timeout) has not ended that: `write` returns only when no thread holds the memory any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from zeekdb.errors import Unavailable

PART: Final = 8 << 20  # bytes of one request's body; 10,000 of them are S3's largest object
RATE_MIN: Final = 1 << 20  # bytes/s that a transfer is given time for
PARTS_AT_ONCE: Final = 4  # of one object
PAGE: Final = 1000  # objects of one page of a listing: S3's limit
REMOVED_AT_ONCE: Final = 1000  # S3's limit, too
LISTING_PAGES_MAX: Final = 1 << 20
RELEASE_S: Final = 5.0  # how long an upload that was given up may hold its memory
RELEASE_STEP_S: Final = 0.002
TEMPORARY_S: Final = 3600.0  # age at which a temporary file is nobody's
MARKER: Final = "zeekdb.tier"
TEMPORARY: Final = "tmp"
MISSING_WORDS: Final = ("NoSuchBucket", "ContainerNotFound", "specified bucket does not exist")
BEYOND_WORDS: Final = ("Requested range was invalid", "status code: 416 ")
STATUS = re.compile(r"status code: (?P<status>\d+[^:<\n]*)")
ELEMENTS = re.compile(r"<(?:Code|Message)>([^<]*)</")
CLIENT_OPTIONS: Final = frozenset({"allow_http", "allow_invalid_certificates", "connect_timeout", "proxy_url"})
SECRET_VARIABLES: Final = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_KEY",
    "AZURE_CLIENT_SECRET", "GOOGLE_SERVICE_ACCOUNT_KEY",
)  # fmt: skip

Run = Callable[..., Awaitable[Any]]


class BucketGone(OSError):
    """The bucket, the container or the directory is not there: nothing can be said of what is in it."""


class Listed(NamedTuple):
    """An object of a listing."""

    path: str
    size: int
    modified_s: float


def said(error: str) -> str:
    """What a message of obstore's comes to: of a reply its status, code and text, otherwise all but the dump behind."""
    text = error.split("\n\nDebug source", 1)[0]
    status = STATUS.search(text)
    return text if status is None else ": ".join([status["status"].strip(), *ELEMENTS.findall(text)])


class Bucket:
    """A place that holds objects under paths. Failures are `failures`; see `open_bucket`."""

    folder: Path | None = None

    def __init__(self, obstore: Any, store: Any, patient: Any) -> None:
        self._obstore = obstore
        self.store = store
        self._patient = patient  # tries a request again by itself: for uploads in many requests
        self.failures: tuple[type[BaseException], ...] = (obstore.exceptions.BaseError, OSError)

    async def open(self) -> None:
        """Prepares what writing needs. OSError."""

    async def read(self, path: str, start: int, length: int) -> memoryview | None:
        """At most `length` bytes from there on; None: there is no such object."""
        if not length:
            return memoryview(b"")
        try:
            data = await self._obstore.get_range_async(self.store, path, start=start, length=length)
        except FileNotFoundError as error:
            await self._missing(error)
            return None
        except self._obstore.exceptions.GenericError as error:
            if not any(word in str(error).split("\n", 1)[0] for word in BEYOND_WORDS):
                raise
            return memoryview(b"")  # an object that ends before: S3 has no answer of no bytes
        return memoryview(data)

    async def _missing(self, error: FileNotFoundError) -> None:
        """BucketGone where the object is not all that is missing."""
        if any(word in str(error) for word in MISSING_WORDS):
            raise BucketGone(said(str(error))) from None

    async def write(self, path: str, pieces: Sequence[memoryview]) -> None:
        """An object of these bytes, all of it or nothing, once it is safe. The pieces are free when this returns."""
        parts = list(_parts(pieces))
        try:
            await self._upload(path, parts, sum(map(len, pieces)))
        finally:
            await _released(parts)

    async def _upload(self, path: str, parts: list[memoryview], size: int) -> None:
        try:
            if size > PART:
                await self._obstore.put_async(
                    self._patient, path, parts, use_multipart=True, chunk_size=PART, max_concurrency=PARTS_AT_ONCE,
                )  # fmt: skip
            else:
                await self._obstore.put_async(self.store, path, parts, use_multipart=False)
        except FileNotFoundError as error:
            raise BucketGone(said(str(error))) from None

    async def remove(self, paths: Sequence[str]) -> None:
        """The objects are no more, once that is safe; those that were not there do no harm."""
        for at in range(0, len(paths), REMOVED_AT_ONCE):
            some = paths[at : at + REMOVED_AT_ONCE]
            try:
                await self._obstore.delete_async(self.store, some)
            except FileNotFoundError:  # stores without a call for many stop at the first that is missing
                for path in some:
                    await self._remove_one(path)

    async def _remove_one(self, path: str) -> None:
        try:
            await self._obstore.delete_async(self.store, path)
        except FileNotFoundError as error:
            await self._missing(error)

    async def pages(self, prefix: str) -> AsyncIterator[list[Listed]]:
        """What lies below, in lists of at most PAGE, in no order."""
        stream = self._obstore.list(self.store, prefix, chunk_size=PAGE)
        for _ in range(LISTING_PAGES_MAX):
            try:
                page = await anext(stream, None)
            except FileNotFoundError as error:
                await self._missing(error)
                return
            if page is None:
                return
            yield [Listed(each["path"], each["size"], each["last_modified"].timestamp()) for each in page]

    async def probe(self) -> None:
        """One small request."""
        await self.read(MARKER, 0, 1)

    async def sign(self, path: str, seconds: int) -> str:
        """A URL that whoever has it may GET the object from, for so long. Unavailable."""
        url: str = await self._obstore.sign_async(self.store, "GET", path, timedelta(seconds=seconds))
        return url


class Folder(Bucket):
    """A directory."""

    def __init__(self, obstore: Any, folder: Path, run: Run) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            store = obstore.store.LocalStore(folder)
        except OSError as error:
            raise Unavailable(f"kv-objects-url: can't make {folder}: {error.strerror}") from None
        super().__init__(obstore, store, store)
        self.folder = folder
        self._run = run
        self._made: set[Path] = set()

    async def open(self) -> None:
        await self._run(self._prepare)

    def _prepare(self) -> None:
        assert self.folder is not None
        self._make_folder(self.folder / TEMPORARY)
        for each in os.scandir(self.folder / TEMPORARY):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - each.stat().st_mtime > TEMPORARY_S:
                    os.unlink(each.path)
        if not (self.folder / MARKER).exists():
            (self.folder / MARKER).write_bytes(b"Blocks of ZeekDB's tensor region, kv-objects-url.\n")
        _sync_folder(self.folder)

    async def _missing(self, error: FileNotFoundError) -> None:
        await self._run(self._check)

    def _check(self) -> None:
        assert self.folder is not None
        if not (self.folder / MARKER).exists():
            self._made.clear()
            raise BucketGone(f"{self.folder / MARKER} is missing: is the disk mounted?")

    async def _upload(self, path: str, parts: list[memoryview], size: int) -> None:
        assert self.folder is not None
        temporary = f"{TEMPORARY}/{secrets.token_hex(16)}"
        await self._run(self._check)
        try:
            await self._obstore.put_async(self.store, temporary, parts, use_multipart=False)
            await self._run(self._place, self.folder / temporary, self.folder / path, size)
        except BaseException:
            with contextlib.suppress(OSError):
                await self._run(os.unlink, self.folder / temporary)
            raise

    def _place(self, temporary: Path, path: Path, size: int) -> None:
        """Under its name, with all of its bytes, whatever happens from now on."""
        fd = os.open(temporary, os.O_RDONLY)
        try:
            if os.fstat(fd).st_size != size:
                raise OSError(f"{temporary} is not whole")
            os.fsync(fd)
        finally:
            os.close(fd)
        self._make_folder(path.parent)
        try:
            os.replace(temporary, path)
        except FileNotFoundError:
            self._made.clear()  # somebody has removed a directory
            raise
        _sync_folder(path.parent)

    def _make_folder(self, folder: Path) -> None:
        """A directory that survives, with all above it."""
        if folder in self._made or folder == self.folder:
            return
        self._make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        _sync_folder(folder.parent)  # also where another thread has just made it, and has not got so far
        self._made.add(folder)

    async def remove(self, paths: Sequence[str]) -> None:
        assert self.folder is not None
        for path in paths:
            await self._remove_one(path)
        await self._run(_sync_folders, {(self.folder / path).parent for path in paths})

    async def sign(self, path: str, seconds: int) -> str:
        raise Unavailable("kv-objects-url is a directory: only object storage gives out URLs")


def _parts(pieces: Iterable[memoryview]) -> Iterable[memoryview]:
    """In pieces that one request takes, so that not all of a large object is under way at once."""
    for piece in pieces:
        for at in range(0, len(piece), PART):
            yield piece[at : at + PART]


async def _released(parts: Iterable[memoryview]) -> None:
    """Waits until nobody else holds them: a view that is still exported cannot be released."""
    end_s = time.monotonic() + RELEASE_S
    for part in parts:
        while True:
            try:
                part.release()
                break
            except BufferError:
                if time.monotonic() > end_s:
                    return  # it reads on in memory that may change; the checksums will not agree
                await asyncio.sleep(RELEASE_STEP_S)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_folders(folders: Iterable[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            _sync_folder(folder)


# ---- from a URL ----------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """What a URL says."""

    scheme: str
    name: str  # of the bucket, the container; empty for a directory
    prefix: str  # or the directory's path
    config: dict[str, str]
    client: dict[str, Any]


USER_KEYS: Final = {"s3": ("access_key_id", "secret_access_key"), "az": ("account_name", "account_key")}


def parse_url(url: str) -> Place:
    """Unavailable, and why, with no secret in it."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    given = dict(_parameter(each) for each in parts.query.split("&") if each)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or given:
            raise Unavailable("kv-objects-url: a directory is file:///DIR, without parameters")
        return Place("file", "", path, {}, {})
    if parts.scheme not in ("s3", "gs", "az"):
        raise Unavailable(f"kv-objects-url: no such kind of storage: {parts.scheme}://")
    user, _, host = parts.netloc.rpartition("@")
    if not host:
        raise Unavailable(f"kv-objects-url: {parts.scheme}:// needs the name of a bucket")
    if user:
        if parts.scheme not in USER_KEYS or ":" not in user:
            raise Unavailable("kv-objects-url: what stands before the @ must be KEY:SECRET, of s3:// or az://")
        words = (unquote(word) for word in user.split(":", 1))
        given = dict(zip(USER_KEYS[parts.scheme], words, strict=True)) | given
    client: dict[str, Any] = {name: given.pop(name) for name in CLIENT_OPTIONS & given.keys()}
    for name in ("allow_http", "allow_invalid_certificates"):
        if name in client:
            client[name] = client[name].lower() in ("true", "yes", "1")
    if given.get("endpoint", given.get("base_url", "")).startswith("http://"):
        client.setdefault("allow_http", True)
    return Place(parts.scheme, host, path.strip("/"), given, client)


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")  # not parse_qsl: keys of AWS have + in them, which it takes for a space
    return unquote(name).lower(), unquote(value)


def open_bucket(url: str, timeout_s: float, threads: ThreadPoolExecutor) -> Bucket:
    """The bucket; nothing is asked of it yet. Unavailable: the URL, or a package that is not installed."""
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError:
        raise Unavailable("kv-objects-url needs a package that is not installed: pip install 'zeekdb[tiers]'") from None
    place = parse_url(url)
    if place.scheme == "file":

        async def run(work: Callable[..., Any], *arguments: Any) -> Any:
            return await asyncio.get_running_loop().run_in_executor(threads, work, *arguments)

        return Folder(obstore, Path(place.prefix), run)
    made = {"s3": obstore.store.S3Store, "gs": obstore.store.GCSStore, "az": obstore.store.AzureStore}[place.scheme]
    client: dict[str, Any] = {
        "timeout": timedelta(seconds=timeout_s + PART / RATE_MIN), "connect_timeout": timedelta(seconds=timeout_s),
        **place.client,
    }  # fmt: skip
    once = {"max_retries": 0, "retry_timeout": timedelta(seconds=timeout_s)}  # tiers/guard.py tries again
    patient = once | {
        "max_retries": 2,
        "backoff": {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=1), "base": 2},
    }
    try:
        stores = [
            made(place.name, prefix=place.prefix or None, config=place.config, client_options=client, retry_config=each)
            for each in (once, patient)
        ]
    except obstore.exceptions.UnknownConfigurationKeyError:
        names = ", ".join(sorted(place.config))
        raise Unavailable(f"kv-objects-url: one of the parameters is unknown: {names}") from None
    except (obstore.exceptions.BaseError, ValueError, OSError) as error:
        raise Unavailable(f"kv-objects-url: {_without(place, said(str(error)))}") from None
    return Bucket(obstore, *stores)


def _without(place: Place, text: str) -> str:
    """The text without what parameters said: a store that does not like one may quote it."""
    for value in place.config.values():
        if value:
            text = text.replace(value, "***")
    return text


def environment_secrets() -> list[str]:
    """What must not be shown though no URL says it."""
    return [value for name in SECRET_VARIABLES if (value := os.environ.get(name))]
