"""The databases that the job's data layers read, and the locks that Caffe takes on them."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe import atomic
from irv2caffe.data.inspect.database import Database, read_databases
from irv2caffe.errors import InputError
from irv2caffe.train.plan.job import PHASES, Job, layer_batch
from irv2caffe.train.run_dir.failure_causes import LOCK_FILE, NO_LOCKS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from irv2caffe.data.inspect.database import Databases

_NO_LOCK = "if this Caffe was built with ALLOW_LMDB_NOLOCK, try --ignore-findings"
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux


@dataclass(frozen=True)
class DatabaseUse:
    """An LMDB as a data layer reads it.

    Attributes:
        layer: name of the data layer.
        phase: TRAIN or TEST.
        source: folder of the database.
        batch_size: as written in the layer.
        crop: crop_size of the layer, 0 for none.
        database: contents of the database.
    """

    layer: str
    phase: str
    source: Path
    batch_size: int
    crop: int
    database: Database


def databases_of(job: Job, known: Databases) -> Databases:
    """Reads the databases of a job's Data layers that are not known yet."""
    layers = [layer for phase in PHASES for layer in job.data_layers(phase) if layer.type == "Data"]
    sources = (Path(layer.data_param.source) for layer in layers if layer.data_param.source)
    return read_databases((source for source in sources if source.exists()), known=known)


def database_uses(job: Job, databases: Databases) -> tuple[DatabaseUse, ...]:
    """The LMDBs that the nets read, except the unreadable ones, which are findings of check."""
    uses = []
    for phase in PHASES:
        for layer in job.data_layers(phase):
            source = Path(layer.data_param.source)
            database = databases.get(source)
            if isinstance(database, Database) and database.kind == "LMDB" and database.num_records:
                crop = layer.transform_param.crop_size
                use = DatabaseUse(layer.name, phase, source, layer_batch(layer), crop, database)
                uses.append(use)
    return tuple(uses)


def check_locks(uses: Iterable[DatabaseUse]) -> None:
    """Checks that Caffe can lock the databases it reads (mdb_env_setup_locks in mdb.c).

    LMDB takes no locks on a file system that is mounted read-only.

    Raises:
        InputError: it cannot, and Caffe would stop with "Check failed: mdb_status == 0".
    """
    for source in dict.fromkeys(use.source for use in uses):
        lock = source / "lock.mdb"
        with suppress(OSError):
            if os.statvfs(source).f_flag & os.ST_RDONLY:
                continue
        asked, mode = (lock, os.R_OK | os.W_OK) if lock.exists() else (source, os.W_OK | os.X_OK)
        if not os.access(asked, mode):
            raise InputError(f"{lock} is not writable, and Caffe opens it for writing", LOCK_FILE)
        if not _has_locks(lock if lock.exists() else source / "data.mdb"):
            raise InputError(
                f"{source}: its file system has no file locks", f"{NO_LOCKS}; {_NO_LOCK}"
            )


def _has_locks(file: Path) -> bool:
    """Whether a file can be locked; queries a lock without taking it."""
    try:
        with file.open("rb") as stream:
            fcntl.fcntl(stream, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 1, 0))
    except OSError as error:
        return error.errno not in atomic.NO_LOCKS
    return True
