"""Means and spreads over the seeds of each arm, and the table."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from experiment.arms import SETS, Arm

if TYPE_CHECKING:
    from collections.abc import Sequence

    Line = dict[str, Any]

# Columns of the table: heading, and where the value stands in a line.
COLUMNS = (
    ("training loss", ("losses", -1)),
    ("train, running", ("final", "train running", "error")),
    ("val, running", ("final", "running", "error")),
    ("val, estimated anew", ("final", "reestimated", "error")),
    ("val, batch 50", ("final", "batch 50", "error")),
    ("val, batch 10", ("final", "batch 10", "error")),
    ("val, batch 2", ("final", "batch 2", "error")),
)
CLEAN = ("final", "reestimated", "error")
"""What the training achieved, apart from how it is evaluated."""


@dataclass(frozen=True)
class Spread:
    """Values of several seeds.

    Attributes:
        values: of the seeds, in order.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the values."""
        return mean(self.values)

    def text(self, digits: int = 1, *, signed: bool = False) -> str:
        """Mean and standard deviation; only the value of a single seed."""
        if not self.values:
            return "-"
        sign = "+" if signed else ""
        middle = f"{self.mean:{sign}.{digits}f}"
        return f"{middle} ± {stdev(self.values):.{digits}f}" if len(self.values) > 1 else middle


def value_of(line: Line, path: Sequence[str | int]) -> float | None:
    """A value of a line; None where it is no number, or the run failed."""
    found: Any = line
    for step in path:
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError):
            return None
    return float(found) if isinstance(found, int | float) else None


def spread(lines: Sequence[Line], path: Sequence[str | int]) -> Spread:
    """The values of the lines that have one."""
    values = (value_of(line, path) for line in lines)
    return Spread(tuple(value for value in values if value is not None))


def difference(lines: Sequence[Line], base: Sequence[Line], path: Sequence[str | int]) -> Spread:
    """The differences to another arm, seed by seed."""
    theirs = {line["seed"]: value_of(line, path) for line in base}
    pairs = ((value_of(line, path), theirs.get(line["seed"])) for line in lines)
    return Spread(tuple(a - b for a, b in pairs if a is not None and b is not None))


def known_arms() -> dict[str, Arm]:
    """All arms by name, in the order of the sets."""
    return {arm.name: arm for arms in SETS.values() for arm in arms}


def of_arm(lines: Sequence[Line], name: str, engine: str) -> list[Line]:
    """The lines of an arm."""
    return [line for line in lines if (line["arm"], line["engine"]) == (name, engine)]


def table(lines: Sequence[Line]) -> str:
    """A table in Markdown: a row for each arm and engine that has a line."""
    heads = ["arm", "engine", "n", *(name for name, _ in COLUMNS), "difference", "notes"]
    rows = [heads, ["---"] * len(heads)]
    engines = sorted({line["engine"] for line in lines})
    for name, arm in known_arms().items():
        for engine in engines:
            mine = of_arm(lines, name, engine)
            if mine:
                rows.append(_row(arm, engine, mine, of_arm(lines, arm.base, engine)))
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _row(arm: Arm, engine: str, mine: Sequence[Line], base: Sequence[Line]) -> list[str]:
    good = [line for line in mine if "error" not in line]
    cells = [spread(good, path).text(2 if name == "training loss" else 1) for name, path in COLUMNS]
    effect = difference(good, base, CLEAN) if arm.name != arm.base else Spread(())
    failed = len(mine) - len(good)
    diverged = sum(bool(line.get("diverged")) for line in good)
    notes = [f"{diverged} diverged"] * bool(diverged) + [f"{failed} failed"] * bool(failed)
    return [arm.name, engine, str(len(good)), *cells, effect.text(signed=True), ", ".join(notes)]


def first_epoch_table(lines: Sequence[Line]) -> str:
    """Losses at the end of the first epoch, whose images were seen once."""
    heads = ["arm", "engine", "n", "training", "train, own batch", "val, batch 50", "val, running",
             "val, estimated anew"]  # fmt: skip
    paths: tuple[tuple[str | int, ...], ...] = (
        ("losses", 0),
        ("first", "train batch", "loss"),
        ("first", "batch 50", "loss"),
        ("first", "running", "loss"),
        ("first", "reestimated", "loss"),
    )
    rows = [heads, ["---"] * len(heads)]
    for name, arm in known_arms().items():
        for engine in sorted({line["engine"] for line in lines}):
            mine = [line for line in of_arm(lines, name, engine) if "error" not in line]
            if mine:
                cells = [spread(mine, path).text(2) for path in paths]
                rows.append([arm.name, engine, str(len(mine)), *cells])
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)
