"""The residual blocks of Inception-ResNet: scaling, rectifying, and what stands on the branch.

A block is told by its end: a Concat of branches that begin at the trunk, a 1x1 convolution, perhaps
a BatchNorm or a factor, and an Eltwise that adds the trunk. Plain ResNets have no Concat there, and
their own rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irv2caffe.check.evidence import kernel
from irv2caffe.check.finding import NOTE, WARNING, Hit, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, Layer, PhaseNet

_ON_BRANCH = ("BatchNorm", "Scale", "Bias", "Power", "Dropout", "ReLU", "PReLU", "ELU")
_ACTIVATIONS = ("ReLU", "PReLU", "ELU", "Sigmoid", "TanH", "BNLL", "Swish", "BatchNorm")
_WIDE = 1000
_PAPER = "arXiv 1602.07261v2"


@dataclass(frozen=True)
class Block:
    """The end of a residual block.

    Attributes:
        total: the Eltwise.
        up: the 1x1 convolution that widens the branches to the trunk.
        branch: layers between that and the sum.
        place: which of the two bottoms of the sum is the branch.
        is_rectified: something non-linear or a BatchNorm follows the sum.
    """

    total: Layer
    up: Layer
    branch: tuple[Layer, ...]
    place: int
    is_rectified: bool

    @property
    def factors(self) -> tuple[float, float]:
        """What trunk and branch are multiplied with."""
        coeff = list(self.total.message.eltwise_param.coeff) or [1.0, 1.0]
        if len(coeff) != 2:
            return (1.0, 1.0)
        branch = float(coeff[self.place])
        for layer in self.branch:
            if layer.type == "Power" and layer.message.power_param.power == 1:
                branch *= layer.message.power_param.scale
            if layer.type == "Scale" and _is_constant(layer):
                branch *= layer.message.scale_param.filler.value
        return float(coeff[1 - self.place]), branch

    @property
    def width(self) -> int:
        """Channels of the trunk."""
        return int(self.up.message.convolution_param.num_output)


def _is_constant(layer: Layer) -> bool:
    """A Scale that learns nothing: a factor."""
    specs = layer.message.param
    has_filler = layer.message.scale_param.HasField("filler")
    return has_filler and len(specs) > 0 and specs[0].lr_mult == 0


def blocks(net: PhaseNet) -> list[Block]:
    """The residual blocks of a net, in order."""
    found = []
    for total in net.of_type("Eltwise"):
        param = total.message.eltwise_param
        if param.operation != param.SUM or len(total.message.bottom) != 2:
            continue
        sources = net.sources(total)
        for place, source in enumerate(sources):
            branch, up = _up_the_branch(net, source)
            if up is not None and _leads_to(net, sources[1 - place], up):
                rectified = any(reader.type in _ACTIVATIONS for reader in net.readers(total))
                found.append(Block(total, up, tuple(branch), place, rectified))
                break
    return found


def _leads_to(net: PhaseNet, trunk: Layer | None, up: Layer) -> bool:
    """Whether the branch begins at the trunk; a lateral connection of a pyramid does not."""
    if trunk is None:
        return False
    seen, waiting = {up.index}, [up]
    while waiting:
        for source in net.sources(waiting.pop()):
            if source is trunk:
                return True
            if source is not None and source.index > trunk.index and source.index not in seen:
                seen.add(source.index)
                waiting.append(source)
    return False


def _up_the_branch(net: PhaseNet, layer: Layer | None) -> tuple[list[Layer], Layer | None]:
    """From the sum back to the 1x1 convolution behind a Concat, if that is what there is."""
    passed = []
    while layer is not None and layer.type in _ON_BRANCH and len(layer.message.bottom) == 1:
        passed.append(layer)
        layer = net.sources(layer)[0]
    if layer is None or layer.type != "Convolution" or kernel(layer.message) != (1, 1):
        return passed, None
    before = net.sources(layer)
    if not before or before[0] is None or before[0].type != "Concat":
        return passed, None
    return passed, layer


@rule("residual-not-rectified", WARNING, "net", f"{_PAPER}, Figs 16, 17, 19; TF-slim")
def not_rectified(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Sums of trunk and branch without a ReLU behind them."""
    del evidence
    found = blocks(net)
    for index, block in enumerate(found):
        is_last = index == len(found) - 1  # TF-slim leaves the very last one linear
        if block.is_rectified or (is_last and len(found) > 1 and found[0].is_rectified):
            continue
        yield Hit(
            "no ReLU behind the addition of a residual block",
            "the trunk is a sum of linear branches that only grows: at the start the standard "
            "deviation at its end is 4.4 in the net of 2016, and its running statistics are "
            "unstable early on",
            'a layer { type: "ReLU" } in place on the sum',
            block.total.at(),
        )


@rule(
    "residual-unscaled",
    NOTE,
    "net",
    f"{_PAPER}, section 3.3; github.com/twtygqyy/Inception-resnet-v2",
)
def unscaled(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Wide residual branches that are added as they are."""
    del evidence
    found = blocks(net)
    for index, block in enumerate(found):
        is_last = index == len(found) - 1 and len(found) > 1 and found[0].factors[1] != 1
        if block.width > _WIDE and block.factors[1] == 1 and not is_last:
            yield Hit(
                f"a residual branch of more than {_WIDE:,} channels is added unscaled",
                "for: the paper saw nets of such width die early, and scaled branches by 0.1 to "
                "0.3; against: twtygqyy trained 40 unscaled blocks in Caffe to 72.9 % top-1 and "
                "90.4 % top-5 accuracy, with BatchNorm on the branch and clipped gradients",
                "eltwise_param { coeff: 1 coeff: 0.1 }; build-net --residual-scale 0.1",
                block.total.at("eltwise_param"),
            )


@rule("residual-scale-on-trunk", WARNING, "net", f"{_PAPER}, Fig. 20")
def scale_on_trunk(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """The factor stands at the trunk, not at the branch."""
    del evidence
    for block in blocks(net):
        trunk, branch = block.factors
        if trunk != 1:
            first = block.total.message.bottom[0]
            yield Hit(
                f"the trunk is multiplied by {trunk:g}, the branch by {branch:g}",
                "coeff goes with the bottoms in their order; a trunk that shrinks in every block "
                "is gone after a few of them",
                f"swap the two coeff (the first goes with {first!r})"
                if branch == 1
                else "coeff: 1 for the trunk",
                block.total.at("eltwise_param", "coeff"),
            )


@rule("deploy-sum-factors", NOTE, "net", "github.com/NVIDIA/TensorRT, issue 1321")
def deploy_sum_factors(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A net for use whose sums have factors: not every program that reads prototxts knows them."""
    del evidence
    if not any(net.of_type("Input")) or any("Loss" in layer.type for layer in net.layers):
        return
    sums = [
        layer
        for layer in net.of_type("Eltwise")
        if any(factor != 1 for factor in layer.message.eltwise_param.coeff)
    ]
    if sums:
        yield Hit(
            f"{len(sums)} sum{'s' if sums[1:] else ''} with factors (eltwise_param coeff)",
            "Caffe and OpenCV's dnn multiply with them; TensorRT's parser of Caffe's nets leaves "
            "them out without a word, and Caffe2's translator refuses them",
            "where such a program will run it, multiply weights and bias of the linear layer "
            "before the sum instead",
            sums[0].at("eltwise_param", "coeff"),
        )


@rule("residual-bn-on-branch", NOTE, "net", f"{_PAPER}, section 3.2; TF-slim")
def bn_on_branch(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """BatchNorm on the linear up-projection."""
    del evidence
    for block in blocks(net):
        norm = next((layer for layer in block.branch if layer.type == "BatchNorm"), None)
        if norm is not None:
            yield Hit(
                "BatchNorm on the linear 1x1 convolution that ends a residual branch",
                "TF-slim's net and its published weights have a bias there and no BatchNorm; the "
                "Caffe and Torch ports of 2016 have BatchNorm, which bounds the growth of an "
                "unscaled trunk",
                "build-net --no-residual-bn, if weights are to be imported",
                norm.at(),
            )


@rule("residual-relu-on-branch", NOTE, "net", f"{_PAPER}, Figs 16, 17, 19")
def relu_on_branch(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A ReLU between the 1x1 convolution and the sum."""
    del evidence
    for block in blocks(net):
        relu = next((layer for layer in block.branch if layer.type in _ACTIVATIONS[:3]), None)
        if relu is not None:
            yield Hit(
                "a ReLU on the residual branch before the addition",
                "the paper's 1x1 convolution there is linear: a branch that can only add makes "
                "the trunk grow",
                "take it out, and rectify the sum instead",
                relu.at(),
            )
