"""One run: training, then the errors of its snapshots."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiment.caffe_engine import CaffeEvaluator, run_caffe
from experiment.databases import training_database
from experiment.evaluating import curve_point, everything, finite
from experiment.nets import solver, train_net
from experiment.results import KEY
from irv2caffe.log.read.reader import read_log
from irv2caffe.log.table import PINNED_LOSS, make_table
from irv2caffe.proto.text import write_prototxt

if TYPE_CHECKING:
    from experiment.arms import Arm, Engine, Size
    from experiment.evaluating import Evaluator


@dataclass(frozen=True)
class Run:
    """A training to be done.

    Attributes:
        arm: its factors.
        size: of net, data and run.
        seed: of weights, crops and shuffles.
        engine: that trains and evaluates.
        data: folder of the databases.
        gpu: for the torch engine; None for the CPU.
        is_trial: only measures the rate of a few epochs.
    """

    arm: Arm
    size: Size
    seed: int
    engine: Engine
    data: Path
    gpu: int | None = None
    is_trial: bool = False

    @property
    def key(self) -> tuple[str, int, str, int]:
        """What tells it from other runs; the epochs stand for the size."""
        return self.arm.name, self.seed, self.engine, self.size.epochs


TRIAL_EPOCHS = 4


def do_run(run: Run) -> dict[str, Any]:
    """Trains, evaluates, and returns the values for one line of the results.

    A trial returns iterations per second only.
    """
    if run.is_trial:
        run = replace(run, size=replace(run.size, epochs=TRIAL_EPOCHS))
    with tempfile.TemporaryDirectory(prefix="why-it-stalled-") as name:
        folder, start_s = Path(name), time.perf_counter()
        net = train_net(run.arm, run.size, training_database(run.data, run.arm))
        write_prototxt(folder / "train.prototxt", net)
        made = solver(run.arm, run.size, folder, seed=run.seed, gpu=run.gpu is not None)
        write_prototxt(folder / "solver.prototxt", made)
        _train(run, folder)
        train_s = time.perf_counter() - start_s
        if run.is_trial:
            return {"rate": _rate(folder / "log")}
        losses = epoch_losses(folder / "log", run.size)
        evaluator = _evaluator(run, net, folder)
        epochs = run.size.epochs
        at = [epoch for epoch in range(2, epochs) if epoch % run.size.curve_epochs == 0]
        first, final = (everything(evaluator, _snapshot(run, folder, e)) for e in (1, epochs))
        curve = {epoch: curve_point(evaluator, _snapshot(run, folder, epoch)) for epoch in at}
        return {
            **dict(zip(KEY, run.key, strict=True)),
            "diverged": any(value is None or value > PINNED_LOSS - 0.01 for value in losses),
            "losses": losses,
            "first": first,
            "final": final,
            "curve": {str(epoch): point for epoch, point in curve.items()},
            "iterations": run.size.iterations * epochs,
            "train_s": round(train_s, 2),
            "total_s": round(time.perf_counter() - start_s, 2),
        }


def _train(run: Run, folder: Path) -> None:
    if run.engine == "torch":
        from experiment.torch_engine import train

        train(folder / "solver.prototxt", folder / "log", run.arm, run.gpu)
    else:
        run_caffe("train", "-solver", folder / "solver.prototxt", log=folder / "log")


def _evaluator(run: Run, net: Any, folder: Path) -> Evaluator:
    if run.engine == "torch":
        from experiment.torch_engine import TorchEvaluator

        return TorchEvaluator(net, run.data, folder, run.size.batch_size, run.gpu)
    return CaffeEvaluator(net, run.data, folder, run.size.batch_size)


def epoch_losses(log: Path, size: Size) -> list[float | None]:
    """The mean training loss of the last quarter of the first epoch, then that of each epoch.

    A display is the mean of the iterations since the one before.
    """
    rows = list(make_table(read_log(log)).train)
    values: list[float | None] = []
    for epoch in range(1, size.epochs + 1):
        end = epoch * size.iterations
        of_epoch = [row.loss for row in rows if end - size.iterations < row.iteration <= end]
        of_epoch = of_epoch[-1:] if epoch == 1 else of_epoch
        values.append(finite(sum(of_epoch) / len(of_epoch)) if of_epoch else None)
    return values


def _rate(log: Path) -> float:
    """Iterations per second after the first quarter of an epoch."""
    rows = [row for row in make_table(read_log(log)).train if row.iteration and row.seconds]
    passed_s = (rows[-1].seconds or 0.0) - (rows[0].seconds or 0.0)
    return round((rows[-1].iteration - rows[0].iteration) / passed_s, 2) if passed_s else 0.0


def _snapshot(run: Run, folder: Path, epoch: int) -> Path:
    return folder / f"s_iter_{epoch * run.size.iterations}.caffemodel"
