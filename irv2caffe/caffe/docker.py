"""Command lines of docker for running Caffe in a container, and for removing it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_TIMEOUT_S = 60
# docker exits with 128 + n, like a shell, if signal n ended the process.
_SIGNALLED = 128
DOCKER_FAILED = 125
_NAME = re.compile(r"[a-zA-Z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Container:
    """What a container may access.

    Attributes:
        name: its name, or empty.
        writable: folders to mount under the same path.
        readable: folders to mount read-only.
        gpus: ``all``, GPU numbers ``0,1``, or empty for none.
        env: environment variables.
        workdir: working folder, or None.
    """

    name: str = ""
    writable: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    gpus: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: Path | None = None


def container_name(run_name: str, *more: object) -> str:
    """Returns a valid container name for a run folder's name."""
    plain = re.sub(r"[^a-zA-Z0-9_.-]", "-", run_name)
    return "-".join(["irv2caffe", plain, *map(str, more)])


def docker_argv(image: str, command: Sequence[str], container: Container) -> tuple[str, ...]:
    """Returns the arguments of ``docker run``.

    Caffe runs as the calling user, not as root, and receives the client's signals. With GPUs the
    container gets more shared memory and locked memory, which NCCL needs.
    """
    argv = ["docker", "run", "--rm", "--sig-proxy=true", "--user", f"{os.getuid()}:{os.getgid()}"]
    if container.name:
        argv += ["--name", container.name]
    if container.gpus:
        # docker reads the value as CSV, so the comma must be quoted.
        wanted = container.gpus
        argv += ["--gpus", wanted if wanted == "all" else f'"device={wanted}"']
        argv += ["--shm-size", "1g", "--ulimit", "memlock=-1"]
    for folders, options in ((container.writable, ""), (container.readable, ",readonly")):
        for folder in folders:
            argv += ["--mount", f"type=bind,{_csv('source', folder)},{_csv('target', folder)}"]
            argv[-1] += options
    for name, value in {"HOME": "/tmp", **container.env}.items():  # noqa: S108
        argv += ["--env", f"{name}={value}"]
    if container.workdir is not None:
        argv += ["--workdir", str(container.workdir)]
    return (*argv, image, *command)


def _csv(name: str, path: Path) -> str:
    """Returns a field of --mount's CSV value, quoted if needed."""
    text = f"{name}={path}"
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"') else text


def kill_container(name: str) -> None:
    """Kills a container; killing the docker client would not, as SIGKILL is not forwarded."""
    _quietly("docker", "kill", "--signal", "KILL", name)


def remove_container(name: str) -> None:
    """Removes a container, if it exists."""
    _quietly("docker", "rm", "--force", name)


def container_command(name: str) -> list[str]:
    """Returns the command that a container runs; empty if there is no such container."""
    if not _NAME.fullmatch(name):
        return []
    argv = ("docker", "container", "inspect", "--format", "{{json .Config.Cmd}}", name)
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
        command = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
    return [str(part) for part in command] if isinstance(command, list) else []


def _quietly(*argv: str) -> None:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            check=False,
        )


def own_exit_status(docker_status: int) -> int:
    """Converts docker's exit status to the one of the process, negative for a signal."""
    return _SIGNALLED - docker_status if _SIGNALLED < docker_status < 192 else docker_status
