"""How did it end: read from the log, since Caffe exits 0 after NaN and after an interruption."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irv2caffe.log.read import Log
    from irv2caffe.log.summary import Summary


class Ending(StrEnum):
    """The ways a training ends."""

    FINISHED = "finished"
    STOPPED = "stopped"
    DIVERGED = "diverged"
    CRASHED = "crashed"


@dataclass(frozen=True)
class Verdict:
    """How a training ended, why, and what to do next; the last two may be empty."""

    ending: Ending
    why: str
    hint: str


def judge(log: Log, summary: Summary, exit_status: int, *, stop_requested: bool) -> Verdict:
    """The verdict.

    Args:
        log: of the run.
        summary: of the same log.
        exit_status: of the process; negative is the signal that ended it.
        stop_requested: whether we passed a signal on.
    """
    if stop_requested or log.stopped:
        why = "a signal asked for it"
        if exit_status != 0:
            return Verdict(Ending.STOPPED, f"{why}; Caffe was killed before its snapshot", _RESUME)
        return Verdict(Ending.STOPPED, why, _RESUME)
    if summary.diverged is not None:
        # Pooling a NaN writes outside of its blob (pooling_layer.cpp), so that Caffe often dies.
        died = "" if exit_status == 0 else f"; {_last_words(log, exit_status)}"
        return Verdict(
            Ending.DIVERGED,
            f"the loss was lost at iteration {summary.diverged:,}{died}",
            "start again with a smaller --base-lr, or with --clip-gradients",
        )
    if exit_status != 0 or not log.finished:
        return Verdict(Ending.CRASHED, _last_words(log, exit_status), _advice(log.fatal))
    return Verdict(Ending.FINISHED, "", "")


_RESUME = "irv2caffe train --resume goes on from the newest snapshot"
# A part of Caffe's last words, and the way out.
_ADVICE = (
    ("No such file or directory", "a database or file that the net names is not there"),
    ("out of memory", "build the net with a smaller --batch-size"),
    ("error == cudaSuccess", "look at the GPU with nvidia-smi"),
    ("Cannot use GPU in CPU-only Caffe", "--gpus none trains on the CPU"),
    ("bottom[0]->shape", "the net's layers do not fit together: check --crop"),
    ("Unknown layer type", "this Caffe lacks a layer of the net"),
    ("mdb_status == 0", "a database is damaged or not readable; build it again"),
)


def _advice(fatal: str) -> str:
    for words, way_out in _ADVICE:
        if words in fatal:
            return way_out
    return "the whole log is in train.log of the run folder"


def _last_words(log: Log, exit_status: int) -> str:
    if log.fatal:
        return f"Caffe gave up: {log.fatal}"
    if exit_status < 0:
        try:
            name = signal.Signals(-exit_status).name
        except ValueError:
            name = f"signal {-exit_status}"
        why = " (is memory short?)" if name == "SIGKILL" else ""
        return f"Caffe was ended by {name}{why}"
    return f"Caffe ended with {exit_status} before the training was done"
