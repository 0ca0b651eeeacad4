"""Residual blocks of Inception-ResNet: scaling, ReLU, and layers on the branch.

A block is found by its end: a Concat of branches that begin at the trunk, a 1x1 convolution,
possibly a BatchNorm or a factor, and an Eltwise that adds the trunk. Plain ResNets have no Concat
there and are not meant.
"""

from __future__ import annotations

from dataclasses import dataclass

from irv2caffe.check.evidence import Layer, NetEvidence, PhaseNet, kernel
from irv2caffe.check.finding import NOTE, WARNING, Hit, Hits
from irv2caffe.check.registry import net_rule

_ON_BRANCH = ("BatchNorm", "Scale", "Bias", "Power", "Dropout", "ReLU", "PReLU", "ELU")
_ACTIVATIONS = ("ReLU", "PReLU", "ELU", "Sigmoid", "TanH", "BNLL", "Swish", "BatchNorm")
_WIDE = 1000
_PAPER = "arXiv 1602.07261v2"


@dataclass(frozen=True)
class ResidualBlock:
    """The end of a residual block.

    Attributes:
        total: the Eltwise.
        up: the 1x1 convolution that widens the branches to the trunk.
        branch: layers between that and the sum.
        place: which of the two bottoms of the sum is the branch.
        is_rectified: whether an activation or a BatchNorm follows the sum.
    """

    total: Layer
    up: Layer
    branch: tuple[Layer, ...]
    place: int
    is_rectified: bool

    @property
    def factors(self) -> tuple[float, float]:
        """The factors of trunk and branch."""
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
    """Whether a Scale is a constant factor."""
    specs = layer.message.param
    has_filler = layer.message.scale_param.HasField("filler")
    return has_filler and len(specs) > 0 and specs[0].lr_mult == 0


def residual_blocks(net: PhaseNet) -> list[ResidualBlock]:
    """The residual blocks of a net, in order."""
    found = []
    for total in net.of_type("Eltwise"):
        param = total.message.eltwise_param
        if param.operation != param.SUM or len(total.message.bottom) != 2:
            continue
        sources = net.sources(total)
        for place, source in enumerate(sources):
            branch, up = _follow_branch(net, source)
            if up is not None and _leads_to(net, sources[1 - place], up):
                rectified = any(reader.type in _ACTIVATIONS for reader in net.readers(total))
                found.append(ResidualBlock(total, up, tuple(branch), place, rectified))
                break
    return found


def _leads_to(net: PhaseNet, trunk: Layer | None, up: Layer) -> bool:
    """Whether the branch begins at the trunk, unlike a lateral connection of a pyramid."""
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


def _follow_branch(net: PhaseNet, layer: Layer | None) -> tuple[list[Layer], Layer | None]:
    """Follows a branch from the sum back to a 1x1 convolution after a Concat.

    Returns:
        The layers in between, and the convolution or None.
    """
    between = []
    while layer is not None and layer.type in _ON_BRANCH and len(layer.message.bottom) == 1:
        between.append(layer)
        layer = net.sources(layer)[0]
    if layer is None or layer.type != "Convolution" or kernel(layer.message) != (1, 1):
        return between, None
    before = next(iter(net.sources(layer)), None)
    return between, layer if before is not None and before.type == "Concat" else None


@net_rule("residual-not-rectified", WARNING, f"{_PAPER}, Figs 16, 17, 19; TF-slim")
def residual_not_rectified(evidence: NetEvidence) -> Hits:
    """A sum of trunk and branch without a ReLU behind it."""
    found = residual_blocks(evidence.net)
    for index, block in enumerate(found):
        is_last = index == len(found) - 1  # TF-slim has no ReLU behind the very last one
        if block.is_rectified or (is_last and len(found) > 1 and found[0].is_rectified):
            continue
        yield Hit(
            what="no ReLU behind the addition of a residual block",
            why="the trunk is a sum of linear branches that only grows: at the start the standard "
            "deviation at its end is 4.4 in the net of 2016, and its running statistics are "
            "unstable early on",
            fix='a layer { type: "ReLU" } in place on the sum',
            at=block.total.at(),
        )


@net_rule(
    "residual-unscaled", NOTE, f"{_PAPER}, section 3.3; github.com/twtygqyy/Inception-resnet-v2"
)
def residual_unscaled(evidence: NetEvidence) -> Hits:
    """A wide residual branch that is added without a factor."""
    found = residual_blocks(evidence.net)
    for index, block in enumerate(found):
        is_last = index == len(found) - 1 and len(found) > 1 and found[0].factors[1] != 1
        if block.width > _WIDE and block.factors[1] == 1 and not is_last:
            yield Hit(
                what=f"a residual branch of more than {_WIDE:,} channels is added unscaled",
                why="for scaling: wide nets died early in the paper, it used factors of 0.1 to "
                "0.3; against: twtygqyy trained 40 unscaled blocks in Caffe to 72.9 % top-1 and "
                "90.4 % top-5 accuracy, with BatchNorm on the branch and clipped gradients",
                fix="eltwise_param { coeff: 1 coeff: 0.1 }; build-net --residual-scale 0.1",
                at=block.total.at("eltwise_param"),
            )


@net_rule("residual-scale-on-trunk", WARNING, f"{_PAPER}, Fig. 20")
def residual_scale_on_trunk(evidence: NetEvidence) -> Hits:
    """A residual factor on the trunk instead of the branch."""
    for block in residual_blocks(evidence.net):
        trunk, branch = block.factors
        if trunk != 1:
            first = block.total.message.bottom[0]
            yield Hit(
                what=f"the trunk is multiplied by {trunk:g}, the branch by {branch:g}",
                why="the coeff are in the order of the bottoms; a trunk that shrinks in every "
                "block is gone after a few of them",
                fix=f"swap the two coeff (the first is for {first!r})"
                if branch == 1
                else "coeff: 1 for the trunk",
                at=block.total.at("eltwise_param", "coeff"),
            )


@net_rule("deploy-sum-factors", NOTE, "github.com/NVIDIA/TensorRT, issue 1321")
def deploy_sum_factors(evidence: NetEvidence) -> Hits:
    """A deploy net whose sums have factors, which some other programs do not support."""
    net = evidence.net
    if not any(net.of_type("Input")) or any("Loss" in layer.type for layer in net.layers):
        return
    sums = [
        layer
        for layer in net.of_type("Eltwise")
        if any(factor != 1 for factor in layer.message.eltwise_param.coeff)
    ]
    if sums:
        yield Hit(
            what=f"{len(sums)} sum{'s' if sums[1:] else ''} with factors (eltwise_param coeff)",
            why="Caffe and OpenCV's dnn multiply with them; TensorRT's parser of Caffe's nets "
            "ignores them without a message, and Caffe2's translator refuses them",
            fix="irv2caffe deploy folds them into weights and bias of the layer before the sum",
            at=sums[0].at("eltwise_param", "coeff"),
        )


@net_rule("residual-bn-on-branch", NOTE, f"{_PAPER}, section 3.2; TF-slim")
def residual_bn_on_branch(evidence: NetEvidence) -> Hits:
    """A BatchNorm on the linear 1x1 convolution that ends a residual branch."""
    for block in residual_blocks(evidence.net):
        norm = next((layer for layer in block.branch if layer.type == "BatchNorm"), None)
        if norm is not None:
            yield Hit(
                what="BatchNorm on the linear 1x1 convolution that ends a residual branch",
                why="TF-slim's net and its published weights have a bias there and no BatchNorm; "
                "the Caffe and Torch ports of 2016 have BatchNorm, which bounds the growth of an "
                "unscaled trunk",
                fix="build-net --no-residual-bn, if weights are to be imported",
                at=norm.at(),
            )


@net_rule("residual-relu-on-branch", NOTE, f"{_PAPER}, Figs 16, 17, 19")
def residual_relu_on_branch(evidence: NetEvidence) -> Hits:
    """A ReLU between the last 1x1 convolution of a residual branch and the sum."""
    for block in residual_blocks(evidence.net):
        relu = next((layer for layer in block.branch if layer.type in _ACTIVATIONS[:3]), None)
        if relu is not None:
            yield Hit(
                what="a ReLU on the residual branch before the addition",
                why="the paper's 1x1 convolution there is linear: a branch that can only add makes "
                "the trunk grow",
                fix="remove it, and add a ReLU behind the sum instead",
                at=relu.at(),
            )
