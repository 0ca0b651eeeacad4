"""Well-known nets as small training nets, and their passes in the engine and in the real Caffe."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from google.protobuf import text_format

from helpers import foreign_nets
from helpers.engine_nets import make_net
from irv2caffe.config import net_options
from irv2caffe.net.inception_resnet_v2 import train_val
from irv2caffe.proto import messages
from irv2caffe.shapes.upgrade import upgrade

if TYPE_CHECKING:
    from irv2caffe.engine.net import Net

HEAD = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "score" bottom: "label" top: "accuracy" }
"""
FOREIGN = {
    "ResNet-50": lambda: foreign_nets.resnet(size=112),
    "GoogLeNet": foreign_nets.googlenet,
    "DenseNet-121": foreign_nets.densenet121,
    "MobileNet": foreign_nets.mobilenet,
    "VGG-16": foreign_nets.vgg16,
    "AlexNet": foreign_nets.caffenet,
    "SqueezeNet": foreign_nets.squeezenet,
}


def own_net(variant, *, crop, width, batch, **more):
    """A net of ours in both phases, with inputs instead of databases."""
    options = net_options(
        variant=variant, crop=crop, width=width, num_classes=10, batch_size=batch, **more
    )
    return _with_inputs(upgrade(train_val(options, batch)), (batch, 3, crop, crop))


def foreign_net(name, *, width, batch, size=None):
    """A net of others with a loss, narrower by a factor; perhaps for images of another size."""
    net = upgrade(text_format.Parse(str(FOREIGN[name]()), messages.NetParameter()))
    image = (3, size, size) if size else list(net.layer[0].input_param.shape[0].dim)[1:]
    softmax = net.layer[-1]
    assert softmax.type == "Softmax"
    scores = softmax.bottom[0]
    del net.layer[-1]
    for layer in net.layer:
        _narrow(layer, width, is_last=scores in layer.top)
        _fill(layer)
    text_format.Merge(HEAD.replace("score", scores), net)
    return _with_inputs(net, (batch, *image))


def _narrow(layer, width, *, is_last):
    for param in (layer.convolution_param, layer.inner_product_param):
        if param.num_output:
            param.num_output = 10 if is_last else max(1, round(width * param.num_output))
    if layer.convolution_param.group > 2:  # depthwise
        layer.convolution_param.group = layer.convolution_param.num_output


def _fill(layer):
    for field in ("convolution_param", "inner_product_param"):
        if layer.HasField(field):
            getattr(layer, field).weight_filler.type = "msra"


def _with_inputs(net, shape):
    layers = [layer for layer in net.layer if layer.type not in {"Data", "Input"}]
    for layer in layers:
        layer.dropout_param.dropout_ratio = 0  # nothing random
    result = messages.NetParameter(name=net.name)
    data = result.layer.add(name="data", type="Input", top=["data", "label"])
    data.input_param.shape.add(dim=shape)
    data.input_param.shape.add(dim=shape[:1])
    result.layer.extend(layers)
    return result


@dataclass(frozen=True)
class Outcome:
    """What a net computed in one forward and one backward pass.

    Attributes:
        blobs: tops of all layers, and BatchNorm's statistics after the pass.
        gradients: of all weights that learn, by layer and number.
    """

    blobs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]


@dataclass(frozen=True)
class Outcomes:
    """The same pass in the engine and in the real Caffe."""

    engine: Outcome
    caffe: Outcome
    net: Net
    given: dict[str, np.ndarray]

    def exact(self):
        """The same pass in the engine with float64."""
        with default_dtype(torch.float64):
            for blob in {id(b): b for layer in self.net.layers for b in layer.blobs}.values():
                blob.data = blob.data.double()
                blob.grad = None
            return _outcome(self.net, self.given)


def run_all(caffe_nets, net_proto, phase, *, seed=0):
    """Runs one forward and one backward pass with the same weights and images."""
    text = text_format.MessageToString(net_proto)
    torch.manual_seed(seed)
    net = make_net(text, phase)
    _shake(net)
    given = _images(net, seed)
    weights = {
        name: [blob.detach().numpy().copy() for blob in blobs]
        for name, blobs in net.weights.by_layer.items()
        if blobs
    }
    caffe = caffe_nets.run(text, phase, inputs=given, weights=weights)
    theirs = Outcome(dict(caffe.blobs), {})
    for layer, blobs in caffe.params.items():
        theirs.blobs.update((f"{layer}:{at}", blob) for at, blob in enumerate(blobs))
        diffs = enumerate(caffe.param_diffs[layer])
        theirs.gradients.update((f"{layer}:{at}", diff) for at, diff in diffs)
    return Outcomes(_outcome(copy.deepcopy(net), given), theirs, net, given)


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _outcome(net, given):
    inputs = {name: torch.from_numpy(v).to(torch.get_default_dtype()) for name, v in given.items()}
    result = net.forward(inputs, keep_blobs=True)
    result.loss.backward()
    blobs = dict(result.blobs)
    for layer, weights in net.weights.by_layer.items():
        blobs.update((f"{layer}:{at}", weight) for at, weight in enumerate(weights))
    gradients = {f"{w.layer}:{w.index}": w.tensor.grad for w in net.weights.learnable if w.lr_mult}
    arrays = [{k: v.detach().numpy() for k, v in each.items()} for each in (blobs, gradients)]
    return Outcome(*arrays)


def _images(net, seed):
    rng = np.random.default_rng(seed)
    given = {}
    for name, shape in zip(net.sources[0].tops, net.sources[0].top_shapes, strict=True):
        values = rng.integers(0, 10, shape) if name == "label" else rng.standard_normal(shape)
        given[name] = values.astype(np.float32)
    return given


def blob_errors(found, wanted):
    """For each blob, the largest difference relative to its largest value."""
    return {
        name: relative(blob, wanted.blobs[name], np.abs(wanted.blobs[name]).max())
        for name, blob in found.blobs.items()
        if name in wanted.blobs
    }


def gradient_errors(found, wanted):
    """For each gradient, the largest difference relative to the largest gradient of its layer.

    The bias of a convolution before BatchNorm has the gradient 0, and only rounding in it.
    """
    largest: dict[str, float] = {}
    for name, gradient in wanted.gradients.items():
        layer = name.rsplit(":", 1)[0]
        largest[layer] = max(largest.get(layer, 0), np.abs(gradient).max())
    return {
        name: relative(gradient, wanted.gradients[name], largest[name.rsplit(":", 1)[0]])
        for name, gradient in found.gradients.items()
        if name in wanted.gradients
    }


def relative(found, wanted, largest):
    assert found.shape == wanted.shape
    assert np.isfinite(wanted).all()
    return float(np.abs(found - wanted).max() / (largest or 1))


def worst(errors):
    """The largest error and its name."""
    name = max(errors, key=errors.__getitem__)
    return errors[name], name


def _shake(net):
    """Gives BatchNorm and Scale the values of a net that has been trained.

    With a bias of 0, Scale before another normalisation has the gradient 0.
    """
    with torch.no_grad():
        for layer in net.layers:
            if layer.info.type == "BatchNorm":
                mean, variance, factor = layer.blobs
                factor.fill_(7)
                mean.normal_(0, 1)
                variance.uniform_(3, 12)
            elif layer.info.type == "Scale":
                for blob, mean in zip(layer.blobs, (1, 0), strict=False):
                    blob.normal_(mean, 0.3)


def same_sides(first, second, net_proto):
    """Whether all ReLUs of two runs let the same values pass.

    A value that rounds to the other side of 0 changes gradients by much more than rounding.
    """
    tops = {layer.top[0] for layer in net_proto.layer if layer.type == "ReLU"}
    tops &= first.blobs.keys()  # an auxiliary head is there in TRAIN only
    return all(((first.blobs[top] > 0) == (second.blobs[top] > 0)).all() for top in tops)


def run_on_same_sides(caffe_nets, net_proto, phase, seeds):
    """The outcomes for the first seed with which no ReLU differs between engine and Caffe."""
    for seed in seeds:
        outcomes = run_all(caffe_nets, net_proto, phase, seed=seed)
        if same_sides(outcomes.engine, outcomes.caffe, net_proto):
            return outcomes
    raise AssertionError(f"ReLUs differ with each of the seeds {seeds}")
