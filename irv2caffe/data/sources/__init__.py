"""Kinds of SOURCE: a folder, a list or an archive in; a :class:`Source` of images and labels out.

:func:`open_source` detects the kind and calls the module that reads it. Imports records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.data.records.class_table import read_labels
from irv2caffe.data.records.items import Item, Items, PixelFormat, Skipped, Source
from irv2caffe.data.sources.cifar import is_cifar, read_cifar
from irv2caffe.data.sources.folders import read_class_folders
from irv2caffe.data.sources.idx import is_idx, read_idx
from irv2caffe.data.sources.ilsvrc import TRAIN_TAR, find_ilsvrc, read_tar
from irv2caffe.data.sources.lists import read_list
from irv2caffe.data.sources.unpack import is_tar
from irv2caffe.errors import InputError, MissingInputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Item",
    "Items",
    "PixelFormat",
    "Skipped",
    "Source",
    "open_source",
    "read_labels",
]


def open_source(
    root: Path,
    list_file: Path | None = None,
    labels: Path | None = None,
    *,
    kind: str | None = None,
    split: str | None = None,
    devkit: Path | None = None,
    class_order: str = "auto",
) -> Source:
    """Lists the images of a data set.

    Args:
        root: one folder per class (any depth below), the folder that a list's paths start from,
            ILSVRC's archives or another tar, CIFAR-10 or CIFAR-100, or MNIST's IDX files.
        list_file: lines of ``PATH LABEL``; paths may contain spaces.
        labels: class table to use, one name per line, as make-lmdb writes it for the training set;
            None uses the classes of the source, usually sorted by name.
        kind: one of :data:`irv2caffe.data.options.KINDS`; None detects it, and refuses what is
            probably the wrong folder.
        split: ``train`` or ``val``, where a source has both.
        devkit: ILSVRC's development kit, for the labels of its validation images.
        class_order: order of class folders, one of :data:`irv2caffe.data.options.CLASS_ORDERS`.

    Raises:
        MissingInputError: a folder or file does not exist.
        FormatError: a file of the wrong format; malformed lines, by number.
        InputError: no images, or a class that is not in the table.
        UsageError: options that do not go with the source.
    """
    if not root.exists():
        raise MissingInputError(f"{root}: no such file or folder", "give the images' folder")
    table = read_labels(labels) if labels is not None else None
    is_given = kind is not None
    kind = kind or detect_kind(root, list_file)
    _check_options(root, list_file, kind, split, devkit, class_order)
    if kind == "cifar":
        return read_cifar(root, split or "train", table)
    if kind == "idx":
        return _check_split(read_idx(root, split or "train", table), split, root)
    if kind == "tar":
        archive = find_ilsvrc(root, split) if root.is_dir() else root
        if archive is None:
            raise MissingInputError(f"{root} holds none of ILSVRC's archives")
        is_given = is_given or split is not None  # refused below, with a better message
        source = read_tar(archive, table, list_file, devkit, order=class_order, is_given=is_given)
        return _check_split(source, split, root)
    if not root.is_dir():
        raise InputError(
            f"{root}: neither a folder nor a known kind of archive",
            "give class folders, ILSVRC's or another tar, CIFAR's archives, or IDX files",
        )
    if kind == "list":
        if list_file is None:
            raise UsageError("--kind list needs --list FILE")
        return read_list(root, list_file, table)
    return read_class_folders(root, table, order=class_order, is_given=is_given)


def _check_options(
    root: Path,
    list_file: Path | None,
    kind: str,
    split: str | None,
    devkit: Path | None,
    class_order: str,
) -> None:
    """Refuses options that do not go with the kind of source."""
    if devkit is not None and kind != "tar":
        raise UsageError("--devkit goes with ILSVRC's validation archive only")
    if class_order != "auto" and (kind not in {"folders", "tar"} or list_file is not None):
        raise UsageError("--class-order goes with class folders only")
    if list_file is not None and kind not in {"list", "tar"}:
        raise UsageError(f"--list does not go with {kind}")
    if split is not None and kind in {"folders", "list"}:
        raise _no_split(root, split, kind)


def detect_kind(root: Path, list_file: Path | None = None) -> str:
    """The kind of a source, from its name and its contents."""
    if is_cifar(root):
        return "cifar"
    if is_idx(root):
        return "idx"
    if root.is_file():
        return "tar" if root.name.endswith(".tar") or is_tar(root) else "folders"
    if _holds_ilsvrc(root):
        return "tar"
    return "folders" if list_file is None else "list"


def _check_split(source: Source, split: str | None, root: Path) -> Source:
    """Returns the source; refuses a file that is not of the given split."""
    if split is None or root.is_dir():
        return source
    is_known = source.kind in {"ilsvrc", "idx"} or root.name == TRAIN_TAR or source.is_validation
    if not is_known or source.is_validation != (split == "val"):
        raise _no_split(root, split, source.kind)
    return source


def _no_split(root: Path, split: str, kind: str) -> UsageError:
    """The error for a source that does not have the given split."""
    hint = "name the one that is meant as SOURCE"
    if (root / split).is_dir():
        hint = f"give {root / split} as SOURCE"
    return UsageError(f"{root} ({kind}) has no --split {split}", hint)


def _holds_ilsvrc(root: Path) -> bool:
    """Whether a folder contains any of ILSVRC's archives."""
    return any(find_ilsvrc(root, split) is not None for split in ("train", "val"))
