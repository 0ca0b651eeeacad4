"""The options of plot-log, by section."""

from __future__ import annotations

from pathlib import Path

import click

from irv2caffe.cli.option_sections import section

_files = section("Output files")
_look = section("Figure options")
_meaning = section("Log options")
_other = section("Other")
_FILE = click.Path(path_type=Path)


PLOT_LOG_OPTIONS = (
    _files("--out", type=_FILE, metavar="FILE", help="Figure: .png, .svg or .pdf."),
    _files(
        "--html", "html_file", type=_FILE, metavar="FILE", help="HTML page with zoomable plots."
    ),
    _files("--csv", "csv_file", type=_FILE, metavar="FILE", help="Training and test rows as CSV."),
    _files(
        "--jsonl", "jsonl_file", type=_FILE, metavar="FILE", help="The same rows as JSON lines."
    ),
    _files(
        "--tensorboard",
        type=_FILE,
        metavar="DIR",
        help="The same rows as TensorBoard events; needs the extra tensorboard.",
    ),
    _files("--unknown", type=_FILE, metavar="FILE", help="Log lines that Caffe did not write."),
    _files("--force", is_flag=True, help="Overwrite files that irv2caffe did not make."),
    _look(
        "--epochs",
        metavar="A:B",
        help="Range of epochs to plot, such as 15:25, 15: or :25; a range of iterations if the "
        "number of training images is unknown.",
    ),
    _look("--title", default="", metavar="TEXT", help="Title of the figure."),
    _look(
        "--name",
        "names",
        multiple=True,
        metavar="TEXT",
        help="Name of a run in the legend, in the order of LOGS.  Repeatable.",
    ),
    _look(
        "--panel",
        "panels",
        multiple=True,
        type=click.Choice(["lr", "throughput"]),
        help="Add a panel with the learning rate or the images per second.  Repeatable.",
    ),
    _look(
        "--reference",
        "references",
        multiple=True,
        metavar="NAME...",
        help="Published runs to plot for comparison: original-2016, lim0606, twtygqyy, paper, all.",
    ),
    _look(
        "--log-axis",
        "log_axes",
        multiple=True,
        type=click.Choice(["loss", "error", "x"]),
        help="Axis to scale logarithmically.  Repeatable.",
    ),
    _look(
        "--smooth",
        type=click.IntRange(1),
        metavar="N",
        help="Width of the moving average of the loss in displayed values, an odd number; 1 does "
        "not smooth.  [default: grows with the length of the run]",
    ),
    _meaning("--join", is_flag=True, help="Treat LOGS as the parts of one run, in order."),
    _meaning(
        "--num-train-images",
        type=click.IntRange(1, 10**12),
        metavar="N",
        help="Number of training images, which make one epoch.  [default: from the run folder, "
        "the headers that build-net writes, or the log]",
    ),
    _meaning(
        "--images-per-iteration",
        type=click.IntRange(1, 10**9),
        metavar="N",
        help="Training images per iteration: batch size x GPUs x iter_size.  [default: from the "
        "log]",
    ),
    _meaning(
        "--top1",
        metavar="OUTPUT",
        help="Test output with the top-1 accuracy.  [default: found by its name]",
    ),
    _meaning(
        "--top5",
        metavar="OUTPUT",
        help="Test output with the top-5 accuracy.  [default: found by its name]",
    ),
    _meaning(
        "--test-net",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        metavar="N",
        help="Test net to plot, if the solver has several.",
    ),
    _meaning(
        "--year",
        type=click.IntRange(1970, 9998),
        metavar="YEAR",
        help="Year of the first line, which most logs do not contain.",
    ),
    _other(
        "--watch",
        is_flag=True,
        help="Keep updating the outputs while the logs grow, until the run ends or Ctrl-C.",
    ),
    _other(
        "--every",
        type=click.FloatRange(0.1),
        metavar="SECONDS",
        help="Time between updates of --watch.  [default: 30, or more if drawing is slow]",
    ),
    _other("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
)
