"""Order, shares, random crops, corrupt records and threads of the engine's data layers."""

from __future__ import annotations

import struct
import threading
import zlib

import cv2
import numpy as np
import pytest
from helpers.databases import encoded, floats, raw, smooth, write_database
from helpers.feeds import caffe_batches, data_net, feed_of, taken

from irv2caffe.data.records.augment import Distortion, recolored
from irv2caffe.data.records.datum import encoded_head, encoded_tail, raw_head
from irv2caffe.data.records.mean import mean_blob
from irv2caffe.engine.data.batches import HostBatch, recolored_batch
from irv2caffe.engine.data.pictures import decode_datum
from irv2caffe.errors import FormatError, InputError, NetError, UsageError
from irv2caffe.proto.binary import write_binary
from irv2caffe.proto.wire import varint

COUNT = 10  # records of most databases; their labels are their places
SIDE, CROP = 41, 12  # offsets of crops are 0 to 29


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A database of ten tiny records."""
    folder = tmp_path_factory.mktemp("numbered") / "db"
    image = np.zeros((2, 2, 1), np.uint8)
    return write_database(folder, [raw(image + n, n) for n in range(COUNT)])


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A record whose channels hold the row, the column and zero."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
    image = np.stack([rows, columns, rows * 0], 2)
    return write_database(tmp_path_factory.mktemp("grid") / "db", [raw(image, 0)])


def labels(feed, count):
    return taken(feed, count)["label"].astype(int).ravel().tolist()


@pytest.mark.slow
def test_processes_read_the_shares_that_caffe_gives_to_solvers(caffe, numbered, tmp_path):
    text = data_net(numbered, batch=3)
    cases = {
        f"{phase}-{rank}-{world}": {"phase": phase, "rank": rank, "world": world}
        for phase in ("TRAIN", "TEST")
        for world in (2, 3, 5)
        for rank in range(world)
    }
    asked = {name: {**case, "text": text, "count": 5} for name, case in cases.items()}
    real = caffe_batches(caffe, tmp_path, asked)
    for name, case in cases.items():
        wanted = real[f"{name}.label"].astype(int).ravel().tolist()
        assert labels(feed_of(text, **case), 5) == wanted, name


def offsets(data):
    """Row, column and mirrored of crops of ``grid``."""
    crops = data.reshape(-1, *data.shape[-3:]).astype(int)
    mirrored = crops[:, 1, 0, 0] > crops[:, 1, 0, -1]
    return crops[:, 0, 0, 0], crops[:, 1, 0].min(1), mirrored


@pytest.mark.slow
def test_random_crops_and_mirror_images_occur_as_in_caffe(caffe, grid, tmp_path):
    """All 30 offsets in both directions, both ends included, and mirrored or not."""
    text = data_net(grid, f"crop_size: {CROP} mirror: true", batch=500, tops=["data"])
    test = data_net(grid, f"crop_size: {CROP} mirror: true", batch=500, tops=["data"])
    cases = {
        "TRAIN": {"text": text, "phase": "TRAIN", "count": 6},
        "TEST": {"text": test, "phase": "TEST", "count": 6},
    }
    real = caffe_batches(caffe, tmp_path, cases)
    for phase in cases:
        for data in (real[f"{phase}.data"], taken(feed_of(text, phase), 6)["data"]):
            rows, columns, mirrored = offsets(data)
            expected = range(SIDE - CROP + 1) if phase == "TRAIN" else [(SIDE - CROP) // 2]
            assert sorted(set(rows)) == sorted(set(columns)) == list(expected)
            assert abs(mirrored.mean() - 0.5) < 0.05  # five standard deviations
            pairs = np.histogram2d(rows, columns, 3)[0] / len(rows)
            if phase == "TRAIN":  # each ninth of the offsets, independently
                assert abs(pairs - 1 / 9).max() < 0.03


def test_crops_do_not_depend_on_threads_but_on_the_seed(grid, tmp_path):
    rng = np.random.default_rng(1)
    records = [encoded(smooth(rng, SIDE, SIDE), n) for n in range(40)]
    text = data_net(write_database(tmp_path / "db", records), "crop_size: 9 mirror: true", batch=7)

    def batches(**told):
        return taken(feed_of(text, **told), 8)["data"]

    one = batches(data_threads=1)
    assert np.array_equal(one, batches(data_threads=5))
    assert np.array_equal(one, batches())
    assert not np.array_equal(one, batches(seed=2))
    assert not np.array_equal(batches(seed=None), batches(seed=None))


def test_shuffling_is_another_permutation_in_each_epoch(numbered):
    text = data_net(numbered, batch=5)
    epochs = np.array(labels(feed_of(text, shuffle=True), 8)).reshape(4, COUNT)
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4
    again = np.array(labels(feed_of(text, shuffle=True), 8)).reshape(4, COUNT)
    other = np.array(labels(feed_of(text, shuffle=True, seed=2), 8)).reshape(4, COUNT)
    assert np.array_equal(epochs, again)
    assert not np.array_equal(epochs, other)
    assert labels(feed_of(text, "TEST", shuffle=True), 2) == list(range(COUNT))


def test_shuffled_shares_of_processes_are_disjoint(numbered):
    """Three processes read thirty records in ten steps: each of the ten three times."""
    text = data_net(numbered, batch=1)
    shares = [labels(feed_of(text, shuffle=True, rank=r, world=3), COUNT) for r in range(3)]
    together = np.array(shares).T.ravel()  # in the order of the steps
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in together.reshape(3, COUNT).tolist())


def test_a_restart_begins_at_the_first_record_and_each_end_is_said(numbered):
    said: list[tuple[str, str]] = []
    text = data_net(numbered, batch=4)
    for _ in range(2):
        feed = feed_of(text, info=lambda *line: said.append(line))
        assert labels(feed, 3) == [*range(COUNT), 0, 1]
    assert said[:2] == [
        ("db_lmdb.cpp:35", f"Opened lmdb {numbered}"),
        ("data_layer.cpp:45", "output data size: 4,1,2,2"),
    ]
    assert said.count(("data_layer.cpp:73", "Restarting data prefetching from start.")) >= 2


def test_several_layers_and_one_top(numbered, grid):
    text = data_net(numbered, batch=4) + data_net(grid, name="other", tops=["other"], batch=1)
    found = taken(feed_of(text), 3)
    assert {name: top.shape[1:] for name, top in found.items()} == {
        "data": (4, 1, 2, 2),
        "label": (4,),
        "other": (1, 3, SIDE, SIDE),
    }


def test_several_feeds_and_layers_read_one_database(numbered, tmp_path):
    """As the training net and the test nets of a solver do."""
    link = tmp_path / "link"
    link.symlink_to(numbered)
    text = data_net(numbered, batch=4)
    one, two = feed_of(text), feed_of(text, "TEST")
    assert one.next()["label"].tolist() == two.next()["label"].tolist() == [0, 1, 2, 3]
    one.close()
    assert two.next()["label"].tolist() == [4, 5, 6, 7]
    both = text + data_net(link, name="other", tops=["x", "y"], batch=6)
    assert taken(feed_of(both), 1)["y"].tolist() == [list(range(6))]
    two.close()
    assert labels(feed_of(text), 1) == [0, 1, 2, 3]


def damaged_database(folder, bad, total=12):
    """A database of JPEG records, some of which are not."""
    rng = np.random.default_rng(2)
    records = []
    for n in range(total):
        record = encoded(smooth(rng, 9, 9), n)
        if n in bad:
            data = record[:20]
            record = encoded_head(len(data)) + data + encoded_tail(n)
        records.append(record)
    return write_database(folder, records)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_corrupt_record_ends_the_run_where_it_is_wanted(tmp_path, threads):
    folder = damaged_database(tmp_path / "db", {6})
    feed = feed_of(data_net(folder, batch=3), data_threads=threads)
    with feed:
        for expected in ([0, 1, 2], [3, 4, 5]):
            assert feed.next()["label"].tolist() == expected
        for _ in range(2):
            with pytest.raises(FormatError, match=r"'00000006_6.png'") as caught:
                feed.next()
            assert str(folder) in str(caught.value)
            assert "--skip-corrupt" in caught.value.hint


@pytest.mark.parametrize("bad", [{0}, {6}, {3, 4, 5, 11}, set(range(11))])
def test_corrupt_records_are_left_out_and_counted(tmp_path, bad):
    said: list[str] = []
    folder = damaged_database(tmp_path / "db", bad)
    feed = feed_of(
        data_net(folder, batch=3), skip_corrupt=True, info=lambda _, line: said.append(line)
    )
    good = [n for n in range(12) if n not in bad]
    assert labels(feed, 9) == (good * 27)[:27]
    assert f"{len(bad)} corrupt records of {folder} were left out" in said[-1]
    assert sum("left out, " in line for line in said) == len(f"{len(bad):b}")


def test_a_database_of_corrupt_records_ends_the_run(tmp_path):
    folder = damaged_database(tmp_path / "db", set(range(12)))
    with pytest.raises(FormatError, match="cannot be used"):
        feed_of(data_net(folder), skip_corrupt=True)


def test_a_record_of_another_size_is_named(tmp_path):
    image = np.zeros((9, 9, 3), np.uint8)
    records = [raw(image, 0), raw(image[:8], 1), encoded(image[:, :, :1], 2)]
    folder = write_database(tmp_path / "db", records)
    feed = feed_of(data_net(folder, batch=1))
    with feed, pytest.raises(FormatError, match=r"'00000001_1.png' cannot be used: .*3 x 8 x 9"):
        [feed.next() for _ in range(3)]
    assert labels(feed_of(data_net(folder, batch=1), skip_corrupt=True), 3) == [0, 0, 0]


def test_records_with_wrong_sizes_are_refused(tmp_path):
    """Caffe reads past their ends."""
    short = raw(np.zeros((9, 9, 3), np.uint8), 0).replace(b"\x10\x09", b"\x10\x7f", 1)
    folder = write_database(tmp_path / "db", [short])
    with pytest.raises(FormatError, match="3 x 127 x 9, but 243 values"):
        feed_of(data_net(folder))


def test_what_cannot_be_trained_with_is_refused(numbered, tmp_path):
    with pytest.raises(InputError, match="LevelDB"):
        feed_of(data_net(numbered).replace("backend: LMDB", ""))
    with pytest.raises(NetError, match="'x' \\(Input\\)"):
        feed_of('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 } } }')
    others = ("HDF5Data", "MemoryData", "WindowData")
    text = "".join(f'layer {{ name: "{t}" type: "{t}" top: "{t}" top: "{t}2" }}' for t in others)
    with pytest.raises(NetError, match=r"HDF5Data.*MemoryData.*WindowData") as caught:
        feed_of(text)
    assert "--engine caffe" in caught.value.hint
    with pytest.raises(FormatError, match="without records"):
        feed_of(data_net(write_database(tmp_path / "empty", [])))
    with pytest.raises(NetError, match="batch_size"):
        feed_of(data_net(numbered, batch=0))
    with pytest.raises(UsageError, match="--augment"):
        feed_of(data_net(numbered, "crop_size: 2"), augment="colours")
    with pytest.raises(InputError, match="crop_size"):
        feed_of(data_net(numbered), augment="inception")


@pytest.mark.parametrize("num_batches", [0, 1])
def test_closing_ends_all_threads(numbered, num_batches):
    before = threading.active_count()
    with feed_of(data_net(numbered)) as feed:
        for _ in range(num_batches):
            feed.next()
    assert threading.active_count() == before


def test_memory_of_batches_is_used_again(numbered):
    with feed_of(data_net(numbered)) as feed:
        assert len({feed.next()["data"].data_ptr() for _ in range(12)}) <= 3
        assert feed.waited_s > 0


def test_waits_count_only_where_the_device_has_nothing_to_do(numbered, monkeypatch):
    with feed_of(data_net(numbered)) as feed:
        feed.next()
        first = feed.waited_s
        assert first > 0
        feed.next()
        assert feed.waited_s > first
        monkeypatch.setattr(HostBatch, "is_done", lambda _: False)
        waited = feed.waited_s
        for _ in range(5):
            feed.next()
        assert feed.waited_s == waited


def write_list(folder, count):
    for n in range(count):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((3, 3, 3), n, np.uint8))
    (folder / "list").write_text("".join(f"{n}.png {n}\n" for n in range(count)))


def list_text(folder, param):
    return (
        f'layer {{ name: "in" type: "ImageData" top: "data" top: "label" image_data_param {{ '
        f'source: "{folder}/list" root_folder: "{folder}/" batch_size: 2 {param} }} }}'
    )


def test_lists_are_shuffled_and_skipped_into(tmp_path):
    write_list(tmp_path, 6)
    epochs = np.array(labels(feed_of(list_text(tmp_path, "shuffle: true")), 9)).reshape(3, 6)
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
    firsts = set()
    for seed in range(30):
        found = labels(feed_of(list_text(tmp_path, "rand_skip: 3"), seed=seed), 3)
        firsts.add(found[0])
        assert found == [(found[0] + n) % 6 for n in range(6)]
    assert firsts == {0, 1, 2}
    shares = [labels(feed_of(list_text(tmp_path, ""), rank=r, world=2), 3) for r in range(2)]
    assert shares == [list(range(6))] * 2  # Caffe's solvers all read the whole list


def test_a_missing_image_is_named_or_left_out(tmp_path):
    write_list(tmp_path, 6)
    (tmp_path / "3.png").unlink()
    feed = feed_of(list_text(tmp_path, ""))
    feed.next()
    with feed, pytest.raises(FormatError, match=r"'3.png' cannot be used: no such file"):
        feed.next()
    assert labels(feed_of(list_text(tmp_path, ""), skip_corrupt=True), 3) == [0, 1, 2, 4, 5, 0]


@pytest.mark.parametrize("kind", ["raw", "jpg"])
@pytest.mark.parametrize("staged", [False, True], ids=["cpu", "as-on-a-device"])
def test_inception_crops_and_colours(tmp_path, kind, staged, monkeypatch):
    """Of one colour, a picture stays of one colour; areas and aspects reach their ends."""
    if staged:
        monkeypatch.setattr("irv2caffe.engine.data.batches.ON_HOST", ())
    image = np.zeros((60, 60, 3), np.uint8) + np.array([40, 90, 200], np.uint8)
    image[:, ::2] += 5
    make = raw if kind == "raw" else encoded
    folder = write_database(tmp_path / "db", [make(image, 3)])
    text = data_net(folder, "crop_size: 16 mirror: true", batch=64)
    found = taken(feed_of(text, augment="inception"), 2)
    means = found["data"].mean((3, 4)).reshape(-1, 3)
    assert found["data"].shape == (2, 64, 3, 16, 16)
    assert np.unique(found["label"]) == 3
    assert means.std(0).min() > 5  # brightness and saturation differ
    assert (means[:, 2] >= means[:, 0] - 1).all()  # the hue stays
    texts = [text.replace("mirror: true", ""), "TEST"]
    plain, augmented = (taken(feed_of(*texts, augment=name), 1) for name in ("", "inception"))
    assert np.array_equal(plain["data"], augmented["data"])  # tests are not augmented


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["raw", "jpg"])
def test_batches_on_a_gpu_are_those_of_the_processor(tmp_path, kind):
    """Bit for bit, also while the GPU is busy with something else."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU here")
    rng = np.random.default_rng(4)
    make = raw if kind == "raw" else encoded
    folder = write_database(tmp_path / "db", [make(smooth(rng, 60, 70), n) for n in range(50)])
    mean = rng.uniform(90, 150, (3, 60, 70)).astype("f4")
    write_binary(tmp_path / "mean", mean_blob(mean))
    for means in (f'mean_file: "{tmp_path}/mean" scale: 0.3', "mean_value: 99.7"):
        text = data_net(folder, f"crop_size: 31 mirror: true {means}", batch=16)
        wanted = taken(feed_of(text), 20)
        with feed_of(text, device="cuda") as feed:
            found = []
            weight = torch.randn(4000, 4000, device="cuda")
            for _ in range(20):
                found.append({name: top.clone() for name, top in feed.next().items()})
                weight = weight @ weight / 4000
        for name, tops in wanted.items():
            assert np.array_equal(torch.stack([f[name] for f in found]).cpu().numpy(), tops)


def test_colours_on_a_device_are_those_of_make_lmdb():
    import torch

    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (50, 4, 5, 3), np.uint8)
    images[0] = 77  # gray has no saturation
    distortions = [
        Distortion(0, 0, 1, 1, rng.uniform(-32, 32), rng.uniform(0.5, 1.5), bool(n % 2))
        for n in range(50)
    ]
    wanted = [recolored(image, d) for image, d in zip(images, distortions, strict=True)]
    numbers = torch.tensor([[d.brightness, d.saturation, d.brightness_first] for d in distortions])
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    found = recolored_batch(x, *numbers.t()).permute(0, 2, 3, 1).numpy()
    difference = abs(found - np.array(wanted, np.float32))
    assert difference.max() <= 1  # a half is rounded up here and down there
    assert (difference > 0).mean() < 0.001


@pytest.mark.parametrize("kind", ["raw", "jpg", "png", "floats"])
def test_damaged_records_are_decoded_or_refused(kind):
    """Whatever the bytes are; nothing else than ValueError reaches the pipeline."""
    rng = np.random.default_rng(6)
    image = smooth(rng, 12, 14)
    whole = {
        "raw": raw(image, 1),
        "jpg": encoded(image, 1),
        "png": encoded(image, 1, "png"),
        "floats": floats(image.transpose(2, 0, 1), 1),
    }[kind]
    num_refused = 0
    for number in range(300):
        record = bytearray(whole)
        reach = 24 if number % 2 else len(record)  # the head, or all of it
        for place in rng.integers(0, min(reach, len(record)), 1 + number % 3):
            record[place] = rng.integers(256)
        if number % 5 == 0:
            del record[rng.integers(len(record)) :]
        try:
            picture = decode_datum(bytes(record), force_color=number % 7 == 0, force_gray=False)
        except ValueError:
            num_refused += 1
        else:
            assert picture.pixels.ndim == 3
            assert picture.pixels.size < 1e7
    assert 30 < num_refused < 300


def test_a_small_record_cannot_ask_for_much_memory():
    """A PNG whose header says 60,000 x 60,000 pixels, and a raw record that says so."""
    png = bytearray(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    huge = encoded_head(len(png)) + bytes(png) + encoded_tail(0)
    with pytest.raises(ValueError, match="pixels"):
        decode_datum(huge, force_color=False, force_gray=False)
    shape = raw_head((3, 60_000, 60_000))[: -len(varint(3 * 60_000**2))]
    with pytest.raises(ValueError, match="values"):
        decode_datum(shape + b"\x01a", force_color=False, force_gray=False)
