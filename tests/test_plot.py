"""The figure: what is on which axis, and the files."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from irv2caffe.errors import InputError, UsageError
from irv2caffe.log.table import Table, TrainRow
from irv2caffe.log.table import TestRow as RowOfTest
from irv2caffe.plot import Run, draw, figure


def table(num_epochs=25, top5=True, lost=False, restarts=()):
    """A run of 100 iterations an epoch."""
    train = [
        TrainRow(
            i * 10,
            i / 10,
            float("nan") if lost and i > 100 else 7 / (1 + i / 10),
            0.1,
            1.0 * i,
            50.0,
        )
        for i in range(num_epochs * 10)
    ]
    test = [
        RowOfTest(100 * i, float(i), 0, 50 + 40 / i, 25 + 30 / i if top5 else None, 3.0)
        for i in range(1, num_epochs + 1)
    ]
    return Table(tuple(train), tuple(test), restarts, 1, 100)


def drawn(made):
    """Label to line, of both axes."""
    return {line.get_label(): line for axis in made.axes for line in axis.get_lines()}


def test_errors_left_loss_right_epochs_below():
    made = figure([Run("run", table())])
    errors, loss = made.axes
    assert (errors.get_xlabel(), errors.get_ylabel()) == ("epoch", "validation error (%)")
    assert loss.get_ylabel() == "training loss"
    top1 = drawn(made)["validation top-1 error (51.6 %)"]
    assert top1.axes is errors
    assert list(top1.get_xdata()) == [float(i) for i in range(1, 26)]
    assert list(top1.get_ydata()) == [50 + 40 / i for i in range(1, 26)]
    assert top1.get_marker() == "o"
    assert "validation top-5 error (26.2 %)" in drawn(made)
    assert drawn(made)["training loss (mean of 6 displays)"].axes is loss


def test_smoothing_keeps_the_mean_of_neighbours():
    made = figure([Run("run", table())])
    smooth = drawn(made)["training loss (mean of 6 displays)"].get_ydata()
    raw = [row.loss for row in table().train]
    assert smooth[100] == pytest.approx(np.mean(raw[97:104]))


def test_close_up_has_its_own_rows():
    made = figure([Run("run", table())], window=(15, 25))
    assert made.axes[0].get_xlim() == (15, 25)
    loss = next(line for label, line in drawn(made).items() if label.startswith("training loss"))
    assert min(loss.get_xdata()) >= 15
    assert made.axes[1].get_ylim()[1] < 1
    with pytest.raises(InputError, match="in these epochs"):
        figure([Run("run", table())], window=(30, 40))


def test_several_runs_are_told_apart():
    made = figure([Run("first", table()), Run("second", table(10))])
    labels = drawn(made)
    assert "first: validation top-1 error (51.6 %)" in labels
    assert "second: validation top-1 error (54.0 %)" in labels
    colors = {line.get_color() for label, line in labels.items() if "top-1" in label}
    assert len(colors) == 2


def test_divergence_and_restarts_are_marked():
    made = figure([Run("run", table(lost=True, restarts=(500,)))])
    labels = drawn(made)
    assert labels["diverged at 10.1"].get_xdata()[0] == pytest.approx(10.1)
    assert labels["restart"].get_xdata()[0] == 5.0


def test_no_top5_no_tests_nothing():
    assert not any("top-5" in label for label in drawn(figure([Run("run", table(top5=False))])))
    only_loss = Table(table().train, (), (), 1, 100)
    assert figure([Run("run", only_loss)]).axes[0].get_ylabel() == "no test results yet"
    with pytest.raises(InputError, match="run: no training loss and no test"):
        figure([Run("run", Table((), (), (), None, None))])


def test_iterations_where_epochs_are_not_known():
    rows = [TrainRow(i, None, 1.0, None, None, None) for i in range(5)]
    made = figure([Run("run", Table(tuple(rows), (), (), None, None))])
    assert made.axes[0].get_xlabel() == "iteration"


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_files_are_written_and_repeatable(tmp_path, suffix):
    out = tmp_path / f"figure.{suffix}"
    draw([Run("run", table())], out)
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert out.read_bytes().startswith(starts[suffix])
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    if suffix == "png":
        image = cv2.imread(str(out))
        assert image.shape == (825, 1350, 3)
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
        before = out.read_bytes()
        draw([Run("run", table())], out)
        assert out.read_bytes() == before


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.pdf"):
        draw([Run("run", table())], tmp_path / "figure.gif")
