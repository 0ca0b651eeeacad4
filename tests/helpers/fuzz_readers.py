"""The readers of what strangers made: sound inputs of each, made here, and how it is called."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import math
import os
import signal
import tarfile
import zipfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from helpers.fuzz_mutate import damaged
from helpers.paths import FILES, ROOT
from irv2caffe.errors import Irv2CaffeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Seed:
    """A sound input.

    Attributes:
        files: by name.
        damaged: those of them that are damaged, one at a time; all if none is named.
        packed: how a file is packed after it was damaged, by its name.
    """

    files: Mapping[str, bytes]
    damaged: tuple[str, ...] = ()
    packed: Mapping[str, Callable[[bytes], bytes]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reader:
    """One kind of input.

    Attributes:
        name: of it.
        seeds: makes sound inputs, given an empty folder.
        read: reads the input in a folder as a command does.
        words: of the format.
        text: lines and numbers of digits are damaged too.
        share: of the inputs of the others that it is given; slow ones get fewer.
    """

    name: str
    seeds: Callable[[Path], list[Seed]]
    read: Callable[[Path], object]
    words: tuple[bytes, ...] = ()
    text: bool = False
    share: float = 1.0

    def input(self, rng, seeds: list[Seed], number: int) -> dict[str, bytes]:
        """The files of an input; the first ones are the sound ones themselves."""
        seed = seeds[number] if number < len(seeds) else rng.choice(seeds)
        files = dict(seed.files)
        if number >= len(seeds):
            name = rng.choice(seed.damaged or sorted(files))
            others = [other.files[name] for other in seeds if name in other.files]
            files[name] = damaged(rng, files[name], others, self.words, text=self.text)
        return {name: seed.packed.get(name, bytes)(data) for name, data in files.items()}


def _seeds(name: str, *contents: bytes) -> list[Seed]:
    return [Seed({name: content}) for content in contents]


def _words(text: str) -> tuple[bytes, ...]:
    return tuple(word.encode() for word in text.split())


# Prototxts


def _nets() -> list[bytes]:
    from helpers.check_cases import DEPLOY, norm, plain
    from helpers.layer_snippets import GOOD

    return [text.encode() for text in (DEPLOY, norm(), plain(), *list(GOOD.values())[::3])]


def _read_net(folder: Path) -> None:
    from irv2caffe.check.run import check
    from irv2caffe.proto.text import read_net
    from irv2caffe.shapes.draw import draw
    from irv2caffe.shapes.summary import summarize

    path = folder / "net.prototxt"
    _each(
        lambda: json.dumps(check(path).as_dict()),
        lambda: [
            draw(made)
            for net, lines in [read_net(path)]
            for phase in ("TRAIN", "TEST")
            for made in [summarize(net, phase, lines=lines, path=path)]
        ],
    )


def _each(*calls: Callable[[], object]) -> None:
    """Makes all calls; where each is refused, the input is."""
    refusals = []
    for call in calls:
        try:
            call()
        except Irv2CaffeError as error:
            refusals.append(error)
    if len(refusals) == len(calls):
        raise refusals[0]


def _solvers(_: Path) -> list[Seed]:
    from helpers.check_cases import SOLVER, plain

    templates = sorted((ROOT / "templates").glob("**/solver.prototxt"))[:3]
    texts = [SOLVER.encode(), *(path.read_bytes() for path in templates)]
    inline = b'net_param { name: "n" } ' + SOLVER.replace("net:", "#").encode()
    net = plain().encode()
    return [Seed({"solver.prototxt": text, "net.prototxt": net}) for text in (*texts, inline)]


def _read_solver(folder: Path) -> None:
    from irv2caffe.check.run import check
    from irv2caffe.train.plan.job import read_job

    path = folder / "solver.prototxt"
    _each(lambda: json.dumps(check(path).as_dict()), lambda: read_job(path, []))


# Models, states, weights


def _net_message():
    from irv2caffe.proto import messages
    from irv2caffe.proto.binary import blob_from_array

    net = messages.NetParameter(name="net")
    for number, shape in enumerate(((3, 2, 1, 1), (3,), (4, 3))):
        layer = net.layer.add(name=f"conv{number}", type="Convolution")
        layer.convolution_param.num_output = 3
        layer.blobs.append(blob_from_array(RNG.normal(size=shape).astype("f4")))
        layer.blobs.append(blob_from_array(RNG.normal(size=3)))
    return net


def _models(_: Path) -> list[Seed]:
    from irv2caffe.proto import messages

    net = _net_message()
    old = messages.NetParameter(name="old")
    layer = old.layers.add(name="fc", type=14)
    layer.blobs.add(num=1, channels=1, height=2, width=2, data=[1, 2, 3, 4])
    return _seeds("x.caffemodel", net.SerializeToString(), old.SerializeToString())


def _read_model(folder: Path) -> None:
    from irv2caffe.check.run import CheckOptions, check
    from irv2caffe.proto.caffemodel import ModelFile
    from irv2caffe.proto.snapshot_headers import read_model_header

    path, net = folder / "x.caffemodel", folder / "net.prototxt"
    net.write_text('layer { name: "x" type: "Input" top: "x" }')
    _each(
        lambda: [file.blobs(name) for file in [ModelFile(path)] for name in file.layers],
        lambda: read_model_header(path, check_finite=True),
        lambda: check(net, CheckOptions(weights=path)),
    )


def _states(_: Path) -> list[Seed]:
    from irv2caffe.proto import messages
    from irv2caffe.proto.binary import blob_from_array

    net = _net_message()
    state = messages.SolverState(iter=20, learned_net="x_iter_20.caffemodel", current_step=1)
    for layer in net.layer:
        state.history.extend(blob_from_array(np.zeros(3, "f4")) for _ in layer.blobs)
    files = {
        "x_iter_20.solverstate": state.SerializeToString(),
        "x_iter_20.caffemodel": net.SerializeToString(),
    }
    return [Seed(files)]


def _read_state(folder: Path) -> None:
    from irv2caffe.proto.snapshot_headers import read_state_header, with_learned_net
    from irv2caffe.train.run_dir.snapshots import fix_model_path, newest_complete, pairs, problem

    path = folder / "x_iter_20.solverstate"
    for pair in pairs(folder):
        problem(pair, _net_message())
        newest_complete(folder)
    _each(
        lambda: read_state_header(path),
        lambda: b"".join(with_learned_net(path, "other")),
        lambda: [fix_model_path(pair) for pair in pairs(folder)],
    )


def _hdf5_snapshots(folder: Path) -> list[Seed]:
    import h5py

    state, model = folder / "x_iter_20.solverstate.h5", folder / "x_iter_20.caffemodel.h5"
    with h5py.File(state, "w") as file:
        file.create_dataset("iter", data=np.array([20], np.int32))
        file.create_dataset("current_step", data=np.array([1], np.int32))
        file.create_dataset("learned_net", data=np.bytes_(str(model.name)))
        for number in range(3):
            file.create_dataset(f"history/{number}", data=np.zeros((2, 3), "f4"))
    with h5py.File(model, "w") as file:
        for layer in _net_message().layer:
            for number, blob in enumerate(layer.blobs):
                values = np.ones(list(blob.shape.dim), "f4")
                file.create_dataset(f"data/{layer.name}/{number}", data=values)
    return [Seed({path.name: path.read_bytes() for path in (state, model)})]


def _read_hdf5_snapshot(folder: Path) -> None:
    from irv2caffe.train.run_dir.hdf5_snapshots import state_header, write_state, write_weights

    state, model = folder / "x_iter_20.solverstate.h5", folder / "x_iter_20.caffemodel.h5"
    _each(
        lambda: state_header(state),
        lambda: write_state(state, folder / "x.solverstate", "x.caffemodel"),
        lambda: write_weights(model, folder / "x.caffemodel", _net_message()),
    )


def _read_weights(folder: Path) -> None:
    from irv2caffe.weights.opening import open_weights

    (path,) = (path for path in folder.iterdir() if ".data-" not in path.name)
    with ExitStack() as stack:
        _, named = open_weights(path, stack)
        for tensor in named.tensors.values():
            # import-weights reads what has a shape of the net's
            if math.prod(tensor.shape) < 1 << 20:
                tensor.raw.read()


def _arrays() -> dict[str, np.ndarray]:
    return {
        "conv2d_1a.conv.weight": RNG.normal(size=(4, 3, 3, 3)).astype("f4"),
        "conv2d_1a.bn.bias": RNG.normal(size=4).astype("f4"),
        "repeat.0.conv2d.bias": RNG.normal(size=5).astype("f2"),
        "classif.bias": RNG.normal(size=3),
    }


def _torch_files(_: Path) -> list[Seed]:
    import torch

    state = {name: torch.tensor(array) for name, array in _arrays().items()}
    state["conv2d_2a.conv.weight"] = torch.ones(2, 2).bfloat16().t()
    seeds = []
    for content in (state, {"state_dict": state, "epoch": 3, "args": "x"}):
        for is_zip in (True, False):
            stream = io.BytesIO()
            torch.save(content, stream, _use_new_zipfile_serialization=is_zip)
            seeds += _seeds("x.pth", stream.getvalue())
            if is_zip:
                seeds.append(_inside(stream.getvalue(), "x.pth", "/data.pkl"))
    return seeds


def _inside(archive: bytes, name: str, member: str) -> Seed:
    """A seed whose damage is done to one member of a zip, with checksums that fit."""
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        content = {info.filename: files.read(info) for info in files.infolist()}
    (inner,) = (each for each in content if each.endswith(member))

    def pack(data: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as out:
            for each, old in content.items():
                out.writestr(each, data if each == inner else old)
        return stream.getvalue()

    return Seed({name: content[inner]}, packed={name: pack})


def _safetensors(_: Path) -> list[Seed]:
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in _arrays().items()}
    whole = save(arrays, {"format": "pt"})
    size = int.from_bytes(whole[:8], "little")
    values = whole[8 + size :]
    headed = Seed(
        {"x.safetensors": whole[8 : 8 + size]},
        packed={"x.safetensors": lambda data: len(data).to_bytes(8, "little") + data + values},
    )
    return [*_seeds("x.safetensors", whole), headed]


_KERAS = {
    "old": ("model_weights/conv2d/conv2d/kernel:0", "model_weights/conv2d/conv2d/bias:0"),
    "new": ("layers/conv2d/vars/0", "layers/batch_normalization/vars/1", "optimizer/vars/0"),
}


def _hdf5(folder: Path, **options) -> list[bytes]:
    import h5py

    files = []
    for names in _KERAS.values():
        path = folder / "made.h5"
        with h5py.File(path, "w", **options) as file:
            for number, name in enumerate(names):
                file.create_dataset(name, data=RNG.normal(size=(2, number + 1)).astype("f4"))
            file.attrs["layer_names"] = [b"conv2d", b"dense"]
            file.create_dataset(
                "c/gamma:0", data=np.ones(40, "f4"), compression="gzip", chunks=(7,)
            )
            file.create_dataset("c/words", data=["a", "bc"], dtype=h5py.string_dtype())
        files.append(path.read_bytes())
    return files


def _hdf5_seeds(folder: Path) -> list[Seed]:
    return _seeds("x.h5", *_hdf5(folder), *_hdf5(folder, libver="latest"))


def _keras_archives(folder: Path) -> list[Seed]:
    seeds = []
    for data in _hdf5(folder):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", data)
        seeds += _seeds("x.keras", stream.getvalue())
        seeds.append(_inside(stream.getvalue(), "x.keras", "model.weights.h5"))
    return seeds


def _checkpoints(_: Path) -> list[Seed]:
    import google_crc32c

    from helpers.tf_table import table
    from irv2caffe.weights.files.tf_table import SortedTable

    real = FILES / "tf_checkpoints"
    seeds = []
    for first in ("v1.ckpt", "v2.ckpt.index", "two_shards.ckpt.index"):
        stem = first.removesuffix(".index")
        files = {path.name: path.read_bytes() for path in real.glob(f"{stem}*")}
        seeds.append(Seed(files, (first,)))
        read = SortedTable(memoryview(files[first]), real)
        entries = {key: bytes(read.value(where)) for key, where in read.entries()}
        for key in [b"", *sorted(entries)[1:4]]:  # one entry is damaged, the checksums fit

            def pack(data: bytes, key: bytes = key, entries=entries) -> bytes:
                return table(
                    {**entries, key: data}, compress=len(data) % 2 == 1, crc=google_crc32c.value
                )

            seeds.append(Seed({**files, first: entries[key]}, (first,), {first: pack}))
    return seeds


# Logs and run folders


def _logs(_: Path) -> list[Seed]:
    names = ("healthy", "two_tests", "steps", "nan", "stopped", "resumed", "debug_info")
    logs = [(FILES / f"logs/{name}.log").read_bytes() for name in names]
    packers = ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress))
    seeds = _seeds("x.log", *logs)
    for suffix, pack in packers:
        seeds.append(Seed({f"x.log{suffix}": pack(logs[0])}))
        seeds.append(Seed({f"x.log{suffix}": logs[1]}, packed={f"x.log{suffix}": pack}))
    return seeds


def _read_log(folder: Path) -> None:
    from irv2caffe.plot.session import Request

    (path,) = folder.iterdir()
    out = folder.with_name("out")
    request = Request(
        [path],
        csv=out / "x.csv",
        jsonl=out / "x.jsonl",
        html=out / "x.html",
        tensorboard=out / "events",
        unknown=out / "unknown.txt",
    )
    _each(lambda: _plot(request), lambda: _diagnose(path))


def _diagnose(path: Path) -> None:
    from irv2caffe.diagnose.diagnosis import diagnose
    from irv2caffe.diagnose.gather import Request, gather
    from irv2caffe.diagnose.text import diagnosis_lines

    diagnosis = diagnose(gather(Request(path, num_train_images=64, reads_databases=False)))
    diagnosis_lines(diagnosis)
    json.dumps(diagnosis.as_dict())


def _plot(request) -> None:
    from irv2caffe.log.describe import config_lines, finding_lines, summary_items
    from irv2caffe.log.summary import summarize
    from irv2caffe.plot.session import PlotSession

    with PlotSession(request) as session:
        session.read()
        runs = session.runs()
        session.check_outputs(runs)
        for run in runs:
            summary = summarize(run.table)
            summary_items(summary)
            finding_lines(summary, run.log)
            if run.log is not None:
                config_lines(run.log)
        json.dumps(session.report(runs))
        session.write(runs)


def _tables(_: Path) -> list[Seed]:
    from irv2caffe.log.export import dump_csv
    from irv2caffe.log.read.reader import read_log
    from irv2caffe.log.table import make_table

    seeds = []
    for name in ("healthy", "two_tests"):
        stream = io.StringIO()
        dump_csv(stream, make_table(read_log(FILES / f"logs/{name}.log")))
        seeds += _seeds("x.csv", stream.getvalue().encode())
    return seeds


def _read_tables(folder: Path) -> None:
    from irv2caffe.log.export import read_csv
    from irv2caffe.log.summary import summarize

    _each(
        lambda: summarize(read_csv(folder / "x.csv")),
        lambda: _diagnose(folder / "x.csv"),
    )


def _run_folders(_: Path) -> list[Seed]:
    plan = {"gpus": [0, 1], "batch_size": 16, "effective_batch": 32, "nets": ["net.prototxt"]}
    plan |= {"databases": [{"source": "db", "num_records": 9, "shape": [3, 32, 32]}]}
    plan |= {"caffe": {"version": "1.0.0"}, "config": {"base_lr": {"value": 0.1, "source": "x"}}}
    config = {"gpus": "0,1", "plan": plan, "ending": "running", "why": "x", "num_train_images": 90}
    config |= {"options": {"keep_newest": 3, "stall_s": 60.0, "on_divergence": "stop"}}
    config |= {"caffe": {"image": "", "reason": "--caffe x", "root": "/nowhere"}}
    state = {"phase": "training", "progress": "20 of 90", "snapshot": "x_iter_20.solverstate"}
    owner = {
        "host": "h",
        "pid": 1,
        "began": "1",
        "child_pid": 0,
        "child_began": "",
        "container": "",
    }
    lines = [{"kind": "train", "iteration": 20, "loss": 1.5}, {"kind": "test", "iteration": 40}]
    log = (FILES / "logs/healthy.log").read_bytes()
    files = {
        "config.json": json.dumps(config, indent=2).encode(),
        "state.json": json.dumps(state).encode(),
        "lock": json.dumps(owner).encode(),
        "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode(),
        "solver.prototxt": b"# 1,000 training images = 3 epochs\nnet: 'net.prototxt'\n",
        "train.log": log,
    }
    damaged = ("config.json", "config.json", "state.json", "lock", "solver.prototxt")
    return [Seed(files, damaged)]


def _read_run(folder: Path) -> None:
    from irv2caffe.plot.session import Request
    from irv2caffe.train.plan.plan import TrainOptions
    from irv2caffe.train.plan.select_engine import EngineRequest
    from irv2caffe.train.run.options import LaunchOptions, SupervisionOptions, with_earlier_options
    from irv2caffe.train.run_dir.control import status, status_text
    from irv2caffe.train.run_dir.lock import read_owner
    from irv2caffe.train.run_dir.run_dir import RunDir, last_log

    run = RunDir(folder)

    def resume() -> None:
        options = LaunchOptions(TrainOptions(run_dir=folder), SupervisionOptions(), EngineRequest())
        with_earlier_options(folder, options, set())
        last_log(run)

    _each(
        lambda: status_text(status(run)),
        lambda: read_owner(run),
        resume,
        lambda: _plot(Request([folder])),
        lambda: _diagnose(folder),
    )


# What make-lmdb reads


def _png() -> bytes:
    from helpers.zoo import file_bytes, photo

    return file_bytes(photo(RNG, 12, 9), "png")


def _lists(_: Path) -> list[Seed]:
    lists = (b"a.png 0\nb c.png 1\n", b"a.png\t3\r\nd/e.png 4\r\n", "é.png 2\n".encode() * 9)
    labels = b"tench\ngoldfish\nwhite shark\n"
    extra = {"labels.txt": labels, "images/a.png": _png()}
    return [Seed({"list.txt": each, **extra}, ("list.txt", "labels.txt")) for each in lists]


def _read_list(folder: Path) -> None:
    from irv2caffe.data.sources import open_source

    images = folder / "images"
    _each(
        lambda: open_source(images, folder / "list.txt"),
        lambda: open_source(images, folder / "list.txt", labels=folder / "labels.txt"),
    )


def _tars(_: Path) -> list[Seed]:
    from helpers.archives import tar_bytes

    png = _png()
    inner = tar_bytes([(f"n01440764_{number}.JPEG", png) for number in range(3)])
    long = "l" * 150
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(f"é/{long}.png")
        info.size, info.pax_headers = len(png), {"comment": "x", "mtime": "1.5"}
        archive.addfile(info, io.BytesIO(png))
    gnu = io.BytesIO()
    with tarfile.open(fileobj=gnu, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo(f"a/{long}.png")
        info.size = len(png)
        archive.addfile(info, io.BytesIO(png))
    plain = tar_bytes([("a/1.png", png), ("b/2.png", png)])
    tars = (tar_bytes([("n01.tar", inner), ("n02.tar", inner)]), plain, stream.getvalue())
    seeds = _seeds("x.tar", *tars, gnu.getvalue())
    return [*seeds, *(Seed(seed.files, packed={"x.tar": _sealed_tar}) for seed in seeds)]


def _sealed_tar(data: bytes) -> bytes:
    """The checksum of each block that looks like a header is put right."""
    out = bytearray(data)
    for start in range(0, len(out) - 511, 512):
        if out[start + 257 : start + 262] == b"ustar":
            out[start + 148 : start + 156] = b" " * 8
            total = sum(out[start : start + 512])
            out[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(out)


def _read_source(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from irv2caffe.data.sources import open_source

        source = open_source(folder / name if name else folder)
        list(source.items)

    return read


def _cifar_folders(_: Path) -> list[Seed]:
    import pickle

    from helpers.archives import cifar_binary, cifar_pickle, tar_bytes

    seeds = []
    pixels = RNG.integers(0, 256, (1, 3, 32, 32), np.uint8)
    for hundred in (False, True):
        key = b"fine_label_names" if hundred else b"label_names"
        python = {
            "meta" if hundred else "batches.meta": pickle.dumps({key: [b"a", b"b"]}, protocol=2)
        }
        binary = {"fine_label_names.txt" if hundred else "batches.meta.txt": b"a\nb\n"}
        names = ["train"] if hundred else [f"data_batch_{number}" for number in range(1, 6)]
        for name in names:
            python[name] = cifar_pickle(pixels, [1], hundred)
            binary[f"{name}.bin"] = cifar_binary(pixels, [1], hundred)
        for kind, files in (("python", python), ("binary", binary)):
            seeds.append(Seed({f"cifar/{name}": data for name, data in files.items()}))
            packed = f"cifar-{'100' if hundred else '10'}-{kind}.tar.gz"
            tar = tar_bytes([(f"cifar/{name}", data) for name, data in files.items()])
            seeds.append(Seed({packed: gzip.compress(tar)}))
            seeds.append(Seed({packed: tar}, packed={packed: lambda data: gzip.compress(data, 1)}))
    return seeds


def _read_cifar(folder: Path) -> None:
    from irv2caffe.data.sources import open_source

    (path,) = folder.iterdir()
    list(open_source(path).items)


def _idx_files(_: Path) -> list[Seed]:
    from helpers.archives import idx_bytes

    images = idx_bytes(RNG.integers(0, 256, (3, 5, 4), np.uint8))
    labels = idx_bytes(np.arange(3))
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    plain = dict(zip(names, (images, labels), strict=True))
    packed = {f"{name}.gz": data for name, data in plain.items()}
    return [Seed(plain), Seed(packed, packed=dict.fromkeys(packed, gzip.compress))]


def _devkits(_: Path) -> list[Seed]:
    from helpers.archives import tar_bytes

    name = "data/ILSVRC2012_validation_ground_truth.txt"
    truth = b"173\n449\n721\n1000\n"
    archive = tar_bytes([(f"ILSVRC2012_devkit_t12/{name}", truth)], "w:gz")
    return [Seed({name: truth}), Seed({"devkit.tar.gz": archive})]


def _read_devkit(folder: Path) -> None:
    from irv2caffe.data.sources.devkit import read_devkit

    archive = folder / "devkit.tar.gz"
    read_devkit(archive if archive.exists() else folder)


def _images(_: Path) -> list[Seed]:
    from helpers.zoo import file_bytes, photo, with_orientation

    kinds = ("png", "webp", "bmp", "ppm", "jpeg2000")
    files = [file_bytes(photo(RNG, 20, 16), kind) for kind in kinds]
    files += [file_bytes(photo(RNG, 20, 16), "tiff", compression="tiff_lzw")]
    files += [file_bytes(photo(RNG, 40, 30, mode), "jpeg") for mode in ("RGB", "L", "CMYK")]
    files += [file_bytes(photo(RNG, 40, 30), "jpeg", progressive=True)]
    files += [file_bytes(photo(RNG, 40, 30), "jpeg", exif=with_orientation(6))]
    return _seeds("x.img", *files)


def _read_image(folder: Path) -> None:
    from irv2caffe.data.options import BuildOptions
    from irv2caffe.data.records.headers import image_kind, is_cut_short, read_jpeg_header
    from irv2caffe.data.records.image import UndecodableImageError
    from irv2caffe.data.records.items import Item
    from irv2caffe.data.records.record import RecordBuffer, RecordMaker

    data = (folder / "x.img").read_bytes()
    kind = image_kind(data)
    is_cut_short(data, kind, read_jpeg_header(data) if kind == "jpg" else None)
    ways = [BuildOptions(size=(16, 16)), BuildOptions(size=None, encoded="jpg", gray=True)]
    ways += [BuildOptions(size=(8, 8), encoded="png", fast_decode=True)]
    ways += [BuildOptions(size=None, encoded="jpg", exactly_like_caffe=True)]
    for way in ways:
        try:
            RecordMaker(way, folder).make(
                Item("x.img", 7), 0, RecordBuffer(np.zeros(100_000, np.uint8))
            )
        except UndecodableImageError as error:
            raise Irv2CaffeError(str(error)) from error


# Databases and what lies beside them


def _datum_values() -> list[bytes]:
    from irv2caffe.proto.messages import Datum

    raw = Datum(channels=3, height=4, width=5, label=2, data=bytes(60))
    floats = Datum(channels=1, height=2, width=2, label=1, float_data=[0.5] * 4)
    encoded = Datum(label=3, encoded=True, data=_png())
    return [each.SerializeToString() for each in (raw, floats, encoded)]


def _read_datum(folder: Path) -> None:
    from irv2caffe.data.records.datum import parse_datum, read_head
    from irv2caffe.data.records.decode import encoding_of, stored_pixels
    from irv2caffe.data.records.image import UndecodableImageError

    value = (folder / "record").read_bytes()

    def pixels() -> None:
        try:
            stored_pixels(value)
        except UndecodableImageError as error:
            raise Irv2CaffeError(str(error)) from error

    _each(lambda: encoding_of(read_head(value), value), lambda: parse_datum(value), pixels)


def _databases(folder: Path) -> list[Seed]:
    import lmdb

    seeds = []
    for count, values in ((3, _datum_values()), (200, _datum_values()), (12, [bytes(9000)])):
        place = folder / f"db{count}"
        with lmdb.open(str(place), map_size=1 << 22) as database:
            for number in range(count):
                with database.begin(write=True) as transaction:
                    transaction.put(b"%08d_x" % number, values[number % len(values)])
        manifest = {"num_images": count, "max_label": 3, "num_classes": 4, "mean_values": [1.0]}
        files = {
            "db/data.mdb": (place / "data.mdb").read_bytes(),
            "db/manifest.json": json.dumps(manifest).encode(),
            "db/labels.txt": b"a\nb\nc\nd\n",
        }
        seeds.append(Seed(files, ("db/data.mdb",)))
    return seeds


def _read_database(folder: Path) -> None:
    from irv2caffe.data.inspect.sandbox import Guard

    with Guard() as guard:
        guard.call("examine", [folder / "db"], {"sample": 50})


def _side_files(folder: Path) -> list[Seed]:
    return [
        Seed(seed.files, ("db/manifest.json", "db/labels.txt")) for seed in _databases(folder)[:1]
    ]


def _read_side_files(folder: Path) -> None:
    from irv2caffe.data.inspect.database import read_pair
    from irv2caffe.data.inspect.database_report import examine
    from irv2caffe.data.inspect.sample import sample_database

    path = folder / "db"
    _each(
        lambda: json.dumps(asdict(examine(path))),
        lambda: sample_database(path),
        lambda: read_pair(path, path),
    )


def _partials(folder: Path) -> list[Seed]:
    from irv2caffe.data.build.state import State, write_state

    seeds = []
    database = _databases(folder)[0].files["db/data.mdb"]
    for image in (None, np.zeros((2, 2, 3))):
        state, stream = State(), io.BytesIO()
        state.mean.image = image
        write_state(state, stream)
        plan = json.dumps({"fingerprint": "f", "inputs": {"size": [3, 4], "seed": 0}})
        files = {f"db.partial/state-{number}": stream.getvalue() for number in (2, 3)}
        files |= {"db.partial/plan.json": plan.encode(), "db.partial/data.mdb": database}
        seeds.append(Seed(files, tuple(name for name in files if not name.endswith(".mdb"))))
    return seeds


def _read_partial(folder: Path) -> None:
    from irv2caffe.data.build.partial import open_partial

    inputs = {"size": (3, 4), "seed": 1}
    with open_partial(folder / "db", "f", inputs, force=False, resume=True) as partial:
        partial.state().refuse_too_many_skipped(3)


def _means(_: Path) -> list[Seed]:
    from irv2caffe.data.records.mean import mean_blob

    blob = mean_blob(np.ones((3, 4, 4), np.float32))
    return _seeds("mean.binaryproto", blob.SerializeToString())


def _read_mean(folder: Path) -> None:
    from irv2caffe.net.mean_file import check_mean_file

    check_mean_file(folder / "mean.binaryproto", 3)


def _recipes(_: Path) -> list[Seed]:
    templates = sorted((ROOT / "templates").glob("*.toml"))
    return _seeds("x.toml", *(path.read_bytes() for path in templates))


def _read_recipe(folder: Path) -> None:
    from irv2caffe.config.recipes import load_recipe

    load_recipe(str(folder / "x.toml"))


def _misbehave(folder: Path) -> None:
    """Does what the input says, to see that it is noticed."""
    what = (folder / "x").read_bytes()
    if b"raise" in what:
        raise LookupError(what)
    if b"refuse" in what:
        raise Irv2CaffeError("no")
    if what == b"die":
        os.kill(os.getpid(), signal.SIGBUS)
    if what == b"grow":
        bytes(range(256)) * (9 << 20)
    while what == b"spin":
        pass


PROBE = Reader("probe", lambda _: _seeds("x", b"read"), _misbehave, (b"raise", b"refuse"))

_OF_NETS = _words(
    "layer{ layers{ input_dim: dim: type: bottom: top: include{ exclude{ phase:TEST stage: blobs{"
    " kernel_size: pad: stride: num_output: group: axis: power: dilation: batch_size: crop_size:"
    " reshape_param{shape{dim:0}} slice_point: 18446744073709551615 4294967295 -1 1e-45 # ' <"
)
_OF_LOGS = _words(
    "Iteration loss = Test net output #0: accuracy lr Snapshotting Optimization Done."
)
_OF_LOGS += (
    b"I1126 19:44:36.000001  1234 solver.cpp:228] ",
    b"*** Aborted at ",
    b"(* 1 = nan loss)",
)
_PICKLE = (b"\x80\x02", b"c__builtin__\neval\n", b"R", b"b", b"\x81", b"q\0", b"r\xff\xff\xff\x7f")
_PICKLE += (b"\x8a\xff", b"\x8b\xff\xff\xff\x7f", b"(", b"t", b"]", b"}", b"s", b"u", b"h\0", b"Q")
_PICKLE += (b"X\xff\xff\xff\x7f", b"ctorch._utils\n_rebuild_tensor_v2\n", b"\x8d" + b"\xff" * 8)
_PROTO = (b"\x08", b"\x0a", b"\x22", b"\x2a", b"\x3a", b"\xa2\x06", b"\xff" * 9 + b"\x01", b"\x0b")
_JSON = _words('null true [] {} "" -1 1e999 NaN Infinity "dtype" "shape" "data_offsets" "\\ud800"')
_TAR = (
    b"ustar\x0000",
    b"x",
    b"L",
    b"S",
    b"g",
    b"5",
    b"2",
    b"77777777777\0",
    b"\x80" + b"\xff" * 11,
)
_TAR += (b"30 path=../../x\n", b"27 GNU.sparse.map=0,0\n", b"20 size=99999999999\n")
_IMAGE = (b"\xff\xd8", b"\xff\xc0", b"\xff\xda", b"\xff\xc4", b"\xff\xdb", b"\xff\xd9", b"\xff\xff")
_IMAGE += (b"IHDR", b"IDAT", b"acTL", b"iCCP", b"RIFF", b"VP8X", b"II*\0", b"GIF89a", b"Exif\0\0")
_HDF5 = (b"\x89HDF\r\n\x1a\n", b"TREE", b"SNOD", b"HEAP", b"OHDR", b"FRHP", b"BTHD", b"\xff" * 8)

READERS = {
    reader.name: reader
    for reader in (
        Reader("net", lambda _: _seeds("net.prototxt", *_nets()), _read_net, _OF_NETS, text=True),
        Reader("solver", _solvers, _read_solver, _OF_NETS, text=True),
        Reader("caffemodel", _models, _read_model, _PROTO),
        Reader("solverstate", _states, _read_state, _PROTO),
        Reader("hdf5-snapshot", _hdf5_snapshots, _read_hdf5_snapshot, _HDF5),
        Reader("torch", _torch_files, _read_weights, _PICKLE, share=0.5),
        Reader("safetensors", _safetensors, _read_weights, _JSON, text=True),
        Reader("hdf5", _hdf5_seeds, _read_weights, _HDF5),
        Reader("keras", _keras_archives, _read_weights, (*_HDF5, b"PK\x01\x02", b"PK\x03\x04")),
        Reader("checkpoint", _checkpoints, _read_weights, _PROTO),
        Reader("log", _logs, _read_log, _OF_LOGS, text=True, share=0.5),
        Reader("table", _tables, _read_tables, text=True),
        Reader("run-folder", _run_folders, _read_run, _JSON, text=True),
        Reader("list", _lists, _read_list, text=True),
        Reader("tar", _tars, _read_source("x.tar"), _TAR),
        Reader("cifar", _cifar_folders, _read_cifar, (*_PICKLE, *_TAR)),
        Reader("idx", _idx_files, _read_source("")),
        Reader("devkit", _devkits, _read_devkit, _TAR, text=True),
        Reader("image", _images, _read_image, _IMAGE),
        Reader("lmdb", _databases, _read_database, share=0.02),
        Reader("database-files", _side_files, _read_side_files, _JSON, text=True, share=0.02),
        Reader("partial", _partials, _read_partial, _JSON, text=True, share=0.5),
        Reader("datum", lambda _: _seeds("record", *_datum_values()), _read_datum, _PROTO),
        Reader("mean", _means, _read_mean, _PROTO),
        Reader("recipe", _recipes, _read_recipe, text=True),
    )
}
