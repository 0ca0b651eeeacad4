"""Text files that users give, and lists of names in messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError, InputError, MissingInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_NUM_SHOWN = 5
_MAX_LINE_BYTES = 65_536
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of every line that is not blank, without its end.

    Raises:
        MissingInputError: no such file.
        InputError: it cannot be read.
        FormatError: it is no text.
    """
    try:
        with path.open("rb") as stream:
            yield from split_lines(iter(lambda: stream.readline(_MAX_LINE_BYTES + 1), b""), path)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def split_lines(lines: Iterable[bytes], path: Path) -> Iterator[tuple[int, str]]:
    """The same for lines that are read already; names that are no UTF-8 are kept as they are."""
    for number, line in enumerate(lines, 1):
        if len(line) > _MAX_LINE_BYTES or b"\0" in line:
            raise FormatError("not a text file", path=path, line=number)
        text = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
        text = text.rstrip(b"\r\n")
        if text.strip():
            yield number, text.decode("utf-8", "surrogateescape")


def some(names: list[str]) -> str:
    """The first few of many names."""
    more = len(names) - _NUM_SHOWN
    return ", ".join(names[:_NUM_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names, one per line; a training database's folder stands for its ``labels.txt``.

    Raises:
        MissingInputError: no such file.
        FormatError: empty, or a name twice.
    """
    path = path / "labels.txt" if path.is_dir() else path
    names = tuple(line.strip() for _, line in read_lines(path))
    if not names:
        raise FormatError("holds no class names", "one name per line", path=path)
    if len(set(names)) != len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise FormatError(f"class {twice!r} stands there twice", path=path)
    return names
