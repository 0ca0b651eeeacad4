"""The networks by name: default options, and options that they do not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_VARIANT = "slim"


@dataclass(frozen=True)
class Variant:
    """The options of a network.

    Attributes:
        defaults: values of NetOptions that differ from those of ``slim``.
        fixed: names of NetOptions that cannot be changed, with the reason.
    """

    defaults: Mapping[str, Any]
    fixed: Mapping[str, str]


_NO_TRUNK = "only --variant paper has this option"
_NO_MIXED_5B = "this network has no block Mixed_5b"
_LITERAL = "seed reproduces a net of 2016 exactly; use --variant paper"
_LITERAL_FIELDS = (
    "channels residual_scale residual_bn trunk aux aux_weight average_pool dropout "
    "label_smoothing class_weights classifier classifier_lr freeze bn_statistics bn_fraction "
    "bn_eps gamma filler"
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
