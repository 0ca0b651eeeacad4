"""Layers that join, cut and reorder blobs."""

from __future__ import annotations

import itertools

from irv2caffe.shapes.layer_types.base import LayerSetup, LayerShapes, count, rule, shape_text


@rule("Concat", bottoms=(1, None))
def _concat(layer: LayerSetup) -> LayerShapes:
    param = layer.param
    layer.check(
        not (param.HasField("axis") and param.HasField("concat_dim")),
        "takes axis or concat_dim, not both",
    )
    axis = layer.axis(param.concat_dim if param.HasField("concat_dim") else param.axis)
    top = list(layer.bottoms[0])
    for index, shape in enumerate(layer.bottoms[1:], 1):
        layer.check(
            len(shape) == len(top),
            f"{layer.bottom(0)} and {layer.bottom(index)} differ in their number of axes",
        )
        for place, (size, other) in enumerate(zip(top, shape, strict=True)):
            if place != axis and size != other:
                layer.fail(
                    f"{layer.bottom(0)} and {layer.bottom(index)} must have the same shape, "
                    f"except at axis {axis} ({size} vs. {other})"
                )
        top[axis] += shape[axis]
    return LayerShapes([tuple(top)])


@rule("Slice", tops=(1, None))
def _slice(layer: LayerSetup) -> LayerShapes:
    param = layer.param
    layer.check(
        not (param.HasField("axis") and param.HasField("slice_dim")),
        "takes axis or slice_dim, not both",
    )
    axis = layer.axis(param.slice_dim if param.HasField("slice_dim") else param.axis)
    shape, tops = layer.bottoms[0], layer.num_tops
    if param.slice_point:
        layer.check(
            len(param.slice_point) == tops - 1,
            f"{tops} tops want {tops - 1} slice_point, there are {len(param.slice_point)}",
        )
        edges = [0, *param.slice_point, shape[axis]]
    else:
        layer.check(
            shape[axis] % tops == 0,
            f"the {shape[axis]} of {layer.bottom(0)} on axis {axis} cannot be cut "
            f"into {tops} equal tops",
        )
        edges = list(range(0, shape[axis] + 1, shape[axis] // tops))
    layer.check(
        all(a < b for a, b in itertools.pairwise(edges)),
        f"slice_point must rise, and end below {shape[axis]}",
    )
    cuts = [b - a for a, b in itertools.pairwise(edges)]
    return LayerShapes([(*shape[:axis], cut, *shape[axis + 1 :]) for cut in cuts])


@rule("Split", tops=(1, None))
def _split(layer: LayerSetup) -> LayerShapes:
    return LayerShapes([layer.bottoms[0]] * layer.num_tops)


@rule("Silence", bottoms=(1, None), tops=0)
def _silence(layer: LayerSetup) -> LayerShapes:  # noqa: ARG001
    return LayerShapes([])


@rule("Eltwise", bottoms=(2, None))
def _eltwise(layer: LayerSetup) -> LayerShapes:
    param = layer.param
    coefficients = len(param.coeff)
    layer.check(
        coefficients in {0, len(layer.bottoms)},
        f"takes one coefficient per bottom, has {coefficients} for {len(layer.bottoms)}",
    )
    layer.check(
        not (coefficients and param.operation == param.PROD), "takes coefficients for SUM only"
    )
    for index in range(1, len(layer.bottoms)):
        layer.check(
            layer.bottoms[index] == layer.bottoms[0],
            f"{layer.bottom(0)} and {layer.bottom(index)} must have the same shape",
        )
    return LayerShapes([layer.bottoms[0]])


@rule("Flatten")
def _flatten(layer: LayerSetup) -> LayerShapes:
    layer.not_in_place()
    shape = layer.bottoms[0]
    start, end = layer.axis(layer.param.axis), layer.axis(layer.param.end_axis)
    return LayerShapes([(*shape[:start], count(shape, start, end + 1), *shape[end + 1 :])])


@rule("Reshape")
def _reshape(layer: LayerSetup) -> LayerShapes:
    """reshape_layer.cpp: 0 copies a size, one -1 takes what is left."""
    layer.not_in_place()
    param = layer.param
    shape = layer.bottoms[0]
    axes = len(shape)
    start = param.axis if param.axis >= 0 else axes + param.axis + 1
    layer.check(0 <= start <= axes, f"axis {param.axis} is out of range for {layer.bottom(0)}")
    layer.check(param.num_axes >= -1, f"num_axes {param.num_axes} is below -1")
    end = axes if param.num_axes == -1 else start + param.num_axes
    layer.check(end <= axes, f"num_axes {param.num_axes} reaches past {layer.bottom(0)}")
    dims = list(param.shape.dim)
    for index, size in enumerate(dims):
        if size == 0:
            layer.check(
                start + index < axes, f"dim 0 copies an axis that {layer.bottom(0)} does not have"
            )
            dims[index] = shape[start + index]
    layer.check(dims.count(-1) < 2, "only one dim can be -1")
    layer.check(min(dims, default=1) >= -1, f"dim {min(dims, default=1)} is below -1")
    known = count([size for size in dims if size != -1]) * count(shape[:start] + shape[end:])
    wanted = " ".join(str(size) for size in param.shape.dim)
    if -1 in dims:
        layer.check(
            count(shape) % known == 0, f"{layer.bottom(0)} cannot be reshaped into dim {wanted}"
        )
        dims[dims.index(-1)] = count(shape) // known
    top = (*shape[:start], *dims, *shape[end:])
    layer.check(
        count(top) == count(shape),
        f"{layer.bottom(0)} has {count(shape):,} values, {shape_text(top)} has {count(top):,}",
    )
    return LayerShapes([top])


@rule("Tile")
def _tile(layer: LayerSetup) -> LayerShapes:
    axis = layer.axis(layer.param.axis)
    shape = layer.bottoms[0]
    layer.check(layer.param.tiles > 0, "tiles must be positive")
    return LayerShapes([(*shape[:axis], shape[axis] * layer.param.tiles, *shape[axis + 1 :])])


@rule("Reduction")
def _reduction(layer: LayerSetup) -> LayerShapes:
    return LayerShapes([layer.bottoms[0][: layer.axis(layer.param.axis)]])


@rule("ArgMax")
def _argmax(layer: LayerSetup) -> LayerShapes:
    param = layer.param
    shape = layer.bottoms[0]
    layer.check(param.top_k > 0, "top_k must be positive")
    if param.HasField("axis"):
        axis = layer.axis(param.axis)
        layer.check(
            param.top_k <= shape[axis], f"top_k {param.top_k} is more than the {shape[axis]} there"
        )
        return LayerShapes([(*shape[:axis], param.top_k, *shape[axis + 1 :])])
    layer.axis(0)
    layer.check(
        param.top_k <= count(shape, 1),
        f"top_k {param.top_k} is more than the {count(shape, 1)} there",
    )
    axes = [1] * max(3, len(shape))
    axes[0], axes[1], axes[2] = shape[0], 2 if param.out_max_val else 1, param.top_k
    return LayerShapes([tuple(axes)])


@rule("BatchReindex", bottoms=2)
def _batch_reindex(layer: LayerSetup) -> LayerShapes:
    layer.num_axes(1, 1)
    layer.axis(0)
    return LayerShapes([(layer.bottoms[1][0], *layer.bottoms[0][1:])])


@rule("Filter", bottoms=(2, None), tops=(1, None))
def _filter(layer: LayerSetup) -> LayerShapes:
    """Keeps items while running; before the first run all of them, which is what is told here."""
    layer.check(
        layer.num_tops == len(layer.bottoms) - 1,
        f"takes one top for each bottom but the last, has {layer.num_tops}",
    )
    selector = layer.bottoms[-1]
    layer.check(
        all(size == 1 for size in selector[1:]),
        f"{layer.bottom(len(layer.bottoms) - 1)} must hold one value per item",
    )
    for index in range(layer.num_tops):
        layer.check(
            layer.bottoms[index][:1] == selector[:1] != (),
            f"{layer.bottom(index)} and the selector differ in their number of items",
        )
    return LayerShapes(layer.bottoms[:-1])
