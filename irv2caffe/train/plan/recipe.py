"""Nets of a recipe, built on the way to a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.caffe.capability import capability
from irv2caffe.config import NetOptions, SolverOptions, load_recipe, resolve
from irv2caffe.data.inspect.database import dataset_sizes
from irv2caffe.errors import UsageError
from irv2caffe.net.build import BuiltNet, build_net
from irv2caffe.train.plan.gpus import choose
from irv2caffe.train.plan.overrides import Value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from irv2caffe.caffe.find import FoundCaffe


def build_recipe(
    out: Path, name: str, given: Mapping[str, Any], found: FoundCaffe, gpus: str
) -> tuple[BuiltNet, tuple[Value, ...]]:
    """Writes the prototxts of a recipe for the Caffe and the GPUs that will train.

    Args:
        out: the folder.
        name: of the recipe, or a ``.toml`` file.
        given: options of build-net that go over the recipe's values.
        found: whose batch_size it is: of each GPU, or of all.
        gpus: ``none``, ``all`` or numbers.

    Returns:
        What was built, and every value with its source.

    Raises:
        UsageError: no databases, or options that do not go together.
    """
    if not given.get("train_lmdb") or not given.get("val_lmdb"):
        raise UsageError(
            f"--recipe {name} needs --train-lmdb and --val-lmdb", "irv2caffe make-lmdb builds them"
        )
    can = capability(found)
    devices = choose(gpus, can)
    sizes = dataset_sizes(given["train_lmdb"], given["val_lmdb"])
    assert sizes.num_train is not None
    assert sizes.num_val is not None
    measured = {"num_classes": sizes.num_classes, "flavor": can.flavor}
    recipe = load_recipe(name)
    whole = {**given, "num_gpus": len(devices.numbers)}
    net = resolve(NetOptions, recipe, whole, measured=measured)
    solver = resolve(SolverOptions, recipe, whole)
    built = build_net(
        out,
        net.options,
        solver.options,
        num_train=sizes.num_train,
        num_val=sizes.num_val,
    )
    rows = [*net.rows(), *solver.rows()]
    return built, tuple(Value(*row) for row in rows)
