"""Tests a Caffe: its version, a training of two iterations, and pycaffe."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irv2caffe.caffe.bounded import printed
from irv2caffe.caffe.command import tool_command
from irv2caffe.errors import InstallError, Irv2CaffeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irv2caffe.caffe.find import FoundCaffe

_TIMEOUT_S = 300
_MAX_PRINTED_BYTES = 4 << 20  # the test training prints 30 kB
_NET = """
name: "trial"
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
_SOLVER = """
net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" display: 1 max_iter: 2
snapshot_prefix: "trial" solver_mode: CPU
"""


@dataclass(frozen=True)
class Trial:
    """The version of a Caffe and the checks it has passed."""

    version: str
    passed: tuple[str, ...]


def verify(found: FoundCaffe, *, pycaffe: bool) -> Trial:
    """Checks everything that a training needs.

    Raises:
        InstallError: what failed, with its output.
    """
    said = version(found)
    passed = [f"caffe --version prints {said}"]
    with tempfile.TemporaryDirectory(prefix="irv2caffe-") as name:
        folder = Path(name)
        (folder / "net.prototxt").write_text(_NET, encoding="utf-8")
        (folder / "solver.prototxt").write_text(_SOLVER, encoding="utf-8")
        log = _output(found, "caffe", ["train", "-solver", "solver.prototxt"], folder)
        if "Optimization Done" not in log or not (folder / "trial_iter_2.caffemodel").is_file():
            raise InstallError("the test training failed", _tail(log))
    passed.append("a training of two iterations wrote its snapshot")
    if not (found.tools / "convert_imageset").is_file():
        raise InstallError("convert_imageset is missing", f"in {found.tools}")
    if pycaffe:
        printed = _output(found, "python", ["-c", "import caffe; print(caffe.__version__)"], None)
        passed.append(f"pycaffe {printed.split()[-1]} can be imported")
    return Trial(said, tuple(passed))


def version(found: FoundCaffe) -> str:
    """Returns the version that ``caffe --version`` prints.

    Raises:
        InstallError: it fails, or is not Caffe.
    """
    printed = _output(found, "caffe", ["--version"], None)
    match = re.search(r"caffe version (\S+)", printed)
    if match is None:
        raise InstallError(f"{found.tools / 'caffe'} is not BVLC Caffe", _tail(printed))
    return match[1]


def _output(found: FoundCaffe, tool: str, args: Sequence[str], folder: Path | None) -> str:
    """Runs a Caffe program and returns its output; refuses an exit status other than 0."""
    try:
        command = tool_command(found, tool, args)
        env = {**command.env, "GLOG_logtostderr": "1"}
        status, text = printed(
            command.argv, env, folder, timeout_s=_TIMEOUT_S, limit_bytes=_MAX_PRINTED_BYTES
        )
    except InstallError:
        raise
    except Irv2CaffeError as error:
        raise InstallError(error.message, error.hint) from error
    except OSError as error:
        raise InstallError(f"{tool} cannot be run: {error}") from error
    if status != 0:
        raise InstallError(f"{tool} exited with {status}", _tail(text))
    return text


def _tail(text: str) -> str:
    return " ".join(text.split())[-400:]
