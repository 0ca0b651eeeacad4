"""Compares layers of the torch engine with the real Caffe: many layers in one net and one pass.

Each bottom that gets a gradient is the top of a Bias layer whose weight has the values, so that
its gradient is that of a weight in both.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch

from helpers.caffe_nets import CaffeRun
from irv2caffe.engine.net import Net
from irv2caffe.engine.options import EngineOptions
from irv2caffe.proto import messages
from irv2caffe.proto.text import parse_prototxt

RELATIVE = 1e-5
"""The largest difference of two blobs, relative to the largest absolute value of Caffe's blob.

A sum of float32 numbers is as exact as its largest summand, which can be much larger than the sum.
Where a layer adds numbers of both signs, such as the products of normal numbers, its case says how
large they are (``summands``); with fewer large results than that, that size takes their place.
"""
SMALLEST = 1e-6
"""The least of these sizes: Caffe's sigmoid is 0 where the value is below its tanh's precision."""


@dataclass(frozen=True)
class Bottom:
    """A bottom of a layer under test.

    Attributes:
        shape: of the blob.
        values: ``normal``, ``positive``, ``ties`` (few different values, 0 among them),
            ``labels N``, ``bits`` or ``probabilities``.
        learns: gets a gradient.
    """

    shape: tuple[int, ...]
    values: str = "normal"
    learns: bool = True


@dataclass(frozen=True)
class Case:
    """A layer under test.

    Attributes:
        kind: layer type.
        body: the rest of the layer's text.
        bottoms: what it reads.
        tops: their number.
        in_place: the top replaces the first bottom.
        backward: the layer has a gradient.
        weights: how its weights are filled: ``normal``, ``statistics`` or ``own`` for its fillers.
        summands: the size of the numbers that it adds up, if they have both signs.
        seed: of all values.
    """

    kind: str
    body: str = ""
    bottoms: tuple[Bottom, ...] = ()
    tops: int = 1
    in_place: bool = False
    backward: bool = True
    weights: str = "normal"
    summands: float = 0
    seed: int = 0

    def top_names(self, at: int) -> list[str]:
        """The names of its tops in the net."""
        return [f"{at}b0"] if self.in_place else [f"{at}t{place}" for place in range(self.tops)]


@dataclass
class Worst:
    """The largest relative differences of a layer type."""

    cases: int = 0
    forward: float = 0.0
    backward: float = 0.0


@dataclass
class Parity:
    """The layers compared so far, by type."""

    worst: dict[str, Worst] = field(default_factory=lambda: defaultdict(Worst))

    def table(self) -> str:
        """A line for each layer type."""
        lines = [f"{'layer type':26}{'cases':>6}  {'forward':>8}  {'backward':>8}"]
        for kind, worst in sorted(self.worst.items()):
            lines.append(f"{kind:26}{worst.cases:6}  {worst.forward:8.1e}  {worst.backward:8.1e}")
        return "\n".join(lines)

    def check(self, caffe_nets, cases, phase="TRAIN", passes=1, *, channels_last=False):
        """Runs layers in both engines; fails where values or gradients differ."""
        text = net_text(cases)
        given, weights = _values(cases, _net(text, phase, "cpu"))
        ours = _run(_net(text, phase, "cpu"), given, weights, cases, passes, channels_last)
        theirs = caffe_nets.run(
            text, phase, inputs=given, weights=weights, top_diffs=ours.diffs, passes=passes
        )
        for at, case in enumerate(cases):
            self._compare(case, at, ours, theirs)

    def check_device(self, device, cases, phase="TRAIN", *, channels_last=False):
        """Runs layers on the CPU and on another device; fails where they differ."""
        text = net_text(cases)
        given, weights = _values(cases, _net(text, phase, "cpu"))
        theirs, ours = (
            _run(_net(text, phase, place), given, weights, cases, 1, channels_last)
            for place in ("cpu", device)
        )
        for at, case in enumerate(cases):
            self._compare(case, at, ours, theirs)

    def _compare(self, case, at, ours, theirs):
        worst = self.worst[case.kind]
        worst.cases += 1
        for name in case.top_names(at):
            error = _difference(ours.blobs[name], theirs.blobs[name], case, f"top {name}")
            worst.forward = max(worst.forward, error)
        for name in (f"l{at}", *(f"{at}w{place}" for place in range(len(case.bottoms)))):
            for place, mine in enumerate(ours.params.get(name, ())):
                what = f"weight {name}:{place}"
                error = _difference(mine, theirs.params[name][place], case, what)
                worst.forward = max(worst.forward, error)
            for place, mine in enumerate(ours.param_diffs.get(name, ())):
                expected = theirs.param_diffs[name][place]
                if mine is not None and expected is not None:
                    error = _difference(mine, expected, case, f"gradient {name}:{place}")
                    worst.backward = max(worst.backward, error)


def _difference(mine, theirs, case, what):
    """The largest difference over the largest value; fails above the tolerance."""
    assert mine.shape == theirs.shape, f"{what} of {case}: {mine.shape} {theirs.shape}"
    if not theirs.size:
        return 0.0
    same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):
        smallest = max(SMALLEST, case.summands)
        largest = np.abs(theirs[np.isfinite(theirs)]).max(initial=smallest)
        off = np.where(same, 0, np.abs(mine.astype("f8") - theirs)).max()
    error = off / largest
    assert error <= RELATIVE, f"{what} of {case} differs by {error:.2g}\n{mine}\n{theirs}"
    return float(error)


def net_text(cases):
    """The prototxt of a net with all cases, each by itself."""
    return "".join(_text(case, at) for at, case in enumerate(cases))


def _net(text, phase, device):
    proto = parse_prototxt(text, messages.NetParameter)
    return Net(proto, phase, EngineOptions(), device=torch.device(device))


def _text(case: Case, at: int) -> str:
    text, names = "", []
    for place, bottom in enumerate(case.bottoms):
        name = f"{at}b{place}"
        names.append(name)
        dims = " ".join(f"dim: {size}" for size in bottom.shape)
        source = f"{at}i{place}" if bottom.learns else name
        text += (
            f'layer {{ name: "{source}" type: "Input" top: "{source}" '
            f"input_param {{ shape {{ {dims} }} }} }}\n"
        )
        if bottom.learns:
            text += (
                f'layer {{ name: "{at}w{place}" type: "Bias" bottom: "{source}" top: "{name}" '
                "bias_param { axis: 0 num_axes: -1 } }\n"
            )
    tops = case.top_names(at)
    wires = "".join(f' bottom: "{n}"' for n in names) + "".join(f' top: "{n}"' for n in tops)
    losses = " loss_weight: 1" * len(tops) if case.backward else ""
    return text + f'layer {{ name: "l{at}" type: "{case.kind}"{wires}{losses} {case.body} }}\n'


def _values(cases, net):
    """Values of inputs and weights, by name."""
    inputs, weights = {}, {}
    for at, case in enumerate(cases):
        rng = np.random.default_rng([case.seed, zlib.crc32(case.kind.encode())])
        for place, bottom in enumerate(case.bottoms):
            values = make_values(bottom.values, bottom.shape, rng)
            if bottom.learns:
                weights[f"{at}w{place}"] = [values]
                inputs[f"{at}i{place}"] = np.zeros(bottom.shape, "f4")
            else:
                inputs[f"{at}b{place}"] = values
        if case.weights != "own":
            blobs = net.weights.by_layer.get(f"l{at}", ())
            weights[f"l{at}"] = [
                make_values(case.weights, tuple(blob.shape), rng) for blob in blobs
            ]
        elif f"l{at}" in net.weights.by_layer:
            weights[f"l{at}"] = [_array(blob) for blob in net.weights.by_layer[f"l{at}"]]
    return inputs, weights


def make_values(kind, shape, rng):
    """Float32 values of a kind; see :class:`Bottom`."""
    if kind.startswith("labels"):
        return rng.integers(0, int(kind.split()[1]), shape).astype("f4")
    if kind == "bits":
        return rng.integers(0, 2, shape).astype("f4")
    if kind == "ties":
        return rng.integers(-2, 3, shape).astype("f4")
    values = rng.standard_normal(shape).astype("f4")
    if kind == "zeros":
        return np.zeros(shape, "f4")
    if kind in {"positive", "statistics"}:
        return np.abs(values) + np.float32(0.2)
    if kind == "probabilities":
        values = np.exp(values)
        return values / values.sum(1, keepdims=True)
    if kind == "large":
        return values * np.float32(100)
    return values


def _run(net, inputs, weights, cases, passes, channels_last):
    """A CaffeRun of the engine; ``diffs`` are the gradients that were given to the tops."""
    given = {name: torch.from_numpy(value).to(net.device) for name, value in inputs.items()}
    for name, blob in given.items():
        if channels_last and blob.dim() == 4:
            given[name] = blob.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        for layer, values in weights.items():
            for blob, value in zip(net.weights.by_layer[layer], values, strict=True):
                blob.copy_(torch.from_numpy(value))
    for _ in range(passes):
        blobs = net.forward(given, keep_blobs=True).blobs
    result, total = CaffeRun({}, {}, {}, {}), torch.zeros(())
    for at, case in enumerate(cases):
        rng = np.random.default_rng([case.seed, 7])
        for name in case.top_names(at):
            top = result.blobs[name] = _array(blobs[name])
            if case.backward:
                result.diffs[name] = rng.standard_normal(top.shape).astype("f4")
            if case.backward and blobs[name].requires_grad:
                total = total + (blobs[name].cpu() * torch.from_numpy(result.diffs[name])).sum()
    if total.requires_grad:
        total.backward()
    for name, own in net.weights.by_layer.items():
        result.params[name] = [_array(blob) for blob in own]
        result.param_diffs[name] = [b.grad if b.grad is None else _array(b.grad) for b in own]
    return result


def _array(tensor):
    return tensor.detach().cpu().contiguous().numpy().copy()
