"""Parts of the picture: a box, the graph of a block, the frame of a stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from irv2caffe.shapes.draw.boxes import SPACE, has_input, last_box
from irv2caffe.shapes.draw.layout import Layout, lay_out
from irv2caffe.shapes.draw.scene import Box, Item, Label, Line, text_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.shapes.draw.boxes import LayerBox

# Fill and stroke; Paul Tol's bright colours, lightened.
COLORS = {
    "conv": ("#dbe8f6", "#4477aa"),
    "pool": ("#dcf0e0", "#228833"),
    "dense": ("#f3e0f0", "#aa3377"),
    "join": ("#f0f0f0", "#888888"),
    "norm": ("#fbf5d6", "#bbaa33"),
    "data": ("#ffffff", "#555555"),
    "end": ("#fde5e8", "#ee6677"),
    "other": ("#e2f3fa", "#66ccee"),
}
_GREY = "#666666"
_TITLE, _DETAIL = 11.0, 9.0
_HEIGHT, _JOIN_HEIGHT = 34.0, 20.0
_ROW_GAP, _COLUMN_GAP = 20.0, 14.0
_PADDING = 14.0


@dataclass(frozen=True)
class Panel:
    """A part of the picture with one input at the top and one output at the bottom.

    Attributes:
        items: positioned relative to its upper left corner.
        width: in pixels.
        height: in pixels.
        inlet: distance of the input from the left.
        outlet: distance of the output from the left.
        has_input: whether a line leads into it.
    """

    items: tuple[Item, ...]
    width: float
    height: float
    inlet: float
    outlet: float
    has_input: bool = True


def moved(items: Sequence[Item], dx: float, dy: float) -> list[Item]:
    """Items at another position."""
    result: list[Item] = []
    for item in items:
        if isinstance(item, Line):
            points = tuple((x + dx, y + dy) for x, y in item.points)
            result.append(replace(item, points=points))
        else:
            result.append(replace(item, x=item.x + dx, y=item.y + dy))
    return result


def box_panel(box: LayerBox, prefix: str = "", name: str = "") -> Panel:
    """A box with its text; ``prefix`` goes before the title, ``name`` before the details."""
    title = prefix + box.title
    detail = SPACE.join(filter(None, (name, box.detail)))
    title_width, detail_width = text_width(title, _TITLE), text_width(detail, _DETAIL)
    if box.kind == "join" and not name:
        height, width = _JOIN_HEIGHT, title_width + (detail_width + 8 if detail else 0) + 16
        labels = [Label(width / 2, 14, title, _TITLE)]
        if detail:
            labels = [
                Label(8, 14, title, _TITLE, anchor="start"),
                Label(8 + title_width + 8, 14, detail, _DETAIL, _GREY, anchor="start"),
            ]
    else:
        height, width = _HEIGHT, max(title_width, detail_width, 40) + 16
        title_y = 15 if detail else 21
        labels = [Label(width / 2, title_y, title, _TITLE, bold=box.kind == "conv")]
        if detail:
            labels.append(Label(width / 2, 28, detail, _DETAIL, _GREY))
    rectangle = Box(0, 0, width, height, *COLORS[box.kind])
    return Panel((rectangle, *labels), width, height, width / 2, width / 2, has_input([box]))


def graph(boxes: Sequence[LayerBox], prefix: str = "", *, leads_out: bool = True) -> Panel:
    """The boxes of a block, with branches side by side; ``prefix`` goes before each title."""
    panels = [box_panel(box, prefix) for box in boxes]
    edges = [(source + 1, at + 1) for at, box in enumerate(boxes) for source in box.sources]
    layout = lay_out([0.0, *(panel.width for panel in panels)], edges, _COLUMN_GAP)
    tops, bottoms = _row_edges(layout, [0.0, *(panel.height for panel in panels)])
    items: list[Item] = [
        _edge(layout, edge, tops, bottoms, panels) for edge in dict.fromkeys(edges)
    ]
    for at, panel in enumerate(panels, 1):
        items += moved(panel.items, layout.centers[at] - panel.width / 2, tops[layout.rows[at]])
    height = max(bottoms, default=0.0)
    last = last_box(boxes)
    outlet = layout.centers[last + 1]
    below = tops[layout.rows[last + 1]] + panels[last].height
    if below < height and leads_out:
        items.append(Line(((outlet, below), (outlet, height)), arrow=False))
    inlet = layout.centers[0]
    return Panel(tuple(items), layout.width, height, inlet, outlet, has_input(boxes))


def _row_edges(layout: Layout, heights: Sequence[float]) -> tuple[list[float], list[float]]:
    """Upper and lower edge of each row; the first row is the input."""
    tallest = [0.0] * (max(layout.rows, default=0) + 1)
    for row, height in zip(layout.rows, heights, strict=True):
        tallest[row] = max(tallest[row], height)
    tops, y = [], 0.0
    for height in tallest:
        tops.append(y)
        y += height + _ROW_GAP
    return tops, [top + height for top, height in zip(tops, tallest, strict=True)]


def _edge(
    layout: Layout,
    edge: tuple[int, int],
    tops: Sequence[float],
    bottoms: Sequence[float],
    panels: Sequence[Panel],
) -> Line:
    """A line from a box, vertical within the rows that it crosses, to the top of another box."""
    a, b = edge
    centers = layout.edges[edge]
    first = layout.rows[a]
    start = tops[first] + (panels[a - 1].height if a else 0.0)
    points = [(centers[0], start)]
    if start < bottoms[first]:
        points.append((centers[0], bottoms[first]))
    for row, x in enumerate(centers[1:-1], first + 1):
        points += [(x, tops[row]), (x, bottoms[row])]
    reach = panels[b - 1].width / 2 - 8
    landing = min(max(points[-1][0], centers[-1] - reach), centers[-1] + reach)
    points.append((landing, tops[layout.rows[b]]))
    return Line(tuple(points))


def stacked(panels: Sequence[Panel], gap: float = 6.0) -> Panel:
    """Panels below each other, each connected to the next."""
    center = max(max(panel.inlet, panel.outlet) for panel in panels)
    items: list[Item] = []
    y, lefts = 0.0, []
    for at, panel in enumerate(panels):
        left = center - panel.inlet
        lefts.append(left)
        items += moved(panel.items, left, y)
        y += panel.height
        if at + 1 < len(panels) and panels[at + 1].has_input:
            items.append(Line(((left + panel.outlet, y), (center, y + gap)), arrow=False))
        y += gap
    shift = -min(lefts)
    width = max(left + panel.width for left, panel in zip(lefts, panels, strict=True)) + shift
    outlet = lefts[-1] + panels[-1].outlet + shift
    moved_items = tuple(moved(items, shift, 0))
    return Panel(moved_items, width, y - gap, center + shift, outlet, panels[0].has_input)


def framed(inside: Panel, label: str) -> Panel:
    """A dashed frame around a repeated block, with its label beside the input."""
    pad, head = 9.0, 16.0
    beside = text_width(label, _DETAIL + 1) + 2 * pad
    left = max(pad, beside - inside.inlet)
    width = left + inside.width + pad
    height = inside.height + head + pad
    x_in, x_out = left + inside.inlet, left + inside.outlet
    items: list[Item] = [
        Box(0, 0, width, height, "none", "#aaaaaa", 6, dashed=True),
        Label(pad, 16, label, _DETAIL + 1, _GREY, bold=True, anchor="start"),
        *([Line(((x_in, 0), (x_in, head)), arrow=False)] if inside.has_input else []),
        *moved(inside.items, left, head),
        Line(((x_out, head + inside.height), (x_out, height)), arrow=False),
    ]
    return Panel(tuple(items), width, height, x_in, x_out, inside.has_input)


def frame(inside: Panel, label: str, about: str, *, is_head: bool, ends: bool) -> Panel:
    """The frame of a stage with its name and figures; that of a head is dashed."""
    width = max(inside.width, text_width(label, 12.5), text_width(about, _DETAIL + 0.5))
    width += 2 * _PADDING
    left = (width - inside.width) / 2
    top = 42.0
    height = top + inside.height + _PADDING
    x_out = left + inside.outlet
    items: list[Item] = [
        Box(0, 0, width, height, "#fcfcfc", "#bbbbbb", 8, dashed=is_head),
        Label(_PADDING, 18, label, 12.5, bold=True, anchor="start"),
        Label(_PADDING, 32, about, _DETAIL + 0.5, _GREY, anchor="start"),
        *moved(inside.items, left, top),
    ]
    if not ends:
        items.append(Line(((x_out, top + inside.height), (x_out, height)), arrow=False))
    return Panel(tuple(items), width, height, left + inside.inlet, x_out, inside.has_input)
