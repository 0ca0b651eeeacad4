"""The command group irv2caffe: the list of commands, error output and exit codes."""

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
from irv2caffe.cli.classify import classify_command
from irv2caffe.cli.deploy import deploy_command
from irv2caffe.cli.diagnose import diagnose_command
from irv2caffe.cli.evaluate import evaluate_command
from irv2caffe.cli.inspect_lmdb import inspect_lmdb_command
from irv2caffe.cli.make_lmdb import make_lmdb_command
from irv2caffe.cli.plot_log import plot_log_command
from irv2caffe.cli.runs import runs_command
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
    make_lmdb_command,
    inspect_lmdb_command,
    build_net_command,
    summary_command,
    check_command,
    train_command,
    runs_command,
    plot_log_command,
    diagnose_command,
    evaluate_command,
    classify_command,
    deploy_command,
    import_weights_command,
    export_weights_command,
)


class _OrderedGroup(click.Group):
    """A group that lists its commands in the order they were added, not alphabetically."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)


@click.group(
    cls=_OrderedGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success, 1 failure, 2 wrong usage, 3 finished with findings (check, "
    "diagnose, make-lmdb, inspect-lmdb, evaluate, classify), 130 interrupted.",
)
@click.version_option(__version__, "-V", "--version", prog_name="irv2caffe")
@click.option("--traceback", is_flag=True, help="Show the Python traceback of an error.")
def cli(traceback: bool) -> None:
    """Build and train Inception-ResNet-v2 in Caffe, from images to a trained model in use.

    The commands are listed in the order of a typical project: install Caffe, build databases and a
    network, check them, train, plot the log, diagnose the run, evaluate the model, make the files
    for a device. Each has its own help: irv2caffe COMMAND --help.
    """
    del traceback  # run() reads it from the arguments, so that it may follow the command's name


def run(argv: list[str]) -> int:
    """Runs a command line and returns its exit code; errors are printed as one line and a hint."""
    show_traceback = "--traceback" in argv and "caffe" not in argv[: argv.index("--traceback")]
    if show_traceback:
        argv = [argument for argument in argv if argument != "--traceback"]
    signal.signal(signal.SIGTERM, _TerminateHandler())
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
        sys.stderr.close()  # the reader of our output is gone
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


class _TerminateHandler:
    """Signal handler for SIGTERM that ignores repeats within ``_REPEATS_S`` seconds."""

    def __init__(self) -> None:
        self._last_s = -_REPEATS_S

    def __call__(self, signum: int, frame: object) -> None:  # noqa: ARG002
        now_s = time.monotonic()
        if now_s >= self._last_s + _REPEATS_S:
            self._last_s = now_s
            raise TerminatedError


for _command in _COMMANDS:
    cli.add_command(_command)
