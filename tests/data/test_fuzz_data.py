"""Rubbish into every reader of make-lmdb: it is refused by an error of ours, or read."""

from __future__ import annotations

import gzip
import io
from typing import Any

import numpy as np
import pytest
from helpers.archives import GROUND_TRUTH, cifar_pickle, idx_bytes, tar_bytes
from helpers.zoo import file_bytes, photo, with_orientation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from irv2caffe.data.options import BuildOptions
from irv2caffe.data.records.datum import read_head
from irv2caffe.data.records.headers import image_kind, is_cut_short, read_jpeg_header
from irv2caffe.data.records.image import UndecodableImageError, decode_record, open_image
from irv2caffe.data.records.record import RecordBuffer, RecordMaker
from irv2caffe.data.sources import Item, open_source
from irv2caffe.data.sources.devkit import read_devkit
from irv2caffe.data.sources.pickles import load_pickle
from irv2caffe.data.sources.tars import index_tar
from irv2caffe.errors import FormatError, InputError
from irv2caffe.proto.messages import Datum

RNG = np.random.default_rng(0)
SHARED: dict[str, Any] = {
    "max_examples": 150,
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@st.composite
def mutated(draw, data):
    """A file with some bytes changed, cut out, doubled, or its end missing."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        what = draw(st.sampled_from(["flip", "set", "cut", "end", "double"]))
        if what == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "set":
            data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif what == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif what == "end":
            del data[at:]
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


LINES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"a.png 1", b"b c.png\t22", b"x 3 ", b"", b"../x 1", b"/x 1", b"a.png 2"]),
    ),
    max_size=8,
)


@settings(**SHARED)
@given(lines=LINES, end=st.sampled_from([b"\n", b"\r\n"]))
def test_lists(tmp_path, lines, end):
    (tmp_path / "list.txt").write_bytes(end.join(lines))
    try:
        source = open_source(tmp_path, tmp_path / "list.txt")
    except FormatError:
        return
    assert len(source.items) <= sum(len(line.split(b"\n")) for line in lines)
    for item in source.items:
        assert item.name
        assert ".." not in item.name.split("/")
        assert not item.name.startswith("/")
        assert 0 <= item.label < 1 << 31
        assert item.name.encode("utf-8", "surrogateescape") in (tmp_path / "list.txt").read_bytes()


PNG = file_bytes(photo(RNG, 12, 9), "png")
INNER = tar_bytes([(f"n01440764_{number}.JPEG", PNG) for number in range(3)])
TARS = [
    tar_bytes([("n01440764.tar", INNER), ("n02.tar", INNER)]),
    tar_bytes([("a/1.png", PNG), ("b/" + "l" * 150 + ".png", PNG)]),
    tar_bytes([("é/1.png", PNG), ("b/2.png", PNG)]),
]


@settings(**SHARED)
@given(data=st.sampled_from(TARS).flatmap(mutated))
def test_tars(tmp_path, data):
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    try:
        index = index_tar(path)
    except InputError:
        return
    for member in index.members:
        assert not member.name.startswith("/")
        assert ".." not in member.name.split("/")
        assert member.offset >= 0
        assert member.size >= 0


CIFAR = cifar_pickle(RNG.integers(0, 256, (2, 3, 32, 32), np.uint8), [0, 1], hundred=False)


@settings(**SHARED)
@given(data=st.one_of(mutated(CIFAR), mutated(CIFAR[-120:]), st.binary(max_size=200)))
def test_pickles(data):
    try:
        load_pickle(data)
    except FormatError:
        return


KIT = "".join(f"{number}\n" for number in GROUND_TRUTH).encode()


@pytest.mark.slow
@settings(**SHARED)
@given(data=st.one_of(mutated(KIT), st.binary(max_size=200)))
def test_ground_truth(tmp_path, data):
    path = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    path.write_bytes(data)
    try:
        kit = read_devkit(path)
    except FormatError:
        return
    assert len(kit.labels) == len(data.split())


IDX = idx_bytes(RNG.integers(0, 256, (3, 5, 4), np.uint8))
LABELS = idx_bytes(np.arange(3))


@pytest.mark.slow
@settings(**SHARED)
@given(
    images=st.one_of(mutated(IDX), mutated(gzip.compress(IDX)), st.just(IDX)),
    labels=st.one_of(mutated(LABELS), mutated(gzip.compress(LABELS)), st.just(LABELS)),
)
def test_idx(tmp_path, images, labels):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(images)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    try:
        source = open_source(tmp_path)
    except InputError:
        return
    assert source.pixels is not None
    assert len(source.items) == len(source.items.labels)


IMAGES = [
    *(file_bytes(photo(RNG, 40, 30, mode), "jpeg") for mode in ("RGB", "L", "CMYK")),
    file_bytes(photo(RNG, 40, 30), "jpeg", progressive=True),
    file_bytes(photo(RNG, 40, 30), "jpeg", exif=with_orientation(6)),
    *(file_bytes(photo(RNG, 20, 16, mode), "png") for mode in ("RGB", "L", "RGBA")),
    file_bytes(photo(RNG, 20, 16).convert("P"), "png"),
    file_bytes(photo(RNG, 20, 16), "webp"),
    file_bytes(photo(RNG, 20, 16), "bmp"),
    file_bytes(photo(RNG, 20, 16), "tiff", compression="tiff_lzw"),
    file_bytes(photo(RNG, 20, 16), "ppm"),
    file_bytes(photo(RNG, 20, 16), "gif"),
    file_bytes(photo(RNG, 20, 16), "jpeg2000"),
]
WAYS = [
    BuildOptions(size=(16, 16)),
    BuildOptions(size=None, encoded="jpg"),
    BuildOptions(size=None, encoded="png", gray=True),
    BuildOptions(size=(8, 8), encoded="jpg", fast_decode=True),
    BuildOptions(size=(20, 12), resize_mode="fill", gray=True),
    BuildOptions(size=None, encoded="jpg", exactly_like_caffe=True),
    BuildOptions(size=(9, 9), exactly_like_caffe=True),
]


@pytest.mark.slow
@settings(**{**SHARED, "max_examples": 400})
@given(data=st.sampled_from(IMAGES).flatmap(mutated), way=st.sampled_from(WAYS), png=st.booleans())
def test_images(tmp_path, data, way, png):
    name = "x.png" if png else "x.jpg"
    (tmp_path / name).write_bytes(data)
    maker = RecordMaker(way, tmp_path)
    space_memory = np.zeros(100_000, np.uint8)
    space = RecordBuffer(space_memory)
    try:
        offset, size = maker.make(Item(name, 7), 0, space)
    except UndecodableImageError:
        return
    memory = space.extra[0] if offset < 0 else space_memory[offset:]
    value = memory[:size].tobytes()
    head = read_head(value)
    assert Datum.FromString(value).label == head.label == 7
    assert head.is_encoded == (way.encoded is not None)
    if way.fixed_shape is not None and way.encoded is None:
        assert head.shape == way.fixed_shape
    if not way.exactly_like_caffe and way.encoded is not None:
        pixels = decode_record(value[head.data[0] : sum(head.data)])
        assert pixels.dtype == np.uint8
        assert pixels.ndim == (2 if way.gray else 3)


@settings(**SHARED)
@given(data=st.one_of(st.binary(max_size=300), st.sampled_from(IMAGES).flatmap(mutated)))
def test_headers(data):
    kind = image_kind(data)
    jpeg = read_jpeg_header(data) if kind == "jpg" else None
    assert is_cut_short(data, kind, jpeg) in {True, False}
    try:
        open_image(data)
    except UndecodableImageError:
        return


@settings(**SHARED)
@given(st.sampled_from(IMAGES[:5]), st.floats(0, 1, exclude_max=True))
def test_no_jpeg_file_that_is_cut_passes_as_whole(data, share):
    part = data[: int(len(data) * share)]
    kind = image_kind(part)
    if kind == "jpg":
        assert is_cut_short(part, kind, read_jpeg_header(part))
    with pytest.raises(UndecodableImageError):
        open_image(part).decode()


@settings(**SHARED)
@given(st.binary(max_size=60))
def test_datums(data):
    try:
        head = read_head(data)
    except FormatError:
        return
    assert head.data[0] + head.data[1] <= len(data)


@pytest.mark.parametrize("ended", [True, False])
def test_a_png_chunk_that_goes_on_behind_the_file(ended):
    """OpenCV takes as much memory as the chunk says before it reads it, 2 GB here."""
    png = next(data for data in IMAGES if data.startswith(b"\x89PNG"))
    at = png.index(b"IDAT") - 4
    data = png[:at] + b"\x7f\xff\xff\xf0" + png[at + 4 : None if ended else -12]
    for read in (open_image, decode_record):
        with pytest.raises(UndecodableImageError, match=r"damaged|cut short"):
            read(data)


def test_whole_files_pass(tmp_path):
    jpeg = next(data for data in IMAGES if data.startswith(b"\xff\xd8"))
    for data in (*IMAGES, jpeg[:20] + b"stray\xff\0" + jpeg[20:]):
        image = open_image(data).decode()
        with Image.open(io.BytesIO(data)) as picture:
            sizes = {picture.size, picture.size[::-1]}
        assert image.shape[1::-1] in sizes
