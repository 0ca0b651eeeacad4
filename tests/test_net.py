"""The network against published counts and the real Caffe; golden files; the solver's sums."""

from __future__ import annotations

import json
import subprocess

import pytest

from irv2caffe.caffe.command import tool_command
from irv2caffe.config import (
    NetOptions,
    SolverOptions,
    load_recipe,
    recipe_names,
    resolve,
    templates_dir,
)
from irv2caffe.errors import FormatError, OutputExistsError, UsageError
from irv2caffe.net.build import build_net
from irv2caffe.net.inception_resnet_v2 import check_crop, deploy, train_val
from irv2caffe.net.solver import plan_schedule
from irv2caffe.net.spec import NetSpec, Top
from irv2caffe.proto import messages
from irv2caffe.proto.text import format_prototxt, read_prototxt, write_prototxt

COUNT = """
import caffe, json, sys
net = caffe.Net(sys.argv[1], caffe.TEST)
kinds = [layer.type for layer in net.layers]
params = {n: [list(b.shape) for b in p] for n, p in net.params.items()}
learned = sum(
    b.data.size for n, p in net.params.items() if net.layer_dict[n].type != 'BatchNorm' for b in p
)
blobs = {n: list(b.data.shape) for n, b in net.blobs.items()}
macs = 0
for name, layer in net.layer_dict.items():
    if layer.type == 'Convolution':
        top = net.top_names[name][0]
        macs += net.params[name][0].data.size * blobs[top][2] * blobs[top][3]
    elif layer.type == 'InnerProduct':
        macs += net.params[name][0].data.size
convs = kinds.count('Convolution')
print(json.dumps({'learned': learned, 'blobs': blobs, 'macs': macs, 'convs': convs}))
"""


def real_shapes(caffe, folder, options):
    """What the real Caffe makes of a net."""
    write_prototxt(folder / "deploy.prototxt", deploy(options))
    command = tool_command(caffe, "python", ["-c", COUNT, str(folder / "deploy.prototxt")])
    env = {**command.env, "GLOG_minloglevel": "2"}
    done = subprocess.run(command.argv, env=env, capture_output=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("trunk", "residual_bn", "parameters", "gmac"),
    [
        (2144, False, 32_433_928, 9.258),
        (2048, False, 31_550_760, 9.191),
        (2144, True, 32_458_088, 9.258),
    ],
)
def test_paper_net_has_the_published_size(caffe, tmp_path, trunk, residual_bn, parameters, gmac):
    """Counts of arXiv 1602.07261's schema at 299 pixels and 1000 classes, computed elsewhere."""
    options = NetOptions(trunk=trunk, residual_bn=residual_bn)
    net = real_shapes(caffe, tmp_path, options)
    assert net["learned"] == parameters
    assert net["convs"] == 132
    assert round(net["macs"] / 1e9, 3) == gmac
    assert net["blobs"]["stem6"] == [1, 384, 35, 35]
    assert net["blobs"]["a5"] == [1, 384, 35, 35]
    assert net["blobs"]["b10"] == [1, 1152, 17, 17]
    assert net["blobs"]["c5"] == [1, trunk, 8, 8]
    assert net["blobs"]["prob"] == [1, 1000]


@pytest.mark.parametrize("crop", [75, 76, 107, 139, 299, 331])
def test_good_crops_load_in_the_real_caffe(caffe, tmp_path, crop):
    options = NetOptions(crop=crop, width=0.1, num_classes=3)
    net = real_shapes(caffe, tmp_path, options)
    assert net["blobs"]["prob"] == [1, 3]


@pytest.mark.parametrize("crop", [43, 74, 77, 224, 256, 301, 320])
def test_bad_crops_are_refused_and_good_ones_named(crop):
    with pytest.raises(UsageError, match=f"crop {crop}") as caught:
        check_crop(crop)
    named = [int(word) for word in caught.value.hint.replace(",", " ").split() if word.isdecimal()]
    assert any(size % 32 in {11, 12} and size >= 75 for size in named)


def test_a_refused_crop_really_aborts(caffe, tmp_path, monkeypatch):
    monkeypatch.setattr("irv2caffe.net.inception_resnet_v2.check_crop", lambda crop: None)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        real_shapes(caffe, tmp_path, NetOptions(crop=224, width=0.1))
    assert b"Check failed: " in caught.value.stderr


def layers_of(options=None):
    return list(train_val(options or NetOptions(), 50).layer)


def test_residuals_are_scaled_and_rectified():
    layers = layers_of(NetOptions(residual_scale=(0.17, 0.10, 0.20)))
    sums = [layer for layer in layers if layer.type == "Eltwise"]
    scales = [round(layer.eltwise_param.coeff[1], 6) for layer in sums]
    assert scales == [0.17] * 5 + [0.10] * 10 + [0.20] * 5
    assert all(layer.eltwise_param.coeff[0] == 1 for layer in sums)
    rectified = {layer.bottom[0] for layer in layers if layer.type == "ReLU"}
    assert {layer.top[0] for layer in sums} <= rectified
    unscaled = layers_of(NetOptions(residual_scale=None))
    assert not any(layer.eltwise_param.coeff for layer in unscaled if layer.type == "Eltwise")


def test_batch_norm_is_right_in_both_phases():
    """Frozen against the solver, TensorFlow's epsilon, statistics left to the phase."""
    norms = [layer for layer in layers_of() if layer.type == "BatchNorm"]
    assert len(norms) == 112
    for layer in norms:
        assert [(spec.lr_mult, spec.decay_mult) for spec in layer.param] == [(0, 0)] * 3
        assert layer.batch_norm_param.eps == pytest.approx(0.001)
        assert not layer.batch_norm_param.HasField("use_global_stats")


def test_nothing_is_left_to_dangerous_defaults():
    for layer in layers_of():
        if layer.type == "Convolution":
            assert layer.convolution_param.weight_filler.type == "xavier"
        if layer.type == "Data":
            assert layer.data_param.backend == messages.DataParameter.LMDB
        for field, value in layer.ListFields():
            assert field.full_name not in messages.AFTER_TAG_1_0
            if field.message_type is not None and not field.is_repeated:
                names = {inner.full_name for inner, _ in value.ListFields()}
                assert not names & messages.AFTER_TAG_1_0


def test_top_5_needs_more_than_five_classes():
    names = {layer.name for layer in layers_of(NetOptions(num_classes=5))}
    assert "accuracy_top1" in names
    assert "accuracy_top5" not in names


COMMAND = "irv2caffe build-net --out net --recipe {}"


@pytest.mark.parametrize("recipe", ["paper", "paper-sgd"])
def test_golden_files(tmp_path, monkeypatch, recipe):
    """The generated text, byte by byte; scripts/golden writes these files anew."""
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    values = load_recipe(recipe)
    build_net(
        Path("net"),
        resolve(NetOptions, values, {}).options,
        resolve(SolverOptions, values, {}).options,
        num_train=1_281_167,
        num_val=50_000,
        num_gpus=2,
        command=COMMAND.format(recipe) + " --gpus 0,1",
    )
    for name in ("train_val.prototxt", "deploy.prototxt", "solver.prototxt"):
        golden = templates_dir() / recipe / name
        assert (tmp_path / "net" / name).read_bytes() == golden.read_bytes(), golden


def test_build_net_is_deterministic_and_refuses_to_overwrite(tmp_path):
    def build(**options):
        return build_net(
            tmp_path, NetOptions(), SolverOptions(), num_train=1000, num_val=100, **options
        )

    built = build()
    before = built.train_val.read_bytes()
    with pytest.raises(OutputExistsError):
        build()
    build(force=True)
    assert built.train_val.read_bytes() == before
    assert read_prototxt(built.solver, messages.SolverParameter).type == "RMSProp"


def test_schedule_of_the_original_run():
    """Batch 16 on two GPUs with iter_size 2 on ILSVRC12: computed by hand."""
    options = SolverOptions(iter_size=2)
    schedule = plan_schedule(
        options, num_train=1_281_167, num_val=50_000, batch_size=16, num_gpus=2
    )
    assert schedule.effective_batch == 64
    assert schedule.test_interval == 20_018  # 1281167 / 64 = 20018.2
    assert schedule.stepsize == 40_036
    assert schedule.max_iter == 120 * 20_018
    assert schedule.snapshot == 10 * 20_018
    assert schedule.test_iter * schedule.test_batch_size == 50_000
    assert schedule.epochs == pytest.approx(120, abs=0.01)


def test_a_test_batch_must_divide_the_validation_set():
    options = SolverOptions()
    for num_val in (50_000, 997, 1000, 1):
        schedule = plan_schedule(options, num_train=1000, num_val=num_val, batch_size=10)
        assert schedule.test_iter * schedule.test_batch_size == num_val
    with pytest.raises(UsageError, match="does not divide") as caught:
        plan_schedule(options, num_train=1000, num_val=1000, batch_size=10, test_batch_size=33)
    assert "25, 40" in caught.value.hint or "40" in caught.value.hint
    with pytest.raises(UsageError, match="more than the 5"):
        plan_schedule(options, num_train=5, num_val=10, batch_size=10)


def test_clipping_counts_the_summed_batches(tmp_path):
    built = build_net(
        tmp_path,
        NetOptions(),
        SolverOptions(clip_gradients=10.0, iter_size=4),
        num_train=1000,
        num_val=100,
    )
    assert read_prototxt(built.solver, messages.SolverParameter).clip_gradients == 40


def test_spec_refuses_what_caffe_would_refuse():
    net = NetSpec("n")
    data = net.layer("Input", "data", channels=3, shape=[{"dim": [1, 3, 8, 8]}])
    with pytest.raises(UsageError, match="no layer type 'Convolutoin'") as caught:
        net.layer("Convolutoin", "c", data, channels=1)
    assert "Convolution" in caught.value.hint
    with pytest.raises(UsageError, match="no field 'num_outputs'") as caught:
        net.layer("Convolution", "c1", data, channels=1, num_outputs=3)
    assert "num_output" in caught.value.hint
    with pytest.raises(UsageError, match="no layer produced"):
        net.layer("ReLU", "r", Top("elsewhere", 3), channels=3)
    with pytest.raises(UsageError, match="two layers are called 'data'"):
        net.layer("ReLU", "data", data, channels=3)
    with pytest.raises(UsageError, match="later than Caffe"):
        net.layer("Pooling", "p", data, channels=3, round_mode="FLOOR")
    with pytest.raises(UsageError, match="cannot be 'MEDIAN'"):
        net.layer("Pooling", "p2", data, channels=3, pool="MEDIAN")
    net.layer("Accuracy", "only_in_test", data, data, channels=1, phase="TEST")
    with pytest.raises(UsageError, match="no layer produced"):
        net.layer("ReLU", "everywhere", Top("only_in_test", 1), channels=1)


def test_told_wins_over_recipe_over_default():
    assert {"paper", "paper-sgd"} <= set(recipe_names())
    resolved = resolve(SolverOptions, load_recipe("paper-sgd"), {"base_lr": 0.1})
    assert (resolved.options.base_lr, resolved.options.momentum) == (0.1, 0.9)
    assert resolved.sources["base_lr"] == "command line"
    assert resolved.sources["momentum"] == "recipe paper-sgd"
    assert resolved.sources["random_seed"] == "default"
    with pytest.raises(UsageError, match="no momentum"):
        resolve(SolverOptions, load_recipe("paper"), {"momentum": 0.9})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[solver]\nbase_rl = 1.0\n", "unknown key 'base_rl'"),
        ("[solver]\nbase_lr = 'high'\n", "is not a float"),
        ("[solvers]\n", "unknown table"),
        ("base_lr 1", "not TOML"),
    ],
)
def test_bad_recipes(tmp_path, text, words):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(FormatError, match=words):
        load_recipe(str(tmp_path / "mine.toml"))


def test_text_is_read_by_the_real_caffe(caffe, tmp_path):
    """A whole train_val net of full width passes the real parser."""
    write_prototxt(tmp_path / "net.prototxt", train_val(NetOptions(), 50))
    code = (
        "import sys, caffe.proto.caffe_pb2 as p; from google.protobuf import text_format as t\n"
        "print(len(t.Parse(open(sys.argv[1]).read(), p.NetParameter()).layer))"
    )
    command = tool_command(caffe, "python", ["-c", code, str(tmp_path / "net.prototxt")])
    done = subprocess.run(command.argv, env=command.env, capture_output=True, check=True)
    assert int(done.stdout) == len(layers_of())
    assert "round_mode" not in format_prototxt(train_val(NetOptions(), 50))
