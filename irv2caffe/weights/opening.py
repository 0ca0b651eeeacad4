"""Opens a file of weights, whose format is detected from its content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError, MissingInputError, UsageError
from irv2caffe.weights.files.archive import is_zip, open_zip
from irv2caffe.weights.files.hdf5 import read_hdf5
from irv2caffe.weights.files.safetensors import read_safetensors
from irv2caffe.weights.files.tf_checkpoint import checkpoint_prefix, is_table, read_checkpoint
from irv2caffe.weights.files.torch_file import read_torch
from irv2caffe.weights.files.values import named
from irv2caffe.weights.sources.keras import from_keras
from irv2caffe.weights.sources.tf_slim import from_tf_slim
from irv2caffe.weights.sources.timm import from_timm

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from irv2caffe.weights.tensors import SourceArrays

_HDF5 = b"\x89HDF\r\n\x1a\n"
_PICKLE = b"\x80"
_ARCHIVES = {b"\x1f\x8b": "a gzip archive", b"BZh": "a bzip2 archive", b"\xfd7z": "an xz archive"}


def detect(path: Path) -> str:
    """The kind of a file: ``safetensors``, ``torch``, ``hdf5`` or ``checkpoint``.

    Raises:
        MissingInputError: no such file.
        FormatError: another kind of file.
    """
    if checkpoint_prefix(path) is not None:
        return "checkpoint"
    if path.is_dir():
        raise MissingInputError(f"{path} is a folder", "name the file in it")
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file", "check the path")
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
        for signature, what in _ARCHIVES.items():
            if start.startswith(signature):
                raise FormatError(what, "unpack it first", path=path)
        if start.startswith(_HDF5):
            return "hdf5"
        if is_zip(path):
            with open_zip(path) as archive:
                keras = any(name.endswith(".h5") for name in archive.namelist())
            return "hdf5" if keras else "torch"
        if is_table(path):
            return "checkpoint"
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror or error}", path=path) from error
    if start[8:9] == b"{":
        return "safetensors"
    if start.startswith(_PICKLE):
        return "torch"
    raise FormatError(
        "not weights of a known kind",
        "known are safetensors, .pth, .h5, .keras and TensorFlow checkpoints, in whole",
        path=path,
    )


def open_weights(
    path: Path, stack: ExitStack, *, source_format: str = "auto", averaged: bool = False
) -> tuple[str, SourceArrays]:
    """Opens a file of weights; returns its format and its arrays by their role.

    Args:
        path: the file.
        stack: keeps the file open until the arrays have been read.
        source_format: ``timm``, ``keras`` or ``tf-slim``; ``auto`` decides by the kind of file.
        averaged: take the moving averages of the weights that a trainer kept.

    Raises:
        UsageError: moving averages of a format that has none.
        InputError: no such file, a damaged one, or one of another format.
        MissingExtraError: a package to read it is not installed.
    """
    kind = detect(path)
    found = {"hdf5": "keras", "checkpoint": "tf-slim"}.get(kind, "timm")
    if source_format not in {"auto", found}:
        raise FormatError(
            f"{kind} file: {found} weights come so, {source_format} weights do not",
            "leave out --format",
            path=path,
        )
    if averaged and kind not in {"torch", "checkpoint"}:
        raise UsageError(f"--ema: a {kind} file holds one set of weights only", "leave out --ema")
    with named(path):
        arrays = _read(kind, path, stack, averaged=averaged)
    if not arrays.tensors:
        examples = ", ".join([*arrays.unexpected, *arrays.ignored][:3]) or "none at all"
        raise FormatError(
            f"none of its arrays has a name of {found}'s Inception-ResNet-v2",
            f"it has: {examples}",
            path=path,
        )
    return found, arrays


def _read(kind: str, path: Path, stack: ExitStack, *, averaged: bool) -> SourceArrays:
    match kind:
        case "safetensors":
            return from_timm(read_safetensors(path))
        case "torch":
            return from_timm(read_torch(path), averaged=averaged)
        case "hdf5":
            return from_keras(read_hdf5(path, stack))
        case _:
            return from_tf_slim(read_checkpoint(path), averaged=averaged)
