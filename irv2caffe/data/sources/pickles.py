"""The pickles of CIFAR, read without running anything that they ask for.

A pickle is a program: it may name any function of any module, and make much of little. Here only
the instructions that lists, dictionaries and arrays of bytes need are known, and only the names
that numpy's arrays go by; nothing is made that the file does not hold itself.
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
_ARRAY, _KIND, _ENCODED, _NDARRAY = "array", "kind", "encoded", "ndarray"
_NAMES = {
    "numpy.core.multiarray _reconstruct": _ARRAY,
    "numpy._core.multiarray _reconstruct": _ARRAY,
    "numpy ndarray": _NDARRAY,
    "numpy dtype": _KIND,
    "_codecs encode": _ENCODED,  # by which protocol 2 of Python 3 writes bytes
}
_MAX_SIDES = 4
_SHOWN = 100


class PickledArray:
    """An array of bytes.

    Attributes:
        data: its bytes in C order, once they are known.
    """

    data: bytes = b""


class _Name(str):
    """What one of the names stands for."""


class _Kind(str):
    """A numpy dtype: its code."""


class _Mark:
    """Where a row of values begins."""


class _Machine:
    """The stack machine that a pickle is written for."""

    def __init__(self, num_bytes: int) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._may_copy = 2 * num_bytes  # in C order, and out of a text

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP" and len(self._stack) == 1 and self._stack[0] is not _Mark:
                return self._stack.pop()
            if opcode.name not in _IGNORED:
                self._do(opcode.name, argument)
        raise pickle.UnpicklingError("it has no end")

    def _do(self, name: str, argument: Any) -> None:
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
                raise pickle.UnpicklingError(f"it asks for {argument.replace(' ', '.')[:_SHOWN]}")
            stack.append(_Name(_NAMES[argument]))
        else:
            self._make(name)

    def _make(self, name: str) -> None:
        stack = self._stack
        if name == "MARK":
            stack.append(_Mark)
        elif name in {"EMPTY_LIST", "EMPTY_DICT"}:
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name == "TUPLE":
            stack.append(tuple(self._popped()))
        elif name in {"APPENDS", "SETITEMS"}:
            values = self._popped()
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
            elif not isinstance(stack[-1], _Kind):
                raise pickle.UnpicklingError("it builds something else than an array")
        else:
            raise pickle.UnpicklingError(f"it asks for the instruction {name}")

    def _popped(self) -> list[Any]:
        """The values behind the last mark."""
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
            # Other keys can take for ever to be hashed.
            if not all(isinstance(key, (bytes, str)) for key in values[::2]):
                raise pickle.UnpicklingError("a key that is no name")
            target.update(zip(values[::2], values[1::2], strict=True))
        else:
            raise pickle.UnpicklingError("it adds to something else than a list")

    def _called(self, function: Any, values: Any) -> Any:
        what = function if isinstance(function, _Name) else ""
        if what == _ARRAY:
            return PickledArray()
        if what == _KIND and isinstance(values[0], (bytes, str)):
            return _Kind(values[0] if isinstance(values[0], str) else values[0].decode("ascii"))
        if what == _ENCODED and values[1] in ("latin1", b"latin1"):
            return self._bytes(values[0])
        raise pickle.UnpicklingError("it calls what is no function of numpy's arrays")

    def _bytes(self, data: Any) -> bytes:
        if isinstance(data, bytes):
            return data
        if not isinstance(data, str):
            raise pickle.UnpicklingError("an array of something else than bytes")
        self._count_copy(len(data))
        return data.encode("latin-1")

    def _count_copy(self, num_bytes: int) -> None:
        self._may_copy -= num_bytes
        if self._may_copy < 0:
            raise pickle.UnpicklingError("it makes more bytes than it has")

    def _array(self, _: Any, sides: Any, kind: Any, is_fortran: Any, text: Any) -> bytes:
        if not (isinstance(kind, _Kind) and kind in {"u1", "|u1", "B"}):
            raise pickle.UnpicklingError("an array of something else than bytes")
        data = self._bytes(text)
        fits = all(type(side) is int and 0 <= side <= len(data) for side in sides)
        if not fits or len(sides) > _MAX_SIDES or math.prod(sides) != len(data):
            raise pickle.UnpicklingError("an array of another size than its shape")
        if not is_fortran:
            return data
        self._count_copy(len(data))
        return np.frombuffer(data, np.uint8).reshape(sides[::-1]).T.tobytes()


def load_pickle(data: bytes) -> Any:
    """Lists, dictionaries, numbers, texts as bytes, and arrays of bytes.

    Raises:
        FormatError: no pickle, a torn one, or one that asks for anything else.
    """
    try:
        return _Machine(len(data)).run(data)
    except Exception as error:  # broken pickles raise whatever they like
        raise FormatError(
            f"not a pickle of arrays: {str(error)[:_SHOWN]}", "files of CIFAR are expected"
        ) from error
