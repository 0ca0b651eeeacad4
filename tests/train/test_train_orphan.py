"""Processes that are ended when a run is resumed: only a Caffe of this run."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.training_jobs import (
    FOREVER,
    PATIENCE_S,
    caffe_pid,
    child_of_test,
    irv2caffe,
    is_gone,
    start,
    wait_for,
    wait_for_text,
    write_job,
)

from irv2caffe.train.run_dir.folders import new_run_dir
from irv2caffe.train.run_dir.lock import holders, is_caffe_of, locked, open_process, start_time
from irv2caffe.train.run_dir.run_dir import RunDir


@pytest.fixture
def stranger():
    """A process in a group of its own that has nothing to do with any run."""
    with child_of_test(["sleep", "1000"], start_new_session=True) as child:
        yield child


def name_in_lock(run, process, container=""):
    owner = {
        "host": platform.node(), "pid": 999_999, "began": "1", "child_pid": process.pid,
        "child_began": start_time(process.pid), "container": container,
    }  # fmt: skip
    run.lock.write_text(json.dumps(owner))


@pytest.mark.slow
@pytest.mark.parametrize("last", ["", "Optimization stopped early."])
def test_a_process_that_a_lock_names_is_not_ended(caffe, root, tmp_path, stranger, last):
    solver = write_job(root, tmp_path / "job", max_iter=40)
    assert irv2caffe("--solver", solver, "--run-dir", "run", cwd=tmp_path).returncode == 0
    run = RunDir(tmp_path / "run")
    name_in_lock(run, stranger)
    with run.log_of(1).open("a") as log:
        log.write(f"I1126 18:00:00.000000 1 solver.cpp:1] {last}\n")
    done = irv2caffe("--resume", "run", "--epochs", 10, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert stranger.poll() is None


def test_who_holds_the_lock_is_asked_of_the_kernel(tmp_path, stranger):
    """Neither processes that only opened the file, nor the one that it names."""
    run = new_run_dir(tmp_path / "run")
    with locked(run):
        name_in_lock(run, stranger)
        code = f"import time; f = open({str(run.lock)!r}); print(flush=True); time.sleep(1000)"
        with child_of_test([sys.executable, "-c", code], stdout=subprocess.PIPE) as reader:
            reader.stdout.readline()
            assert holders(run) == []


@pytest.mark.slow
def test_a_process_that_keeps_the_lock_is_named(root, tmp_path, stand_in):
    """In a session of its own it outlives the Caffe that started it."""
    run = new_run_dir(tmp_path / "run")
    solver = write_job(root, tmp_path / "job", max_iter=40)
    args = ("--solver", solver, "--run-dir", "run", "--caffe", stand_in)
    assert irv2caffe(*args, cwd=tmp_path).returncode == 0
    with run.lock.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        left = subprocess.Popen(["sleep", "1234"], start_new_session=True, pass_fds=[lock.fileno()])
    again = ("--resume", "run", "--epochs", 10, "--caffe", stand_in)
    try:
        for owner in ("", json.dumps({"host": "x", "pid": 1, "began": "1"})):
            run.lock.write_text(owner)
            refused = irv2caffe(*again, cwd=tmp_path)
            assert refused.returncode == 1
            assert f"is locked by process {left.pid} (sleep 1234)" in refused.stderr
            assert f"kill {left.pid}" in refused.stderr
        assert left.poll() is None
    finally:
        left.kill()
        left.wait()
    done = irv2caffe(*again, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_caffe_of_the_run_is_known_and_ended(caffe, root, tmp_path, stranger):
    """The Caffe of the run is found although the lock file names another process."""
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER, snapshot=200)
    child = start("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 300 (")
    pid = caffe_pid(run.path)
    other = RunDir(tmp_path / "other")
    there = {holder.pid: holder for holder in holders(run)}
    assert {pid, child.pid} <= set(there)
    assert is_caffe_of(there[pid], run)
    assert not is_caffe_of(there[pid], other)
    assert not is_caffe_of(there[child.pid], run)
    os.kill(pid, signal.SIGSTOP)  # it neither writes a snapshot nor ends
    child.kill()
    child.wait()
    child.stdout.close()
    child.stderr.close()
    name_in_lock(run, stranger)
    with run.log_of(1).open("a") as log:
        log.write("\nI1126 18:00:00.000000 1 solver.cpp:1] Optimization stopped early.\n")
    again = start("--resume", "run", cwd=tmp_path)
    wait_for(lambda: run.num_starts() == 2, "for the second start")
    assert is_gone(pid)
    assert stranger.poll() is None
    again.send_signal(signal.SIGINT)
    _, err = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 130
    assert f"a Caffe whose trainer was killed is still running (process {pid})" in err
    assert "it did not end, and was killed" in err


def test_a_number_that_came_again_is_not_taken_for_the_process(tmp_path):
    run = new_run_dir(tmp_path / "run")
    with run.lock.open("r+" if run.lock.exists() else "w+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with child_of_test(["sleep", "1000"], pass_fds=[lock.fileno()]):
            (holder,) = wait_for(lambda: [one for one in holders(run) if one.argv[0] == "sleep"])
            with open_process(holder, run) as held:
                assert held is not None
                assert not held.has_ended(0)
                held.kill()
                assert held.has_ended(60)
    with open_process(holder, run) as held:
        assert held is None


@pytest.mark.slow
def test_a_container_that_a_lock_names_is_not_removed(caffe, root, tmp_path, stranger, docker):
    """Docker is asked for the command of the container."""
    solver = write_job(root, tmp_path / "job", max_iter=40)
    args = ("--solver", solver, "--run-dir", "run", "--docker", "image")
    assert irv2caffe(*args, cwd=tmp_path, **docker).returncode == 0
    run, state = RunDir(tmp_path / "run"), Path(docker["DOCKER_STATE"])
    again = ("--resume", "run", "--docker", "image", "--epochs")
    for number, name in enumerate(("database", "--all", "irv2caffe-run-9")):
        (state / f".{name}.command").write_text(json.dumps(["postgres", "-solver", "x"]))
        name_in_lock(run, stranger, container=name)
        done = irv2caffe(*again, 10 + number, cwd=tmp_path, **docker)
        assert done.returncode == 0, done.stderr
        assert name not in str([line for line in asked(state) if "rm" in line or "kill" in line])


def asked(state):
    return [json.loads(line) for line in (state / "asked.jsonl").read_text().splitlines()]
