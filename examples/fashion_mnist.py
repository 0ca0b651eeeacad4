"""Writes Fashion-MNIST, from its IDX files, as class folders of PNG files.

Usage: python fashion_mnist.py IDX_FOLDER OUT [--train N] [--val N]

IDX_FOLDER holds ``train-images-idx3-ubyte.gz`` and its three companions, as Debian's package
dataset-fashion-mnist has them. OUT gets ``train/CLASS/*.png`` and ``val/CLASS/*.png``.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import struct
import sys
from pathlib import Path

import cv2
import numpy as np

CLASSES = (
    "t_shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle_boot",
)  # fmt: skip


def read_idx(path: Path) -> np.ndarray:
    """The array in a gzipped IDX file of unsigned bytes."""
    data = gzip.decompress(path.read_bytes())
    zero, kind, num_dims = struct.unpack(">HBB", data[:4])
    if zero != 0 or kind != 8:
        raise SystemExit(f"{path} is no IDX file of bytes")
    shape = struct.unpack(f">{num_dims}I", data[4 : 4 + 4 * num_dims])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * num_dims).reshape(shape)


def write_images(images: np.ndarray, labels: np.ndarray, out: Path) -> None:
    """Writes one PNG per image into the folder of its class."""
    for name in CLASSES:
        (out / name).mkdir(parents=True)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = out / CLASSES[label] / f"{index:05d}.png"
        if not cv2.imwrite(str(path), image):
            raise SystemExit(f"cannot write {path}")


def main() -> None:
    """Reads the arguments, writes aside, renames at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("idx_folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=6000, help="training images (up to 60000)")
    parser.add_argument("--val", type=int, default=1000, help="validation images (up to 10000)")
    args = parser.parse_args()
    if args.out.exists():
        raise SystemExit(f"{args.out} exists already")
    aside = args.out.with_name(f"{args.out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    for part, prefix, count in (("train", "train", args.train), ("val", "t10k", args.val)):
        images = read_idx(args.idx_folder / f"{prefix}-images-idx3-ubyte.gz")[:count]
        labels = read_idx(args.idx_folder / f"{prefix}-labels-idx1-ubyte.gz")[:count]
        write_images(images, labels, aside / part)
        print(f"{part}: {len(images):,} images in {len(CLASSES)} classes", file=sys.stderr)
    aside.rename(args.out)


if __name__ == "__main__":
    main()
