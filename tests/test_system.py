"""Files that somebody else put there: a reader must not hang on them, nor read for ever."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from irv2caffe.system import open_regular, read_regular


def test_regular_files_are_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert read_regular(path, 5) == read_regular(link, 100) == b"12345"
    with open_regular(path) as stream:
        assert stream.read() == b"12345"


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path):
    fifo, server = tmp_path / "fifo", socket.socket(socket.AF_UNIX)
    os.mkfifo(fifo)
    server.bind(str(tmp_path / "socket"))
    link = tmp_path / "link"
    link.symlink_to("/dev/zero")
    for path in (fifo, tmp_path / "socket", link, Path("/dev/tty")):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(path, 100)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, 100)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "nothing", 100)
    server.close()


@pytest.mark.skipif(not Path("/proc/kmsg").exists(), reason="no log of a kernel")
def test_a_file_of_proc_that_waits_for_the_kernel_is_not_waited_for():
    with pytest.raises(OSError):  # noqa: PT011 - by right: not permitted, nothing yet, too long
        read_regular(Path("/proc/kmsg"), 100)


def test_no_more_than_the_limit_is_read(tmp_path):
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 200 << 30)  # holes: takes no room
    with pytest.raises(OSError, match="longer than 1,000 bytes"):
        read_regular(path, 1000)
