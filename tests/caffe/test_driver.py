"""The driver's libraries: found on the host, linked into a folder of their own."""

from __future__ import annotations

from irv2caffe.caffe.driver import LIBRARIES, driver_libraries, link_driver

ELF64, ELF32 = b"\x7fELF\x02...", b"\x7fELF\x01..."


def host(folder, *names, content=ELF64):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(content)
    return str(folder)


def test_the_first_folder_counts(tmp_path):
    wsl = host(tmp_path / "wsl", "libcuda.so.1", "libdxcore.so")
    lib32 = host(tmp_path / "lib32", *LIBRARIES, content=ELF32)
    lib = host(tmp_path / "lib", "libcuda.so.1", "libnvidia-ml.so.1", "libc.so.6")
    assert driver_libraries([wsl, lib32, lib, "/none"]) == {
        "libcuda.so.1": tmp_path / "wsl/libcuda.so.1",
        "libdxcore.so": tmp_path / "wsl/libdxcore.so",
        "libnvidia-ml.so.1": tmp_path / "lib/libnvidia-ml.so.1",
    }
    assert driver_libraries(["/none"]) == {}


def test_links_follow_the_host(tmp_path):
    folder = tmp_path / "caffe/drv"
    old = {"libcuda.so.1": tmp_path / "old/libcuda.so.1", "libdxcore.so": tmp_path / "old/d"}
    link_driver(folder, old)
    assert {path.name: path.readlink() for path in folder.iterdir()} == old
    before = folder.stat().st_mtime_ns
    link_driver(folder, old)
    assert folder.stat().st_mtime_ns == before  # nothing to do
    new = {"libcuda.so.1": tmp_path / "new/libcuda.so.1"}
    link_driver(folder, new)
    assert {path.name: path.readlink() for path in folder.iterdir()} == new


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    link_driver(tmp_path / "file/drv", {"libcuda.so.1": tmp_path / "libcuda.so.1"})
    assert (tmp_path / "file").is_file()
