"""The SolverParameter: iterations from epochs, data set size, batch, GPUs and iter_size."""

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
    """The numbers of a run, in iterations.

    Attributes:
        num_train: training images.
        num_val: validation images.
        batch_size: images per GPU and forward pass.
        num_gpus: GPUs; 1 for the CPU.
        iter_size: forward passes per iteration.
        test_batch_size: images per forward pass of a test.
        test_iter: forward passes of a test; times ``test_batch_size`` it is ``num_val``.
        test_interval: iterations between tests.
        snapshot: iterations between snapshots.
        stepsize: iterations between steps of the learning rate.
        max_iter: iterations in all: a multiple of ``test_interval``, so that the run ends with a
            test, nearest to the epochs of the options.
        display: iterations between lines of the log.
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
        """Images per iteration; BVLC Caffe gives each GPU a whole batch (parallel.cpp)."""
        return self.batch_size * self.num_gpus * self.iter_size

    @property
    def epochs(self) -> float:
        """Epochs of ``max_iter`` iterations."""
        return self.max_iter * self.effective_batch / self.num_train

    def arithmetic(self) -> list[str]:
        """The calculation of the schedule, one line for each number."""
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
    """Converts epochs to iterations.

    Args:
        options: the run in epochs.
        num_train: training images.
        num_val: validation images.
        batch_size: images per GPU and forward pass.
        test_batch_size: a divisor of ``num_val``; None takes the largest up to 50.
        flavor: ``bvlc``, whose first GPU tests alone, or ``nvcaffe``, whose GPUs share a test
            batch.

    Raises:
        UsageError: a test batch that does not divide the validation set (Caffe would test some
            images twice and others never), a batch larger than the training set, or more
            iterations than Caffe's int32.
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
        test_interval * max(1, round(_iterations(options, name, per_epoch) / test_interval))
        for name in ("epochs", "snapshot_epochs")
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
    """The interval nearest to ``test_epochs`` that divides the iterations of the run."""
    num_tests = max(1.0, options.epochs / options.test_epochs)
    iterations = _iterations(options, "epochs", per_epoch)
    return max(1, round(iterations / min(round(num_tests), _MOST_ITERATIONS)))


def _iterations(options: SolverOptions, name: str, per_epoch: float) -> float:
    """The iterations of an option in epochs; refuses more than Caffe can count."""
    epochs: float = getattr(options, name)
    if not epochs * per_epoch < _MOST_ITERATIONS / 2:
        raise UsageError(
            f"--{name.replace('_', '-')} {epochs:g} is more iterations than Caffe counts: "
            f"{epochs * per_epoch:,.4g}"
        )
    return epochs * per_epoch


def _test_batch(num_val: int, wanted: int | None, num_sharing: int) -> int:
    """A multiple of ``num_sharing`` that divides the validation set: the wanted or largest."""
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
    """Builds the SolverParameter.

    Args:
        options: learning rate, regularisation, seed.
        schedule: from :func:`plan_schedule`.
        net: path of the train_val prototxt for Caffe.
        snapshot_prefix: path prefix of snapshots.
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
        # Caffe clips the sum over iter_size, not the mean (sgd_solver.cpp, ClipGradients).
        message.clip_gradients = options.clip_gradients * options.iter_size
    return message
