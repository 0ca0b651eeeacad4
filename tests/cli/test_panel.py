"""The panel of a training, as a person sees it on a terminal; real Caffe."""

from __future__ import annotations

import io
import os

import pytest
from helpers.terminal import Screen, Terminal
from helpers.training_jobs import FOREVER, command, end_started, make_databases, write_job

from irv2caffe.panel import Panel, Status, layout

STATUS = Status(
    0.4,
    ("iteration 120 of 300", "epoch 1.20", "loss 2.289", "lr 0.045", "79.7 images/s",
     "validation error 47.5 %, best 44.0 %"),
    "0 min 38 s left",
)  # fmt: skip


def plain_bar(share, width):
    done = int(share * width)
    return "=" * done + "-" * (width - done)


@pytest.mark.parametrize(
    ("width", "lines"),
    {
        39: ["======----------  40 %  0 min 38 s left", "iteration 120 of 300  epoch 1.20",
             "loss 2.289  lr 0.045  79.7 images/s", "validation error 47.5 %, best 44.0 %"],
        79: ["================------------------------  40 %  0 min 38 s left",
             "iteration 120 of 300  epoch 1.20  loss 2.289  lr 0.045  79.7 images/s",
             "validation error 47.5 %, best 44.0 %"],
        199: ["================------------------------  40 %  0 min 38 s left",
              "  ".join(STATUS.parts)],
    }.items(),
)  # fmt: skip
def test_lines_of_40_80_and_200_columns(width, lines):
    assert layout(STATUS, width, 20, plain_bar) == lines


def test_before_it_has_begun_there_is_no_bar():
    starting = Status(0.0, (), note="Caffe is starting")
    assert layout(starting, 79, 20, plain_bar) == ["Caffe is starting"]
    assert layout(starting, 5, 20, plain_bar) == ["Caffe"]
    assert starting.line() == ""


@pytest.mark.parametrize("height", [1, 2, 5])
def test_it_fits_any_terminal(height):
    for width in range(200):
        lines = layout(STATUS, width, height, plain_bar)
        assert 1 <= len(lines) <= height
        assert max(map(len, lines)) <= width


@pytest.mark.parametrize(("encoding", "bar"), [("utf-8", "━" * 40), ("ascii", 16 * "#" + 24 * "-")])
def test_only_changes_are_written(encoding, bar):
    stream = io.TextIOWrapper(io.BytesIO(), encoding, newline="")
    screen = Screen(80, rewraps=True)

    def written():
        data = stream.buffer.getvalue().decode()
        stream.buffer.seek(0)
        stream.buffer.truncate()
        screen.feed(data.replace("\n", "\r\n"))
        return data

    panel = Panel(stream)
    panel.show(STATUS)
    assert written()
    assert screen.rows()[0] == f"{bar}  40 %  0 min 38 s left"
    panel.show(STATUS)
    assert not written()
    panel.message("a message")
    written()
    assert screen.rows()[0] == "a message"
    assert screen.rows()[1] == f"{bar}  40 %  0 min 38 s left"
    panel.close()
    written()
    assert screen.rows() == ["a message", ""]


@pytest.fixture(scope="module")
def root(caffe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("panel")
    make_databases(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("rewraps", [True, False], ids=["rewraps", "cuts"])
def test_a_training_on_a_terminal_that_changes_its_width(root, tmp_path, rewraps):
    solver = write_job(root, tmp_path / "job", max_iter=FOREVER, test_interval=5000)
    argv = command("--solver", solver, "--run-dir", "run", "--engine", "caffe")
    env = {**os.environ, "TERM": "xterm-256color"}
    terminal = Terminal(argv, 80, rewraps=rewraps, cwd=tmp_path, env=env)
    try:
        for columns in (80, 40, 200):
            terminal.resize(columns)
            terminal.wait_for(lambda rows: is_sound(rows, terminal.screen), "the panel")
        terminal.press("\x03")
        terminal.wait_for(lambda rows: any("a second signal" in row for row in rows), "a word")
        terminal.wait_for(lambda rows: any("stopped: run" in row for row in rows), "the end")
        rows = terminal.screen.rows()
        terminal.child.wait()
    finally:
        end_started()
        terminal.close()
    assert terminal.child.returncode == 130
    words = ("Caffe trains on CPU", "run folder run, log", "stopping: waiting for the snapshot")
    assert [word for row in rows for word in words if row.startswith(word)] == list(words)
    assert "━" not in "".join(rows)
    assert "^C" not in "".join(rows)
    assert "images/s" not in "".join(rows)


def is_sound(rows, screen):
    """Whether one panel is the last thing on the screen, and is as wide as the screen allows."""
    bars = [number for number, row in enumerate(rows) if "━" in row]
    if len(bars) != 1 or "validation error" not in rows[-1]:
        return False
    panel = rows[bars[0] :]
    bar = panel[0].count("━")
    fits = bar == 40 if screen.columns > 40 else 10 <= bar < 40
    is_whole = "  ".join(panel[1:]).count("iteration ") == 1 and " left" in panel[0]
    is_packed = {80: 3 <= len(panel) <= 4, 40: 4 <= len(panel) <= 6, 200: len(panel) == 2}
    return fits and is_whole and is_packed[screen.columns] and max(map(len, panel)) < screen.columns
