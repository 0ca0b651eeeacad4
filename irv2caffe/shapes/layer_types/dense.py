"""Layers that keep the shape, or mix all values of an item."""

from __future__ import annotations

from irv2caffe.shapes.layer_types.base import (
    LayerSetup,
    LayerShapes,
    Shape,
    count,
    rule,
    shape_text,
)

_NEURONS = (
    "BNLL",
    "Dropout",
    "ELU",
    "Exp",
    "Log",
    "Power",
    "ReLU",
    "Sigmoid",
    "Swish",
    "TanH",
    "Threshold",
)


@rule(*_NEURONS)
def _neuron(layer: LayerSetup) -> LayerShapes:
    return LayerShapes([layer.bottoms[0]])


@rule("Clip")
def _clip(layer: LayerSetup) -> LayerShapes:
    """Both fields of its message are required; without the message Caffe makes zeros of all."""
    if layer.proto.HasField("clip_param"):
        for name in ("min", "max"):
            layer.check(layer.proto.clip_param.HasField(name), f"clip_param wants {name}")
    return LayerShapes([layer.bottoms[0]])


@rule("MVN")
def _normalize(layer: LayerSetup) -> LayerShapes:
    """mvn_layer.cpp: whatever comes in, what goes out has four axes."""
    layer.legacy()
    shape = layer.bottoms[0]
    return LayerShapes([(*shape, *(1,) * (4 - len(shape)))])


@rule("AbsVal")
def _absolute(layer: LayerSetup) -> LayerShapes:
    layer.not_in_place()
    return LayerShapes([layer.bottoms[0]])


@rule("Softmax")
def _softmax(layer: LayerSetup) -> LayerShapes:
    layer.axis(layer.param.axis)
    return LayerShapes([layer.bottoms[0]])


@rule("PReLU")
def _prelu(layer: LayerSetup) -> LayerShapes:
    shape = layer.bottoms[0]
    layer.check(len(shape) >= 2, f"{layer.bottom(0)} must have 2 axes or more")
    layer.legacy()
    return LayerShapes([shape], [() if layer.param.channel_shared else (shape[1],)])


@rule("BatchNorm")
def _batch_norm(layer: LayerSetup) -> LayerShapes:
    """Mean, variance, and the scalar that both are divided by: statistics, not weights."""
    shape = layer.bottoms[0]
    layer.check(len(shape) >= 2, f"{layer.bottom(0)} must have 2 axes or more")
    layer.check(
        all(spec.lr_mult == 0 for spec in layer.proto.param),
        "its blobs are statistics and cannot be learned",
        "give it three param { lr_mult: 0 decay_mult: 0 }, or none",
    )
    return LayerShapes([shape], [(shape[1],), (shape[1],), (1,)], statistics=True)


@rule("Scale", bottoms=(1, 2))
def _scale(layer: LayerSetup) -> LayerShapes:
    """scale_layer.cpp: a learned factor, or the second bottom; ``bias_term`` adds a summand."""
    factor = _applied(layer)
    params = [factor] if len(layer.bottoms) == 1 else []
    if layer.param.bias_term:
        params.append(factor)
    return LayerShapes([layer.bottoms[0]], params)


@rule("Bias", bottoms=(1, 2))
def _bias(layer: LayerSetup) -> LayerShapes:
    summand = _applied(layer)
    return LayerShapes([layer.bottoms[0]], [summand] if len(layer.bottoms) == 1 else [])


def _applied(layer: LayerSetup) -> Shape:
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
def _inner_product(layer: LayerSetup) -> LayerShapes:
    param = layer.param
    shape = layer.bottoms[0]
    axis = layer.axis(param.axis)
    layer.check(param.num_output > 0, "num_output must be positive")
    inputs = count(shape, axis)
    weight = (inputs, param.num_output) if param.transpose else (param.num_output, inputs)
    params = [weight, (param.num_output,)] if param.bias_term else [weight]
    return LayerShapes(
        [(*shape[:axis], param.num_output)], params, count(weight) * count(shape, 0, axis)
    )


@rule("Embed")
def _embed(layer: LayerSetup) -> LayerShapes:
    param = layer.param
    layer.check(param.num_output > 0, "num_output must be positive")
    layer.check(param.input_dim > 0, "input_dim must be positive")
    weight = (param.input_dim, param.num_output)
    params = [weight, (param.num_output,)] if param.bias_term else [weight]
    return LayerShapes([(*layer.bottoms[0], param.num_output)], params)


@rule("LSTM", "RNN", bottoms=(2, None), tops=(1, None))
def _recurrent(layer: LayerSetup) -> LayerShapes:
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
    layer.check(
        len(x) >= 3, f"{layer.bottom(0)} must have 3 axes or more: times, streams, values ..."
    )
    layer.check(cont == x[:2], f"{layer.bottom(1)} must be {shape_text(x[:2])}: times, streams")
    units = 4 * out if is_lstm else out
    params: list[Shape] = [(units, count(x, 2)), (units,)]
    steps, streams = x[:2]
    if len(layer.bottoms) == 3 + hidden:
        static = layer.bottoms[2]
        layer.check(
            static[:1] == (streams,) and len(static) >= 2,
            f"{layer.bottom(2)} must have {streams} streams first, then values",
        )
        params.append((units, count(static, 1)))
    params += [(units, out)] if is_lstm else [(out, out), (out, out), (out,)]
    macs = sum(
        count(shape) * streams * (1 if index == 2 and len(layer.bottoms) == 3 + hidden else steps)
        for index, shape in enumerate(params)
        if len(shape) == 2
    )
    return LayerShapes([(steps, streams, out), *[(1, streams, out)] * hidden], params, macs)


@rule("LSTMUnit", bottoms=3, tops=2)
def _lstm_unit(layer: LayerSetup) -> LayerShapes:
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
    return LayerShapes([layer.bottoms[0]] * 2)
