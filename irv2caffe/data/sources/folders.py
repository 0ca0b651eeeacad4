"""Class folders: one folder per class, with images at any depth."""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from irv2caffe.data.records.class_table import some
from irv2caffe.data.records.datum import MAX_KEY_BYTES
from irv2caffe.data.records.items import OF_ONE_FILE, Item, Items, Skipped, Source, reason_of
from irv2caffe.data.sources.classes import FolderLayout, decide_classes, notes_on_counts
from irv2caffe.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".gif", ".avif"),
    }
)
# Folders made by macOS, Windows, Synology's disks (thumbnails), ext4 and Python.
OF_SYSTEMS = frozenset(
    {"__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found", "__pycache__"}
)
_MAX_PATHS = 64  # ways through links to the same folder, within a class


def has_image_suffix(name: str) -> bool:
    """Whether a file name has the suffix of an image format."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def is_of_system(name: str) -> bool:
    """Whether a file or folder is hidden, or made by the operating system."""
    return name.startswith(".") or name in OF_SYSTEMS


def read_class_folders(
    root: Path, table: tuple[str, ...] | None, *, order: str = "auto", is_given: bool = False
) -> Source:
    """Lists the images in the class folders, sorted by class and path.

    Args:
        root: the folder that contains the class folders.
        table: class names by label; None uses the names of the folders.
        order: of the folders, one of :data:`irv2caffe.data.options.CLASS_ORDERS`.
        is_given: the user said that these are class folders; they are not checked.

    Raises:
        InputError: no class folders, no images, folders that are not classes, a class that is not
            in the table, a class folder that is a broken link, or the disk fails.
    """
    folders, num_loose = _classes(root)
    if not folders:
        what = f"{num_loose:,} images and " if num_loose else ""
        hint = "if they are one class, give the folder above; " if num_loose else ""
        raise InputError(
            f"{root} holds {what}no class folders",
            f"one folder per class is expected; {hint}--list names images without them",
        )
    classes, class_notes = decide_classes(folders, table, order, str(root))
    label_of = {name: label for label, name in enumerate(classes)}
    walk, layout, items = _Walk(root), FolderLayout(), Items()
    for folder in classes if table is None else sorted(folders):
        for name in sorted(walk.images_below(folder)):
            items.add(Item(name, label_of[folder]))
            layout.add(name)
    if not items:
        known = " ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
        raise InputError(f"no images below {root}", f"known suffixes: {known}")
    if table is None and not is_given:
        layout.check(root, "--kind folders")
        class_notes = [*class_notes, *layout.notes()]
    notes = [*class_notes, *walk.notes()]
    if num_loose:
        notes.append(f"{num_loose:,} image(s) outside of the class folders are not taken")
    notes += notes_on_counts(items, classes)
    return Source(root, "folders", items, classes, skipped=tuple(walk.skipped), notes=tuple(notes))


def _classes(root: Path) -> tuple[list[str], int]:
    """Sorted names of the class folders, and the number of images outside of them."""
    try:
        found = [entry for entry in _entries(root) if not is_of_system(entry.name)]
    except OSError as error:
        raise InputError(f"cannot read {root}: {error.strerror}") from error
    for entry in found:
        if entry.broken and not has_image_suffix(
            entry.name
        ):  # skipping it would shift all later labels
            raise InputError(
                f"{root / entry.name} cannot be followed: {entry.broken}",
                "is the disk that it leads to mounted? if it is no class, remove it",
            )
    folders = sorted(entry.name for entry in found if entry.is_dir)
    num_loose = sum(1 for entry in found if not entry.is_dir and has_image_suffix(entry.name))
    return folders, num_loose


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of a folder: its name, whether it is (or links to) a folder, or why it is broken."""

    name: str
    is_dir: bool
    broken: str = ""


def _entries(folder: Path) -> list[_Entry]:
    """The entries of a folder, broken links marked as such.

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


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder that is being walked: its parent, and its device and inode."""

    parent: _Folder | None
    identity: tuple[int, int]

    def is_in(self, identity: tuple[int, int]) -> bool:
        """Whether it, or a folder above it, has this identity."""
        folder: _Folder | None = self
        while folder is not None and folder.identity != identity:
            folder = folder.parent
        return folder is not None


class _Walk:
    """Walks through folders and links, and collects what it skips."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.skipped: list[Skipped] = []
        self._other_suffixes: Counter[str] = Counter()
        self._first_path: dict[tuple[int, int], str] = {}
        self._shared: list[str] = []

    def images_below(self, folder: str) -> list[str]:
        """Paths of all images in a class folder, relative to the root, with ``/``.

        Raises:
            InputError: the disk fails, a folder has disappeared, folders are nested too deep for
                a key, or links lead to the same folder in too many ways.
        """
        names: list[str] = []
        num_paths: Counter[tuple[int, int]] = Counter()
        waiting = [(folder, _Folder(None, _identity(self._root)))]
        while waiting:
            path, parent = waiting.pop()
            entered = self._enter(path, parent)
            if entered is None:
                continue
            entry, found = entered
            num_paths[entry.identity] += 1
            first = self._first_path.setdefault(entry.identity, path)
            if first.partition("/")[0] != folder:
                self._shared.append(f"{first} = {path}")
            if num_paths[entry.identity] > _MAX_PATHS:
                raise InputError(
                    f"{self._root / path} is met on more than {_MAX_PATHS} ways through links",
                    "do links multiply the images? remove those that are not meant",
                )
            inner = [(name, entry) for name in self._add_images(path, found, names)]
            waiting += reversed(inner)
        return names

    def _enter(self, path: str, parent: _Folder) -> tuple[_Folder, list[_Entry]] | None:
        """A folder and its entries; None where it is skipped."""
        if len(os.fsencode(path)) > MAX_KEY_BYTES:
            raise InputError(
                f"folders nested so deep that their paths are too long for a key: {path[:60]}...",
                f"LMDB keys hold {MAX_KEY_BYTES} bytes; give a SOURCE nearer to the images",
            )
        try:
            identity = _identity(self._root / path)
            if parent.is_in(identity):
                self.skipped.append(Skipped(path, "a link to a folder above it"))
                return None
            return _Folder(parent, identity), _entries(self._root / path)
        except OSError as error:
            if error.errno not in OF_ONE_FILE or error.errno == errno.ENOENT:
                raise InputError(
                    f"cannot read {self._root / path}: {error.strerror}",
                    "is its disk still there?",
                ) from error
            self.skipped.append(Skipped(path, "a folder that cannot be read", reason_of(error)))
            return None

    def _add_images(self, folder: str, found: list[_Entry], names: list[str]) -> list[str]:
        """Adds the images of a folder to ``names``; returns its folders."""
        inner = []
        for entry in found:
            path = f"{folder}/{entry.name}"
            if is_of_system(entry.name):
                continue
            if has_image_suffix(entry.name):
                if entry.is_dir:
                    self.skipped.append(Skipped(path, "a folder with the name of an image"))
                else:
                    names.append(path)
            elif entry.broken:
                self.skipped.append(Skipped(path, "a link that cannot be followed", entry.broken))
            elif entry.is_dir:
                inner.append(path)
            else:
                suffix = PurePosixPath(entry.name).suffix.lower()
                self._other_suffixes[suffix or entry.name[:20]] += 1
        return inner

    def notes(self) -> list[str]:
        """Notes on shared folders and on other files."""
        notes = []
        if self._shared:
            what = "folder(s) belong to two classes through links, and so do their images"
            notes.append(f"{len(self._shared):,} {what}: {some(self._shared)}")
        total = sum(self._other_suffixes.values())
        if total:
            kinds = [f"{count:,} {suffix}" for suffix, count in self._other_suffixes.most_common()]
            what = "file(s) that are not called like images are not taken"
            notes.append(f"{total:,} {what}: {some(kinds)}")
        return notes


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
