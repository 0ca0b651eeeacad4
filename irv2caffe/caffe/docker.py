"""A Caffe in a docker image: what the container sees, and how it is got rid of."""

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
# Shells say 128 + n for a process that signal n ended; docker does so too.
_SIGNALLED = 128
DOCKER_FAILED = 125
_NAME = re.compile(r"[a-zA-Z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Container:
    """What a container may see and use.

    Attributes:
        name: that it gets, or empty.
        writable: folders, by their paths outside, which they have inside too.
        readable: the same, read-only.
        gpus: ``all``, device numbers ``0,1``, or empty for none.
        env: variables.
        workdir: its working folder, or None.
    """

    name: str = ""
    writable: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    gpus: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: Path | None = None


def container_name(run_name: str, *more: object) -> str:
    """A name that docker takes, from one that may hold anything."""
    plain = re.sub(r"[^a-zA-Z0-9_.-]", "-", run_name)
    return "-".join(["irv2caffe", plain, *map(str, more)])


def docker_argv(image: str, command: Sequence[str], container: Container) -> tuple[str, ...]:
    """The arguments of ``docker run``.

    Files belong to the caller, not to root; NCCL wants more shared memory and locked memory than
    a container has by default; signals to the client reach Caffe (docker's --sig-proxy).
    """
    argv = ["docker", "run", "--rm", "--sig-proxy=true", "--user", f"{os.getuid()}:{os.getgid()}"]
    if container.name:
        argv += ["--name", container.name]
    if container.gpus:
        # docker reads the value as CSV, in which a comma has to be quoted.
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
    """A field of --mount's CSV, whatever the path holds."""
    text = f"{name}={path}"
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"') else text


def kill_container(name: str) -> None:
    """Ends a container at once; the client alone could not, since SIGKILL is not passed on."""
    _quietly("docker", "kill", "--signal", "KILL", name)


def remove_container(name: str) -> None:
    """Removes what is left of a container, if anything is."""
    _quietly("docker", "rm", "--force", name)


def container_command(name: str) -> list[str]:
    """What a container runs, as docker says it; empty where there is none of that name."""
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
    """What a process in the container ended with, as subprocess would say it."""
    return _SIGNALLED - docker_status if _SIGNALLED < docker_status < 192 else docker_status
