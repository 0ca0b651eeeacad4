"""Lays out a small graph in rows, so that edges lead down and chains are straight."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SWEEPS = 60


@dataclass(frozen=True)
class Layout:
    """The positions of nodes and edges.

    Attributes:
        rows: the row of each node, from 0.
        centers: the horizontal centre of each node; the leftmost edge of the graph is 0.
        edges: for each edge (from, to), its horizontal position in each row it crosses.
        width: of the whole graph.
    """

    rows: list[int]
    centers: list[float]
    edges: dict[tuple[int, int], list[float]]
    width: float


def lay_out(widths: Sequence[float], edges: Sequence[tuple[int, int]], gap: float) -> Layout:
    """Lays out a graph whose nodes come in topological order.

    Args:
        widths: of the nodes; 0 for a point.
        edges: (from, to), with from < to.
        gap: between neighbours in a row.
    """
    rows = [0] * len(widths)
    for a, b in sorted(edges, key=lambda edge: edge[1]):
        rows[b] = max(rows[b], rows[a] + 1)
    graph = _Graph(list(widths), list(rows))
    chains = {edge: graph.chain(*edge) for edge in dict.fromkeys(edges)}
    order = graph.ordered()
    centers = graph.centered(order, gap)
    left = min((x - w / 2 for x, w in zip(centers, graph.widths, strict=True)), default=0.0)
    centers = [x - left for x in centers]
    right = max((x + w / 2 for x, w in zip(centers, graph.widths, strict=True)), default=0.0)
    paths = {edge: [centers[node] for node in chain] for edge, chain in chains.items()}
    return Layout(rows, centers[: len(widths)], paths, right)


class _Graph:
    """A graph whose edges are chains with a point in each row that they cross."""

    def __init__(self, widths: list[float], rows: list[int]) -> None:
        self.widths = widths
        self.rows = rows
        self.above: list[list[int]] = [[] for _ in widths]
        self.below: list[list[int]] = [[] for _ in widths]

    def chain(self, a: int, b: int) -> list[int]:
        """Adds an edge; returns its chain of nodes and points."""
        chain = [a]
        for row in range(self.rows[a] + 1, self.rows[b]):
            self.widths.append(0.0)
            self.rows.append(row)
            self.above.append([])
            self.below.append([])
            chain.append(len(self.widths) - 1)
        chain.append(b)
        for upper, lower in itertools.pairwise(chain):
            self.below[upper].append(lower)
            self.above[lower].append(upper)
        return chain

    def ordered(self) -> list[list[int]]:
        """The nodes of each row from left to right, sorted to have few crossings.

        Each row is sorted by the mean position of the neighbours in the row above or below, in
        turns.
        """
        rows: list[list[int]] = [[] for _ in range(max(self.rows, default=-1) + 1)]
        seen: set[int] = set()
        for node in range(len(self.rows)):
            if not self.above[node]:
                self._visit(node, rows, seen)
        place = {node: at for row in rows for at, node in enumerate(row)}
        for sweep in range(4):
            near = self.above if sweep % 2 == 0 else self.below
            for row in rows if sweep % 2 == 0 else reversed(rows):
                means = {}
                for node in row:
                    places = [place[other] for other in near[node]] or [place[node]]
                    means[node] = (sum(places) / len(places), place[node])
                row.sort(key=means.__getitem__)
                place.update({node: at for at, node in enumerate(row)})
        return rows

    def _visit(self, start: int, rows: list[list[int]], seen: set[int]) -> None:
        waiting = [start]
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            rows[self.rows[node]].append(node)
            waiting += reversed(self.below[node])

    def centered(self, rows: Sequence[Sequence[int]], gap: float) -> list[float]:
        """A position for each node: chains are straight, forks and joins centred."""
        chains, chain_of = self._chains()
        apart: dict[tuple[int, int], float] = {}
        for row in rows:
            for a, b in itertools.pairwise(row):
                pair = chain_of[a], chain_of[b]
                distance = (self.widths[a] + self.widths[b]) / 2 + gap
                apart[pair] = max(apart.get(pair, 0.0), distance)
        places = _leftmost(len(chains), apart)
        near = [
            [chain_of[n] for n in (*self.above[chain[0]], *self.below[chain[-1]])]
            for chain in chains
        ]
        lefts: list[list[tuple[int, float]]] = [[] for _ in chains]
        rights: list[list[tuple[int, float]]] = [[] for _ in chains]
        for (a, b), distance in apart.items():
            lefts[b].append((a, distance))
            rights[a].append((b, distance))
        by_place = sorted(range(len(chains)), key=places.__getitem__)
        for sweep in range(_SWEEPS):
            for chain in reversed(by_place) if sweep % 2 == 0 else by_place:
                if not near[chain]:
                    continue
                mean = sum(places[other] for other in near[chain]) / len(near[chain])
                low = max((places[a] + d for a, d in lefts[chain]), default=-math.inf)
                high = min((places[b] - d for b, d in rights[chain]), default=math.inf)
                places[chain] = max(low, min(high, mean))
        return [places[chain_of[node]] for node in range(len(self.widths))]

    def _chains(self) -> tuple[list[list[int]], dict[int, int]]:
        """The chains: sequences of nodes without branches."""
        chains: list[list[int]] = []
        chain_of: dict[int, int] = {}
        for node in sorted(range(len(self.rows)), key=self.rows.__getitem__):
            above = self.above[node]
            if len(above) == 1 and len(self.below[above[0]]) == 1:
                chain_of[node] = chain_of[above[0]]
                chains[chain_of[node]].append(node)
            else:
                chain_of[node] = len(chains)
                chains.append([node])
        return chains, chain_of


def _leftmost(number: int, apart: Mapping[tuple[int, int], float]) -> list[float]:
    """The smallest positions that keep all distances; cycles from crossings are ignored."""
    places = [0.0] * number
    for _ in range(number):
        moved = False
        for (a, b), distance in apart.items():
            if (b, a) not in apart and places[b] < places[a] + distance - 1e-6:
                places[b] = places[a] + distance
                moved = True
        if not moved:
            break
    return places
