"""What a run was told in its time, and what of it counts when it is resumed.

The folder may be somebody else's: a program is not run because a file in it says so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from irv2caffe.caffe.find import find_same
from irv2caffe.errors import InputError
from irv2caffe.train.run_dir.records import read_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from irv2caffe.train.plan.plan import TrainOptions
    from irv2caffe.train.run.options import SupervisionOptions

# Options that are called otherwise.
_OPTIONS = {"stall_s": "stall_minutes", "snapshot_s": "snapshot_minutes"}
_OPTIONS |= {"keep_newest": "keep_snapshots"}
_WISHES_KEPT = ("keep_newest", "keep_epochs", "ignore_findings")


@dataclass(frozen=True)
class Choices:
    """With what a run goes on.

    Attributes:
        train_options: GPUs, snapshots to keep.
        options: how it is looked after.
        caffe: folder or program that was named, or None.
        docker: image that was named, or None.
    """

    train_options: TrainOptions
    options: SupervisionOptions
    caffe: Path | None
    docker: str | None


def with_earlier_options(
    run: Path,
    train_options: TrainOptions,
    options: SupervisionOptions,
    told: set[str],
    *,
    gpus: str | None,
    caffe: Path | None,
    docker: str | None,
) -> Choices:
    """The choices of a run that is resumed, where they are not told otherwise now.

    Args:
        run: its folder.
        train_options: of now.
        options: of now.
        told: names of the fields of both that were told now.
        gpus: told now, or None.
        caffe: told now, or None.
        docker: told now, or None.
    """
    config = read_config(run)
    kept = _options_of(config, run, told)
    if caffe is None and docker is None:
        caffe = _caffe_of(config, run)
    train_options = replace(
        train_options,
        gpus=gpus or str(config.get("gpus", "none")),
        **{name: kept[name] for name in _WISHES_KEPT if name in kept},
    )
    known = {field.name for field in fields(options)}
    options = replace(options, **{name: kept[name] for name in known & kept.keys()})
    return Choices(train_options, options, caffe, docker)


def _options_of(config: dict[str, Any], run: Path, told: set[str]) -> dict[str, Any]:
    """What a run was told and is not told anew, as its folder says.

    Raises:
        InputError: no such value could have been told.
    """
    earlier = config.get("options", {})
    kept = {}
    for name, is_valid in _VALID.items():
        if name in told or not isinstance(earlier, dict) or name not in earlier:
            continue
        if not is_valid(earlier[name]):
            raise InputError(
                f"{run}/config.json: {name} cannot be {earlier[name]!r}",
                f"--{_OPTIONS.get(name, name).replace('_', '-')} says it anew",
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
}


def _caffe_of(config: dict[str, Any], run: Path) -> Path | None:
    """The Caffe that was named at the start, where it is one that would be found anyway.

    The folder may be somebody else's: a program or image is not run because a file says so.

    Raises:
        InputError: it is another one, and has to be named again.
    """
    used = config.get("caffe")
    if not isinstance(used, dict):
        return None
    image, reason = used.get("image"), str(used.get("reason", ""))
    root = used.get("root")
    if image:
        raise InputError(
            f"{run} was trained by Caffe in the docker image {image}",
            f"--docker {quote(str(image))} uses it again, if you trust it; "
            "--caffe FOLDER another one",
        )
    in_variable = reason.startswith("CAFFE_ROOT=") and not os.environ.get("CAFFE_ROOT")
    if not isinstance(root, str) or not (reason.startswith("--caffe ") or in_variable):
        return None
    found = find_same(Path(root))
    if found is None:
        raise InputError(
            f"{run} was trained by the Caffe in {root}, which is not the one found here",
            f"--caffe {quote(root)} uses it again, if you trust it; --caffe FOLDER another one",
        )
    return found.root
