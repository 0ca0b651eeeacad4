"""CRC-32C, by which TensorFlow knows a damaged checkpoint; zlib has only the other polynomial.

A register's step is linear, so thousands of parts of the data go through it side by side in numpy,
and are put together by what the following zeros do to a register.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected
_ALL_ONES = 0xFFFFFFFF
_MAX_LANES = 2048
_MIN_LANES, _MIN_LANE_BYTES = 16, 1024  # for less, the start costs more than it saves


@cache
def _table(bits: int) -> NDArray[np.uint32]:
    """What the lowest 8 or 16 bits of a register turn into."""
    import numpy as np

    table = np.arange(1 << bits, dtype=np.uint32)
    for _ in range(bits):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of ``data``."""
    import numpy as np

    values = np.frombuffer(data, np.uint8)
    register = _ALL_ONES
    lanes = min(_MAX_LANES, len(values) // _MIN_LANE_BYTES)
    if lanes >= _MIN_LANES:
        width = len(values) // lanes & ~1
        parts, zeros = _run(values[: lanes * width].reshape(lanes, width))
        for part in parts.tolist():
            register = _through(register, zeros) ^ part
        values = values[lanes * width :]
    table = _table(8).tolist()
    for byte in values.tolist():
        register = table[(register ^ byte) & 0xFF] ^ register >> 8
    return register ^ _ALL_ONES


def _run(lanes: NDArray[np.uint8]) -> tuple[NDArray[np.uint32], list[int]]:
    """The registers after each lane, from zero; and what a lane of zeros does to each bit."""
    import numpy as np

    table, count = _table(16), len(lanes)
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    registers = np.concatenate([np.zeros(count, np.uint32), bits])
    for column in np.ascontiguousarray(lanes.view("<u2").T):
        registers[:count] ^= column
        registers = table[registers & 0xFFFF] ^ registers >> 16
    return registers[:count], registers[count:].tolist()


def _through(register: int, zeros: list[int]) -> int:
    """A register after as many zeros as a lane is long."""
    after = 0
    for bit in range(32):
        if register >> bit & 1:
            after ^= zeros[bit]
    return after


def masked(checksum: int) -> int:
    """As TensorFlow stores it, so that a checksum of data with checksums is not degenerate."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & _ALL_ONES
