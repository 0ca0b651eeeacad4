"""Check before resuming that the source still gives the records that are already stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.class_table import some
from irv2caffe.data.records.datum import record_key
from irv2caffe.data.records.items import Skipped
from irv2caffe.errors import FormatError, OutputError, OutputExistsError

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.data.build.build_plan import BuildPlan
    from irv2caffe.data.build.pool import WorkerPool

_NUM_COMPARED = 32


class ChangedSourceError(OutputExistsError):
    """The images have changed since the unfinished database was written."""


def check_unchanged(plan: BuildPlan, folder: Path, num_done: int, pool: WorkerPool) -> None:
    """Makes a sample of the first ``num_done`` records again, and compares them with those stored.

    Raises:
        ChangedSourceError: naming images whose records are different now.
        OutputError: the database is damaged.
    """
    changed, num_compared = [], 0
    try:
        with open_reader(folder) as reader:
            for result in pool.run(plan.sample(_NUM_COMPARED, num_done)):
                item, record = result.unit.items[0], result.records[0]
                stored = reader.get(record_key(result.unit.indices[0], item.name))
                if stored is None:  # it was skipped then
                    continue
                num_compared += 1
                if isinstance(record, Skipped) or record != stored:
                    changed.append(item.name)
    except FormatError as error:
        raise OutputError(error.message, "--no-resume starts over") from error
    if changed:
        raise ChangedSourceError(
            f"{folder} holds other records than the images give now: {len(changed)} of "
            f"{num_compared} that were made again, {some(changed)}",
            "if the images were changed, or the versions of this program's packages, start over "
            "with --no-resume or --force",
        )
