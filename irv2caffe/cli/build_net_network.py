"""The options of build-net for the network."""

from __future__ import annotations

from irv2caffe.cli.option_sections import section

_network = section("Network options")

NETWORK_OPTIONS = (
    _network(
        "--variant",
        metavar="slim|paper|seed|small75|small32|auto",
        help="Network to build. slim: TF-slim's network, for which pretrained weights exist. "
        "paper: the network of arXiv 1602.07261. seed: the network of a 2016 run that did not "
        "converge, flaws included. small75, small32: smaller networks for 75x75 and 32x32 pixel "
        "inputs. auto: small32, small75, paper or slim by the size of the images in the "
        "databases.  [default: slim]",
    ),
    _network(
        "--width",
        type=float,
        metavar="FACTOR",
        help="Factor for the number of filters of every layer.  [default: 1; small75, small32: "
        "0.5]",
    ),
    _network(
        "--residual-scale",
        metavar="S|A,B,C|none",
        help="Factor for the residual branches before the addition: one for all blocks, or one "
        "each for the 35x35, 17x17 and 8x8 blocks.  [default: 0.17,0.1,0.2; paper: 0.1; seed: "
        "none]",
    ),
    _network(
        "--residual-bn/--no-residual-bn",
        default=None,
        help="Add BatchNorm to the last 1x1 convolution of each residual branch.  [default: "
        "no-residual-bn; seed: residual-bn]",
    ),
    _network(
        "--trunk",
        type=int,
        metavar="2144|2048",
        help="Channels of the 8x8 blocks, paper only: 2144 as in Fig. 18 of the paper, or 2048 as "
        "in Fig. 19.  [default: 2144]",
    ),
    _network(
        "--aux/--no-aux",
        default=None,
        help="Add an auxiliary classifier after the 17x17 blocks, for training only.  [default: "
        "no-aux]",
    ),
    _network(
        "--aux-weight",
        type=float,
        metavar="FACTOR",
        help="Loss weight of the auxiliary classifier.  [default: 0.4]",
    ),
    _network(
        "--average-pool",
        metavar="tf|caffe",
        help="Average pooling of block Mixed_5b. tf: ignore the padding, as imported weights need "
        "it. caffe: one plain Pooling layer, which counts it.  [default: tf]",
    ),
    _network(
        "--gamma/--no-gamma",
        default=None,
        help="Learn a scale (gamma) after each BatchNorm.  [default: gamma]",
    ),
    _network(
        "--bn-fraction",
        type=float,
        metavar="FRACTION",
        help="BatchNorm's moving_average_fraction: how much of the running mean and variance is "
        "kept per batch. 0.999 averages over about 1000 batches.  [default: a 50th of the run's "
        "batches, from 0.9 to 0.999]",
    ),
    _network(
        "--bn-eps",
        type=float,
        metavar="E",
        help="Added to BatchNorm's variance.  [default: 0.001; seed: 0.00001]",
    ),
    _network(
        "--dropout",
        type=float,
        metavar="FRACTION",
        help="Fraction of the features before the classifier that training drops.  [default: 0.2]",
    ),
    _network(
        "--label-smoothing",
        type=float,
        metavar="FRACTION",
        help="Fraction of each label spread evenly over all classes, such as 0.1.  [default: 0]",
    ),
    _network(
        "--class-weights",
        metavar="balanced|FILE|none",
        help="Weight of each class in the training loss, for classes with few images. balanced: in "
        "inverse proportion to the numbers of images. FILE: lines with a weight, or with a class "
        "name and a weight. They are scaled to a mean of 1.  [default: none]",
    ),
    _network(
        "--classifier",
        metavar="NAME",
        help="Layer name of the classifier. Caffe loads --weights by layer name: a classifier for "
        "other classes needs another name than theirs.  [default: classifier]",
    ),
    _network(
        "--classifier-lr",
        type=float,
        metavar="FACTOR",
        help="Factor for the learning rate of the classifier, such as 10 to fine-tune.  "
        "[default: 1]",
    ),
    _network(
        "--freeze",
        metavar="STAGE|none",
        help="Last stage to keep as it is in --weights, by its name in irv2caffe summary, such as "
        "Mixed_5b; all before it are kept as well.  [default: none]",
    ),
    _network(
        "--bn-statistics",
        metavar="batch|kept",
        help="Statistics that BatchNorm takes in training. batch: those of the batch. kept: the "
        "running ones of --weights, which do not change.  [default: batch]",
    ),
    _network(
        "--filler",
        metavar="glorot|xavier|msra",
        help="Weight initialization. glorot: Caffe's xavier filler with variance_norm AVERAGE. "
        "xavier: Caffe's default, which scales by the fan-in.  [default: glorot; seed: xavier]",
    ),
    _network(
        "--flavor",
        metavar="bvlc|nvcaffe",
        help="Caffe that will read the files. bvlc: batch_size is per GPU. nvcaffe (NVIDIA's "
        "fork): batch_size is shared by all GPUs.  [default: bvlc]",
    ),
)
