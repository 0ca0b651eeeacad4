"""``forward``: runs a net on the images that another process sends, as pycaffe would."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from irv2caffe.engine.model_files import load_model, save_model
from irv2caffe.engine.net import Net, Pass
from irv2caffe.engine.options import EngineOptions
from irv2caffe.errors import EXIT_FAILED, InputError, Irv2CaffeError
from irv2caffe.inference.worker import private_output, serve, softmax_gradient
from irv2caffe.proto.text import read_net

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray


def run(work: dict[str, Any]) -> int:
    """Answers requests on the standard input; returns the exit code.

    Args:
        work: ``net`` and ``weights``, paths; ``phase``; ``input``, name of the input blob;
            ``blobs`` to return; ``gpu``, a number or None.
    """
    answers = private_output()
    try:
        net = _ForwardNet(work)
        serve(net, sys.stdin.buffer, answers, net.title)
    except Irv2CaffeError as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return error.exit_code
    except (RuntimeError, MemoryError) as error:  # torch's errors have no class of their own
        sys.stderr.write(" ".join(str(error).split())[:2000] + "\n")
        return EXIT_FAILED
    return 0


class _ForwardNet:
    """A net of the engine that keeps its weights while the batch size changes."""

    def __init__(self, work: dict[str, Any]) -> None:
        self._device = _device(work["gpu"])
        torch.backends.cudnn.allow_tf32 = False  # which PyTorch allows: 10 bits of mantissa
        self._proto, _ = read_net(Path(work["net"]))
        self._work = work
        self._net = self._made(None)
        load_model(Path(work["weights"]), self._net)
        where = "the CPU" if work["gpu"] is None else torch.cuda.get_device_name(self._device)
        self.title = f"PyTorch {torch.__version__} on {where}"

    def _made(self, trained: Net | None) -> Net:
        return Net(
            self._proto, self._work["phase"], EngineOptions(), device=self._device, trained=trained
        )

    def forward(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The wanted blobs for a batch."""
        dims = self._proto.layer[0].input_param.shape[0].dim
        if tuple(dims) != images.shape:
            dims[:] = images.shape
            self._net = self._made(self._net)
        self._images = torch.from_numpy(np.array(images, np.float32)).to(self._device)
        with torch.no_grad():
            blobs = self._pass(self._work["blobs"]).blobs
        return {name: blobs[name].detach().cpu().numpy() for name in self._work["blobs"]}

    def _pass(self, keep: Collection[str] = ()) -> Pass:
        return self._net.forward({self._work["input"]: self._images}, keep_blobs=keep)

    def gradient(self, labels: NDArray[np.float32]) -> dict[str, float]:
        """The L2 norm of the gradient of each layer's weights, for the last images."""
        (scores,) = self._pass().outputs.values()
        diff = softmax_gradient(scores.detach().cpu().numpy(), labels)
        scores.backward(torch.from_numpy(diff).to(self._device))
        norms: dict[str, float] = {}
        for layer, blobs in self._net.weights.by_layer.items():
            grads = [blob.grad for blob in blobs if blob.is_leaf and blob.grad is not None]
            norms[layer] = float(sum(grad.double().square().sum() for grad in grads)) ** 0.5
            for blob in blobs:
                blob.grad = None
        return norms

    def save(self, path: str) -> None:
        """Writes the weights."""
        save_model(Path(path), self._net)


def _device(gpu: int | None) -> torch.device:
    if gpu is None:
        return torch.device("cpu")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu >= there:
        raise InputError(f"PyTorch {torch.__version__} sees {there} GPUs, no GPU {gpu}")
    return torch.device("cuda", gpu)
