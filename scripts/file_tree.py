"""Compares the file tree in docs/architecture.md with the files that are there.

Usage: file_tree.py [--write]

``--write`` puts the tree right: files that are missing get a line without a comment, files that
are gone lose theirs, and everything is put in the order of the workflow.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/architecture.md"
COMMENT_COLUMN = 35
# Folders of which only one line with a comment stands in the tree.
FOLDED = ("docs/reference/commands/", "docs/reference/rules/", "tests/", "templates/")
# Names in the order of the workflow; others stand before them by the alphabet.
WORKFLOW = (
    "irv2caffe", "templates", "scripts", "examples", "docs", "tests",
    "errors.py", "system.py", "ui.py", "atomic.py",
    "cli", "config", "proto", "caffe", "net", "data", "shapes", "check", "train", "log", "plot",
    "weights",
    "sources", "records", "build", "lmdb_store", "inspect", "run_dir", "plan", "run",
)  # fmt: skip


def block_of(page: str) -> re.Match[str]:
    """The first fenced block after the heading ``## File tree``."""
    match = re.compile(r"```\n(.*?)```", re.DOTALL).search(page, page.index("## File tree"))
    assert match is not None
    return match


def listed(block: str) -> dict[str, str]:
    """Paths in a tree, with their comments; those of folders end with a slash."""
    folders: list[str] = []
    paths: dict[str, str] = {}
    for line in block.splitlines():
        match = re.match(r"( *)(\S+) *(.*)", line)
        if match is None:
            continue
        depth = len(match.group(1)) // 2
        name = match.group(2)
        folders[depth:] = [name.rstrip("/")]
        paths["/".join(folders) + "/" * name.endswith("/")] = match.group(3)
    return paths


def present() -> set[str]:
    """Files that git knows or would take; of folded folders only their name."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = {name for name in output.splitlines() if (ROOT / name).is_file()}
    return {next((f for f in FOLDED if name.startswith(f)), name) for name in files}


def tree(paths: set[str], comments: dict[str, str]) -> str:
    """The lines of a tree, a folder's files before its folders."""
    folders = {name[: match.end()] for name in paths for match in re.finditer("/", name)}
    lines = []
    for path in sorted(paths | folders, key=_place):
        *above, name = path.rstrip("/").split("/")
        text = "  " * len(above) + name + "/" * path.endswith("/")
        lines.append(f"{text:<{COMMENT_COLUMN - 1}} {comments.get(path, '')}".rstrip() + "\n")
    return "".join(lines)


def _place(path: str) -> list[tuple[bool, int, str]]:
    parts = path.rstrip("/").split("/")
    order = {name: place for place, name in enumerate(WORKFLOW)}
    last = len(parts) - 1
    folders = [depth < last or path.endswith("/") for depth in range(len(parts))]
    return [
        (folder, order.get(name, -1) if folder or name.endswith(".py") else -1, name)
        for folder, name in zip(folders, parts, strict=True)
    ]


def main() -> int:
    """Prints the differences, 1 if there are any; or writes the tree."""
    page = PAGE.read_text(encoding="utf-8")
    block = block_of(page)
    said = listed(block.group(1))
    here = present()
    if "--write" in sys.argv[1:]:
        text = page[: block.start(1)] + tree(here, said) + page[block.end(1) :]
        PAGE.write_text(text, encoding="utf-8")
        return 0
    files = {path for path in said if not path.endswith("/") or path in FOLDED}
    for name in sorted(here - files):
        print(f"not in the tree of docs/architecture.md: {name}")
    for name in sorted(files - here):
        print(f"only in the tree of docs/architecture.md: {name}")
    if here != files:
        print("scripts/file_tree.py --write puts the tree right")
    return int(here != files)


if __name__ == "__main__":
    sys.exit(main())
