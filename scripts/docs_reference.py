"""Writes docs/reference/commands, rules, recipes.md and exit-codes.md from the program itself.

Usage: docs_reference.py [--check]

With ``--check`` nothing is written; pages that differ are listed and the exit code is 1.
"""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from docs_causes import causes_page
from docs_rules import escaped, rule_pages

from irv2caffe import errors
from irv2caffe.cli.main import cli
from irv2caffe.config.recipes import load_recipe, recipe_names, templates_dir

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs/reference"
GENERATED = (
    "<!-- Written by scripts/docs_reference.py; `scripts/docs reference` writes it anew. -->"
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GUIDES = {
    "install-caffe": "install-caffe.md",
    "caffe": "install-caffe.md",
    "build-net": "networks.md",
    "summary": "summary.md",
    "make-lmdb": "databases.md",
    "inspect-lmdb": "databases.md#look-at-databases",
    "check": "check.md",
    "train": "train.md",
    "runs": "train.md#several-runs",
    "plot-log": "plot-log.md",
    "evaluate": "evaluate.md",
    "classify": "classify.md",
    "deploy": "deploy.md",
    "diagnose": "diagnose.md",
    "import-weights": "weights.md",
    "export-weights": "weights.md",
}
EXIT_CODES = {
    errors.EXIT_DONE: "Done.",
    errors.EXIT_FAILED: "Failed: an input, an output, Caffe itself, or a training that crashed, "
    "stalled or diverged.",
    errors.EXIT_USAGE: "Usage: options that do not exist, do not go together, or are outside "
    "their range.",
    errors.EXIT_FINDINGS: "Finished, with findings: `make-lmdb` left images out or made nearly "
    "black records; `inspect-lmdb` or `check` found something above a note; "
    "`inspect-lmdb --compare` found a difference; `diagnose` found something likely or measured; "
    "`evaluate` left images out, or outputs are "
    "NaN or equal; `classify` left images out.",
    errors.EXIT_INTERRUPTED: "Interrupted by Ctrl-C or SIGTERM.",
}
RECIPES = """\
A recipe gives values to options of `build-net` and `train --recipe`. The command line wins over a
recipe, a recipe over a variant's defaults; `--print-config` shows every value and where it came
from. Your own recipe is a `.toml` file with the tables `[net]` and `[solver]`:
`--recipe my.toml`. Keys are the options with underscores instead of hyphens."""
ERRORS = """\
An error is one line that says what is wrong, and a hint that says what to do. `--traceback` shows
the rest. Files and folders appear whole or not at all. An existing output is refused; `--force`
replaces what this program made, nothing else.

Caffe's own exit code is no verdict: it is 0 after a loss that became NaN and after an interruption.
`train` reads from the log how a training ended. `irv2caffe caffe` hands Caffe's exit code on as it
is.

## Errors in Python

All errors that a user can cause or meet are classes of `irv2caffe.errors`:"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole Markdown page."""
    return "\n\n".join([GENERATED, f"# {title}", *parts]) + "\n"


# Commands ----------------------------------------------------------------------------------------


def command_pages() -> Iterator[tuple[str, str]]:
    """One page per command, and their index."""
    rows = ["| command | |", "|---|---|"]
    for name, command in cli.commands.items():
        summary = command.get_short_help_str(limit=200)
        rows.append(f"| [`{name}`]({name}.md) | {summary} |")
        yield f"commands/{name}.md", page(f"irv2caffe {name}", command_parts(name, command))
    intro = (
        "In the order of use. Results go to stdout, progress and messages to stderr. Commands that "
        "report something take `--json`. `irv2caffe --traceback COMMAND ...` shows the whole "
        "traceback of an error."
    )
    yield "commands/index.md", page("Commands", [intro, "\n".join(rows)])


def command_parts(name: str, command: click.Command) -> Iterator[str]:
    """Usage, description and the options by section."""
    context = click.Context(command, info_name=f"irv2caffe {name}")
    usage = [context.command_path, *command.collect_usage_pieces(context)]
    yield f"```text\n{' '.join(usage)}\n```"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield escaped(" ".join(paragraph.split()))
    yield f"Explained in [the guide](../../guide/{GUIDES[name]})."
    sections: dict[str, list[str]] = {}
    has_sections = any(hasattr(each, "section") for each in command.params)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            heading = getattr(parameter, "section", "Other" if has_sections else "Options")
            sections.setdefault(heading, []).append(option_line(parameter, *record))
    for heading, lines in sections.items():
        yield f"## {heading}\n\n" + "\n".join(lines)


def option_line(parameter: click.Parameter, names: str, meaning: str) -> str:
    """An option as one item of a list."""
    if isinstance(parameter, click.Option) and parameter.multiple and "epeat" not in meaning:
        meaning += "  [may be repeated]"
    text, _, bracketed = meaning.partition("  [")
    defaults = " ".join(f"*[{each}]*" for each in bracketed.rstrip("]").split("]  [") if each)
    return f"- `{names}`: {escaped(text)} {defaults}".rstrip()


# Recipes and exit codes --------------------------------------------------------------------------


def recipes_page() -> str:
    """The recipes as they are, and where their values go."""
    parts = [RECIPES]
    for name in recipe_names():
        load_recipe(name)
        text = (templates_dir() / f"{name}.toml").read_text().strip()
        parts.append(f"## {name}\n\n```toml\n{text}\n```")
    return page("Recipes", parts)


def exit_codes_page() -> str:
    """Exit codes, and the tree of errors with the code of each."""
    rows = ["| code | meaning |", "|---|---|"]
    rows += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    tree = "\n".join(error_lines(errors.Irv2CaffeError, 0))
    return page("Exit codes and errors", ["\n".join(rows), ERRORS, f"```text\n{tree}\n```"])


def error_lines(error: type[errors.Irv2CaffeError], depth: int) -> Iterator[str]:
    """An error and those below it, one line each."""
    name = f"{'    ' * depth}{error.__name__}"
    said = (error.__doc__ or "").strip().splitlines()[0]
    yield f"{name:<32}{error.exit_code}  {said}"
    for below in error.__subclasses__():
        yield from error_lines(below, depth + 1)


def pages() -> dict[str, str]:
    """All generated pages: path below docs/reference to text."""
    path, title, parts = causes_page()
    return {
        **dict(command_pages()),
        path: page(title, parts),
        **{path: page(title, parts) for path, title, parts in rule_pages()},
        "recipes.md": recipes_page(),
        "exit-codes.md": exit_codes_page(),
    }


def main() -> int:
    """Writes or compares."""
    os.environ["COLUMNS"] = "100"
    wanted = pages()
    present = {
        str(path.relative_to(REFERENCE)): path.read_text()
        for path in sorted(REFERENCE.rglob("*.md"))
        if path.read_text().startswith(GENERATED)
    }
    differ = sorted(name for name in {*wanted, *present} if wanted.get(name) != present.get(name))
    for name in differ:
        print(f"docs/reference/{name}")
        path = REFERENCE / name
        if "--check" in sys.argv[1:]:
            continue
        if name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[name])
        else:
            path.unlink()
    return int(bool(differ) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
