"""Searches a log for what ``debug_info: true`` prints: the first layer whose values are not finite.

Caffe prints a mean of absolute values for each top, bottom and weight, in the iterations with a
display (net.cpp: ForwardDebugInfo, BackwardDebugInfo, UpdateDebugInfo); the torch engine prints a
line for each layer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from irv2caffe.log.read.files import read_chunks, resolve_log
from irv2caffe.log.read.line_reader import MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_BYTES_WITHOUT = 1 << 26  # of a log without any such line; they begin with the first iteration
_ANY = re.compile(rb"\[(?:Forward|Backward|Update)\] Layer ")
_NOT_FINITE = re.compile(rb" -?(?:nan|inf)\b")
_LINE = re.compile(
    rb"\[(?P<step>Forward|Backward|Update)\] Layer (?P<layer>[^\n]{1,500}?)"
    rb"(?:, (?:top blob|bottom blob|param blob|param) [^\n]{1,500}?| \(\w+\) [^\n]{0,500}?)"
    rb" (?:data|diff): (?:[^\n]{0,100}; diff: )?-?(?:nan|inf)\b"
)


class NotFinite(NamedTuple):
    """A line of ``debug_info`` whose value is not finite.

    Attributes:
        layer: its name.
        step: ``Forward``, ``Backward`` or ``Update``.
        text: the line from the step on.
    """

    layer: str
    step: str
    text: str


def first_not_finite(paths: Iterable[Path]) -> NotFinite | None:
    """The first layer of a log whose values are not finite; None if no line shows one.

    Reads up to that line, a chunk at a time, and not far where the log has no such lines.

    Args:
        paths: the parts of a log, in order, or a run folder; pipes are left out.

    Raises:
        Irv2CaffeError: a part is missing, or cannot be read.
    """
    num_bytes, has_lines = 0, False
    for path in map(resolve_log, paths):
        rest = b""
        for chunk in read_chunks(path) if path.is_file() else ():
            data = rest + bytes(chunk)
            has_lines = has_lines or _ANY.search(data) is not None
            match = _LINE.search(data) if _NOT_FINITE.search(data) else None
            if match is not None:
                return NotFinite(*map(_text, (match["layer"], match["step"], match[0])))
            num_bytes += len(chunk)
            if num_bytes > MAX_BYTES_WITHOUT and not has_lines:
                return None
            rest = data[-MAX_LINE_BYTES:].rpartition(b"\n")[2]
    return None


def _text(found: bytes) -> str:
    """Text of a log, without control characters."""
    text = found.decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)
