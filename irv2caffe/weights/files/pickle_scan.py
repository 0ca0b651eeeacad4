"""A look at a pickle before PyTorch unpickles it, within the limits of ``weights_only``.

That runs no code, but a small file can still make large work: an array of bytes of any size, a key
of tuples in tuples that takes for ever to hash, a name that a search for words is quadratic in.
"""

from __future__ import annotations

import pickletools
from typing import IO, TYPE_CHECKING

from irv2caffe.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

_MAX_NAME = 200
_WEIGHT_PER_STEP = 100  # a tensor's arguments weigh less than the steps that make them
_HEAVIEST = 1 << 40
_CALLS = frozenset({"REDUCE", "NEWOBJ", "BUILD", "ADDITEMS"})
_FILLING = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS"})
_ARRAYS = frozenset({"builtins bytearray", "__builtin__ bytearray"})


def refuse_hostile(stream: IO[bytes], path: Path) -> None:
    """Reads one pickle and leaves the stream behind it.

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
    """A value, by its weight: how many values it consists of."""

    def __init__(self, weight: int = 1) -> None:
        self.weight = min(weight, _HEAVIEST)


class _Scan:
    """What an unpickler would have on its stack."""

    def __init__(self) -> None:
        self._stack: list[_Value] = []
        self._memo: dict[int, _Value] = {}
        self._left = _WEIGHT_PER_STEP

    def step(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Takes one step.

        Raises:
            ValueError: it would not end, or does not fit what was before.
        """
        self._left += _WEIGHT_PER_STEP
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
        """What a step takes from the stack, the last first, and what it puts there."""
        before, values = list(opcode.stack_before), []
        if pickletools.markobject in before:
            while (value := self._stack.pop()) is not _MARK:
                values.append(value)
            before = before[: before.index(pickletools.markobject)]
        values += [self._stack.pop() for _ in before]
        weight = sum(value.weight for value in values)
        if opcode.name in _CALLS:
            self._spend(weight)
            weight = 0
        elif opcode.name in {"SETITEM", "SETITEMS"}:
            self._spend(sum(key.weight for key in values[1:-1:2]))
        if opcode.name in _FILLING:
            values[-1].weight = min(weight, _HEAVIEST)
            self._stack.append(values[-1])
        else:
            self._stack += [_Value(1 + weight) for _ in opcode.stack_after]

    def _spend(self, weight: int) -> None:
        self._left -= weight
        if self._left < 0:
            raise ValueError("values in values without end")


_MARK = _Value()
