"""Options of make-lmdb: frozen dataclasses that can be sent to a worker as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from irv2caffe.errors import UsageError

KINDS = ("folders", "list", "tar", "cifar", "idx")
CLASS_ORDERS = ("auto", "text", "number")
RESIZE_MODES = ("squash", "short-side", "center-crop", "fill", "none")
MEANS = ("auto", "exact", "fast", "none")
NUM_EXACT = 1000  # records that are decoded again for the mean "auto"
INTERPOLATIONS = ("linear", "area", "cubic", "lanczos", "nearest")
DEFAULT_QUALITY = 95  # OpenCV's, and so convert_imageset's
MAX_COPIES = 1000


@dataclass(frozen=True)
class Augment:
    """Random-resized crops as for the training of Inception; Caffe can only crop and mirror.

    Attributes:
        area: smallest and largest share of the image's area in a crop.
        aspect: smallest and largest width / height of a crop.
        color: change brightness by up to 32/255 and saturation by a factor of 0.5 to 1.5.
    """

    area: tuple[float, float] = (0.05, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    color: bool = True

    def __post_init__(self) -> None:
        low, high = self.area
        _require(0 < low <= high <= 1, "--area takes two shares such as 0.05,1")
        low, high = self.aspect
        _require(0 < low <= high < math.inf, "--aspect takes two ratios such as 0.75,1.3333")


@dataclass(frozen=True)
class BuildOptions:
    """Options of a database.

    Attributes:
        size: (width, height) to resize images to; None keeps their size.
        resize_mode: ``squash`` ignores the aspect ratio, as convert_imageset does; ``short-side``
            keeps it and resizes the shorter side to that of ``size``; ``center-crop`` then crops
            the center; ``fill`` pads with gray; ``none`` keeps the size.
        interpolation: of the resizing; ``linear`` is convert_imageset's.
        encoded: ``jpg`` or ``png`` to store compressed images, None for raw pixels.
        quality: JPEG quality of the records.
        gray: one channel.
        shuffle: shuffle the records; Caffe reads them in the order of the database, every epoch.
            None shuffles everything except validation sets.
        seed: of the shuffle and of the augmentation.
        copies: number of differently shuffled passes over the images.
        balance: as many records of every class as the largest class has images; images of
            smaller classes are repeated.
        augment: random crops and colours, or None.
        exactly_like_caffe: accept what convert_imageset accepts, even where it is harmful.
        fast_decode: decode large JPEG files at a half, a quarter or an eighth of their size.
        bit_depth: bits that the values of 16-bit images use, 8 to 16; None means 16, with a
            finding where they use fewer.
        mean: ``exact`` is the mean of what training sees, for which JPEG records made here are
            decoded again; ``fast`` uses the pixels before compression; ``auto`` is exact for the
            first 1,000 records and fast for the others; ``none`` computes none.
        workers: number of processes; 0 means one per core.
        max_skipped: number of images that may be skipped; None allows any number.
    """

    size: tuple[int, int] | None = (328, 328)
    resize_mode: str = "squash"
    interpolation: str = "linear"
    encoded: str | None = None
    quality: int = DEFAULT_QUALITY
    gray: bool = False
    shuffle: bool | None = None
    seed: int = 1
    copies: int = 1
    balance: bool = False
    augment: Augment | None = None
    exactly_like_caffe: bool = False
    fast_decode: bool = False
    bit_depth: int | None = None
    mean: str = "auto"
    workers: int = 0
    max_skipped: int | None = None

    def __post_init__(self) -> None:
        _require(self.resize_mode in RESIZE_MODES, f"no resize mode {self.resize_mode!r}")
        _require(self.interpolation in INTERPOLATIONS, f"no interpolation {self.interpolation!r}")
        _require(self.mean in MEANS, f"no mean {self.mean!r}")
        _require(self.encoded in {None, "jpg", "png"}, f"no encoding {self.encoded!r}")
        _require(1 <= self.quality <= 100, "--quality lies between 1 and 100")
        _require(self.bit_depth in {None, *range(8, 17)}, "--bit-depth lies between 8 and 16")
        _require(1 <= self.copies <= MAX_COPIES, f"--copies lies between 1 and {MAX_COPIES}")
        if self.size is None or self.resize_mode == "none":
            object.__setattr__(self, "size", None)
            object.__setattr__(self, "resize_mode", "none")
        _require(
            self.augment is None or (self.size is not None and self.resize_mode == "squash"),
            "--augment needs --resize with a size and no other --resize-mode: crops are brought "
            "to that size",
        )
        _require(
            not (self.exactly_like_caffe and self.not_in_convert_imageset()),
            "--exactly-like-caffe does not go with options that convert_imageset lacks",
        )

    def not_in_convert_imageset(self) -> list[str]:
        """The options used that convert_imageset does not have."""
        is_used = {
            "--resize-mode": self.resize_mode not in {"squash", "none"},
            "--interpolation": self.interpolation != "linear",
            "--quality": self.quality != DEFAULT_QUALITY,
            "--augment": self.augment is not None,
            "--fast-decode": self.fast_decode,
            "--bit-depth": self.bit_depth not in {None, 16},
        }
        return [name for name, used in is_used.items() if used]

    def is_mean_exact(self, index: int) -> bool:
        """Whether the mean uses what the record with this index decodes to."""
        return self.mean == "exact" or (self.mean == "auto" and index < NUM_EXACT)

    def for_validation(self) -> BuildOptions:
        """The options of the validation database beside a training database of these options.

        Its images are whole and in order, each of them once.
        """
        return replace(self, shuffle=False, copies=1, balance=False, augment=None)

    @property
    def channels(self) -> int:
        """Channels of every record."""
        return 1 if self.gray else 3

    @property
    def fixed_shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of every record, where the options determine it."""
        if self.size is None or self.resize_mode == "short-side":
            return None
        return self.channels, self.size[1], self.size[0]

    def record_options(self) -> dict[str, Any]:
        """The options that change the records; without those of speed and checks."""
        values = asdict(self)
        for name in ("workers", "max_skipped"):
            del values[name]
        return values


def options_from_json(values: dict[str, Any]) -> BuildOptions:
    """Inverse of ``asdict``, for values that were sent as JSON."""
    values = dict(values)
    if values["size"] is not None:
        values["size"] = tuple(values["size"])
    if values["augment"] is not None:
        augment = values["augment"]
        values["augment"] = Augment(
            tuple(augment["area"]), tuple(augment["aspect"]), augment["color"]
        )
    return BuildOptions(**values)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)
