"""Pinned downloads: from a web server that fails in its ways, and with the real pip."""

from __future__ import annotations

import hashlib
import http.server
import threading
import zipfile
from contextlib import contextmanager
from functools import partial

import pytest

from irv2caffe.caffe.build_cuda.download import download, missing_packages
from irv2caffe.caffe.build_cuda.packages import (
    Package,
    cuda_packages,
    debian_packages,
    packages,
)
from irv2caffe.caffe.build_cuda.variant import Variant
from irv2caffe.errors import InstallError

CONTENT = {f"pool/{name}.deb": name.encode() * 1000 for name in ("a", "b", "c+d~1")}


def pinned(place, content):
    return Package("run", len(content), hashlib.sha256(content).hexdigest(), place)


DEBS = [pinned(place, content) for place, content in CONTENT.items()]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class Broken(Quiet):
    """Says how long a file is, sends half of it, and closes the connection."""

    def copyfile(self, source, outputfile):
        outputfile.write(source.read(500))
        self.close_connection = True


@contextmanager
def served(folder, handler=Quiet):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def mirror(tmp_path):
    for place, content in CONTENT.items():
        path = tmp_path / "mirror" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with served(tmp_path / "mirror") as url:
        yield url


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_all_arrive_and_are_kept(tmp_path, mirror):
    seen = []
    download(DEBS, tmp_path / "got", [mirror], update=lambda *numbers: seen.append(numbers))
    assert names(tmp_path / "got") == ["a.deb", "b.deb", "c+d~1.deb"]
    assert (tmp_path / "got/c+d~1.deb").read_bytes() == CONTENT["pool/c+d~1.deb"]
    assert seen[-1] == (3, 3)
    assert missing_packages(DEBS, tmp_path / "got") == []
    download(DEBS, tmp_path / "got", ["http://127.0.0.1:9"])  # nobody is asked


def test_a_second_mirror(tmp_path, mirror):
    download(DEBS, tmp_path / "got", ["http://127.0.0.1:9", f"{mirror}/moved", mirror])
    assert missing_packages(DEBS, tmp_path / "got") == []


def test_connection_lost_in_the_middle(tmp_path, mirror):
    with served(tmp_path / "mirror", Broken) as broken:
        with pytest.raises(InstallError) as caught:
            download(DEBS, tmp_path / "got", [broken])
        assert "--second-mirror" in caught.value.hint
        assert names(tmp_path / "got") == []  # no half of a file
        download(DEBS, tmp_path / "got", [mirror])  # the next run goes on
    assert missing_packages(DEBS, tmp_path / "got") == []


def test_another_file_than_the_pinned_one(tmp_path, mirror):
    other = tmp_path / "mirror/pool/b.deb"
    other.write_bytes(b"X" * other.stat().st_size)
    with pytest.raises(InstallError, match=r"b\.deb.*SHA-256 differs"):
        download(DEBS, tmp_path / "got", [mirror])
    assert "b.deb" not in names(tmp_path / "got")
    other.write_bytes(b"b" * 10_000_000)  # not read to its end
    with pytest.raises(InstallError, match="differs"):
        download(DEBS, tmp_path / "got", [mirror])


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A folder that pip uses as its only package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "nvidia_tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("nvidia/tiny/lib/libtiny.so.1", "library")
        info = "nvidia_tiny-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: nvidia-tiny\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.mark.slow
def test_pip(tmp_path, wheels):
    content = (wheels / "nvidia_tiny-1.0-py3-none-any.whl").read_bytes()
    said = []
    download([pinned("nvidia-tiny==1.0", content)], tmp_path / "got", [], say=said.append)
    assert (tmp_path / "got/nvidia-tiny-1.0.whl").read_bytes() == content
    assert names(tmp_path / "got") == ["nvidia-tiny-1.0.whl"]
    assert said == ["downloading nvidia-tiny==1.0, 0 MB (1 of 1)"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nvidia-tiny==1.0", "is not the pinned file"),
        ("nvidia-tiny==2.0", "pip cannot download nvidia-tiny==2.0.*No matching distribution"),
    ],
)
def test_pip_refuses(tmp_path, wheels, place, message):
    with pytest.raises(InstallError, match=message):
        download([pinned(place, b"another file")], tmp_path / "got", [])
    assert names(tmp_path / "got") == []


def test_no_pip(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InstallError, match="pip is missing"):
        download([pinned("nvidia-tiny==1.0", b"")], tmp_path / "got", [])


def test_pins():
    """Every pin is complete; what only one CUDA needs is in its own list."""
    for listed in (debian_packages(), cuda_packages(12), cuda_packages(13)):
        assert len({package.name for package in listed}) == len(listed)
        for package in listed:
            assert package.role in {"run", "build", "source"}
            assert len(package.sha256) == 64
            assert package.size_bytes > 500
    assert sum(package.role == "source" for package in debian_packages()) == 1
    for cuda in (12, 13):
        run = {p.place.split("==")[0] for p in cuda_packages(cuda) if p.role == "run"}
        assert len(run) == 4  # cudart, cuBLAS, cuRAND, NCCL
        assert set(cuda_packages(cuda)) < set(packages(Variant(cuda, (90,))))
    # Caffe for the CPU is not among what is installed beside the new one.
    assert not any(
        "caffe" in package.name for package in debian_packages() if package.role == "run"
    )
