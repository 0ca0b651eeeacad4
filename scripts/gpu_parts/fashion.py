"""The demo's databases and net: Fashion-MNIST at 82 pixels with a narrow paper net."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from gpu_parts import commands
from gpu_parts.commands import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DATABASES = ("--train-lmdb", "data/train_lmdb", "--val-lmdb", "data/val_lmdb")
JOB = (
    *("--variant", "paper", "--crop", 75, "--width", 0.25, "--batch-size", 16),
    *("--bn-fraction", 0.95, "--test-epochs", 0.5, "--snapshot-epochs", 1),
    *("--lr-decay-epochs", 0.5),
)


def prepare(work: Path, idx_folder: Path, *, few: bool = False) -> None:
    """Makes ``data`` and ``net`` in a folder.

    Args:
        work: the folder.
        idx_folder: the four IDX files of Fashion-MNIST, of which 6,000 and 1,000 images are used.
        few: take 40 and 20 images, and two epochs in place of four.
    """
    images = [sys.executable, ROOT / "examples/fashion_mnist.py", idx_folder, "images"]
    images += ["--train", 40, "--val", 20] if few else []
    subprocess.run(list(map(str, images)), cwd=work, check=True)
    labels = ("--labels", "data/train_lmdb", "--no-shuffle")
    commands.irv2caffe("make-lmdb", "images/train", "data/train_lmdb", "--resize", 82, cwd=work)
    commands.irv2caffe(
        "make-lmdb", "images/val", "data/val_lmdb", "--resize", 82, *labels, cwd=work
    )
    epochs = ("--epochs", 2 if few else 4)
    commands.irv2caffe("build-net", "--out", "net", *DATABASES, *JOB, *epochs, cwd=work)
