"""Looks after the snapshots while they are written: verified, on the disk, and not too many."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UnreadableError
from irv2caffe.train.run_dir import checksums
from irv2caffe.train.run_dir.retention import Keep, prune
from irv2caffe.train.run_dir.snapshots import Pair, keep_on_disk, pair_of, pairs, problem

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_AGAIN_S = 2.0


class Keeper:
    """Verifies each snapshot that the log tells of, then prunes older ones.

    Older ones go only when a newer one is whole, on the disk itself, and of a healthy net: a
    number that is lost shows in the loss after the snapshot, whose weights are still numbers.

    Attributes:
        newest: the newest pair that is known to be whole.
        last_bytes: size of the newest pair, or None.
    """

    def __init__(
        self, folder: Path, net: Any, keep: Keep, newest: Pair | None, say: Callable[[str], None]
    ) -> None:
        """Nothing is verified yet.

        Args:
            folder: of the snapshots.
            net: the NetParameter of the run.
            keep: which stay.
            newest: a pair that is known to be whole.
            say: called with lines for a person.

        Raises:
            UnreadableError: the folder cannot be looked into.
        """
        self._folder = folder
        self._net = net
        self._keep = keep
        self._say = say
        self._pending: Pair | None = None
        self._next_look = 0.0
        self._whole: dict[int, Pair] = {}
        self._on_disk: set[int] = set()
        # Never pruned: what somebody asked for, and what an earlier call was told to keep.
        self._stay = {pair.iteration for pair in pairs(folder)} if keep.earlier else set()
        self._healthy = -1
        self._pruned_to = -1
        self.newest = newest
        self.last_bytes = newest.num_bytes if newest is not None else None

    def written(self, state: str, *, requested: bool = False) -> None:
        """The log says that a solver state is being written; somebody may have asked for it."""
        self._pending = pair_of(Path(state))
        self._next_look = time.monotonic() + _LOOK_AGAIN_S
        if self._pending is not None and requested:
            self._stay.add(self._pending.iteration)

    @property
    def is_pending(self) -> bool:
        """Whether a snapshot waits to be verified."""
        return self._pending is not None

    def look(self, *, complete: bool) -> bool:
        """Verifies what was written; whether there is a new whole pair.

        Args:
            complete: something was logged since, so that the files must be whole now.
        """
        pair = self._pending
        if pair is None or not (complete or time.monotonic() >= self._next_look):
            return False
        self._next_look = time.monotonic() + _LOOK_AGAIN_S
        why = problem(pair, self._net)
        if why and not complete:
            return False
        self._pending = None
        if why:
            self._say(f"warning: a snapshot cannot be used: {why}")
            return False
        trouble = keep_on_disk(pair)
        if trouble:
            self._say(f"warning: not forced to the disk, so that older ones stay: {trouble}")
        else:
            self._on_disk.add(pair.iteration)
        checksums.record((pair.model, pair.state))
        self.newest = pair
        self.last_bytes = pair.num_bytes
        self._whole[pair.iteration] = pair
        self._prune()
        return True

    def healthy(self, iteration: int) -> None:
        """The loss was healthy at an iteration, and so were the snapshots up to it."""
        if iteration > self._healthy:
            self._healthy = iteration
            self._prune()

    def _prune(self) -> None:
        """What is older than the newest pair that is on the disk and known to be healthy."""
        limit = max((at for at in self._on_disk if at <= self._healthy), default=-1)
        if limit <= self._pruned_to:
            return
        try:
            there = pairs(self._folder)
        except UnreadableError:
            return
        self._pruned_to = limit
        for pair in there:
            is_new = pair.iteration <= limit and pair.iteration not in self._whole
            if is_new and not problem(pair, check_finite=False):
                self._whole[pair.iteration] = pair
        older = [pair for at, pair in self._whole.items() if at <= limit]
        superfluous = [
            pair for pair in self._keep.superfluous(older) if pair.iteration not in self._stay
        ]
        prune(superfluous)
        for pair in superfluous:
            self._whole.pop(pair.iteration, None)

    def go_back(self, pair: Pair | None) -> None:
        """Later pairs do not count any more, nor what was known of them."""
        self.newest = pair
        self._pending = None
        limit = -1 if pair is None else pair.iteration
        self._whole = {at: pair for at, pair in self._whole.items() if at <= limit}
        self._on_disk = {at for at in self._on_disk if at <= limit}
        self._stay = {at for at in self._stay if at <= limit}
        self._healthy = min(self._healthy, limit)
        self._pruned_to = min(self._pruned_to, limit)
