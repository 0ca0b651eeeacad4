"""Reading and writing of prototxt files, with line and column in errors."""

from __future__ import annotations

import codecs
import re
import unicodedata
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from irv2caffe.atomic import write_text
from irv2caffe.errors import FormatError, did_you_mean
from irv2caffe.proto.input_files import read_input
from irv2caffe.proto.messages import NetParameter, SolverParameter
from irv2caffe.proto.parse_hints import find_non_ascii, parse_hint

if TYPE_CHECKING:
    from pathlib import Path

_NO_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([^"]*)"')
_NO_FIELD_OF_NET = re.compile("NetParameter has no field")
_PLACE = re.compile(r"^\d+:\d+ : (?:'.*': (?=[A-Z]))?", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_MAX_TEXT_BYTES = 1 << 25
_MAX_STRING = 1 << 20  # protobuf takes a hundred times the memory to parse a string
_MARKS = {codecs.BOM_UTF8: "UTF-8", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
# Tokens needed to find the layers. Without the possessive ++ and *+, matching a string takes a
# hundred times its size in memory.
_TOKEN = re.compile(
    r"""(?P<skip>"(?:[^"\\\n]++|\\.)*+"|'(?:[^'\\\n]++|\\.)*+'|\#[^\n]*)"""
    r"""|(?P<line>\n)|(?P<open>[{<])|(?P<close>[}>])|(?P<word>[A-Za-z_]\w*)"""
)


def read_prototxt(path: Path, cls: Any) -> Any:
    """Reads a message from a prototxt file.

    Args:
        path: the file.
        cls: class of the message, from :mod:`irv2caffe.proto.messages`.

    Raises:
        MissingInputError: no such file.
        FormatError: not a prototxt of this message; with line and column.
    """
    return parse_prototxt(read_text(path), cls, path=path)


def read_net(path: Path) -> tuple[Any, list[int]]:
    """Reads a net from a prototxt file; also returns the first line of each of its layers.

    Raises:
        MissingInputError: no such file.
        FormatError: not a net; with line and column.
    """
    text = read_text(path)
    try:
        return parse_prototxt(text, NetParameter, path=path), layer_lines(text)
    except FormatError as error:
        if _NO_FIELD_OF_NET.search(error.message):
            with suppress(FormatError):
                net = parse_prototxt(text, SolverParameter).net
                error.hint = f"this is a solver; give its net{': ' if net else ''}{net}"
        raise


def read_text(path: Path) -> str:
    """Reads the text of a prototxt file.

    Raises:
        MissingInputError: no such file.
        FormatError: a binary file.
    """
    data = read_input(path, _MAX_TEXT_BYTES)
    _refuse_byte_order_mark(data, path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:  # comments in GBK or Latin-1, which Caffe skips
        text = data.decode("latin-1")
        if _CONTROL.search(text):
            text = "\0"
    if "\0" in text:
        raise FormatError("this is a binary file, not a prototxt", "give a text file", path=path)
    return text


def _refuse_byte_order_mark(data: bytes, path: Path) -> None:
    """Refuses a BOM, written by Windows editors; Caffe fails with "non ascii codepoint 239"."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            raise FormatError(
                f"begins with a byte order mark (BOM) of {encoding}",
                "save it as UTF-8 without BOM, or run: "
                f"iconv -f {encoding} -t UTF-8 FILE | sed '1s/^\\xEF\\xBB\\xBF//' > OTHER",
                path=path,
            )


def parse_prototxt(text: str, cls: Any, *, path: Path | None = None) -> Any:
    """Parses a message in protobuf's text format.

    Args:
        text: the prototxt.
        cls: class of the message, from :mod:`irv2caffe.proto.messages`.
        path: file name for errors.

    Raises:
        FormatError: with line and column, and a similar field for an unknown one.
    """
    message = cls()
    _refuse_long_strings(text, path)
    _refuse_non_ascii(text, path)
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        problem = _PLACE.sub("", str(error))
        hint = f"the file should be a {cls.DESCRIPTOR.name}"
        unknown = _NO_FIELD.search(problem)
        if unknown:
            problem = f"{unknown.group(1).removeprefix('caffe.')} has no field {unknown.group(2)!r}"
            owner = message.DESCRIPTOR.file.pool.FindMessageTypeByName(unknown.group(1))
            hint = did_you_mean(unknown.group(2), owner.fields_by_name) or hint
        line, column = error.GetLine(), error.GetColumn()
        hint = parse_hint(problem, text, line, column) or hint
        raise FormatError(_short(problem), hint, path=path, line=line, column=column) from error
    except RecursionError as error:
        raise FormatError("nested too deeply", path=path) from error
    except (ValueError, OverflowError) as error:  # a number or escape sequence that Python rejects
        raise FormatError(f"a value cannot be read: {error}", path=path) from error
    if not message.IsInitialized():
        raise _incomplete(message, text, path)
    return message


def _refuse_long_strings(text: str, path: Path | None) -> None:
    if len(text) <= _MAX_STRING:
        return
    for token in _TOKEN.finditer(text):
        size = token.end() - token.start()
        if token.lastgroup == "skip" and size > _MAX_STRING and token.group()[0] != "#":
            line = text.count("\n", 0, token.start()) + 1
            problem = f"a string of {size:,} characters is too long for a name or path"
            raise FormatError(problem, "is the file damaged?", path=path, line=line)


def _refuse_non_ascii(text: str, path: Path | None) -> None:
    """Refuses non-ASCII characters outside strings and comments, as Caffe does."""
    place = None if text.isascii() else find_non_ascii(text)
    if place is not None:
        line = text.count("\n", 0, place) + 1
        raise FormatError(
            f"{unicodedata.name(text[place], 'a character')} (U+{ord(text[place]):04X}) outside "
            "a quoted string",
            'use plain spaces and straight quotes: "..."',
            path=path,
            line=line,
            column=place - text.rfind("\n", 0, place),
        )


def _incomplete(message: Any, text: str, path: Path | None) -> FormatError:
    """Returns the error for a message without its required fields."""
    missing = message.FindInitializationErrors()
    place = re.match(r"layer\[(\d+)\]", missing[0])
    lines = layer_lines(text) if place else []
    index = int(place.group(1)) if place else 0
    return FormatError(
        f"required fields are missing: {', '.join(missing[:3])}",
        "add them; Caffe does not load the file without them",
        path=path,
        line=lines[index] if index < len(lines) else None,
    )


def layer_lines(text: str) -> list[int]:
    """Returns the line, from 1, on which each layer of a net begins.

    Args:
        text: a valid net prototxt. If it has ``layer`` fields, those are meant, else ``layers``.
    """
    found: dict[str, list[int]] = {"layer": [], "layers": []}
    line, depth = 1, 0
    field, field_line = "", 0
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "line":
            line += 1
        elif kind == "word" and depth == 0:
            field, field_line = token.group(), line
        elif kind == "open":
            if depth == 0 and field in found:
                found[field].append(field_line or line)
                field_line = 0  # further layers in a list [{}, {}] begin at their braces
            depth += 1
        elif kind == "close":
            depth -= 1
    return found["layer"] or found["layers"]


def _short(words: str, limit: int = 300) -> str:
    """Shortens an error message that quotes the file."""
    return words if len(words) <= limit else f"{words[: limit // 2]} ... {words[-limit // 4 :]}"


def format_prototxt(message: Any) -> str:
    """Returns a message as text, with fields in schema order; equal messages give equal texts."""
    return text_format.MessageToString(message, use_index_order=True)


def write_prototxt(path: Path, message: Any, *, header: str = "") -> None:
    """Writes a message to a prototxt file, atomically.

    Args:
        path: the file.
        message: the message.
        header: text of the comment at the top.

    Raises:
        OutputError: the file cannot be written.
    """
    header = header.encode("utf-8", "backslashreplace").decode()  # file names that are not UTF-8
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    write_text(path, (comment + "\n" if comment else "") + format_prototxt(message))
