"""Values that the shell completes for options: words, rules, recipes, runs, databases, models.

Only names that every shell takes as they are are offered: completed into a command line, a folder
called ``$(...)`` would be run.
"""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import click

_WORD = re.compile(r"[a-z][a-z0-9-]*")
_SAFE_NAME = re.compile(r"[\w./@%+=:-]+")
_MOST_ENTRIES = 5000  # that are looked at
_DEPTH = 4
_MOST_FILES, _LONGEST_NUMBER = 100, 20
_FOLDERS = {"DB", "RUN"}
_NOT_STARTED = ("-", "~")  # a path of these names something else in a shell


def values(option: str | None, metavar: str | None, incomplete: str) -> list[CompletionItem] | None:
    """The values of an option that begin with a text; None where its type has to say them.

    Args:
        option: name of the option, as its function takes it.
        metavar: its values in ``--help``, such as ``slim|paper`` or ``DB``.
        incomplete: what is typed so far.
    """
    kinds = (metavar or "").strip("[]").split("|")
    found: list[CompletionItem] = []
    for kind in kinds:
        if _WORD.fullmatch(kind):
            found += _beginning([kind], incomplete)
        elif kind in _KINDS:
            found += _KINDS[kind](incomplete)
    if option in _OPTIONS:
        found += _OPTIONS[option](incomplete)
    if not found and "FILE" in kinds:
        found = [CompletionItem(incomplete, type="file")]
    elif not found and not _FOLDERS.isdisjoint(kinds):
        found = [CompletionItem(incomplete, type="dir")]
    return found or None


def models_and_runs(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For an argument that is a run folder or a ``.caffemodel``."""
    found = _walk(incomplete, lambda entry: _is_run(entry) or _is_file(entry, ".caffemodel"))
    file = CompletionItem(incomplete, type="file")
    return [CompletionItem(path) for path in sorted(found, key=_newest_first)] or [file]


def runs_and_logs(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For an argument that is a run folder, a log, or the name of a published run."""
    from irv2caffe.log.reference import NAMES

    found = _walk(incomplete, lambda entry: _is_run(entry) or _is_file(entry, ".log"))
    published = _beginning([name for name in NAMES if name != "paper"], incomplete)
    file = CompletionItem(incomplete, type="file")
    return [*map(CompletionItem, found), *published] or [file]


def _beginning(words: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _rules(incomplete: str) -> list[CompletionItem]:
    import irv2caffe.check.rules  # noqa: F401  registers the rules
    from irv2caffe.check.registry import RULES

    return [
        CompletionItem(rule.name, help=rule.summary)
        for rule in RULES.values()
        if rule.name.startswith(incomplete)
    ]


def _causes(incomplete: str) -> list[CompletionItem]:
    import irv2caffe.diagnose.rules  # noqa: F401  registers the rules
    from irv2caffe.diagnose.registry import RULES

    return [
        CompletionItem(rule.name, help=rule.summary)
        for rule in RULES.values()
        if rule.name.startswith(incomplete)
    ]


def _recipes(incomplete: str) -> list[CompletionItem]:
    from irv2caffe.config import recipe_names

    return _beginning(recipe_names(), incomplete)


def _runs(incomplete: str) -> list[CompletionItem]:
    return list(map(CompletionItem, _walk(incomplete, _is_run)))


def _databases(incomplete: str) -> list[CompletionItem]:
    found = _walk(incomplete, lambda entry: _is_folder_of(entry, "data.mdb"))
    return list(map(CompletionItem, found))


def _states(incomplete: str) -> list[CompletionItem]:
    return _files(incomplete, ".solverstate") if "snapshots" in incomplete else []


def _files(incomplete: str, suffix: str) -> list[CompletionItem]:
    found = _walk(incomplete, lambda entry: _is_file(entry, suffix))
    return list(map(CompletionItem, sorted(found, key=_newest_first)[:_MOST_FILES]))


def _is_run(entry: os.DirEntry[str]) -> bool:
    return _is_folder_of(entry, "config.json", "solver.prototxt")


def _is_folder_of(entry: os.DirEntry[str], *files: str) -> bool:
    return entry.is_dir() and all(Path(entry, file).is_file() for file in files)


def _is_file(entry: os.DirEntry[str], suffix: str) -> bool:
    return entry.name.endswith(suffix) and entry.is_file()


def _newest_first(path: str) -> tuple[int, str, int]:
    """Near files before far ones, ``best`` before iterations, late ones before early ones."""
    stem, _, number = path.rpartition(".")[0].rpartition("_")
    is_count = number.isdecimal() and len(number) < _LONGEST_NUMBER
    return (path.count("/"), stem, -int(number)) if is_count else (path.count("/"), "", 0)


def _walk(incomplete: str, is_wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    """Wanted files or folders whose paths begin with a text, the nearest first; not below them."""
    if incomplete.startswith(_NOT_STARTED):
        return []
    parent, _, prefix = incomplete.rpartition("/")
    start = "/" if incomplete.startswith("/") and not parent else parent
    level, found, left = [start], [], _MOST_ENTRIES
    for _depth in range(_DEPTH):
        below: list[str] = []
        for folder in level:
            for entry in islice(_entries(folder), left):
                left -= 1
                if not entry.name.startswith(prefix):
                    continue
                path = os.path.join(folder, entry.name)  # noqa: PTH118 - "./" would be lost
                if not _SAFE_NAME.fullmatch(path):
                    continue
                if is_wanted(entry):
                    found.append(path)
                elif entry.is_dir():
                    below.append(path)
        level, prefix = below, ""
    return sorted(found, key=lambda path: (path.count("/"), path))


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder or ".") as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    yield entry
    except OSError:
        return


_KINDS: dict[str, Callable[[str], list[CompletionItem]]] = {
    "CAUSE": _causes,
    "DB": _databases,
    "RULE": _rules,
    "RUN": _runs,
}
_OPTIONS: dict[str, Callable[[str], list[CompletionItem]]] = {
    "recipe": _recipes,
    "resume": _states,
    "weights": lambda incomplete: _files(incomplete, ".caffemodel"),
}
