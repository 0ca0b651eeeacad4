"""TorchOptions, the options of the torch engine, and what they change."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PRECISIONS = ("fp32", "tf32", "bf16")
AUGMENTS = ("none", "inception")
_MOST = 1024  # threads or processes


@dataclass(frozen=True)
class TorchOptions:
    """Options of the torch engine; the defaults change nothing against Caffe.

    Attributes:
        exact: compute what Caffe computes within float error; None: on the CPU only.
        precision: ``fp32``, ``tf32`` or ``bf16``.
        sync_bn: BatchNorm's statistics are those of the batches of all processes.
        shuffle: read each epoch in another random order.
        augment: ``inception`` for random areas, aspect ratios and colours; else ``none``.
        ema: decay of the averaged weights that tests use; 0 for none.
        label_smoothing: share of each label that is spread over all classes.
        skip_corrupt: leave out records that cannot be read, and count them.
        data_threads: threads that read and decode images; 0 chooses.
        workers: processes on the CPU.
        nnodes: machines that train together.
        node_rank: number of this machine, from 0; machine 0 tests and saves.
        rdzv_endpoint: ``HOST:PORT`` of machine 0; empty for one machine.
    """

    exact: bool | None = None
    precision: str = "fp32"
    sync_bn: bool = False
    shuffle: bool = False
    augment: str = "none"
    ema: float = 0.0
    label_smoothing: float = 0.0
    skip_corrupt: bool = False
    data_threads: int = 0
    workers: int = 1
    nnodes: int = 1
    node_rank: int | None = None
    rdzv_endpoint: str = ""

    def arguments(self) -> list[str]:
        """The options that differ from the defaults, as the engine takes them."""
        words = []
        for field in fields(self):
            value = getattr(self, field.name)
            name = field.name.replace("_", "-")
            if value == field.default:
                continue
            if isinstance(value, bool):
                words.append(f"--{name}" if value else f"--no-{name}")
            else:
                words.append(f"--{name}={value}")
        return words

    def moot_rules(self) -> frozenset[str]:
        """Rules of check whose findings these options remedy."""
        remedies = {"fixed-order": self.shuffle, "no-augmentation": self.augment != "none"}
        return frozenset(rule for rule, is_on in remedies.items() if is_on)

    def changes(self) -> tuple[str, ...]:
        """What the options change against Caffe's numbers, one line each."""
        bf16 = (
            "--precision bf16: convolutions and matrix products in bfloat16; weights, losses and "
            "BatchNorm's statistics stay float32"
        )
        lines = (
            (
                not self.exact,
                "float32 sums in another order than Caffe's; --exact keeps to Caffe's operations",
            ),
            (
                self.precision == "tf32",
                "--precision tf32: convolutions and matrix products round inputs to 10 bits",
            ),
            (self.precision == "bf16", bf16),
            (self.sync_bn, "BatchNorm's statistics are those of all processes' batches"),
            (self.shuffle, "each epoch reads the records in another random order"),
            (self.augment != "none", "images are cropped and coloured at random"),
            (self.ema > 0, f"tests use weights averaged with decay {self.ema:g}"),
            (
                self.label_smoothing > 0,
                f"{self.label_smoothing:g} of each label is spread over all classes",
            ),
            (self.skip_corrupt, "records that cannot be read are left out and counted"),
        )
        return tuple(text for is_on, text in lines if is_on)


TORCH_OPTIONS = tuple(field.name for field in fields(TorchOptions))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


# The options that a resumed run takes over, and which values they can have.
VALID_OPTIONS: dict[str, Callable[[Any], bool]] = {
    "exact": _is_flag,
    "precision": lambda value: value in PRECISIONS,
    "sync_bn": _is_flag,
    "shuffle": _is_flag,
    "augment": lambda value: value in AUGMENTS,
    "ema": _is_share,
    "label_smoothing": _is_share,
    "skip_corrupt": _is_flag,
    "data_threads": _is_number,
    "workers": lambda value: _is_number(value) and value > 0,
}
