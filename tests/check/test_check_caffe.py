"""What check says of Caffe's behaviour, against the real Caffe."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.check_cases import FLAG, SOLVER, Run, changed, plain
from helpers.check_databases import raw, shuffled, write_database
from helpers.rule_cases import CASES

from irv2caffe.caffe.command import tool_command
from irv2caffe.check.finding import Severity
from irv2caffe.check.run import check
from irv2caffe.errors import FormatError

pytestmark = pytest.mark.slow

# Rules whose finding is that Caffe stops, and its own words then.
STOPS = {
    "net-missing": "File not found",
    "net-refused": "Check failed",
    "unknown-field": "has no field named",
    "unknown-value": "Failed to parse NetParameter file",
    "solver-as-net": "Failed to parse NetParameter file",
    "unknown-layer-type": "Unknown layer type: Relu",
    "unknown-bottom": "Unknown bottom blob 'pool'",
    "duplicate-top": "Top blob 'conv1' produced by multiple sources",
    "empty-net": "Check failed",
    "grid-mismatch": "Check failed",
    "phases-differ": "Cannot share param 0 weights from layer 'fc'; shape mismatch",
    "bn-params-not-frozen": "Cannot configure batch normalization statistics",
    "unknown-filler": "Unknown filler name: MSRA",
    "top-k": "top_k must be less than or equal to the number of classes",
    "infogain-matrix": "File not found: h",
    "backend-unset": "Failed to open leveldb",
    "batch-size": "Check failed",
    "mean": "Specify either 1 mean_value or as many as channels",
    "mean-size": "Check failed",
    "solver-nets": "must not contain more than one of these fields specifying a train_net",
    "solver-type": "Unknown solver type: sgd",
    "momentum-not-taken": "Momentum cannot be used with RMSProp",
    "rms-decay": "rms_decay should lie between 0 and 1",
    "regularization-type": "Unknown regularization type: l2",
    "lr-policy": "Check failed",
    "tests": "param_.test_interval() > 0",
    "snapshot-folder": "Cannot write to snapshot prefix",
}
# Rules whose right run differs from the wrong one in what the user says only.
SAME_FILES = {"batch-size", "backend-unset"}


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    root = tmp_path_factory.mktemp("databases")
    write_database(root / "train_lmdb", [raw(label) for label in shuffled(64, 4)])
    write_database(root / "val_lmdb", [raw(label) for label in shuffled(50, 4)])
    return root


def write(folder, run, databases):
    """The files of a run of two iterations on the CPU, with real databases."""
    for name in ("train_lmdb", "val_lmdb"):
        if not (folder / name).exists():
            (folder / name).symlink_to(databases / name)
    path = run.write(folder)
    text = path.read_text().replace("solver_mode: GPU", "solver_mode: CPU")
    text = text.replace("max_iter: 1000", "max_iter: 2").replace("display: 20", "display: 1")
    path.write_text(text)
    return path


def train(caffe, folder, run, databases):
    """Two iterations of a run, after a test."""
    path = write(folder, run, databases)
    command = tool_command(caffe, "caffe", ["train", "-solver", path.name])
    return subprocess.run(
        command.argv, cwd=folder, env=command.env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", STOPS)
def test_where_check_says_so_caffe_stops_and_else_not(caffe, name, databases, tmp_path):
    severity, bad, _, _, good = CASES[name]
    assert severity is Severity.ERROR
    (tmp_path / "bad").mkdir()
    done = train(caffe, tmp_path / "bad", bad, databases)
    assert done.returncode != 0
    assert STOPS[name] in done.stderr
    if name not in SAME_FILES:
        (tmp_path / "good").mkdir()
        done = train(caffe, tmp_path / "good", good, databases)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "Optimization Done." in done.stderr


SILENT = {
    "not-finite": "loss = nan",
    "iter-size": "loss = -nan",
    "no-loss": "loss = 0",
    "max-iter": "Optimization Done.",
    "base-lr": "Optimization Done.",
    "solver-mode": "Use CPU.",
}


@pytest.mark.parametrize("name", SILENT)
def test_where_check_says_so_caffe_goes_on_in_silence(caffe, name, databases, tmp_path):
    """The log of a run that is worth nothing ends well."""
    bad = CASES[name].bad
    done = train(caffe, tmp_path, bad, databases)
    assert done.returncode == 0, done.stderr[-2000:]
    assert SILENT[name] in done.stderr


WEIGHTS = """
import caffe, json, sys
solver = caffe.get_solver(sys.argv[1])
def values():
    return {n: [b.data.copy() for b in blobs] for n, blobs in solver.net.params.items()}
before = values()
solver.step(2)
after = values()
moved = {n: [float(abs(a - b).max()) for a, b in zip(before[n], after[n])] for n in before}
size = {n: [float(abs(b).max()) for b in blobs] for n, blobs in after.items()}
print(json.dumps({'moved': moved, 'size': size}))
"""


def weights_after(caffe, folder, run, databases):
    """How far every blob moved in two iterations, and how large it is then."""
    write(folder, run, databases)
    command = tool_command(caffe, "python", ["-c", WEIGHTS, "solver.prototxt"])
    env = {**command.env, "GLOG_minloglevel": "2"}
    done = subprocess.run(command.argv, cwd=folder, env=env, capture_output=True, check=True)
    return json.loads(done.stdout)


def test_weights_without_a_filler_stay_zero(caffe, databases, tmp_path):
    found = weights_after(caffe, tmp_path, CASES["zero-filler"].bad, databases)
    assert found["size"]["conv1"] == [0.0]
    assert found["moved"]["conv1"] == [0.0]
    (tmp_path / "good").mkdir()
    found = weights_after(caffe, tmp_path / "good", Run(), databases)
    assert found["size"]["conv1"][0] > 0
    assert found["moved"]["conv1"][0] > 0


CLUSTERS = """
layer { name: "a" type: "DummyData" top: "a" top: "ya" dummy_data_param {
  shape { dim: 8 dim: 4 } shape { dim: 8 }
  data_filler { type: "gaussian" mean: 1 std: 0.5 } data_filler { type: "constant" value: 0 } } }
layer { name: "b" type: "DummyData" top: "b" top: "yb" dummy_data_param {
  shape { dim: 8 dim: 4 } shape { dim: 8 }
  data_filler { type: "gaussian" mean: -1 std: 0.5 } data_filler { type: "constant" value: 1 } } }
layer { name: "x" type: "Concat" bottom: "a" bottom: "b" top: "x" concat_param { axis: 0 } }
layer { name: "y" type: "Concat" bottom: "ya" bottom: "yb" top: "y" concat_param { axis: 0 } }
"""
XAVIER = 'weight_filler { type: "xavier" }'


def dense(name, bottom, outputs, fillers="", more=""):
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {more} '
        f"inner_product_param {{ num_output: {outputs} {fillers} }} }}\n"
    )


def rectified(top, more=""):
    return f'layer {{ name: "{top}/r" type: "ReLU" bottom: "{top}" top: "{top}" {more} }}\n'


def summed(first, second):
    return (
        f'layer {{ name: "sum" type: "Eltwise" bottom: "{first}" bottom: "{second}" top: "sum" }}\n'
    )


def normed(top):
    return (
        f'layer {{ name: "{top}/n" type: "BatchNorm" bottom: "{top}" top: "{top}" }}\n'
        f'layer {{ name: "{top}/s" type: "Scale" bottom: "{top}" top: "{top}" '
        "scale_param { bias_term: true } }\n"
    )


def scored(bottom, fillers=XAVIER):
    return dense("score", bottom, 2, fillers) + (
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "y" top: "loss" }\n'
    )


FROZEN_ZERO = "param { lr_mult: 0 }"
ZEROS = {  # a net, and its layers that stay at 0
    "last": (dense("h", "x", 8, XAVIER) + rectified("h") + scored("h", ""), set()),
    "first": (dense("h", "x", 8) + scored("h"), set()),
    "behind a ReLU": (dense("h", "x", 8) + rectified("h") + scored("h"), {"h"}),
    "leaky": (
        dense("h", "x", 8) + rectified("h", "relu_param { negative_slope: 0.1 }") + scored("h"),
        set(),
    ),
    "with a bias": (
        dense("h", "x", 8, 'bias_filler { type: "constant" value: 0.1 }')
        + rectified("h")
        + scored("h"),
        set(),
    ),
    "two": (dense("h", "x", 8) + scored("h", ""), {"h", "score"}),
    "frozen": (dense("h", "x", 8, "", FROZEN_ZERO) + scored("h"), {"h"}),
    "residual": (
        dense("h", "x", 8, XAVIER)
        + dense("branch", "h", 8)
        + summed("h", "branch")
        + rectified("sum")
        + scored("sum"),
        set(),
    ),
    "one after the other": (
        dense("h", "x", 8, XAVIER)
        + dense("branch", "h", 8)
        + summed("h", "branch")
        + scored("sum", ""),
        set(),
    ),
    "norm": (dense("h", "x", 8) + normed("h") + rectified("h") + scored("h"), {"h"}),
    "norm and no ReLU": (dense("h", "x", 8, "bias_term: false") + normed("h") + scored("h"), set()),
    "product": (
        dense("h", "x", 8)
        + dense("g", "x", 8, XAVIER)
        + summed("h", "g").replace('top: "sum"', 'top: "sum" eltwise_param { operation: PROD }')
        + scored("sum"),
        set(),
    ),
    "product of zeros": (
        dense("h", "x", 8)
        + dense("g", "x", 8)
        + summed("h", "g").replace('top: "sum"', 'top: "sum" eltwise_param { operation: PROD }')
        + scored("sum"),
        {"h", "g"},
    ),
}


@pytest.mark.parametrize("name", ZEROS)
def test_weights_of_zero_stay_so_where_check_says_it(caffe, name, tmp_path, monkeypatch):
    text, expected = ZEROS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(CLUSTERS + text)
    solver = SOLVER.replace("solver_mode: GPU", "solver_mode: CPU").replace("0.045", "0.5")
    solver = solver.replace("test_iter: 5\ntest_interval: 100\n", "")
    (tmp_path / "solver.prototxt").write_text(solver)
    found = [each for each in check(Path("solver.prototxt")).findings if each.rule == "zero-filler"]
    assert {place.layer for each in found for place in each.places} == expected
    assert {each.severity for each in found} <= {Severity.ERROR}
    alone = [each for each in check(Path("net.prototxt")).findings if each.rule == "zero-filler"]
    assert {each.severity for each in alone} <= {Severity.WARNING}
    assert all("--weights" in each.fix for each in alone)
    (tmp_path / "snapshots").mkdir()
    code = WEIGHTS.replace("step(2)", "step(4)")
    command = tool_command(caffe, "python", ["-c", code, "solver.prototxt"])
    env = {**command.env, "GLOG_minloglevel": "2"}
    done = subprocess.run(command.argv, cwd=tmp_path, env=env, capture_output=True, check=True)
    size = json.loads(done.stdout)["size"]
    dense_layers = set(size) & {"h", "g", "branch", "score"}
    assert {layer for layer in dense_layers if size[layer][0] == 0} == expected


def test_a_clip_of_zero_stops_learning(caffe, databases, tmp_path):
    zero = Run(solver=(("weight_decay: 0.0001", "weight_decay: 0 clip_gradients: 0"),))
    found = weights_after(caffe, tmp_path, zero, databases)["moved"]
    assert found["conv1"] == found["conv1/scale"][:1] == found["fc"][:1] == [0.0]


def test_nothing_learns_where_all_is_frozen(caffe, databases, tmp_path):
    found = weights_after(caffe, tmp_path, CASES["nothing-learns"].bad, databases)["moved"]
    assert all(value == 0 for name in ("conv1", "conv2", "fc") for value in found[name])


def test_constant_weights_stay_equal(caffe, databases, tmp_path):
    """All filters of a layer, after two steps."""
    code = WEIGHTS.replace(
        "print(",
        "spread = float(after['conv1'][0].std(axis=0).max())\nprint(json.dumps(spread)); (",
    )
    write(tmp_path, CASES["constant-filler"].bad, databases)
    command = tool_command(caffe, "python", ["-c", code, "solver.prototxt"])
    env = {**command.env, "GLOG_minloglevel": "2"}
    done = subprocess.run(command.argv, cwd=tmp_path, env=env, capture_output=True, check=True)
    assert json.loads(done.stdout) < 1e-4  # what rounding leaves; fillers of a good net: 0.2


def test_three_params_of_batch_norm_are_mended_by_caffe(caffe, databases, tmp_path):
    """A warning, not an error: Caffe 1.0 freezes exactly three of them by itself."""
    bad = CASES["bn-params-not-frozen"].bad
    three = replace(bad, net=((bad.net[0][0], "param { lr_mult: 1 } " * 3),))
    assert train(caffe, tmp_path, three, databases).returncode == 0


STATISTICS = """
import caffe, json, numpy as np, sys
net = caffe.Net(sys.argv[1], caffe.TEST)
rng = np.random.RandomState(0)
images = rng.randn(*net.blobs['data'].data.shape)
def logits(batch):
    net.blobs['data'].data[...] = batch
    net.forward(start='conv1')
    return net.blobs['fc'].data[0].copy()
before = [b.data.copy() for b in net.params['conv1/bn']]
first = logits(images)
after = [b.data.copy() for b in net.params['conv1/bn']]
others = images.copy()
others[1:] = 5 * rng.randn(*others[1:].shape)
print(json.dumps({
    'moved': max(float(abs(a - b).max()) for a, b in zip(before, after)),
    'differs': float(abs(first - logits(others)).max()),
}))
"""


@pytest.mark.parametrize("flag", ["false", None])
def test_batch_statistics_in_test(caffe, databases, tmp_path, flag):
    """A forward pass in TEST changes running statistics, and batch-mates change an image's logits:

    both where use_global_stats: false reaches TEST, neither where the line is left out.
    """
    for name in ("train_lmdb", "val_lmdb"):
        (tmp_path / name).symlink_to(databases / name)
    text = plain() if flag is None else changed(plain(), (("eps: 0.001 }", FLAG.format(flag)),))
    (tmp_path / "net.prototxt").write_text(text)
    command = tool_command(caffe, "python", ["-c", STATISTICS, "net.prototxt"])
    env = {**command.env, "GLOG_minloglevel": "2"}
    done = subprocess.run(command.argv, cwd=tmp_path, env=env, capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert (found["moved"] > 0) is (flag == "false")
    assert (found["differs"] > 0) is (flag == "false")


def test_global_statistics_in_train_are_zero_and_stay_so(caffe, databases, tmp_path):
    run = CASES["bn-global-stats-in-train"].bad
    found = weights_after(caffe, tmp_path, run, databases)
    assert found["size"]["conv1/bn"] == [0.0, 0.0, 0.0]


def test_the_runs_of_the_cases_train_in_the_real_caffe(caffe, databases, tmp_path):
    for base in ("plain", "tf", "norm"):
        (tmp_path / base).mkdir()
        done = train(caffe, tmp_path / base, Run(base), databases)
        assert done.returncode == 0, done.stderr[-2000:]


LOADS = {
    "latin-1 comment": ("# r\xe9seau\n".encode("latin-1"), True),
    "gbk comment": ("# \u8bad\u7ec3\n".encode("gb18030"), True),
    "gbk name": ('name: "\u8bad\u7ec3"\n'.encode("gb18030"), True),
    "no-break space": ('name:\u00a0"x"\n'.encode(), False),
    "curly quotes": ("name: \u201cx\u201d\n".encode(), False),
    "bare name": (b"name: resnet_50\n", False),
}


@pytest.mark.parametrize("name", LOADS)
def test_texts_that_caffe_reads_are_read(caffe, name, tmp_path):
    head, is_read = LOADS[name]
    net = b'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n'
    net += b'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }\n'
    path = tmp_path / "net.prototxt"
    path.write_bytes(head + net)
    code = "import caffe, sys; caffe.Net(sys.argv[1], caffe.TEST)"
    command = tool_command(caffe, "python", ["-c", code, str(path)])
    done = subprocess.run(command.argv, env=command.env, capture_output=True, check=False)
    assert (done.returncode == 0) is is_read
    if is_read:
        assert check(path).findings == ()
    else:
        with pytest.raises(FormatError):
            check(path)
