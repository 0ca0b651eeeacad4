"""``train --recipe finetune``: one command from weights to a net for other classes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from google.protobuf import text_format
from helpers.program import run
from helpers.trained_nets import foreign_deploy, own_deploy, write_trained
from helpers.training_jobs import config, make_databases

from irv2caffe.config import load_recipe, net_options
from irv2caffe.net.inception_resnet_v2 import deploy
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_array, read_binary
from irv2caffe.train.plan.weights_options import options_of_weights

WIDTH, CROP = 0.05, 24


def _write(net, path):
    """A .caffemodel as Caffe writes it: every layer with its definition."""
    model = read_binary(write_trained(net, path), messages.NetParameter)
    blobs = {layer.name: list(layer.blobs) for layer in model.layer}
    whole = messages.NetParameter()
    whole.CopyFrom(net)
    for layer in whole.layer:
        layer.blobs.extend(blobs[layer.name])
    path.write_bytes(whole.SerializeToString())
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Databases of two classes, and weights of a net for seven."""
    folder = tmp_path_factory.mktemp("finetune")
    make_databases(folder, size=32)
    net = own_deploy("small32", crop=CROP, width=WIDTH, num_classes=7)
    _write(net, folder / "old.caffemodel")
    return folder


def _train(root, cwd, *more, recipe="finetune", weights="old.caffemodel"):
    databases = ("--train-lmdb", root / "train_lmdb", "--val-lmdb", root / "val_lmdb")
    start = ("--weights", root / weights) if weights else ()
    sizes = ("--batch-size", 8, "--gpus", "none", "--run-dir", "run")
    return run("train", "--recipe", recipe, *start, *databases, *sizes, *more, cwd=cwd)


def _blobs(path):
    net = read_binary(path, messages.NetParameter)
    return {layer.name: [read_array(blob) for blob in layer.blobs] for layer in net.layer}


@pytest.fixture(scope="module")
def trained(caffe, root, tmp_path_factory):
    """A run of a few iterations in the real Caffe; the folder and what was said."""
    cwd = tmp_path_factory.mktemp("run")
    done = _train(root, cwd, "--epochs", 0.5, "--engine", "caffe")
    assert done.returncode == 0, done.stderr
    return cwd / "run", done.stderr


def test_the_command_says_what_is_copied_and_what_is_new(trained):
    _, said = trained
    count = int(re.search(r"weights of (\d+) layers come from", said)[1])
    net = deploy(net_options(variant="small32", crop=CROP, width=WIDTH))
    learned = [layer for layer in net.layer if layer.type in {"Convolution", "BatchNorm", "Scale"}]
    learned = [layer for layer in learned if len(layer.bottom) == 1]
    assert count == len(learned)
    assert "new, with weights of their fillers: new_classifier\n" in said
    assert "not taken from old.caffemodel: classifier\n" in said
    assert "width 0.05: derived: as in old.caffemodel" in said
    assert "differs from the net" not in said
    assert "warning" not in said


def test_caffe_keeps_the_statistics_and_trains_the_rest(root, trained):
    folder, _ = trained
    before = _blobs(root / "old.caffemodel")
    (newest,) = (folder / "snapshots").glob("*_iter_4.caffemodel")
    after = _blobs(newest)
    assert after["new_classifier"][0].shape[0] == 2
    assert "classifier" not in after
    kept = [name for name in before if name.endswith("_bn")]
    moved = [name for name in before if name in after and name not in kept and before[name]]
    assert kept
    for name in kept:
        for old, new in zip(before[name], after[name], strict=True):
            assert np.array_equal(old, new), name
    changes = {name: np.abs(before[name][0] - after[name][0]).max() for name in moved}
    assert changes["Conv2d_1a_4x4"] > 0
    assert np.mean([change > 0 for change in changes.values()]) > 0.9  # two filters may be dead
    assert max(changes.values()) < 0.5  # weights of He's variance are changed, not lost
    log = next((folder / "logs").iterdir()).read_text()
    assert "Ignoring source layer classifier" in log


def test_the_run_has_the_recipes_rates_and_a_deploy_net(trained):
    folder, _ = trained
    text = (folder / "train_val.prototxt").read_text()
    net = text_format.Parse(text, messages.NetParameter())
    rates = {layer.name: [param.lr_mult for param in layer.param] for layer in net.layer}
    assert rates["new_classifier"] == [10, 10]
    assert set(rates["Conv2d_1a_4x4"]) <= {1}
    stated = load_recipe("finetune")
    values = config(folder)["plan"]["config"]
    assert values["base_lr"]["value"] == stated.solver["base_lr"]
    assert "new_classifier" in (folder / "deploy.prototxt").read_text()


def test_weights_of_a_finetuned_net_start_another(root, trained, tmp_path):
    """A classifier for other classes has the recipe's name already: the new one gets another."""
    weights = own_deploy("small32", crop=CROP, width=WIDTH, num_classes=5)
    next(layer for layer in weights.layer if layer.name == "classifier").name = "new_classifier"
    _write(weights, tmp_path / "second.caffemodel")
    planned = _train(root, tmp_path, "--dry-run", weights=tmp_path / "second.caffemodel")
    assert planned.returncode == 0, planned.stderr
    assert "new, with weights of their fillers: new_classifier_2\n" in planned.stdout
    assert "second.caffemodel has a new_classifier of 5 classes" in planned.stderr


def test_weights_that_fit_nothing_are_refused(caffe, root, tmp_path):
    net = foreign_deploy("GoogLeNet", width=0.05)
    for layer in net.layer:
        layer.name = f"theirs/{layer.name}"
    _write(net, tmp_path / "foreign.caffemodel")
    done = _train(root, tmp_path, "--variant", "small32", weights=tmp_path / "foreign.caffemodel")
    assert done.returncode == 1, done.stderr
    assert "none of its layers has the name of a layer of this net" in done.stderr
    assert not (tmp_path / "run").exists()


def test_weights_of_another_width_are_refused(caffe, root, tmp_path):
    """Where the command line wins over what the weights say."""
    done = _train(root, tmp_path, "--width", 0.1)
    assert done.returncode == 1
    assert "[weights-shape]" in done.stderr


def test_without_weights_there_is_nothing_to_keep(caffe, root, tmp_path):
    done = _train(root, tmp_path, weights=None)
    assert done.returncode == 2
    assert "--recipe finetune starts from weights" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "slim", "crop": 107},
        {"variant": "slim", "crop": 107, "residual_bn": True, "average_pool": "caffe"},
        {"variant": "paper", "crop": 107, "trunk": 2048},
        {"variant": "seed", "crop": 107},
        {"variant": "small75", "crop": 75, "bn_eps": 1e-5},
        {"variant": "small32", "crop": 24, "residual_scale": None},
        {"variant": "small32", "crop": 32, "channels": 1, "residual_scale": (0.3, 0.2, 0.1)},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_net_for_weights_is_the_net_that_was_trained(options, tmp_path):
    """The options that are read from weights build the same net again, layer by layer."""
    trained = net_options(**options, width=0.05, num_classes=7)
    path = _write(deploy(trained), tmp_path / "x.caffemodel")
    recipe = load_recipe("finetune")
    found = options_of_weights([path], recipe, num_classes=7, side=None)
    given = {name: value for name, (value, _) in found.items()}
    assert given["variant"] == options["variant"]
    again = net_options(**given, crop=trained.crop, num_classes=7)
    ours, theirs = deploy(again), deploy(trained)
    assert [layer.SerializeToString() for layer in ours.layer] == [
        layer.SerializeToString() for layer in theirs.layer
    ]


def test_the_crop_of_weights_is_taken_where_images_are_as_large(tmp_path):
    path = _write(own_deploy("small32", crop=CROP, width=WIDTH), tmp_path / "x.caffemodel")
    model = read_binary(path, messages.NetParameter)
    model.layer[0].type = "Data"
    model.layer[0].transform_param.crop_size = CROP
    model.layer[0].transform_param.mean_value.extend([104, 117, 123])
    path.write_bytes(model.SerializeToString())
    recipe = load_recipe("finetune")
    for side, crop in ((28, CROP), (20, None)):
        found = options_of_weights([path], recipe, num_classes=10, side=side)
        assert found.get("crop", (None,))[0] == crop
        assert found["mean_value"][0] == (104, 117, 123)


def test_files_that_are_no_weights_give_no_options(tmp_path):
    """The plan says what is wrong with them."""
    (tmp_path / "x").write_bytes(b"\x0a\xff\xff\xff\xff\x7f")
    recipe = load_recipe("finetune")
    assert options_of_weights([tmp_path / "x"], recipe, num_classes=2, side=None) == {}
    assert options_of_weights([tmp_path / "no"], recipe, num_classes=2, side=None) == {}
