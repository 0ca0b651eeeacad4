"""Figures of predictions, against values computed by hand and the real Caffe's layers."""

import numpy as np
import pytest

from irv2caffe.evaluate.caffe_test import as_caffe_test
from irv2caffe.evaluate.metrics import measure
from irv2caffe.evaluate.predictions import PredictionList

ACCURACIES = """
force_backward: true
layer {{ name: "in" type: "Input" top: "scores" top: "label"
  input_param {{ shape {{ dim: {n} dim: {c} }} shape {{ dim: {n} }} }} }}
layer {{ name: "prob" type: "Softmax" bottom: "scores" top: "prob" }}
layer {{ name: "top1" type: "Accuracy" bottom: "scores" bottom: "label" top: "top1" }}
layer {{ name: "top5" type: "Accuracy" bottom: "scores" bottom: "label" top: "top5"
  accuracy_param {{ top_k: 5 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }}
"""


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def predictions_of(scores, labels, probabilities=None):
    scores = np.asarray(scores, np.float32)
    found = PredictionList(scores.shape[1])
    given = softmax(scores) if probabilities is None else probabilities
    names = [f"image{index}" for index in range(len(labels))]
    found.add(names, np.asarray(labels), scores, given)
    return found.predictions()


@pytest.mark.parametrize("kind", ["random", "ties", "all equal", "a few NaN", "all NaN", "huge"])
def test_ranks_and_loss_are_those_of_the_real_layers(caffe_nets, kind):
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(64, 8)).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores)
    elif kind == "all equal":
        scores[:] = 0.5
    elif kind == "a few NaN":
        scores[rng.random(scores.shape) < 0.1] = np.nan
    elif kind == "all NaN":
        scores[:] = np.nan
    elif kind == "huge":
        scores *= 100  # probabilities that are 0 in float32
    labels = rng.integers(0, 8, 64)
    inputs = {"scores": scores, "label": labels.astype(np.float32)}
    text = ACCURACIES.format(n=64, c=8)
    real = caffe_nets.run(text, "TEST", inputs=inputs, backward=False).blobs

    found = predictions_of(scores, labels, real["prob"])
    ours = as_caffe_test(found, 64).values

    assert ours["top-1"] == real["top1"].item()
    assert ours["top-5"] == real["top5"].item()
    np.testing.assert_allclose(ours["loss"], real["loss"].item(), rtol=2e-7)
    figures = measure(found)
    assert figures.top[1] == pytest.approx(real["top1"].item(), abs=1e-7)
    if kind != "a few NaN":
        assert figures.loss == pytest.approx(real["loss"].item(), rel=1e-5, nan_ok=True)
    assert (figures.num_not_finite > 0) == ("NaN" in kind)
    assert (figures.num_tied > 0) == (kind in {"ties", "all equal"})


def test_the_figures_of_six_images_by_hand():
    scores = np.log(
        [
            [0.7, 0.2, 0.1],
            [0.6, 0.3, 0.1],
            [0.2, 0.7, 0.1],
            [0.5, 0.4, 0.1],
            [0.8, 0.1, 0.1],
            [0.1, 0.1, 0.8],
        ]
    )
    found = predictions_of(scores, [0, 0, 1, 1, 1, 0])
    figures = measure(found)

    assert figures.top == {1: 0.5}
    by_hand = -np.log([0.7, 0.6, 0.7, 0.4, 0.1, 0.1]).mean()
    assert figures.loss == pytest.approx(by_hand, rel=1e-6)
    assert figures.confusions.matrix(3).tolist() == [[2, 0, 1], [2, 1, 0], [0, 0, 0]]
    assert figures.confusions.mistakes(5) == [(1, 0, 2), (0, 2, 1)]
    table = figures.classes
    np.testing.assert_allclose(table.precision, [0.5, 1, 0])
    np.testing.assert_allclose(table.recall, [2 / 3, 1 / 3, np.nan])
    np.testing.assert_allclose(table.f1, [4 / 7, 0.5, 0])
    assert figures.mean_recall == pytest.approx(0.5)
    # Bins of 1/15: .5 | .6 | .7 .7 | .8 .8; right: 0, 1, 2, 0.
    gaps = 1 * 0.5 + 1 * 0.4 + 2 * 0.3 + 2 * 0.8
    assert figures.calibration.ece == pytest.approx(gaps / 6)
    assert figures.calibration.count.sum() == 6


def test_a_class_table_agrees_with_counting():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 50, 2000)
    scores = rng.normal(size=(2000, 60)).astype(np.float32)
    scores[np.arange(2000), labels] += 2
    figures = measure(predictions_of(scores, labels))
    guess = scores.argmax(axis=1)
    for kind in range(60):
        both = ((labels == kind) & (guess == kind)).sum()
        if (guess == kind).any():
            assert figures.classes.precision[kind] == both / (guess == kind).sum()
        if (labels == kind).any():
            assert figures.classes.recall[kind] == both / (labels == kind).sum()
    assert np.isnan(figures.classes.recall[55])
    matrix = figures.confusions.matrix(60)
    assert matrix.sum() == 2000
    assert matrix[3, 7] == ((labels == 3) & (guess == 7)).sum()
