"""All options of a net and its training, for the data at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from irv2caffe.config import VARIANTS, NetOptions, SolverOptions, resolve
from irv2caffe.config.derive import derive_bn_fraction, derive_solver
from irv2caffe.errors import UsageError
from irv2caffe.net.variant_choice import AUTO, choose_variant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from irv2caffe.config import Recipe, Resolved
    from irv2caffe.config.derive import Derived


@dataclass(frozen=True)
class Settings:
    """The options of a net and its training, each with its source."""

    net: Resolved[NetOptions]
    solver: Resolved[SolverOptions]

    def derived_lines(self) -> list[str]:
        """A line for each derived value, with its reason."""
        rows = [*self.net.rows(), *self.solver.rows()]
        found = [(name, value, source) for name, value, source in rows if source[:7] == "derived"]
        return [f"{name} {value}: {source}" for name, value, source in found]


def settings(
    recipe: Recipe,
    given: Mapping[str, Any],
    measured: Mapping[str, Any],
    *,
    num_train: int,
    side: int | None,
    derived: Derived | None = None,
) -> Settings:
    """Resolves all options, and derives those that depend on the data.

    Args:
        recipe: from ``load_recipe``.
        given: values given by the user, by field name.
        measured: values from the databases, by field name; those that the variant fixes are not
            taken.
        num_train: training images.
        side: shorter side of the images of both databases, in pixels; None if it is not known.
        derived: further derived values, each with the reason.

    Raises:
        UsageError: an invalid value, an option that the variant does not have, or ``--variant
            auto`` without databases.
    """
    recipe, given, found = _chosen_variant(recipe, given, side)
    found = {**found, **(derived or {})}
    net = resolve(NetOptions, recipe, given, derived=found)
    fixed = VARIANTS[net.options.variant].fixed
    measured = {key: value for key, value in measured.items() if key not in fixed}
    net = resolve(NetOptions, recipe, given, measured=measured, derived=found)
    solver = resolve(SolverOptions, recipe, given, derived=found)
    run = {"num_train": num_train, "batch_size": net.options.batch_size}
    made_for = recipe.solver if "lr_decay_epochs" in recipe.solver else {}
    length = made_for.get("epochs", SolverOptions.epochs)
    more = derive_solver(solver.options, {*given, *recipe.solver}, length, **run)
    solver = resolve(SolverOptions, recipe, given, derived={**found, **more})
    is_moving = net.options.bn_statistics != "kept"
    if is_moving and "bn_fraction" not in {*fixed, *recipe.net}:
        found |= derive_bn_fraction(solver.options, **run)
    return Settings(resolve(NetOptions, recipe, given, measured=measured, derived=found), solver)


def _chosen_variant(
    recipe: Recipe, given: Mapping[str, Any], side: int | None
) -> tuple[Recipe, Mapping[str, Any], dict[str, tuple[Any, str]]]:
    """Recipe and options without ``--variant auto``, and what it stands for."""
    wanted = {**recipe.net, **given}
    if wanted.get("variant") != AUTO:
        return recipe, given, {}
    if side is None:
        raise UsageError(
            "--variant auto needs to know the size of all images",
            "give --train-lmdb and --val-lmdb with images of one size each, as make-lmdb --resize "
            "makes them",
        )
    found = dict(choose_variant(side, aux=wanted.get("aux", False)))
    if "crop" in recipe.net:
        del found["crop"]
    without = {key: value for key, value in recipe.net.items() if key != "variant"}
    given = {key: value for key, value in given.items() if key != "variant"}
    return replace(recipe, net=without), given, found
