"""The pickles of CIFAR, read without running anything that they ask for.

A pickle may name any function of any module. Here the names that numpy's arrays need stand for
classes of ours, which only keep what they are given; every other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any, NoReturn

import numpy as np

from irv2caffe.errors import FormatError


class PickledArray:
    """An array of bytes: what the pickle said of it.

    Attributes:
        data: its bytes in C order, once they are known.
    """

    def __init__(self, *_: Any) -> None:
        self.data: bytes = b""

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise pickle.UnpicklingError("an array of an unknown version")
        _, shape, kind, is_fortran, data = state
        is_bytes = isinstance(kind, _Kind) and kind.code in {"u1", "|u1", "B"}
        if not is_bytes or not isinstance(data, (bytes, str)):
            raise pickle.UnpicklingError("an array of something else than bytes")
        data = data.encode("latin-1") if isinstance(data, str) else bytes(data)
        sides = shape if isinstance(shape, tuple) else ()
        if any(type(side) is not int for side in sides) or math.prod(sides) != len(data):
            raise pickle.UnpicklingError("an array of another size than its shape")
        if is_fortran and len(sides) > 1:
            data = np.frombuffer(data, np.uint8).reshape(sides[::-1]).T.tobytes()
        self.data = data


class _Kind:
    """A numpy dtype: its code."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = code.decode("ascii", "replace") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        pass


class _Encoded(bytes):
    """``_codecs.encode``, by which protocol 2 of Python 3 writes bytes."""

    def __new__(cls, text: Any = "", encoding: Any = "latin1") -> _Encoded:
        if not isinstance(text, str) or encoding not in {"latin1", b"latin1"}:
            raise pickle.UnpicklingError("bytes in an unknown encoding")
        return super().__new__(cls, text.encode("latin-1"))

    def __setstate__(self, state: Any) -> None:
        pass


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _Encoded,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for the object {pid!r}")


def load_pickle(data: bytes) -> Any:
    """Lists, dictionaries, numbers, texts as bytes, and arrays of bytes.

    Raises:
        FormatError: no pickle, a torn one, or one that asks for anything else.
    """
    try:
        _check_memo(data)
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # broken pickles raise whatever they like
        raise FormatError(
            f"not a pickle of arrays: {error}", "files of CIFAR are expected"
        ) from error


def _check_memo(data: bytes) -> None:
    """Refuses places in the memo that only serve to make it huge."""
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name.endswith("PUT") and isinstance(argument, int) and argument > number:
            raise pickle.UnpicklingError("a memo with holes")
