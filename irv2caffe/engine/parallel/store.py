"""Waiting for a key of a store of torch.distributed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch.distributed as dist

_POLL_S = 0.05


def wait_until_set(store: dist.Store, key: str, timeout_s: float = float("inf")) -> bool:
    """Waits until a process sets the key; returns whether one did.

    Asks again and again, since signals are not heard during ``Store.wait``, and it prints warnings
    when its time is over.

    Raises:
        RuntimeError: the process with the store is gone.
    """
    end = time.monotonic() + timeout_s
    while not store.check([key]):
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_S)
    return True
