"""The command classify and what it opens, in the real Caffe."""

import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace

import cv2
import numpy as np
import pytest
from helpers.evaluation_jobs import NAMES, NUM_VAL, make_databases, write_net
from helpers.program import run

from irv2caffe.data.lmdb_store import open_reader
from irv2caffe.data.records.decode import stored_pixels
from irv2caffe.errors import (
    FormatError,
    InputError,
    Irv2CaffeError,
    NetError,
    UsageError,
    WeightsError,
)
from irv2caffe.inference.crops import UnfitImageError
from irv2caffe.inference.feeding import feed
from irv2caffe.inference.finding import PreprocessingOptions
from irv2caffe.inference.images import read_images
from irv2caffe.inference.opening import open_model
from irv2caffe.inference.preprocessing import read_preprocessing
from irv2caffe.proto.snapshot_headers import read_model_header

FILES = [index for index in range(12) if index % 6 != 2]  # whose name is no name of a folder
NUM_FILES = len(FILES)
MODEL = "own/small_iter_7.caffemodel"


@pytest.fixture(scope="module")
def root(caffe_nets, tmp_path_factory):
    """Databases, a net with weights in ``own``, and some of the records as files in ``files``."""
    folder = tmp_path_factory.mktemp("classify")
    make_databases(folder)
    net = write_net(folder / "own", folder)
    caffe_nets.run(net.read_text(), "TRAIN", backward=False, passes=3, save=[folder / MODEL])
    for index, (_, value) in enumerate(open_records(folder / "val")):
        if index not in FILES:
            continue
        place = folder / "files" / NAMES[index % 6] / f"{index:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(cv2.imencode(".png", stored_pixels(value))[1].tobytes())
    (folder / "loose").mkdir()
    for path in sorted((folder / "files").rglob("*.png")):
        shutil.copy(path, folder / "loose")
    return folder


def open_records(folder):
    with open_reader(folder) as reader:
        return list(reader)


@pytest.fixture(scope="module")
def of_database(root):
    """What classify prints for the database."""
    return classify(root / MODEL, root / "val")


@pytest.fixture(scope="module")
def of_loose_files(root):
    """What classify prints for files without class folders."""
    return classify(root / MODEL, root / "loose")


def classify(*args, code=0, **more):
    done = run("classify", *args, "--json", **more)
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def expected(caffe_nets, root):
    """The probabilities of the net with its own data layer, in pycaffe."""
    text = (root / "own/train_val.prototxt").read_text().replace("batch_size: 15", "batch_size: 45")
    text += 'layer { name: "p" type: "Softmax" bottom: "fc" top: "p" }'
    found = caffe_nets.run(text, "TEST", backward=False, load=[root / MODEL])
    return found.blobs["p"], found.blobs["label"]


def test_a_database_gets_the_probabilities_of_its_data_layer(caffe_nets, root, of_database):
    wanted, labels = expected(caffe_nets, root)
    assert len(of_database) == NUM_VAL
    for found, row, label in zip(of_database, wanted, labels, strict=True):
        order = np.argsort(-row, kind="stable")[:3]
        assert [one["label"] for one in found["top"]] == order.tolist()
        assert [one["class"] for one in found["top"]] == [NAMES[at] for at in order]
        for one in found["top"]:
            assert one["probability"] == pytest.approx(row[one["label"]], abs=2e-6)
        assert found["known"] == {"label": label, "class": NAMES[int(label)]}


def test_files_get_the_same_as_the_records_made_of_them(root, of_database, of_loose_files):
    found = {one["image"].rpartition("/")[2]: one for one in classify(root / MODEL, root / "files")}
    loose = {one["image"].rpartition("/")[2]: one for one in of_loose_files}
    assert len(found) == len(loose) == NUM_FILES
    for index in FILES:
        record = of_database[index]
        one = found[f"{index:02}.png"]
        assert one["known"] == record["known"]
        assert "known" not in loose[f"{index:02}.png"]
        for other in (one, loose[f"{index:02}.png"]):
            assert [top["label"] for top in other["top"]] == [top["label"] for top in record["top"]]
            for ours, theirs in zip(other["top"], record["top"], strict=True):
                assert ours["probability"] == pytest.approx(theirs["probability"], abs=2e-6)


def test_pytorch_gives_what_caffe_gives(root, of_database):
    pytest.importorskip("torch")
    found = classify(root / MODEL, root / "val", "--engine", "torch")
    for ours, theirs in zip(found, of_database, strict=True):
        for one, other in zip(ours["top"], theirs["top"], strict=True):
            assert one["label"] == other["label"]
            assert one["probability"] == pytest.approx(other["probability"], abs=5e-6)


def test_what_cannot_be_read_is_listed_and_the_sheet_is_drawn(root, tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(root / "loose", pictures)
    (pictures / "text.jpg").write_text("not an image")
    whole = (pictures / "00.png").read_bytes()
    (pictures / "cut.png").write_bytes(whole[: len(whole) // 2])
    sheet = tmp_path / "sheet.png"
    done = run("classify", root / MODEL, pictures, "--sheet", sheet, "--top", 1)
    assert done.returncode == 3, done.stderr
    assert f"{pictures / 'cut.png'}: cut short" in done.stderr
    assert f"{pictures / 'text.jpg'}: not an image" in done.stderr
    assert f"{NUM_FILES} image(s)" in done.stderr
    assert "2 could not be read" in done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == NUM_FILES
    assert all(any(f"% {name}" in line for name in NAMES) for line in lines)
    assert cv2.imread(str(sheet)) is not None
    again = run("classify", root / MODEL, pictures, "--sheet", sheet)
    assert again.returncode == 3  # its own sheet is drawn anew
    sheet.write_bytes(next(pictures.rglob("*.png")).read_bytes())
    refused = run("classify", root / MODEL, pictures, "--sheet", sheet)
    assert refused.returncode == 1
    assert "irv2caffe did not make it" in refused.stderr
    assert run("classify", root / MODEL, pictures, "--sheet", sheet, "--force").returncode == 3


@pytest.mark.parametrize("crops", [10, 12, 144])
def test_the_probabilities_of_several_crops_are_averaged(root, crops, caffe_nets):
    """The views are cut out here by hand, and run in pycaffe."""
    path = min((root / "files").rglob("*.png"))
    image = cv2.imread(str(path)).astype(np.float32)  # 14 x 14
    squares = [image]
    if crops == 144:  # 12 / 224 of the four sides, at least 12; squares of a square are the same
        sides = [round(side * 12 / 224) for side in (256, 288, 320, 352)]
        pixels = image.astype(np.uint8)
        squares = [cv2.resize(pixels, (side, side)) for side in sides for _ in range(3)]
    views = []
    for square in squares:
        far = square.shape[0] - 12
        corners = [(0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)]
        found = [square[top : top + 12, left : left + 12] for top, left in corners]
        if crops > 10:
            found.append(cv2.resize(square.astype(np.uint8), (12, 12)))
        for view in found:
            views += [view, view[:, ::-1]]
    assert len(views) == crops
    mean = np.array([100, 110, 120], np.float32).reshape(3, 1, 1)
    batch = (np.stack(views).transpose(0, 3, 1, 2) - mean) * 0.01
    net = open_model(root / MODEL).net
    from irv2caffe.proto.text import format_prototxt

    inputs = {"data": batch.astype(np.float32)}
    run_ = caffe_nets.run(
        format_prototxt(net), "TEST", backward=False, inputs=inputs, load=[root / MODEL]
    )
    wanted = run_.blobs["prob"].mean(axis=0)
    (one,) = classify(root / MODEL, path, "--crops", crops, "--top", 6)
    for top in one["top"]:
        assert top["probability"] == pytest.approx(wanted[top["label"]], abs=2e-6)


def make_run(root, folder):
    """A run folder with two snapshots."""
    (folder / "snapshots").mkdir(parents=True)
    shutil.copy(root / "own/train_val.prototxt", folder)
    (folder / "solver.prototxt").write_text('net: "/elsewhere/train_val.prototxt"')
    (folder / "config.json").write_text('{"irv2caffe": "0"}')
    for iteration in (10, 30):
        shutil.copy(root / MODEL, folder / f"snapshots/a_iter_{iteration}.caffemodel")
    return folder


def test_snapshots_of_a_run(root, tmp_path):
    folder = make_run(root, tmp_path / "run")
    model = open_model(folder)
    assert (model.iteration, model.run) == (30, folder)
    assert model.class_names == NAMES
    assert any("no best snapshot" in note for note in model.notes)
    assert open_model(folder, snapshot="last").notes == ()
    assert open_model(folder, snapshot="10").iteration == 10
    assert open_model(folder / "snapshots/a_iter_10.caffemodel").run == folder
    with pytest.raises(UsageError, match="no such snapshot"):
        open_model(folder, snapshot="20")
    with pytest.raises(UsageError, match="no such snapshot"):
        open_model(folder, snapshot="../x")
    torn = folder / "snapshots/a_iter_30.caffemodel"
    torn.write_bytes(torn.read_bytes()[:-100])
    model = open_model(folder, snapshot="last")
    assert model.iteration == 10
    assert any("incomplete" in note for note in model.notes)


def test_the_preprocessing_is_that_of_the_data_layer_and_its_database(root):
    made = open_model(root / MODEL).preprocessing
    assert made.mean.tolist() == [100, 110, 120]
    assert made.scale == np.float32(0.01)
    assert (made.height, made.width, made.stored) == (12, 12, (14, 14))


def test_a_deploy_net_tells_it_in_its_header(root, tmp_path, of_loose_files):
    shutil.copy(root / MODEL, tmp_path)
    net = open_model(root / MODEL).net
    from irv2caffe.proto.text import write_prototxt

    line = "input: BGR, 0 to 255, minus 100 110 120, times 0.01; output: prob, 6 class"
    write_prototxt(tmp_path / "deploy.prototxt", net, header=f"irv2caffe 1\n{line}")
    model = open_model(tmp_path / "small_iter_7.caffemodel")
    assert model.preprocessing.mean.tolist() == [100, 110, 120]
    assert model.preprocessing.resized_to == (12, 12)
    assert any("--resize" in note for note in model.notes)
    write_prototxt(tmp_path / "deploy.prototxt", net)
    with pytest.raises(InputError, match="not known") as caught:
        open_model(tmp_path)
    assert "--mean-value" in caught.value.hint
    told = PreprocessingOptions(mean_value=(100, 110, 120), scale=0.01, resize=(14, 14))
    model = open_model(tmp_path, override=told)
    assert model.preprocessing.stored == (14, 14)
    assert model.notes == ("no class table was found: classes are numbers; --labels names one",)
    args = ("--mean-value", "100,110,120", "--scale", "0.01", "--resize", 14)
    done = run("classify", tmp_path, root / "loose", *args, "--labels", root / "val", "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["top"] for line in done.stdout.splitlines()] == [
        one["top"] for one in of_loose_files
    ]


def test_a_bundles_file_gives_the_same_preprocessing_back(root, tmp_path):
    made = open_model(root / MODEL).preprocessing
    made.write(tmp_path)
    back = read_preprocessing(tmp_path)
    assert back is not None
    assert back.as_dict() | {"source": ""} == made.as_dict() | {"source": ""}
    for change in ({"crop": None}, {"scale": "x"}, {"mean": [1e999]}, {"channels": 10**9}, {}):
        values = json.loads((tmp_path / "preprocessing.json").read_text()) if change else {}
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad/preprocessing.json").write_text(json.dumps(values | change))
        with pytest.raises(InputError, match="preprocessing"):
            read_preprocessing(tmp_path / "bad")


def test_weights_of_another_net_are_refused(root, tmp_path):
    text = (root / "own/train_val.prototxt").read_text()
    other = tmp_path / "train_val.prototxt"
    other.write_text(text.replace('name: "fc"', 'name: "fc2"'))
    with pytest.raises(WeightsError, match="fc2 is not in the weights"):
        open_model(root / MODEL, net=other)
    other.write_text(text.replace("num_output: 8", "num_output: 9"))
    with pytest.raises(WeightsError, match="conv"):
        open_model(root / MODEL, net=other)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nothing", "no such file"),
        ("own/train_val.prototxt", "--net"),
        ("val", "neither a run nor holds a model"),
        ("files/ant/00.png", "not a model"),
    ],
)
def test_what_is_no_model_is_named(root, source, words):
    with pytest.raises(InputError) as caught:
        open_model(root / source)
    assert words in str(caught.value)


def test_a_label_table_of_another_size_is_refused(root, tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match="2 classes, the net has 6"):
        open_model(root / MODEL, labels=tmp_path / "labels.txt")


def test_missing_images_are_named_before_anything_runs(root):
    done = run("classify", root / MODEL, root / "loose", root / "nothing")
    assert done.returncode == 1
    assert "nothing: no such file" in done.stderr
    assert not done.stdout


def test_a_closed_pipe_ends_it(root):
    """No process is left: the one that runs the net ends with its standard input."""
    command = [sys.executable, "-m", "irv2caffe", "classify", str(root / MODEL), str(root / "val")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.close()
    child.wait(60)
    left = subprocess.run(
        ["pgrep", "-f", str(root / MODEL)], capture_output=True, text=True, check=False
    )
    assert not left.stdout


def test_unreadable_records_and_images_that_do_not_fit(root, tmp_path):
    model = open_model(root / MODEL)
    small = np.zeros((10, 9, 3), np.uint8)
    (tmp_path / "small.png").write_bytes(cv2.imencode(".png", small)[1].tobytes())
    found = classify(root / MODEL, tmp_path / "small.png", "--resize", "none", code=1)
    assert "smaller than the net's input" in found[0]["error"]
    images = read_images(tmp_path, model)
    assert [image.pixels.shape for image in images] == [(14, 14, 3)]


def test_a_net_that_is_no_classifier(root, tmp_path):
    text = (root / "own/train_val.prototxt").read_text()
    other = tmp_path / "net.prototxt"
    other.write_text(text.replace("SoftmaxWithLoss", "EuclideanLoss").replace("Accuracy", "ArgMax"))
    with pytest.raises(NetError, match="numbers, not classes"):
        open_model(root / MODEL, net=other)


def test_a_run_without_its_database_still_knows_sizes_and_names(root, tmp_path):
    folder = make_run(root, tmp_path / "run")
    net = folder / "train_val.prototxt"
    net.write_text(net.read_text().replace(str(root), "/gone"))
    model = open_model(folder)
    assert model.preprocessing.resized_to == (12, 12)
    assert any("--resize" in note for note in model.notes)
    stored = {"size": [20, 14], "resize_mode": "fill", "interpolation": "area", "gray": False}
    (folder / "config.json").write_text(json.dumps({"irv2caffe": "0", "stored_images": stored}))
    (folder / "labels.txt").write_text("\n".join(NAMES))
    made = open_model(folder).preprocessing
    assert (made.stored, made.resize, made.interpolation) == ((14, 20), "fill", "area")
    assert open_model(folder).class_names == NAMES
    for bad in ({"size": [10**9, 1]}, {"size": "x"}, {"resize_mode": "rm"}, {"gray": 7}):
        config = {"irv2caffe": "0", "stored_images": stored | bad}
        (folder / "config.json").write_text(json.dumps(config))
        assert open_model(folder).preprocessing.resized_to in {(12, 12), (14, 20)}


def test_nets_that_need_too_much_memory_are_refused(root, tmp_path):
    text = (root / "own/train_val.prototxt").read_text()
    other = tmp_path / "net.prototxt"
    layers = [
        'layer { name: "t0" type: "Tile" bottom: "bn" top: "t0" tile_param { tiles: 2000000 } }',
        *(
            f'layer {{ name: "t{at}" type: "Power" bottom: "t{at - 1}" top: "t{at}" }}'
            for at in range(1, 1000)
        ),
        'layer { name: "c" type: "Reduction" bottom: "t999" top: "c" reduction_param { axis: 2 } }',
    ]
    head = 'layer { name: "fc" type: "InnerProduct" bottom: '
    other.write_text(text.replace(f'{head}"bn"', f'{" ".join(layers)} {head}"c"'))
    with pytest.raises(NetError, match="of memory for one image"):
        open_model(root / MODEL, net=other)


def test_damaged_files_give_errors(root, tmp_path):
    """Bytes of the weights, the net and the database are changed; nothing but errors may come."""
    rng = np.random.default_rng(7)
    shutil.copytree(root / "own", tmp_path / "own")
    shutil.copytree(root / "val", tmp_path / "val")
    net = tmp_path / "own/train_val.prototxt"
    net.write_text(net.read_text().replace(f"{root}/val", f"{tmp_path}/val"))
    outcomes = set()
    for name in ("small_iter_7.caffemodel", "train_val.prototxt"):
        path = tmp_path / "own" / name
        whole = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(whole)
            for place in rng.integers(0, len(whole), 3):
                damaged[place] = rng.integers(0, 256)
            path.write_bytes(damaged[: rng.integers(1, len(whole) + 1)])
            try:
                open_model(tmp_path / MODEL)
            except Irv2CaffeError as error:
                outcomes.add(type(error).__name__)
        path.write_bytes(whole)
    assert "FormatError" in outcomes
    model = open_model(tmp_path / MODEL)
    whole = (tmp_path / "val/data.mdb").read_bytes()
    for _ in range(4):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 400):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / "val/data.mdb").write_bytes(damaged)
        try:
            images = read_images(tmp_path / "val", model)
            assert sum(1 for _ in images) + len(images.skipped) <= NUM_VAL
        except Irv2CaffeError:
            pass


def test_a_run_keeps_the_classes_and_sizes_of_its_training(root, tmp_path):
    """Also where the database that its net names was made again in another order and size."""
    folder = make_run(root, tmp_path / "run")
    names = tuple(reversed(NAMES))
    (folder / "labels.txt").write_text("\n".join(names))
    stored = {"size": [20, 14], "resize_mode": "fill", "interpolation": "area", "gray": False}
    (folder / "config.json").write_text(json.dumps({"irv2caffe": "0", "stored_images": stored}))
    model = open_model(folder)
    assert model.class_names == names
    assert model.preprocessing.stored == (14, 20)


@pytest.mark.parametrize("is_archive", [False, True])
def test_folders_for_a_model_without_class_names(root, tmp_path, is_archive):
    """Numbers are sorted as numbers, as make-lmdb does; too few folders tell no class."""
    model = replace(open_model(root / MODEL), class_names=(), num_classes=11)
    for number in range(11):
        (tmp_path / f"images/{number}").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / f"images/{number}/a.png"), np.zeros((20, 20, 3), np.uint8))
    source = tmp_path / "images"
    if is_archive:
        source = tmp_path / "images.tar"
        with tarfile.open(source, "w") as archive:
            for path in sorted((tmp_path / "images").iterdir()):
                archive.add(path, path.name)
    names = {image.name: image.label for image in read_images(source, model)}
    assert names == {f"{number}/a.png": number for number in range(11)}
    images = read_images(source, replace(model, num_classes=1000))
    assert {image.label for image in images} == {None}
    assert ("no labels" in "".join(images.notes)) == is_archive


def test_hdf5_weights_of_another_net_are_refused(root, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "other.caffemodel.h5"
    net = root / "own/train_val.prototxt"
    with h5py.File(path, "w") as file:
        file.create_dataset("data/elsewhere/0", data=np.zeros((2, 3), np.float32))
    with pytest.raises(WeightsError, match="is not in the weights"):
        open_model(path, net=net)
    with h5py.File(path, "w") as file:
        for layer in read_model_header(root / MODEL).layers:
            for number, shape in enumerate(layer.shapes):
                blob = np.zeros(shape, np.float32)
                file.create_dataset(f"data/{layer.definition.name}/{number}", data=blob)
    assert open_model(path, net=net).num_classes == len(NAMES)


def test_a_narrow_image_does_not_end_144_crops(root):
    made = open_model(root / MODEL).preprocessing
    with pytest.raises(UnfitImageError, match="narrow"):
        feed(made, np.zeros((1, 9000, 3), np.uint8), crops=144)


@pytest.mark.parametrize(
    "bad", [{"mean": [10**400]}, {"mean": [1e300, 1, 1]}, {"scale": 1e-300}, {"scale": 1e300}]
)
def test_numbers_that_float32_does_not_hold_are_refused(root, tmp_path, bad):
    open_model(root / MODEL).preprocessing.write(tmp_path)
    values = json.loads((tmp_path / "preprocessing.json").read_text())
    (tmp_path / "preprocessing.json").write_text(json.dumps(values | bad))
    with pytest.raises(FormatError):
        read_preprocessing(tmp_path)
