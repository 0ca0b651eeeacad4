"""For every rule of check a small bad and good fragment of a prototxt, taken from its case."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from helpers.check_cases import FACTS, TRAIN, Run
from helpers.rule_cases import CASES
from irv2caffe.check.inputs import Claims
from irv2caffe.proto.positions import scan


@dataclass(frozen=True)
class Example:
    """What a rule finds and what it does not find.

    Attributes:
        file: ``net.prototxt`` or ``solver.prototxt``.
        bad: the layers with the flaw and those that differ from the good net, or the solver.
        good: the same of the run without the flaw.
        bad_given: what the flaw needs besides the text: options and facts of databases by name.
        good_given: what the run without the flaw has besides the text.
    """

    file: str
    bad: str
    good: str
    bad_given: dict[str, object] = field(default_factory=dict)
    good_given: dict[str, object] = field(default_factory=dict)


def example(name):
    """The example of a rule, by its name."""
    if name == "data-unreadable":  # its test makes such a file
        data = "".join(_layers(Run().texts()["net.prototxt"])["data"])
        return Example("net.prototxt", data, data, {"train_lmdb": "not a database"}, {})
    case = CASES[name]
    bad, good = case.bad.texts(), case.good.texts()
    changed = [file for file in bad if bad[file] != good.get(file)]
    if "net.prototxt" not in changed and not case.layer:
        file = (changed or ["solver.prototxt"])[0]
        return Example(file, bad[file], good.get(file, ""), _given(case.bad), _given(case.good))
    given = [_given(run) | _solver(run) for run in (case.bad, case.good)]
    here, there = _layers(bad["net.prototxt"]), _layers(good["net.prototxt"])
    names = {case.layer} - {""}
    if case.bad.base == case.good.base or not names:
        names |= {each for each in (*here, *there) if here.get(each) != there.get(each)}
    texts = ["".join(_text(each, names)) for each in (here, there)]
    if not texts[0] or (texts[0] == texts[1] and given[0] == given[1]):
        texts = [each["net.prototxt"] for each in (bad, good)]
    return Example("net.prototxt", *texts, *given)


def _layers(text):
    """The text of the layers by their names; of equal names all of them."""
    found = {}
    for node in scan(text).all("layer"):
        name = node.find("name").value.strip("\"'")
        found.setdefault(name, []).append(text[node.start : node.end].strip() + "\n")
    return found


def _text(layers, names):
    return [each for name, texts in layers.items() if name in names for each in texts]


def _given(run):
    """Options and facts of databases that differ from those of a plain run."""
    plain = Claims()
    given = {
        each.name: getattr(run.claims, each.name)
        for each in fields(Claims)
        if getattr(run.claims, each.name) != getattr(plain, each.name)
    }
    for source, facts in run.facts.items():
        usual = vars(FACTS.get(source, TRAIN))
        given |= {f"{source}: {k}": v for k, v in vars(facts).items() if v != usual[k]}
    given |= {name: f"{len(content)} bytes" for name, content in run.files.items()}
    return given | ({"snapshots": "no such folder"} if run.no_folder else {})


def _solver(run):
    """What a run changes in the solver beside the net."""
    if run.solver is None:
        return {"solver.prototxt": "none"}
    return {"solver.prototxt": "; ".join(new for _, new in run.solver)} if run.solver else {}
