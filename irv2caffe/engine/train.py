"""``train``: what Caffe's program does around the solver (tools/caffe.cpp)."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from irv2caffe.config.gpus import NO_GPU_HELP, TORCH_FOR_GPUS
from irv2caffe.engine.parallel.group import open_group, rank_environment
from irv2caffe.engine.parallel.launcher import launch
from irv2caffe.engine.parallel.meeting import Machines
from irv2caffe.engine.solver.check import read_solver
from irv2caffe.engine.solver.log_lines import Log
from irv2caffe.engine.solver.loop import Solver
from irv2caffe.engine.solver.signals import Signals
from irv2caffe.errors import EXIT_FAILED, InputError, Irv2CaffeError, UsageError
from irv2caffe.proto import messages
from irv2caffe.proto.snapshot_headers import read_state_header

if TYPE_CHECKING:
    import argparse

    from irv2caffe.engine.parallel.group import Group

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def run(args: argparse.Namespace) -> int:
    """Trains; returns the exit code.

    Args:
        args: of the command line, with ``options``, the EngineOptions, and ``argv``.
    """
    try:
        return _train(args)
    except Irv2CaffeError as error:
        return _failed(error)
    except (RuntimeError, MemoryError) as error:  # torch's errors have no class of their own
        if any(words in str(error) for words in _OUT_OF_MEMORY) or isinstance(error, MemoryError):
            return _failed(_out_of_memory(error))
        traceback.print_exc()
        return _failed(error)


def _train(args: argparse.Namespace) -> int:
    param = _with_flags(read_solver(args.solver), args)
    gpus = _gpus(args.gpu, param)
    if rank_environment() is None and (max(len(gpus), args.workers) > 1 or args.nnodes > 1):
        machines = Machines(args.nnodes, args.node_rank, args.rdzv_endpoint, args.rdzv_id)
        command = [sys.executable, "-P", "-m", "irv2caffe.engine", *args.argv]
        log = Log()
        return launch(
            command,
            len(gpus) or args.workers,
            machines,
            fatal=lambda message: log.fatal("launcher.py:1", message),
        )
    group = open_group(gpus)
    log = Log(enabled=group.local_rank == 0)  # each machine has a log of its own
    _say_devices(gpus, log)
    if group.world > 1:
        log.say("train.py:60", f"Training with {group.world} processes")
    signals = Signals(args.sigint_effect, args.sighup_effect)
    with signals.installed():
        start = _start(args.snapshot, group)
        solver = Solver(param, args.options, group, signals, log, start=start)
        if group.agree(args.snapshot is not None):
            log.say("caffe.cpp:235", f"Resuming from {args.snapshot or 'process 0'}")
            solver.restore(args.snapshot)
        log.say("caffe.cpp:239", "Starting Optimization")
        solver.solve()
        log.say("caffe.cpp:250", "Optimization Done.")
        solver.close()
        group.close()
    return 0


def _start(snapshot: Path | None, group: Group) -> int:
    """The iteration of the snapshot; 0 without one, and for HDF5, which is read later.

    Only the first process reads it; other machines need not have it.

    Raises:
        MissingInputError: no such file.
        FormatError: damaged, or another kind of file.
    """
    iteration = torch.zeros(1, dtype=torch.int64)
    if group.is_root and snapshot is not None and snapshot.suffix != ".h5":
        iteration[0] = read_state_header(snapshot).iteration
    group.broadcast([iteration])
    return int(iteration)


def _with_flags(param: Any, args: argparse.Namespace) -> Any:
    """Puts into a solver what the flags say: level and stages, weights, the first GPU."""
    param.train_state.level = args.level
    param.train_state.stage.extend(args.stage.split(","))
    if args.weights or args.snapshot is not None:
        del param.weights[:]
        param.weights.extend(name.strip() for name in args.weights.split(",") if name.strip())
    return param


def _gpus(flag: str, param: Any) -> list[int]:
    """The GPUs of ``-gpu``; without it those of the solver, if it says GPU itself.

    Raises:
        UsageError: not numbers, or no such GPUs.
    """
    is_gpu = param.HasField("solver_mode") and param.solver_mode == messages.SolverParameter.GPU
    if not flag and is_gpu:
        flag = str(param.device_id)
    if not flag:
        return []
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        gpus = [*range(there)] if flag == "all" else [int(word) for word in flag.split(",")]
    except ValueError as error:
        raise UsageError(f"-gpu {flag}: not numbers of GPUs", "write 0,1 or all") from error
    if not there:
        raise InputError(*_no_gpu())
    missing = [gpu for gpu in gpus if not 0 <= gpu < there]
    if missing:
        known = ", ".join(map(str, range(there)))
        raise UsageError(
            f"-gpu {flag}: there is no GPU {missing[0]}", f"GPUs of this machine: {known}"
        )
    if len(set(gpus)) != len(gpus):
        raise UsageError(f"-gpu {flag}: the same GPU is listed twice")
    return gpus


def _no_gpu() -> tuple[str, str]:
    version = torch.__version__
    if torch.version.cuda is None:
        return (
            f"Cannot use GPU: PyTorch {version} was built for the CPU",
            TORCH_FOR_GPUS,
        )
    return (
        f"Cannot use GPU: PyTorch {version} for CUDA {torch.version.cuda} sees none",
        f"{NO_GPU_HELP}; is CUDA_VISIBLE_DEVICES empty?",
    )


def _say_devices(gpus: list[int], log: Log) -> None:
    if not gpus:
        log.say("caffe.cpp:197", "Use CPU.")
        return
    log.say("caffe.cpp:204", f"Using GPUs {', '.join(map(str, gpus))}")
    for gpu in gpus:
        log.say("caffe.cpp:209", f"GPU {gpu}: {torch.cuda.get_device_name(gpu)}")


def _out_of_memory(error: BaseException) -> InputError:
    first = str(error).strip().split("\n", 1)[0] or "out of memory"
    return InputError(
        f"out of memory: {first}",
        "use a smaller batch_size with a larger iter_size, which trains the same but for "
        "BatchNorm; the test net needs memory too",
    )


def _failed(error: BaseException) -> int:
    """Writes the last line of the log, from the place that raised the error."""
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    source = f"{Path(frame[0].filename).name}:{frame[0].lineno}" if frame else "engine:1"
    message, code = str(error), EXIT_FAILED
    if isinstance(error, Irv2CaffeError):
        code = error.exit_code
        message = error.message + (f" (hint: {error.hint})" if error.hint else "")
    Log().fatal(source, " ".join(message.split()))
    return code
