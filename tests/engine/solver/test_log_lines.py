"""Lines of the engine's log, read by the reader of Caffe's logs."""

from __future__ import annotations

import io
import math

import pytest

from irv2caffe.engine.solver.log_lines import Log, dump, number, output_lines
from irv2caffe.log.read import events
from irv2caffe.log.read.parse import parse
from irv2caffe.proto import messages


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-5, "1e-05"),
        (0.000123456789, "0.000123457"),
        (69.5871234, "69.5871"),
        (4.77185e17, "4.77185e+17"),
        (math.nan, "nan"),
        (-math.nan, "-nan"),
        (-math.inf, "-inf"),
        (2.0, "2"),
    ],
)
def test_numbers_as_streams_of_c_print_them(value, text):
    assert number(value) == text


def test_the_reader_understands_a_line():
    stream = io.StringIO()
    log = Log(stream=stream)
    log.say("solver.cpp:239", "Iteration 5 (2 iter/s, 1s/5 iters), loss = 0.25")
    event = parse(stream.getvalue())
    assert isinstance(event, events.Loss)
    assert (event.iteration, event.loss) == (5, 0.25)
    assert event.time is not None


def test_only_the_first_process_writes_but_every_one_may_say_why_it_dies():
    stream = io.StringIO()
    log = Log(enabled=False, stream=stream)
    log.say("solver.cpp:239", "Iteration 5")
    assert stream.getvalue() == ""
    log.fatal("net.py:1", "no")
    assert isinstance(parse(stream.getvalue()), events.Fatal)


def test_values_of_an_output_are_numbered_on():
    lines = [*output_lines("Test", [("acc", 0, [0.5, 1.0]), ("loss", 2, [0.25])])]
    assert lines == [
        "    Test net output #0: acc = 0.5",
        "    Test net output #1: acc = 1",
        "    Test net output #2: loss = 0.25 (* 2 = 0.5 loss)",
    ]


def test_whole_floats_are_dumped_without_a_fraction():
    param = messages.SolverParameter(clip_gradients=1, base_lr=0.5, test_iter=[3], net="1.0")
    assert dump(param) == 'test_iter: 3\nbase_lr: 0.5\nnet: "1.0"\nclip_gradients: 1'
