"""A reader for the pickles of CIFAR that calls nothing and makes no more bytes than a file holds.

It supports the opcodes for lists, dictionaries and arrays of bytes, and the names of numpy's
arrays. A ``pickle.Unpickler`` with a restricted ``find_class`` is not enough: a nested tuple as a
key crashes it or takes for ever to hash, and a single index or length takes gigabytes of memory.
"""

from __future__ import annotations

import math
import pickle
import pickletools
from typing import Any

import numpy as np

from irv2caffe.errors import FormatError

_BYTES = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})  # of Python 2
_VALUES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset({"PROTO", "FRAME"})
_ARRAY, _DTYPE, _ENCODED, _NDARRAY = "array", "dtype", "encoded", "ndarray"
_NAMES = {
    "numpy.core.multiarray _reconstruct": _ARRAY,
    "numpy._core.multiarray _reconstruct": _ARRAY,
    "numpy ndarray": _NDARRAY,
    "numpy dtype": _DTYPE,
    "_codecs encode": _ENCODED,  # by which protocol 2 of Python 3 writes bytes
}
_MAX_SIDES = 4
_SHOWN = 100


class PickledArray:
    """A numpy array of uint8; ``data`` holds its bytes in C order."""

    data: bytes = b""


class _Name(str):
    """A supported global name: a value of ``_NAMES``."""


class _Dtype(str):
    """The code of a numpy dtype."""


class _Mark:
    """The value that MARK pushes."""


class _StackMachine:
    """Executes the opcodes of a pickle."""

    def __init__(self, num_bytes: int) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._may_copy = 2 * num_bytes  # once to C order, once out of a text

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP" and len(self._stack) == 1 and self._stack[0] is not _Mark:
                return self._stack.pop()
            if opcode.name not in _IGNORED:
                self._execute(opcode.name, argument)
        raise pickle.UnpicklingError("no STOP at its end")

    def _execute(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _BYTES:
            stack.append(argument.encode("latin-1"))
        elif name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name.endswith("PUT") or name == "MEMOIZE":
            self._memo[len(self._memo) if argument is None else argument] = stack[-1]
        elif name.endswith("GET"):
            stack.append(self._memo[argument])
        elif name in {"GLOBAL", "STACK_GLOBAL"}:
            if name == "STACK_GLOBAL":
                argument = " ".join(stack[-2:])
                del stack[-2:]
            if argument not in _NAMES:
                raise pickle.UnpicklingError(f"it uses {argument.replace(' ', '.')[:_SHOWN]}")
            stack.append(_Name(_NAMES[argument]))
        else:
            self._build(name)

    def _build(self, name: str) -> None:
        stack = self._stack
        if name == "MARK":
            stack.append(_Mark)
        elif name in {"EMPTY_LIST", "EMPTY_DICT"}:
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name == "TUPLE":
            stack.append(tuple(self._pop_mark()))
        elif name in {"APPENDS", "SETITEMS"}:
            values = self._pop_mark()
            self._add(stack[-1], values)
        elif name in {"APPEND", "SETITEM"}:
            count = 1 if name == "APPEND" else 2
            values = stack[-count:]
            del stack[-count:]
            self._add(stack[-1], values)
        elif name == "REDUCE":
            values = stack.pop()
            stack.append(self._called(stack.pop(), values))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], PickledArray):
                stack[-1].data = self._array(*state)
            elif not isinstance(stack[-1], _Dtype):
                raise pickle.UnpicklingError("it sets the state of something other than an array")
        else:
            raise pickle.UnpicklingError(f"it uses the opcode {name}")

    def _pop_mark(self) -> list[Any]:
        """The values after the last mark."""
        at = len(self._stack) - 1
        while self._stack[at] is not _Mark:
            at -= 1
        values = self._stack[at + 1 :]
        del self._stack[at:]
        return values

    def _add(self, target: Any, values: list[Any]) -> None:
        if type(target) is list:
            target += values
        elif type(target) is dict:
            # Nested tuples can take for ever to hash.
            if not all(isinstance(key, (bytes, str)) for key in values[::2]):
                raise pickle.UnpicklingError("a key that is not a string")
            target.update(zip(values[::2], values[1::2], strict=True))
        else:
            raise pickle.UnpicklingError("it adds to something other than a list")

    def _called(self, function: Any, values: Any) -> Any:
        what = function if isinstance(function, _Name) else ""
        if what == _ARRAY:
            return PickledArray()
        if what == _DTYPE and isinstance(values[0], (bytes, str)):
            return _Dtype(values[0] if isinstance(values[0], str) else values[0].decode("ascii"))
        if what == _ENCODED and values[1] in ("latin1", b"latin1"):
            return self._bytes(values[0])
        raise pickle.UnpicklingError("it calls something other than numpy's functions")

    def _bytes(self, data: Any) -> bytes:
        if isinstance(data, bytes):
            return data
        if not isinstance(data, str):
            raise pickle.UnpicklingError("an array of something other than bytes")
        self._count_copy(len(data))
        return data.encode("latin-1")

    def _count_copy(self, num_bytes: int) -> None:
        self._may_copy -= num_bytes
        if self._may_copy < 0:
            raise pickle.UnpicklingError("it makes more bytes than it holds")

    def _array(self, _: Any, sides: Any, kind: Any, is_fortran: Any, text: Any) -> bytes:
        if not (isinstance(kind, _Dtype) and kind in {"u1", "|u1", "B"}):
            raise pickle.UnpicklingError("an array of something other than bytes")
        data = self._bytes(text)
        fits = all(type(side) is int and 0 <= side <= len(data) for side in sides)
        if not fits or len(sides) > _MAX_SIDES or math.prod(sides) != len(data):
            raise pickle.UnpicklingError("an array whose size does not match its shape")
        if not is_fortran:
            return data
        self._count_copy(len(data))
        return np.frombuffer(data, np.uint8).reshape(sides[::-1]).T.tobytes()


def load_pickle(data: bytes) -> Any:
    """Reads a pickle of lists, dictionaries, numbers, strings and arrays of bytes.

    Raises:
        FormatError: not a pickle, a truncated one, or one with other contents.
    """
    try:
        return _StackMachine(len(data)).run(data)
    except Exception as error:  # damaged pickles raise many kinds
        raise FormatError(
            f"not a pickle of arrays: {str(error)[:_SHOWN]}", "files of CIFAR are expected"
        ) from error
