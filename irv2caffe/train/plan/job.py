"""What is to be trained: a solver and the nets it names."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.check.files import exists, is_file
from irv2caffe.errors import FormatError, Irv2CaffeError, MissingInputError
from irv2caffe.proto import messages
from irv2caffe.proto.text import read_prototxt
from irv2caffe.train.run_dir.folders import OWN_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

# Fields of LayerParameter that hold paths; Caffe opens them relative to its working folder.
_PATH_FIELDS = (
    ("data_param", "source"),
    ("image_data_param", "source"),
    ("image_data_param", "root_folder"),
    ("hdf5_data_param", "source"),
    ("window_data_param", "source"),
    ("window_data_param", "root_folder"),
    ("infogain_loss_param", "source"),
    ("transform_param", "mean_file"),
)
# Those of them that are small files a run folder keeps a copy of.
COPIED_FIELDS = (("infogain_loss_param", "source"), ("transform_param", "mean_file"))
_NET_FIELDS = ("net", "train_net", "test_net")
_INLINE_FIELDS = {"net_param": "net", "train_net_param": "train_net", "test_net_param": "test_net"}
PHASES = ("TRAIN", "TEST")


@dataclass(frozen=True)
class Job:
    """A solver and its nets, with absolute paths.

    Attributes:
        path: of the solver.
        solver: the SolverParameter, whose net fields name keys of ``nets``.
        nets: file name to NetParameter.
    """

    path: Path
    solver: Any
    nets: dict[str, Any]

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


@contextmanager
def noted(problems: list[Irv2CaffeError]) -> Iterator[None]:
    """Collects what is wrong instead of ending at the first thing."""
    try:
        yield
    except Irv2CaffeError as error:
        problems.append(error)


def read_job(solver_path: Path, problems: list[Irv2CaffeError], *, moved: bool = False) -> Job:
    """Reads a solver and the nets it names.

    Relative paths are taken from the working folder, as Caffe does, or else from the solver's.

    Args:
        solver_path: a solver prototxt.
        problems: gets what is wrong with the nets.
        moved: the nets lie beside the solver, wherever it says that they are.

    Raises:
        MissingInputError: no solver there.
        FormatError: it is none, or names no net.
    """
    solver = read_prototxt(solver_path, messages.SolverParameter)
    base = solver_path.absolute().parent
    nets: dict[str, Any] = {}
    for inline, field in _INLINE_FIELDS.items():
        _take_inline(solver, inline, field, base, nets)
    for field in _NET_FIELDS:
        value = getattr(solver, field)
        names = [value] if isinstance(value, str) else list(value)
        kept = []
        for name in filter(None, names):
            if name in nets:
                kept.append(name)
                continue
            with noted(problems):
                kept.append(_read_net(name, field, base, nets, solver_path, moved))
        if isinstance(value, str):
            if kept:  # an empty name would count as a net, too
                setattr(solver, field, kept[0])
            else:
                solver.ClearField(field)
        else:
            value[:] = kept
    if not (solver.train_net or solver.net) and not problems:
        what = "names no net to train" if nets else "names no net"
        raise FormatError(what, "a solver needs net: or train_net:", path=solver_path)
    return Job(solver_path, solver, nets)


def _take_inline(solver: Any, inline: str, field: str, base: Path, nets: dict[str, Any]) -> None:
    """Turns nets inside of the solver into nets it names."""
    value = getattr(solver, inline)
    found = list(value) if inline.startswith("test") else [value] * solver.HasField(inline)
    for net in found:
        copy = messages.NetParameter()
        copy.CopyFrom(net)
        _absolute_paths(copy, base)
        name = _free_name(f"{inline}.prototxt", nets)
        nets[name] = copy
        if isinstance(getattr(solver, field), str):
            setattr(solver, field, name)
        else:
            getattr(solver, field).append(name)
    solver.ClearField(inline)


def _read_net(
    name: str, field: str, base: Path, nets: dict[str, Any], solver_path: Path, moved: bool
) -> str:
    path = base / Path(name).name if moved else _resolve(name, base)
    if not is_file(path):
        raise MissingInputError(
            f"{solver_path}: {field} {name!r} is not there",
            "run it from the folder its paths start from, or mend the path",
        )
    net = read_prototxt(path, messages.NetParameter)
    _absolute_paths(net, base)
    for known, other in nets.items():
        if known == path.name and other == net:
            return known  # named twice: as train_net and as test_net
    file_name = _free_name(path.name, nets)
    nets[file_name] = net
    return file_name


def _free_name(name: str, nets: dict[str, Any]) -> str:
    number = 2
    wanted = name if name not in OWN_NAMES else f"net_{name}"
    free = wanted
    while free in nets:
        free = f"{number}_{wanted}"
        number += 1
    return free


def _absolute_paths(net: Any, base: Path) -> None:
    for layer in net.layer:
        for param, field in _PATH_FIELDS:
            if layer.HasField(param) and getattr(getattr(layer, param), field):
                message = getattr(layer, param)
                value = getattr(message, field)
                resolved = str(_resolve(value, base))
                # Caffe joins root_folder and a name as they stand.
                setattr(message, field, resolved + "/" * (field == "root_folder"))


def _resolve(name: str, base: Path) -> Path:
    """A path from the working folder, or from ``base`` where only that exists."""
    path = Path(name)
    beside = base / path
    return beside if not exists(path) and exists(beside) else path.absolute()


def data_layers(net: Any, phase: str) -> Iterator[Any]:
    """The Data layers that a phase of the net runs."""
    wanted = messages.TRAIN if phase == "TRAIN" else messages.TEST
    for layer in net.layer:
        phases = {rule.phase for rule in layer.include if rule.HasField("phase")}
        not_in = {rule.phase for rule in layer.exclude if rule.HasField("phase")}
        is_in = wanted in phases if phases else wanted not in not_in
        if layer.type in {"Data", "ImageData"} and is_in:
            yield layer


def layer_batch(layer: Any) -> int:
    """The batch_size as the layer says it."""
    param = layer.image_data_param if layer.type == "ImageData" else layer.data_param
    return int(param.batch_size)


def set_layer_batch(layer: Any, batch_size: int) -> None:
    """Another batch_size."""
    param = layer.image_data_param if layer.type == "ImageData" else layer.data_param
    param.batch_size = batch_size
