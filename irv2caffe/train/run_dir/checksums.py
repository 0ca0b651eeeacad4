"""Records the SHA-256 of every verified snapshot in ``snapshots.sha256``, to detect damage.

The file has the format of ``sha256sum``, which can also check it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import TYPE_CHECKING

from irv2caffe.atomic import write_text
from irv2caffe.errors import OutputError
from irv2caffe.system import open_regular, read_regular
from irv2caffe.train.run_dir.snapshot_name import parse_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

_LINE = re.compile(r"([0-9a-f]{64})  snapshots/([^/\n]+)")
_MAX_BYTES = 16 << 20
_DAMAGED = ".damaged"


def _path(folder: Path) -> Path:
    return folder.parent / "snapshots.sha256"


def _read(folder: Path) -> dict[str, str]:
    try:
        text = read_regular(_path(folder), _MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return {}
    return {name: digest for digest, name in _LINE.findall(text)}


def _sha256(path: Path) -> str:
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record(files: Iterable[Path], *, known_only: bool = False) -> None:
    """Records the hashes of verified files, unless the disk is full.

    Args:
        files: files of one snapshot folder.
        known_only: update recorded hashes only.
    """
    paths = list(files)
    folder = paths[0].parent
    known = _read(folder)
    wanted = [path for path in paths if not known_only or path.name in known]
    if wanted:
        with contextlib.suppress(OSError, OutputError):
            _write(folder, {**known, **{path.name: _sha256(path) for path in wanted}})


def _write(folder: Path, known: dict[str, str]) -> None:
    there = {name: digest for name, digest in known.items() if (folder / name).exists()}
    lines = (f"{there[name]}  snapshots/{name}\n" for name in sorted(there))
    write_text(_path(folder), "".join(lines))


def record_same(files: Mapping[str, Path]) -> None:
    """Records files that are links to others, or copies, with the hashes of those.

    Args:
        files: name in the folder to the file that it equals.
    """
    folder = next(iter(files.values())).parent
    known = _read(folder)
    same = {name: known[path.name] for name, path in files.items() if path.name in known}
    with contextlib.suppress(OSError, OutputError):
        _write(folder, {**known, **same})


def difference(files: Iterable[Path]) -> str:
    """A message on the first file that differs from its recorded hash; empty if none does.

    Raises:
        OSError: a file cannot be read.
    """
    known: dict[str, str] | None = None
    for path in files:
        known = _read(path.parent) if known is None else known
        if path.name in known and _sha256(path) != known[path.name]:
            return f"{path}: damaged: its SHA-256 has changed since it was verified"
    return ""


def forget_after(folder: Path, iteration: int, say: Callable[[str], None]) -> None:
    """Removes the hashes of later iterations, whose snapshots will be written again.

    Damaged files among them are renamed, since without a hash they would count as complete.
    """
    known = _read(folder)
    kept = {}
    for name, digest in known.items():
        parts = parse_name(name)
        if parts is None or parts.iteration <= iteration:  # without one: the best snapshot
            kept[name] = digest
            continue
        path = folder / name
        with contextlib.suppress(OSError):
            if path.exists() and _sha256(path) != digest:
                path.replace(path.with_name(name + _DAMAGED))
                say(f"set aside a damaged snapshot: {name}")
    if kept != known:
        with contextlib.suppress(OutputError):
            _write(folder, kept)
