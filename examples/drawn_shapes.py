"""Draws ten classes of simple shapes, for machines that can reach no data set.

Usage: python drawn_shapes.py OUT [--train N] [--val N] [--pictures N] [--new N] [--seed N]

OUT gets ``train/CLASS/*.png`` and ``val/CLASS/*.png``, 96x96 colour images: the shape in a random
place, size, tilt and colour over a noisy background with distracting lines. With ``--pictures`` it
gets ``pictures/CLASS/*.png``, which nobody has divided yet, and ``new/CLASS/*.png``, of five of
the classes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np

SIZE = 96
QUARTERS = np.arange(4) * np.pi / 2
POLYGONS = {"triangle": 3, "square": 4, "pentagon": 5}
CLASSES = (*POLYGONS, "disc", "ring", "ellipse", "cross", "star", "arrow", "tee")
FEW_CLASSES = ("disc", "ring", "cross", "star", "triangle")


def outline(name: str) -> np.ndarray:
    """Corners of a shape on the unit circle, float Nx2."""
    if name == "cross":
        quarter = np.array([(0.25, 1), (0.25, 0.25), (1, 0.25)])
        turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in QUARTERS]
        return np.concatenate([quarter @ turn for turn in turns])
    if name == "arrow":
        return np.array(
            [(-1, 0.2), (0.1, 0.2), (0.1, 0.7), (1, 0), (0.1, -0.7), (0.1, -0.2), (-1, -0.2)]
        )
    if name == "tee":
        return np.array(
            [(-1, -0.9), (-1, 0.9), (-0.5, 0.9), (-0.5, 0.25), (1, 0.25), (1, -0.25),
             (-0.5, -0.25), (-0.5, -0.9)]
        )  # fmt: skip
    corners = 10 if name == "star" else POLYGONS[name]
    angle = np.arange(corners) * 2 * np.pi / corners
    radius = np.where(np.arange(corners) % 2, 0.4, 1.0) if name == "star" else np.ones(corners)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def draw(name: str, rng: np.random.Generator) -> np.ndarray:
    """One image of a class, uint8 96x96x3."""
    background = rng.uniform(40, 215)
    image = rng.normal(background, 25, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
    for _ in range(2):
        start, end = rng.integers(0, SIZE, (2, 2))
        color = rng.uniform(0, 255, 3).tolist()
        cv2.line(image, tuple(map(int, start)), tuple(map(int, end)), color, 1)
    color = ((background + rng.uniform(60, 200, 3)) % 255).tolist()  # never the background's own
    center = rng.uniform(0.4 * SIZE, 0.6 * SIZE, 2)
    radius = rng.uniform(0.25 * SIZE, 0.38 * SIZE)
    middle = (int(center[0]), int(center[1]))
    angle = rng.uniform(-0.4, 0.4)
    if name in {"disc", "ring"}:
        cv2.circle(image, middle, int(radius), color, -1 if name == "disc" else 5)
    elif name == "ellipse":
        axes = (int(radius), int(radius / 2.2))
        cv2.ellipse(image, middle, axes, float(np.degrees(angle)), 0, 360, color, -1)
    else:
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = outline(name) @ turn * radius + center
        cv2.fillPoly(image, [corners.round().astype(np.int32)], color)
    return image


def main() -> None:
    """Reads the arguments, draws aside, renames at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=6000, help="training images")
    parser.add_argument("--val", type=int, default=1000, help="validation images")
    parser.add_argument("--pictures", type=int, help="images, instead of training and validation")
    parser.add_argument("--new", type=int, default=20, help="further ones, beside --pictures")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.out.exists():
        raise SystemExit(f"{args.out} exists already")
    aside = args.out.with_name(f"{args.out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    rng = np.random.default_rng(args.seed)
    parts, classes = {"train": args.train, "val": args.val}, CLASSES
    if args.pictures:
        parts, classes = {"pictures": args.pictures, "new": args.new}, FEW_CLASSES
    for part, count in parts.items():
        for index in range(count):
            name = classes[index % len(classes)]
            path = aside / part / name / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), draw(name, rng)):
                raise SystemExit(f"cannot write {path}")
        print(f"{part}: {count:,} images in {len(classes)} classes", file=sys.stderr)
    aside.rename(args.out)


if __name__ == "__main__":
    main()
