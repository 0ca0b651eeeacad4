"""What this machine is: folders, cores, free disk, versions."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path


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


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    names = ("irv2caffe", "numpy", "opencv-python-headless", "lmdb", "protobuf", "matplotlib")
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
