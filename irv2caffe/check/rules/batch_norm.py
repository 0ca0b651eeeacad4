"""BatchNorm: its statistics in both phases, its blobs, and the layers around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.check.arithmetic import batch_per_gpu
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, Hits
from irv2caffe.check.registry import net_rule
from irv2caffe.check.zeros import is_frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Layer, NetEvidence, PhaseNet

_LINEAR = ("Convolution", "Deconvolution", "InnerProduct")
_RECTIFIERS = ("ReLU", "PReLU", "ELU")
_SHIFTS = ("Scale", "Bias")
_TF_EPS = 0.001
_SMALL_BATCH = 8
# Runs shorter than two windows end with statistics a third of which the first half made.
_FEW_WINDOWS = 2
_SMALL_TEST_BATCH = 16


def _with_flag(net: PhaseNet, *, value: bool) -> Iterator[Layer]:
    """BatchNorms with a ``use_global_stats`` of this value."""
    for layer in net.of_type("BatchNorm"):
        param = layer.message.batch_norm_param
        if param.HasField("use_global_stats") and param.use_global_stats is value:
            yield layer


@net_rule(
    "bn-batch-stats-in-test",
    ERROR,
    "batch_norm_layer.cpp; github.com/KaimingHe/deep-residual-networks issue 53",
    phase="TEST",
)
def bn_batch_stats_in_test(evidence: NetEvidence) -> Hits:
    """``use_global_stats: false`` in the TEST phase."""
    if evidence.claims.flavor == "nvcaffe":
        return  # NVCaffe's tests take running statistics whatever is written
    for layer in _with_flag(evidence.net, value=False):
        yield Hit(
            what="use_global_stats: false reaches the TEST phase",
            why="a test image is normalized by the other images of its batch, so that the accuracy "
            "depends on the TEST batch; and the test net overwrites the running statistics, which "
            "it shares with the training net",
            fix="remove the line: by default TRAIN uses the batch's statistics, TEST the running "
            "ones",
            at=layer.at("batch_norm_param", "use_global_stats"),
        )


@net_rule("bn-test-batch", ERROR, "batch_norm_layer.cpp, Forward_cpu", phase="TEST")
def bn_test_batch(evidence: NetEvidence) -> Hits:
    """Tests with statistics of a small batch."""
    batch = evidence.net.batch_size
    if evidence.claims.flavor == "nvcaffe" or not batch or batch > _SMALL_TEST_BATCH:
        return
    if any(_with_flag(evidence.net, value=False)):
        yield Hit(
            what=f"a TEST batch of {batch} with statistics of the batch",
            why="a small net lost 43 points of accuracy between TEST batches of 10 and 2, with the "
            f"same weights; here {batch} images share their statistics",
            fix="remove use_global_stats: false; a larger TEST batch would only hide the problem",
            at=evidence.net.at_batch_size(),
        )


@net_rule(
    "bn-global-stats-in-train",
    WARNING,
    "batch_norm_layer.cpp; github.com/soeaver/caffe-model issue 21",
    phase="TRAIN",
)
def bn_global_stats_in_train(evidence: NetEvidence) -> Hits:
    """``use_global_stats: true`` in the TRAIN phase."""
    for layer in _with_flag(evidence.net, value=True):
        weights = evidence.claims.weights or {}
        loaded = layer.name in weights or _is_fine_tuned(layer, evidence.net)
        yield Hit(
            what="use_global_stats: true reaches the TRAIN phase",
            why="the running statistics stay as they are in the weights that the run starts from"
            if loaded
            else "without weights to start from, running mean and variance are 0 and stay 0: "
            "every BatchNorm multiplies by 1/sqrt(eps); with weights, they never adapt",
            fix="remove the line, unless the statistics should stay frozen",
            at=layer.at("batch_norm_param", "use_global_stats"),
            severity=NOTE if loaded else None,
        )


def _is_fine_tuned(layer: Layer, net: PhaseNet) -> bool:
    """Whether the Scale after a BatchNorm is frozen too, as in fine-tuning."""
    scales = [reader for reader in net.readers(layer) if reader.type == "Scale"]
    return bool(scales) and all(map(is_frozen, scales))


@net_rule("bn-params-not-frozen", ERROR, "batch_norm_layer.cpp, LayerSetUp; upgrade_proto.cpp")
def bn_params_not_frozen(evidence: NetEvidence) -> Hits:
    """An ``lr_mult`` of BatchNorm's blobs that is not 0."""
    for layer in evidence.net.of_type("BatchNorm"):
        specs = list(layer.written.param)
        if not any(spec.lr_mult != 0 for spec in specs):
            continue
        is_upgraded = len(specs) == 3
        yield Hit(
            what=f"{len(specs)} param {{ }} with an lr_mult that is not 0",
            why="its blobs are statistics, not weights; Caffe 1.0 sets exactly three of them to 0 "
            "when it reads the file, builds before 2017 stop or train them"
            if is_upgraded
            else "Caffe stops: Cannot configure batch normalization statistics as layer parameters",
            fix="three times param { lr_mult: 0 decay_mult: 0 }",
            at=layer.at("param"),
            severity=WARNING if is_upgraded else None,
        )


@net_rule(
    "bn-params-missing",
    NOTE,
    "batch_norm_layer.cpp, LayerSetUp, since c8f446f (2016-08)",
    phase="TRAIN",
)
def bn_params_missing(evidence: NetEvidence) -> Hits:
    """A BatchNorm without three ``param { lr_mult: 0 }`` for its blobs."""
    for layer in evidence.net.of_type("BatchNorm"):
        specs = list(layer.written.param)
        if len(specs) < 3 and all(spec.lr_mult == 0 for spec in specs):
            yield Hit(
                what="a BatchNorm without three param { lr_mult: 0 }",
                why="harmless in Caffe 1.0, which freezes them itself; before rc4 the weight decay "
                "changed the statistics",
                fix="three times param { lr_mult: 0 decay_mult: 0 }",
                at=layer.at(),
            )


@net_rule(
    "bn-without-scale",
    WARNING,
    "batch_norm_layer.hpp; github.com/smichalowski/google_inception_v3_for_caffe",
)
def bn_without_scale(evidence: NetEvidence) -> Hits:
    """A BatchNorm without a Scale or Bias behind it."""
    for layer in evidence.net.of_type("BatchNorm"):
        types = {reader.type for reader in evidence.net.readers(layer)}
        if types <= set(_LINEAR):
            continue  # the weights and biases of the next layer can do the same
        if types & set(_SHIFTS) or _scales_itself(layer, evidence.net):
            continue
        yield Hit(
            what="no Scale follows the BatchNorm",
            why="Caffe's BatchNorm only normalizes; without a learned shift every ReLU behind it "
            "passes half of its inputs, whatever was learned",
            fix="a Scale layer with scale_param { bias_term: true } behind it",
            at=layer.at(),
            severity=None if types & set(_RECTIFIERS) else NOTE,
        )


def _scales_itself(layer: Layer, net: PhaseNet) -> bool:
    """Whether it is NVCaffe's BatchNorm with scale_bias, which unknown-field reports."""
    names = {child.name for child in layer.node.find("batch_norm_param").children}
    return bool(net.file.unknown) and "scale_bias" in names


@net_rule("bn-bias-before", NOTE, "arXiv 1502.03167, section 3.2")
def bn_bias_before(evidence: NetEvidence) -> Hits:
    """A bias that the BatchNorm behind it cancels."""
    for layer in evidence.net.of_type("Convolution", "InnerProduct"):
        name = "convolution_param" if layer.type == "Convolution" else "inner_product_param"
        types = {reader.type for reader in evidence.net.readers(layer)}
        if getattr(layer.message, name).bias_term and types == {"BatchNorm"}:
            yield Hit(
                what=f"a {layer.type} with a bias before a BatchNorm",
                why="BatchNorm subtracts it with the mean: it has no effect, and costs memory",
                fix="bias_term: false",
                at=layer.at(name),
            )


@net_rule("bn-eps", NOTE, "tensorflow/models, slim/nets/inception_resnet_v2.py")
def bn_eps(evidence: NetEvidence) -> Hits:
    """Another epsilon than that of TensorFlow's Inception nets."""
    if not evidence.net.is_tensorflow_style:
        return
    for layer in evidence.net.of_type("BatchNorm"):
        value = layer.message.batch_norm_param.eps
        if abs(value - _TF_EPS) > 1e-6:
            yield Hit(
                what=f"eps is {value:g}",
                why="TensorFlow's nets of this family have 0.001; it matters for imported weights "
                "(logits of a random net moved by 0.14), hardly for training from scratch",
                fix="batch_norm_param { eps: 0.001 }",
                at=layer.at("batch_norm_param", "eps"),
            )


@net_rule("bn-fraction", NOTE, "batch_norm_layer.cpp, Forward_cpu", phase="TRAIN")
def bn_fraction(evidence: NetEvidence) -> Hits:
    """A ``moving_average_fraction`` out of range, or too close to 1 for the length of the run."""
    length = evidence.solver.message.max_iter if evidence.solver is not None else 0
    for layer in evidence.net.of_type("BatchNorm"):
        param = layer.message.batch_norm_param
        value = param.moving_average_fraction
        if param.use_global_stats:
            continue  # its statistics stay as they are
        at = layer.at("batch_norm_param", "moving_average_fraction")
        if not 0 < value < 1:
            yield Hit(
                what=f"moving_average_fraction is {value:g}",
                why="the running statistics are a sum in which the last batch weighs 1, the one "
                "before it this fraction, and so on: it must be between 0 and 1",
                fix="moving_average_fraction: 0.999 for long runs, 0.95 for short ones",
                at=at,
                severity=WARNING if value in {0, 1} else ERROR,
            )
        elif 0 < length < 5 / (1 - value):  # build-net derives a twentieth of the run
            yield Hit(
                what=f"moving_average_fraction {value:g} averages over {1 / (1 - value):,.0f} "
                f"iterations, the run has {length:,}",
                why="tests and snapshots use statistics of older weights: the test error lags, "
                "swings, or stays far above that of the training",
                fix=f"moving_average_fraction: {max(0.5, 1 - 50 / length):.2g}",
                at=at,
                severity=WARNING if length < _FEW_WINDOWS / (1 - value) else None,
            )


@net_rule(
    "bn-small-batch",
    NOTE,
    "batch_norm_layer.cpp; parallel.cpp; solver.cpp, Step",
    phase="TRAIN",
)
def bn_small_batch(evidence: NetEvidence) -> Hits:
    """A training batch that is too small for BatchNorm's statistics."""
    batch = batch_per_gpu(evidence)
    if batch and batch < _SMALL_BATCH and any(evidence.net.of_type("BatchNorm")):
        yield Hit(
            what=f"BatchNorm over {batch} image(s)",
            why="neither iter_size nor more GPUs enlarge the batch that BatchNorm sees; noisy "
            "statistics in training differ from the running ones in tests",
            fix="a larger batch_size and a smaller iter_size, or moving_average_fraction: 0.95",
            at=evidence.net.at_batch_size(),
        )


@net_rule("bn-scale-decay", NOTE, "sgd_solver.cpp, Regularize; TF-slim's arg scope", phase="TRAIN")
def bn_scale_decay(evidence: NetEvidence) -> Hits:
    """Weight decay on BatchNorm's multiplier and shift."""
    if evidence.solver is None or evidence.solver.message.weight_decay == 0:
        return
    for layer in evidence.net.of_type(*_SHIFTS):
        producer = next(iter(evidence.net.sources(layer)), None)
        if producer is None or producer.type != "BatchNorm":
            continue
        count = 1 if layer.type == "Bias" else 1 + layer.message.scale_param.bias_term
        if any(_decays(layer.message, place) for place in range(count)):
            yield Hit(
                what="weight decay on the Scale behind a BatchNorm",
                why="Caffe decays biases and multipliers like weights; TF-slim does not decay "
                "BatchNorm's, the ResNets of 2015 did",
                fix="twice param { lr_mult: 1 decay_mult: 0 }",
                at=layer.at("param"),
            )


def _decays(message: Any, place: int) -> bool:
    specs = message.param
    return place >= len(specs) or bool(specs[place].lr_mult and specs[place].decay_mult)


@net_rule(
    "bn-not-synchronized", NOTE, "parallel.cpp; github.com/BVLC/caffe issue 5927", phase="TRAIN"
)
def bn_not_synchronized(evidence: NetEvidence) -> Hits:
    """Running statistics of only the first of several GPUs."""
    if evidence.claims.num_gpus > 1 and any(evidence.net.of_type("BatchNorm")):
        yield Hit(
            what=f"BatchNorm on {evidence.claims.num_gpus} GPUs",
            why="gradients are averaged, running statistics are not: snapshots and tests have "
            "those of the first GPU",
            fix="nothing to correct; re-estimate them if tests look worse than training",
            at=evidence.net.file.at(),
        )
