"""BatchNorm: its statistics in both phases, its blobs, and what stands around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.check.arithmetic import batch_per_gpu
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, rule
from irv2caffe.check.zeros import is_frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, Layer, PhaseNet

_FLAG = ("batch_norm_param", "use_global_stats")
_LINEAR = ("Convolution", "Deconvolution", "InnerProduct")
_RECTIFIERS = ("ReLU", "PReLU", "ELU")
_SHIFTS = ("Scale", "Bias")
_TF_EPS = 0.001
_SMALL_BATCH = 8
_TELLING_TEST_BATCH = 16


@rule(
    "bn-batch-stats-in-test",
    ERROR,
    "net",
    "batch_norm_layer.cpp; github.com/KaimingHe/deep-residual-networks issue 53",
)
def batch_stats_in_test(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A use_global_stats: false reaches the TEST phase."""
    if net.phase != "TEST" or evidence.claims.flavor == "nvcaffe":
        return  # NVCaffe's tests take running statistics whatever is written
    for layer in _with_flag(net, value=False):
        yield Hit(
            "use_global_stats: false reaches the TEST phase",
            "a test image is normalized by the other images of its batch, so that the accuracy "
            "depends on the TEST batch; and the test net overwrites the running statistics, which "
            "it shares with the training net",
            "take the line out: without it TRAIN takes the batch's statistics, TEST the running "
            "ones",
            layer.at(*_FLAG),
        )


@rule("bn-test-batch", ERROR, "net", "batch_norm_layer.cpp, Forward_cpu")
def test_batch(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Few images share the statistics of a test."""
    if net.phase != "TEST" or evidence.claims.flavor == "nvcaffe" or not net.batch_size:
        return
    layers = list(_with_flag(net, value=False))
    if layers and net.batch_size <= _TELLING_TEST_BATCH:
        yield Hit(
            f"a TEST batch of {net.batch_size} with statistics of the batch",
            "a small net of ours lost 43 points of accuracy between TEST batches of 10 and 2, at "
            f"equal weights; here {net.batch_size} share their statistics",
            "take use_global_stats: false out; a larger TEST batch would only hide it",
            net.data_layers[0].at("data_param", "batch_size") if net.data_layers else (),
        )


def _with_flag(net: PhaseNet, *, value: bool) -> Iterator[Layer]:
    for layer in net.of_type("BatchNorm"):
        param = layer.message.batch_norm_param
        if param.HasField("use_global_stats") and param.use_global_stats is value:
            yield layer


@rule(
    "bn-global-stats-in-train",
    WARNING,
    "net",
    "batch_norm_layer.cpp; github.com/soeaver/caffe-model issue 21",
)
def global_stats_in_train(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A use_global_stats: true reaches the TRAIN phase."""
    if net.phase != "TRAIN":
        return
    for layer in _with_flag(net, value=True):
        loaded = layer.name in (evidence.claims.weights or {}) or _is_fine_tuned(layer, net)
        yield Hit(
            "use_global_stats: true reaches the TRAIN phase",
            "the running statistics stay what they are in the weights that the run starts from"
            if loaded
            else "without weights to start from, running mean and variance are 0 and stay so: "
            "every BatchNorm multiplies by 1/sqrt(eps); with weights, they never adapt",
            "take the line out, unless the statistics are to stay frozen",
            layer.at(*_FLAG),
            NOTE if loaded else None,
        )


def _is_fine_tuned(layer: Layer, net: PhaseNet) -> bool:
    """Whether the Scale behind it does not learn either: both are as the weights have them."""
    scales = [reader for reader in net.readers(layer) if reader.type == "Scale"]
    return bool(scales) and all(map(is_frozen, scales))


@rule("bn-params-not-frozen", ERROR, "net", "batch_norm_layer.cpp, LayerSetUp; upgrade_proto.cpp")
def params_not_frozen(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """The lr_mult of BatchNorm's blobs is not 0."""
    del evidence
    for layer in net.of_type("BatchNorm"):
        specs = list(layer.written.param)
        if not any(spec.lr_mult != 0 for spec in specs):
            continue
        mended = len(specs) == 3
        yield Hit(
            f"{len(specs)} param {{ }} with an lr_mult that is not 0",
            "its blobs are statistics, not weights; Caffe 1.0 sets exactly three of them to 0 "
            "while it reads the file, builds before 2017 stop or train them"
            if mended
            else "Caffe stops: Cannot configure batch normalization statistics as layer parameters",
            "three times param { lr_mult: 0 decay_mult: 0 }",
            layer.at("param"),
            WARNING if mended else None,
        )


@rule("bn-params-missing", NOTE, "net", "batch_norm_layer.cpp, LayerSetUp, since c8f446f (2016-08)")
def params_missing(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """BatchNorm's blobs are left to the solver's defaults."""
    del evidence
    if net.phase != "TRAIN":
        return
    for layer in net.of_type("BatchNorm"):
        specs = list(layer.written.param)
        if len(specs) < 3 and all(spec.lr_mult == 0 for spec in specs):
            yield Hit(
                "a BatchNorm without three param { lr_mult: 0 }",
                "harmless in Caffe 1.0, which freezes them itself; before rc4 weight decay ate at "
                "the statistics",
                "three times param { lr_mult: 0 decay_mult: 0 }",
                layer.at(),
            )


@rule(
    "bn-without-scale",
    WARNING,
    "net",
    "batch_norm_layer.hpp; github.com/smichalowski/google_inception_v3_for_caffe",
)
def without_scale(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A BatchNorm with no Scale or Bias behind it."""
    del evidence
    for layer in net.of_type("BatchNorm"):
        readers = net.readers(layer)
        if not readers or all(reader.type in _LINEAR for reader in readers):
            continue  # the next layer's weights and biases can do the same
        if any(reader.type in _SHIFTS for reader in readers) or _scales_itself(layer, net):
            continue
        yield Hit(
            "no Scale follows the BatchNorm",
            "Caffe's BatchNorm only normalizes; without a learned shift every ReLU behind it "
            "passes half of its inputs, whatever was learned",
            "a Scale layer with scale_param { bias_term: true } behind it",
            layer.at(),
            None if any(reader.type in _RECTIFIERS for reader in readers) else NOTE,
        )


def _scales_itself(layer: Layer, net: PhaseNet) -> bool:
    """NVCaffe's BatchNorm with scale_bias; the field is unknown to Caffe and said elsewhere."""
    names = {child.name for child in layer.node.find("batch_norm_param").children}
    return bool(net.file.unknown) and "scale_bias" in names


@rule("bn-bias-before", NOTE, "net", "arXiv 1502.03167, section 3.2")
def bias_before(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A convolution's bias that the BatchNorm behind it takes away."""
    del evidence
    for layer in net.of_type("Convolution", "InnerProduct"):
        name = "convolution_param" if layer.type == "Convolution" else "inner_product_param"
        readers = net.readers(layer)
        if getattr(layer.message, name).bias_term and _all_norms(readers):
            yield Hit(
                f"a {layer.type} with a bias before a BatchNorm",
                "the mean that BatchNorm subtracts contains it: it has no effect, and costs memory",
                "bias_term: false",
                layer.at(name),
            )


def _all_norms(readers: list[Layer]) -> bool:
    return bool(readers) and all(reader.type == "BatchNorm" for reader in readers)


@rule("bn-eps", NOTE, "net", "tensorflow/models, slim/nets/inception_resnet_v2.py")
def eps(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Another epsilon than that of TensorFlow's Inception nets."""
    del evidence
    if not net.is_tensorflow_style:
        return
    for layer in net.of_type("BatchNorm"):
        value = layer.message.batch_norm_param.eps
        if abs(value - _TF_EPS) > 1e-6:
            yield Hit(
                f"eps is {value:g}",
                "TensorFlow's nets of this family have 0.001; it matters for imported weights "
                "(logits of a random net moved by 0.14), hardly for training from scratch",
                "batch_norm_param { eps: 0.001 }",
                layer.at("batch_norm_param", "eps"),
            )


@rule("bn-fraction", NOTE, "net", "batch_norm_layer.cpp, Forward_cpu")
def fraction(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """The moving_average_fraction against the length of the run."""
    if net.phase != "TRAIN":
        return
    length = evidence.solver.message.max_iter if evidence.solver is not None else 0
    for layer in net.of_type("BatchNorm"):
        value = layer.message.batch_norm_param.moving_average_fraction
        at = layer.at("batch_norm_param", "moving_average_fraction")
        if not 0 < value < 1:
            yield Hit(
                f"moving_average_fraction is {value:g}",
                "the running statistics are a sum in which the last batch weighs 1, the one "
                "before it this fraction, and so on: it must lie between 0 and 1",
                "moving_average_fraction: 0.999 for long runs, 0.95 for short ones",
                at,
                WARNING if value in {0, 1} else ERROR,
            )
        elif 0 < length < 5 / (1 - value):
            yield Hit(
                f"moving_average_fraction {value:g} remembers {1 / (1 - value):,.0f} iterations, "
                f"the run has {length:,}",
                "tests use statistics from when the weights were others; accuracy in tests lags",
                f"moving_average_fraction: {max(0.5, 1 - 50 / length):.2g}",
                at,
            )


@rule("bn-small-batch", NOTE, "net", "batch_norm_layer.cpp; parallel.cpp; solver.cpp, Step")
def small_batch(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Few images share the statistics of a training step."""
    batch = batch_per_gpu(evidence)
    if net.phase != "TRAIN" or not batch or batch >= _SMALL_BATCH:
        return
    if any(net.of_type("BatchNorm")):
        yield Hit(
            f"BatchNorm over {batch} image(s)",
            "neither iter_size nor more GPUs enlarge the batch that BatchNorm sees; noisy "
            "statistics in training differ from the running ones in tests",
            "a larger batch_size and a smaller iter_size, or moving_average_fraction: 0.95",
            net.data_layers[0].at("data_param", "batch_size") if net.data_layers else (),
        )


@rule("bn-scale-decay", NOTE, "net", "sgd_solver.cpp, Regularize; TF-slim's arg scope")
def scale_decay(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Weight decay on BatchNorm's multiplier and shift."""
    if net.phase != "TRAIN" or evidence.solver is None:
        return
    if evidence.solver.message.weight_decay == 0:
        return
    for layer in net.of_type(*_SHIFTS):
        made_by = net.sources(layer)
        if not made_by or made_by[0] is None or made_by[0].type != "BatchNorm":
            continue
        count = 1 if layer.type == "Bias" else 1 + layer.message.scale_param.bias_term
        if any(_decays(layer.message, place) for place in range(count)):
            yield Hit(
                "weight decay on the Scale behind a BatchNorm",
                "Caffe decays biases and multipliers like weights; TF-slim leaves BatchNorm's out, "
                "the ResNets of 2015 decayed them",
                "twice param { lr_mult: 1 decay_mult: 0 }",
                layer.at("param"),
            )


def _decays(message: Any, place: int) -> bool:
    specs = message.param
    if place >= len(specs):
        return True
    return bool(specs[place].lr_mult != 0 and specs[place].decay_mult != 0)


@rule("bn-not-synchronized", NOTE, "net", "parallel.cpp; github.com/BVLC/caffe issue 5927")
def not_synchronized(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Running statistics come from the first of several GPUs."""
    if net.phase == "TRAIN" and evidence.claims.num_gpus > 1 and any(net.of_type("BatchNorm")):
        yield Hit(
            f"BatchNorm on {evidence.claims.num_gpus} GPUs",
            "gradients are averaged, running statistics are not: snapshots and tests have those "
            "of the first GPU",
            "nothing to mend; re-estimate them if tests look worse than training",
            net.file.at(),
        )
