"""Everything checked before the start: the nets, the databases, the effective batch, the epochs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.data.inspect import summarize_database
from irv2caffe.errors import FormatError, InputError, MissingInputError, UsageError
from irv2caffe.proto import messages
from irv2caffe.proto.text import read_prototxt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.caffe.find import FoundCaffe

# Fields of LayerParameter that hold paths; Caffe opens them relative to its working folder.
_PATH_FIELDS = (
    ("data_param", "source"),
    ("image_data_param", "source"),
    ("image_data_param", "root_folder"),
    ("hdf5_data_param", "source"),
    ("window_data_param", "source"),
    ("infogain_loss_param", "source"),
    ("transform_param", "mean_file"),
)
_NET_FIELDS = ("net", "train_net", "test_net")


@dataclass(frozen=True)
class Plan:
    """A run that can start.

    Attributes:
        solver: the SolverParameter with absolute paths, still without its snapshot_prefix.
        nets: file name to NetParameter, with absolute paths.
        num_train: training images, or None where the net does not read an LMDB.
        num_val: validation images, or None.
        effective_batch: images per update.
        gpus: device numbers as Caffe takes them, or empty for the CPU.
    """

    solver: Any
    nets: dict[str, Any]
    num_train: int | None
    num_val: int | None
    effective_batch: int
    gpus: str

    @property
    def epochs(self) -> float | None:
        """Passes over the training set, where its size is known."""
        if not self.num_train:
            return None
        return float(self.solver.max_iter) * self.effective_batch / self.num_train


def make_plan(solver_path: Path, found: FoundCaffe, gpus: str) -> Plan:
    """Reads a solver and the nets it names, and checks what would end the run later.

    Relative paths are taken from the working folder, as Caffe does, or else from the solver's.

    Args:
        solver_path: a solver prototxt.
        found: the Caffe that will train.
        gpus: ``none``, ``all`` or device numbers ``0,1``.

    Raises:
        InputError: a file or database is missing or does not fit the net.
        UsageError: GPUs asked of a Caffe that has none.
    """
    devices = _devices(gpus, found)
    solver = read_prototxt(solver_path, messages.SolverParameter)
    base = solver_path.absolute().parent
    nets = _read_nets(solver, base, solver_path)
    if solver.max_iter < 1:
        raise FormatError("max_iter is missing", "a solver needs max_iter", path=solver_path)
    databases = {
        phase: [found for net in nets.values() for found in _databases(net, phase)]
        for phase in ("TRAIN", "TEST")
    }
    train, test = databases["TRAIN"], databases["TEST"]
    batch = train[0][1] if train else 1
    num_gpus = devices.count(",") + 1 if devices else 1
    _check_labels(nets, train + test)
    return Plan(
        solver=solver,
        nets=nets,
        num_train=train[0][0].num_records if train else None,
        num_val=test[0][0].num_records if test else None,
        effective_batch=batch * num_gpus * solver.iter_size,
        gpus=devices,
    )


def notes(plan: Plan) -> list[str]:
    """What a person should know before the start, one line each."""
    lines = []
    if plan.epochs is not None and plan.num_train:
        lines.append(
            f"{plan.solver.max_iter:,} iterations x {plan.effective_batch} images = "
            f"{plan.epochs:.2f} epochs of {plan.num_train:,} images"
        )
    tested = _tested(plan)
    if plan.num_val and tested and tested != plan.num_val:
        lines.append(
            f"warning: every test reads {tested:,} images, the validation database has "
            f"{plan.num_val:,}: test_iter x batch should be equal to it"
        )
    return lines


def _tested(plan: Plan) -> int:
    """Images that one test reads."""
    for net in plan.nets.values():
        for layer in _data_layers(net, "TEST"):
            if plan.solver.test_iter:
                return int(layer.data_param.batch_size * plan.solver.test_iter[0])
    return 0


def _devices(gpus: str, found: FoundCaffe) -> str:
    """The value of Caffe's ``-gpu``, or an empty string for the CPU."""
    if gpus == "none":
        return ""
    if gpus != "all" and not all(part.isdecimal() for part in gpus.split(",")):
        raise UsageError(f"--gpus {gpus}: give all, none, or numbers such as 0,1")
    if gpus != "all" and len(set(gpus.split(","))) != len(gpus.split(",")):
        raise UsageError(f"--gpus {gpus} names a GPU twice")
    if found.is_runtime:
        raise UsageError(
            "the Caffe from the Debian archive was built without GPU support",
            "--gpus none trains on the CPU; CAFFE_ROOT names a Caffe built with CUDA",
        )
    return gpus


def _read_nets(solver: Any, base: Path, solver_path: Path) -> dict[str, Any]:
    """The nets a solver names, by the file name they get in the run folder."""
    nets: dict[str, Any] = {}
    for field in _NET_FIELDS:
        value = getattr(solver, field)
        for name in [value] if isinstance(value, str) else list(value):
            if not name:
                continue
            path = _resolve(name, base)
            if not path.is_file():
                raise MissingInputError(
                    f"{solver_path}: {field} {name!r} is not there",
                    "run it from the folder its paths start from, or mend the path",
                )
            file_name = path.name if path.name not in nets else f"{field}_{path.name}"
            net = read_prototxt(path, messages.NetParameter)
            _absolute_paths(net, base)
            nets[file_name] = net
    if not nets:
        raise FormatError("names no net", "a solver needs net: or train_net:", path=solver_path)
    return nets


def _absolute_paths(net: Any, base: Path) -> None:
    for layer in net.layer:
        for param, field in _PATH_FIELDS:
            if layer.HasField(param) and getattr(getattr(layer, param), field):
                message = getattr(layer, param)
                setattr(message, field, str(_resolve(getattr(message, field), base)))


def _resolve(name: str, base: Path) -> Path:
    """A path from the working folder, or from ``base`` where only that exists."""
    path = Path(name)
    beside = base / path
    return beside if not path.exists() and beside.exists() else path.absolute()


def _data_layers(net: Any, phase: str) -> Iterator[Any]:
    """The Data layers that a phase of the net runs."""
    wanted = messages.TRAIN if phase == "TRAIN" else messages.TEST
    for layer in net.layer:
        phases = {rule.phase for rule in layer.include if rule.HasField("phase")}
        if layer.type == "Data" and (not phases or wanted in phases):
            yield layer


def _databases(net: Any, phase: str) -> Iterator[tuple[Any, int, int]]:
    """(summary, batch size, crop) of every LMDB that a phase reads."""
    for layer in _data_layers(net, phase):
        if layer.data_param.backend != messages.DataParameter.LMDB:
            continue
        source = Path(layer.data_param.source)
        if not source.exists():
            raise MissingInputError(
                f"layer {layer.name} ({phase}): no database at {layer.data_param.source}",
                "build it with: irv2caffe make-lmdb SOURCE OUT",
            )
        summary = summarize_database(source)
        crop = layer.transform_param.crop_size
        if summary.num_records == 0:
            raise InputError(f"{source} is empty")
        if crop > min(summary.height, summary.width):
            raise InputError(
                f"crop_size {crop} does not fit the {summary.width}x{summary.height} images in "
                f"{source}",
                f"rebuild the database with --resize {crop * 328 // 299} or more",
            )
        yield summary, layer.data_param.batch_size, crop


def _check_labels(nets: dict[str, Any], databases: list[tuple[Any, int, int]]) -> None:
    """Labels beyond the classifier's outputs make Caffe read foreign memory, or abort."""
    outputs = [
        layer.inner_product_param.num_output
        for net in nets.values()
        for layer in net.layer
        if layer.type == "InnerProduct"
    ]
    for summary, _, _ in databases:
        if outputs and summary.max_label >= max(outputs):
            raise InputError(
                f"a database has label {summary.max_label}, the net only {max(outputs)} outputs",
                "build the net with --num-classes, or give build-net the databases",
            )
