"""Table: the displays and tests of a run as rows, in epochs and percent."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, overload

from irv2caffe.log.accuracy import AccuracyNames, accuracy_names, error_of, kind_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from irv2caffe.log.read.columns import Series, TrainColumns, TrainPoint
    from irv2caffe.log.read.history import Log, TestPoint

# -log of the smallest positive float: SoftmaxWithLoss of outputs that overflowed.
PINNED_LOSS = 87.3365
MAX_LOSS = 3.5e38  # of Caffe's 32-bit floats
_BY_NAME = AccuracyNames()


@dataclass(frozen=True, slots=True)
class TrainRow:
    """One display of the training loss; ``epoch`` is None where the data set is not known.

    ``outputs`` are those of the last batch on the first GPU.
    """

    iteration: int
    epoch: float | None
    loss: float
    lr: float | None
    seconds: float | None
    images_per_second: float | None
    outputs: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TestRow:
    """One test; errors in percent, None where the net has no such output."""

    iteration: int
    epoch: float | None
    net: int
    top1_error: float | None
    top5_error: float | None
    loss: float | None
    outputs: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True)
class Table:
    """The rows of a run.

    Attributes:
        train: by iteration.
        test: by iteration; of the test net chosen by the caller, by default the first.
        restarts: iterations at which a further process started.
        images_per_iteration: batch x iter_size x GPUs, or None where it is not known.
        num_train_images: of the data set, or None.
        pieces: first iteration and images per iteration of each process, where they differ.
        other_tests: of the other test nets.
        max_iter: of the solver, or None.
        ended: the training finished, failed or was killed.
        num_classes: of the net, or None.
        loss_weights: of the outputs that are losses.
        names: the outputs that the caller named as accuracies.
    """

    train: Sequence[TrainRow]
    test: Sequence[TestRow]
    restarts: tuple[int, ...]
    images_per_iteration: int | None
    num_train_images: int | None
    pieces: tuple[tuple[int, int], ...] = ()
    other_tests: Sequence[TestRow] = ()
    max_iter: int | None = None
    ended: bool = False
    num_classes: int | None = None
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    names: AccuracyNames = _BY_NAME

    def epoch(self, iteration: int) -> float | None:
        """Passes over the training set after so many iterations."""
        if not self.num_train_images or not self.images_per_iteration:
            return None
        starts, images, rates = self._images_before
        place = max(0, bisect_left(starts, iteration) - 1)
        seen = images[place] + (iteration - starts[place]) * rates[place]
        return seen / self.num_train_images

    def images_at(self, iteration: int) -> int | None:
        """Images per iteration up to an iteration, or None where they are not known."""
        if not self.pieces:
            return None
        starts, _, rates = self._images_before
        return rates[max(0, bisect_left(starts, iteration) - 1)]

    @cached_property
    def _images_before(self) -> tuple[list[int], list[int], list[int]]:
        """First iteration, images before it and images per iteration of each process."""
        starts, images = [0], [0]
        rates = [self.pieces[0][1] if self.pieces else self.images_per_iteration or 0]
        for start, rate in self.pieces:
            images.append(images[-1] + (start - starts[-1]) * rates[-1])
            starts.append(start)
            rates.append(rate)
        return starts, images, rates


class TrainRows(Sequence[TrainRow]):
    """Rows created from a log's columns on access."""

    def __init__(self, columns: TrainColumns, outputs: Mapping[str, Series], table: Table) -> None:
        """Refers to the columns without a copy.

        Args:
            columns: of the log.
            outputs: of the log, by name.
            table: computes epochs and images.
        """
        self.columns = columns
        self.outputs = outputs
        self._table = table

    def __len__(self) -> int:
        return len(self.columns)

    @overload
    def __getitem__(self, index: int) -> TrainRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrainRow]: ...
    def __getitem__(self, index: int | slice) -> TrainRow | list[TrainRow]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self._row(self.columns[index])

    def _row(self, point: TrainPoint) -> TrainRow:
        images = self._table.images_at(point.iteration)
        outputs = {
            name: value
            for name, series in self.outputs.items()
            if (value := series.get(point.iteration)) is not None
        }
        return TrainRow(
            point.iteration,
            self._table.epoch(point.iteration),
            point.loss,
            point.lr,
            point.seconds,
            images / point.iteration_s if images and point.iteration_s else None,
            outputs,
        )


def make_table(
    log: Log,
    *,
    num_train_images: int | None = None,
    images_per_iteration: int | None = None,
    names: AccuracyNames = _BY_NAME,
    test_net: int = 0,
) -> Table:
    """Rows from a history.

    Args:
        log: from :func:`irv2caffe.log.read.reader.read_log`; the train rows grow with it.
        num_train_images: turns iterations into epochs
            (:func:`irv2caffe.log.dataset.find_train_images`).
        images_per_iteration: the effective batch; overrides that of the log.
        names: the outputs that are accuracies; None fields are determined by name.
        test_net: the test net whose rows are ``test``.
    """
    pieces = _pieces(log, images_per_iteration)
    max_iter = log.fields.get("max_iter")
    classes = [net.num_classes for net in log.nets if net.num_classes]
    table = Table(
        train=(),
        test=(),
        restarts=tuple(log.restarts),
        images_per_iteration=pieces[-1][1] if pieces else None,
        num_train_images=num_train_images,
        pieces=pieces,
        max_iter=max_iter if isinstance(max_iter, int) else None,
        ended=log.finished or bool(log.fatal or log.killed),
        num_classes=classes[-1] if classes else None,
        loss_weights=dict(log.loss_weights),
        names=names,
    )
    tests = [
        row_of_test(point, table.epoch(point.iteration), names, log.loss_weights)
        for point in _whole_tests(log)
    ]
    return replace(
        table,
        train=TrainRows(log.train, log.outputs, table),
        test=tuple(row for row in tests if row.net == test_net),
        other_tests=tuple(row for row in tests if row.net != test_net),
    )


def _whole_tests(log: Log) -> list[TestPoint]:
    """The tests with outputs, without a last one that the end of the log cuts off.

    Its first outputs may be those of an auxiliary head only.
    """
    points = [point for point in log.test if point.outputs]
    same_net = [point for point in points if point.net == points[-1].net][-2:]
    is_short = len(same_net) == 2 and same_net[1].outputs.keys() < same_net[0].outputs.keys()
    if not is_short or log.finished:
        return points
    goes_on = len(log.train) > 0 and log.train.iteration[-1] >= points[-1].iteration
    return points if goes_on else points[:-1]


def _pieces(log: Log, images_per_iteration: int | None) -> tuple[tuple[int, int], ...]:
    """First iteration and images per iteration of each process; empty if one is not known."""
    if images_per_iteration:
        return ((0, images_per_iteration),)
    found = [(process.start, log.images_per_iteration(process)) for process in log.processes]
    pieces: list[tuple[int, int]] = []
    for start, images in found:
        if images is None:
            return ()
        if not pieces or pieces[-1][1] != images:
            pieces.append((start, images))
    return tuple(pieces)


def row_of_test(
    point: TestPoint,
    epoch: float | None,
    names: AccuracyNames = _BY_NAME,
    known_losses: Collection[str] = (),
) -> TestRow:
    """A test with errors in percent; NaN where the loss is."""
    found = accuracy_names(point.outputs, known_losses)
    losses = [
        value
        for name, value in point.outputs.items()
        if name in known_losses or kind_of(name) == "loss"
    ]
    # Comparisons with NaN are false (accuracy_layer.cpp): a net with NaN outputs has accuracy 1.
    is_diverged = any(not math.isfinite(loss) for loss in losses)
    top1, top5 = (
        math.nan if is_diverged and name in point.outputs else error_of(point.outputs, name)
        for name in (names.top1 or found[0], names.top5 or found[1])
    )
    return TestRow(
        point.iteration,
        epoch,
        point.net,
        top1,
        top5,
        losses[-1] if losses else None,
        dict(point.outputs),
        point.seconds,
    )


def is_pinned(loss: float) -> bool:
    """Whether a loss is 87.3365, that of a net whose outputs overflowed."""
    return abs(loss - PINNED_LOSS) < 1e-3


def is_nonfinite(loss: float) -> bool:
    """Whether a loss is not a number, or infinite."""
    return not abs(loss) <= MAX_LOSS


def column(rows: Sequence[TrainRow], name: str) -> Sequence[float]:
    """One column of rows; :class:`TrainRows` are not created for it.

    Args:
        rows: of a table.
        name: ``iteration``, ``loss`` or ``lr`` (not-a-number where there is none).
    """
    if isinstance(rows, TrainRows):
        values: Sequence[float] = getattr(rows.columns, name)
        return values
    found = (getattr(row, name) for row in rows)
    return [math.nan if value is None else value for value in found]
