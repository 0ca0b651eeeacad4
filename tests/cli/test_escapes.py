"""Names that come from strangers reach the terminal without their control characters."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import cv2
import lmdb
import numpy as np
import pytest

from irv2caffe import ui
from irv2caffe.proto.messages import Datum

# Sets the terminal's title, turns it red, and reverses what follows.
HOSTILE = "\x1b]0;title\x07\x1b[31m\u202egnp"
RAW = ("\x1b", "\x07", "\x9b", "\u202e")
NET = r"""
name: "n\033]0;title\007"
layer { name: "d\033[31m" type: "Input" top: "d\033[31m"
  input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "c\033[31m" type: "Convolution" bottom: "d\033[31m" top: "c"
  convolution_param { num_output: 2 kernel_size: 3 } }
"""
LOG = f"""I1126 10:00:00.000000 1 solver.cpp:1] Iteration 0, loss = 7
I1126 10:00:00.000000 1 solver.cpp:1] Iteration 0, Testing net (#0)
I1126 10:00:01.000000 1 solver.cpp:1]     Test net output #0: a{HOSTILE} = 0.5
F1126 10:00:02.000000 1 net.cpp:1] Check failed: {HOSTILE}
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    (folder / "net.prototxt").write_text(NET)
    (folder / "broken.prototxt").write_text("name: \x1b[31m")
    (folder / "unknown.prototxt").write_text(NET.replace("num_output: 2", r"engine: 'q\033[31m'"))
    (folder / "train.log").write_text(LOG)
    (folder / "recipe.toml").write_text('[net]\n"\\u001b[31m" = 1\n')
    header = json.dumps(
        {"a" + HOSTILE: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    ).encode()
    (folder / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    run = folder / "run"
    run.mkdir()
    (run / "solver.prototxt").write_text('net: "net.prototxt"')
    (run / "state.json").write_text(
        json.dumps({"progress": HOSTILE, "phase": HOSTILE, "snapshot": HOSTILE})
    )
    (run / "config.json").write_text(
        json.dumps({"irv2caffe": "1", "ending": HOSTILE, "why": HOSTILE})
    )
    for name in ("a" + HOSTILE, "b"):
        (folder / "images" / name).mkdir(parents=True)
        image = np.zeros((9, 9, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / name / "1.png"), image)
    (folder / "images/b" / f"x{HOSTILE}.png").write_bytes(b"no picture")
    with lmdb.open(str(folder / "db"), map_size=1 << 22) as env, env.begin(write=True) as records:
        datum = Datum(channels=3, height=2, width=2, data=bytes(12), label=0)
        records.put(b"0" + HOSTILE.encode(), datum.SerializeToString())
        records.put(b"1" + HOSTILE.encode(), b"\xff\xff")
    (folder / "db/labels.txt").write_text(HOSTILE + "\n")
    return folder


COMMANDS = {
    "a net": ["summary", "net.prototxt"],
    "layers": ["summary", "net.prototxt", "--layers"],
    "check": ["check", "net.prototxt"],
    "a syntax error": ["check", "broken.prototxt"],
    "an unknown field": ["summary", "unknown.prototxt"],
    "a file that is missing": ["summary", "x" + HOSTILE],
    "records": ["inspect-lmdb", "db"],
    "class names": ["inspect-lmdb", "db", "--classes"],
    "class folders": ["make-lmdb", "images", "out", "--resize", "8"],
    "a missing database": ["build-net", "--out", "n", "--train-lmdb", "x" + HOSTILE],
    "a run": ["train", "--status", "run"],
    "a log": ["plot-log", "train.log"],
    "a log as JSON": ["plot-log", "train.log", "--json"],
    "a recipe": ["build-net", "--recipe", "recipe.toml", "--out", "n"],
    "weights": [
        "import-weights",
        "w.safetensors",
        "--net",
        "net.prototxt",
        "--out",
        "o.caffemodel",
    ],
    "an option": ["summary", "net.prototxt", "--draw", "x" + HOSTILE],
    "a number": ["make-lmdb", "images", "out2", "--seed", HOSTILE],
    "a traceback": ["--traceback", "summary", "x" + HOSTILE],
    "a program": ["caffe", "--tool", "x" + HOSTILE],
}
QUIET = {"check", "class folders", "a syntax error", "an unknown field"}  # they name nothing of it


@pytest.mark.slow
@pytest.mark.parametrize("case", COMMANDS)
def test_no_control_character_reaches_the_terminal(caffe, desk, case):
    command = [sys.executable, "-m", "irv2caffe", *COMMANDS[case]]
    done = subprocess.run(command, cwd=desk, capture_output=True, check=False, timeout=300)
    text = (done.stdout + done.stderr).decode()
    assert not [char for char in RAW if char in text]
    if case not in QUIET:  # shown, not swallowed
        assert any(escape in text for escape in ("\\x1b", "\\u001b", "\\u202e"))


def test_what_is_shown_of_text():
    assert ui.printable("a\x1b[1m\x00\x7f\x9b\r\u2028\u202e\u2066b") == (
        "a\\x1b[1m\\x00\\x7f\\x9b\\r\\u2028\\u202e\\u2066b"
    )
    plain = "two lines\n\tof plain text: é 漢字 → 100 %"
    assert ui.printable(plain) == plain
