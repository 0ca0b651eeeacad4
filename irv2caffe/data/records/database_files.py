"""Names of the files in the folder of a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import is_partial
from irv2caffe.system import read_json_object

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = "data.mdb"
LABELS = "labels.txt"
WORDS = "synset_words.txt"
MEAN_FILE = "mean.binaryproto"
MANIFEST = "manifest.json"
SKIPPED = "skipped.csv"
COMPLAINTS = "complaints.csv"
STORED_OPTIONS = ("size", "resize_mode", "interpolation", "gray")
"""Options in the manifest that say how images became records."""
LIST = "list.txt"
DUPLICATES = "duplicates.csv"
_ALL = frozenset(
    {RECORDS, "lock.mdb", LABELS, WORDS, MEAN_FILE, MANIFEST, SKIPPED, COMPLAINTS}
    | {LIST, DUPLICATES},
)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a database; empty if there is none."""
    return read_json_object(folder / MANIFEST)


def is_of_database(name: str) -> bool:
    """Whether make-lmdb writes a file of this name, or left it when it was killed."""
    return name in _ALL or is_partial(name)


def is_made_here(folder: Path) -> bool:
    """Whether a folder contains a database and no other files, so that it may be replaced."""
    if not (folder / RECORDS).exists():
        return False
    return folder.is_dir() and all(is_of_database(path.name) for path in folder.iterdir())
