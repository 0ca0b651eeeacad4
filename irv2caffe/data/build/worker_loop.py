"""A worker: a process that makes records into memory which it shares with its parent.

It reads one line of JSON per unit of work and answers with one, followed by the bytes of records
that had no room in the shared memory. It ends when its parent does: then there is nothing to read.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from irv2caffe.data.options import options_from_json
from irv2caffe.data.records.image import UndecodableImageError
from irv2caffe.data.records.items import Item, PixelFormat
from irv2caffe.data.records.record import RecordBuffer, RecordMaker
from irv2caffe.data.records.source_identity import SourceIdentity

NOTHING = -1  # what a worker says it is at, when it is at nothing
# libpng speaks of colour profiles that nobody uses here; so does OpenCV where it only warns.
_HARMLESS = ("iCCP", "sRGB", "gAMA", "cHRM", "known incorrect")
# OpenCV's errors: a time and a place in its source, which change from run to run, then the words.
_OF_OPENCV = re.compile(
    r"\[ ?ERROR:[^\]]*\] (?:global )?(?:\S+:\d+ \S+ )?(?:.*error: \([^)]*\) )?(.*)"
)
_MAX_COMPLAINT = 200


class _Complaints:
    """What the decoders print: standard error is a file that only this process writes."""

    def __init__(self) -> None:
        self._is_file = os.lseek(2, 0, os.SEEK_CUR) == 0

    def take(self) -> str:
        """The first line since the last time that says something of the image."""
        if not self._is_file or os.lseek(2, 0, os.SEEK_CUR) == 0:
            return ""
        size = os.lseek(2, 0, os.SEEK_CUR)
        text = os.pread(2, min(size, 65_536), 0).decode("utf-8", "replace")
        os.lseek(2, 0, os.SEEK_SET)
        os.ftruncate(2, 0)
        return next((words for line in text.splitlines() if (words := _telling(line))), "")


def _telling(line: str) -> str:
    """What a line says of an image; empty if nothing."""
    match = _OF_OPENCV.match(line)
    if match is not None:
        return match[1].strip()[:_MAX_COMPLAINT]
    if line.startswith("[") or any(word in line for word in _HARMLESS):
        return ""
    return line.strip()[:_MAX_COMPLAINT]


class _Worker:
    def __init__(self, setup: dict[str, Any], answers: IO[bytes]) -> None:
        pixels = setup["pixels"]
        self._maker = RecordMaker(
            options_from_json(setup["options"]),
            Path(setup["root"]),
            setup["stores"],
            PixelFormat(**pixels) if pixels is not None else None,
            SourceIdentity(**setup["seen"]),
        )
        self._memory = np.frombuffer(
            mmap.mmap(setup["memory"], setup["memory_bytes"]), dtype=np.uint8
        )
        self._at = self._memory[8 * setup["number"] : 8 * setup["number"] + 8].view(np.int64)
        self._slot_bytes = setup["slot_bytes"]
        self._first_slot = setup["first_slot"]
        self._answers = answers
        self._complaints = _Complaints()

    def work(self, unit: dict[str, Any]) -> None:
        """Makes the records of one unit and sends where they lie."""
        start = self._first_slot + unit["slot"] * self._slot_bytes
        space = RecordBuffer(self._memory[start : start + self._slot_bytes])
        records: list[list[Any]] = []
        complaints: list[list[Any]] = []
        self._at[0] = unit["indices"][0]
        self._maker.look_at_source()
        for index, parts in zip(unit["indices"], unit["items"], strict=True):
            self._at[0] = index
            item = Item(*parts)
            try:
                records.append(list(self._maker.make(item, index, space)))
                complaint = self._complaints.take()
                if complaint:
                    complaints.append([item.name, complaint])
            except UndecodableImageError as error:
                complaint = self._complaints.take()  # or the next image would get the blame
                records.append([error.reason, error.detail or complaint])
        self._at[0] = NOTHING
        sums = self._maker.sums.taken()
        place = None
        if sums.image is not None:
            memory, place = space.take(sums.image.nbytes)
            memory[:] = sums.image.reshape(-1).view(np.uint8)
        answer = {
            "unit": unit["unit"],
            "records": records,
            "complaints": complaints,
            "sums": asdict(replace(sums, image=None)) | {"image": place},
            "depth": self._maker.depth.taken(),
            "beside": [len(data) for data in space.beside],
        }
        self._send(answer, space)

    def _send(self, answer: dict[str, Any], space: RecordBuffer) -> None:
        self._answers.write(json.dumps(answer).encode() + b"\n")
        for data in space.beside:
            self._answers.write(data.data)
        self._answers.flush()


def main() -> None:
    """Works until there is nothing to read."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nobody else may write between the answers
    tasks = sys.stdin.buffer
    worker = _Worker(json.loads(tasks.readline()), answers)
    try:
        for line in tasks:
            worker.work(json.loads(line))
    except BrokenPipeError:
        os._exit(0)  # the parent is gone
    except OSError as error:
        answers.write(json.dumps({"failed": error.strerror or str(error)}).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
