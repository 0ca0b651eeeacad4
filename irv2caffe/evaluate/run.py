"""Evaluates a model, or an ensemble of models, on a database or a folder of images."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import InputError
from irv2caffe.evaluate.batch_norm import (
    check_batch_norm,
    reestimate,
    training_batches,
    uses_batch_statistics,
    with_global_statistics,
)
from irv2caffe.evaluate.batches import Member, run_over
from irv2caffe.evaluate.caffe_test import as_caffe_test
from irv2caffe.evaluate.evaluation import Evaluation
from irv2caffe.evaluate.metrics import Metrics, measure
from irv2caffe.evaluate.request import check_classes, check_models
from irv2caffe.evaluate.sources import Given, data_of
from irv2caffe.inference.images import Images, read_images
from irv2caffe.inference.opening import open_model
from irv2caffe.inference.running import start_runner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from irv2caffe.evaluate.batches import Progress
    from irv2caffe.evaluate.request import Request
    from irv2caffe.inference.model import Model

    ProgressBar = Callable[[str], AbstractContextManager[Progress]]

DEFAULT_BATCH_SIZE = 16
_DEPENDS = (
    "the net normalizes each TEST batch by its own statistics (use_global_stats: false): the "
    "figures depend on the batch size and the order of the images"
)


def evaluate(request: Request, progress: ProgressBar) -> tuple[Evaluation, Images]:
    """Evaluates models.

    Args:
        request: what to evaluate.
        progress: makes a progress bar of a title.

    Returns:
        The result, and the images for examples.

    Raises:
        UsageError: options that do not go together.
        InputError: models whose classes differ, images without labels, data that is not known.
        CaffeFailedError: Caffe refuses a net.
    """
    models = [_opened(request, source) for source in request.models]
    check_models(request, models)
    given = data_of(models[0], request.on, request.data, request.list_file, request.net)
    check_classes(request, models, given)
    batch_size = request.batch_size or given.test_batch_size or DEFAULT_BATCH_SIZE
    sources = _sources(request, models, given)
    training = _training_images(request, models[0])
    has_batch_statistics = any(uses_batch_statistics(model.net) for model in models)
    with ExitStack() as stack:
        members = [
            Member(model, stack.enter_context(_runner(request, model)), images)
            for model, images in zip(models, sources, strict=True)
        ]
        with progress("evaluating") as bar:
            found = run_over(members, batch_size=batch_size, crops=request.crops, progress=bar)
        by_batch_size = _by_batch_size(request, members, progress)
        title = members[0].runner.title
    again = _reestimated(request, models[0], sources[0], training, batch_size, progress)
    is_whole = request.limit is None and not found.skipped and given.is_database
    is_plain = len(models) == 1 and request.crops == 1
    notes = [note for model in models for note in model.notes] + list(sources[0].notes)
    evaluation = Evaluation(
        models=tuple(model.weights for model in models),
        data=given.source,
        part=_part(request),
        class_names=next((model.class_names for model in models if model.class_names), ()),
        metrics=measure(found.predictions),
        predictions=found.predictions,
        skipped=tuple(found.skipped),
        crops=request.crops,
        batch_size=batch_size,
        engine=title,
        images_per_second=len(found.predictions) / found.seconds,
        batch_statistics=has_batch_statistics,
        caffe=as_caffe_test(found.with_fill, batch_size) if is_whole and is_plain else None,
        by_batch_size=by_batch_size,
        reestimated=again,
        notes=(*dict.fromkeys(notes), *_remarks(request, given, has_batch_statistics)),
    )
    return evaluation, sources[0]


def _opened(request: Request, source: Path) -> Model:
    return open_model(
        source,
        net=request.net,
        labels=request.labels,
        snapshot=request.snapshot,
        override=request.preprocessing,
    )


def _runner(request: Request, model: Model) -> Any:
    blobs = [model.logits, model.probabilities]
    return start_runner(model.net, model.weights, blobs=blobs, **request.runner_options)


def _sources(request: Request, models: Sequence[Model], given: Given) -> list[Images]:
    """The images as each model wants them."""
    is_whole = request.crops == 144
    kinds = [_kind_of_images(model, given) for model in models]
    if given.is_database and len(set(kinds)) > 1:
        raise InputError(
            "one net of the ensemble takes gray images and another takes colours",
            "give a folder of images, which is read for each",
        )
    sources = {
        kind: read_images(given.source, model, list_file=given.list_file, whole=is_whole)
        for kind, model in dict(zip(kinds, models, strict=True)).items()
    }
    first = sources[kinds[0]]
    if request.limit is not None and request.limit < len(first):
        kept = first.choose(request.limit, request.seed)
        sources = {kind: images.only(kept) for kind, images in sources.items()}
    return [sources[kind] for kind in kinds]


def _kind_of_images(model: Model, given: Given) -> tuple[Any, ...]:
    """What the pixels of the images depend on; models that agree in it share them."""
    made = model.preprocessing
    if given.is_database:
        return (made.channels,)
    return (made.channels, made.resized_to, made.resize, made.interpolation)


def _part(request: Request) -> str:
    part = "" if request.limit is None else f"{request.limit:,} at random, seed {request.seed}"
    return "; ".join(filter(None, ["training images" if request.on == "train" else "", part]))


def _by_batch_size(
    request: Request, members: Sequence[Member], progress: ProgressBar
) -> tuple[tuple[int, Metrics], ...]:
    found = []
    for size in request.test_batch_sizes:
        with progress(f"batches of {size}") as bar:
            one = run_over(members, batch_size=size, crops=1, progress=bar)
        found.append((size, measure(one.predictions)))
        if not uses_batch_statistics(members[0].model.net):
            break  # the figures do not depend on the batch
    return tuple(found)


def _remarks(request: Request, given: Given, has_batch_statistics: bool) -> list[str]:
    remarks = []
    if has_batch_statistics:
        remarks.append(_DEPENDS)
    elif request.test_batch_sizes:
        remarks.append("the batch size makes no difference: BatchNorm uses stored statistics")
    if given.test_loss:
        remarks.append(
            f"the loss of the net in TEST is {given.test_loss}; the loss here is that of "
            "SoftmaxWithLoss"
        )
    return remarks


def _training_images(request: Request, model: Model) -> tuple[Images, Given] | None:
    """The images for new statistics, looked for before anything runs."""
    if request.reestimate_bn is None:
        return None
    check_batch_norm(model)
    given = data_of(model, "train", net=request.net)
    return read_images(given.source, model, list_file=given.list_file), given


def _reestimated(
    request: Request,
    model: Model,
    images: Images,
    training: tuple[Images, Given] | None,
    batch_size: int,
    progress: ProgressBar,
) -> tuple[Path, Metrics] | None:
    """Writes a model with new statistics, and evaluates it with them."""
    if training is None or request.reestimate_bn is None:
        return None
    assert request.model_out is not None
    training_images, given = training
    with progress("statistics of training batches") as bar:
        batches = training_batches(
            model.preprocessing,
            training_images,
            num_batches=request.reestimate_bn,
            batch_size=given.train_batch_size or DEFAULT_BATCH_SIZE,
            mirror=given.mirror,
            seed=request.seed,
            progress=bar,
        )
        reestimate(model, batches, request.model_out, runner_options=request.runner_options)
    renewed = replace(model, net=with_global_statistics(model.net), weights=request.model_out)
    with _runner(request, renewed) as runner, progress("evaluating again") as bar:
        member = Member(renewed, runner, images)
        found = run_over([member], batch_size=batch_size, crops=request.crops, progress=bar)
    return request.model_out, measure(found.predictions)
