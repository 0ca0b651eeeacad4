"""Models that the engine and the real Caffe exchange."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.caffe_nets import CaffeAbortedError
from helpers.engine_nets import make_net

from irv2caffe.engine.model_files import load_model, save_model
from irv2caffe.errors import FormatError, MissingInputError, NetError, WeightsError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array, write_binary

DATA = """
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } shape { dim: 2 } } }
"""
# Each thing that Caffe adds to a model: Split layers, phases, loss weights, BatchNorm's param.
NET = (
    'name: "everything" state { level: 3 stage: "x" }'
    + DATA
    + """
layer { name: "c" type: "Convolution" bottom: "data" top: "c" param { name: "w" lr_mult: 2 }
        include { phase: TRAIN } include { phase: TEST stage: "x" }
        convolution_param { num_output: 3 kernel_size: 3 pad: 1
                            weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "bn1" type: "BatchNorm" bottom: "c" top: "c" param { lr_mult: 0 name: "mean" } }
layer { name: "bn3" type: "BatchNorm" bottom: "c" top: "c"
        param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 } }
layer { name: "prelu" type: "PReLU" bottom: "c" top: "c" prelu_param { channel_shared: true } }
layer { name: "c2" type: "Convolution" bottom: "c" top: "c2" phase: TEST
        param { name: "w" share_mode: PERMISSIVE }
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 } }
layer { name: "sum" type: "Eltwise" bottom: "c" bottom: "c2" top: "sum" }
layer { name: "fc" type: "InnerProduct" bottom: "sum" top: "fc"
        inner_product_param { num_output: 4 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss"
        loss_weight: 2 exclude { stage: "y" } }
layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc"
        include { phase: TEST } }
layer { name: "p" type: "Power" bottom: "loss" top: "p" power_param { scale: 2 } loss_weight: 0.5 }
layer { name: "aux" type: "EuclideanLoss" bottom: "fc" bottom: "fc" }
"""
)
FC = (
    DATA
    + 'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" '
    + ("inner_product_param { num_output: 4 } }")
)


def arrays(net):
    return {
        name: [blob.detach().numpy().copy() for blob in blobs]
        for name, blobs in net.weights.by_layer.items()
        if blobs
    }


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, blobs in ours.items():
        for blob, other in zip(blobs, theirs[name], strict=True):
            np.testing.assert_array_equal(blob, other)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_files_are_caffes_byte_by_byte(caffe_nets, tmp_path, phase):
    theirs, ours = tmp_path / "theirs.caffemodel", tmp_path / "ours.caffemodel"
    caffe = caffe_nets.run(NET, phase, passes=2, backward=False, save=[theirs])
    net = make_net(NET, phase)
    loaded = load_model(theirs, net)
    assert loaded.copied == ["c", "bn", "bn1", "bn3", "prelu", "c2", "fc"]
    assert not loaded.ignored
    assert not loaded.kept
    same(arrays(net), caffe.params)
    assert save_model(ours, net) == theirs.stat().st_size
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_caffes_hdf5_files_lack_shared_weights(caffe_nets, tmp_path):
    path = tmp_path / "theirs.caffemodel.h5"
    caffe = caffe_nets.run(NET, passes=2, backward=False, save=[path])
    net = make_net(NET)
    assert load_model(path, net).copied == ["bn", "bn1", "bn3", "c", "c2", "fc", "prelu"]
    same(arrays(net), caffe.params)
    owner = NET.replace('name: "c" type', 'name: "other" type')  # its weight is not in the file
    with pytest.raises(CaffeAbortedError, match="Incompatible number of blobs"):
        caffe_nets.run(owner.replace('"w" lr_mult: 2', '"v"'), passes=0, backward=False,
                       load=[path])  # fmt: skip
    with pytest.raises(WeightsError) as found:
        load_model(path, make_net(owner.replace('"w" lr_mult: 2', '"v"')))
    assert found.value.problems == ("c2: 1 in the model, 2 in the net",)


def v1_model(path, *shapes):
    """A model of 2014: layers of the old form, blobs with four sizes."""
    net = messages.NetParameter(name="old")
    layer = net.layers.add(name="fc", type=messages.message_class("V1LayerParameter").INNER_PRODUCT)
    rng = np.random.default_rng(0)
    for shape in shapes:
        blob = blob_from_array(rng.standard_normal(shape, np.float32))
        blob.ClearField("shape")
        blob.num, blob.channels, blob.height, blob.width = shape
        layer.blobs.append(blob)
    write_binary(path, net)


@pytest.mark.slow
def test_models_of_2014_have_four_sizes(caffe_nets, tmp_path):
    path = tmp_path / "old.caffemodel"
    v1_model(path, (1, 1, 4, 48), (1, 1, 1, 4))
    net = make_net(FC)
    load_model(path, net)
    same(arrays(net), caffe_nets.run(FC, passes=0, backward=False, load=[path]).params)
    v1_model(path, (4, 48, 1, 1), (1, 1, 1, 4))
    with pytest.raises(WeightsError) as found:
        load_model(path, net)
    assert found.value.problems == ("fc: blob 0: 4x48x1x1 in the model, 4x48 in the net",)
    with pytest.raises(CaffeAbortedError, match="shape mismatch"):
        caffe_nets.run(FC, passes=0, backward=False, load=[path])


def write(path, *layers):
    """A model with (name, arrays) of each layer."""
    net = messages.NetParameter()
    for name, blobs in layers:
        net.layer.add(name=name).blobs.extend(
            blob_from_array(np.asarray(blob, "f4")) for blob in blobs
        )
    write_binary(path, net)
    return path


@pytest.mark.slow
def test_the_last_layer_of_a_name_counts_and_others_are_ignored(caffe_nets, tmp_path):
    first = write(
        tmp_path / "first.caffemodel",
        ("fc", [np.ones((4, 48)), np.ones(4)]),
        ("other", [np.ones(3)]),
        ("fc", [np.full((4, 48), 2), np.arange(4)]),
        ("data_split", []),
    )
    second = write(tmp_path / "second.caffemodel", ("more", [np.ones(3)]))
    net = make_net(FC)
    results = [load_model(path, net) for path in (first, second)]
    same(arrays(net), caffe_nets.run(FC, passes=0, backward=False, load=[first, second]).params)
    assert [result.ignored for result in results] == [["other"], ["more"]]
    assert [result.kept for result in results] == [[], ["fc"]]


def test_all_that_does_not_fit_is_listed_and_nothing_is_copied(tmp_path):
    net = make_net(NET)
    before = arrays(net)
    path = write(
        tmp_path / "bad.caffemodel",
        ("c", [np.ones((3, 3, 3, 3)), np.ones((1, 1, 1, 3))]),
        ("bn", [np.ones(3)] * 5),  # NVCaffe's, with scale and bias
        ("fc", [np.ones((5, 48)), np.ones(5)]),
        ("sum", [np.ones(1)]),
        ("bn3", []),
    )
    with pytest.raises(WeightsError) as found:
        load_model(path, net)
    assert found.value.problems == (
        "c: blob 1: 1x1x1x3 in the model, 3 in the net",
        "bn: 5 in the model, 3 in the net",
        "fc: blob 0: 5x48 in the model, 4x48 in the net",
        "fc: blob 1: 5 in the model, 4 in the net",
        "sum: 1 in the model, 0 in the net",
        "bn3: 0 in the model, 3 in the net",
    )
    same(arrays(net), before)


def test_other_files_are_refused(tmp_path):
    net = make_net(FC)
    state = tmp_path / "a.solverstate"
    write_binary(state, messages.SolverState(iter=3, learned_net="x"))
    with pytest.raises(FormatError, match="NetParameter"):
        load_model(state, net)
    with pytest.raises(MissingInputError):
        load_model(tmp_path / "none.caffemodel", net)
    (tmp_path / "a.h5").write_bytes(b"not HDF5")
    with pytest.raises(FormatError, match="not an HDF5 file"):
        load_model(tmp_path / "a.h5", net)


def test_a_small_hdf5_file_cannot_make_a_large_array(tmp_path):
    import h5py

    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data/fc/0", (1 << 40,), "f4", chunks=True)
        file["data/fc/1"] = np.zeros(4, "f4")
    with pytest.raises(WeightsError, match=r"1099511627776 in the model, 4x48 in the net"):
        load_model(path, make_net(FC))
    with h5py.File(path, "w") as file:
        file["iter"] = 3
    with pytest.raises(FormatError, match="not a model"):
        load_model(path, make_net(FC))


def test_a_test_net_gets_what_the_training_net_loads(tmp_path):
    train = make_net(FC)
    test = make_net(FC, "TEST", trained=train)
    path = write(tmp_path / "m.caffemodel", ("fc", [np.full((4, 48), 3), np.arange(4)]))
    load_model(path, train)
    assert torch.equal(test.weights.by_layer["fc"][0], torch.full((4, 48), 3.0))


SHAPES = """
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 30 dim: 1 dim: 8 dim: 8 } shape { dim: 30 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv"
        batch_norm_param { moving_average_fraction: 0.9 } }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
        pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label"
        include { phase: TRAIN } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" include { phase: TEST } }
"""


def stripes(rng):
    """Images with vertical, horizontal or no stripes, and their classes."""
    labels = rng.integers(0, 3, 30)
    images = rng.normal(0, 0.3, (30, 1, 8, 8)).astype(np.float32)
    images[labels == 1, :, :, ::2] += 1
    images[labels == 2, :, ::2] += 1
    return images, labels


@pytest.mark.slow
def test_a_net_trained_here_classifies_the_same_in_caffe(caffe_nets, tmp_path):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = make_net(SHAPES)
    for _ in range(40):
        images, labels = stripes(rng)
        given = {"data": torch.from_numpy(images), "label": torch.from_numpy(np.float32(labels))}
        net.forward(given).loss.backward()
        with torch.no_grad():
            for weight in net.weights.learnable:
                if weight.lr_mult:
                    weight.tensor.sub_(0.1 * weight.tensor.grad)
                    weight.tensor.grad = None
    path = tmp_path / "trained.caffemodel"
    save_model(path, net)
    images, labels = stripes(rng)
    given = {"data": images, "label": np.float32(labels)}
    caffe = caffe_nets.run(SHAPES, "TEST", inputs=given, load=[path], backward=False)
    test = make_net(SHAPES, "TEST")
    load_model(path, test)
    ours = test.forward({name: torch.from_numpy(value) for name, value in given.items()})
    np.testing.assert_allclose(
        ours.outputs["prob"].detach(), caffe.blobs["prob"], rtol=1e-4, atol=1e-6
    )
    found = caffe.blobs["prob"].argmax(1)
    assert (found == labels).mean() > 0.9
    assert (ours.outputs["prob"].argmax(1).numpy() == found).all()


@pytest.mark.slow
def test_weights_in_the_prototxt_replace_the_fillers(caffe_nets):
    blobs = "blobs { shape { dim: 1 dim: 2 } data: 3 data: -4 } blobs { shape { dim: 1 } data: 7 }"
    text = f"""
    layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: 2 }} }} }}
    layer {{ name: "fc" type: "InnerProduct" bottom: "x" top: "y" {blobs}
             inner_product_param {{ num_output: 1 bias_filler {{ value: 5 }} }} }}
    """
    same(arrays(make_net(text)), caffe_nets.run(text, passes=0, backward=False).params)
    bad = text.replace("dim: 1 dim: 2 } data: 3", "dim: 2 dim: 1 } data: 3")
    with pytest.raises(NetError, match=r"'fc' .*: blob 0: 2x1 in the model, 1x2 in the net"):
        make_net(bad)  # which Caffe checks in convolutions only
    with pytest.raises(NetError, match="has 2 blobs for 1 weights"):
        make_net(text.replace("num_output: 1", "num_output: 1 bias_term: false"))
    conv = text.replace("InnerProduct", "Convolution").replace("inner_product", "convolution")
    conv = conv.replace("bias_filler", "bias_term: false bias_filler")
    with pytest.raises(CaffeAbortedError, match="Incorrect number of weight blobs"):
        caffe_nets.run(conv, backward=False)
