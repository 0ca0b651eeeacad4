"""Tests that do not compute what the training computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.diagnose import imagenet
from irv2caffe.diagnose.cures import check_files, diagnose_with_model, evaluate
from irv2caffe.diagnose.finding import LIKELY, POSSIBLE, Finding
from irv2caffe.diagnose.gaps import does_train, last_gap
from irv2caffe.diagnose.norms import norms_of
from irv2caffe.diagnose.registry import rule
from irv2caffe.diagnose.trust import come_class_by_class, open_gap, unexplained_gap

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings
    from irv2caffe.diagnose.norms import Norms

_SMALL_TEST_BATCH = 16
_SOURCE = "batch_norm_layer.cpp; github.com/KaimingHe/deep-residual-networks issue 53"


@rule("first-epoch-gap", needs=("displays",), settled_by=("net", "model"))
def first_epoch_gap(evidence: RunEvidence) -> Findings:
    """Validation is far worse than training on images that the net had never seen before."""
    gap = unexplained_gap(evidence)
    if gap is None:
        return
    norms = norms_of(evidence)
    is_batch = norms is not None and norms.num_batch > 0
    details = (gap.text(evidence), *_dropout(evidence), *_small_batch(evidence))
    against = (
        ("Loss and error go together differently in other nets, by about 10 points.",)
        if gap.train_loss is not None
        else ()
    )
    yield Finding(
        LIKELY,
        symptom="At the end of the first epoch, when no training image had been seen before, "
        "validation is already far worse than training.",
        cause=f"Memorizing is impossible in the first epoch, so {_difference(norms)}.",
        evidence=(*details, *(_flag(evidence, norms) if norms else ())),
        against=against,
        cure=(*_cure_of_flag(evidence), evaluate(evidence, "--reestimate-bn 200"))
        if is_batch
        else (check_files(evidence),),
        decide=f"{diagnose_with_model(evidence)}; or {evaluate(evidence, '--on train')}: a high "
        "error on training images means that TRAIN and TEST differ, a low one overfitting",
        source=_SOURCE + (f"; {imagenet.SOURCE}" if gap.train_loss is not None else ""),
        fit=0.98 if is_batch else 0.95,
    )


def _difference(norms: Norms | None) -> str:
    """What may differ between the phases."""
    if norms is not None and norms.num_batch:
        return (
            "TRAIN and TEST do not evaluate the same function. The tests normalize each image by "
            "the other images of its batch: the figures depend on the TEST batch, and are not "
            "those of the net"
        )
    images = "the images of both are preprocessed, labelled or mixed of classes differently"
    if norms is not None and not norms.num_layers:
        return f"{images}, or those of training are not mixed"
    return (
        "TRAIN and TEST do not evaluate the same function, or not the same kind of images. Either "
        f"BatchNorm's running statistics do not fit the weights, or {images}, or batches of few "
        "classes let the training see the class"
    )


def _small_batch(evidence: RunEvidence) -> tuple[str, ...]:
    found = evidence.found("bn-small-batch")
    return (f"In the files: {found.what}; {found.why}.",) if found else ()


def _dropout(evidence: RunEvidence) -> tuple[str, ...]:
    net = evidence.net("TRAIN")
    if net is None or not any(net.of_type("Dropout")):
        return ()
    return ("Dropout makes the training loss higher than the same net has without it.",)


def _flag(evidence: RunEvidence, norms: Norms) -> tuple[str, ...]:
    """What the files say about statistics of the batch."""
    if not norms.num_batch:
        return ()
    batch = f"; the TEST batch is {norms.test_batch}" if norms.test_batch else ""
    flag = (
        f"use_global_stats: false reaches the TEST phase in {norms.num_batch:,} BatchNorm "
        f"layer(s), first {norms.place}{batch}."
    )
    texts = [flag]
    if norms.test_bytes:
        texts.append(
            f"With this TEST batch the test net needs {norms.test_bytes / 2**30:.0f} GiB: on a "
            "card with less memory it was smaller."
        )
    if come_class_by_class(evidence):
        texts.append(
            "The validation images come class by class: a TEST batch shows one class or a few, "
            "and its statistics are not those of training batches."
        )
    return tuple(texts)


def _cure_of_flag(evidence: RunEvidence) -> tuple[str, ...]:
    found = evidence.found("bn-batch-stats-in-test")
    assert found is not None
    name = found.places[0].file if found.places and evidence.solver_path else "the net"
    return (f"remove use_global_stats: false from {name}",)


@rule("batch-statistics-in-test", needs=("net",), settled_by=("model",))
def batch_statistics_in_test(evidence: RunEvidence) -> Findings:
    """Tests that normalize each image by the other images of its batch."""
    norms = norms_of(evidence)
    if norms is None or not norms.num_batch or open_gap(evidence) is not None:
        return  # the rule first-epoch-gap says it then
    last = last_gap(evidence)
    is_small = bool(norms.test_batch and norms.test_batch <= _SMALL_TEST_BATCH)
    is_worse = last is not None and last.is_large and does_train(evidence)
    texts = _flag(evidence, norms)
    yield Finding(
        LIKELY if is_worse or is_small else POSSIBLE,
        symptom="The validation figures depend on the TEST batch: on its size, and on which "
        "images share it.",
        cause="BatchNorm takes the mean and variance of the test's own batch, so that the figures "
        "are not those of the net; and the test net overwrites the running statistics.",
        evidence=(*texts, last.text(evidence)) if last is not None and is_worse else texts,
        against=(last.text(evidence),) if last is not None and not is_worse else (),
        cure=(*_cure_of_flag(evidence), evaluate(evidence, "--reestimate-bn 200")),
        decide=evaluate(evidence, "--test-batch-sizes 2,10,50"),
        source=_SOURCE,
        fit=0.9 if is_worse else 0.4,
    )
