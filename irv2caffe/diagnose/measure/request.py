"""Which model to test, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_LIMIT = 1000


@dataclass(frozen=True)
class MeasureRequest:
    """Which model to test, and how.

    Attributes:
        model: of the run that is diagnosed ``best``, ``last`` or an iteration; or a .caffemodel.
        net: the net that was trained; None takes that of the run, of the solver, or the one
            beside the model.
        engine: ``caffe`` or ``torch``.
        gpus: ``none``, or the number of a GPU.
        caffe: folder or program of the Caffe to use.
        limit: validation images, and as many training images, chosen at random.
        seed: of the choice.
    """

    model: str
    net: Path | None = None
    engine: str = "caffe"
    gpus: str = "none"
    caffe: Path | None = None
    limit: int = DEFAULT_LIMIT
    seed: int = 1

    @property
    def runner_options(self) -> dict[str, Any]:
        """Those of :func:`irv2caffe.inference.running.start_runner`."""
        return {"engine": self.engine, "gpus": self.gpus, "caffe": self.caffe}
