"""A picture as boxes, labels and lines, and as SVG; positions in pixels from the upper left."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from html import escape

from irv2caffe.ui import printable

FONT = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"
_WIDTH_PER_EM = 0.6
_NOT_IN_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rounded rectangle."""

    x: float
    y: float
    width: float
    height: float
    fill: str = "none"
    stroke: str = "none"
    radius: float = 4
    dashed: bool = False


@dataclass(frozen=True)
class Label:
    """A line of text; ``y`` is its base line, ``anchor`` start, middle or end."""

    x: float
    y: float
    text: str
    size: float = 11
    color: str = "#222222"
    bold: bool = False
    anchor: str = "middle"


@dataclass(frozen=True)
class Line:
    """A line through points, curved between them or straight."""

    points: tuple[Point, ...]
    stroke: str = "#777777"
    arrow: bool = True
    curved: bool = True
    width: float = 1.2


Item = Box | Label | Line


@dataclass
class Scene:
    """The items of a picture, from back to front."""

    title: str
    width: float = 0
    height: float = 0
    items: list[Item] = field(default_factory=list)


def text_width(text: str, size: float) -> float:
    """An upper estimate of the width of a line in the fonts of :data:`FONT`."""
    return len(text) * size * _WIDTH_PER_EM


def one_line(text: str) -> str:
    r"""Text of a file as one line, with control characters, which XML cannot hold, as ``\x1b``."""
    text = printable(" ".join(text.split("\n"))).replace("\t", " ")
    return _NOT_IN_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def arrow_head(tip: Point, size: float = 5) -> tuple[Point, Point, Point]:
    """A triangle that points down to ``tip``, as all lines of the picture end."""
    x, y = tip
    return (x, y), (x - 0.6 * size, y - size), (x + 0.6 * size, y - size)


def curve_through(a: Point, b: Point) -> tuple[Point, Point]:
    """The two control points of a curve that starts and ends vertically."""
    middle = (a[1] + b[1]) / 2
    return (a[0], middle), (b[0], middle)


def to_svg(scene: Scene) -> str:
    """The picture as an SVG file; equal scenes give equal bytes."""
    size = f'width="{_n(scene.width)}" height="{_n(scene.height)}"'
    box = f'viewBox="0 0 {_n(scene.width)} {_n(scene.height)}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} font-family="{FONT}">',
        f"<title>{escape(one_line(scene.title))}</title>",
        f'<rect {size} fill="#ffffff"/>',
        *(_element(item) for item in scene.items),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _element(item: Item) -> str:
    if isinstance(item, Box):
        dash = ' stroke-dasharray="5 3"' if item.dashed else ""
        return (
            f'<rect x="{_n(item.x)}" y="{_n(item.y)}" width="{_n(item.width)}" '
            f'height="{_n(item.height)}" rx="{_n(item.radius)}" fill="{item.fill}" '
            f'stroke="{item.stroke}"{dash}/>'
        )
    if isinstance(item, Label):
        weight = ' font-weight="bold"' if item.bold else ""
        return (
            f'<text x="{_n(item.x)}" y="{_n(item.y)}" font-size="{_n(item.size)}" '
            f'fill="{item.color}" text-anchor="{item.anchor}"{weight}>'
            f"{escape(one_line(item.text))}</text>"
        )
    return _line(item)


def _line(item: Line) -> str:
    points = item.points
    path = f"M{_n(points[0][0])} {_n(points[0][1])}"
    for a, b in itertools.pairwise(points):
        if item.curved and a[0] != b[0]:
            one, two = curve_through(a, b)
            path += f" C{_n(one[0])} {_n(one[1])} {_n(two[0])} {_n(two[1])}"
            path += f" {_n(b[0])} {_n(b[1])}"
        else:
            path += f" L{_n(b[0])} {_n(b[1])}"
    drawn = f'<path d="{path}" fill="none" stroke="{item.stroke}" stroke-width="{item.width}"/>'
    if item.arrow:
        corners = " ".join(f"{_n(x)},{_n(y)}" for x, y in arrow_head(points[-1]))
        drawn += f'<polygon points="{corners}" fill="{item.stroke}"/>'
    return drawn
