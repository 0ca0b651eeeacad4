"""All options of a net and its training, for the data at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from irv2caffe.config import VARIANTS, NetOptions, SolverOptions, resolve
from irv2caffe.config.derive import derive_bn_fraction, derive_solver
from irv2caffe.errors import UsageError
from irv2caffe.net.variant_choice import AUTO, choose_crop, choose_variant

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

    A crop that is not stated and larger than the images becomes the largest that fits.

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
    found = dict(derived or {})
    is_auto = {**recipe.net, **given}.get("variant") == AUTO
    if is_auto:
        found = found if "variant" in found else {**found, **_chosen_variant(side)}
        recipe = replace(recipe, net=_without_variant(recipe.net))
        given = _without_variant(given)
    net = resolve(NetOptions, recipe, given, derived=found)
    stated = {*given, *recipe.net, *found}
    if side is not None and "crop" not in stated and (is_auto or net.options.crop > side):
        found |= choose_crop(net.options, side)
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


def _chosen_variant(side: int | None) -> Derived:
    """The variant that ``--variant auto`` stands for."""
    if side is None:
        raise UsageError(
            "--variant auto needs to know the size of all images",
            "give --train-lmdb and --val-lmdb with images of one size each, as make-lmdb --resize "
            "makes them",
        )
    return choose_variant(side)


def _without_variant(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "variant"}
