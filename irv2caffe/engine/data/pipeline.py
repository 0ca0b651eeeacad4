"""Reads, decodes and transforms the batches of one layer ahead of the net, in threads.

One thread reads records in order and hands them out in groups; the threads of a pool decode them
and write pictures into batches; a second thread passes finished batches on in order. Random
numbers are drawn in the order of the records, so that batches do not depend on the number of
threads. The first error of any thread ends the run at the place where the batch was wanted.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from irv2caffe.engine.data.transform import NUM_DRAWS
from irv2caffe.errors import FormatError, WorkerDiedError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from concurrent.futures import Executor, Future
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from irv2caffe.engine.data.batches import Batch
    from irv2caffe.engine.data.pictures import Picture, Record
    from irv2caffe.engine.data.transform import Transform

_GROUP = 8  # records of one task
_LIVENESS_S = 10.0  # between looks at the threads while nothing comes
_SHOWN_KEY = 100
_WAITS_PER_LINE = 1000  # LOG_EVERY_N in blocking_queue.cpp


class Records(Protocol):
    """What a layer reads."""

    path: Path

    def __len__(self) -> int: ...

    def decode(self, record: Record) -> Picture:
        """Decodes a record; raises ValueError where it is corrupt."""


@dataclass(frozen=True)
class Corrupt:
    """A record that cannot be used.

    Attributes:
        key: of the record.
        why: it cannot.
    """

    key: bytes
    why: str


@dataclass
class SkipCount:
    """The corrupt records that were left out.

    Attributes:
        keys: of these records.
        in_a_row: how many came without a good one between them.
    """

    keys: set[bytes]
    in_a_row: int = 0


class Pipeline:
    """The batches of one layer.

    Attributes:
        waited_s: how long the device has waited for batches so far.
    """

    def __init__(
        self,
        records: Records,
        stream: Generator[Record],
        transform: Transform,
        batches: list[Batch],
        *,
        batch_size: int,
        pool: Executor,
        num_threads: int,
        rng: np.random.Generator,
        skipped: Callable[[str, int], None] | None,
        waiting: Callable[[], None],
    ) -> None:
        """Prepares the threads; they start with the first batch that is asked for.

        Args:
            records: for decoding and errors.
            stream: the records in order, without end.
            transform: of the pictures.
            batches: memory that is filled in turns; two or more.
            batch_size: pictures of a batch.
            pool: threads that decode.
            num_threads: of the pool.
            rng: for crops and mirror images.
            skipped: called with a message and their number when a corrupt record was left out;
                None to end with an error instead.
            waiting: called the first, 1001st, 2001st ... time that a batch is not ready.
        """
        self._records = records
        self._stream = stream
        self._transform = transform
        self._batch_size = batch_size
        self._pool = pool
        self._ahead = 2 * num_threads
        self._rng = rng
        self._on_skip = skipped
        self._on_wait = waiting
        self._num_waits = 0
        self._skips = SkipCount(set())
        self._free: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._filled: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for batch in batches:
            self._free.put(batch)
        self.waited_s = 0.0
        self._in_use: Batch | None = None
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._fill_all, name="read", daemon=True),
            threading.Thread(target=self._finish_all, name="finish", daemon=True),
        ]

    @property
    def num_skipped(self) -> int:
        """Records that were left out, each counted once."""
        return len(self._skips.keys)

    def next(self) -> tuple[Tensor, Tensor]:
        """Data and labels of the next batch; those of the last one become invalid.

        Raises:
            FormatError: a corrupt record or database.
        """
        if self._error is not None:
            raise self._error
        if self._threads[0].ident is None:
            for thread in self._threads:
                thread.start()
        last, self._in_use = self._in_use, None
        if last is not None:
            last.release()
            self._free.put(last)
        start = time.perf_counter()
        item = self._wait()
        if last is None or last.is_done():  # otherwise the device is still busy
            self.waited_s += time.perf_counter() - start
        if isinstance(item, BaseException):
            self._error = item
            raise item
        batch: Batch
        tops: tuple[Tensor, Tensor]
        batch, tops = item
        self._in_use = batch
        batch.wait()
        return tops

    def _wait(self) -> Any:
        if self._ready.empty():
            if self._num_waits % _WAITS_PER_LINE == 0:
                self._on_wait()
            self._num_waits += 1
        while True:
            try:
                return self._ready.get(timeout=_LIVENESS_S)
            except queue.Empty:
                if not all(thread.is_alive() for thread in self._threads) and self._ready.empty():
                    return WorkerDiedError(f"a thread that reads {self._records.path} has ended")

    def close(self) -> None:
        """Ends the threads."""
        self._stopped.set()
        self._free.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _fill_all(self) -> None:
        """The thread that reads."""
        try:
            with closing(self._good()) as pictures:
                while (batch := self._free.get()) is not None and not self._stopped.is_set():
                    self._filled.put((batch, self._fill(batch, pictures)))
            self._filled.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the batch is wanted
            self._filled.put(error)

    def _fill(self, batch: Batch, pictures: Iterator[tuple[bytes, Picture]]) -> list[Future[None]]:
        """Starts the tasks that write pictures into a batch."""
        batch.reuse()
        draws = self._rng.integers(0, 1 << 32, (self._batch_size, NUM_DRAWS), np.uint32)
        tasks = []
        for start in range(0, self._batch_size, _GROUP):
            group = list(islice(pictures, min(_GROUP, self._batch_size - start)))
            tasks.append(self._pool.submit(self._write, batch, start, group, draws[start:]))
        return tasks

    def _write(
        self,
        batch: Batch,
        start: int,
        group: list[tuple[bytes, Picture]],
        draws: NDArray[np.uint32],
    ) -> None:
        for place, (key, picture) in enumerate(group):
            try:
                view = self._transform.view(picture, draws[place])
                batch.write(start + place, view, picture.label)
            except ValueError as error:
                raise unusable(Corrupt(key, str(error)), self._records.path) from error

    def _finish_all(self) -> None:
        """The thread that passes batches on."""
        while (item := self._filled.get()) is not None:
            if isinstance(item, BaseException):
                self._ready.put(item)
                return
            batch, tasks = item
            try:
                for task in tasks:
                    task.result()
                self._ready.put((batch, batch.finish()))
            except BaseException as error:  # noqa: BLE001 - raised where the batch is wanted
                self._ready.put(error)
                return

    def _good(self) -> Generator[tuple[bytes, Picture]]:
        """The decoded records in order, without the corrupt ones."""
        for key, picture in self._decoded():
            if isinstance(picture, Corrupt):
                self._skip(picture)
            else:
                self._skips.in_a_row = 0
                yield key, picture

    def _decoded(self) -> Iterator[tuple[bytes, Picture | Corrupt]]:
        tasks: deque[Future[list[tuple[bytes, Picture | Corrupt]]]] = deque()
        with closing(self._stream) as stream:
            while group := list(islice(stream, _GROUP)):
                tasks.append(self._pool.submit(self._decode, group))
                if len(tasks) > self._ahead:
                    yield from tasks.popleft().result()

    def _decode(self, group: list[Record]) -> list[tuple[bytes, Picture | Corrupt]]:
        return [(record.key, self._decode_one(record)) for record in group]

    def _decode_one(self, record: Record) -> Picture | Corrupt:
        try:
            picture = self._records.decode(record)
            self._transform.check(picture.pixels.shape)
        except (ValueError, OSError) as error:
            return Corrupt(record.key, str(error))
        return picture

    def _skip(self, corrupt: Corrupt) -> None:
        """Leaves out a record, or ends the run."""
        skips = self._skips
        skips.in_a_row += 1
        if self._on_skip is None or skips.in_a_row >= len(self._records):
            raise unusable(corrupt, self._records.path)
        if corrupt.key not in skips.keys:
            skips.keys.add(corrupt.key)
            self._on_skip(_said(corrupt), len(skips.keys))


def unusable(corrupt: Corrupt, path: Path) -> FormatError:
    """The error that ends the run."""
    return FormatError(_said(corrupt), "--skip-corrupt leaves such records out", path=path)


def _said(corrupt: Corrupt) -> str:
    key = repr(corrupt.key[:_SHOWN_KEY].decode("utf-8", "replace"))
    return f"record {key} cannot be used: {corrupt.why}"
