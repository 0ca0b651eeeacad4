"""What to evaluate, and what can be refused before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irv2caffe.data.records.class_table import class_names
from irv2caffe.errors import InputError, UsageError
from irv2caffe.evaluate.batch_norm import uses_batch_statistics
from irv2caffe.inference.finding import PreprocessingOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from irv2caffe.evaluate.sources import Given
    from irv2caffe.inference.model import Model

_NO_OPTIONS = PreprocessingOptions()


@dataclass(frozen=True)
class Request:
    """What to evaluate, and how.

    Attributes:
        models: run folders, ``.caffemodel`` files or bundles; several are an ensemble.
        data: a database or a folder; None takes what the net was tested with.
        list_file: lines of ``PATH LABEL`` for the images of ``data``.
        on: ``val``, or ``train``: the database that the net was trained with.
        limit: evaluate so many images, chosen at random; None: all.
        seed: of the choice.
        crops: views of each image: 1, 10, 12 or 144.
        batch_size: None takes that of the TEST data layer.
        test_batch_sizes: further batch sizes, for nets with batch statistics.
        reestimate_bn: number of training batches for new BatchNorm statistics.
        model_out: where the model with these is written.
        net: the net of the weights; None looks for it.
        labels: the class table; None looks for it.
        snapshot: of a run: ``best``, ``last`` or an iteration.
        preprocessing: what the user says of it.
        engine: ``caffe`` or ``torch``.
        gpus: ``none``, or the number of a GPU.
        caffe: folder or program of the Caffe to use.
    """

    models: tuple[Path, ...]
    data: Path | None = None
    list_file: Path | None = None
    on: str = "val"
    limit: int | None = None
    seed: int = 1
    crops: int = 1
    batch_size: int | None = None
    test_batch_sizes: tuple[int, ...] = ()
    reestimate_bn: int | None = None
    model_out: Path | None = None
    net: Path | None = None
    labels: Path | None = None
    snapshot: str = "best"
    preprocessing: PreprocessingOptions = _NO_OPTIONS
    engine: str = "caffe"
    gpus: str = "none"
    caffe: Path | None = None

    @property
    def runner_options(self) -> dict[str, Any]:
        """Those of :func:`irv2caffe.inference.running.start_runner`."""
        return {"engine": self.engine, "gpus": self.gpus, "caffe": self.caffe}


def check_models(request: Request, models: Sequence[Model]) -> None:
    """Refuses models and options that do not go together.

    Raises:
        InputError: the models have other classes.
        UsageError: options for one model, or for nets with stored statistics.
    """
    first = models[0]
    for model in models[1:]:
        if model.num_classes != first.num_classes:
            raise InputError(
                f"{first.weights} has {first.num_classes} classes, {model.weights} has "
                f"{model.num_classes}",
                "the models of an ensemble must have the same classes",
            )
        if model.class_names and first.class_names and model.class_names != first.class_names:
            raise InputError(
                f"{first.weights} and {model.weights} do not have the same class table",
                "the models of an ensemble must have the same classes in the same order",
            )
    if len(models) > 1 and (request.reestimate_bn or request.test_batch_sizes or request.net):
        raise UsageError(
            "--reestimate-bn, --test-batch-sizes and --net are for one model",
            "evaluate the models one by one",
        )
    if request.crops > 1 and request.test_batch_sizes:
        raise UsageError("--test-batch-sizes and --crops do not go together")
    if request.crops > 1 and any(uses_batch_statistics(model.net) for model in models):
        raise UsageError(
            f"--crops {request.crops}: the net normalizes each TEST batch by itself, so that the "
            "views of an image would change each other's result",
            "write a model with statistics of its own first: --reestimate-bn 200",
        )


def check_classes(request: Request, models: Sequence[Model], given: Given) -> None:
    """Refuses a database whose labels mean other classes; --labels may just give other names."""
    own = next((model.class_names for model in models if model.class_names), ())
    theirs = class_names(given.source) if given.is_database else ()
    if theirs and own and theirs != own and request.labels is None:
        raise InputError(
            f"the classes in {given.source}/labels.txt are not those of the model",
            "build the database with make-lmdb --labels of the training database; or, if its "
            "labels mean the same classes, name their class table with --labels",
        )
