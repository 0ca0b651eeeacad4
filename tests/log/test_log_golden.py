"""Logs of the real Caffe, kept and fresh, against a plain search for the same numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import make_logs
from helpers.paths import FILES

from irv2caffe.log.metrics import metrics_of
from irv2caffe.log.read.reader import read_log
from irv2caffe.log.summary import summarize
from irv2caffe.log.table import make_table

LOGS = FILES / "logs"
LIVE = ("healthy", "nan", "resumed", "stopped")


@pytest.fixture(scope="module")
def fresh(caffe, tmp_path_factory):
    """Logs made now, by the Caffe that is installed."""
    folder = tmp_path_factory.mktemp("fresh")
    make_logs.main(str(folder), *LIVE)
    return folder


@pytest.fixture(params=["kept", "fresh"])
def log_of(request):
    """A function from the name of a log to its path."""
    if request.param == "kept":
        return lambda name: LOGS / f"{name}.log"
    folder = request.getfixturevalue("fresh")
    return lambda name: folder / f"{name}.log"


def same(found, text):
    """Whether a number is what the log says; nan and -nan are the same."""
    number = float(text)
    return found == number or (found != found and number != number)


def displays(text):
    """Iteration and loss of every display, in order."""
    return re.findall(r"Iteration (\d+)(?: \(.*\))?, loss = (\S+)", text)


@pytest.mark.slow
def test_healthy(log_of):
    text = log_of("healthy").read_text()
    log = read_log(log_of("healthy"))
    assert [(str(p.iteration), p.loss) for p in log.train] == [
        (iteration, float(loss)) for iteration, loss in displays(text)
    ]
    assert [p.iteration for p in log.train] == list(range(0, 61, 5))
    rates = re.findall(r"Iteration \d+, lr = (\S+)", text)
    assert [p.lr for p in log.train] == [*map(float, rates), None]
    assert [p.iteration for p in log.test] == [0, 20, 40, 60]
    for name in ("acc/top-1", "acc/top-5", "loss/loss"):
        values = re.findall(rf"Test net output #\d: {name} = (\S+)", text)
        assert [p.outputs[name] for p in log.test] == list(map(float, values))
    outputs = re.findall(r"Train net output #0: loss/loss = (\S+)", text)
    assert list(log.outputs["loss/loss"].values()) == list(map(float, outputs))
    assert (log.finished, log.stopped, log.fatal, log.killed) == (True, False, "", "")
    assert log.restarts == []
    assert [Path(path).name for path in log.snapshots] == [
        f"snap_iter_{i}.caffemodel" for i in (20, 40, 60)
    ]
    assert (log.fields["max_iter"], log.fields["momentum"]) == (60, 0.9)
    assert [(n.name, n.phase, n.batch, n.num_classes) for n in log.nets] == [
        ("tiny", "TRAIN", 16, 8),
        ("tiny", "TEST", 16, 8),
    ]
    assert log.num_unknown == 0
    assert log.num_lines == len(text.splitlines())
    table = make_table(log, num_train_images=160)
    summary = summarize(table)
    top1 = [100 - 100 * p.outputs["acc/top-1"] for p in log.test]
    assert summary.last_top1_error == pytest.approx(top1[-1])
    assert summary.best_top1_error == pytest.approx(min(top1))
    assert (summary.iterations, summary.epochs, summary.lr) == (60, 6.0, float(rates[-1]))
    assert summary.images_per_iteration == 16
    assert summary.eta_hours is None


def test_rates_come_from_the_stamps(log_of):
    """The rates that Caffe prints are not used: the first is of uninitialised memory."""
    text = log_of("healthy").read_text()
    stamps = re.findall(r"I\d{4} \d\d:\d\d:(\d\d\.\d{6}).* Iteration \d+(?: \(.*\))?, loss", text)
    train = read_log(log_of("healthy")).train
    step = (float(stamps[2]) - float(stamps[1])) % 60 / 5
    assert train[2].iteration_s == pytest.approx(step, abs=1e-9)
    assert train[0].iteration_s is None
    assert train[4].iteration_s is None  # a test lies before iteration 20
    total = (float(stamps[-1]) - float(re.search(r":(\d\d\.\d{6}).*Testing net", text)[1])) % 60
    assert train[-1].seconds == pytest.approx(total, abs=1e-6)


def test_not_a_number(log_of):
    text = log_of("nan").read_text()
    log = read_log(log_of("nan"))
    assert "-nan" in text
    assert all(same(p.loss, loss) for p, (_, loss) in zip(log.train, displays(text), strict=True))
    assert log.finished  # and Caffe exits 0
    table = make_table(log)
    summary = summarize(table)
    lost = next(int(iteration) for iteration, loss in displays(text) if "nan" in loss)
    assert summary.diverged == lost
    kinds = {found.kind: found.iteration for found in summary.anomalies}
    assert kinds == {"nan": lost, "perfect": 20}
    # An accuracy of 1 from a lost net is no result.
    assert log.test[-1].outputs["acc/top-1"] == 1
    assert summary.best_top1_error == pytest.approx(100 - 100 * log.test[0].outputs["acc/top-1"])


def test_stopped_by_a_signal(log_of):
    log = read_log(log_of("stopped"))
    assert (log.finished, log.stopped) == (True, True)
    assert log.fields["max_iter"] == 1_000_000


def test_resumed_twice(log_of):
    """What a later process displays counts; the rest is kept, and time goes on."""
    text = log_of("resumed").read_text()
    log = read_log(log_of("resumed"))
    last = {}
    for iteration, loss in displays(text):
        last[int(iteration)] = float(loss)
    assert {p.iteration: p.loss for p in log.train} == last
    assert [p.iteration for p in log.train] == list(range(0, 81, 5))
    assert len(displays(text)) > len(last)
    assert [p.iteration for p in log.test] == [0, 20, 40, 60, 80]
    tests = re.findall(r"Iteration (\d+), Testing net.*\n.*acc/top-1 = (\S+)", text)
    assert {p.iteration: p.outputs["acc/top-1"] for p in log.test} == {
        int(iteration): float(value) for iteration, value in tests
    }
    assert log.restarts == [40, 60]
    again = len(displays(text)) + len(tests) - len(log.train) - len(log.test)
    assert log.num_replaced == again
    seconds = [p.seconds for p in log.train]
    assert seconds == sorted(seconds)
    assert log.train[16].lr is None
    assert log.train[15].lr == 0.025 / 8
    assert [p.iteration for p in log.train if p.iteration_s is None] == [0, 20, 40, 60]


def test_killed_in_the_middle_of_a_line():
    log = read_log(LOGS / "killed.log")
    assert [p.iteration for p in log.train] == list(range(0, 31, 5)) + [
        p.iteration for p in log.train if p.iteration > 30
    ]
    assert (log.finished, log.stopped, log.fatal) == (False, False, "")
    assert not summarize(make_table(log)).ended


def test_terminated():
    log = read_log(LOGS / "terminated.log")
    assert (log.killed, log.finished) == ("SIGTERM", False)
    assert log.num_unknown > 0  # the stack trace


def test_gave_up():
    log = read_log(LOGS / "fatal.log")
    assert "missing.solverstate" in log.fatal
    assert len(log.train) == 0


def test_two_test_nets():
    text = (LOGS / "two_tests.log").read_text()
    log = read_log(LOGS / "two_tests.log")
    assert [(p.iteration, p.net) for p in log.test] == [
        (int(iteration), int(net))
        for iteration, net in re.findall(r"Iteration (\d+), Testing net \(#(\d)\)", text)
    ]
    values = re.findall(r"Test net output #\d: acc/top-1 = (\S+)", text)
    assert [p.outputs["acc/top-1"] for p in log.test] == list(map(float, values))
    first, second = make_table(log), make_table(log, test_net=1)
    assert [row.outputs["acc/top-1"] for row in first.test] == list(map(float, values[::2]))
    assert [row.outputs["acc/top-1"] for row in second.test] == list(map(float, values[1::2]))
    assert [row.net for row in first.other_tests] == [1, 1, 1, 1]


def test_an_output_of_eight_elements():
    text = (LOGS / "per_class.log").read_text()
    log = read_log(LOGS / "per_class.log")
    for phase, series in (
        ("Test", [[p.outputs[f"per_class[{k}]"] for p in log.test] for k in range(8)]),
        ("Train", [list(log.outputs[f"per_class[{k}]"].values()) for k in range(8)]),
    ):
        values = re.findall(rf"{phase} net output #\d+: per_class = (\S+)", text)
        if phase == "Train":  # the last iteration is displayed twice
            values = values[: 8 * len(log.train)]
        assert series == [list(map(float, values[k::8])) for k in range(8)]
    assert log.loss_weights == {"loss/loss": 1.0, "aux": 0.25}
    table = make_table(log)
    kinds = {(one.phase, one.name): one.kind for one in metrics_of(table)}
    assert kinds["test", "aux"] == "loss"
    assert kinds["train", "per_class[7]"] == "other"  # its name does not say what
    displayed = re.search(r"Iteration 0 \(.*, loss = (\S+)", text)[1]
    parts = [log.outputs[name].get(0) * weight for name, weight in log.loss_weights.items()]
    assert sum(parts) == pytest.approx(float(displayed), rel=1e-5)


def test_clipped_gradients_and_steps():
    text = (LOGS / "steps.log").read_text()
    log = read_log(LOGS / "steps.log")
    norms = re.findall(r"L2 norm (\S+) >", text)
    assert list(log.clips.norm) == list(map(float, norms))
    assert log.fields["stepvalue"] == [15, 40]
    rates = [p.lr for p in log.train]
    assert [rates[2], rates[4], rates[9]] == pytest.approx([0.05, 0.005, 0.0005])
    assert log.train[3].loss == float(displays(text)[3][1])  # a mean of five iterations


def test_debug_info():
    log = read_log(LOGS / "debug_info.log")
    assert [p.iteration for p in log.train] == [0, 1, 2, 3, 4]
    assert log.warnings == {}  # its norms come with the severity of errors
    assert log.num_other > 200


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.log")), ids=lambda path: path.stem)
def test_golden_logs_tell_nothing_of_the_machine(path):
    text = path.read_text()
    assert not re.search(r"/(?:root|home|tmp|usr)/", text)
    assert path.stat().st_size < 100_000
