"""Parts of the picture: a box, the graph of a block, the frame of a stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from irv2caffe.shapes.draw.boxes import SPACE, is_led_into, last_op
from irv2caffe.shapes.draw.layout import Layout, lay_out
from irv2caffe.shapes.draw.scene import Box, Label, Line, text_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.shapes.draw.boxes import Op

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

Item = Box | Label | Line


@dataclass(frozen=True)
class Panel:
    """A part of the picture with one way in at the top and one way out at the bottom.

    Attributes:
        items: placed from its own upper left corner.
        width: in pixels.
        height: in pixels.
        inlet: where the way in meets the top, from the left.
        outlet: where the way out meets the bottom, from the left.
        is_led_into: whether a line leads into it.
    """

    items: tuple[Item, ...]
    width: float
    height: float
    inlet: float
    outlet: float
    is_led_into: bool = True


def moved(items: Sequence[Item], dx: float, dy: float) -> list[Item]:
    """The same, elsewhere."""
    result: list[Item] = []
    for item in items:
        if isinstance(item, Line):
            points = tuple((x + dx, y + dy) for x, y in item.points)
            result.append(replace(item, points=points))
        else:
            result.append(replace(item, x=item.x + dx, y=item.y + dy))
    return result


def op_size(op: Op, prefix: str = "", name: str = "") -> tuple[float, float]:
    """Width and height of a box."""
    title = text_width(prefix + op.title, _TITLE)
    detail = text_width(SPACE.join(filter(None, (name, op.detail))), _DETAIL)
    if op.kind == "join" and not name:
        return title + (detail + 8 if detail else 0) + 16, _JOIN_HEIGHT
    return max(title, detail, 40) + 16, _HEIGHT


def op_items(op: Op, x: float, y: float, prefix: str = "", name: str = "") -> list[Item]:
    """A box with its words, from its upper left corner."""
    width, height = op_size(op, prefix, name)
    fill, stroke = COLORS[op.kind]
    items: list[Item] = [Box(x, y, width, height, fill, stroke)]
    middle = x + width / 2
    detail = SPACE.join(filter(None, (name, op.detail)))
    if height == _JOIN_HEIGHT:
        if not detail:
            return [*items, Label(middle, y + 14, prefix + op.title, _TITLE)]
        left = x + 8 + text_width(prefix + op.title, _TITLE)
        return [
            *items,
            Label(x + 8, y + 14, prefix + op.title, _TITLE, anchor="start"),
            Label(left + 8, y + 14, detail, _DETAIL, _GREY, anchor="start"),
        ]
    title_y = y + (15 if detail else 21)
    items.append(Label(middle, title_y, prefix + op.title, _TITLE, bold=op.kind == "conv"))
    if detail:
        items.append(Label(middle, y + 28, detail, _DETAIL, _GREY))
    return items


def graph(ops: Sequence[Op], prefix: str = "", *, leads_out: bool = True) -> Panel:
    """The boxes of a block, branches beside each other; ``prefix`` goes before a single box."""
    sizes = [op_size(op, prefix) for op in ops]
    edges = [(source + 1, at + 1) for at, op in enumerate(ops) for source in op.reads]
    layout = lay_out([0.0, *(width for width, _ in sizes)], edges, _COLUMN_GAP)
    tops, bottoms = _row_edges(layout, [0.0, *(height for _, height in sizes)])
    items: list[Item] = []
    for a, b in dict.fromkeys(edges):
        items.append(_edge(layout, (a, b), tops, bottoms, sizes))
    for at, op in enumerate(ops, 1):
        width = sizes[at - 1][0]
        left = layout.centers[at] - width / 2
        items += op_items(op, left, tops[layout.rows[at]], prefix)
    height = max(bottoms, default=0.0)
    last = last_op(ops)
    outlet = layout.centers[last + 1]
    below = tops[layout.rows[last + 1]] + sizes[last][1]
    if below < height and leads_out:
        items.append(Line(((outlet, below), (outlet, height)), arrow=False))
    led = is_led_into(ops)
    return Panel(tuple(items), layout.width, height, layout.centers[0], outlet, led)


def _row_edges(layout: Layout, heights: Sequence[float]) -> tuple[list[float], list[float]]:
    """Upper and lower edge of each row; the first row is the way in."""
    count = max(layout.rows, default=0) + 1
    tallest = [0.0] * count
    for row, height in zip(layout.rows, heights, strict=True):
        tallest[row] = max(tallest[row], height)
    tops, y = [], 0.0
    for row in range(count):
        tops.append(y)
        y += tallest[row] + _ROW_GAP
    return tops, [top + tall for top, tall in zip(tops, tallest, strict=True)]


def _edge(
    layout: Layout,
    edge: tuple[int, int],
    tops: Sequence[float],
    bottoms: Sequence[float],
    sizes: Sequence[tuple[float, float]],
) -> Line:
    """From the bottom of one box, straight through the rows between, to the top of another."""
    a, b = edge
    centers = layout.edges[edge]
    first = layout.rows[a]
    start = tops[first] + (sizes[a - 1][1] if a else 0.0)
    points = [(centers[0], start)]
    if start < bottoms[first]:
        points.append((centers[0], bottoms[first]))
    for row, x in enumerate(centers[1:-1], first + 1):
        points += [(x, tops[row]), (x, bottoms[row])]
    reach = sizes[b - 1][0] / 2 - 8
    landing = min(max(points[-1][0], centers[-1] - reach), centers[-1] + reach)
    points.append((landing, tops[layout.rows[b]]))
    return Line(tuple(points))


def stacked(pieces: Sequence[Panel], gap: float = 6.0) -> Panel:
    """Pieces under each other, each leading into the next."""
    center = max(max(piece.inlet, piece.outlet) for piece in pieces)
    items: list[Item] = []
    y, lefts = 0.0, []
    for at, piece in enumerate(pieces):
        left = center - piece.inlet
        lefts.append(left)
        items += moved(piece.items, left, y)
        if at + 1 < len(pieces) and pieces[at + 1].is_led_into:
            after = center
            start = (left + piece.outlet, y + piece.height)
            items.append(Line((start, (after, y + piece.height + gap)), arrow=False))
        y += piece.height + gap
    shift = -min(lefts)
    width = max(left + piece.width for left, piece in zip(lefts, pieces, strict=True)) + shift
    return Panel(
        tuple(moved(items, shift, 0)),
        width,
        y - gap,
        center + shift,
        lefts[-1] + pieces[-1].outlet + shift,
        pieces[0].is_led_into,
    )


def framed(inside: Panel, words: str) -> Panel:
    """A frame around a repeated part, with how often beside the way in."""
    pad, head = 9.0, 16.0
    beside = text_width(words, _DETAIL + 1) + 2 * pad
    left = max(pad, beside - inside.inlet)
    width = left + inside.width + pad
    height = inside.height + head + pad
    x_in, x_out = left + inside.inlet, left + inside.outlet
    items: list[Item] = [
        Box(0, 0, width, height, "none", "#aaaaaa", 6, dashed=True),
        Label(pad, 16, words, _DETAIL + 1, _GREY, bold=True, anchor="start"),
        *([Line(((x_in, 0), (x_in, head)), arrow=False)] if inside.is_led_into else []),
        *moved(inside.items, left, head),
        Line(((x_out, head + inside.height), (x_out, height)), arrow=False),
    ]
    return Panel(tuple(items), width, height, x_in, x_out, inside.is_led_into)


def frame(inside: Panel, label: str, about: str, *, is_head: bool, ends: bool) -> Panel:
    """The frame of a stage: its name and figures above its graph; heads have a dashed one."""
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
    return Panel(tuple(items), width, height, left + inside.inlet, x_out, inside.is_led_into)


def single(op: Op, name: str, prefix: str = "") -> Panel:
    """A stage of one box."""
    width, height = op_size(op, prefix, name)
    items = tuple(op_items(op, 0, 0, prefix, name))
    return Panel(items, width, height, width / 2, width / 2, is_led_into([op]))
