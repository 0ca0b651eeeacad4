"""A small net of six classes with its databases, to be evaluated; nothing is trained."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from helpers.program import run
from irv2caffe.data.lmdb_store import DatabaseWriter, open_reader
from irv2caffe.data.records.datum import raw_head, raw_tail, read_head, record_key
from irv2caffe.data.records.decode import stored_pixels

NAMES = ("ant", "bee & wasp", "<b>cat</b>", "dög", "eel", "fox")
NUM_VAL, NUM_TRAIN, SIDE, CROP = 45, 60, 14, 12
TRAIN_VAL = """
name: "small"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ crop_size: 12 mirror: true mean_value: 100 mean_value: 110 mean_value: 120
    scale: 0.01 }}
  data_param {{ source: "{root}/train" batch_size: 10 backend: LMDB }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ crop_size: 12 mean_value: 100 mean_value: 110 mean_value: 120 scale: 0.01 }}
  data_param {{ source: "{root}/val" batch_size: {batch} backend: LMDB }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 8 kernel_size: 3 stride: 2
    weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" {statistics} }}
layer {{ name: "relu" type: "ReLU" bottom: "bn" top: "bn" }}
layer {{ name: "fc" type: "InnerProduct" bottom: "bn" top: "fc"
  inner_product_param {{ num_output: 6 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "top-1" type: "Accuracy" bottom: "fc" bottom: "label" top: "top-1"
  include {{ phase: TEST }} }}
layer {{ name: "top-5" type: "Accuracy" bottom: "fc" bottom: "label" top: "top-5"
  accuracy_param {{ top_k: 5 }} include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""
BATCH_STATISTICS = "batch_norm_param { use_global_stats: false }"


def make_databases(root: Path) -> None:
    """Databases ``train`` and ``val`` of raw records, with their class tables."""
    rng = np.random.default_rng(5)
    for part, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        folder = root / part
        folder.mkdir()
        with DatabaseWriter(folder) as writer:
            for index in range(count):
                writer.put(record_key(index, f"{index}.png"), record_of(rng, index % 6))
        (folder / "labels.txt").write_text("\n".join(NAMES) + "\n")


def record_of(rng: np.random.Generator, label: int) -> bytes:
    """A raw record: noise that is brighter for higher labels."""
    planes = rng.integers(0, 120, (3, SIDE, SIDE)) + 25 * label
    planes = planes.astype(np.uint8)
    return raw_head(planes.shape) + planes.tobytes() + raw_tail(label)


def write_net(folder: Path, root: Path, *, batch: int = 15, statistics: str = "") -> Path:
    """Writes ``train_val.prototxt`` into a folder."""
    folder.mkdir(exist_ok=True)
    path = folder / "train_val.prototxt"
    path.write_text(TRAIN_VAL.format(root=root, batch=batch, statistics=statistics))
    return path


def caffe_test(net: Path, weights: Path, iterations: int) -> dict[str, str]:
    """What the real ``caffe test`` prints at its end, as it stands in the log."""
    done = run("caffe", "test", "-model", net, "-weights", weights, "-iterations", iterations)
    assert done.returncode == 0, done.stderr
    end = done.stderr[done.stderr.index("Loss: ") :]
    return dict(re.findall(r"\] (?:acc/)?(top-1|top-5|loss) = (\S+)", end))


def pixels_of(folder: Path) -> list[tuple[np.ndarray, int]]:
    """The images of a database, height x width x 3, with their labels, in their order."""
    with open_reader(folder) as reader:
        return [(stored_pixels(value), read_head(value).label or 0) for _, value in reader]


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []
