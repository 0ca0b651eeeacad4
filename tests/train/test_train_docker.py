"""--docker IMAGE: the command, signals, exit codes and leftovers; a stand-in for docker itself.

Inside of it the real Caffe trains, but where several GPUs are asked for.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
from helpers.paths import HELPERS
from helpers.training_jobs import (
    FOREVER,
    PATIENCE_S,
    config,
    irv2caffe,
    is_gone,
    is_pending,
    newest,
    start,
    wait_for,
    wait_for_text,
    write_job,
)

from irv2caffe.caffe.docker import Container, docker_argv, own_exit_status
from irv2caffe.train.run_dir.run_dir import RunDir

STAND_IN = [sys.executable, str(HELPERS / "stand_in_caffe.py")]


def asked(docker):
    lines = (Path(docker["DOCKER_STATE"]) / "asked.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def containers(docker):
    return [
        path
        for path in Path(docker["DOCKER_STATE"]).iterdir()
        if path.name.startswith("irv2caffe-") and path.is_file()
    ]


@pytest.mark.slow
def test_a_training_in_a_container(caffe, root, tmp_path, docker):
    solver = write_job(root, tmp_path / "job")
    args = ("--solver", solver, "--run-dir", "run", "--docker", "bvlc/caffe:cpu")
    done = irv2caffe(*args, cwd=tmp_path, **docker)
    assert done.returncode == 0, done.stderr
    assert "caffe in the docker image bvlc/caffe:cpu" in done.stderr
    run = tmp_path / "run"
    trained = next(one for one in asked(docker) if "train" in one.get("args", ()))
    options = trained["run"]
    assert trained["image"] == "bvlc/caffe:cpu"
    assert trained["args"] == ["caffe", "train", "-solver", str(run / "solver.prototxt")]
    assert options["--user"] == [f"{os.getuid()}:{os.getgid()}"]
    assert options["--mount"] == [
        f"type=bind,source={run},target={run}",
        f"type=bind,source={root}/train_lmdb,target={root}/train_lmdb,readonly",
        f"type=bind,source={root}/val_lmdb,target={root}/val_lmdb,readonly",
    ]
    assert options["--workdir"] == [str(run)]
    assert "GLOG_logtostderr=1" in options["--env"]
    assert "--rm" in options
    assert "--gpus" not in options
    assert options["--name"][0].startswith("irv2caffe-run-1-")
    assert newest(RunDir(run)) == 1000
    assert config(run)["caffe"]["image"] == "bvlc/caffe:cpu"
    assert not containers(docker)


@pytest.mark.slow
def test_signals_and_exit_codes_go_through(caffe, root, tmp_path, docker):
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER)
    args = ("--solver", solver, "--run-dir", "run", "--docker", "image")
    child = start(*args, cwd=tmp_path, **docker)
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 300 (")
    (container,) = containers(docker)
    os.kill(int(container.read_text()), signal.SIGKILL)  # as the kernel does it: docker says 137
    wait_for(lambda: run.num_starts() == 2, "for the second start")
    wait_for_text(run.log_of(2), "loss = ")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    starts = config(run.path)["starts"]
    assert [entry["exit_status"] for entry in starts] == [-signal.SIGKILL, 0]
    assert "Caffe was ended by SIGKILL" in starts[0]["why"]
    assert newest(run) > starts[1]["from_iteration"]  # Caffe heard of the Ctrl-C
    assert not containers(docker)


@pytest.mark.slow
def test_a_second_signal_kills_the_container(caffe, root, tmp_path, docker):
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER)
    args = ("--solver", solver, "--run-dir", "run", "--docker", "image")
    child = start(*args, cwd=tmp_path, **docker)
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 300 (")
    (container,) = containers(docker)
    pid = int(container.read_text())
    os.kill(pid, signal.SIGSTOP)
    child.send_signal(signal.SIGINT)
    wait_for(lambda: is_pending(pid, signal.SIGINT), "for the first signal to be forwarded")
    time.sleep(1.2)  # nearer to the first it would count as the same
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    assert child.wait(PATIENCE_S) == 130
    wait_for(lambda: is_gone(pid), "for the container's end")
    assert {"kill": ["--signal", "KILL", container.name]} in asked(docker)
    assert not containers(docker)


@pytest.mark.slow
def test_leftovers_of_a_killed_trainer_are_removed(caffe, root, tmp_path, docker):
    """The docker client is killed, too, so that no signal reaches the container."""
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER)
    args = ("--solver", solver, "--run-dir", "run", "--docker", "image")
    child = start(*args, cwd=tmp_path, **docker)
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 300 (")
    (container,) = containers(docker)
    pid = int(container.read_text())
    client = json.loads(run.lock.read_text())["child_pid"]
    child.send_signal(signal.SIGSTOP)
    os.kill(client, signal.SIGKILL)
    child.kill()
    child.wait()
    assert not is_gone(pid)  # an orphan that goes on
    again = start("--resume", "run", "--docker", "image", cwd=tmp_path, **docker)
    wait_for(lambda: run.num_starts() == 2, "for the second start")
    assert is_gone(pid)
    again.send_signal(signal.SIGINT)
    assert again.wait(60) == 130
    assert {"rm": ["--force", container.name]} in asked(docker)


@pytest.mark.slow
def test_a_killed_trainer_is_told_to_the_container(caffe, root, tmp_path, docker):
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER, snapshot=0)
    args = ("--solver", solver, "--run-dir", "run", "--docker", "image")
    child = start(*args, cwd=tmp_path, **docker)
    run = RunDir(tmp_path / "run")
    wait_for_text(run.log, "Iteration 300 (")
    (container,) = containers(docker)
    pid = int(container.read_text())
    child.kill()
    child.wait()
    wait_for(lambda: is_gone(pid), "for Caffe's own end")
    assert newest(run) >= 300


@pytest.mark.slow
def test_gpus_of_a_container(root, tmp_path, docker):
    """The container sees only the named GPUs, numbered from 0."""
    docker["DOCKER_CAFFE"] = shlex.join(STAND_IN)
    solver = write_job(root, tmp_path / "job", max_iter=50)
    args = ("--solver", solver, "--run-dir", "run", "--docker", "nvcr.io/nvidia/caffe:20.03-py3")
    docker["STAND_IN_VERSION"] = "0.17.3"
    done = irv2caffe(*args, "--gpus", "2,3", cwd=tmp_path, **docker)
    assert done.returncode == 0, done.stderr
    trained = next(one for one in asked(docker) if "train" in one.get("args", ()))
    assert trained["run"]["--gpus"] == ['"device=2,3"']
    assert trained["args"][-2:] == ["-gpu", "0,1"]
    assert trained["run"]["--shm-size"] == ["1g"]
    assert config(tmp_path / "run")["caffe"]["flavor"] == "nvcaffe"
    assert config(tmp_path / "run")["effective_batch"] == 8  # NVCaffe divides it


@pytest.mark.slow
def test_gpus_of_a_container_are_those_that_the_variable_shows(root, tmp_path, docker):
    """Docker ignores CUDA_VISIBLE_DEVICES and numbers GPUs as nvidia-smi does."""
    docker["DOCKER_CAFFE"] = shlex.join(STAND_IN)
    docker["CUDA_VISIBLE_DEVICES"] = "5,GPU-aa,7"
    solver = write_job(root, tmp_path / "job", max_iter=50)
    args = ("--solver", solver, "--run-dir", "run", "--docker", "image")
    done = irv2caffe(*args, "--gpus", "0,2", cwd=tmp_path, **docker)
    assert done.returncode == 0, done.stderr
    trained = next(one for one in asked(docker) if "train" in one.get("args", ()))
    assert trained["run"]["--gpus"] == ['"device=5,7"']
    assert trained["args"][-2:] == ["-gpu", "0,1"]
    assert config(tmp_path / "run")["gpus"] == "0,2"  # as they are told again
    refused = irv2caffe(*args, "--gpus", "3", cwd=tmp_path, **docker)
    assert refused.returncode == 2
    assert "shows 3, counted from 0" in refused.stderr


@pytest.mark.slow
def test_weights_of_a_container_lie_where_they_were_named(caffe, root, tmp_path, docker):
    """Docker refuses mounts of relative paths."""
    docker["DOCKER_CAFFE"] = shlex.join(STAND_IN)
    solver = write_job(root, tmp_path / "job", max_iter=10)
    args = ("--solver", solver, "--docker", "image")
    first = irv2caffe(*args, "--run-dir", "a", cwd=tmp_path, **docker)
    assert first.returncode == 0, first.stderr
    model = next((tmp_path / "a/snapshots").glob("*.caffemodel"))
    model.rename(tmp_path / "m.caffemodel")
    # the stand-in's model has weights of its own
    more = ("--run-dir", "b", "--weights", "m.caffemodel", "--ignore-findings")
    done = irv2caffe(*args, *more, cwd=tmp_path, **docker)
    assert done.returncode == 0, done.stderr
    trained = [one for one in asked(docker) if "train" in one.get("args", ())][-1]
    assert trained["args"][-2:] == ["-weights", str(tmp_path / "m.caffemodel")]
    assert f"type=bind,source={tmp_path},target={tmp_path},readonly" in trained["run"]["--mount"]


def test_an_image_that_is_not_there(root, tmp_path, docker):
    solver = write_job(root, tmp_path / "job")
    args = ("--solver", solver, "--run-dir", "run", "--docker", "missing")
    done = irv2caffe(*args, cwd=tmp_path, **docker)
    assert done.returncode == 1
    assert "pull access denied" in done.stderr
    assert not (tmp_path / "run").exists()


def test_without_docker(root, tmp_path):
    solver = write_job(root, tmp_path / "job")
    (tmp_path / "bin").mkdir()
    args = ("--solver", solver, "--run-dir", "run", "--docker", "image")
    done = irv2caffe(*args, cwd=tmp_path, PATH=str(tmp_path / "bin"))
    assert done.returncode == 1
    assert "the program docker is not on PATH" in done.stderr


def test_paths_that_docker_would_misread():
    """--mount is read as CSV."""
    argv = docker_argv("i", ("caffe",), Container(writable=(Path('/a,b "c":d'),), gpus="all"))
    assert 'type=bind,"source=/a,b ""c"":d","target=/a,b ""c"":d"' in argv
    assert argv[argv.index("--gpus") + 1] == "all"
    import csv

    (fields,) = csv.reader([argv[argv.index("--mount") + 1]])
    assert fields == ["type=bind", 'source=/a,b "c":d', 'target=/a,b "c":d']


def test_exit_statuses():
    assert [own_exit_status(status) for status in (0, 1, 125, 134, 137)] == [0, 1, 125, -6, -9]
