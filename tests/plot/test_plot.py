"""The figure: what is on which axis, and the files."""

from __future__ import annotations

from dataclasses import replace
from xml.dom import minidom

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from helpers.paths import FILES
from matplotlib.backends.backend_agg import FigureCanvasAgg

from irv2caffe.errors import InputError, UsageError
from irv2caffe.log.read.reader import read_log
from irv2caffe.log.reference import references
from irv2caffe.log.table import Table, TrainRow, make_table
from irv2caffe.log.table import TestRow as RowOfTest
from irv2caffe.plot.curve import Curve, between, gaps, moving_average, smoothed, thinned
from irv2caffe.plot.curves import Run, curves_of
from irv2caffe.plot.figure import draw, figure
from irv2caffe.plot.style import PlotOptions

LOGS = FILES / "logs"
LOSS = "training loss (mean of 7 displays)"


def table(num_epochs=25, top5=True, lost=False, restarts=()):
    """A run of 100 iterations an epoch."""
    train = [
        TrainRow(
            i * 10,
            i / 10,
            float("nan") if lost and i > 100 else 7 / (1 + i / 10),
            0.1 * 0.94 ** (i // 20),
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


def golden(name):
    log = read_log(LOGS / f"{name}.log")
    return Run(name, make_table(log, num_train_images=160), log)


def drawn(made):
    """Label to line, of both axes."""
    return {line.get_label(): line for axis in made.axes for line in axis.get_lines()}


def axis_of(made, label):
    return next(axis for axis in made.axes if axis.get_ylabel() == label)


def test_errors_left_loss_right_epochs_below():
    made = figure([Run("run", table())])
    errors, loss = made.axes
    assert (errors.get_xlabel(), errors.get_ylabel()) == ("epoch", "validation error (%)")
    assert loss.get_ylabel() == "training loss"
    top1 = drawn(made)["validation top-1 error (last 51.6, best 51.6 %)"]
    assert top1.axes is errors
    assert list(top1.get_xdata()) == [float(i) for i in range(1, 26)]
    assert list(top1.get_ydata()) == [50 + 40 / i for i in range(1, 26)]
    assert top1.get_marker() == "o"
    assert "validation top-5 error (last 26.2, best 26.2 %)" in drawn(made)
    assert drawn(made)[LOSS].axes is loss
    # The whole run from zero.
    assert errors.get_xlim()[0] < 0 < errors.get_ylim()[1]
    assert errors.get_ylim()[0] <= 0
    assert loss.get_ylim()[0] <= 0


def test_smoothing_is_the_mean_of_neighbours():
    smooth = drawn(figure([Run("run", table())]))[LOSS].get_ydata()
    raw = [row.loss for row in table().train]
    assert smooth[100] == pytest.approx(np.mean(raw[97:104]))
    assert smooth[0] == raw[0]  # no later values pull the first one down
    assert smooth[1] == pytest.approx(np.mean(raw[0:3]))
    assert smooth[-1] == pytest.approx(np.mean(raw[-4:]))


@pytest.mark.parametrize(("asked", "stated"), [(1, ""), (20, " (mean of 21 displays)")])
def test_smoothing_is_stated(asked, stated):
    labels = drawn(figure([Run("run", table())], PlotOptions(smooth=asked)))
    assert f"training loss{stated}" in labels


def test_nothing_is_averaged_over_missing_displays():
    places = np.array([*range(10), *range(100, 110), *range(110, 200, 10)], float)
    assert gaps(places).tolist() == [10]  # a display interval that changes is none
    values = np.where(places < 50, 1.0, 2.0)
    assert smoothed(Curve(places, values), 7).y.tolist() == values.tolist()
    assert gaps(places[:2]).tolist() == []


def test_a_matplotlibrc_of_the_users_changes_nothing(tmp_path, monkeypatch):
    draw([Run("run", table())], tmp_path / "plain.svg")
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nlines.linestyle: none\n")
    with mpl.rc_context(fname=tmp_path / "matplotlibrc"):
        assert mpl.rcParams["text.usetex"]
        draw([Run("run", table())], tmp_path / "own.svg")
        assert mpl.rcParams["text.usetex"]  # left as it was
    assert (tmp_path / "own.svg").read_bytes() == (tmp_path / "plain.svg").read_bytes()


@pytest.mark.parametrize("span", [1, 3, 7, 99])
def test_moving_average_against_a_loop(span):
    values = np.random.default_rng(0).normal(size=50)
    found = moving_average(values, span)
    for place, mean in enumerate(found):
        before = min(place, span // 2)
        after = min(before, 49 - place)
        assert mean == pytest.approx(np.mean(values[place - before : place + after + 1]))


def test_close_up_has_its_own_rows_and_scales():
    made = figure([Run("run", table())], PlotOptions(window=(15, 25)))
    assert made.axes[0].get_xlim() == pytest.approx((15, 25), abs=0.1)
    loss = drawn(made)[LOSS]
    assert 14.9 <= min(loss.get_xdata()) <= 15
    assert made.axes[1].get_ylim()[1] < 1
    assert made.axes[1].get_ylim()[0] > 0
    with pytest.raises(InputError, match="in these epochs"):
        figure([Run("run", table())], PlotOptions(window=(30, 40)))


def test_a_test_of_the_first_epoch_is_in_the_close_up():
    """Tests come after whole iterations: epoch 15 is at 14.9998."""
    early = table()
    rows = tuple(
        replace(row, epoch=row.epoch - 2e-4, iteration=row.iteration) for row in early.test
    )
    epochs = Table(early.train, rows, (), 1, 100)
    found = curves_of([Run("run", epochs)], window=(15, 25))[0]
    assert len(found.errors["top-1"].x) == 11


def test_several_runs_are_told_apart():
    made = figure([Run("first", table()), Run("second", table(10))])
    labels = drawn(made)
    assert "first: top-1 error (last 51.6, best 51.6 %)" in labels
    assert "second: top-1 error (last 54.0, best 54.0 %)" in labels
    colors = {line.get_color() for label, line in labels.items() if "top-1" in label}
    assert len(colors) == 2
    for kind in ("top-1 error (", "training loss"):  # without colors, too
        lines = [line for label, line in labels.items() if kind in label]
        assert len({(line.get_marker(), str(line._unscaled_dash_pattern)) for line in lines}) == 2
    losses = [label for label in labels if "validation loss" in label]
    assert losses == []  # this log does not name it
    assert made.axes[0].get_title() == ""  # the names are in the legend


def swinging():
    """A validation error that is lowest at epoch 7."""
    run = table()
    test = tuple(
        replace(row, top1_error=20 + 2 * abs(row.epoch - 7), outputs={"loss": 1.5 + row.epoch / 9})
        for row in run.test
    )
    return replace(run, test=test, loss_weights={"loss": 1.0})


def test_the_best_point_is_marked():
    labels = drawn(figure([Run("run", swinging())]))
    star = labels["best: 20.0 % at epoch 7"]
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([7.0], [20.0])
    assert "validation top-1 error (last 56.0, best 20.0 %)" in labels
    assert "validation loss (last 4.278, best 1.611)" in labels
    close_up = drawn(figure([Run("run", swinging())], PlotOptions(window=(15, 25))))
    assert "best: 36.0 % at epoch 15" in close_up
    both = drawn(figure([Run("a", swinging()), Run("b", table())]))
    assert {"a: best: 20.0 % at epoch 7", "b: best: 51.6 % at epoch 25"} <= set(both)
    assert "a: validation loss (last 4.278, best 1.611)" in both


def test_axes_have_the_colors_of_their_curves():
    made = figure([Run("a run", swinging())])
    labels = drawn(made)
    for axis, label in zip(made.axes, ("validation top-1 error (", "training loss"), strict=True):
        color = next(line.get_color() for key, line in labels.items() if label in key)
        assert axis.yaxis.label.get_color() == color
        assert {text.get_color() for text in axis.get_yticklabels()} == {color}
    assert made.axes[0].get_title() == "a run"
    assert figure([Run("x", table())], PlotOptions(title="y")).axes[0].get_title() == "y"


@pytest.mark.parametrize(
    "options",
    [PlotOptions(), PlotOptions(window=(15, 25)), PlotOptions(log_axes=frozenset(["x"]))],
)
def test_the_marker_of_the_last_test_is_whole(options):
    made = figure([Run("run", swinging())], options)
    FigureCanvasAgg(made).draw()
    box = made.axes[0].get_window_extent()
    for label, line in drawn(made).items():
        if "top-1" in label or "best" in label:
            x, y = line.axes.transData.transform((line.get_xdata()[-1], line.get_ydata()[-1]))
            assert box.x1 - x >= line.get_markersize() / 72 * made.dpi / 2 * 0.5, label
            assert box.y0 < y < box.y1


def test_divergence_and_restarts_are_marked():
    made = figure([Run("run", table(lost=True, restarts=(500,)))])
    labels = drawn(made)
    assert labels["diverged at epoch 10.1"].get_xdata()[0] == pytest.approx(10.1)
    assert labels["restart"].get_xdata()[0] == 5.0
    assert np.isfinite(labels["training loss (mean of 3 displays)"].get_ydata()).all()


def test_no_top5_no_tests_nothing():
    assert not any("top-5" in label for label in drawn(figure([Run("run", table(top5=False))])))
    only_loss = Table(table().train, (), (), 1, 100)
    assert figure([Run("run", only_loss)]).axes[0].get_ylabel() == "no test results yet"
    with pytest.raises(InputError, match="run: no training loss and no test"):
        figure([Run("run", Table((), (), (), None, None))])


def test_only_tests():
    """display: 0, and nothing of the training in the log."""
    only_tests = Table((), table().test, (), 1, 100)
    made = figure([Run("run", only_tests)], PlotOptions(panels=("lr", "throughput")))
    assert made.axes[-1].get_ylabel() == "no training loss"
    assert all(len(axis.get_yticks()) == 0 for axis in made.axes[1:])


def test_a_single_display_is_seen():
    one = Table(table().train[:1], (), (), 1, 100)
    assert drawn(figure([Run("run", one)]))["training loss"].get_marker() == "."


def test_iterations_where_epochs_are_not_known():
    rows = [TrainRow(i, None, 1.0, None, None, None) for i in range(5)]
    made = figure([Run("run", Table(tuple(rows), (), (), None, None))])
    assert made.axes[0].get_xlabel() == "iteration"


def test_panels():
    made = figure([golden("resumed")], PlotOptions(panels=("lr", "throughput")))
    rates = next(
        line for line in axis_of(made, "learning rate").get_lines() if line.get_label()[0] == "_"
    )
    log = read_log(LOGS / "resumed.log")
    assert list(rates.get_ydata()) == [p.lr for p in log.train if p.lr is not None]
    assert axis_of(made, "learning rate").get_yscale() == "log"
    speeds = next(
        line for line in axis_of(made, "images/s").get_lines() if line.get_linewidth() == 0.8
    )
    assert list(speeds.get_ydata()) == pytest.approx(
        [16 / p.iteration_s for p in log.train if p.iteration_s is not None]
    )
    assert made.axes[2].get_xlabel() == "epoch"


@pytest.mark.parametrize("axis", ["loss", "error", "x"])
def test_log_axes(axis):
    made = figure([Run("run", table())], PlotOptions(log_axes=frozenset({axis})))
    scales = {
        "error": made.axes[0].get_yscale(),
        "loss": made.axes[1].get_yscale(),
        "x": made.axes[0].get_xscale(),
    }
    assert {name for name, scale in scales.items() if scale == "log"} == {axis}


@pytest.mark.parametrize("losses", [[0.0] * 5, [-1.0, -2.0], [1.0]])
def test_log_axes_of_what_has_no_logarithm(losses, recwarn):
    tests = (RowOfTest(0, None, 0, 0.0, None, None),)
    run = Run("run", Table(run_of(losses).table.train, tests, (), None, None))
    made = figure([run], PlotOptions(log_axes=frozenset({"loss", "error", "x"})))
    FigureCanvasAgg(made).draw()
    assert made.axes[0].get_yscale() == "linear"
    assert made.axes[1].get_yscale() == ("log" if max(losses) > 0 else "linear")
    assert not recwarn.list


def test_two_test_nets():
    labels = drawn(figure([golden("two_tests")]))
    log = read_log(LOGS / "two_tests.log")
    last = 100 - 100 * log.test[-1].outputs["acc/top-1"]
    assert any(label.startswith(f"test net #1: top-1 error (last {last:.1f},") for label in labels)


def test_training_errors_where_the_net_has_them():
    log = read_log(LOGS / "healthy.log")
    for point in log.train:
        log.outputs.setdefault("acc", type(log.outputs["loss/loss"])()).add(point.iteration, 0.25)
    labels = drawn(figure([Run("run", make_table(log, num_train_images=160))]))
    line = labels["training error of acc (one batch, averaged)"]
    assert set(line.get_ydata()) == {75.0}


def test_references_are_behind():
    made = figure([Run("run", table())], PlotOptions(references=tuple(references(["all"]))))
    labels = drawn(made)
    line = labels["lim0606 (reference)"]
    assert list(line.get_xdata())[:3] == [1, 2, 3]
    assert (
        line.get_zorder() < labels["validation top-1 error (last 51.6, best 51.6 %)"].get_zorder()
    )
    assert max(line.get_xdata()) <= 25  # not beyond one's own run
    assert labels["paper (reference)"].get_ydata()[0] == 19.9
    legend = [text.get_text() for text in made.legends[0].get_texts()]
    assert legend[-4:] == [
        f"{name} (reference)" for name in ("original-2016", "lim0606", "twtygqyy", "paper")
    ]
    unknown = Run("run", Table(table().train, table().test, (), None, None))
    with pytest.raises(UsageError, match="--num-train-images"):
        figure([unknown], PlotOptions(references=tuple(references(["all"]))))


def test_lines_are_cut_where_they_leave():
    assert between([(0.0, 0.0), (10.0, 10.0)], 2, 5) == [(2, 2.0), (5, 5.0)]
    assert between([(0.0, 0.0), (3.0, 6.0)], 2, 5) == [(2, 4.0), (3.0, 6.0)]
    assert between([(0.0, 0.0)], 2, 5) == []


def test_thinned_curves_keep_their_extremes():
    y = np.sin(np.arange(100_000) / 500)
    y[777], y[77_777] = 9, -9
    few = thinned(Curve(np.arange(100_000.0), y), 1000)
    assert len(few.x) <= 1002
    assert (few.y.max(), few.y.min()) == (9, -9)
    assert (np.diff(few.x) > 0).all()


def test_legend_hides_nothing():
    """It lies below the axes, whatever is in it."""
    runs = [Run(f"a run with a rather long name, number {i}", table()) for i in range(4)]
    made = figure(runs, PlotOptions(references=tuple(references(["all"]))))
    FigureCanvasAgg(made).draw()
    legend = made.legends[0].get_window_extent()
    assert legend.y1 <= made.axes[0].get_window_extent().y0
    assert legend.x0 >= 0
    assert legend.x1 <= made.bbox.width
    assert made.axes[0].get_window_extent().height > 100


NAMES = ["$\\frac{$", "_hidden", "a\nb", "x" * 300, "\u4e2d", "<b>&", "a\x01\x1b--\x7f", "a\udcff"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_any_name_is_drawn(tmp_path, name, suffix):
    """Names may come from a log, or be a file's that is not text."""
    runs = [Run(name, table()), Run("other", table())]
    out = tmp_path / f"figure.{suffix}"
    draw(runs, out, PlotOptions(title=name))
    if suffix == "svg":
        minidom.parse(str(out))
    legend = [text.get_text() for text in figure(runs).legends[0].get_texts()]
    assert len(legend) == 8  # two errors, the best, the loss
    assert all(len(text) < 100 for text in legend)


def test_a_title_of_a_line_is_shown_whole():
    title = "Inception-ResNet-v2 on ILSVRC12, 2 x 16 images, learning rate 0.045, RMSProp"
    made = figure([Run("run", table())], PlotOptions(title=title))
    assert made.axes[0].get_title() == title
    FigureCanvasAgg(made).draw()
    assert made.axes[0].title.get_window_extent().x1 < made.bbox.width
    long = figure([Run("run", table())], PlotOptions(title=2 * title)).axes[0]
    assert len(long.get_title()) < len(2 * title)
    FigureCanvasAgg(long.get_figure(root=True)).draw()
    assert long.title.get_window_extent().x1 < made.bbox.width


def test_numbers_that_no_axis_holds(tmp_path):
    """Caffe's have 32 bits; a log may hold anything."""
    losses = [1.0, 2.0, 1.7e308, -1.7e308, 3e38]
    rows = [TrainRow(i, None, loss, loss, 1.0 * i, None) for i, loss in enumerate(losses)]
    run = Run("run", Table(tuple(rows), (), (), None, None))
    (curves,) = curves_of([run])
    assert curves.loss.y.tolist() == [1.0, 2.0, 3e38]
    assert curves.diverged == 2
    assert curves.lr.y.tolist() == [1.0, 2.0, 3e38]
    draw([run], tmp_path / "figure.png", PlotOptions(panels=("lr",), log_axes=frozenset({"loss"})))
    draw([run], tmp_path / "figure.png", PlotOptions(panels=("lr",), smooth=10**30))


def run_of(losses):
    rows = [TrainRow(i, None, loss, None, None, None) for i, loss in enumerate(losses)]
    return Run("run", Table(tuple(rows), (), (), None, None))


@pytest.mark.parametrize("window", [None, (10, 80)])
def test_a_loss_that_explodes_does_not_flatten_what_was_before(window):
    losses = [7 / (1 + i / 10) for i in range(50)] + [9.0, 4e3, 1e12, 3e20, float("nan")]
    made = figure([run_of(losses)], PlotOptions(window=window, smooth=1))
    axis = axis_of(made, "training loss (rises to 3e+20)")
    low, high = axis.get_ylim()
    assert 9 <= high < 12
    assert -1 < low < 7 / 6
    assert max(drawn(made)["training loss"].get_ydata()) == 3e20  # it leaves the figure above


@pytest.mark.parametrize("num_classes", [None, 10, 1000])
def test_first_displays_that_explode_do_not_flatten_what_follows(num_classes):
    """A learning rate that is too high for the first iterations, as in real logs."""
    losses = [2.3, 61.0, 45.0, 30.0, *(2.3 - i / 100 for i in range(150))]
    run = run_of(losses)
    run = replace(run, table=replace(run.table, num_classes=num_classes))
    axis = axis_of(figure([run], PlotOptions(smooth=1)), "training loss (rises to 61)")
    assert 2.3 < axis.get_ylim()[1] < 17.5
    at_once = [300.0, 90.0, *(2.3 - i / 100 for i in range(150))]
    axis = axis_of(
        figure([run_of(at_once)], PlotOptions(smooth=1)), "training loss (begins at 300)"
    )
    assert 2.3 < axis.get_ylim()[1] < 17.5


@pytest.mark.parametrize("losses", [[2.3, 0.3, *[0.1] * 60], [6.9, 6.8, 5.0, *[1.5] * 90]])
def test_a_loss_that_begins_by_guessing_is_shown_whole(losses):
    axis = axis_of(figure([run_of(losses)], PlotOptions(smooth=1)), "training loss")
    assert axis.get_ylim()[1] > losses[0]


@pytest.mark.parametrize("losses", [[7 / 2**i for i in range(30)], [2.0] * 9 + [9.0], [0.0] * 20])
def test_a_loss_that_does_not_explode_is_shown_whole(losses):
    low, high = axis_of(figure([run_of(losses)]), "training loss").get_ylim()
    assert low < 0
    assert high > max(losses)


@pytest.mark.parametrize(
    "losses", [[-1.0 * i for i in range(40)], [2 - 0.1 * i for i in range(40)]]
)
def test_losses_below_zero_are_shown(losses):
    low, high = axis_of(figure([run_of(losses)]), "training loss").get_ylim()
    assert low < min(losses)
    assert high > max(0, *losses)


def test_markers_of_many_tests_do_not_run_into_each_other():
    tests = tuple(RowOfTest(i, i / 100, 0, 50.0, None, None) for i in range(1000))
    made = figure([Run("run", Table((), tests, (), 1, 100))])
    (line,) = (line for label, line in drawn(made).items() if "top-1" in label)
    assert len(line.get_xdata()) == 1000
    assert line.get_markevery() == 10


def test_a_log_that_begins_late_fills_the_figure():
    late = Table(table().train[150:], table().test[15:], (), 1, 100)
    low, high = figure([Run("late", late)]).axes[0].get_xlim()
    assert 14 < low < 15 < 24.9 < high
    both = figure([Run("late", late), Run("whole", table())])
    assert both.axes[0].get_xlim()[0] < 0


@pytest.mark.slow
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
