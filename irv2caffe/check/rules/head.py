"""The end of the net: losses, accuracies, dropout, and labels compared with outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import comparisons, num_classes
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, Hits
from irv2caffe.check.registry import net_rule
from irv2caffe.check.roles import has_loss
from irv2caffe.check.zeros import may_be_loss

if TYPE_CHECKING:
    from irv2caffe.check.evidence import Layer, NetEvidence

_WITHOUT_SOFTMAX = "MultinomialLogisticLoss"
_LOG_LOSSES = ("SoftmaxWithLoss", "InfogainLoss", _WITHOUT_SOFTMAX)


@net_rule("no-loss", ERROR, "net.cpp, Net::Backward", phase="TRAIN")
def no_loss(evidence: NetEvidence) -> Hits:
    """A solver's training net without a loss."""
    net = evidence.net
    if evidence.solver is None or not net.layers or has_loss(net):
        return
    if any(net.of_type("Input")) or any(may_be_loss(layer, net) for layer in net.layers):
        return  # deploy-net or unknown-layer-type reports it
    yield Hit(
        what="no loss layer in TRAIN",
        why="Caffe trains without a message and without a gradient: the loss is 0 and nothing "
        "changes",
        fix='a layer { type: "SoftmaxWithLoss" }',
        at=net.file.at(),
    )


@net_rule("deploy-net", ERROR, "net.cpp, Net::Init; input_layer.hpp", phase="TRAIN")
def deploy_net(evidence: NetEvidence) -> Hits:
    """A solver with a deploy net."""
    inputs = list(evidence.net.of_type("Input"))
    if evidence.solver is None or has_loss(evidence.net) or evidence.net.data_layers:
        return
    if inputs:
        yield Hit(
            what="this is a deploy net: an Input, and no loss",
            why="it gets no data and learns nothing; Caffe runs it without a message",
            fix="net: the train_val.prototxt",
            at=inputs[0].at(),
        )


@net_rule("double-softmax", WARNING, "softmax_loss_layer.cpp")
def double_softmax(evidence: NetEvidence) -> Hits:
    """A loss with a softmax of a softmax, or with the logarithm of values without a softmax."""
    for layer in evidence.net.of_type(*_LOG_LOSSES):
        producer = next(iter(evidence.net.sources(layer)), None)
        if producer is None:
            continue
        if layer.type != _WITHOUT_SOFTMAX and producer.type == "Softmax":
            yield Hit(
                what=f"{layer.type} reads a Softmax",
                why=f"{layer.type} has a softmax of its own (InfogainLoss since Caffe 1.0): "
                "probabilities are squashed twice, and gradients nearly vanish",
                fix="give it the bottom of the Softmax",
                at=layer.at("bottom"),
            )
        elif layer.type == _WITHOUT_SOFTMAX and producer.type in {"InnerProduct", "Convolution"}:
            yield Hit(
                what="MultinomialLogisticLoss reads values that are not probabilities",
                why="it takes the logarithm of its bottom as it is",
                fix='type: "SoftmaxWithLoss"',
                at=layer.at("bottom"),
            )


@net_rule("top-k", ERROR, "accuracy_layer.cpp, Reshape")
def top_k(evidence: NetEvidence) -> Hits:
    """A ``top_k`` that is not below the number of classes."""
    for layer in evidence.net.of_type("Accuracy"):
        classes, wanted = num_classes(evidence.net, layer), layer.message.accuracy_param.top_k
        if classes is None or wanted < classes:
            continue
        too_many = wanted > classes
        yield Hit(
            what=f"top_k: {wanted} of {classes} classes",
            why="Caffe stops: top_k must be less than or equal to the number of classes"
            if too_many
            else "it is always 100 %",
            fix=f"top_k: {max(1, min(5, classes - 1))}" if too_many else "remove the layer",
            at=layer.at("accuracy_param", "top_k"),
            severity=None if too_many else WARNING,
        )


@net_rule("accuracy-in-train", NOTE, "accuracy_layer.cpp", phase="TRAIN")
def accuracy_in_train(evidence: NetEvidence) -> Hits:
    """An Accuracy that is computed in every training step."""
    for layer in evidence.net.of_type("Accuracy") if evidence.solver is not None else ():
        yield Hit(
            what="an Accuracy layer in TRAIN",
            why="it costs a little time in every iteration, and does no harm",
            fix="include { phase: TEST }",
            at=layer.at(),
        )


@net_rule("no-measure", NOTE, "solver.cpp, Test", phase="TEST")
def no_measure(evidence: NetEvidence) -> Hits:
    """A classifier without Accuracy in its tests."""
    net = evidence.net
    if evidence.solver is None or not net.test_iter or any(net.of_type("Accuracy", "Python")):
        return
    if any(net.of_type(*_LOG_LOSSES)):
        yield Hit(
            what="no Accuracy layer in TEST",
            why="tests report only the loss",
            fix='a layer { type: "Accuracy" } in TEST',
            at=net.file.at(),
        )


@net_rule("label-range", ERROR, "softmax_loss_layer.cpp, Forward_cpu (DCHECK in debug builds)")
def label_range(evidence: NetEvidence) -> Hits:
    """Labels without an output of the classifier, or outputs without labels."""
    for layer, classes, producer in comparisons(evidence.net):
        facts = evidence.facts_of(producer) if producer is not None else None
        if producer is None or facts is None or facts.max_label is None:
            continue
        at, ignored = layer.at("bottom"), _ignored_label(layer)
        why = "Caffe reads memory outside of the blob, without an error: the loss is garbage"
        if facts.max_label >= classes and facts.max_label != ignored:
            yield Hit(
                what=f"{producer.source} has label {facts.max_label}, the net {classes} outputs",
                why=why,
                fix=f"num_output: {facts.max_label + 1}, or correct the labels",
                at=at,
            )
        elif facts.min_label is not None and facts.min_label < 0 and facts.min_label != ignored:
            what = f"{producer.source} has label {facts.min_label}"
            yield Hit(what=what, why=why, fix="labels start at 0", at=at)
        elif evidence.net.phase == "TRAIN" and facts.max_label + 1 < classes:
            yield Hit(
                what=f"{classes} outputs, labels up to {facts.max_label} in {producer.source}",
                why="outputs without images learn to be silent; 1001 outputs are TensorFlow's, "
                "whose label 0 is the background",
                fix=f"num_output: {facts.max_label + 1}, unless other data has more classes",
                at=at,
                severity=NOTE,
            )


def _ignored_label(layer: Layer) -> int | None:
    name = "accuracy_param" if layer.type == "Accuracy" else "loss_param"
    param = getattr(layer.message, name)
    return int(param.ignore_label) if param.HasField("ignore_label") else None


@net_rule("outputs-differ", WARNING, "accuracy_layer.cpp; softmax_loss_layer.cpp")
def outputs_differ(evidence: NetEvidence) -> Hits:
    """Classifiers of the same label with different numbers of outputs."""
    by_label: dict[str, dict[int, Layer]] = {}
    for layer, classes, producer in comparisons(evidence.net):
        if producer is not None:
            by_label.setdefault(layer.message.bottom[1], {}).setdefault(classes, layer)
    for label, found in by_label.items():
        if len(found) > 1:
            yield Hit(
                what=f"{' and '.join(map(str, sorted(found)))} classes for {label!r}",
                why="probably the number of classes was changed in only one of them",
                fix="the same num_output in all classifiers",
                at=tuple(place for layer in found.values() for place in layer.at("bottom")),
            )


@net_rule("aux-loss-weight", NOTE, "arXiv 1409.4842, section 5 (0.3); TF-slim (0.4)", phase="TRAIN")
def aux_loss_weight(evidence: NetEvidence) -> Hits:
    """Several losses of the same label, all with full weight."""
    full: dict[str, list[Layer]] = {}
    for layer in evidence.net.of_type("SoftmaxWithLoss", "InfogainLoss"):
        weights = list(layer.message.loss_weight) or [1.0]
        if len(layer.message.bottom) > 1 and weights[0] == 1:
            full.setdefault(layer.message.bottom[1], []).append(layer)
    for label, layers in full.items():
        if len(layers) > 1:
            yield Hit(
                what=f"{len(layers)} losses of {label!r}, each with weight 1",
                why="auxiliary classifiers should help the main one, not outweigh it",
                fix="loss_weight: 0.3 or 0.4 for the auxiliary ones",
                at=tuple(place for layer in layers for place in layer.at()),
            )


@net_rule("dropout-ratio", ERROR, "dropout_layer.cpp, LayerSetUp; caffe.proto")
def dropout_ratio(evidence: NetEvidence) -> Hits:
    """A dropout ratio that is impossible, or that is probably TensorFlow's ``keep_prob``."""
    family = evidence.net.is_tensorflow_style
    for layer in evidence.net.of_type("Dropout"):
        ratio = layer.message.dropout_param.dropout_ratio
        at = layer.at("dropout_param", "dropout_ratio")
        if not 0 <= ratio < 1:
            yield Hit(
                what=f"dropout_ratio: {ratio:g}",
                why="everything is divided by 1 - dropout_ratio: the run ends in nan or stops",
                fix="dropout_ratio: 0.2",
                at=at,
            )
        elif ratio > 0.7:
            yield Hit(
                what=f"dropout_ratio: {ratio:g}",
                why="Caffe's number is the share that is dropped, TensorFlow's keep_prob the share "
                "that is kept: the paper keeps 0.8"
                if family
                else "Caffe's number is the share that is dropped; GoogLeNet's auxiliary heads "
                "have 0.7",
                fix=f"dropout_ratio: {1 - ratio:.2g}, if {ratio:g} is the share to keep",
                at=at,
                severity=WARNING if family else NOTE,
            )


@net_rule("unread-top", NOTE, "net.cpp, Net::Init: unread tops are outputs", phase="TRAIN")
def unread_top(evidence: NetEvidence) -> Hits:
    """A top that no layer reads in training."""
    if evidence.solver is None or not has_loss(evidence.net):
        return
    skipped = {"Accuracy", "Silence", "Input", "Data", "ImageData", "DummyData"}
    for layer in evidence.net.layers:
        if layer.type.endswith("Loss") or layer.type in skipped or layer.message.loss_weight:
            continue
        for top in evidence.net.unread_tops(layer):
            yield Hit(
                what=f"top {top[:60]!r} is read by no layer",
                why="it is computed for nothing, and every value of it is printed in the log as "
                "an output",
                fix="a Silence layer, or leave the layer out of TRAIN",
                at=layer.at("top"),
            )


@net_rule("infogain-matrix", ERROR, "infogain_loss_layer.cpp, LayerSetUp")
def infogain_matrix(evidence: NetEvidence) -> Hits:
    """An InfogainLoss without its matrix, or with one of another size."""
    for layer in evidence.net.of_type("InfogainLoss"):
        source = layer.message.infogain_loss_param.source
        at = layer.at("infogain_loss_param")
        if len(layer.message.bottom) > 2:
            continue
        if not source:
            yield Hit(
                what="InfogainLoss without a matrix",
                why="Caffe stops: it takes source or a bottom",
                fix="infogain_loss_param { source: ... }",
                at=at,
            )
            continue
        classes, blob = num_classes(evidence.net, layer), evidence.blobs.get(source)
        shape = blob.shape if blob else ()
        what = []
        if not evidence.files.get(source, True):
            what.append(f"the matrix {source} does not exist")
        if classes and shape and shape[-2:] != (classes, classes):
            what.append(f"a matrix of {shape[-2]}x{shape[-1]} for {classes} classes")
        for each in what:
            why, fix = (
                "Caffe stops when it creates the net",
                "build-net writes it for --label-smoothing and --class-weights",
            )
            yield Hit(what=each, why=why, fix=fix, at=at)
