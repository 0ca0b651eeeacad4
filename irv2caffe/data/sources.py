"""Where images come from: class folders, or a list file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from irv2caffe.errors import FormatError, InputError, MissingInputError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"}
)
_NUM_SHOWN = 5


@dataclass(frozen=True)
class Item:
    """An image of the data set.

    Attributes:
        name: path below the source folder, with ``/``; it becomes part of the key.
        label: of its class, from 0.
    """

    name: str
    label: int


@dataclass(frozen=True)
class Source:
    """The images of a data set, in sorted or listed order.

    Attributes:
        root: the folder that names start from.
        items: the images.
        classes: class names by label; empty where a list file gave only numbers.
    """

    root: Path
    items: tuple[Item, ...]
    classes: tuple[str, ...]


def open_source(root: Path, list_file: Path | None = None, labels: Path | None = None) -> Source:
    """The images below a folder.

    Args:
        root: one folder per class (any depth below), or the folder that a list's paths start from.
        list_file: lines of ``PATH LABEL``; paths may hold spaces.
        labels: a class table to keep to, one name per line, as make-lmdb writes it for the
            training set; without one, the sorted names of the folders are the classes.

    Raises:
        MissingInputError: a folder or file is not there.
        FormatError: malformed lines, by number.
        InputError: no images, or a class that the table does not know.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "no such folder"
        raise MissingInputError(f"{root}: {what}", "give the folder that holds the class folders")
    table = read_labels(labels) if labels is not None else None
    if list_file is not None:
        items = _read_list(list_file)
        classes = table or ()
        highest = max(item.label for item in items)
        if classes and highest >= len(classes):
            raise InputError(f"{list_file} has label {highest}, {labels} has {len(classes)} lines")
        return Source(root, tuple(items), classes)
    return _class_folders(root, table)


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names, one per line; a training database's folder stands for its ``labels.txt``.

    Raises:
        MissingInputError: no such file.
        FormatError: empty, or a name twice.
    """
    path = path / "labels.txt" if path.is_dir() else path
    names = tuple(line.strip() for line in _text(path).splitlines() if line.strip())
    if not names:
        raise FormatError("holds no class names", "one name per line", path=path)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FormatError(f"class {twice!r} stands there twice", path=path)
    return names


def _class_folders(root: Path, table: tuple[str, ...] | None) -> Source:
    folders = sorted(entry.name for entry in root.iterdir() if _is_class_folder(entry))
    if not folders:
        raise InputError(
            f"{root} holds no class folders",
            "one folder per class is expected; --list names images without them",
        )
    classes = table or tuple(folders)
    unknown = [name for name in folders if name not in classes]
    if unknown:
        raise InputError(
            f"{root} has class folders that the class table lacks: {_some(unknown)}",
            "training and validation images need the same class names",
        )
    label_of = {name: label for label, name in enumerate(classes)}
    items = [
        Item(name, label_of[folder])
        for folder in folders
        for name in sorted(_images_below(root, folder))
    ]
    if not items:
        raise InputError(f"no images below {root}", f"known suffixes: {_suffixes()}")
    return Source(root, tuple(items), classes)


def _is_class_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))


def _images_below(root: Path, folder: str) -> list[str]:
    names = []
    for place, folders, files in os.walk(root / folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(place).relative_to(root)
        names += [
            str(PurePosixPath(inside) / name)
            for name in files
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
        ]
    return names


def _read_list(path: Path) -> list[Item]:
    """Lines of ``PATH LABEL``; convert_imageset would store a bogus label for a broken one."""
    items: list[Item] = []
    bad: list[str] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.rstrip().replace("\t", " ").rpartition(" ")
        if not name or not label.isdecimal() or not label.isascii():
            bad.append(f"line {number}: no label at the end")
        elif name.startswith("/") or ".." in PurePosixPath(name).parts:
            bad.append(f"line {number}: the path leaves the source folder")
        elif int(label) > 0x7FFFFFFF:
            bad.append(f"line {number}: label {label} is too large")
        else:
            items.append(Item(name.rstrip(), int(label)))
    if bad:
        raise FormatError(
            f"{len(bad)} bad line(s): {_some(bad)}", "lines are PATH LABEL, label from 0", path=path
        )
    if not items:
        raise FormatError("names no images", "lines are PATH LABEL, label from 0", path=path)
    return items


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _some(names: list[str]) -> str:
    more = len(names) - _NUM_SHOWN
    return ", ".join(names[:_NUM_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _suffixes() -> str:
    return " ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
