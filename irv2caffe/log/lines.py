"""The lines of a piece of a log, taken apart with numpy, all at once.

A line is taken apart only where it is exactly of the usual form; any doubt makes it SLOW, which
means that :func:`irv2caffe.log.parse.parse` reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irv2caffe.log.parse import NUMBER, RULES, number

# OTHER has glog's prefix and no word that begins a message we know.
SLOW, LOSS, LR, OUTPUT, OTHER = range(5)
_MIN_BYTES = 36  # of a line with a prefix
_MAX_SOURCE = 24  # bytes of "solver.cpp:239"
_MAX_NUMBER = 15  # more digits do not fit into a float exactly
_PAD = 64
_POWERS = 10.0 ** np.arange(_MAX_NUMBER + 1)
_Array = Any  # of numpy


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text.ljust(8, b"\0"), "little"))


_MASKS = [np.uint64((1 << 8 * length) - 1) for length in range(9)]
_FIRST_BYTES = [_word(word.encode()[:3]) for word in (*RULES, "Train", "Test")]
_LOW, _HIGH = np.uint64(0x2121212121212121), np.uint64(0x8080808080808080)


class Lines:
    """The lines in a piece of a log.

    Attributes:
        count: of lines.
        kind: of each line: SLOW, LOSS, LR, OUTPUT or OTHER.
        thread: of each line that is not SLOW.
        iteration: of each LOSS and LR.
        value: of each LOSS, LR and OUTPUT.
    """

    def __init__(self, data: bytes) -> None:
        """Takes apart ``data``, which ends with a line end."""
        self._text = data
        padded = bytes(_PAD) + data + bytes(_PAD)
        self._bytes = np.frombuffer(padded, np.uint8)
        # The eight bytes from any place on, as one number.
        self._words = np.ndarray(len(padded) - 8, "<u8", padded, strides=(1,))
        self._end = np.flatnonzero(self._bytes == ord("\n"))
        self._start = np.concatenate(([_PAD], self._end[:-1] + 1))
        self._signs: dict[str, _Array] = {}
        self.count = len(self._end)
        self.kind = np.full(self.count, SLOW, np.uint8)
        self.thread = np.full(self.count, -1, np.int64)
        self.iteration = np.zeros(self.count, np.int64)
        self.value = np.zeros(self.count)
        self._date_digits = np.zeros(self.count, np.int64)
        self._message = np.zeros(self.count, np.int64)
        self._name = np.zeros((self.count, 2), np.int64)
        prefixed = self._find_prefixes()
        self._find_others(prefixed)
        self._find_steps(prefixed)
        self._find_outputs(prefixed)
        self._slow = np.append(np.flatnonzero(self.kind == SLOW), self.count)

    def text(self, place: int) -> bytes:
        """One line without its end."""
        return self._text[self._start[place] - _PAD : self._end[place] - _PAD]

    def names(self, places: _Array) -> tuple[list[bytes], _Array]:
        """The different names in OUTPUT lines, and which of them each line has."""
        first, end = self._name[places].T
        length = end - first
        if length.max() <= 32:  # four numbers of eight bytes
            parts = [
                self._words[first + offset] & np.array(_MASKS)[np.clip(length - offset, 0, 8)]
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

    def _slice(self, first: int, end: int) -> bytes:
        return self._text[first - _PAD : end - _PAD]

    def next_slow(self, place: int) -> int:
        """The first SLOW line from ``place`` on; ``count`` if there is none."""
        return int(self._slow[np.searchsorted(self._slow, place)])

    def stamps(self, places: _Array) -> tuple[_Array, _Array, _Array, _Array]:
        """Year (-1 where it is not written), month, day and microseconds of the day."""
        at, digits = self._start[places] + 1, self._date_digits[places]
        long = digits == 8
        year = np.where(long, self._digits(at, 4), -1)
        at = at + digits - 4
        month, day = self._digits(at, 2), self._digits(at + 2, 2)
        hours, minutes = self._digits(at + 5, 2), self._digits(at + 8, 2)
        seconds, fraction = self._digits(at + 11, 2), self._digits(at + 14, 6)
        of_day = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + fraction
        return year, month, day, of_day

    def _digits(self, at: _Array, count: int) -> _Array:
        value = np.zeros(len(at), np.int64)
        for offset in range(count):
            value = value * 10 + (self._bytes[at + offset] - np.uint8(48))
        return value

    def _find_prefixes(self) -> _Array:
        """The lines with glog's prefix of severity I, and where their messages begin."""
        data, words = self._bytes, self._words
        places = np.flatnonzero(self._end - self._start >= _MIN_BYTES)
        start = self._start[places]
        digits = np.where(data[start + 5] == ord(" "), 4, 8)
        at = start + digits + 1  # the space after the date
        good = data[start] == ord("I")
        for offset, sign in ((0, " "), (3, ":"), (6, ":"), (9, "."), (16, " ")):
            good &= data[at + offset] == ord(sign)
        for offset in (1, 2, 4, 5, 7, 8, *range(10, 16)):
            good &= data[at + offset] - np.uint8(48) < 10
        for offset in range(8):
            good &= (data[start + 1 + offset] - np.uint8(48) < 10) | (offset >= digits)
        at = at + 17
        for _ in range(4):  # threads are padded to a width of five
            at += data[at] == ord(" ")
        thread, source = self._integers(at, 10)
        good &= (source > at) & (data[source] == ord(" "))
        close = self._next("]", source)
        length = close - source - 1
        good &= (length > 0) & (length <= _MAX_SOURCE) & (close + 2 < self._end[places])
        close = np.where(good, close, 0)
        good &= data[close + 1] == ord(" ")
        for offset in range(0, _MAX_SOURCE, 8):  # eight bytes at a time: none up to the space
            eight = words[source + 1 + offset]
            below = (eight - _LOW) & ~eight & _HIGH
            inside = np.clip(length - offset, 0, 8)
            good &= (below & np.array(_MASKS)[inside]) == 0
        # A second "] " may be a torn line, whose last message counts; debug_info has one as well.
        message = close + 2
        more = self._next("]", message) < self._end[places]
        good &= ~more | self._is_debug(message)
        places = places[good]
        self.thread[places] = thread[good]
        self._message[places] = message[good]
        self._date_digits[places] = digits[good]
        return places

    def _is_debug(self, message: _Array) -> _Array:
        words = self._words[message]
        found = np.zeros(len(message), bool)
        for begin in (b"[Forward", b"[Backwar", b"[Update]"):
            found |= words == _word(begin)
        return found

    def _find_others(self, places: _Array) -> None:
        message = self._message[places]
        lower = self._bytes[message] | np.uint8(32)
        other = (lower >= ord("a")) & (lower <= ord("z"))
        begin = self._words[message] & _MASKS[3]
        for known in _FIRST_BYTES:
            other &= begin != known
        self.kind[places[other | self._is_debug(message)]] = OTHER

    def _find_steps(self, places: _Array) -> None:
        """``Iteration 5 (1 iter/s, 1s/1 iters), loss = 7`` and ``Iteration 5, lr = 0.1``."""
        data, words = self._bytes, self._words
        message = self._message[places]
        begin = (words[message] == _word(b"Iteratio")) & (
            (words[message + 8] & _MASKS[2]) == _word(b"n ")
        )
        places, message = places[begin], message[begin]
        end = self._end[places]
        equals = self._last("=", end)
        comma = equals - np.where(words[equals - 7] == _word(b", loss ="), 7, 5)
        iteration, stop = self._integers(message + 10, 18)
        is_loss = words[equals - 7] == _word(b", loss =")
        is_lr = (words[equals - 5] & _MASKS[7]) == _word(b", lr = ")
        good = (is_loss | is_lr) & (stop > message + 10) & (data[equals + 1] == ord(" "))
        rated = is_loss & (data[stop] == ord(" ")) & (data[stop + 1] == ord("("))
        rated &= self._next(")", stop) == comma - 1
        good &= (stop == comma) | rated
        value, valid = self._numbers(equals + 2, end, good)
        good &= valid
        places = places[good]
        self.kind[places] = np.where(is_loss[good], LOSS, LR)
        self.iteration[places] = iteration[good]
        self.value[places] = value[good]

    def _find_outputs(self, places: _Array) -> None:
        """``    Train net output #0: NAME = V``, which for losses goes on ``(* W = L loss)``."""
        data, words = self._bytes, self._words
        message = self._message[places]
        begin = (words[message] == _word(b"    Trai")) & (words[message + 8] == _word(b"n net ou"))
        begin &= (words[message + 16] & _MASKS[6]) == _word(b"tput #")
        places, message = places[begin], message[begin]
        end = self._end[places]
        _, colon = self._integers(message + 22, 9)
        first = self._next("=", colon)
        second = self._next("=", first + 1)
        opening = self._next("(", colon)
        weighted = (second < end) & (opening > first) & (opening < second)
        good = (colon > message + 22) & ((words[colon] & _MASKS[2]) == _word(b": "))
        good &= (first > colon + 3) & (first < end)
        equals: _Array = np.where(good, first, colon)
        good &= (data[equals - 1] == ord(" ")) & (data[equals + 1] == ord(" "))
        good &= ((words[opening - 1] & _MASKS[4]) == _word(b" (* ")) & (
            (words[end - 6] & _MASKS[6]) == _word(b" loss)")
        ) | ~weighted
        good &= (self._next("(", opening + 1) >= end) | ~weighted
        good &= (self._next("=", second + 1) >= end) | ~weighted
        good &= weighted | ((second >= end) & (opening >= end))
        value, valid = self._numbers(equals + 2, np.where(weighted, opening - 1, end), good)
        good &= valid
        places = places[good]
        self.kind[places] = OUTPUT
        self.value[places] = value[good]
        self._name[places] = np.stack((colon[good] + 2, equals[good] - 1), axis=1)

    def _places(self, sign: str) -> _Array:
        """Where a sign stands, with one place before all of them and one behind."""
        if sign not in self._signs:
            found: _Array = np.flatnonzero(self._bytes == ord(sign))
            behind = len(self._bytes) - _PAD // 2
            self._signs[sign] = np.concatenate(([_PAD // 2], found, [behind]))
        return self._signs[sign]

    def _next(self, sign: str, at: _Array) -> _Array:
        """The first place of a sign from each place on; the last place of all if there is none."""
        signs = self._places(sign)
        return signs[np.minimum(np.searchsorted(signs, at), len(signs) - 1)]

    def _last(self, sign: str, end: _Array) -> _Array:
        """The last place of a sign before each place."""
        signs = self._places(sign)
        return signs[np.searchsorted(signs, end) - 1]

    def _integers(self, at: _Array, max_digits: int) -> tuple[_Array, _Array]:
        """The integers that begin at places, and where they end; at most so many digits."""
        value = np.zeros(len(at), np.int64)
        stop = at.copy()
        active = np.ones(len(at), bool)
        for _ in range(max_digits):
            digit = self._bytes[stop] - np.uint8(48)
            active &= digit < 10
            if not active.any():
                break
            value = np.where(active, value * 10 + digit, value)
            stop += active
        return value, stop

    def _numbers(self, start: _Array, end: _Array, wanted: _Array) -> tuple[_Array, _Array]:
        """The floats between places, exactly as Python reads them, and which are numbers."""
        length = np.where(wanted, end - start, 0)
        start = np.where(wanted, start, 0)
        value, simple = self._decimals(start, length)
        valid = simple.copy()
        for place in np.flatnonzero(wanted & ~simple).tolist():
            first = int(start[place]) - _PAD
            text = self._text[first : first + max(0, int(length[place]))].decode("ascii", "replace")
            if NUMBER.fullmatch(text):
                value[place] = number(text)
                valid[place] = True
        return value, valid

    def _decimals(self, start: _Array, length: _Array) -> tuple[_Array, _Array]:
        """Numbers without an exponent: an integer over a power of ten, which rounds correctly."""
        negative = self._bytes[start] == ord("-")
        start = start + negative
        length = length - negative
        simple = (length > 0) & (length <= _MAX_NUMBER)
        whole = np.zeros(len(start), np.int64)
        decimals = np.zeros(len(start), np.int64)
        digits = np.zeros(len(start), np.int64)
        pointed = np.zeros(len(start), bool)
        for offset in range(min(int(length.max(initial=0)), _MAX_NUMBER)):
            inside = offset < length
            sign = self._bytes[start + offset]
            digit = sign - np.uint8(48)
            is_digit = inside & (digit < 10)
            is_point = inside & (sign == ord(".")) & ~pointed
            simple &= ~inside | is_digit | is_point
            whole = np.where(is_digit, whole * 10 + digit, whole)
            decimals += is_digit & pointed
            digits += is_digit
            pointed |= is_point
        value = whole / _POWERS[decimals]
        return np.where(negative, -value, value), simple & (digits > 0)
