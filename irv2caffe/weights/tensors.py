"""Arrays of weights that are read later: as stored in a file, and by their role in the net."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

FLOAT_KINDS = frozenset({"float16", "bfloat16", "float32", "float64"})
HWIO = (3, 2, 0, 1)
IN_OUT = (1, 0)


class Role(StrEnum):
    """Which array of a convolution and its BatchNorm."""

    WEIGHT = auto()
    BIAS = auto()
    GAMMA = auto()
    BETA = auto()
    MEAN = auto()
    VARIANCE = auto()


class Key(NamedTuple):
    """An array of the network: the TF-slim scope of its convolution, and its role."""

    scope: str
    role: Role


@dataclass(frozen=True)
class StoredArray:
    """An array in a file.

    Attributes:
        shape: as stored.
        kind: type of the values: numpy's name, or the file's own where numpy has none.
        read: returns the values; bfloat16 as float32.
    """

    shape: tuple[int, ...]
    kind: str
    read: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Tensor:
    """An array with a known role.

    Attributes:
        origin: its name in the file.
        raw: the array in the file.
        axes: the order of its axes in Caffe; empty for the same order.
    """

    origin: str
    raw: StoredArray
    axes: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in Caffe: output, input, height, width for convolutions."""
        if len(self.axes) != len(self.raw.shape):
            return self.raw.shape
        return tuple(self.raw.shape[axis] for axis in self.axes)

    def read(self) -> NDArray[np.float32]:
        """The values as float32, with axes in Caffe's order."""
        import numpy as np

        with np.errstate(over="ignore"):  # too large for float32 is infinite, which is reported
            values = self.raw.read().astype("f4", copy=False)
        return np.transpose(values, self.axes) if self.axes else values


@dataclass
class SourceArrays:
    """The arrays of a file by their role.

    Attributes:
        tensors: arrays of Inception-ResNet-v2.
        unexpected: names of unknown arrays.
        ignored: names of arrays that only training needs.
        head: names of arrays of a head other than the classifier.
        prefix: common prefix of the network's names, where it was part of a larger module.
    """

    tensors: dict[Key, Tensor] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    prefix: str = ""
