"""Images a second that the input pipeline puts on the GPU, without a net."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from gpu_parts import commands
from gpu_parts.commands import ROOT
from irv2caffe.engine.data.feed import open_feed
from irv2caffe.engine.options import EngineOptions
from irv2caffe.proto import messages
from irv2caffe.proto.text import parse_prototxt

if TYPE_CHECKING:
    from pathlib import Path

    from gpu_check import Report

IMAGES = 512
BATCH = 128
SECONDS = 5.0


def run(report: Report, args: Any) -> None:  # noqa: ARG001
    """Reports them for raw and for JPEG records of 328x328 pixels."""
    work = report.folder()
    draw(work / "images/one")
    for name, flags in (("raw", ()), ("jpg", ("--encoded", "jpg"))):
        commands.irv2caffe("make-lmdb", "images", name, "--mean", "none", *flags, cwd=work)
        report.add(f"{name} records", rate(work / name), "images/s", batch=BATCH)
    shutil.rmtree(work)


def draw(folder: Path) -> None:
    """Images of smooth noise, which cost a decoder about what photos cost."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        image = np.zeros((328, 328, 3), np.float32)
        for cells in (4, 16, 64, 164):
            noise = rng.normal(0, 128 / cells**0.5, (cells, cells, 3)).astype(np.float32)
            image += cv2.resize(noise, (328, 328), interpolation=cv2.INTER_CUBIC)
        pixels = (image + 128).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])


def rate(database: Path) -> float:
    """Images a second of slim's training data."""
    text = (ROOT / "templates/slim/train_val.prototxt").read_text()
    proto = parse_prototxt(text, messages.NetParameter)
    for layer in proto.layer:
        if layer.type == "Data":
            layer.data_param.source = str(database)
            layer.data_param.batch_size = BATCH
    device = torch.device("cuda")
    with open_feed(proto, "TRAIN", EngineOptions(exact=False), device=device, seed=1) as feed:
        for _ in range(5):
            feed.next()
        torch.cuda.synchronize()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < SECONDS:
            feed.next()
            torch.cuda.synchronize()
            count += BATCH
        return count / (time.perf_counter() - start)
