"""A program that runs as several ranks: what they exchange, and how they end.

Started as ``python -m helpers.ranks NUM_RANKS TASK FOLDER [MACHINES]``, it launches itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch

from irv2caffe.engine.parallel import sync_bn
from irv2caffe.engine.parallel.group import open_group, rank_environment
from irv2caffe.engine.parallel.launcher import FORWARDED, launch
from irv2caffe.engine.parallel.meeting import Machines
from irv2caffe.engine.weights import Weight
from irv2caffe.errors import Irv2CaffeError

TESTS = Path(__file__).parents[1]


def start(num_ranks, task, folder, *, prefix=(), **machines) -> subprocess.Popen:
    """The launcher of one machine, in a session of its own."""
    command = [sys.executable, "-m", "helpers.ranks", num_ranks, task, folder, json.dumps(machines)]
    return subprocess.Popen(
        [*prefix, *map(str, command)],
        cwd=TESTS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def answers(folder) -> list:
    """What the ranks said, in order."""
    files = sorted(Path(folder).glob("rank*.json"))
    return [json.loads(file.read_text()) for file in files]


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Waits until a rank has made a file."""
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def weights(*shapes, rank=0, device="cpu") -> list[Weight]:
    """Weights that differ between ranks; the last one is a statistic."""
    torch.manual_seed(rank)
    tensors = [torch.randn(shape).to(device) for shape in shapes]
    for tensor in tensors[:-1]:
        tensor.requires_grad_()
    return [
        Weight(tensor, float(tensor.requires_grad), 1.0, f"layer{place}", 0)
        for place, tensor in enumerate(tensors)
    ]


def exchange(group, folder):
    """Everything that ranks exchange."""
    mine = weights((3, 2), (4,), (2, 2), (5,), rank=group.rank, device=group.device)
    group.broadcast(weight.tensor for weight in mine)
    first, second, unused, statistic = (weight.tensor for weight in mine)
    learned = (first, second, unused)
    gradients = []
    for turn in range(5):
        places = [None if turn < 2 else torch.zeros_like(weight) for weight in learned]
        for weight, place in zip(learned, places, strict=True):
            if turn < 4:
                weight.grad = place  # others keep gradients where they want
            else:
                weight.grad.zero_()
        for is_last in (False, True):
            if turn and is_last:
                group.overlap(mine)
            loss = ((group.rank + 1) * first).sum() + (second**2).sum() * group.rank
            loss.backward()
        group.average_gradients(mine)
        gradients.append([weight.grad.tolist() for weight in learned])
        if 2 <= turn < 4:
            assert all(w.grad is place for w, place in zip(learned, places, strict=True))
    if group.is_root:
        (folder / "root").touch()
    group.wait_for_root()
    return {
        "rank": [group.rank, group.world, group.local_rank],
        "weights": [weight.tensor.tolist() for weight in mine],
        "gradients": gradients,
        "statistic": statistic.grad is None,
        "agree": [group.agree(flag) for flag in (False, group.rank == 1, True)],
        "root was first": (folder / "root").exists(),
    }


def until_signal(group, folder):
    """Iterations until a SIGINT; each SIGHUP is counted by all ranks."""
    heard = []
    for number in FORWARDED:
        signal.signal(number, lambda number, _: heard.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    (folder / f"pid{group.rank}").write_text(str(os.getpid()))
    iteration = snapshots = 0
    while True:
        iteration += 1
        now, heard[:] = list(heard), []
        if group.agree(signal.SIGHUP in now):
            snapshots += 1
            (folder / f"snapshot{group.rank}-{snapshots}").touch()
        if group.agree(signal.SIGINT in now):
            return {"iteration": iteration, "snapshots": snapshots}


def exception(group, folder):
    """The last rank fails while the others wait for it."""
    if group.rank == group.world - 1:
        raise SystemExit("no space left on this device")
    return until_signal(group, folder)


def hang(group, folder):
    """The last rank never comes."""
    group.agree(False)
    # all have joined, however busy the machine is
    torch.distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=2), group._control)
    while group.rank == group.world - 1:
        signal.pause()
    group.agree(False)


def normalize(group, folder):
    """BatchNorm over the batches of all ranks; a loss that weighs each value differently."""
    x, top_gradient = batch(group.world)
    mine = slice(4 * group.rank, 4 * group.rank + 4)
    bottom = x[mine].to(group.device).requires_grad_()
    top, mean, variance = sync_bn.normalize_all(bottom, 1e-3)
    (top * top_gradient[mine].to(group.device)).sum().backward()
    return [tensor.tolist() for tensor in (top, bottom.grad, mean, variance)]


def batch(world) -> tuple[torch.Tensor, torch.Tensor]:
    """The batches of all ranks, 4 pictures each, far from zero; and gradients of the top."""
    torch.manual_seed(1)
    x = torch.randn(4 * world, 3, 5, 2) + torch.arange(4.0 * world)[:, None, None, None]
    return x, torch.randn(4 * world, 3, 5, 2)


def _rank(task, folder) -> int:
    gpus = [int(number) for number in os.environ.get("TEST_GPUS", "").split(",") if number]
    group = open_group(gpus, timeout_s=120, backend=os.environ.get("TEST_BACKEND", ""))
    answer = globals()[task](group, folder)
    (folder / f"rank{group.rank}.json").write_text(json.dumps(answer))
    group.close()
    return 0


def main(num_ranks, task, folder, machines) -> int:
    """One launcher or one rank."""
    try:
        if rank_environment() is not None:
            return _rank(task, Path(folder))
        command = [sys.executable, "-m", "helpers.ranks", *sys.argv[1:]]
        options = Machines(**json.loads(machines))
        return launch(
            command, int(num_ranks), options, fatal=lambda text: print("F", text, file=sys.stderr)
        )
    except Irv2CaffeError as error:
        print("F", error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
