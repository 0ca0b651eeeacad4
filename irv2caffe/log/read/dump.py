"""The solver and net prototxts that Caffe prints into its log when it starts.

They are read leniently: forks have further fields, other threads print in between, and lines may
be torn. Lines that cannot be read are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

# A line of protobuf's text format; any other line ends a prototxt in logs without prefixes.
_LINE = re.compile(r"\s*(?:(\w+): ?(\S.*)|(\w+):? ?\{|(\}))\s*", re.ASCII)
_LINES = re.compile(
    r"(?:[^\S\n]*(?:(?:\w+: ?\S[^\n]*|\w+:? ?\{|\})[^\S\n]*)?\n)+", re.ASCII
)  # many such lines, or blank ones
_MAX_LINES = 500_000  # of one prototxt, ten times those of the largest known nets
_MAX_CHARACTERS = 50_000_000
MAX_KEPT_CHARACTERS = 8_000_000  # of a text that is kept; Inception-ResNet-v2 has 300,000
_MAX_DEPTH = 20
_NET_FIELDS = frozenset({"name", "phase", "source", "batch_size", "dim", "num_output"})
_REPEATED_SOLVER_FIELDS = frozenset({"stepvalue", "test_iter"})
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
        text: the net itself, which lines of other threads may have torn; empty if it is huge.
    """

    name: str
    phase: str
    batch: int | None
    source: str | None
    num_layers: int
    num_classes: int | None
    text: str = field(default="", repr=False, compare=False)


class Dump:
    """Collects the lines of a prototxt while it is printed, between lines of other threads."""

    def __init__(self, thread: int | None, lead: str = "", *, is_net: bool) -> None:
        """Starts without lines.

        Args:
            thread: the thread that prints it.
            lead: text before the glog prefix of its first line, and before each of its lines;
                numbers in it may differ.
            is_net: whether it is a net; else a solver.
        """
        self.is_net = is_net
        self.lines: list[str] = []
        self._thread = thread
        self._lead = re.compile(re.sub(r"\d+", r"\\d+", re.escape(lead))) if lead else None
        self._num_characters = 0

    @property
    def has_lead(self) -> bool:
        """Whether each of its lines starts with other text."""
        return self._lead is not None

    def add(self, message: str) -> bool:
        """Keeps a line without a prefix if it belongs to the prototxt; returns whether it does."""
        if self._lead is not None and (match := self._lead.match(message)) is not None:
            message = message[match.end() :]
        if message.strip() and _LINE.fullmatch(message) is None:
            return False
        if len(self.lines) < _MAX_LINES and self._num_characters < _MAX_CHARACTERS:
            self.lines.append(message)
            self._num_characters += len(message)
        return True

    def add_many(self, text: str) -> int:
        """Keeps the first lines of a text that belong to the prototxt; returns their number.

        Args:
            text: lines with their ends, without prefixes and without a lead.
        """
        match = _LINES.match(text)
        if match is None:
            return 0
        lines = match[0].split("\n")[:-1]
        has_room = len(self.lines) + len(lines) <= _MAX_LINES
        if has_room and self._num_characters < _MAX_CHARACTERS - len(text):
            self.lines += lines
            self._num_characters += len(match[0]) - len(lines)
        else:
            for line in lines:
                self.add(line)
        return len(lines)

    def ends_with(self, thread: int | None, message: str) -> bool:
        """Whether a line with a prefix ends it; lines of other threads do not.

        Intel's fork prints an empty line with a prefix before the text.
        """
        return thread == self._thread and (bool(self.lines) or bool(message.strip()))


def read_fields(lines: list[str], wanted: frozenset[str] | None = None) -> Fields:
    """The values of each field, in order; a message is again such a mapping.

    Args:
        lines: of a prototxt; lines that cannot be parsed are left out.
        wanted: the scalar fields to keep; None keeps all. Messages are always kept.
    """
    root: Fields = {}
    stack = [root]
    for line in lines:
        match = _LINE.fullmatch(line)
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
    """The scalar fields of a solver; repeated ones (``stepvalue``) as lists."""
    return {
        name: values if name in _REPEATED_SOLVER_FIELDS else values[-1]
        for name, values in read_fields(lines).items()
        if not isinstance(values[-1], dict)
    }


def net_info(lines: list[str]) -> NetInfo:
    """Name, phase, layers, data source and classes of a net."""
    fields = read_fields(lines, _NET_FIELDS)
    layers = [layer for name in ("layer", "layers") for layer in _messages(fields, name)]
    batch, source = None, None
    for layer in layers:
        data = [
            message
            for name in layer
            if name.endswith("data_param")
            for message in _messages(layer, name)
        ]
        sizes = [size for message in data for size in _batch_sizes(message)]
        if sizes:
            batch = sizes[0]
            source = next(
                (str(message["source"][0]) for message in data if "source" in message), None
            )
            break
    classes = [
        count
        for layer in layers
        for message in _messages(layer, "inner_product_param")
        for count in _integers(message, "num_output")
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
        text=kept_text(lines),
    )


def kept_text(lines: list[str]) -> str:
    """The text of a prototxt; empty if it is huge."""
    text = "\n".join(lines)
    return text if len(text) <= MAX_KEPT_CHARACTERS else ""


def _batch_sizes(data: Fields) -> list[int]:
    """The batch sizes in a data layer's parameters; DummyData has shapes of tops instead."""
    shapes = _messages(data, "shape")[:1]
    return _integers(data, "batch_size") or [
        n for shape in shapes for n in _integers(shape, "dim")[:1]
    ]


def _messages(fields: Fields, name: str) -> list[Fields]:
    return [value for value in fields.get(name, []) if isinstance(value, dict)]


def _integers(fields: Fields, name: str) -> list[int]:
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
