"""Facts that are not in the prototxts: settings given by the user, and where snapshots go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Flavor = Literal["bvlc", "nvcaffe"]


@dataclass(frozen=True)
class Claims:
    """Settings of the run that the user gives.

    Attributes:
        flavor: whose Caffe will train.
        num_gpus: GPUs that will train; 0 if not given.
        epochs: intended length of the run.
        lr_decay_epochs: epochs between two steps of the learning rate.
        num_train: training images.
        num_val: validation images.
        header_num_train: training images, from the header that build-net writes.
        weights: shapes of the blobs in the .caffemodel that the run starts from, by layer.
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
    """Where snapshots are written.

    Attributes:
        folder: as Caffe will open it.
        is_there: whether the folder exists.
        is_writable: whether a file can be made in it.
        existing: snapshots with the same prefix.
        shared_with: solvers of other nets beside this one with the same prefix.
        alternatives: solvers of the same net and the same length with the same prefix.
    """

    folder: str
    is_there: bool
    is_writable: bool
    existing: tuple[str, ...] = ()
    shared_with: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
