"""Files that train writes, and files of others that it leaves alone."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from helpers.training_jobs import config, contents, irv2caffe, write_job

from irv2caffe.errors import OutputExistsError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array, read_array, read_binary, write_binary
from irv2caffe.proto.text import read_prototxt
from irv2caffe.train.run_dir.folders import link_latest, new_run_dir
from irv2caffe.train.run_dir.run_dir import RunDir

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["train.log", "lock", "metrics.jsonl", "state.json", ".state.json.partial",
             "config.json", "logs/start-002.log", "solver.prototxt", "net.prototxt",
             "control/stop"],
)  # fmt: skip
def test_no_file_is_written_through_a_link(run, tmp_path, name):
    """A run folder from somebody else can hold links to any file of the user."""
    victim, path = tmp_path / "victim", run.path / name
    path.parent.mkdir(exist_ok=True)
    victim.write_bytes(path.read_bytes() if path.exists() else b"alias ls='ls -l'\n")
    before = victim.read_bytes()
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
    done = irv2caffe("--resume", "run", "--epochs", 100, cwd=tmp_path)
    assert done.returncode in {0, 1}
    assert "Traceback" not in done.stderr
    assert victim.read_bytes() == before


@pytest.mark.parametrize("name", ["snapshots", "logs", "control"])
def test_no_folder_is_worked_in_through_a_link(run, tmp_path, name):
    folder, elsewhere = run.path / name, tmp_path / "elsewhere"
    if folder.exists():
        folder.rename(elsewhere)
    else:
        elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    before = contents(elsewhere)
    done = irv2caffe("--resume", "run", "--epochs", 100, "--keep-snapshots", 1, cwd=tmp_path)
    assert done.returncode == 1
    assert f"run/{name} is a link" in done.stderr
    assert contents(elsewhere) == before
    if name == "snapshots":  # what the hint says works
        new = ("--resume", "run/snapshots/tiny_iter_400.solverstate", "--run-dir", "new")
        done = irv2caffe(*new, "--solver", "run/solver.prototxt", "--epochs", 100, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert contents(elsewhere) == before


@pytest.mark.parametrize("name", ["config.json", "lock", "state.json", "solver.prototxt",
                                  "logs/start-001.log", "train.log"])  # fmt: skip
@pytest.mark.parametrize("kind", ["fifo", "zero", "huge"])
def test_only_regular_files_of_some_length_are_read(run, tmp_path, name, kind):
    """Nothing hangs or uses up memory: --status only reads, --resume reports the problem."""
    path = run.path / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif name.endswith(".log"):
        return  # a log may be long
    else:
        path.touch()
        os.truncate(path, 200 << 30)
    before = sorted(run.path.rglob("*"))
    for args in (("--status", "run"), ("--stop", "run"), ("--resume", "run")):
        done = irv2caffe(*args, cwd=tmp_path)
        assert "Traceback" not in done.stderr
        if args[0] != "--resume":
            assert sorted(run.path.rglob("*")) == before


def test_status_writes_nothing(root, tmp_path):
    """Also not into a folder of another program."""
    write_job(root, tmp_path / "job")
    before = contents(tmp_path)
    for option in ("--status", "--stop", "--snapshot-now"):
        done = irv2caffe(option, "job", cwd=tmp_path)
        assert done.returncode == 1
        assert "holds no run" in done.stderr
    assert contents(tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == [
        "net.prototxt", "solver.prototxt",
    ]  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"lock": ""}, {"config.json": '{"model_type": "resnet"}'}])
def test_a_folder_that_somebody_prepared_is_no_half_made_run(tmp_path, more):
    """Empty folders for snapshots and logs, and a net in it."""
    folder = tmp_path / "run"
    for name in ("snapshots", "logs"):
        (folder / name).mkdir(parents=True)
    for name, text in {"train_val.prototxt": "name: 'mine'", **more}.items():
        (folder / name).write_text(text)
    with pytest.raises(OutputExistsError, match="not empty"):
        new_run_dir(folder)


def test_a_run_that_was_killed_while_it_was_made_is_made_anew(finished, tmp_path):
    """Its config.json is of this program, and Caffe was never started."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "solver.prototxt").unlink()
    with pytest.raises(OutputExistsError):
        new_run_dir(folder)  # it was started: somebody took the solver away
    for path in (folder / "logs").iterdir():
        path.unlink()
    values = config(folder)
    values["starts"] = []
    (folder / "config.json").write_text(json.dumps(values))
    assert new_run_dir(folder).path == folder


def test_a_link_of_that_name_stays(finished, tmp_path):
    """``latest`` beside the run folder is changed only if it points to a run."""
    (tmp_path / "his").mkdir()
    (tmp_path / "latest").symlink_to("his")
    run = RunDir(tmp_path / "run")
    shutil.copytree(finished, run.path)
    link_latest(run)
    assert (tmp_path / "latest").readlink().name == "his"
    (tmp_path / "latest").unlink()
    link_latest(run)
    shutil.copytree(finished, tmp_path / "next")
    link_latest(RunDir(tmp_path / "next"))
    assert (tmp_path / "latest").readlink().name == "next"


def test_two_mean_images_of_one_name_stay_two(caffe, root, tmp_path):
    """Two mean images of one name in two folders, and one named as a file of the run folder."""
    solver = write_job(root, tmp_path / "job", max_iter=20)
    net = read_prototxt(tmp_path / "job/net.prototxt", messages.NetParameter)
    for place, (layer, name) in enumerate(
        zip(net.layer, ("mean.binary", "mean.binary"), strict=False)
    ):
        folder = tmp_path / str(place)
        folder.mkdir()
        layer.transform_param.mean_file = str(folder / name)
        write_binary(folder / name, blob_from_array(np.full((1, 3, 10, 10), 10.0 + place, "f4")))
    (tmp_path / "job/net.prototxt").write_text(str(net))
    done = irv2caffe("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    copied = read_prototxt(tmp_path / "run/net.prototxt", messages.NetParameter)
    means = [
        read_array(read_binary(tmp_path / layer.transform_param.mean_file, messages.BlobProto))
        for layer in copied.layer[:2]
    ]
    assert [mean.ravel()[0] for mean in means] == [10.0, 11.0]


def test_a_mean_image_of_a_run_that_was_moved(caffe, root, tmp_path):
    """The mean image is in the run folder, also after it was moved; a new run copies it."""
    solver = write_job(root, tmp_path / "job", max_iter=400)
    net = read_prototxt(tmp_path / "job/net.prototxt", messages.NetParameter)
    for layer in net.layer[:2]:
        layer.transform_param.mean_file = str(tmp_path / "mean.binary")
    write_binary(tmp_path / "mean.binary", blob_from_array(np.full((1, 3, 10, 10), 9.0, "f4")))
    (tmp_path / "job/net.prototxt").write_text(str(net))
    done = irv2caffe("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "mean.binary").unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    for args in (("moved/snapshots/tiny_iter_200.solverstate",), ("moved", "--epochs", 100)):
        done = irv2caffe("--resume", *args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    (new,) = [path for path in (tmp_path / "runs").iterdir() if not path.is_symlink()]
    for folder in (new, tmp_path / "moved"):
        copied = read_prototxt(folder / "net.prototxt", messages.NetParameter)
        assert copied.layer[0].transform_param.mean_file == str(folder / "mean.binary")


@pytest.mark.parametrize("name", ["lock", "train.log", "config.json"])
def test_files_named_as_the_run_folders_own(caffe, root, tmp_path, name):
    solver = write_job(root, tmp_path / "job", net=f'"{tmp_path}/job/{name}"', max_iter=20)
    (tmp_path / "job/net.prototxt").rename(tmp_path / f"job/{name}")
    done = irv2caffe("--solver", solver, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert config(tmp_path / "run")["ending"] == "finished"
    assert (tmp_path / f"run/net_{name}").is_file()


def test_a_layer_that_would_write_over_a_file(run, tmp_path):
    """HDF5Output overwrites its file, and a foreign net may name any file."""
    (tmp_path / "letter.txt").write_text("years of work")
    net = (run.path / "net.prototxt").read_text()
    layer = 'layer { name: "out" type: "HDF5Output" bottom: "fc" bottom: "label" '
    layer += (
        f'hdf5_output_param {{ file_name: "{tmp_path}/letter.txt" }} include {{ phase: TEST }} }}'
    )
    (run.path / "net.prototxt").write_text(net + layer)
    done = irv2caffe("--resume", "run", "--epochs", 100, cwd=tmp_path)
    assert done.returncode == 1
    assert f"layer out would overwrite {tmp_path}/letter.txt" in done.stderr
    assert (tmp_path / "letter.txt").read_text() == "years of work"
