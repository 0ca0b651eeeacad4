"""Signals, and kills of Caffe and of the trainer at chosen and random moments; real Caffe."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers.training_jobs import (
    FOREVER,
    PATIENCE_S,
    caffe_pid,
    config,
    irv2caffe,
    is_gone,
    is_pending,
    make_databases,
    metrics,
    newest,
    start,
    start_with,
    wait_for,
    wait_for_text,
    write_job,
)

from irv2caffe.log.read.reader import read_log
from irv2caffe.system import stat_fields
from irv2caffe.train.run_dir.run_dir import RunDir
from irv2caffe.train.run_dir.snapshots import pairs

pytestmark = pytest.mark.slow

DISPLAY = 10


@pytest.fixture(scope="module")
def root(caffe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    make_databases(folder)
    return folder


@pytest.fixture(params=["caffe", "torch"])
def engine(request):
    """The name of each engine."""
    if request.param == "torch":
        pytest.importorskip("torch")
    return request.param


def begin(root, tmp_path, *args, engine="caffe", **changes):
    """Starts a run that never ends by itself; returns when it trains."""
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER, **changes)
    args = ("--engine", engine, *args)
    child = start("--solver", solver, "--run-dir", "run", *args, cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 300 (")
    return child, run


def finish(run, max_iter, cwd):
    """Lowers the run's max_iter and resumes it to that end."""
    text = re.sub(r"(?m)^max_iter: \d+", f"max_iter: {max_iter}", run.solver.read_text())
    run.solver.write_text(text)
    done = irv2caffe("--resume", run.path, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


def check_continuous(run, max_iter, display=DISPLAY, gamma=0.5, stepsize=300, base_lr=0.01):
    """Every display is once in train.log and in the metrics, with the scheduled learning rate."""
    log = read_log(run.path)
    assert log.finished
    wanted = list(range(0, max_iter + 1, display))
    assert [point.iteration for point in log.train] == wanted
    rows = [row for row in metrics(run.path) if row["kind"] == "train"]
    assert [row["iteration"] for row in rows] == wanted
    for row in rows[:-1]:  # the last line of a log has a loss without a rate
        lr = base_lr * gamma ** (row["iteration"] // stepsize)
        assert row["lr"] == pytest.approx(lr, rel=1e-5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_with_a_snapshot_and_the_run_goes_on(root, tmp_path, engine, number):
    child, run = begin(root, tmp_path, engine=engine, display=1)
    child.send_signal(number)
    out, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    assert "hint: irv2caffe train --resume run continues from the newest snapshot" in err
    assert out.rstrip().endswith("stopped: run")
    assert "--resume" in err
    stopped_at = newest(run)
    assert stopped_at >= 300
    assert config(run.path)["ending"] == "stopped"
    assert config(run.path)["starts"][0]["exit_status"] == 0  # as Caffe has it after SIGINT
    finish(run, stopped_at + 50, tmp_path)
    assert config(run.path)["starts"][1]["from_iteration"] == stopped_at  # nothing is lost
    assert read_log(run.path).restarts == [stopped_at]
    check_continuous(run, stopped_at + 50, display=1)


def test_sighup_takes_a_snapshot_and_goes_on(root, tmp_path):
    child, run = begin(root, tmp_path, snapshot=0)
    assert not pairs(run.snapshots)
    child.send_signal(signal.SIGHUP)
    wait_for(lambda: newest(run), "for a snapshot")
    at = newest(run)
    wait_for(lambda: f"Iteration {at + 500 - at % 10} (" in run.log.read_text(), "to go on")
    assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    assert child.wait(PATIENCE_S) == 130


def test_a_second_signal_ends_it_at_once_and_leaves_no_child(root, tmp_path, engine):
    child, run = begin(root, tmp_path, engine=engine)
    pid = caffe_pid(run.path)
    os.kill(pid, signal.SIGSTOP)  # a Caffe that does not answer
    wait_for(lambda: stat_fields(Path(f"/proc/{pid}"))[0] == "T", "for it to stop")
    child.send_signal(signal.SIGTERM)
    wait_for(lambda: is_pending(pid, signal.SIGINT), "for the first signal to be forwarded")
    time.sleep(1.2)  # nearer to the first it would count as the same
    assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    assert is_gone(pid)
    assert "before its snapshot" in err
    words = ("stopping: waiting for the snapshot; a second signal", "stopping now", "before its")
    places = [err.index(word) for word in words]
    assert places == sorted(places)
    finish(run, newest(run) + 200, tmp_path)


def test_a_killed_caffe_is_started_again(root, tmp_path, engine):
    child, run = begin(root, tmp_path, engine=engine)
    pid = caffe_pid(run.path)
    os.kill(pid, signal.SIGKILL)
    assert caffe_pid_after(run, pid)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    trainer = {"caffe": "Caffe", "torch": "the torch engine"}[engine]
    assert f"crashed: {trainer} was ended by SIGKILL; continuing from iteration" in err
    starts = config(run.path)["starts"]
    assert [entry["ending"] for entry in starts] == ["crashed", "stopped"]
    finish(run, newest(run) + 200 - newest(run) % 200, tmp_path)
    check_continuous(run, config(run.path)["plan"]["max_iter"])


def caffe_pid_after(run, pid):
    """The process number of the next Caffe, once it trains."""

    def another():
        other = caffe_pid(run.path)
        return other if other != pid else 0

    other = wait_for(another, "for another Caffe")
    log = run.log_of(run.num_starts())
    wait_for_text(log, "loss = ")
    return other


def test_without_restarts_a_killed_caffe_is_a_crash(root, tmp_path):
    child, run = begin(root, tmp_path, "--max-restarts", "0")
    os.kill(caffe_pid(run.path), signal.SIGKILL)
    out, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 1
    assert "crashed: run" in out
    assert "SIGKILL" in err
    assert "Traceback" not in err
    assert config(run.path)["ending"] == "crashed"


def test_crashes_without_progress_are_given_up(root, tmp_path):
    """Caffe is killed again and again before its first snapshot."""
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER, snapshot=0)
    child = start("--solver", solver, "--run-dir", "run", "--max-restarts", "1", cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    pid = 0
    for _ in range(2):
        before = pid
        pid = wait_for(lambda before=before: other_than(run, before), "for a Caffe")
        os.kill(pid, signal.SIGKILL)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 1
    assert "no new snapshot in 1 restarts: given up" in err
    assert run.num_starts() == 2


def other_than(run, pid):
    if not run.lock.exists():
        return 0
    other = caffe_pid(run.path)
    return other if other != pid else 0


def test_a_killed_trainer_leaves_a_snapshot_and_a_resumable_run(root, tmp_path, engine):
    """The kernel stops Caffe: even the iterations since the last snapshot are kept."""
    child, run = begin(root, tmp_path, engine=engine, snapshot=0, display=1)
    pid = caffe_pid(run.path)
    child.kill()
    child.wait()
    wait_for(lambda: is_gone(pid), "for Caffe's own end")
    at = newest(run)
    assert at >= 300
    shown = irv2caffe("--status", "run", cwd=tmp_path)
    assert "interrupted" in shown.stdout
    finish(run, at + 20, tmp_path)
    check_continuous(run, at + 20, display=1)


def test_a_caffe_that_outlives_its_trainer_is_waited_for(root, tmp_path, engine):
    child, run = begin(root, tmp_path, engine=engine)
    pid = caffe_pid(run.path)
    os.kill(pid, signal.SIGSTOP)
    child.kill()
    child.wait()
    assert not is_gone(pid)
    said = tmp_path / "said"
    with said.open("w") as stream:
        streams = {"stdout": subprocess.DEVNULL, "stderr": stream}
        again = start_with(("--resume", "run"), cwd=tmp_path, env={}, **streams)
    wait_for_text(said, f"is still running (process {pid})")
    assert again.poll() is None
    assert run.num_starts() == 1  # two of them never work in one folder
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: run.num_starts() == 2, "for the next start")
    assert is_gone(pid)
    wait_for_text(run.log_of(2), "loss = ")
    again.send_signal(signal.SIGINT)
    again.wait(PATIENCE_S)
    first = read_log(run.log_of(1))
    assert first.stopped  # it came to its own end


def test_twenty_random_kills(root, tmp_path):
    """Ten kills of Caffe and ten of the trainer; the run finishes with nothing missing."""
    rng = random.Random(5)
    max_iter = 100_000
    changes = {"display": 100, "snapshot": 1000, "stepsize": 10_000, "test_interval": 100_000}
    solver = write_job(root, tmp_path / "job", max_iter=max_iter, **changes)
    run = RunDir(tmp_path / "run")
    victims = ["caffe"] * 10 + ["trainer"] * 10
    rng.shuffle(victims)
    child = start("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    promised = 0
    pid = 0
    for victim in victims:
        before = pid
        pid = wait_for(lambda before=before: other_than(run, before), "for a Caffe")
        time.sleep(rng.uniform(0.0, 0.4))
        assert child.poll() is None, child.communicate()
        if victim == "caffe":
            os.kill(pid, signal.SIGKILL)
        else:
            child.kill()
            child.wait()
            wait_for(lambda pid=pid: is_gone(pid), "for Caffe's own end")
            child = start("--resume", "run", cwd=tmp_path)
        promised = max(promised, last_complete_snapshot(run))
        assert newest(run) >= promised
    out, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, err
    assert "finished: run" in out
    assert newest(run) == max_iter
    check_continuous(run, max_iter, display=100, stepsize=10_000)
    starts = config(run.path)["starts"]
    assert len(starts) >= 20
    for number, entry in enumerate(starts[1:], 2):
        written = last_complete_snapshot(run, number - 1)
        assert entry["from_iteration"] >= written, (number, entry)


def last_complete_snapshot(run, up_to=None):
    """The iteration of the newest snapshot after which Caffe logged more."""
    best = 0
    for path in sorted(run.logs.glob("start-*.log"))[:up_to]:
        text = path.read_text(errors="replace")
        found = re.findall(
            r"solver state to binary proto file \S+_iter_(\d+)\.solverstate\n.", text
        )
        best = max([best, *map(int, found)])
    return best


def test_kills_change_nothing_in_the_weights(root, tmp_path, caffe):
    """Snapshots at whole epochs: a run that was killed ends with the bytes of one that was not."""
    changes = {"max_iter": 24_000, "display": 100, "snapshot": 800, "test_interval": 24_000}
    solver = write_job(root, tmp_path / "job", **changes, lr_policy='"multistep"', stepsize=None)
    with solver.open("a") as stream:
        stream.write("stepvalue: 5000 stepvalue: 10000 stepvalue: 20000\n")
    straight = irv2caffe("--solver", solver, "--run-dir", "straight", cwd=tmp_path)
    assert straight.returncode == 0, straight.stderr
    child = start("--solver", solver, "--run-dir", "killed", cwd=tmp_path)
    run = RunDir(tmp_path / "killed")
    pid = 0
    for wait_s in (0.4, 0.7, 0.2):
        before = pid
        pid = wait_for(lambda before=before: other_than(run, before), "for a Caffe")
        time.sleep(wait_s)
        os.kill(pid, signal.SIGKILL)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, err
    assert len(config(run.path)["starts"]) == 4
    name = "snapshots/tiny_iter_24000.caffemodel"
    assert (run.path / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_other_shells_can_look_snapshot_and_stop(root, tmp_path, engine):
    child, run = begin(root, tmp_path, engine=engine, snapshot=0, test_interval=FOREVER)
    shown = irv2caffe("--status", "run", cwd=tmp_path)
    assert shown.returncode == 0
    assert f"process {child.pid}" in shown.stdout
    assert "iteration" in shown.stdout
    saved = irv2caffe("--snapshot-now", "run", "--json", cwd=tmp_path)
    assert saved.returncode == 0, saved.stderr
    assert len(pairs(run.snapshots)) == 1
    assert child.poll() is None
    refused = irv2caffe("--resume", "run", cwd=tmp_path)
    assert refused.returncode == 1
    assert f"another training is running in run, process {child.pid}" in refused.stderr
    stopped = irv2caffe("--stop", "run", cwd=tmp_path)
    assert stopped.returncode == 0, stopped.stderr
    assert "stopped" in stopped.stdout
    assert child.wait(PATIENCE_S) == 130
    assert len(pairs(run.snapshots)) == 2
    for what in ("--stop", "--snapshot-now"):
        late = irv2caffe(what, "run", cwd=tmp_path)
        assert late.returncode == 1
        assert "no training is running in" in late.stderr
        assert "continue it with irv2caffe train --resume run" in late.stderr
    assert irv2caffe("--status", "run", cwd=tmp_path).returncode == 0
    lost = irv2caffe("--status", "nowhere", cwd=tmp_path)
    assert lost.returncode == 1
    assert "nowhere holds no run" in lost.stderr
    assert "--resume" not in lost.stderr  # nobody asked for that
