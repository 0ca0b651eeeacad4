"""Measured: the results of tests of a model, which tell causes apart that curves do not."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

LARGE = 10.0  # points of error that are a cause of their own
SMALL = 5.0  # points that are not
_SIGMAS = 3.0


@dataclass(frozen=True)
class Score:
    """How good a model is on some images.

    Attributes:
        top1_error: in percent.
        loss: that of SoftmaxWithLoss, in nats.
        num_images: images evaluated.
        class_error: mean of the errors of the classes, in percent; None where it is not known.
    """

    top1_error: float
    loss: float
    num_images: int
    class_error: float | None = None

    def __str__(self) -> str:
        return f"{self.top1_error:.1f} % of {self.num_images:,}"

    def is_worse(self, other: Score | None, least: float = LARGE) -> bool:
        """Whether the error is higher by so many points, and by more than three sigmas."""
        if other is None:
            return False
        difference = self.top1_error - other.top1_error
        return difference > max(least, _SIGMAS * math.hypot(self.sigma, other.sigma))

    @property
    def sigma(self) -> float:
        """The standard deviation of the error by the choice of the images, in points."""
        share = (self.top1_error / 100 * self.num_images + 1) / (self.num_images + 2)
        return 100 * math.sqrt(share * (1 - share) / max(1, self.num_images))


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

    def differs(self, other: InputStatistics) -> bool:
        """Whether mean or standard deviation differ by more than chance, and by a lot."""
        if len(self.mean) != len(other.mean):
            return True
        for place, (ours, theirs) in enumerate(zip(self.mean, other.mean, strict=True)):
            stds = self.std[place] + 1e-9, other.std[place] + 1e-9
            error = math.hypot(self.error[place], other.error[place])
            if abs(ours - theirs) > max(5 * error, max(stds) / 4) or max(stds) > 1.5 * min(stds):
                return True
        return False


@dataclass(frozen=True)
class LabelMix:
    """How well the classes are mixed in the training batches, in the order that Caffe reads.

    Attributes:
        batch_size: images in a batch.
        num_batches: batches looked at.
        chi_square: mean over the batches of Pearson's statistic of their labels against the mix
            of all of them.
        expected: what it would be for labels in random order.
        sigma: standard deviation of that mean for labels in random order.
        far: fraction of batches whose statistic is more than four standard deviations above that.
    """

    batch_size: int
    num_batches: int
    chi_square: float
    expected: float
    sigma: float
    far: float

    @property
    def is_bad(self) -> bool:
        """Whether batches show fewer classes than chance would give them."""
        is_chance = self.chi_square < self.expected + 4 * self.sigma
        return not is_chance and (self.chi_square > 1.5 * self.expected or self.far > 0.1)


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
        iteration: of the snapshot, if its name tells it.
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
    iteration: int | None = None
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

    @property
    def gap(self) -> tuple[str, ...]:
        """The same training images as trained and as tested, where the latter are worse."""
        if self.train is None or not self.train.is_worse(self.as_trained):
            return ()
        text = f"The same training images: wrong are {self.as_trained} as the net trains, and "
        return (f"{text}{self.train} as it is tested.",)

    @property
    def input_difference(self) -> str:
        """How the inputs of training and validation differ, if that is more than chance."""
        train, val = self.train_input, self.val_input
        if train is None or val is None or not train.differs(val):
            return ""
        means, stds = (
            " and ".join("/".join(f"{value:.3g}" for value in each) for each in pair)
            for pair in ((train.mean, val.mean), (train.std, val.std))
        )
        return (
            f"By channel, in TRAIN and TEST: means {means}, standard deviations {stds} "
            f"({train.num_images} and {val.num_images} images)."
        )

    @property
    def is_shifted(self) -> bool:
        """Whether validation is right when a number is added to all labels."""
        labels, val = self.labels, self.val
        if labels is None or val is None or labels.shift_error is None:
            return False
        return labels.shift != 0 and val.top1_error - labels.shift_error > 2 * LARGE

    @property
    def is_renamed(self) -> bool:
        """Whether the net says one other class for several labels, and most images agree."""
        labels, val = self.labels, self.val
        if labels is None or val is None or labels.renamed_error is None:
            return False
        return labels.renamed >= 2 and val.top1_error - labels.renamed_error > LARGE

    @property
    def labels_differ(self) -> bool:
        """Whether labels of validation are known to mean something else than in training."""
        is_other_table = self.labels is not None and self.labels.same_table is False
        return is_other_table or self.is_shifted or self.is_renamed

    def as_dict(self) -> dict[str, Any]:
        """The results for JSON."""
        return asdict(self)
