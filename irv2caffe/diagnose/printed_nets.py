"""The solver and the nets that Caffe printed into its log, for runs whose files are not there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.check.files import NetRole, Reading, parse_file
from irv2caffe.check.read import find_files
from irv2caffe.errors import FormatError
from irv2caffe.proto import messages
from irv2caffe.proto.positions import scan

if TYPE_CHECKING:
    from irv2caffe.check.evidence import PrototxtFile
    from irv2caffe.log.read.history import Log

_SOLVER, _NET = Path("the log's solver"), "the log's {} net"


def printed_reading(log: Log, folder: Path, notes: list[str]) -> Reading:
    """What the log printed, as if it were files.

    Args:
        log: the history of the run.
        folder: relative paths in the nets start from here, or from the working folder.
        notes: gets a line for each prototxt that cannot be read.
    """
    reading = Reading()
    reading.solver = _parsed(log.solver_text, _SOLVER, messages.SolverParameter, notes)
    num_tests = 0
    for net in log.nets:
        path = Path(_NET.format(net.phase))
        file = _parsed(net.text, path, messages.NetParameter, notes)
        if file is None or net.phase not in {"TRAIN", "TEST"}:
            continue
        if net.phase == "TEST":
            reading.nets.append(NetRole(file, "test", num_tests))
            num_tests += 1
        elif not any(each.role == "train" for each in reading.nets):
            reading.nets.append(NetRole(file, "train"))  # other GPUs may print it again
    find_files(reading, (Path(), folder))
    return reading


def _parsed(text: str, path: Path, kind: type, notes: list[str]) -> PrototxtFile | None:
    """A prototxt; None without a text, or if it is torn."""
    if not text.strip():
        return None
    try:
        return parse_file(text, scan(text), path, kind)
    except FormatError as error:
        notes.append(error.message)
        return None
