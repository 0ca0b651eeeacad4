"""The processes that run nets: Caffe and PyTorch against pycaffe, and how they end."""

import io
import os
import signal
from typing import Any

import numpy as np
import pytest
from helpers.whole_nets import own_net

from irv2caffe.errors import CaffeFailedError, CaffeNotFoundError, UsageError
from irv2caffe.inference import worker
from irv2caffe.inference.nets import ends_of, inference_net
from irv2caffe.inference.running import start_runner
from irv2caffe.proto import messages
from irv2caffe.proto.binary import read_array
from irv2caffe.proto.caffemodel import ModelFile
from irv2caffe.proto.text import format_prototxt

ENGINES = ["caffe", "torch"]


class Net:
    """A net for use with BatchNorm statistics, and its files."""

    def __init__(self, caffe_nets, folder):
        trained = own_net("slim", crop=75, width=0.05, batch=2)
        self.net = inference_net(trained)
        self.ends = ends_of(self.net)
        self.weights = folder / "a.caffemodel"
        rng = np.random.default_rng(3)
        self.images = rng.standard_normal((5, 3, 75, 75)).astype(np.float32)
        caffe_nets.run(
            format_prototxt(self.net),
            "TRAIN",
            inputs={"data": self.images},
            backward=False,
            passes=3,
            save=[self.weights],
        )

    @property
    def blobs(self):
        return [self.ends.logits, self.ends.probabilities]


@pytest.fixture(scope="module")
def made(caffe_nets, tmp_path_factory):
    return Net(caffe_nets, tmp_path_factory.mktemp("runner"))


def pid_of(runner: Any) -> int:
    return int(runner._child.pid)


def statistics(path, net):
    file = ModelFile(path)
    return {
        layer.name: [read_array(blob) for blob in file.blobs(layer.name)]
        for layer in net.layer
        if layer.type == "BatchNorm"
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_batches_of_any_size_give_what_pycaffe_gives(caffe_nets, made, engine):
    if engine == "torch":
        pytest.importorskip("torch")
    wanted = caffe_nets.run(
        format_prototxt(made.net),
        "TEST",
        inputs={"data": made.images},
        backward=False,
        load=[made.weights],
    ).blobs
    with start_runner(made.net, made.weights, blobs=made.blobs, engine=engine) as runner:
        whole = runner.forward(made.images)
        parts = [runner.forward(made.images[start : start + 2]) for start in (0, 2, 4)]
    for name in made.blobs:
        tolerance = (2e-5 if engine == "caffe" else 3e-4) * wanted[name].std()
        assert np.abs(whole[name] - wanted[name]).max() <= tolerance, name
        several = np.concatenate([part[name] for part in parts])
        assert np.abs(several - wanted[name]).max() <= tolerance


@pytest.mark.parametrize("engine", ENGINES)
def test_in_phase_train_statistics_are_averaged_and_saved(caffe_nets, made, engine, tmp_path):
    if engine == "torch":
        pytest.importorskip("torch")
    theirs, ours = tmp_path / "theirs.caffemodel", tmp_path / "ours.caffemodel"
    caffe_nets.run(
        format_prototxt(made.net),
        "TRAIN",
        inputs={"data": made.images},
        backward=False,
        passes=2,
        load=[made.weights],
        save=[theirs],
    )
    with start_runner(
        made.net, made.weights, blobs=made.blobs, engine=engine, phase="TRAIN"
    ) as runner:
        for _ in range(2):
            runner.forward(made.images)
        runner.save(ours)
    before, wanted, found = (statistics(path, made.net) for path in (made.weights, theirs, ours))
    assert found
    for name, blobs in found.items():
        assert not np.array_equal(blobs[2], before[name][2])
        for one, other in zip(blobs, wanted[name], strict=True):
            assert np.allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("engine", ENGINES)
def test_summaries_and_gradients_are_those_of_caffe(caffe_nets, made, engine):
    """The gradient is that of SoftmaxWithLoss, which the net itself does not have."""
    if engine == "torch":
        pytest.importorskip("torch")
    net = inference_net(made.net)
    del net.layer[-1]
    net.force_backward = True
    net.layer[0].input_param.shape[0].dim[0] = len(made.images)
    for layer in net.layer:
        if layer.type == "Dropout":
            layer.phase = messages.TEST
    labels = np.array([3, 1, 4, 1, 5], np.float32)
    head = 'layer { name: "labels" type: "Input" top: "labels" input_param { shape { dim: 5 } } }'
    loss = (
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "%s" bottom: "labels" top: "loss" }'
    )
    real = caffe_nets.run(
        f"{head}\n{format_prototxt(net)}\n{loss % made.ends.logits}",
        "TRAIN",
        inputs={"data": made.images, "labels": labels},
        top_diffs={"loss": np.ones((), np.float32)},
        load=[made.weights],
    )
    tops = [top for layer in net.layer for top in layer.top]
    with start_runner(net, made.weights, blobs=tops, engine=engine, phase="TRAIN") as runner:
        found = runner.summarize(made.images)
        norms = runner.gradient(labels)
    for name in tops:
        values = real.blobs[name].astype(np.float64)
        axes = (0, *range(2, values.ndim))
        wanted = [
            np.zeros(values.shape[1]),
            (values == 0).sum(axes),
            np.abs(values).max(axes),
            values.sum(axes),
            (values**2).sum(axes),
        ]
        size = values.size / values.shape[1] * np.abs(values).max()
        assert np.abs(found[name][:, 2:4].T - wanted[2:4]).max() <= 1e-3 * size, name
        assert np.allclose(found[name][:, 4], wanted[4], rtol=1e-2, atol=1e-4 * size), name
        assert np.array_equal(found[name][:, 0], wanted[0])
        assert np.abs(found[name][:, 1] - wanted[1]).max() <= 2, name
    with_weights = {name: blobs for name, blobs in real.param_diffs.items() if norms.get(name)}
    assert len(with_weights) > 100
    for name, diffs in with_weights.items():
        wanted_norm = np.sqrt(sum((diff.astype(np.float64) ** 2).sum() for diff in diffs))
        assert norms[name] == pytest.approx(wanted_norm, rel=2e-2, abs=1e-4), name


def test_a_summary_leaves_out_what_is_not_finite():
    value = np.array([[[1.0, 0.0], [np.nan, 2.0]], [[-3.0, 0.0], [np.inf, 0.0]]], np.float32)
    found = worker.summary(value)
    assert found.tolist() == [[0, 2, 3, -2, 10], [2, 1, 2, 2, 4]]


def test_a_process_that_dies_is_an_error(made):
    with start_runner(made.net, made.weights, blobs=made.blobs) as runner:
        runner.forward(made.images)
        os.kill(pid_of(runner), signal.SIGKILL)
        with pytest.raises(CaffeFailedError, match="has ended") as caught:
            runner.forward(made.images)
    assert "smaller batch" in caught.value.hint


def test_caffes_own_words_are_in_the_error(made, tmp_path):
    (tmp_path / "a.caffemodel").write_bytes(b"no model")
    with (
        pytest.raises(CaffeFailedError, match="Failed to parse NetParameter") as caught,
        start_runner(made.net, tmp_path / "a.caffemodel", blobs=made.blobs),
    ):
        pass
    assert "smaller batch" not in caught.value.hint  # it was not killed


def test_nothing_is_left_when_the_block_is_left_by_an_error(made):
    pids: list[int] = []
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        start_runner(made.net, made.weights, blobs=made.blobs) as runner,
    ):
        pids.append(pid_of(runner))
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_options_that_cannot_be(made, tmp_path):
    for options, error, words in (
        ({"gpus": "0,1"}, UsageError, "one GPU"),
        ({"engine": "torch", "caffe": tmp_path}, UsageError, "uses no Caffe"),
        ({"caffe": tmp_path}, CaffeNotFoundError, "no caffe program"),
    ):
        with (
            pytest.raises(error, match=words),
            start_runner(made.net, made.weights, blobs=made.blobs, **options),
        ):
            pass


def test_frames():
    head, body = worker.frame(b"12345")
    assert worker.read_frame(io.BytesIO().read, 10) is None
    assert worker.read_frame(io.BytesIO(head + body).read, 10) == b"12345"
    for data, limit in ((head + b"123", 10), (head[:5], 10), (head + body, 4), (head, 10)):
        with pytest.raises(ValueError, match="frame"):
            worker.read_frame(io.BytesIO(data).read, limit)
    huge = worker.LENGTH.pack(1 << 62)  # refused before anything is stored
    with pytest.raises(ValueError, match="a frame of"):
        worker.read_frame(io.BytesIO(huge).read, worker.MAX_ARRAY_BYTES)
