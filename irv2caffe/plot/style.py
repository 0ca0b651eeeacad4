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
RESTART_COLOR = "#777777"
_DARK_PAPER = "#0D1117"  # of the report in dark mode
_CONTRAST = 4.5  # of text and lines with their background (WCAG 2, success criterion 1.4.3)
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


def _luminance(color: str) -> float:
    """The relative luminance of WCAG 2 of a color such as ``#4477AA``."""
    parts = (int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(color: str, other: str) -> float:
    """The contrast ratio of WCAG 2 of two colors, 1 to 21."""
    low, high = sorted((_luminance(color), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def on_dark(color: str) -> str:
    """A color, mixed with so much white that it is legible in dark mode."""
    for share in range(0, 101, 5):
        parts = (int(color[place : place + 2], 16) for place in (1, 3, 5))
        mixed = "#" + "".join(f"{round(part + (255 - part) * share / 100):02X}" for part in parts)
        if contrast(mixed, _DARK_PAPER) >= _CONTRAST:
            return mixed
    return "#FFFFFF"


def color_rules() -> str:
    """Style rules that give each color a name, and another value in dark mode."""
    known = (
        *COLORS, *REFERENCE_COLORS, *ERROR_COLORS.values(), LOSS_COLOR, TEST_LOSS_COLOR,
        PANEL_COLOR, DIVERGED_COLOR, RESTART_COLOR,
    )  # fmt: skip
    names = {color: f"--c{color[1:].lower()}" for color in known}
    light = " ".join(f"{name}: {color};" for color, name in names.items())
    dark = " ".join(f"{name}: {on_dark(color)};" for color, name in names.items())
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"


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
