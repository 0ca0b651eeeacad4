"""Lists the images of a source, with the labels that they have for a model."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from irv2caffe.data.records.items import Item, Items, Skipped, Source
from irv2caffe.data.sources import detect_kind, open_source
from irv2caffe.data.sources.classes import decide_classes
from irv2caffe.data.sources.folders import has_image_suffix, is_of_system
from irv2caffe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from irv2caffe.inference.model import Model

NO_LABEL = -1
_MAX_DEPTH = 64


def list_images(source: Path, model: Model, list_file: Path | None) -> Source:
    """Lists images, with the labels that they have for a model.

    Args:
        source: an image, a folder, or another source of make-lmdb.
        model: whose classes are meant.
        list_file: lines of ``PATH LABEL``.

    Raises:
        FormatError: a malformed list or archive.
        InputError: no images; classes that are not those of the model.
    """
    names = model.class_names
    if list_file is not None:
        return _with_names(open_source(source, list_file, kind="list"), model)
    if detect_kind(source) != "folders":
        return _with_names(open_source(source), model)
    if source.is_dir():
        return _folder(source, names, model.num_classes)
    items = Items()
    items.add(Item(source.name, NO_LABEL))
    return Source(source.parent, "file", items)


def _with_names(found: Source, model: Model) -> Source:
    """The source, if its classes are those of the model as far as both have names.

    Labels are dropped where nothing says which classes of the model they are.
    """
    names = model.class_names
    if found.classes and not names and len(found.classes) != model.num_classes:
        items = Items()
        for item in found.items:
            items.add(replace(item, label=NO_LABEL))
        note = (
            f"no labels: {found.root} has {len(found.classes)} classes, the model has "
            f"{model.num_classes} and no class names"
        )
        return replace(found, items=items, notes=(*found.notes, note))
    if found.classes and names and found.classes != names[: len(found.classes)]:
        raise InputError(
            f"{found.root}: its classes are not those of the model",
            "give the class table of the training with --labels",
        )
    return found


def _folder(root: Path, names: tuple[str, ...], num_classes: int) -> Source:
    """The images below a folder, with labels if its folders are called as classes."""
    skipped: list[Skipped] = []
    paths = sorted(_paths(root, "", skipped, 0))
    if not paths:
        raise InputError(f"no images below {root}", "known suffixes are those of make-lmdb")
    label_of = {name: label for label, name in enumerate(names)}
    tops = {path.partition("/")[0] for path in paths if "/" in path}
    is_sorted = all("/" in path for path in paths)
    notes: tuple[str, ...] = ()
    if is_sorted and not names and len(tops) == num_classes:
        ordered, _ = decide_classes(tops, None, "auto", str(root))
        label_of = {name: label for label, name in enumerate(ordered)}
        first, last = f"{ordered[0]} is class 0", f"{ordered[-1]} is class {num_classes - 1}"
        notes = (f"the model has no class names: class folders in their order, {first}, {last}",)
    known = is_sorted and tops <= label_of.keys()
    items = Items()
    for path in paths:
        items.add(Item(path, label_of[path.partition("/")[0]] if known else NO_LABEL))
    if is_sorted and names and not known and tops & label_of.keys():
        other = sorted(tops - label_of.keys())
        notes = (f"no labels: {len(other)} folder(s) are no classes of the model: {other[0]} ...",)
    return Source(root, "folder", items, skipped=tuple(skipped), notes=notes)


def _paths(root: Path, inside: str, skipped: list[Skipped], depth: int) -> Iterator[str]:
    try:
        with os.scandir(root / inside) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        skipped.append(Skipped(inside or ".", "a folder that cannot be read", error.strerror or ""))
        return
    for entry in found:
        path = f"{inside}/{entry.name}" if inside else entry.name
        if is_of_system(entry.name):
            continue
        if entry.is_dir(follow_symlinks=depth == 0):
            if depth < _MAX_DEPTH:
                yield from _paths(root, path, skipped, depth + 1)
        elif has_image_suffix(entry.name):
            yield path
