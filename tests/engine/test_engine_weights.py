"""Weights that are shared by name or with another net, their multipliers and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.caffe_nets import CaffeAbortedError
from helpers.engine_nets import make_net

from irv2caffe.errors import NetError

DATA = """
layer { name: "x" type: "Input" top: "x" top: "t"
        input_param { shape { dim: 4 dim: 6 } shape { dim: 4 dim: 6 } } }
"""


def fc(name, bottom, param="", outputs=6, rest=""):
    return f"""layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {rest}
        {param} inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }}
                                       bias_filler {{ value: 0.1 }} }} }}
    """


def loss(bottom, rest=""):
    return f"""layer {{ name: "loss{bottom}" type: "EuclideanLoss" bottom: "{bottom}" bottom: "t"
        top: "loss{bottom}" {rest} }}
    """


def shared(first, second):
    return DATA + fc("a", "x", first) + fc("b", "a", second) + loss("b")


NETS = {
    "shared": shared('param { name: "w" }', 'param { name: "w" }'),
    "shared with another shape": DATA
    + fc("a", "x", 'param { name: "w" }', 4)
    + fc("b", "a", 'param { name: "w" share_mode: PERMISSIVE }', 6)
    + loss("b"),
    "frozen below": DATA
    + fc("a", "x", "param { lr_mult: 0 } param { lr_mult: 0 }")
    + fc("b", "a", "param { lr_mult: 0 }")
    + fc("c", "b")
    + loss("c"),
    "not propagated": DATA
    + fc("a", "x")
    + fc("b", "a", rest="propagate_down: false")
    + fc("c", "a")
    + 'layer { name: "s" type: "Eltwise" bottom: "b" bottom: "c" top: "s" }'
    + loss("s"),
    "loss weights": DATA
    + fc("a", "x")
    + fc("b", "x", rest="loss_weight: 0.5")
    + loss("a", "loss_weight: 3")
    + loss("b", "loss_weight: 0"),
    "beside the loss": DATA + fc("a", "x") + fc("b", "a") + fc("c", "a") + loss("b"),
    "frozen but forced": "force_backward: true"
    + shared('param { name: "w" lr_mult: 0 }', 'param { name: "w" lr_mult: 0 }'),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_gradients_are_caffes(caffe_nets, name):
    net = make_net(NETS[name])
    rng = np.random.default_rng(0)
    given = {name: rng.standard_normal((4, 6), np.float32) for name in ("x", "t")}
    ours = {layer: [b.detach().numpy() for b in blobs]
            for layer, blobs in net.weights.by_layer.items() if blobs}  # fmt: skip
    caffe = caffe_nets.run(NETS[name], inputs=given, weights=ours)
    for _ in range(2):  # weights that change in place between passes change nothing
        for weight in net.weights.learnable:
            weight.tensor.grad = None
            weight.tensor.detach().mul_(1.0)
        result = net.forward({name: torch.from_numpy(value) for name, value in given.items()})
        result.loss.backward()
    for weight in net.weights.learnable:
        theirs = caffe.param_diffs[weight.layer][weight.index]
        grad = weight.tensor.grad
        grad = np.zeros_like(theirs) if grad is None else grad.numpy()
        np.testing.assert_allclose(grad, theirs, rtol=1e-4, atol=1e-5)
    for top, value in result.outputs.items():
        np.testing.assert_allclose(value.detach(), caffe.blobs[top], rtol=1e-5, atol=1e-6)


def test_shared_weights_are_learned_once_and_in_caffes_order():
    net = make_net(shared('param { name: "w" lr_mult: 2 }', 'param { name: "w" decay_mult: 0 }'))
    found = [(w.layer, w.index, w.lr_mult, w.decay_mult) for w in net.weights.learnable]
    assert found == [("a", 0, 2, 0), ("a", 1, 1, 1), ("b", 1, 1, 1)]
    assert net.weights.by_layer["b"][0] is net.weights.by_layer["a"][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("lr_mult: 1", "lr_mult: 2", "shares param 'w' with lr_mult 2, which is 1"),
        ("decay_mult: 1", "decay_mult: 0", "shares param 'w' with decay_mult 0, which is 1"),
    ],
)
def test_unequal_multipliers_of_a_shared_weight_are_refused(caffe_nets, first, second, words):
    text = shared(f'param {{ name: "w" {first} }}', f'param {{ name: "w" {second} }}')
    with pytest.raises(NetError, match=words):
        make_net(text)
    with pytest.raises(CaffeAbortedError, match="mismatched"):
        caffe_nets.run(text, passes=0, backward=False)


@pytest.mark.slow
def test_a_propagate_down_for_each_bottom_or_none(caffe_nets):
    text = DATA + fc("a", "x") + loss("a", "propagate_down: true")
    with pytest.raises(NetError, match="takes a propagate_down for each of its 2 bottoms"):
        make_net(text)
    with pytest.raises(CaffeAbortedError, match="propagate_down"):
        caffe_nets.run(text, passes=0, backward=False)


def test_weights_with_lr_mult_0_get_no_gradient():
    net = make_net(NETS["frozen below"])
    assert [w.tensor.requires_grad for w in net.weights.learnable] == [False] * 3 + [True] * 3


def test_test_nets_share_the_weights_of_layers_with_the_same_name():
    train = make_net(DATA + fc("a", "x") + fc("b", "a") + loss("b"))
    test = make_net(DATA + fc("a", "x") + fc("own", "a") + loss("own"), "TEST", trained=train)
    assert test.weights.by_layer["a"][0] is train.weights.by_layer["a"][0]
    assert test.weights.by_layer["own"][0] is not train.weights.by_layer["b"][0]
    with pytest.raises(NetError, match=r"'a' .* has the weights 5x6, 5; in the training net"):
        make_net(DATA + fc("a", "x", outputs=5), "TEST", trained=train)


def test_stages_and_levels_choose_layers():
    text = DATA + fc("a", "x") + fc("b", "a", rest='include { stage: "s" min_level: 2 }')
    assert list(make_net(text, "TEST").outputs) == ["a", "t"]
    assert list(make_net(text, "TEST", stages=["s"], level=2).outputs) == ["b", "t"]
