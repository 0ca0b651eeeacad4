"""Recipes: TOML files with values of NetOptions and SolverOptions."""

from __future__ import annotations

import tomllib
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.config.options import NetOptions, SolverOptions
from irv2caffe.errors import FormatError, MissingInputError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_RECIPE = "paper"
_MAX_BYTES = 1 << 16  # tomllib takes time quadratic in the length of a key


@dataclass(frozen=True)
class Recipe:
    """The values of a recipe, by names of fields of NetOptions and SolverOptions."""

    name: str
    net: Mapping[str, Any]
    solver: Mapping[str, Any]


def templates_dir() -> Path:
    """Returns the folder of the recipes: in the package, or beside it in a checkout."""
    inside = Path(__file__).parent.parent / "templates"
    return inside if inside.is_dir() else inside.parent.parent / "templates"


def recipe_names() -> list[str]:
    """Returns the names of the recipes in the package."""
    return sorted(path.stem for path in templates_dir().glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """Loads a recipe by name, or from a ``.toml`` file.

    Raises:
        UsageError: unknown recipe.
        MissingInputError: no such file.
        FormatError: not TOML, an unknown key, or keys that exclude each other.
    """
    path = Path(name) if name.endswith(".toml") else templates_dir() / f"{name}.toml"
    if not name.endswith(".toml") and name not in recipe_names():
        raise UsageError(f"unknown recipe {name!r}", f"recipes: {', '.join(recipe_names())}")
    tables = _tables(path)
    for key in tables:
        if key not in {"net", "solver"}:
            raise FormatError(f"unknown table [{key}]", "tables are [net], [solver]", path=path)
    return Recipe(
        path.stem,
        _checked(path, NetOptions, tables.get("net", {})),
        _checked(path, SolverOptions, tables.get("solver", {})),
    )


def _tables(path: Path) -> dict[str, Any]:
    """Reads a TOML file; see :func:`load_recipe`."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such recipe file") from error
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", path=path) from error
    if len(data) > _MAX_BYTES:
        raise FormatError("too large for a recipe", path=path)
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except RecursionError as error:
        raise FormatError("not TOML: nested too deeply", path=path) from error
    except ValueError as error:  # of TOML, of UTF-8, of numbers with thousands of digits
        raise FormatError(f"not TOML: {error}", path=path) from error


def _checked(path: Path, cls: type[NetOptions | SolverOptions], values: Any) -> dict[str, Any]:
    """Checks the keys and types of a table."""
    if not isinstance(values, dict):
        raise FormatError("[net] and [solver] must be tables", path=path)
    known = typing.get_type_hints(cls)
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise FormatError(f"unknown key {key!r}", did_you_mean(key, known), path=path)
        try:
            checked[key] = _converted(known[key], value)
        except TypeError as error:
            raise FormatError(f"{key} = {value!r} is not {error}", path=path) from error
        except OverflowError as error:
            raise FormatError(f"{key} is too large a number", path=path) from error
    if checked.get("mean_file") and "mean_value" in checked:
        raise FormatError("mean_value and mean_file exclude each other", path=path)
    return checked


def _converted(wanted: Any, value: Any) -> Any:
    """Converts a TOML value to the type of its option; ``"none"`` becomes None if allowed.

    Raises:
        TypeError: with the expected type.
    """
    kinds = typing.get_args(wanted) if typing.get_origin(wanted) is not tuple else (wanted,)
    if value == "none" and type(None) in kinds:
        return None
    kind = next((kind for kind in kinds if kind is not type(None)), wanted)
    if typing.get_origin(kind) is tuple:
        numbers = value if isinstance(value, list) else [value] * 3
        if len(numbers) != 3 or not all(type(number) in {int, float} for number in numbers):
            raise TypeError("one number, or three")
        return tuple(float(number) for number in numbers)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"a {kind.__name__}")
    return value
