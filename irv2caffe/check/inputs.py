"""Values that the rules get besides the prototxts: the user's claims, and where snapshots go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Flavor = Literal["bvlc", "nvcaffe"]


@dataclass(frozen=True)
class Claims:
    """What the user says of the run.

    Attributes:
        flavor: whose Caffe will train.
        num_gpus: that will train; 0 where nothing was said.
        epochs: the length the run should have.
        lr_decay_epochs: epochs between two steps of the learning rate.
        num_train: training images.
        num_val: validation images.
        header_num_train: training images, as a header of ours says.
        weights: layer name to shapes of its blobs in the .caffemodel the run starts from.
    """

    flavor: Flavor = "bvlc"
    num_gpus: int = 0
    epochs: float | None = None
    lr_decay_epochs: float | None = None
    num_train: int | None = None
    num_val: int | None = None
    header_num_train: int | None = None
    weights: Mapping[str, tuple[tuple[int, ...], ...]] | None = None


@dataclass(frozen=True)
class SnapshotFacts:
    """Where snapshots go.

    Attributes:
        folder: as Caffe will open it.
        is_there: whether the folder exists.
        is_writable: whether a file can be made in it.
        existing: snapshots of the same prefix.
        shared_with: solvers of other nets beside this one with the same prefix.
        alternatives: solvers of the same net and the same length with the same prefix.
    """

    folder: str
    is_there: bool
    is_writable: bool
    existing: tuple[str, ...] = ()
    shared_with: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
