"""The processes that train together, as one of them sees the others."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from irv2caffe.engine.parallel.averaging import GradientAverage
from irv2caffe.engine.parallel.store import wait_until_set
from irv2caffe.errors import InputError, UsageError, WorkerDiedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor

    from irv2caffe.engine.weights import Weight

TIMEOUT_S = 600.0
LAUNCHER = "IRV2CAFFE_LAUNCHER"
"""Environment variable: the process that started this rank, without which it must not live."""

_GRACE_S = 10.0
_PR_SET_PDEATHSIG = 1


class Group:
    """One process alone, and the interface of all groups; its methods do nothing.

    Attributes:
        rank: number of this process, from 0.
        world: how many processes there are, on all machines.
        local_rank: number of this process on its machine.
        device: where this process computes.
    """

    rank = 0
    world = 1
    local_rank = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def is_root(self) -> bool:
        """This process tests, writes the log and the snapshots."""
        return self.rank == 0

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites the tensors of all ranks with those of rank 0; before training."""

    def overlap(self, weights: Sequence[Weight]) -> None:
        """Averages the gradients of the next backward pass while that pass still runs.

        To be called before the last backward pass of an iteration, with the same list of weights;
        :meth:`average_gradients` completes what it began. Without it nothing is averaged early.
        """

    def average_gradients(self, weights: Sequence[Weight]) -> None:
        """Replaces each gradient by its mean over the ranks: the sum, then times 1 / world.

        As Caffe's NCCL<Dtype>::on_gradients_ready (src/caffe/parallel.cpp).
        """

    def agree(self, flag: bool) -> bool:
        """Returns whether any rank says yes; the same in all ranks."""
        return flag

    def wait_for_root(self) -> None:
        """Waits, however long it takes, until rank 0 is here too: after its tests and snapshots."""

    def barrier(self) -> None:
        """Waits until all ranks are here."""

    def close(self) -> None:
        """Leaves the group; all ranks do so together."""


SINGLE = Group(torch.device("cpu"))


@dataclass(frozen=True)
class RankEnvironment:
    """What torchrun and our launcher tell a rank in its environment."""

    rank: int
    world: int
    local_rank: int


def rank_environment() -> RankEnvironment | None:
    """Returns what was told to this process; None if it is no rank.

    Raises:
        UsageError: the variables are incomplete.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    try:
        rank, world, local = (int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"TORCHELASTIC_RUN_ID is set, but not RANK, WORLD_SIZE and LOCAL_RANK: {error}",
            "start it without these variables, or with torchrun",
        ) from error
    return RankEnvironment(rank, world, local)


def open_group(
    gpus: Sequence[int] = (), *, timeout_s: float = TIMEOUT_S, backend: str = ""
) -> Group:
    """Joins the group that the environment names; a group of one without such.

    Args:
        gpus: CUDA devices of the ranks of this machine, in order; none for the CPU.
        timeout_s: how long a rank waits for the others before it gives up.
        backend: of torch.distributed; NCCL on GPUs, gloo on the CPU.

    Raises:
        WorkerDiedError: the others cannot be reached.
        UsageError: there are fewer GPUs than ranks.
    """
    told = rank_environment()
    local_rank = told.local_rank if told is not None else 0
    if gpus and local_rank >= len(gpus):
        raise UsageError(f"local rank {local_rank} has no GPU: -gpu names {len(gpus)}")
    device = torch.device("cuda", gpus[local_rank]) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    if told is None:
        return Group(device)
    end_with_launcher()
    return _Ranks(told, device, timeout_s, backend)


def end_with_launcher() -> None:
    """Asks the kernel to kill this rank when its launcher ends, whatever ends it (Linux)."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None:
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):  # it has ended already
        os.kill(os.getpid(), signal.SIGKILL)


class _Ranks(Group):
    """Several processes, on one machine or more."""

    def __init__(
        self, told: RankEnvironment, device: torch.device, timeout_s: float, backend: str
    ) -> None:
        super().__init__(device)
        self.rank, self.world, self.local_rank = told.rank, told.world, told.local_rank
        # NCCL ends the process when its time is over; before that the control group says why.
        timeout = timedelta(seconds=timeout_s)
        longer = 2 * timeout if device.type == "cuda" else timeout
        with _joining():
            store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
            self._store = dist.PrefixStore("irv2caffe", store)
            dist.init_process_group(
                backend or ("nccl" if device.type == "cuda" else "gloo"),
                store=store,
                rank=self.rank,
                world_size=self.world,
                timeout=longer,
            )
            self._control = dist.new_group(backend="gloo", timeout=timeout)
        self._num_waits = 0
        self._average: GradientAverage | None = None
        self._weights: Sequence[Weight] = ()

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        given = [tensor.detach() for tensor in tensors]
        self._compare(sum(data.numel() for data in given))
        with self._peers():
            for data in given:
                whole = data.contiguous()
                dist.broadcast(whole, 0, None if data.is_cuda else self._control)
                if whole.data_ptr() != data.data_ptr():
                    data.copy_(whole)

    def _compare(self, count: int) -> None:
        with self._peers():
            counts = torch.tensor([count, -count])
            dist.all_reduce(counts, dist.ReduceOp.MAX, self._control)
        if counts[0] != -counts[1]:
            raise InputError(
                f"rank {self.rank} has {count:,} weights, others have up to {counts[0]:,}",
                "give all machines the same net",
            )

    def overlap(self, weights: Sequence[Weight]) -> None:
        self._averages(weights).begin()

    def average_gradients(self, weights: Sequence[Weight]) -> None:
        with self._peers():
            self._averages(weights).finish()

    def _averages(self, weights: Sequence[Weight]) -> GradientAverage:
        if self._average is None or self._weights is not weights:
            self._weights = weights
            self._average = GradientAverage(weights, self.world)
        return self._average

    def agree(self, flag: bool) -> bool:
        with self._peers():
            # On the CPU, so that no rank waits for its GPU.
            answer = torch.tensor([flag], dtype=torch.uint8)
            dist.all_reduce(answer, dist.ReduceOp.MAX, self._control)
            return bool(answer.item())

    def wait_for_root(self) -> None:
        self._num_waits += 1
        key = f"root/{self._num_waits}"
        with self._peers():
            if self.is_root:
                self._store.set(key, b"")
            else:
                wait_until_set(self._store, key)

    def barrier(self) -> None:
        self.agree(False)

    def close(self) -> None:
        self.wait_for_root()
        self.barrier()
        dist.destroy_process_group()

    @contextlib.contextmanager
    def _peers(self) -> Iterator[None]:
        """Says which ranks are missing when an exchange fails."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            missing = self._missing_ranks()
            reason = str(error).strip().splitlines()[0]
            raise WorkerDiedError(
                f"rank {self.rank} of {self.world} waits in vain for {missing}: {reason}",
                "the log of the machine of that rank says more",
            ) from error

    def _missing_ranks(self) -> str:
        """Names the ranks that do not report within a few seconds that they miss others.

        In the usual case that a rank has ended, the launcher kills this one meanwhile, so that the
        error of the other rank is the only one in the log.
        """
        try:
            self._store.set(f"misses/{self.rank}", b"")
            time.sleep(_GRACE_S)
            numbers = [n for n in range(self.world) if not self._store.check([f"misses/{n}"])]
        except RuntimeError:
            return "the machine of rank 0"
        if not numbers:
            return "another rank"
        return f"rank{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


@contextlib.contextmanager
def _joining() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise WorkerDiedError(
            f"rank {os.environ['RANK']} cannot join the others at {where}: {error}",
            "with several machines, GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the network",
        ) from error
