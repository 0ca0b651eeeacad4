"""Measured: the results of tests of a model, which tell causes apart that curves do not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """How good a model is on some images.

    Attributes:
        top1_error: in percent.
        loss: that of SoftmaxWithLoss, in nats.
        num_images: images evaluated.
    """

    top1_error: float
    loss: float
    num_images: int


@dataclass(frozen=True)
class BlockActivity:
    """A residual block in a forward pass.

    Attributes:
        name: layer that adds trunk and branch.
        trunk_std: standard deviation of the trunk before the addition.
        branch_std: that of the branch, after its factor.
    """

    name: str
    trunk_std: float
    branch_std: float


@dataclass(frozen=True)
class LayerActivity:
    """The output of an activation layer in a forward pass.

    Attributes:
        name: the layer.
        num_channels: its channels.
        num_dead: channels that are zero for all images and places.
        zeros: fraction of zeros.
    """

    name: str
    num_channels: int
    num_dead: int
    zeros: float


@dataclass(frozen=True)
class Measured:
    """Results of tests of a model; None and empty where a test was not run.

    Attributes:
        weights: the .caffemodel.
        batch_statistics: the TEST net normalizes each batch by its own statistics.
        val: validation images, as the TEST net evaluates them.
        train: training images, evaluated in the same way.
        reestimated: the validation images with statistics of training batches.
        reestimated_train: the training images with these statistics.
        num_reestimate_batches: training batches that these statistics are of.
        by_test_batch: TEST batch size and score, for nets with batch statistics.
        blocks: the residual blocks, in order.
        activations: the activation layers, in order.
        first_bad_layer: the first layer whose output, for training images, is not finite.
        bad_weights: layers whose weights are not finite.
        gradient_norm: L2 norm of the gradient of all weights, for one training batch.
        notes: what could not be tested, and why.
    """

    weights: str = ""
    batch_statistics: bool = False
    val: Score | None = None
    train: Score | None = None
    reestimated: Score | None = None
    reestimated_train: Score | None = None
    num_reestimate_batches: int = 0
    by_test_batch: tuple[tuple[int, Score], ...] = ()
    blocks: tuple[BlockActivity, ...] = ()
    activations: tuple[LayerActivity, ...] = ()
    first_bad_layer: str = ""
    bad_weights: tuple[str, ...] = ()
    gradient_norm: float | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The results for JSON."""
        return asdict(self)
