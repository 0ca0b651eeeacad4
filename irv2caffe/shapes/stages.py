"""Divides a net into blocks and stages, by the connections and names of its layers.

A net is cut where a single blob connects the layers above with those below. The layers between
two cuts are a block: a convolution with its BatchNorm and ReLU, a residual block, an
Inception module. Consecutive blocks of one family of names (``res2a res2b``, ``stem1 stem2``) are
a stage. A head that does not lead to the main output is a separate block.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.shapes.block_names import (
    common_folder,
    common_prefix,
    family_of,
    folder_of,
    majority_prefix,
)
from irv2caffe.shapes.layer_types import SHAPE_RULES

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from irv2caffe.shapes.infer import LayerInfo, NetShapes

# Layers that belong to the layer before them.
FOLLOWERS = frozenset(
    {
        *("AbsVal", "BN", "BNLL", "BatchNorm", "Bias", "Clip", "Dropout", "ELU", "Exp", "Log"),
        *("PReLU", "Power", "ReLU", "ReLU6", "Scale", "Sigmoid", "Swish", "TanH", "Threshold"),
    }
)
# Layers at the end of a net, which make one block.
_ENDS = frozenset(name for name, rule in SHAPE_RULES.items() if rule.auto_tops) | {
    "Accuracy",
    "ArgMax",
    "HDF5Output",
    "Silence",
}
# Blocks with more layers, not counting followers, are cut again, such as those of U-Net.
_MAX_COMPUTING = 24
_MAX_BLOCKS = 8  # of a stage that covers several grids, such as a stem


@dataclass(frozen=True)
class Block:
    """A part of a net with one input and one output.

    Attributes:
        name: the common part of its layers' names, else the name of its last layer.
        layers: positions in :attr:`NetShapes.layers`.
        signature: equal for blocks that differ only in names and channels.
    """

    name: str
    layers: tuple[int, ...]
    signature: Hashable


@dataclass(frozen=True)
class Stage:
    """Consecutive blocks of one family of names."""

    name: str
    blocks: tuple[Block, ...]

    def runs(self) -> list[tuple[Block, int]]:
        """Runs of consecutive equal blocks: the first block and their number."""
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


def stages(shapes: NetShapes) -> tuple[Stage, ...]:
    """The stages of a net, in its order; every layer is in exactly one block."""
    layers, sources = shapes.layers, shapes.sources
    common = common_folder([layer.name for layer in layers])
    main, heads = _main_and_heads(layers, sources)
    spans = [*_joined_by_folder(_spans(main, layers, sources), layers, common), *heads]
    blocks = [_block(span, layers, sources, common) for span in sorted(spans)]
    families: list[tuple[str, list[Block]]] = []
    for block in blocks:
        family = family_of(block.name)
        if families and family and families[-1][0] == family:
            families[-1][1].append(block)
        else:
            families.append((family, [block]))
    found = [
        Stage(part[0].name if len(part) == 1 else family.strip("_-/"), tuple(part))
        for family, same in families
        for part in _split_by_grid(same, layers)
    ]
    counts = Counter(stage.name for stage in found)
    for at, stage in enumerate(found):
        first, last = stage.blocks[0].name, stage.blocks[-1].name
        if counts[stage.name] > 1:
            found[at] = Stage(first if first == last else f"{first}..{last}", stage.blocks)
    return tuple(found)


def _split_by_grid(blocks: list[Block], layers: Sequence[LayerInfo]) -> list[list[Block]]:
    """Splits a family of many blocks (``res1 .. res89``) where the spatial size changes."""

    def grid(block: Block) -> tuple[int, ...]:
        shapes = [shape for index in block.layers for shape in layers[index].top_shapes]
        return next((shape[2:] for shape in reversed(shapes) if len(shape) > 2), ())

    if len(blocks) <= _MAX_BLOCKS:
        return [blocks]
    return [list(same) for _, same in itertools.groupby(blocks, key=grid)]


def _main_and_heads(
    layers: Sequence[LayerInfo], sources: Sequence[tuple[int, ...]]
) -> tuple[list[int], list[list[int]]]:
    """The layers that lead to the deepest output, and the heads that do not."""
    depth: list[int] = []
    for inputs in sources:
        depth.append(1 + max((depth[source] for source in inputs), default=0))
    read = {source for inputs in sources for source in inputs}
    ends = [index for index in range(len(layers)) if index not in read]
    end = max(ends, key=lambda index: (depth[index], layers[index].type.endswith("Loss"), index))
    main, waiting = {end}, [end]
    while waiting:
        found = set(sources[waiting.pop()]) - main
        main |= found
        waiting += found
    heads = []
    for part in _connected([i for i in range(len(layers)) if i not in main], sources, main):
        if any(layers[index].params for index in part):
            heads.append(part)
        else:  # such as an accuracy next to the loss
            main.update(part)
    return sorted(main), heads


def _connected(
    members: Sequence[int], sources: Sequence[tuple[int, ...]], outside: set[int]
) -> list[list[int]]:
    """The connected parts of some layers."""
    part_of: dict[int, list[int]] = {}
    for index in members:
        mine = part_of[index] = [index]
        for source in sources[index]:
            other = part_of[source] if source not in outside else mine
            if other is not mine:
                small, large = sorted((mine, other), key=len)
                large += small
                part_of.update(dict.fromkeys(small, large))
                mine = large
    return [sorted(part) for part in {id(part): part for part in part_of.values()}.values()]


def _spans(
    main: Sequence[int], layers: Sequence[LayerInfo], sources: Sequence[tuple[int, ...]]
) -> list[list[int]]:
    """Cuts the main layers into blocks."""
    place = {index: at for at, index in enumerate(main)}
    last_reader: dict[int, int] = {}
    for index in main:
        for source in sources[index]:
            if source in place and layers[source].bottoms:
                last_reader[place[source]] = place[index]
    edges = [0, *_cuts(0, len(main), list(last_reader.items()), main, layers), len(main)]
    joined: list[list[int]] = []
    for a, b in itertools.pairwise(edges):
        span = list(main[a:b])
        if joined and _belongs(span, joined[-1], layers):
            joined[-1] += span
        else:
            joined.append(span)
    return joined


def _belongs(span: Sequence[int], above: Sequence[int], layers: Sequence[LayerInfo]) -> bool:
    """Whether a span belongs to the one above: its ReLU, a further input or a further loss."""
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
    """Positions that at most one blob crosses; parts that are too large are cut again.

    ``lives`` holds the position that makes each blob, and that of its last reader. To cut a large
    part again, the blob that lives longest is disregarded.
    """
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
        if computing > _MAX_COMPUTING and tries:
            inside = [(max(u, a), min(v, b)) for u, v in lives if u < b and v > a]
            inside.remove(max(inside, key=lambda life: life[1] - life[0]))
            found += _cuts(a, b, inside, main, layers, tries - 1)
    return found


def _joined_by_folder(
    spans: list[list[int]], layers: Sequence[LayerInfo], common: str
) -> list[list[int]]:
    """Joins consecutive spans of one folder, such as ``fire2/squeeze1x1`` and ``fire2/expand``."""
    joined: list[list[int]] = []
    last = ""
    for span in spans:
        computing = [i for i in span if layers[i].type not in FOLLOWERS]
        folder = folder_of([layers[i].name.removeprefix(common) for i in computing or span[:1]])
        if joined and folder and folder == last:
            joined[-1] += span
        else:
            joined.append(span)
        last = folder
    return joined


def _block(
    span: Sequence[int],
    layers: Sequence[LayerInfo],
    sources: Sequence[tuple[int, ...]],
    common: str,
) -> Block:
    names = [layers[i].name.removeprefix(common) for i in span if layers[i].type not in FOLLOWERS]
    names = names or [layers[span[0]].name]
    name = common_prefix(names) or common_prefix(names[:-1])
    name = name or majority_prefix(names) or names[-1]
    place = {index: at for at, index in enumerate(span)}
    signature = tuple(
        (
            _settings(layers[index]),
            tuple(place.get(source, -1) for source in sources[index]),
            tuple(shape[2:] for shape in layers[index].top_shapes),
        )
        for index in span
    )
    return Block(name, tuple(span), signature)


def _settings(layer: LayerInfo) -> bytes:
    """A layer's settings without names and weights."""
    proto = type(layer.proto)()
    proto.CopyFrom(layer.proto)
    for field in ("name", "bottom", "top", "param", "blobs"):
        proto.ClearField(field)
    return bytes(proto.SerializeToString(deterministic=True))
