"""The summary of nets of Caffe's forks: what is known, what is not, and how to say it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from functools import partial

import pytest
from helpers import foreign_nets, layer_snippets, program

from irv2caffe.errors import FormatError, NetError
from irv2caffe.proto.fork_nets import read_fork_net
from irv2caffe.shapes.infer import ForkLayers, infer
from irv2caffe.shapes.layer_types import UNKNOWN
from irv2caffe.shapes.layer_types.fork_layers import FORK_RULES

data, layer = layer_snippets.data, layer_snippets.layer


def shapes_of(tmp_path, text, phase="TEST", **told):
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    read = read_fork_net(path)
    types = {name: tuple(tops.split(",")) for name, tops in told.items()}
    return infer(read.net, phase, lines=read.lines, foreign=ForkLayers(types, read.nodes))


def python(name, module="m", said=""):
    return f"python_param {{ module: '{module}' layer: '{name}' param_str: \"{said}\" }}"


MAP, REGIONS = data(1, 6, 9, 11), data(5, 5, top="r")
# A net and the shapes of the last layer's tops, by the LayerSetUp and Reshape of the fork.
KNOWN = {
    "Permute": (
        MAP + layer("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
        [(1, 9, 11, 6)],
    ),
    "Permute some": (MAP + layer("Permute", "permute_param { order: 3 }"), [(11, 1, 6, 9)]),
    "PriorBox": (  # ratios 1, 2, 1/2 and one larger square: SSD's four boxes of conv4_3
        MAP
        + data(1, 3, 90, 110, top="i")
        + layer("PriorBox", "prior_box_param { min_size: 30 max_size: 60 aspect_ratio: 2 }", "x i"),
        [(1, 2, 9 * 11 * 4 * 4)],
    ),
    "PriorBox unflipped": (
        MAP
        + layer(
            "PriorBox",
            "prior_box_param { min_size: 30 aspect_ratio: 2 aspect_ratio: 1 flip: false }",
            "x x",
        ),
        [(1, 2, 9 * 11 * 2 * 4)],
    ),
    "DetectionOutput": (
        data(1, 8) + layer("DetectionOutput", "detection_output_param { }", "x x x"),
        [(1, 1, 1, 7)],
    ),
    "MultiBoxLoss": (data(1, 8) + layer("MultiBoxLoss", bottoms="x x x x"), [()]),
    "AnnotatedData": (
        layer(
            "AnnotatedData",
            "transform_param { resize_param { height: 30 width: 40 } } "
            "data_param { batch_size: 8 } annotated_data_param { label_map_file: 'm' }",
            "",
            "d t",
        ),
        [(8, 3, 30, 40), (1, 1, 1, 8)],
    ),
    "AnnotatedData cropped": (  # the crop is taken of the resized image
        layer(
            "AnnotatedData",
            "transform_param { crop_h: 20 crop_w: 25 resize_param { height: 30 width: 40 } } "
            "data_param { batch_size: 8 }",
            "",
            "d t",
        ),
        [(8, 3, 20, 25), (1, 1, 1, 8)],
    ),
    "ImageSegData": (
        layer(
            "ImageSegData",
            "transform_param { crop_h: 20 crop_w: 25 } "
            "image_data_param { batch_size: 8 is_color: false label_type: PIXEL }",
            "",
            "d t s",
        ),
        [(8, 1, 20, 25), (8, 1, 20, 25), (8, 1, 1, 2)],
    ),
    "ROIPooling": (
        MAP + REGIONS + layer("ROIPooling", "roi_pooling_param { pooled_h: 7 pooled_w: 6 }", "x r"),
        [(5, 6, 7, 6)],
    ),
    "PSROIPooling": (
        data(1, 18, 9, 11)
        + REGIONS
        + layer("PSROIPooling", "psroi_pooling_param { output_dim: 2 group_size: 3 }", "x r"),
        [(5, 2, 3, 3)],
    ),
    "Proposal": (
        data(2, 6, 9, 11)
        + layer("Proposal", "proposal_param { post_nms_topn: 100 }", "x x x", "a b"),
        [(200, 5), (200,)],
    ),
    "Proposal of its own": (MAP + layer("Proposal", bottoms="x x x"), [(300, 5)]),
    "ProposalLayer": (
        MAP + layer("Python", python("ProposalLayer"), "x x x", "a b"),
        [(1, 5), (1, 1, 1, 1)],
    ),
    "AnchorTargetLayer": (  # three anchors at each place
        MAP + layer("Python", python("AnchorTargetLayer"), "x x x x", "a b c d"),
        [(1, 1, 27, 11), *[(1, 12, 9, 11)] * 3],
    ),
    "ProposalTargetLayer": (
        MAP
        + layer("Python", python("ProposalTargetLayer", said="'num_classes': 21"), "x x", "a b c"),
        [(1, 5), (1, 1), (1, 84)],
    ),
    "Axpy": (
        data(1, 6, 1, 1, top="s") + MAP + layer("Axpy", bottoms="s x x"),
        [(1, 6, 9, 11)],
    ),
    "Upsample": (MAP + layer("Upsample", "upsample_param { scale: 3 }", "x x"), [(1, 6, 27, 33)]),
    "Upsample to": (
        MAP + layer("Upsample", "upsample_param { upsample_h: 17 upsample_w: 21 }", "x x"),
        [(1, 6, 17, 21)],
    ),
    "Upsample by one side": (
        MAP + layer("Upsample", "upsample_param { upsample_h: 17 scale: 2 }", "x x"),
        [(1, 6, 18, 22)],
    ),
    "BN with statistics": (
        MAP + layer("BN", "bn_param { }", "x", "a b c"),
        [(1, 6, 9, 11), (1, 6, 1, 1), (1, 6, 1, 1)],
    ),
    "ConvolutionDepthwise": (  # whatever number of outputs it is told
        MAP + layer("ConvolutionDepthwise", "convolution_param { num_output: 4 kernel_size: 3 }"),
        [(1, 6, 7, 9)],
    ),
    "Interp": (MAP + layer("Interp", "interp_param { height: 60 width: 70 }"), [(1, 6, 60, 70)]),
    "Interp zoom": (MAP + layer("Interp", "interp_param { zoom_factor: 8 }"), [(1, 6, 65, 81)]),
    "Interp shrink": (MAP + layer("Interp", "interp_param { shrink_factor: 2 }"), [(1, 6, 5, 6)]),
    "Interp by both factors": (
        MAP + layer("Interp", "interp_param { shrink_factor: 2 zoom_factor: 3 }"),
        [(1, 6, 13, 16)],
    ),
    "Interp to, not by both factors": (
        MAP
        + layer("Interp", "interp_param { shrink_factor: 2 zoom_factor: 3 height: 4 width: 5 }"),
        [(1, 6, 4, 5)],
    ),
    "Interp like another": (
        MAP + data(1, 2, 30, 40, top="i") + layer("Interp", "interp_param { }", "x i"),
        [(1, 6, 30, 40)],
    ),
    "Interp by a factor, not like another": (
        MAP
        + data(1, 2, 30, 40, top="i")
        + layer("Interp", "interp_param { zoom_factor: 2 pad_beg: -1 }", "x i"),
        [(1, 6, 15, 19)],
    ),
    "V1 UPSAMPLE": (
        layer_snippets.OLD_INPUT
        + ' layers { name: "u" type: UPSAMPLE bottom: "x" top: "y" upsample_param { scale: 2 } }',
        [(1, 3, 16, 16)],
    ),
    "rounding down": (
        MAP + layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 ceil_mode: false }"),
        [(1, 6, 4, 5)],
    ),
    "rounding down as Torch": (
        MAP + layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 torch_pooling: true }"),
        [(1, 6, 4, 5)],
    ),
    "hole": (
        MAP + layer("Convolution", "convolution_param { num_output: 2 kernel_size: 3 hole: 2 }"),
        [(1, 2, 5, 7)],
    ),
}


@pytest.mark.parametrize("key", KNOWN)
def test_layers_of_forks_have_their_shapes(tmp_path, key):
    text, tops = KNOWN[key]
    shapes = shapes_of(tmp_path, text)
    assert list(shapes.layers[-1].top_shapes) == tops
    assert not shapes.unknown
    assert not any(each.partial for each in shapes.layers)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            layer("PriorBox", "prior_box_param { min_size: 30 min_size: 9 max_size: 60 }", "x x"),
            "as many max_size",
        ),
        (layer("PriorBox", "prior_box_param { min_size: 30 max_size: 30 }", "x x"), "larger"),
        (
            REGIONS
            + layer("PSROIPooling", "psroi_pooling_param { output_dim: 2 group_size: 3 }", "x r"),
            "must have 18 channels",
        ),
        (layer("Axpy", bottoms="x x x"), "one value for each channel"),
        (
            data(1, 6, 4, 5, top="m") + layer("Upsample", "upsample_param { }", "x m"),
            "its mask, bottom 'm' .1x6x4x5., must have the same shape",
        ),
        (layer("Interp", "interp_param { height: 4 }"), "height and width, or a factor"),
        (layer("Interp", "interp_param { zoom_factor: 2 pad_end: 1 }"), "must not be positive"),
        (layer("Interp", "interp_param { zoom_factor: 2 pad_end: -9 }"), "leave nothing"),
        (layer("ShuffleChannel", "shuffle_channel_param { group: 4 }"), "6 channels cannot be"),
        (layer("DetectionOutput", bottoms="x x x x x"), "takes 3 to 4 bottom"),
    ],
)
def test_what_forks_refuse(tmp_path, text, words):
    """The conditions of the LayerSetUp and Reshape of the fork."""
    with pytest.raises(NetError, match=words):
        shapes_of(tmp_path, MAP + text)


def test_a_size_that_keeps_proportions_is_the_images(tmp_path):
    mode = "resize_param { height: 30 width: 40 resize_mode: FIT_SMALL_SIZE }"
    said = f"transform_param {{ {mode} }} data_param {{ batch_size: 8 }}"
    last = shapes_of(tmp_path, layer("AnnotatedData", said, "", "d t")).layers[-1]
    assert last.partial
    assert last.top_shapes[0] is UNKNOWN


@pytest.mark.parametrize(
    ("text", "params"),
    [
        (layer("Normalize", "norm_param { channel_shared: false }"), [(6,)]),
        (layer("Normalize", "norm_param { across_spatial: false }"), [()]),
        (layer("BN", "bn_param { } param { } param { } param { } param { }"), [(1, 6, 1, 1)] * 2),
        (layer("ReLU6"), []),
        (layer("ShuffleChannel", "shuffle_channel_param { group: 2 }"), []),
        (
            layer(
                "ConvolutionDepthwise",
                "convolution_param { num_output: 6 kernel_size: 3 pad: 1 bias_term: false }",
            ),
            [(6, 1, 3, 3)],
        ),
        (
            layer(
                "DepthwiseConvolution",
                "convolution_param { num_output: 6 kernel_size: 3 pad: 1 group: 6 }",
            ),
            [(6, 1, 3, 3), (6,)],
        ),
    ],
)
def test_layers_of_forks_have_their_weights(tmp_path, text, params):
    last = shapes_of(tmp_path, MAP + text).layers[-1]
    assert last.top_shapes == ((1, 6, 9, 11),)
    assert list(last.params) == params


@pytest.mark.parametrize("kind", FORK_RULES)
@pytest.mark.parametrize("num_axes", range(6))
def test_no_shape_breaks_a_rule(tmp_path, kind, num_axes):
    """Whatever comes in, and however often: shapes or one error that names the layer."""
    dims = (2, 3, 4, 5, 6)[:num_axes]
    body = "param { } norm_param { } permute_param { order: 9 } prior_box_param { min_size: x }"
    for number in range(6):
        for said in ("", body, "convolution_param { num_output: 2 kernel_size: 2 }"):
            text = data(*dims) + layer(kind, said, " ".join(["x"] * number))
            refused = ""
            try:
                shapes_of(tmp_path, text)
            except NetError as error:
                refused = error.layer
            assert refused in {"", "l"}


SETTINGS = "wavelet_param { n: 3 }"
ODD = (
    data(2, 3, 8, 8)
    + layer("Convolution", "convolution_param { num_output: 4 kernel_size: 1 }", tops="c").replace(
        '"l"', '"c"'
    )
    + layer("Wavelet", SETTINGS, "c", "w v").replace('"l"', '"w"')
    + layer("InnerProduct", "inner_product_param { num_output: 5 } param { lr_mult: 2 }", "w", "f")
    + data(2, top="t")
    + layer("SoftmaxWithLoss", bottoms="f t", tops="loss").replace('"l"', '"loss"')
    + layer("ReLU", bottoms="c", tops="r").replace('"l"', '"r"')
)


def test_what_hangs_on_an_unknown_type_is_unknown_and_the_rest_is_not(tmp_path):
    shapes = shapes_of(tmp_path, ODD, "TRAIN")
    assert [each.name for each in shapes.unknown] == ["w"]
    assert [each.name for each in shapes.layers if each.partial] == ["w", "l", "loss"]
    assert all(shapes.blobs[name] is UNKNOWN for name in "wvf")
    assert (shapes.blobs["loss"], shapes.blobs["r"]) == ((), (2, 4, 8, 8))
    assert sum(each.num_params for each in shapes.layers) == 16


@pytest.mark.parametrize(
    ("told", "shape"),
    [
        ("same", (2, 4, 8, 8)),
        ("NxCx2Hx2W", (2, 4, 16, 16)),
        ("2x3X7,Nx9", (2, 3, 7)),
        ("scalar,same", ()),
    ],
)
def test_the_user_may_say_the_tops_of_a_type_or_layer(tmp_path, told, shape):
    for name in ("Wavelet", "w"):
        text = ODD if shape else ODD.replace('bottom: "w"', 'bottom: "v"')
        shapes = shapes_of(tmp_path, text, "TRAIN", **{name: told})
        assert shapes.blobs["w"] == shape
        assert not shapes.unknown
        assert [each.name for each in shapes.layers if each.partial] == ["w"]


run = partial(program.run, "summary")


def test_the_command_shows_what_is_not_known_and_the_way_to_say_it(tmp_path):
    (tmp_path / "net.prototxt").write_text(ODD)
    done = run("net.prototxt", "--draw", "net.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "parameters      at least 16\n" in done.stdout
    assert (
        "not known       type Wavelet ('w'): give its tops with --layer-type "
        "Wavelet=NxCxHxW,NxCxHxW or =same\nnot known       2 layer(s) after them\n"
    ) in done.stdout
    assert "Caffe 1.0 does not know LayerParameter.wavelet_param (line 3)" in done.stdout
    assert "Caffe 1.0 cannot load this net: it has no Wavelet" in done.stdout
    picture = "".join(ET.parse(tmp_path / "net.svg").getroot().itertext())
    assert "Wavelet" in picture
    assert "at least 16 parameters" in picture
    done = run("net.prototxt", "--json", "--layers", cwd=tmp_path)
    values = json.loads(done.stdout)
    assert values["unknown_layers"] == {"w": "Wavelet"}
    assert (values["partial"], values["parameters"]) == (True, 16)
    by_name = {each["name"]: each for each in values["layers"]}
    assert by_name["w"]["tops"] == {"w": None, "v": None}
    assert (by_name["c"]["partial"], by_name["l"]["partial"]) == (False, True)
    done = run("net.prototxt", "--json", "--layer-type", "Wavelet=same", cwd=tmp_path)
    assert json.loads(done.stdout)["parameters"] == 16 + 4 * 64 * 5 + 5


def test_sources_of_forks_take_their_shapes_from_the_command_line(tmp_path):
    text = layer("MagicData", "magic_param { }", "", "l t") + layer("ReLU", bottoms="l")
    (tmp_path / "net.prototxt").write_text(text.replace('name: "l"', 'name: "r"', 2))
    done = run("net.prototxt", cwd=tmp_path)
    assert "--input-shape l=1x3x224x224 --input-shape t=1\n" in done.stdout
    told = ("--input-shape", "l=2x3x8x8")
    blobs = json.loads(run("net.prototxt", "--json", "--layers", *told, cwd=tmp_path).stdout)
    assert blobs["layers"][0]["tops"] == {"l": [2, 3, 8, 8], "t": None}
    assert (blobs["batch_size"], blobs["layers"][1]["partial"]) == (2, False)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("Wavlet=same", "no layer has that type or name in TRAIN"),
        ("ReLU=same", "Caffe 1.0 has it"),
        ("Wavelet=sme", "give NAME=same or NAME=SHAPE"),
        ("Wavelet", "give NAME=same or NAME=SHAPE"),
    ],
)
def test_a_layer_type_that_says_nothing_is_a_usage_error(tmp_path, told, words):
    (tmp_path / "net.prototxt").write_text(ODD)
    done = run("net.prototxt", "--layer-type", told, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            MAP + layer("Convolution", "convolution_param { num_ouput: 2 kernel_size: 1 }"),
            "does not know ConvolutionParameter.num_ouput: 2 (line 2); did you mean num_output",
        ),
        (
            layer_snippets.OLD_INPUT + ' layers { type: "Softmax" bottom: "x" top: "y" }',
            'V1LayerParameter.type: "Softmax" (line 1); layers { } is the format before 2014',
        ),
    ],
    ids=["a field that shapes want", "a type of today in the old form"],
)
def test_a_slip_of_the_pen_is_named(tmp_path, text, words):
    (tmp_path / "net.prototxt").write_text(text)
    done = run("net.prototxt", cwd=tmp_path)
    assert words in done.stdout + done.stderr


def test_a_field_that_is_a_forks_is_no_slip(tmp_path):
    normalize = layer("Normalize", "norm_param { across_spatial: false }")
    (tmp_path / "net.prototxt").write_text(MAP + normalize)
    done = run("net.prototxt", cwd=tmp_path)
    assert "LayerParameter.norm_param (line 2; weiliu89/caffe (SSD) has it)\n" in done.stdout
    assert "did you mean" not in done.stdout


def test_a_net_that_is_broken_otherwise_says_its_first_fault(tmp_path):
    (tmp_path / "net.prototxt").write_text(f"{ODD}layer {{ nmae: 3 }} layer {{ name }}")
    with pytest.raises(FormatError, match="has no field 'wavelet_param'"):
        read_fork_net(tmp_path / "net.prototxt")


def test_ssd_has_the_published_size(tmp_path):
    """arXiv 1512.02325's SSD300 on VOC: 8,732 boxes, and 26,285,486 weights of its own file."""
    shapes = shapes_of(tmp_path, foreign_nets.ssd300())
    assert shapes.blobs["mbox_priorbox"] == (1, 2, 8_732 * 4)
    assert shapes.blobs["mbox_conf"] == (1, 8_732 * 21)
    assert sum(each.num_params for each in shapes.layers) == 26_285_486
    assert not shapes.unknown
