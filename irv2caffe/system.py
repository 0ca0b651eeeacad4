"""What this machine is: folders, cores, memory, GPUs, free disk, versions."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import signal
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from io import BufferedReader
    from subprocess import Popen

_MAX_JSON_BYTES = 16 << 20  # as Python's objects it takes thirty times as much


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi numbers it.

    Attributes:
        index: its number.
        name: as sold.
        uuid: its own.
        total_bytes: memory.
        free_bytes: memory that nobody uses.
        num_processes: that compute on it, or None where that is not told.
    """

    index: int
    name: str
    uuid: str
    total_bytes: int
    free_bytes: int
    num_processes: int | None


def data_dir() -> Path:
    """The user's data folder of this program (``XDG_DATA_HOME`` is honoured)."""
    import platformdirs

    return Path(platformdirs.user_data_dir("irv2caffe"))


def num_cores() -> int:
    """The cores this process may use (affinity respected)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_bytes(path: Path) -> int:
    """Free space, in bytes, on the file system that holds ``path`` or would hold it."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def open_regular(path: Path) -> BufferedReader:
    """A file for reading that cannot hang or go on for ever: no device, no FIFO, no socket.

    Raises:
        OSError: there is none, it may not be read, or it is no regular file.
    """
    # Asked before too: to open a device can already do something.
    _require_regular(os.stat(path), path)  # noqa: PTH116 - as os.open
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(handle), path)
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a regular file that holds at most so many.

    Raises:
        OSError: as :func:`open_regular`, or the file is longer.
    """
    with open_regular(path) as stream:
        data = stream.read(limit_bytes + 1)
    if data is None:  # some files of /proc wait for what the kernel will say
        raise OSError(errno.EAGAIN, "nothing in it can be read yet", str(path))
    if len(data) > limit_bytes:
        raise OSError(errno.EFBIG, f"longer than {limit_bytes:,} bytes", str(path))
    return data


def open_own(path: Path, flags: int) -> int:
    """A file descriptor for writing, of a regular file that is made where it is not there.

    A link is not followed: in a folder from somebody else it may lead to any file.

    Args:
        path: the file.
        flags: of ``os.open``, besides ``O_CREAT``.

    Raises:
        OSError: it may not be written, is a link, or no regular file.
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
    """The JSON object in a file; empty where there is none, whatever stands there instead."""
    try:
        values = json.loads(read_regular(path, _MAX_JSON_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _require_regular(found: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def kill_group(child: Popen[Any]) -> None:
    """Kills the process group that a child leads, also what is left of it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def stat_fields(process: Path) -> list[str]:
    """What follows the program's name in the ``stat`` file of a process or thread in ``/proc``.

    First its state, then proc(5)'s fields from the fourth on; nothing where it is gone.
    """
    try:
        text = (process / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def folder_bytes(folder: Path) -> int:
    """The size of all files below a folder that others may be changing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
    return total


def gpus() -> list[Gpu] | None:
    """The GPUs of this machine; None where nvidia-ml-py or the driver is missing."""
    try:
        import pynvml
    except ImportError:
        return None
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


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def visible_gpus() -> list[Gpu] | None:
    """The GPUs in the order that CUDA numbers them for a child: ``CUDA_VISIBLE_DEVICES`` counts.

    None where that cannot be told.
    """
    there = gpus()
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if there is None or wanted is None:
        return there
    seen = []
    for name in filter(None, (part.strip() for part in wanted.split(","))):
        match = [gpu for gpu in there if str(gpu.index) == name or gpu.uuid.startswith(name)]
        if len(match) != 1:
            break  # CUDA takes nothing behind a name that it does not know
        seen += match
    return seen


def machine() -> dict[str, Any]:
    """What results and speed depend on, for the record."""
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
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    from importlib import metadata

    names = ("irv2caffe", "numpy", "opencv-python-headless", "lmdb", "protobuf", "matplotlib")
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
