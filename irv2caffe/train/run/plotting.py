"""Keeps plot.png up to date, in a process of its own, so that this one stays small."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.atomic import remove_partial_files
from irv2caffe.system import kill_group

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.train.run_dir.run_dir import RunDir

# What figures may take of the time.
_SHARE = 0.004
_SAID_AFTER_S, _LAST_S = 2.0, 120.0
_NICE = 19


class Plotter:
    """Draws the curves in the background, at most one figure at a time."""

    def __init__(
        self, run: RunDir, *, enabled: bool, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Draws nothing yet.

        Args:
            run: the run folder.
            enabled: whether anything is to be drawn.
            say: told where the last figure takes its time.
        """
        self._run = run
        self._say = say
        self._enabled = enabled
        self._child: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._not_before = 0.0

    def refresh(self) -> None:
        """Draws, unless a figure is just being drawn or the last one was a moment ago."""
        if self._enabled and not self._busy() and time.monotonic() >= self._not_before:
            self._start()

    def finish(self) -> None:
        """Draws the whole run, at once and not in the background; waits for it."""
        if not self._enabled:
            return
        self._end()  # a figure of less; in the background of a busy machine it takes minutes
        self._start(nice=False)
        self._wait()
        self._end()

    def _busy(self) -> bool:
        if self._child is None:
            return False
        if self._child.poll() is None:
            return True
        self._child = None
        self._not_before = time.monotonic() + (time.monotonic() - self._began) / _SHARE
        return False

    def _start(self, *, nice: bool = True) -> None:
        run = self._run
        # -P: a folder of this name in the working folder is not the program.
        command = [sys.executable, "-P", "-m", "irv2caffe", "plot-log", str(run.path)]
        program = shutil.which("nice") if nice else None
        if program is not None:
            command = [program, "-n", str(_NICE), *command]
        self._began = time.monotonic()
        with contextlib.suppress(OSError):
            self._child = subprocess.Popen(
                [*command, "--out", str(run.plot)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if not nice:
                return
            # Linux shares time among sessions first: niceness within one means little then.
            Path(f"/proc/{self._child.pid}/autogroup").write_text(str(_NICE), encoding="ascii")

    def _wait(self) -> None:
        """For the last figure; says so where it is not there at once."""
        if self._child is None:
            return
        for seconds, words in ((_SAID_AFTER_S, f"drawing {self._run.plot}"), (_LAST_S, "")):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(seconds)
                return
            if words:
                self._say(words)
        self._say(f"{self._run.plot} was not drawn within {_LAST_S:.0f} s: irv2caffe plot-log does")

    def _end(self) -> None:
        """Ends the process that draws, and removes what it left of a figure."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.poll() is None:
            kill_group(child)
            child.wait()
        remove_partial_files(self._run.plot)
