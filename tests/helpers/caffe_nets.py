"""Forward and backward passes of nets in the real Caffe, all in one pycaffe process."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Arrays = Mapping[str, np.ndarray]

SERVER = """
import caffe, json, sys
import numpy as np

def run(work):
    given = np.load(work['given'])
    def put(kind, find, field):
        for key in given.files:
            what, name = key.split(':', 1)
            if what == kind:
                blob = find(name)
                if tuple(blob.data.shape) != given[key].shape:
                    blob.reshape(*given[key].shape)
                getattr(blob, field)[...] = given[key]
    def weight(name):
        layer, index = name.rsplit(':', 1)
        return net.params[layer][int(index)]
    caffe.set_random_seed(work['seed'])
    net = caffe.Net(work['net'], getattr(caffe, work['phase']))
    for path in work['load']:
        net.copy_from(path)
    put('input', net.blobs.get, 'data')
    put('weight', weight, 'data')
    for _ in range(work['passes']):
        net.forward()
    found = {}
    for name, blob in net.blobs.items():
        found['blob:' + name] = blob.data.copy()
    for name, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            found['param:%s:%d' % (name, index)] = blob.data.copy()
    if work['backward']:
        put('top', net.blobs.get, 'diff')
        for blobs in net.params.values():
            for blob in blobs:
                blob.diff[...] = 0
        net._backward(len(net.layers) - 1, 0)
        for name, blob in net.blobs.items():
            found['diff:' + name] = blob.diff.copy()
        for name, blobs in net.params.items():
            for index, blob in enumerate(blobs):
                found['param_diff:%s:%d' % (name, index)] = blob.diff.copy()
    for path in work['save']:
        (net.save_hdf5 if path.endswith('.h5') else net.save)(path)
    np.savez(work['found'], **found)

for line in sys.stdin:
    run(json.loads(line))
    print('done', flush=True)
"""


class CaffeAbortedError(Exception):
    """Caffe refused a net, or stopped in a pass; holds its words."""


@dataclass(frozen=True)
class CaffeRun:
    """What a net held after its passes; all float32.

    Attributes:
        blobs: of the last forward pass, by name, those of Caffe's Split layers included.
        params: the weights of each layer after the passes.
        diffs: gradients of all blobs after the backward pass; empty without one. The gradient of
            a blob that several layers read is under its own name.
        param_diffs: gradients of the weights of each layer.
    """

    blobs: dict[str, np.ndarray]
    params: dict[str, list[np.ndarray]]
    diffs: dict[str, np.ndarray]
    param_diffs: dict[str, list[np.ndarray]]


class CaffeNets:
    """A pycaffe process that runs nets; the fixture ``caffe_nets``."""

    def __init__(self, caffe) -> None:
        self._caffe = caffe
        self._folder = tempfile.TemporaryDirectory()
        self._start()

    def _start(self) -> None:
        from irv2caffe.caffe.command import tool_command

        command = tool_command(self._caffe, "python", ["-c", SERVER])
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        self._child = subprocess.Popen(
            command.argv,
            env={**command.env, "GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
        )

    def run(
        self,
        text: str,
        phase: str = "TRAIN",
        *,
        inputs: Arrays | None = None,
        weights: Mapping[str, Sequence[np.ndarray]] | None = None,
        top_diffs: Arrays | None = None,
        backward: bool = True,
        passes: int = 1,
        seed: int = 1,
        load: Sequence[Path] = (),
        save: Sequence[Path] = (),
    ) -> CaffeRun:
        """Runs forward passes and one backward pass of a net.

        Args:
            text: the prototxt. With ``force_backward: true`` every layer propagates, with or
                without a loss; without it only those that Caffe's own rules choose.
            phase: ``TRAIN`` or ``TEST``.
            inputs: values of blobs, by name; a blob of another shape is reshaped.
            weights: values of the blobs of layers, by layer name.
            top_diffs: gradients of blobs, by name; those of losses are their loss weights.
            backward: run the backward pass.
            passes: number of forward passes, all with the same inputs.
            seed: of Caffe's random numbers.
            load: models whose weights are copied first.
            save: models to be written in the end; those that end in ``.h5`` as HDF5.

        Raises:
            CaffeAbortedError: Caffe or pycaffe stopped; the process is started again.
        """
        folder = Path(self._folder.name)
        given = {f"input:{name}": value for name, value in (inputs or {}).items()}
        given |= {f"top:{name}": value for name, value in (top_diffs or {}).items()}
        for layer, blobs in (weights or {}).items():
            given |= {f"weight:{layer}:{index}": blob for index, blob in enumerate(blobs)}
        np.savez(folder / "given.npz", allow_pickle=False, **given)
        (folder / "net.prototxt").write_text(text)
        work = {
            "net": str(folder / "net.prototxt"),
            "given": str(folder / "given.npz"),
            "found": str(folder / "found.npz"),
            "phase": phase,
            "backward": backward,
            "passes": passes,
            "seed": seed,
            "load": [str(path) for path in load],
            "save": [str(path) for path in save],
        }
        self._ask(work)
        return _read(folder / "found.npz")

    def _ask(self, work: dict[str, object]) -> None:
        self._words.seek(0)
        self._words.truncate()
        self._child.stdin.write(json.dumps(work) + "\n")
        self._child.stdin.flush()
        if not self._child.stdout.readline():
            self._child.wait(30)
            self._words.seek(0)
            words = self._words.read().decode("utf-8", "replace")
            self._start()
            lines = [line for line in words.splitlines() if line.startswith("F") or "rror" in line]
            raise CaffeAbortedError("\n".join(lines) or words[-2000:])

    def close(self) -> None:
        """Ends the process."""
        self._child.stdin.close()
        self._child.wait(30)
        self._folder.cleanup()


def _read(path: Path) -> CaffeRun:
    """The arrays of a pass; their keys are ``blob:NAME`` or ``param:LAYER:INDEX``."""
    run = CaffeRun({}, {}, {}, {})
    single = {"blob": run.blobs, "diff": run.diffs}
    several = {"param": run.params, "param_diff": run.param_diffs}
    with np.load(path) as found:
        for key in found.files:
            kind, name = key.split(":", 1)
            if kind in single:
                single[kind][name] = found[key]
            else:
                several[kind].setdefault(name.rsplit(":", 1)[0], []).append(found[key])
    return run
