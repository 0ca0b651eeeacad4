"""Reads a solver as Caffe does, and checks what it checks only later (upgrade_proto.cpp)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irv2caffe.errors import UsageError
from irv2caffe.proto import messages
from irv2caffe.proto.text import read_prototxt

_OLD_TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")


def read_solver(path: Path) -> Any:
    """Reads a SolverParameter, upgrades ``solver_type``, and fills in ``snapshot_prefix``.

    Raises:
        MissingInputError: no such file.
        FormatError: not a solver.
        UsageError: both type and solver_type.
    """
    param = read_prototxt(path, messages.SolverParameter)
    if param.HasField("solver_type"):
        if param.HasField("type"):
            raise UsageError(
                "old solver_type field (enum) and new type field (string) cannot be both "
                "specified in solver proto text",
                "remove solver_type",
            )
        param.type = _OLD_TYPES[param.solver_type]
        param.ClearField("solver_type")
    if not param.HasField("snapshot_prefix"):
        param.snapshot_prefix = str(path.with_suffix(""))
    elif Path(param.snapshot_prefix).is_dir():
        param.snapshot_prefix = str(Path(param.snapshot_prefix, path.stem))
    return param


def check_solver(param: Any) -> None:
    """Checks the numbers of a solver.

    Raises:
        UsageError: what Caffe refuses, or divides by.
    """
    if param.average_loss < 1:
        raise UsageError("average_loss should be non-negative.", f"it is {param.average_loss}")
    if param.iter_size < 1:
        raise UsageError(f"iter_size is {param.iter_size}", "it must be at least 1")
    if param.snapshot_format == messages.SolverParameter.HDF5:
        raise UsageError(
            "the torch engine does not write HDF5 snapshots",
            "write snapshot_format: BINARYPROTO into the solver",
        )
    if param.snapshot_diff:
        raise UsageError("the torch engine does not write snapshot_diff", "remove it")
