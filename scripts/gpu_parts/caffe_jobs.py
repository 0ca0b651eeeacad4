"""What the parts of Caffe train: databases of made-up images, nets and solvers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.data.lmdb_store import DatabaseWriter
from irv2caffe.data.records.datum import record_key
from irv2caffe.proto import messages
from irv2caffe.proto.text import parse_prototxt, write_prototxt

if TYPE_CHECKING:
    from pathlib import Path

# A net without BatchNorm: its gradients are those of the images, however they are divided.
SMALL = """name: "small"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.0078125 mean_value: 128 }
  data_param { source: "images" batch_size: 16 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.0078125 mean_value: 128 }
  data_param { source: "images" batch_size: 16 backend: LMDB } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 16 kernel_size: 5 stride: 2 weight_filler { type: "msra" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 32 kernel_size: 3 group: 2 weight_filler { type: "msra" } } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2"
  pooling_param { pool: AVE global_pooling: true } }
layer { name: "fc" type: "InnerProduct" bottom: "pool2" top: "fc"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
SOLVER = {
    "net": '"net.prototxt"',
    "base_lr": "0.01",
    "lr_policy": '"fixed"',
    "momentum": "0.9",
    "display": "1",
    "random_seed": "1",
    "snapshot_after_train": "false",
}


def make_images(folder: Path, count: int, size: int, num_classes: int = 10) -> None:
    """A raw database of noise around a colour of each class.

    Args:
        folder: where to make it.
        count: number of images.
        size: their height and width.
        num_classes: number of labels.
    """
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, (num_classes, 3, 1, 1))
    folder.mkdir()
    with DatabaseWriter(folder, room_bytes=count * (3 * size * size + 8192) * 2) as writer:
        for index in range(count):
            label = index % num_classes
            noise = rng.integers(-40, 40, (3, size, size))
            datum = messages.Datum(channels=3, height=size, width=size, label=label)
            datum.data = (colours[label] + noise).astype(np.uint8).tobytes()
            writer.put(record_key(index, f"{index}"), datum.SerializeToString())


def write_solver(path: Path, **fields: object) -> Path:
    """A solver: the fields above, changed by what is given."""
    lines = {**SOLVER, **{name: str(value) for name, value in fields.items()}}
    path.write_text("".join(f"{name}: {value}\n" for name, value in lines.items()))
    return path


def take_own_layers(path: Path) -> None:
    """Writes ``engine: CAFFE`` into all layers of a net that have the choice."""
    net = parse_prototxt(path.read_text(), messages.NetParameter)
    for layer in net.layer:
        choose_own(layer)
    write_prototxt(path, net)


def choose_own(layer: Any) -> None:
    """Writes ``engine: CAFFE`` into a layer that has the choice."""
    name = messages.LAYER_TYPES.get(layer.type)
    field = layer.DESCRIPTOR.fields_by_name.get(name or "")
    if field is not None and "engine" in field.message_type.fields_by_name:
        param = getattr(layer, field.name)
        param.engine = param.CAFFE
