"""Division into training and validation images: classes, images with the same bytes, balance."""

from __future__ import annotations

import io
import os
import tarfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from helpers.archives import cifar, idx, ilsvrc_train, ilsvrc_val, tar_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from irv2caffe.data.build.build_plan import make_plan
from irv2caffe.data.build.make_pair import default_val_out
from irv2caffe.data.options import BuildOptions
from irv2caffe.data.records.items import Item, Items, Source
from irv2caffe.data.sources import open_source
from irv2caffe.data.sources.own_validation import refuse_own_validation
from irv2caffe.data.split.contents import equal_images
from irv2caffe.data.split.split import split_source
from irv2caffe.errors import InputError, UsageError

BIG = 3 << 20


def contents(rng):
    """File bytes with all that makes some of them nearly equal to others."""
    long = rng.bytes(9000)
    huge = rng.bytes(BIG)
    return {
        "a/short": b"\xff\xd8 short",
        "a/long": long,
        "a/again": long,
        "a/other start": b"!" + long[1:],
        "a/other middle": long[:4000] + b"!!" + long[4002:],
        "a/other end": long[:-1] + b"!",
        "a/longer": long + b"!",
        "a/empty": b"",
        "b/empty": b"",
        "b/short": b"\xff\xd8 short",
        "b/page": long[:4096],
        "b/page again": long[:4096],
        "b/huge": huge,
        "c/huge": huge,
        "c/huge too": huge[:10] + b"??" + huge[12:],
        "c/long": long,
    }


def by_brute_force(files):
    """Groups of names with the same bytes."""
    groups = defaultdict(list)
    for name, data in files.items():
        groups[data].append(name)
    return sorted(sorted(group) for data, group in groups.items() if data and len(group) > 1)


def named(source, groups):
    return sorted(sorted(source.items[index].name for index in group) for group in groups)


def test_equal_images_of_folders(tmp_path):
    files = {f"{name}.jpg": data for name, data in contents(np.random.default_rng(0)).items()}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "c/link.jpg").symlink_to(tmp_path / "a/short.jpg")
    files["c/link.jpg"] = files["a/short.jpg"]
    (tmp_path / "c/nowhere.jpg").symlink_to(tmp_path / "missing.jpg")
    os.mkfifo(tmp_path / "c/pipe.jpg")
    os.mkfifo(tmp_path / "c/pipe too.jpg")
    (tmp_path / "c/nowhere too.jpg").symlink_to(tmp_path / "missing.jpg")
    source = open_source(tmp_path)
    seen = []
    groups = equal_images(source, lambda *done: seen.append(done))
    assert named(source, groups) == by_brute_force(files)
    assert groups == sorted(groups)
    assert seen[-1][0] == seen[-1][1]
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"{name} 0\n" for name in [*files, "gone/1.jpg", "gone/2.jpg"]))
    source = open_source(tmp_path, listing)
    assert named(source, equal_images(source)) == by_brute_force(files)


def test_equal_images_of_archives(tmp_path):
    """Tars, tars in a tar, and pixels without files."""
    rng = np.random.default_rng(0)
    files = {f"{name}.jpg": data for name, data in contents(rng).items()}
    (tmp_path / "plain.tar").write_bytes(tar_bytes(files.items()))
    inner = tar_bytes((name[2:], data) for name, data in files.items() if name[0] == "a")
    other = tar_bytes([("x.jpg", files["a/long.jpg"]), ("y.jpg", b"y")])
    (tmp_path / "inner.tar").write_bytes(tar_bytes([("a.tar", inner), ("z.tar", other)]))
    source = open_source(tmp_path / "plain.tar")
    assert named(source, equal_images(source)) == by_brute_force(files)
    source = open_source(tmp_path / "inner.tar")
    assert named(source, equal_images(source)) == [["a/again.jpg", "a/long.jpg", "z/x.jpg"]]
    pixels = rng.integers(0, 256, (6, 28, 28), np.uint8)
    pixels[5] = pixels[2]
    store = (tmp_path / "pixels").open("w+b")
    store.write(pixels.tobytes())
    store.flush()
    items = Items()
    for number in range(6):
        items.add(Item(f"x/{number}", number % 2, 0, number * 784, 784))
    assert equal_images(Source(tmp_path, "idx", items, stores=(store,))) == [[2, 5]]
    store.truncate(5 * 784)  # what is cut off equals nothing
    assert equal_images(Source(tmp_path, "idx", items, stores=(store,))) == []
    store.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of three-byte images: image n holds n, so that any may be repeated."""
    path = tmp_path_factory.mktemp("store") / "store"
    path.write_bytes(b"".join(number.to_bytes(3, "big") for number in range(1000)))
    return path


def data_set(store, rows):
    """A source of (label, content) rows."""
    items = Items()
    for number, (label, content) in enumerate(rows):
        items.add(Item(f"{label}/{number:04d}.jpg", label, 0, content * 3, 3))
    return Source(store, "tar", items, stores=(store,))


def parts(split):
    return [list(part.items) for part in (split.train, split.val)]


def number_of(item):
    return item.name.partition("/")[2]


ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, fraction=st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.9, 0.99]))
def test_every_division_keeps_its_promises(folder, rows, fraction):
    source = data_set(folder, rows)
    by_label = defaultdict(set)
    labels_of = defaultdict(set)
    for label, content in rows:
        by_label[label].add(content)
        labels_of[content].add(label)
    divisible = [label for label, found in by_label.items() if len(found) > 1]
    if not divisible:
        with pytest.raises(InputError, match="no class with two different images"):
            split_source(source, fraction, 1)
        return
    if max(map(len, labels_of.values())) > 1:  # then it may be impossible, as in the test below
        divisible = [
            label
            for label in divisible
            if sum(len(labels_of[content]) == 1 for content in by_label[label]) > 0
        ]
        if not divisible:
            return
    split = split_source(source, fraction, 1)
    train, val = parts(split)
    assert sorted(train + val, key=number_of) == list(source.items)
    assert train == sorted(train, key=number_of)
    assert val == sorted(val, key=number_of)
    assert not {item.offset for item in train} & {item.offset for item in val}
    for label in divisible:
        assert label in {item.label for item in train}
        assert label in {item.label for item in val}
    for label, found in by_label.items():
        if len(found) == 1:
            assert label in {item.label for item in train}
    assert split.num_duplicates == len(rows) - len(labels_of)
    assert bool(split.findings) == any(len(labels) > 1 for labels in labels_of.values())
    assert parts(split_source(source, fraction, 1)) == [train, val]


def test_share_of_each_class(folder):
    counts = {0: 300, 1: 100, 2: 30, 3: 5, 4: 4, 5: 2, 6: 1}
    rows = [(label, number) for label, count in counts.items() for number in range(count)]
    rows = [(label, place) for place, (label, _) in enumerate(rows)]
    source = data_set(folder, rows)
    split = split_source(source, 0.1, 1)
    assert Counter(split.val.items.labels) == {0: 30, 1: 10, 2: 3, 3: 1, 4: 1, 5: 1}
    assert split.notes == ("1 class(es) have too few different images to set one aside: label 6",)
    assert split.val.is_validation
    assert not split.train.is_validation
    most = split_source(source, 0.99, 1)
    assert Counter(most.train.items.labels) == {0: 3, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1}
    other = split_source(source, 0.1, 2)
    assert Counter(other.val.items.labels) == Counter(split.val.items.labels)
    assert len(set(parts(split)[1]) & set(parts(other)[1])) < 15
    grown = split_source(data_set(folder, [*rows, *((7, 900 + n) for n in range(9))]), 0.1, 1)
    assert set(parts(split)[1]) <= set(parts(grown)[1])


def test_equal_images_of_different_classes_train(folder):
    """They are for training, unless a class has nothing else for validation."""
    rows = [(0, n) for n in range(20)] + [(1, n) for n in range(15, 30)]
    split = split_source(data_set(folder, rows), 0.5, 1)
    assert not {item.offset // 3 for item in parts(split)[1]} & set(range(15, 20))
    assert Counter(split.val.items.labels) == {0: 10, 1: 8}
    (finding,) = split.findings
    assert finding.startswith("10 images have the bytes of an image with another label")
    assert "0/0015.jpg (label 0) = 1/0020.jpg (label 1), 0/0016.jpg" in finding
    assert finding.endswith(" and 2 more")
    shared = split_source(data_set(folder, [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]), 0.1, 1)
    assert Counter(shared.val.items.labels)[0] == Counter(shared.train.items.labels)[0] == 1
    assert set(shared.val.items.labels) == {0, 1}
    triangle = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 1), (2, 3)]  # one of the three is left out
    split = split_source(data_set(folder, triangle), 0.5, 1)
    assert len(set(split.val.items.labels)) == 2
    assert set(split.train.items.labels) == {0, 1, 2}
    (left_out,) = {0, 1, 2} - set(split.val.items.labels)
    assert split.notes[0].endswith(f"set one aside: label {left_out}")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 10.0, float("nan")])
def test_share_outside_of_zero_to_one(folder, fraction):
    with pytest.raises(UsageError, match="between 0 and 1, such as"):
        split_source(data_set(folder, [(0, 1), (0, 2)]), fraction, 1)


def test_sources_that_come_with_a_validation_set(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "cifar").mkdir()
    (tmp_path / "idx").mkdir()
    (tmp_path / "ilsvrc").mkdir()
    archive = cifar(tmp_path / "cifar", rng, hundred=True, python=True)
    path = archive if isinstance(archive, Path) else next((tmp_path / "cifar").iterdir())
    idx(tmp_path / "idx", rng)
    ilsvrc_train(tmp_path / "ilsvrc/ILSVRC2012_img_train.tar", rng)
    alone = open_source(tmp_path / "ilsvrc")
    refuse_own_validation(alone, None)
    ilsvrc_val(tmp_path / "ilsvrc/ILSVRC2012_img_val.tar", rng)
    for place in (path, tmp_path / "idx", tmp_path / "ilsvrc/ILSVRC2012_img_train.tar"):
        with pytest.raises(UsageError, match="comes with a validation set") as caught:
            refuse_own_validation(open_source(place), None)
        assert "--split train with --val-fraction" in caught.value.hint
        refuse_own_validation(open_source(place, split="train"), "train")
    for place in (path, tmp_path / "idx"):
        with pytest.raises(UsageError, match="is a validation set"):
            refuse_own_validation(open_source(place, split="val"), "val")
    with pytest.raises(UsageError, match="--balance is for training sets"):
        make_plan(open_source(path, split="val"), BuildOptions(balance=True))
    split = split_source(open_source(path, split="train"), 0.3, 1)
    assert split.val.classes == split.train.classes == open_source(path).classes


def test_default_name_of_the_validation_database():
    names = {
        "train_lmdb": "val_lmdb",
        "train": "val",
        "data/my-train": "data/my-val",
        "ilsvrc_train_lmdb": "ilsvrc_val_lmdb",
        "Training.lmdb": "val.lmdb",
        "train/lmdb": "train/lmdb-val",
        "trains_lmdb": "trains_lmdb-val",
        "strain": "strain-val",
        "train_of_train": "train_of_val",
        "out": "out-val",
    }
    found = {name: str(default_val_out(Path(name))) for name in names}
    assert found == names


def order_of(store, counts, **options):
    rows = [label for label, count in counts.items() for _ in range(count)]
    source = data_set(store, [(label, place) for place, label in enumerate(rows)])
    plan = make_plan(source, BuildOptions(**options))
    return [plan.order[index] for index in range(len(plan))], plan


def test_balanced_order(folder):
    """5, 2 and 3 images: 5 records of each class, counted by hand."""
    counts = {0: 5, 1: 2, 3: 3}
    order, plan = order_of(folder, counts, balance=True, shuffle=False)
    assert order[:10] == list(range(10))
    assert order[10:] in [[5, 6, *last, one] for last in ([7, 8], [7, 9], [8, 9]) for one in (5, 6)]
    assert plan.notes[-1] == "balanced: 5 records of each class, an image 3 times at most"
    times = Counter(order)
    assert [times[image] for image in range(5)] == [1] * 5
    assert sorted(times[image] for image in (5, 6)) == [2, 3]
    assert sorted(times[image] for image in (7, 8, 9)) == [1, 2, 2]
    shuffled, _ = order_of(folder, counts, balance=True)
    assert (sorted(shuffled), shuffled != order) == (order and sorted(order), True)
    assert order_of(folder, counts, balance=True)[0] == shuffled
    assert order_of(folder, counts, balance=True, seed=2)[0] != shuffled


def test_balanced_copies_draw_anew(folder):
    counts = {0: 40, 1: 30}
    order, plan = order_of(folder, counts, balance=True, copies=6)
    assert len(plan) == 6 * 80
    passes = [order[start : start + 80] for start in range(0, 480, 80)]
    extra = [frozenset(n for n, times in Counter(once).items() if times > 1) for once in passes]
    assert all(len(images) == 10 and min(images) >= 40 for images in extra)
    assert len(set(extra)) > 1
    assert plan.notes[-1] == "balanced: 240 records of each class, an image 12 times at most"


def test_balance_of_equal_classes_changes_nothing(folder):
    counts = {0: 7, 1: 7}
    assert order_of(folder, counts, balance=True)[0] == order_of(folder, counts)[0]


def test_too_many_balanced_records(folder):
    with pytest.raises(InputError, match="records are more than"):
        order_of(folder, {0: 900, **dict.fromkeys(range(1, 121), 1)}, balance=True, copies=1000)


def test_names_in_a_tar_do_not_leave_it(tmp_path):
    """A list of a divided archive names its images as the database does."""
    path = tmp_path / "pictures.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in contents(np.random.default_rng(0)).items():
            info = tarfile.TarInfo(f"top/{name}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    split = split_source(open_source(path), 0.3, 1)
    lines = b"".join(make_plan(split.val, BuildOptions()).list_lines()).decode().splitlines()
    assert lines == [f"{item.name} {item.label}" for item in split.val.items]
