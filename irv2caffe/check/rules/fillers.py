"""How weights start, and which of them learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.check.arithmetic import is_stepped_by_python
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, Severity, rule
from irv2caffe.check.fork_fields import NVCAFFE
from irv2caffe.check.roles import has_loss
from irv2caffe.check.zeros import WEIGHTED, is_frozen, is_zero, stuck
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, Layer, PhaseNet

_FILLER_FIELDS = ("weight_filler", "bias_filler", "filler", "data_filler")
_TYPES = ("constant", "gaussian", "positive_unitball", "uniform", "xavier", "msra", "bilinear")
# NVCaffe's, which draw once and give every blob the same numbers (NVIDIA/caffe, filler.hpp).
_OF_NVCAFFE = {f"{name}static": name for name in _TYPES if name != "constant"}


def _weighted(net: PhaseNet, evidence: Evidence) -> Iterator[tuple[Layer, str, Any]]:
    """Layers whose weights start from their filler: layer, name of the setting, the filler."""
    owners: set[str] = set()
    loaded = evidence.claims.weights or {}
    for layer in net.of_type(*WEIGHTED):
        specs = layer.message.param
        shared = specs[0].name if specs else ""
        if (shared and shared in owners) or layer.name in loaded or layer.message.blobs:
            continue
        owners.add(shared)
        name = WEIGHTED[layer.type]
        yield layer, name, getattr(layer.message, name).weight_filler


@rule("zero-filler", ERROR, "net", "filler.hpp; caffe.proto, FillerParameter")
def zero_filler(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Weights that start at 0 and stay there."""
    if net.phase != "TRAIN" or not has_loss(net):
        return
    found = {
        layer.index: name for layer, name, filler in _weighted(net, evidence) if is_zero(filler)
    }
    for index in sorted(stuck(net, found)):
        layer, name = net.layers[index], found[index]
        written = getattr(layer.message, name).HasField("weight_filler")
        frozen = is_frozen(layer)
        kind = "bilinear" if frozen and layer.type == "Deconvolution" else "xavier"
        yield Hit(
            f"weight_filler of a {layer.type} is "
            + ("a constant 0" if written else "missing, which is a constant 0")
            + (", and its lr_mult is 0" if frozen else ""),
            "with weights of 0 nothing flows forth or back through the layer, and it never learns "
            "(deploy nets have no fillers: was one copied?)",
            f'weight_filler {{ type: "{kind}" }}; or start from weights (caffe train -weights, '
            "irv2caffe train --weights): check --weights FILE",
            layer.at(name),
            _severity_of_zeros(evidence),
        )


def _severity_of_zeros(evidence: Evidence) -> Severity | None:
    """A net alone, or one that a script trains, may get its weights from elsewhere."""
    if evidence.solver is None or is_stepped_by_python(evidence):
        return WARNING
    return NOTE if evidence.solver.message.weights else None


@rule("constant-filler", WARNING, "net", "filler.hpp, ConstantFiller")
def constant_filler(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Weights that all start at the same number."""
    if net.phase != "TRAIN":
        return
    for layer, name, filler in _weighted(net, evidence):
        param = getattr(layer.message, name)
        group = param.group if name == "convolution_param" else 1
        if (
            filler.type == "constant"
            and filler.value
            and not is_frozen(layer)
            and group == 1 != param.num_output
        ):
            yield Hit(
                f"weight_filler of a {layer.type} is the constant {filler.value:g}",
                "all its outputs start equal, get equal gradients and stay equal",
                'weight_filler { type: "xavier" }',
                layer.at(name, "weight_filler"),
            )


@rule("unknown-filler", ERROR, "net", "filler.hpp, GetFiller")
def unknown_filler(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A type of filler that Caffe does not have."""
    known = {*_TYPES, *(_OF_NVCAFFE if evidence.claims.flavor == "nvcaffe" else ())}
    for layer in net.layers:
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
                    kind, instead = filler.type[:60], _OF_NVCAFFE.get(filler.type, "")
                    yield Hit(
                        f"{name} of type {kind!r}" + f"; {NVCAFFE} has it" * bool(instead),
                        f"Caffe stops: Unknown filler name: {kind}",
                        f'type: "{instead}"' if instead else f"one of {', '.join(_TYPES)}",
                        layer.at(param_name, name, "type"),
                    )


def _is_used(layer: Layer, param: Any, name: str) -> bool:
    """Whether Caffe asks for the filler at all."""
    if name == "bias_filler":
        return bool(getattr(param, "bias_term", True))
    return name != "filler" or len(layer.message.bottom) < 2


@rule("filler-range", WARNING, "net", "caffe.proto, FillerParameter")
def filler_range(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A gaussian without std or a uniform without a range, where no BatchNorm follows."""
    if net.phase != "TRAIN":
        return
    for layer, name, filler in _weighted(net, evidence):
        if any(reader.type == "BatchNorm" for reader in net.readers(layer)):
            continue
        fix = 'weight_filler { type: "xavier" }'
        at = layer.at(name, "weight_filler")
        if filler.type == "gaussian" and not filler.HasField("std"):
            why = "its default of 1 makes activations grow by the root of the fan-in per layer"
            yield Hit("a gaussian weight_filler without std", why, f"std: 0.01, or {fix}", at)
        if filler.type == "uniform" and not (filler.HasField("min") or filler.HasField("max")):
            why = "its default is 0 to 1: all weights positive, and large"
            yield Hit("a uniform weight_filler without min and max", why, fix, at)


@rule("filler-setting-ignored", NOTE, "net", "filler.hpp, XavierFiller and MSRAFiller")
def filler_setting_ignored(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """The std of xavier or msra."""
    if net.phase != "TRAIN":
        return
    for layer, name, filler in _weighted(net, evidence):
        if filler.type in {"xavier", "msra"} and filler.HasField("std"):
            yield Hit(
                f"std of {filler.type}",
                f"{filler.type} takes its range from the fan-in and does not read std",
                "take std out",
                layer.at(name, "weight_filler", "std"),
            )


@rule("xavier-fan-in", NOTE, "net", "filler.hpp, XavierFiller; TF-slim's default initializer")
def xavier_fan_in(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Caffe's xavier where TensorFlow's is meant."""
    if net.phase != "TRAIN" or not net.is_tensorflow_style:
        return
    for layer, name, filler in _weighted(net, evidence):
        if filler.type == "xavier" and filler.variance_norm == filler.FAN_IN:
            yield Hit(
                "xavier by the fan-in",
                "TensorFlow's default averages fan-in and fan-out, as Glorot and Bengio do; the "
                "difference is small where a BatchNorm follows",
                "variance_norm: AVERAGE",
                layer.at(name, "weight_filler"),
            )


@rule("scale-filler-zero", WARNING, "net", "scale_layer.cpp, LayerSetUp; caffe.proto")
def scale_filler_zero(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A Scale whose multiplier starts at 0."""
    loaded = evidence.claims.weights or {}
    if net.phase != "TRAIN":
        return
    for layer in net.of_type("Scale"):
        param = layer.message.scale_param
        zero = (
            param.HasField("filler") and param.filler.type == "constant" and not param.filler.value
        )
        adds = any(reader.type == "Eltwise" for reader in net.readers(layer))
        if zero and not adds and layer.name not in loaded:
            yield Hit(
                "the filler of a Scale is a constant 0",
                "filler { } without a value is 0, no filler at all is 1; with 0 nothing passes at "
                "the start, and no gradient reaches what lies before",
                'filler { type: "constant" value: 1 }',
                layer.at("scale_param", "filler"),
            )


@rule("nothing-learns", ERROR, "net", "net.cpp, Net::Init")
def nothing_learns(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """An lr_mult of 0 everywhere."""
    layers = list(net.of_type(*WEIGHTED, "Scale", "Bias", "PReLU"))
    if net.phase != "TRAIN" or evidence.solver is None or not layers:
        return
    if all(_learns_nothing(layer) for layer in layers):
        what = "lr_mult is 0 for every weight of the net"
        yield Hit(what, "the run changes nothing", "lr_mult: 1 where it is to learn", net.file.at())


def _learns_nothing(layer: Layer) -> bool:
    specs = layer.message.param
    wanted = 1
    if layer.type in WEIGHTED:
        param = getattr(layer.message, WEIGHTED[layer.type])
        wanted = 2 if getattr(param, "bias_term", True) else 1
    elif layer.type == "Scale":
        wanted = 1 + int(layer.message.scale_param.bias_term)
    return len(specs) >= wanted and all(spec.lr_mult == 0 for spec in specs)
