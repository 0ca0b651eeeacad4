"""Estimate of the memory and disk that a training takes, from the shapes of its net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.shapes.infer import infer
from irv2caffe.shapes.memory import add, memory
from irv2caffe.train.plan.job import layer_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.shapes.phases import Phase
    from irv2caffe.train.plan.databases import DatabaseUse
    from irv2caffe.train.plan.job import Job

_FLOAT_BYTES = 4
# Values that a solver keeps for each weight (sgd_solver.cpp and its subclasses): history, which is
# in the snapshot, and scratch arrays, which are not.
_HISTORY = {"SGD": 1, "Nesterov": 1, "AdaGrad": 1, "RMSProp": 1, "AdaDelta": 2, "Adam": 2}
_SCRATCH = {"SGD": 0, "Nesterov": 1, "AdaGrad": 1, "RMSProp": 1, "AdaDelta": 2, "Adam": 1}


@dataclass(frozen=True)
class Estimate:
    """Memory and disk that a training takes.

    Attributes:
        train_bytes: memory of the training net, its gradients and the solver, on each device.
        test_bytes: memory of the test nets, on the first device only (NVCaffe: on all).
        train_image_bytes: part of ``train_bytes`` per image of the training batch.
        test_image_bytes: part of ``test_bytes`` per image of the test batch.
        pair_bytes: size of a snapshot's two files.
        num_params: values in a .caffemodel, including BatchNorm's statistics.
    """

    train_bytes: int
    test_bytes: int
    train_image_bytes: int
    test_image_bytes: int
    pair_bytes: int
    num_params: int

    @property
    def model_bytes(self) -> int:
        """Size of a .caffemodel."""
        return _FLOAT_BYTES * self.num_params

    def on_device(self, place: int, flavor: str) -> int:
        """Bytes on one of the devices, by its place in --gpus."""
        tests = place == 0 or flavor == "nvcaffe"
        return self.train_bytes + (self.test_bytes if tests else 0)


def estimate(job: Job, uses: Sequence[DatabaseUse], *, shared_by: int = 1) -> Estimate:
    """Estimates a job, without cuDNN's workspaces and the CUDA context (about 0.5 GB).

    Args:
        job: the solver and its nets.
        uses: its databases, which give the input shapes of nets without a crop.
        shared_by: number of GPUs that share one batch.

    Raises:
        NetError: Caffe would refuse the net, or it has unknown layer types.
    """
    train_shapes = _infer(job.train_net, "TRAIN", uses)
    train = add(memory(train_shapes, backward=True))
    per_device = train.total - train.of_batch + -(-train.of_batch // shared_by)
    test_bytes = test_image_bytes = 0
    for net in job.nets_of("TEST"):
        if _batch(job, "TEST"):
            test = add(memory(_infer(net, "TEST", uses), backward=False))
            test_bytes += test.total - test.weights  # test nets share the training net's weights
            test_image_bytes += test.of_batch // _batch(job, "TEST")
    num_params = sum(layer.num_params + layer.num_statistics for layer in train_shapes.layers)
    weights = _FLOAT_BYTES * num_params
    kind = job.solver.type or "SGD"
    history, scratch = _HISTORY.get(kind, 2), _SCRATCH.get(kind, 1)
    return Estimate(
        train_bytes=per_device + weights * (history + scratch),
        test_bytes=-(-test_bytes // shared_by),
        train_image_bytes=train.of_batch // max(1, _batch(job, "TRAIN")),
        test_image_bytes=test_image_bytes,
        pair_bytes=weights * (1 + history),
        num_params=num_params,
    )


def _batch(job: Job, phase: str) -> int:
    return next((layer_batch(layer) for layer in job.data_layers(phase)), 0)


def _infer(net: Any, phase: Phase, uses: Sequence[DatabaseUse]) -> Any:
    records = {(use.phase, use.layer): use.database for use in uses}

    def shapes_of(layer: Any) -> list[tuple[int, ...]] | None:
        found = records.get((phase, layer.name))
        return None if found is None else [found.shape]

    return infer(net, phase, data_shapes=shapes_of)
