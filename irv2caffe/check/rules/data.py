"""Data layers compared with the databases they read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import facts_of_net
from irv2caffe.check.evidence import DATA_PARAMS, Evidence, Layer, NetEvidence
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, Hits
from irv2caffe.check.registry import net_rule, rule
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.data.inspect.database import Database

TRANSFORMER = "data_transformer.cpp"
IMAGES = ("Data", "ImageData", "WindowData")


def _image_layers(evidence: NetEvidence) -> Iterator[tuple[Layer, Database]]:
    """Layers that read images, with the facts of their source, where it is known."""
    for layer in evidence.net.of_type("Data", "ImageData"):
        facts = evidence.facts_of(layer)
        if facts is not None:
            yield layer, facts


@net_rule("data-missing", NOTE, "db_lmdb.cpp; image_data_layer.cpp; hdf5_data_layer.cpp")
def data_missing(evidence: NetEvidence) -> Hits:
    """A source that does not exist on this machine."""
    for layer in evidence.net.data_layers:
        source, name = layer.source, DATA_PARAMS[layer.type]
        if not source:
            yield Hit(
                what=f"a {layer.type} layer without source",
                why="Caffe stops when it opens it",
                fix=f"{name} {{ source: ... }}",
                at=layer.at(name),
                severity=ERROR,
            )
        elif not evidence.files.get(source, True) and source not in evidence.databases:
            yield Hit(
                what=f"{source} does not exist",
                why="its records and labels were not checked; Caffe stops when it opens it",
                fix="irv2caffe make-lmdb, or --train-lmdb DB --val-lmdb DB",
                at=layer.at_data("source"),
            )


@rule("data-unreadable", ERROR, "db_lmdb.cpp; data_transformer.cpp")
def data_unreadable(evidence: Evidence) -> Hits:
    """A source that is not a database."""
    yield from evidence.found_while_reading("data-unreadable")


@net_rule("data-empty", ERROR, "data_transformer.cpp, InferBlobShape")
def data_empty(evidence: NetEvidence) -> Hits:
    """A database without records."""
    for layer, facts in _image_layers(evidence):
        if facts.num_records == 0:
            yield Hit(
                what=f"{layer.source} holds no image",
                why="Caffe stops: Check failed: datum_channels > 0",
                fix="build it again; a list without a valid line gives an empty database",
                at=layer.at_data("source"),
            )


@net_rule("backend-unset", ERROR, "caffe.proto, DataParameter; db_leveldb.cpp")
def backend_unset(evidence: NetEvidence) -> Hits:
    """A backend that does not match the database, or is missing."""
    for layer in evidence.net.of_type("Data"):
        param, facts = layer.message.data_param, evidence.facts_of(layer)
        backend = "LMDB" if param.backend == messages.DataParameter.LMDB else "LEVELDB"
        at = layer.at("data_param", "backend")
        if facts is not None:
            if facts.kind != backend:
                unset = "" if param.HasField("backend") else ", which is the default"
                yield Hit(
                    what=f"backend {backend}{unset}, but {layer.source} is an {facts.kind}",
                    why="Caffe stops: it cannot open the database",
                    fix=f"backend: {facts.kind}",
                    at=at,
                )
        elif not param.HasField("backend") and "leveldb" not in layer.source.lower():
            yield Hit(
                what="no backend, which means LEVELDB",
                why="on an LMDB Caffe stops: Failed to open leveldb",
                fix="backend: LMDB",
                at=at,
                severity=ERROR if "lmdb" in layer.source.lower() else WARNING,
            )


@net_rule("batch-size", ERROR, "data_layer.cpp, DataLayerSetUp")
def batch_size(evidence: NetEvidence) -> Hits:
    """A ``batch_size`` of 0, or one that the GPUs cannot share equally."""
    gpus = evidence.claims.num_gpus
    for layer in evidence.net.data_layers:
        size, at = (
            getattr(layer.message, DATA_PARAMS[layer.type]).batch_size,
            layer.at_data("batch_size"),
        )
        if size == 0:
            yield Hit(what="batch_size is missing", why="Caffe stops", fix="batch_size: 32", at=at)
        elif evidence.claims.flavor == "nvcaffe" and gpus > 1 and size % gpus:
            yield Hit(
                what=f"batch_size {size} on {gpus} GPUs",
                why="NVCaffe divides it by their number and rounds up: the batch is larger than "
                "written",
                fix=f"batch_size: {(size // gpus + 1) * gpus}",
                at=at,
                severity=WARNING,
                source="NVCaffe's parallel.cpp",
            )


@net_rule(
    "no-shuffle", WARNING, "data_layer.cpp; github.com/BVLC/caffe issues 1087, 2606", phase="TRAIN"
)
def no_shuffle(evidence: NetEvidence) -> Hits:
    """Training images in the order of their labels."""
    for layer, facts in _image_layers(evidence):
        is_list = layer.type == "ImageData"
        if is_list and layer.message.image_data_param.shuffle:
            continue
        if facts.order in {"sorted", "grouped"}:
            order = "in the order of labels" if facts.order == "sorted" else "class by class"
            yield Hit(
                what=f"{layer.source} holds its images {order}",
                why="every batch shows one class or a few; gradients swing from class to class, "
                "and BatchNorm's statistics reveal the class. Caffe never shuffles a database",
                fix="shuffle: true"
                if is_list
                else "build it again with make-lmdb --shuffle (convert_imageset -shuffle)",
                at=layer.at_data("source"),
            )


@net_rule("crop-exceeds-records", ERROR, TRANSFORMER)
def crop_exceeds_records(evidence: NetEvidence) -> Hits:
    """A crop that is larger than the images."""
    for layer, facts in _image_layers(evidence):
        crop = layer.message.transform_param.crop_size
        if facts.height_first:
            continue  # the rule height-first reports it
        if facts.height and facts.width and crop > min(facts.height, facts.width):
            yield Hit(
                what=f"crop_size {crop}, but {layer.source} holds {facts.width}x{facts.height}",
                why="Caffe stops: Check failed: datum_height >= crop_size",
                fix=f"make-lmdb --resize {max(crop + 1, crop * 328 // 299)}, or a smaller crop",
                at=layer.at("transform_param", "crop_size"),
            )


@net_rule("records-differ", ERROR, TRANSFORMER)
def records_differ(evidence: NetEvidence) -> Hits:
    """Gray images among colour ones, or several sizes without a crop."""
    for layer, facts in _image_layers(evidence):
        transform, at = layer.message.transform_param, layer.at("data_param", "source")
        if facts.mixed_channels and not (transform.force_color or transform.force_gray):
            yield Hit(
                what=f"{layer.source} holds gray and colour images",
                why="Caffe stops at the first one that differs, hours into the run: Check failed: "
                "channels == img_channels",
                fix="transform_param { force_color: true } for encoded images, or build it again",
                at=at,
            )
        is_batched = layer.message.data_param.batch_size > 1
        if facts.mixed_sizes and is_batched and not transform.crop_size:
            yield Hit(
                what=f"{layer.source} holds images of several sizes, and there is no crop_size",
                why="Caffe stops at the first one that differs from the first of its batch",
                fix="crop_size, or make-lmdb --resize",
                at=at,
            )


@net_rule("mean", ERROR, f"{TRANSFORMER}, DataTransformer")
def mean(evidence: NetEvidence) -> Hits:
    """A mean that Caffe cannot subtract."""
    for layer in evidence.net.of_type(*IMAGES):
        transform, facts = layer.message.transform_param, evidence.facts_of(layer)
        at = layer.at("transform_param")
        if transform.mean_file and transform.mean_value:
            yield Hit(
                what="both mean_file and mean_value",
                why="Caffe stops: Cannot specify mean_file and mean_value at the same time",
                fix="keep one of them",
                at=at,
            )
        channels = facts.channels if facts is not None else None
        channels = 3 if transform.force_color else 1 if transform.force_gray else channels
        count = len(transform.mean_value)
        if count > 1 and channels and count != channels:
            yield Hit(
                what=f"{count} mean_value for {channels} channel(s)",
                why="Caffe stops: Specify either 1 mean_value or as many as channels",
                fix=f"mean_value once or {channels} times",
                at=at,
            )
        if transform.mean_file and not evidence.files.get(transform.mean_file, True):
            yield Hit(
                what=f"the mean file {transform.mean_file} does not exist",
                why="Caffe stops: File not found",
                fix="create one with compute_image_mean, or use three mean_value",
                at=layer.at("transform_param", "mean_file"),
                severity=NOTE if facts is None else None,
            )


@net_rule("mean-size", ERROR, f"{TRANSFORMER}, Transform")
def mean_size(evidence: NetEvidence) -> Hits:
    """A mean image of another size than the records."""
    for layer in evidence.net.of_type("Data", "ImageData"):
        name = layer.message.transform_param.mean_file
        at = layer.at("transform_param", "mean_file")
        if name not in evidence.blobs:
            continue
        blob, facts = evidence.blobs[name], evidence.facts_of(layer)
        if blob is None:
            yield Hit(
                what=f"{name} is not a mean image",
                why="Caffe stops when it reads it",
                fix=f"compute_image_mean {layer.source} OTHER.binaryproto",
                at=at,
            )
            continue
        if facts is None or not facts.height or layer.type != "Data":
            continue
        wanted = (facts.channels, facts.height, facts.width)
        if blob.shape[-3:] != wanted:
            yield Hit(
                what=f"a mean image of {size_text(blob.shape[-3:])}, records of "
                f"{size_text(wanted)}",
                why="Caffe stops: it subtracts the mean before it crops, so that the mean has the "
                "size of the records",
                fix=_fitting_mean(evidence, wanted),
                at=at,
            )


def _fitting_mean(evidence: Evidence, wanted: tuple[int | None, ...]) -> str:
    """A fix: the mean of the training set for both phases, in a new file."""
    train = evidence.train_net
    facts = facts_of_net(train, evidence) if train is not None else None
    if train is None or facts is None:
        return "a mean image of the training set in the size of its records"
    if (facts.channels, facts.height, facts.width) != wanted:
        return "records of one size in both phases (make-lmdb --resize), or three mean_value"
    source, new = train.data_layers[0].source, f"mean_{size_text(wanted)}.binaryproto"
    return f"compute_image_mean {source} {new}: the mean of the training set, for both phases"


def size_text(sizes: tuple[int | None, ...]) -> str:
    """Sizes for a message, as in ``3x299x299``."""
    return "x".join(map(str, sizes))


@net_rule("dead-setting", NOTE, "caffe.proto, DataParameter; data_layer.cpp since rc4")
def dead_setting(evidence: NetEvidence) -> Hits:
    """Settings of Data that Caffe 1.0 no longer reads."""
    for layer in evidence.net.of_type("Data"):
        for name, instead in (
            ("force_encoded_color", "transform_param { force_color: true }"),
            ("rand_skip", "nothing: it has no effect"),
        ):
            if layer.message.data_param.HasField(name):
                yield Hit(
                    what=f"data_param has {name}",
                    why="Caffe 1.0 has the field and does not read it",
                    fix=instead,
                    at=layer.at("data_param", name),
                )
