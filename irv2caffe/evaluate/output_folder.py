"""The folder that an evaluation writes: JSON, CSV, pictures, contact sheets and a page."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from typing import TYPE_CHECKING, Any

from irv2caffe.atomic import atomic_folder, write_bytes, write_text
from irv2caffe.data.build.side_files import escape_cell
from irv2caffe.errors import InputError, OutputError, OutputExistsError
from irv2caffe.evaluate.evaluation import MADE_BY
from irv2caffe.evaluate.examples import draw_examples
from irv2caffe.evaluate.page import write_page
from irv2caffe.evaluate.pictures import MOST_CLASSES, draw_pictures
from irv2caffe.system import read_json_object

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from irv2caffe.evaluate.evaluation import Evaluation
    from irv2caffe.evaluate.examples import Examples

REPORT = "evaluation.json"
PAGE = "index.html"
_NAMES = frozenset(
    {
        REPORT, PAGE, "classes.csv", "confusion.csv", "predictions.csv", "confusion.png",
        "calibration.png", "worst.png", "confused.png",
    }
)  # fmt: skip


def check_output(folder: Path) -> None:
    """Checks that the folder can be written, at the start rather than after hours.

    Raises:
        OutputExistsError: it holds anything that evaluate did not write.
        OutputError: it cannot be created.
    """
    if not folder.exists() and not folder.is_symlink():
        above = next((path for path in folder.absolute().parents if path.exists()), folder.parent)
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise OutputError(
                f"cannot write {folder}: {above} is no folder that can be written",
                "choose another folder",
            )
        return
    hint = "choose another folder; evaluate only replaces what it wrote itself"
    if not folder.is_dir() or folder.is_symlink():
        raise OutputExistsError(f"{folder} exists and is no folder", hint)
    names = {path.name for path in folder.iterdir()}
    if not names:
        return
    try:
        is_own = read_json_object(folder / REPORT).get("made_by") == MADE_BY
    except InputError:
        is_own = False
    foreign = sorted(names - _NAMES if is_own else names)
    if foreign:
        raise OutputExistsError(f"{folder} holds {foreign[0]}, which evaluate did not write", hint)


def write_output(evaluation: Evaluation, examples: Examples, folder: Path) -> None:
    """Writes the folder; one of an earlier evaluation is replaced at the end.

    Raises:
        OutputExistsError: the folder holds something else.
        OutputError: it cannot be written.
    """
    check_output(folder)
    with atomic_folder(folder, force=True) as aside:
        write_text(aside / REPORT, json.dumps(evaluation.as_dict(), indent=1) + "\n")
        _write_classes(evaluation, aside / "classes.csv")
        _write_confusions(evaluation, aside / "confusion.csv")
        _write_predictions(evaluation, aside / "predictions.csv")
        draw_pictures(evaluation, aside, dark=False)
        for name, chosen in (("worst", examples.worst), ("confused", examples.confused)):
            if chosen:
                draw_examples(chosen, aside / f"{name}.png")
        write_page(evaluation, examples, aside / PAGE)
        check_output(folder)  # again: hours may have passed


def _write_rows(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    text = io.StringIO()
    cells = ([escape_cell(one) if isinstance(one, str) else one for one in row] for row in rows)
    csv.writer(text, lineterminator="\n").writerows(cells)
    # Names of files need not be UTF-8.
    write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _write_classes(evaluation: Evaluation, path: Path) -> None:
    rows = evaluation.class_rows()
    cells = ([_cell(value) for value in row.values()] for row in rows)
    _write_rows(path, [list(rows[0]), *cells])


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.6f}" if math.isfinite(value) else ""


def _write_confusions(evaluation: Evaluation, path: Path) -> None:
    """The matrix with a row for each true class, or the pairs that occur."""
    found = evaluation.metrics.confusions
    num_classes = evaluation.predictions.num_classes
    names = [evaluation.name_of(label) for label in range(num_classes)]
    if num_classes <= MOST_CLASSES:
        matrix = found.matrix(num_classes).tolist()
        rows = [[name, *counts] for name, counts in zip(names, matrix, strict=True)]
        _write_rows(path, [["true \\ predicted", *names], *rows])
        return
    pairs = zip(found.true.tolist(), found.predicted.tolist(), found.count.tolist(), strict=True)
    rows = [[names[true], names[predicted], count] for true, predicted, count in pairs]
    _write_rows(path, [["true", "predicted", "count"], *rows])


def _write_predictions(evaluation: Evaluation, path: Path) -> None:
    found = evaluation.predictions
    kept = found.classes.shape[1]
    head = ["image", "label", "true", "probability_of_true", "rank_of_true"]
    for place in range(1, kept + 1):
        head += [f"predicted_{place}", f"probability_{place}"]
    rows: list[list[Any]] = [head]
    for at, name in enumerate(found.names):
        label = int(found.labels[at])
        row = [name, label, evaluation.name_of(label)]
        row += [f"{found.label_probability[at]:.6g}", int(found.num_better[at]) + 1]
        for kind, probability in zip(found.classes[at], found.probabilities[at], strict=True):
            row += [evaluation.name_of(int(kind)), f"{probability:.6g}"]
        rows.append(row)
    _write_rows(path, rows)
