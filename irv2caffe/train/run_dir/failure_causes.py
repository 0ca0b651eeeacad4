"""Maps Caffe's last messages and exit statuses to causes, hints, and whether to retry."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, replace

from irv2caffe.config.gpus import CAFFE_FOR_GPUS, TORCH_FOR_GPUS

LOG = "the whole log is in train.log of the run folder"
RESUME_COMMAND = "irv2caffe train --resume"
RESUME = f"{RESUME_COMMAND} continues from the newest snapshot"


@dataclass(frozen=True)
class FailureCause:
    """The cause of a failure.

    Attributes:
        why: the cause, as a sentence.
        hint: what to do.
        retryable: the same command may succeed when it is tried again.
    """

    why: str
    hint: str
    retryable: bool = False


_BUILD = "build the net again with irv2caffe build-net; irv2caffe check shows its mistakes"
_DATA = "check the database with irv2caffe inspect-lmdb; rebuild it with irv2caffe make-lmdb"
_FIND = (
    "irv2caffe inspect-lmdb DATABASE --all lists these records; irv2caffe make-lmdb rebuilds it "
    "without them"
)
NO_LOCKS = (
    "Caffe locks the databases it reads: copy them to another disk, such as a local one, or mount "
    "Lustre with -o flock"
)
LOCK_FILE = (
    "Caffe writes lock.mdb beside data.mdb: give yourself write permission, or copy the database"
)
_DRIVER = "look at the GPU with nvidia-smi; a driver that hangs needs a reboot"
_MEMORY = (
    "use a smaller --batch-size with a larger --iter-size, and a smaller --test-batch-size: the "
    "first GPU, or the CPU, also runs the tests"
)
_SAVED = "resume with irv2caffe train --resume, which takes the newest complete pair of files"

_NO_MEMORY = (
    "out of memory|bad_alloc|host allocation of size|CUDNN_STATUS_ALLOC_FAILED"
    "|can't allocate memory|not enough memory"
)

# Pattern of messages (of Caffe 1.0, with CUDA's codes before and after 10.1, and of the torch
# engine), cause, hint, and True if a retry may succeed. The first match counts.
_KNOWN: tuple[tuple[re.Pattern[str], FailureCause], ...] = tuple(
    (re.compile(pattern), FailureCause(*cause))
    for pattern, *cause in (
        (r"libprotobuf ERROR.*has no field named \"([^\"]*)\"",
         "this Caffe does not know the field {0}", "the field belongs to another version of Caffe"),
        (r"LMDBCursor::value.*terminate called", "a database is empty", _DATA),
        (_NO_MEMORY, "not enough memory", _MEMORY),
        # the torch engine
        (r"CUDA error: no kernel image|not compatible with the current PyTorch",
         "this PyTorch was not built for this kind of GPU", TORCH_FOR_GPUS),
        (r"NVIDIA driver on your system is too old",
         "the NVIDIA driver is too old for this PyTorch's CUDA", TORCH_FOR_GPUS),
        (r"NCCL error|ncclUnhandled|ncclInternal|ncclRemoteError|ncclSystemError",
         "the GPUs could not communicate with each other",
         "set NCCL_DEBUG=INFO to see why, or train on one GPU with --gpus 0", True),
        (r"CUDA error|cuDNN error", "a GPU failed while it computed", _DRIVER, True),
        (r"^(.*\S) \(hint: (.*)\)$", "{0}", "{1}"),
        # GPUs in Caffe
        (r"CPU-only Caffe", "this Caffe was built without GPU support",
         f"{CAFFE_FOR_GPUS}; --gpus none trains on the CPU"),
        (r"rebuild with USE_NCCL", "this Caffe was built without NCCL and trains on one GPU only",
         "train on one GPU with --gpus 0, or: irv2caffe install-caffe --cuda, which has NCCL"),
        (r"cudaSuccess \((10|101) vs", "there is no GPU of that number",
         "nvidia-smi lists the GPUs; --gpus takes their numbers"),
        (r"cudaSuccess \((38|100) vs", "CUDA sees no GPU",
         "nvidia-smi lists the GPUs; is CUDA_VISIBLE_DEVICES empty?"),
        (r"cudaSuccess \(35 vs", "the NVIDIA driver is missing, or too old for this Caffe's CUDA",
         "irv2caffe caffe --which, or nvidia-smi, shows the driver's version"),
        (r"cudaSuccess \((803|804) vs", "the parts of the NVIDIA driver are of different versions",
         "restart the machine after an update of the driver"),
        (r"cudaSuccess \((8|98|48|209|222) vs|no kernel image",
         "this Caffe was not built for this kind of GPU",
         "irv2caffe install-caffe --cuda --force builds one for it"),
        (r"cudaSuccess \((77|700|4|719|6|702) vs", "a GPU failed while it computed", _DRIVER, True),
        (r"error == cudaSuccess", "CUDA failed", _DRIVER, True),
        (r"CUDNN_STATUS_SUCCESS", "cuDNN failed", _DRIVER, True),
        (r"CUBLAS_STATUS_SUCCESS|CURAND_STATUS_SUCCESS", "a CUDA library failed", _DRIVER, True),
        (r"ncclSuccess", "the GPUs could not communicate with each other",
         "set NCCL_DEBUG=INFO to see why, or train on one GPU with --gpus 0", True),
        (r"shared weights", "the net shares weights, which layer_wise_reduce cannot do",
         "write layer_wise_reduce: false into the solver"),
        (r"bad_lexical_cast", "Caffe could not read the numbers of the GPUs",
         "--gpus takes numbers such as 0,1"),
        # snapshots and files
        (r"SerializeToOstream|No space left", "a snapshot could not be written",
         "check that the disk is not full, then: " + RESUME),
        (r"Cannot write to snapshot prefix", "the folder of the snapshots cannot be written",
         "name a run folder that you may write with --run-dir"),
        (r"snapshot is specified but snapshot_prefix", "the solver has no snapshot_prefix",
         "write snapshot_prefix into it"),
        (r"Incorrect length of history blobs",
         "the solver state is of another solver type or net, or it is a .caffemodel", _SAVED),
        (r"Failed to parse NetParameter file: \S+\.caffemodel", "a .caffemodel is torn", _SAVED),
        (r"Failed to parse SolverState", "a .solverstate is torn", _SAVED),
        (r"Failed to parse NetParameter file", "the net is no prototxt that this Caffe can read",
         _BUILD),
        (r"Failed to parse SolverParameter file",
         "the solver is no prototxt that this Caffe can read", _BUILD),
        (r"File not found: (\S+)", "a file is missing: {0}",
         "if it was moved, correct its path in the prototxts of the run folder"),
        # databases
        (r"Could not decode datum", "a database holds an image that cannot be decoded",
         _FIND),
        (r"Failed to open leveldb", "a database is read as LevelDB, the default, but is not one",
         "write backend: LMDB into the data layer"),
        (r"mdb_status == 0 \(2 vs", "a database is missing",
         "name another one with --train-lmdb and --val-lmdb"),
        (r"mdb_status == 0 \(13 vs", "no permission to read a database",
         LOCK_FILE),
        (r"mdb_status == 0 \((37|38|95) vs", "the file system of a database has no locks",
         NO_LOCKS),
        (r"mdb_status == 0 \(12 vs", "there is no memory to map a database",
         "ulimit -v and vm.overcommit_memory limit it"),
        (r"mdb_status == 0 \(5 vs", "the disk failed while a database was read", _DATA, True),
        (r"mdb_status == 0", "a database is damaged or cannot be read", _DATA),
        (r"datum_channels > 0 \(0 vs", "a database is empty", _DATA),
        (r"datum_height >= crop_size|datum_width >= crop_size",
         "the crop is larger than the images of a database",
         "enlarge them with make-lmdb --resize, or use a smaller build-net --crop"),
        (r"channels == img_channels|Check failed: channels == datum_channels",
         "a database mixes gray and colour images", _DATA),
        (r"data_mean_\.|mean_file|mean_channels", "the mean image has another size than the images",
         "compute it from the training database, or use --mean-value"),
        # nets
        (r"All inputs must have the same shape|top_shape\[j\] == bottom\[i\]->shape",
         "the branches of a block have different shapes because of the crop",
         "build the net with build-net --crop, which only accepts sizes that fit"),
        (r"bottom\[0\]->shape|bottom\[i\]->shape", "layers of the net do not fit together",
         _BUILD),
        (r"Unknown layer type: (\S+)", "this Caffe has no layer of type {0}", _BUILD),
        (r"Unknown bottom blob '([^']*)'", "a layer reads {0}, which no layer writes", _BUILD),
        (r"Top blob '([^']*)' produced by multiple", "two layers write {0}", _BUILD),
        (r"shape mismatch|Incompatible number of blobs",
         "weights of the model do not fit a layer of the same name",
         "rename the layer to train it from scratch, or use the net of the model"),
        (r"Cannot configure batch normalization statistics",
         "a BatchNorm layer has a learning rate", "set lr_mult: 0 in its three params"),
        (r"one coefficient per bottom", "an Eltwise layer needs one coeff per bottom",
         _BUILD),
        (r"Momentum cannot be used with RMSProp", "Caffe's RMSProp has no momentum",
         "remove momentum from the solver, or use --solver-type SGD"),
        (r"test_iter must be specified|test_iter_size\(\)",
         "the solver has more or fewer test_iter values than test nets",
         "write one test_iter for each test net"),
        (r"must specify a train net", "the solver names no net", "write net: into it"),
        # starting Caffe
        (r"docker: .*[Uu]nable to find image|pull access denied|manifest unknown",
         "docker has no such image", "download it with docker pull IMAGE"),
        (r"could not select device driver", "docker cannot give GPUs to a container",
         "install the NVIDIA Container Toolkit"),
        (r"docker: ", "docker could not start the container", LOG),
        (r"error while loading shared libraries: ([^:]*)", "this Caffe lacks the library {0}",
         "irv2caffe caffe --which shows which Caffe is used"),
    )
)  # fmt: skip


def cause_of(message: str) -> FailureCause | None:
    """The cause of Caffe's last messages; None if unknown."""
    for pattern, cause in _KNOWN:
        match = pattern.search(message)
        if match is not None:
            words = match.groups()
            return replace(cause, why=cause.why.format(*words), hint=cause.hint.format(*words))
    return None


def cause_of_exit(exit_status: int, trainer: str = "Caffe") -> FailureCause:
    """The cause of an exit status without a message, of a program that is called ``trainer``."""
    if exit_status < 0:
        try:
            name = signal.Signals(-exit_status).name
        except ValueError:
            name = f"signal {-exit_status}"
        hints = {
            "SIGKILL": "probably out of memory: journalctl -k, or dmesg, lists killed processes; "
            f"{_MEMORY}",
            "SIGXFSZ": "a file grew beyond ulimit -f",
            "SIGTERM": f"{trainer} itself was ended; irv2caffe train --stop RUN first writes a "
            "snapshot",
        }
        return FailureCause(f"{trainer} was ended by {name}", hints.get(name, LOG), retryable=True)
    return FailureCause(f"{trainer} ended with {exit_status} before the training was done", LOG)
