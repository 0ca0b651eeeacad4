"""Where things stand in a prototxt: protobuf's own reader forgets the lines.

Made for texts that :mod:`irv2caffe.proto.text` has read without an error; of others it makes
what it can. Nothing here recurses, so that depth of nesting costs nothing.
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


_MANY = 100  # children that are worth an index


@dataclass(slots=True)
class Node:
    """A field as it was written.

    Attributes:
        name: of the field; empty for the whole text.
        line: from 1.
        column: from 1.
        start: offset in the text.
        end: offset after its value.
        value: the text of a scalar, quotes included; empty for a message.
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
        """The fields of one name; the children of a text that was read do not change."""
        if len(self.children) < _MANY:
            return [child for child in self.children if child.name == name]
        if self._by_name is None:  # a message of thousands may be asked for each of them
            self._by_name = {}
            for child in self.children:
                self._by_name.setdefault(child.name, []).append(child)
        return self._by_name.get(name, [])

    def find(self, *names: str) -> Node:
        """The last field at the end of a path of names, or as far as the path goes."""
        node = self
        for name in names:
            found = node.all(name)
            if not found:
                break
            node = found[-1]
        return node


@dataclass(frozen=True)
class UnknownField:
    """A field that its message does not have.

    Attributes:
        message: full name of the message: ``caffe.LayerParameter``.
        name: of the field.
        node: where it stands.
        top: the top-level field it stands in.
    """

    message: str
    name: str
    node: Node
    top: Node


def scan(text: str) -> Node:
    """The fields of a text as a tree."""
    scanner = _Scanner(text)
    for match in _TOKEN.finditer(text):
        if match.lastgroup is not None:
            scanner.take(match.group(), match.lastgroup, match.start())
    scanner.finish(len(text))
    return scanner.root


class _Scanner:
    """Builds the tree token by token."""

    def __init__(self, text: str) -> None:
        self.root = Node("")
        self._ends = [match.end() for match in re.finditer("\n", text)]
        self._open: list[tuple[Node, Node | None]] = []
        self._message = self.root
        self._pending: Node | None = None  # a name whose value has not come yet
        self._list: Node | None = None  # the first item of a list that is still open
        self._extension: Node | None = None  # a name in brackets that is still open
        self._last: Node | None = None  # what a string would go on with

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
            self._last.end = end  # adjacent strings are one

    def finish(self, end: int) -> None:
        """Closes what the text left open."""
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
    """The fields of a tree that the message's descriptor does not have, in order."""
    stack = [(node, descriptor, node) for node in reversed(root.children)]
    while stack:
        node, message, top = stack.pop()
        known = message.fields_by_name.get(node.name)
        if known is None:
            yield UnknownField(message.full_name, node.name, node, top)
        elif known.message_type is not None:
            stack += [(child, known.message_type, top) for child in reversed(node.children)]


def unknown_values(root: Node, descriptor: Any) -> Iterator[UnknownField]:
    """The fields whose value is none of their enum's, in order; a value in quotes is none."""
    stack = [(node, descriptor, node) for node in reversed(root.children)]
    while stack:
        node, message, top = stack.pop()
        known = message.fields_by_name.get(node.name)
        if known is None:
            continue
        if known.message_type is not None:
            stack += [(child, known.message_type, top) for child in reversed(node.children)]
        elif known.enum_type is not None and not _is_of(known.enum_type, node.value):
            yield UnknownField(message.full_name, node.name, node, top)


def _is_of(enum: Any, value: str) -> bool:
    if value in enum.values_by_name or not value:
        return True
    number = re.fullmatch(r"-?\d{1,9}", value)
    return number is not None and int(value) in enum.values_by_number


def blank_out(text: str, nodes: Iterable[Node]) -> str:
    """The text with some fields replaced by blanks, so that all others stay where they are."""
    parts, done = [], 0
    for node in sorted(nodes, key=lambda node: node.start):
        if node.end > done:
            start = max(done, node.start)
            parts += [text[done:start], re.sub(r"[^\n]", " ", text[start : node.end])]
            done = node.end
    return "".join(parts) + text[done:]
