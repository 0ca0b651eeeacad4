"""plot-log."""

from __future__ import annotations

from pathlib import Path

import click

from irv2caffe import ui
from irv2caffe.errors import UsageError


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
    raise NotImplementedError
