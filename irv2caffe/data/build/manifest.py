"""What stands beside the records: class names, mean, and the manifest with the whole story."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe import system
from irv2caffe.atomic import write_bytes
from irv2caffe.data.records.class_table import escape_name
from irv2caffe.data.records.database_files import LABELS, MANIFEST, MEAN_FILE, WORDS
from irv2caffe.data.records.mean import mean_blob

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.data.build.build_plan import BuildPlan
    from irv2caffe.data.build.state import State


@dataclass(frozen=True)
class BuildReport:
    """What make-lmdb did.

    Attributes:
        out: the database.
        source: where the images come from.
        num_images: records in it.
        num_classes: classes in the table, or highest label plus one.
        num_skipped: images left out; ``skipped.csv`` names them.
        skipped: how many for which reason.
        num_complaints: images that were taken although the decoder complained;
            ``complaints.csv`` names them.
        mean_values: of B, G, R (or gray); None where records have no common mean.
        size_bytes: of ``data.mdb``.
        seconds: that this process took.
        images_per_second: of this process.
        resumed_at: the record that an earlier process had come to.
        notes: what a person should know of the source.
        findings: what is probably wrong with the records.
    """

    out: Path
    source: str
    num_images: int
    num_classes: int
    num_skipped: int
    skipped: dict[str, int]
    num_complaints: int
    mean_values: list[float] | None
    size_bytes: int
    seconds: float
    images_per_second: float
    resumed_at: int
    notes: tuple[str, ...]
    findings: tuple[str, ...]


def write_side_files(
    folder: Path, plan: BuildPlan, state: State, backend: str, findings: list[str]
) -> None:
    """Writes all that stands beside ``data.mdb``; the manifest last.

    Args:
        folder: of the database.
        plan: that it was made by.
        state: what it holds.
        backend: who wrote the records.
        findings: what is probably wrong with them.

    Raises:
        OutputError: the disk is full or fails.
    """
    source = plan.source
    if source.classes:
        _write_lines(folder / LABELS, source.classes)
    if any(source.words):
        lines = [
            f"{name} {words}" for name, words in zip(source.classes, source.words, strict=True)
        ]
        _write_lines(folder / WORDS, lines)
    mean = state.mean.mean_image()
    if mean is not None:
        write_bytes(folder / MEAN_FILE, mean_blob(mean).SerializeToString(deterministic=True))
    manifest = _manifest(plan, state, backend) | {"findings": findings}
    text = json.dumps(manifest, indent=2) + "\n"
    write_bytes(folder / MANIFEST, text.encode())


def _write_lines(path: Path, lines: list[str] | tuple[str, ...]) -> None:
    text = "".join(f"{escape_name(line)}\n" for line in lines)
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def _manifest(plan: BuildPlan, state: State, backend: str) -> dict[str, Any]:
    source, per_label = plan.source, state.per_label
    return {
        "fingerprint": plan.fingerprint,
        "source": str(source.root.absolute()),
        "kind": source.kind,
        "backend": backend,
        "options": asdict(plan.options),
        "shuffled": plan.is_shuffled,
        "num_images": state.num_written,
        "num_skipped": state.num_skipped,
        "skipped": dict(state.skipped),
        "num_complaints": state.num_complaints,
        "num_classes": len(source.classes) or max(per_label) + 1,
        "max_label": max(per_label),
        "classes": list(source.classes),
        "images_per_label": {str(label): per_label[label] for label in sorted(per_label)},
        "mean_values": state.mean.mean_values(),
        "mean_file": MEAN_FILE if state.mean.mean_image() is not None else None,
        "mean_is_exact": backend != "native" or plan.is_mean_exact,
        "record_shape": state.mean.shape,
        "record_bytes": state.num_bytes,
        "notes": list(source.notes),
        "seconds": round(state.seconds, 3),
        "versions": system.versions(),
    }
