"""Trains and runs nets with the torch engine in this process, and TensorFlow's RMSProp for it."""

# ruff: noqa: SLF001 - torch's functions on lists begin with an underscore
from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from experiment.databases import read_images
from experiment.evaluating import REESTIMATING_BATCHES, errors, num_batches
from experiment.nets import TF_RMSPROP, evaluated_net
from irv2caffe.engine.model_files import load_model, save_model
from irv2caffe.engine.net import Net
from irv2caffe.engine.options import EngineOptions
from irv2caffe.engine.parallel.group import open_group
from irv2caffe.engine.solver.check import read_solver
from irv2caffe.engine.solver.log_lines import Log
from irv2caffe.engine.solver.loop import Solver
from irv2caffe.engine.solver.signals import Signals
from irv2caffe.engine.solver.solver_types import SOLVER_TYPES, Scalars, SolverType
from irv2caffe.evaluate.batch_norm import with_batch_norm
from irv2caffe.inference.nets import ends_of
from irv2caffe.log.table import PINNED_LOSS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from experiment.arms import Arm
    from experiment.evaluating import Errors, Part
    from irv2caffe.shapes.phases import Phase

Tensors = list[torch.Tensor]
_OPTIONS = EngineOptions(compile=False, data_threads=1)  # exact: float32, as Caffe computes


def _tf_rmsprop(
    weights: Tensors, gradients: Tensors, squares: Tensors, moments: Tensors, by: Scalars
) -> None:
    """``s = d s + (1 - d) g^2; m = momentum m + rate g / sqrt(s + delta); w -= m``.

    As tf.train.RMSPropOptimizer, whose ``s`` begins at 1: ``squares`` holds s - 1.
    """
    torch._foreach_mul_(squares, by.rms_decay)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - by.rms_decay)
    torch._foreach_sub_(squares, 1 - by.rms_decay)
    divisors = torch._foreach_add(squares, 1 + by.delta)
    torch._foreach_sqrt_(divisors)
    torch._foreach_mul_(moments, by.momentum)
    torch._foreach_addcdiv_(moments, gradients, divisors, value=by.rate)
    torch._foreach_sub_(weights, moments)


SOLVER_TYPES[TF_RMSPROP] = SolverType(_tf_rmsprop, num_histories=2)


def train(solver: Path, log: Path, arm: Arm, gpu: int | None) -> None:
    """Trains in this process; the log is as Caffe's."""
    augment = "inception" if arm.augment == "inception" else ""
    options = replace(_OPTIONS, shuffle=arm.order == "shuffled", augment=augment)
    group = open_group([] if gpu is None else [gpu])
    with log.open("w") as stream:
        training = Solver(read_solver(solver), options, group, Signals(), Log(stream=stream))
        # The search for the fastest convolutions, which the engine asks for, takes longer than it
        # saves in runs as short as these.
        torch.backends.cudnn.benchmark = False
        try:
            training.solve()
        finally:
            training.close()
    del training
    gc.collect()
    if gpu is not None:
        torch.cuda.empty_cache()


class TorchEvaluator:
    """Runs the net of one training on the images of its databases."""

    def __init__(self, trained: Any, data: Path, folder: Path, batch_size: int, gpu: int | None):
        self.batch_size = batch_size
        self._trained = trained
        self._parts = {
            "val": read_images(data / "val"),
            "train": read_images(data / "shuffled_middle"),
        }
        self._folder = folder
        self._gpu = gpu
        self._open: tuple[tuple[Path, bool], _Net] | None = None

    def measure(
        self, weights: Path, part: Part, batch: int, most: int | None, *, batch_statistics: bool
    ) -> Errors:
        """As :meth:`experiment.evaluating.Evaluator.measure`."""
        if self._open is None or self._open[0] != (weights, batch_statistics):
            net = evaluated_net(self._trained, batch_statistics=batch_statistics)
            self._open = (weights, batch_statistics), _Net(net, weights, "TEST", self._gpu)
        images = self._parts[part]
        number, batch = num_batches(len(images.labels), batch, most)
        wrong, loss = 0, 0.0
        for start in range(0, number * batch, batch):
            logits = self._open[1].forward(images.data[start : start + batch]).cpu().double()
            labels = torch.from_numpy(images.labels[start : start + batch])
            wrong += int((logits.nan_to_num(nan=-torch.inf).argmax(1) != labels).sum())
            each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
            loss += float(each.clamp(max=PINNED_LOSS).sum())  # as Caffe's SoftmaxWithLoss
        count = number * batch
        return errors(100 * wrong / count, loss / count, count)

    def reestimated(self, weights: Path) -> Path:
        """As :meth:`experiment.evaluating.Evaluator.reestimated`."""
        net = with_batch_norm(
            evaluated_net(self._trained, batch_statistics=True), moving_average_fraction=1.0
        )
        running = _Net(net, weights, "TRAIN", self._gpu)
        running.clear_statistics()
        images, size = self._parts["train"].data, self.batch_size
        for at in range(REESTIMATING_BATCHES):
            running.forward(images[np.arange(at * size, (at + 1) * size) % len(images)])
        out = self._folder / "reestimated.caffemodel"
        running.save(out)
        return out


class _Net:
    """A net with weights that takes batches of any size."""

    def __init__(self, proto: Any, weights: Path, phase: Phase, gpu: int | None) -> None:
        torch.backends.cudnn.allow_tf32 = False
        self._device = torch.device("cpu") if gpu is None else torch.device("cuda", gpu)
        self._proto = proto
        self._phase = phase
        self._logits = ends_of(proto).logits
        self._net = self._made(None)
        load_model(weights, self._net)

    def _made(self, trained: Net | None) -> Net:
        return Net(self._proto, self._phase, _OPTIONS, device=self._device, trained=trained)

    def forward(self, images: NDArray[np.float32]) -> torch.Tensor:
        """The logits of a batch."""
        layer = self._proto.layer[0]
        dims = layer.input_param.shape[0].dim
        if tuple(dims) != images.shape:
            dims[:] = images.shape
            self._net = self._made(self._net)
        given = {layer.top[0]: torch.from_numpy(np.ascontiguousarray(images)).to(self._device)}
        with torch.no_grad():
            done = self._net.forward(given, keep_blobs=[self._logits])
        logits: torch.Tensor = done.blobs[self._logits].flatten(1)
        return logits

    def clear_statistics(self) -> None:
        """Sets the sums of BatchNorm to zero."""
        for layer in self._net.layers:
            if layer.info.type == "BatchNorm":
                for blob in layer.blobs:
                    blob.data.zero_()

    def save(self, path: Path) -> None:
        """Writes the weights as they are now."""
        save_model(path, self._net)
