"""Writes the prototxts of a run: train_val, deploy and solver."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe import __version__
from irv2caffe.atomic import refuse_existing
from irv2caffe.net.class_weights import class_weights, weights_text
from irv2caffe.net.inception_resnet_v2 import deploy, train_val
from irv2caffe.net.infogain import needs_infogain, write_infogain
from irv2caffe.net.input_sizes import Grids, check_crop
from irv2caffe.net.mean_file import check_mean_file
from irv2caffe.net.solver import Schedule, plan_schedule, solver
from irv2caffe.proto.text import write_prototxt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from irv2caffe.config import NetOptions, SolverOptions

_SMALLEST_TEST_BATCH = 8


@dataclass(frozen=True)
class BuiltNet:
    """The files that build-net wrote.

    Attributes:
        train_val: the network of both phases.
        deploy: the network for use.
        solver: the solver.
        infogain: the matrix of label smoothing and class weights, or None without them.
        schedule: the run in iterations.
        notes: one line for each thing that is set for this data.
        warnings: one line for each thing to know before using the net.
    """

    train_val: Path
    deploy: Path
    solver: Path
    infogain: Path | None
    schedule: Schedule
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def files(self) -> list[Path]:
        """All files."""
        paths = (self.train_val, self.deploy, self.solver, self.infogain)
        return [path for path in paths if path is not None]


def build_net(
    out: Path,
    net_options: NetOptions,
    solver_options: SolverOptions,
    *,
    num_train: int,
    num_val: int,
    class_counts: Sequence[int] = (),
    class_names: Sequence[str] = (),
    command: str = "",
    force: bool = False,
) -> BuiltNet:
    """Writes ``train_val.prototxt``, ``deploy.prototxt`` and ``solver.prototxt`` into a folder.

    The same options give the same bytes. Everything is checked before the first file is written.
    Label smoothing and class weights add ``infogain.binaryproto``.

    Args:
        out: the folder; made if missing.
        net_options: the network.
        solver_options: the run in epochs.
        num_train: training images.
        num_val: validation images.
        class_counts: training images of each class; empty if not known.
        class_names: empty if not known.
        command: the command line, for the header of each file.
        force: replace existing files.

    Raises:
        UsageError: options that Caffe would refuse.
        FormatError: a file of class weights that does not fit, or a bad mean file.
        OutputExistsError: one of the files exists and ``force`` is not set.
        OutputError: the folder cannot be written.
    """
    grids = _check_input(net_options)
    schedule = plan_schedule(
        solver_options,
        num_train=num_train,
        num_val=num_val,
        batch_size=net_options.batch_size,
        test_batch_size=net_options.test_batch_size,
        flavor=net_options.flavor,
    )
    weights = class_weights(
        net_options.class_weights, net_options.num_classes, class_counts, class_names
    )
    built = _built(out, net_options, schedule, grids, weights_text(weights, class_names))
    prefix = str(out / f"irv2_{net_options.variant}")
    _write(
        built,
        net_options,
        solver(solver_options, schedule, net=str(built.train_val), snapshot_prefix=prefix),
        [f"irv2caffe {__version__}", *([command] if command else [])],
        weights,
        force=force,
    )
    return built


def _built(
    out: Path, options: NetOptions, schedule: Schedule, grids: Grids, about_weights: str
) -> BuiltNet:
    """The files to write."""
    return BuiltNet(
        train_val=out / "train_val.prototxt",
        deploy=out / "deploy.prototxt",
        solver=out / "solver.prototxt",
        infogain=out / "infogain.binaryproto" if needs_infogain(options) else None,
        schedule=schedule,
        notes=tuple(filter(None, [about_weights])),
        warnings=tuple(_warnings(options, schedule, grids)),
    )


def _check_input(options: NetOptions) -> Grids:
    """Refuses crops and mean images that Caffe would refuse."""
    grids = check_crop(options)
    if options.mean_file is not None:
        check_mean_file(Path(options.mean_file), options.crop, options.channels)
    return grids


def _write(
    built: BuiltNet,
    options: NetOptions,
    solver_: Any,
    origin: list[str],
    weights: Sequence[float],
    *,
    force: bool,
) -> None:
    """Writes all files; ``origin`` begins the header of each."""
    schedule = built.schedule
    both = train_val(
        options,
        schedule.test_batch_size,
        num_gpus=schedule.num_gpus,
        infogain=str(built.infogain),
    )
    use = deploy(options)
    if not force:
        refuse_existing(*built.files())
    if built.infogain is not None:
        write_infogain(built.infogain, options.num_classes, options.label_smoothing, weights)
    about, lines = _about(options), schedule.arithmetic()
    write_prototxt(
        built.train_val, both, header="\n".join([*origin, about, *built.notes, *lines[:2]])
    )
    about_use = [*origin, about, _about_use(options)]
    write_prototxt(built.deploy, use, header="\n".join(about_use))
    write_prototxt(built.solver, solver_, header="\n".join([*origin, *lines]))


def _warnings(options: NetOptions, schedule: Schedule, grids: Grids) -> Iterator[str]:
    if grids.rounded_up:
        yield (
            f"crop {options.crop} gives other grids than TensorFlow's, since Caffe's pooling "
            f"rounds up in {', '.join(grids.rounded_up)}: published weights do not fit as well"
        )
    if schedule.num_val > 1000 and schedule.test_batch_size < _SMALLEST_TEST_BATCH:
        yield (
            f"the {schedule.num_val:,} validation images have no divisor between "
            f"{_SMALLEST_TEST_BATCH} and 50; batches of {schedule.test_batch_size} test slowly"
        )


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


def _about_use(options: NetOptions) -> str:
    means = options.mean_value[: options.channels]
    mean = options.mean_file or " ".join(f"{value:g}" for value in means)
    order = "BGR" if options.channels == 3 else "gray"
    return (
        f"input: {order}, 0 to 255, minus {mean}, times {options.scale:.8g}; "
        f"output: prob, {options.num_classes} class probabilities"
    )
