"""Worker processes: units of work in, records in the same order out; never a hang.

Processes and not threads: their allocator can be set up for images, what a decoder prints can be
told apart, and one that crashes does not take the database with it.
"""

from __future__ import annotations

import mmap
import os
import queue
import signal
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from irv2caffe import system
from irv2caffe.data.build.process import Worker, keep_freed_memory, shared_file
from irv2caffe.data.records.items import Skipped
from irv2caffe.data.records.mean import Sums
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


@dataclass
class UnitResult:
    """What became of a unit.

    Attributes:
        unit: the work.
        records: for each image the record, or why there is none. Records are valid until the
            next unit is asked for.
        complaints: (name, words) of images that were taken although the decoder complained.
        sums: over the records.
        depth: images of 16 bits, and the largest value in them.
    """

    unit: WorkUnit
    records: list[memoryview | Skipped]
    complaints: list[tuple[str, str]]
    sums: Sums
    depth: tuple[int, int]


class WorkerPool:
    """Workers that share memory with this process. Use it in a ``with`` block."""

    def __init__(
        self, source: Source, options: BuildOptions, *, num_workers: int, slot_bytes: int
    ) -> None:
        """Prepares the memory; the workers start with the block.

        Args:
            source: of the images.
            options: of the database.
            num_workers: how many processes.
            slot_bytes: that one unit may need.
        """
        self._source = source
        self._options = options
        self._num_workers = num_workers
        self._slot_bytes = -(-slot_bytes // _PAGE) * _PAGE
        self._first_slot = -(-8 * num_workers // _PAGE) * _PAGE
        self.num_slots = 2 * num_workers + max(4, min(16, (48 << 20) // self._slot_bytes))
        self._workers: list[Worker] = []
        self._answers: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self._begun: deque[tuple[WorkUnit, int]] = deque()

    def __enter__(self) -> WorkerPool:
        keep_freed_memory()
        size = self._first_slot + self.num_slots * self._slot_bytes
        with shared_file(size) as memory:
            self._memory = mmap.mmap(memory.fileno(), size)
            self._bytes = np.frombuffer(self._memory, np.uint8)
            self._at = self._bytes[: 8 * self._num_workers].view(np.int64)
            stores = [_open_store(store) for store in self._source.stores]
            pixels = self._source.pixels
            setup = {
                "options": asdict(self._options),
                "root": str(self._source.root.absolute()),
                "seen": asdict(identify(self._source)),
                "stores": [store.fileno() for store in stores],
                "pixels": asdict(pixels) if pixels is not None else None,
                "memory": memory.fileno(),
                "memory_bytes": size,
                "slot_bytes": self._slot_bytes,
                "first_slot": self._first_slot,
            }
            try:
                for number in range(self._num_workers):
                    self._at[number] = -1
                    descriptors = (memory.fileno(), *(store.fileno() for store in stores))
                    worker = Worker(number, setup, descriptors, self._answers)
                    self._workers.append(worker)
            except BaseException:
                self._stop()
                raise
            finally:
                for store in stores:
                    store.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def run(self, units: Iterable[WorkUnit]) -> Iterator[UnitResult]:
        """Does the units side by side and yields what became of them in their order.

        Raises:
            WorkerDiedError: a worker died, or one image took longer than five minutes.
            InputError: the disk failed.
        """
        waiting = iter(units)
        free = deque(range(self.num_slots))
        begun = self._begun
        done: dict[int, dict[str, Any]] = {}
        is_over = False
        while True:
            while free and not is_over:
                unit = next(waiting, None)
                if unit is None:
                    is_over = True
                    break
                slot = free.popleft()
                begun.append((unit, slot))
                self._begin(unit, slot)
            if not begun:
                return
            unit, slot = begun[0]
            while unit.number not in done:
                answer = self._next_answer()
                done[answer["unit"]] = answer
            begun.popleft()
            yield self._made(unit, slot, done.pop(unit.number))
            free.append(slot)

    def _begin(self, unit: WorkUnit, slot: int) -> None:
        worker = min(self._workers, key=lambda worker: worker.num_begun)
        items = [(item.name, item.label, item.store, item.offset, item.size) for item in unit.items]
        worker.send({"unit": unit.number, "slot": slot, "indices": unit.indices, "items": items})
        worker.num_begun += 1

    def _next_answer(self) -> dict[str, Any]:
        """Waits for any worker, and watches over all of them."""
        last_at = [(worker.number, _UNKNOWN, 0.0) for worker in self._workers]
        while True:
            try:
                number, answer = self._answers.get(timeout=_POLL_S)
            except queue.Empty:
                last_at = self._refuse_stall(last_at)
                continue
            worker = self._workers[number]
            if answer is None:
                raise self._died(worker)
            if "failed" in answer:
                raise InputError(
                    f"cannot read {self._name_at(number)}: {answer['failed']}",
                    "run the same command again when the disk can be read",
                )
            worker.num_begun -= 1
            return answer

    def _refuse_stall(self, last_at: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
        """Ends the job if a worker has been at one image for too long."""
        seen = []
        for number, index, waited_s in last_at:
            at = int(self._at[number])
            if at != index or self._workers[number].num_begun == 0:
                seen.append((number, at, 0.0))
                continue
            if waited_s > STALL_S:
                raise WorkerDiedError(
                    f"{self._name_at(number)}: no end after {STALL_S:.0f} s",
                    "is the disk there? else replace the image by an empty file, and run the same "
                    "command again: it goes on from here",
                )
            # Not by a clock: it goes on while all processes are stopped, as by Ctrl-Z.
            seen.append((number, index, waited_s + _POLL_S))
        return seen

    def _died(self, worker: Worker) -> WorkerDiedError:
        code = worker.wait()
        how = f"exit code {code}"
        if code < 0:
            with suppress(ValueError):
                how = signal.Signals(-code).name
        words = worker.last_words()
        hint = "run the same command again: it goes on from here"
        if code == -signal.SIGKILL:
            hint += "; if memory is short, with fewer --workers"
        elif int(self._at[worker.number]) >= 0:
            hint += "; if it dies again, replace the image by an empty file"
        where = f" at {self._name_at(worker.number)}" if int(self._at[worker.number]) >= 0 else ""
        return WorkerDiedError(f"a worker died ({how}){where}{': ' if words else ''}{words}", hint)

    def _name_at(self, number: int) -> str:
        """The image that a worker is at."""
        index = int(self._at[number])
        for unit, _ in self._begun:
            if index in unit.indices:
                return unit.items[unit.indices.index(index)].name
        return "a worker between two images"

    def _made(self, unit: WorkUnit, slot: int, answer: dict[str, Any]) -> UnitResult:
        start = self._first_slot + slot * self._slot_bytes
        memory = memoryview(self._memory)[start : start + self._slot_bytes]
        beside = iter(answer["beside"])

        def at(offset: int, size: int) -> memoryview:
            return memory[offset : offset + size] if offset >= 0 else memoryview(next(beside))

        records: list[memoryview | Skipped] = []
        for item, (first, second) in zip(unit.items, answer["records"], strict=True):
            if isinstance(first, str):
                records.append(Skipped(item.name, first, second))
            else:
                records.append(at(first, second))
        complaints = [tuple(row) for row in answer["complaints"]]
        return UnitResult(
            unit, records, complaints, _sums(answer["sums"], at), tuple(answer["depth"])
        )


def _sums(values: dict[str, Any], at: Callable[[int, int], memoryview]) -> Sums:
    shape = tuple(values["shape"]) if values["shape"] is not None else None
    image = None
    if values["image"] is not None and shape is not None:
        channels, height, width = shape
        numbers = np.frombuffer(at(*values["image"]), np.float32)
        image = numbers.reshape((height, width, channels) if channels > 1 else (height, width))
    return Sums(shape, image, values["channels"], values["num_pixels"], values["is_possible"])


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
    """A descriptor of its own for a file of many images."""
    if isinstance(store, Path):
        return store.open("rb")
    return os.fdopen(os.dup(store.fileno()), "rb")
