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
_MASK_OF = np.array(_MASKS)
_FIRST_BYTES = [_word(word.encode()[:3]) for word in (*RULES, "Train", "Test")]


_DEBUG = [
    _word((indent + begin)[:8])
    for indent in (b"", b"    ")
    for begin in (b"[Forward", b"[Backward", b"[Update]")
]


def _each(byte: int) -> np.uint64:
    """A number whose eight bytes are all the same."""
    return np.uint64(byte * 0x0101010101010101)


_ONES, _HIGH, _ZEROS, _POINTS = _each(1), _each(0x80), _each(ord("0")), _each(ord("."))
_ABOVE_NINE = _each(0x80 - 10)


class Scratch:
    """Memory that is used again for every piece: fresh pages cost more than the work on them."""

    def __init__(self) -> None:
        self._bytes = np.zeros(0, np.uint8)
        self._flags = np.zeros(0, bool)

    def take(self, *parts: bytes | memoryview) -> tuple[_Array, _Array]:
        """The parts as one array with room around it, and as many flags."""
        size = sum(map(len, parts)) + 2 * _PAD
        if size > len(self._bytes):
            self._bytes = np.zeros(size + size // 4, np.uint8)
            self._flags = np.zeros(len(self._bytes), bool)
        taken = self._bytes[:size]
        taken[:_PAD] = taken[size - _PAD :] = 0
        place = _PAD
        for part in parts:
            taken[place : place + len(part)] = np.frombuffer(part, np.uint8)
            place += len(part)
        return taken, self._flags[:size]


class Lines:
    """The lines in a piece of a log.

    Attributes:
        count: of lines.
        kind: of each line: SLOW, LOSS, LR, OUTPUT or OTHER.
        thread: of each line that is not SLOW.
        iteration: of each LOSS and LR.
        value: of each LOSS, LR and OUTPUT.
    """

    def __init__(self, scratch: Scratch, *parts: bytes | memoryview) -> None:
        """Takes apart what ends with a line end; good until the scratch is used again."""
        self._bytes, self._flags = scratch.take(*parts)
        self._end = np.flatnonzero(self._flagged("\n"))
        controls = np.less_equal(self._bytes, ord("\r"), out=self._flags)
        if np.count_nonzero(controls[_PAD:-_PAD]) > len(self._end):
            text = self._bytes[_PAD:-_PAD].tobytes()  # as :func:`irv2caffe.log.parse.clean` does
            text = text.replace(b"\0", b"").replace(b"\r\n", b"\n")
            self._bytes, self._flags = scratch.take(text)
            self._end = np.flatnonzero(self._flagged("\n"))
        # The eight bytes from any place on, as one number.
        self._words = np.ndarray(len(self._bytes) - 8, "<u8", self._bytes.data, strides=(1,))
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
        self._find_steps(prefixed)
        self._find_outputs(prefixed)
        self._find_others(prefixed[self.kind[prefixed] == SLOW])
        self._slow = np.append(np.flatnonzero(self.kind == SLOW), self.count)

    def text(self, place: int) -> bytes:
        """One line without its end."""
        return self._slice(self._start[place], self._end[place])

    def names(self, places: _Array) -> tuple[list[bytes], _Array]:
        """The different names in OUTPUT lines, and which of them each line has."""
        first, end = self._name[places].T
        length = end - first
        if length.max() <= 32:  # four numbers of eight bytes
            parts = [
                self._words[first + offset] & _MASK_OF[np.clip(length - offset, 0, 8)]
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
        text: bytes = self._bytes[first:end].tobytes()
        return text

    def next_slow(self, place: int) -> int:
        """The first SLOW line from ``place`` on; ``count`` if there is none."""
        return int(self._slow[np.searchsorted(self._slow, place)])

    def stamps(self, places: _Array) -> tuple[_Array, _Array, _Array, _Array]:
        """Year (-1 where it is not written), month, day and microseconds of the day."""
        words, digits = self._words, self._date_digits[places]
        at = self._start[places] + 1
        year = np.full(len(places), -1, np.int64)
        if (digits == 8).any():
            first = words[at]
            years = _pair(first, 0) * 100 + _pair(first, 2)
            year = np.where(digits == 8, years, year)
        at += digits - 4
        date, clock = words[at], words[at + 5]
        fraction = words[at + 14] << np.uint64(16) | _ZEROS & _MASKS[2]
        of_day = (_pair(clock, 0) * 60 + _pair(clock, 3)) * 60 + _pair(clock, 6)
        of_day = of_day * 1_000_000 + _eight_digits(fraction).astype(np.int64)
        return year, _pair(date, 0), _pair(date, 2), of_day

    def _find_prefixes(self) -> _Array:
        """The lines with glog's prefix of severity I, and where their messages begin."""
        data, words = self._bytes, self._words
        places = np.flatnonzero(self._end - self._start >= _MIN_BYTES)
        start = self._start[places]
        digits = np.where(data[start + 5] == ord(" "), 4, 8)
        at = start + digits + 1  # the space after the date
        good = (data[start] == ord("I")) & _looks_like(words[at - 4], "dddd dd:")
        good &= _looks_like(words[at + 4], "dd:dd.dd") & _looks_like(words[at + 9], ".dddddd ")
        if (digits == 8).any():
            good &= (digits == 4) | _looks_like(words[start + 1], "dddddddd")
        thread, source = self._threads(at + 17)
        close = self._next("]", source)
        length = close - source - 1
        good &= (source > 0) & (length > 0) & (length <= _MAX_SOURCE)
        good &= close + 2 < self._end[places]
        close = np.where(good, close, 0)
        good &= data[close + 1] == ord(" ")
        for offset in range(0, int(np.where(good, length, 0).max(initial=0)), 8):
            eight = words[source + 1 + offset] | ~_MASK_OF[np.clip(length - offset, 0, 8)]
            good &= (eight - _each(0x21)) & ~eight & _HIGH == 0  # no byte up to the space
        message = close + 2
        if len(self._places("]")) > len(places) + 2:
            # A second "] " may be a torn line, whose last message counts; debug_info has one too.
            more = self._next("]", message) < self._end[places]
            good &= ~more | self._is_debug(message)
        places = places[good]
        self.thread[places] = thread[good]
        self._message[places] = message[good]
        self._date_digits[places] = digits[good]
        return places

    def _threads(self, at: _Array) -> tuple[_Array, _Array]:
        """The threads that are named at places, and where their names end; 0 where none is.

        Most lines are of one thread, whose name is compared as a whole.
        """
        thread = np.full(len(at), -1, np.int64)
        end = np.zeros(len(at), np.int64)
        rest = np.arange(len(at))
        if len(at):
            first, first_end = self._thread(at[:1])
            length = int(first_end[0] - at[0]) + 1
            if 0 < length <= 8:
                same = (self._words[at] ^ self._words[at[0]]) & _MASKS[length] == 0
                thread[same], end[same] = first[0], at[same] + length - 1
                rest = np.flatnonzero(~same)
        if len(rest):
            thread[rest], end[rest] = self._thread(at[rest])
        return thread, end

    def _thread(self, at: _Array) -> tuple[_Array, _Array]:
        for _ in range(4):  # padded to a width of five
            at = at + (self._bytes[at] == ord(" "))
        thread, end = self._integers(at, 10)
        named = (end > at) & (self._bytes[end] == ord(" "))
        return thread, np.where(named, end, 0)

    def _is_debug(self, message: _Array) -> _Array:
        words = self._words[message]
        found = np.zeros(len(message), bool)
        for begin in _DEBUG:
            found |= words == begin
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
        rated = is_loss & (words[stop] & _MASKS[2] == _word(b" (")) & (data[comma - 1] == ord(")"))
        opening, closing = self._following("()", stop, 2)
        rated &= (opening == stop + 1) & (closing == comma - 1)
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
        first, second, third = self._following("=", colon, 3)
        opening, closing, other = self._following("()", colon, 3)
        weighted = (second < end) & (opening > first) & (opening < second)
        good = (colon > message + 22) & ((words[colon] & _MASKS[2]) == _word(b": "))
        good &= (first > colon + 3) & (first < end)
        equals: _Array = np.where(good, first, colon)
        good &= (data[equals - 1] == ord(" ")) & (data[equals + 1] == ord(" "))
        closed = ((words[opening - 1] & _MASKS[4]) == _word(b" (* ")) & (
            (words[end - 6] & _MASKS[6]) == _word(b" loss)")
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
        self._name[places] = np.stack((colon[good] + 2, equals[good] - 1), axis=1)

    def _places(self, sign: str) -> _Array:
        """Where a sign stands, with one place before all of them and one behind.

        ``()`` are both, whose codes differ in the last bit.
        """
        if sign not in self._signs:
            found: _Array = np.flatnonzero(self._flagged(sign))
            behind = len(self._bytes) - _PAD // 2
            self._signs[sign] = np.concatenate(([_PAD // 2], found, [behind]))
        return self._signs[sign]

    def _flagged(self, sign: str) -> _Array:
        if sign != "()":
            return np.equal(self._bytes, ord(sign), out=self._flags)
        both = np.bitwise_and(self._bytes, 0xFE, out=self._flags.view(np.uint8))
        return np.equal(both, ord("("), out=self._flags)

    def _next(self, sign: str, at: _Array) -> _Array:
        """The first place of a sign from each place on; the last place of all if there is none."""
        signs = self._places(sign)
        return signs[np.minimum(np.searchsorted(signs, at), len(signs) - 1)]

    def _following(self, sign: str, at: _Array, count: int) -> list[_Array]:
        """The first, second ... place of a sign from each place on."""
        signs = self._places(sign)
        first = np.searchsorted(signs, at)
        return [signs[np.minimum(first + more, len(signs) - 1)] for more in range(count)]

    def _last(self, sign: str, end: _Array) -> _Array:
        """The last place of a sign before each place."""
        signs = self._places(sign)
        return signs[np.searchsorted(signs, end) - 1]

    def _integers(self, at: _Array, max_digits: int) -> tuple[_Array, _Array]:
        """The integers that begin at places, and where they end; at most so many digits."""
        value, length = _leading_digits(self._words[at])
        stop = at + length
        for place in np.flatnonzero(length == 8).tolist():  # there may be more
            end = first = int(at[place])
            while self._bytes[end] - np.uint8(48) < 10 and end - first < max_digits:
                end += 1
            stop[place], value[place] = end, int(self._slice(first, end))
        return value, stop

    def _numbers(self, start: _Array, end: _Array, wanted: _Array) -> tuple[_Array, _Array]:
        """The floats between places, exactly as Python reads them, and which are numbers."""
        length = np.where(wanted, end - start, 0)
        start = np.where(wanted, start, 0)
        negative = self._bytes[start] == ord("-")
        value, valid = _short_decimals(self._words[start + negative], length - negative)
        longer = np.flatnonzero(~valid & (length > 8) & (length <= _MAX_NUMBER))
        if len(longer):
            first = start[longer] + negative[longer]
            value[longer], valid[longer] = self._repeated(first, length[longer] - negative[longer])
        value = np.where(negative, -value, value)
        known: dict[bytes, float | None] = {}
        for place in np.flatnonzero(wanted & ~valid).tolist():  # exponents, nan, more digits
            text = self._slice(int(start[place]), int(start[place] + max(0, length[place])))
            if text not in known:
                said = text.decode("ascii", "replace")
                known[text] = number(said) if NUMBER.fullmatch(said) else None
            found = known[text]
            if found is not None:
                value[place], valid[place] = found, True
        return value, valid & wanted

    def _repeated(self, start: _Array, length: _Array) -> tuple[_Array, _Array]:
        """As :meth:`_decimals`, where most are like the one before (learning rates)."""
        more = self._words[start + 8] & _MASK_OF[np.clip(length - 8, 0, 8)]
        columns = (self._words[start], more, length)
        differs = np.ones(len(start), bool)
        differs[1:] = False
        for column in columns:
            differs[1:] |= column[1:] != column[:-1]
        value, simple = self._decimals(start[differs], length[differs])
        same = np.cumsum(differs) - 1
        return value[same], simple[same]

    def _decimals(self, start: _Array, length: _Array) -> tuple[_Array, _Array]:
        """As :func:`_short_decimals`, of up to fifteen characters, one after the other."""
        simple = length > 0
        whole = np.zeros(len(start), np.int64)
        decimals = np.zeros(len(start), np.int64)
        pointed = np.zeros(len(start), bool)
        for offset in range(int(length.max(initial=0))):
            inside = offset < length
            sign = self._bytes[start + offset]
            digit = sign - np.uint8(48)
            is_digit = inside & (digit < 10)
            is_point = inside & (sign == ord(".")) & ~pointed
            simple &= ~inside | is_digit | is_point
            whole = np.where(is_digit, whole * 10 + digit, whole)
            decimals += is_digit & pointed
            pointed |= is_point
        return whole / _POWERS[decimals], simple


def _pair(word: _Array, place: int) -> _Array:
    """The number that two digits of eight characters are."""
    tens, ones = (word >> np.uint64(8 * at) & np.uint64(0x0F) for at in (place, place + 1))
    return (tens * np.uint64(10) + ones).astype(np.int64)


def _looks_like(word: _Array, pattern: str) -> _Array:
    """Whether eight bytes are digits where the pattern has a d, and its characters elsewhere."""
    is_digit = _word(bytes(255 * (sign == "d") for sign in pattern))
    literal = _word(bytes(ord(sign) * (sign != "d") for sign in pattern))
    return ((word & ~is_digit) == literal) & _are_digits((word ^ _ZEROS) & is_digit)


def _are_digits(low: _Array) -> _Array:
    """Whether bytes, less the character 0, are all from 0 to 9."""
    return ((low + _ABOVE_NINE) | low) & _HIGH == 0


def _leading_digits(word: _Array) -> tuple[_Array, _Array]:
    """The number that the first of eight characters are, and how many of them are digits."""
    low = word ^ _ZEROS
    other = ((low + _ABOVE_NINE) | low) & _HIGH
    other &= ~other + np.uint64(1)  # the first byte that is no digit, its highest bit
    before = (other >> np.uint64(7)) - np.uint64(1)  # all bits of the bytes before it, or all
    length = ((before & _ONES) * _ONES >> np.uint64(56)).astype(np.int64)
    missing = 8 - length
    moved = np.where(length > 0, word << (8 * missing % 64).astype(np.uint64), _ZEROS)
    value = _eight_digits(moved | _ZEROS & _MASK_OF[missing])
    return np.where(length > 0, value, 0).astype(np.int64), length


def _short_decimals(word: _Array, length: _Array) -> tuple[_Array, _Array]:
    """Numbers of at most eight characters without an exponent, and which are such.

    An integer over a power of ten: both are exact, and so the quotient rounds as it should.

    Args:
        word: the characters, the first one in the lowest byte.
        length: how many of them count.
    """
    fits = (length > 0) & (length <= 8)
    missing = np.where(fits, 8 - length, 0)
    # Moved to the high end, with zeros before them; the high end has the last digit.
    word = word << (8 * missing).astype(np.uint64) | _ZEROS & _MASK_OF[missing]
    differs = word ^ _POINTS
    point = (differs - _ONES) & ~differs & _HIGH
    point &= ~point + np.uint64(1)  # the lowest byte that is a point, its highest bit
    pointed = point != 0
    before = (point >> np.uint64(7)) - pointed.astype(np.uint64)  # all bits of the bytes before it
    through = before << np.uint64(8) | np.uint64(0xFF)
    without = word & ~through | (word & before) << np.uint64(8) | np.uint64(ord("0"))
    word = np.where(pointed, without, word)
    place = (before & _ONES) * _ONES >> np.uint64(56)
    decimals = np.where(pointed, 7 - place.astype(np.int64), 0)
    good = fits & (length > pointed) & _are_digits(word ^ _ZEROS)
    return _eight_digits(word) / _POWERS[decimals], good


def _eight_digits(word: _Array) -> _Array:
    """The number that eight characters are: pairs of digits, then of pairs, then of fours."""
    word = (word & _each(0x0F)) * np.uint64(10 << 8 | 1) >> np.uint64(8)
    word = (word & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(100 << 16 | 1) >> np.uint64(16)
    return (word & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(10_000 << 32 | 1) >> np.uint64(32)
