"""Layers that keep, join, cut or mix blobs without a window."""

from __future__ import annotations

import itertools

from irv2caffe.net.rules.base import Layer, Made, Shape, count, rule, text

_NEURONS = (
    "BNLL",
    "Clip",
    "Dropout",
    "ELU",
    "Exp",
    "Log",
    "MVN",
    "Power",
    "ReLU",
    "Sigmoid",
    "Swish",
    "TanH",
    "Threshold",
)


@rule(*_NEURONS)
def _neuron(layer: Layer) -> Made:
    return Made([layer.bottoms[0]])


@rule("AbsVal")
def _absolute(layer: Layer) -> Made:
    _not_in_place(layer)
    return Made([layer.bottoms[0]])


def _not_in_place(layer: Layer) -> None:
    layer.check(layer.proto.bottom[0] != layer.proto.top[0], "does not work in place")


@rule("Softmax")
def _softmax(layer: Layer) -> Made:
    layer.axis(layer.param.axis)
    return Made([layer.bottoms[0]])


@rule("PReLU")
def _prelu(layer: Layer) -> Made:
    shape = layer.bottoms[0]
    layer.check(len(shape) >= 2, f"{layer.bottom(0)} must have 2 axes or more")
    return Made([shape], [() if layer.param.channel_shared else (shape[1],)])


@rule("BatchNorm")
def _batch_norm(layer: Layer) -> Made:
    """Mean, variance, and the scalar that both are divided by: statistics, not weights."""
    shape = layer.bottoms[0]
    layer.check(len(shape) >= 2, f"{layer.bottom(0)} must have 2 axes or more")
    layer.check(
        all(spec.lr_mult == 0 for spec in layer.proto.param),
        "its blobs are statistics and cannot be learned",
        "give it three param { lr_mult: 0 decay_mult: 0 }, or none",
    )
    return Made([shape], [(shape[1],), (shape[1],), (1,)], statistics=True)


@rule("Scale", bottoms=(1, 2))
def _scale(layer: Layer) -> Made:
    """scale_layer.cpp: a learned factor, or the second bottom; ``bias_term`` adds a summand."""
    factor = _applied(layer)
    params = [factor] if len(layer.bottoms) == 1 else []
    if layer.param.bias_term:
        params.append(factor)
    return Made([layer.bottoms[0]], params)


@rule("Bias", bottoms=(1, 2))
def _bias(layer: Layer) -> Made:
    summand = _applied(layer)
    return Made([layer.bottoms[0]], [summand] if len(layer.bottoms) == 1 else [])


def _applied(layer: Layer) -> Shape:
    """The shape of a factor or summand, which fits the first bottom from an axis on."""
    param = layer.param
    shape = layer.bottoms[0]
    if len(layer.bottoms) == 2:
        applied = layer.bottoms[1]
        axis = layer.axis(param.axis) if applied else 0
        what = layer.bottom(1)
    else:
        axis = layer.axis(param.axis)
        layer.check(param.num_axes >= -1, f"num_axes {param.num_axes} is below -1")
        end = len(shape) if param.num_axes == -1 else axis + param.num_axes
        layer.check(end <= len(shape), f"num_axes {param.num_axes} reaches past {layer.bottom(0)}")
        return shape[axis:end]
    layer.check(
        shape[axis : axis + len(applied)] == applied,
        f"{what} does not fit {layer.bottom(0)} from axis {axis} on",
    )
    return applied


@rule("InnerProduct")
def _inner_product(layer: Layer) -> Made:
    param = layer.param
    shape = layer.bottoms[0]
    axis = layer.axis(param.axis)
    layer.check(param.num_output > 0, "num_output must be positive")
    inputs = count(shape, axis)
    weight = (inputs, param.num_output) if param.transpose else (param.num_output, inputs)
    params = [weight, (param.num_output,)] if param.bias_term else [weight]
    return Made([(*shape[:axis], param.num_output)], params, count(weight) * count(shape, 0, axis))


@rule("Embed")
def _embed(layer: Layer) -> Made:
    param = layer.param
    layer.check(param.num_output > 0, "num_output must be positive")
    layer.check(param.input_dim > 0, "input_dim must be positive")
    weight = (param.input_dim, param.num_output)
    params = [weight, (param.num_output,)] if param.bias_term else [weight]
    return Made([(*layer.bottoms[0], param.num_output)], params)


@rule("Concat", bottoms=(1, None))
def _concat(layer: Layer) -> Made:
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
    return Made([tuple(top)])


@rule("Slice", tops=(1, None))
def _slice(layer: Layer) -> Made:
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
    return Made([(*shape[:axis], cut, *shape[axis + 1 :]) for cut in cuts])


@rule("Split", tops=(1, None))
def _split(layer: Layer) -> Made:
    return Made([layer.bottoms[0]] * layer.num_tops)


@rule("Silence", bottoms=(1, None), tops=0)
def _silence(layer: Layer) -> Made:  # noqa: ARG001
    return Made([])


@rule("Eltwise", bottoms=(2, None))
def _eltwise(layer: Layer) -> Made:
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
    return Made([layer.bottoms[0]])


@rule("Flatten")
def _flatten(layer: Layer) -> Made:
    _not_in_place(layer)
    shape = layer.bottoms[0]
    start, end = layer.axis(layer.param.axis), layer.axis(layer.param.end_axis)
    return Made([(*shape[:start], count(shape, start, end + 1), *shape[end + 1 :])])


@rule("Reshape")
def _reshape(layer: Layer) -> Made:
    """reshape_layer.cpp: 0 copies a size, one -1 takes what is left."""
    _not_in_place(layer)
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
        f"{layer.bottom(0)} has {count(shape):,} values, {text(top)} has {count(top):,}",
    )
    return Made([top])


@rule("Tile")
def _tile(layer: Layer) -> Made:
    axis = layer.axis(layer.param.axis)
    shape = layer.bottoms[0]
    layer.check(layer.param.tiles > 0, "tiles must be positive")
    return Made([(*shape[:axis], shape[axis] * layer.param.tiles, *shape[axis + 1 :])])


@rule("Reduction")
def _reduction(layer: Layer) -> Made:
    return Made([layer.bottoms[0][: layer.axis(layer.param.axis)]])


@rule("ArgMax")
def _argmax(layer: Layer) -> Made:
    param = layer.param
    shape = layer.bottoms[0]
    layer.check(param.top_k > 0, "top_k must be positive")
    if param.HasField("axis"):
        axis = layer.axis(param.axis)
        layer.check(
            param.top_k <= shape[axis], f"top_k {param.top_k} is more than the {shape[axis]} there"
        )
        return Made([(*shape[:axis], param.top_k, *shape[axis + 1 :])])
    layer.check(
        param.top_k <= count(shape, 1),
        f"top_k {param.top_k} is more than the {count(shape, 1)} there",
    )
    axes = [1] * max(3, len(shape))
    axes[0], axes[1], axes[2] = shape[0], 2 if param.out_max_val else 1, param.top_k
    return Made([tuple(axes)])


@rule("BatchReindex", bottoms=2)
def _batch_reindex(layer: Layer) -> Made:
    layer.num_axes(1, 1)
    return Made([(layer.bottoms[1][0], *layer.bottoms[0][1:])])


@rule("Filter", bottoms=(2, None), tops=(1, None))
def _filter(layer: Layer) -> Made:
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
            layer.bottoms[index][0] == selector[0],
            f"{layer.bottom(index)} and the selector differ in their number of items",
        )
    return Made(layer.bottoms[:-1])


@rule("LSTM", "RNN", bottoms=(2, None), tops=(1, None))
def _recurrent(layer: Layer) -> Made:
    """recurrent_layer.cpp: x (TxNx...), cont (TxN), perhaps x_static (Nx...) and hidden states."""
    param = layer.param
    is_lstm = layer.proto.type == "LSTM"
    hidden = (2 if is_lstm else 1) if param.expose_hidden else 0
    layer.check(
        len(layer.bottoms) in {2 + hidden, 3 + hidden},
        f"takes {2 + hidden} or {3 + hidden} bottoms, has {len(layer.bottoms)}",
    )
    layer.check(layer.num_tops == 1 + hidden, f"takes {1 + hidden} top(s), has {layer.num_tops}")
    x, cont = layer.bottoms[:2]
    out = param.num_output
    layer.check(out > 0, "num_output must be positive")
    layer.check(len(x) >= 2, f"{layer.bottom(0)} must have 2 axes or more: times, streams, ...")
    layer.check(cont == x[:2], f"{layer.bottom(1)} must be {text(x[:2])}: times, streams")
    units = 4 * out if is_lstm else out
    params: list[Shape] = [(units, count(x, 2)), (units,)]
    steps, streams = x[:2]
    if len(layer.bottoms) == 3 + hidden:
        static = layer.bottoms[2]
        layer.check(
            static[:1] == (streams,), f"{layer.bottom(2)} must have {streams} streams first"
        )
        params.append((units, count(static, 1)))
    params += [(units, out)] if is_lstm else [(out, out), (out, out), (out,)]
    macs = sum(
        count(shape) * streams * (1 if index == 2 and len(layer.bottoms) == 3 + hidden else steps)
        for index, shape in enumerate(params)
        if len(shape) == 2
    )
    return Made([(steps, streams, out), *[(1, streams, out)] * hidden], params, macs)


@rule("LSTMUnit", bottoms=3, tops=2)
def _lstm_unit(layer: Layer) -> Made:
    for index, axes in enumerate((3, 3, 2)):
        layer.num_axes(axes, index)
        layer.check(
            layer.bottoms[index][:2] == (1, layer.bottoms[0][1]),
            f"{layer.bottom(index)} must begin with 1x{layer.bottoms[0][1]}",
        )
    layer.check(
        layer.bottoms[1][2] == 4 * layer.bottoms[0][2],
        f"{layer.bottom(1)} must be four times as wide as {layer.bottom(0)}",
    )
    return Made([layer.bottoms[0]] * 2)
