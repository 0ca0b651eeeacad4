"""Lines: parses all lines of a block at once with numpy.

Only lines of exactly the usual form are parsed here; all others are marked SLOW, and
:func:`irv2caffe.log.read.parse.parse` reads them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irv2caffe.log.read.fast.digits import (
    HIGH,
    MASK_OF,
    MASKS,
    ZEROS,
    eight_digits,
    looks_like,
    pair,
    repeat,
    word_of,
)
from irv2caffe.log.read.fast.scan import LineBuffer, Scratch
from irv2caffe.log.read.parse import RULES

# OTHER: glog's prefix and a message that starts with none of the words of RULES.
SLOW, LOSS, LR, OUTPUT, OTHER = range(5)
_MIN_BYTES = 36  # of a line with a prefix
_MAX_SOURCE = 24  # bytes of "solver.cpp:239"
Array = Any  # of numpy
_FIRST_BYTES = [word_of(word.encode()[:3]) for word in (*RULES, "Train", "Test", "class")]
_DEBUG = [
    word_of((indent + begin)[:8])
    for indent in (b"", b"    ")
    for begin in (b"[Forward", b"[Backward", b"[Update]")
]
# For each eight bytes of a source: masks of the bytes after its end, by its length.
_AFTER_END = [
    np.array([~MASKS[min(max(length - first, 0), 8)] for length in range(_MAX_SOURCE + 1)])
    for first in range(0, _MAX_SOURCE, 8)
]


class Lines(LineBuffer):
    """The parsed lines of a block.

    Attributes:
        kind: of each line: SLOW, LOSS, LR, OUTPUT or OTHER.
        thread: of each line that is not SLOW.
        iteration: of each LOSS and LR.
        value: of each LOSS, LR and OUTPUT.
        is_weighted: whether an OUTPUT has a loss weight.
    """

    def __init__(self, scratch: Scratch, *parts: bytes | memoryview) -> None:
        """Parses whole lines; valid until the scratch memory is used again."""
        super().__init__(scratch, *parts)
        self.kind = np.full(self.count, SLOW, np.uint8)
        self.thread = np.full(self.count, -1, np.int64)
        self.iteration = np.zeros(self.count, np.int64)
        self.value = np.zeros(self.count)
        self.is_weighted = np.zeros(self.count, bool)
        self._date_digits = np.zeros(self.count, np.int64)
        self._message = np.zeros(self.count, np.int64)
        self._name = np.zeros((self.count, 2), np.int64)
        prefixed = self._find_prefixes()
        begin = self._words[self._message[prefixed]]
        self._find_steps(prefixed[begin == word_of(b"Iteratio")])
        self._find_outputs(prefixed[begin == word_of(b"    Trai")])
        self._find_others(prefixed[self.kind[prefixed] == SLOW])
        self.kind[self.escaped] = SLOW
        self._slow = np.append(np.flatnonzero(self.kind == SLOW), self.count)
        self._known = np.append(np.flatnonzero(self.kind != OTHER), self.count)

    def names(self, places: Array) -> tuple[list[bytes], Array]:
        """The different names in OUTPUT lines, and which of them each line has."""
        first, end = self._name[places].T
        length = end - first
        if length.max() <= 32:  # four numbers of eight bytes
            parts = [
                self._words[first + offset] & MASK_OF[np.clip(length - offset, 0, 8)]
                for offset in range(0, int(length.max()), 8)
            ]
            same = np.ones(len(places), bool)
            for part in (*parts, length):
                same &= part == part[0]
            if same.all():
                return [self._slice(first[0], end[0])], np.zeros(len(places), np.int64)
            rows = np.stack([*parts, length.astype(np.uint64)], axis=1)
            _, leading, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
            return [self._slice(first[row], end[row]) for row in leading], which.reshape(-1)
        ids: dict[bytes, int] = {}
        texts = map(self._slice, first.tolist(), end.tolist())
        which = np.array([ids.setdefault(text, len(ids)) for text in texts])
        return list(ids), which

    def next_slow(self, place: int) -> int:
        """The first SLOW line from ``place`` on; ``count`` if there is none."""
        return int(self._slow[np.searchsorted(self._slow, place)])

    def next_known(self, place: int) -> int:
        """The first line from ``place`` on that is not OTHER; ``count`` if there is none."""
        return int(self._known[np.searchsorted(self._known, place)])

    def stamps(self, places: Array) -> tuple[Array, Array, Array, Array]:
        """Year (-1 where it is not written), month, day and microseconds of the day."""
        words, digits = self._words, self._date_digits[places]
        at = self._start[places] + 1
        year = np.full(len(places), -1, np.int64)
        if (digits == 8).any():
            first = words[at]
            years = pair(first, 0) * 100 + pair(first, 2)
            year = np.where(digits == 8, years, year)
        at += digits - 4
        date, clock = words[at], words[at + 5]
        fraction = words[at + 14] << np.uint64(16) | ZEROS & MASKS[2]
        of_day = (pair(clock, 0) * 60 + pair(clock, 3)) * 60 + pair(clock, 6)
        of_day = of_day * 1_000_000 + eight_digits(fraction).astype(np.int64)
        return year, pair(date, 0), pair(date, 2), of_day

    def _find_prefixes(self) -> Array:
        """The lines with glog's prefix of severity I, and where their messages begin."""
        data, words = self._bytes, self._words
        places = np.flatnonzero(self._end - self._start >= _MIN_BYTES)
        start = self._start[places]
        digits = np.where(data[start + 5] == ord(" "), 4, 8)
        at = start + digits + 1  # the space after the date
        good = (data[start] == ord("I")) & looks_like(words[at - 4], "dddd dd:")
        good &= looks_like(words[at + 4], "dd:dd.dd") & looks_like(words[at + 9], ".dddddd ")
        if (digits == 8).any():
            good &= (digits == 4) | looks_like(words[start + 1], "dddddddd")
        thread, source = self._threads(at + 17)
        close = self._next("]", source)
        length = close - source - 1
        good &= (source > 0) & (length > 0) & (length <= _MAX_SOURCE)
        good &= close + 2 < self._end[places]
        close = np.where(good, close, 0)
        good &= data[close + 1] == ord(" ")
        for offset, filled in enumerate(_AFTER_END):
            longer = np.flatnonzero(good & (length > 8 * offset)) if offset > 1 else slice(None)
            eight = words[source[longer] + 1 + 8 * offset] | filled[length[longer] * good[longer]]
            good[longer] &= (eight - repeat(0x21)) & ~eight & HIGH == 0  # no byte up to the space
        message = close + 2
        if len(self._places("]")) > len(places) + 2:
            # A second "] " may be a torn line, whose last message is used; debug_info has one too.
            more = self._next("]", message) < self._end[places]
            good &= ~more | self._is_debug(message)
        places = places[good]
        self.thread[places] = thread[good]
        self._message[places] = message[good]
        self._date_digits[places] = digits[good]
        return places

    def _threads(self, at: Array) -> tuple[Array, Array]:
        """The thread numbers at positions, and their ends; 0 where there is none."""
        for _ in range(4):  # padded to a width of five
            at = at + (self._bytes[at] == ord(" "))
        thread, end = self._integers(at, 10)
        named = (end > at) & (self._bytes[end] == ord(" "))
        return thread, np.where(named, end, 0)

    def _is_debug(self, message: Array) -> Array:
        words = self._words[message]
        found = np.zeros(len(message), bool)
        for begin in _DEBUG:
            found |= words == begin
        return found

    def _find_others(self, places: Array) -> None:
        message = self._message[places]
        lower = self._bytes[message] | np.uint8(32)
        other = (lower >= ord("a")) & (lower <= ord("z"))
        begin = self._words[message] & MASKS[3]
        for known in _FIRST_BYTES:
            other &= begin != known
        self.kind[places[other | self._is_debug(message)]] = OTHER

    def _find_steps(self, places: Array) -> None:
        """``Iteration 5 (1 iter/s, 1s/1 iters), loss = 7`` and ``Iteration 5, lr = 0.1``."""
        data, words = self._bytes, self._words
        message = self._message[places]
        end = self._end[places]
        equals = self._last("=", end)
        before = words[equals - 7]
        is_loss = before == word_of(b", loss =")
        is_lr = before >> np.uint64(16) == word_of(b", lr =")
        comma = equals - np.where(is_loss, 7, 5)
        iteration, stop = self._integers(message + 10, 18)
        good = (is_loss | is_lr) & (stop > message + 10) & (data[equals + 1] == ord(" "))
        good &= (data[message + 8] == ord("n")) & (data[message + 9] == ord(" "))
        rated = is_loss & (words[stop] & MASKS[2] == word_of(b" (")) & (data[comma - 1] == ord(")"))
        opening, closing = self._following("()", stop, 2)
        rated &= (opening == stop + 1) & (closing == comma - 1)
        good &= (stop == comma) | rated
        value, valid = self._numbers(equals + 2, end, good)
        places, kind = places[valid], np.where(is_loss, LOSS, LR)[valid]
        self.kind[places] = kind
        self.iteration[places] = iteration[valid]
        self.value[places] = value[valid]

    def _find_outputs(self, places: Array) -> None:
        """``    Train net output #0: NAME = V``; losses have ``(* W = L loss)`` after it."""
        data, words = self._bytes, self._words
        message = self._message[places]
        begin = words[message + 8] == word_of(b"n net ou")
        begin &= (words[message + 16] & MASKS[6]) == word_of(b"tput #")
        places, message = places[begin], message[begin]
        end = self._end[places]
        _, colon = self._integers(message + 22, 9)
        first, second, third = self._following("=", colon, 3)
        opening, closing, other = self._following("()", colon, 3)
        weighted = (second < end) & (opening > first) & (opening < second)
        good = (colon > message + 22) & ((words[colon] & MASKS[2]) == word_of(b": "))
        good &= (first > colon + 3) & (first < end)
        equals: Array = np.where(good, first, colon)
        good &= (data[equals - 1] == ord(" ")) & (data[equals + 1] == ord(" "))
        closed = ((words[opening - 1] & MASKS[4]) == word_of(b" (* ")) & (
            (words[end - 6] & MASKS[6]) == word_of(b" loss)")
        )
        good &= np.where(
            weighted,
            closed & (closing == end - 1) & (other >= end) & (third >= end),
            (second >= end) & (opening >= end),
        )
        value, valid = self._numbers(equals + 2, np.where(weighted, opening - 1, end), good)
        good &= valid
        places = places[good]
        self.kind[places] = OUTPUT
        self.value[places] = value[good]
        self.is_weighted[places] = weighted[good]
        self._name[places] = np.stack((colon[good] + 2, equals[good] - 1), axis=1)
