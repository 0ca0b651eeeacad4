"""Fields, values and layer types that Caffe 1.0 does not know, and whose they are."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from irv2caffe.check import fork_fields
from irv2caffe.check.finding import ERROR, WARNING, Hit, Place, rule
from irv2caffe.errors import did_you_mean, first_of
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from irv2caffe.check.evidence import Evidence, PhaseNet, PrototxtFile
    from irv2caffe.proto.positions import UnknownField

_MAX_WORD = 60
_MAX_VALUES = 10
_FEW = 2
_STOPS = "Caffe stops when it makes the net"
_SOLVER_FIELDS = frozenset(messages.SolverParameter.DESCRIPTOR.fields_by_name)
KNOWN_TYPES = frozenset({*messages.LAYER_TYPES, *messages.LAYER_TYPES_AFTER_TAG_1_0})


@rule("solver-as-net", ERROR, "run", "upgrade_proto.cpp, ReadNetParamsFromTextFileOrDie")
def solver_as_net(evidence: Evidence) -> Iterator[Hit]:
    """A solver stands where a net is wanted, or its fields do."""
    yield from (hit for name, hit in evidence.troubles if name == "solver-as-net")
    for file in evidence.prototxts:
        found = _of_a_solver(file)
        if found:
            names = list(dict.fromkeys(field.name for field in found))
            yield Hit(
                f"fields of a solver stand in a net: {first_of(names, 3)}",
                _fails_to_parse("Net"),
                "a file of their own, with net: and the name of this one",
                tuple(Place(file.name, field.node.line) for field in found),
            )


def _of_a_solver(file: PrototxtFile) -> list[UnknownField]:
    return [
        field
        for field in file.unknown
        if field.message == "caffe.NetParameter" and field.name in _SOLVER_FIELDS
    ]


@rule("unknown-field", ERROR, "run", "upgrade_proto.cpp, ReadProtoFromTextFile")
def unknown_field(evidence: Evidence) -> Iterator[Hit]:
    """A field that Caffe 1.0 does not have."""
    for file in evidence.prototxts:
        told = {id(field) for field in _of_a_solver(file)}
        why = _fails_to_parse("Solver" if file is evidence.solver else "Net")
        of_forks: dict[tuple[str, str], list[UnknownField]] = defaultdict(list)
        for field in file.unknown:
            message, name = field.message.removeprefix("caffe."), field.name[:_MAX_WORD]
            fork = fork_fields.of_field(message, field.name)
            if id(field) in told or _is_meant(fork, field.name, evidence):
                continue
            if fork:
                of_forks[fork, _way_out(field, fork)].append(field)
                continue
            known = messages.message_class(message).DESCRIPTOR.fields_by_name
            fix = "a comment begins with #" if name.startswith("//") else did_you_mean(name, known)
            what = f"Caffe 1.0's {message} has no field {name!r}"
            yield Hit(what, why, fix or "take it out", (_place(file, field),))
        for (fork, fix), fields in of_forks.items():
            for what, alike in _of_fork(fork, fields).items():
                yield Hit(what, why, fix, tuple(_place(file, field) for field in alike))


def _of_fork(fork: str, fields: list[UnknownField]) -> dict[str, list[UnknownField]]:
    """What to say of the fields of a fork: of each of a few, of many together."""
    said: dict[str, list[UnknownField]] = defaultdict(list)
    for field in fields:
        message = field.message.removeprefix("caffe.")
        said[f"Caffe 1.0's {message} has no field {field.name!r}; {fork} has it"].append(field)
    if len(said) <= _FEW:
        return said
    names = list(dict.fromkeys(field.name for field in fields))
    return {f"{fork} has the fields {', '.join(names)}, Caffe 1.0 has not": fields}


def _way_out(field: UnknownField, fork: str) -> str:
    """What to write instead of a field of a fork."""
    if field.name in {"ceil_mode", "torch_pooling"}:
        if (field.node.value == "true") == (field.name == "ceil_mode"):
            return "take it out: Caffe 1.0 always rounds up"
        return (
            "round_mode: FLOOR, which builds of 2018 and later have (install-caffe's is one); "
            "taken out, the pool rounds up and the grid is another one"
        )
    instead = fork_fields.INSTEAD.get(field.name)
    return instead or _train_with(fork)


def _train_with(fork: str) -> str:
    if fork.startswith(fork_fields.NVCAFFE):
        return "check --flavor nvcaffe, if that Caffe will train; else take it out"
    return "train with that Caffe, or take it out"


def _is_meant(fork: str, name: str, evidence: Evidence) -> bool:
    return evidence.claims.flavor == "nvcaffe" and fork_fields.in_nvcaffe(fork, name)


@rule("unknown-value", ERROR, "run", "upgrade_proto.cpp, ReadProtoFromTextFile")
def unknown_value(evidence: Evidence) -> Iterator[Hit]:
    """A value that is none of those its field can have."""
    for file in evidence.prototxts:
        for field in file.unknown_values:
            message, value = field.message.removeprefix("caffe."), field.node.value
            fork = fork_fields.VALUES.get(value, "")
            if _is_meant(fork, value, evidence) or (_is_old_type(field) and '"' not in value):
                continue  # unknown-layer-type says the latter
            what = f"Caffe 1.0 knows no {field.name}: {value[:_MAX_WORD]} in {message}"
            yield Hit(
                what + (f"; {fork} does" * bool(fork)),
                _fails_to_parse("Solver" if file is evidence.solver else "Net"),
                _value_instead(field, fork),
                (_place(file, field),),
            )


def _is_old_type(field: UnknownField) -> bool:
    """Whether it is the type of a layer of the form before 2014."""
    return (field.message, field.name) == ("caffe.V1LayerParameter", "type")


def _value_instead(field: UnknownField, fork: str) -> str:
    """What to write instead of a value."""
    message = messages.message_class(field.message.removeprefix("caffe."))
    known = message.DESCRIPTOR.fields_by_name[field.name].enum_type.values_by_name
    bare = field.node.value.strip("\"'")
    if _is_old_type(field):
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
    """The line of a field, and the layer it stands in."""
    layer = ""
    if field.top.name in {"layer", "layers"}:
        layer = next((node.value.strip("\"'") for node in field.top.all("name")), "")
    return Place(file.name, field.node.line, layer)


@rule("field-after-1.0", WARNING, "run", "caffe.proto of tag 1.0 and of BVLC's last commit")
def field_after_1_0(evidence: Evidence) -> Iterator[Hit]:
    """A field or layer type that only builds of 2018 and later know."""
    why = "Caffe as released, NVCaffe and Intel's branch stop when they read it"
    fix = "take it out, or be sure of the Caffe that will read it (Debian's knows it)"
    if evidence.solver is not None:
        for name in _later_fields(evidence.solver.message):
            yield Hit(f"{name} came after Caffe 1.0", why, fix, evidence.solver.at(name))
    for net in evidence.nets:
        for layer in net.layers:
            for name in _later_fields(layer.message):
                field = name.split(".")
                yield Hit(f"{field[-1]} came after Caffe 1.0", why, fix, layer.at(*field))
            if layer.type in messages.LAYER_TYPES_AFTER_TAG_1_0:
                yield Hit(f"layer type {layer.type} came after Caffe 1.0", why, fix, layer.at())


def _later_fields(message: Any) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.full_name in messages.AFTER_TAG_1_0:
            yield field.name
        elif field.message_type is not None and field.name.endswith("_param"):
            for inner in [] if field.is_repeated else _later_fields(value):
                yield f"{field.name}.{inner}"


@rule("unknown-layer-type", ERROR, "net", "layer_factory.hpp, LayerRegistry::CreateLayer")
def unknown_layer_type(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A layer type that Caffe 1.0 does not have."""
    places: dict[str, list[Place]] = defaultdict(list)
    for layer in net.layers:
        if layer.type not in KNOWN_TYPES:
            places[layer.type] += layer.at("type")
    of_forks: dict[str, list[str]] = defaultdict(list)
    for kind, at in places.items():
        fork, name = fork_fields.LAYER_TYPES.get(kind, ""), kind[:_MAX_WORD]
        if _is_meant(fork, kind, evidence):
            continue
        if fork:
            of_forks[fork].append(kind)
            continue
        what = f"Caffe 1.0 has no layer type {name!r}" if name else "a layer without a type"
        modern = next((each for each in KNOWN_TYPES if _is_old_name(kind, each)), "")
        fix = f'layer {{ type: "{modern}" }}, the form since 2014' if modern else ""
        fix = fix or did_you_mean(name, KNOWN_TYPES)
        yield Hit(
            what, _STOPS, fix or "write a type that Caffe has; types are case-sensitive", tuple(at)
        )
    for fork, kinds in of_forks.items():
        said = {f"Caffe 1.0 has no layer type {kind!r}; {fork} has it": [kind] for kind in kinds}
        if len(kinds) > _FEW:
            said = {f"{fork} has the layer types {', '.join(kinds)}, Caffe 1.0 has not": kinds}
        for what, alike in said.items():
            at = [place for kind in alike for place in places[kind]]
            yield Hit(what, _STOPS, "train with that Caffe", tuple(at))


def _is_old_name(kind: str, modern: str) -> bool:
    """Whether a type in capitals would be this one, had it been there before 2014."""
    return kind.isupper() and kind.replace("_", "") == modern.upper() and kind != modern
