"""Writes TensorFlow's tables and V2 checkpoints, for what its own savers were not asked to write.

The reader is tested against files of TensorFlow's own as well, in ``data/tf_checkpoints``.
"""

from __future__ import annotations

import struct

import cramjam
import google_crc32c

MAGIC = 0xDB4775248B80FB57


def crc32c_slowly(data):
    """Bit by bit, from the definition."""
    register = 0xFFFFFFFF
    for byte in bytes(data):
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(checksum):
    """As TensorFlow stores it."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def number(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def table(entries, *, compress=False, crc=crc32c_slowly, per_block=3):
    """The bytes of a table; keys of a block share what they can, one of each block is whole."""
    out, index = b"", []

    def block(pairs):
        nonlocal out
        content, last = b"", b""
        for key, value in pairs:
            shared = 0
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
            content += number(shared) + number(len(key) - shared) + number(len(value))
            content += key[shared:] + value
            last = key
        content += struct.pack("<II", 0, 1)
        if compress:
            content = bytes(cramjam.snappy.compress_raw(content))
        kind = b"\1" if compress else b"\0"
        handle = number(len(out)) + number(len(content))
        out += content + kind + struct.pack("<I", masked(crc(content + kind)))
        return handle

    entries = sorted(entries.items())
    for start in range(0, len(entries), per_block):
        part = entries[start : start + per_block]
        index.append((part[-1][0], block(part)))
    footer = block([]) + block(index)
    return out + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def field(index, value):
    """A field of a message: a number, or bytes."""
    if isinstance(value, int):
        return number(index << 3) + number(value)
    return number(index << 3 | 2) + number(len(value)) + value


def write_bundle(prefix, arrays):
    """A V2 checkpoint of float32 and int64 arrays in one shard."""
    data, entries = b"", {b"": field(1, 1)}
    for name, array in sorted(arrays.items()):
        values = array.tobytes()
        shape = b"".join(field(2, field(1, size)) for size in array.shape)
        kind = {"f": 1, "i": 9}[array.dtype.kind]
        entry = field(1, kind) + field(2, shape) + field(4, len(data)) + field(5, len(values))
        entries[name.encode()] = (
            entry + number(6 << 3 | 5) + struct.pack("<I", masked(google_crc32c.value(values)))
        )
        data += values
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    content = table(entries, crc=google_crc32c.value, per_block=200)
    prefix.with_name(f"{prefix.name}.index").write_bytes(content)
