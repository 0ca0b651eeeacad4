"""Class folders: one folder per class, images at any depth below."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from irv2caffe.data.items import OF_ONE_FILE, Item, Items, Skipped, Source, reason_of
from irv2caffe.data.sources.text import some
from irv2caffe.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".gif", ".avif"),
    }
)
_NOT_CLASSES = (".", "__MACOSX")


def has_image_suffix(name: str) -> bool:
    """Whether a file is called like an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def read_class_folders(root: Path, table: tuple[str, ...] | None) -> Source:
    """The images in the class folders of a folder, sorted by class and path.

    Args:
        root: the folder.
        table: class names by label; None takes the sorted names of the folders.

    Raises:
        InputError: no class folders, no images, a class that the table does not know, a class
            folder that is a link to nothing, or the disk fails.
    """
    folders, loose = _classes(root)
    if not folders:
        raise InputError(
            f"{root} holds no class folders",
            "one folder per class is expected; --list names images without them",
        )
    classes = table or tuple(folders)
    check_classes(folders, classes, str(root))
    label_of = {name: label for label, name in enumerate(classes)}
    walk = _Walk()
    items = Items()
    empty = []
    for folder in folders:
        names = sorted(walk.images_below(root, folder))
        for name in names:
            items.add(Item(name, label_of[folder]))
        if not names:
            empty.append(folder)
    if not items:
        raise InputError(f"no images below {root}", f"known suffixes: {_suffixes()}")
    notes = [*walk.notes(), *_loose_note(loose), *missing_classes(items, classes)]
    return Source(root, "folders", items, classes, skipped=tuple(walk.skipped), notes=tuple(notes))


def check_classes(found: list[str], table: tuple[str, ...], where: str) -> None:
    """Refuses classes that a table lacks: their labels would mean something else in training.

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


def missing_classes(items: Items, classes: tuple[str, ...]) -> list[str]:
    """A note where classes of the table have no image."""
    present = set(items.labels)
    missing = [name for label, name in enumerate(classes) if label not in present]
    return [f"{len(missing):,} class(es) without images: {some(missing)}"] if missing else []


def _classes(root: Path) -> tuple[list[str], int]:
    """Sorted names of the class folders, and the number of images beside them."""
    try:
        found = [entry for entry in _entries(root) if not entry.name.startswith(_NOT_CLASSES)]
    except OSError as error:
        raise InputError(f"cannot read {root}: {error.strerror}") from error
    for entry in found:
        if entry.broken and not has_image_suffix(entry.name):  # all labels behind it would shift
            raise InputError(
                f"{root / entry.name} cannot be followed: {entry.broken}",
                "is the disk that it leads to mounted? if it is no class, remove it",
            )
    folders = sorted(entry.name for entry in found if entry.is_dir)
    num_loose = sum(1 for entry in found if not entry.is_dir and has_image_suffix(entry.name))
    return folders, num_loose


@dataclass(frozen=True, slots=True)
class _Entry:
    """What lies in a folder: its name, whether it is (or leads to) a folder, a broken link."""

    name: str
    is_dir: bool
    broken: str = ""


def _entries(folder: Path) -> list[_Entry]:
    """What lies in a folder; links that lead nowhere are told apart.

    Raises:
        OSError: the folder cannot be read, or the disk fails.
    """
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                is_dir = entry.is_dir()
                if entry.is_symlink() and not is_dir:
                    entry.stat()
            except OSError as error:
                if error.errno not in OF_ONE_FILE:
                    raise
                found.append(_Entry(entry.name, is_dir=False, broken=reason_of(error)))
            else:
                found.append(_Entry(entry.name, is_dir=is_dir))
    return found


def _loose_note(count: int) -> list[str]:
    return [f"{count:,} image(s) outside of the class folders are not taken"] if count else []


class _Walk:
    """Goes through folders, also through links, and remembers what it could not take."""

    def __init__(self) -> None:
        self.skipped: list[Skipped] = []
        self._other_suffixes: Counter[str] = Counter()

    def images_below(self, root: Path, folder: str) -> list[str]:
        """Paths of all images below a class folder, from the root, with ``/``."""
        names: list[str] = []
        status = root.stat()
        self._enter(root, folder, ((status.st_dev, status.st_ino),), names)
        return names

    def _enter(
        self, root: Path, folder: str, above: tuple[tuple[int, int], ...], names: list[str]
    ) -> None:
        try:
            status = (root / folder).stat()
            here = (status.st_dev, status.st_ino)
            if here in above:
                self.skipped.append(Skipped(folder, "a link to a folder above it"))
                return
            found = _entries(root / folder)
        except OSError as error:
            if error.errno not in OF_ONE_FILE:
                raise InputError(f"cannot read {root / folder}: {error.strerror}") from error
            self.skipped.append(Skipped(folder, "a folder that cannot be read", reason_of(error)))
            return
        for entry in found:
            path = f"{folder}/{entry.name}"
            if entry.name.startswith(_NOT_CLASSES):
                continue
            if has_image_suffix(entry.name):
                self._take(path, names, is_dir=entry.is_dir)
            elif entry.broken:
                self.skipped.append(Skipped(path, "a link that cannot be followed", entry.broken))
            elif entry.is_dir:
                self._enter(root, path, (*above, here), names)
            else:
                suffix = PurePosixPath(entry.name).suffix.lower()
                self._other_suffixes[suffix or entry.name[:20]] += 1

    def _take(self, path: str, names: list[str], *, is_dir: bool) -> None:
        if is_dir:
            self.skipped.append(Skipped(path, "a folder with the name of an image"))
        else:
            names.append(path)

    def notes(self) -> list[str]:
        """What else lay there."""
        if not self._other_suffixes:
            return []
        total = sum(self._other_suffixes.values())
        kinds = [f"{count:,} {suffix}" for suffix, count in self._other_suffixes.most_common()]
        return [f"{total:,} file(s) that are not called like images are not taken: {some(kinds)}"]


def _suffixes() -> str:
    return " ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
