"""Driver, GPUs and C library against what a build needs; each refusal names its reason."""

from __future__ import annotations

import os
import platform
import sys
from types import SimpleNamespace

import pytest

from irv2caffe.caffe.build_cuda.host import check_machine, choose_variant, parse_archs
from irv2caffe.caffe.gpu_host import Host, read_host
from irv2caffe.errors import InstallError, UsageError

# First lines of /proc/driver/nvidia/version: NVIDIA's closed and open kernel modules.
CLOSED = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8 12:41:17 UTC 2025\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
)
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  "
    "(root@b)  Wed Sep 10 14:21:40 UTC 2025\n"
)


class FakeNvml(SimpleNamespace):
    """NVML of a machine with these GPUs, given by compute capability."""

    NVMLError = RuntimeError

    def __init__(self, driver, *capabilities):
        super().__init__(
            nvmlInit=lambda: None,
            nvmlShutdown=lambda: None,
            nvmlSystemGetDriverVersion=lambda: driver,
            nvmlDeviceGetCount=lambda: len(capabilities),
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetUUID=lambda index: f"GPU-{index}",
            nvmlDeviceGetCudaComputeCapability=lambda index: capabilities[index],
        )


def no_driver():
    raise RuntimeError("NVML Shared Library Not Found")


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without driver; nvidia-ml-py is installed."""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(""))
    monkeypatch.setattr(sys.modules["pynvml"], "nvmlInit", no_driver)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("text", "driver"), [(CLOSED, (550, 163)), (OPEN, (580, 159))])
def test_driver_in_proc(bare, text, driver):
    (bare / "version").write_text(text)
    assert read_host(bare / "version") == Host(driver, ())


def test_nvml(bare, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml("560.35.03", (9, 0), (8, 0), (9, 0)))
    found = read_host(bare / "none")
    assert found == Host((560, 35), (80, 90))
    assert found.only(["GPU-1"]).archs == (80,)
    assert found.only(["GPU-0", "GPU-2"]).archs == (90,)
    assert found.only([]) == found.only(["GPU-9"]) == found
    # As older bindings answer.
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(b"470.82.01", (7, 5)))
    assert read_host(bare / "none") == Host((470, 82), (75,))


def test_nvidia_smi_without_nvml(bare, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)  # import pynvml raises ImportError
    assert read_host(bare / "none") == Host(None, ())
    program = bare / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho '535.183.01, GPU-a, 8.6'\necho '535.183.01, GPU-b, [N/A]'\n"
    )
    program.chmod(0o755)
    assert read_host(bare / "none") == Host((535, 183), (86,))
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert read_host(bare / "none") == Host(None, ())


@pytest.mark.parametrize(
    ("driver", "archs", "cuda", "expected"),
    [
        ((550, 163), (80, 90), None, 12),
        ((580, 159), (90,), None, 12),  # 12.4 wherever it serves
        ((580, 159), (90,), 13, 13),
        ((525, 60), (61,), None, 12),
        ((580, 82), (120,), None, 13),
        ((580, 82), (90, 100), None, 13),
    ],
)
def test_choice(driver, archs, cuda, expected):
    variant = choose_variant(Host(driver, archs), cuda)
    assert (variant.cuda, variant.archs) == (expected, archs)


@pytest.mark.parametrize(
    ("host", "cuda", "message", "hint"),
    [
        (Host(None, ()), None, "no NVIDIA driver", "--arch"),
        (Host((550, 163), ()), None, "550.163 shows no GPU", "nvidia-smi"),
        (
            Host((470, 82), (75,)),
            None,
            "470.82 is too old for CUDA 12.4, which needs 525",
            "update",
        ),
        (Host((550, 163), (90,)), 13, "too old for CUDA 13.0, which needs 580", "--cuda 12"),
        (Host((550, 163), (120,)), None, "too old for CUDA 13.0", "update the driver"),
        (Host((580, 82), (61,)), 13, "6.1 is not supported by CUDA 13.0", "12.4: 5.0"),
        (Host((580, 82), (61, 120)), None, "6.1, 12.0 is not supported by one CUDA", "--arch"),
        (Host((470, 82), (35,)), None, "3.5 is not supported", "12.4: 5.0"),
    ],
)
def test_refusals(host, cuda, message, hint):
    with pytest.raises(InstallError) as caught:
        choose_variant(host, cuda)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_archs_of_the_user():
    assert parse_archs("9.0, 80,sm_86") == (80, 86, 90)
    # For another machine: no driver here.
    assert choose_variant(Host(None, ()), None, (90,)).cuda == 12
    with pytest.raises(UsageError, match=r"12.0 is not supported by CUDA 12.4"):
        choose_variant(Host(None, ()), 12, (120,))
    # The driver of this machine still counts.
    with pytest.raises(InstallError, match="too old"):
        choose_variant(Host((470, 82), (90,)), None, (80,))
    for wrong in ("", "hopper", "90;rm", "8.", "80,,90"):
        with pytest.raises(UsageError, match="--arch"):
            parse_archs(wrong)


def test_options_of_nvcc():
    variant = choose_variant(Host(None, ()), None, (80, 90))
    assert variant.gencode == (
        *("-gencode", "arch=compute_80,code=sm_80"),
        *("-gencode", "arch=compute_90,code=sm_90"),
        *("-gencode", "arch=compute_90,code=compute_90"),
    )


def test_machines_that_cannot_build(monkeypatch):
    check_machine()
    with monkeypatch.context() as patched:
        patched.setattr(platform, "machine", lambda: "aarch64")
        with pytest.raises(InstallError, match="Linux aarch64"):
            check_machine()
    for libc, message in ((None, "musl"), ("glibc 2.28", r"2\.31 or newer, this is glibc 2\.28")):
        with monkeypatch.context() as patched:
            patched.setattr(os, "confstr", lambda _, libc=libc: libc)
            with pytest.raises(InstallError, match=message):
                check_machine()
