"""Log: the history of a run, read from its log."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from irv2caffe.log.read import events
from irv2caffe.log.read.columns import Series, TrainColumns
from irv2caffe.log.read.outputs import MAX_OUTPUTS

if TYPE_CHECKING:
    from datetime import datetime

    from irv2caffe.log.read.dump import NetInfo
    from irv2caffe.log.read.events import Event

_MAX_NETS = 256
_MAX_WARNINGS = 50
_MAX_GPUS = 1000
_MAX_WAIT_S = 1e9


@dataclass(slots=True)
class TestPoint:
    """One pass over a validation set.

    Attributes:
        iteration: number of updates before it.
        net: index of the test net.
        outputs: name to mean value, in the order of the log.
        seconds: working time since the start of the run.
    """

    iteration: int
    net: int
    outputs: dict[str, float]
    seconds: float | None = None


class Process(NamedTuple):
    """First iteration, batch size, iter_size and GPUs of a process; batch None if unknown."""

    start: int
    batch: int | None
    iter_size: int
    num_gpus: int


@dataclass
class Clips:
    """Iterations with gradient clipping, and the L2 norm before it."""

    iteration: array[int] = field(default_factory=lambda: array("q"))
    norm: array[float] = field(default_factory=lambda: array("d"))


@dataclass
class Log:
    """The history of a run; where processes overlap, that of the later one.

    Attributes:
        train: displays of the loss, by iteration.
        outputs: values of the training net's outputs (last batch of the first GPU), by name.
        loss_weights: of the outputs that are losses, by name.
        num_dropped: output values left out because there are too many names.
        test: tests, by iteration.
        restarts: iterations at which a further process started.
        processes: the processes whose displays and tests are kept.
        num_replaced: displays and tests that a later process repeated.
        fields: the last solver that was printed, by field name.
        solver_text: the same solver as it was printed.
        nets: the nets that were printed, the last process's.
        train_batch: batch size of the TRAIN data layer, or None.
        gpus: that trained together; empty for the CPU.
        num_processes: of the torch engine, that trained together; 0 if the log does not say.
        gpu_names: model names by number.
        fork: name of the Caffe fork, where its lines show it; empty for BVLC's.
        epochs_at: the last (iteration, epoch) that NVCaffe printed.
        weights: the model that finetuning started from.
        snapshots: models written.
        clips: gradient clipping on the first GPU.
        warnings: messages of severity W and E, and how often each appeared.
        num_waits: lines that say that a batch was not ready, without how long.
        waited_s: seconds that the torch engine says it waited for batches.
        started: date of the first line, where the year is known.
        latest: date of the last line, where the year is known.
        finished: the training ended.
        stopped: a signal ended it, with a snapshot.
        interrupted: a signal ended a test.
        killed: the name of the signal that ended it without one, or empty.
        fatal: Caffe's first fatal message, or empty.
        num_other_displays: displays of another process in the same file, not kept.
        gave_up: reading stopped after very many lines that are not from Caffe.
        num_lines: lines read.
        num_events: lines parsed as an event.
        num_other: other lines of Caffe.
        num_unknown: lines that are not from Caffe, or torn.
    """

    train: TrainColumns = field(default_factory=TrainColumns)
    outputs: dict[str, Series] = field(default_factory=dict)
    loss_weights: dict[str, float] = field(default_factory=dict)
    num_dropped: int = 0
    test: list[TestPoint] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    num_replaced: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    solver_text: str = ""
    nets: list[NetInfo] = field(default_factory=list)
    train_batch: int | None = None
    gpus: tuple[int, ...] = ()
    num_processes: int = 0
    gpu_names: dict[int, str] = field(default_factory=dict)
    fork: str = ""
    epochs_at: tuple[int, float] | None = None
    weights: str = ""
    snapshots: list[str] = field(default_factory=list)
    clips: Clips = field(default_factory=Clips)
    warnings: dict[str, int] = field(default_factory=dict)
    num_waits: int = 0
    waited_s: float = 0.0
    started: datetime | None = None
    latest: datetime | None = None
    finished: bool = False
    stopped: bool = False
    interrupted: bool = False
    killed: str = ""
    fatal: str = ""
    num_other_displays: int = 0
    gave_up: bool = False
    num_lines: int = 0
    num_events: int = 0
    num_other: int = 0
    num_unknown: int = 0

    @property
    def num_gpus(self) -> int:
        """Number of GPUs or processes that trained together; 1 for the CPU."""
        return self.num_processes or max(1, len(self.gpus))

    def images_per_iteration(self, process: Process) -> int | None:
        """The effective batch: batch_size x GPUs x iter_size.

        A log prints the batch of one GPU: BVLC's batch_size is that of each, and NVCaffe, whose
        batch_size is that of all, divides it before it prints the net (NVIDIA/caffe and
        borisgin/nvcaffe: net.cpp, Net::Init, and parallel.cpp, divide_batch_size; of nets for
        TRAIN in the older one, of all in 0.17, which rounds up instead of stopping).
        """
        if process.batch is None:
            return None
        return process.batch * process.num_gpus * process.iter_size

    def _is_name(self, name: str) -> bool:
        """Without a usable device, Caffe prints uninitialised memory in place of a name."""
        return name.isprintable() and "\ufffd" not in name and len(self.gpu_names) < _MAX_GPUS

    def record(self, event: Event) -> None:
        """Records an event that concerns the run as a whole."""
        match event:
            case events.Devices(gpus=gpus):
                self.gpus = gpus
                self.num_processes = 0
            case events.Processes(num_processes=count):
                self.num_processes = count
            case events.DeviceName(gpu=gpu, name=name) if self._is_name(name):
                self.gpu_names[gpu] = name
            case events.DataShape(batch=batch) if self.train_batch is None:
                self.train_batch = batch
            case events.Fork(name=name):
                self.fork = name
            case events.Finetuning(path=path):
                self.weights = path
            case events.Snapshot(path=path, is_state=False):
                self.snapshots.append(path)
            case events.StoppedEarly():
                self.stopped = True
            case events.TestInterrupted():
                self.interrupted = True
            case events.Done():
                self.finished = True
            case events.Warned(message=message):
                if message in self.warnings or len(self.warnings) < _MAX_WARNINGS:
                    self.warnings[message] = self.warnings.get(message, 0) + 1
            case events.Killed(signal=name):
                self.killed = name
            case events.Fatal(message=message):
                self.fatal = self.fatal or message

    def start_process(self) -> None:
        """Records the start of a process; clears how an earlier one ended."""
        self.nets = []
        self.finished = self.stopped = self.interrupted = False
        self.fatal = self.killed = ""

    def add_net(self, info: NetInfo) -> None:
        """Records a net that was printed."""
        if len(self.nets) < _MAX_NETS:
            self.nets.append(info)
        if info.batch is not None and info.phase == "TRAIN":
            self.train_batch = info.batch

    def add_wait(self, seconds: float | None) -> None:
        """Records that a batch was not ready, and for how long if the log says so."""
        if seconds is None:
            self.num_waits += 1
        elif 0 < seconds < _MAX_WAIT_S:
            self.waited_s += seconds

    def add_loss_weight(self, name: str, weight: float) -> None:
        """Records that an output is a loss; keeps its first weight."""
        if len(self.loss_weights) < MAX_OUTPUTS:
            self.loss_weights.setdefault(name, weight)

    def cut(self, iteration: int, *, keep_display: bool = False) -> None:
        """Drops the displays and tests of earlier processes from an iteration on.

        Args:
            iteration: the first to drop.
            keep_display: keep the display at that iteration itself.
        """
        self.cut_displays(iteration + keep_display)
        while self.test and self.test[-1].iteration >= iteration:
            self.test.pop()
            self.num_replaced += 1
        while self.restarts and self.restarts[-1] >= iteration:
            self.restarts.pop()
        while self.processes and self.processes[-1].start >= iteration:
            self.processes.pop()
        while self.clips.iteration and self.clips.iteration[-1] >= iteration:
            self.clips.iteration.pop()
            self.clips.norm.pop()

    def cut_displays(self, iteration: int) -> None:
        """Drops the displays from an iteration on."""
        self.num_replaced += self.train.cut(iteration)
        for series in self.outputs.values():
            series.cut(iteration)

    def forget_before(self, iteration: int) -> None:
        """Drops displays before an iteration, and all but the newest test and snapshot.

        For following a growing log, where the older ones are no longer needed.
        """
        self.train.forget_before(iteration)
        for series in self.outputs.values():
            series.forget_before(iteration)
        del self.test[:-1], self.snapshots[:-1]
        self.clips = Clips()
