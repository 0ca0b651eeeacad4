"""Summary, findings and configuration of a run as (name, text) pairs."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from irv2caffe import ui
from irv2caffe.log.read.outputs import MAX_OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.log.read.history import Log
    from irv2caffe.log.summary import Summary

# Fields of the solver, in the order of interest.
_SOLVER = (
    "type", "base_lr", "lr_policy", "gamma", "stepsize", "stepvalue", "power", "momentum",
    "momentum2", "rms_decay", "delta", "weight_decay", "clip_gradients", "iter_size", "max_iter",
    "average_loss", "test_iter", "test_interval", "display", "snapshot", "random_seed",
    "solver_mode", "solver_type",
)  # fmt: skip
_MAX_WARNINGS = 8
# Caffe's warnings about old prototxts and future versions; Intel's timings.
_HARMLESS = re.compile(
    r"Note that future Caffe releases|Attempting to upgrade|Successfully upgraded|deprecat"
    r"|already up to date|^#*$|^LAYER-\d+ |^DELTA ",
    re.IGNORECASE,
)
# A Caffe that was built for GPUs says so in CPU mode (common.cpp).
_NO_GPU = re.compile(r"Cannot create Cu(?:blas|rand) |Curand not available")
_MAX_OUTPUTS = 12
_MIN_SKIPPED_DISPLAYS = 3  # fewer may be torn lines


def summary_items(summary: Summary) -> list[tuple[str, str]]:
    """Name and value of each number of a summary; those missing in the log are left out."""
    items = [("iterations", _iterations(summary))]
    for rank in ("top1", "top5"):
        last = getattr(summary, f"last_{rank}_error")
        best = getattr(summary, f"best_{rank}_error")
        if last is None or best is None:
            continue
        text = f"last {last:.2f} %, best {best:.2f} %"
        if rank == "top1" and summary.best_iteration is not None:
            text += f" at {_place(summary.best_iteration, summary.best_epoch)}"
        items.append((f"{rank.replace('p', 'p-')} error", text))
    items += _output_items(summary)
    hours, eta_hours, diverged = summary.hours, summary.eta_hours, summary.diverged
    others = {
        "training loss": _number(summary.last_loss, ".4g"),
        "learning rate": _number(summary.lr, ".4g"),
        "images per iteration": _number(summary.images_per_iteration, ","),
        "images per second": _number(summary.images_per_second, ".1f"),
        "training time": None if hours is None else ui.duration(3600 * hours),
        "time left": None if eta_hours is None else ui.duration(3600 * eta_hours),
        "restarts": f"{summary.restarts}" if summary.restarts else None,
        "diverged": None if diverged is None else f"at iteration {diverged:,}",
    }
    return items + [(name, text) for name, text in others.items() if text is not None]


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)


def _output_items(summary: Summary) -> Iterator[tuple[str, str]]:
    """Test outputs other than top-1 and top-5; training outputs that no test has, except losses."""
    tested = {one.name for one in summary.outputs if one.phase == "test"}
    shown = [
        one
        for one in summary.outputs
        if (one.phase == "test" and (one.rank is None or one.net))
        or (one.phase == "train" and one.kind != "loss" and one.name not in tested)
    ]
    for one in shown[:_MAX_OUTPUTS]:
        where = f"test net #{one.net}" if one.net else one.phase
        text = f"last {one.last:.4g}"
        if one.best is not None and one.best_iteration is not None:
            text += f", best {one.best:.4g} at {_place(one.best_iteration, one.best_epoch)}"
        yield f"{where} {one.name}", text
    if len(shown) > _MAX_OUTPUTS:
        yield "more outputs", f"{len(shown) - _MAX_OUTPUTS:,}, listed by --json, --csv and --html"


def _iterations(summary: Summary) -> str:
    text = f"{summary.iterations:,}"
    if summary.max_iter is not None and summary.iterations < summary.max_iter:
        text += f" of {summary.max_iter:,}"
    return text + (f" ({summary.epochs:.2f} epochs)" if summary.epochs is not None else "")


def _place(iteration: int, epoch: float | None) -> str:
    return f"iteration {iteration:,}" if epoch is None else f"epoch {epoch:.4g}"


def finding_lines(summary: Summary, log: Log | None = None) -> list[tuple[str, str]]:
    """Kind and text of all anomalies, then of restarts, warnings and the end of the run."""
    lines = [
        (found.kind, f"{_place(found.iteration, found.epoch)}: {found.text}")
        for found in summary.anomalies
    ]
    if log is not None:
        lines += _log_findings(log)
    return lines


def _log_findings(log: Log) -> Iterator[tuple[str, str]]:
    if log.num_replaced:
        yield "replaced", f"{log.num_replaced:,} displays and tests were repeated after a restart"
    if log.num_dropped:
        text = f"more than {MAX_OUTPUTS} names: {log.num_dropped:,} values of others are left out"
        yield "outputs", text
    if log.num_other_displays >= _MIN_SKIPPED_DISPLAYS:
        text = (
            f"{log.num_other_displays:,} displays of another process in the same file are left out"
        )
        yield "processes", text
    if log.gave_up:
        yield "unread", "a very long part has no line of Caffe; the rest was not read"
    warnings = [pair for pair in log.warnings.items() if _HARMLESS.search(pair[0]) is None]
    if not log.gpus:
        warnings = [pair for pair in warnings if _NO_GPU.match(pair[0]) is None]
    warnings.sort(key=lambda pair: -pair[1])
    for message, count in warnings[:_MAX_WARNINGS]:
        yield "warning", f"{message} ({count:,} times)" if count > 1 else message
    if log.stopped:
        yield "stopped", "a signal ended the training, after a snapshot"
    if log.killed:
        yield "killed", f"{log.killed} ended the process"
    if log.fatal:
        yield "fatal", log.fatal


def config_lines(log: Log) -> list[tuple[str, str]]:
    """Name and value of each setting in the log: Caffe, GPUs, nets, solver, dates, line counts."""
    lines = [("Caffe", log.fork)] if log.fork else []
    if log.gpus:
        names = [f"{gpu} {log.gpu_names.get(gpu, '')}".strip() for gpu in log.gpus]
        lines.append(("GPUs", ", ".join(names)))
    if log.weights:
        lines.append(("finetuned from", log.weights))
    for net in log.nets:
        parts = [net.name, f"{net.num_layers:,} layers"]
        parts += [f"batch {net.batch:,}"] if net.batch else []
        parts += [f"{net.num_classes:,} classes"] if net.num_classes else []
        parts += [net.source] if net.source else []
        lines.append((f"{net.phase or 'a'} net", ", ".join(part for part in parts if part)))
    for name in _SOLVER:
        value = log.fields.get(name)
        if value is not None:
            values = value if isinstance(value, list) else [value]
            lines.append((name, ", ".join(_field(part) for part in values)))
    if log.started is not None and log.latest is not None:
        lines.append(("from", f"{log.started:%Y-%m-%d %H:%M:%S}"))
        lines.append(("to", f"{log.latest:%Y-%m-%d %H:%M:%S}"))
    counted = f"{log.num_lines:,}, of which {log.num_events:,} were parsed"
    if log.num_unknown:
        counted += f" and {log.num_unknown:,} are not from Caffe"
    lines.append(("lines", counted))
    return lines


def _field(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
