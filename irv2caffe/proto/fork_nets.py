"""Reading of nets for Caffe forks: fields that Caffe 1.0 does not know are skipped and listed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import FormatError, first_of
from irv2caffe.proto.messages import NetParameter
from irv2caffe.proto.positions import (
    Node,
    UnknownField,
    blank_out,
    scan,
    unknown_fields,
    unknown_values,
)
from irv2caffe.proto.text import layer_lines, parse_prototxt, read_net, read_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MOST_NAMED = 6


@dataclass(frozen=True)
class ForkNet:
    """A net without the fields that Caffe 1.0 does not know.

    Attributes:
        net: the NetParameter.
        lines: first line of each layer.
        nodes: the layers with all their fields; empty if all fields are known.
        unknown: the skipped fields: unknown ones, and enum fields with unknown values.
        hint: hint for the first of them.
    """

    net: Any
    lines: list[int]
    nodes: tuple[Node, ...] = ()
    unknown: tuple[UnknownField, ...] = ()
    hint: str = ""

    def notes(self, fork_of: Callable[[str, str], str] = lambda _message, _name: "") -> list[str]:
        """Returns a note on the skipped fields, or an empty list.

        Args:
            fork_of: returns the Caffe fork that has a field of a message, or an empty text.
        """
        names: dict[str, str] = {}
        hint = self.hint
        for field in sorted(self.unknown, key=lambda field: field.node.line):
            message = field.message.removeprefix("caffe.")
            value = f": {field.node.value}" if field.node.value else ""
            fork = fork_of(message, field.name)
            where = f"line {field.node.line}" + (f"; {fork} has it" if fork else "")
            if not names and fork:
                hint = ""
            names.setdefault(f"{message}.{field.name}{value}"[:80], where)
        shown = [f"{name} ({where})" for name, where in names.items()]
        said = f"Caffe 1.0 does not know {first_of(shown, _MOST_NAMED)}"
        return [said + (f"; {hint}" if hint else "")] if shown else []


def read_fork_net(path: Path) -> ForkNet:
    """Reads a net from a prototxt file for any Caffe.

    Raises:
        MissingInputError: no such file.
        FormatError: not a net; with line and column.
    """
    try:
        return ForkNet(*read_net(path))
    except FormatError as error:
        text = read_text(path)
        root = scan(text)
        layers = tuple(node for node in root.children if node.name in {"layer", "layers"})
        fields = unknown_fields(root, NetParameter.DESCRIPTOR)
        values = unknown_values(root, NetParameter.DESCRIPTOR)
        unknown = (*fields, *values)
        if not (layers and unknown):
            raise
        net = None
        with suppress(FormatError):
            known = blank_out(text, (each.node for each in unknown))
            net = parse_prototxt(known, NetParameter, path=path)
        if net is None:
            raise
        hint = "" if error.hint.startswith("the file should be") else error.hint
        return ForkNet(net, layer_lines(text), layers, unknown, hint)
