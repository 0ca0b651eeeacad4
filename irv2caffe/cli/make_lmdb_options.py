"""The options of make-lmdb, by section."""

from __future__ import annotations

from pathlib import Path

import click

from irv2caffe.cli.option_sections import section
from irv2caffe.data.options import CLASS_ORDERS, INTERPOLATIONS, KINDS, MEANS, RESIZE_MODES

_PATH = click.Path(path_type=Path)
_source = section("Source options")
_validation = section("Validation options")
_images = section("Image options")
_order = section("Order and augmentation")
_output = section("Output options")
_report = section("Other")

MAKE_LMDB_OPTIONS = (
    _source(
        "--list",
        "list_file",
        type=_PATH,
        metavar="FILE",
        help="Text file with one image per line: PATH LABEL, paths relative to SOURCE.",
    ),
    _source(
        "--labels",
        type=_PATH,
        metavar="PATH",
        help="Class names in order of their labels: a labels.txt, or a database that has one. Use "
        "the training database here when building the validation database.",
    ),
    _source(
        "--class-order",
        type=click.Choice(CLASS_ORDERS),
        default="auto",
        show_default=True,
        help="Order of the class folders, which numbers the labels from 0. text: alphabetical. "
        "number: by the numbers in their names. auto: number if they are called 0 to N or 1 to N, "
        "else text.",
    ),
    _source(
        "--kind",
        type=click.Choice(KINDS),
        help="Format of SOURCE.  [default: detected]",
    ),
    _source(
        "--split",
        type=click.Choice(["train", "val"]),
        help="Part to read if SOURCE holds both, as CIFAR and MNIST do.",
    ),
    _source(
        "--devkit",
        type=_PATH,
        metavar="PATH",
        help="Labels of the ILSVRC validation images: the development kit ILSVRC2012_devkit_t12 "
        "(archive or folder), or only its ILSVRC2012_validation_ground_truth.txt.  "
        "[default: searched beside SOURCE]",
    ),
    _validation(
        "--val-fraction",
        type=float,
        metavar="SHARE",
        help="Set this share of every class aside, such as 0.1, and build a validation database "
        "of it too. Images with the same bytes stay on one side.",
    ),
    _validation(
        "--val-out",
        type=_PATH,
        metavar="DIR",
        help="Validation database of --val-fraction.  [default: OUT with val for the word train, "
        "else OUT-val]",
    ),
    _images(
        "--resize",
        default="328",
        show_default=True,
        metavar="N|WxH|none",
        help="Size of the stored images in pixels: N for NxN, WIDTHxHEIGHT, or none to keep their "
        "size. Leave room for random crops, about a tenth more than build-net --crop: 328 for "
        "299, 82 for 75.",
    ),
    _images(
        "--resize-mode",
        type=click.Choice(RESIZE_MODES),
        default="squash",
        show_default=True,
        help="How to reach that size. squash: ignore the aspect ratio, as convert_imageset does. "
        "short-side: scale the shorter side to N. center-crop: short-side, then cut out the "
        "middle. fill: scale the longer side and pad with gray. none: do not resize.",
    ),
    _images(
        "--interpolation",
        type=click.Choice(INTERPOLATIONS),
        default="linear",
        show_default=True,
        help="Interpolation for resizing; convert_imageset uses linear.",
    ),
    _images(
        "--encoded",
        type=click.Choice(["jpg", "png", "none"]),
        default="none",
        show_default=True,
        help="Compression of the stored images; none stores raw pixels, which are larger and "
        "faster to read.",
    ),
    _images(
        "--quality",
        type=int,
        metavar="1..100",
        default=95,
        show_default=True,
        help="JPEG quality for --encoded jpg.",
    ),
    _images("--gray", is_flag=True, help="Store one channel instead of three."),
    _images(
        "--bit-depth",
        type=int,
        metavar="8..16",
        help="Bits used by the values of 16-bit images, which are scaled to 8.  [default: 16]",
    ),
    _images(
        "--fast-decode",
        is_flag=True,
        help="Decode large JPEG files at reduced size: faster, with slightly different pixels.",
    ),
    _images(
        "--exactly-like-caffe",
        is_flag=True,
        help="Accept every image that convert_imageset accepts, even damaged ones.",
    ),
    _images(
        "--mean",
        type=click.Choice(MEANS),
        default="auto",
        show_default=True,
        help="How to compute the mean of the images. exact: from the stored images. fast: from "
        "the pixels before JPEG compression. auto: exact for the first 1,000 images, then fast.",
    ),
    _order(
        "--shuffle/--no-shuffle",
        default=None,
        help="Shuffle the records; Caffe reads them in stored order in every epoch.  [default: "
        "shuffle, except validation sets]",
    ),
    _order(
        "--seed",
        type=int,
        metavar="N",
        default=1,
        show_default=True,
        help="Seed for --val-fraction, shuffling and augmentation.",
    ),
    _order(
        "--copies",
        type=int,
        metavar="N",
        default=1,
        show_default=True,
        help="Copies of every image, each pass in another order.",
    ),
    _order(
        "--balance",
        is_flag=True,
        help="Store as many records of every class as the largest has, by repeating images of the "
        "others.",
    ),
    _order(
        "--augment",
        type=click.Choice(["none", "inception"]),
        default="none",
        show_default=True,
        help="Store a random crop with changed colors instead of the whole image; each copy gets "
        "its own.",
    ),
    _order(
        "--area",
        metavar="MIN,MAX",
        default="0.05,1",
        show_default=True,
        help="Fraction of the image area that a crop of --augment covers.",
    ),
    _order(
        "--aspect",
        metavar="MIN,MAX",
        default="0.75,1.3333",
        show_default=True,
        help="Width / height of a crop of --augment.",
    ),
    _order(
        "--color/--no-color",
        default=True,
        show_default=True,
        help="Let --augment change brightness and saturation.",
    ),
    _output(
        "--backend",
        type=click.Choice(["native", "convert_imageset"]),
        default="native",
        show_default=True,
        help="Program that writes the database: this one, or Caffe's convert_imageset.",
    ),
    _output(
        "--caffe",
        "flag",
        type=_PATH,
        metavar="PATH",
        help="Caffe whose convert_imageset is used: its folder or program.  [default: see "
        "irv2caffe caffe --which]",
    ),
    _output(
        "--workers",
        type=click.IntRange(0),
        metavar="N",
        default=0,
        help="Number of worker processes.  [default: one per CPU core]",
    ),
    _output(
        "--max-skipped",
        type=click.IntRange(0),
        metavar="N",
        help="Number of unreadable images to tolerate: exit with 0 if there are no more, stop if "
        "there are.  [default: skip any number and exit with 3]",
    ),
    _output(
        "--resume/--no-resume",
        default=True,
        help="Continue an interrupted build from OUT.partial.  [default: resume]",
    ),
    _output("--force", is_flag=True, help="Replace an existing database."),
    _report("--dry-run", is_flag=True, help="Show what would be built; write nothing."),
    _report("--json", "as_json", is_flag=True, help="Print the report as JSON."),
)
