"""Looks after the snapshots while they are written: verified, on the disk, and not too many."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.train.snapshots import Keep, Pair, keep_on_disk, pair_of, pairs, problem, prune

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_AGAIN_S = 2.0


class Keeper:
    """Verifies each snapshot that the log tells of, then prunes older ones.

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
        """
        self._folder = folder
        self._net = net
        self._keep = keep
        self._say = say
        self._pending: Pair | None = None
        self._next_look = 0.0
        self._whole: dict[int, Pair] = {}
        self.newest = newest
        self.last_bytes = newest.num_bytes if newest is not None else None

    def written(self, state: str) -> None:
        """The log says that a solver state is being written."""
        self._pending = pair_of(Path(state))
        self._next_look = time.monotonic() + _LOOK_AGAIN_S

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
        keep_on_disk(pair)
        self.newest = pair
        self.last_bytes = pair.num_bytes
        self._whole[pair.iteration] = pair
        self._prune(pair)
        return True

    def _prune(self, newest: Pair) -> None:
        """Only what is older than a pair that was just verified."""
        for pair in pairs(self._folder):
            is_new = pair.iteration <= newest.iteration and pair.iteration not in self._whole
            if is_new and not problem(pair, check_finite=False):
                self._whole[pair.iteration] = pair
        older = [pair for at, pair in self._whole.items() if at <= newest.iteration]
        superfluous = self._keep.superfluous(older)
        prune(superfluous)
        for pair in superfluous:
            self._whole.pop(pair.iteration, None)

    def go_back(self, pair: Pair | None) -> None:
        """A rollback: later pairs do not count any more."""
        self.newest = pair
        self._pending = None
        limit = -1 if pair is None else pair.iteration
        self._whole = {at: pair for at, pair in self._whole.items() if at <= limit}
