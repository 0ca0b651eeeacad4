"""Small nets for each layer type: what Caffe takes (GOOD) and what it aborts on (BAD)."""

from __future__ import annotations


def data(*dims, top="x"):
    """An Input layer."""
    sizes = " ".join(f"dim: {size}" for size in dims)
    param = f"input_param {{ shape {{ {sizes} }} }}"
    return f'layer {{ name: "{top}" type: "Input" top: "{top}" {param} }}\n'


def layer(kind, body="", bottoms="x", tops="y"):
    """A layer; names of bottoms and tops in one word each."""
    reads = "".join(f' bottom: "{name}"' for name in bottoms.split())
    makes = "".join(f' top: "{name}"' for name in tops.split())
    return f'layer {{ name: "l" type: "{kind}"{reads}{makes} {body} }}\n'


X = data(2, 6, 9, 11)
FLAT = data(4, 10)
LABELS = data(4, top="t")
PAIR = FLAT + data(4, 10, top="t")


def conv(settings, shape=X, kind="Convolution", **names):
    return shape + layer(kind, f"convolution_param {{ {settings} }}", **names)


def sharing(settings, others, share=""):
    """Two convolutions of 6 filters without bias and one weight."""
    one = 'param {{ name: "w" {} }} convolution_param {{ num_output: 6 bias_term: false {} }}'
    first = layer("Convolution", one.format("", settings), tops="a")
    second = layer("Convolution", one.format(share, others), tops="b").replace('"l"', '"m"')
    return X + first + second


def pool(settings, shape=X, **names):
    return shape + layer("Pooling", f"pooling_param {{ {settings} }}", **names)


def reshape(settings, shape=X):
    return shape + layer("Reshape", f"reshape_param {{ {settings} }}")


OLD_INPUT = 'input: "x" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8'
TWO_LOSSES = "loss_weight: 1 loss_weight: 0"
CAFFE_LABELS = data(4, 1, 1, 1, top="t")

GOOD = {
    "conv": conv("num_output: 4 kernel_size: 3"),
    "conv stride pad": conv("num_output: 4 kernel_size: 3 stride: 2 pad: 1"),
    "conv each axis": conv(
        "num_output: 4 kernel_size: 3 kernel_size: 5 stride: 1 stride: 2 pad: 0 pad: 2"
    ),
    "conv h w": conv(
        "num_output: 4 kernel_h: 1 kernel_w: 7 pad_h: 0 pad_w: 3 stride_h: 2 stride_w: 1"
    ),
    "conv pad_w alone": conv("num_output: 4 kernel_size: 3 pad_w: 1"),
    "conv dilated": conv("num_output: 4 kernel_size: 3 dilation: 2"),
    "conv dilated each": conv("num_output: 4 kernel_size: 3 dilation: 2 dilation: 3 pad: 3"),
    "conv group": conv("num_output: 4 kernel_size: 3 group: 2 bias_term: false"),
    "conv depthwise": conv("num_output: 6 kernel_size: 3 group: 6"),
    "conv 1 axis": conv("num_output: 4 kernel_size: 3", data(2, 3, 9)),
    "conv 3 axes": conv("num_output: 4 kernel_size: 3", data(2, 3, 5, 6, 7)),
    "conv no axes": conv("num_output: 4 kernel_size: 3", data(2, 3)),
    "conv axis": conv("num_output: 4 kernel_size: 2 axis: 2", data(2, 3, 5, 6)),
    "conv axis -3": conv("num_output: 4 kernel_size: 2 axis: -3"),
    "conv two bottoms": conv(
        "num_output: 4 kernel_size: 3", X + data(2, 6, 9, 11, top="x2"), bottoms="x x2", tops="y y2"
    ),
    "conv exact kernel": conv("num_output: 4 kernel_h: 9 kernel_w: 11"),
    "deconv": conv("num_output: 4 kernel_size: 4 stride: 2 pad: 1", kind="Deconvolution"),
    "deconv group": conv("num_output: 6 kernel_size: 4 stride: 2 group: 3", kind="Deconvolution"),
    "deconv dilated": conv(
        "num_output: 6 kernel_size: 3 dilation: 2 bias_term: false", kind="Deconvolution"
    ),
    "im2col": conv("kernel_size: 3 pad: 1 stride: 2", kind="Im2col"),
    "im2col dilated": conv("kernel_h: 3 kernel_w: 1 dilation: 2", kind="Im2col"),
    "pool": pool("kernel_size: 3 stride: 2"),
    "pool ceil": pool("kernel_size: 2 stride: 2"),
    "pool stride 3": pool("kernel_size: 2 stride: 3"),
    "pool stride 4": pool("kernel_size: 2 stride: 4"),
    "pool pad": pool("kernel_size: 3 stride: 2 pad: 1 pool: AVE"),
    "pool pad clip": pool("kernel_size: 2 stride: 2 pad: 1", data(1, 1, 7, 8)),
    "pool pad clip one axis": pool("kernel_size: 2 stride: 3 pad_h: 1 pad_w: 0", data(1, 1, 6, 6)),
    "pool h w": pool("kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0"),
    "pool global": pool("global_pooling: true pool: AVE"),
    "pool mask": pool("kernel_size: 2 stride: 2", tops="y mask"),
    "pool stochastic": pool("kernel_size: 2 stride: 2 pool: STOCHASTIC"),
    "pool larger than input": pool("kernel_size: 3 stride: 2", data(1, 1, 2, 2)),
    "pool no stride": pool("kernel_size: 4"),
    "pool floor": pool("kernel_size: 2 stride: 2 round_mode: FLOOR"),
    "pool floor pad": pool("kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR", data(1, 1, 8, 8)),
    "spp 1": X + layer("SPP", "spp_param { pyramid_height: 1 }"),
    "spp 2": X + layer("SPP", "spp_param { pyramid_height: 2 }"),
    "spp 3": data(2, 5, 13, 13) + layer("SPP", "spp_param { pyramid_height: 3 pool: AVE }"),
    "spp 4": data(2, 5, 40, 23) + layer("SPP", "spp_param { pyramid_height: 4 }"),
    "lrn": X + layer("LRN"),
    "lrn within": X + layer("LRN", "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 }"),
    "crop": X + data(2, 6, 4, 5, top="r") + layer("Crop", bottoms="x r"),
    "crop offset": X
    + data(2, 6, 4, 5, top="r")
    + layer("Crop", "crop_param { axis: 2 offset: 5 offset: 6 }", "x r"),
    "crop axis 1": X
    + data(9, 2, 4, 5, top="r")
    + layer("Crop", "crop_param { axis: 1 offset: 4 }", "x r"),
    "crop axis -1": X + data(2, 6, 4, 5, top="r") + layer("Crop", "crop_param { axis: -1 }", "x r"),
    **{f"neuron {kind}": X + layer(kind) for kind in ("AbsVal", "BNLL", "Dropout", "ELU", "Exp")},
    **{f"neuron {kind}": X + layer(kind) for kind in ("Log", "MVN", "Power", "ReLU", "Sigmoid")},
    **{f"neuron {kind}": X + layer(kind) for kind in ("Swish", "TanH", "Threshold", "Softmax")},
    **{
        f"in place {kind}": X + layer(kind, tops="x")
        for kind in ("ReLU", "Dropout", "BatchNorm", "Scale", "Bias", "PReLU")
    },
    "clip without settings": X + layer("Clip"),
    "clip": X + layer("Clip", "clip_param { min: 0 max: 6 }"),
    "softmax axis": X + layer("Softmax", "softmax_param { axis: -1 }"),
    "prelu": X + layer("PReLU"),
    "prelu shared": X + layer("PReLU", "prelu_param { channel_shared: true }"),
    "batch norm": X + layer("BatchNorm"),
    "batch norm 2 axes": FLAT + layer("BatchNorm"),
    "batch norm 3 params": X + layer("BatchNorm", "param { lr_mult: 1 } param { } param { }"),
    "scale": X + layer("Scale"),
    "scale bias": X + layer("Scale", "scale_param { bias_term: true }"),
    "scale axes": X + layer("Scale", "scale_param { axis: 1 num_axes: 2 bias_term: true }"),
    "scale axis -1": X + layer("Scale", "scale_param { axis: -1 }"),
    "scale all axes": X + layer("Scale", "scale_param { axis: 0 num_axes: -1 }"),
    "scale no axes": X + layer("Scale", "scale_param { num_axes: 0 bias_term: true }"),
    "scale two bottoms": X + data(6, 9, top="s") + layer("Scale", bottoms="x s"),
    "scale two bottoms bias": X
    + data(9, 11, top="s")
    + layer("Scale", "scale_param { axis: 2 bias_term: true }", "x s"),
    "scale scalar": X + data(top="s") + layer("Scale", "scale_param { axis: 2 }", "x s"),
    "scale by a map of one channel": X
    + data(2, 6, top="s")
    + layer("Scale", "scale_param { axis: 0 }", "x s"),
    "bias": X + layer("Bias"),
    "bias axes": X + layer("Bias", "bias_param { axis: 2 num_axes: 2 }"),
    "bias two bottoms": X + data(6, 9, top="s") + layer("Bias", bottoms="x s"),
    "inner product": X + layer("InnerProduct", "inner_product_param { num_output: 5 }"),
    "inner product axis": X
    + layer("InnerProduct", "inner_product_param { num_output: 5 axis: 2 bias_term: false }"),
    "inner product axis -1": X
    + layer("InnerProduct", "inner_product_param { num_output: 5 axis: -1 transpose: true }"),
    "embed": data(3, 4) + layer("Embed", "embed_param { num_output: 5 input_dim: 9 }"),
    "concat": X + data(2, 3, 9, 11, top="b") + layer("Concat", bottoms="x b"),
    "concat axis": X
    + data(5, 6, 9, 11, top="b")
    + layer("Concat", "concat_param { axis: 0 }", "x b"),
    "concat axis -1": X
    + data(2, 6, 9, 1, top="b")
    + layer("Concat", "concat_param { axis: -1 }", "x b"),
    "concat dim": X
    + data(2, 6, 2, 11, top="b")
    + layer("Concat", "concat_param { concat_dim: 2 }", "x b"),
    "concat one": X + layer("Concat"),
    "concat three": X + layer("Concat", bottoms="x x x"),
    "slice": X + layer("Slice", tops="a b c"),
    "slice points": X
    + layer("Slice", "slice_param { slice_point: 1 slice_point: 5 }", tops="a b c"),
    "slice axis": X + layer("Slice", "slice_param { axis: -2 slice_point: 2 }", tops="a b"),
    "slice dim": X + layer("Slice", "slice_param { slice_dim: 0 }", tops="a b"),
    "slice one": X + layer("Slice", tops="a"),
    "split": X + layer("Split", tops="a b"),
    "silence": X + layer("Silence", tops=""),
    "eltwise sum": X + layer("Eltwise", "eltwise_param { coeff: 1 coeff: 0.5 }", "x x"),
    "eltwise prod": X + layer("Eltwise", "eltwise_param { operation: PROD }", "x x x"),
    "eltwise max": X + layer("Eltwise", "eltwise_param { operation: MAX }", "x x"),
    "flatten": X + layer("Flatten"),
    "flatten axes": X + layer("Flatten", "flatten_param { axis: 0 end_axis: -2 }"),
    "flatten one": X + layer("Flatten", "flatten_param { axis: 2 end_axis: 2 }"),
    "reshape": reshape("shape { dim: 0 dim: 3 dim: -1 dim: 11 }"),
    "reshape axis": reshape("shape { dim: 54 } axis: 1 num_axes: 2"),
    "reshape insert": reshape("shape { dim: 1 } axis: 1 num_axes: 0"),
    "reshape append": reshape("shape { dim: 1 dim: 1 } axis: -1 num_axes: 0"),
    "reshape row": reshape("shape { dim: -1 }"),
    "reshape scalar": reshape("shape { }", data(1)),
    "tile": X + layer("Tile", "tile_param { tiles: 3 }"),
    "tile axis": X + layer("Tile", "tile_param { axis: -1 tiles: 2 }"),
    "reduction": X + layer("Reduction"),
    "reduction axis": X + layer("Reduction", "reduction_param { axis: -2 operation: MEAN }"),
    "argmax": FLAT + layer("ArgMax"),
    "argmax values": FLAT + layer("ArgMax", "argmax_param { top_k: 3 out_max_val: true }"),
    "argmax axis": X + layer("ArgMax", "argmax_param { axis: 1 top_k: 2 }"),
    "argmax 5 axes": data(2, 3, 4, 5, 2) + layer("ArgMax"),
    "batch reindex": X + data(7, top="i") + layer("BatchReindex", bottoms="x i"),
    "filter": X
    + data(2, 3, top="z")
    + data(2, 1, 1, 1, top="s")
    + layer("Filter", bottoms="x z s", tops="a b"),
    "lstm": data(5, 2, 3, 4)
    + data(5, 2, top="cont")
    + layer("LSTM", "recurrent_param { num_output: 7 }", "x cont"),
    "lstm static": data(5, 2, 3)
    + data(5, 2, top="cont")
    + data(2, 6, top="s")
    + layer("LSTM", "recurrent_param { num_output: 7 }", "x cont s"),
    "lstm hidden": data(5, 2, 3)
    + data(5, 2, top="cont")
    + data(1, 2, 7, top="c0")
    + data(1, 2, 7, top="h0")
    + layer(
        "LSTM", "recurrent_param { num_output: 7 expose_hidden: true }", "x cont c0 h0", "y c1 h1"
    ),
    "rnn": data(5, 2, 3)
    + data(5, 2, top="cont")
    + layer("RNN", "recurrent_param { num_output: 7 }", "x cont"),
    "rnn static": data(5, 2, 3)
    + data(5, 2, top="cont")
    + data(2, 6, 2, top="s")
    + layer("RNN", "recurrent_param { num_output: 7 }", "x cont s"),
    "rnn hidden": data(5, 2, 3)
    + data(5, 2, top="cont")
    + data(1, 2, 7, top="h0")
    + layer("RNN", "recurrent_param { num_output: 7 expose_hidden: true }", "x cont h0", "y h1"),
    "lstm unit": data(1, 2, 7, top="c")
    + data(1, 2, 28)
    + data(1, 2, top="cont")
    + layer("LSTMUnit", bottoms="c x cont", tops="c1 h1"),
    "memory data": layer(
        "MemoryData",
        "memory_data_param { batch_size: 5 channels: 3 height: 7 width: 8 }",
        "",
        "d t",
    ),
    "input": layer("Input", "input_param { shape { dim: 2 dim: 3 } shape { dim: 5 } }", "", "a b"),
    "input one shape": layer("Input", "input_param { shape { dim: 2 dim: 3 } }", "", "a b"),
    "parameter": layer("Parameter", "parameter_param { shape { dim: 2 dim: 3 } }", "", "a"),
    "dummy": layer("DummyData", "dummy_data_param { shape { dim: 2 dim: 3 } }", "", "a b"),
    "dummy two": layer(
        "DummyData",
        "dummy_data_param { shape { dim: 2 } shape { dim: 3 } data_filler { } data_filler { } }",
        "",
        "a b",
    ),
    "dummy legacy": layer(
        "DummyData",
        "dummy_data_param { num: 2 num: 3 channels: 3 height: 4 width: 5 width: 6 }".replace(
            "channels: 3 height: 4", "channels: 3 channels: 1 height: 4 height: 2"
        ),
        "",
        "a b",
    ),
    "dummy legacy one": layer(
        "DummyData", "dummy_data_param { num: 2 channels: 3 height: 4 width: 5 }", "", "a b"
    ),
    "softmax loss": FLAT + LABELS + layer("SoftmaxWithLoss", bottoms="x t"),
    "softmax loss no top": FLAT + LABELS + layer("SoftmaxWithLoss", bottoms="x t", tops=""),
    "softmax loss maps": X + data(2, 1, 9, 11, top="t") + layer("SoftmaxWithLoss", bottoms="x t"),
    "softmax loss axis": X
    + data(2, 6, 9, top="t")
    + layer("SoftmaxWithLoss", "softmax_param { axis: 3 }", "x t"),
    "infogain 3 bottoms": FLAT
    + LABELS
    + data(10, 10, top="h")
    + layer("InfogainLoss", TWO_LOSSES, "x t h", "y prob"),
    "euclidean": PAIR + layer("EuclideanLoss", bottoms="x t"),
    "sigmoid loss": PAIR + layer("SigmoidCrossEntropyLoss", bottoms="x t"),
    "hinge": FLAT + LABELS + layer("HingeLoss", bottoms="x t"),
    "multinomial": FLAT + LABELS + layer("MultinomialLogisticLoss", bottoms="x t"),
    "multinomial 4 axes": FLAT + CAFFE_LABELS + layer("MultinomialLogisticLoss", bottoms="x t"),
    "contrastive": PAIR + LABELS.replace('"t"', '"s"') + layer("ContrastiveLoss", bottoms="x t s"),
    "accuracy": FLAT + LABELS + layer("Accuracy", bottoms="x t"),
    "accuracy per class": FLAT
    + LABELS
    + layer("Accuracy", "accuracy_param { top_k: 5 }", "x t", "y z"),
    "accuracy maps": X
    + data(2, 9, 11, top="t")
    + layer("Accuracy", "accuracy_param { axis: -3 }", "x t"),
    "in place before two readers": X
    + layer("ReLU", tops="x").replace('"l"', '"r"')
    + layer("Eltwise", bottoms="x x"),
    "loss weight splits": FLAT
    + layer("Reduction", "loss_weight: 1", tops="r").replace('"l"', '"a"')
    + layer("Power", bottoms="r"),
    "shared weights": sharing("kernel_size: 3 pad: 1", "kernel_size: 3"),
    "shared by count": sharing(
        "kernel_h: 3 kernel_w: 1", "kernel_h: 1 kernel_w: 3", "share_mode: PERMISSIVE"
    ),
}

GOOD["V0"] = (
    f"{OLD_INPUT}\n"
    'layers { layer { name: "p" type: "padding" pad: 2 } bottom: "x" top: "p" }\n'
    'layers { layer { name: "c" type: "conv" num_output: 4 kernelsize: 3 stride: 2 } '
    'bottom: "p" top: "c" }\n'
    'layers { layer { name: "f" type: "innerproduct" num_output: 2 pad: 3 } '
    'bottom: "c" top: "f" }\n'
)
GOOD["input dropped"] = f'input: "x"\n{X}' + layer("ReLU")

_SETTINGS = {
    "Clip": ["clip_param { min: 0 max: 1 }"],
    "Embed": ["embed_param { num_output: 2 input_dim: 5 }"],
    "Flatten": ["", "flatten_param { axis: 0 }", "flatten_param { axis: -1 }"],
    "HDF5Output": ['hdf5_output_param { file_name: "axes.h5" }'],
    "ArgMax": ["", "argmax_param { axis: 1 }", "argmax_param { out_max_val: true }"],
    "BatchNorm": ["", "batch_norm_param { use_global_stats: true }"],
    "Concat": ["", "concat_param { axis: -1 }", "concat_param { concat_dim: 0 }"],
    "Crop": [f"crop_param {{ axis: {axis} }}" for axis in (0, 1, -1)],
    "LRN": ["", "lrn_param { norm_region: WITHIN_CHANNEL }"],
    "LSTM": ["recurrent_param { num_output: 2 }"],
    "MVN": ["", "mvn_param { across_channels: true }"],
    "PReLU": ["", "prelu_param { channel_shared: true }"],
    "Pooling": ["pooling_param { kernel_size: 1 }", "pooling_param { global_pooling: true }"],
    "RNN": ["recurrent_param { num_output: 2 }"],
    "Reduction": [f"reduction_param {{ axis: {axis} }}" for axis in (0, 1, -1)],
    "Reshape": [
        "reshape_param { shape { dim: -1 } }",
        "reshape_param { shape { dim: 0 dim: -1 } }",
    ],
    "SPP": ["spp_param { pyramid_height: 1 }", "spp_param { pyramid_height: 2 }"],
    "Slice": ["slice_param { axis: 0 }", "slice_param { axis: -1 }"],
    "Softmax": ["", "softmax_param { axis: 3 }", "softmax_param { axis: -1 }"],
    "Tile": ["tile_param { tiles: 2 }", "tile_param { axis: -1 tiles: 2 }"],
    **{
        kind: [f"convolution_param {{ {fields} {axis} }}" for axis in ("", "axis: 0", "axis: -1")]
        for kind, fields in (
            ("Convolution", "num_output: 2 kernel_size: 1"),
            ("Deconvolution", "num_output: 2 kernel_size: 1"),
            ("Im2col", "kernel_size: 1"),
        )
    },
    "InnerProduct": [
        f"inner_product_param {{ num_output: 2 axis: {axis} }}" for axis in (0, 1, 2, -1)
    ],
    **{
        kind: [
            f"{kind.lower()}_param {{ axis: {axis} num_axes: {num_axes} }}"
            for axis in (0, 1, -1)
            for num_axes in (-1, 0, 1)
        ]
        for kind in ("Scale", "Bias")
    },
}
_LABELLED = ("Accuracy", "HingeLoss", "InfogainLoss", "MultinomialLogisticLoss", "SoftmaxWithLoss")
_IN_PLACE = ("BatchNorm", "Bias", "Dropout", "MVN", "PReLU", "ReLU", "Scale", "Sigmoid", "Softmax")


def with_axes(kind, *dims):
    """Nets of one layer on a blob of these sizes, whatever comes of it."""
    x, same = data(*dims), data(*dims, top="z")
    for body in _SETTINGS.get(kind, [""]):
        if kind in ("LSTM", "RNN"):
            yield x + data(*dims[:2], top="c") + layer(kind, body, "x c")
            static = data(2, 3, 4) + data(2, 3, top="c") + data(3, *dims[1:], top="z")
            yield static + layer(kind, body, "x c z")
        elif kind == "LSTMUnit":
            c = (1, *dims[1:])
            gates = (*c[:2], *(4 * size for size in c[2:3]), *c[3:])
            inputs = data(*c) + data(*gates, top="g") + data(*c[:2], top="c")
            yield inputs + layer(kind, "", "x g c", "y h")
        elif kind in _LABELLED:
            items = dims[:1]
            for labels in (items, (*items, *dims[2:]), (*items, 1, 1, 1), (*items, 1, 1, 1, 1)):
                matrix = data(3, 3, top="h") if kind == "InfogainLoss" else ""
                label = data(*labels, top="t")
                yield x + label + matrix + layer(kind, body, "x t h" if matrix else "x t")
        elif kind == "ContrastiveLoss":
            ones = (*dims[:2], *[1] * len(dims[2:]))
            for label in ((2,), (2, 1, 1, 1), (2, 1, 1, 1, 1)):
                pair = data(*ones) + data(*ones, top="z") + data(*label, top="t")
                yield pair + layer(kind, body, "x z t")
        elif kind in ("Crop", "Eltwise", "EuclideanLoss", "HDF5Output", "SigmoidCrossEntropyLoss"):
            yield x + same + layer(kind, body, "x z", "" if kind == "HDF5Output" else "y")
        elif kind in ("BatchReindex", "Filter"):
            yield x + data(2, top="i") + layer(kind, body, "x i")
            yield data(2, 3) + data(*dims, top="i") + layer(kind, body, "x i")
        elif kind == "Silence":
            yield x + layer(kind, tops="")
        else:
            yield x + layer(kind, body)
        if kind in ("Scale", "Bias"):
            yield x + same + layer(kind, body, "x z")
        if kind in _IN_PLACE:
            yield x + layer(kind, body, tops="x")


# A net and the words of our message; Caffe aborts on all of them.
BAD = {
    "unknown type": (X + layer("Convolutoin"), "unknown layer type: 'Convolutoin'"),
    "no type": (X + layer(""), "unknown layer type"),
    "dangling bottom": (
        X + layer("ReLU", bottoms="z"),
        "bottom 'z' .index 0. is not produced by any layer",
    ),
    "bottom made below": (
        layer("ReLU") + X,
        "bottom 'x' .index 0. is not produced by any layer",
    ),
    "two makers": (X + layer("AbsVal") + layer("AbsVal"), "top 'y' is produced by another"),
    "one layer, two equal tops": (X + layer("Slice", tops="a a"), "top 'a' is produced by another"),
    "in place on a shared blob": (
        X + layer("AbsVal") + layer("ReLU", tops="x").replace('"l"', '"r"'),
        "works in place on 'x', which other layers read too",
    ),
    "too many bottoms": (X + layer("ReLU", bottoms="x x"), r"takes 1 bottom\(s\), has 2"),
    "no bottoms": (X + layer("ReLU", bottoms=""), r"takes 1 bottom\(s\), has 0"),
    "too few bottoms": (X + layer("Eltwise"), r"takes 2 or more bottom\(s\), has 1"),
    "too many tops": (X + layer("ReLU", tops="a b"), r"takes 1 top\(s\), has 2"),
    "no tops": (X + layer("ReLU", tops=""), r"takes 1 top\(s\), has 0"),
    "no label": (FLAT + layer("SoftmaxWithLoss"), r"takes 2 bottom\(s\), has 1"),
    "include and exclude": (
        X + layer("ReLU", "include { phase: TEST } exclude { phase: TRAIN }"),
        "both include and exclude",
    ),
    "conv kernel and h": (conv("num_output: 4 kernel_size: 3 kernel_h: 3 kernel_w: 3"), "not both"),
    "conv no kernel": (conv("num_output: 4"), "kernel_size must be given once or 2 times"),
    "conv kernel_h alone": (conv("num_output: 4 kernel_h: 3"), "kernel sizes must be positive"),
    "conv kernel 0": (conv("num_output: 4 kernel_size: 0"), "kernel sizes must be positive"),
    "conv three kernels": (
        conv("num_output: 4 kernel_size: 1 kernel_size: 1 kernel_size: 1"),
        "once or 2 times, not 3 times",
    ),
    "conv h w in 1 axis": (
        conv("num_output: 4 kernel_h: 3 kernel_w: 3", data(2, 3, 9)),
        "kernel_h and kernel_w are for images",
    ),
    "conv stride 0": (conv("num_output: 4 kernel_size: 1 stride: 0"), "strides must be positive"),
    "conv stride_h alone": (
        conv("num_output: 4 kernel_size: 1 stride_h: 2"),
        "strides must be pos",
    ),
    "conv no outputs": (conv("kernel_size: 3"), "num_output must be positive"),
    "conv group of channels": (
        conv("num_output: 4 kernel_size: 1 group: 4"),
        "6 channels cannot be",
    ),
    "conv group of outputs": (
        conv("num_output: 4 kernel_size: 1 group: 3"),
        "num_output 4 is no mul",
    ),
    "conv axis out": (conv("num_output: 4 kernel_size: 1 axis: 4"), "axis 4 is out of range"),
    "conv kernel too large": (conv("num_output: 4 kernel_size: 20"), "kernel 20 .* is larger than"),
    "conv bottoms differ": (
        conv(
            "num_output: 4 kernel_size: 1",
            X + FLAT.replace('"x"', '"z"'),
            bottoms="x z",
            tops="a b",
        ),
        "must have the same shape",
    ),
    "conv one top": (
        conv("num_output: 4 kernel_size: 1", bottoms="x x"),
        "as many tops as bottoms",
    ),
    "conv too large": (
        conv("num_output: 99999 kernel_size: 1", data(9, 1, 999, 999)),
        "top 'y' is too large",
    ),
    "weight too large": (
        conv("num_output: 99999 kernel_size: 1", data(1, 99999, 1, 1)),
        "weight 0 is too large",
    ),
    "deconv to nothing": (
        conv("num_output: 4 kernel_size: 1 pad: 7", kind="Deconvolution"),
        "would be empty",
    ),
    "pool kernel and h": (pool("kernel_size: 3 kernel_h: 3 kernel_w: 3"), "not both"),
    "pool no kernel": (pool("stride: 3"), "takes kernel_size, or"),
    "pool kernel 0": (pool("kernel_size: 0"), "kernel sizes must be positive"),
    "pool stride_h alone": (pool("kernel_size: 3 stride_h: 2"), "takes stride, or"),
    "pool pad and h": (pool("kernel_size: 3 pad: 1 pad_h: 1 pad_w: 1"), "takes pad, or"),
    "pool pad too large": (pool("kernel_size: 3 pad: 3"), "padding 3 must be smaller"),
    "pool global kernel": (pool("global_pooling: true kernel_size: 3"), "takes no kernel_size"),
    "pool global pad": (pool("global_pooling: true pad: 1"), "takes neither pad nor stride"),
    "pool 3 axes": (pool("kernel_size: 1", data(2, 3, 4)), "must have 4 axes"),
    "pool ave mask": (pool("kernel_size: 1 pool: AVE", tops="a b"), "only pool: MAX"),
    "pool stochastic pad": (pool("kernel_size: 3 pad: 1 pool: STOCHASTIC"), "MAX and AVE only"),
    "pool to nothing": (pool("kernel_size: 9", data(1, 1, 2, 2)), "would be empty"),
    "spp 2 axes": (FLAT + layer("SPP", "spp_param { pyramid_height: 1 }"), "must have 4 axes"),
    "spp too deep": (X + layer("SPP", "spp_param { pyramid_height: 6 }"), "too small for"),
    "lrn even": (X + layer("LRN", "lrn_param { local_size: 4 }"), "must be odd"),
    "lrn 2 axes": (FLAT + layer("LRN"), "must have 4 axes"),
    "crop too far": (
        X + data(2, 6, 4, 5, top="r") + layer("Crop", "crop_param { offset: 6 }", "x r"),
        "cannot be cut to 4 on axis 2 from 6 on",
    ),
    "crop offsets": (
        X
        + X.replace('"x"', '"r"')
        + layer("Crop", "crop_param { offset: 0 offset: 0 offset: 0 }", "x r"),
        "offset must be given once or 2 times",
    ),
    "absval in place": (X + layer("AbsVal", tops="x"), "not work in place"),
    "reshape in place": (X + layer("Reshape", tops="x"), "not work in place"),
    "flatten in place": (X + layer("Flatten", tops="x"), "not work in place"),
    "prelu 1 axis": (data(3) + layer("PReLU"), "2 axes or more"),
    "softmax axis": (
        FLAT + layer("Softmax", "softmax_param { axis: 2 }"),
        "axis 2 is out of range",
    ),
    "batch norm learned": (X + layer("BatchNorm", "param { lr_mult: 1 }"), "cannot be learned"),
    "batch norm 1 axis": (data(1) + layer("BatchNorm"), "2 axes or more"),
    "reshape nothing": (reshape(""), "has 1,188 values, scalar has 1"),
    "loss weights": (
        FLAT + LABELS + layer("SoftmaxWithLoss", bottoms="x t", tops="y prob"),
        "loss_weight for each of its 2 tops or none, has 1",
    ),
    "softmax loss two tops": (
        FLAT + LABELS + layer("SoftmaxWithLoss", TWO_LOSSES, "x t", "y prob"),
        "cannot set up its second top",
    ),
    "loss weights of no loss": (
        X + layer("Slice", "loss_weight: 1", tops="a b"),
        "loss_weight for each of its 2 tops or none, has 1",
    ),
    "batch norm 4 params": (
        X + layer("BatchNorm", "param { lr_mult: 0 } " * 4),
        "has 4 param for 3",
    ),
    "scale axes": (X + layer("Scale", "scale_param { num_axes: 4 }"), "reaches past"),
    "scale axis": (X + layer("Scale", "scale_param { axis: 4 }"), "axis 4 is out of range"),
    "scale bottoms": (
        X + FLAT.replace('"x"', '"s"') + layer("Scale", bottoms="x s"),
        "does not fit",
    ),
    "bias bottoms": (X + FLAT.replace('"x"', '"s"') + layer("Bias", bottoms="x s"), "does not fit"),
    "inner product axis": (
        X + layer("InnerProduct", "inner_product_param { num_output: 2 axis: 5 }"),
        "axis 5 is out of range",
    ),
    "embed nothing": (
        FLAT + layer("Embed", "embed_param { num_output: 2 }"),
        "input_dim must be pos",
    ),
    "concat sizes": (
        X + data(2, 6, 9, 12, top="b") + layer("Concat", bottoms="x b"),
        r"except at axis 1 \(11 vs. 12\)",
    ),
    "concat axes": (
        X + FLAT.replace('"x"', '"b"') + layer("Concat", bottoms="x b"),
        "number of axes",
    ),
    "concat axis and dim": (
        X + layer("Concat", "concat_param { axis: 1 concat_dim: 1 }"),
        "axis or concat_dim, not both",
    ),
    "concat axis out": (X + layer("Concat", "concat_param { axis: 4 }"), "out of range"),
    "slice uneven": (X + layer("Slice", tops="a b c d"), "cannot be cut into 4 equal tops"),
    "slice points count": (
        X + layer("Slice", "slice_param { slice_point: 1 }", tops="a b c"),
        "3 tops need 2 slice_point",
    ),
    "slice points order": (
        X + layer("Slice", "slice_param { slice_point: 3 slice_point: 3 }", tops="a b c"),
        "must be increasing",
    ),
    "slice points end": (
        X + layer("Slice", "slice_param { slice_point: 7 }", tops="a b"),
        "increasing and below 6",
    ),
    "eltwise shapes": (
        PAIR + X.replace('"x"', '"z"') + layer("Eltwise", bottoms="x z"),
        "same shape",
    ),
    "eltwise coeffs": (
        X + layer("Eltwise", "eltwise_param { coeff: 1 }", "x x"),
        "one coefficient per bottom, has 1 for 2",
    ),
    "eltwise prod coeffs": (
        X + layer("Eltwise", "eltwise_param { operation: PROD coeff: 1 coeff: 1 }", "x x"),
        "coefficients for SUM only",
    ),
    "flatten axis": (X + layer("Flatten", "flatten_param { axis: 4 }"), "axis 4 is out of range"),
    "reshape count": (reshape("shape { dim: 2 dim: 600 }"), "has 1,188 values, 2x600 has 1,200"),
    "reshape infer": (reshape("shape { dim: 5 dim: -1 }"), "cannot be reshaped"),
    "reshape two -1": (reshape("shape { dim: -1 dim: -1 }"), "only one dim can be -1"),
    "reshape 0 past": (reshape("shape { dim: 0 } axis: 4"), "does not have"),
    "reshape axis": (reshape("shape { dim: 1 } axis: 5"), "axis 5 is out of range"),
    "reshape axes": (reshape("shape { dim: 1 } axis: 1 num_axes: 4"), "reaches past"),
    "tile nothing": (X + layer("Tile"), "tiles must be positive"),
    "reduction axis": (X + layer("Reduction", "reduction_param { axis: 4 }"), "out of range"),
    "argmax k": (FLAT + layer("ArgMax", "argmax_param { top_k: 11 }"), "top_k 11 is more than"),
    "reindex axes": (
        X + FLAT.replace('"x"', '"i"') + layer("BatchReindex", bottoms="x i"),
        "1 axes",
    ),
    "filter tops": (
        X + data(2, top="s") + layer("Filter", bottoms="x s", tops="a b"),
        "one top for",
    ),
    "filter items": (X + data(3, top="s") + layer("Filter", bottoms="x s"), "number of items"),
    "lstm cont": (
        data(5, 2, 3)
        + data(5, 3, top="cont")
        + layer("LSTM", "recurrent_param { num_output: 7 }", "x cont"),
        "must be 5x2",
    ),
    "lstm outputs": (
        data(5, 2, 3) + data(5, 2, top="cont") + layer("LSTM", bottoms="x cont"),
        "num_output must be positive",
    ),
    "lstm unit width": (
        data(1, 2, 7, top="c")
        + data(1, 2, 27)
        + data(1, 2, top="cont")
        + layer("LSTMUnit", bottoms="c x cont", tops="c1 h1"),
        "four times as wide",
    ),
    "memory data batch": (
        layer("MemoryData", "memory_data_param { channels: 3 height: 7 width: 8 }", "", "d t"),
        "batch_size must be positive",
    ),
    "input shapes": (
        layer("Input", "input_param { shape { dim: 1 } shape { dim: 1 } }", "", "a b c"),
        "takes shape once or 3 times, has it 2 times",
    ),
    "dummy shapes": (
        layer("DummyData", "dummy_data_param { shape { dim: 1 } shape { dim: 1 } }", "", "a b c"),
        "takes shape once or 3 times",
    ),
    "dummy fillers": (
        layer(
            "DummyData",
            "dummy_data_param { data_filler { } data_filler { } shape { dim: 1 } }",
            "",
            "a b c",
        ),
        "data_filler, has 2",
    ),
    "loss items": (
        FLAT + data(5, top="t") + layer("SoftmaxWithLoss", bottoms="x t"),
        "same first size",
    ),
    "loss labels": (
        X + data(2, top="t") + layer("SoftmaxWithLoss", bottoms="x t"),
        "198 predictions",
    ),
    "infogain matrix": (
        FLAT + LABELS + data(9, 9, top="h") + layer("InfogainLoss", bottoms="x t h"),
        "10 x 10 values",
    ),
    "infogain no source": (FLAT + LABELS + layer("InfogainLoss", bottoms="x t"), "needs a source"),
    "euclidean sizes": (
        FLAT + data(4, 9, top="t") + layer("EuclideanLoss", bottoms="x t"),
        "per item",
    ),
    "sigmoid sizes": (
        FLAT + data(4, 9, top="t") + layer("SigmoidCrossEntropyLoss", bottoms="x t"),
        "as many values",
    ),
    "contrastive label": (PAIR + layer("ContrastiveLoss", bottoms="x t t"), "one value per item"),
    "accuracy k": (
        FLAT + LABELS + layer("Accuracy", "accuracy_param { top_k: 11 }", "x t"),
        "top_k 11 is more than the 10 classes",
    ),
    "accuracy labels": (
        X + data(2, top="t") + layer("Accuracy", bottoms="x t"),
        "need as many labels",
    ),
    "share shapes": (
        sharing("kernel_h: 3 kernel_w: 1", "kernel_h: 1 kernel_w: 3"),
        "cannot share param 'w' with layer 'l'",
    ),
    "too many params": (X + layer("ReLU", "param { lr_mult: 1 }"), "has 1 param for 0 weights"),
    "too many axes": (data(*[1] * 33), "33 axes"),
    "huge input": (data(70000, 70000), "too large"),
    "V0 type": (
        f'{OLD_INPUT} layers {{ layer {{ name: "c" type: "convolution" }} bottom: "x" top: "y" }}',
        "unknown layer type of the form before 2014",
    ),
    "V0 beside V1": (
        (
            f'{OLD_INPUT} layers {{ name: "r" type: RELU bottom: "x" top: "y" }}'
            ' layers { layer { name: "c" type: "relu" } bottom: "y" top: "z" }'
        ),
        "layer 'r': in a net with layers of the form before 2014",
    ),
    "V0 padding of a ReLU": (
        (
            f'{OLD_INPUT} layers {{ layer {{ type: "padding" pad: 1 }} bottom: "x" top: "p" }}'
            'layers { layer { name: "r" type: "relu" } bottom: "p" top: "y" }'
        ),
        "leads to layers of type conv and pool only",
    ),
    "V0 dangling bottom": (
        'layers { layer { name: "r" type: "relu" } bottom: "p" top: "y" }',
        "not produced by any layer above",
    ),
    "both forms": (X + 'layers { name: "d" type: RELU bottom: "x" top: "x" }', "both layer and la"),
    "input without shapes": (
        'input: "x"\n' + layer("ReLU"),
        "bottom 'x' .* is not produced by any layer",
    ),
}
