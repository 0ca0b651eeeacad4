"""Reads and writes PyTorch's files; only tensors are unpickled."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import atomic_file, write_error
from irv2caffe.errors import FormatError
from irv2caffe.system import open_regular
from irv2caffe.weights.files.archive import is_zip, open_zip, refuse_packed
from irv2caffe.weights.files.extras import needed
from irv2caffe.weights.files.pickle_scan import refuse_hostile_pickle
from irv2caffe.weights.tensors import StoredArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# Before PyTorch 1.6: magic number, version, machine, tensors, storage names.
_NUM_PICKLES = 5
_SAVE_TENSORS = "save the state dict alone: torch.save(model.state_dict(), FILE)"
_MAX_DEPTH = 50


def read_torch(path: Path) -> dict[str, StoredArray]:
    """The tensors of a file: a state dict, or a training checkpoint with one or several in it.

    Nested dicts make longer names: ``state_dict.conv2d_1a.conv.weight``.

    Args:
        path: the file.

    Raises:
        MissingExtraError: PyTorch is not installed.
        FormatError: not such a file, or it holds more than tensors.
    """
    with needed("torch", "reading a .pth file", extra="torch"):
        import torch
    _refuse_hostile_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old files, which can still be read
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip(path))
    except Exception as error:
        # The unpickler raises a dozen types for a damaged file, with no common base.
        message = str(error)
        if "weights_only" in message or "Unsupported global" in message:
            what = "holds Python objects beside its tensors, which are not loaded from strangers"
            raise FormatError(what, _SAVE_TENSORS, path=path) from error
        raise FormatError(
            "PyTorch cannot read it", "is it cut short, or another kind of file?", path=path
        ) from error
    arrays = {name: _raw(tensor) for name, tensor in _tensors(content, "", set())}
    if not arrays:
        raise FormatError("holds no state dict of tensors", path=path)
    return arrays


def _refuse_hostile_file(path: Path) -> None:
    """Raises FormatError for a file that would take PyTorch excessive time or memory."""
    if is_zip(path):
        with open_zip(path) as archive:
            names = archive.namelist()
            if any(name.endswith("/constants.pkl") for name in names):
                raise FormatError("a TorchScript program, not weights", _SAVE_TENSORS, path=path)
            refuse_packed(archive.infolist(), path)
            for name in names:
                if name.endswith("/data.pkl"):
                    refuse_hostile_pickle(io.BytesIO(archive.read(name)), path)
        return
    with open_regular(path) as stream:
        for _ in range(_NUM_PICKLES):
            refuse_hostile_pickle(stream, path)


def _tensors(content: Any, place: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Names and values of all state dicts in nested dicts; each dict is visited once."""
    if not isinstance(content, dict) or id(content) in seen or place.count(".") > _MAX_DEPTH:
        return
    seen.add(id(content))
    is_state = any(hasattr(value, "dtype") for value in content.values())
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _tensors(value, f"{place}{name}.", seen)
        elif is_state:
            yield f"{place}{name}", value


def _raw(tensor: Any) -> StoredArray:
    """A tensor; ``kind`` tells other objects, and tensors without plain values, apart."""
    if not hasattr(tensor, "dtype"):
        return StoredArray((), type(tensor).__name__, lambda: tensor)
    kind = str(tensor.dtype).removeprefix("torch.")
    if str(tensor.layout) != "torch.strided" or tensor.is_meta:
        kind = f"{'meta' if tensor.is_meta else tensor.layout} {kind}"

    def read() -> NDArray[Any]:
        values = tensor.detach()
        try:
            array: NDArray[Any] = (values.float() if kind == "bfloat16" else values).numpy()
        except (RuntimeError, TypeError) as error:
            raise FormatError(f"values of type {kind} cannot be read") from error
        return array

    return StoredArray(tuple(tensor.shape), kind, read)


def write_torch(
    path: Path, names: Sequence[tuple[str, str, tuple[int, ...]]], read: Callable[[str], Any]
) -> None:
    """Writes a state dict; see :func:`write_safetensors` for the arguments.

    Raises:
        MissingExtraError: PyTorch is not installed.
        OutputError: the file cannot be written.
    """
    from collections import OrderedDict

    with needed("torch", "writing a .pth file", extra="torch"):
        import torch
    state = OrderedDict((name, torch.tensor(read(name).astype(kind))) for name, kind, _ in names)
    with atomic_file(path) as aside:
        try:
            torch.save(state, aside)
        except (OSError, RuntimeError) as error:  # PyTorch's writer raises the latter when full
            cause = error if isinstance(error, OSError) else OSError(str(error))
            raise write_error(path, cause) from error
