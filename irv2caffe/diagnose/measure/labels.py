"""Labels: how well batches are mixed, and whether training and validation mean the same."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.data.inspect.database import Database, read_databases
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.datum import read_head
from irv2caffe.diagnose.measured import LabelMatch, LabelMix
from irv2caffe.errors import FormatError
from irv2caffe.system import read_regular

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from irv2caffe.diagnose.measure.subject import Subject
    from irv2caffe.evaluate.predictions import Predictions

_NUM_BATCHES = 200
_FAR = 4.0  # standard deviations
_MAX_LIST_BYTES = 1 << 30
_LEAST_IMAGES = 5  # of a class, on average, to tell what the net says for it


def label_mix(subject: Subject) -> dict[str, Any]:
    """How well the classes are mixed in the training batches; nothing if Caffe shuffles.

    Raises:
        InputError: the training images are not known.
    """
    given, size = subject.train, subject.train_batch_size
    if given.is_database:
        batches = _of_database(given.source, size)
    elif given.list_file is not None and not (given.layer and given.layer.image_data_param.shuffle):
        batches = _of_list(given.list_file, size)
    else:
        return {}
    return {"label_mix": mix_of(batches)} if len(batches) > 1 and size > 1 else {}


def _of_database(folder: Path, size: int) -> NDArray[np.int64]:
    """Labels of batches from all over a database, [batches, size]."""
    with open_reader(folder) as reader, reader.lookup() as look_up:
        whole = len(reader) // size
        step = -(-whole // _NUM_BATCHES) or 1
        wanted = range(0, whole, step)
        keys = (
            key
            for at, key in enumerate(islice(reader.keys(), whole * size))
            if at // size % step == 0
        )
        labels = [_label(look_up(key)) for key in keys]
    return np.array(labels, np.int64).reshape(len(wanted), size)


def _label(value: memoryview | None) -> int:
    try:
        return (read_head(value).label or 0) if value is not None else 0
    except FormatError:
        return 0


def _of_list(path: Path, size: int) -> NDArray[np.int64]:
    data = read_regular(path, _MAX_LIST_BYTES).decode("utf-8", "surrogateescape")
    words = [line.rpartition(" ")[2] for line in data.splitlines() if line.strip()]
    labels = [int(word) if word.isdecimal() and len(word) < 10 else 0 for word in words]
    whole = len(labels) // size
    step = -(-whole // _NUM_BATCHES) or 1
    return np.array(labels[: whole * size], np.int64).reshape(whole, size)[::step]


def mix_of(batches: NDArray[np.int64]) -> LabelMix:
    """Compares the labels of batches, [batches, size], with the mix of all of them.

    The expected value is that of a contingency table with given margins: (rows - 1)(columns - 1)
    n / (n - 1) over all rows. The variance is that of Pearson's statistic of one multinomial
    sample (Haldane 1937, Biometrika 29, 133).
    """
    num_batches, size = batches.shape
    classes, numbers = np.unique(batches, return_inverse=True)
    numbers = numbers.reshape(batches.shape)
    shares = np.bincount(numbers.ravel(), minlength=len(classes)) / batches.size
    found = np.array(
        [
            (np.bincount(row, minlength=len(classes)) ** 2 / (size * shares)).sum() - size
            for row in numbers
        ]
    )
    k, total = len(classes), batches.size
    expected = (num_batches - 1) / num_batches * (k - 1) * total / (total - 1)
    variance = 2 * (k - 1) + ((1 / shares).sum() - k * k - 2 * k + 2) / size
    sigma = float(np.sqrt(max(0.0, variance)))
    far = float((found > expected + _FAR * sigma + 1e-9).mean())
    of_mean = sigma / math.sqrt(num_batches)
    return LabelMix(size, num_batches, float(found.mean()), float(expected), of_mean, far)


def label_match(subject: Subject, predictions: Predictions | None) -> dict[str, Any]:
    """Whether the labels of training and validation mean the same.

    Args:
        subject: what is tested.
        predictions: of validation images, if there are any.

    Raises:
        InputError: the training or the validation images are not known.
    """
    values: dict[str, Any] = {}
    folders = [given.source for given in (subject.train, subject.val) if given.is_database]
    if len(folders) == 2:
        found = read_databases(folders, is_quick=True)
        train, val = (found[folder] for folder in folders)
        if isinstance(train, Database) and isinstance(val, Database):
            values |= _databases(train, val)
    if predictions is not None:
        values |= renaming(predictions.labels, predictions.predicted, predictions.num_classes)
    return {"labels": LabelMatch(**values)}


def _databases(train: Database, val: Database) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if train.class_names and val.class_names:
        values["same_table"] = train.class_names == val.class_names
    if train.class_counts and val.class_counts:
        length = max(len(train.class_counts), len(val.class_counts))
        counts = [
            np.array([*each, *[0] * (length - len(each))], np.float64)
            for each in (train.class_counts, val.class_counts)
        ]
        shares = [each / each.sum() for each in counts]
        values["distance"] = float(np.abs(shares[0] - shares[1]).sum() / 2)
        values["only_train"] = int(((counts[0] > 0) & (counts[1] == 0)).sum())
        values["only_val"] = int(((counts[0] == 0) & (counts[1] > 0)).sum())
    return values


def renaming(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int
) -> dict[str, Any]:
    """Whether the net is right about validation images under other labels.

    Args:
        labels: of the images.
        predicted: what the net says, for each image.
        num_classes: of the net.
    """
    total = len(labels)
    shifts = Counter((predicted - labels).tolist())
    shift, num_shifted = max(shifts.items(), key=lambda pair: (pair[1], -abs(pair[0])))
    values: dict[str, Any] = {"shift": int(shift), "shift_error": 100 * (1 - num_shifted / total)}
    support = np.bincount(labels, minlength=num_classes)
    if total < _LEAST_IMAGES * (support > 0).sum():
        return values
    pairs = Counter(zip(labels.tolist(), predicted.tolist(), strict=True))
    chosen = _one_to_one(sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0])))
    num_right = sum(pairs[pair] for pair in chosen)
    values["renamed_error"] = 100 * (1 - num_right / total)
    values["renamed"] = sum(
        label != said and 2 * pairs[label, said] > int(support[label]) for label, said in chosen
    )
    return values


def _one_to_one(pairs: Sequence[tuple[tuple[int, int], int]]) -> list[tuple[int, int]]:
    """The most frequent pairs, with no label and no prediction twice."""
    labels: set[int] = set()
    said: set[int] = set()
    chosen = []
    for (label, prediction), _ in pairs:
        if label not in labels and prediction not in said:
            labels.add(label)
            said.add(prediction)
            chosen.append((label, prediction))
    return chosen
