"""
When something runs: schedules as crontab(5) of Debian has them, in a time zone, and in words.

The library cronsim reads the five fields and finds the times that match them on a clock on the
wall that is never changed. When these are, this module says, as cron(8) of Debian has it for
changes of less than three hours:

  - A job at particular times (neither minute nor hour begins with C{*}) whose time is skipped
    runs right after the change; one whose time comes twice runs the first time only.
  - Any other, C{@hourly} too, goes by the clock as it is: what is skipped is left out, what
    comes twice runs twice.

Two things differ from Debian's. Several skipped times of one job are one run, not as many right
behind each other. Longer changes, as when a country moves over the date line, are treated alike.

cronsim could find times in a zone itself, but it starts each day's hours from the hour before: of
C{*/15 3 * * *} it leaves out 03:00 and 03:15 when Lord Howe Island changes by half an hour. And
from within an hour that comes twice it goes back to times that have been.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import groupby, islice, takewhile
from zoneinfo import ZoneInfo

from attrs import frozen
from cron_descriptor import Options, get_description
from cronsim import CronSim

from hoody.cron.fields import SOME_DAY, InvalidSchedule, fields_of, normalised
from hoody.cron.zones import InvalidTimezone, zone

__all__ = ["MOST", "InvalidSchedule", "InvalidTimezone", "Schedule", "in_words", "zone"]

MOST = 100
"""Up to how many fires that were missed are counted."""
_KEPT = 16384
"""How many schedules are remembered as read: more than a server has entries."""
_WORDS = Options(use_24hour_time_format=True, locale_code="en_US")


@frozen
class Schedule:
    """
    @ivar text: as it was given, each blank once, C{@} words in lower case.
    @ivar fields: the five, without zeros in front.
    """

    text: str
    fields: str

    @classmethod
    def read(cls, text: str) -> Schedule:
        """
        Five fields or a word such as C{@daily}.

        @raise InvalidSchedule: if it is none, or would never fire.
        """
        return _read(text)

    def after(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        """
        The first fire later than C{moment}, in UTC; C{None} if there is none in fifty years.

        @param moment: with a time zone, as all here.
        """
        return next(self._fires(moment, zone), None)

    def next(self, moment: datetime, zone: ZoneInfo, count: int) -> list[datetime]:
        """The first C{count} fires later than C{moment}, in UTC."""
        return list(islice(self._fires(moment, zone), count))

    def latest(
        self, after: datetime, until: datetime, zone: ZoneInfo
    ) -> tuple[datetime | None, int]:
        """
        The latest fire later than C{after} and not later than C{until}, in UTC, and how many
        there are, L{MOST} if there are more. It costs the same however long ago C{after} is.
        """
        backwards = self._fires(until, zone, backwards=True)
        fires = list(islice(takewhile(lambda fire: fire > after, backwards), MOST))
        return (fires[0] if fires else None), len(fires)

    def _fires(
        self, moment: datetime, zone: ZoneInfo, *, backwards: bool = False
    ) -> Iterator[datetime]:
        """Those later than C{moment}, or backwards all others, each once, the nearest first."""
        times = self._times(moment.astimezone(UTC), zone, backwards)
        return (fire for fire, _ in groupby(times) if (fire <= moment) == backwards)

    def _times(self, moment: datetime, zone: ZoneInfo, backwards: bool) -> Iterator[datetime]:
        """In order, from a little before C{moment}, backwards from a little behind it."""
        # Clocks go back by less than a day; what they show then they have shown before.
        near = timedelta(days=-1 if backwards else 1)
        offsets = (_offset(moment, zone), _offset(moment + near, zone))
        edge = max(offsets) + timedelta(seconds=1) if backwards else min(offsets)
        start = moment.replace(tzinfo=None) + edge
        again: deque[datetime] = deque()
        for wall in CronSim(self.fields, start, reverse=backwards):
            for number, time in enumerate(self._when(wall, zone, backwards)):
                if number:
                    again.append(time)
                    continue
                while again and (again[0] > time) == backwards:
                    yield again.popleft()
                yield time
        yield from again

    def _when(self, wall: datetime, zone: ZoneInfo, backwards: bool) -> tuple[datetime, ...]:
        """The times at which this job runs because clocks show C{wall}, the nearest first."""
        first = wall.replace(tzinfo=zone).astimezone(UTC)
        second = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
        if first == second:
            return (first,)
        minute, hour, _ = self.fields.split(" ", 2)
        if minute[0] != "*" and hour[0] != "*":
            return (first,) if first < second else (_change(second, first, zone),)
        if first > second:
            return ()
        return (second, first) if backwards else (first, second)


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _change(before: datetime, behind: datetime, zone: ZoneInfo) -> datetime:
    """When the clocks are changed, to the second, which is once between the two."""
    seconds = range(int((behind - before).total_seconds()))
    new = _offset(behind, zone)
    return before + timedelta(
        seconds=bisect_left(
            seconds,
            True,
            key=lambda second: _offset(before + timedelta(seconds=second), zone) == new,
        )
    )


@lru_cache(_KEPT)
def _read(text: str) -> Schedule:
    text = normalised(text)
    return Schedule(text, fields_of(text))


def in_words(text: str) -> str:
    """
    A schedule in plain English.

    @raise InvalidSchedule: as L{Schedule.read} does.
    """
    return _in_words(Schedule.read(text).fields)


@lru_cache(_KEPT)
def _in_words(fields: str) -> str:
    # The library fails at some lists with steps in them; of steps through days of the week it
    # tells as if they went on from week to week. Of days of the month and of the week Debian
    # takes either, unless one begins with *: then both. The library says "or on" of lists of
    # days only, and always.
    read, parts = CronSim(fields, SOME_DAY), fields.split(" ")
    weekdays = {number % 7 for number in read.weekdays if isinstance(number, int)}
    for place, numbers in enumerate((read.minutes, read.hours, read.days, read.months, weekdays)):
        if "/" in parts[place] and ("," in parts[place] or numbers is weekdays):
            parts[place] = _spelled(numbers)
    if parts[2] != "*" and parts[4] != "*":
        parts[4] = _spelled(weekdays)
    words: str = get_description(" ".join(parts), _WORDS)
    words = re.sub(r"\b1 minutes\b", "1 minute", words)
    return words.replace(", or on ", ", only on ") if read.day_and else words


def _spelled(numbers: set[int]) -> str:
    return ",".join(map(str, sorted(numbers)))
