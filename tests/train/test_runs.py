"""The command runs: what it lists of real runs, of broken folders and of hundreds."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
from helpers.program import run as program
from helpers.training_jobs import (
    FOREVER,
    PATIENCE_S,
    config,
    end_started,
    irv2caffe,
    make_databases,
    start,
    wait_for_text,
    write_job,
)

from irv2caffe.cli import run as command
from irv2caffe.log.read.reader import read_log
from irv2caffe.train.run_dir.settings import differences, shown

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(caffe, tmp_path_factory):
    """Three finished runs of real Caffe that differ in a rate, one that diverged."""
    root = tmp_path_factory.mktemp("runs")
    make_databases(root)
    changes = {"max_iter": 40, "test_interval": 20, "snapshot": 0, "weight_decay": 0.0001}
    for name, more in (
        ("a", {}),
        ("b", {"base_lr": 0.002}),
        ("c", {"momentum": 0.5}),
        ("nan", {"base_lr": 1e30}),
    ):
        solver = write_job(root, root / "job", **{**changes, **more})
        done = irv2caffe("--solver", solver, "--run-dir", f"runs/{name}", cwd=root)
        assert done.returncode == (1 if name == "nan" else 0), done.stderr
    return root / "runs"


def listed(folder, *args, cwd=None):
    done = program("runs", folder, "--json", *args, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_states_errors_and_differences(runs):
    found = listed(runs)
    by_name = {run["name"]: run for run in found["runs"]}
    assert list(by_name) == ["a", "b", "c", "nan"]  # the oldest first
    assert [by_name[name]["state"] for name in by_name] == ["finished"] * 3 + ["diverged"]
    assert "loss" in by_name["nan"]["why"]
    assert [run["is_latest"] for run in found["runs"]] == [False, False, False, True]
    for name in ("a", "b", "c"):
        errors = [100 * (1 - test.outputs["acc/top-1"]) for test in read_log(runs / name).test]
        assert by_name[name]["last_top1_error"] == pytest.approx(errors[-1])
        assert by_name[name]["best_top1_error"] == pytest.approx(min(errors))
        assert (by_name[name]["iteration"], by_name[name]["max_iter"]) == (40, 40)
        assert by_name[name]["started"] == config(runs / name)["started"]
    assert found["usual"] == {"momentum": 0.9}  # two of four rates are not most of them
    assert by_name["a"]["differs"] == {"base_lr": 0.01}
    assert by_name["b"]["differs"] == {"base_lr": 0.002}
    assert by_name["c"]["differs"] == {"base_lr": 0.01, "momentum": 0.5}
    assert by_name["a"]["settings"]["base_lr"] == 0.01


def test_the_table(runs):
    text = program("runs", cwd=runs.parent).stdout
    head, *lines = text.splitlines()
    assert head.split() == ["run", "state", "error", "best", "iterations", "started", "updated"]
    rows = [line for line in lines if not line.startswith(" ")]
    assert rows[0].split()[:2] == ["a", "finished"]
    assert "40 of 40" in rows[0]
    assert rows[3].startswith("nan (latest)  diverged")
    assert "    base_lr 0.002" in lines
    only = program("runs", runs / "b").stdout
    assert [line.split()[0] for line in only.splitlines()] == ["run", "b"]


def test_a_running_and_a_killed_one(runs, tmp_path):
    root = runs.parent
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER)
    child = start("--solver", solver, "--run-dir", tmp_path / "runs/x", cwd=tmp_path)
    try:
        wait_for_text(tmp_path / "runs/x/state.json", '"top1_error": 0.0')
        (now,) = listed(tmp_path / "runs")["runs"]
        assert now["state"] == "running"
        assert now["seconds_left"] > 0
        shown_ = irv2caffe("--status", "--json", cwd=tmp_path)  # of the latest run
        assert json.loads(shown_.stdout)["pid"] == child.pid
        saved = irv2caffe("--snapshot-now", cwd=tmp_path)
        assert saved.returncode == 0, saved.stderr
        stopped = irv2caffe("--stop", cwd=tmp_path)
        assert stopped.returncode == 0, stopped.stderr
        assert child.wait(PATIENCE_S) == 130
    finally:
        end_started()
    (stopped,) = listed(tmp_path / "runs")["runs"]
    assert stopped["state"] == "stopped"
    child = start("--resume", cwd=tmp_path)
    try:
        wait_for_text(tmp_path / "runs/x/logs/start-002.log", "loss = ")
        child.send_signal(signal.SIGKILL)
        child.wait()
    finally:
        end_started()
    (killed,) = listed(tmp_path / "runs")["runs"]
    assert killed["state"] == "interrupted"
    late = irv2caffe("--stop", cwd=tmp_path)
    assert late.returncode == 1
    assert "no training is running in" in late.stderr
    nothing = irv2caffe("--status", cwd=runs)
    assert nothing.returncode == 1
    assert "runs/latest holds no run" in nothing.stderr


BROKEN = {
    "empty": ({}, "no config.json"),
    "caffe": ({"net_iter_10.solverstate": "x"}, "snapshots of another program"),
    "text": ({"config.json": "hello"}, "cannot be read as a JSON object"),
    "list": ({"config.json": "[1]"}, "cannot be read as a JSON object"),
    "deep": ({"config.json": "[" * 100_000}, "cannot be read as a JSON object"),
    "other": ({"config.json": '{"model": "bert"}'}, "config.json of another program"),
    "begun": ({"config.json": '{"irv2caffe": "0.2"}'}, "not started: no solver.prototxt"),
}
# Files of a run whose values are of other kinds.
STRANGE = (
    (
        '{"irv2caffe": 1, "plan": [], "options": 3, "ending": {"a": 1}, "summary": "x", "why": 5, '
        '"started": 7, "weights": {"x": [1]}, "solver": 4}'
    ),
    (
        '{"irv2caffe": 1, "plan": {"config": {"a": 1, "b": {"value": [2]}, "d": {"value": NaN}}}, '
        '"ending": "\\u001b[31mred", "summary": {"last_top1_error": true, "iterations": "many", '
        '"best_top1_error": Infinity, "max_iter": 1e999}}'
    ),
)


def test_foreign_and_broken_folders_are_listed_with_the_reason(runs, tmp_path):
    folder = tmp_path / "runs"
    for name, (files, _) in BROKEN.items():
        (folder / name).mkdir(parents=True)
        for file, text in files.items():
            (folder / name / file).write_text(text)
    for number, text in enumerate(STRANGE):
        (folder / f"strange{number}").mkdir()
        (folder / f"strange{number}/config.json").write_text(text)
        (folder / f"strange{number}/state.json").write_text("[]")
        (folder / f"strange{number}/solver.prototxt").write_text("")
    shutil.copytree(runs / "a", folder / "sound")
    (folder / "notes.txt").write_text("not a folder")
    (folder / "latest").symlink_to("nowhere")
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe/config.json")
    found = listed(folder)
    reasons = {other["name"]: other["reason"] for other in found["others"]}
    for name, (_, words) in BROKEN.items():
        assert words in reasons[name], name
    assert "cannot be read" in reasons["pipe"]
    assert {run["name"] for run in found["runs"]} == {"strange0", "strange1", "sound"}
    text = program("runs", folder).stdout
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if line.endswith("read as a JSON object")]
    assert [line.startswith("no run: ") and "text" in line for line in lines] == [True]
    missing = program("runs", folder / "gone")
    assert missing.returncode == 1
    assert "is no folder" in missing.stderr


def test_hundreds_of_runs(runs, tmp_path, monkeypatch, capsys):
    """Each takes a few small files, however long its log is."""
    opened = []
    for number in range(300):
        folder = tmp_path / "runs" / f"run-{number:03}"
        folder.mkdir(parents=True)
        for name in ("config.json", "state.json", "solver.prototxt"):
            shutil.copy(runs / "a" / name, folder)
    from irv2caffe import system

    read = system.open_regular
    monkeypatch.setattr(system, "open_regular", lambda path: opened.append(path) or read(path))
    assert command(["runs", str(tmp_path / "runs")]) == 0
    assert len(opened) <= 3 * 300
    assert len(capsys.readouterr().out.splitlines()) == 301


def test_what_differs():
    first = {"base_lr": 0.1, "max_iter": 100, "epochs": 1.0, "plot": True, "ema": 0.0}
    runs = [first, {**first, "max_iter": 200, "epochs": 2.0}, {**first, "base_lr": 1}]
    del runs[1]["ema"]  # which only the torch engine has
    found = differences(runs)
    assert found.of_runs == ({}, {"epochs": 2.0}, {"base_lr": 1})
    assert found.usual == {"base_lr": 0.1, "epochs": 1.0}
    two = differences([first, {**first, "base_lr": True}])
    assert two.of_runs == ({"base_lr": 0.1}, {"base_lr": True})
    assert two.usual == {}
    assert shown({"a": 1.0, "b": None, "c": True, "d": "text"}) == "a 1, b none, c yes, d text"
    assert differences([]).of_runs == ()
