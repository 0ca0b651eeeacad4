"""The program as users meet it: help, errors, exit codes, the whole way from images to plot."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys

import click
import cv2
import numpy as np
import pytest
from helpers.program import run

from irv2caffe import __version__
from irv2caffe.cli.main import cli as program

ORDER = ["install-caffe", "caffe", "make-lmdb", "inspect-lmdb", "build-net", "summary"]
ORDER += ["check", "train", "runs", "plot-log", "diagnose", "evaluate", "classify", "deploy"]
ORDER += ["import-weights", "export-weights"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three classes of flat colours with noise."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("val", 30)):
        for index in range(count):
            folder = root / part / ("blue", "green", "red")[index % 3]
            folder.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 100, (80, 80, 3), np.uint8)
            image[:, :, index % 3] += 150
            cv2.imwrite(str(folder / f"{index}.jpg"), image)
    return root


def test_help_lists_the_commands_in_the_order_of_use():
    done = run("--help")
    assert done.returncode == 0
    places = [done.stdout.index(f"  {name} ") for name in ORDER]
    assert places == sorted(places)
    assert "130 interrupted" in " ".join(done.stdout.split())
    assert list(program.commands) == ORDER


@pytest.mark.parametrize("command", ORDER)
def test_every_option_is_explained(command):
    done = run(command, "--help")
    assert done.returncode == 0
    for parameter in program.commands[command].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_names_in_the_help_are_those_of_the_config():
    from irv2caffe.config import FILLERS, VARIANTS

    metavars = {param.name: param.metavar for param in program.commands["build-net"].params}
    assert metavars["variant"].split("|") == [*VARIANTS, "auto"]
    assert metavars["filler"].split("|") == list(FILLERS)


def test_version():
    assert run("--version").stdout == f"irv2caffe, version {__version__}\n"


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from irv2caffe.cli import run\n"
        "run(['--help'])\n"
        "heavy = {'numpy', 'cv2', 'lmdb', 'matplotlib', 'google', 'rich', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.slow
def test_from_images_to_the_plot(caffe, images, tmp_path):
    made = run("make-lmdb", images / "train", "train_lmdb", "--resize", "80", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "60 images of 3 classes" in made.stdout
    more = ("--labels", "train_lmdb", "--no-shuffle", "--backend", "convert_imageset", "--json")
    made = run("make-lmdb", images / "val", "val_lmdb", "--resize", "80", *more, cwd=tmp_path)
    assert json.loads(made.stdout)["num_images"] == 30
    databases = ("--train-lmdb", "train_lmdb", "--val-lmdb", "val_lmdb")
    small = ("--crop", "75", "--width", "0.05", "--batch-size", "6", "--epochs", "2")
    args = ("build-net", "--out", "net", *databases, *small, "--bn-fraction", "0.9")
    built = run(*args, cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    text = (tmp_path / "net/train_val.prototxt").read_text()
    assert text.startswith(f"# irv2caffe {__version__}\n# irv2caffe build-net --out net ")
    assert "3 classes" in text
    checked = run("check", "net/solver.prototxt", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout
    for command in (args, ("train", "--recipe", "paper", *databases, *small)):
        text = run(*command, "--mean-value", "database", "--print-config", cwd=tmp_path).stdout
        assert re.search(r"^ *mean_value +\(\d+\.\d+, .*\) +database", text, re.MULTILINE)
        text = run(*command, "--mean-file", "database", "--print-config", cwd=tmp_path).stdout
        assert re.search(r"^ *mean_file +train_lmdb/mean.binaryproto +database", text, re.MULTILINE)
    trained = run("train", "--solver", "net/solver.prototxt", "--run-dir", "run", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.endswith("finished: run\n")
    out = ("--out", "run/plot.png", "--csv", "run/rows.csv", "--json")
    plotted = run("plot-log", "run", *out, cwd=tmp_path)
    assert plotted.returncode == 0, plotted.stderr
    summary = json.loads(plotted.stdout)["run"]
    assert (summary["iterations"], summary["epochs"]) == (20, 2.0)
    assert 0 <= summary["last_top1_error"] <= 100
    with (tmp_path / "run/rows.csv").open() as stream:
        assert {row["kind"] for row in csv.DictReader(stream)} == {"train", "test"}
    assert cv2.imread(str(tmp_path / "run/plot.png")) is not None
    from_latest = run("plot-log", "latest", cwd=tmp_path)
    assert "top-1 error" in from_latest.stdout
    taken = run("train", "--solver", "net/solver.prototxt", "--run-dir", "run", cwd=tmp_path)
    assert taken.returncode == 1
    assert "--resume" in taken.stderr


BAD = {
    "no command": (["frobnicate"], 2),
    "no argument": (["make-lmdb"], 2),
    "missing images": (["make-lmdb", "none", "out"], 1),
    "existing output": (["make-lmdb", "images/train", "existing"], 1),
    "foreign output": (["make-lmdb", "images/train", "existing", "--force"], 1),
    "write_error output": (["make-lmdb", "images/train", "/proc/out", "--resize", "8"], 1),
    "bad size": (["make-lmdb", "images/train", "out", "--resize", "big"], 2),
    "bad list": (["make-lmdb", "images/train", "out", "--list", "text"], 1),
    "missing list": (["make-lmdb", "images/train", "out", "--list", "none"], 1),
    "bad mode": (["make-lmdb", "images/train", "out", "--resize-mode", "stretch"], 2),
    "bad quality": (["make-lmdb", "images/train", "out", "--quality", "0"], 2),
    "bad area": (["make-lmdb", "images/train", "out", "--augment", "inception", "--area", "2"], 2),
    "augment without size": (
        ["make-lmdb", "images/train", "out", "--augment", "inception", "--resize", "none"],
        2,
    ),
    "unlike caffe": (
        ["make-lmdb", "images/train", "out", "--exactly-like-caffe", "--fast-decode"],
        2,
    ),
    "no archive": (["make-lmdb", "text", "out"], 1),
    "no devkit there": (["make-lmdb", "images/train", "out", "--devkit", "text"], 2),
    "no database to inspect": (["inspect-lmdb", "none"], 1),
    "inspect a folder": (["inspect-lmdb", "existing"], 1),
    "other sheet": (["inspect-lmdb", "existing", "--peek", "sheet.gif"], 2),
    "compare with nothing": (["inspect-lmdb", "existing", "--compare", "none"], 1),
    "missing database": (["build-net", "--out", "out", "--train-lmdb", "none"], 1),
    "no database": (["build-net", "--out", "out", "--train-lmdb", "existing"], 1),
    "missing net": (["summary", "none"], 1),
    "net is text": (["summary", "text"], 1),
    "net is binary": (["summary", "binary"], 1),
    "net is a folder": (["summary", "existing"], 1),
    "net of a shape": (["summary", "text", "--input-shape", "data"], 2),
    "shape of many digits": (["summary", "text", "--input-shape", "d=" + "1" * 5000], 2),
    "picture of a kind": (["summary", "text", "--draw", "out.gif"], 2),
    "bad crop": (["build-net", "--out", "out", "--crop", "224"], 2),
    "bad variant": (["build-net", "--out", "out", "--variant", "resnet"], 2),
    "not a number": (["build-net", "--out", "out", "--base-lr", "nan"], 2),
    "literal seed": (["build-net", "--out", "out", "--variant", "seed", "--dropout", "0.5"], 2),
    "aux without grid": (["build-net", "--out", "out", "--aux", "--crop", "139"], 2),
    "two means": (
        ["build-net", "--out", "out", "--mean-file", "text", "--mean-value", "1"],
        2,
    ),
    "no database's mean": (["build-net", "--out", "out", "--mean-value", "database"], 2),
    "missing mean": (["build-net", "--out", "out", "--mean-file", "none"], 1),
    "mean is text": (["build-net", "--out", "out", "--mean-file", "text"], 1),
    "bad scale": (["build-net", "--out", "out", "--residual-scale", "a,b"], 2),
    "bad gpus": (["build-net", "--out", "out", "--gpus", "0,0"], 2),
    "GPUs of many digits": (["build-net", "--out", "out", "--gpus", "1" * 5000], 2),
    "one GPU twice": (["build-net", "--out", "out", "--gpus", "1,01"], 2),
    "bad recipe": (["build-net", "--out", "out", "--recipe", "soup"], 2),
    "recipe not TOML": (["build-net", "--out", "out", "--recipe", "bad.toml"], 1),
    "bad classes": (["build-net", "--out", "out", "--num-classes", "1"], 2),
    "net into a file": (["build-net", "--out", "text"], 1),
    "nothing to check": (["check"], 2),
    "missing net to check": (["check", "none"], 1),
    "check of text": (["check", "text"], 1),
    "check of a binary": (["check", "binary"], 1),
    "check of a folder": (["check", "existing"], 1),
    "check without a rule": (["check", "text", "--ignore", "soup"], 2),
    "check with bad gpus": (["check", "text", "--gpus", "all"], 2),
    "check with one GPU twice": (["check", "text", "--gpus", "1,01"], 2),
    "no solver": (["train"], 2),
    "missing solver": (["train", "--solver", "none"], 1),
    "solver is text": (["train", "--solver", "text"], 1),
    "solver is binary": (["train", "--solver", "binary"], 1),
    "nothing to resume": (["train", "--resume"], 1),
    "torch engine": (["train", "--solver", "text", "--engine", "torch"], 1),
    "status of nothing": (["train", "--status", "none"], 1),
    "stop of nothing": (["train", "--stop", "none"], 1),
    "resume and solver": (["train", "--resume", "--solver", "text"], 2),
    "missing log": (["plot-log", "none", "--out", "out.png"], 1),
    "no log": (["plot-log", "text", "--out", "out.png"], 1),
    "binary log": (["plot-log", "binary", "--out", "out.png"], 1),
    "other figure": (["plot-log", "good.log", "--out", "out.gif"], 2),
    "bad window": (["plot-log", "good.log", "--out", "out.png", "--epochs", "25:15"], 2),
    "write_error figure": (["plot-log", "good.log", "--out", "/proc/out.png"], 1),
    "no such reference": (["plot-log", "good.log", "--reference", "soup"], 2),
    "references without epochs": (
        ["plot-log", "good.log", "--reference", "all", "--out", "out.png"],
        2,
    ),
    "write_error report": (["plot-log", "good.log", "--html", "/proc/out.html"], 1),
    "too many names": (["plot-log", "good.log", "--name", "a", "--name", "b"], 2),
    "csv of two": (["plot-log", "good.log", "good.log", "--csv", "out.csv"], 2),
    "missing weights": (["import-weights", "none", "--net", "text", "--out", "out.caffemodel"], 1),
    "weights of text": (["import-weights", "text", "--net", "text", "--out", "out.caffemodel"], 1),
    "missing model": (["export-weights", "none", "--net", "text", "--out", "out.pth"], 1),
    "weights to what": (["export-weights", "binary", "--net", "text", "--out", "out.npz"], 2),
    "no caffe there": (["caffe", "--caffe", "existing", "--version"], 1),
    "no such tool": (["caffe", "--tool", "frobnicate"], 1),
    "bad mirror": (["install-caffe", "--prefix", "out", "--mirror", "-x"], 2),
    "foreign prefix": (["install-caffe", "--prefix", "existing"], 1),
}


@pytest.fixture(scope="module")
def desk(images, tmp_path_factory):
    """A folder with good and bad things in it."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "images").symlink_to(images)
    (folder / "existing").mkdir()
    (folder / "existing/letter").write_text("dear")
    (folder / "text").write_text("some words\n")
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "bad.toml").write_text("[solver\n")
    (folder / "good.log").write_text("Iteration 0, loss = 7\nIteration 20, loss = 6\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_a_hint_and_an_exit_code(caffe, desk, case):
    args, code = BAD[case]
    before = sorted(path.name for path in desk.iterdir())
    done = run(*args, cwd=desk)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "rror: " in line]
    assert len(errors) == 1, done.stderr
    assert sorted(path.name for path in desk.iterdir()) == before
    assert (desk / "existing/letter").read_text() == "dear"


def test_traceback_on_request(tmp_path):
    for args in (["--traceback", "plot-log", "none"], ["plot-log", "none", "--traceback"]):
        done = run(*args, cwd=tmp_path)
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "irv2caffe: error: none: no such log" in done.stderr


def test_left_out_images_are_a_finding(images, tmp_path):
    folder = tmp_path / "images" / "x"
    folder.mkdir(parents=True)
    (folder / "good.jpg").write_bytes(next((images / "train/red").iterdir()).read_bytes())
    (folder / "bad.jpg").write_text("words")
    done = run("make-lmdb", "images", "out", "--resize", "8", cwd=tmp_path)
    assert done.returncode == 3
    assert "skipped.csv" in done.stderr


def test_printed_config_names_its_sources():
    done = run(
        "build-net", "--out", "x", "--recipe", "paper-sgd", "--crop", "139", "--print-config"
    )
    assert done.returncode == 0
    rows = [line.strip().split(maxsplit=2) for line in done.stdout.splitlines() if line.strip()]
    values = {row[0]: row[1:] for row in rows if len(row) == 3}
    assert values["crop"] == ["139", "command line"]
    assert values["momentum"] == ["0.9", "recipe paper-sgd"]
    assert values["dropout"] == ["0.2", "default"]


def test_no_caffe_at_all(tmp_path):
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in {"CAFFE_ROOT", "XDG_DATA_HOME"}
    }
    env |= {"XDG_DATA_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = run("caffe", "--version", env=env)
    assert done.returncode == 1
    assert "hint: run: irv2caffe install-caffe" in done.stderr
