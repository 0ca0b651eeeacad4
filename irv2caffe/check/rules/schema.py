"""Files and nets that Caffe refuses, and settings that it ignores or upgrades."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, Hits
from irv2caffe.check.registry import net_rule, rule
from irv2caffe.check.zeros import WEIGHTED
from irv2caffe.errors import did_you_mean
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, Layer, NetEvidence

_MAX_WORD = 60
_STOPS = "Caffe stops when it creates the net"
_SHARED_PARAMS = frozenset({"transform_param", "loss_param"})
_HAS_BLOBS = frozenset({*WEIGHTED, "BatchNorm", "Bias", "PReLU", "Parameter", "Scale"})


@rule("net-missing", ERROR, "upgrade_proto.cpp, ReadNetParamsFromTextFileOrDie")
def net_missing(evidence: Evidence) -> Hits:
    """A net that the solver names does not exist."""
    yield from evidence.found_while_reading("net-missing")


@rule("net-elsewhere", NOTE, "io.cpp, ReadProtoFromTextFile")
def net_elsewhere(evidence: Evidence) -> Hits:
    """A net is found from another folder than the working folder."""
    yield from evidence.found_while_reading("net-elsewhere")


@rule("net-refused", ERROR, "net.cpp, Net::Init, and the layer's own source")
def net_refused(evidence: Evidence) -> Hits:
    """Shapes, or numbers of bottoms and tops, that Caffe refuses."""
    yield from evidence.found_while_reading("net-refused")
    for net in evidence.nets:
        error = net.refused
        if error is None:
            continue
        layer = next((each for each in net.layers if each.name == error.layer), None)
        if layer is not None and layer.type in {"Concat", "Eltwise"}:
            continue  # grid-mismatch reports it, with the sizes that fit
        yield Hit(
            what=error.message,
            why=_STOPS,
            fix=error.hint or "correct the layer",
            at=layer.at() if layer else net.file.at(),
        )


@net_rule("cudnn-missing", WARNING, "layer_factory.cpp, GetConvolutionLayer and others")
def cudnn_missing(evidence: NetEvidence) -> Hits:
    """``engine: CUDNN``, and the Caffe of this machine is built without cuDNN."""
    if evidence.claims.cudnn is not False:
        return
    for layer in evidence.net.layers:
        for field, value in layer.message.ListFields():
            engine = field.message_type and field.message_type.fields_by_name.get("engine")
            if (
                engine
                and engine.enum_type
                and value.engine == engine.enum_type.values_by_name["CUDNN"].number
            ):
                yield Hit(
                    what="engine: CUDNN, and this Caffe is built without cuDNN",
                    why=f"{_STOPS}: Layer {layer.name[:_MAX_WORD]} has unknown engine",
                    fix="remove engine, and Caffe takes what it has",
                    at=layer.at(field.name, "engine"),
                )


@net_rule("unknown-bottom", ERROR, "insert_splits.cpp")
def unknown_bottom(evidence: NetEvidence) -> Hits:
    """A bottom that no layer above produces."""
    net, produced = evidence.net, dict[str, None]()
    for layer, tops in zip(net.layers, map(net.tops_read, net.layers), strict=True):
        for bottom, top in zip(layer.message.bottom, tops, strict=True):
            if top is not None:
                continue
            below = any(bottom in each.message.top for each in net.layers[layer.index + 1 :])
            near = did_you_mean(bottom, produced)
            yield Hit(
                what=f"bottom {bottom[:_MAX_WORD]!r} is not produced by any layer above "
                f"in {net.phase}" + ("; it is produced below" if below else ""),
                why=f"{_STOPS}: Unknown bottom blob",
                fix="move the layer down"
                if below
                else near or "name a top, or correct the include rules",
                at=layer.at("bottom"),
            )
        produced.update(dict.fromkeys(layer.message.top))


@net_rule("duplicate-top", ERROR, "net.cpp, Net::AppendTop")
def duplicate_top(evidence: NetEvidence) -> Hits:
    """A top that two layers produce."""
    produced: set[str] = set()
    for layer in evidence.net.layers:
        tops, bottoms = list(layer.message.top), list(layer.message.bottom)
        for place, top in enumerate(tops):
            in_place = bottoms[place : place + 1] == [top]
            if (top in produced and not in_place) or top in tops[:place]:
                yield Hit(
                    what=f"top {top[:_MAX_WORD]!r} is produced twice in {evidence.net.phase}",
                    why=f"{_STOPS}: Top blob produced by multiple sources",
                    fix="give it another name, or include the layers in different phases",
                    at=layer.at("top"),
                )
        produced |= set(tops)


@net_rule("duplicate-name", WARNING, "net.cpp, Net::CopyTrainedLayersFrom")
def duplicate_name(evidence: NetEvidence) -> Hits:
    """Two layers with the same name."""
    by_name: dict[str, list[Layer]] = defaultdict(list)
    for layer in evidence.net.layers:
        by_name[layer.name].append(layer)
    for name, layers in by_name.items():
        if len(layers) > 1:
            have_weights = sum(layer.type in _HAS_BLOBS for layer in layers) > 1
            yield Hit(
                what=f"{len(layers)} layers are named {name[:_MAX_WORD]!r}",
                why="weights are loaded, tested and resumed by name: all get the first layer's"
                if have_weights
                else "harmless here, but tools that look layers up by name find one of them",
                fix="give each layer its own name",
                at=tuple(place for layer in layers for place in layer.at("name")),
                severity=None if have_weights else NOTE,
            )


@net_rule("empty-net", ERROR, "net.cpp, Net::Init")
def empty_net(evidence: NetEvidence) -> Hits:
    """A net without layers in a phase."""
    if not evidence.net.layers:
        yield Hit(
            what=f"no layer is left in {evidence.net.phase}",
            why=_STOPS,
            fix="correct the include and exclude rules, or the states of the solver",
            at=evidence.net.file.at(),
        )


@rule("not-finite", ERROR, "the arithmetic of floating point")
def not_finite(evidence: Evidence) -> Hits:
    """A number that is nan or infinite."""
    parts: list[Any] = [] if evidence.solver is None else [evidence.solver]
    parts += [layer for net in evidence.nets for layer in net.layers]
    for part in parts:
        for path in _not_finite(part.message):
            yield Hit(
                what=f"{'.'.join(path)} is not a finite number",
                why="it makes every weight nan; Caffe goes on and exits 0",
                fix="write a number",
                at=part.at(*path),
            )


def _not_finite(message: Any) -> Iterator[tuple[str, ...]]:
    """Paths of the fields that are nan or infinite."""
    for field, value in message.ListFields():
        if field.name in {"blobs", "net_param", "train_net_param", "test_net_param"}:
            continue
        for item in value if field.is_repeated else [value]:
            if isinstance(item, float) and not math.isfinite(item):
                yield (field.name,)
            elif field.message_type is not None:
                for inner in _not_finite(item):
                    yield (field.name, *inner)


@net_rule("setting-ignored", NOTE, "the layers' sources, each reads its own parameter only")
def setting_ignored(evidence: NetEvidence) -> Hits:
    """A parameter that belongs to another layer type."""
    for layer in evidence.net.layers:
        if layer.type not in messages.LAYER_TYPES:
            continue
        own = messages.LAYER_TYPES[layer.type]
        read = {own, *_SHARED_PARAMS, *(["softmax_param"] * (layer.type == "SoftmaxWithLoss"))}
        for field, _ in layer.message.ListFields():
            if field.name.endswith("_param") and field.name not in read:
                yield Hit(
                    what=f"{field.name} in a layer of type {layer.type}",
                    why="Caffe ignores it without a message",
                    fix=f"remove it, or correct the type; {layer.type} reads {own or 'none'}",
                    at=layer.at(field.name),
                )


@rule("legacy-format", NOTE, "upgrade_proto.cpp")
def legacy_format(evidence: Evidence) -> Hits:
    """Formats from before 2016, which Caffe still upgrades."""
    why = "Caffe 1.0 upgrades it when it reads the file; other tools may not"
    for file in evidence.prototxts:
        counts = Counter(node.name for node in file.root.children)
        if file is evidence.solver:
            if counts["solver_type"] and not counts["type"]:
                what, fix = "solver_type: is an old format", 'type: "..."'
                yield Hit(what=what, why=why, fix=fix, at=file.at("solver_type"))
        elif counts["layers"]:
            yield Hit(
                what="layers { type: UPPER_CASE } is an old format",
                why=why,
                fix="upgrade_net_proto_text, which comes with Caffe",
                at=file.at("layers"),
            )
