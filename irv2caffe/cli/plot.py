"""plot-log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from irv2caffe import ui
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Container

    from irv2caffe.log.table import Summary, Table


def _window(text: str | None) -> tuple[float | None, float | None] | None:
    """``A:B``, either of which may be missing."""
    if text is None:
        return None
    first, colon, last = text.partition(":")
    try:
        window = (float(first) if first else None, float(last) if last else None)
    except ValueError as error:
        raise UsageError(f"--epochs {text}: give A:B, as in 15:25") from error
    if not colon or (None not in window and window[0] >= window[1]):  # type: ignore[operator]
        raise UsageError(f"--epochs {text}: give A:B with A below B, as in 15:25")
    return window


@click.command("plot-log", short_help="Draw validation error and training loss.")
@click.argument("logs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Figure: .png, .svg or .pdf.")
@click.option("--epochs", metavar="A:B", help="Close-up of these epochs.")
@click.option("--num-train-images", type=int, help="Turns iterations into epochs.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--title", default="", help="Above the figure.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def plot_log_command(
    logs: tuple[Path, ...],
    out: Path | None,
    epochs: str | None,
    num_train_images: int | None,
    csv_file: Path | None,
    title: str,
    as_json: bool,
) -> None:
    """Draw validation error and training loss of one or more runs.

    LOGS are logs of Caffe or run folders of this program.
    """
    from irv2caffe.log.read import read_log
    from irv2caffe.log.table import make_table, summarize, write_csv
    from irv2caffe.train.run_dir import read_config

    window = _window(epochs)
    if csv_file is not None and len(logs) > 1:
        raise UsageError("--csv takes one log at a time")
    tables: dict[str, Table] = {}
    for log in logs:
        images = num_train_images or read_config(log if log.is_dir() else log.parent).get(
            "num_train_images"
        )
        tables[_name(log, tables)] = make_table(read_log(log), num_train_images=images)
    if out is not None:
        from irv2caffe.plot import Run, draw

        draw([Run(name, table) for name, table in tables.items()], out, window=window, title=title)
        ui.say(f"figure: {out}")
    if csv_file is not None:
        write_csv(csv_file, next(iter(tables.values())))
    summaries = {name: summarize(table) for name, table in tables.items()}
    if as_json:
        ui.show_json({name: summary.as_dict() for name, summary in summaries.items()})
        return
    for name, summary in summaries.items():
        ui.show(name)
        for line in summary_lines(summary):
            ui.show(f"  {line}")


def _name(log: Path, taken: Container[str]) -> str:
    """What a log is called in the legend: its run folder, else its file."""
    path = log.resolve()
    name = path.parent.name if path.name == "train.log" else path.name
    return name if name not in taken else str(log)


def summary_lines(summary: Summary) -> list[str]:
    """A run's figures for a person; what the log does not say is left out."""
    lines = []
    epochs = f" ({summary.epochs:.2f} epochs)" if summary.epochs is not None else ""
    lines.append(f"iterations            {summary.iterations:,}{epochs}")
    for rank in ("top1", "top5"):
        last = getattr(summary, f"last_{rank}_error")
        best = getattr(summary, f"best_{rank}_error")
        if last is not None and best is not None:
            name = rank.replace("p", "p-")
            lines.append(f"{name} error           last {last:.2f} %, best {best:.2f} %")
    if summary.last_loss is not None:
        lines.append(f"training loss         {summary.last_loss:.4g}")
    if summary.lr is not None:
        lines.append(f"learning rate         {summary.lr:.4g}")
    if summary.images_per_second is not None:
        lines.append(f"images per second     {summary.images_per_second:.1f}")
    if summary.hours is not None:
        lines.append(f"training time         {ui.duration(3600 * summary.hours)}")
    if summary.restarts:
        lines.append(f"restarts              {summary.restarts}")
    if summary.diverged is not None:
        lines.append(f"diverged at iteration {summary.diverged:,}")
    return lines
