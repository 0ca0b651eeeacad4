"""The command evaluate, against the real Caffe."""

import json
import shutil

import pytest
from helpers.evaluation_jobs import (
    BATCH_STATISTICS,
    NUM_VAL,
    caffe_test,
    make_databases,
    write_net,
)
from helpers.program import run


@pytest.fixture(scope="module")
def root(caffe_nets, tmp_path_factory):
    """Databases, and in ``own`` and ``batch`` nets with stored and with batch statistics."""
    folder = tmp_path_factory.mktemp("evaluate")
    make_databases(folder)
    net = write_net(folder / "own", folder)
    weights = folder / "own/small_iter_7.caffemodel"
    caffe_nets.run(net.read_text(), "TRAIN", backward=False, passes=3, save=[weights])
    write_net(folder / "batch", folder, statistics=BATCH_STATISTICS)
    shutil.copy(weights, folder / "batch")
    return folder


def evaluate(*args, cwd=None):
    done = run("evaluate", *args, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def model(root, kind="own"):
    return root / kind / "small_iter_7.caffemodel"


def same_digits(found, real):
    """Whether all outputs are equal to the last printed digit."""
    ours = {name: f"{found['caffe_test'][name]:g}" for name in real}
    return ours == real and len(real) == 3


@pytest.mark.parametrize("kind", ["own", "batch"])
@pytest.mark.parametrize("batch", [15, 10])
def test_the_figures_are_those_of_caffe_test_to_the_digit(root, kind, batch):
    """45 images: three whole batches of 15, or five of 10, of which the last begins again."""
    net = root / kind / "train_val.prototxt"
    statistics = BATCH_STATISTICS if kind == "batch" else ""
    write_net(root / kind, root, batch=batch, statistics=statistics)
    real = caffe_test(net, model(root, kind), -(-NUM_VAL // batch))
    found = evaluate(model(root, kind))
    assert found["caffe_test"]["iterations"] == -(-NUM_VAL // batch)
    assert same_digits(found, real)
    assert found["batch_statistics"] == (kind == "batch")
    assert found["num_images"] == NUM_VAL
    if batch == 15:
        assert found["top1"] == pytest.approx(float(real["top-1"]), abs=1e-6)
        assert found["loss"] == pytest.approx(float(real["loss"]), abs=1e-5)
