"""The commands import-weights and export-weights."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from irv2caffe import ui
from irv2caffe.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from irv2caffe.weights import ExportReport, ImportReport

_CHANNELS = click.Choice(["bgr", "rgb"])


@contextmanager
def _problems_listed() -> Iterator[None]:
    """Prints all problems of weights before the error that counts them."""
    try:
        yield
    except WeightsError as error:
        for problem in error.problems:
            ui.say(problem)
        raise


def _path_option(name: str, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(name, type=click.Path(path_type=Path), required=True, help=text)


@click.command("import-weights", short_help="Convert timm, Keras or TF-slim weights to Caffe.")
@click.argument("source", type=click.Path(path_type=Path))
@_path_option("--net", "Prototxt of the net: deploy.prototxt or train_val.prototxt.")
@_path_option("--out", "The .caffemodel to write.")
@click.option(
    "--format",
    "source_format",
    type=click.Choice(["auto", "timm", "keras", "tf-slim"]),
    default="auto",
    show_default=True,
    help="Format of SOURCE.",
)
@click.option(
    "--channels",
    type=_CHANNELS,
    default="bgr",
    show_default=True,
    help="Channel order of the net's input; databases from make-lmdb are bgr.",
)
@click.option(
    "--ema",
    is_flag=True,
    help="Import the moving averages of the weights (EMA) from a training checkpoint.",
)
@click.option(
    "--without-classifier",
    is_flag=True,
    help="Leave out the classifier, to train it on other classes.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def import_weights_command(
    source: Path,
    net: Path,
    out: Path,
    source_format: str,
    channels: str,
    ema: bool,
    without_classifier: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Convert timm, Keras or TF-slim weights to a .caffemodel for a net of variant slim.

    SOURCE is a timm state dict (.safetensors, .pth, .pt, .bin), a Keras file (.h5, .keras) or a
    TF-slim checkpoint (its file, or the common prefix of its files). .pth, .pt and .bin need the
    extra torch, all others the extra weights: pip install '.[weights]'. If weights do not fit the
    net, all mismatches are listed. TF-slim's class 0 of 1001, the background, is left out for a
    net with 1000 classes.
    """
    from irv2caffe.weights import import_weights

    with _problems_listed():
        report = import_weights(
            source,
            net,
            out,
            source_format=source_format,
            channels=channels,
            averaged=ema,
            without_classifier=without_classifier,
            force=force,
        )
    if as_json:
        ui.show_json(asdict(report))
        return
    classes = f"{report.num_classes:,} classes" if report.num_classes else "no classifier"
    ui.show(
        f"{report.out}: {report.num_parameters:,} parameters from {report.source_format}, "
        f"{classes}, {ui.format_bytes(report.size_bytes)}"
    )
    for line in _import_notes(report):
        ui.say(line)


def _import_notes(report: ImportReport) -> Iterator[str]:
    """What the user should know about the result."""
    gray = report.channels == "gray"
    order = "gray" if gray else report.channels.upper()
    yield f"input: {order}, 0 to 255, minus 127.5, times {1 / 127.5:.10f}"
    if gray:
        yield (
            "the net takes one channel: the first convolution's weights of the three colours are "
            "summed, so that a gray image gives what it gives in colour"
        )
    if report.prefix:
        yield f"the names in the source begin with {report.prefix}, which was removed"
    if report.dropped_background:
        yield "class 0 of the source, the background, is left out: all labels are one lower"
    if report.gamma == "ones":
        yield "the source has no BatchNorm multiplier: gamma is 1"
    if report.by_order:
        yield "the net's layers have other names; they were recognised by their order"
    if report.left_to_fillers:
        yield f"left to the fillers: {', '.join(report.left_to_fillers)}"
    if report.unused:
        yield f"{_some(report.unused)}: not used by this net"
    if report.num_ignored:
        yield f"{_arrays(report.num_ignored)} that only training needs: left out"
    for difference in report.differences:
        yield f"warning: other logits: {difference}"


@click.command("export-weights", short_help="Convert a .caffemodel to timm weights.")
@click.argument("model", type=click.Path(path_type=Path))
@_path_option("--net", "Prototxt of the net: deploy.prototxt or train_val.prototxt.")
@_path_option(
    "--out",
    "The file to write: .safetensors (needs the extra weights), .pth or .pt (the extra torch).",
)
@click.option(
    "--format",
    "target_format",
    type=click.Choice(["timm"]),
    default="timm",
    show_default=True,
    help="Format of the output.",
)
@click.option(
    "--channels",
    type=_CHANNELS,
    default="bgr",
    show_default=True,
    help="Channel order of the net's input; databases from make-lmdb are bgr.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def export_weights_command(
    model: Path,
    net: Path,
    out: Path,
    target_format: str,
    channels: str,
    force: bool,
    as_json: bool,
) -> None:
    """Convert a .caffemodel to a state dict for timm's inception_resnet_v2.

    Weights imported from timm are exported unchanged, bit by bit. BatchNorm's mean and variance
    are divided by Caffe's stored scale factor.
    """
    from irv2caffe.weights import export_weights

    del target_format  # timm is the only one
    with _problems_listed():
        report = export_weights(model, net, out, channels=channels, force=force)
    if as_json:
        ui.show_json(asdict(report))
        return
    ui.show(f"{report.out}: {report.num_parameters:,} parameters, {report.num_classes:,} classes")
    for line in _export_notes(report):
        ui.say(line)


def _export_notes(report: ExportReport) -> Iterator[str]:
    yield "input: RGB from -1 to 1, as timm's own weights want it"
    if report.by_order:
        yield "the net's layers have other names; they were recognised by their order"
    if report.unused:
        yield f"not in timm's model: {', '.join(report.unused)}"
    if report.empty_statistics:
        count = len(report.empty_statistics)
        yield f"BatchNorm layers with the statistics of no image, variance 0: {count}"


def _some(names: list[str]) -> str:
    """The number of arrays and the name of one."""
    return f"{_arrays(len(names))} such as {names[0]}"


def _arrays(count: int) -> str:
    return f"{count:,} array{'s' if count > 1 else ''}"
