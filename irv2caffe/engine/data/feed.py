"""Feeds a net in one phase: the next batch of all its source layers."""

from __future__ import annotations

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from irv2caffe.engine.data.order import Share
from irv2caffe.engine.data.source import SOURCES, Reading, Source
from irv2caffe.errors import NetError, first_of
from irv2caffe.shapes.phases import selected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    import torch
    from torch import Tensor

    from irv2caffe.engine.options import EngineOptions
    from irv2caffe.shapes.layer_types import Shape
    from irv2caffe.shapes.phases import Phase

    Info = Callable[[str, str], None]

_MOST_THREADS = 16
_UNREADABLE = ("HDF5Data", "MemoryData", "WindowData")


class Feed:
    """The batches of a net's source layers."""

    def __init__(self, layers: Sequence[Any], reading: Reading) -> None:
        """Opens the sources; see :func:`open_feed`."""
        self._info = reading.info
        self._threads = _num_threads(reading.options)
        self._pool = ThreadPoolExecutor(self._threads, "decode")
        self._sources: list[Source] = []
        try:
            for index, layer in enumerate(layers):
                self._sources.append(Source(layer, index, reading, self._pool, self._threads))
        except BaseException:
            self.close()
            raise

    def record_shapes(self, layer: Any) -> Sequence[Shape] | None:
        """Channels, height and width of the first record of a source layer; None for others.

        Args:
            layer: a LayerParameter, as :func:`irv2caffe.shapes.infer.infer` passes it.
        """
        for source in self._sources:
            if source.layer.name == layer.name:
                return [source.record_shape]
        return None

    def next(self) -> dict[str, Tensor]:
        """The tops of the next batch, by name, float32 on the device.

        They are valid until the next call, which uses their memory again.

        Raises:
            FormatError: a corrupt record or database.
            OSError: the disk fails.
        """
        tops: dict[str, Tensor] = {}
        for source in self._sources:
            tops.update(zip(source.layer.top, source.pipeline.next(), strict=False))
        return tops

    @property
    def waited_s(self) -> float:
        """How long the device has waited for batches so far, in seconds."""
        return sum(source.pipeline.waited_s for source in self._sources)

    @property
    def num_skipped(self) -> int:
        """Corrupt records that were left out, each counted once."""
        return sum(source.pipeline.num_skipped for source in self._sources)

    def close(self) -> None:
        """Ends the threads and closes the sources; says how many records were left out."""
        for source in self._sources:
            source.pipeline.close()
        self._pool.shutdown()
        for source in self._sources:
            if source.pipeline.num_skipped:
                self._info("data_layer.cpp:73", source.skip_text())
            source.records.close()
        self._sources = []

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_feed(
    net: Any,
    phase: Phase,
    options: EngineOptions,
    *,
    device: torch.device,
    share: Share | None = None,
    seed: int | None = None,
    info: Info | None = None,
    level: int | None = None,
    stages: Sequence[str] = (),
) -> Feed:
    """Opens the source layers of a net.

    Args:
        net: a NetParameter.
        phase: ``TRAIN`` or ``TEST``.
        options: of the engine.
        device: where the batches are wanted.
        share: of the records for this process in ``TRAIN``; None for all, as always in ``TEST``.
        seed: of crops, mirror images and shuffles, the same in all processes; by default another
            one each time.
        info: writes a line to the log, from a source file (``data_layer.cpp:73``) and a message.
        level: of the NetState.
        stages: of the NetState.

    Raises:
        InputError: a source that Caffe refuses, such as a missing database.
        NetError: an Input layer, whose data nobody gives in training, or a source layer of another
            type than Data and ImageData.
    """
    chosen = selected(net, phase, level=level, stages=stages).net
    _refuse_unreadable(chosen.layer)
    share = Share() if share is None or phase == "TEST" else share
    reading = Reading(
        phase=phase,
        options=options,
        device=device,
        share=share,
        seed=secrets.randbits(63) if seed is None else seed,
        info=info or _no_info,
    )
    return Feed([layer for layer in chosen.layer if layer.type in SOURCES], reading)


def _refuse_unreadable(layers: Sequence[Any]) -> None:
    """Raises one error for all source layers that have no data here."""
    others = [f"{layer.name!r} ({layer.type})" for layer in layers if layer.type in _UNREADABLE]
    if others:
        raise NetError(
            f"the torch engine does not read {first_of(others, 20)}",
            "train with Caffe itself: --engine caffe",
        )
    for layer in layers:
        if layer.type == "Input":
            raise NetError(
                f"layer {layer.name!r} (Input): nobody gives it data in training",
                "use a Data layer; a deploy.prototxt cannot be trained",
                layer=layer.name,
            )


def _num_threads(options: EngineOptions) -> int:
    """Threads that decode: one for each core that this process may use, at least two."""
    if options.data_threads is not None:
        return options.data_threads
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # torchrun sets it
    return max(2, min(_MOST_THREADS, len(os.sched_getaffinity(0)) // processes))


def _no_info(_source: str, _message: str) -> None: ...
