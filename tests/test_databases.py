"""Databases with bad records or bad pages: every command that reads one says so, and none dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from damaged import damage
from train_helpers import write_job

from irv2caffe.check import check
from irv2caffe.data import guarded
from irv2caffe.data.facts import SourceFacts, database_facts
from irv2caffe.data.inspect import read_facts, summarize_database
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.errors import FormatError, InputError, Irv2CaffeError
from irv2caffe.proto.messages import Datum
from irv2caffe.train.plan import Wishes, make_plan

DAMAGES = ("leaf", "beyond", "circle", "value", "entries", "absurd")
NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label" {crop}
  data_param {{ source: "{db}" batch_size: 8 backend: LMDB }} }}
layer {{ name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""


def write(folder, records, keys=None):
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=1 << 28) as database, database.begin(write=True) as view:
        for number, datum in enumerate(records):
            key = keys[number] if keys else b"%08d_%d.png" % (number, number)
            view.put(key, datum.SerializeToString())
    return folder


def raw(label, shape=(3, 12, 10)):
    values = np.random.default_rng(label % 7).integers(0, 256, int(np.prod(shape)), np.uint8)
    channels, height, width = shape
    return Datum(channels=channels, height=height, width=width, label=label, data=values.tobytes())


def encoded(label, kind=".jpg"):
    pixels = np.random.default_rng(label).integers(0, 256, (12, 10, 3), np.uint8)
    return Datum(encoded=True, label=label, data=cv2.imencode(kind, pixels)[1].tobytes())


def job(folder, database, crop=""):
    solver = write_job(folder, folder / "job", test_iter=None, test_interval=None)
    (folder / "job/net.prototxt").write_text(NET.format(db=database, crop=crop))
    return solver


def errors_of(solver, caffe, **wishes):
    return [error.message for error in make_plan(solver, caffe, Wishes(**wishes)).problems]


def program(*args, cwd):
    """Through files: what a crash leaves of a pipe would be lost."""
    return subprocess.run(
        [sys.executable, "-m", "irv2caffe", *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONFAULTHANDLER": ""},
    )


# Records


def test_one_negative_label_among_many_is_found_before_the_start(caffe, tmp_path):
    labels = [-1 if number == 777 else number % 3 for number in range(1500)]
    db = write(tmp_path / "db", map(raw, labels))
    solver = job(tmp_path, db)
    (error,) = errors_of(solver, caffe)
    assert "has label -1" in error
    assert "[label-range]" in error
    assert "label-range" in {finding.rule for finding in check(solver).findings}
    assert errors_of(solver, caffe, ignore_findings=True) == []
    (resumed,) = errors_of(solver, caffe, moved=True)
    assert "has label -1" in resumed


def test_build_net_refuses_negative_labels(tmp_path):
    db = write(tmp_path / "db", [raw(label, (3, 80, 80)) for label in (0, 1, -2)])
    done = program("build-net", "--out", "net", "--train-lmdb", db, "--crop", 75, cwd=tmp_path)
    assert done.returncode == 2
    assert "has label -2; labels count from 0" in done.stderr


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_a_record_that_is_cut_off_is_found_before_the_start(caffe, tmp_path, kind):
    """Also between those that are decoded anyway: its last bytes say that it should be."""
    records = [encoded(number % 3, kind) for number in range(9000)]
    records[4321].data = records[4321].data[:30]
    db = write(tmp_path / "db", records)
    (error,) = errors_of(job(tmp_path, db), caffe)
    assert "record 00004321_4321.png: not an image that can be decoded" in error
    assert "[records-broken]" in error
    facts = database_facts(db)
    assert facts.num_looked_at == 9000
    assert facts.num_decoded < 2100


def test_records_whose_values_do_not_fit_their_sizes(caffe, tmp_path):
    records = [raw(number % 3) for number in range(50)]
    records[31].data = records[31].data[:-1]
    db = write(tmp_path / "db", records)
    (error,) = errors_of(job(tmp_path, db), caffe)
    assert "record 00000031_31.png: 359 values, its sizes are 3 x 12 x 10" in error
    with lmdb.open(str(db)) as database, database.begin(write=True) as view:
        view.put(b"00000012_12.png", b"\xff\xff no Datum")
    facts = database_facts(db)
    assert facts.num_broken == 2
    assert facts.broken == "00000012_12.png: a record is not a Datum"


def test_caffe_s_words_for_such_a_record_lead_to_it(caffe, tmp_path):
    records = [encoded(number % 3) for number in range(30)]
    records[21].data = records[21].data[:30]
    solver = job(tmp_path, write(tmp_path / "db", records))
    args = ("--solver", solver, "--run-dir", "run", "--no-plot", "--ignore-findings")
    done = program("train", *args, cwd=tmp_path)
    assert done.returncode == 1
    assert "holds no image that can be decoded" in done.stderr
    assert "inspect-lmdb" in done.stderr
    assert "gray" not in done.stderr


@pytest.mark.parametrize("shape", [(40, 30, 3), (28, 28, 1)])
def test_height_width_channels_is_called_what_it_is(caffe, tmp_path, shape):
    db = write(tmp_path / "db", [raw(number % 3, shape) for number in range(30)])
    solver = job(tmp_path, db, "transform_param { crop_size: 20 }")
    (error,) = errors_of(solver, caffe)
    assert "height x width x channels" in error
    uncropped = job(tmp_path, db)
    assert errors_of(uncropped, caffe) == []
    (finding,) = (each for each in check(uncropped).findings if each.rule == "height-first")
    assert finding.severity.label == "warning"
    shown = program("inspect-lmdb", db, cwd=tmp_path)
    assert shown.returncode == 3
    assert "30 record(s) are stored height x width x channels" in shown.stdout
    built = program("build-net", "--out", "net", "--train-lmdb", db, "--crop", 75, cwd=tmp_path)
    assert "height x width x channels" in built.stderr


def test_features_are_no_images_on_their_side(tmp_path):
    """A signal of 64 channels, or floats of any shape, mean what they say."""
    signal = write(tmp_path / "signal", [raw(number % 3, (64, 100, 1)) for number in range(5)])
    floats = Datum(channels=40, height=30, width=3, label=0, float_data=[0.5] * 3600)
    features = write(tmp_path / "features", [floats] * 3)
    assert not database_facts(signal).height_first
    assert not database_facts(features).height_first


def test_healthy_databases_of_all_kinds_pass(caffe, tmp_path):
    for kind in (".jpg", ".png", ".bmp"):
        db = write(tmp_path / kind, [encoded(number % 3, kind) for number in range(30)])
        assert errors_of(job(tmp_path, db), caffe) == []
        assert database_facts(db).num_broken == 0
    trailing = [encoded(number % 3) for number in range(30)]
    for datum in trailing:
        datum.data += b"\0\0camera"  # some cameras write more behind the end
    assert database_facts(write(tmp_path / "trailing", trailing)).num_broken == 0


# Keys


def test_keys_that_are_dates_are_sampled_all_over(tmp_path):
    keys = [b"%08d_%06d" % (20150101 + number // 40, number) for number in range(1500)]
    db = write(tmp_path / "db", [raw(number % 7) for number in range(1500)], keys)
    with open_reader(db) as reader:
        assert [key for key, _ in reader.sample(50)] == keys[::30]
    shown = program("inspect-lmdb", db, "--sample", 50, cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout
    assert "finding" not in shown.stdout


def test_gaps_in_the_numbers_are_stepped_over(tmp_path):
    keys = [b"%08d_x" % (2 * number) for number in range(199)]  # every second was left out
    db = write(tmp_path / "db", [raw(0) for _ in keys], keys)
    with open_reader(db) as reader:
        found = [key for key, _ in reader.sample(20)]
    assert len(found) == 20
    assert found == sorted(found)
    assert found[-1] > keys[170]


# Pages


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sound") / "db", [raw(n % 3) for n in range(300)])


@pytest.fixture
def broken(request, tmp_path, sound):
    db = tmp_path / "db"
    db.mkdir()
    (db / "data.mdb").write_bytes((sound / "data.mdb").read_bytes())
    damage(db, request.param)
    return db


@pytest.mark.parametrize("broken", DAMAGES, indirect=True)
def test_damaged_pages_are_one_error_of_every_command(tmp_path, sound, broken):
    solver = job(tmp_path, broken)
    net = tmp_path / "job/net.prototxt"
    for command in (
        ("check", solver),
        ("summary", net, "--phase", "train"),
        ("build-net", "--out", "net", "--train-lmdb", broken, "--val-lmdb", sound, "--crop", 75),
        ("train", "--solver", solver, "--dry-run"),
        ("inspect-lmdb", broken),
        ("inspect-lmdb", broken, "--sample", 50, "--peek", "sheet.png"),
        ("inspect-lmdb", broken, "--compare", sound),
        ("inspect-lmdb", sound, "--compare", broken),
    ):
        done = program(*command, cwd=tmp_path)
        said = done.stdout + done.stderr
        assert done.returncode in {1, 3}, (command, done)
        assert "Traceback" not in said, command
        assert "data.mdb is damaged" in said, (command, said)
        assert str(broken) in said, (command, said)


def test_one_process_reads_all_and_outlives_none(tmp_path, sound):
    """The others are read whatever happens to one."""
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "data.mdb").write_bytes((sound / "data.mdb").read_bytes())
    damage(bad, "beyond")
    found = read_facts([sound, bad, tmp_path / "no", sound])
    assert len(found) == 3
    assert isinstance(found[sound], SourceFacts)
    assert isinstance(found[bad], FormatError)
    assert isinstance(found[tmp_path / "no"], Irv2CaffeError)
    with guarded.Guard() as guard:
        first = guard.call("database_facts", [sound], {})
        (pid,) = _children()
        with pytest.raises(FormatError):
            guard.call("database_facts", [bad], {})
        assert guard.call("database_facts", [sound], {}) == first
    assert pid not in _children()
    assert _children() == set()


def _children():
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(word) for word in path.read_text().split()}


ENDLESS = """
import json, sys, time
sys.path[:] = json.loads(sys.argv[1])
from irv2caffe.data import facts, guarded
def endless(*args, **others):
    {}
facts.database_facts = endless
guarded.main()
"""


def test_what_has_no_end_is_ended(sound, monkeypatch):
    """Work without a record, and silence without one."""
    monkeypatch.setattr(guarded, "_BOOT", ENDLESS.format("while True: pass"))
    monkeypatch.setattr(
        guarded,
        "_BOOT",
        guarded._BOOT.replace("guarded.main()", "guarded._WORK_S = 0.2; guarded.main()"),
    )
    with pytest.raises(FormatError, match="reading it does not come to an end"):
        guarded.call_guarded("database_facts", [sound], {})
    monkeypatch.setattr(guarded, "_BOOT", ENDLESS.format("time.sleep(1000)"))
    monkeypatch.setattr(guarded, "_SILENCE_S", 0.2)
    with pytest.raises(InputError, match="no record could be read"):
        guarded.call_guarded("database_facts", [sound], {})
    assert _children() == set()


def test_what_is_cut_short_or_empty(tmp_path, sound):
    db = tmp_path / "db"
    db.mkdir()
    (db / "data.mdb").write_bytes((sound / "data.mdb").read_bytes()[:20_000])
    with pytest.raises(FormatError, match="cut short"):
        summarize_database(db)
    with pytest.raises(InputError, match="has no records"):
        summarize_database(write(tmp_path / "empty", []))
