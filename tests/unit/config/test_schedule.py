"""Schedules against a walk over every minute, also where clocks jump."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zeekdb.config.schedule import MONTHS, WEEKDAYS, Schedule, Schedules, next_after
from zeekdb.config.units import ConfigError

MINUTE = timedelta(minutes=1)
JUMPS = (  # a zone, and a day on which its clock is set
    ("Europe/Berlin", "2026-03-29"), ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"), ("Australia/Lord_Howe", "2026-10-04"),  # half an hour
    ("America/Sao_Paulo", "2018-11-04"), ("America/Sao_Paulo", "2018-02-18"),  # at midnight
    ("Pacific/Apia", "2011-12-30"),  # a day that never was
    ("UTC", "2028-02-29"), ("Asia/Kathmandu", "2026-12-31"),
)  # fmt: skip


@cache
def numbers(text: str, low: int, high: int, names: tuple[str, ...] = ()) -> set[int]:
    """A field by the book, for fields that are right."""
    for at, name in enumerate(names):
        text = text.lower().replace(name, str(low + at))
    found = set()
    for number in range(low, high + 1):
        for part in text.split(","):
            span, _, step = part.partition("/")
            first, _, last = span.partition("-")
            begin = low if span == "*" else int(first)
            end = high if span == "*" or (step and not last) else int(last or first)
            if begin <= number <= end and (number - begin) % int(step or 1) == 0:
                found.add(number)
    return found


def shown(text: str, clock: datetime) -> bool:
    """Whether a schedule comes when the clock shows this."""
    minute, hour, day, month, weekday = text.split()
    by_month = clock.day in numbers(day, 1, 31)
    by_week = bool({clock.isoweekday() % 7, clock.isoweekday()} & numbers(weekday, 0, 7, WEEKDAYS))
    days = (by_month and by_week) if day[0] == "*" or weekday[0] == "*" else (by_month or by_week)
    times = clock.minute in numbers(minute, 0, 59) and clock.hour in numbers(hour, 0, 23)
    return days and times and clock.month in numbers(month, 1, 12, MONTHS)


def walk(text: str, zone: ZoneInfo, moment: datetime, minutes: int) -> list[datetime]:
    """When it comes within so many minutes, found minute by minute, in UTC."""
    floats = text[0] == "*" or text.split()[1][0] == "*"
    found, seen = [], set()
    at = moment.astimezone(UTC).replace(second=0, microsecond=0) - 30 * 60 * MINUTE  # two equal times may begin before
    clock = at.astimezone(zone).replace(tzinfo=None) - MINUTE
    for _ in range(minutes + 30 * 60 + 1):
        before, clock = clock, at.astimezone(zone).replace(tzinfo=None)
        due = shown(text, clock) and (floats or clock not in seen)
        while not floats and not due and before + MINUTE < clock:  # what the gap has swallowed
            before += MINUTE
            due = shown(text, before)
        seen.add(clock)
        if due and at > moment:
            found.append(at)
        at += MINUTE
    return found


def field(low: int, high: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    pair = st.tuples(number, number).map(lambda two: "{}-{}".format(*sorted(two)))
    span = st.one_of(st.just("*"), number.map(str), pair)
    if names:
        span = st.one_of(span, st.sampled_from(names))
    part = st.one_of(span, st.tuples(st.one_of(st.just("*"), pair), st.integers(1, high)).map("{0[0]}/{0[1]}".format))
    return st.lists(part, min_size=1, max_size=3).map(",".join)


SCHEDULE = st.tuples(
    field(0, 59), st.one_of(field(0, 23), field(0, 4)), st.one_of(st.just("*"), field(1, 28)),
    st.one_of(st.just("*"), field(1, 12, MONTHS)), st.one_of(st.just("*"), field(0, 7, WEEKDAYS)),
).map(" ".join)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(SCHEDULE, st.sampled_from(JUMPS), st.integers(-36 * 3600, 36 * 3600))
@example("30 2 * * *", JUMPS[0], 0)
@example("*/20 2 * * *", JUMPS[0], 0)
@example("30 2 * * *", JUMPS[1], 0)
@example("0 0-6 * * *", JUMPS[1], 0)
@example("30 0 4 11 *", JUMPS[6], -3600)
@example("0 12 30 12 *", JUMPS[8], -24 * 3600)
@example("* * * * 0-0", JUMPS[9], 0)
@example("0 0 * * 7", JUMPS[9], 0)
def test_against_every_minute(text: str, jump: tuple[str, str], shift_s: int) -> None:
    zone = ZoneInfo(jump[0])
    day = datetime.fromisoformat(jump[1]).replace(tzinfo=zone)
    moment = (day.astimezone(UTC) + timedelta(seconds=shift_s)).astimezone(zone)
    schedule = Schedule.parse(text)
    minutes = 30 * 60
    at = moment
    times = walk(text, zone, moment, minutes)
    for expected in times[:40]:
        at = schedule.next_after(at)
        assert at.astimezone(UTC) == expected
    if len(times) < 40:
        following = schedule.next_after(at).astimezone(UTC)
        assert following > moment.astimezone(UTC) + (minutes - 1) * MINUTE


@pytest.mark.parametrize(
    ("text", "moment", "expected"),
    [
        ("@hourly", "2026-01-01 10:00", "2026-01-01 11:00"), ("@daily", "2026-02-28 00:00:01", "2026-03-01 00:00"),
        ("@weekly", "2026-11-21 09:00", "2026-11-22 00:00"), ("@monthly", "2026-12-02 00:00", "2027-01-01 00:00"),
        ("@YEARLY", "2026-01-01 00:00", "2027-01-01 00:00"), ("* * * * *", "2026-01-01 10:00:59", "2026-01-01 10:01"),
        ("0 0 29 2 *", "2096-02-29 00:00", "2104-02-29 00:00"),
        ("0 9 13 * fri", "2026-11-14 00:00", "2026-11-20 09:00"),
        ("5/20 3 * * Mon-Fri", "2026-11-21 00:00", "2026-11-23 03:05"),
        ("0 3 * * sat-sun", "2026-11-21 04:00", "2026-11-22 03:00"),
        ("0 3 31 * *", "2026-04-01 00:00", "2026-05-31 03:00"),
        ("15,45 8-9 * jan *", "2026-01-31 09:45", "2027-01-01 08:15"),
        ("0 0 */2 * 1", "2026-11-02 00:00", "2026-11-09 00:00"),
    ],
)  # fmt: skip
def test_by_hand(text: str, moment: str, expected: str) -> None:
    for zone in (None, UTC):
        begin = datetime.fromisoformat(moment).replace(tzinfo=zone)
        assert Schedule.parse(text).next_after(begin) == datetime.fromisoformat(expected).replace(tzinfo=zone)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("60 * * * *", "'60' is no minute (0-59)"), ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "'0' is no day of the month (1-31)"),
        ("* * * 13 *", "'13' is no month (1-12 or jan-dec)"), ("* * * * 8", "'8' is no day of the week"),
        ("* * * * moon", "'moon' is no day of the week (0-7 or sun-sat)"), ("* * * *", "has 4 fields, not five"),
        ("* * * * * *", "has 6 fields"), ("@often", "'@often' is none of @hourly"),
        ("5-1 * * * *", "'5-1' is no minute"),
        (f"*/{'9' * 5000} * * * *", "is no minute"), ("*/0 * * * *", "'*/0' is no minute"),
        ("1,,2 * * * *", "'' is no minute"), ("0 0 31 2 *", "never comes"),
        ("0 0 30 feb *", "never comes"), ("@daily;", "has 0 fields"), ("-1 * * * *", "'-1' is no minute"),
        ("1-2-3 * * * *", "'1-2-3' is no minute"), ("*/ * * * *", "'*/' is no minute"), ("٣ * * * *", "is no minute"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        Schedules().parse([text])
    assert why in str(error.value) and str(error.value).startswith("Invalid snapshot schedule: ")


def test_several() -> None:
    kind = Schedules()
    assert kind.parse([""]) == () == kind.parse([])
    value = kind.parse(["0", "3", "", "*", "*", "*;@hourly"])
    assert kind.show(value) == "0 3 * * *; @hourly" and kind.parse(kind.show(value).split(" ")) == value
    assert kind.lines(value) == ['"0 3 * * *; @hourly"'] and kind.lines(()) == ['""']
    assert kind.add(value, kind.parse(["@weekly"])) == (*value, Schedule.parse("@weekly")) and kind.add(value, ()) == ()
    begin = datetime(2026, 1, 1, 2, 30, tzinfo=UTC)
    assert next_after(value, begin) == begin + 30 * MINUTE
    assert next_after(value, begin + 30 * MINUTE) == begin + 90 * MINUTE
    assert next_after((), begin) is None
    rare, begin = kind.parse(["0 0 29 2 */7"]), datetime(2033, 1, 1, 2, 30, tzinfo=UTC)  # a Sunday: the next is in 2060
    assert next_after(rare, begin) is None and next_after((*value, *rare), begin) == begin + 30 * MINUTE
    with pytest.raises(ConfigError):
        kind.parse(["; ".join(["@daily"] * 65)])


@pytest.mark.parametrize("text", ["30 2 * * *", "*/20 2 * * *", "0 0-6 * * *", "15 1,3 * * sun"])
@pytest.mark.parametrize(("name", "day"), JUMPS[:4])
def test_local_times(monkeypatch: pytest.MonkeyPatch, text: str, name: str, day: str) -> None:
    """Without a zone it is the system's."""
    schedule, zone = Schedule.parse(text), ZoneInfo(name)
    aware = datetime.fromisoformat(day).replace(tzinfo=zone)
    monkeypatch.setenv("TZ", name)
    time.tzset()
    try:
        naive = datetime.fromisoformat(day)
        for _ in range(12):
            naive, aware = schedule.next_after(naive), schedule.next_after(aware)
            assert naive.tzinfo is None and naive.timestamp() == aware.timestamp()
    finally:
        monkeypatch.undo()
        time.tzset()
