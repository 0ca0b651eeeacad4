"""Every figure of a log is a series, called what the log calls it."""

from __future__ import annotations

import math

import pytest
from helpers.log_lines import display, lines_of_test, run_of

from irv2caffe.log.accuracy import AccuracyNames, accuracy_names, better_of, kind_of
from irv2caffe.log.describe import summary_items
from irv2caffe.log.export import read_csv, write_csv
from irv2caffe.log.metrics import metrics_of
from irv2caffe.log.read.reader import read_lines
from irv2caffe.log.summary import summarize
from irv2caffe.log.table import make_table


@pytest.mark.parametrize(
    ("name", "kind", "better"),
    [
        ("accuracy", "accuracy", "up"),
        ("acc/top-1", "accuracy", "up"),
        ("loss3/top-5", "accuracy", "up"),
        ("prec@1", "accuracy", "up"),
        ("pixelAcc", "accuracy", "up"),
        ("accuracy[1]", "accuracy", "up"),
        ("accuarcy", "accuracy", "up"),  # as R-FCN's nets have it
        ("fwavacc", "other", "up"),
        ("accumulated", "other", None),
        ("top5_error", "error", "down"),
        ("err", "error", "down"),
        ("loss", "loss", "down"),
        ("loss1/loss1", "loss", "down"),
        ("acc/loss", "loss", "down"),
        ("accuracy_loss", "loss", "down"),
        ("rpn_cls_loss", "loss", "down"),
        ("detection_eval", "other", "up"),
        ("mAP", "other", "up"),
        ("meanIoU", "other", "up"),
        ("mean_iu", "other", "up"),
        ("precision", "other", "up"),
        ("recall_2", "other", "up"),
        ("psnr", "other", "up"),
        ("rmse", "other", "down"),
        ("heatmap", "other", None),
        ("vaccine", "other", None),
        ("maxima", "other", None),
        ("terror", "other", None),
        ("softmax", "other", None),
    ],
)
def test_kinds_of_outputs(name, kind, better):
    assert kind_of(name) == kind
    assert better_of(name, kind) == better


def test_what_has_a_loss_weight_is_a_loss():
    assert kind_of("error", 1.0) == "loss"
    assert accuracy_names(["error", "accuracy"], ["error"]) == ("accuracy", None)
    assert accuracy_names(["error"], ["error"]) == (None, None)


@pytest.mark.parametrize(
    ("names", "top1"),
    [
        (["accuracy"], "accuracy"),
        (["val_accuracy", "loss"], "val_accuracy"),
        (["Accuracy1"], "Accuracy1"),
        (["accuracy1", "accuracy2", "accuracy3"], "accuracy3"),
        (["loss1/accuracy", "loss2/accuracy", "loss3/accuracy"], "loss3/accuracy"),
        (["accuracy", "aux/accuracy"], "accuracy"),
        (["accuracy_gender"], None),
        (["accuracy_hair", "accuracy_glasses"], None),
        (["mean_accuracy"], None),
        (["pixel_acc", "mean_acc"], None),
        (["accuracy_per_class"], None),
        (["accuracy[0]", "accuracy[1]"], None),
        (["precision", "recall"], None),
        (["prec"], None),
        (["top3_acc"], None),
    ],
)
def test_nothing_is_called_top1_that_is_not(names, top1):
    assert accuracy_names(names) == (top1, None)


def table_of(lines, **options):
    return make_table(read_lines(lines), **options)


def found(table):
    return {(one.phase, one.net, one.name): one for one in metrics_of(table)}


def test_every_output_is_a_series():
    lines = []
    for place in range(3):
        at = 10 * place
        values = {
            "detection_eval": place / 10,
            "acc": [0.5, place / 4],
            "mbox_loss": (0.5, 4 - place),
        }
        lines += lines_of_test(at, values)
        lines += lines_of_test(at, {"psnr": 20 + place}, net=1)
        lines += display(at, 5 - place, outputs={"cls": (1, 3 - place), "acc": 0.25, "norm": place})
    metrics = found(table_of(lines))
    assert list(metrics) == [
        ("test", 0, "detection_eval"),
        ("test", 0, "acc[0]"),
        ("test", 0, "acc[1]"),
        ("test", 0, "mbox_loss"),
        ("test", 1, "psnr"),
        ("train", 0, "cls"),
        ("train", 0, "acc"),
        ("train", 0, "norm"),
    ]
    detection = metrics["test", 0, "detection_eval"]
    assert (detection.kind, detection.better, detection.rank) == ("other", "up", None)
    assert list(zip(detection.iteration, detection.value, strict=True)) == [
        (0, 0.0), (10, 0.1), (20, 0.2)
    ]  # fmt: skip
    assert detection.best == (20, 0.2)
    loss = metrics["test", 0, "mbox_loss"]
    assert (loss.kind, loss.weight, loss.better, list(loss.value)) == (
        "loss",
        0.5,
        "down",
        [4, 3, 2],
    )
    assert metrics["test", 0, "acc[1]"].is_fraction
    assert metrics["test", 0, "acc[1]"].rank is None
    assert metrics["train", 0, "acc"].rank == "top-1"
    assert metrics["train", 0, "cls"].kind == "loss"  # by its weight, whatever its name
    assert (metrics["train", 0, "norm"].kind, metrics["train", 0, "norm"].best) == ("other", None)
    assert list(metrics["train", 0, "norm"].value) == [0, 1, 2]


def test_series_of_rows_from_a_file(tmp_path):
    """Rows that were written and read again have the same outputs."""
    tests = [{"mIoU": place / 10, "loss": (1, 3.0)} for place in range(4)]
    table = table_of(run_of([3, 2, 1, 0.5], tests))
    write_csv(tmp_path / "rows.csv", table)
    head, first, *_ = (tmp_path / "rows.csv").read_text().splitlines()
    assert head.endswith(",net,output:mIoU,output:loss")
    assert first.startswith("test,0,,3.0,,0.0,,,,0,0.0,3.0")
    again = found(read_csv(tmp_path / "rows.csv"))
    assert list(again["test", 0, "mIoU"].value) == [0, 0.1, 0.2, 0.3]
    assert again["test", 0, "loss"].kind == "loss"


def test_the_accuracy_that_was_asked_for():
    table = table_of(
        run_of([3, 2], [{"quality": 0.5, "accuracy": 0.75}]), names=AccuracyNames("quality")
    )
    metrics = found(table)
    assert (metrics["test", 0, "quality"].rank, metrics["test", 0, "quality"].kind) == (
        "top-1", "accuracy"
    )  # fmt: skip
    assert metrics["test", 0, "accuracy"].rank is None


def test_best_of_what_was_lost():
    tests = [{"accuracy": 0.5}, {"accuracy": 0.75}, {"accuracy": math.nan}]
    assert found(table_of(run_of([3, 2, 1], tests)))["test", 0, "accuracy"].best == (10, 0.75)


def items(lines):
    return dict(summary_items(summarize(table_of(lines))))


def test_the_summary_tells_what_the_log_has():
    tests = [{"detection_eval": place / 10, "loss": (1, 4 - place)} for place in (0, 3, 2)]
    said = items(run_of([3, 2, 1], tests))
    assert said["test detection_eval"] == "last 0.2, best 0.3 at iteration 10"
    assert said["test loss"] == "last 2, best 1 at iteration 10"
    assert not any("top-1" in name for name in said)
    lines = [
        line for at in (0, 10) for line in display(at, 1, outputs={"accuracy": 0.5 + at / 100})
    ]
    assert items(lines)["train accuracy"] == "last 0.6, best 0.6 at iteration 10"
    in_epochs = table_of(run_of([3, 2, 1], tests), num_train_images=640, images_per_iteration=32)
    assert dict(summary_items(summarize(in_epochs)))["test loss"] == "last 2, best 1 at epoch 0.5"
    many = items(run_of([3, 2], [{f"ap_{number}": 0.5 for number in range(40)}]))
    assert many["more outputs"].startswith("28, ")
    said = items(run_of([3, 2], [{"accuracy": 0.75}]))
    assert said["top-1 error"].startswith("last 25.00 %")
    assert not any(name.startswith("test ") for name in said)
