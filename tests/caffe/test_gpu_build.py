"""A Caffe of install-caffe --cuda: found for GPUs, described, refused where the driver is wrong.

The programs are stand-ins: that the real ones work is shown by scripts/test --slow.
"""

from __future__ import annotations

import json

import pytest
from helpers.training_jobs import make_databases, write_job

from irv2caffe import system
from irv2caffe.caffe import capability as capabilities
from irv2caffe.caffe import passthrough
from irv2caffe.caffe.build_cuda.host import choose_variant, parse_archs
from irv2caffe.caffe.capability import capability, check_gpus, find_caffe_for_gpus, has_cudnn
from irv2caffe.caffe.command import tool_command
from irv2caffe.caffe.find import default_gpu_prefix, default_prefix, find_caffe, find_same
from irv2caffe.caffe.gpu_host import Host
from irv2caffe.caffe.manifest import MANIFEST, GpuBuild, gpu_build
from irv2caffe.cli.main import run
from irv2caffe.errors import CaffeNotFoundError, InstallError
from irv2caffe.train.engines.engine import CaffeEngine
from irv2caffe.train.engines.torch_engine import TorchEngine
from irv2caffe.train.engines.torch_facts import TorchFacts
from irv2caffe.train.plan import select_engine as select_engine_module
from irv2caffe.train.plan.make_plan import make_plan
from irv2caffe.train.plan.plan import TrainOptions
from irv2caffe.train.plan.plan_text import rows
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


@pytest.fixture
def solver(user):
    """The solver of a small job."""
    make_databases(user)
    return write_job(user, user / "job")


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
        (
            Host((580, 82), (75, 90)),
            "can be used: driver 580.82, compute capability 9.0; no code for 7.5",
        ),
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
    told = json.loads(capsys.readouterr().out)
    assert (told["gpus"], told["built"], told["kind"]) == ("", None, "runtime, CPU only")


def test_which_shows_both(both, capsys):
    assert run(["caffe", "--which", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["program"] == str(default_prefix() / "usr/bin/caffe")
    assert told["for_gpus"] == str(default_gpu_prefix() / "usr/bin/caffe")
    assert run(["caffe", "--caffe", str(default_gpu_prefix()), "--which", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["built"]["archs"], told["built"]["cudnn"]) == ([80, 90], None)


def test_driver_before_a_training(both, monkeypatch):
    found = find_caffe_for_gpus()
    on(monkeypatch, Host((580, 82), (90,)))
    check_gpus(found)
    on(monkeypatch, Host((550, 163), (90,)))
    check_gpus(find_caffe())  # for the CPU
    with pytest.raises(InstallError, match=r"550\.163 is too old") as caught:
        check_gpus(found)
    assert "install-caffe --cuda --force" in caught.value.hint


def two_gpus(monkeypatch):
    """A machine with a GPU that the build has code for, and an older one."""
    there = [FREE, system.Gpu(1, "Old", "GPU-bb", 24 << 30, 23 << 30, 0)]
    monkeypatch.setattr(system, "gpus", lambda: there)
    on(monkeypatch, Host((580, 82), (75, 90), {"GPU-aa": 90, "GPU-bb": 75}))


def test_each_gpu_needs_code(both, monkeypatch, solver):
    two_gpus(monkeypatch)
    caffe = select_engine(EngineRequest("caffe", "0"))
    plan = make_plan(solver, caffe, TrainOptions(gpus="0"))
    assert not any("no code" in problem.message for problem in plan.problems)
    assert ("build", f"BVLC Caffe 1.0.0, {caffe.capability().built.text()}") in rows(plan)
    for gpus in ("0,1", "1", "all"):
        plan = make_plan(solver, caffe, TrainOptions(gpus=gpus))
        (refused,) = (each for each in plan.problems if "no code" in each.message)
        assert "capability 7.5" in refused.message
        assert "install-caffe --cuda --force --arch 7.5,8.0,9.0" in refused.hint


def test_gpus_without_code_are_for_torch(both, monkeypatch):
    facts = TorchFacts("2.13", "13.0", 2, True, "", frozenset())
    monkeypatch.setattr(select_engine_module, "torch_facts", lambda: facts)
    two_gpus(monkeypatch)
    assert isinstance(select_engine(EngineRequest("auto", "0")), CaffeEngine)
    chosen = select_engine(EngineRequest("auto", "0,1"))
    assert isinstance(chosen, TorchEngine)
    assert "holds no code for GPUs of compute capability 7.5" in chosen.why


def test_a_build_with_cudnn_is_for_both(user, solver, capsys):
    installed(default_gpu_prefix(), b"", {**GPU, "cudnn": "9.24.0.43"})
    assert has_cudnn(find_caffe_for_gpus())
    assert find_caffe().root == default_gpu_prefix()
    plan = make_plan(solver, CaffeEngine(find_caffe()), TrainOptions(gpus="none"))
    assert not plan.problems
    assert run(["caffe", "--which"]) == 0
    assert "cuDNN 9.24.0.43" in capsys.readouterr().out
    cpu = installed(default_prefix(), b"Cannot use GPU in CPU-only Caffe")
    assert find_caffe().root == cpu
    assert has_cudnn(find_caffe()) is False


def test_engine_cudnn_without_it(both, monkeypatch, solver, capsys):
    net = solver.with_name("net.prototxt")
    text = net.read_text()
    net.write_text(text.replace("convolution_param {", "convolution_param { engine: CUDNN", 1))
    on(monkeypatch, Host((580, 82), (90,)))
    caffe = select_engine(EngineRequest("caffe", "none"))
    plan = make_plan(solver, caffe, TrainOptions(gpus="none", ignore_findings=True))
    assert any("[cudnn-missing]" in problem.message for problem in plan.problems)
    assert run(["check", str(solver), "--gpus", "0"]) == 3
    assert "cudnn-missing" in capsys.readouterr().out


def test_caffe_with_gpu_among_its_arguments(both, monkeypatch):
    for words in (["train", "-gpu", "0"], ["device_query", "--gpu=all"]):
        assert passthrough.find_for(words, None).root == default_gpu_prefix()
    assert passthrough.find_for(["test", "gpu"], None).root == default_prefix()
    assert passthrough.find_for(["time", "-gpu", "0"], default_prefix()).root == default_prefix()
    monkeypatch.setenv("CAFFE_ROOT", "/nowhere")
    with pytest.raises(CaffeNotFoundError, match="CAFFE_ROOT=/nowhere"):
        passthrough.find_for(["train", "-gpu", "0"], None)


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


def test_ptx_needs_a_driver_that_compiles_it():
    built = GpuBuild("12.4", ("compute_80", "sm_80"), 525)
    assert built.runs_on(80, (525, 60))
    assert not built.runs_on(90, (535, 183))
    assert built.runs_on(90, (550, 54))


@pytest.mark.parametrize(
    ("code", "arch", "option"),
    [
        (CODE, 75, "--arch 7.5,8.0,9.0"),
        (CODE, 61, "--arch 6.1,8.0,9.0"),
        (("sm_61",), 120, "--arch 12.0"),  # no CUDA version supports both
    ],
)
def test_the_command_that_builds_for_a_gpu(code, arch, option):
    fault = GpuBuild("13.0", code, 580).fault(Host((580, 82), (arch,)))
    assert fault is not None
    assert fault[1].endswith(f"irv2caffe install-caffe --cuda --force {option}")
    asked = parse_archs(option.split()[1])
    assert arch in choose_variant(Host((580, 82), (arch,)), None, asked).archs
