"""What rules look at: files and where things stand in them, nets of a phase, plain facts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from irv2caffe.check.finding import Place
from irv2caffe.check.fork_fields import changes_the_net
from irv2caffe.check.inputs import Claims
from irv2caffe.proto.positions import Node

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from irv2caffe.check.inputs import SnapshotFacts
    from irv2caffe.data.inspect.database import Database
    from irv2caffe.errors import NetError
    from irv2caffe.proto.positions import UnknownField
    from irv2caffe.shapes.infer import LayerInfo
    from irv2caffe.shapes.phases import Phase


@dataclass(frozen=True, eq=False)
class PrototxtFile:
    """A prototxt and where things stand in it.

    Attributes:
        name: as it was named.
        message: NetParameter or SolverParameter, as written, unknown fields left out.
        root: the fields with their lines.
        unknown: fields that Caffe 1.0 and its successors do not have.
        unknown_values: fields whose value none of them has.
    """

    name: str
    message: Any
    root: Node = field(default_factory=lambda: Node(""))
    unknown: tuple[UnknownField, ...] = ()
    unknown_values: tuple[UnknownField, ...] = ()

    @cached_property
    def altered(self) -> tuple[Node, ...]:
        """Top-level fields that are not what they were meant to be, for something was left out."""
        lost = [
            field
            for field in self.unknown
            if changes_the_net(field.message.removeprefix("caffe."), field.name)
        ]
        lost += [field for field in self.unknown_values if field.name not in {"engine", "type"}]
        return tuple(field.top for field in lost)

    def at(self, *names: str) -> tuple[Place, ...]:
        """The place of a field; of the file where the field is not written."""
        node = self.root.find(*names)
        return (Place(self.name, node.line if node is not self.root else 0),)

    def says(self, name: str) -> bool:
        """Whether a field is written."""
        return bool(self.message.HasField(name))


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of a net in a phase.

    Attributes:
        index: its place in the net.
        message: as Caffe upgrades it.
        written: as it stands in the file; an older form in old files.
        node: where it stands.
        file: the name of its file.
        is_altered: whether something that may matter was left out of it.
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
        """Its type, as Caffe 1.0 writes it."""
        return str(self.message.type)

    def at(self, *names: str) -> tuple[Place, ...]:
        """The place of a field of it, or of the layer where the field is not written."""
        return (Place(self.file, self.node.find(*names).line, self.name),)


Version = tuple[str, int]


@dataclass(frozen=True, eq=False)
class PhaseNet:
    """A net as one phase runs it.

    Attributes:
        phase: TRAIN or TEST.
        file: where it stands.
        message: the NetParameter of the phase.
        layers: in order.
        infos: shapes of what each layer touches, in their order; empty where nobody can know.
        refused: why Caffe would refuse to make it, where shapes or counts are to blame.
        test_iter: forward passes of a test, where a solver says so.
    """

    phase: Phase
    file: PrototxtFile
    message: Any
    layers: tuple[Layer, ...]
    infos: tuple[LayerInfo, ...] = ()
    refused: NetError | None = None
    test_iter: int | None = None

    def info(self, layer: Layer) -> LayerInfo | None:
        """The shapes of a layer, where they are known."""
        return self.infos[layer.index] if self.infos else None

    def of_type(self, *types: str) -> Iterator[Layer]:
        """The layers of some types."""
        return (layer for layer in self.layers if layer.type in types)

    @cached_property
    def _flow(self) -> _Flow:
        return _Flow(self.layers)

    def sources(self, layer: Layer) -> list[Layer | None]:
        """The layer that wrote each bottom last; None where nobody did."""
        return [self._flow.writer.get(version) for version in self._flow.read[layer.index]]

    def readers(self, layer: Layer) -> list[Layer]:
        """Who reads what a layer writes, before somebody overwrites it in place."""
        return [
            reader
            for version in self._flow.written[layer.index]
            for reader in self._flow.readers[version]
        ]

    def versions(self, layer: Layer) -> tuple[list[Version], list[Version]]:
        """The states of blobs that a layer reads, and those that it makes."""
        return self._flow.read[layer.index], self._flow.written[layer.index]

    def unread_tops(self, layer: Layer) -> list[str]:
        """Tops that nobody reads."""
        return [name for name, at in self._flow.written[layer.index] if not self._reads(name, at)]

    def _reads(self, name: str, at: int) -> bool:
        return bool(self._flow.readers[name, at])

    @cached_property
    def data_layers(self) -> tuple[Layer, ...]:
        """Layers that read images from a disk."""
        return tuple(layer for layer in self.layers if layer.type in DATA_PARAMS)

    @cached_property
    def batch_size(self) -> int | None:
        """Images of one forward pass, or None where it is not written in a data layer."""
        for layer in self.layers:
            field_name = DATA_PARAMS.get(layer.type) or (
                "memory_data_param" if layer.type == "MemoryData" else None
            )
            if field_name:
                return int(getattr(layer.message, field_name).batch_size)
        return None

    @cached_property
    def is_tensorflow_style(self) -> bool:
        """Whether it is of the Inception-v3 family, whose originals are TensorFlow's.

        Their mark is a convolution of 1x7 or 7x1.
        """
        return any(set(kernel(layer.message)) == {1, 7} for layer in self.of_type("Convolution"))


DATA_PARAMS = {
    "Data": "data_param",
    "ImageData": "image_data_param",
    "HDF5Data": "hdf5_data_param",
    "WindowData": "window_data_param",
}


class _Flow:
    """Who writes and who reads which state of which blob; in-place layers make a new state."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self.writer: dict[Version, Layer] = {}
        self.readers: dict[Version, list[Layer]] = defaultdict(list)
        self.read: list[list[Version]] = []
        self.written: list[list[Version]] = []
        state: dict[str, int] = defaultdict(int)
        for layer in layers:
            read = [(name, state[name]) for name in layer.message.bottom]
            for version in read:
                self.readers[version].append(layer)
            written = []
            for name in layer.message.top:
                state[name] += 1
                written.append((name, state[name]))
                self.writer[name, state[name]] = layer
            self.read.append(read)
            self.written.append(written)


def kernel(layer: Any) -> tuple[int, int]:
    """Height and width of a convolution's kernel, as far as it is written."""
    param = layer.convolution_param
    if param.HasField("kernel_h") or param.HasField("kernel_w"):
        return int(param.kernel_h), int(param.kernel_w)
    sizes = list(param.kernel_size)
    return (int(sizes[0]), int(sizes[-1])) if sizes else (0, 0)


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known of a run or a net.

    Attributes:
        solver: the solver's file, if one was given.
        nets: TRAIN first; the nets that Caffe would make.
        prototxts: every file that was read, the solver's first.
        databases: facts by the source as it is written in the net.
        files: other paths of the nets, as written, and whether they exist.
        blobs: shapes of mean images and infogain matrices; None for a file that is neither.
        claims: what the user says.
        snapshots: where they go, if a solver says so.
        troubles: what was found while reading: rule name and hit.
    """

    solver: PrototxtFile | None = None
    nets: tuple[PhaseNet, ...] = ()
    prototxts: tuple[PrototxtFile, ...] = ()
    databases: Mapping[str, Database] = field(default_factory=dict)
    files: Mapping[str, bool] = field(default_factory=dict)
    blobs: Mapping[str, tuple[int, ...] | None] = field(default_factory=dict)
    claims: Claims = field(default_factory=Claims)
    snapshots: SnapshotFacts | None = None
    troubles: tuple[tuple[str, Any], ...] = ()

    @cached_property
    def _altered(self) -> frozenset[tuple[str, str]]:
        """Layers of which something was left out, by file and name."""
        layers = (layer for net in self.nets for layer in net.layers if layer.is_altered)
        return frozenset((layer.file, layer.name) for layer in layers)

    def is_altered(self, place: Place) -> bool:
        """Whether what is found there may only be so because something was left out."""
        if place.layer:
            return (place.file, place.layer) in self._altered
        solver = self.solver
        is_missing = solver is not None and place.file == solver.name and not place.line
        return is_missing and bool(solver and solver.altered)
