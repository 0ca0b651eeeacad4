"""Two launchers in network namespaces of their own, joined by a cable: two machines.

Started as ``unshare --map-root-user --net python -m helpers.two_machines TASK FOLDER PORT``.
"""

from __future__ import annotations

import json
import subprocess
import sys

from helpers import ranks

ADDRESSES = ("10.77.0.1", "10.77.0.2")


def ip(*words, prefix=()) -> None:
    """Runs ``ip`` of iproute2."""
    subprocess.run([*prefix, "ip", *words], check=True)


def plug_in(link, address, prefix=()) -> None:
    """Gives one end of the cable an address."""
    ip("link", "set", "lo", "up", prefix=prefix)
    ip("address", "add", f"{address}/24", "dev", link, prefix=prefix)
    ip("link", "set", link, "up", prefix=prefix)


def main(task, folder, port) -> None:
    """Prints the exit status and log of both launchers."""
    # echoes a line once it is in its namespace, which lives as long as this process
    other = subprocess.Popen(
        ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    other.stdin.write("there\n")
    other.stdin.flush()
    other.stdout.readline()
    there = ("nsenter", "--target", str(other.pid), "--net")
    ip("link", "add", "here", "type", "veth", "peer", "name", "there")
    ip("link", "set", "there", "netns", str(other.pid))
    plug_in("here", ADDRESSES[0])
    plug_in("there", ADDRESSES[1], prefix=there)
    options = {"nnodes": 2, "rdzv_endpoint": f"{ADDRESSES[0]}:{port}"}
    launchers = [ranks.start(1, task, folder, prefix=prefix, **options) for prefix in (there, ())]
    logs = [launcher.communicate()[1] for launcher in launchers]
    print(json.dumps([[each.returncode for each in launchers], logs]))
    other.stdin.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
