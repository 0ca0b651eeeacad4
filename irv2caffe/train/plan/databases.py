"""The databases that a job's data layers read, and what is wrong with them."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe import atomic
from irv2caffe.data.inspect.database import read_databases as read_all
from irv2caffe.data.inspect.database import usable
from irv2caffe.errors import InputError, Irv2CaffeError, MissingInputError
from irv2caffe.proto import messages
from irv2caffe.train.plan.job import PHASES, Job, layer_batch, noted
from irv2caffe.train.run_dir.failure_causes import LOCK_FILE, NO_LOCKS

if TYPE_CHECKING:
    from irv2caffe.data.inspect.database import Database, Databases

_NO_LOCK = "a Caffe that was built with ALLOW_LMDB_NOLOCK may do without: --ignore-findings"
_MAKES = os.W_OK | os.X_OK
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux


@dataclass(frozen=True)
class DatabaseUse:
    """A database as a data layer reads it.

    Attributes:
        layer: that reads it.
        phase: TRAIN or TEST.
        source: its folder.
        batch_size: as written in the layer.
        crop: side of the crop, 0 for none.
        database: what it holds.
    """

    layer: str
    phase: str
    source: Path
    batch_size: int
    crop: int
    database: Database


def look_at_databases(job: Job, known: Databases) -> Databases:
    """Reads every database of the nets that is not known yet; an error where that fails."""
    layers = [layer for phase in PHASES for layer in job.data_layers(phase) if layer.type == "Data"]
    sources = (Path(layer.data_param.source) for layer in layers if layer.data_param.source)
    return read_all((source for source in sources if source.exists()), known=known)


def read_databases(job: Job, facts: Databases, problems: list[Irv2CaffeError]) -> list[DatabaseUse]:
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
    problems[:] = dict.fromkeys(problems)  # two phases may read one database
    return uses


def _use(layer: Any, phase: str, facts: Databases) -> DatabaseUse | None:
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
    database = usable(source, facts[source])
    if layer.data_param.batch_size < 1:
        raise InputError(f"layer {layer.name} ({phase}): batch_size is missing")
    crop = layer.transform_param.crop_size
    return DatabaseUse(layer.name, phase, source, layer_batch(layer), crop, database)


def check_locks(uses: list[DatabaseUse]) -> None:
    """Caffe locks what it reads, in a lock.mdb (mdb_env_setup_locks in mdb.c).

    On a disk that is mounted read-only it does without.

    Raises:
        InputError: it cannot, and stops: Check failed: mdb_status == 0.
    """
    for source in dict.fromkeys(use.source for use in uses):
        lock = source / "lock.mdb"
        with suppress(OSError):
            if os.statvfs(source).f_flag & os.ST_RDONLY:
                continue
        if not (os.access(lock, os.R_OK | os.W_OK) if lock.exists() else os.access(source, _MAKES)):
            raise InputError(
                f"{lock} may not be written, and Caffe opens it for writing", LOCK_FILE
            )
        if not _has_locks(source / "data.mdb"):
            raise InputError(f"{source}: its file system has no locks", f"{NO_LOCKS}; {_NO_LOCK}")


def _has_locks(file: Path) -> bool:
    """Asks for a lock that would be in the way, which takes none."""
    try:
        with file.open("rb") as stream:
            fcntl.fcntl(stream, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 1, 0))
    except OSError as error:
        return error.errno not in atomic.NO_LOCKS
    return True
