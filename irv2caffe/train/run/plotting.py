"""Draws plot.png in a separate process, so that this process stays small."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.atomic import remove_partial_files
from irv2caffe.system import kill_group

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.train.run_dir.run_dir import RunDir

# Largest share of the time spent on drawing.
_SHARE = 0.004
# Seconds until the last figure is announced, and until it is given up.
_ANNOUNCE_S, _GIVE_UP_S = 2.0, 120.0
_NICE = 19
_FIRST_ROWS = 2


@dataclass
class Plotter:
    """Draws the curves in the background, at most one figure at a time.

    Attributes:
        run: the run folder.
        enabled: whether anything is drawn.
        say: called with a message if the last figure takes long.
    """

    run: RunDir
    enabled: bool
    say: Callable[[str], None] = lambda _: None
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _began: float = field(default=0.0, init=False)
    _not_before: float = field(default=0.0, init=False)
    _num_rows: int = field(default=0, init=False)
    _has_test: bool = field(default=False, init=False)

    def refresh(self, *, is_test: bool = False) -> None:
        """Draws, unless a figure is being drawn or the last one is too recent.

        The second display is the first that makes a curve, and the first test is drawn at once.

        Args:
            is_test: whether a test has ended, or a display of the loss come.
        """
        self._num_rows += 1
        if not self.enabled or self._num_rows < _FIRST_ROWS or self._busy():
            return
        if (is_test and not self._has_test) or time.monotonic() >= self._not_before:
            self._has_test |= is_test
            self._start()

    def finish(self) -> None:
        """Draws the whole run without delay or niceness; waits for it."""
        if not self.enabled:
            return
        self._end()  # an outdated figure, which may take minutes on a busy machine
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
        run = self.run
        # -P: do not import a package of this name from the working folder.
        command = [sys.executable, "-P", "-m", "irv2caffe", "plot-log", str(run.path)]
        program = shutil.which("nice") if nice else None
        if program is not None:
            command = [program, "-n", str(_NICE), *command]
        self._began = time.monotonic()
        with contextlib.suppress(OSError):
            self._child = subprocess.Popen(
                [*command, "--out", str(run.plot), "--force"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if not nice:
                return
            # Linux shares time among sessions first, so that niceness alone has little effect.
            Path(f"/proc/{self._child.pid}/autogroup").write_text(str(_NICE), encoding="ascii")

    def _wait(self) -> None:
        """Waits for the last figure, with a message if it takes long."""
        if self._child is None:
            return
        for seconds, message in ((_ANNOUNCE_S, f"drawing {self.run.plot}"), (_GIVE_UP_S, "")):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(seconds)
                return
            if message:
                self.say(message)
        self.say(f"{self.run.plot} was not drawn within {_GIVE_UP_S:.0f} s; use irv2caffe plot-log")

    def _end(self) -> None:
        """Ends the drawing process, and removes its unfinished figure."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.poll() is None:
            kill_group(child)
            child.wait()
        remove_partial_files(self.run.plot)
