"""What the installed PyTorch can do; asked of the torch engine, a program of its own."""

from __future__ import annotations

import functools
import json
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from irv2caffe.caffe.bounded import printed
from irv2caffe.config.gpus import TORCH_FOR_GPUS
from irv2caffe.errors import InstallError, MissingExtraError

_TIMEOUT_S = 300  # the first import of a CUDA build from a slow disk takes minutes
_MAX_PRINTED_BYTES = 1 << 20
PROGRAM = (sys.executable, "-P", "-m", "irv2caffe.engine")
"""The torch engine; -P keeps modules of the working folder out."""


@dataclass(frozen=True)
class TorchFacts:
    """What ``python -m irv2caffe.engine devices --json`` prints.

    Attributes:
        version: of PyTorch, such as ``2.13.0+cpu``.
        cuda: version of CUDA that it was built with, or None for a CPU build.
        num_gpus: number of GPUs that it can use.
        several_gpus: whether it was built with NCCL.
        problem: why it can use no GPU although it was built with CUDA; else empty.
        layer_types: the layer types that the engine runs; empty if unknown.
    """

    version: str
    cuda: str | None
    num_gpus: int
    several_gpus: bool
    problem: str
    layer_types: frozenset[str]

    @property
    def no_gpu(self) -> str:
        """Why it can use no GPU; empty if it can."""
        if self.num_gpus:
            return ""
        if self.cuda is None:
            return f"PyTorch {self.version}, built for the CPU"
        return f"PyTorch {self.version} for CUDA {self.cuda}: {self.problem or 'no GPU is seen'}"

    @property
    def gpu_help(self) -> str:
        """The command that installs a PyTorch for GPUs, or what else to do."""
        if self.cuda is None:
            return TORCH_FOR_GPUS
        return "nvidia-smi shows the GPUs and the driver's version"


@functools.cache
def torch_facts() -> TorchFacts:
    """Asks the torch engine once.

    Raises:
        MissingExtraError: PyTorch is not installed.
        InstallError: it cannot be imported.
    """
    if find_spec("torch") is None:
        raise MissingExtraError("torch", "torch", "the torch engine")
    argv = (*PROGRAM, "devices", "--json")
    try:
        status, text = printed(
            argv, os.environ, None, timeout_s=_TIMEOUT_S, limit_bytes=_MAX_PRINTED_BYTES
        )
    except OSError as error:
        raise InstallError(f"the torch engine cannot be started: {error}") from error
    lines = text.strip().splitlines()
    found = _json_object(lines[-1]) if status == 0 and lines else {}
    if "torch" not in found:
        raise InstallError(
            f"PyTorch cannot be used: {' '.join(text.split())[-300:]}",
            "run: pip install --force-reinstall 'irv2caffe[torch]'",
        )
    return _facts(found)


def _json_object(line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _facts(found: dict[str, Any]) -> TorchFacts:
    gpus = found.get("gpus") or []
    too_new = [
        f"{gpu.get('name')} (compute capability {gpu.get('capability')})"
        for gpu in gpus
        if not gpu.get("supported", True)
    ]
    return TorchFacts(
        version=str(found["torch"]),
        cuda=found.get("cuda"),
        num_gpus=len(gpus) - len(too_new),
        several_gpus=bool(found.get("nccl", True)),
        problem=str(found.get("problem") or (too_new and f"it has no code for {too_new[0]}") or ""),
        layer_types=frozenset(found.get("layer_types") or ()),
    )
