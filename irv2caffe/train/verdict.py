"""How did it end: read from the log, since Caffe exits 0 after NaN and after an interruption."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from irv2caffe.train.advice import LOG, RESUME, advise, advise_exit
from irv2caffe.train.plan_text import size
from irv2caffe.train.raw_log import RESERVED_BYTES

if TYPE_CHECKING:
    from irv2caffe.train.tracker import StartState


class Ending(StrEnum):
    """The ways a training ends."""

    FINISHED = "finished"
    STOPPED = "stopped"
    DIVERGED = "diverged"
    CRASHED = "crashed"
    STALLED = "stalled"


@dataclass(frozen=True)
class Verdict:
    """How a training, or one start of it, ended.

    Attributes:
        ending: in a word.
        why: in a sentence; empty where it finished.
        hint: what to do next; may be empty.
        passing: the same start may well succeed when it is tried again.
    """

    ending: Ending
    why: str = ""
    hint: str = ""
    passing: bool = False


@dataclass(frozen=True)
class Outcome:
    """What is known when Caffe has ended.

    Attributes:
        exit_status: of the process; negative is the signal that ended it.
        stop_requested: a signal was passed on, or ``--stop`` asked for it.
        stalled: what was seen when it was killed for its silence; empty where it was not.
        diverged: we ended it, since the loss was lost.
        newest: iteration of the newest whole snapshot, or None.
        max_iter: where it should end.
        free_bytes: on the disk of the snapshots.
        pair_bytes: that a snapshot takes, or None.
    """

    exit_status: int
    stop_requested: bool
    stalled: str
    diverged: bool
    newest: int | None
    max_iter: int
    free_bytes: int
    pair_bytes: int | None


def judge(now: StartState, outcome: Outcome) -> Verdict:
    """The verdict on one start, from what its log said and how the process ended."""
    if now.diverged is not None and (outcome.diverged or not outcome.stop_requested):
        return _diverged(now, outcome)
    if outcome.stalled:
        saved = "" if outcome.newest is None else RESUME
        return Verdict(Ending.STALLED, outcome.stalled, saved or LOG, passing=True)
    if outcome.stop_requested or now.stopped:
        return _stopped(now, outcome)
    if outcome.exit_status == 0 and now.done:
        if outcome.newest == outcome.max_iter:
            return Verdict(Ending.FINISHED)
        return Verdict(
            Ending.CRASHED,
            f"Caffe says that it is done, and there is no whole snapshot of iteration "
            f"{outcome.max_iter:,}",
            LOG,
        )
    return _crashed(now, outcome)


def _diverged(now: StartState, outcome: Outcome) -> Verdict:
    # Pooling a NaN writes outside of its blob (pooling_layer.cpp), so that Caffe often dies.
    died = ""
    if not outcome.diverged and outcome.exit_status != 0:
        died = f"; then {_words(now, outcome)[0]}"
    return Verdict(
        Ending.DIVERGED,
        f"the loss was lost at iteration {now.diverged:,}: {now.diverged_how}{died}",
        "start again with a smaller --base-lr, or with --clip-gradients; --on-divergence rollback "
        "goes back to the last good snapshot by itself",
    )


def _stopped(now: StartState, outcome: Outcome) -> Verdict:
    why = "a signal or --stop asked for it"
    if not now.stopped and not now.done:
        why += "; Caffe was killed before its snapshot"
        if outcome.newest is not None:
            why += f", the newest is of iteration {outcome.newest:,}"
    hint = "there is no snapshot to go on from" if outcome.newest is None else RESUME
    return Verdict(Ending.STOPPED, why, hint)


def _crashed(now: StartState, outcome: Outcome) -> Verdict:
    why, hint, passing = _words(now, outcome)
    if not passing and now.first_iteration is not None and not now.telling:
        passing = True  # it worked before
    return Verdict(Ending.CRASHED, why, hint, passing)


def _words(now: StartState, outcome: Outcome) -> tuple[str, str, bool]:
    """(why, hint, whether it may pass)."""
    pair = outcome.pair_bytes
    could_not_write = "SerializeToOstream" in now.telling or not now.telling
    room = outcome.free_bytes - RESERVED_BYTES  # which has just been given back
    if pair and could_not_write and outcome.exit_status != 0 and room < pair:
        hint = f"a snapshot takes {size(pair)}; make room, then: {RESUME}"
        return "the disk is full: a snapshot could not be written", hint, False
    if now.telling:
        known = advise(now.telling)
        if known is not None:
            return f"{known.why} (Caffe: {_short(now.telling)})", known.hint, known.passing
        # Words that nobody knows: a fault of the net or solver shows before the first iteration.
        return f"Caffe gave up: {_short(now.telling)}", LOG, now.first_iteration is not None
    advice = advise_exit(outcome.exit_status)
    return advice.why, advice.hint, advice.passing


def _short(words: str) -> str:
    return words if len(words) <= 200 else words[:197] + "..."
