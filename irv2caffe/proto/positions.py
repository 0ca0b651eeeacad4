"""Positions of fields in a prototxt, which protobuf's parser does not keep.

:func:`scan` turns a text into a tree of nodes with lines, columns and offsets. It expects a text
that protobuf accepts, and makes the best of others. Nothing recurses, so any depth is allowed.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\\n]++)*+"|'(?:\\.|[^'\\\n]++)*+')"""
    r"|(?P<word>[\w.+/-]+)|(?P<mark>[{}<>:,;\[\]])|\#[^\n]*"
)
_MANY = 100  # number of children from which an index pays off


@dataclass(slots=True)
class Node:
    """A field in a text.

    Attributes:
        name: name of the field; empty for the root.
        line: line, from 1.
        column: column, from 1.
        start: offset of the name.
        end: offset after the value.
        value: text of a scalar value, with quotes; empty for a message.
        children: fields of a message, in order.
    """

    name: str
    line: int = 1
    column: int = 1
    start: int = 0
    end: int = 0
    value: str = ""
    children: list[Node] = field(default_factory=list)
    _by_name: dict[str, list[Node]] | None = field(default=None, init=False, repr=False)

    def all(self, name: str) -> list[Node]:
        """Returns the child fields with this name, in order."""
        if len(self.children) < _MANY:
            return [child for child in self.children if child.name == name]
        if self._by_name is None:
            self._by_name = {}
            for child in self.children:
                self._by_name.setdefault(child.name, []).append(child)
        return self._by_name.get(name, [])

    def find(self, *names: str) -> Node:
        """Follows a path of names, taking the last field of each; stops where there is none."""
        node = self
        for name in names:
            found = node.all(name)
            if not found:
                break
            node = found[-1]
        return node


@dataclass(frozen=True)
class UnknownField:
    """A field that its message does not have, or an enum field with an unknown value.

    Attributes:
        message: full name of the message, such as ``caffe.LayerParameter``.
        name: name of the field.
        node: the field in the text.
        top: the top-level field that contains it.
    """

    message: str
    name: str
    node: Node
    top: Node


def scan(text: str) -> Node:
    """Returns the root of the tree of fields in a text."""
    scanner = _Scanner(text)
    for match in _TOKEN.finditer(text):
        if match.lastgroup is not None:
            scanner.take(match.group(), match.lastgroup, match.start())
    scanner.finish(len(text))
    return scanner.root


class _Scanner:
    """Builds the tree of fields, token by token."""

    def __init__(self, text: str) -> None:
        self.root = Node("")
        self._ends = [match.end() for match in re.finditer("\n", text)]
        self._open: list[tuple[Node, Node | None]] = []
        self._message = self.root
        self._pending: Node | None = None  # a field without its value yet
        self._list: Node | None = None  # the first item of an open list
        self._extension: Node | None = None  # an open name in brackets
        self._last: Node | None = None  # the field that a further string would continue

    def take(self, piece: str, kind: str, start: int) -> None:
        end = start + len(piece)
        if self._extension is not None:
            self._continue_extension(piece, end)
        elif kind == "mark":
            self._mark(piece, start, end)
        elif self._pending is not None:
            self._pending.value += piece
            self._pending.end = end
            if piece != "-":
                self._last, self._pending = self._pending, None
        elif kind == "word" and self._list is None:
            self._pending = self._add(piece, start, end)
        elif kind == "string" and self._last is not None:
            self._last.end = end  # adjacent strings are concatenated

    def finish(self, end: int) -> None:
        """Closes all open messages at the end of the text."""
        for node, _ in self._open[1:]:
            node.end = end
        self._message.end = end

    def _mark(self, piece: str, start: int, end: int) -> None:
        if piece in "{<":
            message = self._pending or self._add("", start, end)
            self._open.append((self._message, self._list))
            self._message, self._list, self._pending = message, None, None
        elif piece in "}>" and self._open:
            self._message.end = end
            self._message, self._list = self._open.pop()
            self._pending = None
        elif piece == "[":
            if self._pending is None:
                self._extension = self._add("", start, end)
            else:
                self._list = self._pending
        elif piece == "]":
            if self._list is not None:
                self._list.end = end
            self._list = self._pending = None
        elif piece in ",;":
            self._separator(start, end)

    def _separator(self, start: int, end: int) -> None:
        if self._list is not None:
            self._pending = self._add(self._list.name, start, end)
        elif self._message.children and self._pending is None:
            self._message.children[-1].end = end

    def _continue_extension(self, piece: str, end: int) -> None:
        assert self._extension is not None
        self._extension.end = end
        if piece == "]":
            self._pending, self._extension = self._extension, None
        else:
            self._extension.name += piece

    def _add(self, name: str, start: int, end: int) -> Node:
        line = bisect_right(self._ends, start)
        column = start - (self._ends[line - 1] if line else 0) + 1
        node = Node(name, line + 1, column, start, end)
        self._message.children.append(node)
        return node


def unknown_fields(root: Node, descriptor: Any) -> Iterator[UnknownField]:
    """Yields the fields of a tree that their messages do not have, in order."""
    stack = [(node, descriptor, node) for node in reversed(root.children)]
    while stack:
        node, message, top = stack.pop()
        known = message.fields_by_name.get(node.name)
        if known is None:
            yield UnknownField(message.full_name, node.name, node, top)
        elif known.message_type is not None:
            stack += [(child, known.message_type, top) for child in reversed(node.children)]


def unknown_values(root: Node, descriptor: Any) -> Iterator[UnknownField]:
    """Yields the enum fields of a tree with unknown values, in order; a quoted value is unknown."""
    stack = [(node, descriptor, node) for node in reversed(root.children)]
    while stack:
        node, message, top = stack.pop()
        known = message.fields_by_name.get(node.name)
        if known is None:
            continue
        if known.message_type is not None:
            stack += [(child, known.message_type, top) for child in reversed(node.children)]
        elif known.enum_type is not None and not _is_enum_value(known.enum_type, node.value):
            yield UnknownField(message.full_name, node.name, node, top)


def _is_enum_value(enum: Any, value: str) -> bool:
    if value in enum.values_by_name or not value:
        return True
    number = re.fullmatch(r"-?\d{1,9}", value)
    return number is not None and int(value) in enum.values_by_number


def blank_out(text: str, nodes: Iterable[Node]) -> str:
    """Returns the text with some fields replaced by spaces; the positions of others are kept."""
    parts, done = [], 0
    for node in sorted(nodes, key=lambda node: node.start):
        if node.end > done:
            start = max(done, node.start)
            parts += [text[done:start], re.sub(r"[^\n]", " ", text[start : node.end])]
            done = node.end
    return "".join(parts) + text[done:]
