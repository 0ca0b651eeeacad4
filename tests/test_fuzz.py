"""Damaged files into every reader: each is read, or refused by an error of the program's own.

A minute of what ``scripts/fuzz`` does for as long as one likes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import fuzz_pool, fuzz_readers
from helpers.fuzz_pool import DIED, HANG, MEMORY, READ, REFUSED, TRACEBACK, fuzz, try_one
from helpers.fuzz_readers import PROBE, READERS

pytestmark = pytest.mark.slow

INPUTS = 400


@pytest.mark.parametrize("name", READERS)
def test_every_input_is_read_or_refused(name, tmp_path):
    inputs = max(20, int(INPUTS * READERS[name].share))
    tally = fuzz(name, inputs=inputs, keep=tmp_path)
    assert not tally.failures, "\n".join(tally.words.values())
    assert tally.inputs == inputs
    assert tally.refused < inputs


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("read", READ),
        ("refuse", REFUSED),
        ("raise", TRACEBACK),
        ("die", DIED),
        ("grow", MEMORY),
        ("spin", HANG),
    ],
)
def test_whatever_a_reader_does_is_noticed(what, how, tmp_path, monkeypatch):
    if what == "spin":  # only this one ends by the limit, however slow the machine
        monkeypatch.setattr(fuzz_pool, "MOST_CPU_S", 3.0)
    (tmp_path / "x").write_text(what)
    assert try_one(PROBE.name, tmp_path / "x").how == how
    assert try_one(PROBE.name, tmp_path).how == how


def test_failures_are_kept_and_seen_again(tmp_path):
    """The same seed gives the same inputs, and a kept one fails as it did."""
    first, again = (fuzz(PROBE.name, seed=7, inputs=200, keep=tmp_path) for _ in range(2))
    assert first.failures == again.failures
    assert (first.inputs, first.refused) == (again.inputs, again.refused)
    assert list(first.failures) == ["LookupError at fuzz_readers.py:" + str(raising_line())]
    assert len(first.kept) == 3
    assert 0 < first.refused < first.inputs
    for place in first.kept:
        assert try_one(PROBE.name, place).how == TRACEBACK


def raising_line():
    lines = Path(fuzz_readers.__file__).read_text().splitlines()
    return 1 + next(number for number, line in enumerate(lines) if "raise LookupError" in line)
