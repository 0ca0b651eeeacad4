"""Writes rows as TensorBoard event files; needs the package tensorboard."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import atomic_file, write_error
from irv2caffe.errors import MissingExtraError
from irv2caffe.log.export import OUTPUT, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from irv2caffe.log.table import Table

# A fixed name, so that a second export replaces the first.
_FILE = "events.out.tfevents.0.irv2caffe"
_VERSION = "brain.Event:2"
_TAGS = {
    "loss": "loss", "lr": "learning_rate", "images_per_second": "images_per_second",
    "top1_error": "top1_error", "top5_error": "top5_error", "epoch": "epoch",
}  # fmt: skip


def require_tensorboard() -> None:
    """Raises MissingExtraError if the package tensorboard is not installed."""
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("tensorboard", "tensorboard", "--tensorboard") from error


def write_events(folder: Path, tables: Mapping[str, Table]) -> list[Path]:
    """One folder of events for each run, with tags ``train/loss``, ``test/top1_error`` and so on.

    Times are working times since the start of the run. The same rows give the same bytes.

    Raises:
        MissingExtraError: the package tensorboard is not installed.
        OutputError: a file cannot be written.
    """
    require_tensorboard()
    from tensorboard.summary.writer.record_writer import RecordWriter

    written: list[Path] = []
    for name, table in tables.items():
        path = folder / (re.sub(r"[^\w.-]", "_", name).lstrip(".") or "run") / _FILE
        while path in written:  # names that differ only in replaced characters
            path = path.parent.with_name(f"{path.parent.name}_") / _FILE
        with atomic_file(path) as temporary:
            try:
                with temporary.open("wb") as stream:
                    writer = RecordWriter(stream)
                    for event in _events(table):
                        writer.write(event.SerializeToString())
            except OSError as error:
                raise write_error(path, error) from error
        written.append(path)
    return written


def _events(table: Table) -> Iterator[Any]:
    from tensorboard.compat.proto.event_pb2 import Event

    yield Event(file_version=_VERSION)
    seconds = 0.0
    for row in rows_of(table):
        kind, net = row["kind"], row.get("net", 0)
        group = kind if net == 0 else f"{kind}{net}"
        seconds = max(seconds, row.get("seconds", 0.0))
        event = Event(wall_time=seconds, step=row["iteration"])
        for key, value in row.items():
            tag = key.removeprefix(OUTPUT) if key.startswith(OUTPUT) else _TAGS.get(key)
            if tag is not None:
                event.summary.value.add(tag=f"{group}/{tag}", simple_value=value)
        if event.HasField("summary"):
            yield event
