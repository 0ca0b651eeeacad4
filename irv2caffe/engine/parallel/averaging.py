"""The mean of gradients over all ranks, in few large messages, while the backward pass runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from irv2caffe.engine.weights import Weight

BUCKET_BYTES = 25 << 20


class GradientAverage:
    """Averages the gradients of weights over all ranks.

    The gradients lie in buckets, flat tensors of about 25 MB, in the order in which the backward
    pass completes them: that of the weights, reversed. All ranks send the buckets in this order.
    Backward passes add to them in place; gradients that others keep elsewhere are copied.
    """

    def __init__(
        self, weights: Sequence[Weight], world: int, bucket_bytes: int = BUCKET_BYTES
    ) -> None:
        tensors = [weight.tensor for weight in reversed(weights) if weight.tensor.requires_grad]
        self._buckets = [_Bucket(part) for part in _parts(tensors, bucket_bytes)]
        self._world = world
        self._num_sent = 0
        self._is_early = False
        for bucket in self._buckets:
            bucket.place_gradients()
            for place, tensor in enumerate(bucket.tensors):
                tensor.register_post_accumulate_grad_hook(self._hook(bucket, place))

    def _hook(self, bucket: _Bucket, place: int) -> Callable[[Tensor], None]:
        def is_complete(_: Tensor) -> None:
            if self._is_early:
                bucket.missing.discard(place)
                self._send_complete()

        return is_complete

    def begin(self) -> None:
        """Sends each bucket of the next backward pass as soon as its gradients are complete."""
        self._is_early = True
        for bucket in self._buckets:
            bucket.missing = set(range(len(bucket.tensors)))

    def _send_complete(self) -> None:
        while self._num_sent < len(self._buckets) and not self._buckets[self._num_sent].missing:
            self._send()

    def _send(self) -> None:
        self._buckets[self._num_sent].send()
        self._num_sent += 1

    def finish(self) -> None:
        """Sends what was not sent yet, and waits; the gradients are then the means."""
        self._is_early = False
        while self._num_sent < len(self._buckets):
            self._send()
        self._num_sent = 0
        for bucket in self._buckets:
            bucket.receive(self._world)


class _Bucket:
    """Gradients that are sent together."""

    def __init__(self, tensors: list[Tensor]) -> None:
        first = tensors[0]
        sizes = [tensor.numel() for tensor in tensors]
        self.tensors = tensors
        self.missing: set[int] = set()
        self._flat = torch.zeros(sum(sizes), dtype=first.dtype, device=first.device)
        self._views = [
            part.as_strided(tensor.shape, tensor.stride(), part.storage_offset())
            for part, tensor in zip(self._flat.split(sizes), tensors, strict=True)
        ]
        self._work: dist.Work | None = None
        self._elsewhere: list[tuple[Tensor, Tensor]] = []

    def place_gradients(self) -> None:
        """Puts the gradients here, for good; missing ones are zero."""
        self._collect()
        for tensor, view in zip(self.tensors, self._views, strict=True):
            tensor.grad = view
        self._elsewhere = []

    def _collect(self) -> None:
        """Copies the gradients that are elsewhere; those of no loss are zero, as in Caffe."""
        self._elsewhere = []
        for tensor, view in zip(self.tensors, self._views, strict=True):
            if tensor.grad is None:
                tensor.grad = view.zero_()
            elif tensor.grad.data_ptr() != view.data_ptr():
                self._elsewhere.append((tensor.grad, view))
        if self._elsewhere:
            there, here = map(list, zip(*self._elsewhere, strict=True))
            torch._foreach_copy_(here, there)

    def send(self) -> None:
        self._collect()
        self._work = dist.all_reduce(self._flat, async_op=True)

    def receive(self, world: int) -> None:
        assert self._work is not None
        self._work.wait()
        self._work = None
        self._flat.mul_(1 / world)
        if self._elsewhere:
            there, here = map(list, zip(*self._elsewhere, strict=True))
            torch._foreach_copy_(there, here)


def _parts(tensors: Sequence[Tensor], most_bytes: int) -> list[list[Tensor]]:
    """Cuts the tensors into runs of at most so many bytes; a larger tensor is alone."""
    parts: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if size > room:
            parts.append([])
            room = most_bytes
        parts[-1].append(tensor)
        room -= size
    return parts
