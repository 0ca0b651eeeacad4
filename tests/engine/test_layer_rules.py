"""Single rules of layers: random numbers, bad input, options, types of numbers, compiling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.layer_parity import Bottom, Case, Parity

from irv2caffe.engine.layer import LAYERS
from irv2caffe.engine.net import Net
from irv2caffe.engine.options import EngineOptions
from irv2caffe.errors import InputError, MissingInputError, NetError
from irv2caffe.proto import messages
from irv2caffe.proto.text import parse_prototxt

CPU = torch.device("cpu")


def make(text, phase="TRAIN", **options):
    net = parse_prototxt(text, messages.NetParameter)
    return Net(net, phase, EngineOptions(**options), device=CPU)


def source(*dims, top="x"):
    sizes = " ".join(f"dim: {size}" for size in dims)
    shape = f"input_param {{ shape {{ {sizes} }} }}"
    return f'layer {{ name: "{top}" type: "Input" top: "{top}" {shape} }}\n'


def layer(kind, body="", bottoms="x", tops="y"):
    reads = "".join(f' bottom: "{name}"' for name in bottoms.split())
    makes = "".join(f' top: "{name}"' for name in tops.split())
    return f'layer {{ name: "l" type: "{kind}"{reads}{makes} {body} }}\n'


def run(text, phase="TRAIN", given=None, **options):
    return make(text, phase, **options).forward(given or {}, keep_blobs=True).blobs


def learned(*dims):
    """A blob that is a weight of a Parameter layer."""
    sizes = " ".join(f"dim: {size}" for size in dims)
    shape = f"parameter_param {{ shape {{ {sizes} }} }}"
    return f'layer {{ name: "p" type: "Parameter" top: "x" {shape} }}\n'


LOSS = source(4, 10) + source(4, top="t") + layer("SoftmaxWithLoss", bottoms="x t")


@pytest.mark.parametrize("in_place", [False, True])
def test_dropout_keeps_a_share_and_the_mean(in_place):
    torch.manual_seed(0)
    text = source(200, 500, top="i") + layer("Bias", bottoms="i", tops="x")
    text += layer("Dropout", "dropout_param { dropout_ratio: 0.2 }", tops="x" if in_place else "y")
    text = text.replace('"l"', '"b"', 1)
    given = {"i": torch.ones(200, 500)}
    top = run(text, "TRAIN", given)["x" if in_place else "y"]
    assert set(top.unique().tolist()) == {0.0, 1.25}
    assert top.mean().item() == pytest.approx(1, abs=0.01)
    torch.testing.assert_close(run(text, "TEST", given)["x" if in_place else "y"], given["i"])


def test_the_gradient_of_dropout_is_zero_where_the_top_is():
    net = make(learned(50) + layer("Dropout", "loss_weight: 1"))
    with torch.no_grad():
        net.weights.by_layer["p"][0].fill_(1)
    result = net.forward({}, keep_blobs=True)
    result.loss.backward()
    torch.testing.assert_close(net.weights.by_layer["p"][0].grad, result.blobs["y"].detach())


def test_dummy_data_is_random_in_each_pass_unless_constant():
    text = layer(
        "DummyData",
        'dummy_data_param { shape { dim: 5 } data_filler { type: "gaussian" std: 1 } '
        "data_filler { value: 2 } }",
        bottoms="",
        tops="a b",
    )
    net = make(text)
    first, second = (net.forward({}, keep_blobs=True).blobs for _ in range(2))
    assert not torch.equal(first["a"], second["a"])
    torch.testing.assert_close(first["b"], torch.full((5,), 2.0))


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["MAX", "AVE"])
def test_pooling_windows_beyond_the_image_hold_caffes_values(caffe_nets, pool):
    """Forward only: backward, Caffe writes outside of its memory."""
    bottom = Bottom((2, 3, 5, 5), learns=False)
    cases = [
        Case(
            "Pooling",
            f"pooling_param {{ pool: {pool} kernel_size: 2 stride: {stride} }}",
            (bottom,),
        )
        for stride in (3, 4, 7)
    ]
    cases = [Case(c.kind, c.body, c.bottoms, backward=False) for c in cases]
    Parity().check(caffe_nets, cases)


@pytest.mark.slow
def test_a_nan_at_the_label_counts_as_right(caffe_nets):
    text = source(3, 4) + source(3, top="t")
    text += layer("Accuracy", "accuracy_param { top_k: 1 }", "x t")
    scores = np.array([[1, 2, np.nan, 0], [np.nan, 3, 2, 1], [np.nan] * 4], "f4")
    labels = np.array([2, 2, 0], "f4")
    inputs = {"x": scores, "t": labels}
    expected = caffe_nets.run(text, "TEST", inputs=inputs, backward=False).blobs["y"]
    given = {name: torch.from_numpy(value) for name, value in inputs.items()}
    assert run(text, "TEST", given)["y"].item() == expected == np.float32(2 / 3)


@pytest.mark.slow
def test_infogain_loss_reads_its_matrix_from_a_file(caffe_nets, tmp_path):
    matrix = np.random.default_rng(0).random((5, 5), np.float32)
    blob = messages.BlobProto(data=matrix.ravel())
    blob.shape.dim.extend([1, 1, 5, 5])
    path = tmp_path / "h.binaryproto"
    path.write_bytes(blob.SerializeToString())
    body = f'infogain_loss_param {{ source: "{path}" }}'
    bottoms = (Bottom((6, 5)), Bottom((6,), "labels 5", learns=False))
    Parity().check(caffe_nets, [Case("InfogainLoss", body, bottoms)])
    text = source(6, 4) + source(6, top="t") + layer("InfogainLoss", body, "x t")
    with pytest.raises(NetError, match=r"25 values, not 4 x 4"):
        make(text)
    with pytest.raises(MissingInputError, match="missing"):
        make(text.replace("h.binaryproto", "missing"))


@pytest.mark.parametrize("label", [10.0, -1.0])
@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "HingeLoss", "Accuracy"])
def test_a_label_out_of_range_is_named(label, kind):
    text = LOSS.replace("SoftmaxWithLoss", kind)
    text = text.replace('bottom: "t"', 'bottom: "t" top: "y"') if 'top: "y"' not in text else text
    labels = torch.tensor([0.0, label, 3.0, 9.0])
    with pytest.raises(
        InputError, match=rf"'l' \({kind}\): label {label:.0f} is out of range"
    ) as e:
        run(text, given={"x": torch.randn(4, 10), "t": labels})
    assert "'x' has classes 0 to 9" in e.value.hint


def test_an_ignored_label_may_be_out_of_range():
    body = "loss_param { ignore_label: 255 }"
    text = source(4, 10) + source(4, top="t") + layer("SoftmaxWithLoss", body, "x t")
    scores, labels = torch.randn(4, 10), torch.tensor([0.0, 255.0, 3.0, 255.0])
    expected = torch.nn.functional.cross_entropy(scores, labels.long(), ignore_index=255)
    torch.testing.assert_close(run(text, given={"x": scores, "t": labels})["y"], expected)


def test_labels_that_depend_on_weights_are_refused():
    text = learned(4, 10) + layer("Reduction", "reduction_param { axis: 1 }", tops="t")
    text = text.replace('"l"', '"r"') + layer("SoftmaxWithLoss", bottoms="x t", tops="y")
    with pytest.raises(NetError, match="cannot backpropagate to label inputs"):
        run(text)
    allowed = text.replace('top: "y"', 'top: "y" propagate_down: true propagate_down: false')
    run(allowed)


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "HingeLoss", "SigmoidCrossEntropyLoss"])
def test_labels_from_data_are_allowed_with_force_backward(kind):
    shape = (4, 10) if kind == "SigmoidCrossEntropyLoss" else (4,)
    text = source(4, 10) + source(*shape, top="t") + layer(kind, bottoms="x t")
    net = make("force_backward: true\n" + text)
    result = net.forward({"x": torch.randn(4, 10), "t": torch.zeros(shape)}, keep_blobs=True)
    result.loss.backward()
    assert result.blobs["x"].grad.abs().sum() > 0
    assert result.blobs["t"].grad is None


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_label_smoothing_is_that_of_torch_in_train(phase):
    given = {"x": torch.randn(4, 10), "t": torch.tensor([0.0, 1.0, 3.0, 9.0])}
    share = 0.1 if phase == "TRAIN" else 0.0
    expected = torch.nn.functional.cross_entropy(
        given["x"], given["t"].long(), label_smoothing=share
    )
    top = run(LOSS, phase, given, label_smoothing=0.1)["y"]
    torch.testing.assert_close(top, expected)


def test_the_loss_is_bounded_and_its_gradient_is_not():
    text = learned(1, 2) + source(1, top="t") + layer("SoftmaxWithLoss", bottoms="x t", tops="y")
    net = make(text)
    (scores,) = net.weights.by_layer["p"]
    with torch.no_grad():
        scores.copy_(torch.tensor([[-500.0, 500.0]]))
    result = net.forward({"t": torch.zeros(1)})
    assert result.loss.item() == pytest.approx(-math.log(1.17549435e-38), rel=1e-6)
    result.loss.backward()
    torch.testing.assert_close(scores.grad, torch.tensor([[-1.0, 1.0]]))


def test_losses_and_statistics_are_float32_under_autocast():
    text = source(8, 3, 6, 6, top="i") + source(8, top="t")
    text += layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }", "i", "c")
    text = text.replace('"l"', '"c"')
    text += layer("BatchNorm", bottoms="c", tops="c").replace('"l"', '"n"')
    text += layer("InnerProduct", "inner_product_param { num_output: 5 }", "c", "x").replace(
        '"l"', '"f"'
    )
    net = make(text + layer("SoftmaxWithLoss", bottoms="x t"))
    given = {"i": torch.randn(8, 3, 6, 6), "t": torch.zeros(8)}
    with torch.autocast("cpu", torch.bfloat16):
        result = net.forward(given, keep_blobs=True)
    assert result.blobs["c"].dtype == result.blobs["x"].dtype == torch.bfloat16
    assert result.loss.dtype == torch.float32
    assert all(blob.dtype == torch.float32 for blob in net.weights.by_layer["n"])


def test_the_same_layers_run_with_another_batch_size():
    text = source(2, 3, 4, 5) + layer("Reshape", "reshape_param { shape { dim: 0 dim: -1 } }")
    assert run(text, given={"x": torch.zeros(7, 3, 4, 5)})["y"].shape == (7, 60)


UNSUPPORTED = {
    "pool: STOCHASTIC": layer("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }"),
    "4 spatial axes, at most 3": layer(
        "Convolution", "convolution_param { num_output: 1 kernel_size: 1 }", "v"
    ),
    "in place, where Caffe's gradient": layer("LRN", tops="x"),
    "in place, where Caffe overwrites": layer("Eltwise", bottoms="x z", tops="x"),
    "dropout_ratio 1 is not below 1": layer("Dropout", "dropout_param { dropout_ratio: 1 }"),
    "min is above max": layer("Clip", "clip_param { min: 1 max: -1 }"),
    "normalize, which Caffe refuses": layer(
        "InfogainLoss", "loss_param { normalize: true }", "x t h"
    ),
}


@pytest.mark.parametrize("words", UNSUPPORTED)
def test_what_a_layer_cannot_do_is_said(words):
    sources = source(2, 4, 4, 4) + source(2, 4, 4, 4, top="z") + source(2, 4, 4, top="t")
    sources += source(4, 4, top="h") + source(1, 1, 2, 2, 2, 2, top="v")
    with pytest.raises(NetError, match=words):
        make(sources + UNSUPPORTED[words])


COMPILED = (
    source(2, 3, 12, 12, top="i")
    + source(2, top="t")
    + """
layer { name: "c" type: "Convolution" bottom: "i" top: "c"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "n" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "s" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
layer { name: "m" type: "Pooling" bottom: "c" top: "m" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "a" type: "Pooling" bottom: "m" top: "a"
        pooling_param { pool: AVE kernel_size: 3 pad: 1 } }
layer { name: "k" type: "LRN" bottom: "a" top: "k" }
layer { name: "e" type: "Eltwise" bottom: "k" bottom: "a" top: "e"
        eltwise_param { coeff: 1 coeff: 0.2 } }
layer { name: "j" type: "Concat" bottom: "e" bottom: "a" top: "j" }
layer { name: "d" type: "Dropout" bottom: "j" top: "j" dropout_param { dropout_ratio: 0 } }
layer { name: "f" type: "InnerProduct" bottom: "j" top: "f"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "l" type: "SoftmaxWithLoss" bottom: "f" bottom: "t" top: "loss" }
layer { name: "acc" type: "Accuracy" bottom: "f" bottom: "t" top: "acc" }
"""
)


@pytest.mark.slow
def test_training_nets_compile_without_graph_breaks():
    """With the backend that traces forward and backward and compiles nothing."""
    torch._dynamo.reset()
    net = make(COMPILED)

    def forward(data, labels):
        blobs = {"i": data, "t": labels}
        for part in net.layers[2:]:
            bottoms = [blobs[name] for name in part.info.bottoms]
            tops = LAYERS[part.info.type].function(part, *bottoms)
            tops = tops if isinstance(tops, tuple) else (tops,)
            blobs.update(zip(part.info.tops, tops, strict=True))
        return blobs["loss"], blobs["acc"]

    data, labels = torch.randn(2, 3, 12, 12), torch.tensor([1.0, 3.0])
    plain, _ = forward(data, labels)
    compiled, _ = torch.compile(forward, fullgraph=True, backend="aot_eager")(data, labels)
    torch.testing.assert_close(compiled, plain)
    weight = net.weights.by_layer["c"][0]
    grads = [torch.autograd.grad(loss, weight)[0] for loss in (plain, compiled)]
    torch.testing.assert_close(*grads)
