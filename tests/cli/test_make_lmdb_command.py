"""make-lmdb as users type it, and what the real Caffe reads from its databases."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import numpy as np
import pytest
from helpers.archives import VAL_LABELS, devkit, idx, ilsvrc_train, ilsvrc_val
from helpers.program import run
from helpers.zoo import photo
from PIL import Image

from irv2caffe.caffe.command import tool_command
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.decode import stored_pixels

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with images/cat and images/dog."""
    folder = tmp_path_factory.mktemp("desk")
    rng = np.random.default_rng(0)
    for number in range(24):
        place = folder / "images" / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        photo(rng, 60, 50).save(place / f"{number}.jpg")
    return folder


def test_dry_run_writes_nothing_and_tells_the_size(desk):
    before = sorted(desk.iterdir())
    done = run("make-lmdb", "images", "out", "--dry-run", "--json", cwd=desk)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert sorted(desk.iterdir()) == before
    assert (told["num_images"], told["num_classes"], told["is_shuffled"]) == (24, 2, True)
    made = run("make-lmdb", "images", "out", cwd=desk)
    size = (desk / "out/data.mdb").stat().st_size
    assert told["size_bytes"] == pytest.approx(size, rel=0.01)
    assert "24 images of 2 classes" in made.stdout
    text = run("make-lmdb", "images", "other", "--dry-run", "--encoded", "jpg", cwd=desk)
    assert "images (folders): 24 images of 2 classes, shuffled" in text.stdout
    assert "GB are free" in text.stdout
    json_told = run("make-lmdb", "images", "o", "--dry-run", "--encoded", "jpg", "--json", cwd=desk)
    run("make-lmdb", "images", "jpg", "--encoded", "jpg", cwd=desk)
    size = (desk / "jpg/data.mdb").stat().st_size
    assert json.loads(json_told.stdout)["size_bytes"] == pytest.approx(size, rel=0.05)


def test_ilsvrc_from_the_downloads(tmp_path):
    """Both archives and the kit in one folder, as they are after the download."""
    rng = np.random.default_rng(0)
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    ilsvrc_train(downloads / "ILSVRC2012_img_train.tar", rng)
    ilsvrc_val(downloads / "ILSVRC2012_img_val.tar", rng)
    devkit(downloads)
    small = ("--resize", "32", "--json")
    train = run("make-lmdb", "downloads", "train", "--split", "train", *small, cwd=tmp_path)
    assert train.returncode == 0, train.stderr
    val = run(
        *("make-lmdb", "downloads", "val", "--split", "val", "--labels", "train"),
        *small,
        cwd=tmp_path,
    )
    assert val.returncode == 0, val.stderr
    assert (tmp_path / "train/labels.txt").read_bytes() == (
        tmp_path / "val/labels.txt"
    ).read_bytes()
    manifests = [
        json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("train", "val")
    ]
    assert [manifest["shuffled"] for manifest in manifests] == [True, False]
    assert [manifest["num_images"] for manifest in manifests] == [20, 8]
    counts = {str(label): VAL_LABELS.count(label) for label in range(4)}
    assert manifests[1]["images_per_label"] == counts


def test_max_skipped_allows_for_bad_images(desk, tmp_path):
    bad = tmp_path / "images" / "x"
    bad.mkdir(parents=True)
    (bad / "text.jpg").write_text("words")
    (bad / "good.jpg").write_bytes((desk / "images/cat/0.jpg").read_bytes())
    args = ("make-lmdb", "images", "out", "--resize", "8", "--force")
    assert run(*args, cwd=tmp_path).returncode == 3
    allowed = run(*args, "--max-skipped", "1", cwd=tmp_path)
    assert allowed.returncode == 0
    assert "1: not an image that can be decoded" in allowed.stderr
    assert run(*args, "--max-skipped", "0", cwd=tmp_path).returncode == 1


def test_damaged_images_are_taken_and_named(desk, tmp_path):
    folder = tmp_path / "images" / "x"
    folder.mkdir(parents=True)
    whole = (desk / "images/cat/0.jpg").read_bytes()
    middle = len(whole) * 2 // 3
    (folder / "damaged.jpg").write_bytes(whole[:middle] + bytes(40) + whole[middle + 40 :])
    (folder / "whole.jpg").write_bytes(whole)
    done = run("make-lmdb", "images", "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_complaints"] == 1
    rows = (tmp_path / "out/complaints.csv").read_text().splitlines()
    assert rows[0] == "path,complaint"
    assert rows[1].startswith("x/damaged.jpg,Corrupt JPEG data")
    assert len(rows) == 2
    assert "Corrupt" not in done.stderr


def test_progress_on_a_terminal_and_elsewhere(desk, tmp_path):
    plain = run("make-lmdb", desk / "images", "plain", "--resize", "8", cwd=tmp_path)
    assert "images: 24 of 24" in plain.stderr
    command = [sys.executable, "-m", "irv2caffe", "make-lmdb", str(desk / "images"), "db"]
    reading, writing = pty.openpty()
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=writing,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm"},
    ) as child:
        os.close(writing)
        shown = b""
        try:
            while part := os.read(reading, 65_536):
                shown += part
        except OSError:  # Linux says so when the other side is gone
            pass
        assert child.wait() == 0
    os.close(reading)
    assert b"24/24" in shown
    assert b"\x1b[" in shown
    assert b"a second" in shown


def test_mnist_without_unpacking(tmp_path):
    (tmp_path / "mnist").mkdir()
    idx(tmp_path / "mnist", np.random.default_rng(0))
    done = run("make-lmdb", "mnist", "db", "--resize", "none", "--gray", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "10 images of 5 classes" in done.stdout
    val = run("make-lmdb", "mnist", "val", "--split", "val", "--labels", "db", cwd=tmp_path)
    assert val.returncode == 0, val.stderr
    assert "in order" in val.stderr


READ = """
import sys
import numpy as np
import caffe
net = caffe.Net(sys.argv[1], caffe.TEST)
net.forward()
np.savez(sys.argv[2], data=net.blobs["data"].data, label=net.blobs["label"].data)
"""


@pytest.mark.parametrize("encoded", ["none", "jpg", "png"])
def test_caffe_reads_what_we_wrote(caffe, desk, tmp_path, encoded):
    """The values of Caffe's Data layer, against ours and, where nothing is lost, Pillow's."""
    args = ("--encoded", encoded, "--resize", "60x50", "--seed", "3")
    done = run("make-lmdb", desk / "images", "db", *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (
        'layer { name: "data" type: "Data" top: "data" top: "label" '
        f'data_param {{ source: "{tmp_path / "db"}" backend: LMDB batch_size: 24 }} }}\n'
    )
    (tmp_path / "net.prototxt").write_text(text)
    command = tool_command(
        caffe, "python", ["-c", READ, str(tmp_path / "net.prototxt"), str(tmp_path / "read.npz")]
    )
    subprocess.run(command.argv, env=command.env, check=True, capture_output=True)
    read = np.load(tmp_path / "read.npz")
    with open_reader(tmp_path / "db") as reader:
        records = list(reader)
    for place, (key, value) in enumerate(records):
        name = key.decode()[9:]
        assert read["label"][place] == int(name.startswith("dog"))
        assert np.array_equal(read["data"][place], stored_pixels(value).transpose(2, 0, 1))
        if encoded != "jpg":
            with Image.open(desk / "images" / name) as picture:
                pixels = np.asarray(picture)[:, :, ::-1].astype(int)
            assert np.abs(pixels - read["data"][place].transpose(1, 2, 0)).max() <= 4
