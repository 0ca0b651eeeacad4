"""Layers of the torch engine give the values and gradients of the real Caffe."""

from __future__ import annotations

import os

import pytest
import torch
from helpers import layer_cases
from helpers.layer_parity import Parity
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

FAMILIES = {
    "arrangements": layer_cases.arrangements(),
    "batch norms": layer_cases.batch_norms(),
    "convolutions": layer_cases.convolutions(),
    "deconvolutions": layer_cases.deconvolutions(),
    "dense layers": layer_cases.dense_layers(),
    "forward only": layer_cases.forward_only(),
    "losses": layer_cases.losses(),
    "neurons": layer_cases.neurons(),
    "poolings": layer_cases.poolings(),
    "scales": layer_cases.scales(),
}
NETS = int(os.environ.get("NETS_PER_FAMILY", "30"))
"""Random nets for each family: always the same 30, or as many new ones as the variable says."""
LAYERS = 25
"""The most layers in one net."""


@pytest.fixture(scope="module")
def parity():
    """The worst differences; ``pytest -s`` shows their table."""
    torch.set_num_threads(1)
    result = Parity()
    yield result
    print(f"\n{result.table()}")


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_layers_equal_caffes(family, caffe_nets, parity):
    @settings(
        max_examples=NETS,
        deadline=None,
        database=None,
        derandomize=NETS == 30,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(
        cases=st.lists(FAMILIES[family], min_size=LAYERS // 2, max_size=LAYERS),
        phase=st.sampled_from(["TRAIN", "TEST"]),
        passes=st.integers(1, 3),
        channels_last=st.booleans(),
    )
    def compare(cases, phase, passes, channels_last):
        parity.check(caffe_nets, cases, phase, passes, channels_last=channels_last)

    compare()


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_layers_on_a_gpu_equal_those_on_the_cpu(family, parity):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    torch.backends.cudnn.allow_tf32 = False

    @settings(
        max_examples=5,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        cases=st.lists(FAMILIES[family], min_size=LAYERS // 2, max_size=LAYERS),
        channels_last=st.booleans(),
    )
    def compare(cases, channels_last):
        parity.check_device("cuda", cases, channels_last=channels_last)

    compare()
