"""The program as users run it."""

from __future__ import annotations

import subprocess
import sys


def run(*args: object, cwd=None, env=None) -> subprocess.CompletedProcess:
    """A command to its end, with what it printed as text."""
    command = [sys.executable, "-m", "irv2caffe", *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300
    )
