"""Ranks: what they exchange, how they hear signals, how they end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from helpers import ranks

from irv2caffe.engine.parallel.group import SINGLE, rank_environment
from irv2caffe.errors import UsageError

pytestmark = pytest.mark.slow


def finish(process):
    """Exit status and log of a launcher."""
    _, log = process.communicate(timeout=300)
    return process.returncode, log


def check_exchange(answers):
    """Ranks have the weights of rank 0, and gradients with the mean of their own factors."""
    world = len(answers)
    assert [answer["rank"] for answer in answers] == [[rank, world, rank] for rank in range(world)]
    expected = [weight.tensor.tolist() for weight in ranks.weights((3, 2), (4,), (2, 2), (5,))]
    for answer in answers:
        assert answer["weights"] == expected
        # two passes each; the factors are rank + 1 and rank
        for gradients in answer["gradients"]:
            assert gradients[0] == [[world + 1.0] * 2] * 3
            torch.testing.assert_close(gradients[1], [2 * (world - 1) * x for x in expected[1]])
            assert gradients[2] == [[0.0, 0.0]] * 2
        assert answer["agree"] == [False, world > 1, True]
        assert answer["root was first"]
        assert answer["statistic"]


def check_normalized(answers):
    """Ranks together have what one process has with all their batches."""
    x, top_gradient = ranks.batch(len(answers))
    x.requires_grad_()
    y = torch.nn.functional.batch_norm(x, None, None, training=True, eps=1e-3)
    y.backward(top_gradient)
    for place, expected in enumerate((y, x.grad)):
        parts = [torch.tensor(answer[place]) for answer in answers]
        torch.testing.assert_close(torch.cat(parts), expected)
    flat = x.transpose(0, 1).flatten(1)
    for answer in answers:
        torch.testing.assert_close(torch.tensor(answer[2]), flat.mean(1))
        torch.testing.assert_close(torch.tensor(answer[3]), flat.var(1))


@pytest.mark.parametrize(
    ("task", "check"), [("exchange", check_exchange), ("normalize", check_normalized)]
)
def test_two_ranks(tmp_path, task, check):
    assert finish(ranks.start(2, task, tmp_path)) == (0, "")
    answers = ranks.answers(tmp_path)
    assert len(answers) == 2
    check(answers)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("task", "check"), [("exchange", check_exchange), ("normalize", check_normalized)]
)
@pytest.mark.parametrize(("gpus", "backend"), [("0", "nccl"), ("0,0", "gloo"), ("0,1", "nccl")])
def test_ranks_on_gpus(tmp_path, monkeypatch, task, check, gpus, backend):
    numbers = gpus.split(",")
    if torch.cuda.device_count() <= int(numbers[-1]):
        pytest.skip(f"needs GPU {numbers[-1]}")
    monkeypatch.setenv("TEST_GPUS", gpus)
    monkeypatch.setenv("TEST_BACKEND", backend)  # NCCL refuses two ranks on one GPU
    status, log = finish(ranks.start(len(numbers), task, tmp_path))
    assert status == 0, log
    answers = ranks.answers(tmp_path)
    assert len(answers) == len(numbers)
    check(answers)


@pytest.mark.parametrize("whole_group", [False, True])
def test_signals_are_acted_on_once_and_by_all(tmp_path, whole_group):
    launcher = ranks.start(3, "until_signal", tmp_path)
    for number in range(3):
        ranks.wait_for(tmp_path / f"pid{number}", launcher)
    send = os.killpg if whole_group else os.kill
    for count in (1, 2):
        send(launcher.pid, signal.SIGHUP)
        for number in range(3):
            ranks.wait_for(tmp_path / f"snapshot{number}-{count}", launcher)
    send(launcher.pid, signal.SIGINT)
    assert finish(launcher) == (0, "")
    answers = ranks.answers(tmp_path)
    assert len(answers) == 3
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["snapshots"] == 2


@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_rank_ends_the_run(tmp_path, number):
    launcher = ranks.start(2, "until_signal", tmp_path)
    for each in range(2):
        ranks.wait_for(tmp_path / f"pid{each}", launcher)
    pids = [int((tmp_path / f"pid{each}").read_text()) for each in range(2)]
    os.kill(pids[number], signal.SIGKILL)
    status, log = finish(launcher)
    assert status == 128 + signal.SIGKILL
    assert log == f"F rank {number} of 2 (process {pids[number]}) was killed by SIGKILL\n"
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_killed_launcher_leaves_no_rank(tmp_path):
    launcher = ranks.start(2, "until_signal", tmp_path)
    for each in range(2):
        ranks.wait_for(tmp_path / f"pid{each}", launcher)
    ends = [os.pidfd_open(int((tmp_path / f"pid{each}").read_text())) for each in range(2)]
    launcher.kill()
    for end in ends:
        # readable once the process has ended; the timeout of the test is the limit
        signal_safe_wait(end)
        os.close(end)
    finish(launcher)


def signal_safe_wait(end):
    """Waits for the end of a process that is no child."""
    import select

    poll = select.poll()
    poll.register(end, select.POLLIN)
    assert poll.poll(300_000)


def test_the_error_of_a_rank_comes_last(tmp_path):
    status, log = finish(ranks.start(2, "exception", tmp_path))
    assert status == 1
    assert log.endswith("no space left on this device\n")
    assert "F rank 1 of 2" in log


def test_a_rank_that_hangs_is_named(tmp_path):
    status, log = finish(ranks.start(3, "hang", tmp_path))
    assert status == 1
    assert "waits in vain for rank 2:" in log


def test_a_group_of_one_changes_nothing(monkeypatch):
    assert SINGLE.is_root
    assert SINGLE.agree(True)
    assert not SINGLE.agree(False)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert rank_environment() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match="RANK"):
        rank_environment()
