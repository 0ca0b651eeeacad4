"""Values that follow from the length of a run and the number of its images.

The defaults of :class:`NetOptions` and :class:`SolverOptions` are those of ILSVRC12: 1.28 million
images, millions of iterations. A shorter run derives some of them. Each derived value comes with
the reason that ``--print-config`` shows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from irv2caffe.config.options import NetOptions, SolverOptions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    Derived = Mapping[str, tuple[Any, str]]

_MOST_IMAGES = 1 << 62
_WINDOWS = 50  # of BatchNorm's average in a run
_SHORTEST_WINDOW = 10
_SHORT = 20_000  # iterations
_TESTS = 24  # of a short run, and snapshots


def derive_solver(
    options: SolverOptions,
    stated: Collection[str],
    recipe_epochs: float,
    *,
    num_train: int,
    batch_size: int,
) -> Derived:
    """Intervals of learning-rate steps, tests and snapshots.

    - Steps: a run shorter than its recipe takes all of the recipe's steps, closer together, so that
      it ends near the same learning rate; each has an iteration at least.
    - Tests: at most 24 in a run below 20,000 iterations; where a run has at most 24, a snapshot is
      taken at each, so that the weights of the best test are kept.
    - Snapshots of longer runs: every 10 epochs, or at least six in the run.

    Args:
        options: of the run, without derived values.
        stated: names of options that the command line or the recipe gives.
        recipe_epochs: length of the run that the recipe was made for.
        num_train: training images.
        batch_size: training images per GPU and forward pass.

    Returns:
        Values by name of the option, each with the reason.
    """
    derived: dict[str, tuple[Any, str]] = {}
    epochs = options.epochs
    per_epoch = min(num_train, _MOST_IMAGES) / (
        batch_size * max(1, options.num_gpus) * options.iter_size
    )
    if epochs < recipe_epochs and options.lr_decay < 1:
        steps = recipe_epochs / options.lr_decay_epochs
        iterations = max(1, math.ceil(epochs * per_epoch / steps))
        why = f"{epochs * per_epoch / iterations:.3g} steps in the run, {steps:.3g} in "
        why += f"{recipe_epochs:g} epochs"
        derived["lr_decay_epochs"] = (float(f"{iterations / per_epoch:.6g}"), why)
    test_epochs = options.test_epochs
    if (
        epochs > _TESTS * test_epochs
        and epochs * per_epoch < _SHORT
        and "test_epochs" not in stated
    ):
        test_epochs = float(f"{epochs / _TESTS:.4g}")
        derived["test_epochs"] = (test_epochs, f"{_TESTS} tests in a short run")
    if "snapshot_epochs" not in stated:
        if epochs <= (_TESTS + 1) * test_epochs:
            derived["snapshot_epochs"] = (test_epochs, "at each test, to keep the best")
        elif options.snapshot_epochs > epochs / 6:
            derived["snapshot_epochs"] = (float(f"{epochs / 6:.4g}"), "6 in the run")
    return derived


def derive_bn_fraction(options: SolverOptions, *, num_train: int, batch_size: int) -> Derived:
    """BatchNorm's ``moving_average_fraction``, so that its window fits the run.

    In each forward pass in TRAIN Caffe multiplies the sums of means and variances and their count
    by the fraction f, and adds the batch's own and 1 (batch_norm_layer.cpp, Forward_cpu); TEST
    divides by the count. A batch n passes ago has the weight f^n / (1 + f + f^2 ...), so that the
    statistics are on average f / (1 - f) passes old, and as steady as the mean of
    (1 + f) / (1 - f) batches. A window of 1 / (1 - f) passes that is a 50th of the run keeps them
    young enough for every test; 10 at least still average 19 batches, and 1000 (0.999) is enough
    for runs from 50,000 passes on. iter_size passes belong to an iteration.

    Args:
        options: of the run.
        num_train: training images.
        batch_size: training images per GPU and forward pass.
    """
    passes = options.epochs * min(num_train, _MOST_IMAGES) / (batch_size * max(1, options.num_gpus))
    default = NetOptions.bn_fraction
    fraction = round(1 - 1 / max(_SHORTEST_WINDOW, passes / _WINDOWS), 4)
    if fraction >= default:
        return {}
    why = f"an average over {1 / (1 - fraction):.3g} of the run's {passes:,.0f} batches"
    return {"bn_fraction": (fraction, why)}
