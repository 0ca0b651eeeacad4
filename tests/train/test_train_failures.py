"""Failures of a training and the verdicts on them, with the real Caffe but for GPUs and hangs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.training_jobs import (
    FOREVER,
    PATIENCE_S,
    caffe_pid,
    config,
    irv2caffe,
    is_gone,
    metrics,
    newest,
    start,
    wait_for,
    wait_for_text,
    write_job,
)

from irv2caffe.caffe.command import tool_command
from irv2caffe.config import SolverOptions, net_options
from irv2caffe.data.lmdb_store import DatabaseWriter
from irv2caffe.data.records.datum import record_key
from irv2caffe.log.read.reader import read_log
from irv2caffe.net.build import build_net
from irv2caffe.proto import messages
from irv2caffe.train.plan.gpus import any_gpu
from irv2caffe.train.run.tracker import Tracker
from irv2caffe.train.run_dir.failure_causes import cause_of, cause_of_exit
from irv2caffe.train.run_dir.run_dir import RunDir
from irv2caffe.train.run_dir.snapshots import pairs

RESUME = ("--resume", "run", "--caffe")


@pytest.mark.slow
def test_a_stalled_caffe_is_killed_and_started_again(caffe, root, tmp_path):
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER)
    child = start("--solver", solver, "--run-dir", "run", "--stall-minutes", 0.03, cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 500 (")
    pid = caffe_pid(run.path)
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: run.num_starts() == 2, "for the second start")
    assert is_gone(pid)
    wait_for_text(run.log_of(2), "loss = ")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    starts = config(run.path)["starts"]
    assert [entry["ending"] for entry in starts] == ["stalled", "stopped"]
    assert "stopped by a signal" in starts[0]["why"]
    assert starts[1]["from_iteration"] > 0


@pytest.mark.slow
def test_a_stall_that_may_not_be_restarted(caffe, root, tmp_path):
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER)
    args = ("--solver", solver, "--run-dir", "run", "--stall-minutes", 0.02, "--max-restarts", 0)
    child = start(*args, cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 500 (")
    os.kill(caffe_pid(run.path), signal.SIGSTOP)
    out, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 1
    assert out.rstrip().endswith("stalled: run")
    assert "no line for" in err
    assert config(run.path)["ending"] == "stalled"


NAN = {"base_lr": 1e6, "display": 1, "max_iter": FOREVER}


@pytest.mark.slow
def test_nan_stops_with_advice(caffe, root, tmp_path):
    solver = write_job(root, tmp_path / "job", **NAN)
    done = irv2caffe("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert "diverged: run" in done.stdout
    assert "--base-lr" in done.stderr
    assert "going on" not in done.stderr
    log = read_log(tmp_path / "run")
    assert not log.finished  # the bare binary goes on to its end and exits 0
    assert config(tmp_path / "run")["ending"] == "diverged"
    rows = [row for row in metrics(tmp_path / "run") if row["kind"] == "train"]
    assert rows[-1]["loss"] is None  # JSON has no NaN


@pytest.mark.slow
def test_nan_may_go_on_and_is_still_no_success(caffe, root, tmp_path):
    solver = write_job(root, tmp_path / "job", **{**NAN, "max_iter": 60, "test_interval": 20})
    args = ("--solver", solver, "--run-dir", "run", "--on-divergence", "continue")
    done = irv2caffe(*args, cwd=tmp_path)
    assert done.returncode == 1
    assert config(tmp_path / "run")["starts"][0]["exit_status"] == 0  # what Caffe says of it
    assert "diverged: run" in done.stdout
    assert read_log(tmp_path / "run").finished
    tests = [row for row in metrics(tmp_path / "run") if row["kind"] == "test"]
    assert tests[-1]["outputs"]["acc/top-1"] == 1  # of NaN: that is no success
    # its last snapshots hold NaN: nothing is resumed from them
    resumed = irv2caffe("--resume", "run", cwd=tmp_path)
    assert "holds weights that are not numbers" in resumed.stderr


@pytest.mark.slow
def test_rollback_goes_back_and_comes_to_the_end(caffe, root, tmp_path):
    """The learning rate explodes by its own policy; with a smaller one it does not."""
    solver = write_job(
        root, tmp_path / "job", base_lr=0.01, lr_policy='"step"', gamma=10,
        weight_decay=0.01, stepsize=100,
        display=5, max_iter=1000, snapshot=100,
    )  # fmt: skip
    args = ("--solver", solver, "--run-dir", "run", "--on-divergence", "rollback")
    done = irv2caffe(*args, "--rollback-lr", 1e-8, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = RunDir(tmp_path / "run")
    starts = config(run.path)["starts"]
    assert starts[0]["ending"] == "diverged"
    assert starts[-1]["ending"] == "finished"
    assert starts[1]["base_lr"] == pytest.approx(1e-10)
    assert 0 < starts[1]["from_iteration"] <= starts[0]["iteration"]
    assert newest(run) == 1000
    assert [point.iteration for point in read_log(run.path).train] == list(range(0, 1001, 5))


@pytest.mark.slow
def test_rollbacks_have_an_end(caffe, root, tmp_path):
    solver = write_job(root, tmp_path / "job", **NAN)
    args = ("--solver", solver, "--run-dir", "run", "--on-divergence", "rollback")
    done = irv2caffe(*args, "--max-rollbacks", 2, cwd=tmp_path)
    assert done.returncode == 1
    assert "diverged again after 2 rollbacks: given up" in done.stderr
    rates = [entry["base_lr"] for entry in config(tmp_path / "run")["starts"]]
    assert rates == [1e6, 5e5, 2.5e5]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB, or None where this user may not make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        yield None
        return
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_a_full_disk(caffe, root, tmp_path, small_disk):
    """The disk fills up during the training; Caffe's last messages are in the log nevertheless."""
    if small_disk is None:
        again_where_it_may_be_mounted("test_a_full_disk")
        return
    run = RunDir(small_disk / "run")
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER, snapshot=1000)
    child = start("--solver", solver, "--run-dir", run.path, cwd=tmp_path)
    wait_for(lambda: newest(run) >= 1000, "for a snapshot")
    filler = small_disk / "filler"
    fill(filler)
    out, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 1
    assert f"crashed: {run.path}" in out
    assert "the disk is full" in err
    assert "SerializeToOstream" in run.log_of(1).read_text()  # it had its reserved place
    assert run.num_starts() == 1  # another start would not help
    late = irv2caffe("--resume", run.path, cwd=tmp_path)
    assert late.returncode == 1
    assert "are free" in late.stderr
    filler.unlink()
    at = newest(run)
    assert at >= 1000
    text = re.sub(r"(?m)^max_iter: \d+", f"max_iter: {at + 300}", run.solver.read_text())
    run.solver.write_text(text)
    done = irv2caffe("--resume", run.path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    log = read_log(run.path)
    assert [point.iteration for point in log.train] == list(range(0, at + 301, 10))


def fill(path):
    """Writes until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 4096)


@pytest.mark.slow
def test_a_stop_on_a_full_disk(caffe, root, tmp_path, small_disk):
    """Its snapshot cannot be written, and the message says so."""
    if small_disk is None:
        again_where_it_may_be_mounted("test_a_stop_on_a_full_disk")
        return
    run = RunDir(small_disk / "run")
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER, snapshot=0)
    child = start("--solver", solver, "--run-dir", run.path, cwd=tmp_path)
    wait_for_text(run.log, "Iteration 300 (")
    fill(small_disk / "filler")
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    assert "no snapshot was written: the disk is full" in err
    assert "free some space" in err
    assert "was killed" not in err


def again_where_it_may_be_mounted(name):
    """The same test in a namespace of its own, in which every user is root."""
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("neither root nor user namespaces: no disk can be made full here")
    pytest_again = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    command = [*inside, *pytest_again, "-k", name]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_a_power_cut(caffe, root, tmp_path):
    """The newest files are torn, empty, full of zeros or gone; the run goes on from before them."""
    solver = write_job(root, tmp_path / "job", snapshot=100)
    done = irv2caffe("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = RunDir(tmp_path / "run")
    by_iteration = {pair.iteration: pair for pair in pairs(run.snapshots)}
    model = by_iteration[1000].model
    model.write_bytes(model.read_bytes()[:-40])
    state = by_iteration[900].state
    state.write_bytes(state.read_bytes()[:-40] + bytes(40))
    by_iteration[800].model.write_bytes(b"")
    by_iteration[700].model.unlink()
    shutil.copy(by_iteration[600].model, by_iteration[600].state)
    done = irv2caffe("--resume", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming from iteration 500" in done.stderr
    assert done.stderr.count("skipped snapshot:") == 5
    assert newest(run) == 1000
    assert [point.iteration for point in read_log(run.path).train] == list(range(0, 1001, 10))


@pytest.mark.slow
def test_a_moved_run_folder(caffe, root, tmp_path):
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER)
    child = start("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 500 (")
    child.send_signal(signal.SIGTERM)
    child.wait(PATIENCE_S)
    moved = RunDir(tmp_path / "elsewhere" / "moved, run")
    moved.path.parent.mkdir()
    run.path.rename(moved.path)
    at = newest(moved)
    text = re.sub(r"(?m)^max_iter: \d+", f"max_iter: {at + 100}", moved.solver.read_text())
    moved.solver.write_text(text)
    done = irv2caffe("--resume", moved.path, cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert "corrected the path of the model in" in done.stderr
    assert newest(moved) == at + 100
    assert not run.path.exists()


# Several GPUs: a stand-in.


@pytest.mark.slow
def test_several_gpus_hang_after_a_stop(stand_in, root, tmp_path):
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER)
    args = ("--solver", solver, "--run-dir", "run", "--gpus", "0,1", "--caffe", stand_in)
    child = start(*args, cwd=tmp_path, STAND_IN="hang")
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 100 (")
    assert "Using GPUs 0, 1" in run.log.read_text()
    pid = caffe_pid(run.path)
    worker = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    assert "hangs: killed" in err
    assert time.monotonic() - began > 5  # it had its chance
    assert is_gone(pid)
    assert is_gone(worker)
    assert config(run.path)["ending"] == "stopped"
    assert newest(run) >= 100
    assert config(run.path)["effective_batch"] == 16


@pytest.mark.slow
def test_a_killed_trainer_of_several_gpus_leaves_no_hanging_caffe(stand_in, root, tmp_path):
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER)
    args = ("--solver", solver, "--run-dir", "run", "--gpus", "0,1", "--caffe", stand_in)
    child = start(*args, cwd=tmp_path, STAND_IN="hang")
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 100 (")
    pid = caffe_pid(run.path)
    child.kill()
    child.wait()
    wait_for_text(run.log_of(1), "stopped early")
    at = newest(run)
    text = re.sub(r"(?m)^max_iter: \d+", f"max_iter: {at + 50}", run.solver.read_text())
    run.solver.write_text(text)
    again = irv2caffe(
        "--resume", "run", "--gpus", "0,1", "--caffe", stand_in, cwd=tmp_path, STAND_IN="well"
    )
    assert again.returncode == 0, again.stderr
    assert "did not end, and was killed" in again.stderr
    assert is_gone(pid)
    assert newest(run) == at + 50


@pytest.mark.slow
def test_nvcaffe_dies_and_comes_to_its_end(stand_in, root, tmp_path):
    """NVCaffe's lines, and its snapshots with a score in the name and with unknown fields."""
    solver = write_job(root, tmp_path / "job", max_iter=100, snapshot=20, test_interval=100)
    args = ("--solver", solver, "--run-dir", "run", "--gpus", "0,1", "--caffe", stand_in)
    words = "F Check failed: error == cudaSuccess (700 vs. 0)  an illegal memory access"
    done = irv2caffe(*args, cwd=tmp_path, STAND_IN=words, STAND_IN_VERSION="0.17.4")
    assert done.returncode == 0, done.stderr
    assert "cannot be used" not in done.stderr
    run = RunDir(tmp_path / "run")
    starts = config(run.path)["starts"]
    assert [entry["ending"] for entry in starts] == ["crashed", "finished"]
    assert [entry["from_iteration"] for entry in starts] == [0, 20]
    assert config(run.path)["effective_batch"] == 8  # both GPUs' together
    assert newest(run) == 100
    rows = metrics(run.path)
    trained = [row for row in rows if row["kind"] == "train"]
    assert [row["iteration"] for row in trained] == list(range(0, 101, 10))
    assert {(row["loss"], row["lr"]) for row in trained[:-1]} == {(0.5, 0.01)}
    (tested,) = [row for row in rows if row["kind"] == "test"]
    assert (tested["iteration"], tested["top1_error"], tested["loss"]) == (100, 25.0, 0.4)
    resumed = irv2caffe(*RESUME, stand_in, cwd=tmp_path, STAND_IN_VERSION="0.17.4")
    assert resumed.returncode == 2
    assert "is finished" in resumed.stderr


@pytest.mark.slow
def test_nvcaffe_is_stopped_and_goes_on(stand_in, root, tmp_path):
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER, snapshot=0)
    args = ("--solver", solver, "--run-dir", "run", "--gpus", "0,1", "--caffe", stand_in)
    child = start(*args, cwd=tmp_path, STAND_IN_VERSION="0.17.4")
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 100 (")
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    at = newest(run)
    assert at >= 100
    change(run.solver, f"max_iter: {FOREVER}", f"max_iter: {at + 50}")
    done = irv2caffe(*RESUME, stand_in, cwd=tmp_path, STAND_IN_VERSION="0.17.4")
    assert done.returncode == 0, done.stderr
    assert config(run.path)["starts"][1]["from_iteration"] == at


FATAL = {
    "a wrong GPU": (
        "F Check failed: error == cudaSuccess (101 vs. 0)  invalid device ordinal",
        "there is no GPU of that number", False,
    ),
    "out of memory": (
        "F Check failed: error == cudaSuccess (2 vs. 0)  out of memory", "not enough memory", False,
    ),
    "an illegal access": (
        "F Check failed: error == cudaSuccess (700 vs. 0)  an illegal memory access",
        "a GPU failed while it computed", True,
    ),
    "NCCL": (
        "F Check failed: result == ncclSuccess (2 vs. 0)  unhandled system error",
        "the GPUs could not communicate with each other", True,
    ),
    "no F line": (
        "terminate called after throwing an instance of 'boost::bad_lexical_cast'",
        "could not read the numbers of the GPUs", False,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FATAL)
def test_fatal_lines_of_gpus(stand_in, root, tmp_path, name):
    words, meaning, is_passing = FATAL[name]
    solver = write_job(root, tmp_path / "job", max_iter=100, snapshot=20)
    args = ("--solver", solver, "--run-dir", "run", "--gpus", "0,1", "--caffe", stand_in)
    done = irv2caffe(*args, cwd=tmp_path, STAND_IN=words)
    assert meaning in done.stderr
    starts = config(tmp_path / "run")["starts"]
    assert starts[0]["exit_status"] == -signal.SIGABRT
    assert starts[0]["ending"] == "crashed"
    if is_passing:
        assert done.returncode == 0, done.stderr
        assert [entry["from_iteration"] for entry in starts] == [0, 20]
    else:
        assert done.returncode == 1
        assert len(starts) == 1


@pytest.mark.slow
def test_a_stall_of_several_gpus(stand_in, root, tmp_path):
    solver = write_job(root, tmp_path / "job", max_iter=100, snapshot=20)
    args = ("--solver", solver, "--run-dir", "run", "--gpus", "0,1", "--caffe", stand_in)
    done = irv2caffe(*args, "--stall-minutes", 0.02, cwd=tmp_path, STAND_IN="stall")
    assert done.returncode == 0, done.stderr
    starts = config(tmp_path / "run")["starts"]
    assert [entry["ending"] for entry in starts] == ["stalled", "finished"]
    assert "layer_wise_reduce is false now" in done.stderr
    assert "layer_wise_reduce: false" in RunDir(tmp_path / "run").solver.read_text()


@pytest.mark.slow
def test_cpu_only_caffe_with_gpus(caffe, root, tmp_path):
    """Refused before the start; Caffe's own message is tested below."""
    solver = write_job(root, tmp_path / "job")
    for gpus in ("0", "0,1", "all"):
        done = irv2caffe("--solver", solver, "--run-dir", "run", "--gpus", gpus, cwd=tmp_path)
        assert done.returncode == 2
        words = "built without GPU support" if any_gpu() else "no GPU was found"
        assert words in done.stderr
        assert "--gpus none" in done.stderr
    assert not (tmp_path / "run").exists()


# What the real Caffe says when it is given something wrong, and what we make of it.

REAL: dict[str, Any] = {
    "unknown layer": ({}, 'type: "InnerProduct"', 'type: "Inner"', "no layer of type Inner"),
    "unknown bottom": (
        {}, 'bottom: "conv" top: "fc"', 'bottom: "cow" top: "fc"', "which no layer writes",
    ),
    "momentum": ({"type": '"RMSProp"'}, "", "", "Caffe's RMSProp has no momentum"),
    "leveldb": ({}, "backend: LMDB", "", "is not one"),
    "no database": ({}, "train_lmdb", "no_lmdb", "a database is missing"),
    "crop": ({}, "scale: 0.01", "crop_size: 20", "the crop is larger"),
    "prefix": ({"snapshot_prefix": '"/nowhere/x"'}, "", "", "snapshots cannot be written"),
    "unknown field": ({"bogus": 1}, "", "", "does not know the field bogus"),
    "no net": ({"net": '"gone.prototxt"'}, "", "", "a file is missing"),
    "two tops": ({}, 'top: "loss"', 'top: "label"', "two layers write label"),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_last_words_of_the_real_caffe(caffe, root, tmp_path, name):
    changes, old, new, meaning = REAL[name]
    solver = write_job(root, tmp_path, max_iter=10, **changes)
    net = tmp_path / "net.prototxt"
    net.write_text(net.read_text().replace(old, new) if old else net.read_text())
    assert meaning in advice_on(caffe, tmp_path, "-solver", solver).why


def test_threads_that_go_on_printing_do_not_hide_the_cause():
    tracker = Tracker()
    stamp = "1126 10:00:00.000000 7"
    tracker.line(f"E{stamp} io.cpp:176] Could not decode datum ")
    last = "Check failed: channels == img_channels (3 vs. 1) "
    tracker.line(f"F{stamp} data_transformer.cpp:239] {last}")
    for number in range(100):
        tracker.line(f"I{stamp} net.cpp:84] Creating Layer conv{number}")
    assert "an image that cannot be decoded" in cause_of(tracker.now.failure_text).why


def advice_on(caffe, cwd, *args):
    """The cause that is found for the last messages of a real Caffe that aborts."""
    done = bare_caffe(caffe, cwd, *args)
    assert done.returncode == -signal.SIGABRT, done.stderr
    tracker = Tracker()
    for line in done.stderr.splitlines():
        tracker.line(line)
    advice = cause_of(tracker.now.failure_text)
    assert advice is not None, tracker.now.failure_text
    assert not advice.retryable
    assert advice.hint
    return advice


def bare_caffe(caffe, cwd, *args):
    """``caffe train`` without supervision."""
    command = tool_command(caffe, "caffe", ["train", *map(str, args)])
    return subprocess.run(
        command.argv,
        env={**command.env, "GLOG_logtostderr": "1"},
        capture_output=True,
        cwd=cwd,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("gpus", ["0", "0,1", "all"])
def test_words_of_a_cpu_only_caffe_that_is_told_gpus(caffe, root, tmp_path, gpus):
    solver = write_job(root, tmp_path, solver_mode="GPU")
    advice = advice_on(caffe, tmp_path, "-solver", solver, "-gpu", gpus)
    assert advice.why == "this Caffe was built without GPU support"


def test_words_of_gpu_numbers_that_are_none(caffe, root, tmp_path):
    """Caffe has no F line for it."""
    solver = write_job(root, tmp_path, solver_mode="GPU")
    advice = advice_on(caffe, tmp_path, "-solver", solver, "-gpu", "0,,1")
    assert advice.why == "Caffe could not read the numbers of the GPUs"


# What is done to the two files of a snapshot, which of them goes to -snapshot, and what we say.
SPOILT = {
    "a model for a state": (lambda _: None, "caffemodel", "or it is a .caffemodel"),
    "a model that was moved": (
        lambda model: model.rename(model.with_name("moved")), "solverstate", "a file is missing",
    ),
    "a torn model": (
        lambda model: model.write_bytes(model.read_bytes()[:-40]), "solverstate",
        "a .caffemodel is torn",
    ),
    "a state of another solver": (
        lambda model: change(model.parent / "solver.prototxt", 'type: "SGD"', 'type: "Adam"'),
        "solverstate", "of another solver type",
    ),
    "a state that was moved": (
        lambda model: model.with_suffix(".solverstate").unlink(), "solverstate",
        "a file is missing",
    ),
}  # fmt: skip


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.slow
@pytest.mark.parametrize("name", SPOILT)
def test_words_on_snapshots_that_are_spoilt(caffe, root, tmp_path, name):
    spoil, kind, meaning = SPOILT[name]
    prefix = f'"{tmp_path}/tiny"'
    solver = write_job(root, tmp_path, max_iter=4, snapshot_prefix=prefix, type='"SGD"')
    first = bare_caffe(caffe, tmp_path, "-solver", solver)
    assert first.returncode == 0, first.stderr
    spoil(tmp_path / "tiny_iter_4.caffemodel")
    snapshot = tmp_path / f"tiny_iter_4.{kind}"
    assert meaning in advice_on(caffe, tmp_path, "-solver", solver, "-snapshot", snapshot).why


def test_words_on_a_folder_that_is_missing_at_the_end(caffe, root, tmp_path):
    """With snapshot: 0 Caffe does not check the folder before the training is done."""
    changes = {"max_iter": 4, "snapshot": 0, "snapshot_prefix": '"nowhere/tiny"'}
    solver = write_job(root, tmp_path, **changes)
    advice = advice_on(caffe, tmp_path, "-solver", solver)
    assert advice.why == "a snapshot could not be written"


def databases_with(root, folder, *records):
    """The net and solver of the tests, with a training database of these records."""
    folder.mkdir()
    shutil.copytree(root / "val_lmdb", folder / "val_lmdb")
    (folder / "train_lmdb").mkdir()
    with DatabaseWriter(folder / "train_lmdb") as writer:
        for index, record in enumerate(records):
            writer.put(record_key(index, f"{index}.png"), record.SerializeToString())
    return folder


def image(channels, size=10):
    return messages.Datum(
        channels=channels, height=size, width=size, label=0, data=bytes(channels * size * size)
    )


@pytest.mark.parametrize(
    ("records", "meaning"),
    [
        ((), "a database is empty"),
        ((image(3), image(1)), "a database mixes gray and colour images"),
    ],
)
def test_words_on_records_of_a_database(caffe, root, tmp_path, records, meaning):
    databases = databases_with(root, tmp_path / "databases", *records)
    solver = write_job(databases, tmp_path / "job", max_iter=4, snapshot=0)
    assert advice_on(caffe, tmp_path, "-solver", solver).why == meaning


def test_words_on_a_crop_that_does_not_fit_the_net(caffe, noise_lmdb, tmp_path):
    """The branches of a reduction round differently."""
    made = net_options(
        variant="paper", num_classes=2, width=0.05, crop=75, batch_size=1,
        train_lmdb=str(noise_lmdb), val_lmdb=str(noise_lmdb),
    )  # fmt: skip
    build_net(tmp_path / "net", made, SolverOptions(epochs=1), num_train=8, num_val=8)
    net = tmp_path / "net/train_val.prototxt"
    change(net, "crop_size: 75", "crop_size: 64")
    command = ["-solver", tmp_path / "net/solver.prototxt"]
    assert "because of the crop" in advice_on(caffe, tmp_path / "net", *command).why


def test_exit_statuses_without_words():
    assert "SIGKILL" in cause_of_exit(-9).why
    assert cause_of_exit(-11).retryable
    assert not cause_of_exit(1).retryable
    assert cause_of("all is well") is None
