"""The best snapshot: which test it is of, what keeps it, and what it is never."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from helpers.training_jobs import (
    FOREVER,
    PATIENCE_S,
    irv2caffe,
    make_databases,
    metrics,
    start,
    wait_for,
    write_job,
)

from irv2caffe.errors import UsageError
from irv2caffe.proto.snapshot_headers import read_state_header
from irv2caffe.train.plan.criterion import Criterion, parse_criterion
from irv2caffe.train.run.best_tests import BestTests
from irv2caffe.train.run.tracker import Tracker
from irv2caffe.train.run_dir import best as best_files
from irv2caffe.train.run_dir.best import best_snapshot
from irv2caffe.train.run_dir.checksums import forget_after
from irv2caffe.train.run_dir.retention import KeepPolicy, SnapshotKeeper
from irv2caffe.train.run_dir.run_dir import RunDir
from irv2caffe.train.run_dir.snapshots import checksum_problem, pairs, problem, set_aside

TESTED = {"test_interval": 100, "snapshot": 100, "base_lr": 0.0005, "max_iter": 600}


@pytest.fixture(scope="module")
def root(caffe, tmp_path_factory):
    """A run of the real Caffe with a snapshot at each of its tests."""
    folder = tmp_path_factory.mktemp("best")
    make_databases(folder)
    solver = write_job(folder, folder / "job", **TESTED)
    done = irv2caffe("--solver", solver, "--run-dir", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "said").write_text(done.stdout)
    return folder


@pytest.fixture
def copy(root, tmp_path):
    """A copy of that run."""
    shutil.copytree(root / "run", tmp_path / "run")
    return RunDir(tmp_path / "run")


def rows_of_tests(run):
    return [row for row in metrics(run) if row["kind"] == "test" and row["iteration"]]


def caffe_test(run, weights):
    """What ``caffe test`` prints for the run's own net."""
    args = ("test", "-model", run / "net.prototxt", "-weights", weights, "-iterations", "2")
    done = subprocess.run(
        [sys.executable, "-m", "irv2caffe", "caffe", *map(str, args)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    # Per batch there is "] Batch 0, loss = 0.6"; the means follow.
    means = re.findall(r"\] (acc/top-1|loss) = ([\d.e-]+)", done.stderr)
    return {name: float(value) for name, value in means}


def test_the_best_snapshot_gives_what_its_test_gave(root):
    run = root / "run"
    rows = rows_of_tests(run)
    errors = [row["top1_error"] for row in rows]
    assert len(set(errors)) > 1  # else any of them is the best
    wanted = rows[errors.index(min(errors))]
    best = best_snapshot(run)
    assert (best.iteration, best.tested_at) == (wanted["iteration"], wanted["iteration"])
    assert (best.metric, best.value) == ("top1_error", min(errors))
    assert best.test["outputs"] == wanted["outputs"]
    assert caffe_test(run, best.weights) == wanted["outputs"]
    assert not problem(best.pair)
    said = (root / "said").read_text()
    last = next(pair for pair in pairs(run / "snapshots"))
    assert f"last snapshot         {last.model}" in said
    assert f"best snapshot         {best.pair.model} ({best.text()})" in said
    state = json.loads((run / "state.json").read_text())
    assert state["best"]["iteration"] == best.iteration
    done = irv2caffe("--status", run)
    assert f"best       {best.text()}" in done.stdout
    how = {"cwd": run, "capture_output": True, "text": True}
    checked = subprocess.run(["sha256sum", "-c", "snapshots.sha256"], check=True, **how)
    assert "snapshots/best.caffemodel: OK" in checked.stdout


@pytest.mark.slow
def test_a_snapshot_is_requested_where_none_has_the_tested_weights(root, tmp_path):
    """25 ms an iteration: the snapshot is of the next ones; the newest alone is kept else."""
    changes = {"test_interval": 40, "snapshot": 0, "iter_size": 200, "max_iter": 170, "display": 10}
    solver = write_job(root, tmp_path / "job", **{**TESTED, **changes, "base_lr": 1e-4})
    few = ("--keep-snapshots", 1, "--keep-epochs", 0)
    done = irv2caffe("--solver", solver, "--run-dir", "run", *few, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    rows = rows_of_tests(run)
    best = best_snapshot(run)
    tested = {row["iteration"]: row["top1_error"] for row in rows}
    assert best.value == tested[best.tested_at] == min(tested.values())
    assert best.tested_at < best.iteration < best.tested_at + 40
    assert read_state_header(best.pair.state).iteration == best.iteration
    assert {pair.iteration for pair in pairs(run / "snapshots")} == {best.iteration, 170}
    assert json.loads(done.stdout)["best"] == best_snapshot(run.absolute()).as_dict()
    assert json.loads(done.stdout)["snapshot"].endswith("tiny_iter_170.caffemodel")


@pytest.mark.slow
def test_the_earlier_best_still_counts_when_a_run_goes_on(root, copy, tmp_path):
    """A stopped run goes on with a learning rate that ruins the net: the best one stays."""
    before = best_snapshot(copy.path)
    ruin = ("--epochs", 100, "--base-lr", 3.0, "--keep-snapshots", 1, "--keep-epochs", 0)
    done = irv2caffe("--resume", "run", *ruin, cwd=tmp_path)
    rows = [row for row in rows_of_tests(copy.path) if row["iteration"] > 600]
    assert all(row["top1_error"] is None or row["top1_error"] >= before.value for row in rows)
    after = best_snapshot(copy.path)
    assert after.as_dict() == before.as_dict(), done.stderr
    assert not problem(after.pair)
    assert not checksum_problem(after.pair)
    assert caffe_test(root / "run", after.weights) == before.test["outputs"]


@pytest.mark.slow
def test_a_run_goes_on_from_the_best_snapshot(copy, tmp_path):
    best = best_snapshot(copy.path)
    args = ("--resume", "run/snapshots/best.solverstate", "--run-dir", "new")
    done = irv2caffe(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"continues from iteration {best.iteration:,}" in done.stderr
    assert f"tiny_iter_{best.iteration}.caffemodel" in {
        path.name for path in (tmp_path / "new/snapshots").iterdir()
    }


@pytest.mark.slow
def test_a_stop_before_the_next_display(root, tmp_path):
    """The snapshot of the stop holds the weights of the best test, if none came before."""
    changes = {"test_interval": 30, "snapshot": 0, "iter_size": 200, "display": 1000}
    solver = write_job(root, tmp_path / "job", **{**TESTED, **changes, "max_iter": FOREVER})
    child = start("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    wait_for(lambda: run.metrics.is_file() and rows_of_tests(run.path), "for a test")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    best = best_snapshot(run.path)
    assert best.tested_at == rows_of_tests(run.path)[0]["iteration"]
    assert best.iteration >= best.tested_at


@pytest.mark.slow
def test_the_averaged_weights_that_were_tested_are_kept(root, tmp_path):
    pytest.importorskip("torch")
    changes = {"test_interval": 20, "snapshot": 20, "max_iter": 60}
    solver = write_job(root, tmp_path / "job", **{**TESTED, **changes})
    torch = ("--engine", "torch", "--gpus", "none", "--ema", 0.9)
    done = irv2caffe("--solver", solver, "--run-dir", "run", *torch, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    best = best_snapshot(tmp_path / "run")
    assert best.weights.name == "best.ema.caffemodel"
    found = caffe_test(tmp_path / "run", best.weights)
    assert found == pytest.approx(best.test["outputs"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "version"), [("0,1", "1.0.0"), ("0", "0.17.4")])
def test_several_gpus_and_nvcaffe(root, tmp_path, stand_in, gpus, version):
    """The stand-in's tests get better and then worse; a snapshot follows the best one."""
    changes = {"test_interval": 200, "snapshot": 0, "max_iter": 900, "solver_mode": "GPU"}
    solver = write_job(root, tmp_path / "job", **{**TESTED, **changes})
    args = ("--solver", solver, "--run-dir", "run", "--caffe", stand_in, "--gpus", gpus)
    env = {"STAND_IN_VERSION": version, "STAND_IN_SCORES": "0.5,0.75,0.6,0.6"}
    done = irv2caffe(*args, cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    best = best_snapshot(tmp_path / "run")
    assert (best.tested_at, best.value) == (400, 25.0)
    assert 400 < best.iteration < 600
    assert not problem(best.pair)


# The keeper of the tests, with real snapshots.


@pytest.fixture
def follow(root, tmp_path):
    """Tests and snapshots as they come; ``write`` copies a real snapshot into the folder."""
    folder = tmp_path / "run/snapshots"
    folder.mkdir(parents=True)
    return Following(root / "run/snapshots", folder)


class Following:
    """A run without a Caffe."""

    def __init__(self, source, folder) -> None:
        self.source, self.folder, self.said = source, folder, []
        self.go_on()

    def go_on(self, text="top1"):
        self.keeper = SnapshotKeeper(self.folder, None, KeepPolicy(1), None, self.said.append)
        self.tests = BestTests(self.keeper, parse_criterion(text), self.said.append)

    def write(self, at):
        for path in self.source.glob(f"*_iter_{at}.*"):
            shutil.copy(path, self.folder)
        self.keeper.add(str(self.folder / f"tiny_iter_{at}.solverstate"))
        assert self.keeper.verify(complete=True)
        assert self.keeper.newest is not None
        self.tests.take_snapshot(self.keeper.newest)

    def test(self, at, error, loss=0.5):
        outputs = {"acc/top-1": 1 - error / 100, "loss": loss, "psnr": error}
        row = {"iteration": at, "top1_error": error, "top5_error": None, "loss": loss}
        self.tests.take_test({**row, "outputs": outputs})
        return self.tests.take_request()

    def healthy(self, at):
        self.keeper.set_healthy(at)
        self.tests.set_healthy(at)

    @property
    def best(self):
        found = best_snapshot(self.folder.parent)
        assert (found and found.iteration) == (self.tests.best and self.tests.best.iteration)
        return found and (found.tested_at, found.iteration, found.value)


def test_only_a_better_test_makes_a_snapshot_the_best_one(follow):
    assert not follow.test(0, 10.0)  # before the first iteration nothing was learned
    follow.write(100)
    assert not follow.test(100, 60.0)  # its weights are saved already
    assert follow.best is None
    follow.healthy(100)
    assert follow.best == (100, 100, 60.0)
    assert not follow.test(150, 60.0)
    assert follow.test(190, 50.0)  # wanted, once
    assert not follow.tests.take_request()
    follow.write(200)
    follow.healthy(190)
    assert follow.best == (100, 100, 60.0)  # its loss is not known yet
    follow.healthy(210)
    assert follow.best == (190, 200, 50.0)
    follow.write(300)
    follow.healthy(320)
    follow.write(400)
    follow.healthy(420)
    assert {pair.iteration for pair in pairs(follow.folder)} == {200, 400}
    assert (follow.folder / "best.caffemodel").stat().st_nlink == 2  # no space for it


def test_what_diverged_is_never_the_best(follow):
    follow.write(100)
    follow.test(100, 40.0)
    follow.healthy(110)
    follow.test(190, 30.0)
    follow.write(200)  # and the loss of the next display is not a number
    follow.tests.end(diverged=True)
    set_aside(follow.folder, 110)
    follow.keeper.go_back(pairs(follow.folder)[0])
    assert follow.best == (100, 100, 40.0)
    follow.tests.start(100)
    follow.test(190, 35.0)
    follow.write(200)
    follow.healthy(210)
    assert follow.best == (190, 200, 35.0)


def test_a_healthy_one_stays_where_a_better_one_diverges_at_once(follow):
    """Tests come more often than displays: two are found before the loss is known again."""
    for at, error in ((100, 40.0), (200, 35.0), (300, 30.0)):
        follow.write(at)
        follow.test(at, error)
    assert follow.best is None
    assert follow.keeper.held == {100, 200, 300}
    follow.healthy(200)
    assert follow.best == (200, 200, 35.0)
    follow.tests.end(diverged=True)
    assert follow.best == (200, 200, 35.0)
    assert follow.keeper.held == {200}
    assert not follow.test(300, 36.0)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", "rollback"])
def test_a_training_that_diverges_keeps_the_best_healthy_snapshot(root, tmp_path, how):
    """The learning rate explodes at iteration 395, between two displays."""
    changes = {"lr_policy": '"multistep"', "gamma": 1e7, "stepsize": None, "display": 100}
    changes |= {"test_interval": 50, "snapshot": 50}
    solver = write_job(root, tmp_path / "job", **{**TESTED, **changes})
    with solver.open("a") as stream:
        stream.write("stepvalue: 395\n")
    args = ("--solver", solver, "--run-dir", "run", "--on-divergence", how, "--max-rollbacks", 1)
    done = irv2caffe(*args, cwd=tmp_path)
    assert "diverged: run" in done.stdout, done.stderr
    run = tmp_path / "run"
    tested = [row for row in rows_of_tests(run) if row["iteration"] <= 300]
    best = best_snapshot(run)
    assert best.value == min(row["top1_error"] for row in tested)
    assert best.iteration <= 300
    assert (run / f"snapshots/tiny_iter_{best.iteration}.caffemodel").is_file()
    assert not problem(best.pair)


def test_a_start_that_ends_otherwise_keeps_what_it_found(follow):
    follow.test(90, 30.0)
    follow.write(100)
    follow.tests.end(diverged=False)
    assert follow.best == (90, 100, 30.0)


def test_an_engine_that_writes_no_snapshot_when_asked(follow):
    follow.write(100)
    follow.test(100, 60.0)
    follow.healthy(100)
    assert follow.test(150, 30.0)
    assert follow.test(250, 50.0)  # the one before is lost; this one is better than what is saved
    assert "no snapshot was written" in follow.said[0]
    follow.write(300)
    follow.healthy(300)
    assert follow.best == (250, 300, 50.0)


def test_another_meaning_of_best_counts_for_the_kept_one_too(follow):
    follow.write(100)
    follow.test(100, 40.0, loss=0.9)
    follow.healthy(100)
    follow.go_on("loss")
    follow.write(200)
    follow.test(200, 90.0, loss=0.95)
    follow.healthy(200)
    assert follow.best == (100, 100, 40.0)
    follow.write(300)
    follow.test(300, 90.0, loss=0.8)
    follow.healthy(300)
    assert follow.best == (300, 300, 0.8)
    follow.go_on("none")
    follow.write(400)
    follow.test(400, 0.0, loss=0.1)
    follow.healthy(400)
    assert follow.best == (300, 300, 0.8)


def test_a_file_that_caffe_will_write_over_is_no_longer_shared(follow):
    """Caffe writes into the file that is there: a start before the best one repeats it."""
    follow.write(200)
    follow.test(200, 40.0)
    follow.healthy(200)
    model = follow.folder / "best.caffemodel"
    wanted = model.read_bytes()
    follow.tests.start(300)
    assert model.stat().st_nlink == 2
    forget_after(follow.folder, 100, follow.said.append)
    follow.tests.start(100)
    with (follow.folder / "tiny_iter_200.caffemodel").open("wb") as stream:
        stream.write(b"torn")
    assert model.read_bytes() == wanted
    assert not checksum_problem(best_snapshot(follow.folder.parent).pair)


def test_a_trainer_that_was_killed_between_the_files(follow):
    follow.write(100)
    follow.test(100, 40.0)
    follow.healthy(100)
    follow.write(200)
    newer = follow.folder / "best.solverstate"
    newer.unlink()
    shutil.copy(follow.folder / "tiny_iter_200.solverstate", newer)
    follow.go_on()
    assert read_state_header(newer).iteration == 100
    assert follow.best == (100, 100, 40.0)


def test_a_file_system_without_hard_links(follow, monkeypatch):
    def link(*args, **how):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    follow.write(100)
    follow.test(100, 40.0)
    follow.healthy(100)
    one, other = (follow.folder / name for name in ("best.caffemodel", "tiny_iter_100.caffemodel"))
    assert one.read_bytes() == other.read_bytes()
    assert not one.samefile(other)


def test_a_strange_run_folder_leads_nowhere(follow, tmp_path):
    """Links to files outside, names with folders, and records that are none."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"private")
    follow.write(100)
    follow.test(100, 40.0)
    follow.healthy(100)
    run, record = follow.folder.parent, follow.folder / "best.json"
    good = json.loads(record.read_text())
    for wrong in (
        {"iteration": -1}, {"iteration": True}, {"iteration": 10**30}, {"value": "x"},
        {"value": float("nan")}, {"better": ["up"]}, {"test": []}, {"averaged": None},
        {"averaged": True}, {"snapshot": 7}, {"metric": None},
    ):  # fmt: skip
        record.write_text(json.dumps(good | wrong))
        assert best_snapshot(run) is None, wrong
    record.write_text("[" * 100_000)
    assert best_snapshot(run) is None
    for name in ("../../secret", "/etc/passwd", "tiny_iter_100/../x_iter_100", "secret"):
        record.write_text(json.dumps(good | {"snapshot": name}))
        (follow.folder / "best.solverstate").unlink(missing_ok=True)
        assert best_files.repair(follow.folder) is None
    record.write_text(json.dumps(good))
    model = follow.folder / "best.caffemodel"
    model.unlink()
    model.symlink_to(secret)
    assert best_snapshot(run) is None
    follow.go_on()
    for suffix in ("caffemodel", "solverstate"):  # planted under the name that Caffe will write
        (follow.folder / f"tiny_iter_200.{suffix}").symlink_to(secret)
    follow.test(200, 1.0)
    follow.tests.take_snapshot(pairs(follow.folder)[0])
    follow.healthy(200)
    assert "or a link" in follow.said[-1]
    for path in follow.folder.iterdir():
        assert path.is_symlink() or path.read_bytes() != b"private"
    assert secret.read_bytes() == b"private"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("auto", Criterion()),
        ("top5", Criterion(column="top5_error")),
        ("loss", Criterion(column="loss")),
        ("loss2/loss", Criterion("loss2/loss")),
        ("mean_accuracy", Criterion("mean_accuracy", better="up")),
        ("psnr", Criterion("psnr", better="up")),
        ("score:min", Criterion("score")),
        ("a:b:max", Criterion("a:b", better="up")),
        ("none", None),
    ],
)
def test_what_best_means(text, wanted):
    assert parse_criterion(text) == wanted


def test_an_output_whose_direction_is_not_known(root):
    with pytest.raises(UsageError, match="higher or lower") as raised:
        parse_criterion("score")
    assert "--best score:max" in raised.value.hint
    for text, words in (("psnr", "no output of this name"), ("loss", "")):
        done = irv2caffe("--solver", "job/solver.prototxt", "--dry-run", "--best", text, cwd=root)
        assert words in done.stderr
        assert done.returncode == (2 if words else 0)


def test_a_test_is_taken_when_its_last_output_is_there(root):
    """Not at the next display, which may be thousands of iterations away."""
    rows = []
    tracker = Tracker(rows.append)
    seen = []
    for line in (root / "run/train.log").read_text().splitlines():
        tracker.line(line)
        if "Test net output #1" in line:
            seen.append([row["iteration"] for row in rows if row["kind"] == "test"][-1:])
    assert seen == [[]] + [[at] for at in range(100, 601, 100)]  # the first shows how many come


def test_a_test_with_a_snapshot_in_it_is_not_lost(root):
    """Caffe writes a snapshot that was asked for in a test at once, before the outputs."""
    lines = (root / "run/train.log").read_text().splitlines()
    place = next(n for n, line in enumerate(lines) if "Iteration 200, Testing net" in line)
    snapshot = [line for line in lines if "Snapshotting" in line][:2]
    rows = []
    tracker = Tracker(rows.append)
    for line in [*lines[: place + 1], *snapshot, *lines[place + 1 :]]:
        tracker.line(line)
    tracker.finish()
    tests = [row["iteration"] for row in rows if row["kind"] == "test"]
    assert tests == list(range(0, 601, 100))


def test_a_test_without_finite_numbers_is_none(follow):
    follow.write(100)
    follow.test(100, float("nan"), loss=float("inf"))
    follow.healthy(100)
    assert follow.best is None


@pytest.mark.parametrize("name", ["iteration", "top1_error", "outputs"])
def test_an_output_may_have_any_name(follow, name):
    """Also one that means something else in a row of the metrics."""
    follow.go_on(f"{name}:max")
    for at, value in ((100, 7.0), (200, 6.0)):
        follow.write(at)
        row = {"iteration": at, "top1_error": 60.0, "top5_error": None, "loss": 0.5}
        follow.tests.take_test({**row, "outputs": {name: value}})
        follow.healthy(at + 10)
    assert follow.best == (100, 100, 7.0)
