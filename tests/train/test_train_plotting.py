"""plot.png: drawn in the background during the training, and without delay at its end."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

import pytest
from helpers.training_jobs import is_gone, wait_for

from irv2caffe.train.run import plotting
from irv2caffe.train.run.plotting import Plotter
from irv2caffe.train.run_dir.run_dir import RunDir

LOG = """I1126 20:00:00.000000 1 solver.cpp:1] Solving net
I1126 20:00:01.000000 1 solver.cpp:1] Iteration 0 (1 iter/s, 1s/10 iters), loss = 2.5
I1126 20:00:01.000000 1 solver.cpp:1] Iteration 0, lr = 0.1
I1126 20:00:02.000000 1 solver.cpp:1] Iteration 10 (1 iter/s, 1s/10 iters), loss = 1.5
I1126 20:00:02.000000 1 solver.cpp:1] Iteration 10, lr = 0.1
"""


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "run")
    (run.path / "logs").mkdir(parents=True)
    run.log.write_text(LOG)
    return run


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """Whatever runs with ``nice`` gets no time at all, as on a busy machine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "nice"
    program.write_text(
        f"#!/bin/sh\ntouch '{tmp_path}/run/.partial-plot-abc.png'\n"
        f"echo $$ > '{tmp_path}/pid'\nexec sleep 1000\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    yield tmp_path / "pid"
    with suppress(OSError, ValueError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


@pytest.mark.slow
def test_the_end_does_not_wait_for_the_background(run, slow):
    plotter = Plotter(run, enabled=True)
    for _ in range(2):
        plotter.refresh()
    pid = wait_for(lambda: slow.is_file() and slow.read_text().strip(), "for the drawer")
    plotter.finish()
    assert is_gone(int(pid))
    assert run.plot.read_bytes().startswith(b"\x89PNG")
    assert not list(run.path.glob(".partial-*"))


@pytest.mark.slow
def test_a_figure_that_takes_its_time_is_said_and_one_that_takes_too_long_ended(
    run, tmp_path, monkeypatch
):
    said = []
    stuck = tmp_path / "python"
    stuck.write_text(
        f"#!/bin/sh\ntouch '{run.path}/.partial-plot-x.png'\n"
        f"echo $$ > '{tmp_path}/pid'\nsleep 1000\n"
    )
    stuck.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stuck))
    monkeypatch.setattr(plotting, "_ANNOUNCE_S", 0.5)
    monkeypatch.setattr(plotting, "_GIVE_UP_S", 2)
    Plotter(run, enabled=True, say=said.append).finish()
    assert said[0] == f"drawing {run.plot}"
    assert "was not drawn" in said[1]
    assert "plot-log" in said[1]
    assert not list(run.path.glob(".partial-*"))
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_the_first_displays_and_the_first_test_are_drawn_at_once(run, tmp_path, monkeypatch):
    """What is started with ``nice`` only counts: a busy machine may not draw for minutes."""
    program = tmp_path / "nice"
    program.write_text(f"#!/bin/sh\necho >> '{tmp_path}/started'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    plotter = Plotter(run, enabled=True)
    counts = []
    for is_test in (False, False, False, True, True, False):
        plotter.refresh(is_test=is_test)
        wait_for(lambda: not plotter._busy(), "for its end")
        started = tmp_path / "started"
        counts.append(len(started.read_text()) if started.exists() else 0)
    # One point is no curve; the third display and the second test have to wait.
    assert counts == [0, 1, 1, 2, 2, 2]


def test_nothing_is_drawn_where_nobody_wants_it(run):
    plotter = Plotter(run, enabled=False)
    plotter.refresh()
    plotter.finish()
    assert not run.plot.exists()
