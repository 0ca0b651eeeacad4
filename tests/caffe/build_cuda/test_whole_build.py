"""The whole of install-caffe --cuda, from nothing: about six minutes on two cores for each CUDA.

``scripts/test --slow`` runs it. With IRV2CAFFE_BUILDS, a folder, downloads and objects are kept
there for the next time, and the time from nothing is not shown.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.caffe_unit_tests import compile_tests, kept_build, run_tests

from irv2caffe.caffe.build_cuda.fatbin import code_in
from irv2caffe.caffe.build_cuda.packages import cudnn_version
from irv2caffe.caffe.build_cuda.variant import Variant
from irv2caffe.caffe.command import tool_command
from irv2caffe.caffe.find import FoundCaffe
from irv2caffe.caffe.manifest import gpu_build

NOBODY = 65534
ARCHS = (80, 90)
NET = """
name: "small"
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 8 dim: 3 dim: 12 dim: 12 } shape { dim: 8 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }
layer { name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "bn" top: "bn" }
layer { name: "pool" type: "Pooling" bottom: "bn" top: "pool"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.05 lr_policy: "fixed" type: "RMSProp" rms_decay: 0.9 delta: 1
display: 1 max_iter: 20 solver_mode: CPU random_seed: 7 snapshot_after_train: false
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(
        not os.environ.get("IRV2CAFFE_SLOW"), reason="scripts/test --slow builds Caffe for GPUs"
    ),
]


def ordinary_user():
    """Arguments of subprocess.run for a user without rights, where root runs the tests."""
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    if os.geteuid() != 0:
        return {}
    can_import = [sys.executable, "-c", "import irv2caffe"]
    try:
        subprocess.run(can_import, capture_output=True, check=True, **user)
    except (OSError, subprocess.CalledProcessError):
        return {}  # root's Python lies where others cannot read it
    return user


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """The folder of the builds; those with and without cuDNN share downloads and objects."""
    kept = os.environ.get("IRV2CAFFE_BUILDS")
    return Path(kept) if kept else tmp_path_factory.mktemp("builds")


VARIANTS = [Variant(cuda, ARCHS, cudnn=cudnn) for cuda in (12, 13) for cudnn in (False, True)]


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda v: f"{v.cuda}{'-cudnn' * v.cudnn}")
def built(request, builds):
    """A Caffe for GPUs, built as an ordinary user, and the folder it was built in."""
    variant, folder = request.param, builds
    cuda, kept = variant.cuda, "IRV2CAFFE_BUILDS" in os.environ
    build_dir, prefix = folder / f"cuda{cuda}", folder / f"caffe-cuda{cuda}"
    command = [
        *(sys.executable, "-m", "irv2caffe", "install-caffe", "--cuda", str(cuda)),
        *("--arch", ",".join(map(str, ARCHS)), "--force", "--keep-build"),
        "--cudnn" if variant.cudnn else "--no-cudnn",
        *("--build-dir", str(build_dir), "--prefix", str(prefix)),
    ]
    user = ordinary_user()
    if user and not kept:
        for place in (folder, *folder.parents[:2]):
            place.chmod(0o777)
    env = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, **user)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    return FoundCaffe(prefix, prefix / "usr/bin", True, "just built"), build_dir, variant


def test_code_for_the_wanted_gpus(built):
    found, _, _ = built
    library = found.root / "usr/lib/x86_64-linux-gnu/libcaffe.so.1.0.0"
    assert code_in(library) == ("compute_90", "sm_80", "sm_90")


def losses(found, folder):
    command = tool_command(found, "caffe", ["train", "-solver", "solver.prototxt"])
    env = {**command.env, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command.argv, env=env, cwd=folder, capture_output=True, text=True, check=True
    )
    return re.findall(r"Iteration \d+.*(, loss = .*)", done.stderr)


def test_losses_of_the_caffe_for_the_cpu(built, caffe, tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    ours = losses(built[0], tmp_path)
    assert len(ours) == 21
    assert ours == losses(caffe, tmp_path)


def test_manifest_names_cudnn(built):
    found, _, variant = built
    told = gpu_build(found.root)
    assert (told.cudnn, told.archs) == (cudnn_version(variant), ARCHS)
    libraries = {path.name for path in (found.root / "cuda/lib").iterdir()}
    assert ("libcudnn_cnn.so.9" in libraries) is variant.cudnn


def test_pycaffe_and_python_layers(built, tmp_path):
    (tmp_path / "double.py").write_text(
        "import caffe\n"
        "class Double(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)\n"
        "    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data\n"
        "    def backward(self, top, propagate_down, bottom): pass\n"
    )
    (tmp_path / "net.prototxt").write_text(
        'input: "data" input_shape { dim: 3 }\n'
        'layer { name: "d" type: "Python" bottom: "data" top: "out"\n'
        '  python_param { module: "double" layer: "Double" } }\n'
    )
    code = (
        "import sys; sys.path.insert(0, '.'); import caffe\n"
        "net = caffe.Net('net.prototxt', caffe.TEST)\n"
        "net.blobs['data'].data[...] = [1, 2, 3]\n"
        "print(list(net.forward()['out']))\n"
    )
    command = tool_command(built[0], "python", ["-c", code])
    done = subprocess.run(
        command.argv, env=command.env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == "[2.0, 4.0, 6.0]"


def test_unit_tests_of_caffe(built):
    """Math functions and solvers on the CPU; that they compile for GPUs counts too."""
    found, build_dir, variant = built
    made = kept_build(build_dir, variant)
    names = ["math_functions", "im2col_kernel", "gradient_based_solver", "convolution_layer"]
    program = compile_tests(made, names)
    pattern = (
        "CPUMath*:ConvolutionLayerTest/0*:SGDSolverTest/0*:RMSPropSolverTest/1*:AdamSolverTest/0*"
    )
    done = run_tests(program, found, made.source, pattern)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert int(re.findall(r"\[  PASSED  \] (\d+) tests", done.stdout)[0]) >= 40
