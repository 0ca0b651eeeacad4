"""Verifies new snapshots and deletes old ones."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UnreadableError
from irv2caffe.train.run_dir import checksums
from irv2caffe.train.run_dir.snapshots import Pair, force_to_disk, pair_of, pairs, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_RETRY_S = 2.0


@dataclass(frozen=True)
class KeepPolicy:
    """Which snapshots are kept.

    Attributes:
        newest: number of newest snapshots; at least one is kept.
        every: also keep one snapshot per this many iterations; None keeps only ``newest``.
        scheduled: the solver's snapshot interval, whose snapshots are all kept, or None.
        earlier: keep the snapshots that existed before this call.
    """

    newest: int
    every: float | None = None
    scheduled: int | None = None
    earlier: bool = False

    def superfluous(self, complete: Iterable[Pair]) -> list[Pair]:
        """The pairs to delete, out of the complete ones."""
        ordered = sorted(complete, key=lambda pair: pair.iteration)
        kept = {pair.iteration for pair in ordered[-max(1, self.newest) :]}
        if self.scheduled:
            kept |= {pair.iteration for pair in ordered if pair.iteration % self.scheduled == 0}
        if self.every:
            first_of: dict[int, int] = {}  # interval number to its first snapshot
            for pair in ordered:
                interval = int(pair.iteration / self.every + 1e-9)
                if interval:
                    first_of.setdefault(interval, pair.iteration)
            kept |= set(first_of.values())
        return [pair for pair in ordered if pair.iteration not in kept]


def delete(pairs_to_delete: Iterable[Pair]) -> None:
    """Deletes pairs, the state first, so that an interrupted deletion leaves no pair."""
    for pair in pairs_to_delete:
        with contextlib.suppress(OSError):  # the training goes on with the files in place
            pair.state.unlink(missing_ok=True)
            pair.model.unlink(missing_ok=True)
            pair.averaged.unlink(missing_ok=True)


class SnapshotKeeper:
    """Verifies each snapshot that the log names, then deletes older ones.

    An older snapshot is deleted only when a newer one is complete, forced to the disk, and known to
    be healthy: a divergence shows in the loss after the snapshot, whose weights are still finite.

    Attributes:
        folder: the snapshot folder.
        newest: the newest pair that is known to be complete, or None.
        last_bytes: size of the newest pair in bytes, or None.
        held: iterations of snapshots that are not deleted while they are in this set.
    """

    def __init__(
        self,
        folder: Path,
        net: Any,
        policy: KeepPolicy,
        newest: Pair | None,
        say: Callable[[str], None],
    ) -> None:
        """Starts with one verified snapshot, or none, of a run's net in a snapshot folder.

        Raises:
            UnreadableError: the folder cannot be listed.
        """
        self.folder = folder
        self._net = net
        self._policy = policy
        self._say = say
        self._pending: Pair | None = None
        self._retry_at = 0.0
        self._complete: dict[int, Pair] = {}
        self._on_disk: set[int] = set()
        # Iterations that are never deleted: requested ones, and those of earlier calls.
        self._protected = {pair.iteration for pair in pairs(folder)} if policy.earlier else set()
        self._healthy = -1
        self._pruned_to = -1
        self.held: frozenset[int] = frozenset()
        self.newest = newest
        self.last_bytes = newest.num_bytes if newest is not None else None

    def add(self, state: str, *, requested: bool = False) -> None:
        """Registers a solver state that Caffe is writing; a requested one is never deleted."""
        self._pending = pair_of(Path(state))
        self._retry_at = time.monotonic() + _RETRY_S
        if self._pending is not None and requested:
            self._protected.add(self._pending.iteration)

    @property
    def is_pending(self) -> bool:
        """Whether a snapshot waits to be verified."""
        return self._pending is not None

    def verify(self, *, complete: bool) -> bool:
        """Verifies the pending snapshot; returns whether there is a new complete pair.

        Args:
            complete: Caffe has logged a later event, so the files must be complete.
        """
        pair = self._pending
        if pair is None or not (complete or time.monotonic() >= self._retry_at):
            return False
        self._retry_at = time.monotonic() + _RETRY_S
        why = problem(pair, self._net)
        if why and not complete:
            return False
        self._pending = None
        if why:
            self._say(f"warning: a snapshot cannot be used: {why}")
            return False
        error = force_to_disk(pair)
        if error:
            self._say(f"warning: not forced to the disk, so older ones are kept: {error}")
        else:
            self._on_disk.add(pair.iteration)
        checksums.record((pair.model, pair.state))
        self.newest = pair
        self.last_bytes = pair.num_bytes
        self._complete[pair.iteration] = pair
        self._prune()
        return True

    def set_healthy(self, iteration: int) -> None:
        """Marks the snapshots up to an iteration with a healthy loss as healthy."""
        if iteration > self._healthy:
            self._healthy = iteration
            self._prune()

    def _prune(self) -> None:
        """Deletes superfluous pairs up to the newest one that is on the disk and healthy."""
        limit = max((at for at in self._on_disk if at <= self._healthy), default=-1)
        if limit <= self._pruned_to:
            return
        try:
            found = pairs(self.folder)
        except UnreadableError:
            return
        self._pruned_to = limit
        for pair in found:
            is_new = pair.iteration <= limit and pair.iteration not in self._complete
            if is_new and not problem(pair, check_finite=False):
                self._complete[pair.iteration] = pair
        older = [pair for at, pair in self._complete.items() if at <= limit]
        for pair in self._policy.superfluous(older):
            if pair.iteration not in self._protected | self.held:
                delete([pair])
                self._complete.pop(pair.iteration, None)

    def go_back(self, pair: Pair | None) -> None:
        """Forgets all pairs after this one."""
        self.newest = pair
        self._pending = None
        limit = -1 if pair is None else pair.iteration
        self._complete = {at: kept for at, kept in self._complete.items() if at <= limit}
        self._on_disk = {at for at in self._on_disk if at <= limit}
        self._protected = {at for at in self._protected if at <= limit}
        self._healthy = min(self._healthy, limit)
        self._pruned_to = min(self._pruned_to, limit)
