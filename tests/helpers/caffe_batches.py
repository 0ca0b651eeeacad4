"""What the real Caffe's data layers deliver: run by pycaffe's interpreter, for many nets at once.

Arguments: a JSON file with ``{"path", "phase", "count"}`` for each name, and ``rank`` and ``world``
where there are several solvers; an npz file for the batches: ``NAME.TOP`` holds ``count`` of them.
A net on which Caffe aborts leaves ``NAME.error``.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import caffe
import numpy as np


def batches(path, phase, count, rank=0, world=1):
    caffe.set_random_seed(1)
    caffe.set_solver_count(world)
    caffe.set_solver_rank(rank)
    if world > 1:
        caffe.set_multiprocess(True)
    net = caffe.Net(path, getattr(caffe, phase))
    found = {}
    for _ in range(count):
        net.forward()
        for name, blob in net.blobs.items():
            found.setdefault(name, []).append(blob.data.copy())
    return found


def in_child(folder, name, case):
    """Forks, so that an abort of Caffe costs one net only."""
    out, err = Path(folder, name + ".npz"), Path(folder, name + ".log")
    child = os.fork()
    if child == 0:
        os.dup2(os.open(err, os.O_CREAT | os.O_WRONLY), 2)
        try:
            np.savez(out, **{top: np.array(all_) for top, all_ in batches(**case).items()})
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    if not out.exists():
        lines = [line for line in err.read_text().splitlines() if line.startswith("F")]
        return {name + ".error": np.array(lines[0] if lines else err.read_text()[-300:])}
    with np.load(out) as saved:
        return {f"{name}.{top}": saved[top] for top in saved.files}


def main():
    work = json.loads(Path(sys.argv[1]).read_text())
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, case in work.items():
            found.update(in_child(folder, name, case))
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
