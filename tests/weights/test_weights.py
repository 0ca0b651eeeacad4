"""Weights in and out: the real Caffe's logits against timm's and Keras's; what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from helpers.timm_model import images, make_model
from safetensors.numpy import load_file, save_file

from irv2caffe.caffe.command import tool_command
from irv2caffe.cli.main import run as main
from irv2caffe.config import net_options
from irv2caffe.errors import (
    FormatError,
    InputError,
    MissingExtraError,
    MissingInputError,
    OutputExistsError,
    UsageError,
    WeightsError,
)
from irv2caffe.net.inception_resnet_v2 import deploy, train_val
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array, read_array, read_binary, write_binary
from irv2caffe.proto.text import read_prototxt, write_prototxt
from irv2caffe.weights import export_weights, import_weights
from irv2caffe.weights.scopes import CONVOLUTIONS
from irv2caffe.weights.sources.timm import timm_names

FORWARD = """
import caffe, numpy as np, sys
net = caffe.Net(sys.argv[1], sys.argv[2], caffe.TEST)
images = np.load(sys.argv[3])
net.blobs['data'].reshape(*images.shape)
net.blobs['data'].data[...] = images
net.forward()
np.save(sys.argv[4], net.blobs['classifier'].data.reshape(len(images), -1))
"""
# Random weights by the fillers, and statistics of a few batches, as a training leaves them.
TRAINED = """
import caffe, numpy as np, sys
caffe.set_random_seed(5)
net = caffe.Net(sys.argv[1], caffe.TRAIN)
net.blobs['data'].reshape(8, *net.blobs['data'].data.shape[1:])
rng = np.random.default_rng(6)
for _ in range(int(sys.argv[3])):
    net.blobs['data'].data[...] = rng.uniform(-1, 1, net.blobs['data'].data.shape)
    net.forward()
for name, blobs in net.params.items():
    if net.layer_dict[name].type == 'Scale':
        blobs[0].data[...] = rng.uniform(.5, 1.5, blobs[0].data.shape)
        blobs[1].data[...] = rng.normal(0, .2, blobs[1].data.shape)
net.save(sys.argv[2])
"""


def pycaffe(caffe, code, *args):
    """Runs a program in the interpreter that imports the real pycaffe."""
    command = tool_command(caffe, "python", ["-c", code, *map(str, args)])
    env = {**command.env, "GLOG_minloglevel": "2"}
    subprocess.run(command.argv, env=env, capture_output=True, check=True)


def logits(caffe, folder, net, model, pixels):
    """What the real Caffe makes of images as it gets them."""
    np.save(folder / "in.npy", pixels)
    pycaffe(caffe, FORWARD, net, model, folder / "in.npy", folder / "out.npy")
    return np.load(folder / "out.npy")


def bgr(pixels):
    return np.ascontiguousarray(pixels[:, ::-1])


def write_deploy(folder, **options):
    path = folder / "deploy.prototxt"
    write_prototxt(path, deploy(net_options(variant="slim", **options)))
    return path


@pytest.fixture(scope="module")
def model():
    """timm's model of 1001 classes, as TensorFlow's weights have them."""
    return make_model(num_classes=1001)


@pytest.fixture(scope="module")
def without_background(model, tmp_path_factory):
    """The same model's weights of 1000 classes."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    state |= {name: state[name][1:].copy() for name in ("classif.weight", "classif.bias")}
    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def imported(without_background, tmp_path_factory):
    """Its weights as a caffemodel, and the net of the full size."""
    folder = tmp_path_factory.mktemp("imported")
    net = write_deploy(folder)
    report = import_weights(without_background, net, folder / "m.caffemodel")
    return net, folder / "m.caffemodel", report


@pytest.mark.slow
def test_logits_are_timms_at_299(caffe, model, imported, tmp_path, capsys):
    net, caffemodel, report = imported
    assert report.num_parameters == 55_843_464
    assert (report.gamma, report.dropped_background, report.unused) == ("source", False, [])
    assert report.differences == []
    pixels = images(2, 299, 9)
    ours = logits(caffe, tmp_path, net, caffemodel, bgr(pixels))
    with torch.no_grad():
        theirs = model(torch.tensor(pixels)).numpy()[:, 1:]
    difference = np.abs(ours - theirs).max()
    with capsys.disabled():
        print(f"\nparity at 299: max |difference| {difference:.2e}, logits' std {theirs.std():.2f}")
    assert theirs.std() > 0.5
    assert difference < 2e-5
    assert (ours.argmax(1) == theirs.argmax(1)).all()
    assert np.abs(logits(caffe, tmp_path, net, caffemodel, pixels) - theirs).max() > 1e-3


@pytest.mark.slow
def test_back_to_timm_bit_by_bit(model, without_background, imported, tmp_path):
    net, caffemodel, _ = imported
    report = export_weights(caffemodel, net, tmp_path / "back.safetensors")
    assert report.num_parameters == 55_843_464
    before, after = load_file(without_background), load_file(tmp_path / "back.safetensors")
    assert set(before) == set(after)
    for name, value in after.items():
        expected = 0 if name.endswith("num_batches_tracked") else before[name]
        assert np.array_equal(value, expected), name
        assert value.dtype == before[name].dtype


@pytest.mark.slow
def test_training_checkpoint_of_1001_classes(caffe, model, imported, tmp_path):
    """A .pth with more in it than weights, of a model spread over GPUs, its average beside it."""
    average = {f"module.{name}": value for name, value in model.state_dict().items()}
    zeros = {name: torch.zeros_like(value) for name, value in average.items()}
    torch.save({"state_dict": zeros, "state_dict_ema": average, "epoch": 3}, tmp_path / "c.pth")
    net = write_deploy(tmp_path, num_classes=1001, crop=139)
    out = tmp_path / "m.caffemodel"
    report = import_weights(tmp_path / "c.pth", net, out, channels="rgb", averaged=True)
    assert (report.num_classes, report.dropped_background) == (1001, False)
    pixels = images(2, 139, 3)
    ours = logits(caffe, tmp_path, net, out, pixels)
    with torch.no_grad():
        theirs = model(torch.tensor(pixels)).numpy()
    assert np.abs(ours - theirs).max() < 5e-5 * theirs.std()
    back = tmp_path / "back.pth"
    export_weights(out, net, back, channels="rgb")
    state = torch.load(back, weights_only=True)
    assert list(state) == list(model.state_dict())
    assert model.load_state_dict(state, strict=True)
    assert torch.equal(state["conv2d_1a.conv.weight"], average["module.conv2d_1a.conv.weight"])
    # Into the net of 1000 classes: as if the background had never been there.
    full, caffemodel, _ = imported
    report = import_weights(tmp_path / "c.pth", full, out, averaged=True, force=True)
    assert report.dropped_background
    assert out.read_bytes() == caffemodel.read_bytes()


def test_names_are_timms(model):
    names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    assert list(timm_names()) == names
    assert len(CONVOLUTIONS) == 244
    assert sum(scope.has_bn for scope in CONVOLUTIONS) == 204


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory):
    """Real Keras's own net, on PyTorch, saved in all its forms; in a process of its own."""
    folder = tmp_path_factory.mktemp("keras")
    code = """
import keras, numpy as np, sys
rng = np.random.default_rng(1)
keras.layers.Conv2D(3, 3), keras.layers.BatchNormalization()  # numbers go on from here
model = keras.applications.InceptionResNetV2(
    weights=None, input_shape=(139, 139, 3), classes=10, classifier_activation=None)
for layer in model.layers:
    values = []
    for variable in layer.weights:
        size = tuple(variable.shape)
        if variable.name == "moving_variance":
            values.append(rng.uniform(.5, 1.5, size))
        elif variable.name == "kernel":
            values.append(rng.normal(0, np.sqrt(2 / np.prod(size[:-1])), size))
        else:
            values.append(rng.normal(0, .1, size))
    layer.set_weights(values)
for name in ("new.weights.h5", "old.h5", "new.keras"):
    model.save(name) if "weights" not in name else model.save_weights(name)
pixels = np.load("in.npy").transpose(0, 2, 3, 1)
np.save("out.npy", model.predict(pixels, verbose=0))
bare = keras.Model(model.input, model.layers[-3].output)
bare.save_weights("bare.weights.h5")
"""
    np.save(folder / "in.npy", images(2, 139, 4))
    env = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_logits_are_kerass(caffe, keras_files, tmp_path):
    net = write_deploy(tmp_path, num_classes=10, crop=139)
    out = tmp_path / "m.caffemodel"
    report = import_weights(keras_files / "new.weights.h5", net, out)
    assert (report.source_format, report.gamma) == ("keras", "ones")
    ours = logits(caffe, tmp_path, net, out, bgr(np.load(keras_files / "in.npy")))
    theirs = np.load(keras_files / "out.npy")
    assert np.abs(ours - theirs).max() < 1e-5 * theirs.std()
    assert (ours.argmax(1) == theirs.argmax(1)).all()
    first = out.read_bytes()
    for name in ("old.h5", "new.keras"):
        import_weights(keras_files / name, net, out, force=True)
        assert out.read_bytes() == first, name
    older_names(keras_files / "old.h5", tmp_path / "older.h5")
    import_weights(tmp_path / "older.h5", net, out, force=True)
    assert out.read_bytes() == first


def older_names(path, out):
    """As Keras wrote before version 3: weights alone, each name with the number of its output."""
    with h5py.File(path) as old, h5py.File(out, "w") as older:

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                older[f"{name}:0"] = item[()]

        old["model_weights"].visititems(copy)


@pytest.mark.slow
def test_keras_without_its_top(keras_files, tmp_path):
    net = write_deploy(tmp_path, num_classes=10, crop=139)
    source, out = keras_files / "bare.weights.h5", tmp_path / "m.caffemodel"
    with pytest.raises(WeightsError, match="2 things") as caught:
        import_weights(source, net, out)
    assert caught.value.problems == (
        "Logits: the source has no weight",
        "Logits: the source has no bias",
    )
    assert "--without-classifier" in caught.value.hint
    report = import_weights(source, net, out, without_classifier=True)
    assert (report.num_classes, report.left_to_fillers) == (0, ["classifier"])
    written = read_binary(out, messages.NetParameter)
    assert "classifier" not in [layer.name for layer in written.layer]


@pytest.mark.slow
@pytest.mark.parametrize("by_number", [True, False])
def test_keras_models_with_another_head(keras_files, tmp_path, by_number):
    """A network that was trained further ends in a layer of any name, or in several."""
    net, out = write_deploy(tmp_path, num_classes=10, crop=139), tmp_path / "m.caffemodel"
    source = tmp_path / ("w.weights.h5" if by_number else "w.h5")
    layer = "layers/dense/vars" if by_number else "model_weights/my_head/my_head"
    names = ("0", "1") if by_number else ("kernel:0", "bias:0")
    shutil.copy(keras_files / ("bare.weights.h5" if by_number else "old.h5"), source)
    with h5py.File(source, "a") as file:
        if not by_number:
            del file["model_weights/predictions"]
        file[f"{layer}/{names[0]}"] = np.full((1536, 10), 0.5, "f4")
        file[f"{layer}/{names[1]}"] = np.arange(10, dtype="f4")
    report = import_weights(source, net, out)
    assert report.num_classes == 10
    (classifier,) = (
        layer
        for layer in read_binary(out, messages.NetParameter).layer
        if layer.name == "classifier"
    )
    assert read_array(classifier.blobs[1]).tolist() == list(range(10))
    with h5py.File(source, "a") as file:  # one layer more
        second = layer.replace("dense", "dense_1").replace("my_head", "second")
        file[f"{second}/{names[0]}"] = np.ones((10, 10), "f4")
    with pytest.raises(WeightsError) as caught:
        import_weights(source, net, out, force=True)
    assert "--without-classifier" in caught.value.hint
    assert f"{second}/{names[0]}" in caught.value.problems[-1]
    report = import_weights(source, net, out, without_classifier=True, force=True)
    assert (report.num_classes, len(report.unused)) == (0, 3)


SMALL = {"width": 0.05, "crop": 75, "num_classes": 7}


@pytest.fixture(scope="module")
def small(caffe, tmp_path_factory):
    """A small net and its caffemodel, trained a little by the real Caffe."""
    folder = tmp_path_factory.mktemp("small")
    net = write_deploy(folder, **SMALL)
    pycaffe(caffe, TRAINED, net, folder / "m.caffemodel", 3)
    return net, folder / "m.caffemodel"


def blobs_of(path):
    """All blobs of a caffemodel by the name of their layer."""
    model = read_binary(path, messages.NetParameter)
    return {layer.name: [read_array(blob) for blob in layer.blobs] for layer in model.layer}


@pytest.mark.slow
def test_statistics_of_a_real_training_are_divided_as_caffe_does(caffe, small, tmp_path):
    net, trained = small
    report = export_weights(trained, net, tmp_path / "w.safetensors")
    assert report.empty_statistics == []
    mean, variance, factor = blobs_of(trained)["Conv2d_1a_3x3_bn"]
    assert factor[0] not in {0, 1}
    state = load_file(tmp_path / "w.safetensors")
    inverse = np.float32(1) / factor
    assert np.array_equal(state["conv2d_1a.bn.running_mean"], mean * inverse)
    assert np.array_equal(state["conv2d_1a.bn.running_var"], variance * inverse)
    import_weights(tmp_path / "w.safetensors", net, tmp_path / "m.caffemodel")
    pixels = images(2, 75, 2)
    before = logits(caffe, tmp_path, net, trained, pixels)
    after = logits(caffe, tmp_path, net, tmp_path / "m.caffemodel", pixels)
    assert 1e-3 < before.std() < 1e3
    assert np.abs(before - after).max() < 1e-5 * before.std()
    export_weights(tmp_path / "m.caffemodel", net, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        tmp_path / "w.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_statistics_without_a_batch_are_zero_as_in_caffe(caffe, small, tmp_path):
    net, _ = small
    pycaffe(caffe, TRAINED, net, tmp_path / "m.caffemodel", 0)
    report = export_weights(tmp_path / "m.caffemodel", net, tmp_path / "w.safetensors")
    assert len(report.empty_statistics) == 204
    assert not load_file(tmp_path / "w.safetensors")["conv2d_1a.bn.running_var"].any()


@pytest.mark.parametrize(
    ("index", "values", "words"),
    [
        (2, [], "the factor of its mean is not one number"),
        (2, [1, 1], "the factor of its variance is not one number"),
        (2, [np.nan], "variance has 2 of 2 values not finite"),
        (2, [1e-42], "mean has 2 of 2 values not finite"),  # its inverse is beyond float32
        (2, [-1], "variance is below zero"),
        (1, [-1, 1], "variance is below zero"),
    ],
)
def test_statistics_that_are_none(small, tmp_path, index, values, words):
    net, trained = small
    model = read_binary(trained, messages.NetParameter)
    layer = next(layer for layer in model.layer if layer.name == "Conv2d_1a_3x3_bn")
    layer.blobs[index].CopyFrom(blob_from_array(np.array(values, "f4")))
    write_binary(tmp_path / "m.caffemodel", model)
    with pytest.raises(WeightsError) as caught:
        export_weights(tmp_path / "m.caffemodel", net, tmp_path / "w.safetensors")
    assert f"Conv2d_1a_3x3: {words}" in caught.value.problems
    assert not (tmp_path / "w.safetensors").exists()


@pytest.mark.slow
def test_tf_slim_checkpoint(small, tmp_path):
    """A V2 checkpoint as its trainer writes one, with an optimizer's slots and averages."""
    from helpers.tf_table import write_bundle

    net, trained = small
    arrays = {"global_step": np.array(7, "i8")}
    for layer, blobs in blobs_of(trained).items():
        name = "InceptionResnetV2/" + ("Logits/Logits" if layer == "classifier" else layer)
        if layer == "classifier":
            arrays[f"{name}/weights"], arrays[f"{name}/biases"] = blobs[0].T, blobs[1]
        elif layer.endswith("_bn"):
            name = f"{name.removesuffix('_bn')}/BatchNorm"
            arrays[f"{name}/moving_mean"] = blobs[0] / blobs[2]
            arrays[f"{name}/moving_variance"] = blobs[1] / blobs[2]
        elif layer.endswith("_scale") and blobs:
            arrays[f"{name.removesuffix('_scale')}/BatchNorm/beta"] = blobs[1]
        elif blobs:
            arrays[f"{name}/weights"] = blobs[0].transpose(2, 3, 1, 0)
            arrays |= {f"{name}/biases": blob for blob in blobs[1:]}
    arrays["InceptionResnetV2/Conv2d_1a_3x3/weights"] = arrays[
        "InceptionResnetV2/Conv2d_1a_3x3/weights"
    ][:, :, ::-1]
    model_names = [name for name in arrays if name != "global_step"]
    for name in model_names:
        arrays[f"{name}/ExponentialMovingAverage"] = arrays[name] / 2
        arrays[f"{name}/RMSProp"] = arrays[name]
    for part, shape in (("Conv2d_1b_1x1/weights", (1, 1, 3, 4)), ("Logits/biases", (7,))):
        arrays[f"InceptionResnetV2/AuxLogits/{part}"] = np.zeros(shape, "f4")
    write_bundle(tmp_path / "model.ckpt-7", arrays)
    out = tmp_path / "m.caffemodel"
    report = import_weights(tmp_path / "model.ckpt-7", net, out)
    assert (report.source_format, report.gamma) == ("tf-slim", "ones")
    assert (len(report.unused), report.num_ignored) == (2, 1 + 2 * len(model_names))
    plain, expected = blobs_of(out), blobs_of(trained)
    assert {name for name, blobs in plain.items() if blobs} == {
        name for name, blobs in expected.items() if blobs
    }
    for name, blobs in plain.items():
        wanted = expected[name]
        if name.endswith("_scale") and blobs:
            wanted = [np.ones_like(wanted[0]), wanted[1]]
        elif name.endswith("_bn"):
            wanted = [blob / wanted[2] for blob in wanted]
        for ours, theirs in zip(blobs, wanted, strict=True):
            assert np.array_equal(ours, theirs), name
    import_weights(tmp_path / "model.ckpt-7.index", net, out, averaged=True, force=True)
    assert np.array_equal(blobs_of(out)["classifier"][0], plain["classifier"][0] / 2)


@pytest.mark.slow
def test_other_names_in_the_same_order(small, tmp_path):
    """A net as others publish it; the layers are known by their order."""
    net, trained = small
    export_weights(trained, net, tmp_path / "w.safetensors")
    import_weights(tmp_path / "w.safetensors", net, tmp_path / "a.caffemodel")
    foreign = read_prototxt(net, messages.NetParameter)
    foreign.input.append("data")
    foreign.input_dim.extend(foreign.layer[0].input_param.shape[0].dim)
    del foreign.layer[0]
    for number, layer in enumerate(foreign.layer):
        layer.name = f"layer{number}"
    write_prototxt(tmp_path / "foreign.prototxt", foreign)
    report = import_weights(
        tmp_path / "w.safetensors", tmp_path / "foreign.prototxt", tmp_path / "b.caffemodel"
    )
    assert report.by_order
    ours, theirs = blobs_of(tmp_path / "a.caffemodel"), blobs_of(tmp_path / "b.caffemodel")
    del ours["data"]
    for mine, other in zip(ours.values(), theirs.values(), strict=True):
        assert all(map(np.array_equal, mine, other))


def test_layers_and_shapes_of_old_caffe(small, tmp_path):
    """``layers`` instead of ``layer``, and four axes for every blob."""
    net, trained = small
    old = messages.NetParameter()
    for layer in read_binary(trained, messages.NetParameter).layer:
        blobs = []
        for values in map(read_array, layer.blobs):
            four = (1, 1, 1, 1, *values.shape)[-4:]
            axes = dict(zip(("num", "channels", "height", "width"), four, strict=True))
            blobs.append(messages.BlobProto(data=values.ravel().tolist(), **axes))
        old.layers.add(name=layer.name, blobs=blobs)
    write_binary(tmp_path / "old.caffemodel", old)
    export_weights(tmp_path / "old.caffemodel", net, tmp_path / "old.safetensors")
    export_weights(trained, net, tmp_path / "new.safetensors")
    assert (tmp_path / "old.safetensors").read_bytes() == (
        tmp_path / "new.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_net_without_gamma_has_a_bias_layer(small, tmp_path):
    net, trained = small
    export_weights(trained, net, tmp_path / "w.safetensors")
    biased = read_prototxt(net, messages.NetParameter)
    for layer in biased.layer:
        if layer.type == "Scale" and len(layer.bottom) == 1:
            layer.type = "Bias"
            layer.ClearField("scale_param")
            del layer.param[0]
    write_prototxt(tmp_path / "bias.prototxt", biased)
    args = tmp_path / "w.safetensors", tmp_path / "bias.prototxt", tmp_path / "m.caffemodel"
    with pytest.raises(WeightsError, match="204 things") as caught:
        import_weights(*args)
    assert caught.value.problems[0] == (
        "Block8/Branch_0/Conv2d_1x1: the net has no place for the source's gamma"
    )
    state = load_file(tmp_path / "w.safetensors")
    without = {name: value for name, value in state.items() if not name.endswith("bn.weight")}
    save_file(without, tmp_path / "w.safetensors")
    import_weights(*args)
    export_weights(args[2], args[1], tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert (back["conv2d_7b.bn.weight"] == 1).all()
    assert np.array_equal(back["conv2d_7b.bn.bias"], state["conv2d_7b.bn.bias"])


def test_aux_classifier_is_left_to_the_fillers(small, tmp_path):
    net, trained = small
    export_weights(trained, net, tmp_path / "w.safetensors")
    options = net_options(variant="slim", aux=True, **{**SMALL, "crop": 299})
    write_prototxt(tmp_path / "train_val.prototxt", train_val(options, 2))
    out = tmp_path / "m.caffemodel"
    report = import_weights(tmp_path / "w.safetensors", tmp_path / "train_val.prototxt", out)
    assert len(report.left_to_fillers) == 3
    assert report.differences == []
    names = {layer.name for layer in read_binary(out, messages.NetParameter).layer}
    learned = re.compile("AuxLogits/(Logits|Conv2d_[^_]+_[^_]+(_bn|_scale)?)")
    assert not [name for name in names if learned.fullmatch(name)]
    assert "Conv2d_7b_1x1_scale" in names


@pytest.fixture
def state(small, tmp_path):
    """A fitting state dict, to be spoiled."""
    net, trained = small
    export_weights(trained, net, tmp_path / "w.safetensors")
    return load_file(tmp_path / "w.safetensors")


def test_all_that_does_not_fit_is_listed_at_once(small, state, tmp_path):
    net, _ = small
    del state["conv2d_2a.bn.bias"]
    state["conv2d_4a.conv.weight"] = state["conv2d_4a.conv.weight"][:-1]
    state["repeat.0.conv2d.bias"] = np.zeros(3, "i4")
    state["head.fc.weight"] = np.zeros((3, 3), "f4")
    save_file(state, tmp_path / "w.safetensors")
    other = read_prototxt(net, messages.NetParameter)
    for layer in other.layer:
        if layer.type == "BatchNorm":
            layer.batch_norm_param.eps = 1e-5
    write_prototxt(tmp_path / "other.prototxt", other)
    out = tmp_path / "m.caffemodel"
    command = [sys.executable, "-m", "irv2caffe", "import-weights", "w.safetensors"]
    command += ["--net", "other.prototxt", "--out", "m.caffemodel"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Conv2d_1a_3x3_bn and 203 more: eps is 1e-05, where the published network has 0.001",
        "head.fc.weight: unknown",
        "Conv2d_2a_3x3: the source has no beta",
        "Conv2d_4a_3x3: weight is 9x4x3x3 in the source, 10x4x3x3 in the net",
        "Repeat/block35_1/Conv2d_1x1: bias is of type int32 in the source",
        "irv2caffe: error: w.safetensors does not fit the net: 5 things",
    ]
    assert not out.exists()


def test_a_net_that_computes_otherwise_is_named(state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    others = {"residual_scale": (0.17, 0.1, 0.1), "average_pool": "caffe"}
    inputs = {"mean_value": (104.0, 117.0, 123.0), "scale": 1.0}
    options = net_options(variant="slim", **inputs, **others, **SMALL)
    write_prototxt(tmp_path / "other.prototxt", train_val(options, 2))
    report = import_weights(
        tmp_path / "w.safetensors", tmp_path / "other.prototxt", tmp_path / "m.caffemodel"
    )
    assert report.differences == [
        "data: images minus 104 117 123, times 1; published: minus 127.5, times 0.00784314",
        "Mixed_5b/Branch_3/AvgPool_0a_3x3: the average counts the padding; published: it does not",
        "Repeat_2: residual scale 0.1 in 9; published: 0.2",
    ]


@pytest.mark.slow
def test_values_that_are_none(small, state, tmp_path):
    net, trained = small
    state["conv2d_2a.conv.weight"][0, 0, 0, 0] = np.nan
    state["conv2d_2a.conv.weight"][0, 0, 0, 1] = np.inf
    state["conv2d_4a.bn.running_var"][0] = -1
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as caught:
        import_weights(tmp_path / "w.safetensors", net, tmp_path / "m.caffemodel")
    assert caught.value.problems == (
        "Conv2d_2a_3x3: weight has 2 of 36 values not finite",
        "Conv2d_4a_3x3: variance is below zero",
    )
    model = read_binary(trained, messages.NetParameter)
    layer = next(layer for layer in model.layer if layer.name == "Conv2d_7b_1x1")
    values = read_array(layer.blobs[0])
    values[0] = np.nan
    layer.blobs[0].CopyFrom(blob_from_array(values))
    model.layer.remove(next(layer for layer in model.layer if layer.name == "classifier"))
    write_binary(tmp_path / "bad.caffemodel", model)
    with pytest.raises(WeightsError) as caught:
        export_weights(tmp_path / "bad.caffemodel", net, tmp_path / "out.pth")
    assert [problem.split(" has ")[0] for problem in caught.value.problems] == [
        "Conv2d_7b_1x1: weight",
        "Logits: the model",
        "Logits: the model",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"w.safetensors", "bad.caffemodel"}


@pytest.mark.slow
def test_gray_nets_sum_the_weights_of_the_colours(caffe, small, state, tmp_path, capsys):
    """A gray image gives in the gray net what it gives in the net of three channels."""
    net, trained = small
    save_file(state, tmp_path / "w.safetensors")
    gray = write_deploy(tmp_path, channels=1, **SMALL)
    out = tmp_path / "m.caffemodel"
    args = ["import-weights", str(tmp_path / "w.safetensors"), "--net", str(gray), "--out"]
    assert main([*args, str(out)]) == 0
    said = capsys.readouterr().err
    assert "input: gray, 0 to 255, minus 127.5" in said
    assert "weights of the three colours are summed" in said
    pixels = images(2, 75, 1)[:, :1]
    expected = logits(caffe, tmp_path, net, trained, np.repeat(pixels, 3, axis=1))
    assert expected.std() > 0.01
    assert np.allclose(logits(caffe, tmp_path, gray, out, pixels), expected, atol=1e-4)


@pytest.mark.slow
def test_a_classifier_of_another_name_is_a_classifier(small, state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    options = net_options(variant="slim", classifier="pets", aux=True, **{**SMALL, "crop": 299})
    net = tmp_path / "train_val.prototxt"
    write_prototxt(net, train_val(options, 2))
    report = import_weights(tmp_path / "w.safetensors", net, tmp_path / "m.caffemodel")
    assert "AuxLogits/pets" in report.left_to_fillers
    got = blobs_of(tmp_path / "m.caffemodel")["pets"]
    assert np.array_equal(got[0], state["classif.weight"])
    write_prototxt(net, train_val(net_options(**{**SMALL, "num_classes": 5}, classifier="x"), 2))
    with pytest.raises(WeightsError, match="does not fit"):
        import_weights(tmp_path / "w.safetensors", net, tmp_path / "n.caffemodel")
    report = import_weights(
        tmp_path / "w.safetensors", net, tmp_path / "n.caffemodel", without_classifier=True
    )
    assert report.left_to_fillers == ["x"]


@pytest.mark.slow
def test_other_numbers_of_classes(caffe, state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    net = write_deploy(tmp_path, **{**SMALL, "num_classes": 8})
    out = tmp_path / "m.caffemodel"
    with pytest.raises(WeightsError) as caught:
        import_weights(tmp_path / "w.safetensors", net, out)
    assert caught.value.problems[1] == "Logits: bias is 7 in the source, 8 in the net"
    assert "--without-classifier" in caught.value.hint
    report = import_weights(tmp_path / "w.safetensors", net, out, without_classifier=True)
    assert sorted(report.unused) == ["classif.bias", "classif.weight"]
    fresh = logits(caffe, tmp_path, net, out, images(2, 75, 1))
    assert fresh.shape == (2, 8)
    assert fresh.std() > 0  # by the fillers, not zero


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "prefix"),
    [
        ("", "model."),  # Lightning, in safetensors
        ("state_dict", "model."),
        ("state_dict", "module."),
        ("model", "_orig_mod.module."),
        ("checkpoint.model", "backbone."),
        ("", "self_made.cnn."),
    ],
)
def test_networks_in_something_larger(small, state, tmp_path, place, prefix):
    """What a trainer keeps beside it, or puts before its names, does not matter."""
    net, _ = small
    save_file(state, tmp_path / "w.safetensors")
    import_weights(tmp_path / "w.safetensors", net, tmp_path / "plain.caffemodel")
    wrapped = {f"{prefix}{name}": torch.from_numpy(value) for name, value in state.items()}
    zeros = {f"ema.{name}": torch.zeros_like(value) for name, value in wrapped.items()}
    content = {**wrapped, **zeros, "loss.weight": torch.ones(7)}
    names = [name for name in place.split(".") if name]
    if names:
        for name in reversed(names):
            content = {name: content, "epoch": 3}
        torch.save({**content, "optimizer": {"a": torch.ones(3)}}, tmp_path / "w.pth")
        source = tmp_path / "w.pth"
    else:
        source = tmp_path / "w.safetensors"
        save_file({name: value.numpy() for name, value in content.items()}, source)
    report = import_weights(source, net, tmp_path / "m.caffemodel")
    assert report.prefix == "".join(f"{name}." for name in names) + prefix
    assert report.num_ignored == len(zeros) + 1 + bool(names)
    assert (tmp_path / "m.caffemodel").read_bytes() == (tmp_path / "plain.caffemodel").read_bytes()


def test_several_networks_in_a_file(small, state, tmp_path):
    net, _ = small
    both = {
        f"{who}.{name}": value for who in ("teacher", "student") for name, value in state.items()
    }
    save_file(both, tmp_path / "w.safetensors")
    with pytest.raises(FormatError, match=r"several networks: student\., teacher\."):
        import_weights(tmp_path / "w.safetensors", net, tmp_path / "m.caffemodel")


def test_another_head_of_timm(small, state, tmp_path):
    net, _ = small
    weight = state.pop("classif.weight")
    state = {**state, "classif.0.weight": weight, "classif.2.weight": np.ones((7, 7), "f4")}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"ends in other layers: classif\.0\.weight") as caught:
        import_weights(tmp_path / "w.safetensors", net, tmp_path / "m.caffemodel")
    assert "--without-classifier" in caught.value.hint
    import_weights(
        tmp_path / "w.safetensors", net, tmp_path / "m.caffemodel", without_classifier=True
    )


@pytest.mark.parametrize("options", [{"residual_bn": True}, {"width": 0.1}])
def test_another_net_of_the_family_is_refused(small, state, tmp_path, options):
    _, trained = small
    save_file(state, tmp_path / "w.safetensors")
    other = write_deploy(tmp_path, **{**SMALL, **options})
    with pytest.raises(WeightsError):
        import_weights(tmp_path / "w.safetensors", other, tmp_path / "m.caffemodel")
    with pytest.raises(WeightsError):
        export_weights(trained, other, tmp_path / "out.pth")


def test_the_papers_net_has_no_published_weights(state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    write_prototxt(
        tmp_path / "paper.prototxt", deploy(net_options(variant="paper", crop=75, width=0.1))
    )
    with pytest.raises(WeightsError, match="not the network") as caught:
        import_weights(
            tmp_path / "w.safetensors", tmp_path / "paper.prototxt", tmp_path / "m.caffemodel"
        )
    assert "--variant slim" in caught.value.hint


@pytest.mark.slow
def test_nets_with_loose_ends(small, state, tmp_path):
    """Fields taken away at random: an error, or weights for what is left."""
    net, _ = small
    save_file(state, tmp_path / "w.safetensors")
    args = tmp_path / "w.safetensors", tmp_path / "n.prototxt", tmp_path / "m.caffemodel"
    whole = read_prototxt(net, messages.NetParameter)
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(25):
        spoiled = messages.NetParameter.FromString(whole.SerializeToString())
        layer = spoiled.layer[int(rng.integers(len(spoiled.layer)))]
        fields = [field.name for field, _ in layer.ListFields()]
        layer.ClearField(fields[int(rng.integers(len(fields)))])
        write_prototxt(tmp_path / "n.prototxt", spoiled)
        try:
            import_weights(*args, force=True)
        except InputError:
            refused += 1
    assert 0 < refused < 25


def test_outputs_are_refused_or_replaced(small, state, tmp_path):
    net, _ = small
    save_file(state, tmp_path / "w.safetensors")
    out = tmp_path / "m.caffemodel"
    out.write_text("mine")
    with pytest.raises(OutputExistsError):
        import_weights(tmp_path / "w.safetensors", net, out)
    assert out.read_text() == "mine"
    import_weights(tmp_path / "w.safetensors", net, out, force=True)
    with pytest.raises(OutputExistsError):
        export_weights(out, net, tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="which format"):
        export_weights(out, net, tmp_path / "w.npz")


def test_a_wrong_format_is_named(small, state, tmp_path):
    net, _ = small
    save_file(state, tmp_path / "w.safetensors")
    args = tmp_path / "w.safetensors", net, tmp_path / "m.caffemodel"
    with pytest.raises(FormatError, match="keras weights do not"):
        import_weights(*args, source_format="keras")
    with pytest.raises(UsageError, match="--ema"):
        import_weights(*args, averaged=True)
    save_file({"a": np.zeros(2, "f4")}, tmp_path / "w.safetensors")
    with pytest.raises(FormatError, match="none of its arrays"):
        import_weights(*args)
    with pytest.raises(MissingInputError, match="no such file"):
        import_weights(tmp_path / "none.pth", *args[1:])


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [
        ("h5py", "w.h5", "weights"),
        ("torch", "w.pth", "torch"),
        ("safetensors", "w.safetensors", "weights"),
        ("google_crc32c", "w.index", "weights"),
    ],
)
def test_a_missing_package_is_named(small, tmp_path, monkeypatch, package, name, extra):
    from helpers.tf_table import write_bundle

    net, _ = small
    save_file({"a": np.zeros(1, "f4")}, tmp_path / "w.safetensors")
    write_bundle(tmp_path / "w", {"a": np.zeros(1, "f4")})
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["a"] = 1.0
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=package.replace("_", "-")) as caught:
        import_weights(tmp_path / name, net, tmp_path / "m.caffemodel")
    assert caught.value.hint == f"run: pip install 'irv2caffe[{extra}]'"


def test_python_objects_are_not_loaded(small, tmp_path):
    net, _ = small
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": tmp_path}, tmp_path / "w.pth")
    with pytest.raises(FormatError, match="not loaded from strangers"):
        import_weights(tmp_path / "w.pth", net, tmp_path / "m.caffemodel")


def test_what_is_no_plain_tensor_is_listed(small, state, tmp_path):
    """Checkpoints that hold a number, a table, or a tensor without values among the weights."""
    net, _ = small
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    weight = tensors["conv2d_1a.conv.weight"]
    tensors["conv2d_1a.conv.weight"] = weight.to_sparse()
    tensors["conv2d_2a.conv.weight"] = tensors["conv2d_2a.conv.weight"].to("meta")
    tensors["conv2d_2b.conv.weight"] = 3
    tensors["more"] = {"a": torch.zeros(2)}
    torch.save({"state_dict": tensors}, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        import_weights(tmp_path / "w.pth", net, tmp_path / "m.caffemodel")
    assert set(caught.value.problems) == {
        "Conv2d_1a_3x3: weight is of type torch.sparse_coo float32 in the source",
        "Conv2d_2a_3x3: weight is of type meta float32 in the source",
        "Conv2d_2b_3x3: weight is of type int in the source",
        "state_dict.more.a: unknown",
    }


@pytest.mark.slow
def test_command_lines(small, tmp_path):
    net, trained = small

    def run(*args):
        command = [sys.executable, "-m", "irv2caffe", *map(str, args)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    done = run("export-weights", trained, "--net", net, "--out", "w.safetensors", "--json")
    report = json.loads(done.stdout)
    assert report["num_classes"] == 7
    done = run("import-weights", "w.safetensors", "--net", net, "--out", "m.caffemodel")
    assert done.stdout.startswith(f"m.caffemodel: {report['num_parameters']:,} parameters")
    assert "BGR" in done.stderr
    done = run("import-weights", "w.safetensors", "--net", net, "--out", "n.caffemodel", "--json")
    assert json.loads(done.stdout)["channels"] == "bgr"
