"""Every rule of check has a run that triggers it and one that does not; good runs are clean."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.check_cases import (
    BN,
    DEPLOY,
    FACTS,
    FLAG,
    FROZEN,
    LOSS,
    MSRA,
    NETS,
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

import irv2caffe.check.rules  # noqa: F401  registers the rules
from irv2caffe.check.finding import Severity
from irv2caffe.check.nets import gather
from irv2caffe.check.read import read
from irv2caffe.check.registry import RULES, findings
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


# Rule: severity, a run with the flaw, words of what is found, the layer it is found in (or
# solver), and a run that is as near as can be and has it not.
CASES = {
    "net-missing": (
        ERROR,
        solver(('"net.prototxt"', '"other/nets.prototxt"')),
        "'other/nets.prototxt' does not exist",
        "",
        solver(),
    ),
    "net-elsewhere": (
        WARNING,
        solver(('"net.prototxt"', '"models/net.prototxt"')),
        "beside the solver was taken",
        "",
        solver(),
    ),
    "net-refused": (
        ERROR,
        net(("kernel_size: 3 pad: 1", "kernel_size: 33")),
        "conv1",
        "conv1",
        net(("kernel_size: 3 pad: 1", "kernel_size: 1")),
    ),
    "unknown-field": (
        ERROR,
        net(("pad: 1", "pad: 1 padding: 1")),
        "no field 'padding'",
        "conv1",
        net(),
    ),
    "unknown-value": (
        ERROR,
        net(("pool: MAX", "pool: MEDIAN")),
        "knows no pool: MEDIAN in PoolingParameter",
        "pool1",
        net(("pool: MAX", "pool: AVE")),
    ),
    "solver-as-net": (
        ERROR,
        solver(('"net.prototxt"', '"other.prototxt"'), files={"other.prototxt": SECOND_SOLVER}),
        "'other.prototxt' is a solver, not a net",
        "",
        solver(files={"other.prototxt": SECOND_SOLVER}),
    ),
    "field-after-1.0": (
        WARNING,
        net(("pool: MAX", "pool: MAX round_mode: FLOOR")),
        "round_mode came after",
        "pool1",
        net(),
    ),
    "unknown-layer-type": (
        ERROR,
        net(('type: "ReLU"', 'type: "Relu"')),
        "no layer type 'Relu'",
        "conv1/relu",
        net(('type: "ReLU"', 'type: "ELU"')),
    ),
    "unknown-bottom": (
        ERROR,
        net(('bottom: "pool1" top: "conv2"', 'bottom: "pool" top: "conv2"')),
        "'pool' is made by no layer above",
        "conv2",
        net(),
    ),
    "duplicate-top": (
        ERROR,
        net((LOSS, 'layer { name: "x" type: "Power" bottom: "pool1" top: "conv1" }\n' + LOSS)),
        "'conv1' is made a second time",
        "x",
        net((LOSS, 'layer { name: "x" type: "Power" bottom: "fc" top: "fc" }\n' + LOSS)),
    ),
    "duplicate-name": (
        WARNING,
        net(('name: "conv2" type: "Conv', 'name: "conv1" type: "Conv')),
        "2 layers are called 'conv1'",
        "conv1",
        net(),  # the data layers of the two phases share their name
    ),
    "empty-net": (
        ERROR,
        net(base='name: "nothing" input_dim: 3\n'),
        "no layer is left in TRAIN",
        "",
        net(),
    ),
    "not-finite": (ERROR, solver(("0.045", "nan")), "base_lr is not a finite", "", solver()),
    "setting-ignored": (
        NOTE,
        net(('"ReLU" bottom: "conv1"', '"ReLU" pooling_param { } bottom: "conv1"')),
        "pooling_param in a layer of type ReLU",
        "conv1/relu",
        net(('"ReLU" bottom: "conv1"', '"ReLU" relu_param { } bottom: "conv1"')),
    ),
    "legacy-format": (
        NOTE,
        solver(('type: "SGD"', "solver_type: SGD")),
        "solver_type",
        "",
        solver(),
    ),
    "grid-mismatch": (
        ERROR,
        net(("crop_size: 27", "crop_size: 28"), ("kernel_size: 3 pad: 1", "kernel_size: 5 pad: 1")),
        "'sum'",
        "sum",
        net(),
    ),
    "pool-rounds-up": (
        WARNING,
        net(("crop_size: 27", "crop_size: 28"), base="tf"),
        "a grid of 28 becomes 14; rounded down, as in TensorFlow and PyTorch, 13",
        "grid",
        net(base="tf"),
    ),
    "average-pool-padding": (
        NOTE,
        net(("pool: MAX kernel_size: 3 stride: 2", "pool: AVE kernel_size: 3 pad: 1"), base="tf"),
        "counts its padding",
        "grid",
        net(("pool: MAX kernel_size: 3", "pool: AVE kernel_size: 3"), base="tf"),
    ),
    "phases-differ": (
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
    "bn-batch-stats-in-test": (
        ERROR,
        net((BN, FLAG.format("false"))),
        "reaches the TEST phase",
        "conv1/bn",
        net((BN, FLAG.format("false")), claims=claims(flavor="nvcaffe")),
    ),
    "bn-test-batch": (
        ERROR,
        net((BN, FLAG.format("false"))),
        "a TEST batch of 10",
        "data",
        net((BN, FLAG.format("false")), ("batch_size: 10", "batch_size: 50")),
    ),
    "bn-global-stats-in-train": (
        WARNING,
        net((BN, FLAG.format("true"))),
        "reaches the TRAIN phase",
        "conv1/bn",
        net((BN, FLAG.format("false"))),
    ),
    "bn-params-not-frozen": (
        ERROR,
        net((FROZEN, "param { lr_mult: 1 } param { lr_mult: 1 }")),
        "2 param { } with an lr_mult",
        "conv1/bn",
        net((FROZEN, "param { lr_mult: 0 } param { lr_mult: 0 }")),
    ),
    "bn-params-missing": (
        NOTE,
        net((FROZEN, "")),
        "without three param",
        "conv1/bn",
        net((FROZEN, "param { lr_mult: 0 } " * 3)),
    ),
    "bn-without-scale": (
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
    "bn-bias-before": (
        NOTE,
        net(("bias_term: false", "")),
        "a bias before a BatchNorm",
        "conv1",
        net(base="norm"),
    ),
    "bn-eps": (NOTE, net(("eps: 0.001", ""), base="tf"), "eps is 1e-05", "stem/bn", net(base="tf")),
    "bn-fraction": (
        NOTE,
        net(("fraction: 0.95", "fraction: 0.999")),
        "averages over 1,000 iterations, the run has 1,000",
        "conv1/bn",
        Run(net=(("fraction: 0.95", "fraction: 0.999"),), solver=(("1000", "100000"),)),
    ),
    "bn-small-batch": (
        NOTE,
        net(("batch_size: 16", "batch_size: 4")),
        "BatchNorm over 4",
        "data",
        net(("batch_size: 16", "batch_size: 4"), base="norm"),
    ),
    "bn-scale-decay": (
        NOTE,
        net(("param { lr_mult: 1 decay_mult: 0 } ", "")),
        "weight decay on the Scale",
        "conv1/scale",
        Run(
            net=(("param { lr_mult: 1 decay_mult: 0 } ", ""),),
            solver=(("weight_decay: 0.0001", "weight_decay: 0"),),
        ),
    ),
    "bn-not-synchronized": (
        NOTE,
        net(claims=TWO_GPUS),
        "BatchNorm on 2 GPUs",
        "",
        net(base="norm", claims=TWO_GPUS),
    ),
    "residual-not-rectified": (
        WARNING,
        net((block("one", "grid", 1024), block("one", "grid", 1024, relu=False)), base="tf"),
        "no ReLU behind the addition",
        "one",
        net((block("two", "one", 1024), block("two", "one", 1024, relu=False)), base="tf"),
    ),
    "residual-unscaled": (
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
    "residual-scale-on-trunk": (
        WARNING,
        net(("coeff: 1 coeff: 0.1", "coeff: 0.1 coeff: 1"), base="tf"),
        "the trunk is multiplied by 0.1",
        "one",
        net(base="tf"),
    ),
    "deploy-sum-factors": (
        NOTE,
        net(base=DEPLOY + total("sum", "conv1", "conv1", "coeff: 1 coeff: 0.5"), solver=None),
        "1 sum with factors",
        "sum",
        net(base=DEPLOY + total("sum", "conv1", "conv1", "coeff: 1 coeff: 1"), solver=None),
    ),
    "residual-bn-on-branch": (
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
    "residual-relu-on-branch": (
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
    "zero-filler": (
        ERROR,
        net((MSRA, "")),
        "weight_filler of a Convolution is missing",
        "conv1",
        net(
            (MSRA, ""), claims=claims(weights={"conv1": ((8, 3, 3, 3),), "conv2": ((8, 8, 3, 3),)})
        ),
    ),
    "constant-filler": (
        WARNING,
        net((MSRA, 'weight_filler { type: "constant" value: 0.1 }')),
        "the constant 0.1",
        "conv1",
        net(
            ("num_output: 8", "num_output: 8 group: 1 "),
            (MSRA, 'weight_filler { type: "uniform" min: -0.1 max: 0.1 }'),
        ),
    ),
    "unknown-filler": (
        ERROR,
        net(("msra", "MSRA")),
        "weight_filler of type 'MSRA'",
        "conv1",
        net(),
    ),
    "filler-range": (
        WARNING,
        net((" std: 0.01", ""), base="norm"),
        "gaussian weight_filler without std",
        "conv1",
        net((MSRA, 'weight_filler { type: "gaussian" }')),  # a BatchNorm follows
    ),
    "filler-setting-ignored": (
        NOTE,
        net((MSRA, 'weight_filler { type: "msra" std: 0.01 }')),
        "std of msra",
        "conv1",
        net(base="norm"),
    ),
    "xavier-fan-in": (
        NOTE,
        net((" variance_norm: AVERAGE", ""), base="tf"),
        "xavier by the fan-in",
        "stem",
        net((" variance_norm: AVERAGE", "")),
    ),
    "scale-filler-zero": (
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
    "nothing-learns": (
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
    "no-loss": (ERROR, net((LOSS, "")), "no loss layer in TRAIN", "", net()),
    "deploy-net": (
        ERROR,
        net(base=DEPLOY),
        "this is a deploy net",
        "data",
        net(base=DEPLOY, solver=None),
    ),
    "double-softmax": (
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
    "top-k": (
        ERROR,
        net(("top_k: 1", "top_k: 5")),
        "top_k: 5 of 4 classes",
        "accuracy",
        net(("top_k: 1", "top_k: 3")),
    ),
    "accuracy-in-train": (
        NOTE,
        net(("  include { phase: TEST }\n  accuracy_param", "  accuracy_param")),
        "an Accuracy layer in TRAIN",
        "accuracy",
        net(),
    ),
    "no-measure": (
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
    "label-range": (
        ERROR,
        net(facts=facts(max_label=4)),
        "train_lmdb has label 4, the net 4 outputs",
        "loss",
        net(facts=facts(max_label=3)),
    ),
    "outputs-differ": (
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
    "aux-loss-weight": (
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
    "dropout-ratio": (
        WARNING,
        net(("dropout_ratio: 0.2", "dropout_ratio: 0.8"), base="tf"),
        "dropout_ratio: 0.8",
        "drop",
        net(("dropout_ratio: 0.2", "dropout_ratio: 0.5"), base="tf"),
    ),
    "unread-top": (
        NOTE,
        net((LOSS, LOSS + SECOND_FC)),
        "'aux' is read by no layer",
        "aux",
        net((LOSS, LOSS + SECOND_FC + 'layer { name: "s" type: "Silence" bottom: "aux" }\n')),
    ),
    "infogain-matrix": (
        ERROR,
        infogain({}),
        "the matrix h does not exist",
        "loss",
        infogain({"h": blob(1, 1, 4, 4)}),
    ),
    "data-missing": (
        NOTE,
        net(('"train_lmdb"', '"elsewhere"')),
        "elsewhere does not exist",
        "data",
        net(),
    ),
    "data-empty": (
        ERROR,
        net(facts=facts(num_records=0)),
        "holds no image",
        "data",
        net(),
    ),
    "records-broken": (
        ERROR,
        net(facts=facts(num_broken=2, broken="7 is cut off")),
        "2 of the 1,600 records that were looked at hold no image; record 7 is cut off",
        "data",
        net(facts=facts(num_decoded=2)),
    ),
    "height-first": (
        WARNING,
        net(facts=facts(height_first=True)),
        "height x width x channels",
        "data",
        net(facts=facts(height=3, width=3)),
    ),
    "backend-unset": (
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
    "batch-size": (
        ERROR,
        net(("batch_size: 16 ", "")),
        "batch_size is missing",
        "data",
        net(claims=claims(flavor="nvcaffe", num_gpus=2)),
    ),
    "no-shuffle": (
        WARNING,
        net(facts=facts(order="grouped")),
        "train_lmdb holds its images class by class",
        "data",
        net(),  # the validation database is sorted, and may be
    ),
    "crop-exceeds-records": (
        ERROR,
        net(facts=facts(height=26)),
        "crop_size 27, but train_lmdb holds 32x26",
        "data",
        net(facts=facts(height=27)),
    ),
    "records-differ": (
        ERROR,
        net(facts=facts(mixed_channels=True)),
        "gray and colour",
        "data",
        net(("mirror: true", "mirror: true force_color: true"), facts=facts(mixed_channels=True)),
    ),
    "mean": (
        ERROR,
        net(("mean_value: 123", "")),
        "2 mean_value for 3 channel(s)",
        "data",
        net(("mean_value: 117 mean_value: 123", "")),
    ),
    "mean-size": (
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
    "phases-transform": (
        WARNING,
        net(("mirror: true", "mirror: true scale: 0.0078")),
        "scale is 0.0078 in TRAIN, 1 in TEST",
        "data",
        net(("crop_size", "scale: 0.0078 crop_size")),
    ),
    "phases-labels": (
        ERROR,
        net(facts={"train_lmdb": CATS, "val_lmdb": replace(VAL, class_names=("b", "a", "c"))}),
        "label 0 is 'a' in TRAIN, 'b' in TEST (2 labels differ)",
        "data",
        net(facts={"train_lmdb": CATS, "val_lmdb": replace(VAL, class_names=("a", "b"))}),
    ),
    "phases-records": (
        NOTE,
        net(facts=facts(height=40, width=40)),
        "images of 40x40 in TRAIN, 32x32 in TEST",
        "data",
        net(facts=facts(height=40, width=40, mixed_sizes=True)),
    ),
    "mirror-in-test": (
        WARNING,
        net(("{ crop_size", "{ mirror: true crop_size")),
        "mirror: true in TEST",
        "data",
        net(),
    ),
    "no-augmentation": (
        NOTE,
        net(("mirror: true ", ""), facts=facts(height=27, width=27)),
        "neither a random crop nor a mirror",
        "data",
        net(("mirror: true ", "")),
    ),
    "same-source": (
        WARNING,
        net(('"val_lmdb"', '"train_lmdb"')),
        "TEST reads train_lmdb, as TRAIN does",
        "data",
        net(),
    ),
    "fixed-order": (NOTE, net(base="tf"), "in the same order", "data", net()),
    "dead-setting": (
        NOTE,
        net(("backend: LMDB", "backend: LMDB force_encoded_color: true")),
        "force_encoded_color",
        "data",
        net(("mirror: true", "mirror: true force_color: true")),
    ),
    "test-set-size": (
        WARNING,
        solver(("test_iter: 5", "test_iter: 4")),
        "test_iter 4 x batch 10 = 40 images, the validation set has 50",
        "",
        solver(("test_iter: 5", "test_iter: 4"), claims=claims(num_val=40)),
    ),
    "solver-nets": (
        ERROR,
        solver(("test_iter: 5", 'test_iter: 5 train_net: "net.prototxt"')),
        "net and train_net name the training net",
        "",
        solver(),
    ),
    "solver-type": (
        ERROR,
        solver(('"SGD"', '"sgd"')),
        "type: 'sgd'",
        "",
        solver(('"SGD"', '"Nesterov"')),
    ),
    "momentum-not-taken": (
        ERROR,
        solver(('"SGD"', '"RMSProp"')),
        "momentum: 0.9 with RMSProp",
        "",
        solver(*RMSPROP),
    ),
    "rmsprop-without-momentum": (
        NOTE,
        solver(*RMSPROP),
        "no momentum",
        "",
        solver(*RMSPROP, ("delta: 1.0", "delta: 0.00001"), ("0.045", "0.001")),
    ),
    "rmsprop-delta": (
        WARNING,
        solver(*RMSPROP, ("delta: 1.0\n", "")),
        "delta 1e-08 (unset) with base_lr 0.045",
        "",
        solver(*RMSPROP, ("delta: 1.0\n", ""), ("0.045", "0.001")),
    ),
    "rms-decay": (
        ERROR,
        solver(*RMSPROP, ("rms_decay: 0.9", "rms_decay: 1.0")),
        "rms_decay: 1",
        "",
        solver(*RMSPROP),
    ),
    "momentum": (NOTE, solver(("momentum: 0.9\n", "")), "SGD without momentum", "", solver()),
    "weight-decay": (
        WARNING,
        solver(("weight_decay: 0.0001\n", "")),
        "weight_decay is unset",
        "",
        solver(),
    ),
    "regularization-type": (
        ERROR,
        solver(("random_seed", 'regularization_type: "l2" random_seed')),
        "'l2'",
        "",
        solver(("random_seed", 'regularization_type: "L1" random_seed')),
    ),
    "clip-gradients": (
        NOTE,
        solver(("display", "clip_gradients: 10 iter_size: 4 display")),
        "clip_gradients 10 with iter_size 4",
        "",
        solver(("display", "clip_gradients: 10 display")),
    ),
    "iter-size": (
        ERROR,
        solver(("display", "iter_size: 0 display")),
        "iter_size: 0",
        "",
        solver(("display", "iter_size: 1 display")),
    ),
    "effective-batch": (
        NOTE,
        solver(("display", "iter_size: 2 display"), claims=TWO_GPUS),
        "64 images per update: 16 x 2 device(s) x iter_size 2",
        "",
        solver(claims=claims(num_gpus=1)),
    ),
    "solver-mode": (
        WARNING,
        solver(("solver_mode: GPU\n", "")),
        "solver_mode is unset",
        "",
        solver(),
    ),
    "random-seed": (NOTE, solver(("random_seed: 1\n", "")), "random_seed is unset", "", solver()),
    "shared-weights": (
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
    "verbose": (
        NOTE,
        solver(("display", "debug_info: true display")),
        "debug_info: true",
        "",
        solver(),
    ),
    "max-iter": (ERROR, solver(("max_iter: 1000\n", "")), "max_iter is missing", "", solver()),
    "base-lr": (ERROR, solver(("base_lr: 0.045\n", "")), "base_lr is missing", "", solver()),
    "lr-policy": (
        ERROR,
        solver(("stepsize: 200\n", "")),
        "lr_policy step without stepsize",
        "",
        solver(("stepsize: 200\n", ""), ('"step"', '"exp"'), ("0.94", "0.9999")),
    ),
    "lr-vanishes": (
        WARNING,
        solver(("stepsize: 200", "stepsize: 2")),
        "after 224 of 1,000 iterations",
        "",
        solver(("stepsize: 200", "stepsize: 300"), ("0.94", "0.1")),
    ),
    "run-length": (
        WARNING,
        solver(claims=claims(epochs=10, num_gpus=2)),
        "max_iter 1,000 is 20.00 epochs, not 10",
        "",
        solver(claims=claims(epochs=10, num_gpus=1)),
    ),
    "lr-step-length": (
        WARNING,
        solver(claims=claims(lr_decay_epochs=1)),
        "stepsize 200 is 2 epochs, not 1",
        "",
        solver(claims=claims(lr_decay_epochs=2)),
    ),
    "tests": (
        ERROR,
        solver(("test_interval: 100\n", "")),
        "test_iter without test_interval",
        "",
        solver(),
    ),
    "display": (WARNING, solver(("display: 20\n", "")), "display is unset", "", solver()),
    "snapshot-folder": (
        ERROR,
        solver(no_folder=True),
        "the folder snapshots of snapshot_prefix does not exist",
        "",
        solver(),
    ),
    "snapshot-prefix": (
        ERROR,
        solver(('snapshot_prefix: "snapshots/net"\n', "")),
        "snapshot_prefix is unset",
        "",
        solver(),
    ),
    "snapshot-never": (
        NOTE,
        solver(("snapshot: 500\n", "")),
        "no snapshot before the end",
        "",
        solver(("snapshot: 500", "snapshot: 1000")),
    ),
    "snapshot-taken": (
        WARNING,
        solver(files={"other.prototxt": b'snapshot_prefix: "snapshots/net"'}),
        "other.prototxt has the same snapshot_prefix",
        "",
        solver(files={"other.prototxt": b'snapshot_prefix: "snapshots/nets"'}),
    ),
    "weights-shape": (
        ERROR,
        net(claims=claims(weights={"conv1": ((16, 3, 3, 3),)})),
        "weights of shape 16x3x3x3 for a layer of 8x3x3x3",
        "conv1",
        net(claims=claims(weights={"fc": ((1, 1, 4, 8), (1, 1, 1, 4))})),
    ),
}

IN_OTHER_TESTS = {"data-unreadable"}


def evidence_of(run, folder, monkeypatch):
    monkeypatch.chdir(folder)
    path = run.write(folder)
    return gather(read(path.relative_to(folder)), {**FACTS, **run.facts}, run.claims)


def found_in(run, folder, monkeypatch):
    return findings(evidence_of(run, folder, monkeypatch), RULES.values())


def test_every_rule_has_its_case():
    assert set(CASES) | IN_OTHER_TESTS == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_finds_its_flaw(name, tmp_path, monkeypatch):
    severity, bad, words, layer, _ = CASES[name]
    found = [each for each in found_in(bad, tmp_path, monkeypatch) if each.rule == name]
    assert found, f"{name} is silent"
    told = next((each for each in found if words in each.what), None)
    assert told is not None, [each.what for each in found]
    assert told.severity is severity
    assert told.why
    assert told.fix
    assert told.source
    if layer is not None:
        assert told.places[0].layer == layer
    if layer:
        line = (tmp_path / told.places[0].file).read_text().splitlines()[told.places[0].line - 1]
        assert line.strip()


@pytest.mark.parametrize("name", CASES)
def test_a_rule_is_silent_on_what_is_right(name, tmp_path, monkeypatch):
    good = CASES[name][4]
    assert not [each.what for each in found_in(good, tmp_path, monkeypatch) if each.rule == name]


@pytest.mark.parametrize("base", NETS)
@pytest.mark.parametrize("alone", [True, False])
def test_the_runs_that_cases_start_from_are_clean(base, alone, tmp_path, monkeypatch):
    run = Run(base, solver=None if alone else ())
    found = found_in(run, tmp_path, monkeypatch)
    assert not [each for each in found if each.severity > NOTE]
