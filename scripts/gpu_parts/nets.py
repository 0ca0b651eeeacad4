"""The nets of the parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gpu_parts.commands import ROOT
from irv2caffe.engine.net import Net
from irv2caffe.proto import messages
from irv2caffe.proto.text import parse_prototxt

if TYPE_CHECKING:
    from torch import Tensor

    from irv2caffe.engine.options import EngineOptions

MACS = 13.156e9  # multiply-adds of slim for an image of 299 pixels


def slim(batch: int, options: EngineOptions, device: str, *, dropout: bool = True) -> Net:
    """Inception-ResNet-v2 as templates/slim has it, for images of 299 pixels."""
    text = (ROOT / "templates/slim/train_val.prototxt").read_text()
    proto = parse_prototxt(text, messages.NetParameter)
    for layer in proto.layer:
        if layer.type == "Data":
            layer.data_param.batch_size = batch
        if layer.type == "Dropout" and not dropout:
            layer.dropout_param.dropout_ratio = 0
    torch.manual_seed(0)
    return Net(proto, "TRAIN", options, device=torch.device(device), data_shapes=_record)


def _record(layer: Any) -> Any:
    return ((3, 328, 328), (1,)) if layer.type == "Data" else None


def random_batch(batch: int, device: str) -> dict[str, Tensor]:
    """Images of noise with labels."""
    generator = torch.Generator().manual_seed(1)
    data = torch.rand(batch, 3, 299, 299, generator=generator) * 2 - 1
    label = torch.randint(0, 1000, (batch,), generator=generator).float()
    return {"data": data.to(device), "label": label.to(device)}
