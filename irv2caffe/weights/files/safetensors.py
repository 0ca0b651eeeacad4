"""Reads and writes safetensors files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import atomic_file, write_error
from irv2caffe.errors import FormatError
from irv2caffe.weights.files.extras import needed
from irv2caffe.weights.files.values import named, num_values
from irv2caffe.weights.tensors import StoredArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# The format's names of types, where numpy has the type under another name.
_KINDS = {"BF16": "bfloat16", "BOOL": "bool"} | {
    f"{short}{bits}": f"{name}{bits}"
    for short, name in (("F", "float"), ("I", "int"), ("U", "uint"))
    for bits in (8, 16, 32, 64)
}
_MAX_HEADER_BYTES = 16 << 20  # a hundred thousand arrays; the format itself allows 100 MB


def read_safetensors(path: Path) -> dict[str, StoredArray]:
    """The arrays of a file.

    Raises:
        MissingExtraError: the library is not installed.
        FormatError: cut short, or a header that does not describe the file.
    """
    with needed("safetensors", "reading a .safetensors file"):
        import safetensors
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if _MAX_HEADER_BYTES < length < path.stat().st_size:
        raise FormatError(f"a header of {length:,} bytes, too many for weights", path=path)
    try:
        file: Any = safetensors.safe_open(path, "numpy")
        return {name: _array(file, name, path) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise FormatError(
            f"not a safetensors file, or cut short: {error}",
            "was its download complete?",
            path=path,
        ) from error


def _array(file: Any, name: str, path: Path) -> StoredArray:
    described = file.get_slice(name)
    shape, dtype = tuple(described.get_shape()), described.get_dtype()
    with named(path, f"{name!r}: "):
        num_values(shape)
    kind = _KINDS.get(dtype, dtype)

    def read() -> NDArray[Any]:
        if kind == "bfloat16":
            with needed("ml_dtypes", "reading bfloat16 values"):
                import ml_dtypes  # noqa: F401
        try:
            values: NDArray[Any] = file.get_tensor(name)
        except Exception as error:  # the library's own, or numpy's for a type that it lacks
            raise FormatError(f"values of type {kind} cannot be read", path=path) from error
        return values.astype("f4") if kind == "bfloat16" else values

    return StoredArray(shape, kind, read)


def write_safetensors(
    path: Path,
    arrays: Sequence[tuple[str, str, tuple[int, ...]]],
    read: Callable[[str], NDArray[Any]],
) -> None:
    """Writes arrays into a safetensors file.

    Args:
        path: the file; it appears when it is complete.
        arrays: name, kind (numpy's name of the type) and shape of each.
        read: gives the values of a name.

    Raises:
        MissingExtraError: the library is not installed.
        OutputError: the file cannot be written.
    """
    with needed("safetensors", "writing a .safetensors file"):
        from safetensors import SafetensorError
        from safetensors.numpy import save_file
    values = {name: read(name).astype(kind, order="C", copy=False) for name, kind, _ in arrays}
    with atomic_file(path) as aside:
        try:
            save_file(values, aside, metadata={"format": "pt"})
        except (OSError, SafetensorError) as error:  # the latter when the disk is full
            cause = error if isinstance(error, OSError) else OSError(str(error))
            raise write_error(path, cause) from error
