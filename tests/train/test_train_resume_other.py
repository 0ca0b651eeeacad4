"""Resuming trainings that another program started; their files are not changed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.training_jobs import config, contents, irv2caffe, metrics, write_job

from irv2caffe.caffe.command import tool_command
from irv2caffe.log.read.reader import read_log
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_binary, write_binary
from irv2caffe.proto.text import read_prototxt

pytestmark = pytest.mark.slow


def train_plainly(caffe, root, folder, *, cwd=None, prefix="tiny", **changes):
    """A training by Caffe itself up to iteration 400, whose solver ends at 600."""
    solver = write_job(
        root, folder, net='"net.prototxt"', snapshot_prefix=f'"{prefix}"', max_iter=400, **changes
    )
    for path in (solver, folder / "net.prototxt"):
        path.write_text("# my notes\n" + path.read_text())
    cwd = cwd or folder
    if cwd != folder:
        solver.write_text(
            solver.read_text().replace('"net.pro', f'"{folder.relative_to(cwd)}/net.pro')
        )
    command = tool_command(caffe, "caffe", ["train", "-solver", str(solver)])
    done = subprocess.run(command.argv, env=command.env, cwd=cwd, capture_output=True, check=True)
    (folder / "caffe_output.log").write_bytes(done.stderr)
    solver.write_text(solver.read_text().replace("max_iter: 400", "max_iter: 600"))
    return folder


@pytest.fixture(scope="module")
def plain(caffe, root):
    """Solver, net, log and snapshots of 200 and 400 in one folder, as DIGITS leaves them."""
    return train_plainly(caffe, root, root / "plain")


@pytest.fixture
def job(plain, tmp_path):
    """A copy of it."""
    shutil.copytree(plain, tmp_path / "job")
    return tmp_path / "job"


def only_run(folder):
    (run,) = [path for path in (folder / "runs").iterdir() if not path.is_symlink()]
    return run


def check_goes_on(run, first, last=600):
    """A run folder whose every figure begins at an iteration."""
    points = [point.iteration for point in read_log(run).train]
    assert (points[0], points[-1]) == (first, last)
    assert metrics(run)[0]["iteration"] == first
    assert config(run)["starts"][0]["from_iteration"] == first
    assert config(run)["ending"] == "finished"
    assert (run / f"snapshots/tiny_iter_{last}.caffemodel").is_file()


def test_a_folder_goes_on_in_a_run_folder_of_its_own(job, tmp_path):
    before = contents(job)
    done = irv2caffe("--resume", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "continues from iteration 400: job/tiny_iter_400.solverstate" in done.stderr
    assert contents(job) == before
    run = only_run(tmp_path)
    check_goes_on(run, 400)
    assert config(run)["snapshot"] == str(job / "tiny_iter_400.solverstate")
    # The loss of the first iteration is that of the weights that were taken, not of new ones.
    learned = read_binary(run / "snapshots/tiny_iter_400.caffemodel", messages.NetParameter)
    assert learned == read_binary(job / "tiny_iter_400.caffemodel", messages.NetParameter)
    again = irv2caffe("--resume", run, "--epochs", 100, cwd=tmp_path)  # 800 iterations
    assert again.returncode == 0, again.stderr
    check_goes_on(run, 400, 800)
    assert contents(job) == before


def test_from_within_the_folder_and_with_a_name(job):
    before = contents(job)
    done = irv2caffe("--resume", ".", "--run-dir", "on", cwd=job)
    assert done.returncode == 0, done.stderr
    check_goes_on(job / "on", 400)
    assert {path: data for path, data in contents(job).items() if path in before} == before
    refused = irv2caffe("--resume", ".", "--run-dir", "on", cwd=job)
    assert refused.returncode == 1
    assert "on already holds a run" in refused.stderr


def test_the_plan_says_what_and_where(job, tmp_path):
    done = irv2caffe("--resume", "job", "--run-dir", "on", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert ["continues", "from", "iteration 400: job/tiny_iter_400.solverstate"] in shown
    assert ["run", "folder", "on"] in shown
    assert not (tmp_path / "on").exists()
    values = json.loads(irv2caffe("--resume", "job", "--dry-run", "--json", cwd=tmp_path).stdout)
    assert values["from_iteration"] == 400
    assert values["snapshot"] == "job/tiny_iter_400.solverstate"


def test_a_named_snapshot(job, tmp_path):
    """Also a renamed one, whose iteration is in the file."""
    done = irv2caffe("--resume", "job/tiny_iter_200.solverstate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_goes_on(only_run(tmp_path), 200)
    for kind in ("solverstate", "caffemodel"):
        (job / f"tiny_iter_200.{kind}").rename(job / f"best.{kind}")
    done = irv2caffe("--resume", "job/best.solverstate", "--run-dir", "on", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_goes_on(tmp_path / "on", 200)


def test_snapshots_elsewhere_than_the_solver(caffe, root):
    """snapshot_prefix has folders, relative to the folder that Caffe was started in."""
    base = root / "base"
    (base / "snapshots").mkdir(parents=True)
    job = train_plainly(caffe, root, base / "models/net", cwd=base, prefix="snapshots/tiny")
    before = contents(base)
    named = "snapshots/tiny_iter_400.solverstate"
    for number, args in enumerate([("models/net",), (named, "--solver", job / "solver.prototxt")]):
        done = irv2caffe("--resume", *args, "--run-dir", root / f"on{number}", cwd=base)
        assert done.returncode == 0, done.stderr
        check_goes_on(root / f"on{number}", 400)
    within = irv2caffe("--resume", ".", cwd=job)
    assert "run it from the folder its paths start from" in within.stderr
    assert contents(base) == before
    alone = irv2caffe("--resume", "snapshots/tiny_iter_400.solverstate", cwd=base)
    assert alone.returncode == 1
    assert "no solver beside" in alone.stderr
    assert "name it with --solver:" in alone.stderr


def test_hdf5_snapshots(caffe, root, tmp_path):
    job = train_plainly(caffe, root, tmp_path / "job", snapshot_format="HDF5")
    assert (job / "tiny_iter_400.solverstate.h5").is_file()
    before = contents(job)
    done = irv2caffe("--resume", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert contents(job) == before
    run = only_run(tmp_path)
    check_goes_on(run, 400)
    # The real Caffe tests at 400, before its first iteration: as at the end of the first training.
    end = read_log(job / "caffe_output.log").train[-1].iteration
    assert end == 400
    state = read_binary(run / "snapshots/tiny_iter_400.solverstate", messages.SolverState)
    assert (state.iter, len(state.history)) == (400, 4)
    named = irv2caffe(
        "--resume", "job/tiny_iter_200.solverstate.h5", "--run-dir", "on", cwd=tmp_path
    )
    assert named.returncode == 0, named.stderr
    check_goes_on(tmp_path / "on", 200)


def test_a_model_that_is_gone(job, tmp_path):
    """A folder is resumed from a complete pair; a named solver state needs its own model."""
    (job / "tiny_iter_400.caffemodel").rename(tmp_path / "kept.caffemodel")
    done = irv2caffe("--resume", "job/tiny_iter_400.solverstate", "--run-dir", "on", cwd=tmp_path)
    assert done.returncode == 1
    assert "its model tiny_iter_400.caffemodel is missing" in done.stderr
    assert "--weights FILE.caffemodel" in done.stderr
    args = ("--resume", "job/tiny_iter_400.solverstate", "--weights", "kept.caffemodel")
    done = irv2caffe(*args, "--run-dir", "on", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_goes_on(tmp_path / "on", 400)
    older = irv2caffe("--resume", "job", cwd=tmp_path)
    assert older.returncode == 0, older.stderr
    assert "skipped snapshot: job/tiny_iter_400.solverstate: its model" in older.stderr
    check_goes_on(only_run(tmp_path), 200)


def test_a_torn_snapshot_is_passed_over(job, tmp_path):
    model = job / "tiny_iter_400.caffemodel"
    model.write_bytes(model.read_bytes()[:-10])
    done = irv2caffe("--resume", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"skipped snapshot: job/{model.name}" in done.stderr
    check_goes_on(only_run(tmp_path), 200)
    named = irv2caffe("--resume", "job/tiny_iter_400.solverstate", "--run-dir", "x", cwd=tmp_path)
    assert named.returncode == 1
    assert model.name in named.stderr


def test_what_is_not_clear_is_refused_with_the_option_that_decides(job, tmp_path):
    second = job / "solver_lr2.prototxt"
    second.write_text((job / "solver.prototxt").read_text().replace("0.01", "0.001"))
    for named in ("job", "job/tiny_iter_400.solverstate"):
        done = irv2caffe("--resume", named, cwd=tmp_path)
        assert done.returncode == 2
        assert "job/solver.prototxt, job/solver_lr2.prototxt" in done.stderr
        assert f"--resume {named} --solver job/solver.prototxt" in done.stderr
    chosen = irv2caffe("--resume", "job", "--solver", second, cwd=tmp_path)
    assert chosen.returncode == 0, chosen.stderr
    assert read_prototxt(
        only_run(tmp_path) / "solver.prototxt", messages.SolverParameter
    ).base_lr == pytest.approx(0.001)
    # A chain of solvers whose snapshots have other names is clear.
    second.write_text(second.read_text().replace('"tiny"', '"second"'))
    clear = irv2caffe("--resume", "job", "--dry-run", cwd=tmp_path)
    assert clear.returncode == 0, clear.stderr


def test_snapshots_of_another_name(job, tmp_path):
    solver = job / "solver.prototxt"
    solver.write_text(solver.read_text().replace('"tiny"', '"renamed"'))
    done = irv2caffe("--resume", "job", cwd=tmp_path)
    assert done.returncode == 2
    assert "do not match snapshot_prefix 'renamed'" in done.stderr
    command = done.stderr.partition("name one solver state: ")[2].split()
    done = irv2caffe(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_log(only_run(tmp_path)).train[0].iteration == 400


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--resume", "nothing"), 1, "no such file or folder"),
        (("--resume", "empty"), 1, "holds neither a run nor a solver"),
        (("--resume", "job/tiny_iter_400.caffemodel"), 2, "--resume job/tiny_iter_400.solverstate"),
        (("--resume", "job/solver.prototxt"), 1, "give a solver with --solver FILE"),
        (("--resume", "job/caffe_output.log"), 1, "not a solver state"),
        (("--resume", "job", "--recipe", "paper"), 2, "--solver FILE with --resume"),
        (("--resume", "job", "--weights", "x"), 2, "the snapshot of this model is not known"),
        (("--resume", "job", "--smoke"), 2, "--smoke"),
        (("--solver", "job/solver.prototxt", "--weights", "job/tiny_iter_400.solverstate"), 1,
         "--resume job/tiny_iter_400.solverstate"),
    ],
)  # fmt: skip
def test_hints_name_the_way(job, tmp_path, args, code, words):
    (tmp_path / "empty").mkdir()
    before = contents(tmp_path)
    done = irv2caffe(*args, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert contents(tmp_path) == before


def test_nothing_left_to_do_and_another_net(job, tmp_path):
    solver = job / "solver.prototxt"
    solver.write_text(solver.read_text().replace("max_iter: 600", "max_iter: 400"))
    done = irv2caffe("--resume", "job", cwd=tmp_path)
    assert done.returncode == 2
    assert "nothing is left to do" in done.stderr
    longer = irv2caffe("--resume", "job", "--epochs", 75, cwd=tmp_path)
    assert longer.returncode == 0, longer.stderr
    check_goes_on(only_run(tmp_path), 400)
    net = job / "net.prototxt"
    net.write_text(net.read_text().replace("num_output: 4", "num_output: 5"))
    other = irv2caffe("--resume", "job", "--epochs", 75, "--run-dir", "x", cwd=tmp_path)
    assert other.returncode == 1
    assert "belongs to another net: layer conv has changed" in other.stderr
    assert not (tmp_path / "x").exists()


def test_a_snapshot_of_a_run_folder(caffe, root, tmp_path):
    """The newest snapshot resumes the run itself; an older one starts a new run."""
    solver = write_job(root, tmp_path / "job", max_iter=600)
    assert irv2caffe("--solver", solver, "--run-dir", "run", cwd=tmp_path).returncode == 0
    before = contents(tmp_path / "run")
    done = irv2caffe("--resume", "run/snapshots/tiny_iter_400.solverstate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_goes_on(only_run(tmp_path), 400)
    args = ("--solver", solver, "--run-dir", "r2", "--base-lr", 0.002)
    done = irv2caffe(*args, "--resume", "run/snapshots/tiny_iter_200.solverstate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_goes_on(tmp_path / "r2", 200)
    done = irv2caffe("--resume", "run", "--run-dir", "r3", "--epochs", 100, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_goes_on(tmp_path / "r3", 600, 800)
    assert contents(tmp_path / "run") == before
    newest = "run/snapshots/tiny_iter_600.solverstate"
    finished = irv2caffe("--resume", newest, cwd=tmp_path)
    assert finished.returncode == 2
    assert "run is finished" in finished.stderr
    done = irv2caffe("--resume", newest, "--epochs", 100, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/snapshots/tiny_iter_800.solverstate").is_file()
    refused = irv2caffe("--resume", "run", "--solver", solver, cwd=tmp_path)
    assert refused.returncode == 2
    assert "--run-dir NEW" in refused.stderr


def test_a_state_with_a_model_of_another_iteration_is_refused(job, tmp_path):
    """A torn model under the expected name."""
    state = read_binary(job / "tiny_iter_200.solverstate", messages.SolverState)
    del state.history[:1]
    write_binary(job / "tiny_iter_200.solverstate", state)
    done = irv2caffe("--resume", Path("job/tiny_iter_200.solverstate"), cwd=tmp_path)
    assert done.returncode == 1
    assert "torn" in done.stderr


def as_of_2014(model, path):
    """A model with old layers, as in the model zoo."""
    old = messages.NetParameter(name=model.name)
    for layer in model.layer:
        kept = old.layers.add()
        kept.name = layer.name
        kept.bottom.extend(layer.bottom)
        kept.top.extend(layer.top)
        kept.type = {"Convolution": 4, "InnerProduct": 14, "SoftmaxWithLoss": 21, "Data": 5}.get(
            layer.type, 22
        )
        for blob in layer.blobs:
            shape = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
            fields = dict(zip(("num", "channels", "height", "width"), shape, strict=True))
            kept.blobs.add(data=blob.data, **fields)
    write_binary(path, old)


def test_snapshots_of_a_caffe_of_2014(job, root, tmp_path):
    """Its models have layers of another kind, which Caffe 1.0 upgrades when it reads them."""
    model = read_binary(job / "tiny_iter_400.caffemodel", messages.NetParameter)
    as_of_2014(model, job / "tiny_iter_400.caffemodel")
    done = irv2caffe("--resume", "job/tiny_iter_400.solverstate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    check_goes_on(run, 400)
    assert read_log(run).train[0].loss < 0.2  # of weights that have learned
    shutil.copy(job / "tiny_iter_400.caffemodel", tmp_path / "zoo.caffemodel")
    solver = write_job(root, tmp_path / "new", max_iter=20)
    tuned = irv2caffe(
        "--solver", solver, "--weights", "zoo.caffemodel", "--run-dir", "t", cwd=tmp_path
    )
    assert tuned.returncode == 0, tuned.stderr
    assert "weights of 2 layers come from zoo.caffemodel" in tuned.stderr
    assert read_log(tmp_path / "t").train[0].loss < 0.2
