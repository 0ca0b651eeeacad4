"""Evidence for rules: files with line numbers, the nets of each phase, and facts about the run."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from irv2caffe.check.finding import Hit, Place
from irv2caffe.check.fork_fields import changes_the_net
from irv2caffe.check.inputs import Claims
from irv2caffe.proto import messages
from irv2caffe.proto.positions import Node
from irv2caffe.shapes.graph import bottom_sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from irv2caffe.check.inputs import BlobFacts, SnapshotFacts
    from irv2caffe.data.inspect.database import Database
    from irv2caffe.errors import NetError
    from irv2caffe.proto.positions import UnknownField
    from irv2caffe.shapes.infer import LayerInfo
    from irv2caffe.shapes.phases import Phase

KNOWN_TYPES = frozenset({*messages.LAYER_TYPES, *messages.LAYER_TYPES_AFTER_TAG_1_0})
# Layers that read images from a disk, with their parameter.
DATA_PARAMS = {
    "Data": "data_param",
    "ImageData": "image_data_param",
    "HDF5Data": "hdf5_data_param",
    "WindowData": "window_data_param",
}
# A top: index of the layer, place among its tops.
Top = tuple[int, int]


@dataclass(frozen=True, eq=False)
class PrototxtFile:
    """A prototxt with the lines of its fields.

    Attributes:
        name: path as the user or the solver gives it.
        message: NetParameter or SolverParameter, as written, without unknown fields.
        root: the fields with their lines.
        unknown: fields that neither Caffe 1.0 nor a later build has.
        unknown_values: fields with a value that none of them has.
    """

    name: str
    message: Any
    root: Node = field(default_factory=lambda: Node(""))
    unknown: tuple[UnknownField, ...] = ()
    unknown_values: tuple[UnknownField, ...] = ()

    @cached_property
    def altered(self) -> tuple[Node, ...]:
        """Top-level fields that lost an unknown field or value which changes their meaning."""
        lost = [
            field
            for field in self.unknown
            if changes_the_net(field.message.removeprefix("caffe."), field.name)
        ]
        lost += [field for field in self.unknown_values if field.name not in {"engine", "type"}]
        return tuple(field.top for field in lost)

    def at(self, *names: str) -> tuple[Place, ...]:
        """The place of a field, or of the file if the field is not written."""
        node = self.root.find(*names)
        return (Place(self.name, node.line if node is not self.root else 0),)

    def has(self, name: str) -> bool:
        """Whether a field is written."""
        return bool(self.message.HasField(name))


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of a net in one phase.

    Attributes:
        index: its place in the net.
        message: the LayerParameter after Caffe's upgrades.
        written: the layer as in the file, maybe in an old format.
        node: its fields with their lines.
        file: name of its file.
        is_altered: whether an unknown field that may change its meaning was left out.
    """

    index: int
    message: Any
    written: Any
    node: Node
    file: str
    is_altered: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.message.name)

    @property
    def type(self) -> str:
        """Its type, as in Caffe 1.0."""
        return str(self.message.type)

    @property
    def source(self) -> str:
        """The database or list that a data layer reads, as written."""
        return str(getattr(self.message, DATA_PARAMS[self.type]).source)

    def at(self, *names: str) -> tuple[Place, ...]:
        """The place of a field of it, or of the layer if the field is not written."""
        return (Place(self.file, self.node.find(*names).line, self.name),)

    def at_data(self, name: str) -> tuple[Place, ...]:
        """The place of a field of a data layer's parameter, such as ``source``."""
        return self.at(DATA_PARAMS[self.type], name)


@dataclass(frozen=True, eq=False)
class PhaseNet:
    """A net as Caffe creates it in one phase.

    Attributes:
        phase: TRAIN or TEST.
        file: the prototxt it is written in.
        message: the NetParameter of the phase.
        layers: in order.
        infos: shapes of each layer's blobs, in the same order; empty if they cannot be inferred.
        refused: why Caffe would refuse the net because of its shapes or counts.
        test_iter: forward passes of a test, if a solver gives them.
    """

    phase: Phase
    file: PrototxtFile
    message: Any
    layers: tuple[Layer, ...]
    infos: tuple[LayerInfo, ...] = ()
    refused: NetError | None = None
    test_iter: int | None = None

    def info(self, layer: Layer) -> LayerInfo | None:
        """The shapes of a layer, if they are known."""
        return self.infos[layer.index] if self.infos else None

    def of_type(self, *types: str) -> Iterator[Layer]:
        """The layers of some types."""
        return (layer for layer in self.layers if layer.type in types)

    @cached_property
    def _sources(self) -> dict[Top, Top]:
        return bottom_sources([layer.message for layer in self.layers])

    @cached_property
    def _readers(self) -> dict[Top, list[Layer]]:
        readers: dict[Top, list[Layer]] = defaultdict(list)
        for (index, _), top in self._sources.items():
            readers[top].append(self.layers[index])
        return readers

    def tops_read(self, layer: Layer) -> list[Top | None]:
        """The top that each bottom of a layer reads; None if no layer above produces it."""
        return [self._sources.get((layer.index, i)) for i in range(len(layer.message.bottom))]

    def sources(self, layer: Layer) -> list[Layer | None]:
        """The layer that produces each bottom; None if no layer above does."""
        return [top and self.layers[top[0]] for top in self.tops_read(layer)]

    def readers(self, layer: Layer) -> list[Layer]:
        """The layers that read its tops, before another layer overwrites them in place."""
        places = range(len(layer.message.top))
        return [reader for i in places for reader in self._readers.get((layer.index, i), ())]

    def unread_tops(self, layer: Layer) -> list[str]:
        """Tops that no layer reads."""
        tops = enumerate(layer.message.top)
        return [name for i, name in tops if (layer.index, i) not in self._readers]

    @cached_property
    def data_layers(self) -> tuple[Layer, ...]:
        """Layers that read images from a disk."""
        return tuple(self.of_type(*DATA_PARAMS))

    @cached_property
    def batch_size(self) -> int | None:
        """Images of one forward pass; None if no data layer gives it."""
        names = {**DATA_PARAMS, "MemoryData": "memory_data_param"}
        for layer in self.of_type(*names):
            return int(getattr(layer.message, names[layer.type]).batch_size)
        return None

    def at_batch_size(self) -> tuple[Place, ...]:
        """The place of ``batch_size`` in the first data layer."""
        return self.data_layers[0].at("data_param", "batch_size") if self.data_layers else ()

    @cached_property
    def is_tensorflow_style(self) -> bool:
        """Whether the net belongs to the Inception-v3 family, which comes from TensorFlow.

        Such a net has a convolution of 1x7 or 7x1.
        """
        return any(set(kernel(layer.message)) == {1, 7} for layer in self.of_type("Convolution"))


def kernel(layer: Any) -> tuple[int, int]:
    """Height and width of the kernel of a Convolution; 0 where it is not written."""
    param = layer.convolution_param
    if param.HasField("kernel_h") or param.HasField("kernel_w"):
        return int(param.kernel_h), int(param.kernel_w)
    sizes = list(param.kernel_size)
    return (int(sizes[0]), int(sizes[-1])) if sizes else (0, 0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """Everything known about a run or a net.

    Attributes:
        solver: the solver's file, if one was given.
        nets: the nets that Caffe would create, TRAIN first.
        prototxts: every file that was read, the solver's first.
        databases: facts by the source, as written in the net.
        files: whether the files that nets name exist, by the path as written.
        blobs: facts on mean images and infogain matrices; None for a file that is neither.
        claims: facts given by the user.
        snapshots: facts about the snapshot folder, if a solver has a snapshot_prefix.
        troubles: hits found while files were read: rule name and hit.
    """

    solver: PrototxtFile | None = None
    nets: tuple[PhaseNet, ...] = ()
    prototxts: tuple[PrototxtFile, ...] = ()
    databases: Mapping[str, Database] = field(default_factory=dict)
    files: Mapping[str, bool] = field(default_factory=dict)
    blobs: Mapping[str, BlobFacts | None] = field(default_factory=dict)
    claims: Claims = field(default_factory=Claims)
    snapshots: SnapshotFacts | None = None
    troubles: tuple[tuple[str, Hit], ...] = ()

    @cached_property
    def train_net(self) -> PhaseNet | None:
        """The net that is trained."""
        return next((net for net in self.nets if net.phase == "TRAIN"), None)

    def facts_of(self, layer: Layer) -> Database | None:
        """Facts about the source of a data layer."""
        return self.databases.get(layer.source)

    def found_while_reading(self, rule_name: str) -> Iterator[Hit]:
        """The hits of a rule that were found while files were read."""
        return (hit for name, hit in self.troubles if name == rule_name)

    def with_solver(self) -> Iterator[SolverEvidence]:
        """The evidence for rules about the solver, if there is one."""
        if self.solver is not None:
            yield SolverEvidence(**{**self._values(), "solver": self.solver})

    def for_each_net(self, phase: Phase | None = None) -> Iterator[NetEvidence]:
        """The evidence for rules about a net, for each net of a phase."""
        for net in self.nets:
            if phase in {None, net.phase}:
                yield NetEvidence(**self._values(), net=net)

    def _values(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(Evidence)}

    @cached_property
    def _altered(self) -> frozenset[tuple[str, str]]:
        """Layers with an unknown field that was left out, by file and name."""
        layers = (layer for net in self.nets for layer in net.layers if layer.is_altered)
        return frozenset((layer.file, layer.name) for layer in layers)

    def is_altered(self, place: Place) -> bool:
        """Whether a finding at a place may be caused only by an unknown field that was left out."""
        if place.layer:
            return (place.file, place.layer) in self._altered
        solver = self.solver
        is_missing = solver is not None and place.file == solver.name and not place.line
        return is_missing and bool(solver and solver.altered)


@dataclass(frozen=True, eq=False, kw_only=True)
class SolverEvidence(Evidence):
    """Evidence for rules about the solver."""

    solver: PrototxtFile


@dataclass(frozen=True, eq=False, kw_only=True)
class NetEvidence(Evidence):
    """Evidence for rules about one net.

    Attributes:
        net: the net that the rule checks.
    """

    net: PhaseNet
