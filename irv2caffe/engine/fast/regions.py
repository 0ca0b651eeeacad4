"""Parts of a net that torch.compile translates: each kind of block once, not each block.

A net narrows to a single value again and again: after each block of a residual net, for example.
The operations between two such places are a region. Regions that differ in their tensors only
share a translation, so that 40 blocks cost the time of a few.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from irv2caffe.engine.fast.graph import Graph, Op

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

LONGEST = 24  # operations of plain chains that become one region


@dataclass(frozen=True)
class Part:
    """An operation within a region; values and tensors by their place in the region.

    Attributes:
        call: as of :class:`Op`.
        key: as of :class:`Op`.
        params: the part of the region's tensors that belongs to it.
        bottoms: places of its bottoms.
        tops: places of its tops.
    """

    call: Callable[..., tuple[Tensor, ...]]
    key: Any
    params: tuple[int, int]
    bottoms: tuple[int, ...]
    tops: tuple[int, ...]


def compile_regions(graph: Graph, translate: Callable[[Any], Any], *, least: int = 1) -> Graph:
    """Replaces regions by one translated operation each.

    Args:
        graph: whose operations may have keys; those without run as they are.
        translate: torch.compile, with its options.
        least: how often a kind of region must occur to be translated.
    """
    known: dict[Any, Any] = {}
    regions = split(graph)
    joined = [
        _joined(graph, region, known, translate) if region[0].key is not None else None
        for region in regions
    ]
    uses = Counter(id(op.call) for op in joined if op is not None)
    ops: list[Op] = []
    for region, op in zip(regions, joined, strict=True):
        ops += [op] if op is not None and uses[id(op.call)] >= least else region
    return replace(graph, ops=tuple(ops))


def split(graph: Graph) -> list[list[Op]]:
    """Cuts a graph where one value is alive, and around operations without a key."""
    last = {value: at for at, op in enumerate(graph.ops) for value in op.bottoms}
    last.update(dict.fromkeys(graph.kept, len(graph.ops)))
    regions: list[list[Op]] = []
    now: list[Op] = []
    always = {*graph.given.values(), *graph.constants} | graph.kept
    alive: set[int] = set()
    for at, op in enumerate(graph.ops):
        if (op.key is None) != (now[-1].key is None if now else op.key is None):
            regions.append(now)
            now = []
        now.append(op)
        alive |= set(op.tops)
        alive = {value for value in alive if last.get(value, -1) > at} - always
        if len(alive) <= 1:
            regions.append(now)
            now = []
    regions.append(now)
    return _chained([region for region in regions if region])


def _chained(regions: list[list[Op]]) -> list[list[Op]]:
    """Puts regions of single operations together."""
    chained: list[list[Op]] = []
    is_chain = False
    for region in regions:
        same = bool(chained) and (chained[-1][0].key is None) == (region[0].key is None)
        if len(region) == 1 and same and is_chain and len(chained[-1]) < LONGEST:
            chained[-1] += region
        else:
            chained.append(list(region))
        is_chain = len(region) == 1
    return chained


def _joined(
    graph: Graph, region: list[Op], known: dict[Any, Any], translate: Callable[[Any], Any]
) -> Op:
    made = {top for op in region for top in op.tops}
    inside = set(map(id, region))
    read_later = {v for op in graph.ops if id(op) not in inside for v in op.bottoms} | graph.kept
    bottoms = tuple(dict.fromkeys(v for op in region for v in op.bottoms if v not in made))
    tops = tuple(top for op in region for top in op.tops if top in read_later)
    places = {value: place for place, value in enumerate(bottoms)}
    for op in region:
        for top in op.tops:
            places[top] = len(places)
    parts: list[Part] = []
    params: list[Tensor] = []
    for op in region:
        span = (len(params), len(params) + len(op.params))
        params += op.params
        at = [tuple(places[v] for v in values) for values in (op.bottoms, op.tops)]
        parts.append(Part(op.call, op.key, span, at[0], at[1]))
    ends = tuple(places[top] for top in tops)
    shapes = tuple(p.shape for p in params)
    key = (tuple((p.key, p.params, p.bottoms, p.tops) for p in parts), ends, shapes)
    if key not in known:
        known[key] = _Translated(_runner(tuple(parts), ends, len(params)), translate)
    layers = tuple(layer for op in region for layer in op.layers)
    return Op(known[key], tuple(params), bottoms, tops, layers, key)


class _Translated:
    """A function that the first call translates.

    It is first reduced to torch's basic operations, so that nothing of Caffe's messages is left
    for torch.compile to follow. Backward passes of our own would be lost in this: layers with such
    have no key.
    """

    def __init__(self, run: Callable[..., list[Tensor]], translate: Callable[[Any], Any]) -> None:
        self._run = run
        self._translate = translate
        self._function: Any = None

    def __call__(self, params: Sequence[Tensor], *bottoms: Tensor) -> tuple[Tensor, ...]:
        if self._function is None:
            with torch.no_grad():
                basic = make_fx(self._run)(*params, *bottoms)
            self._function = self._translate(basic)
        return tuple(self._function(*params, *bottoms))


def _runner(
    parts: tuple[Part, ...], ends: tuple[int, ...], num_params: int
) -> Callable[..., list[Tensor]]:
    def run(*tensors: Tensor) -> list[Tensor]:
        values = dict(enumerate(tensors[num_params:]))
        for part in parts:
            given = [values[place] for place in part.bottoms]
            tops = part.call(tensors[part.params[0] : part.params[1]], *given)
            values.update(zip(part.tops, tops, strict=True))
        return [values[place] for place in ends]

    return run
