"""The prototxts that Caffe prints when it starts: what the run was made of.

They are read leniently: forks have fields of their own, other threads print in between, and lines
are torn. What cannot be read is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# A line of protobuf's text format; what looks otherwise ends a dump in logs without prefixes.
LINE = re.compile(r"\s*(?:(\w+): ?(\S.*)|(\w+):? ?\{|(\}))\s*", re.ASCII)
_LINES = re.compile(
    r"(?:[^\S\n]*(?:(?:\w+: ?\S[^\n]*|\w+:? ?\{|\})[^\S\n]*)?\n)+", re.ASCII
)  # many of them, or blank ones
_MAX_LINES = 500_000  # of one dump, which is ten times the largest nets there are
_MAX_CHARACTERS = 50_000_000
_MAX_DEPTH = 20
_OF_NETS = frozenset({"name", "phase", "source", "batch_size", "dim", "num_output"})
_INTEGER = re.compile(r"[-+]?\d{1,18}", re.ASCII)

Fields = dict[str, list[Any]]


@dataclass(frozen=True)
class NetInfo:
    """A net as the log printed it.

    Attributes:
        name: of the net.
        phase: ``TRAIN`` or ``TEST``.
        batch: batch size of its first data layer, or None.
        source: database or list that the layer reads, or None.
        num_layers: in this phase.
        num_classes: outputs of the last InnerProduct layer, or None.
    """

    name: str
    phase: str
    batch: int | None
    source: str | None
    num_layers: int
    num_classes: int | None


class Dump:
    """A text that is being printed, line by line, between lines of other threads."""

    def __init__(self, thread: int | None, lead: str = "", *, is_net: bool) -> None:
        """Nothing is printed yet.

        Args:
            thread: that prints it.
            lead: what stood before the prefix of the line that announced it, and so stands before
                each line of it; numbers in it may differ.
            is_net: a net, or a solver.
        """
        self.is_net = is_net
        self.lines: list[str] = []
        self._thread = thread
        self._lead = re.compile(re.sub(r"\d+", r"\\d+", re.escape(lead))) if lead else None
        self._size = 0

    @property
    def is_plain(self) -> bool:
        """Whether nothing stands before its lines."""
        return self._lead is None

    def takes(self, message: str) -> bool:
        """Whether a line without a prefix belongs to it; if so, it is kept."""
        if self._lead is not None and (match := self._lead.match(message)) is not None:
            message = message[match.end() :]
        if not is_line(message):
            return False
        if len(self.lines) < _MAX_LINES and self._size < _MAX_CHARACTERS:
            self.lines.append(message)
            self._size += len(message)
        return True

    def takes_many(self, text: str) -> int:
        """How many of the first lines in a text belong to it; they are kept.

        Args:
            text: lines with their ends, none of which holds a prefix.
        """
        match = _LINES.match(text)
        if match is None:
            return 0
        lines = match[0].split("\n")[:-1]
        if len(self.lines) + len(lines) <= _MAX_LINES and self._size < _MAX_CHARACTERS - len(text):
            self.lines += lines
            self._size += len(match[0]) - len(lines)
            return len(lines)
        for line in lines:
            self.takes(line)
        return len(lines)

    def ends_with(self, thread: int | None, message: str) -> bool:
        """Whether a line with a prefix comes after it; another thread's may come in between.

        Intel's fork begins the text in a line of its own, whose prefix has nothing behind it.
        """
        return thread == self._thread and (bool(self.lines) or bool(message.strip()))


def is_line(text: str) -> bool:
    """Whether a line may belong to a dump."""
    return not text.strip() or LINE.fullmatch(text) is not None


def read_fields(lines: list[str], wanted: frozenset[str] | None = None) -> Fields:
    """Field name to its values, in order; a message is again such a mapping.

    Args:
        lines: of a text; those that are of no known form are left out.
        wanted: the fields that are kept; None keeps all. Messages always are.
    """
    root: Fields = {}
    stack = [root]
    for line in lines:
        match = LINE.fullmatch(line)
        if match is None:
            continue
        name, value, message, end = match.groups()
        if name:
            if wanted is None or name in wanted:
                stack[-1].setdefault(name, []).append(_value(value.rstrip()))
        elif message and len(stack) < _MAX_DEPTH:
            inside: Fields = {}
            stack[-1].setdefault(message, []).append(inside)
            stack.append(inside)
        elif end and len(stack) > 1:
            stack.pop()
    return root


def solver_fields(lines: list[str]) -> dict[str, Any]:
    """The fields of a solver; those that stand several times (``stepvalue``) as lists."""
    fields = read_fields(lines)
    repeated = {"stepvalue", "test_iter"}
    return {
        name: values if name in repeated else values[-1]
        for name, values in fields.items()
        if not isinstance(values[-1], dict)
    }


def net_info(lines: list[str]) -> NetInfo:
    """What a net says about its data."""
    fields = read_fields(lines, _OF_NETS)
    layers = [layer for name in ("layer", "layers") for layer in _messages(fields, name)]
    batch, source = None, None
    for layer in layers:
        data = [
            message
            for name, values in layer.items()
            for message in values
            if isinstance(message, dict) and (name.endswith("data_param") or name == "data_param")
        ]
        sizes = [size for one in data for size in _batch_sizes(one)]
        if sizes:
            batch = sizes[0]
            source = next((str(one["source"][0]) for one in data if "source" in one), None)
            break
    classes = [
        count
        for layer in layers
        for message in _messages(layer, "inner_product_param")
        for count in _numbers(message, "num_output")
    ]
    phases = [
        str(value) for state in _messages(fields, "state") for value in state.get("phase", [])
    ]
    name = fields.get("name", [""])[0]
    return NetInfo(
        name=name if isinstance(name, str) else "",
        phase=phases[-1] if phases else "",
        batch=batch,
        source=source,
        num_layers=len(layers),
        num_classes=classes[-1] if classes else None,
    )


def _batch_sizes(data: Fields) -> list[int]:
    """Of a data layer's parameters; DummyData has the shapes of its tops instead."""
    shapes = _messages(data, "shape")[:1]
    return _numbers(data, "batch_size") or [
        n for shape in shapes for n in _numbers(shape, "dim")[:1]
    ]


def _messages(fields: Fields, name: str) -> list[Fields]:
    return [value for value in fields.get(name, []) if isinstance(value, dict)]


def _numbers(fields: Fields, name: str) -> list[int]:
    return [value for value in fields.get(name, []) if isinstance(value, int)]


def _value(text: str) -> Any:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if _INTEGER.fullmatch(text):
        return int(text)
    if text in {"true", "false"}:
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text
