"""Computes batch sizes, epochs, learning rates and numbers of classes for rules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, Layer, PhaseNet, SolverEvidence
    from irv2caffe.data.inspect.database import Database

_CLASSIFIERS = {"InnerProduct": "inner_product_param", "Convolution": "convolution_param"}
_SAME_FACTOR = 0.05  # tolerance
_COMPARING = ("SoftmaxWithLoss", "Accuracy", "InfogainLoss", "MultinomialLogisticLoss", "HingeLoss")
# Parameters that give the axis of the classes.
_AXIS_PARAMS = {
    "Accuracy": "accuracy_param",
    "SoftmaxWithLoss": "softmax_param",
    "InfogainLoss": "infogain_loss_param",
}


def is_stepped_by_python(evidence: Evidence) -> bool:
    """Whether a script probably runs the solver.

    Nets that are fed by a Python layer are rarely trained by ``caffe train``: a script copies
    weights, steps the solver and writes snapshots, and the solver's own fields are not read.
    """
    net = evidence.train_net
    return net is not None and any(not layer.message.bottom for layer in net.of_type("Python"))


def facts_of_net(net: PhaseNet, evidence: Evidence) -> Database | None:
    """Facts of the first database of a net that could be read."""
    return next(filter(None, map(evidence.facts_of, net.data_layers)), None)


def num_train(evidence: Evidence) -> int | None:
    """Training images: from the user, else the database, else a header written by build-net."""
    if evidence.claims.num_train:
        return evidence.claims.num_train
    facts = facts_of_net(evidence.train_net, evidence) if evidence.train_net else None
    counted = facts.num_records if facts else None
    return evidence.claims.header_num_train if counted is None else counted


def num_gpus(evidence: Evidence) -> int:
    """Number of devices; 1 for the CPU."""
    return max(1, evidence.claims.num_gpus)


def batch_per_gpu(evidence: Evidence) -> int | None:
    """Images of one forward pass on one device.

    BVLC Caffe gives every GPU the whole batch_size, NVCaffe divides it (parallel.cpp of both).
    """
    batch = evidence.train_net.batch_size if evidence.train_net else None
    if batch and evidence.claims.flavor == "nvcaffe":
        return math.ceil(batch / num_gpus(evidence))
    return batch


def effective_batch(evidence: Evidence) -> int | None:
    """Images per update of the weights."""
    batch = batch_per_gpu(evidence)
    if not batch or evidence.solver is None:
        return None
    return int(batch * num_gpus(evidence) * evidence.solver.message.iter_size)


def iterations_per_epoch(evidence: Evidence) -> float | None:
    """Iterations per pass over the training set; None if unknown."""
    images, batch = num_train(evidence), effective_batch(evidence)
    return images / batch if images and batch else None


def epochs(evidence: Evidence, iterations: float) -> float | None:
    """Passes over the training set in a number of iterations; None if unknown."""
    images, batch = num_train(evidence), effective_batch(evidence)
    return iterations * batch / images if images and batch else None


def summary(evidence: Evidence) -> list[str]:
    """Batch and length of the run in up to two lines, if known."""
    batch, images = effective_batch(evidence), num_train(evidence)
    if batch is None or evidence.solver is None:
        return []
    solver = evidence.solver.message
    per_device = f"{batch_per_gpu(evidence)} per device x {num_gpus(evidence)} device(s)"
    lines = [f"effective batch {batch} = {per_device} x iter_size {solver.iter_size}"]
    length = epochs(evidence, solver.max_iter)
    if images and length is not None and solver.max_iter > 0:
        lines.append(
            f"max_iter {solver.max_iter:,} = {length:.2f} epochs of {images:,} training images"
        )
    return lines


def learning_rate(solver: Any, iteration: int) -> float:
    """The learning rate at an iteration (sgd_solver.cpp, GetLearningRate).

    Returns:
        The rate; nan for an unknown policy or where Caffe would divide by 0.
    """
    base, gamma, power = solver.base_lr, solver.gamma, solver.power
    rates = {
        "fixed": lambda: base,
        "step": lambda: base * gamma ** (iteration // solver.stepsize),
        "exp": lambda: base * gamma**iteration,
        "inv": lambda: base * (1 + gamma * iteration) ** -power,
        "multistep": lambda: base * gamma ** sum(value <= iteration for value in solver.stepvalue),
        "poly": lambda: base * max(0.0, 1 - iteration / solver.max_iter) ** power,
        "sigmoid": lambda: base / (1 + math.exp(-gamma * (iteration - solver.stepsize))),
    }
    try:
        return float(rates[solver.lr_policy]())
    except (ArithmeticError, KeyError, TypeError, ValueError):  # also a power of a negative number
        return math.nan


def comparisons(net: PhaseNet) -> Iterator[tuple[Layer, int, Layer | None]]:
    """Layers that compare classes with labels.

    Yields:
        The layer, the number of classes, and the data layer that the labels come from, if any.
    """
    for layer in net.of_type(*_COMPARING):
        sources = net.sources(layer)
        classes = num_classes(net, layer)
        if len(sources) < 2 or classes is None:
            continue
        producer = sources[1]
        is_label = (
            producer is not None
            and producer.type in {"Data", "ImageData"}
            and list(producer.message.top)[1:2] == [layer.message.bottom[1]]
        )
        yield layer, classes, producer if is_label else None


def num_classes(net: PhaseNet, layer: Layer) -> int | None:
    """Size of the class axis of the first bottom of a layer."""
    info = net.info(layer)
    if info is not None and info.bottom_shapes:
        param = _AXIS_PARAMS.get(layer.type)
        axis = getattr(layer.message, param).axis if param else 1
        shape = info.bottom_shapes[0]
        return int(shape[axis]) if -len(shape) <= axis < len(shape) else None
    producer = next(iter(net.sources(layer)), None)
    while producer is not None and producer.type in {"Dropout", "Softmax", "Scale", "ReLU"}:
        producer = next(iter(net.sources(producer)), None)
    if producer is None or producer.type not in _CLASSIFIERS:
        return None
    return int(getattr(producer.message, _CLASSIFIERS[producer.type]).num_output)


def forgotten_factor(evidence: SolverEvidence, ratio: float) -> str:
    """The factor that was probably forgotten, or the length of an epoch."""
    gpus, iter_size = num_gpus(evidence), evidence.solver.message.iter_size
    for factor, name in (
        (gpus * iter_size, "GPUs times iter_size"),
        (gpus, "the number of GPUs"),
        (iter_size, "iter_size"),
    ):
        if factor > 1 and math.isclose(ratio, factor, rel_tol=_SAME_FACTOR):
            return f"It is {factor} times as long: {name} was left out of the calculation"
        if factor > 1 and math.isclose(ratio, 1 / factor, rel_tol=_SAME_FACTOR):
            return f"It is {factor} times as short: {name} was counted twice"
    images, batch = num_train(evidence), effective_batch(evidence)
    return f"an epoch is {images:,} images at {batch} per iteration"
