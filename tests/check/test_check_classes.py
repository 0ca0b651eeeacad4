"""Rules on the numbers of images of the classes, beside those in the cases of all rules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.check_cases import FACTS, LOSS, TRAIN, net

import irv2caffe.check.rules  # noqa: F401  registers the rules
from irv2caffe.check.finding import Severity
from irv2caffe.check.nets import gather
from irv2caffe.check.read import read
from irv2caffe.check.registry import RULES, findings
from irv2caffe.proto.binary import blob_from_array

NAMES = ("a", "b", "c", "d")
UNEVEN = replace(TRAIN, class_counts=(900, 600, 10, 90), class_names=NAMES)


def _found(run, database, folder, monkeypatch, rule="class-imbalance"):
    monkeypatch.chdir(folder)
    path = run.write(folder)
    databases = {**FACTS, "train_lmdb": database}
    evidence = gather(read(path.relative_to(folder)), databases, run.claims)
    return [each for each in findings(evidence, RULES.values()) if each.rule == rule]


@pytest.mark.parametrize(
    ("counts", "severity"),
    [
        ((100, 100, 100, 11), Severity.NOTE),
        ((100, 100, 100, 34), None),
        ((100, 100, 100, 10), Severity.WARNING),
        ((100, 100, 100, 0), None),  # class-empty, where the class has a name
        ((), None),
    ],
)
def test_how_uneven_classes_are(counts, severity, tmp_path, monkeypatch):
    found = _found(net(), replace(TRAIN, class_counts=counts), tmp_path, monkeypatch)
    assert [each.severity for each in found] == [severity] * (severity is not None)


@pytest.mark.parametrize(
    ("matrix", "is_found"),
    [
        (np.eye(4) * [0.4, 0.7, 40.0, 4.4], False),
        (0.9 * np.eye(4) + 0.1 / 4, True),  # label smoothing
    ],
    ids=["weights", "smoothing"],
)
def test_a_loss_that_weights_the_classes(matrix, is_found, tmp_path, monkeypatch):
    loss = 'type: "InfogainLoss" infogain_loss_param { source: "h" }'
    blob = blob_from_array(matrix.astype(np.float32)[None, None]).SerializeToString()
    assert 'type: "SoftmaxWithLoss"' in LOSS
    run = net(('type: "SoftmaxWithLoss"', loss), files={"h": blob})
    assert bool(_found(run, UNEVEN, tmp_path, monkeypatch)) is is_found


def test_it_names_the_share_of_the_largest_class(tmp_path, monkeypatch):
    (found,) = _found(net(), UNEVEN, tmp_path, monkeypatch)
    assert "always answers 'a' is right for 56 %" in found.why  # 900 of 1,600
    assert "--balance" in found.fix
    assert "--class-weights" in found.fix


def test_a_name_of_a_stranger_stays_short(tmp_path, monkeypatch):
    names = ("a", "b", "c" * 5000, "d")
    (found,) = _found(net(), replace(UNEVEN, class_names=names), tmp_path, monkeypatch)
    assert len(found.what) < 200


def test_a_window_in_a_run_of_four(tmp_path, monkeypatch):
    """1,000 iterations: a window of 250 is a note, one of 1,000 a warning."""
    (found,) = _found(
        net(("fraction: 0.95", "fraction: 0.996")), TRAIN, tmp_path, monkeypatch, "bn-fraction"
    )
    assert found.severity is Severity.NOTE


def test_kept_statistics_have_no_window(tmp_path, monkeypatch):
    window = ("fraction: 0.95", "fraction: 0.999")
    kept = ("fraction: 0.95", "fraction: 0.999 use_global_stats: true")
    (found,) = _found(net(window), TRAIN, tmp_path, monkeypatch, "bn-fraction")
    assert found.severity is Severity.WARNING
    assert not _found(net(kept), TRAIN, tmp_path, monkeypatch, "bn-fraction")
