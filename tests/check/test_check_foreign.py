"""What strangers' files hold: fields of forks, halves of pairs, nets that a script trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.check_cases import SOLVER, conv, head, pool

from irv2caffe.check import fork_fields
from irv2caffe.check.finding import Severity
from irv2caffe.check.run import CheckOptions, check
from irv2caffe.errors import FormatError
from irv2caffe.proto import messages
from irv2caffe.proto.text import parse_prototxt

NOTE, WARNING, ERROR = Severity.NOTE, Severity.WARNING, Severity.ERROR

IMAGES = """
layer {{
  name: "data" type: "ImageData" top: "data" top: "label"
  transform_param {{ crop_size: 27 mean_value: 127 {transform} }}
  image_data_param {{ source: "{source}.txt" batch_size: 16 {more} }}
}}
"""
INPUT = 'layer { name: "in" type: "Input" top: "data" input_param { shape { %s } } }\n'
GRID = INPUT % "dim: 1 dim: 3 dim: 112 dim: 112"


def half(source="train", transform="", more="", flag=""):
    """A net for one phase, as solvers with train_net and test_net have it."""
    text = IMAGES.format(source=source, transform=transform, more=more)
    text += conv("conv1", "data", 8, "kernel_size: 3 pad: 1").replace("eps", f"{flag} eps")
    text += pool("pool1", "conv1", "pool: AVE global_pooling: true") + head("pool1")
    return text.replace("  include { phase: TEST }\n", "")


FALSE, TRUE = "use_global_stats: false", "use_global_stats: true"


@pytest.fixture
def look(tmp_path, monkeypatch):
    """Writes files and checks the first; returns its findings by rule."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "snapshots").mkdir()

    def write(files, options=None):
        for name, text in files.items():
            Path(name).write_text(text)
        found = check(Path(next(iter(files))), options).findings
        return {each.rule: each for each in found}

    return write


def worst(found):
    return sorted(name for name, each in found.items() if each.severity > NOTE)


# ---------------------------------------------------------------------------------------------
# Halves of pairs


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.prototxt", half(transform="mirror: true", flag=FALSE)),
        ("no_test.prototxt", half(more="shuffle: true", flag=FALSE)),
        ("b.prototxt", half("val", flag=TRUE)),
        ("test.prototxt", half("val").replace('weight_filler { type: "msra" }', "")),
        ("plain.prototxt", half()),
    ],
)
def test_a_half_alone_is_not_accused_of_lacking_the_other(look, name, text):
    assert worst(look({name: text})) == []


def test_a_pair_is_seen_as_a_pair(look):
    solver = SOLVER.replace('net: "net.', 'test_net: "test.prototxt" train_net: "train.')
    solver = solver.replace('train.prototxt"', 'train.prototxt"')
    train, test = half(transform="mirror: true", flag=FALSE), half("val", flag=TRUE)
    files = {"s.prototxt": solver, "train.prototxt": train, "test.prototxt": test}
    assert worst(look(files)) == []
    swapped = {"s.prototxt": solver, "train.prototxt": test, "test.prototxt": train}
    assert {"bn-global-stats-in-train", "mirror-in-test"} <= set(worst(look(swapped)))


def test_a_net_without_a_test_part_is_no_test_net(look):
    """No test_iter: Caffe makes no test net of ``net:``."""
    solver = SOLVER.replace("test_iter: 5\ntest_interval: 100\n", "")
    found = look({"s.prototxt": solver, "net.prototxt": half(flag=FALSE)})
    assert worst(found) == []
    assert found["tests"].severity is NOTE
    tested = half(flag=FALSE).replace('top: "label"', 'top: "label" include { phase: TRAIN }')
    tested += IMAGES.format(source="val", transform="", more="").replace(
        'top: "label"', 'top: "label" include { phase: TEST }'
    )
    found = look({"s.prototxt": solver, "net.prototxt": tested})
    assert worst(found) == ["tests"]
    assert "never run" in found["tests"].what


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_net_that_is_fed_in_one_phase_only(look, phase):
    text = half().replace('top: "label"', f'top: "label" include {{ phase: {phase} }}')
    assert worst(look({"net.prototxt": text})) == []
    found = look({"s.prototxt": SOLVER, "net.prototxt": text})
    assert found["unknown-bottom"].severity is ERROR  # Caffe makes both


# ---------------------------------------------------------------------------------------------
# Tests


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"test_iter: 5": "test_iter: 0"}, NOTE, "tests measure nothing"),
        ({"test_interval: 100": "test_interval: 5000"}, NOTE, "longer than the run"),
        (
            {"test_interval: 100": "test_interval: 5000 test_initialization: false"},
            WARNING,
            "longer than the run",
        ),
        (
            {"test_interval: 100": "test_interval: 999999999 test_initialization: false"},
            NOTE,
            "longer than the run",
        ),
        ({"test_interval: 100": "test_interval: 1000"}, None, ""),
        ({"test_iter: 5": "test_iter: 0", "test_interval: 100\n": ""}, ERROR, "without"),
    ],
)
def test_how_often_is_tested(look, changes, severity, words):
    solver = SOLVER
    for old, new in changes.items():
        assert old in solver
        solver = solver.replace(old, new)
    found = look({"s.prototxt": solver, "net.prototxt": half()}).get("tests")
    assert (found.severity if found else None) is severity
    assert found is None or words in found.what


# ---------------------------------------------------------------------------------------------
# Fields and values of forks


@pytest.mark.parametrize(
    ("said", "way_out"),
    [
        ("ceil_mode: false", "round_mode: FLOOR"),
        ("ceil_mode: true", "always rounds up"),
        ("torch_pooling: true", "round_mode: FLOOR"),
        ("torch_pooling: false", "always rounds up"),
    ],
)
def test_rounding_of_forks(look, said, way_out):
    """What rounding does to the grid is not said: nobody knows which grid is meant."""
    found = look({"n.prototxt": GRID + pool("p", "data", f"stride: 2 kernel_size: 3 {said}")})
    assert list(found) == ["unknown-field"]
    assert way_out in found["unknown-field"].fix
    found = look({"n.prototxt": GRID + pool("p", "data", "stride: 2 kernel_size: 3")})
    assert list(found) == ["pool-rounds-up"]


def test_what_is_left_out_draws_nothing_after_it(look):
    typo = half().replace("weight_filler", "weigth_filler", 1)
    found = look({"n.prototxt": typo})
    assert worst(found) == ["unknown-field"]
    assert "weight_filler" in found["unknown-field"].fix
    assert worst(look({"n.prototxt": half().replace("weight_filler", "bias_filler", 1)})) != []
    solver = SOLVER.replace("weight_decay", "weigth_decay").replace("max_iter", "max_epoch")
    found = look({"s.prototxt": solver, "net.prototxt": half()})
    assert not {"weight-decay", "max-iter"} & set(found)
    solver = SOLVER.replace("weight_decay: 0.0001", "rampup_lr: 0.1")  # has no part in it
    assert "weight-decay" in look({"s.prototxt": solver, "net.prototxt": half()})


@pytest.mark.parametrize(
    ("old", "new", "fork"),
    [
        ("bias_term: false", "bias_term: false hole: 2", "DeepLab"),
        ("bias_term: false", "bias_term: false engine: MKL2017", "Intel"),
        ("bias_term: false", "bias_term: false conv_algos_override: 1", "NVCaffe"),
        ("batch_norm_param {", "batch_norm_param { scale_bias: true", "NVCaffe"),
        ('"Pooling"', '"Pooling" roi_pooling_param { pooled_w: 7 }', "fast-rcnn"),
        ('"Pooling"', '"Pooling" psroi_pooling_param { group_size: 7 }', "R-FCN"),
        ('"Pooling"', '"Pooling" loss_param { normalization: PRE_FIXED }', "R-FCN"),
        ('"Pooling"', '"Pooling" loss_param { pre_fixed_normalizer: 2 }', "R-FCN"),
        ('"Pooling"', '"Pooling" loss_param { label_smoothing: 0.1 }', "Intel"),
        ('"Pooling"', '"Pooling" bn_param { frozen: true }', "PSPNet"),
        ('"Pooling"', '"Pooling" proposal_param { feat_stride: 16 }', "PVANet"),
        ('"Pooling"', '"Pooling" imresize_param { factor: 8 }', "caffe_rtpose"),
        ("batch_norm_param {", "batch_norm_param { use_weight_bias: false", "Intel"),
        ("batch_norm_param {", "batch_norm_param { bias_filler { }", "NVCaffe, as Intel Caffe"),
        ('type: "ReLU"', 'type: "BN"', "caffe-segnet, as hszhao/PSPNet"),
        ('type: "ReLU"', 'type: "Proposal"', "PVANet"),
        ('type: "ReLU"', 'type: "MarginInnerProduct"', "sphereface"),
        ('type: "ReLU"', 'type: "LpqLoss"', "flownet2"),
        ('type: "ReLU"', 'type: "Axpy"', "SENet"),
        ('type: "ReLU"', 'type: "PriorBox"', "SSD"),
    ],
)
def test_forks_are_named_by_field_value_and_type(look, old, new, fork):
    text = half()
    assert old in text
    found = look({"n.prototxt": text.replace(old, new)})
    assert all(name.startswith("unknown-") for name in worst(found))
    assert any(fork in each.what for each in found.values())


def test_one_finding_for_all_layers(look):
    text = "".join(
        pool(f"p{index}", "data", f"kernel_size: 2 ceil_mode: false pad: {index % 2}")
        for index in range(132)
    )
    found = look({"n.prototxt": GRID + text})
    assert list(found) == ["unknown-field"]
    assert len(found["unknown-field"].places) == 132


def test_values_in_quotes_and_old_types(look):
    found = look({"n.prototxt": GRID + pool("p", "data", 'kernel_size: 2 pool: "AVE"')})
    assert found["unknown-value"].fix == "pool: AVE, without quotes"
    old = 'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n'
    old += 'layers { name: "p" type: %s bottom: "data" top: "p" }'
    found = look({"n.prototxt": old % '"Softmax"'})
    assert worst(found) == ["unknown-value"]
    assert "type: SOFTMAX" in found["unknown-value"].fix
    found = look({"n.prototxt": old % "UPSAMPLE"})
    assert worst(found) == ["unknown-layer-type"]
    assert "segnet" in found["unknown-layer-type"].what
    assert worst(look({"n.prototxt": old % "SOFTMAX"})) == []


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("name: resnet_50", 'name: "resnet_50"'),
        ('layer { name: "s" type: SOFTMAX }', "the format before 2014, for layers { }"),
        ('layers { type: "Softmax" }', "use layer { } for types such as"),
        ("layer { pooling_param { pool: MEDIAN } }", "a fork may have it"),
    ],
)
def test_hints_name_the_cause(text, hint):
    with pytest.raises(FormatError) as caught:
        parse_prototxt(text, messages.NetParameter)
    assert hint in caught.value.hint


# ---------------------------------------------------------------------------------------------
# Solvers for nets, nets for solvers


def test_a_solver_where_a_net_is_wanted(look):
    """One finding, and none of a net that is not there."""
    solver = SOLVER.replace('"net.prototxt"', '"other.prototxt"')
    found = look({"s.prototxt": solver, "other.prototxt": SOLVER.replace("snapshots/", "s/")})
    assert worst(found) == ["solver-as-net"]
    assert 'net: "net.prototxt"' in found["solver-as-net"].fix


def test_a_solver_and_a_net_in_one_file(look):
    found = look({"n.prototxt": half() + SOLVER})
    assert worst(found) == ["solver-as-net"]
    assert "and 14 more" in found["solver-as-net"].what
    assert len(found["solver-as-net"].places) == 17
    assert worst(look({"n.prototxt": half() + "base_larry: 1"})) == ["unknown-field"]


def test_nvcaffe_fields_are_no_finding_for_nvcaffe(look):
    text = half().replace("bias_term: false", "bias_term: false cudnn_math_override: 0")
    assert worst(look({"n.prototxt": text})) == ["unknown-field"]
    assert worst(look({"n.prototxt": text}, CheckOptions(flavor="nvcaffe"))) == []


# ---------------------------------------------------------------------------------------------
# Nets of other kinds


PYRAMID = """
layer { name: "c4" type: "Concat" bottom: "a" bottom: "b" top: "c4" }
layer { name: "c5" type: "Convolution" bottom: "c4" top: "c5"
  convolution_param { num_output: 8 kernel_size: 2 stride: 2 } }
layer { name: "up" type: "Deconvolution" bottom: "c5" top: "up"
  convolution_param { num_output: 8 kernel_size: 2 stride: 2 } }
layer { name: "side" type: "Convolution" bottom: "c4" top: "side"
  convolution_param { num_output: 8 kernel_size: 1 } }
layer { name: "p4" type: "Eltwise" bottom: "side" bottom: "up" top: "p4" }
layer { name: "out" type: "Convolution" bottom: "p4" top: "out"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 } }
"""


def test_lateral_sums_of_a_pyramid_are_linear_by_design(look):
    stem = GRID + conv("a", "data", 4, "kernel_size: 1") + conv("b", "data", 4, "kernel_size: 1")
    assert worst(look({"n.prototxt": stem + PYRAMID})) == []
    # the same sum, but the branch begins at what it is added to
    block = PYRAMID.replace('bottom: "up"', 'bottom: "data"').replace(
        "num_output: 8", "num_output: 3"
    )
    assert "residual-not-rectified" in worst(look({"n.prototxt": stem + block}))


def test_a_batch_that_only_one_device_cannot_hold(look):
    text = half(transform="mirror: true").replace("batch_size: 16", "batch_size: 500000")
    files = {"s.prototxt": SOLVER.replace("net.proto", "n.proto"), "n.prototxt": text}
    refused = look(files)["net-refused"]
    fits = (2**31 - 1) // (8 * 27 * 27)
    assert f"batch_size: {fits} at most" in refused.fix
    assert "--flavor nvcaffe" in refused.fix
    nvcaffe = CheckOptions(flavor="nvcaffe", num_gpus=8)
    assert "net-refused" not in look(files, nvcaffe)
    assert "net-refused" in look(files, CheckOptions(num_gpus=8))
    files["n.prototxt"] = text.replace("500000", str(fits))
    assert "net-refused" not in look(files)
    files["n.prototxt"] = text.replace("500000", str(fits + 1))
    assert "net-refused" in look(files)


def test_a_second_test_of_the_training_images(look):
    """As in Caffe's autoencoder: one test net for each set."""

    def images(source, rule):
        text = IMAGES.format(source=source, transform="", more="")
        return text.replace('top: "label"', f'top: "label" include {{ {rule} }}')

    body = half().split("image_data_param")[1].split("}\n", 2)[2]
    text = images("train", "phase: TRAIN") + images("train", 'phase: TEST stage: "on-train"')
    text += images("val", 'phase: TEST stage: "on-test"') + body
    both = (
        'test_iter: 5 test_state { stage: "on-train" } test_state { stage: "on-test" } test_iter: 5'
    )
    files = {"s.prototxt": SOLVER.replace("test_iter: 5", both), "net.prototxt": text}
    assert worst(look(files)) == []
    one = 'test_iter: 5 test_state { stage: "on-train" }'
    files["s.prototxt"] = SOLVER.replace("test_iter: 5", one)
    assert worst(look(files)) == ["same-source"]


FED_BY_PYTHON = """
layer { name: "data" type: "Python" top: "data" top: "label"
  python_param { module: "layers" layer: "Data" } }
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
layer { name: "up" type: "Deconvolution" bottom: "c" top: "up" param { lr_mult: 0 }
  convolution_param { num_output: 2 kernel_size: 4 stride: 2 bias_term: false } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "up" bottom: "label" top: "loss" }
"""
STEPPED = """
train_net: "net.prototxt"
base_lr: 0.001
lr_policy: "step"
gamma: 0.1
stepsize: 50000
display: 20
momentum: 0.9
weight_decay: 0.0005
snapshot: 0
snapshot_prefix: "rcnn"
"""


def test_a_solver_that_a_script_steps(look):
    """Weights, iterations, mode and snapshots are the script's."""
    found = look({"s.prototxt": STEPPED, "net.prototxt": FED_BY_PYTHON})
    assert worst(found) == ["zero-filler"]
    assert found["zero-filler"].severity is WARNING
    assert found["max-iter"].severity is NOTE
    fed = FED_BY_PYTHON.replace(
        '"Python"', '"HDF5Data" hdf5_data_param { source: "x" batch_size: 1 }'
    )
    found = look({"s.prototxt": STEPPED, "net.prototxt": fed})
    assert {"max-iter", "solver-mode", "zero-filler"} <= set(worst(found))
    assert found["max-iter"].severity is found["zero-filler"].severity is ERROR


def test_a_frozen_deconvolution_wants_bilinear(look):
    found = check_zero(look, FED_BY_PYTHON)
    assert 'type: "bilinear"' in found.fix
    bilinear = 'bias_term: false weight_filler { type: "bilinear" }'
    rectifier = 'layer { name: "r" type: "ReLU" bottom: "c" top: "c" }\n'
    assert rectifier in FED_BY_PYTHON
    filled = FED_BY_PYTHON.replace("bias_term: false", bilinear).replace(rectifier, "")
    assert check_zero(look, filled) is None  # the convolution alone learns
    learned = FED_BY_PYTHON.replace("param { lr_mult: 0 }", "")
    assert 'type: "xavier"' in check_zero(look, learned).fix


def check_zero(look, text):
    return look({"n.prototxt": text}).get("zero-filler")


@pytest.mark.parametrize("filler", ["bias_filler", "weight_filler"])
def test_fillers_that_caffe_never_asks_for(look, filler):
    text = GRID + (
        'layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { '
        f'num_output: 4 kernel_size: 3 bias_term: false {filler} {{ type: "gabor" }} }} }}\n'
    )
    found = worst(look({"n.prototxt": text}))
    assert found == (["unknown-filler"] if filler == "weight_filler" else [])
    both = text.replace("bias_term: false", "")
    assert worst(look({"n.prototxt": both})) == ["unknown-filler"]


# ---------------------------------------------------------------------------------------------
# Snapshots of several solvers


@pytest.mark.parametrize(
    ("changes", "severity"),
    [
        ({"max_iter: 1000": "max_iter: 1500", "0.045": "0.0045"}, None),  # goes on from the other
        ({'"SGD"': '"Nesterov"'}, NOTE),
        ({'"net.prototxt"': '"other.prototxt"'}, WARNING),
        ({"snapshots/net": "snapshots/other"}, None),
    ],
)
def test_one_prefix_in_several_solvers(look, changes, severity):
    other = SOLVER
    for old, new in changes.items():
        assert old in other
        other = other.replace(old, new)
    first = {"a_solver.prototxt": SOLVER, "net.prototxt": half(), "b_solver.prototxt": other}
    for files in (first, {"b_solver.prototxt": other, **first, "other.prototxt": half()}):
        found = look(files).get("snapshot-taken")
        assert (found.severity if found else None) is severity


# ---------------------------------------------------------------------------------------------
# Many findings of one kind


@pytest.mark.parametrize(("count", "number"), [(3, 3), (4, 1), (40, 1)])
def test_findings_of_one_kind_are_one(look, count, number):
    """Every pool rounds another grid."""
    text = ""
    for index in range(count):
        size = 2 * index + 10
        text += INPUT.replace('"in"', f'"in{index}"').replace('"data"', f'"d{index}"') % (
            f"dim: 1 dim: 3 dim: {size} dim: {size}"
        )
        text += pool(f"p{index}", f"d{index}", "kernel_size: 3 stride: 2")
    Path("n.prototxt").write_text(text)
    found = [each for each in check(Path("n.prototxt")).findings if each.rule == "pool-rounds-up"]
    assert len(found) == number
    assert len({place.layer for each in found for place in each.places}) == count
    assert number == 3 or f"and {count - 2} more of this kind" in found[0].what


# ---------------------------------------------------------------------------------------------
# Settings that are right in some nets


def test_a_net_alone_whose_data_come_in_stages(look):
    """As LRCN's: a solver's train_state and test_state say which."""
    text = half().replace('top: "label"', 'top: "label" include { phase: TRAIN stage: "all" }')
    assert worst(look({"n.prototxt": text})) == []
    solver = SOLVER.replace("test_iter: 5\ntest_interval: 100\n", 'train_state { stage: "all" }\n')
    assert worst(look({"s.prototxt": solver, "net.prototxt": text})) == []
    solver = solver.replace('"all"', '"some"')
    assert "unknown-bottom" in worst(look({"s.prototxt": solver, "net.prototxt": text}))


def test_frozen_norms_of_a_net_that_is_fine_tuned(look):
    """As R-FCN's: statistics, multiplier and shift stay as the weights have them."""
    solver = SOLVER.replace("test_iter: 5\ntest_interval: 100\n", "")
    frozen = half(flag=TRUE, transform="mirror: true")
    found = look({"s.prototxt": solver, "net.prototxt": frozen})
    assert found["bn-global-stats-in-train"].severity is WARNING
    frozen = frozen.replace("lr_mult: 1 decay_mult: 0", "lr_mult: 0 decay_mult: 0")
    found = look({"s.prototxt": solver, "net.prototxt": frozen})
    assert found["bn-global-stats-in-train"].severity is NOTE


@pytest.mark.parametrize(("kind", "severity"), [("Sigmoid", NOTE), ("ReLU", WARNING)])
def test_a_norm_without_scale_matters_before_a_rectifier(look, kind, severity):
    text = INPUT % "dim: 1 dim: 3 dim: 8 dim: 8"
    text += 'layer { name: "n" type: "BatchNorm" bottom: "data" top: "n" }\n'
    text += f'layer {{ name: "a" type: "{kind}" bottom: "n" top: "a" }}\n'
    assert look({"n.prototxt": text})["bn-without-scale"].severity is severity


@pytest.mark.parametrize(("kind", "severity"), [("Adam", NOTE), ("SGD", WARNING)])
def test_no_weight_decay_is_usual_with_adaptive_solvers(look, kind, severity):
    solver = SOLVER.replace("weight_decay: 0.0001\n", "").replace('"SGD"', f'"{kind}"')
    found = look({"s.prototxt": solver, "net.prototxt": half()})
    assert found["weight-decay"].severity is severity


def test_many_fields_and_types_of_one_fork_are_one_finding(look):
    text = GRID + (
        'layer { name: "n" type: "Normalize" bottom: "data" top: "n" norm_param { } }\n'
        'layer { name: "p" type: "Permute" bottom: "n" top: "p" permute_param { order: 0 } }\n'
        'layer { name: "q" type: "PriorBox" bottom: "p" bottom: "data" top: "q" '
        "prior_box_param { min_size: 30 } }\n"
    )
    found = look({"n.prototxt": text})
    assert worst(found) == ["unknown-field", "unknown-layer-type"]
    assert (
        "(SSD) has the fields norm_param, permute_param, prior_box_param"
        in found["unknown-field"].what
    )
    assert "Normalize, Permute, PriorBox" in found["unknown-layer-type"].what
    assert len(found["unknown-layer-type"].places) == 3


def test_types_that_came_after_the_old_form(look):
    old = 'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n'
    old += 'layers { name: "p" type: %s bottom: "data" top: "p" }'
    found = look({"n.prototxt": old % "BATCH_NORM"})
    assert 'layer { type: "BatchNorm" }' in found["unknown-layer-type"].fix


# ---------------------------------------------------------------------------------------------
# Encodings


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "latin-1"])
def test_comments_in_any_encoding(look, encoding):
    """Caffe reads past them."""
    comment = {"gb18030": "训练网络", "latin-1": "r\xe9seau"}.get(encoding, "訓練 é")
    text = f"# {comment}\n".encode(encoding) + GRID.encode()
    Path("n.prototxt").write_bytes(text)
    assert check(Path("n.prototxt")).findings == ()
    Path("n.prototxt").write_bytes(text + b"\0")
    with pytest.raises(FormatError, match="binary"):
        check(Path("n.prototxt"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name:\u00a0'x'", "1:6: NO-BREAK SPACE"),
        ("\n name: \u201cx\u201d", "2:8: LEFT DOUBLE QUOTATION MARK"),
        ("name: 'x' # \u201c\nlayer\uff1a { }", "2:6: FULLWIDTH COLON"),
    ],
)
def test_characters_that_caffe_does_not_take(text, words):
    with pytest.raises(FormatError, match=words):
        parse_prototxt(text, messages.NetParameter)
    quoted = f'name: "{text[:5]}\u00a0\u201c" # \uff1a'.replace("\n", " ")
    assert parse_prototxt(quoted, messages.NetParameter).name


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('name = "x"', "colon"),
        ("layer { convolution_param { num_output: 4.0 } }", "expected an integer"),
        ("layer { convolution_param { bias_term: FALSE } }", "lower case"),
        ('name: "a" name: "b"', "keep one"),
        ("layer { name: 'a'", "a } is missing"),
        ("layer { } }", "a } without a {"),
    ],
)
def test_hints_of_slips_of_the_pen(text, hint):
    with pytest.raises(FormatError) as caught:
        parse_prototxt(text, messages.NetParameter)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("multifixed", "'multifixed'; yeahkun/caffe-yolo has it"),
        ("plateau", "'plateau'; weiliu89/caffe (SSD) has it"),
        ("sgdr", "'sgdr'; jolibrain/caffe (DeepDetect) has it"),
        ("stepp", "'stepp'"),
    ],
)
def test_learning_rate_policies_of_forks(look, policy, words):
    found = look({"s.prototxt": SOLVER.replace('"step"', f'"{policy}"'), "net.prototxt": half()})
    assert found["lr-policy"].severity is ERROR
    assert found["lr-policy"].what == f"lr_policy: {words}"


def test_fields_that_two_forks_share(look):
    """They are meant where the one that the user names has them."""
    text = (
        half()
        .replace("ImageData", "Data")
        .replace("image_data_param {", "data_param { shuffle: true")
    )
    text = text.replace("shuffle: true", "shuffle: true backend: LMDB")
    found = look({"n.prototxt": text})
    assert "NVCaffe, as Intel Caffe, has it" in found["unknown-field"].what
    assert "unknown-field" not in look({"n.prototxt": text}, CheckOptions(flavor="nvcaffe"))


@pytest.mark.parametrize(
    ("layer", "is_known"),
    [
        ('type: "Permute" bottom: "data" permute_param { order: 0 }', True),
        ('type: "Axpy" bottom: "data"', True),
        ('type: "Dropout" bottom: "data" dropout_param { random_seed: 1 }', True),
        ('type: "Pooling" bottom: "data" pooling_param { kernel_size: 2 axis: 1 }', False),
        ('type: "Interp" bottom: "data"', False),
    ],
)
def test_nvcaffe_has_the_layers_of_ssd(look, layer, is_known):
    """Since 0.17; and SENet's Axpy."""
    files = {"n.prototxt": GRID + f'layer {{ name: "n" top: "n" {layer} }}'}
    names = {"unknown-field", "unknown-layer-type"}
    assert names & set(look(files))
    found = set(look(files, CheckOptions(flavor="nvcaffe")))
    assert found.isdisjoint(names) is is_known


@pytest.mark.parametrize(("kind", "is_known"), [("xavierstatic", True), ("constantstatic", False)])
def test_fillers_of_nvcaffe(look, kind, is_known):
    text = half().replace('"xavier"', f'"{kind}"').replace('"msra"', f'"{kind}"')
    assert kind in text
    found = look({"n.prototxt": text})["unknown-filler"]
    assert ("NVCaffe has it" in found.what) is is_known
    assert (found.fix == 'type: "xavier"') is is_known
    told = look({"n.prototxt": text}, CheckOptions(flavor="nvcaffe"))
    assert ("unknown-filler" in told) is not is_known


def test_each_name_is_of_one_fork():
    """And of none that Caffe 1.0 has itself."""
    fields = [
        (message, name)
        for messages_of in fork_fields._FIELDS_OF.values()
        for message, names in messages_of.items()
        for name in names.split()
    ]
    types = " ".join(fork_fields._TYPES_OF.values()).split()
    assert len(fields) == len(set(fields))
    assert len(types) == len(set(types))
    assert not set(types) & set(messages.LAYER_TYPES)
    for message, name in fields:
        if message:
            known = messages.message_class(message).DESCRIPTOR.fields_by_name
            assert name not in known, (message, name)


@pytest.mark.parametrize(("kind", "words"), [("WarpCTC", []), ("Softmax", ["no-loss"])])
def test_a_loss_of_a_type_that_nobody_knows(look, kind, words):
    solver = SOLVER.replace("test_iter: 5\ntest_interval: 100\n", "")
    net = half().replace(
        'type: "SoftmaxWithLoss" bottom: "fc" bottom: "label"', f'type: "{kind}" bottom: "fc"'
    )
    found = worst(look({"s.prototxt": solver, "net.prototxt": net}))
    assert [name for name in found if name != "unknown-layer-type"] == words


@pytest.mark.parametrize(("max_iter", "severity"), [(20, NOTE), (1000, ERROR)])
def test_a_trial_needs_no_snapshot(look, max_iter, severity):
    solver = SOLVER.replace("max_iter: 1000", f"max_iter: {max_iter}")
    solver = solver.replace("snapshot: 500", "snapshot_after_train: false")
    found = look({"s.prototxt": solver, "net.prototxt": half()})
    assert found["snapshot-never"].severity is severity
