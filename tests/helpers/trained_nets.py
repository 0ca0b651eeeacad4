"""Nets for use with random weights that look trained, for tests of folding and of bundles."""

from __future__ import annotations

import numpy as np
from google.protobuf import text_format

from helpers import foreign_nets
from irv2caffe.config import net_options
from irv2caffe.deploy.fold import simplify
from irv2caffe.deploy.graph import read_graph
from irv2caffe.net.inception_resnet_v2 import deploy
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array
from irv2caffe.proto.caffemodel import write_model
from irv2caffe.shapes.infer import infer
from irv2caffe.shapes.upgrade import upgrade

FOREIGN = {
    "ResNet-50": lambda: foreign_nets.resnet(size=112),
    "DenseNet-121": foreign_nets.densenet121,
    "MobileNet": foreign_nets.mobilenet,
    "GoogLeNet": foreign_nets.googlenet,
}


def own_deploy(variant, *, crop, width, num_classes=10, **more):
    """The deploy net of one of our variants."""
    options = net_options(variant=variant, crop=crop, width=width, num_classes=num_classes, **more)
    return deploy(options)


def foreign_deploy(name, *, width=0.125, num_classes=10, size=None):
    """A net of others, narrower by a factor."""
    net = upgrade(text_format.Parse(str(FOREIGN[name]()), messages.NetParameter()))
    scores = net.layer[-1].bottom[0]
    if size:
        net.layer[0].input_param.shape[0].dim[2:] = [size, size]
    net.layer[0].input_param.shape[0].dim[0] = 1
    for layer in net.layer:
        for param in (layer.convolution_param, layer.inner_product_param):
            if param.num_output:
                is_last = scores in layer.top
                narrow = max(2, round(width * param.num_output))
                param.num_output = num_classes if is_last else narrow
        if layer.convolution_param.group > 2:  # depthwise
            layer.convolution_param.group = layer.convolution_param.num_output
    return net


def parse(text):
    """A net from a prototxt."""
    return text_format.Parse(text, messages.NetParameter())


def write_trained(net, path, seed=0):
    """Writes a .caffemodel with weights of He's variance and statistics far from the defaults."""
    rng = np.random.default_rng(seed)
    layers = []
    for info in infer(net, "TEST").layers:
        layer = messages.LayerParameter(name=info.name, type=info.type)
        for number, shape in enumerate(info.params):
            layer.blobs.append(blob_from_array(_values(rng, info.type, number, shape)))
        layers.append(layer)
    write_model(path, net, layers)
    return path


def _values(rng, kind, number, shape):
    if kind == "BatchNorm":
        factor = 99.98
        if number == 2:
            return np.full(shape, factor, "f4")
        values = rng.normal(0, 0.5, shape) if number == 0 else rng.uniform(0.3, 3, shape)
        return (values * factor).astype("f4")
    if kind in {"Scale", "Bias"}:
        learned = rng.uniform(0.5, 1.5, shape) if number == 0 else rng.normal(0, 0.2, shape)
        return learned.astype("f4")
    if number == 0 and len(shape) > 1:
        return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype("f4")
    return rng.normal(0, 0.2, shape).astype("f4")


def run(caffe_nets, net, model, blob="out", *, seed=3):
    """The values of a blob in the real Caffe for random images."""
    text = text_format.MessageToString(net)
    inputs = {net.layer[0].top[0]: images(net, seed)}
    ran = caffe_nets.run(text, "TEST", inputs=inputs, backward=False, load=[model])
    return ran.blobs[blob]


def images(net, seed=3):
    """Random values of the shape of the net's input."""
    shape = net.layer[0].input_param.shape[0].dim
    return np.random.default_rng(seed).normal(0, 1, shape).astype("f4")


def simplified(net, model, folder, outputs=("out",), **options):
    """The graph, what was done, and the net for a device, with its weights in folded.caffemodel."""
    graph = read_graph(net, model, outputs)
    folding = simplify(graph, **options)
    folded = graph.to_net()
    graph.write_weights(folder / "folded.caffemodel", folded)
    return graph, folding, folded


def difference(found, wanted):
    """The largest difference as a share of the standard deviation."""
    assert found.shape == wanted.shape
    assert np.isfinite(wanted).all()
    return np.abs(found - wanted).max() / wanted.std()
