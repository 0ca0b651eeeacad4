"""Trainings by several processes and machines, with the program as users start it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers.databases import raw, write_database

from irv2caffe.caffe.command import tool_command
from irv2caffe.log.read import events
from irv2caffe.log.read.parse import parse
from irv2caffe.proto import messages

pytestmark = pytest.mark.slow

NUM_RECORDS = 13
NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  transform_param {{ scale: 0.01 mean_value: 100 }}
  data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
{bn}layer {{ name: "relu" type: "ReLU" bottom: "ip" top: "ip" }}
layer {{ name: "fc" type: "InnerProduct" bottom: "ip" top: "fc"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""
BN = """layer { name: "bn" type: "BatchNorm" bottom: "ip" top: "ip"
  batch_norm_param { moving_average_fraction: 0.9 } }
"""
SOLVER = """net: "{net}.prototxt" lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 display: 1
random_seed: 1 solver_mode: CPU snapshot_prefix: "{name}" {more}
"""


def write_job(folder, name, *, batch=4, source="records", bn="", more=""):
    """A net and its solver."""
    (folder / f"{name}_net.prototxt").write_text(NET.format(source=source, batch=batch, bn=bn))
    solver = SOLVER.format(net=f"{name}_net", name=name, more=more)
    (folder / f"{name}.prototxt").write_text(solver)


def record(number):
    """An image of noise that belongs to this number."""
    image = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
    return raw(image, number % 3)


def start(folder, name, *options, **more):
    """The engine's program, in a session of its own."""
    command = [sys.executable, "-m", "irv2caffe.engine", "train", "-solver", f"{name}.prototxt"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *options],
        cwd=folder,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )


def finish(process, status=0):
    """The log of a training."""
    _, log = process.communicate(timeout=300)
    assert process.returncode == status, log
    return log


def train(folder, name, *options):
    return finish(start(folder, name, *options))


def caffe_log(found, folder, name):
    """The log of the same training by the real Caffe, from the same weights."""
    args = ["train", "-solver", f"{name}.prototxt", "-weights", "start_iter_0.caffemodel"]
    command = tool_command(found, "caffe", args)
    done = subprocess.run(
        command.argv, env=command.env, cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stderr


def losses(log):
    found = [parse(line) for line in log.splitlines()]
    return [event.loss for event in found if isinstance(event, events.Loss)]


def weights(folder, name):
    """All weights of a model."""
    model = messages.NetParameter.FromString((folder / f"{name}.caffemodel").read_bytes())
    return np.concatenate([blob.data for layer in model.layer for blob in layer.blobs])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Databases, and weights to start from."""
    folder = tmp_path_factory.mktemp("several")
    write_database(folder / "records", [record(n) for n in range(NUM_RECORDS)])
    # what process 0 of 2 reads by Caffe's rule: each second record, counted on past the end
    of_rank_0 = [record(2 * n % NUM_RECORDS) for n in range(20)]
    write_database(folder / "of_rank_0", of_rank_0)
    write_job(folder, "start", more="max_iter: 0")
    train(folder, "start")
    return folder


START = ("-weights", "start_iter_0.caffemodel")


def test_two_processes_equal_caffe_with_the_doubled_batch(folder, caffe):
    more = "base_lr: 0.05 iter_size: 2 clip_gradients: 2 max_iter: 20"
    write_job(folder, "doubled", batch=8, more=more)
    write_job(folder, "two", batch=4, more=more)
    caffe_log(caffe, folder, "doubled")
    train(folder, "two", *START, "--workers", "2")
    before = weights(folder, "start_iter_0")
    expected, found = weights(folder, "doubled_iter_20"), weights(folder, "two_iter_20")
    assert np.abs(expected - before).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_a_process_reads_the_records_that_caffe_gives_it(folder, caffe):
    write_job(folder, "alone", source="of_rank_0", more="base_lr: 0 max_iter: 5")
    write_job(folder, "first", more="base_lr: 0 max_iter: 5")
    expected = losses(caffe_log(caffe, folder, "alone"))
    found = losses(train(folder, "first", *START, "--workers", "2"))
    assert len(set(expected)) == 5
    np.testing.assert_allclose(found[:5], expected[:5], rtol=1e-5)


def test_sync_bn_equals_caffe_with_the_doubled_batch(folder, caffe):
    more = "base_lr: 0.05 max_iter: 10"
    write_job(folder, "doubled_bn", batch=8, bn=BN, more=more)
    write_job(folder, "two_bn", batch=4, bn=BN, more=more)
    doubled = losses(caffe_log(caffe, folder, "doubled_bn"))
    two = losses(train(folder, "two_bn", *START, "--workers", "2", "--sync-bn"))
    assert len(doubled) == len(two) == 11
    np.testing.assert_allclose(
        weights(folder, "two_bn_iter_10"), weights(folder, "doubled_bn_iter_10"), atol=1e-5
    )


def test_batch_norm_is_that_of_process_0_by_default(folder, caffe):
    for name, source in (("alone_bn", "of_rank_0"), ("first_bn", "records")):
        write_job(folder, name, source=source, bn=BN, more="base_lr: 0 max_iter: 5")
    expected = losses(caffe_log(caffe, folder, "alone_bn"))
    found = losses(train(folder, "first_bn", *START, "--workers", "2"))
    np.testing.assert_allclose(found[:5], expected[:5], rtol=1e-5)
    np.testing.assert_allclose(
        weights(folder, "first_bn_iter_5"), weights(folder, "alone_bn_iter_5"), rtol=1e-5, atol=1e-7
    )


def endless(folder, name):
    """A training by two processes that has begun; its log so far."""
    write_job(folder, name, more="base_lr: 0.001 max_iter: 100000000")
    training = start(folder, name, "--workers", "2")
    read_until(training, "Iteration 3 ")
    return training


def read_until(training, words):
    for line in training.stderr:
        if words in line:
            return line
    pytest.fail(f"the training ended before {words!r}: exit {training.wait()}")


def test_ctrl_c_in_the_terminal_ends_all_with_one_snapshot(tmp_path, folder):
    shutil.copytree(folder / "records", tmp_path / "records")
    training = endless(tmp_path, "stopped")
    os.killpg(training.pid, signal.SIGHUP)
    read_until(training, "Snapshotting solver state")
    os.killpg(training.pid, signal.SIGINT)
    log = finish(training)
    assert len(re.findall("Snapshotting solver state", log)) == 1
    assert "Optimization stopped early." in log
    assert log.endswith("Optimization Done.\n")
    assert len(list(tmp_path.glob("stopped_iter_*.solverstate"))) == 2


def children(pid):
    """The ranks of a launcher, in order; of a training also what draws its plot."""
    found = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def test_a_killed_process_ends_the_training(tmp_path, folder):
    shutil.copytree(folder / "records", tmp_path / "records")
    training = endless(tmp_path, "killed")
    ranks = children(training.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    log = finish(training, 128 + signal.SIGKILL)
    last = log.splitlines()[-1]
    assert last.startswith("F")
    assert f"rank 1 of 2 (process {ranks[1]}) was killed by SIGKILL" in last
    assert not any(os.path.exists(f"/proc/{pid}") for pid in ranks)  # noqa: PTH110


def test_the_error_of_another_process_is_the_last_word(tmp_path):
    records = [record(n) for n in range(8)]
    records[5] = records[5][: len(records[5]) // 2]  # rank 1 reads the odd ones
    write_database(tmp_path / "records", records)
    write_job(tmp_path, "damaged", more="base_lr: 0.01 max_iter: 100000000")
    log = finish(start(tmp_path, "damaged", "--workers", "2"), 1)
    last = log.splitlines()[-1]
    assert last.startswith("F")
    assert "00000005" in last


def test_two_machines_train_and_resume_as_one_process_does(tmp_path, folder):
    """Machine 1 has the prototxts and the database, but not the snapshots."""
    there = tmp_path / "machine1"
    there.mkdir()
    shutil.copytree(folder / "records", tmp_path / "records")
    shutil.copytree(folder / "records", there / "records")
    more = "base_lr: 0.05 snapshot: 5 max_iter: {}"
    for last in (5, 10):  # as in Caffe, the second part begins with the first record
        resumed = dict.fromkeys(("whole", "part"), ())
        if last == 10:
            resumed = {name: ("-snapshot", f"{name}_iter_5.solverstate") for name in resumed}
        write_job(tmp_path, "whole", batch=8, more=more.format(last))
        train(tmp_path, "whole", *resumed["whole"])
        with socket.create_server(("127.0.0.1", 0)) as server:
            endpoint = f"127.0.0.1:{server.getsockname()[1]}"
        machines = []
        for node, place in enumerate((tmp_path, there)):
            write_job(place, "part", batch=4, more=more.format(last))
            options = ("--nnodes", "2", "--node-rank", str(node), "--rdzv-endpoint", endpoint)
            machines.append(start(place, "part", *options, *resumed["part"]))
        for machine in machines:
            finish(machine)
    np.testing.assert_allclose(
        weights(tmp_path, "part_iter_10"), weights(tmp_path, "whole_iter_10"), rtol=0, atol=2e-6
    )
    assert not list(there.glob("*.caffemodel"))


def wait_for_words(file, words, process):
    while not file.exists() or words not in file.read_text():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def test_two_supervised_machines_restart_as_one(tmp_path, folder):
    """A process of machine 1 is killed: both start again, from the snapshot of machine 0."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"127.0.0.1:{server.getsockname()[1]}"
    machines, places = [], (tmp_path / "here", tmp_path / "there")
    for node, place in enumerate(places):
        shutil.copytree(folder / "records", place / "records")
        more = "base_lr: 0.001 snapshot: 200 max_iter: 4000"
        write_job(place, "job", more=more)
        command = ["train", "--engine", "torch", "--gpus", "none", "--solver", "job.prototxt"]
        command += ["--run-dir", "run", "--ignore-findings", "--nnodes", "2"]
        command += ["--node-rank", str(node), "--rdzv-endpoint", endpoint]
        machines.append(
            subprocess.Popen(
                [sys.executable, "-m", "irv2caffe", *command],
                cwd=place,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    wait_for_words(places[0] / "run/train.log", "_iter_200.solverstate", machines[0])
    (rank,) = [pid for launcher in children(machines[1].pid) for pid in children(launcher)]
    os.kill(rank, signal.SIGKILL)
    for machine in machines:
        _, said = machine.communicate(timeout=300)
        assert machine.returncode == 0, said
        assert f"rank 1 of 2 (process {rank}) was killed by SIGKILL" in said
    assert list(places[0].glob("run/snapshots/*_iter_4000.caffemodel"))
    assert not list(places[1].glob("run/snapshots/*"))
