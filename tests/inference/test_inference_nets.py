"""Nets for use, made from trained ones, against the trained ones in the real Caffe."""

import numpy as np
import pytest
from google.protobuf import text_format
from helpers import foreign_nets
from helpers.whole_nets import foreign_net, own_net

from irv2caffe.config import net_options
from irv2caffe.errors import NetError
from irv2caffe.inference.nets import ends_of, inference_net, with_stored_statistics
from irv2caffe.net.inception_resnet_v2 import deploy, train_val
from irv2caffe.proto import messages
from irv2caffe.proto.text import format_prototxt, parse_prototxt
from irv2caffe.shapes.upgrade import upgrade

DATA = """
layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { crop_size: 6 mean_value: 1 } data_param { source: "db" batch_size: 2 } }
"""
INPUT = """
layer { name: "in" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } shape { dim: 2 } } }
"""
FC = """
layer { name: "NAME" type: "InnerProduct" bottom: "data" top: "NAME"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }'


def fc(name="fc"):
    return FC.replace("NAME", name)


def net_of(text):
    return parse_prototxt(text, messages.NetParameter)


OWN = {
    "slim with an auxiliary head": {"variant": "slim", "crop": 107, "width": 0.05, "aux": True},
    "paper": {"variant": "paper", "crop": 75, "width": 0.05},
}


@pytest.mark.parametrize("name", OWN)
def test_our_train_val_nets_become_our_deploy_nets(name):
    options = net_options(num_classes=10, **OWN[name])
    made = inference_net(train_val(options, 2))
    wanted = deploy(options)
    assert format_prototxt(made) == format_prototxt(inference_net(wanted))
    kept = [layer.name for layer in made.layer]
    assert kept[1:] == [layer.name for layer in wanted.layer][1:]


@pytest.mark.parametrize(
    "make",
    [
        lambda: own_net("slim", crop=107, width=0.05, batch=2, aux=True),
        lambda: foreign_net("GoogLeNet", width=0.1, batch=2),
        lambda: foreign_net("DenseNet-121", width=0.1, batch=2, size=64),
        lambda: foreign_net("SqueezeNet", width=0.2, batch=2, size=64),
    ],
    ids=["slim", "GoogLeNet", "DenseNet", "SqueezeNet"],
)
def test_it_gives_the_scores_of_the_trained_net(caffe_nets, make, tmp_path):
    trained = make()
    for layer in trained.layer:
        if layer.type == "Dropout":
            layer.dropout_param.dropout_ratio = 0.5
    rng = np.random.default_rng(2)
    shape = tuple(trained.layer[0].input_param.shape[0].dim)
    images = rng.standard_normal(shape).astype(np.float32)
    given = {"data": images, "label": np.zeros(shape[0], np.float32)}
    weights = tmp_path / "a.caffemodel"
    text = text_format.MessageToString(trained)
    caffe_nets.run(text, "TRAIN", inputs=given, backward=False, passes=2, save=[weights])
    theirs = caffe_nets.run(text, "TEST", inputs=given, backward=False, load=[weights])
    made = inference_net(trained)
    ends = ends_of(made)
    assert ends.shape == shape[1:]
    used = format_prototxt(made)
    assert not {"Accuracy", "SoftmaxWithLoss"} & {layer.type for layer in made.layer}
    ours = caffe_nets.run(used, "TEST", inputs={ends.input: images}, backward=False, load=[weights])
    scores = ours.blobs[ends.logits]
    assert np.array_equal(scores, theirs.blobs[ends.logits])
    assert scores.reshape(2, -1).std() > 0
    probabilities = ours.blobs[ends.probabilities].reshape(2, -1)
    exact = np.exp(scores.reshape(2, -1) - scores.max())
    assert np.allclose(probabilities, exact / exact.sum(axis=1, keepdims=True), atol=1e-6)


def test_batch_statistics_become_stored_ones_where_images_come_one_by_one():
    options = net_options(variant="seed", crop=75, width=0.05, num_classes=10)
    made = inference_net(train_val(options, 2))
    norms = [layer for layer in made.layer if layer.type == "BatchNorm"]
    assert any(layer.batch_norm_param.HasField("use_global_stats") for layer in norms)
    stored, changed = with_stored_statistics(made)
    assert changed == len(norms)
    assert stored == inference_net(deploy(options))
    assert with_stored_statistics(stored) == (stored, 0)


def test_of_several_heads_the_heaviest_and_else_the_last_is_kept():
    losses = "".join(
        f'layer {{ name: "l{name}" type: "SoftmaxWithLoss" bottom: "{name}" bottom: "label" '
        f'top: "l{name}" loss_weight: {weight} }}'
        for name, weight in (("a", 0.3), ("b", 1), ("c", 0.3))
    )
    heads = fc("a") + fc("b") + fc("c")
    assert ends_of(inference_net(net_of(DATA + heads + losses))).logits == "b"
    same = losses.replace("0.3", "1")
    made = inference_net(net_of(DATA + heads + same))
    assert ends_of(made).logits == "c"
    assert [layer.name for layer in made.layer] == ["data", "c", "prob"]


def test_phases_and_what_is_only_for_training_are_gone():
    twice = DATA.replace('top: "label"', 'top: "label" include { phase: TRAIN }')
    twice += DATA.replace('top: "label"', 'top: "label" include { phase: TEST }')
    extra = 'layer { name: "n" type: "Silence" bottom: "label" include { phase: TRAIN } }'
    made = inference_net(net_of("force_backward: true " + twice + fc() + LOSS + extra))
    assert [layer.type for layer in made.layer] == ["Input", "InnerProduct", "Softmax"]
    assert not any(layer.include for layer in made.layer)
    assert not made.force_backward


@pytest.mark.parametrize(
    ("text", "logits", "probabilities"),
    [
        (INPUT + fc(), "fc", "prob"),  # no softmax
        (INPUT + fc("prob"), "prob", "prob_"),  # a name that is taken
        (INPUT + fc() + 'layer { name: "s" type: "Softmax" bottom: "fc" top: "s" }', "fc", "s"),
        (INPUT + fc() + 'layer { name: "s" type: "Softmax" bottom: "fc" top: "fc" }', "fc", "prob"),
        (
            INPUT
            + fc()
            + 'layer { name: "s" type: "Softmax" bottom: "fc" top: "s" }'
            + 'layer { name: "l" type: "MultinomialLogisticLoss" bottom: "s" bottom: "label" '
            'top: "l" }',
            "fc",
            "s",
        ),
    ],
)
def test_it_ends_in_a_softmax(text, logits, probabilities):
    ends = ends_of(inference_net(net_of(text)))
    assert (ends.logits, ends.probabilities) == (logits, probabilities)


def test_nets_of_2014_are_upgraded(caffe_nets):
    text = """
    name: "old" input: "data" input_dim: 2 input_dim: 3 input_dim: 6 input_dim: 6
    layers { name: "fc" type: INNER_PRODUCT bottom: "data" top: "fc"
      inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
    layers { name: "prob" type: SOFTMAX bottom: "fc" top: "prob" }
    """
    made = inference_net(net_of(text))
    assert ends_of(made).shape == (3, 6, 6)
    run = caffe_nets.run(format_prototxt(made), "TEST", backward=False)
    assert run.blobs["prob"].shape == (1, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (fc().replace('bottom: "data"', "") + LOSS, "no input"),
        (DATA, "does not end in a classifier"),
        (DATA + fc() + LOSS.replace("SoftmaxWithLoss", "EuclideanLoss"), "numbers"),
        (DATA + fc() + LOSS.replace("SoftmaxWithLoss", "SigmoidCrossEntropyLoss"), "several"),
        (
            DATA
            + DATA.replace('"data"', '"b"').replace('"label"', '"c"')
            + 'layer { name: "s" type: "Eltwise" bottom: "data" bottom: "b" top: "s" }'
            + fc().replace('"data"', '"s"')
            + LOSS,
            "2 inputs",
        ),
        (
            DATA + 'layer { name: "py" type: "Python" bottom: "data" top: "d" '
            'python_param { module: "os" layer: "x" } }' + fc().replace('"data"', '"d"') + LOSS,
            "Python",
        ),
        (INPUT.replace("dim: 6 dim: 6 }", "}") + fc() + LOSS, "2 axes"),
    ],
)
def test_other_nets_are_refused(text, words):
    with pytest.raises(NetError, match=words):
        inference_net(net_of(text))


def test_the_zoo_of_deploy_nets():
    """Every net ends in the Softmax that its author gave it."""
    for make in (foreign_nets.resnet, foreign_nets.mobilenet, foreign_nets.vgg16):
        net = text_format.Parse(str(make()), messages.NetParameter())
        made = inference_net(net)
        upgraded = upgrade(net)
        assert len(made.layer) == len(upgraded.layer)
        assert made.layer[-1] == upgraded.layer[-1]
