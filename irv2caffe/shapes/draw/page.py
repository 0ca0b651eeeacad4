"""The whole picture: stages from top to bottom, in as many columns as make a readable page."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from irv2caffe.shapes.draw.boxes import (
    LONGEST,
    Op,
    condensed,
    is_led_into,
    last_op,
    merged,
    ops_of,
    short,
)
from irv2caffe.shapes.draw.panels import Panel, frame, framed, graph, moved, single, stacked
from irv2caffe.shapes.draw.scene import Label, Line, Scene, text_width
from irv2caffe.shapes.summary import amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.shapes.draw.scene import Point
    from irv2caffe.shapes.infer import LayerInfo
    from irv2caffe.shapes.stages import Block, Stage
    from irv2caffe.shapes.summary import NetSummary, Part

_MARGIN, _GUTTER, _GAP, _HEAD = 24.0, 44.0, 26.0, 60.0
_ASPECT = 1.45  # of the page

_Group = tuple[list["Block"], list[Op]]  # equal blocks, and the boxes of all of them as one set
_StageBoxes = tuple["Stage", "Part", list[_Group]]


def draw(summary: NetSummary) -> Scene:
    """Draws a net: a frame for each stage, in which equal blocks are drawn once."""
    scene = Scene(summary.shapes.name)
    layers, sources = summary.shapes.layers, summary.shapes.sources
    stage_of = {
        place: number
        for number, stage in enumerate(summary.stages)
        for block in stage.blocks
        for place in block.layers
    }
    read_later = {
        stage_of[maker]
        for place, makers in enumerate(sources)
        for maker in makers
        if stage_of[maker] != stage_of[place]
    }
    main: list[_StageBoxes] = []
    heads: list[Panel] = []
    inlet: frozenset[int] = frozenset()  # the layers of the box above
    for number, stage in enumerate(summary.stages):
        part = summary.stage_parts[number]
        groups, outlet = _groups(stage.blocks, layers, sources, inlet)
        roots = [
            (maker, name)
            for place in sorted(place for block in stage.blocks for place in block.layers)
            for maker, name in zip(sources[place], layers[place].bottoms, strict=True)
            if stage_of[maker] != number and layers[maker].bottoms
        ]
        is_end = stage is summary.stages[-1] and is_led_into(groups[0][1])
        if number in read_later or is_end or not (roots and main):
            main.append((stage, part, groups))
            inlet = outlet
        else:
            root, head_of = roots[0]
            groups, _ = _groups(stage.blocks, layers, sources, frozenset({root}))
            heads.append(_stage((stage, part, groups), ends=True, head_of=head_of))
    pieces = []
    for at, figured in enumerate(main):
        ends = at + 1 == len(main)
        leads_out = ends or is_led_into(main[at + 1][2][0][1])
        pieces.append(_stage(figured, ends=ends, leads_out=leads_out))
    _flow(scene, [*pieces, *heads], len(main))
    _title(scene, summary)
    return scene


def _stage(drawing: _StageBoxes, *, ends: bool, head_of: str = "", leads_out: bool = True) -> Panel:
    """One stage: a box where it is one box, else a frame with its graph."""
    stage, part, groups = drawing
    if len(groups) == 1 and len(groups[0][1]) == 1 and not head_of:
        blocks, ops = groups[0]
        name = short(stage.blocks[0].name if len(blocks) == 1 else stage.name)
        return single(ops[0], name, f"{len(blocks)} x " if len(blocks) > 1 else "")
    pieces = []
    for at, (blocks, ops) in enumerate(groups):
        leads_on = leads_out or at + 1 < len(groups)
        if len(groups) == 1 or len(blocks) == 1 or len(ops) == 1:
            many = len(ops) == 1 and len(blocks) > 1
            prefix = f"{len(blocks)} x " if many else ""
            pieces.append(graph(ops, prefix, leads_out=leads_on))
        else:
            names = f"{len(blocks)} x {_names(blocks)}"
            pieces.append(framed(graph(ops), names))
    inside = stacked(pieces)
    least = "at least " if part.partial else ""
    about = [
        "x".join(map(str, part.output)) if part.output else "",
        f"{least}{part.parameters:,} parameters" if part.parameters else "",
        f"{least}{amount(part.macs)} multiply-adds" if part.macs else "",
    ]
    about_line = ", ".join(filter(None, about))
    room = max(LONGEST, int(max(inside.width, text_width(about_line, 9.5)) / text_width("x", 12.5)))
    label = short(stage.label, room)
    if len(groups) == 1 and len(stage.blocks) > 1 and len(stage.runs()) > 1:
        label = f"{len(stage.blocks)} x {short(stage.name)}: {_names(stage.blocks)}"
    if head_of:
        label += f" (from {short(head_of)})"
    return frame(inside, label, about_line, is_head=bool(head_of), ends=ends or not leads_out)


def _names(blocks: Sequence[Block]) -> str:
    names = [short(block.name) for block in blocks]
    return " ".join(names) if len(names) <= 3 else f"{names[0]} .. {names[-1]}"


def _groups(
    blocks: Sequence[Block],
    layers: Sequence[LayerInfo],
    read: Sequence[tuple[int, ...]],
    inlet: frozenset[int],
) -> tuple[list[_Group], frozenset[int]]:
    """Neighbouring blocks that are built alike, whatever their numbers of outputs.

    Also gives the layers of the box that leads out of the last.
    """
    made = []
    for block in blocks:
        ops = condensed(ops_of(block.layers, layers, read, inlet))
        made.append((block, ops))
        inlet = ops[last_op(ops)].places
    groups = []
    for _, same in itertools.groupby(made, key=lambda item: _pattern(item[1])):
        members = list(same)
        groups.append(([block for block, _ in members], merged([ops for _, ops in members])))
    return groups, inlet


def _pattern(ops: Sequence[Op]) -> tuple[object, ...]:
    return tuple(
        (op.kind, op.words, tuple(op.tail), tuple(op.reads), op.shapes[0][1:], tuple(op.others))
        for op in ops
    )


def _title(scene: Scene, summary: NetSummary) -> None:
    total = summary.total
    apart = f"batch {summary.batch}, phase {summary.shapes.phase}"
    least = "at least " if total.partial else ""
    words = f"{least}{total.parameters:,} parameters, {amount(total.macs)} multiply-adds, {apart}"
    name = summary.shapes.name or "net"
    room = scene.width - 2 * _MARGIN
    name = short(name, max(LONGEST, int(room / text_width("x", 17))))
    scene.items[:0] = [
        Label(_MARGIN, _MARGIN + 12, name, 17, bold=True, anchor="start"),
        Label(_MARGIN, _MARGIN + 29, words, 11, "#666666", anchor="start"),
    ]
    needed = 2 * _MARGIN + max(text_width(name, 17), text_width(words, 11))
    scene.width = max(scene.width, needed)


def _flow(scene: Scene, pieces: Sequence[Panel], num_main: int) -> None:
    """Places the pieces in columns and leads from each to the next."""
    columns = _columns(pieces)
    x, at = _MARGIN, 0
    top, deepest = _MARGIN + _HEAD, 0.0
    before: Point | None = None
    for column in columns:
        left_of = max(pieces[i].inlet for i in column)
        left = x + left_of
        y = top
        right = x
        for place, i in enumerate(column):
            piece = pieces[i]
            corner = left - piece.inlet
            entry = (left, y)
            if before is not None and at < num_main and piece.is_led_into:
                scene.items.append(_lead(before, entry, x, top, first=place == 0))
            scene.items += moved(piece.items, corner, y)
            before = (corner + piece.outlet, y + piece.height)
            y += piece.height + _GAP
            right = max(right, corner + piece.width)
            at += 1
        deepest = max(deepest, y - _GAP)
        x = right + _GUTTER
    scene.width = max(scene.width, x - _GUTTER + _MARGIN)
    scene.height = deepest + _MARGIN


def _lead(before: Point, entry: Point, x: float, top: float, *, first: bool) -> Line:
    """The arrow to the next piece: down, or around to the top of the next column."""
    if not first:
        return Line((before, entry), stroke="#444444", width=1.5)
    gutter = x - _GUTTER / 2
    low = before[1] + 12
    high = top - 12
    points = (before, (before[0], low), (gutter, low), (gutter, high), (entry[0], high), entry)
    return Line(points, stroke="#444444", curved=False, width=1.5)


def _columns(pieces: Sequence[Panel]) -> list[list[int]]:
    """The pieces in as many columns as come nearest to the page's aspect."""
    best: tuple[float, list[list[int]]] | None = None
    height = sum(piece.height + _GAP for piece in pieces)
    about = math.sqrt(_ASPECT * height / (max(piece.width for piece in pieces) + _GUTTER))
    for number in range(max(1, int(about) - 3), int(about) + 5):
        columns = _split(pieces, number)
        width = sum(max(pieces[i].width for i in column) + _GUTTER for column in columns)
        height = max(sum(pieces[i].height + _GAP for i in column) for column in columns)
        distance = abs(math.log(width / (height + _HEAD) / _ASPECT))
        if best is None or distance < best[0]:
            best = (distance, columns)
    assert best is not None
    return best[1]


def _split(pieces: Sequence[Panel], number: int) -> list[list[int]]:
    """In order into at most ``number`` columns, the tallest of them as low as can be."""
    heights = [piece.height + _GAP for piece in pieces]
    low, high = max(heights), sum(heights)
    while high - low > 1:
        middle = (low + high) / 2
        if len(_filled(heights, middle)) <= number:
            high = middle
        else:
            low = middle
    return _filled(heights, high)


def _filled(heights: Sequence[float], limit: float) -> list[list[int]]:
    columns: list[list[int]] = [[]]
    used = 0.0
    for at, height in enumerate(heights):
        if used + height > limit and columns[-1]:
            columns.append([])
            used = 0.0
        columns[-1].append(at)
        used += height
    return columns
