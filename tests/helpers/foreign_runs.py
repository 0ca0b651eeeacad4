"""Training runs as other people publish them, in small: good ones, in which nothing is wrong."""

from __future__ import annotations


def data(*, crop, train, test, mean="mean_value: 104 mean_value: 117 mean_value: 123", more=""):
    def one(phase, source, batch, mirror):
        return f"""
layer {{
  name: "data"
  type: "Data"
  top: "data"
  top: "label"
  include {{ phase: {phase} }}
  transform_param {{ mirror: {mirror} crop_size: {crop} {mean} {more} }}
  data_param {{
    source: "examples/imagenet/ilsvrc12_{source}_lmdb" batch_size: {batch} backend: LMDB
  }}
}}
"""

    return one("TRAIN", "train", train, "true") + one("TEST", "val", test, "false")


def tail(bottom, classes=1000):
    return f"""
layer {{
  name: "fc{classes}"
  type: "InnerProduct"
  bottom: "{bottom}"
  top: "fc{classes}"
  param {{ lr_mult: 1 decay_mult: 1 }}
  param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{
    num_output: {classes}
    weight_filler {{ type: "xavier" }}
    bias_filler {{ type: "constant" value: 0 }}
  }}
}}
layer {{
  name: "loss" type: "SoftmaxWithLoss" bottom: "fc{classes}" bottom: "label" top: "loss"
}}
layer {{
  name: "acc/top-1" type: "Accuracy" bottom: "fc{classes}" bottom: "label" top: "acc/top-1"
  include {{ phase: TEST }}
}}
layer {{
  name: "acc/top-5" type: "Accuracy" bottom: "fc{classes}" bottom: "label" top: "acc/top-5"
  include {{ phase: TEST }}
  accuracy_param {{ top_k: 5 }}
}}
"""


def conv(name, bottom, sizes, filler, *, bias=True, more=""):
    rest = 'bias_filler { type: "constant" value: 0.2 }' if bias else "bias_term: false"
    spec = "param { lr_mult: 1 decay_mult: 1 } "
    spec += "param { lr_mult: 2 decay_mult: 0 }" if bias else ""
    return f"""
layer {{
  name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
  {spec}
  convolution_param {{ {sizes} {more} weight_filler {{ {filler} }} {rest} }}
}}
"""


def relu(top):
    return f'layer {{ bottom: "{top}" top: "{top}" name: "{top}_relu" type: "ReLU" }}\n'


def norm(top, *, into=None, params=""):
    into = into or top
    return f"""
layer {{ bottom: "{top}" top: "{into}" name: "bn_{into}" type: "BatchNorm" {params} }}
layer {{
  bottom: "{into}" top: "{into}" name: "scale_{into}" type: "Scale"
  scale_param {{ bias_term: true }}
}}
"""


def plus(name, left, right):
    return f"""
layer {{ bottom: "{left}" bottom: "{right}" top: "{name}" name: "{name}" type: "Eltwise" }}
"""


def pool(name, bottom, fields):
    return f"""
layer {{
  bottom: "{bottom}" top: "{name}" name: "{name}" type: "Pooling" pooling_param {{ {fields} }}
}}
"""


MSRA = 'type: "msra"'


def resnet():
    """He et al. 2015 as trained in Caffe: no flags on BatchNorm, 224 pixels, pooling rounded up."""
    text = 'name: "ResNet-50"\n' + data(crop=224, train=32, test=25)
    text += conv(
        "conv1", "data", "num_output: 64 kernel_size: 7 pad: 3 stride: 2", MSRA, bias=False
    )
    text += norm("conv1") + relu("conv1") + pool("pool1", "conv1", "kernel_size: 3 stride: 2")
    text += conv("res2a_1", "pool1", "num_output: 256 kernel_size: 1", MSRA, bias=False)
    text += norm("res2a_1")
    text += conv("res2a_2a", "pool1", "num_output: 64 kernel_size: 1", MSRA, bias=False)
    text += norm("res2a_2a") + relu("res2a_2a")
    text += conv("res2a_2b", "res2a_2a", "num_output: 64 kernel_size: 3 pad: 1", MSRA, bias=False)
    text += norm("res2a_2b") + relu("res2a_2b")
    text += conv("res2a_2c", "res2a_2b", "num_output: 256 kernel_size: 1", MSRA, bias=False)
    text += norm("res2a_2c") + plus("res2a", "res2a_1", "res2a_2c") + relu("res2a")
    return text + pool("pool5", "res2a", "kernel_size: 7 stride: 1 pool: AVE") + tail("pool5")


def preactivation():
    """He et al. 2016: BatchNorm and ReLU before the convolutions, nothing behind the additions."""
    text = 'name: "ResNet-v2"\n' + data(crop=32, train=128, test=100)
    text += conv("conv1", "data", "num_output: 16 kernel_size: 3 pad: 1", MSRA, bias=False)
    x = "conv1"
    for block in "ab":
        text += norm(x, into=f"pre_{block}") + relu(f"pre_{block}")
        text += conv(
            f"{block}1", f"pre_{block}", "num_output: 16 kernel_size: 3 pad: 1", MSRA, bias=False
        )
        text += norm(f"{block}1") + relu(f"{block}1")
        text += conv(f"{block}2", f"{block}1", "num_output: 16 kernel_size: 3 pad: 1", MSRA)
        text += plus(f"sum_{block}", x, f"{block}2")
        x = f"sum_{block}"
    text += norm(x, into="post") + relu("post")
    return text + pool("pool", "post", "pool: AVE global_pooling: true") + tail("pool", 10)


def inverted_residual():
    """MobileNet v2: depthwise convolutions, linear bottlenecks that are added without a ReLU."""
    frozen = "param { lr_mult: 0 decay_mult: 0 } " * 3
    text = 'name: "MobileNetV2"\n' + data(crop=224, train=32, test=25, more="scale: 0.017")
    text += conv(
        "conv1", "data", "num_output: 16 kernel_size: 3 pad: 1 stride: 2", MSRA, bias=False
    )
    text += norm("conv1", params=frozen) + relu("conv1")
    x = "conv1"
    for block in "ab":
        text += conv(f"{block}/expand", x, "num_output: 96 kernel_size: 1", MSRA, bias=False)
        text += norm(f"{block}/expand", params=frozen) + relu(f"{block}/expand")
        sizes = "num_output: 96 kernel_size: 3 pad: 1 group: 96"
        text += conv(
            f"{block}/dw", f"{block}/expand", sizes, MSRA, bias=False, more="engine: CAFFE"
        )
        text += norm(f"{block}/dw", params=frozen) + relu(f"{block}/dw")
        text += conv(
            f"{block}/linear", f"{block}/dw", "num_output: 16 kernel_size: 1", MSRA, bias=False
        )
        text += norm(f"{block}/linear", params=frozen) + plus(f"{block}/sum", x, f"{block}/linear")
        x = f"{block}/sum"
    return text + pool("pool6", x, "pool: AVE global_pooling: true") + tail("pool6")


XAVIER = 'type: "xavier" std: 0.03'


def googlenet():
    """bvlc_googlenet: LRN, concatenated branches, an auxiliary head of weight 0.3, no BatchNorm."""
    text = 'name: "GoogleNet"\n' + data(crop=224, train=32, test=50)
    text += conv("conv1/7x7_s2", "data", "num_output: 64 kernel_size: 7 pad: 3 stride: 2", XAVIER)
    text += relu("conv1/7x7_s2") + pool("pool1", "conv1/7x7_s2", "kernel_size: 3 stride: 2")
    text += (
        'layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param { alpha: 1e-4 } }'
    )
    branches = []
    for tag, sizes in (
        ("1x1", "num_output: 64 kernel_size: 1"),
        ("3x3", "num_output: 128 kernel_size: 3 pad: 1"),
        ("5x5", "num_output: 32 kernel_size: 5 pad: 2"),
    ):
        text += conv(f"inception/{tag}", "norm1", sizes, XAVIER) + relu(f"inception/{tag}")
        branches.append(f'bottom: "inception/{tag}"')
    text += pool("inception/pool", "norm1", "kernel_size: 3 stride: 1 pad: 1")
    text += conv("inception/pool_proj", "inception/pool", "num_output: 32 kernel_size: 1", XAVIER)
    text += (
        f'layer {{ name: "inception" type: "Concat" {" ".join(branches)} '
        'bottom: "inception/pool_proj" top: "inception" }\n'
    )
    text += pool("loss1/ave_pool", "inception", "pool: AVE kernel_size: 5 stride: 3")
    text += (
        tail("loss1/ave_pool")
        .replace('"fc1000"', '"loss1/classifier"')
        .replace('top: "loss"', 'top: "loss1/loss" loss_weight: 0.3')
        .replace('name: "loss"', 'name: "loss1/loss"')
        .replace("acc/", "loss1/")
    )
    text += pool("pool5", "inception", "pool: AVE kernel_size: 7 stride: 1")
    text += """
layer {
  name: "drop" type: "Dropout" bottom: "pool5" top: "pool5" dropout_param { dropout_ratio: 0.4 }
}
"""
    return text + tail("pool5")


def vgg():
    """VGG in the format of 2014: ``layers``, blobs_lr, a LEVELDB, transformations in data_param."""

    def data_layer(phase, batch):
        return f"""
layers {{
  name: "data" type: DATA top: "data" top: "label"
  include {{ phase: {phase} }}
  data_param {{
    source: "ilsvrc12_{phase.lower()}_leveldb" batch_size: {batch} crop_size: 224
    mirror: {"true" if phase == "TRAIN" else "false"} mean_file: "ilsvrc12_mean.binaryproto"
  }}
}}
"""

    text = 'name: "VGG"\n' + data_layer("TRAIN", 64) + data_layer("TEST", 50)
    x = "data"
    for name, width in (("conv1_1", 64), ("conv1_2", 64)):
        text += f"""
layers {{
  bottom: "{x}" top: "{name}" name: "{name}" type: CONVOLUTION
  blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
  convolution_param {{
    num_output: {width} pad: 1 kernel_size: 3
    weight_filler {{ type: "gaussian" std: 0.01 }} bias_filler {{ type: "constant" value: 0 }}
  }}
}}
layers {{ bottom: "{name}" top: "{name}" name: "relu{name}" type: RELU }}
"""
        x = name
    return (
        text
        + f"""
layers {{
  bottom: "{x}" top: "pool1" name: "pool1" type: POOLING
  pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }}
}}
layers {{
  bottom: "pool1" top: "fc8" name: "fc8" type: INNER_PRODUCT
  inner_product_param {{ num_output: 1000 weight_filler {{ type: "gaussian" std: 0.005 }} }}
}}
layers {{
  bottom: "fc8" top: "fc8" name: "drop" type: DROPOUT dropout_param {{ dropout_ratio: 0.5 }}
}}
layers {{ name: "loss" type: SOFTMAX_LOSS bottom: "fc8" bottom: "label" top: "loss/loss" }}
layers {{
  name: "accuracy" type: ACCURACY bottom: "fc8" bottom: "label" top: "accuracy"
  include {{ phase: TEST }}
}}
"""
    )


def densenet():
    """Huang et al.: BatchNorm, Scale, ReLU, convolution, dropout, Concat with all before."""
    text = 'name: "DENSENET_40"\n' + data(crop=32, train=64, test=50)
    text += conv("conv1", "data", "num_output: 16 kernel_size: 3 pad: 1", MSRA, bias=False)
    x = "conv1"
    for index in range(3):
        text += norm(x, into=f"bn{index}") + relu(f"bn{index}")
        text += conv(
            f"grow{index}", f"bn{index}", "num_output: 12 kernel_size: 3 pad: 1", MSRA, bias=False
        )
        text += (
            f'layer {{ name: "drop{index}" type: "Dropout" bottom: "grow{index}" '
            f'top: "grow{index}" dropout_param {{ dropout_ratio: 0.2 }} }}\n'
            f'layer {{ name: "cat{index}" type: "Concat" bottom: "{x}" bottom: "grow{index}" '
            f'top: "cat{index}" }}\n'
        )
        x = f"cat{index}"
    text += norm(x, into="last") + relu("last")
    return text + pool("pool", "last", "pool: AVE global_pooling: true") + tail("pool", 10)


def lenet():
    """Caffe's first example: no crop, a scale, gray digits in an LMDB."""

    def one(phase, batch):
        return (
            'layer { name: "mnist" type: "Data" top: "data" top: "label" '
            f"include {{ phase: {phase} }} "
            "transform_param { scale: 0.00390625 } data_param { source: "
            f'"examples/mnist/mnist_{phase.lower()}_lmdb" batch_size: {batch} backend: LMDB }} }}\n'
        )

    text = 'name: "LeNet"\n' + one("TRAIN", 64) + one("TEST", 100)
    text += conv("conv1", "data", "num_output: 20 kernel_size: 5 stride: 1", 'type: "xavier"')
    text += pool("pool1", "conv1", "pool: MAX kernel_size: 2 stride: 2")
    return text + relu("pool1") + tail("pool1", 10)


def siamese():
    """Two branches that share their weights by name, and a contrastive loss."""
    text = """
name: "siamese"
layer {
  name: "pair" type: "Data" top: "pair" top: "sim" transform_param { scale: 0.0039 }
  include { phase: TRAIN } data_param { source: "pairs_train_lmdb" batch_size: 64 backend: LMDB }
}
layer {
  name: "pair" type: "Data" top: "pair" top: "sim" transform_param { scale: 0.0039 }
  include { phase: TEST } data_param { source: "pairs_test_lmdb" batch_size: 100 backend: LMDB }
}
layer {
  name: "slice" type: "Slice" bottom: "pair" top: "a" top: "b"
  slice_param { slice_dim: 1 slice_point: 1 }
}
"""
    for side in "ab":
        filler = 'weight_filler { type: "xavier" }' if side == "a" else ""
        text += f"""
layer {{
  name: "feat_{side}" type: "InnerProduct" bottom: "{side}" top: "feat_{side}"
  param {{ name: "feat_w" lr_mult: 1 }} param {{ name: "feat_b" lr_mult: 2 }}
  inner_product_param {{ num_output: 2 {filler} }}
}}
"""
    return text + (
        'layer { name: "loss" type: "ContrastiveLoss" contrastive_loss_param { margin: 1 } '
        'bottom: "feat_a" bottom: "feat_b" bottom: "sim" top: "loss" }\n'
    )


def regression():
    """HDF5 in, a Euclidean loss: no classes, no shapes to be known."""
    return """
name: "regression"
layer {
  name: "data" type: "HDF5Data" top: "data" top: "target"
  hdf5_data_param { source: "train.txt" batch_size: 128 shuffle: true } include { phase: TRAIN }
}
layer {
  name: "data" type: "HDF5Data" top: "data" top: "target"
  hdf5_data_param { source: "test.txt" batch_size: 128 } include { phase: TEST }
}
layer {
  name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 8 weight_filler { type: "gaussian" std: 0.1 } }
}
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }
"""


def segmentation():
    """An encoder and a bilinear Deconvolution; labels are images of a second database."""
    text = 'name: "segmentation"\n'
    for phase in ("TRAIN", "TEST"):
        for top in ("data", "label"):
            text += (
                f'layer {{ name: "{top}" type: "Data" top: "{top}" include {{ phase: {phase} }} '
                f'data_param {{ source: "{phase.lower()}_{top}_lmdb" '
                "batch_size: 1 backend: LMDB } }\n"
            )
    text += conv("conv1", "data", "num_output: 8 kernel_size: 3 pad: 1 stride: 2", 'type: "xavier"')
    text += (
        relu("conv1")
        + """
layer {
  name: "up" type: "Deconvolution" bottom: "conv1" top: "up" param { lr_mult: 0 }
  convolution_param {
    num_output: 21 kernel_size: 4 stride: 2 pad: 1 bias_term: false
    weight_filler { type: "bilinear" }
  }
}
layer { name: "score" type: "Crop" bottom: "up" bottom: "data" top: "score" }
layer {
  name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
  loss_param { ignore_label: 255 normalize: false }
}
"""
    )
    return text


SGD = """
net: "models/net/train_val.prototxt"
test_iter: 1000
test_interval: 4000
test_initialization: false
display: 40
average_loss: 40
base_lr: 0.01
lr_policy: "step"
stepsize: 320000
gamma: 0.96
max_iter: 10000000
momentum: 0.9
weight_decay: 0.0002
snapshot: 40000
snapshot_prefix: "models/net/net"
solver_mode: GPU
"""
POLY = SGD.replace('"step"\nstepsize: 320000\ngamma: 0.96', '"poly"\npower: 0.5')
MULTISTEP = SGD.replace(
    '"step"\nstepsize: 320000\ngamma: 0.96',
    '"multistep"\ngamma: 0.1\nstepvalue: 300000\nstepvalue: 6000000',
)
INV = SGD.replace('"step"\nstepsize: 320000\ngamma: 0.96', '"inv"\ngamma: 0.0001\npower: 0.75')
ADAM = INV.replace("base_lr: 0.01", 'base_lr: 0.001\nmomentum2: 0.999\ntype: "Adam"')
RMSPROP = INV.replace("momentum: 0.9", 'type: "RMSProp"\nrms_decay: 0.98')
RUNS = {
    "resnet": (resnet, MULTISTEP),
    "preactivation": (preactivation, MULTISTEP),
    "inverted_residual": (inverted_residual, POLY),
    "googlenet": (googlenet, SGD),
    "vgg": (vgg, SGD),
    "densenet": (densenet, MULTISTEP),
    "lenet": (lenet, INV),
    "lenet_adam": (lenet, ADAM),
    "lenet_rmsprop": (lenet, RMSPROP),
    "siamese": (siamese, INV),
    "regression": (regression, SGD),
    "segmentation": (segmentation, SGD),
}
