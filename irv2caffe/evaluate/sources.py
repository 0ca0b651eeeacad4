"""Which images a net is evaluated on: what the user names, or what its data layers read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.data.records.database_files import RECORDS
from irv2caffe.errors import InputError
from irv2caffe.inference.finding import placed
from irv2caffe.proto.text import read_net
from irv2caffe.shapes.phases import select

if TYPE_CHECKING:
    from irv2caffe.inference.model import Model

_LAYERS = {"Data": "data_param", "ImageData": "image_data_param"}


@dataclass(frozen=True)
class Given:
    """The images to evaluate on, and what the data layers of the net say.

    Attributes:
        source: a database or a folder.
        list_file: lines of ``PATH LABEL`` for a folder.
        test_batch_size: of the TEST data layer; None if unknown.
        train_batch_size: of the TRAIN data layer.
        mirror: whether the TRAIN data layer mirrors.
        test_loss: type of the loss in TEST that is not SoftmaxWithLoss, if there is one.
        layer: the data layer that reads them; None where the user names them.
        where: the file with that layer.
    """

    source: Path
    list_file: Path | None = None
    test_batch_size: int | None = None
    train_batch_size: int | None = None
    mirror: bool = False
    test_loss: str = ""
    layer: Any = None
    where: Path | None = None

    @property
    def is_database(self) -> bool:
        """Whether Caffe's data layer reads it."""
        return (self.source / RECORDS).exists()


def data_of(
    model: Model,
    on: str,
    source: Path | None = None,
    list_file: Path | None = None,
    net: Path | None = None,
) -> Given:
    """The images to evaluate on.

    Args:
        model: whose train_val net names the databases.
        on: ``val`` or ``train``.
        source: what the user names; None takes the database of the net's data layer.
        list_file: of the user's.
        net: what the user named as the net of the model.

    Raises:
        InputError: nothing is named, and the net does not tell.
    """
    nets = [path for path in (model.train_val, net) if path is not None]
    where, test, train, losses = _data_layers(nets)
    facts: dict[str, Any] = {
        "test_batch_size": _batch_size(test),
        "train_batch_size": _batch_size(train),
        "mirror": bool(train is not None and train.transform_param.mirror),
        "test_loss": next((loss for loss in losses if loss != "SoftmaxWithLoss"), ""),
    }
    if source is not None:
        return Given(source, list_file, **facts)
    layer = train if on == "train" else test
    if layer is None or where is None:
        what = "training" if on == "train" else "validation"
        raise InputError(
            f"{model.weights}: its net does not tell the {what} data",
            "name the images: --lmdb DB or a folder with one folder per class; or the net that "
            "was trained: --net train_val.prototxt",
        )
    facts |= {"layer": layer, "where": where}
    param = getattr(layer, _LAYERS[layer.type])
    found = placed(param.source, where)
    if layer.type == "ImageData":
        return Given(Path(param.root_folder or "."), found, **facts)
    return Given(found, **facts)


def _data_layers(nets: list[Path]) -> tuple[Path | None, Any | None, Any | None, list[str]]:
    """The first net with data layers, those of TEST and TRAIN, and the losses in TEST."""
    for path in nets:
        net = read_net(path)[0]
        test, train = (select(net, phase).layer for phase in ("TEST", "TRAIN"))
        layers = [
            next((layer for layer in phase if layer.type in _LAYERS), None)
            for phase in (test, train)
        ]
        if any(layers):
            losses = [layer.type for layer in test if layer.type.endswith("Loss")]
            return path, layers[0], layers[1], losses
    return None, None, None, []


def _batch_size(layer: Any | None) -> int | None:
    size = getattr(layer, _LAYERS[layer.type]).batch_size if layer is not None else 0
    return int(size) or None
