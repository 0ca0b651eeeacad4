"""Frozen configs: what a network and a run are made of, resolved from flags, recipe and defaults.

What the caller says wins over a recipe, a recipe over the variant, the variant over a default;
:class:`Resolved` remembers which one it was. Recipes are TOML files with the tables ``[net]`` and
``[solver]``, whose keys are the fields of :class:`NetOptions` and :class:`SolverOptions`.
"""

from irv2caffe.config.gpus import parse_gpus
from irv2caffe.config.options import FILLERS, NetOptions, SolverOptions
from irv2caffe.config.recipes import (
    DEFAULT_RECIPE,
    Recipe,
    load_recipe,
    recipe_names,
    templates_dir,
)
from irv2caffe.config.resolve import Resolved, net_options, resolve
from irv2caffe.config.variants import DEFAULT_VARIANT, VARIANTS, Variant

__all__ = [
    "DEFAULT_RECIPE",
    "DEFAULT_VARIANT",
    "FILLERS",
    "VARIANTS",
    "NetOptions",
    "Recipe",
    "Resolved",
    "SolverOptions",
    "Variant",
    "load_recipe",
    "net_options",
    "parse_gpus",
    "recipe_names",
    "resolve",
    "templates_dir",
]
