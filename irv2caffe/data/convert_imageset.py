"""The same job done by Caffe's own tool: our checks before it, our count after it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from typing import TYPE_CHECKING

from irv2caffe.data.build import Building, BuildOptions, BuildReport, Skipped, building, finished
from irv2caffe.data.datum import record_key
from irv2caffe.data.image import reason
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.errors import CaffeFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_PROCESSED = re.compile(rb"Processed (\d+) files")
_FATAL = re.compile(r"^F\d{4,8} .*?\] (.*)$", re.MULTILINE)


def convert_imageset(
    root: Path,
    out: Path,
    options: BuildOptions,
    *,
    argv: Sequence[str],
    env: Mapping[str, str],
    list_file: Path | None = None,
    labels: Path | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> BuildReport:
    """Builds the database by convert_imageset; else like :func:`irv2caffe.data.build.make_lmdb`.

    The tool's own shuffle cannot be seeded, and it exits 0 after skipping every image: the list
    it gets is checked and shuffled here, and its records are counted afterwards.

    Args:
        root: as there.
        out: as there.
        options: as there; ``workers`` means nothing to the tool.
        argv: the start of the command that runs the tool.
        env: its environment.
        list_file: as there.
        labels: as there.
        force: as there.
        progress: called with (images done, all images).

    Raises:
        CaffeFailedError: the tool ended badly.
    """
    with building(root, out, options, list_file, labels, force=force) as job:
        database = job.folder / "lmdb"
        with tempfile.NamedTemporaryFile("wb", suffix=".txt", dir=job.folder) as listing:
            lines = (f"{item.name} {item.label}\n" for item in job.items)
            listing.writelines(line.encode("utf-8", "surrogateescape") for line in lines)
            listing.flush()
            flags = [*_flags(options), f"{root.absolute()}/", listing.name, str(database)]
            _run([*argv, *flags], env, lambda done: progress(done, len(job.items)))
        for name in ("data.mdb", "lock.mdb"):
            (database / name).rename(job.folder / name)
        database.rmdir()
        _count(job)
    return finished(job, out)


def _flags(options: BuildOptions) -> list[str]:
    flags = ["-backend=lmdb", f"-gray={str(options.gray).lower()}"]
    if options.size is not None:
        flags += [f"-resize_width={options.size[0]}", f"-resize_height={options.size[1]}"]
    if options.encoded is not None:
        flags += ["-encoded", f"-encode_type={options.encoded}"]
    return flags


def _run(argv: list[str], env: Mapping[str, str], progress: Callable[[int], None]) -> None:
    """Runs the tool to its end; what it prints is read for its progress and its last words."""
    child = subprocess.Popen(
        argv,
        env={**env, "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        assert child.stderr is not None
        tail = b""
        for line in child.stderr:
            tail = (tail + line)[-8192:]
            processed = _PROCESSED.search(line)
            if processed:
                progress(int(processed.group(1)))
        if child.wait() != 0:
            text = tail.decode("utf-8", "replace")
            fatal = _FATAL.search(text)
            said = fatal.group(1) if fatal else " ".join(text.split()[-30:])
            raise CaffeFailedError(f"convert_imageset ended with {child.returncode}: {said}")
    finally:
        child.kill()
        child.wait()
        if child.stderr is not None:
            child.stderr.close()


def _count(job: Building) -> None:
    """Compares the records with the list; the tool leaves out what it cannot read."""
    with open_reader(job.folder) as reader:
        written = {key for key, _ in reader}
    for index, item in enumerate(job.items):
        if record_key(index, item.name) in written:
            job.num_written += 1
        else:
            job.skipped.append(Skipped(item.name, reason(job.source.root / item.name)))
