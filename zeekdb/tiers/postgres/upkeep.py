"""What keeps the catalogue's tables small and its statistics current; the server's cron calls `tick`.

    partitions   the log's days, made ahead                       hourly
    minute       statistics of each minute from the log           each minute
    hour, day    the same for the running hour and day            every 10 minutes, hourly
    log          old days of the log are dropped                  hourly, once they are rolled up
    expired      blobs and entries whose deadline has passed      every 10 s, in steps
    old          statistics, history and references nobody needs  hourly, in steps
    popular      the materialised view that servers warm from     every 5 minutes

Every node of a fleet calls it, one does it: each task is one transaction under an advisory lock that is tried, never
waited for, and `kv_cache_upkeep` says when it was done last. No transaction is longer than STATEMENT_S, none deletes
more than STEP_ROWS rows; what is left is done at the next ticks. Whoever connects need not own the tables, membership
in zeekdb_writer is enough.

A roll-up computes everything since `done_until` anew, and with it what came late: `done_until` stays LATE_S behind the
clock. After a time without upkeep it goes on where it ended, a piece at each tick. A piece that was too much for
STATEMENT_S is tried smaller the next time: fewer minutes, and hours and days merged where they were exact.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from zeekdb.tiers.postgres.pool import transaction

if TYPE_CHECKING:
    from asyncpg import Connection

logger = logging.getLogger(__name__)

LOCK: Final = 0x7A6B6462  # of advisory locks: this and the task's number
STATEMENT_S: Final = 30
LOCK_S: Final = 2  # for a table's lock: longer, and writers would queue behind it
WORK_MB: Final = 64  # for what a roll-up counts; one task runs at a time
DAYS_AHEAD: Final = 2
LATE_S: Final = 120  # how late an access may come to the log
MINUTES_A_TICK: Final = 10  # that are rolled up in one transaction; of hours and days one each
EXACT_ROWS_MAX: Final = 2_000_000  # of the log that an hour's or a day's percentiles are computed from
STEP_ROWS: Final = 1000
MINUTES_DAYS: Final = 7  # how long statistics are kept: of minutes, hours, days
HOURS_DAYS: Final = 90
DAYS_DAYS: Final = 3 * 366
HISTORY_DAYS: Final = 30  # of a block that is gone
RETRY_S: Final = 15.0  # after a failure
WELL: Final = 20  # successes in a row before a larger piece is tried again


class Done(NamedTuple):
    """A task that this node did: rows it wrote, deleted or made; whether there is more to do at once."""

    task: str
    rows: int
    more: bool = False
    until: datetime | None = None  # of roll-ups: `done_until`


class Task(NamedTuple):
    """What is done, and how often."""

    name: str
    every_s: float
    work: Callable[[Upkeep, Connection, datetime], Awaitable[Done | None]]  # None: it is too early


class Upkeep:
    """One node's part in it.

    `call` runs its argument on a connection, and throws a connection away that it leaves by anything but a
    PostgresError; `failures` is what it raises when the database could not.
    """

    def __init__(
        self, call: Callable[[Callable[[Connection], Awaitable[Any]]], Awaitable[Any]], *,
        failures: tuple[type[BaseException], ...], log_days: int = 7, node: str = "", seed: int | None = None,
        is_clock_ours: bool = False, timer: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`is_clock_ours`: `tick` says what time it is for the tables, too. Else the database does: of a fleet's clocks
        one may be wrong, and would drop the log or put off what is due for all."""
        self.log_days = log_days  # may be changed at any time
        self.node = node
        self.done: dict[str, int] = {}  # by this node: how often
        self.failed = 0
        self.error = ""  # of the last task that failed; '' when all went well since
        self._call = call
        self._failures = failures
        self._is_clock_ours = is_clock_ours
        self._timer = timer
        self._random = random.Random(seed)
        self._next: dict[str, float] = {}
        self._well: dict[str, int] = {}  # successes in a row
        self._minutes = MINUTES_A_TICK
        self._exact_rows = EXACT_ROWS_MAX

    async def tick(self, now: float) -> list[Done]:
        """Does what is due at `now` (Unix seconds); what this node did. Never raises for the database's sake."""
        did = []
        for number, task in enumerate(TASKS):
            if now < self._next.get(task.name, 0.0):
                continue
            began_s = self._timer()
            try:
                done = await self._call(partial(self._try, number=number, task=task, now=now))
            except self._failures as error:
                self.failed += 1
                self.error = f"{task.name}: {error}"
                self._next[task.name] = now + RETRY_S
                self._take_less(task.name, self._timer() - began_s)
                logger.warning("upkeep of the catalogue, %s: %s", task.name, error)
                continue
            if self.error.startswith(f"{task.name}: "):
                self.error = ""
            if isinstance(done, Done):
                did.append(done)
                self.done[task.name] = self.done.get(task.name, 0) + 1
                self._take_more(task.name)
                self._next[task.name] = now if done.more else now + task.every_s
            else:  # another node's; whoever finds it done asks a little later than who did it
                self._next[task.name] = now + min(task.every_s, RETRY_S) * (1.0 + self._random.random())
        return did

    def _take_less(self, task: str, took_s: float) -> None:
        self._well[task] = 0
        if took_s < STATEMENT_S * 0.9:
            return  # it failed for another reason
        if task == "minute":
            self._minutes = max(self._minutes // 2, 1)
        elif task in ("hour", "day"):
            self._exact_rows //= 4

    def _take_more(self, task: str) -> None:
        """Seldom: each piece that is too large again costs STATEMENT_S."""
        self._well[task] = self._well.get(task, 0) + 1
        if self._well[task] % WELL:
            return
        if task == "minute":
            self._minutes = min(self._minutes * 2, MINUTES_A_TICK)
        elif task in ("hour", "day"):
            self._exact_rows = min(self._exact_rows * 2 + 1000, EXACT_ROWS_MAX)

    async def _try(self, connection: Connection, *, number: int, task: Task, now: float) -> Done | None:
        """None: another node does it, or has just done it, or it is too early."""
        async with transaction(connection):
            await connection.execute(
                f"SET LOCAL statement_timeout = '{STATEMENT_S}s'; SET LOCAL lock_timeout = '{LOCK_S}s'; "
                f"SET LOCAL work_mem = '{WORK_MB}MB'"
            )
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1, $2)", LOCK, number):
                return None
            moment = datetime.fromtimestamp(now, UTC)
            if not self._is_clock_ours:
                moment = await connection.fetchval("SELECT now()")
            last = await connection.fetchrow("SELECT at, more FROM zeekdb.kv_cache_upkeep WHERE task = $1", task.name)
            if last and not last["more"] and (moment - last["at"]).total_seconds() < task.every_s * 0.9:
                return None
            done = await task.work(self, connection, moment)
            if done is not None:
                await connection.execute(DONE, task.name, moment, done.rows, done.more, done.until, self.node)
        return done

    # ---- the log and its statistics ---------------------------------------------------------------------------------

    async def _partitions(self, connection: Connection, now: datetime) -> Done:
        today = now.date()
        made = await connection.fetchval(
            "SELECT zeekdb.ensure_log_partitions($1, $2)", today, today + timedelta(days=DAYS_AHEAD)
        )
        return Done("partitions", made)

    async def _roll_up(self, connection: Connection, now: datetime, bucket: str) -> Done | None:
        """From where the last time ended to now, or a piece of it where that is long ago."""
        since = await _done_until(connection, bucket)
        oldest = _floor(now - timedelta(days=self.log_days), bucket)
        if since is None:  # the first time: most logs are empty then
            recent = _floor(now - timedelta(hours=1), bucket)
            since = oldest if await _is_logged(connection, oldest, recent) else recent
        since = max(since, oldest)
        until = _floor(since, bucket) + (timedelta(minutes=self._minutes) if bucket == "minute" else STEPS[bucket])
        if until > now - timedelta(seconds=LATE_S):  # what can't be settled yet is done with what runs
            until = now
        if bucket != "minute":  # finer statistics come first: they say how much there is, and may be all there is
            finer = "minute" if bucket == "hour" else "hour"
            there = await _done_until(connection, finer)
            if there is None or there < _floor(min(until, now - timedelta(seconds=2 * LATE_S)), finer):
                return None
        if bucket == "minute" and (empty := await _empty_until(connection, since, now)):
            return Done(bucket, 0, more=True, until=empty)
        rows = await connection.fetchval(
            "SELECT zeekdb.aggregate_cache_stats($1, $2, $3, $4)", bucket, since, until, self._exact_rows
        )
        settled = _floor(min(until, now - timedelta(seconds=LATE_S)), bucket)
        return Done(bucket, rows, more=until < now, until=settled)

    async def _minute(self, connection: Connection, now: datetime) -> Done | None:
        return await self._roll_up(connection, now, "minute")

    async def _hour(self, connection: Connection, now: datetime) -> Done | None:
        return await self._roll_up(connection, now, "hour")

    async def _day(self, connection: Connection, now: datetime) -> Done | None:
        return await self._roll_up(connection, now, "day")

    async def _log(self, connection: Connection, now: datetime) -> Done:
        """Days that are not rolled up yet are kept for as long again: then the disk matters more."""
        rolled = await _done_until(connection, "day")
        kept = self.log_days
        if rolled is None or rolled.date() < now.date() - timedelta(days=kept):
            kept *= 2
        dropped = await connection.fetchval("SELECT zeekdb.cleanup_old_access_logs($1, $2)", kept, now.date())
        return Done("log", dropped)

    # ---- rows that have had their time ------------------------------------------------------------------------------

    async def _expired(self, connection: Connection, now: datetime) -> Done:
        rows = most = 0
        for statement in EXPIRED:
            gone = _count(await connection.execute(statement, int(now.timestamp()), STEP_ROWS))
            rows += gone
            most = max(most, gone)
        return Done("expired", rows, more=most >= STEP_ROWS)

    async def _old(self, connection: Connection, now: datetime) -> Done:
        rows = most = 0
        kept = (("minute", MINUTES_DAYS), ("hour", HOURS_DAYS), ("day", DAYS_DAYS))
        work: list[tuple[str, int, tuple[str, ...]]] = [(OLD_STATS, days, (bucket,)) for bucket, days in kept]
        work += [(OLD_HISTORY, HISTORY_DAYS, ()), (OLD_SHARED, 1, ())]
        for statement, days, more in work:
            gone = _count(await connection.execute(statement, now - timedelta(days=days), STEP_ROWS, *more))
            rows += gone
            most = max(most, gone)
        return Done("old", rows, more=most >= STEP_ROWS)

    async def _popular(self, connection: Connection, now: datetime) -> Done:
        await connection.execute("SELECT zeekdb.refresh_popular_entries()")
        return Done("popular", 0)


TASKS: Final = (
    Task("partitions", 3600.0, Upkeep._partitions),
    Task("minute", 60.0, Upkeep._minute),
    Task("hour", 600.0, Upkeep._hour),
    Task("day", 3600.0, Upkeep._day),
    Task("log", 3600.0, Upkeep._log),
    Task("expired", 10.0, Upkeep._expired),
    Task("old", 3600.0, Upkeep._old),
    Task("popular", 300.0, Upkeep._popular),
)

STEPS: Final = {"hour": timedelta(hours=1), "day": timedelta(days=1)}

DONE: Final = """
    INSERT INTO zeekdb.kv_cache_upkeep AS u (task, at, rows, more, done_until, node) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (task) DO UPDATE SET at = EXCLUDED.at, rows = EXCLUDED.rows, more = EXCLUDED.more,
        done_until = greatest(u.done_until, EXCLUDED.done_until), node = EXCLUDED.node
"""
# Rows that someone else holds at this moment are left for the next time; a ctid holds as long as the row is locked.
EXPIRED: Final = tuple(
    f"""
    DELETE FROM zeekdb.{table} WHERE digest = ANY (ARRAY(
        SELECT digest FROM zeekdb.{table} WHERE deadline > 0 AND deadline <= $1
        ORDER BY deadline LIMIT $2 FOR UPDATE SKIP LOCKED))
    """
    for table in ("kv_cache_blobs", "kv_cache_metadata")
)
OLD_STATS: Final = """
    DELETE FROM zeekdb.kv_cache_stats WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM zeekdb.kv_cache_stats WHERE bucket = $3 AND at < $1
        ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED))
"""
OLD_HISTORY: Final = """
    DELETE FROM zeekdb.kv_cache_versions WHERE ctid = ANY (ARRAY(
        SELECT v.ctid FROM zeekdb.kv_cache_versions AS v
        WHERE v.at < $1 AND NOT EXISTS (SELECT FROM zeekdb.kv_cache_metadata AS m WHERE m.digest = v.digest)
        LIMIT $2 FOR UPDATE OF v SKIP LOCKED))
"""
OLD_SHARED: Final = """
    DELETE FROM zeekdb.kv_cache_shared WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM zeekdb.kv_cache_shared WHERE refs = 0 AND at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))
"""


async def _done_until(connection: Connection, bucket: str) -> datetime | None:
    found: datetime | None = await connection.fetchval(
        "SELECT done_until FROM zeekdb.kv_cache_upkeep WHERE task = $1", bucket
    )
    return found


async def _is_logged(connection: Connection, since: datetime, until: datetime) -> bool:
    """Whether there was an access in [since, until)."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM zeekdb.kv_cache_access_log WHERE at >= $1 AND at < $2)", since, until
    )
    return found


async def _empty_until(connection: Connection, since: datetime, now: datetime) -> datetime | None:
    """The end of an hour, or a day, after `since` in which there is nothing to count; None: there is no such one."""
    for hop in (timedelta(days=1), timedelta(hours=1)):
        if since + hop < now - timedelta(seconds=LATE_S) and not await _is_logged(connection, since, since + hop):
            return since + hop
    return None


def _floor(moment: datetime, bucket: str) -> datetime:
    moment = moment.replace(second=0, microsecond=0)
    if bucket != "minute":
        moment = moment.replace(minute=0)
    return moment.replace(hour=0) if bucket == "day" else moment


def _count(tag: str) -> int:
    """The rows that a command's tag (`DELETE 5`) counts."""
    return int(tag.rsplit(" ", 1)[-1])
