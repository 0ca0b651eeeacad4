"""Batches of the engine's data layers against those of the real Caffe."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from helpers.databases import encoded, floats, raw, smooth, write_database
from helpers.feeds import caffe_batches, data_net, feed_of, taken

from irv2caffe.data.records.mean import mean_blob
from irv2caffe.errors import InputError
from irv2caffe.proto.binary import write_binary

HEIGHT, WIDTH, COUNT = 22, 27, 7  # of the records
CROP = 11


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder of databases, lists and means."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(3)
    images = [smooth(rng, HEIGHT, WIDTH) for _ in range(COUNT)]
    grays = [image[:, :, :1] for image in images]
    kinds = {
        "raw": [raw(image, label) for label, image in enumerate(images)],
        "gray": [raw(image, label) for label, image in enumerate(grays)],
        "jpg": [encoded(image, label) for label, image in enumerate(images)],
        "png": [encoded(image, label, "png") for label, image in enumerate(images)],
        "gray-jpg": [encoded(image, label) for label, image in enumerate(grays)],
        "mixed": [
            encoded(images[n] if n % 2 else grays[n], n, "png" if n % 3 else "jpg")
            for n in range(COUNT)
        ],
        "sizes": [encoded(smooth(rng, 12 + n, 20 - n), n) for n in range(COUNT)],
        "floats": [
            floats(rng.normal(0, 9, (3, HEIGHT, WIDTH)).astype("f4"), n) for n in range(COUNT)
        ],
    }
    for name, records in kinds.items():
        write_database(folder / name, records)
    mean = rng.uniform(90, 150, (3, HEIGHT, WIDTH)).astype("f4")
    write_binary(folder / "mean.binaryproto", mean_blob(mean))
    lines = []
    for n, image in enumerate(images):
        cv2.imwrite(str(folder / f"a b{n}.png"), image)
        lines.append(f"a b{n}.png {n}\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder


def list_net(folder, param="", transform=""):
    return (
        f'layer {{ name: "in" type: "ImageData" top: "data" top: "label" '
        f'transform_param {{ {transform} }} image_data_param {{ source: "{folder}/list.txt" '
        f'root_folder: "{folder}/" batch_size: 3 {param} }} }}'
    )


MEANS = "mean_value: 104 mean_value: 117.3 mean_value: 123"
CENTRE = f"crop_size: {CROP}"
CASES = {  # without random numbers: TRAIN without crop and mirror, or TEST
    "plain": ("TRAIN", data_net, "raw", ""),
    "one-mean": ("TRAIN", data_net, "raw", "mean_value: 99.7"),
    "means-scale": ("TRAIN", data_net, "raw", f"{MEANS} scale: 0.017"),
    "mean-file": ("TRAIN", data_net, "raw", 'mean_file: "MEAN" scale: 0.5'),
    "scale": ("TRAIN", data_net, "raw", "scale: 0.00390625"),
    "gray": ("TRAIN", data_net, "gray", "mean_value: 100"),
    "floats": ("TRAIN", data_net, "floats", f"{MEANS} scale: 0.3"),
    "jpg": ("TRAIN", data_net, "jpg", MEANS),
    "png": ("TRAIN", data_net, "png", 'mean_file: "MEAN"'),
    "gray-jpg": ("TRAIN", data_net, "gray-jpg", ""),
    "force-color": ("TRAIN", data_net, "mixed", "force_color: true"),
    "force-gray": ("TRAIN", data_net, "mixed", "force_gray: true scale: 0.1"),
    "force-raw": ("TRAIN", data_net, "raw", "force_gray: true"),
    "test-crop": ("TEST", data_net, "raw", f"{CENTRE} {MEANS}"),
    "test-crop-mean": ("TEST", data_net, "raw", f'{CENTRE} mean_file: "MEAN" scale: 2'),
    "test-crop-jpg": ("TEST", data_net, "jpg", f'{CENTRE} mean_file: "MEAN" scale: 2'),
    "test-crop-sizes": ("TEST", data_net, "sizes", f"{CENTRE} {MEANS} scale: 0.1"),
    "test-crop-floats": ("TEST", data_net, "floats", f'{CENTRE} mean_file: "MEAN"'),
    "list": ("TRAIN", list_net, "", MEANS),
    "list-sizes": ("TEST", list_net, "new_height: 30 new_width: 19", f"{CENTRE} scale: 3"),
    "list-gray": ("TRAIN", list_net, "is_color: false new_height: 9 new_width: 40", ""),
}
REFUSED = {
    "mixed": ("TRAIN", data_net, "mixed", ""),
    "large-crop": ("TRAIN", data_net, "raw", "crop_size: 23"),
    "two-means": ("TRAIN", data_net, "raw", f'mean_file: "MEAN" {MEANS}'),
    "number-of-means": ("TRAIN", data_net, "raw", "mean_value: 1 mean_value: 2"),
    "other-mean": ("TRAIN", data_net, "sizes", 'crop_size: 5 mean_file: "MEAN"'),
    "both-forced": ("TRAIN", data_net, "jpg", "force_gray: true force_color: true"),
    "missing": ("TRAIN", data_net, "no-such-database", ""),
    "sizes": ("TRAIN", data_net, "sizes", ""),
}
NUM_BATCHES = 5


def text_of(case, folder):
    _, make, source, transform = case
    where = folder / source if make is data_net else folder
    text = make(where, transform) if make is data_net else make(where, source, transform)
    return text.replace("MEAN", str(folder / "mean.binaryproto"))


@pytest.fixture(scope="module")
def real(caffe, sources, tmp_path_factory):
    """What the real Caffe delivers for all cases."""
    cases = {}
    for name, case in {**CASES, **{f"refused-{n}": c for n, c in REFUSED.items()}}.items():
        text = text_of(case, sources)
        cases[name] = {"text": text, "phase": case[0], "count": NUM_BATCHES}
    return caffe_batches(caffe, tmp_path_factory.mktemp("real"), cases)


@pytest.mark.parametrize("staged", [False, True], ids=["cpu", "as-on-a-device"])
@pytest.mark.parametrize("name", CASES)
def test_batches_are_caffes_bit_for_bit(real, sources, name, staged, monkeypatch):
    """Several batches, over the end of the database; 7 records in batches of 4 or 3."""
    assert f"{name}.error" not in real, real[f"{name}.error"]
    if staged:
        monkeypatch.setattr("irv2caffe.engine.data.batches.ON_HOST", ())
    found = taken(feed_of(text_of(CASES[name], sources), CASES[name][0]), NUM_BATCHES)
    for top in ("data", "label"):
        wanted = real[f"{name}.{top}"]
        assert found[top].dtype == wanted.dtype == np.float32
        np.testing.assert_array_equal(found[top], wanted)


@pytest.mark.parametrize("name", REFUSED)
def test_what_caffe_refuses_is_refused(real, sources, name):
    assert "Check failed" in str(real[f"refused-{name}.error"])
    with pytest.raises(InputError):
        taken(feed_of(text_of(REFUSED[name], sources)), NUM_BATCHES)
