"""Causes that tests of a model show, or rule out.

What they say replaces what rules on the curves say of the same cause (``settles``).
"""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING

from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE, UNLIKELY, Finding
from irv2caffe.diagnose.registry import rule

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings
    from irv2caffe.diagnose.measured import Measured, Score

_LARGE = 10.0  # points of error that are a cause of their own
_SMALL = 5.0  # points that are not
_SIGMAS = 3.0
_SIZES = 6
_BATCH_NORM = "batch_norm_layer.cpp; measured with the net of 2016: docs/explanation/batch-norm.md"


def excess(worse: Score, better: Score) -> float:
    """By how many points an error is higher, less what chance may do (three sigmas)."""
    variance = 0.0
    for one in (worse, better):
        share = (one.top1_error / 100 * one.num_images + 1) / (one.num_images + 2)
        variance += share * (1 - share) / one.num_images
    return worse.top1_error - better.top1_error - 100 * _SIGMAS * math.sqrt(variance)


def _is_worse(worse: Score | None, better: Score | None, least: float = _LARGE) -> bool:
    """Whether an error is higher by so many points, and by more than chance."""
    if worse is None or better is None:
        return False
    return worse.top1_error - better.top1_error > least and excess(worse, better) > 0


def _is_close(one: Score | None, other: Score | None) -> bool:
    return (
        one is not None and other is not None and abs(one.top1_error - other.top1_error) <= _SMALL
    )


def _of(score: Score | None) -> str:
    assert score is not None
    return f"{score.top1_error:.1f} % of {score.num_images:,}"


def _evaluate(found: Measured, options: str) -> str:
    return f"irv2caffe evaluate {shlex.quote(found.weights)} {options}"


def _gap(found: Measured) -> tuple[str, ...]:
    """The training images as they are trained and as they are tested, where that differs."""
    if not _is_worse(found.train, found.as_trained):
        return ()
    return (
        f"The same training images: wrong are {_of(found.as_trained)} as the net trains, "
        f"{_of(found.train)} as it is tested.",
    )


def _renewed(found: Measured) -> str:
    return (
        f"Validation images: wrong are {_of(found.val)} as tested, and {_of(found.reestimated)} "
        f"with BatchNorm statistics of {found.num_reestimate_batches} training batches."
    )


@rule("tested-batch-statistics", needs=("model",))
def tested_batch_statistics(evidence: RunEvidence) -> Findings:
    """The error of a model depends on the TEST batch, measured with several sizes of it."""
    found = evidence.measured
    if not found.batch_statistics or not found.by_test_batch:
        return
    sizes = ", ".join(f"{size}: {score.top1_error:.1f}" for size, score in found.by_test_batch)
    by_size = sorted((score for _, score in found.by_test_batch), key=lambda one: one.top1_error)
    is_wrong = _is_worse(found.val, found.reestimated, _SMALL)
    depends = _is_worse(by_size[-1], by_size[0], _SMALL)
    texts = [f"Error of validation images in percent, by TEST batch: {sizes}."]
    texts += [_renewed(found)] if found.reestimated and found.val else []
    if not is_wrong and not depends:
        yield Finding(
            UNLIKELY,
            symptom="The tests normalize each image by the others of its batch.",
            cause="BatchNorm takes the statistics of the test's own batch.",
            evidence=(),
            against=tuple(texts),
            cure=("remove use_global_stats: false all the same",),
            source=_BATCH_NORM,
            settles=("batch-statistics-in-test",),
        )
        return
    yield Finding(
        MEASURED if is_wrong else POSSIBLE,
        symptom="The validation figures are those of the TEST batch, not of the net."
        if is_wrong
        else "The validation figures depend on the TEST batch; with that of the run they are "
        "about right.",
        cause="BatchNorm takes the mean and variance of the test's own batch "
        "(use_global_stats: false in TEST): few images give wrong ones.",
        evidence=(*texts, *_gap(found)),
        cure=(
            "remove use_global_stats: false from the net, or give it to phase TRAIN only",
            _evaluate(found, "--reestimate-bn 200 --model-out REPAIRED.caffemodel"),
        ),
        source=_BATCH_NORM,
        fit=1.0 if is_wrong else 0.4,
        settles=("batch-statistics-in-test", *(_OF_TESTS if is_wrong else ())),
    )


# Rules on the curves that say that tests do not show the net, without knowing why.
_OF_TESTS = ("first-epoch-gap", "validation-at-chance", "unchecked-databases", "fixed-order")


@rule("tested-running-statistics", needs=("model",))
def tested_running_statistics(evidence: RunEvidence) -> Findings:
    """Running mean and variance that do not fit the weights, measured against new ones."""
    found = evidence.measured
    if found.batch_statistics or found.reestimated is None or found.val is None:
        return
    if _is_worse(found.val, found.reestimated, _SMALL):
        yield Finding(
            MEASURED,
            symptom="The validation figures are those of stale BatchNorm statistics, not of the "
            "weights.",
            cause="The running mean and variance, which only tests use, lag behind the weights or "
            "were caught at a bad moment.",
            evidence=(_renewed(found), *_gap(found)),
            cure=(
                _evaluate(found, "--reestimate-bn 200 --model-out REPAIRED.caffemodel"),
                "build-net --bn-fraction 0.95 (moving_average_fraction), or a lower base_lr",
            ),
            source=_BATCH_NORM,
            fit=1.0,
            settles=("running-statistics", "trunk-statistics", *_OF_TESTS),
        )
    elif _is_worse(found.val, found.as_trained) and _is_close(found.val, found.reestimated):
        yield Finding(
            UNLIKELY,
            symptom="Running statistics that do not fit the weights.",
            cause="BatchNorm's running mean and variance lag behind the weights.",
            evidence=(),
            against=(f"New statistics change nothing. {_renewed(found)}",),
            cure=(),
            source=_BATCH_NORM,
            settles=("running-statistics", "trunk-statistics"),
        )


def labels_fit(found: Measured) -> bool:
    """Whether the labels of validation images are not known to mean something else."""
    labels = found.labels
    return labels is None or not (_shifted(found) or _renamed(found) or labels.same_table is False)


def _shifted(found: Measured) -> bool:
    """Whether validation is right when a number is added to all labels."""
    labels, val = found.labels, found.val
    if labels is None or val is None or labels.shift_error is None:
        return False
    return labels.shift != 0 and val.top1_error - labels.shift_error > 2 * _LARGE


def _renamed(found: Measured) -> bool:
    """Whether the net says one other class for several labels, and most images agree."""
    labels, val = found.labels, found.val
    if labels is None or val is None or labels.renamed_error is None:
        return False
    return labels.renamed >= 2 and val.top1_error - labels.renamed_error > _LARGE


@rule("tested-labels", needs=("model",))
def tested_labels(evidence: RunEvidence) -> Findings:
    """Validation labels that are other classes than in training, by what the net says."""
    found = evidence.measured
    labels, val = found.labels, found.val
    if labels is None or val is None or labels_fit(found):
        return
    texts = [f"Validation images: wrong are {_of(val)}."]
    if found.train is not None:
        texts.append(f"Training images, tested in the same way: {_of(found.train)}.")
    cause = "The class tables of the two databases are not the same."
    if _shifted(found):
        cause = f"The labels of validation images are {-labels.shift:+d} off."
        texts.append(f"With {labels.shift:+d} to each label: {labels.shift_error:.1f} %.")
    elif _renamed(found):
        cause = "The same number is another class in the validation database."
        texts.append(
            f"For {labels.renamed} labels the net says one other class for most images; if these "
            f"are meant, {labels.renamed_error:.1f} % are wrong."
        )
    yield Finding(
        MEASURED,
        symptom="The labels of validation do not mean what those of training mean.",
        cause=cause,
        evidence=tuple(texts),
        cure=(
            "irv2caffe make-lmdb --labels TRAIN_LMDB for the validation images, then evaluate "
            "--lmdb",
        ),
        source="the confusions of the model",
        fit=1.0,
        settles=("labels-differ", "overfitting", "running-statistics", *_OF_TESTS),
    )


@rule("tested-inputs", needs=("model",))
def tested_inputs(evidence: RunEvidence) -> Findings:
    """Validation images that reach the net with other values than training images do."""
    found = evidence.measured
    difference = inputs_differ(found)
    best = found.as_trained or found.train
    if not difference:
        return
    is_seen = _is_worse(found.val, best)
    by_transform = _is_worse(found.train, found.as_trained)
    yield Finding(
        MEASURED if is_seen else POSSIBLE,
        symptom="The net is tested on other values than it was trained on.",
        cause="The transform_param of TRAIN and TEST differ (mean, scale or colours)."
        if by_transform
        else "TRAIN and TEST transform their images differently, or the images in the two "
        "databases were made differently.",
        evidence=(difference, *_gap(found)),
        against=()
        if is_seen or found.val is None or best is None
        else (f"Wrong are {_of(best)} training images and {_of(found.val)} validation images.",),
        cure=(
            "the same mean_value, mean_file and scale in both data layers",
            "irv2caffe inspect-lmdb on both databases: size, colours, how images were resized",
        ),
        source="data_transformer.cpp",
        fit=0.98 if is_seen else 0.3,
        settles=("preprocessing-differs", *(_OF_TESTS if is_seen else ())),
    )


def inputs_differ(found: Measured) -> str:
    """How the inputs of training and validation differ, if that is more than chance."""
    train, val = found.train_input, found.val_input
    if train is None or val is None or len(train.mean) != len(val.mean):
        return ""
    for place, (ours, theirs) in enumerate(zip(train.mean, val.mean, strict=True)):
        error = math.hypot(train.error[place], val.error[place])
        spread = max(train.std[place], val.std[place])
        ratio = (val.std[place] + 1e-9) / (train.std[place] + 1e-9)
        if abs(ours - theirs) > max(5 * error, spread / 4) or not 2 / 3 < ratio < 1.5:
            means, stds = (
                " and ".join("/".join(f"{value:.3g}" for value in each) for each in pair)
                for pair in ((train.mean, val.mean), (train.std, val.std))
            )
            return (
                f"By channel, in TRAIN and TEST: means {means}, standard deviations {stds} "
                f"({train.num_images} and {val.num_images} images)."
            )
    return ""


@rule("tested-overfitting", needs=("model",))
def tested_overfitting(evidence: RunEvidence) -> Findings:
    """Training images that the model knows by heart, evaluated exactly as validation images are."""
    found = evidence.measured
    val, train = found.val, found.train
    renewed = found.reestimated, found.reestimated_train
    if all(renewed) and _is_worse(val, found.reestimated, _SMALL):
        val, train = renewed  # without the fault of the statistics
    if val is None or train is None:
        return
    text = (
        f"Evaluated in the same way, wrong are {_of(train)} training images and {_of(val)} "
        "validation images."
    )
    if _is_worse(val, train) and not inputs_differ(found) and labels_fit(found):
        yield Finding(
            MEASURED,
            symptom="The net knows its training images, and not the validation images.",
            cause="Overfitting: it has learned what sets the training images apart. (Validation "
            "images that are harder, or partly of another kind, look the same.)",
            evidence=(text,),
            cure=(
                "irv2caffe train --engine torch --augment inception; for Caffe: make-lmdb "
                "--augment inception --copies 5",
                "weight_decay, dropout, --label-smoothing 0.1; more images; finetune",
            ),
            source="github.com/apache/mxnet pull request 13757",
            fit=0.95,
            settles=("overfitting", "unchecked-databases"),
        )
    elif val.top1_error - train.top1_error < _SMALL:
        yield Finding(
            UNLIKELY,
            symptom="Overfitting, a common suspicion.",
            cause="The net would know its training images better than others.",
            evidence=(),
            against=(text,),
            cure=(),
            source="github.com/apache/mxnet pull request 13757",
            settles=("overfitting",),
        )


@rule("tested-gap", needs=("model",))
def tested_gap(evidence: RunEvidence) -> Findings:
    """Training images that the model knows in training and not in tests, for no other reason."""
    found = evidence.measured
    is_explained = (
        found.batch_statistics
        or _is_worse(found.train, found.reestimated_train, _SMALL)
        or bool(inputs_differ(found))
        or _is_worse(found.mixed, found.as_trained)
    )
    if _gap(found) and not is_explained:
        yield Finding(
            LIKELY,
            symptom="The net is worse on its training images when they are tested.",
            cause="TRAIN and TEST do not compute the same: compare the layers of both phases, "
            "their BatchNorm and their data layers.",
            evidence=_gap(found),
            cure=("irv2caffe check SOLVER", "irv2caffe summary NET, for both phases"),
            source="the meaning of a test",
            fit=0.9,
            settles=("first-epoch-gap", "unchecked-databases"),
        )


@rule("tested-order", needs=("model",))
def tested_order(evidence: RunEvidence) -> Findings:
    """Training batches of few classes, by their labels, and what that does to the net."""
    found, mix = evidence.measured, evidence.measured.label_mix
    if mix is None or not mix.expected:
        return
    text = (
        f"Pearson's chi-square of the labels of {mix.num_batches:,} batches of {mix.batch_size} "
        f"is {mix.chi_square:.1f} on average; labels in random order have {mix.expected:.1f}. "
        f"{100 * mix.far:.0f} % of the batches are more than four sigmas above that."
    )
    if mix.chi_square < 1.5 * mix.expected and mix.far < 0.1:
        yield Finding(
            UNLIKELY,
            symptom="Training images that are not mixed.",
            cause="Batches would show few classes.",
            evidence=(),
            against=(text,),
            cure=(),
            source="data_layer.cpp",
            settles=("badly-mixed", "fixed-order"),
        )
        return
    leaks = _is_worse(found.mixed, found.as_trained)
    shown = (
        f"As the net trains, wrong are {_of(found.as_trained)} training images in the order of "
        f"the database, and {_of(found.mixed)} in random order: BatchNorm's statistics of the "
        "batch give the class away."
        if leaks
        else ""
    )
    yield Finding(
        MEASURED,
        symptom="The training images are not mixed: a batch shows few classes.",
        cause="The net learns the classes of the moment and forgets the others, and what it "
        "learns of them from the batch is not there in tests; Caffe never shuffles a database.",
        evidence=tuple(filter(None, (text, shown))),
        cure=("irv2caffe make-lmdb --shuffle (convert_imageset -shuffle)",),
        source="data_layer.cpp; github.com/BVLC/caffe issues 1445, 2606",
        fit=0.99 if leaks or mix.far > 0.5 else 0.5,
        settles=("ordered-database", "badly-mixed", "fixed-order", "loss-collapsed"),
    )


@rule("tested-dead-units", needs=("model",))
def tested_dead_units(evidence: RunEvidence) -> Findings:
    """Channels that are zero for every training image, counted layer by layer."""
    layers = evidence.measured.activations
    if not layers:
        return
    worst = max(layers, key=lambda one: one.num_dead / one.num_channels)
    num_dead = sum(one.num_dead for one in layers)
    num_channels = sum(one.num_channels for one in layers)
    last = layers[-1]
    images = evidence.measured.num_activity_images
    counts = (
        f"For {images:,} training images {num_dead:,} of {num_channels:,} channels behind ReLU "
        "are always zero.",
        f"Most of them: {worst.name}, {worst.num_dead:,} of {worst.num_channels:,}; the last "
        f"one, {last.name}: {last.num_dead:,} of {last.num_channels:,}.",
    )
    share = worst.num_dead / worst.num_channels
    suspected = ("loss-at-guessing", "loss-collapsed", "residual-scaling")
    if share >= _DEAD_PART:
        is_blocked = share >= _DEAD
        yield Finding(
            MEASURED if is_blocked else POSSIBLE,
            symptom="The net is dead: what it says hardly depends on the image."
            if is_blocked
            else f"Many units of {worst.name} are dead.",
            cause="Units whose ReLU is zero for every image get no gradient and stay so; an update "
            "too large, or a bias below zero, put them there.",
            evidence=counts,
            cure=(
                "start again with a lower base_lr, a warm-up (irv2caffe train --warmup-epochs) "
                "or clip_gradients",
                "BatchNorm before each ReLU; biases that start at 0",
            ),
            source="arXiv 1602.07261v2, section 3.3, for wide residual nets",
            fit=0.97 if is_blocked else 0.4,
            settles=suspected if is_blocked else (),
        )
    elif has_learned(evidence.measured) and share < _FEW_DEAD:
        yield Finding(
            UNLIKELY,
            symptom="Dead units, or missing scaling that lets them die.",
            cause="The last layer before the pooling would give only zeros.",
            evidence=(),
            against=(*counts, *_trunk(evidence.measured)),
            cure=(),
            source="arXiv 1602.07261v2, section 3.3",
            settles=("loss-collapsed", "residual-scaling"),
        )


_DEAD, _DEAD_PART, _FEW_DEAD = 0.95, 0.5, 0.2


def has_learned(found: Measured) -> bool:
    """Whether the net is far better than chance on training images, as it trains."""
    best = min(
        (one.top1_error for one in (found.as_trained, found.train) if one is not None),
        default=100.0,
    )
    return best < 70.0


def _trunk(found: Measured) -> tuple[str, ...]:
    """What the residual blocks do to the trunk."""
    if len(found.blocks) < 2:
        return ()
    ratios = [one.branch_std / one.trunk_std for one in found.blocks if one.trunk_std]
    stds = [one.trunk_std for one in found.blocks]
    norm = (
        f" The gradient of {found.num_gradient_images} images has the norm "
        f"{found.gradient_norm:.3g}."
        if found.gradient_norm is not None
        else ""
    )
    shown = f"{min(ratios):.2g} to {max(ratios):.2g}" if ratios else "0"
    return (
        f"Over {len(stds)} residual blocks the standard deviation of the trunk goes from "
        f"{stds[0]:.2g} to at most {max(stds):.2g}; a branch is {shown} of it.{norm}",
    )


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
        cause="Branches are added without a factor and without BatchNorm: every block adds as much "
        "as there is.",
        evidence=_trunk(found),
        cure=("irv2caffe build-net --residual-scale 0.17,0.1,0.2", "clip_gradients in the solver"),
        source="arXiv 1602.07261v2, section 3.3",
        fit=0.9,
        settles=("residual-scaling", "trunk-statistics"),
    )


_GROWN = 30.0


@rule("tested-numbers", needs=("model",))
def tested_numbers(evidence: RunEvidence) -> Findings:
    """Weights, or outputs for training images, that are NaN or infinite."""
    found = evidence.measured
    if not found.bad_weights and not found.first_bad_layer:
        return
    texts = []
    if found.bad_weights:
        names = ", ".join(found.bad_weights[:3])
        more = len(found.bad_weights) - 3
        texts.append(
            f"Weights that are not finite: those of {names}" + f" and {more:,} more" * (more > 0)
        )
    if found.first_bad_layer:
        texts.append(
            "For training images the first layer whose output is not finite is "
            f"{found.first_bad_layer}."
        )
    yield Finding(
        MEASURED,
        symptom="The net computes NaN.",
        cause="The weights themselves are not numbers: this snapshot is lost."
        if found.bad_weights
        else f"The numbers break in {found.first_bad_layer}; all weights are finite, and what "
        "comes before it as well.",
        evidence=tuple(texts),
        cure=(
            "go back to a snapshot from before it, with a lower base_lr or with clip_gradients; "
            "irv2caffe train --on-divergence rollback does so by itself",
        ),
        source="net.cpp, ForwardDebugInfo",
        fit=1.0,
        settles=("not-a-number", "softmax-saturated"),
    )
