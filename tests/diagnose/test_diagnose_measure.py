"""Tests of a model that diagnose runs, against the real Caffe and values computed from it."""

import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from helpers.evaluation_jobs import (
    BATCH_STATISTICS,
    CROP,
    NAMES,
    NUM_TRAIN,
    NUM_VAL,
    caffe_test,
    make_databases,
    pixels_of,
    write_net,
)
from helpers.program import run

from irv2caffe.data.lmdb_store import DatabaseWriter
from irv2caffe.data.records.datum import raw_head, raw_tail, record_key
from irv2caffe.diagnose.evidence import RunEvidence
from irv2caffe.diagnose.gather import Request, gather
from irv2caffe.diagnose.measure.activity import activity
from irv2caffe.diagnose.measure.labels import mix_of, renaming
from irv2caffe.diagnose.measure.measure import measure
from irv2caffe.diagnose.measure.request import MeasureRequest
from irv2caffe.diagnose.measure.subject import open_subject
from irv2caffe.errors import MissingInputError, UsageError, WeightsError
from irv2caffe.inference.nets import inference_net
from irv2caffe.log.metrics import RunData
from irv2caffe.log.table import Table
from irv2caffe.proto.text import format_prototxt, read_net

SOLVER = """
net: "{net}"
test_iter: 3
test_interval: 100
base_lr: 0.05
momentum: 0.9
lr_policy: "fixed"
max_iter: 200
display: 10
snapshot_prefix: "{prefix}"
solver_mode: CPU
random_seed: 1
"""
PLAIN = """
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ mean_value: 100 scale: 0.01 }}
  data_param {{ source: "{root}/train" batch_size: 10 backend: LMDB }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ mean_value: 100 scale: 0.01 }}
  data_param {{ source: "{root}/val" batch_size: 15 backend: LMDB }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }}
layer {{ name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "sum" type: "Eltwise" bottom: "conv2" bottom: "conv1" top: "sum"
  eltwise_param {{ coeff: 0.1 coeff: 1 }} }}
layer {{ name: "relu2" type: "ReLU" bottom: "sum" top: "sum" }}
layer {{ name: "drop" type: "Dropout" bottom: "sum" top: "sum" }}
layer {{ name: "fc" type: "InnerProduct" bottom: "sum" top: "fc"
  inner_product_param {{ num_output: 6 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""
MEAN = np.array([100, 110, 120], np.float32)[:, None, None]
NO_RUN = RunEvidence("a run", RunData(Table((), (), (), None, None)))


@contextmanager
def silent(_what):
    yield lambda done, total: None


def measured(evidence, model, **options):
    return measure(MeasureRequest(str(model), **options), evidence, silent)


@pytest.fixture(scope="module")
def job(caffe, tmp_path_factory):
    """A net with batch statistics that the real Caffe has trained, with its log."""
    folder = tmp_path_factory.mktemp("measure")
    make_databases(folder)
    net = write_net(folder / "batch", folder, statistics=BATCH_STATISTICS)
    solver = folder / "batch/solver.prototxt"
    solver.write_text(SOLVER.format(net=net, prefix=folder / "batch/small"))
    done = run("caffe", "train", "-solver", solver)
    assert done.returncode == 0, done.stderr
    (folder / "batch/train.log").write_text(done.stderr)
    return folder


def as_trained(caffe_nets, folder, weights):
    """Errors of the training images in percent, in batches of 10 as the real Caffe trains."""
    net = inference_net(read_net(folder / "train_val.prototxt")[0])
    wrong, images = 0, pixels_of(folder.parent / "train")
    for start in range(0, NUM_TRAIN, 10):
        batch = images[start : start + 10]
        inputs = [pixels.transpose(2, 0, 1)[:, 1 : 1 + CROP, 1 : 1 + CROP] for pixels, _ in batch]
        arrays = (np.asarray(inputs, np.float32) - MEAN) * np.float32(0.01)
        net.layer[0].input_param.shape[0].dim[:] = arrays.shape
        found = caffe_nets.run(
            format_prototxt(net), "TRAIN", inputs={"data": arrays}, load=[weights], backward=False
        )
        labels = np.array([label for _, label in batch])
        wrong += int((found.blobs["fc"].argmax(1) != labels).sum())
    return 100 * wrong / NUM_TRAIN


@pytest.mark.parametrize("engine", ["caffe", "torch"])
def test_scores_by_statistics_and_batch_are_those_of_caffe(caffe_nets, job, engine):
    """From a log, its solver and a model: everything that is measured of a net with BatchNorm."""
    folder = job / "batch"
    if engine == "torch":
        pytest.importorskip("torch")
    evidence = gather(Request(folder / "train.log", solver=folder / "solver.prototxt"))
    weights = folder / "small_iter_200.caffemodel"
    found = measured(evidence, weights, engine=engine)
    assert (found.weights, found.iteration) == (str(weights), 200)
    assert found.notes == ()
    assert ("PyTorch" if engine == "torch" else "Caffe 1.0") in found.engine
    assert found.batch_statistics
    assert [size for size, _ in found.by_test_batch] == [1, 2, 4, 8, 16]
    for size, score in ((15, found.val), (1, found.by_test_batch[0][1])):
        net = write_net(job / f"test{size}", job, batch=size, statistics=BATCH_STATISTICS)
        real = caffe_test(net, weights, NUM_VAL // size)
        assert score.top1_error == pytest.approx(100 * (1 - float(real["top-1"])), abs=1e-3)
        assert score.loss == pytest.approx(float(real["loss"]), rel=1e-3)
        assert score.num_images == NUM_VAL
    assert found.as_trained.top1_error == pytest.approx(as_trained(caffe_nets, folder, weights))
    assert found.by_test_batch[0][1].is_worse(found.reestimated)
    assert found.by_test_batch[0][1].is_worse(found.reestimated_train)
    assert found.num_reestimate_batches == 100
    assert found.mixed is None  # the order needs no second look
    assert not found.label_mix.is_bad
    assert found.labels.same_table
    assert (found.labels.only_train, found.labels.only_val, found.labels.shift) == (0, 0, 0)
    assert not found.input_difference
    (relu,) = found.activations
    assert (relu.name, relu.num_channels, relu.num_dead) == ("relu", 8, 0)
    assert found.num_activity_images == NUM_TRAIN
    assert 0 < found.gradient_norm < 100
    assert found.num_gradient_images == 10
    assert found.bad_weights == ()
    assert found.first_bad_layer == ""


@pytest.fixture(scope="module")
def plain(caffe_nets, tmp_path_factory):
    """A net without BatchNorm for images that are not square; the training is class by class."""
    folder = tmp_path_factory.mktemp("plain")
    rng = np.random.default_rng(2)
    for part, count, light in (("train", NUM_TRAIN, 0), ("val", NUM_VAL, 90)):
        (folder / part).mkdir()
        with DatabaseWriter(folder / part) as writer:
            for index in range(count):
                planes = rng.integers(light, light + 120, (3, 6, 9)).astype(np.uint8)
                record = raw_head(planes.shape) + planes.tobytes() + raw_tail(index * 6 // count)
                writer.put(record_key(index, f"{index}.png"), record)
        names = NAMES if part == "train" else NAMES[::-1]
        (folder / part / "labels.txt").write_text("\n".join(names) + "\n")
    net = folder / "train_val.prototxt"
    net.write_text(PLAIN.format(root=folder))
    write_weights(caffe_nets, folder / "plain.caffemodel", net)
    return folder


def write_weights(caffe_nets, path, net, **changes):
    """Weights of the plain net, of which two units of the first layer are dead."""
    rng = np.random.default_rng(4)
    weights = {
        "conv1": [rng.normal(0, 0.2, (4, 3, 3, 3)), np.array([-1000, 0.3, -1000, 0.2])],
        "conv2": [rng.normal(0, 0.2, (4, 4, 3, 3)), np.zeros(4)],
        "fc": [rng.normal(0, 0.1, (6, 216)), np.zeros(6)],
    }
    for name, value in changes.items():
        weights[name][0][:] = value
    floats = {name: [np.float32(one) for one in blobs] for name, blobs in weights.items()}
    caffe_nets.run(net.read_text(), "TRAIN", weights=floats, passes=0, backward=False, save=[path])


def test_activity_labels_and_inputs_are_those_of_caffe(caffe_nets, plain):
    found = measured(NO_RUN, plain / "plain.caffemodel")
    images = [pixels.transpose(2, 0, 1) for pixels, _ in pixels_of(plain / "train")]
    arrays = (np.asarray(images, np.float32) - 100) * np.float32(0.01)
    text = PLAIN.format(root=plain)
    text = text[text.index('layer { name: "conv1"') : text.index('layer { name: "drop"')]
    for name in ("relu1", "relu2"):  # so that each blob is there in the end
        place = text.index(f'name: "{name}"')
        text = text[:place] + text[place:].replace('top: "', f'top: "{name}/', 1)
    text = text.replace('"relu1/conv1"', '"rectified"')
    for name in ("conv2", "sum"):
        place = text.index(f'name: "{name}"')
        text = text[:place] + text[place:].replace('bottom: "conv1"', 'bottom: "rectified"', 1)
    shape = " ".join(f"dim: {side}" for side in arrays.shape)
    head = f'layer {{ name: "in" type: "Input" top: "data" input_param {{ shape {{ {shape} }} }} }}'
    real = caffe_nets.run(
        head + text, inputs={"data": arrays}, load=[plain / "plain.caffemodel"], backward=False
    ).blobs
    trunk, branch, total = real["rectified"], real["conv2"], real["relu2/sum"]
    (block,) = found.blocks
    assert block.name == "sum"
    assert block.trunk_std == pytest.approx(trunk.std(), rel=1e-4)
    assert block.branch_std == pytest.approx(0.1 * branch.std(), rel=1e-4)
    first, second = found.activations
    assert (first.name, first.num_channels, first.num_dead) == ("relu1", 4, 2)
    assert first.zeros == pytest.approx((trunk == 0).mean())
    assert (second.name, second.num_dead) == ("relu2", int((total.max((0, 2, 3)) == 0).sum()))
    assert second.zeros == pytest.approx((total == 0).mean(), abs=1e-3)
    assert found.train_input.mean == pytest.approx(arrays.mean((0, 2, 3)), abs=1e-5)
    assert found.train_input.std == pytest.approx(arrays.std((0, 2, 3)), abs=1e-5)
    assert found.input_difference
    assert found.label_mix.far == 1  # ten images of each class, in batches of ten
    assert found.label_mix.chi_square == pytest.approx(50)
    assert found.labels.same_table is False
    assert found.reestimated is None
    assert found.mixed is None
    assert not any("BatchNorm" in note for note in found.notes)


def test_the_first_layer_that_breaks_is_named(caffe_nets, plain, tmp_path):
    net = plain / "train_val.prototxt"
    for name, value in (("nan", np.nan), ("huge", 3e38)):
        write_weights(caffe_nets, tmp_path / f"{name}.caffemodel", net, conv2=value)
    found = measured(NO_RUN, tmp_path / "nan.caffemodel", net=net)
    assert found.bad_weights == ("conv2",)
    assert found.first_bad_layer == "conv2"
    assert found.val is None
    assert "some weights are not finite: the model was not evaluated" in found.notes
    request = MeasureRequest(str(tmp_path / "huge.caffemodel"), net=net)
    assert activity(open_subject(request, NO_RUN), silent) == {"first_bad_layer": "conv2"}


def test_what_cannot_be_tested_is_noted(plain, tmp_path):
    """Without the images, a model still has its weights; a regression is not run."""
    shutil.copy(plain / "plain.caffemodel", tmp_path)
    text = PLAIN.format(root=tmp_path).replace("SoftmaxWithLoss", "EuclideanLoss")
    (tmp_path / "train_val.prototxt").write_text(text)
    found = measured(NO_RUN, tmp_path / "plain.caffemodel")
    (note,) = found.notes
    assert note.startswith("the net was not run: ")
    assert "numbers, not classes" in note
    assert (found.weights, found.bad_weights) == (str(tmp_path / "plain.caffemodel"), ())
    is_gone = text.replace("EuclideanLoss", "SoftmaxWithLoss").replace(
        "{ mean_value", "{ crop_size: 6 mean_value"
    )
    (tmp_path / "train_val.prototxt").write_text(is_gone)
    with pytest.raises(WeightsError):  # an input of 6 x 6 is that of another net
        measured(NO_RUN, tmp_path / "plain.caffemodel")


def test_models_that_are_not_there(finished, tmp_path):
    with pytest.raises(MissingInputError):
        measured(NO_RUN, tmp_path / "none.caffemodel")
    with pytest.raises(UsageError, match="is no run folder"):
        measured(NO_RUN, "last")
    evidence = replace(NO_RUN, run_dir=tmp_path / "run")
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("*_iter_*"))
    (note,) = measured(evidence, "last").notes
    assert "has no snapshot yet" in note


def test_a_run_is_measured_from_its_folder(finished):
    found = measured(gather(Request(finished)), "200", limit=40)
    assert found.weights.endswith("_iter_200.caffemodel")
    assert (found.val.num_images, found.train.num_images) == (20, 40)


def test_mixed_batches_have_the_statistic_that_is_expected():
    """Rows of an 8 x 3 table: by hand, and the mean over many orders of the same labels."""
    sorted_labels = np.repeat([0, 1, 2], [8, 8, 16]).reshape(8, 4)
    mix = mix_of(sorted_labels)
    # Two batches of class 0, two of 1 and four of 2, of shares 1/4, 1/4, 1/2: 4 (1/p - 1).
    assert mix.chi_square == pytest.approx((2 * 12 + 2 * 12 + 4 * 4) / 8)
    rng = np.random.default_rng(1)
    orders = [mix_of(rng.permutation(sorted_labels.ravel()).reshape(8, 4)) for _ in range(2000)]
    mean = np.mean([each.chi_square for each in orders])
    assert mix.expected == pytest.approx(mean, rel=0.02)
    assert mix.expected == orders[0].expected
    assert not any(each.is_bad for each in orders[:20])
    many = np.repeat(np.arange(50), 64).reshape(200, 16)
    assert mix_of(many).far == 1
    mixed = mix_of(np.random.default_rng(1).permutation(many.ravel()).reshape(200, 16))
    assert mixed.far < 0.02
    assert not mixed.is_bad


def test_other_labels_for_which_the_net_would_be_right():
    rng = np.random.default_rng(3)
    true = rng.integers(0, 10, 500)
    said = np.where(rng.random(500) < 0.9, true, rng.integers(0, 10, 500))
    error = 100 * float((said != true).mean())
    assert renaming(true, said, 10)["renamed"] == 0
    found = renaming(np.array([3, 7, 1, 4, 9, 0, 2, 5, 8, 6])[true], said, 10)
    assert found["renamed"] == 9  # 8 stays
    assert found["renamed_error"] == pytest.approx(error)
    shifted = renaming(true + 1, said, 11)
    assert (shifted["shift"], shifted["shift_error"]) == (-1, pytest.approx(error))
    guesses = renaming(true, rng.integers(0, 10, 500), 10)
    assert guesses["renamed"] == 0
    assert guesses["renamed_error"] > 75
    assert "renamed" not in renaming(true[:20], said[:20], 10)  # too few of each class
