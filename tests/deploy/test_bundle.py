"""Bundles: made by the command, run by their own examples in pycaffe, OpenCV 4 and onnxruntime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.layer_texts import conv, layer
from helpers.paths import OPENCV4, SHARED_DATA
from helpers.trained_nets import own_deploy, parse, write_trained
from helpers.zoo import photo

from irv2caffe.caffe.command import tool_command
from irv2caffe.cli.main import run as cli
from irv2caffe.config import templates_dir
from irv2caffe.data.options import RESIZE_MODES
from irv2caffe.data.records.image import resize
from irv2caffe.deploy.comparison import compare
from irv2caffe.deploy.make_bundle import make_bundle, refuse_other
from irv2caffe.deploy.onnx_check import _in_opencv
from irv2caffe.deploy.options import BundleOptions
from irv2caffe.deploy.samples import take_samples
from irv2caffe.errors import InputError, OutputError, OutputExistsError
from irv2caffe.inference.feeding import feed
from irv2caffe.inference.finding import PreprocessingOptions
from irv2caffe.inference.images import read_images
from irv2caffe.inference.opening import open_model
from irv2caffe.inference.preprocessing import Preprocessing
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array, read_binary, write_binary
from irv2caffe.proto.text import write_prototxt

CLASSES = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained net with its class table, and a folder of images by class."""
    folder = tmp_path_factory.mktemp("deploy")
    net = own_deploy("slim", crop=75, width=0.1, num_classes=3)
    header = "input: BGR, 0 to 255, minus 127.5 127.5 127.5, times 0.0078431373; output: prob, 3"
    write_prototxt(folder / "deploy.prototxt", net, header=header)
    write_trained(net, folder / "net.caffemodel")
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    rng = np.random.default_rng(5)
    for at, name in enumerate(CLASSES):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(2):
            size = (90 + 20 * at, 110 - 10 * number)
            photo(rng, *size).save(folder / "images" / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def bundle(caffe, folder):
    """A bundle with everything."""
    out = folder / "bundle"
    argv = ["deploy", folder / "net.caffemodel", "--out", out, "--images", folder / "images"]
    assert cli([*map(str, argv), "--check", "4", "--samples", "6", "--onnx"]) == 0
    return out


@pytest.fixture(scope="module")
def wanted(bundle, folder):
    """The lines that each example must print, from the original net."""
    expected = json.loads((bundle / "expected.json").read_text())
    return {entry["image"]: entry["best"][:3] for entry in expected}


def paths_of(folder, wanted):
    return [str(folder / "images" / name) for name in wanted]


def run(argv, **env):
    done = subprocess.run(
        argv, env={**os.environ, **env}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_same(printed, folder, wanted):
    lines = [line.split("\t") for line in printed.splitlines()]
    found = {}
    for path, number, name, share in lines:
        assert name == CLASSES[int(number)]
        image = str(Path(path).relative_to(folder / "images"))
        found.setdefault(image, []).append((int(number), float(share)))
    assert found.keys() == wanted.keys()
    for image, best in wanted.items():
        assert [number for number, _ in found[image]] == [number for number, _ in best]
        ours, theirs = ([share for _, share in each] for each in (found[image], best))
        assert np.allclose(ours, theirs, atol=3e-3)  # Pillow's pixels differ by one level


def test_pycaffe(caffe, bundle, folder, wanted):
    script = str(bundle / "classify_caffe.py")
    command = tool_command(caffe, "python", [script, *paths_of(folder, wanted)])
    printed = run(command.argv, **command.env)
    assert_same(printed, folder, wanted)


@pytest.mark.skipif(not OPENCV4.is_dir(), reason="OpenCV 4 is not there: scripts/test installs it")
def test_opencv_4(bundle, folder, wanted):
    script = str(bundle / "classify_opencv.py")
    argv = [sys.executable, script, *paths_of(folder, wanted)]
    assert_same(run(argv, PYTHONPATH=str(OPENCV4)), folder, wanted)


@pytest.mark.skipif(hasattr(cv2.dnn, "readNetFromCaffe"), reason="this OpenCV reads Caffe's files")
def test_opencv_5_takes_the_onnx_file_or_says_what_to_do(bundle, folder, wanted, tmp_path):
    argv = [sys.executable, str(bundle / "classify_opencv.py"), *paths_of(folder, wanted)]
    assert_same(run(argv), folder, wanted)
    for name in ("classify_opencv.py", "prepare.py"):
        (tmp_path / name).write_bytes((bundle / name).read_bytes())
    argv[1] = str(tmp_path / "classify_opencv.py")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no longer reads Caffe's files: install OpenCV 4" in done.stderr


def test_onnxruntime(bundle, folder, wanted):
    script = str(bundle / "classify_onnx.py")
    assert_same(run([sys.executable, script, *paths_of(folder, wanted)]), folder, wanted)


def test_files(bundle, folder):
    text = (bundle / "README.md").read_text()
    names = {path.name for path in bundle.iterdir()} - {"README.md"}
    assert all(f"| `{name}` |" in text for name in names)
    assert "204 BatchNorm layers" in text
    assert "Resize to 75 x 75 pixels" in text
    assert text.count("same ranking 4 of 4") == 3  # Caffe, onnxruntime, OpenCV
    listed = (bundle / "calibration.txt").read_text().splitlines()
    assert listed == [f"calibration/{number:05d}.npy" for number in range(6)]
    model = open_model(bundle)
    assert model.class_names == CLASSES
    inputs = {
        image.name: feed(model.preprocessing, image.pixels)[0]
        for image in read_images(folder / "images", model)
    }
    expected = json.loads((bundle / "expected.json").read_text())
    assert [entry["sample"] for entry in expected] == listed[:4]
    for entry in expected:
        assert (np.load(bundle / entry["sample"]) == inputs.pop(entry["image"])).all()
        assert len(entry["logits"]) == 3
    for path in listed[4:]:
        assert any((np.load(bundle / path) == values).all() for values in inputs.values())


def test_unfolded_and_with_the_plain_pool(caffe, folder, tmp_path, capsys):
    argv = ["deploy", folder / "net.caffemodel", "--out", tmp_path / "b", "--images"]
    argv += [folder / "images", "--no-fold", "--average-pool", "caffe", "--check", "2"]
    argv += ["--samples", "1", "--sample-format", "bin", "--json"]
    assert cli(list(map(str, argv))) == 0
    report = json.loads(capsys.readouterr().out)
    types = ("DummyData", "Dropout", "Pooling", "Power", "Reshape", "Scale")
    assert report["folding"]["removed"] == dict.fromkeys(types, 1)
    assert report["folding"]["plain_pools"] == ["Mixed_5b/Branch_3/AvgPool_0a_3x3_exact"]
    assert report["check"]["largest"] < 1e-5
    assert report["average_pool_cost"]["largest"] > 1e-3
    net = (tmp_path / "b" / "deploy.prototxt").read_text()
    assert 'type: "BatchNorm"' in net
    assert 'type: "DummyData"' not in net
    assert (tmp_path / "b" / "calibration" / "00000.bin").stat().st_size == 4 * 3 * 75 * 75
    assert cli(list(map(str, argv))) == 1
    assert "already exists" in capsys.readouterr().err
    refuse_other(tmp_path / "b")  # --force may replace it


PHOTOS = SHARED_DATA / "imagenet-photos" / "photos.tar"


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_file(), reason="no real photographs beside this checkout")
def test_the_whole_net_on_photographs(caffe, tmp_path):
    """TF-slim's net in its own size: the tolerance holds through 244 convolutions."""
    with tarfile.open(PHOTOS) as archive:
        for member in archive.getmembers()[:2]:
            archive.extract(member, tmp_path / "images", filter="data")
    net = own_deploy("slim", crop=299, width=1, num_classes=1000)
    write_prototxt(tmp_path / "deploy.prototxt", net)
    write_trained(net, tmp_path / "net.caffemodel")
    options = PreprocessingOptions(mean_value=(127.5,), scale=1 / 127.5, resize=(328, 328))
    model = open_model(tmp_path / "net.caffemodel", override=options)
    images = read_images(tmp_path / "images", model)
    made = make_bundle(model, images, tmp_path / "b", BundleOptions(num_checked=2, num_samples=0))
    assert made.check.passes
    assert made.check.num_images == 2
    assert made.num_layers == (993, 580)


def test_force_replaces_bundles_only(folder, tmp_path, capsys):
    (tmp_path / "run" / "snapshots").mkdir(parents=True)
    argv = ["deploy", str(folder / "net.caffemodel"), "--images", str(folder / "images"), "--force"]
    for out in ("run", "file"):
        (tmp_path / "file").write_text("mine")
        assert cli([*argv, "--out", str(tmp_path / out)]) == 1
        assert "is no bundle" in capsys.readouterr().err
    assert (tmp_path / "run" / "snapshots").is_dir()
    assert (tmp_path / "file").read_text() == "mine"


def test_folders_that_only_look_like_bundles(tmp_path):
    refuse_other(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"has no deploy\.prototxt"):
        refuse_other(tmp_path)
    (tmp_path / "deploy.prototxt").write_text("")
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration" / "00001.npy").write_bytes(b"")
    refuse_other(tmp_path)
    (tmp_path / "calibration" / "00001.jpg").write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"holds calibration/00001\.jpg"):
        refuse_other(tmp_path)


def small_net(folder, name="net.caffemodel"):
    """A net of a 3x3 convolution, trained, and its path."""
    text = (
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 3, 8, 8] } } }'
        + conv("c", "x")
        + layer("InnerProduct", "s", "c", param="inner_product_param { num_output: 3 }")
        + layer("Softmax", "prob", "s")
    )
    folder.mkdir(exist_ok=True)
    header = "input: BGR, 0 to 255, minus 127.5 127.5 127.5, times 0.0078431373; output: prob, 3"
    write_prototxt(folder / "deploy.prototxt", parse(text), header=header)
    return write_trained(parse(text), folder / name)


def test_names_that_no_line_or_no_text_can_hold(caffe, folder, tmp_path):
    """A class name with a line break, a file whose name is not UTF-8."""
    path = small_net(tmp_path / "net", os.fsdecode(b"n\xfft.caffemodel"))
    table = b"ant\\x0abird\nbe\xff\ncow\n"
    (path.parent / "labels.txt").write_bytes(table)
    model = open_model(path, override=PreprocessingOptions(resize=(8, 8)))
    assert model.class_names[0] == "ant\nbird"
    images = read_images(folder / "images", model)
    made = make_bundle(model, images, tmp_path / "b", BundleOptions(num_checked=1, num_samples=0))
    assert made.check.passes
    assert (tmp_path / "b/labels.txt").read_bytes() == table
    assert r"of n\udcfft.caffemodel" in (tmp_path / "b/deploy.prototxt").read_text()
    assert open_model(tmp_path / "b").class_names == model.class_names


def test_a_net_that_has_diverged_is_refused(caffe, folder, tmp_path):
    path = small_net(tmp_path / "net")
    weights = read_binary(path, messages.NetParameter)
    weights.layer[1].blobs[0].data[0] = float("nan")
    write_binary(path, weights)
    model = open_model(path)
    images = read_images(folder / "images", model)
    with pytest.raises(InputError, match="scores are not finite"):
        make_bundle(model, images, tmp_path / "b", BundleOptions(num_checked=1, num_samples=0))
    assert not (tmp_path / "b").exists()


def test_samples_are_spread_over_all_images(folder, tmp_path):
    model = open_model(small_net(tmp_path / "net"))
    images = read_images(folder / "images", model)
    kept, paths = take_samples(images, model, tmp_path, num_kept=2, num_written=4, kind="npy")
    assert [sample.name for sample in kept] == ["ant/0.png", "bee/1.png"]
    assert len(paths) == 4
    wide, _ = take_samples(images, model, tmp_path, num_kept=4, num_written=0, kind="npy")
    assert [sample.name for sample in wide] == ["ant/0.png", "ant/1.png", "bee/1.png", "cow/0.png"]


def test_what_opencv_cannot_run_is_an_error_with_a_hint(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"no net")
    with pytest.raises(OutputError, match=r"net\.onnx cannot be run in OpenCV") as caught:
        _in_opencv(tmp_path / "net.onnx", "prob")
    assert "without --onnx" in caught.value.hint


def test_without_images_it_says_how_to_name_some(caffe, folder, tmp_path, capsys):
    out = tmp_path / "b"
    assert cli(["deploy", str(folder / "net.caffemodel"), "--out", str(out)]) == 1
    assert "--images" in capsys.readouterr().err
    assert not out.exists()


def test_a_net_that_does_not_survive_folding_is_refused(caffe, folder, tmp_path):
    text = (
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 3, 8, 8] } } }'
        + conv("c", "x", "num_output: 6", bias="true").replace("num_output: 6 kernel", "kernel")
        + layer("BatchNorm", "b", "c", param="batch_norm_param { eps: 1e-12 }")
        + layer("Pooling", "p", "b", param="pooling_param { pool: AVE global_pooling: true }")
        + layer("InnerProduct", "s", "p", param="inner_product_param { num_output: 3 }")
        + layer("Softmax", "prob", "s")
    )
    net = parse(text)
    write_prototxt(tmp_path / "deploy.prototxt", net)
    model = write_trained(net, tmp_path / "net.caffemodel")
    huge, tiny = np.float32(3e6), np.float32(1e-3)  # the convolution's bias, BatchNorm's mean
    weights = read_binary(model, messages.NetParameter)
    for each in weights.layer:
        if each.name == "c":
            each.blobs[1].CopyFrom(blob_from_array(np.full(6, huge, "f4")))
        if each.name == "b":
            arrays = [np.full(6, huge, "f4"), np.full(6, tiny, "f4"), np.ones(1, "f4")]
            for blob, array in zip(each.blobs, arrays, strict=True):
                blob.CopyFrom(blob_from_array(array))
    write_binary(model, weights)
    options = PreprocessingOptions(mean_value=(120.0,), scale=0.01)
    opened = open_model(model, net=tmp_path / "deploy.prototxt", override=options)
    images = read_images(folder / "images", opened)
    with pytest.raises(OutputError, match="is not the net that was trained: largest difference"):
        make_bundle(opened, images, tmp_path / "b", BundleOptions(num_checked=2, num_samples=0))
    assert not (tmp_path / "b").exists()


def made(mode, interpolation, *, channels=3, image=False):
    mean = np.arange(channels, dtype="f4") + 100
    if image:
        mean = np.random.default_rng(0).uniform(0, 200, (channels, 40, 36)).astype("f4")
    return Preprocessing(
        channels, 32, 30, mean, 0.017, stored=(40, 36), resize=mode, interpolation=interpolation
    )


KINDS = [
    *(made(mode, "linear") for mode in RESIZE_MODES),
    made("squash", "cubic"),
    made("fill", "linear", channels=1),
    made("squash", "linear", image=True),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder for each preprocessing, as in a bundle, and images."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(1)
    photo(rng, 80, 61).save(folder / "wide.png")
    photo(rng, 50, 97).save(folder / "high.jpg", quality=95)
    for number, kind in enumerate(KINDS):
        (folder / str(number)).mkdir()
        kind.write(folder / str(number))
        np.save(folder / str(number) / "mean.npy", kind.mean)
        script = (templates_dir() / "deploy" / "prepare.py").read_text()
        (folder / str(number) / "prepare.py").write_text(script)
    return folder


LOOP = """
import importlib, sys
import numpy as np
root, count, suffix = sys.argv[1:]
for number in range(int(count)):
    sys.path.insert(0, "%s/%d" % (root, number))
    sys.modules.pop("prepare", None)
    prepare = importlib.import_module("prepare").prepare
    for name in ("wide.png", "high.jpg"):
        np.save("%s/%d/%s.%s.npy" % (root, number, name, suffix), prepare(root + "/" + name))
    del sys.path[0]
"""


def images_prepared(folder, suffix):
    """(what our own code feeds, what prepare.py made) for each preprocessing and image."""
    for number, kind in enumerate(KINDS):
        for name in ("wide.png", "high.jpg"):
            image: Any = cv2.imread(str(folder / name), 1 if kind.channels == 3 else 0)
            if kind.resized_to:
                size = kind.resized_to[::-1]
                image = resize(image, size, kind.resize, kind.interpolation)
            yield kind, feed(kind, image), np.load(folder / str(number) / f"{name}.{suffix}.npy")


def test_prepare_with_opencv_is_what_the_nets_are_tested_with(prepared):
    run([sys.executable, "-c", LOOP, str(prepared), str(len(KINDS)), "cv"])
    for _, wanted, found in images_prepared(prepared, "cv"):
        assert (found == wanted).all()


def test_prepare_without_opencv_differs_by_one_level(caffe, prepared):
    command = tool_command(caffe, "python", ["-c", LOOP, str(prepared), str(len(KINDS)), "pil"])
    run(command.argv, **command.env)
    for kind, wanted, found in images_prepared(prepared, "pil"):
        if kind.interpolation == "linear":
            assert np.abs(found - wanted).max() <= 2.01 * kind.scale  # gray: Pillow's rounding, too
        assert found.shape == wanted.shape


def test_comparison_by_hand():
    wanted = np.array([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]])
    deviation = wanted.std()
    same = compare(wanted, wanted + 1e-5 * np.eye(2, 3, 1))
    assert same.passes
    assert same.largest == pytest.approx(1e-5 / deviation)
    other = compare(wanted, np.roll(wanted, 1, axis=1))
    assert (other.same_best, other.same_ranking, other.passes) == (0, 0, False)
    tied = np.array([[1.0, 1.0 + 1e-6, 9.0]])
    turned = compare(tied, tied[:, [1, 0, 2]])
    assert turned.passes  # what rounding turns round is the same
    assert not compare(wanted, wanted * np.nan).passes
    assert not compare(wanted, wanted + 0.1 * np.eye(2, 3, 1)).passes
