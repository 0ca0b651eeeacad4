"""The schema against the real Caffe's own; prototxt and binary files against real readers."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st

from irv2caffe.caffe.command import tool_command
from irv2caffe.errors import FormatError, MissingInputError
from irv2caffe.proto import messages
from irv2caffe.proto.binary import blob_from_array, read_array, read_binary, write_binary
from irv2caffe.proto.positions import scan
from irv2caffe.proto.text import (
    format_prototxt,
    parse_prototxt,
    read_net,
    read_prototxt,
    write_prototxt,
)

SCHEMA = messages.NetParameter.DESCRIPTOR.file


def pycaffe(caffe, code, *args, cwd=None):
    """What a program prints in the interpreter that imports the real pycaffe."""
    command = tool_command(caffe, "python", ["-c", code, *map(str, args)])
    env = {**command.env, "GLOG_minloglevel": "2"}
    done = subprocess.run(command.argv, env=env, cwd=cwd, capture_output=True, check=True)
    return done.stdout


def default_of(field):
    """The default as a value: 0.999 and 0.99900001 are the same float."""
    is_float = field.type in {field.TYPE_FLOAT, field.TYPE_DOUBLE}
    return np.float32(field.default_value or 0) if is_float else field.default_value


def facts(file):
    """Every fact of a schema that a file format consists of, by the name of what it is about."""
    found = {}

    def of_enum(prefix, enum):
        for value in enum.value:
            found[f"{prefix}.{enum.name}.{value.name}"] = ("value", value.number)

    def of_message(prefix, message):
        name = f"{prefix}.{message.name}"
        for field in message.field:
            found[f"{name}.{field.name}"] = (
                "field",
                field.number,
                field.type,
                field.label,
                field.type_name,
                field.HasField("default_value"),
                default_of(field),
                field.options.packed,
            )
        for enum in message.enum_type:
            of_enum(name, enum)
        for nested in message.nested_type:
            of_message(name, nested)

    for enum in file.enum_type:
        of_enum(file.package, enum)
    for message in file.message_type:
        of_message(file.package, message)
    return found


@pytest.mark.slow
def test_every_field_equals_the_real_one(caffe, record_property, capsys):
    code = (
        "import sys, caffe.proto.caffe_pb2 as p\n"
        "sys.stdout.buffer.write(p.DESCRIPTOR.serialized_pb)"
    )
    real = facts(descriptor_pb2.FileDescriptorProto.FromString(pycaffe(caffe, code)))
    ours = descriptor_pb2.FileDescriptorProto()
    SCHEMA.CopyToProto(ours)
    assert facts(ours) == real
    num_fields = sum(fact[0] == "field" for fact in real.values())
    assert num_fields > 400
    record_property("conformance_fields", num_fields)
    with capsys.disabled():
        print(f"\nconformance: {num_fields} fields, {len(real) - num_fields} enum values equal")


@pytest.mark.slow
def test_layer_types_are_those_of_the_real_caffe(caffe):
    code = "import caffe, json; print(json.dumps(list(caffe.layer_type_list())))"
    real = set(json.loads(pycaffe(caffe, code)))
    assert set(messages.LAYER_TYPES) | messages.LAYER_TYPES_AFTER_TAG_1_0 == real
    fields = messages.LayerParameter.DESCRIPTOR.fields_by_name
    assert all(field is None or field in fields for field in messages.LAYER_TYPES.values())


def test_compiled_schema_is_current(tmp_path):
    from importlib import resources

    folder = resources.files("irv2caffe.proto")
    out = tmp_path / "caffe.desc"
    assert protoc.main(["", f"-I{folder}", f"--descriptor_set_out={out}", "caffe.proto"]) == 0
    assert out.read_bytes() == folder.joinpath("caffe.desc").read_bytes()


@pytest.mark.parametrize("ours_first", [True, False])
def test_another_caffe_pb2_in_the_same_process(tmp_path, ours_first):
    """Another schema of the same names, as pycaffe brings one, with one field fewer."""
    from importlib import resources

    text = resources.files("irv2caffe.proto").joinpath("caffe.proto").read_text()
    folder = tmp_path / "caffe" / "proto"
    folder.mkdir(parents=True)
    (folder / "caffe.proto").write_text(text.replace("  optional int32 label = 5;\n", ""))
    assert (
        protoc.main(["", f"-I{tmp_path}", f"--python_out={tmp_path}", "caffe/proto/caffe.proto"])
        == 0
    )
    imports = ["import irv2caffe.proto.messages as m", "import caffe.proto.caffe_pb2 as other"]
    if not ours_first:
        imports.reverse()
    check = "assert m.Datum(label=3).label == 3 and not hasattr(other.Datum(), 'label')"
    code = "\n".join([f"import sys; sys.path.insert(0, {str(tmp_path)!r})", *imports, check])
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_text_and_bytes_go_to_pycaffe_and_back(caffe, tmp_path):
    net = messages.NetParameter(name="n")
    layer = net.layer.add(name="c", type="Convolution", bottom=["x"], top=["c"])
    layer.convolution_param.weight_filler.std = 0.01
    layer.convolution_param.kernel_size.append(3)
    write_prototxt(tmp_path / "n.prototxt", net, header="a header\nof two lines")
    write_binary(tmp_path / "n.caffemodel", net)
    code = (
        "import sys, caffe.proto.caffe_pb2 as p; from google.protobuf import text_format as t\n"
        "a = t.Parse(open(sys.argv[1]).read(), p.NetParameter())\n"
        "b = p.NetParameter.FromString(open(sys.argv[2], 'rb').read())\n"
        "assert a == b; sys.stdout.buffer.write(b.SerializeToString())"
    )
    back = pycaffe(caffe, code, tmp_path / "n.prototxt", tmp_path / "n.caffemodel")
    assert messages.NetParameter.FromString(back) == net
    assert read_prototxt(tmp_path / "n.prototxt", messages.NetParameter) == net


TINY_NET = """
name: "tiny"
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


@pytest.mark.slow
def test_snapshot_of_a_real_training(caffe, tmp_path):
    (tmp_path / "net.prototxt").write_text(TINY_NET)
    solver = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 2 snapshot_prefix: "s"'
    (tmp_path / "solver.prototxt").write_text(solver + " solver_mode: CPU momentum: 0.9")
    command = tool_command(caffe, "caffe", ["train", "-solver", "solver.prototxt"])
    subprocess.run(command.argv, env=command.env, cwd=tmp_path, check=True, capture_output=True)
    model = read_binary(tmp_path / "s_iter_2.caffemodel", messages.NetParameter)
    weights = read_array(next(layer for layer in model.layer if layer.name == "fc").blobs[0])
    code = (
        "import caffe, sys; n = caffe.Net('net.prototxt', 's_iter_2.caffemodel', caffe.TEST)\n"
        "sys.stdout.buffer.write(n.params['fc'][0].data.tobytes())"
    )
    assert pycaffe(caffe, code, cwd=tmp_path) == weights.tobytes()
    assert weights.shape == (2, 192)
    state = read_binary(tmp_path / "s_iter_2.solverstate", messages.SolverState)
    assert state.iter == 2
    assert read_array(state.history[0]).shape == (2, 192)
    with pytest.raises(FormatError, match=r"not a binary|another"):
        read_binary(tmp_path / "s_iter_2.solverstate", messages.NetParameter)
    torn = tmp_path / "torn.caffemodel"
    torn.write_bytes((tmp_path / "s_iter_2.caffemodel").read_bytes()[:-5])
    with pytest.raises(FormatError, match="not a binary NetParameter"):
        read_binary(torn, messages.NetParameter)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("name: 'n'\nlayer {\n  nam: 'x'\n}", 3, 3, "LayerParameter has no field 'nam'"),
        ("layer {\n  name: 'x'\n", 2, 9, "Expected"),
        ("layer { include { phase: FOO } }", 1, 26, "FOO"),
        ("layer {\n phase: TRAIN\n convolution_param { pad: x } }", 3, 27, "integer"),
        ("layer { name: 'a' name: 'b' }", 1, 25, "name"),
    ],
)
def test_errors_say_where(tmp_path, text, line, column, words):
    path = tmp_path / "bad.prototxt"
    path.write_text(text)
    with pytest.raises(FormatError, match=words) as caught:
        read_prototxt(path, messages.NetParameter)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith(f"{path}:{line}:{column}: ")


def test_what_caffe_reads_is_read():
    text = """
    # a comment
    layer < name: "a" type: "Pooling" top: 'x' top: "y"; pooling_param { pool: 1, stride: 2 } >
    """
    net = parse_prototxt(text, messages.NetParameter)
    assert net.layer[0].pooling_param.pool == net.layer[0].pooling_param.AVE
    assert list(net.layer[0].top) == ["x", "y"]


def test_numbers_print_as_they_were_written():
    text = 'base_lr: 0.045\ngamma: 0.94\nweight_decay: 4e-05\ntype: "SGD"\n'
    assert format_prototxt(parse_prototxt(text, messages.SolverParameter)) == text


@given(st.text())
def test_any_text_parses_or_is_refused(text):
    with contextlib.suppress(FormatError):
        parse_prototxt(text, messages.NetParameter)


@given(st.text(alphabet="{}[]<>:;,\"'\\ \nlayernmtpx019.-#", max_size=200))
def test_any_near_prototxt_parses_or_is_refused(text):
    with contextlib.suppress(FormatError):
        parse_prototxt(text, messages.NetParameter)


def test_deep_nesting_is_refused():
    with pytest.raises(FormatError):
        parse_prototxt("layer { blobs { shape {" * 5000, messages.NetParameter)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\x89HDF\r\n\x1a\n....", "HDF5"),
        (b'name: "x"\nlayer { name: "a" }\n', "not a binary|another message"),
        (b"\xff\xfe\x00garbage", "not a binary|another message"),
    ],
)
def test_other_files_are_told_apart(tmp_path, data, words):
    path = tmp_path / "x.caffemodel"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=words):
        read_binary(path, messages.NetParameter)


def test_missing_folder_and_binary_prototxt(tmp_path):
    with pytest.raises(MissingInputError):
        read_prototxt(tmp_path / "no", messages.NetParameter)
    with pytest.raises(MissingInputError):
        read_prototxt(tmp_path, messages.NetParameter)
    (tmp_path / "b").write_bytes(b"\x00\xff\x01")
    with pytest.raises(FormatError, match="binary"):
        read_prototxt(tmp_path / "b", messages.NetParameter)


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_arrays_round_trip(kind):
    array = np.arange(24, dtype=kind).reshape(2, 3, 4) / 7
    back = read_array(blob_from_array(array))
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


def test_legacy_shape_and_wrong_count():
    blob = messages.BlobProto(num=1, channels=2, height=1, width=3, data=range(6))
    assert read_array(blob).shape == (1, 2, 1, 3)
    blob.width = 4
    with pytest.raises(FormatError):
        read_array(blob)


def test_a_text_of_megabytes_is_one_error_in_little_memory(tmp_path):
    """Names and paths are shorter; protobuf's reader takes a hundred times a string's size."""
    layer = 'layer { name: "x" type: "Input" top: "x" }\n'
    for text in ("x" * 20_000_000, "\\n" * 10_000_000):
        path = tmp_path / "net.prototxt"
        path.write_text(f'{layer}name: "{text}"\n')
        code = (
            "import sys\n"
            "from pathlib import Path\n"
            "from irv2caffe.errors import FormatError\n"
            "from irv2caffe.proto.positions import scan\n"
            "from irv2caffe.proto.text import read_net\n"
            "scan(Path(sys.argv[1]).read_text())\n"
            "try:\n"
            "    read_net(Path(sys.argv[1]))\n"
            "except FormatError as error:\n"
            "    print(error.message)\n"
            "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
        )
        said, peak_kb = done.stdout.splitlines()
        assert said.endswith(
            "net.prototxt:2: a string of 20,000,002 characters is too long for a name or path"
        )
        assert int(peak_kb) < 300_000
    path.write_text(f"{layer} # {'x' * 2_000_000}\n")
    assert read_net(path)[1] == [1]


def test_fields_of_a_message_of_thousands_are_found():
    lines = (f'layer {{ name: "{n}" }} y {{ a: {n} }} x{n % 7}: 1\n' for n in range(2000))
    root = scan("".join(lines))
    for name in ("layer", "x3", "y", "none"):
        assert root.all(name) == [node for node in root.children if node.name == name]
    assert len(root.all("x3")) == 286
    assert root.find("layer", "name").value == '"1999"'
