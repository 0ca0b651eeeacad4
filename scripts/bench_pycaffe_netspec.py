"""The yardstick of build-net: slim's three prototxts by pycaffe's own NetSpec.

Runs in the interpreter of the installed Caffe (Python 3.9): bench_pycaffe_netspec.py OUT.
"""

import sys
from pathlib import Path

from caffe import NetSpec
from caffe import layers as L  # noqa: N812
from caffe import params as P  # noqa: N812
from caffe.proto import caffe_pb2

FROZEN = [{"lr_mult": 0, "decay_mult": 0}] * 3
SHIFT = [{"lr_mult": 1, "decay_mult": 0}] * 2
GLOROT = {"type": "xavier", "variance_norm": P.Filler.AVERAGE}


def conv(n, name, x, num_output, kernel, stride=1, same=False):
    """Convolution, BatchNorm, Scale, ReLU."""
    height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    fields = {"kernel_h": height, "kernel_w": width}
    if same:
        fields.update(pad_h=height // 2, pad_w=width // 2)
    x = n[name] = L.Convolution(
        x, num_output=num_output, stride=stride, bias_term=False, weight_filler=GLOROT, **fields
    )
    x = n[name + "_bn"] = L.BatchNorm(
        x, in_place=True, param=FROZEN, eps=0.001, moving_average_fraction=0.999
    )
    x = n[name + "_scale"] = L.Scale(x, in_place=True, param=SHIFT, bias_term=True)
    x = n[name + "_relu"] = L.ReLU(x, in_place=True)
    return x


def pool(n, name, x):
    """3x3 maximum, stride 2."""
    n[name] = L.Pooling(x, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    return n[name]


def residual(n, name, x, branches, channels, scale, rectify=True):
    """The trunk plus the scaled up-projection."""
    joined = n[name + "/concat"] = L.Concat(*branches)
    up = n[name + "/Conv2d_1x1"] = L.Convolution(
        joined, num_output=channels, kernel_size=1, weight_filler=GLOROT
    )
    coeff = {"coeff": [1, scale]} if scale else {}
    n[name] = L.Eltwise(x, up, operation=P.Eltwise.SUM, **coeff)
    if rectify:
        n[name + "_relu"] = L.ReLU(n[name], in_place=True)
        return n[name + "_relu"]
    return n[name]


def chain(n, scope, x, steps):
    """Convolutions one after the other: (suffix, filters, kernel, stride, same)."""
    for suffix, num_output, kernel, stride, same in steps:
        x = conv(n, scope + suffix, x, num_output, kernel, stride, same)
    return x


def block35(n, name, x):
    """1x1; 1x1, 3x3; 1x1, 3x3, 3x3."""
    b0 = chain(n, name + "/Branch_0/", x, [("Conv2d_1x1", 32, 1, 1, False)])
    b1 = chain(n, name + "/Branch_1/", x, [("0a", 32, 1, 1, False), ("0b", 32, 3, 1, True)])
    steps = [("0a", 32, 1, 1, False), ("0b", 48, 3, 1, True), ("0c", 64, 3, 1, True)]
    b2 = chain(n, name + "/Branch_2/", x, steps)
    return residual(n, name, x, [b0, b1, b2], 320, 0.17)


def block17(n, name, x):
    """1x1; 1x1, 1x7, 7x1."""
    b0 = chain(n, name + "/Branch_0/", x, [("Conv2d_1x1", 192, 1, 1, False)])
    steps = [("0a", 128, 1, 1, False), ("0b", 160, (1, 7), 1, True), ("0c", 192, (7, 1), 1, True)]
    return residual(n, name, x, [b0, chain(n, name + "/Branch_1/", x, steps)], 1088, 0.1)


def block8(n, name, x, scale, rectify=True):
    """1x1; 1x1, 1x3, 3x1."""
    b0 = chain(n, name + "/Branch_0/", x, [("Conv2d_1x1", 192, 1, 1, False)])
    steps = [("0a", 192, 1, 1, False), ("0b", 224, (1, 3), 1, True), ("0c", 256, (3, 1), 1, True)]
    return residual(n, name, x, [b0, chain(n, name + "/Branch_1/", x, steps)], 2080, scale, rectify)


def mixed_5b(n, x):
    """The block before the residual ones, with the average pool that TensorFlow has."""
    b0 = chain(n, "Mixed_5b/Branch_0/", x, [("Conv2d_1x1", 96, 1, 1, False)])
    b1 = chain(n, "Mixed_5b/Branch_1/", x, [("0a", 48, 1, 1, False), ("0b", 64, 5, 1, True)])
    steps = [("0a", 64, 1, 1, False), ("0b", 96, 3, 1, True), ("0c", 96, 3, 1, True)]
    b2 = chain(n, "Mixed_5b/Branch_2/", x, steps)
    window = {"pool": P.Pooling.AVE, "kernel_size": 3, "stride": 1, "pad": 1}
    n.pooled = L.Pooling(x, **window)
    n.ones = L.DummyData(
        shape={"dim": [1, 1, 35, 35]}, data_filler={"type": "constant", "value": 1}
    )
    n.share = L.Pooling(n.ones, **window)
    n.inverse = L.Power(n.share, power=-1)
    n.grid = L.Reshape(n.inverse, shape={"dim": [35, 35]})
    n.exact = L.Scale(n.pooled, n.grid, axis=2)
    b3 = conv(n, "Mixed_5b/Branch_3/0b", n.exact, 64, 1)
    n["Mixed_5b"] = L.Concat(b0, b1, b2, b3)
    return n["Mixed_5b"]


def body(n, x):
    """From the input to the logits."""
    x = conv(n, "Conv2d_1a_3x3", x, 32, 3, 2)
    x = conv(n, "Conv2d_2a_3x3", x, 32, 3)
    x = pool(n, "MaxPool_3a_3x3", conv(n, "Conv2d_2b_3x3", x, 64, 3, same=True))
    x = conv(n, "Conv2d_4a_3x3", conv(n, "Conv2d_3b_1x1", x, 80, 1), 192, 3)
    x = mixed_5b(n, pool(n, "MaxPool_5a_3x3", x))
    for i in range(10):
        x = block35(n, f"Repeat/block35_{i + 1}", x)
    b0 = conv(n, "Mixed_6a/Branch_0/1a", x, 384, 3, 2)
    steps = [("0a", 256, 1, 1, False), ("0b", 256, 3, 1, True), ("1a", 384, 3, 2, False)]
    b1 = chain(n, "Mixed_6a/Branch_1/", x, steps)
    x = n["Mixed_6a"] = L.Concat(b0, b1, pool(n, "Mixed_6a/Branch_2/pool", x))
    for i in range(20):
        x = block17(n, f"Repeat_1/block17_{i + 1}", x)
    b0 = chain(n, "Mixed_7a/Branch_0/", x, [("0a", 256, 1, 1, False), ("1a", 384, 3, 2, False)])
    b1 = chain(n, "Mixed_7a/Branch_1/", x, [("0a", 256, 1, 1, False), ("1a", 288, 3, 2, False)])
    steps = [("0a", 256, 1, 1, False), ("0b", 288, 3, 1, True), ("1a", 320, 3, 2, False)]
    b2 = chain(n, "Mixed_7a/Branch_2/", x, steps)
    x = n["Mixed_7a"] = L.Concat(b0, b1, b2, pool(n, "Mixed_7a/Branch_3/pool", x))
    for i in range(9):
        x = block8(n, f"Repeat_2/block8_{i + 1}", x, 0.2)
    x = conv(n, "Conv2d_7b_1x1", block8(n, "Block8", x, None, rectify=False), 1536, 1)
    n.pool = L.Pooling(x, pool=P.Pooling.AVE, global_pooling=True)
    n.dropout = L.Dropout(n.pool, in_place=True, dropout_ratio=0.2)
    n.classifier = L.InnerProduct(n.dropout, num_output=1000, weight_filler=GLOROT)
    return n.classifier


def data(phase, source, batch_size):
    """A Data layer of one phase."""
    transform = {"crop_size": 299, "mean_value": [127.5] * 3, "scale": 1 / 127.5}
    return L.Data(
        ntop=2, include={"phase": phase}, source=source, batch_size=batch_size,
        backend=P.Data.LMDB, transform_param=transform,
    )  # fmt: skip


def main(out):
    """Writes train_val, deploy and solver."""
    out.mkdir(parents=True, exist_ok=True)
    train = NetSpec()
    train.data, train.label = data(0, "train_lmdb", 32)
    head = str(train.to_proto())  # a NetSpec holds one layer of a name: the other phase comes after
    n = NetSpec()
    n.data, n.label = data(1, "val_lmdb", 50)
    logits = body(n, n.data)
    n.loss = L.SoftmaxWithLoss(logits, n.label)
    n.accuracy_top1 = L.Accuracy(logits, n.label, include={"phase": 1})
    n.accuracy_top5 = L.Accuracy(logits, n.label, include={"phase": 1}, top_k=5)
    (out / "train_val.prototxt").write_text(head + str(n.to_proto()))
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 299, 299]})
    n.prob = L.Softmax(body(n, n.data))
    (out / "deploy.prototxt").write_text(str(n.to_proto()))
    solver = caffe_pb2.SolverParameter(
        net=str(out / "train_val.prototxt"), base_lr=0.045, lr_policy="step", gamma=0.94,
        stepsize=80073, max_iter=4804320, type="RMSProp", rms_decay=0.9, delta=1.0,
        test_iter=[1000], test_interval=40036, weight_decay=4e-5,
    )  # fmt: skip
    (out / "solver.prototxt").write_text(str(solver))


main(Path(sys.argv[1]))
