"""The command diagnose: what it reads, prints, writes and returns; the end of a training."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.diagnose_cases import DATABASES, SOLVER, TRAIN_VAL, changed, healthy, run
from helpers.paths import FILES

from irv2caffe import ui
from irv2caffe.cli import train_output
from irv2caffe.cli.main import run as irv2caffe
from irv2caffe.diagnose.diagnosis import Diagnosis, diagnose
from irv2caffe.diagnose.evidence import RunEvidence
from irv2caffe.diagnose.finding import LIKELY, MEASURED, POSSIBLE, UNLIKELY, Finding
from irv2caffe.diagnose.gather import Request, gather
from irv2caffe.diagnose.measured import Measured, Score
from irv2caffe.diagnose.registry import RULES, Rule, run_rules
from irv2caffe.diagnose.report_section import section_of
from irv2caffe.diagnose.text import WIDTH, diagnosis_lines
from irv2caffe.errors import FormatError, MissingInputError, UsageError
from irv2caffe.log.export import write_csv
from irv2caffe.log.reference import reference_runs
from irv2caffe.plot.report_section import Command, sections_html
from irv2caffe.train.run.result import TrainResult
from irv2caffe.train.run.verdict import Ending, Verdict

LOGS = FILES / "logs"
NAN, HEALTHY = LOGS / "nan.log", LOGS / "healthy.log"


def folder_of(evidence_maker, folder, **more):
    """The files of a run in a folder."""
    evidence_maker(folder=folder, solver=SOLVER, train_val=TRAIN_VAL, **more)
    return folder


# What is read -----------------------------------------------------------------------------------


def test_a_log_alone_gives_the_solver_and_the_nets_that_it_printed(tmp_path):
    folder_of(healthy, tmp_path)
    (tmp_path / "away").mkdir()
    log = (tmp_path / "train.log").rename(tmp_path / "away/caffe.log")
    found = gather(Request(log, num_train_images=32_000))
    written = gather(Request(log, solver=tmp_path / "solver.prototxt"))
    for name in ("type", "base_lr", "momentum", "weight_decay", "stepsize", "test_iter"):
        assert found.solver_value(name) == written.solver_value(name)
    for phase in ("TRAIN", "TEST"):
        printed, from_file = found.net(phase), written.net(phase)
        assert [layer.name for layer in printed.layers] == [each.name for each in from_file.layers]
        assert printed.batch_size == from_file.batch_size
        assert printed.test_iter == from_file.test_iter
    assert found.solver_value("momentum") == 0.9  # as written, not as a 32-bit float
    assert found.num_val_images == 1000
    assert found.solver_path is None  # nothing that train could take
    assert written.solver_path == tmp_path / "solver.prototxt"
    assert (found.effective_batch, found.num_classes) == (16, 10)
    assert found.summary.epochs == pytest.approx(30)


def test_a_torn_net_in_a_log_is_a_note(tmp_path):
    folder_of(healthy, tmp_path)
    text = (tmp_path / "train.log").read_text()
    torn = text.replace('  name: "conv2"\n', '  name: "con\n', 1)
    assert torn != text
    (tmp_path / "away").mkdir()
    (tmp_path / "away/x.log").write_text(torn)
    found = gather(Request(tmp_path / "away/x.log"))
    assert found.net("TRAIN") is None
    assert found.net("TEST") is not None
    assert any("the log's TRAIN net" in note for note in found.notes)
    assert found.solver_value("base_lr") == 0.045
    diagnose(found)


def test_a_run_folder_gives_its_own_files(tmp_path):
    folder_of(healthy, tmp_path, is_run=True, config={"num_train_images": 8000})
    found = gather(Request(tmp_path))
    assert found.run_dir == tmp_path
    assert found.summary.num_train_images == 8000
    assert found.check.solver.name == str(tmp_path / "solver.prototxt")
    assert found.net("TRAIN").file.name == str(tmp_path / "train_val.prototxt")
    same = gather(Request(tmp_path / "train.log"))  # the log in a run folder stands for it
    assert same.run_dir == tmp_path
    assert same.solver_path == found.solver_path


def test_a_broken_solver_is_a_note_in_a_run_and_an_error_if_it_is_named(tmp_path):
    folder_of(healthy, tmp_path, is_run=True)
    broken = tmp_path / "solver.prototxt"
    broken.write_text("base_lr: {")
    found = gather(Request(tmp_path))
    assert any("solver.prototxt" in note for note in found.notes)
    assert found.solver_value("base_lr") == 0.045  # as the log printed it
    with pytest.raises(FormatError):
        gather(Request(tmp_path, solver=broken))
    with pytest.raises(MissingInputError):
        gather(Request(tmp_path, solver=tmp_path / "none"))


def test_a_net_that_is_not_there_is_a_note(tmp_path):
    folder_of(healthy, tmp_path)
    (tmp_path / "away").mkdir()
    (tmp_path / "solver.prototxt").rename(tmp_path / "away/solver.prototxt")
    (tmp_path / "train_val.prototxt").unlink()
    found = gather(Request(tmp_path / "train.log", solver=tmp_path / "away/solver.prototxt"))
    assert any("train_val.prototxt" in note for note in found.notes)
    assert found.net("TRAIN").file.name == "the log's TRAIN net"


def test_a_net_alone_is_enough_for_its_rules(tmp_path):
    folder_of(healthy, tmp_path)
    found = gather(Request(HEALTHY, solver=tmp_path / "train_val.prototxt"))
    assert found.net("TRAIN").batch_size == 16
    assert found.solver_value("base_lr") == 0.05  # of the log
    assert found.solver_path is None


def test_databases_that_are_not_there_are_no_error(tmp_path):
    folder_of(healthy, tmp_path)
    found = gather(Request(tmp_path / "train.log", solver=tmp_path / "solver.prototxt"))
    assert not found.check.databases
    with pytest.raises(MissingInputError):
        gather(Request(tmp_path / "train.log", train_lmdb=tmp_path / "none"))


def test_epochs_without_a_net_in_the_log_come_from_the_files(tmp_path):
    folder_of(healthy, tmp_path)
    lines = (tmp_path / "train.log").read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if "Iteration 0" in line)
    (tmp_path / "tail.log").write_text("\n".join(lines[start:]))
    alone = gather(Request(tmp_path / "tail.log"))
    assert (alone.summary.epochs, alone.has_solver) == (None, False)
    solver = tmp_path / "solver.prototxt"
    found = gather(Request(tmp_path / "tail.log", solver=solver, num_train_images=32_000))
    assert found.effective_batch == 16
    assert found.run.table.train[-1].epoch == pytest.approx(found.summary.epochs, rel=0.02)


def test_parts_of_a_log_are_one_run(tmp_path):
    folder_of(healthy, tmp_path)
    lines = (tmp_path / "train.log").read_text().splitlines(keepends=True)
    parts = [tmp_path / "1.log", tmp_path / "2.log"]
    parts[0].write_text("".join(lines[: len(lines) // 2]))
    parts[1].write_text("".join(lines[len(lines) // 2 :]))
    whole, joined = gather(Request(tmp_path / "train.log")), gather(Request(parts[0], (parts[1],)))
    assert list(joined.run.losses) == list(whole.run.losses)
    for several in ((tmp_path, parts[0]), (parts[0], tmp_path), (Path("lim0606"), parts[0])):
        with pytest.raises(UsageError, match="no further parts"):
            gather(Request(several[0], several[1:]))


def test_the_rows_of_plot_log_are_a_run(tmp_path):
    evidence = healthy()
    write_csv(tmp_path / "rows.csv", evidence.run.table)
    found = gather(Request(tmp_path / "rows.csv", num_train_images=32_000))
    assert list(found.run.losses) == pytest.approx(list(evidence.run.losses))
    assert found.effective_batch == 32  # from the epochs in the rows
    assert found.at(1000) == evidence.at(1000)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FormatError, match="not rows of plot-log"):
        gather(Request(tmp_path / "other.csv"))


@pytest.mark.parametrize("name", ["original-2016", "lim0606", "twtygqyy"])
def test_a_published_curve_is_a_run(name):
    found = gather(Request(Path(name)))
    curves = reference_runs()[name].curves
    tests = [(row.epoch, row.top1_error) for row in found.tests]
    assert tests == list(curves["val_top1_error"])
    losses = [(row.epoch, row.loss) for row in found.run.table.train]
    assert losses == list(curves.get("train_loss", ()))
    last = max(epoch for points in curves.values() for epoch, _ in points)
    assert found.summary.epochs == pytest.approx(last, abs=0.01)
    assert found.num_classes == 1000
    assert found.effective_batch == {"twtygqyy": 20}.get(name, 64)


def test_the_original_run_brings_its_net_and_solver():
    found = gather(Request(Path("original-2016")))
    assert (found.solver_value("type"), found.solver_value("iter_size")) == ("RMSProp", 2)
    assert found.found("bn-batch-stats-in-test")
    assert found.notes == ("solver and net are those of the recipe seed, its reconstruction",)


def test_a_published_run_without_curves_is_refused():
    with pytest.raises(UsageError, match="paper has no curves"):
        gather(Request(Path("paper")))


@pytest.mark.parametrize("content", [b"", bytes(range(256)) * 500, b"words\n" * 50])
def test_what_is_no_log_is_refused(tmp_path, content):
    (tmp_path / "x.log").write_bytes(content)
    with pytest.raises(FormatError, match="no line of a Caffe training"):
        gather(Request(tmp_path / "x.log"))
    with pytest.raises(MissingInputError, match="has no train"):
        gather(Request(tmp_path))


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.log")), ids=lambda path: path.stem)
def test_every_log_can_be_diagnosed(path):
    found = gather(Request(path))
    diagnosis = diagnose(found)
    assert all(one.rule in RULES for one in diagnosis.findings)
    text = "\n".join(diagnosis_lines(diagnosis))
    assert str(path) in text
    json.dumps(diagnosis.as_dict())


# What is printed --------------------------------------------------------------------------------


FINDING = Finding(
    LIKELY,
    "The error stands still",
    "Words " * 30,
    evidence=("one is 1", "two is 2 " * 20),
    against=("three",),
    cure=("irv2caffe train --resume RUN " + "--option value " * 9 + "--last", "a field: 1"),
    decide="irv2caffe diagnose RUN --model last",
    source="a file of Caffe",
    rule="a-rule",
)


def a_diagnosis(*findings):
    evidence = healthy()
    return replace(diagnose(evidence), findings=findings, missing=())


def test_a_finding_is_readable_in_80_columns():
    lines = diagnosis_lines(a_diagnosis(FINDING))
    commands = [line[11:].removeprefix("- ") for line in lines if "irv2caffe" in line]
    assert commands == [FINDING.cure[0], FINDING.decide]
    assert all(len(line) <= WIDTH for line in lines if "--option" not in line)
    text = "\n".join(lines)
    start = text.index("likely: The error stands still  [a-rule]")
    words = ("cause", "evidence - one is 1", "- two", "against  three", "do", "decide", "source")
    places = [text.index(word, start) for word in words]
    assert places == sorted(places)
    assert lines[-1].endswith("1 likely")


def test_empty_parts_are_left_out_and_levels_hide():
    bare = Finding(UNLIKELY, "A suspicion", "none", (), (), against=("a figure",), rule="other")
    text = "\n".join(diagnosis_lines(a_diagnosis(FINDING, bare)))
    after = text[text.index("unlikely") :]
    assert "  against  a figure" in after
    assert not re.search(r"^  (do|evidence|decide|source)", after, re.MULTILINE)
    shown = "\n".join(diagnosis_lines(a_diagnosis(FINDING, bare), LIKELY))
    assert "A suspicion" not in shown
    assert shown.endswith("1 likely, 1 unlikely")


def test_the_head_tells_what_was_read(tmp_path):
    folder_of(healthy, tmp_path)
    solver = tmp_path / "solver.prototxt"
    found = gather(Request(tmp_path / "train.log", solver=solver, num_train_images=32_000))
    head = dict(diagnose(found).head)
    assert head["length"] == "30 epochs: 60,000 iterations of 16 images"
    assert re.fullmatch(
        r"top-1 error 12\.4 % at epoch 30, 12\.4 % at the end; training loss 0\.2\d+ at the end; "
        r"test loss 0\.41",
        head["figures"],
    )
    assert head["read"].startswith("300 losses, 30 tests; ")
    assert "solver.prototxt" in head["read"]
    assert (
        "--num-train-images" in dict(diagnose(run(num_train=None, iterations=100)).head)["length"]
    )
    nothing = dict(diagnose(run(losses=[math.nan] * 9, tests=[{"accuracy": 1.0}])).head)
    assert "nan" in nothing["figures"]


def test_what_is_missing_is_told_with_what_it_would_tell(monkeypatch):
    def finds(_):
        yield FINDING

    rules = [
        Rule("a-rule", "", "x", ("displays",), ("model",), finds),
        Rule("b-rule", "", "x", ("model",), (), finds),
        Rule("c-rule", "", "x", ("solver",), (), finds),
        Rule("d-rule", "", "x", ("net",), ("database",), finds),
        Rule("e-rule", "", "x", ("displays",), ("net",), lambda _: iter(())),
    ]
    monkeypatch.setattr("irv2caffe.diagnose.diagnosis.RULES", {rule.name: rule for rule in rules})
    bare = run(batch=None, num_train=None, iterations=1000)
    missing = {one.what: one for one in diagnose(bare).missing}
    assert list(missing) == ["model", "solver"]  # a net comes with the solver
    assert missing["model"].decides == ("a-rule",)
    assert missing["model"].looks_for == ("b-rule",)
    assert missing["solver"].looks_for == ("c-rule", "d-rule")
    assert missing["model"].how.endswith("train.log --solver SOLVER --model MODEL.caffemodel")
    measured = Measured(weights="m.caffemodel", val=Score(50, 2, 10))
    later = diagnose(replace(bare, measured=measured))
    assert "model" not in [one.what for one in later.missing]
    # Of a published run nobody has the model, or more figures.
    published = diagnose(gather(Request(Path("lim0606"))))
    assert [one.what for one in published.missing] == ["solver"]


def test_commands_name_the_run(monkeypatch, tmp_path):
    def finds(_):
        yield FINDING

    rule = Rule("a-rule", "", "x", ("displays",), (), finds)
    monkeypatch.setattr("irv2caffe.diagnose.diagnosis.RULES", {"a-rule": rule})
    folder = tmp_path / "my run"
    folder.mkdir()
    folder_of(healthy, folder, is_run=True)
    (one,) = diagnose(gather(Request(folder))).findings
    assert one.decide == f"irv2caffe diagnose '{folder}' --model last"
    assert one.cure[0].startswith(f"irv2caffe train --resume '{folder}' --option")
    (log_only,) = diagnose(gather(Request(HEALTHY))).findings
    assert log_only.decide == f"irv2caffe diagnose {HEALTHY} --model last"
    assert "--resume RUN" in log_only.cure[0]  # there is no run folder


def test_findings_are_ranked():
    def several(_):
        for confidence, fit in ((POSSIBLE, 0.9), (LIKELY, 0.1), (LIKELY, 0.7), (MEASURED, 0.2)):
            yield replace(FINDING, confidence=confidence, fit=fit)

    rule = Rule("x", "", "x", ("displays",), (), several)
    found = run_rules(run(), [rule])
    assert [(one.confidence, one.fit) for one in found] == [
        (MEASURED, 0.2), (LIKELY, 0.7), (LIKELY, 0.1), (POSSIBLE, 0.9),
    ]  # fmt: skip
    assert {one.rule for one in found} == {"x"}
    assert not run_rules(run(losses=[], tests=[50.0]), [rule])  # without what it needs


# The command ------------------------------------------------------------------------------------


def test_exit_codes_and_ignored_rules(capsys):
    assert irv2caffe(["diagnose", str(NAN)]) == 3
    text = capsys.readouterr().out
    names = re.findall(r"\[([\w-]+)\]$", text, re.MULTILINE)
    assert "not-a-number" in names
    assert irv2caffe(["diagnose", str(NAN), "--fail-on", "measured"]) == 0
    ignored = [word for name in names for word in ("--ignore", name)]
    assert irv2caffe(["diagnose", str(NAN), *ignored]) == 0
    assert "nothing found" in capsys.readouterr().out
    assert irv2caffe(["diagnose", str(NAN), "--ignore", "not-a-numbr"]) == 2
    assert "did you mean not-a-number" in capsys.readouterr().err
    assert irv2caffe(["diagnose", str(HEALTHY), "--net", "x"]) == 2
    assert irv2caffe(["diagnose", "none.log"]) == 1


def test_json_holds_all(capsys):
    assert irv2caffe(["diagnose", str(NAN), "--json"]) == 3
    values = json.loads(capsys.readouterr().out)
    assert list(values) == ["run", "summary", "notes", "findings", "missing", "measured"]
    assert values["summary"]["last_loss"] is None  # NaN is no JSON
    first = values["findings"][0]
    assert first["confidence"] == "likely"
    assert {"symptom", "cause", "evidence", "against", "cure", "decide", "rule"} <= set(first)


def test_the_list_of_rules(capsys):
    assert irv2caffe(["diagnose", "--list-rules"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in RULES)
    assert irv2caffe(["diagnose", "--list-rules", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == list(RULES)


def test_the_page_has_the_findings_and_the_curves(tmp_path, capsys):
    page = tmp_path / "page.html"
    assert irv2caffe(["diagnose", str(NAN), "--html", str(page)]) == 3
    text = page.read_text()
    assert '<details class="card likely" open>' in text
    assert "[not-a-number]" in text
    assert text.index("<h2>Diagnosis</h2>") < text.index("<h2>Findings</h2>")
    assert irv2caffe(["diagnose", str(NAN), "--html", str(page)]) == 3  # its own is replaced
    page.write_text("mine")
    assert irv2caffe(["diagnose", str(NAN), "--html", str(page)]) == 1
    assert page.read_text() == "mine"
    assert irv2caffe(["diagnose", str(NAN), "--html", str(page), "--force"]) == 3
    log = tmp_path / "x.log"
    log.write_bytes(NAN.read_bytes())
    assert irv2caffe(["diagnose", str(log), "--html", str(log), "--force"]) == 2
    assert log.read_bytes() == NAN.read_bytes()
    capsys.readouterr()


def test_text_from_files_is_escaped_in_the_page():
    evil = '<script>alert(1)</script>\x1b]0;owned\x07"'
    finding = replace(FINDING, symptom=evil, cause=evil, evidence=(evil,), cure=(evil,), rule=evil)
    section = section_of(a_diagnosis(finding), evil)
    html = sections_html([section])
    assert "<script" not in html
    assert "\x1b" not in html
    assert "&lt;script&gt;" in html
    (card,) = section_of(a_diagnosis(FINDING), "x").cards
    marked = [text for _, texts in card.rows for text in texts if isinstance(text, Command)]
    assert marked == [FINDING.cure[0], FINDING.decide]


def test_the_report_of_plot_log_has_the_diagnosis_of_each_run(tmp_path, capsys):
    page = tmp_path / "page.html"
    assert irv2caffe(["plot-log", str(NAN), str(HEALTHY), "--html", str(page)]) == 0
    text = page.read_text()
    diagnosis = text[text.index("<h2>Diagnosis</h2>") : text.index("<h2>Findings</h2>")]
    first, second = diagnosis.split("<h3>healthy.log</h3>")
    assert "not-a-number" in first
    assert "not-a-number" not in second
    capsys.readouterr()


def test_a_model_is_tested_if_it_is_given(monkeypatch, capsys):
    asked = []

    def measure(request, evidence, _):
        asked.append((request, evidence))
        return Measured(weights=request.model, notes=("the weather",), first_bad_layer="conv")

    monkeypatch.setattr("irv2caffe.diagnose.measure.measure.measure", measure)
    words = ["--model", "some.caffemodel", "--limit", "50", "--engine", "torch", "--gpus", "1"]
    assert irv2caffe(["diagnose", str(NAN), *words]) == 3
    text = capsys.readouterr().out
    assert "tests of some.caffemodel" in " ".join(text.split())
    assert "the weather" in text
    ((request, evidence),) = asked
    assert (request.limit, request.engine, request.gpus) == (50, "torch", "1")
    assert isinstance(evidence, RunEvidence)


# The end of a training --------------------------------------------------------------------------


def result_of(folder, ending=Ending.DIVERGED):
    evidence = gather(Request(folder, reads_databases=False))
    return TrainResult(folder, Verdict(ending, "why", "hint"), evidence.summary, None)


def a_run(folder, log=NAN):
    folder.mkdir()
    (folder / "train.log").write_bytes(log.read_bytes())
    return folder


def test_train_ends_with_the_likely_causes(tmp_path, capsys):
    result = result_of(a_run(tmp_path / "run"))
    assert train_output.show_result(result, as_json=False) == 1
    printed = capsys.readouterr()
    lines = [line for line in printed.out.splitlines() if line.startswith("likely: ")]
    assert 1 <= len(lines) <= 3
    assert lines[0].endswith("[not-a-number]")
    assert f"next: irv2caffe diagnose {tmp_path / 'run'}" in printed.err
    train_output.show_result(result, as_json=True)
    values = json.loads(capsys.readouterr().out)
    assert "not-a-number" in [one["rule"] for one in values["diagnosis"]]


def test_train_keeps_the_diagnosis_in_the_run_folder(tmp_path, capsys):
    run = a_run(tmp_path / "run")
    result, path = result_of(run), run / "diagnosis.json"
    for _ in range(2):  # a further start replaces it
        train_output.show_result(result, as_json=True)
    printed = capsys.readouterr()
    values = json.loads(path.read_text())
    assert values.pop("program").startswith("irv2caffe ")
    assert values == json.loads(
        ui.json_text(diagnose(gather(Request(run, reads_databases=False))).as_dict())
    )
    assert "diagnosis.json" not in printed.err
    path.write_text("mine")
    assert train_output.show_result(result, as_json=False) == 1
    assert "no diagnosis.json: " in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_train_ends_without_causes_where_there_are_none(tmp_path, capsys):
    result = result_of(a_run(tmp_path / "run", HEALTHY), Ending.FINISHED)
    assert train_output.show_result(result, as_json=False) == 0
    printed = capsys.readouterr()
    assert "likely" not in printed.out
    assert "diagnose" not in printed.err


def test_a_rule_that_fails_does_not_spoil_the_result(tmp_path, capsys, monkeypatch):
    def fails(_):
        raise ZeroDivisionError("by zero")

    rule = Rule("bad", "", "x", (), (), fails)
    monkeypatch.setattr("irv2caffe.diagnose.diagnosis.RULES", {"bad": rule})
    result = result_of(a_run(tmp_path / "run"))
    assert train_output.show_result(result, as_json=False) == 1
    printed = capsys.readouterr()
    assert "diverged: " in printed.out
    assert "no diagnosis: by zero" in printed.err
    train_output.show_result(result, as_json=True)
    assert json.loads(capsys.readouterr().out)["diagnosis"] is None


def test_the_pieces_of_the_helper_are_real():
    """That runs for rules have what logs and files of Caffe have."""
    evidence = healthy(solver=SOLVER, train_val=TRAIN_VAL)
    assert isinstance(diagnose(evidence), Diagnosis)
    assert evidence.check.databases == DATABASES
    assert not evidence.anomalies
    assert not evidence.check_findings
    sgd = healthy(solver=changed(SOLVER, [("0.9\n", "0.5\n")]))
    assert sgd.solver_value("momentum") == 0.5  # of the log, without files
    assert sgd.solver_file.momentum == 0.5
    pair = run([3.0, 2.0, 1.0], [(50, 2.5), (40, 2.0, 10)], gpus=2, epochs=2)
    assert pair.effective_batch == 64
    assert [row.top1_error for row in pair.tests] == pytest.approx([50, 40])
    assert pair.tests[-1].top5_error == pytest.approx(10)
    assert pair.at(pair.num_iterations) == "epoch 2"
