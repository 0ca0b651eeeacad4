"""CIFAR-100 with a small net for a few epochs.

Reads DATA/cifar100: ``fine_label_names.txt`` and mosaics ``train-NN.jpg`` and ``test-NN.jpg`` of
50x50 images each, sorted by class.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gpu_parts import commands

if TYPE_CHECKING:
    from pathlib import Path

    from gpu_check import Report

EPOCHS = 6
BATCH = 128
JOB = (
    *("--variant", "small32", "--batch-size", BATCH, "--test-batch-size", 100),
    *("--epochs", EPOCHS, "--test-epochs", 2, "--snapshot-epochs", EPOCHS),
    *("--lr-decay-epochs", 1, "--lr-decay", 0.7, "--bn-fraction", 0.95),
)


def run(report: Report, args: Any) -> None:
    """Reports errors, time and images a second."""
    work = report.folder()
    (work / "images").mkdir(parents=True)
    unpack(args.data / "cifar100", work / "images")
    for split in ("train", "val"):
        words = ("make-lmdb", "images", f"{split}_lmdb", "--split", split, "--resize", 36)
        commands.irv2caffe(*words, cwd=work)
    data = ("--train-lmdb", "train_lmdb", "--val-lmdb", "val_lmdb")
    commands.irv2caffe("build-net", "--out", "net", *data, *JOB, cwd=work)
    log = args.out / "cifar.log"
    flags = ("-solver", "net/solver.prototxt", "-gpu", 0, "--precision", "bf16", "--shuffle")
    seconds = commands.engine(*flags, cwd=work, log=log)
    report.add(f"{EPOCHS} epochs with start and tests", seconds, "s")
    report.add("images", EPOCHS * 50_000 / seconds, "images/s, start and tests included")
    for name, values in commands.tests(log).items():
        if "top" in name:
            errors = [round(100 - 100 * value, 1) for value in values]
            report.add(f"errors by {name}", errors, "%")


def unpack(mosaics: Path, out: Path) -> None:
    """Writes the binary version of CIFAR-100: coarse label (0), label, planes of R, G, B."""
    for split, each in (("train", 500), ("test", 100)):
        images = np.concatenate([_cut(path) for path in sorted(mosaics.glob(f"{split}-*.jpg"))])
        labels = np.arange(len(images)) // each
        records = np.zeros((len(images), 2 + 3072), np.uint8)
        records[:, 1] = labels
        records[:, 2:] = images[..., ::-1].transpose(0, 3, 1, 2).reshape(len(images), -1)
        (out / f"{split}.bin").write_bytes(records.tobytes())
    shutil.copy(mosaics / "fine_label_names.txt", out)


def _cut(path: Path) -> np.ndarray:
    mosaic = cv2.imread(str(path))
    assert mosaic is not None
    rows = mosaic.reshape(50, 32, 50, 32, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(2500, 32, 32, 3)
