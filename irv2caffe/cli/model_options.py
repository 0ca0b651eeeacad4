"""The options of commands that use a trained net: which files, what to feed, what runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from irv2caffe.cli.option_sections import section
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from irv2caffe.inference.finding import PreprocessingOptions

_model = section("Model options")
_where = section("Engine options")
_PATH = click.Path(path_type=Path)

MODEL_OPTIONS = (
    _model(
        "--snapshot",
        default="best",
        show_default=True,
        metavar="best|last|N",
        help="Snapshot of a run: the best by its tests, the last, or that of iteration N.",
    ),
    _model(
        "--net",
        type=_PATH,
        metavar="FILE",
        help="Net of the weights.  [default: beside or above the .caffemodel]",
    ),
    _model(
        "--labels",
        type=_PATH,
        metavar="FILE",
        help="Class names, one per line.  [default: of the training database or of the bundle]",
    ),
    _model(
        "--mean-value",
        metavar="M|B,G,R",
        help="Mean subtracted from the channels.  [default for this and the next three: as in "
        "training]",
    ),
    _model("--mean-file", type=_PATH, metavar="FILE", help="Mean image (.binaryproto) instead."),
    _model("--scale", type=float, metavar="FACTOR", help="Factor after the mean was subtracted."),
    _model(
        "--resize",
        metavar="SIDE|WxH",
        help="Size that image files are resized to before the crop; databases are used as stored.",
    ),
)
ENGINE_OPTIONS = (
    _where(
        "--engine",
        type=click.Choice(["caffe", "torch"]),
        default="caffe",
        show_default=True,
        help="Program that runs the net: pycaffe of the Caffe that was found, or PyTorch.",
    ),
    _where(
        "--gpus",
        metavar="none|N",
        default="none",
        show_default=True,
        help="GPU that runs the net; none is the CPU.",
    ),
    _where(
        "--caffe",
        type=_PATH,
        metavar="PATH",
        help="Caffe to use: its folder or program.  [default: see irv2caffe caffe --which]",
    ),
)


def preprocessing_options(
    mean_value: str | None, mean_file: Path | None, scale: float | None, resize: str | None
) -> PreprocessingOptions:
    """What the user says of the preprocessing.

    Raises:
        UsageError: not numbers.
    """
    from irv2caffe.inference.finding import PreprocessingOptions

    values: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None
    try:
        if mean_value is not None:
            values = tuple(float(word) for word in mean_value.split(","))
    except ValueError as error:
        raise UsageError(f"--mean-value {mean_value}: give one number, or B,G,R") from error
    if resize is not None:
        sides = [int(word) for word in resize.split("x") if word.isdecimal() and len(word) < 6]
        if len(sides) != len(resize.split("x")) or len(sides) > 2 or not all(sides):
            raise UsageError(f"--resize {resize}: give a side such as 328, or WIDTHxHEIGHT")
        size = (sides[0], sides[-1])
    return PreprocessingOptions(values, mean_file, scale, size)
