"""Calls to an engine that may be slow, gone, or wrong about who we are: timeout, retries, circuit breaker.

    closed     calls go through; one that fails is tried again after a random wait that grows (full jitter: all who
               failed together must not come back together)
    open       after FAILURES_TO_OPEN failures in a row: calls fail at once, so that nobody waits for a dead engine;
               a task of the guard's own tries it now and then
    half-open  while that one try is under way; it closes the breaker or leaves it open for longer

Who counts: what the engine, the network or the clock did (`failures`). Anything else is a bug of ours and is raised as
it is. Messages of engines and drivers may quote URLs, so all text that leaves here has gone through `scrub`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")
log = logging.getLogger("zeekdb")

ATTEMPTS: Final = 3
FAILURES_TO_OPEN: Final = 5  # in a row, attempts counted
BACKOFF_S: Final = 0.05  # the longest wait before the second attempt; doubled for each further one
PROBE_S: Final = 0.5  # from opening to the first probe; doubled after each that fails
PROBE_MAX_S: Final = 4.0
TEXT_MAX: Final = 300  # of an error that is kept


class TierFailed(Exception):
    """The engine could not do it; the text says why, without secrets."""


class TierDown(TierFailed):
    """It was not asked: the breaker is open."""


class Guard:
    """Stands before one engine."""

    def __init__(
        self, name: str, probe: Callable[[], Awaitable[object]], *, failures: tuple[type[BaseException], ...],
        timeout_s: float = 1.0, attempts: int = ATTEMPTS, scrub: Callable[[str], str] = str,
    ) -> None:  # fmt: skip
        self.name = name
        self.timeout_s = timeout_s
        self.attempts = attempts
        self.state = "closed"
        self.last_error = ""
        self.opens = 0
        self.retries = 0
        self.failures_total = 0
        self._probe = probe
        self._failures: tuple[type[BaseException], ...] = (*failures, TimeoutError)
        self._scrub = scrub
        self._in_a_row = 0
        self._prober: asyncio.Task[None] | None = None
        self._closed = False

    async def call(
        self, work: Callable[[], Awaitable[T]], *, timeout_s: float | None = None, retry: bool = True
    ) -> T:  # fmt: skip
        """The work's result; `timeout_s` is for each attempt. TierDown, TierFailed."""
        attempts = self.attempts if retry else 1
        for attempt in range(attempts):
            if self.state != "closed":
                raise TierDown(f"{self.name}: {self.last_error}")
            try:
                async with asyncio.timeout(self.timeout_s if timeout_s is None else timeout_s):
                    result = await work()
            except self._failures as error:
                self.failed(error)
                if attempt == attempts - 1 or self.state != "closed":
                    raise TierFailed(f"{self.name}: {self.last_error}") from None
            else:
                self._in_a_row = 0
                return result
            self.retries += 1
            await asyncio.sleep(random.uniform(0, BACKOFF_S * 2**attempt))
        raise AssertionError("unreachable")

    def failed(self, error: BaseException) -> None:
        """Counts a failure, also one that the caller has seen outside of `call`."""
        self.failures_total += 1
        self._in_a_row += 1
        self.last_error = self._text(error)
        if self._in_a_row >= FAILURES_TO_OPEN and self.state == "closed" and not self._closed:
            self._open()

    def _text(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError) and not str(error):
            return "no answer in time"
        return self._scrub(str(error) or type(error).__name__)[:TEXT_MAX]

    def _open(self) -> None:
        self.state = "open"
        self.opens += 1
        log.warning("Tier %s is down: %s", self.name, self.last_error)
        self._prober = asyncio.get_running_loop().create_task(self._probe_until_well())

    async def _probe_until_well(self) -> None:
        wait_s = PROBE_S
        while True:
            await asyncio.sleep(wait_s * random.uniform(0.75, 1))
            self.state = "half-open"
            try:
                async with asyncio.timeout(self.timeout_s):
                    await self._probe()
            except self._failures as error:
                self.failures_total += 1
                self.last_error = self._text(error)
            except Exception:
                log.exception("Probing tier %s", self.name)
            else:
                break
            self.state = "open"
            wait_s = min(wait_s * 2, PROBE_MAX_S)
        self.state = "closed"
        self.last_error = ""
        self._in_a_row = 0
        log.warning("Tier %s is back", self.name)

    def figures(self) -> dict[str, int | str]:
        """For TierStats.more."""
        return {
            "breaker": self.state, "breaker_opens": self.opens, "retries": self.retries,
            "failures": self.failures_total,
        }  # fmt: skip

    async def close(self) -> None:
        """Probes no more."""
        self._closed = True
        if self._prober is not None:
            self._prober.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._prober
            self._prober = None
