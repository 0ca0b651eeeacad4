"""The page of an evaluation, in a real browser."""

import csv
from pathlib import Path

import numpy as np
import pytest
from helpers.browser import browser, find_browser

from irv2caffe.evaluate.evaluation import Evaluation
from irv2caffe.evaluate.examples import Example, Examples
from irv2caffe.evaluate.metrics import measure
from irv2caffe.evaluate.output_folder import write_output
from irv2caffe.evaluate.predictions import PredictionList

EVIL = '<script>document.title="owned"</script>'
NAMES = (EVIL, 'a" onerror="x', "line\x1b[31m\nbreak", "$$title $about", "plain")


def evaluation(num_classes=5, *, names=NAMES, scores=None):
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(60, num_classes)) if scores is None else scores
    scores = scores.astype(np.float32)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    collected = PredictionList(num_classes)
    images = [f"{EVIL}/{number}.png" for number in range(len(scores))]
    labels = rng.integers(0, num_classes - 1, len(scores))
    collected.add(images, labels, scores, probabilities.astype(np.float32))
    predictions = collected.predictions()
    return Evaluation(
        models=(Path("run/<i>net.caffemodel"),),
        data=Path("val"),
        part="",
        class_names=names,
        metrics=measure(predictions),
        predictions=predictions,
        skipped=(),
        crops=1,
        batch_size=10,
        engine="Caffe",
        images_per_second=3.0,
        batch_statistics=False,
        notes=(EVIL,),
    )


def examples():
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    return Examples(
        (
            Example(f"x/{EVIL}.png", EVIL, "plain", 0.9, 0.01, pixels),
            Example("gone.png", "plain", EVIL, 0.8, 0.02, None),
        ),
        (Example("gray.png", "plain", EVIL, 0.8, 0.02, pixels[:, :, 0]),),
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "out"
    write_output(evaluation(), examples(), folder)
    return folder


def test_names_are_escaped_and_the_table_sorts(out, tmp_path):
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium here")
    with browser(program, tmp_path) as page:
        page.open(out / "index.html")
        assert page.value("document.title") == "<i>net on val"
        assert page.value("document.querySelectorAll('script').length") == 1
        assert page.value("document.querySelectorAll('[onerror]').length") == 0
        images = "[...document.images].map(one => one.complete && one.naturalWidth > 0)"
        assert page.value(images) == [True] * 4  # two pictures, two of three examples
        cells = "[...document.querySelectorAll('#classes td:nth-child({})')].map(c => c.{})"
        assert page.value(cells.format(2, "textContent"))[0] == EVIL
        recalls = cells.format(7, "dataset.value")
        before = [float(value) for value in page.value(recalls)]
        page.value("document.querySelector('#classes th:nth-child(7)').click()")
        assert [float(value) for value in page.value(recalls)] == sorted(before)
        page.value("document.querySelector('#classes th:nth-child(7)').click()")
        assert [float(value) for value in page.value(recalls)] == sorted(before, reverse=True)
        assert before[-1] == -1  # a class without images comes first and last
        errors = [event for event in page.events if event.get("method") == "Log.entryAdded"]
        assert not errors
        requests = [event for event in page.events if "requestWillBeSent" in event["method"]]
        urls = {event["params"]["request"]["url"].partition(":")[0] for event in requests}
        assert urls <= {"file", "data"}


def test_many_classes_have_a_list_of_pairs_instead_of_a_matrix(tmp_path):
    found = evaluation(2500, names=())
    write_output(found, Examples((), ()), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "confusion.png" not in names
    assert "worst.png" not in names
    lines = (tmp_path / "out/confusion.csv").read_text().splitlines()
    assert lines[0] == "true,predicted,count"
    assert sum(int(line.split(",")[2]) for line in lines[1:]) == 60


def test_nan_and_equal_scores_are_findings():
    scores = np.zeros((60, 5))
    assert "same score" in evaluation(scores=scores).findings[0]
    scores[3] = np.nan
    assert "1 images are NaN" in evaluation(scores=scores).findings[0]
    assert not evaluation().findings


def test_no_cell_is_a_formula(tmp_path):
    """A name that a spreadsheet would run gets an apostrophe, as in skipped.csv."""
    names = ("=1+1", "@x", "-y", "plain", "z=")
    write_output(evaluation(names=names), Examples((), ()), tmp_path / "out")
    for name in ("classes", "confusion", "predictions"):
        with (tmp_path / f"out/{name}.csv").open(newline="") as stream:
            cells = {cell for row in csv.reader(stream) for cell in row}
        assert not {"=1+1", "@x", "-y"} & cells
        assert {"'=1+1", "plain"} <= cells
