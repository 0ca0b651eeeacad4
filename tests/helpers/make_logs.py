"""Golden logs of the real Caffe: trains a tiny net in every way that a log can go.

Usage: ``cd tests; python -m helpers.make_logs FOLDER [NAME...]``, with the Caffe found. What
differs from machine to machine (paths, host) is left out; times and thread numbers stay as they
came.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from irv2caffe.caffe.command import tool_command
from irv2caffe.caffe.find import FoundCaffe, find_caffe

# A hundred points in eight classes, in memory: DummyData is the same in every run of a seed.
NET = """
name: "tiny"
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 16 dim: 1 dim: 6 dim: 6 } shape { dim: 16 }
    data_filler { type: "gaussian" std: 1 }
    data_filler { type: "uniform" min: 0 max: 7.99 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
  inner_product_param { num_output: 8 weight_filler { type: "xavier" } } }
layer { name: "loss/loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss/loss" }
layer { name: "acc/top-1" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc/top-1"
  include { phase: TEST } }
layer { name: "acc/top-5" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc/top-5"
  include { phase: TEST } accuracy_param { top_k: 5 } }
"""
# An output of eight elements, in training too, and a second loss with a weight.
PER_CLASS = """
layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc" top: "per_class" }
layer { name: "aux" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "aux"
  loss_weight: 0.25 }
"""
SOLVER = {
    "net": '"net.prototxt"',
    "test_iter": "4",
    "test_interval": "20",
    "base_lr": "0.05",
    "display": "5",
    "max_iter": "60",
    "lr_policy": '"step"',
    "gamma": "0.5",
    "stepsize": "25",
    "momentum": "0.9",
    "snapshot": "20",
    "snapshot_prefix": '"snap"',
    "solver_mode": "CPU",
    "random_seed": "1",
}
TWO_TESTS = {
    "net": None,
    "train_net": '"net.prototxt"',
    "test_net": '"net.prototxt" test_net: "net.prototxt"',
    "test_iter": "4 test_iter: 2",
}
STEPS = {
    "lr_policy": '"multistep"',
    "gamma": "0.1",
    "stepsize": None,
    "stepvalue": "15 stepvalue: 40",
    "clip_gradients": "0.5",
    "average_loss": "5",
}


class Folder:
    """Where one Caffe after another trains."""

    def __init__(self, path: Path, found: FoundCaffe) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.found = found
        (path / "net.prototxt").write_text(NET)

    def start(self, *args: str, **changes: str | None) -> subprocess.Popen[bytes]:
        """One process, its log in a pipe; ``changes`` are of the solver's fields."""
        fields = {**SOLVER, **changes}
        text = "\n".join(f"{name}: {value}" for name, value in fields.items() if value is not None)
        (self.path / "solver.prototxt").write_text(text + "\n")
        command = tool_command(self.found, "caffe", ["train", "-solver", "solver.prototxt", *args])
        return subprocess.Popen(
            command.argv,
            env={**command.env, "GLOG_logtostderr": "1"},
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def train(self, *args: str, **changes: str | None) -> bytes:
        """The log of a training to its end."""
        return self.start(*args, **changes).communicate()[0]

    def train_until(self, words: bytes, number: int, *args: str, **changes: str | None) -> bytes:
        """The log of a training that gets a signal when it has said ``words``."""
        child = self.start(*args, **changes)
        assert child.stdout is not None
        log = b""
        while words not in log and (piece := os.read(child.stdout.fileno(), 1 << 16)):
            log += piece
        child.send_signal(number)
        log += child.stdout.read()
        child.wait()
        return log


def healthy(folder: Folder) -> bytes:
    """To its end."""
    return folder.train()


def two_tests(folder: Folder) -> bytes:
    """Two test nets, whose outputs have the same names."""
    return folder.train(**TWO_TESTS)


def per_class(folder: Folder) -> bytes:
    """Accuracies of each class, and a second loss."""
    (folder.path / "net.prototxt").write_text(NET + PER_CLASS)
    return folder.train()


def steps(folder: Folder) -> bytes:
    """Steps of the learning rate, and gradients that are clipped."""
    return folder.train(**STEPS)


def nan(folder: Folder) -> bytes:
    """The loss becomes not-a-number; Caffe goes on to the end."""
    return folder.train(base_lr="1e30")


def stopped(folder: Folder) -> bytes:
    """Ctrl-C: a snapshot, and the end."""
    return folder.train_until(b"Iteration 200,", signal.SIGINT, max_iter="1000000", display="50")


def killed(folder: Folder) -> bytes:
    """Killed in the middle; a file that was cut short ends anywhere."""
    log = folder.train_until(b"Iteration 35,", signal.SIGKILL, max_iter="1000000")
    return log[: log.index(b"Iteration 35,") + len(b"Iteration 3")]


def terminated(folder: Folder) -> bytes:
    """SIGTERM: no snapshot, a stack trace."""
    return folder.train_until(b"Iteration 30,", signal.SIGTERM, max_iter="1000000")


def resumed(folder: Folder) -> bytes:
    """Killed at 50, resumed at 40, killed again at 70, resumed at 60 with half the rate."""
    log = folder.train_until(b"Iteration 50,", signal.SIGKILL, max_iter="100000")
    log = log[: log.index(b"\n", log.index(b"Iteration 50, lr")) + 1]
    again = folder.train_until(
        b"Iteration 70,", signal.SIGKILL, "-snapshot", "snap_iter_40.solverstate", max_iter="100000"
    )
    log += again[: again.index(b"\n", again.index(b"Iteration 70, lr")) + 1]
    return log + folder.train(
        "-snapshot", "snap_iter_60.solverstate", max_iter="80", base_lr="0.025"
    )


def debug_info(folder: Folder) -> bytes:
    """A line for every blob of every layer."""
    return folder.train(
        max_iter="4", display="1", test_interval="2", test_iter="1", debug_info="true"
    )


def fatal(folder: Folder) -> bytes:
    """Gives up at once."""
    return folder.train("-snapshot", "missing.solverstate")


ALL = (
    healthy, two_tests, per_class, steps, nan, stopped, killed, terminated, resumed, debug_info,
    fatal,
)  # fmt: skip


def clean(log: bytes, folder: Path) -> bytes:
    """Without the paths of this machine and the addresses of its stack traces."""
    text = log.replace(str(folder).encode(), b"/work")
    text = re.sub(rb"@ +0x[0-9a-f]+", b"@     0x7f0000000000", text)
    text = re.sub(rb"(by PID \d+ \(TID )0x[0-9a-f]+", rb"\g<1>0x7f0000000000", text)
    return re.sub(rb"unix time\) try \"date -d @\d+\"", b'unix time) try "date -d @0"', text)


def main(out: str, *names: str) -> None:
    """Writes the logs."""
    found = find_caffe()
    for make in ALL:
        if names and make.__name__ not in names:
            continue
        started = time.monotonic()
        folder = Path(out) / f"{make.__name__}.tmp"
        log = clean(make(Folder(folder, found)), folder)
        (Path(out) / f"{make.__name__}.log").write_bytes(log)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        print(f"{make.__name__}: {len(log):,} bytes in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
