"""What the real Caffe makes of nets: run by pycaffe's interpreter, one child process for each net.

Arguments: a JSON file of ``[name, prototxt, phase]``, and a JSON file for what was found. A net on
which Caffe aborts gives its last words.
"""

import json
import os
import sys
import tempfile

import caffe


def describe(path, phase):
    net = caffe.Net(path, phase)
    return {
        "blobs": {name: list(blob.data.shape) for name, blob in net.blobs.items()},
        "params": {name: [list(b.shape) for b in blobs] for name, blobs in net.params.items()},
        "layers": [[n, layer.type] for n, layer in zip(net._layer_names, net.layers)],
    }


def memory_of(log):
    """The last "Memory required for data" of the log, in bytes."""
    said = [line for line in log.splitlines() if "Memory required for data:" in line]
    return int(said[-1].rsplit(":", 1)[1]) if said else None


def fatal_of(log):
    lines = [line for line in log.splitlines() if line.startswith("F") or "Error" in line]
    return lines[0] if lines else log[-300:]


def in_child(path, phase):
    """Forks, so that an abort of Caffe costs one net only."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = os.path.join(folder, "out"), os.path.join(folder, "err")
        child = os.fork()
        if child == 0:
            os.dup2(os.open(err, os.O_CREAT | os.O_WRONLY), 2)
            code = 1
            try:
                found = describe(path, phase)
                with open(out, "w") as stream:
                    json.dump(found, stream)
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        with open(err) as stream:
            log = stream.read()
        if status:
            return {"error": fatal_of(log), "status": status}
        with open(out) as stream:
            return {**json.load(stream), "memory": memory_of(log)}


def main():
    with open(sys.argv[1]) as stream:
        nets = json.load(stream)
    found = [in_child(path, getattr(caffe, phase)) for _, path, phase in nets]
    with open(sys.argv[2], "w") as stream:
        json.dump({name: item for (name, _, _), item in zip(nets, found)}, stream)


if __name__ == "__main__":
    main()
