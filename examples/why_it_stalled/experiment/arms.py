"""What is compared: arms that differ from the original or the repaired net by one factor each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Engine = Literal["caffe", "torch"]
MANY = 5
SLIM_SCALES = (0.17, 0.10, 0.20)


@dataclass(frozen=True)
class Arm:
    """The factors of a training; the defaults are those of the original run of 2016.

    Attributes:
        name: of the arm.
        base: name of the arm that it is compared with.
        scale: of the residual branches, for the three kinds of blocks; None for none.
        relu: after each residual addition.
        up_norm: BatchNorm after the last convolution of a residual branch; else a bias.
        fraction: BatchNorm's moving_average_fraction.
        order: of the records: sorted by class, shuffled once, or shuffled for each epoch.
        augment: none, random crops and mirror images, or those of Inception.
        weight_decay: weight of the L2 regularization.
        solver: Caffe's RMSProp, TensorFlow's with momentum 0.9, or SGD with momentum 0.9.
        schedule: of the learning rate: x0.94 every 2 epochs, constant, or linearly to 0.
        wide: twice as many filters: more than 1000 in the trunk of the last blocks.
        many: five times as many training images, for as many iterations.
    """

    name: str = "original"
    base: str = "original"
    scale: tuple[float, float, float] | None = None
    relu: bool = False
    up_norm: bool = True
    fraction: float = 0.999
    order: Literal["sorted", "fixed", "shuffled"] = "fixed"
    augment: Literal["none", "crop", "inception"] = "crop"
    weight_decay: float = 0.0
    solver: Literal["rmsprop", "tf-rmsprop", "sgd"] = "rmsprop"
    schedule: Literal["step", "constant", "linear"] = "step"
    wide: bool = False
    many: bool = False

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engines that can train it: Caffe has no such shuffles, crops and momentum."""
        own = self.order == "shuffled" or self.augment == "inception" or self.solver == "tf-rmsprop"
        return ("torch",) if own else ("caffe", "torch")


@dataclass(frozen=True)
class Size:
    """The size of all runs.

    Attributes:
        classes: of CIFAR-100, evenly spaced in its list.
        train_images: of each class.
        val_images: of each class, from the test set.
        blocks: number of blocks A, B and C.
        width: factor for the numbers of filters of the paper.
        stride: of the first convolution: 1 gives grids of 27, 13 and 6, 2 of 15, 7 and 3.
        batch_size: training images of an iteration.
        epochs: length of a run.
        decay_epochs: between steps of the learning rate: 2 of 25 epochs in 2016.
        curve_epochs: validation errors are measured each so many epochs, and after the first.
    """

    classes: int
    train_images: int
    val_images: int
    blocks: tuple[int, int, int]
    width: float
    stride: int
    batch_size: int
    epochs: int
    decay_epochs: float
    curve_epochs: int

    @property
    def iterations(self) -> int:
        """Iterations of an epoch."""
        return max(1, round(self.classes * self.train_images / self.batch_size))

    def for_arm(self, arm: Arm) -> Size:
        """The size of the runs of an arm."""
        if not arm.many:
            return self
        return replace(
            self,
            train_images=MANY * self.train_images,
            epochs=max(2, self.epochs // MANY),
            decay_epochs=self.decay_epochs / MANY,
            curve_epochs=max(1, self.curve_epochs // MANY),
        )


ORIGINAL = Arm()
REPAIRED = Arm(
    "repaired", "original",
    scale=(0.1, 0.1, 0.1), relu=True, up_norm=False, fraction=0.99, order="shuffled",
    weight_decay=4e-5, solver="sgd",
)  # fmt: skip
_TENTHS = (0.1, 0.1, 0.1)


def _from(base: Arm, name: str, **changes: object) -> Arm:
    return replace(base, name=f"{base.name} {name}", base=base.name, **changes)  # type: ignore[arg-type]


_WIDE = replace(ORIGINAL, name="wide original", base="original", wide=True)
_WIDE_REPAIRED = replace(REPAIRED, name="wide repaired", base="repaired", wide=True)
FULL = (
    ORIGINAL,
    REPAIRED,
    _from(ORIGINAL, "5 x images", many=True),
    _from(REPAIRED, "5 x images", many=True),
    _from(ORIGINAL, "+ scale 0.1", scale=_TENTHS),
    _from(ORIGINAL, "+ ReLU", relu=True),
    _from(ORIGINAL, "+ ReLU, scale 0.1", relu=True, scale=_TENTHS),
    _from(ORIGINAL, "+ paper's blocks", relu=True, scale=_TENTHS, up_norm=False),
    _from(ORIGINAL, "sorted by class", order="sorted"),
    _from(ORIGINAL, "shuffled each epoch", order="shuffled"),
    _from(ORIGINAL, "fraction 0.99", fraction=0.99),
    _from(ORIGINAL, "fraction 0.9", fraction=0.9),
    _from(ORIGINAL, "no augmentation", augment="none"),
    _from(ORIGINAL, "inception augmentation", augment="inception"),
    _from(ORIGINAL, "SGD 0.9", solver="sgd"),
    _from(ORIGINAL, "TF's RMSProp 0.9", solver="tf-rmsprop"),
    _from(ORIGINAL, "weight decay 4e-4", weight_decay=4e-4),
    _from(ORIGINAL, "linear rate", schedule="linear"),
    _from(REPAIRED, "without scale", scale=None),
    _from(REPAIRED, "without ReLU", relu=False),
    _from(REPAIRED, "sorted by class", order="sorted"),
    _from(REPAIRED, "fraction 0.999", fraction=0.999),
    _from(REPAIRED, "no augmentation", augment="none"),
    _from(REPAIRED, "RMSProp", solver="rmsprop"),
    _WIDE,
    _from(_WIDE, "+ scale 0.1", scale=_TENTHS),
    _from(ORIGINAL, "+ slim's scales", scale=SLIM_SCALES),
    _from(ORIGINAL, "weight decay 4e-5", weight_decay=4e-5),
    _from(ORIGINAL, "constant rate", schedule="constant"),
    _from(REPAIRED, "fixed order", order="fixed"),
    _from(REPAIRED, "inception augmentation", augment="inception"),
    _from(REPAIRED, "weight decay 0", weight_decay=0.0),
    _from(REPAIRED, "weight decay 4e-4", weight_decay=4e-4),
    _from(REPAIRED, "constant rate", schedule="constant"),
    _from(REPAIRED, "linear rate", schedule="linear"),
    _WIDE_REPAIRED,
    _from(_WIDE_REPAIRED, "without scale", scale=None),
)  # fmt: skip
_FIXED_REPAIRED = replace(REPAIRED, name="repaired, fixed order", order="fixed")
REDUCED = (
    ORIGINAL,
    _FIXED_REPAIRED,
    _from(ORIGINAL, "+ scale 0.1", scale=_TENTHS),
    _from(ORIGINAL, "+ ReLU", relu=True),
    _from(ORIGINAL, "sorted by class", order="sorted"),
    _from(ORIGINAL, "fraction 0.9", fraction=0.9),
    _from(ORIGINAL, "no augmentation", augment="none"),
)
LATE = (
    ORIGINAL,
    _from(ORIGINAL, "no augmentation", augment="none"),
    _FIXED_REPAIRED,
    _from(ORIGINAL, "5 x images", many=True),
    _from(ORIGINAL, "+ scale 0.1", scale=_TENTHS),
    _from(ORIGINAL, "SGD 0.9", solver="sgd"),
    _from(ORIGINAL, "inception augmentation", augment="inception"),
)
FACTORS = (
    ORIGINAL,
    _from(ORIGINAL, "+ ReLU, scale 0.1", relu=True, scale=_TENTHS),
    _from(ORIGINAL, "+ slim's scales", scale=SLIM_SCALES),
    _from(ORIGINAL, "shuffled each epoch", order="shuffled"),
    _from(ORIGINAL, "inception augmentation", augment="inception"),
    _from(ORIGINAL, "SGD 0.9", solver="sgd"),
    _from(ORIGINAL, "TF's RMSProp 0.9", solver="tf-rmsprop"),
    _from(ORIGINAL, "weight decay 4e-4", weight_decay=4e-4),
    _from(ORIGINAL, "linear rate", schedule="linear"),
)
SETS = {"full": FULL, "reduced": REDUCED, "factors": FACTORS, "late": LATE}
_REDUCED = Size(10, 60, 50, (2, 4, 2), 0.1, 2, 16, 10, 2.0, 10)
SIZES = {
    "full": Size(10, 100, 100, (3, 6, 3), 0.25, 1, 32, 32, 2.56, 8),
    "reduced": _REDUCED,
    "factors": _REDUCED,
    "late": Size(10, 60, 50, (2, 4, 2), 0.1, 2, 16, 40, 3.2, 8),
    "tiny": Size(2, 8, 6, (1, 1, 1), 0.03, 2, 4, 2, 1.0, 1),
}
