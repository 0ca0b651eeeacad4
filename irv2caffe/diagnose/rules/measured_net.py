"""Causes that a forward pass shows within the net: dead units, the trunk, NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.diagnose.cures import SCALE, start_again
from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE, UNLIKELY, Finding
from irv2caffe.diagnose.registry import rule

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings
    from irv2caffe.diagnose.measured import LayerActivity, Measured

_DEAD, _PARTLY_DEAD, _FEW_DEAD = 0.95, 0.5, 0.2  # of the channels of a layer
_LEARNED = 0.9  # times the error of guessing
_GROWN = 30.0  # times the trunk's standard deviation at the first block
_PAPER = "arXiv 1602.07261v2, section 3.3, for wide residual nets"


@rule("tested-dead-units", needs=("model",))
def tested_dead_units(evidence: RunEvidence) -> Findings:
    """Channels that are zero for every training image, counted layer by layer."""
    layers = evidence.measured.activations
    if not layers:
        return
    worst = max(layers, key=_share)
    if not _has_learned(evidence):
        if _share(worst) >= _PARTLY_DEAD:
            yield _dead(evidence, worst, is_blocked=_share(worst) >= _DEAD)
        return
    if _share(worst) < _FEW_DEAD:
        yield Finding(
            UNLIKELY,
            symptom="Dead units, or missing scaling that lets them die.",
            cause="The last layer before the pooling would give only zeros.",
            evidence=(),
            against=(*_counts(evidence, worst), *_trunk(evidence.measured)),
            cure=(),
            source=_PAPER,
            settles=("loss-collapsed", "residual-scaling"),
        )


def _share(layer: LayerActivity) -> float:
    return layer.num_dead / max(1, layer.num_channels)


def _has_learned(evidence: RunEvidence) -> bool:
    """Whether the net is better than guessing on training images, as it trains or is tested."""
    found = evidence.measured
    scores = [one.top1_error for one in (found.as_trained, found.train, found.val) if one]
    guess = 100 * (1 - 1 / (evidence.num_classes or 10))
    return min(scores, default=100.0) < _LEARNED * guess


def _counts(evidence: RunEvidence, worst: LayerActivity) -> tuple[str, ...]:
    layers = evidence.measured.activations
    num_dead, num_channels = (
        sum(getattr(one, name) for one in layers) for name in ("num_dead", "num_channels")
    )
    last, images = layers[-1], evidence.measured.num_activity_images
    total = (
        f"For {images:,} training images {num_dead:,} of {num_channels:,} channels behind ReLU "
        "are always zero."
    )
    of_last = f"Of the last such layer, {last.name}: {last.num_dead:,} of {last.num_channels:,}."
    of_worst = f"Most of them: {worst.name}, {worst.num_dead:,} of {worst.num_channels:,}."
    return (total, *((of_worst,) if worst.num_dead and worst is not last else ()), of_last)


def _dead(evidence: RunEvidence, worst: LayerActivity, *, is_blocked: bool) -> Finding:
    rate = evidence.solver_value("base_lr")
    start = (
        start_again(evidence, base_lr=rate / 10, clip_gradients=10.0)
        if rate
        else "start again with a lower base_lr, or with clip_gradients"
    )
    return Finding(
        MEASURED if is_blocked else POSSIBLE,
        symptom="The net is dead: what it says hardly depends on the image."
        if is_blocked
        else f"Most units of {worst.name} are dead, and the net is no better than guessing.",
        cause="Units whose ReLU is zero for every image get no gradient and stay so; an update "
        "too large, or a bias below zero, put them there.",
        evidence=(*_counts(evidence, worst), *_trunk(evidence.measured)),
        cure=(start, "BatchNorm before each ReLU; biases that start at 0"),
        source=_PAPER,
        fit=0.97 if is_blocked else 0.4,
        settles=("loss-at-guessing", "loss-collapsed", "residual-scaling") if is_blocked else (),
    )


def _trunk(found: Measured) -> tuple[str, ...]:
    """What the residual blocks do to the trunk."""
    if len(found.blocks) < 2:
        return ()
    stds = [one.trunk_std for one in found.blocks]
    ratios = [one.branch_std / one.trunk_std for one in found.blocks if one.trunk_std] or [0.0]
    text = (
        f"Over {len(stds)} residual blocks the standard deviation of the trunk goes from "
        f"{stds[0]:.2g} to at most {max(stds):.2g}; that of a branch is {min(ratios):.2g} to "
        f"{max(ratios):.2g} times as large."
    )
    if found.gradient_norm is not None:
        text += (
            f" The gradient for {found.num_gradient_images} images has an L2 norm of "
            f"{found.gradient_norm:.3g}."
        )
    return (text,)


@rule("tested-trunk", needs=("model",))
def tested_trunk(evidence: RunEvidence) -> Findings:
    """A trunk of residual blocks that grows beyond measure from block to block."""
    found = evidence.measured
    stds = [one.trunk_std for one in found.blocks]
    if len(stds) < 2 or max(stds) < _GROWN * max(stds[0], 1.0):
        return
    yield Finding(
        LIKELY,
        symptom="The trunk of the residual blocks has grown beyond measure.",
        cause="Branches are added without a factor and without BatchNorm: each adds as much as "
        "there is.",
        evidence=_trunk(found),
        cure=(SCALE, "clip_gradients in the solver"),
        source=_PAPER,
        fit=0.9,
        settles=("residual-scaling", "trunk-statistics"),
    )


@rule("tested-numbers", needs=("model",))
def tested_numbers(evidence: RunEvidence) -> Findings:
    """Weights, or outputs for training images, that are NaN or infinite."""
    found = evidence.measured
    bad, layer = found.bad_weights, found.first_bad_layer
    if not bad and not layer:
        return
    texts = []
    if bad:
        more = f" and {len(bad) - 3:,} more" if bad[3:] else ""
        texts.append(f"The weights of {', '.join(bad[:3])}{more} are not finite.")
    if layer:
        texts.append(f"For training images, {layer} is the first layer whose output is not finite.")
    back = (
        "go back to a snapshot from before it, with a lower base_lr or with clip_gradients; "
        "irv2caffe train --on-divergence rollback does so by itself"
    )
    yield Finding(
        MEASURED,
        symptom="The net computes NaN.",
        cause="The weights themselves are not numbers: this snapshot is lost."
        if bad
        else f"The numbers break in {layer}: all weights are finite, and what comes before it.",
        evidence=tuple(texts),
        cure=(back,),
        source="net.cpp, ForwardDebugInfo",
        fit=1.0,
        settles=("not-a-number", "softmax-saturated"),
    )
