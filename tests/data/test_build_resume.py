"""make-lmdb after kill -9, dead workers, full disks, Ctrl-C: it goes on and ends with the same."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from helpers.training_jobs import child_of_test, database_contents, is_gone, wait_for
from PIL import Image

from irv2caffe.data.build import build_plan, writer
from irv2caffe.data.build.make_lmdb import BuildOptions, make_lmdb
from irv2caffe.data.build.partial import partial_folder
from irv2caffe.data.build.state import DAMAGED, State, read_state, write_state
from irv2caffe.data.lmdb_store import DatabaseWriter, last_transaction
from irv2caffe.data.sources import open_source
from irv2caffe.errors import InputError, OutputError, OutputExistsError, WorkerDiedError

pytestmark = pytest.mark.slow

OPTIONS = BuildOptions(size=(96, 96), workers=2)
PATIENCE_S = 500  # only a run that hangs takes as long, on a busy machine too
# Commits and units small enough for a small set to have many of them.
RUN = """
import os, sys
from irv2caffe.data.build import build_plan, writer
writer.COMMIT_BYTES = 1 << 20
build_plan._UNIT_BYTES = 128 << 10
{extra}
from irv2caffe.cli import run
sys.exit(run(["make-lmdb", sys.argv[1], sys.argv[2], "--resize", "96", *sys.argv[3:]]))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three classes, 400 images, two of them bad."""
    root = tmp_path_factory.mktemp("resume") / "images"
    rng = np.random.default_rng(0)
    for number in range(400):
        folder = root / ("ant", "bee", "cow")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    (root / "ant" / "text.jpg").write_text("words")
    (root / "cow" / "empty.jpg").write_bytes(b"")
    return root


def start(images, out, *args, extra="", **kwargs):
    command = [sys.executable, "-c", RUN.format(extra=extra), str(images), str(out), *args]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return child_of_test(command, **streams, **kwargs)


def finish(images, out, *args, **kwargs):
    """(exit code, standard error) of a run to its end."""
    with start(images, out, *args, **kwargs) as child:
        _, errors = child.communicate(timeout=PATIENCE_S)
        return child.returncode, errors


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """What a run without interruption ends with."""
    out = tmp_path_factory.mktemp("whole") / "db"
    started = time.monotonic()
    code, errors = finish(images, out)
    assert code == 3, errors
    assert set(database_contents(out)) == {
        "data.mdb",
        "labels.txt",
        "mean.binaryproto",
        "skipped.csv",
    }
    return database_contents(out), time.monotonic() - started


def test_twenty_random_kills_end_with_the_same_bytes(images, whole, tmp_path):
    wanted, seconds = whole
    rng = random.Random(7)
    kills = 0
    out = tmp_path / "db"
    while kills < 20:
        with start(images, out) as child:
            try:
                _, errors = child.communicate(timeout=rng.uniform(0.2, max(0.6, seconds)))
                assert child.returncode == 3, errors
            except subprocess.TimeoutExpired:
                child.kill()
        if not out.exists():
            kills += 1
            continue
        # It came to its end; the kill may have struck between the renaming and the exit.
        assert database_contents(out) == wanted
        assert not partial_folder(out).exists()
        shutil.rmtree(out)
    code, errors = finish(images, out)
    assert code == 3, errors
    assert database_contents(out) == wanted
    assert json.loads((out / "manifest.json").read_text())["num_images"] == 400


# It dies between two lines of the program: before or after the how-many-eth call of a function.
DIE = """
from irv2caffe.data import lmdb_store
from irv2caffe.data.build import make_lmdb, partial, side_files
def dying(function, when, count):
    def call(*args):
        global times
        times += 1
        if when == "before" and times == count: os.kill(os.getpid(), 9)
        result = function(*args)
        if when == "after" and times == count: os.kill(os.getpid(), 9)
        return result
    return call
times = 0
{where} = dying({where}, {when!r}, {count})
make_lmdb.write_side_files = side_files.write_side_files
"""


READING = {os.O_RDONLY | more | os.O_CLOEXEC for more in (0, os.O_NONBLOCK | os.O_NOCTTY)} | {0}


class Watched:
    """All that a run does to its output's folder goes through here, one call after the other.

    What lies in the folder between two calls is what a death between them would leave.
    """

    CALLS = (
        *((os, name) for name in ("mkdir", "open", "rename", "replace", "rmdir", "unlink")),
        *((os, name) for name in ("fsync", "truncate")),
        (io, "open"),
        (DatabaseWriter, "put"),
        (DatabaseWriter, "commit"),
    )

    def __init__(self, monkeypatch, folder):
        self.folder = folder
        self.seen = []
        self.calls = []
        self.fails_at = None
        for owner, name in self.CALLS:
            monkeypatch.setattr(owner, name, self._watching(name, getattr(owner, name)))

    def _watching(self, name, function):
        def call(what, *args, **kwargs):
            is_reading = name == "open" and (args or ["r"])[0] in {"r", "rb"} | READING
            if is_reading or not self._concerns(what):
                return function(what, *args, **kwargs)
            self._look()
            self.calls.append(name)
            if len(self.calls) - 1 == self.fails_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            try:
                return function(what, *args, **kwargs)
            finally:
                self._look()

        return call

    def _concerns(self, what):
        if isinstance(what, int):
            what = Path(f"/proc/self/fd/{what}").readlink()
        return isinstance(what, DatabaseWriter) or str(what).startswith(str(self.folder))

    def _look(self):
        self.folder, folder = Path("/nowhere"), self.folder  # not at what looking does
        files = {
            str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))
        }
        self.folder = folder
        if files not in self.seen[-1:]:
            self.seen.append(files)


def lay_out(files, folder, pid):
    """What another process left, of which we know that it is dead."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        path = folder / name.replace(f"-{os.getpid()}-", f"-{pid}-")
        path.mkdir() if data is None else path.write_bytes(data)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Seven images, of which one is bad, in three transactions."""
    monkeypatch.setattr(writer, "COMMIT_RECORDS", 3)
    monkeypatch.setattr(build_plan, "_UNIT_BYTES", 1)
    for number in range(7):
        folder = tmp_path / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (30 * number, 0, 0)).save(folder / f"{number}.png")
    (tmp_path / "images/a/bad.png").write_text("words")
    return open_source(tmp_path / "images")


@pytest.fixture
def dead_pid():
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


@pytest.mark.parametrize("force", [False, True])
def test_a_death_at_any_moment(tiny, tmp_path, monkeypatch, dead_pid, force):
    options = BuildOptions(size=(8, 8), workers=1)
    here = tmp_path / "here"
    here.mkdir()
    if force:
        make_lmdb(tiny, here / "db", BuildOptions(size=(4, 4), workers=1))
        (here / "db/.partial-labels-killed.txt").write_text("left by an earlier version")
    with monkeypatch.context() as patch:
        watched = Watched(patch, here)
        make_lmdb(tiny, here / "db", options, force=force)
    wanted = database_contents(here / "db")
    assert set(wanted) == {"data.mdb", "labels.txt", "mean.binaryproto", "skipped.csv"}
    assert len(watched.seen) > 30
    assert any(".partial-" in name for files in watched.seen for name in files)
    for files in watched.seen:
        lay_out(files, here, dead_pid)
        if force or "db" not in files:
            make_lmdb(tiny, here / "db", options, force=force)
        assert [path.name for path in here.iterdir()] == ["db"], files.keys()
        assert database_contents(here / "db") == wanted, files.keys()


def test_a_disk_that_fails_at_any_moment(tiny, tmp_path, monkeypatch):
    options = BuildOptions(size=(8, 8), workers=1)
    here = tmp_path / "here"
    here.mkdir()
    with monkeypatch.context() as patch:
        calls = Watched(patch, here).calls
        make_lmdb(tiny, here / "db", options)
    wanted = database_contents(here / "db")
    # Of calls that come once for each commit, the first few; LMDB's own are for real disks.
    places = [
        at
        for at, name in enumerate(calls)
        if name not in {"put", "commit"} and (calls[:at].count(name) < 4 or at > len(calls) - 9)
    ]
    assert len(places) > 20
    for place in places:
        shutil.rmtree(here)
        here.mkdir()
        with monkeypatch.context() as patch:
            Watched(patch, here).fails_at = place
            with suppress(OutputError):
                make_lmdb(tiny, here / "db", options)
        if not (here / "db").exists():
            make_lmdb(tiny, here / "db", options)
        assert [path.name for path in here.iterdir()] == ["db"], (place, calls[place])
        assert database_contents(here / "db") == wanted, (place, calls[place])


@pytest.mark.parametrize("size", [None, 0, 100, 4096])
def test_a_file_that_was_just_begun(images, tmp_path, size):
    """Own sizes: how much LMDB maps must not depend on whether there was a file already."""
    args = ("--resize", "none")
    assert finish(images, tmp_path / "whole", *args)[0] == 3
    extra = DIE.format(where="lmdb_store.DatabaseWriter.put", when="after", count=1)
    assert finish(images, tmp_path / "db", *args, extra=extra)[0] == -signal.SIGKILL
    path = partial_folder(tmp_path / "db") / "data.mdb"
    assert path.stat().st_size == 8192
    if size is not None:
        path.write_bytes(path.read_bytes()[:size])
    code, errors = finish(images, tmp_path / "db", *args)
    assert code == 3, errors
    assert database_contents(tmp_path / "db") == database_contents(tmp_path / "whole")


def children_of(pid):
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


# It waits in the middle, after some commits, until a file is there.
HELD = """
import pathlib, time
from irv2caffe.data.build import pool
result = pool.WorkerPool._result
def held(self, unit, *args):
    while unit.number == 30 and not pathlib.Path(sys.argv[2] + ".go").exists():
        time.sleep(0.02)
    return result(self, unit, *args)
pool.WorkerPool._result = held
"""


def let_go(out):
    out.with_name(f"{out.name}.go").touch()


# Its workers stop, as if they hung: in the middle of an image, or between two.
HANGING = """
from irv2caffe.data.build import pool, worker
pool.STALL_S = 1.0
worker._BOOT = worker._BOOT.replace("import main; main()", '''import main
import os, signal
from irv2caffe.data.build import worker
from irv2caffe.data.records import record
make = {owner}.make
def stopping(self, what, *args):
    if {when}: os.kill(os.getpid(), signal.SIGSTOP)
    return make(self, what, *args)
{owner}.make = stopping
worker.main()
''')
"""


def has_commits(out):
    """A state's file is written just before the commit it belongs to."""
    folder = partial_folder(out)
    return any(folder.glob("state-[0-9]*")) and last_transaction(folder) > 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_dead_worker_ends_the_job(images, whole, tmp_path, how):
    out = tmp_path / "db"
    with start(images, out, extra=HELD) as child:
        wait_for(lambda: has_commits(out), seconds=PATIENCE_S)
        os.kill(children_of(child.pid)[0], how)
        let_go(out)
        _, errors = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 1
    assert f"a worker died ({how.name})" in errors
    assert "the same command" in errors
    assert not out.exists()
    code, errors = finish(images, out)
    assert code == 3
    assert "continuing at record" in errors
    assert database_contents(out) == whole[0]


@pytest.mark.parametrize(
    ("owner", "when"),
    [("record.RecordMaker", "args[0] >= 200"), ("worker._Job", "what['indices'][0] >= 200")],
)
def test_a_hanging_worker_ends_the_job(images, tmp_path, owner, when):
    """Stopped between two images it is as silent as stopped in one."""
    code, errors = finish(images, tmp_path / "db", extra=HANGING.format(owner=owner, when=when))
    assert code == 1
    assert "no end after 1 s" in errors
    assert has_commits(tmp_path / "db")


def test_a_job_that_was_stopped_is_not_taken_for_a_stalled_one(tiny, tmp_path, monkeypatch):
    """Ctrl-Z stops all its processes, and not the clock."""
    from irv2caffe.data.build import worker

    boot = (
        "import json, sys, time; sys.path[:] = json.loads(sys.argv[1])\n"
        "from irv2caffe.data.build import worker\n"
        "from irv2caffe.data.records import record\n"
        "make = record.RecordMaker.make\n"
        "def slow(*args): time.sleep(1.5); return make(*args)\n"
        "record.RecordMaker.make = slow\n"
        "worker.main()"
    )
    monkeypatch.setattr(worker, "_BOOT", boot)
    clock = itertools.count(0, 400.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    report = make_lmdb(tiny, tmp_path / "db", BuildOptions(size=(8, 8), workers=8))
    assert report.num_images == 7


def test_a_killed_parent_takes_its_workers_along(images, tmp_path):
    with start(images, tmp_path / "db", extra=HELD) as child:
        wait_for(lambda: has_commits(tmp_path / "db"), seconds=PATIENCE_S)
        workers = children_of(child.pid)
        assert len(workers) == 2
        child.kill()
        child.communicate()
    wait_for(lambda: all(is_gone(worker) for worker in workers), seconds=PATIENCE_S)


def test_a_full_disk_ends_the_job_and_room_lets_it_go_on(images, whole, tmp_path):
    """A limit on the size of files stands for the disk."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, 5 << 20))

    out = tmp_path / "db"
    code, errors = finish(images, out, preexec_fn=limit)
    assert code == 1
    assert "cannot be written" in errors
    assert "the same command goes on" in errors
    assert not out.exists()
    code, errors = finish(images, out)
    assert code == 3
    assert "continuing at record" in errors
    assert database_contents(out) == whole[0]


def test_a_disk_that_fills_up_is_seen_before_it_is_full(images, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "COMMIT_BYTES", 1 << 20)
    monkeypatch.setattr(build_plan, "_UNIT_BYTES", 128 << 10)
    free = iter([10**10, 10**10, 10**10, 1_000_000])
    monkeypatch.setattr("irv2caffe.system.free_bytes", lambda path: next(free, 1_000_000))
    with pytest.raises(OutputError, match=r"is full: 1\.00 MB are free"):
        make_lmdb(open_source(images), tmp_path / "db", OPTIONS)
    assert partial_folder(tmp_path / "db").exists()


def test_a_disk_that_is_full_is_told_in_sizes_that_say_something(images, tmp_path, monkeypatch):
    monkeypatch.setattr("irv2caffe.system.free_bytes", lambda path: 4096)
    with pytest.raises(OutputError, match=r"about [\d.]+ MB are needed for .*, 4\.1 kB are free"):
        make_lmdb(open_source(images), tmp_path / "db", OPTIONS)
    assert not partial_folder(tmp_path / "db").exists()


def test_ctrl_c_keeps_what_is_done(images, whole, tmp_path):
    out = tmp_path / "db"
    with start(images, out, extra=HELD, start_new_session=True) as child:
        wait_for(lambda: has_commits(out), seconds=PATIENCE_S)
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to the workers too
        _, errors = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130
    assert "run the same command again to continue" in errors
    code, errors = finish(images, out)
    assert code == 3
    assert "continuing at record" in errors
    assert database_contents(out) == whole[0]


def test_nothing_stays_of_what_had_no_time_to_begin(images, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_lmdb(open_source(images), tmp_path / "db", OPTIONS, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def unfinished(images, tmp_path):
    """A database that was interrupted after its second commit."""
    out = tmp_path / "db"
    extra = DIE.format(where="lmdb_store.DatabaseWriter.commit", when="after", count=2)
    assert finish(images, out, extra=extra)[0] == -signal.SIGKILL
    return out


def test_a_disk_that_lost_the_end_of_a_commit(images, whole, unfinished):
    """The meta page of the second commit is there, the pages that it speaks of are not."""
    file = partial_folder(unfinished) / "data.mdb"
    assert last_transaction(file.parent) == 2
    os.truncate(file, file.stat().st_size - 4096)
    assert last_transaction(file.parent) == 1
    code, errors = finish(images, unfinished)
    assert code == 3, errors
    assert "continuing at record" in errors
    assert database_contents(unfinished) == whole[0]


@pytest.mark.parametrize("size", [100, 8192, 100_000])
def test_a_disk_that_lost_all_commits(images, whole, unfinished, size):
    os.truncate(partial_folder(unfinished) / "data.mdb", size)
    code, errors = finish(images, unfinished)
    assert code == 1
    assert "is damaged" in errors
    assert "--no-resume starts over" in errors
    code, errors = finish(images, unfinished, "--no-resume")
    assert code == 3, errors
    assert database_contents(unfinished) == whole[0]


def test_a_foreign_file_in_an_unfinished_database(images, unfinished):
    """Starting over clears away what is of the database, and nothing else."""
    thesis = partial_folder(unfinished) / "thesis.tex"
    thesis.write_text("years of work")
    code, errors = finish(images, unfinished, "--no-resume")
    assert code == 1
    assert "it holds thesis.tex" in errors
    assert thesis.exists()
    assert has_commits(unfinished)


def test_other_options_do_not_go_on(images, whole, unfinished):
    code, errors = finish(images, unfinished, "--gray")
    assert code == 1
    assert "of other images or options (gray differ)" in errors
    assert "--no-resume" in errors
    assert has_commits(unfinished)
    code, errors = finish(images, unfinished, "--no-resume")
    assert code == 3
    assert "going on" not in errors
    assert database_contents(unfinished) == whole[0]


def test_other_images_do_not_go_on(images, unfinished, tmp_path):
    copy = tmp_path / "images"
    shutil.copytree(images, copy)
    (copy / "bee" / "1.jpg").unlink()
    code, errors = finish(copy, unfinished)
    assert code == 1
    assert "number of images" in errors


def test_workers_and_limits_may_change(images, whole, unfinished):
    code, errors = finish(images, unfinished, "--workers", "3", "--max-skipped", "2")
    assert code == 0
    assert "continuing at record" in errors
    assert database_contents(unfinished) == whole[0]


def test_replacing_goes_on_too(images, whole, tmp_path):
    out = tmp_path / "db"
    make_lmdb(open_source(images), out, BuildOptions(size=(8, 8)))
    old = database_contents(out)
    extra = DIE.format(where="lmdb_store.DatabaseWriter.commit", when="after", count=2)
    assert finish(images, out, "--force", extra=extra)[0] == -signal.SIGKILL
    assert database_contents(out) == old
    code, errors = finish(images, out, "--force")
    assert code == 3
    assert "continuing at record" in errors
    assert database_contents(out) == whole[0]


def test_two_at_a_time(images, tmp_path):
    with start(images, tmp_path / "db", extra=HELD) as child:
        wait_for(lambda: has_commits(tmp_path / "db"), seconds=PATIENCE_S)
        with pytest.raises(OutputExistsError, match="another process"):
            make_lmdb(open_source(images), tmp_path / "db", OPTIONS)
        child.kill()
        child.communicate()


def test_what_came_meanwhile_is_not_replaced(images, whole, tmp_path):
    out = tmp_path / "db"

    def progress(done, total):
        if done == total:
            out.mkdir(exist_ok=True)
            (out / "thesis.tex").write_text("years of work")

    for force in (False, True):
        with pytest.raises(OutputError, match="it came while the database was built"):
            make_lmdb(open_source(images), out, OPTIONS, force=force, progress=progress)
        shutil.move(out, tmp_path / f"elsewhere{force}")
        assert (tmp_path / f"elsewhere{force}/thesis.tex").read_text() == "years of work"
        if force:
            continue
        for path in (tmp_path / "db.partial").iterdir():
            assert path.name != "state-new"
        shutil.rmtree(tmp_path / "db.partial")
    report = make_lmdb(open_source(images), out, OPTIONS)
    assert report.num_images == 400
    assert report.resumed_at == 402  # only the renaming was left


def test_refused_is_not_kept(images, unfinished):
    _, errors = finish(images, unfinished, "--gray")
    assert "is kept" not in errors


def test_a_folder_of_that_name_is_not_touched(images, tmp_path):
    (tmp_path / "db.partial").mkdir()
    (tmp_path / "db.partial/thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(OutputExistsError, match="no unfinished database"):
            make_lmdb(open_source(images), tmp_path / "db", OPTIONS, force=force, resume=False)
    assert (tmp_path / "db.partial/thesis.tex").read_text() == "years of work"


def test_too_many_skipped_ends_early_and_goes_on(images, whole, tmp_path):
    code, errors = finish(images, tmp_path / "db", "--max-skipped", "1")
    assert code == 1
    assert "2 images cannot be taken" in errors
    code, errors = finish(images, tmp_path / "db", "--max-skipped", "2")
    assert code == 0, errors
    assert database_contents(tmp_path / "db") == whole[0]


def test_a_failing_disk_ends_the_job(images, tmp_path, monkeypatch):
    """A source whose store ends too early stands for a disk that cannot read."""
    from dataclasses import replace

    from irv2caffe.data.sources import Item, Items

    source = open_source(images)
    store = tmp_path / "store"
    store.write_bytes(bytes(100))
    items = Items()
    for number in range(10):
        items.add(Item(f"x/{number}.jpg", 0, 0, 50 * number, 50))
    broken = replace(source, items=items, classes=("x",), stores=(store,))
    with pytest.raises(InputError, match="the archive ends before it"):
        make_lmdb(broken, tmp_path / "db", OPTIONS)


def test_a_crash_in_the_worker_is_told(images, tmp_path, monkeypatch):
    from irv2caffe.data.build import worker

    boot = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1])\n"
        "from irv2caffe.data.records import record\n"
        "def bad(*args): raise RuntimeError('a bug')\n"
        "record.RecordMaker.make = bad\n"
        "from irv2caffe.data.build.worker import main; main()"
    )
    monkeypatch.setattr(worker, "_BOOT", boot)
    with pytest.raises(WorkerDiedError, match=r"exit code 1\) at .*RuntimeError: a bug"):
        make_lmdb(open_source(images), tmp_path / "db", OPTIONS)


def test_pages_of_an_unfinished_database_that_are_lost(images, whole, unfinished):
    """All but the two meta pages are zeros; what LMDB says of it is no error of this program's."""
    file = partial_folder(unfinished) / "data.mdb"
    file.write_bytes(file.read_bytes()[:8192].ljust(file.stat().st_size, b"\0"))
    code, errors = finish(images, unfinished)
    assert code == 1, errors
    assert "Traceback" not in errors
    assert "db.partial: data.mdb is damaged" in errors
    assert "--no-resume starts over" in errors
    code, errors = finish(images, unfinished, "--no-resume")
    assert code == 3, errors
    assert database_contents(unfinished) == whole[0]


@pytest.mark.parametrize(
    "damage",
    [
        {"per_label": 3},
        {"per_label": [1.5]},
        {"skipped": 7},
        {"mean": []},
        {"mean": {"image": [10**30], "shape": None}},
        {"depth": 1},
        {"more": 1},
    ],
)
def test_a_state_that_is_none(tmp_path, damage):
    path = tmp_path / "state-2"
    with path.open("wb") as stream:
        write_state(State(num_written=5), stream)
    assert read_state(path).num_written == 5
    path.write_text(json.dumps(json.loads(path.read_bytes()) | damage) + "\n")
    with pytest.raises(DAMAGED):
        read_state(path)
