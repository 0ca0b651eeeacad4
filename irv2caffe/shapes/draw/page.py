"""The whole picture: the stages from top to bottom, in several columns."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

from irv2caffe.shapes.draw import boxes, panels
from irv2caffe.shapes.draw.boxes import MAX_NAME, LayerBox, short_name
from irv2caffe.shapes.draw.scene import Label, Line, Scene, text_width
from irv2caffe.shapes.summary import amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.shapes.draw.panels import Panel
    from irv2caffe.shapes.draw.scene import Point
    from irv2caffe.shapes.infer import NetShapes
    from irv2caffe.shapes.stages import Block, Stage
    from irv2caffe.shapes.summary import NetSummary, Part

_MARGIN, _GUTTER, _GAP, _HEAD = 24.0, 44.0, 26.0, 60.0
_ASPECT = 1.45  # of the page


class _Group(NamedTuple):
    """Consecutive equal blocks, and their boxes as those of one block."""

    blocks: list[Block]
    boxes: list[LayerBox]


class _StageBoxes(NamedTuple):
    stage: Stage
    part: Part
    groups: list[_Group]

    @property
    def has_input(self) -> bool:
        """Whether a line leads into the stage."""
        return boxes.has_input(self.groups[0].boxes)


def draw(summary: NetSummary) -> Scene:
    """Draws a net: a frame for each stage, in which equal blocks are drawn once."""
    shapes = summary.shapes
    stage_of = {
        place: number
        for number, stage in enumerate(summary.stages)
        for block in stage.blocks
        for place in block.layers
    }
    read_later = {
        stage_of[maker]
        for place, makers in enumerate(shapes.sources)
        for maker in makers
        if stage_of[maker] != stage_of[place]
    }
    main: list[_StageBoxes] = []
    heads: list[Panel] = []
    inlet: frozenset[int] = frozenset()  # the layers of the box above
    for number, stage in enumerate(summary.stages):
        groups, outlet = _groups(stage.blocks, shapes, inlet)
        drawn = _StageBoxes(stage, summary.stage_parts[number], groups)
        roots = [
            (maker, name)
            for place in sorted(place for block in stage.blocks for place in block.layers)
            for maker, name in zip(shapes.sources[place], shapes.layers[place].bottoms, strict=True)
            if stage_of[maker] != number and shapes.layers[maker].bottoms
        ]
        is_end = stage is summary.stages[-1] and drawn.has_input
        if number in read_later or is_end or not (roots and main):
            main.append(drawn)
            inlet = outlet
        else:
            root, head_of = roots[0]
            groups, _ = _groups(stage.blocks, shapes, frozenset({root}))
            heads.append(_stage(drawn._replace(groups=groups), ends=True, head_of=head_of))
    stage_panels = []
    for at, drawn in enumerate(main):
        ends = at + 1 == len(main)
        stage_panels.append(_stage(drawn, ends=ends, leads_out=ends or main[at + 1].has_input))
    scene = Scene(shapes.name)
    _arrange(scene, [*stage_panels, *heads], len(main))
    _add_title(scene, summary)
    return scene


def _stage(drawn: _StageBoxes, *, ends: bool, head_of: str = "", leads_out: bool = True) -> Panel:
    """A stage: a single box, or a frame with its blocks."""
    stage, part, groups = drawn
    if len(groups) == 1 and len(groups[0].boxes) == 1 and not head_of:
        (group,) = groups
        name = short_name(stage.blocks[0].name if len(group.blocks) == 1 else stage.name)
        return panels.box_panel(group.boxes[0], _times(group), name)
    parts = []
    for at, group in enumerate(groups):
        if len(groups) == 1 or len(group.blocks) == 1 or len(group.boxes) == 1:
            prefix = _times(group) if len(group.boxes) == 1 else ""
            leads_on = leads_out or at + 1 < len(groups)
            parts.append(panels.graph(group.boxes, prefix, leads_out=leads_on))
        else:
            label = _times(group) + _names(group.blocks)
            parts.append(panels.framed(panels.graph(group.boxes), label))
    inside = panels.stacked(parts)
    at_least = "at least " if part.partial else ""
    figures = [
        "x".join(map(str, part.output)) if part.output else "",
        f"{at_least}{part.parameters:,} parameters" if part.parameters else "",
        f"{at_least}{amount(part.macs)} multiply-adds" if part.macs else "",
    ]
    about = ", ".join(filter(None, figures))
    room = max(MAX_NAME, int(max(inside.width, text_width(about, 9.5)) / text_width("x", 12.5)))
    label = short_name(stage.label, room)
    if len(groups) == 1 and len(stage.blocks) > 1 and len(stage.runs()) > 1:
        label = f"{len(stage.blocks)} x {short_name(stage.name)}: {_names(stage.blocks)}"
    if head_of:
        label += f" (from {short_name(head_of)})"
    return panels.frame(inside, label, about, is_head=bool(head_of), ends=ends or not leads_out)


def _times(group: _Group) -> str:
    return f"{len(group.blocks)} x " if len(group.blocks) > 1 else ""


def _names(blocks: Sequence[Block]) -> str:
    names = [short_name(block.name) for block in blocks]
    return " ".join(names) if len(names) <= 3 else f"{names[0]} .. {names[-1]}"


def _groups(
    blocks: Sequence[Block], shapes: NetShapes, inlet: frozenset[int]
) -> tuple[list[_Group], frozenset[int]]:
    """Groups of consecutive blocks that differ only in num_output, and the last box's layers."""
    drawn_blocks = []
    for block in blocks:
        found = boxes.layer_boxes(block.layers, shapes.layers, shapes.sources, inlet)
        drawn = boxes.simplified(found)
        drawn_blocks.append((block, drawn))
        inlet = drawn[boxes.last_box(drawn)].places
    groups = []
    for _, same in itertools.groupby(drawn_blocks, key=lambda item: _pattern(item[1])):
        equal_blocks, equal_boxes = zip(*same, strict=True)
        groups.append(_Group(list(equal_blocks), boxes.merged(equal_boxes)))
    return groups, inlet


def _pattern(block: Sequence[LayerBox]) -> tuple[object, ...]:
    """The properties that are equal in the boxes of equal blocks."""
    return tuple(
        (
            *(box.kind, box.template, tuple(box.followers), tuple(box.sources)),
            *(box.shapes[0][1:], tuple(box.others)),
        )
        for box in block
    )


def _add_title(scene: Scene, summary: NetSummary) -> None:
    total = summary.total
    at_least = "at least " if total.partial else ""
    about = (
        f"{at_least}{total.parameters:,} parameters, {amount(total.macs)} multiply-adds, "
        f"batch {summary.batch}, phase {summary.shapes.phase}"
    )
    room = scene.width - 2 * _MARGIN
    name = summary.shapes.name or "net"
    name = short_name(name, max(MAX_NAME, int(room / text_width("x", 17))))
    scene.items[:0] = [
        Label(_MARGIN, _MARGIN + 12, name, 17, bold=True, anchor="start"),
        Label(_MARGIN, _MARGIN + 29, about, 11, "#666666", anchor="start"),
    ]
    needed = 2 * _MARGIN + max(text_width(name, 17), text_width(about, 11))
    scene.width = max(scene.width, needed)


def _arrange(scene: Scene, stages: Sequence[Panel], num_main: int) -> None:
    """Places the panels in columns and connects the main ones."""
    x, top = _MARGIN, _MARGIN + _HEAD
    deepest = 0.0
    before: Point | None = None
    for column in _columns(stages):
        left = x + max(stages[i].inlet for i in column)
        y, right = top, x
        for place, i in enumerate(column):
            panel = stages[i]
            corner = left - panel.inlet
            if before is not None and i < num_main and panel.has_input:
                scene.items.append(_connection(before, (left, y), x, top, first=place == 0))
            scene.items += panels.moved(panel.items, corner, y)
            before = (corner + panel.outlet, y + panel.height)
            y += panel.height + _GAP
            right = max(right, corner + panel.width)
        deepest = max(deepest, y - _GAP)
        x = right + _GUTTER
    scene.width = max(scene.width, x - _GUTTER + _MARGIN)
    scene.height = deepest + _MARGIN


def _connection(before: Point, entry: Point, x: float, top: float, *, first: bool) -> Line:
    """The arrow to the next panel: down, or through the gutter to the top of the next column."""
    if not first:
        return Line((before, entry), stroke="#444444", width=1.5)
    gutter = x - _GUTTER / 2
    low = before[1] + 12
    high = top - 12
    points = (before, (before[0], low), (gutter, low), (gutter, high), (entry[0], high), entry)
    return Line(points, stroke="#444444", curved=False, width=1.5)


def _columns(stages: Sequence[Panel]) -> list[list[int]]:
    """The panels in the number of columns that comes nearest to the page's aspect."""
    height = sum(panel.height + _GAP for panel in stages)
    about = math.sqrt(_ASPECT * height / (max(panel.width for panel in stages) + _GUTTER))

    def distance(columns: list[list[int]]) -> float:
        width = sum(max(stages[i].width for i in column) + _GUTTER for column in columns)
        height = max(sum(stages[i].height + _GAP for i in column) for column in columns)
        return abs(math.log(width / (height + _HEAD) / _ASPECT))

    numbers = range(max(1, int(about) - 3), int(about) + 5)
    return min((_split(stages, number) for number in numbers), key=distance)


def _split(stages: Sequence[Panel], number: int) -> list[list[int]]:
    """Splits the panels into at most ``number`` columns, with the tallest as low as possible."""
    heights = [panel.height + _GAP for panel in stages]
    low, high = max(heights), sum(heights)
    while high - low > 1:
        middle = (low + high) / 2
        if len(_filled(heights, middle)) <= number:
            high = middle
        else:
            low = middle
    return _filled(heights, high)


def _filled(heights: Sequence[float], limit: float) -> list[list[int]]:
    """Columns filled up to a height."""
    columns: list[list[int]] = [[]]
    used = 0.0
    for at, height in enumerate(heights):
        if used + height > limit and columns[-1]:
            columns.append([])
            used = 0.0
        columns[-1].append(at)
        used += height
    return columns
