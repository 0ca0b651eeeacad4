"""Inception-ResNet-v2: the networks from input to features, and the train_val and deploy nets.

A network returns two tops: its features before the global pooling, and the output of its second
grid, which the auxiliary classifier reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.net.blocks import (
    block8,
    block17,
    block35,
    mixed_5b,
    reduction_a,
    reduction_b,
    stem_v3,
    stem_v4,
)
from irv2caffe.net.freeze import freeze
from irv2caffe.net.infogain import needs_infogain
from irv2caffe.net.layers import (
    Builder,
    classifier,
    conv,
    dropout,
    global_average,
    valid_average_pool,
)
from irv2caffe.net.spec import NetSpec, Top

if TYPE_CHECKING:
    from irv2caffe.config import NetOptions

# The filters of Fig. 18, whose output has 1152+384+288+320 = 2144 channels, and filters for the
# 2048 channels of Fig. 19.
_REDUCTION_B = {2144: (384, 288, 288, 320), 2048: (384, 256, 256, 256)}


def slim(b: Builder, x: Top) -> tuple[Top, Top]:
    """TF-slim's ``inception_resnet_v2``, the one with published weights: 10, 20 and 10 blocks."""
    scale35, scale17, scale8 = b.options.residual_scale or (None, None, None)
    x = stem_v3(b, x)
    x = mixed_5b(b, "Mixed_5b", x)
    for i in range(1, 11):
        x = block35(b, f"Repeat/block35_{i}", x, scale35)
    x = reduction_a(b, "Mixed_6a", x, k=256, l=256, m=384, n=384)
    for i in range(1, 21):
        x = block17(b, f"Repeat_1/block17_{i}", x, scale17)
    grid17 = x
    x = reduction_b(b, "Mixed_7a", x, (384, 288, 288, 320))
    for i in range(1, 10):
        x = block8(b, f"Repeat_2/block8_{i}", x, scale8)
    x = block8(b, "Block8", x, None, rectify=False)
    return conv(b, "Conv2d_7b_1x1", x, 1536, 1), grid17


def paper(b: Builder, x: Top) -> tuple[Top, Top]:
    """Fig. 15 of arXiv 1602.07261v2: 5, 10 and 5 blocks.

    The 1154 channels of Fig. 17 and 2048 of Fig. 19 are replaced by those of the trunk, to which
    they are added.
    """
    scale_a, scale_b, scale_c = b.options.residual_scale or (None, None, None)
    x = stem_v4(b, x)
    for i in range(1, 6):
        x = block35(b, f"a{i}", x, scale_a)
    x = reduction_a(b, "reduction_a", x, k=256, l=256, m=384, n=384)
    for i in range(1, 11):
        x = block17(b, f"b{i}", x, scale_b)
    grid17 = x
    x = reduction_b(b, "reduction_b", x, _REDUCTION_B[b.options.trunk])
    for i in range(1, 6):
        x = block8(b, f"c{i}", x, scale_c)
    return x, grid17


def small75(b: Builder, x: Top) -> tuple[Top, Top]:
    """For 75x75 images: a short stem, then the blocks of :func:`small`."""
    x = conv(b, "Conv2d_1a_3x3", x, 32, 3, 2)
    x = conv(b, "Conv2d_2a_3x3", x, 64, 3)
    return small(b, x)


def small32(b: Builder, x: Top) -> tuple[Top, Top]:
    """For 32x32 images such as CIFAR's: a short stem, then the blocks of :func:`small`.

    The first convolution is 4x4 with padding 1, so that its output, 31x31, and the next two grids
    are odd, which strided convolutions and pools need.
    """
    x = conv(b, "Conv2d_1a_4x4", x, 32, 4, pad="1")
    x = conv(b, "Conv2d_2a_3x3", x, 64, 3, pad="same")
    return small(b, x)


def small(b: Builder, x: Top) -> tuple[Top, Top]:
    """TF-slim's blocks with 3, 6 and 3 repetitions, for small images."""
    scale35, scale17, scale8 = b.options.residual_scale or (None, None, None)
    x = mixed_5b(b, "Mixed_5b", x)
    for i in range(1, 4):
        x = block35(b, f"Repeat/block35_{i}", x, scale35)
    x = reduction_a(b, "Mixed_6a", x, k=256, l=256, m=384, n=384)
    for i in range(1, 7):
        x = block17(b, f"Repeat_1/block17_{i}", x, scale17)
    grid17 = x
    x = reduction_b(b, "Mixed_7a", x, (384, 288, 288, 320))
    for i in range(1, 4):
        x = block8(b, f"Repeat_2/block8_{i}", x, scale8)
    return conv(b, "Conv2d_7b_1x1", x, 1536, 1), grid17


# The seed is the paper's net with the options of 2016, which VARIANTS in config sets.
NETWORKS = {"slim": slim, "paper": paper, "seed": paper, "small75": small75, "small32": small32}


def train_val(
    options: NetOptions,
    test_batch_size: int,
    *,
    num_gpus: int = 1,
    infogain: str = "infogain.binaryproto",
) -> Any:
    """The network of both phases: data, Inception-ResNet-v2, loss and top-1/top-5 accuracy.

    Args:
        options: of the network.
        test_batch_size: images per forward pass of a test.
        num_gpus: GPUs that train; NVCaffe's batch_size is that of all of them.
        infogain: path of the matrix for label smoothing and class weights.

    Returns:
        A NetParameter.

    Raises:
        GridError: a crop that this network cannot have.
        UsageError: no such stage to freeze, or a classifier with the name of another layer.
    """
    net = NetSpec(f"inception_resnet_v2_{options.variant}")
    batch_size = options.batch_size * (num_gpus if options.flavor == "nvcaffe" else 1)
    for phase, source, batch in (
        ("TRAIN", options.train_lmdb, batch_size),
        ("TEST", options.val_lmdb, test_batch_size),
    ):
        _data(net, phase, source, batch, options)
    label = Top("label", 1)
    infogain = infogain if needs_infogain(options) else ""
    b = Builder(net, options)
    features, grid17 = NETWORKS[options.variant](b, Top("data", options.channels, options.crop))
    if options.aux:
        b.phase = "TRAIN"
        _loss(b, "aux_loss", (_aux_logits(b, grid17), label), options.aux_weight, infogain)
        b.phase = None
    logits = _logits(b, features)
    _loss(b, "loss", (logits, label), 1.0, infogain)
    b.phase = "TEST"
    for k in (1, 5):
        if k < options.num_classes:  # else Caffe aborts
            b.layer("Accuracy", f"accuracy_top{k}", logits, label, channels=1, top_k=k)
    made = net.to_proto()
    if options.freeze is not None:
        freeze(made, options.freeze)
    return made


def deploy(options: NetOptions) -> Any:
    """The network for use: from an input of 1xCxCROPxCROP to the class probabilities ``prob``.

    Raises:
        GridError: a crop that this network cannot have.
    """
    net = NetSpec(f"inception_resnet_v2_{options.variant}")
    shape = [{"dim": [1, options.channels, options.crop, options.crop]}]
    data = net.layer("Input", "data", channels=options.channels, size=options.crop, shape=shape)
    b = Builder(net, options, for_use=True)
    features, _ = NETWORKS[options.variant](b, data)
    b.layer("Softmax", "prob", _logits(b, features))
    return net.to_proto()


def _data(net: NetSpec, phase: str, source: str, batch_size: int, options: NetOptions) -> None:
    """The Data layer of one phase."""
    transform: dict[str, Any] = {"crop_size": options.crop}
    if phase == "TRAIN":
        transform["mirror"] = options.mirror
    if options.mean_file is not None:
        transform["mean_file"] = options.mean_file
    else:
        transform["mean_value"] = list(options.mean_value[: options.channels])
    transform["scale"] = options.scale
    net.layer_with_tops(
        "Data",
        "data",
        [],
        ["data", "label"],
        phase=phase,
        transform_param=transform,
        source=source,
        batch_size=batch_size,
        backend="LMDB",  # Caffe's default is LEVELDB
    )


def _logits(b: Builder, features: Top) -> Top:
    x = dropout(b, "dropout", global_average(b, "pool", features), b.options.dropout)
    return classifier(b, b.options.classifier, x)


def _aux_logits(b: Builder, grid17: Top) -> Top:
    """TF-slim's auxiliary classifier."""
    x = valid_average_pool(b, "AuxLogits/AvgPool_1a_5x5", grid17, kernel=5, stride=3)
    x = conv(b, "AuxLogits/Conv2d_1b_1x1", x, 128, 1)
    x = conv(b, "AuxLogits/Conv2d_2a_5x5", x, 768, x.size)
    own = b.options.classifier  # a new classifier is new here as well
    return classifier(b, f"AuxLogits/{'Logits' if own == 'classifier' else own}", x)


def _loss(b: Builder, name: str, bottoms: tuple[Top, Top], weight: float, infogain: str) -> None:
    """SoftmaxWithLoss; with a matrix only for tests, and InfogainLoss for training."""
    fields: dict[str, Any] = {"channels": 1, "loss_weight": [weight]}
    phase = b.phase
    if infogain:
        b.phase = "TRAIN"
        b.layer("InfogainLoss", name, *bottoms, **fields, source=infogain)
        b.phase = "TEST"
    if not infogain or phase is None:
        b.layer("SoftmaxWithLoss", name, *bottoms, **fields)
    b.phase = phase
