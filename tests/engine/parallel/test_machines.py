"""Several machines: how their launchers meet, and how they end together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest
import torch
from helpers import ranks

from irv2caffe.engine.parallel.meeting import Machines
from irv2caffe.errors import UsageError

pytestmark = pytest.mark.slow

NEW_NETWORK = ("unshare", "--map-root-user", "--net")


@pytest.fixture
def endpoint():
    """A free port of the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def finish(*launchers):
    """Exit statuses and logs."""
    logs = [launcher.communicate(timeout=300)[1] for launcher in launchers]
    return [launcher.returncode for launcher in launchers], logs


def started(launchers, folder, num_ranks):
    """Waits until all ranks run; their process numbers."""
    for number in range(num_ranks):
        ranks.wait_for(folder / f"pid{number}", launchers[0])
    return [int((folder / f"pid{number}").read_text()) for number in range(num_ranks)]


def check_exchange(folder, places):
    """The ranks exchanged what they should; places are local ranks in order."""
    answers = ranks.answers(folder)
    world = len(places)
    assert [answer["rank"] for answer in answers] == [
        [rank, world, place] for rank, place in enumerate(places)
    ]
    weights = [weight.tensor.tolist() for weight in ranks.weights((3, 2), (4,), (2, 2), (5,))]
    for answer in answers:
        assert answer["weights"] == weights
        for first, second, _ in answer["gradients"]:
            torch.testing.assert_close(torch.tensor(first), torch.full((3, 2), world + 1.0))
            wanted = 2 * (world - 1) * torch.tensor(weights[1])
            torch.testing.assert_close(torch.tensor(second), wanted)


@pytest.mark.parametrize("numbered", [False, True])
def test_two_launchers_on_the_loopback(tmp_path, endpoint, numbered):
    options = {"nnodes": 2, "rdzv_endpoint": endpoint}
    # the second one starts first, and must wait; without numbers the first to come is machine 0
    launchers = [
        ranks.start(count, "exchange", tmp_path, node_rank=node if numbered else None, **options)
        for node, count in ((1, 1), (0, 2))
    ]
    statuses, logs = finish(*launchers)
    assert (statuses, logs) == ([0, 0], ["", ""])
    places = [0, 1, 0] if numbered else [x["rank"][2] for x in ranks.answers(tmp_path)]
    assert places in ([0, 1, 0], [0, 0, 1])
    check_exchange(tmp_path, places)


def test_two_machines_in_network_namespaces(tmp_path):
    probe = [*NEW_NETWORK, "ip", "link", "add", "here", "type", "veth", "peer", "name", "there"]
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("needs unshare and ip")
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("network namespaces are not allowed here")
    command = [sys.executable, "-m", "helpers.two_machines", "exchange", str(tmp_path), "29400"]
    done = subprocess.run(
        [*NEW_NETWORK, *command], cwd=ranks.TESTS, capture_output=True, text=True, check=True
    )
    statuses, logs = json.loads(done.stdout)
    assert statuses == [0, 0]
    lines = "".join(logs).splitlines()  # there is no name server in the new networks
    assert all("The hostname of the client socket cannot be retrieved" in line for line in lines)
    check_exchange(tmp_path, [0, 0])


def test_a_failure_on_one_machine_ends_the_other(tmp_path, endpoint):
    options = {"nnodes": 2, "rdzv_endpoint": endpoint}
    launchers = [ranks.start(1, "until_signal", tmp_path, node_rank=n, **options) for n in (0, 1)]
    pids = started(launchers, tmp_path, 2)
    os.kill(pids[1], signal.SIGKILL)
    statuses, logs = finish(*launchers)
    assert statuses == [1, 128 + signal.SIGKILL]
    words = f"rank 1 of 2 (process {pids[1]}) was killed by SIGKILL\n"
    assert logs == [f"F machine 1: {words}", f"F {words}"]


def test_a_lost_machine_ends_the_other(tmp_path, endpoint):
    options = {"nnodes": 2, "rdzv_endpoint": endpoint}
    launchers = [ranks.start(1, "until_signal", tmp_path, node_rank=n, **options) for n in (0, 1)]
    started(launchers, tmp_path, 2)
    launchers[0].kill()
    statuses, logs = finish(*launchers)
    assert statuses == [-signal.SIGKILL, 1]
    assert "machine 0 is gone" in logs[1]


def test_a_signal_to_one_machine_stops_all(tmp_path, endpoint):
    options = {"nnodes": 2, "rdzv_endpoint": endpoint}
    launchers = [ranks.start(1, "until_signal", tmp_path, node_rank=n, **options) for n in (0, 1)]
    started(launchers, tmp_path, 2)
    launchers[1].send_signal(signal.SIGINT)
    assert finish(*launchers) == ([0, 0], ["", ""])
    first, second = ranks.answers(tmp_path)
    assert first == second


def test_machines_started_with_different_options(tmp_path, endpoint):
    launchers = [
        ranks.start(1, "exchange", tmp_path, nnodes=2, rdzv_endpoint=endpoint, rdzv_id=name)
        for name in ("a", "b")
    ]
    statuses, logs = finish(*launchers)
    assert statuses == [1, 1]
    assert all("--rdzv-id" in log and "give all machines the same" in log for log in logs)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nnodes": 0}, "--nnodes 0"),
        ({"nnodes": 2}, "a place to meet"),
        ({"nnodes": 2, "node_rank": 2, "rdzv_endpoint": "a:1"}, "--node-rank 2: from 0 to 1"),
        ({"rdzv_endpoint": "host"}, "--rdzv-endpoint 'host'"),
        ({"rdzv_endpoint": "host:99999"}, "--rdzv-endpoint"),
    ],
)
def test_options_that_cannot_be_meant(options, words):
    with pytest.raises(UsageError, match=words):
        Machines(**options)
