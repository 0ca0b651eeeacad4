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
class InputStatistics:
    """The values that a net is fed with, after mean and scale.

    Attributes:
        mean: per channel.
        std: standard deviation per channel.
        error: standard error of each mean, from the spread of the means of images.
        num_images: images looked at.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    error: tuple[float, ...]
    num_images: int


@dataclass(frozen=True)
class LabelMix:
    """How well the classes are mixed in the training batches, in the order that Caffe reads.

    Attributes:
        batch_size: images in a batch.
        num_batches: batches looked at.
        chi_square: mean over the batches of Pearson's statistic of their labels against the mix
            of all of them.
        expected: what it would be for labels in random order.
        far: fraction of batches whose statistic is more than four standard deviations above that.
    """

    batch_size: int
    num_batches: int
    chi_square: float
    expected: float
    far: float


@dataclass(frozen=True)
class LabelMatch:
    """Whether the labels of training and validation mean the same.

    Attributes:
        same_table: whether the class tables of the databases are equal; None without both.
        distance: half the sum of the differences of the shares of classes, from 0 to 1; None if
            they are not known.
        only_train: classes with training images and no validation images.
        only_val: the reverse.
        shift: what must be added to the labels of validation images, so that most are right.
        shift_error: top-1 error in percent if that is done; None without validation images.
        renamed: labels of validation images for which the net says one other class most often.
        renamed_error: top-1 error in percent if each label is taken for what the net says most
            often for it, no class twice; chance alone makes it a little lower than the error.
            None for few images of each class.
    """

    same_table: bool | None = None
    distance: float | None = None
    only_train: int = 0
    only_val: int = 0
    shift: int = 0
    shift_error: float | None = None
    renamed: int = 0
    renamed_error: float | None = None


@dataclass(frozen=True)
class Measured:
    """Results of tests of a model; None and empty where a test was not run.

    Attributes:
        weights: the .caffemodel.
        batch_statistics: the TEST net normalizes each batch by its own statistics.
        val: validation images, as the TEST net evaluates them.
        train: training images, evaluated in the same way.
        as_trained: the training images as the net trains: with the training's mean and scale,
            batches of its size in the order of the data, normalized as in training; no dropout.
        mixed: the same with the images in random order.
        reestimated: the validation images with statistics of training batches.
        reestimated_train: the training images with these statistics.
        num_reestimate_batches: training batches that these statistics are of.
        by_test_batch: TEST batch size and score, for nets with batch statistics.
        blocks: the residual blocks, in order.
        activations: the activation layers, in order.
        first_bad_layer: the first layer whose output, for training images, is not finite.
        bad_weights: layers whose weights are not finite.
        gradient_norm: L2 norm of the gradient of all weights, for one training batch.
        num_gradient_images: images of that batch.
        num_activity_images: training images that ``blocks`` and ``activations`` are of.
        train_input: what the net is fed with in training.
        val_input: what it is fed with in tests.
        label_mix: of the training batches.
        labels: of training against validation.
        engine: what ran the net.
        notes: what could not be tested, and why.
    """

    weights: str = ""
    batch_statistics: bool = False
    val: Score | None = None
    train: Score | None = None
    as_trained: Score | None = None
    mixed: Score | None = None
    reestimated: Score | None = None
    reestimated_train: Score | None = None
    num_reestimate_batches: int = 0
    by_test_batch: tuple[tuple[int, Score], ...] = ()
    blocks: tuple[BlockActivity, ...] = ()
    activations: tuple[LayerActivity, ...] = ()
    first_bad_layer: str = ""
    bad_weights: tuple[str, ...] = ()
    gradient_norm: float | None = None
    num_gradient_images: int = 0
    num_activity_images: int = 0
    train_input: InputStatistics | None = None
    val_input: InputStatistics | None = None
    label_mix: LabelMix | None = None
    labels: LabelMatch | None = None
    engine: str = ""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The results for JSON."""
        return asdict(self)
