"""Weights of the classes in the training loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError, UsageError, did_you_mean, first_of
from irv2caffe.proto.input_files import read_input

if TYPE_CHECKING:
    from collections.abc import Sequence

BALANCED = "balanced"
_MAX_BYTES = 1 << 23
_NAMED = 2  # parts of a line with a name


def class_weights(
    choice: str | None, num_classes: int, counts: Sequence[int], names: Sequence[str]
) -> tuple[float, ...]:
    """Returns a weight for each class, with a mean of 1 over the training images, or none.

    The mean of 1 leaves the loss as large as without weights, so that the learning rate still fits.

    Args:
        choice: ``balanced`` for weights in inverse proportion to the numbers of images, or a file
            with a line for each class: a weight, or a name and a weight. None for no weights.
        num_classes: of the network.
        counts: training images of each class; empty if they are not known: a file's weights are
            then scaled to a mean of 1 over the classes.
        names: of the classes; empty if they are not known.

    Raises:
        UsageError: ``balanced``, and the counts are not known.
        MissingInputError: no such file.
        FormatError: a line that is not a weight above 0, an unknown class, or a missing one.
    """
    if choice is None:
        return ()
    images = [*counts, *[0] * (num_classes - len(counts))][:num_classes] if counts else []
    if choice == BALANCED:
        if not any(images):
            raise UsageError(
                "--class-weights balanced: the number of training images of each class is not "
                "known",
                "give --train-lmdb a database made by make-lmdb, or --class-weights a file with a "
                "weight per line",
            )
        share = sum(images) / sum(map(bool, images))
        return tuple(share / number if number else 1.0 for number in images)
    weights = _read(Path(choice), num_classes, names)
    images = images if any(images) else [1] * num_classes
    mean = sum(map(math.prod, zip(weights, images, strict=True))) / sum(images)
    return tuple(weight / mean for weight in weights)


def weights_text(weights: Sequence[float], names: Sequence[str]) -> str:
    """The lowest and the highest weight with their classes; empty without weights."""
    if not weights:
        return ""

    def of(place: int) -> str:
        named = names[place] if place < len(names) else f"class {place}"
        printable = "".join(c if c.isprintable() else "?" for c in named[:60])
        return f"{weights[place]:.4g} ({printable})"

    order = sorted(range(len(weights)), key=weights.__getitem__)
    return f"class weights from {of(order[0])} to {of(order[-1])}, mean over the images 1"


def _read(path: Path, num_classes: int, names: Sequence[str]) -> list[float]:
    """The weights of a file, in the order of the labels."""
    try:
        text = read_input(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError("not UTF-8 text", path=path) from error
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    parts = [(number, line.rsplit(maxsplit=1)) for number, line in lines]
    if all(len(part) < _NAMED for _, part in parts):
        if len(parts) != num_classes:
            raise FormatError(
                f"{len(parts):,} weights for {num_classes:,} classes",
                "one per line, in the order of the labels; or a class name and a weight",
                path=path,
            )
        return [_weight(path, number, part[-1]) for number, part in parts]
    return _by_name(path, parts, num_classes, names)


def _by_name(
    path: Path, parts: list[tuple[int, list[str]]], num_classes: int, names: Sequence[str]
) -> list[float]:
    if not names:
        raise FormatError(
            "has names, and the names of the classes are not known",
            "the training database has no labels.txt: write the weights alone, one per line, in "
            "the order of the labels",
            path=path,
        )
    found: dict[str, float] = {}
    for number, part in parts:
        if len(part) < _NAMED:
            hint = "either all lines have a class name and a weight, or none has a name"
            raise FormatError(f"{part[0][:60]!r} alone", hint, path=path, line=number)
        name, value = part
        if name not in names:
            hint = did_you_mean(name, names) or f"classes: {first_of(list(names), 5)}"
            raise FormatError(f"no class {name[:60]!r}", hint, path=path, line=number)
        if name in found:
            raise FormatError(f"class {name[:60]!r} again", path=path, line=number)
        found[name] = _weight(path, number, value)
    missing = [name for name in names[:num_classes] if name not in found]
    if missing or len(names) < num_classes:
        missing = missing or [f"class {len(names)}"]
        raise FormatError(f"no weight for {first_of(missing, 5)}", path=path)
    return [found[name] for name in names[:num_classes]]


def _weight(path: Path, line: int, text: str) -> float:
    """A weight above 0; its range keeps all products within Caffe's 32-bit floats."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1e-6 <= value <= 1e6:
        hint = "a number from 0.000001 to 1000000; to leave a class out, leave out its images"
        raise FormatError(f"{text[:60]!r} is not a weight", hint, path=path, line=line)
    return value
