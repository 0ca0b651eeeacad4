"""Causes that tests of a model show in its data: labels, inputs, the order of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.diagnose.cures import SHUFFLE, relabel
from irv2caffe.diagnose.finding import MEASURED, POSSIBLE, UNLIKELY, Finding
from irv2caffe.diagnose.registry import DOUBT_TESTS, rule

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings


@rule("tested-labels", needs=("model",))
def tested_labels(evidence: RunEvidence) -> Findings:
    """Validation labels that are other classes than in training, by what the net says."""
    found = evidence.measured
    labels, val = found.labels, found.val
    if labels is None or val is None or not found.labels_differ:
        return
    texts = [f"Validation images: wrong are {val}."]
    if found.train is not None:
        texts.append(f"Training images, tested in the same way: {found.train}.")
    cause = "The class tables of the two databases are not the same."
    if found.is_shifted:
        cause = f"The labels of validation images are off by {-labels.shift:+d}."
        texts.append(f"With {labels.shift:+d} to each label {labels.shift_error:.1f} % are wrong.")
    elif found.is_renamed:
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
        cure=(relabel(evidence),),
        source="what the model says for each label",
        fit=1.0,
        settles=("labels-differ", "overfitting", "running-statistics", *DOUBT_TESTS),
    )


@rule("tested-inputs", needs=("model",))
def tested_inputs(evidence: RunEvidence) -> Findings:
    """Validation images that reach the net with other values than training images do."""
    found = evidence.measured
    difference, best = found.input_difference, found.as_trained or found.train
    if not difference:
        return
    is_seen = found.val is not None and found.val.is_worse(best)
    yield Finding(
        MEASURED if is_seen else POSSIBLE,
        symptom="The net is tested on other values than it was trained on.",
        cause="The transform_param of TRAIN and TEST differ (mean, scale, colours)."
        if found.gap
        else "TRAIN and TEST transform their images differently, or the images in the two "
        "databases were made differently.",
        evidence=(difference, *found.gap),
        against=()
        if is_seen or found.val is None or best is None
        else (f"Wrong are {best} training images and {found.val} validation images.",),
        cure=(
            "the same mean_value, mean_file and scale in both data layers",
            "irv2caffe inspect-lmdb on both databases: size, colours, how images were resized",
        ),
        source="data_transformer.cpp",
        fit=0.98 if is_seen else 0.3,
        settles=("preprocessing-differs", *(DOUBT_TESTS if is_seen else ())),
    )


@rule("tested-order", needs=("model",))
def tested_order(evidence: RunEvidence) -> Findings:
    """Training batches of few classes, by their labels, and what that does to the net."""
    found, mix = evidence.measured, evidence.measured.label_mix
    if mix is None or not mix.expected or evidence.is_shuffled:
        return
    text = (
        f"Pearson's chi-square of the labels of {mix.num_batches:,} batches of {mix.batch_size} "
        f"is {mix.chi_square:.1f} on average; labels in random order have {mix.expected:.1f}. "
        f"{100 * mix.far:.0f} % of the batches are more than four sigmas above that."
    )
    source = "data_layer.cpp; github.com/BVLC/caffe issues 1445, 2606"
    if not mix.is_bad:
        yield Finding(
            UNLIKELY,
            symptom="Training images that are not mixed.",
            cause="Batches would show few classes.",
            evidence=(),
            against=(text,),
            cure=(),
            source=source,
            settles=("badly-mixed", "fixed-order"),
        )
        return
    leaks = found.mixed is not None and found.mixed.is_worse(found.as_trained)
    shown = (
        f"As the net trains, wrong are {found.as_trained} training images in the order of the "
        f"database, and {found.mixed} in random order: BatchNorm's statistics of the batch give "
        "the class away."
    )
    is_sure = leaks or mix.far > 0.5
    yield Finding(
        MEASURED if is_sure else POSSIBLE,
        symptom="The training images are not mixed: a batch shows few classes.",
        cause="The net learns the classes of the moment and forgets the others, and what it "
        "learns of them from the batch is not there in tests; Caffe never shuffles a database.",
        evidence=(text, *((shown,) if leaks else ())),
        cure=(SHUFFLE,),
        source=source,
        fit=0.99 if is_sure else 0.5,
        settles=("ordered-database", "badly-mixed", "fixed-order"),
    )
