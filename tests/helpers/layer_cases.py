"""Random layers of each type, with their bottoms: hypothesis strategies of Cases."""

from __future__ import annotations

from hypothesis import strategies as st

from helpers.layer_parity import Bottom, Case

VALUES = st.sampled_from(["normal", "ties"])
SEEDS = st.integers(0, 2**20)


def shapes(least=2, most=4, largest=7):
    """Shapes with a number of axes between two limits."""
    return st.lists(st.integers(1, largest), min_size=least, max_size=most).map(tuple)


def images(least=1, largest=9):
    """Shapes of images: items, channels, height, width."""
    return st.tuples(st.integers(1, 3), st.integers(1, 6), *[st.integers(least, largest)] * 2)


def _pair(draw, name, values, single=None):
    """A setting given once, or as ``_h`` and ``_w``; its text and its two values."""
    if draw(st.booleans()):
        value = draw(values)
        return f"{single or name}: {value} ", (value, value)
    two = draw(st.tuples(values, values))
    return f"{name}_h: {two[0]} {name}_w: {two[1]} ", two


@st.composite
def convolutions(draw):
    """Convolutions over 0 to 3 axes, in groups, dilated, behind any axis, of one or two bottoms."""
    axes = draw(st.sampled_from([0, 1, 2, 2, 2, 2, 3]))
    kernel = draw(st.lists(st.integers(1, 4), min_size=axes, max_size=axes))
    stride = draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes))
    pad = draw(st.lists(st.integers(0, 3), min_size=axes, max_size=axes))
    dilation = draw(st.lists(st.integers(1, 2), min_size=axes, max_size=axes))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel, pad, dilation, strict=True)]
    sizes = [draw(st.integers(size, size + 5)) for size in least]
    group = draw(st.integers(1, 3))
    channels, outputs = group * draw(st.integers(1, 3)), group * draw(st.integers(1, 3))
    before = draw(shapes(0, 2, 3)) if draw(st.booleans()) else (2,)
    body = f"num_output: {outputs} group: {group} axis: {len(before)} "
    body += f"bias_term: {str(draw(st.booleans())).lower()} "
    if axes == 2 and draw(st.booleans()):
        settings = (("kernel", kernel), ("stride", stride), ("pad", pad))
        for name, (height, width) in settings:
            body += f"{name}_h: {height} {name}_w: {width} "
    else:
        settings = (("kernel_size", kernel or [1]), ("stride", stride), ("pad", pad))
        body += " ".join(f"{name}: {value}" for name, values in settings for value in values)
    body += "".join(f" dilation: {value}" for value in dilation)
    bottom = Bottom((*before, channels, *sizes))
    body = f"convolution_param {{ {body} }}"
    bottoms = (bottom,) * draw(st.integers(1, 2))
    return Case("Convolution", body, bottoms, len(bottoms), summands=1, seed=draw(SEEDS))


@st.composite
def deconvolutions(draw):
    """Deconvolutions of images, in groups, with random or bilinear weights."""
    group = draw(st.integers(1, 3))
    channels, outputs = group * draw(st.integers(1, 2)), group * draw(st.integers(1, 2))
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    pad, dilation = draw(st.integers(0, (kernel - 1) // 2)), draw(st.integers(1, 2))
    body = f"num_output: {outputs} group: {group} kernel_size: {kernel} stride: {stride} "
    body += f"pad: {pad} dilation: {dilation} bias_term: {str(draw(st.booleans())).lower()} "
    is_bilinear = draw(st.booleans())
    body += 'weight_filler { type: "bilinear" }' if is_bilinear else ""
    shape = (2, channels, draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    weights = "own" if is_bilinear else "normal"
    body = f"convolution_param {{ {body} }}"
    bottoms = (Bottom(shape),)
    return Case("Deconvolution", body, bottoms, weights=weights, summands=1, seed=draw(SEEDS))


@st.composite
def poolings(draw):
    """Poolings of all forms whose windows all reach the image: Caffe overwrites memory else."""
    shape = draw(images())
    pool = draw(st.sampled_from(["MAX", "AVE"]))
    tops = draw(st.integers(1, 2)) if pool == "MAX" else 1
    body, mode = f"pool: {pool} ", draw(st.sampled_from(["CEIL", "FLOOR"]))
    if draw(st.integers(0, 4)) == 0:
        body += "global_pooling: true"
    else:
        text, kernel = _pair(draw, "kernel", st.integers(1, 5), "kernel_size")
        strided, _ = _pair(draw, "stride", st.integers(1, max(1, min(kernel))))
        padded, pad = _pair(draw, "pad", st.integers(0, min(kernel) - 1))
        body += text + strided + padded + f"round_mode: {mode}"
        least = [max(1, k - 2 * p) for k, p in zip(kernel, pad, strict=True)]
        shape = (*shape[:2], *(max(n, m) for n, m in zip(shape[2:], least, strict=True)))
    bottom = Bottom(shape, draw(VALUES))
    return Case("Pooling", f"pooling_param {{ {body} }}", (bottom,), tops, seed=draw(SEEDS))


@st.composite
def batch_norms(draw):
    """BatchNorm layers with one value for each channel or many, with stored statistics or not.

    Few values are left out: of two in a batch the gradient is 0 but for eps, and what is computed
    is the error of float32.
    """
    body = draw(st.sampled_from(["", "use_global_stats: true", "use_global_stats: false"]))
    body += draw(st.sampled_from(["", " eps: 0.001 moving_average_fraction: 0.9"]))
    shape = draw(shapes(2, 5, 5))
    if draw(st.integers(0, 4)) == 0:
        shape = (1, shape[1], *(1 for _ in shape[2:]))
    elif _count(shape) < 8 * shape[1]:
        shape = (8, *shape[1:])
    return Case(
        "BatchNorm",
        f"batch_norm_param {{ {body} }}",
        (Bottom(shape),),
        in_place=draw(st.booleans()),
        weights=draw(st.sampled_from(["statistics", "statistics", "zeros"])),
        summands=3,  # gradients over deviations, which are below 1
        seed=draw(SEEDS),
    )


@st.composite
def scales(draw):
    """Scale and Bias layers, with a weight or a second bottom, from any axis on."""
    kind = draw(st.sampled_from(["Scale", "Bias"]))
    shape = draw(shapes(2, 4, 5))
    start = draw(st.integers(0, len(shape) - 1))
    end = draw(st.integers(start, len(shape)))
    axis = start - draw(st.sampled_from([0, len(shape)]))
    body = f"axis: {axis} "
    bottoms = [Bottom(shape)]
    if draw(st.booleans()):
        operand = shape[start:end]
        bottoms.append(Bottom(operand, learns=bool(operand)))
    else:
        body += f"num_axes: {draw(st.sampled_from([end - start, -1]))} "
    if kind == "Scale":
        body += f"bias_term: {str(draw(st.booleans())).lower()}"
    body = f"{kind.lower()}_param {{ {body} }}"
    in_place, seed = draw(st.booleans()), draw(SEEDS)
    return Case(kind, body, tuple(bottoms), in_place=in_place, summands=1, seed=seed)


NEURONS = {
    "ReLU": ("", "relu_param { negative_slope: 0.1 }", "relu_param { negative_slope: -0.5 }"),
    "PReLU": ("", "prelu_param { channel_shared: true }"),
    "ELU": ("", "elu_param { alpha: 0.5 }", "elu_param { alpha: -0.3 }"),
    "Sigmoid": ("",),
    "TanH": ("",),
    "BNLL": ("",),
    "Clip": ("clip_param { min: -1 max: 1 }",),
    "Swish": ("", "swish_param { beta: 2 }"),
    "Power": (
        "",
        "power_param { power: 2 }",
        "power_param { power: 2 shift: 1 scale: 0.5 }",
        "power_param { power: 3 }",
        "power_param { power: 0.5 }",
        "power_param { scale: -2 shift: 0.5 }",
        "power_param { power: 0 }",
        "power_param { scale: 0 shift: 2 power: 3 }",
        "power_param { power: -1 }",
    ),
    "Exp": ("", "exp_param { base: 2 }", "exp_param { base: 3 scale: -0.5 shift: 1.5 }"),
    "Log": ("", "log_param { base: 2 }", "log_param { base: 3 scale: 0.5 shift: 1.5 }"),
    "Softmax": ("", "softmax_param { axis: -1 }"),
}


@st.composite
def neurons(draw):
    """Layers of one value to one value, and Softmax, also in place."""
    kind = draw(st.sampled_from(sorted(NEURONS)))
    body = draw(st.sampled_from(NEURONS[kind]))
    values = "positive" if kind == "Log" else draw(VALUES)
    bottom = Bottom(draw(shapes(2, 4)), values)
    in_place, summands = draw(st.booleans()), int(kind == "PReLU")
    return Case(kind, body, (bottom,), in_place=in_place, summands=summands, seed=draw(SEEDS))


@st.composite
def forward_only(draw):
    """Layers without a gradient."""
    kind = draw(st.sampled_from(["Threshold", "ArgMax", "Accuracy", "DummyData"]))
    bottom = Bottom(draw(shapes(2, 4)), draw(VALUES), learns=False)
    bottoms, tops, in_place = (bottom,), 1, False
    if kind == "Threshold":
        body = f"threshold_param {{ threshold: {draw(st.integers(-1, 1))} }}"
        in_place = draw(st.booleans())
        bottoms = (Bottom(bottom.shape, bottom.values, learns=in_place),)  # else overwritten
    elif kind == "ArgMax":
        axis = draw(st.integers(-len(bottom.shape), len(bottom.shape) - 1))
        has_axis = draw(st.booleans())
        most = bottom.shape[axis] if has_axis else max(1, _count(bottom.shape[1:]))
        body = f"top_k: {draw(st.integers(1, most))} "
        body += f"out_max_val: {str(draw(st.booleans())).lower()} "
        body = f"argmax_param {{ {body} {f'axis: {axis}' if has_axis else ''} }}"
    elif kind == "Accuracy":
        axis = draw(st.integers(1, len(bottom.shape) - 1))
        classes = bottom.shape[axis]
        tops = draw(st.integers(1, 2))
        body = f"axis: {axis} top_k: {draw(st.integers(1, classes))} "
        body += draw(st.sampled_from(["", "ignore_label: 0", "ignore_label: -1"]))
        body = f"accuracy_param {{ {body} }}"
        bottoms = (bottom, _labels(bottom.shape, axis))
    else:
        bottoms, tops = (), draw(st.integers(1, 2))
        filler = draw(st.sampled_from(["", "data_filler { value: 3 }", "data_filler { } " * tops]))
        sizes = "".join(f" shape {{ dim: {size} }}" for size in bottom.shape[:tops])
        body = f"dummy_data_param {{ {filler} {sizes} }}"
    return Case(kind, body, bottoms, tops, in_place, backward=False, seed=draw(SEEDS))


def _count(shape):
    total = 1
    for size in shape:
        total *= size
    return total


def _labels(shape, axis):
    """Labels for scores of that shape, with classes along an axis."""
    kept = (*shape[:axis], *shape[axis + 1 :])
    return Bottom(kept, f"labels {shape[axis]}", learns=False)


@st.composite
def arrangements(draw):
    """Layers that join, cut, reshape and reduce."""
    kind = draw(st.sampled_from(sorted(ARRANGEMENTS)))
    values = draw(VALUES)
    shape = draw(shapes(2, 4, 5))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return ARRANGEMENTS[kind](draw, shape, axis, values)


def _eltwise(draw, shape, axis, values):
    number = draw(st.integers(2, 4))
    coeffs = " ".join(f"coeff: {draw(st.sampled_from([1, 0.5, -2]))}" for _ in range(number))
    bodies = ["", coeffs, "operation: MAX", "operation: PROD"]
    body = draw(st.sampled_from([*bodies, "operation: PROD stable_prod_grad: false"]))
    bottoms = (Bottom(shape, values),) * number
    return Case("Eltwise", f"eltwise_param {{ {body} }}", bottoms, seed=draw(SEEDS))


def _concat(draw, shape, axis, values):
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    place = axis % len(shape)
    bottoms = tuple(Bottom((*shape[:place], n, *shape[place + 1 :]), values) for n in sizes)
    name = "concat_dim" if axis >= 0 and draw(st.booleans()) else "axis"
    return Case("Concat", f"concat_param {{ {name}: {axis} }}", bottoms, seed=draw(SEEDS))


def _slice(draw, shape, axis, values):
    place = axis % len(shape)
    size = draw(st.integers(2, 6))
    points = sorted(draw(st.sets(st.integers(1, size - 1), max_size=3)))
    if not points:
        shape = (*shape[:place], 6, *shape[place + 1 :])
        tops, body = draw(st.sampled_from([1, 2, 3])), ""
    else:
        shape = (*shape[:place], size, *shape[place + 1 :])
        tops, body = len(points) + 1, " ".join(f"slice_point: {point}" for point in points)
    bottom = Bottom(shape, values)
    return Case(
        "Slice", f"slice_param {{ axis: {axis} {body} }}", (bottom,), tops, seed=draw(SEEDS)
    )


def _crop(draw, shape, axis, values):
    start = axis % len(shape)
    offsets = [draw(st.integers(0, size - 1)) for size in shape[start:]]
    if draw(st.booleans()):
        offsets = [min(offsets)] * len(offsets)
    sizes = [draw(st.integers(1, n - o)) for n, o in zip(shape[start:], offsets, strict=True)]
    text = offsets[:1] if len(set(offsets)) == 1 else offsets
    text = " ".join(f"offset: {offset}" for offset in text)
    bottoms = (Bottom(shape, values), Bottom((*shape[:start], *sizes), learns=False))
    return Case("Crop", f"crop_param {{ axis: {axis} {text} }}", bottoms, seed=draw(SEEDS))


def _flatten(draw, shape, axis, values):
    end = draw(st.integers(axis % len(shape), len(shape) - 1))
    body = f"flatten_param {{ axis: {axis} end_axis: {end} }}"
    return Case("Flatten", body, (Bottom(shape, values),), seed=draw(SEEDS))


def _reshape(draw, shape, axis, values):
    body = draw(
        st.sampled_from(
            [
                "shape { dim: 0 dim: -1 }",
                "shape { dim: -1 }",
                "shape { dim: 1 dim: -1 dim: 1 } axis: 1",
                "shape { dim: 1 } axis: 1 num_axes: 0",
                "shape { dim: -1 } axis: -2 num_axes: 1",
            ]
        )
    )
    return Case("Reshape", f"reshape_param {{ {body} }}", (Bottom(shape, values),))


def _tile(draw, shape, axis, values):
    body = f"tile_param {{ axis: {axis} tiles: {draw(st.integers(1, 3))} }}"
    return Case("Tile", body, (Bottom(shape, values),), seed=draw(SEEDS))


def _reduction(draw, shape, axis, values):
    operation = draw(st.sampled_from(["SUM", "MEAN", "ASUM", "SUMSQ"]))
    body = f"operation: {operation} axis: {axis} coeff: {draw(st.sampled_from([1, 0.3]))}"
    bottom = Bottom(shape, values)
    return Case(
        "Reduction", f"reduction_param {{ {body} }}", (bottom,), summands=1, seed=draw(SEEDS)
    )


def _abs_val(draw, shape, axis, values):
    return Case("AbsVal", "", (Bottom(shape, values),), seed=draw(SEEDS))


def _split(draw, shape, axis, values):
    return Case("Split", "", (Bottom(shape, values),), draw(st.integers(1, 3)), seed=draw(SEEDS))


ARRANGEMENTS = {
    "AbsVal": _abs_val,
    "Concat": _concat,
    "Crop": _crop,
    "Eltwise": _eltwise,
    "Flatten": _flatten,
    "Reduction": _reduction,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Tile": _tile,
}


@st.composite
def dense_layers(draw):
    """InnerProduct, Embed, LRN and MVN layers."""
    kind = draw(st.sampled_from(["InnerProduct", "Embed", "LRN", "LRN", "MVN"]))
    shape, summands = draw(shapes(2, 4, 5)), 0
    bias = f"bias_term: {str(draw(st.booleans())).lower()}"
    bottom = Bottom(shape)
    if kind == "InnerProduct":
        axis = draw(st.integers(-len(shape), len(shape) - 1))
        transpose = str(draw(st.booleans())).lower()
        body = f"num_output: {draw(st.integers(1, 5))} axis: {axis} transpose: {transpose} {bias}"
        body = f"inner_product_param {{ {body} }}"
        summands = 1
    elif kind == "Embed":
        inputs = draw(st.integers(1, 6))
        body = f"embed_param {{ input_dim: {inputs} num_output: {draw(st.integers(1, 4))} {bias} }}"
        bottom, summands = Bottom(shape, f"labels {inputs}", learns=False), 1
    elif kind == "LRN":
        bottom = Bottom(draw(images(1, 5)), draw(VALUES))
        region = draw(st.sampled_from(["ACROSS_CHANNELS", "WITHIN_CHANNEL"]))
        side, alpha = draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([0.0001, 0.5]))
        body = f"norm_region: {region} local_size: {side} alpha: {alpha} beta: 0.75 "
        body = f"lrn_param {{ {body} k: {draw(st.sampled_from([1, 2]))} }}"
    else:
        across = str(draw(st.booleans())).lower()
        body = f"normalize_variance: {str(draw(st.booleans())).lower()} across_channels: {across}"
        body = f"mvn_param {{ {body} }}"
        bottom = Bottom((2, 3, *draw(st.tuples(*[st.integers(2, 5)] * 2))))
        summands = 3  # gradients over deviations, which are below 1
    return Case(kind, body, (bottom,), summands=summands, seed=draw(SEEDS))


NORMALIZATIONS = ("", "FULL", "VALID", "BATCH_SIZE", "NONE", "true", "false")


def _loss_param(draw, *, older):
    """A ``loss_param``: normalization, its older form, and a label that is ignored."""
    mode = draw(st.sampled_from(NORMALIZATIONS if older else NORMALIZATIONS[:5]))
    field = "normalize" if mode in {"true", "false"} else "normalization"
    body = f"{field}: {mode} " if mode else ""
    body += draw(st.sampled_from(["", "ignore_label: 0", "ignore_label: -1", "ignore_label: 1"]))
    return f"loss_param {{ {body} }} "


@st.composite
def losses(draw):
    """All losses."""
    kind = draw(st.sampled_from(sorted(LOSSES)))
    scores = draw(st.sampled_from(["normal", "ties", "large"]))
    shape = draw(shapes(2, 4, 5))
    return LOSSES[kind](draw, shape, scores)


def _softmax_loss(draw, shape, scores):
    axis = draw(st.integers(1, len(shape) - 1))
    body = _loss_param(draw, older=True)
    body += f"softmax_param {{ axis: {draw(st.sampled_from([axis, axis - len(shape)]))} }}"
    bottoms = (Bottom(shape, scores), _labels(shape, axis))
    return Case("SoftmaxWithLoss", body, bottoms, seed=draw(SEEDS))


def _infogain_loss(draw, shape, scores):
    axis = draw(st.integers(1, len(shape) - 1))
    body = _loss_param(draw, older=False) + f"infogain_loss_param {{ axis: {axis} }}"
    matrix = Bottom((shape[axis],) * 2, "positive", learns=False)
    bottoms = (Bottom(shape, scores), _labels(shape, axis), matrix)
    return Case("InfogainLoss", body, bottoms, seed=draw(SEEDS))


def _sigmoid_loss(draw, shape, scores):
    body = _loss_param(draw, older=True)
    target = Bottom(shape, draw(st.sampled_from(["bits", "probabilities"])), learns=False)
    bottoms, seed = (Bottom(shape, scores), target), draw(SEEDS)
    return Case("SigmoidCrossEntropyLoss", body, bottoms, summands=1, seed=seed)  # log(1 + exp(x))


def _euclidean_loss(draw, shape, scores):
    learns = draw(st.booleans())
    bottoms = (Bottom(shape, scores), Bottom(shape, learns=learns))
    return Case("EuclideanLoss", "", bottoms, seed=draw(SEEDS))


def _hinge_loss(draw, shape, scores):
    label = Bottom(shape[:1], f"labels {_count(shape[1:])}", learns=False)
    body = f"hinge_loss_param {{ norm: {draw(st.sampled_from(['L1', 'L2']))} }}"
    return Case("HingeLoss", body, (Bottom(shape, scores), label), seed=draw(SEEDS))


def _contrastive_loss(draw, shape, scores):
    body = f"margin: {draw(st.sampled_from([1, 3]))} "
    body += f"legacy_version: {str(draw(st.booleans())).lower()}"
    features = Bottom(shape[:2])
    bottoms = (features, features, Bottom(shape[:1], "bits", learns=False))
    body = f"contrastive_loss_param {{ {body} }}"
    return Case("ContrastiveLoss", body, bottoms, summands=1, seed=draw(SEEDS))


def _multinomial_loss(draw, shape, scores):
    values = "probabilities" if scores == "normal" else scores
    bottoms = (
        Bottom(shape, values),
        Bottom(shape[:1], f"labels {_count(shape[1:])}", learns=False),
    )
    return Case("MultinomialLogisticLoss", "", bottoms, seed=draw(SEEDS))


LOSSES = {
    "ContrastiveLoss": _contrastive_loss,
    "EuclideanLoss": _euclidean_loss,
    "HingeLoss": _hinge_loss,
    "InfogainLoss": _infogain_loss,
    "MultinomialLogisticLoss": _multinomial_loss,
    "SigmoidCrossEntropyLoss": _sigmoid_loss,
    "SoftmaxWithLoss": _softmax_loss,
}
