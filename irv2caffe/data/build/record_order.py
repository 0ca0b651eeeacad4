"""The order of the records: for each record, the index of its image in the source."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.data.options import BuildOptions


def num_records(labels: Sequence[int], options: BuildOptions) -> int:
    """Number of records, skipped images included."""
    once = len(labels)
    if options.balance:
        counts = Counter(labels)
        once = max(counts.values()) * len(counts)
    return once * options.copies


def record_order(labels: Sequence[int], options: BuildOptions, *, is_shuffled: bool) -> array[int]:
    """The image of each record.

    The records are as many passes as the options have copies, each shuffled on its own. With
    ``balance``, every class has as many records in a pass as the largest class has images: with n
    images of the largest class and m of another, each of the m has n // m records in every pass,
    and n % m of them, drawn anew for every pass, have one more. Without a shuffle, a pass begins
    with all images, then come those with a second record, and so on.

    Args:
        labels: of the images of the source, in its order.
        options: seed, copies and balance.
        is_shuffled: whether the records are shuffled.
    """
    rng = random.Random(options.seed)  # noqa: S311
    members = _members(labels) if options.balance else []
    order = array("I")
    for _ in range(options.copies):
        once = _balanced(members, rng) if options.balance else array("I", range(len(labels)))
        if is_shuffled:
            rng.shuffle(once)
        order += once
    return order


def _members(labels: Sequence[int]) -> list[array[int]]:
    """The images of each class."""
    members: dict[int, array[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, array("I")).append(index)
    return [members[label] for label in sorted(members)]


def _balanced(members: list[array[int]], rng: random.Random) -> array[int]:
    largest = max(map(len, members))
    rounds: list[array[int]] = []
    for images in members:
        whole, more = divmod(largest, len(images))
        drawn = array("I", sorted(rng.sample(images, more)))
        parts = [images] * whole + ([drawn] if more else [])
        for number, part in enumerate(parts):
            if number == len(rounds):
                rounds.append(array("I"))
            rounds[number] += part
    once = array("I")
    for part in rounds:
        once += array("I", sorted(part))
    return once
