"""Class folders, lists, ILSVRC's archives, CIFAR, MNIST: what is read, and what is refused."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import os
import pickle
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zlib
from importlib.util import find_spec
from pathlib import Path

import lmdb
import numpy as np
import pytest
from helpers.archives import (
    ALL_LABELS,
    CIFAR_CLASSES,
    VAL_LABELS,
    WNIDS,
    add,
    cifar,
    decoded,
    devkit,
    idx,
    idx_bytes,
    ilsvrc_train,
    ilsvrc_val,
    tar_bytes,
)
from helpers.zoo import file_bytes, photo
from PIL import Image

from irv2caffe.data.build.make_lmdb import BuildOptions, make_lmdb
from irv2caffe.data.build.side_files import read_skipped
from irv2caffe.data.build.size_estimate import estimate_lmdb
from irv2caffe.data.records.datum import read_head
from irv2caffe.data.records.decode import stored_pixels
from irv2caffe.data.records.headers import has_16_bits
from irv2caffe.data.records.image import UndecodableImageError, decode_record, open_image
from irv2caffe.data.sources import open_source, read_labels
from irv2caffe.data.sources.devkit import read_devkit
from irv2caffe.data.sources.lists import NO_NAMES, ranges
from irv2caffe.data.sources.pickles import load_pickle
from irv2caffe.data.sources.tar_headers import tar_members
from irv2caffe.errors import FormatError, InputError, MissingInputError, UsageError

PLAIN = BuildOptions(size=None, shuffle=False)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def records(folder):
    """(name, label, pixels) of every record."""
    with lmdb.open(str(folder), readonly=True, lock=False) as database, database.begin() as view:
        return [
            (key[9:].decode("utf-8", "surrogateescape"), read_head(value).label, value)
            for key, value in view.cursor()
        ]


def built(source, out, options=PLAIN):
    make_lmdb(source, out, options)
    return records(out)


# Class folders


def test_missing_folders(tmp_path):
    with pytest.raises(MissingInputError):
        open_source(tmp_path / "no")
    with pytest.raises(InputError, match="no class folders"):
        open_source(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        open_source(tmp_path)
    (tmp_path / "file").write_text("words")
    with pytest.raises(InputError, match="neither a folder nor a known kind of archive"):
        open_source(tmp_path / "file")


def test_what_lies_in_class_folders(tmp_path, rng):
    """Links, loops, folders named like images, pipes, other files, hidden ones, broken links."""
    good = file_bytes(photo(rng, 20, 20), "png")
    root = tmp_path / "images"
    for name in ("a", "b", ".hidden", "__MACOSX"):
        (root / name / "deep").mkdir(parents=True)
        (root / name / "deep" / "1.png").write_bytes(good)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/far.png").write_bytes(good)
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "a/loop").symlink_to(root / "a")
    (root / "a/deep/2.png").symlink_to(tmp_path / "elsewhere/far.png")
    (root / "b/broken.png").symlink_to(tmp_path / "nowhere")
    (root / "b/folder.jpg").mkdir()
    (root / "b/readme.txt").write_text("words")
    (root / "b/Thumbs.db").write_text("words")
    (root / "b/._mac.png").write_text("words")
    (root / "loose.png").write_bytes(good)
    os.mkfifo(root / "b/pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "b/socket.png"))
    source = open_source(root)
    assert source.classes == ("a", "b", "c")
    assert [(item.name, item.label) for item in source.items] == [
        ("a/deep/1.png", 0),
        ("a/deep/2.png", 0),
        ("b/broken.png", 1),
        ("b/deep/1.png", 1),
        ("b/pipe.png", 1),
        ("b/socket.png", 1),
        ("c/far.png", 2),
    ]
    assert source.notes == (
        "2 file(s) that are not called like images are not taken: 1 .txt, 1 .db",
        "1 image(s) outside of the class folders are not taken",
    )
    report = make_lmdb(source, tmp_path / "db", PLAIN)
    assert sorted(read_skipped(tmp_path / "db")) == [
        ("a/loop", "a link to a folder above it", ""),
        ("b/broken.png", "no such file", ""),
        ("b/folder.jpg", "a folder with the name of an image", ""),
        ("b/pipe.png", "not a regular file", ""),
        ("b/socket.png", "no such device or address", ""),
    ]
    assert report.num_images == 4
    assert report.num_skipped == 5


def test_links_that_cannot_be_followed(tmp_path, rng):
    """One of them costs nothing but itself; where it may be a class it costs everything."""
    good = file_bytes(photo(rng, 20, 20), "png")
    root = tmp_path / "images"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_bytes(good)
    for name in ("loop.png", "loop"):
        (root / "a" / name).symlink_to(root / "a" / name)
    (root / "a/gone").symlink_to(tmp_path / "no such disk")
    (root / "a/up").symlink_to(root)
    source = open_source(root)
    assert [(item.name, item.label) for item in source.items] == [
        ("a/1.png", 0),
        ("a/loop.png", 0),
        ("b/1.png", 1),
    ]
    make_lmdb(source, tmp_path / "db", PLAIN)
    assert sorted(read_skipped(tmp_path / "db")) == [
        ("a/gone", "a link that cannot be followed", "no such file"),
        ("a/loop", "a link that cannot be followed", "too many levels of symbolic links"),
        ("a/loop.png", "too many levels of symbolic links", ""),
        ("a/up", "a link to a folder above it", ""),
    ]
    (root / "aa").symlink_to(tmp_path / "no such disk")
    with pytest.raises(InputError, match="images/aa cannot be followed: no such file"):
        open_source(root)


def test_a_folder_on_a_failing_disk_ends_the_job(tmp_path, rng, monkeypatch):
    (tmp_path / "a/deep").mkdir(parents=True)
    (tmp_path / "a/1.png").write_bytes(file_bytes(photo(rng, 20, 20), "png"))
    scandir = os.scandir

    def failing(folder):
        if str(folder).endswith("deep"):
            raise OSError(errno.EIO, "Input/output error")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(InputError, match=r"cannot read .*deep: Input/output error"):
        open_source(tmp_path)


def test_names_that_are_no_utf8(tmp_path, rng):
    good = file_bytes(photo(rng, 20, 20), "png")
    root = os.fsencode(tmp_path / "images")
    folder = Path(os.fsdecode(root + b"/caf\xe9"))
    folder.mkdir(parents=True)
    for name in (b"na\xefve.png", b"new\nline.png", "日本.png".encode(), b'a,b".png'):
        (folder / os.fsdecode(name)).write_bytes(good)
    (folder / os.fsdecode(b"bad\xff.jpg")).write_text("words")
    source = open_source(tmp_path / "images")
    make_lmdb(source, tmp_path / "db", BuildOptions(size=(8, 8), shuffle=False))
    with lmdb.open(str(tmp_path / "db"), readonly=True) as database, database.begin() as view:
        keys = [key[9:] for key, _ in view.cursor()]
    assert keys == [
        b'caf\xe9/a,b".png',
        b"caf\xe9/na\xefve.png",
        b"caf\xe9/new\nline.png",
        b"caf\xe9/" + "日本.png".encode(),
    ]
    assert b"bad\xff.jpg" in (tmp_path / "db/skipped.csv").read_bytes()
    assert (tmp_path / "db/labels.txt").read_bytes() == b"caf\xe9\n"
    assert read_labels(tmp_path / "db") == ("caf\udce9",)
    done = subprocess.run(
        [sys.executable, "-m", "irv2caffe", "make-lmdb", "images", "other", "--json"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["num_images"] == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_what_may_not_be_read(tmp_path, rng):
    """As a user without rights; root may read everything."""
    root = tmp_path / "images"
    for name in ("a", "b", "b/closed"):
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_bytes(file_bytes(photo(rng, 20, 20), "png"))
    (root / "a/secret.png").write_bytes((root / "a/1.png").read_bytes())
    (root / "a/secret.png").chmod(0)
    (root / "b/closed").chmod(0)
    (tmp_path / "out").mkdir()
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and str(folder).startswith(str(tmp_path.parents[1])):
            folder.chmod(0o755)
    (tmp_path / "out").chmod(0o777)
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65_534)
            os.setuid(65_534)
            source = open_source(root)
            names = {(skip.name, skip.reason) for skip in source.skipped}
            is_right = names == {("b/closed", "a folder that cannot be read")}
            from irv2caffe.data.records.image import UndecodableImageError
            from irv2caffe.data.records.record import read_file

            try:
                read_file(str(root / "a/secret.png"))
            except UndecodableImageError as error:
                is_right &= error.reason == "permission denied"
            os._exit(0 if is_right else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_keys_that_are_too_long(tmp_path, rng):
    deep = tmp_path / "images" / "x" / ("d" * 200) / ("d" * 200) / ("d" * 200)
    deep.mkdir(parents=True)
    (deep / "1.png").write_bytes(file_bytes(photo(rng, 9, 9), "png"))
    with pytest.raises(InputError, match="too long for a key"):
        make_lmdb(open_source(tmp_path / "images"), tmp_path / "db", PLAIN)


@pytest.mark.slow
def test_a_million_names_take_little_memory():
    """Measured in a process of its own: the packed list against the names alone."""
    code = (
        "import resource\n"
        "from irv2caffe.data.records.items import Item, Items\n"
        "start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "items = Items()\n"
        "for n in range(1_000_000):\n"
        "    items.add(Item(f'n{n % 1000:08d}/n{n % 1000:08d}_{n}.JPEG', n % 1000))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)\n"
        "assert items[999_999].name == 'n00000999/n00000999_999999.JPEG'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100


# Lists


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("img.png", "line 2: no label"),
        ("img.png three", "line 2: no label"),
        ("img.png -1", "line 2: a negative label"),
        ("img.png 1.5", "line 2: a fraction for a label"),
        ("img.png 3x", "line 2: no label"),
        ("img.png ٣", "line 2: no label"),
        (" 3", "line 2: no label"),
        ("../img.png 1", "line 2: the path leaves"),
        ("a/../../img.png 1", "line 2: the path leaves"),
        ("/etc/img.png 1", "line 2: the path leaves"),
        ("img.png 99999999999", "line 2: a label above 2147483647"),
        ("img.png 2147483648", "line 2: a label above 2147483647"),
        ("good image.png 1", "line 2: label 1, but line 1 gave the same image label 0"),
    ],
)
def test_bad_list_lines_are_refused_by_number(tmp_path, line, words):
    (tmp_path / "list.txt").write_text(f"good image.png 0\n{line}\n")
    with pytest.raises(FormatError, match=words):
        open_source(tmp_path, tmp_path / "list.txt")


def test_all_bad_lines_are_named(tmp_path):
    lines = ["a.png 0", *["b.png"] * 1234, "c.png 1", "d.png", "../e.png 1", "f.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    words = "1,237 bad line(s): line 2-1235, 1237, 1239: no label at the end; line 1238: the path"
    with pytest.raises(FormatError, match=re.escape(words)):
        open_source(tmp_path, tmp_path / "list.txt")


def test_ranges_of_lines():
    assert ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
    assert ranges(range(1, 10_000, 2)).endswith(", 1999 and 4,000 more")


def test_many_contradicting_lines(tmp_path):
    lines = [f"{number}.png {label}" for label in (0, 1) for number in range(100)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    with pytest.raises(
        FormatError, match=r"100 bad line\(s\): line 101: label 1, but line 1 gave"
    ) as e:
        open_source(tmp_path, tmp_path / "list.txt")
    assert "line 121-200: another label than an earlier line gives" in e.value.message


def test_list_lines_with_spaces_tabs_and_carriage_returns(tmp_path):
    lines = [
        b"\xef\xbb\xbfan image.png 3\r\n",
        b"\n",
        b"   \t \n",
        b"b.png\t0\n",
        b"c\td.png 12  \n",
        b"caf\xe9.png 00005\n",
        str(tmp_path).encode() + b"/below.png 1\n",
        b"last.png 7",
    ]
    (tmp_path / "list.txt").write_bytes(b"".join(lines))
    source = open_source(tmp_path, tmp_path / "list.txt")
    assert [(item.name, item.label) for item in source.items] == [
        ("an image.png", 3),
        ("b.png", 0),
        ("c\td.png", 12),
        ("caf\udce9.png", 5),
        ("below.png", 1),
        ("last.png", 7),
    ]
    assert source.notes == ("7 label(s) below 12 have no image", NO_NAMES)


def test_notes_on_lists(tmp_path):
    (tmp_path / "list.txt").write_text("a.png 1\nb.png 2\na.png 1\n")
    notes = open_source(tmp_path, tmp_path / "list.txt").notes
    assert notes == (
        "1 line(s) repeat an image",
        "the smallest label is 1: do the labels count from 1?",
        NO_NAMES,
    )
    (tmp_path / "names.txt").write_text("x\ny\nz\n")
    named = open_source(tmp_path, tmp_path / "list.txt", tmp_path / "names.txt")
    assert (named.classes, NO_NAMES in named.notes) == (("x", "y", "z"), False)


def test_labels_beyond_the_class_table(tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\nemu\n")
    (tmp_path / "list.txt").write_text("a.png 0\n\nb.png 3\n")
    with pytest.raises(InputError, match=r"list.txt: label 3, but there are 3 classes: line 3"):
        open_source(tmp_path, tmp_path / "list.txt", tmp_path / "labels.txt")
    (tmp_path / "list.txt").write_text("a.png 0\n\nb.png 2\n")
    source = open_source(tmp_path, tmp_path / "list.txt", tmp_path / "labels.txt")
    assert source.notes == ("1 class(es) without images: dog",)
    (tmp_path / "labels.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(FormatError, match="'cat' is listed twice"):
        open_source(tmp_path, tmp_path / "list.txt", tmp_path / "labels.txt")


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\0\1\2\3 1\n", b"x" * 100_000])
def test_what_is_no_list(tmp_path, data):
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(FormatError):
        open_source(tmp_path, tmp_path / "list.txt")
    with pytest.raises(MissingInputError):
        open_source(tmp_path, tmp_path / "no.txt")
    with pytest.raises(InputError, match="directory"):
        open_source(tmp_path, tmp_path)


# ILSVRC


@pytest.mark.slow
def test_ilsvrc_training_archive(tmp_path, rng):
    images = ilsvrc_train(tmp_path / "ILSVRC2012_img_train.tar", rng)
    source = open_source(tmp_path)
    assert source.kind == "ilsvrc"
    assert source.classes == WNIDS
    assert not source.is_validation
    found = built(source, tmp_path / "db")
    assert [name for name, _, _ in found] == sorted(images)
    for name, label, value in found:
        assert WNIDS[label] == name.partition("/")[0]
        assert np.array_equal(stored_pixels(value), decoded(images[name]))
    assert read_labels(tmp_path / "db") == WNIDS
    mixed = BuildOptions(size=(8, 8), encoded="jpg")
    assert not estimate_lmdb(source, PLAIN, tmp_path / "no").is_shuffled
    assert estimate_lmdb(source, mixed, tmp_path / "no").is_shuffled
    again = built(source, tmp_path / "mixed", mixed)
    assert sorted(name for name, _, _ in again) == sorted(images)


def test_ilsvrc_validation_archive_with_the_devkit(tmp_path, rng):
    images = ilsvrc_val(tmp_path / "ILSVRC2012_img_val.tar", rng)
    kit = devkit(tmp_path)
    source = open_source(tmp_path)
    assert len(source.classes) == 1000
    assert source.is_validation
    found = built(source, tmp_path / "db", BuildOptions(size=None))
    assert [name for name, _, _ in found] == sorted(images)
    assert tuple(label for _, label, _ in found) == ALL_LABELS
    assert read_labels(tmp_path / "db") == source.classes
    words = (tmp_path / "db/synset_words.txt").read_text().splitlines()
    assert words[0] == "n01440764 tench, Tinca tinca"
    assert words[489] == "n03000134 chainlink fence"
    # Unpacked, and with the class table of a smaller training set.
    with tarfile.open(kit) as archive:
        archive.extractall(tmp_path / "kit", filter="data")
    (tmp_path / "labels.txt").write_text("n02085620\nn01443537\n")
    folder = tmp_path / "kit/ILSVRC2012_devkit_t12"
    truth = folder / "data/ILSVRC2012_validation_ground_truth.txt"
    for given in (folder, folder / "data", truth):
        part = open_source(
            tmp_path / "ILSVRC2012_img_val.tar", labels=tmp_path / "labels.txt", devkit=given
        )
        assert [item.label for item in part.items] == [0, 1, 1, 0]
        assert "4 image(s) of other classes are not taken" in part.notes
    (tmp_path / "labels.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    source = open_source(tmp_path, labels=tmp_path / "labels.txt")
    assert tuple(item.label for item in source.items) == VAL_LABELS
    (tmp_path / "labels.txt").write_text("n02085620\ncat\n")
    with pytest.raises(InputError, match="does not know classes of the class table: cat"):
        open_source(tmp_path, labels=tmp_path / "labels.txt")


def test_the_classes_of_ilsvrc_are_those_of_timm(tmp_path):
    """Their order and their words, in lists that others made."""
    (package,) = find_spec("timm").submodule_search_locations
    info = Path(package, "data/_info")
    truth = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("".join(f"{number}\n" for number in range(1, 1001)))
    kit = read_devkit(truth)
    assert list(kit.classes) == (info / "imagenet_synsets.txt").read_text().split()
    lines = (info / "imagenet_synset_to_lemma.txt").read_text().splitlines()
    words = dict(line.split("\t") for line in lines)
    assert list(kit.words) == [words[wnid] for wnid in kit.classes]
    assert sorted(kit.labels) == list(range(1000))
    # From the numbering that ImageNet publishes, and from TensorFlow's label map.
    some = {1: "kit fox", 2: "English setter", 449: "tench", 450: "goldfish", 1000: "dumbbell"}
    assert {id_: kit.words[kit.labels[id_ - 1]].partition(",")[0] for id_ in some} == some


def test_ilsvrc_validation_archive_with_a_list(tmp_path, rng):
    images = ilsvrc_val(tmp_path / "ILSVRC2012_img_val.tar", rng)
    with pytest.raises(MissingInputError, match="loose images and no labels"):
        open_source(tmp_path)
    names = sorted(images)
    text = "".join(f"{name} {label}\n" for name, label in zip(names, VAL_LABELS, strict=True))
    (tmp_path / "val.txt").write_text(text)
    source = open_source(tmp_path)
    assert tuple(item.label for item in source.items) == VAL_LABELS
    (tmp_path / "other.txt").write_text(f"{names[3]} 1\n{names[0]} 0\nno.JPEG 2\n")
    source = open_source(tmp_path / "ILSVRC2012_img_val.tar", tmp_path / "other.txt")
    assert [(item.name, item.label) for item in source.items] == [(names[3], 1), (names[0], 0)]
    assert [(skip.name, skip.reason) for skip in source.skipped] == [
        ("no.JPEG", "not in the archive")
    ]
    assert "6 image(s) are not in the list" in source.notes


def test_ilsvrc_validation_archive_packed_anew(tmp_path, rng):
    """Its images in a folder are no class, whether a list, a devkit or nothing gives the labels."""
    images = ilsvrc_val(tmp_path / "ILSVRC2012_img_val.tar", rng)
    path = tmp_path / "again/val.tar"
    path.parent.mkdir()
    path.write_bytes(tar_bytes([(f"val/{name}", data) for name, data in sorted(images.items())]))
    with pytest.raises(MissingInputError, match="loose images and no labels"):
        open_source(path)
    source = open_source(path, devkit=devkit(tmp_path))
    assert tuple(item.label for item in source.items) == ALL_LABELS
    lines = [f"{name} {label}\n" for name, label in zip(sorted(images), VAL_LABELS, strict=True)]
    (path.parent / "val.txt").write_text("".join(lines))
    source = open_source(path)
    assert tuple(item.label for item in source.items) == VAL_LABELS
    assert source.is_validation


def test_an_archive_with_a_list(tmp_path, rng):
    data = file_bytes(photo(rng, 20, 20), "png")
    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes([("a/1.png", data), ("b/1.png", data), ("b/2.png", data)]))
    listing = tmp_path / "list.txt"
    listing.write_text("b/1.png 1\n2.png 1\na/1.png 0\n")
    source = open_source(path, listing)
    assert [(item.name, item.label) for item in source.items] == [
        ("b/1.png", 1),
        ("2.png", 1),
        ("a/1.png", 0),
    ]
    assert not source.is_validation  # so that it is shuffled
    listing.write_text("2.png 1\n1.png 0\n")
    with pytest.raises(FormatError, match=r"list.txt:2: several images .* are called 1.png"):
        open_source(path, listing)


def test_both_archives_in_one_folder(tmp_path, rng):
    ilsvrc_train(tmp_path / "ILSVRC2012_img_train.tar", rng)
    ilsvrc_val(tmp_path / "ILSVRC2012_img_val.tar", rng)
    (tmp_path / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 1\n")
    with pytest.raises(InputError, match="--split train or --split val"):
        open_source(tmp_path)
    assert len(open_source(tmp_path, split="train").items) == 20
    assert len(open_source(tmp_path, split="val").items) == 1


def test_a_tar_of_class_folders(tmp_path, rng):
    data = file_bytes(photo(rng, 20, 20), "png")
    files = [(f"./set/train/{name}", data) for name in ("dog/1.png", "cat/deep/2.png", "cat/1.png")]
    (tmp_path / "set.tar").write_bytes(tar_bytes([*files, ("./set/readme.txt", b"words")]))
    source = open_source(tmp_path / "set.tar")
    assert source.classes == ("cat", "dog")
    assert [item.name for item in source.items] == ["cat/1.png", "cat/deep/2.png", "dog/1.png"]


def test_hostile_archives(tmp_path, rng):
    """Members that would leave a folder, links, devices: named, never followed."""
    data = file_bytes(photo(rng, 20, 20), "png")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        add(archive, "a/good.png", data)
        add(archive, "/etc/absolute.png", data)
        add(archive, "a/../../up.png", data)
        add(archive, "a/link.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "a/hard.png", b"", type=tarfile.LNKTYPE, linkname="a/good.png")
        add(archive, "a/device.png", b"", type=tarfile.CHRTYPE)
        add(archive, "a/" + "long" * 60 + ".png", data)
    (tmp_path / "x.tar").write_bytes(stream.getvalue())
    source = open_source(tmp_path / "x.tar")
    assert [item.name for item in source.items] == ["a/good.png", "a/" + "long" * 60 + ".png"]
    reasons = {skip.name: skip.reason for skip in source.skipped}
    assert reasons == {
        "/etc/absolute.png": "its path leaves the archive",
        "a/../../up.png": "its path leaves the archive",
        "a/link.png": "a link or special file in an archive",
        "a/hard.png": "a link or special file in an archive",
        "a/device.png": "a link or special file in an archive",
    }


def test_broken_archives(tmp_path, rng):
    path = tmp_path / "ILSVRC2012_img_train.tar"
    ilsvrc_train(path, rng)
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.7):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(FormatError, match=r"broken tar|complete"):
            open_source(path)
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(FormatError, match=r"gunzip ILSVRC2012_img_train\.tar"):
        open_source(path)
    path.write_bytes(b"")
    with pytest.raises(InputError):
        open_source(path)
    path.write_bytes(tar_bytes([("readme.txt", b"words")]))
    with pytest.raises(InputError, match="holds no images"):
        open_source(path)


def test_sizes_that_no_image_has(tmp_path, rng, monkeypatch):
    """Negative ones would be read for ever, large ones into memory."""
    good = file_bytes(photo(rng, 20, 20), "png")
    path = tmp_path / "x.tar"
    for name in ("b.png", "b.txt"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
            add(archive, "a/1.png", good)
        info = tarfile.TarInfo(f"a/{name}")
        info.size = -512
        header = info.tobuf(tarfile.GNU_FORMAT)
        body = stream.getvalue()
        end = 512 + -(-len(good) // 512) * 512
        path.write_bytes(body[:end] + header + body[end:])
        with pytest.raises(FormatError, match="negative size"):
            open_source(path)
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(FormatError, match="a header of 1,099,511,627,776 bytes"):
        open_source(path)
    monkeypatch.setattr("irv2caffe.data.sources.tars.MAX_FILE_BYTES", len(good))
    path.write_bytes(tar_bytes([("a/1.png", good), ("a/2.png", good + b"x")]))
    source = open_source(path)
    assert [item.name for item in source.items] == ["a/1.png"]
    assert source.skipped[0].reason == "too large for an image"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_are_read_as_python_reads_them(tmp_path, form):
    path = tmp_path / "x.tar"
    shared = {"comment": "of all"} if form == tarfile.PAX_FORMAT else None
    with tarfile.open(path, "w", format=form, pax_headers=shared) as archive:
        add(archive, "folder", b"", type=tarfile.DIRTYPE)
        add(archive, "folder/1.png", b"x" * 512)
        add(archive, "folder/\xe4 2.png", b"y" * 513)
        add(archive, "long/" * 30 + "3.png", b"z")
        add(archive, "link.png", b"", type=tarfile.SYMTYPE, linkname="l/" * 45)
        add(archive, "4.png", b"", uname="\xe4" * 14)
    with tarfile.open(path) as archive:
        wanted = [
            (info.name, info.offset_data, info.size, info.isreg(), info.isdir()) for info in archive
        ]
    data = path.read_bytes()
    found = list(tar_members(lambda place, size: data[place : place + size], path))
    assert found == wanted


@pytest.mark.parametrize(
    "body",
    [
        b"1" * 200_000,  # which Python goes through once for each of its digits
        b"3 a" * 60_000 + b"=",  # and this too, with a key as long as the rest for each of them
        b"19 size=" + b"9" * 10 + b"\n",
        b"30 size=" + b"9" * 21 + b"\n",
        b"5 a\n",
        b"0 a=b\n",
        b"-6 a=b\n",
    ],
)
def test_extended_headers_that_claim_too_much(tmp_path, body):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    header = info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)
    (tmp_path / "x.tar").write_bytes(header + tar_bytes([("a/1.png", b"")]))
    with pytest.raises(FormatError, match="a broken tar"):
        open_source(tmp_path / "x.tar")


def test_a_damaged_header_is_not_the_end_of_an_archive(tmp_path, rng):
    data = file_bytes(photo(rng, 20, 20), "png")
    whole = bytearray(tar_bytes([(f"a/{number}.png", data) for number in range(3)]))
    second = 512 + -(-len(data) // 512) * 512
    whole[second + 3] ^= 1
    (tmp_path / "x.tar").write_bytes(whole)
    with pytest.raises(FormatError, match=f"no header at byte {second:,}"):
        open_source(tmp_path / "x.tar")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("name", ["cifar-10-binary.tar.bz2", "x.img"])
def test_small_archives_of_large_headers(tmp_path, kind, name):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 1 << 28
    packed = bz2.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 28))
    assert len(packed) < 2000
    (tmp_path / name).write_bytes(packed)
    tracemalloc.start()
    with pytest.raises(FormatError, match=r"a header of 268,435,456 bytes|bunzip2"):
        open_source(tmp_path / name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_flipped_bits_in_a_compressed_archive(tmp_path):
    """Its checksum stands behind the end of the tar, where nobody has to look for files."""
    files = [("c/batches.meta.txt", b"cat\n")]
    files += [(f"c/data_batch_{number}.bin", bytes(3073)) for number in range(1, 6)]
    data = bytearray(gzip.compress(tar_bytes(files), 0))
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(data)
    assert len(open_source(tmp_path / "cifar-10-binary.tar.gz").items) == 5
    data[3000] ^= 1
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(data)
    with pytest.raises(FormatError, match="CRC"):
        open_source(tmp_path / "cifar-10-binary.tar.gz")


@pytest.mark.slow
def test_many_small_headers_unpack_to_no_more_than_files_may(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 20
    headers = (info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)) * 300
    (tmp_path / "cifar-10-binary.tar.bz2").write_bytes(bz2.compress(headers))
    with pytest.raises(FormatError, match="more than such an archive"):
        open_source(tmp_path / "cifar-10-binary.tar.bz2")


def test_an_archive_that_shrinks_meanwhile(tmp_path, rng):
    path = tmp_path / "x.tar"
    data = file_bytes(photo(rng, 200, 200), "png")
    path.write_bytes(tar_bytes([(f"a/{number}.png", data) for number in range(20)]))
    source = open_source(path)
    os.truncate(path, 300_000)
    with pytest.raises(InputError, match="the archive ends before it"):
        make_lmdb(source, tmp_path / "db", PLAIN)


def test_broken_devkits(tmp_path, rng):
    ilsvrc_val(tmp_path / "ILSVRC2012_img_val.tar", rng)
    kit = devkit(tmp_path)
    data = kit.read_bytes()
    kit.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError):
        open_source(tmp_path)
    kit.write_bytes(tar_bytes([("x/readme.txt", b"words")], "w:gz"))
    with pytest.raises(MissingInputError, match="ground_truth"):
        open_source(tmp_path)
    name = "data/ILSVRC2012_validation_ground_truth.txt"
    kit.write_bytes(tar_bytes([("data/meta.mat", bytes(100 << 20)), (name, b"1\n")], "w:gz"))
    with pytest.raises(FormatError, match="holds more than"):
        open_source(tmp_path)


@pytest.mark.parametrize("size", [12 << 20, 80 << 20])
def test_zeros_behind_a_devkit(tmp_path, monkeypatch, size):
    """They are read in blocks, and not beyond the limit."""
    name = "data/ILSVRC2012_validation_ground_truth.txt"
    path = tmp_path / "devkit.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes([(name, b"1\n")]) + bytes(size)))
    reads = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda *args: reads.append(1) or read(*args))
    if size < 16 << 20:
        assert read_devkit(path).labels
    else:
        with pytest.raises(FormatError, match="holds more than"):
            read_devkit(path)
    assert len(reads) < 100


@pytest.mark.parametrize("number", ["0", "1001", "-1", "1.0", "x" * 100, "9" * 5000])
def test_ground_truth_of_another_year(tmp_path, number):
    path = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    path.write_text(f"1\n1000\n{number}\n")
    with pytest.raises(FormatError, match=r":3: .* is none of ILSVRC 2012's classes, 1 to 1000"):
        read_devkit(path)


# CIFAR


@pytest.mark.slow
@pytest.mark.parametrize("hundred", [False, True])
@pytest.mark.parametrize("python", [False, True])
def test_cifar(tmp_path, rng, hundred, python):
    path, images, labels = cifar(tmp_path, rng, hundred=hundred, python=python)
    source = open_source(path)
    assert source.kind == "cifar"
    found = built(source, tmp_path / "db")
    assert [label for _, label, _ in found] == labels
    for (name, label, value), image in zip(found, images, strict=True):
        assert np.array_equal(stored_pixels(value), image[:, :, ::-1])
        assert name.startswith(f"{CIFAR_CLASSES[label]}/")
    assert read_labels(tmp_path / "db") == CIFAR_CLASSES
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    again = built(open_source(tmp_path / "unpacked/cifar"), tmp_path / "again")
    assert again == found
    val = open_source(path, split="val")
    assert len(val.items) == 4
    assert val.is_validation
    larger = built(source, tmp_path / "large", BuildOptions(size=(64, 64), shuffle=False))
    assert stored_pixels(larger[0][2]).shape == (64, 64, 3)
    gray = BuildOptions(size=None, gray=True, encoded="png", shuffle=False)
    assert stored_pixels(built(source, tmp_path / "gray", gray)[0][2]).shape == (32, 32)


class Evil:
    def __reduce__(self):
        return os.system, ("touch was-here",)


def test_pickles_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in range(5):
        for value in (Evil(), {b"data": Evil()}, [Evil]):
            with pytest.raises(FormatError, match="it uses"):
                load_pickle(pickle.dumps(value, protocol=protocol))
    assert list(tmp_path.iterdir()) == []
    hostile = [
        b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00utf7\x86R.",
        b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b".",  # a terabyte of bytes
        b"(" * 100_000 + b".",
        b"cnumpy\nndarray\n(K\x01I01\nS'x'\n\x86b.",
        b"\x80\x02P0\n.",
        b"",
    ]
    for data in hostile:
        with pytest.raises(FormatError):
            load_pickle(data)


def test_pickles_make_nothing_that_they_do_not_hold():
    """A text of a megabyte copied a thousand times, and what takes 2**60 steps to be compared."""
    text = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20) + b"q\x01"
    copied = b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R"
    doubled = b"K\x01" + b"q\x02h\x02\x86" * 60
    tracemalloc.start()
    for data in (
        b"\x80\x02](" + text + copied * 1000 + b"e.",
        b"\x80\x02}" + doubled + b"K\x01s.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00a" + doubled + b"\x86R.",
        b"\x80\x02" + doubled + b"Q.",
    ):
        with pytest.raises(FormatError):
            load_pickle(data)
    holes = b"\x80\x02X\x01\x00\x00\x00ar\xff\xff\xff\xf0."  # place four billion of the memo
    assert load_pickle(holes) == "a"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_one_long_name_is_not_copied_for_each_image(tmp_path):
    name = b"x" * (1 << 20)
    files = [("c/batches.meta", pickle.dumps({b"label_names": [name] * 1000}, 2))]
    files += [(f"c/data_batch_{number}", b"") for number in range(1, 6)]
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(tar_bytes(files, "w:gz"))
    with pytest.raises(InputError, match="too long"):
        open_source(tmp_path / "cifar-10-python.tar.gz")


def test_arrays_of_python_2(rng):
    """As CIFAR's files were pickled: text is bytes, the array lies column by column."""
    array = rng.integers(0, 256, (3, 4), np.uint8)
    data = array.tobytes(order="F")
    head = (
        b"\x80\x02}q\x00U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\n"
    )
    head += b"q\x03K\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x03K\x04\x86q\x08cnumpy\ndtype\n"
    head += b"q\x09U\x02u1q\x0aK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01|q\x0dNNNJ\xff\xff\xff\xff"
    head += b"J\xff\xff\xff\xffK\x00tq\x0eb\x88T"
    pickled = head + len(data).to_bytes(4, "little") + data + b"q\x0ftq\x10bs."
    assert load_pickle(pickled)[b"data"].data == array.tobytes()


@pytest.mark.slow
def test_broken_cifar(tmp_path, rng):
    path, _, _ = cifar(tmp_path, rng, hundred=False, python=False)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match="complete"):
        open_source(path)
    meta = ("x/batches.meta.txt", b"cat\n")
    five = [(f"x/data_batch_{number}.bin", b"\0" * 3073) for number in range(1, 6)]
    for bad, words in (
        (b"\0" * 3000, "cut short"),
        (b"\5" + bytes(3072), "label 5 of 1 classes"),
        (b"", "do not fit together"),
    ):
        path.write_bytes(tar_bytes([meta, (five[0][0], bad), *five[1:]], "w:gz"))
        with pytest.raises(FormatError, match=words):
            open_source(path)
    path.write_bytes(tar_bytes([meta, *five[:-1]], "w:gz"))
    with pytest.raises(MissingInputError, match=r"has no data_batch_5\.bin"):
        open_source(path)
    path.write_bytes(tar_bytes(five, "w:gz"))
    with pytest.raises(MissingInputError, match=r"batches.meta"):
        open_source(path)
    bomb = tar_bytes([meta, ("x/data_batch_1.bin", bytes(300 << 20))], "w:gz")
    path.write_bytes(bomb)
    with pytest.raises(FormatError, match="more than such an archive"):
        open_source(path)


# IDX


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
def test_idx(tmp_path, rng, compressed):
    images, labels = idx(tmp_path, rng, compressed=compressed)
    source = open_source(tmp_path)
    found = built(source, tmp_path / "db")
    assert [label for _, label, _ in found] == labels.tolist()
    for (_, _, value), image in zip(found, images, strict=True):
        assert np.array_equal(stored_pixels(value), np.repeat(image[:, :, None], 3, axis=2))
    gray = BuildOptions(size=None, gray=True, shuffle=False)
    for (_, _, value), image in zip(built(source, tmp_path / "g", gray), images, strict=True):
        assert np.array_equal(stored_pixels(value), image)
    assert read_labels(tmp_path / "db") == ("0", "1", "2", "3", "4")
    val = open_source(tmp_path, split="val")
    assert len(val.items) == 4
    assert val.is_validation


def test_broken_idx(tmp_path, rng):
    images, labels = idx(tmp_path, rng, compressed=False)
    path, beside = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    good = path.read_bytes()
    for data, words in (
        (good[:-1], "cut short"),
        (good + b"x", "more than its header says"),
        (b"", "cut short"),
        (b"\0\0\x0d\3" + good[4:], "not an IDX file of bytes"),
        (struct.pack(">HBB3I", 0, 8, 3, 0, 28, 28), "0 images"),
        (struct.pack(">HBB3I", 0, 8, 3, 4_000_000_000, 60_000, 60_000), "would unpack to"),
        (idx_bytes(images[:9]), "9 images, but"),
    ):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=words):
            open_source(tmp_path)
    path.write_bytes(good)
    beside.write_bytes(idx_bytes(labels)[:-1])
    with pytest.raises(FormatError, match="cut short"):
        open_source(tmp_path)
    beside.unlink()
    with pytest.raises(MissingInputError, match="labels-idx1"):
        open_source(tmp_path)
    shutil.copy(path, tmp_path / "emnist-train-images-idx3-ubyte")
    with pytest.raises(InputError, match="several data sets"):
        open_source(tmp_path)


def test_a_gzip_bomb(tmp_path, rng):
    """A header that says a gigabyte, and zeros behind it that are never unpacked whole."""
    idx(tmp_path, rng)
    head = struct.pack(">HBB3I", 0, 8, 3, 10, 28, 28)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + bytes(64 << 20)))
    with pytest.raises(FormatError, match="more than its header says"):
        open_source(tmp_path)
    torn = gzip.compress(head + bytes(7840))[:-30]
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(torn)
    with pytest.raises(FormatError, match=r"cut short|cannot be unpacked"):
        open_source(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("num_images", [2, 1 << 28])
def test_a_gzip_bomb_of_labels(tmp_path, num_images):
    """As many as images or not: nothing is unpacked that the image file does not bound."""
    labels = struct.pack(">HBBI", 0, 8, 1, 1 << 28) + bytes(1 << 28)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    images = struct.pack(">HBB3I", 0, 8, 3, num_images, 1, 1) + bytes(num_images)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    del labels, images
    tracemalloc.start()
    with pytest.raises(FormatError, match=r"would unpack to|2 images, but"):
        open_source(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_options_that_do_not_fit_the_source(tmp_path, rng):
    idx(tmp_path, rng)
    (tmp_path / "list.txt").write_text("a.png 1\n")
    with pytest.raises(UsageError, match="--list does not go with idx"):
        open_source(tmp_path, tmp_path / "list.txt")
    with pytest.raises(UsageError, match="--devkit"):
        open_source(tmp_path, devkit=tmp_path)
    with pytest.raises(UsageError, match="--kind list needs"):
        open_source(tmp_path, kind="list")
    with pytest.raises(InputError, match="no class folders"):
        open_source(tmp_path, kind="folders")


def test_splits_where_there_are_none(tmp_path, rng):
    """Asked for a part, never the whole."""
    data = file_bytes(photo(rng, 20, 20), "png")
    for split in ("train", "val"):
        (tmp_path / "images" / split / "a").mkdir(parents=True)
        (tmp_path / "images" / split / "a/1.png").write_bytes(data)
    with pytest.raises(UsageError, match=r"\(folders\) has no --split val") as e:
        open_source(tmp_path / "images", split="val")
    assert e.value.hint == f"give {tmp_path}/images/val as SOURCE"
    (tmp_path / "list.txt").write_text("train/a/1.png 0\n")
    with pytest.raises(UsageError, match=r"\(list\) has no --split train"):
        open_source(tmp_path / "images", tmp_path / "list.txt", split="train")
    (tmp_path / "x.tar").write_bytes(tar_bytes([("train/1.png", data), ("val/1.png", data)]))
    for split in ("train", "val"):
        with pytest.raises(UsageError, match=rf"\(tar\) has no --split {split}"):
            open_source(tmp_path / "x.tar", split=split)


def test_splits_of_one_file_that_is_named(tmp_path, rng):
    ilsvrc_train(tmp_path / "ILSVRC2012_img_train.tar", rng)
    assert not open_source(tmp_path / "ILSVRC2012_img_train.tar", split="train").is_validation
    with pytest.raises(UsageError, match="has no --split val"):
        open_source(tmp_path / "ILSVRC2012_img_train.tar", split="val")
    (tmp_path / "train.txt").write_text("n01440764_0.JPEG 0\n")
    for root in (tmp_path, tmp_path / "ILSVRC2012_img_train.tar"):
        source = open_source(root, tmp_path / "train.txt", split="train")
        assert [item.name for item in source.items] == ["n01440764_0.JPEG"]
    names = sorted(ilsvrc_val(tmp_path / "ILSVRC2012_img_val.tar", rng))
    (tmp_path / "val.txt").write_text("".join(f"{name} 0\n" for name in names))
    assert open_source(tmp_path / "ILSVRC2012_img_val.tar", split="val").is_validation
    with pytest.raises(UsageError, match="has no --split train"):
        open_source(tmp_path / "ILSVRC2012_img_val.tar", split="train")
    idx(tmp_path, rng)
    images = next(tmp_path.glob("train-images*"))
    assert not open_source(images, split="train").is_validation
    with pytest.raises(UsageError, match="has no --split val"):
        open_source(images, split="val")
    with pytest.raises(UsageError, match="--devkit goes with ILSVRC's validation archive"):
        open_source(tmp_path / "ILSVRC2012_img_train.tar", devkit=tmp_path)


# Images


@pytest.mark.parametrize("exactly", [False, True])
def test_decompression_bombs(tmp_path, exactly):
    """Small files that claim to be huge: no memory is taken for them."""
    (tmp_path / "images/x").mkdir(parents=True)
    Image.new("1", (1, 1)).save(tmp_path / "images/x/good.png")
    png = file_bytes(Image.new("L", (8, 8)), "png")
    for name, side in (("huge", 60_000), ("large", 15_000)):
        huge = bytearray(png)
        huge[16:24] = struct.pack(">II", side, side)
        huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
        (tmp_path / f"images/x/{name}.png").write_bytes(bytes(huge))
    jpeg = bytearray(file_bytes(Image.new("L", (8, 8)), "jpeg"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    (tmp_path / "images/x/huge.jpg").write_bytes(bytes(jpeg))
    options = BuildOptions(size=(8, 8), exactly_like_caffe=exactly)
    report = make_lmdb(open_source(tmp_path / "images"), tmp_path / "db", options)
    assert report.num_images == 1
    assert report.num_skipped == 3
    if not exactly:
        assert report.skipped == {"too many pixels": 3}


def many_scans(size, num_scans, between=b""):
    """A progressive JPEG file whose last scan stands there so many times."""
    data = file_bytes(Image.new("RGB", (size, size)), "jpeg", progressive=True, quality=10)
    last = data.rindex(b"\xff\xda")
    return data[:last] + (data[last:-2] + between) * num_scans + b"\xff\xd9"


@pytest.mark.slow
@pytest.mark.parametrize("exactly", [False, True])
def test_a_jpeg_file_of_thousands_of_scans(tmp_path, exactly):
    """Each scan takes a few bytes, and the time of a whole image."""
    folder = tmp_path / "images/x"
    folder.mkdir(parents=True)
    end_in_a_comment = b"\xff\xfe\0\4\xff\xd9"
    (folder / "many.jpg").write_bytes(many_scans(4000, 300))
    (folder / "hidden.jpg").write_bytes(many_scans(4000, 300, end_in_a_comment))
    (folder / "few.jpg").write_bytes(many_scans(400, 30, end_in_a_comment))
    (folder / "film.jpg").write_bytes(many_scans(400, 1) + b"\xff\xda" * 100_000)
    options = BuildOptions(size=(8, 8), exactly_like_caffe=exactly)
    report = make_lmdb(open_source(tmp_path / "images"), tmp_path / "db", options)
    assert report.num_images == 2
    assert report.skipped == {"too many scans": 2}
    with pytest.raises(UndecodableImageError, match="too many scans"):
        decode_record(many_scans(4000, 300))


def test_a_deep_image_takes_twice_the_memory():
    """What OpenCV bounds are pixels, whatever their depth."""
    png = bytearray(file_bytes(Image.new("I;16", (8, 8)), "png"))
    png[16:24] = struct.pack(">II", 10_000, 10_000)
    with pytest.raises(UndecodableImageError, match="too many pixels: 10000 x 10000"):
        open_image(bytes(png))
    with pytest.raises(UndecodableImageError, match="too many pixels"):
        decode_record(bytes(png))
    png[24] = 8
    assert open_image(bytes(png)).kind == "png"


def test_a_header_of_blanks_is_no_work():
    assert not has_16_bits(b"P5" + b" " * 1000, "")
