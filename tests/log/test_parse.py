"""Reading lines: every variant that any Caffe writes, and any soup of bytes."""

from __future__ import annotations

import json
import math
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irv2caffe.log.describe import finding_lines
from irv2caffe.log.read import events
from irv2caffe.log.read.parse import parse, split_prefix
from irv2caffe.log.read.reader import Reader, read_lines
from irv2caffe.log.summary import summarize
from irv2caffe.log.table import Table, make_table

STAMP = "I1124 01:02:03.500000  4242 solver.cpp:239] "
TIME = events.LogTime(None, 11, 24, 3_723_500_000)
AT = (TIME, 4242)

# Message, event. Beside BVLC's of 1.0: v0.9 to rc5, NVCaffe 0.12 to 0.17, Intel's.
LINES = [
    ("Iteration 20, loss = 6.9", events.Loss(*AT, 20, 6.9)),
    ("Iteration 20 (-1.70479e+17 iter/s, 0s/10 iters), loss = 1e-05", events.Loss(*AT, 20, 1e-5)),
    ("Iteration 0 (-nan(ind) iter/s, 0s/10 iters), loss = 7.5", events.Loss(*AT, 0, 7.5)),
    ("Iteration 100 (0.41 iter/s, 2.4s/100 iter), loss = 10.4141", events.Loss(*AT, 100, 10.4141)),
    ("Iteration 0 (3.20117 s), loss = 7.50393", events.Loss(*AT, 0, 7.50393)),
    (
        "Iteration 9 (2 iter/s, 1s/2 iter), 1.2/90ep, loss = 5.1",
        events.Loss(*AT, 9, 5.1, 1.2, 90.0),
    ),
    ("    [0.0]  Iteration 9 (2 iter/s, 1s/2 iter), loss = 5.1", events.Loss(*AT, 9, 5.1)),
    ("[0] Iteration 9, loss = 5.1", events.Loss(*AT, 9, 5.1)),
    (
        "    Train net output #0: loss = 87.3365 (* 1 = 87.3365 loss)",
        events.Output(*AT, False, 0, "loss", 87.3365, 1.0),
    ),
    (
        "[0.0]     Train net output #0: loss = 8 (* 0.3 = 2.4 loss)",
        events.Output(*AT, False, 0, "loss", 8.0, 0.3),
    ),
    ("    Test net output #1: loss3/top-5 = 0.9", events.Output(*AT, True, 1, "loss3/top-5", 0.9)),
    ("    Test net output #1: a = b = 0.9", events.Output(*AT, True, 1, "a = b", 0.9)),
    ("(0.1)     Test net output #0: acc = 0.9", events.Output(*AT, True, 0, "acc", 0.9)),
    ("    Test net output mAP #0: mbox = 0.7", events.Output(*AT, True, 0, "mbox", 0.7)),
    (
        "Iteration 60 (0.1 iter/s, 6s/100 iter), loss = 3.4, remaining 212 hours and 14 minutes",
        events.Loss(*AT, 60, 3.4),
    ),
    ("Test score #0: 0.5", events.Output(*AT, True, 0, "score 0", 0.5)),
    ("Test loss: 2.5", events.Output(*AT, True, -1, "test loss", 2.5)),
    ("Iteration 5, lr = 0.045", events.LearningRate(*AT, 5, 0.045)),
    ("Iteration 5 (241.076/s), lr = 0.045", events.LearningRate(*AT, 5, 0.045)),
    ("Iteration 5, lr = 0.2, m = 0.9", events.LearningRate(*AT, 5, 0.2)),
    (
        "[0.0] Iteration 5, lr = 0.2, m = 0.9, lrm = 1, wd = 0.0004, gs = 1",
        events.LearningRate(*AT, 5, 0.2),
    ),
    ("Iteration 40, Testing net (#1)", events.TestStart(*AT, 40, 1)),
    ("Iteration 40, Testing net", events.TestStart(*AT, 40, 0)),
    (
        "Snapshotting to binary proto file a b/s_iter_10.caffemodel",
        events.Snapshot(*AT, "a b/s_iter_10.caffemodel", False),
    ),
    ("Snapshotting to s_iter_10", events.Snapshot(*AT, "s_iter_10", False)),
    ("Snapshotting solver state to HDF5 file s.h5", events.Snapshot(*AT, "s.h5", True)),
    ("Solving ", events.Solving(*AT, "")),
    ("[0.0] Solving Resnet50 Learning Rate Policy: poly", events.Solving(*AT, "Resnet50")),
    ("Initializing solver from parameters: ", events.SolverDump(*AT)),
    ("Initializing net from parameters: ", events.NetDump(*AT)),
    ("Using GPUs 0, 1", events.Devices(*AT, (0, 1))),
    ("Training with 3 processes", events.Processes(*AT, 3)),
    ("Use CPU.", events.Devices(*AT, ())),
    ("Use GPU with device ID 3", events.Devices(*AT, (3,))),
    ("GPU 0: Tesla K80", events.DeviceName(*AT, 0, "Tesla K80")),
    ("output data size: 16,3,299,299", events.DataShape(*AT, 16)),
    ("Resuming from s_iter_10.solverstate", events.Resuming(*AT, "s_iter_10.solverstate")),
    ("Restoring previous solver status from s", events.Resuming(*AT, "s")),
    ("Finetuning from a.caffemodel", events.Finetuning(*AT, "a.caffemodel")),
    (
        "Gradient clipping: scaling down gradients (L2 norm 3165.51 > 1) by scale factor 0.0003159",
        events.Clip(*AT, 3165.51, 1.0),
    ),
    ("Optimization stopped early.", events.StoppedEarly(*AT)),
    ("Optimization Done.", events.Done(*AT)),
    ("Optimization Done in 2h 8m 22s", events.Done(*AT)),
    ("[MultiGPU] Tests completed in 24.4292s", events.Fork(*AT, "NVCaffe")),
    (
        "Root Solver performance on device 0: 16.47 * 128 = 2108 img/sec",
        events.Fork(*AT, "NVCaffe"),
    ),
    ("iter 3, forward_backward_update_time: 12.5 ms", events.Fork(*AT, "Intel Caffe")),
    (
        "Batch size must be divisible by the number of solvers (GPUs): adjusted from 30 to 32",
        events.Fork(*AT, "NVCaffe"),
    ),
    ("Waiting for data", events.Waiting(*AT)),
    ("Data layer prefetch queue empty", events.Waiting(*AT)),
    ("Waiting for data: 3.2 s of 10.4 s", events.Waiting(*AT, 3.2)),
    ("Waiting for datasets", None),
    ("MultiStep Status: Iteration 5, step = 1", None),
    ("Restarting data prefetching from start.", None),
    ("    [Forward] Layer ip, top blob ip data: 0.1", None),
    ("Iteration 5, loss = ", None),
    ("Iteration 5, loss = 1.2.3", None),
    ("Iteration 5 loss = 1", None),
    ("Iteration 99999999999999999999, loss = 1", None),
    ("    Train net output #0: loss = ", None),
    ("    Train net output #0:  = 1", None),
    ("", None),
]


@pytest.mark.parametrize(("message", "event"), LINES)
def test_lines(message, event):
    assert parse(STAMP + message) == event
    assert parse(STAMP + message + "\r\n") == event


@pytest.mark.parametrize(("message", "event"), LINES)
def test_lines_without_prefix(message, event):
    """GLOG_log_prefix=false, and logs copied from a page of DIGITS."""
    if event is not None:
        fields = {name: getattr(event, name) for name in event.__dataclass_fields__}
        event = type(event)(**{**fields, "time": None, "thread": None})
    assert parse(message) == event


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (  # glog's eight-digit dates; NULs, as holes in a file leave them
            "\0\0I20251231 23:59:59.000000 1 solver.cpp:1] Iteration 1, lr = 1\0",
            events.LearningRate(events.LogTime(2025, 12, 31, 86_399_000_000), 1, 1, 1.0),
        ),
        (  # two writers tore a line: its last message is whole
            "I1124 01:02:03.500000  4242 solver.cpp:239] Iteration 2"
            + STAMP
            + "Iteration 3, lr = 1",
            events.LearningRate(*AT, 3, 1.0),
        ),
        (  # stamps of containers and schedulers
            "2026-11-24T01:02:03Z " + STAMP + "Iteration 3, lr = 1",
            events.LearningRate(*AT, 3, 1.0),
        ),
        (
            "F1124 01:02:03.5  4242 x.cpp:1] Check failed: a == b (1 vs. 2)",
            events.Fatal(*AT, "Check failed: a == b (1 vs. 2)"),
        ),
        (
            "terminate called after throwing an instance of 'boost::bad_lexical_cast'",
            events.Fatal(
                None,
                None,
                "terminate called after throwing an instance of 'boost::bad_lexical_cast'",
            ),
        ),
        (
            "*** SIGTERM (@0x3e8) received by PID 17 (TID 0x7f) from PID 1; stack trace: ***",
            events.Killed(None, None, "SIGTERM"),
        ),
        ("W1124 01:02:03.5  4242 x.cpp:1] odd", events.Warned(*AT, "odd")),
        ("Log file created at: 2026/11/23 11:03:32", events.FileHeader(None, None, 2026, 11)),
        ("I1124 01:02:03.500000 4242 solver cpp:239] Iteration 3, lr = 1", None),
    ],
)
def test_whole_lines(line, event):
    assert parse(line) == event


@pytest.mark.parametrize(
    "text", ["nan", "-nan", "NaN", "1.#QNAN", "-1.#IND", "nan(ind)", "1.#IND00"]
)
def test_not_a_number(text):
    assert math.isnan(parse(f"{STAMP}Iteration 3, loss = {text}").loss)
    assert math.isnan(
        parse(f"{STAMP}    Train net output #0: a = {text} (* 1 = {text} loss)").value
    )


@pytest.mark.parametrize("text", ["inf", "-inf", "1.#INF", "-1.#INF"])
def test_infinity(text):
    loss = parse(f"{STAMP}Iteration 3, loss = {text}").loss
    assert math.isinf(loss)
    assert (loss < 0) == text.startswith("-")


def stamped(second, message, thread=4242, date="1124"):
    clock = f"01:{second // 60:02d}:{second % 60:02d}.500000"
    return f"I{date} {clock} {thread:>5} solver.cpp:1] {message}"


def test_scores_of_scripts():
    """The script beside FCN prints them of all images, after so many iterations."""
    lines = []
    for iteration in (0, 4000):
        lines += [
            stamped(0, f"Iteration {iteration}, loss = 9"),
            f">>> 2017-05-06 10:11:12.345678 Iteration {iteration + 4000} loss 5.5",
            f">>> 2017-05-06 10:11:12 Iteration {iteration + 4000} overall accuracy 0.75",
            f">>> 2017-05-06 10:11:12.345678 Iteration {iteration + 4000} mean IU 0.{iteration}1",
            ">>> 2017-05-06 10:11:12.345678 Begin seg tests",
        ]
    log = read_lines(lines)
    assert [(test.iteration, test.outputs) for test in log.test] == [
        (4000, {"loss": 5.5, "overall accuracy": 0.75, "mean IU": 0.01}),
        (8000, {"loss": 5.5, "overall accuracy": 0.75, "mean IU": 0.40001}),
    ]
    assert list(log.train.iteration) == [0, 4000]
    assert make_table(log).test[0].top1_error is None


def test_scores_of_classes():
    lines = [
        stamped(0, "Iteration 5, Testing net (#0)"),
        stamped(1, "class1: 0.5"),
        stamped(1, "class2: 0.25"),
        stamped(1, "    Test net output #0: detection_eval = 0.375"),
        stamped(2, "Iteration 5, loss = 1"),
        "class1: 7",  # a script's
    ]
    log = read_lines(lines)
    assert log.test[0].outputs == {"class1": 0.5, "class2": 0.25, "detection_eval": 0.375}


LOSS_LINE = stamped(7, "Iteration 5, loss = 2.5")
OUTPUT_LINE = stamped(7, "    Test net output #1: a/loss_1 = 3 (* 0.5 = 1.5 loss)")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda line: f"\x1b[32m{line}\x1b[0m",
        lambda line: f"\x1b]0;title\x07\x1b[1;32m{line}\x1b[K",
        lambda line: line.replace("] ", "] \x1b[32m") + "\x1b[0m",
        lambda line: line.replace("] ", "] [32m") + "[0m",
        lambda line: line.replace("] ", "] ^[[0;32m") + "^[[m",
        lambda line: line.replace("] ", r"] \033[32m") + r"\033[0m",
        lambda line: f"{line}<br>",
        lambda line: f"{line} <br /></p>\r\n",
        lambda line: line.replace("  ", " &nbsp;") + "<br>",
        lambda line: line.replace(" ", "\u00a0"),
        lambda line: f'<pre><code class="c">{line}',
        lambda line: line.replace("=", "&#61;"),
        lambda line: f"> {line}",
        lambda line: f"> > {line}",
        lambda line: line.replace("*", r"\*").replace("_", r"\_").replace("#", r"\#"),
        lambda line: line.replace("#1", "BVLC/caffe#1"),
        lambda line: line.replace("#1", "#1 <https://github.com/BVLC/caffe/issues/1>"),
        lambda line: json.dumps({"log": f"{line}\n", "stream": "stderr", "time": "2020-01-01T0"}),
        lambda line: json.dumps({"time": "2020", "level": "info", "message": f"\x1b[2m{line}"}),
        lambda line: f"   {json.dumps(line + chr(10))},",  # a notebook's
        lambda line: f"2020-01-02T03:04:05.678901Z stderr F {line}",
        lambda line: f"caffe_1  | {line}",
        lambda line: f"[1,0]<stderr>:{line}",
        lambda line: " ".join(line.split()),  # blanks lost
        lambda line: line[1:],  # the first column lost
        lambda line: line.replace("solver.cpp", r"C:\My Projects\caffe\src\caffe\solver.cpp"),
    ],
)
def test_lines_that_were_wrapped_or_pasted(wrap):
    time, thread, *_ = split_prefix(LOSS_LINE)
    assert parse(wrap(LOSS_LINE)) == events.Loss(time, thread, 5, 2.5)
    assert parse(wrap(OUTPUT_LINE)) == events.Output(time, thread, True, 1, "a/loss_1", 3.0, 0.5)


@pytest.mark.parametrize("cut", ["solver.cpp:9] ", "4242 solver.cpp:9] ", "05.12 1 src/a.cu:9] "])
def test_lines_whose_prefix_was_cut(cut):
    assert parse(f"{cut}Iteration 5, loss = 2.5") == events.Loss(None, None, 5, 2.5)
    assert parse(f"{cut}    Test net output #0: acc = 1") == events.Output(
        None, None, True, 0, "acc", 1.0
    )


@pytest.mark.parametrize(
    "line",
    [
        r"Snapshotting to binary proto file D:\new\_iter_5.caffemodel",
        "Snapshotting to binary proto file /a&amp;b/[0m_iter_5.caffemodel",
    ],
)
def test_what_may_be_part_of_a_message_stays(line):
    event = parse(stamped(0, line))
    assert isinstance(event, events.Snapshot)
    assert event.path == line.removeprefix("Snapshotting to binary proto file ")


DUMP = (
    "state {",
    "  phase: TRAIN",
    "}",
    "layer {",
    "  data_param {",
    "    batch_size: 32",
    "  }",
    "}",
)


@pytest.mark.parametrize(
    "lead", ["> ", "caffe_1  | ", "2020-01-02T03:04:05.{}Z stderr F ", "[0] ", "[1,0]<stderr>:"]
)
def test_dumps_that_were_wrapped(lead):
    lines = [
        stamped(0, "Initializing net from parameters: "),
        *DUMP,
        stamped(1, "Iteration 0, loss = 7"),
    ]
    wrapped = [lead.format(10**number) + line for number, line in enumerate(lines)]
    assert make_table(read_lines(wrapped)).images_per_iteration == 32


def test_processes_of_the_torch_engine_count_as_gpus_do():
    lines = [stamped(0, "Use CPU."), stamped(0, "Training with 3 processes"), *DUMP]
    lines[2:2] = [stamped(0, "Initializing net from parameters: ")]
    lines.append(stamped(1, "Iteration 0, loss = 7"))
    assert make_table(read_lines(lines)).images_per_iteration == 3 * 32
    assert read_lines([*lines[:2], stamped(9, "Use CPU.")]).num_gpus == 1  # a start alone


def test_utf16_and_byte_order_marks():
    """PowerShell writes what it redirects as UTF-16."""
    text = "\ufeff" + "".join(stamped(i, f"Iteration {i}, loss = {i}") + "\r\n" for i in range(5))
    for encoding in ("utf-16-le", "utf-8"):
        reader = Reader()
        reader.feed_bytes(text.encode(encoding))
        reader.finish()
        assert [point.loss for point in reader.log.train] == [0, 1, 2, 3, 4]
        assert reader.log.num_unknown == 0


def test_learning_rate_before_the_loss():
    """As the first Caffes wrote it."""
    lines = [
        line
        for i in (0, 20, 40)
        for line in (
            stamped(i, f"Iteration {i}, lr = 0.{i + 1}"),
            stamped(i, f"Iteration {i}, loss = 6"),
        )
    ]
    assert [point.lr for point in read_lines(lines).train] == [0.1, 0.21, 0.41]


def test_scores_without_names():
    lines = [
        stamped(0, "Iteration 0, Testing net"),
        stamped(1, "Test score #0: 0.25"),
        stamped(1, "Test score #1: 1.5"),
        stamped(2, "Iteration 0, loss = 1"),
    ]
    row = make_table(read_lines(lines)).test[0]
    assert (row.top1_error, row.top5_error) == (75.0, None)
    assert row.outputs == {"score 0": 0.25, "score 1": 1.5}


def test_other_threads_do_not_count():
    """Eight GPUs of NVCaffe: eight threads say Solving, one displays; prefetchers print between."""
    lines = [stamped(0, "Solving Resnet50", 173 + i) for i in range(8)]
    lines += [stamped(0, f"Starting Optimization on GPU {i}", 173 + i) for i in range(8)]
    for i in range(0, 100, 10):
        lines += [
            stamped(i, f"Iteration {i} (5 iter/s, 2s/10 iter), loss = {9 - i / 100}", 176),
            stamped(
                i, f"Gradient clipping: scaling down gradients (L2 norm {i} > 1) by scale x", 173
            ),
            stamped(i, "    Train net output #0: loss = 5 (* 1 = 5 loss)", 176),
            stamped(i, "Restarting data prefetching from start.", 190),
            stamped(i, f"Iteration {i}, lr = 0.1", 173),  # not the root's
            stamped(
                i, f"Gradient clipping: scaling down gradients (L2 norm {i} > 1) by scale x", 176
            ),
            stamped(i, f"Iteration {i}, lr = 0.2, m = 0.9", 176),
        ]
    log = read_lines(lines)
    assert [point.lr for point in log.train] == [0.2] * 10
    assert log.restarts == []
    assert list(log.clips.norm) == [float(i) for i in range(0, 100, 10)]
    assert log.fork == "NVCaffe"


def test_two_writers_in_one_file():
    """Another process that displays now and then does not disturb the first."""
    lines = []
    for i in range(0, 100, 10):
        lines.append(stamped(i, f"Iteration {i}, loss = 1"))
        if i % 30 == 0:
            lines.append(stamped(i, f"Iteration {i // 3}, loss = 2", 7777))
    log = read_lines(lines)
    assert [point.loss for point in log.train] == [1.0] * 10


@pytest.mark.parametrize("faster", [1, 3])
def test_two_processes_at_once_in_one_file(faster):
    """The later one counts, and it is said that there are others."""
    lines = [stamped(0, "Initializing solver from parameters: ", 11), "display: 10"]
    lines += [stamped(i, f"Iteration {10 * i}, loss = 1", 11) for i in range(20)]
    lines += [stamped(20, "Initializing solver from parameters: ", 22), "display: 10"]
    for i in range(20):
        first = 20 + faster * i
        lines += [
            stamped(20 + i, f"Iteration {10 * (first + k)}, loss = 1", 11) for k in range(faster)
        ]
        lines.append(stamped(20 + i, f"Iteration {10 * i}, loss = 2", 22))
        lines.append(stamped(20 + i, f"Iteration {10 * i}, lr = 0.5", 22))
    log = read_lines(lines)
    assert list(log.train.iteration) == list(range(0, 200, 10))
    assert set(log.train.loss) == {2.0}
    assert log.num_other_displays == 20 * faster
    said = dict(finding_lines(summarize(make_table(log)), log))
    assert "displays of another process in the same file are left out" in said["processes"]


def test_threads_that_have_the_same_numbers_again():
    """In a container each process has them."""
    lines = []
    for start in (0, 100):
        lines += [stamped(start, "Initializing solver from parameters: ", 1), "display: 10"]
        lines += [stamped(start + i, f"Iteration {start + i}, loss = 1", 25) for i in range(50)]
    log = read_lines(lines)
    assert list(log.train.iteration) == [*range(50), *range(100, 150)]
    assert (log.num_other_displays, log.restarts) == (0, [100])


def test_pieces_without_heads_are_joined():
    """Tails of the logs of two processes: nothing says that the second one started."""
    lines = [stamped(i, f"Iteration {100 + i}, loss = 1") for i in range(10)]
    lines += [stamped(30 + i, f"Iteration {105 + i}, loss = 2", 99) for i in range(10)]
    log = read_lines(lines)
    assert [point.iteration for point in log.train] == list(range(100, 115))
    assert [point.loss for point in log.train] == [1.0] * 5 + [2.0] * 10
    assert log.restarts == [105]
    assert log.num_replaced == 5


def test_a_resumed_process_counts_from_its_snapshot():
    """The first display of the second process is later than its snapshot: both tell the cut."""
    lines = [stamped(0, "Initializing solver from parameters: "), "display: 7"]
    lines += [stamped(i, f"Iteration {7 * i}, loss = 1") for i in range(10)]
    lines += [
        stamped(20, "Initializing solver from parameters: ", 9),
        stamped(20, "Resuming from s_iter_30.solverstate", 9),
        stamped(21, "Iteration 35, loss = 2", 9),
    ]
    log = read_lines(lines)
    assert [point.iteration for point in log.train] == [0, 7, 14, 21, 28, 35]
    assert log.restarts == [30]
    assert log.train[-1].iteration_s is None


def test_same_file_with_a_new_run():
    lines = [stamped(i, f"Iteration {i}, loss = 1") for i in range(10)]
    lines += [stamped(20 + i, f"Iteration {i}, loss = 2") for i in range(5)]
    log = read_lines(lines)
    assert [point.loss for point in log.train] == [2.0] * 5
    assert log.num_replaced == 10
    assert log.restarts == []


def test_outputs_of_several_elements_are_series_of_their_own():
    def lines_at(iteration, *values):
        yield stamped(iteration, f"Iteration {iteration}, Testing net (#0)")
        for index, value in enumerate(values):
            yield stamped(iteration, f"    Test net output #{index}: accuracy = {value}")
        yield stamped(iteration, f"    Test net output #{len(values)}: loss = 2 (* 1 = 2 loss)")
        yield stamped(iteration, f"Iteration {iteration}, loss = 1")
        yield stamped(iteration, "    Train net output #0: loss = 1 (* 1 = 1 loss)")
        for index, value in enumerate(values):
            yield stamped(iteration, f"    Train net output #{index + 1}: accuracy = {value}")

    log = read_lines([*lines_at(0, 0.84, 0.65, 0.58), *lines_at(10, 0.9, 0.7, 0.6)])
    assert log.test[0].outputs == {
        "accuracy[0]": 0.84, "accuracy[1]": 0.65, "accuracy[2]": 0.58, "loss": 2.0
    }  # fmt: skip
    assert list(log.outputs) == ["loss", "accuracy[0]", "accuracy[1]", "accuracy[2]"]
    assert list(log.outputs["accuracy[1]"].values()) == [0.65, 0.7]
    assert log.loss_weights == {"loss": 1.0}
    assert make_table(log).test[0].top1_error is None


def test_outputs_of_very_many_elements_are_averaged():
    lines = [stamped(0, "Iteration 0, Testing net (#0)")]
    lines += [stamped(0, f"    Test net output #{i}: prob = {i}") for i in range(1000)]
    for at in (1, 2):
        lines.append(stamped(at, f"Iteration {at}, loss = 1"))
        lines += [stamped(at, f"    Train net output #{i}: prob = {i}") for i in range(1000)]
    log = read_lines(lines)
    assert log.test[0].outputs == {"prob": pytest.approx(499.5)}
    assert list(log.outputs) == ["prob"]
    assert list(log.outputs["prob"].values()) == pytest.approx([499.5, 499.5])


@pytest.mark.parametrize(
    ("stamps", "seconds"),
    [
        (["1231 23:59:50", "0101 00:00:10"], 20),  # the turn of a year
        (["0228 23:59:50", "0301 00:00:10"], 20),  # no leap year that we know of
        (["0229 23:59:50", "0301 00:00:10"], 20),  # a leap year
        (["20240228 23:59:50", "20240301 00:00:10"], 86_420),
        (["20251231 23:59:50", "20260101 00:00:10"], 20),
        (["1025 02:59:50", "1025 02:00:10", "1025 02:00:30"], 20),  # clocks are set back
        (["1399 02:59:50", "1025 02:00:10", "1025 02:00:30"], 20),  # no date at all
    ],
)
def test_working_time(stamps, seconds):
    lines = [f"I{at}.000000 1 solver.cpp:1] Iteration {i}, loss = 7" for i, at in enumerate(stamps)]
    last = read_lines(lines).train[-1]
    assert last.seconds == pytest.approx(seconds)


def test_years_of_headers_options_and_turns():
    lines = [
        "Log file created at: 2027/12/31 11:03:32",
        "Running on machine: vm",
        "Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg",
        "I1231 23:59:50.000000 1 solver.cpp:1] Iteration 0, loss = 7",
        "I0101 00:00:10.000000 1 solver.cpp:1] Iteration 1, loss = 7",
        "Log file created at: 2028/01/01 00:01:00",
        "I0229 00:00:10.000000 1 solver.cpp:1] Iteration 2, loss = 7",
        "I0301 00:00:10.000000 1 solver.cpp:1] Iteration 3, loss = 7",
    ]
    log = read_lines(lines)
    assert f"{log.started:%Y-%m-%d}" == "2027-12-31"
    assert f"{log.latest:%Y-%m-%d}" == "2028-03-01"
    assert log.train[-1].seconds == pytest.approx(60 * 86_400 + 20)
    assert f"{read_lines(lines[3:], year=2015).latest:%Y-%m-%d}" == "2016-03-01"
    assert read_lines(lines[3:5]).started is None


def test_what_the_log_says_of_the_net():
    lines = [
        stamped(0, "Using GPUs 0, 1"),
        stamped(0, "GPU 0: Tesla K80"),
        stamped(0, "Initializing solver from parameters: "),
        "test_iter: 10",
        "base_lr: 0.045",
        "max_iter: 100",
        "iter_size: 2",
        'lr_policy: "multistep"',
        "stepvalue: 50",
        "stepvalue: 80",
        stamped(0, "Initializing net from parameters: "),
        'name: "n"',
        "state {",
        "  phase: TRAIN",
        "}",
        "layer {",
        '  name: "data"',
        "  data_param {",
        '    source: "train_lmdb"',
        "    batch_size: 16",
        "  }",
        "}",
        stamped(0, "Waiting for data", 17),  # another thread prints into the dump
        "layer {",
        "  inner_product_param {",
        "    num_output: 1000",
        "  }",
        "}",
        stamped(0, "Iteration 0, loss = 7"),
        stamped(10, "Iteration 100, loss = 6"),
    ]
    log = read_lines(lines)
    net = log.nets[0]
    assert (net.name, net.phase, net.batch, net.source) == ("n", "TRAIN", 16, "train_lmdb")
    assert (net.num_layers, net.num_classes) == (2, 1000)
    assert log.fields["stepvalue"] == [50, 80]
    assert (log.fields["base_lr"], log.fields["lr_policy"]) == (0.045, "multistep")
    assert log.gpu_names == {0: "Tesla K80"}
    table = make_table(log, num_train_images=640)
    assert table.images_per_iteration == 64
    assert table.train[-1].epoch == 10.0
    assert table.train[-1].images_per_second == pytest.approx(640.0)
    assert make_table(log).train[-1].epoch is None
    assert make_table(log, images_per_iteration=10).images_per_iteration == 10


@pytest.mark.parametrize("display", ["(3.2 s)", "(1 iter/s, 1s/20 iters)"])
def test_the_batch_in_a_log_is_that_of_one_gpu(display):
    """NVCaffe's total is divided before it is printed; BVLC's is that of each."""
    lines = [
        stamped(0, "Using GPUs 0, 1, 2, 3"),
        stamped(0, "Initializing solver from parameters: "),
        stamped(0, "Batch size must be divisible by the number of solvers (GPUs): it's been "
                "adjusted from 250 to 256"),
        stamped(0, "Initializing net from parameters: "),
        "state {",
        "  phase: TRAIN",
        "}",
        "layer {",
        "  data_param {",
        "    batch_size: 64",
        "  }",
        "}",
        stamped(1, f"Iteration 0 {display}, loss = 7"),
        stamped(11, f"Iteration 20 {display}, loss = 7"),
    ]  # fmt: skip
    table = make_table(read_lines(lines), num_train_images=5120)
    assert table.images_per_iteration == 256
    assert table.train[1].images_per_second == pytest.approx(512.0)
    assert table.train[1].epoch == 1.0


def test_a_dump_that_begins_in_a_line_of_its_own():
    """As Intel's fork prints it: behind the announcement comes a prefix with nothing behind it."""
    lines = [
        stamped(0, "Initializing net from parameters: "),
        stamped(0, ""),
        *DUMP,
        stamped(1, "Iteration 0, loss = 7"),
    ]
    assert make_table(read_lines(lines)).images_per_iteration == 32


def test_the_display_at_a_snapshot_is_kept_where_it_is_not_repeated():
    """The first Caffes displayed an iteration after it, and after a resume only the next."""
    lines = [
        stamped(1, "Iteration 10, loss = 0.5"),
        stamped(2, "Iteration 20, loss = 0.4"),
        stamped(2, "    Train net output #0: loss = 0.4 (* 1 = 0.4 loss)"),
        stamped(3, "Iteration 20, Testing net"),
        stamped(4, "Test score #0: 0.7"),
        stamped(20, "Initializing solver from parameters: ", 9),
        stamped(20, "Resuming from n_iter_20.solverstate", 9),
        stamped(21, "Iteration 20, Testing net", 9),
        stamped(22, "Test score #0: 0.8", 9),
    ]
    new = [
        stamped(23, f"Iteration {iteration}, loss = 0.{iteration}", 9)
        for iteration in (20, 30)
    ]  # fmt: skip
    log = read_lines([*lines, new[1]])
    assert list(log.train.iteration) == [10, 20, 30]
    assert list(log.train.loss) == [0.5, 0.4, 0.3]
    assert list(log.outputs["loss"].iteration) == [20]
    assert [(test.iteration, test.outputs) for test in log.test] == [(20, {"score 0": 0.8})]
    assert (log.num_replaced, log.restarts) == (1, [20])
    log = read_lines([*lines, *new])
    assert list(log.train.iteration) == [10, 20, 30]
    assert list(log.train.loss) == [0.5, 0.2, 0.3]
    assert not log.outputs["loss"]
    assert log.num_replaced == 2


def test_epochs_where_the_batch_changed_at_a_restart():
    def process(batch, first, second):
        return [
            stamped(second, "Initializing solver from parameters: "),
            stamped(second, "Initializing net from parameters: "),
            "state {",
            "  phase: TRAIN",
            "}",
            "layer {",
            "  data_param {",
            f"    batch_size: {batch}",
            "  }",
            "}",
            *(stamped(second, f"Iteration {first + i}, loss = 1") for i in (0, 10)),
        ]

    table = make_table(read_lines(process(10, 0, 0) + process(20, 10, 5)), num_train_images=100)
    assert [row.epoch for row in table.train] == [0.0, 1.0, 3.0]
    assert table.pieces == ((0, 10), (10, 20))


def test_lines_are_counted():
    unknown = []
    reader = Reader(on_unknown=unknown.append)
    for line in (
        STAMP + "Iteration 0, loss = 1",
        STAMP + "Restarting data prefetching from start.",
        "Premature end of JPEG file",
        "",
        "W1124 01:02:03.5  4242 x.cpp:1] odd",
        "W1124 01:02:03.5  4242 x.cpp:1] odd",
    ):
        reader.feed(line)
    log = reader.log
    assert (log.num_lines, log.num_events, log.num_other, log.num_unknown) == (6, 3, 1, 1)
    assert unknown == ["Premature end of JPEG file"]
    assert log.warnings == {"odd": 2}


PIECES = st.sampled_from(
    [
        STAMP,
        "Iteration 5, loss = 1",
        "Iteration 7 (1 iter/s, 2s/3 iters), loss = nan",
        "Initializing solver from parameters: ",
        "Initializing net from parameters: ",
        "Resuming from a_iter_3.solverstate",
        "max_iter: 3",
        "iter_size: x",
        "layer {",
        "data_param {",
        "batch_size: -4",
        "}",
        "Iteration 3, Testing net (#0)",
        "    Test net output #0: acc = 0.5",
        "    Train net output #0: acc/top-1 = 0.5",
        "Test score #0: 0.5",
        "Using GPUs 0,1",
        "I0230 99:99:99.9 1 a.cpp:1] Iteration 1, loss = 3",
        "I99991231 99:99:99.9 1 a.cpp:1] Iteration 1, loss = 3",
        "I00000101 00:00:00.9 1 a.cpp:1] Iteration 1, loss = 3",
        "Log file created at: 0000/11/23",
        "Log file created at: 9999/12/31",
        "\n",
        "\r\n",
        "\0",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=60))
def test_any_soup_is_read(pieces):
    reader = Reader()
    for line in "".join(pieces).split("\n"):
        reader.feed(line)
    reader.finish()
    summarize(make_table(reader.log, num_train_images=10))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=5000), st.integers(1, 900))
def test_any_bytes_are_read(data, size):
    reader = Reader()
    for place in range(0, len(data), size):
        reader.feed_bytes(data[place : place + size])
    reader.finish()
    summarize(make_table(reader.log))


# Beginnings that a pattern might go over again and again.
NASTY = [
    "Iteration 1" + "(" * 50,
    "Train net output #0: a = 1 (* ",
    " = 1 (* ",
    "Snapshotting to " + " " * 50,
    "I1124 01:02:03.500000  4242 ",
    "] ",
    "[0.0] ",
    " ",
    "1",
    "layer {",
    "Gradient clipping: scaling down gradients (L2 norm 1 > ",
]


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize("start", ["", STAMP, STAMP + "Iteration 1, loss = ", "Snapshotting to "])
@pytest.mark.parametrize("end", ["", "x"])
def test_time_is_linear(nasty, start, end):
    """A line of a megabyte: whatever goes over it again and again would not come back."""
    parse(start + nasty * (1_000_000 // len(nasty)) + end)


@pytest.mark.timeout(60)
def test_time_is_linear_in_restarts():
    """A loop that starts a Caffe that dies at once, with another batch each time."""
    images = range(1, 100_001)
    pieces = tuple(zip(images, images, strict=True))
    table = Table((), (), (), 5, 100, pieces)
    assert table.epoch(0) == 0
    assert all(table.epoch(i) == (1 + i * (i - 1) // 2) / 100 for i in images)


@pytest.mark.timeout(60)
def test_a_dump_does_not_fill_the_memory():
    reader = Reader()
    reader.feed(STAMP + "Initializing net from parameters: ")
    for _ in range(1600):
        reader.feed("name: " + "x" * 65_000)
    tracemalloc.start()
    for _ in range(400):
        reader.feed("name: " + "y" * 65_000)
    assert tracemalloc.get_traced_memory()[0] < 1_000_000
    tracemalloc.stop()
    reader.finish()
    assert reader.log.num_events == 2001


def test_a_line_without_end_is_cut_off():
    reader = Reader()
    for _ in range(100):
        reader.feed_bytes(b"x" * 100_000)
    reader.feed_bytes(b"\n" + STAMP.encode() + b"Iteration 1, loss = 2\n")
    assert reader.log.num_lines == 2
    assert reader.log.train[0].loss == 2


def test_notices_of_a_gpu_build_on_the_cpu():
    """As install-caffe --cuda's Caffe printed them on a machine without GPU."""
    stamp = "E1127 02:48:15.356480 11308 common.cpp"
    for line in (
        f"{stamp}:114] Cannot create Cublas handle. Cublas won't be available.",
        f"{stamp}:121] Cannot create Curand generator. Curand won't be available.",
    ):
        assert isinstance(parse(line), events.Warned)  # no failure
    assert parse("WARNING: Logging before InitGoogleLogging() is written to STDERR") is None
