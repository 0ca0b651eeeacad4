"""BestTests: follows the tests of a run, and keeps a snapshot of the best one.

A snapshot of the iteration that was tested holds exactly the tested weights; at max_iter only but
for BatchNorm's running statistics, which the forward pass of the last display moves between the
snapshot and the test (solver.cpp, Solve()). Where there is none, one is requested, which Caffe
writes after its next iteration, one or a few after the test. It becomes the best snapshot when a
later display shows that the loss is still healthy; until then the one before stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.errors import InputError, OutputError
from irv2caffe.train.run_dir.best import detach, repair, save_best, source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.train.plan.criterion import Criterion
    from irv2caffe.train.run.tracker import Row
    from irv2caffe.train.run_dir.best import BestSnapshot
    from irv2caffe.train.run_dir.retention import SnapshotKeeper
    from irv2caffe.train.run_dir.snapshots import Pair


@dataclass
class _Found:
    """A test that is the best so far, and the snapshot of its weights once there is one."""

    test: Row
    metric: str
    value: float
    snapshot: Pair | None = None
    is_requested: bool = False


class BestTests:
    """Follows the tests of a run, and keeps a snapshot of the best one.

    Attributes:
        best: the best snapshot, or None.
    """

    def __init__(
        self,
        keeper: SnapshotKeeper,
        criterion: Criterion | None,
        say: Callable[[str], None],
        *,
        on_request: bool = True,
    ) -> None:
        """Starts with the best snapshot of earlier starts.

        Args:
            keeper: of the run's snapshots.
            criterion: what is best; None keeps no best snapshot.
            say: called with messages for the user.
            on_request: the engine writes snapshots on request.
        """
        self._keeper = keeper
        self._criterion = criterion
        self._say = say
        self._on_request = on_request
        # Each is better than the one before; the last one may still wait for its snapshot.
        self._found: list[_Found] = []
        self._has_missed = False
        self.best: BestSnapshot | None = None
        try:
            self.best = repair(keeper.folder)
        except OutputError as error:
            say(f"warning: {error.message}")
        self._value = self._value_of_best()
        self._hold()

    def _value_of_best(self) -> float | None:
        """The value of the best snapshot's test, also where it was another that made it best."""
        if self.best is None or self._criterion is None:
            return None
        found = self._criterion.value(self.best.test)
        return None if found is None else found[1]

    def start(self, first: int) -> None:
        """Prepares a start of Caffe at an iteration."""
        self._found, self._value = [], self._value_of_best()
        if self.best is not None:
            try:
                detach(self.best, first)
            except OutputError as error:
                self._say(f"warning: the best snapshot may be written over: {error.message}")

    def take_test(self, test: Row) -> None:
        """Takes a test of the first test net without a sign of divergence."""
        if self._criterion is None or not test["iteration"]:
            return
        found = self._criterion.value(test)
        if found is None:
            return
        if self._found and self._found[-1].snapshot is None:
            self._miss(self._found.pop(), found[1])
        if self._value is not None and not self._criterion.is_better(found[1], self._value):
            return
        self._found.append(_Found(test, *found))
        self._value = found[1]
        newest = self._keeper.newest
        if newest is not None and newest.iteration == test["iteration"]:
            self.take_snapshot(newest)

    def _miss(self, missed: _Found, value: float) -> None:
        """Gives a test up whose snapshot was not written before the next one, of this value."""
        assert self._criterion is not None
        self._value = self._found[-1].value if self._found else self._value_of_best()
        if not self._criterion.is_better(value, missed.value) and not self._has_missed:
            self._has_missed = True
            self._say(
                f"the best test so far was at iteration {missed.test['iteration']:,}; no snapshot "
                "was written before the next test"
            )

    def take_request(self) -> bool:
        """Whether a snapshot is to be requested now; True once for each test."""
        last = self._found[-1] if self._found else None
        if last is None or last.snapshot is not None or last.is_requested:
            return False
        last.is_requested = True
        return self._on_request

    def take_snapshot(self, pair: Pair | None) -> None:
        """Takes a verified snapshot."""
        last = self._found[-1] if self._found else None
        if last is None or pair is None or last.snapshot is not None:
            return
        if pair.iteration >= last.test["iteration"]:
            last.snapshot = pair
            self._hold()

    def set_healthy(self, iteration: int) -> None:
        """Makes the best snapshot that is known to be healthy the best one.

        Args:
            iteration: of the last display with a healthy loss.
        """
        healthy = [
            place
            for place, found in enumerate(self._found)
            if found.snapshot is not None and found.snapshot.iteration <= iteration
        ]
        if healthy:
            self._save(self._found[healthy[-1]])
            del self._found[: healthy[-1] + 1]
            if not self._found:
                self._value = self._value_of_best()
            self._hold()

    def _save(self, found: _Found) -> None:
        assert self._criterion is not None
        assert found.snapshot is not None
        try:
            self.best = save_best(
                found.snapshot, found.test, found.metric, found.value, self._criterion.better
            )
        except (InputError, OutputError) as error:
            self._say(f"warning: the best snapshot cannot be kept: {error.message}")

    def end(self, *, diverged: bool) -> None:
        """Takes the end of a start: without divergence, what was found is healthy."""
        newest = self._keeper.newest
        if not diverged and newest is not None:
            self.set_healthy(newest.iteration)
        self._found, self._value = [], self._value_of_best()
        self._hold()

    def _hold(self) -> None:
        """Keeps the snapshots of the best test, and of better ones that were found."""
        pairs = [found.snapshot for found in self._found]
        pairs += [source_of(self.best)] if self.best is not None else []
        self._keeper.held = frozenset(pair.iteration for pair in pairs if pair is not None)
