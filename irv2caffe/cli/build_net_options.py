"""The options of build-net, by section."""

from __future__ import annotations

from pathlib import Path

import click

from irv2caffe.cli.build_net_network import NETWORK_OPTIONS
from irv2caffe.cli.option_sections import section

_PATH = click.Path(path_type=Path)
_IMAGES = click.IntRange(1)
_files = section("Files")
_data = section("Data options")
_training = section("Training options")
_report = section("Other")

BUILD_NET_OPTIONS = (
    _files("--out", type=_PATH, metavar="DIR", required=True, help="Folder to write the files to."),
    _files(
        "--recipe",
        metavar="NAME|FILE",
        help="Preset for the options that are not given: paper, paper-sgd, seed, lim0606, "
        "twtygqyy, or a .toml file.  [default: paper]",
    ),
    _files(
        "--print-config", is_flag=True, help="Print every value and its source; write no files."
    ),
    _files("--force", is_flag=True, help="Overwrite existing files."),
    _data(
        "--train-lmdb",
        metavar="DB",
        help="Training database; gives the image and class counts.  [default: train_lmdb, which is "
        "read if it is in this folder]",
    ),
    _data(
        "--val-lmdb",
        metavar="DB",
        help="Validation database; gives the image count.  [default: val_lmdb, likewise]",
    ),
    _data(
        "--num-train-images",
        type=_IMAGES,
        metavar="N",
        help="Number of training images.  [default: counted in --train-lmdb, else 1281167 as in "
        "ILSVRC12]",
    ),
    _data(
        "--num-val-images",
        type=_IMAGES,
        metavar="N",
        help="Number of validation images.  [default: counted in --val-lmdb, else 50000 as in "
        "ILSVRC12]",
    ),
    _data(
        "--num-classes",
        type=int,
        metavar="N",
        help="Number of classes.  [default: from --train-lmdb, else 1000]",
    ),
    _data(
        "--channels",
        type=int,
        metavar="3|1",
        help="Channels of the images: 3 for colour, 1 for databases made with make-lmdb --gray.  "
        "[default: as in --train-lmdb, else 3]",
    ),
    _data(
        "--crop",
        type=int,
        metavar="PIXELS",
        help="Width and height of the network input; training takes random crops of this size. "
        "Sizes such as 299, 331 or 267 (multiples of 32 plus 11) give the same feature maps as "
        "TensorFlow.  [default: 299; small75: 75; small32: 32; auto, and in smaller images: the "
        "largest]",
    ),
    _data(
        "--mean-value",
        metavar="M|B,G,R|database",
        help="Mean subtracted from the channels B, G and R, from 0 to 255; 'database' takes the "
        "mean that make-lmdb computed for --train-lmdb.  [default: 127.5; seed: 104,117,123]",
    ),
    _data(
        "--mean-file",
        metavar="FILE|database",
        help="Mean image (.binaryproto) subtracted instead of --mean-value; 'database' takes the "
        "one that make-lmdb wrote for --train-lmdb.",
    ),
    _data(
        "--scale",
        type=float,
        metavar="FACTOR",
        help="Factor applied after subtracting the mean.  [default: 1/127.5, which maps 0..255 to "
        "-1..1; seed: 1]",
    ),
    _data(
        "--mirror/--no-mirror",
        default=None,
        help="Flip training images horizontally at random.  [default: mirror]",
    ),
    *NETWORK_OPTIONS,
    _training("--epochs", type=float, metavar="N", help="Epochs to train.  [paper: 120]"),
    _training(
        "--batch-size",
        type=int,
        metavar="N",
        help="Training images per GPU and iteration.  [paper: 32]",
    ),
    _training(
        "--test-batch-size",
        type=int,
        metavar="N",
        help="Images per test; must divide the validation set.  [default: chosen from its "
        "divisors]",
    ),
    _training(
        "--gpus",
        metavar="none|0,1",
        help="GPUs used for training; their number sets the iterations per epoch.  [default: "
        "none, the CPU]",
    ),
    _training(
        "--iter-size",
        type=int,
        metavar="N",
        help="Batches accumulated for each weight update.  [paper: 1]",
    ),
    _training(
        "--solver-type",
        "type",
        metavar="TYPE",
        help="Solver type: RMSProp, SGD or Nesterov.  [paper: RMSProp]",
    ),
    _training("--base-lr", type=float, metavar="LR", help="Initial learning rate.  [paper: 0.045]"),
    _training(
        "--lr-decay",
        type=float,
        metavar="FACTOR",
        help="Factor for the learning rate at each step.  [paper: 0.94]",
    ),
    _training(
        "--lr-decay-epochs",
        type=float,
        metavar="N",
        help="Epochs between steps of the learning rate.  [paper: 2; if --epochs is shorter than "
        "the recipe, closer together]",
    ),
    _training(
        "--momentum",
        type=float,
        metavar="M",
        help="Momentum of SGD and Nesterov.  [paper-sgd: 0.9]",
    ),
    _training(
        "--rms-decay",
        type=float,
        metavar="FRACTION",
        help="Decay rate of RMSProp's mean squared gradient.  [paper: 0.9]",
    ),
    _training(
        "--delta",
        type=float,
        metavar="E",
        help="RMSProp's epsilon, added outside the square root.  [paper: 1]",
    ),
    _training(
        "--weight-decay",
        type=float,
        metavar="W",
        help="L2 regularization weight.  [paper: 0.00004]",
    ),
    _training(
        "--clip-gradients",
        type=float,
        metavar="NORM",
        help="Maximum L2 norm of the gradient of a batch.  [paper: no limit]",
    ),
    _training(
        "--test-epochs",
        type=float,
        metavar="N",
        help="Epochs between tests.  [default: 1; at most 24 tests in less than 20000 iterations]",
    ),
    _training(
        "--snapshot-epochs",
        type=float,
        metavar="N",
        help="Epochs between snapshots.  [default: 10; at each test if there are 24 at most]",
    ),
    _training(
        "--random-seed",
        type=int,
        metavar="N",
        help="Seed of weights and augmentation; -1: the clock.  [paper: 1]",
    ),
    _report("--summary", is_flag=True, help="Print stages, parameters, multiply-adds and memory."),
    _report("--draw", type=_PATH, metavar="FILE", help="Draw the network: .svg, .png or .pdf."),
    _report("--json", "as_json", is_flag=True, help="Print the report as JSON."),
)
