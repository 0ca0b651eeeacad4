"""ILSVRC's, CIFAR's and MNIST's files in small, in the formats of their publishers."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np
from PIL import Image

from helpers.zoo import file_bytes, photo

WNIDS = ("n01440764", "n01443537", "n02085620", "n03000134")


def add(archive, name, data, **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


def tar_bytes(files, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data in files:
            add(archive, name, data)
    return stream.getvalue()


def ilsvrc_train(path, rng, per_class=5):
    """A tar of tars, as ILSVRC2012_img_train.tar; the images by their names."""
    images = {}
    inner = []
    for wnid in reversed(WNIDS):
        files = []
        for number in range(per_class):
            data = file_bytes(photo(rng, 60 + number, 50), "jpeg")
            files.append((f"{wnid}_{number}.JPEG", data))
            images[f"{wnid}/{wnid}_{number}.JPEG"] = data
        inner.append((f"{wnid}.tar", tar_bytes(files)))
    path.write_bytes(tar_bytes(inner))
    return images


def ilsvrc_val(path, rng, count=8):
    """As ILSVRC2012_img_val.tar."""
    files = [
        (f"ILSVRC2012_val_{number:08d}.JPEG", file_bytes(photo(rng, 50, 60), "jpeg"))
        for number in range(1, count + 1)
    ]
    path.write_bytes(tar_bytes(files))
    return dict(files)


# ILSVRC2012_ID of the validation images: Chihuahua, tench, chainlink fence, goldfish, ...
GROUND_TRUTH = (173, 449, 721, 450, 450, 721, 449, 173)
VAL_LABELS = (2, 0, 3, 1, 1, 3, 0, 2)  # the same in WNIDS, worked out by hand
# The same among all 1,000 classes, in the order that networks trained on ImageNet use.
ALL_LABELS = (151, 0, 489, 1, 1, 489, 0, 151)


def devkit(folder):
    """ILSVRC2012_devkit_t12.tar.gz, as far as it is read."""
    truth = "".join(f"{number}\n" for number in GROUND_TRUTH).encode()
    files = [
        ("ILSVRC2012_devkit_t12/readme.txt", b"words"),
        ("ILSVRC2012_devkit_t12/data/meta.mat", b"MATLAB 5.0 MAT-file"),
        ("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth),
    ]
    path = folder / "ILSVRC2012_devkit_t12.tar.gz"
    path.write_bytes(tar_bytes(files, "w:gz"))
    return path


CIFAR_CLASSES = ("airplane", "automobile", "bird")


def cifar(folder, rng, *, hundred, python):
    """(archive, images, labels) of the training files; images are count x 32 x 32 x 3, RGB."""
    names = ["train"] if hundred else [f"data_batch_{number}" for number in range(1, 6)]
    test = "test" if hundred else "test_batch"
    suffix = "" if python else ".bin"
    files, images, labels = [], [], []
    for name in [*names, test]:
        pixels = rng.integers(0, 256, (4, 3, 32, 32), np.uint8)
        fine = [int(label) for label in rng.integers(0, 3, 4)]
        if name != test:
            images.append(pixels.transpose(0, 2, 3, 1))
            labels += fine
        maker = cifar_pickle if python else cifar_binary
        files.append((f"cifar/{name}{suffix}", maker(pixels, fine, hundred)))
    if python:
        key = "fine_label_names" if hundred else "label_names"
        meta = {key.encode(): [name.encode() for name in CIFAR_CLASSES]}
        name = "meta" if hundred else "batches.meta"
        files.append((f"cifar/{name}", pickle.dumps(meta, protocol=2)))
    else:
        name = "fine_label_names.txt" if hundred else "batches.meta.txt"
        files.append((f"cifar/{name}", "\n".join([*CIFAR_CLASSES, ""]).encode()))
    version = f"cifar-{100 if hundred else 10}-{'python' if python else 'binary'}.tar.gz"
    (folder / version).write_bytes(tar_bytes(files, "w:gz"))
    return folder / version, np.concatenate(images), labels


def cifar_pickle(pixels, labels, hundred):
    batch = {
        b"data": pixels.reshape(len(pixels), 3072),
        b"fine_labels" if hundred else b"labels": labels,
        b"filenames": [f"image_{number}.png".encode() for number in range(len(pixels))],
        b"batch_label": b"training batch",
    }
    return pickle.dumps(batch, protocol=2)


def cifar_binary(pixels, labels, hundred):
    return b"".join(
        (b"\x07" if hundred else b"") + bytes([label]) + image.tobytes()
        for label, image in zip(labels, pixels, strict=True)
    )


def idx_bytes(array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def idx(folder, rng, count=10, compressed=True):
    """(images, labels) of the training files of MNIST's format."""
    result = None
    for split, number in (("train", count), ("t10k", 4)):
        images = rng.integers(0, 256, (number, 28, 28), np.uint8)
        labels = np.arange(number) % 5
        for name, data in (
            (f"{split}-images-idx3-ubyte", idx_bytes(images)),
            (f"{split}-labels-idx1-ubyte", idx_bytes(labels)),
        ):
            path = folder / (f"{name}.gz" if compressed else name)
            path.write_bytes(gzip.compress(data) if compressed else data)
        result = result or (images, labels)
    return result


def decoded(data):
    """B, G, R pixels of an image file, by Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))[:, :, ::-1]
