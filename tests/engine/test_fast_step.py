"""The steps of the torch engine: gradients beside those of torch modules and of the plain step."""

from __future__ import annotations

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from irv2caffe.engine.fast import PLAIN, Modes, make_step
from irv2caffe.engine.fast.later import PAYS_S, WATCHED, LaterStep
from irv2caffe.engine.fast.rearranged import FastStep
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
SHAPES = "shape { dim: 4 dim: 3 dim: 9 dim: 9 } shape { dim: 4 }"


def conv(name, bottom, width, size=1):
    """A convolution with BatchNorm, Scale and ReLU."""
    return f"""
    layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
             convolution_param {{ num_output: {width} kernel_size: {size} pad: {size // 2}
             bias_term: false weight_filler {{ type: "msra" }} }} }}
    layer {{ name: "{name}_bn" type: "BatchNorm" bottom: "{name}" top: "{name}"
             batch_norm_param {{ moving_average_fraction: 0.9 }} }}
    layer {{ name: "{name}_scale" type: "Scale" bottom: "{name}" top: "{name}"
             scale_param {{ bias_term: true filler {{ type: "uniform" min: 0.5 max: 2 }}
                            bias_filler {{ type: "gaussian" std: 0.3 }} }} }}
    layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}"""


def block(name, bottom):
    """Two branches that begin with 1x1 convolutions, and a scaled sum."""
    return f"""
    {conv(f"{name}_a", bottom, 4)}
    {conv(f"{name}_b", bottom, 6)}
    {conv(f"{name}_c", f"{name}_b", 4, 3)}
    layer {{ name: "{name}_cat" type: "Concat" bottom: "{name}_a" bottom: "{name}_c"
             top: "{name}_cat" }}
    layer {{ name: "{name}_up" type: "Convolution" bottom: "{name}_cat" top: "{name}_up"
             convolution_param {{ num_output: 8 kernel_size: 1
                                  weight_filler {{ type: "msra" }} }} }}
    layer {{ name: "{name}" type: "Eltwise" bottom: "{bottom}" bottom: "{name}_up" top: "{name}"
             eltwise_param {{ coeff: 1 coeff: 0.17 }} }}
    layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}"""


RESIDUAL = f"""
layer {{ name: "data" type: "Input" top: "data" top: "label" input_param {{ {SHAPES} }} }}
{conv("stem", "data", 8, 3)}
layer {{ name: "pool" type: "Pooling" bottom: "stem" top: "pool"
         pooling_param {{ kernel_size: 3 stride: 2 }} }}
{block("one", "pool")} {block("two", "one")}
layer {{ name: "fc" type: "InnerProduct" bottom: "two" top: "fc"
         inner_product_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" }}
"""


def make(text):
    proto = parse_prototxt(text, messages.NetParameter)
    torch.manual_seed(0)
    return Net(proto, "TRAIN", EngineOptions(), device=torch.device("cpu"))


def test_gradients_of_two_steps_add_up():
    net = make(NET)
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


def two_steps(modes):
    """Outputs, gradients and running sums after two steps of one seed."""
    net = make(RESIDUAL)
    step = make_step(net, EngineOptions(), modes=modes)
    for _ in range(2):
        given = {"data": torch.randn(4, 3, 9, 9), "label": torch.tensor([0.0, 1, 2, 4])}
        result = step(given)
    tensors = [weight.tensor for weight in net.weights.learnable]
    gradients = [tensor.grad for tensor in tensors if tensor.grad is not None]
    sums = [tensor for tensor in tensors if not tensor.requires_grad]
    return result.outputs, gradients, sums


def compare_two_steps(modes):
    """Fails unless these modes give what the layers one by one give."""
    outputs, gradients, sums = two_steps(PLAIN)
    mine = two_steps(modes)
    torch.testing.assert_close(mine[0], outputs)
    torch.testing.assert_close(mine[1], gradients, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine[2], sums, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "modes",
    [Modes(merge=False, channels_last=False), Modes(channels_last=False), Modes()],
    ids=["fused", "merged", "channels_last"],
)
def test_a_rearranged_net_computes_what_the_layers_do(modes):
    compare_two_steps(modes)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_net_computes_what_the_layers_do():
    """In a process of its own, as the engine is: torch.compile imports setuptools.

    That fails in a process where something else has imported Python's own distutils before.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(compare_two_steps, Modes(translate="all")).result()


def test_bf16_stays_near():
    outputs, gradients, sums = two_steps(PLAIN)
    mine = two_steps(Modes(bf16=True))
    torch.testing.assert_close(mine[0]["loss"], outputs["loss"], rtol=0.05, atol=0.05)
    assert all(gradient.dtype == torch.float32 for gradient in mine[1])
    torch.testing.assert_close(mine[2], sums, rtol=0.05, atol=0.05)
    together = [torch.cat([g.flatten() for g in each]) for each in (gradients, mine[1])]
    assert torch.nn.functional.cosine_similarity(*together, dim=0) > 0.98


def test_blocks_are_fused_merged_and_translated_once():
    step = make_step(make(RESIDUAL), EngineOptions(), modes=Modes())
    assert isinstance(step, FastStep)
    types = [op.types for op in step.graph.ops]
    normal = ("BatchNorm", "Scale", "ReLU")
    block_types = [
        ("Convolution", *normal) * 2,
        ("Convolution",),
        normal,
        ("Concat",),
        ("Convolution",),
        ("Eltwise", "ReLU"),
    ]
    assert types[:3] == [("Convolution",), normal, ("Pooling",)]
    assert types[3:9] == types[9:15] == block_types
    translated = []
    identity = Modes(translate="repeated")
    step = FastStep(make(RESIDUAL), identity, translate=lambda f: translated.append(f) or f)
    step({"data": torch.randn(4, 3, 9, 9), "label": torch.zeros(4)})
    assert len(translated) == 1


class Named:
    runs_hooks = True

    def __init__(self, name, fails=False):
        self.name, self.fails = name, fails

    def __call__(self, given):
        if self.fails:
            raise RuntimeError("no compiler\nat all")
        return self.name


def run_later(seconds_each, *, fails=False, steps=1000):
    """The steps that ran in so many calls of which each takes so long."""
    now = [0.0]
    later = LaterStep(Named("plain"), lambda: Named("compiled", fails), steps, clock=lambda: now[0])
    found = []
    for _ in range(WATCHED[1] + 2):
        found.append(later({}))
        now[0] += seconds_each
    return found


def test_compiling_waits_until_it_is_known_to_pay():
    enough = 1.1 * PAYS_S / (1000 - WATCHED[1])
    assert run_later(enough) == ["plain"] * (WATCHED[1] - 1) + ["compiled"] * 3
    assert set(run_later(0.8 * enough)) == {"plain"}


def test_training_goes_on_without_a_compiler(capsys):
    assert set(run_later(10, fails=True)) == {"plain"}
    assert "goes on without it: no compiler\n" in capsys.readouterr().err
