"""The end of a run: the last test, and stops while Caffe hangs or between two starts."""

from __future__ import annotations

import os
import signal
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
    metrics,
    newest,
    start,
    wait_for,
    wait_for_text,
    write_job,
)

from irv2caffe.caffe.find import FoundCaffe
from irv2caffe.log.read.reader import read_log
from irv2caffe.proto import messages
from irv2caffe.train.engines.engine import CaffeEngine
from irv2caffe.train.run import launch, signals, supervisor
from irv2caffe.train.run.options import SupervisionOptions
from irv2caffe.train.run.tracker import StartState
from irv2caffe.train.run.verdict import Ending, Outcome, judge
from irv2caffe.train.run_dir.run_dir import RunDir
from irv2caffe.train.run_dir.snapshots import pairs

pytestmark = pytest.mark.slow

# A last test that takes its time: 400,000 images, of 20.
LONG_TEST = {
    "max_iter": 100, "test_interval": 100, "test_iter": 40_000, "test_initialization": "false",
    "snapshot": 40,
}  # fmt: skip


def in_the_last_test(root, tmp_path, *args):
    solver = write_job(root, tmp_path / "job", **LONG_TEST)
    child = start("--solver", solver, "--run-dir", "run", *args, cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 100, Testing net")
    wait_for(lambda: newest(run) == 100, "for the last snapshot")
    return child, run


def finish_the_test(run, cwd):
    """Resumes a run for its last test; nothing else is repeated."""
    text = run.solver.read_text()
    assert text.count("test_iter: 40000") == 1
    run.solver.write_text(text.replace("test_iter: 40000", "test_iter: 2"))
    written = {path: path.read_bytes() for path in run.snapshots.glob("*_iter_100.caffemodel")}
    times = {path: path.stat().st_mtime_ns for path in written}
    done = irv2caffe("--resume", "run", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "finished: run" in done.stdout
    assert "next: irv2caffe evaluate run\n" in done.stderr
    assert "all iterations are done" in done.stderr
    assert config(run.path)["starts"][-1]["from_iteration"] == 100
    assert [point.iteration for point in read_log(run.path).test] == [100]
    rows = metrics(run.path)
    assert [row["iteration"] for row in rows if row["kind"] == "test"] == [100]
    assert [row["iteration"] for row in rows if row["kind"] == "train"] == list(range(0, 101, 10))
    assert config(run.path)["summary"]["last_top1_error"] is not None
    assert {path: path.stat().st_mtime_ns for path in written} == times  # no second time
    again = irv2caffe("--resume", "run", cwd=cwd)
    assert again.returncode == 2
    assert "is finished" in again.stderr
    more = irv2caffe("--resume", "run", "--epochs", 15, cwd=cwd)  # 120 iterations
    assert more.returncode == 0, more.stderr
    assert newest(run) == 120


def test_a_stop_in_the_last_test(caffe, root, tmp_path):
    """A scheduler stops the run and starts it again, which finishes it."""
    child, run = in_the_last_test(root, tmp_path)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    assert "the last test is missing" in err
    assert "Test interrupted" in run.log.read_text()
    assert run.log.read_text().count("Optimization Done") == 2  # as if it were
    finish_the_test(run, tmp_path)


@pytest.mark.parametrize("victims", ["trainer", "both"])
def test_a_death_in_the_last_test(caffe, root, tmp_path, victims):
    child, run = in_the_last_test(root, tmp_path)
    pid = caffe_pid(run.path)
    if victims == "both":
        child.send_signal(signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
    child.kill()
    child.wait()
    wait_for(lambda: is_gone(pid), "for Caffe's end")
    finish_the_test(run, tmp_path)


def test_a_caffe_that_dies_in_the_last_test_is_started_again(caffe, root, tmp_path):
    child, run = in_the_last_test(root, tmp_path)
    os.kill(caffe_pid(run.path), signal.SIGKILL)
    wait_for(lambda: run.num_starts() == 2, "for the second start")
    wait_for_text(run.log_of(2), "Testing net")
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    assert config(run.path)["starts"][1]["from_iteration"] == 100
    finish_the_test(run, tmp_path)


def test_a_caffe_that_hangs_when_it_is_done(stand_in, root, tmp_path):
    solver = write_job(root, tmp_path / "job", max_iter=40)
    args = ("--solver", solver, "--run-dir", "run", "--caffe", stand_in)
    done = irv2caffe(*args, cwd=tmp_path, STAND_IN="hang when done")
    assert done.returncode == 0, done.stderr
    assert "is done, but hangs: killed" in done.stderr
    starts = config(tmp_path / "run")["starts"]
    assert [(entry["ending"], entry["exit_status"]) for entry in starts] == [("finished", -9)]


def test_a_caffe_that_dies_when_it_is_done(stand_in, root, tmp_path):
    """The driver is unloaded before the last blob."""
    solver = write_job(root, tmp_path / "job", max_iter=40)
    args = ("--solver", solver, "--run-dir", "run", "--caffe", stand_in)
    words = "F Check failed: error == cudaSuccess (29 vs. 0)  driver shutting down"
    done = irv2caffe(*args, cwd=tmp_path, STAND_IN=f"when done: {words}")
    assert done.returncode == 0, done.stderr
    starts = config(tmp_path / "run")["starts"]
    assert [(entry["ending"], entry["exit_status"]) for entry in starts] == [("finished", -6)]
    again = irv2caffe("--resume", "run", "--caffe", stand_in, cwd=tmp_path)
    assert again.returncode == 2
    assert "is finished" in again.stderr


# A stop while Caffe hangs, between two starts, and in all processes at once.


@pytest.mark.parametrize("how", ["signal", "--stop"])
def test_a_stop_that_a_hanging_caffe_does_not_hear(caffe, root, tmp_path, how):
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER)
    child = start("--solver", solver, "--run-dir", "run", "--stall-minutes", 0.05, cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 500 (")
    os.kill(caffe_pid(run.path), signal.SIGSTOP)
    if how == "signal":
        child.send_signal(signal.SIGTERM)
    else:
        assert irv2caffe("--stop", "run", cwd=tmp_path).returncode == 0
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    assert "before its snapshot" in err
    assert "no line for" in err
    assert run.num_starts() == 1
    assert config(run.path)["ending"] == "stopped"


def test_sigterm_for_every_process(caffe, root, tmp_path):
    """systemd and Slurm send it to all processes of a job, also those in other sessions."""
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER, snapshot=0, display=1)
    child = start("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 300 (")
    pid = caffe_pid(run.path)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: is_pending(pid, signal.SIGTERM), "for the signal")
    assert not is_gone(pid)
    child.send_signal(signal.SIGTERM)
    child.send_signal(signal.SIGTERM)  # timeout tells the process and its group
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    assert newest(run) >= 300
    assert config(run.path)["starts"][0]["exit_status"] == 0
    assert "before its snapshot" not in err


def test_a_signal_that_comes_twice_at_once_is_one(monkeypatch):
    """timeout and Slurm send a signal twice at once; a user's second one comes later."""
    clock, told = [100.0], []

    class Child:
        def send(self, number):
            told.append(number)

        def kill(self):
            told.append("kill")

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    handler = signals.Signals()
    with handler.handled(), handler.forwarded_to(Child()):
        for passed_s in (0.0, 0.001, 0.5):
            clock[0] += passed_s
            os.kill(os.getpid(), signal.SIGTERM)
        assert told == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGHUP)
        assert told == [signal.SIGINT, signal.SIGHUP]
        clock[0] += 1.0
        os.kill(os.getpid(), signal.SIGINT)
        assert told == [signal.SIGINT, signal.SIGHUP, "kill"]
    assert handler.stop_requested
    words = handler.take_messages()
    assert [line.partition(";")[0] for line in words] == [
        "stopping: waiting for the snapshot",
        "stopping now",
    ]
    assert not handler.take_messages()


def waiting_for_a_start(stand_in, root, tmp_path):
    """A run whose Caffe fails again and again; its third start is two seconds away."""
    solver = write_job(root, tmp_path / "job", max_iter=100)
    words = "F Check failed: error == cudaSuccess (700 vs. 0)  an illegal memory access"
    args = ("--solver", solver, "--run-dir", "run", "--caffe", stand_in, "--json")
    child = start(*args, cwd=tmp_path, STAND_IN=words)
    run = RunDir(tmp_path / "run")
    wait_for(lambda: run.config.is_file() and len(ended(run)) == 3, "for three failures")
    return child, run


def ended(run):
    return [entry for entry in config(run.path)["starts"] if "ended" in entry]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, "--stop"])
def test_a_stop_between_two_starts(stand_in, root, tmp_path, how):
    child, run = waiting_for_a_start(stand_in, root, tmp_path)
    if how == "--stop":
        assert irv2caffe("--stop", "run", cwd=tmp_path).returncode == 0
    else:
        child.send_signal(how)
    out, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    assert '"ending": "stopped"' in out
    assert "before the next start; before that: a GPU failed" in err
    assert config(run.path)["ending"] == "stopped"
    assert run.num_starts() == 3


def test_sighup_between_two_starts_changes_nothing(stand_in, root, tmp_path):
    child, run = waiting_for_a_start(stand_in, root, tmp_path)
    child.send_signal(signal.SIGHUP)
    wait_for(lambda: run.num_starts() == 4, "for the next start")
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err


def test_a_caffe_that_cannot_be_killed(stand_in, root, tmp_path, monkeypatch):
    """In the kernel's D state a SIGKILL has no effect; here it is not sent."""
    from irv2caffe.caffe.find import find_caffe
    from irv2caffe.train.engines.engine import CaffeEngine
    from irv2caffe.train.plan.plan import TrainOptions

    sent = []
    monkeypatch.setattr(supervisor, "_UNKILLABLE_S", 1.0)
    monkeypatch.setattr(os, "killpg", lambda *args: sent.append(args))
    monkeypatch.setenv("STAND_IN", "stall")
    lines = []
    try:
        result = launch.train(
            write_job(root, tmp_path / "job", max_iter=100, snapshot=20),
            CaffeEngine(find_caffe(stand_in)),
            TrainOptions(run_dir=tmp_path / "run"),
            SupervisionOptions(stall_s=1.0, plot=False),
            say=lines.append,
        )
        assert result.verdict.ending is Ending.STALLED
        assert "does not end" in result.verdict.why
        run = RunDir(tmp_path / "run")
        assert run.num_starts() == 1
        assert not is_gone(sent[-1][0])
        refused = irv2caffe("--resume", "run", "--caffe", stand_in, cwd=tmp_path)
        assert refused.returncode == 1
        assert "another training is running in" in refused.stderr  # it holds the folder
    finally:
        monkeypatch.undo()
        os.killpg(sent[-1][0], signal.SIGKILL)


def outcome(**changes):
    fields = {
        "exit_status": 0, "stop_requested": False, "stalled": "", "abandoned": False,
        "diverged": False, "flooded": "", "newest": 100, "max_iter": 100, "free_bytes": None,
        "pair_bytes": None,
    }  # fmt: skip
    return Outcome(**{**fields, **changes})


def test_a_stall_of_several_gpus():
    caffe = CaffeEngine(FoundCaffe(Path("/caffe"), Path("/caffe/bin"), False, "on PATH"))
    solver = messages.SolverParameter()
    assert caffe.stall_help(solver, 1) == caffe.change_after_stall(solver, 1) == ""
    stalled = outcome(exit_status=-9, stalled="no line", on_stall=caffe.stall_help(solver, 2))
    verdict = judge(StartState(), stalled)
    assert "; write layer_wise_reduce: false into the solver" in verdict.hint
    assert "layer_wise_reduce" in caffe.change_after_stall(solver, 2)
    assert not solver.layer_wise_reduce
    assert caffe.change_after_stall(solver, 2) == ""
    assert "NCCL_P2P_DISABLE=1" in caffe.stall_help(solver, 2)


@pytest.mark.parametrize(
    ("said", "happened", "ending", "retryable"),
    [
        ({"done": True}, {}, Ending.FINISHED, False),
        ({"done": True}, {"exit_status": -9, "stalled": "no line"}, Ending.FINISHED, False),
        ({"done": True}, {"exit_status": -9, "stop_requested": True}, Ending.FINISHED, False),
        ({"done": True}, {"exit_status": -9, "abandoned": True}, Ending.FINISHED, False),
        ({"done": True, "stopped": True}, {}, Ending.STOPPED, False),
        ({"done": True, "interrupted": True}, {}, Ending.STOPPED, False),
        ({"done": True}, {"newest": 80}, Ending.CRASHED, False),
        ({"done": True, "diverged": 90}, {}, Ending.DIVERGED, False),
        ({}, {"exit_status": -9, "stalled": "no line"}, Ending.STALLED, True),
        ({}, {"exit_status": -9, "stalled": "x", "stop_requested": True}, Ending.STOPPED, False),
        ({}, {"exit_status": -9, "abandoned": True}, Ending.STALLED, False),
        ({"diverged": 90}, {"diverged": True, "abandoned": True}, Ending.STALLED, False),
        ({}, {"exit_status": -9}, Ending.CRASHED, True),
    ],
)
def test_verdicts(said, happened, ending, retryable):
    verdict = judge(StartState(**said), outcome(**happened))
    assert (verdict.ending, verdict.retryable) == (ending, retryable)


def test_the_snapshots_of_a_finished_run_are_those_of_its_schedule(caffe, root, tmp_path):
    solver = write_job(root, tmp_path / "job", **{**LONG_TEST, "test_iter": 2})
    done = irv2caffe("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [pair.iteration for pair in pairs(tmp_path / "run/snapshots")] == [100, 80, 40]
