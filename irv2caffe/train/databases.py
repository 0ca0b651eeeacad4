"""The databases that a job's data layers read, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.data.inspect import read_facts, summary_of
from irv2caffe.errors import InputError, Irv2CaffeError, MissingInputError
from irv2caffe.proto import messages
from irv2caffe.train.job import PHASES, Job, layer_batch, noted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from irv2caffe.data.facts import SourceFacts
    from irv2caffe.data.inspect import DatabaseSummary

    Facts = Mapping[Path, SourceFacts | Irv2CaffeError]


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
        facts: what was read of it.
    """

    layer: str
    phase: str
    source: Path
    batch_size: int
    crop: int
    summary: DatabaseSummary
    facts: SourceFacts


def look_at_databases(job: Job) -> Facts:
    """What is in every database that the nets read, or why that cannot be known."""
    layers = [layer for phase in PHASES for layer in job.data_layers(phase) if layer.type == "Data"]
    sources = (Path(layer.data_param.source) for layer in layers if layer.data_param.source)
    return read_facts(source for source in sources if source.exists())


def read_databases(job: Job, facts: Facts, problems: list[Irv2CaffeError]) -> list[DatabaseUse]:
    """Every LMDB that the nets read, and what keeps it from being read.

    What is wrong with its records, irv2caffe check says.

    Args:
        job: solver and nets.
        facts: of :func:`look_at_databases`.
        problems: gets what is wrong.
    """
    uses = []
    for phase in PHASES:
        for layer in job.data_layers(phase):
            if layer.type == "Data":
                with noted(problems):
                    use = _use(layer, phase, facts)
                    uses += [use] if use is not None else []
    return uses


def _use(layer: Any, phase: str, facts: Facts) -> DatabaseUse | None:
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
    read = facts[source]
    summary = summary_of(source, read)
    assert not isinstance(read, Irv2CaffeError)
    if layer.data_param.batch_size < 1:
        raise InputError(f"layer {layer.name} ({phase}): batch_size is missing")
    crop = layer.transform_param.crop_size
    return DatabaseUse(layer.name, phase, source, layer_batch(layer), crop, summary, read)
