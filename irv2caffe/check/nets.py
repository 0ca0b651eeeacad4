"""Builds the nets that Caffe would create from the files, one per phase, with their shapes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from irv2caffe.check.evidence import (
    DATA_PARAMS,
    KNOWN_TYPES,
    Evidence,
    Layer,
    PhaseNet,
    PrototxtFile,
)
from irv2caffe.check.finding import Hit, Place
from irv2caffe.check.inputs import Claims
from irv2caffe.check.roles import nets_without_solver
from irv2caffe.errors import NetError
from irv2caffe.proto import messages
from irv2caffe.shapes.infer import infer
from irv2caffe.shapes.phases import Phase, selected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from irv2caffe.check.files import NetRole, Reading
    from irv2caffe.data.inspect.database import Database
    from irv2caffe.shapes.infer import NetShapes

_MAX_VALUES = (1 << 31) - 1  # of a blob: blob.cpp, Reshape
_WITHOUT_SHAPES = ("Python", "HDF5Data")  # types whose shapes are not in the prototxt
_STOPS = "Caffe stops when it creates the net"


def gather(
    reading: Reading,
    databases: Mapping[str, Database] | None = None,
    claims: Claims | None = None,
) -> Evidence:
    """Gathers the evidence for all rules.

    Args:
        reading: the files.
        databases: facts by the source, as written in the net; None to skip inferring shapes.
        claims: facts given by the user.
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
            hit = Hit(what=error.message, why=_STOPS, fix=error.hint, at=at)
            troubles.append(("net-refused", hit))
    if databases is not None:
        nets = [_with_shapes(net, databases, claims) for net in nets]
    nets.sort(key=lambda net: net.phase == "TEST")
    files = [] if reading.solver is None else [reading.solver]
    files += [role.file for role in reading.nets]
    return Evidence(
        solver=reading.solver,
        nets=tuple(nets),
        prototxts=tuple(dict.fromkeys(files)),
        databases=databases or {},
        files={name: path is not None for name, path in reading.paths.items()},
        blobs=reading.blobs,
        claims=claims,
        snapshots=reading.snapshots,
        troubles=tuple(troubles),
    )


def _nets_of(
    role: NetRole, solver: PrototxtFile | None, troubles: list[tuple[str, Hit]]
) -> Iterator[PhaseNet]:
    """The nets of one file."""
    message = _without_excludes_beside_includes(role.file, troubles)

    def make(phase: Phase, state: Any = None, test_iter: int | None = None) -> PhaseNet:
        return _make(role.file, message, phase, state, test_iter)

    if solver is None:
        yield from nets_without_solver(role.file, make)
        return
    run = solver.message
    if role.role != "test":
        yield make("TRAIN", run.train_state)
    if role.role == "test":
        yield make("TEST", _get(run.test_state, role.place), _get(run.test_iter, role.place))
    elif role.role == "both":  # one test net for every test_iter beyond those of test_net
        for place in range(len(run.test_net) + len(run.test_net_param), len(run.test_iter)):
            yield make("TEST", _get(run.test_state, place), run.test_iter[place])


def _get(values: Sequence[Any], place: int) -> Any:
    return values[place] if place < len(values) else None


def _without_excludes_beside_includes(file: PrototxtFile, troubles: list[tuple[str, Hit]]) -> Any:
    """The net without the exclude rules of layers that have both kinds, which Caffe refuses."""
    message = messages.NetParameter.FromString(file.message.SerializeToString())
    for field_name in ("layer", "layers"):
        nodes = file.root.all(field_name)
        for layer, node in zip(getattr(message, field_name), nodes, strict=False):
            if layer.include and layer.exclude:
                what = "both include and exclude rules"
                at = (Place(file.name, node.line, layer.name),)
                hit = Hit(what=what, why=_STOPS, fix="keep one kind", at=at)
                troubles.append(("net-refused", hit))
                del layer.exclude[:]
    return message


def _make(
    file: PrototxtFile, message: Any, phase: Phase, state: Any, test_iter: int | None
) -> PhaseNet:
    level = state.level if state is not None and state.HasField("level") else None
    stages = list(state.stage) if state is not None else []
    chosen = selected(message, phase, level=level, stages=stages)
    written = list(file.message.layer) or list(file.message.layers)
    nodes = file.root.all("layer") or file.root.all("layers")
    altered = set(map(id, file.altered))
    layers = []
    for index, (layer, origin) in enumerate(zip(chosen.net.layer, chosen.origins, strict=True)):
        if origin is not None and origin < min(len(written), len(nodes)):
            node = nodes[origin]
            layer.type = layer.type or node.find("type").value.strip("\"'")  # of a fork's V1
            is_altered = id(node) in altered
            layers.append(Layer(index, layer, written[origin], node, file.name, is_altered))
        else:
            layers.append(Layer(index, layer, layer, file.root.find("input"), file.name))
    return PhaseNet(phase, file, chosen.net, tuple(layers), test_iter=test_iter)


def _with_shapes(net: PhaseNet, databases: Mapping[str, Database], claims: Claims) -> PhaseNet:
    """The net with its shapes or Caffe's error; unchanged if they cannot be inferred."""
    if not _can_infer(net, databases):
        return net
    shapes = record_shapes(databases)
    share = _share_of_batch(net, claims)
    try:
        infos = infer(net.message, net.phase, data_shapes=shapes, batch_size=share).layers
        return replace(net, infos=infos)
    except NetError as error:
        refused = error
    try:  # with a batch of one the message is the same in both phases
        one = infer(net.message, net.phase, data_shapes=shapes, batch_size=1)
    except NetError as error:
        refused = error if error.layer == refused.layer else refused
    else:
        refused = NetError(refused.message, _smaller_batch(net, one, claims), layer=refused.layer)
    return replace(net, refused=refused)


def _share_of_batch(net: PhaseNet, claims: Claims) -> int | None:
    """Images on one device where NVCaffe divides the batch; else None."""
    if claims.flavor != "nvcaffe" or claims.num_gpus < 2 or not net.batch_size:
        return None
    return math.ceil(net.batch_size / claims.num_gpus)


def _smaller_batch(net: PhaseNet, one: NetShapes, claims: Claims) -> str:
    """A fix for a batch that makes a blob too large."""
    largest = max(math.prod(shape) for info in one.layers for shape in info.top_shapes)
    if not net.batch_size or largest < 1:
        return ""
    fits = _MAX_VALUES // largest
    if claims.flavor == "nvcaffe":
        divided = "" if claims.num_gpus > 1 else "; or more GPUs"
        return f"batch_size: {fits * max(1, claims.num_gpus)} at most{divided}"
    return (
        f"batch_size: {fits} at most, on each device. NVCaffe divides batch_size among the GPUs: "
        "check --flavor nvcaffe --gpus 0,1, if that Caffe will train"
    )


def _can_infer(net: PhaseNet, databases: Mapping[str, Database]) -> bool:
    return bool(net.layers) and all(
        not layer.is_altered
        and layer.type in KNOWN_TYPES
        and layer.type not in _WITHOUT_SHAPES
        and None not in net.tops_read(layer)
        and not _is_size_unknown(layer.message, databases)
        for layer in net.layers
    )


def _is_size_unknown(layer: Any, databases: Mapping[str, Database]) -> bool:
    """Whether the size of a layer's images is unknown."""
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
    """Returns a function that gives ``infer`` the shapes of a Data layer's image and label."""

    def look_up(layer: Any) -> list[tuple[int, ...]] | None:
        facts = databases.get(layer.data_param.source) if layer.type == "Data" else None
        if facts is None or facts.channels is None or facts.height is None or facts.width is None:
            return None
        transform, height, width = layer.transform_param, facts.height, facts.width
        channels = 3 if transform.force_color else 1 if transform.force_gray else facts.channels
        if transform.crop_size > min(height, width):  # crop-exceeds-records reports it
            height = width = transform.crop_size
        return [(channels, height, width), ()]

    return look_up
