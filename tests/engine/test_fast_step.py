"""The step of the torch engine: gradients beside those of torch modules."""

from __future__ import annotations

import torch

from irv2caffe.engine.fast import make_step
from irv2caffe.engine.net import Net
from irv2caffe.engine.options import EngineOptions
from irv2caffe.proto import messages
from irv2caffe.proto.text import parse_prototxt

NET = """
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" }
"""


def test_gradients_of_two_steps_add_up():
    proto = parse_prototxt(NET, messages.NetParameter)
    net = Net(proto, "TRAIN", EngineOptions(), device=torch.device("cpu"))
    step = make_step(net, EngineOptions())
    batches = [(torch.randn(2, 3), torch.tensor([1.0, 3.0])) for _ in range(2)]
    results = [step({"data": data, "label": label}) for data, label in batches]
    weight, bias = (w.tensor for w in net.weights.learnable)
    losses = [
        torch.nn.functional.cross_entropy(data @ weight.t() + bias, label.long())
        for data, label in batches
    ]
    torch.testing.assert_close(torch.stack([r.loss for r in results]), torch.stack(losses).detach())
    wanted = torch.autograd.grad(losses[0] + losses[1], [weight, bias])
    torch.testing.assert_close([weight.grad, bias.grad], list(wanted))
    assert not results[0].loss.requires_grad
