"""Options of nets that start from weights: frozen stages, kept statistics, a new classifier.

One base net is trained in the real Caffe; then a net with another classifier starts from it, in
Caffe and in the torch engine.
"""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from irv2caffe.caffe.command import tool_command
from irv2caffe.config import VARIANTS, net_options
from irv2caffe.errors import UsageError
from irv2caffe.net.inception_resnet_v2 import deploy, train_val
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_array, read_binary
from irv2caffe.proto.text import write_prototxt
from irv2caffe.shapes.infer import infer
from irv2caffe.shapes.stages import stages

SMALL = {"variant": "small32", "width": 0.05, "batch_size": 4, "dropout": 0.0}
RATE = 0.01


def write_job(folder, database, **told):
    """A net and a solver of plain gradient descent: each step is lr_mult * RATE * gradient."""
    folder.mkdir(exist_ok=True)
    options = net_options(**SMALL, **told, train_lmdb=str(database), val_lmdb=str(database))
    write_prototxt(folder / "net.prototxt", train_val(options, 2))
    solver = messages.SolverParameter(
        net=str(folder / "net.prototxt"), test_iter=[1], test_interval=100, max_iter=1,
        test_initialization=False, base_lr=RATE, lr_policy="fixed", momentum=0.0, weight_decay=0.0,
        random_seed=1, snapshot_prefix=str(folder / "s"),
        solver_mode=messages.SolverParameter.CPU,
    )  # fmt: skip
    write_prototxt(folder / "solver.prototxt", solver)
    return folder / "solver.prototxt"


def train_in_caffe(caffe, solver, *weights):
    argv = ["train", "--solver", str(solver), *(f"--weights={path}" for path in weights)]
    command = tool_command(caffe, "caffe", argv)
    return subprocess.run(
        command.argv, env=command.env, capture_output=True, text=True, check=False
    )


def train_in_torch(solver, *weights):
    from irv2caffe.engine.command import main

    argv = ["train", "--solver", str(solver), *(f"--weights={path}" for path in weights)]
    assert main(argv) == 0


def blobs(path):
    """All blobs of a model by layer name, BatchNorm's statistics divided by their factor."""
    found = {}
    for layer in read_binary(path, messages.NetParameter).layer:
        if layer.blobs:
            values = [read_array(blob) for blob in layer.blobs]
            if layer.type == "BatchNorm" and values[2].item():
                values = [value / values[2].item() for value in values[:2]]
            found[layer.name] = values
    return found


@pytest.fixture(scope="module")
def base(caffe, noise_lmdb, tmp_path_factory):
    """Weights of two classes after one iteration, and the database."""
    folder = tmp_path_factory.mktemp("base")
    done = train_in_caffe(caffe, write_job(folder, noise_lmdb, num_classes=2))
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "s_iter_1.caffemodel"


def moved(before, after, names):
    """The layers whose blobs differ, of those that both models have."""
    return {
        name
        for name in names
        if any(not np.array_equal(a, b) for a, b in zip(before[name], after[name], strict=True))
    }


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["caffe", "torch"])
def test_frozen_stages_keep_weights_and_statistics(caffe, base, noise_lmdb, tmp_path, engine):
    solver = write_job(tmp_path, noise_lmdb, num_classes=2, classifier="pets", freeze="Mixed_6a")
    if engine == "caffe":
        done = train_in_caffe(caffe, solver, base)
        assert done.returncode == 0, done.stderr[-2000:]
        # Caffe goes back no further than needed: the frozen layers compute no gradient.
        assert "Conv2d_1a_4x4 does not need backward computation" in done.stderr
        assert "Mixed_6a/Branch_0/Conv2d_1a_3x3 does not need backward" in done.stderr
    else:
        train_in_torch(solver, base)
    before, after = blobs(base), blobs(tmp_path / "s_iter_1.caffemodel")
    assert "pets" in after
    assert "classifier" not in after
    changed = moved(before, after, before.keys() & after.keys())
    frozen = [name for name in before if name.startswith(("Conv2d_1", "Conv2d_2", "Mixed_5"))]
    frozen += [name for name in before if name.startswith(("Repeat/", "Mixed_6a"))]
    assert len(frozen) > 40
    assert not changed & set(frozen)
    assert changed == set(before) - set(frozen) - {"classifier"}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["caffe", "torch"])
def test_kept_statistics_stay_and_weights_learn(caffe, base, noise_lmdb, tmp_path, engine):
    solver = write_job(tmp_path, noise_lmdb, num_classes=2, bn_statistics="kept")
    if engine == "caffe":
        assert train_in_caffe(caffe, solver, base).returncode == 0
    else:
        train_in_torch(solver, base)
    before, after = blobs(base), blobs(tmp_path / "s_iter_1.caffemodel")
    norms = {name for name in before if name.endswith("_bn")}
    assert moved(before, after, before) == set(before) - norms


@pytest.mark.slow
def test_the_classifier_learns_faster_by_its_factor(caffe, base, noise_lmdb, tmp_path):
    """The same step from the same weights, once with and once without the factor."""
    steps = {}
    for rate in (1.0, 10.0):
        folder = tmp_path / str(rate)
        solver = write_job(folder, noise_lmdb, num_classes=2, classifier_lr=rate)
        assert train_in_caffe(caffe, solver, base).returncode == 0
        before, after = blobs(base), blobs(folder / "s_iter_1.caffemodel")
        steps[rate] = {
            name: [b - a for a, b in zip(before[name], after[name], strict=True)]
            for name in ("classifier", "Conv2d_7b_1x1")
        }
    for slow, fast in zip(steps[1.0]["classifier"], steps[10.0]["classifier"], strict=True):
        assert np.abs(slow).max() > 0
        assert np.allclose(10 * slow, fast, rtol=1e-3, atol=1e-6)
    for slow, same in zip(*(each["Conv2d_7b_1x1"] for each in steps.values()), strict=True):
        assert np.array_equal(slow, same)


@pytest.mark.slow
def test_other_classes_need_a_classifier_of_another_name(caffe, base, noise_lmdb, tmp_path):
    done = train_in_caffe(caffe, write_job(tmp_path, noise_lmdb, num_classes=5), base)
    assert done.returncode != 0
    assert "Cannot copy param 0 weights from layer 'classifier'" in done.stderr
    renamed = write_job(tmp_path, noise_lmdb, num_classes=5, classifier="pets")
    assert train_in_caffe(caffe, renamed, base).returncode == 0


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "seed"])
def test_stages_are_those_of_summary(variant):
    """Each stage before the classifier can be frozen, with all before it and nothing after it."""
    aux = variant != "small32"  # whose second grid cannot have an auxiliary classifier
    plain = net_options(variant=variant, aux=aux)
    shapes = infer(train_val(plain, 2), "TRAIN")
    frozen: set[str] = set()
    tried = 0
    for stage in stages(shapes):
        members = [shapes.layers[place] for block in stage.blocks for place in block.layers]
        if stage.name in {"data", "AuxLogits", "classifier", "loss"}:
            continue
        frozen |= {layer.name for layer in members if layer.params}
        options = net_options(variant=variant, aux=aux, freeze=stage.name)
        for layer in train_val(options, 2).layer:
            has_weights = layer.type in {"Convolution", "Scale", "InnerProduct"}
            if has_weights and len(layer.bottom) == 1:
                rates = {param.lr_mult for param in layer.param} or {1.0}
                assert (rates == {0.0}) == (layer.name in frozen), (stage.name, layer.name)
            elif layer.type == "BatchNorm":
                assert layer.batch_norm_param.use_global_stats == (layer.name in frozen)
        tried += 1
    assert tried >= 7


def test_a_block_of_a_stage_can_be_the_last_frozen():
    net = train_val(net_options(freeze="Repeat/block35_3"), 2)
    layers = {layer.name: layer for layer in net.layer}
    assert [p.lr_mult for p in layers["Repeat/block35_3/Conv2d_1x1"].param] == [0.0, 0.0]
    assert not layers["Repeat/block35_4/Conv2d_1x1"].param


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"freeze": "Mixed_5c"}, "did you mean Mixed_5b"),
        ({"freeze": "nothing like it"}, "stages: Conv2d_1a_3x3, Conv2d_2, MaxPool_3a_3x3"),
        ({"freeze": "classifier"}, "no such stage before its classifier"),
        ({"freeze": "data"}, "no such stage before its classifier"),
        ({"freeze": ""}, "no such stage before its classifier"),
        ({"classifier": "a/b"}, "--classifier"),
        ({"classifier": ""}, "--classifier"),
        ({"classifier": "pool"}, "two layers are called 'pool'"),
        ({"classifier": "Mixed_5b"}, "two layers are called 'Mixed_5b'"),
        ({"classifier_lr": 0.0}, "--classifier-lr"),
        ({"bn_statistics": "none"}, "--bn-statistics"),
        ({"channels": 2}, "--channels"),
        ({"channels": 1, "mean_value": (1.0, 2.0, 3.0)}, "one mean"),
        ({"variant": "seed", "freeze": "a"}, "does not go with --variant seed"),
        ({"class_weights": "balanced", "num_classes": 30_000}, "too many for its file"),
    ],
)
def test_bad_options_of_fine_tuning_are_refused(told, words):
    with pytest.raises(UsageError) as caught:
        train_val(net_options(**told), 2)
    assert words in str(caught.value)


def test_the_net_for_use_knows_nothing_of_training():
    fine = {"freeze": "Mixed_5b", "bn_statistics": "kept", "classifier": "pets"}
    tuned, plain = deploy(net_options(**fine)), deploy(net_options())
    for layer in tuned.layer:
        if layer.name == "pets":
            layer.name, layer.top[0] = "classifier", "classifier"
        if list(layer.bottom) == ["pets"]:
            layer.bottom[0] = "classifier"
    assert tuned == plain
