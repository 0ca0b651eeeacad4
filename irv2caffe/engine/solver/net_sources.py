"""The nets that a solver names, with their states (solver.cpp, InitTrainNet and InitTestNets)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError
from irv2caffe.proto import messages
from irv2caffe.proto.text import read_prototxt

if TYPE_CHECKING:
    from collections.abc import Sequence

_TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")
_SAID = {
    "net": "from net file: {}",
    "net_param": "specified in net_param.",
    "train_net": "from train_net file: {}",
    "train_net_param": "specified in train_net_param.",
}
_ONE_FOR_EACH = "write one test_iter for each test net"


@dataclass(frozen=True)
class NetSource:
    """A net of a solver.

    Attributes:
        said: where it came from, as Caffe's log says it.
        proto: a NetParameter of its own, with the level and stages of its state.
    """

    said: str
    proto: Any


def train_source(param: Any) -> NetSource:
    """The net to be trained.

    Raises:
        UsageError: none, or several.
        MissingInputError: its file does not exist.
        FormatError: its file is no net.
    """
    given = [name for name in _TRAIN_FIELDS if param.HasField(name)]
    names = ", ".join(_TRAIN_FIELDS)
    if not given:
        raise UsageError(
            f"SolverParameter must specify a train net using one of these fields: {names}",
            "write net: into the solver",
        )
    if len(given) > 1:
        raise UsageError(
            f"SolverParameter must not contain more than one of these fields: {names}",
            f"remove all but one of {', '.join(given)}",
        )
    said = _SAID[given[0]].format(getattr(param, given[0]))
    return NetSource(said, _with_state(_load(getattr(param, given[0])), param.train_state))


def test_sources(param: Any) -> list[NetSource]:
    """The nets to be tested: ``test_net_param``, ``test_net``, then ``net`` for what is left.

    Raises:
        UsageError: their number does not match ``test_iter`` or ``test_state``.
        MissingInputError: a file does not exist.
        FormatError: a file is no net.
    """
    own = [("test_net_param", net) for net in param.test_net_param]
    own += [(f"test_net file: {path}", path) for path in param.test_net]
    generic = param.HasField("net") or param.HasField("net_param")
    left = len(param.test_iter) - len(own)
    if left < 0 or (left > 0 and not generic):
        raise UsageError("test_iter must be specified for each test network.", _ONE_FOR_EACH)
    if param.HasField("net"):
        own += [(f"net file: {param.net}", param.net)] * left
    elif param.HasField("net_param"):
        own += [("net_param", param.net_param)] * left
    if param.test_state and len(param.test_state) != len(own):
        raise UsageError(
            "test_state must be unspecified or specified once per test net.",
            f"there are {len(param.test_state)} for {len(own)} test nets",
        )
    if own and param.test_interval <= 0:
        raise UsageError("test_iter without test_interval", "write test_interval: into the solver")
    states: Sequence[Any] = param.test_state or [messages.message_class("NetState")()] * len(own)
    return [
        NetSource(said, _with_state(_load(net), state))
        for (said, net), state in zip(own, states, strict=True)
    ]


def _load(net: Any) -> Any:
    if isinstance(net, str):
        return read_prototxt(Path(net), messages.NetParameter)
    copy = messages.NetParameter()
    copy.CopyFrom(net)
    return copy


def _with_state(net: Any, state: Any) -> Any:
    """Adds the solver's state of a net to the net's own; the phase is not of interest here."""
    net.state.MergeFrom(state)
    return net
