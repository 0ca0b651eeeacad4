"""The checked-out commit of a folder, read from its repository's files.

The program git is not run: a foreign repository can name programs that ``git status`` executes
(monitors, filters, hooks). Whether files have changed since is therefore unknown.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from irv2caffe.system import open_regular, read_regular

if TYPE_CHECKING:
    from pathlib import Path

_REVISION = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(r"refs/(?!.*(?:\.\.|//))[\w./@+-]+", re.ASCII)
_MAX_BYTES = 1 << 12
_MAX_PACKED_LINES = 1_000_000


def git_revision(folder: Path) -> str | None:
    """The commit that is checked out in a folder, or None if it cannot be determined."""
    for place in (folder.absolute(), *folder.absolute().parents):
        if (place / ".git").exists():
            try:
                return _head(_git_dir(place / ".git"))
            except (OSError, ValueError):
                return None
    return None


def _git_dir(path: Path) -> Path:
    """The repository's own folder, which a file names in a worktree or a submodule."""
    if path.is_dir():
        return path
    return path.parent / _line(path).removeprefix("gitdir: ")


def _head(git: Path) -> str | None:
    head = _line(git / "HEAD")
    if not head.startswith("ref: "):
        return head if _REVISION.fullmatch(head) else None
    ref = head.removeprefix("ref: ")
    if not _REF.fullmatch(ref):
        return None
    common = git / _line(git / "commondir") if (git / "commondir").is_file() else git
    for place in (git, common):
        if (place / ref).is_file():
            revision = _line(place / ref)
            return revision if _REVISION.fullmatch(revision) else None
    return _packed(common / "packed-refs", ref)


def _packed(path: Path, ref: str) -> str | None:
    with open_regular(path) as stream:
        lines = iter(lambda: stream.readline(_MAX_BYTES).decode("utf-8", "replace"), "")
        for line in islice(lines, _MAX_PACKED_LINES):
            revision, _, name = line.rstrip("\n").partition(" ")
            if name == ref and _REVISION.fullmatch(revision):
                return revision
    return None


def _line(path: Path) -> str:
    return read_regular(path, _MAX_BYTES).decode().rstrip("\n")
