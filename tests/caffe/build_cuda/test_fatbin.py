"""The GPU code in a file, from bytes laid out by hand."""

from __future__ import annotations

import struct

from irv2caffe.caffe.build_cuda.fatbin import code_in

MACHINE, PTX = 2, 1


def entry(kind, arch, code):
    """An entry: a header of 64 bytes, with the architecture at 28, and the code."""
    header = struct.pack("<HHIQ", kind, 0x101, 64, len(code)) + bytes(12) + struct.pack("<I", arch)
    return header.ljust(64, b"\0") + code


def fat(*entries):
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def test_code_of_all_parts(tmp_path):
    library = tmp_path / "lib.so"
    parts = (
        fat(entry(MACHINE, 80, b"code" * 10), entry(MACHINE, 90, b"code" * 99)),
        fat(entry(MACHINE, 80, b"c" * 8), entry(PTX, 90, b".version 8.4")),
    )
    library.write_bytes(b"\x7fELF" + bytes(1000) + parts[0] + bytes(40) + parts[1] + bytes(7))
    assert code_in(library) == ("compute_90", "sm_80", "sm_90")


def test_no_code_and_damage(tmp_path):
    library = tmp_path / "lib.so"
    library.write_bytes(b"\x7fELF" + bytes(1000))
    assert code_in(library) == ()
    whole = fat(entry(MACHINE, 80, b"code" * 10), entry(PTX, 90, b"x" * 50))
    for length in range(4, len(whole)):
        library.write_bytes(whole[:length])
        assert set(code_in(library)) <= {"sm_80", "compute_90"}
    # Lengths that point far outside.
    library.write_bytes(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 2**63) + bytes(64))
    assert code_in(library) == ()
