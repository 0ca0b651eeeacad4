"""Options of networks and solvers, and where each value comes from.

A given value overrides the databases, these the recipe, the recipe the variant, and the variant
the default; :class:`Resolved` records the source. Recipes are TOML files with the tables ``[net]``
and ``[solver]``, whose keys are the fields of :class:`NetOptions` and :class:`SolverOptions`.
Imports ``errors`` only.
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
