"""Marks files that this program writes, so that it overwrites no file of another origin."""

from __future__ import annotations

import os
import re
import struct
import zlib
from typing import TYPE_CHECKING

from irv2caffe.errors import OutputExistsError
from irv2caffe.system import open_regular

if TYPE_CHECKING:
    from pathlib import Path

MARK = "irv2caffe"
_LOOK_BYTES = 1 << 14
# What a file of each kind holds at its beginning or end.
_MARKS = re.compile(
    rb"\A\x89PNG.*?tEXtSoftware\0irv2caffe"
    rb"|\A\xff\xd8.{,64}\xff\xfe\x00\x0birv2caffe"
    rb"|<dc:title>irv2caffe</dc:title>"
    rb"|\A%PDF-.*/Creator \(irv2caffe\)"
    rb'|<meta name="generator" content="irv2caffe">'
    rb'|\A"?kind"?,"?iteration"?,"?epoch"?,"?loss"?,"?lr"?,'
    rb'|\A\{\s{0,9}"program": "irv2caffe '
    rb'|\A\{"run": "(?:[^"\\]|\\.){0,4096}", "kind": "t',
    re.DOTALL,
)


def marked_png(data: bytes) -> bytes:
    """A PNG file with the mark as its text chunk, after the header."""
    chunk = b"tEXtSoftware\0" + MARK.encode()
    end = 8 + 25  # signature, and the header with its length, name and checksum
    whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data[:end] + whole + data[end:]


def marked_jpeg(data: bytes) -> bytes:
    """A JPEG file with the mark as its comment, after the first segment."""
    text = MARK.encode()
    end = 4 + struct.unpack_from(">H", data, 4)[0]
    return data[:end] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + data[end:]


def is_own(path: Path) -> bool:
    """Whether a file has the mark; also true for an empty file.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    with open_regular(path) as stream:
        data = stream.read(_LOOK_BYTES)
        size = stream.seek(0, os.SEEK_END)
        if size > len(data):
            stream.seek(max(len(data), size - _LOOK_BYTES))
            data += stream.read(_LOOK_BYTES)
    return not data or _MARKS.search(data) is not None


def refuse_foreign(path: Path, *, force: bool = False) -> None:
    """Refuses an output that exists and is not from this program.

    Args:
        path: the output.
        force: replace any regular file.

    Raises:
        OutputExistsError: it has no mark, or is not a regular file.
    """
    if not (path.exists() or path.is_symlink()):
        return
    try:
        if is_own(path) or force:
            return
    except OSError as error:
        what = f"{path} exists and cannot be replaced: {error.strerror or error}"
        raise OutputExistsError(what, "give another file name") from error
    raise OutputExistsError(
        f"{path} exists, and irv2caffe did not make it",
        "give another file name; --force replaces it",
    )
