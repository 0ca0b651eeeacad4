"""Folding against the real Caffe: the same outputs before and after."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from google.protobuf import text_format
from helpers.layer_texts import INPUT, conv, layer, normalize
from helpers.paths import OPENCV4
from helpers.trained_nets import (
    difference,
    foreign_deploy,
    images,
    own_deploy,
    parse,
    run,
    simplified,
    write_trained,
)

from irv2caffe.deploy.graph import read_graph
from irv2caffe.errors import FormatError, WeightsError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array
from irv2caffe.proto.caffemodel import ModelFile, write_model

RELU = layer("ReLU", "relu", "c", "out")
CONV_1 = "convolution_param { num_output: 4 kernel_size: 1 bias_term: false }"

# The layers between the input and the blob "out", and the types that are left of them.
NETS = {
    "groups and dilation": (
        conv("c", "x", "group: 2 dilation: 2 pad: 2") + normalize("c") + RELU,
        ["Convolution", "ReLU"],
    ),
    "not in place, without Scale": (
        conv("c", "x", bias="true") + layer("BatchNorm", "out", "c"),
        ["Convolution"],
    ),
    "a small eps, Scale without bias": (
        conv("c", "x")
        + layer("BatchNorm", "b", "c", param="batch_norm_param { eps: 0.1 }")
        + layer("Scale", "out", "b"),
        ["Convolution"],
    ),
    "a bias alone": (conv("c", "x") + layer("Bias", "out", "c"), ["Convolution"]),
    "a chain of all": (
        conv("c", "x")
        + normalize("c", "n1")
        + layer("Power", "p", "c", param="power_param { scale: -3 shift: 0.5 }")
        + layer("Bias", "b", "p")
        + normalize("b", "n2")
        + layer("Scale", "out", "b", param="scale_param { axis: 0 num_axes: 0 bias_term: true }"),
        ["Convolution"],
    ),
    "a deconvolution with groups": (
        layer(
            "Deconvolution",
            "c",
            "x",
            param="convolution_param { num_output: 6 kernel_size: 4 stride: 2 group: 2 }",
        )
        + normalize("c")
        + RELU,
        ["Deconvolution", "ReLU"],
    ),
    "inner products": (
        layer("InnerProduct", "i", "x", param="inner_product_param { num_output: 7 }")
        + normalize("i")
        + layer("ReLU", "r", "i")
        + layer(
            "InnerProduct",
            "c",
            "r",
            param="inner_product_param { num_output: 5 transpose: true bias_term: false }",
        )
        + layer("BatchNorm", "b", "c", "out"),
        ["InnerProduct", "ReLU", "InnerProduct"],
    ),
    "an inner product of another axis": (
        layer("InnerProduct", "c", "x", param="inner_product_param { num_output: 7 axis: -1 }")
        + normalize("c")
        + RELU,
        ["InnerProduct", "Scale", "ReLU"],
    ),
    "before the activation": (
        conv("c", "x")
        + layer("BatchNorm", "b", "c")
        + layer("Scale", "s", "b")
        + layer("ReLU", "r", "s")
        + layer("Convolution", "d", "r", param=CONV_1.replace("4", "6"))
        + layer("Concat", "out", "c d"),
        ["Convolution", "Scale", "ReLU", "Convolution", "Concat"],
    ),
    "data normalized before padding": (
        layer("BatchNorm", "b", "x")
        + layer("Scale", "s", "b", param="scale_param { bias_term: true }")
        + conv("out", "s", "pad: 1"),
        ["Scale", "Convolution"],
    ),
    "data normalized without padding": (
        layer("BatchNorm", "b", "x")
        + conv("c", "b", "group: 2", bias="true")
        + layer("Scale", "s", "c", "out"),
        ["Convolution"],
    ),
    "data scaled before padding": (
        layer("Power", "p", "x", param="power_param { scale: 0.1 }") + conv("out", "p", "pad: 1"),
        ["Convolution"],
    ),
    "an image normalized before an inner product": (
        layer("BatchNorm", "b", "x")
        + layer("InnerProduct", "out", "b", param="inner_product_param { num_output: 3 }"),
        ["InnerProduct"],
    ),
    "factors of a sum": (
        layer("Convolution", "c", "x", param=CONV_1)
        + layer("Eltwise", "out", "x c", param="eltwise_param { coeff: 1 coeff: 0.17 }"),
        ["Convolution", "Eltwise"],
    ),
    "factors of a sum, both convolutions, one normalized": (
        layer("Convolution", "c", "x", param=CONV_1)
        + normalize("c")
        + layer("Convolution", "d", "x", param=CONV_1.replace("false", "true"))
        + layer("Eltwise", "out", "d c", param="eltwise_param { coeff: -2 coeff: 0.17 }"),
        ["Convolution", "Convolution", "Eltwise"],
    ),
    "a factor of what others read": (
        layer("Convolution", "c", "x", param=CONV_1)
        + layer("ReLU", "r", "c")
        + layer("Eltwise", "s", "r c", param="eltwise_param { coeff: 0.5 coeff: 0.17 }")
        + layer("Concat", "out", "s c"),
        ["Convolution", "ReLU", "Scale", "Scale", "Eltwise", "Concat"],
    ),
    "a layer has the name that a factor would get": (
        layer("Convolution", "out_factor", "x", param=CONV_1)
        + layer("Eltwise", "out", "out_factor x", param="eltwise_param { coeff: 1 coeff: 0.5 }"),
        ["Convolution", "Scale", "Eltwise"],
    ),
    "the same bottom twice": (
        layer("Convolution", "c", "x", param=CONV_1)
        + layer("Eltwise", "out", "c c", param="eltwise_param { coeff: 1 coeff: 0.5 }"),
        ["Convolution", "Scale", "Eltwise"],
    ),
    "a product has no factors": (
        layer("Convolution", "c", "x", param=CONV_1)
        + layer("Eltwise", "out", "x c", param="eltwise_param { operation: PROD }"),
        ["Convolution", "Eltwise"],
    ),
    "a factor for each row stays": (
        conv("c", "x") + layer("Scale", "out", "c", param="scale_param { axis: 2 }"),
        ["Convolution", "Scale"],
    ),
    "dropouts, splits, a flatten of what is flat": (
        layer("Split", "s", "x", "s t")
        + layer("Dropout", "d", "s")
        + layer("InnerProduct", "i", "d", param="inner_product_param { num_output: 3 }")
        + layer("Flatten", "f", "i")
        + layer("ReLU", "r", "f")
        + layer("Dropout", "e", "r", "r")
        + layer("InnerProduct", "j", "t", param="inner_product_param { num_output: 3 }")
        + layer("Concat", "k", "r j")
        + layer("Dropout", "out", "k"),
        ["InnerProduct", "ReLU", "InnerProduct", "Concat"],
    ),
    "a constant from a Parameter layer": (
        layer("Parameter", "p", "", param="parameter_param { shape { dim: 4 } }").replace(
            'bottom: ""', ""
        )
        + layer("Scale", "out", "x p", param="scale_param { axis: 1 }"),
        ["Scale"],
    ),
    "a network that forks and normalizes in place": (
        conv("c", "x", "pad: 1")
        + normalize("c")
        + layer("ReLU", "r", "c", "c")
        + layer("Pooling", "p", "c", param="pooling_param { pool: AVE kernel_size: 3 stride: 2 }")
        + normalize("p", "m")
        + layer("Pooling", "q", "c", param="pooling_param { kernel_size: 3 stride: 2 }")
        + layer("Concat", "out", "p q"),
        ["Convolution", "ReLU", "Pooling", "Scale", "Pooling", "Concat"],
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_layers(caffe_nets, tmp_path, name):
    layers, left = NETS[name]
    net = parse(INPUT + layers)
    model = write_trained(net, tmp_path / "net.caffemodel")
    _, _, folded = simplified(net, model, tmp_path)
    assert [each.type for each in folded.layer[1:]] == left
    wanted = run(caffe_nets, net, model)
    assert difference(run(caffe_nets, folded, tmp_path / "folded.caffemodel"), wanted) < 1e-5
    _, _, plain = simplified(net, model, tmp_path, fold=False)
    assert difference(run(caffe_nets, plain, tmp_path / "folded.caffemodel"), wanted) < 1e-6


OURS = {
    "slim": {"crop": 75},
    "paper": {"crop": 75},
    "seed": {"crop": 75},
    "small32": {"crop": 32, "residual_bn": True},
}


WHOLE = (*OURS, "ResNet-50", "DenseNet-121", "MobileNet")


def whole(name):
    """A whole net, narrow."""
    return own_deploy(name, width=0.1, **OURS[name]) if name in OURS else foreign_deploy(name)


@pytest.mark.parametrize("name", WHOLE)
def test_nets(caffe_nets, tmp_path, name):
    net = whole(name)
    model = write_trained(net, tmp_path / "net.caffemodel")
    logits = net.layer[-1].bottom[0]
    graph, _, folded = simplified(net, model, tmp_path, [logits])
    wanted = run(caffe_nets, net, model, logits)
    new = graph.outputs[logits].name
    assert difference(run(caffe_nets, folded, tmp_path / "folded.caffemodel", new), wanted) < 1e-4
    types = Counter(each.type for each in folded.layer)
    assert not {"BatchNorm", "Dropout", "DummyData", "Power"} & types.keys()
    assert types["Scale"] == {"slim": 1, "small32": 1, "DenseNet-121": 62}.get(name, 0)
    assert not any(each.eltwise_param.coeff for each in folded.layer)
    text = text_format.MessageToString(folded)
    assert not any(word in text for word in ("filler", "lr_mult", "fraction", "loss"))


SCRIPT = """
import sys
import cv2, numpy as np
for folder in sys.argv[1:]:
    net = cv2.dnn.readNetFromCaffe(folder + "/net.prototxt", folder + "/folded.caffemodel")
    net.setInput(np.load(folder + "/images.npy"))
    np.save(folder + "/found.npy", net.forward(open(folder + "/name").read()))
"""


@pytest.mark.skipif(not OPENCV4.is_dir(), reason="OpenCV 4 is not there: scripts/test installs it")
def test_opencv_4_reads_them(caffe_nets, tmp_path):
    wanted = {}
    for name in WHOLE:
        folder = tmp_path / name
        folder.mkdir()
        net = whole(name)
        del net.layer[0].input_param.shape[0].dim[0]
        net.layer[0].input_param.shape[0].dim.insert(0, 2)  # a batch
        model = write_trained(net, folder / "net.caffemodel")
        logits = net.layer[-1].bottom[0]
        graph, _, folded = simplified(net, model, folder, [logits])
        (folder / "net.prototxt").write_text(text_format.MessageToString(folded))
        (folder / "name").write_text(graph.outputs[logits].name)
        np.save(folder / "images.npy", images(net))
        wanted[folder] = run(caffe_nets, net, model, logits)
    argv = [sys.executable, "-c", SCRIPT, *map(str, wanted)]
    done = subprocess.run(
        argv,
        env={**os.environ, "PYTHONPATH": str(OPENCV4)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for folder, values in wanted.items():
        assert difference(np.load(folder / "found.npy").reshape(values.shape), values) < 1e-4


def test_plain_average_pool_is_that_of_a_net_built_so(caffe_nets, tmp_path):
    exact, plain = (
        own_deploy("slim", crop=75, width=0.1, average_pool=pool) for pool in ("tf", "caffe")
    )
    model = write_trained(exact, tmp_path / "net.caffemodel")
    graph, folding, folded = simplified(
        exact, model, tmp_path, ["classifier"], plain_average_pool=True
    )
    assert folding.plain_pools == ["Mixed_5b/Branch_3/AvgPool_0a_3x3_exact"]
    assert not any(each.type == "Scale" for each in folded.layer)
    wanted = run(caffe_nets, plain, model, "classifier")
    found = run(caffe_nets, folded, tmp_path / "folded.caffemodel", "classifier")
    assert difference(found, wanted) < 1e-4
    assert difference(found, run(caffe_nets, exact, model, "classifier")) > 1e-3
    assert graph.outputs["classifier"].name == "classifier"


def test_normalization_of_nvcaffe_with_its_scale_inside(caffe_nets, tmp_path):
    net = parse(INPUT + conv("c", "x") + normalize("c") + RELU)
    model = write_trained(net, tmp_path / "net.caffemodel")
    blobs = {name: ModelFile(model).blobs(name) for name in ("c", "n_bn", "n_scale")}
    factor = np.array(blobs["n_bn"][2].data)
    fused = [blob_from_array((np.array(b.data) / factor).astype("f4")) for b in blobs["n_bn"]]
    layers = [
        messages.LayerParameter(name="c", blobs=blobs["c"]),
        messages.LayerParameter(name="n_bn", blobs=[*fused, *blobs["n_scale"]]),
    ]
    write_model(tmp_path / "fused.caffemodel", net, layers)
    del net.layer[3]  # the Scale
    _, _, folded = simplified(net, tmp_path / "fused.caffemodel", tmp_path)
    wanted = run(caffe_nets, parse(INPUT + conv("c", "x") + normalize("c") + RELU), model)
    assert difference(run(caffe_nets, folded, tmp_path / "folded.caffemodel"), wanted) < 1e-5


def test_batch_statistics_are_replaced_and_told(tmp_path):
    text = (
        INPUT
        + conv("c", "x")
        + layer("BatchNorm", "out", "c", param="batch_norm_param { use_global_stats: false }")
    )
    model = write_trained(parse(text), tmp_path / "net.caffemodel")
    graph, _, folded = simplified(parse(text), model, tmp_path)
    assert [each.type for each in folded.layer] == ["Input", "Convolution"]
    assert "use_global_stats: false" in graph.notes[0]


def test_depthwise_convolutions_of_forks_become_groups(tmp_path):
    text = INPUT + layer(
        "DepthwiseConvolution",
        "out",
        "x",
        param="convolution_param { num_output: 4 group: 4 kernel_size: 3 }",
    )
    net = parse(text)
    stock = parse(text.replace("Depthwise", ""))
    model = write_trained(stock, tmp_path / "net.caffemodel")
    _, _, folded = simplified(net, model, tmp_path)
    assert folded.layer[1].type == "Convolution"
    assert folded.layer[1].convolution_param.group == 4


def test_a_constant_of_any_size_is_not_computed(tmp_path):
    shape = "shape { dim: [1, 1, 20000, 20000] }"
    text = INPUT.replace("shape { dim: [2, 4, 6, 5] }", shape) + layer(
        "DummyData", "d", "", param=f"dummy_data_param {{ {shape} }}"
    ).replace('bottom: ""', "")
    text += layer("Pooling", "p", "d", param="pooling_param { pool: AVE kernel_size: 3 pad: 1 }")
    text += layer("Scale", "out", "x p", param="scale_param { axis: 0 }")
    write_trained(parse(INPUT), tmp_path / "net.caffemodel")
    _, _, folded = simplified(parse(text), tmp_path / "net.caffemodel", tmp_path)
    assert [each.type for each in folded.layer[1:]] == ["DummyData", "Pooling", "Scale"]


def test_other_weights_are_refused(tmp_path):
    net = parse(INPUT + conv("c", "x") + normalize("c") + RELU)
    write_trained(parse(INPUT + conv("c", "x", bias="true") + RELU), tmp_path / "net.caffemodel")
    with pytest.raises(WeightsError) as caught:
        read_graph(net, tmp_path / "net.caffemodel", ["out"])
    assert caught.value.problems == (
        "c: 2 blobs in the model, 1 needed",
        "n_bn: 0 blobs in the model, 3 needed",
        "n_scale: 0 blobs in the model, 2 needed",
    )
    with pytest.raises(FormatError, match="no blob 'prob'"):
        read_graph(net, tmp_path / "net.caffemodel", ["prob"])
