"""Backend convert_imageset: Caffe's own tool builds the database, from a list that is made here.

The tool's shuffle cannot be seeded, and it exits 0 after skipping every image: so the list is
checked and shuffled here, and the records are counted afterwards.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from irv2caffe.atomic import atomic_folder
from irv2caffe.data.build.build_plan import make_plan
from irv2caffe.data.build.make_lmdb import check_output, check_outside_source, make_report
from irv2caffe.data.build.pool import open_pool
from irv2caffe.data.build.side_files import SideTables, keep_skipped, write_side_files
from irv2caffe.data.build.size_estimate import check_space, estimate
from irv2caffe.data.build.state import State
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.datum import record_key
from irv2caffe.data.records.decode import stored_pixels
from irv2caffe.data.records.depth import is_dark, words_on_dark_records
from irv2caffe.data.records.image import UndecodableImageError, open_image
from irv2caffe.data.records.items import LeftOutError, Skipped
from irv2caffe.data.records.mean import UnitSums
from irv2caffe.data.records.record import read_file
from irv2caffe.data.records.source_identity import identify
from irv2caffe.errors import CaffeFailedError, InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from irv2caffe.data.build.build_plan import BuildPlan
    from irv2caffe.data.build.side_files import BuildReport
    from irv2caffe.data.build.size_estimate import SizeEstimate
    from irv2caffe.data.options import BuildOptions
    from irv2caffe.data.records.source_identity import SourceIdentity
    from irv2caffe.data.sources import Source

_PROCESSED = re.compile(rb"Processed (\d+) files")
_FATAL = re.compile(r"^F\d{4,8} .*?\] (.*)$", re.MULTILINE)
_SUMS_OF = 4096


def convert_imageset(
    source: Source,
    out: Path,
    options: BuildOptions,
    *,
    argv: Sequence[str],
    env: Mapping[str, str],
    force: bool = False,
    announce: Callable[[SizeEstimate], None] = lambda _estimate: None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> BuildReport:
    """Builds the database with convert_imageset; it cannot be resumed.

    Args:
        source: of the images: class folders or a list.
        out: folder of the database.
        options: those that the tool has; ``workers`` is ignored.
        argv: the start of the command that runs the tool.
        env: its environment.
        force: replace an existing database once the new one is complete.
        announce: called once, before the work begins.
        progress: called with (images done, all images).

    Raises:
        UsageError: options or a source that the tool does not support.
        CaffeFailedError: the tool failed.
        LeftOutError, InputError, OutputError: as for ``make_lmdb.make_lmdb``.
    """
    begun = time.monotonic()
    check_options(source, options)
    check_output(out, force=force)
    check_outside_source(source, out)
    plan = make_plan(source, options)
    with open_pool(plan, num_workers=1) as pool:
        expected = estimate(plan, pool, out, 0)
    announce(expected)
    check_space(expected, out)
    with atomic_folder(out, force=force) as folder:
        identity = identify(source)
        _run_tool(plan, folder, argv, env, lambda done: progress(done, len(plan)))
        _check_source(identity)
        try:
            state, largest = _count(plan, folder)
        except LeftOutError as error:
            keep_skipped(folder, out, error)
            raise
        state.seconds = time.monotonic() - begun
        findings = [words_on_dark_records(largest)] if is_dark(largest) else []
        write_side_files(folder, plan, state, "convert_imageset", findings)
    return make_report(out, 0, len(plan), time.monotonic() - begun)


def check_options(source: Source, options: BuildOptions) -> None:
    """Refuses what the tool does not support.

    Raises:
        UsageError: naming it.
    """
    unsupported = options.not_in_convert_imageset()
    if unsupported:
        raise UsageError(
            f"convert_imageset has no {', '.join(unsupported)}", "--backend native has them"
        )
    if source.kind not in {"folders", "list"}:
        raise UsageError(f"convert_imageset does not read {source.kind}", "--backend native does")


def _check_source(identity: SourceIdentity) -> None:
    """Refuses a database that was built while its source disappeared."""
    try:
        identity.check()
    except OSError as error:
        raise InputError(str(error.strerror), "is its disk still there?") from error


def _run_tool(
    plan: BuildPlan,
    folder: Path,
    argv: Sequence[str],
    env: Mapping[str, str],
    progress: Callable[[int], None],
) -> None:
    """Runs the tool, and moves its ``data.mdb`` and ``lock.mdb`` into the folder."""
    options, database = plan.options, folder / "lmdb"
    flags = ["-backend=lmdb", f"-gray={str(options.gray).lower()}"]
    if options.size is not None:
        flags += [f"-resize_width={options.size[0]}", f"-resize_height={options.size[1]}"]
    if options.encoded is not None:
        flags += ["-encoded", f"-encode_type={options.encoded}"]
    with tempfile.NamedTemporaryFile("wb", suffix=".txt", dir=folder) as list_file:
        list_file.writelines(plan.list_lines())
        list_file.flush()
        paths = [f"{plan.source.root.absolute()}/", list_file.name, str(database)]
        _run([*argv, *flags, *paths], env, progress)
    for name in ("data.mdb", "lock.mdb"):
        (database / name).rename(folder / name)
    database.rmdir()


def _run(argv: list[str], env: Mapping[str, str], progress: Callable[[int], None]) -> None:
    """Runs the tool to its end; its log gives the progress and the error message."""
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
            message = fatal.group(1) if fatal else " ".join(text.split()[-30:])
            raise CaffeFailedError(f"convert_imageset ended with {child.returncode}: {message}")
    finally:
        child.kill()
        child.wait()
        if child.stderr is not None:
            child.stderr.close()


def _count(plan: BuildPlan, folder: Path) -> tuple[State, int]:
    """Compares the records with the list, from which the tool skips what it cannot read.

    Returns:
        Counts and sums of the records, and the largest value in any of them.
    """
    largest = 0
    state = State(next_index=len(plan))
    skipped = list(plan.source.skipped)
    with open_reader(folder) as reader:
        records = iter(reader)
        record = next(records, None)
        sums = UnitSums()
        for index in range(len(plan)):
            item = plan.item(index)
            if record is None or record[0] != record_key(index, item.name):
                skipped.append(_reason(plan, item.name))
                continue
            state.num_written += 1
            state.num_bytes += len(record[1])
            state.per_label[item.label] += 1
            with suppress(ValueError):  # a file that is cut short, stored unchanged
                pixels = stored_pixels(record[1])
                largest = max(largest, int(pixels.max()))
                if plan.options.mean != "none":
                    sums.add(pixels)
            if state.num_written % _SUMS_OF == 0:
                state.mean.add(sums.taken(), _SUMS_OF)
            record = next(records, None)
        state.mean.add(sums.taken(), state.num_written % _SUMS_OF)
    tables = SideTables(folder, {})
    tables.add_skipped(skipped)
    tables.sync()
    tables.close()
    state.skipped = Counter(skip.reason for skip in skipped)
    state.refuse_too_many_skipped(plan.options.max_skipped)
    if state.num_written == 0:
        raise LeftOutError(
            f"none of the {len(plan):,} images could be read",
            f"{skipped[0].reason}: {plan.source.root}/{skipped[0].name}",
        )
    return state, largest


def _reason(plan: BuildPlan, name: str) -> Skipped:
    """Why the tool skipped an image; it does not say so itself."""
    try:
        data = read_file(f"{plan.source.root}/{name}")
        open_image(data, exactly_like_caffe=True).decode()
    except UndecodableImageError as error:
        return Skipped(name, error.reason, error.detail)
    return Skipped(name, "convert_imageset could not read it")
