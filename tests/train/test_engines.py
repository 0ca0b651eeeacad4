"""Which engine trains, on which devices, and what is said of it.

There are no GPUs here: what nvidia-ml-py would say is put in its place.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from irv2caffe import system
from irv2caffe.caffe.capability import Capability
from irv2caffe.caffe.find import FoundCaffe
from irv2caffe.cli.main import cli
from irv2caffe.cli.train_engine import engine_request
from irv2caffe.engine.command import engine_options, parser
from irv2caffe.errors import CaffeNotFoundError, InputError, MissingExtraError, UsageError
from irv2caffe.train.engines import torch_facts as asking
from irv2caffe.train.engines.engine import CaffeEngine
from irv2caffe.train.engines.torch_engine import TorchEngine
from irv2caffe.train.engines.torch_facts import TorchFacts, torch_facts
from irv2caffe.train.engines.torch_options import VALID_OPTIONS, TorchOptions
from irv2caffe.train.plan import gpus as choosing
from irv2caffe.train.plan import select_engine as selecting
from irv2caffe.train.plan.gpus import choose
from irv2caffe.train.plan.plan import TrainOptions
from irv2caffe.train.plan.select_engine import EngineRequest, select_engine
from irv2caffe.train.run.options import (
    LaunchOptions,
    SupervisionOptions,
    with_earlier_options,
)
from irv2caffe.train.run_dir.failure_causes import cause_of

FREE = system.Gpu(0, "Big", "GPU-aa", 24 << 30, 23 << 30, 0)
BUSY = system.Gpu(1, "Big", "GPU-bb", 24 << 30, 23 << 30, 1)
CPU = Capability("1.0.0", "bvlc", False, False)
ONE = Capability("1.0.0", "bvlc", True, False)
MANY = Capability("1.0.0", "bvlc", True, True)
NO_CUDA = TorchFacts("2.13.0+cpu", None, 0, False, "", frozenset())
CUDA = TorchFacts("2.13.0", "13.0", 2, True, "", frozenset())
OLD_DRIVER = TorchFacts("2.13.0", "13.0", 0, True, "the driver is too old", frozenset())
MISSING = MissingExtraError("torch", "torch", "the torch engine")
CAFFE = FoundCaffe(Path("/caffe"), Path("/caffe/bin"), False, "on PATH at /caffe/bin/caffe")


@pytest.fixture
def machine(monkeypatch):
    """Puts GPUs, a Caffe and a PyTorch into a machine."""

    def build(gpus, can, facts):
        def find_caffe(flag=None, *, docker=None):
            if can is None:
                raise CaffeNotFoundError("no Caffe found", "run: irv2caffe install-caffe")
            return CAFFE

        def ask():
            if isinstance(facts, Exception):
                raise facts
            return facts

        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(system, "gpus", lambda: gpus)
        monkeypatch.setattr("irv2caffe.train.engines.engine.capability", lambda found: can)
        monkeypatch.setattr(selecting, "find_caffe", find_caffe)
        monkeypatch.setattr(selecting, "find_caffe_for_gpus", find_caffe)
        monkeypatch.setattr(selecting, "torch_facts", ask)

    return build


# --gpus, GPUs of the machine, Caffe, PyTorch: engine, devices, words of the reasons
AUTOMATIC = {
    "no GPU": ("auto", [], CPU, CUDA, "caffe", "", "this machine has no GPU"),
    "no driver": ("auto", None, CPU, CUDA, "caffe", "", "this machine has no GPU"),
    "a Caffe for GPUs": ("auto", [FREE], MANY, CUDA, "caffe", "0", "free"),
    "a busy GPU is left out": ("auto", [FREE, BUSY], MANY, CUDA, "caffe", "0", "GPU 1 is in use"),
    "the free one is the second": ("auto", [BUSY, FREE], MANY, CUDA, "caffe", "1", "GPU 0 is in"),
    "all GPUs are busy": ("auto", [BUSY], MANY, CUDA, "caffe", "", "--gpus 0 takes it all the"),
    "a Caffe for one GPU": ("auto", [FREE, FREE], ONE, CUDA, "caffe", "0", "Caffe takes one of"),
    "a Caffe for the CPU": ("auto", [FREE], CPU, CUDA, "torch", "0", "built for the CPU only"),
    "the CPU is asked for": ("none", [FREE], CPU, CUDA, "caffe", "", "--engine torch"),
    "a GPU is asked for": ("0", [FREE], CPU, CUDA, "torch", "0", "--engine caffe takes Caffe"),
    "two are asked for": ("0,1", [FREE, FREE], ONE, CUDA, "torch", "0,1", "without NCCL"),
    "all are asked for": ("all", [FREE, BUSY], CPU, CUDA, "torch", "0,1", "built for the CPU only"),
    "no Caffe": ("auto", [], None, NO_CUDA, "torch", "", "no Caffe was found"),
    "no PyTorch": ("auto", [FREE], CPU, MISSING, "caffe", "", "pip install 'irv2caffe[torch]'"),
    "no CUDA": ("auto", [FREE], CPU, NO_CUDA, "caffe", "", "index-url"),
    "an old driver": ("auto", [FREE], CPU, OLD_DRIVER, "caffe", "", "the driver is too old"),
}  # fmt: skip


@pytest.mark.parametrize("case", AUTOMATIC)
def test_automatic_choice(machine, case):
    gpus, there, can, facts, name, devices, words = AUTOMATIC[case]
    machine(there, can, facts)
    engine = select_engine(EngineRequest(gpus=gpus))
    found = choose(gpus, engine, engine.capability())
    assert (engine.name, found.argument) == (name, devices)
    assert words in f"{engine.why} {found.text()}"
    if not devices:
        assert found.text().startswith("CPU")


def test_gpus_that_no_engine_can_use_are_refused_with_the_commands_that_help(machine):
    for facts, words in (
        (MISSING, "pip install 'irv2caffe[torch]'"),
        (NO_CUDA, "--engine torch trains on GPUs"),
    ):
        machine([FREE], CPU, facts)
        engine = select_engine(EngineRequest(gpus="0"))
        with pytest.raises(UsageError, match="built without GPU support") as caught:
            choose("0", engine, engine.capability())
        assert words in caught.value.hint
        assert "--gpus none" in caught.value.hint
    torch = select_engine(EngineRequest("torch", gpus="0"))
    with pytest.raises(UsageError, match="built for the CPU") as caught:
        choose("0", torch, torch.capability())
    assert "whl/cu130" in caught.value.hint


@pytest.mark.parametrize("there", [[], None])
@pytest.mark.parametrize("name", ["auto", "caffe", "torch"])
def test_without_any_gpu_nothing_is_told_to_be_installed(machine, monkeypatch, there, name):
    """None: no driver says so, and no device of one is there."""
    machine(there, CPU, NO_CUDA)
    monkeypatch.setattr(choosing, "_DRIVERS", ())
    engine = select_engine(EngineRequest(name, gpus="0"))
    with pytest.raises(UsageError, match="--gpus 0: no GPU was found") as caught:
        choose("0", engine, engine.capability())
    assert "pip" not in f"{engine.why} {caught.value.hint}"
    assert "--gpus none" in caught.value.hint


def test_an_engine_by_name(machine):
    machine([], CPU, MISSING)
    with pytest.raises(MissingExtraError) as caught:
        select_engine(EngineRequest("torch"))
    assert caught.value.hint == "run: pip install 'irv2caffe[torch]'"
    machine([], None, MISSING)
    with pytest.raises(CaffeNotFoundError) as caught:
        select_engine(EngineRequest())
    assert "install-caffe" in caught.value.hint
    assert "irv2caffe[torch]" in caught.value.hint
    machine([FREE], MANY, CUDA)
    assert select_engine(EngineRequest("caffe")).name == "caffe"
    assert select_engine(EngineRequest("torch")).name == "torch"
    bf16 = TorchOptions(precision="bf16")
    chosen = select_engine(EngineRequest(torch=bf16))
    assert (chosen.name, chosen.options["precision"]) == ("torch", "bf16")
    assert "--precision is an option of the torch engine" in chosen.why
    for request in (
        EngineRequest("caffe", torch=bf16),
        EngineRequest(caffe=Path("x"), torch=bf16),
        EngineRequest(docker="image", torch=bf16),
    ):
        with pytest.raises(UsageError, match="--precision is an option of the torch engine"):
            select_engine(request)


def test_defaults_of_the_cpu_and_of_gpus():
    engine = TorchEngine(CUDA)
    assert engine.resolved(on_gpus=False).options["exact"] is True
    assert engine.resolved(on_gpus=True).options["exact"] is False
    told = TorchEngine(CUDA, TorchOptions(exact=True)).resolved(on_gpus=True)
    assert told.options["exact"] is True
    assert told.changes == ()
    fast = TorchEngine(CUDA, TorchOptions(precision="bf16")).resolved(on_gpus=False)
    assert fast.options["exact"] is False
    assert any("bfloat16" in line for line in fast.changes)


def test_several_processes_count():
    def devices(gpus, **options):
        return choose(gpus, TorchEngine(CUDA, TorchOptions(**options)), MANY)

    assert devices("none").count == 1
    assert devices("none", workers=3).count == 3
    assert devices("none", workers=2, nnodes=2).count == 4
    assert devices("none", workers=2).text() == "CPU, 2 processes"
    assert devices("none", nnodes=2).text() == "CPU, on each of 2 machines"


OTHERS = TorchOptions(
    exact=False, precision="tf32", sync_bn=True, shuffle=True, augment="inception", ema=0.999,
    label_smoothing=0.1, skip_corrupt=True, data_threads=3, workers=2, nnodes=2, node_rank=1,
    rdzv_endpoint="one:29500",
)  # fmt: skip


def test_the_engine_understands_every_option():
    """What the engine makes of the arguments, against what they were made of."""
    for given in (TorchOptions(exact=True), OTHERS):
        args = parser().parse_args(["train", "-solver", "s", "-gpu", "0", *given.arguments()])
        options = engine_options(args)
        for name in ("exact", "precision", "sync_bn", "shuffle", "skip_corrupt", "label_smoothing"):
            assert getattr(options, name) == getattr(given, name)
        assert (options.ema or 0.0) == given.ema
        assert (options.augment or "none") == given.augment
        assert (options.data_threads or 0) == given.data_threads
        assert (args.workers, args.nnodes, args.node_rank) == (
            given.workers,
            given.nnodes,
            given.node_rank,
        )
    assert args.rdzv_endpoint == "one:29500"
    assert TorchOptions().arguments() == []
    assert all(getattr(OTHERS, field.name) != field.default for field in fields(OTHERS))


def test_train_has_every_option_with_the_same_default():
    with cli.commands["train"].make_context("train", []) as context:
        request = engine_request(dict(context.params), None, None)
    assert request == EngineRequest()


def earlier(folder, given, **config):
    """The engine of a resumed run."""
    (folder / "config.json").write_text(json.dumps(config))
    options = LaunchOptions(TrainOptions(run_dir=folder), SupervisionOptions(), EngineRequest())
    if "precision" in given:
        torch = TorchOptions(precision="bf16")
        options = replace(options, engine=replace(options.engine, torch=torch))
    return with_earlier_options(folder, options, set(given)).engine


def test_a_resumed_run_keeps_its_engine(tmp_path):
    torch = {"options": {"precision": "tf32", "shuffle": True, "exact": False}}
    kept = earlier(tmp_path, (), engine="torch", torch=torch, gpus="0")
    assert (kept.name, kept.gpus) == ("torch", "0")
    assert kept.torch == TorchOptions(precision="tf32", shuffle=True, exact=False)
    assert earlier(tmp_path, ("precision",), engine="torch", torch=torch).torch.precision == "bf16"
    assert earlier(tmp_path, (), engine="caffe", gpus="none").name == "caffe"
    assert earlier(tmp_path, ()).name == "caffe"  # until 0.2
    assert earlier(tmp_path, ("engine",), engine="torch", torch=torch).name == "auto"


def test_a_run_folder_from_somebody_else_chooses_little(tmp_path):
    for config in (
        {"engine": "rm"},
        {"engine": "torch", "torch": {"options": {"precision": "--help"}}},
        {"engine": "torch", "torch": {"options": {"workers": 10**9}}},
        {"engine": "torch", "torch": {"options": {"ema": "0.9 --debug-layers"}}},
    ):
        with pytest.raises(InputError, match="cannot be"):
            earlier(tmp_path, (), **config)
    assert earlier(tmp_path, (), engine="torch", torch=[1]).torch == TorchOptions()
    other = {"options": {"rdzv_endpoint": "there:1", "nnodes": 2, "unknown": 3}}
    assert earlier(tmp_path, (), engine="torch", torch=other).torch == TorchOptions()
    assert VALID_OPTIONS.keys() < {field.name for field in fields(TorchOptions)}


@pytest.mark.slow
def test_the_installed_pytorch_is_asked(monkeypatch):
    import torch

    torch_facts.cache_clear()
    found = torch_facts()
    assert found.version == torch.__version__
    assert found.cuda == torch.version.cuda
    assert {"Convolution", "BatchNorm", "Data"} <= found.layer_types
    if found.cuda is None:
        assert found.num_gpus == 0
        assert "built for the CPU" in found.no_gpu


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("print('no JSON')", "no JSON"),
        ("raise SystemExit('libcudart is missing')", "libcudart is missing"),
    ],
)
def test_a_pytorch_that_cannot_be_used(monkeypatch, answer, words):
    monkeypatch.setattr(asking, "PROGRAM", (sys.executable, "-c", answer))
    torch_facts.cache_clear()
    with pytest.raises(Exception, match=words):
        torch_facts()
    torch_facts.cache_clear()


def test_a_gpu_that_this_pytorch_has_no_code_for(monkeypatch):
    gpu = {"name": "K80", "capability": "3.7", "supported": False}
    said = {"torch": "2.13.0", "cuda": "13.0", "gpus": [gpu], "layer_types": []}
    monkeypatch.setattr(asking, "PROGRAM", (sys.executable, "-c", f"print({json.dumps(said)!r})"))
    torch_facts.cache_clear()
    assert "no code for K80 (compute capability 3.7)" in torch_facts().no_gpu
    torch_facts.cache_clear()


FAILED = "a GPU failed while it computed"
ALONE = "the GPUs could not communicate with each other"
CORRUPT = "train_lmdb: record 7 cannot be decoded"
CAUSES = {
    "CUDA out of memory. Tried to allocate 20.00 GiB": ("not enough memory", False),
    "DefaultCPUAllocator: can't allocate memory: 8 bytes": ("not enough memory", False),
    "CUDA error: no kernel image is available for execution on the device": (
        "this PyTorch was not built for this kind of GPU", False,
    ),
    "CUDA error: an illegal memory access was encountered": (FAILED, True),
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED": (FAILED, True),
    "NCCL error in: NCCLUtils.cpp:77, unhandled system error": (ALONE, True),
    f"{CORRUPT} (hint: --skip-corrupt leaves it out)": (CORRUPT, False),
}  # fmt: skip


@pytest.mark.parametrize("words", CAUSES)
def test_causes_in_the_words_of_pytorch(words):
    found = cause_of(words)
    assert found is not None
    assert (found.why, found.retryable) == CAUSES[words]
    assert found.hint


def test_what_is_recorded(tmp_path):
    engine = TorchEngine(NO_CUDA, OTHERS)
    record = engine.record(engine.capability())
    assert record["engine"] == "torch"
    assert record["torch"]["options"]["ema"] == 0.999
    assert CaffeEngine(CAFFE).record(CPU)["caffe"]["root"] == "/caffe"
