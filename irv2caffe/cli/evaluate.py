"""The command evaluate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.cli.completion import models_and_runs
from irv2caffe.cli.evaluate_options import EVALUATE_OPTIONS
from irv2caffe.cli.model_options import preprocessing_options
from irv2caffe.cli.option_sections import SectionCommand, with_options
from irv2caffe.errors import EXIT_DONE, EXIT_FINDINGS, MissingInputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.evaluate.evaluation import Evaluation
    from irv2caffe.evaluate.metrics import Metrics

_PATH = click.Path(path_type=Path)
_NUM_CLASSES_SHOWN, _NUM_MISTAKES_SHOWN = 20, 8


@click.command(
    "evaluate", cls=SectionCommand, short_help="How good a trained net is, and where it is wrong."
)
@click.argument(
    "sources",
    metavar="MODEL_OR_RUN... [FOLDER]",
    nargs=-1,
    required=True,
    type=_PATH,
    shell_complete=models_and_runs,
)
@with_options(EVALUATE_OPTIONS)
def evaluate_command(
    sources: tuple[Path, ...],
    lmdb: Path | None,
    on: str,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Evaluate a trained net: errors, classes, confusions, calibration.

    MODEL_OR_RUN is a run folder of train, a .caffemodel or a folder made by deploy; several are an
    ensemble, whose probabilities are averaged. The images are those that the net was tested with,
    the database of --lmdb, or FOLDER with one folder per class. With one crop, the figures are
    those of caffe test to the digit.
    """
    from irv2caffe.evaluate.examples import find_examples
    from irv2caffe.evaluate.output_folder import check_output, write_output
    from irv2caffe.evaluate.request import Request
    from irv2caffe.evaluate.run import evaluate

    models, folder = _split(sources)
    if folder is not None and lmdb is not None:
        raise UsageError(f"--lmdb {lmdb} and the folder {folder}: give one of them")
    if on == "train" and (folder or lmdb):
        raise UsageError("--on train takes the database that the net was trained with")
    if out is not None:
        check_output(out)
    request = Request(models=models, data=lmdb or folder, on=on, **_request(options))
    found, images = evaluate(request, ui.progress)
    if out is not None:
        write_output(found, find_examples(found, images), out)
    if as_json:
        ui.show_json(found.as_dict())
    else:
        _show(found)
    if out is not None:
        ui.say(f"page: {out / 'index.html'}")
    return EXIT_FINDINGS if found.findings else EXIT_DONE


def _request(options: dict[str, Any]) -> dict[str, Any]:
    """The options as fields of the request."""
    preprocessing = preprocessing_options(options)
    sizes = _sizes(options.pop("test_batch_sizes"))
    model_out = _model_out(options["reestimate_bn"], options.pop("model_out"))
    return {
        **options,
        "crops": int(options["crops"]),
        "test_batch_sizes": sizes,
        "model_out": model_out,
        "preprocessing": preprocessing,
    }


def _split(sources: Sequence[Path]) -> tuple[tuple[Path, ...], Path | None]:
    """Models, and the folder of images among them if there is one."""
    from irv2caffe.inference.places import is_model

    missing = [path for path in sources if not path.exists()]
    if missing:
        raise MissingInputError(f"{missing[0]}: no such file or folder", "check the path")
    models = tuple(path for path in sources if is_model(path))
    others = [path for path in sources if not is_model(path)]
    if not models:
        return tuple(sources[:1]), None  # opening it says what it is
    if len(others) > 1:
        raise UsageError(f"{others[0]} and {others[1]} are no models: give one folder of images")
    return models, others[0] if others else None


def _sizes(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    words = text.split(",")
    if not all(word.isdecimal() and len(word) < 6 and int(word) > 0 for word in words):
        raise UsageError(f"--test-batch-sizes {text}: give numbers, as in 1,2,4,8")
    return tuple(map(int, words))


def _model_out(reestimate_bn: int | None, model_out: Path | None) -> Path | None:
    """Where the model with new statistics goes; an existing file is not replaced."""
    from irv2caffe.atomic import refuse_existing

    if reestimate_bn is None:
        if model_out is not None:
            raise UsageError("--model-out goes with --reestimate-bn")
        return None
    out = model_out or Path("reestimated.caffemodel")
    if out.suffix != ".caffemodel":
        raise UsageError(f"--model-out {out}: its name must end in .caffemodel")
    refuse_existing(out)
    return out


def _show(found: Evaluation) -> None:
    figures = found.metrics
    ui.show(" + ".join(str(path) for path in found.models))
    rows = [("images", f"{figures.num_images:,} of {found.data}" + _in_brackets(found.part))]
    rows += _error_rows(figures)
    rows += [
        ("loss", f"{figures.loss:.4f}"),
        ("mean recall", f"{100 * figures.mean_recall:.2f} % of the classes that occur"),
        ("calibration", f"expected error {100 * figures.calibration.ece:.2f} %"),
        ("speed", f"{found.images_per_second:,.1f} images/s, {found.engine}"),
    ]
    if found.caffe is not None:
        values = ", ".join(f"{name} = {found.caffe.text(name)}" for name in found.caffe.values)
        rows.append((f"caffe test -iterations {found.caffe.iterations}", values))
    for name, value in rows:
        ui.show(f"  {name:<14}{'' if len(name) < 14 else '  '}{value}")
    _show_classes(found)
    _show_mistakes(found)
    for size, metrics in found.by_batch_size:
        ui.show(f"  batches of {size:<4} {_headline(metrics)}")
    if found.reestimated is not None:
        path, metrics = found.reestimated
        ui.show(f"  new statistics  {_headline(metrics)}: {path}")
    for line in found.notes:
        ui.say(f"note: {line}")
    for line in found.findings:
        ui.show(f"finding: {line}")


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _error_rows(figures: Metrics) -> list[tuple[str, str]]:
    return [
        (f"top-{rank} error", f"{100 * (1 - share):.2f} %") for rank, share in figures.top.items()
    ]


def _headline(figures: Metrics) -> str:
    errors = ", ".join(f"{name} {value}" for name, value in _error_rows(figures))
    return f"{errors}, loss {figures.loss:.4f}"


def _show_classes(found: Evaluation) -> None:
    """The table of classes; of many classes those with the lowest recall."""
    rows = [row for row in found.class_rows() if row["support"]]
    if len(rows) > _NUM_CLASSES_SHOWN:
        rows = sorted(rows, key=lambda row: row["recall"])[:_NUM_CLASSES_SHOWN]
        ui.show(f"the {_NUM_CLASSES_SHOWN} classes with the lowest recall")
    headings = ("class", "name", "images", "precision", "recall", "F1")
    cells = [
        (
            str(row["class"]),
            row["name"] if found.class_names else "",
            f"{row['support']:,}",
            *("" if math.isnan(value) else f"{100 * value:.1f} %" for value in _shares(row)),
        )
        for row in rows
    ]
    ui.show_table(headings, cells, right=set(headings) - {"name"})


def _shares(row: dict[str, float]) -> tuple[float, float, float]:
    return row["precision"], row["recall"], row["f1"]


def _show_mistakes(found: Evaluation) -> None:
    rows = found.mistakes(_NUM_MISTAKES_SHOWN)
    if rows:
        ui.show_table(
            ("is", "is taken for", "images"),
            [(row["true"], row["predicted"], f"{row['count']:,}") for row in rows],
            right={"images"},
        )
