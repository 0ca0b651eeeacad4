"""Training by the real Caffe in a run folder: to the end, stopped, resumed, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from irv2caffe.config import SolverOptions, net_options
from irv2caffe.data.build import BuildOptions, make_lmdb
from irv2caffe.data.sources import open_source
from irv2caffe.errors import (
    FormatError,
    InputError,
    MissingInputError,
    OutputExistsError,
    UsageError,
)
from irv2caffe.log.read import read_log
from irv2caffe.net.build import build_net
from irv2caffe.proto import messages
from irv2caffe.proto.files import read_binary
from irv2caffe.proto.text import read_prototxt, write_prototxt
from irv2caffe.train.launch import resume, train
from irv2caffe.train.plan import make_plan
from irv2caffe.train.run_dir import RunDir, locked, newest_snapshot
from irv2caffe.train.verdict import Ending


@pytest.fixture(scope="session")
def job(tmp_path_factory):
    """Databases of 64 and 20 dark or bright images, and a narrow net with its solver."""
    root = tmp_path_factory.mktemp("job")
    rng = np.random.default_rng(0)
    for part, count in (("train", 64), ("val", 20)):
        for index in range(count):
            name = ("dark", "bright")[index % 2]
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 100, (80, 80, 3), np.uint8) + (index % 2) * 120
            cv2.imwrite(str(folder / f"{index}.png"), image)
        make_lmdb(open_source(root / part), root / f"{part}_lmdb", BuildOptions(size=(80, 80)))
    build_net(
        root / "net",
        options(root),
        SolverOptions(epochs=2, snapshot_epochs=1),
        num_train=64,
        num_val=20,
    )
    return root


def options(root, **more):
    return net_options(
        variant="paper",
        num_classes=2,
        crop=75,
        width=0.05,
        batch_size=8,
        bn_fraction=0.9,
        train_lmdb=str(root / "train_lmdb"),
        val_lmdb=str(root / "val_lmdb"),
        **more,
    )


def test_a_run_tells_its_whole_story(caffe, job, tmp_path):
    lines, states = [], []
    result = train(
        job / "net/solver.prototxt",
        caffe,
        run_dir=tmp_path / "runs/first",
        say=lines.append,
        status=states.append,
    )
    run = RunDir(tmp_path / "runs/first")
    assert result.verdict.ending is Ending.FINISHED
    assert result.summary.iterations == 16
    assert result.summary.epochs == 2.0
    assert "16 iterations x 8 images = 2.00 epochs of 64 images" in lines
    assert "epoch" in states[-1]
    log = read_log(run.path)
    assert log.finished
    assert log.train_batch == 8
    assert [point.iteration for point in log.test] == [8, 16]
    assert sorted(path.name for path in run.snapshots.iterdir()) == [
        f"irv2_paper_iter_{iteration}.{kind}"
        for iteration in (16, 8)
        for kind in ("caffemodel", "solverstate")
    ]
    config = json.loads(run.config.read_text())
    assert (config["num_train_images"], config["effective_batch"]) == (64, 8)
    assert config["ending"] == "finished"
    solver = read_prototxt(run.solver, messages.SolverParameter)
    assert solver.net == str(run.path / "train_val.prototxt")
    assert (run.path / "deploy.prototxt").is_file()
    assert (tmp_path / "runs/latest").resolve() == run.path
    with pytest.raises(OutputExistsError):
        train(job / "net/solver.prototxt", caffe, run_dir=run.path)
    with pytest.raises(UsageError, match="is finished"):
        resume(caffe, run_dir=run.path)


def start(job, folder, *args):
    """The program as a user starts it, in a terminal of its own."""
    command = [sys.executable, "-m", "irv2caffe", "train", *args]
    return subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def long_solver(job, tmp_path):
    """A run that would take long: it has to be stopped."""
    solver = read_prototxt(job / "net/solver.prototxt", messages.SolverParameter)
    solver.max_iter = 100_000
    solver.snapshot = 0
    solver.display = 1
    write_prototxt(tmp_path / "long.prototxt", solver)
    return tmp_path / "long.prototxt"


def wait_for(path, text):
    """Until a growing file holds a text."""
    for _ in range(600):
        if path.is_file() and text in path.read_text(errors="replace"):
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} never said {text!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_with_a_snapshot_and_the_run_goes_on(caffe, job, tmp_path, number):
    solver = long_solver(job, tmp_path)
    child = start(job, tmp_path, "--solver", str(solver), "--run-dir", "run")
    run = RunDir(tmp_path / "run")
    wait_for(run.log, "Iteration 12")
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "stopped" in out
    assert "--resume" in err
    stopped_at = newest_snapshot(run).iteration
    assert stopped_at >= 12
    short = read_prototxt(run.solver, messages.SolverParameter)
    short.max_iter = stopped_at + 6
    write_prototxt(run.solver, short)
    result = resume(caffe, run_dir=run.path)
    assert result.verdict.ending is Ending.FINISHED
    log = read_log(run.path)
    assert [point.iteration for point in log.train] == list(range(stopped_at + 7))
    assert log.restarts == [stopped_at]


def test_a_second_signal_ends_it_at_once_and_leaves_no_child(caffe, job, tmp_path):
    solver = read_prototxt(long_solver(job, tmp_path), messages.SolverParameter)
    child = start(job, tmp_path, "--solver", str(tmp_path / "long.prototxt"), "--run-dir", "run")
    assert solver.max_iter == 100_000
    wait_for(tmp_path / "run/train.log", "Iteration 3")
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGSTOP)  # a Caffe that does not answer
    child.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130, err
    assert not Path(f"/proc/{children[0]}").exists()


def test_a_killed_caffe_is_a_crash(caffe, job, tmp_path):
    child = start(job, tmp_path, "--solver", str(long_solver(job, tmp_path)), "--run-dir", "run")
    wait_for(tmp_path / "run/train.log", "Iteration 3")
    caffes = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    os.kill(int(caffes[0]), signal.SIGKILL)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 1
    assert "crashed" in out
    assert "SIGKILL" in err
    assert "Traceback" not in err


def test_divergence_is_told_from_a_crash(caffe, job, tmp_path):
    build_net(
        tmp_path / "net",
        options(job),
        SolverOptions(type="SGD", base_lr=1e30, epochs=1),
        num_train=64,
        num_val=20,
    )
    result = train(tmp_path / "net/solver.prototxt", caffe, run_dir=tmp_path / "run")
    assert result.verdict.ending is Ending.DIVERGED
    assert "--base-lr" in result.verdict.hint


def test_a_torn_snapshot_is_passed_over(caffe, job, tmp_path):
    train(job / "net/solver.prototxt", caffe, run_dir=tmp_path / "run")
    moved = RunDir(tmp_path / "moved")
    (tmp_path / "run").rename(moved.path)
    newest = moved.snapshots / "irv2_paper_iter_16.solverstate"
    newest.write_bytes(newest.read_bytes()[:-100])
    snapshot = newest_snapshot(moved)
    assert snapshot.iteration == 8
    state = read_binary(snapshot.state, messages.SolverState)
    assert state.learned_net == str(snapshot.model)  # mended: the folder was moved
    for path in moved.snapshots.glob("*_8.caffemodel"):
        path.unlink()
    with pytest.raises(MissingInputError, match="no whole snapshot"):
        newest_snapshot(moved)


def test_two_trainers_in_one_folder(tmp_path):
    (tmp_path / "snapshots").mkdir()
    run = RunDir(tmp_path)
    with locked(run), pytest.raises(InputError, match="another training"), locked(run):
        pass


def test_everything_is_checked_before_the_start(caffe, job, tmp_path):
    def plan(**changes):
        net = read_prototxt(job / "net/train_val.prototxt", messages.NetParameter)
        for name, value in changes.items():
            for layer in net.layer:
                if name == "num_output" and layer.type == "InnerProduct":
                    layer.inner_product_param.num_output = value
                elif name == "crop_size" and layer.type == "Data":
                    layer.transform_param.crop_size = value
                elif name == "source" and layer.type == "Data":
                    layer.data_param.source = value
        write_prototxt(tmp_path / "net.prototxt", net)
        (tmp_path / "solver.prototxt").write_text('net: "net.prototxt" max_iter: 5')
        return make_plan(tmp_path / "solver.prototxt", caffe, "none")

    assert plan().num_train == 64
    with pytest.raises(InputError, match="crop_size 107 does not fit the 80x80 images"):
        plan(crop_size=107)
    with pytest.raises(InputError, match="label 1, the net only 1 outputs"):
        plan(num_output=1)
    with pytest.raises(MissingInputError, match="no database at"):
        plan(source="nowhere")
    with pytest.raises(MissingInputError):
        make_plan(tmp_path / "no.prototxt", caffe, "none")
    (tmp_path / "solver.prototxt").write_text("max_iter: 5")
    with pytest.raises(FormatError, match="names no net"):
        make_plan(tmp_path / "solver.prototxt", caffe, "none")
    (tmp_path / "solver.prototxt").write_text('net: "gone.prototxt" max_iter: 5')
    with pytest.raises(MissingInputError, match=r"gone\.prototxt"):
        make_plan(tmp_path / "solver.prototxt", caffe, "none")


@pytest.mark.parametrize("gpus", ["0", "0,1", "all", "0,0", "first", ""])
def test_gpus_are_refused_where_there_are_none(caffe, job, gpus):
    if not caffe.is_runtime:
        pytest.skip("the Caffe found here is not the CPU-only runtime")
    with pytest.raises(UsageError):
        make_plan(job / "net/solver.prototxt", caffe, gpus)
