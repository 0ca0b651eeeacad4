"""Training with the torch engine on the CPU: the same run folder as Caffe's, and runs of both."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.training_jobs import (
    PATIENCE_S,
    caffe_pid,
    config,
    irv2caffe,
    make_databases,
    metrics,
    newest,
    start,
    wait_for,
    write_job,
)

from irv2caffe.log.read.reader import read_log
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_binary
from irv2caffe.train.plan.gpus import any_gpu
from irv2caffe.train.run_dir.run_dir import RunDir
from irv2caffe.train.run_dir.snapshots import pairs, problem

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

TORCH = ("--engine", "torch", "--gpus", "none")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Databases, and a run of the torch engine with snapshots of 20, 40 and 60."""
    folder = tmp_path_factory.mktemp("torch")
    make_databases(folder)
    solver = write_job(folder, folder / "job", max_iter=60, snapshot=20, test_interval=20)
    done = irv2caffe("--solver", solver, "--run-dir", "run", "--plot", *TORCH, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "said").write_text(done.stdout + done.stderr)
    return folder


def test_a_run_folder_as_caffe_s(root, finished):
    run = RunDir(root / "run")
    ours, caffe_s = ({p.name for p in folder.iterdir()} for folder in (run.path, finished))
    assert ours - {"plot.png"} == caffe_s
    said = (root / "said").read_text()
    for words in (
        "engine torch: as --engine says", "the torch engine trains on CPU", "60 iterations x 8",
        "iterations            60 (7.50 epochs)", "images per iteration  8", "finished: run",
    ):  # fmt: skip
        assert words in said, words
    assert cv2.imread(str(run.plot)) is not None
    for iteration in (20, 40, 60):
        (state,) = run.snapshots.glob(f"*_iter_{iteration}.solverstate")
        assert read_binary(state, messages.SolverState).iter == iteration
    assert (run.path / "snapshots.sha256").read_text().count("/tiny_iter_") == 6


def test_its_log_and_records_are_read_as_caffe_s(root):
    run = RunDir(root / "run")
    log = read_log(run.path)
    assert log.finished
    assert log.train_batch == 8
    assert [point.iteration for point in log.test] == [0, 20, 40, 60]
    assert [point.iteration for point in log.train] == list(range(0, 61, 10))
    rows = metrics(run.path)
    assert [row["iteration"] for row in rows if row["kind"] == "test"] == [0, 20, 40, 60]
    kept = config(run.path)
    assert (kept["engine"], kept["ending"], kept["gpus"]) == ("torch", "finished", "none")
    assert kept["torch"]["options"]["exact"] is True
    argv = kept["starts"][0]["argv"]
    assert argv[:4] == [sys.executable, "-P", "-m", "irv2caffe.engine"]
    assert argv[-1] == "--exact"
    assert "caffe" not in kept


def test_the_plan_says_which_engine_and_why(caffe, root, tmp_path):
    args = ("--solver", root / "job/solver.prototxt", "--dry-run", "--gpus", "none")
    shown = irv2caffe(*args, cwd=tmp_path)
    assert "caffe: Caffe can do what was asked; --engine torch takes PyTorch" in shown.stdout
    assert "[no-augmentation]" in shown.stdout
    more = ("--workers", 2, "--sync-bn", "--augment", "inception")
    shown = irv2caffe(*args, *more, cwd=tmp_path)
    assert "[no-augmentation]" not in shown.stdout
    for words in (
        "torch: --sync-bn is an option of the torch engine",
        "CPU, 2 processes",
        "16 = batch_size 8 x 2 CPU processes x iter_size 1",
        "not as in Caffe: BatchNorm's statistics are those of all processes' batches",
    ):
        assert words in shown.stdout, words
    values = json.loads(irv2caffe(*args, "--precision", "bf16", "--json", cwd=tmp_path).stdout)
    resolved = values["config"]
    assert resolved["precision"] == {"value": "bf16", "from": "option --precision"}
    assert resolved["ema"] == {"value": 0.0, "from": "default"}
    assert values["engine"]["name"] == "torch"
    assert values["engine"]["options"]["exact"] is False
    assert values["engine"]["options"]["precision"] == "bf16"


def test_no_gpu_is_never_passed_over_in_silence(root, tmp_path):
    args = ("--solver", root / "job/solver.prototxt", "--run-dir", "run", "--dry-run")
    shown = irv2caffe(*args, "--engine", "torch", cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert "CPU: this machine has no GPU" in shown.stdout
    import torch

    if torch.version.cuda is None:
        refused = irv2caffe(*args, "--engine", "torch", "--gpus", "0", cwd=tmp_path)
        assert refused.returncode == 2
        help_of = {True: ("built for the CPU", "--index-url"), False: ("no GPU was found", "none")}
        for words in help_of[any_gpu()]:
            assert words in refused.stderr


def test_caffe_torch_and_caffe_again_in_one_run(caffe, root, tmp_path):
    """Each goes on from the other's snapshot, with the weights and the rate it finds there."""
    solver = write_job(root, tmp_path / "job", max_iter=40, snapshot=20, gamma=0.1, stepsize=50)
    first = irv2caffe("--solver", solver, "--run-dir", "run", "--engine", "caffe", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    names = ["caffe"]
    for engine, epochs, said in (
        ("torch", 10, "engine caffe -> torch"),
        (None, 12.5, "from iteration 80"),
        ("caffe", 15, "engine torch -> caffe"),
    ):
        chosen = ("--engine", engine) if engine else ()
        done = irv2caffe("--resume", "run", "--epochs", epochs, *chosen, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert said in done.stderr
        names.append(config(tmp_path / "run")["engine"])
    assert names == ["caffe", "torch", "torch", "caffe"]
    run = RunDir(tmp_path / "run")
    log = read_log(run.path)
    assert log.finished
    assert log.restarts == [40, 80, 100]
    assert [point.iteration for point in log.train] == list(range(0, 121, 10))
    rates = {row["iteration"]: row["lr"] for row in metrics(run.path) if row.get("lr")}
    assert rates[40] == pytest.approx(0.01, rel=1e-5)
    assert rates[60] == pytest.approx(0.001, rel=1e-5)
    assert rates[110] == pytest.approx(0.0001, rel=1e-5)
    losses = [point.loss for point in log.train]
    assert losses[-1] < 0.5 * losses[0]  # it has learned on, from start to start


def test_both_engines_lose_the_same_from_one_snapshot(finished, root, tmp_path):
    """100 iterations after a snapshot of Caffe: the same losses, and weights nearly the same."""
    (state,) = finished.glob("snapshots/*_iter_200.solverstate")
    solver = finished / "solver.prototxt"
    weights, losses = [], []
    for engine in ("caffe", "torch"):
        args = ("--resume", state, "--solver", solver, "--run-dir", engine, "--engine", engine)
        done = irv2caffe(*args, "--epochs", 37.5, "--gpus", "none", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        log = read_log(tmp_path / engine)
        losses.append([point.loss for point in log.train])
        pair = pairs(tmp_path / engine / "snapshots")[0]
        assert pair.iteration == 300
        assert not problem(pair)
        model = read_binary(pair.model, messages.NetParameter)
        weights.append(np.concatenate([b.data for layer in model.layer for b in layer.blobs]))
    assert len(losses[0]) == 11
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_smoke(root, tmp_path):
    solver = root / "job/solver.prototxt"
    done = irv2caffe("--solver", solver, "--smoke", "--json", *TORCH, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["step_s"] > 0
    assert report["test_s"] > 0
    assert report["pair_bytes"] > 1000
    assert list((tmp_path / "runs").iterdir()) == []


def test_averaged_weights_lie_beside_each_snapshot(root, tmp_path):
    """They are deleted with it, and a resumed run goes on with them."""
    solver = write_job(root, tmp_path / "job", max_iter=30, snapshot=10)
    more = ("--ema", 0.9, "--keep-snapshots", 1, "--keep-epochs", 0, *TORCH)
    done = irv2caffe("--solver", solver, "--run-dir", "run", *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tests use weights averaged with decay 0.9" in done.stderr
    names = {path.name for path in (tmp_path / "run/snapshots").iterdir()}
    assert names == {f"tiny_iter_30.{k}" for k in ("caffemodel", "solverstate", "ema.caffemodel")}
    done = irv2caffe("--resume", "run", "--epochs", 5, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Restoring averaged weights" in (tmp_path / "run/train.log").read_text()


def test_two_processes(root, tmp_path):
    solver = write_job(root, tmp_path / "job", max_iter=20, snapshot=0, display=5)
    done = irv2caffe("--solver", solver, "--run-dir", "run", "--workers", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--workers is an option of the torch engine" in done.stderr
    assert "20 iterations x 16 images = 5.00 epochs" in done.stderr
    assert config(tmp_path / "run")["effective_batch"] == 16
    log = read_log(tmp_path / "run")
    assert [point.iteration for point in log.train] == [0, 5, 10, 15, 20]


def test_after_the_death_of_one_process_all_start_again(root, tmp_path):
    solver = write_job(root, tmp_path / "job", max_iter=1000, snapshot=100)
    args = ("--solver", solver, "--run-dir", "run", "--workers", 2)
    child = start(*args, cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    wait_for(lambda: newest(run), "for a snapshot")
    pid = caffe_pid(run.path)
    ranks = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(ranks[1]), signal.SIGKILL)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, err
    assert "rank 1 of 2" in err
    first, second = config(run.path)["starts"]
    assert (first["ending"], second["ending"]) == ("crashed", "finished")
    assert second["from_iteration"] >= 100


def test_layers_that_it_does_not_have_are_listed_at_once(root, tmp_path):
    solver = write_job(root, tmp_path / "job")
    net = tmp_path / "job/net.prototxt"
    text = net.read_text()
    text += 'layer { name: "spp" type: "SPP" bottom: "conv" top: "spp" include { phase: TEST } }\n'
    text += 'layer { name: "lstm" type: "LSTM" bottom: "conv" top: "lstm" include { phase: TEST } }'
    net.write_text(text)
    args = ("--solver", solver, "--run-dir", "run", "--ignore-findings", *TORCH)
    refused = irv2caffe(*args, cwd=tmp_path)
    assert refused.returncode == 1
    assert "the torch engine cannot run 'spp' (SPP), 'lstm' (LSTM)" in refused.stderr
    assert "--engine caffe" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_what_the_engine_gives_up_with_is_the_reason(root, tmp_path):
    """Its own message and hint, not a guess from the exit status."""
    solver = write_job(root, tmp_path / "job", type='"RMSProp"')  # with a momentum of 0.9
    args = ("--solver", solver, "--run-dir", "run", "--ignore-findings", *TORCH)
    done = irv2caffe(*args, cwd=tmp_path)
    assert done.returncode == 1
    assert "Momentum cannot be used with RMSProp" in done.stderr
    assert config(tmp_path / "run")["ending"] == "crashed"
    assert len(config(tmp_path / "run")["starts"]) == 1
