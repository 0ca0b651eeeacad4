"""SupervisionOptions, and the options that a resumed run takes over from its last start.

The run folder is untrusted: no program that a file in it names is run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from irv2caffe.caffe.find import find_same
from irv2caffe.errors import InputError
from irv2caffe.train.engines.torch_options import VALID_OPTIONS, TorchOptions
from irv2caffe.train.plan.criterion import is_criterion
from irv2caffe.train.plan.select_engine import ENGINES, EngineRequest
from irv2caffe.train.run_dir.run_dir import read_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from irv2caffe.train.plan.plan import TrainOptions

# Fields whose names on the command line differ.
COMMAND_LINE_NAMES = {
    "stall_s": "stall_minutes",
    "snapshot_s": "snapshot_minutes",
    "keep_newest": "keep_snapshots",
}
_TRAIN_OPTIONS = ("keep_newest", "keep_epochs", "ignore_findings", "best")


@dataclass(frozen=True)
class SupervisionOptions:
    """How a training is supervised.

    Attributes:
        max_restarts: restarts after crashes and stalls without a new snapshot between them.
        on_divergence: ``stop``, ``continue`` or ``rollback``.
        max_rollbacks: largest number of rollbacks.
        rollback_lr: factor of the learning rate at each rollback.
        stall_s: seconds without a log line that count as a stall; None derives them from the
            log, 0 means never.
        snapshot_s: seconds between snapshots in addition to the solver's own; 0 writes none.
        plot: keep plot.png up to date.
    """

    max_restarts: int = 5
    on_divergence: str = "stop"
    max_rollbacks: int = 3
    rollback_lr: float = 0.5
    stall_s: float | None = None
    snapshot_s: float = 3600.0
    plot: bool = True


@dataclass(frozen=True)
class LaunchOptions:
    """All options of the train command.

    Attributes:
        train_options: the options of the training.
        supervision: the options of its supervision.
        engine: the engine that was asked for, and its options.
    """

    train_options: TrainOptions
    supervision: SupervisionOptions
    engine: EngineRequest


def with_earlier_options(run: Path, options: LaunchOptions, given: set[str]) -> LaunchOptions:
    """The options of a resumed run: those given now, else those of its last start.

    Args:
        run: the run folder.
        options: the options of this call.
        given: the names of the fields that were given in this call.

    Raises:
        InputError: the run folder holds an invalid value, or names another Caffe.
    """
    config = read_config(run)
    kept = _read_options(config, run, given)
    gpus = options.train_options.gpus if "gpus" in given else str(config.get("gpus", "none"))
    engine = replace(_earlier_engine(config, run, options.engine, given), gpus=gpus)
    train_options = replace(
        options.train_options,
        gpus=gpus,
        **{name: kept[name] for name in _TRAIN_OPTIONS if name in kept},
    )
    known = {field.name for field in fields(SupervisionOptions)}
    supervision = replace(options.supervision, **{name: kept[name] for name in known & kept.keys()})
    return LaunchOptions(train_options, supervision, engine)


def _earlier_engine(
    config: dict[str, Any], run: Path, request: EngineRequest, given: set[str]
) -> EngineRequest:
    """The engine of the last start with its options, unless others are given now."""
    named = request.caffe is not None or request.docker is not None
    name, why = request.name, request.why
    if "engine" not in given:
        why = "as at the last start; --engine changes it"
        name = "caffe" if named else str(config.get("engine", "caffe"))
    if name not in ENGINES:
        raise InputError(f"{run}/config.json: engine cannot be {name!r}", "--engine gives another")
    if name == "caffe":
        caffe = request.caffe if named else _caffe_of(config, run)
        return replace(request, name=name, why=why, caffe=caffe)
    if name == "auto":
        return request
    return replace(
        request, name=name, why=why, torch=_earlier_torch(config, run, request.torch, given)
    )


def _earlier_torch(
    config: dict[str, Any], run: Path, options: TorchOptions, given: set[str]
) -> TorchOptions:
    """The options of the torch engine: those given now, else those of its last start.

    Other machines have to be named again: a run folder from somebody else must not name any.
    """
    torch = config.get("torch")
    earlier = torch.get("options") if isinstance(torch, dict) else None
    kept = _valid(VALID_OPTIONS, earlier, run, given)
    return replace(options, **kept)


def _read_options(config: dict[str, Any], run: Path, given: set[str]) -> dict[str, Any]:
    """The options in a run's ``config.json`` that are not given now.

    Raises:
        InputError: an invalid value.
    """
    return _valid(_VALID, config.get("options"), run, given)


def _valid(
    rules: Mapping[str, Callable[[Any], bool]], earlier: Any, run: Path, given: set[str]
) -> dict[str, Any]:
    """The earlier values that are not given now.

    Raises:
        InputError: an invalid value.
    """
    kept = {}
    for name, is_valid in rules.items():
        if name in given or not isinstance(earlier, dict) or name not in earlier:
            continue
        if not is_valid(earlier[name]):
            raise InputError(
                f"{run}/config.json: {name} cannot be {earlier[name]!r}",
                f"--{COMMAND_LINE_NAMES.get(name, name).replace('_', '-')} gives another value",
            )
        kept[name] = earlier[name]
    return kept


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value)


_VALID: dict[str, Callable[[Any], bool]] = {
    "max_restarts": _is_count,
    "on_divergence": lambda value: value in ("stop", "continue", "rollback"),
    "max_rollbacks": _is_count,
    "rollback_lr": lambda value: _is_number(value) and 0 < value < 1,
    "stall_s": lambda value: value is None or _is_number(value),
    "snapshot_s": _is_number,
    "plot": lambda value: isinstance(value, bool),
    "keep_newest": lambda value: value is None or _is_count(value),
    "keep_epochs": _is_number,
    "ignore_findings": lambda value: isinstance(value, bool),
    "best": lambda value: isinstance(value, str) and is_criterion(value),
}


def _caffe_of(config: dict[str, Any], run: Path) -> Path | None:
    """The Caffe given at the last start, if it is also found without being given.

    Raises:
        InputError: it is another one, which has to be given again.
    """
    used = config.get("caffe")
    if not isinstance(used, dict):
        return None
    image, reason = used.get("image"), str(used.get("reason", ""))
    root = used.get("root")
    if image:
        raise InputError(
            f"{run} was trained by Caffe in the docker image {image}",
            f"give --docker {quote(str(image))} to use it again, if you trust it, or another Caffe "
            "with --caffe FOLDER",
        )
    in_variable = reason.startswith("CAFFE_ROOT=") and not os.environ.get("CAFFE_ROOT")
    if not isinstance(root, str) or not (reason.startswith("--caffe ") or in_variable):
        return None
    found = find_same(Path(root))
    if found is None:
        raise InputError(
            f"{run} was trained by the Caffe in {root}, which is not the one found here",
            f"give --caffe {quote(root)} to use it again, if you trust it, or another Caffe",
        )
    return found.root
