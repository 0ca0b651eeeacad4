"""The end of the net: losses, measures, dropout, and labels against outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import comparisons, num_classes, source_of
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, rule
from irv2caffe.check.roles import has_loss
from irv2caffe.check.zeros import may_be_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, Layer, PhaseNet

_LOG_LOSSES = ("SoftmaxWithLoss", "InfogainLoss", "MultinomialLogisticLoss")


@rule("no-loss", ERROR, "net", "net.cpp, Net::Backward")
def no_loss(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A solver's training net without a loss."""
    if net.phase != "TRAIN" or evidence.solver is None or not net.layers or has_loss(net):
        return
    if any(net.of_type("Input")) or any(may_be_loss(layer, net) for layer in net.layers):
        return  # deploy-net says the one, unknown-layer-type the other
    what = "no loss layer in TRAIN"
    why = "Caffe trains without a word, and without a gradient: the loss is 0 and nothing changes"
    yield Hit(what, why, 'a layer { type: "SoftmaxWithLoss" }', net.file.at())


@rule("deploy-net", ERROR, "net", "net.cpp, Net::Init; input_layer.hpp")
def deploy_net(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """The solver was given the net for use."""
    if net.phase != "TRAIN" or evidence.solver is None or has_loss(net):
        return
    inputs = list(net.of_type("Input"))
    if inputs and not net.data_layers:
        yield Hit(
            "this is a deploy net: an Input, and no loss",
            "nothing feeds its input and nothing is learned; Caffe runs it without a word",
            "net: the train_val.prototxt",
            inputs[0].at(),
        )


@rule("double-softmax", WARNING, "net", "softmax_loss_layer.cpp")
def double_softmax(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A loss that takes the softmax of a softmax, or the logarithm of no probability."""
    del evidence
    for layer in net.of_type("SoftmaxWithLoss", "InfogainLoss", "MultinomialLogisticLoss"):
        makers = net.sources(layer)
        if not makers or makers[0] is None:
            continue
        is_softmax = makers[0].type == "Softmax"
        if layer.type != "MultinomialLogisticLoss" and is_softmax:
            yield Hit(
                f"{layer.type} reads a Softmax",
                f"{layer.type} has a softmax of its own (InfogainLoss since Caffe 1.0): "
                "probabilities are squashed twice, and gradients nearly vanish",
                "give it what goes into the Softmax",
                layer.at("bottom"),
            )
        if layer.type == "MultinomialLogisticLoss" and makers[0].type in {
            "InnerProduct",
            "Convolution",
        }:
            what = "MultinomialLogisticLoss reads what is not a probability"
            why = "it takes the logarithm of its input as it is"
            yield Hit(what, why, 'type: "SoftmaxWithLoss"', layer.at("bottom"))


@rule("top-k", ERROR, "net", "accuracy_layer.cpp, Reshape")
def top_k(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Accuracy among more classes than there are."""
    del evidence
    for layer in net.of_type("Accuracy"):
        classes, wanted = num_classes(net, layer), layer.message.accuracy_param.top_k
        at = layer.at("accuracy_param", "top_k")
        if classes is None or wanted < classes:
            continue
        if wanted > classes:
            what = f"top_k: {wanted} of {classes} classes"
            why = "Caffe stops: top_k must be less than or equal to the number of classes"
            yield Hit(what, why, f"top_k: {max(1, min(5, classes - 1))}", at)
        else:
            what = f"top_k: {wanted} of {classes} classes"
            yield Hit(what, "it is always 100 %", "take the layer out", at, WARNING)


@rule("accuracy-in-train", NOTE, "net", "accuracy_layer.cpp")
def accuracy_in_train(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Accuracy is computed in every training step."""
    if net.phase == "TRAIN" and evidence.solver is not None:
        for layer in net.of_type("Accuracy"):
            why = "it costs a little time in every iteration, and no harm"
            yield Hit("an Accuracy layer in TRAIN", why, "include { phase: TEST }", layer.at())


@rule("no-measure", NOTE, "net", "solver.cpp, Test")
def no_measure(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A classifier whose tests measure no accuracy."""
    if net.phase != "TEST" or evidence.solver is None or not net.test_iter:
        return
    if any(net.of_type(*_LOG_LOSSES)) and not any(net.of_type("Accuracy", "Python")):
        fix = 'a layer { type: "Accuracy" } in TEST'
        yield Hit("no Accuracy layer in TEST", "tests tell the loss only", fix, net.file.at())


@rule("label-range", ERROR, "net", "softmax_loss_layer.cpp, Forward_cpu (DCHECK in debug builds)")
def label_range(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Labels that the classifier has no output for."""
    for layer, classes, maker in comparisons(net):
        facts = evidence.databases.get(source_of(maker)) if maker is not None else None
        if maker is None or facts is None or facts.max_label is None:
            continue
        at, ignored = layer.at("bottom"), _ignored_label(layer)
        source = source_of(maker)
        why = "Caffe reads memory that is not the net's, without an error: the loss is garbage"
        if facts.max_label >= classes and facts.max_label != ignored:
            yield Hit(
                f"{source} has label {facts.max_label}, the net {classes} outputs",
                why,
                f"num_output: {facts.max_label + 1}, or mend the labels",
                at,
            )
        elif facts.min_label is not None and facts.min_label < 0 and facts.min_label != ignored:
            what = f"{source} has label {facts.min_label}"
            yield Hit(what, why, "labels count from 0", at)
        elif net.phase == "TRAIN" and facts.max_label + 1 < classes:
            yield Hit(
                f"{classes} outputs, labels up to {facts.max_label} in {source}",
                "outputs without images learn to be silent; 1001 outputs are TensorFlow's, whose "
                "label 0 is the background",
                f"num_output: {facts.max_label + 1}, unless other data has more classes",
                at,
                NOTE,
            )


def _ignored_label(layer: Layer) -> int | None:
    name = "accuracy_param" if layer.type == "Accuracy" else "loss_param"
    param = getattr(layer.message, name)
    return int(param.ignore_label) if param.HasField("ignore_label") else None


@rule("outputs-differ", WARNING, "net", "accuracy_layer.cpp; softmax_loss_layer.cpp")
def outputs_differ(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Classifiers of one label with different numbers of outputs."""
    del evidence
    by_label: dict[str, dict[int, Layer]] = {}
    for layer, classes, maker in comparisons(net):
        if maker is not None:
            by_label.setdefault(layer.message.bottom[1], {}).setdefault(classes, layer)
    for label, found in by_label.items():
        if len(found) > 1:
            yield Hit(
                f"{' and '.join(map(str, sorted(found)))} classes for {label!r}",
                "one of them was forgotten when the number of classes was changed",
                "the same num_output in all classifiers",
                tuple(place for layer in found.values() for place in layer.at("bottom")),
            )


@rule("aux-loss-weight", NOTE, "net", "arXiv 1409.4842, section 5 (0.3); TF-slim (0.4)")
def aux_loss_weight(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Several losses of one label, all with full weight."""
    del evidence
    if net.phase != "TRAIN":
        return
    full: dict[str, list[Layer]] = {}
    for layer in net.of_type("SoftmaxWithLoss", "InfogainLoss"):
        weights = list(layer.message.loss_weight) or [1.0]
        if len(layer.message.bottom) > 1 and weights[0] == 1:
            full.setdefault(layer.message.bottom[1], []).append(layer)
    for label, layers in full.items():
        if len(layers) > 1:
            yield Hit(
                f"{len(layers)} losses of {label!r}, each with weight 1",
                "auxiliary classifiers are to help the main one, not to outvote it",
                "loss_weight: 0.3 or 0.4 for the auxiliary ones",
                tuple(place for layer in layers for place in layer.at()),
            )


@rule("dropout-ratio", ERROR, "net", "dropout_layer.cpp, LayerSetUp; caffe.proto")
def dropout_ratio(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A share of dropped values that cannot be, or that is what TensorFlow keeps."""
    del evidence
    for layer in net.of_type("Dropout"):
        ratio = layer.message.dropout_param.dropout_ratio
        at = layer.at("dropout_param", "dropout_ratio")
        if not 0 <= ratio < 1:
            why = "everything is divided by 1 - dropout_ratio: the run ends in nan or stops"
            yield Hit(f"dropout_ratio: {ratio:g}", why, "dropout_ratio: 0.2", at)
        elif ratio > 0.7:
            yield Hit(
                f"dropout_ratio: {ratio:g}",
                "Caffe's number is the share that is dropped, TensorFlow's keep_prob the share "
                "that is kept: the paper keeps 0.8"
                if net.is_tensorflow_style
                else "Caffe's number is the share that is dropped; GoogLeNet's auxiliary heads "
                "have 0.7",
                f"dropout_ratio: {1 - ratio:.2g}, if {ratio:g} was to be kept",
                at,
                WARNING if net.is_tensorflow_style else NOTE,
            )


@rule("unread-top", NOTE, "net", "net.cpp, Net::Init: unread tops are outputs")
def unread_top(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Something is computed in training that no loss reads."""
    if net.phase != "TRAIN" or evidence.solver is None or not has_loss(net):
        return
    for layer in net.layers:
        if layer.type.endswith("Loss") or layer.type in {"Accuracy", "SoftmaxWithLoss", "Silence"}:
            continue
        if layer.message.loss_weight or layer.type in {"Input", "Data", "ImageData", "DummyData"}:
            continue
        for top in net.unread_tops(layer):
            yield Hit(
                f"top {top[:60]!r} is read by no layer",
                "it is computed for nothing, and every value of it is printed in the log as an "
                "output",
                "a Silence layer, or leave the layer out of TRAIN",
                layer.at("top"),
            )


@rule("infogain-matrix", ERROR, "net", "infogain_loss_layer.cpp, LayerSetUp")
def infogain_matrix(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """InfogainLoss without its matrix."""
    for layer in net.of_type("InfogainLoss"):
        source = layer.message.infogain_loss_param.source
        at = layer.at("infogain_loss_param")
        if len(layer.message.bottom) > 2:
            continue
        if not source:
            what, why = "InfogainLoss without a matrix", "Caffe stops: it takes source or a bottom"
            yield Hit(what, why, "infogain_loss_param { source: ... }", at)
            continue
        fix = "build-net --label-smoothing writes it"
        if not evidence.files.get(source, True):
            what = f"the matrix {source} is not there"
            yield Hit(what, "Caffe stops when it makes the net", fix, at)
        classes, shape = num_classes(net, layer), evidence.blobs.get(source)
        if classes and shape and shape[-2:] != (classes, classes):
            what = f"a matrix of {shape[-2]}x{shape[-1]} for {classes} classes"
            yield Hit(what, "Caffe stops when it makes the net", fix, at)
