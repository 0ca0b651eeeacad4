"""The command build-net."""

from __future__ import annotations

import itertools
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.cli.build_net_data import read_data, refuse_misfit
from irv2caffe.cli.build_net_options import BUILD_NET_OPTIONS
from irv2caffe.cli.option_sections import SectionCommand, with_options
from irv2caffe.cli.summary import draw_summary, show_summary
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from irv2caffe.net.build import BuiltNet
    from irv2caffe.shapes.summary import NetSummary

_OUTPUT_FLAGS = frozenset({"--force", "--summary", "--json", "--traceback"})


def _floats(name: str, text: str) -> tuple[float, float, float]:
    """Parses one number for all three values, or three separated by commas."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{name} {text}: not a number") from error
    if len(values) not in {1, 3}:
        raise UsageError(f"{name} {text}: give one number, or three as in 0.17,0.10,0.20")
    return (values[0], values[0], values[0]) if len(values) == 1 else (*values,)  # type: ignore[return-value]


_NET_TYPES: dict[str, Callable[[Any], Any]] = {
    "residual_scale": lambda text: None if text == "none" else _floats("--residual-scale", text),
    "class_weights": lambda text: None if text == "none" else text,
    "freeze": lambda text: None if text == "none" else text,
    "mean_value": lambda text: text if text == "database" else _floats("--mean-value", text),
}


@click.command(
    "build-net", cls=SectionCommand, short_help="Write the network and solver prototxts."
)
@with_options(BUILD_NET_OPTIONS)
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
    """Write train_val, deploy and solver prototxts for an Inception-ResNet-v2.

    Options not given follow from the databases and the length of the run, or are set by the recipe,
    then by the variant, then by the defaults shown; values after "paper:" are those of the default
    recipe. --print-config shows every value and where it comes from. Caffe has no epochs: they are
    converted to iterations with the number of training images, the batch size, the number of GPUs
    and iter_size.
    """
    from irv2caffe.config import DEFAULT_RECIPE, load_recipe, parse_gpus
    from irv2caffe.data.inspect.database import shorter_side
    from irv2caffe.net.build import build_net
    from irv2caffe.net.settings import settings

    _check_draw(draw)
    count = {} if gpus is None else {"num_gpus": len(parse_gpus(gpus))}
    given = {**given_options(options), **count}
    values = load_recipe(DEFAULT_RECIPE if recipe is None else recipe)
    data = read_data(values.net, given, num_train_images, num_val_images)
    _say(data.found)
    num_train, side = data.num_train[1], shorter_side(data.train, data.val)
    resolved = settings(values, given, data.measured, num_train=num_train, side=side)
    net, solver = resolved.net, resolved.solver
    if print_config:
        rows = [*net.rows(), data.num_train, data.num_val, *solver.rows()]
        _show_config(rows, as_json=as_json)
        return
    for folder, database in zip(data.folders, (data.train, data.val), strict=True):
        refuse_misfit(folder, database, net.options)
    built = build_net(
        out,
        net.options,
        solver.options,
        num_train=num_train,
        num_val=data.num_val[1],
        **data.classes,
        command=_command(),
        force=force,
    )
    _say(resolved.derived_lines())
    _show_built(built, summary=summary, draw=draw, as_json=as_json)
    ui.say_next("train", "--solver", built.solver, *(() if gpus is None else ("--gpus", gpus)))


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        ui.say(line)


def _check_draw(draw: Path | None) -> None:
    if draw is not None:
        from irv2caffe.shapes.draw.picture import check_suffix

        check_suffix(draw)


def _show_built(built: BuiltNet, *, summary: bool, draw: Path | None, as_json: bool) -> None:
    """Prints the written files, and the summary and picture if they were requested."""
    made = _summary(built.train_val) if summary or draw is not None else None
    if made is not None and draw is not None:
        draw_summary(made, draw)
    if as_json:
        from irv2caffe.shapes.summary_json import as_dict

        of_net = {"summary": as_dict(made)} if made is not None and summary else {}
        ui.show_json({**asdict(built), **of_net})
        return
    for path in built.files():
        ui.show(str(path))
    _say([*built.notes, *built.schedule.arithmetic()])
    _say(f"warning: {line}" for line in built.warnings)
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


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the given options as values of NetOptions and SolverOptions."""
    given = {
        name: _NET_TYPES.get(name, lambda value: value)(value)
        for name, value in options.items()
        if value is not None
    }
    if "mean_value" in given and "mean_file" in given:
        raise UsageError("--mean-value and --mean-file exclude each other")
    return given


def _command() -> str:
    """Returns the command line for the headers, without options that do not change the files."""
    words = ["irv2caffe"]
    for before, word in itertools.pairwise(sys.argv):
        if word not in _OUTPUT_FLAGS and before != "--draw" and not word.startswith("--draw"):
            words.append(word)
    return shlex.join(words)
