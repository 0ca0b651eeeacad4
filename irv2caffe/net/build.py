"""The three prototxts of a run, written together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe import __version__
from irv2caffe.atomic import refuse_existing
from irv2caffe.net.inception_resnet_v2 import deploy, train_val
from irv2caffe.net.solver import Schedule, plan_schedule, solver
from irv2caffe.proto.text import write_prototxt

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.config import NetOptions, SolverOptions


@dataclass(frozen=True)
class BuiltNet:
    """What build-net wrote.

    Attributes:
        train_val: the network of both phases.
        deploy: the network for use.
        solver: the run.
        schedule: the run in iterations.
    """

    train_val: Path
    deploy: Path
    solver: Path
    schedule: Schedule


def build_net(
    out: Path,
    net_options: NetOptions,
    solver_options: SolverOptions,
    *,
    num_train: int,
    num_val: int,
    num_gpus: int = 0,
    command: str = "",
    force: bool = False,
) -> BuiltNet:
    """Writes ``train_val.prototxt``, ``deploy.prototxt`` and ``solver.prototxt`` into a folder.

    The same options give the same bytes. Everything is checked before the first file is written.

    Args:
        out: the folder; made if missing.
        net_options: the network.
        solver_options: the run in epochs.
        num_train: training images.
        num_val: validation images.
        num_gpus: that will train together; 0 is the CPU.
        command: quoted in the headers, so that a file says how it was made.
        force: replace the three files if they exist.

    Raises:
        UsageError: options that Caffe would refuse.
        OutputExistsError: one of the files exists and ``force`` is not set.
        OutputError: the folder cannot be written.
    """
    built = BuiltNet(
        out / "train_val.prototxt",
        out / "deploy.prototxt",
        out / "solver.prototxt",
        plan_schedule(
            solver_options,
            num_train=num_train,
            num_val=num_val,
            batch_size=net_options.batch_size,
            test_batch_size=net_options.test_batch_size,
            num_gpus=max(1, num_gpus),
        ),
    )
    both = train_val(net_options, built.schedule.test_batch_size)
    use = deploy(net_options)
    run = solver(
        solver_options,
        built.schedule,
        net=str(built.train_val),
        snapshot_prefix=str(out / f"irv2_{net_options.variant}"),
        on_gpu=num_gpus > 0,
    )
    if not force:
        refuse_existing(built.train_val, built.deploy, built.solver)
    origin = [f"irv2caffe {__version__}", *([command] if command else [])]
    write_prototxt(built.train_val, both, header="\n".join([*origin, _about(net_options)]))
    write_prototxt(built.deploy, use, header="\n".join([*origin, _about_input(net_options)]))
    write_prototxt(built.solver, run, header="\n".join([*origin, *built.schedule.arithmetic()]))
    return built


def _about(options: NetOptions) -> str:
    scale = options.residual_scale
    scales = "none" if scale is None else " ".join(f"{value:g}" for value in scale)
    return (
        f"Inception-ResNet-v2, variant {options.variant}, {options.num_classes} classes, "
        f"crop {options.crop}, width {options.width:g}, residual scale {scales}"
    )


def _about_input(options: NetOptions) -> str:
    mean = " ".join(f"{value:g}" for value in options.mean_value)
    return (
        f"input: BGR, 0 to 255, minus {mean}, times {options.scale:.8g}; "
        f"output: prob, {options.num_classes} class probabilities"
    )
