"""Run folders and working folders from somebody else: no program that they name is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from helpers.training_jobs import config, irv2caffe, write_job

from irv2caffe.train.run.config_json import git_revision


def change(run, **values):
    run.config.write_text(json.dumps({**config(run.path), **values}))


def make_trap(program, tmp_path):
    """A program that leaves a trace and claims to be Caffe."""
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\ntouch '{tmp_path}/TRACE'\necho caffe version 1.0.0\n")
    program.chmod(0o755)
    return program


@pytest.mark.slow
@pytest.mark.parametrize("root_name", ["{run}", "run", "run/tools/../", "{run}/tools/caffe"])
@pytest.mark.parametrize("reason", ["--caffe there", "CAFFE_ROOT=there"])
def test_the_program_that_a_run_folder_names_is_not_run(run, tmp_path, root_name, reason):
    trap = make_trap(run.path / "tools/caffe", tmp_path)
    named = root_name.format(run=run.path)
    change(run, caffe={"root": named, "image": "", "reason": reason})
    done = irv2caffe("--resume", "run", "--epochs", 100, cwd=tmp_path, CAFFE_ROOT="")
    assert done.returncode == 1
    assert f"was trained by the Caffe in {named}" in done.stderr
    assert f"give --caffe {named} to use it again, if you trust it" in done.stderr
    assert not (tmp_path / "TRACE").exists()
    done = irv2caffe("--resume", "run", "--epochs", 100, "--caffe", trap, cwd=tmp_path)
    assert (tmp_path / "TRACE").exists()  # said by the user himself


def test_the_image_that_a_run_folder_names_is_not_run(run, tmp_path):
    make_trap(tmp_path / "bin/docker", tmp_path)
    path = f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"
    change(run, caffe={"root": "/", "image": "evil/caffe", "reason": "--docker evil/caffe"})
    done = irv2caffe("--resume", "run", "--epochs", 100, cwd=tmp_path, PATH=path)
    assert done.returncode == 1
    assert "give --docker evil/caffe to use it again" in done.stderr
    assert not (tmp_path / "TRACE").exists()


@pytest.mark.slow
def test_a_caffe_that_would_be_found_anyway_needs_no_name(caffe, run, tmp_path):
    """The Caffe was named at the start, and is also the one that is found without a name."""
    (tmp_path / "link").symlink_to(caffe.root)
    change(run, caffe={"root": f"{tmp_path}/link", "image": "", "reason": "--caffe link"})
    done = irv2caffe("--resume", "run", "--epochs", 100, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert config(run.path)["caffe"]["root"] == str(caffe.root)


@pytest.mark.slow
@pytest.mark.parametrize("values", [
    {"caffe": []}, {"caffe": {"root": 5, "reason": 7, "image": None}}, {"options": "x"},
    {"plan": [1]}, {"plan": {"caffe": 1, "config": [2]}}, {"starts": {"a": 1}}, {"starts": [1, 2]},
    {"weights": {"a": 1}}, {"ending": {"x": []}}, {"why": 5},
])  # fmt: skip
def test_a_config_of_other_kinds_of_values(run, tmp_path, values):
    change(run, **values)
    for args in (("--status", "run"), ("--resume", "run", "--epochs", 100)):
        done = irv2caffe(*args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "value", "option"), [
    ("max_restarts", "many", "--max-restarts"), ("keep_newest", -3, "--keep-snapshots"),
    ("stall_s", [], "--stall-minutes"), ("on_divergence", "explode", "--on-divergence"),
])  # fmt: skip
def test_options_that_nobody_can_have_told(run, tmp_path, name, value, option):
    change(run, options={name: value})
    done = irv2caffe("--resume", "run", "--epochs", 100, cwd=tmp_path)
    assert done.returncode == 1
    assert f"{name} cannot be" in done.stderr
    assert f"{option} gives another value" in done.stderr


@pytest.mark.slow
def test_weights_that_are_gone_are_not_left_out(run, tmp_path):
    """A run without a snapshot starts anew from the same model, or not at all."""
    for path in run.snapshots.iterdir():
        path.unlink()
    run.state.unlink()
    change(run, weights=[str(tmp_path / "gone.caffemodel")])
    done = irv2caffe("--resume", "run", "--epochs", 100, cwd=tmp_path)
    assert done.returncode == 1
    assert "gone.caffemodel, which is missing" in done.stderr


def git(*args, cwd):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
    done = subprocess.run(
        ["git", *identity, *args], cwd=cwd, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("no git here")
    folder = tmp_path / "work"
    folder.mkdir()
    git("init", "-q", cwd=folder)
    (folder / "file").write_text("1")
    git("add", "file", cwd=folder)
    git("commit", "-q", "-m", "one", cwd=folder)
    return folder


def test_the_revision_is_the_one_that_git_names(repository, tmp_path):
    revision = git("rev-parse", "HEAD", cwd=repository)
    (repository / "deep/er").mkdir(parents=True)
    assert git_revision(repository) == git_revision(repository / "deep/er") == revision
    git("worktree", "add", "-q", "-b", "some/branch", tmp_path / "tree", cwd=repository)
    assert git_revision(tmp_path / "tree") == revision
    git("submodule", "add", "-q", repository, "sub", cwd=repository)
    assert git_revision(repository / "sub") == revision
    git("commit", "-q", "-m", "two", cwd=repository)
    git("pack-refs", "--all", cwd=repository)
    assert git_revision(repository) == git("rev-parse", "HEAD", cwd=repository) != revision
    git("checkout", "-q", "--detach", revision, cwd=repository)
    assert git_revision(repository) == revision
    git("checkout", "-q", "--orphan", "empty", cwd=repository)
    assert git_revision(repository) is None
    assert git_revision(tmp_path) is None


def test_a_head_that_leads_out_of_the_repository(repository, tmp_path):
    (tmp_path / "secret").write_text("a" * 40)
    for head in ("ref: ../../secret", "ref: refs/../../../secret", "x" * 40, ""):
        (repository / ".git/HEAD").write_text(head)
        assert git_revision(repository) is None
    (repository / ".git/HEAD").unlink()
    os.mkfifo(repository / ".git/HEAD")
    assert git_revision(repository) is None


@pytest.mark.slow
def test_no_program_of_the_working_folders_repository_is_run(caffe, root, repository, tmp_path):
    """Monitors, hooks and filters: git status runs them, and a plan needs none of it."""
    trap = make_trap(repository / ".git/trap", tmp_path)
    for name in ("core.fsmonitor", "filter.x.clean", "filter.x.smudge", "diff.external",
                 "core.sshCommand", "alias.status"):  # fmt: skip
        git("config", name, f"!{trap}" if name == "alias.status" else trap, cwd=repository)
    (repository / ".gitattributes").write_text("* filter=x\n")
    (repository / "file").write_text("2")
    for name in ("post-index-change", "pre-auto-gc"):
        shutil.copy(trap, repository / ".git/hooks" / name)
    git("status", cwd=repository)
    assert (tmp_path / "TRACE").exists()  # git itself does run them
    (tmp_path / "TRACE").unlink()
    solver = write_job(root, tmp_path / "job", max_iter=20)
    done = irv2caffe("--solver", solver, "--run-dir", "run", cwd=repository)
    assert done.returncode == 0, done.stderr
    assert irv2caffe("--solver", solver, "--dry-run", cwd=repository).returncode == 0
    assert not (tmp_path / "TRACE").exists()
    assert len(config(repository / "run")["git"]["revision"]) == 40
