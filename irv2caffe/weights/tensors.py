"""What is known of an array before it is read, by its name in the net."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

FLOAT_KINDS = frozenset({"float16", "bfloat16", "float32", "float64"})
WEIGHT, BIAS, GAMMA, BETA, MEAN, VARIANCE = (
    "weight",
    "bias",
    "gamma",
    "beta",
    "mean",
    "variance",
)


class Key(NamedTuple):
    """What an array is: the convolution by its TF-slim scope, and which of its arrays."""

    scope: str
    part: str


@dataclass(frozen=True)
class StoredArray:
    """An array in a file.

    Attributes:
        shape: as stored.
        kind: of its values, by numpy's name, or the file's own where numpy has none.
        read: gives the values; bfloat16 comes as float32.
    """

    shape: tuple[int, ...]
    kind: str
    read: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Tensor:
    """An array of a known meaning.

    Attributes:
        origin: its name in the file.
        raw: the array there.
        axes: the order of its axes in Caffe; empty where it is the same.
    """

    origin: str
    raw: StoredArray
    axes: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """As Caffe wants it: convolutions are output, input, height, width."""
        if len(self.axes) != len(self.raw.shape):
            return self.raw.shape
        return tuple(self.raw.shape[axis] for axis in self.axes)

    def read(self) -> NDArray[np.float32]:
        """The values as float32, in Caffe's order."""
        import numpy as np

        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is reported as such
            values = self.raw.read().astype("f4", copy=False)
        return np.transpose(values, self.axes) if self.axes else values


@dataclass
class SourceArrays:
    """The arrays of a file by their meaning.

    Attributes:
        tensors: those that Inception-ResNet-v2 has.
        unexpected: names that mean nothing in it.
        ignored: names of what a training keeps beside the weights.
        head: names of layers behind the network that are not its classifier.
        prefix: what stands before all names, since the network was a part of something larger.
    """

    tensors: dict[Key, Tensor] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    prefix: str = ""


HWIO = (3, 2, 0, 1)
IN_OUT = (1, 0)
