"""Which snapshots stay, and how the others go."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from irv2caffe.train.run_dir.snapshots import Pair


@dataclass(frozen=True)
class Keep:
    """Which snapshots stay.

    Attributes:
        newest: so many; at least one.
        every: iterations between two that stay for good; None keeps none but the newest.
        scheduled: the solver's own snapshot interval whose snapshots all stay, or None.
        earlier: those stay that were there before this call.
    """

    newest: int
    every: float | None = None
    scheduled: int | None = None
    earlier: bool = False

    def superfluous(self, whole: Iterable[Pair]) -> list[Pair]:
        """The pairs that can go, of those that are whole."""
        ordered = sorted(whole, key=lambda pair: pair.iteration)
        stay = {pair.iteration for pair in ordered[-max(1, self.newest) :]}
        if self.scheduled:
            stay |= {pair.iteration for pair in ordered if pair.iteration % self.scheduled == 0}
        if self.every:
            # Of every stretch the first pair at or after its mark.
            marks: dict[int, int] = {}
            for pair in ordered:
                stretch = int(pair.iteration / self.every + 1e-9)
                if stretch:
                    marks.setdefault(stretch, pair.iteration)
            stay |= set(marks.values())
        return [pair for pair in ordered if pair.iteration not in stay]


def prune(pairs_to_go: Iterable[Pair]) -> None:
    """Deletes pairs, the state first: what is left of an interrupted deletion is no pair."""
    for pair in pairs_to_go:
        with contextlib.suppress(OSError):  # what cannot be deleted stays; the training goes on
            pair.state.unlink(missing_ok=True)
            pair.model.unlink(missing_ok=True)
