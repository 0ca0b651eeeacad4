"""What Caffe would not even read, or reads otherwise than it looks."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, rule
from irv2caffe.errors import did_you_mean
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, Layer, PhaseNet

_MAX_WORD = 60
_STOPS = "Caffe stops when it makes the net"
_SHARED_PARAMS = frozenset({"transform_param", "loss_param"})


def _troubles(evidence: Evidence, name: str) -> Iterator[Hit]:
    return (hit for rule_name, hit in evidence.troubles if rule_name == name)


@rule("net-missing", ERROR, "run", "upgrade_proto.cpp, ReadNetParamsFromTextFileOrDie")
def net_missing(evidence: Evidence) -> Iterator[Hit]:
    """A net that the solver names is not there."""
    yield from _troubles(evidence, "net-missing")


@rule("net-elsewhere", NOTE, "run", "io.cpp, ReadProtoFromTextFile")
def net_elsewhere(evidence: Evidence) -> Iterator[Hit]:
    """A net is found from another folder than the working one."""
    yield from _troubles(evidence, "net-elsewhere")


@rule("net-refused", ERROR, "run", "net.cpp, Net::Init, and the layer's own source")
def net_refused(evidence: Evidence) -> Iterator[Hit]:
    """Counts or shapes with which Caffe stops."""
    yield from _troubles(evidence, "net-refused")
    for net in evidence.nets:
        error = net.refused
        if error is None:
            continue
        layer = next((each for each in net.layers if each.name == error.layer), None)
        if layer is not None and layer.type in {"Concat", "Eltwise"}:
            continue  # said with the sizes that fit, by grid-mismatch
        at = layer.at() if layer else net.file.at()
        yield Hit(error.message, _STOPS, error.hint or "mend the layer", at)


@rule("unknown-bottom", ERROR, "net", "insert_splits.cpp")
def unknown_bottom(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A bottom that no layer above makes."""
    del evidence
    made: set[str] = set()
    for layer in net.layers:
        for bottom in layer.message.bottom:
            if bottom in made:
                continue
            later = net.layers[layer.index + 1 :]
            is_below = any(bottom in other.message.top for other in later)
            below = "; it is made below" if is_below else ""
            near = did_you_mean(bottom, made)
            yield Hit(
                f"bottom {bottom[:_MAX_WORD]!r} is made by no layer above in {net.phase}{below}",
                f"{_STOPS}: Unknown bottom blob",
                "move the layer down" if below else near or "name a top, or mend the include rules",
                layer.at("bottom"),
            )
        made |= set(layer.message.top)


@rule("duplicate-top", ERROR, "net", "net.cpp, Net::AppendTop")
def duplicate_top(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A top that two layers make."""
    del evidence
    made: set[str] = set()
    for layer in net.layers:
        tops = list(layer.message.top)
        for place, top in enumerate(tops):
            bottoms = list(layer.message.bottom)
            in_place = place < len(bottoms) and bottoms[place] == top
            if (top in made and not in_place) or top in tops[:place]:
                yield Hit(
                    f"top {top[:_MAX_WORD]!r} is made a second time in {net.phase}",
                    f"{_STOPS}: Top blob produced by multiple sources",
                    "give it another name, or include the layers in different phases",
                    layer.at("top"),
                )
        made |= set(tops)


@rule("duplicate-name", WARNING, "net", "net.cpp, Net::CopyTrainedLayersFrom")
def duplicate_name(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Two layers of one name."""
    del evidence
    by_name: dict[str, list[Layer]] = defaultdict(list)
    for layer in net.layers:
        by_name[layer.name].append(layer)
    for name, layers in by_name.items():
        weighted = [layer for layer in layers if has_weights(layer)]
        if len(layers) > 1:
            at = tuple(place for layer in layers for place in layer.at("name"))
            many = len(weighted) > 1
            yield Hit(
                f"{len(layers)} layers are called {name[:_MAX_WORD]!r}",
                "weights are loaded, tested and resumed by name: all of them get the first one's"
                if many
                else "harmless here, but tools that look layers up by name find one of them",
                "give each a name of its own",
                at,
                None if many else NOTE,
            )


def has_weights(layer: Layer) -> bool:
    """Whether a layer has blobs of its own to learn or keep."""
    return layer.type in _WEIGHTED


_WEIGHTED = frozenset(
    {
        "BatchNorm",
        "Bias",
        "Convolution",
        "Deconvolution",
        "Embed",
        "InnerProduct",
        "LSTM",
        "PReLU",
        "Parameter",
        "RNN",
        "Scale",
    }
)


@rule("empty-net", ERROR, "net", "net.cpp, Net::Init")
def empty_net(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A net without layers in a phase."""
    del evidence
    if not net.layers:
        fix = "mend the include and exclude rules, or the states of the solver"
        yield Hit(f"no layer is left in {net.phase}", _STOPS, fix, net.file.at())


@rule("not-finite", ERROR, "run", "the arithmetic of floating point")
def not_finite(evidence: Evidence) -> Iterator[Hit]:
    """A number that is nan or infinite."""
    why = "it makes every weight nan, and Caffe goes on and exits 0"
    solver = evidence.solver
    for path in _not_finite(solver.message) if solver else ():
        assert solver is not None
        yield Hit(
            f"{'.'.join(path)} is not a finite number", why, "write a number", solver.at(*path)
        )
    for net in evidence.nets:
        for layer in net.layers:
            for path in _not_finite(layer.message):
                what = f"{'.'.join(path)} is not a finite number"
                yield Hit(what, why, "write a number", layer.at(*path))


def _not_finite(message: Any) -> Iterator[tuple[str, ...]]:
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.name in {"blobs", "net_param", "train_net_param", "test_net_param"}:
            continue
        for item in values:
            if isinstance(item, float) and not math.isfinite(item):
                yield (field.name,)
            elif field.message_type is not None:
                for inner in _not_finite(item):
                    yield (field.name, *inner)


@rule("setting-ignored", NOTE, "net", "the layers' sources, each reads its own parameter only")
def setting_ignored(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A parameter message that belongs to another layer type."""
    del evidence
    for layer in net.layers:
        own = messages.LAYER_TYPES.get(layer.type)
        if layer.type not in messages.LAYER_TYPES:
            continue
        for field, _ in layer.message.ListFields():
            if not field.name.endswith("_param") or field.name in {own, *_SHARED_PARAMS}:
                continue
            if layer.type == "SoftmaxWithLoss" and field.name == "softmax_param":
                continue
            yield Hit(
                f"{field.name} in a layer of type {layer.type}",
                "Caffe reads past it without a word",
                f"take it out, or is the type wrong? {layer.type} reads {own or 'none'}",
                layer.at(field.name),
            )


@rule("legacy-format", NOTE, "run", "upgrade_proto.cpp")
def legacy_format(evidence: Evidence) -> Iterator[Hit]:
    """Forms of before 2016, which Caffe still upgrades when it reads them."""
    yield from _troubles(evidence, "legacy-format")
    why = "Caffe 1.0 brings it up to date when it reads it; other tools may not"
    for file in evidence.prototxts:
        counts = Counter(node.name for node in file.root.children)
        if file is evidence.solver:
            if counts["solver_type"] and not counts["type"]:
                yield Hit("solver_type: is an old form", why, 'type: "..."', file.at("solver_type"))
        elif counts["layers"]:
            fix = "upgrade_net_proto_text, which comes with Caffe"
            yield Hit("layers { type: UPPER_CASE } is an old form", why, fix, file.at("layers"))
