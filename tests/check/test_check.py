"""Every rule of check has a run that triggers it and one that does not; good runs are clean."""

from __future__ import annotations

import pytest
from helpers.check_cases import FACTS, NETS, Run
from helpers.rule_cases import CASES

import irv2caffe.check.rules  # noqa: F401  registers the rules
from irv2caffe.check.finding import NOTE
from irv2caffe.check.nets import gather
from irv2caffe.check.read import read
from irv2caffe.check.registry import RULES, findings

IN_OTHER_TESTS = {"data-unreadable"}


def evidence_of(run, folder, monkeypatch):
    monkeypatch.chdir(folder)
    path = run.write(folder)
    return gather(read(path.relative_to(folder)), {**FACTS, **run.facts}, run.claims)


def found_in(run, folder, monkeypatch):
    return findings(evidence_of(run, folder, monkeypatch), RULES.values())


def test_every_rule_has_its_case():
    assert set(CASES) | IN_OTHER_TESTS == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_what_its_page_needs(name):
    """A summary in one line, a source, and runs that differ."""
    rule, case = RULES[name], CASES.get(name)
    assert rule.summary.endswith(".")
    assert rule.source
    assert case is None or case.bad != case.good


@pytest.mark.parametrize("name", CASES)
def test_a_rule_finds_its_flaw(name, tmp_path, monkeypatch):
    severity, bad, words, layer, _ = CASES[name]
    found = [each for each in found_in(bad, tmp_path, monkeypatch) if each.rule == name]
    assert found, f"{name} is silent"
    told = next((each for each in found if words in each.what), None)
    assert told is not None, [each.what for each in found]
    assert told.severity is severity
    assert told.why
    assert told.fix
    assert told.source
    if layer is not None:
        assert told.places[0].layer == layer
    if layer:
        line = (tmp_path / told.places[0].file).read_text().splitlines()[told.places[0].line - 1]
        assert line.strip()


@pytest.mark.parametrize("name", CASES)
def test_a_rule_is_silent_on_what_is_right(name, tmp_path, monkeypatch):
    good = CASES[name].good
    assert not [each.what for each in found_in(good, tmp_path, monkeypatch) if each.rule == name]


@pytest.mark.parametrize("base", NETS)
@pytest.mark.parametrize("alone", [True, False])
def test_the_runs_that_cases_start_from_are_clean(base, alone, tmp_path, monkeypatch):
    run = Run(base, solver=None if alone else ())
    found = found_in(run, tmp_path, monkeypatch)
    assert not [each for each in found if each.severity > NOTE]
