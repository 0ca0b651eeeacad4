"""Blocks and stages of any net, found from how its layers are connected.

A net is cut wherever a single blob leads from all layers above to all layers below; what lies
between two cuts is a block: a convolution with its BatchNorm and ReLU, a residual block, an
Inception module. Neighbouring blocks of one family of names (``res2a res2b``, ``stem1 stem2``)
make a stage. Heads that do not lead to the net's main output are blocks of their own.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.shapes.block_names import common_folder, family_of, folder_of, of_most, shared
from irv2caffe.shapes.layer_types import SHAPE_RULES

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from irv2caffe.shapes.infer import LayerInfo, NetShapes

# Layers that belong to the layer they follow.
FOLLOWERS = frozenset(
    {
        *("AbsVal", "BN", "BNLL", "BatchNorm", "Bias", "Clip", "Dropout", "ELU", "Exp", "Log"),
        *("PReLU", "Power", "ReLU", "ReLU6", "Scale", "Sigmoid", "Swish", "TanH", "Threshold"),
    }
)
# Layers that end a net; they stand together.
_ENDS = frozenset(name for name, rule in SHAPE_RULES.items() if rule.auto_tops) | {
    "Accuracy",
    "ArgMax",
    "HDF5Output",
    "Silence",
}
# Larger blocks are nets with connections over many blocks, such as U-Net's; they are cut again.
_MOST_COMPUTING = 24
_MOST_BLOCKS = 8  # that make a stage across several grids, such as a stem


@dataclass(frozen=True)
class Block:
    """A part of a net with one way in and one way out.

    Attributes:
        name: what its layers' names have in common, else that of its last layer.
        layers: places in :attr:`NetShapes.layers`.
        signature: equal for blocks that differ in names and channels only.
    """

    name: str
    layers: tuple[int, ...]
    signature: Hashable


@dataclass(frozen=True)
class Stage:
    """Neighbouring blocks of one family."""

    name: str
    blocks: tuple[Block, ...]

    def runs(self) -> list[tuple[Block, int]]:
        """Equal neighbours folded: the first of them and how many."""
        runs: list[tuple[Block, int]] = []
        for block in self.blocks:
            if runs and runs[-1][0].signature == block.signature:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((block, 1))
        return runs

    @property
    def label(self) -> str:
        """``10 x block35``, ``res2 (3 blocks)`` or the name alone."""
        if len(self.blocks) == 1:
            return self.name
        if len(self.runs()) == 1 and ".." not in self.name:
            return f"{len(self.blocks)} x {self.name}"
        return f"{self.name} ({len(self.blocks)} blocks)"


def producers(layers: Sequence[LayerInfo]) -> list[tuple[int, ...]]:
    """For each layer the places of the layers whose tops it reads."""
    last: dict[str, int] = {}
    read = []
    for index, layer in enumerate(layers):
        read.append(tuple(last[name] for name in layer.bottoms))
        last.update(dict.fromkeys(layer.tops, index))
    return read


def stages(shapes: NetShapes) -> tuple[Stage, ...]:
    """The stages of a net, in its order; every layer is in exactly one block."""
    read = producers(shapes.layers)
    main, sides = _main_and_sides(shapes.layers, read)
    spans = _joined(_spans(main, shapes.layers, read), shapes.layers)
    spans = sorted([*spans, *sides], key=lambda span: span[0])
    common = common_folder([layer.name for layer in shapes.layers])
    blocks = [_block(span, shapes.layers, read, common) for span in spans]
    families: list[tuple[str, list[Block]]] = []
    for block in blocks:
        family = family_of(block.name)
        if families and family and families[-1][0] == family:
            families[-1][1].append(block)
        else:
            families.append((family, [block]))
    families = [
        (family, part) for family, same in families for part in _same_grids(same, shapes.layers)
    ]
    found = [
        Stage(same[0].name if len(same) == 1 else family.strip("_-/"), tuple(same))
        for family, same in families
    ]
    counts = Counter(stage.name for stage in found)
    return tuple(_renamed(stage) if counts[stage.name] > 1 else stage for stage in found)


def _same_grids(blocks: list[Block], layers: Sequence[LayerInfo]) -> list[list[Block]]:
    """A family of very many blocks ends where the spatial size changes: ``res1 .. res89``."""
    if len(blocks) <= _MOST_BLOCKS:
        return [blocks]
    return [
        list(same) for _, same in itertools.groupby(blocks, key=lambda block: _grid(block, layers))
    ]


def _grid(block: Block, layers: Sequence[LayerInfo]) -> tuple[int, ...]:
    """The spatial size of what a block makes."""
    shapes = [shape for index in block.layers for shape in layers[index].top_shapes]
    return next((shape[2:] for shape in reversed(shapes) if len(shape) > 2), ())


def _renamed(stage: Stage) -> Stage:
    """Stages of one name are told apart by their first and last block."""
    first, last = stage.blocks[0].name, stage.blocks[-1].name
    return Stage(first if first == last else f"{first}..{last}", stage.blocks)


def _main_and_sides(
    layers: Sequence[LayerInfo], read: Sequence[tuple[int, ...]]
) -> tuple[list[int], list[list[int]]]:
    """The layers that lead to the main output, the deepest, and the heads that do not."""
    depth: list[int] = []
    for places in read:
        depth.append(1 + max((depth[place] for place in places), default=0))
    has_reader = {place for places in read for place in places}
    ends = [index for index in range(len(layers)) if index not in has_reader]
    end = max(ends, key=lambda index: (depth[index], layers[index].type.endswith("Loss"), index))
    main, waiting = {end}, [end]
    while waiting:
        found = set(read[waiting.pop()]) - main
        main |= found
        waiting += found
    heads = _connected([i for i in range(len(layers)) if i not in main], read, main)
    measures = [head for head in heads if not any(layers[index].params for index in head)]
    for head in measures:  # accuracies and the like stand beside the loss
        main.update(head)
    return sorted(main), [head for head in heads if any(layers[index].params for index in head)]


def _connected(
    places: Sequence[int], read: Sequence[tuple[int, ...]], outside: set[int]
) -> list[list[int]]:
    """Parts of some layers that are connected among themselves."""
    part_of: dict[int, list[int]] = {}
    for index in places:
        mine = [index]
        part_of[index] = mine
        for source in read[index]:
            other = part_of[source] if source not in outside else mine
            if other is not mine:
                small, large = sorted((mine, other), key=len)
                large += small
                part_of.update(dict.fromkeys(small, large))
                mine = large
    return [sorted(part) for part in {id(part): part for part in part_of.values()}.values()]


def _spans(
    main: Sequence[int], layers: Sequence[LayerInfo], read: Sequence[tuple[int, ...]]
) -> list[list[int]]:
    """The main layers cut into blocks."""
    place = {index: at for at, index in enumerate(main)}
    lives: dict[int, int] = {}  # from a layer that makes something to the last that reads it
    for index in main:
        for source in read[index]:
            if source in place and layers[source].bottoms:
                lives[place[source]] = place[index]
    edges = [0, *_cuts(0, len(main), list(lives.items()), main, layers), len(main)]
    joined: list[list[int]] = []
    for a, b in itertools.pairwise(edges):
        span = list(main[a:b])
        if joined and _belongs(span, joined[-1], layers):
            joined[-1] += span
        else:
            joined.append(span)
    return joined


def _belongs(span: Sequence[int], above: Sequence[int], layers: Sequence[LayerInfo]) -> bool:
    """Whether a span is a tail of the one above: its ReLU, another input, another measure."""
    last = layers[above[-1]]
    if all(layers[index].type in FOLLOWERS for index in span):
        folder = folder_of([layers[index].name for index in span])
        named_alike = not folder or any(layers[i].name.startswith(folder) for i in above)
        return bool(layers[above[0]].bottoms) and (layers[span[0]].in_place or named_alike)
    if all(layers[index].type in _ENDS for index in span):
        return last.type in _ENDS
    return not layers[span[0]].bottoms and not last.bottoms


def _cuts(
    start: int,
    end: int,
    lives: list[tuple[int, int]],
    main: Sequence[int],
    layers: Sequence[LayerInfo],
    tries: int = 20,
) -> list[int]:
    """Places between which no more than one blob lives; parts that are too large are cut again."""
    living = [0] * (end - start + 1)
    for first, last in lives:
        living[first - start] += 1
        living[last - start] -= 1
    cuts, now = [], 0
    for at in range(start, end - 1):
        now += living[at - start]
        if now <= 1:
            cuts.append(at + 1)
    found: list[int] = []
    for a, b in itertools.pairwise([start, *cuts, end]):
        found += [a] if a > start else []
        computing = sum(layers[main[at]].type not in FOLLOWERS for at in range(a, b))
        if computing > _MOST_COMPUTING and tries:
            inside = [(max(u, a), min(v, b)) for u, v in lives if u < b and v > a]
            inside.remove(max(inside, key=lambda life: life[1] - life[0]))
            found += _cuts(a, b, inside, main, layers, tries - 1)
    return found


def _joined(spans: list[list[int]], layers: Sequence[LayerInfo]) -> list[list[int]]:
    """Neighbours in one folder are one block: ``fire2/squeeze1x1`` and ``fire2/expand``."""
    common = common_folder([layer.name for layer in layers])
    joined: list[list[int]] = []
    folders: list[str] = []
    for span in spans:
        computing = [i for i in span if layers[i].type not in FOLLOWERS]
        folder = folder_of([layers[i].name.removeprefix(common) for i in computing or span[:1]])
        if joined and folder and folder == folders[-1]:
            joined[-1] += span
        else:
            joined.append(span)
            folders.append(folder)
    return joined


def _block(
    span: Sequence[int],
    layers: Sequence[LayerInfo],
    read: Sequence[tuple[int, ...]],
    common: str,
) -> Block:
    names = [layers[i].name.removeprefix(common) for i in span if layers[i].type not in FOLLOWERS]
    names = names or [layers[span[0]].name]
    name = shared(names) or shared(names[:-1]) or of_most(names) or names[-1]
    place = {index: at for at, index in enumerate(span)}
    signature = tuple(
        (
            _settings(layers[index]),
            tuple(place.get(source, -1) for source in read[index]),
            tuple(shape[2:] for shape in layers[index].top_shapes),
        )
        for index in span
    )
    return Block(name, tuple(span), signature)


def _settings(layer: LayerInfo) -> bytes:
    """A layer without its names."""
    proto = type(layer.proto)()
    proto.CopyFrom(layer.proto)
    for field in ("name", "bottom", "top", "param", "blobs"):
        proto.ClearField(field)
    return bytes(proto.SerializeToString(deterministic=True))
