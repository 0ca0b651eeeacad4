"""Pairs of .caffemodel and .solverstate: which are whole, which stay, which must never be used."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import file_aside, unwritable
from irv2caffe.errors import FormatError, MissingInputError
from irv2caffe.proto.outline import read_model_outline, read_state_outline, with_learned_net

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from irv2caffe.proto.outline import LayerOutline

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


@dataclass(frozen=True)
class Pair:
    """Two files that a run can be resumed from."""

    iteration: int
    state: Path
    model: Path

    @property
    def num_bytes(self) -> int:
        """Of both files."""
        return sum(path.stat().st_size for path in (self.state, self.model) if path.is_file())


def pairs(folder: Path) -> list[Pair]:
    """The pairs in a folder by their names, newest first; whether they are whole is not asked."""
    found = [pair for state in folder.glob("*.solverstate") if (pair := pair_of(state))]
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
        state = read_state_outline(pair.state)
        model = read_model_outline(pair.model, check_finite=check_finite)
    except (FormatError, MissingInputError) as error:
        return error.message
    if state.iteration != pair.iteration:
        return f"{pair.state}: is of iteration {state.iteration}, not {pair.iteration}"
    if not model.is_finite:
        return f"{pair.model}: holds weights that are not numbers"
    if net is not None:
        differences = net_differences(model.layers, net)
        if differences:
            return f"{pair.model}: is of another net: {differences[0]}"
    return ""


def newest_whole(
    folder: Path, net: Any = None, *, at_most: int | None = None
) -> tuple[Pair | None, list[str]]:
    """The newest pair without a problem, and the problems of newer ones.

    Args:
        folder: of snapshots.
        net: the NetParameter of the run, or None.
        at_most: pairs of later iterations do not count.
    """
    problems: list[str] = []
    for pair in pairs(folder):
        if at_most is not None and pair.iteration > at_most:
            continue
        why = problem(pair, net)
        if not why:
            return pair, problems
        problems.append(why)
    return None, problems


def mend(pair: Pair) -> bool:
    """Lets a solver state name the model beside it; whether it had to.

    Caffe writes the model's path as it was given the prefix, and opens just that when it resumes:
    a folder that was moved, or another working folder, would end in "File not found".

    Raises:
        OutputError: it cannot be written.
    """
    wanted = str(pair.model.absolute())
    if read_state_outline(pair.state).learned_net == wanted:
        return False
    with file_aside(pair.state) as aside:
        try:
            with aside.open("wb") as stream:
                stream.writelines(with_learned_net(pair.state, wanted))
        except OSError as error:
            raise unwritable(pair.state, error) from error
    return True


def keep_on_disk(pair: Pair) -> None:
    """Waits until both files are on the disk itself, so that a power cut leaves them whole."""
    for path in (pair.model, pair.state, pair.state.parent):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def reject(folder: Path, after: int) -> list[Path]:
    """Renames snapshots of later iterations, so that no run is resumed from them; the models."""
    rejected = []
    for path in sorted(folder.iterdir()):
        match = _STATE.search(path.name) or _MODEL.search(path.name)
        if match and int(match[1]) > after:
            path.replace(path.with_name(path.name + _REJECTED))
            if path.suffix == ".caffemodel":
                rejected.append(path)
    return rejected


@dataclass(frozen=True)
class Keep:
    """Which snapshots stay.

    Attributes:
        newest: so many; at least one.
        every: iterations between two that stay for good; None keeps none but the newest.
        scheduled: the solver's own snapshot interval whose snapshots all stay, or None.
    """

    newest: int
    every: float | None = None
    scheduled: int | None = None

    def superfluous(self, whole: Iterable[Pair]) -> list[Pair]:
        """The pairs that can go, of those that are whole."""
        ordered = sorted(whole, key=lambda pair: pair.iteration)
        stay = {pair.iteration for pair in ordered[-max(1, self.newest) :]}
        if self.scheduled:
            stay |= {pair.iteration for pair in ordered if pair.iteration % self.scheduled == 0}
        if self.every:
            # Of every stretch the first pair at or after its mark.
            marks: dict[int, int] = {}
            for pair in ordered:
                stretch = int(pair.iteration / self.every + 1e-9)
                if stretch:
                    marks.setdefault(stretch, pair.iteration)
            stay |= set(marks.values())
        return [pair for pair in ordered if pair.iteration not in stay]


def prune(pairs_to_go: Iterable[Pair]) -> None:
    """Deletes pairs, the state first: what is left of an interrupted deletion is no pair."""
    for pair in pairs_to_go:
        with contextlib.suppress(OSError):  # what cannot be deleted stays; the training goes on
            pair.state.unlink(missing_ok=True)
            pair.model.unlink(missing_ok=True)


def net_differences(layers: Iterable[LayerOutline], net: Any) -> list[str]:
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


def _same(left: Any, right: Any) -> bool:
    return _essence(left) == _essence(right)


def _essence(layer: Any) -> bytes:
    bare = type(layer)()
    bare.CopyFrom(layer)
    for field in _NOT_COMPARED:
        bare.ClearField(field)
    return bytes(bare.SerializeToString(deterministic=True))
