"""Snapshots damaged after they were verified, and records that were not completed."""

from __future__ import annotations

import json
import random
import subprocess

import pytest
from helpers.training_jobs import config, irv2caffe, metrics

from irv2caffe.log.read.reader import read_log
from irv2caffe.train.run_dir.snapshots import newest_complete, pairs

pytestmark = pytest.mark.slow


def flip(path, place, bit):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def test_sha256sum_reads_the_file(run):
    command = ["sha256sum", "--check", "--strict", "snapshots.sha256"]
    done = subprocess.run(command, cwd=run.path, capture_output=True, text=True, check=True)
    assert done.stdout.count(": OK") == 6


def test_every_flipped_bit_is_noticed(run):
    rng = random.Random(0)
    newest = pairs(run.snapshots)[0]
    for _ in range(100):
        path = rng.choice([newest.state, newest.model])
        place, bit = rng.randrange(path.stat().st_size), rng.randrange(8)
        flip(path, place, bit)
        pair, problems = newest_complete(run.snapshots)
        assert pair.iteration == 400
        assert str(path) in problems[0]
        flip(path, place, bit)
    assert newest_complete(run.snapshots) == (newest, [])


def test_a_damaged_snapshot_is_passed_over_now_and_later(run, tmp_path):
    """It is set aside: without its hash it would pass as complete."""
    model = pairs(run.snapshots)[0].model
    flip(model, model.stat().st_size - 3, 4)
    done = irv2caffe("--resume", "run", "--epochs", 62.5, cwd=tmp_path)  # 500 iterations
    assert done.returncode == 0, done.stderr
    assert f"skipped snapshot: {model}: damaged" in done.stderr.replace(
        "run/snap", f"{run.path}/snap"
    )
    assert f"set aside a damaged snapshot: {model.name}" in done.stderr
    assert config(run.path)["starts"][1]["from_iteration"] == 400
    assert model.with_name(model.name + ".damaged").is_file()
    assert newest_complete(run.snapshots)[0].iteration == 500


def test_a_damaged_snapshot_that_is_named_is_refused(run, tmp_path):
    state = pairs(run.snapshots)[1].state
    flip(state, state.stat().st_size // 2, 0)
    done = irv2caffe("--resume", state, "--run-dir", "new", cwd=tmp_path)
    assert done.returncode == 1
    assert "damaged: its SHA-256" in done.stderr


def test_what_is_written_anew_is_not_called_damaged(run, tmp_path):
    """A run from an older snapshot at another rate writes the same names, other weights."""
    for path in pairs(run.snapshots)[0].state, pairs(run.snapshots)[0].model:
        path.unlink()
    done = irv2caffe("--resume", "run", "--base-lr", 0.003, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert newest_complete(run.snapshots)[0].iteration == 600
    again = irv2caffe("--resume", "run", "--epochs", 100, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "skipped snapshot" not in again.stderr


def test_a_folder_that_was_moved_is_sound(run, tmp_path):
    """The path in a solver state is fixed, which changes its bytes."""
    run.path.rename(tmp_path / "moved")
    done = irv2caffe("--resume", "moved", "--epochs", 87.5, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pair, problems = newest_complete(tmp_path / "moved/snapshots")
    assert (pair.iteration, problems) == (700, [])
    command = ["sha256sum", "--check", "--strict", "snapshots.sha256"]
    subprocess.run(command, cwd=tmp_path / "moved", capture_output=True, check=True)


def test_a_run_without_hashes_goes_on(run, tmp_path):
    """Runs of older versions have no hashes; an invalid list counts as none."""
    for number, text in enumerate((None, "", "x\n" * 100)):
        (run.path / "snapshots.sha256").unlink()
        if text is not None:
            (run.path / "snapshots.sha256").write_text(text)
        done = irv2caffe("--resume", "run", "--epochs", 87.5 + number, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (run.path / "snapshots.sha256").read_text().count("snapshots/") == 2


def test_a_trainer_that_was_killed_in_its_last_record(run, tmp_path):
    """Caffe had finished: the records are completed, and the run is reported as finished."""
    before = config(run.path)
    for name in ("exit_status", "iteration", "ended", "ending", "why"):
        del before["starts"][0][name]
    run.config.write_text(json.dumps({**before, "ending": "running", "summary": None}))
    run.log.write_bytes(run.log.read_bytes()[:-2000])
    rows = metrics(run.path)
    run.metrics.write_text("".join(run.metrics.read_text().splitlines(keepends=True)[:-3]))
    shown = irv2caffe("--status", "run", "--json", cwd=tmp_path)
    assert json.loads(shown.stdout)["ending"] == "finished"
    done = irv2caffe("--resume", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "run is finished" in done.stderr
    values = config(run.path)
    assert values["ending"] == values["starts"][0]["ending"] == "finished"
    assert values["starts"][0]["iteration"] == 600
    assert values["summary"]["iterations"] == 600
    assert metrics(run.path) == rows
    assert read_log(run.path).finished
