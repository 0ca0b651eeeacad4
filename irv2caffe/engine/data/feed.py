"""Feeds a net in one phase: the next batch of all its source layers."""

from __future__ import annotations

import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from irv2caffe.engine.data.batches import make_batch
from irv2caffe.engine.data.databases import DatabaseRecords
from irv2caffe.engine.data.image_list import ImageListRecords
from irv2caffe.engine.data.order import Share, shuffled
from irv2caffe.engine.data.pipeline import Corrupt, Pipeline, unusable
from irv2caffe.engine.data.transform import Transform
from irv2caffe.errors import NetError
from irv2caffe.shapes.phases import selected

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from types import TracebackType

    import torch
    from torch import Tensor

    from irv2caffe.engine.data.pictures import Picture, Record
    from irv2caffe.engine.options import EngineOptions
    from irv2caffe.shapes.layer_types import Shape
    from irv2caffe.shapes.phases import Phase

    Info = Callable[[str, str], None]

_RECORDS: dict[str, type[DatabaseRecords] | type[ImageListRecords]] = {
    "Data": DatabaseRecords,
    "ImageData": ImageListRecords,
}
_NUM_BATCHES = 3  # one in use, one ready, one being filled
_MOST_THREADS = 16


@dataclass(frozen=True)
class Reading:
    """How a process reads.

    Attributes:
        phase: ``TRAIN`` or ``TEST``.
        options: of the engine.
        device: where the net runs.
        share: of the records; Caffe tests in one process only, which reads all.
        seed: of crops, mirror images and shuffles; the same in all processes.
        info: writes a line to the log; called with source file and message, also in threads.
    """

    phase: Phase
    options: EngineOptions
    device: torch.device
    share: Share
    seed: int
    info: Info


class Feed:
    """The batches of a net's source layers.

    Attributes:
        waited_s: how long :meth:`next` has waited for data so far.
    """

    def __init__(self, layers: Sequence[Any], reading: Reading) -> None:
        """Opens the sources; see :func:`open_feed`."""
        self.waited_s = 0.0
        self._info = reading.info
        self._threads = _num_threads(reading.options)
        self._pool = ThreadPoolExecutor(self._threads, "decode")
        self._sources: list[_Source] = []
        try:
            for index, layer in enumerate(layers):
                self._sources.append(_Source(layer, index, reading, self._pool, self._threads))
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
        start = time.perf_counter()
        tops: dict[str, Tensor] = {}
        for source in self._sources:
            tops.update(zip(source.layer.top, source.pipeline.next(), strict=False))
        self.waited_s += time.perf_counter() - start
        return tops

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


class _Source:
    """A source layer: its records, and the pipeline that reads them."""

    def __init__(
        self,
        layer: Any,
        index: int,
        reading: Reading,
        pool: ThreadPoolExecutor,
        num_threads: int,
    ) -> None:
        self.layer = layer
        self._info = reading.info
        self.records = _RECORDS[layer.type](layer)
        options, seed = reading.options, [reading.seed, index]
        key, first = self._first(skip=options.skip_corrupt)
        channels, height, width = first.pixels.shape
        self.record_shape = (channels, height, width)
        transform = Transform(
            layer, reading.phase, self.record_shape, augment=options.augment, seed=seed[0]
        )
        try:
            transform.check(self.record_shape)
        except ValueError as error:
            raise unusable(Corrupt(key, str(error)), self.records.path) from error
        batch_size = _batch_size(layer)
        self.pipeline = Pipeline(
            self.records,
            self._stream(reading, seed),
            transform,
            [make_batch(batch_size, transform, first, reading.device) for _ in range(_NUM_BATCHES)],
            batch_size=batch_size,
            pool=pool,
            num_threads=num_threads,
            rng=np.random.default_rng([*seed, reading.share.rank]),
            skipped=self._skipped if options.skip_corrupt else None,
        )

    def _first(self, *, skip: bool) -> tuple[bytes, Picture]:
        """The first record, which gives the shape (DataLayerSetUp in data_layer.cpp)."""
        records = self.records.records(Share(), None, _nothing)
        corrupt = Corrupt(b"", "")
        for record in islice(records, len(self.records) if skip else 1):
            try:
                return record.key, self.records.decode(record)
            except (ValueError, OSError) as error:
                corrupt = Corrupt(record.key, str(error))
        raise unusable(corrupt, self.records.path)

    def _stream(self, reading: Reading, seed: list[int]) -> Generator[Record]:
        """The records of this process, in Caffe's order or shuffled."""
        share, order = reading.share, None
        is_list = self.layer.type == "ImageData"
        if reading.options.shuffle and reading.phase == "TRAIN":
            order = shuffled(len(self.records), seed)
        elif is_list:  # each process reads all of a list, as in Caffe
            if self.layer.image_data_param.shuffle:
                order = shuffled(len(self.records), [*seed, share.rank])
            share = Share()
        if is_list and (most := self.layer.image_data_param.rand_skip):
            skip = int(np.random.default_rng([*seed, share.rank, 1]).integers(most))
            share = Share(share.rank, share.world, skip=skip)
        return self.records.records(share, order, self._wrapped)

    def _wrapped(self) -> None:
        self._info("data_layer.cpp:73", "Restarting data prefetching from start.")

    def _skipped(self, message: str, count: int) -> None:
        """Says it of the 1st, 2nd, 4th, 8th ... record."""
        if count & (count - 1) == 0:
            self._info("data_layer.cpp:73", f"{message}; left out, {count:,} so far")

    def skip_text(self) -> str:
        """How many records were left out."""
        return f"{self.pipeline.num_skipped:,} corrupt records of {self.records.path} were left out"


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
        share: of this process; all records by default, and always in ``TEST`` (data_layer.cpp).
        seed: of crops, mirror images and shuffles, the same in all processes; by default another
            one each time.
        info: writes a line to the log, from a source file (``data_layer.cpp:73``) and a message.
        level: of the NetState.
        stages: of the NetState.

    Raises:
        InputError: a source that Caffe refuses, such as a missing database.
        NetError: an Input layer, whose data nobody gives in training.
    """
    chosen = selected(net, phase, level=level, stages=stages).net
    for layer in chosen.layer:
        if layer.type == "Input":
            raise NetError(
                f"layer {layer.name!r} (Input): nobody gives it data in training",
                "use a Data layer; a deploy.prototxt cannot be trained",
                layer=layer.name,
            )
    share = Share() if share is None or phase == "TEST" else share
    reading = Reading(
        phase=phase,
        options=options,
        device=device,
        share=share,
        seed=secrets.randbits(63) if seed is None else seed,
        info=info or _no_info,
    )
    return Feed([layer for layer in chosen.layer if layer.type in _RECORDS], reading)


def _batch_size(layer: Any) -> int:
    param = layer.data_param if layer.type == "Data" else layer.image_data_param
    if not param.batch_size:
        raise NetError(f"layer {layer.name!r}: batch_size must be positive", layer=layer.name)
    return int(param.batch_size)


def _num_threads(options: EngineOptions) -> int:
    """Threads that decode: one for each core that this process may use, at least two."""
    if options.data_threads is not None:
        return options.data_threads
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # torchrun sets it
    return max(2, min(_MOST_THREADS, len(os.sched_getaffinity(0)) // processes))


def _nothing() -> None: ...


def _no_info(_source: str, _message: str) -> None: ...
