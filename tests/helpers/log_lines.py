"""Lines of logs for tests: displays and tests of any outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def stamped(second, message, thread=4242):
    hours, minutes = divmod(int(second) // 60, 60)
    clock = f"{hours:02d}:{minutes:02d}:{int(second) % 60:02d}.500000"
    return f"I1124 {clock} {thread:>5} solver.cpp:1] {message}"


def outputs(second, phase, values: Mapping[str, object]):
    """Lines of outputs; ``(weight, value)`` is a loss, a list the elements of one output."""
    index = 0
    for name, value in values.items():
        for one in value if isinstance(value, list) else [value]:
            weight, said = one if isinstance(one, tuple) else (None, one)
            tail = "" if weight is None else f" (* {weight:g} = {weight * said:g} loss)"
            yield stamped(second, f"    {phase} net output #{index}: {name} = {said:g}{tail}")
            index += 1


def display(iteration, loss, *, lr=0.01, seconds_each=1, **values):
    at = iteration * seconds_each
    return [
        stamped(at, f"Iteration {iteration}, loss = {loss:g}"),
        *outputs(at, "Train", values.get("outputs", {})),
        stamped(at, f"Iteration {iteration}, lr = {lr:g}"),
    ]


def lines_of_test(iteration, values, *, net=0, seconds_each=1):
    at = iteration * seconds_each
    return [
        stamped(at, f"Iteration {iteration}, Testing net (#{net})"),
        *outputs(at, "Test", values),
    ]


def run_of(losses: Sequence[float], tests: Sequence[Mapping[str, object]] = (), *, every=10):
    """A display every so many iterations, and a test before each for which there are figures."""
    lines = []
    for place, loss in enumerate(losses):
        if place < len(tests):
            lines += lines_of_test(every * place, tests[place])
        lines += display(every * place, loss)
    return lines
