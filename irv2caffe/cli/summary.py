"""The command summary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.errors import Irv2CaffeError, NetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.shapes.phases import Phase
    from irv2caffe.shapes.summary import NetSummary


@click.command("summary", short_help="Show a net's layers, parameters and memory.")
@click.argument("prototxt", type=click.Path(path_type=Path))
@click.option("--layers", is_flag=True, help="Print every layer instead of groups of layers.")
@click.option(
    "--phase",
    type=click.Choice(["train", "test"]),
    help="Phase of the net to show.  [default: train if the net has a loss, else test]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Batch size.  [default: from the prototxt]",
)
@click.option(
    "--input-shape",
    "input_shapes",
    multiple=True,
    metavar="TOP=3x299x299",
    help="Shape of an input that the prototxt does not give, such as the size of uncropped images: "
    "CHANNELSxHEIGHTxWIDTH.  Repeatable.",
)
@click.option(
    "--layer-type",
    "layer_types",
    multiple=True,
    metavar="NAME=SHAPE",
    help="Output shape of a layer, or of all layers of a type, that Caffe 1.0 does not have: same "
    "(as its bottom), scalar, or sizes such as 1x256x7x7, in which N, C, H and W stand for those "
    "of its first bottom (NxCx2Hx2W); separate several tops with commas.  Repeatable.",
)
@click.option(
    "--draw",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the network: .svg, .png or .pdf.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def summary_command(
    prototxt: Path,
    layers: bool,
    phase: str | None,
    batch_size: int | None,
    input_shapes: tuple[str, ...],
    layer_types: tuple[str, ...],
    draw: Path | None,
    as_json: bool,
) -> None:
    """Show a net's layers, output sizes, parameters, multiply-adds and memory.

    PROTOTXT is any Caffe net, also in an old format; Caffe itself is not needed. Layer types and
    fields of Caffe forks (SSD, Faster R-CNN, SegNet ...) are handled as far as they are known;
    totals may then be lower bounds ("at least").
    """
    from irv2caffe.proto.fork_nets import read_fork_net
    from irv2caffe.shapes.infer import ForkLayers
    from irv2caffe.shapes.summary import default_phase, summarize
    from irv2caffe.shapes.summary_json import as_dict

    if draw is not None:
        from irv2caffe.shapes.draw.picture import check_suffix

        check_suffix(draw)
    given = dict(map(_parse_input_shape, input_shapes))
    names: set[str] = set()  # that --input-shape may use
    types = dict(map(_parse_layer_type, layer_types))
    read = read_fork_net(prototxt)
    default = default_phase(read.net)
    chosen: Phase = phase.upper() if phase else default  # type: ignore[assignment]
    try:
        made = summarize(
            read.net,
            chosen,
            batch_size,
            data_shapes=lambda layer: _record_shapes(layer, given, names),
            lines=read.lines,
            path=prototxt,
            foreign=ForkLayers(types, read.nodes),
        )
    except NetError as error:  # ignored fields may be the cause
        error.hint = "; ".join(filter(None, (error.hint, *read.notes(_fork_of_field))))
        raise
    for name in given:
        if name not in names:
            raise UsageError(
                f"--input-shape {name}: no input of the net in {chosen} has that name",
                f"the inputs are called {', '.join(sorted(names)) or 'nothing'}",
            )
    made = _with_fork_notes(made, read.notes(_fork_of_field), types)
    if draw is not None:
        draw_summary(made, draw)
    if as_json:
        ui.show_json(as_dict(made, layers=layers))
    else:
        show_summary(made, layers=layers)


def show_summary(made: NetSummary, *, layers: bool = False) -> None:
    """Prints a net's figures; build-net does so, too."""
    from irv2caffe.shapes.summary import HEADINGS, LAYER_HEADINGS, NUMBERS

    ui.show(f"{made.shapes.name or 'net'}, phase {made.shapes.phase}, batch {made.batch}")
    headings = LAYER_HEADINGS if layers else HEADINGS
    ui.show_table(headings, made.rows(layers=layers), right=NUMBERS)
    for line in made.lines():
        ui.show(line)


def draw_summary(made: NetSummary, out: Path) -> None:
    """Writes a net's picture and prints its path; build-net does so, too."""
    from irv2caffe.shapes.draw import draw
    from irv2caffe.shapes.draw.picture import write_picture

    write_picture(draw(made), out)
    ui.say(f"picture: {out}")


def _with_fork_notes(
    made: NetSummary, notes: Sequence[str], types: dict[str, tuple[str, ...]]
) -> NetSummary:
    """Adds notes of what Caffe 1.0 does not have, and which fork has it.

    Raises:
        UsageError: a ``--layer-type`` that the net does not have, or that Caffe 1.0 has.
    """
    from irv2caffe.shapes.layer_types import SHAPE_RULES

    layers = made.shapes.layers
    for name in types:
        if not any(name in {layer.name, layer.type} for layer in layers):
            raise UsageError(
                f"--layer-type {name}: no layer has that type or name in {made.shapes.phase}"
            )
        if name in SHAPE_RULES and name != "Python":
            raise UsageError(f"--layer-type {name}: Caffe 1.0 has it, and its tops are known")
    unknown = dict.fromkeys(layer.type for layer in layers if layer.type not in SHAPE_RULES)
    if unknown:
        from irv2caffe.check import fork_fields  # slow to import, and seldom needed

        forks = {name: fork_fields.LAYER_TYPES.get(name, "").rstrip(",") for name in unknown}
        listed = [name[:60] + (f" ({fork})" if fork else "") for name, fork in forks.items()]
        notes = (*notes, f"Caffe 1.0 cannot load this net: it has no {', '.join(listed)}")
    return replace(made, shapes=replace(made.shapes, notes=(*made.shapes.notes, *notes)))


def _fork_of_field(message: str, name: str) -> str:
    from irv2caffe.check import fork_fields

    return fork_fields.of_field(message, name)


def _parse_layer_type(value: str) -> tuple[str, tuple[str, ...]]:
    """Parses ``Normalize=same`` or ``Foo=1x256x7x7,scalar``."""
    from irv2caffe.shapes.layer_types.given import is_shape_text

    name, _, shapes = value.rpartition("=")
    tops = tuple(shapes.split(","))
    if not name or not all(map(is_shape_text, tops)):
        raise UsageError(
            f"--layer-type {value}: give NAME=same or NAME=SHAPE",
            "SHAPE is scalar, or sizes such as 1x256x7x7 or NxCx2Hx2W; a comma between tops",
        )
    return name, tops


def _parse_input_shape(value: str) -> tuple[str, tuple[int, ...]]:
    """Parses ``TOP=3x299x299`` or ``TOP=3,299,299``."""
    name, _, sizes = value.rpartition("=")
    parts = sizes.replace(",", "x").split("x")
    if not name or not all(p.isdecimal() and len(p) < 20 and int(p) > 0 for p in parts):
        raise UsageError(f"--input-shape {value}: give TOP=CHANNELSxHEIGHTxWIDTH")
    return name, tuple(map(int, parts))


def _record_shapes(
    layer: Any, given: dict[str, tuple[int, ...]], names: set[str]
) -> Sequence[tuple[int, ...]] | None:
    """The shapes that the user gives for a layer's tops, else that of its database's records.

    Adds the names that ``--input-shape`` may use for the layer to ``names``.
    """
    from irv2caffe.shapes.layer_types import SHAPE_RULES, UNKNOWN

    names.update((*layer.top, layer.name))
    shapes = [given[name] for name in layer.top if name in given]
    if not shapes and layer.name in given:
        shapes = [given[layer.name]]
    if shapes and layer.type not in SHAPE_RULES:  # the user need not give all of its tops
        return [given.get(name, UNKNOWN) for name in layer.top]
    if shapes:
        return shapes
    if layer.type != "Data" or layer.transform_param.crop_size:
        return None
    from irv2caffe.data.inspect.database import read_database

    source = Path(layer.data_param.source)
    if not source.exists():
        return None
    try:
        return [read_database(source).shape]
    except Irv2CaffeError as error:
        ui.say(f"warning: {error.message}")
        return None
