"""train."""

from __future__ import annotations

from pathlib import Path

import click

from irv2caffe import ui
from irv2caffe.cli.plot import summary_lines
from irv2caffe.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, UsageError


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
) -> int:
    """Train with the real Caffe, in a run folder that keeps the whole story.

    Ctrl-C or SIGTERM once: snapshot, then stop (exit code 130); twice: stop at once.
    """
    from irv2caffe.caffe.find import find_caffe
    from irv2caffe.train.launch import resume as resume_run
    from irv2caffe.train.launch import train
    from irv2caffe.train.verdict import Ending

    del engine  # auto is caffe, as long as there is no other
    if resume and (solver is not None or weights is not None):
        raise UsageError("--resume takes solver and weights from the run folder")
    if not resume and solver is None:
        raise UsageError("--solver FILE is missing", "irv2caffe build-net writes one")
    found = find_caffe(flag)
    ui.say(f"Caffe: {found.tools / 'caffe'} ({found.reason})")
    with ui.status_line() as status:
        if solver is None:
            result = resume_run(found, gpus=gpus, run_dir=run_dir, say=ui.say, status=status)
        else:
            result = train(
                solver,
                found,
                gpus=gpus,
                run_dir=run_dir,
                weights=weights,
                say=ui.say,
                status=status,
            )
    if as_json:
        ui.show_json(result.as_dict())
    else:
        for line in summary_lines(result.summary):
            ui.show(line)
        ui.show(f"{result.verdict.ending}: {result.run_dir}")
    if result.verdict.ending is Ending.FINISHED:
        return EXIT_DONE
    ui.say(f"irv2caffe: {result.verdict.ending}: {result.verdict.why}")
    ui.say(f"  hint: {result.verdict.hint}")
    return EXIT_INTERRUPTED if result.verdict.ending is Ending.STOPPED else EXIT_FAILED
