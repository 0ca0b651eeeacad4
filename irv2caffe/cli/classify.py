"""The command classify."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irv2caffe import ui
from irv2caffe.cli.completion import models_and_runs
from irv2caffe.cli.model_options import (
    ENGINE_OPTIONS,
    MODEL_OPTIONS,
    preprocessing_options,
)
from irv2caffe.cli.option_sections import SectionCommand, section, with_options
from irv2caffe.errors import EXIT_DONE, EXIT_FINDINGS, InputError, UsageError

if TYPE_CHECKING:
    from irv2caffe.data.records.items import Skipped
    from irv2caffe.inference.classifying import Classified
    from irv2caffe.inference.images import Images
    from irv2caffe.inference.model import Model

_PATH = click.Path(path_type=Path)
_output = section("Output options")
_MOST_TILES = 200


@click.command(
    "classify", cls=SectionCommand, short_help="Show the classes of images, by a trained net."
)
@click.argument("model", type=_PATH, shell_complete=models_and_runs)
@click.argument("images", type=_PATH, nargs=-1, required=True, metavar="IMAGE_OR_FOLDER...")
@_output(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    default=3,
    show_default=True,
    help="Number of classes to show.",
)
@_output(
    "--crops",
    type=click.Choice(["1", "10", "12", "144"]),
    default="1",
    show_default=True,
    help="Views of each image whose probabilities are averaged.",
)
@_output("--sheet", type=_PATH, metavar="FILE", help="Draw the images with their classes.")
@_output("--json", "as_json", is_flag=True, help="Print a JSON object per image, one per line.")
@_output("--force", is_flag=True, help="Overwrite a --sheet that this program did not make.")
@with_options(MODEL_OPTIONS)
@with_options(ENGINE_OPTIONS)
def classify_command(
    model: Path,
    images: tuple[Path, ...],
    top: int,
    sheet: Path | None,
    as_json: bool,
    force: bool,
    crops: str,
    **given: Any,
) -> int:
    """Show the most probable classes of images.

    MODEL is a run folder, whose best snapshot is taken, a .caffemodel with its prototxt beside it,
    or a folder made by deploy. Each IMAGE_OR_FOLDER is an image, a folder of images at any depth,
    a database, or another source of make-lmdb. Images are resized, cropped and scaled as those of
    the training were: that is read from the run, the bundle or the header of deploy.prototxt.

    Images that cannot be read are listed, and give exit code 3.
    """
    from irv2caffe.inference.images import read_images
    from irv2caffe.inference.nets import with_stored_statistics
    from irv2caffe.inference.opening import open_model
    from irv2caffe.inference.running import start_runner
    from irv2caffe.own_files import refuse_foreign

    if sheet is not None:
        if sheet.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
            raise UsageError(f"--sheet {sheet}: give a file name that ends in .png or .jpg")
        refuse_foreign(sheet, force=force)
    engine, gpus, caffe = (given.pop(name) for name in ("engine", "gpus", "caffe"))
    override = preprocessing_options(given)
    opened = open_model(model, **given, override=override)
    net, num_changed = with_stored_statistics(opened.net)
    sources = [read_images(path, opened, whole=crops == "144") for path in images]
    for note in (*opened.notes, *(note for source in sources for note in source.notes)):
        ui.say(f"note: {note}")
    blobs = (opened.logits, opened.probabilities)
    if num_changed:
        ui.say(
            f"note: {num_changed} BatchNorm layers take the statistics of the batch in tests "
            "(use_global_stats: false); here they take the stored ones, as the deploy net does"
        )
    with start_runner(
        net, opened.weights, blobs=blobs, engine=engine, gpus=gpus, caffe=caffe
    ) as runner:
        ui.say(f"{opened.title}, {runner.title}")
        shown = _Output(opened, as_json=as_json, wants_tiles=sheet is not None)
        _run(opened, sources, runner, shown, top=top, crops=int(crops))
    if sheet is not None:
        shown.write_sheet(sheet)
    return shown.end()


def _run(
    model: Model, sources: list[Images], runner: Any, shown: _Output, *, top: int, crops: int
) -> None:
    from irv2caffe.inference.classifying import classify

    total = sum(map(len, sources))
    with ui.progress("classified") as progress:
        # On a terminal the lines of the result show how far it is.
        is_quiet = sys.stdout.isatty() or total == 1
        update = (lambda _done, _total: None) if is_quiet else progress
        for source in sources:
            for outcome in classify(model, source, runner, top=top, crops=crops):
                shown.add(source, outcome)
                update(shown.num_done, total)


class _Output:
    """Prints results as they come, and keeps what the end needs."""

    def __init__(self, model: Model, *, as_json: bool, wants_tiles: bool) -> None:
        self._model = model
        self._as_json = as_json
        self._wants_tiles = wants_tiles
        self._tiles: list[Any] = []
        self._start_s = time.monotonic()
        self._skipped: list[tuple[str, str]] = []
        self._num_classified = 0
        self._num_labelled = self._num_right = 0

    @property
    def num_done(self) -> int:
        """Images classified or skipped."""
        return self._num_classified + len(self._skipped)

    def add(self, source: Images, outcome: Classified | Skipped) -> None:
        """Prints an image with its classes, or why it has none."""
        from irv2caffe.data.records.items import Skipped

        if isinstance(outcome, Skipped):
            name = source.shown_name(outcome.name)
            why = f"{outcome.reason}: {outcome.detail}" if outcome.detail else outcome.reason
            self._skipped.append((name, why))
            if self._as_json:
                ui.show(json.dumps({"image": name, "error": why}))
            else:
                ui.say(f"{name}: {why}")
            return
        self._num_classified += 1
        label, first = outcome.image.label, outcome.top[0]
        if label is not None:
            self._num_labelled += 1
            self._num_right += first.label == label
        name = source.shown_name(outcome.image.name)
        ui.show(self._json(name, outcome) if self._as_json else _line(name, outcome))
        if self._wants_tiles and len(self._tiles) < _MOST_TILES:
            self._tiles.append(_tile(name, outcome))

    def _json(self, name: str, outcome: Classified) -> str:
        label = outcome.image.label
        top = [
            {"label": one.label, "class": one.name, "probability": round(one.probability, 6)}
            for one in outcome.top
        ]
        names = self._model.class_names
        known = {}
        if label is not None:
            known = {"label": label, "class": names[label] if label < len(names) else str(label)}
        return json.dumps({"image": name, **({"known": known} if known else {}), "top": top})

    def write_sheet(self, sheet: Path) -> None:
        """Writes the contact sheet, if there is an image for it."""
        from irv2caffe.data.inspect.sheet import write_sheet

        if self._tiles:
            write_sheet(self._tiles, sheet)
            more = self._num_classified - len(self._tiles)
            ui.say(f"contact sheet: {sheet}" + (f", without the last {more:,}" if more else ""))

    def end(self) -> int:
        """Says how many images there were, and returns the exit code."""
        if not self._num_classified:
            name, why = self._skipped[0]
            raise InputError(f"no image could be classified: {name}: {why}")
        seconds = time.monotonic() - self._start_s
        words = [f"{self._num_classified:,} image(s)"]
        if self._num_classified > 1:
            words.append(f"{self._num_classified / seconds:,.1f} images/s")
        if self._num_labelled:
            share = 100 * self._num_right / self._num_labelled
            words.append(f"{share:.2f} % of {self._num_labelled:,} as labelled")
        if self._skipped:
            words.append(f"{len(self._skipped):,} could not be read")
        ui.say(", ".join(words))
        return EXIT_FINDINGS if self._skipped else EXIT_DONE


def _line(name: str, outcome: Classified) -> str:
    from irv2caffe.data.records.class_table import escape_name

    choices = (f"{100 * one.probability:.2f} % {escape_name(one.name)}" for one in outcome.top)
    return f"{name}: {', '.join(choices)}"


def _tile(name: str, outcome: Classified) -> Any:
    from irv2caffe.data.inspect.sheet import draw_tile

    captions = [f"{100 * one.probability:.1f} % {one.name}" for one in outcome.top[:2]]
    return draw_tile(outcome.image.pixels, [*captions, name.rpartition("/")[2]])
