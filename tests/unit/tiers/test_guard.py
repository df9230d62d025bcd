"""Timeout, retries and circuit breaker."""

from __future__ import annotations

import asyncio

import pytest

from tests.contract.region import wait_until
from zeekdb.tiers import guard as guard_module
from zeekdb.tiers.guard import FAILURES_TO_OPEN, Guard, TierDown, TierFailed


class Engine:
    """Answers, or fails, as it is told."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.hangs = False
        self.calls = 0

    async def ask(self) -> int:
        self.calls += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return self.calls


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(guard_module, "BACKOFF_S", 0.001)
    monkeypatch.setattr(guard_module, "PROBE_S", 0.01)
    monkeypatch.setattr(guard_module, "PROBE_MAX_S", 0.02)
    return Engine()


def make(engine: Engine, timeout_s: float = 5) -> Guard:
    return Guard(
        "x", engine.ask, failures=(OSError,), timeout_s=timeout_s, scrub=lambda text: text.replace("secret", "***")
    )


async def test_a_failure_is_tried_again(engine: Engine) -> None:
    guard = make(engine)
    engine.error = ConnectionResetError("once")

    async def work() -> int:
        if engine.calls == 1:
            engine.error = None
        return await engine.ask()

    assert await guard.call(work) == 2
    assert guard.state == "closed"
    assert (guard.retries, guard.failures_total) == (1, 1)


async def test_after_some_failures_nobody_waits(engine: Engine) -> None:
    guard = make(engine)
    engine.error = OSError("the secret is wrong")
    while guard.state == "closed":
        assert engine.calls < FAILURES_TO_OPEN
        with pytest.raises(TierFailed, match=r"the \*\*\* is wrong"):
            await guard.call(engine.ask)
    assert engine.calls == FAILURES_TO_OPEN
    with pytest.raises(TierDown, match=r"\*\*\*"):
        await guard.call(engine.ask)
    assert guard.opens == 1
    await wait_until(lambda: engine.calls > FAILURES_TO_OPEN + 1, what="probes")
    assert guard.state != "closed"
    engine.error = None
    await wait_until(lambda: guard.state == "closed")
    assert guard.last_error == ""
    assert await guard.call(engine.ask) > 0
    await guard.close()


async def test_silence_is_a_failure(engine: Engine) -> None:
    guard = make(engine, timeout_s=0.01)
    engine.hangs = True
    with pytest.raises(TierFailed, match="no answer in time"):
        await guard.call(engine.ask)
    assert engine.calls == 3
    with pytest.raises(TierFailed):
        await guard.call(engine.ask, retry=False)
    assert engine.calls == 4
    engine.hangs = False
    assert await guard.call(engine.ask) == 5
    await guard.close()


async def test_a_bug_is_no_failure(engine: Engine) -> None:
    guard = make(engine)
    engine.error = ZeroDivisionError()
    for _ in range(FAILURES_TO_OPEN + 1):
        with pytest.raises(ZeroDivisionError):
            await guard.call(engine.ask)
    assert guard.state == "closed"
    assert guard.failures_total == 0


async def test_closing_ends_the_probes(engine: Engine) -> None:
    guard = make(engine)
    engine.error = OSError()
    for _ in range(FAILURES_TO_OPEN):
        guard.failed(engine.error)
    assert guard.state == "open"
    await guard.close()
    calls = engine.calls
    await asyncio.sleep(0)
    assert engine.calls == calls
