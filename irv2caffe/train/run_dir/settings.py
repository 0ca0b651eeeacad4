"""The settings of runs, and in which of them several runs differ; read from ``config.json``."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What the names of files that a run writes or copies say is no setting.
_LEFT_OUT = {"snapshot_prefix", "net", "train_net", "test_net", "device_id", "solver_type"}
# Values that follow from another one, and differ whenever that one does.
_FOLLOWS = {
    "max_iter": "epochs",
    "stepsize": "lr_decay_epochs",
    "test_interval": "test_epochs",
    "snapshot": "snapshot_epochs",
    "gamma": "lr_decay",
    "test_iter": "test_batch_size",
}
_BESIDE = ("engine", "gpus", "effective_batch", "weights", "num_train_images", "num_val_images")
_OPTIONS = ("on_divergence", "rollback_lr", "best")
_MOST_CHARS = 100


@dataclass(frozen=True)
class Differences:
    """In what runs differ.

    Attributes:
        usual: values that most runs, but not all, have.
        of_runs: for each run, its own values of the settings that differ; without the usual ones.
    """

    usual: dict[str, Any]
    of_runs: tuple[dict[str, Any], ...]


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run by name, from its ``config.json``, whose contents are not trusted."""
    found: dict[str, Any] = {}
    solver = config.get("solver")
    if isinstance(solver, str):
        found["solver"] = solver
    plan = config.get("plan")
    values = plan.get("config") if isinstance(plan, dict) else None
    for name, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, dict) and "value" in value:
            found[name] = value["value"]
    options = config.get("options")
    found |= {name: config[name] for name in _BESIDE if name in config}
    if isinstance(options, dict):  # the others change no result
        found |= {name: options[name] for name in _OPTIONS if name in options}
    return {name: _plain(value) for name, value in found.items() if name not in _LEFT_OUT}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (int, float)):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _MOST_CHARS else f"{text[: _MOST_CHARS - 3]}..."


def differences(runs: Sequence[Mapping[str, Any]]) -> Differences:
    """In what runs differ; a setting that a run does not have is no difference.

    Args:
        runs: the settings of each.
    """
    names = list(dict.fromkeys(name for settings in runs for name in settings))
    usual: dict[str, Any] = {}
    differing: list[str] = []
    for name in names:
        counts = Counter(_key(settings[name]) for settings in runs if name in settings)
        if len(counts) < 2 or _follows(name, runs):
            continue
        differing.append(name)
        key, count = counts.most_common(1)[0]
        if 2 * count > len(runs):
            usual[name] = next(s[name] for s in runs if name in s and _key(s[name]) == key)
    own = (
        {
            name: settings[name]
            for name in differing
            if name in settings
            and not (name in usual and _key(usual[name]) == _key(settings[name]))
        }
        for settings in runs
    )
    return Differences(usual, tuple(own))


def _follows(name: str, runs: Sequence[Mapping[str, Any]]) -> bool:
    other = _FOLLOWS.get(name)
    return other is not None and all(other in settings for settings in runs if name in settings)


def _key(value: Any) -> tuple[str, Any]:
    """A value to compare: 1, 1.0 and True are different settings, NaN is like itself."""
    return type(value).__name__, repr(value)


def shown(settings: Mapping[str, Any]) -> str:
    """Settings in one line, paths below the working folder without it."""
    here = f"{Path.cwd()}{os.sep}"
    texts = ((name, _text(value).removeprefix(here)) for name, value in settings.items())
    return ", ".join(f"{name} {text}" for name, text in texts)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "yes" if value else "none" if value is None else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
