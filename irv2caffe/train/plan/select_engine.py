"""Chooses the engine: --engine, or Caffe where it can do what was asked, else PyTorch."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from irv2caffe import system
from irv2caffe.caffe.capability import find_caffe_for_gpus
from irv2caffe.caffe.find import FoundCaffe, find_caffe
from irv2caffe.errors import CaffeNotFoundError, InstallError, Irv2CaffeError, UsageError
from irv2caffe.train.engines.engine import CaffeEngine
from irv2caffe.train.engines.torch_engine import TorchEngine
from irv2caffe.train.engines.torch_facts import torch_facts
from irv2caffe.train.engines.torch_options import TorchOptions
from irv2caffe.train.plan.gpus import any_gpu, free_gpus

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from irv2caffe.train.engines.engine import Engine

ENGINES = ("auto", "caffe", "torch")


@dataclass(frozen=True)
class EngineRequest:
    """What the user asked for.

    Attributes:
        name: ``auto``, ``caffe`` or ``torch``.
        gpus: the value of ``--gpus``.
        caffe: the folder or program given with ``--caffe``, or None.
        docker: the image given with ``--docker``, or None.
        torch: the options of the torch engine.
        why: why ``name`` is not ``auto``.
    """

    name: str = "auto"
    gpus: str = "auto"
    caffe: Path | None = None
    docker: str | None = None
    torch: TorchOptions = field(default_factory=TorchOptions)
    why: str = "as --engine says"


def select_engine(request: EngineRequest) -> Engine:
    """The engine for a request.

    Raises:
        UsageError: options of one engine with the other.
        CaffeNotFoundError: no Caffe, and no PyTorch in its place.
        MissingExtraError: PyTorch is asked for and not installed.
    """
    options = request.torch.arguments()
    named = "--caffe" if request.caffe is not None else "--docker" if request.docker else ""
    if request.name == "caffe" or (request.name == "auto" and named):
        if options:
            raise UsageError(
                f"{options[0].partition('=')[0]} is an option of the torch engine; Caffe takes "
                "what it trains from the prototxts only",
                f"leave it out, or train with --engine torch{f' without {named}' if named else ''}",
            )
        return _caffe(request, request.why if not named else f"as {named} says")
    if request.name == "torch":
        if named:
            raise UsageError(f"--engine torch uses no Caffe: {named} does not go with it")
        return TorchEngine(torch_facts(), request.torch, request.why)
    if options:
        why = f"{options[0].partition('=')[0]} is an option of the torch engine"
        return TorchEngine(torch_facts(), request.torch, why)
    return _automatic(request)


def _caffe(request: EngineRequest, why: str) -> CaffeEngine:
    if request.caffe is None and request.docker is None:
        return CaffeEngine(_installed_caffe(request), why)
    return CaffeEngine(find_caffe(request.caffe, docker=request.docker), why)


def _installed_caffe(request: EngineRequest) -> FoundCaffe:
    return find_caffe_for_gpus() if _wanted_gpus(request.gpus) else find_caffe()


def _automatic(request: EngineRequest) -> Engine:
    """Caffe, or the torch engine where Caffe is missing or cannot use the wanted GPUs."""
    try:
        caffe = _installed_caffe(request)
    except CaffeNotFoundError as error:
        return _instead_of_caffe(request, error)
    wanted = _wanted_gpus(request.gpus)
    lack = _lack(CaffeEngine(caffe), wanted, request.gpus)
    if not lack:
        return CaffeEngine(caffe, "Caffe can do what was asked; --engine torch takes PyTorch")
    try:
        facts = torch_facts()
    except Irv2CaffeError:
        return CaffeEngine(caffe, f"{lack}; PyTorch is not installed")
    if not any_gpu():
        return CaffeEngine(caffe, "no GPU was found; --engine torch takes PyTorch")
    if not facts.num_gpus:
        return CaffeEngine(caffe, f"{lack}; the torch engine is {facts.no_gpu}: {facts.gpu_help}")
    return TorchEngine(facts, request.torch, f"{lack}; --engine caffe takes Caffe all the same")


def _instead_of_caffe(request: EngineRequest, error: CaffeNotFoundError) -> TorchEngine:
    try:
        facts = torch_facts()
    except Irv2CaffeError as missing:
        raise CaffeNotFoundError(error.message, f"{error.hint}; or {missing.hint}") from error
    return TorchEngine(facts, request.torch, "no Caffe was found")


def _wanted_gpus(gpus: str) -> int:
    """How many GPUs ``--gpus`` asks for, or would take by itself."""
    if gpus == "none":
        return 0
    if gpus in {"auto", "all"}:
        there = system.visible_gpus() or []
        return len(free_gpus(there) if gpus == "auto" else there)
    return len(gpus.split(","))


def _uuids(gpus: str) -> tuple[str, ...]:
    """The known GPUs that ``--gpus`` asks for, or would take by itself."""
    there = system.visible_gpus() or []
    numbers: Iterable[int] = range(len(there))
    if gpus == "auto":
        numbers = free_gpus(there)
    elif gpus != "all":
        numbers = (int(number) for number in gpus.split(",") if number.isdecimal())
    return tuple(there[number].uuid for number in numbers if number < len(there))


def _lack(caffe: CaffeEngine, wanted: int, gpus: str) -> str:
    """What this Caffe lacks for a number of GPUs; empty for nothing, or where it is unknown."""
    with suppress(Irv2CaffeError):  # the plan reports a Caffe that does not run
        can = caffe.capability()
        if wanted and can.gpu is False:
            return "Caffe here is built for the CPU only"
        if wanted > 1 and can.several_gpus is False and gpus != "auto":
            return "Caffe here is built without NCCL, for one GPU only"
        if wanted:
            try:
                caffe.check_devices(_uuids(gpus))
            except InstallError as error:
                return error.message
    return ""
