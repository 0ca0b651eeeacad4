"""Reading of a growing log: divergence, speed, stalls; the terminal; options of a resumed run."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import termios
import time

import pytest
from helpers.training_jobs import (
    PATIENCE_S,
    config,
    irv2caffe,
    make_stand_in,
    start_with,
    wait_for_text,
    write_job,
)

from irv2caffe.train.run.caffe_log import RawLog, concatenate_logs
from irv2caffe.train.run.metrics_jsonl import MetricsFile
from irv2caffe.train.run.stall_watch import StallWatch
from irv2caffe.train.run.tracker import Tracker
from irv2caffe.train.run_dir.run_dir import RunDir


def display(iteration, loss, *outputs, at="10:00:00.000000", lr=0.01, day=1124, weight=1):
    start = f"I{day} {at} 100 solver.cpp:1]"
    yield f"{start} Iteration {iteration} (1.5 iter/s, 6s/10 iters), loss = {loss}"
    for index, (name, value) in enumerate(outputs):
        weighted = f" (* {weight} = {value} loss)" if weight else ""
        yield f"{start}     Train net output #{index}: {name} = {value}{weighted}"
    yield f"{start} Iteration {iteration}, lr = {lr}"


def feed(*blocks):
    rows = []
    tracker = Tracker(rows.append)
    for block in blocks:
        for line in block:
            tracker.line(line)
    tracker.finish()
    return tracker, rows


@pytest.mark.parametrize("loss", ["nan", "-nan", "inf", "-inf"])
def test_a_loss_that_is_no_number(loss):
    tracker, _ = feed(display(0, 1.5), display(10, loss))
    assert tracker.now.diverged == 10
    assert tracker.now.last_healthy == 0


def test_a_pinned_loss_counts_when_it_stays():
    tracker, _ = feed(display(0, 2.3), display(10, 87.3365), display(20, 2.2))
    assert tracker.now.diverged is None
    assert tracker.now.last_healthy == 20
    tracker, _ = feed(display(0, 2.3), display(10, 87.3365), display(20, 87.3365))
    assert tracker.now.diverged == 20
    assert "87.3365" in tracker.now.diverged_how
    assert tracker.now.last_healthy == 0


def test_one_pinned_head_of_two_counts():
    """With an auxiliary head the sum is another number."""
    heads = [("loss", 87.3365), ("aux/loss", 2.1)]
    tracker, _ = feed(display(0, 88.2, *heads), display(10, 88.2, *heads))
    assert tracker.now.diverged == 10


def test_outputs_that_are_no_loss_may_be_anything():
    outputs = ("f1", "nan")
    tracker, rows = feed(display(0, 2, outputs, weight=0), display(10, 2, outputs, weight=0))
    assert tracker.now.diverged is None
    assert len(rows) == 2
    tracker, _ = feed(display(0, 2, outputs), display(10, 2, outputs))
    assert tracker.now.diverged == 0


def test_outputs_of_several_elements_are_kept_one_by_one():
    start = "I1124 10:00:20.000000 100 solver.cpp:1]"
    test = [f"{start} Iteration 10, Testing net (#0)"]
    test += [
        f"{start}     Test net output #{k}: acc = {value}" for k, value in enumerate((0.5, 0.25))
    ]
    _, rows = feed(
        display(0, 2.3, ("a", 1), ("a", 2), ("b", 3)), test, display(10, 2, ("a", 4), ("a", 5))
    )
    assert [row["outputs"] for row in rows] == [
        {"a[0]": 1.0, "a[1]": 2.0, "b": 3.0},
        {"acc[0]": 0.5, "acc[1]": 0.25},
        {"a[0]": 4.0, "a[1]": 5.0},
    ]
    assert rows[1]["top1_error"] is None


def test_lines_of_other_threads_change_nothing():
    """With several GPUs, every thread logs gradient clipping and steps of the learning rate."""
    other = ["I1124 10:00:00.1 101 sgd_solver.cpp:9] MultiStep Status: Iteration 10, step = 1"]
    clip = ["I1124 10:00:00.2 102 sgd_solver.cpp:9] Gradient clipping: scaling down gradients"]
    first = list(display(0, 2.3, ("loss", 2.3)))
    mixed = [first[0], *other, first[1], *clip, first[2], *other]
    tracker, rows = feed(mixed, display(10, 2.0), other)
    assert tracker.now.diverged is None
    assert [(row["iteration"], row["loss"], row["lr"]) for row in rows] == [
        (0, 2.3, 0.01),
        (10, 2.0, 0.01),
    ]


def test_rates_come_from_the_stamps_and_leave_tests_out(tmp_path):
    test = [
        "I1124 10:00:20.000000 100 solver.cpp:1] Iteration 20, Testing net (#0)",
        "I1124 10:01:20.000000 100 solver.cpp:1]     Test net output #0: acc/top-1 = 0.25",
    ]
    tracker, rows = feed(
        display(0, 2.3, at="10:00:00.000000"),
        display(10, 2.3, at="10:00:10.000000"),
        test,
        display(20, 2.2, at="10:01:20.500000"),
        display(30, 2.2, at="10:01:30.500000"),
    )
    assert tracker.rate.step_s == pytest.approx(1.0)
    assert tracker.rate.test_s == pytest.approx(60.5)
    metrics = MetricsFile(tmp_path / "metrics", 1, 32, 3200)
    whole = [metrics.complete(row) for row in rows]
    assert [row.get("images_per_second") for row in whole] == [None, 32.0, None, None, 32.0]
    assert whole[2]["top1_error"] == 75.0
    assert whole[-1]["epoch"] == 0.3
    # over midnight
    tracker, _ = feed(
        display(0, 1, at="23:59:59.000000"), display(10, 1, at="00:00:04.000000", day=1125)
    )
    assert tracker.rate.step_s == pytest.approx(0.5)


def test_a_clock_that_is_set_back_leaves_the_rate(tmp_path):
    """The time between two such stamps is unknown, and not almost a day."""
    stamps = ["10:00:00", "10:00:05", "10:00:07", "09:59:59", "10:00:04", "10:00:09"]
    test = "I1124 {} 100 solver.cpp:1] Iteration 60, Testing net (#0)"
    tracker, rows = feed(
        *(display(10 * n, 1, at=f"{at}.000000") for n, at in enumerate(stamps)),
        [test.format("10:00:14.000000")],
        display(60, 1, at="09:00:30.000000"),
        display(70, 1, at="09:00:35.000000"),
    )
    steps = [row["step_s"] for row in rows if row["kind"] == "train"]
    assert steps == pytest.approx([None, 0.5, 0.2, None, 0.5, 0.5, None, 0.5], nan_ok=True)
    assert tracker.rate.step_s == pytest.approx(22 / 50)
    assert tracker.rate.test_s is None


def test_a_test_at_every_display_leaves_a_rate():
    """The time from a display to the next test gives the speed, too."""

    def test(at, iteration):
        start = f"I1124 {at} 100 solver.cpp:1]"
        yield f"{start} Iteration {iteration}, Testing net (#0)"
        yield f"{start}     Test net output #0: acc/top-1 = 0.25"

    tracker, _ = feed(
        display(0, 2.3, at="10:00:00.000000"),
        test("10:00:18.000000", 10),  # nine iterations of two seconds
        display(10, 2.3, at="10:01:00.000000"),
        test("10:01:18.000000", 20),
        display(20, 2.3, at="10:02:00.000000"),
    )
    assert tracker.rate.step_s == pytest.approx(2.0)
    assert tracker.rate.test_s == pytest.approx(42.0)


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def pass_(self, seconds):
        self.now += seconds


def test_the_rhythm_of_a_slow_run_is_no_stall(monkeypatch):
    """A display every 50 minutes and a test of 2 hours: known only from the run itself."""
    clock = Clock(monkeypatch)
    stall = StallWatch()
    stall.start()
    for _ in range(20):  # the lines of a start come at once
        clock.pass_(0.01)
        stall.line("start")
    clock.pass_(3000)
    assert not stall.is_stalled()
    for _ in range(4):
        stall.line("train", is_display=True)
        for _ in range(3):  # so do those of a display
            clock.pass_(0.001)
            stall.line("train")
        clock.pass_(3000)
        assert not stall.is_stalled()
    stall.line("test")
    clock.pass_(7200)
    assert not stall.is_stalled()
    stall.line("train")
    clock.pass_(3000)
    assert not stall.is_stalled()
    clock.pass_(28_000)
    assert stall.is_stalled()


def test_a_fast_run_is_missed_after_ten_minutes(monkeypatch):
    clock = Clock(monkeypatch)
    stall = StallWatch()
    for _ in range(10):
        stall.line("train", is_display=True)
        clock.pass_(5)
    clock.pass_(590)
    assert not stall.is_stalled()
    clock.pass_(10)
    assert stall.is_stalled()
    assert not StallWatch(0).is_stalled()
    told = StallWatch(3)
    clock.pass_(4)
    assert told.is_stalled()


def test_the_stitched_log_is_made_whole(tmp_path):
    logs, stitched = tmp_path / "logs", tmp_path / "train.log"
    logs.mkdir()
    (logs / "start-001.log").write_bytes(b"one\ntorn")
    (logs / "start-002.log").write_bytes(b"two\n")
    wanted = b"one\ntorn\ntwo\n"
    for there in (b"", b"one\n", b"one\ntorn\ntw", wanted, b"one\n\0\0\0\0", wanted + b"more"):
        stitched.write_bytes(there)
        concatenate_logs(stitched, logs)
        assert stitched.read_bytes() == wanted
    (logs / "start-999.log").write_bytes(b"many\n")
    (logs / "start-1000.log").write_bytes(b"last\n")
    concatenate_logs(stitched, logs)
    assert stitched.read_bytes() == wanted + b"many\nlast\n"


def test_a_log_is_read_to_its_last_byte(tmp_path):
    """Any bytes are read, and no reserved space is left behind the end."""
    (tmp_path / "logs").mkdir()
    lines = []
    log = RawLog(tmp_path / "logs/start-001.log", tmp_path / "train.log")
    os.write(log.writing, b"one\ntwo \xff\n" + b"x" * 3_000_000 + b"\nla")
    while log.poll(lines.append):
        pass
    os.write(log.writing, b"st")
    log.finish(lines.append)
    log.close()
    assert [line[:5] for line in lines if line[:1] != "x"] == ["one", "two \ufffd", "last"]
    status = (tmp_path / "logs/start-001.log").stat()
    assert status.st_blocks * 512 < status.st_size + 2 * 4096


def on_a_terminal(args, cwd):
    """Starts a program on a terminal of its own; returns the child and our end."""
    ours, theirs = pty.openpty()

    def take_terminal():
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    child = start_with(
        args,
        cwd=cwd,
        env={"TERM": "xterm", "COLUMNS": "200"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    return child, ours


@pytest.mark.slow
def test_the_panel_on_a_terminal(caffe, root, tmp_path):
    solver = write_job(root, tmp_path / "job", max_iter=20_000, snapshot=0)
    child, ours = on_a_terminal(("--solver", solver, "--run-dir", "run"), tmp_path)
    shown = b""
    while select.select([ours], [], [], PATIENCE_S)[0]:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the end
            break
    assert child.wait(PATIENCE_S) == 0
    os.close(ours)
    text = shown.decode()
    assert re.search(r"iteration [\d,]+ of 20,000  epoch [\d.]+  loss", text)
    assert text.rpartition("\r\x1b[J")[2].startswith("iterations ")  # the panel is gone
    assert "\r\nfinished: run\r\nnext: irv2caffe evaluate run\r\n" in text


@pytest.mark.slow
def test_a_closed_terminal_does_not_end_the_training(caffe, root, tmp_path):
    """SIGHUP, and no terminal to write to: a snapshot is written, and the run finishes."""
    solver = write_job(root, tmp_path / "job", max_iter=60_000, snapshot=0)
    child, ours = on_a_terminal(
        ("--solver", solver, "--run-dir", "run", "--best", "none"), tmp_path
    )
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 300 (")
    os.close(ours)
    child.wait(PATIENCE_S)
    assert config(run.path)["ending"] == "finished"
    taken = sorted(path.name for path in run.snapshots.glob("*.solverstate"))
    assert len(taken) == 2
    assert "tiny_iter_60000.solverstate" in taken


@pytest.mark.slow
def test_a_resumed_run_goes_on_as_it_was_told(caffe, root, tmp_path):
    folder = make_stand_in(tmp_path / "caffe dir")
    solver = write_job(root, tmp_path / "job", max_iter=40)
    args = ("--solver", solver, "--run-dir", "run", "--gpus", "0,1", "--caffe", folder)
    more = ("--keep-snapshots", 2, "--stall-minutes", 7, "--max-restarts", 9)
    first = irv2caffe(*args, *more, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    args = ("--resume", "run", "--epochs", 20, "--max-restarts", 1, "--caffe", folder)
    again = irv2caffe(*args, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    kept = config(tmp_path / "run")
    assert kept["gpus"] == "0,1"
    assert kept["caffe"]["root"] == str(folder)
    assert kept["options"]["keep_newest"] == 2
    assert kept["options"]["stall_s"] == 420
    assert kept["options"]["max_restarts"] == 1
    assert kept["starts"][1]["from_iteration"] == 40


@pytest.mark.slow
def test_a_caffe_of_the_environment_is_found_again(root, tmp_path):
    """Without CAFFE_ROOT the Caffe must be named; another CAFFE_ROOT is used instead."""
    folder = make_stand_in(tmp_path / "one")
    other = make_stand_in(tmp_path / "other")
    solver = write_job(root, tmp_path / "job", max_iter=40)
    args = ("--solver", solver, "--run-dir", "run")
    first = irv2caffe(*args, cwd=tmp_path, CAFFE_ROOT=str(folder))
    assert first.returncode == 0, first.stderr
    again = ("--resume", "run", "--epochs")
    refused = irv2caffe(*again, 10, cwd=tmp_path, CAFFE_ROOT="")
    assert refused.returncode == 1
    assert f"give --caffe {folder} to use it again" in refused.stderr
    for epochs, place in ((10, folder), (20, other)):
        done = irv2caffe(*again, epochs, cwd=tmp_path, CAFFE_ROOT=str(place))
        assert done.returncode == 0, done.stderr
        assert config(tmp_path / "run")["caffe"]["root"] == str(place)


@pytest.mark.slow
def test_findings_that_were_ignored_are_ignored_again(root, tmp_path):
    """--ignore-findings of the first start holds for the next one."""
    solver = write_job(root, tmp_path / "job", max_iter=40)
    net = tmp_path / "job/net.prototxt"
    net.write_text(net.read_text().replace("kernel_size: 3", "kernel_size: 11"))  # of 10x10
    caffe = ("--caffe", make_stand_in(tmp_path / "caffe"))
    args = ("--solver", solver, "--run-dir", "run", *caffe)
    refused = irv2caffe(*args, cwd=tmp_path)
    assert refused.returncode == 1
    first = irv2caffe(*args, "--ignore-findings", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    again = irv2caffe("--resume", "run", "--epochs", 10, *caffe, cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_metrics_do_not_pile_up(tmp_path):
    """Rows are written without a flush when many lines come at once."""
    path = tmp_path / "metrics"
    metrics = MetricsFile(path, 1, 32, 3200)
    for iteration in range(2500):
        metrics.add({"kind": "train", "iteration": iteration, "loss": 2.0, "lr": 0.1})
    assert len(path.read_text().splitlines()) == 2000
    metrics.flush()
    assert len(path.read_text().splitlines()) == 2500
