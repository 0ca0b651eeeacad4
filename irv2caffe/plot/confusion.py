"""Pictures of an evaluation: the confusion matrix, and how far probabilities can be trusted."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.figure import Figure

from irv2caffe.atomic import atomic_file
from irv2caffe.plot.style import COLORS, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

NAMED_CLASSES = 40  # of which each row has its name and number
_SHOWN_CLASSES = 20  # with names, beside the whole of a larger matrix
_MOST_CELLS = 250  # of a side, when the whole is drawn
_NAME_LENGTH = 22
_DARK: Any = {
    "figure.facecolor": "#161b22", "axes.facecolor": "#161b22", "savefig.facecolor": "#161b22",
    "text.color": "#e6edf3", "axes.labelcolor": "#e6edf3", "axes.edgecolor": "#8d96a0",
    "xtick.color": "#e6edf3", "ytick.color": "#e6edf3",
}  # fmt: skip


def draw_confusion(
    matrix: NDArray[np.int64], names: Sequence[str], out: Path, *, dark: bool = False
) -> None:
    """Draws how often which class was taken for which; the percentages are of the true class.

    Up to 40 classes have names and numbers. Of more classes the whole is drawn without them, and
    beside it the classes with the most mistakes.

    Args:
        matrix: counts [true class, predicted class].
        names: of the classes; empty: their numbers.
        out: ``.png``, ``.svg`` or ``.pdf``.
        dark: light on dark.

    Raises:
        OutputError: the file cannot be written.
    """
    names = [plain(name, _NAME_LENGTH) for name in names or map(str, range(len(matrix)))]
    with _drawing(out, dark=dark) as fig:
        if len(matrix) <= NAMED_CLASSES:
            cell = 1.05 if len(matrix) <= 5 else 0.62 if len(matrix) <= 12 else 0.34
            labels = 0.9 + 0.085 * max(map(len, names))
            side = cell * len(matrix) + labels
            fig.set_size_inches(side + 0.8, side)
            _draw_named(fig.subplots(), matrix, matrix.sum(axis=1), names, dark=dark)
            return
        fig.set_size_inches(17.0, 8.6)
        whole, part = fig.subplots(1, 2, width_ratios=[1.0, 1.0])
        _draw_whole(whole, matrix, dark=dark)
        chosen = _most_confused(matrix)
        _draw_named(
            part,
            matrix[np.ix_(chosen, chosen)],
            matrix.sum(axis=1)[chosen],
            [names[place] for place in chosen],
            dark=dark,
        )
        part.set_title("the classes of the most frequent mistakes")


def draw_calibration(
    count: NDArray[np.int64],
    confidence: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    out: Path,
    *,
    dark: bool = False,
) -> None:
    """Draws the share of right predictions over their probability, by bins of equal width.

    Args:
        count: images in each bin.
        confidence: mean probability of each bin; NaN for empty ones.
        accuracy: share of right ones; NaN for empty ones.
        out: ``.png``, ``.svg`` or ``.pdf``.
        dark: light on dark.

    Raises:
        OutputError: the file cannot be written.
    """
    width = 100 / len(count)
    centres = (np.arange(len(count)) + 0.5) * width
    with _drawing(out, dark=dark) as fig:
        fig.set_size_inches(5.6, 6.0)
        main, below = fig.subplots(2, sharex=True, height_ratios=[3.0, 1.0])
        main.bar(centres, np.nan_to_num(100 * accuracy), 0.94 * width, color=COLORS[0])
        main.plot([0, 100], [0, 100], color="gray", linestyle="--", linewidth=1, label="ideal")
        known = count > 0
        main.plot(
            100 * confidence[known], 100 * accuracy[known], "o-", color=COLORS[1], markersize=4,
            linewidth=1.2, label="mean of the bin",
        )  # fmt: skip
        main.set_xlim(0, 100)
        main.set_ylim(0, 100)
        main.set_ylabel("right predictions (%)")
        main.legend(loc="upper left", frameon=False)
        below.bar(centres, count, 0.94 * width, color=COLORS[0], alpha=0.6)
        below.set_ylabel("images")
        below.set_xlabel("probability of the predicted class (%)")
        for axis in (main, below):
            axis.grid(visible=True, linewidth=0.5, alpha=0.4)
            axis.set_axisbelow(True)


@contextmanager
def _drawing(out: Path, *, dark: bool) -> Iterator[Figure]:
    """A figure that is written at the end of the block; the user's matplotlibrc is not read."""
    with rc_context(), atomic_file(out) as aside, warnings.catch_warnings():
        rcdefaults()
        rcParams.update(_DARK if dark else {})
        rcParams["svg.hashsalt"] = "irv2caffe"
        warnings.filterwarnings("ignore", "Glyph .* missing")
        fig = Figure(layout="constrained")
        yield fig
        metadata: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(
            out.suffix.lower(), {"Software": None}
        )
        fig.savefig(aside, dpi=110, metadata=metadata)


def _most_confused(matrix: NDArray[np.int64]) -> list[int]:
    """The classes of the most frequent mistakes; both classes of a mistake, side by side."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[: 4 * _SHOWN_CLASSES]
    chosen: dict[int, None] = {}
    for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        pair = {int(true): None, int(predicted): None}
        if wrong[true, predicted] and len(chosen | pair) <= _SHOWN_CLASSES:
            chosen |= pair
    return list(chosen) or list(range(_SHOWN_CLASSES))


def _draw_named(
    axis: Axes,
    counts: NDArray[np.int64],
    totals: NDArray[np.int64],
    names: Sequence[str],
    *,
    dark: bool,
) -> None:
    """Cells with their counts, coloured by their share of the true class."""
    shares = 100 * counts / np.maximum(totals, 1)[:, None]
    size = len(counts)
    axis.imshow(_colors(shares / 100, dark=dark), aspect="equal", interpolation="nearest")
    is_short = size * max(map(len, names)) <= 24
    axis.set_xticks(range(size), names, rotation=0 if is_short else 90)
    axis.set_yticks(
        range(size), [f"{name}  ({n:,})" for name, n in zip(names, totals, strict=True)]
    )
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class (images)")
    axis.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="gray", linewidth=0.3)
    axis.tick_params(which="minor", length=0)
    font = 11 if size <= 5 else 8 if size <= 24 else 6
    is_written = (counts > 0) | np.eye(size, dtype=bool)  # a class that is never right has its 0
    for row, column in zip(*np.nonzero(is_written), strict=True):
        share = shares[row, column]
        text = f"{counts[row, column]:,}" + (f"\n{share:.1f} %" if size <= 12 else "")
        is_light = share > 55 or dark
        axis.text(
            column, row, text, ha="center", va="center", fontsize=font,
            color="white" if is_light else "black",
        )  # fmt: skip


def _colors(shares: NDArray[np.float64], *, dark: bool) -> NDArray[np.float64]:
    """Blue for right ones on the diagonal, red for mistakes; stronger with the square root."""
    paper = np.array(to_rgba("#161b22" if dark else "white"))
    strength = np.sqrt(np.clip(shares, 0, 1))[:, :, None]
    is_right = np.eye(len(shares), dtype=bool)[:, :, None]
    ink = np.where(is_right, to_rgba(COLORS[0]), to_rgba("#C6344B"))
    mixed: NDArray[np.float64] = paper * (1 - strength) + ink * strength
    return mixed


def _draw_whole(axis: Axes, matrix: NDArray[np.int64], *, dark: bool) -> None:
    """All cells; of a large matrix the largest share in each square of cells."""
    size = len(matrix)
    shares = 100 * matrix / np.maximum(matrix.sum(axis=1), 1)[:, None]
    step = -(-size // _MOST_CELLS)
    if step > 1:
        more = -size % step
        squares = np.pad(shares, ((0, more), (0, more))).reshape(
            (size + more) // step, step, (size + more) // step, step
        )
        shares = squares.max(axis=(1, 3))
    picture = axis.imshow(
        np.where(shares > 0, shares, np.nan),
        norm=LogNorm(vmin=0.5, vmax=100),
        cmap="viridis" if dark else "viridis_r",
        extent=(-0.5, size - 0.5, size - 0.5, -0.5),
        interpolation="nearest",
    )
    bar = axis.figure.colorbar(picture, ax=axis, shrink=0.8)
    bar.set_label("share of the true class (%)")
    marks = (0.5, 1, 2, 5, 10, 20, 50, 100)
    bar.set_ticks(marks, labels=["≤ 0.5", *map(str, marks[1:])])
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    each = f", the largest of each {step} x {step} cells" if step > 1 else ""
    axis.set_title(f"all {size:,} classes{each}")
