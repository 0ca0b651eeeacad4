"""Scans a pickle before PyTorch unpickles it with ``weights_only``.

``weights_only`` runs no code, but a small pickle can still cost unlimited time or memory: a
bytearray of any size, nested tuples that take exponential time to hash, very long names.
"""

from __future__ import annotations

import pickletools
from typing import IO, TYPE_CHECKING

from irv2caffe.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

_MAX_NAME = 200
_COST_PER_OPCODE = 100  # the arguments of a tensor cost less than their opcodes allow
_MAX_SIZE = 1 << 40
_CALLS = frozenset({"REDUCE", "NEWOBJ", "BUILD", "ADDITEMS"})
_FILLING = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS"})
_ARRAYS = frozenset({"builtins bytearray", "__builtin__ bytearray"})


def refuse_hostile_pickle(stream: IO[bytes], path: Path) -> None:
    """Scans one pickle and leaves the stream at its end.

    Raises:
        FormatError: not a pickle, or one that no ``torch.save`` of tensors makes.
    """
    scan = _Scan()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            scan.step(opcode, argument)
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise FormatError(
            "PyTorch cannot read it", "is it cut short, or another kind of file?", path=path
        ) from error


class _Value:
    """A value on the unpickler's stack; its size counts nested values each time they occur."""

    def __init__(self, size: int = 1) -> None:
        self.size = min(size, _MAX_SIZE)


class _Scan:
    """Follows an unpickler's stack and memo without making the values."""

    def __init__(self) -> None:
        self._stack: list[_Value] = []
        self._memo: dict[int, _Value] = {}
        self._left = _COST_PER_OPCODE

    def step(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Follows one opcode.

        Raises:
            ValueError: its cost would exceed the limit, or it does not fit the stack.
        """
        self._left += _COST_PER_OPCODE
        name, stack = opcode.name, self._stack
        if name == "GLOBAL" and (len(str(argument)) > _MAX_NAME or argument in _ARRAYS):
            raise ValueError("a strange name")
        if "GET" in name:
            stack.append(self._memo[int(str(argument))])
        elif name == "MEMOIZE" or "PUT" in name:
            place = len(self._memo) if name == "MEMOIZE" else int(str(argument))
            self._memo[place] = stack[-1]
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            self._apply(opcode)

    def _apply(self, opcode: pickletools.OpcodeInfo) -> None:
        """Pops the opcode's arguments, the last first, and pushes its results."""
        before, values = list(opcode.stack_before), []
        if pickletools.markobject in before:
            while (value := self._stack.pop()) is not _MARK:
                values.append(value)
            before = before[: before.index(pickletools.markobject)]
        values += [self._stack.pop() for _ in before]
        size = sum(value.size for value in values)
        if opcode.name in _CALLS:
            self._spend(size)
            size = 0
        elif opcode.name in {"SETITEM", "SETITEMS"}:
            self._spend(sum(key.size for key in values[1:-1:2]))
        if opcode.name in _FILLING:
            values[-1].size = min(size, _MAX_SIZE)
            self._stack.append(values[-1])
        else:
            self._stack += [_Value(1 + size) for _ in opcode.stack_after]

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError("nested values that take too long to hash")


_MARK = _Value()
