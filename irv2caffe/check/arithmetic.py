"""Sums that several rules need: batches, epochs, learning rates, what a label is compared with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from irv2caffe.check.evidence import DATA_PARAMS, Evidence, Layer, PhaseNet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.data.inspect.database import Database

_CLASSIFIERS = {"InnerProduct": "inner_product_param", "Convolution": "convolution_param"}
_COMPARED = ("SoftmaxWithLoss", "Accuracy", "InfogainLoss", "MultinomialLogisticLoss", "HingeLoss")


def train_net(evidence: Evidence) -> PhaseNet | None:
    """The net that learns."""
    return next((net for net in evidence.nets if net.phase == "TRAIN"), None)


def is_stepped_by_python(evidence: Evidence) -> bool:
    """Whether a program of somebody's runs the solver, as far as one can tell.

    Nets that are fed by a layer in Python are rarely trained by ``caffe train``: a script copies
    weights, steps the solver and writes snapshots, and the solver's own fields are not read.
    """
    net = train_net(evidence)
    return net is not None and any(not layer.message.bottom for layer in net.of_type("Python"))


def source_of(layer: Layer) -> str:
    """What a data layer reads, as written."""
    return str(getattr(layer.message, DATA_PARAMS[layer.type]).source)


def facts_of(net: PhaseNet, evidence: Evidence) -> Database | None:
    """What is known of the first database a net reads."""
    for layer in net.data_layers:
        facts = evidence.databases.get(source_of(layer))
        if facts is not None:
            return facts
    return None


def num_train(evidence: Evidence) -> int | None:
    """Training images: as the user says, else the database, else a header of ours."""
    if evidence.claims.num_train:
        return evidence.claims.num_train
    net = train_net(evidence)
    facts = facts_of(net, evidence) if net else None
    counted = facts.num_records if facts else None
    return evidence.claims.header_num_train if counted is None else counted


def num_gpus(evidence: Evidence) -> int:
    """Devices that train together; the CPU counts as one."""
    return max(1, evidence.claims.num_gpus)


def batch_per_gpu(evidence: Evidence) -> int | None:
    """Images of one forward pass on one device.

    BVLC Caffe gives every GPU the whole batch_size, NVCaffe divides it (parallel.cpp of both).
    """
    net = train_net(evidence)
    batch = net.batch_size if net else None
    if batch and evidence.claims.flavor == "nvcaffe":
        return math.ceil(batch / num_gpus(evidence))
    return batch


def effective_batch(evidence: Evidence) -> int | None:
    """Images per update of the weights."""
    batch = batch_per_gpu(evidence)
    if not batch or evidence.solver is None:
        return None
    return int(batch * num_gpus(evidence) * evidence.solver.message.iter_size)


def epochs(evidence: Evidence, iterations: float) -> float | None:
    """Passes over the training set that so many iterations make."""
    images, batch = num_train(evidence), effective_batch(evidence)
    return iterations * batch / images if images and batch else None


def summary(evidence: Evidence) -> list[str]:
    """The run in one or two lines, as far as it is known."""
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
    """The rate at an iteration, as sgd_solver.cpp's GetLearningRate has it; nan for no policy."""
    base, gamma, power = solver.base_lr, solver.gamma, solver.power
    policy = solver.lr_policy
    try:
        if policy == "fixed":
            return float(base)
        if policy == "step":
            return float(base * gamma ** (iteration // solver.stepsize))
        if policy == "exp":
            return float(base * gamma**iteration)
        if policy == "inv":
            return float(base * (1 + gamma * iteration) ** -power)
        if policy == "multistep":
            return float(base * gamma ** sum(value <= iteration for value in solver.stepvalue))
        if policy == "poly":
            return float(base * max(0.0, 1 - iteration / solver.max_iter) ** power)
        if policy == "sigmoid":
            return float(base / (1 + math.exp(-gamma * (iteration - solver.stepsize))))
    except (ArithmeticError, TypeError, ValueError):  # a step of 0, a power of a negative number
        pass
    return math.nan


def comparisons(net: PhaseNet) -> Iterator[tuple[Layer, int, Layer | None]]:
    """Layers that compare classes with labels: layer, number of classes, where labels come from."""
    for layer in net.of_type(*_COMPARED):
        sources = net.sources(layer)
        classes = num_classes(net, layer)
        if len(sources) < 2 or classes is None:
            continue
        maker = sources[1]
        is_label = (
            maker is not None
            and maker.type in {"Data", "ImageData"}
            and list(maker.message.top)[1:2] == [layer.message.bottom[1]]
        )
        yield layer, classes, maker if is_label else None


def num_classes(net: PhaseNet, layer: Layer) -> int | None:
    """Size of the class axis of what a layer reads first."""
    info = net.info(layer)
    if info is not None and info.bottom_shapes:
        axis = getattr(layer.message, _axis_param(layer)).axis if _axis_param(layer) else 1
        shape = info.bottom_shapes[0]
        return int(shape[axis]) if -len(shape) <= axis < len(shape) else None
    maker = next(iter(net.sources(layer)), None)
    while maker is not None and maker.type in {"Dropout", "Softmax", "Scale", "ReLU"}:
        maker = next(iter(net.sources(maker)), None)
    if maker is None or maker.type not in _CLASSIFIERS:
        return None
    return int(getattr(maker.message, _CLASSIFIERS[maker.type]).num_output)


def _axis_param(layer: Layer) -> str:
    """The message that says which axis holds the classes."""
    return {
        "Accuracy": "accuracy_param",
        "SoftmaxWithLoss": "softmax_param",
        "InfogainLoss": "infogain_loss_param",
    }.get(layer.type, "")
