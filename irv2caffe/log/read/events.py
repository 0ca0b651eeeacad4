"""What a line of Caffe's log can say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class LogTime(NamedTuple):
    """A glog time stamp; the year stands only in newer glogs' eight-digit dates."""

    year: int | None
    month: int
    day: int
    microseconds: int


@dataclass(frozen=True, slots=True)
class Event:
    """Any line that says something; both are None where the line has no glog prefix."""

    time: LogTime | None
    thread: int | None


@dataclass(frozen=True, slots=True)
class FileHeader(Event):
    """The first line of a file that glog wrote itself; it knows the year."""

    year: int
    month: int


@dataclass(frozen=True, slots=True)
class SolverDump(Event):
    """The solver's text follows, in lines without a prefix; a process has started."""


@dataclass(frozen=True, slots=True)
class NetDump(Event):
    """A net's text follows, in lines without a prefix."""


@dataclass(frozen=True, slots=True)
class Devices(Event):
    """The GPUs that train together; none for the CPU."""

    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeviceName(Event):
    """What a GPU is called."""

    gpu: int
    name: str


@dataclass(frozen=True, slots=True)
class DataShape(Event):
    """The shape of a data layer's batches; where no net is printed, the batch size is here."""

    batch: int


@dataclass(frozen=True, slots=True)
class Fork(Event):
    """A line that only this fork prints."""

    name: str


@dataclass(frozen=True, slots=True)
class Solving(Event):
    """The iterations begin; the name may be empty."""

    name: str


@dataclass(frozen=True, slots=True)
class Resuming(Event):
    """The run goes on from a solver state."""

    path: str


@dataclass(frozen=True, slots=True)
class Finetuning(Event):
    """The run starts from the weights of a model."""

    path: str


@dataclass(frozen=True, slots=True)
class Loss(Event):
    """The training loss, a mean over the last ``average_loss`` iterations.

    ``epoch`` and ``num_epochs`` are NVCaffe's ``1.2/90ep``.
    """

    iteration: int
    loss: float
    epoch: float | None = None
    num_epochs: float | None = None


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
    """A value of an output blob: of the last batch in training, a mean over a test.

    ``weight`` is the loss weight, which stands only at losses.
    """

    is_test: bool
    index: int
    name: str
    value: float
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Score(Event):
    """A figure of a test that a script made after an iteration."""

    iteration: int
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Clip(Event):
    """Gradients were scaled down; every GPU's thread says so in newer versions."""

    norm: float
    limit: float


@dataclass(frozen=True, slots=True)
class Snapshot(Event):
    """A file of a snapshot is being written."""

    path: str
    is_state: bool


@dataclass(frozen=True, slots=True)
class StoppedEarly(Event):
    """A signal ended the training; Caffe exits 0 all the same."""


@dataclass(frozen=True, slots=True)
class TestInterrupted(Event):
    """A signal ended a test; after the last iteration Caffe says nothing else of it."""


@dataclass(frozen=True, slots=True)
class Done(Event):
    """The training ended, by itself or after ``StoppedEarly``."""


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """A warning or an error that Caffe survived."""

    message: str


@dataclass(frozen=True, slots=True)
class Fatal(Event):
    """Caffe gave up."""

    message: str


@dataclass(frozen=True, slots=True)
class Killed(Event):
    """A signal ended the process; ``signal`` is its name."""

    signal: str
