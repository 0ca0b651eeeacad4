"""How good the model is: on which images, normalized by which statistics."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.diagnose.measured import Score
from irv2caffe.errors import InputError
from irv2caffe.evaluate import metrics
from irv2caffe.evaluate.batch_norm import (
    reestimate,
    training_batches,
    uses_batch_statistics,
    with_global_statistics,
)
from irv2caffe.evaluate.batches import Member, run_over
from irv2caffe.inference.images import read_images
from irv2caffe.inference.running import start_runner

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from irv2caffe.diagnose.measure.subject import Subject
    from irv2caffe.evaluate.predictions import Predictions
    from irv2caffe.evaluate.run import ProgressBar
    from irv2caffe.inference.images import Images
    from irv2caffe.inference.model import Model
    from irv2caffe.inference.runner import Runner

_TEST_BATCHES = (1, 2, 4, 8, 16, 32)
_LEAST_BATCHES, _MOST_BATCHES = 8, 200


def _run(subject: Subject, model: Model, phase: Any = "TEST") -> AbstractContextManager[Runner]:
    blobs = [model.logits, model.probabilities]
    options = subject.request.runner_options
    return start_runner(model.net, model.weights, blobs=blobs, phase=phase, **options)


def _predict(
    runner: Runner, model: Model, images: Images, batch_size: int, bar: Any
) -> Predictions:
    member = Member(model, runner, images)
    return run_over([member], batch_size=batch_size, crops=1, progress=bar).predictions


def _score(predictions: Predictions) -> Score:
    found = metrics.measure(predictions)
    of_classes = 100 * (1 - found.mean_recall)
    return Score(100 * (1 - found.top[1]), found.loss, found.num_images, of_classes)


def as_tested(subject: Subject, progress: ProgressBar, notes: list[str]) -> dict[str, Any]:
    """Scores of validation and training images as the TEST net evaluates them."""
    model = subject.model
    has_batch_statistics = uses_batch_statistics(model.net)
    values: dict[str, Any] = {"batch_statistics": has_batch_statistics}
    with _run(subject, model) as runner:
        values["engine"] = runner.title
        for name in ("val", "train"):
            try:
                given = getattr(subject, name)
                size = subject.test_batch_size if name == "val" else _test_size(subject)
                images = subject.images(given, size if has_batch_statistics else 1)
                with progress(f"{name} images as tested") as bar:
                    predictions = _predict(runner, model, images, size, bar)
            except InputError as error:
                notes.append(f"{name} images: {error.message}")
                continue
            values[name] = _score(predictions)
            if name == "val":
                values["predictions"] = predictions
                if has_batch_statistics:
                    values["by_test_batch"] = _by_test_batch(subject, runner, images, progress)
    return values


def _test_size(subject: Subject) -> int:
    try:
        return subject.test_batch_size
    except InputError:  # no validation images
        return subject.train_batch_size


def _by_test_batch(
    subject: Subject, runner: Runner, images: Images, progress: ProgressBar
) -> tuple[tuple[int, Score], ...]:
    found = []
    for size in _TEST_BATCHES:
        if size <= min(len(images), max(_TEST_BATCHES[-2], subject.test_batch_size)):
            with progress(f"TEST batches of {size}") as bar:
                found.append((size, _score(_predict(runner, subject.model, images, size, bar))))
    return tuple(found)


def as_trained(subject: Subject, progress: ProgressBar, *, is_mixed: bool) -> dict[str, Any]:
    """Scores of training images as the net sees them in training.

    Args:
        subject: what is tested.
        progress: makes a progress bar.
        is_mixed: score them in random order, too.
    """
    batch = subject.train_batch_size
    made = subject.training_preprocessing
    model = replace(subject.model, net=subject.training_net, preprocessing=made)
    values = {}
    with _run(subject, model, "TRAIN") as runner:
        orders = {"as_trained": None, "mixed": subject.request.seed}
        for name, seed in orders.items():
            if seed is None or is_mixed:
                images = subject.images(subject.train, batch, seed=seed)
                title = "training images as trained" if seed is None else "the same, mixed"
                with progress(title) as bar:
                    values[name] = _score(_predict(runner, model, images, batch, bar))
    return values


def reestimated(subject: Subject, progress: ProgressBar) -> dict[str, Any]:
    """Scores with BatchNorm statistics of training batches."""
    model, given = subject.model, subject.train
    batch = subject.train_batch_size
    wanted = -(-subject.request.limit // batch)
    num_batches = max(_LEAST_BATCHES, min(_MOST_BATCHES, wanted))
    values: dict[str, Any] = {"num_reestimate_batches": num_batches}
    with tempfile.TemporaryDirectory(prefix="irv2caffe-") as folder:
        out = Path(folder) / "reestimated.caffemodel"
        with progress("statistics of training batches") as bar:
            batches = training_batches(
                subject.training_preprocessing,
                read_images(given.source, model, list_file=given.list_file),
                num_batches=num_batches,
                batch_size=batch,
                mirror=given.mirror,
                seed=subject.request.seed,
                progress=bar,
            )
            reestimate(model, batches, out, runner_options=subject.request.runner_options)
        renewed = replace(model, net=with_global_statistics(model.net), weights=out)
        size = _test_size(subject)
        block = size if uses_batch_statistics(model.net) else 1
        with _run(subject, renewed) as runner:
            for name, field in (("val", "reestimated"), ("train", "reestimated_train")):
                try:
                    images = subject.images(getattr(subject, name), block)
                except InputError:  # noted when they were scored
                    continue
                with progress(f"{name} images again") as bar:
                    values[field] = _score(_predict(runner, renewed, images, size, bar))
    return values
