"""Deletion of snapshots, and snapshots that cannot be read; with the real Caffe where possible."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal

import numpy as np
import pytest
from helpers.training_jobs import (
    FOREVER,
    PATIENCE_S,
    caffe_pid,
    config,
    irv2caffe,
    make_databases,
    newest,
    start,
    wait_for,
    wait_for_text,
    write_job,
)

from irv2caffe.errors import UnreadableError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_binary, write_binary
from irv2caffe.proto.snapshot_headers import read_model_header
from irv2caffe.proto.text import read_prototxt
from irv2caffe.train.run_dir.retention import KeepPolicy, SnapshotKeeper
from irv2caffe.train.run_dir.run_dir import RunDir
from irv2caffe.train.run_dir.snapshots import (
    net_differences,
    newest_complete,
    pair_of,
    pairs,
    problem,
)


@pytest.fixture(scope="module")
def root(caffe, tmp_path_factory):
    """Databases, and a finished run of the real Caffe with five snapshots."""
    folder = tmp_path_factory.mktemp("keep")
    make_databases(folder)
    done = irv2caffe("--solver", write_job(folder, folder / "job"), "--run-dir", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(root, tmp_path):
    """A copy of that run."""
    shutil.copytree(root / "run", tmp_path / "run")
    return RunDir(tmp_path / "run")


def iterations(folder):
    return sorted(pair.iteration for pair in pairs(folder))


# What a snapshot has to do with the net of the run.


def layers_and_net(run):
    net = read_prototxt(run.path / "net.prototxt", messages.NetParameter)
    return read_model_header(pairs(run.snapshots)[0].model).layers, net


@pytest.mark.slow
def test_fields_that_only_nvcaffe_knows_change_no_layer(copy):
    """NVCaffe's fields in every layer and in layer parameters, written by hand."""
    pair = pairs(copy.snapshots)[0]
    net = read_prototxt(copy.path / "net.prototxt", messages.NetParameter)
    assert not problem(pair, net)
    model = read_binary(pair.model, messages.NetParameter)
    strange = b"\x90\xbb\x03\x01" + b"\xa2\xbb\x03\x03abc"  # fields 7090, 7092: 1 and "abc"
    for layer in model.layer:
        layer.MergeFromString(strange)
        if layer.type == "Convolution":
            layer.convolution_param.MergeFromString(strange)
    assert len(model.layer[0].SerializeToString()) > len(strange)
    write_binary(pair.model, model)
    assert strange in pair.model.read_bytes()
    assert not problem(pair, net)
    for layer in net.layer:  # in the prototxt of the run, too, where a schema knew them
        layer.MergeFromString(strange)
    assert not problem(pair, net)
    for layer in net.layer:
        if layer.name == "fc":
            layer.inner_product_param.num_output = 7
    assert "layer fc has changed" in problem(pair, net)


def test_where_the_infogain_matrix_lies_is_no_change(copy):
    layers, net = layers_and_net(copy)
    for layer in (next(one for one in net.layer if one.name == "loss"), layers[-1].definition):
        layer.type = "InfogainLoss"
        layer.infogain_loss_param.source = "/was/here.binaryproto"
    assert net_differences(layers, net) == []
    net.layer[-1].infogain_loss_param.source = "/is/there.binaryproto"
    assert net_differences(layers, net) == []
    net.layer[-1].infogain_loss_param.axis = 2
    assert net_differences(layers, net) == ["layer loss has changed"]


@pytest.mark.slow
def test_label_smoothing_in_a_run_folder_that_was_moved(caffe, root, tmp_path):
    """Caffe dies before its first snapshot there: the older one is still the run's own."""
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER, snapshot=0)
    net = tmp_path / "job/net.prototxt"
    matrix = messages.BlobProto(num=1, channels=1, height=2, width=2)
    matrix.data.extend(np.array([0.95, 0.05, 0.05, 0.95], np.float32))
    write_binary(tmp_path / "job/matrix.binaryproto", matrix)
    loss = f'"InfogainLoss" infogain_loss_param {{ source: "{tmp_path}/job/matrix.binaryproto" }}'
    net.write_text(net.read_text().replace('"SoftmaxWithLoss"', loss))
    child = start("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    wait_for_text(tmp_path / "run/train.log", "Iteration 300 (")
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    run = RunDir(tmp_path / "moved")
    (tmp_path / "run").rename(run.path)
    shutil.rmtree(tmp_path / "job")
    at = newest(run)
    assert at >= 300
    child = start("--resume", "moved", cwd=tmp_path)
    wait_for(lambda: run.num_starts() == 2, "for the second start")
    wait_for_text(run.log_of(2), "loss = ")
    assert f'source: "{run.path}/matrix.binaryproto"' in run.log_of(2).read_text()
    os.kill(caffe_pid(run.path), signal.SIGKILL)
    wait_for(lambda: run.num_starts() == 3, "for the third start")
    wait_for_text(run.log_of(3), "loss = ")
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    assert "has changed" not in err
    assert [entry["from_iteration"] for entry in config(run.path)["starts"]] == [0, at, at]


def test_a_state_cut_between_two_histories(copy):
    pair = pairs(copy.snapshots)[0]
    state = read_binary(pair.state, messages.SolverState)
    assert len(state.history) == 4
    for count in (3, 1, 0):
        del state.history[count:]
        write_binary(pair.state, state)
        assert f"history of {count} of 4 weights" in problem(pair)


# Files that are there, and that nobody can read.


def make_unreadable(path):
    """A link to itself, which no user can open, not even root."""
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.slow
def test_no_run_begins_anew_where_its_snapshots_cannot_be_read(copy, tmp_path):
    for pair in pairs(copy.snapshots):
        make_unreadable(pair.state)
    before = sorted(path.name for path in copy.snapshots.iterdir())
    done = irv2caffe("--resume", "run", "--epochs", 150, cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot be read: Too many levels of symbolic links" in done.stderr
    assert "Traceback" not in done.stderr
    assert copy.num_starts() == 1
    assert sorted(path.name for path in copy.snapshots.iterdir()) == before
    for pair in pairs(copy.snapshots):  # what is torn is no secret: those may be written over
        pair.state.unlink()
        pair.state.write_bytes(b"torn")
    torn = irv2caffe("--resume", "run", cwd=tmp_path)
    assert torn.returncode == 0, torn.stderr
    assert "starting from the beginning" in torn.stderr


@pytest.mark.slow
def test_a_folder_of_snapshots_that_was_emptied(copy, tmp_path):
    """The disk is missing: its empty mount point is no new run."""
    for path in copy.snapshots.iterdir():
        path.unlink()
    done = irv2caffe("--resume", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert "is empty; it held tiny_iter_1000.solverstate" in done.stderr
    assert copy.num_starts() == 1


def test_an_unreadable_pair_among_readable_ones_is_passed_over(copy):
    newest_pair = pairs(copy.snapshots)[0]
    make_unreadable(newest_pair.model)
    pair, problems = newest_complete(copy.snapshots)
    assert pair.iteration == 800
    assert "cannot be read" in problems[0]
    for one in pairs(copy.snapshots)[1:]:
        one.state.unlink()
    with pytest.raises(UnreadableError, match="cannot be read"):
        newest_complete(copy.snapshots)


def test_a_folder_that_cannot_be_looked_into(tmp_path):
    assert pairs(tmp_path / "nothing") == []
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UnreadableError):
        pairs(tmp_path / "loop")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["unreadable", "gone"])
def test_a_disk_that_fails_with_caffe_ends_the_run(caffe, root, tmp_path, how):
    """The run does not start anew and overwrite the snapshots."""
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER)
    child = start("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    wait_for(lambda: newest(run) >= 400, "for snapshots")
    pid = caffe_pid(run.path)
    os.kill(pid, signal.SIGSTOP)  # no more of them
    wait_for(lambda: str(newest(run)) in run.state.read_text(), "for its look at it")
    run.snapshots.rename(tmp_path / "away")
    if how == "unreadable":
        run.snapshots.symlink_to("snapshots")
    else:
        run.snapshots.mkdir()
    os.kill(pid, signal.SIGKILL)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 1
    assert "can no longer be read or renamed" in err
    assert "SIGKILL" in err
    assert "Traceback" not in err
    assert run.num_starts() == 1
    assert config(run.path)["ending"] == "crashed"
    if how == "unreadable":
        run.snapshots.unlink()
    else:
        run.snapshots.rmdir()
    (tmp_path / "away").rename(run.snapshots)
    at = newest(run)
    text = re.sub(r"(?m)^max_iter: \d+", f"max_iter: {at + 100}", run.solver.read_text())
    run.solver.write_text(text)
    done = irv2caffe("--resume", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"resuming from iteration {at:,}" in done.stderr


# What goes, and when.


@pytest.fixture
def keeper(root, tmp_path):
    """A snapshot keeper of an empty folder, its messages, and functions that write a snapshot."""
    folder = tmp_path / "snapshots"
    folder.mkdir()
    said = []

    def write(keeper, at, **how):
        for path in (root / "run/snapshots").glob(f"*_iter_{at}.*"):
            shutil.copy(path, folder)
        keeper.add(str(folder / f"tiny_iter_{at}.solverstate"), **how)
        assert keeper.verify(complete=True)

    net = read_prototxt(root / "run/net.prototxt", messages.NetParameter)
    return folder, said, write, lambda keep: SnapshotKeeper(folder, net, keep, None, said.append)


def test_older_ones_go_when_the_loss_after_a_newer_one_is_healthy(keeper):
    folder, _, write, make = keeper
    kept = make(KeepPolicy(1))
    write(kept, 200)
    kept.set_healthy(200)
    write(kept, 400)
    assert iterations(folder) == [200, 400]  # 400 may be lost already
    kept.set_healthy(390)
    assert iterations(folder) == [200, 400]
    kept.set_healthy(400)
    assert iterations(folder) == [400]
    write(kept, 600)
    write(kept, 800)
    kept.set_healthy(700)
    assert iterations(folder) == [600, 800]
    kept.go_back(pair_of(folder / "tiny_iter_600.solverstate"))
    write(kept, 800)
    assert iterations(folder) == [600, 800]  # what was healthy before the rollback says nothing
    kept.set_healthy(800)
    assert iterations(folder) == [800]


def test_nothing_goes_for_a_snapshot_that_a_disk_did_not_take(keeper, monkeypatch):
    folder, said, write, make = keeper
    kept = make(KeepPolicy(1))

    def fail(number):
        def fsync(handle):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fsync)

    write(kept, 200)
    fail(errno.EIO)
    write(kept, 400)
    kept.set_healthy(500)
    assert iterations(folder) == [200, 400]
    assert "older ones are kept" in said[0]
    assert "Input/output error" in said[0]
    fail(errno.EINVAL)  # a file system that cannot force anything to a disk
    write(kept, 600)
    kept.set_healthy(600)
    assert iterations(folder) == [600]


def test_what_was_asked_for_and_what_was_there_stays(keeper, root):
    folder, _, write, make = keeper
    for at in (200, 400):
        for path in (root / "run/snapshots").glob(f"*_iter_{at}.*"):
            shutil.copy(path, folder)
    kept = make(KeepPolicy(1, earlier=True))
    write(kept, 600, requested=True)
    write(kept, 800)
    write(kept, 1000)
    kept.set_healthy(1000)
    assert iterations(folder) == [200, 400, 600, 1000]
    kept = make(KeepPolicy(1))  # --keep-snapshots 1
    write(kept, 1000)
    kept.set_healthy(1000)
    assert iterations(folder) == [1000]


@pytest.mark.slow
def test_requested_snapshots_stay_in_a_real_run(caffe, root, tmp_path):
    """Three of the timed snapshots are kept, one that was requested, and that of a stop."""
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER, snapshot=0)
    args = ("--solver", solver, "--run-dir", "run", "--keep-epochs", 0, "--best", "none")
    child = start(*args, "--snapshot-minutes", 0.004, cwd=tmp_path)
    run = RunDir(tmp_path / "run")
    wait_for(lambda: newest(run), "for a first one")
    assert irv2caffe("--snapshot-now", "run", cwd=tmp_path).returncode == 0
    # One by the clock may have come at the same moment: the one that was asked for is there when
    # two more have begun.
    count = num_snapshots(run)
    wait_for(lambda: num_snapshots(run) >= count + 2, "for two more")
    there = set(iterations(run.snapshots))
    latest = max(there)
    wait_for(lambda: min(iterations(run.snapshots)[-3:]) > latest, "for three more")
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130, err
    stay = iterations(run.snapshots)
    assert there & set(stay)  # the one that was asked for is older than the newest three
    assert len(stay) <= 6
    assert num_snapshots(run) > len(stay)


def num_snapshots(run):
    return run.log.read_text().count("Snapshotting solver state")


@pytest.mark.slow
def test_another_schedule_deletes_nothing_of_the_earlier_one(caffe, root, copy, tmp_path):
    before = iterations(copy.snapshots)
    assert before == [200, 400, 600, 800, 1000]
    more = ("--epochs", 200, "--snapshot-epochs", 37.5)  # 300 iterations
    done = irv2caffe("--resume", "run", *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert iterations(copy.snapshots) == [*before, 1200, 1500, 1600]


def poisoned(root, tmp_path, *args):
    """The learning rate explodes at iteration 395; snapshots follow before the loss shows it."""
    changes = {"lr_policy": '"multistep"', "gamma": 1e7, "stepsize": None, "display": 100}
    solver = write_job(root, tmp_path / "job", **changes, snapshot=66)
    with solver.open("a") as stream:
        stream.write("stepvalue: 395\n")
    done = irv2caffe("--solver", solver, "--run-dir", "run", *args, cwd=tmp_path)
    return done, RunDir(tmp_path / "run")


@pytest.mark.slow
def test_snapshots_after_the_last_healthy_loss_are_set_aside(caffe, root, tmp_path):
    done, run = poisoned(root, tmp_path, "--keep-snapshots", 1, "--keep-epochs", 0)
    assert done.returncode == 1
    assert "diverged: run" in done.stdout
    assert config(run.path)["starts"][0]["ending"] == "diverged"
    aside = [path.name for path in run.snapshots.glob("*.solverstate.diverged")]
    assert aside
    left = iterations(run.snapshots)
    assert left  # of a net that still learned, though only one was to be kept
    assert max(left) <= 395
    assert f"tiny_iter_{max(left)}.caffemodel" in done.stdout
    again = irv2caffe("--resume", "run", "--json", cwd=tmp_path)
    assert f"resuming from iteration {max(left):,}" in again.stderr


@pytest.mark.slow
def test_a_rollback_finds_a_healthy_snapshot_where_one_is_kept(caffe, root, tmp_path):
    args = ("--keep-snapshots", 1, "--keep-epochs", 0, "--on-divergence", "rollback")
    done, run = poisoned(root, tmp_path, *args, "--rollback-lr", 1e-9)
    assert done.returncode == 0, done.stderr
    starts = config(run.path)["starts"]
    assert [entry["ending"] for entry in starts] == ["diverged", "finished"]
    assert 198 <= starts[1]["from_iteration"] <= 395
