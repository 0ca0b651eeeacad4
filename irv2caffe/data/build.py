"""make-lmdb: checks, the order of the records, the parallel pipeline, what stands beside them."""

from __future__ import annotations

import csv
import io
import json
import random
import time
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from irv2caffe import system
from irv2caffe.atomic import folder_aside, refuse_existing
from irv2caffe.data import datum
from irv2caffe.data.lmdb_store import open_writer
from irv2caffe.data.sources import Item, Source, open_source
from irv2caffe.errors import InputError, OutputError, OutputExistsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_IN_FLIGHT_PER_WORKER = 8


@dataclass(frozen=True)
class BuildOptions:
    """The choices of a database.

    Attributes:
        size: (width, height) that images are squashed to; None keeps theirs.
        encoded: ``jpg`` or ``png`` to store compressed images, None for raw pixels.
        gray: one channel.
        shuffle: mix the records; Caffe reads them in the order of the database, every epoch.
        seed: of the shuffle.
        workers: threads; 0 is one per core.
    """

    size: tuple[int, int] | None = (328, 328)
    encoded: str | None = None
    gray: bool = False
    shuffle: bool = True
    seed: int = 1
    workers: int = 0


@dataclass(frozen=True)
class Skipped:
    """An image that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class BuildReport:
    """What make-lmdb did.

    Attributes:
        out: the database.
        num_images: records in it.
        num_classes: classes in the table, or highest label plus one.
        skipped: images left out.
        size_bytes: of ``data.mdb``.
        seconds: that it took.
    """

    out: Path
    num_images: int
    num_classes: int
    skipped: tuple[Skipped, ...]
    size_bytes: int
    seconds: float


@dataclass
class Building:
    """A database while it is built: where it goes, what is in it so far."""

    folder: Path
    source: Source
    items: list[Item]
    num_written: int
    skipped: list[Skipped]


def make_lmdb(
    root: Path,
    out: Path,
    options: BuildOptions,
    *,
    list_file: Path | None = None,
    labels: Path | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> BuildReport:
    """Builds an LMDB whose records equal convert_imageset's.

    Besides ``data.mdb`` the folder gets ``labels.txt`` (where classes have names),
    ``manifest.json`` and, if images were left out, ``skipped.csv``. It appears when it is
    complete; after an error or an interruption nothing is left of it.

    Args:
        root: folder of class folders, or the folder that the list's paths start from.
        out: the database folder.
        options: size, encoding, order.
        list_file: lines of ``PATH LABEL``.
        labels: class table to keep to: a ``labels.txt`` or the database that has one.
        force: replace an existing database, when the new one is complete.
        progress: called with (images done, all images).

    Raises:
        InputError: no source, malformed list, or not one readable image.
        OutputExistsError: ``out`` exists and ``force`` is not set, or it is no database.
        OutputError: no space, or ``out`` cannot be written.
    """
    with building(root, out, options, list_file, labels, force=force) as job:
        records = _records(job, options)
        with open_writer(job.folder) as writer:
            for done, (index, item, record) in enumerate(records, 1):
                if isinstance(record, Skipped):
                    job.skipped.append(record)
                else:
                    writer.put(datum.record_key(index, item.name), record)
                    job.num_written += 1
                progress(done, len(job.items))
    return finished(job, out)


@contextmanager
def building(
    root: Path,
    out: Path,
    options: BuildOptions,
    list_file: Path | None,
    labels: Path | None,
    *,
    force: bool,
) -> Iterator[Building]:
    """The frame that both backends share: checks, the order, the folder aside, the side files."""
    check_output(out, force=force)
    source = open_source(root, list_file, labels)
    items = list(source.items)
    if options.shuffle:
        random.Random(options.seed).shuffle(items)  # noqa: S311
    _check_keys(items)
    _check_space(out, source, options)
    started = time.monotonic()
    with folder_aside(out, force=force) as folder:
        job = Building(folder, source, items, 0, [])
        yield job
        if job.num_written == 0:
            raise InputError(
                f"none of the {len(items):,} images could be read", f"first: {job.skipped[0]}"
            )
        _write_side_files(job, options, time.monotonic() - started)


def check_output(out: Path, *, force: bool) -> None:
    """Refuses to replace what stands at ``out``, unless it is a database and ``force`` is set."""
    if not force:
        refuse_existing(out)
    elif out.exists() and not (out / "data.mdb").is_file():
        raise OutputExistsError(
            f"{out} exists and is no LMDB", "--force replaces databases only; choose another OUT"
        )


def finished(job: Building, out: Path) -> BuildReport:
    """The report of a database that stands in its place."""
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    return BuildReport(
        out=out,
        num_images=job.num_written,
        num_classes=manifest["num_classes"],
        skipped=tuple(job.skipped),
        size_bytes=(out / "data.mdb").stat().st_size,
        seconds=manifest["seconds"],
    )


def _records(job: Building, options: BuildOptions) -> Iterator[tuple[int, Item, bytes | Skipped]]:
    """Records in the order of the items, made side by side, few in memory at a time."""
    workers = options.workers or system.num_cores()
    root = job.source.root
    waiting = deque(enumerate(job.items))
    with ThreadPoolExecutor(workers) as pool:
        in_flight: deque[tuple[int, Item, Future[bytes | Skipped]]] = deque()
        try:
            while waiting or in_flight:
                while waiting and len(in_flight) < workers * _IN_FLIGHT_PER_WORKER:
                    index, item = waiting.popleft()
                    in_flight.append((index, item, pool.submit(_record, root, item, options)))
                index, item, future = in_flight.popleft()
                yield index, item, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _record(root: Path, item: Item, options: BuildOptions) -> bytes | Skipped:
    """The Datum of one image."""
    from irv2caffe.data.image import UndecodableImageError, encode_image, read_image

    path = root / item.name
    try:
        pixels = read_image(path, options.size, gray=options.gray)
        if options.encoded is None:
            return datum.raw_datum(pixels, item.label)
        if options.size is None and _is_kind(path, options.encoded):
            # The file as it is, once it has proved readable (ReadImageToDatum in util/io.cpp).
            return datum.encoded_datum(path.read_bytes(), item.label)
        return datum.encoded_datum(encode_image(pixels, options.encoded), item.label)
    except UndecodableImageError as error:
        return Skipped(item.name, str(error))
    except OSError as error:
        return Skipped(item.name, error.strerror or str(error))


def _is_kind(path: Path, kind: str) -> bool:
    suffix = path.suffix.lower().removeprefix(".")
    return suffix == kind or (kind == "jpg" and suffix == "jpeg")


def _check_keys(items: Iterable[Item]) -> None:
    for item in items:
        if len(datum.record_key(0, item.name)) > datum.MAX_KEY_BYTES:
            raise InputError(
                f"the path {item.name[:60]}... is too long for a key",
                f"LMDB keys hold {datum.MAX_KEY_BYTES} bytes; give a SOURCE nearer to the images",
            )


def _check_space(out: Path, source: Source, options: BuildOptions) -> None:
    """Refuses to start a database that cannot fit; exact for raw pixels of one size."""
    if options.size is None:
        return
    width, height = options.size
    pixels_bytes = width * height * (1 if options.gray else 3)
    share = {None: 1.0, "png": 0.5, "jpg": 0.1}[options.encoded]
    wanted = int(len(source.items) * (pixels_bytes * share + 4096))
    free = system.free_bytes(out)
    if wanted > free:
        raise OutputError(
            f"about {wanted / 1e9:.1f} GB are needed for {out}, {free / 1e9:.1f} GB are free",
            "choose another disk, a smaller --resize, or --encoded jpg",
        )


def _write_side_files(job: Building, options: BuildOptions, seconds: float) -> None:
    if job.source.classes:
        text = "".join(f"{name}\n" for name in job.source.classes)
        (job.folder / "labels.txt").write_text(text, encoding="utf-8", errors="surrogateescape")
    if job.skipped:
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(("path", "reason"))
        rows.writerows((skip.name, skip.reason) for skip in job.skipped)
        text = table.getvalue()
        (job.folder / "skipped.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    left_out = {skip.name for skip in job.skipped}
    per_label = Counter(item.label for item in job.items if item.name not in left_out)
    manifest = {
        "source": str(job.source.root),
        "options": asdict(options),
        "num_images": job.num_written,
        "num_skipped": len(job.skipped),
        "num_classes": len(job.source.classes) or max(per_label) + 1,
        "max_label": max(per_label),
        "images_per_label": {str(label): per_label[label] for label in sorted(per_label)},
        "seconds": round(seconds, 3),
        "versions": system.versions(),
    }
    text = json.dumps(manifest, indent=2) + "\n"
    (job.folder / "manifest.json").write_text(text, encoding="utf-8")
