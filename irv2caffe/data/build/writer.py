"""Records into the database: counting, committing, and what must be known to go on later."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from irv2caffe import system
from irv2caffe.data.build.build_plan import COMMIT_BYTES, COMMIT_RECORDS
from irv2caffe.data.build.tables import SideTables
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
_GONE_IN_A_ROW = 100


class RecordWriter:
    """A database while it is filled. Use it in a ``with`` block.

    Transactions end after the first unit of work that brings them to 64 MB or 2,000 records, which
    bounds their memory. That depends on the records alone, so that a build that was killed ends
    its transactions where any other would.
    """

    def __init__(self, plan: BuildPlan, partial: Partial, state: State) -> None:
        """Goes on from a state.

        Args:
            plan: of the database.
            partial: where it grows.
            state: what it holds; changes with every unit.

        Raises:
            OutputError: the folder cannot be written.
        """
        self._plan = plan
        self._partial = partial
        self._state = state
        self._since = time.monotonic()
        self._uncommitted = 0
        self._uncommitted_bytes = 0
        self._num_gone = 0
        self._tables = SideTables(partial.folder, state.table_bytes)
        self._writer = DatabaseWriter(partial.folder, plan.room_bytes)
        if state.next_index == 0:
            self._leave_out(plan.source.skipped)

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

    def take(self, made: UnitResult) -> None:
        """Adds a unit of work.

        Raises:
            LeftOutError: more images are left out than the options allow.
            InputError: images are gone one after the other.
            OutputError: the disk is full or fails.
        """
        state = self._state
        skipped = []
        for index, item, record in zip(
            made.unit.indices, made.unit.items, made.records, strict=True
        ):
            if isinstance(record, Skipped):
                skipped.append(record)
                self._watch_for_loss(record)
                continue
            self._num_gone = 0
            self._writer.put(datum.record_key(index, item.name), record)
            self._uncommitted += 1
            self._uncommitted_bytes += len(record)
            state.num_bytes += len(record)
            state.num_written += 1
            state.per_label[item.label] += 1
        self._leave_out(skipped)
        self._tables.add_complaints(made.complaints)
        state.num_complaints += len(made.complaints)
        state.mean.add(made.sums, len(made.records) - len(skipped))
        state.depth.add(made.depth[1], made.depth[0])
        state.next_index = made.unit.indices[-1] + 1
        state.refuse_too_many_skipped(self._plan.options.max_skipped)
        if self._uncommitted_bytes >= COMMIT_BYTES or self._uncommitted >= COMMIT_RECORDS:
            self._commit()

    def _watch_for_loss(self, skip: Skipped) -> None:
        """Ends the job where one image after the other is gone that was seen when it began."""
        is_walked = self._plan.source.kind == "folders"
        self._num_gone = self._num_gone + 1 if is_walked and skip.reason == GONE else 0
        if self._num_gone >= _GONE_IN_A_ROW and self._plan.options.max_skipped is None:
            raise InputError(
                f"{self._num_gone} images in a row cannot be found, the last one was {skip.name}",
                "is the disk there that they, or links to them, are on? then start over with "
                "--no-resume; --max-skipped N allows for N lost images",
            )

    def _leave_out(self, skipped: Sequence[Skipped]) -> None:
        self._tables.add_skipped(skipped)
        self._state.skipped.update(skip.reason for skip in skipped)

    def _commit(self) -> None:
        """State first, then the database; whichever of its two last commits it has, one fits."""
        if self._writer.transaction == 0:
            return
        free = system.free_bytes(self._partial.folder)
        if free < self._uncommitted_bytes + _SPARE_BYTES:
            raise OutputError(
                f"the disk of {self._partial.folder} is full: {format_bytes(free)} are free",
                "make room, then run the same command: it goes on from here",
            )
        now = time.monotonic()
        self._state.seconds += now - self._since
        self._since = now
        self._state.table_bytes = self._tables.sync()
        self._partial.save(self._state, self._writer.transaction)
        self._writer.commit()
        self._uncommitted = 0
        self._uncommitted_bytes = 0
