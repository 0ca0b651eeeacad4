"""Whole trainings by the engine and the real Caffe: losses, log lines, resuming in both."""

from __future__ import annotations

import shutil

import pytest
from helpers import solver_jobs
from helpers.solver_jobs import JOBS, caffe_log, difference, engine_log, found_events, kinds

from irv2caffe.engine.solver.snapshot import State, read_state, write_state
from irv2caffe.log.read import events
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_array, read_binary

pytestmark = pytest.mark.slow
TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory, caffe):
    """The jobs, and ``start_iter_1.caffemodel`` with the weights that all start from."""
    folder = tmp_path_factory.mktemp("jobs")
    solver_jobs.write_jobs(folder)
    short = solver_jobs.SOLVER.replace("max_iter: 100", "max_iter: 1")
    start = f'{short} {JOBS["SGD"]} snapshot_prefix: "start"'
    (folder / "start.prototxt").write_text(start)
    caffe_log(caffe, folder, "-solver", "start.prototxt")
    return folder


@pytest.fixture(scope="module")
def logs(folder, caffe):
    """Runs a job in both, once; returns the logs of the engine and of Caffe.

    Each writes its snapshots in a folder of its own.
    """
    found = {}

    def run(job):
        if job not in found:
            args = ("-solver", f"{job}.prototxt", "-weights", "start_iter_1.caffemodel")
            theirs = caffe_log(caffe, folder, *args)
            for path in folder.glob(f"{job}_iter_*"):
                path.rename(folder / f"caffe-{path.name}")
            found[job] = engine_log(folder, *args), theirs
        return found[job]

    return run


@pytest.mark.parametrize("job", JOBS)
def test_losses_of_a_hundred_iterations(logs, job, record_property):
    ours, theirs = logs(job)
    found = difference(ours, theirs)
    record_property("difference", found)
    assert found < TOLERANCE
    for own, other in zip(outputs(ours), outputs(theirs), strict=True):
        assert (own.index, own.name, own.is_test, own.weight) == (
            other.index, other.name, other.is_test, other.weight
        )  # fmt: skip
        assert own.value == pytest.approx(other.value, rel=TOLERANCE)


def outputs(log):
    return [event for event in found_events(log) if isinstance(event, events.Output)]


@pytest.mark.parametrize("job", ["multistep", "RMSProp with all", "average_loss"])
def test_lines_are_those_of_caffe_in_its_order(logs, job):
    ours, theirs = logs(job)
    assert kinds(ours) == kinds(theirs)


@pytest.mark.parametrize("job", ["SGD", "AdaDelta", "multistep"])
def test_snapshots_are_those_of_caffe(logs, folder, job):
    logs(job)
    ours, theirs = (
        read_binary(folder / f"{prefix}{job}_iter_100.solverstate", messages.SolverState)
        for prefix in ("", "caffe-")
    )
    assert (ours.iter, ours.learned_net, ours.current_step) == (
        theirs.iter, theirs.learned_net, theirs.current_step
    )  # fmt: skip
    for own, other in zip(ours.history, theirs.history, strict=True):
        assert own.shape == other.shape
        assert read_array(own) == pytest.approx(read_array(other), rel=1e-3, abs=1e-4)


def test_a_state_is_written_byte_by_byte_as_caffe_does(logs, folder, tmp_path):
    import torch

    logs("Adam")
    source = folder / "caffe-Adam_iter_50.solverstate"
    shapes = [tuple(blob.shape.dim) for blob in read_binary(source, messages.SolverState).history]
    history = [torch.zeros(shape) for shape in shapes]
    state = read_state(source, history)
    assert state == State(50, "Adam_iter_50.caffemodel", 0)
    write_state(tmp_path / "again.solverstate", state, history)
    assert (tmp_path / "again.solverstate").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("origin", ["engine", "caffe"])
@pytest.mark.parametrize("job", [*TYPES, "multistep"])
def test_both_continue_a_snapshot_with_the_same_losses(
    logs, folder, caffe, job, origin, record_property
):
    logs(job)
    prefix = "caffe-" if origin == "caffe" else ""
    work = folder / f"{origin}-{job}"
    work.mkdir()
    for suffix in ("caffemodel", "solverstate"):
        shutil.copy(folder / f"{prefix}{job}_iter_50.{suffix}", work / f"{job}_iter_50.{suffix}")
    for name in ("net.prototxt", f"{job}.prototxt"):
        shutil.copy(folder / name, work / name)
    args = ("-solver", f"{job}.prototxt", "-snapshot", f"{job}_iter_50.solverstate")
    ours = engine_log(work, *args)
    theirs = caffe_log(caffe, work, *args)
    assert min(solver_jobs.losses(ours)) == 50
    found = difference(ours, theirs)
    record_property("difference", found)
    assert found < TOLERANCE
    assert kinds(ours) == kinds(theirs)


def test_an_hdf5_snapshot_of_caffe_is_continued(folder, caffe):
    work = folder / "hdf5"
    work.mkdir()
    text = (folder / "multistep.prototxt").read_text()
    (work / "hdf5.prototxt").write_text(f"{text} snapshot_format: HDF5")
    (work / "binary.prototxt").write_text(text)
    shutil.copy(folder / "net.prototxt", work)
    caffe_log(caffe, work, "-solver", "hdf5.prototxt")
    args = ("-snapshot", "multistep_iter_50.solverstate.h5")
    theirs = caffe_log(caffe, work, "-solver", "hdf5.prototxt", *args)
    ours = engine_log(work, "-solver", "binary.prototxt", *args)
    assert min(solver_jobs.losses(ours)) == 50
    assert difference(ours, theirs) < TOLERANCE
