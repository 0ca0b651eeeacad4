"""Judges how a start ended, from the log: Caffe exits 0 after NaN and after an interruption."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from irv2caffe.train.run.caffe_log import RESERVED_BYTES
from irv2caffe.train.run_dir.failure_causes import (
    LOG,
    RESUME,
    FailureCause,
    cause_of,
    cause_of_exit,
)
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from irv2caffe.train.run.tracker import StartState


_QUOTED_CHARS = 200
STOP_ASKED = "requested by a signal or --stop"


class Ending(StrEnum):
    """How a training ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    DIVERGED = "diverged"
    CRASHED = "crashed"
    STALLED = "stalled"


@dataclass(frozen=True)
class Verdict:
    """How a training, or one start of it, ended.

    Attributes:
        ending: the kind of end.
        why: the reason, as a sentence; empty if it finished.
        hint: what to do next; may be empty.
        retryable: the same start may succeed when it is tried again.
    """

    ending: Ending
    why: str = ""
    hint: str = ""
    retryable: bool = False


@dataclass(frozen=True)
class Outcome:
    """Facts about the end of what trained that are not in its log.

    Attributes:
        exit_status: exit status of the process; negative for a signal.
        stop_requested: a signal or ``--stop`` asked to stop.
        stalled: a description if it was killed for a stall, or empty.
        abandoned: it was killed, and does not end.
        diverged: it was killed because the training diverged.
        flooded: a description if it was stopped for the size of its log, or empty.
        newest: iteration of the newest complete snapshot, or None.
        max_iter: the last iteration.
        free_bytes: free space on the disk of the snapshots, or None.
        pair_bytes: size of a snapshot, or None.
        trainer: what trained, for messages.
        saves: snapshots are written on this machine.
        on_stall: what to try if it stalls again, or empty.
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
    trainer: str = "Caffe"
    saves: bool = True
    on_stall: str = ""


def judge(now: StartState, outcome: Outcome) -> Verdict:
    """The verdict on one start, from its log and the end of its process."""
    has_diverged = now.diverged is not None and (outcome.diverged or not outcome.stop_requested)
    # The training is done and saved, however the process ends afterwards.
    is_saved = outcome.newest == outcome.max_iter or not outcome.saves
    is_complete = now.done and not is_cut_short(now) and is_saved
    if outcome.abandoned and (has_diverged or not is_complete):
        return _abandoned(outcome)
    if has_diverged:
        return _diverged(now, outcome)
    if is_complete:
        return Verdict(Ending.FINISHED)
    if outcome.flooded:
        return _flooded(outcome)
    if outcome.stop_requested or is_cut_short(now):
        return _stopped(now, outcome)
    if outcome.stalled:
        saved = "" if outcome.newest is None else RESUME
        hint = "; ".join(filter(None, (saved or LOG, outcome.on_stall)))
        return Verdict(Ending.STALLED, outcome.stalled, hint, retryable=True)
    if outcome.exit_status == 0 and now.done:
        return Verdict(
            Ending.CRASHED,
            f"{outcome.trainer} logged that it is done, but there is no complete snapshot of "
            f"iteration {outcome.max_iter:,}",
            LOG,
        )
    return _crashed(now, outcome)


def is_cut_short(now: StartState) -> bool:
    """Whether a signal stopped Caffe before its last iteration or the last test."""
    return now.stopped or now.interrupted


def _abandoned(outcome: Outcome) -> Verdict:
    seen = f" ({outcome.stalled})" if outcome.stalled else ""
    return Verdict(
        Ending.STALLED,
        f"{outcome.trainer} was killed and does not end: it waits for a disk or a driver{seen}",
        "dmesg may show which; after a reboot, continue with irv2caffe train --resume",
    )


def _diverged(now: StartState, outcome: Outcome) -> Verdict:
    # Pooling a NaN writes outside of its blob (pooling_layer.cpp), so that Caffe often dies.
    died = ""
    if not outcome.diverged and outcome.exit_status != 0:
        died = f"; then {_cause(now, outcome).why}"
    return Verdict(
        Ending.DIVERGED,
        f"the loss diverged at iteration {now.diverged:,}: {now.diverged_how}{died}",
        "start again with a smaller --base-lr, or with --clip-gradients; --on-divergence rollback "
        "returns to the last good snapshot automatically",
    )


def _flooded(outcome: Outcome) -> Verdict:
    hint = (
        "look at the end of train.log; causes are debug_info in a prototxt, GLOG_v, another Caffe"
    )
    saved = "" if outcome.newest is None else f"; free some space, then {RESUME}"
    return Verdict(Ending.CRASHED, outcome.flooded, hint + saved)


def _stopped(now: StartState, outcome: Outcome) -> Verdict:
    why = STOP_ASKED
    hint = stopped_hint(outcome.newest)
    if not now.stopped and not now.done:
        if outcome.exit_status == -signal.SIGKILL and not now.failure_text:
            why += f"; {outcome.trainer} was killed before its snapshot"
        else:
            cause = _cause(now, outcome)
            why += f"; no snapshot was written: {cause.why}"
            hint = hint if cause.hint == LOG else cause.hint
        if outcome.newest is not None:
            why += f", the newest is of iteration {outcome.newest:,}"
        if outcome.stalled:
            why += f" ({outcome.stalled})"
    elif now.interrupted and not now.stopped:
        why += "; the last test is missing"
    return Verdict(Ending.STOPPED, why, hint)


def stopped_hint(newest: int | None) -> str:
    """The hint after a stop, given the iteration of the newest complete snapshot."""
    return "there is no snapshot to continue from" if newest is None else RESUME


def _crashed(now: StartState, outcome: Outcome) -> Verdict:
    cause = _cause(now, outcome)
    has_worked = now.first_iteration is not None and not now.failure_text
    return Verdict(Ending.CRASHED, cause.why, cause.hint, cause.retryable or has_worked)


def _cause(now: StartState, outcome: Outcome) -> FailureCause:
    """Why Caffe failed, from its last messages, its exit status and the state of the disk."""
    pair = outcome.pair_bytes
    could_not_write = "SerializeToOstream" in now.failure_text or not now.failure_text
    is_full = (
        pair is not None
        and outcome.free_bytes is not None
        and outcome.free_bytes - RESERVED_BYTES < pair  # RESERVED_BYTES: freed by the log
    )
    if pair and is_full and could_not_write and outcome.exit_status != 0:
        hint = f"a snapshot takes {format_bytes(pair)}; free some space, then: {RESUME}"
        return FailureCause("the disk is full: a snapshot could not be written", hint)
    if now.failure_text:
        text = now.failure_text
        quoted = text if len(text) <= _QUOTED_CHARS else f"{text[: _QUOTED_CHARS - 3]}..."
        known = cause_of(now.failure_text)
        if known is not None and known.why in text:  # the engine's own error
            return known
        if known is not None:
            return replace(known, why=f"{known.why} ({outcome.trainer}: {quoted})")
        # Unknown message: errors in net and solver, which a retry repeats, precede iteration 1.
        return FailureCause(
            f"{outcome.trainer} gave up: {quoted}", LOG, now.first_iteration is not None
        )
    return cause_of_exit(outcome.exit_status, outcome.trainer)
