"""Trust: how far the figures of tests can be off, and what explains it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import facts_of_net
from irv2caffe.diagnose.gaps import at_chance, does_train, first_pass, last_gap

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.gaps import Gap

# Rules of check that name another reason why tests are bad.
KNOWN_REASONS = ("phases-transform", "phases-labels", "no-shuffle", "label-range")
OTHER_CLASSES = "class-imbalance"  # validation images are of other classes, more often than not
_MOST_IMAGES = 10**12
_Z = 1.96  # of the 95 % interval of a normal distribution
_PART, _MORE = 0.9, 1.1  # of the validation set


def half_width(evidence: RunEvidence, error: float) -> float | None:
    """Half the 95 % confidence interval of an error, in points; None without the images' number.

    The binomial distribution in its normal approximation, with Agresti and Coull's four images
    added, which keeps it honest near 0 and 100 %.
    """
    images = evidence.num_val_images
    if not images or images > _MOST_IMAGES:
        return None
    share = (error / 100 * images + 2) / (images + 4)
    return 100 * _Z * math.sqrt(share * (1 - share) / (images + 4))


def is_noise(evidence: RunEvidence, one: float, other: float) -> bool:
    """Whether two errors may differ by chance only; False without the number of images."""
    widths = half_width(evidence, one), half_width(evidence, other)
    if widths[0] is None or widths[1] is None:
        return False
    return abs(one - other) < math.hypot(widths[0], widths[1])


def tested_share(evidence: RunEvidence) -> float | None:
    """Images of a test over those of the validation set; None where one is not known."""
    net, check, images = evidence.net("TEST"), evidence.check, evidence.num_val_images
    if net is None or check is None or not images or images > _MOST_IMAGES:
        return None
    facts = facts_of_net(net, check)
    known = check.claims.num_val or (facts.num_records if facts is not None else None)
    return images / known if known else None


def come_class_by_class(evidence: RunEvidence) -> bool:
    """Whether the validation images are in the order of their classes."""
    net, check = evidence.net("TEST"), evidence.check
    facts = facts_of_net(net, check) if net is not None and check is not None else None
    return facts is not None and facts.order in {"sorted", "grouped"}


def is_partial(evidence: RunEvidence) -> bool:
    """Whether each test is of other images, so that tests cannot be compared."""
    share = tested_share(evidence)
    return share is not None and not _PART <= share <= _MORE


def open_gap(evidence: RunEvidence) -> Gap | None:
    """The gap of the first epoch, if it is large and has not closed since."""
    first, last = first_pass(evidence), last_gap(evidence)
    if first is None or not first.is_large or not does_train(evidence):
        return None
    return None if last is not None and not last.is_large else first


def unexplained_gap(evidence: RunEvidence) -> Gap | None:
    """An open gap that no other finding explains."""
    reasons = (*KNOWN_REASONS, OTHER_CLASSES)
    if at_chance(evidence) or any(map(evidence.found, reasons)):
        return None
    return open_gap(evidence)
