"""Repeated SIGTERM, as some schedulers send it: at the start, during the training, at the end."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from helpers.training_jobs import (
    FOREVER,
    PATIENCE_S,
    config,
    irv2caffe,
    newest,
    start,
    wait_for,
    wait_for_text,
    write_job,
)

from irv2caffe.train.run_dir.run_dir import RunDir

pytestmark = pytest.mark.slow


def hears(pid):
    """Whether a process has installed a handler for SIGTERM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def storm(child):
    """Sends signals until the child ends; returns exit code and standard error."""

    def send():
        while child.poll() is None:
            child.send_signal(signal.SIGTERM)
            time.sleep(0.001)

    sender = threading.Thread(target=send)
    sender.start()
    _, err = child.communicate(timeout=PATIENCE_S)
    sender.join()
    return child.returncode, err


@pytest.mark.parametrize("wait_s", [0.0, 0.05, 0.1, 0.2, 0.4])
def test_at_the_start(caffe, root, tmp_path, wait_s):
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER)
    child = start("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    wait_for(lambda: hears(child.pid), "for the first line of the program")
    time.sleep(wait_s)  # whatever it is doing then
    code, err = storm(child)
    assert code == 130, err
    assert "Traceback" not in err
    if (tmp_path / "run/config.json").exists():
        assert config(tmp_path / "run")["ending"] in {"stopped", "running"}


def test_in_the_middle(caffe, root, tmp_path):
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER)
    child = start("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 300 (")
    code, err = storm(child)
    assert code == 130, err
    assert "Traceback" not in err
    assert config(run.path)["ending"] == "stopped"
    assert newest(run) >= 300


def test_at_the_end(caffe, root, tmp_path):
    for number in range(3):
        name = f"run{number}"
        solver = write_job(root, tmp_path / "job", max_iter=3000 + 200 * number)
        child = start("--solver", solver, "--run-dir", name, cwd=tmp_path)
        run = RunDir(tmp_path / name)
        wait_for_text(run.log, "Optimization Done")
        code, err = storm(child)
        assert code in {0, 130}, err
        assert "Traceback" not in err
        assert config(run.path)["ending"] == "finished"
        assert newest(run) == 3000 + 200 * number


def test_what_a_killed_trainer_left_is_removed(caffe, root, tmp_path):
    """Unfinished files are removed, but not those that another process may be writing."""
    solver = write_job(root, tmp_path / "job", max_iter=400)
    assert irv2caffe("--solver", solver, "--run-dir", "run", cwd=tmp_path).returncode == 0
    left = [
        ".partial-config-abcdefgh.json",
        ".state.json.partial",
        "snapshots/.partial-x-ab_d1fgh.solverstate",
    ]
    drawn = tmp_path / "run/.partial-plot-abcdefgh.png"
    old = tmp_path / "run/.partial-curves-abcdefgh.csv"
    his = tmp_path / "run/.partial"
    for path in (*(tmp_path / "run" / name for name in left), drawn, old, his):
        path.write_text("half")
    os.utime(old, (0, 0))
    done = irv2caffe("--resume", "run", "--epochs", 75, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    there = set((tmp_path / "run").rglob(".*partial*"))
    assert there == {drawn, his}
