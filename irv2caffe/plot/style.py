"""PlotOptions and the colors and texts of figures and reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
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
# Paul Tol's bright colors, distinguishable for the color-blind and in print.
COLORS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#66CCEE", "#CCBB44")
# Of other lightness, to distinguish published runs from the user's.
REFERENCE_COLORS = ("#B08D57", "#7A9E7E", "#9A8BB5", "#8C8C8C")
# Of a single run: errors are blue and losses orange, as the axes that they belong to.
ERROR_COLORS = {"top-1": "#4477AA", "top-5": "#7FA8CF"}
LOSS_COLOR, TEST_LOSS_COLOR = "#B86B22", "#7A3B0C"
PANEL_COLOR = "#6B6B6B"
# Of the runs of a comparison, which are told apart without colors too.
MARKERS = ("o", "s", "^", "D", "v", "P")
LOSS_STYLES: tuple[Any, ...] = (
    ":", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 3)), (0, (7, 1, 1, 1, 1, 1)), "-.",
)  # fmt: skip
DIVERGED_COLOR = "#BB0000"
MAX_TITLE = 90  # characters that fit over a figure
_MAX_NAME = 44


@dataclass(frozen=True)
class PlotOptions:
    """What a figure or report shows, and how.

    Attributes:
        window: first and last epoch (or iteration) of a close-up; a report opens with it.
        title: of the figure or report.
        panels: of :data:`PANELS`, drawn below the figure.
        smooth: displays that the loss is averaged over; None: automatic; 1: no averaging.
        log_axes: of :data:`LOG_AXES`, with logarithmic scales; a report supports only ``loss``.
        references: published runs, drawn behind.
    """

    window: Window | None = None
    title: str = ""
    panels: tuple[str, ...] = ()
    smooth: int | None = None
    log_axes: frozenset[str] = frozenset()
    references: tuple[Reference, ...] = ()


def check_suffix(out: Path) -> None:
    """Raises UsageError for another file suffix."""
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {out}: a figure ends in {', '.join(SUFFIXES)}")


def check_references(references: Sequence[Reference], *, in_epochs: bool) -> None:
    """Raises UsageError for published curves where epochs are not known."""
    if references and not in_epochs:
        raise UsageError(
            "published curves are drawn over epochs, which the log does not contain",
            "--num-train-images N turns iterations into epochs",
        )


def without_controls(text: str) -> str:
    """A text with control characters and undecodable bytes replaced."""
    return "".join("\N{REPLACEMENT CHARACTER}" if category(c) in {"Cc", "Cs"} else c for c in text)


def plain(text: str, max_length: int = _MAX_NAME) -> str:
    """A text for matplotlib: without formulas, hidden legend entries and long lines."""
    text = without_controls(" ".join(text.split()))
    if len(text) > max_length:
        half = max_length // 2
        text = f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
