"""Reads a solver with its nets, or a net, from disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.check.files import NetRole, Reading, exists, parse_file
from irv2caffe.check.find_nets import NET_MARKS, find_nets, looks_like_solver
from irv2caffe.check.inputs import BlobFacts
from irv2caffe.check.snapshot_paths import snapshot_facts
from irv2caffe.errors import FormatError, Irv2CaffeError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_array, read_binary
from irv2caffe.proto.positions import scan
from irv2caffe.proto.text import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Fields of LayerParameter that hold paths; Caffe opens them relative to its working folder.
PATH_FIELDS = (
    ("data_param", "source"),
    ("data_param", "mean_file"),
    ("image_data_param", "source"),
    ("image_data_param", "root_folder"),
    ("image_data_param", "mean_file"),
    ("hdf5_data_param", "source"),
    ("window_data_param", "source"),
    ("window_data_param", "root_folder"),
    ("infogain_loss_param", "source"),
    ("transform_param", "mean_file"),
)
_BLOB_FIELDS = tuple(each for each in PATH_FIELDS if each[1] == "mean_file" or "gain" in each[0])
_MAX_BLOB_BYTES = 1 << 28
_SAME_SUM = 1e-3  # relative difference of sums of float32
_HEADER = re.compile(
    r"^# effective batch .* x (\d{1,4}) GPU\(s\).*\n# ([\d,]{1,15}) training images", re.MULTILINE
)


def read(path: Path, *, is_strict: bool = False, is_moved: bool = False) -> Reading:
    """Reads a solver with its nets, or a net.

    Args:
        path: a prototxt.
        is_strict: for a training: the file must be a solver, errors of its nets are added to
            ``errors``, and paths in them may also start from the solver's folder.
        is_moved: read the nets beside the solver, whatever folder it names.

    Raises:
        MissingInputError: no such file.
        FormatError: a file that is not a prototxt, or neither solver nor net.
    """
    text = read_text(path)
    root = scan(text)
    reading = Reading(is_strict, is_moved)
    if is_strict or looks_like_solver(root):
        solver = messages.SolverParameter
        reading.solver = parse_file(text, root, path, solver, is_strict=is_strict)
        header = _HEADER.search(text[:4096])
        if header:
            reading.num_gpus = int(header.group(1))
            reading.num_train = int(header.group(2).replace(",", ""))
        find_nets(reading, path)
        reading.snapshots = snapshot_facts(reading, path)
    elif any(node.name in NET_MARKS for node in root.children):
        reading.nets.append(NetRole(parse_file(text, root, path, messages.NetParameter), "both"))
        reading.base = _base_of_net(reading, path.absolute().parent)
    else:
        hint = "give the solver.prototxt, or the net it names"
        raise FormatError("neither a solver nor a net", hint, path=path)
    bases = (Path(), path.absolute().parent) if is_strict else (reading.base,)
    find_files(reading, bases)
    return reading


def find_files(reading: Reading, bases: Sequence[Path]) -> None:
    """Looks for the files that the nets name, and reads the small ones.

    Args:
        reading: whose ``paths`` and ``blobs`` are filled.
        bases: the folders that relative paths may start from.
    """
    for name in _written_paths(reading):
        places = (base / name for base in bases)
        reading.paths[name] = next((place for place in places if exists(place)), None)
    for name in _written_paths(reading, _BLOB_FIELDS):
        where = reading.paths[name]
        if where is not None and where.is_file() and where.stat().st_size < _MAX_BLOB_BYTES:
            reading.blobs[name] = _blob_facts(where)


def _base_of_net(reading: Reading, beside: Path) -> Path:
    """The folder that the paths in a net start from: the first in which one of them exists."""
    names = list(_written_paths(reading))
    folders = (Path(), beside, *beside.parents)
    found = (each for each in folders if any(exists(each / name) for name in names))
    return next(found, Path())


def _blob_facts(path: Path) -> BlobFacts | None:
    """Facts about a .binaryproto; None if it is not one."""
    try:
        array = read_array(read_binary(path, messages.BlobProto))
    except Irv2CaffeError:
        return None
    sums = array.sum(axis=-1) if array.size else array
    differ = sums.size > 1 and float(sums.max() - sums.min()) > _SAME_SUM * float(abs(sums).max())
    return BlobFacts(tuple(array.shape), differ)


def _written_paths(
    reading: Reading, fields: tuple[tuple[str, str], ...] = PATH_FIELDS
) -> Iterator[str]:
    """Paths in the layers of the nets, each once."""
    seen: set[str] = set()
    for net in reading.nets:
        for layer in [*net.file.message.layer, *net.file.message.layers]:
            for param, name in fields:
                if param not in layer.DESCRIPTOR.fields_by_name or not layer.HasField(param):
                    continue
                written = str(getattr(getattr(layer, param), name))
                if written and "\0" not in written and written not in seen:
                    seen.add(written)
                    yield written
