"""A source layer: its records, and the pipeline that reads them."""

from __future__ import annotations

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

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from concurrent.futures import Executor

    import torch

    from irv2caffe.engine.data.pictures import Picture, Record
    from irv2caffe.engine.options import EngineOptions
    from irv2caffe.shapes.phases import Phase

    Info = Callable[[str, str], None]

SOURCES: dict[str, type[DatabaseRecords] | type[ImageListRecords]] = {
    "Data": DatabaseRecords,
    "ImageData": ImageListRecords,
}
_NUM_BATCHES = 3  # one in use, one ready, one being filled


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


class Source:
    """A source layer: its records, and the pipeline that reads them."""

    def __init__(
        self, layer: Any, index: int, reading: Reading, pool: Executor, num_threads: int
    ) -> None:
        """Opens the records.

        Args:
            layer: the LayerParameter.
            index: of the layer among the sources of the net; part of the seed.
            reading: how to read them.
            pool: threads that decode.
            num_threads: of the pool.
        """
        self.layer = layer
        self._info = reading.info
        self.records = SOURCES[layer.type](layer)
        try:
            self._set_up(index, reading, pool, num_threads)
        except BaseException:
            self.records.close()
            raise

    def _set_up(self, index: int, reading: Reading, pool: Executor, num_threads: int) -> None:
        layer, options, seed = self.layer, reading.options, [reading.seed, index]
        batch_size = _batch_size(layer)
        key, first = self._first(skip=options.skip_corrupt)
        channels, height, width = first.pixels.shape
        self.record_shape = (channels, height, width)
        transform = Transform(
            layer, reading.phase, self.record_shape, augment=options.augment, seed=reading.seed
        )
        try:
            transform.check(self.record_shape)
        except ValueError as error:
            raise unusable(Corrupt(key, str(error)), self.records.path) from error
        self._say_shape((batch_size, *transform.shape))
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
            waiting=self._waiting,
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
        count, share, order = len(self.records), reading.share, None
        if reading.options.shuffle and reading.phase == "TRAIN":
            order = shuffled(count, seed)
        elif self.layer.type == "ImageData":  # each process reads all of a list, as in Caffe
            param, seed = self.layer.image_data_param, [*seed, share.rank]
            order = shuffled(count, seed) if param.shuffle else None
            most = param.rand_skip
            share = Share(skip=int(np.random.default_rng(seed).integers(most)) if most else 0)
        return self.records.records(share, order, self._wrapped)

    def _say_shape(self, shape: tuple[int, ...]) -> None:
        """What Caffe says when it sets up the layer."""
        sizes = f"output data size: {','.join(map(str, shape))}"
        if self.layer.transform_param.HasField("mean_file"):
            mean = self.layer.transform_param.mean_file
            self._info("data_transformer.cpp:25", f"Loading mean file from: {mean}")
        if self.layer.type == "Data":
            self._info("db_lmdb.cpp:35", f"Opened lmdb {self.records.path}")
            self._info("data_layer.cpp:45", sizes)
        else:
            self._info("image_data_layer.cpp:38", f"Opening file {self.records.path}")
            self._info("image_data_layer.cpp:63", f"A total of {len(self.records)} images.")
            self._info("image_data_layer.cpp:90", sizes)

    def _wrapped(self) -> None:
        self._info("data_layer.cpp:73", "Restarting data prefetching from start.")

    def _waiting(self) -> None:
        self._info("blocking_queue.cpp:49", "Waiting for data")

    def _skipped(self, message: str, count: int) -> None:
        """Says it of the 1st, 2nd, 4th, 8th ... record."""
        if count & (count - 1) == 0:
            self._info("data_layer.cpp:73", f"{message}; left out, {count:,} so far")

    def skip_text(self) -> str:
        """How many records were left out."""
        return f"{self.pipeline.num_skipped:,} corrupt records of {self.records.path} were left out"


def _batch_size(layer: Any) -> int:
    param = layer.data_param if layer.type == "Data" else layer.image_data_param
    if not param.batch_size:
        raise NetError(f"layer {layer.name!r}: batch_size must be positive", layer=layer.name)
    return int(param.batch_size)


def _nothing() -> None: ...
