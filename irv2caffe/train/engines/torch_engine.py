"""TorchEngine: PyTorch, started as a program that behaves as ``caffe`` does."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from irv2caffe.caffe.capability import Capability
from irv2caffe.caffe.command import Command
from irv2caffe.train.engines.engine import Engine
from irv2caffe.train.engines.torch_facts import PROGRAM, TorchFacts
from irv2caffe.train.engines.torch_options import TorchOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.caffe.docker import Container


@dataclass(frozen=True)
class TorchEngine(Engine):
    """The torch engine of this installation.

    Attributes:
        facts: what the installed PyTorch can do.
        torch: the options of the engine.
        why: why it was chosen, and how to choose otherwise.
    """

    facts: TorchFacts
    torch: TorchOptions = field(default_factory=TorchOptions)
    why: str = ""
    base_bytes = 260 << 20  # 242 MB with PyTorch 2.13, before the first thread
    name = "torch"
    title = "the torch engine"
    program = f"python -m {PROGRAM[-1]}"
    reason = PROGRAM[0]

    @property
    def no_gpu(self) -> str:  # type: ignore[override]
        """Why it cannot use GPUs."""
        return self.facts.no_gpu

    @property
    def gpu_help(self) -> str:  # type: ignore[override]
        """What to do for an engine that can use GPUs."""
        return self.facts.gpu_help

    @property
    def workers(self) -> int:  # type: ignore[override]
        """Number of processes on the CPU."""
        return self.torch.workers

    @property
    def machines(self) -> int:  # type: ignore[override]
        """Number of machines that train together."""
        return self.torch.nnodes

    @property
    def moot_rules(self) -> frozenset[str]:  # type: ignore[override]
        """Rules of check about what its options change."""
        return self.torch.moot_rules()

    @property
    def saves(self) -> bool:  # type: ignore[override]
        """Machine 0 tests and writes the snapshots."""
        return not self.torch.node_rank

    @property
    def layer_types(self) -> frozenset[str]:  # type: ignore[override]
        """The layer types that it runs."""
        return self.facts.layer_types

    @property
    def changes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What its options change against Caffe's numbers, one line each."""
        return self.torch.changes()

    @property
    def options(self) -> dict[str, Any]:
        """Its options by name, those with default values included."""
        return asdict(self.torch)

    def capability(self) -> Capability:
        """What it supports; batch sizes are per GPU, as in BVLC's Caffe."""
        gpu = self.facts.num_gpus > 0
        return Capability(self.facts.version, "bvlc", gpu, gpu and self.facts.several_gpus)

    def build(self, can: Capability) -> str:
        """Version and capabilities in one line."""
        if not can.gpu:
            return self.facts.no_gpu
        return f"PyTorch {self.facts.version}, CUDA {self.facts.cuda}, CPU and GPUs"

    def resolved(self, *, on_gpus: bool) -> Self:
        """The same engine; on the CPU it is exact unless it was told otherwise."""
        torch = self.torch
        if torch.exact is not None:
            return self
        exact = not on_gpus and torch.precision == "fp32"
        return replace(self, torch=replace(torch, exact=exact))

    def command(
        self,
        args: Sequence[str],
        container: Container | None = None,  # noqa: ARG002
    ) -> Command:
        """The command for the arguments of ``caffe``."""
        return Command((*PROGRAM, *args, *self.torch.arguments()), dict(os.environ))

    def record(self, can: Capability | None) -> dict[str, Any]:  # noqa: ARG002
        """The engine with its options, for ``config.json``."""
        versions = {"version": self.facts.version, "cuda": self.facts.cuda}
        return {"engine": self.name, "torch": {**versions, "options": self.options}}
