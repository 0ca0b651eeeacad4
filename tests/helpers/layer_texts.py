"""Prototxts of small nets, layer by layer, for folding and for ONNX."""

from __future__ import annotations

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 4, 6, 5] } } }\n'


def layer(kind, name, bottom, top=None, param=""):
    """A layer whose top has its name, unless another is given."""
    bottoms = " ".join(f'bottom: "{each}"' for each in bottom.split())
    tops = " ".join(f'top: "{each}"' for each in (top or name).split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} {tops} {param} }}\n'


def conv(name, bottom, more="", bias="false"):
    """A 3x3 convolution with six outputs."""
    param = f"num_output: 6 kernel_size: 3 bias_term: {bias} {more}"
    return layer("Convolution", name, bottom, param=f"convolution_param {{ {param} }}")


def normalize(bottom, name="n", *, bias="true"):
    """BatchNorm and Scale in place."""
    return layer("BatchNorm", f"{name}_bn", bottom, bottom) + layer(
        "Scale", f"{name}_scale", bottom, bottom, f"scale_param {{ bias_term: {bias} }}"
    )
