"""Stands in for docker, which runs nowhere here: ``run``, ``kill``, ``rm``, ``container inspect``.

A container is a process in a session of its own, as with docker: killing the client does not kill
it. What was asked for is written into the folder DOCKER_STATE. The image's programs are those of
the command in DOCKER_CAFFE.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

WITH_VALUE = {
    "--user", "--name", "--gpus", "--shm-size", "--ulimit", "--mount", "--env", "--workdir",
}  # fmt: skip
STATE = Path(os.environ["DOCKER_STATE"])


def note(what: dict) -> None:
    with (STATE / "asked.jsonl").open("a") as stream:
        stream.write(json.dumps(what) + "\n")


def run(args: list[str]) -> int:
    options: dict[str, list[str]] = {}
    while args[0].startswith("-"):
        name = args.pop(0)
        name, equals, value = name.partition("=")
        if not equals:
            value = args.pop(0) if name in WITH_VALUE else ""
        options.setdefault(name, []).append(value)
    image, program, *args = args
    note({"run": options, "image": image, "args": [program, *args]})
    if image == "missing":
        print("docker: Error response from daemon: pull access denied for missing.",
              file=sys.stderr)  # fmt: skip
        return 125
    assert program == "caffe"
    passed = ("PATH", "PYTHONPATH", "XDG_DATA_HOME", "STAND_IN", "STAND_IN_VERSION")
    env = {name: os.environ[name] for name in passed if name in os.environ}
    env |= dict(one.split("=", 1) for one in options.get("--env", []))
    env["HOME"] = os.environ["HOME"]  # the runtime lies there; a container has its own
    child = subprocess.Popen(
        [*shlex.split(os.environ["DOCKER_CAFFE"]), *args], env=env, start_new_session=True
    )
    (STATE / options.get("--name", ["unnamed"])[0]).write_text(str(child.pid))
    command = json.dumps([program, *args])
    (STATE / f".{options.get('--name', ['unnamed'])[0]}.command").write_text(command)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # --sig-proxy
        signal.signal(number, lambda number, _: child.send_signal(number))
    status = child.wait()
    if "--rm" in options:
        (STATE / options.get("--name", ["unnamed"])[0]).unlink(missing_ok=True)
    return 128 - status if status < 0 else status


def end(name: str) -> int:
    try:
        os.killpg(int((STATE / name).read_text()), signal.SIGKILL)
    except (OSError, ValueError):
        return 1
    return 0


def main() -> int:
    what, *args = sys.argv[1:]
    if what == "run":
        return run(args)
    note({what: args})
    if what == "container":  # inspect
        command = STATE / f".{args[-1]}.command"
        print(command.read_text() if command.exists() else "")
        return 0 if command.exists() else 1
    status = end(args[-1])
    if what == "rm":
        (STATE / args[-1]).unlink(missing_ok=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
