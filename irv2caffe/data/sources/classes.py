"""Classes from folder names: their order, and checks for a wrong SOURCE folder."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from irv2caffe.data.records.class_table import escape_name, some
from irv2caffe.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from irv2caffe.data.records.items import Items

_SPLIT = re.compile(
    r"(train|training|val|valid|validation|test|testing)[-_ ]?(set|data|images?)?[0-9]*"
)
_NUMBER = re.compile("[0-9]+")
_DIGITS = re.compile("([0-9]+)")
_MANY = 10  # images of the largest class from which on classes of one image are noted


def decide_classes(
    found: Iterable[str], table: tuple[str, ...] | None, order: str, where: str
) -> tuple[tuple[str, ...], list[str]]:
    """Class names by label, and notes on them.

    Folders called 0 to N, or 1 to N, are sorted as numbers; all others as text, as torchvision's
    ImageFolder does.

    Args:
        found: the names of the folders.
        table: class table that gives the labels, or None.
        order: one of :data:`irv2caffe.data.options.CLASS_ORDERS`.
        where: the source, for messages.

    Raises:
        InputError: a class that is not in the table.
        UsageError: both an order and a table.
    """
    as_text = sorted(found)
    if table is not None:
        if order != "auto":
            raise UsageError("--class-order does not go with --labels, which decides the order")
        check_classes(as_text, table, where)
        return table, []
    by_number = sorted(as_text, key=_by_number)
    is_number = order == "number" or (order == "auto" and _is_range(by_number))
    classes = by_number if is_number else as_text
    notes = [] if order != "auto" else _note_on_numbers(classes, as_text, by_number)
    return tuple(classes), [*notes, *_odd_names(classes)]


def check_classes(found: list[str], table: tuple[str, ...], where: str) -> None:
    """Refuses classes that are not in the class table, which have no label in training.

    Raises:
        InputError: naming them.
    """
    known = set(table)
    unknown = [name for name in found if name not in known]
    if unknown:
        raise InputError(
            f"{where} has class folders that the class table lacks: {some(unknown)}",
            "training and validation images need the same class names",
        )


def _by_number(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key that puts ``2`` before ``10``, and ``b2`` before ``b10``."""
    parts = _DIGITS.split(name)  # alternately text and digits
    digits = [part.lstrip("0") for part in parts[1::2]]
    parts[1::2] = digits
    return [(len(part) if place % 2 else 0, part) for place, part in enumerate(parts)], name


def _is_range(names: list[str]) -> bool:
    """Whether sorted names are consecutive numbers from 0 or 1."""
    return any(
        all(name == str(number) for number, name in enumerate(names, first)) for first in (0, 1)
    )


def _note_on_numbers(classes: list[str], as_text: list[str], by_number: list[str]) -> list[str]:
    """Notes on numeric folder names that differ from the labels."""
    if not all(map(_NUMBER.fullmatch, classes)):
        return []
    if classes != as_text:
        label, name = next(pair for pair in enumerate(as_text) if classes[pair[0]] != pair[1])
        note = (
            f"class folders {classes[0]} to {classes[-1]} are in the order of these numbers: "
            f"folder {name} is label {classes.index(name)} (sorted as text, by --class-order text, "
            f"it would be label {label})"
        )
        return [note]
    shifts = [int(name) - label for label, name in enumerate(classes)]
    if len(set(shifts)) == 1 or (classes == by_number and shifts[0]):
        return []
    label = next(label for label, shift in enumerate(shifts) if shift != shifts[0])
    what = f"folder {classes[label]} is label {label}: class folders are numbers"
    if classes != by_number:
        return [f"{what} and sorted as text; --class-order number sorts them as numbers"]
    return [f"{what}, but some are missing; --labels keeps to the class table of other images"]


def _odd_names(classes: list[str]) -> list[str]:
    notes = []
    escaped = [name for name in classes if escape_name(name) != name]
    if escaped:
        notes.append(
            f"{len(escaped):,} class name(s) with blanks at an end or control characters, which "
            f"labels.txt holds escaped: {some(escaped)}"
        )
    alike: dict[str, list[str]] = {}
    for name in classes:
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        alike.setdefault(plain, []).append(name)
    twins = [name for names in alike.values() if len(names) > 1 for name in names]
    if twins:
        notes.append(f"different classes with nearly the same name: {some(twins)}")
    return notes


def notes_on_counts(items: Items, classes: tuple[str, ...]) -> list[str]:
    """Notes on classes without images or with a single one, and on a single class."""
    counts = Counter(items.labels)
    missing = [name for label, name in enumerate(classes) if not counts[label]]
    single = [name for label, name in enumerate(classes) if counts[label] == 1]
    notes = []
    if missing:
        notes.append(f"{len(missing):,} class(es) without images: {some(missing)}")
    if single and max(counts.values()) >= _MANY:
        notes.append(f"{len(single):,} class(es) with a single image: {some(single)}")
    if len(counts) == 1 and len(items) > 1:
        notes.append("all images are of one class: a net has nothing to tell apart")
    return notes


class FolderLayout:
    """The folder levels below SOURCE, from which a wrong SOURCE is recognized."""

    def __init__(self) -> None:
        self._below: dict[str, set[str]] = {}
        self._direct: set[str] = set()

    def add(self, name: str) -> None:
        """An image by its path, which begins with its class."""
        folder, _, rest = name.partition("/")
        inner = self._below.setdefault(folder, set())
        deeper, slash, _ = rest.partition("/")
        if slash:
            inner.add(deeper)
        else:
            self._direct.add(folder)

    def check(self, root: Path, override: str) -> None:
        """Refuses a SOURCE one level above the class folders; ``override`` is an option to skip it.

        Raises:
            InputError: naming the folder that is probably meant.
        """
        inner = {name: below for name, below in self._below.items() if name not in self._direct}
        splits = {name: match[1] for name in self._below if (match := _split_of(name))}
        training = sorted(name for name, kind in splits.items() if kind.startswith("train"))
        is_all = len(splits) == len(self._below)
        if (training and len(training) < len(splits)) or (is_all and (len(splits) > 1 or inner)):
            meant = (training or sorted(splits))[0]
            raise InputError(
                f"{root} holds the parts of a data set, not its classes: {some(sorted(splits))}",
                f"{_hint_to_give(root, meant)}; {override} takes them for classes",
            )
        name = next(iter(self._below))
        if len(self._below) == 1 and len(inner.get(name, ())) > 1:
            raise InputError(
                f"{root} holds one class folder, {some([name])}, with {len(inner[name]):,} "
                f"folders of images in it: {some(sorted(inner[name]))}",
                f"if these are the classes, {_hint_to_give(root, name)}; "
                f"{override} takes it for a class",
            )

    def notes(self) -> list[str]:
        """A note where all classes contain the same folders."""
        if len(self._below) < 2 or self._direct:
            return []
        shared = set.intersection(*self._below.values())
        if len(shared) < 2:
            return []
        what = f"every class folder holds the folders {some(sorted(shared))}"
        return [f"{what}: if these are the classes, SOURCE is one level too high"]


def _hint_to_give(root: Path, name: str) -> str:
    if root.is_dir():
        return f"give {root / name} as SOURCE"
    return f"unpack the archive and give its folder {name} as SOURCE"


def _split_of(name: str) -> re.Match[str] | None:
    return _SPLIT.fullmatch(name.casefold())
