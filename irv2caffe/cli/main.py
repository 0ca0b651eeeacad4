"""The program as a whole: its commands in the order of use, its errors, its exit codes."""

from __future__ import annotations

import io
import signal
import sys
import time
import traceback

import click

from irv2caffe import __version__, ui
from irv2caffe.cli.build_net import build_net_command
from irv2caffe.cli.caffe import caffe_command, install_caffe_command
from irv2caffe.cli.check import check_command
from irv2caffe.cli.inspect_lmdb import inspect_lmdb_command
from irv2caffe.cli.make_lmdb import make_lmdb_command
from irv2caffe.cli.plot_log import plot_log_command
from irv2caffe.cli.summary import summary_command
from irv2caffe.cli.train import train_command
from irv2caffe.cli.weights import export_weights_command, import_weights_command
from irv2caffe.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Irv2CaffeError,
    PlanError,
    TerminatedError,
)

_REPEATS_S = 5.0
_COMMANDS = (
    install_caffe_command,
    caffe_command,
    build_net_command,
    summary_command,
    make_lmdb_command,
    inspect_lmdb_command,
    check_command,
    train_command,
    plot_log_command,
    import_weights_command,
    export_weights_command,
)


class _InOrder(click.Group):
    """Lists the commands as they are used, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 findings, 130 interrupted.",
)
@click.version_option(__version__, "-V", "--version", prog_name="irv2caffe")
@click.option("--traceback", is_flag=True, help="Show the whole traceback of an error.")
def cli(traceback: bool) -> None:
    """From a folder of images to a trained Inception-ResNet-v2 in Caffe.

    The commands stand in the order of use.
    """
    del traceback  # taken from the arguments by run(), so that it may stand anywhere


def run(argv: list[str]) -> int:
    """Runs the command line; returns the exit code and prints errors as one line and a hint."""
    show_traceback = "--traceback" in argv and "caffe" not in argv[: argv.index("--traceback")]
    if show_traceback:
        argv = [argument for argument in argv if argument != "--traceback"]
    signal.signal(signal.SIGTERM, _Terminated())
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(argv, prog_name="irv2caffe", standalone_mode=False)
        return code if isinstance(code, int) else EXIT_DONE
    except click.ClickException as error:
        words = io.StringIO()
        error.show(words)
        ui.say(words.getvalue().rstrip())
        return error.exit_code
    except (KeyboardInterrupt, click.Abort, TerminatedError):
        ui.say("irv2caffe: interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away; there is no one to tell
        return EXIT_FAILED
    except Irv2CaffeError as error:
        if show_traceback:
            ui.say(traceback.format_exc())
        for problem in error.problems if isinstance(error, PlanError) else (error,):
            ui.show_error(problem)
        return error.exit_code
    except (OSError, MemoryError) as error:
        if show_traceback:
            ui.say(traceback.format_exc())
        ui.show_error(Irv2CaffeError(str(error) or type(error).__name__))
        return EXIT_FAILED


class _Terminated:
    """Ends the program at the first SIGTERM; those that follow at once find it on its way out."""

    def __init__(self) -> None:
        self._heard_s = -_REPEATS_S

    def __call__(self, signum: int, frame: object) -> None:  # noqa: ARG002
        now_s = time.monotonic()
        if now_s < self._heard_s + _REPEATS_S:
            return
        self._heard_s = now_s
        raise TerminatedError


for _command in _COMMANDS:
    cli.add_command(_command)
