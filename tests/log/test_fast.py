"""Many lines at once say the same as line by line, whatever the lines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from helpers.paths import FILES
from hypothesis import example, given, settings
from hypothesis import strategies as st

from irv2caffe.log.read.fast import blocks
from irv2caffe.log.read.reader import Reader

if TYPE_CHECKING:
    import random

LOGS = FILES / "logs"


def stamp(second, thread="18399", date="1123"):
    return f"I{date} 10:{second // 60 % 60:02d}:{second % 60:02d}.719563 {thread:>5} "


def display(second, iteration, loss, lr="0.045", outputs=("loss",), date="1123"):
    """One display as Caffe 1.0 prints it."""
    at = stamp(second, date=date)
    lines = [f"{at}solver.cpp:239] Iteration {iteration} (1.5 iter/s, 2s/3 iters), loss = {loss}"]
    for index, name in enumerate(outputs):
        tail = f" (* 1 = {loss} loss)" if "loss" in name else ""
        lines.append(f"{at}solver.cpp:258]     Train net output #{index}: {name} = {loss}{tail}")
    return [*lines, f"{at}sgd_solver.cpp:112] Iteration {iteration}, lr = {lr}"]


def run_of(count, **options):
    return [
        line for i in range(count) for line in display(i, 5 * i, f"{7 - i / 100:.6g}", **options)
    ]


def state(reader):
    """All that a reader knows."""
    log = reader.log
    values = {name: value for name, value in vars(log).items() if name not in {"train", "outputs"}}
    values["train"] = [
        list(map(repr, getattr(log.train, name)))
        for name in ("iteration", "loss", "lr", "time_us", "step_us")
    ]
    values["outputs"] = {
        name: (list(series.iteration), list(map(repr, series.values())))
        for name, series in log.outputs.items()
    }
    values["clips"] = (list(log.clips.iteration), list(map(repr, log.clips.norm)))
    values["test"] = [repr(point) for point in log.test]
    clock = reader.builder.clock
    return (
        values,
        (clock.now_us, clock.year, clock.position_us, clock.last, clock.first),
        reader.root,
    )


def both_ways(data, sizes=(1 << 30,)):
    """State after reading line by line, and after reading pieces of these sizes at once."""
    slow = Reader()
    *lines, rest = data.split(b"\n")
    for line in lines:
        slow.feed_line(line)
    if rest:
        slow.feed_line(rest)
    slow.finish()
    fast = Reader()
    place, number = 0, 0
    while place < len(data):
        size = sizes[number % len(sizes)]
        fast.feed_bytes(data[place : place + size])
        place, number = place + size, number + 1
    fast.finish()
    return state(slow), state(fast)


@pytest.fixture(autouse=True)
def _always_at_once(monkeypatch):
    monkeypatch.setattr("irv2caffe.log.read.reader._MIN_BLOCK_BYTES", 1)
    monkeypatch.setattr(blocks, "MIN_RUN", 2)


def test_a_usual_log_is_read_at_once(monkeypatch):
    """The fast way is taken, not the slow one in disguise."""
    slow_lines = []
    feed_line = Reader.feed_line
    monkeypatch.setattr(
        Reader, "feed_line", lambda self, line: slow_lines.append(line) or feed_line(self, line)
    )
    for options in ({}, {"date": "20261123"}, {"outputs": ("loss1/loss", "acc/top-1", "a b")}):
        slow_lines.clear()
        reader = Reader()
        reader.feed_bytes("".join(f"{line}\n" for line in run_of(500, **options)).encode())
        assert len(reader.log.train) == 500
        assert len(slow_lines) < 60


SPECIAL = [
    "",
    "Premature end of JPEG file",
    stamp(99) + "solver.cpp:347] Iteration 700, Testing net (#0)",
    stamp(99) + "solver.cpp:414]     Test net output #0: accuracy = 0.5",
    stamp(99) + "blocking_queue.cpp:49] Waiting for data",
    stamp(99, "18405") + "sgd_solver.cpp:99] Gradient clipping: scaling down gradients"
    " (L2 norm 3165.51 > 1) by scale factor 0.000315905",
    stamp(99) + "sgd_solver.cpp:99] Gradient clipping: scaling down gradients"
    " (L2 norm 3165.51 > 1) by scale factor 0.000315905",
    stamp(99, "7") + "solver.cpp:239] Iteration 600, loss = 3",
    stamp(3) + "solver.cpp:239] Iteration 3, loss = 3",
    stamp(99) + "solver.cpp:239] Iteration 99999, loss = nan",
    stamp(99) + "solver.cpp:239] Iteration 99999, loss = -1e-05",
    stamp(99) + "solver.cpp:239] Iteration 99999, loss = 1.2.3",
    stamp(99) + "solver.cpp:239] Iteration 99999, loss = 5.",
    stamp(99) + "solver.cpp:239] Iteration 99999, loss = .5",
    stamp(99) + "solver.cpp:239] Iteration 99999, loss = ",
    stamp(99) + "solver.cpp:239] Iteration 99999, loss = 123456789012345678901234567890",
    *(
        stamp(99) + f"solver.cpp:239] Iteration {iteration}, loss = {loss}"
        for iteration, loss in (
            ("12345678", "12345678"),
            ("123456789", "123456789"),
            ("123456789012", "0.000123457"),
            ("999999999999999999", "0.00001234567890123456"),
            ("9999999999999999999", "3"),
            ("00012345678", "00.50"),
            ("99999", "+3"),
            ("99999", "-0"),
            ("99999", "3-"),
            ("99999", "1.5e3"),
            ("99999", "."),
            ("99999", "-"),
            ("99999", "1.#IND"),
            ("99999", "12345.678"),
            ("99999", "1234.5.78"),
        )
    ),
    stamp(99) + "solver.cpp:239] Iteration 99999 (a) (b), loss = 3",
    stamp(99) + "solver.cpp:239] Iteration 99999, 1.2/90ep, loss = 3",
    stamp(99) + "solver.cpp:239] Iteration , loss = 3",
    stamp(99) + "solver.cpp:239] Iteration 7, lr = 0.5",
    stamp(99) + "sgd_solver.cpp:112] Iteration 5, lr = 0.2, m = 0.9",
    stamp(99) + "solver.cpp:258]     Train net output #0: a = b = 3",
    stamp(99) + "solver.cpp:258]     Train net output #0: a (* b = 3 (* 1 = 3 loss)",
    stamp(99) + "solver.cpp:258]     Train net output #0:  = 3",
    stamp(99) + "solver.cpp:258]     Train net output #0: loss = 3 (* 1 = 3 loss",
    stamp(99) + "solver.cpp:258]     Train net output #0: loss = 3 (* 1 = 3 loss)",
    stamp(99) + "solver.cpp:258]     Train net output #1: p\u00e4ng = 3",
    stamp(99) + "solver.cpp:2 9] Iteration 99999, loss = 3",
    stamp(99)
    + "solver.cpp:239] Iteration 1"
    + stamp(99)
    + "solver.cpp:239] Iteration 888, loss = 3",
    stamp(99) + "net.cpp:600]     [Forward] Layer ip, top blob ip data: 0.1",
    stamp(99) + "net.cpp:600] [Forward] Layer ip] x, top blob ip data: 0.1",
    stamp(99) + "x.cpp:1] a] b",
    stamp(99).replace("I", "W") + "x.cpp:1] odd",
    stamp(99).replace("1123", "0229") + "solver.cpp:239] Iteration 99999, loss = 3",
    stamp(99).replace("1123", "1399") + "solver.cpp:239] Iteration 99999, loss = 3",
    stamp(99).replace("1123", "0101") + "solver.cpp:239] Iteration 99999, loss = 3",
    stamp(99, date="20281123") + "solver.cpp:239] Iteration 99999, loss = 3",
    stamp(99) + "solver.cpp:44] Initializing solver from parameters: ",
    "base_lr: 0.1",
    stamp(99) + "solver.cpp:239] Iteration 99999, loss = 3\r",
    stamp(99) + "solver.cpp:239] Iteration 99999, loss = 3\0",
    stamp(99) + "solver.cpp:239] Iteration 99999, loss = 3 ",
    "\ufeff" + stamp(99) + "solver.cpp:239] Iteration 99999, loss = 3",
    stamp(99) + "solver.cpp:258]     Train net output #2: loss = 4 (* 0.5 = 2 loss)",
    stamp(99) + "solver.cpp:258]     Train net output #1: other = 4 (* 0.5 = 2 loss)",
    stamp(99) + "solver.cpp:258]     Train net output #1: el\x1b[0mse = 4",
    stamp(99) + "solver.cpp:258]     Train net output #1: x\x1by = 4 (* 0.5 = 2 loss)",
    stamp(99) + "solver.cpp:239] \x1b[32mIteration 99999, loss = 3\x1b[0m",
    "\x1b[32m" + stamp(99) + "solver.cpp:239] Iteration 99999, loss = 3\x1b[0m",
    stamp(99) + "solver.cpp:239] Iteration 99999, loss = 3<br>",
    stamp(99) + "solver.cpp:258]     Train net output #1: loss_b = 3 (\\* 1 = 3 loss)",
    '{"log":"' + stamp(99) + 'solver.cpp:239] Iteration 99999, loss = 3\\n","stream":"stderr"}',
    "> " + stamp(99) + "solver.cpp:239] Iteration 99999, loss = 3",
    "solver.cpp:239] Iteration 99999, loss = 3",
    stamp(99)[1:] + "solver.cpp:239] Iteration 99999, loss = 3",
    stamp(99) + "solver.cpp:239] Iteration 99999, loss = 3, remaining 2 hours",
    stamp(99) + "solver.cpp:239] class3: 0.5",
    ">>> 2017-05-06 10:11:12.345678 Iteration 99999 mean IU 0.5",
    stamp(99) + f"solver.cpp:258]     Train net output #1: {'n' * 300} = 4",
    stamp(99) + f"solver.cpp:258]     Train net output #1: {'n' * 300}m = 5 (* 1 = 5 loss)",
    stamp(99) + "C:\\my caffe\\solver.cpp:239] Iteration 99999, loss = 3",
]


def test_outputs_of_several_elements():
    """Whatever the pieces, an element is told from the next display's."""
    several = run_of(60, outputs=("acc", "acc", "loss", "acc"))
    for lines in (several, run_of(30) + several, several + run_of(90)[100:]):
        data = "\n".join(lines).encode() + b"\n"
        for size in (1 << 30, 5000, 777):
            slow, fast = both_ways(data, (size,))
            assert slow == fast


@pytest.mark.parametrize("special", SPECIAL)
def test_a_special_line_among_usual_ones(special):
    lines = run_of(60)
    for place in (0, 31, 32, 100, 120, 180):
        data = "\n".join([*lines[:place], special, *lines[place:]]).encode() + b"\n"
        slow, fast = both_ways(data)
        assert slow == fast


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from(SPECIAL)), max_size=12),
    st.lists(st.integers(40, 5000), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_any_mixture(specials, sizes, chance: random.Random):
    lines = run_of(60)
    for place, special in specials:
        lines.insert(min(place, len(lines)), special)
    if chance.random() < 0.3:
        place = chance.randrange(len(lines))
        lines[place] = lines[place][: chance.randrange(len(lines[place]) + 1)]
    data = bytearray("\n".join(lines).encode())
    for _ in range(chance.randrange(4)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    slow, fast = both_ways(bytes(data), sizes)
    assert slow == fast


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000))
@example(b"I1123 10:58:00.719563 18399 solver.cpp:239] Iteration ")
def test_any_bytes(soup):
    data = "\n".join(run_of(20)).encode() + b"\n" + soup + b"\n" + "\n".join(run_of(40)).encode()
    slow, fast = both_ways(data)
    assert slow == fast


@pytest.mark.parametrize("name", [path.name for path in LOGS.glob("*.log")])
def test_real_logs(name):
    """Which begin with the text of nets and what Caffe says of each layer."""
    data = (LOGS / name).read_bytes()
    for sizes in ((1 << 30,), (4096,), (333, 7000)):
        slow, fast = both_ways(data, sizes)
        assert slow == fast
    slow, fast = both_ways(data.replace(b"\n", b"\r\n"))
    assert slow == fast


def test_a_start_is_read_at_once(monkeypatch):
    slow_lines = []
    feed_line = Reader.feed_line
    monkeypatch.setattr(
        Reader, "feed_line", lambda self, line: slow_lines.append(line) or feed_line(self, line)
    )
    text = ["layer {", '  name: "conv"', "  convolution_param {", "    num_output: 3", "  }", "}"]
    lines = [
        stamp(0) + "net.cpp:51] Initializing net from parameters: ",
        *text * 500,
        *[stamp(0) + "net.cpp:84] Creating Layer conv"] * 500,
    ]
    reader = Reader()
    reader.feed_bytes("".join(f"{line}\n" for line in lines).encode())
    assert len(slow_lines) < 10
    reader.finish()
    assert reader.log.nets[0].num_layers == 500
    assert reader.log.num_lines == 3501


START = [
    "",
    "layer {",
    '  name: "a] b"',
    '  name: "\u00e4"',
    "  batch_size: 7",
    "}  ",
    "# no line of a text",
    "x: 1<br>",
    "x: 1\r",
    "> layer {",
    "caffe_1 | layer {",
    "caffe_1 | " + stamp(2) + "net.cpp:51] Initializing net from parameters: ",
    "\x1b[0mx: 1",
    "y: " + "z" * 70_000,
    stamp(1) + "net.cpp:84] Creating Layer conv",
    stamp(1, "7") + "net.cpp:84] Creating Layer conv",
    stamp(1) + "net.cpp:409]     with loss weight 1",
    stamp(1) + "solver.cpp:44] Initializing solver from parameters: ",
    stamp(1) + "net.cpp:51] Initializing net from parameters: ",
    stamp(1) + "net.cpp:52] ",
    stamp(1) + "solver.cpp:239] Iteration 5, loss = 3",
    *(stamp(1) + f"solver.cpp:239] Iteration {iteration}, loss = 3" for iteration in (10, 20)),
]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(START), st.integers(1, 30)), max_size=30),
    st.lists(st.integers(40, 5000), min_size=1, max_size=4),
)
def test_any_start(lines, sizes):
    text = [line for line, count in lines for _ in range(count)]
    slow, fast = both_ways("\n".join([*text, *run_of(20), *text]).encode(), sizes)
    assert slow == fast


@pytest.mark.parametrize("name", [path.name for path in LOGS.glob("*.log")])
def test_the_reader_works_the_same_without_it(name, monkeypatch):
    fast = Reader()
    fast.read_file(LOGS / name)
    monkeypatch.setattr("irv2caffe.log.read.reader._MIN_BLOCK_BYTES", 1 << 60)
    monkeypatch.setitem(sys.modules, "irv2caffe.log.read.fast.blocks", None)
    without = Reader()
    without.read_file(LOGS / name)
    assert state(without) == state(fast)
