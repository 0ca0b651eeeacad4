"""The order in which processes read records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Share:
    """The records that one of several processes reads: those with ``offset % world == rank``.

    The offset counts the records of all epochs, so that a process reads other records in each
    epoch where ``world`` does not divide their number (DataLayer::Skip in data_layer.cpp).

    Attributes:
        rank: of this process, Caffe's solver_rank.
        world: number of processes, Caffe's solver_count.
        skip: records that are left out at the start.
    """

    rank: int = 0
    world: int = 1
    skip: int = 0

    def has(self, offset: int) -> bool:
        """Whether this process reads the record at an offset."""
        return offset % self.world == self.rank


Order = Callable[[int], Sequence[int]]
"""From an epoch to a permutation of the records."""


def places(count: int, share: Share, order: Order) -> Iterator[int]:
    """The records that a process reads, without end.

    Args:
        count: number of records.
        share: of this process.
        order: of each epoch.
    """
    offset, epoch, permutation = share.rank + share.skip, -1, order(0)
    while True:
        if offset // count != epoch:
            epoch = offset // count
            permutation = order(epoch)
        yield int(permutation[offset % count])
        offset += share.world


def in_order(count: int) -> Order:
    """The order of the file, in every epoch."""
    return lambda _: range(count)


def shuffled(count: int, seed: Sequence[int]) -> Order:
    """Another random order in each epoch, the same for the same seed."""

    def order(epoch: int) -> Sequence[int]:
        rng = np.random.default_rng([*seed, epoch])
        permutation = np.arange(count, dtype=np.uint32)
        rng.shuffle(permutation)
        return permutation  # type: ignore[return-value]

    return order
