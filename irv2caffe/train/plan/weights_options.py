"""Options of the network that a ``.caffemodel`` was trained with, so that a new net fits it."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from irv2caffe.config import VARIANTS, NetOptions, net_options
from irv2caffe.errors import Irv2CaffeError, UsageError
from irv2caffe.net.inception_resnet_v2 import deploy
from irv2caffe.proto.snapshot_headers import read_model_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from irv2caffe.config import Recipe
    from irv2caffe.config.derive import Derived
    from irv2caffe.proto.snapshot_headers import LayerHeader

    Shapes = Mapping[str, tuple[tuple[int, ...], ...]]

_AUX = "AuxLogits/"
_AVERAGE_POOL = "Mixed_5b/Branch_3/AvgPool_0a_3x3"
_FAMILIES = (("Repeat/block35_1", "a1"), ("Repeat_1/block17_1", "b1"), ("Repeat_2/block8_1", "c1"))


def options_of_weights(
    weights: Sequence[Path], recipe: Recipe, *, num_classes: int, side: int | None
) -> Derived:
    """The options with which ``build-net`` makes a net for weights, each with the reason.

    The variant and the width follow from names and shapes; the other options from the layer
    definitions, which Caffe writes into each ``.caffemodel``. A classifier of that name for
    another number of classes gives the new one another name.

    Args:
        weights: the models that the training starts from; the net fits the first of them.
        recipe: what it states of the network is not taken from the weights.
        num_classes: of the new net.
        side: shorter side of the new images in pixels: a larger crop is not taken over.

    Returns:
        Values by field of NetOptions, where they differ from the defaults; empty for weights of no
        net of ``build-net``, and for a file that cannot be read, which the checks of the plan
        report.
    """
    if not weights:
        return {}
    path = weights[0]
    try:
        layers = read_model_header(path).layers
    except Irv2CaffeError:
        return {}
    shapes = {each.definition.name: each.shapes for each in layers if each.shapes}
    found = next(_fitting(shapes), None)
    if found is None:
        return {}
    values = {**found, **_of_definitions({each.definition.name: each for each in layers})}
    values |= _of_data([each.definition for each in layers])
    if side is None or values.get("crop", 0) > side:
        values.pop("crop", None)
    variant = VARIANTS[values["variant"]]
    usual = asdict(net_options(variant=values["variant"]))
    derived = {
        name: (value, f"as in {path.name}")
        for name, value in values.items()
        if name not in variant.fixed
        and name not in recipe.net
        and (name in {"variant", "crop"} or not _is_same(value, usual[name]))
    }
    return {**derived, **_new_classifier(path, shapes, recipe, num_classes)}


def _is_same(value: Any, usual: Any) -> bool:
    """Whether a value is the default, which the weights have rounded to a 32-bit float."""
    if isinstance(value, float):
        return math.isclose(value, usual, rel_tol=1e-6)
    return bool(value == usual)


def _new_classifier(path: Path, shapes: Shapes, recipe: Recipe, num_classes: int) -> Derived:
    """A name that is free, where the recipe's is that of a classifier for other classes."""
    name = recipe.net.get("classifier", NetOptions.classifier)
    if name not in shapes or shapes[name][0][0] == num_classes:
        return {}
    free = next(new for n in itertools.count(2) if (new := f"{name}_{n}") not in shapes)
    return {"classifier": (free, f"{path.name} has a {name} of {shapes[name][0][0]:,} classes")}


def _fitting(shapes: Shapes) -> Iterator[dict[str, Any]]:
    """Variants, widths and options that change names or shapes, where these fit the weights."""
    for variant, residual_bn, trunk in itertools.product(VARIANTS, (False, True), (2144, 2048)):
        wanted = {"variant": variant, "residual_bn": residual_bn, "trunk": trunk}
        fixed = VARIANTS[variant].fixed
        wanted = {name: value for name, value in wanted.items() if name not in fixed}
        whole = net_options(**wanted, width=1.0)
        ours = _convolutions(whole)
        theirs = _same_layers(ours, shapes)
        if not theirs:
            continue
        widest = max(ours, key=lambda name: ours[name][0])
        ratio = theirs[widest][0] / ours[widest][0]
        for width in dict.fromkeys((round(ratio, 2), round(ratio, 3), ratio)):
            if 0 < width <= 16 and _convolutions(net_options(**wanted, width=width)) == theirs:
                channels = shapes[next(iter(ours))][0][1]
                yield {**wanted, "width": width} | ({"channels": 1} if channels == 1 else {})


def _same_layers(ours: Mapping[str, Any], shapes: Shapes) -> dict[str, tuple[int, int]]:
    """Filters and number of blobs of the convolutions; empty for weights of other layers."""
    theirs = {
        name: (blobs[0][0], len(blobs))
        for name, blobs in shapes.items()
        if len(blobs[0]) == 4 and not name.startswith(_AUX) and name in ours
    }
    return theirs if theirs.keys() == ours.keys() else {}


def _convolutions(options: NetOptions) -> dict[str, tuple[int, int]]:
    """Filters and number of blobs of the convolutions of a net; empty where it cannot be built."""
    try:
        layers = deploy(options).layer
    except UsageError:
        return {}
    return {
        layer.name: (
            layer.convolution_param.num_output,
            1 + layer.convolution_param.bias_term,
        )
        for layer in layers
        if layer.type == "Convolution"
    }


def _of_definitions(layers: Mapping[str, LayerHeader]) -> dict[str, Any]:
    """Options in the definitions of the layers; some programs write none."""
    values: dict[str, Any] = {}
    if not any(each.definition.HasField("convolution_param") for each in layers.values()):
        return values
    for layer in layers.values():
        if layer.definition.type == "BatchNorm":
            values["bn_eps"] = float(f"{layer.definition.batch_norm_param.eps:.6g}")
            break
    blocks = [layers[name] for pair in _FAMILIES for name in pair if name in layers]
    scales = [_residual_scale(layer) for layer in blocks]
    if len(scales) == len(_FAMILIES):
        is_scaled = all(scale != 1 for scale in scales)
        values["residual_scale"] = tuple(scales) if is_scaled else None
    if _AVERAGE_POOL in layers:
        values["average_pool"] = "tf" if f"{_AVERAGE_POOL}_exact" in layers else "caffe"
    return values


def _residual_scale(layer: LayerHeader) -> float:
    coeff = layer.definition.eltwise_param.coeff
    return float(f"{coeff[1]:.6g}") if len(coeff) > 1 else 1.0


def _of_data(definitions: list[Any]) -> dict[str, Any]:
    """Preprocessing and crop of the data layer, which a net for use does not have."""
    data = next((layer for layer in definitions if layer.type == "Data"), None)
    if data is None:
        return {}
    transform = data.transform_param
    values: dict[str, Any] = {}
    means = [float(value) for value in transform.mean_value]
    if len(means) in {1, 3} and not transform.mean_file:
        values["mean_value"] = tuple(means * (3 // len(means)))
    if transform.scale > 0:
        values["scale"] = float(f"{transform.scale:.8g}")
    if transform.crop_size:
        values["crop"] = int(transform.crop_size)
    return values
