"""Epochs into iterations, recipes, and where values come from."""

from __future__ import annotations

import pytest

from irv2caffe.config import (
    NetOptions,
    SolverOptions,
    load_recipe,
    net_options,
    recipe_names,
    resolve,
)
from irv2caffe.errors import FormatError, UsageError
from irv2caffe.net.build import build_net
from irv2caffe.net.solver import plan_schedule
from irv2caffe.proto import messages
from irv2caffe.proto.text import read_prototxt


def of_recipe(name, **sizes):
    """Schedule and solver of a recipe on ILSVRC12, or on other sizes."""
    values = load_recipe(name)
    net, solver = (
        resolve(NetOptions, values, {}).options,
        resolve(SolverOptions, values, {}).options,
    )
    sizes = {"num_train": 1_281_167, "num_val": 50_000, **sizes}
    return plan_schedule(solver, batch_size=net.batch_size, **sizes), net, solver


def test_schedule_of_the_original_run():
    """Batch 16 on two GPUs with iter_size 2 on ILSVRC12: computed by hand."""
    schedule, net, _ = of_recipe("seed")
    assert net.variant == "seed"
    assert schedule.effective_batch == 64
    assert schedule.test_interval == 20_018  # 1281167 / 64 = 20018.2
    assert schedule.stepsize == 40_036
    assert schedule.max_iter == 120 * 20_018
    assert schedule.snapshot == 10 * 20_018
    assert schedule.test_iter * schedule.test_batch_size == 50_000
    assert schedule.epochs == pytest.approx(120, abs=0.01)


def test_recipes_say_what_their_sources_say():
    """Batch, learning rate and step of other people's runs, in their own iterations."""
    lim, net, solver = of_recipe("lim0606")
    assert (lim.effective_batch, solver.type, net.trunk) == (64, "Nesterov", 2048)
    assert abs(lim.stepsize - 12_800) <= 20
    assert net.residual_scale == (0.1, 0.1, 0.1)
    twty, net, solver = of_recipe("twtygqyy")
    assert (twty.effective_batch, solver.base_lr, solver.clip_gradients) == (20, 0.072, 80)
    assert abs(twty.stepsize - 6_663) <= 10
    assert abs(twty.max_iter - 1_066_080) / 1_066_080 < 0.003
    assert net.residual_scale is None
    paper, _, solver = of_recipe("paper")
    assert (solver.base_lr, solver.lr_decay, solver.delta, paper.num_gpus) == (0.045, 0.94, 1, 1)
    assert of_recipe("paper-sgd")[2].momentum == 0.9


@pytest.mark.parametrize(
    ("epochs", "test_epochs", "num_train", "interval"),
    [
        (1, 5, 1600, 100),  # a test that is rarer than the run is long stands at its end
        (4, 3, 1600, 400),
        (5, 2, 1600, 250),
        (120, 1, 300, 19),  # 18.75 iterations per epoch
        (120, 1, 20, 1),
        (0.01, 0.001, 1600, 1),
    ],
)
def test_tests_do_not_change_the_length_of_a_run(epochs, test_epochs, num_train, interval):
    options = SolverOptions(epochs=epochs, test_epochs=test_epochs, snapshot_epochs=epochs)
    schedule = plan_schedule(options, num_train=num_train, num_val=100, batch_size=16)
    assert schedule.test_interval == interval
    assert schedule.max_iter % interval == schedule.snapshot % interval == 0
    assert abs(schedule.max_iter - epochs * num_train / 16) <= interval / 2
    assert schedule.snapshot == schedule.max_iter


@pytest.mark.parametrize(
    "told", [{"epochs": 1e30}, {"snapshot_epochs": 1e10}, {"lr_decay_epochs": 1e9}]
)
def test_more_iterations_than_caffe_counts(told):
    (name,) = told
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} .* than Caffe counts"):
        plan_schedule(SolverOptions(**told), num_train=1_000_000, num_val=100, batch_size=16)


def test_more_images_than_caffe_counts():
    for train, val in ((10**400, 10), (100, 10**20)):
        with pytest.raises(UsageError, match="than Caffe counts"):
            plan_schedule(SolverOptions(), batch_size=1, num_train=train, num_val=val)


def test_a_test_batch_must_divide_the_validation_set():
    options = SolverOptions()
    for num_val in (50_000, 997, 1000, 1):
        schedule = plan_schedule(options, num_train=1000, num_val=num_val, batch_size=10)
        assert schedule.test_iter * schedule.test_batch_size == num_val
    with pytest.raises(UsageError, match="does not divide") as caught:
        plan_schedule(options, num_train=1000, num_val=1000, batch_size=10, test_batch_size=33)
    assert "40" in caught.value.hint
    with pytest.raises(UsageError, match="more than the 5"):
        plan_schedule(options, num_train=5, num_val=10, batch_size=10)
    three = SolverOptions(num_gpus=3)
    with pytest.raises(UsageError, match="cannot be shared by 3 GPUs"):
        plan_schedule(three, num_train=1000, num_val=1000, batch_size=10, flavor="nvcaffe")


def test_a_validation_set_without_divisors_is_a_warning(tmp_path):
    built = build_net(tmp_path, net_options(), SolverOptions(), num_train=10_000, num_val=9_973)
    assert built.schedule.test_batch_size == 1
    assert "no divisor" in built.warnings[0]


def test_clipping_counts_the_summed_batches(tmp_path):
    options = SolverOptions(clip_gradients=10.0, iter_size=4)
    built = build_net(tmp_path, net_options(), options, num_train=1000, num_val=100)
    assert read_prototxt(built.solver, messages.SolverParameter).clip_gradients == 40


@pytest.mark.parametrize("num_gpus", [0, 2])
def test_the_solver_trains_where_it_was_told(tmp_path, num_gpus):
    options = SolverOptions(num_gpus=num_gpus, type="SGD", momentum=0.9)
    built = build_net(tmp_path, net_options(), options, num_train=1000, num_val=100)
    solver = read_prototxt(built.solver, messages.SolverParameter)
    assert solver.HasField("solver_mode")
    assert solver.solver_mode == (1 if num_gpus else 0)
    assert not solver.HasField("rms_decay")
    assert built.schedule.effective_batch == 32 * max(1, num_gpus)


def test_told_wins_over_recipe_over_variant_over_default():
    assert {"paper", "paper-sgd", "seed", "lim0606", "twtygqyy", "small-data", "finetune"} == set(
        recipe_names()
    )
    resolved = resolve(SolverOptions, load_recipe("paper-sgd"), {"base_lr": 0.1})
    assert (resolved.options.base_lr, resolved.options.momentum) == (0.1, 0.9)
    assert resolved.sources["base_lr"] == "command line"
    assert resolved.sources["momentum"] == "recipe paper-sgd"
    assert resolved.sources["random_seed"] == "default"
    net = resolve(NetOptions, load_recipe("paper"), {"variant": "small32", "width": 0.3})
    assert (net.options.crop, net.sources["crop"]) == (32, "variant small32")
    assert (net.options.width, net.sources["width"]) == (0.3, "command line")
    with pytest.raises(UsageError, match="no momentum"):
        resolve(SolverOptions, load_recipe("paper"), {"momentum": 0.9})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_lr", float("nan")),
        ("base_lr", -1.0),
        ("epochs", float("inf")),
        ("weight_decay", -1.0),
        ("clip_gradients", 0.0),
        ("lr_decay", 0.0),
        ("iter_size", 0),
        ("random_seed", -2),
        ("base_lr", 1e300),  # infinite in Caffe's float
        ("base_lr", 1e-300),  # 0 there
        ("clip_gradients", 1e39),
        ("type", "LBFGS"),
    ],
)
def test_values_outside_their_range(name, value):
    with pytest.raises(UsageError, match=name.replace("_", "-") if name != "type" else "type"):
        SolverOptions(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("scale", 1e-300), ("bn_eps", 1e-50)])
def test_numbers_that_caffe_cannot_hold(name, value):
    with pytest.raises(
        UsageError, match=f"--{name.replace('_', '-')} .* is too small for a 32-bit float"
    ):
        NetOptions(**{name: value})


def test_the_bound_that_the_solver_is_given_fits_too():
    SolverOptions(clip_gradients=1e38)
    with pytest.raises(UsageError, match="too large"):
        SolverOptions(clip_gradients=1e38, iter_size=8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[solver]\nbase_rl = 1.0\n", "unknown key 'base_rl'"),
        ("[solver]\nbase_lr = 'high'\n", "is not a float"),
        ("[net]\nresidual_scale = [0.1, 0.2]\n", "is not one number, or three"),
        ("[net]\naux = 1\n", "is not a bool"),
        ("[solvers]\n", "unknown table"),
        ("base_lr 1", "not TOML"),
    ],
)
def test_bad_recipes(tmp_path, text, words):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(FormatError, match=words):
        load_recipe(str(tmp_path / "mine.toml"))


def test_a_recipe_cannot_have_what_its_variant_has_not(tmp_path):
    (tmp_path / "mine.toml").write_text('[net]\nvariant = "seed"\ndropout = 0.5\n')
    with pytest.raises(UsageError, match="recipe mine: --dropout does not go with --variant seed"):
        resolve(NetOptions, load_recipe(str(tmp_path / "mine.toml")), {})
