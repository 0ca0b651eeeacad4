"""Weights of classes: from counts, from files, and their loss in the real Caffe and in torch."""

from __future__ import annotations

import numpy as np
import pytest

from irv2caffe.errors import FormatError, MissingInputError, UsageError
from irv2caffe.net.class_weights import class_weights, weights_text
from irv2caffe.net.infogain import write_infogain
from irv2caffe.net.spec import NetSpec
from irv2caffe.proto.text import format_prototxt

NAMES = ("cat", "guinea pig", "dog")


def test_balanced_weights_are_inverse_to_the_counts():
    weights = class_weights("balanced", 3, (300, 100, 30), ())
    assert np.allclose(weights, [430 / 3 / 300, 430 / 3 / 100, 430 / 3 / 30])
    assert np.dot(weights, (300, 100, 30)) / 430 == pytest.approx(1)


def test_classes_without_images_do_not_shift_the_others():
    weights = class_weights("balanced", 4, (300, 0, 30), ())
    assert np.allclose(weights, [165 / 300, 1, 165 / 30, 1])
    assert np.dot(weights[:3], (300, 0, 30)) / 330 == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "counts", "names", "expected"),
    [
        ("1\n2\n3\n", (), (), [0.5, 1, 1.5]),
        ("1\n2\n3\n", (1, 1, 2), (), [4 / 9, 8 / 9, 12 / 9]),
        ("\ufeff1\r\n\r\n 2 \r\n3", (), NAMES, [0.5, 1, 1.5]),
        ("dog 3\nguinea pig 2\ncat\t1\n", (), NAMES, [0.5, 1, 1.5]),
        ("0 3\n1 2\n2 1\n", (), ("2", "1", "0"), [0.5, 1, 1.5]),
    ],
)
def test_files_are_scaled_to_a_mean_of_one(tmp_path, text, counts, names, expected):
    path = tmp_path / "weights.txt"
    path.write_bytes(text.encode())
    assert np.allclose(class_weights(str(path), 3, counts, names), expected)


@pytest.mark.parametrize(
    ("text", "names", "words"),
    [
        ("1\n2\n", (), "2 weights for 3 classes"),
        ("", (), "0 weights for 3 classes"),
        ("1\ntwo\n3\n", (), ":2: 'two' is not a weight"),
        ("1\n0\n3\n", (), ":2: '0' is not a weight"),
        ("1\nnan\n3\n", (), ":2: 'nan' is not a weight"),
        ("1\n-2\n3\n", (), ":2: '-2' is not a weight"),
        ("1\n1e39\n3\n", (), ":2: '1e39' is not a weight"),
        ("cat 1\n", (), "the names of the classes are not known"),
        ("cat 1\n2\ndog 3\n", NAMES, ":2: '2' alone"),
        ("cat 1\nguinea pick 2\ndog 3\n", NAMES, ":2: no class 'guinea pick'"),
        ("cat 1\nguinea pick 2\ndog 3\n", NAMES, "did you mean guinea pig?"),
        ("cat 1\ncat 2\n", NAMES, ":2: class 'cat' again"),
        ("cat 1\n", NAMES, "no weight for guinea pig, dog"),
        ("cat 1\nguinea pig 2\n", NAMES[:2], "no weight for class 2"),
        ("\xff", (), "not UTF-8"),
    ],
)
def test_bad_files_are_named_with_the_line(tmp_path, text, names, words):
    path = tmp_path / "weights.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError) as caught:
        class_weights(str(path), 3, (), names)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


def test_what_cannot_be_known_is_refused(tmp_path):
    for counts in ((), (0, 0, 0)):
        with pytest.raises(UsageError, match="not known"):
            class_weights("balanced", 3, counts, ())
    with pytest.raises(MissingInputError, match="no such file"):
        class_weights(str(tmp_path / "no"), 3, (), ())


def test_the_header_names_the_lowest_and_the_highest():
    weights = class_weights("balanced", 3, (300, 100, 30), ())
    text = weights_text(weights, ("a", "b", "c\nd"))
    assert text == "class weights from 0.4778 (a) to 4.778 (c?d), mean over the images 1"
    assert "(class 0)" in weights_text(weights, ())


def loss_net(source, shape):
    net = NetSpec("n")
    tops = [
        net.layer("Input", "x", channels=shape[1], shape=[{"dim": list(shape)}]),
        net.layer("Input", "y", channels=1, shape=[{"dim": [shape[0]]}]),
    ]
    net.layer("InfogainLoss", "loss", *tops, channels=1, loss_weight=[1.0], source=str(source))
    proto = net.to_proto()
    proto.force_backward = True
    return format_prototxt(proto)


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_weighted_cross_entropy(caffe_nets, tmp_path, smoothing):
    """By hand, by torch's cross entropy of each image, and in the real Caffe with its gradient."""
    import torch

    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (8, 3)).astype("f4")
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 0])
    weights = class_weights("balanced", 3, np.bincount(labels).tolist(), ())
    write_infogain(tmp_path / "h.binaryproto", 3, smoothing, weights)

    of_image = np.array(weights)[labels]
    target = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    by_hand = (of_image * -(target * log_p).sum(1)).mean()
    each = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(labels),
        reduction="none", label_smoothing=smoothing,
    )  # fmt: skip
    assert (each.numpy() * of_image).mean() == pytest.approx(by_hand, rel=1e-5)

    net = loss_net(tmp_path / "h.binaryproto", logits.shape)
    got = caffe_nets.run(net, inputs={"x": logits, "y": labels.astype("f4")})
    assert float(got.blobs["loss"]) == pytest.approx(by_hand, rel=1e-5)
    gradient = of_image[:, None] * (np.exp(log_p) - target) / len(labels)
    assert np.allclose(got.diffs["x"], gradient, atol=1e-6)
