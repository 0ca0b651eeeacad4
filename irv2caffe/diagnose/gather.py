"""Gathers the evidence about a run from a run folder, a log or a published curve."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import irv2caffe.check.rules  # noqa: F401  registers the rules
from irv2caffe.check.arithmetic import effective_batch, num_train
from irv2caffe.check.nets import gather as gather_check
from irv2caffe.check.read import read
from irv2caffe.check.registry import RULES as CHECK_RULES
from irv2caffe.check.registry import findings
from irv2caffe.check.run import CheckOptions, claims_of, gather_evidence
from irv2caffe.config.recipes import templates_dir
from irv2caffe.diagnose.evidence import RunEvidence
from irv2caffe.diagnose.printed_nets import printed_reading
from irv2caffe.diagnose.published import NUM_TRAIN_IMAGES, RECIPES, is_published, published_table
from irv2caffe.errors import Irv2CaffeError, UsageError
from irv2caffe.log.dataset import find_train_images
from irv2caffe.log.export import read_csv
from irv2caffe.log.metrics import RunData
from irv2caffe.log.read.reader import read_log
from irv2caffe.log.table import make_table
from irv2caffe.train.run_dir.run_dir import read_config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from irv2caffe.check.evidence import Evidence
    from irv2caffe.check.files import Reading
    from irv2caffe.log.read.history import Log
    from irv2caffe.log.table import Table

# What rules of check find where a file could not be read, so that less is known.
_UNREAD = frozenset({"net-missing", "net-refused", "solver-as-net", "data-unreadable"})
_SOLVER, _LOG = "solver.prototxt", "train.log"


@dataclass(frozen=True)
class Request:
    """What to diagnose.

    Attributes:
        source: a run folder, a log, rows of ``plot-log --csv``, or the name of a published curve.
        parts: further parts of the same log, in order.
        solver: the solver of the run, or its net; None takes those of the run folder, or those
            that the log printed.
        train_lmdb: database instead of the one that the net names.
        val_lmdb: likewise.
        num_train_images: overrides the number that is found.
        images_per_iteration: overrides that of the log.
        reads_databases: whether the databases are opened.
    """

    source: Path
    parts: tuple[Path, ...] = ()
    solver: Path | None = None
    train_lmdb: Path | None = None
    val_lmdb: Path | None = None
    num_train_images: int | None = None
    images_per_iteration: int | None = None
    reads_databases: bool = True


def gather(request: Request) -> RunEvidence:
    """Reads a run.

    Raises:
        MissingInputError: a file is missing.
        FormatError: the log has no line of a training, or a prototxt that the user names is
            invalid.
        UsageError: several parts of what is no log, or a published run without curves.
    """
    source = request.source
    if is_published(source):
        _refuse_parts(request)
        return _published(request)
    if source.suffix == ".csv" and source.is_file():
        _refuse_parts(request)
        return _of_rows(request)
    folders = [path for path in (source, *request.parts) if path.is_dir()]
    if folders:
        _refuse_parts(replace(request, source=folders[0]))
    return evidence_of_log(read_log(source, *request.parts), request)


def _evidence(
    name: str, table: Table, check: Evidence | None, notes: Sequence[str] = (), **more: Any
) -> RunEvidence:
    """The evidence, with what the rules of ``check`` find in the files."""
    if check is not None:
        troubles = {hit.what for name, hit in check.troubles if name in _UNREAD}
        notes = (*notes, *sorted(troubles))
    found = () if check is None else tuple(findings(check, CHECK_RULES.values()))
    run = RunData(table)
    return RunEvidence(name, run, check=check, check_findings=found, notes=tuple(notes), **more)


def _refuse_parts(request: Request) -> None:
    if request.parts:
        hint = "give one run; several files are the parts of one log"
        raise UsageError(f"{request.source} has no further parts", hint)


def evidence_of_log(log: Log, request: Request, table: Table | None = None) -> RunEvidence:
    """The evidence of a log that is read.

    Args:
        log: its history.
        request: the files.
        table: its rows; None makes them.

    Raises:
        FormatError: a prototxt that the user names is invalid.
    """
    source, notes = request.source, list[str]()
    folder = source if source.is_dir() else source.parent
    run_dir = folder if _is_log_of_run(source) else None
    images = request.num_train_images or find_train_images(log, folder).number
    reading = _reading(request, run_dir, notes)
    options = _options(request, log, images)
    solver_path = request.solver or (run_dir and run_dir / _SOLVER)
    solver_path = solver_path if reading is not None and reading.solver else None
    if reading is None or not reading.nets:
        printed = printed_reading(log, folder, notes)
        if reading is not None:
            printed.solver = reading.solver or printed.solver
            printed.troubles = reading.troubles
        reading = printed
        options = replace(options, flavor="bvlc")  # NVCaffe prints the batch of one GPU
    check = _checked(reading, options, reads_databases=request.reads_databases)
    return _evidence(
        str(source),
        table or _table(log, request.images_per_iteration, images, check),
        check,
        log=log,
        run_dir=run_dir,
        log_paths=(source, *request.parts),
        solver_path=solver_path,
        config={} if run_dir is None else read_config(run_dir),
        notes=notes,
    )


def _table(log: Log, batch: int | None, images: int | None, check: Evidence | None) -> Table:
    """The rows of a log; batch and length of an epoch are those of the files if it has none."""
    if check is not None:
        images = images or num_train(check)
        if not any(process.batch for process in log.processes):
            batch = batch or effective_batch(check)
    return make_table(log, num_train_images=images, images_per_iteration=batch)


def _is_log_of_run(source: Path) -> bool:
    """Whether a source is a run folder, or the log of all starts in one."""
    return source.is_dir() or (source.name == _LOG and (source.parent / _SOLVER).is_file())


def _reading(request: Request, run_dir: Path | None, notes: list[str]) -> Reading | None:
    """The files that the user names, or else those of the run folder, which may be broken."""
    if request.solver is not None:
        return read(request.solver)
    if run_dir is None or not (run_dir / _SOLVER).is_file():
        return None
    try:
        return read(run_dir / _SOLVER, is_moved=True)
    except Irv2CaffeError as error:
        notes.append(error.message)
        return None


def _options(request: Request, log: Log | None, images: int | None) -> CheckOptions:
    """What the log and the user say of the run."""
    known = log is not None and bool(log.processes)
    return CheckOptions(
        train_lmdb=request.train_lmdb,
        val_lmdb=request.val_lmdb,
        flavor="nvcaffe" if log and log.fork.startswith("NVCaffe") else "bvlc",
        num_gpus=log.num_gpus if log and known else 0,
        num_train=images,
    )


def _checked(
    reading: Reading | None, options: CheckOptions, *, reads_databases: bool
) -> Evidence | None:
    """Solver, nets and databases; None without any."""
    if reading is None or not (reading.solver or reading.nets):
        return None
    if reads_databases:
        return gather_evidence(reading, options)
    return gather_check(reading, {}, claims_of(options))


def _of_rows(request: Request) -> RunEvidence:
    """From the rows that ``plot-log --csv`` wrote, which have no batch."""
    table = read_csv(request.source)
    images = request.num_train_images
    check = _checked(
        _reading(request, None, []),
        _options(request, None, images),
        reads_databases=request.reads_databases,
    )
    batch = request.images_per_iteration
    if check is not None:
        images, batch = images or num_train(check), batch or effective_batch(check)
    batch = batch or _images_per_iteration(table, images)
    table = replace(table, num_train_images=images, images_per_iteration=batch)
    path = request.solver if check is not None and check.solver else None
    return _evidence(str(request.source), table, check, solver_path=path)


def _images_per_iteration(rows: Table, images: int | None) -> int | None:
    """From the epochs in the rows, if the number of training images is known."""
    places = [(row.iteration, row.epoch or 0.0) for row in rows.test]
    places += [(row.iteration, row.epoch or 0.0) for row in rows.train]
    iteration, epoch = max(places, default=(0, 0.0))
    if not iteration or not epoch or images is None:
        return None
    return max(1, round(epoch * images / iteration))


def _published(request: Request) -> RunEvidence:
    name = str(request.source)
    table = published_table(name)
    recipe = RECIPES.get(name)
    notes: tuple[str, ...] = ()
    if request.solver is None and recipe is not None:
        request = replace(request, solver=templates_dir() / recipe / _SOLVER)
        notes = (f"solver and net are those of the recipe {recipe}, its reconstruction",)
    check = _checked(
        _reading(request, None, []),
        _options(request, None, NUM_TRAIN_IMAGES),
        reads_databases=request.reads_databases,
    )
    return _evidence(name, table, check, notes=notes)
