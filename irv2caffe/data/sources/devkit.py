"""The labels of ILSVRC's validation images, from the development kit.

The kit numbers its classes in an order of its own (``ILSVRC2012_ID``); everybody trains with the
order of the sorted WordNet IDs, which is that of the training folders. The two are mapped here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.data.sources.matfile import read_mat
from irv2caffe.data.sources.unpack import read_members
from irv2caffe.errors import FormatError, MissingInputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"
_MAX_MEMBER_BYTES = 64 << 20
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Devkit:
    """What the development kit says.

    Attributes:
        classes: WordNet IDs of the classes, sorted; a label is a place in it.
        words: what the classes are called, in the same order.
        labels: of the validation images, in the order of their numbers.
    """

    classes: tuple[str, ...]
    words: tuple[str, ...]
    labels: tuple[int, ...]


def is_devkit(path: Path) -> bool:
    """Whether a file or folder looks like the kit, by its name or by what lies in it."""
    if path.is_dir():
        return any((path / part / _META).is_file() for part in ("", "data"))
    return "devkit" in path.name and path.name.endswith((".tar.gz", ".tgz", ".tar"))


def read_devkit(path: Path) -> Devkit:
    """The kit: ``ILSVRC2012_devkit_t12.tar.gz``, or the folder it was unpacked to.

    Raises:
        MissingInputError: no such file, or it lacks the one with the labels or the classes.
        FormatError: it is not what it should be.
    """
    if path.is_dir():
        files = _from_folder(path)
    else:
        files = read_members(path, {_GROUND_TRUTH, _META}.__contains__, _MAX_MEMBER_BYTES)
    for name in (_GROUND_TRUTH, _META):
        if name not in files:
            raise MissingInputError(
                f"{path} has no {name}", "ILSVRC2012_devkit_t12.tar.gz is the one that has it"
            )
    try:
        ids = _class_ids(read_mat(files[_META]).get("synsets"))
    except FormatError as error:
        raise FormatError(error.message, error.hint, path=path) from error
    classes = tuple(sorted(wnid for wnid, _ in ids.values()))
    place = {wnid: label for label, wnid in enumerate(classes)}
    words = dict(ids.values())
    labels = []
    for number, line in enumerate(files[_GROUND_TRUTH].decode("ascii", "replace").split(), 1):
        if not (line.isdecimal() and len(line) < 10) or int(line) not in ids:
            raise FormatError(f"{_GROUND_TRUTH}: no class {line[:20]!r}", path=path, line=number)
        labels.append(place[ids[int(line)][0]])
    return Devkit(classes, tuple(words[wnid] for wnid in classes), tuple(labels))


def _class_ids(synsets: Any) -> Mapping[int, tuple[str, str]]:
    """ILSVRC2012_ID to (WordNet ID, words) of the classes; groups of classes are left out."""
    ids: dict[int, tuple[str, str]] = {}
    for row in synsets if isinstance(synsets, list) else []:
        if not isinstance(row, dict):
            continue
        number, wnid, words = (row.get(key) for key in ("ILSVRC2012_ID", "WNID", "words"))
        if row.get("num_children") != 0:
            continue
        if not (isinstance(number, (int, float)) and float(number).is_integer()) or not (
            _WNID.fullmatch(str(wnid))
        ):
            raise FormatError("meta.mat: a class without a number or a WordNet ID")
        ids[int(number)] = (str(wnid), str(words or ""))
    if not ids:
        raise FormatError("meta.mat holds no classes")
    return ids


def _from_folder(path: Path) -> dict[str, bytes]:
    files = {}
    for name in (_GROUND_TRUTH, _META):
        for place in (path / name, path / "data" / name):
            if place.is_file():
                files[name] = _bounded(place)
    return files


def _bounded(path: Path) -> bytes:
    if path.stat().st_size > _MAX_MEMBER_BYTES:
        raise FormatError("too large for what it should be", path=path)
    return path.read_bytes()
