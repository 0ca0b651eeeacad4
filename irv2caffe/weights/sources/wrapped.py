"""Finds the prefix of a network's names in the state dict of a larger module.

The prefix is ``module.`` in DistributedDataParallel, mostly ``model.`` in a LightningModule and
``_orig_mod.`` in a compiled module; any attribute of any class is possible.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from irv2caffe.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_AVERAGED = re.compile(r"(^|[._])(ema|averaged|shadow)([._]|$)", re.IGNORECASE)


def prefix_of(names: Iterable[str], known: Collection[str], *, averaged: bool = False) -> str:
    """The prefix of a network's names, with its last dot; empty for the network alone.

    Args:
        names: in the file.
        known: names of the network.
        averaged: take the moving averages that a trainer kept beside the network.

    Raises:
        FormatError: the file holds several such networks, or no averages of one.
    """
    counts = Counter(prefix for name in names if (prefix := _prefix(name, known)) is not None)
    averages = {prefix: count for prefix, count in counts.items() if _AVERAGED.search(prefix)}
    if averaged and not averages:
        raise FormatError("holds no averaged weights", "leave out --ema")
    plain = {prefix: count for prefix, count in counts.items() if prefix not in averages}
    chosen = averages if averaged else plain or averages
    most = max(chosen.values(), default=0)
    best = sorted(prefix for prefix, count in chosen.items() if count == most)
    if len(best) > 1:
        raise FormatError(
            f"holds several networks: {', '.join(prefix or 'one without' for prefix in best[:4])}",
            "save the state dict of one alone: torch.save(model.state_dict(), FILE)",
        )
    return best[0] if best else ""


def _prefix(name: str, known: Collection[str]) -> str | None:
    """The part of a name before a known name at its end; None without one."""
    if name in known:
        return ""
    at = name.find(".")
    while at >= 0:
        if name[at + 1 :] in known:
            return name[: at + 1]
        at = name.find(".", at + 1)
    return None
