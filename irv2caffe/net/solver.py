"""SolverParameter from epochs, data set size, batch, GPUs and iter_size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from irv2caffe.config import SolverOptions

_MAX_TEST_BATCH = 50
_MOST_ITERATIONS = (1 << 31) - 1  # int32 in caffe.proto, SolverParameter


@dataclass(frozen=True)
class Schedule:
    """A run in iterations.

    Attributes:
        num_train: training images.
        num_val: validation images.
        batch_size: images per GPU and forward pass.
        num_gpus: 1 where the CPU trains.
        iter_size: forward passes per update.
        test_batch_size: images per TEST forward pass.
        test_iter: TEST passes; times ``test_batch_size`` it is exactly ``num_val``.
        test_interval: updates between two tests.
        snapshot: updates between two snapshots.
        stepsize: updates between two steps of the learning rate.
        max_iter: updates in all; the multiple of ``test_interval`` that is nearest to the epochs
            that were asked for, so that the end is tested.
        display: updates between two lines of the log.
    """

    num_train: int
    num_val: int
    batch_size: int
    num_gpus: int
    iter_size: int
    test_batch_size: int
    test_iter: int
    test_interval: int
    snapshot: int
    stepsize: int
    max_iter: int
    display: int

    @property
    def effective_batch(self) -> int:
        """Images per update: BVLC Caffe gives every GPU a whole batch (parallel.cpp)."""
        return self.batch_size * self.num_gpus * self.iter_size

    @property
    def epochs(self) -> float:
        """Passes over the training set that ``max_iter`` makes."""
        return self.max_iter * self.effective_batch / self.num_train

    def arithmetic(self) -> list[str]:
        """The schedule's sums, one line each."""
        per_epoch = self.num_train / self.effective_batch
        steps = self.stepsize / per_epoch
        tests, snapshots = self.test_interval / per_epoch, self.snapshot / per_epoch
        factors = f"batch_size {self.batch_size} x {self.num_gpus} GPU(s) x iter_size"
        tested = f"test_iter {self.test_iter:,} x batch {self.test_batch_size}"
        return [
            f"effective batch {self.effective_batch} = {factors} {self.iter_size}",
            f"{self.num_train:,} training images = {per_epoch:,.2f} iterations per epoch",
            f"max_iter {self.max_iter:,} = {self.epochs:.2f} epochs",
            f"learning rate steps every {self.stepsize:,} iterations = {steps:.2f} epochs",
            f"tests every {self.test_interval:,} iterations = {tests:.2f} epochs",
            f"{tested} = {self.num_val:,} validation images, each tested once",
            f"snapshots every {self.snapshot:,} iterations = {snapshots:.2f} epochs",
        ]


def plan_schedule(
    options: SolverOptions,
    *,
    num_train: int,
    num_val: int,
    batch_size: int,
    test_batch_size: int | None = None,
    flavor: str = "bvlc",
) -> Schedule:
    """Turns epochs into iterations.

    Args:
        options: the run in epochs.
        num_train: training images.
        num_val: validation images.
        batch_size: images per GPU and forward pass.
        test_batch_size: must divide ``num_val``; None takes its largest divisor up to 50.
        flavor: ``bvlc``, whose first GPU tests alone, or ``nvcaffe``, where all of them share
            a test batch.

    Raises:
        UsageError: a test batch that does not divide the validation set (Caffe would test some
            images twice and others never), a batch larger than the training set, or more
            iterations than Caffe counts.
    """
    num_gpus = max(1, options.num_gpus)
    effective = batch_size * num_gpus * options.iter_size
    if num_train < effective:
        raise UsageError(
            f"an effective batch of {effective} is more than the {num_train} training images",
            "choose a smaller --batch-size",
        )
    per_epoch = min(num_train, 1 << 62) / effective
    test_interval = _test_interval(options, per_epoch)
    max_iter, snapshot = (
        test_interval * max(1, round(iterations / test_interval))
        for iterations in (
            _iterations(options, "epochs", per_epoch),
            _iterations(options, "snapshot_epochs", per_epoch),
        )
    )
    test_batch = _test_batch(num_val, test_batch_size, num_gpus if flavor == "nvcaffe" else 1)
    return Schedule(
        num_train=num_train,
        num_val=num_val,
        batch_size=batch_size,
        num_gpus=num_gpus,
        iter_size=options.iter_size,
        test_batch_size=test_batch,
        test_iter=num_val // test_batch,
        test_interval=test_interval,
        snapshot=snapshot,
        stepsize=max(1, round(_iterations(options, "lr_decay_epochs", per_epoch))),
        max_iter=max_iter,
        display=max(1, min(20, test_interval // 10)),
    )


def _test_interval(options: SolverOptions, per_epoch: float) -> int:
    """As asked for, or the nearest that divides the run, whose length it must not change."""
    num_tests = max(1.0, options.epochs / options.test_epochs)
    iterations = _iterations(options, "epochs", per_epoch)
    return max(1, round(iterations / min(round(num_tests), _MOST_ITERATIONS)))


def _iterations(options: SolverOptions, name: str, per_epoch: float) -> float:
    """Iterations of so many epochs, if Caffe can count them."""
    epochs: float = getattr(options, name)
    if not epochs * per_epoch < _MOST_ITERATIONS / 2:
        raise UsageError(
            f"--{name.replace('_', '-')} {epochs:g} is more iterations than Caffe counts: "
            f"{epochs * per_epoch:,.4g}"
        )
    return epochs * per_epoch


def _test_batch(num_val: int, wanted: int | None, num_sharing: int) -> int:
    """A batch size that divides the validation set, and that the GPUs which share it divide."""
    if num_val < 1:
        raise UsageError("the validation set is empty")
    if num_val > _MOST_ITERATIONS:
        raise UsageError(f"{num_val:,} validation images are more than Caffe counts")
    highest = min(num_val, 4096)
    divisors = [n for n in range(num_sharing, highest + 1, num_sharing) if num_val % n == 0]
    if not divisors:
        raise UsageError(
            f"{num_val:,} validation images cannot be shared by {num_sharing} GPUs",
            f"take a validation set that {num_sharing} divides",
        )
    if wanted is None:
        return max([n for n in divisors if n <= _MAX_TEST_BATCH] or divisors[:1])
    if wanted not in divisors:
        near = sorted(divisors, key=lambda n: abs(n - wanted))[:3]
        sharing = f" by {num_sharing} GPUs" if num_sharing > 1 else ""
        raise UsageError(
            f"--test-batch-size {wanted} does not divide the {num_val:,} validation images"
            f"{sharing}",
            f"near are {', '.join(str(n) for n in sorted(near))}",
        )
    return wanted


def solver(options: SolverOptions, schedule: Schedule, *, net: str, snapshot_prefix: str) -> Any:
    """The SolverParameter.

    Args:
        options: learning rate, regularisation, seed.
        schedule: from :func:`plan_schedule`.
        net: path of the train_val prototxt, as Caffe will open it.
        snapshot_prefix: path that snapshots start with.
    """
    on_gpu = options.num_gpus > 0
    mode = messages.SolverParameter.GPU if on_gpu else messages.SolverParameter.CPU
    message = messages.SolverParameter(
        net=net,
        test_iter=[schedule.test_iter],
        test_interval=schedule.test_interval,
        test_initialization=False,
        base_lr=options.base_lr,
        display=schedule.display,
        average_loss=schedule.display,
        max_iter=schedule.max_iter,
        lr_policy="step",
        gamma=options.lr_decay,
        stepsize=schedule.stepsize,
        weight_decay=options.weight_decay,
        snapshot=schedule.snapshot,
        snapshot_prefix=snapshot_prefix,
        solver_mode=mode,
        random_seed=options.random_seed,
        type=options.type,
    )
    if options.type == "RMSProp":
        message.rms_decay = options.rms_decay
        message.delta = options.delta
    else:
        message.momentum = options.momentum
    if options.iter_size > 1:
        message.iter_size = options.iter_size
    if options.clip_gradients is not None:
        # Caffe clips the sum over iter_size before it divides (sgd_solver.cpp, ClipGradients).
        message.clip_gradients = options.clip_gradients * options.iter_size
    return message
