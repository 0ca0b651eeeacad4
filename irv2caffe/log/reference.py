"""Published training curves for comparison; reference_curves.csv names their sources."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

from irv2caffe.errors import UsageError

# Name on the command line: name in the file.
NAMES = {
    "original-2016": "original-2016",
    "lim0606": "lim0606-torch-setting1",
    "twtygqyy": "twtygqyy-caffe",
    "paper": "paper-single-crop-final",
}


@dataclass(frozen=True)
class Reference:
    """A published run.

    Attributes:
        name: as in :data:`NAMES`.
        about: what it is and how its values were obtained.
        curves: metric (``val_top1_error``, ``train_loss`` ...) to (epoch, value), errors in
            percent; an epoch of None means the end of a training whose length is not compared.
    """

    name: str
    about: str
    curves: dict[str, tuple[tuple[float | None, float], ...]]


def references(names: list[str]) -> list[Reference]:
    """The published runs of these names, in their order; ``all`` returns all of them.

    Raises:
        UsageError: no such run.
    """
    wanted = list(NAMES) if "all" in names else list(dict.fromkeys(names))
    for name in wanted:
        if name not in NAMES:
            raise UsageError(f"no reference curve {name}", f"one of: {', '.join(NAMES)}, all")
    return [reference_runs()[name] for name in wanted]


@cache
def reference_runs() -> dict[str, Reference]:
    """All published runs, by name."""
    csv_text = (resources.files(__package__) / "reference_curves.csv").read_text(encoding="utf-8")
    lines = csv_text.splitlines()
    about: dict[str, str] = {}
    for line in lines:
        if line.startswith("# ") and ": " in line:
            key, _, text = line[2:].partition(": ")
            about[key] = text
    found: dict[str, dict[str, list[tuple[float | None, float]]]] = {}
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        epoch = float(row["epoch"]) if row["epoch"] else None
        curve = found.setdefault(row["run"], {}).setdefault(row["metric"], [])
        curve.append((epoch, float(row["value"])))
    return {
        name: Reference(
            name,
            about.get(key, ""),
            {metric: tuple(points) for metric, points in found.get(key, {}).items()},
        )
        for name, key in NAMES.items()
    }
