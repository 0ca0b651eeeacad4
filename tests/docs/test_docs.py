"""The documentation: links lead somewhere, commands exist, generated pages are up to date."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import click
import pytest
from helpers.paths import ROOT

from irv2caffe.cli.main import cli

if TYPE_CHECKING:
    from pathlib import Path

PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
        *(ROOT / ".github").rglob("*.md"),
    ]
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
QUICK_START_FILES = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE")
QUICK_START_FOLDERS = ("irv2caffe", "templates", "examples")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    """Those of a page's headings, as GitHub and mkdocs make them."""
    text = FENCE.sub("", path.read_text())
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        found.add(re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", plain)).strip("-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page):
    text = FENCE.sub("", page.read_text())
    for link in LINK.findall(text):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{link}: no such file"
        assert ROOT in path.parents, f"{link} leads out of the repository"
        if anchor:
            assert anchor in anchors(path), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_of_the_repository_exist(page):
    """Whole paths in code spans; words in capitals stand for a name."""
    text = FENCE.sub("", page.read_text())
    for path in re.findall(r"`((?:irv2caffe|tests|scripts|examples|docs)/[\w./-]+)`", text):
        assert re.search("[A-Z]{4}", path) or (ROOT / path).exists(), path


def test_the_floors_are_those_of_the_contract():
    """docs/architecture.md against pyproject.toml."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(one["layers"] for one in contracts["contracts"] if one["type"] == "layers")
    page = (ROOT / "docs/architecture.md").read_text()
    block = FENCE.search(page, page.index("## Floors")).group(2)
    assert [re.split(r" {2,}", line)[0] for line in block.splitlines()] == layers


def command_lines(page: Path) -> list[list[str]]:
    """The words after ``irv2caffe`` of every such line in fenced console and sh blocks."""
    lines: list[list[str]] = []
    for language, body in FENCE.findall(page.read_text()):
        if language not in {"console", "sh", "bash"}:
            continue
        for line in body.replace("\\\n", " ").splitlines():
            is_typed = line.startswith("$ ") if language == "console" else True
            if not is_typed:
                continue
            for command in re.split(r" && | \|\| |; ", line.removeprefix("$ ")):
                words = shlex.split(command, comments=True)
                if words[:1] == ["irv2caffe"]:
                    lines.append(words[1:])
    return lines


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_exist(page):
    """click parses the lines; paths need not be there."""
    for words in command_lines(page):
        if words[0] in {"COMMAND", "--help", "--version", "--traceback"}:
            continue
        assert words[0] in cli.commands, words
        command = cli.commands[words[0]]
        if "..." in words or words[0] == "caffe":  # shortened; or words for Caffe itself
            continue
        with click.Context(command, info_name=words[0]) as context:
            try:
                command.parse_args(context, words[1:])
            except click.exceptions.Exit:  # --help, --list-rules
                pass
            except click.ClickException as error:
                pytest.fail(f"{shlex.join(words)}: {error.format_message()}")


def test_there_are_command_lines_to_look_at():
    found = [words for page in PAGES for words in command_lines(page)]
    assert {words[0] for words in found} >= set(cli.commands)


def test_the_readme_is_a_page():
    assert len((ROOT / "README.md").read_bytes()) <= 8192


def test_the_reference_is_what_the_program_says():
    command = [sys.executable, "scripts/docs_reference.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"scripts/docs reference writes anew: {done.stdout}{done.stderr}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {name_of(path).removeprefix("docs/") for path in (ROOT / "docs").rglob("*.md")}
    built = {str(path.relative_to(tmp_path / "site")) for path in tmp_path.rglob("*.html")}
    assert {page.removesuffix("md") + "html" for page in pages} <= built


def quick_start() -> str:
    """The lines of the README."""
    section = (ROOT / "README.md").read_text().split("## Quick start", 1)[1].split("\n## ", 1)[0]
    return FENCE.search(section).group(2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quick_start_runs_as_it_stands(caffe, tmp_path):
    """In a copy of what a clone holds, in an environment of its own."""
    clone = tmp_path / "irv2caffe"
    clone.mkdir()
    for name in QUICK_START_FILES:
        shutil.copy(ROOT / name, clone)
    for name in QUICK_START_FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, clone / name, ignore=ignored)
    done = subprocess.run(
        ["bash", "-e", "-c", quick_start()], cwd=clone, capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and "No matching distribution" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished: run" in done.stdout
    quick = clone / "quick"
    for made in ("run/plot.png", "run/report.html", "run-evaluation/index.html", "classified.png"):
        assert (quick / made).is_file(), made
    last = re.search(r"top-1 error +last ([\d.]+) %", done.stdout)
    assert float(last.group(1)) < 60, "hardly better than guessing, which gives 80"
    shown = dict(re.findall(r"^(\S+\.png): [\d.]+ % (\w+),", done.stdout, re.MULTILINE))
    named: dict[str, str] = {}  # by OpenCV, the most probable class first
    for image, name in re.findall(r"^(\S+\.png)\t\d+\t(\w+)\t", done.stdout, re.MULTILINE):
        named.setdefault(image, name)
    assert sorted(named) == [
        str(path.relative_to(quick)) for path in sorted((quick / "drawn/new/ring").iterdir())
    ]
    assert named == {image: shown[image] for image in named}, "classify and OpenCV disagree"


def test_the_quick_start_is_short():
    lines = quick_start().replace("\\\n", "").split("irv2caffe install-caffe\n")[1].splitlines()
    assert len(lines) <= 10


def test_quick_start_in_docs_has_the_same_commands():
    """docs/quick-start.md shows the README's lines one by one."""
    shown = "\n".join(body for _, body in FENCE.findall((ROOT / "docs/quick-start.md").read_text()))
    typed = "\n".join(quick_start().replace("\\\n", "").split("\n"))
    for line in filter(None, typed.splitlines()):
        words = " ".join(line.split())
        assert words in " ".join(shown.replace("\\\n", "").split()), words
