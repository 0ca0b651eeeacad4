"""make-lmdb against the real convert_imageset, record by record."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import lmdb
import numpy as np
import pytest
from helpers.zoo import make_zoo, save_bad
from PIL import Image

from irv2caffe.caffe.command import tool_command
from irv2caffe.data.build.convert_imageset import convert_imageset
from irv2caffe.data.build.make_lmdb import Augment, BuildOptions, make_lmdb
from irv2caffe.data.build.side_files import read_skipped
from irv2caffe.data.inspect.database import read_database, read_pair
from irv2caffe.data.records.decode import stored_pixels
from irv2caffe.data.sources import open_source, read_labels
from irv2caffe.errors import InputError, OutputError, OutputExistsError, UsageError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_binary
from irv2caffe.proto.messages import Datum


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """Class folders with images of all kinds."""
    return make_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    """Two classes of a few images of one size."""
    root = tmp_path_factory.mktemp("few")
    rng = np.random.default_rng(1)
    for number in range(40):
        folder = root / ("cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def records(folder):
    with lmdb.open(str(folder), readonly=True, lock=False) as database, database.begin() as view:
        return list(view.cursor())


def by_hand(caffe, tmp_path, root, items, flags):
    """convert_imageset without our module in between: flags and list as its users write them."""
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"{item.name} {item.label}\n" for item in items))
    paths = [f"{root}/", str(listing), str(tmp_path / "theirs")]
    command = tool_command(caffe, "convert_imageset", ["-backend", "lmdb", *flags, *paths])
    subprocess.run(command.argv, env=command.env, check=True, capture_output=True)
    return dict(records(tmp_path / "theirs"))


KINDS = {
    "raw": (BuildOptions(), ["-resize_height", "328", "-resize_width", "328"]),
    "raw small": (BuildOptions(size=(82, 75)), ["-resize_height", "75", "-resize_width", "82"]),
    "raw, own sizes": (BuildOptions(size=None), []),
    "raw gray": (
        BuildOptions(size=(64, 64), gray=True),
        ["-gray", "-resize_height", "64", "-resize_width", "64"],
    ),
    "jpg": (
        BuildOptions(encoded="jpg"),
        ["-resize_height", "328", "-resize_width", "328", "-encoded", "-encode_type", "jpg"],
    ),
    "png": (
        BuildOptions(size=(82, 82), encoded="png"),
        ["-resize_height", "82", "-resize_width", "82", "-encoded", "-encode_type", "png"],
    ),
    "gray jpg": (
        BuildOptions(size=(64, 64), encoded="jpg", gray=True),
        ["-gray", "-resize_height", "64", "-resize_width", "64", "-encoded", "-encode_type=jpg"],
    ),
    "jpg files": (BuildOptions(size=None, encoded="jpg"), ["-encoded", "-encode_type", "jpg"]),
    "png files": (BuildOptions(size=None, encoded="png"), ["-encoded", "-encode_type", "png"]),
    "gray jpg files": (
        BuildOptions(size=None, encoded="jpg", gray=True),
        ["-gray", "-encoded", "-encode_type", "jpg"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_records_equal_those_of_convert_imageset(caffe, zoo, tmp_path, kind):
    """Over every kind of file; what we do otherwise on purpose is switched off."""
    options, flags = KINDS[kind]
    options = BuildOptions(
        **{**vars(options), "exactly_like_caffe": True, "shuffle": False, "mean": "fast"}
    )
    source = open_source(zoo)
    theirs = by_hand(caffe, tmp_path, zoo, source.items, flags)
    report = make_lmdb(source, tmp_path / "ours", options)
    ours = dict(records(tmp_path / "ours"))
    differ = [key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)]
    assert not differ, sorted(differ)
    assert report.num_images == len(theirs) > 300
    assert len(source.items) - report.num_images == report.num_skipped


@pytest.mark.slow
def test_on_purpose_differences(caffe, zoo, tmp_path):
    """Without --exactly-like-caffe records differ only where the docs say so."""
    source = open_source(zoo)
    for kind in ("raw", "jpg files", "png files", "gray jpg files"):
        (tmp_path / kind).mkdir()
        options, flags = KINDS[kind]
        options = BuildOptions(**{**vars(options), "shuffle": False, "mean": "fast"})
        theirs = by_hand(caffe, tmp_path / kind, zoo, source.items, flags)
        make_lmdb(source, tmp_path / kind / "ours", options)
        ours = dict(records(tmp_path / kind / "ours"))
        differ = {key for key in ours if theirs.get(key) != ours[key]}
        if kind == "raw":
            assert differ == set()
            continue
        for key, value in theirs.items():
            assert (key in differ) == is_harmful(value, source, key, gray="gray" in kind), key
        for key in differ:
            plain = stored_pixels(ours[key])
            assert plain.dtype == np.uint8
            assert plain.ndim == (2 if "gray" in kind else 3)
            assert plain.shape[2:] == (() if "gray" in kind else (3,))


def is_harmful(value, source, key, *, gray):
    """Whether a record is a file whose pixels are not those of a raw record, as Pillow sees it."""
    path = source.root / key.decode()[9:]
    if Datum.FromString(value).data != path.read_bytes():
        return False
    with Image.open(path) as image:
        if gray:
            return image.mode != "L" or image.getexif().get(0x112, 1) != 1
        turned = image.format == "JPEG" and image.getexif().get(0x112, 1) != 1
        has_hole = image.mode == "P" and "transparency" in image.info
        odd = image.mode in {"L", "LA", "RGBA", "1", "I;16", "I"} or has_hole
        return turned or odd or "16.png" in path.name


@pytest.mark.slow
def test_backend_convert_imageset_gives_the_same(caffe, few, tmp_path):
    tool = tool_command(caffe, "convert_imageset")
    for number, options in enumerate(
        (BuildOptions(), BuildOptions(size=(32, 20), encoded="jpg", copies=2, seed=5))
    ):
        source = open_source(few)
        ours = make_lmdb(source, tmp_path / f"ours{number}", options)
        out = tmp_path / f"theirs{number}"
        theirs = convert_imageset(source, out, options, argv=tool.argv, env=tool.env)
        assert records(tmp_path / f"ours{number}") == records(out)
        assert ours.num_images == theirs.num_images == 40 * options.copies
        assert theirs.mean_values == pytest.approx(ours.mean_values, abs=1e-9)
        assert (out / "mean.binaryproto").is_file()
        assert read_labels(out) == ("cat", "dog")


def test_backend_convert_imageset_refuses_what_the_tool_lacks(few, tmp_path):
    options = BuildOptions(interpolation="area", fast_decode=True)
    with pytest.raises(UsageError, match="no --interpolation, --fast-decode"):
        convert_imageset(open_source(few), tmp_path / "out", options, argv=["false"], env={})


@pytest.mark.slow
def test_both_backends_count_bad_images(caffe, few, tmp_path):
    root = tmp_path / "images"
    (root / "x").mkdir(parents=True)
    good = (few / "cat/0.png").read_bytes()
    (root / "x/good.png").write_bytes(good)
    (root / "x/also.png").write_bytes(good)
    save_bad(root / "x", np.random.default_rng(0))
    tool = tool_command(caffe, "convert_imageset")
    source = open_source(root)
    options = BuildOptions(exactly_like_caffe=True, shuffle=False)
    ours = make_lmdb(source, tmp_path / "ours", options)
    theirs = convert_imageset(source, tmp_path / "theirs", options, argv=tool.argv, env=tool.env)
    assert records(tmp_path / "ours") == records(tmp_path / "theirs")
    assert {row[0] for row in read_skipped(tmp_path / "ours")} == {
        row[0] for row in read_skipped(tmp_path / "theirs")
    }
    assert ours.num_skipped == theirs.num_skipped
    few_allowed = BuildOptions(exactly_like_caffe=True, max_skipped=ours.num_skipped - 1)
    out = tmp_path / "few allowed"
    with pytest.raises(InputError, match="images cannot be taken"):
        convert_imageset(source, out, few_allowed, argv=tool.argv, env=tool.env)
    assert not out.exists()
    strict = make_lmdb(source, tmp_path / "strict", BuildOptions(shuffle=False))
    assert strict.num_images == 2
    assert {name for name, _, _ in read_skipped(tmp_path / "strict")} == {
        f"x/{path.name}" for path in (root / "x").iterdir() if path.name[:4] not in {"good", "also"}
    }
    assert strict.skipped["empty file"] == 1
    assert strict.skipped["cut short"] >= 9
    assert strict.skipped["not an image that can be decoded"] >= 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raw", "jpg", "png", "gray jpg"])
def test_mean_equals_compute_image_mean(caffe, few, zoo, tmp_path, kind):
    options, _ = KINDS[kind]
    source = open_source(few if kind == "raw" else zoo)
    make_lmdb(source, tmp_path / "db", options)
    out = tmp_path / "mean.binaryproto"
    command = tool_command(caffe, "compute_image_mean", [str(tmp_path / "db"), str(out)])
    done = subprocess.run(
        command.argv, env={**command.env, "GLOG_logtostderr": "1"}, check=True, capture_output=True
    )
    theirs = read_binary(out, messages.BlobProto)
    ours = read_binary(tmp_path / "db/mean.binaryproto", messages.BlobProto)
    assert (ours.num, ours.channels, ours.height, ours.width) == (
        theirs.num,
        theirs.channels,
        theirs.height,
        theirs.width,
    )
    assert np.abs(np.array(ours.data) - np.array(theirs.data)).max() < 1e-3
    lines = done.stderr.decode().splitlines()
    said = [float(line.rpartition(": ")[2]) for line in lines if "mean_value channel" in line]
    assert read_database(tmp_path / "db").mean_values == pytest.approx(said, abs=2e-3)
    assert read_database(tmp_path / "db").mean_file == str(tmp_path / "db/mean.binaryproto")


@pytest.mark.slow
def test_mean_of_different_sizes_is_that_of_all_pixels(zoo, tmp_path):
    options = BuildOptions(size=None)
    make_lmdb(open_source(zoo), tmp_path / "db", options)
    pixels = [stored_pixels(value).reshape(-1, 3) for _, value in records(tmp_path / "db")]
    wanted = np.concatenate(pixels).mean(axis=0, dtype=np.float64)
    database = read_database(tmp_path / "db")
    assert database.mean_values == pytest.approx(wanted, abs=1e-6)
    assert database.mean_file == ""


@pytest.mark.slow
def test_mean_fast_and_none(few, tmp_path):
    options: dict[str, Any] = {"size": (40, 30), "encoded": "jpg"}
    means = {}
    for mean in ("exact", "fast", "none"):
        make_lmdb(open_source(few), tmp_path / mean, BuildOptions(**options, mean=mean))
        means[mean] = read_database(tmp_path / mean).mean_values
    assert means["none"] == ()
    assert means["fast"] != means["exact"]
    assert means["fast"] == pytest.approx(means["exact"], abs=0.5)
    assert records(tmp_path / "exact") == records(tmp_path / "none")


@pytest.mark.slow
def test_mean_auto_is_exact_for_the_first_thousand(few, tmp_path):
    names = sorted(path.relative_to(few) for path in few.rglob("*.png"))
    means = {}
    for count in (1000, 1200):
        lines = [f"{names[place % len(names)]} 0\n" for place in range(count)]
        listing = tmp_path / f"{count}.txt"
        listing.write_text("".join(lines))
        for mean in ("exact", "auto", "fast"):
            options = BuildOptions(size=(24, 20), encoded="jpg", mean=mean, shuffle=False)
            out = tmp_path / f"{mean}{count}"
            make_lmdb(open_source(few, listing), out, options)
            means[mean, count] = np.array(read_database(out).mean_values)
    assert (means["auto", 1000] == means["exact", 1000]).all()
    sums = means["exact", 1000] * 1000 + means["fast", 1200] * 1200 - means["fast", 1000] * 1000
    assert means["auto", 1200] == pytest.approx(sums / 1200, abs=1e-6)
    assert (means["auto", 1200] != means["exact", 1200]).all()


@pytest.mark.slow
def test_order_does_not_depend_on_workers_but_on_the_seed(zoo, tmp_path):
    def build(name, **options):
        make_lmdb(open_source(zoo), tmp_path / name, BuildOptions(size=(16, 16), **options))
        return records(tmp_path / name)

    one = build("one", workers=1)
    assert build("five", workers=5) == one
    assert (tmp_path / "one/data.mdb").read_bytes() == (tmp_path / "five/data.mdb").read_bytes()
    for name in ("mean.binaryproto", "skipped.csv", "complaints.csv"):
        if (tmp_path / "one" / name).exists():
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "five" / name).read_bytes()
    assert build("other", seed=2) != one
    assert sorted(key for key, _ in one) == [key for key, _ in one]
    plain = build("plain", shuffle=False)
    labels = [Datum.FromString(value).label for _, value in plain]
    assert labels == sorted(labels)
    manifest = json.loads((tmp_path / "one/manifest.json").read_text())
    assert manifest["shuffled"]
    assert manifest["options"]["seed"] == 1


def test_copies_are_passes_in_different_order(few, tmp_path):
    report = make_lmdb(open_source(few), tmp_path / "db", BuildOptions(size=(8, 8), copies=3))
    names = [key[9:] for key, _ in records(tmp_path / "db")]
    passes = [names[:40], names[40:80], names[80:]]
    assert report.num_images == 120
    assert all(sorted(once) == sorted(passes[0]) for once in passes)
    assert len({tuple(once) for once in passes}) == 3
    plain = BuildOptions(size=(8, 8), seed=1)
    make_lmdb(open_source(few), tmp_path / "plain", plain)
    assert [key[9:] for key, _ in records(tmp_path / "plain")] == passes[0]


@pytest.mark.slow
def test_augmented_copies(tmp_path):
    """A picture of its own coordinates tells where each crop was taken."""
    (tmp_path / "images/x").mkdir(parents=True)
    height, width = 200, 240
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows, columns, np.full_like(rows, 90)], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images/x/map.png")
    source = open_source(tmp_path / "images")

    def build(name, **options):
        augment = Augment((0.2, 0.8), (0.5, 2.0), color=False)
        more: dict[str, Any] = {"size": (50, 50), "copies": 60, "augment": augment} | options
        make_lmdb(source, tmp_path / name, BuildOptions(**more))
        return [stored_pixels(value).astype(int) for _, value in records(tmp_path / name)]

    crops = build("crops")
    areas, aspects, lefts = [], [], []
    for crop in crops:
        red, green = crop[:, :, 2], crop[:, :, 1]
        tall, wide = (
            (red[-1] - red[0]).mean() * 50 / 49,
            (green[:, -1] - green[:, 0]).mean() * 50 / 49,
        )
        areas.append(tall * wide / (height * width))
        aspects.append(wide / tall)
        lefts.append(green[0, 0])
        assert (crop[:, :, 0] == 90).all()
    assert 0.15 < min(areas) < 0.4 < 0.6 < max(areas) < 0.85
    assert 0.45 < min(aspects) < 0.8 < 1.4 < max(aspects) < 2.1
    assert len(set(lefts)) > 20
    again = build("again", workers=3)
    assert all((one == other).all() for one, other in zip(crops, again, strict=True))
    seeded = build("seeded", seed=2)
    assert not all((one == other).all() for one, other in zip(crops, seeded, strict=True))
    colored = build("colored", augment=Augment((1.0, 1.0), (1.19, 1.21), color=True))
    blues = [crop[:, :, 0].mean() for crop in colored]
    assert len(set(blues)) > 30
    assert max(blues) - min(blues) > 40


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        ("squash", (60, 80)),
        ("short-side", (80, 107)),
        ("center-crop", (60, 80)),
        ("fill", (60, 80)),
        ("none", (150, 200)),
    ],
)
def test_resize_modes(tmp_path, mode, shape):
    """A white disc in the middle of a black image shows what happened to the aspect."""
    (tmp_path / "images/x").mkdir(parents=True)
    height, width = 150, 200
    if mode == "fill":
        height, width = 150, 100
    rows, columns = np.mgrid[0:height, 0:width]
    disc = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < 30**2
    Image.fromarray((disc * 255).astype(np.uint8)).save(tmp_path / "images/x/disc.png")
    size = (80, 60) if mode != "short-side" else (80, 80)
    options = BuildOptions(size=size, resize_mode=mode)
    make_lmdb(open_source(tmp_path / "images"), tmp_path / "db", options)
    ((_, value),) = records(tmp_path / "db")
    image = stored_pixels(value)
    assert image.shape[:2] == shape
    white = image[:, :, 0] > 200
    tall, wide = white.any(axis=1).sum(), white.any(axis=0).sum()
    assert abs(tall - wide) <= 2
    if mode == "fill":
        assert (image[:, 0] == 127).all()
        assert (image[:, -1] == 127).all()
        assert (image[0, 40] == 0).all()


@pytest.mark.slow
def test_quality(few, tmp_path):
    for quality in (50, 95, 100):
        options = BuildOptions(encoded="jpg", quality=quality)
        make_lmdb(open_source(few), tmp_path / str(quality), options)
    sizes = [(tmp_path / name / "data.mdb").stat().st_size for name in ("50", "95", "100")]
    assert sizes == sorted(set(sizes))


def test_fast_decode_is_nearly_the_same(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images/x").mkdir(parents=True)
    smooth = rng.integers(0, 256, (12, 16, 3), np.uint8)
    image = Image.fromarray(smooth).resize((2000, 1500), Image.Resampling.BICUBIC)
    image.save(tmp_path / "images/x/large.jpg", quality=95)
    image.resize((300, 200)).save(tmp_path / "images/x/small.jpg")
    source = open_source(tmp_path / "images")
    make_lmdb(source, tmp_path / "slow", BuildOptions())
    make_lmdb(source, tmp_path / "fast", BuildOptions(fast_decode=True))
    slow, fast = records(tmp_path / "slow"), records(tmp_path / "fast")
    assert [key for key, _ in slow] == [key for key, _ in fast]
    for (key, one), (_, other) in zip(slow, fast, strict=True):
        distance = np.abs(stored_pixels(one).astype(int) - stored_pixels(other))
        assert distance.max() <= 12
        assert (distance.max() == 0) == (b"small" in key)


def test_existing_output_is_refused(few, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    source = open_source(few)
    with pytest.raises(OutputExistsError):
        make_lmdb(source, tmp_path / "out", BuildOptions())
    with pytest.raises(OutputExistsError, match="no LMDB"):
        make_lmdb(source, tmp_path / "out", BuildOptions(), force=True)
    make_lmdb(source, tmp_path / "db", BuildOptions(size=(8, 8)))
    (tmp_path / "db/notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="other files"):
        make_lmdb(source, tmp_path / "db", BuildOptions(size=(9, 9)), force=True)
    (tmp_path / "db/notes.txt").unlink()
    make_lmdb(source, tmp_path / "db", BuildOptions(size=(9, 9)), force=True)
    assert read_database(tmp_path / "db").width == 9
    assert (tmp_path / "out/thesis.tex").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "out"]


def test_validation_keeps_the_class_table_of_training(few, tmp_path):
    small = BuildOptions(size=(8, 8))
    make_lmdb(open_source(few), tmp_path / "train", small)
    val = tmp_path / "val images" / "dog"
    val.mkdir(parents=True)
    (val / "1.png").write_bytes((few / "dog/1.png").read_bytes())
    table = tmp_path / "train"
    make_lmdb(open_source(val.parent, labels=table), tmp_path / "val", small)
    assert [Datum.FromString(value).label for _, value in records(tmp_path / "val")] == [1]
    assert read_labels(tmp_path / "val") == ("cat", "dog")
    (val.parent / "cow").mkdir()
    with pytest.raises(InputError, match="lacks: cow"):
        open_source(val.parent, labels=table)
    (val.parent / "cow").rmdir()
    make_lmdb(open_source(val.parent), tmp_path / "alone", small)
    with pytest.raises(InputError, match="are not the same"):
        read_pair(table, tmp_path / "alone")
    pair = read_pair(table, tmp_path / "val")
    assert [database.num_records for database in pair] == [40, 1]
    assert pair[0].num_classes == 2


def test_a_database_among_the_class_folders_is_refused(tmp_path, few):
    with pytest.raises(OutputError, match="among the class folders"):
        make_lmdb(open_source(few), few / "db", BuildOptions())
    assert sorted(path.name for path in few.iterdir()) == ["cat", "dog"]


def test_no_space_is_said_before(few, tmp_path, monkeypatch):
    monkeypatch.setattr("irv2caffe.system.free_bytes", lambda path: 1_000_000)
    with pytest.raises(OutputError, match="are free"):
        make_lmdb(open_source(few), tmp_path / "out", BuildOptions())
    assert list(tmp_path.iterdir()) == []
