"""One ONNX node or a few for each layer: names, constants and shapes for the operators."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from irv2caffe.deploy.graph import Node, Value
    from irv2caffe.deploy.onnx.model import OnnxModel

BATCH = "N"


@dataclass
class Writing:
    """An ONNX model while the layers of a graph are written.

    Attributes:
        model: receives the nodes.
        batch: size of the first axis in the graph, which is open in the model.
        exact_pools: average pools that divide by the number of pixels under the window.
        names: the name of each value in the model.
    """

    model: OnnxModel
    batch: int
    exact_pools: set[Node] = field(default_factory=set)
    names: dict[Value, str] = field(default_factory=dict)
    _taken: Counter[str] = field(default_factory=Counter)

    def name(self, wanted: str) -> str:
        """A name that is not taken."""
        name = wanted
        while self._taken[name]:
            self._taken[wanted] += 1
            name = f"{wanted}_{self._taken[wanted]}"
        self._taken[name] += 1
        return name

    def constant(self, node: Node, what: str, values: NDArray[Any]) -> str:
        """A constant that belongs to a layer."""
        return self.model.constant(self.name(f"{node.name}/{what}"), values)

    def numbers(self, node: Node, what: str, *values: int) -> str:
        """A constant list of integers."""
        return self.constant(node, what, np.array(values, np.int64))

    def scalar(self, node: Node, what: str, value: float) -> str:
        """A constant number."""
        return self.constant(node, what, np.array(value, np.float32))

    def chain(self, node: Node, x: str, *steps: tuple[str, Sequence[str], dict[str, Any]]) -> None:
        """Operators one after the other, the last of which produces the layer's top.

        Args:
            node: the layer.
            x: input of the first one.
            steps: operator, its other inputs, its attributes.
        """
        for at, (operator, others, attributes) in enumerate(steps):
            last = at == len(steps) - 1
            top = self.top(node) if last else self.name(f"{node.name}/{operator}")
            self.model.add(operator, self.name(node.name), [x, *others], [top], **attributes)
            x = top

    def bottom(self, node: Node, at: int = 0) -> str:
        """The name of a value that a layer reads."""
        return self.names[node.bottoms[at]]

    def top(self, node: Node, at: int = 0) -> str:
        """The name of a value that a layer produces."""
        value = node.tops[at]
        if value not in self.names:
            self.names[value] = self.name(value.name)
        return self.names[value]

    def open_shape(self, shape: Sequence[int]) -> list[int]:
        """A shape for Reshape, which keeps the first axis where that is the batch."""
        return [0 if at == 0 and size == self.batch else size for at, size in enumerate(shape)]
