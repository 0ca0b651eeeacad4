"""The command evaluate, against the real Caffe and values computed from its outputs."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.evaluation_jobs import (
    BATCH_STATISTICS,
    CROP,
    NAMES,
    NUM_TRAIN,
    NUM_VAL,
    SIDE,
    caffe_test,
    children_of,
    make_databases,
    pixels_of,
    record_of,
    write_net,
)
from helpers.program import run
from helpers.training_jobs import child_of_test, is_gone, wait_for

from irv2caffe.cli.evaluate import evaluate_command
from irv2caffe.data.lmdb_store import DatabaseWriter
from irv2caffe.data.records.datum import record_key
from irv2caffe.errors import InputError, Irv2CaffeError, OutputError, OutputExistsError, UsageError
from irv2caffe.evaluate.batches import _rows
from irv2caffe.evaluate.examples import find_examples
from irv2caffe.evaluate.output_folder import check_output, write_output
from irv2caffe.evaluate.request import Request
from irv2caffe.evaluate.run import evaluate
from irv2caffe.proto.caffemodel import ModelFile

MEAN = np.array([100, 110, 120], np.float32)[:, None, None]


@pytest.fixture(scope="module")
def root(caffe_nets, tmp_path_factory):
    """Databases, and in ``own`` and ``batch`` nets with stored and with batch statistics."""
    folder = tmp_path_factory.mktemp("evaluate")
    make_databases(folder)
    net = write_net(folder / "own", folder)
    weights = folder / "own/small_iter_7.caffemodel"
    caffe_nets.run(net.read_text(), "TRAIN", backward=False, passes=3, save=[weights])
    write_net(folder / "batch", folder, statistics=BATCH_STATISTICS)
    shutil.copy(weights, folder / "batch")
    return folder


@contextmanager
def silent(_what):
    yield lambda done, total: None


def evaluated(*models, **options):
    return evaluate(Request(models=models, **options), silent)[0]


def model(root, kind="own"):
    return root / kind / "small_iter_7.caffemodel"


def probabilities(caffe_nets, root, arrays):
    """Of the net with stored statistics, by the real Caffe."""
    arrays = np.asarray(arrays, np.float32)
    text = (root / "own/train_val.prototxt").read_text()
    body = text[text.index('layer { name: "conv"') : text.index('layer { name: "top-1"')]
    shape = " ".join(f"dim: {side}" for side in arrays.shape)
    head = f'layer {{ name: "in" type: "Input" top: "data" input_param {{ shape {{ {shape} }} }} }}'
    end = 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }'
    found = caffe_nets.run(
        head + body + end, "TEST", inputs={"data": arrays}, load=[model(root)], backward=False
    )
    return found.blobs["prob"]


@pytest.mark.parametrize(("kind", "batch"), [("own", 10), ("batch", 15), ("batch", 10)])
def test_the_figures_are_those_of_caffe_test_to_the_digit(root, kind, batch):
    """45 images: three whole batches of 15, or five of 10, of which the last begins again."""
    statistics = BATCH_STATISTICS if kind == "batch" else ""
    net = write_net(root / kind, root, batch=batch, statistics=statistics)
    iterations = -(-NUM_VAL // batch)
    real = caffe_test(net, model(root, kind), iterations)
    done = run("evaluate", model(root, kind), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["caffe_test"].pop("iterations") == iterations
    assert found["caffe_test"].pop("batch_size") == batch
    assert {name: f"{value:g}" for name, value in found["caffe_test"].items()} == real
    assert len(real) == 3
    assert found["batch_statistics"] == (kind == "batch")
    assert found["num_images"] == NUM_VAL
    if batch == 15:
        assert found["top1"] == pytest.approx(float(real["top-1"]), abs=1e-6)
        assert found["loss"] == pytest.approx(float(real["loss"]), abs=1e-5)
    write_net(root / kind, root, statistics=statistics)


def test_a_run_needs_nothing_but_its_folder(finished):
    found = evaluated(finished, snapshot="last")
    (model,) = found.models
    assert model.name == "tiny_iter_600.caffemodel"
    real = caffe_test(finished / "net.prototxt", model, 2)
    assert {name: found.caffe.text(name) for name in real} == real
    assert set(real) == {"top-1", "loss"}  # two classes have no top-5


def test_crops_are_averaged(caffe_nets, root):
    """Ten crops of a 14 x 14 image: corners and centre of 12 x 12, and their mirror images."""
    places = [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]
    views = []
    for pixels, _ in pixels_of(root / "val"):
        for top, left in places:
            part = pixels.transpose(2, 0, 1)[:, top : top + CROP, left : left + CROP]
            fed = (part - MEAN) * np.float32(0.01)
            views += [fed, fed[:, :, ::-1]]
    mean = probabilities(caffe_nets, root, views).reshape(NUM_VAL, 10, 6).mean(axis=1)
    found = evaluated(model(root), crops=10)
    np.testing.assert_allclose(found.predictions.confidence, mean.max(axis=1), rtol=1e-5)
    assert np.array_equal(found.predictions.predicted, mean.argmax(axis=1))
    assert found.caffe is None


def test_an_ensemble_is_the_mean_of_the_probabilities(caffe_nets, root, tmp_path):
    other = tmp_path / "other_iter_9.caffemodel"
    text = (root / "own/train_val.prototxt").read_text()
    caffe_nets.run(text, "TRAIN", backward=False, passes=2, seed=9, save=[other])
    shutil.copy(root / "own/train_val.prototxt", tmp_path)
    alone = [evaluated(path, batch_size=7).predictions for path in (model(root), other)]
    both = evaluated(model(root), other, batch_size=7)
    mean = np.mean([each.label_probability.astype(float) for each in alone], axis=0)
    np.testing.assert_allclose(both.predictions.label_probability, mean, rtol=1e-6)
    assert len(both.models) == 2
    assert both.caffe is None
    with pytest.raises(UsageError, match="for one model"):
        evaluated(model(root), other, test_batch_sizes=(1, 2))


def test_other_class_tables_are_refused(caffe_nets, root, tmp_path):
    shutil.copytree(root / "val", tmp_path / "val")
    (tmp_path / "val/labels.txt").write_text("\n".join(reversed(NAMES)) + "\n")
    net = (root / "own/train_val.prototxt").read_text()
    net = net.replace(str(root / "val"), str(tmp_path / "val"))
    (tmp_path / "train_val.prototxt").write_text(net)
    shutil.copy(model(root), tmp_path)
    with pytest.raises(InputError, match="same class table"):
        evaluated(model(root), tmp_path / model(root).name)
    with pytest.raises(InputError, match="not those of the model"):
        evaluated(model(root), data=tmp_path / "val")


def test_a_training_subset_in_phase_test_is_chosen_by_the_seed(root):
    some, other = (evaluated(model(root), on="train", limit=40, seed=seed) for seed in (1, 2))
    assert len(some.predictions) == 40
    assert some.data == root / "train"
    assert some.predictions.names == tuple(sorted(some.predictions.names))
    assert some.predictions.names != other.predictions.names
    assert some.caffe is None
    expected = dict(zip(other.predictions.names, other.predictions.confidence, strict=True))
    common = expected.keys() & set(some.predictions.names)
    assert len(common) >= 20  # of 60 images
    for name, value in zip(some.predictions.names, some.predictions.confidence, strict=True):
        assert name not in common or value == pytest.approx(expected[name], rel=1e-5)


def test_batches_of_other_sizes(root):
    found = evaluated(model(root, "batch"), test_batch_sizes=(1, 15))
    sizes, figures = zip(*found.by_batch_size, strict=True)
    assert sizes == (1, 15)
    assert figures[1].loss == found.metrics.loss
    assert figures[0].loss != found.metrics.loss
    assert any("depend on the batch size" in note for note in found.notes)
    own = evaluated(model(root), test_batch_sizes=(1, 2, 5))
    assert len(own.by_batch_size) == 1
    assert own.by_batch_size[0][1].loss == pytest.approx(own.metrics.loss, rel=1e-6)
    assert any("makes no difference" in note for note in own.notes)


def test_reestimated_statistics_are_those_of_the_training_images(caffe_nets, root, tmp_path):
    """One batch of all images, not cropped, so that the statistics do not depend on chance."""
    text = (root / "batch/train_val.prototxt").read_text()
    conv = text[text.index('layer { name: "conv"') : text.index('layer { name: "bn"')]
    text = text.replace(conv, "").replace('bottom: "conv" top: "bn"', 'bottom: "data" top: "bn"')
    text = text.replace("crop_size: 12 ", "").replace("mirror: true", "")
    text = text.replace("batch_size: 10", f"batch_size: {NUM_TRAIN}")
    (tmp_path / "train_val.prototxt").write_text(text)
    weights = tmp_path / "first.caffemodel"
    caffe_nets.run(text, "TRAIN", backward=False, save=[weights])
    out = tmp_path / "new.caffemodel"
    found = evaluated(weights, reestimate_bn=2, model_out=out)

    images = np.stack([pixels for pixels, _ in pixels_of(root / "train")]).transpose(0, 3, 1, 2)
    fed = ((images - MEAN) * np.float32(0.01)).astype(np.float64)
    mean, variance, count = (np.array(blob.data) for blob in ModelFile(out).blobs("bn"))
    assert count == 2
    np.testing.assert_allclose(mean / count, fed.mean(axis=(0, 2, 3)), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(variance / count, fed.var(axis=(0, 2, 3), ddof=1), rtol=2e-5)
    before, after = ModelFile(weights), ModelFile(out)
    assert before.blobs("fc") == after.blobs("fc")
    assert found.reestimated[0] == out
    # The net has batch statistics in TEST; the new model is evaluated with stored ones.
    assert found.batch_statistics
    assert found.reestimated[1].loss != found.metrics.loss
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "train_val.prototxt").write_text(text.replace(BATCH_STATISTICS, ""))
    shutil.copy(out, alone)
    assert evaluated(alone / out.name).metrics.loss == found.reestimated[1].loss


def test_the_torch_engine_gives_the_same(root):
    pytest.importorskip("torch")
    real, torch = (evaluated(model(root), engine=name) for name in ("caffe", "torch"))
    np.testing.assert_allclose(
        torch.predictions.label_probability, real.predictions.label_probability, rtol=1e-4
    )
    assert torch.metrics.top == real.metrics.top
    assert "PyTorch" in torch.engine


def test_a_folder_of_class_folders(root, tmp_path):
    """The same images as files; one is broken, and one is in the way."""
    for number, (pixels, label) in enumerate(pixels_of(root / "val")):
        folder = tmp_path / "images" / NAMES[label].replace("/", "")
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
    (tmp_path / "labels.txt").write_text("\n".join(n.replace("/", "") for n in NAMES) + "\n")
    (tmp_path / "images" / NAMES[0] / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n junk")
    options = ("--labels", tmp_path / "labels.txt", "--resize", SIDE, "--json")
    done = run("evaluate", model(root), tmp_path / "images", *options)
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    whole = evaluated(model(root))
    assert found["top1"] == whole.metrics.top[1]
    assert found["loss"] == pytest.approx(whole.metrics.loss, rel=1e-6)
    assert found["skipped"][0][0] == "ant/broken.png"
    assert "broken.png" in found["findings"][0]


def test_the_folder_of_an_evaluation(root, tmp_path):
    found, images = evaluate(Request(models=(model(root),)), silent)
    examples = find_examples(found, images)
    out = tmp_path / "out"
    write_output(found, examples, out)
    names = {path.name for path in out.iterdir()}
    assert names == {
        "calibration.png", "classes.csv", "confused.png", "confusion.csv", "confusion.png",
        "evaluation.json", "index.html", "predictions.csv", "worst.png",
    }  # fmt: skip
    rows = list(csv.reader((out / "confusion.csv").open(encoding="utf-8")))
    assert rows[0] == ["true \\ predicted", *NAMES]
    matrix = np.array([list(map(int, row[1:])) for row in rows[1:]])
    shown = list(csv.DictReader((out / "predictions.csv").open(encoding="utf-8")))
    for true in range(6):
        for guess in range(6):
            both = [
                row
                for row in shown
                if (row["true"], row["predicted_1"]) == (NAMES[true], NAMES[guess])
            ]
            assert matrix[true, guess] == len(both)
    table = list(csv.DictReader((out / "classes.csv").open(encoding="utf-8")))
    assert [row["name"] for row in table] == list(NAMES)
    assert [int(row["support"]) for row in table] == matrix.sum(axis=1).tolist()
    wrong = [row for row in shown if row["true"] != row["predicted_1"]]
    lowest = min(wrong, key=lambda row: float(row["probability_of_true"]))
    assert examples.worst[0].name == lowest["image"]
    assert cv2.imread(str(out / "worst.png")) is not None

    write_output(found, examples, out)  # its own folder is replaced
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"notes\.txt"):
        write_output(found, examples, out)
    assert (out / "notes.txt").read_text() == "mine"


def test_folders_of_others_are_not_touched(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="no folder"):
        check_output(tmp_path / "file/out")
    (tmp_path / "file").unlink()
    check_output(tmp_path / "new")
    check_output(tmp_path)
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(OutputExistsError):
        check_output(tmp_path)
    with pytest.raises(OutputExistsError):
        check_output(tmp_path / "index.html")


def test_what_is_refused(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lonely = root / "alone.caffemodel"
    shutil.copy(model(root), lonely)
    net = (root / "own/train_val.prototxt").read_text()
    deploy = "# input: BGR, 0 to 255, minus 100 110 120, times 0.01; output: probabilities\n"
    deploy += 'input: "data" input_dim: 1 input_dim: 3 input_dim: 12 input_dim: 12\n'
    deploy += net[net.index('layer { name: "conv"') : net.index('layer { name: "top-1"')]
    (root / "deploy.prototxt").write_text(deploy)
    for words, code, said in (
        (["nowhere"], 1, "no such file"),
        ([root / "val"], 1, "holds a model"),
        ([model(root), root / "val", "--lmdb", root / "val"], 2, "give one of them"),
        ([model(root), "--test-batch-sizes", "1,x"], 2, "give numbers"),
        ([model(root), "--on", "train", root / "val"], 2, "--on train"),
        ([model(root), "--model-out", "x.caffemodel"], 2, "goes with"),
        ([model(root), "--reestimate-bn", 1, "--model-out", model(root)], 1, "already exists"),
        ([model(root, "batch"), "--crops", 10], 2, "each TEST batch by itself"),
        ([model(root), "--out", root / "own"], 1, "did not write"),
        ([lonely, "--net", root / "deploy.prototxt"], 1, "does not tell the validation data"),
        (
            [
                lonely,
                "--net",
                root / "deploy.prototxt",
                "--lmdb",
                root / "val",
                "--reestimate-bn",
                1,
            ],
            1,
            "does not tell the training data",
        ),
    ):
        with pytest.raises(Irv2CaffeError) as caught:
            evaluate_command.main(list(map(str, words)), standalone_mode=False)
        assert caught.value.exit_code == code, words
        assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_labels_that_the_net_does_not_have_are_left_out(root, tmp_path):
    rng = np.random.default_rng(1)
    for name, labels in (("some", [0, 1, 6, 2]), ("all", [6, 7])):
        (tmp_path / name).mkdir()
        with DatabaseWriter(tmp_path / name) as writer:
            for index, label in enumerate(labels):
                writer.put(record_key(index, f"{index}.png"), record_of(rng, label))
    found = evaluated(model(root), data=tmp_path / "some", batch_size=2)
    assert found.metrics.num_images == 3
    assert "label 6 is no class of the net (1)" in found.findings[0]
    assert found.caffe is None
    with pytest.raises(InputError, match="no image can be used"):
        evaluated(model(root), data=tmp_path / "all")


def test_an_interruption_leaves_nothing_behind(root, tmp_path):
    command = [sys.executable, "-m", "irv2caffe", "evaluate", str(model(root)), "--batch-size", "1"]
    words = [*command, "--crops", "144", "--out", "out"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with child_of_test(words, cwd=tmp_path, **pipes) as child:
        runner = wait_for(lambda: children_of(child.pid), "for the runner")
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    wait_for(lambda: all(map(is_gone, runner)), "for the end of the runner")
    assert not list(tmp_path.iterdir())


def test_an_image_that_one_net_of_an_ensemble_cannot_read_is_named():
    """Also where it is the last one."""
    image = SimpleNamespace(name="last.png", label=0)
    net = SimpleNamespace(num_classes=2)
    members: Any = [SimpleNamespace(images=each, model=net) for each in ([], [image])]
    with pytest.raises(InputError, match=r"last\.png can be read for one net only"):
        list(_rows(members, 1, []))
