"""A trained net with all that is needed to use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.inference.preprocessing import Preprocessing


@dataclass(frozen=True)
class Model:
    """A trained net with all that is needed to use it.

    Attributes:
        net: NetParameter of the net for use: one Input layer, no labels, losses or accuracies.
        weights: the .caffemodel.
        input: name of the input blob [images, channels, height, width].
        logits: name of the blob before the softmax [images, classes, ...].
        probabilities: name of the blob after it.
        num_classes: number of classes.
        preprocessing: what to feed it.
        class_names: name of each class; empty if there is no class table.
        run: the run folder, if it was opened from one.
        train_val: the net that was trained, with data layers, if it is known.
        iteration: of the snapshot, if it is known.
        notes: one line for each thing that was chosen or is not known, for the user.
    """

    net: Any
    weights: Path
    input: str
    logits: str
    probabilities: str
    num_classes: int
    preprocessing: Preprocessing
    class_names: tuple[str, ...] = ()
    run: Path | None = None
    train_val: Path | None = None
    iteration: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The weights, and the iteration of the snapshot, for the user."""
        at = "" if self.iteration is None else f" (iteration {self.iteration:,})"
        return f"{self.weights}{at}"
