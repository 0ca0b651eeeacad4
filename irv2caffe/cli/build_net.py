"""build-net."""

from __future__ import annotations

import itertools
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.cli.build_net_data import database_means, num_images, refuse_misfit
from irv2caffe.cli.help import Command, section
from irv2caffe.cli.summary import draw_summary, show_summary
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from irv2caffe.net.build import BuiltNet
    from irv2caffe.shapes.summary import NetSummary

_TALK = frozenset({"--force", "--summary", "--json", "--traceback"})
_ILSVRC12 = (1_281_167, 50_000)
_IMAGES = click.IntRange(1)


def _floats(name: str, text: str) -> tuple[float, float, float]:
    """One number for all three, or three separated by commas."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{name} {text}: not a number") from error
    if len(values) not in {1, 3}:
        raise UsageError(f"{name} {text}: give one number, or three as in 0.17,0.10,0.20")
    return (values[0], values[0], values[0]) if len(values) == 1 else (*values,)  # type: ignore[return-value]


_NET_TYPES: dict[str, Callable[[Any], Any]] = {
    "residual_scale": lambda text: None if text == "none" else _floats("--residual-scale", text),
    "mean_value": lambda text: text if text == "database" else _floats("--mean-value", text),
}


_files = section("Files")
_data = section("Data")
_network = section("Network")
_training = section("Training")
_report = section("Other")


@click.command("build-net", cls=Command, short_help="Write train_val, deploy and solver prototxts.")
@_files("--out", type=click.Path(path_type=Path), required=True, help="Folder for the prototxts.")
@_files("--recipe", help="Where values come from: a name or a .toml file.  [paper]")
@_files("--print-config", is_flag=True, help="Show every value and its source; write nothing.")
@_files("--force", is_flag=True, help="Replace the files if they exist.")
@_data("--train-lmdb", help="Training database; gives the number of images and classes.")
@_data("--val-lmdb", help="Validation database.")
@_data("--num-train-images", type=_IMAGES, help="Instead of the database's.  [ILSVRC12's]")
@_data("--num-val-images", type=_IMAGES, help="Instead of the database's.  [ILSVRC12's]")
@_data("--num-classes", type=int, help="Outputs.  [the database's, else 1000]")
@_data("--crop", type=int, help="Side of the input, in pixels.  [299]")
@_data(
    "--mean-value",
    metavar="M|B,G,R|database",
    help="Subtracted from the input; database: the mean that make-lmdb computed.  [127.5]",
)
@_data(
    "--mean-file",
    metavar="FILE|database",
    help="Mean image (.binaryproto) subtracted instead, pixel by pixel.",
)
@_data("--scale", type=float, help="Multiplies the input after that.  [1/127.5]")
@_data("--mirror/--no-mirror", default=None, help="Flip half of the training images.  [yes]")
@_network(
    "--variant",
    metavar="slim|paper|seed|small75|small32",
    help="slim: TF-slim's, with published weights; paper: arXiv 1602.07261; seed: the failing net "
    "of 2016, to the letter; small75, small32: for small images.  [slim]",
)
@_network("--width", type=float, help="Multiplies all numbers of filters.  [1]")
@_network(
    "--residual-scale",
    metavar="S|A,B,C|none",
    help="Of the residual branches, by grid.  [slim 0.17,0.1,0.2; paper 0.1]",
)
@_network("--residual-bn/--no-residual-bn", default=None, help="BatchNorm on the up-projection.")
@_network("--trunk", type=int, help="Of paper: channels of the last grid, 2144 or 2048.")
@_network("--aux/--no-aux", default=None, help="Auxiliary classifier, in training.  [no]")
@_network("--aux-weight", type=float, help="Weight of its loss.  [0.4]")
@_network(
    "--average-pool",
    metavar="tf|caffe",
    help="Mixed_5b's: tf as published weights need it, caffe is one plain layer.  [tf]",
)
@_network("--gamma/--no-gamma", default=None, help="Learn BatchNorm's multiplier.  [yes]")
@_network("--bn-fraction", type=float, help="BatchNorm's moving_average_fraction.  [0.999]")
@_network("--bn-eps", type=float, help="Added to BatchNorm's variance.  [0.001]")
@_network("--dropout", type=float, help="Share of features dropped in training.  [0.2]")
@_network("--label-smoothing", type=float, help="Share spread over all classes, 0.1 say.  [0]")
@_network("--filler", metavar="glorot|xavier|msra", help="How weights start.  [glorot]")
@_network("--flavor", metavar="bvlc|nvcaffe", help="Whose batch_size: per GPU, or of all.  [bvlc]")
@_training("--epochs", type=float, help="Passes over the training set.")
@_training("--batch-size", type=int, help="Images per GPU and iteration.")
@_training("--test-batch-size", type=int, help="Must divide the validation set.")
@_training("--gpus", metavar="none|0,1", help="That will train.  [the recipe's, else none]")
@_training("--iter-size", type=int, help="Batches summed per update.")
@_training("--solver-type", "type", metavar="RMSProp|SGD|Nesterov", help="How weights move.")
@_training("--base-lr", type=float, help="Learning rate at the start.")
@_training("--lr-decay", type=float, help="Multiplies it at every step.")
@_training("--lr-decay-epochs", type=float, help="Epochs between two steps.")
@_training("--momentum", type=float, help="Of SGD and Nesterov.")
@_training("--rms-decay", type=float, help="RMSProp's decay of squared gradients.")
@_training("--delta", type=float, help="RMSProp's epsilon.")
@_training("--weight-decay", type=float, help="L2 regularisation.")
@_training("--clip-gradients", type=float, help="Bound on a batch's gradient norm.")
@_training("--test-epochs", type=float, help="Epochs between two tests.")
@_training("--snapshot-epochs", type=float, help="Epochs between two snapshots.")
@_training("--random-seed", type=int, help="Of fillers and augmentation.")
@_report("--summary", is_flag=True, help="Show stages, parameters, multiply-adds and memory.")
@_report("--draw", type=click.Path(path_type=Path), help="Picture of the net: .svg, .png or .pdf.")
@_report("--json", "as_json", is_flag=True, help="Report as JSON.")
def build_net_command(
    out: Path,
    recipe: str | None,
    num_train_images: int | None,
    num_val_images: int | None,
    gpus: str | None,
    print_config: bool,
    force: bool,
    summary: bool,
    draw: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write train_val, deploy and solver prototxts of an Inception-ResNet-v2.

    Values that are not told come from the recipe, else from the variant, else from the defaults in
    brackets; --print-config shows which. The paper recipe is RMSProp 0.045 for 120 epochs.
    """
    from irv2caffe.config import (
        DEFAULT_RECIPE,
        NetOptions,
        SolverOptions,
        load_recipe,
        parse_gpus,
        resolve,
    )
    from irv2caffe.data.inspect.database import read_pair
    from irv2caffe.net.build import build_net

    if draw is not None:
        from irv2caffe.shapes.draw.picture import check_suffix

        check_suffix(draw)
    told = told_options(options)
    if gpus is not None:
        told["num_gpus"] = len(parse_gpus(gpus))
    values = load_recipe(DEFAULT_RECIPE if recipe is None else recipe)
    places = {**values.net, **told}
    folders = [places.get(name) for name in ("train_lmdb", "val_lmdb")]
    train, val = read_pair(*(Path(folder) if folder else None for folder in folders))
    measured = database_means(told, folders[0], train)
    if train is not None:
        measured["num_classes"] = train.num_classes
    net = resolve(NetOptions, values, told, measured=measured)
    solver = resolve(SolverOptions, values, told)
    num_train = num_images("num_train_images", num_train_images, train, _ILSVRC12[0])
    num_val = num_images("num_val_images", num_val_images, val, _ILSVRC12[1])
    if print_config:
        _show_config([*net.rows(), num_train, num_val, *solver.rows()], as_json=as_json)
        return
    for folder, database in zip(folders, (train, val), strict=True):
        if database is not None:
            refuse_misfit(str(folder), database, net.options)
    built = build_net(
        out,
        net.options,
        solver.options,
        num_train=num_train[1],
        num_val=num_val[1],
        command=_command(),
        force=force,
    )
    _show_built(built, summary=summary, draw=draw, as_json=as_json)


def _show_built(built: BuiltNet, *, summary: bool, draw: Path | None, as_json: bool) -> None:
    """What was written, and what of it was asked for."""
    made = _summary(built.train_val) if summary or draw is not None else None
    if made is not None and draw is not None:
        draw_summary(made, draw)
    if as_json:
        of_net = {"summary": made.as_dict()} if made is not None and summary else {}
        ui.show_json({**asdict(built), **of_net})
        return
    for path in built.files():
        ui.show(str(path))
    for line in built.schedule.arithmetic():
        ui.say(line)
    for line in built.warnings:
        ui.say(f"warning: {line}")
    if made is not None and summary:
        show_summary(made)


def _show_config(rows: list[tuple[str, Any, str]], *, as_json: bool) -> None:
    if as_json:
        ui.show_json({name: {"value": value, "from": source} for name, value, source in rows})
    else:
        ui.show_table(("option", "value", "from"), [(n, str(v), s) for n, v, s in rows])


def _summary(train_val: Path) -> NetSummary:
    from irv2caffe.proto.text import read_net
    from irv2caffe.shapes.summary import summarize

    net, lines = read_net(train_val)
    return summarize(net, "TRAIN", lines=lines, path=train_val)


def told_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were told, as values of NetOptions and SolverOptions."""
    told = {
        name: _NET_TYPES.get(name, lambda value: value)(value)
        for name, value in options.items()
        if value is not None
    }
    if "mean_value" in told and "mean_file" in told:
        raise UsageError("--mean-value and --mean-file: one or the other")
    return told


def _command() -> str:
    """The command line for the headers, without what does not change the files."""
    words = ["irv2caffe"]
    for before, word in itertools.pairwise(sys.argv):
        if word not in _TALK and before != "--draw" and not word.startswith("--draw"):
            words.append(word)
    return shlex.join(words)
