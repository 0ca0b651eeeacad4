"""From flags, recipe, variant and defaults to one config that knows where each value came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from irv2caffe.config.options import NetOptions, SolverOptions
from irv2caffe.config.recipes import Recipe
from irv2caffe.config.variants import DEFAULT_VARIANT, VARIANTS
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T", "NetOptions", "SolverOptions")


@dataclass(frozen=True)
class Resolved(Generic[T]):
    """A config and where each of its values came from.

    Attributes:
        options: the config.
        sources: field name to ``command line``, ``database``, ``recipe NAME``, ``variant NAME`` or
            ``default``.
    """

    options: T
    sources: Mapping[str, str]

    def rows(self) -> list[tuple[str, Any, str]]:
        """(name, value, source) of every field, in order."""
        values = asdict(self.options)
        return [(name, values[name], source) for name, source in self.sources.items()]


def resolve(
    cls: type[T],
    recipe: Recipe,
    told: Mapping[str, Any],
    *,
    measured: Mapping[str, Any] | None = None,
) -> Resolved[T]:
    """A config from what was told, else measured, else the recipe, the variant, the default.

    Args:
        cls: NetOptions or SolverOptions.
        recipe: from :func:`load_recipe`.
        told: field name to value; fields that are missing were not told.
        measured: likewise, what the databases say.

    Raises:
        UsageError: a value outside its range, or one that the variant does not have.
    """
    from_recipe = recipe.net if cls is NetOptions else recipe.solver
    name = told.get("variant", recipe.net.get("variant", DEFAULT_VARIANT))
    from_variant: Mapping[str, Any] = {}
    if cls is NetOptions and name in VARIANTS:
        _refuse_fixed(name, told, "")
        _refuse_fixed(name, from_recipe, f"recipe {recipe.name}: ")
        from_variant = VARIANTS[name].defaults
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for field in fields(cls):
        for origin, source in (
            (told, "command line"),
            (measured or {}, "database"),
            (from_recipe, f"recipe {recipe.name}"),
            (from_variant, f"variant {name}"),
        ):
            if field.name in origin:
                values[field.name], sources[field.name] = origin[field.name], source
                break
        else:
            sources[field.name] = "default"
    nearer = {**told, **(measured or {})}
    if "mean_value" in nearer and "mean_file" not in nearer and values.get("mean_file"):
        # The two are one choice: numbers that were told replace a recipe's file.
        values["mean_file"], sources["mean_file"] = None, sources["mean_value"]
    return Resolved(cls(**values), sources)


def _refuse_fixed(variant: str, values: Mapping[str, Any], where: str) -> None:
    for field, reason in VARIANTS[variant].fixed.items():
        if field in values:
            flag = f"--{field.replace('_', '-')}"
            raise UsageError(f"{where}{flag} does not go with --variant {variant}", reason)


def net_options(**values: Any) -> NetOptions:
    """NetOptions with the defaults of the variant that ``values`` names.

    Raises:
        UsageError: a value outside its range, or one that the variant does not have.
    """
    return resolve(NetOptions, Recipe("none", {}, {}), values).options
