"""What tests share: the real Caffe, where it is installed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile

import numpy as np
import pytest

# A shell without job control has programs in the background ignore SIGINT, and theirs inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

SERVER = """
import caffe, json, sys
for line in sys.stdin:
    path, phase = json.loads(line)
    net = caffe.Net(path, getattr(caffe, phase))
    print(json.dumps({
        'blobs': {n: list(b.data.shape) for n, b in net.blobs.items()},
        'params': {n: [list(b.data.shape) for b in p] for n, p in net.params.items()},
        'types': {n: l.type for n, l in net.layer_dict.items()},
        'tops': {n: list(t) for n, t in net.top_names.items()},
        'inputs': net.inputs,
    }), flush=True)
    del net
"""


class PyCaffe:
    """A process of the installed runtime's pycaffe that loads nets one after the other."""

    def __init__(self, caffe) -> None:
        self._caffe = caffe
        self._start()

    def _start(self):
        from irv2caffe.caffe.command import tool_command

        command = tool_command(self._caffe, "python", ["-c", SERVER])
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        self._child = subprocess.Popen(
            command.argv,
            env={**command.env, "GLOG_minloglevel": "2"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
        )

    def load(self, path, phase="TEST"):
        """Shapes of the net's blobs and parameters; fails with Caffe's words where it aborts."""
        self._child.stdin.write(json.dumps([str(path), phase]) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            self._words.seek(0)
            words = self._words.read()[-2000:].decode("utf-8", "replace")
            self._start()
            pytest.fail(f"Caffe refused {path}: {words}")
        return json.loads(line)

    def close(self):
        self._child.stdin.close()
        self._child.wait(30)


@pytest.fixture(scope="session")
def caffe():
    """The Caffe that ``irv2caffe caffe`` would run; skips, with the reason, where there is none."""
    from irv2caffe.caffe.find import find_caffe
    from irv2caffe.errors import CaffeNotFoundError

    try:
        return find_caffe()
    except CaffeNotFoundError as error:
        pytest.skip(f"no Caffe here: {error.message}")


@pytest.fixture(scope="session")
def caffe_engine(caffe):
    """The same as what trains."""
    from irv2caffe.train.engines.engine import CaffeEngine

    return CaffeEngine(caffe)


@pytest.fixture(scope="session")
def pycaffe(caffe):
    """Loads nets in the real Caffe."""
    server = PyCaffe(caffe)
    yield server
    server.close()


@pytest.fixture(scope="session")
def caffe_nets(caffe):
    """Runs nets forward and backward in the real Caffe, all in one process."""
    from helpers.caffe_nets import CaffeNets

    nets = CaffeNets(caffe)
    yield nets
    nets.close()


@pytest.fixture(scope="session")
def noise_lmdb(tmp_path_factory):
    """A database of 8 colour images of 400x400, labels 0 and 1."""
    from irv2caffe.data.lmdb_store import DatabaseWriter
    from irv2caffe.data.records.datum import raw_head, raw_tail, record_key

    folder = tmp_path_factory.mktemp("noise") / "lmdb"
    folder.mkdir()
    rng = np.random.default_rng(0)
    with DatabaseWriter(folder) as writer:
        for index in range(8):
            planes = rng.integers(0, 256, (3, 400, 400), np.uint8)
            record = raw_head(planes.shape) + planes.tobytes() + raw_tail(index % 2)
            writer.put(record_key(index, f"{index}.png"), record)
    return folder


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """A folder with a program ``caffe`` that is none."""
    from helpers.training_jobs import make_stand_in

    return make_stand_in(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture(autouse=True)
def _no_trainer_left():
    """A test that fails leaves no training behind that has no end."""
    yield
    from helpers.training_jobs import end_started

    end_started()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the databases that training_jobs' solvers train with."""
    from helpers.training_jobs import make_databases

    folder = tmp_path_factory.mktemp("root")
    make_databases(folder)
    return folder


@pytest.fixture(scope="session")
def finished(caffe, tmp_path_factory):
    """The folder of a run of the real Caffe, with snapshots of 200, 400 and 600."""
    from helpers.training_jobs import irv2caffe, make_databases, write_job

    folder = tmp_path_factory.mktemp("finished")
    make_databases(folder)
    solver = write_job(folder, folder / "job", max_iter=600)
    done = irv2caffe("--solver", solver, "--run-dir", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, to be changed."""
    from irv2caffe.train.run_dir.run_dir import RunDir

    shutil.copytree(finished, tmp_path / "run")
    return RunDir(tmp_path / "run")


@pytest.fixture
def docker(tmp_path):
    """The environment in which ``docker`` is the stand-in."""
    from helpers.training_jobs import make_docker

    return make_docker(tmp_path / "docker")
