"""Databases with bad records or bad pages: every command that reads one says so, and none dies."""

from __future__ import annotations

import codecs
import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import lmdb
import numpy as np
import pytest
from helpers.damaged import damage
from helpers.training_jobs import write_job

from irv2caffe import atomic
from irv2caffe.caffe.command import tool_command
from irv2caffe.check.run import check
from irv2caffe.data.inspect import sandbox
from irv2caffe.data.inspect.database import Database, read_database, read_databases
from irv2caffe.data.inspect.sample import sample_database
from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.errors import FormatError, InputError, Irv2CaffeError, OutputError
from irv2caffe.proto.messages import BlobProto, Datum
from irv2caffe.train.engines.engine import CaffeEngine
from irv2caffe.train.plan.databases import check_locks
from irv2caffe.train.plan.make_plan import make_plan
from irv2caffe.train.plan.plan import TrainOptions
from irv2caffe.train.run_dir.failure_causes import cause_of
from irv2caffe.train.run_dir.lock import locked
from irv2caffe.train.run_dir.run_dir import RunDir

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


def errors_of(solver, caffe, **train_options):
    return [
        error.message
        for error in make_plan(solver, CaffeEngine(caffe), TrainOptions(**train_options)).problems
    ]


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (".jpg", "not an image that can be decoded"),
        (".png", "damaged: a part of it is longer than the file"),
    ],
)
def test_a_record_that_is_cut_off_is_found_before_the_start(caffe, tmp_path, kind, reason):
    """Also between those that are decoded anyway: its last bytes say that it should be."""
    records = [encoded(number % 3, kind) for number in range(9000)]
    records[4321].data = records[4321].data[:30]
    db = write(tmp_path / "db", records)
    (error,) = errors_of(job(tmp_path, db), caffe)
    assert f"record 00004321_4321.png: {reason}" in error
    assert "[records-broken]" in error
    facts = sample_database(db)
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
    facts = sample_database(db)
    assert facts.num_broken == 2
    assert facts.broken == "00000012_12.png: a record is not a Datum"


@pytest.mark.slow
def test_caffe_s_words_for_such_a_record_lead_to_it(caffe, tmp_path):
    records = [encoded(number % 3) for number in range(30)]
    records[21].data = records[21].data[:30]
    solver = job(tmp_path, write(tmp_path / "db", records))
    args = ("--solver", solver, "--run-dir", "run", "--no-plot", "--ignore-findings")
    done = program("train", *args, cwd=tmp_path)
    assert done.returncode == 1
    assert "holds an image that cannot be decoded" in done.stderr
    assert "inspect-lmdb" in done.stderr
    assert "gray" not in done.stderr


@pytest.mark.slow
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
    assert not sample_database(signal).height_first
    assert not sample_database(features).height_first


@pytest.mark.slow
def test_healthy_databases_of_all_kinds_pass(caffe, tmp_path):
    for kind in (".jpg", ".png", ".bmp"):
        db = write(tmp_path / kind, [encoded(number % 3, kind) for number in range(30)])
        assert errors_of(job(tmp_path, db), caffe) == []
        assert sample_database(db).num_broken == 0
    trailing = [encoded(number % 3) for number in range(30)]
    for datum in trailing:
        datum.data += b"\0\0camera"  # some cameras write more behind the end
    assert sample_database(write(tmp_path / "trailing", trailing)).num_broken == 0


# Keys


@pytest.mark.slow
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


@pytest.mark.slow
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


def _facts(database):
    with sandbox.Guard() as guard:
        return guard.call("sample_database", [database], {})


def test_one_process_reads_all_and_outlives_none(tmp_path, sound):
    """The others are read whatever happens to one."""
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "data.mdb").write_bytes((sound / "data.mdb").read_bytes())
    damage(bad, "beyond")
    found = read_databases([sound, bad, tmp_path / "no", sound])
    assert len(found) == 3
    assert isinstance(found[sound], Database)
    assert isinstance(found[bad], FormatError)
    assert isinstance(found[tmp_path / "no"], Irv2CaffeError)
    with sandbox.Guard() as guard:
        first = guard.call("sample_database", [sound], {})
        (pid,) = _children()
        with pytest.raises(FormatError):
            guard.call("sample_database", [bad], {})
        assert guard.call("sample_database", [sound], {}) == first
    assert pid not in _children()
    assert _children() == set()


def _children():
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(word) for word in path.read_text().split()}


ENDLESS = """
import json, sys, time
sys.path[:] = json.loads(sys.argv[1])
from irv2caffe.data.inspect import sample, sandbox
def endless(*args, **others):
    {}
sample.sample_database = endless
sandbox.main()
"""


def test_what_has_no_end_is_ended(sound, monkeypatch):
    """Work without a record, and silence without one."""
    monkeypatch.setattr(sandbox, "_BOOT", ENDLESS.format("while True: pass"))
    monkeypatch.setattr(
        sandbox,
        "_BOOT",
        sandbox._BOOT.replace("sandbox.main()", "sandbox._WORK_S = 0.2; sandbox.main()"),
    )
    with pytest.raises(FormatError, match="reading it does not come to an end"):
        _facts(sound)
    monkeypatch.setattr(sandbox, "_BOOT", ENDLESS.format("time.sleep(1000)"))
    monkeypatch.setattr(sandbox, "_SILENCE_S", 0.2)
    with pytest.raises(InputError, match="no record could be read"):
        _facts(sound)
    assert _children() == set()


def test_what_is_cut_short_or_empty(tmp_path, sound):
    db = tmp_path / "db"
    db.mkdir()
    (db / "data.mdb").write_bytes((sound / "data.mdb").read_bytes()[:20_000])
    with pytest.raises(FormatError, match="cut short"):
        read_database(db)
    with pytest.raises(InputError, match="has no records"):
        read_database(write(tmp_path / "empty", []))


# Places


def test_the_file_of_a_database_is_not_its_name(caffe, tmp_path, sound):
    done = program("inspect-lmdb", sound / "data.mdb", cwd=tmp_path)
    assert done.returncode == 1
    assert "is a file; a database is named by its folder" in done.stderr
    assert f"give {sound}" in done.stderr
    (error,) = errors_of(job(tmp_path, sound / "data.mdb"), caffe)
    assert "is a file; a database is named by its folder" in error


@pytest.mark.parametrize("number", sorted(atomic.NO_LOCKS))
def test_a_file_system_without_locks_is_named(caffe, tmp_path, sound, monkeypatch, number):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    solver = job(tmp_path, sound)
    monkeypatch.setattr(fcntl, "flock", refused)
    with (
        pytest.raises(OutputError, match="its file system has no file locks"),
        locked(RunDir(tmp_path)),
    ):
        pass
    monkeypatch.setattr(fcntl, "fcntl", refused)
    (error,) = errors_of(solver, caffe)
    assert error == f"{sound}: its file system has no file locks"


def test_asking_for_locks_takes_none(caffe, tmp_path, sound):
    with (sound / "data.mdb").open("r+b") as stream:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert errors_of(job(tmp_path, sound), caffe) == []


def test_a_database_of_others_that_is_read_only(sound):
    """As somebody who may not write into its folder: root may everywhere."""
    with tempfile.TemporaryDirectory() as name:
        db = Path(name) / "db"
        db.mkdir()
        (db / "data.mdb").write_bytes((sound / "data.mdb").read_bytes())
        use = SimpleNamespace(source=db)
        for lock, folder, outcome in ((None, 0o555, 1), (0o444, 0o777, 1), (0o666, 0o555, 0)):
            (db / "lock.mdb").unlink(missing_ok=True)
            if lock is not None:
                (db / "lock.mdb").touch()
                (db / "lock.mdb").chmod(lock)
            Path(name).chmod(0o755)
            db.chmod(folder)
            pid = os.fork()
            if pid == 0:
                if os.getuid() == 0:
                    os.setuid(65534)
                try:
                    check_locks([use])
                except InputError as error:
                    os._exit("lock.mdb is not writable" in error.message)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == outcome
            db.chmod(0o755)
    assert "lock.mdb" in cause_of("Check failed: mdb_status == 0 (13 vs. 0) Permission denied").hint
    assert "locks" in cause_of("Check failed: mdb_status == 0 (38 vs. 0) Function").why


@pytest.mark.parametrize(
    ("mark", "encoding"), [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le")]
)
def test_a_byte_order_mark_is_named_since_caffe_stops_at_it(caffe, tmp_path, sound, mark, encoding):
    solver = job(tmp_path, sound)
    text = solver.read_text()
    solver.write_bytes(mark + text.encode(encoding))
    command = tool_command(caffe, "caffe", ["train", "-solver", str(solver)])
    done = subprocess.run(command.argv, env=command.env, capture_output=True, check=False)
    assert done.returncode != 0
    done = program("check", solver, cwd=tmp_path)
    assert "begins with a byte order mark (BOM)" in done.stderr
    way_out = done.stderr.partition("BOM, or run: ")[2].partition("\n")[0]
    way_out = way_out.replace("FILE", str(solver)).replace("OTHER", str(tmp_path / "mended"))
    subprocess.run(["bash", "-c", way_out], check=True)
    assert (tmp_path / "mended").read_text() == text


def test_a_mean_image_of_another_size_leads_to_one_of_the_training_set(tmp_path, sound):
    val = write(tmp_path / "val", [raw(number % 3) for number in range(20)])
    solver = job(tmp_path, sound)
    net = tmp_path / "job/net.prototxt"
    mean = 'transform_param {{ mean_file: "{}" }}'.format(tmp_path / "old.binaryproto")
    layers = NET.format(db=sound, crop=f"include {{ phase: TRAIN }} {mean}")
    first, rest = layers.split("layer", 2)[1], layers.split("layer", 2)[2]
    test = first.replace("TRAIN", "TEST").replace(str(sound), str(val))
    net.write_text(f"layer{first}layer{test}layer{rest}")
    array = BlobProto(num=1, channels=3, height=20, width=20, data=[0.5] * 1200)
    (tmp_path / "old.binaryproto").write_bytes(array.SerializeToString())
    fixes = {finding.fix for finding in check(solver).findings if finding.rule == "mean-size"}
    (fix,) = fixes
    assert fix.startswith(f"compute_image_mean {sound} mean_3x12x10.binaryproto")
    assert str(val) not in fix
