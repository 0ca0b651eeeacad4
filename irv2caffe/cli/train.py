"""train."""

from __future__ import annotations

from pathlib import Path

import click

from irv2caffe import ui


@click.command("train", short_help="Train with the real Caffe, in a run folder.")
@click.option("--solver", type=click.Path(path_type=Path), help="Solver prototxt; names the net.")
@click.option("--gpus", default="none", show_default=True, metavar="0,1|all|none", help="Devices.")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Run folder.  [runs/DATE-TIME]")
@click.option("--weights", type=click.Path(path_type=Path), help="Start from this .caffemodel.")
@click.option("--resume", is_flag=True, help="Go on with --run-dir, or with runs/latest.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "caffe"]),
    default="auto",
    show_default=True,
    help="What trains.",
)
@click.option("--caffe", "flag", type=click.Path(path_type=Path), help="Use this Caffe.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def train_command(
    solver: Path | None,
    gpus: str,
    run_dir: Path | None,
    weights: Path | None,
    resume: bool,
    engine: str,
    flag: Path | None,
    as_json: bool,
) -> None:
    """Train with the real Caffe, in a run folder that keeps the whole story.

    Ctrl-C or SIGTERM once: snapshot, then stop (exit code 130); twice: stop at once.
    """
    raise NotImplementedError
