"""Sources that go away or change while a database is made of them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from helpers.training_jobs import database_contents
from PIL import Image

from irv2caffe.caffe.command import tool_command
from irv2caffe.data.build.convert_imageset import convert_imageset
from irv2caffe.data.build.make_lmdb import BuildOptions, make_lmdb
from irv2caffe.data.build.partial import partial_folder
from irv2caffe.data.build.resume_check import ChangedSourceError
from irv2caffe.data.build.side_files import read_skipped
from irv2caffe.data.sources import folders, open_source
from irv2caffe.errors import InputError

pytestmark = pytest.mark.slow

OPTIONS = BuildOptions(size=(96, 96), workers=2)
NUM_IMAGES = 400


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Commits and units small enough for a small set to have many of them."""
    from irv2caffe.data.build import build_plan, writer

    monkeypatch.setattr(writer, "COMMIT_BYTES", 1 << 20)
    monkeypatch.setattr(build_plan, "_UNIT_BYTES", 128 << 10)


def save_images(root, seed):
    rng = np.random.default_rng(seed)
    for number in range(NUM_IMAGES):
        path = root / ("ant", "bee")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(path)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("lost") / "images"
    save_images(root, 0)
    return root


@pytest.fixture
def images(original, tmp_path):
    """Two classes, 400 images, to be maltreated."""
    return shutil.copytree(original, tmp_path / "images")


def after(num_done, do):
    """A progress that does something once, when so many records are made."""
    waiting = [do]

    def progress(done, total):
        if done >= num_done and waiting:
            waiting.pop()()

    return progress


def rename_root(images):
    images.rename(images.with_name("gone"))


def replace_root(images):
    rename_root(images)
    (images / "ant").mkdir(parents=True)
    (images / "ant" / "other.jpg").write_bytes(b"")


def exchange_root(images):
    """Another version of the data set takes its place, with images of the same names."""
    rename_root(images)
    save_images(images, 1)


@pytest.mark.parametrize("lose", [rename_root, replace_root, exchange_root])
@pytest.mark.parametrize("num_done", [4, 200])
def test_a_root_that_goes_away_ends_the_job(images, original, tmp_path, lose, num_done):
    """The same command goes on when it is back."""
    out = tmp_path / "db"
    with pytest.raises(InputError, match="images is gone, or another one"):
        make_lmdb(open_source(images), out, OPTIONS, progress=after(num_done, lambda: lose(images)))
    assert not out.exists()
    shutil.rmtree(images, ignore_errors=True)
    images.with_name("gone").rename(images)
    report = make_lmdb(open_source(images), out, OPTIONS)
    assert (report.num_images, report.num_skipped) == (NUM_IMAGES, 0)
    assert report.resumed_at > 0 or num_done == 4
    make_lmdb(open_source(images), tmp_path / "whole", OPTIONS)
    assert database_contents(out) == database_contents(tmp_path / "whole")


def test_a_class_whose_disk_is_unmounted_ends_the_job(images, tmp_path):
    def unmount():
        (images / "bee").rename(tmp_path / "gone")
        (images / "bee").mkdir()

    with pytest.raises(InputError, match=r"cannot read bee/.*: its folder is gone, or empty now"):
        make_lmdb(open_source(images), tmp_path / "db", OPTIONS, progress=after(4, unmount))
    assert not (tmp_path / "db").exists()


def test_a_few_images_that_go_away_are_left_out(images, tmp_path):
    source = open_source(images)
    for number in (1, 2, 3):
        (images / ("ant", "bee")[number % 2] / f"{number}.jpg").unlink()
    report = make_lmdb(source, tmp_path / "db", OPTIONS)
    assert report.skipped == {"no such file": 3}


def test_links_to_a_disk_that_goes_away(images, tmp_path):
    links = tmp_path / "links"
    for path in images.glob("*/*.jpg"):
        (links / path.parent.name).mkdir(parents=True, exist_ok=True)
        (links / path.parent.name / path.name).symlink_to(path)
    source = open_source(links)
    with pytest.raises(InputError, match="100 images in a row cannot be found") as caught:
        make_lmdb(source, tmp_path / "db", OPTIONS, progress=after(4, lambda: rename_root(images)))
    assert "start over with --no-resume; --max-skipped N allows" in caught.value.hint
    images.with_name("gone").rename(images)
    report = make_lmdb(source, tmp_path / "db", OPTIONS, resume=False)
    assert (report.num_images, report.num_skipped) == (NUM_IMAGES, 0)
    shutil.rmtree(images / "ant")
    allowed = BuildOptions(size=(96, 96), shuffle=False, max_skipped=200)
    report = make_lmdb(source, tmp_path / "half", allowed)
    assert (report.num_images, report.num_skipped) == (200, 200)


def test_what_a_list_names_and_nobody_saw_is_left_out(images, tmp_path):
    lines = [f"lost/{number}.jpg 0\n" for number in range(150)]
    (tmp_path / "list.txt").write_text("".join([*lines, "bee/1.jpg 1\n"]))
    source = open_source(images, tmp_path / "list.txt")
    report = make_lmdb(source, tmp_path / "db", BuildOptions(size=(8, 8), shuffle=False))
    assert (report.num_images, report.num_skipped) == (1, 150)
    names = [str(path.relative_to(images)) for path in images.glob("*/*.jpg")]
    (tmp_path / "list.txt").write_text("".join(f"{name} 0\n" for name in names))
    source = open_source(images, tmp_path / "list.txt")
    with pytest.raises(InputError, match="images is gone, or another one"):
        make_lmdb(source, tmp_path / "x", OPTIONS, progress=after(4, lambda: rename_root(images)))


def test_a_class_that_goes_away_while_it_is_looked_for(images, monkeypatch):
    entries = folders._entries

    def lose(folder):
        found = entries(folder)
        if folder == images:
            shutil.rmtree(images / "bee")
        return found

    monkeypatch.setattr(folders, "_entries", lose)
    with pytest.raises(InputError, match=r"cannot read .*/bee: No such file") as caught:
        open_source(images)
    assert "is its disk still there?" in caught.value.hint


def test_the_tool_does_not_notice_but_we_do(caffe, images, tmp_path):
    tool = tool_command(caffe, "convert_imageset")
    source = open_source(images)
    script = f'mv {images} {images}.gone; exec "$@"'
    argv = ["bash", "-c", script, "bash", *tool.argv]
    with pytest.raises(InputError, match="images is gone, or another one than before"):
        convert_imageset(source, tmp_path / "db", OPTIONS, argv=argv, env=tool.env)
    assert not (tmp_path / "db").exists()


# Images that change between two processes


def interrupt():
    raise KeyboardInterrupt


@pytest.fixture
def begun(images, tmp_path):
    """An unfinished database of half of the images."""
    with pytest.raises(KeyboardInterrupt):
        make_lmdb(open_source(images), tmp_path / "db", OPTIONS, progress=after(200, interrupt))
    assert partial_folder(tmp_path / "db").exists()
    return images


def test_images_that_were_replaced_are_noticed(begun, tmp_path):
    out = tmp_path / "db"
    before = database_contents(partial_folder(out))
    save_images(begun, 1)
    with pytest.raises(ChangedSourceError, match="32 of 32 that were made again, ") as caught:
        make_lmdb(open_source(begun), out, OPTIONS)
    assert "start over with --no-resume or --force" in caught.value.hint
    assert database_contents(partial_folder(out)) == before
    make_lmdb(open_source(begun), tmp_path / "whole", OPTIONS)
    report = make_lmdb(open_source(begun), out, OPTIONS, force=True)
    assert report.resumed_at == 0
    assert database_contents(out) == database_contents(tmp_path / "whole")


def test_starting_over_takes_the_new_images(begun, tmp_path):
    save_images(begun, 1)
    make_lmdb(open_source(begun), tmp_path / "whole", OPTIONS)
    make_lmdb(open_source(begun), tmp_path / "db", OPTIONS, resume=False)
    assert database_contents(tmp_path / "db") == database_contents(tmp_path / "whole")


@pytest.mark.parametrize("force", [False, True])
def test_images_that_are_the_same_are_gone_on_with(begun, tmp_path, force):
    """Other times, as a copy has them, say nothing."""
    for path in begun.glob("*/*.jpg"):
        path.touch()
    report = make_lmdb(open_source(begun), tmp_path / "db", OPTIONS, force=force)
    assert report.resumed_at > 0
    make_lmdb(open_source(begun), tmp_path / "whole", OPTIONS)
    assert database_contents(tmp_path / "db") == database_contents(tmp_path / "whole")
    assert read_skipped(tmp_path / "db") == []
