"""The summary of any net: published figures, memory against the real Caffe, the command."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from helpers import foreign_nets, layer_snippets
from helpers.paths import HELPERS
from helpers.program import run

from irv2caffe.caffe.command import tool_command
from irv2caffe.config import net_options
from irv2caffe.net.inception_resnet_v2 import deploy, train_val
from irv2caffe.proto import messages
from irv2caffe.proto.text import format_prototxt, parse_prototxt, write_prototxt
from irv2caffe.shapes.infer import infer
from irv2caffe.shapes.memory import add, memory
from irv2caffe.shapes.stages import stages
from irv2caffe.shapes.summary import NetSummary, amount, default_phase, summarize
from irv2caffe.ui import format_bytes

if TYPE_CHECKING:
    from irv2caffe.shapes.phases import Phase


def net_of(text):
    return parse_prototxt(text, messages.NetParameter)


@pytest.fixture(scope="module")
def slim():
    return summarize(train_val(net_options(), 50), "TRAIN")


def parts(summary: NetSummary):
    """The figures of each stage by its label."""
    return {
        stage.label: part for stage, part in zip(summary.stages, summary.stage_parts, strict=True)
    }


def test_slim_has_the_published_stages(slim):
    """Outputs, convolution weights plus two per BatchNorm'd channel and biases, giga-MACs: the
    table of TF-slim's file, stage by stage."""
    by_label = parts(slim)
    for label, output, parameters, gmac in (
        ("Conv2d_1a_3x3", (32, 149, 149), 864 + 64, 0.0192),
        ("MaxPool_3a_3x3", (64, 73, 73), 0, 0),
        ("Conv2d_3b_1x1", (80, 73, 73), 5_120 + 160, 0.0273),
        ("Conv2d_4a_3x3", (192, 71, 71), 138_240 + 384, 0.6969),
        ("Mixed_5b", (320, 35, 35), 267_264 + 2 * 528, 0.327),
        ("10 x Repeat/block35", (320, 35, 35), 10 * 123_168, 1.499),
        ("Mixed_6a", (1088, 17, 17), 2_662_400 + 2 * 1280, 1.398),
        ("20 x Repeat_1/block17", (1088, 17, 17), 20 * 1_126_784, 6.499),
        ("Mixed_7a", (2080, 8, 8), 3_876_864 + 2 * 2048, 0.585),
        ("9 x Repeat_2/block8", (2080, 8, 8), 9 * 2_035_424, 9 * 0.13),
        ("Block8", (2080, 8, 8), 2_035_424, 0.13),
        ("Conv2d_7b_1x1", (1536, 8, 8), 3_194_880 + 3_072, 0.204),
        ("classifier", (1000,), 1_537_000, 0.0015),
    ):
        part = by_label[label]
        assert part.output == output
        assert part.parameters == parameters
        assert part.macs / 1e9 == pytest.approx(gmac, abs=0.0006)
    assert slim.total.parameters == 55_843_464
    assert round(slim.total.macs / 1e9, 3) == 13.156
    assert slim.total.statistics == 2 * 30_272 + 204


def test_papers_stages_have_the_published_macs():
    summary = summarize(deploy(net_options(variant="paper")), "TEST")
    by_label = parts(summary)
    for label, gmac in (
        ("stem (6 blocks)", 2.290),
        ("5 x a", 0.837),
        ("reduction_a", 1.482),
        ("10 x b", 3.380),
        ("reduction_b", 0.600),
        ("5 x c", 0.667),
    ):
        assert round(by_label[label].macs / 1e9, 3) == gmac
    assert summary.total.parameters == 32_433_928


def test_frozen_multipliers_are_told_apart():
    """Without gamma TF-slim's trainable count is that of its own checkpoint."""
    total = summarize(deploy(net_options(gamma=False)), "TEST").total
    assert total.parameters - total.frozen == 55_813_192
    assert any(
        "30,272 of them frozen" in line
        for line in summarize(deploy(net_options(gamma=False)), "TEST").lines()
    )


@pytest.mark.parametrize("key", foreign_nets.NETS)
def test_every_layer_is_in_one_stage_and_sums_are_totals(key):
    net = net_of(foreign_nets.NETS[key]())
    summary = summarize(net, "TEST")
    places = [p for stage in summary.stages for block in stage.blocks for p in block.layers]
    assert sorted(places) == list(range(len(summary.shapes.layers)))
    for field in ("parameters", "macs"):
        whole = getattr(summary.total, field)
        assert sum(getattr(part, field) for part in summary.stage_parts) == whole
        assert sum(getattr(part, field) for part in summary.layer_parts) == whole
    assert add(part.memory for part in summary.stage_parts) == summary.total.memory


LABELS = {
    "resnet50": ["res2 (3 blocks)", "res3 (4 blocks)", "res4 (6 blocks)", "res5 (3 blocks)"],
    "resnet152": ["res4 (36 blocks)"],
    "googlenet": ["conv2", "inception_3 (2 blocks)", "inception_4 (5 blocks)", "loss3/classifier"],
    "vgg16": ["2 x conv1", "pool1", "3 x conv5", "fc (3 blocks)"],
    "densenet121": ["6 x conv2", "24 x conv4", "conv4_blk/conv"],
    "squeezenet": ["conv1", "fire2..fire3 (2 blocks)", "fire6..fire9 (4 blocks)"],
    "mobilenet": ["conv2 (2 blocks)", "conv5 (6 blocks)", "pool6", "fc7"],
    "caffenet": ["norm1", "conv (3 blocks)"],
}


@pytest.mark.parametrize("key", LABELS)
def test_stages_are_those_that_people_know(key):
    labels = [stage.label for stage in stages(infer(net_of(foreign_nets.NETS[key]()), "TEST"))]
    assert [label for label in labels if label in LABELS[key]] == LABELS[key]


def test_equal_blocks_fold_and_different_ones_do_not():
    res4 = next(
        stage
        for stage in stages(infer(net_of(foreign_nets.resnet()), "TEST"))
        if stage.name == "res4"
    )
    assert [(block.name, times) for block, times in res4.runs()] == [("res4a", 1), ("res4b", 5)]


def test_a_family_of_very_many_blocks_ends_where_the_grid_changes():
    """Names that number all blocks of a net, as published deep ResNets have them."""
    text = foreign_nets.resnet((3, 8, 36, 3))
    tags = re.findall(r'name: "res(\d[a-z]\d*)"', text)
    numbers = {tag: number for number, tag in enumerate(tags, 1)}
    text = re.sub(
        r'"(res|bn|scale)(\d[a-z]\d*)(["_])', lambda m: f'"{m[1]}{numbers[m[2]]}{m[3]}', text
    )
    found = [stage for stage in stages(infer(net_of(text), "TEST")) if len(stage.blocks) > 2]
    assert [len(stage.blocks) for stage in found] == [3, 8, 36, 3]
    assert [stage.name for stage in found] == [
        "res1..res3",
        "res4..res11",
        "res12..res47",
        "res48..res50",
    ]


def test_a_block_is_called_as_most_of_its_layers():
    """ShuffleNet: the shuffle inside a block has a name of its own."""
    n = foreign_nets.Text("blocks", 1, 8, 16, 16)
    x = n.conv("stem", "data", 8, 1)
    for index in range(1, 4):
        y = n.conv(f"resx{index}_conv1", x, 8, 1)
        y = n.conv(f"resx{index}_conv2", n.layer("AbsVal", f"shuffle{index}", y), 8, 1)
        x = n.layer("Eltwise", f"resx{index}_elewise", [x, y])
    labels = [stage.label for stage in stages(infer(net_of(str(n)), "TEST"))]
    assert labels == ["data", "stem", "3 x resx"]


def test_heads_stand_apart_from_the_main_line():
    labels = [s.label for s in summarize(train_val(net_options(aux=True), 50), "TRAIN").stages]
    assert "AuxLogits" in labels
    assert "20 x Repeat_1/block17" in labels
    assert labels[-1] == "loss"


def test_a_net_of_long_connections_is_cut_too():
    """A U-Net: every level reaches over all levels below it."""
    n = foreign_nets.Text("U", 1, 3, 64, 64)
    x, skips = "data", []
    for level in range(5):
        for part in "abc":
            x = n.relu(f"r{level}{part}", n.conv(f"down{level}{part}", x, 8, 3, 1, 1))
        skips.append(x)
        x = n.pool(f"pool{level}", x, 2, 2)
    deconv = "  convolution_param { num_output: 8 kernel_size: 2 stride: 2 }\n"
    for level in reversed(range(5)):
        x = n.concat(
            f"join{level}", n.layer("Deconvolution", f"up{level}", x, deconv), skips[level]
        )
        for part in "abc":
            x = n.relu(f"s{level}{part}", n.conv(f"right{level}{part}", x, 8, 3, 1, 1))
    found = stages(infer(net_of(str(n)), "TEST"))
    names = [stage.name for stage in found]
    assert {"down0", "pool0", "right1", "join0", "right0"} <= set(names)
    assert max(len(block.layers) for stage in found for block in stage.blocks) < 40


def with_loss(text, logits, batch):
    """A deploy net as one that can be trained, on an input of nothing."""
    label = (
        f'layer {{ name: "t" type: "Input" top: "t" input_param {{ shape {{ dim: {batch} }} }} }}'
    )
    body, _ = text.rsplit("layer {", 1)
    return (
        body + layer_snippets.layer("SoftmaxWithLoss", bottoms=f"{logits} t", tops="loss") + label
    )


def moved_label(text):
    """The label's layer before its reader."""
    body, label = text.rsplit('layer { name: "t"', 1)
    head, loss = body.rsplit("layer {", 1)
    return f'{head}\nlayer {{ name: "t"{label}\nlayer {{{loss}'


MEASURED = {
    "paper": (
        lambda batch: (
            format_prototxt(deploy(net_options(variant="paper", crop=107, width=0.5))),
            "classifier",
        ),
        (2, 8),
    ),
    "googlenet": (lambda batch: (foreign_nets.googlenet(), "loss3/classifier"), (2, 6)),
    "densenet121": (lambda batch: (foreign_nets.densenet121(), "fc6"), (1, 3)),
}


@pytest.mark.slow
def test_memory_is_what_the_real_caffe_takes(caffe, tmp_path):
    """The growth of a process's peak from a small to a larger batch, within 1 %."""
    cases, expected = {}, {}
    for name, (make, batches) in MEASURED.items():
        for batch in batches:
            text, logits = make(batch)
            net = net_of(moved_label(with_loss(text, logits, 1)))
            if name == "densenet121":  # its classifier is a convolution; the loss wants one axis
                net.layer[-1].softmax_param.axis = 1
            for layer in net.layer:  # DummyData writes its blob; Input leaves untouched pages
                if layer.type == "Input":
                    layer.type = "DummyData"
                    shape = layer.dummy_data_param.shape.add()
                    shape.dim[:] = [batch, *layer.input_param.shape[0].dim[1:]]
                    layer.ClearField("input_param")
            phase: Phase
            for phase, way in (("TRAIN", "backward"), ("TEST", "forward")):
                path = tmp_path / f"{name}{batch}.prototxt"
                write_prototxt(path, net)
                cases[f"{name} {phase} {batch}"] = {"path": str(path), "phase": phase, "run": way}
                used = memory(infer(net, phase), backward=phase == "TRAIN")
                expected[f"{name} {phase} {batch}"] = add(used).of_batch
    found = real(caffe, tmp_path, cases)
    for name, (_, batches) in MEASURED.items():
        for phase in ("TRAIN", "TEST"):
            keys = [f"{name} {phase} {batch}" for batch in batches]
            assert not [found[key]["error"] for key in keys if "error" in found[key]]
            grown = found[keys[1]]["peak"] - found[keys[0]]["peak"]
            assert grown == pytest.approx(expected[keys[1]] - expected[keys[0]], rel=0.01), keys


def real(caffe, folder, cases):
    """Runs nets in the real Caffe; see real_shapes.py."""
    (folder / "work.json").write_text(json.dumps({"nets": cases, "hdf5": {}}))
    script = str(HELPERS / "real_shapes.py")
    args = [script, str(folder / "work.json"), str(folder / "found.json")]
    command = tool_command(caffe, "python", args)
    env = {**command.env, "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(command.argv, env=env, check=True, capture_output=True)
    return json.loads((folder / "found.json").read_text())


def test_phase_of_a_net_is_guessed():
    options = net_options(width=0.1)
    assert default_phase(train_val(options, 50)) == "TRAIN"
    assert default_phase(deploy(options)) == "TEST"
    old = 'layers { name: "d" type: DATA top: "d" include { phase: TRAIN } }'
    assert default_phase(net_of(old)) == "TRAIN"
    loss = layer_snippets.FLAT + layer_snippets.LABELS
    loss += layer_snippets.layer("EuclideanLoss", bottoms="x t")
    assert default_phase(net_of(loss)) == "TRAIN"


def test_numbers_for_people():
    assert [amount(v) for v in (9.2579e9, 6_949_000, 1200, 450)] == [
        "9.258 G",
        "6.9 M",
        "1.2 k",
        "450",
    ]
    sizes = (24.14e9, 5_606e6, 137.3e6, 8_576, 12)
    assert [format_bytes(v) for v in sizes] == ["24.1 GB", "5.61 GB", "137.3 MB", "8.6 kB", "12 B"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    (folder / "googlenet.prototxt").write_text(foreign_nets.googlenet())
    options = net_options(variant="paper", width=0.1)
    write_prototxt(folder / "train_val.prototxt", train_val(options, 50))
    (folder / "solver.prototxt").write_text('net: "train_val.prototxt"\nbase_lr: 0.1\n')
    return folder


def test_command_shows_stages_and_totals(desk):
    done = run("summary", "googlenet.prototxt", cwd=desk)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("GoogleNet, phase TEST, batch 10\n")
    assert "6,998,552" in done.stdout
    assert "1.583 G for one image" in done.stdout
    row = next(line for line in done.stdout.splitlines() if "inception_4 (5 blocks)" in line)
    assert row.split()[3:7] == ["832x14x14", "2,809,168", "549.9", "M"]


def test_command_shows_layers(desk):
    done = run("summary", "train_val.prototxt", "--layers", "--phase", "test", cwd=desk)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    names = [row[0] for row in rows if len(row) > 1]
    assert {"stem1_3x3_s2", "stem1_3x3_s2_bn", "accuracy_top5"} <= set(names)
    assert next(row for row in rows if row[:1] == ["stem4"])[1:3] == ["Concat", "16x73x73"]


def test_command_reports_json(desk):
    done = run("summary", "train_val.prototxt", "--json", "--layers", "--batch-size", 4, cwd=desk)
    values = json.loads(done.stdout)
    assert (values["phase"], values["batch_size"]) == ("TRAIN", 4)
    assert values["parameters"] == sum(stage["parameters"] for stage in values["stages"])
    assert values["parameters"] == sum(layer["parameters"] for layer in values["layers"])
    assert values["stages"][2]["blocks"] == [{"name": "a1", "count": 5}]
    first = next(layer for layer in values["layers"] if layer["type"] == "Convolution")
    assert first["weights"] == [[3, 3, 3, 3]]
    assert first["tops"] == {"stem1_3x3_s2": [4, 3, 149, 149]}
    lines = (desk / "train_val.prototxt").read_text().splitlines()
    assert lines[first["line"] : first["line"] + 2] == [
        '  name: "stem1_3x3_s2"',
        '  type: "Convolution"',
    ]
    memory_bytes = values["memory_bytes"]
    assert memory_bytes.pop("total") == sum(memory_bytes.values())


def test_command_reads_the_database_where_no_crop_says_the_size(tmp_path, noise_lmdb):
    source = f'source: "{noise_lmdb}" batch_size: 2 backend: LMDB'
    text = layer_snippets.layer("Data", f"data_param {{ {source} }}", "", "d t")
    (tmp_path / "net.prototxt").write_text(text)
    done = run("summary", "net.prototxt", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["output"] == []
    assert json.loads(done.stdout)["stages"][0]["output"] == [3, 400, 400]
    (tmp_path / "net.prototxt").write_text(text.replace(str(noise_lmdb), "nowhere"))
    done = run("summary", "net.prototxt", cwd=tmp_path)
    assert done.returncode == 1
    assert "--input-shape" in done.stderr
    done = run("summary", "net.prototxt", "--input-shape", "d=1x28x28", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["stages"][0]["output"] == [1, 28, 28]
    done = run("summary", "net.prototxt", "--input-shape", "d=1xbig", cwd=tmp_path)
    assert done.returncode == 2
    shapes = ("--input-shape", "d=1x28x28", "--input-shape", "date=1x28x28")
    done = run("summary", "net.prototxt", *shapes, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--input-shape date: no input of the net" in done.stderr
    assert "hint: the inputs are called d, l, t" in done.stderr


BAD_FILES = {
    "no.prototxt": (None, "no such file"),
    "binary": (bytes(range(256)), "this is a binary file, not a prototxt"),
    "model.caffemodel": (deploy(net_options(width=0.1)).SerializeToString(), "binary file"),
    "solver.prototxt": (b'net: "n.prototxt" base_lr: 1', "has no field 'net'"),
    "empty": (b"", "no layers in phase TEST"),
    "words": (b"some words\n", "words:1:1: NetParameter has no field 'some'"),
    "deep": (b"layer { " * 300_000, "has no field 'layer'"),
    "deep_values": (b"layer { convolution_param: " + b"[" * 500_000, "1:28: "),
    "long": (b"x" * 1_000_000, "NetParameter has no field 'xxx"),
    "nan": (
        (
            layer_snippets.X
            + layer_snippets.layer("Dropout", "dropout_param {\n dropout_ratio: nan }")
        ).encode(),
        "nan:2: layer 'l' (Dropout): dropout_ratio is not a number",
    ),
    "cycle": (
        (
            layer_snippets.layer("ReLU", bottoms="b", tops="a")
            + layer_snippets.layer("ReLU", bottoms="a", tops="b").replace('"l"', '"m"')
        ).encode(),
        "cycle:1: layer 'l' (ReLU): bottom 'b' (index 0) is not produced by any layer above",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_one_error_with_its_place(tmp_path, name):
    data, words = BAD_FILES[name]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    done = run("summary", name, "--draw", "out.svg", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("irv2caffe: error: ")
    assert words in lines[0]
    assert len(lines) <= 2
    assert len(done.stderr) < 1000
    assert not (tmp_path / "out.svg").exists()


def test_a_solver_leads_to_its_net(desk):
    done = run("summary", "solver.prototxt", cwd=desk)
    assert "this is a solver; give its net: train_val.prototxt" in done.stderr


def test_equal_names_are_noted(tmp_path):
    text = layer_snippets.X + layer_snippets.layer("AbsVal", tops="a") * 1
    text += layer_snippets.layer("AbsVal", tops="b")
    (tmp_path / "net.prototxt").write_text(text)
    done = run("summary", "net.prototxt", cwd=tmp_path)
    assert done.returncode == 0
    assert "2 layers are called 'l': weights are loaded into the first only" in done.stdout
