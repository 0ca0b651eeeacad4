"""Facts for rules that are not in the prototxts: given by the user, or about snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Flavor = Literal["bvlc", "nvcaffe"]


@dataclass(frozen=True)
class Claims:
    """Facts about the run given by the user.

    Attributes:
        flavor: Caffe that will train.
        num_gpus: number of GPUs used for training; 0 if not given.
        epochs: intended length of the run.
        lr_decay_epochs: epochs between two steps of the learning rate.
        num_train: number of training images.
        num_val: number of validation images.
        header_num_train: number of training images in the header written by build-net.
        weights: shapes of the blobs in the .caffemodel that the run starts from, by layer name.
        cudnn: whether the Caffe that will train has cuDNN; None if unknown.
    """

    flavor: Flavor = "bvlc"
    num_gpus: int = 0
    epochs: float | None = None
    lr_decay_epochs: float | None = None
    num_train: int | None = None
    num_val: int | None = None
    header_num_train: int | None = None
    weights: Mapping[str, tuple[tuple[int, ...], ...]] | None = None
    cudnn: bool | None = None


@dataclass(frozen=True)
class BlobFacts:
    """Facts about a mean image or an infogain matrix.

    Attributes:
        shape: its shape.
        weights_classes: whether its rows have different sums, which weight the classes of
            InfogainLoss; rows of label smoothing have equal sums.
    """

    shape: tuple[int, ...]
    weights_classes: bool = False


@dataclass(frozen=True)
class SnapshotFacts:
    """Facts about the files named by ``snapshot_prefix``.

    Attributes:
        folder: path of the folder, as Caffe will open it.
        is_there: whether the folder exists.
        is_writable: whether a file can be created in it.
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
