"""Nets of the torch engine, made of prototxts."""

from __future__ import annotations

import torch

from irv2caffe.engine.net import Net
from irv2caffe.engine.options import EngineOptions
from irv2caffe.proto import messages
from irv2caffe.proto.text import parse_prototxt


def make_net(text, phase="TRAIN", options=None, **more):
    """A net on the CPU."""
    proto = parse_prototxt(text, messages.NetParameter)
    return Net(proto, phase, options or EngineOptions(), device=torch.device("cpu"), **more)
