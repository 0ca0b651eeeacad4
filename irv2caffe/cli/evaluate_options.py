"""The options of evaluate, by section."""

from __future__ import annotations

from pathlib import Path

import click

from irv2caffe.cli.model_options import ENGINE_OPTIONS, MODEL_OPTIONS
from irv2caffe.cli.option_sections import section

_data = section("Data options")
_how = section("Evaluation options")
_norm = section("BatchNorm options")
_other = section("Other")
_PATH = click.Path(path_type=Path)
_COUNT = click.IntRange(min=1)

EVALUATE_OPTIONS = (
    _data(
        "--lmdb",
        type=_PATH,
        metavar="DB",
        help="Database to evaluate on.  [default: that of the net's TEST data layer]",
    ),
    _data(
        "--list",
        "list_file",
        type=_PATH,
        metavar="FILE",
        help="Lines of PATH LABEL for the images of FOLDER.",
    ),
    _data(
        "--on",
        type=click.Choice(["val", "train"]),
        default="val",
        show_default=True,
        help="Database of the net: train is the one it was trained with, in phase TEST. A high "
        "error there: training and test do not compute the same; a low one: it overfits.",
    ),
    _data("--limit", type=_COUNT, metavar="N", help="Evaluate N images, chosen at random."),
    _data(
        "--seed",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        metavar="N",
        help="Seed of the choice of images.",
    ),
    _how(
        "--crops",
        type=click.Choice(["1", "10", "12", "144"]),
        default="1",
        show_default=True,
        help="Views of each image, whose probabilities are averaged.",
    ),
    _how(
        "--batch-size",
        type=_COUNT,
        metavar="N",
        help="Images in a batch.  [default: that of the net's TEST data layer, else 16]",
    ),
    _how(
        "--out",
        type=_PATH,
        metavar="DIR",
        help="Folder for the page, pictures, contact sheets, CSV and JSON; an earlier one of "
        "evaluate is replaced.",
    ),
    _norm(
        "--test-batch-sizes",
        metavar="N,N...",
        help="Evaluate with these batch sizes too, for nets whose BatchNorm normalizes each TEST "
        "batch by itself.",
    ),
    _norm(
        "--reestimate-bn",
        type=_COUNT,
        metavar="N",
        help="Average BatchNorm's statistics over N training batches, write them to a new model, "
        "and evaluate that too.",
    ),
    _norm(
        "--model-out",
        type=_PATH,
        metavar="FILE",
        help="The new model of --reestimate-bn.  [default: reestimated.caffemodel]",
    ),
    *MODEL_OPTIONS,
    *ENGINE_OPTIONS,
    _other("--json", "as_json", is_flag=True, help="Print the result as JSON."),
)
