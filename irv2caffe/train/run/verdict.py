"""How did it end: read from the log, since Caffe exits 0 after NaN and after an interruption."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from irv2caffe.train.run.caffe_log import RESERVED_BYTES
from irv2caffe.train.run_dir.failure_causes import LOG, RESUME, advise, advise_exit
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from irv2caffe.train.run.tracker import StartState


STOP_ASKED = "a signal or --stop asked for it"


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
        abandoned: it was killed and does not end.
        diverged: we ended it, since the loss was lost.
        flooded: why we ended it for what it printed; empty where we did not.
        newest: iteration of the newest whole snapshot, or None.
        max_iter: where it should end.
        free_bytes: on the disk of the snapshots, or None.
        pair_bytes: that a snapshot takes, or None.
    """

    exit_status: int
    stop_requested: bool
    stalled: str
    abandoned: bool
    diverged: bool
    flooded: str
    newest: int | None
    max_iter: int
    free_bytes: int | None
    pair_bytes: int | None


def judge(now: StartState, outcome: Outcome) -> Verdict:
    """The verdict on one start, from what its log said and how the process ended."""
    is_lost = now.diverged is not None and (outcome.diverged or not outcome.stop_requested)
    # All is done and saved: whatever happened to the process after that changes nothing.
    is_whole = now.done and not is_cut_short(now) and outcome.newest == outcome.max_iter
    if outcome.abandoned and (is_lost or not is_whole):
        return _abandoned(outcome)
    if is_lost:
        return _diverged(now, outcome)
    if is_whole:
        return Verdict(Ending.FINISHED)
    if outcome.flooded:
        return _flooded(outcome)
    if outcome.stop_requested or is_cut_short(now):
        return _stopped(now, outcome)
    if outcome.stalled:
        saved = "" if outcome.newest is None else RESUME
        return Verdict(Ending.STALLED, outcome.stalled, saved or LOG, passing=True)
    if outcome.exit_status == 0 and now.done:
        return Verdict(
            Ending.CRASHED,
            f"Caffe says that it is done, and there is no whole snapshot of iteration "
            f"{outcome.max_iter:,}",
            LOG,
        )
    return _crashed(now, outcome)


def is_cut_short(now: StartState) -> bool:
    """Whether a signal kept Caffe from its last iteration, or from the test after it."""
    return now.stopped or now.interrupted


def _abandoned(outcome: Outcome) -> Verdict:
    seen = f" ({outcome.stalled})" if outcome.stalled else ""
    return Verdict(
        Ending.STALLED,
        f"Caffe was killed and does not end: it waits for a disk or a driver{seen}",
        "dmesg may say for which; where a reboot ends it, irv2caffe train --resume goes on",
    )


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


def _flooded(outcome: Outcome) -> Verdict:
    hint = "look what train.log is full of: debug_info in a prototxt, GLOG_v, another Caffe"
    saved = "" if outcome.newest is None else f"; make room, then {RESUME}"
    return Verdict(Ending.CRASHED, outcome.flooded, hint + saved)


def _stopped(now: StartState, outcome: Outcome) -> Verdict:
    why = STOP_ASKED
    hint = stopped_hint(outcome.newest)
    if not now.stopped and not now.done:
        if outcome.exit_status == -signal.SIGKILL and not now.telling:
            why += "; Caffe was killed before its snapshot"
        else:
            words, way_out, _ = _words(now, outcome)
            why += f"; there was no snapshot of it: {words}"
            hint = hint if way_out == LOG else way_out
        if outcome.newest is not None:
            why += f", the newest is of iteration {outcome.newest:,}"
        if outcome.stalled:
            why += f" ({outcome.stalled})"
    elif now.interrupted and not now.stopped:
        why += "; the last test is missing"
    return Verdict(Ending.STOPPED, why, hint)


def stopped_hint(newest: int | None) -> str:
    """What to do after a stop, when the newest whole snapshot is of this iteration."""
    return "there is no snapshot to go on from" if newest is None else RESUME


def _crashed(now: StartState, outcome: Outcome) -> Verdict:
    why, hint, passing = _words(now, outcome)
    if not passing and now.first_iteration is not None and not now.telling:
        passing = True  # it worked before
    return Verdict(Ending.CRASHED, why, hint, passing)


def _words(now: StartState, outcome: Outcome) -> tuple[str, str, bool]:
    """(why, hint, whether it may pass)."""
    pair = outcome.pair_bytes
    could_not_write = "SerializeToOstream" in now.telling or not now.telling
    is_full = (
        pair is not None
        and outcome.free_bytes is not None
        and outcome.free_bytes - RESERVED_BYTES < pair  # which has just been given back
    )
    if pair and is_full and could_not_write and outcome.exit_status != 0:
        hint = f"a snapshot takes {format_bytes(pair)}; make room, then: {RESUME}"
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
