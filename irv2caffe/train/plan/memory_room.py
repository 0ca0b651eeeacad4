"""Memory available to a new process: of the machine, its control group and ``ulimit -v``."""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from irv2caffe import system

_GROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
_NO_LIMIT = 1 << 60  # cgroup v1 has a huge number instead of "max"


@dataclass(frozen=True)
class MemoryRoom:
    """Memory available to a new process.

    Attributes:
        num_bytes: the available bytes.
        where: the limiting part: ``this machine``, ``this container or job`` or ``this shell``.
        how: the kind of limit, which follows the number of bytes in messages.
    """

    num_bytes: int
    where: str
    how: str


def memory_room() -> MemoryRoom:
    """The smallest of the machine's memory, the control group's limit and ``ulimit -v``."""
    rooms = [MemoryRoom(_available_bytes(), "this machine", "of memory available")]
    group = cgroup_room()
    if group is not None:
        rooms.append(MemoryRoom(group, "this container or job", "left of its memory limit"))
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        rooms.append(MemoryRoom(limit, "this shell", "of address space allowed (ulimit -v)"))
    return min(rooms, key=lambda room: room.num_bytes)


def _available_bytes() -> int:
    """Memory that the kernel can give without swapping, including file caches."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return system.total_memory_bytes()


def cgroup_room(root: Path = Path("/sys/fs/cgroup"), groups: str | None = None) -> int | None:
    """Memory left by the limits of this process's control group and its parents.

    Args:
        root: mount point of the control groups.
        groups: text in the format of ``/proc/self/cgroup``, which is read by default.

    Returns:
        Bytes, or None without a limit.
    """
    with suppress(OSError):
        groups = Path("/proc/self/cgroup").read_text("utf-8") if groups is None else groups
    left = []
    for line in (groups or "").splitlines():
        _, controllers, name = [*line.split(":", 2), "", ""][:3]
        if controllers not in {"", "memory"}:
            continue
        # A container sees its own group as the root, whatever its name is outside.
        top, names = (root / controllers, _GROUP_FILES[controllers])
        for place in (top / name.lstrip("/"), *(top / name.lstrip("/")).parents):
            if place.is_relative_to(top):
                left += _left_in(place, *names)
    return min(left, default=None)


def _left_in(group: Path, limit: str, used: str, cache: str) -> list[int]:
    """Memory left in one group, as a list; empty without a limit."""
    with suppress(OSError, ValueError):
        allowed = int((group / limit).read_text(encoding="ascii"))
        if allowed < _NO_LIMIT:
            fields = dict(line.split() for line in (group / "memory.stat").open(encoding="ascii"))
            taken = int((group / used).read_text(encoding="ascii")) - int(fields.get(cache, 0))
            return [max(0, allowed - taken)]
    return []
