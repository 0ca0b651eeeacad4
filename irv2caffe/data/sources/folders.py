"""Class folders: one folder per class, images at any depth below."""

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
# What systems and programs put between images, or beside class folders: macOS, Windows, Synology's
# disks (thumbnails), ext4, Python. Hidden ones too: Jupyter's, those of thumbnails, and the rest.
OF_SYSTEMS = frozenset(
    {"__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "lost+found", "__pycache__"}
)
_MAX_PATHS = 64  # to the same folder, within a class


def has_image_suffix(name: str) -> bool:
    """Whether a file is called like an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def is_of_system(name: str) -> bool:
    """Whether a file or folder is hidden, or is no part of the data for another reason."""
    return name.startswith(".") or name in OF_SYSTEMS


def read_class_folders(
    root: Path, table: tuple[str, ...] | None, *, order: str = "auto", is_told: bool = False
) -> Source:
    """The images in the class folders of a folder, sorted by class and path.

    Args:
        root: the folder.
        table: class names by label; None takes the names of the folders.
        order: of these, one of :data:`irv2caffe.data.options.CLASS_ORDERS`.
        is_told: somebody said that these are class folders, whatever they look like.

    Raises:
        InputError: no class folders, no images, folders that are no classes, a class that the
            table does not know, a class folder that is a link to nothing, or the disk fails.
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
        raise InputError(f"no images below {root}", f"known suffixes: {_suffixes()}")
    if table is None and not is_told:
        layout.refuse_mistakes(root, "--kind folders")
        class_notes = [*class_notes, *layout.notes()]
    notes = [
        *class_notes,
        *walk.notes(),
        *_loose_note(num_loose),
        *notes_on_counts(items, classes),
    ]
    return Source(root, "folders", items, classes, skipped=tuple(walk.skipped), notes=tuple(notes))


def _classes(root: Path) -> tuple[list[str], int]:
    """Sorted names of the class folders, and the number of images beside them."""
    try:
        found = [entry for entry in _entries(root) if not is_of_system(entry.name)]
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


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder on the way down: its path from the root, what it is, and the one it was met in."""

    path: str
    above: _Place | None
    identity: tuple[int, int]

    def is_in(self, identity: tuple[int, int]) -> bool:
        """Whether it, or a folder above it, is the one with that identity."""
        place: _Place | None = self
        while place is not None:
            if place.identity == identity:
                return True
            place = place.above
        return False


class _Walk:
    """Goes through folders, also through links, and remembers what it could not take."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.skipped: list[Skipped] = []
        self._other_suffixes: Counter[str] = Counter()
        self._first_path: dict[tuple[int, int], str] = {}
        self._shared: list[str] = []

    def images_below(self, folder: str) -> list[str]:
        """Paths of all images below a class folder, from the root, with ``/``.

        Raises:
            InputError: the disk fails, a folder is gone, folders that are nested deeper than a
                key can tell, or links by which a folder is met again and again.
        """
        names: list[str] = []
        num_paths: Counter[tuple[int, int]] = Counter()
        waiting = [(folder, _Place("", None, _identity(self._root)))]
        while waiting:
            path, above = waiting.pop()
            entered = self._enter(path, above)
            if entered is None:
                continue
            place, found = entered
            num_paths[place.identity] += 1
            first = self._first_path.setdefault(place.identity, path)
            if first.partition("/")[0] != folder:
                self._shared.append(f"{first} = {path}")
            if num_paths[place.identity] > _MAX_PATHS:
                raise InputError(
                    f"{self._root / path} is met on more than {_MAX_PATHS} ways through links",
                    "do links multiply the images? remove those that are not meant",
                )
            inner = [(name, place) for name in self._look_at(path, found, names)]
            waiting += reversed(inner)
        return names

    def _enter(self, path: str, above: _Place) -> tuple[_Place, list[_Entry]] | None:
        """What lies in a folder; None where it is left out."""
        if len(os.fsencode(path)) > MAX_KEY_BYTES:
            raise InputError(
                f"folders nested so deep that their paths are too long for a key: {path[:60]}...",
                f"LMDB keys hold {MAX_KEY_BYTES} bytes; give a SOURCE nearer to the images",
            )
        try:
            identity = _identity(self._root / path)
            if above.is_in(identity):
                self.skipped.append(Skipped(path, "a link to a folder above it"))
                return None
            return _Place(path, above, identity), _entries(self._root / path)
        except OSError as error:
            if error.errno not in OF_ONE_FILE or error.errno == errno.ENOENT:
                raise InputError(
                    f"cannot read {self._root / path}: {error.strerror}",
                    "is its disk still there?",
                ) from error
            self.skipped.append(Skipped(path, "a folder that cannot be read", reason_of(error)))
            return None

    def _look_at(self, folder: str, found: list[_Entry], names: list[str]) -> list[str]:
        """Takes the images in a folder; the folders in it."""
        inner = []
        for entry in found:
            path = f"{folder}/{entry.name}"
            if is_of_system(entry.name):
                continue
            if has_image_suffix(entry.name):
                self._take(path, names, is_dir=entry.is_dir)
            elif entry.broken:
                self.skipped.append(Skipped(path, "a link that cannot be followed", entry.broken))
            elif entry.is_dir:
                inner.append(path)
            else:
                suffix = PurePosixPath(entry.name).suffix.lower()
                self._other_suffixes[suffix or entry.name[:20]] += 1
        return inner

    def _take(self, path: str, names: list[str], *, is_dir: bool) -> None:
        if is_dir:
            self.skipped.append(Skipped(path, "a folder with the name of an image"))
        else:
            names.append(path)

    def notes(self) -> list[str]:
        """What else lay there."""
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


def _suffixes() -> str:
    return " ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
