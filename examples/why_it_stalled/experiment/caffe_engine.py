"""Trains and tests nets with the real Caffe."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np

from experiment.evaluating import REESTIMATING_BATCHES, errors, num_batches
from irv2caffe.caffe.command import tool_command
from irv2caffe.caffe.find import find_caffe
from irv2caffe.data.lmdb_store.reading import open_reader
from irv2caffe.errors import CaffeFailedError
from irv2caffe.evaluate.batch_norm import with_batch_norm
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array, read_array
from irv2caffe.proto.caffemodel import ModelFile, write_model
from irv2caffe.proto.text import write_prototxt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from experiment.evaluating import Errors, Part

# The means that `caffe test` prints at its end; those of single batches begin with "Batch".
_MEAN = re.compile(r"^I\d{4} \S+ +\d+ \S+\] (accuracy|loss) = (\S+)", re.MULTILINE)


def run_caffe(*words: object, log: Path) -> None:
    """Runs Caffe's program.

    Raises:
        CaffeFailedError: it ended with an error.
    """
    command = tool_command(find_caffe(), "caffe", [str(word) for word in words])
    with log.open("wb") as file:
        code = subprocess.run(
            command.argv, env=dict(command.env), stdout=file, stderr=file, check=False
        ).returncode
    if code:
        end = log.read_text("utf-8", "replace").strip()[-300:]
        raise CaffeFailedError(f"caffe {words[0]} ended with exit code {code}: {end}")


class CaffeEvaluator:
    """Runs the net of one training on the images of its databases."""

    def __init__(self, trained: Any, data: Path, folder: Path, batch_size: int) -> None:
        self.batch_size = batch_size
        self._trained = trained
        self._databases = {"val": data / "val", "train": data / "shuffled_middle"}
        self._folder = folder

    def measure(
        self, weights: Path, part: Part, batch: int, most: int | None, *, batch_statistics: bool
    ) -> Errors:
        """As :meth:`experiment.evaluating.Evaluator.measure`."""
        with open_reader(self._databases[part]) as reader:
            number, batch = num_batches(len(reader), batch, most)
        net = self._net(self._databases[part], batch)
        if batch_statistics:
            net = with_batch_norm(net, use_global_stats=False)
        bottoms = [name for layer in net.layer for name in layer.bottom if layer.name == "loss"]
        net.layer.add(name="accuracy", type="Accuracy", bottom=bottoms, top=["accuracy"])
        path, log = self._folder / "test.prototxt", self._folder / "test.log"
        write_prototxt(path, net)
        run_caffe("test", "-model", path, "-weights", weights, "-iterations", number, log=log)
        found = {name: float(value) for name, value in _MEAN.findall(log.read_text())}
        return errors(100 - 100 * found["accuracy"], found["loss"], number * batch)

    def reestimated(self, weights: Path) -> Path:
        """As :meth:`experiment.evaluating.Evaluator.reestimated`: trains with the rate 0."""
        net, start = self._folder / "again.prototxt", self._folder / "empty.caffemodel"
        made = self._net(self._databases["train"], self.batch_size)
        made = with_batch_norm(made, moving_average_fraction=1.0)
        write_prototxt(net, made)
        write_model(start, made, _without_statistics(weights))
        prefix = self._folder / "again"
        solver = messages.SolverParameter(
            net=str(net), snapshot_prefix=str(prefix), max_iter=REESTIMATING_BATCHES,
            base_lr=0.0, lr_policy="fixed", solver_mode=messages.SolverParameter.CPU,
        )  # fmt: skip
        path = self._folder / "again_solver.prototxt"
        write_prototxt(path, solver)
        run_caffe("train", "-solver", path, "-weights", start, log=self._folder / "again.log")
        return self._folder / f"again_iter_{REESTIMATING_BATCHES}.caffemodel"

    def _net(self, database: Path, batch: int) -> Any:
        """The net that was trained, with other data: the middles of the images."""
        net = messages.NetParameter()
        net.CopyFrom(self._trained)
        layer = net.layer[0]
        layer.data_param.source = str(database)
        layer.data_param.batch_size = batch
        layer.transform_param.mirror = False
        return net


def _without_statistics(weights: Path) -> Iterator[Any]:
    """The layers of a model, with the sums of BatchNorm at zero."""
    model = ModelFile(weights)
    for name in model.layers:
        layer = messages.LayerParameter(name=name, blobs=model.blobs(name))
        if name.endswith("_bn"):
            empty = [blob_from_array(np.zeros_like(read_array(blob))) for blob in layer.blobs]
            del layer.blobs[:]
            layer.blobs.extend(empty)
        yield layer
