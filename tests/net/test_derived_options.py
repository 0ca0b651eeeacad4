"""Options that are derived from the data at hand, and who wins over them."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from irv2caffe.caffe.command import tool_command
from irv2caffe.config import Recipe, SolverOptions, load_recipe
from irv2caffe.errors import UsageError
from irv2caffe.net.settings import settings
from irv2caffe.net.solver import plan_schedule

PLAIN = load_recipe("paper")


def resolved(recipe=PLAIN, num_train=1212, side=None, measured=None, **given):
    return settings(recipe, given, measured or {}, num_train=num_train, side=side)


def found(settings_, name):
    """The value of an option and its source."""
    rows = {row[0]: row[1:] for row in (*settings_.net.rows(), *settings_.solver.rows())}
    return rows[name]


def schedule(settings_, num_train):
    net, solver = settings_.net.options, settings_.solver.options
    return plan_schedule(solver, num_train=num_train, num_val=100, batch_size=net.batch_size)


def test_imagenet_derives_nothing():
    for recipe in ("paper", "paper-sgd", "seed", "lim0606", "twtygqyy"):
        assert resolved(load_recipe(recipe), 1_281_167).derived_lines() == []
    assert resolved(num_train=50_000, variant="small32").derived_lines() == []  # CIFAR


@pytest.mark.parametrize(
    ("num_train", "epochs", "batch", "fraction"),
    [
        (1_281_167, 2.0, 32, 0.999),  # 80,073 batches
        (64_000, 25.0, 32, 0.999),  # 50,000: the window of 1000 is a 50th of them
        (64_000, 12.5, 32, 0.998),
        (64_000, 1.0, 32, 0.975),  # 2,000 batches, a window of 40
        (1_212, 12.0, 32, 0.9),  # 455 batches: no window below 10
        (3_200, 1.0, 320, 0.9),
    ],
)
def test_the_window_of_batchnorm_is_a_50th_of_the_run(num_train, epochs, batch, fraction):
    made = resolved(num_train=num_train, epochs=epochs, batch_size=batch)
    value, source = found(made, "bn_fraction")
    assert value == pytest.approx(fraction, abs=5e-5)
    assert source == "default" if fraction == 0.999 else source.startswith("derived: an average")


def test_gpus_shorten_the_run_and_iter_size_does_not():
    """Each GPU sees its share of the batches, and every pass of an iteration moves the average."""
    alone, two, summed = (
        found(resolved(num_train=64_000, epochs=2.0, **more), "bn_fraction")[0]
        for more in ({}, {"num_gpus": 2}, {"iter_size": 2})
    )
    assert alone == summed == pytest.approx(1 - 1 / 80, abs=5e-5)
    assert two == pytest.approx(1 - 1 / 40, abs=5e-5)


AVERAGE = """
import caffe, sys, numpy as np
net = caffe.Net(sys.argv[1], caffe.TRAIN)
for values in np.load(sys.argv[2])['x']:
    net.blobs['x'].data[...] = values
    net.forward()
mean, variance, factor = (blob.data.copy() for blob in net.params['bn'])
np.savez(sys.argv[3], mean=mean / factor, factor=factor)
"""


@pytest.mark.slow
def test_caffe_averages_as_the_derivation_says(caffe, tmp_path):
    """Weights f^n, debiased: the age is f / (1 - f), the steadiness that of (1 + f) / (1 - f)."""
    fraction, passes = 0.9, 200
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 2 } } }'
        'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "y"'
        f" batch_norm_param {{ moving_average_fraction: {fraction} }} }}"
    )
    x = np.random.default_rng(0).normal(0, 1, (passes, 4, 2)).astype("f4")
    np.savez(tmp_path / "in.npz", x=x)
    paths = [str(tmp_path / name) for name in ("net.prototxt", "in.npz", "out.npz")]
    command = tool_command(caffe, "python", ["-c", AVERAGE, *paths])
    subprocess.run(command.argv, env=command.env, capture_output=True, check=True)
    weights = fraction ** np.arange(passes)[::-1]
    weights /= weights.sum()
    got = np.load(tmp_path / "out.npz")
    assert np.allclose(got["mean"], np.tensordot(weights, x.mean(1), 1), atol=1e-5)
    assert (weights * np.arange(passes)[::-1]).sum() == pytest.approx(0.9 / 0.1, rel=1e-3)
    assert 1 / (weights**2).sum() == pytest.approx(1.9 / 0.1, rel=1e-3)


def test_a_short_run_tests_at_most_24_times_and_keeps_each():
    made = resolved()  # 120 epochs of 38 iterations
    assert found(made, "test_epochs") == (5.0, "derived: 24 tests in a short run")
    assert found(made, "snapshot_epochs") == (5.0, "derived: at each test, to keep the best")
    plan = schedule(made, 1212)
    assert plan.snapshot == plan.test_interval
    assert plan.max_iter // plan.test_interval == 24


@pytest.mark.parametrize(
    ("epochs", "num_train", "tests", "snapshots"),
    [
        (12.0, 1_212, 12, 12),
        (1.0, 1_212, 1, 1),
        (24.0, 1_281_167, 24, 24),
        (36.0, 1_281_167, 36, 6),
        (100.0, 1_281_167, 100, 10),
        (120.0, 1_281_167, 120, 12),
    ],
)
def test_snapshots_of_shorter_and_longer_runs(epochs, num_train, tests, snapshots):
    plan = schedule(resolved(num_train=num_train, epochs=epochs), num_train)
    assert plan.max_iter // plan.test_interval == tests
    assert plan.max_iter // plan.snapshot == snapshots


@pytest.mark.parametrize("num_train", [300, 1_212, 64_000, 1_281_167])
@pytest.mark.parametrize("epochs", [0.5, 3.0, 12.0, 119.0])
def test_a_shorter_run_ends_near_the_recipes_last_rate(num_train, epochs):
    plan = schedule(resolved(num_train=num_train, epochs=epochs), num_train)
    steps = plan.max_iter // plan.stepsize
    assert plan.max_iter / 60 <= plan.stepsize + 0.5
    assert steps <= 61
    if plan.max_iter > 600:
        assert steps >= 54
    same = schedule(resolved(num_train=num_train, epochs=240.0), num_train)
    assert same.stepsize == max(1, round(2 * num_train / 32))


def test_what_is_stated_wins():
    given = {"bn_fraction": 0.5, "test_epochs": 2.0, "snapshot_epochs": 3.0, "lr_decay_epochs": 4.0}
    made = resolved(epochs=10.0, **given)
    assert made.derived_lines() == []
    assert {found(made, name) for name in given} == {(v, "command line") for v in given.values()}
    own = Recipe("own", {"bn_fraction": 0.5}, {"epochs": 10.0, "snapshot_epochs": 3.0})
    made = resolved(own)
    assert found(made, "bn_fraction") == (0.5, "recipe own")
    assert found(made, "snapshot_epochs") == (3.0, "recipe own")
    assert found(made, "test_epochs") == (1.0, "default")


def test_a_recipes_steps_belong_to_its_own_length():
    own = Recipe("own", {}, {"epochs": 30.0, "lr_decay_epochs": 10.0, "lr_decay": 0.1})
    assert found(resolved(own, 64_000), "lr_decay_epochs") == (10.0, "recipe own")
    value, source = found(resolved(own, 64_000, epochs=15.0), "lr_decay_epochs")
    assert (value, source) == (5.0, "derived: 3 steps in the run, 3 in 30 epochs")
    assert found(resolved(own, 64_000, epochs=60.0), "lr_decay_epochs") == (10.0, "recipe own")


def test_kept_statistics_have_no_window():
    assert found(resolved(bn_statistics="kept"), "bn_fraction") == (0.999, "default")


def test_the_seed_keeps_its_fraction_and_its_channels():
    made = resolved(load_recipe("seed"), 1212, measured={"channels": 1})
    assert found(made, "bn_fraction") == (0.999, "default")
    assert found(made, "channels") == (3, "default")


@pytest.mark.parametrize(
    ("side", "variant", "crop"),
    [
        (28, "small32", 28),
        (32, "small32", 32),
        (63, "small32", 60),
        (64, "small75", 59),
        (96, "small75", 91),
        (138, "small75", 131),
        (139, "paper", 139),
        (224, "paper", 203),
        (235, "slim", 235),
        (256, "slim", 235),
        (328, "slim", 299),
        (500, "slim", 299),
    ],
)
def test_auto_takes_a_variant_by_the_size_of_the_images(side, variant, crop):
    made = resolved(side=side, variant="auto")
    assert found(made, "variant") == (variant, f"derived: for images of {side} pixels")
    assert found(made, "crop")[0] == crop
    assert found(made, "width")[0] == (0.5 if variant.startswith("small") else 1.0)


def test_auto_gives_way_to_a_crop_and_suits_the_auxiliary_classifier():
    assert found(resolved(side=328, variant="auto", crop=235), "crop") == (235, "command line")
    assert found(resolved(side=90, variant="auto", aux=True), "crop")[0] == 75
    own = Recipe("own", {"variant": "auto", "crop": 267}, {})
    assert found(resolved(own, side=328), "crop") == (267, "recipe own")
    assert found(resolved(own, side=328), "variant")[0] == "slim"
    assert found(resolved(own, side=328, variant="paper"), "variant") == ("paper", "command line")


@pytest.mark.parametrize(("side", "words"), [(None, "size of all images"), (5, "too small")])
def test_auto_needs_images_of_a_size(side, words):
    with pytest.raises(UsageError, match=words):
        resolved(side=side, variant="auto")


def test_a_default_crop_shrinks_to_the_images():
    assert found(resolved(side=256), "crop") == (
        235,
        "derived: largest of slim in images of 256 pixels",
    )
    assert found(resolved(side=299), "crop") == (299, "default")
    assert found(resolved(side=256, crop=299), "crop") == (299, "command line")  # refused later
    assert found(resolved(side=28, variant="small32"), "crop")[0] == 28
    with pytest.raises(UsageError, match="too small for --variant slim"):
        resolved(side=32)


def test_weights_that_fix_the_variant_win_over_auto():
    """As train --recipe finetune derives it; the crop is one of that variant."""
    fixed = {"variant": ("slim", "as in w.caffemodel")}
    made = settings(PLAIN, {"variant": "auto"}, {}, num_train=99, side=96, derived=fixed)
    assert found(made, "variant") == ("slim", "derived: as in w.caffemodel")
    assert found(made, "crop")[0] == 75


@pytest.mark.parametrize("num_train", [1, 10**30])
@pytest.mark.parametrize("epochs", [1e-30, 1e30])
def test_any_length_is_derived_without_a_crash(num_train, epochs):
    assert isinstance(resolved(num_train=num_train, epochs=epochs).solver.options, SolverOptions)
