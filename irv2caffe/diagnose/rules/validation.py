"""What tests show of the net, and what they are too few to show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from irv2caffe.diagnose.course import told
from irv2caffe.diagnose.cures import augment, diagnose_with_model, evaluate
from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE, Finding
from irv2caffe.diagnose.gaps import at_chance, does_train, last_gap, main_loss
from irv2caffe.diagnose.registry import rule
from irv2caffe.diagnose.trust import (
    KNOWN_REASONS,
    come_class_by_class,
    half_width,
    is_noise,
    is_partial,
    open_gap,
    tested_share,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.finding import Findings
    from irv2caffe.log.table import TestRow

_MIN_TESTS = 4
_LEAST_EPOCHS = 4.0  # fewer passes over the images memorize little
_LEAST_FLAT_EPOCHS = 5.0  # where validation was bad from the start
_AT_BEST = 1.05  # times the lowest error: no longer improving
_FLAT_SHARE = 1 / 3  # of the run
_FELL = 0.7  # of the training loss when validation stopped improving
_NOTHING = 90.0  # percent: a net that never was better has not got far enough to overfit
_MEMORIZED = 0.2  # of the loss of guessing
_MIN_LATER = 2  # tests after the best one
_WIDE = 4.0  # points to either side
_RISES = "that of the validation images rises"
_SOLVED = 1.0  # percent
_SMALL = 20_000  # training images
_SOURCE = "github.com/apache/mxnet pull request 13757; arXiv 1602.07261, section 4"
_BY_CLASS = (
    "The validation images come class by class: each test is of other classes than the one before, "
    "so that their errors differ by far more than chance."
)


@rule("overfitting", needs=("displays",), settled_by=("net", "model"))
def overfitting(evidence: RunEvidence) -> Findings:
    """The net memorizes its training images, for want of augmentation or of images."""
    last = last_gap(evidence)
    rising = next((one for one in evidence.summary.anomalies if one.kind == "overfit"), None)
    is_open = rising is not None if last is None else last.is_large  # a regression has no gap
    if not is_open or not _may_overfit(evidence):
        return
    onset = _onset(evidence)
    early = open_gap(evidence)
    if early is not None and (onset is None or not _is_late(evidence, onset)):
        return  # validation was bad before anything could be memorized
    if rising is None and onset is None:
        return
    texts = [_since(evidence, onset)] if onset is not None else []
    texts += [told(evidence, rising)] if rising else []
    against = (
        "Validation was worse than training already in the first epoch, when nothing could be "
        "memorized: that part of the difference is not overfitting."
    )
    start, seen = (onset, "validation does not follow") if onset is not None else (rising, _RISES)
    assert start is not None
    yield Finding(
        LIKELY,
        symptom=f"Since {evidence.at(start.iteration)} the net learns its training images by "
        f"heart: their loss falls on, and {seen}.",
        cause=f"Overfitting: the net memorizes its training images{_why(evidence)}.",
        evidence=(*texts, *([last.text(evidence)] if last else ()), *_invitations(evidence)),
        against=(against,) if early is not None else (),
        cure=tuple(_cures(evidence)),
        decide=f"{evaluate(evidence, '--on train --limit 5000')}: a low error on training images, "
        f"in phase TEST, means overfitting; or {diagnose_with_model(evidence)}",
        source=_SOURCE,
        fit=0.9,
        settles=("weight-decay",),
    )


def _may_overfit(evidence: RunEvidence) -> bool:
    """Whether nothing else explains bad tests, and the net has seen its images often enough."""
    epochs = evidence.run.table.epoch(evidence.num_iterations)
    return (
        does_train(evidence)
        and not any(map(evidence.found, KNOWN_REASONS))
        and not at_chance(evidence)
        and min((row.top1_error or 0.0 for row in evidence.tests), default=0.0) < _NOTHING
        and (epochs is None or epochs >= _LEAST_EPOCHS)
    )


def _onset(evidence: RunEvidence) -> TestRow | None:
    """The test after which the error hardly improved, while the training loss fell on."""
    tests, end = evidence.tests, evidence.num_iterations
    if len(tests) < _MIN_TESTS:
        return None
    best = min(row.top1_error or 0.0 for row in tests)
    first = next(row for row in tests if (row.top1_error or 0.0) <= _AT_BEST * best)
    before, after = main_loss(evidence, first.iteration), main_loss(evidence, tests[-1].iteration)
    if before is None or after is None or after > _FELL * before:
        return None
    return first if tests[-1].iteration - first.iteration >= _FLAT_SHARE * end else None


def _is_late(evidence: RunEvidence, onset: TestRow) -> bool:
    """Whether the net has memorized its images over several epochs without an improvement."""
    epoch, end = onset.epoch, evidence.run.table.epoch(evidence.num_iterations)
    loss, classes = main_loss(evidence, evidence.num_iterations), evidence.num_classes
    if epoch is None or end is None or loss is None or not classes:
        return False
    return end - epoch >= _LEAST_FLAT_EPOCHS and loss < _MEMORIZED * math.log(classes)


def _since(evidence: RunEvidence, onset: TestRow) -> str:
    last = evidence.tests[-1]
    before, after = main_loss(evidence, onset.iteration), main_loss(evidence, last.iteration)
    return (
        f"From {evidence.at(onset.iteration)} to {evidence.at(last.iteration)} the training loss "
        f"fell from {before:.3g} to {after:.3g}, and the validation error went from "
        f"{onset.top1_error:.1f} to {last.top1_error:.1f} %."
    )


def _why(evidence: RunEvidence) -> str:
    """What the files say about the augmentation."""
    found = evidence.found("no-augmentation")
    if found is None or _is_augmented(evidence):
        return ""
    return f"; {found.what}"


def _is_augmented(evidence: RunEvidence) -> bool:
    """Whether the torch engine changed the images."""
    return bool(evidence.torch_options.get("augment", "none") != "none")


def _invitations(evidence: RunEvidence) -> Iterator[str]:
    """What else makes it easy to memorize images."""
    images, classes = evidence.run.table.num_train_images, evidence.num_classes
    if images and classes and images < _SMALL:
        yield f"There are {images:,} training images, {images / classes:,.0f} for each class."


def _cures(evidence: RunEvidence) -> Iterator[str]:
    images = evidence.run.table.num_train_images
    if not _is_augmented(evidence):
        yield from augment(evidence)
    if evidence.solver_value("weight_decay") == 0:
        yield "weight_decay: 0.00004 or more in the solver"
    if images and images < _SMALL:
        yield "--recipe small-data, or --recipe finetune from trained weights"
    yield "more dropout, --label-smoothing 0.1; or stop at the best test"


@rule("past-best", needs=("tests",))
def past_best(evidence: RunEvidence) -> Findings:
    """The last snapshot is far from the best one."""
    found = next((one for one in evidence.summary.anomalies if one.kind == "past-best"), None)
    best, last = evidence.summary.best_top1_error, evidence.summary.last_top1_error
    if found is None or best is None or last is None or is_partial(evidence):
        return
    later = [row for row in evidence.tests if row.iteration > found.iteration]
    is_whole = evidence.tests[-1].outputs.keys() == evidence.tests[0].outputs.keys()
    if is_noise(evidence, best, last) or not is_whole or len(later) < _MIN_LATER:
        return
    kept = evidence.run_dir is not None and (evidence.run_dir / "snapshots").is_dir()
    yield Finding(
        LIKELY if evidence.run.table.ended else POSSIBLE,
        symptom=f"The best test was at {evidence.at(found.iteration)}, and the last one is "
        f"{last - best:.1f} points worse.",
        cause="The last snapshot is not the net to use: the run went past its best.",
        evidence=(told(evidence, found),),
        cure=(
            evaluate(evidence, "--snapshot best")
            if kept
            else "take the snapshot nearest to that test",
        ),
        source="the curves",
        fit=0.3,
    )


@rule("few-test-images", needs=("tests",))
def few_test_images(evidence: RunEvidence) -> Findings:
    """Tests of too few images, or of other images each time, to trust a difference."""
    last = evidence.tests[-1].top1_error or 0.0
    width, images = half_width(evidence, last), evidence.num_val_images
    if width is None or images is None:
        return
    part = _part(evidence, images)
    errors = [row.top1_error or 0.0 for row in evidence.tests]
    late = errors[len(errors) // 2 :]
    is_solved = max(late) <= _SOLVED or round(max(late) / 100 * images) <= 1  # wrong images
    if not part and (width < _WIDE or is_solved):
        return
    size = evidence.found("test-set-size")
    is_all = len(late) > 1 and is_noise(evidence, min(late), max(late))
    by_class = bool(part) and come_class_by_class(evidence)
    within = (
        f"The last {len(late)} tests lie between {min(late):.1f} and {max(late):.1f} %, which is "
        "within chance."
    )
    yield Finding(
        MEASURED if by_class else LIKELY if is_all and _misleads(evidence) else POSSIBLE,
        symptom=f"A test is of {images:,} images: its error of {last:.1f} % is known to "
        f"{width:.1f} points to either side (95 % interval).",
        cause=f"Tests that differ by less than about {1.4 * width:.0f} points say nothing about "
        "the net.",
        evidence=(
            *((within,) if is_all else ()),
            *((part,) if part else ()),
            *((_BY_CLASS,) if by_class else ()),
        ),
        cure=(
            size.fix if size is not None else "more validation images, and test_iter for them",
            *((evaluate(evidence, "--on val"),) if part else ()),
        ),
        source="binomial distribution; solver.cpp, Test",
        fit=0.15,
    )


def _misleads(evidence: RunEvidence) -> bool:
    """Whether the tests differ so much that one would act on it."""
    return not evidence.anomalies.isdisjoint({"past-best", "swing"})


def _part(evidence: RunEvidence, images: int) -> str:
    """How much of the validation set a test reads, where that is not about all of it."""
    share = tested_share(evidence)
    if share is None or not is_partial(evidence):
        return ""
    return (
        f"test_iter x TEST batch = {images:,} images, and the validation set has "
        f"{images / share:,.0f}: every test measures other images, or some of them twice."
    )


@rule("no-tests", needs=("displays", "solver"))
def no_tests(evidence: RunEvidence) -> Findings:
    """A run that is never tested."""
    found = evidence.found("tests")
    table = evidence.run.table
    if found is None or any(row.iteration for row in (*table.test, *table.other_tests)):
        return
    value = evidence.solver_value
    if value("test_iter") and (value("test_interval") or 0) <= (value("max_iter") or 0):
        return  # it only ended before its first test
    yield Finding(
        POSSIBLE,
        symptom="There is no test, so that nothing shows what the net has learned.",
        cause=f"{found.what}: {found.why}.",
        evidence=(f"The log has {len(table.train):,} displays and no test.",),
        cure=(found.fix,),
        source=found.source,
        fit=0.05,
    )


@rule("perfect-accuracy", needs=())
def perfect_accuracy(evidence: RunEvidence) -> Findings:
    """An accuracy of 1 from a net whose outputs are not numbers."""
    found = next((one for one in evidence.summary.anomalies if one.kind == "perfect"), None)
    if found is None or evidence.summary.diverged is not None:
        return  # with a training that diverged, that is what there is to say
    yield Finding(
        LIKELY,
        symptom=f"At {evidence.at(found.iteration)} {found.text}.",
        cause="That accuracy is none: comparisons with NaN are false, so that Caffe finds no class "
        "better than the right one.",
        evidence=("The loss of the same test is not a number.",),
        cure=("ignore it; what made the loss NaN is the fault",),
        source="accuracy_layer.cpp, Forward_cpu",
        fit=0.1,
    )
