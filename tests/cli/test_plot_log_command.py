"""plot-log as users run it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import cv2
import pytest
from helpers.paths import FILES
from helpers.training_jobs import child_of_test, wait_for

from irv2caffe.log.export import read_csv
from irv2caffe.log.read.reader import read_log

LOGS = FILES / "logs"
HEALTHY = LOGS / "healthy.log"
COMMAND = [sys.executable, "-m", "irv2caffe", "plot-log"]


def run(*args, cwd, code=0, **more):
    done = subprocess.run(
        [*COMMAND, *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **more,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.slow
def test_everything_at_once(tmp_path):
    outputs = ("--out", "a/f.png", "--html", "a/r.html", "--csv", "a/r.csv", "--jsonl", "a/r.jsonl")
    look = ("--panel", "lr", "--panel", "throughput", "--log-axis", "loss", "--title", "my run")
    done = run(
        LOGS / "resumed.log", *outputs, *look, "--tensorboard", "a/tb", "--unknown", "a/unknown",
        "--num-train-images", 160, cwd=tmp_path,
    )  # fmt: skip
    assert cv2.imread(str(tmp_path / "a/f.png")).shape == (1305, 1350, 3)
    assert "<title>my run</title>" in (tmp_path / "a/r.html").read_text()
    assert len(read_csv(tmp_path / "a/r.csv").train) == 17
    assert len((tmp_path / "a/r.jsonl").read_text().splitlines()) == 22
    assert [path.name for path in tmp_path.glob("a/tb/*/*")] == ["events.out.tfevents.0.irv2caffe"]
    assert (tmp_path / "a/unknown").read_text() == ""
    for kind in ("figure: a/f.png", "report: a/r.html", "rows: a/r.csv", "rows: a/r.jsonl"):
        assert kind in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "resumed.log"
    assert "  iterations            80 (8.00 epochs)" in lines
    assert "  restarts              2" in lines
    assert any(line.startswith("  replaced              8 displays and tests") for line in lines)


def test_json(tmp_path):
    done = run(LOGS / "nan.log", LOGS / "killed.log", "--json", "--name", "lost", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert list(report) == ["lost", "killed.log"]
    assert report["lost"]["last_loss"] is None
    assert report["lost"]["diverged"] == 5
    assert [found["kind"] for found in report["lost"]["anomalies"]] == ["nan", "perfect"]
    assert report["lost"]["images_per_iteration"] == 16
    assert report["killed.log"]["eta_hours"] > 0
    counts = report["killed.log"]["lines"]
    assert counts["read"] == sum(counts.values()) - counts["read"]
    assert "--num-train-images N turns iterations into epochs" in done.stderr


@pytest.mark.slow
def test_references_follow_their_option(tmp_path):
    """``--reference A B C`` as well as a list with commas."""
    shutil.copy(HEALTHY, tmp_path / "train.log")
    for references in (
        ("--reference", "original-2016", "lim0606", "twtygqyy", "paper"),
        ("--reference", "original-2016,lim0606", "--reference", "twtygqyy", "--reference", "paper"),
        ("--reference", "all"),
    ):
        run("train.log", "--num-train-images", 160, "--html", "r.html", *references, cwd=tmp_path)
        page = (tmp_path / "r.html").read_text()
        for name in ("original-2016", "lim0606", "twtygqyy", "paper"):
            assert f"{name} (reference)" in page
    done = run("train.log", "--reference", "soup", cwd=tmp_path, code=2)
    assert "one of: original-2016, lim0606, twtygqyy, paper, all" in done.stderr
    done = run("train.log", "lim0606", cwd=tmp_path, code=1)
    assert "lim0606: no such log" in done.stderr


def test_pieces_of_one_run(tmp_path):
    """glog starts a new file for every process."""
    text = (LOGS / "resumed.log").read_text()
    second = text.index("Use CPU", text.index("Use CPU") + 1)
    cut = text.rindex("\n", 0, second) + 1
    (tmp_path / "first.log").write_text(text[:cut])
    (tmp_path / "second.log").write_text(text[cut:])
    run("first.log", "second.log", "--join", "--csv", "joined.csv", cwd=tmp_path)
    run(LOGS / "resumed.log", "--csv", "whole.csv", cwd=tmp_path)
    joined, whole = ((tmp_path / f"{name}.csv").read_text() for name in ("joined", "whole"))
    assert joined == whole


def test_options_override_what_the_log_says(tmp_path):
    args = ("--images-per-iteration", 32, "--num-train-images", 320, "--top1", "acc/top-5")
    run(HEALTHY, *args, "--year", 2019, "--csv", "r.csv", cwd=tmp_path)
    log = read_log(HEALTHY)
    with (tmp_path / "r.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["kind"] == "test"]
    assert [float(row["epoch"]) for row in rows] == [0.0, 2.0, 4.0, 6.0]
    errors = [100 * (1 - p.outputs["acc/top-5"]) for p in log.test]
    assert [float(row["top1_error"]) for row in rows] == pytest.approx(errors)
    two = run(LOGS / "two_tests.log", "--test-net", 1, "--json", cwd=tmp_path)
    summary = json.loads(two.stdout)["two_tests.log"]
    last = read_log(LOGS / "two_tests.log").test[-1]
    assert summary["last_top1_error"] == pytest.approx(100 - 100 * last.outputs["acc/top-1"])


@pytest.mark.slow
def test_several_runs_with_the_same_name(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "run").mkdir(parents=True)
        shutil.copy(HEALTHY, tmp_path / folder / "run/train.log")
    done = run("a/run", "b/run", "b/run", "--json", "--out", "f.png", cwd=tmp_path)
    assert list(json.loads(done.stdout)) == ["run", "b/run", "b/run (3)"]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--name", "a", "--name", "b"], 2, "--name is given 2 times for 1 runs"),
        (["--watch", "--unknown", "x"], 2, "--unknown does not go with --watch"),
        (["--reference", "all", "--out", "f.png"], 2, "--num-train-images"),
        (["--epochs", "a:b"], 2, "give A:B"),
        (["--epochs", "5:"], 0, "healthy"),
        (["--epochs", "5:inf", "--out", "f.png"], 2, "give A:B"),
        (["--epochs", "nan:", "--out", "f.png"], 2, "give A:B"),
        (["--smooth", "9" * 30, "--out", "f.png"], 0, "figure: f.png"),
        (["--images-per-iteration", "9" * 400], 2, "--images-per-iteration"),
        (["--reference", "all", "--html", "f.html"], 2, "--num-train-images"),
        (["--top1", "acc"], 2, "one of: acc/top-1, acc/top-5, loss/loss"),
        (["--top5", "acc"], 2, "--top5 acc: no such output of a test"),
        (["--test-net", "1"], 2, "--test-net 1: no such test net"),
        (["--csv", "same", "--jsonl", "./same"], 2, "--jsonl same: this is the output of --csv"),
        (["--panel", "soup"], 2, "soup"),
        (["--smooth", "0"], 2, "--smooth"),
        (["--html", "/proc/r.html"], 1, "cannot write /proc/r.html"),
        (["--tensorboard", "/proc/x"], 1, "cannot write /proc/x"),
    ],
)
def test_usage(tmp_path, args, code, words):
    done = run(HEALTHY, *args, cwd=tmp_path, code=code)
    assert words in done.stderr + done.stdout


@pytest.mark.parametrize("option", ["--csv", "--jsonl", "--html", "--unknown"])
@pytest.mark.parametrize("log", ["run", "run/train.log", "link.log"])
def test_a_log_is_never_written_over(tmp_path, option, log):
    (tmp_path / "run").mkdir()
    shutil.copy(HEALTHY, tmp_path / "run/train.log")
    (tmp_path / "link.log").symlink_to("run/train.log")
    done = run(log, option, "run/../run/train.log", cwd=tmp_path, code=2)
    assert "this is a log that is read" in done.stderr
    assert (tmp_path / "run/train.log").read_bytes() == HEALTHY.read_bytes()


@pytest.mark.slow
def test_names_that_are_not_text(tmp_path):
    name = os.fsdecode(b"a\xff.log")
    shutil.copy(HEALTHY, tmp_path / name)
    outputs = ("--out", "f.png", "--html", "r.html", "--jsonl", "r.jsonl", "--tensorboard", "tb")
    done = run(name, HEALTHY, *outputs, "--title", name, cwd=tmp_path)
    assert "a\N{REPLACEMENT CHARACTER}.log" in done.stdout
    assert cv2.imread(str(tmp_path / "f.png")) is not None


def test_a_closed_standard_input(tmp_path):
    done = run("-", cwd=tmp_path, code=1, preexec_fn=lambda: os.close(0))
    assert "standard input is closed" in done.stderr


def test_what_a_log_says_does_not_reach_the_terminal_raw(tmp_path):
    fatal = "F1124 01:02:03.500000  4242 net.cpp:1] Check failed: \x1b]0;owned\x07\x1b[2J"
    (tmp_path / "a.log").write_text(f"{HEALTHY.read_text()}{fatal}\n")
    done = run("a.log", cwd=tmp_path)
    assert "Check failed: " in done.stdout
    assert "\x1b" not in done.stdout


def watching(*args, cwd):
    """The program while it watches a log."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return child_of_test([*COMMAND, *args], cwd=cwd, **pipes)


def test_watching_a_real_training(caffe, tmp_path):
    """The log of a Caffe that trains; the files are there before it ends, and it ends with it."""
    from helpers import make_logs

    folder = make_logs.Folder(tmp_path / "work", caffe)
    (tmp_path / "run").mkdir()
    log = tmp_path / "run/train.log"
    log.touch()
    args = ("run", "--html", "r.html", "--csv", "r.csv", "--watch", "--every", "0.2", "--json")
    with watching(*args, cwd=tmp_path) as watcher:
        first = folder.train_until(b"Iteration 30,", signal.SIGKILL, max_iter="1000000")
        log.write_bytes(first[: first.index(b"Iteration 30, lr") + 30])
        wait_for((tmp_path / "r.csv").exists)
        wait_for((tmp_path / "r.html").exists)
        assert 'http-equiv="refresh"' in (tmp_path / "r.html").read_text()
        assert watcher.poll() is None
        rest = folder.train("-snapshot", "snap_iter_20.solverstate")
        with log.open("ab") as stream:
            stream.write(b"\n" + rest)
        stdout, stderr = watcher.communicate(timeout=60)
    assert watcher.returncode == 0, stderr
    assert 'http-equiv="refresh"' not in (tmp_path / "r.html").read_text()
    assert json.loads(stdout)["run"]["iterations"] == 60
    assert [row.iteration for row in read_csv(tmp_path / "r.csv").train] == list(range(0, 61, 5))
    assert stderr.count("run: iterations") >= 2


def test_watching_refuses_what_no_test_has(tmp_path):
    done = run(HEALTHY, "--watch", "--every", "0.1", "--top1", "soup", cwd=tmp_path, code=2)
    assert "one of: acc/top-1, acc/top-5, loss/loss" in done.stderr


@pytest.mark.slow
def test_watching_is_ended_by_ctrl_c(tmp_path):
    (tmp_path / "a.log").write_text("")
    args = ("a.log", "--out", "f.png", "--watch", "--every", "0.1")
    with watching(*args, cwd=tmp_path) as watcher:
        with (tmp_path / "a.log").open("a") as stream:
            stream.write("Iteration 0, loss = 7\n")
        wait_for((tmp_path / "f.png").exists)
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(30) == 130
        assert "interrupted" in watcher.stderr.read()
    assert cv2.imread(str(tmp_path / "f.png")) is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "f.png"]
