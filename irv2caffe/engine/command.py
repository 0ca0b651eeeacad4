"""The command line of the engine: Caffe's flags, with one or two dashes, and the engine's own."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from irv2caffe.engine.options import EngineOptions
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ACTIONS = ("stop", "snapshot", "none")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, "python -m irv2caffe.engine train --help lists the options")


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    whole = _Parser(prog="python -m irv2caffe.engine", allow_abbrev=False, description=__doc__)
    verbs = whole.add_subparsers(dest="verb", required=True, parser_class=_Parser)
    _add_train(verbs.add_parser("train", allow_abbrev=False, help="train a net"))
    found = verbs.add_parser("devices", allow_abbrev=False, help="what PyTorch can do, as JSON")
    found.add_argument("--json", action="store_true", help="the only form")
    forward = verbs.add_parser("forward", allow_abbrev=False, help="run a net for another process")
    forward.add_argument("--work", required=True, type=json.loads, help="what to run, as JSON")
    return whole


def main(argv: Sequence[str]) -> int:
    """Runs the engine; returns its exit code.

    Args:
        argv: the arguments after ``python -m irv2caffe.engine``.
    """
    try:
        args = parser().parse_args(argv)
        args.argv = [*argv]
        args.options = engine_options(args) if args.verb == "train" else None
    except UsageError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    if args.verb == "devices":
        from irv2caffe.engine.devices import devices

        sys.stdout.write(json.dumps(devices()) + "\n")
        return 0
    if args.verb == "forward":
        from irv2caffe.engine import forward

        return forward.run(args.work)
    from irv2caffe.engine.train import run

    return run(args)


def _add_train(parser: argparse.ArgumentParser) -> None:
    """Caffe's flags, then our options."""

    def flag(name: str, **settings: object) -> None:
        parser.add_argument(f"-{name}", f"--{name}", **settings)  # type: ignore[arg-type]

    flag("solver", required=True, type=Path, help="the solver prototxt")
    flag("gpu", default="", help="numbers of GPUs, such as 0,1, or all")
    flag("snapshot", type=Path, help="the .solverstate to continue from")
    flag("weights", default="", help="models to start from, separated by commas")
    flag("level", default=0, type=int, help="level of the training net")
    flag("stage", default="", help="stages of the training net, separated by commas")
    flag("sigint_effect", default="stop", choices=_ACTIONS, help="what SIGINT does")
    flag("sighup_effect", default="snapshot", choices=_ACTIONS, help="what SIGHUP does")
    _add_options(parser)
    several = parser.add_argument_group("several processes")
    several.add_argument("--workers", type=int, default=1, help="processes on the CPU")
    several.add_argument("--nnodes", type=int, default=1, help="machines")
    several.add_argument("--node-rank", type=int, help="number of this machine, from 0")
    several.add_argument("--rdzv-endpoint", default="127.0.0.1:0", help="HOST:PORT of machine 0")
    several.add_argument("--rdzv-id", default="irv2caffe", help="name of the run")


def _add_options(parser: argparse.ArgumentParser) -> None:
    """What the engine may change against Caffe; see EngineOptions."""
    own = parser.add_argument_group("options of the engine")
    flag = argparse.BooleanOptionalAction
    own.add_argument("--exact", action=flag, default=None, help="Caffe's numbers; default on CPU")
    own.add_argument(
        "--precision",
        choices=("fp32", "tf32", "bf16"),
        default="fp32",
        help="of convolutions and matrix products on GPUs",
    )
    own.add_argument(
        "--sync-bn", action=flag, default=False, help="BatchNorm over the batches of all processes"
    )
    own.add_argument("--shuffle", action=flag, default=False, help="another order in each epoch")
    own.add_argument(
        "--augment",
        choices=("none", "inception"),
        default="none",
        help="inception: crops of random area and aspect ratio, and random colours",
    )
    own.add_argument(
        "--ema", type=float, default=0.0, metavar="DECAY", help="test with averaged weights"
    )
    own.add_argument(
        "--label-smoothing",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="of each label, spread evenly over all classes",
    )
    own.add_argument(
        "--skip-corrupt", action=flag, default=False, help="leave out records that cannot be read"
    )
    own.add_argument(
        "--data-threads", type=int, default=0, metavar="N", help="that decode; 0: from the cores"
    )
    own.add_argument("--debug-layers", action=flag, default=False, help="print each layer")
    own.add_argument(
        "--stop-after", default="", metavar="LAYER", help="end the first forward pass after it"
    )
    own.add_argument(
        "--compile",
        action=flag,
        default=True,
        help="torch.compile, without exact and where it pays",
    )


def engine_options(args: argparse.Namespace) -> EngineOptions:
    """The options of the engine.

    Raises:
        UsageError: values that exclude each other, or out of range.
    """
    for name in ("ema", "label_smoothing"):
        value = getattr(args, name)
        if not 0 <= value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value:g}", "from 0 to less than 1")
    if args.data_threads < 0 or min(args.workers, args.nnodes) < 1:
        raise UsageError(
            "--data-threads, --workers and --nnodes are numbers of threads, processes and machines",
            "from 0 threads, 1 process and 1 machine on",
        )
    if args.snapshot is not None and args.weights:
        raise UsageError(
            "Give a snapshot to resume training or weights to finetune but not both.",
            "leave out -snapshot or -weights",
        )
    exact = args.exact
    if exact is None:
        exact = not args.gpu and args.precision == "fp32"
    if exact and args.precision != "fp32":
        raise UsageError(f"--precision {args.precision} is not exact", "leave out --exact")
    return EngineOptions(
        exact=exact,
        precision=args.precision,
        sync_bn=args.sync_bn,
        shuffle=args.shuffle,
        augment="" if args.augment == "none" else args.augment,
        ema=args.ema or None,
        label_smoothing=args.label_smoothing,
        skip_corrupt=args.skip_corrupt,
        data_threads=args.data_threads or None,
        debug_layers=args.debug_layers or bool(args.stop_after),
        stop_after=args.stop_after,
        compile=args.compile,
    )
