"""Lines that only a Caffe of install-caffe --cuda prints, as it printed them."""

from __future__ import annotations

import pytest
from helpers.log_lines import run_of

from irv2caffe.log.describe import config_lines, finding_lines
from irv2caffe.log.read.reader import read_lines, read_log
from irv2caffe.log.summary import summarize
from irv2caffe.log.table import make_table
from irv2caffe.train.run.tracker import Tracker
from irv2caffe.train.run.verdict import Ending, Outcome, judge

# CUDA 13.0 in CPU mode on a machine without a driver: once for each thread of Caffe.
CPU_MODE = """\
I1127 10:08:38.819511 18907 caffe.cpp:197] Use CPU.
E1127 10:08:38.819594 18907 common.cpp:114] Cannot create Cublas handle. Cublas won't be available.
E1127 10:08:38.853735 18907 common.cpp:121] Cannot create Curand generator. Curand won't be available.
I1127 10:08:38.853821 18907 solver.cpp:45] Initializing solver from parameters: 
E1127 10:08:38.871017 18909 common.cpp:114] Cannot create Cublas handle. Cublas won't be available.
E1127 10:08:38.871054 18909 common.cpp:121] Cannot create Curand generator. Curand won't be available.
E1127 10:08:38.871063 18909 common.cpp:141] Curand not available. Skipping setting the curand seed.
"""  # noqa: E501, W291
# One NVIDIA H100, driver 580.159.04, CUDA 13.0. The first rate is of uninitialised memory.
ON_GPU = """\
I1127 03:18:20.774562   811 caffe.cpp:204] Using GPUs 0
I1127 03:18:20.970335   811 caffe.cpp:209] GPU 0: NVIDIA H100 80GB HBM3
I1127 03:18:21.084615   811 solver.cpp:45] Initializing solver from parameters: 
I1127 03:18:21.099143   811 solver.cpp:289] Solving fm
I1127 03:18:21.240566   811 solver.cpp:239] Iteration 0 (-1.23073e+30 iter/s, 0.141383s/50 iters), loss = 2.44299
I1127 03:18:21.240612   811 solver.cpp:258]     Train net output #0: loss = 2.44299 (* 1 = 2.44299 loss)
I1127 03:18:21.240619   811 sgd_solver.cpp:112] Iteration 0, lr = 0.01
I1127 03:18:21.735128   811 solver.cpp:239] Iteration 50 (101.114 iter/s, 0.494492s/50 iters), loss = 0.700232
I1127 03:18:21.735178   811 solver.cpp:258]     Train net output #0: loss = 0.700232 (* 1 = 0.700232 loss)
I1127 03:18:21.735183   811 sgd_solver.cpp:112] Iteration 50, lr = 0.01
"""  # noqa: E501, W291
# Without a usable device, a Caffe without our patch prints what lies in memory: any bytes but NUL.
GARBAGE = [
    b"\xf8\x9e\x1b[2J\xa9\x7f",
    b"\x80\xff\n\xfe rest of a name",
    b"\r\x07\xe2\x80\xa8",
    b"] Iteration 7, loss = 1",
    b"",
]
NO_DRIVER = (
    b"F1127 10:08:48.527980 19056 common.cpp:152] Check failed: error == cudaSuccess (35 vs. 0)  "
    b"CUDA driver version is insufficient for CUDA runtime version\n"
)


def findings(log):
    return finding_lines(summarize(make_table(log)), log)


def test_cpu_mode_of_a_build_for_gpus():
    log = read_lines([*CPU_MODE.splitlines(), *run_of([7 - i / 10 for i in range(20)])])
    assert sum(log.warnings.values()) == 5
    assert findings(log) == []
    on_gpu = read_lines([*ON_GPU.splitlines(), *CPU_MODE.splitlines()[1:]])
    assert [kind for kind, _ in findings(on_gpu)].count("warning") == 3


def test_a_crash_in_cpu_mode_has_another_cause():
    tracker = Tracker()
    for line in CPU_MODE.splitlines():
        tracker.line(line)
    outcome = Outcome(
        exit_status=-9, stop_requested=False, stalled="", abandoned=False, diverged=False,
        flooded="", newest=None, max_iter=100, free_bytes=None, pair_bytes=None,
    )  # fmt: skip
    verdict = judge(tracker.now, outcome)
    assert verdict.ending is Ending.CRASHED
    assert "SIGKILL" in verdict.why


def test_a_run_on_a_gpu(tmp_path):
    path = tmp_path / "train.log"
    path.write_text(ON_GPU)
    for log in (read_log(path), read_lines(ON_GPU.splitlines())):
        assert log.gpus == (0,)
        assert log.gpu_names == {0: "NVIDIA H100 80GB HBM3"}
        assert list(log.train.loss) == [2.44299, 0.700232]
        assert findings(log) == []


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_in_place_of_a_name(tmp_path, name):
    path = tmp_path / "train.log"
    first = b"I1127 10:08:48.503520 19056 caffe.cpp:204] Using GPUs 0, 1\n"
    line = b"I1127 10:08:48.527940 19056 caffe.cpp:209] GPU %d: %s\n"
    path.write_bytes(b"".join([first, line % (0, name), line % (1, name), NO_DRIVER]))
    log = read_log(path)
    assert log.gpus == (0, 1)
    assert log.fatal.startswith("Check failed: error == cudaSuccess (35")
    assert not any("\x1b" in text or "\ufffd" in text for _, text in config_lines(log))
    tracker = Tracker()
    for each in path.read_bytes().split(b"\n"):
        tracker.line(each.decode("utf-8", "replace"))
    assert "cudaSuccess (35 vs" in tracker.now.failure_text
    assert tracker.now.iteration in {None, 7}  # what looks like a line of Caffe is read as one
