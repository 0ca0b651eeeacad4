"""What a net is fed with, against the blobs of the real Caffe's data layers."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.databases import encoded, floats, raw, smooth, write_database
from helpers.feeds import caffe_batches, data_net

from irv2caffe.inference.feeding import feed
from irv2caffe.inference.finding import PreprocessingOptions, completed, data_layer, from_data_layer
from irv2caffe.inference.images import read_images
from irv2caffe.inference.model import Model
from irv2caffe.proto import messages
from irv2caffe.proto.binary import write_binary
from irv2caffe.proto.text import parse_prototxt

TRANSFORMS = {
    "mean values": "crop_size: 27 mean_value: 104 mean_value: 117.5 mean_value: 122.7 scale: 0.017",
    "one mean value": "crop_size: 28 mean_value: 127.5 scale: 0.0078125",
    "no mean": "crop_size: 32 scale: 0.00390625",
    "nothing": "crop_size: 31",
    "a mean image": 'crop_size: 27 mean_file: "MEAN" scale: 0.017',
    "a mean image without a crop": 'mean_file: "MEAN"',
}


def fed(layer_text, folder):
    """What our feeding makes of the database that a data layer names."""
    net = parse_prototxt(layer_text, messages.NetParameter)
    found = from_data_layer(data_layer(net), folder / "net.prototxt")
    crop = net.layer[0].transform_param.crop_size
    height, width = (crop, crop) if crop else found.stored
    made = completed(found, PreprocessingOptions(), (found.channels, height, width), "")
    model = Model(None, folder, "data", "", "", 2, made)
    images = read_images(folder / "db", model)
    result = [(image.label, feed(made, image.pixels)[0]) for image in images]
    assert not images.skipped
    return np.array([label for label, _ in result]), np.array([array for _, array in result])


@pytest.fixture(scope="module")
def batches(caffe, tmp_path_factory):
    """For each case, its layer, its folder, and the batch of the real Caffe."""
    rng = np.random.default_rng(1)
    root = tmp_path_factory.mktemp("feeding")
    colour = [smooth(rng, 39, 46) for _ in range(4)]
    gray = [smooth(rng, 39, 46, 1) for _ in range(4)]
    written = {
        "raw": [raw(image, label) for label, image in enumerate(colour)],
        "encoded": [encoded(image, label, "png") for label, image in enumerate(colour)],
        "jpg": [encoded(image, label) for label, image in enumerate(colour)],
        "floats": [
            floats(rng.standard_normal((3, 39, 46)).astype(np.float32), n) for n in range(4)
        ],
        "gray": [raw(image, label) for label, image in enumerate(gray)],
    }
    cases = {}
    for kind, records in written.items():
        folder = root / kind
        write_database(folder / "db", records)
        channels = 1 if kind == "gray" else 3
        mean = rng.uniform(90, 150, (channels, 39, 46)).astype(np.float32)
        blob = messages.BlobProto(num=1, channels=channels, height=39, width=46)
        blob.data.extend(mean.ravel().tolist())
        write_binary(folder / "mean.binaryproto", blob)
        for name, transform in TRANSFORMS.items():
            if kind != "raw" and "image" not in name and name != "one mean value":
                continue
            there = transform.replace("MEAN", str(folder / "mean.binaryproto"))
            cases[f"{kind}, {name}"] = (folder, data_net(folder / "db", there))
    asked = {
        f"case{number}": {"text": text, "phase": "TEST", "count": 1}
        for number, (_, text) in enumerate(cases.values())
    }
    found = caffe_batches(caffe, root, asked)
    return cases, {name: number for number, name in enumerate(cases)}, found


@pytest.mark.parametrize("kind", ["raw", "encoded", "jpg", "floats", "gray"])
def test_the_centre_crop_is_caffes_bit_for_bit(batches, kind):
    cases, numbers, found = batches
    for name, (folder, text) in cases.items():
        if not name.startswith(f"{kind}, "):
            continue
        labels, arrays = fed(text, folder)
        case = f"case{numbers[name]}"
        assert np.array_equal(arrays, found[f"{case}.data"][0]), name
        assert np.array_equal(labels, found[f"{case}.label"][0]), name
