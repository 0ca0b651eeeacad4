"""Reading logs: lines by hand, logs of the real Caffe, and any soup of bytes."""

from __future__ import annotations

import csv
import gzip
import math
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irv2caffe.caffe.command import tool_command
from irv2caffe.errors import FormatError, MissingInputError
from irv2caffe.log import events
from irv2caffe.log.parse import parse
from irv2caffe.log.read import Reader, read_lines, read_log
from irv2caffe.log.table import accuracy_names, make_table, summarize, write_csv

STAMP = "I1124 01:02:03.500000  4242 solver.cpp:239] "
TIME = events.LogTime(None, 11, 24, 3723.5)


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ("Iteration 20, loss = 6.9", events.Loss(TIME, 20, 6.9)),
        (
            "Iteration 20 (-1.70479e+17 iter/s, 0s/10 iters), loss = 1e-05",
            events.Loss(TIME, 20, 1e-5),
        ),
        (
            "    Train net output #0: loss = 87.3365 (* 1 = 87.3365 loss)",
            events.Output(TIME, False, 0, "loss", 87.3365),
        ),
        (
            "    Test net output #1: loss3/top-5 = 0.9",
            events.Output(TIME, True, 1, "loss3/top-5", 0.9),
        ),
        ("Iteration 5, lr = 0.045", events.LearningRate(TIME, 5, 0.045)),
        ("Iteration 40, Testing net (#1)", events.TestStart(TIME, 40, 1)),
        ("Iteration 40, Testing net", events.TestStart(TIME, 40, 0)),
        (
            "Snapshotting to binary proto file a b/s_iter_10.caffemodel",
            events.Snapshot(TIME, "a b/s_iter_10.caffemodel", False),
        ),
        (
            "Snapshotting solver state to HDF5 file s.h5",
            events.Snapshot(TIME, "s.h5", True),
        ),
        ("Solving ", events.Solving(TIME, "")),
        ("Using GPUs 0, 1", events.Devices(TIME, 2)),
        ("Optimization stopped early.", events.StoppedEarly(TIME)),
        ("Optimization Done.", events.Done(TIME)),
        ("Waiting for data", None),
        ("Iteration 5, loss = ", None),
        ("", None),
    ],
)
def test_lines(message, event):
    assert parse(STAMP + message) == event
    assert parse(STAMP + message + "\r\n") == event


def test_lines_without_prefix_with_eight_digit_dates_and_nul():
    assert parse("Iteration 20, loss = 6.9") == events.Loss(None, 20, 6.9)
    line = "I20251231 23:59:59.000000 1 solver.cpp:1] Iteration 1, lr = 1\0"
    assert parse(line) == events.LearningRate(events.LogTime(2025, 12, 31, 86399.0), 1, 1.0)
    fatal = "F1124 01:02:03.5 1 x.cpp:1] Check failed: a == b (1 vs. 2)"
    assert parse(fatal) == events.Fatal(TIME, "Check failed: a == b (1 vs. 2)")


@pytest.mark.parametrize("text", ["nan", "-nan", "NaN", "1.#QNAN", "-1.#IND", "nan(ind)"])
def test_not_a_number(text):
    event = parse(f"{STAMP}Iteration 3, loss = {text}")
    assert math.isnan(event.loss)


@pytest.mark.parametrize("text", ["inf", "-inf", "1.#INF"])
def test_infinity(text):
    assert math.isinf(parse(f"{STAMP}Iteration 3, loss = {text}").loss)


NET = """
name: "tiny"
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 8 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc/top-1"
  include { phase: TEST } }
layer { name: "acc5" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc/top-5"
  include { phase: TEST } accuracy_param { top_k: 5 } }
"""
SOLVER = """
net: "net.prototxt" base_lr: LR lr_policy: "step" gamma: 0.5 stepsize: 20 display: 5 max_iter: 40
test_iter: 3 test_interval: 10 snapshot: 20 snapshot_prefix: "s" solver_mode: CPU random_seed: 1
"""


def run_caffe(caffe, folder, *args, lr="0.01"):
    """The log of a real training."""
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER.replace("LR", lr))
    command = tool_command(caffe, "caffe", ["train", "-solver", "solver.prototxt", *args])
    env = {**command.env, "GLOG_logtostderr": "1"}
    done = subprocess.run(command.argv, env=env, cwd=folder, capture_output=True, check=False)
    return done.stderr


def test_log_of_the_real_caffe(caffe, tmp_path):
    """Compared with a plain search for the same numbers."""
    text = run_caffe(caffe, tmp_path)
    (tmp_path / "train.log").write_bytes(text)
    log = read_log(tmp_path)
    displays = re.findall(r"Iteration (\d+)(?: \(.*\))?, loss = (\S+)", text.decode())
    assert [(point.iteration, point.loss) for point in log.train] == [
        (int(iteration), float(loss)) for iteration, loss in displays
    ]
    assert [point.iteration for point in log.train] == list(range(0, 41, 5))
    assert [point.iteration for point in log.test] == [0, 10, 20, 30, 40]
    accuracies = [float(value) for value in re.findall(rb"acc/top-1 = (\S+)", text)]
    assert [point.outputs["acc/top-1"] for point in log.test] == accuracies
    assert [point.lr for point in log.train] == [0.01] * 4 + [0.005] * 4 + [None]
    assert log.finished
    assert not log.stopped
    assert [path.endswith(".caffemodel") for path in log.snapshots] == [True, True]
    assert log.fields["max_iter"] == 40
    summary = summarize(make_table(log))
    assert summary.last_top1_error == pytest.approx(100 * (1 - accuracies[-1]))
    assert summary.iterations == 40
    assert summary.lr == 0.005  # the line of the last iteration has none
    assert summary.diverged is None


def test_resumed_run_of_the_real_caffe(caffe, tmp_path):
    """A second process goes back to iteration 20: what it says counts, the rest is kept."""
    first = run_caffe(caffe, tmp_path)
    second = run_caffe(caffe, tmp_path, "-snapshot", "s_iter_20.solverstate", lr="0.02")
    (tmp_path / "whole.log").write_bytes(first + second)
    log = read_log(tmp_path / "whole.log")
    assert [point.iteration for point in log.train] == list(range(0, 41, 5))
    assert [point.iteration for point in log.test] == [0, 10, 20, 30, 40]
    assert log.restarts == [20]
    assert [point.lr for point in log.train] == [0.01] * 4 + [0.01] * 4 + [None]
    seconds = [point.seconds for point in log.train]
    assert seconds == sorted(seconds)


def test_diverged_run_of_the_real_caffe(caffe, tmp_path):
    (tmp_path / "a.log").write_bytes(run_caffe(caffe, tmp_path, lr="1e38"))
    summary = summarize(make_table(read_log(tmp_path / "a.log")))
    assert summary.diverged is not None


def test_fatal_end_of_the_real_caffe(caffe, tmp_path):
    text = run_caffe(caffe, tmp_path, "-snapshot", "missing.solverstate")
    (tmp_path / "a.log").write_bytes(text)
    log = read_log(tmp_path / "a.log")
    assert log.fatal
    assert not log.finished


def test_batch_and_epochs_come_from_the_log():
    lines = [
        STAMP + "Using GPUs 0, 1",
        STAMP + "Initializing solver from parameters: ",
        "test_iter: 10",
        "max_iter: 100",
        "iter_size: 2",
        STAMP + "Initializing net from parameters: ",
        'name: "n"',
        "state {",
        "  phase: TRAIN",
        "}",
        "layer {",
        "  data_param {",
        "    batch_size: 16",
        STAMP + "Iteration 0, loss = 7",
        STAMP.replace("03.5", "13.5") + "Iteration 100, loss = 6",
    ]
    log = read_lines(lines)
    table = make_table(log, num_train_images=640)
    assert table.images_per_iteration == 64
    assert table.train[-1].epoch == 10.0
    assert table.train[-1].images_per_second == pytest.approx(640.0)
    assert make_table(log).train[-1].epoch is None


def test_turn_of_the_year():
    lines = [
        "I1231 23:59:50.000000 1 solver.cpp:1] Iteration 0, loss = 7",
        "I0101 00:00:10.000000 1 solver.cpp:1] Iteration 20, loss = 6",
    ]
    assert read_lines(lines).train[-1].seconds == pytest.approx(20.0)


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
    ],
)
def test_accuracy_names(names, found):
    assert accuracy_names(names) == found


def test_csv_holds_every_row(tmp_path):
    lines = [
        STAMP + "Iteration 0, Testing net (#0)",
        STAMP + "    Test net output #0: accuracy_top1 = 0.25",
        STAMP + "Iteration 0, loss = nan",
        STAMP + "Iteration 0, lr = 0.1",
    ]
    write_csv(tmp_path / "rows.csv", make_table(read_lines(lines)))
    with (tmp_path / "rows.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["kind"] for row in rows] == ["test", "train"]
    assert (rows[0]["top1_error"], rows[0]["top5_error"]) == ("75.0", "")
    assert (rows[1]["loss"], rows[1]["lr"]) == ("nan", "0.1")


def test_gzipped_and_torn_logs(tmp_path):
    text = (STAMP + "Iteration 0, loss = 7\n") * 2000
    (tmp_path / "a.log.gz").write_bytes(gzip.compress(text.encode()))
    assert len(read_log(tmp_path / "a.log.gz").train) == 1
    packed = gzip.compress(text.encode() + bytes(range(256)) * 500)
    (tmp_path / "torn.log.gz").write_bytes(packed[: len(packed) // 2])
    assert len(read_log(tmp_path / "torn.log.gz").train) == 1


def test_what_is_no_log(tmp_path):
    with pytest.raises(MissingInputError):
        read_log(tmp_path / "no")
    with pytest.raises(MissingInputError, match=r"no train\.log"):
        read_log(tmp_path)
    for name, data in (("text", b"hello\n"), ("empty", b""), ("bytes", bytes(range(256)))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match="no line of it"):
            read_log(tmp_path / name)
    (tmp_path / "x.gz").write_bytes(b"not gzip")
    with pytest.raises(FormatError, match="gzip"):
        read_log(tmp_path / "x.gz")


PIECES = st.sampled_from(
    [
        STAMP,
        "Iteration 5, loss = 1",
        "Iteration 7 (1 iter/s, 2s/3 iters), loss = nan",
        "Initializing solver from parameters: ",
        "Initializing net from parameters: ",
        "max_iter: 3",
        "Iteration 3, Testing net (#0)",
        "    Test net output #0: acc = 0.5",
        "I0230 99:99:99.9 1 a.cpp:1] Iteration 1, loss = 3",
        "\n",
        "\r\n",
        "\0",
    ]
)


@given(st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=60))
def test_any_soup_is_read(pieces):
    reader = Reader()
    for line in "".join(pieces).split("\n"):
        reader.feed(line)
    summarize(make_table(reader.log, num_train_images=10))
