"""Clock: working time since the first line, in microseconds, from glog's time stamps.

Most stamps have no year. A step back of more than half a year is taken for New Year; a smaller one
for a clock that was set back, which adds no time. A leap year is detected by its 29 February, or by
the year where the log's header or the user gives it.
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
    """Adds up the time between stamps; pauses between processes are not counted.

    Attributes:
        now_us: working time since the first stamp.
        year: of the newest stamp, or None where it is not known.
        is_leap: whether this year has a 29 February.
        first: the first stamp's date, None without a year.
        last: the newest stamp.
        position_us: of the newest stamp of this process, since the beginning of the year; None at
            the start of a process.
    """

    def __init__(self, year: int | None = None) -> None:
        self.now_us = 0
        self.year = year
        self.is_leap = year is not None and _is_leap(year)
        self.first: datetime | None = None
        self.last: LogTime | None = None
        self.position_us: int | None = None
        self._is_year_given = year is not None

    def set_header_year(self, year: int, month: int) -> None:
        """Takes the year of a log file's header, unless the user gave one."""
        if self._is_year_given:
            return
        if self.year is not None:
            if year > self.year:
                self._change_year(year)
            return
        # December's lines may stand before January's header.
        self.year = year - (self.last is not None and self.last.month > month)
        self.is_leap = _is_leap(self.year)

    def restart(self) -> None:
        """Starts a new process: the time until its first stamp is not counted."""
        self.position_us = None

    def tick(self, time: LogTime | None) -> int | None:
        """Working time at a stamp; None for a line without one or with an impossible date."""
        if time is None or not (1 <= time.month <= 12 and 1 <= time.day <= 31):
            return None
        if time.year is not None and time.year != self.year:
            self._change_year(time.year)
        if time.month == 2 and time.day == 29:
            self.is_leap = True
        days = DAYS_BEFORE[time.month] + time.day - 1 + (self.is_leap and time.month > 2)
        self._advance(days * DAY_US + time.microseconds)
        self.last = time
        if self.first is None and self.year is not None:
            self.first = to_datetime(self.year, time)
        return self.now_us

    def move_to(self, position_us: int, now_us: int, last: LogTime) -> None:
        """Sets the state after stamps of this year that were added up elsewhere."""
        self.position_us, self.now_us, self.last = position_us, now_us, last

    def _advance(self, position_us: int) -> None:
        """Moves on to a position in this year or, past its end, in the next."""
        if self.position_us is not None:
            step = position_us - self.position_us
            if step < -HALF_YEAR_US:
                step += (365 + self.is_leap) * DAY_US
                if self.year is not None:
                    self.year += 1
                self.is_leap = self.year is not None and _is_leap(self.year)
            self.now_us += max(step, 0)
        self.position_us = position_us

    def _change_year(self, year: int) -> None:
        """Goes to the year of a stamp; the years between count in full."""
        if self.year is not None and year > self.year and self.position_us is not None:
            days = sum(365 + _is_leap(between) for between in range(self.year, min(year, 9999)))
            self.position_us -= days * DAY_US
        self.year = year
        self.is_leap = _is_leap(year)

    @property
    def latest(self) -> datetime | None:
        """The newest stamp's date, None without a year."""
        return None if self.year is None or self.last is None else to_datetime(self.year, self.last)


def to_datetime(year: int, time: LogTime) -> datetime | None:
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
