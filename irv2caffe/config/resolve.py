"""Resolves options from given values, databases, recipe, variant and defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from irv2caffe.config.options import NetOptions, SolverOptions
from irv2caffe.config.recipes import Recipe
from irv2caffe.config.variants import DEFAULT_VARIANT, VARIANTS
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from irv2caffe.config.derive import Derived

T = TypeVar("T", "NetOptions", "SolverOptions")


@dataclass(frozen=True)
class Resolved(Generic[T]):
    """Options, and the source of each value.

    Attributes:
        options: NetOptions or SolverOptions.
        sources: field name to ``command line``, ``database``, ``derived: REASON``, ``recipe NAME``,
            ``variant NAME`` or ``default``.
    """

    options: T
    sources: Mapping[str, str]

    def rows(self) -> list[tuple[str, Any, str]]:
        """Returns (name, value, source) of every field, in order."""
        values = asdict(self.options)
        return [(name, values[name], source) for name, source in self.sources.items()]


def resolve(
    cls: type[T],
    recipe: Recipe,
    given: Mapping[str, Any],
    *,
    measured: Mapping[str, Any] | None = None,
    derived: Derived | None = None,
) -> Resolved[T]:
    """Takes each value from the first of given, measured, derived, recipe, variant and default.

    Args:
        cls: NetOptions or SolverOptions.
        recipe: from :func:`load_recipe`.
        given: values given by the user, by field name.
        measured: values from the databases, by field name.
        derived: values that follow from others, by field name, each with the reason; those that
            the recipe states are left out by who derives.

    Raises:
        UsageError: an invalid value, or an option that the variant does not have.
    """
    from_recipe = recipe.net if cls is NetOptions else recipe.solver
    whys = derived or {}
    found = {name: value for name, (value, _) in whys.items()}
    name = {"variant": DEFAULT_VARIANT, **recipe.net, **found, **given}["variant"]
    from_variant: Mapping[str, Any] = {}
    if cls is NetOptions and name in VARIANTS:
        _refuse_fixed(name, given, "")
        _refuse_fixed(name, from_recipe, f"recipe {recipe.name}: ")
        from_variant = VARIANTS[name].defaults
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for field in fields(cls):
        for origin, source in (
            (given, "command line"),
            (measured or {}, "database"),
            (found, f"derived: {whys[field.name][1]}" if field.name in whys else ""),
            (from_recipe, f"recipe {recipe.name}"),
            (from_variant, f"variant {name}"),
        ):
            if field.name in origin:
                values[field.name], sources[field.name] = origin[field.name], source
                break
        else:
            sources[field.name] = "default"
    nearer = {**given, **(measured or {})}
    if "mean_value" in nearer and "mean_file" not in nearer and values.get("mean_file"):
        # The two exclude each other: a given mean replaces the mean file of a recipe.
        values["mean_file"], sources["mean_file"] = None, sources["mean_value"]
    return Resolved(cls(**values), sources)


def _refuse_fixed(variant: str, values: Mapping[str, Any], where: str) -> None:
    for field, reason in VARIANTS[variant].fixed.items():
        if field in values:
            flag = f"--{field.replace('_', '-')}"
            raise UsageError(f"{where}{flag} does not go with --variant {variant}", reason)


def net_options(**values: Any) -> NetOptions:
    """Returns NetOptions with the defaults of the variant in ``values``.

    Raises:
        UsageError: an invalid value, or an option that the variant does not have.
    """
    return resolve(NetOptions, Recipe("none", {}, {}), values).options
