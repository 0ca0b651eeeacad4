"""What is tested: a model, and the images that it was trained and tested with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError
from irv2caffe.evaluate.run import DEFAULT_BATCH_SIZE
from irv2caffe.evaluate.sources import data_of
from irv2caffe.inference.finding import PreprocessingOptions, completed, from_data_layer
from irv2caffe.inference.images import read_images
from irv2caffe.inference.opening import open_model
from irv2caffe.inference.places import find_place
from irv2caffe.proto import messages
from irv2caffe.proto.text import read_net
from irv2caffe.shapes.phases import select

if TYPE_CHECKING:
    from irv2caffe.diagnose.evidence import RunEvidence
    from irv2caffe.diagnose.measure.request import MeasureRequest
    from irv2caffe.evaluate.sources import Given
    from irv2caffe.inference.images import Images
    from irv2caffe.inference.model import Model
    from irv2caffe.inference.places import Place
    from irv2caffe.inference.preprocessing import Preprocessing

_MODELS = (".caffemodel", ".caffemodel.h5")


@dataclass(frozen=True)
class Subject:
    """What is tested.

    Attributes:
        request: what the user wants.
        model: opened for use, as it is tested.
        nets: the nets that were trained and tested, which name the images.
    """

    request: MeasureRequest
    model: Model
    nets: dict[str, Path | None]

    @cached_property
    def val(self) -> Given:
        """Where the validation images are; InputError if that is not known."""
        return data_of(self.model, "val", net=self.nets["TEST"])

    @cached_property
    def train(self) -> Given:
        """Where the training images are; InputError if that is not known."""
        trained = self.nets["TRAIN"] or self.model.train_val
        return data_of(replace(self.model, train_val=trained), "train", net=self.nets["TRAIN"])

    @property
    def test_batch_size(self) -> int:
        """Images in a batch of the TEST net."""
        return self.val.test_batch_size or DEFAULT_BATCH_SIZE

    @property
    def train_batch_size(self) -> int:
        """Images in a batch of the TRAIN net."""
        return self.train.train_batch_size or DEFAULT_BATCH_SIZE

    def images(self, given: Given, block: int = 1, *, seed: int | None = None) -> Images:
        """Some images, in their order; in one that comes of ``seed`` if there is one.

        Args:
            given: where they are.
            block: choose blocks of so many neighbours, which meet in a batch.
            seed: of the order; the images are the same.
        """
        import numpy as np

        images = read_images(given.source, self.model, list_file=given.list_file)
        is_all = self.request.limit >= len(images)
        if is_all and seed is None:
            return images
        limit, names = self.request.limit, images.names()
        names = names if is_all else images.choose(limit, self.request.seed, block=block)
        if seed is not None:
            names = [names[at] for at in np.random.default_rng(seed).permutation(len(names))]
        return images.only(names)

    @cached_property
    def training_preprocessing(self) -> Preprocessing:
        """What the TRAIN data layer does, but for chance: it crops the centre."""
        made, given = self.model.preprocessing, self.train
        if given.layer is None or given.where is None:
            return made
        found = from_data_layer(given.layer, given.where)
        shape = (made.channels, made.height, made.width)
        return completed(found, PreprocessingOptions(), shape, "")

    @cached_property
    def training_net(self) -> Any:
        """The net for use, to be run in phase TRAIN: as in training, but without dropout."""
        frozen = _frozen(self.nets["TRAIN"] or self.model.train_val)
        net = messages.NetParameter()
        net.CopyFrom(self.model.net)
        for layer in net.layer:
            if layer.type == "Dropout":
                layer.phase = messages.TEST
            if layer.type == "BatchNorm":
                layer.batch_norm_param.ClearField("use_global_stats")
                if layer.name in frozen:
                    layer.batch_norm_param.use_global_stats = True
        return net

    @property
    def num_normalized(self) -> tuple[int, int]:
        """BatchNorm layers that take the statistics of the training batch, and all of them."""
        norms = [layer for layer in self.training_net.layer if layer.type == "BatchNorm"]
        return sum(not one.batch_norm_param.use_global_stats for one in norms), len(norms)


def _frozen(path: Path | None) -> set[str]:
    """The BatchNorm layers that use the stored statistics in training as well."""
    if path is None:
        return set()
    return {
        layer.name
        for layer in select(read_net(path)[0], "TRAIN").layer
        if layer.type == "BatchNorm" and layer.batch_norm_param.use_global_stats
    }


def place_of(request: MeasureRequest, evidence: RunEvidence) -> Place:
    """The files of the model.

    Raises:
        UsageError: a snapshot is named, but what is diagnosed is no run folder.
        MissingInputError: no such file.
    """
    source, net, snapshot = _source(request, evidence)
    return find_place(source, net, snapshot)


def open_subject(request: MeasureRequest, evidence: RunEvidence) -> Subject:
    """Opens a model.

    Raises:
        NetError: the net is no classifier of images.
        Irv2CaffeError: as :func:`irv2caffe.inference.opening.open_model`.
    """
    source, net, snapshot = _source(request, evidence)
    nets = {phase: request.net or _net_of(evidence, phase) for phase in ("TRAIN", "TEST")}
    return Subject(request, open_model(source, net=net, snapshot=snapshot), nets)


def _source(request: MeasureRequest, evidence: RunEvidence) -> tuple[Path, Path | None, str]:
    """What to open, its net, and the snapshot."""
    is_file = request.model.endswith(_MODELS) or Path(request.model).exists()
    if evidence.run_dir is not None and not is_file:
        return evidence.run_dir, request.net, request.model
    if not is_file:
        raise UsageError(
            f"--model {request.model}: {evidence.name} is no run folder",
            "name a .caffemodel, and its net with --solver",
        )
    return Path(request.model), request.net or _net_of(evidence, "TEST"), "best"


def _net_of(evidence: RunEvidence, phase: str) -> Path | None:
    """The file of the solver's net; None where the solver or the log holds it."""
    net, solver = evidence.net(phase), evidence.check and evidence.check.solver
    if net is None or (solver and net.file.name == solver.name):
        return None
    path = Path(net.file.name)
    return path if path.is_file() else None
