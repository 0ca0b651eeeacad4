"""Shape rules of layers that join, cut and reshape blobs."""

from __future__ import annotations

import itertools

from irv2caffe.shapes.layer_types.base import LayerSetup, LayerShapes, count, rule, shape_text


@rule("Concat", bottoms=(1, None))
def _concat(layer: LayerSetup) -> LayerShapes:
    param = layer.param
    if param.HasField("axis") and param.HasField("concat_dim"):
        layer.fail("takes axis or concat_dim, not both")
    axis = layer.axis(param.concat_dim if param.HasField("concat_dim") else param.axis)
    top = list(layer.bottoms[0])
    for index, shape in enumerate(layer.bottoms[1:], 1):
        if len(shape) != len(top):
            layer.fail(
                f"{layer.bottom(0)} and {layer.bottom(index)} differ in their number of axes"
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
    if param.HasField("axis") and param.HasField("slice_dim"):
        layer.fail("takes axis or slice_dim, not both")
    axis = layer.axis(param.slice_dim if param.HasField("slice_dim") else param.axis)
    shape, tops = layer.bottoms[0], layer.num_tops
    if param.slice_point:
        if len(param.slice_point) != tops - 1:
            layer.fail(
                f"{tops} tops need {tops - 1} slice_point, there are {len(param.slice_point)}"
            )
        edges = [0, *param.slice_point, shape[axis]]
    else:
        if shape[axis] % tops != 0:
            layer.fail(
                f"the {shape[axis]} of {layer.bottom(0)} on axis {axis} cannot be cut "
                f"into {tops} equal tops"
            )
        edges = list(range(0, shape[axis] + 1, shape[axis] // tops))
    if not all(a < b for a, b in itertools.pairwise(edges)):
        layer.fail(f"slice_point must be increasing and below {shape[axis]}")
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
    if coefficients not in {0, len(layer.bottoms)}:
        layer.fail(f"takes one coefficient per bottom, has {coefficients} for {len(layer.bottoms)}")
    if coefficients and param.operation == param.PROD:
        layer.fail("takes coefficients for SUM only")
    layer.check_same_shapes()
    return LayerShapes([layer.bottoms[0]])


@rule("Flatten")
def _flatten(layer: LayerSetup) -> LayerShapes:
    layer.check_not_in_place()
    shape = layer.bottoms[0]
    start, end = layer.axis(layer.param.axis), layer.axis(layer.param.end_axis)
    return LayerShapes([(*shape[:start], count(shape, start, end + 1), *shape[end + 1 :])])


@rule("Reshape")
def _reshape(layer: LayerSetup) -> LayerShapes:
    """reshape_layer.cpp: a dim of 0 copies a size, one of -1 is inferred."""
    layer.check_not_in_place()
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
            if start + index >= axes:
                layer.fail(f"dim 0 copies an axis that {layer.bottom(0)} does not have")
            dims[index] = shape[start + index]
    layer.check(dims.count(-1) < 2, "only one dim can be -1")
    layer.check(min(dims, default=1) >= -1, f"dim {min(dims, default=1)} is below -1")
    known = count([size for size in dims if size != -1]) * count(shape[:start] + shape[end:])
    wanted = " ".join(str(size) for size in param.shape.dim)
    if -1 in dims:
        if count(shape) % known != 0:
            layer.fail(f"{layer.bottom(0)} cannot be reshaped into dim {wanted}")
        dims[dims.index(-1)] = count(shape) // known
    top = (*shape[:start], *dims, *shape[end:])
    if count(top) != count(shape):
        layer.fail(
            f"{layer.bottom(0)} has {count(shape):,} values, {shape_text(top)} has {count(top):,}"
        )
    return LayerShapes([top])


@rule("Tile")
def _tile(layer: LayerSetup) -> LayerShapes:
    axis = layer.axis(layer.param.axis)
    shape = layer.bottoms[0]
    layer.check_positive("tiles")
    return LayerShapes([(*shape[:axis], shape[axis] * layer.param.tiles, *shape[axis + 1 :])])


@rule("Reduction")
def _reduction(layer: LayerSetup) -> LayerShapes:
    return LayerShapes([layer.bottoms[0][: layer.axis(layer.param.axis)]])


@rule("ArgMax")
def _argmax(layer: LayerSetup) -> LayerShapes:
    param = layer.param
    shape = layer.bottoms[0]
    layer.check_positive("top_k")
    axis = layer.axis(param.axis) if param.HasField("axis") else None
    layer.axis(0)
    available = count(shape, 1) if axis is None else shape[axis]
    layer.check(param.top_k <= available, f"top_k {param.top_k} is more than the {available} there")
    if axis is not None:
        return LayerShapes([(*shape[:axis], param.top_k, *shape[axis + 1 :])])
    axes = [1] * max(3, len(shape))
    axes[0], axes[1], axes[2] = shape[0], 2 if param.out_max_val else 1, param.top_k
    return LayerShapes([tuple(axes)])


@rule("BatchReindex", bottoms=2)
def _batch_reindex(layer: LayerSetup) -> LayerShapes:
    layer.check_axes(1, 1)
    layer.axis(0)
    return LayerShapes([(layer.bottoms[1][0], *layer.bottoms[0][1:])])


@rule("Filter", bottoms=(2, None), tops=(1, None))
def _filter(layer: LayerSetup) -> LayerShapes:
    """filter_layer.cpp: before the first pass, all items are kept."""
    if layer.num_tops != len(layer.bottoms) - 1:
        layer.fail(f"takes one top for each bottom but the last, has {layer.num_tops}")
    selector = layer.bottoms[-1]
    if not all(size == 1 for size in selector[1:]):
        layer.fail(f"{layer.bottom(len(layer.bottoms) - 1)} must hold one value per item")
    for index in range(layer.num_tops):
        if not layer.bottoms[index][:1] == selector[:1] != ():
            layer.fail(f"{layer.bottom(index)} and the selector differ in their number of items")
    return LayerShapes(layer.bottoms[:-1])
