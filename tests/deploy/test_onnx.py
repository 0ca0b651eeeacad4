"""ONNX files in onnxruntime and OpenCV 5 against the real Caffe."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.layer_texts import INPUT, conv, layer, normalize
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
from irv2caffe.deploy.onnx.export import write_onnx
from irv2caffe.errors import NetError


def pool(param):
    return layer("Pooling", "out", "x", param=f"pooling_param {{ {param} }}")


def one(kind, param=""):
    return layer(kind, "out", "x", param=param)


LAYERS = {
    "an odd window beyond the image": pool("pool: AVE kernel_size: 4 stride: 3"),
    "beyond the padding": pool("pool: AVE kernel_size: 3 stride: 4 pad: 1"),
    "padding that counts": pool("pool: AVE kernel_size: 3 pad: 1"),
    "a side each": pool(
        "pool: AVE kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 1"
    ),
    "maximum, rounded up": pool("kernel_size: 3 stride: 2"),
    "maximum, padded": pool("kernel_size: 3 stride: 2 pad: 1"),
    "all of the image": pool("pool: AVE global_pooling: true"),
    "the largest of all": pool("global_pooling: true"),
    "convolution, a side each": one(
        "Convolution",
        "convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 pad_h: 1 pad_w: 0 "
        "stride_h: 2 stride_w: 1 group: 2 }",
    ),
    "deconvolution": one(
        "Deconvolution",
        "convolution_param { num_output: 6 kernel_size: 4 stride: 2 pad: 1 group: 2 }",
    ),
    "inner product": one("InnerProduct", "inner_product_param { num_output: 3 }"),
    "inner product, transposed": one(
        "InnerProduct", "inner_product_param { num_output: 3 transpose: true bias_term: false }"
    ),
    "inner product of the last axis": one(
        "InnerProduct", "inner_product_param { num_output: 3 axis: -1 }"
    ),
    "normalization": conv("c", "x") + normalize("c") + layer("ReLU", "out", "c"),
    "leaky": one("ReLU", "relu_param { negative_slope: 0.1 }"),
    "learned slopes": one("PReLU"),
    "one learned slope": one("PReLU", "prelu_param { channel_shared: true }"),
    "ELU": one("ELU", "elu_param { alpha: 0.7 }"),
    "sigmoid": one("Sigmoid"),
    "tanh": one("TanH"),
    "absolute": one("AbsVal"),
    "softplus": one("BNLL"),
    "power": one("Power", "power_param { power: 2 scale: 0.5 shift: 1 }"),
    "exponential": one("Exp", "exp_param { base: 2 scale: 0.5 shift: 1 }"),
    "logarithm": layer("AbsVal", "a", "x")
    + layer("Log", "out", "a", param="log_param { shift: 1 }"),
    "response": one("LRN", "lrn_param { local_size: 3 alpha: 0.3 beta: 0.75 k: 2 }"),
    "softmax": one("Softmax"),
    "softmax of rows": one("Softmax", "softmax_param { axis: 2 }"),
    "flat": one("Flatten"),
    "flat from the second axis": one("Flatten", "flatten_param { axis: 2 }"),
    "another shape": one("Reshape", "reshape_param { shape { dim: [0, 2, -1] } }"),
    "slices": layer("Slice", "s", "x", "a b", "slice_param { slice_point: 1 }")
    + layer("Concat", "out", "b a"),
    "rows joined": layer("ReLU", "r", "x")
    + layer("Concat", "out", "x r", param="concat_param { axis: 2 }"),
    "largest of two": layer("Power", "p", "x", param="power_param { scale: -0.5 }")
    + layer("Eltwise", "out", "x p", param="eltwise_param { operation: MAX }"),
    "product": layer("ReLU", "r", "x")
    + layer("Eltwise", "out", "x r", param="eltwise_param { operation: PROD }"),
    "factors": layer("ReLU", "r", "x")
    + layer("Eltwise", "out", "x r", param="eltwise_param { coeff: -1 coeff: 0.3 }"),
    "channels weighted": layer(
        "Pooling", "p", "x", param="pooling_param { pool: AVE global_pooling: true }"
    )
    + layer("Flatten", "f", "p")
    + layer("Scale", "out", "x f", param="scale_param { axis: 0 }"),
    "rows weighted": one("Scale", "scale_param { axis: 2 bias_term: true }"),
    "all weighted": one("Scale", "scale_param { axis: 0 num_axes: 0 bias_term: true }"),
    "summand": one("Bias"),
}


def in_onnxruntime(path, x, blob):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run([blob], {session.get_inputs()[0].name: x})[0]


@pytest.mark.parametrize("name", LAYERS)
def test_layers(caffe_nets, tmp_path, name):
    net = parse(INPUT + LAYERS[name])
    model = write_trained(net, tmp_path / "net.caffemodel")
    graph = read_graph(net, model, ["out"])
    graph.to_net()
    write_onnx(graph, tmp_path / "net.onnx")
    onnx.checker.check_model(str(tmp_path / "net.onnx"), full_check=True)
    wanted = run(caffe_nets, net, model)
    x = images(net)
    assert difference(in_onnxruntime(tmp_path / "net.onnx", x, "out"), wanted) < 1e-5
    one_image = in_onnxruntime(tmp_path / "net.onnx", x[:1], "out")  # the batch is open
    assert np.allclose(one_image, wanted[:1], atol=1e-5 * wanted.std())


WHOLE = {
    "slim": lambda: own_deploy("slim", crop=75, width=0.1),
    "paper": lambda: own_deploy("paper", crop=75, width=0.1),
    "seed": lambda: own_deploy("seed", crop=75, width=0.1),
    **{
        name: lambda name=name: foreign_deploy(name)
        for name in ("ResNet-50", "DenseNet-121", "MobileNet", "GoogLeNet")
    },
}


@pytest.mark.parametrize("name", WHOLE)
def test_nets(caffe_nets, tmp_path, name):
    net = WHOLE[name]()
    model = write_trained(net, tmp_path / "net.caffemodel")
    logits, prob = net.layer[-1].bottom[0], net.layer[-1].top[0]
    graph, _, _ = simplified(net, model, tmp_path, [logits, prob])
    write_onnx(graph, tmp_path / "net.onnx")
    wanted = run(caffe_nets, net, model, logits)
    found = in_onnxruntime(tmp_path / "net.onnx", images(net), logits)
    assert difference(found, wanted) < 1e-4
    opencv = cv2.dnn.readNetFromONNX(str(tmp_path / "net.onnx"))
    opencv.setInput(images(net))
    assert difference(opencv.forward(logits).reshape(wanted.shape), wanted) < 1e-4


def test_exact_average_pool_is_a_plain_operator(tmp_path):
    net = own_deploy("slim", crop=75, width=0.1)
    model = write_trained(net, tmp_path / "net.caffemodel")
    graph, _, _ = simplified(net, model, tmp_path, ["prob"])
    write_onnx(graph, tmp_path / "net.onnx")
    nodes = onnx.load(str(tmp_path / "net.onnx")).graph.node
    pools = [node for node in nodes if node.op_type == "AveragePool"]
    assert [a.i for node in pools for a in node.attribute if a.name == "count_include_pad"] == [0]
    assert not any(node.op_type == "Mul" for node in nodes)


def test_all_layers_that_cannot_be_written_are_named(tmp_path):
    text = (
        INPUT
        + one("MVN")
        + layer("Threshold", "t", "out")
        + layer("Tile", "u", "t", param="tile_param { tiles: 2 }")
    )
    net = parse(text)
    graph = read_graph(net, write_trained(net, tmp_path / "net.caffemodel"), ["u"])
    graph.to_net()
    with pytest.raises(NetError, match=r"MVN \(layer 'out'\), Threshold .*, Tile"):
        write_onnx(graph, tmp_path / "net.onnx")
