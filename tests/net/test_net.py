"""The networks against published counts and the real Caffe; golden files."""

from __future__ import annotations

import json
import subprocess
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irv2caffe.caffe.command import tool_command
from irv2caffe.config import (
    VARIANTS,
    SolverOptions,
    load_recipe,
    net_options,
    recipe_names,
    templates_dir,
)
from irv2caffe.errors import OutputExistsError, UsageError
from irv2caffe.net.build import build_net
from irv2caffe.net.inception_resnet_v2 import deploy, train_val
from irv2caffe.net.infogain import write_infogain
from irv2caffe.net.input_sizes import check_crop, grids
from irv2caffe.net.spec import NetSpec, Top
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array, write_binary
from irv2caffe.proto.text import format_prototxt, read_prototxt, write_prototxt
from irv2caffe.shapes.infer import infer

if TYPE_CHECKING:
    from irv2caffe.shapes.phases import Phase


def learned(net):
    """Parameters that the solver moves; BatchNorm's statistics are none."""
    sizes = {
        name: sum(int(np.prod(shape)) for shape in shapes)
        for name, shapes in net["params"].items()
        if net["types"][name] != "BatchNorm"
    }
    return sum(sizes.values())


def multiply_adds(net):
    """Of convolutions and inner products, for one image."""
    total = 0
    for name, shapes in net["params"].items():
        size = int(np.prod(shapes[0]))
        if net["types"][name] == "Convolution":
            total += size * int(np.prod(net["blobs"][net["tops"][name][0]][2:]))
        elif net["types"][name] == "InnerProduct":
            total += size
    return total


def load_deploy(pycaffe, folder, options):
    write_prototxt(folder / "deploy.prototxt", deploy(options))
    return pycaffe.load(folder / "deploy.prototxt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("told", "convolutions", "parameters", "gmac"),
    [
        ({}, 244, 55_843_464, 13.156),
        ({"average_pool": "caffe"}, 244, 55_843_464, 13.156),
        ({"num_classes": 1001}, 244, 55_845_001, 13.156),
        ({"variant": "paper"}, 132, 32_433_928, 9.258),
        ({"variant": "paper", "trunk": 2048}, 132, 31_550_760, 9.191),
        ({"variant": "paper", "residual_bn": True}, 132, 32_458_088, 9.258),
        ({"variant": "paper", "trunk": 2048, "residual_bn": True}, 132, 31_574_440, 9.191),
        ({"variant": "seed"}, 132, 31_614_424, 9.191),
        ({"variant": "small75"}, 87, 6_587_400, 1.323),  # our own; docs/guide/networks.md says so
        ({"variant": "small32"}, 87, 6_587_736, 1.030),
    ],
)
def test_nets_have_the_published_size(pycaffe, tmp_path, told, convolutions, parameters, gmac):
    """At 299 pixels: slim's counts are timm's, the paper's were computed from its figures."""
    net = load_deploy(pycaffe, tmp_path, net_options(**told))
    assert learned(net) == parameters
    assert list(net["types"].values()).count("Convolution") == convolutions
    assert round(multiply_adds(net) / 1e9, 3) == gmac


@pytest.mark.slow
def test_slim_has_the_published_grids(pycaffe, tmp_path):
    blobs = load_deploy(pycaffe, tmp_path, net_options())["blobs"]
    expected = {
        "Conv2d_1a_3x3": [32, 149, 149],
        "Conv2d_2a_3x3": [32, 147, 147],
        "Conv2d_2b_3x3": [64, 147, 147],
        "MaxPool_3a_3x3": [64, 73, 73],
        "Conv2d_3b_1x1": [80, 73, 73],
        "Conv2d_4a_3x3": [192, 71, 71],
        "MaxPool_5a_3x3": [192, 35, 35],
        "Mixed_5b": [320, 35, 35],
        "Repeat/block35_10": [320, 35, 35],
        "Mixed_6a": [1088, 17, 17],
        "Repeat_1/block17_20": [1088, 17, 17],
        "Mixed_7a": [2080, 8, 8],
        "Block8": [2080, 8, 8],
        "Conv2d_7b_1x1": [1536, 8, 8],
    }
    assert {name: blobs[name][1:] for name in expected} == expected


@pytest.mark.parametrize("trunk", [2144, 2048])
def test_paper_has_the_published_grids(pycaffe, tmp_path, trunk):
    blobs = load_deploy(pycaffe, tmp_path, net_options(variant="paper", trunk=trunk))["blobs"]
    assert blobs["stem4"][1:] == [160, 73, 73]
    assert blobs["stem5"][1:] == [192, 71, 71]
    assert blobs["a5"][1:] == [384, 35, 35]
    assert blobs["b10"][1:] == [1152, 17, 17]
    assert blobs["c5"][1:] == [trunk, 8, 8]


MATRIX = [
    *({"variant": name} for name in VARIANTS),
    {"variant": "slim", "aux": True, "label_smoothing": 0.1},
    {"variant": "slim", "average_pool": "caffe", "gamma": False, "filler": "msra"},
    {"variant": "slim", "residual_scale": None, "residual_bn": True, "dropout": 0.0},
    {"variant": "slim", "crop": 329, "num_classes": 3},
    {"variant": "slim", "crop": 107, "aux": True, "width": 0.05},
    {"variant": "slim", "crop": 331, "mean_file": "mean.binaryproto"},
    {"variant": "paper", "trunk": 2048, "aux": True, "residual_bn": True, "mirror": False},
    {"variant": "paper", "crop": 75, "label_smoothing": 0.2, "num_classes": 11},
    {"variant": "paper", "flavor": "nvcaffe", "filler": "xavier", "scale": 1.0},
    {"variant": "seed", "crop": 139, "num_classes": 10},
    {"variant": "small75", "aux": True, "gamma": False},
    {"variant": "small75", "crop": 84, "average_pool": "caffe"},
    {"variant": "small32", "label_smoothing": 0.1, "residual_scale": None},
    {"variant": "small32", "crop": 28, "num_classes": 2},
]


def write_both(folder, database, told):
    """The net of two phases, small and on the noise database, and the net for use."""
    options = net_options(
        **{"width": 0.1, "batch_size": 2, **told}, train_lmdb=str(database), val_lmdb=str(database)
    )
    check_crop(options)
    if options.label_smoothing:
        write_infogain(folder / "h.binaryproto", options.num_classes, options.label_smoothing)
    both, use = folder / "train_val.prototxt", folder / "deploy.prototxt"
    write_prototxt(both, train_val(options, 2, infogain=str(folder / "h.binaryproto")))
    write_prototxt(use, deploy(options))
    return options, both, use


@pytest.mark.slow
@pytest.mark.parametrize("told", MATRIX, ids=str)
def test_every_variant_and_option_loads_in_both_phases(
    caffe, pycaffe, noise_lmdb, tmp_path, monkeypatch, told
):
    if "mean_file" in told:
        path = tmp_path / "mean.binaryproto"
        command = tool_command(caffe, "compute_image_mean", [str(noise_lmdb), str(path)])
        subprocess.run(command.argv, env=command.env, capture_output=True, check=True)
        told = {**told, "mean_file": str(path)}
    options, both, use = write_both(tmp_path, noise_lmdb, told)
    expected = grids(options)
    phase: Phase
    for path, phase in ((both, "TRAIN"), (both, "TEST"), (use, "TEST")):
        net = pycaffe.load(path, phase)
        parsed = read_prototxt(path, messages.NetParameter)
        shapes = infer(parsed, phase)
        ours = {name: list(shape) for name, shape in shapes.blobs.items()}
        real = {name: shape for name, shape in net["blobs"].items() if "_split_" not in name}
        assert {name: ours[name] for name in real} == real
        params = {info.name: [list(s) for s in info.params] for info in shapes.layers}
        assert {name: params[name] for name in net["params"]} == net["params"]
        features = "c5" if options.variant in {"paper", "seed"} else "Conv2d_7b_1x1"
        grid17 = "b10" if options.variant in {"paper", "seed"} else "Repeat_1/block17_1"
        assert net["blobs"][features][2:] == [expected.grid8] * 2
        assert net["blobs"][grid17][2:] == [expected.grid17] * 2
        assert net["blobs"]["classifier"][1] == options.num_classes
        assert ("aux_loss" in net["blobs"]) == (options.aux and phase == "TRAIN")
        assert ("accuracy_top1" in net["blobs"]) == (path == both and phase == "TEST")
        if options.label_smoothing and path == both:
            expected_loss = "InfogainLoss" if phase == "TRAIN" else "SoftmaxWithLoss"
            assert net["types"]["loss"] == expected_loss


TRAIN_THREE = """
import caffe, json, sys, numpy as np
caffe.set_random_seed(1)
solver = caffe.get_solver(sys.argv[1])
losses, untouched = [], None
for _ in range(3):
    solver.step(1)
    losses.append(float(solver.net.blobs['loss'].data))
    flat = {n + '/%d' % i for n, p in solver.net.params.items() for i, b in enumerate(p)
            if not np.any(b.diff) and solver.net.layer_dict[n].type != 'BatchNorm'}
    untouched = flat if untouched is None else untouched & flat
solver.test_nets[0].share_with(solver.net)
solver.test_nets[0].forward()
losses.append(float(solver.test_nets[0].blobs['loss'].data))
stats = [b.data.sum() for n, p in solver.net.params.items() for b in p
         if solver.net.layer_dict[n].type == 'BatchNorm']
print(json.dumps([losses, sorted(untouched), all(s != 0 for s in stats)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "told",
    [
        {"variant": "slim", "crop": 107, "aux": True, "label_smoothing": 0.1},
        {"variant": "slim", "crop": 75, "average_pool": "caffe", "residual_bn": True},
        {"variant": "paper", "crop": 75},
        {"variant": "seed", "crop": 75},
        {"variant": "small75"},
        {"variant": "small32"},
    ],
    ids=lambda told: "-".join(map(str, told.values())),
)
def test_iterations_give_every_parameter_a_gradient(caffe, noise_lmdb, tmp_path, told):
    _, both, _ = write_both(
        tmp_path, noise_lmdb, {"batch_size": 4, "num_classes": 2, "width": 0.15, **told}
    )
    solver = messages.SolverParameter(
        net=str(both), test_iter=[1], test_interval=100, test_initialization=False, max_iter=3,
        base_lr=1e-3, lr_policy="fixed", random_seed=1, snapshot_after_train=False,
        solver_mode=messages.SolverParameter.CPU,
    )  # fmt: skip
    write_prototxt(tmp_path / "solver.prototxt", solver)
    command = tool_command(caffe, "python", ["-c", TRAIN_THREE, str(tmp_path / "solver.prototxt")])
    env = {**command.env, "GLOG_minloglevel": "2"}
    done = subprocess.run(command.argv, env=env, capture_output=True, check=True)
    losses, untouched, has_statistics = json.loads(done.stdout)
    assert np.isfinite(losses).all()
    assert untouched == []
    assert has_statistics


def smoothed_loss(caffe, folder, smoothing, logits, labels):
    """Loss and gradient of InfogainLoss in the real Caffe."""
    num, classes = logits.shape
    write_infogain(folder / "h.binaryproto", classes, smoothing)
    net = NetSpec("n")
    tops = [
        net.layer("Input", "x", channels=classes, shape=[{"dim": [num, classes]}]),
        net.layer("Input", "y", channels=1, shape=[{"dim": [num]}]),
    ]
    source = str(folder / "h.binaryproto")
    net.layer("InfogainLoss", "loss", *tops, channels=1, loss_weight=[1.0], source=source)
    proto = net.to_proto()
    proto.force_backward = True
    write_prototxt(folder / "net.prototxt", proto)
    np.savez(folder / "in.npz", x=logits, y=labels)
    code = (
        "import caffe, sys, numpy as np\n"
        "net = caffe.Net(sys.argv[1], caffe.TRAIN); d = np.load(sys.argv[2])\n"
        "net.blobs['x'].data[...] = d['x']; net.blobs['y'].data[...] = d['y']\n"
        "net.forward(); net.backward()\n"
        "np.savez(sys.argv[3], loss=net.blobs['loss'].data, grad=net.blobs['x'].diff)"
    )
    paths = [str(folder / name) for name in ("net.prototxt", "in.npz", "out.npz")]
    command = tool_command(caffe, "python", ["-c", code, *paths])
    subprocess.run(command.argv, env=command.env, capture_output=True, check=True)
    return np.load(folder / "out.npz")


@pytest.mark.slow
def test_label_smoothing_is_the_cross_entropy_against_smoothed_targets(caffe, tmp_path):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (6, 7)).astype("f4")
    labels = rng.integers(0, 7, 6)
    target = np.full((6, 7), 0.1 / 7)
    target[np.arange(6), labels] += 0.9
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    got = smoothed_loss(caffe, tmp_path, 0.1, logits, labels)
    assert float(got["loss"]) == pytest.approx(-(target * log_p).sum() / 6, rel=1e-5)
    assert np.allclose(got["grad"], (np.exp(log_p) - target) / 6, atol=1e-6)


def test_the_matrix_of_label_smoothing_is_a_plain_blob_written_row_by_row(tmp_path):
    """The bytes are protobuf's own; many classes take no more memory than a row of them."""
    path = tmp_path / "h.binaryproto"
    write_infogain(path, 7, 0.1)
    matrix = np.full((1, 1, 7, 7), 0.1 / 7, "f4")
    matrix[0, 0] += np.eye(7, dtype="f4") * np.float32(0.9)
    write_binary(tmp_path / "plain", blob_from_array(matrix))
    assert path.read_bytes() == (tmp_path / "plain").read_bytes()
    tracemalloc.start()
    try:
        write_infogain(path, 2000, 0.1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 16_000_000
    assert peak < 1_000_000


CROPS = {
    "slim": ([75, 107, 139, 299, 300, 331], [43, 64, 224, 256, 303, 320]),
    "paper": ([75, 76, 107, 139, 299, 331], [43, 74, 77, 224, 256, 301, 320, 328]),
    "small75": ([20, 75, 76, 83], [22, 72, 79]),
    "small32": ([28, 32, 36], [4, 30, 31, 33]),
}


@pytest.mark.parametrize("variant", CROPS)
def test_bad_crops_are_refused_and_good_ones_named(variant):
    good, bad = CROPS[variant]
    for crop in good:
        assert check_crop(net_options(variant=variant, crop=crop)).rounded_up == ()
    for crop in bad:
        with pytest.raises(UsageError, match=f"--crop {crop}: ") as caught:
            check_crop(net_options(variant=variant, crop=crop))
        words = caught.value.hint.replace(",", " ").split()
        named = [int(word) for word in words if word.isdecimal()]
        assert named
        for size in named:
            assert check_crop(net_options(variant=variant, crop=size)).rounded_up == ()


def test_other_grids_than_tensorflows_are_a_warning(tmp_path):
    """Slim at 328 runs in Caffe on grids 39, 19, 9 where TensorFlow has 38, 18, 8."""
    options = net_options(crop=328)
    found = check_crop(options)
    assert (found.grid17, found.grid8, found.rounded_up) == (19, 9, ("MaxPool_5a_3x3",))
    built = build_net(tmp_path, options, SolverOptions(), num_train=1000, num_val=100)
    assert "other grids than TensorFlow's" in built.warnings[0]


def test_aux_needs_a_grid_that_its_pool_divides():
    with pytest.raises(UsageError, match="--aux") as caught:
        check_crop(net_options(crop=139, aux=True))
    assert "108 and 203" in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("crop", [224, 320])
def test_a_refused_crop_really_aborts(caffe, tmp_path, monkeypatch, crop):
    """The generator's own check is taken out, and Caffe speaks."""
    from irv2caffe.net import blocks, layers

    def unchecked(b, name, *tops):
        return b.layer("Concat", name, *tops, channels=sum(top.channels for top in tops))

    assert layers.concat is vars(blocks)["concat"]
    monkeypatch.setattr("irv2caffe.net.blocks.concat", unchecked)
    write_prototxt(tmp_path / "deploy.prototxt", deploy(net_options(crop=crop, width=0.1)))
    code = "import caffe, sys; caffe.Net(sys.argv[1], caffe.TEST)"
    command = tool_command(caffe, "python", ["-c", code, str(tmp_path / "deploy.prototxt")])
    done = subprocess.run(command.argv, env=command.env, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"All inputs must have the same shape, except at concat_axis" in done.stderr


def layers_of(**told):
    return list(train_val(net_options(**told), 50).layer)


def coefficients(layers):
    sums = [layer for layer in layers if layer.type == "Eltwise"]
    return [[round(value, 6) for value in layer.eltwise_param.coeff] for layer in sums]


def test_residuals_are_scaled_and_rectified():
    layers = layers_of(variant="paper", residual_scale=(0.17, 0.10, 0.20))
    assert coefficients(layers) == [[1, 0.17]] * 5 + [[1, 0.1]] * 10 + [[1, 0.2]] * 5
    sums = [layer.top[0] for layer in layers if layer.type == "Eltwise"]
    rectified = {layer.bottom[0] for layer in layers if layer.type == "ReLU"}
    assert set(sums) <= rectified
    unscaled = layers_of(variant="paper", residual_scale=None)
    assert coefficients(unscaled) == [[]] * 20


def test_slims_last_block_is_neither_scaled_nor_rectified():
    layers = layers_of()
    assert coefficients(layers) == [[1, 0.17]] * 10 + [[1, 0.1]] * 20 + [[1, 0.2]] * 9 + [[]]
    rectified = {layer.bottom[0] for layer in layers if layer.type == "ReLU"}
    assert "Repeat_2/block8_9" in rectified
    assert "Block8" not in rectified


@pytest.mark.parametrize("variant", ["slim", "paper", "small75", "small32"])
def test_nothing_is_left_to_dangerous_defaults(variant):
    """BatchNorm frozen and left to its phase, fillers set, LMDB named, no field after tag 1.0."""
    layers = layers_of(variant=variant, crop=VARIANTS[variant].defaults.get("crop", 299), aux=False)
    for layer in layers:
        if layer.type == "BatchNorm":
            assert [(spec.lr_mult, spec.decay_mult) for spec in layer.param] == [(0, 0)] * 3
            assert layer.batch_norm_param.eps == pytest.approx(0.001)
            assert not layer.batch_norm_param.HasField("use_global_stats")
        if layer.type == "Convolution":
            assert layer.convolution_param.weight_filler.type == "xavier"
            assert layer.convolution_param.weight_filler.variance_norm == 2  # AVERAGE
        if layer.type == "Data":
            assert layer.data_param.backend == messages.DataParameter.LMDB
        for field, value in layer.ListFields():
            assert field.full_name not in messages.AFTER_TAG_1_0
            if field.message_type is not None and not field.is_repeated:
                names = {inner.full_name for inner, _ in value.ListFields()}
                assert not names & messages.AFTER_TAG_1_0


def test_the_seed_has_the_flaws_of_2016():
    """Facts read off the net that the original run trained."""
    layers = layers_of(variant="seed")
    norms = [layer for layer in layers if layer.type == "BatchNorm"]
    convolutions = [layer for layer in layers if layer.type == "Convolution"]
    assert (len(norms), len(convolutions)) == (132, 132)
    assert [layer.type for layer in layers].count("ReLU") == 112
    assert coefficients(layers) == [[]] * 20
    for layer in norms:
        assert layer.batch_norm_param.HasField("use_global_stats")
        assert not layer.batch_norm_param.use_global_stats
        assert not layer.param
        assert not layer.include
    for layer in convolutions:
        assert layer.convolution_param.bias_term
        assert layer.convolution_param.bias_filler.value == pytest.approx(0.2)
        assert [spec.lr_mult for spec in layer.param] == [1, 2]
    data = next(layer for layer in layers if layer.type == "Data")
    assert list(data.transform_param.mean_value) == [104, 117, 123]
    use = deploy(net_options(variant="seed"))
    assert not any(layer.batch_norm_param.HasField("use_global_stats") for layer in use.layer)


def test_aux_head_is_tf_slims(pycaffe, noise_lmdb, tmp_path):
    """Slim with the head has 59,182,258 trainable parameters at 1001 classes without gamma."""
    options = net_options(aux=True, num_classes=1001, gamma=False, batch_size=1,
                          train_lmdb=str(noise_lmdb), val_lmdb=str(noise_lmdb))  # fmt: skip
    write_prototxt(tmp_path / "net.prototxt", train_val(options, 1))
    net = pycaffe.load(tmp_path / "net.prototxt", "TRAIN")
    gammas = sum(
        shapes[0][0] for name, shapes in net["params"].items() if net["types"][name] == "Scale"
    )
    assert learned(net) - gammas == 59_182_258
    layers = {layer.name: layer for layer in train_val(options, 1).layer}
    assert layers["aux_loss"].loss_weight[0] == pytest.approx(0.4)
    frozen = layers["Conv2d_1a_3x3_scale"].param
    assert [(spec.lr_mult, spec.decay_mult) for spec in frozen] == [(0, 0), (1, 0)]


def test_top_5_needs_more_than_five_classes():
    names = {layer.name for layer in layers_of(num_classes=5)}
    assert "accuracy_top1" in names
    assert "accuracy_top5" not in names


def test_nvcaffes_batch_is_that_of_all_gpus(tmp_path):
    solver = SolverOptions(num_gpus=4)
    sizes = {}
    for flavor in ("bvlc", "nvcaffe"):
        options = net_options(flavor=flavor, batch_size=8)
        built = build_net(tmp_path / flavor, options, solver, num_train=6400, num_val=1200)
        net = read_prototxt(built.train_val, messages.NetParameter)
        sizes[flavor] = net.layer[0].data_param.batch_size
        assert built.schedule.effective_batch == 32
    assert sizes == {"bvlc": 8, "nvcaffe": 32}
    assert built.schedule.test_batch_size % 4 == 0
    assert built.schedule.test_batch_size * built.schedule.test_iter == 1200


def finite(low, high):
    return st.floats(low, high, allow_nan=False)


ANY = st.fixed_dictionaries(
    {"variant": st.sampled_from(["slim", "paper", "seed", "small75", "small32"])},
    optional={
        "num_classes": st.integers(-1, 30),
        "crop": st.integers(0, 180),
        "width": finite(-0.01, 0.2),
        "residual_scale": st.none() | st.tuples(*[finite(-0.1, 1)] * 3),
        "residual_bn": st.booleans(),
        "trunk": st.sampled_from([2048, 2144, 1]),
        "aux": st.booleans(),
        "average_pool": st.sampled_from(["tf", "caffe", "max"]),
        "batch_size": st.integers(0, 3),
        "dropout": finite(-0.1, 1.1),
        "label_smoothing": finite(-0.1, 1.1),
        "bn_fraction": finite(-0.1, 1.1),
        "bn_eps": finite(-0.1, 1.1) | st.just(float("nan")),
        "scale": finite(-0.1, 2) | st.just(float("inf")),
        "gamma": st.booleans(),
        "filler": st.sampled_from(["glorot", "msra", "xavier", "zeros"]),
    },
)


@pytest.mark.slow
def test_random_options_are_refused_here_or_taken_by_caffe(pycaffe, noise_lmdb, tmp_path):
    """Whatever is told: either an error with a message, or a net that loads in both phases."""
    outcomes = {"refused": 0, "loaded": 0}

    @settings(
        max_examples=60, deadline=None, derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(ANY)
    def check(told):
        try:
            _, both, use = write_both(tmp_path, noise_lmdb, told)
        except UsageError as error:
            outcomes["refused"] += bool(error.message)
            return
        for path, phase in ((both, "TRAIN"), (both, "TEST"), (use, "TEST")):
            pycaffe.load(path, phase)
        outcomes["loaded"] += 1

    check()
    assert min(outcomes.values()) >= 5, outcomes


@st.composite
def valid(draw):
    """Options that go together, at crops that their variant can have."""
    variant = draw(st.sampled_from(["slim", "paper", "seed", "small75", "small32"]))
    crops = {"small75": st.sampled_from([75, 76, 83, 91]), "small32": st.sampled_from([28, 32, 40])}
    options = {
        "num_classes": st.integers(2, 30),
        "crop": crops.get(variant, st.sampled_from([75, 76, 107, 108, 139, 171])),
        "width": finite(0.01, 0.2),
        "residual_scale": st.none() | st.tuples(*[finite(0.01, 1)] * 3),
        "residual_bn": st.booleans(),
        "trunk": st.sampled_from([2048, 2144]),
        "average_pool": st.sampled_from(["tf", "caffe"]),
        "batch_size": st.integers(1, 3),
        "dropout": st.just(0.0) | finite(1e-6, 0.9),
        "label_smoothing": st.just(0.0) | finite(1e-6, 0.9),
        "bn_fraction": finite(0.01, 0.999),
        "bn_eps": finite(1e-6, 0.1),
        "scale": finite(0.001, 2),
        "mirror": st.booleans(),
        "gamma": st.booleans(),
        "filler": st.sampled_from(["glorot", "msra", "xavier"]),
        "flavor": st.sampled_from(["bvlc", "nvcaffe"]),
    }
    names = [name for name in options if name not in VARIANTS[variant].fixed]
    chosen = draw(st.sets(st.sampled_from(names)))
    return {"variant": variant, **{name: draw(options[name]) for name in sorted(chosen)}}


@pytest.mark.slow
def test_random_valid_options_load_in_caffe(pycaffe, noise_lmdb, tmp_path):
    @settings(
        max_examples=40, deadline=None, derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(valid())
    def check(told):
        _, both, use = write_both(tmp_path, noise_lmdb, told)
        for path, phase in ((both, "TRAIN"), (both, "TEST"), (use, "TEST")):
            pycaffe.load(path, phase)

    check()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"variant": "resnet"}, "unknown variant"),
        ({"variant": "seed", "residual_scale": (0.1, 0.1, 0.1)}, "does not go with --variant seed"),
        ({"variant": "paper", "average_pool": "tf"}, "does not go with --variant paper"),
        ({"trunk": 2048}, "does not go with --variant slim"),
        ({"scale": float("nan")}, "not a finite number"),
        ({"residual_scale": (0.1, float("inf"), 0.1)}, "not a finite number"),
        ({"label_smoothing": 0.1, "num_classes": 30_000}, "too many for its file"),
        ({"width": 0.0}, "--width"),
    ],
)
def test_contradictory_options_are_refused(told, words):
    with pytest.raises(UsageError, match=words):
        net_options(**told)


GOLDEN = json.loads((templates_dir() / "golden.json").read_text())


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_files(tmp_path, monkeypatch, name):
    """The text that the command of templates/golden.json writes, byte by byte.

    scripts/golden writes these files anew; a change of them belongs into the changelog.
    """
    from irv2caffe.cli.main import run

    monkeypatch.chdir(tmp_path)
    arguments = GOLDEN[name]["command"].split()
    monkeypatch.setattr("sys.argv", arguments)
    assert run(arguments[1:]) == 0
    for file in GOLDEN[name]["files"]:
        golden = templates_dir() / name / file
        assert Path("net", file).read_bytes() == golden.read_bytes(), golden
    assert {path.name for path in (templates_dir() / name).iterdir()} == set(GOLDEN[name]["files"])


def test_every_variant_and_recipe_has_golden_files():
    assert set(GOLDEN) == {*VARIANTS, *recipe_names()}
    for name in recipe_names():
        load_recipe(name)


def test_build_net_is_deterministic_and_refuses_to_overwrite(tmp_path):
    def build(**options):
        told = net_options(label_smoothing=0.1, num_classes=10)
        return build_net(tmp_path, told, SolverOptions(), num_train=1000, num_val=100, **options)

    built = build()
    before = [path.read_bytes() for path in built.files()]
    assert len(before) == 4
    with pytest.raises(OutputExistsError):
        build()
    build(force=True)
    assert [path.read_bytes() for path in built.files()] == before


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


@pytest.mark.slow
def test_text_is_read_by_the_real_caffe(caffe, tmp_path):
    """A whole train_val net of full width passes the real parser."""
    write_prototxt(tmp_path / "net.prototxt", train_val(net_options(), 50))
    code = (
        "import sys, caffe.proto.caffe_pb2 as p; from google.protobuf import text_format as t\n"
        "print(len(t.Parse(open(sys.argv[1]).read(), p.NetParameter()).layer))"
    )
    command = tool_command(caffe, "python", ["-c", code, str(tmp_path / "net.prototxt")])
    done = subprocess.run(command.argv, env=command.env, capture_output=True, check=True)
    assert int(done.stdout) == len(layers_of())
    assert "round_mode" not in format_prototxt(train_val(net_options(), 50))
