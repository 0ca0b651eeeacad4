"""Compares the file tree in docs/architecture.md with the files that are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def listed(readme: str) -> set[str]:
    """Paths of the first fenced block after the heading ``## File tree``."""
    section = readme.split("## File tree", 1)[1]
    block = section.split("```", 2)[1].split("\n", 1)[1]
    folders: list[str] = []
    paths: set[str] = set()
    for line in block.splitlines():
        match = re.match(r"( *)(\S+)", line)
        if match is None:
            continue
        depth = len(match.group(1)) // 2
        name = match.group(2)
        folders[depth:] = [name.rstrip("/")]
        path = "/".join(folders)
        if not name.endswith("/"):
            paths.add(path)
    return paths


def present() -> set[str]:
    """Files that git knows or would take, tests and golden files folded into their folder."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in output.splitlines() if (ROOT / name).is_file()}


def main() -> int:
    """Prints the differences; 1 if there are any."""
    here = {name for name in present() if not name.startswith(("tests/", "templates/"))}
    said = listed((ROOT / "docs/architecture.md").read_text(encoding="utf-8"))
    said = {name for name in said if not name.startswith(("tests/", "templates/"))}
    for name in sorted(here - said):
        print(f"not in the tree of docs/architecture.md: {name}")
    for name in sorted(said - here):
        print(f"only in the tree of docs/architecture.md: {name}")
    return int(here != said)


if __name__ == "__main__":
    sys.exit(main())
