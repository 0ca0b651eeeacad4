"""Engine, a program that trains; CaffeEngine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from irv2caffe.caffe.capability import capability, check_gpus
from irv2caffe.caffe.command import tool_command
from irv2caffe.config.gpus import CAFFE_FOR_GPUS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.caffe.capability import Capability
    from irv2caffe.caffe.command import Command
    from irv2caffe.caffe.docker import Container
    from irv2caffe.caffe.find import FoundCaffe


class Engine(ABC):
    """A program that trains; it has the command line, log, signals and files of ``caffe``.

    Attributes:
        name: ``caffe`` or ``torch``, as ``--engine`` takes it.
        title: its name in messages.
        why: why it was chosen and how to choose otherwise; may be empty.
        program: the program, for messages.
        reason: where the program was found.
        no_gpu: why it cannot use GPUs; follows "is" in messages.
        gpu_help: what to do for an engine that can use GPUs.
        image: the docker image that it runs in, or empty.
        workers: number of processes on the CPU.
        machines: number of machines that train together.
        base_bytes: memory of a process on the CPU before it has a net.
        moot_rules: rules of check about what its options change.
        saves: this machine tests and writes the snapshots.
        layer_types: the layer types that it runs; empty if unknown.
        changes: what its options change against Caffe's numbers, one line each.
        options: its own options by name, those with default values included.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    why: str
    program: str
    reason: str
    no_gpu: str
    gpu_help: str
    image: str = ""
    workers: int = 1
    machines: int = 1
    base_bytes: int = 0
    moot_rules: frozenset[str] = frozenset()
    saves: bool = True
    layer_types: frozenset[str] = frozenset()
    changes: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """Its own options by name, those with default values included."""
        return {}

    @abstractmethod
    def capability(self) -> Capability:
        """What it supports.

        Raises:
            Irv2CaffeError: it cannot be run.
        """

    def build(self, can: Capability) -> str:
        """Version and capabilities in one line."""
        return can.text()

    def takes_locks(self, can: Capability | None) -> bool:  # noqa: ARG002
        """Whether it locks the databases that it reads."""
        return False

    def stall_help(self, solver: Any, num_devices: int) -> str:  # noqa: ARG002
        """What to try after a stall; may be empty."""
        return ""

    def change_after_stall(self, solver: Any, num_devices: int) -> str:  # noqa: ARG002
        """Changes a solver before the restart; what was changed, or an empty text."""
        return ""

    def check_devices(self, uuids: Sequence[str] | None) -> None:  # noqa: B027 - most can use all
        """Refuses GPUs whose driver it cannot use, or for which it holds no code.

        Args:
            uuids: the GPUs; None for the CPU.
        """

    def resolved(self, *, on_gpus: bool) -> Self:  # noqa: ARG002
        """The same engine with the default options for GPUs or the CPU."""
        return self

    @abstractmethod
    def command(self, args: Sequence[str], container: Container | None = None) -> Command:
        """The command for the arguments of ``caffe``."""

    @abstractmethod
    def record(self, can: Capability | None) -> dict[str, Any]:
        """Entries of ``config.json`` that a resumed run reads."""


@dataclass(frozen=True)
class CaffeEngine(Engine):
    """BVLC's Caffe, or a fork of it."""

    found: FoundCaffe
    why: str = ""
    name = "caffe"
    title = "Caffe"
    no_gpu = "built without GPU support"
    gpu_help = CAFFE_FOR_GPUS

    @property
    def program(self) -> str:  # type: ignore[override]
        """The program, for messages."""
        return self.found.name

    @property
    def reason(self) -> str:  # type: ignore[override]
        """Where it was found."""
        return self.found.reason

    @property
    def image(self) -> str:  # type: ignore[override]
        """Its docker image, or empty."""
        return self.found.image

    def capability(self) -> Capability:
        """What it supports."""
        return capability(self.found)

    def stall_help(self, solver: Any, num_devices: int) -> str:
        """With several GPUs, NCCL may be what waits."""
        if num_devices < 2:
            return ""
        if solver.layer_wise_reduce:
            return "write layer_wise_reduce: false into the solver, in case NCCL has stalled"
        return (
            "NCCL may have stalled: NCCL_DEBUG=INFO shows where, NCCL_P2P_DISABLE=1 keeps GPUs "
            "from direct copies; or train on one GPU with --gpus 0 and twice the iter_size"
        )

    def change_after_stall(self, solver: Any, num_devices: int) -> str:
        """Lets NCCL sum all gradients at once, after the backward pass; the sums are the same.

        By default each layer's are summed while the next ones are computed (parallel.cpp), and
        memory that is allocated meanwhile can block NCCL.
        """
        if num_devices < 2 or not solver.layer_wise_reduce:
            return ""
        solver.layer_wise_reduce = False
        return "layer_wise_reduce is false now, in case NCCL has stalled"

    def check_devices(self, uuids: Sequence[str] | None) -> None:
        """Refuses GPUs without a driver or code for them."""
        if uuids is not None:
            check_gpus(self.found, uuids)

    def takes_locks(self, can: Capability | None) -> bool:
        """BVLC's does, but docker gives a container databases on read-only mounts."""
        return (can is None or can.flavor == "bvlc") and not self.image

    def command(self, args: Sequence[str], container: Container | None = None) -> Command:
        """The command for the arguments of ``caffe``."""
        return tool_command(self.found, "caffe", args, container=container)

    def record(self, can: Capability | None) -> dict[str, Any]:
        """The Caffe, so that the same one is used when the run is resumed."""
        caffe = {
            "root": str(self.found.root),
            "program": self.program,
            "image": self.image,
            "reason": self.reason,
            "version": can.version if can is not None else None,
            "build": can.text() if can is not None else None,
            "flavor": can.flavor if can is not None else "bvlc",
        }
        return {"engine": self.name, "caffe": caffe}
