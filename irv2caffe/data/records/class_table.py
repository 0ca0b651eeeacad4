"""Class tables (``labels.txt``), other text files of users, and lists of names in messages."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError, InputError, MissingInputError, first_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_NUM_SHOWN = 5
_MAX_LINE_BYTES = 65_536
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4}))")
_ENDS_LINES = ("Cc", "Zl", "Zp")  # Unicode categories of control characters and separators


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of every line that is not blank, without its line break.

    Raises:
        MissingInputError: the file does not exist.
        InputError: it cannot be read.
        FormatError: it is not text.
    """
    try:
        with path.open("rb") as stream:
            yield from split_lines(iter(lambda: stream.readline(_MAX_LINE_BYTES + 1), b""), path)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def split_lines(lines: Iterable[bytes], path: Path) -> Iterator[tuple[int, str]]:
    """The same for lines of bytes; bytes that are not UTF-8 become surrogate escapes."""
    for number, line in enumerate(lines, 1):
        if number == 1 and line.startswith(_UTF16_MARKS):
            raise FormatError(
                "UTF-16 text, where UTF-8 is read",
                f"convert it: iconv -f UTF-16 -t UTF-8 {path.name} > utf8-{path.name}",
                path=path,
            )
        if len(line) > _MAX_LINE_BYTES or b"\0" in line:
            raise FormatError("not a text file", path=path, line=number)
        text = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
        text = text.rstrip(b"\r\n")
        if text.strip():
            yield number, text.decode("utf-8", "surrogateescape")


def some(names: list[str]) -> str:
    """The first few of many names; those with unprintable characters in quotation marks."""
    shown = [name if escape_name(name) == name else repr(name) for name in names[:_NUM_SHOWN]]
    return first_of(shown + names[_NUM_SHOWN:], _NUM_SHOWN)


def read_labels(path: Path) -> tuple[str, ...]:
    """Reads class names, one per line; of a database folder, its ``labels.txt`` is read.

    Raises:
        MissingInputError: the file does not exist.
        FormatError: it is empty, or has a name twice.
    """
    path = path / "labels.txt" if path.is_dir() else path
    names = read_names(path)
    if not names:
        raise FormatError("holds no class names", "one name per line", path=path)
    if len(set(names)) != len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise FormatError(f"class {twice!r} is listed twice", path=path)
    return names


def read_names(path: Path) -> tuple[str, ...]:
    """The lines of a class table, unchecked."""
    return tuple(_unescape(line.strip()) for _, line in read_lines(path))


def class_names(folder: Path) -> tuple[str, ...]:
    """The class table of a database; empty if there is none that can be read."""
    try:
        return read_names(folder / "labels.txt")
    except InputError:
        return ()


def escape_name(name: str) -> str:
    r"""A class name as a line of a class table; nearly all names are unchanged.

    Readers of such tables, such as :func:`read_labels`, end a name at a line break, strip blanks
    and skip blank lines. Characters that this would change are written as ``\x0a`` or ``\u2028``:
    control characters, blanks at the ends, and a backslash that looks like such an escape.
    """
    name = _ESCAPE.sub(lambda match: r"\x5c" + match[0][1:], name)
    start, end = len(name) - len(name.lstrip()), len(name.rstrip())
    return "".join(
        _escape(char)
        if not start <= place < end
        or unicodedata.category(char) in _ENDS_LINES
        or (place == 0 and char == "\ufeff")
        else char
        for place, char in enumerate(name)
    )


def _escape(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def _unescape(line: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), line)
