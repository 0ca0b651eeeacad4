"""Tar archives with labels: ILSVRC's as downloaded, and other tars of images."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from irv2caffe.data.records.class_table import read_lines, some
from irv2caffe.data.records.items import Items, Skipped, Source
from irv2caffe.data.sources.classes import FolderLayout, decide_classes, notes_on_counts
from irv2caffe.data.sources.devkit import is_devkit, read_devkit
from irv2caffe.data.sources.lists import NO_NAMES, check_labels, parse_list
from irv2caffe.data.sources.tars import TarIndex, index_tar
from irv2caffe.errors import FormatError, InputError, MissingInputError, UsageError

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
_BESIDE = ("val.txt", "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12")
_NONE, _SEVERAL = -1, -2
_VAL_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.")


def read_tar(
    path: Path,
    table: tuple[str, ...] | None,
    list_file: Path | None,
    devkit: Path | None,
    *,
    order: str = "auto",
    is_given: bool = False,
) -> Source:
    """Lists the images of an archive.

    In a tar of ``CLASS.tar`` files or of class folders, the names give the classes; a tar of loose
    images needs a list with their labels, or ILSVRC's development kit.

    Args:
        path: the tar.
        table: class names by label, or None.
        list_file: lines of ``NAME LABEL``; its order is that of the images.
        devkit: ILSVRC's development kit, as an archive or a folder.
        order: of the classes, one of :data:`irv2caffe.data.options.CLASS_ORDERS`.
        is_given: the user said that it has class folders; they are not checked.

    Raises:
        FormatError: a damaged or compressed tar.
        InputError: no images, or no labels for them.
        UsageError: a development kit for an archive that names its classes.
    """
    index = index_tar(path)
    if not index.members:
        raise InputError(f"{path} holds no images", "is it the right archive?")
    source = Source(path, "tar", Items(), stores=(path,), skipped=tuple(index.skipped))
    if list_file is not None:
        return _listed(source, index, list_file, table)
    if devkit is not None and index.num_inner:
        raise UsageError("--devkit goes with ILSVRC's validation archive only")
    has_classes = all("/" in member.name for member in index.members)
    if devkit is None and has_classes and not _has_validation_names(index.members):
        return _by_folder(source, index, table, order, is_given=is_given)
    devkit = devkit or _labels_beside(path)
    if devkit is None:
        raise MissingInputError(
            f"{path} holds loose images and no labels",
            "give --list val.txt (NAME LABEL), or --devkit ILSVRC2012_devkit_t12.tar.gz",
        )
    if not is_devkit(devkit):
        return _listed(source, index, devkit, table)
    return _by_devkit(source, index, devkit, table)


def _has_validation_names(items: Items) -> bool:
    """Whether all images have the names of ILSVRC's validation images, in any folder."""
    return all(_VAL_NUMBER.match(PurePosixPath(item.name).name) for item in items)


def _labels_beside(path: Path) -> Path | None:
    """The file or folder with the labels that is usually beside the validation images."""
    found = (path.parent / name for name in _BESIDE)
    return next((place for place in found if place.exists()), None)


def _by_folder(
    source: Source, index: TarIndex, table: tuple[str, ...] | None, order: str, *, is_given: bool
) -> Source:
    """Labels from folders: the first one below those that all images share is the class."""
    start = _length_of_shared_folders(index)
    found = {member.name[start:].partition("/")[0] for member in index.members}
    classes, notes = decide_classes(found, table, order, str(source.root))
    label_of = {name: label for label, name in enumerate(classes)}
    items, layout = Items(), FolderLayout()
    for member in index.sorted_members():
        name = member.name[start:]
        items.add(replace(member, name=name, label=label_of[name.partition("/")[0]]))
        layout.add(name)
    if table is None and not is_given:
        layout.check(source.root, "--kind tar")
        notes += layout.notes()
    notes += notes_on_counts(items, classes)
    kind = "ilsvrc" if index.num_inner else "tar"
    return replace(source, kind=kind, items=items, classes=classes, notes=tuple(notes))


def _length_of_shared_folders(index: TarIndex) -> int:
    """Length of the folders that all names begin with, without that of the class."""
    shared: list[str] | None = None
    for member in index.members:
        folders = member.name.split("/")[:-2]
        if shared is None:
            shared = folders
        while shared != folders[: len(shared)]:
            shared.pop()
    return sum(len(folder) + 1 for folder in shared or ())


def _listed(
    source: Source, index: TarIndex, list_file: Path, table: tuple[str, ...] | None
) -> Source:
    """Order and labels from a list; its names may omit the folders of the archive."""
    place = {member.name: number for number, member in enumerate(index.members)}
    short: dict[str, int] = {}
    for name, number in place.items():
        base = PurePosixPath(name).name
        short[base] = _SEVERAL if base in short else number
    listed, lines = parse_list(
        read_lines(list_file), list_file, lambda name: name in place or name in short
    )
    check_labels(listed, lines, list_file, table or ())
    items = Items()
    skipped = list(source.skipped)
    for item, line in zip(listed, lines, strict=True):
        number = place.get(item.name, short.get(item.name, _NONE))
        if number == _SEVERAL:
            raise FormatError(
                f"several images of the archive are called {item.name}",
                "the list must name their folders too",
                path=list_file,
                line=line,
            )
        if number == _NONE:
            skipped.append(Skipped(item.name, "not in the archive"))
        else:
            items.add(replace(index.members[number], name=item.name, label=item.label))
    if not items:
        raise InputError(f"{source.root} holds none of the images that {list_file} names")
    notes = [f"{list_file} gives the labels"]
    if not table:
        notes.append(NO_NAMES)
    if len(items) < len(index.members):
        notes.append(f"{len(index.members) - len(items):,} image(s) are not in the list")
    return replace(
        source,
        items=items,
        classes=table or (),
        is_validation=_has_validation_names(items),
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def _by_devkit(
    source: Source, index: TarIndex, devkit: Path, table: tuple[str, ...] | None
) -> Source:
    """Labels from the development kit, by the numbers in the names of the images."""
    kit = read_devkit(devkit)
    classes = table or kit.classes
    unknown_classes = sorted(set(classes) - set(kit.classes))
    if unknown_classes:
        raise InputError(
            f"{devkit} does not know classes of the class table: {some(unknown_classes)}",
            "training and validation images need the same class names",
        )
    label_of = {name: label for label, name in enumerate(classes)}
    items = Items()
    unknown = []
    num_other = 0
    for member in index.sorted_members():
        match = _VAL_NUMBER.match(PurePosixPath(member.name).name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(kit.labels):
            unknown.append(member.name)
        elif (label := label_of.get(kit.classes[kit.labels[number - 1]])) is None:
            num_other += 1
        else:
            items.add(replace(member, label=label))
    if unknown or not items:
        what = some(unknown) if unknown else "any of the classes"
        raise InputError(
            f"{source.root}: no label for {what}", "the devkit knows ILSVRC's images only"
        )
    notes = [f"{devkit} gives the labels, in the order of the sorted WordNet IDs"]
    if num_other:
        notes.append(f"{num_other:,} image(s) of other classes are not taken")
    words = dict(zip(kit.classes, kit.words, strict=True))
    return replace(
        source,
        kind="ilsvrc",
        items=items,
        classes=classes,
        words=tuple(words[name] for name in classes),
        is_validation=True,
        notes=tuple(notes),
    )


def find_ilsvrc(root: Path, split: str | None) -> Path | None:
    """ILSVRC's archive in a folder of downloads; None where there is none.

    Raises:
        InputError: there are both, and ``split`` is None.
    """
    names = {None: (TRAIN_TAR, VAL_TAR), "train": (TRAIN_TAR,), "val": (VAL_TAR,)}[split]
    found = [name for name in names if (root / name).is_file()]
    if len(found) > 1:
        raise InputError(
            f"{root} holds training and validation archives", "say --split train or --split val"
        )
    return root / found[0] if found else None
