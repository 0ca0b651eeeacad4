"""A build with cuDNN: option, plan, packages, and which files differ from a build without.

That the files compile and compute is shown by scripts/test --slow.
"""

from __future__ import annotations

import json
import re
import shutil

import pytest

from irv2caffe.caffe.build_cuda import patches
from irv2caffe.caffe.build_cuda.build import Build
from irv2caffe.caffe.build_cuda.host import choose_variant
from irv2caffe.caffe.build_cuda.packages import cudnn_packages, cudnn_version, packages
from irv2caffe.caffe.build_cuda.patches import ADDED, PATCHES, Patch
from irv2caffe.caffe.build_cuda.toolchain import Toolchain
from irv2caffe.caffe.build_cuda.variant import Variant
from irv2caffe.caffe.gpu_host import Host
from irv2caffe.cli.main import run
from irv2caffe.errors import InstallError

WITH, WITHOUT = (Variant(13, (90,), cudnn=cudnn) for cudnn in (True, False))
OLD_LAYERS = ("src/caffe/layers/cudnn_conv_layer.cu", "src/caffe/layers/cudnn_deconv_layer.cu")


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A user on a machine with an H100, where nothing is installed."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("irv2caffe.caffe.gpu_host.read_host", lambda: Host((580, 159), (90,)))
    return tmp_path


@pytest.fixture
def source(tmp_path):
    """A source tree that holds just what the patches replace."""
    folder = tmp_path / "source"
    for patch in PATCHES:
        path = folder / patch.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            stream.write(patch.old)
    for name in OLD_LAYERS:
        (folder / name).write_text("old")
    return folder


def planned(capsys, *options):
    assert run(["install-caffe", "--cuda", *options, "--dry-run", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("cuda", "version"), [("12", "9.1.0.70"), ("13", "9.19.0.56")])
def test_plan(user, capsys, cuda, version):
    bare = planned(capsys, cuda, "--no-cudnn")
    plan = planned(capsys, cuda, "--cudnn")
    assert (bare["cudnn"], plan["cudnn"]) == (None, version)
    (package,) = cudnn_packages(Variant(int(cuda), (90,), cudnn=True))
    assert plan["download_bytes"] - bare["download_bytes"] == package.size_bytes
    for name in ("build_bytes", "prefix_bytes"):
        assert plan[name] - bare[name] > package.size_bytes  # it is unpacked in both folders
    assert run(["install-caffe", "--cuda", cuda, "--cudnn", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"cuDNN {version} and NCCL, for compute capability 9.0" in out
    assert "cuDNN is under NVIDIA's License Agreement" in out
    assert run(["install-caffe", "--cuda", cuda, "--no-cudnn", "--dry-run"]) == 0
    assert "cuDNN" not in capsys.readouterr().out
    assert list(user.iterdir()) == []


def test_option_without_cuda(user, capsys):
    assert run(["install-caffe", "--cudnn"]) == 2
    assert "--cudnn goes with --cuda only" in capsys.readouterr().err


def test_choice():
    for told in (True, False):
        assert choose_variant(Host((580, 82), (90,)), 13, cudnn=told).cudnn is told


def test_packages():
    assert cudnn_packages(WITHOUT) == ()
    assert cudnn_version(WITHOUT) is None
    for cuda in (12, 13):
        variant = Variant(cuda, (90,), cudnn=True)
        (package,) = cudnn_packages(variant)
        assert package in packages(variant)
        assert package.is_wheel
        assert package.role == "run"
        assert package.place.startswith(f"nvidia-cudnn-cu{cuda}==9.")
        assert re.fullmatch(r"[0-9a-f]{64}", package.sha256)


def test_only_files_that_name_cudnn_differ(tmp_path):
    folder = tmp_path / "source/src/caffe/layers"
    folder.mkdir(parents=True)
    for name in ("cudnn_relu_layer.cu", "layer_factory.cpp"):
        (folder / name).write_text("#ifdef USE_CUDNN\n#endif\n")
    for name in ("relu_layer.cu", "net.cpp"):
        (folder / name).write_text("int x;\n")
    tools = Toolchain(tmp_path / "debian", tmp_path / "cuda", tmp_path / "tools")
    jobs = {
        variant: {
            job.name: job
            for path in folder.iterdir()
            for job in [
                Build(tmp_path / "source", tmp_path / "build", tools, variant).compile(path)
            ]
        }
        for variant in (WITH, WITHOUT)
    }
    differ = {name for name, job in jobs[WITH].items() if job != jobs[WITHOUT][name]}
    assert differ == {"cudnn_relu_layer.cu", "layer_factory.cpp"}
    assert all("-DUSE_CUDNN" in jobs[WITH][name].argv for name in differ)
    assert all("-DUSE_CUDNN" not in job.argv for job in jobs[WITHOUT].values())
    assert "-lcudnn" in tools.libraries(WITH)
    assert "-lcudnn" not in tools.libraries(WITHOUT)


def test_patches_are_applied(source):
    patches.apply(source)
    for name in OLD_LAYERS:
        assert not (source / name).exists()
    for path in ADDED.rglob("*.*pp"):
        assert (source / path.relative_to(ADDED)).read_bytes() == path.read_bytes()
    factory = (source / "src/caffe/layer_factory.cpp").read_text()
    chosen = re.findall(r"(.*)\n *engine = (\w+)Parameter_Engine_CUDNN;", factory)
    assert {name for _, name in chosen} == {
        *("Convolution", "ReLU", "Sigmoid", "Softmax", "TanH", "LRN")
    }
    assert all("Caffe::mode() == Caffe::GPU" in condition for condition, _ in chosen)
    for path in (source / "src/caffe/layers").glob("cudnn_*"):
        assert "cudnnCreate(&handle_)" not in path.read_text()
        assert "this->handle_" not in path.read_text()


def test_another_source_is_refused(source):
    path = source / "src/caffe/layer_factory.cpp"
    path.write_text(path.read_text().replace("use_dilation", "dilated"))
    with pytest.raises(InstallError, match=r"layer_factory\.cpp: .* is not in this source"):
        patches.apply(source)


def test_digest_tells_changes(tmp_path, monkeypatch):
    earlier = patches.digest()
    assert patches.digest((*PATCHES, Patch("a", "b", "c"))) != earlier
    shutil.copytree(ADDED, tmp_path / "added")
    monkeypatch.setattr(patches, "ADDED", tmp_path / "added")
    assert patches.digest() == earlier
    with next((tmp_path / "added").rglob("cudnn_conv_layer.cpp")).open("a") as stream:
        stream.write("\n")
    assert patches.digest() != earlier


def test_two_layers_are_mirror_images():
    """A deconvolution is a convolution's gradient: their files differ in nothing else."""
    conv, deconv = (
        (ADDED / f"src/caffe/layers/cudnn_{name}_layer.cpp").read_text()
        for name in ("conv", "deconv")
    )
    swapped = {"Forward": "BackwardData", "BackwardData": "Forward"}
    calls = [re.findall(r"convolution_\.(\w+)\(", text) for text in (conv, deconv)]
    assert [swapped.get(name, name.replace("Y", "X")) for name in calls[0]] == calls[1]


def test_functions_that_cudnn_9_removed():
    gone = re.compile(r"cudnnGetConvolution\w+Algorithm\(|_SPECIFY_WORKSPACE_LIMIT|_v[456]\(")
    for path in ADDED.rglob("*.*pp"):
        assert not gone.search(path.read_text()), path
        assert max(map(len, path.read_text().splitlines())) <= 80  # Caffe's own limit
