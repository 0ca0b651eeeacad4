"""Options that say which model is used, what it is fed with, and what runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe.cli.option_sections import section
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from irv2caffe.inference.finding import PreprocessingOptions

_PATH = click.Path(path_type=Path)
_model = section("Model")
_input = section("Input of the net")
_engine = section("Engine")

MODEL_OPTIONS = (
    _model(
        "--net",
        type=_PATH,
        metavar="PROTOTXT",
        help="Net of the weights, a deploy or a train_val net.  [default: of the run, or beside "
        "the weights]",
    ),
    _model(
        "--labels",
        type=_PATH,
        metavar="FILE|DB",
        help="Class names, one per line, or a database with labels.txt.  [default: of the run's "
        "database, or beside the weights]",
    ),
    _model(
        "--snapshot",
        metavar="best|last|N",
        default="best",
        show_default=True,
        help="Snapshot of a run; N is an iteration.",
    ),
)
INPUT_OPTIONS = (
    _input(
        "--mean-value",
        metavar="M|B,G,R",
        help="Mean subtracted from the channels B, G and R, from 0 to 255.  [default of this and the "
        "following: as in training, by the files of the model]",
    ),
    _input("--mean-file", type=_PATH, metavar="FILE", help="Mean image (.binaryproto)."),
    _input("--scale", type=float, metavar="FACTOR", help="Factor after subtracting the mean."),
    _input(
        "--resize",
        metavar="N|WxH|none",
        help="Size that images are resized to before the centre is cut out, as make-lmdb --resize.",
    ),
    _input(
        "--resize-mode",
        type=click.Choice(["squash", "short-side", "center-crop", "fill"]),
        help="How, as make-lmdb --resize-mode.",
    ),
    _input(
        "--interpolation",
        type=click.Choice(["linear", "area", "cubic", "lanczos", "nearest"]),
        help="As make-lmdb --interpolation.",
    ),
)
ENGINE_OPTIONS = (
    _engine(
        "--engine",
        type=click.Choice(["caffe", "torch"]),
        default="caffe",
        show_default=True,
        help="What runs the net: pycaffe, or the torch engine.",
    ),
    _engine(
        "--gpus",
        metavar="N|none",
        default="none",
        show_default=True,
        help="Number of the GPU, or none for the CPU.",
    ),
    _engine("--caffe", type=_PATH, metavar="PATH", help="Caffe folder or program to use."),
)


def preprocessing_options(given: dict[str, Any]) -> PreprocessingOptions:
    """Takes the options of the input out of those of a command.

    Raises:
        UsageError: values that cannot be read.
    """
    from irv2caffe.inference.finding import PreprocessingOptions

    resize, mode = given.pop("resize"), given.pop("resize_mode")
    if resize == "none":
        if mode is not None:
            raise UsageError("--resize none and --resize-mode exclude each other")
        resize, mode = None, "none"
    return PreprocessingOptions(
        mean_value=_numbers(given.pop("mean_value")),
        mean_file=given.pop("mean_file"),
        scale=given.pop("scale"),
        resize=_size(resize),
        resize_mode=mode,
        interpolation=given.pop("interpolation"),
    )


def _numbers(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise UsageError(f"--mean-value {text}: give M or B,G,R, such as 104,117,123") from error


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and 0 < int(side) <= 10_000 for side in sides):
        raise UsageError(f"--resize {text}: give a side such as 328, WIDTHxHEIGHT, or none")
    return int(sides[0]), int(sides[-1])
