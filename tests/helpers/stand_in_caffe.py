"""Stands in for a Caffe where the real one cannot show the thing: GPUs, hangs, a driver's errors.

Takes the arguments of ``caffe train``, prints the lines of 1.0 and writes real snapshots. What
happens to it says the environment: STAND_IN is ``well``, ``hang`` (after a stop, with several
GPUs, as BVLC does), ``stall`` (silent from iteration 30 on, whatever it is asked), ``hang
when done``, or words that it gives up with at iteration 30, in its first start
only; with ``when done: `` before them it does so at its end. With STAND_IN_VERSION 0.17.x it says
it all as NVCaffe does, and its snapshots are named and filled as NVCaffe's are. STAND_IN_SCORES are
the top-1 accuracies of its tests, in order; without them it tests at its end only.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from irv2caffe.proto import messages
from irv2caffe.proto.text import read_prototxt

STEP_S = 0.002
AT_END = "when done: "
VERSION = os.environ.get("STAND_IN_VERSION", "1.0.0")
SCORES = os.environ.get("STAND_IN_SCORES", "")
IS_NVCAFFE = VERSION.startswith("0.")
# Fields 7090 and 7092 of a message, which the schema of 1.0 does not know.
STRANGE = b"\x90\xbb\x03\x01\xa2\xbb\x03\x03abc"
asked: list[int] = []


def log(message: str, severity: str = "I") -> None:
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 1e6):06}"
    print(f"{severity}{stamp} {os.getpid():5} solver.cpp:1] {message}", file=sys.stderr, flush=True)


def snapshot(solver, iteration: int) -> None:
    model, state = messages.NetParameter(), messages.SolverState()
    net = read_prototxt(Path(solver.net), messages.NetParameter)
    for layer in net.layer:
        if messages.TEST not in {rule.phase for rule in layer.include if rule.HasField("phase")}:
            kept = model.layer.add()
            kept.CopyFrom(layer)
            if IS_NVCAFFE:
                kept.MergeFromString(STRANGE)
            if layer.type == "InnerProduct":
                blob = kept.blobs.add()
                blob.shape.dim.extend((2, 3))
                blob.data.extend([0.5] * 6)
    score = "_score0_0.75" if IS_NVCAFFE else ""
    prefix = f"{solver.snapshot_prefix}_iter_{iteration}{score}"
    state.iter, state.learned_net = iteration, f"{prefix}.caffemodel"
    state.history.add().data.extend([0.1] * 6)
    for kind, path, message in (
        ("", f"{prefix}.caffemodel", model),
        ("solver state ", f"{prefix}.solverstate", state),
    ):
        log(f"Snapshotting {kind}to binary proto file {path}")
        Path(path).write_bytes(message.SerializeToString())


def main() -> None:
    if "--version" in sys.argv:
        print("caffe version", VERSION)
        return
    args = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
    how = os.environ.get("STAND_IN", "well")
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: asked.append(number))
    solver = read_prototxt(Path(args["-solver"]), messages.SolverParameter)
    if "-gpu" in args:
        log(f"Using GPUs {', '.join(args['-gpu'].split(','))}")
    first = 0
    if "-snapshot" in args:
        first = int(re.search(r"_iter_(\d+)", args["-snapshot"])[1])
    if not iterate(solver, first, how):
        return
    if not solver.snapshot or solver.max_iter % solver.snapshot:
        snapshot(solver, solver.max_iter)
    if solver.test_interval and solver.max_iter % solver.test_interval == 0:
        test(solver.max_iter, "0.75")
    log(f"Iteration {solver.max_iter}, loss = 0.5")
    log("Optimization Done in 0h 0m 1s" if IS_NVCAFFE else "Optimization Done.")
    if how == "hang when done":
        time.sleep(1000)
    if how.startswith(AT_END):
        give_up(how.removeprefix(AT_END))


def iterate(solver, first: int, how: str) -> bool:
    """Whether it came to its end."""
    worker = subprocess.Popen(["sleep", "1000"]) if how == "hang" else None
    scores = SCORES.split(",") if SCORES else []
    for iteration in range(first, solver.max_iter):
        if scores and iteration and iteration % solver.test_interval == 0:
            test(iteration, scores.pop(0))
        if iteration % solver.display == 0:
            display(iteration, solver.base_lr)
        time.sleep(STEP_S)
        if iteration == 30 and not first:
            trouble(how)
        done = iteration + 1
        request = asked.pop(0) if asked else 0
        if request or (solver.snapshot and done % solver.snapshot == 0):
            snapshot(solver, done)
        if request == signal.SIGINT:
            log("Optimization stopped early.")
            while worker is not None:
                time.sleep(1)
            log("Optimization Done.")
            return False
    return True


def display(iteration: int, lr: float) -> None:
    if IS_NVCAFFE:
        log(f"    [0.0] Iteration {iteration} (500 iter/s, 0.02s/10 iter), 1.2/90ep, loss = 0.5")
        log("    [0.0]     Train net output #0: loss = 0.5 (* 1 = 0.5 loss)")
        log(f"[0.0] Iteration {iteration}, lr = {lr:g}, m = 0.9, lrm = {lr:g}, wd = 0.0004, gs = 1")
    else:
        log(f"Iteration {iteration} (-1.7e+17 iter/s, 0s/10 iters), loss = 0.5")
        log("    Train net output #0: loss = 0.5 (* 1 = 0.5 loss)")
        log(f"Iteration {iteration}, lr = {lr:g}")


def test(iteration: int, score: str) -> None:
    first, second = ("[0.0] ", "(0.0) ") if IS_NVCAFFE else ("", "")
    log(f"{first}Iteration {iteration}, Testing net (#0)")
    log(f"{second}    Test net output #0: acc/top-1 = {score}")
    log(f"{second}    Test net output #1: loss = 0.4 (* 1 = 0.4 loss)")
    if IS_NVCAFFE:
        log("[MultiGPU] Tests completed in 0.1s")


def trouble(how: str) -> None:
    if how == "stall":
        time.sleep(1000)
    elif how not in {"well", "hang", "hang when done"} and not how.startswith(AT_END):
        give_up(how)


def give_up(words: str) -> None:
    if words.startswith("F "):
        log(words[2:], "F")
    else:
        print(words, file=sys.stderr, flush=True)
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    os.abort()


if __name__ == "__main__":
    main()
