"""The nets that Caffe would make of the files, each in its phase, with shapes where they follow."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from irv2caffe.check.evidence import DATA_PARAMS, Evidence, Layer, PhaseNet, PrototxtFile
from irv2caffe.check.finding import Hit, Place
from irv2caffe.check.inputs import Claims
from irv2caffe.check.roles import nets_without_solver
from irv2caffe.errors import NetError
from irv2caffe.proto import messages
from irv2caffe.shapes.infer import infer
from irv2caffe.shapes.layer_types import SHAPE_RULES as KNOWN_TYPES
from irv2caffe.shapes.phases import Phase, select_with_origins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from irv2caffe.check.files import NetRole, Reading
    from irv2caffe.data.inspect.database import Database
    from irv2caffe.shapes.infer import NetShapes

_MAX_VALUES = (1 << 31) - 1  # of a blob: blob.cpp, Reshape
_OUTSIDE = ("Python", "HDF5Data")  # types whose shapes stand in no prototxt


def gather(
    reading: Reading,
    databases: Mapping[str, Database] | None = None,
    claims: Claims | None = None,
) -> Evidence:
    """Everything the rules look at.

    Args:
        reading: the files.
        databases: by the source as it is written in the net; None where they are not read yet:
            then shapes are not inferred.
        claims: what the user says.
    """
    claims = replace(claims or Claims(), header_num_train=reading.num_train)
    if not claims.num_gpus:
        claims = replace(claims, num_gpus=reading.num_gpus)
    troubles = list(reading.troubles)
    nets: list[PhaseNet] = []
    for role in reading.nets:
        try:
            nets += _nets_of(role, reading.solver, troubles)
        except NetError as error:
            at = (Place(role.file.name, error.line or 0, error.layer),)
            troubles.append(("net-refused", Hit(error.message, _STOPS, error.hint, at)))
    if databases is not None:
        nets = [_with_shapes(net, databases, claims) for net in nets]
    nets.sort(key=lambda net: net.phase == "TEST")
    return Evidence(
        solver=reading.solver,
        nets=tuple(nets),
        prototxts=tuple(dict.fromkeys(_files(reading))),
        databases=databases or {},
        files={name: path is not None for name, path in reading.paths.items()},
        blobs=reading.blobs,
        claims=claims,
        snapshots=reading.snapshots,
        troubles=tuple(troubles),
    )


def _files(reading: Reading) -> Iterator[PrototxtFile]:
    if reading.solver is not None:
        yield reading.solver
    yield from (role.file for role in reading.nets)


_STOPS = "Caffe stops when it makes the net"


def _nets_of(
    role: NetRole,
    solver: PrototxtFile | None,
    troubles: list[tuple[str, Hit]],
) -> Iterator[PhaseNet]:
    """The nets of one file."""
    message = _without_contradictions(role.file, troubles)

    def make(phase: Phase, state: Any = None, test_iter: int | None = None) -> PhaseNet:
        return _make(role.file, message, phase, state, test_iter)

    if solver is None:
        yield from nets_without_solver(role.file, make)
        return
    run = solver.message
    if role.role != "test":
        yield make("TRAIN", run.train_state)
    if role.role == "test":
        yield make("TEST", _at(run.test_state, role.place), _at(run.test_iter, role.place))
    elif role.role == "both":
        yield from _tests_of_both(make, run)


def _tests_of_both(make: Callable[..., PhaseNet], run: Any) -> Iterator[PhaseNet]:
    """``net:`` is tested once for every test_iter that no test net of its own takes."""
    first = len(run.test_net) + len(run.test_net_param)
    for place in range(first, len(run.test_iter)):
        yield make("TEST", _at(run.test_state, place), run.test_iter[place])


def _at(values: Sequence[Any], place: int) -> Any:
    return values[place] if place < len(values) else None


def _without_contradictions(file: PrototxtFile, troubles: list[tuple[str, Hit]]) -> Any:
    """The net; of layers with both kinds of rules, which Caffe refuses, without the one kind."""
    message = messages.NetParameter.FromString(file.message.SerializeToString())
    for field_name in ("layer", "layers"):
        nodes = file.root.all(field_name)
        for layer, node in zip(getattr(message, field_name), nodes, strict=False):
            if layer.include and layer.exclude:
                what = "both include and exclude rules"
                at = (Place(file.name, node.line, layer.name),)
                troubles.append(("net-refused", Hit(what, _STOPS, "leave one kind", at)))
                del layer.exclude[:]
    return message


def _make(
    file: PrototxtFile,
    message: Any,
    phase: Phase,
    state: Any,
    test_iter: int | None,
) -> PhaseNet:
    level = state.level if state is not None and state.HasField("level") else None
    stages = list(state.stage) if state is not None else []
    selected, origins = select_with_origins(message, phase, level=level, stages=stages)
    written = list(file.message.layer) or list(file.message.layers)
    nodes = file.root.all("layer") or file.root.all("layers")
    altered = set(map(id, file.altered))
    layers = []
    for index, (layer, origin) in enumerate(zip(selected.layer, origins, strict=True)):
        if origin is not None and origin < min(len(written), len(nodes)):
            node = nodes[origin]
            layer.type = layer.type or node.find("type").value.strip("\"'")  # of a fork's V1
            is_altered = id(node) in altered
            layers.append(Layer(index, layer, written[origin], node, file.name, is_altered))
        else:
            layers.append(Layer(index, layer, layer, file.root.find("input"), file.name))
    return PhaseNet(phase, file, selected, tuple(layers), test_iter=test_iter)


def _with_shapes(net: PhaseNet, databases: Mapping[str, Database], claims: Claims) -> PhaseNet:
    """The net with what shape inference says, where other rules have nothing to say before."""
    if not _can_infer(net, databases):
        return net
    shapes = record_shapes(databases)
    share = _share_of_a_batch(net, claims)
    try:
        infos = infer(net.message, net.phase, data_shapes=shapes, batch_size=share).layers
        return replace(net, infos=infos)
    except NetError as error:
        refused = error
    try:  # in the words of a batch of one, both phases say the same
        one = infer(net.message, net.phase, data_shapes=shapes, batch_size=1)
    except NetError as error:
        refused = error if error.layer == refused.layer else refused
    else:
        refused = NetError(refused.message, _smaller_batch(net, one, claims), layer=refused.layer)
    return replace(net, refused=refused)


def _share_of_a_batch(net: PhaseNet, claims: Claims) -> int | None:
    """What one device makes of a batch, where it is not all of it: NVCaffe divides it."""
    if claims.flavor != "nvcaffe" or claims.num_gpus < 2 or not net.batch_size:
        return None
    return math.ceil(net.batch_size / claims.num_gpus)


def _smaller_batch(net: PhaseNet, one: NetShapes, claims: Claims) -> str:
    """The way out where only the batch makes a blob too large."""
    largest = max(math.prod(shape) for info in one.layers for shape in info.top_shapes)
    if not net.batch_size or largest < 1:
        return ""
    fits = _MAX_VALUES // largest
    divided = "" if claims.num_gpus > 1 else "; or more GPUs"
    if claims.flavor == "nvcaffe":
        return f"batch_size: {fits * max(1, claims.num_gpus)} at most{divided}"
    return (
        f"batch_size: {fits} at most, on each device. NVCaffe divides batch_size among the GPUs: "
        "check --flavor nvcaffe --gpus 0,1, if that Caffe will train"
    )


def _can_infer(net: PhaseNet, databases: Mapping[str, Database]) -> bool:
    made: set[str] = set()
    for layer in net.layers:
        if (
            layer.is_altered
            or layer.type not in KNOWN_TYPES
            or not set(layer.message.bottom) <= made
        ):
            return False
        made |= set(layer.message.top)
        if layer.type in _OUTSIDE or _size_is_open(layer.message, databases):
            return False
    return bool(net.layers)


def _size_is_open(layer: Any, databases: Mapping[str, Database]) -> bool:
    """Whether the size of a layer's images is known to nobody."""
    if layer.type == "Input":
        return not layer.input_param.shape
    if layer.type not in {"Data", "ImageData"} or layer.transform_param.crop_size:
        return False
    param = getattr(layer, DATA_PARAMS[layer.type])
    if layer.type == "ImageData" and param.new_height and param.new_width:
        return False
    facts = databases.get(param.source)
    return facts is None or facts.height is None


def record_shapes(databases: Mapping[str, Database]) -> Callable[[Any], Any]:
    """Shapes of records, for the inference of shapes."""

    def look(layer: Any) -> list[tuple[int, ...]] | None:
        if layer.type != "Data":
            return None
        facts = databases.get(layer.data_param.source)
        if facts is None or None in (facts.channels, facts.height, facts.width):
            return None
        transform = layer.transform_param
        channels = 3 if transform.force_color else 1 if transform.force_gray else facts.channels
        assert channels is not None
        assert facts.height is not None
        assert facts.width is not None
        crop = transform.crop_size
        if crop > min(facts.height, facts.width):  # said elsewhere
            return [(channels, crop, crop), ()]
        return [(channels, facts.height, facts.width), ()]

    return look
