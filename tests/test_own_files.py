"""Outputs of this program are replaced, those of other origin only with --force."""

from __future__ import annotations

import subprocess
import sys

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from helpers.paths import FILES
from matplotlib.figure import Figure

from irv2caffe.errors import OutputExistsError
from irv2caffe.log.read.reader import read_log
from irv2caffe.log.table import make_table
from irv2caffe.own_files import is_own, marked_jpeg, marked_png, refuse_foreign
from irv2caffe.plot.curves import Run
from irv2caffe.plot.figure import draw
from irv2caffe.plot.session import PlotSession, Request

LOG = FILES / "logs/healthy.log"


def plot_log(*args):
    command = [sys.executable, "-m", "irv2caffe", "plot-log", LOG, *args]
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=120
    )


def test_outputs_of_plot_log_are_replaced_and_others_are_not(tmp_path):
    names = {
        "--out": "figure.png", "--html": "report.html", "--csv": "rows.csv",
        "--jsonl": "rows.jsonl", "--unknown": "other.txt",
    }  # fmt: skip
    args = [part for option, name in names.items() for part in (option, tmp_path / name)]
    assert plot_log(*args).returncode == 0
    (tmp_path / "other.txt").write_text("")  # nothing is lost
    again = plot_log(*args)
    assert again.returncode == 0, again.stderr
    for option, name in names.items():
        mine = tmp_path / name
        mine.write_bytes(b"three weeks of work")
        request = Request(paths=[LOG], **{option.removeprefix("--"): mine})
        with pytest.raises(OutputExistsError, match=f"{name} exists, and irv2caffe") as raised:
            PlotSession(request)
        assert "--force" in raised.value.hint
        assert mine.read_bytes() == b"three weeks of work"
    done = plot_log(*args, "--force")
    assert done.returncode == 0, done.stderr
    assert not any(
        (tmp_path / name).read_bytes() == b"three weeks of work" for name in names.values()
    )


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_figures_have_the_mark_and_those_of_others_do_not(tmp_path, suffix):
    ours, other = tmp_path / f"ours.{suffix}", tmp_path / f"other.{suffix}"
    draw([Run("run", make_table(read_log(LOG)))], ours)
    Figure().savefig(other)
    assert is_own(ours)
    assert not is_own(other)
    assert mpl.__version__.encode() not in ours.read_bytes()[:200]


@pytest.mark.parametrize(("kind", "mark"), [("png", marked_png), ("jpg", marked_jpeg)])
def test_pictures_with_the_mark_are_whole(tmp_path, kind, mark):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    data = cv2.imencode(f".{kind}", pixels)[1].tobytes()
    path = tmp_path / f"x.{kind}"
    path.write_bytes(data)
    assert not is_own(path)
    path.write_bytes(mark(data))
    assert is_own(path)
    plain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert (cv2.imread(str(path)) == plain).all()


def test_peek_replaces_its_own_sheets_only(tmp_path):
    from helpers.training_jobs import make_databases

    make_databases(tmp_path)
    for name in ("sheet.png", "sheet.jpg"):
        sheet = tmp_path / name
        command = [sys.executable, "-m", "irv2caffe", "inspect-lmdb", str(tmp_path / "val_lmdb")]
        for _ in range(2):
            subprocess.run([*command, "--peek", str(sheet)], check=False, timeout=120)
            assert is_own(sheet)
        sheet.write_bytes(b"mine")
        done = subprocess.run(
            [*command, "--peek", str(sheet)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "did not make it" in done.stderr
        assert sheet.read_bytes() == b"mine"
    subprocess.run([*command, "--peek", str(sheet), "--force"], check=False, timeout=120)
    assert is_own(sheet)


def test_what_is_no_file_is_never_replaced(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path, tmp_path / "loop"):
        with pytest.raises(OutputExistsError, match="cannot be replaced"):
            refuse_foreign(path, force=True)
    refuse_foreign(tmp_path / "new")
    text = tmp_path / "notes.md"
    text.write_text("irv2caffe plot-log writes kind,iteration,epoch,loss,lr")
    with pytest.raises(OutputExistsError):
        refuse_foreign(text)
