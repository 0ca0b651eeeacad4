"""The command install-caffe --cuda up to the first download, and what its faults leave behind."""

from __future__ import annotations

import fcntl
import json

import pytest

from irv2caffe import system
from irv2caffe.caffe.gpu_host import Host
from irv2caffe.cli.main import run

HOPPER = Host((580, 82), (90,))


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A user on a machine with an H100; nothing is downloaded yet, and no mirror can be reached."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("IRV2CAFFE_MIRROR", "http://127.0.0.1:9/debian")
    monkeypatch.setattr("irv2caffe.caffe.gpu_host.read_host", lambda: HOPPER)
    return tmp_path


def installed(user):
    """What lies in the folder of installed Caffes, hidden files included."""
    folder = user / "data/irv2caffe"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_dry_run(user, capsys):
    assert run(["install-caffe", "--cuda", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "with CUDA 12.4, cuDNN 9.1.0.70 and NCCL, for compute capability 9.0 and newer" in out
    assert f"{user}/data/irv2caffe/caffe-1.0-cuda" in out
    assert "End User License Agreement" in out
    assert list(user.iterdir()) == []  # nothing is written


def test_dry_run_as_json(user, capsys):
    command = ["install-caffe", "--cuda", "13", "--arch", "8.0,90", "--jobs", "4", "--dry-run"]
    assert run([*command, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["cuda"], plan["archs"], plan["jobs"]) == ("13.0", [80, 90], 4)
    assert plan["mirrors"] == ["http://127.0.0.1:9/debian"]
    assert plan["present_bytes"] == 0
    assert 9e8 < plan["download_bytes"] < 2e9
    more_archs = ["--arch", "75,80,86,89,90,100"]
    assert run([*command[:3], *more_archs, "--jobs", "4", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compile_s"] > plan["compile_s"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--dry-run"], 2, "--dry-run goes with --cuda only"),
        (["--second-mirror", "http://a/debian"], 2, "--second-mirror goes with --cuda only"),
        (["--cuda", "--arch", "hopper"], 2, "expected compute capabilities"),
        (["--cuda", "12", "--arch", "120"], 2, "not supported by CUDA 12.4"),
        (["--cuda", "--second-mirror", "ftp://a"], 2, "not the URL of a mirror"),
        (["--cuda", "11"], 2, "'11' is not one of"),
    ],
)
def test_wrong_options(user, capsys, options, code, message):
    assert run(["install-caffe", *options]) == code
    assert message in capsys.readouterr().err
    assert list(user.iterdir()) == []


def test_no_network(user, capsys):
    assert run(["install-caffe", "--cuda"]) == 1
    said = capsys.readouterr().err
    assert "cannot be downloaded" in said
    assert "what has arrived is kept for the next run" in said
    assert "compile   about" in said  # the plan is shown first
    assert installed(user) == []


def test_small_disk(user, capsys, monkeypatch):
    monkeypatch.setattr(system, "free_bytes", lambda _: 3 << 30)
    assert run(["install-caffe", "--cuda"]) == 1
    said = capsys.readouterr().err
    assert "3.22 GB are free" in said
    assert "--build-dir" in said


def test_two_at_a_time(user, capsys):
    folder = user / "build"
    folder.mkdir()
    with (folder / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert run(["install-caffe", "--cuda", "--build-dir", str(folder)]) == 1
    assert "another install-caffe --cuda is at work" in capsys.readouterr().err


def test_an_earlier_install_is_not_touched(user, capsys):
    there = user / "data/irv2caffe/caffe-1.0-cuda"
    there.mkdir(parents=True)
    (there / "file").write_text("earlier")
    assert run(["install-caffe", "--cuda"]) == 1
    assert "already exists" in capsys.readouterr().err
    assert run(["install-caffe", "--cuda", "--force"]) == 1  # no network
    assert (there / "file").read_text() == "earlier"
    assert installed(user) == ["caffe-1.0-cuda"]


def test_a_build_folder_that_cannot_be_written(user, capsys):
    (user / "file").write_text("")
    assert run(["install-caffe", "--cuda", "--build-dir", str(user / "file/build")]) == 1
    assert "cannot write" in capsys.readouterr().err
