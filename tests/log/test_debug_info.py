"""The first layer that a log with debug_info shows as not finite."""

from __future__ import annotations

import gzip

import pytest

from irv2caffe.log.read import debug_info
from irv2caffe.log.read.debug_info import first_not_finite

LINE = "I1127 11:37:55.347320 32069 net.cpp:593]     [{}\n"
FINE = LINE.format("Forward] Layer inf, top blob nan data: 0.804457")


@pytest.mark.parametrize(
    ("text", "layer", "step"),
    [
        ("Forward] Layer fc, top blob fc data: inf", "fc", "Forward"),
        ("Forward] Layer a/b, c, param blob 0 data: -nan", "a/b, c", "Forward"),
        ("Backward] Layer fc, bottom blob conv1 diff: nan", "fc", "Backward"),
        ("Backward] Layer fc, param blob 1 diff: nan", "fc", "Backward"),
        ("Update] Layer fc, param w data: 0.1; diff: nan", "fc", "Update"),
        ("Forward] Layer fc (InnerProduct) 2x3 -> 2x4 fc data: nan, 0.1 ms", "fc", "Forward"),
        ("Forward] Layer s (Slice) 2x3 -> 1 a data: 1, 1 b data: inf, 0.1 ms", "s", "Forward"),
        ("Forward] Layer f\x1b[1m, top blob fc data: nan", "f?[1m", "Forward"),
    ],
)
def test_the_lines_of_caffe_and_of_the_torch_engine(tmp_path, text, layer, step):
    path = tmp_path / "train.log"
    later = LINE.format("Forward] Layer later, top blob later data: nan")
    path.write_text(FINE + LINE.format(text) + later)
    found = first_not_finite([path])
    assert (found.layer, found.step) == (layer, step)
    assert found.text.startswith(f"[{step}] Layer {layer}")


def test_weights_that_were_broken_before(tmp_path):
    path = tmp_path / "train.log"
    top = LINE.format("Forward] Layer conv1, top blob conv1 data: nan")
    weights = LINE.format("Forward] Layer conv1, param blob 0 data: {}")
    end = "I1127 11:37:55.347336 32069 solver.cpp:239] Iteration 2, loss = nan\n"
    for lines, is_bad in (
        (top + weights.format("nan") + end, True),
        (top + weights.format("0.1") + end, False),
        (top + end + weights.format("nan"), False),
    ):
        path.write_text(lines)
        assert first_not_finite([path]).has_bad_weights is is_bad


def test_logs_without_one(tmp_path):
    path = tmp_path / "train.log"
    norm = LINE.format("Backward] All net params (data, diff): L1 norm = (1, nan)")
    path.write_text(FINE + norm + "I1127 solver.cpp:239] Iteration 1, loss = nan\n")
    assert first_not_finite([path]) is None
    assert first_not_finite([]) is None


def test_it_is_found_at_the_edge_of_a_chunk_and_in_a_later_part(tmp_path, monkeypatch):
    bad = LINE.format("Forward] Layer fc, top blob fc data: inf")
    first, second = tmp_path / "first.log", tmp_path / "second.log.gz"
    first.write_text(FINE * 100)
    second.write_bytes(gzip.compress((FINE * 100 + bad).encode()))
    for size in (len(FINE) + 3, 2 * len(FINE) - 5, 4096):
        monkeypatch.setattr("irv2caffe.log.read.files.CHUNK_BYTES", size)
        assert first_not_finite([first, second]).layer == "fc"


def test_a_log_without_such_lines_is_not_read_to_its_end(tmp_path, monkeypatch):
    path = tmp_path / "train.log"
    path.write_text("x" * 500 + "\n" + LINE.format("Forward] Layer fc, top blob fc data: inf"))
    monkeypatch.setattr("irv2caffe.log.read.files.CHUNK_BYTES", 100)
    assert first_not_finite([path]).layer == "fc"
    monkeypatch.setattr(debug_info, "MAX_BYTES_WITHOUT", 200)
    assert first_not_finite([path]) is None
