"""Well-known nets of other people, written as their prototxts write them."""

from __future__ import annotations


class Text:
    """A prototxt that grows layer by layer; methods return the name of the top they wrote."""

    def __init__(self, name, *dims, lines=""):
        self.parts = [f'name: "{name}"\n{lines}']
        if dims:
            sizes = "".join(f"    dim: {size}\n" for size in dims)
            self.parts.append(
                'layer {\n  name: "data"\n  type: "Input"\n  top: "data"\n'
                f"  input_param {{ shape {{\n{sizes}  }} }}\n}}\n"
            )

    def __str__(self):
        return "".join(self.parts)

    def layer(self, kind, name, bottoms, body="", top=None):
        top = name if top is None else top
        bottoms = [bottoms] if isinstance(bottoms, str) else bottoms
        reads = "".join(f'  bottom: "{bottom}"\n' for bottom in bottoms)
        self.parts.append(
            f'layer {{\n  name: "{name}"\n  type: "{kind}"\n{reads}  top: "{top}"\n{body}}}\n'
        )
        return top

    def conv(self, name, x, num_output, kernel, stride=1, pad=0, group=1, bias=True):
        fields = [f"num_output: {num_output}", f"kernel_size: {kernel}"]
        fields += [f"stride: {stride}"] * (stride > 1) + [f"pad: {pad}"] * (pad > 0)
        fields += [f"group: {group}"] * (group > 1) + ["bias_term: false"] * (not bias)
        fields += ['weight_filler {\n      type: "xavier"\n    }']
        body = "".join(f"    {field}\n" for field in fields)
        param = "  param {\n    lr_mult: 1\n    decay_mult: 1\n  }\n"
        return self.layer("Convolution", name, x, f"{param}  convolution_param {{\n{body}  }}\n")

    def bn(self, stem, x, suffix=""):
        """BatchNorm and Scale in place."""
        self.layer("BatchNorm", f"bn{stem}{suffix}", x, top=x)
        scale = "  scale_param {\n    bias_term: true\n  }\n"
        return self.layer("Scale", f"scale{stem}{suffix}", x, scale, top=x)

    def relu(self, name, x):
        return self.layer("ReLU", name, x, top=x)

    def pool(self, name, x, kernel=0, stride=1, pad=0, kind="MAX"):
        window = (
            f"kernel_size: {kernel} stride: {stride} pad: {pad}"
            if kernel
            else "global_pooling: true"
        )
        return self.layer("Pooling", name, x, f"  pooling_param {{ pool: {kind} {window} }}\n")

    def fc(self, name, x, num_output):
        body = f"  inner_product_param {{ num_output: {num_output} }}\n"
        return self.layer("InnerProduct", name, x, body)

    def lrn(self, name, x):
        return self.layer("LRN", name, x, "  lrn_param { local_size: 5 alpha: 0.0001 }\n")

    def drop(self, name, x):
        return self.layer("Dropout", name, x, top=x)

    def concat(self, name, *bottoms):
        return self.layer("Concat", name, bottoms)

    def softmax(self, x):
        self.layer("Softmax", "prob", x)
        return str(self)


def resnet(
    depths: tuple[int, ...] = (3, 4, 6, 3),
    size: int = 224,
    batch: int = 1,
    widths: tuple[int, ...] = (64, 128, 256, 512),
) -> str:
    """He et al.: stride on the first 1x1, as their own prototxts have it."""
    n = Text(f"ResNet-{2 + 3 * sum(depths)}", batch, 3, size, size)
    x = n.relu("conv1_relu", n.bn("_conv1", n.conv("conv1", "data", 64, 7, 2, 3)))
    x = n.pool("pool1", x, 3, 2)
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), 2):
        for block in range(depth):
            letter = "a" if block == 0 else chr(97 + block) if depth < 10 else f"b{block}"
            tag = f"{stage}{letter}"
            stride = 2 if block == 0 and stage > 2 else 1
            left = x
            if block == 0:
                left = n.conv(f"res{tag}_branch1", x, 4 * width, 1, stride, bias=False)
                n.bn(tag, left, "_branch1")
            y = x
            for part, (out, kernel, step, pad) in zip(
                "abc",
                ((width, 1, stride, 0), (width, 3, 1, 1), (4 * width, 1, 1, 0)),
                strict=True,
            ):
                y = n.conv(f"res{tag}_branch2{part}", y, out, kernel, step, pad, bias=False)
                n.bn(tag, y, f"_branch2{part}")
                if part != "c":
                    n.relu(f"res{tag}_branch2{part}_relu", y)
            x = n.layer("Eltwise", f"res{tag}", [left, y])
            n.relu(f"res{tag}_relu", x)
    x = n.pool("pool5", x, 7, kind="AVE") if size == 224 else n.pool("pool5", x, kind="AVE")
    return n.softmax(n.fc("fc1000", x, 1000))


_INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet():
    """bvlc_googlenet's deploy.prototxt."""
    n = Text("GoogleNet", 10, 3, 224, 224)
    x = n.relu("conv1/relu_7x7", n.conv("conv1/7x7_s2", "data", 64, 7, 2, 3))
    x = n.lrn("pool1/norm1", n.pool("pool1/3x3_s2", x, 3, 2))
    x = n.relu("conv2/relu_3x3_reduce", n.conv("conv2/3x3_reduce", x, 64, 1))
    x = n.relu("conv2/relu_3x3", n.conv("conv2/3x3", x, 192, 3, 1, 1))
    x = n.pool("pool2/3x3_s2", n.lrn("conv2/norm2", x), 3, 2)
    for tag, widths in _INCEPTION.items():
        x = _inception(n, f"inception_{tag}", x, *widths)
        if tag in {"3b", "4e"}:
            x = n.pool(f"pool{tag[0]}/3x3_s2", x, 3, 2)
    x = n.drop("pool5/drop_7x7_s1", n.pool("pool5/7x7_s1", x, 7, kind="AVE"))
    return n.softmax(n.fc("loss3/classifier", x, 1000))


def _inception(n, name, x, one, reduce3, three, reduce5, five, proj):
    def conv(tag, y, *sizes):
        return n.relu(f"{name}/relu_{tag}", n.conv(f"{name}/{tag}", y, *sizes))

    b1 = conv("1x1", x, one, 1)
    b2 = conv("3x3", conv("3x3_reduce", x, reduce3, 1), three, 3, 1, 1)
    b3 = conv("5x5", conv("5x5_reduce", x, reduce5, 1), five, 5, 1, 2)
    b4 = conv("pool_proj", n.pool(f"{name}/pool", x, 3, 1, 1), proj, 1)
    return n.concat(f"{name}/output", b1, b2, b3, b4)


def vgg16():
    """Simonyan and Zisserman, in the form of 2014: ``input_dim`` and V1 layers."""
    parts = ['name: "VGG_ILSVRC_16_layers"\ninput: "data"\n']
    parts += [f"input_dim: {size}\n" for size in (10, 3, 224, 224)]

    def add(kind, name, bottom, body="", top=None):
        parts.append(
            f'layers {{\n  bottom: "{bottom}"\n  top: "{top or name}"\n  name: "{name}"\n'
            f"  type: {kind}\n{body}}}\n"
        )
        return top or name

    x = "data"
    for stage, (depth, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for index in range(1, depth + 1):
            body = f"  convolution_param {{ num_output: {width} pad: 1 kernel_size: 3 }}\n"
            x = add("CONVOLUTION", f"conv{stage}_{index}", x, body)
            add("RELU", f"relu{stage}_{index}", x, top=x)
        x = add("POOLING", f"pool{stage}", x, "  pooling_param { kernel_size: 2 stride: 2 }\n")
    for index, width in ((6, 4096), (7, 4096), (8, 1000)):
        x = add(
            "INNER_PRODUCT", f"fc{index}", x, f"  inner_product_param {{ num_output: {width} }}\n"
        )
        if index < 8:
            add("RELU", f"relu{index}", x, top=x)
            add("DROPOUT", f"drop{index}", x, "  dropout_param { dropout_ratio: 0.5 }\n", top=x)
    add("SOFTMAX", "prob", x)
    return "".join(parts)


def caffenet():
    """BVLC's AlexNet: groups, local response normalisation, ``input`` with ``input_shape``."""
    n = Text("CaffeNet", lines='input: "data"\ninput_shape { dim: 10 dim: 3 dim: 227 dim: 227 }\n')
    x = n.relu("relu1", n.conv("conv1", "data", 96, 11, 4))
    x = n.lrn("norm1", n.pool("pool1", x, 3, 2))
    x = n.relu("relu2", n.conv("conv2", x, 256, 5, 1, 2, group=2))
    x = n.lrn("norm2", n.pool("pool2", x, 3, 2))
    x = n.relu("relu3", n.conv("conv3", x, 384, 3, 1, 1))
    x = n.relu("relu4", n.conv("conv4", x, 384, 3, 1, 1, group=2))
    x = n.relu("relu5", n.conv("conv5", x, 256, 3, 1, 1, group=2))
    x = n.pool("pool5", x, 3, 2)
    for index in (6, 7):
        x = n.drop(f"drop{index}", n.relu(f"relu{index}", n.fc(f"fc{index}", x, 4096)))
    return n.softmax(n.fc("fc8", x, 1000))


def densenet121():
    """Huang et al., as shicai's Caffe port: BatchNorm, Scale, ReLU before each convolution."""
    n = Text("DenseNet-121", 1, 3, 224, 224)

    def bn_relu(name, x):
        x = n.layer("BatchNorm", f"{name}/bn", x)
        n.layer("Scale", f"{name}/scale", x, "  scale_param { bias_term: true }\n", top=x)
        return n.relu(f"{name.replace('conv', 'relu')}", x)

    x = n.conv("conv1", "data", 64, 7, 2, 3, bias=False)
    x = n.pool("pool1", bn_relu("conv1", x), 3, 2, 1)
    width = 64
    for stage, depth in enumerate((6, 12, 24, 16), 2):
        for index in range(1, depth + 1):
            name = f"conv{stage}_{index}"
            y = n.conv(f"{name}/x1", bn_relu(f"{name}/x1", x), 128, 1, bias=False)
            y = n.conv(f"{name}/x2", bn_relu(f"{name}/x2", y), 32, 3, 1, 1, bias=False)
            x = n.concat(f"concat_{stage}_{index}", x, y)
            width += 32
        x = bn_relu(f"conv{stage}_blk", x)
        if stage < 5:
            width //= 2
            x = n.conv(f"conv{stage}_blk/conv", x, width, 1, bias=False)
            x = n.pool(f"pool{stage}", x, 2, 2, kind="AVE")
    x = n.pool("pool5", x, kind="AVE")
    return n.softmax(n.conv("fc6", x, 1000, 1))


def squeezenet():
    """SqueezeNet v1.1."""
    n = Text("SqueezeNet", 1, 3, 227, 227)
    x = n.relu("relu_conv1", n.conv("conv1", "data", 64, 3, 2))
    x = n.pool("pool1", x, 3, 2)
    fires = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
    for index, (squeeze, expand) in enumerate(fires, 2):
        name = f"fire{index}"
        x = n.conv(f"{name}/squeeze1x1", x, squeeze, 1)
        n.relu(f"{name}/relu_squeeze1x1", x)
        one = n.conv(f"{name}/expand1x1", x, expand, 1)
        n.relu(f"{name}/relu_expand1x1", one)
        three = n.conv(f"{name}/expand3x3", x, expand, 3, 1, 1)
        n.relu(f"{name}/relu_expand3x3", three)
        x = n.concat(f"{name}/concat", one, three)
        if index in {3, 5}:
            x = n.pool(f"pool{index}", x, 3, 2)
    x = n.relu("relu_conv10", n.conv("conv10", n.drop("drop9", x), 1000, 1))
    return n.softmax(n.pool("pool10", x, kind="AVE"))


def mobilenet():
    """Howard et al., as shicai's Caffe port: depthwise convolutions are groups."""
    n = Text("MOBILENET", 1, 3, 224, 224)

    def conv(name, x, num_output, kernel, stride=1, pad=0, group=1):
        x = n.conv(name, x, num_output, kernel, stride, pad, group, bias=False)
        n.layer("BatchNorm", f"{name}/bn", x, top=x)
        n.layer("Scale", f"{name}/scale", x, "  scale_param { bias_term: true }\n", top=x)
        return n.relu(f"relu{name[4:]}", x)

    x, width = conv("conv1", "data", 32, 3, 2, 1), 32
    steps = [("2_1", 64, 1), ("2_2", 128, 2), ("3_1", 128, 1), ("3_2", 256, 2), ("4_1", 256, 1)]
    steps += [("4_2", 512, 2), *((f"5_{index}", 512, 1) for index in range(1, 6))]
    for tag, num_output, stride in [*steps, ("5_6", 1024, 2), ("6", 1024, 1)]:
        x = conv(f"conv{tag}/dw", x, width, 3, stride, 1, width)
        x, width = conv(f"conv{tag}/sep", x, num_output, 1), num_output
    return n.softmax(n.conv("fc7", n.pool("pool6", x, kind="AVE"), 1000, 1))


def fcn(size=100):
    """Shelhamer et al. in small: deconvolution and cropping back to the input's size."""
    n = Text("FCN", 1, 3, size, size)
    x = n.relu("relu1_1", n.conv("conv1_1", "data", 8, 3, 1, 50))
    x = n.pool("pool1", x, 2, 2)
    x = n.relu("relu2_1", n.conv("conv2_1", x, 16, 3, 1, 1))
    skip = n.pool("pool2", x, 2, 2)
    x = n.relu("relu3_1", n.conv("conv3_1", skip, 16, 3, 1, 1))
    x = n.conv("score_fr", n.pool("pool3", x, 2, 2), 21, 3)
    deconv = (
        "  convolution_param {{ num_output: 21 kernel_size: {} stride: {} bias_term: false }}\n"
    )
    up = n.layer("Deconvolution", "upscore2", x, deconv.format(4, 2))
    crop = "  crop_param {{ axis: 2 offset: {} }}\n"
    skip = n.layer("Crop", "score_pool2c", [n.conv("score_pool2", skip, 21, 1), up], crop.format(1))
    fused = n.layer("Eltwise", "fuse", [up, skip], "  eltwise_param { operation: SUM }\n")
    up = n.layer("Deconvolution", "upscore", fused, deconv.format(8, 4))
    n.layer("Crop", "score", [up, "data"], crop.format(19))
    return str(n)


def lstm(steps=5, streams=2):
    """Words in, classes out: Embed, LSTM, InnerProduct on axis 2."""
    n = Text(
        "words",
        lines=(
            'layer { name: "in" type: "Input" top: "words" top: "cont"\n'
            f"  input_param {{ shape {{ dim: {steps} dim: {streams} }} }} }}\n"
        ),
    )
    x = n.layer("Embed", "embed", "words", "  embed_param { input_dim: 30 num_output: 7 }\n")
    x = n.layer("LSTM", "lstm", [x, "cont"], "  recurrent_param { num_output: 11 }\n")
    body = "  inner_product_param { num_output: 3 axis: 2 }\n"
    x = n.layer("InnerProduct", "score", x, body)
    n.layer("Softmax", "prob", x, "  softmax_param { axis: 2 }\n")
    return str(n)


# Counts of learned values as published: by the authors' papers and model zoos, and by torchvision
# for its models of the same layout (whose ResNet has no bias at conv1: 64 fewer).
PUBLISHED_PARAMETERS = {
    "resnet50": 25_557_032 + 64,
    "googlenet": 6_998_552,
    "vgg16": 138_357_544,
    "caffenet": 60_965_224,
    "densenet121": 7_978_856,
    "squeezenet": 1_235_496,
    "mobilenet": 4_231_976,
}


def ssd300():
    """Liu et al. on VOC: VGG with dilated fc6, six maps of boxes; of their own Caffe."""
    n = Text("VGG_VOC0712_SSD_300x300", 1, 3, 300, 300)

    def conv(name, x, outputs, kernel=3, stride=1, pad=1):
        return n.relu(f"{name}_relu", n.conv(name, x, outputs, kernel, stride, pad))

    x = "data"
    for level, depth in enumerate((2, 2, 3, 3, 3), 1):
        width = min(32 << level, 512)
        for place in range(1, depth + 1):
            x = conv(f"conv{level}_{place}", x, width)
        x = n.pool(f"pool{level}", x, *((2, 2) if level < 5 else (3, 1, 1)))
    fc6 = "  convolution_param { num_output: 1024 pad: 6 kernel_size: 3 dilation: 6 }\n"
    x = conv("fc7", n.relu("relu6", n.layer("Convolution", "fc6", x, fc6)), 1024, 1, 1, 0)
    norm = "  norm_param { across_spatial: false channel_shared: false }\n"
    maps = [(n.layer("Normalize", "conv4_3_norm", "conv4_3", norm), 4), (x, 6)]
    for level, inner, outer, stride, pad, boxes in (
        (6, 256, 512, 2, 1, 6),
        (7, 128, 256, 2, 1, 6),
        (8, 128, 256, 1, 0, 4),
        (9, 128, 256, 1, 0, 4),
    ):
        x = conv(f"conv{level}_1", x, inner, 1, 1, 0)
        x = conv(f"conv{level}_2", x, outer, 3, stride, pad)
        maps.append((x, boxes))
    order = "  permute_param { order: 0 order: 2 order: 3 order: 1 }\n"
    joined = {}
    for kind, each in (("loc", 4), ("conf", 21)):
        flat = []
        for x, boxes in maps:
            y = n.conv(f"{x}_mbox_{kind}", x, boxes * each, 3, 1, 1)
            y = n.layer("Permute", f"{y}_perm", y, order)
            flat.append(n.layer("Flatten", f"{x}_mbox_{kind}_flat", y))
        joined[kind] = n.concat(f"mbox_{kind}", *flat)
    boxes = [
        n.layer(
            "PriorBox",
            f"{x}_mbox_priorbox",
            [x, "data"],
            "  prior_box_param { min_size: 30 max_size: 60 flip: true aspect_ratio: 2"
            f"{' aspect_ratio: 3' * (count == 6)} }}\n",
        )
        for x, count in maps
    ]
    x = n.layer("Concat", "mbox_priorbox", boxes, "  concat_param { axis: 2 }\n")
    n.layer("DetectionOutput", "detection_out", [joined["loc"], joined["conf"], x])
    return str(n)


NETS = {
    "resnet50": resnet,
    "resnet152": lambda: resnet((3, 8, 36, 3)),
    "resnet_small": lambda: resnet((1, 2, 1, 1), 75, 2, (8, 16, 24, 32)),
    "googlenet": googlenet,
    "vgg16": vgg16,
    "caffenet": caffenet,
    "densenet121": densenet121,
    "squeezenet": squeezenet,
    "mobilenet": mobilenet,
    "fcn": fcn,
    "lstm": lstm,
}
