"""Classifies net outputs by name as accuracy, error or loss; converts errors to percent."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Kind = Literal["accuracy", "error", "loss", "other"]

_ACCURACY = re.compile(
    r"accu(?!m)|(?<![a-z])acc(?![a-z])|(?<![a-z])top[-_@ ]?\d"
    r"|(?<![a-z])prec(?:ision)?[-_@ ]?(?:top)?\d",
    re.IGNORECASE,
)
_CAMEL_ACCURACY = re.compile(r"[a-z]Acc(?![a-z])")
_ERROR = re.compile(r"(?<![a-z])err(?:or)?s?(?![a-z])", re.IGNORECASE)
_LOSS = re.compile(r"loss", re.IGNORECASE)
# A rank as in "top-5" or "acc@5"; or a number after the word, which may also be that of a head.
_TOP = re.compile(r"(?:top|@)[-_/@ ]{0,9}(\d{1,9})", re.IGNORECASE)
_NUMBERED = re.compile(
    r"(?:acc(?:uracy)?|prec(?:ision)?|err(?:or)?)[-_/ ]?(\d{1,9})(?!\d)", re.IGNORECASE
)
_ELEMENT = re.compile(r"\[\d+\]\Z")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
# Words that do not restrict an accuracy to a part of the data: phases, heads, layers.
_GENERIC = frozenset(
    {
        "acc", "accuracy", "accuarcy", "err", "error", "rate", "score", "output",
        "val", "valid", "validation", "test", "testing", "train", "training", "eval",
        "cls", "classification", "classifier", "loss", "head", "main", "final", "aux",
        "softmax", "prob", "fc", "ip", "net",
    }
)  # fmt: skip
_UNNAMED_SCORE = re.compile(r"score \d+")
# Other measures: higher is better, lower is better.
_HIGHER = re.compile(
    r"(?<![a-z])(?:m?ap|m?iou|m?iu|psnr|ssim|auc|f1|dice|prec)(?![a-z])"
    r"|fwavacc|precision|recall|detection_eval|jaccard|f-?score|\Amap\Z",
    re.IGNORECASE,
)
_CAMEL_HIGHER = re.compile(r"[a-z](?:AP|IoU|IU|AUC)(?![a-z])")
_LOWER = re.compile(
    r"(?<![a-z])(?:r?mse|mae|rmse|dist(?:ance)?|perplexity|eer)(?![a-z])", re.IGNORECASE
)


class AccuracyNames(NamedTuple):
    """The outputs that are top-1 and top-5 accuracy; None: determined by name."""

    top1: str | None = None
    top5: str | None = None


def kind_of(name: str, weight: float | None = None) -> Kind:
    """The kind of an output: accuracy, error, loss or other.

    Args:
        name: as printed in the log.
        weight: its loss weight, which Caffe prints with losses only; None if there is none.
    """
    if weight is not None:
        return "loss"
    # "loss3/top-1" is an accuracy of the head "loss3"; "acc/loss" is a loss of the head "acc".
    for part in (name.rpartition("/")[2], name):
        is_error = bool(_ERROR.search(part))
        rated = is_error or bool(_ACCURACY.search(part)) or bool(_CAMEL_ACCURACY.search(part))
        losses = list(_LOSS.finditer(part))
        if losses and (not rated or losses[-1].end() == len(part.rstrip("0123456789"))):
            return "loss"
        if rated:
            return "error" if is_error else "accuracy"
    return "other"


def better_of(name: str, kind: Kind) -> Literal["up", "down"] | None:
    """Whether higher ("up") or lower ("down") values are better; None if unknown."""
    if kind == "other":
        is_up = _HIGHER.search(name) or _CAMEL_HIGHER.search(name)
        return "down" if _LOWER.search(name) else "up" if is_up else None
    return "up" if kind == "accuracy" else "down"


def accuracy_names(
    names: Iterable[str], losses: Iterable[str] = ()
) -> tuple[str | None, str | None]:
    """The outputs that are top-1 and top-5 accuracy; of several heads the last, the main one.

    An accuracy without a rank in its name is top-1 only if all words of the name are generic:
    accuracies of an attribute, of pixels or averaged over classes are not. The first Caffe
    versions did not print names; the first of their scores is the accuracy.

    Args:
        names: of all outputs of a test.
        losses: the outputs that are known to be losses.
    """
    names = list(names)
    known = set(losses)
    rated = [name for name in names if name not in known and _is_accuracy_or_error(name)]
    heads = _numbers_are_heads(rated)
    found: dict[str, str] = {}
    for name in rated:
        rank = _rank(name, heads=heads)
        if rank is not None and not (rank in found and "aux" in name.lower()):
            found[rank] = name
    top1, top5 = found.get("1"), found.get("5")
    if names and all(_UNNAMED_SCORE.fullmatch(name) for name in names):
        top1 = names[0]
    return top1, top5


def _rank(name: str, *, heads: bool) -> str | None:
    if _ELEMENT.search(name):
        return None
    match = _TOP.search(name)
    if match is None and not heads:
        match = _NUMBERED.search(name)
    if match is not None:
        return match[1]
    words = {word.lower() for word in _WORDS.findall(name)}
    return "1" if words <= _GENERIC else None


def _numbers_are_heads(names: Iterable[str]) -> bool:
    """Whether numbers after the word are those of heads: accuracy1, accuracy2, accuracy3."""
    numbers = {match[1] for name in names if (match := _NUMBERED.search(name))}
    return bool(numbers & {"2", "4"}) and not any(_TOP.search(name) for name in names)


def _is_accuracy_or_error(name: str) -> bool:
    return kind_of(name) in {"accuracy", "error"}


def errors_of(outputs: Mapping[str, float]) -> dict[str, float]:
    """Every output that is an accuracy or error, as an error in percent."""
    errors = {name: error_of(outputs, name) for name in outputs if _is_accuracy_or_error(name)}
    return {name: error for name, error in errors.items() if error is not None}


def error_of(outputs: Mapping[str, float], name: str | None) -> float | None:
    """The error of an output in percent; None for an accuracy outside of 0 to 1."""
    if name is None or name not in outputs:
        return None
    value = outputs[name]
    if not (math.isnan(value) or 0 <= value <= 1.0001):
        return None
    return 100 * value if kind_of(name) == "error" else 100 * (1 - value)
