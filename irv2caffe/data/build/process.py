"""One worker process: how it is started, spoken to, and ended."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import IO, Any

from irv2caffe.data.records.headers import MAX_PIXELS

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from irv2caffe.data.build.worker_loop import main; main()"
)
# Memory that is freed is kept for the next image or record, and not given back to the kernel, which
# would hand it out anew page by page: for records of raw pixels that takes longer than all else
# that is done with them.
_KEPT_BYTES = 1 << 30
_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(_KEPT_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES),
    "MALLOC_TOP_PAD_": str(1 << 20),
    "MALLOC_ARENA_MAX": "1",
}
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h of glibc
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def keep_freed_memory() -> None:
    """Does to this process what the environment does to the workers, where that is possible."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for what, value in (
            (_MMAP_THRESHOLD, _KEPT_BYTES),
            (_TRIM_THRESHOLD, _KEPT_BYTES),
            (_TOP_PAD, 1 << 20),
        ):
            mallopt(what, value)


class Worker:
    """A process, and threads that read and write, so that nobody waits for one that hangs."""

    def __init__(
        self,
        number: int,
        setup: dict[str, Any],
        descriptors: tuple[int, ...],
        answers: queue.Queue[tuple[int, dict[str, Any] | None]],
    ) -> None:
        """Starts it.

        Args:
            number: of the worker.
            setup: its first message.
            descriptors: of files that it shares with this process.
            answers: where (number, answer) goes; None for the answer when it is dead.
        """
        self.number = number
        self.num_begun = 0
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._answers = answers
        environment = os.environ | _ALLOCATOR | dict.fromkeys(_ONE_THREAD, "1")
        if not setup["options"]["exactly_like_caffe"]:
            environment["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)  # read when it is loaded
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            pass_fds=descriptors,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._tasks: IO[bytes] = self._process.stdin
        self._lines: IO[bytes] = self._process.stdout
        self._outbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._listen, self._speak)
        ]
        for thread in self._threads:
            thread.start()
        self.send(setup | {"number": number})

    def send(self, message: dict[str, Any]) -> None:
        """A line to the worker, sooner or later; that it is dead shows when its answers end."""
        self._outbox.put(json.dumps(message).encode() + b"\n")

    def _speak(self) -> None:
        """Waits for a worker that does not read, so that nobody else has to."""
        with suppress(OSError, ValueError):
            while line := self._outbox.get():
                self._tasks.write(line)
                self._tasks.flush()

    def _listen(self) -> None:
        with suppress(OSError, ValueError):  # it died in the middle of an answer
            for line in self._lines:
                answer = json.loads(line)
                if "beside" in answer:
                    answer["beside"] = [self._exactly(size) for size in answer["beside"]]
                self._answers.put((self.number, answer))
        self._answers.put((self.number, None))

    def _exactly(self, size: int) -> bytes:
        data = self._lines.read(size)
        if len(data) < size:
            raise OSError("cut short")
        return data

    def wait(self) -> int:
        """The exit code of a worker that is dead, or about to be."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(10)
        self.kill()
        code = self._process.returncode
        return code if code is not None else -signal.SIGKILL

    def last_words(self) -> str:
        """The last line that it printed."""
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")

    def kill(self) -> None:
        """Ends it and waits for that, but not for one that a dead disk holds."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._outbox.put(b"")
        for thread in self._threads:
            thread.join(10)
        if any(thread.is_alive() for thread in self._threads):
            return  # closing what they read would wait for them
        for stream in (self._tasks, self._lines, self._said):
            with suppress(OSError):
                stream.close()


def shared_file(size: int) -> IO[bytes]:
    """Memory as a file without a name, so that it goes when the last process does."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("irv2caffe"), "w+b")
    else:
        file = tempfile.TemporaryFile("w+b")  # noqa: SIM115
    file.truncate(size)
    return file
