"""Shape rules of neuron and normalization layers, inner products and recurrent layers."""

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
    """``min`` and ``max`` are required in clip_param; without it Caffe outputs zeros."""
    if layer.proto.HasField("clip_param"):
        for name in ("min", "max"):
            layer.check(layer.proto.clip_param.HasField(name), f"clip_param needs {name}")
    return LayerShapes([layer.bottoms[0]])


@rule("MVN")
def _mvn(layer: LayerSetup) -> LayerShapes:
    """mvn_layer.cpp: the top always has four axes."""
    layer.check_legacy()
    shape = layer.bottoms[0]
    return LayerShapes([(*shape, *(1,) * (4 - len(shape)))])


@rule("AbsVal")
def _abs_val(layer: LayerSetup) -> LayerShapes:
    layer.check_not_in_place()
    return LayerShapes([layer.bottoms[0]])


@rule("Softmax")
def _softmax(layer: LayerSetup) -> LayerShapes:
    layer.axis(layer.param.axis)
    return LayerShapes([layer.bottoms[0]])


@rule("PReLU")
def _prelu(layer: LayerSetup) -> LayerShapes:
    shape = layer.bottoms[0]
    layer.check_has_channels()
    layer.check_legacy()
    return LayerShapes([shape], [() if layer.param.channel_shared else (shape[1],)])


@rule("BatchNorm")
def _batch_norm(layer: LayerSetup) -> LayerShapes:
    """batch_norm_layer.cpp: mean, variance, and the factor that both are divided by."""
    layer.check_has_channels()
    shape = layer.bottoms[0]
    if not all(spec.lr_mult == 0 for spec in layer.proto.param):
        layer.fail(
            "its blobs are statistics and cannot be learned",
            "give it three param { lr_mult: 0 decay_mult: 0 }, or none",
        )
    return LayerShapes([shape], [(shape[1],), (shape[1],), (1,)], statistics=True)


@rule("Scale", bottoms=(1, 2))
def _scale(layer: LayerSetup) -> LayerShapes:
    """scale_layer.cpp: multiplies by a weight or by the second bottom; bias_term adds a weight."""
    operand = _operand(layer)
    num_weights = (len(layer.bottoms) == 1) + layer.param.bias_term
    return LayerShapes([layer.bottoms[0]], [operand] * num_weights)


@rule("Bias", bottoms=(1, 2))
def _bias(layer: LayerSetup) -> LayerShapes:
    """bias_layer.cpp: adds a weight or the second bottom."""
    operand = _operand(layer)
    return LayerShapes([layer.bottoms[0]], [operand] if len(layer.bottoms) == 1 else [])


def _operand(layer: LayerSetup) -> Shape:
    """The shape of the factor or summand, which matches the first bottom from an axis on."""
    param = layer.param
    shape = layer.bottoms[0]
    if len(layer.bottoms) == 1:
        axis = layer.axis(param.axis)
        layer.check(param.num_axes >= -1, f"num_axes {param.num_axes} is below -1")
        end = len(shape) if param.num_axes == -1 else axis + param.num_axes
        layer.check(end <= len(shape), f"num_axes {param.num_axes} reaches past {layer.bottom(0)}")
        return shape[axis:end]
    operand = layer.bottoms[1]
    axis = layer.axis(param.axis) if operand else 0
    if shape[axis : axis + len(operand)] != operand:
        layer.fail(f"{layer.bottom(1)} does not fit {layer.bottom(0)} from axis {axis} on")
    return operand


@rule("InnerProduct")
def _inner_product(layer: LayerSetup) -> LayerShapes:
    param = layer.param
    shape = layer.bottoms[0]
    axis = layer.axis(param.axis)
    layer.check_positive("num_output")
    inputs = count(shape, axis)
    weight = (inputs, param.num_output) if param.transpose else (param.num_output, inputs)
    params = [weight, (param.num_output,)] if param.bias_term else [weight]
    return LayerShapes(
        [(*shape[:axis], param.num_output)], params, count(weight) * count(shape, 0, axis)
    )


@rule("Embed")
def _embed(layer: LayerSetup) -> LayerShapes:
    param = layer.param
    layer.check_positive("num_output", "input_dim")
    weight = (param.input_dim, param.num_output)
    params = [weight, (param.num_output,)] if param.bias_term else [weight]
    return LayerShapes([(*layer.bottoms[0], param.num_output)], params)


@rule("LSTM", "RNN", bottoms=(2, None), tops=(1, None))
def _recurrent(layer: LayerSetup) -> LayerShapes:
    """recurrent_layer.cpp: x (TxNx...), cont (TxN), perhaps x_static (Nx...) and hidden states."""
    param = layer.param
    is_lstm = layer.proto.type == "LSTM"
    hidden = (2 if is_lstm else 1) if param.expose_hidden else 0
    if len(layer.bottoms) not in {2 + hidden, 3 + hidden}:
        layer.fail(f"takes {2 + hidden} or {3 + hidden} bottoms, has {len(layer.bottoms)}")
    layer.check(layer.num_tops == 1 + hidden, f"takes {1 + hidden} top(s), has {layer.num_tops}")
    x, cont = layer.bottoms[:2]
    out = param.num_output
    layer.check_positive("num_output")
    if len(x) < 3:
        layer.fail(f"{layer.bottom(0)} must have 3 axes or more: times, streams, values ...")
    layer.check(cont == x[:2], f"{layer.bottom(1)} must be {shape_text(x[:2])}: times, streams")
    units = 4 * out if is_lstm else out
    params: list[Shape] = [(units, count(x, 2)), (units,)]
    steps, streams = x[:2]
    if len(layer.bottoms) == 3 + hidden:
        static = layer.bottoms[2]
        if static[:1] != (streams,) or len(static) < 2:
            layer.fail(f"{layer.bottom(2)} must have {streams} streams first, then values")
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
        layer.check_axes(axes, index)
        if layer.bottoms[index][:2] != (1, layer.bottoms[0][1]):
            layer.fail(f"{layer.bottom(index)} must begin with 1x{layer.bottoms[0][1]}")
    if layer.bottoms[1][2] != 4 * layer.bottoms[0][2]:
        layer.fail(f"{layer.bottom(1)} must be four times as wide as {layer.bottom(0)}")
    return LayerShapes([layer.bottoms[0]] * 2)
