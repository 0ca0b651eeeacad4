"""Which outputs are accuracies, and the errors that they mean."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TOP_K = re.compile(
    r"(?i)(?:top|acc(?:uracy)?|prec(?:ision)?|err(?:or)?)[-_/@ ]*(?:top)?[-_/@ ]*(\d+)"
)
_ACCURACY = re.compile(r"acc|top[-_@ ]?\d|prec", re.IGNORECASE)
_ERROR = re.compile(r"(?<![a-z])err(?:or)?(?![a-z])", re.IGNORECASE)
_PER_CLASS = re.compile(r"(?:per|each|by)[-_/ ]?class", re.IGNORECASE)
_OLD_SCORE = re.compile(r"score \d+")


class Names(NamedTuple):
    """The outputs that are top-1 and top-5 accuracy; None finds them by their names."""

    top1: str | None = None
    top5: str | None = None


def accuracy_names(names: Iterable[str]) -> tuple[str | None, str | None]:
    """The outputs that are top-1 and top-5 accuracy; the last of each, which is the main head.

    The first Caffes did not print names; the first of their scores is the accuracy. The mean over
    classes (the second top of an Accuracy layer) is another figure, in which classes that a batch
    lacks count as wrong.
    """
    top1 = top5 = None
    names = list(names)
    for name in names:
        if not is_rate(name) or _PER_CLASS.search(name):
            continue
        rank = _TOP_K.search(name)
        if rank is None or rank[1] == "1":
            top1 = name
        elif rank[1] == "5":
            top5 = name
    if names and all(_OLD_SCORE.fullmatch(name) for name in names):
        top1 = names[0]
    return top1, top5


def is_rate(name: str) -> bool:
    """Whether an output's name says accuracy or error."""
    return bool(_ACCURACY.search(name) or _ERROR.search(name))


def losses_of(outputs: Mapping[str, float]) -> list[float]:
    """The losses among outputs; in ``loss3/top-1`` the name of a head is meant, not a loss."""
    found = [name for name in outputs if "loss" in name.lower()]
    named = [name for name in found if not is_rate(name)]
    return [outputs[name] for name in named or found]


def errors_of(outputs: Mapping[str, float]) -> dict[str, float]:
    """Every output whose name says accuracy or error, as an error in percent."""
    found = {}
    for name in outputs:
        if is_rate(name):
            error = error_of(outputs, name)
            if error is not None:
                found[name] = error
    return found


def error_of(outputs: Mapping[str, float], name: str | None) -> float | None:
    """Percent; an accuracy outside 0..1 is none."""
    if name is None or name not in outputs:
        return None
    value = outputs[name]
    if not (math.isnan(value) or 0 <= value <= 1.0001):
        return None
    return 100 * value if _ERROR.search(name) else 100 * (1 - value)
