"""Pairs of .caffemodel and .solverstate: which are whole, which stay, which must never be used."""

from __future__ import annotations

import contextlib
import errno
import os
import re
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

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from irv2caffe.proto.snapshot_headers import LayerHeader, ModelHeader

# NVCaffe can write the test's scores into the name.
_STATE = re.compile(r"_iter_(\d+)(?:_score[\w.]*?)?\.solverstate$")
_MODEL = re.compile(r"_iter_(\d+)(?:_score[\w.]*?)?\.caffemodel$")
_REJECTED = ".diverged"
# What may differ between the net that is trained and the one that a snapshot was made of: wiring
# that Caffe itself changes (Split layers), and what does not change the meaning of the weights.
_NOT_COMPARED = (
    "bottom", "top", "include", "exclude", "phase", "param", "loss_weight", "propagate_down",
    "blobs", "transform_param", "data_param", "image_data_param", "hdf5_data_param",
    "window_data_param", "loss_param", "dropout_param", "accuracy_param",
)  # fmt: skip
# Names of files within what is compared: a run folder that was moved has its files elsewhere.
_FILE_NAMES = (("infogain_loss_param", "source"), ("hdf5_output_param", "file_name"))
# File systems that cannot force a file or a folder to the disk say so with one of these.
_CANNOT_FORCE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF}


@dataclass(frozen=True)
class Pair:
    """Two files that a run can be resumed from."""

    iteration: int
    state: Path
    model: Path

    @property
    def num_bytes(self) -> int:
        """Of both files, as far as they are there."""
        total = 0
        for path in (self.state, self.model):
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total


def pairs(folder: Path) -> list[Pair]:
    """The pairs in a folder by their names, newest first; whether they are whole is not asked.

    Raises:
        UnreadableError: the folder is there and cannot be looked into.
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
    match = _STATE.search(state.name)
    return Pair(int(match[1]), state, state.with_suffix(".caffemodel")) if match else None


def problem(pair: Pair, net: Any = None, *, check_finite: bool = True) -> str:
    """What keeps a run from being resumed from a pair; empty where nothing does.

    Args:
        pair: two files.
        net: the NetParameter of the run; None does not compare.
        check_finite: look at every weight too.
    """
    try:
        return _problem(pair, net, check_finite=check_finite)
    except (FormatError, MissingInputError) as error:
        return error.message


def _problem(pair: Pair, net: Any, *, check_finite: bool) -> str:
    """The same, but for files that are torn, not there, or cannot be read.

    Raises:
        MissingInputError, FormatError, UnreadableError: these.
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
            return f"{pair.model}: is of another net: {differences[0]}"
    return ""


def _num_learned(model: ModelHeader) -> int:
    """Blobs that the solver keeps a history of, or two; 0 where layers share some by name."""
    if model.is_old or any(
        param.name for layer in model.layers for param in layer.definition.param
    ):
        return 0
    return sum(len(layer.shapes) for layer in model.layers)


def newest_whole(
    folder: Path, net: Any = None, *, at_most: int | None = None
) -> tuple[Pair | None, list[str]]:
    """The newest pair without a problem, and the problems of newer ones.

    Args:
        folder: of snapshots.
        net: the NetParameter of the run, or None.
        at_most: pairs of later iterations do not count.

    Raises:
        UnreadableError: none was found to be whole, and of some a disk did not let us see it.
    """
    problems: list[str] = []
    unreadable: UnreadableError | None = None
    for pair in pairs(folder):
        if at_most is not None and pair.iteration > at_most:
            continue
        try:
            why = _problem(pair, net, check_finite=True) or damage(pair)
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


def damage(pair: Pair) -> str:
    """Says what is not as it was when the pair was verified; empty where nobody did that.

    Raises:
        UnreadableError: a disk keeps it from being read.
    """
    try:
        return checksums.difference((pair.model, pair.state))
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}", path=pair.state) from error


def mend(pair: Pair) -> bool:
    """Lets a solver state name the model beside it; whether it had to.

    Caffe writes the model's path as it was given the prefix, and opens just that when it resumes:
    a folder that was moved, or another working folder, would end in "File not found".

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


def keep_on_disk(pair: Pair) -> str:
    """Waits until both files are on the disk itself, so that a power cut leaves them whole.

    Returns what kept a disk from it, or nothing; file systems that know no such thing pass.
    """
    trouble = ""
    for path in (pair.model, pair.state, pair.state.parent):
        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            if error.errno not in _CANNOT_FORCE:
                trouble = trouble or f"{path}: {error.strerror}"
    return trouble


def reject(folder: Path, after: int) -> list[Path]:
    """Renames snapshots of later iterations, so that no run is resumed from them; the models.

    Raises:
        OutputError: they cannot be renamed.
    """
    rejected = []
    try:
        for path in sorted(folder.iterdir()):
            match = _STATE.search(path.name) or _MODEL.search(path.name)
            if match and int(match[1]) > after:
                path.replace(path.with_name(path.name + _REJECTED))
                if path.suffix == ".caffemodel":
                    rejected.append(path)
    except OSError as error:
        raise write_error(folder, error) from error
    return rejected


def net_differences(layers: Iterable[LayerHeader], net: Any) -> list[str]:
    """How a net differs from the one that a snapshot was made of, as far as weights go.

    Args:
        layers: of the snapshot.
        net: a NetParameter; its layers of all phases.
    """
    wanted: dict[str, list[Any]] = {}
    for layer in net.layer:
        wanted.setdefault(layer.name, []).append(layer)
    if not wanted:
        return []  # an old net, which Caffe upgrades when it reads it
    found = [layer for layer in layers if layer.definition.type != "Split"]
    differences = []
    for layer in found:
        name = layer.definition.name
        there = wanted.get(name, [])
        if not there:
            differences.append(f"layer {name} is not in the net now")
        elif not any(_same(layer.definition, one) for one in there):
            differences.append(f"layer {name} has changed")
    names = {layer.definition.name for layer in found}
    differences += [
        f"layer {layer.name} is new"
        for layer in net.layer
        if layer.name not in names and not (layer.include or layer.exclude)
    ]
    return differences


def old_differences(layers: Iterable[LayerHeader], net: Any) -> list[str]:
    """The same for a snapshot of which only the names of its layers are known."""
    names = {layer.name for layer in (*net.layer, *net.layers)}
    learned = [layer.definition.name for layer in layers if layer.shapes]
    return [
        f"layer {name} is not in the net now" for name in learned if names and name not in names
    ]


def _same(left: Any, right: Any) -> bool:
    return _essence(left) == _essence(right)


def _essence(layer: Any) -> bytes:
    bare = type(layer)()
    bare.CopyFrom(layer)
    for field in _NOT_COMPARED:
        bare.ClearField(field)
    for param, field in _FILE_NAMES:
        if bare.HasField(param):
            getattr(bare, param).ClearField(field)
    bare.DiscardUnknownFields()  # of NVCaffe, which writes them into every layer
    return bytes(bare.SerializeToString(deterministic=True))
