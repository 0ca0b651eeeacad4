"""Images of 16 bits a channel: what becomes of their values, and what is said of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest

from irv2caffe.caffe.command import tool_command
from irv2caffe.data.build.convert_imageset import convert_imageset
from irv2caffe.data.build.make_lmdb import BuildOptions, make_lmdb
from irv2caffe.data.inspect.database_report import examine
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.decode import stored_pixels
from irv2caffe.data.records.headers import has_16_bits, image_kind
from irv2caffe.data.sources import open_source
from irv2caffe.errors import UsageError


def values(largest, shape=(20, 30), dtype=np.uint16):
    made = np.random.default_rng(largest).integers(0, largest + 1, shape).astype(dtype)
    made.flat[0] = largest
    return made


def images(root, largest, suffix="png"):
    """Two classes of two 16-bit images; the last one holds the largest value."""
    for number, name in enumerate(("a/0", "a/1", "b/0", "b/1")):
        path = root / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), values(largest if number == 3 else largest // 2))
    return root


def stored(folder):
    with open_reader(folder) as reader:
        return {key[9:].decode(): stored_pixels(value) for key, value in reader}


PLAIN: dict[str, Any] = {"size": None, "gray": True}


@pytest.mark.parametrize(
    ("largest", "depth"),
    [(255, 8), (1000, 10), (1023, 10), (1024, 12), (4095, 12), (4096, 14), (16_383, 14)],
)
@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_values_that_use_fewer_bits_are_said_and_scaled(tmp_path, largest, depth, suffix):
    source = open_source(images(tmp_path / "images", largest, suffix))
    report = make_lmdb(source, tmp_path / "db", BuildOptions(**PLAIN))
    expected = values(largest)
    assert np.array_equal(stored(tmp_path / "db")[f"b/1.{suffix}"], expected >> 8)
    (finding,) = report.findings
    assert finding.startswith(f"4 of 4 images have 16 bits, but no value above {largest:,}:")
    assert f"--bit-depth {depth} scales them" in finding
    assert json.loads((tmp_path / "db/manifest.json").read_text())["findings"] == [finding]
    if largest < 1 << 13:
        assert f"no value above {largest >> 8} of 255" in examine(tmp_path / "db").notes[0]

    report = make_lmdb(source, tmp_path / "scaled", BuildOptions(**PLAIN, bit_depth=depth))
    assert np.array_equal(stored(tmp_path / "scaled")[f"b/1.{suffix}"], expected >> (depth - 8))
    assert report.findings == ()
    assert examine(tmp_path / "scaled").notes == []


def test_sixteen_bits_that_are_used(tmp_path):
    source = open_source(images(tmp_path / "images", 65_535))
    assert make_lmdb(source, tmp_path / "db", BuildOptions(**PLAIN)).findings == ()
    report = make_lmdb(source, tmp_path / "cut", BuildOptions(**PLAIN, bit_depth=12))
    assert report.findings == (
        (
            "4 of 4 images have 16 bits and values up to 65,535, which --bit-depth 12 cuts off: "
            "they are white"
        ),
    )
    assert stored(tmp_path / "cut")["b/1.png"].max() == 255


def test_one_bright_image_says_that_all_bits_are_used(tmp_path):
    """It need not come from the same process, and dark photographs are what they are."""
    root = images(tmp_path / "images", 4000)
    cv2.imwrite(str(root / "a/bright.png"), values(60_000))
    options = BuildOptions(**PLAIN, workers=2)
    assert make_lmdb(open_source(root), tmp_path / "db", options).findings == ()


def test_dark_images_of_8_bits_are_not_called_16(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "images" / name / "1.png"), values(15, dtype=np.uint8))
    report = make_lmdb(open_source(tmp_path / "images"), tmp_path / "db", BuildOptions(**PLAIN))
    assert report.findings == ()
    assert len(examine(tmp_path / "db").notes) == 1


@pytest.mark.parametrize("encoded", [None, "png"])
def test_dark_records_of_three_channels_are_no_maps_of_labels(tmp_path, encoded):
    source = open_source(images(tmp_path / "images", 4095))
    make_lmdb(source, tmp_path / "db", BuildOptions(size=(8, 8), encoded=encoded))
    assert "no value above 1" in examine(tmp_path / "db").findings[0]


def test_asking_for_16_bits_takes_them_as_they_are(tmp_path):
    source = open_source(images(tmp_path / "images", 4095))
    make_lmdb(source, tmp_path / "plain", BuildOptions(**PLAIN))
    report = make_lmdb(source, tmp_path / "asked", BuildOptions(**PLAIN, bit_depth=16))
    assert report.findings == ()
    plain, asked = stored(tmp_path / "plain"), stored(tmp_path / "asked")
    assert all(np.array_equal(plain[key], asked[key]) for key in plain)


def test_the_tools_records_are_looked_at_too(caffe, tmp_path):
    source = open_source(images(tmp_path / "images", 4095))
    tool = tool_command(caffe, "convert_imageset")
    out = tmp_path / "db"
    report = convert_imageset(source, out, BuildOptions(**PLAIN), argv=tool.argv, env=tool.env)
    assert "no value above 15 of 255" in report.findings[0]
    with pytest.raises(UsageError, match="no --bit-depth"):
        convert_imageset(source, out, BuildOptions(bit_depth=12), argv=tool.argv, env={})


@pytest.mark.parametrize("bits", [7, 17])
def test_depths_that_there_are_none(bits):
    with pytest.raises(UsageError, match="--bit-depth lies between 8 and 16"):
        BuildOptions(bit_depth=bits)
    with pytest.raises(UsageError, match="--exactly-like-caffe"):
        BuildOptions(bit_depth=12, exactly_like_caffe=True)


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        *((suffix, np.uint8) for suffix in ("png", "tiff", "pgm", "ppm", "bmp", "jpg")),
        *((suffix, np.uint16) for suffix in ("png", "tiff", "pgm", "ppm")),
    ],
)
def test_the_header_says_how_deep_a_file_is(suffix, dtype):
    pixels = values(200, (6, 7, 3) if suffix == "ppm" else (6, 7), dtype)
    data = cv2.imencode(f".{suffix}", pixels)[1].tobytes()
    assert has_16_bits(data, image_kind(data)) == (dtype == np.uint16)


@pytest.mark.parametrize("order", ["<", ">"])
def test_headers_of_tiff_that_end_anywhere(order):
    data = cv2.imencode(".tiff", values(200, (4, 4, 3)))[1].tobytes()
    assert has_16_bits(data, "tiff")
    for end in range(len(data)):
        has_16_bits(data[:end], "tiff")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    assert not has_16_bits(mark + b"\xff" * 60, "tiff")


@pytest.mark.slow
def test_the_command_ends_with_3(tmp_path):
    images(tmp_path / "images", 4095)
    command = [sys.executable, "-m", "irv2caffe", "make-lmdb", "images", "db", "--resize", "16"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "finding: 4 of 4 images have 16 bits, but no value above 4,095" in done.stderr
    command += ["--force", "--bit-depth", "12"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "finding" in done.stderr) == (0, False)
