"""A net of the torch engine: its passes and its weights."""

from __future__ import annotations

import itertools
import weakref

import numpy as np
import pytest
import torch
from helpers.engine_nets import make_net

from irv2caffe.engine.layer import LAYERS, LayerType
from irv2caffe.engine.options import EngineOptions
from irv2caffe.errors import NetError, UsageError

NET = """
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "fc" top: "fc" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" loss_weight: 2 }
"""


def test_loss_and_gradients_of_a_small_net():
    net = make_net(NET)
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
        make_net(text)


LOSSES = (
    NET.replace('bottom: "label" loss_weight: 2', 'bottom: "label" top: "loss" loss_weight: 2')
    + """
layer { name: "p" type: "Power" bottom: "loss" top: "p" power_param { scale: 3 } loss_weight: 0.5 }
layer { name: "zero" type: "Power" bottom: "fc" top: "Zero" loss_weight: 0 }
layer { name: "l2" type: "EuclideanLoss" bottom: "fc" bottom: "fc" }
layer { name: "sum" type: "Reduction" bottom: "data" top: "sum" }
"""
)


@pytest.mark.slow
def test_outputs_have_caffes_names_and_values(caffe_nets):
    """A top with a loss weight that is read, too, is the output of its Split layer."""
    net = make_net(LOSSES)
    given = {"data": np.array([[1, -2, 3], [4, 5, -6]], "f4"), "label": np.array([1, 3], "f4")}
    weights = {"fc": [blob.detach().numpy() for blob in net.weights.by_layer["fc"]]}
    caffe = caffe_nets.run(LOSSES, inputs=given, weights=weights)
    result = net.forward({name: torch.from_numpy(value) for name, value in given.items()})
    assert list(result.outputs) == ["Zero", "loss_loss_0_split_0", "p", "sum"]
    for name, value in result.outputs.items():
        np.testing.assert_allclose(value.detach(), caffe.blobs[name], rtol=1e-5)
    result.loss.backward()
    for blob, diff in zip(net.weights.by_layer["fc"], caffe.param_diffs["fc"], strict=True):
        np.testing.assert_allclose(blob.grad, diff, rtol=1e-5, atol=1e-6)


def random_inputs():
    return {"data": torch.randn(2, 3), "label": torch.tensor([1.0, 3.0])}


def test_debug_layers_prints_each_layer_and_stop_after_ends_the_pass(capsys):
    options = EngineOptions(debug_layers=True, stop_after="relu")
    result = make_net(NET, options=options).forward(random_inputs())
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("Layer ")[1].split(" ")[0] for line in lines] == ["data", "fc", "relu"]
    assert "[Forward] Layer fc (InnerProduct) 2x3 -> 2x4 fc data: " in lines[1]
    assert result.loss == 0
    assert not result.outputs  # the only one is the loss, which has not run
    with pytest.raises(UsageError, match="no layer of this name") as found:
        make_net(NET, options=EngineOptions(stop_after="rellu"))
    assert found.value.hint == "did you mean relu?"


def test_blobs_are_dropped_after_their_last_use(monkeypatch):
    tops: list[weakref.ref] = []
    alive = []

    def probe(layer, x):
        alive.append(sum(top() is not None for top in tops))
        result = x + 1
        tops.append(weakref.ref(result))
        return result

    monkeypatch.setitem(LAYERS, "Power", LayerType(probe))
    names = ["data", *"abcdefgh"]
    text = NET + "".join(
        f'layer {{ name: "{top}" type: "Power" bottom: "{bottom}" top: "{top}" }}'
        for bottom, top in itertools.pairwise(names)
    )
    net = make_net(text)
    with torch.no_grad():
        net.forward(random_inputs())
    assert alive == [0, 1, 1, 1, 1, 1, 1, 1]
    alive.clear()
    tops.clear()
    assert set(names) <= net.forward(random_inputs(), keep_blobs=True).blobs.keys()
    assert alive == list(range(8))


def test_a_top_overwrites_its_bottom_only_where_nothing_needs_it():
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "of an input" type: "ReLU" bottom: "x" top: "x" }
    layer { name: "flat" type: "Flatten" bottom: "x" top: "flat" }
    layer { name: "of a view" type: "ReLU" bottom: "flat" top: "flat" }
    layer { name: "sum" type: "Eltwise" bottom: "flat" bottom: "flat" top: "sum" }
    layer { name: "of a sum" type: "ReLU" bottom: "sum" top: "sum" }
    layer { name: "of a ReLU, which keeps its top" type: "ReLU" bottom: "sum" top: "sum" }
    layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc"
            inner_product_param { num_output: 2 } }
    layer { name: "product" type: "Eltwise" bottom: "fc" bottom: "fc" top: "product"
            eltwise_param { operation: PROD stable_prod_grad: false } }
    layer { name: "of a product" type: "ReLU" bottom: "product" top: "product" loss_weight: 1 }
    layer { name: "not in place" type: "ReLU" bottom: "fc" top: "y" }
    """
    net = make_net(text)
    assert [layer.info.name for layer in net.layers if layer.in_place] == ["of a sum"]
    net.forward({"x": torch.randn(2, 3)}).loss.backward()


@pytest.mark.slow
def test_a_layer_with_a_phase_of_its_own_has_that_phase(caffe_nets):
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 8 dim: 50 } } }
    layer { name: "drop" type: "Dropout" bottom: "x" top: "y" phase: TEST }
    """
    x = np.random.default_rng(0).standard_normal((8, 50)).astype(np.float32)
    caffe = caffe_nets.run(text, inputs={"x": x}, backward=False)
    ours = make_net(text).forward({"x": torch.from_numpy(x)}).outputs["y"]
    np.testing.assert_array_equal(ours, caffe.blobs["y"])
    np.testing.assert_array_equal(ours, x)


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.999, 0.5])
def test_running_statistics_are_caffes_after_many_passes(caffe_nets, fraction):
    text = f"""
    layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 6 dim: 3 dim: 5 dim: 4 }} }} }}
    layer {{ name: "a" type: "BatchNorm" bottom: "x" top: "x"
             batch_norm_param {{ moving_average_fraction: {fraction} }} }}
    layer {{ name: "relu" type: "ReLU" bottom: "x" top: "x" }}
    layer {{ name: "b" type: "BatchNorm" bottom: "x" top: "y"
             batch_norm_param {{ moving_average_fraction: {fraction} eps: 0.001 }} }}
    """  # noqa: E501
    net = make_net(text)
    rng = np.random.default_rng(0)
    theirs = None
    for number in range(30):
        x = rng.normal(number, 1 + number, (6, 3, 5, 4)).astype(np.float32)
        theirs = caffe_nets.run(text, inputs={"x": x}, weights=theirs, backward=False).params
        net.forward({"x": torch.from_numpy(x)})
    for name in ("a", "b"):
        for ours, blob in zip(net.weights.by_layer[name], theirs[name], strict=True):
            np.testing.assert_allclose(ours, blob, rtol=1e-5, atol=1e-4)
    test = make_net(text, "TEST", trained=net)
    caffe = caffe_nets.run(text, "TEST", inputs={"x": x}, weights=theirs, backward=False)
    ours = test.forward({"x": torch.from_numpy(x)}).outputs["y"]
    np.testing.assert_allclose(ours, caffe.blobs["y"], rtol=1e-4, atol=1e-5)
