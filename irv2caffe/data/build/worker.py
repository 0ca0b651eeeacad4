"""Worker processes: :class:`Worker` starts and stops one, :func:`main` is the loop inside it.

The parent sends one line of JSON per unit of work. The worker writes the records into memory that
both share. It answers with a line of JSON, followed by the bytes of records that had no room there.
A worker ends with its standard input, so that none outlives its parent.

Not concurrent.futures: its ProcessPoolExecutor does not tell which worker died at which image,
cannot kill one that hangs, and its workers outlive a parent that is killed.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from irv2caffe.data.records.headers import MAX_PIXELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

IDLE = -1  # in place of the index of a record: the worker is between two units
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from irv2caffe.data.build.worker import main; main()"
)
# Freed memory is kept for the next image instead of being returned to the kernel, which would hand
# it out again page by page: for raw pixels that takes longer than the rest of the work.
_KEPT_BYTES = 1 << 30
_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(_KEPT_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES),
    "MALLOC_TOP_PAD_": str(1 << 20),
    "MALLOC_ARENA_MAX": "1",
}
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h of glibc
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Messages of libpng about colour profiles, which nothing here uses.
_HARMLESS = ("iCCP", "sRGB", "gAMA", "cHRM", "known incorrect")
# OpenCV's errors begin with a time and a place in its source, which change from run to run.
_OPENCV_ERROR = re.compile(
    r"\[ ?ERROR:[^\]]*\] (?:global )?(?:\S+:\d+ \S+ )?(?:.*error: \([^)]*\) )?(.*)"
)
_MAX_COMPLAINT = 200


def keep_freed_memory() -> None:
    """Sets the allocator of this process as the environment sets that of the workers."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_TOP_PAD, 1 << 20)


class Worker:
    """A worker process, with a thread for each pipe, so that the parent never blocks on it."""

    def __init__(
        self,
        number: int,
        setup: dict[str, Any],
        descriptors: tuple[int, ...],
        answers: queue.Queue[tuple[int, dict[str, Any] | None]],
    ) -> None:
        """Starts the process.

        Args:
            number: of the worker.
            setup: its first message.
            descriptors: file descriptors that it shares with this process.
            answers: where (number, answer) goes; (number, None) when it has died.
        """
        self.number = number
        self.num_pending = 0
        self._messages: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._answers = answers
        environment = os.environ | _ALLOCATOR | dict.fromkeys(_ONE_THREAD, "1")
        if not setup["options"]["exactly_like_caffe"]:
            environment["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)  # read at import
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            pass_fds=descriptors,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin: IO[bytes] = self._process.stdin
        self._stdout: IO[bytes] = self._process.stdout
        self._outbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._read, self._write)
        ]
        for thread in self._threads:
            thread.start()
        self.send(setup | {"number": number})

    def send(self, message: dict[str, Any]) -> None:
        """Queues a line for the worker. That it has died shows in the answers."""
        self._outbox.put(json.dumps(message).encode() + b"\n")

    def _write(self) -> None:
        with suppress(OSError, ValueError):
            while line := self._outbox.get():
                self._stdin.write(line)
                self._stdin.flush()

    def _read(self) -> None:
        with suppress(OSError, ValueError):  # it died in the middle of an answer
            for line in self._stdout:
                answer = json.loads(line)
                if "extra" in answer:
                    answer["extra"] = [self._read_exactly(size) for size in answer["extra"]]
                self._answers.put((self.number, answer))
        self._answers.put((self.number, None))

    def _read_exactly(self, size: int) -> bytes:
        data = self._stdout.read(size)
        if len(data) < size:
            raise OSError("cut short")
        return data

    def wait(self) -> int:
        """The exit code of a worker whose output has ended."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(10)
        self.kill()
        code = self._process.returncode
        return code if code is not None else -signal.SIGKILL

    def last_message(self) -> str:
        """The last line that it printed."""
        self._messages.seek(0)
        lines = self._messages.read().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")

    def kill(self) -> None:
        """Kills the process; does not wait for one that a dead disk blocks in the kernel."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._outbox.put(b"")
        for thread in self._threads:
            thread.join(10)
        if any(thread.is_alive() for thread in self._threads):
            return  # closing the pipes would wait for them
        for stream in (self._stdin, self._stdout, self._messages):
            with suppress(OSError):
                stream.close()


def main() -> None:
    """The process: makes records until there is nothing more to read."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not come between the answers
    tasks = sys.stdin.buffer
    job = _Job(json.loads(tasks.readline()))
    _take_complaint()  # what was printed at the start is not about an image
    try:
        for line in tasks:
            answer, extra = job.make(json.loads(line))
            answers.write(json.dumps(answer).encode() + b"\n")
            for data in extra:
                answers.write(data.data)
            answers.flush()
    except BrokenPipeError:
        os._exit(0)  # the parent has died
    except OSError as error:
        answers.write(json.dumps({"failed": error.strerror or str(error)}).encode() + b"\n")
        answers.flush()


class _Job:
    """Makes the units of work of one database, in the worker process."""

    def __init__(self, setup: dict[str, Any]) -> None:
        from irv2caffe.data.options import options_from_json
        from irv2caffe.data.records.items import PixelFormat
        from irv2caffe.data.records.record import RecordMaker
        from irv2caffe.data.records.source_identity import SourceIdentity

        pixels = setup["pixels"]
        self._maker = RecordMaker(
            options_from_json(setup["options"]),
            Path(setup["root"]),
            setup["stores"],
            PixelFormat(**pixels) if pixels is not None else None,
            SourceIdentity(**setup["identity"]),
        )
        self._memory = np.frombuffer(mmap.mmap(setup["memory"], setup["memory_bytes"]), np.uint8)
        self._current = self._memory[: 8 * (setup["number"] + 1)].view(np.int64)[-1:]
        self._slot_bytes = setup["slot_bytes"]
        self._first_slot = setup["first_slot"]

    def make(self, unit: dict[str, Any]) -> tuple[dict[str, Any], list[NDArray[np.uint8]]]:
        """Makes the records of a unit: the answer, and the records that had no room."""
        from irv2caffe.data.records.image import UndecodableImageError
        from irv2caffe.data.records.items import Item
        from irv2caffe.data.records.record import RecordBuffer

        start = self._first_slot + unit["slot"] * self._slot_bytes
        buffer = RecordBuffer(self._memory[start : start + self._slot_bytes])
        records: list[tuple[Any, Any]] = []
        complaints: list[tuple[str, str]] = []
        self._current[0] = unit["indices"][0]
        self._maker.check_source()
        for index, fields in zip(unit["indices"], unit["items"], strict=True):
            self._current[0] = index
            item = Item(*fields)
            try:
                records.append(self._maker.make(item, index, buffer))
                if complaint := _take_complaint():
                    complaints.append((item.name, complaint))
            except UndecodableImageError as error:
                complaint = _take_complaint()  # before the next image can get it
                records.append((error.reason, error.detail or complaint))
        self._current[0] = IDLE
        sums = self._maker.sums.taken()
        place = None
        if sums.image is not None:
            memory, place = buffer.take(sums.image.nbytes)
            memory[:] = sums.image.reshape(-1).view(np.uint8)
        answer = {
            "unit": unit["unit"],
            "records": records,
            "complaints": complaints,
            "sums": asdict(replace(sums, image=None)) | {"image": place},
            "depth": self._maker.depth.taken(),
            "extra": [len(data) for data in buffer.extra],
        }
        return answer, buffer.extra


def _take_complaint() -> str:
    """The first line about the image that a decoder has printed; standard error is emptied."""
    size = os.lseek(2, 0, os.SEEK_CUR)
    if size == 0:
        return ""
    text = os.pread(2, min(size, 65_536), 0).decode("utf-8", "replace")
    os.lseek(2, 0, os.SEEK_SET)
    os.ftruncate(2, 0)
    return next((words for line in text.splitlines() if (words := _complaint_in(line))), "")


def _complaint_in(line: str) -> str:
    match = _OPENCV_ERROR.match(line)
    if match is not None:
        return match[1].strip()[:_MAX_COMPLAINT]
    if line.startswith("[") or any(word in line for word in _HARMLESS):
        return ""
    return line.strip()[:_MAX_COMPLAINT]
