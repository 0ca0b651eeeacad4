"""Shapes without Caffe: every blob, every weight and every refusal against the real Caffe."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import foreign_nets, layer_snippets
from helpers.paths import HELPERS

from irv2caffe.caffe.command import tool_command
from irv2caffe.config import VARIANTS, net_options
from irv2caffe.errors import FormatError, NetError
from irv2caffe.net.inception_resnet_v2 import deploy, train_val
from irv2caffe.net.infogain import write_infogain
from irv2caffe.proto import messages
from irv2caffe.proto.binary import write_binary
from irv2caffe.proto.text import format_prototxt, layer_lines, parse_prototxt
from irv2caffe.shapes import upgrade_v0
from irv2caffe.shapes.infer import infer
from irv2caffe.shapes.layer_types import SHAPE_RULES
from irv2caffe.shapes.memory import log_bytes
from irv2caffe.shapes.phases import Phase, select
from irv2caffe.shapes.upgrade import upgrade

PHASES: tuple[Phase, ...] = ("TRAIN", "TEST")
PYTHON_LAYER = """
import caffe
class Twice(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(*[2 * n for n in bottom[0].shape])
    def forward(self, bottom, top): pass
    def backward(self, top, propagate_down, bottom): pass
"""
RULES_OF_PHASES = "".join(
    f'layer {{ name: "{name}" type: "DummyData" top: "{name}" {rules} '
    f"dummy_data_param {{ shape {{ dim: 1 }} }} }}\n"
    for name, rules in {
        "always": "",
        "train": "include { phase: TRAIN }",
        "not_train": "exclude { phase: TRAIN }",
        "high": "include { min_level: 2 }",
        "low": "include { max_level: 1 }",
        "middle": "exclude { min_level: 1 max_level: 1 }",
        "staged": 'include { stage: "a" }',
        "both_stages": 'include { stage: "a" stage: "b" }',
        "unstaged": 'include { not_stage: "b" }',
        "either": 'include { stage: "a" } include { phase: TRAIN }',
        "and": 'include { stage: "a" phase: TRAIN }',
        "empty_rule": "include { }",
        "out": "exclude { }",
        "many_out": 'exclude { stage: "a" } exclude { stage: "b" }',
    }.items()
)
STATES = [(0, []), (1, ["a"]), (2, ["a", "b"]), (3, ["b", "c"])]


def random_windows(seed=1, count=150):
    """Convolutions, deconvolutions and poolings of any geometry that has an output."""
    rng = random.Random(seed)
    parts = [layer_snippets.data(1, 4, 23, 31)]
    for index in range(count):
        kind = rng.choice(["Convolution", "Deconvolution", "Pooling", "Pooling"])
        kernel, stride = [rng.randint(1, 9) for _ in "hw"], [rng.randint(1, 6) for _ in "hw"]
        pad = [rng.randint(0, size - 1) for size in kernel]
        fields = [
            f"{name}_{axis}: {value}"
            for name, values in (("kernel", kernel), ("stride", stride), ("pad", pad))
            for axis, value in zip("hw", values, strict=True)
        ]
        if kind == "Pooling":
            fields.append(f"pool: {rng.choice(['MAX', 'AVE'])}")
        else:
            group = rng.choice([1, 2, 4])
            fields += [f"num_output: {4 * rng.randint(1, 3)}", f"group: {group}"]
            fields += [f"dilation: {rng.choice([1, 1, 2])}"]
        param = "pooling_param" if kind == "Pooling" else "convolution_param"
        parts.append(
            layer_snippets.layer(
                kind, f"{param} {{ {' '.join(fields)} }}", tops=f"y{index}"
            ).replace('name: "l"', f'name: "l{index}"')
        )
    return "".join(parts)


def file_nets(folder, database):
    """Layers whose shapes come from files, and what infer is told of them."""
    colour, list_file = folder / "colour.png", folder / "list.txt"
    cv2.imwrite(str(colour), np.zeros((20, 30, 3), np.uint8))
    list_file.write_text(f"{colour} 1\n")
    (folder / "hdf5.txt").write_text(f"{folder}/data.h5\n")
    (folder / "windows.txt").write_text(
        f"# 0\n{colour}\n3\n20\n30\n2\n1 1.0 2 2 15 15\n0 0.1 3 3 9 9\n"
    )
    (folder / "shapes_layer.py").write_text(PYTHON_LAYER)
    matrix = messages.BlobProto(num=1, channels=1, height=10, width=10, data=[0.0] * 100)
    write_binary(folder / "h.binaryproto", matrix)
    layer, flat, labels = layer_snippets.layer, layer_snippets.FLAT, layer_snippets.LABELS
    source = f'source: "{database}" batch_size: 2 backend: LMDB'
    images = f'source: "{list_file}" batch_size: 3'
    gray = f"transform_param {{ crop_size: 5 }} image_data_param {{ {images} is_color: false }}"
    record = {"d": (3, 400, 400)}
    windows = f'source: "{folder}/windows.txt" batch_size: 4'
    windowed = f"transform_param {{ crop_size: 9 }} window_data_param {{ {windows} }}"
    return {
        "data": (layer("Data", f"data_param {{ {source} }}", "", "d t"), record),
        "data one top": (layer("Data", f"data_param {{ {source} }}", "", "d"), record),
        "data crop": (
            layer(
                "Data", f"transform_param {{ crop_size: 37 }} data_param {{ {source} }}", "", "d t"
            ),
            None,
        ),
        "images": (
            layer("ImageData", f"image_data_param {{ {images} }}", "", "d t"),
            {"d": (3, 20, 30)},
        ),
        "images resized": (
            layer(
                "ImageData",
                f"image_data_param {{ {images} new_height: 7 new_width: 8 }}",
                "",
                "d t",
            ),
            None,
        ),
        "images cropped": (
            layer("ImageData", gray, "", "d t"),
            None,
        ),
        "windows": (layer("WindowData", windowed, "", "d t"), None),
        "hdf5": (
            layer(
                "HDF5Data",
                f'hdf5_data_param {{ source: "{folder}/hdf5.txt" batch_size: 4 }}',
                "",
                "d t",
            ),
            {"d": (3, 5), "t": ()},
        ),
        "hdf5 output": (
            flat
            + labels
            + layer(
                "HDF5Output", f'hdf5_output_param {{ file_name: "{folder}/out.h5" }}', "x t", ""
            ),
            None,
        ),
        "python": (
            layer_snippets.X
            + layer("Python", 'python_param { module: "shapes_layer" layer: "Twice" }'),
            {"y": (4, 12, 18, 22)},
        ),
        "infogain": (
            flat
            + labels
            + layer(
                "InfogainLoss", f'infogain_loss_param {{ source: "{folder}/h.binaryproto" }}', "x t"
            ),
            None,
        ),
    }


def own_nets(folder, database):
    """What build-net writes: every variant as train_val and for use, and some of their options."""
    told = [
        *({"variant": name} for name in VARIANTS),
        {"variant": "slim", "aux": True, "label_smoothing": 0.1, "gamma": False},
        {"variant": "paper", "trunk": 2048, "residual_bn": True, "crop": 107},
        {"variant": "slim", "average_pool": "caffe", "residual_scale": None, "width": 1.0},
    ]
    for index, choices in enumerate(told):
        data = {"train_lmdb": str(database), "val_lmdb": str(database)}
        options = net_options(**{"width": 0.1, "batch_size": 2, **choices}, **data)
        matrix = folder / f"{index}.binaryproto"
        if options.label_smoothing:
            write_infogain(matrix, options.num_classes, options.label_smoothing)
        name = f"{options.variant} {index}"
        yield f"train_val {name}", format_prototxt(train_val(options, 2, infogain=str(matrix)))
        yield f"deploy {name}", format_prototxt(deploy(options))


def ask_caffe(caffe, folder, cases, hdf5=None):
    """What the real Caffe makes of nets, in one go; see real_shapes.py."""
    (folder / "work.json").write_text(json.dumps({"nets": cases, "hdf5": hdf5 or {}}))
    script = str(HELPERS / "real_shapes.py")
    args = [script, str(folder / "work.json"), str(folder / "found.json")]
    command = tool_command(caffe, "python", args)
    path = f"{folder}:{command.env.get('PYTHONPATH', '')}"
    env = {**command.env, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path}
    subprocess.run(command.argv, env=env, check=True, cwd=folder, capture_output=True)
    return json.loads((folder / "found.json").read_text())


class Real:
    """All nets of this module, and what the real Caffe made of them in one go."""

    def __init__(self, caffe, folder, database):
        self.files = file_nets(folder, database)
        self.texts = {f"good {key}": text for key, text in layer_snippets.GOOD.items()}
        self.texts |= {f"bad {key}": text for key, (text, _) in layer_snippets.BAD.items()}
        self.texts |= {f"file {key}": text for key, (text, _) in self.files.items()}
        self.texts |= {f"net {key}": make() for key, make in foreign_nets.NETS.items()}
        self.texts |= {f"own {key}": text for key, text in own_nets(folder, database)}
        self.texts |= {"windows": random_windows(), "rules": RULES_OF_PHASES}
        cases = {}
        for index, (name, text) in enumerate(self.texts.items()):
            path = folder / f"{index}.prototxt"
            path.write_text(text)
            states = STATES if name == "rules" else STATES[:1]
            for phase, (level, stages) in itertools.product(PHASES, states):
                case = {"path": str(path), "phase": phase, "level": level, "stages": stages}
                cases[f"{name}/{phase}/{level}"] = case
        hdf5 = {f"{folder}/data.h5": {"d": [9, 3, 5], "t": [9]}}
        self.found = ask_caffe(caffe, folder, cases, hdf5)

    def __getitem__(self, key):
        return self.found[key]


@pytest.fixture(scope="module")
def real(caffe, tmp_path_factory, noise_lmdb):
    return Real(caffe, tmp_path_factory.mktemp("nets"), noise_lmdb)


def net_of(text):
    return parse_prototxt(text, messages.NetParameter)


def same_as_caffe(shapes, found):
    """Every blob but those of the automatic splits, every weight, and the memory of Caffe's log."""
    assert "error" not in found, found["error"]
    blobs = {name: tuple(dims) for name, dims in found["blobs"].items() if "_split_" not in name}
    assert shapes.blobs == blobs
    params = {name: [tuple(dims) for dims in sizes] for name, sizes in found["params"].items()}
    assert {layer.name: list(layer.params) for layer in shapes.layers if layer.params} == params
    layers = [tuple(item) for item in found["layers"] if not item[0].endswith("_split")]
    assert [(layer.name, layer.type) for layer in shapes.layers] == layers
    assert log_bytes(shapes) == found["memory"]


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("key", layer_snippets.GOOD)
def test_each_layer_type_has_caffes_shapes(real, key, phase):
    same_as_caffe(infer(net_of(layer_snippets.GOOD[key]), phase), real[f"good {key}/{phase}/0"])


@pytest.mark.parametrize("key", layer_snippets.BAD)
def test_what_caffe_refuses_is_refused_with_the_layer(real, key):
    """One error of one line, naming the layer; and the real Caffe aborts on the same net."""
    text, words = layer_snippets.BAD[key]
    with pytest.raises(NetError, match=words) as caught:
        infer(net_of(text), "TEST")
    assert "\n" not in caught.value.message
    assert caught.value.layer or key == "both forms"
    assert "error" in real[f"bad {key}/TEST/0"]


def test_fewer_shapes_than_inputs_are_refused():
    """Caffe reads beyond the end of the list there, and does what it happens to find."""
    text = 'input: "x" input: "z" input_shape { dim: 1 }' + layer_snippets.layer("ReLU")
    with pytest.raises(NetError, match=r"2 input.s. need 2 input_shape, there are 1"):
        infer(net_of(text), "TEST")


SOURCES = {"Data", "DummyData", "HDF5Data", "ImageData", "Input", "MemoryData", "Parameter"}
SOURCES |= {"Python", "WindowData"}


@pytest.fixture(scope="module")
def any_axes(caffe, tmp_path_factory):
    """For each layer type nets on scalars to blobs of six axes, and what Caffe made of them."""
    folder, cases, nets = tmp_path_factory.mktemp("axes"), {}, {}
    for kind in sorted(set(SHAPE_RULES) - SOURCES):
        sizes = [(2, 3, 4, 5, 4, 3)[:num_axes] for num_axes in range(7)]
        texts = [text for dims in sizes for text in layer_snippets.with_axes(kind, *dims)]
        nets[kind] = {f"{kind} {index}": text for index, text in enumerate(texts)}
        for key, text in nets[kind].items():
            path = folder / f"{key}.prototxt"
            path.write_text(text)
            # What Filter keeps is known when it has run; its shapes are those before.
            way = "" if kind == "Filter" else "forward"
            cases[key] = {"path": str(path), "phase": "TRAIN", "run": way}
    found = ask_caffe(caffe, folder, cases)
    return {kind: [(text, found[key]) for key, text in nets[kind].items()] for kind in nets}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(SHAPE_RULES) - SOURCES))
def test_any_number_of_axes_has_caffes_shapes_or_is_refused_by_both(any_axes, kind):
    """Some layers of Caffe's stop in their first pass only."""
    assert len(any_axes[kind]) >= 7
    for text, found in any_axes[kind]:
        if "error" in found:
            with pytest.raises(NetError, match="layer 'l'"):
                infer(net_of(text), "TRAIN")
        else:
            same_as_caffe(infer(net_of(text), "TRAIN"), found)


def test_shapes_from_files(real):
    for key, (text, records) in real.files.items():
        for phase in PHASES:
            shapes = infer(net_of(text), phase, data_shapes=records)
            same_as_caffe(shapes, real[f"file {key}/{phase}/0"])


def test_a_function_may_say_what_the_prototxt_does_not(real):
    text, records = real.files["data"]
    shapes = infer(net_of(text), "TEST", data_shapes=lambda layer: [records[layer.top[0]]])
    same_as_caffe(shapes, real["file data/TEST/0"])
    with pytest.raises(NetError, match="without crop_size, its shape depends on the images"):
        infer(net_of(text), "TEST")
    with pytest.raises(NetError, match="crop_size 401 is larger than the 400x400 image"):
        infer(
            net_of(text.replace("data_param", "transform_param { crop_size: 401 } data_param")),
            "TEST",
            data_shapes=records,
        )


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("key", foreign_nets.NETS)
def test_foreign_nets_have_caffes_shapes(real, key, phase):
    same_as_caffe(infer(net_of(real.texts[f"net {key}"]), phase), real[f"net {key}/{phase}/0"])


@pytest.mark.parametrize("key", foreign_nets.PUBLISHED_PARAMETERS)
def test_foreign_nets_have_the_published_size(key):
    layers = infer(net_of(foreign_nets.NETS[key]()), "TEST").layers
    assert sum(layer.num_params for layer in layers) == foreign_nets.PUBLISHED_PARAMETERS[key]


@pytest.mark.slow
def test_own_nets_have_caffes_shapes(real):
    keys = [key for key in real.texts if key.startswith("own ")]
    assert len(keys) == 2 * (len(VARIANTS) + 3)
    for key in keys:
        for phase in PHASES:
            same_as_caffe(infer(net_of(real.texts[key]), phase), real[f"{key}/{phase}/0"])


def test_any_window_has_caffes_output(real):
    same_as_caffe(infer(net_of(real.texts["windows"]), "TEST"), real["windows/TEST/0"])


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("level", "stages"), STATES)
def test_phases_levels_and_stages_select_as_in_caffe(real, phase, level, stages):
    chosen = select(net_of(RULES_OF_PHASES), phase, level=level, stages=stages)
    found = real[f"rules/{phase}/{level}"]
    assert [[layer.name, layer.type] for layer in chosen.layer] == found["layers"]
    rules = {layer.name: (layer.include, layer.exclude) for layer in net_of(RULES_OF_PHASES).layer}
    assert all((layer.include, layer.exclude) == rules[layer.name] for layer in chosen.layer)


def test_there_is_a_rule_for_every_layer_type():
    assert set(SHAPE_RULES) == set(messages.LAYER_TYPES) | messages.LAYER_TYPES_AFTER_TAG_1_0


def test_every_rule_is_compared_with_caffe(real):
    compared = {kind for found in real.found.values() for _, kind in found.get("layers", ())}
    assert compared >= set(SHAPE_RULES)


def test_counts_of_the_published_nets():
    """arXiv 1602.07261's schema and TF-slim's net at 299 pixels and 1000 classes."""
    for told, parameters, gmac in (
        ({}, 55_843_464, 13.156),
        ({"variant": "paper"}, 32_433_928, 9.258),
        ({"variant": "paper", "trunk": 2048}, 31_550_760, 9.191),
        ({"variant": "seed"}, 31_614_424, 9.191),
    ):
        layers = infer(deploy(net_options(**told)), "TEST").layers
        assert sum(layer.num_params for layer in layers) == parameters
        assert round(sum(layer.macs for layer in layers) / 1e9, 3) == gmac


def test_frozen_and_shared_weights_and_statistics_are_counted_apart():
    text = layer_snippets.X + "".join(
        f'layer {{ name: "{name}" type: "Convolution" bottom: "x" top: "{name}" '
        f'param {{ name: "w" }} param {{ lr_mult: {rate} }} '
        "convolution_param { num_output: 5 kernel_size: 1 } }\n"
        for name, rate in (("a", 1), ("b", 0))
    )
    text += 'layer { name: "n" type: "BatchNorm" bottom: "b" top: "n" }'
    _, a, b, n = infer(net_of(text), "TRAIN").layers
    assert (a.num_params, a.num_frozen) == (5 * 6 + 5, 0)
    assert (b.num_params, b.num_frozen) == (5, 5)
    assert (n.num_params, n.num_statistics) == (0, 11)
    assert a.macs == 2 * 9 * 11 * 5 * 6


def test_another_batch_than_the_files():
    text = layer_snippets.data(1, 3, 8, 8) + layer_snippets.data(7, 5, top="regions")
    assert infer(net_of(text), "TEST", batch_size=4).blobs == {"x": (4, 3, 8, 8), "regions": (7, 5)}
    options = net_options(width=0.1)
    phase: Phase
    for net, phase in ((deploy(options), "TEST"), (train_val(options, 50), "TRAIN")):
        blobs = infer(net, phase, batch_size=6).blobs
        assert blobs["data"] == (6, 3, 299, 299)
        assert blobs["Mixed_5b"] == (6, 32, 35, 35)


LAYER_LINES = """# layer {
name: "layer { } #"  # layer {
input: "a" input_dim: 1 input_dim: 1 input_dim: 1 input_dim: 1
layer {
  name: 'layer {'
  type: "ReLU" bottom: "a" top: "layer {"
} layer { name: "q\\"{" type: "ReLU" bottom: "a" top: "b" }
layer: < name: "c" type: "ReLU"
  bottom: "b" top: "c" >
layer
{
  name: "d" type: "Pow" bottom: "c" top: "d"
  power_param { power: 2 }
}
layer: [ { name: "e" type: "ReLU" bottom: "c" top: "e" },
  { name: "f" type: "ReLU" bottom: "c" top: "f" } ]
"""


def test_lines_of_layers():
    lines = layer_lines(LAYER_LINES)
    assert len(lines) == len(net_of(LAYER_LINES).layer)
    assert lines == [4, 7, 8, 10, 15, 16]
    with pytest.raises(NetError, match="unknown layer type: 'Pow'") as caught:
        infer(net_of(LAYER_LINES), "TEST", lines=lines, path=Path("net.prototxt"))
    assert caught.value.line == 10
    assert caught.value.message.startswith("net.prototxt:10: ")
    assert "Power" in caught.value.hint
    assert layer_lines(foreign_nets.vgg16())[0] == 7


def test_errors_name_the_line_of_the_layer():
    text = foreign_nets.googlenet().replace("num_output: 32\n", "num_output: 0\n", 1)
    with pytest.raises(NetError) as caught:
        infer(net_of(text), "TEST", lines=layer_lines(text))
    line = caught.value.line
    assert text.splitlines()[line - 1] == "layer {"
    assert text.splitlines()[line] == f'  name: "{caught.value.layer}"'


def test_all_unknown_types_at_once():
    text = layer_snippets.X + "".join(
        layer_snippets.layer(kind).replace('"l"', f'"{kind} layer"').replace('"y"', f'"{kind}"')
        for kind in ("Interp", "Softmx", "ShuffleChannel")
    )
    with pytest.raises(NetError, match=r"types: 'Interp' .layer 'Interp layer'.*'ShuffleChannel'"):
        infer(net_of(text), "TEST")


def test_a_bad_crop_is_explained_by_rounding():
    """The pooling of GoogLeNet-like joins rounds up where the convolution beside it rounds down."""
    text = layer_snippets.data(1, 3, 10, 10) + "".join(
        (
            layer_snippets.conv("num_output: 4 kernel_size: 3 stride: 2", "", tops="c"),
            layer_snippets.pool("kernel_size: 3 stride: 2", "", tops="p").replace('"l"', '"pool"'),
            layer_snippets.layer("Concat", bottoms="c p").replace('"l"', '"join"'),
        )
    )
    with pytest.raises(NetError, match=re.escape("(4 vs. 5)")) as caught:
        infer(net_of(text), "TEST")
    assert caught.value.layer == "join"
    assert "pooling rounds up" in caught.value.hint
    assert "'pool'" in caught.value.hint


@pytest.mark.slow
def test_deep_nesting_and_long_words_are_one_short_error():
    for text in (
        "layer { " * 1_000_000,
        "layer { convolution_param { weight_filler { " + "a { " * 1_000_000,
        "layer: " + "[" * 1_000_000,
        "x" * 1_000_000 + ": 1",
        'name: "' + "x" * 1_000_000,
        "{" * 1_000_000,
    ):
        with pytest.raises(FormatError) as caught:
            net_of(text)
        assert len(str(caught.value)) < 500


def old_net():
    """A net of V1 layers with every type, every list of weights and every field that moved."""
    types = messages.message_class("V1LayerParameter").LayerType.DESCRIPTOR.values
    parts = ['name: "old"\ninput: "a" input: "b"\n']
    parts += [f"input_dim: {size} " for size in (1, 3, 8, 9, 2, 4, 5, 6)]
    for value in types:
        parts.append(
            f'layers {{ name: "{value.name.lower()}" type: {value.name} bottom: "a" top: "t" '
            'blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0 param: "w" '
            "blob_share_mode: PERMISSIVE loss_weight: 0.5 include { phase: TRAIN min_level: 1 } "
            "convolution_param { num_output: 7 kernel_size: 3 } pooling_param { pool: AVE } "
            'data_param { source: "d" batch_size: 4 scale: 0.5 mean_file: "m" crop_size: 3 '
            'mirror: true } image_data_param { source: "i" crop_size: 5 } '
            'window_data_param { source: "w" mirror: true crop_mode: "square" } '
            "transform_param { mean_value: 3 } loss_param { normalize: false } }\n"
        )
    return "".join(parts)


V0_BODY = """
num_output: 3 biasterm: false weight_filler { std: 2 } bias_filler { value: 3 } pad: 1 kernelsize: 5
group: 2 stride: 2 pool: AVE dropout_ratio: 0.3 local_size: 7 alpha: 2 beta: 3 k: 4 source: "s"
scale: 0.5 meanfile: "m" batchsize: 6 cropsize: 4 mirror: true blobs { num: 1 data: 2 } blobs_lr: 1
blobs_lr: 2 weight_decay: 0 rand_skip: 3 det_fg_threshold: 0.1 det_bg_threshold: 0.2
det_fg_fraction: 0.3 det_context_pad: 4 det_crop_mode: "square" new_num: 1 new_channels: 2
new_height: 3 new_width: 4 shuffle_images: true concat_dim: 2 hdf5_output_param { file_name: "h" }
"""


def oldest_net():
    """A net of V0 layers with every type, each with every field, and padding layers."""
    parts = ['name: "oldest" force_backward: true debug_info: true state { level: 2 }\n']
    parts += ['input: "a" ', *(f"input_dim: {size} " for size in (1, 3, 8, 9))]
    parts.append('layers { layer { name: "p" type: "padding" pad: 7 } bottom: "a" top: "p" }\n')
    for kind in (*upgrade_v0._TYPES, ""):
        said = f'type: "{kind}"' if kind else ""
        bottom = "p" if kind in ("conv", "pool") else "a"
        body = V0_BODY.replace("pad: 1", "") if kind == "pool" else V0_BODY
        parts.append(
            f'layers {{ layer {{ name: "{kind}" {said} {body} }} bottom: "{bottom}" top: "t" '
            "loss_weight: 2 include { phase: TRAIN } blobs_lr: 5 }\n"
        )
    return "".join(parts)


@pytest.mark.parametrize(
    "text",
    [
        oldest_net(),
        oldest_net() + 'layer { name: "today" type: "ReLU" bottom: "a" top: "b" }',
        'input: "a" input_shape { dim: 1 } layers { layer { type: "relu" } bottom: "a" top: "b" }',
        'input: "a" input: "b" layer { name: "n" type: "ReLU" bottom: "a" top: "b" }',
        'input: "a" input_shape { dim: 2 } input_shape { } input_dim: 3',
        old_net(),
        foreign_nets.vgg16(),
        foreign_nets.caffenet(),
        'layers { name: "d" type: DATA exclude { stage: "s" not_stage: "t" } top: "d" top: "e" }',
        'layer { name: "n" type: "BatchNorm" param { lr_mult: 1 } param { name: "v" } param { } }',
        'layer { name: "d" type: "Data" data_param { crop_size: 3 mirror: true } }',
    ],
    ids=[
        "all V0 types",
        "V0 and layer",
        "V0 and input_shape",
        "input alone",
        "more shapes than inputs",
        "all V1 types",
        "vgg16",
        "input_shape",
        "rules",
        "BatchNorm",
        "data_param of today",
    ],
)
def test_old_nets_are_upgraded_as_caffes_own_tool_does(caffe, tmp_path, text):
    (tmp_path / "old.prototxt").write_text(text)
    args = [str(tmp_path / "old.prototxt"), str(tmp_path / "new.prototxt")]
    command = tool_command(caffe, "upgrade_net_proto_text", args)
    # It exits 1 where it dropped something.
    subprocess.run(command.argv, env=command.env, check=False, capture_output=True)
    theirs = net_of((tmp_path / "new.prototxt").read_text())
    assert upgrade(net_of(text)) == theirs


def test_what_an_upgrade_drops_is_noted_and_lines_stay():
    text = f"""{layer_snippets.OLD_INPUT}
layers {{ layer {{ name: "p" type: "padding" pad: 1 }} bottom: "x" top: "p" }}
layers {{ layer {{ name: "c" type: "conv" num_output: 4 kernelsize: 3 dropout_ratio: 0.5 }}
  bottom: "p" top: "c" }}
"""
    shapes = infer(net_of(text), "TEST", lines=layer_lines(text))
    assert shapes.blobs["c"] == (1, 4, 8, 8)
    assert [layer.line for layer in shapes.layers] == [None, 3]
    assert shapes.notes == ("layer 'c': dropout_ratio has no effect in type 'conv'",)
    shapes = infer(net_of(f'input: "x"\n{layer_snippets.X}'), "TEST")
    assert shapes.notes == ("input: 'x': without input_shape or input_dim Caffe drops it",)
    with pytest.raises(NetError, match="bottom 'x'") as caught:
        infer(net_of(layer_snippets.BAD["input without shapes"][0]), "TEST")
    assert caught.value.hint == "input: 'x': without input_shape or input_dim Caffe drops it"
