"""Initial weights, compared with those of the real Caffe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.caffe_nets import CaffeAbortedError
from helpers.engine_nets import make_net

from irv2caffe.errors import NetError

# Fillers of a weight of 60 x 500 with numbers of their own.
FILLERS = {
    "constant": 'type: "constant" value: 0.25',
    "uniform": 'type: "uniform" min: -0.5 max: 1.5',
    "uniform by default": 'type: "uniform"',
    "gaussian": 'type: "gaussian" mean: 0.5 std: 2',
    "sparse": 'type: "gaussian" std: 0.1 sparse: 15',
    "positive_unitball": 'type: "positive_unitball"',
    "xavier": 'type: "xavier"',
    "xavier out": 'type: "xavier" variance_norm: FAN_OUT',
    "xavier average": 'type: "xavier" variance_norm: AVERAGE',
    "msra": 'type: "msra" std: 7',
    "msra out": 'type: "msra" variance_norm: FAN_OUT',
    "msra average": 'type: "msra" variance_norm: AVERAGE',
}
REFUSED = {
    "unknown": ('type: "he"', "unknown filler 'he'"),
    "sparse xavier": ('type: "xavier" sparse: 3', "sparse is for gaussian fillers only"),
    "too sparse": ('type: "gaussian" sparse: 61', "sparse 61 of 60 outputs"),
    "no spread": ('type: "gaussian" std: 0', "std 0.0 must be positive"),
    "reversed": ('type: "uniform" min: 1 max: 0', "min 1.0 is above max 0.0"),
    "bilinear": ('type: "bilinear"', "needs a weight with 4 axes"),
}
DATA = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 500 } } }
layer { name: "image" type: "Input" top: "image"
        input_param { shape { dim: 1 dim: 6 dim: 9 dim: 9 } } }
"""


def inner_product(name, filler):
    return f"""layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "{name}"
        inner_product_param {{ num_output: 60 weight_filler {{ {filler} }} }} }}
    """


def window(kind, name, size, rest):
    return f"""layer {{ name: "{name}" type: "{kind}" bottom: "image" top: "{name}"
        convolution_param {{ num_output: 12 kernel_size: {size} {rest} }} }}
    """


CONVOLUTIONS = (
    window("Convolution", "grouped", 3, 'group: 3 weight_filler { type: "msra" }')
    + window("Convolution", "out", 5, 'weight_filler { type: "xavier" variance_norm: FAN_OUT }')
    + window("Deconvolution", "up", 5, 'weight_filler { type: "xavier" }')
    + window("Deconvolution", "odd", 5, 'group: 6 weight_filler { type: "bilinear" }')
    + window("Deconvolution", "even", 4, 'group: 6 weight_filler { type: "bilinear" }')
    + window("Convolution", "plain", 3, "bias_filler { value: 0.3 }")
)


def distance(a, b):
    """The largest distance of two empirical distribution functions, by Kolmogorov and Smirnov."""
    both = np.sort(np.concatenate([a, b]))
    shares = [np.searchsorted(np.sort(x), both, "right") / len(x) for x in (a, b)]
    return np.abs(shares[0] - shares[1]).max()


def same_distribution(ours, theirs):
    """Two samples of one distribution are this close but for one time in 10,000."""
    assert ours.shape == theirs.shape
    ours, theirs = ours.ravel(), theirs.ravel()
    assert distance(ours, theirs) < 2.23 * np.sqrt(2 / len(ours))
    spread = max(theirs.std(), 1e-9)
    assert abs(ours.mean() - theirs.mean()) < 5.5 * spread / np.sqrt(len(ours))
    np.testing.assert_allclose(ours.std(), theirs.std(), rtol=8 / np.sqrt(len(ours)))


@pytest.mark.slow
def test_weights_are_distributed_as_caffes(caffe_nets):
    names = dict(enumerate(FILLERS))
    text = DATA + "".join(inner_product(f"fc{n}", FILLERS[name]) for n, name in names.items())
    text += CONVOLUTIONS
    caffe = caffe_nets.run(text, passes=0, backward=False).params
    torch.manual_seed(1)
    ours = {name: [blob.detach().numpy() for blob in blobs] for name, blobs
            in make_net(text).weights.by_layer.items() if blobs}  # fmt: skip
    assert ours.keys() == caffe.keys()
    for name, blobs in ours.items():
        for blob, theirs in zip(blobs, caffe[name], strict=True):
            if name in ("odd", "even", "plain") or len(np.unique(theirs)) == 1:
                np.testing.assert_allclose(blob, theirs, rtol=1e-6)
            else:
                same_distribution(blob, theirs)
    rows = ours["fc5"][0].sum(1), caffe["fc5"][0].sum(1)
    np.testing.assert_allclose(rows, np.ones((2, 60)), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_caffe_refuses_the_same_fillers(caffe_nets, name):
    filler, words = REFUSED[name]
    text = DATA + inner_product("fc", filler)
    with pytest.raises(NetError, match=words) as found:
        make_net(text)
    assert found.value.layer == "fc"
    with pytest.raises(CaffeAbortedError):
        caffe_nets.run(text, passes=0, backward=False)


def test_weights_are_the_same_on_all_devices_and_for_equal_seeds():
    text = DATA + inner_product("fc", 'type: "msra"')
    torch.manual_seed(3)
    first = make_net(text).weights.by_layer["fc"][0]
    torch.manual_seed(3)
    assert torch.equal(first, make_net(text).weights.by_layer["fc"][0])
