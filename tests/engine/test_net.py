"""A net of the torch engine: its passes and its weights."""

from __future__ import annotations

import pytest
import torch

from irv2caffe.engine.net import Net
from irv2caffe.engine.options import EngineOptions
from irv2caffe.errors import NetError
from irv2caffe.proto import messages
from irv2caffe.proto.text import parse_prototxt

NET = """
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "fc" top: "fc" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" loss_weight: 2 }
"""


def make(text):
    net = parse_prototxt(text, messages.NetParameter)
    return Net(net, "TRAIN", EngineOptions(), device=torch.device("cpu"))


def test_loss_and_gradients_of_a_small_net():
    net = make(NET)
    data, label = torch.randn(2, 3), torch.tensor([1.0, 3.0])
    result = net.forward({"data": data, "label": label})
    weight, bias = net.weights.by_layer["fc"]
    scores = (data @ weight.t() + bias).clamp(min=0)
    expected = 2 * torch.nn.functional.cross_entropy(scores, label.long())
    torch.testing.assert_close(result.loss, expected)
    (wanted,) = torch.autograd.grad(expected, weight)
    result.loss.backward()
    torch.testing.assert_close(weight.grad, wanted)


def test_all_unsupported_layers_are_listed_at_once():
    text = (
        'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { '
        "shape { dim: 1 dim: 1 dim: 4 dim: 4 } } } "
        'layer { name: "im" type: "Im2col" bottom: "d" top: "i" '
        "convolution_param { kernel_size: 1 } } "
        'layer { name: "p" type: "Pooling" bottom: "d" top: "p" '
        "pooling_param { pool: STOCHASTIC kernel_size: 2 } }"
    )
    with pytest.raises(NetError, match=r"'im' \(Im2col\).*'p' \(Pooling: pool: STOCHASTIC"):
        make(text)
