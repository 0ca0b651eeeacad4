"""What the shell completes, as click computes it and as bash shows it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete
from helpers.terminal import Terminal

import irv2caffe.check.rules  # noqa: F401  registers the rules
from irv2caffe.check.registry import RULES
from irv2caffe.cli.main import cli
from irv2caffe.config import VARIANTS, recipe_names


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Runs, databases and models; an awkward name among each."""
    for name in ("first", "second", "$(touch x)", "a b", ".hidden"):
        run = tmp_path / "runs" / name
        (run / "snapshots").mkdir(parents=True)
        (run / "config.json").write_text("{}")
        (run / "solver.prototxt").write_text("")
        for iteration in (900, 1000):
            (run / f"snapshots/net_iter_{iteration}.caffemodel").write_text("")
            (run / f"snapshots/net_iter_{iteration}.solverstate").write_text("")
    (tmp_path / "runs/latest").symlink_to("second")
    for name in ("data/train_lmdb", "data/val_lmdb", "data/x;y"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "data.mdb").write_text("")
    (tmp_path / "pictures/cat").mkdir(parents=True)
    (tmp_path / "irv2.caffemodel").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complete(*words):
    """The plain values for a command line whose last word is not complete."""
    *args, incomplete = words
    found = ShellComplete(cli, {}, "irv2caffe", "_IRV2CAFFE_COMPLETE").get_completions(
        args, incomplete
    )
    return [item.value for item in found if item.type == "plain"]


def test_words():
    assert complete("ru") == ["runs"]
    assert set(VARIANTS) <= set(complete("build-net", "--variant", ""))
    assert complete("build-net", "--variant", "sm") == ["small75", "small32"]
    assert complete("build-net", "--recipe", "") == recipe_names()
    assert complete("train", "--recipe", "paper-") == ["paper-sgd"]
    assert complete("train", "--engine", "") == ["auto", "caffe", "torch"]
    assert complete("train", "--gpus", "") == ["auto", "all", "none"]
    assert complete("check", "solver.prototxt", "--ignore", "") == [
        rule.name for rule in RULES.values()
    ]
    assert complete("build-net", "--mean-value", "") == ["database"]
    assert complete("build-net", "--epochs", "") == []


def test_folders_and_files(desk):
    every = ["runs/first", "runs/latest", "runs/second"]
    for option in ("--status", "--stop", "--snapshot-now", "--resume"):
        assert complete("train", option, "") == every
    assert complete("train", "--status", "ru") == every
    assert complete("train", "--status", "runs/f") == ["runs/first"]
    assert complete("train", "--status", "./runs/f") == ["./runs/first"]
    assert complete("train", "--status", f"{desk}/runs/f") == [f"{desk}/runs/first"]
    assert complete("train", "--status", "none/") == []
    assert complete("train", "--resume", "runs/first/snapshots/") == [
        "runs/first/snapshots/net_iter_1000.solverstate",
        "runs/first/snapshots/net_iter_900.solverstate",
    ]
    for option in ("--train-lmdb", "--val-lmdb"):
        assert complete("build-net", option, "") == ["data/train_lmdb", "data/val_lmdb"]
    assert complete("build-net", "--train-lmdb", "data/t") == ["data/train_lmdb"]
    for command in ("evaluate", "classify", "deploy"):
        assert complete(command, "runs/f") == ["runs/first"]
    assert complete("deploy", "irv") == ["irv2.caffemodel"]
    assert complete("train", "--weights", "")[:2] == [
        "irv2.caffemodel",
        "runs/first/snapshots/net_iter_1000.caffemodel",
    ]


def test_an_endless_folder_takes_no_long_time(tmp_path, monkeypatch):
    """No more than some thousand entries are looked at, however many there are."""
    for number in range(6000):
        (tmp_path / f"{number}.jpg").touch()
    seen = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: seen.append(path) or scan(path))
    monkeypatch.chdir(tmp_path)
    assert complete("train", "--status", "") == []
    assert len(seen) == 1
    loop = tmp_path / "loop"
    loop.mkdir()
    for number in range(50):
        (loop / str(number)).symlink_to(loop)
    monkeypatch.chdir(loop)
    seen.clear()
    assert complete("train", "--status", "") == []
    assert len(seen) < 5000


def test_nothing_heavy_is_imported():
    code = (
        "import sys\nfrom irv2caffe.cli import run\n"
        "try:\n    run([])\nexcept SystemExit:\n    pass\n"
        "heavy = {'cv2', 'matplotlib', 'torch', 'lmdb', 'rich'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    for line in ("check x --ignore ", "train --train-lmdb ", "build-net --variant "):
        env = {
            **os.environ, "_IRV2CAFFE_COMPLETE": "bash_complete",
            "COMP_WORDS": f"irv2caffe {line}", "COMP_CWORD": str(len(line.split()) + 1),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(shell):
    env = {**os.environ, "_IRV2CAFFE_COMPLETE": f"{shell}_source"}
    argv = [sys.executable, "-m", "irv2caffe"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert "_irv2caffe_completion" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)


def test_bash_completes_at_the_tabulator(desk):
    if not shutil.which("bash"):
        pytest.skip("bash is not installed")
    program = desk / "bin/irv2caffe"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m irv2caffe \"$@\"\n")
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "TERM": "dumb"}
    env |= {"PS1": "> ", "INPUTRC": "/dev/null", "HISTFILE": "/dev/null"}
    bash = Terminal(["bash", "--norc", "--noprofile", "-i"], 200, rewraps=True, cwd=desk, env=env)
    try:
        bash.press('eval "$(_IRV2CAFFE_COMPLETE=bash_source irv2caffe)"; echo re""ady\n')
        bash.wait_for(lambda rows: "ready" in rows, "the script")
        for typed, shown in (
            ("irv2caffe tra\t", "> irv2caffe train "),
            ("--stat\t", "train --status "),
            ("runs/f\t", "train --status runs/first"),
            ("\x15irv2caffe build-net --variant sl\t", "> irv2caffe build-net --variant slim"),
            ("--train-lmdb data/v\t", "--variant slim --train-lmdb data/val_lmdb"),
            ("\x15irv2caffe check x --ignore bn-gl\t", "--ignore bn-global-stats-in-train"),
        ):
            bash.press(typed)
            bash.wait_for(lambda rows, shown=shown: shown in rows[-1] + " ", shown)
    finally:
        bash.close()
