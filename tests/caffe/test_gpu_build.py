"""A Caffe of install-caffe --cuda: found for GPUs, described, refused where the driver is wrong.

The programs are stand-ins: that the real ones work is shown by scripts/test --slow.
"""

from __future__ import annotations

import json

import pytest

from irv2caffe import system
from irv2caffe.caffe import capability as capabilities
from irv2caffe.caffe import passthrough
from irv2caffe.caffe.capability import capability, check_driver, find_caffe_for_gpus
from irv2caffe.caffe.command import tool_command
from irv2caffe.caffe.find import default_gpu_prefix, default_prefix, find_caffe, find_same
from irv2caffe.caffe.gpu_host import Host
from irv2caffe.caffe.manifest import MANIFEST, GpuBuild, gpu_build
from irv2caffe.cli.main import run
from irv2caffe.errors import CaffeNotFoundError, InstallError
from irv2caffe.train.engines.engine import CaffeEngine
from irv2caffe.train.plan.select_engine import EngineRequest, select_engine

LOADER = "lib/x86_64-linux-gnu/ld-2.31.so"
CODE = ("compute_90", "sm_80", "sm_90")
GPU = {"cuda": "13.0", "code": CODE, "min_driver": 580}
FREE = system.Gpu(0, "Big", "GPU-aa", 24 << 30, 23 << 30, 0)


def installed(prefix, words, gpu=None):
    """A runtime whose loader prints the version and whose program holds these words."""
    for name in (LOADER, "usr/bin/caffe"):
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_bytes(b"\x7fELF" + words)
    (prefix / LOADER).write_text("#!/bin/sh\necho caffe version 1.0.0\n")
    (prefix / LOADER).chmod(0o755)
    (prefix / MANIFEST).write_text(json.dumps({"gpu": gpu} if gpu else {}))
    if gpu:
        (prefix / "cuda/lib").mkdir(parents=True)
    return prefix


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A user without any Caffe, on a machine without GPUs."""
    monkeypatch.delenv("CAFFE_ROOT", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(system, "gpus", lambda: None)
    return tmp_path


@pytest.fixture
def both(user):
    """The user has installed Caffe for the CPU, and for GPUs."""
    installed(default_prefix(), b"Cannot use GPU in CPU-only Caffe")
    installed(default_gpu_prefix(), b"", GPU)
    return user


def on(monkeypatch, host):
    for module in (capabilities, passthrough):
        monkeypatch.setattr(module, "read_host", lambda: host)


def test_which_one_is_found(user):
    with pytest.raises(CaffeNotFoundError):
        find_caffe_for_gpus()
    cpu = installed(default_prefix(), b"Cannot use GPU in CPU-only Caffe")
    assert find_caffe_for_gpus().root == find_caffe().root == cpu
    gpu = installed(default_gpu_prefix(), b"", GPU)
    assert find_caffe().root == cpu
    assert find_caffe_for_gpus().root == gpu
    assert find_same(gpu).root == gpu  # when a run is resumed
    (cpu / LOADER).unlink()
    assert find_caffe().root == gpu  # computes on the CPU as well


def test_a_named_caffe_counts_more(both, monkeypatch):
    monkeypatch.setenv("CAFFE_ROOT", str(default_prefix()))
    assert find_caffe_for_gpus().root == default_prefix()


@pytest.mark.parametrize(("gpus", "name"), [("none", "caffe-1.0"), ("0,1", "caffe-1.0-cuda")])
def test_train_takes_it_for_gpus(both, gpus, name):
    for engine in ("auto", "caffe"):
        chosen = select_engine(EngineRequest(engine, gpus))
        assert isinstance(chosen, CaffeEngine)
        assert chosen.found.root.name == name
        assert chosen.capability().several_gpus is (gpus != "none")


def test_gpus_chosen_by_themselves(both, monkeypatch):
    monkeypatch.setattr(system, "gpus", lambda: [FREE])
    chosen = select_engine(EngineRequest())
    assert isinstance(chosen, CaffeEngine)
    assert chosen.found.root == default_gpu_prefix()


def test_what_it_can_do(both):
    can = capability(find_caffe_for_gpus())
    assert (can.gpu, can.several_gpus) == (True, True)
    assert gpu_build(default_gpu_prefix()) == GpuBuild("13.0", CODE, 580)
    assert gpu_build(default_prefix()) is None


def test_what_the_manifest_tells(both):
    built = GpuBuild("13.0", CODE, 580, "9.24.0.43")
    told = json.loads(json.dumps(built.as_dict()))
    assert (told["archs"], told["cudnn"]) == ([80, 90], "9.24.0.43")
    (default_gpu_prefix() / MANIFEST).write_text(json.dumps({"gpu": told}))
    assert gpu_build(default_gpu_prefix()) == built
    assert "NCCL, cuDNN 9.24.0.43, for compute capability 8.0, 9.0" in built.text()
    assert GpuBuild("13.0", ("sm_", "sm_x"), 580).archs == ()


def test_libraries_of_cuda_and_driver(both):
    path = tool_command(find_caffe_for_gpus()).argv[2].split(":")
    assert path[-2:] == [str(default_gpu_prefix() / name) for name in ("cuda/lib", "drv")]
    assert not any(
        name.endswith("cuda/lib") for name in tool_command(find_caffe()).argv[2].split(":")
    )


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        (Host((580, 82), (90,)), "can be used: driver 580.82, compute capability 9.0"),
        (Host((550, 163), (90,)), "cannot be used: the NVIDIA driver 550.163 is too old"),
        (Host(None, ()), "cannot be used: there is no NVIDIA driver; install it; in a container"),
        (Host((580, 82), ()), "cannot be used: the NVIDIA driver 580.82 shows no GPU"),
        (Host((580, 82), (75, 90)), "can be used: driver 580.82, compute capability 7.5, 9.0"),
        (Host((580, 82), (75,)), "cannot be used: this Caffe holds no code for GPUs of compute"),
    ],
)
def test_which(both, monkeypatch, capsys, host, shown):
    on(monkeypatch, host)
    assert run(["caffe", "--caffe", str(default_gpu_prefix()), "--which"]) == 0
    out = capsys.readouterr().out
    assert f"GPUs     {shown}" in out
    assert (
        "kind     runtime, CUDA 13.0 (driver 580 or newer), NCCL, without cuDNN, for compute "
        "capability 8.0, 9.0 and newer" in out
    )
    assert run(["caffe", "--caffe", str(default_prefix()), "--which", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpus"] == ""


def test_driver_before_a_training(both, monkeypatch):
    found = find_caffe_for_gpus()
    on(monkeypatch, Host((580, 82), (90,)))
    check_driver(found)
    on(monkeypatch, Host((550, 163), (90,)))
    check_driver(find_caffe())  # for the CPU
    with pytest.raises(InstallError, match=r"550\.163 is too old") as caught:
        check_driver(found)
    assert "install-caffe --cuda --force" in caught.value.hint


@pytest.mark.parametrize(
    ("code", "arch", "runs"),
    [
        (("sm_80",), 80, True),
        (("sm_80",), 86, True),  # of the same generation
        (("sm_86",), 80, False),
        (("sm_80",), 90, False),
        (("compute_80", "sm_80"), 120, True),
        (("compute_80", "sm_80"), 75, False),
        (("sm_90",), 100, False),
        (("damaged",), 90, False),
    ],
)
def test_code_for_a_gpu(code, arch, runs):
    assert (GpuBuild("13.0", code, 580).fault(Host((580, 82), (arch,))) is None) is runs
