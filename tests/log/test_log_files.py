"""Logs as files: packed, torn, piped, growing, rotated, in pieces; rows in files and back."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.paths import FILES, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from irv2caffe.errors import FormatError, InputError, MissingExtraError, MissingInputError
from irv2caffe.log.dataset import find_train_images
from irv2caffe.log.describe import finding_lines
from irv2caffe.log.export import dump_csv, load_csv, read_csv, rows_of, write_csv, write_jsonl
from irv2caffe.log.read.follow import Follower
from irv2caffe.log.read.reader import Reader, read_log
from irv2caffe.log.summary import summarize
from irv2caffe.log.table import Table, TrainRow, make_table
from irv2caffe.log.table import TestRow as RowOfTest
from irv2caffe.log.tensorboard import write_events
from irv2caffe.plot.session import PlotSession, Request

LOGS = FILES / "logs"
STAMP = "I1124 01:02:03.500000  4242 solver.cpp:239] "
TEXT = (LOGS / "healthy.log").read_bytes()


def points(log):
    return [(p.iteration, p.loss, p.lr) for p in log.train], [p.outputs for p in log.test]


HEALTHY = points(read_log(LOGS / "healthy.log"))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["a.log.packed", "a.log"])
def test_packed_logs_whatever_their_names(tmp_path, pack, name):
    path = tmp_path / name
    path.write_bytes(pack(TEXT))
    assert points(read_log(path)) == HEALTHY


@pytest.mark.slow
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_torn_packed_logs(tmp_path, pack):
    """What can be unpacked is read."""
    lines = [
        STAMP.replace("03.5", f"{i % 60:02d}.5") + f"Iteration {i}, loss = {i}"
        for i in range(20_000)
    ]
    packed = pack("\n".join(lines).encode())
    (tmp_path / "torn.log").write_bytes(packed[: len(packed) * 9 // 10])
    log = read_log(tmp_path / "torn.log")
    assert 100 < len(log.train) < 20_000
    assert [p.loss for p in log.train] == list(range(len(log.train)))


def test_crlf(tmp_path):
    (tmp_path / "a.log").write_bytes(TEXT.replace(b"\n", b"\r\n"))
    assert points(read_log(tmp_path / "a.log")) == HEALTHY


def test_pieces_in_order(tmp_path):
    """A log that was rotated in the middle of a line of a dump, of a display, of a test."""
    for place in (TEXT.index(b"momentum"), TEXT.index(b"lr = "), len(TEXT) - 900):
        first, second = tmp_path / f"{place}.1", tmp_path / f"{place}.0"
        cut = TEXT.rindex(b"\n", 0, place) + 1
        first.write_bytes(gzip.compress(TEXT[:cut]))
        second.write_bytes(TEXT[cut:])
        log = read_log(first, second)
        assert points(log) == HEALTHY
        assert log.restarts == []


@pytest.mark.slow
def test_pipes(tmp_path):
    """A named pipe, and standard input."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(TEXT,))
    writer.start()
    assert points(read_log(pipe)) == HEALTHY
    writer.join()
    for name in ("-", "/dev/stdin"):
        command = [sys.executable, "-m", "irv2caffe", "plot-log", name, "--json"]
        done = subprocess.run(command, input=TEXT, capture_output=True, check=True)
        (summary,) = json.loads(done.stdout).values()
        assert summary["iterations"] == 60


def test_what_is_no_log(tmp_path):
    with pytest.raises(MissingInputError):
        read_log(tmp_path / "no")
    with pytest.raises(MissingInputError, match=r"no train\.log"):
        read_log(tmp_path)
    for name, data in (("text", b"hello\n"), ("empty", b""), ("bytes", bytes(range(256)))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match="no line of a Caffe training"):
            read_log(tmp_path / name)
    (tmp_path / "x.gz").write_bytes(b"not gzip")
    with pytest.raises(FormatError, match="gzip"):
        read_log(tmp_path / "x.gz")
    (tmp_path / "y.gz").write_bytes(b"\x1f\x8bnot gzip")
    with pytest.raises(FormatError, match="uncompressed"):
        read_log(tmp_path / "y.gz")
    with pytest.raises(InputError):
        read_log(Path("/proc/self/mem"))


@pytest.mark.parametrize("name", ["config.json", "solver.prototxt", "train_val.prototxt"])
@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "waiting"])
@pytest.mark.timeout(60)
def test_what_lies_beside_a_log_is_a_file(tmp_path, name, kind):
    (tmp_path / "train.log").write_bytes(TEXT)
    if kind == "device":
        (tmp_path / name).symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(tmp_path / name)
    elif kind == "waiting":
        (tmp_path / name).symlink_to("/proc/kmsg")
    else:
        (tmp_path / name).mkdir()
    assert find_train_images(read_log(tmp_path), tmp_path).number is None


@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_the_log_in_a_run_folder_is_a_file(tmp_path, kind):
    if kind == "device":
        (tmp_path / "train.log").symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "train.log")
    with pytest.raises(MissingInputError, match=r"no train\.log"):
        read_log(tmp_path)


@pytest.mark.timeout(60)
def test_a_file_that_waits(tmp_path):
    (tmp_path / "train.log").symlink_to("/proc/kmsg")
    with pytest.raises((FormatError, InputError)):
        read_log(tmp_path)


@pytest.mark.timeout(120)
def test_what_does_not_end_and_is_no_log():
    with pytest.raises(FormatError, match="no line of a Caffe training"):
        read_log(Path("/dev/zero"))


@pytest.mark.slow
@pytest.mark.parametrize("filling", [bytes(1 << 20), b"x" * (1 << 20), b"x\n" * (1 << 19)])
def test_a_bomb_is_not_read_to_its_end(tmp_path, monkeypatch, filling):
    monkeypatch.setattr("irv2caffe.log.read.reader.MAX_FOREIGN_BYTES", 4 << 20)
    monkeypatch.setattr("irv2caffe.log.read.reader.MAX_FOREIGN_LINES", 1_000_000)
    with gzip.open(tmp_path / "bomb.log.gz", "wb", 1) as stream:
        stream.write(TEXT)
        for _ in range(12):
            stream.write(filling)
        stream.write(TEXT.replace(b"Iteration ", b"Iteration 9"))
    log = read_log(tmp_path / "bomb.log.gz")
    assert log.train.iteration[-1] == 60
    assert ("unread", "a very long part has no line of Caffe; the rest was not read") in (
        finding_lines(summarize(make_table(log)), log)
    )
    follower = Follower(reader := Reader(), tmp_path / "bomb.log.gz")
    assert follower.poll()
    assert follower.ended
    assert reader.log.gave_up


@pytest.mark.slow
def test_lines_of_others_do_not_end_a_log(tmp_path, monkeypatch):
    """Between them Caffe goes on."""
    monkeypatch.setattr("irv2caffe.log.read.reader.MAX_FOREIGN_LINES", 100_000)
    with (tmp_path / "a.log").open("wb") as stream:
        for _ in range(8):
            stream.write(TEXT + b"Premature end of JPEG file\n" * 60_000)
    log = read_log(tmp_path / "a.log")
    assert log.num_unknown == 480_000
    assert not log.gave_up


def test_names_without_end(tmp_path):
    """A name in each test and display is neither a column in each row, nor dropped unsaid."""
    lines = []
    for at in range(600):
        lines.append(f"{STAMP}Iteration {at}, Testing net (#{at % 7})")
        lines.append(f"{STAMP}    Test net output #0: {'n' * 5000}{at} = 0.5")
        lines.append(f"{STAMP}    Test net output #1: acc{at} = 0.5")
        lines.append(f"{STAMP}Iteration {at}, loss = 1")
        lines.append(f"{STAMP}    Train net output #0: name{at} = 1")
    (tmp_path / "a.log").write_text("\n".join(lines))
    log = read_log(tmp_path / "a.log")
    table = make_table(log)
    write_csv(tmp_path / "rows.csv", table)
    head = (tmp_path / "rows.csv").read_text().partition("\n")[0].split(",")
    assert len(head) == 10 + 2 * 256
    assert max(map(len, head)) < 250
    said = dict(finding_lines(summarize(table), log))["outputs"]
    dropped = 600 - 256 + 600 - 255  # all long names are one
    assert said == f"more than 256 names: {dropped:,} values of others are left out"


class Growing:
    """A log that is being written, and what a follower makes of it."""

    def __init__(self, folder):
        self.path = folder / "train.log"
        self.path.touch()
        self.reader = Reader()
        self.follower = Follower(self.reader, folder)

    def write(self, first, end, *, mode="ab", tail=b"\n"):
        text = "\n".join(f"{STAMP}Iteration {i}, loss = {i}" for i in range(first, end))
        with self.path.open(mode) as stream:
            stream.write(text.encode() + tail)

    @property
    def shown(self):
        return list(self.reader.log.train.iteration)


def test_a_growing_file(tmp_path):
    log = Growing(tmp_path)
    assert not log.follower.poll()
    log.write(0, 5)
    assert log.follower.poll()
    assert log.shown == list(range(5))
    log.write(5, 8, tail=b"")  # the last line is still being written
    assert log.follower.poll()
    assert log.shown == list(range(7))
    log.write(0, 0, tail=b".5\n")
    assert log.follower.poll()
    assert log.reader.log.train[-1].loss == 7.5
    assert not log.follower.poll()
    log.follower.close()


def test_a_rotated_file(tmp_path):
    """A new file under the old name; what came between two looks is not lost."""
    log = Growing(tmp_path)
    log.write(0, 5)
    log.follower.poll()
    log.write(5, 8)
    log.path.rename(tmp_path / "train.log.1")
    assert log.follower.poll()  # the name is gone for a moment
    log.write(8, 12)
    assert log.follower.poll()
    assert log.shown == list(range(12))
    assert log.reader.log.restarts == []
    log.follower.close()


def test_an_emptied_file(tmp_path):
    """Rotation by copying and emptying."""
    log = Growing(tmp_path)
    log.write(0, 50)
    log.follower.poll()
    log.write(50, 60, mode="wb")
    log.follower.poll()
    assert log.shown == list(range(60))
    log.follower.close()


def test_a_growing_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = Reader()
    follower = Follower(reader, pipe)
    write = -1

    def opened():
        nonlocal write
        write = os.open(pipe, os.O_WRONLY)

    writer = threading.Thread(target=opened)
    writer.start()
    assert not follower.poll()  # nothing is waited for
    writer.join()
    os.write(write, f"{STAMP}Iteration 0, loss = 1\n".encode())
    assert follower.poll()
    assert not follower.ended
    os.write(write, f"{STAMP}Iteration 1, loss = 1".encode())
    os.close(write)
    assert follower.poll()
    assert follower.ended
    assert list(reader.log.train.iteration) == [0, 1]
    follower.close()


def test_a_packed_file_cannot_grow(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(TEXT))
    reader = Reader()
    follower = Follower(reader, tmp_path / "a.gz")
    assert follower.poll()
    assert follower.ended
    assert not follower.poll()
    assert points(reader.log) == HEALTHY


# Rows in files.

NUMBER = st.floats(allow_nan=True, allow_infinity=True)
MAYBE = st.one_of(st.none(), NUMBER)
NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
OUTPUTS = st.dictionaries(NAME, NUMBER, max_size=3)
ITERATION = st.integers(0, 10**12)
TRAIN = st.builds(TrainRow, ITERATION, MAYBE, NUMBER, MAYBE, MAYBE, MAYBE, OUTPUTS)
TEST = st.builds(RowOfTest, ITERATION, MAYBE, st.just(0), MAYBE, MAYBE, MAYBE, OUTPUTS, MAYBE)


def shown(rows):
    """Rows as text, since a NaN is equal to none; in whatever order their outputs are."""
    return [repr(replace(row, outputs=dict(sorted(row.outputs.items())))) for row in rows]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.lists(TRAIN, max_size=5, unique_by=lambda row: row.iteration),
    st.lists(TEST, max_size=5, unique_by=lambda row: row.iteration),
)
def test_csv_and_back(train, test):
    train.sort(key=lambda row: row.iteration)
    test.sort(key=lambda row: row.iteration)
    stream = io.StringIO(newline="")
    dump_csv(stream, Table(tuple(train), tuple(test), (), None, None))
    stream.seek(0)
    table = load_csv(stream)
    assert shown(table.train) == shown(train)
    assert shown(table.test) == shown(test)


@pytest.mark.parametrize("name", ["healthy", "resumed", "two_tests", "nan", "steps"])
def test_csv_of_real_logs_and_back(tmp_path, name):
    table = make_table(read_log(LOGS / f"{name}.log"), num_train_images=160)
    write_csv(tmp_path / "rows.csv", table)
    back = read_csv(tmp_path / "rows.csv")
    assert list(map(repr, back.train)) == list(map(repr, table.train))
    assert list(map(repr, back.test)) == list(map(repr, table.test))
    assert list(map(repr, back.other_tests)) == list(map(repr, table.other_tests))
    with (tmp_path / "rows.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    order = [(int(row["iteration"]), row["kind"] == "train") for row in rows]
    assert order == sorted(order)
    assert rows[0]["output:acc/top-1"] == str(table.test[0].outputs["acc/top-1"])


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        "kind,iteration\ntrain,x\n",
        "kind,iteration,loss\ntrain,1,2,3\n",
        "kind,iteration,loss\ntrain,1\n",
        "kind,iteration,loss\ntest,,2\n",
        "kind,iteration,loss\nsoup,1,2\n",
        f"kind,iteration,loss\ntrain,{10**400},2\n",
        "\0",
    ],
)
def test_csv_of_others(tmp_path, text):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(FormatError):
        read_csv(tmp_path / "rows.csv")
    with pytest.raises(MissingInputError):
        read_csv(tmp_path / "none.csv")


def test_json_lines(tmp_path):
    tables = {name: make_table(read_log(LOGS / f"{name}.log")) for name in ("nan", "two_tests")}
    write_jsonl(tmp_path / "rows.jsonl", tables)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").open()]
    assert {row["run"] for row in rows} == {"nan", "two_tests"}
    expected = [row for table in tables.values() for row in rows_of(table)]
    assert [row["iteration"] for row in rows] == [row["iteration"] for row in expected]
    lost = [row for row in rows if row["run"] == "nan" and row["kind"] == "train"][-1]
    assert lost["loss"] is None
    assert {row["net"] for row in rows if row["kind"] == "test"} == {0, 1}


def test_tensorboard_reads_our_events(tmp_path):
    """TensorBoard's own reader checks every checksum and gives the values back."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    table = make_table(read_log(LOGS / "resumed.log"), num_train_images=160)
    (path,) = write_events(tmp_path, {"../a run": table})
    assert path.parent == tmp_path / "_a_run"
    read = list(loader.LegacyEventFileLoader(str(path)).Load())
    assert read[0].file_version == "brain.Event:2"
    found = {}
    for event in read[1:]:
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    losses = [(row.iteration, pytest.approx(row.loss, rel=1e-6)) for row in table.train]
    assert found["train/loss"] == losses
    errors = [(row.iteration, pytest.approx(row.top1_error, rel=1e-6)) for row in table.test]
    assert found["test/top1_error"] == errors
    assert len(found["train/loss/loss"]) == len(table.train) - 1
    times = [event.wall_time for event in read]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(table.test[-1].seconds)  # the last of all


def test_tensorboard_folders_of_names_that_look_alike(tmp_path):
    tables = dict.fromkeys(["a b", "a_b", "a/b"], Table((), (), (), None, None))
    paths = write_events(tmp_path, tables)
    assert len(set(paths)) == 3
    assert all(path.is_file() for path in paths)


def test_tensorboard_takes_any_number(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    losses = [math.nan, math.inf, -math.inf, 1e300, 0.0]
    rows = tuple(TrainRow(i, None, loss, None, None, None) for i, loss in enumerate(losses))
    (path,) = write_events(tmp_path, {"run": Table(rows, (), (), None, None)})
    read = list(loader.LegacyEventFileLoader(str(path)).Load())
    values = [event.summary.value[0].simple_value for event in read[1:]]
    assert list(map(repr, values)) == ["nan", "inf", "-inf", "inf", "0.0"]


def test_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    with pytest.raises(MissingExtraError) as caught:
        write_events(tmp_path, {"run": Table((), (), (), None, None)})
    assert "pip install 'irv2caffe[tensorboard]'" in caught.value.hint
    with pytest.raises(MissingExtraError):
        PlotSession(Request([LOGS / "healthy.log"], tensorboard=tmp_path))


def test_the_example_of_the_guide(tmp_path):
    """As it stands there."""
    guide = (ROOT / "docs/guide/plot-log.md").read_text()
    code = next(block for block in guide.split("```python\n")[1:] if "read_log" in block)
    (tmp_path / "train.log").write_bytes((LOGS / "nan.log").read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", code.split("```")[0]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4 + 13 + 1
    assert "the training loss is nan" in lines[-1]
