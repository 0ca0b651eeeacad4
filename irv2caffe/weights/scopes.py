"""The convolutions of the published Inception-ResNet-v2, with their names in each library.

TF-slim's scopes without the leading ``InceptionResnetV2/`` serve as names here, since the variant
``slim`` has them, too. The order is that of timm's modules and of the layers in the prototxt.
"""

from __future__ import annotations

from dataclasses import dataclass

LOGITS = "Logits"
AUX = "AuxLogits"
AUX_LOGITS = f"{AUX}/Logits"
INPUT = "Conv2d_1a_3x3"
BN_EPS = 0.001  # in TensorFlow, Keras and timm

# The branches of each block in the order of their concatenation; pools have no weights.
_BLOCKS = {
    "Mixed_5b": (
        ("Conv2d_1x1",),
        ("Conv2d_0a_1x1", "Conv2d_0b_5x5"),
        ("Conv2d_0a_1x1", "Conv2d_0b_3x3", "Conv2d_0c_3x3"),
        ("AvgPool_0a_3x3", "Conv2d_0b_1x1"),
    ),
    "block35": (
        ("Conv2d_1x1",),
        ("Conv2d_0a_1x1", "Conv2d_0b_3x3"),
        ("Conv2d_0a_1x1", "Conv2d_0b_3x3", "Conv2d_0c_3x3"),
    ),
    "Mixed_6a": (
        ("Conv2d_1a_3x3",),
        ("Conv2d_0a_1x1", "Conv2d_0b_3x3", "Conv2d_1a_3x3"),
    ),
    "block17": (
        ("Conv2d_1x1",),
        ("Conv2d_0a_1x1", "Conv2d_0b_1x7", "Conv2d_0c_7x1"),
    ),
    "Mixed_7a": (
        ("Conv2d_0a_1x1", "Conv2d_1a_3x3"),
        ("Conv2d_0a_1x1", "Conv2d_1a_3x3"),
        ("Conv2d_0a_1x1", "Conv2d_0b_3x3", "Conv2d_1a_3x3"),
    ),
    "block8": (
        ("Conv2d_1x1",),
        ("Conv2d_0a_1x1", "Conv2d_0b_1x3", "Conv2d_0c_3x1"),
    ),
}


@dataclass(frozen=True)
class Scope:
    """One convolution.

    Attributes:
        slim: its name in TF-slim and in the prototxt.
        timm: its module in timm; with BatchNorm the convolution is ``.conv`` in that module.
        keras: its name in Keras; empty where Keras numbers it.
        depth: number of layers after it in its branch, by which Keras sorts a model's layers.
        has_bn: followed by BatchNorm and ReLU; else it has a bias.
    """

    slim: str
    timm: str
    keras: str = ""
    depth: int = 0
    has_bn: bool = True


def _branches(kind: str, slim: str, timm: str) -> list[Scope]:
    scopes = []
    for index, names in enumerate(_BLOCKS[kind]):
        for place, name in enumerate(names):
            if name.startswith("Conv2d"):
                module = f"{timm}.branch{index}" + (f".{place}" if len(names) > 1 else "")
                path = f"{slim}/Branch_{index}/{name}"
                scopes.append(Scope(path, module, depth=len(names) - 1 - place))
    return scopes


def _residual(kind: str, slim: str, timm: str, number: int) -> list[Scope]:
    """A residual block: its branches and the up-projection."""
    up = Scope(f"{slim}/Conv2d_1x1", f"{timm}.conv2d", f"{kind}_{number}_conv", has_bn=False)
    return [*_branches(kind, slim, timm), up]


def _repeat(kind: str, slim: str, timm: str, count: int) -> list[Scope]:
    return [
        scope
        for i in range(count)
        for scope in _residual(kind, f"{slim}/{kind}_{i + 1}", f"{timm}.{i}", i + 1)
    ]


def _stem(*names: str) -> list[Scope]:
    """Convolutions outside of blocks: ``Conv2d_1a_3x3`` is ``conv2d_1a`` in timm."""
    return [Scope(name, name.rpartition("_")[0].lower()) for name in names]


CONVOLUTIONS: tuple[Scope, ...] = (
    *_stem("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    *_branches("Mixed_5b", "Mixed_5b", "mixed_5b"),
    *_repeat("block35", "Repeat", "repeat", 10),
    *_branches("Mixed_6a", "Mixed_6a", "mixed_6a"),
    *_repeat("block17", "Repeat_1", "repeat_1", 20),
    *_branches("Mixed_7a", "Mixed_7a", "mixed_7a"),
    *_repeat("block8", "Repeat_2", "repeat_2", 9),
    *_residual("block8", "Block8", "block8", 10),
    Scope("Conv2d_7b_1x1", "conv2d_7b", "conv_7b"),
)
# The auxiliary classifier, which only TF-slim's net has.
AUX_CONVOLUTIONS = (f"{AUX}/Conv2d_1b_1x1", f"{AUX}/Conv2d_2a_5x5")
KNOWN = frozenset({scope.slim for scope in CONVOLUTIONS} | {*AUX_CONVOLUTIONS, LOGITS, AUX_LOGITS})


def block_of(scope: str) -> str:
    """The block of a convolution: ``Repeat/block35_1`` of ``Repeat/block35_1/Branch_0/...``."""
    return scope.partition("/Branch_")[0].removesuffix("/Conv2d_1x1")
