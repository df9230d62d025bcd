"""When snapshots are due by the calendar: cron's five fields, in local time.

`minute hour day-of-month month day-of-week`: each `*`, a number, a range `1-5`, a list `1,3-5`, any of them with a step
`*/15`; months and weekdays by number (0 and 7 are Sunday) or English name. Where neither of the two fields of days
begins with `*`, a day needs to match only one of them. `@hourly`, `@daily`, `@weekly`, `@monthly` and `@yearly` stand
for what they say.

Where the clock jumps: a schedule whose minute or hour begins with `*` follows the clock as it is. Any other comes once:
at the first of two equal times, and right behind a gap that swallows its time.
Source: crontab(5) and cron(8) of Vixie cron.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from zeekdb.config.units import ConfigError, Kind, quoted

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
LONGEST: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days of a month, at most
SHORTHANDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MINUTE: Final = timedelta(minutes=1)
HORIZON_S: Final = 10 * 366 * 86_400  # 29 February may be eight years away
SCHEDULES_MAX: Final = 64


def _digits(text: str) -> int:
    """Up to three digits as a number; -1: it is something else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else -1


@dataclass(frozen=True)
class Field:
    """What one field may hold."""

    title: str
    low: int
    high: int
    names: tuple[str, ...] = ()  # of the numbers from `low` on

    def parse(self, text: str) -> frozenset[int]:
        """The numbers that it means. ConfigError."""
        return frozenset(number for part in text.split(",") for number in self._part(part))

    def _part(self, part: str) -> range:
        span, slash, step = part.partition("/")
        if slash and not 0 < _digits(step) <= self.high:
            raise self.wrong(part)
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = self.low, self.high
        else:
            begin = self._number(first, part)
            end = self._number(last, part) if dash else self.high if slash else begin
            if self.title == "day of the week" and end == 0 < begin:
                end = 7  # sat-sun
        if begin > end:
            raise self.wrong(part)
        return range(begin, end + 1, int(step) if slash else 1)

    def _number(self, text: str, part: str) -> int:
        if text.lower() in self.names:
            return self.low + self.names.index(text.lower())
        if self.low <= (number := _digits(text)) <= self.high:
            return number
        raise self.wrong(part)

    def wrong(self, part: str) -> ConfigError:
        named = f" or {self.names[0]}-{self.names[-1]}" if self.names else ""
        return ConfigError(f"Invalid snapshot schedule: '{part}' is no {self.title} ({self.low}-{self.high}{named})")


FIELDS: Final = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of the month", 1, 31),
    Field("month", 1, 12, MONTHS),
    Field("day of the week", 0, 7, WEEKDAYS),
)


@dataclass(frozen=True)
class Schedule:
    """One schedule. Equal texts are equal schedules."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0: Sunday
    floats: bool  # follows the clock where it jumps
    both_days: bool  # a day has to match the month's days and the week's

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """ConfigError."""
        words = text.split()
        shown = " ".join(words)
        if len(words) == 1 and words[0].startswith("@"):
            if words[0].lower() not in SHORTHANDS:
                known = ", ".join(SHORTHANDS)
                raise ConfigError(f"Invalid snapshot schedule: '{words[0]}' is none of {known}")
            words = SHORTHANDS[words[0].lower()].split()
        if len(words) != len(FIELDS):
            raise ConfigError(
                f"Invalid snapshot schedule: '{shown}' has {len(words)} fields, not five (minute hour day-of-month "
                "month day-of-week)"
            )
        minutes, hours, days, months, weekdays = (
            field.parse(word) for field, word in zip(FIELDS, words, strict=True)
        )
        both_days = words[2].startswith("*") or words[4].startswith("*")
        if both_days and not any(min(days) <= LONGEST[month - 1] for month in months):
            raise ConfigError(f"Invalid snapshot schedule: '{shown}' never comes, as no such month has that day")
        return cls(
            shown, minutes, hours, days, months, frozenset(day % 7 for day in weekdays),
            words[0].startswith("*") or words[1].startswith("*"), both_days,
        )  # fmt: skip

    def matches_day(self, day: date) -> bool:
        """Whether it comes on that day at all."""
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_month and by_week) if self.both_days else (by_month or by_week)

    def matches(self, clock: datetime) -> bool:
        """Whether it comes when the clock shows this."""
        return clock.minute in self.minutes and clock.hour in self.hours and self.matches_day(clock.date())

    def next_after(self, moment: datetime) -> datetime | None:
        """The first time behind `moment`, on a whole minute, in its zone; without a zone, both are local times.

        None when there is none for ten years, as of some 29 February that has to be a Sunday.
        """
        zone = moment.tzinfo
        at_s = int(moment.timestamp() // 60) * 60
        end_s = at_s + HORIZON_S
        clock = datetime.fromtimestamp(at_s, zone)
        while at_s < end_s:
            for minutes in self._steps(clock):
                later = datetime.fromtimestamp(at_s + minutes * 60, zone)
                jump = later.replace(tzinfo=None) - clock.replace(tzinfo=None) - minutes * MINUTE
                if not jump:  # a step over a jump of the clock is made minute by minute
                    break
            at_s += minutes * 60
            if self._is_due(later, jump):
                return later
            clock = later
        return None

    def _steps(self, clock: datetime) -> list[int]:
        """Minutes that may be stepped over without missing anything, the most first."""
        steps = [1]
        if clock.hour not in self.hours:
            steps.insert(0, 60 - clock.minute)
        if not self.matches_day(clock.date()):
            steps[:-1] = [24 * 60 - clock.hour * 60 - clock.minute, 60 - clock.minute]
        return steps

    def _is_due(self, clock: datetime, jump: timedelta) -> bool:
        """`jump`: by how much the clock has just been set."""
        if self.floats:
            return self.matches(clock)
        if jump > timedelta():
            skipped = range(1, jump // MINUTE + 1)
            return self.matches(clock) or any(self.matches(clock - minutes * MINUTE) for minutes in skipped)
        return self.matches(clock) and not clock.fold


class Schedules(Kind):
    """Schedules with `;` between them; `""` is none. In a file, further lines add up."""

    multi = True

    def parse(self, arguments: Sequence[str]) -> tuple[Schedule, ...]:
        text = " ".join(arguments).strip()
        if not text:
            return ()
        found = tuple(Schedule.parse(part) for part in text.split(";"))
        if len(found) > SCHEDULES_MAX:
            raise ConfigError(f"Invalid snapshot schedule: more than {SCHEDULES_MAX} of them")
        return found

    def show(self, value: Any) -> str:
        return "; ".join(schedule.text for schedule in value)

    def lines(self, value: Any) -> list[str]:
        return [quoted(self.show(value))]

    def describe(self) -> str:
        return "minute hour day-of-month month day-of-week; …"

    def add(self, old: Any, new: Any) -> Any:
        return (*old, *new) if new else ()


def next_after(schedules: Sequence[Schedule], moment: datetime) -> datetime | None:
    """The first time of all of them; None when none comes."""
    found = (schedule.next_after(moment) for schedule in schedules)
    return min((time for time in found if time is not None), default=None, key=datetime.timestamp)
