"""Unpacking, compared with dpkg-deb and tar."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import zipfile

import pytest

from irv2caffe.caffe.build_cuda.unpack import unpack_deb, unpack_source, unpack_wheel
from irv2caffe.errors import InstallError


def contents(folder):
    """What lies in a folder: kind, permission to run, contents or target."""
    seen = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            seen[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            seen[name] = ("folder",)
        else:
            seen[name] = ("file", bool(path.stat().st_mode & 0o100), path.read_bytes())
    return seen


@pytest.fixture
def package(tmp_path):
    """A Debian package with programs, libraries, links and a manual page, made by dpkg-deb."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    tree = tmp_path / "tree"
    for name in (
        "DEBIAN/control",
        "usr/bin/tool",
        "usr/lib/liba.so.1",
        "usr/share/man/man1/tool.1",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    (tree / "usr/share/doc/a").mkdir(parents=True)
    (tree / "usr/share/doc/a/copyright").write_text("license")
    (tree / "usr/share/doc/a/changelog").write_text("changes")
    (tree / "usr/bin/tool").chmod(0o755)
    (tree / "usr/lib/liba.so").symlink_to("liba.so.1")
    (tree / "usr/lib/libb.so").symlink_to("/usr/lib/liba.so.1")
    (tree / "usr/bin/same").hardlink_to(tree / "usr/bin/tool")
    (tree / "DEBIAN/control").write_text(
        "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: a\n"
    )
    path = tmp_path / "a.deb"
    command = ["dpkg-deb", "-Zxz", "--root-owner-group", "-b", str(tree), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def test_debian_package(tmp_path, package):
    unpack_deb(package, tmp_path / "ours")
    subprocess.run(["dpkg-deb", "-x", package, tmp_path / "theirs"], check=True)
    ours, theirs = contents(tmp_path / "ours"), contents(tmp_path / "theirs")
    assert theirs["usr/lib/libb.so"] == ("link", "/usr/lib/liba.so.1")
    assert ours["usr/lib/libb.so"] == ("link", "liba.so.1")  # stays in the tree
    left_out = {name for name in theirs if "/man/" in name or name.endswith("changelog")}
    assert left_out
    same = theirs.keys() - left_out - {"usr/lib/libb.so"}
    assert {name: ours.get(name) for name in same} == {name: theirs[name] for name in same}
    assert not ours.keys() & left_out
    unpack_deb(package, tmp_path / "ours")  # again, over the files
    assert contents(tmp_path / "ours") == ours


def test_moved_files(tmp_path, package):
    unpack_deb(package, tmp_path / "ours", {"usr/lib/liba.so.1": "lib/a"}.get)
    assert [name for name, (kind, *_) in contents(tmp_path / "ours").items() if kind == "file"] == [
        "lib/a"
    ]


def test_damaged_packages(tmp_path, package):
    whole = package.read_bytes()
    (tmp_path / "bad.deb").write_bytes(b"no package")
    with pytest.raises(InstallError, match="not a Debian package"):
        unpack_deb(tmp_path / "bad.deb", tmp_path / "x")
    (tmp_path / "bad.deb").write_bytes(whole[:200])
    with pytest.raises(InstallError):
        unpack_deb(tmp_path / "bad.deb", tmp_path / "x")
    start = whole.index(b"data.tar.xz") + 60
    for damaged in (whole[: start + 100], whole[: start + 60] + bytes(200) + whole[start + 260 :]):
        (tmp_path / "bad.deb").write_bytes(damaged)
        with pytest.raises(InstallError, match="damaged"):
            unpack_deb(tmp_path / "bad.deb", tmp_path / "x")


def source(path, *names):
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"text"))
    return path


def test_source(tmp_path):
    unpack_source(source(tmp_path / "s.tar.gz", "./Makefile", "src/a.cpp"), tmp_path / "s")
    assert contents(tmp_path / "s") == {
        "Makefile": ("file", False, b"text"),
        "src": ("folder",),
        "src/a.cpp": ("file", False, b"text"),
    }
    for evil in ("../outside", "/outside", "src/../../outside"):
        with pytest.raises(InstallError, match="outside"):
            unpack_source(source(tmp_path / "evil.tar.gz", evil), tmp_path / "t")
        assert not (tmp_path / "outside").exists()


def test_wheel(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as wheel:
        for name in (
            "nvidia/cu13/bin/nvcc",
            "nvidia/cublas/lib/libcublas.so.12",
            "nvidia/__init__.py",
        ):
            wheel.writestr(name, name)
        wheel.writestr("nvidia_cublas-12.dist-info/METADATA", "")
        wheel.writestr("nvidia/x/../../outside", "")
    with pytest.raises(InstallError, match="outside"):
        unpack_wheel(tmp_path / "w.whl", tmp_path / "cuda")
    seen = contents(tmp_path / "cuda")
    assert seen["bin/nvcc"] == ("file", True, b"nvidia/cu13/bin/nvcc")
    assert seen["lib/libcublas.so.12"][1] is False
    assert set(seen) == {"bin", "bin/nvcc", "lib", "lib/libcublas.so.12"}
