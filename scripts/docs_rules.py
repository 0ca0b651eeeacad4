"""The rules of check for the reference: what each says of its example, and the example."""

from __future__ import annotations

import contextlib
import difflib
import re
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from helpers.check_cases import FACTS, Run
from helpers.rule_cases import CASES

import irv2caffe.check.rules  # noqa: F401  registers the rules
from irv2caffe.check.nets import gather
from irv2caffe.check.read import read
from irv2caffe.check.registry import RULES, findings
from irv2caffe.check.run import CheckOptions, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from irv2caffe.check.finding import Finding
    from irv2caffe.check.registry import Rule

INTRO = """\
`irv2caffe check` has {} rules. An error stops Caffe or makes the run worthless; a warning costs
accuracy or time in most runs; a note is worth knowing and right in many nets. The severity in the
tables is the usual one of a rule.

Examples are differences between a small file that has the flaw (`-`) and one that has not (`+`);
the tests run both. Where the text is the same, facts of databases or options make the difference.
[The guide](../../guide/check.md) says how to read a report."""


def escaped(text: str) -> str:
    """Text in which Markdown finds no emphasis and no tags."""
    return re.sub(r"([*<]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def rule_pages() -> Iterator[tuple[str, str, list[str]]]:
    """Path, title and parts of one page per topic, with a section per rule, and of their index."""
    topics: dict[str, list[Rule]] = {}
    for each in RULES.values():
        topics.setdefault(each.topic, []).append(each)
    index = []
    for topic, rules in topics.items():
        module = sys.modules[f"irv2caffe.check.rules.{topic}"]
        heading = (module.__doc__ or topic).splitlines()[0].rstrip(".")
        name = topic.replace("_", "-")
        yield f"rules/{name}.md", heading, [rule_section(each) for each in rules]
        rows = ["| rule | | looks for |", "|---|---|---|"]
        for each in rules:
            link = f"[`{each.name}`]({name}.md#{slug(each.name)})"
            rows.append(f"| {link} | {each.severity.label} | {escaped(each.summary)} |")
        index.append(f"## {heading}\n\n" + "\n".join(rows))
    yield "rules/index.md", "Rules of check", [INTRO.format(len(RULES)), *index]


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w-]", "", heading.lower())


def rule_section(rule: Rule) -> str:
    """What a rule says of its example, and the example."""
    parts = [f"## {rule.name}", f"**{rule.severity.label.capitalize()}.** {escaped(rule.summary)}"]
    case = CASES.get(rule.name)
    found = unreadable_database() if case is None else finding_in(case.bad, rule.name)
    rows = [("Says", found.what), ("Why", found.why), ("Fix", found.fix), ("Source", found.source)]
    parts.append("\n".join(f"- **{name}**: {escaped(text)}" for name, text in rows))
    if case is None:
        return "\n\n".join(
            [*parts, "Flawed: `train_lmdb/data.mdb` is a text file. Right: an LMDB."]
        )
    bad, good = case.bad, case.good
    files = file_diff(bad, good)
    if not files:  # the good run differs in what is said of it; the flaw is in the files
        sound = replace(bad, net=(), solver=bad.solver and (), files={})
        files = file_diff(bad, sound)
    parts += [each for each in (files, value_diff(bad, good)) if each]
    return "\n\n".join(parts)


def unreadable_database() -> Finding:
    """What data-unreadable finds, the only rule whose cases are files beside the prototxts."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        run: Any = Run()
        path = run.write(Path(name))
        Path("train_lmdb").mkdir()
        Path("train_lmdb/data.mdb").write_text("words")
        report = check(Path(path.name), CheckOptions())
        return next(each for each in report.findings if each.rule == "data-unreadable")


def finding_in(run: Run, rule: str) -> Finding:
    """What a rule finds in the run of a case."""
    with folder_of(run) as (folder, path), contextlib.chdir(folder):
        evidence = gather(read(path.relative_to(folder)), {**FACTS, **run.facts}, run.claims)
        return next(each for each in findings(evidence, RULES.values()) if each.rule == rule)


@contextlib.contextmanager
def folder_of(run: Any) -> Iterator[tuple[Path, Path]]:
    """A folder that holds a case's files, and the file to check."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield folder, run.write(folder)


def file_diff(bad: Run, good: Run) -> str:
    """How the files of two runs differ, as a fenced block; empty where they do not."""
    texts = []
    for run in (bad, good):
        with folder_of(run) as (folder, _):
            files = sorted(path for path in folder.iterdir() if path.suffix == ".prototxt")
            texts.append({path.name: path.read_text(errors="replace") for path in files})
    before, after = texts
    blocks = []
    for name in [*before, *(name for name in after if name not in before)]:
        lines = list(
            difflib.unified_diff(
                before.get(name, "").splitlines(),
                after.get(name, "").splitlines(),
                lineterm="",
                n=3,
            )
        )[2:]
        hunks = [index for index, line in enumerate(lines) if line.startswith("@@")]
        if hunks:
            shown = lines[1 : hunks[1] if len(hunks) > 1 else None]
            more = "\n..." * (len(hunks) > 1)
            body = "\n".join(line.rstrip() for line in shown).strip("\n")
            blocks.append(f"`{name}`:\n\n```diff\n{body}{more}\n```")
    return "\n\n".join(blocks)


def value_diff(bad: Run, good: Run) -> str:
    """How databases and options of two runs differ, as a list; empty where they do not."""
    lines = []
    for database in sorted({*bad.facts, *good.facts}):
        pair = [{**FACTS, **run.facts}.get(database) for run in (bad, good)]
        lines += [f"- of `{database}`, {text}" for text in changed_fields(*pair)]
    lines += [f"- of the run, {text}" for text in changed_fields(bad.claims, good.claims)]
    return "\n".join(["Flawed, then right:", "", *lines]) if lines else ""


def changed_fields(bad: Any, good: Any) -> Iterator[str]:
    """The fields of two dataclasses that differ."""
    for field in fields(bad or good):
        values = [getattr(each, field.name, None) for each in (bad, good)]
        if values[0] != values[1]:
            shown = [f"`{value}`" for value in values]
            yield f"{field.name.replace('_', ' ')}: {shown[0]}, then {shown[1]}"
