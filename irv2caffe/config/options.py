"""NetOptions and SolverOptions: frozen values that are checked on creation."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass

from irv2caffe.config.variants import DEFAULT_VARIANT, VARIANTS
from irv2caffe.errors import UsageError

FILLERS = ("glorot", "xavier", "msra")
_MAX_MATRIX_CLASSES = 20_000  # limit of protobuf: 2 GiB
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,100}")
_FLOAT32 = (2.0**-126, (2 - 2.0**-23) * 2.0**127)  # Caffe's float: smallest and largest


@dataclass(frozen=True)
class NetOptions:
    """The options of a network.

    Attributes:
        variant: name of the network, a key of :data:`VARIANTS`.
        num_classes: number of classes.
        channels: of the images: 3 (B, G, R) or 1 (gray).
        crop: width and height of the input, in pixels.
        width: factor for the number of filters of every layer.
        residual_scale: factors for the residual branches of the 35x35, 17x17 and 8x8 blocks; None
            for no scaling.
        residual_bn: whether the last 1x1 convolution of each residual branch has BatchNorm.
        trunk: channels of the 8x8 blocks of ``paper``: 2144 (Fig. 18) or 2048 (Fig. 19).
        aux: whether to add an auxiliary classifier after the 17x17 blocks, for training.
        aux_weight: loss weight of the auxiliary classifier.
        average_pool: pooling of Mixed_5b: ``tf`` ignores the padding, as TensorFlow does, with
            layers that Caffe has; ``caffe`` is a Pooling layer, which counts it.
        batch_size: images per GPU and iteration in training.
        test_batch_size: images per test iteration; None for a divisor of the validation set.
        train_lmdb: database of the TRAIN phase, as Caffe will open it.
        val_lmdb: database of the TEST phase.
        mean_value: mean subtracted from the channels B, G, R; three times the same for gray.
        mean_file: mean image (.binaryproto) subtracted instead, or None.
        scale: factor applied after subtracting the mean.
        mirror: whether to flip training images at random.
        dropout: fraction of the features before the classifier dropped in training.
        label_smoothing: fraction of each label spread over all classes in training.
        class_weights: weights of the classes in the training loss: ``balanced`` for the inverse of
            their numbers of images, or a file; None for equal weights.
        classifier: name of the last layer with weights. Caffe copies weights by name, and stops
            where a layer of that name has another shape.
        classifier_lr: factor for the learning rate of the classifiers, its ``lr_mult``.
        freeze: last stage whose weights and statistics stay as they are; None to train all.
        bn_statistics: ``batch`` to normalize with the statistics of the batch in training, ``kept``
            with the running ones of the weights that the training starts from, which then stay.
        bn_fraction: BatchNorm's ``moving_average_fraction``.
        bn_eps: added to BatchNorm's variance; 0.001 in TensorFlow's nets, 1e-5 by Caffe's default.
        gamma: whether to learn a scale after each BatchNorm.
        filler: ``glorot`` (Caffe's xavier with variance_norm AVERAGE), ``xavier`` (fan-in) or
            ``msra``.
        flavor: ``bvlc``, whose batch_size is per GPU, or ``nvcaffe``, whose batch_size is shared by
            all GPUs.
    """

    variant: str = DEFAULT_VARIANT
    num_classes: int = 1000
    channels: int = 3
    crop: int = 299
    width: float = 1.0
    residual_scale: tuple[float, float, float] | None = (0.17, 0.10, 0.20)
    residual_bn: bool = False
    trunk: int = 2144
    aux: bool = False
    aux_weight: float = 0.4
    average_pool: str = "tf"
    batch_size: int = 32
    test_batch_size: int | None = None
    train_lmdb: str = "train_lmdb"
    val_lmdb: str = "val_lmdb"
    mean_value: tuple[float, float, float] = (127.5, 127.5, 127.5)
    mean_file: str | None = None
    scale: float = 1 / 127.5
    mirror: bool = True
    dropout: float = 0.2
    label_smoothing: float = 0.0
    class_weights: str | None = None
    classifier: str = "classifier"
    classifier_lr: float = 1.0
    freeze: str | None = None
    bn_statistics: str = "batch"
    bn_fraction: float = 0.999
    bn_eps: float = 0.001
    gamma: bool = True
    filler: str = "glorot"
    flavor: str = "bvlc"

    def __post_init__(self) -> None:
        _require_finite(self)
        _require(
            self.variant in VARIANTS,
            f"unknown variant {self.variant!r}",
            f"variants: {', '.join(VARIANTS)}",
        )
        _require(2 <= self.num_classes <= 1_000_000, "--num-classes must lie in [2, 1000000]")
        _require(self.channels in {1, 3}, "--channels is 3, or 1 for gray images")
        _require(1 <= self.crop <= 4096, "--crop must lie between 1 and 4096")
        _require(0 < self.width <= 16, "--width must be above 0, and 16 at most")
        for scale in self.residual_scale or ():
            _require(0 < scale <= 10, "--residual-scale must lie in (0, 10], or be none")
        _require(1 <= self.batch_size <= 1 << 16, "--batch-size must lie in [1, 65536]")
        _require(
            self.test_batch_size is None or self.test_batch_size >= 1,
            "--test-batch-size must be at least 1",
        )
        _require(self.trunk in {2048, 2144}, "--trunk is 2144 or 2048")
        _require(0 < self.aux_weight <= 10, "--aux-weight must lie in (0, 10]")
        _require(self.average_pool in {"tf", "caffe"}, "--average-pool is tf or caffe")
        _require(bool(self.train_lmdb), "--train-lmdb is empty")
        _require(bool(self.val_lmdb), "--val-lmdb is empty")
        for mean in self.mean_value:
            _require(0 <= mean <= 255, "--mean-value must lie in [0, 255]")
        _require(
            self.channels == 3 or len(set(self.mean_value)) == 1,
            "--mean-value: images of one channel have one mean",
        )
        _require(self.scale > 0, "--scale must be above 0")
        _require(0 <= self.dropout < 1, "--dropout must lie in [0, 1)")
        _require(0 <= self.label_smoothing < 1, "--label-smoothing must lie in [0, 1)")
        if self.num_classes > _MAX_MATRIX_CLASSES:
            for flag, given in (
                ("--label-smoothing", self.label_smoothing > 0),
                ("--class-weights", self.class_weights is not None),
            ):
                _require(
                    not given,
                    f"{flag}: InfogainLoss reads a matrix of classes x classes, and "
                    f"{self.num_classes:,} classes are too many for its file",
                )
        _require(self.class_weights != "", "--class-weights is balanced, or a file")
        _require(
            _NAME.fullmatch(self.classifier) is not None,
            "--classifier is a name of up to 100 letters, digits and _ . + -",
        )
        _require(0 < self.classifier_lr <= 1000, "--classifier-lr must lie in (0, 1000]")
        _require(self.bn_statistics in {"batch", "kept"}, "--bn-statistics is batch or kept")
        _require(0 < self.bn_fraction < 1, "--bn-fraction must lie between 0 and 1")
        _require(0 < self.bn_eps < 1, "--bn-eps must lie between 0 and 1")
        _require(self.filler in FILLERS, f"--filler is one of {', '.join(FILLERS)}")
        _require(self.flavor in {"bvlc", "nvcaffe"}, "--flavor is bvlc or nvcaffe")


@dataclass(frozen=True)
class SolverOptions:
    """The options of a training; lengths are in epochs, not iterations.

    Attributes:
        type: solver type.
        base_lr: initial learning rate.
        lr_decay: factor for the learning rate at each step.
        lr_decay_epochs: epochs between steps of the learning rate.
        momentum: must be 0 for RMSProp, which has no momentum in Caffe.
        rms_decay: decay rate of RMSProp's mean squared gradient.
        delta: RMSProp's epsilon, added outside the square root.
        weight_decay: weight of the L2 regularization.
        clip_gradients: maximum L2 norm of the gradient of a batch, or None.
        epochs: length of the training.
        test_epochs: epochs between tests.
        snapshot_epochs: epochs between snapshots.
        iter_size: batches accumulated for each weight update.
        num_gpus: number of GPUs; 0 is the CPU.
        random_seed: seed of weights and augmentation; -1 for the time.
    """

    type: str = "RMSProp"
    base_lr: float = 0.045
    lr_decay: float = 0.94
    lr_decay_epochs: float = 2.0
    momentum: float = 0.0
    rms_decay: float = 0.9
    delta: float = 1.0
    weight_decay: float = 4e-5
    clip_gradients: float | None = None
    epochs: float = 120.0
    test_epochs: float = 1.0
    snapshot_epochs: float = 10.0
    iter_size: int = 1
    num_gpus: int = 0
    random_seed: int = 1

    def __post_init__(self) -> None:
        _require_finite(self)
        _require(self.type in {"RMSProp", "SGD", "Nesterov"}, f"unknown solver type {self.type!r}")
        _require(
            self.type != "RMSProp" or self.momentum == 0,
            "Caffe's RMSProp has no momentum: use --recipe paper-sgd, or momentum 0",
        )
        for name in ("base_lr", "epochs", "test_epochs", "snapshot_epochs", "lr_decay_epochs"):
            _require(getattr(self, name) > 0, f"--{name.replace('_', '-')} must be above 0")
        _require(0 < self.lr_decay <= 1, "--lr-decay must lie in (0, 1]")
        _require(0 <= self.momentum < 1, "--momentum must lie in [0, 1)")
        _require(0 <= self.rms_decay < 1, "--rms-decay must lie in [0, 1)")
        _require(self.delta > 0, "--delta must be above 0")
        _require(self.weight_decay >= 0, "--weight-decay must not be negative")
        _require(1 <= self.iter_size <= 1 << 16, "--iter-size must lie in [1, 65536]")
        clip = self.clip_gradients
        _require(clip is None or clip > 0, "--clip-gradients must be above 0")
        _require(
            clip is None or clip * self.iter_size <= _FLOAT32[1],  # what the solver is given
            f"--clip-gradients {clip} is too large for Caffe",
        )
        _require(0 <= self.num_gpus <= 1024, "--gpus: more than 1024 GPUs")
        _require(-1 <= self.random_seed < 1 << 31, "--random-seed must fit 31 bits, or be -1")


def _require(condition: bool, message: str, hint: str = "") -> None:
    if not condition:
        raise UsageError(message, hint)


def _require_finite(options: NetOptions | SolverOptions) -> None:
    """Refuses NaN, infinity, and numbers that become infinite or 0 as float32."""
    for name, value in asdict(options).items():
        for number in value if isinstance(value, tuple) else (value,):
            flag = f"--{name.replace('_', '-')}"
            if isinstance(number, float) and not math.isfinite(number):
                raise UsageError(f"{flag} {number} is not a finite number")
            if isinstance(number, float) and number:
                smallest, largest = _FLOAT32
                size = "small" if abs(number) < smallest else "large"
                fits = smallest <= abs(number) <= largest
                _require(fits, f"{flag} {number} is too {size} for a 32-bit float")
