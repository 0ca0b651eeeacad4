"""Rules that compare the solver with its recipe."""

from __future__ import annotations

import pytest
from helpers.diagnose_cases import SOLVER, TRAIN_VAL, changed, healthy, run
from helpers.log_lines import display, stamped

import irv2caffe.diagnose.rules  # noqa: F401 - registers them
from irv2caffe.diagnose.finding import LIKELY, POSSIBLE
from irv2caffe.diagnose.registry import RULES, run_rules

RMSPROP = changed(
    SOLVER, [('"SGD"', '"RMSProp"'), ("momentum: 0.9\n", "delta: 1.0\nrms_decay: 0.9\n")]
)
HEADER = """# irv2caffe 0.2.0
# irv2caffe build-net --out net --gpus 0,1,2,3
# effective batch 64 = batch_size 16 x 4 GPU(s) x iter_size 1
# 32,000 training images = 500.00 iterations per epoch
"""
FLAT = {"losses": lambda epoch: 1.2 + 1.1 * 0.4**epoch, "tests": lambda epoch: 50 + 40 * 0.4**epoch}
OVERFIT = {
    "losses": lambda epoch: 0.02 + 2.2 * 0.8**epoch,
    "tests": lambda epoch: (50 + 40 * 0.4**epoch, 1.4 + 0.05 * epoch),
}


def found(evidence):
    """The findings of these rules, by rule."""
    rules = [each for each in RULES.values() if each.topic == "optimizer"]
    return {one.rule: one for one in run_rules(evidence, rules)}


def with_files(text, shape, **more):
    return run(**shape, solver=text, train_val=TRAIN_VAL, **more)


def test_rmsprop_has_no_momentum():
    finding = found(with_files(RMSPROP, FLAT))["momentum-missing"]
    assert finding.confidence == POSSIBLE
    assert finding.symptom.startswith(
        "The run is slower than its recipe: the validation error stands still"
    )
    assert "0.0028 per image" in finding.evidence[1]  # 0.045 / 16
    assert finding.cure == ("irv2caffe build-net --out net --recipe paper-sgd",)
    assert len(finding.against) == 1  # others trained with it
    # A loss that fell far speaks against it as well.
    fitted = found(with_files(RMSPROP, OVERFIT))["momentum-missing"]
    assert "large enough to fit" in fitted.against[0]
    assert fitted.fit < 0.5


def test_sgd_without_momentum():
    finding = found(with_files(changed(SOLVER, [("momentum: 0.9\n", "")]), FLAT))
    assert finding["momentum-missing"].cure[0].endswith("--momentum 0.9")
    # Also where only the log says so.
    text = changed(SOLVER, [("momentum: 0.9\n", "")])
    assert "momentum-missing" in found(run(**FLAT, solver=text))
    assert "momentum-missing" not in found(with_files(SOLVER, FLAT))


def test_a_batch_other_than_in_the_solvers_header():
    finding = found(with_files(HEADER + SOLVER, FLAT))["effective-batch"]
    assert finding.confidence == POSSIBLE
    (sign,) = finding.evidence
    assert sign.startswith("The solver was written for 64 images per update, the run had 16: ")
    assert sign.endswith("an epoch has 4 times as many iterations as it assumes.")
    assert finding.cure[0].endswith("--base-lr 0.0112")
    assert finding.cure[1].startswith("stepsize and max_iter times 4;")
    assert "effective-batch" not in found(with_files(HEADER + SOLVER, FLAT, gpus=4))
    assert "effective-batch" not in found(with_files(SOLVER, FLAT))


def test_a_batch_that_changes_when_the_run_is_resumed():
    later = [
        stamped(36_000, "Using GPUs 0, 1, 2, 3"),
        stamped(36_000, "Initializing solver from parameters: "),
        SOLVER.strip(),
        stamped(36_000, "Starting Optimization"),
        stamped(36_000, "Restoring previous solver status from net_iter_60000.solverstate"),
    ]
    for place in range(100):
        later += display(60_000 + 100 * place, 1.2, lr=0.045, seconds_each=0.6)
    finding = found(with_files(SOLVER, FLAT, lines=later)).get("effective-batch")
    assert finding is not None
    assert "from 16 to 64 images per update (epoch" in finding.evidence[0]


def test_no_weight_decay_where_a_net_overfits():
    none = changed(SOLVER, [("weight_decay: 0.0001\n", "")])
    finding = found(with_files(none, OVERFIT))["weight-decay"]
    assert finding.confidence == POSSIBLE
    assert "the training loss went on from" in finding.evidence[0]
    assert "weight_decay 0" in finding.evidence[1]
    assert finding.cure[0].endswith("--weight-decay 0.0001")
    for evidence in (with_files(SOLVER, OVERFIT), with_files(none, FLAT), healthy(solver=none)):
        assert "weight-decay" not in found(evidence)


def test_far_too_much_weight_decay():
    much = changed(SOLVER, [("weight_decay: 0.0001", "weight_decay: 0.05")])
    high = {"losses": lambda epoch: 1.9 + 0.4 * 0.4**epoch, "tests": FLAT["tests"]}
    finding = found(with_files(much, high))["weight-decay"]
    assert finding.confidence == LIKELY
    assert "published recipes have 4e-5 to 5e-4" in finding.evidence[0]
    assert "weight-decay" not in found(with_files(SOLVER, high))


def clipped(number, norm=700.0):
    """The lines of clipping between displays."""
    text = f"Gradient clipping: scaling down gradients (L2 norm {norm:g} > 35) by scale factor 0.05"
    return [stamped(36_000, text)] * number


def test_gradients_that_are_always_clipped():
    text = changed(SOLVER, [('type: "SGD"', 'type: "SGD"\nclip_gradients: 35\niter_size: 2')])
    lines = [stamped(36_000, "Iteration 60000, loss = 1.2"), *clipped(50_000)]
    evidence = run(**FLAT, solver=text, iterations=60_000, lines=lines)
    finding = found(evidence)["gradient-clipping"]
    assert finding.confidence == LIKELY
    assert "the norm was 700, the bound is 35" in finding.evidence[0]
    assert "for one batch the bound is 17.5" in finding.evidence[1]
    assert "20 times smaller" in finding.cause
    few = run(**FLAT, solver=text, iterations=60_000, lines=[lines[0], *clipped(500)])
    assert "gradient-clipping" not in found(few)


@pytest.mark.parametrize(
    ("kind", "more", "cures"),
    [("RMSProp", "delta: 1e-8\n", 2), ("Adam", "momentum2: 0.999\n", 1)],
)
def test_a_rate_for_descent_with_an_adaptive_type(kind, more, cures):
    text = changed(SOLVER, [('"SGD"', f'"{kind}"'), ("momentum: 0.9\n", more)])
    stuck = {"losses": lambda _: 2.31, "tests": lambda _: (90.0, 2.31)}
    finding = found(with_files(text, stuck))["adaptive-step"]
    assert finding.confidence == LIKELY
    assert finding.evidence[0] == f"The solver is {kind} with delta 1e-08 and base_lr 0.045."
    assert len(finding.cure) == cures
    low = changed(text, [("base_lr: 0.045", "base_lr: 0.001")])
    for evidence in (
        with_files(low, stuck),
        with_files(RMSPROP, stuck),
        healthy(solver=text, train_val=TRAIN_VAL),
    ):
        assert "adaptive-step" not in found(evidence)


@pytest.mark.parametrize("text", [SOLVER, RMSPROP, HEADER + SOLVER])
def test_nothing_on_a_healthy_run(text):
    assert not found(healthy(solver=text, train_val=TRAIN_VAL))
    assert not found(healthy(solver=text))
    assert not found(healthy())
