"""Snapshots: complete ones, fixed paths, deletion; compared with protobuf and Caffe."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest
from helpers.training_jobs import irv2caffe, make_databases, write_job

from irv2caffe.errors import FormatError, MissingInputError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_array, read_binary, write_binary
from irv2caffe.proto.snapshot_headers import read_model_header, read_state_header
from irv2caffe.proto.text import read_prototxt, write_prototxt
from irv2caffe.train.run_dir.retention import KeepPolicy
from irv2caffe.train.run_dir.run_dir import RunDir
from irv2caffe.train.run_dir.snapshots import (
    Pair,
    fix_model_path,
    net_differences,
    newest_complete,
    pair_of,
    pairs,
    problem,
    set_aside,
)


@pytest.fixture(scope="module")
def run(caffe, tmp_path_factory):
    """A finished run of the real Caffe."""
    root = tmp_path_factory.mktemp("snapshots")
    make_databases(root)
    solver = write_job(root, root / "job", lr_policy='"multistep"', stepsize=None)
    with solver.open("a") as stream:
        stream.write("stepvalue: 100 stepvalue: 300\n")
    done = irv2caffe("--solver", solver, "--run-dir", "run", cwd=root)
    assert done.returncode == 0, done.stderr
    return RunDir(root / "run")


@pytest.fixture
def folder(run, tmp_path):
    """A copy of its snapshots, to be spoilt."""
    shutil.copytree(run.snapshots, tmp_path / "snapshots")
    return tmp_path / "snapshots"


@pytest.mark.slow
def test_outlines_are_what_protobuf_reads(run):
    for pair in pairs(run.snapshots):
        state = read_binary(pair.state, messages.SolverState)
        outline = read_state_header(pair.state)
        assert outline.iteration == state.iter == pair.iteration
        assert outline.learned_net == state.learned_net
        assert outline.num_history == len(state.history) == 4
        assert outline.current_step == state.current_step
        model = read_binary(pair.model, messages.NetParameter)
        layers = read_model_header(pair.model, check_finite=True).layers
        assert [layer.definition.name for layer in layers] == [one.name for one in model.layer]
        for layer, whole in zip(layers, model.layer, strict=True):
            assert layer.shapes == tuple(read_array(blob).shape for blob in whole.blobs)
            del whole.blobs[:]
            assert layer.definition == whole
    assert [outline.iteration for outline in map(pair_of, run.snapshots.glob("*200.solverstate"))]


@pytest.mark.slow
def test_every_torn_file_is_found(folder):
    """Files cut anywhere, or ending in zeros as after a power failure."""
    pair = pairs(folder)[0]
    rng = random.Random(0)
    for path, read in ((pair.model, read_model_header), (pair.state, read_state_header)):
        whole = path.read_bytes()
        cuts = {1, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(200))}
        for cut in cuts:
            path.write_bytes(whole[:cut])
            if is_at_a_boundary(path, whole, cut):
                continue
            with pytest.raises(FormatError):
                read(path)
            if len(whole) - cut < 20:
                continue  # within the last field: a number of it may be zero and all else is there
            path.write_bytes(whole[:cut] + bytes(len(whole) - cut))
            with pytest.raises(FormatError):
                read(path)
        path.write_bytes(whole)
        assert not problem(pair)


def is_at_a_boundary(path, whole, cut):
    """A message cut between two of its fields is a shorter message; few cuts fall there."""
    cls = messages.NetParameter if path.suffix == ".caffemodel" else messages.SolverState
    try:
        return bool(cls.FromString(whole[:cut]).ByteSize() >= 0)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError
        return False


def test_a_cut_between_two_fields_is_found_by_the_net(run, folder):
    """The file is a complete message, but layers of the net are missing."""
    net = read_prototxt(run.path / "net.prototxt", messages.NetParameter)
    pair = pairs(folder)[0]
    model = read_binary(pair.model, messages.NetParameter)
    del model.layer[-1]
    pair.model.write_bytes(model.SerializeToString())
    assert not problem(pair)
    assert "layer loss is new" in problem(pair, net)


def test_files_of_the_other_kind(folder, tmp_path):
    pair = pairs(folder)[0]
    with pytest.raises(FormatError, match="not a solver state"):
        read_state_header(pair.model)
    with pytest.raises(FormatError, match="not a model"):
        read_model_header(pair.state)
    with pytest.raises(MissingInputError):
        read_state_header(tmp_path / "nothing")
    (tmp_path / "empty").touch()
    with pytest.raises(FormatError, match="empty"):
        read_model_header(tmp_path / "empty")
    (tmp_path / "h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(FormatError, match="HDF5"):
        read_model_header(tmp_path / "h5")


def test_newest_complete_passes_over_what_cannot_be_used(folder):
    at = {pair.iteration: pair for pair in pairs(folder)}
    assert sorted(at) == [200, 400, 600, 800, 1000]
    at[1000].model.unlink()
    model = read_binary(at[800].model, messages.NetParameter)
    next(layer for layer in model.layer if layer.blobs).blobs[0].data[0] = float("nan")
    write_binary(at[800].model, model)
    shutil.copy(at[200].state, at[600].state)
    pair, problems = newest_complete(folder)
    assert pair == at[400]
    assert len(problems) == 3
    assert "no such file" in problems[0]
    assert "not numbers" in problems[1]
    assert "is of iteration 200, not 600" in problems[2]
    assert newest_complete(folder, at_most=399)[0] == at[200]


def test_mended_paths_change_nothing_else(folder):
    pair = pairs(folder)[0]
    before = read_binary(pair.state, messages.SolverState)
    assert fix_model_path(pair)
    after = read_binary(pair.state, messages.SolverState)
    assert after.learned_net == str(pair.model)
    assert not fix_model_path(pair)
    before.learned_net = after.learned_net
    assert before == after


def test_another_net_is_told_from_the_same(run, folder):
    layers = read_model_header(pairs(folder)[0].model).layers

    def differences(change):
        net = read_prototxt(run.path / "net.prototxt", messages.NetParameter)
        change({layer.name: layer for layer in net.layer}, net)
        return net_differences(layers, net)

    assert differences(lambda at, net: None) == []
    assert differences(lambda at, net: setattr(at["data"].data_param, "batch_size", 99)) == []
    assert differences(lambda at, net: at["fc"].param.add(lr_mult=0)) == []
    changed = differences(lambda at, net: setattr(at["fc"].inner_product_param, "num_output", 3))
    assert changed == ["layer fc has changed"]
    assert differences(lambda at, net: setattr(at["fc"], "name", "ip")) == [
        "layer fc is not in this net",
        "layer ip is new",
    ]


def test_the_real_net_is_the_same_as_its_snapshot(run):
    """Layers that Caffe adds (Split), fills in and leaves out do not count as changes."""
    net = read_prototxt(run.path / "net.prototxt", messages.NetParameter)
    for pair in pairs(run.snapshots):
        assert problem(pair, net) == ""


def test_resume_refuses_a_changed_net(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    net = read_prototxt(copy / "net.prototxt", messages.NetParameter)
    for layer in net.layer:
        if layer.name == "fc":
            layer.inner_product_param.num_output = 5
    write_prototxt(copy / "net.prototxt", net)
    done = irv2caffe("--resume", copy, "--epochs", 200, cwd=tmp_path)
    assert done.returncode == 1
    assert "belongs to another net: layer fc has changed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_resume_says_what_changed(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    done = irv2caffe("--resume", copy, cwd=tmp_path)
    assert done.returncode == 2
    assert "is finished" in done.stderr
    more = ("--epochs", 150, "--base-lr", 0.02, "--batch-size", 4)
    done = irv2caffe("--resume", copy, *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in ("base_lr 0.01 -> 0.02", "batch_size 8 -> 4", "max_iter 1000 -> 2400"):
        assert f"changed since the last start: {line}" in done.stderr
    assert "resuming from iteration 1,000" in done.stderr


def pair(iteration):
    from pathlib import Path

    return Pair(iteration, Path(f"a_iter_{iteration}.solverstate"), Path("x"))


@pytest.mark.parametrize(
    ("keep", "stay"),
    [
        (KeepPolicy(1), [100]),
        (KeepPolicy(3), [80, 90, 100]),
        (KeepPolicy(2, every=40), [40, 80, 90, 100]),
        (KeepPolicy(1, every=33.4), [40, 70, 100]),  # the first at or after 33.4, 66.8 and 100.2
        (KeepPolicy(1, scheduled=50), [50, 100]),
    ],
)
def test_which_snapshots_stay(keep, stay):
    there = [pair(iteration) for iteration in range(10, 101, 10)]
    gone = {one.iteration for one in keep.superfluous(there)}
    assert [one.iteration for one in there if one.iteration not in gone] == stay


@pytest.mark.slow
def test_pruning_in_a_real_run(caffe, run, tmp_path):
    """Every tenth epoch and the newest two are kept, both files of each."""
    solver = write_job(run.path.parent, tmp_path / "job", max_iter=400, snapshot=16)
    args = ("--solver", solver, "--run-dir", "run", "--keep-snapshots", 2)
    done = irv2caffe(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    stay = [one.iteration for one in pairs(tmp_path / "run/snapshots")]
    # 8 iterations are an epoch: of every 80 the first one at or after the mark
    assert stay == [400, 384, 320, 240, 160, 80]
    assert len(list((tmp_path / "run/snapshots").iterdir())) == 12


@pytest.mark.slow
def test_timed_snapshots_are_pruned_and_the_schedule_stays(caffe, run, tmp_path):
    """Without --keep-snapshots all snapshots of the solver's schedule are kept."""
    solver = write_job(run.path.parent, tmp_path / "job", max_iter=60_000, snapshot=15_000)
    args = ("--solver", solver, "--run-dir", "run", "--snapshot-minutes", 0.004, "--keep-epochs", 0)
    done = irv2caffe(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    stay = {one.iteration for one in pairs(tmp_path / "run/snapshots")}
    assert {15_000, 30_000, 45_000, 60_000} <= stay
    assert len(stay) <= 7
    said = (tmp_path / "run/train.log").read_text().count("Snapshotting solver state")
    assert said > 4  # Caffe was asked for more than its schedule has


def test_rejected_snapshots_are_never_resumed_from(folder):
    gone = set_aside(folder, 400)
    assert len(gone) == 3
    assert [one.iteration for one in pairs(folder)] == [400, 200]
    assert len(list(folder.glob("*_iter_*"))) == 10  # set aside, not deleted


@pytest.mark.slow
def test_caffe_itself_loads_what_is_called_whole(run, caffe, folder, pycaffe):
    """pycaffe loads the model, and has as many weights as were counted."""
    import json
    import subprocess

    from irv2caffe.caffe.command import tool_command

    one = pairs(folder)[0]
    code = (
        "import caffe, json, sys\n"
        "net = caffe.Net(sys.argv[1], sys.argv[2], caffe.TEST)\n"
        "print(json.dumps({n: [list(b.data.shape) for b in p] for n, p in net.params.items()}))"
    )
    command = tool_command(
        caffe, "python", ["-c", code, str(run.path / "net.prototxt"), str(one.model)]
    )
    done = subprocess.run(command.argv, env=command.env, capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    ours = {
        layer.definition.name: [list(shape) for shape in layer.shapes]
        for layer in read_model_header(one.model).layers
        if layer.shapes
    }
    assert ours == theirs
    assert np.prod(theirs["fc"][0]) > 0


def test_averaged_weights_are_set_aside_with_their_snapshot(tmp_path):
    kinds = (".caffemodel", ".solverstate", ".ema.caffemodel")
    for iteration in (100, 200):
        for kind in kinds:
            (tmp_path / f"net_iter_{iteration}{kind}").touch()
    assert set_aside(tmp_path, 150) == [tmp_path / "net_iter_200.caffemodel"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"net_iter_100{kind}" for kind in kinds} | {
        f"net_iter_200{kind}.diverged" for kind in kinds
    }
