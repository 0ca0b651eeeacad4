"""Writes the picture of a net to a file: SVG as text, PNG and PDF with matplotlib."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import atomic_file, write_text
from irv2caffe.errors import OutputError, UsageError
from irv2caffe.shapes.draw import Scene, to_svg
from irv2caffe.shapes.draw.scene import Box, Label, Line, arrow_head, curve_through, one_line

if TYPE_CHECKING:
    from pathlib import Path as FilePath

    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png", ".pdf")
_PIXELS_PER_INCH = 96.0
_MAX_PIXELS = 30_000  # a side, for image viewers and matplotlib's canvas
_MIN_SCALE = 0.4  # below it the text is illegible
_ANCHORS = {"start": "left", "middle": "center", "end": "right"}


def check_suffix(out: FilePath) -> None:
    """Checks the file format.

    Raises:
        UsageError: another suffix; lists the formats.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--draw {out}: cannot draw a {out.suffix or 'file without suffix'}",
            f"give one of {', '.join(SUFFIXES)}",
        )


def write_picture(scene: Scene, out: FilePath, *, scale: float = 2.0) -> None:
    """Writes a picture; equal scenes give equal bytes.

    Args:
        scene: from :func:`irv2caffe.shapes.draw.draw`.
        out: ``.svg``, ``.png`` or ``.pdf``.
        scale: pixels of a PNG for each pixel of the scene.

    Raises:
        UsageError: another suffix.
        OutputError: the file cannot be written, or the picture is too large for its format.
    """
    check_suffix(out)
    if out.suffix.lower() == ".svg":
        write_text(out, to_svg(scene))
        return
    max_scale = _MAX_PIXELS / max(scene.width, scene.height)
    if max_scale < _MIN_SCALE:
        raise OutputError(
            f"{out}: the picture of this net is {scene.width:,.0f} x {scene.height:,.0f} pixels, "
            f"too large for {out.suffix}",
            "draw it as .svg",
        )
    scale = min(scale, max_scale)
    metadata = {"CreationDate": None} if out.suffix.lower() == ".pdf" else {"Software": None}
    from matplotlib import rc_context, rcdefaults

    with rc_context(), atomic_file(out) as temporary:
        rcdefaults()  # the user's matplotlibrc may require LaTeX
        _figure(scene).savefig(temporary, dpi=scale * _PIXELS_PER_INCH, metadata=metadata)


def _figure(scene: Scene) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure((scene.width / _PIXELS_PER_INCH, scene.height / _PIXELS_PER_INCH))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, scene.width)
    axes.set_ylim(scene.height, 0)
    axes.set_axis_off()
    for order, item in enumerate(scene.items):
        if isinstance(item, Label):
            axes.text(
                item.x,
                item.y,
                one_line(item.text),
                fontsize=item.size * 72 / _PIXELS_PER_INCH,
                color=item.color,
                weight="bold" if item.bold else "normal",
                ha=_ANCHORS[item.anchor],
                va="baseline",
                family="DejaVu Sans",
                parse_math=False,
                zorder=order + 1,
            )
        else:
            for patch in [_box(item)] if isinstance(item, Box) else _line(item):
                patch.set_zorder(order + 1)
                axes.add_patch(patch)
    return figure


def _box(item: Box) -> Any:
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch(
        (item.x, item.y),
        item.width,
        item.height,
        boxstyle=f"round,pad=0,rounding_size={item.radius}",
        facecolor=item.fill,
        edgecolor=item.stroke,
        linewidth=0.75,
        linestyle="--" if item.dashed else "-",
    )


def _line(item: Line) -> list[Any]:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path

    vertices, codes = [item.points[0]], [Path.MOVETO]
    for a, b in itertools.pairwise(item.points):
        if item.curved and a[0] != b[0]:
            vertices += [*curve_through(a, b), b]
            codes += [Path.CURVE4] * 3
        else:
            vertices.append(b)
            codes.append(Path.LINETO)
    patches: list[Any] = [
        PathPatch(
            Path(vertices, codes),
            facecolor="none",
            edgecolor=item.stroke,
            linewidth=item.width * 72 / _PIXELS_PER_INCH,
        )
    ]
    if item.arrow:
        patches.append(Polygon(arrow_head(item.points[-1]), facecolor=item.stroke, linewidth=0))
    return patches
