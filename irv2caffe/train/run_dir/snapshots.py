"""Finds, verifies and renames snapshots: pairs of a .caffemodel and a .solverstate."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import atomic_file, write_error
from irv2caffe.errors import FormatError, MissingInputError, UnreadableError
from irv2caffe.proto.snapshot_headers import (
    read_model_header,
    read_state_header,
    with_learned_net,
)
from irv2caffe.train.run_dir import checksums
from irv2caffe.train.run_dir.snapshot_name import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from irv2caffe.proto.snapshot_headers import LayerHeader, ModelHeader

_AVERAGED = ".ema.caffemodel"
_REJECTED = ".diverged"
# Fields that may differ between the net and a snapshot's: connections, which Caffe changes itself
# (Split layers), and fields that do not change the meaning of the weights.
_NOT_COMPARED = (
    "bottom", "top", "include", "exclude", "phase", "param", "loss_weight", "propagate_down",
    "blobs", "transform_param", "data_param", "image_data_param", "hdf5_data_param",
    "window_data_param", "loss_param", "dropout_param", "accuracy_param",
)  # fmt: skip
# Fields with file names, which differ after a run folder was moved.
_FILE_NAMES = (("infogain_loss_param", "source"), ("hdf5_output_param", "file_name"))
# Errors of file systems that cannot sync a file or a folder.
_CANNOT_FORCE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF}


@dataclass(frozen=True)
class Pair:
    """The two files of a snapshot, from which a run can be resumed."""

    iteration: int
    state: Path
    model: Path

    @property
    def averaged(self) -> Path:
        """The model with averaged weights that ``--ema`` writes beside them."""
        return self.model.with_suffix(_AVERAGED)

    @property
    def num_bytes(self) -> int:
        """Size of both files, as far as they exist."""
        total = 0
        for path in (self.state, self.model):
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total


def pairs(folder: Path) -> list[Pair]:
    """The pairs in a folder by their names, newest first; they may be incomplete.

    Raises:
        UnreadableError: the folder exists and cannot be listed.
    """
    try:
        found = [pair for state in folder.iterdir() if (pair := pair_of(state))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}", path=folder) from error
    return sorted(found, key=lambda pair: (pair.iteration, pair.state.name), reverse=True)


def pair_of(state: Path) -> Pair | None:
    """The pair that a solver state belongs to by its name; None for another kind of name."""
    name = parse_name(state.name)
    if name is None or name.suffix != ".solverstate":
        return None
    return Pair(name.iteration, state, state.with_suffix(".caffemodel"))


def problem(pair: Pair, net: Any = None, *, check_finite: bool = True) -> str:
    """Why a run cannot be resumed from a pair; empty if it can.

    Args:
        pair: the two files.
        net: the NetParameter of the run, or None to compare no nets.
        check_finite: check every weight for NaN and infinity.
    """
    try:
        return _problem(pair, net, check_finite=check_finite)
    except (FormatError, MissingInputError) as error:
        return error.message


def _problem(pair: Pair, net: Any, *, check_finite: bool) -> str:
    """Like :func:`problem`, but raises for files that are truncated, missing or unreadable.

    Raises:
        MissingInputError, FormatError, UnreadableError: a file cannot be used.
    """
    state = read_state_header(pair.state)
    model = read_model_header(pair.model, check_finite=check_finite)
    if state.iteration != pair.iteration:
        return f"{pair.state}: is of iteration {state.iteration}, not {pair.iteration}"
    if not model.is_finite:
        return f"{pair.model}: holds weights that are not numbers"
    num_weights = _num_learned(model)
    if num_weights and (state.num_history % num_weights or not state.num_history):
        return (
            f"{pair.state}: torn: holds the history of {state.num_history} of {num_weights} weights"
        )
    if net is not None:
        differences = (old_differences if model.is_old else net_differences)(model.layers, net)
        if differences:
            return f"{pair.model}: belongs to another net: {differences[0]}"
    return ""


def _num_learned(model: ModelHeader) -> int:
    """Number of blobs that the solver keeps history for; 0 where layers share blobs by name."""
    params = (param for layer in model.layers for param in layer.definition.param)
    if model.is_old or any(param.name for param in params):
        return 0
    return sum(len(layer.shapes) for layer in model.layers)


def newest_complete(
    folder: Path, net: Any = None, *, at_most: int | None = None
) -> tuple[Pair | None, list[str]]:
    """The newest pair without a problem, and the problems of newer ones.

    Args:
        folder: the snapshot folder.
        net: the NetParameter of the run, or None.
        at_most: ignore pairs of later iterations.

    Raises:
        UnreadableError: no pair is complete, and some could not be read.
    """
    problems: list[str] = []
    unreadable: UnreadableError | None = None
    for pair in pairs(folder):
        if at_most is not None and pair.iteration > at_most:
            continue
        try:
            why = _problem(pair, net, check_finite=True) or checksum_problem(pair)
        except UnreadableError as error:
            unreadable, why = unreadable or error, error.message
        except (FormatError, MissingInputError) as error:
            why = error.message
        if not why:
            return pair, problems
        problems.append(why)
    if unreadable is not None:
        raise unreadable
    return None, problems


def checksum_problem(pair: Pair) -> str:
    """A message if a file of a pair has changed since it was verified; empty otherwise.

    Raises:
        UnreadableError: a file cannot be read.
    """
    try:
        return checksums.difference((pair.model, pair.state))
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}", path=pair.state) from error


def fix_model_path(pair: Pair) -> bool:
    """Makes a solver state name the model beside it; returns whether it had to be changed.

    Caffe writes the model's path with the snapshot prefix, and opens that path when it resumes: in
    a moved folder, or from another working folder, it would not find the file.

    Raises:
        OutputError: it cannot be written.
    """
    wanted = str(pair.model.absolute())
    if read_state_header(pair.state).learned_net == wanted:
        return False
    with atomic_file(pair.state) as aside:
        try:
            with aside.open("wb") as stream:
                stream.writelines(with_learned_net(pair.state, wanted))
        except OSError as error:
            raise write_error(pair.state, error) from error
    checksums.record([pair.state], known_only=True)
    return True


def force_to_disk(pair: Pair) -> str:
    """Forces both files to the disk, so that they survive a power failure.

    Returns the error, or an empty string, also on file systems that cannot sync.
    """
    failure = ""
    for path in (pair.model, pair.state, pair.state.parent):
        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            if error.errno not in _CANNOT_FORCE:
                failure = failure or f"{path}: {error.strerror}"
    return failure


def set_aside(folder: Path, after: int) -> list[Path]:
    """Renames the snapshots after an iteration, so that no run is resumed from them.

    Returns:
        The models, by their old names.

    Raises:
        OutputError: they cannot be renamed.
    """
    rejected = []
    try:
        for path in sorted(folder.iterdir()):
            name = parse_name(path.name.replace(_AVERAGED, ".caffemodel"))
            if name is not None and path.suffix != ".h5" and name.iteration > after:
                path.replace(path.with_name(path.name + _REJECTED))
                if path.suffix == ".caffemodel" and not path.name.endswith(_AVERAGED):
                    rejected.append(path)
    except OSError as error:
        raise write_error(folder, error) from error
    return rejected


def net_differences(layers: Iterable[LayerHeader], net: Any) -> list[str]:
    """Differences between a net and a snapshot that affect the weights, one line each.

    Args:
        layers: the layers of the snapshot.
        net: a NetParameter with the layers of all phases.
    """
    wanted: dict[str, list[Any]] = {}
    for layer in net.layer:
        wanted.setdefault(layer.name, []).append(layer)
    if not wanted:
        return []  # an old net, which Caffe upgrades
    found = [layer for layer in layers if layer.definition.type != "Split"]
    differences = []
    for layer in found:
        name = layer.definition.name
        if name not in wanted:
            differences.append(f"layer {name} is not in this net")
        elif all(
            _compared_fields(layer.definition) != _compared_fields(one) for one in wanted[name]
        ):
            differences.append(f"layer {name} has changed")
    names = {layer.definition.name for layer in found}
    differences += [
        f"layer {layer.name} is new"
        for layer in net.layer
        if layer.name not in names and not (layer.include or layer.exclude)
    ]
    return differences


def old_differences(layers: Iterable[LayerHeader], net: Any) -> list[str]:
    """Layers of a snapshot in the old format that the net lacks, one line each."""
    names = {layer.name for layer in (*net.layer, *net.layers)}
    learned = [layer.definition.name for layer in layers if layer.shapes]
    return [f"layer {name} is not in this net" for name in learned if names and name not in names]


def _compared_fields(layer: Any) -> bytes:
    """The compared fields of a layer, serialized."""
    bare = type(layer)()
    bare.CopyFrom(layer)
    for field in _NOT_COMPARED:
        bare.ClearField(field)
    for param, field in _FILE_NAMES:
        if bare.HasField(param):
            getattr(bare, param).ClearField(field)
    bare.DiscardUnknownFields()  # NVCaffe writes them into every layer
    return bytes(bare.SerializeToString(deterministic=True))
