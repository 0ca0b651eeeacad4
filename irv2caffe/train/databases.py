"""The databases that a job's data layers read, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irv2caffe.data.inspect import DatabaseSummary, summarize_database
from irv2caffe.errors import InputError, Irv2CaffeError, MissingInputError
from irv2caffe.proto import messages
from irv2caffe.train.job import PHASES, Job, layer_batch, noted


@dataclass(frozen=True)
class DatabaseUse:
    """A database as a data layer reads it.

    Attributes:
        layer: that reads it.
        phase: TRAIN or TEST.
        source: its folder.
        batch_size: as written in the layer.
        crop: side of the crop, 0 for none.
        summary: what it holds.
    """

    layer: str
    phase: str
    source: Path
    batch_size: int
    crop: int
    summary: DatabaseSummary


def read_databases(job: Job, problems: list[Irv2CaffeError]) -> list[DatabaseUse]:
    """Every LMDB that the nets read, and what is wrong with them."""
    uses = []
    for phase in PHASES:
        for layer in job.data_layers(phase):
            if layer.type == "Data":
                with noted(problems):
                    use = _use(layer, phase)
                    uses += [use] if use is not None else []
    return uses


def _use(layer: Any, phase: str) -> DatabaseUse | None:
    """What a layer reads; None for a LevelDB, which only Caffe can read."""
    source = Path(layer.data_param.source)
    if not source.exists():
        flag = "--train-lmdb" if phase == "TRAIN" else "--val-lmdb"
        raise MissingInputError(
            f"layer {layer.name} ({phase}): no database at {source}",
            f"{flag} names another; irv2caffe make-lmdb SOURCE OUT builds one",
        )
    if layer.data_param.backend != messages.DataParameter.LMDB:
        if not (source / "data.mdb").is_file():
            return None
        raise InputError(
            f"layer {layer.name} ({phase}): the backend is LEVELDB, which is the default, "
            f"and {source} is an LMDB",
            "write backend: LMDB into its data_param",
        )
    crop = layer.transform_param.crop_size
    summary = summarize_database(source)
    if layer.data_param.batch_size < 1:
        raise InputError(f"layer {layer.name} ({phase}): batch_size is missing")
    if crop > min(summary.height, summary.width):
        raise InputError(
            f"crop_size {crop} does not fit the {summary.width}x{summary.height} images in "
            f"{source}",
            f"rebuild the database with --resize {crop * 328 // 299} or more",
        )
    return DatabaseUse(layer.name, phase, source, layer_batch(layer), crop, summary)


def check_labels(job: Job, uses: list[DatabaseUse]) -> None:
    """Labels beyond the classifier's outputs make Caffe read foreign memory, or abort.

    Raises:
        InputError: a database has such a label.
    """
    outputs = [
        layer.inner_product_param.num_output
        for net in job.nets.values()
        for layer in net.layer
        if layer.type == "InnerProduct"
    ]
    for use in uses:
        if outputs and use.summary.max_label >= max(outputs):
            raise InputError(
                f"{use.source} has label {use.summary.max_label}, the net only {max(outputs)} "
                "outputs",
                "build the net with --num-classes, or give build-net the databases",
            )
