"""The options of train, by section, with those of build-net that change a solver."""

from __future__ import annotations

import copy
from pathlib import Path

import click

from irv2caffe.cli.build_net import build_net_command
from irv2caffe.cli.option_sections import SectionOption, section

_what = section("Training options")
_where = section("Device options")
_torch = section("Options of the torch engine")
_first = section("Checks before the training")
_snapshots = section("Snapshot options")
_care = section("Crashes, stalls and divergence")
_shells = section("Control of a running training")
_other = section("Other")
_OVER = "Changes to the solver or recipe"
# Options of build-net that change a solver; train accepts the others but does not list them.
_SHOWN = (
    "train_lmdb", "val_lmdb", "epochs", "batch_size", "test_batch_size", "iter_size", "type",
    "base_lr", "lr_decay", "lr_decay_epochs", "momentum", "rms_decay", "delta", "weight_decay",
    "clip_gradients", "test_epochs", "snapshot_epochs", "random_seed",
)  # fmt: skip
_TAKEN_SECTIONS = {"Data options", "Network options", "Training options"}
_OWN = {"gpus", "num_train_images", "num_val_images", "label_smoothing"}
_LATEST = "runs/latest"
_PATH = click.Path(path_type=Path)


TRAIN_OPTIONS = (
    _what(
        "--solver",
        type=_PATH,
        metavar="FILE",
        help="Solver prototxt, which names the net to train.",
    ),
    _what(
        "--recipe",
        metavar="NAME|FILE",
        help="Build the net and solver from this build-net recipe instead; needs --train-lmdb and "
        "--val-lmdb.",
    ),
    _what(
        "--weights",
        type=_PATH,
        metavar="FILE",
        multiple=True,
        help="Initial weights: a .caffemodel.  Repeatable.",
    ),
    _what(
        "--resume",
        is_flag=False,
        flag_value="",
        metavar="[RUN|FILE]",
        help="Continue a run folder, the snapshots in another folder, or a .solverstate.  "
        f"[without a value: {_LATEST}]",
    ),
    _where(
        "--gpus",
        metavar="auto|0,1|all|none",
        help="GPUs used for training; none is the CPU, auto are those that no program uses.  "
        "[default: auto; with --resume: as before]",
    ),
    _where(
        "--run-dir",
        type=_PATH,
        metavar="DIR",
        help="Run folder.  [default: runs/DATE-TIME]",
    ),
    _where(
        "--engine",
        type=click.Choice(["auto", "caffe", "torch"]),
        default="auto",
        show_default=True,
        help="Program that trains: caffe, or torch, which does the same with PyTorch; auto takes "
        "caffe where it can do what is asked.",
    ),
    _where(
        "--caffe",
        type=_PATH,
        metavar="PATH",
        help="Caffe to use: its folder or program.  [default: see irv2caffe caffe --which]",
    ),
    _where("--docker", metavar="IMAGE", help="Use the Caffe in this docker image."),
    _torch(
        "--precision",
        type=click.Choice(["fp32", "tf32", "bf16"]),
        default="fp32",
        show_default=True,
        help="Arithmetic of convolutions and matrix products on GPUs; tf32 and bf16 are faster and "
        "less exact.",
    ),
    _torch(
        "--exact/--no-exact",
        default=None,
        help="Compute what Caffe computes within float error; without it sums are rearranged for "
        "speed.  [default: --exact on the CPU, --no-exact on GPUs]",
    ),
    _torch(
        "--workers",
        type=click.IntRange(1, 1024),
        metavar="N",
        default=1,
        show_default=True,
        help="Processes that train together on the CPU, each with a whole batch.",
    ),
    _torch(
        "--sync-bn",
        is_flag=True,
        help="BatchNorm's statistics over the batches of all processes, not of each by itself.",
    ),
    _torch("--shuffle", is_flag=True, help="Read each epoch in another random order."),
    _torch(
        "--augment",
        type=click.Choice(["none", "inception"]),
        default="none",
        show_default=True,
        help="inception: crops of random area and aspect ratio, and random colours.",
    ),
    _torch(
        "--ema",
        type=click.FloatRange(0, 1, max_open=True),
        metavar="DECAY",
        default=0.0,
        show_default=True,
        help="Test with weights averaged over the iterations with this decay, such as 0.9999; 0 "
        "tests with the weights themselves.",
    ),
    _torch(
        "--label-smoothing",
        type=click.FloatRange(0, 1, max_open=True),
        metavar="FRACTION",
        help="Fraction of each label spread evenly over all classes; with --recipe it is built "
        "into the net, for either engine.  [default: 0]",
    ),
    _torch(
        "--skip-corrupt",
        is_flag=True,
        help="Leave out records that cannot be read, and count them.",
    ),
    _torch(
        "--data-threads",
        type=click.IntRange(1, 1024),
        metavar="N",
        help="Threads that read and decode images.  [default: from the number of cores]",
    ),
    _torch(
        "--nnodes",
        type=click.IntRange(1, 1024),
        metavar="N",
        default=1,
        show_default=True,
        help="Machines that train together; each runs this command.",
    ),
    _torch(
        "--node-rank",
        type=click.IntRange(0, 1023),
        metavar="N",
        help="Number of this machine; machine 0 tests and writes the snapshots.",
    ),
    _torch(
        "--rdzv-endpoint",
        metavar="HOST:PORT",
        help="Where the machines meet: an address of machine 0 and a free port of it.",
    ),
    _first("--dry-run", is_flag=True, help="Print the plan and its problems; do not train."),
    _first("--print-config", is_flag=True, help="Print every value and its source; do not train."),
    _first(
        "--smoke",
        is_flag=True,
        help="Run 2 iterations, a test and a snapshot; print their costs.",
    ),
    _first("--ignore-findings", is_flag=True, help="Train despite errors found by check."),
    _snapshots(
        "--keep-snapshots",
        type=click.IntRange(1),
        metavar="N",
        help="Newest snapshots to keep.  [default: 3, and all made by the solver's interval or by "
        "earlier runs]",
    ),
    _snapshots(
        "--keep-epochs",
        type=click.FloatRange(0),
        metavar="N",
        default=10.0,
        show_default=True,
        help="Also keep one snapshot every N epochs; 0 keeps none.",
    ),
    _snapshots(
        "--best",
        metavar="VALUE",
        default="auto",
        show_default=True,
        help="Value whose best test is kept as snapshots/best.*: top1, top5, loss, "
        "OUTPUT[:min|max] or none.",
    ),
    _snapshots(
        "--snapshot-minutes",
        type=click.FloatRange(0),
        metavar="MINUTES",
        default=60.0,
        show_default=True,
        help="Longest time between snapshots; 0 leaves them to the solver alone.",
    ),
    _care(
        "--max-restarts",
        type=click.IntRange(0),
        metavar="N",
        default=5,
        show_default=True,
        help="Restarts after crashes and stalls without a new snapshot in between.",
    ),
    _care(
        "--on-divergence",
        type=click.Choice(["stop", "continue", "rollback"]),
        metavar="ACTION",
        default="stop",
        show_default=True,
        help="If the loss diverges (NaN, infinite or 87.3365): stop, continue, or rollback to the "
        "last good snapshot with a lower learning rate.",
    ),
    _care(
        "--max-rollbacks",
        type=click.IntRange(1),
        metavar="N",
        default=3,
        show_default=True,
        help="Rollbacks before giving up.",
    ),
    _care(
        "--rollback-lr",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="FACTOR",
        default=0.5,
        show_default=True,
        help="Factor for the learning rate at each rollback.",
    ),
    _care(
        "--stall-minutes",
        type=click.FloatRange(0),
        metavar="MINUTES",
        help="Restart Caffe after this long without output; 0 never does.  [default: from the "
        "rhythm of its log]",
    ),
    _shells(
        "--status",
        is_flag=False,
        flag_value="",
        metavar="[RUN]",
        help=f"Show the state of the run.  [without RUN: {_LATEST}]",
    ),
    _shells(
        "--snapshot-now",
        is_flag=False,
        flag_value="",
        metavar="[RUN]",
        help=f"Write a snapshot now.  [without RUN: {_LATEST}]",
    ),
    _shells(
        "--stop",
        is_flag=False,
        flag_value="",
        metavar="[RUN]",
        help=f"Write a snapshot and stop.  [without RUN: {_LATEST}]",
    ),
    _other(
        "--plot/--no-plot", default=True, show_default=True, help="Keep plot.png in RUN current."
    ),
    _other("--json", "as_json", is_flag=True, help="Print the result as JSON."),
)


def add_build_net_options(command: click.Command) -> click.Command:
    """Adds the options of build-net to train; they override the solver, or the recipe."""
    for parameter in build_net_command.params:
        if not isinstance(parameter, SectionOption):
            continue
        if parameter.section in _TAKEN_SECTIONS and parameter.name not in _OWN:
            taken = copy.copy(parameter)
            taken.section = _OVER
            taken.help = (taken.help or "").partition("  [")[0]  # the solver sets the default
            taken.hidden = parameter.name not in _SHOWN
            command.params.append(taken)
    return command
