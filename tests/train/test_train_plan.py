"""The plan reads every file once, and says what irv2caffe check says."""

from __future__ import annotations

import json

import pytest
from helpers.openings import counted_openings
from helpers.program import run
from helpers.training_jobs import NET, make_databases, write_job

from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.train.plan.findings import SKIPPED_RULES, STOPPING_RULES


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    make_databases(root)
    return root


@pytest.fixture(scope="module")
def net(tiny):
    """A net for images of 80x80 and its solver."""
    root = tiny.parent / "larger"
    root.mkdir(exist_ok=True)
    make_databases(root, size=80)
    databases = ("--train-lmdb", root / "train_lmdb", "--val-lmdb", root / "val_lmdb")
    sizes = ("--crop", 75, "--width", 0.05, "--batch-size", 8)
    done = run("build-net", "--out", root / "net", *databases, *sizes, cwd=root)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize(
    "command",
    [
        ("build-net", "--out", "out", "DATABASES", "--crop", 75),
        ("check", "SOLVER"),
        ("train", "--solver", "SOLVER", "--dry-run"),
        ("train", "--solver", "SOLVER", "--dry-run", "DATABASES", "--base-lr", 0.01),
        ("train", "--recipe", "paper", "--dry-run", "DATABASES", "--crop", 75, "--width", 0.05),
    ],
    ids=lambda command: " ".join(map(str, command[:4])),
)
def test_a_file_is_opened_once_per_command(caffe, net, tmp_path, command):
    train, val = net / "train_lmdb", net / "val_lmdb"
    words = {
        "DATABASES": ("--train-lmdb", train, "--val-lmdb", val),
        "SOLVER": (net / "net/solver.prototxt",),
    }
    arguments = [part for word in command for part in words.get(word, (word,))]
    files = [path / "data.mdb" for path in (train, val)]
    prototxts = [net / "net/solver.prototxt", net / "net/train_val.prototxt"]
    with counted_openings(files[0]) as once, open_reader(train):
        pass  # the lmdb package opens the file twice
    with counted_openings(*files, *prototxts) as counts:
        done = run(*arguments, cwd=tmp_path)
    assert done.returncode in {0, 3}, done.stderr
    assert [counts[path] for path in files] == [once[files[0]]] * 2
    assert [counts[path] for path in prototxts] == [int("SOLVER" in command)] * 2


def _flaws(root):
    """Jobs with one flaw or more: name to fields of the solver, and a change of the net."""
    source = f'source: "{root}/val_lmdb"'
    return {
        "none": ({}, ("", "")),
        "a rate that is lost": ({"base_lr": 30, "momentum": 1.5}, ("", "")),
        "a test of other images": ({"test_iter": 3}, ("", "")),
        "labels": ({}, ("num_output: 2", "num_output: 1")),
        "a crop": ({}, ("transform_param { scale: 0.01 }", "transform_param { crop_size: 12 }")),
        "a blob of nobody": ({}, ('bottom: "conv"', 'bottom: "cnv"')),
        "a database that is not there": ({}, (source, 'source: "nowhere"')),
        "a backend": ({}, ("backend: LMDB", "")),
        "a filler": ({}, ('weight_filler { type: "xavier" }', "")),
        "a step of nothing": ({"stepsize": 0, "max_iter": 0}, ("", "")),
        "an update of no batches": ({"iter_size": 0}, ("", "")),
        "a folder of snapshots": ({"snapshot_prefix": '"gone/tiny"', "display": 0}, ("", "")),
    }


def _write(tiny, folder, flaw):
    fields, (old, new) = _flaws(tiny)[flaw]
    solver = write_job(tiny, folder, **fields)
    text = NET.format(root=tiny)
    assert old in text
    (folder / "net.prototxt").write_text(text.replace(old, new, 1) if old else text)
    return solver


def _findings(*args, cwd):
    found = json.loads(run(*args, "--json", cwd=cwd).stdout)["findings"]
    return [finding for finding in found if finding["rule"] not in SKIPPED_RULES]


@pytest.mark.parametrize("flaw", _flaws(""))
def test_check_and_train_find_the_same(caffe, tiny, tmp_path, flaw):
    """The same rules, words and places; also where options change what is written."""
    solver = _write(tiny, tmp_path / "job", flaw)
    of_train = ("train", "--dry-run", "--solver", solver)
    found = _findings(*of_train, cwd=tmp_path)
    assert found == _findings("check", solver, cwd=tmp_path)
    options = ("--weight-decay", 0.9, "--momentum", 0.99, "--batch-size", 4)
    changed = _findings(*of_train, *options, cwd=tmp_path)
    assert changed != found
    text = solver.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("momentum")]
    solver.write_text("\n".join([*lines, "momentum: 0.99", "weight_decay: 0.9"]))
    net = solver.parent / "net.prototxt"
    net.write_text(net.read_text().replace("batch_size: 8", "batch_size: 4"))
    assert _without_places(changed) == _without_places(_findings("check", solver, cwd=tmp_path))


def _without_places(findings):
    """Lines differ where an option says what no line did."""
    return [{**finding, "places": len(finding["places"])} for finding in findings]


def test_warnings_are_told_in_full(caffe, tiny, tmp_path):
    """What, where, why and what to write, as check says it; also where no run starts."""
    solver = _write(tiny, tmp_path / "job", "a test of other images")
    said = run("check", solver, cwd=tmp_path).stdout
    (warning,) = [part for part in said.split("\n\n") if "[test-set-size]" in part]
    wanted = warning[: warning.index("\n  see")]
    assert wanted.startswith("warning: ")
    assert "\n  at  " in wanted
    assert "\n  fix " in wanted
    trained = run("train", "--solver", solver, "--gpus", "none", "--epochs", 1, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    refused = run("train", "--solver", solver, "--base-lr", -1, cwd=tmp_path)
    assert refused.returncode != 0
    planned = run("train", "--solver", solver, "--dry-run", cwd=tmp_path)
    for text in (trained.stderr, refused.stderr, planned.stdout):
        assert wanted in text


@pytest.mark.parametrize("flaw", ["a database that is not there", "a backend", "a step of nothing"])
def test_what_stops_caffe_stops_the_plan(caffe, tiny, tmp_path, flaw):
    """Also with --ignore-findings; a database that is not here is a note of check only."""
    solver = _write(tiny, tmp_path / "job", flaw)
    args = ("--solver", solver, "--dry-run", "--ignore-findings", "--json")
    shown = run("train", *args, cwd=tmp_path)
    assert shown.returncode == 1, shown.stderr
    (problem,) = json.loads(shown.stdout)["problems"]
    assert any(f"[{rule}]" in problem["what"] for rule in STOPPING_RULES)
    assert "--ignore-findings" not in problem["hint"]
