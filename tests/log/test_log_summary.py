"""Errors from accuracies, figures of a run, what is conspicuous, how large an epoch is."""

from __future__ import annotations

import json
import math

import pytest
from helpers.paths import FILES, ROOT

from irv2caffe.errors import UsageError
from irv2caffe.log.accuracy import AccuracyNames, accuracy_names, errors_of
from irv2caffe.log.anomalies import find_anomalies
from irv2caffe.log.dataset import find_train_images
from irv2caffe.log.describe import config_lines, finding_lines
from irv2caffe.log.metrics import RunData
from irv2caffe.log.read.history import TestPoint as PointOfTest
from irv2caffe.log.read.reader import read_lines, read_log
from irv2caffe.log.reference import NAMES, reference_runs, references
from irv2caffe.log.summary import summarize
from irv2caffe.log.table import (
    Table,
    TrainRow,
    make_table,
    row_of_test,
)
from irv2caffe.log.table import TestRow as RowOfTest

LOGS = FILES / "logs"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["accuracy_top1", "accuracy_top5", "loss"], ("accuracy_top1", "accuracy_top5")),
        (["accuracy", "loss"], ("accuracy", None)),
        (["acc/top-5", "acc/top-1"], ("acc/top-1", "acc/top-5")),
        (
            ["loss1/top-1", "loss1/top-5", "loss3/loss3", "loss3/top-1", "loss3/top-5"],
            ("loss3/top-1", "loss3/top-5"),
        ),
        (["loss", "prob"], (None, None)),
        (["accuracy@1", "accuracy@5"], ("accuracy@1", "accuracy@5")),
        (["top1_error", "top5_error"], ("top1_error", "top5_error")),
        (["score 0", "score 1"], ("score 0", None)),
        (["accuracy", "accuracy_per_class", "loss"], ("accuracy", None)),
    ],
)
def test_accuracy_names(names, found):
    assert accuracy_names(names) == found


def test_errors_of_any_accuracy():
    outputs = {"loss1/top-1": 0.25, "accuracy": 0.5, "err@1": 0.125, "loss": 0.5, "acc": 7.0}
    assert errors_of(outputs) == {"loss1/top-1": 75.0, "accuracy": 50.0, "err@1": 12.5}


@pytest.mark.parametrize(
    ("outputs", "loss"),
    [
        # GoogLeNet's, in the order of its log.
        ({"loss1/loss1": 7.0, "loss1/top-1": 0.1, "loss3/loss3": 6.5, "loss3/top-5": 0.4}, 6.5),
        ({"acc/loss": 2.0, "loss": 3.0, "top-1": 0.5}, 3.0),
        ({"accuracy_loss": 2.0}, 2.0),
        ({"accuracy": 0.5}, None),
    ],
)
def test_loss_of_a_test(outputs, loss):
    assert row_of_test(PointOfTest(0, 0, outputs), None).loss == loss


def test_names_can_be_given():
    point = PointOfTest(0, 0, {"quality": 0.75, "accuracy": 0.5})
    assert row_of_test(point, None).top1_error == 50.0
    row = row_of_test(point, None, AccuracyNames("quality", "accuracy"))
    assert (row.top1_error, row.top5_error) == (25.0, 50.0)
    assert row_of_test(point, None, AccuracyNames("none there")).top1_error is None


def run(losses, tests=(), *, every=10, classes=None, seconds=None):
    """A run of ten iterations an epoch."""
    train = tuple(
        TrainRow(every * i, every * i / 10, loss, 0.1, seconds[i] if seconds else 2.0 * i, 50.0)
        for i, loss in enumerate(losses)
    )
    test = tuple(RowOfTest(10 * i, float(i), 0, error, None, None) for i, error in enumerate(tests))
    return Table(train, test, (), 10, 100, num_classes=classes)


def kinds(table):
    return {found.kind: found.iteration for found in find_anomalies(RunData(table))}


FALLING = [7 / (1 + i / 10) for i in range(60)]


def test_nothing_is_conspicuous_in_a_good_run():
    assert kinds(run(FALLING, [90 / (1 + i / 10) for i in range(30)])) == {}


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        ([7, 6, math.nan, math.nan], {"nan": 20}),
        ([7, 6, math.inf], {"nan": 20}),
        ([7, 6, 87.3365, 87.3365], {"pinned": 20}),
        ([7, 87.3365, math.nan], {"pinned": 10, "nan": 20}),
        ([6.9] * 40, {"stuck": 0}),
        ([6.9] * 10, {}),
        ([1.7e308] * 40, {"nan": 0}),  # Caffe's numbers end at 3.4e38
        ([3e38] * 40, {"stuck": 0}),
    ],
)
def test_lost_and_stuck_losses(losses, found):
    assert kinds(run(losses)) == found


def test_what_was_resumed_late_is_not_stuck():
    """At the end of a schedule the loss is flat."""
    rows = [TrainRow(600_000 + 20 * i, None, 1.0, None, None, None) for i in range(100)]
    assert kinds(Table(tuple(rows), (), (), None, None)) == {}
    early = [TrainRow(20 + 20 * i, None, 1.0, None, None, None) for i in range(100)]
    assert kinds(Table(tuple(early), (), (), None, None)) == {"stuck": 20}


def test_guessing_is_named():
    (found,) = find_anomalies(RunData(run([6.91] * 40, classes=1000)))
    assert "guessing among 1,000 classes" in found.text


def test_stalls():
    seconds = [2.0 * i + (4000 if i > 20 else 0) for i in range(60)]
    (found,) = find_anomalies(RunData(run(FALLING, seconds=seconds)))
    assert (found.kind, found.iteration) == ("stall", 210)
    assert "67 min" in found.text
    short = [2.0 * i + (200 if i > 20 else 0) for i in range(60)]
    assert kinds(run(FALLING, seconds=short)) == {}


def test_plateau():
    """The original run: the error stops where the loss goes on to fall."""
    curves = reference_runs()["original-2016"].curves
    epochs = range(1, 26)

    def at(metric, epoch):
        known = sorted(curves[metric])
        before = [value for place, value in known if place <= epoch]
        return before[-1] if before else known[0][1]

    losses = [at("train_loss", epoch) for epoch in epochs]
    tests = [99.9, *(at("val_top1_error", epoch) for epoch in epochs)]
    (found,) = find_anomalies(RunData(run(losses, tests)))
    assert found.kind == "plateau"
    assert 10 <= found.epoch <= 13
    assert "the training loss went on from" in found.text
    other = reference_runs()["lim0606"].curves["val_top1_error"]
    assert kinds(run(FALLING, [99.9, *(value for _, value in other)])) == {}


def test_summary():
    table = run([5.0, 4.0, 3.0, 2.0], [90.0, 30.0, 40.0])
    summary = summarize(table)
    assert (summary.iterations, summary.epochs) == (30, 3.0)
    assert (summary.last_top1_error, summary.best_top1_error) == (40.0, 30.0)
    assert (summary.best_iteration, summary.best_epoch) == (10, 1.0)
    assert (summary.last_loss, summary.lr, summary.images_per_second) == (2.0, 0.1, 50.0)
    assert summary.hours == pytest.approx(6 / 3600)
    assert summary.eta_hours is None
    longer = Table(table.train, table.test, (), 10, 100, max_iter=130)
    assert summarize(longer).eta_hours == pytest.approx(100 * 0.2 / 3600)
    assert summarize(Table((), (), (), None, None)).iterations == 0


def test_lines_for_people():
    log = read_log(LOGS / "terminated.log")
    assert ("killed", "SIGTERM ended the process") in finding_lines(summarize(make_table(log)), log)
    config = dict(config_lines(read_log(LOGS / "steps.log")))
    assert config["stepvalue"] == "15, 40"
    assert config["clip_gradients"] == "0.5"
    assert config["TRAIN net"] == "tiny, 4 layers, batch 16, 8 classes"


# The size of an epoch.

STAMP = "I1124 01:02:03.500000  4242 solver.cpp:239] "


def test_run_folder_then_headers(tmp_path):
    log = read_log(LOGS / "healthy.log")
    assert find_train_images(log, tmp_path).number is None
    (tmp_path / "solver.prototxt").write_text(
        "# irv2caffe 0.1.0\n# 6,000 training images = 375.00 iterations per epoch\n\nnet: 'x'\n"
    )
    assert find_train_images(log, tmp_path) == (6000, "the header of solver.prototxt")
    (tmp_path / "config.json").write_text(json.dumps({"num_train_images": 7000}))
    assert find_train_images(log, tmp_path) == (7000, "config.json")
    for text in (
        "[]",
        "{",
        '{"num_train_images": "many"}',
        '{"num_train_images": -1}',
        '{"num_train_images": true}',
        "[" * 99_999,
        "[" * 99_999,
    ):
        (tmp_path / "config.json").write_text(text)
        assert find_train_images(log, tmp_path).number == 6000


def test_headers_are_those_of_build_net(tmp_path):
    """What build-net writes into its headers is what is looked for."""
    golden = ROOT / "templates/paper"
    assert find_train_images(read_log(LOGS / "healthy.log"), golden).number == 1_281_167


def dumped(source, classes):
    return [
        STAMP + "Initializing solver from parameters: ",
        STAMP + "Initializing net from parameters: ",
        "state {",
        "  phase: TRAIN",
        "}",
        "layer {",
        "  data_param {",
        f'    source: "{source}"',
        "    batch_size: 32",
        "  }",
        "}",
        "layer {",
        "  inner_product_param {",
        f"    num_output: {classes}",
        "  }",
        "}",
        STAMP + "Iteration 1000, 0.5/90ep, loss = 7"
        if not source
        else STAMP + "Iteration 0, loss = 1",
    ]


@pytest.mark.parametrize("epoch", ["nan", "inf", "-1", "0", "1e-320", "1e300"])
def test_epochs_that_are_none(epoch):
    lines = dumped("", 10)
    lines[-1] = lines[-1].replace("0.5/", f"{epoch}/")
    log = read_lines(lines)
    assert len(log.train) == 1
    assert find_train_images(log).number is None


def test_epochs_of_nvcaffe_and_well_known_names():
    assert find_train_images(read_lines(dumped("", 10))) == (64_000, "the epochs in the log")
    known = find_train_images(read_lines(dumped("/data/ILSVRC12_train_lmdb", 1000)))
    assert known.number == 1_281_167
    assert "/data/ILSVRC12_train_lmdb" in known.source
    assert find_train_images(read_lines(dumped("/data/ILSVRC12_train_lmdb", 10))).number is None
    assert find_train_images(read_lines(dumped("/data/flowers", 1000))).number is None


# Other people's runs.


def test_references():
    assert [run.name for run in references(["paper", "lim0606", "paper"])] == ["paper", "lim0606"]
    assert [run.name for run in references(["all"])] == list(NAMES)
    with pytest.raises(UsageError, match="no reference curve soup"):
        references(["soup"])
    for name, run in reference_runs().items():
        assert run.curves, name
        assert run.about, name
        for points in run.curves.values():
            epochs = [epoch for epoch, _ in points if epoch is not None]
            assert epochs == sorted(epochs)


def test_published_values():
    """Of the original run's plots, two READMEs, and the paper's table."""
    runs = reference_runs()
    assert runs["original-2016"].curves["val_top1_error"][-1] == (25.0, 50.8)
    assert runs["lim0606"].curves["val_top5_error"][-1] == (90.0, 7.407)
    assert runs["twtygqyy"].curves["val_top1_error"] == ((10.4, 30.7), (16.6, 27.1))
    assert runs["paper"].curves == {
        "val_top1_error": ((None, 19.9),),
        "val_top5_error": ((None, 4.9),),
    }
