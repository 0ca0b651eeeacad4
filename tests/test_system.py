"""Files that somebody else put there: a reader must not hang on them. GPUs by nvidia-smi."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from irv2caffe import system
from irv2caffe.system import open_regular, read_json_object, read_regular


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


SMI = """#!/bin/sh
case "$1" in
*query-gpu*) printf '0, NVIDIA H100, GPU-aa, 81559, 81000\\n1, NVIDIA H100, GPU-bb, 81559, 500\\n'
    printf '2, Odd, GPU-cc, [N/A], [N/A]\\n' ;;
*query-compute-apps*) printf 'GPU-bb\\nGPU-bb\\n' ;;
esac
"""


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        (
            SMI,
            [
                system.Gpu(0, "NVIDIA H100", "GPU-aa", 81559 << 20, 81000 << 20, 0),
                system.Gpu(1, "NVIDIA H100", "GPU-bb", 81559 << 20, 500 << 20, 2),
            ],
        ),
        ("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n", None),
        ("#!/bin/sh\nexec sleep 1000\n", None),
    ],
    ids=["two GPUs", "no driver", "hangs"],
)
def test_gpus_of_nvidia_smi(tmp_path, monkeypatch, script, wanted):
    """Where nvidia-ml-py is not installed."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(system, "_NVIDIA_SMI_S", 1.0 if "sleep" in script else 60.0)
    program = tmp_path / "nvidia-smi"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert system.gpus() == wanted


def test_json_with_integers_that_are_no_floats_is_invalid(tmp_path):
    (tmp_path / "a.json").write_text(f'{{"value": {10**400}}}')
    assert read_json_object(tmp_path / "a.json") == {}
    (tmp_path / "a.json").write_text(f'{{"value": {-(10**18)}}}')
    assert read_json_object(tmp_path / "a.json") == {"value": -(10**18)}
