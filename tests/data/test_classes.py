"""Classes that folders name: the class table, their order, and folders that are no classes."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest
from helpers.archives import tar_bytes
from helpers.program import run
from helpers.zoo import file_bytes, photo
from hypothesis import given
from hypothesis import strategies as st

from irv2caffe.data.build.make_lmdb import BuildOptions, make_lmdb
from irv2caffe.data.inspect.database_report import examine
from irv2caffe.data.inspect.sample import sample_database
from irv2caffe.data.records.class_table import escape_name
from irv2caffe.data.records.database_files import read_manifest
from irv2caffe.data.sources import open_source, read_labels
from irv2caffe.errors import FormatError, InputError, UsageError

SMALL = BuildOptions(size=(8, 8), shuffle=False)
GOOD = file_bytes(photo(np.random.default_rng(0), 20, 20), "png")
NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1).filter(
    lambda name: not any(0xD800 <= ord(char) < 0xE000 for char in name)
)


def fill(root, *names):
    """An image file for each name below a folder."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(GOOD)
    return root


# The class table


@given(names=st.lists(NAMES, min_size=1, unique=True))
def test_any_name_comes_back_from_a_class_table(names, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "labels.txt"
    path.write_bytes("".join(f"{escape_name(name)}\n" for name in names).encode())
    assert read_labels(path) == tuple(names)
    assert path.read_text().splitlines() == [escape_name(name) for name in names]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cat", "cat"),
        ("great white shark, Carcharodon", "great white shark, Carcharodon"),
        (r"C:\data\new", r"C:\data\new"),
        ("Löwe", "Löwe"),
        (" ", r"\x20"),
        ("cat ", r"cat\x20"),
        ("\u3000cat", r"\u3000cat"),
        ("a\nb", r"a\x0ab"),
        ("a\u2028b", r"a\u2028b"),
        ("\ufeffcat", r"\ufeffcat"),
        (r"\x20", r"\x5cx20"),
    ],
)
def test_lines_of_a_class_table(name, line):
    assert escape_name(name) == line


@pytest.mark.slow
def test_names_that_are_no_lines(tmp_path):
    """All readers of the class table see what the writer was given."""
    names = [" ", "b\nx", "cat", "cat ", "dog", "na\udcefve", "\ttab"]
    root = fill(tmp_path / "images", *(f"{name}/{n}.png" for name in names for n in "12"))
    source = open_source(root)
    assert set(source.classes) == set(names)
    make_lmdb(source, tmp_path / "db", SMALL)
    assert read_labels(tmp_path / "db") == source.classes
    assert (tmp_path / "db/labels.txt").read_bytes().count(b"\n") == len(names)
    assert tuple(examine(tmp_path / "db").class_names) == source.classes
    assert sample_database(tmp_path / "db").class_names == source.classes
    assert tuple(read_manifest(tmp_path / "db")["classes"]) == source.classes
    again = open_source(root, labels=tmp_path / "db")
    assert list(again.items) == list(source.items)
    assert source.notes == (
        (
            "4 class name(s) with blanks at an end or control characters, which labels.txt holds "
            r"escaped: '\ttab', ' ', 'b\nx', 'cat '"
        ),
        "different classes with nearly the same name: cat, 'cat '",
    )
    shown = run("inspect-lmdb", "db", cwd=tmp_path)
    rows = [line.rpartition("#  ")[2] for line in shown.stdout.splitlines() if "##" in line]
    assert rows[:3] == [r"\x09tab", r"\x20", r"b\x0ax"]


def test_names_that_look_the_same(tmp_path):
    root = fill(tmp_path, "Dog/1.png", "cafe\u0301/1.png", "caf\u00e9/1.png", "dog/1.png")
    (note,) = open_source(root).notes
    assert note.startswith("different classes with nearly the same name: Dog, dog, cafe")


def test_a_class_table_in_utf16_is_called_that(tmp_path):
    fill(tmp_path / "images", "a/1.png", "b/1.png")
    (tmp_path / "labels.txt").write_text("a\nb\n", "utf-16")
    with pytest.raises(FormatError, match="UTF-16 text") as caught:
        open_source(tmp_path / "images", labels=tmp_path / "labels.txt")
    assert "iconv -f UTF-16 -t UTF-8 labels.txt" in caught.value.hint


def test_class_tables_of_strangers_end_no_inspection(tmp_path):
    make_lmdb(open_source(fill(tmp_path / "images", "a/1.png", "b/1.png")), tmp_path / "db", SMALL)
    table = tmp_path / "db/labels.txt"
    table.write_text("crane\nship\ncrane\n")
    found = examine(tmp_path / "db")
    assert found.class_names == ["crane", "ship", "crane"]
    assert "labels.txt has different classes of the same name: crane" in found.notes
    assert sample_database(tmp_path / "db").class_names == ("crane", "ship", "crane")
    for text in (b"", "a\nb\n".encode("utf-16"), b"a\0b\n"):
        table.write_bytes(text)
        assert examine(tmp_path / "db").class_names == []
        assert examine(tmp_path / "db").num_classes == 2
        assert sample_database(tmp_path / "db").class_names == ()


# The order


def test_numbers_from_0_are_labels(tmp_path):
    root = fill(tmp_path, *(f"{number}/1.png" for number in range(12)))
    source = open_source(root)
    assert source.classes == tuple(map(str, range(12)))
    assert all(item.name == f"{item.label}/1.png" for item in source.items)
    assert source.notes == (
        (
            "class folders 0 to 11 are in the order of these numbers: folder 10 is label 10 "
            "(sorted as text, by --class-order text, it would be label 2)"
        ),
    )
    text = open_source(root, class_order="text")
    assert text.classes == tuple(sorted(map(str, range(12))))
    assert text.notes == ()


def test_numbers_from_1(tmp_path):
    source = open_source(fill(tmp_path, *(f"{number}/1.png" for number in range(1, 13))))
    assert source.classes == tuple(map(str, range(1, 13)))
    assert "folder 10 is label 9 (sorted as text" in source.notes[0]


@pytest.mark.parametrize(
    "names",
    [
        [str(number) for number in range(10)],
        [str(number) for number in range(1, 10)],
        [f"{number:03}" for number in range(12)],
        ["2019", "2020", "2021"],
        ["17", "203", "411"],
        ["class1", "class10", "class2"],
    ],
)
def test_names_that_are_sorted_as_ever(tmp_path, names):
    source = open_source(fill(tmp_path, *(f"{name}/1.png" for name in names)))
    assert source.classes == tuple(sorted(names))
    assert source.notes == ()


def test_numbers_with_gaps_are_said(tmp_path):
    root = fill(tmp_path / "many", *(f"{number}/1.png" for number in (3, 20, 100)))
    source = open_source(root)
    assert source.classes == ("100", "20", "3")
    assert source.notes == (
        (
            "folder 20 is label 1: class folders are numbers and sorted as text; "
            "--class-order number sorts them as numbers"
        ),
    )
    assert open_source(root, class_order="number").classes == ("3", "20", "100")
    source = open_source(fill(tmp_path / "few", "0/1.png", "1/1.png", "3/1.png"))
    assert source.notes == (
        (
            "folder 3 is label 2: class folders are numbers, but some are missing; "
            "--labels keeps to the class table of other images"
        ),
    )


def test_an_order_that_is_asked_for(tmp_path):
    root = fill(tmp_path / "images", *(f"class{number}/1.png" for number in (1, 2, 10)))
    assert open_source(root, class_order="number").classes == ("class1", "class2", "class10")
    (tmp_path / "labels.txt").write_text("class10\nclass2\nclass1\n")
    with pytest.raises(UsageError, match="--class-order does not go with --labels"):
        open_source(root, labels=tmp_path / "labels.txt", class_order="number")
    (tmp_path / "list.txt").write_text("class1/1.png 0\n")
    with pytest.raises(UsageError, match="--class-order goes with class folders only"):
        open_source(root, tmp_path / "list.txt", class_order="text")


def test_numbers_in_an_archive(tmp_path):
    files = [(f"set/{number}/1.png", GOOD) for number in range(11)]
    (tmp_path / "x.tar").write_bytes(tar_bytes(files))
    source = open_source(tmp_path / "x.tar")
    assert all(item.name == f"{item.label}/1.png" for item in source.items)
    assert open_source(tmp_path / "x.tar", class_order="text").classes[2] == "10"


# Folders that are no classes


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (("train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/dog/1.png"), "train"),
        (("Train/cat/1.png", "Test/cat/1.png", "readme/1.png"), "Train"),
        (("training_set/a/1.png", "test_set/a/1.png"), "training_set"),
        (("train2017/1.png", "val2017/1.png"), "train2017"),
        (("train/cat/1.png", "train/dog/1.png"), "train"),
        (("validation/cat/1.png", "test/cat/1.png"), "test"),
        (("flowers/daisy/1.png", "flowers/rose/1.png"), "flowers"),
    ],
)
def test_one_level_too_high_is_refused(tmp_path, names, meant):
    root = fill(tmp_path / "images", *names)
    with pytest.raises(InputError) as caught:
        open_source(root)
    assert f"give {root / meant} as SOURCE" in caught.value.hint
    assert "--kind folders" in caught.value.hint
    assert len(open_source(root, kind="folders").items) == len(names)
    (tmp_path / "x.tar").write_bytes(tar_bytes([(f"set/{name}", GOOD) for name in names]))
    if meant != "flowers" and len({name.split("/")[0] for name in names}) > 1:
        with pytest.raises(InputError, match="parts of a data set") as caught:
            open_source(tmp_path / "x.tar")
        assert "unpack the archive" in caught.value.hint
        assert len(open_source(tmp_path / "x.tar", kind="tar").items) == len(names)


@pytest.mark.slow
def test_the_command_names_the_folder_that_is_meant(tmp_path):
    fill(tmp_path / "img", "train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png")
    done = run("make-lmdb", "img", "db", cwd=tmp_path)
    assert done.returncode == 1
    assert "img holds the parts of a data set, not its classes: train, val" in done.stderr
    assert "give img/train as SOURCE; --kind folders takes them for classes" in done.stderr
    assert not (tmp_path / "db").exists()
    done = run("make-lmdb", "img", "db", "--kind", "folders", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "db/labels.txt").read_text() == "train\nval\n"


@pytest.mark.parametrize(
    "names",
    [
        ("car/1.png", "bus/1.png", "train/1.png"),
        ("car/a/1.png", "train/a/1.png", "train/b/1.png"),
        ("cat/images/1.png", "dog/images/1.png"),
        ("test/1.png", "other/2.png"),
    ],
)
def test_classes_that_are_classes(tmp_path, names):
    source = open_source(fill(tmp_path, *names))
    assert source.classes == tuple(sorted({name.partition("/")[0] for name in names}))
    assert source.notes == ()


def test_a_class_table_says_that_they_are_classes(tmp_path):
    root = fill(tmp_path / "images", "train/1.png", "test/1.png")
    (tmp_path / "labels.txt").write_text("test\ntrain\n")
    assert len(open_source(root, labels=tmp_path / "labels.txt").items) == 2


def test_classes_within_classes_are_said(tmp_path):
    source = open_source(fill(tmp_path, "a/cat/1.png", "a/dog/1.png", "b/cat/1.png", "b/dog/1.png"))
    assert source.notes == (
        (
            "every class folder holds the folders cat, dog: if these are the classes, SOURCE is "
            "one level too high"
        ),
    )


def test_one_level_too_low_is_said(tmp_path):
    with pytest.raises(InputError, match="2 images and no class folders") as caught:
        open_source(fill(tmp_path, "1.png", "2.png"))
    assert "give the folder above" in caught.value.hint


def test_what_systems_leave_behind_is_no_class(tmp_path):
    names = ("@eaDir", ".ipynb_checkpoints", "__MACOSX", "$RECYCLE.BIN", "lost+found")
    root = fill(tmp_path, "cat/1.png", "dog/1.png", "dog/@eaDir/1.png/thumb.jpg")
    fill(root, *(f"{name}/1.png" for name in names))
    source = open_source(root)
    assert source.classes == ("cat", "dog")
    assert [item.name for item in source.items] == ["cat/1.png", "dog/1.png"]


def test_what_systems_pack_is_no_class_either(tmp_path):
    """The tar of a Mac holds a second file beside each one."""
    names = ["cat/1.png", "dog/1.png", "cat/._1.png", ".ipynb_checkpoints/1.png", "@eaDir/1.png"]
    files = [(f".data/{name}", GOOD) for name in names]
    files += [("__MACOSX/.data/cat/._1.png", GOOD), ("./._.data", b"")]
    (tmp_path / "x.tar").write_bytes(tar_bytes(files))
    source = open_source(tmp_path / "x.tar")
    assert [item.name for item in source.items] == ["cat/1.png", "dog/1.png"]
    inner = tar_bytes([("n01_1.JPEG", GOOD), ("._n01_1.JPEG", GOOD)])
    files = [("n01.tar", inner), ("._n01.tar", b"AppleDouble" * 100)]
    (tmp_path / "y.tar").write_bytes(tar_bytes(files))
    assert [item.name for item in open_source(tmp_path / "y.tar").items] == ["n01/n01_1.JPEG"]


def test_classes_with_few_images_are_said(tmp_path):
    root = fill(tmp_path / "images", "b/1.png", *(f"a/{number}.png" for number in range(10)))
    (root / "c").mkdir()
    assert open_source(root).notes == (
        "1 class(es) without images: c",
        "1 class(es) with a single image: b",
    )
    root = fill(tmp_path / "one", "a/1.png", "a/2.png")
    assert open_source(root).notes == (
        "all images are of one class: a net has nothing to tell apart",
    )


# Links and depth


def test_links_that_multiply_end_with_an_error(tmp_path):
    root = fill(tmp_path / "images", "a/1.png", "b/1.png")
    for level in range(24):
        (tmp_path / f"level{level}").mkdir()
        for name in "xy":
            (tmp_path / f"level{level}" / name).symlink_to(tmp_path / f"level{level + 1}")
    fill(tmp_path / "level24", "1.png")
    (root / "b/links").symlink_to(tmp_path / "level0")
    with pytest.raises(InputError, match="on more than 64 ways through links"):
        open_source(root)


def test_a_folder_that_is_linked_twice_is_taken_twice(tmp_path):
    root = fill(tmp_path / "images", "a/1.png", "b/1.png")
    fill(tmp_path / "shared", "2.png")
    for name in ("a/x", "a/y", "b/x"):
        (root / name).symlink_to(tmp_path / "shared")
    source = open_source(root)
    names = [item.name for item in source.items]
    assert names == ["a/1.png", "a/x/2.png", "a/y/2.png", "b/1.png", "b/x/2.png"]
    (note,) = source.notes
    assert note.startswith(
        "1 folder(s) belong to two classes through links, and so do their images"
    )
    assert note.endswith(" = b/x")


@pytest.mark.slow
def test_thousands_of_nested_folders_are_one_error(tmp_path):
    root = fill(tmp_path / "images", "a/1.png", "b/1.png")
    here = os.open(root / "b", os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    with pytest.raises(InputError, match="nested so deep that their paths are too long"):
        open_source(root)
    subprocess.run(["rm", "-rf", root / "b"], check=True)  # pytest's own clearing recurses
