"""Damaged inputs out of sound ones: bits, lengths, numbers, cuts, splices, words of the format."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

MAX_BYTES = 1 << 20
_SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40)
_SIZES += ((1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_NUMBERS = (b"0", b"-1", b"1", b"2147483647", b"2147483648", b"4294967296", b"-9223372036854775808")
_NUMBERS += (b"99999999999999999999999", b"1e308", b"-1e-320", b"1e999", b"nan", b"-inf", b"0x7f")
_NUMBERS += (b"9" * 400, b"9" * 5000, b"0.0000001", b"1000000000", b"00", b"\xd9\xa3", b"1_000")
_PIECES = (b"\0", b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\x1b[31m", b"\r", b"\xef\xbb\xbf")
_PIECES += (b"../", b"/", b"\\", b'"', b"'", b"{", b"}", b"[", b"]", b"<", b"#", b",", b":", b"=")
_NUMBER = re.compile(rb"-?\d+(?:\.\d*)?(?:e-?\d+)?")


def damaged(
    rng: random.Random, data: bytes, others: list[bytes], words: tuple[bytes, ...], *, text: bool
) -> bytes:
    """``data`` with one to eight changes.

    Args:
        rng: what is changed.
        data: a sound input, or nearly.
        others: that pieces are taken from.
        words: of the format, put in at places.
        text: lines and numbers of digits are changed as often as bytes.
    """
    changes = [*_OF_BYTES, *(_OF_TEXT * 2 if text else ())]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        change = rng.choice(changes)
        if change is _splice:
            data = _splice(rng, data, rng.choice(others))
        elif change is _word:
            data = _word(rng, data, rng.choice(words or _PIECES))
        else:
            data = change(rng, data)
        data = data[:MAX_BYTES]
    return data


def _span(rng: random.Random, data: bytes, most: int = 1 << 16) -> tuple[int, int]:
    """A piece, mostly a short one."""
    start = rng.randrange(len(data) + 1)
    length = min(int(2 ** rng.uniform(0, 17)) - 1, most)
    return start, min(len(data), start + length)


def _flip(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 4, 32)) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _size_field(rng: random.Random, data: bytes) -> bytes:
    """Two to eight bytes become a size, as formats store it."""
    width = rng.choice((1, 2, 4, 8))
    start = rng.randrange(len(data) + 1)
    old = int.from_bytes(data[start : start + width], "little")
    value = rng.choice((*_SIZES, old + 1, old - 1, old * 2, len(data), len(data) + 1))
    field = (value % (1 << 8 * width)).to_bytes(width, "little")
    return data[:start] + (field if rng.random() < 0.5 else field[::-1]) + data[start + width :]


def _varint(rng: random.Random, data: bytes) -> bytes:
    """A byte becomes a number of protobuf's."""
    value, out = rng.choice(_SIZES), b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    start = rng.randrange(len(data) + 1)
    return data[:start] + out + bytes([value]) + data[start + 1 :]


def _cut(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def _end(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data, 4096)
    times = rng.choice((1, 1, 2, 100, 5000))
    piece = data[start:end]
    return data[:start] + piece * min(times, _most_times(piece)) + data[start:]


def _most_times(piece: bytes) -> int:
    return 1 + (1 << 17) // (len(piece) + 1)


def _noise(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data, 256)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def _splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _span(rng, other)
    at = rng.randrange(len(data) + 1)
    behind = at if rng.random() < 0.5 else min(len(data), at + end - start)
    return data[:at] + other[start:end] + data[behind:]


def _word(rng: random.Random, data: bytes, word: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + word + data[at + rng.choice((0, len(word))) :]


def _digits(rng: random.Random, data: bytes) -> bytes:
    found = [match.span() for match in _NUMBER.finditer(data[: 1 << 16])]
    if not found:
        return data
    start, end = rng.choice(found)
    return data[:start] + rng.choice(_NUMBERS) + data[end:]


def _lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    what = rng.randrange(5)
    if what == 0:
        del lines[at:other]
    elif what == 1:
        lines[at], lines[other] = lines[other], lines[at]
    elif what == 2:
        lines[at:at] = lines[other : other + 20] * rng.choice((1, 2, 50))
    elif what == 3:
        lines[at] += lines[other]
    else:
        lines[at] = lines[at] * min(rng.choice((2, 1000, 20_000)), _most_times(lines[at]))
    return b"\n".join(lines)


def _nest(rng: random.Random, data: bytes) -> bytes:
    """Brackets in brackets."""
    opening, closing = rng.choice(
        ((b"[", b"]"), (b"{", b"}"), (b"layer {", b"}"), (b'{"a":', b"}"))
    )
    at, depth = rng.randrange(len(data) + 1), rng.choice((3, 100, 5000, 100_000))
    return data[:at] + opening * depth + closing * depth + data[at:]


_OF_BYTES = (_flip, _flip, _size_field, _size_field, _varint, _cut, _end, _repeat, _noise)
_OF_BYTES += (_splice, _word, _word, _digits)
_OF_TEXT = (_digits, _lines, _nest, _word)
