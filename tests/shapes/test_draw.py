"""The picture of a net: nothing overlaps, everything fits, all kinds of files open."""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import cv2
import pytest
from helpers import foreign_nets, layer_snippets
from helpers.paths import ROOT
from helpers.program import run
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from irv2caffe.config import VARIANTS, net_options
from irv2caffe.errors import OutputError, UsageError
from irv2caffe.net.inception_resnet_v2 import deploy, train_val
from irv2caffe.proto import messages
from irv2caffe.proto.fork_nets import read_fork_net
from irv2caffe.proto.text import parse_prototxt, read_net, write_prototxt
from irv2caffe.shapes.draw import draw, to_svg
from irv2caffe.shapes.draw.boxes import layer_boxes
from irv2caffe.shapes.draw.layout import lay_out
from irv2caffe.shapes.draw.panels import COLORS
from irv2caffe.shapes.draw.picture import write_picture
from irv2caffe.shapes.draw.scene import Box, Label, Line, Scene
from irv2caffe.shapes.infer import ForkLayers
from irv2caffe.shapes.summary import default_phase, summarize

SVG = "{http://www.w3.org/2000/svg}"


def own(variant, **told):
    return train_val(net_options(variant=variant, **told), 50)


def net_of(text):
    return parse_prototxt(text, messages.NetParameter)


NETS = {
    **{name: lambda make=make: net_of(make()) for name, make in foreign_nets.NETS.items()},
    **{name: lambda name=name: own(name) for name in VARIANTS},
    "slim with aux": lambda: own("slim", aux=True, average_pool="caffe"),
    "odd names": lambda: net_of(
        layer_snippets.data(1, 3, 8, 8).replace('name: "x"', f'name: "{"long_" * 60}"')
        + layer_snippets.layer("ReLU").replace('"l"', '"<&>$\\"\'{}"')
    ),
    **{
        f"snippet {key}": lambda key=key: net_of(layer_snippets.GOOD[key])
        for key in ("slice", "lstm hidden", "silence", "softmax loss no top", "split", "input")
    },
}


@pytest.fixture(scope="module")
def scenes():
    return {
        key: draw(summarize(net, default_phase(net)))
        for key, make in NETS.items()
        for net in [make()]
    }


def boxes(scene):
    """The boxes of layers, not the frames around them."""
    fills = {fill for fill, _ in COLORS.values()}
    return [item for item in scene.items if isinstance(item, Box) and item.fill in fills]


@functools.cache
def measured(words, size, bold):
    """The width of a text in the font that draws it, by that font."""
    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return TextPath((0, 0), words.replace("$", r"\$"), size=size, prop=font).get_extents().width


def extent(text):
    """Left and right of a text."""
    width = measured(text.text, text.size, text.bold)
    left = {"start": text.x, "middle": text.x - width / 2, "end": text.x - width}[text.anchor]
    return left, left + width


@pytest.mark.parametrize("key", NETS)
def test_boxes_do_not_overlap_and_lie_on_the_page(scenes, key):
    scene = scenes[key]
    for a, b in itertools.combinations(boxes(scene), 2):
        apart_x = a.x + a.width <= b.x or b.x + b.width <= a.x
        apart_y = a.y + a.height <= b.y or b.y + b.height <= a.y
        assert apart_x or apart_y, (a, b)
    for item in scene.items:
        if isinstance(item, Box):
            assert item.x >= 0
            assert item.y >= 0
            assert item.x + item.width <= scene.width
            assert item.y + item.height <= scene.height
        elif isinstance(item, Line):
            assert all(0 <= x <= scene.width and 0 <= y <= scene.height for x, y in item.points)


@pytest.mark.parametrize("key", NETS)
def test_words_fit_into_their_boxes(scenes, key):
    scene = scenes[key]
    texts = [item for item in scene.items if isinstance(item, Label)]
    for text in texts:
        left, right = extent(text)
        assert left >= 0
        assert right <= scene.width
    for box in boxes(scene):
        inside = [
            t
            for t in texts
            if box.x <= t.x <= box.x + box.width and box.y < t.y < box.y + box.height
        ]
        assert inside
        for text in inside:
            left, right = extent(text)
            assert left >= box.x, text
            assert right <= box.x + box.width, text


@pytest.mark.parametrize("key", ["paper", "slim", "googlenet", "resnet50", "densenet121"])
def test_arrows_end_at_boxes_and_cross_none(scenes, key):
    scene = scenes[key]
    drawn = boxes(scene)
    for line in (item for item in scene.items if isinstance(item, Line)):
        for (x1, y1), (x2, y2) in itertools.pairwise(line.points):
            for box in drawn:
                if x1 == x2 and box.x < x1 < box.x + box.width:
                    low, high = sorted((y1, y2))
                    assert high <= box.y + 0.1 or low >= box.y + box.height - 0.1, (line, box)
    tips = [item.points[-1] for item in scene.items if isinstance(item, Line) and item.arrow]
    frames = [item for item in scene.items if isinstance(item, Box)]
    for x, y in tips:
        assert any(
            box.x <= x <= box.x + box.width and abs(box.y - y) < 0.1 for box in [*drawn, *frames]
        )


def words(scene):
    return [item.text for item in scene.items if isinstance(item, Label)]


def test_slims_picture_names_its_blocks_once(scenes):
    shown = words(scenes["slim"])
    assert "10 x Repeat/block35" in shown
    assert "20 x Repeat_1/block17" in shown
    assert "9 x Repeat_2/block8" in shown
    assert "sum, scaled 0.17" in shown
    assert shown.count("sum, scaled 0.1") == 1
    assert "55,843,464 parameters, 13.156 G multiply-adds, batch 32, phase TRAIN" in shown
    assert "BN ReLU\u00a0\u00a0\u00a032x149x149" in " ".join(shown)


def test_googlenets_modules_are_drawn_once_with_all_their_widths(scenes):
    shown = words(scenes["googlenet"])
    assert "5 x inception_4: inception_4a .. inception_4e" in shown
    assert "3x3 conv, 208|224|256|288|320" in shown
    assert "5x5 conv, 32|96" in shown
    assert shown.count("LRN") == 2


def test_residual_blocks_that_differ_are_drawn_apart(scenes):
    shown = words(scenes["resnet50"])
    assert "5 x res4b .. res4f" in shown
    assert "1x1 conv /2, 1024" in shown


def test_heads_say_where_they_come_from(scenes):
    assert "AuxLogits (from Repeat_1/block17_20)" in words(scenes["slim with aux"])


def test_layers_of_a_box():
    text = layer_snippets.X + "".join(
        layer_snippets.layer(kind, body, "x" if kind == "Convolution" else "c", top).replace(
            '"l"', f'"{kind}"'
        )
        for kind, body, top in (
            (
                "Convolution",
                "convolution_param { num_output: 12 kernel_h: 1 kernel_w: 7 group: 6 }",
                "c",
            ),
            ("BatchNorm", "", "c"),
            ("Scale", "scale_param { bias_term: true }", "c"),
            ("ReLU", "", "c"),
            ("Dropout", "dropout_param { dropout_ratio: 0.25 }", "c"),
            ("Pooling", "pooling_param { kernel_size: 2 stride_h: 2 stride_w: 1 }", "p"),
        )
    )
    shapes = summarize(net_of(text), "TRAIN").shapes
    data, conv, pool = layer_boxes(range(4 + 3), shapes.layers, shapes.sources, frozenset())
    assert data.kind == "data"
    assert conv.title == "1x7 conv depthwise, 12"
    assert conv.followers == ["BN", "ReLU", "dropout 0.25"]
    assert pool.title == "2x2 max pool /2x1"
    assert (conv.sources, pool.sources) == ([0], [1])


@pytest.mark.slow
def test_nets_that_no_picture_can_show(tmp_path):
    """Thousands of layers in place, in a row, and all connected with all."""
    power = 'layer {{ name: "p{0}" type: "Power" bottom: "x" top: "x" }}\n'
    tail = summarize(net_of(layer_snippets.X + "".join(map(power.format, range(3000)))), "TEST")
    assert draw(tail).width < 1000
    row = 'layer {{ name: "{0}" type: "LRN" bottom: "{1}" top: "{0}" lrn_param {{ k: {0} }} }}\n'
    chain = layer_snippets.data(1, 3, 8, 8, top="0")
    chain += "".join(row.format(i, i - 1) for i in range(1, 3000))
    scene = draw(summarize(net_of(chain), "TEST"))
    write_picture(scene, tmp_path / "row.svg")
    ET.parse(tmp_path / "row.svg")
    sums = layer_snippets.data(1, 3, 8, 8, top="t0")
    for index in range(150):
        bottoms = " ".join(f"t{other}" for other in range(index + 1))
        body = layer_snippets.layer("Eltwise", "", f"t0 {bottoms}", f"t{index + 1}")
        sums += body.replace('"l"', f'"l{index}"')
    scene = draw(summarize(net_of(sums), "TEST"))
    assert any(re.fullmatch(r"\d{2,3} layers", shown) for shown in words(scene))
    big = Scene("big", 200_000, 100)
    with pytest.raises(OutputError, match=r"200,000 x 100 pixels, too large for \.png"):
        write_picture(big, tmp_path / "big.png")


def test_chains_are_straight_and_forks_stand_amid_their_branches():
    """A way in, three branches of which the middle one is longer, a join."""
    layout = lay_out(
        [0, 90, 90, 90, 90, 60], [(0, 1), (0, 2), (2, 3), (0, 4), (1, 5), (3, 5), (4, 5)], 14
    )
    assert layout.rows == [0, 1, 1, 2, 1, 3]
    left, middle, right = layout.centers[1], layout.centers[2], layout.centers[4]
    assert layout.centers[3] == middle
    assert (middle - left, right - middle) == (104, 104)
    assert layout.centers[0] == pytest.approx(middle)
    assert layout.centers[5] == pytest.approx(middle)
    assert layout.edges[1, 5] == [left, left, pytest.approx(middle)]
    assert layout.width == 298


@pytest.mark.parametrize("key", ["paper", "googlenet", "odd names"])
def test_svg_is_well_formed_and_the_same_each_time(scenes, key, tmp_path):
    scene = scenes[key]
    root = ET.fromstring(to_svg(scene))
    assert [element.text for element in root.iter(f"{SVG}text")] == words(scene)
    assert (float(root.attrib["width"]), float(root.attrib["height"])) == pytest.approx(
        (scene.width, scene.height), abs=0.1
    )
    again = NETS[key]()
    write_picture(draw(summarize(again, default_phase(again))), tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text() == to_svg(scene)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (r"\033[31mred\007", "\\x1b[31mred\\x07"),
        (r"a\ttab\nline", "a tab line"),
        ("\u202egnp.exe \uffff", "\\u202egnp.exe \\uffff"),
        ("</title><script>document.title=1</script>",) * 2,
        ("]]><svg onload=alert(1)>&lt;&#60;",) * 2,
    ],
    ids=["terminal", "blanks", "direction", "script", "entities"],
)
def test_names_that_are_no_words_are_shown_as_text(tmp_path, name, shown):
    text = layer_snippets.data(1, 3, 8, 8).replace("x", name) + layer_snippets.layer(
        "ReLU", bottoms="x"
    ).replace("x", name).replace('"l"', f'"{name}/c"')
    net = net_of(f'name: "{name}"\n{text}')
    scene = draw(summarize(net, "TEST"))
    for kind in ("svg", "png"):
        write_picture(scene, tmp_path / f"a.{kind}")
    root = ET.parse(tmp_path / "a.svg").getroot()
    assert {element.tag for element in root.iter()} == {
        f"{SVG}{tag}" for tag in ("svg", "title", "rect", "text", "path", "polygon")
    }
    assert root.find(f"{SVG}title").text == shown
    assert any(shown[:12] in (element.text or "") for element in root.iter(f"{SVG}text"))


TWO_INPUTS = """
name: "two inputs"
input: "x" input_shape { dim: 6 dim: 3 dim: 8 dim: 8 }
input: "cont" input_shape { dim: 6 }
layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc"
  inner_product_param { num_output: 5 } }
layer { name: "rd" type: "Reshape" bottom: "fc" top: "rd"
  reshape_param { shape { dim: 3 dim: 2 dim: 5 } } }
layer { name: "rc" type: "Reshape" bottom: "cont" top: "rc"
  reshape_param { shape { dim: 3 dim: 2 } } }
layer { name: "lstm" type: "LSTM" bottom: "rd" bottom: "rc" top: "lstm"
  recurrent_param { num_output: 4 } }
"""


def side_outputs():
    """A net of two levels, long enough to be cut, and an output for each of them."""
    n = foreign_nets.Text("side outputs", 1, 3, 32, 32)
    low = n.conv("low", "data", 8, 3, 1, 1)
    x = n.pool("pool", low, 2, 2)
    for index in range(25):
        x = n.conv(f"high_{index}", x, 16, 3, 1, 1)
    body = "  convolution_param { num_output: 1 kernel_size: 2 stride: 2 }\n"
    up = n.layer("Deconvolution", "up", n.conv("side_high", x, 1, 1), body)
    n.concat("fuse", n.conv("side_low", low, 1, 1), up)
    return str(n)


def two_branches(stages=3):
    """Refinement as in OpenPose: the first stage's branches are cut apart."""
    n = foreign_nets.Text("refinement", 1, 3, 32, 32)
    shared = n.conv("shared", "data", 8, 3, 1, 1)
    outs = [shared]
    for stage in range(1, stages + 1):
        joined = n.concat(f"join{stage}", *outs, shared) if stage > 1 else shared
        outs = []
        for branch in (1, 2):
            x = joined
            for index in range(1, 8):
                x = n.relu(
                    f"r{index}_{stage}_{branch}",
                    n.conv(f"c{index}_{stage}_L{branch}", x, 8, 3, 1, 1),
                )
            outs.append(x)
    n.concat("out", *outs)
    return str(n)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (TWO_INPUTS, "2   from cont"),
        (side_outputs(), "1x32x32   from low"),
        (two_branches(), "24x32x32   + shared"),
        (foreign_nets.ssd300(), "2x8664   from fc7"),
    ],
    ids=["two inputs", "side outputs", "refinement", "ssd"],
)
def test_lines_are_true_or_not_drawn(tmp_path, text, shown):
    """What reads a blob from elsewhere than the box above says so, and no line leads into it."""
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    read = read_fork_net(path)
    scene = draw(summarize(read.net, "TEST", foreign=ForkLayers({}, read.nodes)))
    said = [item for item in scene.items if isinstance(item, Label) and "from " in item.text]
    ends = [item.points[-1] for item in scene.items if isinstance(item, Line)]
    assert any(shown in item.replace("\u00a0", " ") for item in words(scene))
    for text in said:
        box = next(
            box
            for box in boxes(scene)
            if box.x <= text.x <= box.x + box.width and box.y < text.y < box.y + box.height
        )
        assert not [(x, y) for x, y in ends if box.x <= x <= box.x + box.width and y == box.y]


def test_names_are_not_cut_where_there_is_room():
    name = "a_name_of_more_than_thirty_six_characters_" * 2
    n = foreign_nets.Text(name, 1, 3, 32, 32)
    branches = [n.conv(f"branch{index}", "data", 8, 3, 1, 1) for index in range(8)]
    n.concat(name, *branches)
    shown = words(draw(summarize(net_of(str(n)), "TEST")))
    assert shown[0] == name
    assert shown.count(name) == 2


def test_the_readmes_picture_is_what_is_drawn():
    """scripts/golden draws it anew."""
    net, _ = read_net(ROOT / "templates/slim/train_val.prototxt")
    picture = to_svg(draw(summarize(net, "TRAIN")))
    assert (ROOT / "docs/images/slim.svg").read_text(encoding="utf-8") == picture


@pytest.mark.slow
def test_png_and_pdf(scenes, tmp_path):
    scene = scenes["googlenet"]
    for name in ("a.png", "b.png", "a.pdf", "b.pdf"):
        write_picture(scene, tmp_path / name)
    image = cv2.imread(str(tmp_path / "a.png"))
    assert image.shape[1] == pytest.approx(2 * scene.width, abs=2)
    assert image.shape[0] == pytest.approx(2 * scene.height, abs=2)
    assert (image == 255).all(axis=2).mean() < 0.95  # not an empty page
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    with pytest.raises(UsageError, match=r"cannot draw a \.gif"):
        write_picture(scene, tmp_path / "a.gif")


def test_colours_of_the_picture_are_where_the_scene_says(scenes, tmp_path):
    """A pixel in the corner of every box of a PNG has the box's colour."""
    scene = scenes["vgg16"]
    write_picture(scene, tmp_path / "a.png", scale=2)
    image = cv2.imread(str(tmp_path / "a.png"))
    for box in boxes(scene):
        blue, green, red = image[int(2 * (box.y + box.height - 4)), int(2 * (box.x + 4))]
        assert f"#{red:02x}{green:02x}{blue:02x}" == box.fill


@pytest.mark.slow
def test_command_draws(tmp_path):
    write_prototxt(tmp_path / "net.prototxt", deploy(net_options(variant="paper", width=0.1)))
    done = run("summary", "net.prototxt", "--draw", "pictures/net.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "picture: pictures/net.svg" in done.stderr
    ET.parse(tmp_path / "pictures/net.svg")
    done = run("summary", "net.prototxt", "--draw", "net.gif", cwd=tmp_path)
    assert done.returncode == 2
    done = run("summary", "net.prototxt", "--draw", "/proc/net.png", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("irv2caffe: error: ")


def test_an_svg_needs_no_matplotlib(tmp_path):
    (tmp_path / "net.prototxt").write_text(foreign_nets.googlenet())
    code = (
        "import sys\n"
        "from irv2caffe.cli import run\n"
        "run(['summary', 'net.prototxt', '--draw', 'net.svg'])\n"
        "sys.exit('matplotlib' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0
