"""Atomic writing of files and folders: write under a temporary name, then rename.

Temporary names begin with ``.partial-`` and lie beside the target, so that the rename stays on one
file system.
"""

from __future__ import annotations

import errno
import glob
import os
import platform
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.errors import OutputError, OutputExistsError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = ".partial-"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path; renames it to ``path`` if the block succeeds, else deletes it.

    The temporary name has the suffix of ``path``, which matplotlib takes the format from.

    Raises:
        OutputError: the file or its folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f"{_PREFIX}{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
    except OSError as error:
        raise write_error(path, error) from error
    aside = Path(name)
    try:
        yield aside
        try:
            aside.chmod(0o666 & ~_umask())
            with aside.open("rb") as stream:
                os.fsync(stream.fileno())
            aside.replace(path)
        except OSError as error:
            raise write_error(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def remove_partial_files(path: Path) -> None:
    """Removes the temporary files that killed processes left for ``path``."""
    for left in path.parent.glob(f"{_PREFIX}{glob.escape(path.stem)}-*{glob.escape(path.suffix)}"):
        left.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yields a temporary folder; renames it to ``path`` if the block succeeds, else deletes it.

    Args:
        path: the finished folder.
        force: replace an existing folder at the end.

    Raises:
        OutputExistsError: ``path`` exists, at the start or at the end, and ``force`` is not set.
        OutputError: the folder cannot be written.
    """
    if not force:
        refuse_existing(path)
    owner = _owner(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_orphans(path)
        aside = Path(tempfile.mkdtemp(prefix=f"{owner}{os.getpid()}-", dir=path.parent))
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield aside
        if not force:
            refuse_existing(path)
        try:
            aside.chmod(0o777 & ~_umask())
            replace_folder(aside, path)
        except OSError as error:
            raise write_error(path, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes ``data`` to ``path`` atomically."""
    with atomic_file(path) as aside:
        try:
            aside.write_bytes(data)
        except OSError as error:
            raise write_error(path, error) from error


def refuse_existing(*paths: Path) -> None:
    """Raises OutputExistsError for the first of ``paths`` that exists."""
    for path in paths:
        if path.exists() or path.is_symlink():
            raise OutputExistsError(
                f"{path} already exists", "choose another output, or use --force to replace it"
            )


# Error numbers of file systems without locks: Lustre without -o flock, NFS without lock daemon.
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})


def write_error(path: Path, error: OSError) -> OutputError:
    """Returns the OutputError for an OSError that occurred while writing ``path``."""
    if error.errno in NO_LOCKS:
        return OutputError(
            f"{path}: its file system has no file locks ({error.strerror})",
            "choose an output folder on another disk, such as a local one, or mount Lustre with "
            "-o flock",
        )
    return OutputError(
        f"cannot write {path}: {error.strerror or error}",
        "choose an output folder with write permission and free space",
    )


def _owner(path: Path) -> str:
    """Returns the prefix of this machine's temporary folders for ``path``."""
    return f"{_PREFIX}{path.name}-{platform.node()}-"


def remove_orphans(path: Path) -> int:
    """Removes temporary folders of killed processes of this machine; returns their number."""
    return _remove_orphans(path.parent, _owner(path))


def _remove_orphans(folder: Path, owner: str) -> int:
    count = 0
    for orphan in folder.glob(f"{glob.escape(owner)}*"):
        pid = orphan.name.removeprefix(owner).split("-")[0]
        if pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(orphan, ignore_errors=True)
            count += 1
    return count


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # a process of another user
    return True


def replace_folder(aside: Path, path: Path) -> None:
    """Renames the folder ``aside`` to ``path``; an existing ``path`` is deleted afterwards.

    Raises:
        OSError: ``path`` cannot be replaced; its old contents are unchanged.
    """
    owner = f"{_PREFIX}old-{path.name}-{platform.node()}-"
    if not (path.exists() or path.is_symlink()):
        aside.rename(path)
    else:
        old = Path(tempfile.mkdtemp(prefix=f"{owner}{os.getpid()}-", dir=path.parent))
        path.rename(old / path.name)
        try:
            aside.rename(path)
        except OSError:
            (old / path.name).rename(path)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    _remove_orphans(path.parent, owner)  # left by a process that was killed in between


def is_partial(name: str) -> bool:
    """Returns whether ``name`` is a temporary name of this module."""
    return name.startswith(_PREFIX)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
