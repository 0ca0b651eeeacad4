"""From an image file to the input of the net, as preprocessing.json says.

Needs numpy, and OpenCV or Pillow. With Pillow, a bilinear resize is OpenCV's to one of 255 levels;
other kinds of resizing are Pillow's own.
"""

import json
from pathlib import Path

import numpy as np

try:
    import cv2
except ImportError:
    cv2 = None

HERE = Path(__file__).resolve().parent


def read_json(name):
    """A JSON file beside this one."""
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def class_names():
    """The name of each class; empty if the bundle has none."""
    try:
        text = (HERE / "labels.txt").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.split("\n") if line.strip()]


def prepare(path):
    """The input for one image file: float32, 1 x channels x height x width."""
    made = read_json("preprocessing.json")
    image = decode(path, made["channels"])
    if made["resize"]:
        image = resize(image, **made["resize"])
    crop = made["crop"]
    top = (image.shape[0] - crop["height"]) // 2
    left = (image.shape[1] - crop["width"]) // 2
    if top < 0 or left < 0:
        raise SystemExit(f"{path} is smaller than the input of the net")
    area = (slice(top, top + crop["height"]), slice(left, left + crop["width"]))
    planes = image[area].astype(np.float32).transpose(2, 0, 1)
    if "mean_file" in made:  # an image of its own
        mean = np.load(HERE / "mean.npy")[(slice(None), *area)]
    else:
        mean = np.array(made["mean"], np.float32).reshape(-1, 1, 1)
    return np.ascontiguousarray((planes - mean) * np.float32(made["scale"]))[None]


def decode(path, channels):
    """The pixels, height x width x channels: B, G, R or gray, 0 to 255."""
    if cv2 is not None:
        image = cv2.imread(path, cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise SystemExit(f"{path} cannot be read as an image")
        return image.reshape(image.shape[0], image.shape[1], -1)
    from PIL import Image, ImageOps

    image = Image.open(path)
    if image.format == "JPEG":
        image = ImageOps.exif_transpose(image)
    image = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return image.reshape(image.shape[0], image.shape[1], -1)[:, :, ::-1]


def resize(image, height, width, mode, interpolation):
    """Resizes in one of the four ways of preprocessing.json."""
    if mode == "squash":
        return scale(image, width, height, interpolation)
    factors = (float(width) / image.shape[1], float(height) / image.shape[0])
    if mode == "short-side":
        factor = float(min(width, height)) / min(image.shape[:2])
    else:
        factor = max(factors) if mode == "center-crop" else min(factors)
    inner_width, inner_height = (max(1, round(side * factor)) for side in image.shape[1::-1])
    if mode == "short-side":
        return scale(image, inner_width, inner_height, interpolation)
    if mode == "center-crop":
        whole = scale(image, max(inner_width, width), max(inner_height, height), interpolation)
        top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
        return whole[top : top + height, left : left + width]
    whole = scale(image, min(inner_width, width), min(inner_height, height), interpolation)
    canvas = np.full((height, width, image.shape[2]), 127, np.uint8)
    top, left = (height - whole.shape[0]) // 2, (width - whole.shape[1]) // 2
    canvas[top : top + whole.shape[0], left : left + whole.shape[1]] = whole
    return canvas


def scale(image, width, height, interpolation):
    """Resizes to a width and height."""
    if cv2 is not None:
        kinds = {"linear": "LINEAR", "area": "AREA", "cubic": "CUBIC", "lanczos": "LANCZOS4"}
        kind = getattr(cv2, "INTER_" + kinds.get(interpolation, "NEAREST"))
        return cv2.resize(image, (width, height), interpolation=kind).reshape(height, width, -1)
    if interpolation == "linear":
        return bilinear(image, width, height)
    from PIL import Image

    kinds = {"area": Image.BOX, "cubic": Image.BICUBIC, "lanczos": Image.LANCZOS}
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image[:, :, plane])).resize(
                (width, height), kinds.get(interpolation, Image.NEAREST)
            )
        )
        for plane in range(image.shape[2])
    ]
    return np.stack(planes, axis=2)


def bilinear(image, width, height):
    """OpenCV's INTER_LINEAR: pixel centres at halves, no smoothing before shrinking."""
    result = image.astype(np.float32)
    for axis, size in ((0, height), (1, width)):
        length = result.shape[axis]
        places = (np.arange(size) + 0.5) * length / size - 0.5
        first = np.floor(places).astype(int)
        share = (places - first).astype(np.float32)
        share = share.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        low = np.take(result, np.clip(first, 0, length - 1), axis)
        high = np.take(result, np.clip(first + 1, 0, length - 1), axis)
        result = low + (high - low) * share
    return np.clip(np.floor(result + 0.5), 0, 255).astype(np.uint8)


def show(path, probabilities):
    """Prints the three most probable classes."""
    names = class_names()
    values = np.asarray(probabilities).ravel()
    for number in np.argsort(-values, kind="stable")[:3]:
        name = names[number] if number < len(names) else ""
        print(path, number, name, f"{values[number]:.4f}", sep="\t")
