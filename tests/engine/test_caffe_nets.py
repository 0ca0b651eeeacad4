"""The helper that runs nets in the real Caffe."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.caffe_nets import CaffeAbortedError

NET = """
force_backward: true
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "fc/a:b" type: "InnerProduct" bottom: "x" top: "y"
        inner_product_param { num_output: 4 } }
"""


@pytest.mark.slow
def test_values_and_gradients_of_an_inner_product(caffe_nets):
    rng = np.random.default_rng(0)
    x, w, b, g = (rng.standard_normal(s, np.float32) for s in ((5, 3), (4, 3), (4,), (5, 4)))
    run = caffe_nets.run(NET, inputs={"x": x}, weights={"fc/a:b": [w, b]}, top_diffs={"y": g})
    np.testing.assert_allclose(run.blobs["y"], x @ w.T + b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run.diffs["x"], g @ w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run.param_diffs["fc/a:b"][0], g.T @ x, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run.params["fc/a:b"][1], b)
    assert run.blobs["y"].dtype == np.float32


@pytest.mark.slow
def test_an_abort_has_caffes_words_and_the_next_net_runs(caffe_nets):
    with pytest.raises(CaffeAbortedError, match=r"Unknown bottom blob 'z'"):
        caffe_nets.run(NET.replace('bottom: "x"', 'bottom: "z"'))
    assert not caffe_nets.run(NET, "TEST", backward=False).diffs
