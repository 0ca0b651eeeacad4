"""The networks by name: what each brings along, and which options it does not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_VARIANT = "slim"


@dataclass(frozen=True)
class Variant:
    """What one published network brings along.

    Attributes:
        defaults: values of NetOptions where it differs from the default variant.
        fixed: names of NetOptions that do not apply to it, with the reason.
    """

    defaults: Mapping[str, Any]
    fixed: Mapping[str, str]


_NO_TRUNK = "only the paper contradicts itself about the trunk: --variant paper"
_NO_MIXED_5B = "it has no Mixed_5b, whose average pool this is"
_LITERAL = "the seed is the net of 2016 to the letter; take --variant paper"
_LITERAL_FIELDS = (
    "residual_scale residual_bn trunk aux aux_weight average_pool dropout label_smoothing "
    "bn_fraction bn_eps gamma filler"
)
VARIANTS: Mapping[str, Variant] = {
    "slim": Variant({}, {"trunk": _NO_TRUNK}),
    "paper": Variant({"residual_scale": (0.1, 0.1, 0.1)}, {"average_pool": _NO_MIXED_5B}),
    "seed": Variant(
        {
            "residual_scale": None,
            "residual_bn": True,
            "trunk": 2048,
            "batch_size": 16,
            "mean_value": (104.0, 117.0, 123.0),
            "scale": 1.0,
            "bn_eps": 1e-5,
            "filler": "xavier",
        },
        dict.fromkeys(_LITERAL_FIELDS.split(), _LITERAL),
    ),
    "small75": Variant({"crop": 75, "width": 0.5}, {"trunk": _NO_TRUNK}),
    "small32": Variant({"crop": 32, "width": 0.5}, {"trunk": _NO_TRUNK}),
}
