"""For every rule of check a run with the flaw, and a similar one without it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from helpers.check_cases import (
    BN,
    DEPLOY,
    FLAG,
    FROZEN,
    LOSS,
    MSRA,
    RMSPROP,
    SCALE1,
    SECOND_FC,
    TRAIN,
    VAL,
    Run,
    block,
    claims,
    net,
    solver,
    total,
)
from irv2caffe.check.finding import Severity
from irv2caffe.proto.binary import blob_from_array

NOTE, WARNING, ERROR = Severity.NOTE, Severity.WARNING, Severity.ERROR
TWO_GPUS = claims(num_gpus=2)
CATS = replace(TRAIN, class_names=("a", "b", "c"))


SECOND_SOLVER = b'net: "net.prototxt" base_lr: 0.1 max_iter: 10 snapshot_prefix: "elsewhere"'


def blob(*shape):
    import numpy as np

    return blob_from_array(np.ones(shape, np.float32)).SerializeToString()


def facts(**changes):
    return {"train_lmdb": replace(TRAIN, **changes)}


def infogain(matrix):
    return net(
        ('type: "SoftmaxWithLoss"', 'type: "InfogainLoss" infogain_loss_param { source: "h" }'),
        files=matrix,
    )


class Case(NamedTuple):
    """An example of a rule.

    Attributes:
        severity: of the finding.
        bad: a run with the flaw.
        words: part of what is found.
        layer: where it is found; empty for the solver or the net as a whole.
        good: a run that is as similar as possible and does not have the flaw.
    """

    severity: Severity
    bad: Run
    words: str
    layer: str
    good: Run


CASES = {
    "net-missing": Case(
        ERROR,
        solver(('"net.prototxt"', '"other/nets.prototxt"')),
        "'other/nets.prototxt' does not exist",
        "",
        solver(),
    ),
    "net-elsewhere": Case(
        WARNING,
        solver(('"net.prototxt"', '"models/net.prototxt"')),
        "beside the solver was used",
        "",
        solver(),
    ),
    "net-refused": Case(
        ERROR,
        net(("kernel_size: 3 pad: 1", "kernel_size: 33")),
        "conv1",
        "conv1",
        net(("kernel_size: 3 pad: 1", "kernel_size: 1")),
    ),
    "unknown-field": Case(
        ERROR,
        net(("pad: 1", "pad: 1 padding: 1")),
        "no field 'padding'",
        "conv1",
        net(),
    ),
    "unknown-value": Case(
        ERROR,
        net(("pool: MAX", "pool: MEDIAN")),
        "has no pool: MEDIAN in PoolingParameter",
        "pool1",
        net(("pool: MAX", "pool: AVE")),
    ),
    "solver-as-net": Case(
        ERROR,
        solver(('"net.prototxt"', '"other.prototxt"'), files={"other.prototxt": SECOND_SOLVER}),
        "'other.prototxt' is a solver, not a net",
        "",
        solver(files={"other.prototxt": SECOND_SOLVER}),
    ),
    "field-after-1.0": Case(
        WARNING,
        net(("pool: MAX", "pool: MAX round_mode: FLOOR")),
        "round_mode was added after",
        "pool1",
        net(),
    ),
    "unknown-layer-type": Case(
        ERROR,
        net(('type: "ReLU"', 'type: "Relu"')),
        "no layer type 'Relu'",
        "conv1/relu",
        net(('type: "ReLU"', 'type: "ELU"')),
    ),
    "unknown-bottom": Case(
        ERROR,
        net(('bottom: "pool1" top: "conv2"', 'bottom: "pool" top: "conv2"')),
        "'pool' is not produced by any layer above",
        "conv2",
        net(),
    ),
    "duplicate-top": Case(
        ERROR,
        net((LOSS, 'layer { name: "x" type: "Power" bottom: "pool1" top: "conv1" }\n' + LOSS)),
        "'conv1' is produced twice",
        "x",
        net((LOSS, 'layer { name: "x" type: "Power" bottom: "fc" top: "fc" }\n' + LOSS)),
    ),
    "duplicate-name": Case(
        WARNING,
        net(('name: "conv2" type: "Conv', 'name: "conv1" type: "Conv')),
        "2 layers are named 'conv1'",
        "conv1",
        net(),  # the data layers of the two phases share their name
    ),
    "empty-net": Case(
        ERROR,
        net(base='name: "nothing" input_dim: 3\n'),
        "no layer is left in TRAIN",
        "",
        net(),
    ),
    "not-finite": Case(ERROR, solver(("0.045", "nan")), "base_lr is not a finite", "", solver()),
    "setting-ignored": Case(
        NOTE,
        net(('"ReLU" bottom: "conv1"', '"ReLU" pooling_param { } bottom: "conv1"')),
        "pooling_param in a layer of type ReLU",
        "conv1/relu",
        net(('"ReLU" bottom: "conv1"', '"ReLU" relu_param { } bottom: "conv1"')),
    ),
    "legacy-format": Case(
        NOTE,
        solver(('type: "SGD"', "solver_type: SGD")),
        "solver_type",
        "",
        solver(),
    ),
    "grid-mismatch": Case(
        ERROR,
        net(("crop_size: 27", "crop_size: 28"), ("kernel_size: 3 pad: 1", "kernel_size: 5 pad: 1")),
        "'sum'",
        "sum",
        net(),
    ),
    "pool-rounds-up": Case(
        WARNING,
        net(("crop_size: 27", "crop_size: 28"), base="tf"),
        "a grid of 28 becomes 14; rounded down, as in TensorFlow and PyTorch, 13",
        "grid",
        net(base="tf"),
    ),
    "average-pool-padding": Case(
        NOTE,
        net(("pool: MAX kernel_size: 3 stride: 2", "pool: AVE kernel_size: 3 pad: 1"), base="tf"),
        "counts its padding",
        "grid",
        net(("pool: MAX kernel_size: 3", "pool: AVE kernel_size: 3"), base="tf"),
    ),
    "phases-differ": Case(
        ERROR,
        net(
            (
                'bottom: "pool2" top: "fc"\n  inner_product_param {\n    num_output: 4',
                (
                    'bottom: "pool2" top: "fc" include { phase: TRAIN }\n  inner_product_param {\n'
                    "    num_output: 4"
                ),
            ),
            (LOSS, LOSS + SECOND_FC.replace('"aux"', '"fc"').replace("ut: 4", "ut: 5")),
            (
                '"InnerProduct" bottom: "pool1"',
                '"InnerProduct" include { phase: TEST } bottom: "pool2"',
            ),
            (LOSS, ""),
            ('layer {\n  name: "accuracy"', LOSS + 'layer {\n  name: "accuracy"'),
        ),
        "weights of shape 5x8, 5 in TEST, 4x8, 4 in TRAIN",
        "fc",
        net(),
    ),
    "bn-batch-stats-in-test": Case(
        ERROR,
        net((BN, FLAG.format("false"))),
        "reaches the TEST phase",
        "conv1/bn",
        net((BN, FLAG.format("false")), claims=claims(flavor="nvcaffe")),
    ),
    "bn-test-batch": Case(
        ERROR,
        net((BN, FLAG.format("false"))),
        "a TEST batch of 10",
        "data",
        net((BN, FLAG.format("false")), ("batch_size: 10", "batch_size: 50")),
    ),
    "bn-global-stats-in-train": Case(
        WARNING,
        net((BN, FLAG.format("true"))),
        "reaches the TRAIN phase",
        "conv1/bn",
        net((BN, FLAG.format("false"))),
    ),
    "bn-params-not-frozen": Case(
        ERROR,
        net((FROZEN, "param { lr_mult: 1 } param { lr_mult: 1 }")),
        "2 param { } with an lr_mult",
        "conv1/bn",
        net((FROZEN, "param { lr_mult: 0 } param { lr_mult: 0 }")),
    ),
    "bn-params-missing": Case(
        NOTE,
        net((FROZEN, "")),
        "without three param",
        "conv1/bn",
        net((FROZEN, "param { lr_mult: 0 } " * 3)),
    ),
    "bn-without-scale": Case(
        WARNING,
        net((SCALE1, "")),
        "no Scale follows",
        "conv1/bn",
        net(
            (
                SCALE1,
                SCALE1.replace("Scale", "Bias").replace("scale_param { bias_term: true }", ""),
            ),
        ),
    ),
    "bn-bias-before": Case(
        NOTE,
        net(("bias_term: false", "")),
        "a bias before a BatchNorm",
        "conv1",
        net(base="norm"),
    ),
    "bn-eps": Case(
        NOTE, net(("eps: 0.001", ""), base="tf"), "eps is 1e-05", "stem/bn", net(base="tf")
    ),
    "bn-fraction": Case(
        WARNING,
        net(("fraction: 0.95", "fraction: 0.999")),
        "averages over 1,000 iterations, the run has 1,000",
        "conv1/bn",
        Run(net=(("fraction: 0.95", "fraction: 0.999"),), solver=(("1000", "100000"),)),
    ),
    "class-imbalance": Case(
        WARNING,
        net(facts=facts(class_counts=(900, 600, 10, 90), class_names=("a", "b", "c", "d"))),
        "10 to 900 images; few: 'c' (10), 'd' (90)",
        "data",
        net(facts=facts(class_counts=(500, 300, 400, 400))),
    ),
    "class-empty": Case(
        WARNING,
        net(facts=facts(class_counts=(800, 0, 800), class_names=("a", "b", "c", "d"))),
        "no training image of 2 of 4 classes: 'b', 'd'",
        "data",
        net(facts=facts(class_counts=(400,) * 4, class_names=("a", "b", "c", "d"))),
    ),
    "bn-small-batch": Case(
        NOTE,
        net(("batch_size: 16", "batch_size: 4")),
        "BatchNorm over 4",
        "data",
        net(("batch_size: 16", "batch_size: 4"), base="norm"),
    ),
    "bn-scale-decay": Case(
        NOTE,
        net(("param { lr_mult: 1 decay_mult: 0 } ", "")),
        "weight decay on the Scale",
        "conv1/scale",
        Run(
            net=(("param { lr_mult: 1 decay_mult: 0 } ", ""),),
            solver=(("weight_decay: 0.0001", "weight_decay: 0"),),
        ),
    ),
    "bn-not-synchronized": Case(
        NOTE,
        net(claims=TWO_GPUS),
        "BatchNorm on 2 GPUs",
        "",
        net(base="norm", claims=TWO_GPUS),
    ),
    "residual-not-rectified": Case(
        WARNING,
        net((block("one", "grid", 1024), block("one", "grid", 1024, relu=False)), base="tf"),
        "no ReLU behind the addition",
        "one",
        net((block("two", "one", 1024), block("two", "one", 1024, relu=False)), base="tf"),
    ),
    "residual-unscaled": Case(
        NOTE,
        net(("coeff: 1 coeff: 0.1", ""), base="tf"),
        "more than 1,000 channels",
        "one",
        net(
            (
                block("two", "one", 1024),
                block("two", "one", 1024, "").replace(
                    'bottom: "two/up" top: "two"', 'bottom: "two/small" top: "two"'
                )
                + "",
            ),
            (
                'layer { name: "two" type',
                (
                    'layer { name: "two/small" type: "Power" bottom: "two/up" top: "two/small" '
                    'power_param { scale: 0.1 } }\nlayer { name: "two" type'
                ),
            ),
            base="tf",
        ),
    ),
    "residual-scale-on-trunk": Case(
        WARNING,
        net(("coeff: 1 coeff: 0.1", "coeff: 0.1 coeff: 1"), base="tf"),
        "the trunk is multiplied by 0.1",
        "one",
        net(base="tf"),
    ),
    "deploy-sum-factors": Case(
        NOTE,
        net(base=DEPLOY + total("sum", "conv1", "conv1", "coeff: 1 coeff: 0.5"), solver=None),
        "1 sum with factors",
        "sum",
        net(base=DEPLOY + total("sum", "conv1", "conv1", "coeff: 1 coeff: 1"), solver=None),
    ),
    "residual-bn-on-branch": Case(
        NOTE,
        net(
            (
                'layer { name: "one" type',
                (
                    'layer { name: "n" type: "BatchNorm" bottom: "one/up" top: "one/up" }\n'
                    'layer { name: "one" type'
                ),
            ),
            base="tf",
        ),
        "BatchNorm on the linear",
        "n",
        net(base="tf"),
    ),
    "residual-relu-on-branch": Case(
        NOTE,
        net(
            (
                'layer { name: "one" type',
                (
                    'layer { name: "r" type: "ReLU" bottom: "one/up" top: "one/up" }\n'
                    'layer { name: "one" type'
                ),
            ),
            base="tf",
        ),
        "a ReLU on the residual branch",
        "r",
        net(base="tf"),
    ),
    "zero-filler": Case(
        ERROR,
        net((MSRA, "")),
        "weight_filler of a Convolution is missing",
        "conv1",
        net(
            (MSRA, ""), claims=claims(weights={"conv1": ((8, 3, 3, 3),), "conv2": ((8, 8, 3, 3),)})
        ),
    ),
    "constant-filler": Case(
        WARNING,
        net((MSRA, 'weight_filler { type: "constant" value: 0.1 }')),
        "the constant 0.1",
        "conv1",
        net(
            ("num_output: 8", "num_output: 8 group: 1 "),
            (MSRA, 'weight_filler { type: "uniform" min: -0.1 max: 0.1 }'),
        ),
    ),
    "unknown-filler": Case(
        ERROR,
        net(("msra", "MSRA")),
        "weight_filler of type 'MSRA'",
        "conv1",
        net(),
    ),
    "filler-range": Case(
        WARNING,
        net((" std: 0.01", ""), base="norm"),
        "gaussian weight_filler without std",
        "conv1",
        net((MSRA, 'weight_filler { type: "gaussian" }')),  # a BatchNorm follows
    ),
    "filler-setting-ignored": Case(
        NOTE,
        net((MSRA, 'weight_filler { type: "msra" std: 0.01 }')),
        "std of msra",
        "conv1",
        net(base="norm"),
    ),
    "xavier-fan-in": Case(
        NOTE,
        net((" variance_norm: AVERAGE", ""), base="tf"),
        "xavier by the fan-in",
        "stem",
        net((" variance_norm: AVERAGE", "")),
    ),
    "scale-filler-zero": Case(
        WARNING,
        net(
            (SCALE1, SCALE1.replace("bias_term: true", "bias_term: true filler { }")),
        ),
        "filler of a Scale is a constant 0",
        "conv1/scale",
        net(
            ('name: "conv2/scale" type: "Scale" bottom: "conv2" top: "conv2"',) * 2,
            (
                'scale_param { bias_term: true }\n}\nlayer { name: "sum"',
                'scale_param { bias_term: true filler { } }\n}\nlayer { name: "sum"',
            ),
        ),
    ),
    "nothing-learns": Case(
        ERROR,
        net(
            ("param { lr_mult: 1 decay_mult: 0 }", "param { lr_mult: 0 }"),
            ("convolution_param {", "param { lr_mult: 0 } convolution_param {"),
            (
                "inner_product_param {",
                "param { lr_mult: 0 } param { lr_mult: 0 } inner_product_param {",
            ),
        ),
        "lr_mult is 0 for every weight",
        "",
        net(
            ("param { lr_mult: 1 decay_mult: 0 }", "param { lr_mult: 0 }"),
            ("convolution_param {", "param { lr_mult: 0 } convolution_param {"),
            ("inner_product_param {", "param { lr_mult: 0 } inner_product_param {"),
        ),
    ),
    "no-loss": Case(ERROR, net((LOSS, "")), "no loss layer in TRAIN", "", net()),
    "deploy-net": Case(
        ERROR,
        net(base=DEPLOY),
        "this is a deploy net",
        "data",
        net(base=DEPLOY, solver=None),
    ),
    "double-softmax": Case(
        WARNING,
        net(
            (
                LOSS,
                'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }\n'
                + LOSS.replace('bottom: "fc"', 'bottom: "prob"'),
            )
        ),
        "SoftmaxWithLoss reads a Softmax",
        "loss",
        net(
            (
                LOSS,
                'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }\n'
                + LOSS.replace('bottom: "fc"', 'bottom: "prob"').replace(
                    "SoftmaxWithLoss", "MultinomialLogisticLoss"
                ),
            )
        ),
    ),
    "top-k": Case(
        ERROR,
        net(("top_k: 1", "top_k: 5")),
        "top_k: 5 of 4 classes",
        "accuracy",
        net(("top_k: 1", "top_k: 3")),
    ),
    "accuracy-in-train": Case(
        NOTE,
        net(("  include { phase: TEST }\n  accuracy_param", "  accuracy_param")),
        "an Accuracy layer in TRAIN",
        "accuracy",
        net(),
    ),
    "no-measure": Case(
        NOTE,
        net(
            (
                'type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy"',
                'type: "ArgMax" bottom: "fc" top: "accuracy"',
            )
        ),
        "no Accuracy layer",
        "",
        net(),
    ),
    "label-range": Case(
        ERROR,
        net(facts=facts(max_label=4)),
        "train_lmdb has label 4, the net 4 outputs",
        "loss",
        net(facts=facts(max_label=3)),
    ),
    "outputs-differ": Case(
        WARNING,
        net(
            (
                LOSS,
                LOSS
                + SECOND_FC.replace("num_output: 4", "num_output: 1000")
                + LOSS.replace('"loss"', '"loss2"').replace('"fc"', '"aux"'),
            )
        ),
        "4 and 1000 classes for 'label'",
        "loss",
        net((LOSS, LOSS + SECOND_FC + LOSS.replace('"loss"', '"loss2"').replace('"fc"', '"aux"'))),
    ),
    "aux-loss-weight": Case(
        NOTE,
        net((LOSS, LOSS + SECOND_FC + LOSS.replace('"loss"', '"loss2"').replace('"fc"', '"aux"'))),
        "2 losses of 'label'",
        "loss",
        net(
            (
                LOSS,
                LOSS
                + SECOND_FC
                + LOSS.replace('"loss" }', '"loss2" loss_weight: 0.4 }')
                .replace('name: "loss"', 'name: "loss2"')
                .replace('"fc"', '"aux"'),
            )
        ),
    ),
    "dropout-ratio": Case(
        WARNING,
        net(("dropout_ratio: 0.2", "dropout_ratio: 0.8"), base="tf"),
        "dropout_ratio: 0.8",
        "drop",
        net(("dropout_ratio: 0.2", "dropout_ratio: 0.5"), base="tf"),
    ),
    "unread-top": Case(
        NOTE,
        net((LOSS, LOSS + SECOND_FC)),
        "'aux' is read by no layer",
        "aux",
        net((LOSS, LOSS + SECOND_FC + 'layer { name: "s" type: "Silence" bottom: "aux" }\n')),
    ),
    "infogain-matrix": Case(
        ERROR,
        infogain({}),
        "the matrix h does not exist",
        "loss",
        infogain({"h": blob(1, 1, 4, 4)}),
    ),
    "cudnn-missing": Case(
        WARNING,
        net(
            ("convolution_param {", "convolution_param { engine: CUDNN"),
            claims=claims(cudnn=False),
            base="plain",
        ),
        "built without cuDNN",
        "conv1",
        net(
            ("convolution_param {", "convolution_param { engine: CUDNN"),
            claims=claims(cudnn=True),
            base="plain",
        ),
    ),
    "data-missing": Case(
        NOTE,
        net(('"train_lmdb"', '"elsewhere"')),
        "elsewhere does not exist",
        "data",
        net(),
    ),
    "data-empty": Case(
        ERROR,
        net(facts=facts(num_records=0)),
        "holds no image",
        "data",
        net(),
    ),
    "records-broken": Case(
        ERROR,
        net(facts=facts(num_broken=2, broken="7 is cut off")),
        "2 of the 1,600 records that were looked at hold no image; record 7 is cut off",
        "data",
        net(facts=facts(num_decoded=2)),
    ),
    "height-first": Case(
        WARNING,
        net(facts=facts(height_first=True)),
        "height x width x channels",
        "data",
        net(facts=facts(height=3, width=3)),
    ),
    "backend-unset": Case(
        ERROR,
        net((" backend: LMDB", "")),
        "backend LEVELDB, which is the default, but train_lmdb is an LMDB",
        "data",
        net(
            (" backend: LMDB", ""),
            facts={
                "train_lmdb": replace(TRAIN, kind="LEVELDB"),
                "val_lmdb": replace(VAL, kind="LEVELDB"),
            },
        ),
    ),
    "batch-size": Case(
        ERROR,
        net(("batch_size: 16 ", "")),
        "batch_size is missing",
        "data",
        net(claims=claims(flavor="nvcaffe", num_gpus=2)),
    ),
    "no-shuffle": Case(
        WARNING,
        net(facts=facts(order="grouped")),
        "train_lmdb holds its images class by class",
        "data",
        net(),  # the validation database is sorted, and may be
    ),
    "crop-exceeds-records": Case(
        ERROR,
        net(facts=facts(height=26)),
        "crop_size 27, but train_lmdb holds 32x26",
        "data",
        net(facts=facts(height=27)),
    ),
    "records-differ": Case(
        ERROR,
        net(facts=facts(mixed_channels=True)),
        "gray and colour",
        "data",
        net(("mirror: true", "mirror: true force_color: true"), facts=facts(mixed_channels=True)),
    ),
    "mean": Case(
        ERROR,
        net(("mean_value: 123", "")),
        "2 mean_value for 3 channel(s)",
        "data",
        net(("mean_value: 117 mean_value: 123", "")),
    ),
    "mean-size": Case(
        ERROR,
        net(
            ("mean_value: 104 mean_value: 117 mean_value: 123", 'mean_file: "m"'),
            files={"m": blob(1, 3, 27, 27)},
        ),
        "a mean image of 3x27x27, records of 3x32x32",
        "data",
        net(
            ("mean_value: 104 mean_value: 117 mean_value: 123", 'mean_file: "m"'),
            files={"m": blob(1, 3, 32, 32)},
        ),
    ),
    "phases-transform": Case(
        WARNING,
        net(("mirror: true", "mirror: true scale: 0.0078")),
        "scale is 0.0078 in TRAIN, 1 in TEST",
        "data",
        net(("crop_size", "scale: 0.0078 crop_size")),
    ),
    "phases-labels": Case(
        ERROR,
        net(facts={"train_lmdb": CATS, "val_lmdb": replace(VAL, class_names=("b", "a", "c"))}),
        "label 0 is 'a' in TRAIN, 'b' in TEST (2 labels differ)",
        "data",
        net(facts={"train_lmdb": CATS, "val_lmdb": replace(VAL, class_names=("a", "b"))}),
    ),
    "phases-records": Case(
        NOTE,
        net(facts=facts(height=40, width=40)),
        "images of 40x40 in TRAIN, 32x32 in TEST",
        "data",
        net(facts=facts(height=40, width=40, mixed_sizes=True)),
    ),
    "mirror-in-test": Case(
        WARNING,
        net(("{ crop_size", "{ mirror: true crop_size")),
        "mirror: true in TEST",
        "data",
        net(),
    ),
    "no-augmentation": Case(
        NOTE,
        net(("mirror: true ", ""), facts=facts(height=27, width=27)),
        "neither a random crop nor a mirror",
        "data",
        net(("mirror: true ", "")),
    ),
    "same-source": Case(
        WARNING,
        net(('"val_lmdb"', '"train_lmdb"')),
        "TEST reads train_lmdb, as TRAIN does",
        "data",
        net(),
    ),
    "fixed-order": Case(NOTE, net(base="tf"), "in the same order", "data", net()),
    "dead-setting": Case(
        NOTE,
        net(("backend: LMDB", "backend: LMDB force_encoded_color: true")),
        "force_encoded_color",
        "data",
        net(("mirror: true", "mirror: true force_color: true")),
    ),
    "test-set-size": Case(
        WARNING,
        solver(("test_iter: 5", "test_iter: 4")),
        "test_iter 4 x batch 10 = 40 images, the validation set has 50",
        "",
        solver(("test_iter: 5", "test_iter: 4"), claims=claims(num_val=40)),
    ),
    "solver-nets": Case(
        ERROR,
        solver(("test_iter: 5", 'test_iter: 5 train_net: "net.prototxt"')),
        "net and train_net name the training net",
        "",
        solver(),
    ),
    "solver-type": Case(
        ERROR,
        solver(('"SGD"', '"sgd"')),
        "type: 'sgd'",
        "",
        solver(('"SGD"', '"Nesterov"')),
    ),
    "momentum-not-taken": Case(
        ERROR,
        solver(('"SGD"', '"RMSProp"')),
        "momentum: 0.9 with RMSProp",
        "",
        solver(*RMSPROP),
    ),
    "rmsprop-without-momentum": Case(
        NOTE,
        solver(*RMSPROP),
        "no momentum",
        "",
        solver(*RMSPROP, ("delta: 1.0", "delta: 0.00001"), ("0.045", "0.001")),
    ),
    "rmsprop-delta": Case(
        WARNING,
        solver(*RMSPROP, ("delta: 1.0\n", "")),
        "delta 1e-08 (unset) with base_lr 0.045",
        "",
        solver(*RMSPROP, ("delta: 1.0\n", ""), ("0.045", "0.001")),
    ),
    "rms-decay": Case(
        ERROR,
        solver(*RMSPROP, ("rms_decay: 0.9", "rms_decay: 1.0")),
        "rms_decay: 1",
        "",
        solver(*RMSPROP),
    ),
    "momentum": Case(NOTE, solver(("momentum: 0.9\n", "")), "SGD without momentum", "", solver()),
    "weight-decay": Case(
        WARNING,
        solver(("weight_decay: 0.0001\n", "")),
        "weight_decay is unset",
        "",
        solver(),
    ),
    "regularization-type": Case(
        ERROR,
        solver(("random_seed", 'regularization_type: "l2" random_seed')),
        "'l2'",
        "",
        solver(("random_seed", 'regularization_type: "L1" random_seed')),
    ),
    "clip-gradients": Case(
        NOTE,
        solver(("display", "clip_gradients: 10 iter_size: 4 display")),
        "clip_gradients 10 with iter_size 4",
        "",
        solver(("display", "clip_gradients: 10 display")),
    ),
    "iter-size": Case(
        ERROR,
        solver(("display", "iter_size: 0 display")),
        "iter_size: 0",
        "",
        solver(("display", "iter_size: 1 display")),
    ),
    "effective-batch": Case(
        NOTE,
        solver(("display", "iter_size: 2 display"), claims=TWO_GPUS),
        "64 images per update: 16 x 2 device(s) x iter_size 2",
        "",
        solver(claims=claims(num_gpus=1)),
    ),
    "solver-mode": Case(
        WARNING,
        solver(("solver_mode: GPU\n", "")),
        "solver_mode is unset",
        "",
        solver(),
    ),
    "random-seed": Case(
        NOTE, solver(("random_seed: 1\n", "")), "random_seed is unset", "", solver()
    ),
    "shared-weights": Case(
        ERROR,
        net(
            ("convolution_param {", 'param { name: "w" } convolution_param {'),
            claims=TWO_GPUS,
            base="plain",
        ),
        "layers share 'w'",
        "conv2",
        net(("convolution_param {", 'param { name: "w" } convolution_param {'), base="plain"),
    ),
    "verbose": Case(
        NOTE,
        solver(("display", "debug_info: true display")),
        "debug_info: true",
        "",
        solver(),
    ),
    "max-iter": Case(ERROR, solver(("max_iter: 1000\n", "")), "max_iter is missing", "", solver()),
    "base-lr": Case(ERROR, solver(("base_lr: 0.045\n", "")), "base_lr is missing", "", solver()),
    "lr-policy": Case(
        ERROR,
        solver(("stepsize: 200\n", "")),
        "lr_policy step without stepsize",
        "",
        solver(("stepsize: 200\n", ""), ('"step"', '"exp"'), ("0.94", "0.9999")),
    ),
    "lr-vanishes": Case(
        WARNING,
        solver(("stepsize: 200", "stepsize: 2")),
        "after 224 of 1,000 iterations",
        "",
        solver(("stepsize: 200", "stepsize: 300"), ("0.94", "0.1")),
    ),
    "run-length": Case(
        WARNING,
        solver(claims=claims(epochs=10, num_gpus=2)),
        "max_iter 1,000 is 20.00 epochs, not 10",
        "",
        solver(claims=claims(epochs=10, num_gpus=1)),
    ),
    "lr-step-length": Case(
        WARNING,
        solver(claims=claims(lr_decay_epochs=1)),
        "stepsize 200 is 2 epochs, not 1",
        "",
        solver(claims=claims(lr_decay_epochs=2)),
    ),
    "tests": Case(
        ERROR,
        solver(("test_interval: 100\n", "")),
        "test_iter without test_interval",
        "",
        solver(),
    ),
    "display": Case(WARNING, solver(("display: 20\n", "")), "display is unset", "", solver()),
    "snapshot-folder": Case(
        ERROR,
        solver(no_folder=True),
        "the folder snapshots of snapshot_prefix does not exist",
        "",
        solver(),
    ),
    "snapshot-prefix": Case(
        ERROR,
        solver(('snapshot_prefix: "snapshots/net"\n', "")),
        "snapshot_prefix is unset",
        "",
        solver(),
    ),
    "snapshot-never": Case(
        NOTE,
        solver(("snapshot: 500\n", "")),
        "no snapshot before the end",
        "",
        solver(("snapshot: 500", "snapshot: 1000")),
    ),
    "snapshot-taken": Case(
        WARNING,
        solver(files={"other.prototxt": b'snapshot_prefix: "snapshots/net"'}),
        "other.prototxt has the same snapshot_prefix",
        "",
        solver(files={"other.prototxt": b'snapshot_prefix: "snapshots/nets"'}),
    ),
    "weights-shape": Case(
        ERROR,
        net(claims=claims(weights={"conv1": ((16, 3, 3, 3),)})),
        "weights of shape 16x3x3x3 for a layer of 8x3x3x3",
        "conv1",
        net(claims=claims(weights={"fc": ((1, 1, 4, 8), (1, 1, 1, 4))})),
    ),
}
