"""LineBuffer: finds lines, characters and numbers in a block of a log."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from irv2caffe.log.read.fast.digits import (
    MAX_DIGITS,
    POWERS,
    leading_digits,
    short_decimals,
)
from irv2caffe.log.read.parse import NUMBER, number

PAD = 64  # zero bytes around a block, so that reading near its ends needs no checks
_MAX_TEXT_BYTES = 1 << 16  # of lines taken at once; longer lines are cut off
_ESCAPE = 0x1B
_UNCLEAN = re.compile(rb"\r|\x1b|>\n")
Array = Any  # of numpy


class Scratch:
    """Memory reused for every block; allocating new pages would take longer than parsing."""

    def __init__(self) -> None:
        self._bytes = np.zeros(0, np.uint8)
        self._flags = np.zeros(0, bool)

    def take(self, *parts: bytes | memoryview) -> tuple[Array, Array]:
        """The parts as one array with zeros around them, and an array of as many flags."""
        size = sum(map(len, parts)) + 2 * PAD
        if size > len(self._bytes):
            self._bytes = np.zeros(size + size // 4, np.uint8)
            self._flags = np.zeros(len(self._bytes), bool)
        taken = self._bytes[:size]
        taken[:PAD] = taken[size - PAD :] = 0
        place = PAD
        for part in parts:
            taken[place : place + len(part)] = np.frombuffer(part, np.uint8)
            place += len(part)
        return taken, self._flags[:size]


class LineBuffer:
    """Whole lines as a byte array, with searches that take and return arrays of positions.

    Attributes:
        count: of lines.
        escaped: lines that contain escape sequences of a terminal.
    """

    def __init__(self, scratch: Scratch, *parts: bytes | memoryview) -> None:
        """Takes whole lines; valid until the scratch memory is used again."""
        self._bytes, self._flags = scratch.take(*parts)
        self._end = np.flatnonzero(self._flagged("\n"))
        controls = np.less_equal(self._bytes, _ESCAPE, out=self._flags)
        escapes: Array = np.zeros(0, np.int64)
        if np.count_nonzero(controls[PAD:-PAD]) > len(self._end):
            text = self._bytes[PAD:-PAD].tobytes()  # as in :func:`irv2caffe.log.read.parse.clean`
            text = text.replace(b"\0", b"").replace(b"\r\n", b"\n")
            self._bytes, self._flags = scratch.take(text)
            self._end = np.flatnonzero(self._flagged("\n"))
            escapes = np.flatnonzero(np.equal(self._bytes, _ESCAPE, out=self._flags))
        # The eight bytes from any place on, as one number.
        self._words = np.ndarray(len(self._bytes) - 8, "<u8", self._bytes.data, strides=(1,))
        self._start = np.concatenate(([PAD], self._end[:-1] + 1))
        self._positions: dict[str, Array] = {}
        self.count = len(self._end)
        self.escaped = np.unique(np.searchsorted(self._end, escapes))

    def text(self, place: int) -> bytes:
        """One line without its end."""
        return self._slice(self._start[place], self._end[place])

    def unprefixed(self, place: int) -> str:
        """The next lines without a prefix that need no cleaning, with their line ends."""
        first = int(self._start[place])
        end = min(int(self._next("]", self._start[place])), first + _MAX_TEXT_BYTES)
        text = self._slice(first, min(end, len(self._bytes) - PAD))
        unclean = _UNCLEAN.search(text)
        end = text.rfind(b"\n", 0, None if unclean is None else unclean.start())
        return text[: end + 1].decode("utf-8", "replace")

    def _slice(self, first: int, end: int) -> bytes:
        text: bytes = self._bytes[first:end].tobytes()
        return text

    def _places(self, character: str) -> Array:
        """The positions of a character, with one before and one after all of them.

        ``()`` means either bracket; their codes differ in the last bit.
        """
        if character not in self._positions:
            found: Array = np.flatnonzero(self._flagged(character))
            after = len(self._bytes) - PAD // 2
            self._positions[character] = np.concatenate(([PAD // 2], found, [after]))
        return self._positions[character]

    def _flagged(self, character: str) -> Array:
        if character != "()":
            return np.equal(self._bytes, ord(character), out=self._flags)
        both = np.bitwise_and(self._bytes, 0xFE, out=self._flags.view(np.uint8))
        return np.equal(both, ord("("), out=self._flags)

    def _next(self, character: str, at: Array) -> Array:
        """The next position of a character from each given one on; the end if there is none."""
        positions = self._places(character)
        return positions[np.minimum(np.searchsorted(positions, at), len(positions) - 1)]

    def _following(self, character: str, at: Array, count: int) -> list[Array]:
        """The next ``count`` positions of a character from each place on."""
        positions = self._places(character)
        first = np.searchsorted(positions, at)
        return [positions[np.minimum(first + more, len(positions) - 1)] for more in range(count)]

    def _last(self, character: str, end: Array) -> Array:
        """The last position of a character before each place."""
        positions = self._places(character)
        return positions[np.searchsorted(positions, end) - 1]

    def _integers(self, at: Array, max_digits: int) -> tuple[Array, Array]:
        """The integers of up to ``max_digits`` digits at positions, and their ends."""
        value, length = leading_digits(self._words[at])
        stop = at + length
        for place in np.flatnonzero(length == 8).tolist():  # there may be more
            end = first = int(at[place])
            while end - first < max_digits and ord("0") <= int(self._bytes[end]) <= ord("9"):
                end += 1
            stop[place], value[place] = end, int(self._slice(first, end))
        return value, stop

    def _numbers(self, start: Array, end: Array, wanted: Array) -> tuple[Array, Array]:
        """The floats between positions, exactly as Python parses them, and which are valid."""
        length = np.where(wanted, end - start, 0)
        start = np.where(wanted, start, 0)
        negative = self._bytes[start] == ord("-")
        value, valid = short_decimals(self._words[start + negative], length - negative)
        longer = np.flatnonzero(~valid & (length > 8) & (length <= MAX_DIGITS))
        if len(longer):
            first = start[longer] + negative[longer]
            value[longer], valid[longer] = self._decimals(first, length[longer] - negative[longer])
        value = np.where(negative, -value, value)
        known: dict[bytes, float | None] = {}
        for place in np.flatnonzero(wanted & ~valid).tolist():  # exponents, nan, more digits
            text = self._slice(int(start[place]), int(start[place] + max(0, length[place])))
            if text not in known:
                decoded = text.decode("ascii", "replace")
                known[text] = number(decoded) if NUMBER.fullmatch(decoded) else None
            found = known[text]
            if found is not None:
                value[place], valid[place] = found, True
        return value, valid & wanted

    def _decimals(self, start: Array, length: Array) -> tuple[Array, Array]:
        """Like :func:`short_decimals`, for up to fifteen characters."""
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
        return whole / POWERS[decimals], simple
