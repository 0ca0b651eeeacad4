"""Databases of small records, for the rules about data."""

from __future__ import annotations

import cv2
import lmdb
import numpy as np

from irv2caffe.proto import messages


def write_database(folder, values, keys=None):
    folder.mkdir(parents=True)
    keys = keys or [f"{index:08d}_x" for index in range(len(values))]
    environment = lmdb.open(str(folder), map_size=1 << 28)
    with environment, environment.begin(write=True) as transaction:
        for key, value in zip(keys, values, strict=True):
            transaction.put(key.encode(), value)
    return folder


def raw(label, size=(32, 32), channels=3):
    datum = messages.Datum(channels=channels, height=size[1], width=size[0], label=label)
    datum.data = bytes(channels * size[0] * size[1])
    return datum.SerializeToString()


def encoded(label, channels=3, size=(32, 32)):
    pixels = np.zeros((size[1], size[0], channels), np.uint8).squeeze()
    data = cv2.imencode(".png", pixels)[1].tobytes()
    return messages.Datum(data=data, label=label, encoded=True).SerializeToString()


def shuffled(count, classes):
    return [int(label) for label in np.random.default_rng(0).integers(0, classes, count)]
