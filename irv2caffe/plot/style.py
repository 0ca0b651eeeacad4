"""How a figure looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from unicodedata import category

from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from irv2caffe.log.reference import Reference
    from irv2caffe.plot.curve import Window

SUFFIXES = (".png", ".svg", ".pdf")
PANELS = ("lr", "throughput")
LOG_AXES = ("loss", "error", "x")
MAX_TITLE = 90  # characters that fit over a figure
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


def check_references(references: Sequence[Reference], *, in_epochs: bool) -> None:
    """Refuses other people's curves where there are no epochs."""
    if references and not in_epochs:
        raise UsageError(
            "other people's curves are drawn over epochs, which the log does not say",
            "--num-train-images N turns iterations into epochs",
        )


def without_controls(text: str) -> str:
    """A name for files and pictures: no control characters, no bytes that are no text."""
    return "".join("\N{REPLACEMENT CHARACTER}" if category(c) in {"Cc", "Cs"} else c for c in text)


def plain(text: str, max_length: int = _MAX_NAME) -> str:
    """Somebody's name as matplotlib shows it: no formulas, no hidden entries, no long lines."""
    text = without_controls(" ".join(text.split()))
    if len(text) > max_length:
        half = max_length // 2
        text = f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
