"""inspect-lmdb on databases of ours, of Caffe's tools and of strangers; damaged ones too."""

from __future__ import annotations

import json
import subprocess
from functools import partial

import lmdb
import numpy as np
import pytest
from helpers import program
from helpers.zoo import file_bytes, photo
from PIL import Image

from irv2caffe.caffe.command import tool_command
from irv2caffe.data.build.make_lmdb import BuildOptions, make_lmdb
from irv2caffe.data.inspect.compare import compare
from irv2caffe.data.inspect.contact_sheet import draw_sheet
from irv2caffe.data.inspect.database import read_database
from irv2caffe.data.inspect.database_report import examine
from irv2caffe.data.inspect.sandbox import Guard
from irv2caffe.data.lmdb_store import DatabaseWriter, last_transaction, open_reader
from irv2caffe.data.records.datum import (
    encoded_head,
    encoded_tail,
    parse_datum,
    raw_head,
    raw_tail,
    read_head,
)
from irv2caffe.data.sources import open_source
from irv2caffe.errors import FormatError, InputError, MissingInputError
from irv2caffe.proto.messages import Datum

# Of every wire type: 20 as a number, 21 and 22 as eight and four bytes, 23 as a string.
UNKNOWN_FIELDS = b"".join(
    (b"\xa0\x01\x96\x01", b"\xa9\x01" + bytes(8), b"\xb5\x01" + bytes(4), b"\xba\x01\x03abc")
)


inspected = partial(program.run, "inspect-lmdb")


def write(folder, records):
    """A database as any script would write it."""
    folder.mkdir()
    with lmdb.open(str(folder), map_size=1 << 28) as database, database.begin(write=True) as view:
        for key, value in records:
            view.put(key, value)
    return folder


def raw(label, shape=(3, 4, 5), **fields):
    values = np.arange(np.prod(shape)).astype(np.uint8).tobytes()
    datum = Datum(channels=shape[0], height=shape[1], width=shape[2], data=values, label=label)
    for name, value in fields.items():
        setattr(datum, name, value)
    return datum.SerializeToString()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("inspect") / "images"
    rng = np.random.default_rng(0)
    for number in range(60):
        folder = root / ("cat", "dog", "emu")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        photo(rng, 60, 50).save(folder / f"{number}.jpg")
    return root


def test_a_database_of_ours(images, tmp_path):
    options = BuildOptions(size=(48, 40))
    report = make_lmdb(open_source(images), tmp_path / "db", options)
    found = examine(tmp_path / "db")
    assert (found.num_records, found.num_decoded, found.is_whole) == (60, 60, True)
    assert found.encodings == {"raw": 60}
    assert found.shapes == {"3 x 40 x 48": 60}
    assert found.images_per_label == {"0": 20, "1": 20, "2": 20}
    assert found.class_names == ["cat", "dog", "emu"]
    assert found.mean_values == pytest.approx(report.mean_values, abs=1e-9)
    assert found.classes_per_batch == found.classes_if_mixed == 3
    assert found.findings == found.notes == []
    assert found.size_bytes == (tmp_path / "db/data.mdb").stat().st_size
    make_lmdb(open_source(images), tmp_path / "sorted", BuildOptions(size=(8, 8), shuffle=False))
    unmixed = examine(tmp_path / "sorted", batch=10)
    assert unmixed.classes_per_batch == 1
    assert unmixed.classes_if_mixed > 2.8
    assert unmixed.notes[0].startswith("not shuffled: 1.0 classes in 10 neighbours")


def test_records_of_each_class(images, tmp_path):
    """From the manifest, from the labels, or from neither where the two do not agree."""
    source = open_source(images, labels=_table(tmp_path, "cat dog emu yak"))
    make_lmdb(source, tmp_path / "db", BuildOptions(size=(8, 8), copies=2))
    for is_quick in (True, False):
        assert read_database(tmp_path / "db", is_quick=is_quick).class_counts == (40, 40, 40, 0)
    manifest = tmp_path / "db/manifest.json"
    told = json.loads(manifest.read_text())
    wrong = [{"0": 40}, {"-1": 60, "0": 60}, {"0": 1.0, "1": 119}, {"9" * 9: 120}, [40, 40, 40]]
    for per_label in (*wrong, {"0": [], "1": 120}, "120", {"x": 120}, {"0": 160, "1": -40}):
        manifest.write_text(json.dumps(told | {"images_per_label": per_label}))
        assert read_database(tmp_path / "db", is_quick=True).class_counts == ()
        assert read_database(tmp_path / "db", is_quick=False).class_counts == (40, 40, 40, 0)
    manifest.unlink()
    assert read_database(tmp_path / "db", is_quick=True).class_counts == (40, 40, 40, 0)
    strange = write(tmp_path / "strange", [(b"0", raw(2)), (b"1", raw(0)), (b"2", raw(2))])
    assert read_database(strange).class_counts == (1, 0, 2)
    for label in (-1, 2**31 - 1):
        odd = write(tmp_path / f"odd{label}", [(b"0", raw(label)), (b"1", raw(0))])
        assert read_database(odd).class_counts == ()


def _table(folder, names):
    (folder / "names.txt").write_text("\n".join(names.split()))
    return folder / "names.txt"


def test_a_database_of_the_tool(caffe, images, tmp_path):
    """Encoded files in their own sizes, one of them gray; labels with a gap."""
    rng = np.random.default_rng(0)
    photo(rng, 30, 20, "L").save(images / "gray.jpg")
    lines = [f"cat/{number}.jpg {number % 2 * 5}" for number in range(0, 60, 3)]
    (tmp_path / "list.txt").write_text("\n".join([*lines, "gray.jpg 1", ""]))
    flags = ["-encoded", "-encode_type", "jpg"]
    paths = [f"{images}/", str(tmp_path / "list.txt"), str(tmp_path / "db")]
    command = tool_command(caffe, "convert_imageset", [*flags, *paths])
    subprocess.run(command.argv, env=command.env, check=True, capture_output=True)
    (images / "gray.jpg").unlink()
    found = examine(tmp_path / "db")
    assert found.encodings == {"jpg": 21}
    assert found.shapes == {"3 x 50 x 60": 20, "1 x 20 x 30": 1}
    assert found.map_bytes == 1 << 20  # LMDB's default, which the tool starts from
    assert (found.min_label, found.max_label, found.num_labels) == (0, 5, 3)
    assert found.mean_values is None
    assert any("1 and 3 channels" in line for line in found.findings)
    assert "3 of 6 classes have no record" in found.notes
    summary = read_database(tmp_path / "db")
    assert (summary.num_records, summary.height, summary.width, summary.num_classes) == (
        21,
        50,
        60,
        6,
    )


def test_databases_of_strangers(tmp_path):
    """Keys without numbers, floats, no labels, several channels, unknown fields, rubbish."""
    floats = Datum(channels=2, height=1, width=3, float_data=[0.5, 1, 2, 3, 4, -1], label=2)
    records = [
        (b"a", raw(0)),
        (b"b", raw(-1)),
        (b"c", raw(1, encoded=False)),
        (b"d", floats.SerializeToString()),
        (b"e", Datum(channels=1, height=2, width=2, data=b"abcd").SerializeToString()),
        (b"f", Datum(channels=1, height=2, width=2, data=b"abc", label=1).SerializeToString()),
        (b"g", Datum(data=b"not an image", encoded=True, label=3).SerializeToString()),
        (b"h", b"\xff\xff rubbish"),
        (b"i", b""),
        (b"j", Datum(data=b"GIF89a" + bytes(20), encoded=True, label=3).SerializeToString()),
        (b"k", UNKNOWN_FIELDS + raw(1)),
    ]
    found = examine(write(tmp_path / "db", records))
    assert found.encodings == {
        "raw": 6,
        "float": 1,
        "unknown": 1,
        "not a Datum": 1,
        "nothing": 1,
        "gif": 1,
    }
    bad = dict(found.undecodable)
    assert set(bad) == {"f", "g", "h", "i", "j"}
    assert bad["f"] == "its sizes and its values do not fit together"
    assert found.num_undecodable == 5
    text = "\n".join(found.findings)
    assert "5 record(s) cannot be decoded" in text
    assert "2 record(s) have no label" in text
    assert "label -1 is negative" in text
    assert "gif: Caffe's OpenCV cannot read such records" in text
    assert draw_sheet(tmp_path / "db", tmp_path / "sheet.png") == 11
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 168 + 8, 2 * 202 + 8)
    done = inspected(tmp_path / "db")
    assert done.returncode == 3
    assert "finding: 5 record(s) cannot be decoded" in done.stdout


def test_a_class_table_that_does_not_fit(tmp_path):
    folder = write(tmp_path / "db", [(b"a", raw(0)), (b"b", raw(2))])
    (folder / "labels.txt").write_text("cat\ndog\n")
    assert examine(folder).findings == ["label 2, but labels.txt has 2 classes"]


def test_an_empty_database(tmp_path):
    folder = write(tmp_path / "db", [])
    assert examine(folder).findings == ["no records: Caffe dies of that when it starts"]
    done = inspected(folder, "--peek", tmp_path / "sheet.png")
    assert done.returncode == 3
    assert not (tmp_path / "sheet.png").exists()
    with pytest.raises(InputError):
        read_database(folder)


def test_heads_are_what_protobuf_says():
    for datum in (
        Datum(channels=3, height=328, width=328, data=bytes(322_752), label=999, encoded=False),
        Datum(data=bytes(200), label=0, encoded=True),
        Datum(channels=1, height=1, width=2, float_data=[1, 2], label=-5),
        Datum(),
    ):
        value = datum.SerializeToString()
        head = read_head(value)
        assert head.shape == (datum.channels, datum.height, datum.width)
        assert head.label == (datum.label if datum.HasField("label") else None)
        assert head.is_encoded == datum.encoded
        start, size = head.data
        assert value[start : start + size] == datum.data
        assert head.num_floats == len(datum.float_data)
        assert parse_datum(value) == datum
    value = UNKNOWN_FIELDS + raw(7)
    assert Datum.FromString(value).label == read_head(value).label == 7
    for broken in (b"\xa3\x01", b"\xba\x01\x7f", b"\xa9\x01\0"):
        with pytest.raises(FormatError, match="not a Datum"):
            read_head(raw(7) + broken)
    pixels = bytes(range(60))
    ours = raw_head((3, 4, 5)) + pixels + raw_tail(300)
    same = Datum(channels=3, height=4, width=5, data=pixels, label=300, encoded=False)
    assert ours == same.SerializeToString()
    ours = encoded_head(60) + pixels + encoded_tail(0)
    assert ours == Datum(data=pixels, label=0, encoded=True).SerializeToString()


@pytest.mark.slow
def test_comparing(images, tmp_path):
    source = open_source(images)
    make_lmdb(source, tmp_path / "raw", BuildOptions(size=(24, 20)))
    make_lmdb(source, tmp_path / "png", BuildOptions(size=(24, 20), encoded="png"))
    make_lmdb(source, tmp_path / "jpg", BuildOptions(size=(24, 20), encoded="jpg"))
    assert compare(tmp_path / "raw", tmp_path / "raw").is_equal
    same = compare(tmp_path / "raw", tmp_path / "png")
    assert (same.num_equal, same.num_same_image) == (0, 60)
    other = compare(tmp_path / "raw", tmp_path / "jpg")
    assert other.num_other_image == 60
    assert 0 < other.max_difference < 150
    first = write(tmp_path / "a", [(b"1", raw(0)), (b"2", raw(1)), (b"3", raw(1))])
    second = write(
        tmp_path / "b", [(b"0", raw(0)), (b"1", raw(0)), (b"2", raw(2)), (b"3", raw(1, (3, 5, 4)))]
    )
    result = compare(first, second)
    assert (result.num_equal, result.num_other_label, result.num_other_image) == (1, 1, 1)
    assert (result.num_only_first, result.num_only_second) == (0, 1)
    assert dict(result.examples)["2"] == "label 1 and 2"
    assert inspected(tmp_path / "raw", "--compare", tmp_path / "raw").returncode == 0
    done = inspected(first, "--compare", second)
    assert done.returncode == 3
    assert "1 with another label" in done.stdout


@pytest.mark.slow
def test_the_command(images, tmp_path):
    make_lmdb(open_source(images), tmp_path / "db", BuildOptions(size=(48, 40), encoded="jpg"))
    done = inspected("db", "--peek", "sheet.jpg", "--all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in (
        "records       60",
        "jpg (60)",
        "3 x 40 x 48 (60)",
        "60 of 60, 0 cannot be",
        "emu",
    ):
        assert words in done.stdout
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.format == "JPEG"
        assert np.asarray(sheet).std() > 20
    done = inspected("db", "--json", "--sample", "5", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert (found["num_decoded"], found["is_whole"]) == (5, False)
    assert inspected("db", "--peek", "sheet.gif", cwd=tmp_path).returncode == 2
    assert inspected("db", "--peek", "no/such/../x.png", cwd=tmp_path).returncode in {0, 1}


def test_what_is_no_database(tmp_path):
    for look in (read_database, examine):
        with pytest.raises(MissingInputError):
            look(tmp_path / "no")
        with pytest.raises(FormatError):
            look(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"garbage" * 2000)
    for look in (read_database, examine):
        with pytest.raises(FormatError):
            look(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"")
    with pytest.raises(FormatError):
        examine(tmp_path)
    (tmp_path / "data.mdb").unlink()
    (tmp_path / "CURRENT").write_text("MANIFEST-000004")
    (tmp_path / "000005.ldb").write_bytes(b"")
    with pytest.raises(FormatError, match="LevelDB"):
        examine(tmp_path)


@pytest.mark.slow
def test_a_file_that_is_cut_short(images, tmp_path):
    make_lmdb(open_source(images), tmp_path / "db", BuildOptions())
    path = tmp_path / "db/data.mdb"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    for look in (read_database, examine):
        with pytest.raises(FormatError, match="cut short"):
            look(tmp_path / "db")


def examined(folder, **arguments):
    with Guard() as guard:
        return guard.call("examine", [folder], arguments)


@pytest.mark.slow
def test_a_damaged_file_is_an_error_and_no_crash(images, tmp_path):
    """LMDB believes its pages; whatever it does with bad ones, the program answers."""
    make_lmdb(open_source(images), tmp_path / "db", BuildOptions(size=(24, 20)))
    path = tmp_path / "db/data.mdb"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(12):
        data = bytearray(whole)
        for place in rng.integers(8192, len(data), 400):
            data[place] = rng.integers(256)
        data[4096 * 2 : 4096 * 2 + 64] = rng.bytes(64)
        path.write_bytes(bytes(data))
        try:
            examined(tmp_path / "db", sample=None)
            outcomes.add("read")
        except FormatError as error:
            outcomes.add(error.message.partition(":")[2].split()[0])
    assert outcomes
    path.write_bytes(whole)
    assert examined(tmp_path / "db")["num_records"] == 60


def test_a_process_that_dies_is_an_error(images, tmp_path, monkeypatch):
    from irv2caffe.data.inspect import sandbox

    boot = "import os, sys; os.kill(os.getpid(), 11)"
    monkeypatch.setattr(sandbox, "_BOOT", boot)
    with pytest.raises(FormatError, match="reading it ends with SIGSEGV"):
        examined(tmp_path)


def test_a_disk_that_fails_is_no_damaged_database(tmp_path, monkeypatch):
    from irv2caffe.data.inspect import sandbox

    boot = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1])\n"
        "from irv2caffe.data.inspect import database_report, sandbox\n"
        "def fail(*args, **others): raise {}\n"
        "database_report.examine = fail; sandbox.main()"
    )
    for error, words in (
        ("OSError(5, 'Input/output error', 'x/data.mdb')", "cannot read x/data.mdb: Input/output"),
        ("MemoryError()", "a record needs more memory"),
    ):
        monkeypatch.setattr(sandbox, "_BOOT", boot.format(error))
        with pytest.raises(InputError, match=words) as e:
            examined(tmp_path)
        assert not isinstance(e.value, FormatError)


def test_names_that_no_terminal_can_show(tmp_path):
    folder = write(tmp_path / "db", [(b"a", raw(0)), (b"b", raw(1))])
    (folder / "labels.txt").write_bytes(b"caf\xe9\ndog\n")
    done = inspected(folder, "--classes")
    assert done.returncode == 0, done.stderr
    assert "caf\\udce9" in done.stdout


# The store itself


def test_a_database_grows_beyond_its_first_map(tmp_path):
    value = bytes(1 << 20)
    with DatabaseWriter(tmp_path, room_bytes=32 << 20) as writer:
        for index in range(150):
            writer.put(b"%08d" % index, value)
            if index % 16 == 15:
                writer.commit()
    with open_reader(tmp_path) as reader:
        assert len(reader) == 150
        assert [key for key, _ in reader.sample(3)] == [b"00000000", b"00000050", b"00000100"]
        assert reader.info().last_transaction == 10


def test_what_is_not_committed_is_gone(tmp_path):
    writer = DatabaseWriter(tmp_path)
    writer.put(b"1", b"one")
    writer.commit()
    writer.put(b"2", bytes(5 << 20))
    writer.close()
    assert last_transaction(tmp_path) == 1
    with open_reader(tmp_path) as reader:
        assert [key for key, _ in reader] == [b"1"]


def test_the_disk_holds_all_of_the_lock_file_before_it_is_mapped(tmp_path):
    """A hole in it would end the process by SIGBUS when the disk is full."""
    (tmp_path / "lock.mdb").touch()  # a disk that was full left it
    writer = DatabaseWriter(tmp_path)
    writer.put(b"1", b"one")
    lock = (tmp_path / "lock.mdb").stat()
    writer.close()
    assert lock.st_blocks * 512 >= lock.st_size == 8192


def test_keys_must_ascend(tmp_path):
    from irv2caffe.errors import OutputError

    writer = DatabaseWriter(tmp_path)
    writer.put(b"2", b"")
    with pytest.raises(OutputError, match="does not sort"):
        writer.put(b"1", b"")
    writer.close()


def test_images_in_a_database_of_another_kind(tmp_path):
    """A PNG of 16 bits: Caffe would refuse it in training, and so it is a finding."""
    from helpers.zoo import png16

    data = png16(np.random.default_rng(0), 10, 8, 3)
    good = file_bytes(Image.new("RGB", (10, 8)), "png")
    folder = write(
        tmp_path / "db",
        [
            (b"1", Datum(data=data, encoded=True, label=0).SerializeToString()),
            (b"2", Datum(data=good, encoded=True, label=0).SerializeToString()),
        ],
    )
    assert "has uint16 values" in examine(folder).findings[0]
