"""Writes the records of a build into the database, in transactions that can be resumed from."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from irv2caffe import system
from irv2caffe.data.build.build_plan import COMMIT_BYTES, COMMIT_RECORDS
from irv2caffe.data.build.side_files import SideTables
from irv2caffe.data.lmdb_store import DatabaseWriter
from irv2caffe.data.records import datum
from irv2caffe.data.records.items import GONE, Skipped
from irv2caffe.errors import InputError, OutputError
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from irv2caffe.data.build.build_plan import BuildPlan
    from irv2caffe.data.build.partial import Partial
    from irv2caffe.data.build.pool import UnitResult
    from irv2caffe.data.build.state import State

_SPARE_BYTES = 16 << 20
_MAX_MISSING_IN_A_ROW = 100


class RecordWriter:
    """Writer of the results of a worker pool. Use it in a ``with`` block.

    A transaction ends after the first unit of work that brings it to 64 MB or 2,000 records, which
    bounds its memory. That depends on the records alone, so that a resumed build ends its
    transactions at the same records as any other.
    """

    def __init__(self, plan: BuildPlan, partial: Partial, state: State) -> None:
        """Starts at ``state.next_index``; the state is updated with every result.

        Raises:
            OutputError: the folder cannot be written.
        """
        self._plan = plan
        self._partial = partial
        self._state = state
        self._started = time.monotonic()
        self._uncommitted = 0
        self._uncommitted_bytes = 0
        self._num_missing = 0
        self._tables = SideTables(partial.folder, state.table_bytes)
        self._writer = DatabaseWriter(partial.folder, plan.room_bytes)
        if state.next_index == 0:
            self._add_skipped(plan.source.skipped)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._writer.close()
            self._tables.close()

    def add(self, result: UnitResult) -> None:
        """Adds the records of a unit of work.

        Raises:
            LeftOutError: more images were skipped than the options allow.
            InputError: many images in a row have disappeared.
            OutputError: the disk is full or fails.
        """
        state = self._state
        skipped = []
        for index, item, record in zip(
            result.unit.indices, result.unit.items, result.records, strict=True
        ):
            if isinstance(record, Skipped):
                skipped.append(record)
                self._check_missing(record)
                continue
            self._num_missing = 0
            self._writer.put(datum.record_key(index, item.name), record)
            self._uncommitted += 1
            self._uncommitted_bytes += len(record)
            state.num_bytes += len(record)
            state.num_written += 1
            state.per_label[item.label] += 1
        self._add_skipped(skipped)
        self._tables.add_complaints(result.complaints)
        state.num_complaints += len(result.complaints)
        state.mean.add(result.sums, len(result.records) - len(skipped))
        state.depth.add(result.depth[1], result.depth[0])
        state.next_index = result.unit.indices[-1] + 1
        state.refuse_too_many_skipped(self._plan.options.max_skipped)
        if self._uncommitted_bytes >= COMMIT_BYTES or self._uncommitted >= COMMIT_RECORDS:
            self._commit()

    def _check_missing(self, skip: Skipped) -> None:
        """Ends the build where many images in a row are missing that were listed at its start."""
        is_listed = self._plan.source.kind == "folders"
        self._num_missing = self._num_missing + 1 if is_listed and skip.reason == GONE else 0
        if self._num_missing >= _MAX_MISSING_IN_A_ROW and self._plan.options.max_skipped is None:
            raise InputError(
                f"{self._num_missing} images in a row cannot be found, the last is {skip.name}",
                "is the disk there that they, or links to them, are on? then start over with "
                "--no-resume; --max-skipped N allows for N lost images",
            )

    def _add_skipped(self, skipped: Sequence[Skipped]) -> None:
        self._tables.add_skipped(skipped)
        self._state.skipped.update(skip.reason for skip in skipped)

    def _commit(self) -> None:
        """Saves the state, then commits; after a crash in between, the state before still fits."""
        if self._writer.transaction == 0:
            return
        free = system.free_bytes(self._partial.folder)
        if free < self._uncommitted_bytes + _SPARE_BYTES:
            raise OutputError(
                f"the disk of {self._partial.folder} is full: {format_bytes(free)} are free",
                "make room, then run the same command: it goes on from here",
            )
        now = time.monotonic()
        self._state.seconds += now - self._started
        self._started = now
        self._state.table_bytes = self._tables.sync()
        self._partial.save(self._state, self._writer.transaction)
        self._writer.commit()
        self._uncommitted = 0
        self._uncommitted_bytes = 0
