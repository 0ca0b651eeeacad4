"""Initial weights, and layers that do not learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.check.arithmetic import is_stepped_by_python
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, Hits, Severity
from irv2caffe.check.fork_fields import NVCAFFE
from irv2caffe.check.registry import net_rule
from irv2caffe.check.roles import has_loss
from irv2caffe.check.zeros import WEIGHTED, is_frozen, is_zero, layers_that_stay_at_zero
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, Layer, NetEvidence

_FILLER_FIELDS = ("weight_filler", "bias_filler", "filler", "data_filler")
_TYPES = ("constant", "gaussian", "positive_unitball", "uniform", "xavier", "msra", "bilinear")
# NVCaffe's fillers that draw once and give every blob the same numbers (NVIDIA/caffe, filler.hpp).
_NVCAFFE_TYPES = {f"{name}static": name for name in _TYPES if name != "constant"}


def _filled_layers(evidence: NetEvidence) -> Iterator[tuple[Layer, str, Any]]:
    """Layers whose weights start from their filler: layer, name of its parameter, the filler."""
    owners: set[str] = set()
    loaded = evidence.claims.weights or {}
    for layer in evidence.net.of_type(*WEIGHTED):
        specs = layer.message.param
        shared = specs[0].name if specs else ""
        if (shared and shared in owners) or layer.name in loaded or layer.message.blobs:
            continue
        owners.add(shared)
        name = WEIGHTED[layer.type]
        yield layer, name, getattr(layer.message, name).weight_filler


@net_rule("zero-filler", ERROR, "filler.hpp; caffe.proto, FillerParameter", phase="TRAIN")
def zero_filler(evidence: NetEvidence) -> Hits:
    """Weights that start at 0 and stay there."""
    net = evidence.net
    if not has_loss(net):
        return
    layers = _filled_layers(evidence)
    found = {layer.index: name for layer, name, filler in layers if is_zero(filler)}
    for index in sorted(layers_that_stay_at_zero(net, found)):
        layer, name = net.layers[index], found[index]
        written = getattr(layer.message, name).HasField("weight_filler")
        frozen = is_frozen(layer)
        kind = "bilinear" if frozen and layer.type == "Deconvolution" else "xavier"
        yield Hit(
            what=f"weight_filler of a {layer.type} is "
            + ("a constant 0" if written else "missing, which is a constant 0")
            + (", and its lr_mult is 0" if frozen else ""),
            why="with weights of 0 the layer passes on neither values nor gradients, and it never "
            "learns (common in a copied deploy net, which has no fillers)",
            fix=f'weight_filler {{ type: "{kind}" }}; or start from weights (caffe train -weights, '
            "irv2caffe train --weights): check --weights FILE",
            at=layer.at(name),
            severity=_severity_of_zeros(evidence),
        )


def _severity_of_zeros(evidence: Evidence) -> Severity | None:
    """A lower severity if the weights may come from elsewhere, as in a single net."""
    if evidence.solver is None or is_stepped_by_python(evidence):
        return WARNING
    return NOTE if evidence.solver.message.weights else None


@net_rule("constant-filler", WARNING, "filler.hpp, ConstantFiller", phase="TRAIN")
def constant_filler(evidence: NetEvidence) -> Hits:
    """Weights that all start at the same number."""
    for layer, name, filler in _filled_layers(evidence):
        if filler.type != "constant" or not filler.value or is_frozen(layer):
            continue
        param = getattr(layer.message, name)
        group = param.group if name == "convolution_param" else 1
        if group == 1 != param.num_output:
            yield Hit(
                what=f"weight_filler of a {layer.type} is the constant {filler.value:g}",
                why="all its outputs start equal, get equal gradients and stay equal",
                fix='weight_filler { type: "xavier" }',
                at=layer.at(name, "weight_filler"),
            )


@net_rule("unknown-filler", ERROR, "filler.hpp, GetFiller")
def unknown_filler(evidence: NetEvidence) -> Hits:
    """A type of filler that Caffe does not have."""
    known = {*_TYPES, *(_NVCAFFE_TYPES if evidence.claims.flavor == "nvcaffe" else ())}
    for layer in evidence.net.layers:
        param_name = messages.LAYER_TYPES.get(layer.type) or ""
        if not param_name or not layer.message.HasField(param_name):
            continue
        param = getattr(layer.message, param_name)
        for name in _FILLER_FIELDS:
            if name not in param.DESCRIPTOR.fields_by_name or not _is_used(layer, param, name):
                continue
            fillers = getattr(param, name)
            for filler in fillers if name == "data_filler" else [fillers]:
                if filler.type not in known:
                    kind, instead = filler.type[:60], _NVCAFFE_TYPES.get(filler.type, "")
                    yield Hit(
                        what=f"{name} of type {kind!r}" + f"; {NVCAFFE} has it" * bool(instead),
                        why=f"Caffe stops: Unknown filler name: {kind}",
                        fix=f'type: "{instead}"' if instead else f"one of {', '.join(_TYPES)}",
                        at=layer.at(param_name, name, "type"),
                    )


def _is_used(layer: Layer, param: Any, name: str) -> bool:
    """Whether Caffe reads the filler at all."""
    if name == "bias_filler":
        return bool(getattr(param, "bias_term", True))
    return name != "filler" or len(layer.message.bottom) < 2


@net_rule("filler-range", WARNING, "caffe.proto, FillerParameter", phase="TRAIN")
def filler_range(evidence: NetEvidence) -> Hits:
    """A gaussian filler without std or a uniform one without range, where no BatchNorm follows."""
    for layer, name, filler in _filled_layers(evidence):
        if any(reader.type == "BatchNorm" for reader in evidence.net.readers(layer)):
            continue
        fix = 'weight_filler { type: "xavier" }'
        at = layer.at(name, "weight_filler")
        if filler.type == "gaussian" and not filler.HasField("std"):
            yield Hit(
                what="a gaussian weight_filler without std",
                why="its default of 1 makes activations grow by the root of the fan-in per layer",
                fix=f"std: 0.01, or {fix}",
                at=at,
            )
        if filler.type == "uniform" and not (filler.HasField("min") or filler.HasField("max")):
            yield Hit(
                what="a uniform weight_filler without min and max",
                why="its default is 0 to 1: all weights positive, and large",
                fix=fix,
                at=at,
            )


@net_rule("filler-setting-ignored", NOTE, "filler.hpp, XavierFiller and MSRAFiller", phase="TRAIN")
def filler_setting_ignored(evidence: NetEvidence) -> Hits:
    """A ``std`` of xavier or msra, which do not read it."""
    for layer, name, filler in _filled_layers(evidence):
        if filler.type in {"xavier", "msra"} and filler.HasField("std"):
            yield Hit(
                what=f"std of {filler.type}",
                why=f"{filler.type} takes its range from the fan-in and does not read std",
                fix="remove std",
                at=layer.at(name, "weight_filler", "std"),
            )


@net_rule(
    "xavier-fan-in", NOTE, "filler.hpp, XavierFiller; TF-slim's default initializer", phase="TRAIN"
)
def xavier_fan_in(evidence: NetEvidence) -> Hits:
    """Caffe's xavier by the fan-in in a net from TensorFlow, which averages fan-in and fan-out."""
    for layer, name, filler in _filled_layers(evidence) if evidence.net.is_tensorflow_style else ():
        if filler.type == "xavier" and filler.variance_norm == filler.FAN_IN:
            yield Hit(
                what="xavier by the fan-in",
                why="TensorFlow's default averages fan-in and fan-out, as Glorot and Bengio do; "
                "the difference is small where a BatchNorm follows",
                fix="variance_norm: AVERAGE",
                at=layer.at(name, "weight_filler"),
            )


@net_rule("scale-filler-zero", WARNING, "scale_layer.cpp, LayerSetUp; caffe.proto", phase="TRAIN")
def scale_filler_zero(evidence: NetEvidence) -> Hits:
    """A Scale whose multiplier starts at 0."""
    loaded = evidence.claims.weights or {}
    for layer in evidence.net.of_type("Scale"):
        param = layer.message.scale_param
        adds = any(reader.type == "Eltwise" for reader in evidence.net.readers(layer))
        is_written = param.HasField("filler") and is_zero(param.filler)
        if is_written and not adds and layer.name not in loaded:
            yield Hit(
                what="the filler of a Scale is a constant 0",
                why="filler { } without a value is 0, no filler at all is 1; with 0 nothing passes "
                "at the start, and no gradient reaches the layers before",
                fix='filler { type: "constant" value: 1 }',
                at=layer.at("scale_param", "filler"),
            )


@net_rule("nothing-learns", ERROR, "net.cpp, Net::Init", phase="TRAIN")
def nothing_learns(evidence: NetEvidence) -> Hits:
    """An ``lr_mult`` of 0 for every weight of the net."""
    layers = list(evidence.net.of_type(*WEIGHTED, "Scale", "Bias", "PReLU"))
    if evidence.solver is not None and layers and all(map(_learns_nothing, layers)):
        yield Hit(
            what="lr_mult is 0 for every weight of the net",
            why="the run changes nothing",
            fix="lr_mult: 1 where the net should learn",
            at=evidence.net.file.at(),
        )


def _learns_nothing(layer: Layer) -> bool:
    specs = layer.message.param
    blobs = 1
    if layer.type in WEIGHTED:
        blobs += bool(getattr(getattr(layer.message, WEIGHTED[layer.type]), "bias_term", True))
    elif layer.type == "Scale":
        blobs += bool(layer.message.scale_param.bias_term)
    return len(specs) >= blobs and all(spec.lr_mult == 0 for spec in specs)
