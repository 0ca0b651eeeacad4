"""Matches the arrays of a source to the blobs of a net, and lists all that do not fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import first_of
from irv2caffe.weights.scopes import AUX, AUX_LOGITS, INPUT, LOGITS
from irv2caffe.weights.tensors import FLOAT_KINDS, Key, Role, SourceArrays, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from irv2caffe.weights.places import NetPlaces

_WITH_BACKGROUND, _WITHOUT = 1001, 1000
_NUM_SHOWN = 4


@dataclass
class MatchedArrays:
    """The arrays for a net.

    Attributes:
        tensors: the array for each blob; None for a gamma of ones, if the source has no gamma.
        left_out: scopes that are left to Caffe's fillers.
        unused: names of arrays that the net does not need.
        problems: one line for each thing that does not fit.
    """

    tensors: dict[Key, Tensor | None] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    unused: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def drops_background(self, found: NetPlaces) -> bool:
        """Whether class 0 of the source's classifier is left out."""
        key = Key(LOGITS, Role.WEIGHT)
        tensor = self.tensors.get(key)
        return tensor is not None and drops_background(key, tensor, found.places[key].shape)


def match(
    found: NetPlaces, named: SourceArrays, *, without_classifier: bool = False
) -> MatchedArrays:
    """Finds the array for each blob of a net.

    An auxiliary classifier that only the net has is left to the fillers, since only TF-slim's
    weights have one; one that only the source has is unused. All else must exist on both sides.

    Args:
        found: the blobs.
        named: the arrays.
        without_classifier: leave the classifiers to the fillers.
    """
    classifiers = {LOGITS, AUX_LOGITS} if without_classifier else set()
    has_aux = any(key.scope.startswith(AUX) for key in named.tensors)
    has_gamma = any(key.role == Role.GAMMA for key in named.tensors)
    aux = set() if has_aux else {scope for scope in found.groups if scope.startswith(AUX)}
    result = MatchedArrays(left_out=(classifiers | aux) & set(found.groups))
    result.problems += [*found.problems, *(f"{name}: unknown" for name in named.unexpected)]
    for key, place in found.places.items():
        if key.scope in result.left_out:
            continue
        tensor = named.tensors.get(key)
        if tensor is not None:
            result.problems += _misfits(key, tensor, place.shape)
        elif key.role != Role.GAMMA or has_gamma:
            result.problems.append(f"{key.scope}: the source has no {key.role}")
        result.tensors[key] = tensor
    if without_classifier:
        result.unused += named.head
    elif named.head:
        head = first_of(named.head, _NUM_SHOWN)
        result.problems.append(f"{LOGITS}: the source ends in other layers: {head}")
    for key, tensor in named.tensors.items():
        if key.scope in classifiers or (key not in found.places and key.scope.startswith(AUX)):
            result.unused.append(tensor.origin)
        elif key not in found.places:
            result.problems.append(f"{key.scope}: the net has no place for the source's {key.role}")
    return result


def drops_background(key: Key, tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether the source has TensorFlow's class 0, "background", and 1000 more, the net 1000."""
    return (
        key.scope in {LOGITS, AUX_LOGITS}
        and key.role in {Role.WEIGHT, Role.BIAS}
        and (tensor.shape[:1], shape[:1]) == ((_WITH_BACKGROUND,), (_WITHOUT,))
        and tensor.shape[1:] == shape[1:]
    )


def sums_colours(key: Key, tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether the source's first convolution takes three colours, and the net gray images.

    Three equal channels times their weights are one channel times the sum of the weights.
    """
    gray = (*shape[:1], 1, *shape[2:])
    return key == Key(INPUT, Role.WEIGHT) and (tensor.shape, shape) == (
        (*shape[:1], 3, *shape[2:]),
        gray,
    )


def _misfits(key: Key, tensor: Tensor, shape: tuple[int, ...]) -> list[str]:
    """Why an array does not fit a blob of this shape; empty if it does."""
    if tensor.raw.kind not in FLOAT_KINDS:
        return [f"{key.scope}: {key.role} is of type {tensor.raw.kind} in the source"]
    fits = tensor.shape == shape or sums_colours(key, tensor, shape)
    if fits or drops_background(key, tensor, shape):
        return []
    ours, theirs = (sizes_text(sizes) for sizes in (shape, tensor.shape))
    return [f"{key.scope}: {key.role} is {theirs} in the source, {ours} in the net"]


def sizes_text(shape: tuple[int, ...]) -> str:
    """``320x128x1x1``."""
    return "x".join(map(str, shape)) or "a number"


def value_problems(key: Key, values: NDArray[Any]) -> list[str]:
    """What is wrong with values that no sound training ends with; empty if nothing is."""
    import numpy as np

    num_bad = values.size - int(np.isfinite(values).sum())
    if num_bad:
        return [f"{key.scope}: {key.role} has {num_bad} of {values.size} values not finite"]
    if key.role == Role.VARIANCE and values.size and values.min() < 0:
        return [f"{key.scope}: {key.role} is below zero"]
    return []
