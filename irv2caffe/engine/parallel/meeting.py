"""How the launchers of several machines find each other and number their ranks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import socket
import struct
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from irv2caffe.engine.parallel.store import wait_until_set
from irv2caffe.errors import InputError, UsageError, WorkerDiedError

MEETING_S = 600.0

_READ_S = 10.0
_SLICE_S = 1.0
_SIOCGIFADDR = 0x8915


@dataclass(frozen=True)
class Machines:
    """The machines that train together, as the options name them.

    Attributes:
        nnodes: how many there are.
        node_rank: the number of this one, from 0; None to be numbered in order of arrival.
        rdzv_endpoint: ``HOST:PORT`` of machine 0, where all meet; any free port on one machine.
        rdzv_id: a name of the run, equal on all machines.
        timeout_s: how long to wait for the others.
    """

    nnodes: int = 1
    node_rank: int | None = None
    rdzv_endpoint: str = "127.0.0.1:0"
    rdzv_id: str = "irv2caffe"
    timeout_s: float = MEETING_S

    def __post_init__(self) -> None:
        """Raises a UsageError for values that cannot be meant."""
        if self.nnodes < 1:
            raise UsageError(f"--nnodes {self.nnodes}: at least 1")
        if self.node_rank is not None and not 0 <= self.node_rank < self.nnodes:
            raise UsageError(f"--node-rank {self.node_rank}: from 0 to {self.nnodes - 1}")
        host, _, port = self.rdzv_endpoint.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise UsageError(f"--rdzv-endpoint {self.rdzv_endpoint!r}", "HOST:PORT of machine 0")
        if self.nnodes > 1 and int(port) == 0:
            raise UsageError(
                "several machines need a place to meet", "--rdzv-endpoint HOST:PORT of machine 0"
            )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of machine 0."""
        host, _, port = self.rdzv_endpoint.rpartition(":")
        return host.strip("[]"), int(port)


@dataclass(frozen=True)
class Meeting:
    """What the launcher of one machine knows after all have met.

    Attributes:
        store: small values that all launchers and ranks see.
        host: where the store is.
        port: its port.
        node: number of this machine.
        first_rank: number of its first rank.
        world: how many ranks there are on all machines.
        interface: network interface to the others; empty if the system shall choose.
    """

    store: dist.Store
    host: str
    port: int
    node: int
    first_rank: int
    world: int
    interface: str = ""


def meet(machines: Machines, num_ranks: int) -> Meeting:
    """Waits until the launchers of all machines are there.

    Args:
        machines: that train together.
        num_ranks: how many ranks this machine starts.

    Raises:
        InputError: the machines were started with options that do not fit together.
        WorkerDiedError: some did not come in time.
    """
    host, port = machines.address
    deadline = time.monotonic() + machines.timeout_s
    server = _listen(machines)
    if server is not None:
        port = server.getsockname()[1]
        store = _store(host, port, server)
    else:
        _wait_until_open(host, port, deadline)
        store = _store(host, port)
    shared = dist.PrefixStore("launchers", store)
    node = _number(machines, shared, is_server=server is not None)
    told = {"nnodes": machines.nnodes, "rdzv_id": machines.rdzv_id, "ranks": num_ranks}
    shared.set(f"node/{node}", json.dumps(told | {"host": platform.node()}))
    nodes = _all_nodes(machines, shared, deadline)
    shared.set(f"read/{node}", "")
    try:
        _check_same(machines, nodes)
    except InputError:
        if server is not None:  # the store ends with this process: the others read it first
            for other in range(machines.nnodes):
                wait_until_set(shared, f"read/{other}", _READ_S)
        raise
    ranks = [int(other["ranks"]) for other in nodes]
    interface = "lo" if machines.nnodes == 1 else _interface_to(host, port)
    return Meeting(shared, host, port, node, sum(ranks[:node]), sum(ranks), interface)


def _store(host: str, port: int, server: socket.socket | None = None) -> dist.TCPStore:
    return dist.TCPStore(
        host,
        port,
        is_master=server is not None,
        wait_for_workers=False,
        timeout=timedelta(seconds=60),
        master_listen_fd=None if server is None else server.detach(),
    )


def _listen(machines: Machines) -> socket.socket | None:
    """Opens the port of the meeting if this is machine 0, which has the address of the endpoint."""
    if machines.node_rank:
        return None
    host, port = machines.address
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        server = socket.socket(family, kind, protocol)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen(4096)
    except OSError as error:
        # Another machine has the address, or another launcher here was first.
        is_other = error.errno in {errno.EADDRNOTAVAIL, errno.EADDRINUSE}
        if is_other and machines.node_rank is None and machines.nnodes > 1:
            return None
        raise UsageError(
            f"machine 0 cannot listen at {machines.rdzv_endpoint}: {error}",
            "--rdzv-endpoint needs an address of this machine and a free port",
        ) from error
    return server


def _wait_until_open(host: str, port: int, deadline: float) -> None:
    """Waits in short slices, so that a Ctrl-C is heard."""
    while True:
        try:
            socket.create_connection((host, port), timeout=_SLICE_S).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise WorkerDiedError(
                    f"machine 0 does not answer at {host}:{port}: {error}",
                    "start it there too, and let the port through its firewall",
                ) from error
            time.sleep(_SLICE_S / 4)


def _number(machines: Machines, store: dist.Store, *, is_server: bool) -> int:
    """The number of this machine: as told, or in order of arrival."""
    if is_server:
        return 0
    if machines.node_rank is None:
        node = int(store.add("arrived", 1))
        if node >= machines.nnodes:
            raise InputError(
                f"this is machine {node + 1} of --nnodes {machines.nnodes}",
                "end the training that uses this --rdzv-endpoint, or take another port",
            )
        return node
    if store.add(f"taken/{machines.node_rank}", 1) > 1:
        raise InputError(f"two machines have --node-rank {machines.node_rank}")
    return machines.node_rank


def _all_nodes(machines: Machines, store: dist.Store, deadline: float) -> list[dict[str, Any]]:
    """What all machines told, in order of their numbers."""
    for node in range(machines.nnodes):
        if not wait_until_set(store, f"node/{node}", deadline - time.monotonic()):
            raise WorkerDiedError(
                f"machine {node} of {machines.nnodes} did not come to"
                f" {machines.rdzv_endpoint} within {machines.timeout_s:.0f} s",
                "start the same command on it, with the same --rdzv-endpoint",
            )
    return [json.loads(store.get(f"node/{node}")) for node in range(machines.nnodes)]


def _check_same(machines: Machines, nodes: list[dict[str, Any]]) -> None:
    """Refuses machines that were started with other options than this one."""
    for key, mine in (("nnodes", machines.nnodes), ("rdzv_id", machines.rdzv_id)):
        for node, told in enumerate(nodes):
            if told[key] != mine:
                flag = "--" + key.replace("_", "-")
                raise InputError(
                    f"machine {node} ({told['host']}) has {flag} {told[key]!r}, this one {mine!r}",
                    "give all machines the same",
                )


def _interface_to(host: str, port: int) -> str:
    """The network interface whose address this machine uses towards machine 0 (IPv4, Linux).

    Gloo would take the address of this machine's own name, which is often 127.0.1.1.
    """
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return os.environ["GLOO_SOCKET_IFNAME"]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                request = struct.pack("256s", name.encode()[:15])
                reply = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
                if socket.inet_ntoa(reply[20:24]) == own:
                    return name
    return ""
