"""Databases of small images, of every kind of record that Caffe reads."""

from __future__ import annotations

import cv2
import numpy as np

from irv2caffe.data.lmdb_store import DatabaseWriter
from irv2caffe.data.records.datum import encoded_head, encoded_tail, raw_head, raw_tail, record_key
from irv2caffe.proto import messages


def write_database(folder, records):
    """An LMDB of records in the order given; its folder."""
    folder.mkdir(parents=True)
    with DatabaseWriter(folder) as writer:
        for index, record in enumerate(records):
            writer.put(record_key(index, f"{index}.png"), record)
    return folder


def smooth(rng, height, width, channels=3):
    """An image that JPEG changes little: height x width x channels."""
    image = rng.integers(0, 256, (height, width, channels), np.uint8)
    return cv2.GaussianBlur(image, (0, 0), 2).reshape(height, width, channels)


def raw(image, label):
    """A raw record of an image, height x width x channels."""
    planes = image.transpose(2, 0, 1)
    return raw_head(planes.shape) + planes.tobytes() + raw_tail(label)


def encoded(image, label, kind="jpg"):
    """A compressed record of an image."""
    data = cv2.imencode(f".{kind}", image)[1].tobytes()
    return encoded_head(len(data)) + data + encoded_tail(label)


def floats(planes, label):
    """A record of float_data, channels x height x width."""
    channels, height, width = planes.shape
    datum = messages.Datum(channels=channels, height=height, width=width, label=label)
    datum.float_data.extend(planes.ravel().tolist())
    return datum.SerializeToString()
