"""Events: the parsed contents of single lines of a Caffe log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class LogTime(NamedTuple):
    """A glog time stamp; only the eight-digit dates of newer glogs have a year."""

    year: int | None
    month: int
    day: int
    microseconds: int


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; both fields are None where the line has no glog prefix."""

    time: LogTime | None
    thread: int | None


@dataclass(frozen=True, slots=True)
class FileHeader(Event):
    """The first line of a file that glog wrote itself."""

    year: int
    month: int


@dataclass(frozen=True, slots=True)
class SolverDump(Event):
    """A process has started; its solver prototxt follows, in lines without a prefix."""


@dataclass(frozen=True, slots=True)
class NetDump(Event):
    """A net prototxt follows, in lines without a prefix."""


@dataclass(frozen=True, slots=True)
class Devices(Event):
    """The GPUs used for training; empty for the CPU."""

    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Processes(Event):
    """The processes of the torch engine that train together, on all machines."""

    num_processes: int


@dataclass(frozen=True, slots=True)
class DeviceName(Event):
    """The model name of a GPU."""

    gpu: int
    name: str


@dataclass(frozen=True, slots=True)
class DataShape(Event):
    """The batch size of a data layer, for logs without printed nets."""

    batch: int


@dataclass(frozen=True, slots=True)
class Fork(Event):
    """A line that only a certain fork prints."""

    name: str


@dataclass(frozen=True, slots=True)
class Solving(Event):
    """The iterations begin; the name of the net may be empty."""

    name: str


@dataclass(frozen=True, slots=True)
class Resuming(Event):
    """The run resumes from a solver state."""

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
    net: int = 0


@dataclass(frozen=True, slots=True)
class Output(Event):
    """A value of an output blob: of the last batch in training, the mean over a test.

    ``weight`` is the loss weight, which only losses have.
    """

    is_test: bool
    index: int
    name: str
    value: float
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Score(Event):
    """A score of a test that a script ran after an iteration."""

    iteration: int
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Clip(Event):
    """Gradients were scaled down; newer versions print this for every GPU."""

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
    """A signal ended a test; after the last iteration Caffe prints nothing else."""


@dataclass(frozen=True, slots=True)
class Done(Event):
    """The training ended, at its last iteration or after ``StoppedEarly``."""


@dataclass(frozen=True, slots=True)
class Waiting(Event):
    """A batch was not ready: of Caffe the first time and every 1,000th; the engine says how long.

    Attributes:
        waited_s: seconds since the last display; None where Caffe printed it.
    """

    waited_s: float | None = None


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """A warning, or an error after which Caffe went on."""

    message: str


@dataclass(frozen=True, slots=True)
class Fatal(Event):
    """A fatal error."""

    message: str


@dataclass(frozen=True, slots=True)
class Killed(Event):
    """A signal ended the process; ``signal`` is its name."""

    signal: str
