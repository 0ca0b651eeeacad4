"""The wheel, outside of the checkout and without development packages; the file tree in docs."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest
from helpers.paths import ROOT

CODE = """
import json, sys
from pathlib import Path
from irv2caffe.config import NetOptions, SolverOptions, load_recipe, recipe_names, templates_dir
import irv2caffe.plot.session, irv2caffe.plot.figure, irv2caffe.plot.report
import irv2caffe, irv2caffe.train.run.launch, irv2caffe.data.build.make_lmdb, irv2caffe.net.build
out = Path(sys.argv[1])
irv2caffe.net.build.build_net(out, NetOptions(), SolverOptions(), num_train=100, num_val=10)
print(json.dumps([irv2caffe.__file__, recipe_names(), str(templates_dir())]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as a release would build it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_what_the_program_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "irv2caffe/templates/paper.toml" in names
    assert "irv2caffe/templates/paper/train_val.prototxt" in names
    assert not [name for name in names if name.startswith(("tests/", "scripts/", "examples/"))]
    files = [path.relative_to(ROOT) for path in (ROOT / "irv2caffe").rglob("*") if path.is_file()]
    assert {str(path) for path in files if path.suffix != ".pyc"} <= names


@pytest.mark.slow
def test_wheel_works_outside_of_the_checkout(wheel, tmp_path):
    """Only what the wheel asks for is reachable, not the development packages beside it."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = str(venv / "bin/python")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    command = [*pip, "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    if done.returncode != 0 and "No matching distribution" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [python, "-c", CODE, "net"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert str(venv) in done.stdout
    assert "paper-sgd" in done.stdout
    assert (tmp_path / "net/solver.prototxt").is_file()
    for start in ([str(venv / "bin/irv2caffe")], [python, "-m", "irv2caffe"]):
        helped = subprocess.run([*start, "--help"], capture_output=True, text=True, check=True)
        assert "build-net" in helped.stdout
    listed = subprocess.run([*pip, "list"], capture_output=True, text=True, check=True).stdout
    assert "pytest" not in listed
    assert "grpcio" not in listed


def test_the_file_tree_is_the_real_one():
    done = subprocess.run(
        [sys.executable, "scripts/file_tree.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
