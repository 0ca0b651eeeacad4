"""Options that override values of a solver: epochs, batch sizes, learning rate, databases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irv2caffe.errors import UsageError
from irv2caffe.train.engines.torch_options import TorchOptions
from irv2caffe.train.plan.job import layer_batch, reader_param

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from irv2caffe.train.engines.engine import Engine
    from irv2caffe.train.plan.databases import DatabaseUse
    from irv2caffe.train.plan.gpus import Devices
    from irv2caffe.train.plan.job import Job

    Uses = Sequence[DatabaseUse]

# Options and the SolverParameter fields of the same meaning.
_SAME = {"lr_decay": "gamma"} | {
    name: name
    for name in (
        "iter_size", "type", "base_lr", "momentum", "rms_decay", "delta", "weight_decay",
        "random_seed",
    )
}  # fmt: skip
_IN_EPOCHS = {
    "epochs": "max_iter",
    "test_epochs": "test_interval",
    "snapshot_epochs": "snapshot",
    "lr_decay_epochs": "stepsize",
}
_SOURCES = {"train_lmdb": "TRAIN", "val_lmdb": "TEST"}
_SUPERSEDED = {"solver_type"}  # by type, as which Caffe reads it
_OF_GPUS = {"solver_mode", "device_id"}  # what --gpus says counts, not the solver
_BATCHES = {"batch_size": "TRAIN", "test_batch_size": "TEST"}
OPTIONS = frozenset({*_SAME, *_IN_EPOCHS, *_SOURCES, *_BATCHES, "clip_gradients"})


@dataclass(frozen=True)
class Value:
    """A value of the resolved config and where it came from."""

    name: str
    value: Any
    source: str


def refuse_net_options(given: Mapping[str, Any]) -> None:
    """Raises UsageError for options that only build-net and --recipe can apply to a net."""
    for name in given:
        if name not in OPTIONS:
            raise UsageError(
                f"--{name.replace('_', '-')} changes the net, which the solver names",
                "use it with --recipe, or with irv2caffe build-net",
            )


def set_sources(job: Job, given: Mapping[str, Any]) -> None:
    """Sets the sources of the Data layers from the options."""
    for option, phase in _SOURCES.items():
        if option in given:
            for layer in job.data_layers(phase):
                if layer.type == "Data":
                    layer.data_param.source = str(Path(given[option]).absolute())


def set_values(
    job: Job,
    given: Mapping[str, Any],
    uses: Uses,
    *,
    factor: int,
    num_sharing: int,
) -> None:
    """Sets all values of the options except the databases.

    Args:
        job: changed in place.
        given: values by option name.
        uses: the databases, whose sizes convert epochs to iterations.
        factor: number of GPUs whose batches add up.
        num_sharing: number of GPUs that share one test batch.

    Raises:
        UsageError: epochs without a known number of images, or a test batch that does not divide.
    """
    solver = job.solver
    for option, field in _SAME.items():
        if option in given:
            setattr(solver, field, given[option])
    if "clip_gradients" in given:
        # Caffe clips the sum over iter_size before it divides (sgd_solver.cpp, ClipGradients).
        solver.clip_gradients = given["clip_gradients"] * solver.iter_size
    if "batch_size" in given:
        for layer in job.data_layers("TRAIN"):
            reader_param(layer).batch_size = given["batch_size"]
    if "test_batch_size" in given:
        _set_test_batch(job, given["test_batch_size"], uses, num_sharing)
    _set_epochs(job, given, uses, factor)


def _set_test_batch(job: Job, batch_size: int, uses: Uses, num_sharing: int) -> None:
    """Sets the test batch, and test_iter so that a test reads every image once."""
    num_val = next((use.database.num_records for use in uses if use.phase == "TEST"), None)
    if num_val is not None and (num_val % batch_size or batch_size % num_sharing):
        raise UsageError(
            f"--test-batch-size {batch_size} does not divide the {num_val:,} validation images",
            "some would be tested twice and others never",
        )
    for layer in job.data_layers("TEST"):
        reader_param(layer).batch_size = batch_size
    if num_val is not None and job.solver.test_iter:
        job.solver.test_iter[0] = num_val // batch_size


def _set_epochs(job: Job, given: Mapping[str, Any], uses: Uses, factor: int) -> None:
    wanted = {option: field for option, field in _IN_EPOCHS.items() if option in given}
    if not wanted:
        return
    num_train = next((use.database.num_records for use in uses if use.phase == "TRAIN"), None)
    batch = next((layer_batch(layer) for layer in job.data_layers("TRAIN")), 0)
    effective = batch * factor * job.solver.iter_size
    if not num_train or not effective:
        raise UsageError(
            f"--{min(wanted).replace('_', '-')}: the number of training images is not known",
            "write iterations into the solver instead",
        )
    for option, field in wanted.items():
        setattr(job.solver, field, max(1, round(num_train * given[option] / effective)))
    if "lr_decay_epochs" in given and job.solver.lr_policy != "step":
        raise UsageError(f'--lr-decay-epochs needs lr_policy: "step", not {job.solver.lr_policy!r}')


def rows(job: Job, given: Mapping[str, Any]) -> list[Value]:
    """Every value of the solver and of the data layers, and where it came from."""
    given_fields = {
        **{field: option for option, field in {**_SAME, **_IN_EPOCHS}.items() if option in given},
        **({"clip_gradients": "clip_gradients"} if "clip_gradients" in given else {}),
        **({"test_iter": "test_batch_size"} if "test_batch_size" in given else {}),
    }
    found = []
    for field in job.solver.DESCRIPTOR.fields:
        if field.name in _OF_GPUS:
            continue
        value = getattr(job.solver, field.name)
        repeated = hasattr(value, "__len__") and not isinstance(value, (str, bytes))
        is_set = len(value) > 0 if repeated else job.solver.HasField(field.name)
        if field.name in given_fields:
            source = f"command line, --{given_fields[field.name].replace('_', '-')}"
        elif is_set:
            source = str(job.path)
        elif field.has_default_value and field.name not in _SUPERSEDED:
            source = "Caffe's default"
        else:
            continue
        found.append(Value(field.name, _display_value(field, value, repeated=repeated), source))
    for options, name in ((_BATCHES, "batch_size"), (_SOURCES, "source")):
        for option, phase in options.items():
            for layer in job.data_layers(phase):
                source = f"command line, --{option.replace('_', '-')}" if option in given else ""
                value = getattr(reader_param(layer), name)
                found.append(Value(option, value, source or f"layer {layer.name}"))
    return found


def device_rows(
    engine: Engine, told: Mapping[str, Any], devices: Devices, known: Container[str]
) -> list[Value]:
    """The engine, its devices and its options, and where they came from.

    Args:
        engine: with the defaults for these devices filled in.
        told: its options before that.
        devices: the GPUs or the CPU.
        known: names of values of a recipe, which stand for options of the same name.
    """
    found = [
        Value("engine", engine.name, engine.why),
        Value("gpus", devices.argument or "none", devices.why or "option --gpus"),
    ]
    found.append(Value("solver_mode", "GPU" if devices.numbers else "CPU", "as gpus says"))
    for name, value in engine.options.items():
        is_default = told[name] == getattr(TorchOptions(), name)
        source = "default" if is_default else f"option --{name.replace('_', '-')}"
        if value != told[name]:
            source = "default on GPUs" if devices.numbers else "default on the CPU"
        if name not in known:
            found.append(Value(name, value, source))
    return found


def _display_value(field: Any, value: Any, *, repeated: bool) -> Any:
    if repeated:
        return " ".join(map(str, value))
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    if isinstance(value, float):
        return float(f"{value:.7g}")  # float32 as it was written
    return value
