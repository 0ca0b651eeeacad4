"""Real runs in Caffe: what is found first is what went wrong, and a healthy one gets no word.

The logs in ``files/runs`` are of a net of three convolutions on Fashion-MNIST or ten classes of
CIFAR-100; each run had one fault, or none. What Caffe says while it sets up layers was cut out.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.evaluation_jobs import NAMES, TRAIN_VAL
from helpers.paths import FILES
from helpers.program import run

from irv2caffe.cli.main import cli
from irv2caffe.data.lmdb_store import DatabaseWriter
from irv2caffe.data.records.datum import raw_head, raw_tail, record_key
from irv2caffe.diagnose.diagnosis import diagnose
from irv2caffe.diagnose.finding import LIKELY, MEASURED
from irv2caffe.diagnose.gather import Request, gather

RUNS = FILES / "runs"
NUM_IMAGES = {"overfit": 400, "decayed": 5000}  # of training; the others have 6,000

# Run, causes of which one must come first, and as how sure at least.
FAULTS = {
    "batchstats": ("first-epoch-gap batch-statistics-in-test", LIKELY),
    "decayed": ("learning-rate-decayed-too-fast", LIKELY),
    "mismatch": ("preprocessing-differs", MEASURED),
    "nan_mid": ("not-a-number", LIKELY),
    "overfit": ("overfitting", LIKELY),
    "stale_heals": ("running-statistics", LIKELY),
    "toohigh": ("learning-rate-too-high", LIKELY),
    "unshuffled": ("badly-mixed", LIKELY),
    "wronglabels": ("validation-at-chance", LIKELY),
}


def found_in(name):
    """The findings of a log, without its databases."""
    request = Request(RUNS / f"{name}.log.gz", num_train_images=NUM_IMAGES.get(name, 6000))
    return diagnose(gather(request)).findings


def sure(findings):
    return [each.rule for each in findings if each.confidence >= LIKELY]


@pytest.mark.parametrize("name", FAULTS)
def test_the_first_finding_is_what_went_wrong(name):
    causes, confidence = FAULTS[name]
    findings = found_in(name)
    assert findings[0].rule in causes.split()
    assert findings[0].confidence >= confidence


def test_a_healthy_run_gets_no_word():
    assert found_in("healthy") == ()


@pytest.mark.parametrize("name", sorted(set(FAULTS) - {"overfit"}))
def test_what_nothing_speaks_for_is_not_likely(name):
    wrong = {"overfitting", "residual-scaling", "learning-rate-too-low", "loss-at-guessing"}
    assert not wrong.intersection(sure(found_in(name)))


COMMAND = re.compile(r"irv2caffe ([a-z-]+)([^;:]*)")


def test_what_is_suggested_are_options_of_its_commands():
    original = diagnose(gather(Request(Path("original-2016")))).findings
    findings = [*original, *(each for name in FAULTS for each in found_in(name))]
    texts = [text for each in findings for text in (*each.cure, each.decide)]
    commands = [match for text in texts for match in COMMAND.findall(text)]
    assert len(commands) > 20
    for name, words in commands:
        known = {each for one in cli.commands[name].params for each in one.opts}
        assert known.issuperset(re.findall(r"(?<!\S)--[a-z-]+", words)), words


# Trained here -----------------------------------------------------------------------------------

SOLVER = """
net: "train_val.prototxt" test_iter: 90 test_interval: 60 test_initialization: false
base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0001 display: 5 max_iter: 180
snapshot: 180 snapshot_prefix: "net" solver_mode: CPU random_seed: 1
"""
BATCH_STATISTICS = "batch_norm_param { use_global_stats: false }"
RUNNING = "batch_norm_param { moving_average_fraction: 0.9 }"


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    """600 and 180 noisy images of six classes, brighter for higher labels; also class by class."""
    root = tmp_path_factory.mktemp("databases")
    rng = np.random.default_rng(3)
    for part, count in (("train", 600), ("val", 180), ("sorted", 600)):
        labels = np.sort(np.arange(count) % 6) if part == "sorted" else rng.permutation(count) % 6
        folder = root / part
        folder.mkdir()
        with DatabaseWriter(folder) as writer:
            for index, label in enumerate(labels.tolist()):
                planes = (rng.integers(0, 120, (3, 14, 14)) + 25 * label).astype(np.uint8)
                record = raw_head(planes.shape) + planes.tobytes() + raw_tail(label)
                writer.put(record_key(index, f"{index}.png"), record)
        (folder / "labels.txt").write_text("\n".join(NAMES) + "\n")
    return root


def trained(folder, databases, *, train="train", statistics=RUNNING):
    """Trains three epochs in the real Caffe, with a TEST batch of 2; the run folder."""
    net = TRAIN_VAL.format(root=databases, batch=2, statistics=statistics)
    net = net.replace(f'"{databases}/train"', f'"{databases}/{train}"')
    (folder / "train_val.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(SOLVER)
    words = ("--gpus", "none", "--engine", "caffe", "--run-dir", "run", "--no-plot")
    command = ("train", "--solver", "solver.prototxt", *words, "--ignore-findings")
    result = run(*command, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "run"


def diagnosed(folder, *options):
    result = run("diagnose", folder, "--json", *options)
    assert result.returncode in {0, 3}, result.stderr
    return json.loads(result.stdout)


def test_an_unmixed_database_is_found_without_a_model(caffe, tmp_path, databases):
    found = diagnosed(trained(tmp_path, databases, train="sorted"))
    first = found["findings"][0]
    assert (first["rule"], first["confidence"]) == ("ordered-database", "measured")
    assert "learning-rate-too-high" not in [each["rule"] for each in found["findings"]]


def test_tests_of_the_model_tell_the_cause(caffe, tmp_path, databases):
    folder = trained(tmp_path, databases, statistics=BATCH_STATISTICS)
    found = diagnosed(folder, "--model", "last", "--limit", "180")
    first = found["findings"][0]
    assert (first["rule"], first["confidence"]) == ("tested-batch-statistics", "measured")
    by_batch = {size: score["top1_error"] for size, score in found["measured"]["by_test_batch"]}
    assert by_batch[2] > by_batch[16] + 10


def test_a_model_without_fault_gets_no_likely_cause(caffe, tmp_path, databases):
    words = ("--model", "last", "--engine", "torch", "--limit", "180")
    found = diagnosed(trained(tmp_path, databases), *words)
    assert not {"likely", "measured"}.intersection(each["confidence"] for each in found["findings"])
    assert found["measured"]["val"]["top1_error"] < 30
