"""make-lmdb against the real convert_imageset, record by record."""

from __future__ import annotations

import subprocess

import cv2
import lmdb
import numpy as np
import pytest

from irv2caffe.caffe.command import tool_command
from irv2caffe.data.build import BuildOptions, make_lmdb
from irv2caffe.data.convert_imageset import convert_imageset
from irv2caffe.data.inspect import dataset_sizes, summarize_database
from irv2caffe.data.lmdb_store import open_reader, open_writer
from irv2caffe.data.sources import open_source, read_labels
from irv2caffe.errors import FormatError, InputError, MissingInputError, OutputExistsError
from irv2caffe.proto.messages import Datum


def photo(rng, width, height, channels=3):
    """Smooth shapes with noise: something a JPEG encoder has work with."""
    coarse = rng.uniform(0, 255, (height // 8 + 2, width // 8 + 2, channels)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image = image.reshape(height, width, channels) + rng.normal(0, 8, (height, width, channels))
    return image.clip(0, 255).astype(np.uint8)


def with_orientation(path, orientation):
    """Adds an EXIF orientation to a JPEG file by hand."""
    tiff = (
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + b"\0" * 4
    )
    body = b"Exif\0\0" + tiff
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:])


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """Class folders with images of all kinds."""
    root = tmp_path_factory.mktemp("zoo")
    rng = np.random.default_rng(0)
    first, second = root / "a class", root / "b"
    first.mkdir()
    (second / "deeper").mkdir(parents=True)
    cv2.imwrite(str(first / "color q90.jpg"), photo(rng, 500, 375), [cv2.IMWRITE_JPEG_QUALITY, 90])
    cv2.imwrite(str(first / "odd.jpeg"), photo(rng, 333, 251))
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    cv2.imwrite(str(first / "444.jpg"), photo(rng, 90, 70), sampling)
    cv2.imwrite(str(first / "prog.jpg"), photo(rng, 64, 48), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    cv2.imwrite(str(first / "ünï.jpg"), photo(rng, 20, 30))
    cv2.imwrite(str(second / "gray.jpg"), photo(rng, 40, 30, 1))
    cv2.imwrite(str(second / "gray.png"), photo(rng, 41, 31, 1))
    cv2.imwrite(str(second / "alpha.png"), photo(rng, 30, 20, 4))
    cv2.imwrite(str(second / "16bit.png"), rng.integers(0, 65535, (20, 30), np.uint16))
    cv2.imwrite(str(second / "deeper" / "bitmap.bmp"), photo(rng, 17, 19))
    cv2.imwrite(str(second / "one.png"), photo(rng, 1, 1))
    for orientation in (3, 6, 8):
        path = second / f"exif{orientation}.jpg"
        cv2.imwrite(str(path), photo(rng, 60, 40))
        with_orientation(path, orientation)
    return root


def records(folder):
    with lmdb.open(str(folder), readonly=True, lock=False) as database, database.begin() as view:
        return list(view.cursor())


KINDS = {
    "raw": BuildOptions(),
    "raw small": BuildOptions(size=(82, 75)),
    "jpg": BuildOptions(encoded="jpg"),
    "png": BuildOptions(size=(82, 82), encoded="png"),
    "gray": BuildOptions(size=(64, 64), gray=True),
    "files as they are": BuildOptions(size=None, encoded="jpg"),
    "own sizes": BuildOptions(size=None),
    "unshuffled": BuildOptions(size=(32, 32), shuffle=False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_records_equal_those_of_convert_imageset(caffe, zoo, tmp_path, kind):
    options = KINDS[kind]
    tool = tool_command(caffe, "convert_imageset")
    ours = make_lmdb(zoo, tmp_path / "ours", options)
    theirs = convert_imageset(zoo, tmp_path / "theirs", options, argv=tool.argv, env=tool.env)
    assert records(tmp_path / "ours") == records(tmp_path / "theirs")
    assert ours.num_images == theirs.num_images == 14


def test_the_tool_called_by_hand_writes_the_same(caffe, zoo, tmp_path):
    """Without our module in between: flags and list as its users write them."""
    lines = "a class/odd.jpeg 0\nb/gray.png 1\na class/color q90.jpg 0\n"
    (tmp_path / "list.txt").write_text(lines)
    flags = ["-backend", "lmdb", "-resize_height", "328", "-resize_width", "328"]
    paths = [f"{zoo}/", str(tmp_path / "list.txt"), str(tmp_path / "theirs")]
    command = tool_command(caffe, "convert_imageset", [*flags, *paths])
    subprocess.run(command.argv, env=command.env, check=True, capture_output=True)
    make_lmdb(zoo, tmp_path / "ours", BuildOptions(shuffle=False), list_file=tmp_path / "list.txt")
    assert records(tmp_path / "ours") == records(tmp_path / "theirs")
    assert [key for key, _ in records(tmp_path / "ours")][1] == b"00000001_b/gray.png"


def test_order_does_not_depend_on_workers_but_on_the_seed(zoo, tmp_path):
    def build(name, **options):
        make_lmdb(zoo, tmp_path / name, BuildOptions(size=(16, 16), **options))
        return records(tmp_path / name)

    one = build("one", workers=1)
    assert build("five", workers=5) == one
    assert build("other", seed=2) != one
    assert sorted(key for key, _ in one) == [key for key, _ in one]
    plain = build("plain", shuffle=False)
    labels = [Datum.FromString(value).label for _, value in plain]
    assert labels == sorted(labels)


def test_bad_images_are_counted_and_listed(caffe, zoo, tmp_path):
    for name in ("x", "y"):
        (tmp_path / "images" / name).mkdir(parents=True)
    good = (zoo / "b" / "gray.png").read_bytes()
    (tmp_path / "images/x/good.png").write_bytes(good)
    (tmp_path / "images/x/text.jpg").write_text("not an image")
    (tmp_path / "images/y/empty.jpg").write_bytes(b"")
    (tmp_path / "images/y/also.png").write_bytes(good)
    tool = tool_command(caffe, "convert_imageset")
    ours = make_lmdb(tmp_path / "images", tmp_path / "ours", BuildOptions())
    theirs = convert_imageset(
        tmp_path / "images", tmp_path / "theirs", BuildOptions(), argv=tool.argv, env=tool.env
    )
    assert records(tmp_path / "ours") == records(tmp_path / "theirs")
    assert ours.num_images == 2
    assert set(ours.skipped) == set(theirs.skipped)
    listed = (tmp_path / "ours/skipped.csv").read_text().splitlines()
    assert sorted(listed[1:]) == [
        "x/text.jpg,not an image that can be decoded",
        "y/empty.jpg,empty file",
    ]


def test_no_readable_image_leaves_nothing(tmp_path):
    (tmp_path / "images/x").mkdir(parents=True)
    (tmp_path / "images/x/text.jpg").write_text("not an image")
    with pytest.raises(InputError, match="none of the 1 images"):
        make_lmdb(tmp_path / "images", tmp_path / "out", BuildOptions())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_interruption_leaves_nothing_and_keeps_the_old(zoo, tmp_path):
    make_lmdb(zoo, tmp_path / "out", BuildOptions(size=(8, 8)))
    before = records(tmp_path / "out")

    def interrupt(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_lmdb(zoo, tmp_path / "out", BuildOptions(), force=True, progress=interrupt)
    assert records(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_existing_output_is_refused(zoo, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError):
        make_lmdb(zoo, tmp_path / "out", BuildOptions())
    with pytest.raises(OutputExistsError, match="no LMDB"):
        make_lmdb(zoo, tmp_path / "out", BuildOptions(), force=True)
    assert (tmp_path / "out/thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("img.png", "line 2: no label"),
        ("img.png three", "line 2: no label"),
        ("img.png -1", "line 2: no label"),
        ("img.png 1.5", "line 2: no label"),
        ("../img.png 1", "line 2: the path leaves"),
        ("/etc/img.png 1", "line 2: the path leaves"),
        ("img.png 99999999999", "line 2: label 99999999999 is too large"),
    ],
)
def test_bad_list_lines_are_refused_by_number(tmp_path, line, words):
    (tmp_path / "list.txt").write_text(f"good image.png 0\n{line}\n")
    with pytest.raises(FormatError, match=words):
        open_source(tmp_path, tmp_path / "list.txt")


def test_list_lines_with_spaces_tabs_and_carriage_returns(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"an image.png 3\r\n\nb.png\t0\nc.png 12  \n")
    items = open_source(tmp_path, tmp_path / "list.txt").items
    assert [(item.name, item.label) for item in items] == [
        ("an image.png", 3),
        ("b.png", 0),
        ("c.png", 12),
    ]


def test_validation_keeps_the_class_table_of_training(zoo, tmp_path):
    make_lmdb(zoo, tmp_path / "train", BuildOptions(size=(8, 8)))
    val = tmp_path / "val images" / "b"
    val.mkdir(parents=True)
    (val / "gray.png").write_bytes((zoo / "b/gray.png").read_bytes())
    table = tmp_path / "train"
    make_lmdb(val.parent, tmp_path / "val", BuildOptions(size=(8, 8)), labels=table)
    assert [Datum.FromString(value).label for _, value in records(tmp_path / "val")] == [1]
    assert read_labels(tmp_path / "val") == ("a class", "b")
    (val.parent / "c").mkdir()
    with pytest.raises(InputError, match="lacks: c"):
        open_source(val.parent, labels=table)
    assert dataset_sizes(str(table), str(tmp_path / "val")).num_classes == 2


def test_missing_sources(tmp_path):
    with pytest.raises(MissingInputError):
        open_source(tmp_path / "no")
    with pytest.raises(InputError, match="no class folders"):
        open_source(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        open_source(tmp_path)
    with pytest.raises(MissingInputError):
        open_source(tmp_path, tmp_path / "no.txt")


def test_database_grows_beyond_its_first_map(tmp_path):
    value = bytes(1 << 20)
    with open_writer(tmp_path) as writer:
        for index in range(150):
            writer.put(b"%08d" % index, value)
    with open_reader(tmp_path) as reader:
        assert len(reader) == 150
        assert [key for key, _ in reader.sample(3)] == [b"00000000", b"00000050", b"00000100"]


def test_databases_of_others_are_read(caffe, zoo, tmp_path):
    lines = "".join(f"b/gray.png {label}\n" for label in range(7))
    (tmp_path / "list.txt").write_text(lines)
    flags = ["-backend", "lmdb", "-encoded", "-encode_type", "png"]
    paths = [f"{zoo}/", str(tmp_path / "list.txt"), str(tmp_path / "db")]
    command = tool_command(caffe, "convert_imageset", [*flags, *paths])
    subprocess.run(command.argv, env=command.env, check=True, capture_output=True)
    summary = summarize_database(tmp_path / "db")
    assert (summary.num_records, summary.height, summary.width) == (7, 31, 41)
    assert summary.encoded
    assert (summary.max_label, summary.num_classes) == (6, 7)


def test_what_is_no_database(tmp_path):
    with pytest.raises(MissingInputError):
        summarize_database(tmp_path / "no")
    with pytest.raises(FormatError):
        summarize_database(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"garbage" * 2000)
    with pytest.raises(FormatError):
        summarize_database(tmp_path)


def test_no_space_is_said_before(zoo, tmp_path, monkeypatch):
    from irv2caffe.errors import OutputError

    monkeypatch.setattr("irv2caffe.system.free_bytes", lambda path: 1_000_000)
    with pytest.raises(OutputError, match="are free"):
        make_lmdb(zoo, tmp_path / "out", BuildOptions())
    assert not (tmp_path / "out").exists()
