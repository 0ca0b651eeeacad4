"""Programs that are called Caffe and print without end, hang, or leave others behind."""

from __future__ import annotations

import os
import sys
import time

import pytest
from helpers.training_jobs import (
    config,
    irv2caffe,
    is_gone,
    make_databases,
    wait_for,
    write_job,
)

from irv2caffe.caffe import verify
from irv2caffe.caffe.bounded import printed
from irv2caffe.caffe.find import find_caffe
from irv2caffe.errors import InstallError
from irv2caffe.train.run.caffe_log import LogSizeWatch, RawLog

FLOOD = """#!{python}
import os, sys, time
if "--version" in sys.argv:
    print("caffe version 1.0.0")
else:
    line = b"I1126 20:00:00.000000 1 net.cpp:1] and so on\\n" * 25_000
    while True:
        os.write(2, line)
        time.sleep(0.02)
"""


def caffe_that(folder, text):
    folder.mkdir()
    (folder / "caffe").write_text(text)
    (folder / "caffe").chmod(0o755)
    return find_caffe(folder)


def run(*argv, **limits):
    limits = {"timeout_s": 60, "limit_bytes": 1 << 20, **limits}
    return printed(argv, os.environ, None, **limits)


def test_what_a_program_prints():
    assert run("sh", "-c", "echo one; echo two >&2; exit 3") == (3, "one\ntwo\n")
    with pytest.raises(OSError, match="No such file"):
        run("/no/such/program")


def test_a_version_without_end_is_cut_off(tmp_path):
    found = caffe_that(tmp_path / "endless", "#!/bin/sh\nexec yes\n")
    with pytest.raises(InstallError, match="printed more than"):
        verify.version(found)
    with pytest.raises(InstallError, match="did not finish within"):
        run("sleep", "1000", timeout_s=0.2)


def test_a_child_that_holds_the_pipe_is_not_waited_for(tmp_path):
    pid = tmp_path / "pid"
    text = f"#!/bin/sh\nsleep 1000 &\necho $! > '{pid}'\necho caffe version 1.2.3\n"
    found = caffe_that(tmp_path / "parent", text)
    assert verify.version(found) == "1.2.3"
    wait_for(lambda: is_gone(int(pid.read_text())), "for its end")


def test_a_program_that_closes_its_output_and_goes_on():
    assert run("sh", "-c", "echo done; exec >&- 2>&-; sleep 0.3; exit 4") == (4, "done\n")
    with pytest.raises(InstallError, match="did not finish within"):
        run("sh", "-c", "exec >&- 2>&-; sleep 1000", timeout_s=0.5)


@pytest.mark.slow
def test_a_caffe_that_prints_without_end_is_ended(tmp_path):
    """Its log is what was read of it; what came faster than that is gone."""
    make_databases(tmp_path)
    solver = write_job(tmp_path, tmp_path / "job")
    caffe_that(tmp_path / "flood", FLOOD.format(python=sys.executable))
    done = irv2caffe(
        "--solver", solver, "--run-dir", "run", "--caffe", tmp_path / "flood", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "Caffe prints without end" in done.stderr
    assert "train.log" in done.stderr
    assert config(tmp_path / "run")["ending"] == "crashed"
    assert len(config(tmp_path / "run")["starts"]) == 1
    assert b"and so on" in (tmp_path / "run/train.log").read_bytes()


def watched(tmp_path, free, snapshot=0):
    log = RawLog(tmp_path / "start-001.log", tmp_path / "train.log")
    return log, LogSizeWatch(log, lambda: free, lambda: snapshot)


def looks(watch, log, sizes, monkeypatch):
    """What is said when the log has such sizes, a second apart."""
    clock = iter(range(1000, 2000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    said = []
    for size in sizes:
        os.truncate(log.writing, size)
        said.append(watch.has_new_problem())
    monkeypatch.undo()
    return said


def test_a_large_log_is_no_flood(tmp_path, monkeypatch):
    """A megabyte a second, and a burst at the start."""
    log, watch = watched(tmp_path, free=None)
    sizes = [0, 90 << 20, *((90 + second) << 20 for second in range(30))]
    assert not any(looks(watch, log, sizes, monkeypatch))
    log.close()


def test_a_log_that_fills_the_disk_bit_by_bit_leaves_room_for_a_snapshot(tmp_path, monkeypatch):
    log, watch = watched(tmp_path, free=300 << 20, snapshot=250 << 20)
    sizes = [200 << 20] * 3 + [300 << 20] * 3
    assert looks(watch, log, sizes, monkeypatch) == [False] * 3 + [True, False, False]
    assert "the disk is nearly full" in watch.problem
    assert not watch.is_flood
    log.close()
