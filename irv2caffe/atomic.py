"""Results are written aside and renamed: a reader never sees half a file."""

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

_ASIDE = ".partial-"


@contextmanager
def file_aside(path: Path) -> Iterator[Path]:
    """Yields a path beside ``path``; when the block ends well it is renamed to ``path``.

    The suffix is kept, so that writers that look at it (matplotlib) see the right one. An
    existing ``path`` is replaced in one step; after an exception it is untouched.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f"{_ASIDE}{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
    except OSError as error:
        raise unwritable(path, error) from error
    aside = Path(name)
    try:
        yield aside
        try:
            aside.chmod(0o666 & ~_umask())
            with aside.open("rb") as stream:
                os.fsync(stream.fileno())
            aside.replace(path)
        except OSError as error:
            raise unwritable(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def remove_files_aside(path: Path) -> None:
    """Removes what a process that was killed left of :func:`file_aside` for ``path``."""
    for left in path.parent.glob(f"{_ASIDE}{glob.escape(path.stem)}-*{glob.escape(path.suffix)}"):
        left.unlink(missing_ok=True)


@contextmanager
def folder_aside(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yields a new folder beside ``path``; when the block ends well it is renamed to ``path``.

    Args:
        path: where the finished folder goes.
        force: replace what stands there, after the new folder is complete.

    Raises:
        OutputExistsError: ``path`` exists and ``force`` is not set (checked at
            the start and at the end).
        OutputError: the folder cannot be made or written.
    """
    if not force:
        refuse_existing(path)
    owner = _owner(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_orphans(path)
        aside = Path(tempfile.mkdtemp(prefix=f"{owner}{os.getpid()}-", dir=path.parent))
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield aside
        if not force:
            refuse_existing(path)
        try:
            aside.chmod(0o777 & ~_umask())
            swap_in(aside, path)
        except OSError as error:
            raise unwritable(path, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text to ``path`` in one step."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes ``data`` to ``path`` in one step."""
    with file_aside(path) as aside:
        try:
            aside.write_bytes(data)
        except OSError as error:
            raise unwritable(path, error) from error


def refuse_existing(*paths: Path) -> None:
    """Raises OutputExistsError for the first of ``paths`` that exists."""
    for path in paths:
        if path.exists() or path.is_symlink():
            raise OutputExistsError(
                f"{path} exists already", "choose another output, or --force to replace it"
            )


# What file systems without locks say: Lustre mounted without -o flock, NFS without its lock daemon.
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})


def unwritable(path: Path, error: OSError) -> OutputError:
    """The error for a ``path`` that the operating system does not let us write."""
    if error.errno in NO_LOCKS:
        return OutputError(
            f"{path}: its file system has no locks ({error.strerror})",
            "choose an output folder on another disk, a local one say; Lustre has locks where it "
            "is mounted with -o flock",
        )
    return OutputError(
        f"cannot write {path}: {error.strerror or error}",
        "choose an output folder that you may write and that has free space",
    )


def _owner(path: Path) -> str:
    """How the names of folders begin that this machine makes aside for ``path``."""
    return f"{_ASIDE}{path.name}-{platform.node()}-"


def remove_orphans(path: Path) -> int:
    """Removes what killed processes of this machine left aside for ``path``; their number."""
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
        return True  # alive, of another user
    return True


def swap_in(aside: Path, path: Path) -> None:
    """Renames ``aside`` to ``path``; what stood there is moved away first, deleted last.

    Raises:
        OSError: ``path`` cannot be replaced; what stood there is back in its place.
    """
    owner = f"{_ASIDE}old-{path.name}-{platform.node()}-"
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
    _remove_orphans(path.parent, owner)  # of a process that was killed between the two


def is_aside(name: str) -> bool:
    """Whether a file or folder is one that was being written when its process was killed."""
    return name.startswith(_ASIDE)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
