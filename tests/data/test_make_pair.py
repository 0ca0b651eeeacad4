"""make-lmdb --val-fraction: two databases in one run, against convert_imageset, after kills."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.program import run
from helpers.training_jobs import child_of_test, database_contents
from PIL import Image

from irv2caffe import system
from irv2caffe.caffe.command import tool_command
from irv2caffe.data.build import build_plan, writer
from irv2caffe.data.build.make_lmdb import Augment, BuildOptions, make_lmdb
from irv2caffe.data.build.make_pair import check_pair, make_pair
from irv2caffe.data.build.partial import partial_folder
from irv2caffe.data.inspect.database import read_database, read_pair
from irv2caffe.data.records.items import Item, Items
from irv2caffe.data.sources import open_source
from irv2caffe.data.split.contents import equal_images
from irv2caffe.data.split.split import split_source
from irv2caffe.errors import InputError, OutputError, OutputExistsError, UsageError

pytestmark = pytest.mark.slow

COUNTS = {"ant": 40, "bee": 17, "cow": 4, "dog": 1}
CIFAR = ROOT.parent / "shared/data/cifar-100"
PATIENCE_S = 500  # only a run that hangs takes as long, on a busy machine too


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Unbalanced class folders; one file is bad, and some repeat others."""
    root = tmp_path_factory.mktemp("pair") / "pictures"
    rng = np.random.default_rng(0)
    for name, count in COUNTS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (30, 40, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02d}.png")
    (root / "ant/text.png").write_text("words")
    for number in range(3):
        shutil.copy(root / f"ant/0{number}.png", root / f"ant/copy {number}.png")
    shutil.copy(root / "ant/20.png", root / "bee/copy.png")
    return root


def records(folder):
    with lmdb.open(str(folder), readonly=True, lock=False) as database, database.begin() as view:
        return list(view.cursor())


def by_hand(caffe, database, root, out):
    """The records that convert_imageset makes of a database's list.txt."""
    flags = ["-backend", "lmdb", "-resize_height", "24", "-resize_width", "32"]
    paths = [f"{root}/", str(database / "list.txt"), str(out)]
    command = tool_command(caffe, "convert_imageset", [*flags, *paths])
    subprocess.run(command.argv, env=command.env, check=True, capture_output=True)
    return records(out)


def pair(pictures, folder, *args):
    size = ("--resize", "32x24", "--val-fraction", "0.2")
    return run("make-lmdb", pictures, "train_lmdb", *size, *args, cwd=folder)


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """The report and the folder of a pair that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    done = pair(pictures, folder, "--balance", "--copies", "2", "--json")
    assert done.returncode == 3, done.stderr
    return json.loads(done.stdout), folder, done.stderr


def test_both_sides_equal_convert_imageset(caffe, pictures, whole, tmp_path):
    """Record by record and key by key, the training side balanced and in two copies."""
    _, folder, _ = whole
    for name, count in (("train_lmdb", 4 * 35 * 2), ("val_lmdb", 9 + 4 + 1)):
        ours = records(folder / name)
        assert ours == by_hand(caffe, folder / name, pictures, tmp_path / name)
        lines = (folder / name / "list.txt").read_text().splitlines()
        assert len(lines) == count
    train, val = read_pair(folder / "train_lmdb", folder / "val_lmdb")
    assert train.class_names == val.class_names == tuple(COUNTS)
    assert sum(train.class_counts) == train.num_records == 280 - 2 * bad_records(folder)
    assert val.class_counts == (9, 4, 1, 0)


def bad_records(folder):
    """Records of the bad file in each copy; none where it was set aside."""
    return (folder / "train_lmdb/list.txt").read_text().count("text.png") // 2


def test_report_of_a_pair(whole):
    told, folder, errors = whole
    assert list(told) == ["train", "val", "num_duplicates", "notes", "findings"]
    assert (told["train"]["out"], told["val"]["out"]) == ("train_lmdb", "val_lmdb")
    assert told["num_duplicates"] == 4
    assert told["train"]["num_images"] == len(records(folder / "train_lmdb"))
    assert told["val"]["num_images"] == len(records(folder / "val_lmdb"))
    assert told["notes"][0].endswith("too few different images to set one aside: dog")
    assert "ant/00.png = ant/copy 0.png" in told["notes"][1]
    (finding,) = told["train"]["findings"]
    assert "ant/20.png (ant) = bee/copy.png (bee)" in finding
    assert f"finding: {finding}" in errors
    assert "listed in train_lmdb/duplicates.csv" in errors
    rows = [line.split(",") for line in (folder / "train_lmdb/duplicates.csv").open()]
    assert rows[0] == ["group", "path", "label", "part\n"]
    assert len(rows) == 1 + 8
    sides = {}
    for group, _, _, part in rows[1:]:
        assert sides.setdefault(group, part) == part
    assert not (folder / "val_lmdb/duplicates.csv").exists()
    manifests = [
        json.loads((folder / name / "manifest.json").read_text())
        for name in ("train_lmdb", "val_lmdb")
    ]
    assert [manifest["shuffled"] for manifest in manifests] == [True, False]
    assert [manifest["part"]["name"] for manifest in manifests] == ["train", "val"]
    assert manifests[0]["part"]["val_fraction"] == 0.2
    assert manifests[0]["images_per_label_before"] == {"0": 35, "1": 14, "2": 3, "3": 1}
    assert manifests[0]["options"]["balance"]
    assert not manifests[1]["options"]["balance"]


def test_validation_is_plain_whatever_training_is(pictures, whole, tmp_path):
    _, folder, _ = whole
    args = ("--augment", "inception", "--copies", "3", "--shuffle", "--val-out", "other")
    assert pair(pictures, tmp_path, *args).returncode == 3
    wanted = database_contents(folder / "val_lmdb")
    assert database_contents(tmp_path / "other") == wanted
    keys = [key.decode()[9:] for key, _ in records(tmp_path / "other")]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert len(records(tmp_path / "train_lmdb")) == 3 * (53 - bad_records(folder))


def test_dry_run_tells_both(pictures, whole, tmp_path):
    told, folder, _ = whole
    args = ("--balance", "--copies", "2", "--dry-run")
    done = pair(pictures, tmp_path, *args, "--json")
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
    plan = json.loads(done.stdout)
    assert plan["val_out"] == "val_lmdb"
    assert (plan["train"]["num_records"], plan["val"]["num_records"]) == (280, 14)
    assert plan["notes"] == told["notes"]
    assert plan["findings"] == told["train"]["findings"]
    text = pair(pictures, tmp_path, *args).stdout
    assert "14 of them for validation (20 % of each class, seed 1)" in text
    assert "train_lmdb: 280 records, shuffled, about" in text
    assert "val_lmdb: 14 records, in order, about" in text
    assert "note: balanced: 70 records of each class" in text
    assert folder != tmp_path


def test_backend_convert_imageset_makes_the_same_pair(caffe, pictures, whole, tmp_path):
    _, folder, _ = whole
    args = ("--balance", "--copies", "2", "--backend", "convert_imageset")
    done = pair(pictures, tmp_path, *args)
    assert done.returncode == 3, done.stderr
    for name in ("train_lmdb", "val_lmdb"):
        assert records(tmp_path / name) == records(folder / name)
        for file in ("list.txt", "labels.txt"):
            assert (tmp_path / name / file).read_bytes() == (folder / name / file).read_bytes()
    before = (tmp_path / "val_lmdb/data.mdb").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "train_lmdb")
    done = pair(pictures, tmp_path, *args)
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "val_lmdb/data.mdb").stat().st_mtime_ns == before
    refused = pair(pictures, tmp_path, "--val-out", "v", *args, "--augment", "inception")
    assert (refused.returncode, "convert_imageset has no --augment" in refused.stderr) == (2, True)
    assert not (tmp_path / "v").exists()


RUN = """
import sys
from irv2caffe.data.build import build_plan, writer
writer.COMMIT_RECORDS = 16
build_plan._UNIT_BYTES = 16 << 10
from irv2caffe.cli import run
sys.exit(run(["make-lmdb", *sys.argv[1:]]))
"""


def start(pictures, folder, *args):
    command = [sys.executable, "-c", RUN, str(pictures), "train_lmdb", "--resize", "32x24"]
    command += ["--val-fraction", "0.2", "--balance", "--copies", "2", *args]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return child_of_test(command, cwd=folder, **streams)


def both(folder):
    return {name: database_contents(folder / name) for name in ("train_lmdb", "val_lmdb")}


def test_kills_end_with_the_same_bytes(pictures, tmp_path):
    (tmp_path / "wanted").mkdir()
    with start(pictures, tmp_path / "wanted") as child:
        _, errors = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 3, errors
    wanted = both(tmp_path / "wanted")
    rng = random.Random(3)
    killed = 0
    for _ in range(5):
        with start(pictures, tmp_path) as child:
            try:
                child.communicate(timeout=rng.uniform(0.4, 1.3))
            except subprocess.TimeoutExpired:
                child.kill()
                killed += 1
        if (tmp_path / "train_lmdb").exists():
            assert both(tmp_path) == wanted
            shutil.rmtree(tmp_path / "train_lmdb")
            shutil.rmtree(tmp_path / "val_lmdb", ignore_errors=rng.random() < 0.5)
    with start(pictures, tmp_path) as child:
        _, errors = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 3, errors
    assert both(tmp_path) == wanted
    assert killed
    assert not list(tmp_path.glob("*.partial"))


@pytest.fixture
def job(pictures):
    """A pair in this process; what is built is noted."""
    options = BuildOptions(size=(32, 24), workers=1)
    built = []

    def build_both(folder, *, force=False, resume=True, seed=1, dies_at=None, options=options):
        split = split_source(open_source(pictures), 0.2, seed)

        def build(source, out, wanted):
            if out.name == dies_at:
                raise KeyboardInterrupt
            built.append(out.name)
            return make_lmdb(source, out, wanted, force=force, resume=resume)

        check_pair(split.train, folder / "train", folder / "val", force=force)
        report = make_pair(
            split, folder / "train", folder / "val", options, build, force=force, resume=resume
        )
        done = built[:]
        built.clear()
        return done, report

    return SimpleNamespace(both=build_both, built=built)


def test_an_interrupted_pair_goes_on(job, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        job.both(tmp_path, dies_at="train")
    job.built.clear()
    with pytest.raises(OutputExistsError, match="val already exists"):
        job.both(tmp_path, seed=2)  # another division
    with pytest.raises(OutputExistsError, match="val already exists"):
        job.both(tmp_path, resume=False)
    done, report = job.both(tmp_path)
    assert done == ["train"]
    assert (report.val.resumed_at, report.train.resumed_at) == (14, 0)
    with pytest.raises(OutputExistsError, match="train already exists"):
        job.both(tmp_path)
    shutil.rmtree(tmp_path / "val")
    assert job.both(tmp_path)[0] == ["val"]


def test_an_unfinished_database_of_all_images_is_refused_first(
    job, pictures, tmp_path, monkeypatch
):
    """As of a user who began with the whole source, and then thinks of validation."""

    def stop(done, _total):
        if done >= 16:
            raise KeyboardInterrupt

    whole = BuildOptions(size=(328, 328), workers=1)
    monkeypatch.setattr(writer, "COMMIT_RECORDS", 4)
    monkeypatch.setattr(build_plan, "_UNIT_BYTES", 1 << 20)
    with pytest.raises(KeyboardInterrupt):
        make_lmdb(open_source(pictures), tmp_path / "train", whole, progress=stop)
    assert partial_folder(tmp_path / "train").is_dir()
    with pytest.raises(OutputExistsError, match="number of images, val_fraction, size differ"):
        job.both(tmp_path)
    assert not (tmp_path / "val").exists()
    assert job.both(tmp_path, resume=False)[0] == ["val", "train"]


def test_force_replaces_both(job, tmp_path):
    job.both(tmp_path)
    assert job.both(tmp_path, force=True, seed=2)[0] == ["val", "train"]
    assert job.both(tmp_path, force=True, seed=2)[0] == ["val", "train"]
    (tmp_path / "val/mine.txt").write_text("of the user")
    with pytest.raises(OutputExistsError, match="holds other files too"):
        job.both(tmp_path, force=True)
    assert (tmp_path / "val/mine.txt").exists()


def test_a_finished_half_of_changed_images_is_refused(pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "pictures")
    split = split_source(open_source(tmp_path / "pictures"), 0.2, 1)
    options = BuildOptions(size=(32, 24), workers=1)
    make_lmdb(split.val, tmp_path / "val", options.for_validation())
    for item in split.val.items:
        turned = Image.open(tmp_path / "pictures" / item.name).rotate(180)
        turned.save(tmp_path / "pictures" / item.name)
    split = split_source(open_source(tmp_path / "pictures"), 0.2, 1)
    with pytest.raises(OutputExistsError, match="holds other records than the images give now"):
        make_pair(split, tmp_path / "train", tmp_path / "val", options, make_lmdb)
    assert not (tmp_path / "train").exists()


def test_space_for_both_is_looked_for_first(job, tmp_path, monkeypatch):
    free = 300 << 10  # enough for either, not for both
    monkeypatch.setattr(system, "free_bytes", lambda _path: free)
    with pytest.raises(OutputError, match=r"are needed for .*train and .*val, 307.2 kB are free"):
        job.both(tmp_path, options=BuildOptions(size=(32, 24), copies=2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "val_out"),
    [("a", "a"), ("a", "a/val"), ("a/train", "a"), ("a", "a.partial"), ("a.partial/b", "a")],
)
def test_outputs_in_each_other(pictures, tmp_path, out, val_out):
    with pytest.raises(UsageError, match="neither of them in the other"):
        check_pair(open_source(pictures), tmp_path / out, tmp_path / val_out, force=True)


def test_outputs_among_the_class_folders(pictures, tmp_path):
    for outs in ((pictures / "x", tmp_path / "y"), (tmp_path / "x", pictures / "y")):
        with pytest.raises(OutputError, match="among the class folders"):
            check_pair(open_source(pictures), *outs, force=False)


def test_a_class_whose_validation_images_are_bad_is_a_finding(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((8, 8, 3), 20 * number + len(name), np.uint8)
            pixels[0, 0] = (name == "cat", number, 0)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    split = split_source(open_source(tmp_path / "pictures"), 0.2, 1)
    (cat, _) = split.val.items
    (tmp_path / "pictures" / cat.name).write_text("words")
    done = run("make-lmdb", "pictures", "train", "--val-fraction", 0.2, cwd=tmp_path)
    assert done.returncode == 3
    assert "finding: no validation image of 1 class(es) can be read: cat" in done.stderr
    assert "next: irv2caffe build-net --out net --train-lmdb train --val-lmdb " in done.stderr
    again = ("make-lmdb", "pictures", "train", "--val-fraction", 0.2, "--force", "--max-skipped")
    assert run(*again, 0, cwd=tmp_path).returncode == 1
    (tmp_path / "pictures/dog/bad.png").write_text("more words")
    assert run(*again, 1, cwd=tmp_path).returncode == 1  # one of each part
    assert run(*again, 2, cwd=tmp_path).returncode == 3


def test_options_that_do_not_go_together(pictures, tmp_path):
    alone = run("make-lmdb", pictures, "out", "--val-out", "val", cwd=tmp_path)
    assert (alone.returncode, "goes with --val-fraction" in alone.stderr) == (2, True)
    share = run("make-lmdb", pictures, "out", "--val-fraction", "10", cwd=tmp_path)
    assert (share.returncode, "between 0 and 1" in share.stderr) == (2, True)
    for outs in ([".", "--val-fraction", 0.1], ["out", "--val-fraction", 0.1, "--val-out", ".."]):
        nameless = run("make-lmdb", pictures, *outs, cwd=tmp_path)
        assert (nameless.returncode, "name a new folder" in nameless.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_lists_with_and_without_names(pictures, tmp_path):
    lines = [
        f"{path.relative_to(pictures)} {label}\n"
        for label, name in enumerate(COUNTS)
        for path in sorted((pictures / name).iterdir())
        if path.name != "text.png"
    ]
    (tmp_path / "list.txt").write_text("".join(lines))
    (tmp_path / "names.txt").write_text("\n".join(COUNTS))
    args = ("--list", "list.txt", "--val-fraction", "0.2", "--resize", "32x24")
    plain = run("make-lmdb", pictures, "train", *args, cwd=tmp_path)
    assert "note: the classes have no names: --labels FILE gives them" in plain.stderr
    assert not (tmp_path / "train/labels.txt").exists()
    args = ("make-lmdb", pictures, "train", *args, "--labels", "names.txt", "--force")
    named = run(*args, cwd=tmp_path)
    assert named.returncode == 3, named.stderr  # the copy of another class
    assert "no names" not in named.stderr
    tables = {(tmp_path / name / "labels.txt").read_text() for name in ("train", "val")}
    assert tables == {"ant\nbee\ncow\ndog\n"}


def test_names_with_line_breaks_have_no_list(tmp_path):
    (tmp_path / "x").mkdir()
    for number in range(4):
        image = Image.fromarray(np.full((8, 8, 3), number, np.uint8))
        image.save(tmp_path / "x" / f"line\n{number}.png")
    split = split_source(open_source(tmp_path), 0.5, 1)
    make_pair(split, Path(f"{tmp_path}-t"), Path(f"{tmp_path}-v"), BuildOptions(), make_lmdb)
    assert not Path(f"{tmp_path}-v/list.txt").exists()
    assert read_database(Path(f"{tmp_path}-v")).num_records == 2


def test_augmented_repeats_have_crops_of_their_own(pictures, tmp_path):
    source = open_source(pictures)
    options = BuildOptions(size=(32, 24), balance=True, augment=Augment(color=False))
    make_lmdb(source, tmp_path / "db", options)
    by_name = Counter(key.decode()[9:] for key, _ in records(tmp_path / "db"))
    assert by_name["dog/00.png"] > 40
    values = {value for key, value in records(tmp_path / "db") if key.endswith(b"dog/00.png")}
    assert len(values) == by_name["dog/00.png"]


@pytest.mark.skipif(not CIFAR.is_dir(), reason="CIFAR-100 is not in ../shared/data")
def test_cifar_100_with_unbalanced_classes(caffe, tmp_path):
    """Three classes of 300, 100 and 30 real images, as a tar and as folders."""
    wanted = {"apple": 300, "bee": 100, "crab": 30}
    taken = Counter()
    with (
        tarfile.open(CIFAR / "train.tar") as archive,
        tarfile.open(tmp_path / "c.tar", "w") as part,
    ):
        for member in archive:
            name = member.name.partition("/")[0]
            if member.isfile() and taken[name] < wanted.get(name, 0):
                taken[name] += 1
                part.addfile(member, archive.extractfile(member))
            if taken == wanted:
                break
    with tarfile.open(tmp_path / "c.tar") as archive:
        archive.extractall(tmp_path / "folders", filter="data")
    args = ("--resize", "32x24", "--val-fraction", "0.1", "--balance")
    for source, out in (("c.tar", "tar_train"), ("folders", "train")):
        done = run("make-lmdb", source, out, *args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert read_database(tmp_path / "val").class_counts == (30, 10, 3)
    assert read_database(tmp_path / "train").class_counts == (270, 270, 270)
    for name in ("val", "train"):
        ours = records(tmp_path / name)
        assert records(tmp_path / f"tar_{name}") == ours
        assert ours == by_hand(
            caffe, tmp_path / name, tmp_path / "folders", tmp_path / f"{name} it"
        )


@pytest.mark.skipif(not CIFAR.is_dir(), reason="CIFAR-100 is not in ../shared/data")
def test_equal_images_of_the_whole_cifar_100():
    """Against hashes of all 50,000 files."""
    names = defaultdict(list)
    with tarfile.open(CIFAR / "train.tar") as archive:
        for member in archive:
            if member.isfile():
                names[hashlib.sha256(archive.extractfile(member).read()).digest()].append(
                    member.name
                )
    wanted = sorted(sorted(group) for group in names.values() if len(group) > 1)
    source = open_source(CIFAR / "train.tar")
    groups = equal_images(source)
    found = sorted(sorted(source.items[index].name for index in group) for group in groups)
    assert found == wanted
    split = split_source(source, 0.1, 1)
    assert split.num_duplicates == sum(len(group) - 1 for group in wanted) == 14
    classes = [{name.partition("/")[0] for name in group} for group in wanted]
    mixed = [group for group, found in zip(wanted, classes, strict=True) if len(found) > 1]
    assert split.findings[0].startswith(f"{sum(map(len, mixed))} images have the bytes")
    held = {item.name for item in split.val.items}
    assert all(held.isdisjoint(group) or held.issuperset(group) for group in wanted)
    assert set(Counter(split.val.items.labels).values()) == {50}


def test_a_lost_image_is_no_duplicate(pictures, tmp_path):
    """Images that disappear while they are compared are left to the build, which skips them."""
    (tmp_path / "list.txt").write_text("gone/1.png 0\ngone/2.png 0\nant/00.png 0\nant/01.png 0\n")
    source = open_source(pictures, tmp_path / "list.txt")
    assert split_source(source, 0.5, 1).num_duplicates == 0
    with pytest.raises(InputError, match="cannot read"):
        split_source(lost_disk(source), 0.5, 1)


def lost_disk(source):
    """A source whose archive is a folder: reading it fails, as a failing disk does."""
    items = Items()
    for number in range(2):
        items.add(Item(f"{number}.png", 0, 0, number, 1))
    descriptor = os.open("/proc/self/mem", os.O_RDONLY)  # its first page gives EIO
    store = os.fdopen(descriptor, "rb", buffering=0)
    return replace(source, items=items, stores=(store,))
