"""Follower: reads a log while it grows, across rotations."""

from __future__ import annotations

import os
import select
import stat
from typing import IO, TYPE_CHECKING

from irv2caffe.errors import InputError
from irv2caffe.log.read.files import CHUNK_BYTES, open_log, resolve_log

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.log.read.reader import Reader


class Follower:
    """Reads what was appended to a file, and continues in the new file after a rotation.

    A rotation may create a new file of the same name, or truncate the file.

    Attributes:
        ended: the log cannot grow: the pipe was closed, or the file is compressed.
    """

    def __init__(self, reader: Reader, path: Path) -> None:
        """Reads nothing yet.

        Raises:
            MissingInputError: there is no such log.
        """
        self._reader = reader
        self._path = resolve_log(path)
        self._stream: IO[bytes] | None = None
        self.ended = False

    def poll(self) -> bool:
        """Reads new data without waiting; returns whether there was any.

        Raises:
            InputError: it cannot be read.
        """
        try:
            return self._poll()
        except OSError as error:
            raise InputError(f"cannot read {self._path}: {error.strerror or error}") from error

    def _poll(self) -> bool:
        if self.ended:
            return False
        if self._stream is None:
            self._stream = open_log(self._path)
        if not hasattr(self._stream, "raw"):  # compressed files do not grow
            self._reader.read_file(self._path)
            self.ended = True
            return True
        status = os.fstat(self._stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            return self._read_pipe(self._stream)
        grown = self._read_rest(self._stream)
        return self._rotated(self._stream, status) or grown

    def _read_rest(self, stream: IO[bytes]) -> bool:
        grown = False
        while not self._reader.log.gave_up and (chunk := stream.read(CHUNK_BYTES)):
            self._reader.feed_bytes(chunk)
            grown = True
        self.ended |= self._reader.log.gave_up
        return grown

    def _rotated(self, stream: IO[bytes], old: os.stat_result) -> bool:
        try:
            new = self._path.stat()
        except FileNotFoundError:
            return False  # between two files
        if (new.st_ino, new.st_dev) != (old.st_ino, old.st_dev):
            self._read_rest(stream)  # what was written before the rotation
            self._reader.finish()
            stream.close()
            self._stream = open_log(self._path)
            return self._poll()
        if new.st_size < stream.tell():
            self._reader.finish()
            stream.seek(0)
            return self._poll()
        return False

    def _read_pipe(self, stream: IO[bytes]) -> bool:
        grown = False
        while select.select([stream], [], [], 0)[0]:
            chunk = os.read(stream.fileno(), CHUNK_BYTES)
            if not chunk or self._reader.log.gave_up:
                self._reader.finish()
                self.ended = True
                return grown
            self._reader.feed_bytes(chunk)
            grown = True
        return grown

    def close(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            self._stream.close()
