"""What the real Caffe makes of nets: run by pycaffe's interpreter, one child process for each net.

Arguments: a JSON file with ``{"path", "phase", "level", "stages", "run"}`` for each name, and a
JSON file for what was found. A net on which Caffe aborts gives its last words.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import caffe


def describe(path, phase, level, stages, run):
    net = caffe.Net(path, getattr(caffe, phase), level=level, stages=stages or None)
    if run:
        net.forward()
    if run == "backward":
        net.backward()
    return {
        "peak": peak_bytes(),
        "blobs": {name: list(blob.shape) for name, blob in net.blobs.items()},
        "params": {name: [list(b.shape) for b in blobs] for name, blobs in net.params.items()},
        "layers": [[n, net.layers[i].type] for i, n in enumerate(net._layer_names)],
    }


def peak_bytes():
    """The most memory this process has had."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def memory_of(log):
    """The last "Memory required for data" of the log, in bytes."""
    said = [line for line in log.splitlines() if "Memory required for data:" in line]
    return int(said[-1].rsplit(":", 1)[1]) if said else None


def fatal_of(log):
    lines = [line for line in log.splitlines() if line.startswith("F") or "Error" in line]
    return lines[0] if lines else log[-300:]


def in_child(path, phase, level=0, stages=(), run=""):
    """Forks, so that an abort of Caffe costs one net only."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        child = os.fork()
        if child == 0:
            os.dup2(os.open(err, os.O_CREAT | os.O_WRONLY), 2)
            code = 1
            try:
                found = describe(path, phase, level, list(stages), run)
                out.write_text(json.dumps(found))
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        log = err.read_text()
        if status:
            return {"error": fatal_of(log), "status": status}
        return dict(json.loads(out.read_text()), memory=memory_of(log))


def write_hdf5(path, shapes):
    """A file for HDF5Data layers."""
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        for name, shape in shapes.items():
            file[name] = np.zeros(shape, "f4")


def main():
    work = json.loads(Path(sys.argv[1]).read_text())
    for path, shapes in work["hdf5"].items():
        write_hdf5(path, shapes)
    found = {name: in_child(**case) for name, case in work["nets"].items()}
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
