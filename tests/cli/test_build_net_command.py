"""build-net as users meet it: what databases and recipes say, and who wins."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from irv2caffe.cli.main import run
from irv2caffe.data.lmdb_store import DatabaseWriter
from irv2caffe.data.records.datum import raw_head, raw_tail, record_key
from irv2caffe.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array, read_array, read_binary, write_binary
from irv2caffe.proto.text import read_prototxt

SMALL = ("--variant", "small32", "--width", "0.1", "--batch-size", "4")


def write_database(folder, labels, shape=(3, 36, 40)):
    folder.mkdir()
    with DatabaseWriter(folder) as writer:
        for index, label in enumerate(labels):
            planes = np.full(shape, index, np.uint8)
            record = raw_head(planes.shape) + planes.tobytes() + raw_tail(label)
            writer.put(record_key(index, f"{index}.png"), record)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_database(tmp_path / "train", [0, 1, 2, 3] * 5)
    write_database(tmp_path / "val", [0, 1, 2, 3] * 2)
    write_database(tmp_path / "more", [0, 7])
    write_database(tmp_path / "gray", [0, 1] * 4, (1, 36, 40))
    return tmp_path


def config(capsys, *args):
    """Each value of --print-config and where it came from."""
    assert run(["build-net", "--out", "net", *SMALL, *args, "--print-config", "--json"]) == 0
    return {
        n: (row["value"], row["from"]) for n, row in json.loads(capsys.readouterr().out).items()
    }


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--crop", "64"), "--crop 64: train holds images of 40x36"),
        (("--crop", "40"), "--crop 40: train holds images of 40x36"),
        (("--num-classes", "3"), "train has label 3, too high for --num-classes 3"),
        (("--val-lmdb", "more"), "more has label 7, too high for --num-classes 4"),
        (("--val-lmdb", "gray"), "gray holds images of 1 channel"),
        (("--train-lmdb", ""), "--train-lmdb is empty"),
        (("--recipe", ""), "unknown recipe ''"),
    ],
)
def test_a_net_that_does_not_fit_its_database_is_refused(desk, capsys, args, words):
    code = run(["build-net", "--out", "net", *SMALL, "--train-lmdb", "train", *args])
    assert code == EXIT_USAGE
    assert words in capsys.readouterr().err
    assert not (desk / "net").exists()


def test_a_net_that_fits_is_not(desk, capsys):
    told = ("--train-lmdb", "train", "--val-lmdb", "val", "--num-classes", "5")
    assert run(["build-net", "--out", "net", *SMALL, *told]) == EXIT_DONE
    assert "next: irv2caffe train --solver net/solver.prototxt\n" in capsys.readouterr().err
    for crop in ("64", "40"):
        args = ["build-net", "--out", "other", *SMALL, *told]
        assert run([*args, "--crop", crop]) == EXIT_USAGE
        fits = re.search(r"hint: --crop (\d+) fits them", capsys.readouterr().err)
        assert run([*args, "--crop", fits.group(1)]) == EXIT_DONE
        shutil.rmtree("other")


@pytest.mark.parametrize("talk", ["--traceback", "--json", "--summary"])
def test_words_that_change_no_file_are_not_in_its_header(desk, monkeypatch, talk):
    files = []
    for words in ((), (talk,)):
        argv = ["build-net", "--out", "net", *SMALL, *words, "--force"]
        monkeypatch.setattr("sys.argv", ["irv2caffe", *argv])
        assert run(argv) == EXIT_DONE
        files.append((desk / "net/solver.prototxt").read_bytes())
    assert files[0] == files[1]


def test_numbers_of_images_are_printed_with_their_sources(desk, capsys):
    values = config(capsys)
    assert values["num_train_images"] == (1_281_167, "default")
    assert values["num_val_images"] == (50_000, "default")
    values = config(capsys, "--train-lmdb", "train", "--num-val-images", "6")
    assert values["num_train_images"] == (20, "database")
    assert values["num_val_images"] == (6, "command line")
    assert values["num_classes"] == (4, "database")


def test_databases_that_a_recipe_names_are_looked_at(desk, capsys):
    (desk / "mine.toml").write_text('[net]\ntrain_lmdb = "train"\nval_lmdb = "val"\n')
    values = config(capsys, "--recipe", "mine.toml")
    assert values["train_lmdb"] == ("train", "recipe mine")
    assert values["num_train_images"] == (20, "database")
    assert values["num_classes"] == (4, "database")
    assert run(["build-net", "--out", "net", *SMALL, "--recipe", "mine.toml"]) == EXIT_DONE
    solver = read_prototxt(desk / "net/solver.prototxt", messages.SolverParameter)
    assert list(solver.test_iter) == [1]
    assert solver.test_interval == 25  # 20 images, 4 in a batch, 24 tests in 120 epochs


def test_means_that_are_told_win_over_a_recipes_mean_file(desk, capsys):
    write_binary(desk / "mean.binaryproto", blob_from_array(np.zeros((1, 3, 36, 40), "f4")))
    (desk / "mine.toml").write_text('[net]\nmean_file = "mean.binaryproto"\n')
    assert config(capsys, "--recipe", "mine.toml")["mean_file"] == (
        "mean.binaryproto",
        "recipe mine",
    )
    told = ("--recipe", "mine.toml", "--mean-value", "1,2,3")
    assert config(capsys, *told)["mean_file"] == (None, "command line")
    assert run(["build-net", "--out", "net", *SMALL, *told]) == EXIT_DONE
    net = read_prototxt(desk / "net/train_val.prototxt", messages.NetParameter)
    transform = net.layer[0].transform_param
    assert (list(transform.mean_value), transform.mean_file) == ([1, 2, 3], "")


def test_recipes_of_windows_editors_are_read(desk, capsys):
    (desk / "mine.toml").write_text("[net]\nwidth = 0.2\n", encoding="utf-8-sig")
    assert (
        run(["build-net", "--out", "net", "--recipe", "mine.toml", "--print-config"]) == EXIT_DONE
    )
    assert "recipe mine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[net]\ncorp = 3\n", "mine.toml: unknown key 'corp'"),
        ('[net]\nmean_file = "a"\nmean_value = 3\n', "mine.toml: mean_value and mean_file"),
        ("[net]\na." + "b." * 100_000 + "c = 1", "mine.toml: too large for a recipe"),
        ("[net]\na = " + "[" * 50_000, "mine.toml: not TOML: nested too deeply"),
        ("[net]\ncrop = " + "9" * 5000, "mine.toml: not TOML: "),
        (None, "mine.toml: cannot be read: Is a directory"),
    ],
)
def test_bad_recipes_are_named(desk, capsys, text, words):
    if text is None:
        (desk / "mine.toml").mkdir()
    else:
        (desk / "mine.toml").write_text(text)
    assert run(["build-net", "--out", "net", "--recipe", "mine.toml"]) == EXIT_FAILED
    assert words in capsys.readouterr().err


def test_databases_under_the_default_names_are_taken_and_said(desk, capsys):
    """Their path would be in the net anyway, with ILSVRC's numbers of images."""
    write_database(desk / "train_lmdb", [0, 1, 2] * 4)
    values = config(capsys)
    assert values["num_train_images"] == (12, "database")
    assert values["num_val_images"] == (50_000, "default")
    assert values["num_classes"] == (3, "database")
    assert run(["build-net", "--out", "first", *SMALL]) == EXIT_DONE
    assert "no validation database is there or given: 50,000 images" in capsys.readouterr().err
    assert run(["build-net", "--out", "net", *SMALL, "--num-val-images", "8"]) == EXIT_DONE
    assert "train_lmdb is there and is taken: 12 images" in capsys.readouterr().err
    assert config(capsys, "--train-lmdb", "train")["num_train_images"] == (20, "database")
    (desk / "val_lmdb").mkdir()  # no database
    assert config(capsys)["num_val_images"] == (50_000, "default")


def test_gray_databases_give_gray_nets(desk, capsys):
    both = ("--train-lmdb", "gray", "--val-lmdb", "gray")
    assert config(capsys, *both)["channels"] == (1, "database")
    assert run(["build-net", "--out", "net", *SMALL, *both, "--mean-value", "100"]) == EXIT_DONE
    net = read_prototxt(desk / "net/train_val.prototxt", messages.NetParameter)
    assert [list(layer.transform_param.mean_value) for layer in net.layer[:2]] == [[100], [100]]
    deploy = read_prototxt(desk / "net/deploy.prototxt", messages.NetParameter)
    assert list(deploy.layer[0].input_param.shape[0].dim) == [1, 1, 32, 32]
    assert "input: gray, 0 to 255, minus 100," in (desk / "net/deploy.prototxt").read_text()
    assert run(["build-net", "--out", "net", *SMALL, *both, "--channels", "3"]) == EXIT_USAGE
    assert "gray holds images of 1 channel(s), the net takes 3" in capsys.readouterr().err
    args = ("--train-lmdb", "train", "--val-lmdb", "val", "--channels", "1")
    assert run(["build-net", "--out", "net", *SMALL, *args]) == EXIT_USAGE
    assert "train holds images of 3 channel(s), the net takes 1" in capsys.readouterr().err


def test_what_is_derived_is_said(desk, capsys):
    args = ["--train-lmdb", "train", "--val-lmdb", "val", "--variant", "auto", "--width", "0.1"]
    assert run(["build-net", "--out", "net", *args, "--batch-size", "4", "--epochs", "9"]) == 0
    talk = capsys.readouterr().err
    assert "variant small32: derived: for images of 36 pixels" in talk
    assert "crop 36: derived: largest of small32 in images of 36 pixels" in talk
    assert "bn_fraction 0.9: derived: an average over 10 of the run's 45 batches" in talk
    assert "snapshot_epochs 1.0: derived: at each test" in talk
    assert run(["build-net", "--out", "net", "--variant", "auto"]) == EXIT_USAGE
    assert "size of all images" in capsys.readouterr().err


def test_class_weights_are_counted_in_the_database(desk, capsys):
    write_database(desk / "rare", [0] * 12 + [1] * 4)
    args = ["--train-lmdb", "rare", "--val-lmdb", "rare", "--class-weights", "balanced"]
    assert run(["build-net", "--out", "net", *SMALL, *args]) == EXIT_DONE
    matrix = read_array(read_binary(desk / "net/infogain.binaryproto", messages.BlobProto))
    assert np.allclose(matrix.reshape(2, 2), [[16 / 24, 0], [0, 16 / 8]])
    line = "class weights from 0.6667 (class 0) to 2 (class 1), mean over the images 1"
    assert line in capsys.readouterr().err
    assert f"# {line}\n" in (desk / "net/train_val.prototxt").read_text()
    (desk / "weights.txt").write_text("3\n1\n")
    args[-1] = "weights.txt"
    assert run(["build-net", "--out", "net", *SMALL, *args, "--force"]) == EXIT_DONE
    matrix = read_array(read_binary(desk / "net/infogain.binaryproto", messages.BlobProto))
    assert np.allclose(matrix.reshape(2, 2), [[3 / 2.5, 0], [0, 1 / 2.5]])
    args[-1] = "none"
    assert run(["build-net", "--out", "other", *SMALL, *args]) == EXIT_DONE
    assert not (desk / "other/infogain.binaryproto").exists()
