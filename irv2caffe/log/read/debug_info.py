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
_LINE = re.compile(rb"\[(Forward|Backward|Update)\] Layer ([^\n]*)")
_NOT_FINITE = re.compile(rb" (?:data|diff): -?(?:nan|inf)\b")
_END_OF_NAME = re.compile(rb", (?:top blob|bottom blob|param blob|param) | \(\w+\) ")
_MAX_TEXT = 300


class NotFinite(NamedTuple):
    """A line of ``debug_info`` whose value is not finite.

    Attributes:
        layer: its name.
        step: ``Forward``, ``Backward`` or ``Update``.
        text: the line from the step on.
        has_bad_weights: a forward pass shows that the layer's weights are not finite either, so
            that they broke in an iteration before it.
    """

    layer: str
    step: str
    text: str
    has_bad_weights: bool


def first_not_finite(paths: Iterable[Path]) -> NotFinite | None:
    """The first layer of a log whose values are not finite; None if no line shows one.

    Reads little more than up to that line, a chunk at a time, and not far where the log has no
    such lines.

    Args:
        paths: the parts of a log, in order, or a run folder; pipes are left out.

    Raises:
        Irv2CaffeError: a part is missing, or cannot be read.
    """
    num_bytes, has_lines = 0, False
    for path in map(resolve_log, paths):
        rest = b""
        chunks = read_chunks(path) if path.is_file() else iter(())
        for chunk in chunks:
            data = rest + bytes(chunk)
            has_lines = has_lines or _LINE.search(data) is not None
            match = _first_match(data)
            if match is not None:
                return _described(match, data[match.end() :] + bytes(next(chunks, b"")))
            num_bytes += len(chunk)
            if num_bytes > MAX_BYTES_WITHOUT and not has_lines:
                return None
            rest = data[-MAX_LINE_BYTES:].rpartition(b"\n")[2]
    return None


def _first_match(data: bytes) -> re.Match[bytes] | None:
    if _NOT_FINITE.search(data) is None:
        return None
    return next((one for one in _LINE.finditer(data) if _NOT_FINITE.search(one[2])), None)


def _described(match: re.Match[bytes], later: bytes) -> NotFinite:
    """A line, with what the rest of its iteration says of the weights of its layer."""
    name = _END_OF_NAME.split(match[2], maxsplit=1)[0]
    weights = rb"\[Forward\] Layer " + re.escape(name) + rb", param blob \d+ data: -?(?:nan|inf)\b"
    is_of_weights = re.search(weights, match[0] + later.partition(b"] Iteration ")[0]) is not None
    return NotFinite(_text(name), _text(match[1]), _text(match[0]), is_of_weights)


def _text(found: bytes) -> str:
    """Text of a log, without control characters."""
    text = found.decode("utf-8", "replace").strip()[:_MAX_TEXT]
    return "".join(letter if letter.isprintable() else "?" for letter in text)
