"""Lists that people bring: what is taken as convert_imageset takes it, and what is said."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers.archives import tar_bytes
from helpers.program import run
from helpers.zoo import file_bytes, photo

from irv2caffe.caffe.command import tool_command
from irv2caffe.data.build.convert_imageset import convert_imageset
from irv2caffe.data.build.make_lmdb import BuildOptions, make_lmdb
from irv2caffe.data.build.side_files import read_skipped
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.items import LeftOutError
from irv2caffe.data.sources import open_source
from irv2caffe.data.sources.list_lines import parse_line
from irv2caffe.errors import FormatError

GOOD = file_bytes(photo(np.random.default_rng(0), 20, 20), "png")
SMALL = BuildOptions(size=(8, 8), shuffle=False)


@pytest.fixture
def root(tmp_path):
    """A folder with a/0.png and b/1.png, and some whose names look like other things."""
    odd = ('"q".png', "two words.png", " before.png", "back\\slash.png", "x.png 2", "t\tab.png")
    for name in ("a/0.png", "b/1.png", *odd):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(GOOD)
    return tmp_path / "images"


def listed(root, text, **options):
    path = root.parent / "list.txt"
    path.write_bytes(text.encode())
    return open_source(root, path, **options)


# What the tool takes


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "/a/0.png 0\n/b/1.png 1\n",
        "two words.png 0\n before.png 1\n",
        "back\\slash.png 0\nx.png 2 1\n",
        "a/0.png 0\r\nb/1.png 1\r\n",
        "a/0.png 1.0\nb/1.png 0.\n",
        "t\tab.png 3\na/0.png 00\n",
    ],
)
def test_lists_give_what_convert_imageset_gives(caffe, root, tmp_path, text):
    make_lmdb(listed(root, text), tmp_path / "ours", SMALL)
    tool = tool_command(caffe, "convert_imageset")
    flags = ["-backend=lmdb", "-resize_width=8", "-resize_height=8"]
    places = [f"{root}/", str(tmp_path / "list.txt"), str(tmp_path / "theirs")]
    subprocess.run([*tool.argv, *flags, *places], env=tool.env, check=True, capture_output=True)
    with open_reader(tmp_path / "ours") as ours, open_reader(tmp_path / "theirs") as theirs:
        assert len(ours) == 2
        assert list(ours) == list(theirs)


def test_slashes_before_paths_stay_in_the_source_folder(root, tmp_path):
    """Also where the same path exists from the root of the disk."""
    outside = tmp_path / "outside.png"
    outside.write_bytes(GOOD)
    with pytest.raises(FormatError, match="line 1: the path leaves the source folder") as caught:
        listed(root, f"{outside} 0\na/0.png 1\n")
    assert "such as / for absolute paths" in caught.value.hint
    with pytest.raises(FormatError, match="line 1: the path leaves the source folder"):
        listed(root, "/../outside.png 0\n")
    inner = root / str(outside).lstrip("/")
    inner.parent.mkdir(parents=True)
    inner.write_bytes(b"")
    make_lmdb(listed(root, f"{outside} 0\na/0.png 1\n"), tmp_path / "db", SMALL)
    assert read_skipped(tmp_path / "db") == [(str(outside), "empty file", "")]


# What it does not


@pytest.mark.parametrize(
    ("text", "reason", "hint"),
    [
        ("a/0.png 0 1 0\nb/1.png 1 1 0\n", "several labels", "a Datum holds one"),
        ("a/0.png 0,1\nb/1.png 1,1\n", "several labels", "a Datum holds one"),
        ("a/0.png 0.5\nb/1.png 2.75e1\n", "a fraction for a label", "HDF5"),
        ("a/0.png -1\nb/1.png -1.0\n", "a negative label", "labels count from 0"),
        ('"a/0.png" 0\n"b/1.png" 1\n', "a path in quotation marks", "write it without"),
        ("'a/0.png' 0\n'b/1.png' 1\n", "a path in quotation marks", "write it without"),
        ("a\\0.png 0\nC:\\b\\1.png 1\n", "a path with backslashes", "sed -i 's|"),
        ("a/0.png,0\nb/1.png;1\n", "a comma before the label", "with a blank or tab between"),
        ("a/0.png, 0\nb/1.png, 1\n", "a comma before the label", "with a blank or tab between"),
        ("../a/0.png 0\na/../../0.png 1\n", "the path leaves the source folder", "a folder above"),
    ],
)
def test_lines_are_called_what_they_are(root, text, reason, hint):
    with pytest.raises(FormatError, match=rf"2 bad line\(s\): line 1-2: {reason}") as caught:
        listed(root, text)
    assert hint in caught.value.hint
    assert "heading" not in caught.value.hint


def test_a_heading_is_called_that(root):
    for text in ("path label\na/0.png 0\n", "file,label\na/0.png 0\n"):
        with pytest.raises(FormatError, match=r"1 bad line\(s\): line 1: ") as caught:
            listed(root, text)
        if "," not in text:
            assert "is line 1 a heading? remove it" in caught.value.hint


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_list_in_utf16_is_called_that(root, tmp_path, encoding):
    mark = "" if encoding == "utf-16" else "\ufeff"
    (tmp_path / "list.txt").write_bytes((mark + "a/0.png 0\r\n").encode(encoding))
    with pytest.raises(FormatError, match="UTF-16 text, where UTF-8 is read") as caught:
        open_source(root, tmp_path / "list.txt")
    assert "iconv -f UTF-16 -t UTF-8 list.txt" in caught.value.hint


def test_odd_names_in_a_list_of_an_archive(root, tmp_path):
    files = [("set/back\\slash.png", GOOD), ("set/b.png", GOOD)]
    (tmp_path / "x.tar").write_bytes(tar_bytes(files))
    source = listed(tmp_path / "x.tar", "back\\slash.png 0\nset/b.png 1\n")
    assert [item.name for item in source.items] == ["back\\slash.png", "set/b.png"]
    with pytest.raises(FormatError, match="a path with backslashes"):
        listed(tmp_path / "x.tar", "set\\b.png 0\n")


# Images that are not there


@pytest.mark.slow
def test_where_the_images_of_a_list_are(root, tmp_path, monkeypatch):
    """The path that was tried, and the SOURCE that would do."""
    monkeypatch.chdir(tmp_path)

    def hint(source, text):
        with pytest.raises(LeftOutError, match="none of the 2 images could be read") as caught:
            make_lmdb(listed(source, text), tmp_path / "db", SMALL)
        return caught.value.hint

    lost = hint(root, "x/0.png 0\nx/1.png 1\n")
    assert f"2 of them because: no such file; the first: {root}/x/0.png" in lost
    above = hint(root, "images/a/0.png 0\nimages/b/1.png 1\n")
    assert f"{root / 'a/0.png'} exists: give {tmp_path} as SOURCE" in above
    below = hint(tmp_path, "a/0.png 0\nb/1.png 1\n")
    assert f"{root / 'a/0.png'} exists: give {root} as SOURCE" in below
    other = hint(root, "data/a/0.png 0\ndata/b/1.png 1\n")
    assert f"{root / 'a/0.png'} exists: paths of the list begin with data/" in other


@pytest.mark.slow
def test_the_table_of_skipped_images_is_kept_where_nothing_else_is(root, tmp_path):
    table = tmp_path / "db.skipped.csv"
    listed(root, "x.png 0\ny.png 1\n")
    done = run("make-lmdb", root, "db", "--list", "list.txt", cwd=tmp_path)
    assert done.returncode == 1
    assert f"{Path('db.skipped.csv')} lists all of them" in done.stderr
    assert sorted(table.read_text().splitlines()) == [
        "path,reason,detail",
        "x.png,no such file,",
        "y.png,no such file,",
    ]
    assert not (tmp_path / "db.partial").exists()
    listed(root, "x.png 0\na/0.png 1\n")
    done = run("make-lmdb", root, "db", "--list", "list.txt", "--max-skipped", 0, cwd=tmp_path)
    assert done.returncode == 1
    assert "db.skipped.csv lists all of them" in done.stderr
    assert table.read_text() == "path,reason,detail\nx.png,no such file,\n"
    done = run("make-lmdb", root, "db", "--list", "list.txt", cwd=tmp_path)
    assert done.returncode == 3
    assert f"listed in db/skipped.csv; the first: {root}/x.png" in done.stderr
    assert not table.exists()


def test_the_tool_keeps_it_too(caffe, root, tmp_path):
    tool = tool_command(caffe, "convert_imageset")
    source = listed(root, "x.png 0\ny.png 1\n")
    with pytest.raises(LeftOutError) as caught:
        convert_imageset(source, tmp_path / "db", SMALL, argv=tool.argv, env=tool.env)
    assert f"{root}/x.png" in caught.value.hint
    assert len((tmp_path / "db.skipped.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.png " + 300_000 * "1" + "x", "no label at the end"),
        (40_000 * "a.png 3 " + "x 1", None),
        (40_000 * "a.png 3 " + "1", "several labels"),
        ("a.png" + 300_000 * " 1", "several labels"),
        (300_000 * ",1" + "x", "no label at the end"),
    ],
)
def test_lines_of_any_length_are_told_apart_in_linear_time(line, words):
    if words is None:
        assert parse_line(line, None, lambda _: False).label == 1
        return
    with pytest.raises(ValueError, match=words):
        parse_line(line, None, lambda _: False)
