"""Starts a process that runs a net, in Caffe or in PyTorch, and talks to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from irv2caffe.atomic import atomic_file
from irv2caffe.caffe.capability import check_gpus, find_caffe_for_gpus
from irv2caffe.caffe.command import Command, tool_command
from irv2caffe.caffe.find import find_caffe
from irv2caffe.config.gpus import CAFFE_FOR_GPUS
from irv2caffe.errors import CaffeFailedError, CaffeNotFoundError, MissingExtraError, UsageError
from irv2caffe.inference import worker
from irv2caffe.inference.nets import ends_of
from irv2caffe.proto.text import format_prototxt
from irv2caffe.system import kill_group, visible_gpus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from irv2caffe.inference.runner import Runner

EngineName = Literal["caffe", "torch"]
_PhaseName = Literal["TRAIN", "TEST"]
_END_S = 10.0
_SHOWN_BYTES = 16 << 10
_FATAL = re.compile(r"^[EF]\d{4} \S+ +\d+ (\S+\] .*)$")


@contextmanager
def start_runner(
    net: Any,
    weights: Path,
    *,
    blobs: Sequence[str],
    engine: EngineName = "caffe",
    phase: _PhaseName = "TEST",
    gpus: str = "none",
    caffe: Path | None = None,
) -> Iterator[Runner]:
    """Runs a net in a process of its own, which ends with the block.

    Args:
        net: a NetParameter of :func:`irv2caffe.inference.nets.inference_net`.
        weights: a .caffemodel.
        blobs: names of the blobs that a forward pass returns.
        engine: ``caffe``, pycaffe of the Caffe that was found, or ``torch``.
        phase: in ``TRAIN`` BatchNorm takes the statistics of the batch, and averages them.
        gpus: ``none`` for the CPU, or the number of a GPU.
        caffe: folder or program of the Caffe to use.

    Raises:
        UsageError: ``gpus`` is something else, or a Caffe for PyTorch.
        CaffeNotFoundError: no Caffe, or one without pycaffe.
        MissingExtraError: PyTorch is not installed.
        CaffeFailedError: it refuses the net, the weights or the GPU.
    """
    gpu = _gpu(gpus)
    with tempfile.TemporaryDirectory(prefix="irv2caffe-") as folder:
        path = Path(folder) / "net.prototxt"
        path.write_text(format_prototxt(net), encoding="utf-8")
        work = {
            "net": str(path),
            "weights": str(_readable(weights.absolute(), path.parent)),
            "phase": phase,
            "input": ends_of(net).input,
            "blobs": list(blobs),
            "gpu": gpu,
        }
        process = _Process(_command(engine, work, caffe))
        try:
            process.start()
            yield process
        finally:
            process.close()


def _readable(weights: Path, folder: Path) -> Path:
    """The weights, or a link in ``folder`` if pycaffe cannot take their path: it is not UTF-8."""
    try:
        str(weights).encode()
    except UnicodeEncodeError:
        link = folder / ("net.caffemodel.h5" if weights.suffix == ".h5" else "net.caffemodel")
        link.symlink_to(weights)
        return link
    return weights


def _gpu(gpus: str) -> int | None:
    if gpus == "none":
        return None
    if not re.fullmatch(r"\d{1,3}", gpus):
        raise UsageError(f"--gpus {gpus}: a net is run on one GPU", "give its number, or none")
    return int(gpus)


def _command(engine: str, work: dict[str, Any], caffe: Path | None) -> Command:
    words = json.dumps(work)
    if engine == "torch":
        from importlib.util import find_spec

        if caffe is not None:
            raise UsageError("--engine torch uses no Caffe: --caffe does not go with it")
        if find_spec("torch") is None:
            raise MissingExtraError("torch", "torch", "--engine torch")
        argv = (sys.executable, "-P", "-m", "irv2caffe.engine", "forward", "--work", words)
        return Command(argv, dict(os.environ))
    try:
        found = find_caffe(caffe) if caffe or work["gpu"] is None else find_caffe_for_gpus()
    except CaffeNotFoundError as error:
        raise CaffeNotFoundError(error.message, f"{error.hint}; or use --engine torch") from error
    if work["gpu"] is not None:
        here = (visible_gpus() or [])[work["gpu"] :][:1]
        check_gpus(found, [gpu.uuid for gpu in here])
    program = resources.files("irv2caffe.inference").joinpath("worker.py").read_text("utf-8")
    command = tool_command(found, "python", ("-c", program, words))
    return Command(command.argv, {**command.env, "GLOG_minloglevel": "2", "GLOG_logtostderr": "1"})


class _Process:
    """A worker process, as a Runner."""

    title = ""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process and waits until it has loaded the net."""
        try:
            self._child = subprocess.Popen(
                self._command.argv,
                env=dict(self._command.env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                start_new_session=True,  # Ctrl-C is for this process, which then ends the other
            )
        except OSError as error:
            raise CaffeFailedError(
                f"cannot start {self._command.argv[0]}: {error.strerror}",
                "irv2caffe caffe --which shows which Caffe is used",
            ) from error
        self.title = str(self._answer()["title"])

    def forward(self, images: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """The wanted blobs of a batch."""
        return self._run("forward", images)

    def summarize(self, images: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """What matters of the wanted blobs of a batch."""
        return self._run("summarize", images)

    def gradient(self, labels: NDArray[np.float32]) -> Mapping[str, float]:
        """The norms of the gradients, by layer."""
        self._ask({"do": "gradient", "shape": list(labels.shape)}, labels)
        norms = self._answer()["norms"]
        assert isinstance(norms, dict)
        return norms

    def _run(self, what: str, images: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        self._ask({"do": what, "shape": list(images.shape)}, images)
        answer = self._answer()
        result = {}
        for name, shape in answer["blobs"].items():
            data = self._frame(worker.MAX_ARRAY_BYTES)
            result[name] = np.frombuffer(data, "<f4").reshape(shape)
        return result

    def save(self, path: Path) -> None:
        """Writes the weights as they are now."""
        with atomic_file(path) as aside:
            self._ask({"do": "save", "path": str(aside)})
            self._answer()

    def close(self) -> None:
        """Ends the process."""
        child, self._child = self._child, None
        if child is not None:
            assert child.stdin is not None
            assert child.stdout is not None
            with suppress(OSError):
                child.stdin.close()
            try:
                child.wait(0 if sys.exc_info()[0] else _END_S)
            except subprocess.TimeoutExpired:
                kill_group(child)
                child.wait()
            child.stdout.close()
        self._words.close()

    def _ask(self, words: dict[str, Any], array: NDArray[np.float32] | None = None) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        parts: list[bytes | memoryview] = [json.dumps(words).encode()]
        parts += [] if array is None else [worker.array_bytes(array)]
        try:
            for data in parts:
                for part in worker.frame(data):
                    self._child.stdin.write(part)
            self._child.stdin.flush()
        except OSError as error:
            raise self._died() from error

    def _answer(self) -> dict[str, Any]:
        answer = json.loads(self._frame(worker.MAX_WORDS_BYTES))
        if "error" in answer:
            raise CaffeFailedError(answer["error"], answer.get("hint", ""))
        assert isinstance(answer, dict)
        return answer

    def _frame(self, limit_bytes: int) -> bytearray:
        assert self._child is not None
        assert self._child.stdout is not None
        try:
            data = worker.read_frame(self._child.stdout.read, limit_bytes)
        except ValueError as error:
            raise self._died() from error
        if data is None:
            raise self._died()
        return data

    def _died(self) -> CaffeFailedError:
        """The error for a process that has ended, with its last words."""
        assert self._child is not None
        with suppress(subprocess.TimeoutExpired):  # its own status, not that of the kill
            self._child.wait(_END_S)
        kill_group(self._child)
        status = self._child.wait()
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - _SHOWN_BYTES))
        text = self._words.read().decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        fatal = [match[1] for line in lines if (match := _FATAL.match(line))]
        why = (fatal or lines or ["it said nothing"])[-1]
        return CaffeFailedError(
            f"the process that runs the net has ended (exit status {status}): {why[:500]}",
            _hint(why, status),
        )


def _hint(why: str, status: int) -> str:
    if "CPU-only" in why:
        return f"{CAFFE_FOR_GPUS}; --gpus none uses the CPU"
    if "No module named" in why and "caffe" in why:
        return "this Caffe has no pycaffe: build it with pycaffe, or run irv2caffe install-caffe"
    if status == -9 or "out of memory" in why:
        return "too little memory: use a smaller batch"
    return ""
