"""snapshot-schedule by a clock that the test sets: when snapshots begin, and what happens to those that cannot."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace

import pytest

from zeekdb.config.config import Config
from zeekdb.config.schedule import Schedules
from zeekdb.server import saving as module
from zeekdb.server.saving import RETRY_S, Saving


class Clock:
    """Both clocks in one, in Unix seconds."""

    def __init__(self, moment: str) -> None:
        self.now_s = datetime.fromisoformat(moment).timestamp()

    def time(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.now_s


class Started(Saving):
    """Begins snapshots and leaves their end to the test."""

    begun = 0
    running = False

    @property
    def in_progress(self) -> bool:
        return self.running

    def _start(self) -> None:
        self.scheduled = False
        self.begin_s = self.tried_s = module.time.monotonic()
        self.begun += 1
        self.running = True

    def end(self, well: bool = True) -> None:
        """The snapshot under way is through."""
        self.running = False
        if well:
            self._done(0)
        else:
            self._failed(OSError(28, "No space left on device"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock("2026-11-21 09:59:30")
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def saving(clock: Clock) -> Started:
    config = Config()
    config.save = ()
    config.snapshot_schedule = Schedules().parse(["0 * * * *; 30 12 * * *"])
    server = SimpleNamespace(
        config=config, appendonly=SimpleNamespace(rewriting=False), update_gates=lambda: None,
        keyspace=SimpleNamespace(dirty=0), last_save_s=clock.time(),
    )  # fmt: skip
    made = Started(server)  # type: ignore[arg-type]
    made.plan()
    return made


def moment(saving: Saving) -> str:
    return datetime.fromtimestamp(saving.next_s).isoformat(" ", "minutes")  # noqa: DTZ006


def test_it_begins_when_it_is_due(saving: Started, clock: Clock) -> None:
    assert moment(saving) == "2026-11-21 10:00"
    saving.tick()
    assert saving.begun == 0
    clock.now_s += 29.9
    saving.tick()
    assert saving.begun == 0
    clock.now_s += 0.2
    saving.tick()
    assert saving.begun == 1 and moment(saving) == "2026-11-21 11:00"
    saving.end()
    saving.tick()
    assert saving.begun == 1
    clock.now_s += 2.6 * 3600  # the machine has slept: once is enough
    saving.tick()
    assert saving.begun == 2 and moment(saving) == "2026-11-21 13:00"
    saving.end()
    saving.tick()
    assert saving.begun == 2


def test_one_that_began_before_does_not_count(saving: Started, clock: Clock) -> None:
    saving._start()
    clock.now_s += 60
    saving.tick()
    assert saving.begun == 1
    saving.end()
    saving.tick()
    assert saving.begun == 2
    saving.end()
    saving.tick()
    assert saving.begun == 2


def test_it_waits_for_a_rewrite_of_the_append_only_file(saving: Started, clock: Clock) -> None:
    saving.server.appendonly.rewriting = True  # type: ignore[misc]
    clock.now_s += 60
    saving.tick()
    assert saving.begun == 0
    saving.server.appendonly.rewriting = False  # type: ignore[misc]
    saving.tick()
    assert saving.begun == 1


def test_it_is_tried_again_until_it_succeeds(saving: Started, clock: Clock) -> None:
    clock.now_s += 60
    saving.tick()
    saving.end(well=False)
    saving.tick()
    assert saving.begun == 1
    clock.now_s += RETRY_S + 0.1
    saving.tick()
    assert saving.begun == 2
    saving.end()
    clock.now_s += RETRY_S + 0.1
    saving.tick()
    assert saving.begun == 2


def test_a_new_schedule(saving: Started, clock: Clock) -> None:
    saving.server.config.snapshot_schedule = ()
    saving.plan()
    assert saving.next_s == 0
    clock.now_s += 7200
    saving.tick()
    assert saving.begun == 0
    saving.server.config.snapshot_schedule = Schedules().parse(["@daily"])
    saving.plan()
    assert moment(saving) == "2026-11-22 00:00"
