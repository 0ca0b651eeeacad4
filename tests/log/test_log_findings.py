"""What is said of a run is so: for each finding a log that has it, and one that does not."""

from __future__ import annotations

import math
import random

import pytest
from helpers.log_lines import display, lines_of_test, run_of, stamped

from irv2caffe.log.anomalies import find_anomalies
from irv2caffe.log.describe import finding_lines
from irv2caffe.log.metrics import RunData
from irv2caffe.log.read.reader import read_lines
from irv2caffe.log.summary import summarize
from irv2caffe.log.table import make_table

NET = [
    stamped(0, "Initializing net from parameters: "),
    "layer {",
    "  inner_product_param {",
    "    num_output: 1000",
    "  }",
    "}",
]
GUESS = math.log(1000)


def found(lines):
    """Kind to (iteration, text) of the findings in a log."""
    return {
        one.kind: (one.iteration, one.text)
        for one in find_anomalies(RunData(make_table(read_lines(lines))))
    }


def falling(count, start=7.0, end=1.0):
    return [start * (end / start) ** (place / (count - 1)) for place in range(count)]


def noisy(values, share=0.3):
    chance = random.Random(1)
    return [value * (1 + share * (chance.random() - 0.5)) for value in values]


def test_a_healthy_run_has_none():
    tests = [{"accuracy": 1 - loss / 8, "loss": (1, loss)} for loss in falling(40)]
    assert found([*NET, *run_of(noisy(falling(80)), tests)]) == {}


# Collapse.


def test_collapse_says_where_and_how_it_is_now():
    tests = [{"accuracy": 0.2 + place / 100} for place in range(30)] + [{"accuracy": 0.005}] * 20
    kinds = found(run_of(falling(50), tests))
    iteration, text = kinds["collapse"]
    assert iteration == 300
    assert "accuracy of the test was 0.49 at iteration 290 and is 0.005 now" in text
    assert "plateau" not in kinds


@pytest.mark.parametrize(
    "tests",
    [
        [0.5] * 10 + [0.005] + [0.5] * 10,  # it came back
        [0.5] * 20 + [0.005],  # a single test may be one
        [0.03] * 10 + [0.005] * 10,  # there was nothing to lose
        [0.9 - place / 100 for place in range(40)],  # slowly worse is another thing
    ],
)
def test_no_collapse(tests):
    assert "collapse" not in found(run_of(falling(50), [{"accuracy": one} for one in tests]))


def test_collapse_of_scores_and_errors():
    tests = [{"mIoU": 0.6, "err": 0.2}] * 10 + [{"mIoU": 0.02, "err": 0.99}] * 10
    iteration, text = found(run_of(falling(50), tests))["collapse"]
    assert iteration == 100
    assert text.endswith("; 1 more output(s) collapsed too")


def test_a_loss_that_is_back_where_it_began():
    kinds = found(run_of(noisy(falling(60, 7, 2)) + noisy([7.0] * 40)))
    iteration, text = kinds["collapse"]
    assert iteration == 600
    assert "had fallen to" in text
    assert "stuck" not in kinds
    for healthy in (
        noisy(falling(60, 7, 2)) + noisy([3.0] * 40),
        noisy([5.0] * 100, 0.6),
        noisy([5.0] * 20, 1.5),
        falling(60, 7, 2) + [7.0] * 2,  # not yet to stay
    ):
        assert "collapse" not in found(run_of(healthy))


# A log that ends within a test.


def test_a_test_that_the_end_of_the_log_cuts_off_is_none():
    tests = [{"aux/top1": 0.2 + place / 20, "top1": 0.4 + place / 20} for place in range(10)]
    lines = run_of(falling(10), tests)
    cut = [*lines, *lines_of_test(100, {"aux/top1": 0.5})]
    whole = [*lines, *lines_of_test(100, {"aux/top1": 0.5, "top1": 0.9})]
    for some, last, error in ((cut, 90, 15.0), (whole, 100, 10.0), (lines, 90, 15.0)):
        table = make_table(read_lines(some))
        assert table.test[-1].iteration == last
        assert table.test[-1].top1_error == pytest.approx(error)
    # The net may have changed: the run went on after that test, or it is the only one.
    table = make_table(read_lines([*cut, *display(100, 1.0)]))
    assert table.test[-1].outputs == {"aux/top1": 0.5}
    assert len(make_table(read_lines(lines_of_test(0, {"aux/top1": 0.5}))).test) == 1


# A loss that explodes, or is pinned.


def test_a_loss_that_explodes_without_becoming_nan():
    kinds = found(run_of(falling(40) + [1e5, 3.2e7] + [2e7] * 5))
    iteration, text = kinds["exploded"]
    assert iteration == 400
    assert "rises to 3.2e+07 (iteration 410); it began at 7" in text
    iteration, text = found(run_of(falling(40) + [500.0] + [1.0] * 20))["exploded"]
    assert text.endswith("and is 1 again")
    assert "exploded" not in found(run_of(falling(40) + [60.0] + [1.0] * 20))
    assert "exploded" not in found(run_of([0.1, 7.0, *falling(40)]))
    iteration, text = found(run_of([2.24, 9.0, *[36.0] * 30]))["exploded"]
    assert iteration == 20  # within the first displays, and for good
    assert text == "the training loss rises to 36 (iteration 20); it began at 2.24"
    assert "exploded" not in found(run_of([0.1, *falling(60, 7.0, 2.0)]))
    assert "exploded" not in found(run_of([2.24, *[9.0] * 30]))
    kinds = found(run_of([*falling(40), 1e5, math.nan, math.nan]))
    assert (kinds["exploded"][0], kinds["nan"][0]) == (400, 410)


def heads(count, value, *, at=20, weights=(0.3, 1.0)):
    """A net of two heads, the second of which is at ``value`` from display ``at`` on."""
    lines = []
    for place in range(count):
        second = value if place >= at else 4 - place / 20
        lines += display(
            10 * place,
            weights[0] * 5 + weights[1] * second,
            outputs={"loss1/loss1": (weights[0], 5.0), "loss3/loss3": (weights[1], second)},
        )
    return lines


def test_a_pinned_head():
    lines = heads(40, 87.3365)
    kinds = found(lines)
    iteration, text = kinds["pinned"]
    assert iteration == 200
    assert text.startswith("loss3/loss3 is pinned at 87.3365")
    assert "exploded" not in kinds
    assert summarize(make_table(read_lines(lines))).diverged == 200
    assert "pinned" not in found(heads(40, 86.0))


def test_a_pinned_loss_behind_its_weight():
    def lines(losses, outputs):
        return [line for at, one in enumerate(losses) for line in display(10 * at, one, **outputs)]

    losses = [*falling(30, 5, 3), *[0.5 * 87.3365] * 10]
    outputs = {"outputs": {"cls": (0.5, 6.0)}}
    iteration, text = found(lines(losses, outputs))["pinned"]
    assert iteration == 300
    assert "43.6683, which is 0.5 x 87.3365" in text
    chance = [*falling(30, 50, 44), 43.6683, 40, 39]  # passes there
    assert "pinned" not in found(lines(chance, outputs))


def test_no_time_left_for_what_has_diverged():
    head = [stamped(0, "Initializing solver from parameters: "), "max_iter: 1000"]
    assert summarize(make_table(read_lines(head + run_of(falling(40))))).eta_hours
    lost = summarize(make_table(read_lines(head + run_of([*falling(40), math.nan, math.nan]))))
    assert (lost.diverged, lost.eta_hours) == (400, None)


# Guessing.


def test_guessing_though_the_first_displays_were_higher():
    kinds = found([*NET, *run_of([9.5, 8.5, 8, 7.5] * 5 + [GUESS + 0.01] * 60)])
    iteration, text = kinds["chance"]
    assert iteration == 600
    assert "guessing among 1,000 classes" in text
    assert found([*NET, *run_of([9.5, 8.5, 8, 7.5] * 5 + [6.5] * 60)]) == {}
    assert found(run_of([9.5, 8.5, 8, 7.5] * 5 + [GUESS] * 60)) == {}  # of how many classes?


def test_guessing_of_all_heads_or_of_one():
    def lines(second):
        return [
            line
            for place in range(40)
            for line in display(
                10 * place,
                0.3 * GUESS + second(place),
                outputs={"loss1": (0.3, GUESS), "loss2": (1, second(place))},
            )
        ]

    kinds = found([*NET, *lines(lambda _: GUESS)])
    assert "guessing among 1,000 classes" in kinds["stuck"][1]
    kinds = found([*NET, *lines(lambda place: GUESS - place / 10)])
    assert kinds["chance"][1].startswith("loss1 is 6.908, which is guessing")
    assert "stuck" not in kinds


def test_stuck_is_what_has_never_fallen():
    assert "has not fallen: 3 at first, 3 now" in found(run_of([3.0] * 40))["stuck"][1]
    assert "stuck" not in found(run_of(falling(40, 7, 2) + [8.0] * 40))


# Tests.


def test_overfitting():
    tests = [{"accuracy": 0.6, "loss": (1, 1 + place / 10)} for place in range(30)]
    iteration, text = found(run_of(falling(30, 2, 0.01), tests))["overfit"]
    assert iteration == 0
    assert text.startswith(
        "loss of the test rises: 1 here, 3.9 now; the training loss went on from"
    )
    rising = [{"loss": (1, abs(10 - place) + 1)} for place in range(30)]
    assert found(run_of(falling(30, 2, 0.01), rising))["overfit"][0] == 100
    for calm in (
        [{"loss": (1, 1 + place / 1000)} for place in range(30)],
        [{"loss": (1, 5 / (place + 1))} for place in range(30)],
        [{"loss": (1, 1.0)} for place in range(29)] + [{"loss": (1, 4.0)}],  # a single test
    ):
        assert "overfit" not in found(run_of(falling(30, 2, 0.01), calm))
    # The training loss rises as well.
    both = found(run_of([2 + place / 10 for place in range(30)], tests))
    assert "overfit" not in both
    assert both["rising"] == (0, "loss of the test rises: 1 here, 3.9 now")


def errors_of(*errors):
    return [{"accuracy": 1 - error / 100} for error in errors]


def test_an_end_that_is_far_above_the_best():
    """A real run of 1,212 pictures: 14.5 % at its seventh test, 31.4 % at its end."""
    errors = (60, 44, 38, 30, 22, 18, 14.5, 19, 24, 27, 29, 31.4)
    iteration, text = found(run_of(falling(12), errors_of(*errors)))["past-best"]
    assert iteration == 60
    assert text.startswith("the validation error was 14.5 % here, and is 31.4 % now")
    for calm in (
        (60, 44, 38, 30, 22, 18, 14.5, 16, 18),  # within what chance does
        (60, 44, 38),  # too few
        (5, 44, 38, 30),  # before the first iteration
        (3, 60, 2, 1, 0.5, 4),
    ):
        assert "past-best" not in found(run_of(falling(len(calm)), errors_of(*calm)))
    collapsed = errors_of(*[60, 30, 10, 8, 8, *[99] * 8])
    kinds = found(run_of(falling(13), collapsed))
    assert "collapse" in kinds
    assert "past-best" not in kinds


def test_a_validation_error_that_swings():
    errors = (80, 70, 50, 21, 52, 24, 49, 23, 47)
    iteration, text = found(run_of(falling(9), errors_of(*errors)))["swing"]
    assert iteration == 30
    assert "swings from test to test, between 21.0 and 52.0 % since" in text
    for calm in (
        (80, 70, 50, 40, 38, 36, 50.8, 35, 34, 33),  # one jump, as lim0606's
        (80, 70, 50, 41, 46, 40, 45, 39, 44),  # of few percent
        (80, 20, 80, 40, 38, 37, 36, 35, 34, 33, 32, 31),  # at the start
        tuple(range(80, 20, -5)),
    ):
        assert "swing" not in found(run_of(falling(len(calm)), errors_of(*calm)))


def test_a_plateau_says_how_it_is_now():
    errors = [60 - place for place in range(20)] + [40.5] * 20 + [44.0]
    tests = [{"accuracy": 1 - error / 100} for error in errors]
    iteration, text = found(run_of(falling(41), tests))["plateau"]
    assert "best 41.0 % until then, 40.5 % since, 44.0 % now" in text
    assert iteration == 190
    assert "plateau" not in found(run_of(falling(41), tests[:20]))
    solved = [{"accuracy": 0.995}] * 40
    assert "plateau" not in found(run_of(falling(41), solved))


# The learning rate, the rhythm, what Caffe says of itself.


def rated(rates):
    return [
        line
        for place, rate in enumerate(rates)
        for line in display(10 * place, 3 - place / 100, lr=rate)
    ]


def test_a_learning_rate_that_is_gone():
    iteration, text = found(rated([0.001 * 0.4**place for place in range(40)]))["lr"]
    assert iteration == 160
    assert "0.001 at first, 4.29e-10 here, 3.02e-19 now" in text
    poly = [0.01 * (1 - place / 39) for place in range(40)]
    assert "lr" not in found(rated(poly))
    assert "lr" not in found(rated([0.1] * 20 + [1e-5] * 20))
    assert "lr" not in found(rated([1e-9] * 5 + [0.1] * 30))  # warms up
    assert "lr" not in found(rated([0.0] * 40))


def test_a_stall_is_one_for_its_iterations():
    def lines(iterations, seconds):
        return [
            stamped(second, f"Iteration {iteration}, loss = {5 - place / 100:g}")
            for place, (iteration, second) in enumerate(zip(iterations, seconds, strict=True))
        ]

    every = [20 * place for place in range(40)]
    iteration, text = found(
        lines(every, [3 * at + 4000 * (at > 400) for at in every])
    )["stall"]  # fmt: skip
    assert iteration == 420
    assert "nothing was logged for 68 min; 20 iterations take 60 s" in text
    # Lines that were cut out: the iterations between took their time.
    cut = [at + 5000 * (at > 400) for at in every]
    assert found(lines(cut, [3 * at for at in cut])) == {}


def test_what_caffe_says_of_its_future_and_timings_is_no_finding():
    def warned(message):
        return stamped(0, message).replace("I1124", "W1124")

    lines = [
        warned("Note that future Caffe releases will only support transform_param messages"),
        warned("Attempting to upgrade input file specified using deprecated V1LayerParameter: x"),
        warned("Successfully upgraded file specified using deprecated V1LayerParameter"),
        warned("DELTA FORWARD TIME: 41.628 ms"),
        warned("LAYER-0 Data: forward_time: 1.636 ms"),
        warned("####################"),
        warned(""),
        warned("DEPRECATION WARNING - deprecated use of Python interface"),
        *run_of(falling(20)),
    ]
    log = read_lines(lines)
    assert finding_lines(summarize(make_table(log)), log) == []
    log = read_lines([warned("Warning: had one or more problems upgrading x (see above)"), *lines])
    assert [kind for kind, _ in finding_lines(summarize(make_table(log)), log)] == ["warning"]


def test_a_test_of_another_net_says_nothing_of_the_first():
    lines = []
    for place in range(20):
        lines += lines_of_test(10 * place, {"loss": (1, 2.0)})
        lines += lines_of_test(10 * place, {"loss": (1, 1.0 + place)}, net=1)
        lines += display(10 * place, 2 - place / 11)
    assert "overfit" not in found(lines)
