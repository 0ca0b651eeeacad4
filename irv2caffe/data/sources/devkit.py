"""Labels of ILSVRC 2012's validation images, from the ground truth file of its development kit.

The kit numbers the classes in its own order (``ILSVRC2012_ID``). Training uses the order of the
sorted WordNet IDs, which is that of the training folders. ``ilsvrc2012_classes.txt`` maps the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from irv2caffe.data.sources.unpack import read_members
from irv2caffe.errors import FormatError, MissingInputError

if TYPE_CHECKING:
    from pathlib import Path

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_MAX_BYTES = 16 << 20  # the kit has 50,000 lines of up to 5 bytes, and a few more files


@dataclass(frozen=True)
class Devkit:
    """Classes and labels of the validation images.

    Attributes:
        classes: WordNet IDs of the classes, sorted; a label is an index into it.
        words: words of the classes, in the same order.
        labels: labels of the validation images, in the order of their numbers.
    """

    classes: tuple[str, ...]
    words: tuple[str, ...]
    labels: tuple[int, ...]


def is_devkit(path: Path) -> bool:
    """Whether a path is the kit (an archive or a folder) or its ground truth file."""
    if path.is_dir():
        return any((path / folder / GROUND_TRUTH).is_file() for folder in ("", "data"))
    is_archive = "devkit" in path.name and path.name.endswith((".tar.gz", ".tgz", ".tar"))
    return is_archive or path.name == GROUND_TRUTH


def read_devkit(path: Path) -> Devkit:
    """Reads ``ILSVRC2012_devkit_t12.tar.gz``, its unpacked folder, or its ground truth file.

    Raises:
        MissingInputError: it has no ground truth for ILSVRC 2012.
        FormatError: a number that is no class of ILSVRC 2012, or a damaged archive.
    """
    rows = sorted(_class_rows(), key=lambda row: row[1])
    label_of = {number.encode(): label for label, (number, _, _) in enumerate(rows)}
    labels = []
    for line_number, number in enumerate(_ground_truth(path).split(), 1):
        if number not in label_of:
            shown = number[:20].decode("ascii", "replace")
            raise FormatError(
                f"{GROUND_TRUTH}: {shown!r} is none of ILSVRC 2012's classes, 1 to 1000",
                "is it from another year's development kit?",
                path=path,
                line=line_number,
            )
        labels.append(label_of[number])
    classes, words = tuple(row[1] for row in rows), tuple(row[2] for row in rows)
    return Devkit(classes, words, tuple(labels))


def _class_rows() -> list[tuple[str, str, str]]:
    """(ILSVRC2012_ID, WordNet ID, words) of the classes."""
    table = resources.files("irv2caffe.data.sources").joinpath("ilsvrc2012_classes.txt")
    rows = []
    for line in table.read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            number, wnid, words = line.split(" ", 2)
            rows.append((number, wnid, words))
    return rows


def _ground_truth(path: Path) -> bytes:
    if path.is_dir():
        places = [path / GROUND_TRUTH, path / "data" / GROUND_TRUTH]
        found = next((place for place in places if place.is_file()), None)
    else:
        found = path if path.name == GROUND_TRUTH else None
    if found is not None:
        if found.stat().st_size > _MAX_BYTES:
            raise FormatError("too large for a ground truth file", path=found)
        return found.read_bytes()
    if path.is_file():
        files = read_members(path, GROUND_TRUTH.__eq__, _MAX_BYTES)
        if GROUND_TRUTH in files:
            return files[GROUND_TRUTH]
    raise MissingInputError(
        f"{path} has no {GROUND_TRUTH}", "ILSVRC2012_devkit_t12.tar.gz is the one that has it"
    )
