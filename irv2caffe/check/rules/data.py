"""Data layers against the databases they read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irv2caffe.check.arithmetic import facts_of, source_of, train_net
from irv2caffe.check.evidence import DATA_PARAMS
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, rule
from irv2caffe.proto import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, Layer, PhaseNet
    from irv2caffe.data.inspect.database import Database

TRANSFORMER = "data_transformer.cpp"
IMAGES = ("Data", "ImageData", "WindowData")


def _images(net: PhaseNet, evidence: Evidence) -> Iterator[tuple[Layer, Database]]:
    """Layers that read images, with what is known of those."""
    for layer in net.of_type("Data", "ImageData"):
        facts = evidence.databases.get(source_of(layer))
        if facts is not None:
            yield layer, facts


@rule("data-missing", NOTE, "net", "db_lmdb.cpp; image_data_layer.cpp; hdf5_data_layer.cpp")
def data_missing(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A source that is not on this machine."""
    for layer in net.data_layers:
        source, name = source_of(layer), DATA_PARAMS[layer.type]
        if not source:
            fix = f"{name} {{ source: ... }}"
            what = f"a {layer.type} layer without source"
            yield Hit(what, "Caffe stops when it opens it", fix, layer.at(name), ERROR)
        elif not evidence.files.get(source, True) and source not in evidence.databases:
            yield Hit(
                f"{source} is not there",
                "nothing could be said of its records and labels; Caffe stops when it opens it",
                "irv2caffe make-lmdb, or --train-lmdb DB --val-lmdb DB",
                layer.at(name, "source"),
            )


@rule("data-unreadable", ERROR, "run", "db_lmdb.cpp; data_transformer.cpp")
def data_unreadable(evidence: Evidence) -> Iterator[Hit]:
    """A source that is not the database it should be."""
    yield from (hit for name, hit in evidence.troubles if name == "data-unreadable")


@rule("data-empty", ERROR, "net", "data_transformer.cpp, InferBlobShape")
def data_empty(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A database without records."""
    for layer, facts in _images(net, evidence):
        if facts.num_records == 0:
            what = f"{source_of(layer)} holds no image"
            fix = "build it again; a list without a good line makes such a database"
            at = layer.at(DATA_PARAMS[layer.type], "source")
            yield Hit(what, "Caffe stops: Check failed: datum_channels > 0", fix, at)


@rule("backend-unset", ERROR, "net", "caffe.proto, DataParameter; db_leveldb.cpp")
def backend_unset(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """The backend does not fit the database, or is left to its default."""
    for layer in net.of_type("Data"):
        param, source = layer.message.data_param, source_of(layer)
        facts = evidence.databases.get(source)
        asked = "LMDB" if param.backend == messages.DataParameter.LMDB else "LEVELDB"
        at = layer.at("data_param", "backend")
        if facts is not None:
            if facts.kind != asked:
                unset = "" if param.HasField("backend") else ", which is the default"
                what = f"backend {asked}{unset}, but {source} is an {facts.kind}"
                why = "Caffe stops: it cannot open the database"
                yield Hit(what, why, f"backend: {facts.kind}", at)
        elif not param.HasField("backend") and "leveldb" not in source.lower():
            yield Hit(
                "no backend, which means LEVELDB",
                "on an LMDB Caffe stops: Failed to open leveldb",
                "backend: LMDB",
                at,
                ERROR if "lmdb" in source.lower() else WARNING,
            )


@rule("batch-size", ERROR, "net", "data_layer.cpp, DataLayerSetUp")
def batch_size(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A batch of no images, or one that the GPUs cannot share."""
    for layer in net.data_layers:
        name = DATA_PARAMS[layer.type]
        size = getattr(layer.message, name).batch_size
        at = layer.at(name, "batch_size")
        gpus = evidence.claims.num_gpus
        if size == 0:
            yield Hit("batch_size is missing", "Caffe stops", "batch_size: 32", at)
        elif evidence.claims.flavor == "nvcaffe" and gpus > 1 and size % gpus:
            yield Hit(
                f"batch_size {size} on {gpus} GPUs",
                "NVCaffe divides it by their number and rounds up: the batch is another than it "
                "says",
                f"batch_size: {(size // gpus + 1) * gpus}",
                at,
                WARNING,
                "NVCaffe's parallel.cpp",
            )


@rule("no-shuffle", WARNING, "net", "data_layer.cpp; github.com/BVLC/caffe issues 1087, 2606")
def no_shuffle(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Training images in the order of their labels."""
    if net.phase != "TRAIN":
        return
    for layer, facts in _images(net, evidence):
        if layer.type == "ImageData" and layer.message.image_data_param.shuffle:
            continue
        if facts.order in {"sorted", "grouped"}:
            one = "in the order of labels" if facts.order == "sorted" else "class by class"
            yield Hit(
                f"{source_of(layer)} holds its images {one}",
                "every batch shows one class or a few; gradients swing from class to class, and "
                "BatchNorm's statistics give the class away. Caffe never shuffles a database",
                "shuffle: true"
                if layer.type == "ImageData"
                else "build it again with make-lmdb --shuffle (convert_imageset -shuffle)",
                layer.at(DATA_PARAMS[layer.type], "source"),
            )


@rule("crop-exceeds-records", ERROR, "net", TRANSFORMER)
def crop_exceeds_records(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A crop larger than the images."""
    for layer, facts in _images(net, evidence):
        crop = layer.message.transform_param.crop_size
        if facts.height_first:
            continue  # a rule of its own says it
        if facts.height and facts.width and crop > min(facts.height, facts.width):
            yield Hit(
                f"crop_size {crop}, but {source_of(layer)} holds {facts.width}x{facts.height}",
                "Caffe stops: Check failed: datum_height >= crop_size",
                f"make-lmdb --resize {max(crop + 1, crop * 328 // 299)}, or a smaller crop_size",
                layer.at("transform_param", "crop_size"),
            )


@rule("records-differ", ERROR, "net", TRANSFORMER)
def records_differ(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Gray images among colour ones, or several sizes without a crop."""
    for layer, facts in _images(net, evidence):
        transform, source = layer.message.transform_param, source_of(layer)
        at = layer.at("data_param", "source")
        if facts.mixed_channels and not (transform.force_color or transform.force_gray):
            yield Hit(
                f"{source} holds gray and colour images",
                "Caffe stops at the first one that differs, hours into the run: Check failed: "
                "channels == img_channels",
                "transform_param { force_color: true } for encoded images, or build it again",
                at,
            )
        if (
            facts.mixed_sizes
            and not transform.crop_size
            and layer.message.data_param.batch_size > 1
        ):
            why = "Caffe stops at the first one that differs from the first of its batch"
            what = f"{source} holds images of several sizes, and there is no crop_size"
            yield Hit(what, why, "crop_size, or make-lmdb --resize", at)


@rule("mean", ERROR, "net", f"{TRANSFORMER}, DataTransformer")
def mean(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A mean that Caffe cannot subtract."""
    for layer in net.of_type(*IMAGES):
        transform = layer.message.transform_param
        at = layer.at("transform_param")
        if transform.mean_file and transform.mean_value:
            why = "Caffe stops: Cannot specify mean_file and mean_value at the same time"
            yield Hit("both mean_file and mean_value", why, "leave one of them", at)
        facts = evidence.databases.get(source_of(layer))
        channels = facts.channels if facts is not None else None
        channels = 3 if transform.force_color else 1 if transform.force_gray else channels
        count = len(transform.mean_value)
        if count > 1 and channels and count != channels:
            what = f"{count} mean_value for {channels} channel(s)"
            why = "Caffe stops: Specify either 1 mean_value or as many as channels"
            yield Hit(what, why, f"mean_value once or {channels} times", at)
        if transform.mean_file and not evidence.files.get(transform.mean_file, True):
            known = facts is not None
            yield Hit(
                f"the mean file {transform.mean_file} is not there",
                "Caffe stops: File not found",
                "compute_image_mean makes one; or three mean_value",
                layer.at("transform_param", "mean_file"),
                None if known else NOTE,
            )


@rule("mean-size", ERROR, "net", f"{TRANSFORMER}, Transform")
def mean_size(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """A mean image of another size than the records."""
    for layer in net.of_type("Data", "ImageData"):
        name = layer.message.transform_param.mean_file
        at = layer.at("transform_param", "mean_file")
        if name not in evidence.blobs:
            continue
        shape, facts = evidence.blobs[name], evidence.databases.get(source_of(layer))
        if shape is None:
            fix = f"compute_image_mean {source_of(layer)} OTHER.binaryproto"
            yield Hit(f"{name} is no mean image", "Caffe stops when it reads it", fix, at)
            continue
        if facts is None or not facts.height or layer.type != "Data":
            continue
        wanted = (facts.channels, facts.height, facts.width)
        if shape[-3:] != wanted:
            yield Hit(
                f"a mean image of {size_text(shape[-3:])}, records of {size_text(wanted)}",
                "Caffe stops: it subtracts the mean before it crops, so that the mean has the size "
                "of the records",
                _fitting_mean(evidence, wanted),
                at,
            )


def _fitting_mean(evidence: Evidence, wanted: tuple[int | None, ...]) -> str:
    """That of the training set, in both phases; a new file, since others may use the old one."""
    train = train_net(evidence)
    facts = facts_of(train, evidence) if train is not None else None
    if train is None or facts is None:
        return "a mean image of the training set in the size of its records"
    if (facts.channels, facts.height, facts.width) != wanted:
        return "records of one size in both phases (make-lmdb --resize), or three mean_value"
    source = next(source_of(layer) for layer in train.data_layers)
    new = f"mean_{size_text(wanted)}.binaryproto"
    return (
        f"compute_image_mean {source} {new}, of the training set, is the mean_file of both phases"
    )


def size_text(sizes: tuple[int | None, ...]) -> str:
    """As in ``3x299x299``."""
    return "x".join(map(str, sizes))


@rule("dead-setting", NOTE, "net", "caffe.proto, DataParameter; data_layer.cpp since rc4")
def dead_setting(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Settings of Data that Caffe 1.0 no longer reads."""
    del evidence
    for layer in net.of_type("Data"):
        for name, instead in (
            ("force_encoded_color", "transform_param { force_color: true }"),
            ("rand_skip", "nothing: it has no effect"),
        ):
            if layer.message.data_param.HasField(name):
                why = "Caffe 1.0 has the field and does not look at it"
                yield Hit(f"data_param has {name}", why, instead, layer.at("data_param", name))
