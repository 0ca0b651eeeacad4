"""Inception-ResNet-v2, each network on one page, input to loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError
from irv2caffe.net.blocks import (
    Builder,
    block_a,
    block_b,
    block_c,
    reduction_a,
    reduction_b,
    stem,
)
from irv2caffe.net.spec import NetSpec, Top

if TYPE_CHECKING:
    from irv2caffe.config import NetOptions

# Filters of Fig. 18 (trunk 1152+384+288+320 = 2144), and those that make Fig. 19's 2048.
_REDUCTION_B = {2144: (384, 288, 288, 320), 2048: (384, 256, 256, 256)}
_GLOROT = {"type": "xavier", "variance_norm": "AVERAGE"}
_MSRA = {"type": "msra"}


def paper(b: Builder, x: Top, options: NetOptions) -> Top:
    """Fig. 15 of arXiv 1602.07261v2: 5, 10 and 5 blocks; 3x299x299 to the 8x8 grid.

    Fig. 17 says 1154 and Fig. 19 says 2048 channels; both are taken as "as wide as the trunk",
    without which the addition has no meaning.
    """
    scale_a, scale_b, scale_c = options.residual_scale or (None, None, None)
    x = stem(b, x)
    for i in range(1, 6):
        x = block_a(b, f"a{i}", x, scale_a)
    x = reduction_a(b, "reduction_a", x, k=256, l=256, m=384, n=384)
    for i in range(1, 11):
        x = block_b(b, f"b{i}", x, scale_b)
    x = reduction_b(b, "reduction_b", x, _REDUCTION_B[options.trunk])
    for i in range(1, 6):
        x = block_c(b, f"c{i}", x, scale_c)
    return x


VARIANTS = {"paper": paper}


def train_val(options: NetOptions, test_batch_size: int) -> Any:
    """The network of both phases: data, Inception-ResNet-v2, loss and top-1/top-5 accuracy.

    Args:
        options: the choices.
        test_batch_size: images per TEST iteration.

    Returns:
        A NetParameter.

    Raises:
        UsageError: a crop that this network cannot have, or an unknown variant.
    """
    net = NetSpec(f"inception_resnet_v2_{options.variant}")
    for phase, source, batch in (
        ("TRAIN", options.train_lmdb, options.batch_size),
        ("TEST", options.val_lmdb, test_batch_size),
    ):
        _data(net, phase, source, batch, options)
    label = Top("label", 1)
    logits = _body(net, Top("data", 3), options)
    net.layer("SoftmaxWithLoss", "loss", logits, label, channels=1, loss_weight=[1.0])
    for k in (1, 5):
        if k < options.num_classes:  # Caffe aborts when it is asked for more than there are
            net.layer(
                "Accuracy", f"accuracy_top{k}", logits, label, channels=1, phase="TEST", top_k=k
            )
    return net.to_proto()


def deploy(options: NetOptions) -> Any:
    """The network for use: an input of 1x3xCROPxCROP, class probabilities ``prob``.

    Input is BGR, minus the mean, times the scale, as in training.
    """
    net = NetSpec(f"inception_resnet_v2_{options.variant}")
    data = net.layer(
        "Input", "data", channels=3, shape=[{"dim": [1, 3, options.crop, options.crop]}]
    )
    logits = _body(net, data, options)
    net.layer("Softmax", "prob", logits, channels=options.num_classes)
    return net.to_proto()


def _data(net: NetSpec, phase: str, source: str, batch_size: int, options: NetOptions) -> None:
    """The Data layer of one phase."""
    transform: dict[str, Any] = {"crop_size": options.crop}
    if phase == "TRAIN":
        transform["mirror"] = options.mirror
    transform |= {"mean_value": list(options.mean_value), "scale": options.scale}
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


def _body(net: NetSpec, data: Top, options: NetOptions) -> Top:
    """From the input to the logits."""
    if options.variant not in VARIANTS:
        raise UsageError(f"no variant {options.variant!r}", f"variants: {', '.join(VARIANTS)}")
    check_crop(options.crop)
    b = Builder(
        net=net,
        width=options.width,
        weight_filler=_GLOROT if options.filler == "glorot" else _MSRA,
        bn_eps=0.001,
        bn_fraction=options.bn_fraction,
        gamma=options.gamma,
        residual_bn=options.residual_bn,
    )
    x = VARIANTS[options.variant](b, data, options)
    x = net.layer("Pooling", "pool", x, channels=x.channels, pool="AVE", global_pooling=True)
    if options.dropout > 0:
        x = net.layer(
            "Dropout",
            "dropout",
            x,
            channels=x.channels,
            in_place=True,
            dropout_ratio=options.dropout,
        )
    return net.layer(
        "InnerProduct",
        "classifier",
        x,
        channels=options.num_classes,
        num_output=options.num_classes,
        weight_filler=b.weight_filler,
        bias_filler={"type": "constant", "value": 0.0},
    )


def check_crop(crop: int) -> None:
    """Refuses crops whose strided convolutions and pools do not meet in Concat.

    Caffe's pooling rounds up where convolution rounds down (pooling_layer.cpp), so the two meet
    only at crops of 11 or 12 modulo 32: 75, 107, 139, ... 299, 331.

    Raises:
        UsageError: names the nearest good sizes.
    """
    if crop >= 75 and crop % 32 in {11, 12}:
        return
    below = max((good for good in range(75, crop) if good % 32 in {11, 12}), default=None)
    above = next(good for good in range(max(crop, 75), crop + 140) if good % 32 in {11, 12})
    near = f"{below} and {above}" if below else f"{above}"
    raise UsageError(
        f"--crop {crop}: Caffe would abort in Concat, its pooling rounds up",
        f"the nearest good sizes are {near} (11 or 12 modulo 32, from 75)",
    )
