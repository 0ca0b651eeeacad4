"""Small runs that the cases of check's rules start from, and how a case changes them.

A case changes one of three runs: ``plain`` (a residual net), ``tf`` (a net of TensorFlow's
Inception family) or ``norm`` (no BatchNorm anywhere), text by text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from irv2caffe.check.inputs import Claims
from irv2caffe.data.inspect.database import Database

DATA = """
layer {{
  name: "data" type: "Data" top: "data" top: "label"
  include {{ phase: {phase} }}
  transform_param {{ {mirror}crop_size: {crop} mean_value: 104 mean_value: 117 mean_value: 123 }}
  data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }}
}}
"""
FROZEN = "param { lr_mult: 0 decay_mult: 0 } " * 3
LEARNED = "param { lr_mult: 1 decay_mult: 0 } " * 2


def data(crop, batch=16):
    train = DATA.format(
        phase="TRAIN", mirror="mirror: true ", crop=crop, source="train_lmdb", batch=batch
    )
    return train + DATA.format(phase="TEST", mirror="", crop=crop, source="val_lmdb", batch=10)


def conv(name, bottom, num_output, kernel, filler='type: "msra"', norm=True, relu=True, more=""):
    text = f"""
layer {{
  name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
  convolution_param {{
    num_output: {num_output} {kernel} {more}
    {"bias_term: false" if norm else 'bias_filler { type: "constant" }'}
    weight_filler {{ {filler} }}
  }}
}}
"""
    if norm:
        text += f"""
layer {{
  name: "{name}/bn" type: "BatchNorm" bottom: "{name}" top: "{name}"
  {FROZEN}
  batch_norm_param {{ moving_average_fraction: 0.95 eps: 0.001 }}
}}
layer {{
  name: "{name}/scale" type: "Scale" bottom: "{name}" top: "{name}"
  {LEARNED}
  scale_param {{ bias_term: true }}
}}
"""
    return text + (relu_of(name) if relu else "")


def relu_of(top):
    return f'layer {{ name: "{top}/relu" type: "ReLU" bottom: "{top}" top: "{top}" }}\n'


def pool(name, bottom, fields):
    return (
        f'layer {{ name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}" '
        f"pooling_param {{ {fields} }} }}\n"
    )


def total(name, trunk, branch, fields=""):
    return (
        f'layer {{ name: "{name}" type: "Eltwise" bottom: "{trunk}" bottom: "{branch}" '
        f'top: "{name}" eltwise_param {{ operation: SUM {fields} }} }}\n'
    )


def head(bottom, filler='type: "xavier" variance_norm: AVERAGE'):
    return f"""
layer {{
  name: "drop" type: "Dropout" bottom: "{bottom}" top: "{bottom}"
  dropout_param {{ dropout_ratio: 0.2 }}
}}
layer {{
  name: "fc" type: "InnerProduct" bottom: "{bottom}" top: "fc"
  inner_product_param {{
    num_output: 4 weight_filler {{ {filler} }} bias_filler {{ type: "constant" }}
  }}
}}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
layer {{
  name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy"
  include {{ phase: TEST }}
  accuracy_param {{ top_k: 1 }}
}}
"""


def plain():
    """A residual net as Caffe's users write them."""
    kernel = "kernel_size: 3 pad: 1"
    text = 'name: "plain"\n' + data(27) + conv("conv1", "data", 8, kernel)
    text += pool("pool1", "conv1", "pool: MAX kernel_size: 3 stride: 2")
    text += conv("conv2", "pool1", 8, kernel, relu=False)
    text += total("sum", "pool1", "conv2") + relu_of("sum")
    return text + pool("pool2", "sum", "pool: AVE global_pooling: true") + head("pool2")


def block(name, trunk, width, coeff="coeff: 1 coeff: 0.1", relu=True):
    """An Inception-ResNet block: two branches, a linear 1x1 convolution, the sum."""
    glorot = 'type: "xavier" variance_norm: AVERAGE'
    text = conv(f"{name}/a", trunk, 2, "kernel_size: 1", glorot)
    text += conv(f"{name}/b", trunk, 2, "kernel_h: 1 kernel_w: 7 pad_h: 0 pad_w: 3", glorot)
    text += (
        f'layer {{ name: "{name}/cat" type: "Concat" bottom: "{name}/a" bottom: "{name}/b" '
        f'top: "{name}/cat" }}\n'
    )
    text += conv(f"{name}/up", f"{name}/cat", width, "kernel_size: 1", glorot, False, False)
    return text + total(name, trunk, f"{name}/up", coeff) + (relu_of(name) if relu else "")


def tf(width=1024):
    """Two blocks of the family, on a grid that both frameworks make."""
    glorot = 'type: "xavier" variance_norm: AVERAGE'
    text = 'name: "tf"\n' + data(27)
    text += conv("stem", "data", width, "kernel_size: 3 pad: 1", glorot)
    text += pool("grid", "stem", "pool: MAX kernel_size: 3 stride: 2")
    text += block("one", "grid", width) + block("two", "one", width)
    return text + pool("last", "two", "pool: AVE global_pooling: true") + head("last")


def norm():
    """A net without BatchNorm, in the manner of 2014."""
    gauss = 'type: "gaussian" std: 0.01'
    text = 'name: "norm"\n' + data(27) + conv("conv1", "data", 8, "kernel_size: 3", gauss, False)
    return text + pool("pool1", "conv1", "kernel_size: 2 stride: 2") + head("pool1", gauss)


SOLVER = """
net: "net.prototxt"
test_iter: 5
test_interval: 100
base_lr: 0.045
lr_policy: "step"
gamma: 0.94
stepsize: 200
max_iter: 1000
display: 20
average_loss: 20
momentum: 0.9
weight_decay: 0.0001
snapshot: 500
snapshot_prefix: "snapshots/net"
solver_mode: GPU
random_seed: 1
type: "SGD"
"""
RMSPROP = (("momentum: 0.9\n", "delta: 1.0\nrms_decay: 0.9\n"), ('"SGD"', '"RMSProp"'))
NETS = {"plain": plain, "tf": tf, "norm": norm}
TRAIN = Database(1600, 3, 32, 32, False, 0, 3, "shuffled", num_looked_at=1600)
VAL = replace(TRAIN, num_records=50, order="sorted")
FACTS = {"train_lmdb": TRAIN, "val_lmdb": VAL}


@dataclass(frozen=True)
class Run:
    """A run as a case has it.

    Attributes:
        base: which net.
        net: pairs of texts; every first must be there, and is replaced by the second.
        solver: the same of the solver; None for a net alone.
        claims: what the user says.
        facts: of databases, where they differ.
        files: other files to make, name to content.
        no_folder: leave the folder of snapshots out.
    """

    base: str = "plain"
    net: tuple[tuple[str, str], ...] = ()
    solver: tuple[tuple[str, str], ...] | None = ()
    claims: Claims = field(default_factory=Claims)
    facts: dict[str, Database] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    no_folder: bool = False

    def write(self, folder):
        """Writes the files; returns the one to give to check."""
        (folder / "snapshots").mkdir(exist_ok=True)
        if self.no_folder:
            (folder / "snapshots").rmdir()
        net = changed(NETS.get(self.base, lambda: self.base)(), self.net)
        (folder / "net.prototxt").write_text(net)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        if self.solver is None:
            return folder / "net.prototxt"
        (folder / "solver.prototxt").write_text(changed(SOLVER, self.solver))
        return folder / "solver.prototxt"


def changed(text, pairs):
    """Replaces texts; one that is not there is a mistake of the test's."""
    for old, new in pairs:
        assert old in text, f"{old!r} is not in the text"
        text = text.replace(old, new)
    return text


def net(*pairs, base="plain", **more):
    return Run(base, pairs, **more)


def solver(*pairs, base="plain", **more):
    return Run(base, solver=pairs, **more)


def claims(**values):
    return Claims(**values)


SCALE1 = f"""layer {{
  name: "conv1/scale" type: "Scale" bottom: "conv1" top: "conv1"
  {LEARNED}
  scale_param {{ bias_term: true }}
}}
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }\n'
BN = "eps: 0.001 }"
SECOND_FC = (
    'layer { name: "aux" type: "InnerProduct" bottom: "pool1" top: "aux" inner_product_param '
    '{ num_output: 4 weight_filler { type: "xavier" } } }\n'
)
RELU1 = relu_of("conv1")
FLAG = "use_global_stats: {} eps: 0.001 }}"
PER_PHASE = (
    "batch_norm_param { use_global_stats: false } include { phase: TRAIN } }\n"
    'layer { name: "conv1/bn" type: "BatchNorm" bottom: "conv1" top: "conv1" '
    + FROZEN
    + "batch_norm_param { use_global_stats: true } include { phase: TEST } }\n"
    'layer { name: "x" type: "BatchNorm" bottom: "conv1" top: "conv1" ' + FROZEN
)
INPUT = (
    'layer { name: "data" type: "Input" top: "data" '
    "input_param { shape { dim: 1 dim: 3 dim: 27 dim: 27 } } }\n"
)
DEPLOY = INPUT + conv("conv1", "data", 4, "kernel_size: 3") + pool("p", "conv1", "kernel_size: 2")
MSRA = 'weight_filler { type: "msra" }'
IMAGES = 'type: "ImageData" top: "data" top: "label"\n  include { phase: TRAIN }'
LIST = (
    ('type: "Data" top: "data" top: "label"\n  include { phase: TRAIN }', IMAGES),
    (
        'data_param { source: "train_lmdb" batch_size: 16 backend: LMDB }',
        'image_data_param { source: "train_lmdb" batch_size: 16 }',
    ),
)
