"""Which array goes where, and all that does not fit, at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from irv2caffe.errors import first_of
from irv2caffe.weights.scopes import AUX, AUX_LOGITS, LOGITS
from irv2caffe.weights.tensors import (
    BIAS,
    FLOAT_KINDS,
    GAMMA,
    WEIGHT,
    Key,
    SourceArrays,
    Tensor,
)

if TYPE_CHECKING:
    from irv2caffe.weights.places import NetPlaces

_WITH_BACKGROUND, _WITHOUT = 1001, 1000
_NUM_SHOWN = 4


@dataclass
class MatchedArrays:
    """The arrays for a net.

    Attributes:
        tensors: the array for each place; None for ones, where the source has no gamma.
        left_out: scopes that are left to Caffe's fillers.
        unused: names of arrays that this net has no use for.
        problems: one line for each thing that does not fit.
    """

    tensors: dict[Key, Tensor | None] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    unused: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def match(
    found: NetPlaces, named: SourceArrays, *, without_classifier: bool = False
) -> MatchedArrays:
    """Finds the array for each place of a net.

    An auxiliary classifier that the source does not have at all is left to the fillers, since only
    TF-slim's net has one; one that the net does not have is unused. All else must be on both sides.

    Args:
        found: the places.
        named: the arrays.
        without_classifier: leave the classifiers to the fillers.
    """
    classifiers = {LOGITS, AUX_LOGITS} if without_classifier else set()
    has_aux = any(key.scope.startswith(AUX) for key in named.tensors)
    has_gamma = any(key.part == GAMMA for key in named.tensors)
    aux = set() if has_aux else {scope for scope in found.groups if scope.startswith(AUX)}
    result = MatchedArrays(left_out=(classifiers | aux) & set(found.groups))
    result.problems += [*found.problems, *(f"{name}: unknown" for name in named.unexpected)]
    for key, place in found.places.items():
        if key.scope in result.left_out:
            continue
        tensor = named.tensors.get(key)
        if tensor is not None:
            result.problems += _misfits(key, tensor, place.shape)
        elif key.part != GAMMA or has_gamma:
            result.problems.append(f"{key.scope}: the source has no {key.part}")
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
            result.problems.append(f"{key.scope}: the net has no place for the source's {key.part}")
    return result


def drops_background(key: Key, tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether the source has TensorFlow's class 0, "background", before the net's 1000."""
    return (
        key.scope in {LOGITS, AUX_LOGITS}
        and key.part in {WEIGHT, BIAS}
        and (tensor.shape[:1], shape[:1]) == ((_WITH_BACKGROUND,), (_WITHOUT,))
        and tensor.shape[1:] == shape[1:]
    )


def _misfits(key: Key, tensor: Tensor, shape: tuple[int, ...]) -> list[str]:
    """Why an array cannot go to a place of this shape; nothing if it can."""
    if tensor.raw.kind not in FLOAT_KINDS:
        return [f"{key.scope}: {key.part} is of type {tensor.raw.kind} in the source"]
    if tensor.shape == shape or drops_background(key, tensor, shape):
        return []
    ours, theirs = (sizes_text(sizes) for sizes in (shape, tensor.shape))
    return [f"{key.scope}: {key.part} is {theirs} in the source, {ours} in the net"]


def sizes_text(shape: tuple[int, ...]) -> str:
    """``320x128x1x1``."""
    return "x".join(map(str, shape)) or "a number"
