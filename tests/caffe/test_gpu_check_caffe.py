"""The parts of scripts/gpu-check that run real Caffe, without a GPU: what they run and read.

On the GPU they are run by hand; docs/guide/install-caffe.md has the results.
"""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from helpers.paths import ROOT

from irv2caffe.caffe.command import tool_command
from irv2caffe.caffe.find import RUNTIME_LOADER
from irv2caffe.caffe.manifest import MANIFEST, GpuBuild

SCRIPT = ROOT / "scripts/gpu_check.py"
# As Caffe's tests print, built with googletest 1.7.
TEST_OUTPUT = """\
[==========] Running 3 tests from 1 test case.
[ RUN      ] NeuronLayerTest/2.TestReLU
[       OK ] NeuronLayerTest/2.TestReLU (1 ms)
[ RUN      ] NeuronLayerTest/2.TestAbsVal
[  FAILED  ] NeuronLayerTest/2.TestAbsVal, where TypeParam = caffe::GPUDevice<float> (2 ms)
[==========] 3 tests from 1 test case ran. (3 ms total)
[  PASSED  ] 1 tests.
[  FAILED  ] 1 test, listed below:
[  FAILED  ] NeuronLayerTest/2.TestAbsVal, where TypeParam = caffe::GPUDevice<float>
"""
# One H100, CUDA 13.0.
LOG = """\
I1127 03:18:21.240566   811 solver.cpp:239] Iteration 0 (-1.23073e+30 iter/s, 0.141383s/50 iters), loss = 2.44299
I1127 03:18:21.735128   811 solver.cpp:239] Iteration 50 (101.114 iter/s, 0.494492s/50 iters), loss = 0.700232
I1127 03:18:22.221350   811 solver.cpp:239] Iteration 100 (102.849 iter/s, 0.486149s/50 iters), loss = 0.567339
I1127 03:18:22.908190   811 solver.cpp:239] Iteration 150 (72.8051 iter/s, 0.686765s/50 iters), loss = 0.820235
F1127 10:08:48.527980 19056 common.cpp:152] Check failed: error == cudaSuccess (2 vs. 0)  out of memory
*** Check failure stack trace: ***
"""  # noqa: E501


@pytest.fixture
def programs(monkeypatch):
    """The module of the scripts."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from gpu_parts import caffe_programs

    return caffe_programs


@pytest.fixture
def bundle(caffe, tmp_path):
    """A bundle whose programs are those of the Caffe for the CPU, and a stand-in for its tests."""
    if not caffe.is_runtime:
        pytest.skip("needs the Caffe of install-caffe")
    folder = tmp_path / "made"
    for name in (RUNTIME_LOADER, "usr/bin/caffe", "usr/bin/test_caffe"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "tests.txt").write_text(TEST_OUTPUT)
    loader, _, libraries, program = tool_command(caffe).argv
    (folder / RUNTIME_LOADER).write_text(
        "#!/bin/sh\nname=${3##*/}\nfolder=${3%/usr/bin/*}\nshift 3\n"
        'if [ $name = test_caffe ]; then cat "$folder/tests.txt"; exit 1; fi\n'
        f"exec '{loader}' --library-path '{libraries}' '{program}' \"$@\"\n"
    )
    (folder / RUNTIME_LOADER).chmod(0o755)
    told = GpuBuild("13.0", ("compute_90", "sm_90"), 580, "9.24").as_dict()
    (folder / MANIFEST).write_text(json.dumps({"gpu": told}))
    with tarfile.open(tmp_path / "bundle.tar.xz", "w:xz") as archive:
        for path in folder.iterdir():
            archive.add(path, path.name)
    return tmp_path / "bundle.tar.xz"


def write_fashion(folder):
    """IDX files in the form of Fashion-MNIST."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for prefix, count in (("train", 60), ("t10k", 30)):
        images = rng.integers(0, 255, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            path = folder / f"{prefix}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(head + array.tobytes()))


@pytest.mark.slow
def test_all_parts_of_caffe_without_a_gpu(bundle, tmp_path):
    write_fashion(tmp_path / "data/fashion")
    command = [sys.executable, SCRIPT, "--only", "caffe", "--cpu", "--caffe-bundle", bundle]
    command += ["--caffe-batches", 2, "--out", tmp_path / "out", "--data", tmp_path / "data"]
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    found = {(line["part"], line["name"]): line["value"] for line in lines}
    shown = done.stdout + done.stderr
    ends = [value for (_, name), value in found.items() if name == "ended"]
    assert ends == [0] * 4, shown
    assert not [name for _, name in found if name.endswith("failed") and "tests" not in name], shown
    assert found["caffe", "unit tests passed"] >= 1
    assert found["caffe", "unit tests failed"] == ["NeuronLayerTest/2.TestAbsVal"]
    assert "CPU-only Caffe" in found["caffe", "device_query"]
    assert found["caffe", "losses: relative difference of the first"] < 1e-5
    for name in ("with", "without"):
        assert found["caffe_speed", f"slim, batch 2, Caffe {name} cuDNN"] > 0
    assert len(found["caffe_demo", "demo: top-1 errors"]) == 5  # before, and each half epoch
    assert found["caffe_demo", "demo, resumed from irv2_paper_iter_4.solverstate: top-1 errors"]
    assert found["caffe_gpus", "one GPU, iter_size 2: test loss"] > 0


def test_libraries_of_pytorch(programs, tmp_path, monkeypatch, capsys):
    site = tmp_path / "site-packages"
    for name in (
        *(
            "cublas/lib/libcublas.so.13",
            "cublas/lib/libcublasLt.so.13",
            "cublas/lib/libnvblas.so.13",
        ),
        *("cudnn/lib/libcudnn.so.9", "cudnn/lib/libcudnn_cnn.so.9", "cu13/lib/libcudart.so.13"),
    ):
        (site / "nvidia" / name).parent.mkdir(parents=True, exist_ok=True)
        (site / "nvidia" / name).touch()
    monkeypatch.setattr(programs.sys, "path", [str(site)])
    monkeypatch.setattr(programs.site, "getsitepackages", list)
    wanted = (*programs.CUDA_LIBRARIES, "libcudnn")
    programs.link_libraries(tmp_path / "lib", wanted)
    names = {"libcublas.so.13", "libcublasLt.so.13", "libcudart.so.13"}
    assert {path.name for path in (tmp_path / "lib").iterdir()} >= {
        *names,
        "libcudnn.so.9",
        "libcudnn_cnn.so.9",
    }
    assert not (tmp_path / "lib/libnvblas.so.13").exists()
    assert "missing: libcurand, libnccl" in capsys.readouterr().out
    programs.link_libraries(tmp_path / "without", programs.CUDA_LIBRARIES)
    assert not (tmp_path / "without/libcudnn.so.9").exists()


def test_rates_and_faults_in_a_log(programs, tmp_path):
    log = tmp_path / "a.log"
    log.write_text(LOG)
    assert programs.rates(log, 100) == pytest.approx([10284.9, 7280.51])
    assert programs.fatal(log).endswith("out of memory")


def test_parts_by_name(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import gpu_check

    assert gpu_check.parts_of("facts,caffe") == [
        *("facts", "caffe", "caffe_speed", "caffe_demo", "caffe_gpus"),
    ]
    assert gpu_check.parts_of("caffe_speed") == ["caffe_speed"]
    with pytest.raises(SystemExit, match="known are"):
        gpu_check.parts_of("cafe")
