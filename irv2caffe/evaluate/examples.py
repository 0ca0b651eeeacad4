"""Images on which a net is wrong: the worst ones, and those of the most frequent mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.data.inspect.sheet import draw_tile, write_sheet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from irv2caffe.evaluate.evaluation import Evaluation
    from irv2caffe.inference.images import Images

NUM_WORST = 40
_PAIRS, _OF_EACH = 8, 8


@dataclass(frozen=True)
class Example:
    """An image on which the net is wrong.

    Attributes:
        name: of the image.
        true: name of its class.
        predicted: name of the predicted class.
        confidence: probability of the predicted class.
        label_probability: probability of its own class.
        pixels: of the image; None if it cannot be read any more.
    """

    name: str
    true: str
    predicted: str
    confidence: float
    label_probability: float
    pixels: NDArray[Any] | None

    @property
    def caption(self) -> tuple[str, str, str]:
        """Three lines: the class, what was predicted, the file."""
        shown = self.name.rpartition("/")[2]
        return (
            f"is {self.true}",
            f"{100 * self.confidence:.0f} % {self.predicted}",
            shown,
        )


@dataclass(frozen=True)
class Examples:
    """The worst images, and those of the most frequent mistakes.

    Attributes:
        worst: wrong ones with the smallest probability of their class, smallest first.
        confused: of the most frequent mistakes, mistake by mistake, the most confident first.
    """

    worst: tuple[Example, ...]
    confused: tuple[Example, ...]


def find_examples(evaluation: Evaluation, images: Images) -> Examples:
    """Chooses examples, and reads their images."""
    predictions = evaluation.predictions
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    order = np.argsort(predictions.label_probability[wrong], kind="stable")
    worst = wrong[order][:NUM_WORST]
    confused: list[int] = []
    for true, predicted, _ in evaluation.metrics.confusions.mistakes(_PAIRS):
        is_both = (predictions.labels == true) & (predictions.predicted == predicted)
        those = np.flatnonzero(is_both)
        sure = np.argsort(-predictions.confidence[those], kind="stable")
        confused += those[sure][:_OF_EACH].tolist()
    pixels = _read({predictions.names[at] for at in [*worst.tolist(), *confused]}, images)
    return Examples(
        tuple(_example(evaluation, at, pixels) for at in worst.tolist()),
        tuple(_example(evaluation, at, pixels) for at in confused),
    )


def _read(names: set[str], images: Images) -> dict[str, NDArray[Any]]:
    return {image.name: image.pixels for image in images.only(sorted(names))} if names else {}


def _example(evaluation: Evaluation, at: int, pixels: Mapping[str, NDArray[Any]]) -> Example:
    found = evaluation.predictions
    return Example(
        found.names[at],
        evaluation.name_of(int(found.labels[at])),
        evaluation.name_of(int(found.predicted[at])),
        float(found.confidence[at]),
        float(found.label_probability[at]),
        pixels.get(found.names[at]),
    )


def draw_examples(examples: Sequence[Example], out: Path) -> None:
    """Writes a contact sheet; there must be an example."""
    write_sheet(tiles_of(examples), out)


def tiles_of(examples: Iterable[Example]) -> list[NDArray[np.uint8]]:
    """Each image with its caption below."""
    return [draw_tile(one.pixels, one.caption) for one in examples]
