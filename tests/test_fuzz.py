"""Damaged files into every reader: each is read, or refused by an error of the program's own.

A minute of what ``scripts/fuzz`` does for as long as one likes.
"""

from __future__ import annotations

import pytest
from fuzz_pool import HANG, MEMORY, fuzz, try_one
from fuzz_readers import READERS

INPUTS = 700


@pytest.mark.parametrize("name", READERS)
def test_every_input_is_read_or_refused(name, tmp_path):
    tally = fuzz(name, inputs=max(20, int(INPUTS * READERS[name].share)), keep=tmp_path)
    assert not tally.failures, "\n".join(tally.words.values())
    assert 0 < tally.refused < tally.inputs
