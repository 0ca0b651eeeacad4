"""The state of a build, which is stored with each commit to resume from."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import numpy as np

from irv2caffe.data.records.depth import Depth
from irv2caffe.data.records.items import LeftOutError
from irv2caffe.data.records.mean import MeanSums

if TYPE_CHECKING:
    from pathlib import Path


DAMAGED = (ValueError, LookupError, TypeError, ArithmeticError, RecursionError)


@dataclass
class State:
    """Counts and sums of the records that are committed.

    Attributes:
        next_index: the first record that is still to be made.
        num_written: number of records.
        num_bytes: size of all records.
        skipped: number of skipped images by reason.
        num_complaints: images that were stored although the decoder complained.
        per_label: number of records by label.
        seconds: duration so far.
        table_bytes: length of the CSV tables, by file name.
        mean: sums over the records.
        depth: statistics of the images with 16 bits per channel.
    """

    next_index: int = 0
    num_written: int = 0
    num_bytes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    num_complaints: int = 0
    per_label: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    table_bytes: dict[str, int] = field(default_factory=dict)
    mean: MeanSums = field(default_factory=MeanSums)
    depth: Depth = field(default_factory=Depth)

    @property
    def num_skipped(self) -> int:
        """Number of images that were skipped."""
        return sum(self.skipped.values())

    def refuse_too_many_skipped(self, most: int | None) -> None:
        """Ends a build that skips more images than allowed.

        Args:
            most: value of ``--max-skipped``; None allows any number.

        Raises:
            LeftOutError: with the most frequent reason.
        """
        if most is not None and self.num_skipped > most:
            reason, count = self.skipped.most_common(1)[0]
            raise LeftOutError(
                f"{self.num_skipped:,} images cannot be taken, most of them ({count:,}) "
                f"because: {reason}",
                "is SOURCE right? --max-skipped with a larger number allows for them",
            )


def write_state(state: State, stream: IO[bytes]) -> None:
    """Writes a line of JSON, followed by the sum image."""
    image = state.mean.image
    mean = {**vars(state.mean), "image": None if image is None else list(image.shape)}
    values = {**vars(state), "mean": mean, "depth": vars(state.depth)}
    stream.write(json.dumps(values).encode() + b"\n")
    if image is not None:
        stream.write(np.ascontiguousarray(image, "<f8").data)


def read_state(path: Path) -> State:
    """Reads what :func:`write_state` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError, LookupError, ...: one of DAMAGED, if it is not a state.
    """
    with path.open("rb") as stream:
        values = json.loads(stream.readline())
        rest = stream.read()
    mean = values["mean"]
    if mean["image"] is not None:
        mean["image"] = np.frombuffer(rest, "<f8").reshape(mean["image"]).copy()
    mean["shape"] = tuple(mean["shape"]) if mean["shape"] is not None else None
    values["mean"] = MeanSums(**mean)
    values["depth"] = Depth(**values.get("depth", {}))
    values["skipped"] = Counter(values["skipped"])
    per_label = dict(values["per_label"])
    values["per_label"] = Counter({int(key): count for key, count in per_label.items()})
    return State(**values)
