"""The experiment of examples/why_it_stalled, on a few images and iterations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile

import cv2
import numpy as np
import pytest
from experiment import results
from experiment.arms import FULL, ORIGINAL, REDUCED, REPAIRED, SIZES
from experiment.evaluating import num_batches
from experiment.nets import evaluated_net, solver, train_net
from experiment.summary import difference, known_arms, spread, table
from helpers.paths import ROOT

RUN = ROOT / "examples/why_it_stalled/run.py"
REPORT = ROOT / "examples/why_it_stalled/report.py"


def by_name(name):
    return known_arms()[name]


def layers(net, kind):
    return [layer for layer in net.layer if layer.type == kind]


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """Archives of class folders as CIFAR-100's, of two of its classes only."""
    folder = tmp_path_factory.mktemp("cifar")
    rng = np.random.default_rng(0)
    for name, count in (("train", 40), ("test", 6)):
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            for label in range(100):
                for number in range(count if label in {0, 50} else 1):
                    path = folder / "image.png"
                    image = rng.integers(0, 128, (32, 32, 3)) + (127 if label else 0)
                    cv2.imwrite(str(path), image.astype(np.uint8))
                    archive.add(path, f"class{label:02d}/{number:03d}.png")
    return folder


@pytest.fixture(scope="module")
def done(cifar, tmp_path_factory):
    """Two arms of one seed, by the torch engine; the folder, and what was said."""
    folder = tmp_path_factory.mktemp("runs")
    return folder, run(cifar, folder, "--arms", "original", "--arms", "original + scale 0.1")


def run(cifar, folder, *words):
    command = [sys.executable, RUN, cifar, "--data", "data", "--results", "lines.jsonl", "--tiny"]
    command += ["--set", "full", "--engine", "torch", "--seeds", "1", "--workers", "1", *words]
    return subprocess.run(
        [*map(str, command)], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip


def test_a_run_has_all_errors(done):
    folder, said = done
    assert said.returncode == 0, said.stderr
    lines = results.read(folder / "lines.jsonl")
    assert {line["arm"] for line in lines} == {"original", "original + scale 0.1"}
    for line in lines:
        assert len(line["losses"]) == SIZES["tiny"].epochs
        assert set(line["first"]) == set(line["final"]) == {
            "running", "reestimated", "batch 2", "batch 10", "batch 50", "train running",
            "train batch",
        }  # fmt: skip
        assert all(0 <= each["error"] <= 100 for each in line["final"].values())
        assert line["final"]["batch 2"]["n"] == 12


def test_runs_that_are_done_are_left_out(cifar, done):
    folder, _ = done
    before = (folder / "lines.jsonl").read_bytes()
    again = run(cifar, folder, "--arms", "original", "--arms", "original + scale 0.1")
    assert again.returncode == 0
    assert again.stderr.startswith("0 runs to do, 2 done already")
    assert (folder / "lines.jsonl").read_bytes() == before


def test_a_dry_run_lists_what_is_left(cifar, done):
    folder, _ = done
    listed = run(cifar, folder, "--arms", "original", "--seeds", "2", "--dry-run")
    assert listed.stdout == "seed 2  torch  original\n"
    assert "about 0 minutes" in listed.stderr


def test_a_run_that_fails_is_recorded_and_the_others_go_on(cifar, done, tmp_path):
    folder, _ = done
    (tmp_path / "data").mkdir()
    for entry in (folder / "data").iterdir():
        if entry.name != "many":
            (tmp_path / "data" / entry.name).symlink_to(entry)
    arms = ("--arms", "original 5 x images", "--arms", "original")
    said = run(cifar, tmp_path, *arms)
    assert said.returncode == 1
    lines = {line["arm"]: line for line in results.read(tmp_path / "lines.jsonl")}
    assert "many" in lines["original 5 x images"]["error"]
    assert "final" in lines["original"]


def test_a_source_that_is_not_there(tmp_path):
    said = run("nothing.tar.gz", tmp_path)
    assert said.returncode == 1
    assert "nothing.tar.gz does not exist" in said.stderr


@pytest.fixture
def one_thread():
    """Threads that wait for others cost most of the time on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_both_engines_evaluate_alike(caffe, done, one_thread, tmp_path):
    from experiment.caffe_engine import CaffeEvaluator
    from experiment.torch_engine import TorchEvaluator, train

    from irv2caffe.proto.text import write_prototxt

    data, size = done[0] / "data", SIZES["tiny"]
    net = train_net(ORIGINAL, size, data / "shuffled")
    write_prototxt(tmp_path / "train.prototxt", net)
    write_prototxt(tmp_path / "s.prototxt", solver(ORIGINAL, size, tmp_path, seed=3, gpu=False))
    train(tmp_path / "s.prototxt", tmp_path / "log", ORIGINAL, None)
    weights = tmp_path / f"s_iter_{size.iterations}.caffemodel"
    ways = [
        (by, by.reestimated(weights))
        for by in (
            TorchEvaluator(net, data, tmp_path, 4, None),
            CaffeEvaluator(net, data, tmp_path, 4),
        )
    ]
    for again, batch, flag in ((False, 2, True), (False, 4, False), (True, 4, False)):
        mine, theirs = (
            by.measure(new if again else weights, "val", batch, None, batch_statistics=flag)
            for by, new in ways
        )
        assert mine["n"] == theirs["n"] == 12
        assert mine["error"] == pytest.approx(theirs["error"], abs=1e-2)
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def test_the_original_has_the_flaws_of_2016(tmp_path):
    net = train_net(ORIGINAL, SIZES["tiny"], tmp_path)
    sums = layers(net, "Eltwise")
    assert len(sums) == 3
    assert not any(layer.eltwise_param.coeff for layer in sums)
    rectified = {layer.bottom[0] for layer in layers(net, "ReLU")}
    assert not rectified & {layer.top[0] for layer in sums}
    assert {f"{name}/Conv2d_1x1_bn" for name in ("a1", "b1", "c1")} <= {
        layer.name for layer in layers(net, "BatchNorm")
    }
    assert all(abs(layer.batch_norm_param.eps - 1e-5) < 1e-9 for layer in layers(net, "BatchNorm"))


def test_the_repaired_net_has_none_of_them(tmp_path):
    net = train_net(REPAIRED, SIZES["tiny"], tmp_path)
    sums = layers(net, "Eltwise")
    assert all(list(layer.eltwise_param.coeff) == [1, pytest.approx(0.1)] for layer in sums)
    assert {layer.top[0] for layer in sums} <= {layer.bottom[0] for layer in layers(net, "ReLU")}
    ups = {f"{name}/Conv2d_1x1_bn" for name in ("a1", "b1", "c1")}
    assert not ups & {layer.name for layer in layers(net, "BatchNorm")}


def test_arms_differ_from_their_base_in_what_they_say(tmp_path):
    size = SIZES["tiny"]
    assert len({arm.name for arm in FULL}) == len(FULL)
    for arm in (*FULL, *REDUCED):
        made = solver(arm, size, tmp_path, seed=1, gpu=False)
        assert made.momentum == pytest.approx(0 if arm.solver == "rmsprop" else 0.9)
        assert (made.type == "SGD") == (arm.solver == "sgd")
        assert arm.base in known_arms()
    scales = train_net(by_name("original + slim's scales"), size, tmp_path)
    assert [layer.eltwise_param.coeff[1] for layer in layers(scales, "Eltwise")] == pytest.approx(
        [0.17, 0.10, 0.20]
    )
    wide = train_net(by_name("wide original"), SIZES["full"], tmp_path)
    last = next(layer for layer in wide.layer if layer.name == "c3/Conv2d_1x1")
    assert last.convolution_param.num_output > 1000


def test_statistics_of_the_batch_are_only_in_the_test_net(tmp_path):
    net = train_net(ORIGINAL, SIZES["tiny"], tmp_path)
    for flag in (False, True):
        made = evaluated_net(net, batch_statistics=flag)
        fields = [layer.batch_norm_param for layer in layers(made, "BatchNorm")]
        assert all(field.HasField("use_global_stats") == flag for field in fields)
        assert made.layer[0].type == "Input"
    assert num_batches(12, 50, 500) == (1, 12)
    assert num_batches(1000, 10, 500) == (50, 10)


def test_the_momentum_of_tensorflow():
    """Against numbers computed by hand: rate 1, delta 1, momentum 0.5, decay 0.9."""
    import torch
    from experiment import torch_engine  # noqa: F401 - adds the solver type
    from experiment.nets import TF_RMSPROP

    from irv2caffe.engine.solver.solver_types import SOLVER_TYPES, Scalars
    from irv2caffe.proto import messages

    param = messages.SolverParameter(rms_decay=0.9, delta=1.0, momentum=0.5)
    weight, squares, moments = torch.zeros(1), torch.zeros(1), torch.zeros(1)
    for gradient in (2.0, 1.0):
        state = [weight], [torch.tensor([gradient])], [squares], [moments]
        SOLVER_TYPES[TF_RMSPROP].update(*state, Scalars(param, 1.0, 0))
    mean1 = 0.9 * 1 + 0.1 * 4
    step1 = 2 / (mean1 + 1) ** 0.5
    mean2 = 0.9 * mean1 + 0.1 * 1
    step2 = 0.5 * step1 + 1 / (mean2 + 1) ** 0.5
    assert weight.item() == pytest.approx(-(step1 + step2), rel=1e-6)


def line(arm, seed, error, loss=0.5, **more):
    each = {"error": error, "loss": 1.0, "n": 10}
    names = ("running", "reestimated", "batch 2", "batch 10", "batch 50", "train running",
             "train batch")  # fmt: skip
    errors = dict.fromkeys(names, each)
    return {"arm": arm, "seed": seed, "engine": "torch", "epochs": 9,
            "losses": [2.0, loss], "diverged": False,
            "first": errors, "final": errors, "curve": {}, **more}  # fmt: skip


def test_the_table_and_the_figure(tmp_path):
    lines = [line("original", 1, 40.0), line("original", 2, 44.0)]
    lines += [line("original + ReLU", 2, 41.0, loss=None), line("original + ReLU", 1, 39.0)]
    lines += [
        {"arm": "original + ReLU", "seed": 3, "engine": "torch", "epochs": 9, "error": "it broke"}
    ]
    rows = table(lines).splitlines()
    assert rows[2].startswith("| original | torch | 2 | 0.50 ± 0.00 | 42.0 ± 2.8 |")
    assert rows[3].split(" | ")[2:5] == ["2", "0.50", "40.0 ± 1.4"]
    assert rows[3].endswith("| -2.0 ± 1.4 | 1 failed |")
    assert spread([], ("final",)).text() == "-"
    assert difference(lines[2:], lines[:2], ("final", "running", "error")).values == (-3.0, -1.0)
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines) + '{"a')
    command = [sys.executable, REPORT, tmp_path / "lines.jsonl", "--figure", tmp_path / "a.svg"]
    said = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "| original + ReLU | torch | 2 |" in said.stdout
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()
    with (tmp_path / "lines.jsonl").open("a") as file:
        file.write("\n" + json.dumps({**lines[0], "epochs": 40}))
    said = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert "several sets" in said.stderr
