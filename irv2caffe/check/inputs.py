"""Facts that come in as plain values: this room opens no database, and asks no user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Flavor = Literal["bvlc", "nvcaffe"]


Order = Literal["shuffled", "sorted", "grouped", "unknown"]


@dataclass(frozen=True)
class DatabaseFacts:
    """What a database or an image list holds; None where nobody looked.

    Attributes:
        num_records: images.
        channels: of the first image.
        height: of the first image.
        width: of the first image.
        encoded: whether records are compressed images.
        min_label: the lowest label that was seen.
        max_label: the highest label that was seen.
        order: of the labels along the keys.
        mixed_channels: gray and colour images side by side.
        mixed_sizes: images of several sizes.
        num_looked_at: records that were looked at.
        num_decoded: compressed images that were decoded.
        num_broken: records that hold no image, among those.
        broken: the key of the first of them, and why.
        height_first: the sizes look like height x width x channels.
        class_names: by label, where somebody wrote them down.
        kind: what it is: LMDB, LEVELDB, or a LIST of files.
    """

    num_records: int | None = None
    channels: int | None = None
    height: int | None = None
    width: int | None = None
    encoded: bool | None = None
    min_label: int | None = None
    max_label: int | None = None
    order: Order = "unknown"
    mixed_channels: bool = False
    mixed_sizes: bool = False
    num_looked_at: int = 0
    num_decoded: int = 0
    num_broken: int = 0
    broken: str = ""
    height_first: bool = False
    class_names: tuple[str, ...] = ()
    kind: str = "LMDB"


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
