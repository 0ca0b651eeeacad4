"""Fields, values and layer types that Caffe 1.0 does not have, and the forks that have them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from irv2caffe.check import fork_fields
from irv2caffe.check.evidence import KNOWN_TYPES, Evidence, NetEvidence, PrototxtFile
from irv2caffe.check.finding import ERROR, WARNING, Hit, Hits, Place
from irv2caffe.check.registry import net_rule, rule
from irv2caffe.errors import did_you_mean, first_of
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from irv2caffe.proto.positions import UnknownField

_MAX_WORD = 60
_MAX_VALUES = 10  # values of an enum that are listed
_MAX_SINGLE = 2  # more fields or types of one fork are merged into one finding
_STOPS = "Caffe stops when it creates the net"
_SOLVER_FIELDS = frozenset(messages.SolverParameter.DESCRIPTOR.fields_by_name)


@rule("solver-as-net", ERROR, "upgrade_proto.cpp, ReadNetParamsFromTextFileOrDie")
def solver_as_net(evidence: Evidence) -> Hits:
    """A solver, or fields of a solver, instead of a net."""
    yield from evidence.found_while_reading("solver-as-net")
    for file in evidence.prototxts:
        found = _solver_fields(file)
        if found:
            names = list(dict.fromkeys(field.name for field in found))
            yield Hit(
                what=f"the net has fields of a solver: {first_of(names, 3)}",
                why=_fails_to_parse("Net"),
                fix="move them to a file of their own, with net: and the name of this file",
                at=tuple(Place(file.name, field.node.line) for field in found),
            )


def _solver_fields(file: PrototxtFile) -> list[UnknownField]:
    """Unknown fields of a net that a solver has."""
    return [
        field
        for field in file.unknown
        if field.message == "caffe.NetParameter" and field.name in _SOLVER_FIELDS
    ]


@rule("unknown-field", ERROR, "upgrade_proto.cpp, ReadProtoFromTextFile")
def unknown_field(evidence: Evidence) -> Hits:
    """A field that Caffe 1.0 does not have."""
    for file in evidence.prototxts:
        reported = {id(field) for field in _solver_fields(file)}
        why = _fails_to_parse("Solver" if file is evidence.solver else "Net")
        of_forks: dict[tuple[str, str], list[UnknownField]] = defaultdict(list)
        for field in file.unknown:
            message, name = field.message.removeprefix("caffe."), field.name[:_MAX_WORD]
            fork = fork_fields.of_field(message, field.name)
            if id(field) in reported or _is_in_chosen_caffe(fork, field.name, evidence):
                continue
            if fork:
                of_forks[fork, _replacement(field, fork)].append(field)
                continue
            known = messages.message_class(message).DESCRIPTOR.fields_by_name
            fix = "a comment begins with #" if name.startswith("//") else did_you_mean(name, known)
            yield Hit(
                what=f"Caffe 1.0's {message} has no field {name!r}",
                why=why,
                fix=fix or "remove it",
                at=(_place(file, field),),
            )
        for (fork, fix), fields in of_forks.items():
            for what, same in _by_text(fork, fields).items():
                at = tuple(_place(file, field) for field in same)
                yield Hit(what=what, why=why, fix=fix, at=at)


def _by_text(fork: str, fields: list[UnknownField]) -> dict[str, list[UnknownField]]:
    """Groups a fork's fields by finding: one finding per field, or one for many fields."""
    found: dict[str, list[UnknownField]] = defaultdict(list)
    for field in fields:
        message = field.message.removeprefix("caffe.")
        found[f"Caffe 1.0's {message} has no field {field.name!r}; {fork} has it"].append(field)
    if len(found) <= _MAX_SINGLE:
        return found
    names = list(dict.fromkeys(field.name for field in fields))
    return {f"{fork} has the fields {', '.join(names)}; Caffe 1.0 does not": fields}


def _replacement(field: UnknownField, fork: str) -> str:
    """A fix for a field of a fork."""
    if field.name in {"ceil_mode", "torch_pooling"}:
        if (field.node.value == "true") == (field.name == "ceil_mode"):
            return "remove it: Caffe 1.0 always rounds up"
        return (
            "round_mode: FLOOR, which builds of 2018 and later have (so does that of "
            "install-caffe); without it the pool rounds up and its output may be larger"
        )
    if field.name in fork_fields.INSTEAD:
        return fork_fields.INSTEAD[field.name]
    if fork.startswith(fork_fields.NVCAFFE):
        return "check --flavor nvcaffe, if you train with NVCaffe; else remove it"
    return "train with that Caffe, or remove it"


def _is_in_chosen_caffe(fork: str, name: str, evidence: Evidence) -> bool:
    """Whether the Caffe that will train has a fork's field, value or layer type."""
    return evidence.claims.flavor == "nvcaffe" and fork_fields.in_nvcaffe(fork, name)


@rule("unknown-value", ERROR, "upgrade_proto.cpp, ReadProtoFromTextFile")
def unknown_value(evidence: Evidence) -> Hits:
    """A value that a field of Caffe 1.0 cannot have."""
    for file in evidence.prototxts:
        for field in file.unknown_values:
            message, value = field.message.removeprefix("caffe."), field.node.value
            fork = fork_fields.VALUES.get(value, "")
            if _is_in_chosen_caffe(fork, value, evidence) or (
                _is_v1_type(field) and '"' not in value
            ):
                continue  # unknown-layer-type reports old types without quotes
            what = f"Caffe 1.0 has no {field.name}: {value[:_MAX_WORD]} in {message}"
            yield Hit(
                what=what + (f"; {fork} does" if fork else ""),
                why=_fails_to_parse("Solver" if file is evidence.solver else "Net"),
                fix=_known_value(field, fork),
                at=(_place(file, field),),
            )


def _is_v1_type(field: UnknownField) -> bool:
    """Whether a field is the type of a ``layers { }``, the format before 2014."""
    return (field.message, field.name) == ("caffe.V1LayerParameter", "type")


def _known_value(field: UnknownField, fork: str) -> str:
    """A fix for an unknown value."""
    message = messages.message_class(field.message.removeprefix("caffe."))
    known = message.DESCRIPTOR.fields_by_name[field.name].enum_type.values_by_name
    bare = field.node.value.strip("\"'")
    if _is_v1_type(field):
        same = [name for name in known if name.replace("_", "") == bare.upper().replace("_", "")]
        old = f"type: {same[0]}, without quotes, as layers {{ }} has it; or " if same else ""
        return f"{old}layer {{ }}, the form since 2014, around a type in quotes"
    if bare in known:
        return f"{field.name}: {bare}, without quotes"
    instead = fork_fields.INSTEAD.get(field.name, "") if fork else ""
    return instead or did_you_mean(bare, known) or _one_of(known)


def _one_of(names: Iterable[str]) -> str:
    known = list(names)
    return f"one of {', '.join(known)}" if len(known) <= _MAX_VALUES else "a value that Caffe has"


def _fails_to_parse(kind: str) -> str:
    return f"Caffe stops: Failed to parse {kind}Parameter file"


def _place(file: PrototxtFile, field: UnknownField) -> Place:
    layer = ""
    if field.top.name in {"layer", "layers"}:
        layer = next((node.value.strip("\"'") for node in field.top.all("name")), "")
    return Place(file.name, field.node.line, layer)


@rule("field-after-1.0", WARNING, "caffe.proto of tag 1.0 and of BVLC's last commit")
def field_after_1_0(evidence: Evidence) -> Hits:
    """A field or layer type that only builds of 2018 and later have."""

    def hit(name: str, at: tuple[Place, ...]) -> Hit:
        return Hit(
            what=f"{name} was added after Caffe 1.0",
            why="Caffe as released, NVCaffe and Intel's branch stop when they read it",
            fix="remove it, unless the Caffe that reads it has it (Debian's does)",
            at=at,
        )

    if evidence.solver is not None:
        for name in _later_fields(evidence.solver.message):
            yield hit(name, evidence.solver.at(name))
    for net in evidence.nets:
        for layer in net.layers:
            for name in _later_fields(layer.message):
                path = name.split(".")
                yield hit(path[-1], layer.at(*path))
            if layer.type in messages.LAYER_TYPES_AFTER_TAG_1_0:
                yield hit(f"layer type {layer.type}", layer.at())


def _later_fields(message: Any) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.full_name in messages.AFTER_TAG_1_0:
            yield field.name
        elif field.message_type is not None and field.name.endswith("_param"):
            for inner in [] if field.is_repeated else _later_fields(value):
                yield f"{field.name}.{inner}"


@net_rule("unknown-layer-type", ERROR, "layer_factory.hpp, LayerRegistry::CreateLayer")
def unknown_layer_type(evidence: NetEvidence) -> Hits:
    """A layer type that Caffe 1.0 does not have."""
    places: dict[str, list[Place]] = defaultdict(list)
    for layer in evidence.net.layers:
        if layer.type not in KNOWN_TYPES:
            places[layer.type] += layer.at("type")
    of_forks: dict[str, list[str]] = defaultdict(list)
    for kind, at in places.items():
        fork, name = fork_fields.LAYER_TYPES.get(kind, ""), kind[:_MAX_WORD]
        if _is_in_chosen_caffe(fork, kind, evidence):
            continue
        if fork:
            of_forks[fork].append(kind)
            continue
        modern = next((each for each in KNOWN_TYPES if _is_old_name(kind, each)), "")
        fix = f'layer {{ type: "{modern}" }}, the form since 2014' if modern else ""
        fix = fix or did_you_mean(name, KNOWN_TYPES)
        yield Hit(
            what=f"Caffe 1.0 has no layer type {name!r}" if name else "a layer without a type",
            why=_STOPS,
            fix=fix or "write a type that Caffe has; types are case-sensitive",
            at=tuple(at),
        )
    for fork, kinds in of_forks.items():
        found = {f"Caffe 1.0 has no layer type {kind!r}; {fork} has it": [kind] for kind in kinds}
        if len(kinds) > _MAX_SINGLE:
            types = ", ".join(kinds)
            found = {f"{fork} has the layer types {types}; Caffe 1.0 does not": kinds}
        for what, same in found.items():
            at = [place for kind in same for place in places[kind]]
            yield Hit(what=what, why=_STOPS, fix="train with that Caffe", at=tuple(at))


def _is_old_name(kind: str, modern: str) -> bool:
    """Whether ``kind`` is a layer type in the upper-case spelling from before 2014."""
    return kind.isupper() and kind.replace("_", "") == modern.upper() and kind != modern
