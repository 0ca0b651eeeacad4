"""The history as plain rows in epochs and percent; its summary; CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from irv2caffe.log.read import Log, TestPoint

_TOP_K = re.compile(r"(?i)(?:top|acc(?:uracy)?|prec(?:ision)?)[-_/@ ]*(?:top)?[-_/@ ]*(\d+)")
_ACCURACY = re.compile(r"acc|top[-_@ ]?\d|prec", re.IGNORECASE)
# -log of the smallest positive float: SoftmaxWithLoss of a net whose outputs overflowed.
PINNED_LOSS = 87.3365


@dataclass(frozen=True, slots=True)
class TrainRow:
    """One display of the training loss; ``epoch`` is None where the data set is not known."""

    iteration: int
    epoch: float | None
    loss: float
    lr: float | None
    seconds: float | None
    images_per_second: float | None


@dataclass(frozen=True, slots=True)
class TestRow:
    """One test; errors in percent, None where the net has no such output."""

    iteration: int
    epoch: float | None
    net: int
    top1_error: float | None
    top5_error: float | None
    loss: float | None


@dataclass(frozen=True)
class Table:
    """The rows of a run.

    Attributes:
        train: by iteration.
        test: by iteration; of the first test net.
        restarts: iterations at which a further process took over.
        images_per_iteration: batch x iter_size x GPUs, or None where the log does not say.
        num_train_images: of the data set, or None.
    """

    train: tuple[TrainRow, ...]
    test: tuple[TestRow, ...]
    restarts: tuple[int, ...]
    images_per_iteration: int | None
    num_train_images: int | None

    def epoch(self, iteration: int) -> float | None:
        """Passes over the training set after so many iterations."""
        if not self.num_train_images or not self.images_per_iteration:
            return None
        return iteration * self.images_per_iteration / self.num_train_images


@dataclass(frozen=True)
class Summary:
    """A run in a few figures; errors in percent, None where there is nothing to say.

    ``diverged`` is the first iteration whose loss is not a number or pinned at 87.3365.
    """

    iterations: int
    epochs: float | None
    last_top1_error: float | None
    last_top5_error: float | None
    best_top1_error: float | None
    best_top5_error: float | None
    best_iteration: int | None
    best_epoch: float | None
    last_loss: float | None
    lr: float | None
    images_per_second: float | None
    hours: float | None
    restarts: int
    diverged: int | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def make_table(log: Log, *, num_train_images: int | None = None) -> Table:
    """Rows from a history.

    Args:
        log: from :func:`irv2caffe.log.read.read_log`.
        num_train_images: turns iterations into epochs; a log does not say it.
    """
    per_iteration = None
    if log.train_batch is not None:
        per_iteration = log.train_batch * log.fields.get("iter_size", 1) * log.num_gpus
    table = Table((), (), tuple(log.restarts), per_iteration, num_train_images)
    train = tuple(
        TrainRow(
            point.iteration,
            table.epoch(point.iteration),
            point.loss,
            point.lr,
            point.seconds,
            per_iteration / point.iteration_s if per_iteration and point.iteration_s else None,
        )
        for point in log.train
    )
    test = tuple(
        test_row(point, table.epoch(point.iteration))
        for point in log.test
        if point.net == 0 and point.outputs
    )
    return Table(train, test, table.restarts, per_iteration, num_train_images)


def test_row(point: TestPoint, epoch: float | None) -> TestRow:
    """A test in percent."""
    top1, top5 = accuracy_names(point.outputs)
    losses = [value for name, value in point.outputs.items() if "loss" in name.lower()]
    return TestRow(
        point.iteration,
        epoch,
        point.net,
        _error(point.outputs, top1),
        _error(point.outputs, top5),
        losses[-1] if losses else None,
    )


def accuracy_names(names: Iterable[str]) -> tuple[str | None, str | None]:
    """The outputs that are top-1 and top-5 accuracy; the last of each, which is the main head."""
    top1 = top5 = None
    for name in names:
        if not _ACCURACY.search(name):
            continue
        rank = _TOP_K.search(name)
        if rank is None or rank[1] == "1":
            top1 = name
        elif rank[1] == "5":
            top5 = name
    return top1, top5


def _error(outputs: dict[str, float], name: str | None) -> float | None:
    """Percent; an accuracy outside 0..1 is none."""
    if name is None:
        return None
    accuracy = outputs[name]
    return 100 * (1 - accuracy) if math.isnan(accuracy) or 0 <= accuracy <= 1.0001 else None


def summarize(table: Table) -> Summary:
    """The figures of a run."""
    train, test = table.train, table.test
    rated = [row for row in test if row.top1_error is not None and not math.isnan(row.top1_error)]
    best = min(rated, key=lambda row: row.top1_error or 0.0, default=None)
    top5 = [row.top5_error for row in test if row.top5_error is not None]
    iterations = max([row.iteration for row in train] + [row.iteration for row in test], default=0)
    rates = [row.images_per_second for row in train if row.images_per_second]
    seconds = [row.seconds for row in train if row.seconds is not None]
    return Summary(
        iterations=iterations,
        epochs=table.epoch(iterations),
        last_top1_error=test[-1].top1_error if test else None,
        last_top5_error=test[-1].top5_error if test else None,
        best_top1_error=best.top1_error if best else None,
        best_top5_error=min(top5, default=None),
        best_iteration=best.iteration if best else None,
        best_epoch=best.epoch if best else None,
        last_loss=train[-1].loss if train else None,
        lr=next((row.lr for row in reversed(train) if row.lr is not None), None),
        images_per_second=median(rates) if rates else None,
        hours=max(seconds) / 3600 if seconds else None,
        restarts=len(table.restarts),
        diverged=next((row.iteration for row in train if is_diverged(row.loss)), None),
    )


def is_diverged(loss: float) -> bool:
    """Whether a loss says that the net is lost: not a number, infinite, or pinned."""
    return not math.isfinite(loss) or abs(loss - PINNED_LOSS) < 1e-3


def write_csv(path: Path, table: Table) -> None:
    """One row per display or test, by iteration; columns that a row has nothing for are empty.

    Raises:
        OutputError: the file cannot be written.
    """
    columns = (
        "kind", "iteration", "epoch", "loss", "lr", "seconds", "images_per_second",
        "top1_error", "top5_error",
    )  # fmt: skip
    rows = [{"kind": "train", **asdict(row)} for row in table.train]
    rows += [{"kind": "test", **asdict(row)} for row in table.test]
    rows.sort(key=lambda row: (row["iteration"], row["kind"]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
