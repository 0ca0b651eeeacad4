"""build-net."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.config.options import FILLERS
from irv2caffe.config.variants import VARIANTS
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_ILSVRC12 = (1_281_167, 50_000)


def _floats(name: str, text: str) -> tuple[float, float, float]:
    """One number for all three, or three separated by commas."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{name} {text}: not a number") from error
    if len(values) not in {1, 3}:
        raise UsageError(f"{name} {text}: give one number, or three as in 0.17,0.10,0.20")
    return (values[0], values[0], values[0]) if len(values) == 1 else (*values,)  # type: ignore[return-value]


def _num_gpus(gpus: str) -> int:
    """How many GPUs ``--gpus`` names; 0 is the CPU."""
    if gpus == "none":
        return 0
    parts = gpus.split(",")
    if not all(part.isdecimal() for part in parts) or len(set(parts)) != len(parts):
        raise UsageError(f"--gpus {gpus}: give none, or different numbers such as 0,1")
    return len(parts)


_NET_TYPES: dict[str, Callable[[Any], Any]] = {
    "residual_scale": lambda text: None if text == "none" else _floats("--residual-scale", text),
    "mean_value": lambda text: _floats("--mean-value", text),
}


@click.command("build-net", short_help="Write train_val, deploy and solver prototxts.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder for the three prototxts."
)
@click.option(
    "--variant",
    metavar="|".join(VARIANTS),
    help="slim: TF-slim's, with published weights; paper: arXiv 1602.07261; seed: the failing net "
    "of 2016; small75, small32: for small images.  [default: slim]",
)
@click.option("--recipe", help="Solver recipe, by name or a .toml file.  [default: paper]")
@click.option("--train-lmdb", help="Training database; gives the number of images and classes.")
@click.option("--val-lmdb", help="Validation database.")
@click.option("--num-train-images", type=int, help="Where no database is given.  [ILSVRC12's]")
@click.option("--num-val-images", type=int, help="Where no database is given.  [ILSVRC12's]")
@click.option("--num-classes", type=int, help="Outputs.  [default: the database's, else 1000]")
@click.option("--crop", type=int, help="Side of the input: 299, or another that fits.")
@click.option("--width", type=float, help="Multiplies all numbers of filters; 0.25 is small.")
@click.option("--residual-scale", metavar="S|A,B,C|none", help="Of the residual branches.")
@click.option(
    "--residual-bn/--no-residual-bn", default=None, help="BatchNorm on the up-projection."
)
@click.option("--trunk", type=int, help="paper: channels of the last grid, 2144 or 2048.")
@click.option("--aux/--no-aux", default=None, help="Auxiliary classifier, in training.")
@click.option("--aux-weight", type=float, help="Weight of its loss.")
@click.option(
    "--average-pool", metavar="tf|caffe", help="Mixed_5b's: as TensorFlow has it, or one layer."
)
@click.option("--gamma/--no-gamma", default=None, help="Learn BatchNorm's multiplier.")
@click.option("--bn-fraction", type=float, help="BatchNorm's moving_average_fraction.")
@click.option("--bn-eps", type=float, help="Added to BatchNorm's variance.")
@click.option("--dropout", type=float, help="Share of features dropped before the classifier.")
@click.option("--label-smoothing", type=float, help="Share spread over all classes: 0.1.")
@click.option("--filler", metavar="|".join(FILLERS), help="How weights start.")
@click.option("--mean-value", metavar="M|B,G,R", help="Subtracted from the input.")
@click.option("--mean-file", help="Mean image (.binaryproto) subtracted instead.")
@click.option("--scale", type=float, help="Multiplies the input after that.")
@click.option("--mirror/--no-mirror", default=None, help="Flip half of the training images.")
@click.option("--flavor", metavar="bvlc|nvcaffe", help="Whose batch_size: per GPU, or of all.")
@click.option("--batch-size", type=int, help="Images per GPU and iteration.")
@click.option("--test-batch-size", type=int, help="Must divide the validation set.")
@click.option("--gpus", metavar="none|0,1", help="That will train.  [the recipe's, else none]")
@click.option("--iter-size", type=int, help="Batches summed per update.")
@click.option("--epochs", type=float, help="Passes over the training set.")
@click.option("--solver-type", "type", metavar="RMSProp|SGD|Nesterov", help="How weights move.")
@click.option("--base-lr", type=float, help="Learning rate at the start.")
@click.option("--lr-decay", type=float, help="Multiplies it at every step.")
@click.option("--lr-decay-epochs", type=float, help="Epochs between two steps.")
@click.option("--momentum", type=float, help="Of SGD and Nesterov.")
@click.option("--rms-decay", type=float, help="RMSProp's decay of squared gradients.")
@click.option("--delta", type=float, help="RMSProp's epsilon.")
@click.option("--weight-decay", type=float, help="L2 regularisation.")
@click.option("--clip-gradients", type=float, help="Bound on a batch's gradient norm.")
@click.option("--test-epochs", type=float, help="Epochs between two tests.")
@click.option("--snapshot-epochs", type=float, help="Epochs between two snapshots.")
@click.option("--random-seed", type=int, help="Of fillers and augmentation.")
@click.option(
    "--print-config", is_flag=True, help="Show every value and its source; write nothing."
)
@click.option("--force", is_flag=True, help="Replace the three files if they exist.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def build_net_command(
    out: Path,
    recipe: str | None,
    num_train_images: int | None,
    num_val_images: int | None,
    gpus: str | None,
    print_config: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write train_val, deploy and solver prototxts of an Inception-ResNet-v2."""
    from irv2caffe.config import DEFAULT_RECIPE, NetOptions, SolverOptions, load_recipe, resolve
    from irv2caffe.data.inspect import dataset_sizes
    from irv2caffe.net.build import build_net

    told = {
        name: _NET_TYPES.get(name, lambda value: value)(value)
        for name, value in options.items()
        if value is not None
    }
    if gpus is not None:
        told["num_gpus"] = _num_gpus(gpus)
    if "mean_value" in told and "mean_file" in told:
        raise UsageError("--mean-value and --mean-file: one or the other")
    sizes = dataset_sizes(told.get("train_lmdb"), told.get("val_lmdb"))
    if sizes.num_classes is not None:
        told.setdefault("num_classes", sizes.num_classes)
    values = load_recipe(recipe or DEFAULT_RECIPE)
    net = resolve(NetOptions, values, told)
    solver = resolve(SolverOptions, values, told)
    if print_config:
        rows = [*net.rows(), *solver.rows()]
        if as_json:
            ui.show_json({name: {"value": value, "from": source} for name, value, source in rows})
        else:
            ui.show_table(("option", "value", "from"), [(n, str(v), s) for n, v, s in rows])
        return
    built = build_net(
        out,
        net.options,
        solver.options,
        num_train=num_train_images or sizes.num_train or _ILSVRC12[0],
        num_val=num_val_images or sizes.num_val or _ILSVRC12[1],
        command=_command(),
        force=force,
    )
    if as_json:
        ui.show_json(asdict(built))
        return
    for path in built.files():
        ui.show(str(path))
    for line in built.schedule.arithmetic():
        ui.say(line)
    for line in built.warnings:
        ui.say(f"warning: {line}")


def _command() -> str:
    """The command line for the headers, without what does not change the files."""
    return shlex.join(["irv2caffe", *(word for word in sys.argv[1:] if word != "--force")])
