"""The tables of images that were left out, or taken with a complaint."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from helpers.zoo import file_bytes, photo
from hypothesis import given
from hypothesis import strategies as st

from irv2caffe.data.build.make_lmdb import BuildOptions, make_lmdb
from irv2caffe.data.build.side_files import SideTables, escape_cell, read_skipped
from irv2caffe.data.records.items import Skipped
from irv2caffe.data.sources import open_source

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("'quoted'", "''quoted'"),
        ("a/=1.png", "a/=1.png"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula(text, cell):
    assert escape_cell(text) == cell


@given(rows=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1))
def test_any_text_comes_back_from_a_table(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    tables = SideTables(folder, {})
    tables.add_skipped(Skipped(*row) for row in rows)
    tables.add_complaints((name, words) for name, words, _ in rows)
    tables.close()
    assert read_skipped(folder) == rows
    for name in ("skipped.csv", "complaints.csv"):
        text = (folder / name).read_bytes().decode()
        for row in csv.reader(io.StringIO(text, newline="")):
            assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)


def test_names_of_strangers_in_a_database(tmp_path):
    good = file_bytes(photo(np.random.default_rng(0), 20, 20), "png")
    names = ("=cmd|' /C calc'!A0", "@x", "+1", "-2", "plain")
    for name in names:
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "bad.png").write_bytes(b"words")
        (tmp_path / "images" / name / "good.png").write_bytes(good)
    make_lmdb(open_source(tmp_path / "images"), tmp_path / "db", BuildOptions(size=(8, 8)))
    assert {row[0] for row in read_skipped(tmp_path / "db")} == {f"{n}/bad.png" for n in names}
    lines = (tmp_path / "db/skipped.csv").read_text().splitlines()
    assert sorted(line[:2] for line in lines) == ["'+", "'-", "'=", "'@", "pa", "pl"]
