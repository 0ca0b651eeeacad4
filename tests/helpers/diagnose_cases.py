"""Runs for the rules of diagnose: curves written as a log, with files, and read as any other.

``run(losses=..., tests=...)`` writes what Caffe would have written, the solver and the nets among
it, and reads it with the real readers. ``healthy()`` is a run that no rule may have anything
against; changes of it are cases.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

from google.protobuf import text_format

from helpers.check_cases import TRAIN, VAL, changed, plain
from helpers.log_lines import display, lines_of_test, stamped
from irv2caffe.check.inputs import Claims
from irv2caffe.check.nets import gather as gather_check
from irv2caffe.check.read import read
from irv2caffe.check.registry import RULES as CHECK_RULES
from irv2caffe.check.registry import findings
from irv2caffe.diagnose.gather import Request, gather
from irv2caffe.proto import messages
from irv2caffe.shapes.phases import selected

SOLVER = """
net: "train_val.prototxt"
test_iter: 100
test_interval: 2000
base_lr: 0.045
lr_policy: "step"
gamma: 0.94
stepsize: 4000
max_iter: 60000
display: 100
average_loss: 100
momentum: 0.9
weight_decay: 0.0001
snapshot: 2000
snapshot_prefix: "net"
solver_mode: CPU
random_seed: 1
type: "SGD"
"""
# Batch 16 in TRAIN, 10 in TEST, ten classes, BatchNorm with running mean and variance in TEST.
TRAIN_VAL = changed(plain(), [("num_output: 4 ", "num_output: 10 ")])
DATABASES = {
    "train_lmdb": replace(TRAIN, num_records=32_000, max_label=9),
    "val_lmdb": replace(VAL, num_records=1000, max_label=9),
}
SHORT_NET = """
name: "short"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  data_param {{ source: "train_lmdb" batch_size: {batch} backend: LMDB }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  data_param {{ source: "val_lmdb" batch_size: 10 backend: LMDB }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param {{ num_output: {classes} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""


def healthy(**changes):
    """Ten classes, thirty epochs; loss and error fall together, and the test loss with them."""
    values = {
        "losses": lambda epoch: 0.25 + 2.05 * 0.86**epoch,
        "tests": lambda epoch: (12 + 78 * 0.84**epoch, 0.4 + 1.9 * 0.84**epoch),
        "epochs": 30.0,
    }
    return run(**{**values, **changes})


def run(
    losses=lambda epoch: 0.3 + 2 * 0.8**epoch,
    tests=(),
    *,
    epochs=30.0,
    iterations=None,
    num_train=32_000,
    batch=32,
    num_classes=10,
    solver=None,
    train_val=None,
    databases=None,
    claims=None,
    gpus=1,
    lr=0.045,
    num_displays=300,
    num_tests=30,
    noise=0.01,
    seconds=36_000.0,
    lines=(),
    files=None,
    config=None,
    folder=None,
    is_run=False,
):
    """The evidence about a run.

    Args:
        losses: one for each display, evenly spread; or a function of the epoch.
        tests: one for each test, evenly spread from the first to the end; or a function of the
            epoch. A test is a top-1 error in percent, ``(error, loss)``, ``(error, loss, top-5
            error)``, or a mapping of the outputs as Caffe names and prints them.
        epochs: length of the run; with ``num_train`` or ``batch`` None ``iterations`` counts.
        iterations: length of the run instead of ``epochs``; the functions still get epochs, or
            the part of the run done where these are not known.
        num_train: training images; None if not known.
        batch: of the TRAIN net where there is no ``train_val``; None leaves nets out of the log.
        num_classes: of the net where there is no ``train_val``.
        solver: text of a solver prototxt (:data:`SOLVER`), written as a file and into the log.
        train_val: text of the net (:data:`TRAIN_VAL`), written as a file and into the log.
        databases: facts by source; those of :data:`DATABASES` go without saying.
        claims: fields of :class:`irv2caffe.check.inputs.Claims`.
        gpus: that train together.
        lr: as displayed; a number, or a function of the epoch.
        num_displays: where ``losses`` is a function.
        num_tests: where ``tests`` is a function.
        noise: relative; a fixed pattern, of losses that a function gives.
        seconds: the run takes, below a day.
        lines: further lines of the log, at its end.
        files: further files: name to content, in bytes or text.
        config: of the run folder's config.json (with ``is_run``).
        folder: where files are written; None for one that is gone afterwards.
        is_run: gather the folder as a run folder, not the log and the solver.
    """
    net = train_val or (
        None if batch is None else SHORT_NET.format(batch=batch, classes=num_classes)
    )
    per_iteration = _images(net, solver, gpus)
    if iterations is None:
        assert num_train, "without images give iterations"
        assert per_iteration, "without a batch give iterations"
        iterations = round(epochs * num_train / per_iteration)
    known = num_train and per_iteration
    length = iterations * per_iteration / num_train if known else 1.0
    text = [*_head(solver, net, gpus)]
    text += _course(
        _spread(losses, num_displays, iterations, length, noise, first=0),
        _spread(tests, num_tests, iterations, length, 0.0, first=1),
        lambda iteration: lr(iteration / iterations * length) if callable(lr) else lr,
        seconds / iterations,
    )
    written = {"train.log": "\n".join([*text, *lines]) + "\n", **(files or {})}
    if solver:
        written["solver.prototxt"] = solver
    if train_val:
        written["train_val.prototxt"] = train_val
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        if is_run:
            import json

            (Path(folder) / "config.json").write_text(json.dumps(config or {}))
        for name, content in written.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        has_files = bool(solver and train_val)
        request = Request(
            Path(folder) if is_run else Path(folder) / "train.log",
            solver=Path(folder) / "solver.prototxt" if has_files else None,
            num_train_images=num_train,
        )
        found = gather(request)
        return _with_facts(found, Path(folder), databases, claims) if has_files else found


def _with_facts(found, folder, databases, claims):
    """The evidence with facts of databases that are not there."""
    with contextlib.chdir(folder):
        reading = read(Path("solver.prototxt"))
    check = gather_check(reading, {**DATABASES, **(databases or {})}, Claims(**(claims or {})))
    return replace(found, check=check, check_findings=tuple(findings(check, CHECK_RULES.values())))


def _images(net, solver, gpus):
    """Images of an iteration, None without a net."""
    if net is None:
        return None
    layers = _phase(net, "TRAIN").layer
    batch = next(each.data_param.batch_size for each in layers if each.type == "Data")
    return batch * gpus * (_message(messages.SolverParameter, solver or "").iter_size or 1)


def _message(kind, text):
    return text_format.Parse(text, kind())


def _phase(net, phase):
    return selected(_message(messages.NetParameter, net), phase).net


def _head(solver, net, gpus):
    """What Caffe prints before the first iteration."""
    yield stamped(0, f"Using GPUs {', '.join(map(str, range(gpus)))}")
    if solver:
        yield stamped(0, "Initializing solver from parameters: ")
        yield text_format.MessageToString(_message(messages.SolverParameter, solver)).rstrip()
    for phase in ("TRAIN", "TEST") if net else ():
        yield stamped(0, "Initializing net from parameters: ")
        head, rest = f"state {{\n  phase: {phase}\n}}\n", _phase(net, phase)
        rest.ClearField("state")
        yield head + text_format.MessageToString(rest).rstrip()
    yield stamped(0, "Solver scaffolding done.")
    yield stamped(0, "Starting Optimization")


def _spread(values, number, iterations, length, noise, *, first):
    """Iteration and value of each display or test."""
    if callable(values):
        steps = [round(iterations * (place + first) / number) for place in range(number)]
        for place, step in enumerate(steps):
            value = values(step / iterations * length)
            wave = 1 + noise * ((place * 7919 % 13) / 6 - 1)
            yield step, value * wave if isinstance(value, float) else value
        return
    values = list(values)
    for place, value in enumerate(values):
        yield round(iterations * (place + first) / len(values)), value


def _course(displays, tests, lr, seconds_each):
    """The lines of displays and tests by iteration, tests first as in Caffe."""
    parts = [(step, 0, lines_of_test(step, _outputs(one), seconds_each=seconds_each))
             for step, one in tests]  # fmt: skip
    parts += [(step, 1, display(step, loss, lr=lr(step), seconds_each=seconds_each))
              for step, loss in displays]  # fmt: skip
    for _, _, lines in sorted(parts, key=lambda part: part[:2]):
        yield from lines


def _outputs(test):
    """The outputs of a test."""
    if isinstance(test, dict):
        return test
    error, loss, top5 = (*test, None, None)[:3] if isinstance(test, tuple) else (test, None, None)
    found = {"accuracy": 1 - error / 100}
    if top5 is not None:
        found["accuracy_top5"] = 1 - top5 / 100
    return found if loss is None else {**found, "loss": (1.0, loss)}


__all__ = ["DATABASES", "SOLVER", "TRAIN_VAL", "changed", "healthy", "run"]
