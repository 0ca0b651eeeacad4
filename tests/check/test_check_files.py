"""Check as users meet it: finding files, databases, good and bad runs of others, the command."""

from __future__ import annotations

import contextlib
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import foreign_nets, foreign_runs, program
from helpers.check_cases import FLAG, SOLVER, plain, tf
from helpers.check_databases import encoded, raw, shuffled, write_database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irv2caffe.check.finding import Severity
from irv2caffe.check.run import CheckOptions, check
from irv2caffe.config import (
    NetOptions,
    SolverOptions,
    load_recipe,
    recipe_names,
    resolve,
    templates_dir,
)
from irv2caffe.config.variants import VARIANTS
from irv2caffe.data.inspect.sample import label_order, read_image_list, sample_database
from irv2caffe.errors import (
    EXIT_FINDINGS,
    FormatError,
    Irv2CaffeError,
    MissingInputError,
    UsageError,
)
from irv2caffe.net.build import build_net
from irv2caffe.proto import messages
from irv2caffe.proto.binary import write_binary
from irv2caffe.proto.positions import blank_out, scan, unknown_fields
from irv2caffe.proto.text import layer_lines
from irv2caffe.train.plan.job import read_job

NOTE, WARNING, ERROR = Severity.NOTE, Severity.WARNING, Severity.ERROR


def above_a_note(report):
    return [(each.rule, each.what) for each in report.findings if each.severity > NOTE]


def rules_of(report):
    return {each.rule for each in report.findings}


# ---------------------------------------------------------------------------------------------
# Our own output


def pairs():
    """Every recipe with every variant that it goes together with."""
    for recipe in recipe_names():
        values = load_recipe(recipe)
        for variant in VARIANTS:
            with contextlib.suppress(UsageError):
                resolve(NetOptions, values, {"variant": variant})
                yield recipe, variant


def test_most_recipes_go_with_most_variants():
    assert len(list(pairs())) >= len(VARIANTS) * 3


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "variant"), list(pairs()))
def test_nothing_above_a_note_in_what_build_net_writes(recipe, variant, tmp_path, monkeypatch):
    """Every recipe with every variant; flaws that are what a recipe is for are named."""
    monkeypatch.chdir(tmp_path)
    values = load_recipe(recipe)
    told = {"variant": variant}
    built = build_net(
        Path("net"),
        resolve(NetOptions, values, told).options,
        resolve(SolverOptions, values, told).options,
        num_train=1_281_167,
        num_val=50_000,
        class_counts=[1_281] * 1000,  # for class weights
    )
    for path in (built.solver, built.deploy):
        report = check(path)
        flaws = set()
        if variant == "seed":
            flaws = {"residual-not-rectified"}
            flaws |= {"bn-batch-stats-in-test"} if path != built.deploy else set()
        if recipe == "finetune" and path == built.solver:  # the weights are named to train
            flaws |= {"bn-global-stats-in-train"}
        assert {rule for rule, _ in above_a_note(report)} == flaws, above_a_note(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"aux": True, "label_smoothing": 0.1},
        {"average_pool": "caffe", "gamma": False},
        {"crop": 75, "width": 0.25, "num_classes": 10},
        {"crop": 331, "residual_scale": None, "residual_bn": True},
        {"flavor": "nvcaffe", "num_gpus": 2},
        {"iter_size": 4, "clip_gradients": 10.0, "num_gpus": 2},
        {"type": "SGD", "momentum": 0.9},
    ],
)
def test_nothing_above_a_note_with_other_options(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = load_recipe("paper")
    fields = NetOptions.__dataclass_fields__
    built = build_net(
        Path("net"),
        resolve(NetOptions, values, {k: v for k, v in options.items() if k in fields}).options,
        resolve(
            SolverOptions, values, {k: v for k, v in options.items() if k not in fields}
        ).options,
        num_train=50_000,
        num_val=1_000,
    )
    report = check(built.solver, CheckOptions(flavor=options.get("flavor", "bvlc")))
    assert above_a_note(report) == []


def test_a_crop_on_other_grids_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_net(Path("net"), NetOptions(crop=328), SolverOptions(), num_train=1000, num_val=100)
    report = check(Path("net/solver.prototxt"))
    assert {rule for rule, _ in above_a_note(report)} == {"pool-rounds-up"}


def test_the_flaws_of_the_original_run_are_named(tmp_path, monkeypatch):
    """What facts about the run of 2016 list, each found where it stands."""
    monkeypatch.chdir(tmp_path)
    values = load_recipe("seed")
    options = resolve(NetOptions, values, {}).options
    run = resolve(SolverOptions, values, {}).options
    build_net(Path("net"), options, run, num_train=1_281_167, num_val=50_000)
    report = check(Path("net/solver.prototxt"))
    places = {each.rule: len(each.places) for each in report.findings}
    assert places["bn-batch-stats-in-test"] == 132
    assert places["residual-not-rectified"] == 20
    assert places["residual-unscaled"] == 15  # 10 of 1152 and 5 of 2048 channels
    assert places["residual-bn-on-branch"] == 20
    assert places["bn-bias-before"] == 132
    assert places["bn-params-missing"] == 132
    assert places["bn-eps"] == 132
    assert places["xavier-fan-in"] == 133
    assert {
        "rmsprop-without-momentum",
        "no-augmentation",
        "fixed-order",
        "effective-batch",
        "bn-not-synchronized",
        "weight-decay",
    } <= set(places)
    assert report.summary == (
        "effective batch 64 = 16 per device x 2 device(s) x iter_size 2",
        "max_iter 2,402,160 = 120.00 epochs of 1,281,167 training images",
    )


# ---------------------------------------------------------------------------------------------
# Runs of other people


@pytest.mark.parametrize("name", foreign_runs.RUNS)
def test_good_runs_of_others_are_clean(name, tmp_path, monkeypatch):
    net, solver = foreign_runs.RUNS[name]
    folder = tmp_path / "models/net"
    folder.mkdir(parents=True)
    (folder / "train_val.prototxt").write_text(net())
    (folder / "solver.prototxt").write_text(solver)
    monkeypatch.chdir(tmp_path)
    assert above_a_note(check(Path("models/net/solver.prototxt"))) == []
    assert above_a_note(check(Path("models/net/train_val.prototxt"))) == []
    monkeypatch.chdir(folder)  # Caffe would not find the net from here; that is a note
    report = check(Path("solver.prototxt"))
    assert above_a_note(report) == []
    assert "net-elsewhere" in rules_of(report)


@pytest.mark.parametrize("name", foreign_nets.NETS)
def test_well_known_deploy_nets_are_clean(name, tmp_path):
    (tmp_path / "deploy.prototxt").write_text(foreign_nets.NETS[name]())
    assert above_a_note(check(tmp_path / "deploy.prototxt")) == []


# ---------------------------------------------------------------------------------------------
# Files


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A clean run in the working folder; returns a function that writes and checks it."""
    monkeypatch.chdir(tmp_path)
    Path("snapshots").mkdir()

    def write(net=None, solver=SOLVER, options=None):
        Path("net.prototxt").write_text(plain() if net is None else net)
        Path("solver.prototxt").write_text(solver)
        return check(Path("solver.prototxt"), options)

    return write


def test_nets_of_their_own_for_training_and_tests(run):
    text = plain()
    train, test = text.split('layer {\n  name: "data"', 2)[1:]
    body = test[test.index('\nlayer {\n  name: "conv1"') :]
    test = test.removesuffix(body)
    Path("train.prototxt").write_text('layer {\n  name: "data"' + train + body)
    Path("test.prototxt").write_text(
        'layer {\n  name: "data"' + test + body.replace("eps: 0.001 }", FLAG.format("false"))
    )
    solver = SOLVER.replace(
        'net: "net.prototxt"', 'train_net: "train.prototxt"\ntest_net: "test.prototxt"'
    )
    found = {each.rule: each for each in run(solver=solver).findings}
    place = found["bn-batch-stats-in-test"].places[0]
    assert (place.file, place.layer) == ("test.prototxt", "conv1/bn")
    assert "bn-global-stats-in-train" not in found


def test_a_net_without_a_name(run):
    """The real Caffe: "File not found: " and nothing."""
    report = run(solver=SOLVER.replace('"net.prototxt"', '""'))
    assert "net-missing" in {rule for rule, _ in above_a_note(report)}


def test_a_net_inside_the_solver(run):
    solver = SOLVER.replace(
        'net: "net.prototxt"', "net_param {" + plain().replace('type: "msra"', "") + "}"
    )
    found = {each.rule: each for each in run(solver=solver).findings}
    place = found["zero-filler"].places[0]
    assert (place.file, place.layer) == ("solver.prototxt", "conv1")
    assert "convolution_param {" in solver.splitlines()[place.line - 1]


def test_stages_of_the_solver_choose_layers(run):
    """A BatchNorm of a stage that only the test state has."""
    flagged = plain().replace(
        "eps: 0.001 }", FLAG.format("false") + ' include { phase: TEST stage: "strange" }'
    )
    net = flagged.replace('name: "conv1/bn"', 'name: "conv1/odd"')
    assert "bn-batch-stats-in-test" not in rules_of(run(net))
    with_state = SOLVER + 'test_state { stage: "strange" }\n'
    assert "bn-batch-stats-in-test" in rules_of(run(net, with_state))


def test_lines_point_at_the_field(run):
    text = plain().replace("eps: 0.001 }", "\n\n  use_global_stats: false eps: 0.001 }")
    report = run(text)
    lines = text.splitlines()
    for finding in report.findings:
        if finding.rule == "bn-batch-stats-in-test":
            assert [place.layer for place in finding.places] == ["conv1/bn", "conv2/bn"]
            assert all("use_global_stats" in lines[place.line - 1] for place in finding.places)


def test_snapshots_that_are_there(run):
    for name in ("net_iter_10.caffemodel", "net_iter_10.solverstate", "nets_iter_1.caffemodel"):
        Path("snapshots", name).touch()
    (finding,) = [each for each in run().findings if each.rule == "snapshot-taken"]
    assert finding.severity is NOTE
    assert finding.what.startswith("2 snapshots")


def test_a_folder_that_cannot_be_written(run):
    if os.geteuid() == 0:
        solver = SOLVER.replace("snapshots/net", "/proc/net_of_mine")
    else:
        Path("snapshots").chmod(0o500)
        solver = SOLVER
    (finding,) = [each for each in run(solver=solver).findings if each.rule == "snapshot-folder"]
    assert "cannot be written" in finding.what
    assert finding.severity is ERROR


def test_our_header_says_how_many_gpus(run):
    header = (
        "# effective batch 32 = batch_size 16 x 2 GPU(s) x iter_size 1\n"
        "# 3,200 training images = 100.00 iterations per epoch\n"
    )
    assert run(solver=header + SOLVER).summary == (
        "effective batch 32 = 16 per device x 2 device(s) x iter_size 1",
        "max_iter 1,000 = 10.00 epochs of 3,200 training images",
    )
    told = run(solver=header + SOLVER, options=CheckOptions(num_gpus=1, num_train=1600))
    assert "max_iter 1,000 = 10.00 epochs of 1,600 training images" in told.summary


def test_a_forgotten_factor_is_told(run):
    options = CheckOptions(num_gpus=4, num_train=6400, epochs=10)
    assert "run-length" not in rules_of(run(options=options))
    options = CheckOptions(num_gpus=4, num_train=1600, epochs=10)
    (finding,) = [each for each in run(options=options).findings if each.rule == "run-length"]
    assert "GPUs" in finding.why
    assert finding.fix == "max_iter: 250"


def test_good_crops_are_named(run):
    """A strided pool meets a strided convolution: 28 pixels abort, 27 and 29 fit."""
    net = tf().replace("crop_size: 27", "crop_size: 28")
    strided = (
        'layer { name: "s" type: "Convolution" bottom: "stem" top: "s" convolution_param { '
        'num_output: 2 kernel_size: 3 stride: 2 weight_filler { type: "msra" } } }\n'
        'layer { name: "meet" type: "Concat" bottom: "grid" bottom: "s" top: "meet" }\n'
        'layer { name: "hush" type: "Silence" bottom: "meet" }\n'
    )
    at = net.index('\nlayer {\n  name: "one/a"')
    (finding,) = [
        each for each in run(net[:at] + strided + net[at:]).findings if each.rule == "grid-mismatch"
    ]
    assert finding.fix == "crop_size: 27 or 29"
    assert finding.places[0].layer == "meet"


# ---------------------------------------------------------------------------------------------
# Databases


def test_facts_of_databases(tmp_path):
    facts = sample_database(write_database(tmp_path / "a", [raw(n) for n in shuffled(300, 5)]))
    assert (facts.num_records, facts.channels, facts.height, facts.width) == (300, 3, 32, 32)
    assert (facts.min_label, facts.max_label, facts.order) == (0, 4, "shuffled")
    assert (facts.encoded, facts.mixed_channels, facts.mixed_sizes) == (False, False, False)
    sorted_ = [raw(label) for label in sorted(shuffled(300, 5))]
    assert sample_database(write_database(tmp_path / "b", sorted_)).order == "sorted"
    grouped = [raw(label) for label in [3] * 100 + [0] * 100 + [2] * 50 + [1] * 100]
    assert sample_database(write_database(tmp_path / "c", grouped)).order == "grouped"
    mixed = [encoded(0), encoded(1, channels=1), encoded(0, size=(40, 32))]
    facts = sample_database(write_database(tmp_path / "d", mixed))
    assert (facts.encoded, facts.mixed_channels, facts.mixed_sizes) == (True, True, True)
    named = [f"n{index % 7}/{index}" for index in range(300)]
    by_name = write_database(tmp_path / "e", [raw(int(k[1])) for k in named], named)
    assert sample_database(by_name).order == "sorted"
    assert sample_database(write_database(tmp_path / "f", [])).num_records == 0
    (tmp_path / "g").mkdir()
    (tmp_path / "g/CURRENT").write_text("MANIFEST")
    assert sample_database(tmp_path / "g").kind == "LEVELDB"


def test_facts_of_lists(tmp_path):
    lines = [f"a b/{index}.jpg {label}" for index, label in enumerate(shuffled(200, 9))]
    (tmp_path / "list").write_text("\n".join(lines) + "\n\nno label\n")
    facts = read_image_list(tmp_path / "list")
    assert (facts.num_records, facts.num_looked_at) == (201, 200)
    assert (facts.min_label, facts.max_label, facts.order) == (0, 8, "shuffled")


@pytest.mark.parametrize("seed", range(20))
def test_a_shuffle_is_not_taken_for_an_order(seed):
    rng = np.random.default_rng(seed)
    for classes in (2, 3, 10, 1000):
        labels = [int(label) for label in rng.integers(0, classes, 1000)]
        assert label_order(labels, labels[:64]) == "shuffled"
        assert label_order(sorted(labels), sorted(labels)[:64]) in {"sorted", "unknown"}
    skewed = [int(rng.random() < 0.1) for _ in range(1000)]
    assert label_order(skewed, skewed[:64]) == "shuffled"


def test_databases_are_looked_at(run, tmp_path):
    write_database(
        tmp_path / "train_lmdb", [raw(label, (26, 26)) for label in sorted(shuffled(90, 6))]
    )
    write_database(tmp_path / "val_lmdb", [raw(label) for label in shuffled(60, 4)])
    report = run()
    found = {each.rule: each for each in report.findings}
    assert "train_lmdb has label 5, the net 4 outputs" in found["label-range"].what
    assert "in the order of labels" in found["no-shuffle"].what
    assert "holds 26x26" in found["crop-exceeds-records"].what
    assert "the validation set has 60" in found["test-set-size"].what
    assert found["test-set-size"].fix == "test_iter: 6"
    assert report.as_dict()["databases"]["val_lmdb"]["num_records"] == 60
    good = write_database(tmp_path / "other", [raw(label) for label in shuffled(1600, 4)])
    val = write_database(tmp_path / "fifty", [raw(label) for label in shuffled(50, 4)])
    assert above_a_note(run(options=CheckOptions(train_lmdb=good, val_lmdb=val))) == []


def test_a_batch_without_end_is_not_counted_through(run):
    """4 billion images in a test batch, and a validation set without divisors."""
    net = plain().replace("batch_size: 10", "batch_size: 4000000000")
    assert "4000000000" in net
    report = run(net, options=CheckOptions(num_val=1_000_000_007))
    fix = next(each.fix for each in report.findings if each.rule == "test-set-size")
    assert fix == "TEST batch_size: 1 and test_iter: 1000000007"


def test_databases_that_cannot_be_read(run, tmp_path):
    Path("train_lmdb").mkdir()
    Path("train_lmdb/data.mdb").write_text("words")
    write_database(tmp_path / "val_lmdb", [b"\xff\xff\xff not a datum"])
    found = [each for each in run().findings if each.rule == "data-unreadable"]
    assert {each.what.split()[0] for each in found} == {"train_lmdb", "val_lmdb"}
    assert all(each.severity is ERROR for each in found)
    Path("train_lmdb/data.mdb").unlink()
    assert "data-unreadable" in rules_of(run())
    with pytest.raises(MissingInputError):
        run(options=CheckOptions(train_lmdb=Path("nowhere")))


def test_pipes_and_devices_are_not_waited_for(run):
    os.mkfifo("other.prototxt")
    images = (
        plain()
        .replace('type: "Data"', 'type: "ImageData"')
        .replace("data_param {", "image_data_param {")
        .replace(" backend: LMDB", "")
    )
    net = images.replace('"train_lmdb"', '"/dev/zero"').replace("mean_value: 104", "")
    net = net.replace("mean_value: 117 mean_value: 123", 'mean_file: "/dev/zero"')
    found = {each.rule: each for each in run(net).findings}
    assert "net-missing" not in found
    assert "not a file" in found["data-unreadable"].what
    fed = net.replace("ImageData", "HDF5Data").replace("image_data_param", "hdf5_data_param")
    fed = fed.replace("/dev/zero", "other.prototxt")
    assert "data-unreadable" in rules_of(run(fed))
    solver = SOLVER.replace('"net.prototxt"', '"/dev/zero"')
    assert "net-missing" in rules_of(run(solver=solver))


@pytest.mark.slow
def test_weights_to_start_from(run, tmp_path):
    net = messages.NetParameter(name="w")
    for name, dims in (("conv1", (8, 3, 3, 3)), ("conv2", (8, 8, 3, 3)), ("fc", (1000, 8))):
        net.layer.add(name=name, type="x").blobs.add().shape.dim.extend(dims)
    write_binary(tmp_path / "w.caffemodel", net)
    bare = plain().replace('weight_filler { type: "msra" }', "")
    report = run(bare, options=CheckOptions(weights=tmp_path / "w.caffemodel"))
    assert {rule for rule, _ in above_a_note(report)} == {"weights-shape"}
    with pytest.raises(FormatError):
        run(options=CheckOptions(weights=Path("net.prototxt")))


# ---------------------------------------------------------------------------------------------
# Bad input

BAD = {
    "empty": ("", "neither a solver nor a net"),
    "words": ("dear reader", None),
    "other": ('foo: "bar"', "neither a solver nor a net"),
    "torn": ('name: "x" layer { name: "y"', "1:"),
    "type": ('layer { name: "x" top: 5 }', "1:"),
    "required": (
        'layer { name: "y" }\nlayer { name: "x" type: "Clip" clip_param { max: 1 } }',
        "x.prototxt:2: required fields are missing: layer[1].clip_param.min",
    ),
    "number": ("base_lr: 0.1.2", "1:"),
    "string": ('net: "x', "1:"),
    "nul": ("net: \0", "binary"),
    "only braces": ("}" * 1000, None),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_error(name, tmp_path):
    text, words = BAD[name]
    (tmp_path / "x.prototxt").write_text(text)
    with pytest.raises(FormatError) as caught:
        check(tmp_path / "x.prototxt")
    assert words is None or words in caught.value.message
    assert "x.prototxt" in caught.value.message


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "layer { a " * 200_000,
        "layer " + "{ foo " * 200_000 + "}" * 200_000,
        "name: 'x' foo { " + "a: 1 " * 200_000 + "}",
        "name: 'x' foo: [" + "1, " * 100_000 + "1]",
        "layer { name: '" + "x" * 1_000_000 + "' }",
        "a" * 1_000_000 + ": 1 layer { }",
    ],
)
def test_megabytes_of_nonsense_are_quick(text, tmp_path):
    (tmp_path / "x.prototxt").write_text(text)
    try:
        said = str(above_a_note(check(tmp_path / "x.prototxt")))
    except Irv2CaffeError as error:
        said = str(error)
    assert 0 < len(said) < 4000


@pytest.mark.parametrize(
    "path", sorted(templates_dir().glob("*/*.prototxt")), ids=lambda path: path.parent.name
)
def test_lines_are_those_that_another_reader_finds(path):
    text = path.read_text()
    lines = [node.line for node in scan(text).all("layer")]
    assert lines == layer_lines(text)
    old = foreign_runs.vgg()
    assert [node.line for node in scan(old).all("layers")] == layer_lines(old)


def test_unknown_fields_leave_the_rest_as_it_was():
    text = 'name: "a" foo: [1, 2], bar { x: "}" } layer { name: "b" baz: -1; top: "c" }'
    root = scan(text)
    unknown = list(unknown_fields(root, messages.NetParameter.DESCRIPTOR))
    assert [each.name for each in unknown] == ["foo", "foo", "bar", "baz"]
    left = blank_out(text, (each.node for each in unknown))
    assert len(left) == len(text)
    assert left.split() == ["name:", '"a"', "layer", "{", "name:", '"b"', "top:", '"c"', "}"]


def test_forks_are_named(run):
    net = plain().replace("pad: 1", "pad: 1 cudnn_math_override: 0") + (
        'layer { name: "p" type: "Permute" bottom: "fc" top: "p" permute_param { order: 0 } }\n'
    )
    solver = SOLVER + "rampup_lr: 0.1\n"
    report = run(net, solver)
    whats = [each.what for each in report.findings if each.rule.startswith("unknown")]
    assert any("'rampup_lr'; NVCaffe has it" in what for what in whats)
    assert any("'cudnn_math_override'; NVCaffe has it" in what for what in whats)
    assert any("'permute_param'; weiliu89/caffe (SSD) has it" in what for what in whats)
    assert any("layer type 'Permute'; weiliu89/caffe (SSD) has it" in what for what in whats)
    whats = [each.what for each in run(net, solver, CheckOptions(flavor="nvcaffe")).findings]
    assert not any("NVCaffe has it" in what for what in whats)


TEXTS = [plain(), tf(64), foreign_runs.vgg(), foreign_runs.segmentation(), SOLVER]
JUNK = st.sampled_from(
    [
        "",
        "{",
        "}",
        '"',
        ":",
        "nan",
        "inf",
        "-1",
        "0",
        "1e38",
        "99999999999999999999",
        "TRAIN",
        "layer",
        "\\",
        "\0",
        "é",
        "use_global_stats: false",
        "include { phase: TEST } exclude { phase: TRAIN }",
        "param { lr_mult: nan }",
        'bottom: "data"',
        'top: "data"',
        "input: 'x' input_dim: 1",
        "pooling_param { pool: MEDIAN ceil_mode: false }",
        'type: "Softmax"',
        "type: CROP",
        "engine: MKL2017",
        "clip_param { max: 1 }",
        'include { stage: "a" } ',
        "lr_mult: 0",
        "weight_filler { }",
        'net_param { layer { type: "X" hole: 2 } }',
    ]
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=st.sampled_from(TEXTS),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), JUNK), max_size=6),
)
def test_no_change_of_a_file_makes_check_crash(tmp_path_factory, text, edits):
    """Errors of ours are fine, anything else is not."""
    for place, length, junk in edits:
        at = int(place * len(text))
        text = text[:at] + junk + text[at + length :]
    folder = tmp_path_factory.mktemp("mutant")
    (folder / "net.prototxt").write_text(plain() if "base_lr" in text else text)
    (folder / "x.prototxt").write_text(text)
    options = CheckOptions(num_gpus=3, epochs=2, lr_decay_epochs=1, num_train=100, num_val=10)
    with contextlib.suppress(FormatError):
        check(folder / "x.prototxt", options)


WORD = st.sampled_from(
    ["true", "false", "0", "1", "-1", "3", "1000000", "nan", "0.5", '"x"', '"step"', "TRAIN", "MAX"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=st.sampled_from(TEXTS),
    edits=st.lists(st.tuples(st.integers(0, 10_000), WORD), min_size=1, max_size=8),
)
def test_no_other_value_makes_check_crash(tmp_path_factory, text, edits):
    """Values are exchanged one for another, so that most files still parse."""
    import re

    values = [match.span(1) for match in re.finditer(r': ("[^"]*"|[\w.-]+)', text)]
    chosen = {index % len(values): word for index, word in edits}
    for index in sorted(chosen, reverse=True):
        start, end = values[index]
        text = text[:start] + chosen[index] + text[end:]
    folder = tmp_path_factory.mktemp("mutant")
    (folder / "net.prototxt").write_text(plain() if "base_lr" in text else text)
    (folder / "x.prototxt").write_text(text)
    with contextlib.suppress(FormatError):
        check(folder / "x.prototxt", CheckOptions(num_gpus=2, epochs=2, num_train=100))


# ---------------------------------------------------------------------------------------------
# The command


command = partial(program.run, "check")


@pytest.fixture
def seedlike(tmp_path):
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "net.prototxt").write_text(plain().replace("eps: 0.001 }", FLAG.format("false")))
    (tmp_path / "solver.prototxt").write_text(SOLVER.replace("weight_decay: 0.0001\n", ""))
    return tmp_path


def test_the_report(seedlike):
    done = command("solver.prototxt", cwd=seedlike)
    assert done.returncode == EXIT_FINDINGS, done.stderr
    assert done.stderr == ""
    blocks = done.stdout.split("\n\n")
    assert blocks[0].startswith("effective batch 16 = ")
    assert "error: use_global_stats: false reaches the TEST phase  [bn-batch" in blocks[1]
    assert "  at  conv1/bn (net.prototxt:" in blocks[1]
    assert "warning: weight_decay is unset" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("solver.prototxt, net.prototxt: 2 errors, 1 ")
    severities = [line.split(":")[0] for line in done.stdout.splitlines() if line[:1] in "ewn"]
    order = [word for word in severities if word in {"error", "warning", "note"}]
    assert order == sorted(order, key=["error", "warning", "note"].index)


def test_the_report_as_json(seedlike):
    done = command("solver.prototxt", "--json", cwd=seedlike)
    assert done.returncode == EXIT_FINDINGS
    report = json.loads(done.stdout)
    assert report["kind"] == "solver"
    assert report["counts"]["error"] == 2
    worst = report["findings"][0]
    assert worst["rule"] == "bn-batch-stats-in-test"
    assert [place["layer"] for place in worst["places"]] == ["conv1/bn", "conv2/bn"]
    assert {"what", "why", "source", "fix", "severity"} <= set(worst)


@pytest.mark.slow
def test_what_is_left_out_and_what_fails(seedlike):
    left = ("--ignore", "bn-batch-stats-in-test", "--ignore", "bn-test-batch")
    done = command("solver.prototxt", *left, "--show", "warning", cwd=seedlike)
    assert done.returncode == EXIT_FINDINGS
    assert "note:" not in done.stdout
    assert "bn-batch" not in done.stdout
    assert command("solver.prototxt", *left, "--fail-on", "error", cwd=seedlike).returncode == 0
    done = command("solver.prototxt", "--ignore", "weight_decay", cwd=seedlike)
    assert done.returncode == 2
    assert "did you mean weight-decay" in done.stderr
    bad = (["--gpus", "0,0"], ["--epochs", "-1"], ["--epochs", "nan"], ["--num-train-images", "0"])
    for args in bad:
        assert command("solver.prototxt", *args, cwd=seedlike).returncode == 2


def test_the_list_of_rules(tmp_path):
    done = command("--list-rules", cwd=tmp_path)
    assert done.returncode == 0
    assert "bn-batch-stats-in-test" in done.stdout
    rows = json.loads(command("--list-rules", "--json", cwd=tmp_path).stdout)
    assert len(rows) > 80
    assert all(row["summary"].endswith(".") and row["source"] for row in rows)


@pytest.mark.parametrize("name", ["n" * 5000, "a/" * 3000])
def test_names_that_no_file_can_have(name, tmp_path):
    """Longer than the system takes them: nothing is there, whoever asks."""
    path = tmp_path / "solver.prototxt"
    for line in (f'net: "{name}"', f'net: "x" snapshot_prefix: "{name}"'):
        path.write_text(f'{line} base_lr: 1 lr_policy: "fixed" max_iter: 1')
        assert "net-missing" in {each.rule for each in check(path).findings}
        problems = []
        read_job(path, problems)
        assert "does not exist" in problems[0].message
    with pytest.raises(FormatError, match="File name too long"):
        check(tmp_path / name)
