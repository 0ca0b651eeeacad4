"""Parses decimal numbers, eight characters at a time.

The functions take arrays of 64-bit words of eight characters, the first in the lowest byte.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MAX_DIGITS = 15  # more do not fit exactly into a float
Array = Any  # of numpy
POWERS = 10.0 ** np.arange(MAX_DIGITS + 1)


def word_of(text: bytes) -> np.uint64:
    """Up to eight characters as a word."""
    return np.uint64(int.from_bytes(text.ljust(8, b"\0"), "little"))


MASKS = [np.uint64((1 << 8 * length) - 1) for length in range(9)]
MASK_OF = np.array(MASKS)


def repeat(byte: int) -> np.uint64:
    """A word whose eight bytes are all the same."""
    return np.uint64(byte * 0x0101010101010101)


_ONES, HIGH, ZEROS, _POINTS = repeat(1), repeat(0x80), repeat(ord("0")), repeat(ord("."))
_ABOVE_NINE = repeat(0x80 - 10)


def pair(word: Array, place: int) -> Array:
    """The number of two digits, at an offset in a word."""
    tens, ones = (word >> np.uint64(8 * at) & np.uint64(0x0F) for at in (place, place + 1))
    return (tens * np.uint64(10) + ones).astype(np.int64)


def looks_like(word: Array, pattern: str) -> Array:
    """Whether words have digits where the pattern has a d, and its characters elsewhere."""
    is_digit = word_of(bytes(255 * (sign == "d") for sign in pattern))
    literal = word_of(bytes(ord(sign) * (sign != "d") for sign in pattern))
    return ((word & ~is_digit) == literal) & are_digits((word ^ ZEROS) & is_digit)


def are_digits(low: Array) -> Array:
    """Whether all bytes of words, after an exclusive or with ``0``, are from 0 to 9."""
    return ((low + _ABOVE_NINE) | low) & HIGH == 0


def leading_digits(word: Array) -> tuple[Array, Array]:
    """The integers at the start of words, and their numbers of digits."""
    low = word ^ ZEROS
    other = ((low + _ABOVE_NINE) | low) & HIGH
    other &= ~other + np.uint64(1)  # the highest bit of the first byte that is not a digit
    before = (other >> np.uint64(7)) - np.uint64(1)  # all bits of the bytes before it, or all
    length = ((before & _ONES) * _ONES >> np.uint64(56)).astype(np.int64)
    missing = 8 - length
    moved = np.where(length > 0, word << (8 * missing % 64).astype(np.uint64), ZEROS)
    value = eight_digits(moved | ZEROS & MASK_OF[missing])
    return np.where(length > 0, value, 0).astype(np.int64), length


def short_decimals(word: Array, length: Array) -> tuple[Array, Array]:
    """Floats of at most eight characters without an exponent, and which are valid.

    Each is an integer divided by a power of ten; as both are exact, the quotient rounds correctly.

    Args:
        word: the characters.
        length: the number of characters used.
    """
    fits = (length > 0) & (length <= 8)
    missing = np.where(fits, 8 - length, 0)
    # Shifted so that the last digit is in the highest byte, with zeros before the first.
    word = word << (8 * missing).astype(np.uint64) | ZEROS & MASK_OF[missing]
    differs = word ^ _POINTS
    point = (differs - _ONES) & ~differs & HIGH
    point &= ~point + np.uint64(1)  # the highest bit of the lowest byte that is a point
    pointed = point != 0
    before = (point >> np.uint64(7)) - pointed.astype(np.uint64)  # all bits of the bytes before it
    through = before << np.uint64(8) | np.uint64(0xFF)
    without = word & ~through | (word & before) << np.uint64(8) | np.uint64(ord("0"))
    word = np.where(pointed, without, word)
    place = (before & _ONES) * _ONES >> np.uint64(56)
    decimals = np.where(pointed, 7 - place.astype(np.int64), 0)
    good = fits & (length > pointed) & are_digits(word ^ ZEROS)
    return eight_digits(word) / POWERS[decimals], good


def eight_digits(word: Array) -> Array:
    """The integers of eight digits: first of pairs of digits, then of fours, then of all."""
    word = (word & repeat(0x0F)) * np.uint64(10 << 8 | 1) >> np.uint64(8)
    word = (word & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(100 << 16 | 1) >> np.uint64(16)
    return (word & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(10_000 << 32 | 1) >> np.uint64(32)
