"""Options of a bundle, and what was made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.deploy.comparison import Comparison
    from irv2caffe.deploy.fold import Folding
    from irv2caffe.inference.running import EngineName

SAMPLE_FORMATS = ("npy", "bin")
AVERAGE_POOLS = ("tf", "caffe")


@dataclass(frozen=True)
class BundleOptions:
    """Options of a bundle.

    Attributes:
        fold: merge BatchNorm, Scale and the factors of sums into other layers.
        average_pool: ``tf`` keeps the border correction of TF-exact average pools, ``caffe``
            leaves it out, which changes results.
        onnx: write ``net.onnx``, too.
        num_samples: preprocessed images for calibration.
        sample_format: ``npy``, or ``bin`` for float32 values without a header.
        num_checked: images on which the nets are compared.
        engine: ``caffe`` or ``torch`` runs them.
        gpus: number of a GPU, or ``none``.
        caffe: the Caffe to use.
    """

    fold: bool = True
    average_pool: str = "tf"
    onnx: bool = False
    num_samples: int = 100
    sample_format: str = "npy"
    num_checked: int = 20
    engine: EngineName = "caffe"
    gpus: str = "none"
    caffe: Path | None = None

    def __post_init__(self) -> None:
        if self.sample_format not in SAMPLE_FORMATS or self.average_pool not in AVERAGE_POOLS:
            raise UsageError("an unknown format of samples or kind of average pool")
        if self.num_checked < 1 or self.num_samples < 0:
            raise UsageError("at least one image must be compared; the samples cannot be negative")


@dataclass(frozen=True)
class Bundle:
    """A bundle that was written and checked.

    Attributes:
        folder: the bundle.
        files: its files with their sizes in bytes; those of the calibration folder are one entry.
        num_layers: layers before and after.
        num_parameters: values of all weights before and after.
        folding: what was changed.
        runner: what ran both nets.
        check: the net of the bundle against the original.
        average_pool_cost: the original with Caffe's average pool against the original; None if the
            pool was kept.
        onnx: the ONNX file against the net of the bundle, by the program that ran it.
        num_samples: preprocessed images in the bundle.
        notes: what the user should know.
    """

    folder: Path
    files: dict[str, int]
    num_layers: tuple[int, int]
    num_parameters: tuple[int, int]
    folding: Folding
    runner: str
    check: Comparison
    average_pool_cost: Comparison | None
    onnx: dict[str, Comparison]
    num_samples: int
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON."""
        return {**asdict(self), "folder": str(self.folder)}
