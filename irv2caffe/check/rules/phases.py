"""Training against testing: what each phase sees, and how it sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.check.arithmetic import facts_of, source_of
from irv2caffe.check.evidence import DATA_PARAMS
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, rule
from irv2caffe.check.rules.data import IMAGES, TRANSFORMER, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, Layer, PhaseNet

_LARGEST_TEST_BATCH = 4096  # that is worth proposing


@rule("phases-transform", WARNING, "run", "github.com/soeaver/caffe-model issue 12")
def phases_transform(evidence: Evidence) -> Iterator[Hit]:
    """TRAIN and TEST see the same image with other numbers."""
    for train, test in _same_top_in_both(evidence):
        here, there = (_numbers(each.message.transform_param) for each in (train, test))
        for name, value in here.items():
            if value != there[name]:
                yield Hit(
                    f"{name} is {_said(value)} in TRAIN, {_said(there[name])} in TEST",
                    "the net is tested on other numbers than it was trained on",
                    f"the same {name} in both",
                    (*train.at("transform_param", name), *test.at("transform_param", name)),
                )


def _same_top_in_both(evidence: Evidence) -> Iterator[tuple[Layer, Layer]]:
    """Layers that give the same top in TRAIN and in TEST."""
    trained = {
        layer.message.top[0]: layer
        for net in evidence.nets
        if net.phase == "TRAIN"
        for layer in net.of_type("Data", "ImageData")
        if layer.message.top
    }
    for net in evidence.nets:
        for layer in net.of_type("Data", "ImageData") if net.phase == "TEST" else ():
            top = layer.message.top[0] if layer.message.top else ""
            if top in trained and trained[top] is not layer:
                yield trained[top], layer


def _numbers(transform: Any) -> dict[str, Any]:
    means = tuple(round(value, 3) for value in transform.mean_value)
    return {
        "mean_value": means[:1] if len(set(means)) == 1 else means,
        "mean_file": transform.mean_file,
        "scale": round(transform.scale, 6),
    }


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{each:g}" for each in value) or "not there"
    return f"{value:g}" if isinstance(value, float) else value or "not there"


@rule("phases-labels", ERROR, "run", "the meaning of a test")
def phases_labels(evidence: Evidence) -> Iterator[Hit]:
    """The same label is another class in TEST."""
    for train, test in _same_top_in_both(evidence):
        names = [
            facts.class_names
            for layer in (train, test)
            if (facts := evidence.databases.get(source_of(layer))) is not None
        ]
        differing = [
            label for label, pair in enumerate(zip(*names, strict=False)) if len(set(pair)) > 1
        ]
        if len(names) == 2 and differing:
            label = differing[0]
            yield Hit(
                f"label {label} is {names[0][label][:60]!r} in TRAIN, {names[1][label][:60]!r} in "
                f"TEST ({len(differing):,} labels differ)",
                "tests compare with other classes than were learned",
                f"make-lmdb --labels {source_of(train)} for the validation database",
                test.at(DATA_PARAMS[test.type], "source"),
            )


@rule("phases-records", NOTE, "run", f"{TRANSFORMER}; cvjena/cnn-models issue 12")
def phases_records(evidence: Evidence) -> Iterator[Hit]:
    """Test images are stored in another size."""
    for train, test in _same_top_in_both(evidence):
        sizes = [
            (facts.width, facts.height)
            for layer in (train, test)
            if (facts := evidence.databases.get(source_of(layer))) is not None
            and facts.height
            and not facts.mixed_sizes
        ]
        if len(sizes) == 2 and sizes[0] != sizes[1]:
            yield Hit(
                f"images of {size_text(sizes[0])} in TRAIN, {size_text(sizes[1])} in TEST",
                "the same crop shows objects of another size in tests",
                "the same make-lmdb --resize for both, unless that is meant",
                test.at(DATA_PARAMS[test.type], "source"),
            )


@rule("mirror-in-test", WARNING, "net", f"{TRANSFORMER}, Transform")
def mirror_in_test(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Test images are flipped at random."""
    del evidence
    for layer in net.of_type(*IMAGES) if net.phase == "TEST" else ():
        if layer.message.transform_param.mirror:
            yield Hit(
                "mirror: true in TEST",
                "Caffe flips by chance in both phases: the same weights give another accuracy "
                "each time",
                "mirror: false",
                layer.at("transform_param", "mirror"),
            )


@rule("no-augmentation", NOTE, "net", f"{TRANSFORMER}; github.com/apache/mxnet pull request 13757")
def no_augmentation(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Every epoch shows the same pixels, or hardly others."""
    for layer in net.of_type("Data") if net.phase == "TRAIN" else ():
        transform = layer.message.transform_param
        facts = evidence.databases.get(source_of(layer))
        size = min(facts.height or 0, facts.width or 0) if facts is not None else 0
        crops = bool(transform.crop_size) and transform.crop_size != size
        if not crops and not transform.mirror:
            what = "neither a random crop nor a mirror in TRAIN"
        elif net.is_tensorflow_style:
            what = "crop and mirror are all the augmentation there is"
        else:
            continue
        yield Hit(
            what,
            "TensorFlow's recipe for this family crops 5 to 100 % of the area, stretches and "
            "recolours; without that a net of this size learns its images by heart. Caffe's Data "
            "layer can only crop and flip"
            if net.is_tensorflow_style
            else "a net of many parameters learns its images by heart",
            "several randomly cropped copies in the database, or ImageData of a fork that augments"
            if net.is_tensorflow_style
            else "crop_size below the size of the images, mirror: true",
            layer.at("transform_param"),
        )


@rule("same-source", WARNING, "run", "the meaning of a test")
def same_source(evidence: Evidence) -> Iterator[Hit]:
    """TRAIN and TEST read the same images."""
    trained = {
        source_of(layer)
        for net in evidence.nets
        if net.phase == "TRAIN"
        for layer in net.data_layers
    }
    tests = [net for net in evidence.nets if net.phase == "TEST"]
    read = {source_of(layer) for net in tests for layer in net.data_layers}
    if read - trained:
        return  # one of the tests is of other images; how well the net remembers may be another
    for net in tests:
        for layer in net.data_layers:
            source = source_of(layer)
            if source:
                yield Hit(
                    f"TEST reads {source}, as TRAIN does",
                    "tests measure how well images are remembered",
                    "the validation database in TEST",
                    layer.at(DATA_PARAMS[layer.type], "source"),
                )


@rule("fixed-order", NOTE, "net", "data_layer.cpp; github.com/lim0606/caffe-googlenet-bn")
def fixed_order(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """Every epoch shows the images in the same order."""
    del evidence
    if net.phase != "TRAIN" or not net.is_tensorflow_style:
        return
    for layer in net.of_type("Data"):
        yield Hit(
            "every epoch reads the database in the same order",
            "the Data layer never shuffles: the same images meet in a batch, epoch after epoch, "
            "and in BatchNorm's statistics; TensorFlow's queues mix them anew",
            "ImageData with shuffle: true, or several databases shuffled by other seeds",
            layer.at("data_param"),
        )


@rule("test-set-size", WARNING, "net", "solver.cpp, Test; data_layer.cpp")
def test_set_size(net: PhaseNet, evidence: Evidence) -> Iterator[Hit]:
    """The test_iter times the TEST batch is not the validation set."""
    claims, batch = evidence.claims, net.batch_size
    if net.phase != "TEST" or not net.test_iter or not batch or evidence.solver is None:
        return
    if claims.flavor == "nvcaffe" and claims.num_gpus > 1:
        return  # its tests are shared by the GPUs
    facts = facts_of(net, evidence)
    images = claims.num_val or (facts.num_records if facts is not None else None)
    if images and net.test_iter * batch != images:
        yield Hit(
            f"test_iter {net.test_iter:,} x batch {batch} = {net.test_iter * batch:,} images, the "
            f"validation set has {images:,}",
            "every test measures other images: Caffe goes on reading where the last test ended"
            if images % (net.test_iter * batch)
            else "every test measures another part of it",
            _fitting(images, batch),
            evidence.solver.at("test_iter"),
        )


def _fitting(images: int, batch: int) -> str:
    if images % batch == 0:
        return f"test_iter: {images // batch}"
    near = next(n for n in range(min(batch, _LARGEST_TEST_BATCH), 0, -1) if images % n == 0)
    return f"TEST batch_size: {near} and test_iter: {images // near}"
