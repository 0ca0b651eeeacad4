"""Small trainings for the real Caffe and the torch engine, on the same database and weights."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from typing import TYPE_CHECKING

from helpers.training_jobs import make_databases
from irv2caffe.caffe.command import tool_command
from irv2caffe.engine.command import main
from irv2caffe.log.read import events
from irv2caffe.log.read.parse import parse

if TYPE_CHECKING:
    from pathlib import Path

# Convolution, BatchNorm and inner product; with weights that learn and decay at different rates. A
# bias before BatchNorm has a gradient of rounding errors only, which AdaGrad and Adam scale up.
NET = """
name: "small"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ scale: 0.01 mean_value: 100 }}
  data_param {{ source: "{root}/train_lmdb" batch_size: 8 backend: LMDB }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ scale: 0.01 mean_value: 100 }}
  data_param {{ source: "{root}/val_lmdb" batch_size: 10 backend: LMDB }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 6 kernel_size: 3 stride: 2 bias_term: false
    weight_filler {{ type: "msra" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "conv" top: "bn"
  batch_norm_param {{ moving_average_fraction: 0.9 }} }}
layer {{ name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param {{ bias_term: true }} }}
layer {{ name: "relu" type: "ReLU" bottom: "bn" top: "bn" }}
layer {{ name: "fc" type: "InnerProduct" bottom: "bn" top: "fc"
  param {{ lr_mult: 0.5 decay_mult: 2 }} param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc"
  include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""
SOLVER = """net: "net.prototxt" test_iter: 2 test_interval: 50 display: 1 max_iter: 100
weight_decay: 0.01 solver_mode: CPU random_seed: 1 snapshot: 50 """
# Lines of threads, of layers, and of Caffe's handling of old files.
_UNORDERED = ("layer_factory", "upgrade_proto", "blocking_queue", "data_layer.cpp:73")
FIXED = 'lr_policy: "fixed" '
JOBS = {
    "SGD": FIXED + "base_lr: 0.01 momentum: 0.9",
    "Nesterov": FIXED + 'type: "Nesterov" base_lr: 0.01 momentum: 0.9',
    "AdaGrad": FIXED + 'type: "AdaGrad" base_lr: 0.01',
    "RMSProp": FIXED + 'type: "RMSProp" base_lr: 0.001 rms_decay: 0.9 delta: 0.01',
    "AdaDelta": FIXED + 'type: "AdaDelta" base_lr: 1 momentum: 0.95 delta: 1e-6',
    "Adam": FIXED + 'type: "Adam" base_lr: 0.001 momentum: 0.9 momentum2: 0.99',
    "old solver_type": FIXED + "solver_type: RMSPROP base_lr: 0.001 rms_decay: 0.9 delta: 0.1",
    "step": 'lr_policy: "step" base_lr: 0.02 gamma: 0.5 stepsize: 30',
    "exp": 'lr_policy: "exp" base_lr: 0.02 gamma: 0.97',
    "inv": 'lr_policy: "inv" base_lr: 0.02 gamma: 0.01 power: 0.75',
    "multistep": 'lr_policy: "multistep" base_lr: 0.02 gamma: 0.3 stepvalue: 20 stepvalue: 70',
    "poly": 'lr_policy: "poly" base_lr: 0.02 power: 1.5',
    "sigmoid": 'lr_policy: "sigmoid" base_lr: 0.02 gamma: 0.1 stepsize: 50',
    "iter_size": FIXED + "base_lr: 0.01 momentum: 0.9 iter_size: 3",
    "clip_gradients": FIXED + "base_lr: 0.01 momentum: 0.9 clip_gradients: 0.5 iter_size: 2",
    "L1": FIXED + 'base_lr: 0.01 momentum: 0.9 regularization_type: "L1"',
    "average_loss": FIXED + "base_lr: 0.01 average_loss: 7 test_compute_loss: true",
    "RMSProp with all": 'type: "RMSProp" lr_policy: "step" base_lr: 0.002 gamma: 0.94 stepsize: 9 '
    'rms_decay: 0.9 delta: 1 iter_size: 2 clip_gradients: 1 regularization_type: "L1"',
}


def write_jobs(folder: Path) -> None:
    """Databases, the net, and for each job a solver."""
    make_databases(folder)
    (folder / "net.prototxt").write_text(NET.format(root=folder))
    for name, fields in JOBS.items():
        (folder / f"{name}.prototxt").write_text(f'{SOLVER}{fields} snapshot_prefix: "{name}"\n')


def caffe_log(found, folder: Path, *args: object) -> str:
    """The log of a training by the real Caffe."""
    command = tool_command(found, "caffe", ["train", *map(str, args)])
    done = subprocess.run(
        command.argv, env=command.env, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def engine_log(folder: Path, *args: object, code: int = 0) -> str:
    """The log of the same training by the engine, in this process."""
    log = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stderr(log):
        status = main(["train", *map(str, args)])
    assert status == code, log.getvalue()[-3000:]
    return log.getvalue()


def found_events(log: str) -> list[events.Event]:
    """The events of all lines."""
    return [event for line in log.splitlines() if (event := parse(line)) is not None]


def losses(log: str) -> dict[int, float]:
    """The loss of each iteration that was displayed."""
    return {
        event.iteration: event.loss for event in found_events(log) if isinstance(event, events.Loss)
    }


def difference(log: str, other: str, *, first: int = 0) -> float:
    """The largest relative difference between the losses of two logs, which have the same ones."""
    ours, theirs = losses(log), losses(other)
    assert list(ours) == list(theirs)
    assert len(ours) > 1
    return max(abs(ours[at] - loss) / abs(loss) for at, loss in theirs.items() if at >= first)


def kinds(log: str) -> list[str]:
    """The lines of a log without stamps and numbers, for comparing their order.

    Lines of single layers and of prototxts are left out, and those of the threads that read.
    """
    lines = []
    for line in log.splitlines():
        match = re.match(r"[IWEF]\d{4} \S+ +\d+ (\S+)\] (.*)", line)
        if match is None or match[1].startswith(_UNORDERED):
            continue
        if match[1].startswith("net.cpp") and match[1][8:] not in {"53", "244", "257"}:
            continue
        lines.append(re.sub(r"-?\d+(\.\d+)?(e[+-]\d+)?|-?inf|-?nan", "N", " ".join(match.groups())))
    return lines
