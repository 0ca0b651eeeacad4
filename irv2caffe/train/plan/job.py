"""Reads a job: a solver and the nets it names."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.check.find_nets import INLINE_ROLES, NET_ROLES
from irv2caffe.check.read import PATH_FIELDS, read
from irv2caffe.errors import FormatError, Irv2CaffeError
from irv2caffe.proto import messages
from irv2caffe.train.run_dir.folders import OWN_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import PrototxtFile
    from irv2caffe.check.files import Reading

# Fields with paths of small files that are copied into the run folder.
COPIED_FIELDS = (("infogain_loss_param", "source"), ("transform_param", "mean_file"))
PHASES = ("TRAIN", "TEST")
_READERS = ("Data", "ImageData")


@dataclass(frozen=True)
class Job:
    """A solver and its nets, with absolute paths, as they will be written into the run folder.

    Attributes:
        path: path of the solver.
        solver: the SolverParameter; its net fields name keys of ``nets``.
        nets: NetParameters by file name.
        files: the same nets as they were read, by file name.
        reading: all files as they were read.
    """

    path: Path
    solver: Any
    nets: dict[str, Any]
    files: dict[str, PrototxtFile]
    reading: Reading

    def data_layers(self, phase: str) -> Iterator[Any]:
        """The layers of a phase that read batches from a database or a list."""
        for net in self.nets_of(phase):
            yield from data_layers(net, phase)

    def nets_of(self, phase: str) -> Iterator[Any]:
        """The nets that a phase uses."""
        solver = self.solver
        own = [solver.train_net] if phase == "TRAIN" else list(solver.test_net)
        for name in filter(None, dict.fromkeys([*own, solver.net])):
            if name in self.nets:
                yield self.nets[name]

    @property
    def train_net(self) -> Any:
        """The net whose weights are in the snapshots; empty where it could not be read."""
        name = self.solver.train_net or self.solver.net
        return self.nets[name] if name in self.nets else messages.NetParameter()

    def as_written(self) -> Reading:
        """The files as they were read, with the options applied."""
        written = self.reading.solver
        assert written is not None
        solver = _copy(self.solver)
        own = _copy(written.message)
        for field, _ in written.message.ListFields():
            if field.name not in (*NET_ROLES, *INLINE_ROLES):
                own.ClearField(field.name)
        for name in NET_ROLES:
            solver.ClearField(name)
        solver.MergeFrom(own)
        files = {file: _with_batches(file, self.nets[name]) for name, file in self.files.items()}
        nets = [replace(net, file=files[net.file]) for net in self.reading.nets]
        return replace(self.reading, solver=replace(written, message=solver), nets=nets)


def _with_batches(file: PrototxtFile, net: Any) -> PrototxtFile:
    """The file with the batch sizes of a copy of its net."""
    changed = {
        place: layer_batch(layer)
        for place, layer in enumerate(net.layer)
        if layer.type in _READERS and layer_batch(layer) != layer_batch(file.message.layer[place])
    }
    if not changed:
        return file
    message = _copy(file.message)
    for place, batch_size in changed.items():
        reader_param(message.layer[place]).batch_size = batch_size
    return replace(file, message=message)


@contextmanager
def collected(problems: list[Irv2CaffeError]) -> Iterator[None]:
    """Adds an error to the problems, so that all of them are reported at once."""
    try:
        yield
    except Irv2CaffeError as error:
        problems.append(error)


def read_job(solver_path: Path, problems: list[Irv2CaffeError], *, moved: bool = False) -> Job:
    """Reads a solver and the nets it names.

    Relative paths start from the working folder, as in Caffe, or else from the solver's folder.

    Args:
        solver_path: a solver prototxt.
        problems: errors of the nets are added to it.
        moved: read the nets beside the solver, whatever folder it names.

    Raises:
        MissingInputError: there is no such solver.
        FormatError: the file is not a solver, or names no net.
    """
    reading = read(solver_path, is_strict=True, is_moved=moved)
    assert reading.solver is not None
    problems += reading.errors
    solver = _copy(reading.solver.message)
    for field in (*NET_ROLES, *INLINE_ROLES):
        solver.ClearField(field)
    nets: dict[str, Any] = {}
    files: dict[str, PrototxtFile] = {}
    names: dict[PrototxtFile, str] = {}
    for found in reading.nets:
        if found.file not in names:
            inline = found.field in INLINE_ROLES
            wanted = f"{found.field}.prototxt" if inline else Path(found.file.name).name
            name = names[found.file] = _free_name(wanted, nets)
            nets[name], files[name] = _copy(found.file.message), found.file
            _make_paths_absolute(nets[name], reading)
        field = found.field.removesuffix("_param")
        if field == "test_net":
            solver.test_net.append(names[found.file])
        else:
            setattr(solver, field, names[found.file])
    if not (solver.train_net or solver.net) and not problems:
        what = "names no net to train" if nets else "names no net"
        raise FormatError(what, "a solver needs net: or train_net:", path=solver_path)
    return Job(solver_path, solver, nets, files, reading)


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _free_name(name: str, nets: dict[str, Any]) -> str:
    """The name of a net's file in the run folder: its own, or one that is not taken."""
    wanted = f"net_{name}" if name in OWN_NAMES else name
    names = chain([wanted], (f"{number}_{wanted}" for number in count(2)))
    return next(name for name in names if name not in nets)


def _make_paths_absolute(net: Any, reading: Reading) -> None:
    for layer in net.layer:
        for param, field in PATH_FIELDS:
            message = getattr(layer, param)
            written = getattr(message, field)
            if written:
                found = reading.paths.get(written) or Path(written)
                # Caffe appends the image name to root_folder without a slash.
                setattr(message, field, f"{found.absolute()}" + "/" * (field == "root_folder"))


def data_layers(net: Any, phase: str) -> Iterator[Any]:
    """The Data and ImageData layers of a phase."""
    wanted = messages.TRAIN if phase == "TRAIN" else messages.TEST
    for layer in net.layer:
        phases = {rule.phase for rule in layer.include if rule.HasField("phase")}
        not_in = {rule.phase for rule in layer.exclude if rule.HasField("phase")}
        is_in = wanted in phases if phases else wanted not in not_in
        if layer.type in _READERS and is_in:
            yield layer


def reader_param(layer: Any) -> Any:
    """The parameters of a data layer, with its source and batch_size."""
    return layer.image_data_param if layer.type == "ImageData" else layer.data_param


def layer_batch(layer: Any) -> int:
    """The batch_size of a data layer, as written."""
    return int(reader_param(layer).batch_size)
