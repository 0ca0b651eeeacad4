"""Frozen configs: what a network and a run are made of, resolved from flags, recipe and defaults.

What the caller says wins over a recipe, a recipe over a default; :class:`Resolved` remembers which
one it was. Recipes are TOML files with the tables ``[net]`` and ``[solver]``, whose keys are the
fields of :class:`NetOptions` and :class:`SolverOptions`.
"""

from __future__ import annotations

import difflib
import math
import tomllib
import typing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from irv2caffe.errors import FormatError, MissingInputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T", "NetOptions", "SolverOptions")
DEFAULT_RECIPE = "paper"


@dataclass(frozen=True)
class NetOptions:
    """The choices of a network.

    Attributes:
        variant: which published network.
        num_classes: outputs of the classifier.
        crop: side of the square input, in pixels.
        width: multiplies every number of filters.
        residual_scale: of the blocks A, B and C; None adds the branches unscaled.
        residual_bn: BatchNorm on the residual up-projections.
        trunk: channels of the 8x8 grid at width 1: 2144 (Fig. 18) or 2048 (Fig. 19).
        batch_size: images per GPU and iteration in training.
        test_batch_size: images per test iteration; None chooses a divisor of the validation set.
        train_lmdb: database of the TRAIN phase, as Caffe will open it.
        val_lmdb: database of the TEST phase.
        mean_value: subtracted from the channels B, G, R.
        scale: multiplies what is left.
        mirror: flip half of the training images.
        dropout: share of the pooled features dropped in training.
        bn_fraction: BatchNorm's ``moving_average_fraction``.
        gamma: learn BatchNorm's multiplier.
        filler: ``glorot`` (Caffe's xavier with variance_norm AVERAGE) or ``msra``.
    """

    variant: str = "paper"
    num_classes: int = 1000
    crop: int = 299
    width: float = 1.0
    residual_scale: tuple[float, float, float] | None = (0.1, 0.1, 0.1)
    residual_bn: bool = False
    trunk: int = 2144
    batch_size: int = 32
    test_batch_size: int | None = None
    train_lmdb: str = "train_lmdb"
    val_lmdb: str = "val_lmdb"
    mean_value: tuple[float, float, float] = (127.5, 127.5, 127.5)
    scale: float = 1 / 127.5
    mirror: bool = True
    dropout: float = 0.2
    bn_fraction: float = 0.999
    gamma: bool = True
    filler: str = "glorot"

    def __post_init__(self) -> None:
        _require(self.num_classes >= 2, "--num-classes must be at least 2")
        _require(0 < self.width < 100, "--width must be above 0")
        _require(self.batch_size >= 1, "--batch-size must be at least 1")
        _require(self.trunk in {2048, 2144}, "--trunk is 2144 or 2048")
        _require(0 <= self.dropout < 1, "--dropout must lie in [0, 1)")
        _require(0 < self.bn_fraction < 1, "--bn-fraction must lie between 0 and 1")
        _require(self.filler in {"glorot", "msra"}, "--filler is glorot or msra")


@dataclass(frozen=True)
class SolverOptions:
    """The choices of a training run; epochs, not iterations.

    Attributes:
        type: Caffe's solver type.
        base_lr: learning rate at the start.
        lr_decay: the learning rate is multiplied by this ...
        lr_decay_epochs: ... after every so many epochs.
        momentum: must stay 0 with RMSProp, whose Caffe version has none.
        rms_decay: RMSProp's decay of the squared gradients.
        delta: RMSProp's epsilon, added outside the square root.
        weight_decay: L2; Caffe's own default would be none.
        clip_gradients: bound on the global L2 norm of the gradient of one batch, or None.
        epochs: passes over the training set.
        test_epochs: epochs between two passes over the validation set.
        snapshot_epochs: epochs between two snapshots.
        iter_size: batches whose gradients are summed before an update.
        random_seed: of fillers and augmentation; -1 takes the time.
    """

    type: str = "RMSProp"
    base_lr: float = 0.045
    lr_decay: float = 0.94
    lr_decay_epochs: float = 2.0
    momentum: float = 0.0
    rms_decay: float = 0.9
    delta: float = 1.0
    weight_decay: float = 4e-5
    clip_gradients: float | None = None
    epochs: float = 120.0
    test_epochs: float = 1.0
    snapshot_epochs: float = 10.0
    iter_size: int = 1
    random_seed: int = 1

    def __post_init__(self) -> None:
        _require(self.type in {"RMSProp", "SGD", "Nesterov"}, f"unknown solver type {self.type!r}")
        _require(
            self.type != "RMSProp" or self.momentum == 0,
            "Caffe's RMSProp has no momentum: use --recipe paper-sgd, or momentum 0",
        )
        for name in ("base_lr", "epochs", "test_epochs", "snapshot_epochs", "lr_decay_epochs"):
            _require(0 < getattr(self, name) < math.inf, f"{name} must be above 0 and finite")
        _require(self.iter_size >= 1, "--iter-size must be at least 1")


@dataclass(frozen=True)
class Resolved(Generic[T]):
    """A config and where each of its values came from.

    Attributes:
        options: the config.
        sources: field name to ``command line``, ``recipe NAME`` or ``default``.
    """

    options: T
    sources: Mapping[str, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """(name, value, source) of every field, in order."""
        values = asdict(self.options)
        return [(name, str(values[name]), source) for name, source in self.sources.items()]


def resolve(cls: type[T], recipe: Recipe, told: Mapping[str, Any]) -> Resolved[T]:
    """A config from what was told, else the recipe, else the default.

    Args:
        cls: NetOptions or SolverOptions.
        recipe: from :func:`load_recipe`.
        told: field name to value; fields that are missing were not told.

    Raises:
        UsageError: a value outside its range.
    """
    from_recipe = recipe.net if cls is NetOptions else recipe.solver
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for field in fields(cls):
        if field.name in told:
            values[field.name], sources[field.name] = told[field.name], "command line"
        elif field.name in from_recipe:
            values[field.name] = from_recipe[field.name]
            sources[field.name] = f"recipe {recipe.name}"
        else:
            sources[field.name] = "default"
    return Resolved(cls(**values), sources)


@dataclass(frozen=True)
class Recipe:
    """Values of a named recipe; every one of them is a field of NetOptions or SolverOptions."""

    name: str
    net: Mapping[str, Any]
    solver: Mapping[str, Any]


def templates_dir() -> Path:
    """The folder of recipes and golden prototxts: in the wheel, or beside it in a checkout."""
    inside = Path(__file__).parent / "templates"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "templates"


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in templates_dir().glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """A recipe by name, or from a ``.toml`` file.

    Raises:
        UsageError: no recipe of that name.
        MissingInputError: the file is not there.
        FormatError: not TOML, or a key that no option has.
    """
    path = Path(name) if name.endswith(".toml") else templates_dir() / f"{name}.toml"
    if not name.endswith(".toml") and name not in recipe_names():
        raise UsageError(f"no recipe {name!r}", f"recipes: {', '.join(recipe_names())}")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such recipe file") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FormatError(f"not TOML: {error}", path=path) from error
    for key in tables:
        if key not in {"net", "solver"}:
            raise FormatError(f"unknown table [{key}]", "tables are [net], [solver]", path=path)
    return Recipe(
        path.stem,
        _checked(path, NetOptions, tables.get("net", {})),
        _checked(path, SolverOptions, tables.get("solver", {})),
    )


def _checked(path: Path, cls: type[T], values: Any) -> dict[str, Any]:
    """The values of one table, each with a known key and a fitting type."""
    if not isinstance(values, dict):
        raise FormatError("[net] and [solver] are tables", path=path)
    known = typing.get_type_hints(cls)
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise FormatError(f"unknown key {key!r}", f"did you mean {near[0]}?" if near else "")
        wanted = known[key]
        if wanted is float and type(value) is int:
            checked[key] = float(value)
        elif isinstance(value, list):
            checked[key] = tuple(float(item) for item in value)
        elif wanted in {int, float, str, bool} and type(value) is not wanted:
            raise FormatError(f"{key} = {value!r} is not a {wanted.__name__}", path=path)
        else:
            checked[key] = value
    return checked


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)
