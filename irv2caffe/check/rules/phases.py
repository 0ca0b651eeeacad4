"""Differences between training and testing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irv2caffe.check.arithmetic import facts_of_net
from irv2caffe.check.finding import ERROR, NOTE, WARNING, Hit, Hits
from irv2caffe.check.registry import net_rule, rule
from irv2caffe.check.rules.data import IMAGES, TRANSFORMER, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.evidence import Evidence, Layer, NetEvidence

_LARGEST_TEST_BATCH = 4096  # largest suggested batch


def _same_top_in_both(evidence: Evidence) -> Iterator[tuple[Layer, Layer]]:
    """Data layers of TRAIN and of TEST with the same first top."""
    trained = {}
    for net in evidence.nets:  # TRAIN first
        for layer in net.of_type("Data", "ImageData"):
            top = next(iter(layer.message.top), "")
            if net.phase == "TRAIN" and top:
                trained[top] = layer
            elif net.phase == "TEST" and top in trained:
                yield trained[top], layer


@rule("phases-transform", WARNING, "github.com/soeaver/caffe-model issue 12")
def phases_transform(evidence: Evidence) -> Hits:
    """Another mean or scale in TEST than in TRAIN."""
    for train, test in _same_top_in_both(evidence):
        there = _mean_and_scale(test.message.transform_param)
        for name, value in _mean_and_scale(train.message.transform_param).items():
            if value != there[name]:
                yield Hit(
                    what=f"{name} is {_text(value)} in TRAIN, {_text(there[name])} in TEST",
                    why="the net is tested on differently scaled inputs than it was trained on",
                    fix=f"the same {name} in both",
                    at=(*train.at("transform_param", name), *test.at("transform_param", name)),
                )


def _mean_and_scale(transform: Any) -> dict[str, Any]:
    means = tuple(round(value, 3) for value in transform.mean_value)
    return {
        "mean_value": means[:1] if len(set(means)) == 1 else means,
        "mean_file": transform.mean_file,
        "scale": round(transform.scale, 6),
    }


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{each:g}" for each in value) or "missing"
    return f"{value:g}" if isinstance(value, float) else value or "missing"


@rule("phases-labels", ERROR, "the meaning of a test")
def phases_labels(evidence: Evidence) -> Hits:
    """A label that is another class in TEST than in TRAIN."""
    for train, test in _same_top_in_both(evidence):
        both = evidence.facts_of(train), evidence.facts_of(test)
        names = [facts.class_names for facts in both if facts is not None]
        differing = [
            label for label, pair in enumerate(zip(*names, strict=False)) if len(set(pair)) > 1
        ]
        if len(names) == 2 and differing:
            here, there = (each[differing[0]][:60] for each in names)
            yield Hit(
                what=f"label {differing[0]} is {here!r} in TRAIN, {there!r} in TEST "
                f"({len(differing):,} labels differ)",
                why="tests compare with different classes than those learned",
                fix=f"make-lmdb --labels {train.source} for the validation database",
                at=test.at_data("source"),
            )


@rule("phases-records", NOTE, f"{TRANSFORMER}; cvjena/cnn-models issue 12")
def phases_records(evidence: Evidence) -> Hits:
    """Test images that are stored in another size than training images."""
    for train, test in _same_top_in_both(evidence):
        both = evidence.facts_of(train), evidence.facts_of(test)
        sizes = [
            (facts.width, facts.height)
            for facts in both
            if facts is not None and facts.height and not facts.mixed_sizes
        ]
        if len(sizes) == 2 and sizes[0] != sizes[1]:
            yield Hit(
                what=f"images of {size_text(sizes[0])} in TRAIN, {size_text(sizes[1])} in TEST",
                why="the same crop shows objects of another size in tests",
                fix="the same make-lmdb --resize for both, unless that is intended",
                at=test.at_data("source"),
            )


@net_rule("mirror-in-test", WARNING, f"{TRANSFORMER}, Transform", phase="TEST")
def mirror_in_test(evidence: NetEvidence) -> Hits:
    """Test images that are flipped at random."""
    for layer in evidence.net.of_type(*IMAGES):
        if layer.message.transform_param.mirror:
            yield Hit(
                what="mirror: true in TEST",
                why="Caffe flips at random in both phases: the same weights give another accuracy "
                "each time",
                fix="mirror: false",
                at=layer.at("transform_param", "mirror"),
            )


@net_rule(
    "no-augmentation",
    NOTE,
    f"{TRANSFORMER}; github.com/apache/mxnet pull request 13757",
    phase="TRAIN",
)
def no_augmentation(evidence: NetEvidence) -> Hits:
    """Training images with little or no augmentation."""
    family = evidence.net.is_tensorflow_style
    for layer in evidence.net.of_type("Data"):
        transform, facts = layer.message.transform_param, evidence.facts_of(layer)
        size = min(facts.height or 0, facts.width or 0) if facts is not None else 0
        is_plain = transform.crop_size in {0, size} and not transform.mirror
        if not is_plain and not family:
            continue
        yield Hit(
            what="neither a random crop nor a mirror in TRAIN"
            if is_plain
            else "crop and mirror are the only augmentation",
            why="TensorFlow's recipe for this family crops 5 to 100 % of the area, stretches and "
            "changes colours; without that a net of this size memorizes its images. Caffe's Data "
            "layer can only crop and flip"
            if family
            else "a net of many parameters memorizes its images",
            fix="several randomly cropped copies in the database, or ImageData of a fork that "
            "augments"
            if family
            else "crop_size below the size of the images, mirror: true",
            at=layer.at("transform_param"),
        )


@rule("same-source", WARNING, "the meaning of a test")
def same_source(evidence: Evidence) -> Hits:
    """TRAIN and TEST read the same images."""
    read: dict[str, list[Layer]] = {"TRAIN": [], "TEST": []}
    for net in evidence.nets:
        read[net.phase] += net.data_layers
    if {layer.source for layer in read["TEST"]} - {layer.source for layer in read["TRAIN"]}:
        return  # at least one test has its own images
    for layer in read["TEST"]:
        if layer.source:
            yield Hit(
                what=f"TEST reads {layer.source}, as TRAIN does",
                why="tests measure how well images were memorized",
                fix="the validation database in TEST",
                at=layer.at_data("source"),
            )


@net_rule(
    "fixed-order", NOTE, "data_layer.cpp; github.com/lim0606/caffe-googlenet-bn", phase="TRAIN"
)
def fixed_order(evidence: NetEvidence) -> Hits:
    """A database that is read in the same order in every epoch."""
    for layer in evidence.net.of_type("Data") if evidence.net.is_tensorflow_style else ():
        yield Hit(
            what="every epoch reads the database in the same order",
            why="the Data layer never shuffles: the same images meet in a batch, epoch after "
            "epoch, and in BatchNorm's statistics; TensorFlow's queues mix them anew",
            fix="ImageData with shuffle: true, or several databases shuffled by other seeds",
            at=layer.at("data_param"),
        )


@net_rule("test-set-size", WARNING, "solver.cpp, Test; data_layer.cpp", phase="TEST")
def test_set_size(evidence: NetEvidence) -> Hits:
    """A ``test_iter`` times TEST batch that is not the size of the validation set."""
    claims, net, batch = evidence.claims, evidence.net, evidence.net.batch_size
    if not net.test_iter or not batch or evidence.solver is None:
        return
    if claims.flavor == "nvcaffe" and claims.num_gpus > 1:
        return  # its GPUs share the tests
    facts = facts_of_net(net, evidence)
    images = claims.num_val or (facts.num_records if facts is not None else None)
    if images and net.test_iter * batch != images:
        yield Hit(
            what=f"test_iter {net.test_iter:,} x batch {batch} = {net.test_iter * batch:,} images, "
            f"the validation set has {images:,}",
            why="every test measures other images: Caffe goes on reading where the last test ended"
            if images % (net.test_iter * batch)
            else "every test measures another part of it",
            fix=_exact_test(images, batch),
            at=evidence.solver.at("test_iter"),
        )


def _exact_test(images: int, batch: int) -> str:
    """Settings with which a test reads every image once."""
    if images % batch == 0:
        return f"test_iter: {images // batch}"
    near = next(n for n in range(min(batch, _LARGEST_TEST_BATCH), 0, -1) if images % n == 0)
    return f"TEST batch_size: {near} and test_iter: {images // near}"
