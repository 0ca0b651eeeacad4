"""What a line of Caffe's log can say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class LogTime(NamedTuple):
    """A glog time stamp; the year stands only in newer glogs' eight-digit dates."""

    year: int | None
    month: int
    day: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Event:
    """Any line that says something; ``time`` is None where the line has no glog prefix."""

    time: LogTime | None


@dataclass(frozen=True, slots=True)
class SolverDump(Event):
    """The solver's text follows, in lines without a prefix; a process has started."""


@dataclass(frozen=True, slots=True)
class NetDump(Event):
    """A net's text follows, in lines without a prefix."""


@dataclass(frozen=True, slots=True)
class Devices(Event):
    """The GPUs that train together."""

    num_gpus: int


@dataclass(frozen=True, slots=True)
class Solving(Event):
    """The iterations begin; the name may be empty."""

    name: str


@dataclass(frozen=True, slots=True)
class Resuming(Event):
    """The run goes on from a solver state."""

    path: str


@dataclass(frozen=True, slots=True)
class Loss(Event):
    """The training loss, a mean over the last ``average_loss`` iterations."""

    iteration: int
    loss: float


@dataclass(frozen=True, slots=True)
class LearningRate(Event):
    """The learning rate of an iteration."""

    iteration: int
    lr: float


@dataclass(frozen=True, slots=True)
class TestStart(Event):
    """A test begins; its outputs follow."""

    iteration: int
    net: int


@dataclass(frozen=True, slots=True)
class Output(Event):
    """A value of an output blob: of the last batch in training, a mean over a test."""

    is_test: bool
    index: int
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Snapshot(Event):
    """A file of a snapshot is being written."""

    path: str
    is_state: bool


@dataclass(frozen=True, slots=True)
class StoppedEarly(Event):
    """A signal ended the training; Caffe exits 0 all the same."""


@dataclass(frozen=True, slots=True)
class Done(Event):
    """The training ended, by itself or after ``StoppedEarly``."""


@dataclass(frozen=True, slots=True)
class Fatal(Event):
    """Caffe gave up."""

    message: str
