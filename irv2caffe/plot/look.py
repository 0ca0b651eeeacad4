"""How a figure looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.log.reference import Reference
    from irv2caffe.plot.curve import Window

SUFFIXES = (".png", ".svg", ".pdf")
PANELS = ("lr", "throughput")
LOG_AXES = ("loss", "error", "x")
_MAX_NAME = 44


@dataclass(frozen=True)
class Look:
    """How a figure looks.

    Attributes:
        window: first and last epoch (iteration, where epochs are not known) of a close-up.
        title: above the figure.
        panels: of :data:`PANELS`, drawn below.
        smooth: displays that the loss is averaged over; None chooses, 1 does not average.
        log_axes: of :data:`LOG_AXES`, with logarithmic scales.
        references: other people's runs, drawn behind.
    """

    window: Window | None = None
    title: str = ""
    panels: tuple[str, ...] = ()
    smooth: int | None = None
    log_axes: frozenset[str] = frozenset()
    references: tuple[Reference, ...] = ()


def check_suffix(out: Path) -> None:
    """Refuses figures of other kinds."""
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {out}: a figure ends in {', '.join(SUFFIXES)}")


def plain(text: str) -> str:
    """Somebody's name as matplotlib shows it: no formulas, no hidden entries, no long lines."""
    text = " ".join(text.split()).replace("$", r"\$")
    if len(text) > _MAX_NAME:
        text = f"{text[: _MAX_NAME // 2]}\N{HORIZONTAL ELLIPSIS}{text[-_MAX_NAME // 2 :]}"
    return f" {text}" if text.startswith("_") else text
