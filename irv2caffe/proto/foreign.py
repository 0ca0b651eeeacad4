"""Nets of Caffe's forks: read without what Caffe 1.0's schema lacks, which stays at hand."""

from __future__ import annotations

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
class ForeignNet:
    """A net as far as Caffe 1.0's schema goes.

    Attributes:
        net: the NetParameter.
        lines: where its layers begin.
        nodes: its layers as they are written; empty where all of the file is known.
        unknown: fields, and fields with values, that Caffe 1.0 does not have.
        hint: what was probably meant by the first of them.
    """

    net: Any
    lines: list[int]
    nodes: tuple[Node, ...] = ()
    unknown: tuple[UnknownField, ...] = ()
    hint: str = ""

    def notes(self, fork_of: Callable[[str, str], str] = lambda _message, _name: "") -> list[str]:
        """What was left aside, in words.

        Args:
            fork_of: whose a field of a message is, or nothing.
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


def read_foreign_net(path: Path) -> ForeignNet:
    """The net in a prototxt file of any Caffe.

    Raises:
        MissingInputError: no such file.
        FormatError: not a net; says where.
    """
    try:
        return ForeignNet(*read_net(path))
    except FormatError as error:
        text = read_text(path)
        root = scan(text)
        layers = tuple(node for node in root.children if node.name in {"layer", "layers"})
        fields = unknown_fields(root, NetParameter.DESCRIPTOR)
        values = unknown_values(root, NetParameter.DESCRIPTOR)
        unknown = (*fields, *values)
        if not (layers and unknown):
            raise
        try:
            known = blank_out(text, (each.node for each in unknown))
            net = parse_prototxt(known, NetParameter, path=path)
        except FormatError:
            net = None
        if net is None:
            raise
        hint = "" if error.hint.startswith("the file should be") else error.hint
        return ForeignNet(net, layer_lines(text), layers, unknown, hint)
