"""Division of the images of each class into training and validation images."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from irv2caffe.data.records.class_table import some
from irv2caffe.data.records.items import Items, SplitPart
from irv2caffe.data.split.contents import equal_images
from irv2caffe.errors import InputError, UsageError, first_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from irv2caffe.data.records.items import Source

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

_NUM_SHOWN = 3


@dataclass(frozen=True)
class Split:
    """A data set in two parts, each in the order of the source and with all its classes.

    Attributes:
        train: the training images, with what was skipped when the source was listed, and all notes.
        val: the validation images.
        num_duplicates: images that repeat the bytes of an earlier one.
        findings: probable mistakes in the data set, one line each.
        notes: on the division, one line each.
    """

    train: Source
    val: Source
    num_duplicates: int
    findings: tuple[str, ...]
    notes: tuple[str, ...]


def split_source(
    source: Source,
    val_fraction: float,
    seed: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Split:
    """Sets a share of every class aside for validation.

    Images with the same bytes stay together. Of a class with two or more different images, at
    least one goes to each part. Which ones are chosen depends on the seed and on their paths
    alone, so that images which are added later move few of the others.

    Args:
        source: of all images.
        val_fraction: share of the images of each class, between 0 and 1.
        seed: of the choice.
        progress: called with (done, total) while images are compared.

    Raises:
        UsageError: not such a share.
        InputError: no class has two different images, or the disk fails.
    """
    if not 0 < val_fraction < 1:
        raise UsageError("--val-fraction lies between 0 and 1, such as 0.1")
    groups = equal_images(source, progress)
    divider = _Divider(source, groups, seed)
    is_val = divider.divide(val_fraction)
    if not is_val.any():
        raise InputError(
            f"{source.root} has no class with two different images: none is left for validation",
            "give more images, or build one database without --val-fraction",
        )
    names = ("train", "val")
    duplicates = tuple(
        (number, source.items[index].name, source.items.labels[index], names[int(is_val[index])])
        for number, group in enumerate(groups, 1)
        for index in group
    )
    findings = _contradictions(source, groups)
    num_duplicates = sum(len(group) - 1 for group in groups)
    part = SplitPart("train", val_fraction, seed, num_duplicates, duplicates, findings)
    notes = (*divider.notes(is_val), *_note_on_duplicates(source, groups, num_duplicates))
    train = replace(
        source, items=_chosen(source, ~is_val), notes=(*source.notes, *notes), part=part
    )
    val = replace(
        source,
        items=_chosen(source, is_val),
        is_validation=True,
        skipped=(),
        notes=(),
        part=replace(part, name="val", duplicates=(), findings=()),
    )
    return Split(train, val, num_duplicates, findings, notes)


class _Divider:
    """Divides classes. A unit is an image, or a group of images with the same bytes."""

    def __init__(self, source: Source, groups: list[list[int]], seed: int) -> None:
        """``groups`` are those of ``equal_images``; a unit is known by its first image."""
        self._source = source
        items = source.items
        self._labels = np.array(items.labels, np.int64)
        self._unit = np.arange(len(items))
        self._rank = np.fromiter(
            (_rank(items.name_bytes(index), seed) for index in range(len(items))),
            np.uint64,
            len(items),
        )
        self._labels_of: dict[int, list[int]] = {}  # of units with several
        for group in groups:
            self._unit[group] = group[0]
            self._rank[group] = self._rank[group].min()
            if len(labels := np.unique(self._labels[group])) > 1:
                self._labels_of[group[0]] = labels.tolist()

    def divide(self, fraction: float) -> Flags:
        """For each image, whether it is for validation."""
        is_val = np.zeros(len(self._unit), bool)  # of units
        order = np.argsort(self._labels, kind="stable")
        starts = np.flatnonzero(np.diff(self._labels[order], prepend=-1))
        units_of: dict[int, Ints] = {}
        for members in np.split(order, starts[1:]):
            units, counts = np.unique(self._unit[members], return_counts=True)
            units_of[int(self._labels[members[0]])] = units
            if len(units) > 1:
                target = math.floor(fraction * len(members) + 0.5)
                most = max(1, min(len(members) - 1, target))
                is_val[self._choose(units, counts, most)] = True
        self._choose_shared(units_of, is_val)
        self._units_of = units_of
        flags: Flags = is_val[self._unit]
        return flags

    def _choose(self, units: Ints, counts: Ints, most: int) -> list[int]:
        """Units of one label with up to so many images, in the order of their ranks."""
        is_free = np.array([unit not in self._labels_of for unit in units.tolist()])
        units, counts = units[is_free], counts[is_free]
        order = np.lexsort((units, self._rank[units]))
        chosen, taken = [], 0
        for place in order.tolist():
            if taken + counts[place] <= most:
                chosen.append(int(units[place]))
                taken += int(counts[place])
        if not chosen and len(units):  # the smallest of those that are all too large
            chosen.append(int(units[order[np.argmin(counts[order])]]))
        return chosen

    def _choose_shared(self, units_of: dict[int, Ints], is_val: Flags) -> None:
        """Gives classes whose images all have other labels too one for validation."""
        for units in units_of.values():
            if len(units) < 2 or is_val[units].any():
                continue
            for unit in units[np.lexsort((units, self._rank[units]))].tolist():
                labels = self._labels_of.get(unit, [])
                if all((~is_val[units_of[label]]).sum() > 1 for label in labels):
                    is_val[unit] = True
                    break

    def notes(self, is_val: Flags) -> list[str]:
        """Notes on classes without an image for validation."""
        units_of = self._units_of
        missing = sorted(label for label, units in units_of.items() if not is_val[units].any())
        if not missing:
            return []
        names = some([class_name(self._source, label) for label in missing])
        why = "class(es) have too few different images to set one aside"
        return [f"{len(missing):,} {why}: {names}"]


def class_name(source: Source, label: int) -> str:
    """The name of a class; its label where it has no name."""
    return source.classes[label] if label < len(source.classes) else f"label {label}"


def _rank(name: bytes, seed: int) -> int:
    digest = hashlib.blake2b(name, digest_size=8, key=str(seed).encode()[:64]).digest()
    return int.from_bytes(digest, "little")


def _chosen(source: Source, flags: Flags) -> Items:
    items = Items()
    for index in np.flatnonzero(flags).tolist():
        items.add(source.items[index])
    return items


def _note_on_duplicates(source: Source, groups: list[list[int]], num_duplicates: int) -> list[str]:
    if not groups:
        return []
    pairs = first_of([_pair(source, group[0], group[1]) for group in groups], _NUM_SHOWN)
    what = "image(s) have the same bytes as another, and stay on its side"
    return [f"{num_duplicates:,} {what}: {pairs}"]


def _contradictions(source: Source, groups: list[list[int]]) -> tuple[str, ...]:
    """A finding on images with the same bytes and different labels."""
    labels = source.items.labels
    pairs, count = [], 0
    for group in groups:
        others = [index for index in group if labels[index] != labels[group[0]]]
        if others:
            count += len(group)
            pairs.append(_pair(source, group[0], others[0], is_labelled=True))
    if not pairs:
        return ()
    what = "images have the bytes of an image with another label, so one of the labels is wrong"
    return (f"{count:,} {what}: {first_of(pairs, _NUM_SHOWN)}",)


def _pair(source: Source, first: int, second: int, *, is_labelled: bool = False) -> str:
    words = []
    for index in (first, second):
        item = source.items[index]
        words.append(some([item.name]))
        if is_labelled:
            words[-1] += f" ({some([class_name(source, item.label)])})"
    return " = ".join(words)
