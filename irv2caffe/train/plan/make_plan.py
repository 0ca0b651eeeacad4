"""Plans a training: reads the job, applies the options and checks everything at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from irv2caffe.train.plan import overrides
from irv2caffe.train.plan.checks import check_plan
from irv2caffe.train.plan.databases import check_locks, database_uses, databases_of
from irv2caffe.train.plan.gpus import Devices, choose
from irv2caffe.train.plan.job import collected, layer_batch, read_job
from irv2caffe.train.plan.plan import Plan, TrainOptions

if TYPE_CHECKING:
    from pathlib import Path

    from irv2caffe.caffe.capability import Capability
    from irv2caffe.errors import Irv2CaffeError
    from irv2caffe.train.engines.engine import Engine


def make_plan(
    solver_path: Path,
    engine: Engine,
    options: TrainOptions = TrainOptions(),  # noqa: B008 - frozen
) -> Plan:
    """Reads a solver and the files it names, and checks everything.

    Args:
        solver_path: a solver prototxt.
        engine: the program that will train.
        options: the options of the training.

    Raises:
        MissingInputError: there is no such solver.
        FormatError: the file is not a solver, or names no net.
        UsageError: options of build-net that change the net, which is given.
    """
    overrides.refuse_net_options(options.given)
    problems: list[Irv2CaffeError] = []
    can: Capability | None = None
    devices = Devices()
    with collected(problems):
        can = engine.capability()
    with collected(problems):
        devices = choose(options.gpus, engine, can)
        engine.check_devices(devices.uuids)
    told = engine.options
    engine = engine.resolved(on_gpus=bool(devices.numbers))
    job = read_job(solver_path, problems, moved=options.moved)
    overrides.set_sources(job, options.given)
    databases = databases_of(job, options.databases)
    uses = database_uses(job, databases)
    if engine.takes_locks(can) and not options.ignore_findings:
        with collected(problems):
            check_locks(uses)
    plan = Plan(job, engine, can, devices, options, uses, 0, ())
    with collected(problems):
        sharing = 1 if plan.flavor == "bvlc" else devices.count
        overrides.set_values(
            job, options.given, uses, factor=plan.batch_factor, num_sharing=sharing
        )
    values = (
        *options.values,
        *overrides.rows(job, options.given),
        *overrides.device_rows(engine, told, devices, {value.name for value in options.values}),
    )
    plan = replace(plan, batch_size=_batch_size(plan), values=values)
    return check_plan(plan, databases, problems)


def _batch_size(plan: Plan) -> int:
    """Batch size of the TRAIN data layer; NVCaffe rounds it up to a multiple of the GPUs."""
    batch = next((layer_batch(layer) for layer in plan.job.data_layers("TRAIN")), 0)
    count = plan.devices.count
    return batch if plan.flavor == "bvlc" else -(-batch // count) * count
