"""Prototxt in and out; errors with line and column."""

from __future__ import annotations

import codecs
import re
import unicodedata
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from irv2caffe.atomic import write_text
from irv2caffe.errors import FormatError, MissingInputError, did_you_mean
from irv2caffe.proto.messages import NetParameter, SolverParameter
from irv2caffe.proto.mistakes import beyond_ascii, meant
from irv2caffe.system import read_regular

if TYPE_CHECKING:
    from pathlib import Path

_NO_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([^"]*)"')
_NO_FIELD_OF_NET = re.compile("NetParameter has no field")
_PLACE = re.compile(r"^\d+:\d+ : (?:'.*': (?=[A-Z]))?", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_MAX_TEXT_BYTES = 1 << 25
_MAX_STRING = 1 << 20  # of a name or path; protobuf's reader takes a hundred times the memory
_MARKS = {codecs.BOM_UTF8: "UTF-8", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
# What matters for finding layers: strings and comments are skipped, braces counted. Without the
# possessive ++ and *+ a string costs a hundred times its size in memory.
_TOKEN = re.compile(
    r"""(?P<skip>"(?:[^"\\\n]++|\\.)*+"|'(?:[^'\\\n]++|\\.)*+'|\#[^\n]*)"""
    r"""|(?P<line>\n)|(?P<open>[{<])|(?P<close>[}>])|(?P<word>[A-Za-z_]\w*)"""
)


def read_prototxt(path: Path, cls: Any) -> Any:
    """The message in a prototxt file.

    Args:
        path: the file.
        cls: a class of :mod:`irv2caffe.proto.messages`.

    Raises:
        MissingInputError: no such file.
        FormatError: not a prototxt of this message; says where.
    """
    return parse_prototxt(read_text(path), cls, path=path)


def read_net(path: Path) -> tuple[Any, list[int]]:
    """The net in a prototxt file, and the line on which each of its layers begins.

    Raises:
        MissingInputError: no such file.
        FormatError: not a net; says where.
    """
    text = read_text(path)
    try:
        return parse_prototxt(text, NetParameter, path=path), layer_lines(text)
    except FormatError as error:
        if _NO_FIELD_OF_NET.search(error.message):
            with suppress(FormatError):
                net = parse_prototxt(text, SolverParameter).net
                error.hint = f"this is a solver; its net is {net or 'named in it'}"
        raise


def read_text(path: Path) -> str:
    """The text of a prototxt file.

    Raises:
        MissingInputError: no such file.
        FormatError: a binary file.
    """
    data = read_input(path, _MAX_TEXT_BYTES)
    _refuse_byte_order_mark(data, path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:  # comments in GBK or Latin-1, which Caffe reads past
        text = data.decode("latin-1")
        if _CONTROL.search(text):
            text = "\0"
    if "\0" in text:
        raise FormatError(
            "this is a binary file, not a prototxt", "a net prototxt is wanted", path=path
        )
    return text


def _refuse_byte_order_mark(data: bytes, path: Path) -> None:
    """Editors of Windows write one; Caffe stops at it: Interpreting non ascii codepoint 239."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            raise FormatError(
                f"begins with a byte order mark (BOM), the text is {encoding}",
                "save it as UTF-8 without BOM, or: "
                f"iconv -f {encoding} -t UTF-8 FILE | sed '1s/^\\xEF\\xBB\\xBF//' > OTHER",
                path=path,
            )


def read_input(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a file the user named.

    Raises:
        MissingInputError: not there, or a folder.
        FormatError: larger than ``limit_bytes``, or not readable.
    """
    try:
        if path.is_dir():
            raise MissingInputError(f"{path} is a folder, not a file")
        size = path.stat().st_size
        if size > limit_bytes:
            raise FormatError(f"{size:,} bytes are more than such a file can have", path=path)
        return read_regular(path, limit_bytes)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file", "check the path") from error
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", path=path) from error


def parse_prototxt(text: str, cls: Any, *, path: Path | None = None) -> Any:
    """The message in a text.

    Args:
        text: in protobuf's text format.
        cls: a class of :mod:`irv2caffe.proto.messages`.
        path: named in errors.

    Raises:
        FormatError: with line and column, and the nearest known field for an unknown one.
    """
    message = cls()
    _refuse_long_strings(text, path)
    _refuse_beyond_ascii(text, path)
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        problem = _PLACE.sub("", str(error))
        hint = f"the file should be a {cls.DESCRIPTOR.name}"
        unknown = _NO_FIELD.search(problem)
        if unknown:
            problem = f"{unknown.group(1).removeprefix('caffe.')} has no field {unknown.group(2)!r}"
            hint = _nearest_field(message, unknown.group(1), unknown.group(2)) or hint
        line, column = error.GetLine(), error.GetColumn()
        hint = meant(problem, text, line, column) or hint
        raise FormatError(_short(problem), hint, path=path, line=line, column=column) from error
    except RecursionError as error:
        raise FormatError("nested too deeply", path=path) from error
    except (ValueError, OverflowError) as error:  # a number or escape that Python cannot take
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
            problem = f"a text of {size:,} characters, Caffe's names and paths are shorter"
            raise FormatError(problem, "is this file damaged?", path=path, line=line)


def _refuse_beyond_ascii(text: str, path: Path | None) -> None:
    """Caffe's reader takes nothing else outside of strings and comments; that for Python does."""
    place = None if text.isascii() else beyond_ascii(text)
    if place is not None:
        line = text.count("\n", 0, place) + 1
        raise FormatError(
            f"{unicodedata.name(text[place], 'a character')} (U+{ord(text[place]):04X}) outside of "
            "a text in quotes",
            'Caffe takes plain blanks and straight quotes only: "..."',
            path=path,
            line=line,
            column=place - text.rfind("\n", 0, place),
        )


def _incomplete(message: Any, text: str, path: Path | None) -> FormatError:
    """Why Caffe's reader refuses a message without a field that it must have."""
    missing = message.FindInitializationErrors()
    place = re.match(r"layer\[(\d+)\]", missing[0])
    lines = layer_lines(text) if place else []
    index = int(place.group(1)) if place else 0
    return FormatError(
        f"required fields are missing: {', '.join(missing[:3])}",
        "write them; Caffe does not read the file without them",
        path=path,
        line=lines[index] if index < len(lines) else None,
    )


def layer_lines(text: str) -> list[int]:
    """The line, from 1, on which each layer of a net begins, in the order of the layers.

    Args:
        text: a prototxt that has been parsed as NetParameter. A net with ``layer`` has the lines
            of those, an old one those of its ``layers``.
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
                field_line = 0  # the next of a list begins at its own brace
            depth += 1
        elif kind == "close":
            depth -= 1
    return found["layer"] or found["layers"]


def _short(words: str, limit: int = 300) -> str:
    """An error that quotes a word of the file; the word may be the whole file."""
    return words if len(words) <= limit else f"{words[: limit // 2]} ... {words[-limit // 4 :]}"


def format_prototxt(message: Any) -> str:
    """The message as text; equal messages give equal bytes, fields come in the schema's order."""
    return text_format.MessageToString(message, use_index_order=True)


def write_prototxt(path: Path, message: Any, *, header: str = "") -> None:
    """Writes a message in one step.

    Args:
        path: the file.
        message: what to write.
        header: lines that become a comment at the top.

    Raises:
        OutputError: the file cannot be written.
    """
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    write_text(path, (comment + "\n" if comment else "") + format_prototxt(message))


def _nearest_field(message: Any, full_name: str, word: str) -> str:
    """Names the field that was probably meant."""
    descriptor = message.DESCRIPTOR.file.pool.FindMessageTypeByName(full_name)
    return did_you_mean(word, descriptor.fields_by_name)
