"""The three prototxts of a run, written together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe import __version__
from irv2caffe.atomic import refuse_existing
from irv2caffe.net.inception_resnet_v2 import deploy, train_val
from irv2caffe.net.infogain import write_infogain
from irv2caffe.net.input_sizes import Grids, check_crop
from irv2caffe.net.mean_file import check_mean_file
from irv2caffe.net.solver import Schedule, plan_schedule, solver
from irv2caffe.proto.text import write_prototxt

if TYPE_CHECKING:
    from irv2caffe.config import NetOptions, SolverOptions

_SMALLEST_TEST_BATCH = 8


@dataclass(frozen=True)
class BuiltNet:
    """What build-net wrote.

    Attributes:
        train_val: the network of both phases.
        deploy: the network for use.
        solver: the run.
        infogain: the matrix of label smoothing, or None without it.
        schedule: the run in iterations.
        warnings: what a person should know before using the net, one line each.
    """

    train_val: Path
    deploy: Path
    solver: Path
    infogain: Path | None
    schedule: Schedule
    warnings: tuple[str, ...]

    def files(self) -> list[Path]:
        """All that were written."""
        return [
            path
            for path in (self.train_val, self.deploy, self.solver, self.infogain)
            if path is not None
        ]


def build_net(
    out: Path,
    net_options: NetOptions,
    solver_options: SolverOptions,
    *,
    num_train: int,
    num_val: int,
    command: str = "",
    force: bool = False,
) -> BuiltNet:
    """Writes ``train_val.prototxt``, ``deploy.prototxt`` and ``solver.prototxt`` into a folder.

    The same options give the same bytes. Everything is checked before the first file is written.
    With label smoothing ``infogain.binaryproto`` comes with them.

    Args:
        out: the folder; made if missing.
        net_options: the network.
        solver_options: the run in epochs.
        num_train: training images.
        num_val: validation images.
        command: quoted in the headers, so that a file says how it was made.
        force: replace the files if they exist.

    Raises:
        UsageError: options that Caffe would refuse.
        OutputExistsError: one of the files exists and ``force`` is not set.
        OutputError: the folder cannot be written.
    """
    grids = check_crop(net_options)
    if net_options.mean_file is not None:
        check_mean_file(Path(net_options.mean_file), net_options.crop)
    schedule = plan_schedule(
        solver_options,
        num_train=num_train,
        num_val=num_val,
        batch_size=net_options.batch_size,
        test_batch_size=net_options.test_batch_size,
        flavor=net_options.flavor,
    )
    built = BuiltNet(
        train_val=out / "train_val.prototxt",
        deploy=out / "deploy.prototxt",
        solver=out / "solver.prototxt",
        infogain=out / "infogain.binaryproto" if net_options.label_smoothing > 0 else None,
        schedule=schedule,
        warnings=tuple(_warnings(net_options, schedule, grids)),
    )
    both = train_val(
        net_options,
        schedule.test_batch_size,
        num_gpus=schedule.num_gpus,
        infogain=str(built.infogain),
    )
    use = deploy(net_options)
    run = solver(
        solver_options,
        schedule,
        net=str(built.train_val),
        snapshot_prefix=str(out / f"irv2_{net_options.variant}"),
    )
    if not force:
        refuse_existing(*built.files())
    origin = [f"irv2caffe {__version__}", *([command] if command else [])]
    if built.infogain is not None:
        write_infogain(built.infogain, net_options.num_classes, net_options.label_smoothing)
    about = [*origin, _about(net_options), *schedule.arithmetic()[:2]]
    write_prototxt(built.train_val, both, header="\n".join(about))
    write_prototxt(built.deploy, use, header="\n".join([*origin, *_about_use(net_options)]))
    write_prototxt(built.solver, run, header="\n".join([*origin, *schedule.arithmetic()]))
    return built


def _warnings(options: NetOptions, schedule: Schedule, grids: Grids) -> list[str]:
    lines = []
    if grids.rounded_up:
        lines.append(
            f"crop {options.crop} gives other grids than TensorFlow's, since Caffe's pooling "
            f"rounds up in {', '.join(grids.rounded_up)}: published weights do not fit as well"
        )
    if schedule.num_val > 1000 and schedule.test_batch_size < _SMALLEST_TEST_BATCH:
        lines.append(
            f"the {schedule.num_val:,} validation images have no divisor between "
            f"{_SMALLEST_TEST_BATCH} and 50; batches of {schedule.test_batch_size} test slowly"
        )
    return lines


def _about(options: NetOptions) -> str:
    scale = options.residual_scale
    scales = "none" if scale is None else " ".join(f"{value:g}" for value in scale)
    parts = [
        f"Inception-ResNet-v2, variant {options.variant}, {options.num_classes} classes",
        f"crop {options.crop}, width {options.width:g}, residual scale {scales}",
    ]
    if options.flavor == "nvcaffe":
        parts.append("for NVCaffe, whose batch_size is that of all GPUs together")
    return ", ".join(parts)


def _about_use(options: NetOptions) -> list[str]:
    mean = " ".join(f"{value:g}" for value in options.mean_value)
    taken = f"input: BGR, 0 to 255, minus {options.mean_file or mean}, times {options.scale:.8g}"
    given = f"output: prob, {options.num_classes} class probabilities"
    return [_about(options), f"{taken}; {given}"]
