"""Training with the real Caffe in a run folder: plan, records, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.training_jobs import irv2caffe, make_databases, metrics, write_job

from irv2caffe import system
from irv2caffe.caffe.capability import Capability
from irv2caffe.caffe.command import tool_command
from irv2caffe.caffe.find import FoundCaffe
from irv2caffe.config import SolverOptions, net_options
from irv2caffe.data.build.make_lmdb import make_lmdb
from irv2caffe.data.lmdb_store import DatabaseWriter
from irv2caffe.data.options import BuildOptions
from irv2caffe.data.records.datum import raw_head, raw_tail, record_key
from irv2caffe.data.sources import open_source
from irv2caffe.errors import (
    FormatError,
    InputError,
    MissingInputError,
    OutputExistsError,
    UsageError,
)
from irv2caffe.log.read.reader import read_log
from irv2caffe.net.build import build_net
from irv2caffe.net.inception_resnet_v2 import deploy
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_binary
from irv2caffe.proto.text import read_prototxt, write_prototxt
from irv2caffe.train.engines.engine import CaffeEngine
from irv2caffe.train.plan.gpus import Devices, any_gpu, choose, notes
from irv2caffe.train.plan.make_plan import make_plan
from irv2caffe.train.plan.plan import TrainOptions
from irv2caffe.train.plan.plan_text import as_dict, rows
from irv2caffe.train.run.launch import resume, train
from irv2caffe.train.run.metrics_jsonl import rebuild
from irv2caffe.train.run.options import SupervisionOptions
from irv2caffe.train.run.verdict import Ending
from irv2caffe.train.run_dir.folders import new_run_dir
from irv2caffe.train.run_dir.lock import locked
from irv2caffe.train.run_dir.run_dir import RunDir


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
        source = open_source(root / part)
        make_lmdb(source, root / f"{part}_lmdb", BuildOptions(size=(80, 80)))
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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Databases for a net whose iterations take a moment."""
    root = tmp_path_factory.mktemp("tiny")
    make_databases(root)
    return root


@pytest.mark.slow
def test_a_run_tells_its_whole_story(caffe_engine, job, tmp_path):
    lines, states = [], []
    result = train(
        job / "net/solver.prototxt",
        caffe_engine,
        TrainOptions(run_dir=tmp_path / "runs/first"),
        say=lines.append,
        status=states.append,
    )
    run = RunDir(tmp_path / "runs/first")
    assert result.verdict.ending is Ending.FINISHED
    assert result.summary.iterations == 16
    assert result.summary.epochs == 2.0
    assert "16 iterations x 8 images = 2.00 epochs of 64 images" in lines
    assert "epoch" in states[-1].line()
    assert states[-1].share <= 1
    log = read_log(run.path)
    assert log.finished
    assert log.train_batch == 8
    assert [point.iteration for point in log.test] == [8, 16]
    assert run.log.read_bytes() == run.log_of(1).read_bytes()
    assert sorted(path.name for path in run.snapshots.glob("irv2_paper*")) == [
        f"irv2_paper_iter_{iteration}.{kind}"
        for iteration in (16, 8)
        for kind in ("caffemodel", "solverstate")
    ]
    assert result.snapshot == run.snapshots / "irv2_paper_iter_16.caffemodel"
    config = json.loads(run.config.read_text())
    assert (config["num_train_images"], config["effective_batch"]) == (64, 8)
    assert config["ending"] == "finished"
    assert (run.path / "labels.txt").read_text() == "bright\ndark\n"
    resized = {"size": [80, 80], "resize_mode": "squash", "interpolation": "linear", "gray": False}
    assert config["stored_images"] == resized
    assert config["machine"]["cores"] == system.num_cores()
    assert config["starts"][0]["argv"][-1] == str(run.solver)
    solver = read_prototxt(run.solver, messages.SolverParameter)
    assert solver.net == str(run.path / "train_val.prototxt")
    assert (run.path / "deploy.prototxt").is_file()
    assert cv2.imread(str(run.plot)) is not None
    assert (tmp_path / "runs/latest").resolve() == run.path
    with pytest.raises(OutputExistsError, match="--resume"):
        train(job / "net/solver.prototxt", caffe_engine, TrainOptions(run_dir=run.path))
    with pytest.raises(UsageError, match="is finished"):
        resume(caffe_engine, TrainOptions(run_dir=run.path))
    # What the plan said of the snapshot is what Caffe wrote, but for names and sizes of fields.
    plan = make_plan(job / "net/solver.prototxt", caffe_engine)
    sizes = [path.stat().st_size for path in run.snapshots.glob("*_16.*")]
    assert sum(sizes) == pytest.approx(plan.estimate.pair_bytes, rel=0.3)
    check_metrics(run, log)


def check_metrics(run, log):
    """metrics.jsonl agrees with the log, written live and rebuilt."""
    there = metrics(run.path)
    train_rows = [row for row in there if row["kind"] == "train"]
    assert [row["loss"] for row in train_rows] == [point.loss for point in log.train]
    assert [row["lr"] for row in train_rows] == [point.lr for point in log.train]
    tests = [row for row in there if row["kind"] == "test"]
    assert [row["outputs"] for row in tests] == [point.outputs for point in log.test]
    assert tests[-1]["epoch"] == 2.0
    before = run.metrics.read_bytes()
    rebuild(run, 8, 64, before=None)
    assert run.metrics.read_bytes() == before


@pytest.mark.slow
def test_a_narrow_net_says_that_its_disk_is_small(caffe_engine, job):
    """The estimate of a snapshot at full width, against published counts."""
    made = net_options(train_lmdb=str(job / "train_lmdb"), val_lmdb=str(job / "val_lmdb"), crop=75)
    build_net(job / "full", made, SolverOptions(epochs=1), num_train=64, num_val=20)
    found = make_plan(job / "full/solver.prototxt", caffe_engine).estimate
    # 55,843,464 parameters of 1000 classes, and BatchNorm's means, variances and factors
    num_learned = 55_843_464
    assert num_learned < found.num_params < 1.01 * num_learned
    assert found.pair_bytes == 8 * found.num_params


def test_a_run_in_a_folder_that_was_half_made(tmp_path):
    run = new_run_dir(tmp_path / "run")
    run.lock.touch()
    again = new_run_dir(tmp_path / "run")  # its trainer was killed before it was complete
    assert again.path == run.path
    run.solver.touch()
    with pytest.raises(OutputExistsError, match="already holds a run"):
        new_run_dir(tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(OutputExistsError, match="not empty"):
        new_run_dir(tmp_path / "other")


def test_two_trainers_in_one_folder(tmp_path):
    run = new_run_dir(tmp_path / "run")
    with locked(run), pytest.raises(InputError, match="another training"), locked(run):
        pass
    with locked(run):
        pass


@pytest.mark.slow
def test_everything_is_checked_before_the_start(caffe_engine, job, tmp_path):
    def plan(**changes):
        net = read_prototxt(job / "net/train_val.prototxt", messages.NetParameter)
        for name, value in changes.items():
            for layer in net.layer:
                if name == "num_output" and layer.type == "InnerProduct":
                    layer.inner_product_param.num_output = value
                elif name == "crop_size" and layer.type == "Data":
                    layer.transform_param.crop_size = value
                elif name in {"source", "backend"} and layer.type == "Data":
                    setattr(layer.data_param, name, value)
        write_prototxt(tmp_path / "net.prototxt", net)
        (tmp_path / "solver.prototxt").write_text(
            'net: "net.prototxt" max_iter: 5 base_lr: 0.01 lr_policy: "fixed"'
        )
        made = make_plan(tmp_path / "solver.prototxt", caffe_engine)
        made.raise_problems()
        return made

    assert plan().num_train == 64
    with pytest.raises(InputError, match=r"crop_size 107, but .* holds 80x80"):
        plan(crop_size=107)  # without test_iter Caffe makes no test net
    with pytest.raises(InputError, match="has label 1, the net 1 outputs"):
        plan(num_output=1)
    with pytest.raises(InputError, match=r"nowhere does not exist at data \(.*data-missing"):
        plan(source="nowhere")
    with pytest.raises(InputError, match=r"backend LEVELDB, but .* is an LMDB"):
        plan(backend=messages.DataParameter.LEVELDB)
    with pytest.raises(InputError, match="grid-mismatch"):  # as irv2caffe check says it
        plan(crop_size=64)
    with pytest.raises(MissingInputError):
        make_plan(tmp_path / "no.prototxt", caffe_engine)
    (tmp_path / "solver.prototxt").write_text("max_iter: 5")
    with pytest.raises(FormatError, match="names no net"):
        make_plan(tmp_path / "solver.prototxt", caffe_engine)
    (tmp_path / "solver.prototxt").write_text('net: "gone.prototxt"')
    problems = make_plan(tmp_path / "solver.prototxt", caffe_engine).problems
    assert "gone.prototxt" in problems[0].message
    assert "max_iter is missing" in problems[1].message


@pytest.mark.slow
def test_all_problems_at_once_on_the_command_line(caffe, tiny, tmp_path):
    solver = write_job(tmp_path / "nowhere", tmp_path / "job", max_iter=None)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/something").touch()
    args = ("--solver", solver, "--run-dir", "run", "--gpus", "0", "--weights", "none.caffemodel")
    done = irv2caffe(*args, cwd=tmp_path)
    assert done.returncode == 2
    no_gpu = "built without GPU support" if any_gpu() else "no GPU was found"
    for words in (
        no_gpu, "train_lmdb does not exist", "val_lmdb does not exist",
        "max_iter is missing", "none.caffemodel: no such file", "run already exists",
    ):  # fmt: skip
        assert words in done.stderr
    assert done.stderr.count("hint:") == 6
    shown = irv2caffe(*args, "--dry-run", "--json", cwd=tmp_path)
    assert shown.returncode == 2
    assert len(json.loads(shown.stdout)["problems"]) == 6


@pytest.mark.slow
def test_the_plan_says_what_will_happen(caffe, tiny, tmp_path):
    solver = write_job(
        tiny, tmp_path / "job", iter_size=2, max_iter=100, test_interval=30, test_iter=1, display=0,
        snapshot_after_train="false",
    )  # fmt: skip
    args = ("--solver", solver, "--run-dir", "run", "--dry-run")
    done = irv2caffe(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in (
        "BVLC Caffe 1.0.0, CPU only", "64 images 3x10x10, labels up to 1",
        "16 = batch_size 8 x 1 CPU x iter_size 2", "100 iterations x 16 images = 25.00 epochs",
        "4.00 iterations per epoch", "every 30 iterations (7.50 epochs), 10 of 20 images each",
        "test_iter 1 x batch 10 = 10 images, the validation set has 20",
        "the last test comes at 90, the end at 100",
        "display: 0 would log no loss", "snapshot_after_train: false would lose the final weights",
    ):  # fmt: skip
        assert words in done.stdout, words
    assert not (tmp_path / "run").exists()
    values = json.loads(irv2caffe(*args, "--json", cwd=tmp_path).stdout)
    assert values["effective_batch"] == 16
    assert values["engine"]["several_gpus"] is False
    assert values["config"]["iter_size"] == {"value": 2, "from": str(solver)}


@pytest.mark.slow
def test_what_a_killed_off_end_would_lose_is_kept(caffe, tiny, tmp_path):
    """display, snapshot_after_train and a snapshot_format of HDF5 are changed in the run's copy."""
    solver = write_job(
        tiny, tmp_path / "job", max_iter=50, display=0, snapshot=0, snapshot_after_train="false",
        snapshot_format="HDF5",
    )  # fmt: skip
    done = irv2caffe("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "run/snapshots").iterdir()) == [
        "tiny_iter_50.caffemodel",
        "tiny_iter_50.solverstate",
    ]
    assert [point.iteration for point in read_log(tmp_path / "run").train] == [0, 20, 40]


@pytest.mark.slow
def test_the_command_line_goes_over_the_solver(caffe, tiny, tmp_path):
    solver = write_job(tiny, tmp_path / "job")
    args = ("--solver", solver, "--run-dir", "run", "--epochs", 5, "--batch-size", 4)
    more = ("--base-lr", 0.003, "--test-batch-size", 5, "--iter-size", 2, "--lr-decay-epochs", 2)
    shown = irv2caffe(*args, *more, "--print-config", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    found = {line.split()[0]: line.split(maxsplit=2)[1:] for line in table_of(shown.stdout)}
    assert found["max_iter"] == ["40", "command line, --epochs"]
    assert found["base_lr"] == ["0.003", "command line, --base-lr"]
    assert found["stepsize"] == ["16", "command line, --lr-decay-epochs"]
    assert found["test_iter"] == ["4", "command line, --test-batch-size"]
    assert found["gamma"] == ["0.5", str(solver)]
    assert found["iter_size"][1] == "command line, --iter-size"
    assert found["regularization_type"] == ["L2", "Caffe's default"]
    assert "solver_type" not in found  # which Caffe reads as type
    assert found["engine"][0] == "caffe"
    assert found["solver_mode"] == ["CPU", "as gpus says"]
    done = irv2caffe(*args, *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    log = read_log(tmp_path / "run")
    assert (log.fields["max_iter"], log.fields["iter_size"], log.train_batch) == (40, 2, 4)
    assert "output data size: 5,3,10,10" in (tmp_path / "run/train.log").read_text()
    assert "batch_size: 5" in (tmp_path / "run/net.prototxt").read_text()
    assert "5.00 epochs" in done.stdout


def table_of(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return [line.rstrip() for line in lines if len(line.split()) >= 3 and "─" not in line]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--crop", "75"), "changes the net, which the solver names"),
        (("--test-batch-size", "3"), "does not divide the 20 validation images"),
        (("--recipe", "paper"), "--solver and --recipe"),
        (("--engine", "caffe", "--precision", "bf16"), "--precision is an option of the torch"),
        (("--engine", "torch", "--caffe", "x"), "--caffe does not go with it"),
        (("--exact", "--precision", "bf16"), "exclude each other"),
        (("--workers", "2", "--gpus", "0"), "asks for GPUs"),
        (("--nnodes", "2"), "belong together"),
        (("--docker", "image", "--caffe", "x"), "--caffe and --docker"),
        (("--docker", "--bad"), "not a valid image name"),
        (("--status", "a", "--stop", "b"), "one at a time"),
        (("--resume", "--recipe", "paper"), "--recipe makes a new one"),
    ],
)
def test_options_that_do_not_go_together(caffe, tiny, tmp_path, args, words):
    solver = write_job(tiny, tmp_path / "job")
    done = irv2caffe("--solver", solver, "--run-dir", "run", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_recipe_builds_the_nets_on_the_way(caffe, job, tmp_path):
    (tmp_path / "own.toml").write_text(
        '[net]\nvariant = "paper"\nwidth = 0.05\ncrop = 75\nbn_fraction = 0.9\n'
        'label_smoothing = 0.1'
        '\n[solver]\nbase_lr = 0.02\nepochs = 9.0\n'
    )  # fmt: skip
    databases = ("--train-lmdb", job / "train_lmdb", "--val-lmdb", job / "val_lmdb")
    args = ("--recipe", "own.toml", *databases, "--batch-size", 8, "--epochs", 1)
    shown = irv2caffe(*args, "--print-config", "--json", cwd=tmp_path)
    values = json.loads(shown.stdout)
    assert values["base_lr"]["from"] != "default"
    assert values["width"] == {"value": 0.05, "from": "recipe own"}
    assert values["epochs"] == {"value": 1.0, "from": "command line"}
    assert values["label_smoothing"] == {"value": 0.1, "from": "recipe own"}
    done = irv2caffe(*args, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = RunDir(tmp_path / "run")
    assert read_log(run.path).train[-1].iteration <= 8
    assert json.loads(run.config.read_text())["solver"] == "recipe own.toml"
    # all that Caffe reads of the recipe lies in the run folder, which can be moved
    net = read_prototxt(run.path / "train_val.prototxt", messages.NetParameter)
    (source,) = {one.infogain_loss_param.source for one in net.layer if one.type == "InfogainLoss"}
    assert source == str(run.path / "infogain.binaryproto")
    assert (run.path / "infogain.binaryproto").is_file()
    assert (run.path / "deploy.prototxt").is_file()
    missing = irv2caffe("--recipe", "own.toml", cwd=tmp_path)
    assert missing.returncode == 2
    assert "needs --train-lmdb and --val-lmdb" in missing.stderr


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["caffe", "torch"])
def test_a_recipe_for_fine_tuning_starts_from_weights(caffe, gray, tmp_path, engine):
    """Gray images, class weights, a new classifier, frozen stages; in both engines."""
    base, out = gray / "base.caffemodel", tmp_path / "run"
    (tmp_path / "tune.toml").write_text(
        '[net]\nvariant = "auto"\nwidth = 0.05\nclass_weights = "balanced"\nbatch_size = 8\n'
        'classifier = "pets"\nclassifier_lr = 10\nfreeze = "Repeat/block35"\n'
        'bn_statistics = "kept"\n[solver]\ntype = "SGD"\nmomentum = 0.9\nepochs = 0.5\n'
    )
    databases = ("--train-lmdb", gray / "train_lmdb", "--val-lmdb", gray / "val_lmdb")
    args = ("--recipe", "tune.toml", *databases, "--gpus", "none", "--engine", engine)
    done = irv2caffe(*args, "--weights", base, "--run-dir", out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "class weights from 0.625 (class 0) to 2.5 (class 1)" in done.stderr
    assert "new, with weights of their fillers: pets" in done.stderr
    assert "not taken from base.caffemodel: classifier" in done.stderr
    assert "keep the random weights" not in done.stderr
    (model,) = (out / "snapshots").glob("irv2_small32_iter_2.caffemodel")
    before, after = (
        {layer.name: layer for layer in read_binary(path, messages.NetParameter).layer}
        for path in (base, model)
    )
    changed = {
        name
        for name, layer in after.items()
        if name in before and any(map(differ, layer.blobs, before[name].blobs))
    }
    frozen = ("Conv2d_", "Mixed_5b", "Repeat/")
    assert not {name for name in changed if name.startswith(frozen) and "7b" not in name}
    assert not {name for name in changed if name.endswith("_bn")}
    assert "Mixed_6a/Branch_0/Conv2d_1a_3x3" in changed
    assert after["Conv2d_1a_4x4"].blobs[0].shape.dim[1] == 1
    alone = irv2caffe("--solver", out / "solver.prototxt", "--gpus", "none", "--dry-run")
    assert "frozen layers keep the random weights of their fillers" in alone.stdout + alone.stderr


def differ(one, other):
    return list(one.data) != list(other.data)


@pytest.fixture(scope="module")
def gray(caffe, tmp_path_factory):
    """Databases of 40 and 20 gray images, few of class 1, and weights for nets of two classes."""
    folder = tmp_path_factory.mktemp("gray")
    rng = np.random.default_rng(0)
    for name, labels in (("train_lmdb", [0, 0, 0, 0, 1] * 8), ("val_lmdb", [0, 1] * 10)):
        (folder / name).mkdir()
        with DatabaseWriter(folder / name) as writer:
            for index, label in enumerate(labels):
                pixels = rng.integers(0, 100, (1, 32, 32), np.uint8) + np.uint8(100 * label)
                record = raw_head(pixels.shape) + pixels.tobytes() + raw_tail(label)
                writer.put(record_key(index, f"{index}.png"), record)
    options = net_options(variant="small32", width=0.05, channels=1, num_classes=2)
    write_prototxt(folder / "deploy.prototxt", deploy(options))
    code = (
        "import caffe, sys, numpy as np; net = caffe.Net(sys.argv[1], caffe.TRAIN)\n"
        "net.blobs['data'].data[...] = np.random.RandomState(0).uniform(-1, 1, (1, 1, 32, 32))\n"
        "net.forward(); net.save(sys.argv[2])"
    )
    paths = [str(folder / name) for name in ("deploy.prototxt", "base.caffemodel")]
    command = tool_command(caffe, "python", ["-c", code, *paths])
    subprocess.run(command.argv, env=command.env, capture_output=True, check=True)
    return folder


@pytest.mark.slow
def test_weights_to_start_from(caffe, tiny, tmp_path):
    solver = write_job(tiny, tmp_path / "job", max_iter=300)
    assert irv2caffe("--solver", solver, "--run-dir", "a", cwd=tmp_path).returncode == 0
    model = tmp_path / "a/snapshots/tiny_iter_300.caffemodel"
    again = write_job(tiny, tmp_path / "again", max_iter=10, base_lr=1e-9)
    args = ("--solver", again, "--run-dir", "b", "--weights", model)
    done = irv2caffe(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "weights of 2 layers come from" in done.stderr
    before, after = read_log(tmp_path / "a"), read_log(tmp_path / "b")
    assert after.train[0].loss < before.train[0].loss / 2
    state = model.with_suffix(".solverstate")
    for wrong, words in (
        (state, "a .solverstate goes to --resume"),
        (again, "takes a whole .caffemodel"),
    ):
        refused = irv2caffe("--solver", again, "--run-dir", "c", "--weights", wrong, cwd=tmp_path)
        assert refused.returncode == 1
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_weights_are_found_again_from_another_folder(caffe, tiny, tmp_path):
    """The run is resumed before its first snapshot, from another folder."""
    solver = write_job(tiny, tmp_path / "job", max_iter=20)
    assert irv2caffe("--solver", solver, "--run-dir", "a", cwd=tmp_path).returncode == 0
    shutil.copy(tmp_path / "a/snapshots/tiny_iter_20.caffemodel", tmp_path / "m.caffemodel")
    args = ("--solver", solver, "--run-dir", "b", "--weights", "m.caffemodel")
    assert irv2caffe(*args, cwd=tmp_path).returncode == 0
    run = RunDir(tmp_path / "b")
    for path in (*run.snapshots.iterdir(), run.state):
        path.unlink()
    (tmp_path / "elsewhere").mkdir()
    done = irv2caffe("--resume", run.path, cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert "starting from the beginning" in done.stderr
    starts = [json.loads(run.config.read_text())["starts"][number]["argv"] for number in (0, 1)]
    assert [argv[-1] for argv in starts] == [str(tmp_path / "m.caffemodel")] * 2


@pytest.mark.slow
def test_a_solver_with_nothing_to_train(caffe, tiny, tmp_path):
    solver = write_job(tiny, tmp_path / "job")
    solver.write_text(solver.read_text().replace("net:", "test_net:", 1))
    for more in ((), ("--dry-run",), ("--weights", solver)):
        done = irv2caffe("--solver", solver, "--run-dir", "run", *more, cwd=tmp_path)
        assert done.returncode == 1
        assert "names no net to train" in done.stderr
        assert "Traceback" not in done.stderr
    solver.write_text(solver.read_text() + '\ntrain_net: "gone.prototxt"\n')
    done = irv2caffe("--solver", solver, "--run-dir", "run", "--weights", solver, cwd=tmp_path)
    assert done.returncode == 1
    assert "gone.prototxt" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_smoke_tries_the_real_thing_and_leaves_nothing(caffe, job, tmp_path):
    solver = job / "net/solver.prototxt"
    done = irv2caffe("--solver", solver, "--smoke", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["step_s"] > 0
    assert report["test_s"] > 0
    assert report["pair_bytes"] > 1e5
    assert report["total_s"] >= 16 * report["step_s"]
    assert list((tmp_path / "runs").iterdir()) == []
    shown = irv2caffe("--solver", solver, "--smoke", cwd=tmp_path)
    assert "whole run" in shown.stdout


@pytest.mark.slow
def test_a_smoke_that_fails_keeps_its_log(caffe, tiny, tmp_path):
    solver = write_job(tiny, tmp_path / "job", type='"RMSProp"')  # with its momentum of 0.9
    refused = irv2caffe("--solver", solver, "--smoke", cwd=tmp_path)
    assert refused.returncode == 1
    assert "momentum-not-taken" in refused.stderr  # found before the start
    assert not (tmp_path / "runs").exists()
    done = irv2caffe("--solver", solver, "--smoke", "--ignore-findings", cwd=tmp_path)
    assert done.returncode == 1
    assert "RMSProp has no momentum" in done.stderr
    assert len(list((tmp_path / "runs").glob(".smoke-*/run/train.log"))) == 1


@pytest.mark.slow
def test_one_solver_with_nets_inside(caffe, tiny, tmp_path):
    """train_net, test_net, and nets written into the solver."""
    solver = write_job(tiny, tmp_path / "job", max_iter=20)
    net = (tmp_path / "job/net.prototxt").read_text()
    text = solver.read_text()
    line = next(one for one in text.splitlines() if one.startswith("net:"))
    solver.write_text(text.replace(line, f"net_param {{ {net} }}"))
    done = irv2caffe("--solver", solver, "--run-dir", "inside", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    solver.write_text(text.replace(line, line.replace("net:", "train_net:") + "\ntest_" + line))
    done = irv2caffe("--solver", solver, "--run-dir", "two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(read_log(tmp_path / "two").test) == len(read_log(tmp_path / "inside").test) > 0


# GPUs: there are none here; what nvidia-ml-py would say is put in its place.

TWO = [
    system.Gpu(0, "Big", "GPU-aa", 24 << 30, 23 << 30, 0),
    system.Gpu(1, "Big", "GPU-bb", 24 << 30, 1 << 20, 2),
]
FULL = Capability("1.0.0", "bvlc", True, True)
CAFFE = CaffeEngine(FoundCaffe(Path("/caffe"), Path("/caffe/bin"), False, "--caffe /caffe"))


def chosen(gpus, can):
    return choose(gpus, CAFFE, can)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(system, "gpus", lambda: TWO)


def test_devices(two_gpus, monkeypatch):
    assert chosen("none", FULL) == Devices()
    assert chosen("0,1", FULL).argument == "0,1"
    assert chosen("all", FULL).count == 2
    assert chosen("1", FULL).gpus == (TWO[1],)
    with pytest.raises(UsageError, match="there is no GPU 7") as caught:
        chosen("0,7", FULL)
    assert "0, 1" in caught.value.hint
    with pytest.raises(UsageError, match="without NCCL"):
        chosen("0,1", Capability("1.0.0", "bvlc", True, False))
    assert chosen("1", Capability("1.0.0", "bvlc", True, False)).count == 1
    assert "GPU 1 is in use" in notes(chosen("0,1", FULL))[0]
    assert chosen("0,1", FULL).names == ("GPU-aa", "GPU-bb")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert chosen("0", FULL).gpus == (TWO[1],)  # as CUDA counts them
    assert chosen("0", FULL).names == ("GPU-bb",)  # and as docker does
    with pytest.raises(UsageError, match="there is no GPU 1"):
        chosen("1", FULL)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb,GPU-aa")
    assert chosen("all", FULL).gpus == (TWO[1], TWO[0])


@pytest.mark.parametrize("gpus", ["0,0", "00,0", "first", "", "0,", "0, 1", "-1", "²"])
def test_values_of_gpus_that_are_none(gpus):
    with pytest.raises(UsageError):
        chosen(gpus, FULL)


@pytest.mark.slow
def test_memory_against_what_a_gpu_has_free(two_gpus, caffe_engine, job, monkeypatch):
    monkeypatch.setattr("irv2caffe.train.engines.engine.capability", lambda found: FULL)
    solver = job / "net/solver.prototxt"
    plan = make_plan(solver, caffe_engine, TrainOptions(gpus="0"))
    assert not plan.problems
    assert dict(rows(plan))["memory"].endswith("free on the GPUs: 24.7 GB")
    plan = make_plan(solver, caffe_engine, TrainOptions(gpus="0,1"))
    assert plan.effective_batch == 16  # BVLC: a whole batch on each
    assert "GPU 1 has 1.05 MB free" in plan.problems[0].message
    assert "--batch-size" in plan.problems[0].hint
    assert not make_plan(
        solver, caffe_engine, TrainOptions(gpus="0,1", ignore_findings=True)
    ).problems


@pytest.mark.slow
def test_nvcaffe_counts_batches_its_own_way(two_gpus, caffe_engine, job, monkeypatch):
    nvcaffe = Capability("0.17.4", "nvcaffe", True, True)
    monkeypatch.setattr("irv2caffe.train.engines.engine.capability", lambda found: nvcaffe)
    monkeypatch.setattr(system, "gpus", lambda: [TWO[0], TWO[0]])
    solver = job / "net/solver.prototxt"
    plan = make_plan(solver, caffe_engine, TrainOptions(gpus="0,1"))
    assert plan.effective_batch == 8  # of both GPUs together
    assert (
        dict(rows(plan))["effective batch"] == "8 = batch_size 8 shared by 2 GPU(s) x iter_size 1"
    )
    odd = make_plan(solver, caffe_engine, TrainOptions(gpus="0,1", given={"batch_size": 7}))
    assert odd.effective_batch == 8  # rounded up to what two GPUs can share
    assert as_dict(odd)["engine"]["flavor"] == "nvcaffe"


def test_no_driver_is_no_error():
    """The real nvidia-ml-py on a machine without a GPU, or with one."""
    pytest.importorskip("pynvml")
    found = system.gpus()
    assert found is None or all(gpu.total_bytes >= gpu.free_bytes for gpu in found)


def test_what_nvidia_ml_py_says_is_understood(monkeypatch):
    """A stand-in with the module's names; some versions answer in bytes."""

    class Nvml:
        NVMLError = type("NVMLError", (Exception,), {})
        nvmlInit = nvmlShutdown = staticmethod(lambda: None)  # noqa: N815
        nvmlDeviceGetCount = staticmethod(lambda: 1)  # noqa: N815
        nvmlDeviceGetHandleByIndex = staticmethod(lambda index: index)  # noqa: N815
        nvmlDeviceGetName = staticmethod(lambda handle: b"H100")  # noqa: N815
        nvmlDeviceGetUUID = staticmethod(lambda handle: "GPU-1")  # noqa: N815

        @staticmethod
        def nvmlDeviceGetMemoryInfo(handle):  # noqa: N802
            return type("Memory", (), {"total": 80, "free": 70, "used": 10})

        @staticmethod
        def nvmlDeviceGetComputeRunningProcesses(handle):  # noqa: N802
            raise Nvml.NVMLError

    monkeypatch.setitem(sys.modules, "pynvml", Nvml)
    assert system.gpus() == [system.Gpu(0, "H100", "GPU-1", 80, 70, None)]


@pytest.mark.slow
def test_a_run_of_an_earlier_version_is_taken_over(caffe, tiny, tmp_path):
    """Its train.log was Caffe's own, and it had no logs folder."""
    solver = write_job(tiny, tmp_path / "job", max_iter=400)
    assert irv2caffe("--solver", solver, "--run-dir", "run", cwd=tmp_path).returncode == 0
    run = RunDir(tmp_path / "run")
    for path in (run.log_of(1), run.metrics, run.state, run.lock):
        path.unlink()
    run.logs.rmdir()
    run.write_config({"num_train_images": 64, "effective_batch": 8})
    done = irv2caffe("--resume", "run", "--epochs", 75, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    log = read_log(run.path)
    assert [point.iteration for point in log.train] == list(range(0, 601, 10))
    assert log.restarts == [400]


def test_help_is_complete_and_short():
    command = [sys.executable, "-m", "irv2caffe", "train", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    headings = ("Training options:", "Snapshot options:", "Control of a running training:")
    for words in (*headings, "--docker IMAGE"):
        assert words in shown.stdout
    assert "--residual-scale" not in shown.stdout  # taken all the same
    assert len(shown.stdout.splitlines()) < 130


def test_settings_of_a_session_are_kept(caffe_engine, tiny, tmp_path):
    solver = write_job(tiny, tmp_path / "job", max_iter=10)
    train_options = TrainOptions(run_dir=tmp_path / "run")
    train(solver, caffe_engine, train_options, SupervisionOptions(plot=False, max_restarts=7))
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["options"]["max_restarts"] == 7
    assert not (tmp_path / "run/plot.png").exists()
