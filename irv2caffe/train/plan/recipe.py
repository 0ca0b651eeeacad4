"""Builds the prototxts of a recipe for a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.config import load_recipe
from irv2caffe.data.inspect.database import read_pair, shorter_side, take_means
from irv2caffe.errors import UsageError
from irv2caffe.net.build import build_net
from irv2caffe.net.settings import settings
from irv2caffe.train.plan.gpus import choose
from irv2caffe.train.plan.job import read_job
from irv2caffe.train.plan.memory_check import fitting_batches
from irv2caffe.train.plan.overrides import Value
from irv2caffe.train.plan.weights_options import options_of_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from irv2caffe.config.derive import Derived
    from irv2caffe.data.inspect.database import Database, Databases
    from irv2caffe.net.build import BuiltNet
    from irv2caffe.net.settings import Settings
    from irv2caffe.train.engines.engine import Engine


@dataclass(frozen=True)
class BuiltRecipe:
    """The prototxts of a recipe.

    Attributes:
        net: the files that were written.
        values: every option with its source.
        notes: a line for each value that was derived from the data.
        databases: the databases that were read for it.
    """

    net: BuiltNet
    values: tuple[Value, ...]
    notes: tuple[str, ...]
    databases: Databases


def build_recipe(
    out: Path,
    name: str,
    given: Mapping[str, Any],
    engine: Engine,
    gpus: str,
    weights: Sequence[Path] = (),
) -> BuiltRecipe:
    """Writes the prototxts of a recipe for the program and the GPUs that will train.

    Args:
        out: folder to write into.
        name: name of the recipe, or a ``.toml`` file.
        given: options of build-net that override the recipe's values.
        engine: the program that trains; it decides whether batch_size is per GPU.
        gpus: ``none``, ``all`` or GPU numbers.
        weights: the models that the training starts from; the net fits the first of them.

    Raises:
        UsageError: no databases are given, options contradict each other, or a net that keeps
            something of its weights starts without any.
    """
    places, train, val = _databases(name, given)
    can = engine.capability()
    devices = choose(gpus, engine, can)
    recipe = load_recipe(name)
    if not weights:
        _refuse_kept({**recipe.net, **given}, name)
    whole = {**given, "num_gpus": len(devices.numbers)}
    means = take_means(whole, train)
    measured = {"num_classes": train.num_classes, "flavor": can.flavor, **means}
    if train.channels in {1, 3}:
        measured["channels"] = train.channels
    num_train, num_val = train.num_records or 0, val.num_records or 0
    side = shorter_side(train, val)
    of_weights = options_of_weights(weights, recipe, num_classes=train.num_classes, side=side)

    def build(derived: Derived) -> tuple[Settings, BuiltNet]:
        derived = {**of_weights, **derived}
        found = settings(recipe, whole, measured, num_train=num_train, side=side, derived=derived)
        return found, build_net(
            out,
            found.net.options,
            found.solver.options,
            num_train=num_train,
            num_val=num_val,
            class_counts=train.class_counts,
            class_names=train.class_names,
            force=True,
        )

    resolved, built = build({})
    if not {"batch_size", "iter_size", "test_batch_size"} & given.keys():
        job = read_job(built.solver, [])
        if smaller := fitting_batches(job, devices, engine, can.flavor, num_val):
            resolved, built = build(smaller)
    net, solver = resolved.net, resolved.solver
    values = tuple(Value(*row) for row in (*net.rows(), *solver.rows()))
    notes = (*resolved.derived_lines(), *built.notes)
    return BuiltRecipe(built, values, notes, dict(zip(places, (train, val), strict=True)))


def _databases(name: str, given: Mapping[str, Any]) -> tuple[tuple[Path, Path], Database, Database]:
    """The folders of the training and the validation database, and what they hold."""
    if not given.get("train_lmdb") or not given.get("val_lmdb"):
        raise UsageError(
            f"--recipe {name} needs --train-lmdb and --val-lmdb", "irv2caffe make-lmdb builds them"
        )
    places = Path(given["train_lmdb"]), Path(given["val_lmdb"])
    train, val = read_pair(*places, is_quick=False)
    assert train is not None
    assert val is not None
    return places, train, val


def _refuse_kept(options: Mapping[str, Any], name: str) -> None:
    """Refuses a net that keeps something of its weights, where it starts without any."""
    if options.get("bn_statistics") == "kept" or options.get("freeze") is not None:
        raise UsageError(
            f"--recipe {name} starts from weights",
            "--weights FILE.caffemodel, of an earlier training or of import-weights",
        )
