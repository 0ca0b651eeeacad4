"""Worker pool: units of work in, records out in the same order.

Processes instead of threads: their allocator can be tuned for images, the messages of a decoder
belong to one image, and a crash of one does not end the build.
"""

from __future__ import annotations

import mmap
import os
import queue
import signal
import tempfile
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from irv2caffe import system
from irv2caffe.data.build.worker import IDLE, Worker, keep_freed_memory
from irv2caffe.data.records.items import Skipped
from irv2caffe.data.records.mean import UnitSums
from irv2caffe.data.records.source_identity import identify
from irv2caffe.errors import InputError, WorkerDiedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from irv2caffe.data.build.build_plan import BuildPlan, WorkUnit
    from irv2caffe.data.options import BuildOptions
    from irv2caffe.data.records.items import Source

STALL_S = 300.0
_POLL_S = 0.5
_UNKNOWN = -2
_PAGE = 4096
_MIN_SPARE_SLOTS, _MAX_SPARE_SLOTS = 4, 16
_SPARE_BYTES = 48 << 20


@dataclass
class UnitResult:
    """The records of a unit of work.

    Attributes:
        unit: the work.
        records: for each image the record, or why it was skipped. Records are valid until the
            next result is asked for.
        complaints: (name, message) of images that were stored although the decoder complained.
        sums: sums over the records.
        depth: (number, largest value) of the images of 16 bits.
    """

    unit: WorkUnit
    records: list[memoryview | Skipped]
    complaints: list[tuple[str, str]]
    sums: UnitSums
    depth: tuple[int, int]


class WorkerPool:
    """Worker processes that share memory with this process. Use it in a ``with`` block.

    The memory begins with the index of the record that each worker is working on (int64), followed
    by the slots that units of work are written to.
    """

    def __init__(
        self, source: Source, options: BuildOptions, *, num_workers: int, slot_bytes: int
    ) -> None:
        """Computes the layout of the memory, with ``slot_bytes`` per unit of work."""
        self._source = source
        self._options = options
        self._num_workers = num_workers
        self._slot_bytes = -(-slot_bytes // _PAGE) * _PAGE
        self._first_slot = -(-8 * num_workers // _PAGE) * _PAGE
        spare = min(_MAX_SPARE_SLOTS, _SPARE_BYTES // self._slot_bytes)
        self.num_slots = 2 * num_workers + max(_MIN_SPARE_SLOTS, spare)
        self._workers: list[Worker] = []
        self._answers: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self._pending: deque[tuple[WorkUnit, int]] = deque()

    def __enter__(self) -> WorkerPool:
        keep_freed_memory()
        size = self._first_slot + self.num_slots * self._slot_bytes
        with _shared_file(size) as memory:
            self._memory = mmap.mmap(memory.fileno(), size)
            self._current = np.frombuffer(self._memory, np.int64, self._num_workers)
            stores = [_open_store(store) for store in self._source.stores]
            pixels = self._source.pixels
            setup = {
                "options": asdict(self._options),
                "root": str(self._source.root.absolute()),
                "identity": asdict(identify(self._source)),
                "stores": [store.fileno() for store in stores],
                "pixels": asdict(pixels) if pixels is not None else None,
                "memory": memory.fileno(),
                "memory_bytes": size,
                "slot_bytes": self._slot_bytes,
                "first_slot": self._first_slot,
            }
            descriptors = (memory.fileno(), *(store.fileno() for store in stores))
            try:
                for number in range(self._num_workers):
                    self._current[number] = IDLE
                    self._workers.append(Worker(number, setup, descriptors, self._answers))
            except BaseException:
                self._kill_workers()
                raise
            finally:
                for store in stores:
                    store.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._kill_workers()

    def _kill_workers(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def run(self, units: Iterable[WorkUnit]) -> Iterator[UnitResult]:
        """Does the units of work in parallel and yields their results in order.

        Raises:
            WorkerDiedError: a worker died, or one image took longer than five minutes.
            InputError: the disk failed.
        """
        waiting = iter(units)
        free = deque(range(self.num_slots))
        pending = self._pending
        answers: dict[int, dict[str, Any]] = {}
        while True:
            while free and (unit := next(waiting, None)) is not None:
                pending.append((unit, free.popleft()))
                self._send(*pending[-1])
            if not pending:
                return
            unit, slot = pending[0]
            while unit.number not in answers:
                answer = self._next_answer()
                answers[answer["unit"]] = answer
            pending.popleft()
            yield self._result(unit, slot, answers.pop(unit.number))
            free.append(slot)

    def _send(self, unit: WorkUnit, slot: int) -> None:
        worker = min(self._workers, key=lambda worker: worker.num_pending)
        items = [(item.name, item.label, item.store, item.offset, item.size) for item in unit.items]
        worker.send({"unit": unit.number, "slot": slot, "indices": unit.indices, "items": items})
        worker.num_pending += 1

    def _next_answer(self) -> dict[str, Any]:
        """Waits for an answer of any worker, and checks that none has died or hangs."""
        progress = [(worker.number, _UNKNOWN, 0.0) for worker in self._workers]
        while True:
            try:
                number, answer = self._answers.get(timeout=_POLL_S)
            except queue.Empty:
                progress = self._check_stall(progress)
                continue
            worker = self._workers[number]
            if answer is None:
                raise self._died(worker)
            if "failed" in answer:
                raise InputError(
                    f"cannot read {self._current_name(number)}: {answer['failed']}",
                    "run the same command again when the disk can be read",
                )
            worker.num_pending -= 1
            return answer

    def _check_stall(self, progress: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
        """Ends the job if a worker has worked on one image for too long.

        Args:
            progress: (worker, record, seconds since its index changed) at the last check.

        Returns:
            The same now.
        """
        now = []
        for number, last, waited_s in progress:
            current = int(self._current[number])
            if current != last or self._workers[number].num_pending == 0:
                now.append((number, current, 0.0))
                continue
            if waited_s > STALL_S:
                raise WorkerDiedError(
                    f"{self._current_name(number)}: no end after {STALL_S:.0f} s",
                    "is the disk there? else replace the image by an empty file, and run the same "
                    "command again: it goes on from here",
                )
            # Polls are counted, because a clock goes on while all processes are stopped by Ctrl-Z.
            now.append((number, last, waited_s + _POLL_S))
        return now

    def _died(self, worker: Worker) -> WorkerDiedError:
        code = worker.wait()
        how = f"exit code {code}"
        if code < 0:
            with suppress(ValueError):
                how = signal.Signals(-code).name
        message = worker.last_message()
        is_at_image = int(self._current[worker.number]) >= 0
        hint = "run the same command again: it goes on from here"
        if code == -signal.SIGKILL:
            hint += "; if memory is short, with fewer --workers"
        elif is_at_image:
            hint += "; if it dies again, replace the image by an empty file"
        where = f" at {self._current_name(worker.number)}" if is_at_image else ""
        return WorkerDiedError(
            f"a worker died ({how}){where}{': ' if message else ''}{message}", hint
        )

    def _current_name(self, number: int) -> str:
        """The image that a worker is working on."""
        index = int(self._current[number])
        for unit, _ in self._pending:
            if index in unit.indices:
                return unit.items[unit.indices.index(index)].name
        return "a worker between two images"

    def _result(self, unit: WorkUnit, slot: int, answer: dict[str, Any]) -> UnitResult:
        start = self._first_slot + slot * self._slot_bytes
        memory = memoryview(self._memory)[start : start + self._slot_bytes]
        extra = iter(answer["extra"])

        def at(offset: int, size: int) -> memoryview:
            return memory[offset : offset + size] if offset >= 0 else memoryview(next(extra))

        records: list[memoryview | Skipped] = []
        for item, (first, second) in zip(unit.items, answer["records"], strict=True):
            if isinstance(first, str):
                records.append(Skipped(item.name, first, second))
            else:
                records.append(at(first, second))
        complaints = [tuple(row) for row in answer["complaints"]]
        sums = _sums_from_json(answer["sums"], at)
        return UnitResult(unit, records, complaints, sums, tuple(answer["depth"]))


def _sums_from_json(values: dict[str, Any], at: Callable[[int, int], memoryview]) -> UnitSums:
    if values["shape"] is not None:
        values["shape"] = tuple(values["shape"])
    if values["image"] is not None:
        channels, height, width = values["shape"]
        image = np.frombuffer(at(*values["image"]), np.float32)
        shape = (height, width, channels) if channels > 1 else (height, width)
        values["image"] = image.reshape(shape)
    return UnitSums(**values)


def open_pool(plan: BuildPlan, num_workers: int = 0) -> WorkerPool:
    """The workers of a plan: as many as its options say, else one per core."""
    wanted = num_workers or plan.options.workers or system.num_cores()
    num_units = -(-len(plan) // plan.unit_size)
    return WorkerPool(
        plan.source,
        plan.options,
        num_workers=max(1, min(wanted, num_units)),
        slot_bytes=plan.slot_bytes,
    )


def _open_store(store: Any) -> IO[bytes]:
    """A descriptor of its own for a file that holds many images."""
    if isinstance(store, Path):
        return store.open("rb")
    return os.fdopen(os.dup(store.fileno()), "rb")


def _shared_file(size: int) -> IO[bytes]:
    """Memory as a file without a name, which the kernel frees with the last process."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("irv2caffe"), "w+b")
    else:
        file = tempfile.TemporaryFile("w+b")  # noqa: SIM115
    file.truncate(size)
    return file
