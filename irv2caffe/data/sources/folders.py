"""Class folders: one folder per class, images at any depth below."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from irv2caffe.data.items import Item, Items, Skipped, Source
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
        InputError: no class folders, no images, or a class that the table does not know.
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
        with os.scandir(root) as entries:
            found = [(entry.name, entry.is_dir()) for entry in entries]
    except OSError as error:
        raise InputError(f"cannot read {root}: {error.strerror}") from error
    folders = sorted(name for name, is_dir in found if is_dir and not name.startswith(_NOT_CLASSES))
    return folders, sum(1 for name, is_dir in found if not is_dir and has_image_suffix(name))


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
        self._enter(root, folder, (), names)
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
            with os.scandir(root / folder) as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries]
        except OSError as error:
            self.skipped.append(
                Skipped(folder, "a folder that cannot be read", error.strerror or "")
            )
            return
        for name, is_dir in found:
            path = f"{folder}/{name}"
            if name.startswith(_NOT_CLASSES):
                continue
            if has_image_suffix(name):
                self._take(path, names, is_dir=is_dir)
            elif is_dir:
                self._enter(root, path, (*above, here), names)
            else:
                self._other_suffixes[PurePosixPath(name).suffix.lower() or name[:20]] += 1

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
