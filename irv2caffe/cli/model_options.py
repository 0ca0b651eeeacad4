"""The options of commands that use a trained net: which files, what to feed, what runs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        help="Mean subtracted from the channels.  [default for this and the next five: as in "
        "training]",
    ),
    _model("--mean-file", type=_PATH, metavar="FILE", help="Mean image (.binaryproto) instead."),
    _model("--scale", type=float, metavar="FACTOR", help="Factor after the mean was subtracted."),
    _model(
        "--resize",
        metavar="SIDE|WxH|none",
        help="Size that image files are resized to before the crop; databases are used as stored.",
    ),
    _model(
        "--resize-mode",
        type=click.Choice(["squash", "short-side", "center-crop", "fill"]),
        help="How they are resized, as make-lmdb --resize-mode.",
    ),
    _model(
        "--interpolation",
        type=click.Choice(["linear", "area", "cubic", "lanczos", "nearest"]),
        help="As make-lmdb --interpolation.",
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


def preprocessing_options(given: dict[str, Any]) -> PreprocessingOptions:
    """What the user says of the preprocessing; its options are taken out of ``given``.

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
        raise UsageError(f"--mean-value {text}: give one number, or B,G,R") from error


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.split("x")
    if len(sides) > 2 or not all(re.fullmatch("[1-9][0-9]{0,3}", side) for side in sides):
        raise UsageError(f"--resize {text}: give a side such as 328, WIDTHxHEIGHT, or none")
    return int(sides[0]), int(sides[-1])
