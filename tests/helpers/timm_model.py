"""timm's Inception-ResNet-v2, without torchvision: there is none beside the tested PyTorch.

timm imports torchvision for its data pipelines only, of which the model has no need.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types

import numpy as np


class _Anything(type):
    """A class with any attribute."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class _Stub(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Stub(spec.name)

    def exec_module(self, module):
        pass


def make_model(num_classes=1000, seed=0):
    """The model with random weights; its activations stay of a size through all its layers."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        from timm.models.inception_resnet_v2 import InceptionResnetV2
    finally:
        sys.meta_path.remove(finder)
    import torch

    torch.manual_seed(seed)
    model = InceptionResnetV2(num_classes=num_classes)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, std=0.025)
            elif isinstance(module, torch.nn.BatchNorm2d):
                size = module.num_features
                module.weight.copy_(torch.tensor(rng.uniform(0.5, 1.5, size)))
                module.bias.copy_(torch.tensor(rng.normal(0, 0.2, size)))
                module.momentum = 1.0  # the statistics of one batch, below
        model.train()
        model(torch.tensor(images(4, 139, seed + 1)))
    return model.eval()


def images(count, side, seed):
    """RGB from -1 to 1, smooth as photographs are: noise of many sizes."""
    rng = np.random.default_rng(seed)
    total = np.zeros((count, 3, side, side), np.float32)
    for cells in (2, 5, 16, side):
        noise = rng.uniform(-1, 1, (count, 3, cells, cells)).astype(np.float32)
        index = np.arange(side) * cells // side
        total += noise[:, :, index][:, :, :, index]
    return np.clip(total / 2, -1, 1)
