"""The files that weights come in: real ones, damaged ones, and ones that lie about their size."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import sys
import zipfile
from contextlib import ExitStack

import cramjam
import h5py
import numpy as np
import pytest
import safetensors.numpy
import torch
from helpers.paths import FILES
from helpers.tf_table import crc32c_slowly, field, masked, number, table
from hypothesis import given, settings
from hypothesis import strategies as st

from irv2caffe.errors import FormatError, InputError, MissingInputError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array, read_array, read_binary, write_binary
from irv2caffe.proto.caffemodel import ModelFile, write_model
from irv2caffe.weights.files.hdf5 import read_hdf5
from irv2caffe.weights.files.safetensors import read_safetensors, write_safetensors
from irv2caffe.weights.files.tf_checkpoint import read_checkpoint
from irv2caffe.weights.files.tf_table import (
    MAGIC,
    SortedTable,
    decompress_snappy,
    masked_crc32c,
)
from irv2caffe.weights.files.torch_file import read_torch
from irv2caffe.weights.files.values import read_at
from irv2caffe.weights.opening import detect, open_weights
from irv2caffe.weights.tensors import FLOAT_KINDS

REAL = FILES / "tf_checkpoints"
sys.path.insert(0, str(REAL))
from make import BRAIN, values  # type: ignore[import-not-found]  # noqa: E402


@pytest.mark.parametrize(
    "name",
    ["v1.ckpt", "v2.ckpt", "v2.ckpt.index", "two_shards.ckpt.data-00001-of-00002"],
)
def test_checkpoints_of_tensorflow_itself(name):
    assert detect(REAL / name) == "checkpoint"
    found, wanted = read_checkpoint(REAL / name), values()
    assert set(found) - {"brain"} == set(wanted)
    for variable, value in wanted.items():
        raw = found[variable]
        assert raw.shape == value.shape
        if raw.kind in FLOAT_KINDS:
            assert raw.kind == value.dtype
            assert np.array_equal(raw.read(), value), variable
    if "brain" in found:
        assert found["brain"].read().tolist() == BRAIN


@pytest.mark.parametrize("name", ["parted_v1.ckpt", "parted_v2.ckpt"])
def test_variables_in_parts_are_told_apart(name):
    raws = read_checkpoint(REAL / name)
    assert {variable: raw.kind for variable, raw in raws.items()} == {
        "parted": "partitioned variable"
    }


def outcome(path, read=read_checkpoint):
    """All values in a file, or None if it is refused."""
    try:
        raws = {name: raw for name, raw in read(path).items() if raw.kind in FLOAT_KINDS}
        return {name: raw.read().tobytes() for name, raw in raws.items()}
    except InputError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1.ckpt", "v2.ckpt.index", "v2.ckpt.data-00000-of-00001"])
def test_a_damaged_checkpoint_is_refused_or_read_right(tmp_path, name):
    """Whichever byte is another one, and wherever the file ends."""
    for file in REAL.glob("v[12].ckpt*"):
        shutil.copy(file, tmp_path)
    whole = outcome(REAL / name)
    data = (REAL / name).read_bytes()
    refused = 0
    for place in range(len(data)):
        spoiled = bytearray(data)
        spoiled[place] ^= 1 << place % 8
        (tmp_path / name).write_bytes(spoiled)
        result = outcome(tmp_path / name)
        refused += result is None
        if result is not None:  # a value that nothing was read of, or the unused meta index
            assert all(whole.get(key, value) == value for key, value in result.items()), place
    assert refused > 0.6 * len(data)
    for place in range(0, len(data), 7):
        (tmp_path / name).write_bytes(data[:place])
        assert outcome(tmp_path / name) is None, place


@pytest.mark.parametrize(("place", "size"), [(1 << 63, 4), (0, 1 << 62), (6, 4)])
def test_places_outside_of_a_file(tmp_path, place, size):
    """Checksums do not help against them: whoever writes the place writes its checksum."""
    (tmp_path / "data").write_bytes(b"12345678")
    assert read_at(tmp_path / "data", 4, 4) == b"5678"
    with pytest.raises(FormatError, match="cut short"):
        read_at(tmp_path / "data", place, size)


def test_compressed_blocks(tmp_path):
    """As TensorFlow wrote V1 before version 1.2, where it was built with Snappy."""
    data = memoryview((REAL / "v1.ckpt").read_bytes())
    real = SortedTable(data, REAL)
    entries = {key: bytes(real.value(where)) for key, where in real.entries()}
    for per_block in (1, 3, 100):
        compressed = table(entries, compress=True, per_block=per_block)
        (tmp_path / "v1.ckpt").write_bytes(compressed)
        assert outcome(tmp_path / "v1.ckpt") == outcome(REAL / "v1.ckpt")
    (tmp_path / "v1.ckpt").write_bytes(table(entries))
    assert outcome(tmp_path / "v1.ckpt") == outcome(REAL / "v1.ckpt")


@given(st.binary(max_size=300), st.integers(1, 2000))
@settings(max_examples=300, deadline=None)
def test_snappy_equals_the_real_one(piece, times):
    data = (piece * times)[:200_000]
    compressed = bytes(cramjam.snappy.compress_raw(data))
    assert decompress_snappy(memoryview(compressed)) == data


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_snappy_or_refused(data):
    with contextlib.suppress(FormatError):
        assert len(decompress_snappy(memoryview(data))) <= 22 * len(data)


@pytest.mark.parametrize("size", [0, 1, 9, 1024, 16_383, 16_384, 50_001])
def test_crc_is_that_of_the_definition(size):
    data = np.random.default_rng(size).bytes(size)
    assert masked_crc32c(data) == masked(crc32c_slowly(data))
    assert crc32c_slowly(b"123456789") == 0xE3069283  # the polynomial's check value


def test_missing_shards_and_other_tables(tmp_path):
    shutil.copy(REAL / "two_shards.ckpt.index", tmp_path)
    shutil.copy(REAL / "two_shards.ckpt.data-00000-of-00002", tmp_path)
    raws = read_checkpoint(tmp_path / "two_shards.ckpt")
    missing = 0
    for raw in raws.values():
        try:
            raw.read()
        except FormatError as error:
            assert "two_shards.ckpt.data-00001-of-00002" in error.message  # noqa: PT017
            missing += 1
    assert 0 < missing < len(raws)
    with pytest.raises(MissingInputError, match="no such file"):
        read_checkpoint(tmp_path / "none.index")
    (tmp_path / "t").write_bytes(table({b"a": b"b"}))
    with pytest.raises(FormatError, match="not a checkpoint"):
        read_checkpoint(tmp_path / "t")


ARRAYS = {
    "f4": np.arange(12, dtype="f4").reshape(3, 4) / 7,
    "f8": np.array([1e300, -2.5]),
    "f2": np.array([[1.5], [2.5]], "f2"),
    "i8": np.array(5, "i8"),
    "none": np.zeros((0, 3), "f4"),
    "é": np.ones((1, 1, 1, 1), "f4"),
}


def test_safetensors_of_the_real_library(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(ARRAYS, path, metadata={"format": "pt"})
    raws = read_safetensors(path)
    assert set(raws) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert np.array_equal(raws[name].read(), array)
        assert raws[name].kind == array.dtype
    from safetensors.torch import save_file

    brain = torch.tensor([1.0, -2.75, 3.0e38]).to(torch.bfloat16)
    save_file({"b": brain, "strange": torch.zeros(2, dtype=torch.complex64)}, path)
    raws = read_safetensors(path)
    assert raws["b"].kind == "bfloat16"
    assert np.array_equal(raws["b"].read(), brain.float().numpy())
    assert raws["strange"].kind == "C64"


def test_the_real_library_reads_ours(tmp_path):
    path = tmp_path / "a.safetensors"
    described = [(name, str(array.dtype), array.shape) for name, array in ARRAYS.items()]
    write_safetensors(path, described, lambda name: ARRAYS[name])
    for name, array in safetensors.numpy.load_file(path).items():
        assert np.array_equal(array, ARRAYS[name])
        assert array.dtype == ARRAYS[name].dtype
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    assert header["__metadata__"] == {"format": "pt"}
    for entry in list(header.values())[1:]:
        width = int(entry["dtype"][1:]) // 8
        assert (8 + length + entry["data_offsets"][0]) % width == 0


def with_header(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        (b"{", b"", "JSON"),
        (b"[" * 100_000, b"", "JSON"),
        (b"[1]", b"", "invalid type: sequence"),
        ({"a": 3}, b"", "expected struct TensorInfo"),
        ({"a": {**GOOD, "shape": 2}}, b"", "expected a sequence"),
        ({"a": {**GOOD, "shape": [-2]}}, b"12345678", "expected usize"),
        ({"a": {**GOOD, "shape": [True]}}, b"12345678", "expected usize"),
        ({"a": {**GOOD, "shape": [10**12]}}, b"12345678", "invalid shape"),
        ({"a": {**GOOD, "shape": [10**9] * 9}}, b"12345678", "overflow"),
        ({"a": {**GOOD, "data_offsets": [8, 0]}}, b"12345678", "invalid offset"),
        ({"a": GOOD}, b"1234567", "not fully covered"),
        ({"a": GOOD}, b"123456789", "not fully covered"),
        ({"a": GOOD, "b": GOOD}, b"12345678", "invalid offset"),
        ({"a": {**GOOD, "data_offsets": [4, 12]}}, b"123456789012", "invalid offset"),
    ],
)
def test_bad_safetensors(tmp_path, header, data, words):
    with pytest.raises(FormatError, match=words):
        read_safetensors(with_header(tmp_path / "a.safetensors", header, data))


@pytest.mark.slow
@given(st.binary(max_size=64), st.integers(0, 2**64 - 1))
def test_any_bytes_are_safetensors_or_refused(tmp_path_factory, data, length):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    for content in (data, struct.pack("<Q", length) + data, with_header(path, data).read_bytes()):
        path.write_bytes(content)
        with contextlib.suppress(FormatError):
            read_safetensors(path)


@pytest.fixture
def small_h5(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["model_weights/conv2d/conv2d/kernel"] = np.ones((3, 3, 3, 2), "f4")
        file["model_weights/predictions/predictions/bias"] = np.ones(5, "f4")
    return path


def read_h5(path):
    with ExitStack() as stack:
        raws = read_hdf5(path, stack)
        return {name: type(raw)(raw.shape, raw.kind, raw.read().copy) for name, raw in raws.items()}


@pytest.mark.slow
def test_damaged_hdf5_is_refused(tmp_path, small_h5):
    data = small_h5.read_bytes()
    path = tmp_path / "torn.h5"
    whole = outcome(small_h5, read_h5)
    for place in range(0, len(data), 61):
        path.write_bytes(data[:place])
        assert outcome(path, read_h5) != whole
    rng = np.random.default_rng(0)
    for _ in range(200):
        spoiled = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            spoiled[place] ^= int(rng.integers(1, 256))
        path.write_bytes(spoiled)
        outcome(path, read_h5)  # values have no checksum; nothing else may happen


def test_hdf5_does_not_reach_other_files(tmp_path, small_h5):
    path = tmp_path / "link.h5"
    (tmp_path / "secret").write_bytes(b"12345678")
    with h5py.File(path, "w") as file:
        file["away"] = h5py.ExternalLink("w.h5", "model_weights/predictions/predictions/bias")
        file["soft"] = h5py.SoftLink("/away")
        file["here"] = np.ones(2, "f4")
    assert set(read_h5(path)) == {"here"}
    with h5py.File(path, "a") as file:
        file.create_dataset("raw", (2,), "f4", external=[("secret", 0, 8)])
    with pytest.raises(FormatError, match="lie in another file"):
        read_h5(path)
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((5,), "f4")
        layout[:] = h5py.VirtualSource(
            str(small_h5), "model_weights/predictions/predictions/bias", (5,)
        )
        file.create_virtual_dataset("v", layout)
    with pytest.raises(FormatError, match="lie in another file"):
        read_h5(path)


def test_a_data_set_that_says_it_is_huge_is_not_read(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        name = "conv2d/conv2d/kernel:0"
        file.create_dataset(name, (1 << 20, 1 << 20, 3, 32), "f4", chunks=(1, 1, 3, 32))
    with ExitStack() as stack:
        _, named = open_weights(tmp_path / "w.h5", stack)
        (tensor,) = named.tensors.values()
        assert tensor.shape == (32, 3, 1 << 20, 1 << 20)


def test_archives_of_keras(tmp_path, small_h5):
    path = tmp_path / "w.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(small_h5, "model.weights.h5")
    assert detect(path) == "hdf5"
    assert outcome(path, read_h5) == outcome(small_h5, read_h5)
    data = bytearray(path.read_bytes())
    data[data.index(b"HDF") + 900] ^= 1
    path.write_bytes(data)
    assert outcome(path, read_h5) is None
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(small_h5, "model.weights.h5")
    with pytest.raises(FormatError, match="compressed"):
        read_h5(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(small_h5, "other.h5")
    with pytest.raises(FormatError, match="without model"):
        read_h5(path)


def test_archives_that_unpack_to_more_than_they_are(tmp_path):
    """PyTorch and Keras store their files as they are; a compressed one can be of any size."""
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", bytes(1 << 24))
        archive.writestr("w/version", "3")
    with pytest.raises(FormatError, match="compressed"):
        read_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20):  # all of them the same bytes of the file
            archive.writestr(f"w/data/{number}", bytes(1000) if number == 0 else b"")
            archive.filelist[-1].header_offset = 0
            archive.filelist[-1].file_size = archive.filelist[-1].compress_size = 1000
    with pytest.raises(FormatError, match="damaged archive"):
        read_torch(path)


@pytest.mark.parametrize(
    ("field", "value"), [(b"data.pkl", b"\xb4ata.pkl"), (b"\x14\x00\x00\x08", b"\x40\x00\x00\x08")]
)
def test_damaged_directories_of_archives(tmp_path, field, value):
    """A name that is no text, and a version of zip that is to come."""
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("é/data.pkl", b"")
    data = path.read_bytes()
    at = data.rindex(field)
    path.write_bytes(data[:at] + value + data[at + len(value) :])
    with pytest.raises(FormatError, match="damaged archive"):
        detect(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_pytorch(tmp_path, zipped):
    path = tmp_path / "w.pth"
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert detect(path) == "torch"
    raws = read_torch(path)
    assert np.array_equal(raws["a"].read(), [[0, 1, 2], [3, 4, 5]])
    assert (raws["b"].kind, raws["b"].read().dtype) == ("bfloat16", np.float32)
    data, whole = path.read_bytes(), outcome(path, read_torch)
    for place in range(0, len(data), 41):
        path.write_bytes(data[:place])
        assert outcome(path, read_torch) != whole, place
    torch.save([1, 2], path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FormatError, match="no state dict"):
        read_torch(path)
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FormatError, match=r"w\.pth: holds no averaged"), ExitStack() as stack:
        open_weights(path, stack, averaged=True)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not weights of a known kind"),
        (b"some words", "not weights of a known kind"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PK\x03\x04", "not weights"),
        (bytes(100), "not weights"),
    ],
)
def test_other_files(tmp_path, data, words):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(FormatError, match=words):
        detect(tmp_path / "x")


def test_folders_and_nothing(tmp_path):
    with pytest.raises(MissingInputError, match="folder"):
        detect(tmp_path)
    with pytest.raises(MissingInputError, match="no such file"):
        detect(tmp_path / "none")


def tiny_net():
    net = messages.NetParameter(name="n")
    for name in ("a", "b", "a"):
        layer = net.layer.add(name=name, type="Scale")
        layer.blobs.append(blob_from_array(np.full(3, len(net.layer), "f4")))
    net.layer.add(name="none", type="ReLU")
    return net


def test_models_layer_by_layer(tmp_path):
    net = tiny_net()
    assert write_model(tmp_path / "ours", net, net.layer) == (tmp_path / "ours").stat().st_size
    assert read_binary(tmp_path / "ours", messages.NetParameter) == net
    write_binary(tmp_path / "whole", net)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "ours").read_bytes()
    model = ModelFile(tmp_path / "ours")
    assert model.layers == ["a", "b", "none"]
    assert list(model.blobs("a")[0].data) == [3, 3, 3]  # the last one of a name, as in Caffe
    assert model.blobs("none") == model.blobs("not there") == []


def test_damaged_models(tmp_path):
    write_binary(tmp_path / "whole", tiny_net())
    data = (tmp_path / "whole").read_bytes()
    path = tmp_path / "m"
    rng = np.random.default_rng(1)
    for place in range(len(data)):
        for content in (data[:place], data[:place] + rng.bytes(4) + data[place + 4 :]):
            path.write_bytes(content)
            with contextlib.suppress(FormatError):
                model = ModelFile(path)
                for name in model.layers:
                    model.blobs(name)
    path.write_bytes(data[:-1])
    with pytest.raises(FormatError, match="not a binary NetParameter"):
        ModelFile(path)
    path.write_text('layer { name: "a" }')
    with pytest.raises(FormatError) as caught:
        ModelFile(path)
    assert "prototxt" in caught.value.hint
    write_binary(path, messages.SolverState(iter=4, learned_net="x.caffemodel"))
    with pytest.raises(FormatError):
        ModelFile(path)
    with pytest.raises(MissingInputError):
        ModelFile(tmp_path / "none")


def frames(*steps):
    """A pickle of these steps, as ``torch.save`` writes it: protocol 2."""
    return b"\x80\x02" + b"".join(steps) + b"."


NESTED = b"(K\x00K\x01t" + b"".join(b"q%c(h%ch%ct" % (i, i, i) for i in range(60))
PICKLE_BOMBS = {
    "bytes": frames(b"c__builtin__\nbytearray\n", b"(J\xff\xff\xff\x7ftR"),
    "bytes of today": frames(b"cbuiltins\nbytearray\n", b"(J\xff\xff\xff\x7ftR"),
    "key": frames(b"}", NESTED, b"K\x01s"),
    "keys": frames(b"}(", NESTED, b"K\x01u"),
    "set": frames(b"cbuiltins\nset\n(](", NESTED, b"etR"),
    "remembered set": frames(b"](", NESTED, b"eq\xff0cbuiltins\nset\n(h\xfftR"),
    "name": frames(b"c", b"a" * 100_000, b"\nb\n"),
    "memo": frames(b"h\x05"),
    "mark": frames(b"(s"),
    "empty": frames(),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("bomb", PICKLE_BOMBS)
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_that_would_never_be_read(tmp_path, bomb, zipped):
    """PyTorch lets no code through, but hashes tuples in tuples, and makes arrays of bytes."""
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
    if zipped:
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, PICKLE_BOMBS[bomb] if name.endswith(".pkl") else data)
    else:
        path.write_bytes(PICKLE_BOMBS[bomb] + path.read_bytes())
    with pytest.raises(FormatError, match="PyTorch cannot read it"):
        read_torch(path)


@pytest.mark.slow
def test_checkpoints_of_trainings_are_no_bombs(tmp_path):
    """With an optimizer, a schedule with its Counter, tuples, and many tensors of one storage."""
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(30)))
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 3, 5])
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    whole = torch.ones(1000)
    content = {
        "state_dict": {**model.state_dict(), **{f"part{i}": whole[i:] for i in range(900)}},
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "sizes": [torch.Size([1, 2])] * 100,
        "names": tuple(map(str, range(5000))),
    }
    for zipped in (True, False):
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        names = list(read_torch(tmp_path / "w.pth"))
        assert sum(name.startswith("state_dict.") for name in names) == 60 + 900
        assert "optimizer.state.0.exp_avg" in names


def test_torchscript_is_told_from_weights(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "w.pt")
    with pytest.raises(FormatError, match="TorchScript"):
        read_torch(tmp_path / "w.pt")


@pytest.mark.parametrize("kind", [0, 7, 17, 23, 1 << 60])
def test_types_that_numpy_has_not(tmp_path, kind):
    """Texts, handles and numbers of odd lengths are in a checkpoint, and are no weights."""
    for file in REAL.glob("v2.ckpt.data*"):
        shutil.copy(file, tmp_path)
    real = SortedTable(memoryview((REAL / "v2.ckpt.index").read_bytes()), REAL)
    entries = {key: bytes(real.value(where)) for key, where in real.entries()}
    entries[b"zeros"] = field(1, kind) + entries[b"zeros"][2:]
    (tmp_path / "v2.ckpt.index").write_bytes(table(entries))
    raw = read_checkpoint(tmp_path / "v2.ckpt")["zeros"]
    assert raw.kind == f"TensorFlow type {kind}"
    with pytest.raises(FormatError, match=f"TensorFlow type {kind} cannot be read"):
        raw.read()


def test_tables_do_not_grow_when_they_are_read(tmp_path):
    """Blocks that are named again and again, keys that repeat a long one, keys without order."""

    def block(content):
        content += struct.pack("<II", 0, 1)
        return content + b"\0" + struct.pack("<I", masked_crc32c(content + b"\0"))

    def made(data, handles):
        data = block(data)
        index = block(b"".join(number(0) + number(1) + number(len(h)) + b"k" + h for h in handles))
        footer = number(0) * 2 + number(len(data)) + number(len(index) - 5)
        return data + index + footer.ljust(40, b"\0") + MAGIC

    few = b"".join(number(0) + number(1) + number(0) + key for key in (b"a", b"b"))
    long = number(0) + number(5000) + number(0) + b"x" * 5000
    long += b"".join(number(5000 + i) + number(1) + number(0) + b"y" for i in range(9000))
    cases = {
        "follow": (few, [number(0) + number(len(few) + 8)] * 2),
        "order": (few[4:] + few[:4], [number(0) + number(len(few) + 8)]),
        "too many": (long, [number(0) + number(len(long) + 8)]),
    }
    for words, case in cases.items():
        (tmp_path / "t").write_bytes(made(*case))
        with pytest.raises(FormatError, match=words):
            list(SortedTable(memoryview((tmp_path / "t").read_bytes()), tmp_path / "t").entries())


@pytest.mark.parametrize("axes", [33, 200_000])
def test_arrays_of_more_axes_than_there_are(tmp_path, axes):
    """The product of many large sides alone takes minutes."""
    sides = [(1 << 63) - 1] * axes
    for shape, words in ((sides, "overflow"), ([1] * axes, f"an array of {axes:,} axes")):
        header = {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}
        with pytest.raises(FormatError, match=words):
            read_safetensors(with_header(tmp_path / "a.safetensors", header, bytes(4)))
    blob = messages.BlobProto(data=[1])
    blob.shape.dim.extend(sides)
    with pytest.raises(FormatError, match=f"{axes:,} axes"):
        read_array(blob)


def test_hostile_headers(tmp_path):
    with (tmp_path / "a.safetensors").open("wb") as stream:
        stream.write((90 << 20).to_bytes(8, "little"))
        stream.truncate(100 << 20)
    with pytest.raises(FormatError, match="header of 94,371,840 bytes"):
        read_safetensors(tmp_path / "a.safetensors")


def test_hdf5_names_that_are_no_text_and_groups_without_end(tmp_path):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file[b"model_weights/conv2d/conv2d/b\xe9ta"] = np.ones(3, "f4")
    assert list(read_h5(path)) == ["model_weights/conv2d/conv2d/b\\xe9ta"]
    with h5py.File(path, "w", libver="latest") as file:
        group = file
        for _ in range(500):
            group = group.create_group("g")
    with pytest.raises(FormatError, match="nested too deeply"):
        read_h5(path)
