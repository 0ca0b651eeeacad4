"""The net in miniature, with or without the flaws of 2016, and the solvers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.config import NetOptions
from irv2caffe.evaluate.batch_norm import with_batch_norm
from irv2caffe.inference.nets import inference_net
from irv2caffe.net.blocks import block8, block17, block35, reduction_a, reduction_b
from irv2caffe.net.layers import Builder, classifier, conv, dropout, global_average
from irv2caffe.net.spec import NetSpec, Top
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from pathlib import Path

    from experiment.arms import Arm, Size

CROP = 28  # of images of 32: 0.875, where the original had 299 of 328
MEAN = (104.0, 117.0, 123.0)
TF_RMSPROP = "TensorFlowRMSProp"  # a solver type of `torch_engine`
_RATE = 0.045


def train_net(arm: Arm, size: Size, database: Path) -> Any:
    """The net for training: the paper's blocks after a short stem."""
    options = NetOptions(
        variant="paper",
        num_classes=size.classes,
        crop=CROP,
        width=size.width * (2 if arm.wide else 1),
        residual_scale=arm.scale,
        residual_bn=arm.up_norm,
        trunk=2048,
        bn_fraction=arm.fraction,
        bn_eps=1e-5,
        filler="xavier",
    )
    net = NetSpec("miniature")
    transform = {"crop_size": CROP, "mirror": arm.augment != "none", "mean_value": list(MEAN)}
    net.layer_with_tops(
        "Data", "data", [], ["data", "label"],
        transform_param=transform, source=str(database), batch_size=size.batch_size, backend="LMDB",
    )  # fmt: skip
    b = Builder(net, options)
    x = _features(b, Top("data", 3, CROP), size)
    logits = classifier(b, "classifier", dropout(b, "dropout", global_average(b, "pool", x), 0.2))
    b.layer("SoftmaxWithLoss", "loss", logits, Top("label", 1), channels=1)
    made = net.to_proto()
    return made if arm.relu else without_residual_relus(made)


def _features(b: Builder, x: Top, size: Size) -> Top:
    pad = "1" if size.stride == 1 else "2"  # to 27x27 or 15x15
    x = conv(b, "stem1_4x4", x, 64, 4, size.stride, pad)
    x = conv(b, "stem2_3x3", x, 96, 3, pad="same")
    x = conv(b, "stem3_3x3", x, 384, 3, pad="same")
    scale_a, scale_b, scale_c = b.options.residual_scale or (None, None, None)
    for i in range(1, size.blocks[0] + 1):
        x = block35(b, f"a{i}", x, scale_a)
    x = reduction_a(b, "reduction_a", x, k=256, l=256, m=384, n=384)
    for i in range(1, size.blocks[1] + 1):
        x = block17(b, f"b{i}", x, scale_b)
    x = reduction_b(b, "reduction_b", x, (384, 256, 256, 256))
    for i in range(1, size.blocks[2] + 1):
        x = block8(b, f"c{i}", x, scale_c)
    return x


def without_residual_relus(net: Any) -> Any:
    """The net without the ReLU after each addition, as in 2016."""
    sums = {layer.top[0] for layer in net.layer if layer.type == "Eltwise"}
    kept = [layer for layer in net.layer if layer.type != "ReLU" or layer.bottom[0] not in sums]
    result = messages.NetParameter(name=net.name)
    result.layer.extend(kept)
    return result


def evaluated_net(trained: Any, *, batch_statistics: bool) -> Any:
    """The net for use, whose BatchNorm takes the statistics of each batch or the running ones."""
    net = inference_net(trained, shape=(3, CROP, CROP))
    return with_batch_norm(net, use_global_stats=False) if batch_statistics else net


def solver(arm: Arm, size: Size, folder: Path, *, seed: int, gpu: bool) -> Any:
    """The SolverParameter of a run, with a snapshot after each epoch."""
    display = max(1, size.iterations // 4)
    param = messages.SolverParameter(
        net=str(folder / "train.prototxt"),
        snapshot_prefix=str(folder / "s"),
        snapshot=size.iterations,
        max_iter=size.iterations * size.epochs,
        display=display,
        average_loss=display,
        base_lr=_RATE,
        weight_decay=arm.weight_decay,
        random_seed=seed,
        solver_mode=messages.SolverParameter.GPU if gpu else messages.SolverParameter.CPU,
    )
    rules: dict[str, dict[str, Any]] = {
        "rmsprop": {"type": "RMSProp", "rms_decay": 0.9, "delta": 1.0},
        "tf-rmsprop": {"type": TF_RMSPROP, "rms_decay": 0.9, "delta": 1.0, "momentum": 0.9},
        "sgd": {"type": "SGD", "momentum": 0.9},
        "step": {
            "lr_policy": "step",
            "gamma": 0.94,
            "stepsize": max(1, round(size.decay_epochs * size.iterations)),
        },
        "constant": {"lr_policy": "fixed"},
        "linear": {"lr_policy": "poly", "power": 1.0},
    }
    for name, value in {**rules[arm.solver], **rules[arm.schedule]}.items():
        setattr(param, name, value)
    return param
