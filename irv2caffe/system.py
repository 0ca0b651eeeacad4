"""The operating system: safe opening of files, disk space, processes, GPUs and versions."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import signal
import stat
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from io import BufferedReader
    from subprocess import Popen

_NVIDIA_SMI_S = 30.0  # it wakes a sleeping driver first
_MAX_JSON_BYTES = 16 << 20  # Python objects take up to thirty times as much memory
_MAX_DIGITS = 300


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi shows it.

    Attributes:
        index: number of the GPU.
        name: product name.
        uuid: unique identifier.
        total_bytes: size of its memory.
        free_bytes: unused memory.
        num_processes: number of compute processes, or None if unknown.
    """

    index: int
    name: str
    uuid: str
    total_bytes: int
    free_bytes: int
    num_processes: int | None


def num_cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_bytes(path: Path) -> int:
    """Returns the free space, in bytes, of the file system that ``path`` is or would be on."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def open_regular(path: Path) -> BufferedReader:
    """Opens a regular file for reading; devices, FIFOs and sockets could block for ever.

    Raises:
        OSError: not found, not readable, or not a regular file.
    """
    # Checked before opening too, since opening a device can have side effects.
    _require_regular(os.stat(path), path)  # noqa: PTH116 - as os.open
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(handle), path)
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """Returns the bytes of a regular file.

    Raises:
        OSError: as :func:`open_regular`, or the file is longer than ``limit_bytes``.
    """
    with open_regular(path) as stream:
        data = stream.read(limit_bytes + 1)
    if data is None:  # some files in /proc have nothing to read yet
        raise OSError(errno.EAGAIN, "no data available", str(path))
    if len(data) > limit_bytes:
        raise OSError(errno.EFBIG, f"longer than {limit_bytes:,} bytes", str(path))
    return data


def open_for_writing(path: Path, flags: int) -> int:
    """Opens or creates a regular file for writing and returns its file descriptor.

    Symbolic links are not followed: in an untrusted folder they may point to any file.

    Args:
        path: the file.
        flags: flags of ``os.open`` besides ``O_CREAT``.

    Raises:
        OSError: not writable, a symbolic link, or not a regular file.
    """
    safe = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    handle = os.open(path, flags | safe, 0o666)
    try:
        _require_regular(os.fstat(handle), path)
    except OSError:
        os.close(handle)
        raise
    return handle


def read_json_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file; empty if the file is missing or invalid."""
    try:
        text = read_regular(path, _MAX_JSON_BYTES).decode("utf-8")
        values = json.loads(text, parse_int=_whole_number)
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _whole_number(digits: str) -> int:
    """An integer of JSON that fits into a float, so that comparing it with one cannot fail."""
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _require_regular(found: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def kill_group(child: Popen[Any]) -> None:
    """Kills the process group of ``child``, also if the child itself has ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def stat_fields(process: Path) -> list[str]:
    """Returns the fields of a process's or thread's ``/proc`` stat file after the program name.

    The first is the state, field 3 in proc(5); the list is empty if the process is gone.
    """
    try:
        text = (process / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def gpus() -> list[Gpu] | None:
    """Returns the GPUs of this machine, from nvidia-ml-py or nvidia-smi.

    None if both are missing, or the driver.
    """
    try:
        import pynvml
    except ImportError:
        return _gpus_of_nvidia_smi()
    try:
        pynvml.nvmlInit()
        try:
            return [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        processes = len(nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    except nvml.NVMLError:
        processes = None
    return Gpu(
        index,
        _text(nvml.nvmlDeviceGetName(handle)),
        _text(nvml.nvmlDeviceGetUUID(handle)),
        int(memory.total),
        int(memory.free),
        processes,
    )


def _gpus_of_nvidia_smi() -> list[Gpu] | None:
    listed = _nvidia_smi("--query-gpu=index,name,uuid,memory.total,memory.free")
    used = _nvidia_smi("--query-compute-apps=gpu_uuid")
    if listed is None or used is None:
        return None
    found = []
    for row in listed:
        if len(row) == 5 and all(row[place].isdecimal() for place in (0, 3, 4)):
            index, name, uuid, total, free = row
            count = used.count([uuid])
            found.append(Gpu(int(index), name, uuid, int(total) << 20, int(free) << 20, count))
    return found


def _nvidia_smi(query: str) -> list[list[str]] | None:
    """The rows that nvidia-smi prints; None if it is missing, fails or hangs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_NVIDIA_SMI_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return [[word.strip() for word in line.split(",")] for line in lines if line.strip()]


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def visible_gpus() -> list[Gpu] | None:
    """Returns the GPUs as CUDA numbers them, which depends on ``CUDA_VISIBLE_DEVICES``.

    None where :func:`gpus` does not know them.
    """
    there = gpus()
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if there is None or wanted is None:
        return there
    seen = []
    for name in filter(None, (part.strip() for part in wanted.split(","))):
        match = [gpu for gpu in there if str(gpu.index) == name or gpu.uuid.startswith(name)]
        if len(match) != 1:
            break  # CUDA ignores everything after an unknown name
        seen += match
    return seen


def machine() -> dict[str, Any]:
    """Returns the hardware that results and speed depend on."""
    there = gpus()
    return {
        "host": platform.node(),
        "cpu": _cpu_model(),
        "cores": num_cores(),
        "memory_bytes": total_memory_bytes(),
        "gpus": None if there is None else [asdict(gpu) for gpu in there],
    }


def _cpu_model() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def total_memory_bytes() -> int:
    """Returns the size of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that results depend on."""
    from importlib import metadata

    names = ("irv2caffe", "numpy", "opencv-python-headless", "lmdb", "protobuf", "matplotlib")
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
