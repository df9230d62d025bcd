"""What `zeekdb tiers check` asks of each tier, and what it makes of the answers.

Blocks are written under a model and a random salt of our own, and deleted again; what is left when even that fails is
at most BLOCKS blocks whose deadline is near. The numbers are those of a handful of blocks after a cold start: they tell
a tier that works from one that is ten times too slow, not more.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from zeekdb.config.config import Config
from zeekdb.config.urls import redacted, scrubber
from zeekdb.errors import Unavailable
from zeekdb.hot.checksum import checksum
from zeekdb.tiers.factory import LEVELS, Level, configured_urls, make_database, make_vectors
from zeekdb.tiers.tier import Get, Held, Meta, Put, SharedTier, name_of, place_of

if TYPE_CHECKING:
    from zeekdb.tiers.postgres.pool import Database

T = TypeVar("T")

MODEL: Final = b"zeekdb-tiers-check"
BLOCKS: Final = 8
BLOCK_BYTES: Final = 1 << 20
BLOCK_BYTES_MAX: Final = 16 << 20  # where a tier takes none so small
PROBES: Final = 9
VECTORS: Final = 256
SEARCHES: Final = 10
BLOCK_S: Final = 300  # how long a probe block lives where it could not be deleted
FILE_BYTES: Final = 64 << 20  # written and read to measure an SSD
PIECE: Final = 4 << 20

# What engines, drivers and the network say, whatever their words; and what whoever reads it can do.
ADVICE: Final = (
    (r"needs a package|not installed", "pip install 'zeekdb[tiers]'"),
    (
        r"refused|connect call failed|no such file.*sock|errno 111",
        "Is the server running, and does it listen at this address and port?",
    ),
    (r"name or service|getaddrinfo|nodename|dns|name resolution", "This machine does not know the host's name."),
    (r"unreachable|no route", "There is no way to the host from this machine: routes, firewall."),
    (
        r"certificate|ssl|tls|handshake",
        (
            "TLS: does the server speak it at this port, has its certificate been signed by whom the URL names "
            "(sslrootcert=, ssl_ca_certs=), and does it bear the host's name?"
        ),
    ),
    (
        (
            r"noauth|wrongpass|password|authentication|unauthorized|\b401\b|\b403\b|forbidden|access ?denied|noperm"
            r"|invalidaccesskey|signaturedoesnotmatch|permission denied for"
        ),
        (
            "User, password or keys are wrong, or the role lacks a right. In a URL, : / @ ? # % are written "
            "%3A %2F %40 %3F %23 %25."
        ),
    ),
    (
        r"database .* does not exist|3d000|nosuchbucket|no such bucket|bucket .*not.*exist",
        "It has to be made there first: the server makes tables and objects, neither databases nor buckets.",
    ),
    (
        r"oom command|maxmemory|no space|disk ?full|quota|\b507\b",
        "It is full: give it room, a shorter -ttl, or let it evict (Redis: maxmemory-policy allkeys-lru).",
    ),
    (r"read.?only", "This is a replica, or a role that only reads: name the primary."),
    (
        r"too many (clients|connections)|max number of clients",
        "A smaller -pool, or more connections there: all nodes' pools count.",
    ),
    (
        r"lock|in use|already open|another process|resource temporarily unavailable",
        "A server runs on it: ask that one (KV.TIERS), or stop it first.",
    ),
    (r"permission denied|operation not permitted", "The folder has to belong to the user that runs ZeekDB."),
    (r"in time|timed? ?out", "It did not answer in time: the network, a busy server, or a -timeout that is too short."),
)


class Problem(NamedTuple):
    """What is wrong, and what can be done about it; no secrets."""

    text: str
    advice: str


@dataclass
class Finding:
    """One tier."""

    tier: str
    where: str  # its URL or folder, without secrets
    server: str = ""  # what it says it is
    round_trip_ms: float | None = None
    write_mb_s: float | None = None
    read_mb_s: float | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """ok or failing."""
        return "failing" if self.problems else "ok"

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "tier": self.tier,
            "state": self.state,
            "where": self.where,
            "server": self.server,
            "round_trip_ms": self.round_trip_ms,
            "write_mb_s": self.write_mb_s,
            "read_mb_s": self.read_mb_s,
            "problems": [problem._asdict() for problem in self.problems],
            "notes": self.notes,
        }


class Stopped(Exception):
    """A step failed, and those after it make no sense."""


@dataclass
class Trial:
    """One tier's finding in the making."""

    finding: Finding
    deadline_s: float
    scrub: Callable[[str], str]

    def wrong(self, text: str) -> None:
        """A problem, with the advice that fits."""
        text = self.scrub(" ".join(text.split()))
        self.finding.problems.append(Problem(text, advice_for(text)))

    async def step(self, what: str, work: Awaitable[T]) -> T:
        """The work's result. Stopped: it failed, or took too long, and that is a problem."""
        try:
            async with asyncio.timeout(self.deadline_s):
                return await work
        except TimeoutError:
            self.wrong(f"{what}: no answer in time ({self.deadline_s:g} s)")
        except Unavailable as error:
            self.wrong(str(error))
        except Exception as error:  # whatever a driver raises is what the operator has to know
            self.wrong(f"{what}: {error or type(error).__name__}")
        raise Stopped


def advice_for(text: str) -> str:
    """What can be done about it."""
    return next((advice for pattern, advice in ADVICE if re.search(pattern, text, re.IGNORECASE)), "")


async def check_all(config: Config, deadline_s: float, tell: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Every tier that the configuration names, from the top down, one after the other."""
    scrub = scrubber(configured_urls(config))
    findings = []

    async def look(name: str, where: str, work: Callable[[Trial], Awaitable[None]]) -> None:
        tell(name)
        trial = Trial(Finding(name, redacted(where)), deadline_s, scrub)
        try:
            await work(trial)
        except Stopped:
            pass
        except Unavailable as error:
            trial.wrong(str(error))
        findings.append(trial.finding)

    if config.kv_ssd_path:
        await look("ssd", config.kv_ssd_path, lambda trial: check_ssd(trial, config))
    for level in LEVELS:
        if level.is_on(config):
            await look(level.name, level.url(config), partial(check_level, level=level, config=config))
    if config.kv_postgres_url:
        await look("catalogue", config.kv_postgres_url, partial(check_catalogue, config=config))
    if config.kv_qdrant_url:
        await look("vectors", config.kv_qdrant_url, partial(check_vectors, config=config))
    return findings


# ---- tiers that nodes share ----------------------------------------------------------------------------------------


async def check_level(trial: Trial, level: Level, config: Config) -> None:
    """Open it as the server does, and take a few blocks there and back. Unavailable, Stopped."""
    tier = level.make(config, lambda _: None)
    if (database := getattr(tier, "database", None)) is not None:
        database.may_join = True  # beside the server whose it is
    try:
        await trial.step("open", tier.open())
        await check_shared(trial, tier, block_bytes(level, config))
    finally:
        await _close(trial, tier.close())


async def _close(trial: Trial, work: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(trial.deadline_s):
            await work
    except TimeoutError:
        trial.wrong("close: it does not end")


def block_bytes(level: Level, config: Config) -> int:
    """Of a block that this level takes."""
    least, most = level.sizes(config)
    return max(min(max(BLOCK_BYTES, least), most, BLOCK_BYTES_MAX), 1)


async def check_shared(trial: Trial, tier: SharedTier, size: int) -> None:
    """Round trips, then put, find, get and delete of BLOCKS blocks. Stopped."""
    finding = trial.finding
    await round_trips(trial, tier.probe)
    if describe := DESCRIBE.get(tier.name):
        await trial.step("version", describe(trial, tier))
    puts = blocks(size)
    metas = [put.meta for put in puts]
    try:
        begin = time.perf_counter()
        places = await trial.step("write", tier.put(puts))
        finding.write_mb_s = size * BLOCKS / 1e6 / (time.perf_counter() - begin)
        if None in places:
            raise _failed(trial, tier, "write: a block was not stored")
        found = await trial.step("find", tier.find([name_of(meta) for meta in metas]))
        if found != metas:
            raise _failed(trial, tier, "find: a block that was just written is not found")
        gets = [Get(meta, place_of(meta), memoryview(bytearray(size))) for meta in metas]
        begin = time.perf_counter()
        answers = await trial.step("read", tier.get(gets))
        finding.read_mb_s = size * BLOCKS / 1e6 / (time.perf_counter() - begin)
        if not all(answers) or any(got.into != put.data for got, put in zip(gets, puts, strict=True)):
            raise _failed(trial, tier, "read: a block did not come back as it was written")
    except Stopped:
        # Deleting is worth a try, but its failure says nothing new.
        await _quietly(trial, tier.delete([Held(meta, place_of(meta)) for meta in metas]))
        raise
    gone = await trial.step("delete", tier.delete([Held(meta, place_of(meta)) for meta in metas]))
    if not all(gone) or any(await trial.step("find", tier.find([name_of(meta) for meta in metas]))):
        raise _failed(trial, tier, "delete: a block is still there")


def blocks(size: int) -> list[Put]:
    """BLOCKS of random bytes, under a salt that nobody else has."""
    salt = secrets.token_hex(16).encode()
    made = []
    for number in range(BLOCKS):
        data = memoryview(os.urandom(size))
        deadline = int(time.time()) + BLOCK_S
        made.append(Put(Meta(MODEL, salt, b"probe-%d" % number, size, checksum(data), deadline), data))
    return made


def _failed(trial: Trial, tier: SharedTier, text: str) -> Stopped:
    error = tier.stats().error
    trial.wrong(f"{text}: {error}" if error else text)
    return Stopped()


async def _quietly(trial: Trial, work: Awaitable[object]) -> None:
    try:
        async with asyncio.timeout(min(trial.deadline_s, 2)):
            await work
    except Exception:  # it was tried
        pass


async def round_trips(trial: Trial, probe: Callable[[], Awaitable[object]]) -> None:
    """The median of PROBES. Stopped."""
    times = []
    for _ in range(PROBES):
        begin = time.perf_counter()
        await trial.step("probe", probe())
        times.append((time.perf_counter() - begin) * 1000)
    trial.finding.round_trip_ms = statistics.median(times)


async def describe_warm(trial: Trial, tier: SharedTier) -> None:
    """Which server it is, and what becomes of it when it is full."""
    from zeekdb.tiers.warm import WarmTier

    assert isinstance(tier, WarmTier)
    answers = await tier.client.ask_each((b"INFO",))
    said = [reply.decode("utf-8", "replace") for _, reply in answers if isinstance(reply, bytes)]
    facts = [dict(line.split(":", 1) for line in text.splitlines() if ":" in line) for text in said]
    if not facts:
        return
    first = facts[0]
    trial.finding.server = next(
        (f"{shown} {first[field]}" for field, shown in SERVERS.items() if field in first), ""
    ) + (f", {len(facts)} primaries" if len(facts) > 1 else "")  # fmt: skip
    if any(each.get("maxmemory") == "0" for each in facts):
        trial.finding.notes.append("its maxmemory is 0: it grows until its machine has no memory left")
    elif any(each.get("maxmemory_policy") == "noeviction" for each in facts):
        trial.finding.notes.append("its maxmemory-policy is noeviction: when it is full it takes no more blocks")


async def describe_postgres(trial: Trial, tier: SharedTier) -> None:
    """Which server it is."""
    from zeekdb.tiers.postgres.blobs import BlobTier

    assert isinstance(tier, BlobTier)
    trial.finding.server = await _postgres_version(tier.database)


async def _postgres_version(database: Database) -> str:
    found = await database.read(lambda connection: connection.fetchval("SHOW server_version"))
    return f"PostgreSQL {str(found).split()[0]}"


DESCRIBE: Final = {"warm": describe_warm, "postgres": describe_postgres}
SERVERS: Final = {
    "zeekdb_version": "ZeekDB", "dragonfly_version": "Dragonfly", "valkey_version": "Valkey", "redis_version": "Redis",
}  # fmt: skip


# ---- what stands beside the levels ---------------------------------------------------------------------------------


async def check_catalogue(trial: Trial, config: Config) -> None:
    """The schema is there, the writer may write and the reader read. Stopped."""
    from zeekdb.tiers.postgres.migrate import status

    database = make_database(config)
    database.may_join = True  # beside the server whose it is
    try:
        await trial.step("open", database.open())
        await round_trips(trial, database.probe)
        trial.finding.server = await trial.step("version", _postgres_version(database))
        steps = await trial.step("schema", database.read(status))
        if behind := [step for step in steps if step.state != "applied"]:
            trial.wrong(f"schema: step {behind[0].number:04} {behind[0].name} is {behind[0].state}")
        refused = await trial.step("rights", database.write(lambda connection: connection.fetch(REFUSED)))
        if refused:
            names = ", ".join(row["relname"] for row in refused)
            trial.wrong(f"permission denied for tables: the writer may not change {names}")
        await trial.step("read", database.read(lambda connection: connection.fetchval(CATALOGUE_READ)))
    finally:
        await _close(trial, database.close())


CATALOGUE_READ: Final = "SELECT count(*) FROM (SELECT 1 FROM zeekdb.kv_cache_metadata LIMIT 1) AS one"
REFUSED: Final = r"""
SELECT relname FROM pg_class WHERE relnamespace = 'zeekdb'::regnamespace AND relkind IN ('r', 'p')
    AND relname LIKE 'kv\_cache\_%' AND NOT (has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'SELECT'))
"""


async def check_vectors(trial: Trial, config: Config) -> None:
    """Rows in a collection of our own, found again, and dropped. Stopped."""
    import numpy as np

    from zeekdb.tiers.vectors.engine import TENANT, Row

    store = make_vectors(config)
    engine, name = store.engine, f"zeekdb-check-{secrets.token_hex(8)}"
    vectors = np.random.default_rng().standard_normal((VECTORS, store.dim)).astype("<f4")
    rows = [Row(secrets.token_hex(16), vector.tobytes(), {TENANT: "check"}) for vector in vectors]
    try:
        await trial.step("open", store.open())
        await round_trips(trial, engine.probe)
        trial.finding.server = f"{engine.name}, {store.dim} dimensions"
        try:
            begin = time.perf_counter()
            await trial.step("write", engine.upsert(name, rows))
            trial.finding.write_mb_s = vectors.nbytes / 1e6 / (time.perf_counter() - begin)
            begin = time.perf_counter()
            asked = [row.vector for row in rows[:SEARCHES]]
            found = await trial.step("search", engine.search(name, asked, 1, "check", None))
            trial.finding.notes.append(f"{SEARCHES} searches took {(time.perf_counter() - begin) * 1000:.1f} ms")
            if [[hit.id for hit in hits] for hits in found] != [[row.id] for row in rows[:SEARCHES]]:
                trial.wrong("search: a vector is not what is nearest to itself")
        finally:
            await _quietly(trial, engine.drop(name))
    finally:
        await _close(trial, store.close())


# ---- the SSD -------------------------------------------------------------------------------------------------------


async def check_ssd(trial: Trial, config: Config) -> None:
    """Whether the folder takes files, has the room that the limit promises, and how fast it is. Stopped."""
    folder = Path(config.kv_ssd_path)
    await trial.step("folder", asyncio.to_thread(_measure, trial.finding, folder))
    room = _room(folder)
    if room < config.kv_ssd_size:
        trial.finding.notes.append(
            f"kv-ssd-size is {config.kv_ssd_size:,} bytes, and there are {room:,}: it will fill the disk before its "
            "limit, and then write no more until there is room"
        )


def _room(folder: Path) -> int:
    """Bytes that the tier has and that it could still get."""
    system = os.statvfs(folder)
    return system.f_bavail * system.f_frsize + sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _measure(finding: Finding, folder: Path) -> None:
    """Writes and reads a file of FILE_BYTES; nothing of the tier's own is touched, so a server may run on it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"check-{secrets.token_hex(8)}.tmp"
    piece = os.urandom(PIECE)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            begin = time.perf_counter()
            for _ in range(FILE_BYTES // PIECE):
                _write_whole(fd, piece)
            os.fdatasync(fd)
            finding.write_mb_s = FILE_BYTES / 1e6 / (time.perf_counter() - begin)
            times = []
            for _ in range(PROBES):
                begin = time.perf_counter()
                os.pwrite(fd, piece[:4096], 0)
                os.fdatasync(fd)
                times.append((time.perf_counter() - begin) * 1000)
            finding.round_trip_ms = statistics.median(times)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # or the page cache would answer
            begin = time.perf_counter()
            for at in range(0, FILE_BYTES, PIECE):
                if len(os.pread(fd, PIECE, at)) != PIECE:
                    raise OSError(5, "the file is shorter than what was written")
            finding.read_mb_s = FILE_BYTES / 1e6 / (time.perf_counter() - begin)
        finally:
            os.close(fd)
    finally:
        path.unlink(missing_ok=True)
    finding.server = _filesystem(folder)


def _write_whole(fd: int, data: bytes) -> None:
    view: memoryview = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _filesystem(folder: Path) -> str:
    """The kind of file system, as the kernel calls it."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    mounts = [line.split()[1:3] for line in lines]
    here = str(folder.resolve()) + "/"
    fits: Sequence[list[str]] = [mount for mount in mounts if here.startswith(mount[0].rstrip("/") + "/")]
    return max(fits, key=lambda mount: len(mount[0]))[1] if fits else ""
