"""The program: signals, errors, several nets, averaged weights, other options."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys

import pytest
import torch
from helpers.solver_jobs import caffe_log, engine_log, found_events, kinds, losses
from helpers.training_jobs import child_of_test, wait_for_text

from irv2caffe.engine.command import main
from irv2caffe.log.read import events
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_array
from irv2caffe.proto.caffemodel import ModelFile
from irv2caffe.proto.text import format_prototxt, parse_prototxt

pytestmark = pytest.mark.slow
NET = """
name: "constant"
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 5 } shape { dim: 4 }
    data_filler { type: "constant" value: 0.5 } data_filler { type: "constant" value: 1 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 3 } }
layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc"
  include { phase: TEST stage: "deep" } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
SOLVER = """
base_lr: 0.1 lr_policy: "fixed" max_iter: 10 display: 5 snapshot_prefix: "out" solver_mode: CPU
"""


def write(folder, fields, net=NET):
    (folder / "net.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(SOLVER + fields)


def fatal(folder, *args, code=1):
    """The last words of a run that fails."""
    log = engine_log(folder, *args, code=code)
    (event,) = [event for event in found_events(log) if isinstance(event, events.Fatal)]
    return event.message


@pytest.mark.parametrize(
    "fields",
    [
        'net: "net.prototxt" test_iter: [2, 3] test_interval: 4 snapshot: 4',
        'train_net: "net.prototxt" test_net: "net.prototxt" test_iter: 1 test_interval: 5',
        """net: "net.prototxt" test_net: "net.prototxt" test_iter: [1, 2] test_interval: 10
        test_state { } test_state { stage: "deep" } test_initialization: false""",
        'net: "net.prototxt" snapshot_after_train: false',
        'net: "net.prototxt" test_iter: 1 test_interval: 3 test_compute_loss: true display: 0',
    ],
)
def test_nets_tests_and_snapshots_as_caffe_has_them(tmp_path, caffe, fields):
    write(tmp_path, fields)
    if "display: 0" in fields:
        (tmp_path / "solver.prototxt").write_text(SOLVER.replace("display: 5", "") + fields)
    theirs = caffe_log(caffe, tmp_path, "-solver", "solver.prototxt")
    files = sorted(path.name for path in tmp_path.iterdir())
    for path in tmp_path.glob("out_*"):
        path.unlink()
    ours = engine_log(tmp_path, "-solver", "solver.prototxt")
    assert kinds(ours) == kinds(theirs)
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_nets_inside_the_solver(tmp_path, caffe):
    net = format_prototxt(parse_prototxt(NET, messages.NetParameter))
    fields = f"net_param {{ {net} }} test_iter: 1 test_interval: 5"
    (tmp_path / "solver.prototxt").write_text(SOLVER + fields)
    args = ("-solver", "solver.prototxt", "-stage", "deep,low", "-level", "2")
    assert kinds(engine_log(tmp_path, *args)) == kinds(caffe_log(caffe, tmp_path, *args))


def test_signals(tmp_path):
    write(tmp_path, 'net: "net.prototxt" snapshot: 1000000')
    text = (tmp_path / "solver.prototxt").read_text().replace("max_iter: 10", "max_iter: 100000000")
    (tmp_path / "solver.prototxt").write_text(text)
    log = tmp_path / "log"
    argv = [sys.executable, "-m", "irv2caffe.engine", "train", "--solver=solver.prototxt"]
    with log.open("w") as stream, child_of_test(argv, cwd=tmp_path, stderr=stream) as child:
        wait_for_text(log, "Iteration 5 ")
        child.send_signal(signal.SIGHUP)
        wait_for_text(log, "Snapshotting solver state")
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    last = [line.partition("] ")[2] for line in log.read_text().splitlines()][-4:]
    assert last[1].startswith("Snapshotting solver state")
    assert last[2:] == ["Optimization stopped early.", "Optimization Done."]
    assert len([*tmp_path.glob("*.solverstate")]) == 2


def test_sigterm_ends_it_at_once(tmp_path):
    write(tmp_path, 'net: "net.prototxt"')
    text = (tmp_path / "solver.prototxt").read_text().replace("max_iter: 10", "max_iter: 100000000")
    (tmp_path / "solver.prototxt").write_text(text)
    log = tmp_path / "log"
    argv = [sys.executable, "-m", "irv2caffe.engine", "train", "-solver", "solver.prototxt"]
    with log.open("w") as stream, child_of_test(argv, cwd=tmp_path, stderr=stream) as child:
        wait_for_text(log, "Iteration 5 ")
        child.terminate()
        assert child.wait(60) == -signal.SIGTERM
    assert not [*tmp_path.glob("out_*")]


def test_a_test_is_interrupted(tmp_path):
    write(tmp_path, 'net: "net.prototxt" test_iter: 100000000 test_interval: 10')
    log = tmp_path / "log"
    argv = [sys.executable, "-m", "irv2caffe.engine", "train", "-solver", "solver.prototxt"]
    with log.open("w") as stream, child_of_test(argv, cwd=tmp_path, stderr=stream) as child:
        wait_for_text(log, "Testing net")
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    words = log.read_text()
    assert "Test interrupted." in words
    assert "Optimization stopped early." in words
    assert (tmp_path / "out_iter_0.solverstate").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ('net: "no.prototxt"', "no.prototxt: no such file"),
        ("", "SolverParameter must specify a train net"),
        ('net: "net.prototxt" train_net: "net.prototxt"', "must not contain more than one"),
        ('net: "net.prototxt" test_net: "net.prototxt"', "test_iter must be specified"),
        ('net: "net.prototxt" test_iter: 1', "test_interval"),
        ('net: "net.prototxt" average_loss: 0', "average_loss"),
        ('net: "net.prototxt" iter_size: 0', "iter_size is 0"),
        ('net: "net.prototxt" snapshot_format: HDF5', "HDF5"),
        ('net: "net.prototxt" type: "RMSProp" momentum: 0.9', "Momentum cannot be used with"),
        ('net: "net.prototxt" type: "SGD" solver_type: SGD', "cannot be both"),
        ('net: "net.prototxt" weights: "no.caffemodel"', "no.caffemodel"),
        ('net: "net.prototxt" snapshot: 5 snapshot_prefix: "no/out"', "snapshot prefix"),
    ],
)
def test_refused_before_the_first_iteration(tmp_path, fields, words):
    write(tmp_path, fields)
    if "no/out" in fields:
        text = (tmp_path / "solver.prototxt").read_text().replace('snapshot_prefix: "out"', "")
        (tmp_path / "solver.prototxt").write_text(text)
    with contextlib.redirect_stderr(io.StringIO()) as log, contextlib.chdir(tmp_path):
        assert main(["train", "-solver", "solver.prototxt"]) in {1, 2}
    (event,) = [event for event in found_events(log.getvalue()) if isinstance(event, events.Fatal)]
    assert words in event.message
    assert "Starting Optimization" not in log.getvalue()


def test_a_snapshot_of_another_solver_type_is_refused(tmp_path):
    write(tmp_path, 'net: "net.prototxt"')
    engine_log(tmp_path, "-solver", "solver.prototxt")
    write(tmp_path, 'net: "net.prototxt" type: "Adam"')
    args = ("-solver", "solver.prototxt", "-snapshot")
    message = fatal(tmp_path, *args, "out_iter_10.solverstate")
    assert "Incorrect length of history blobs. (2 vs. 4)" in message
    assert "not a solver state" in fatal(tmp_path, *args, "out_iter_10.caffemodel")


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), MemoryError()],
)
def test_out_of_memory_names_what_helps(tmp_path, monkeypatch, error):
    def fail(_):
        raise error

    write(tmp_path, 'net: "net.prototxt"')
    monkeypatch.setattr("irv2caffe.engine.solver.loop.Solver.solve", fail)
    message = fatal(tmp_path, "-solver", "solver.prototxt")
    assert "out of memory" in message
    assert "smaller batch_size with a larger iter_size" in message


def test_averaged_weights_are_tested_and_saved_beside_the_trained_ones(tmp_path):
    write(tmp_path, 'net: "net.prototxt" test_iter: 1 test_interval: 5 snapshot: 1')
    args = ("-solver", "solver.prototxt")
    plain, log = engine_log(tmp_path, *args), engine_log(tmp_path, *args, "--ema", "0.4")
    assert losses(plain) == losses(log)
    tests, trained = losses_of_tests(log), losses_of_tests(plain)
    assert tests[0] == trained[0]
    assert tests[2] > trained[2]  # the averages lag behind
    average = torch.zeros(3)
    for step in range(10):
        decay = min(0.4, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * bias(tmp_path / f"out_iter_{step + 1}.caffemodel")
    torch.testing.assert_close(bias(tmp_path / "out_iter_10.ema.caffemodel"), average)
    resumed = engine_log(tmp_path, *args, "--ema", "0.4", "-snapshot", "out_iter_5.solverstate")
    assert losses_of_tests(resumed) == tests[1:]


def losses_of_tests(log):
    outputs = [event for event in found_events(log) if isinstance(event, events.Output)]
    return [event.value for event in outputs if event.is_test and event.name == "loss"]


def bias(path):
    return torch.from_numpy(read_array(ModelFile(path).blobs("fc")[1]))


def test_it_stops_after_a_layer(tmp_path):
    write(tmp_path, 'net: "net.prototxt"')
    log = engine_log(tmp_path, "-solver", "solver.prototxt", "--stop-after", "fc")
    assert "Layer fc (InnerProduct)" in log
    assert "Layer loss" not in log
    assert "Stopped after layer fc." in log


def test_debug_info_shows_weights_and_norms(tmp_path):
    write(tmp_path, 'net: "net.prototxt" debug_info: true')
    log = engine_log(tmp_path, "-solver", "solver.prototxt")
    assert "[Forward] Layer fc, param blob 1 data: 0" in log
    assert "[Backward] All net params (data, diff): L1 norm = (0, " in log


def test_devices_as_json():
    argv = [sys.executable, "-m", "irv2caffe.engine", "devices", "--json"]
    found = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    assert found["torch"] == torch.__version__
    assert found["cuda"] == torch.version.cuda
    assert len(found["gpus"]) == torch.cuda.device_count()
    assert "Convolution" in found["layer_types"]


@pytest.mark.parametrize("flags", [["train"], ["trian"], [], ["train", "-solver", "x", "--foo"]])
def test_usage(flags, capsys):
    assert main(flags) == 2
    assert "Error: " in capsys.readouterr().err
