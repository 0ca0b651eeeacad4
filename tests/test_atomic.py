"""Results appear whole or not at all."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from irv2caffe.atomic import atomic_file, atomic_folder, write_text
from irv2caffe.errors import OutputError, OutputExistsError


def test_file_appears_at_the_end_with_the_users_mode(tmp_path):
    path = tmp_path / "new" / "figure.png"
    with atomic_file(path) as aside:
        aside.write_text("whole")
        assert aside.suffix == ".png"
        assert not path.exists()
    assert path.read_text() == "whole"
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_failure_keeps_the_old(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with pytest.raises(FileNotFoundError), atomic_file(path) as aside:
        aside.write_text((tmp_path / "missing").read_text())
    assert path.read_text() == "old"
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "folder"):
        raise ZeroDivisionError
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


def test_folder_replaces_only_when_told(tmp_path):
    path = tmp_path / "folder"
    for text in ("first", "second"):
        with atomic_folder(path, force=True) as aside:
            (aside / "a").write_text(text)
        assert (path / "a").read_text() == text
    with pytest.raises(OutputExistsError), atomic_folder(path):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_unwritable_places(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.txt", tmp_path / "file" / "deeper" / "x.txt"):
        with pytest.raises(OutputError, match="cannot write"):
            write_text(path, "")
        with pytest.raises(OutputError, match="cannot write"), atomic_folder(path):
            pass


def test_what_a_killed_process_left_is_removed_and_a_living_ones_is_not(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from irv2caffe.atomic import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as aside:\n"
        "    (aside / 'big').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    living = tmp_path / f".partial-out-{platform.node()}-{os.getpid()}-x"
    living.mkdir()
    with atomic_folder(tmp_path / "out"):
        pass
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [living.name, "out"]


def test_what_was_replaced_is_removed_also_after_a_death_between_the_renamings(tmp_path):
    code = (
        "import os, sys; from pathlib import Path\n"
        "from irv2caffe.atomic import atomic_folder\n"
        "rename = Path.rename\n"
        "def dying(self, target): rename(self, target); os.kill(os.getpid(), 9)\n"
        "with atomic_folder(Path(sys.argv[1]), force=True) as aside:\n"
        "    (aside / 'new').write_text('x'); Path.rename = dying"
    )
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").write_text("x")
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert not path.exists()
    assert len(list(tmp_path.glob(".partial-old-out-*/out/old"))) == 1
    with atomic_folder(path) as aside:
        (aside / "new").write_text("x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    assert [entry.name for entry in path.iterdir()] == ["new"]


@pytest.mark.slow
def test_what_came_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "out"

    def come():
        path.mkdir()
        (path / "thesis.tex").write_text("years of work")

    with pytest.raises(OutputExistsError), atomic_folder(path):
        come()
    assert (path / "thesis.tex").read_text() == "years of work"
