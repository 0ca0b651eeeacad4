"""Working time from glog's stamps, in whole microseconds.

Most stamps have no year. A step back of more than half a year is the turn of one; a smaller one is
a clock that was set, and time stands still until the next line. A leap year is known by its
29 February, or by the year itself where the log's header or the user says it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irv2caffe.log.read.events import LogTime

DAY_US = 86_400_000_000
HALF_YEAR_US = 180 * DAY_US
DAYS_BEFORE = (0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)


class Clock:
    """Sums up the time between stamps; pauses between processes are left out.

    Attributes:
        now_us: working time since the first stamp.
        year: of the newest stamp, or None where nobody said it.
        first: the first stamp's date, None without a year.
        last: the newest stamp.
    """

    def __init__(self, year: int | None = None) -> None:
        self.now_us = 0
        self.year = year
        self.first: datetime | None = None
        self.last: LogTime | None = None
        self._leap = year is not None and _is_leap(year)
        self._told = year is not None
        self._place: int | None = None

    def said_year(self, year: int, month: int) -> None:
        """The year in a file's header, unless the user said one."""
        if self._told:
            return
        if self.year is not None:
            if year > self.year:
                self._turn(year)
            return
        # December's lines may stand before January's header.
        self.year = year - (self.last is not None and self.last.month > month)
        self._leap = _is_leap(self.year)

    def restart(self) -> None:
        """A new process: the time until its first stamp does not count."""
        self._place = None

    def tick(self, time: LogTime | None) -> int | None:
        """Working time at a stamp; None for a line without one or with an impossible one."""
        if time is None or not (1 <= time.month <= 12 and 1 <= time.day <= 31):
            return None
        if time.year is not None and time.year != self.year:
            self._turn(time.year)
        if time.month == 2 and time.day == 29:
            self._leap = True
        self.advance(self.place(time))
        self._keep(time)
        return self.now_us

    def place(self, time: LogTime) -> int:
        """Microseconds since the beginning of the year."""
        days = DAYS_BEFORE[time.month] + time.day - 1 + (self._leap and time.month > 2)
        return days * DAY_US + time.microseconds

    @property
    def is_leap(self) -> bool:
        """Whether this year has a 29 February."""
        return self._leap

    @property
    def at(self) -> int | None:
        """The place of the last stamp in its year; None at the start of a process."""
        return self._place

    def jump(self, place: int, now_us: int, last: LogTime) -> None:
        """Takes over what was counted outside, up to a stamp of this year."""
        self._place, self.now_us, self.last = place, now_us, last

    def advance(self, place: int) -> None:
        """Moves on to a place in this year or, over its end, in the next."""
        if self._place is not None:
            step = place - self._place
            if step < -HALF_YEAR_US:
                step += (365 + self._leap) * DAY_US
                if self.year is not None:
                    self.year += 1
                self._leap = self.year is not None and _is_leap(self.year)
            self.now_us += max(step, 0)
        self._place = place

    def _turn(self, year: int) -> None:
        """A stamp of another year: what lies between is counted by its whole years."""
        if self.year is not None and year > self.year and self._place is not None:
            days = sum(365 + _is_leap(between) for between in range(self.year, min(year, 9999)))
            self._place -= days * DAY_US
        self.year = year
        self._leap = _is_leap(year)

    def _keep(self, time: LogTime) -> None:
        self.last = time
        if self.first is None and self.year is not None:
            self.first = moment(self.year, time)

    @property
    def latest(self) -> datetime | None:
        """The newest stamp's date, None without a year."""
        return None if self.year is None or self.last is None else moment(self.year, self.last)


def moment(year: int, time: LogTime) -> datetime | None:
    """A stamp as a date, in the local time of the machine that wrote it."""
    seconds, fraction = divmod(time.microseconds, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    try:
        return datetime(year, time.month, time.day, hour, minute, second, fraction)
    except ValueError:
        return None


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
