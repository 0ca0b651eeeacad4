"""Pictures of an evaluation: sizes, names, and that they can be read."""

import cv2
import numpy as np
import pytest

from irv2caffe.plot.confusion import draw_calibration, draw_confusion


def picture(path):
    return cv2.imread(str(path))


def test_a_small_matrix_has_all_names_and_numbers(tmp_path):
    matrix = np.array([[7001, 80, 20], [40, 300, 12], [9, 9, 0]])
    names = ["cat", "$x_1$ & <b>", "rare"]
    draw_confusion(matrix, names, tmp_path / "c.svg")
    text = (tmp_path / "c.svg").read_text()
    assert "<!-- cat  (7,101) -->" in text
    assert "<!-- 7,001" in text
    assert "98.6 %" in text
    assert "<!-- 0.0 % -->" in text  # none of 18 is right, and that is written
    draw_confusion(matrix, names, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == text


@pytest.mark.parametrize("dark", [False, True])
def test_a_thousand_classes_are_one_picture_with_the_worst_named(tmp_path, dark):
    matrix = np.diag(np.full(1000, 40))
    matrix[123, 456] = 30
    draw_confusion(matrix, [f"class {n}" for n in range(1000)], tmp_path / "c.svg", dark=dark)
    text = (tmp_path / "c.svg").read_text()
    assert "all 1,000 classes" in text
    assert "class 123  (70)" in text
    assert "class 456  (40)" in text
    assert len(text) < 400_000  # the whole is a picture in it, not a million paths
    draw_confusion(matrix, [], tmp_path / "c.png", dark=dark)
    mean = picture(tmp_path / "c.png").mean()
    assert mean < 90 if dark else mean > 200


def test_perfect_and_empty_matrices_are_drawn(tmp_path):
    for size in (1, 41):
        draw_confusion(np.diag(np.full(size, 3)), [], tmp_path / f"{size}.png")
        draw_confusion(np.zeros((size, size), int), [], tmp_path / f"{size}.png")
        assert picture(tmp_path / f"{size}.png") is not None


def test_calibration_with_empty_bins(tmp_path):
    count = np.array([0, 0, 5, 10])
    shares = np.array([np.nan, np.nan, 0.6, 0.9])
    draw_calibration(count, shares, shares, tmp_path / "c.png")
    assert picture(tmp_path / "c.png").shape[0] > 400
