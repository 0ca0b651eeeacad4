"""Protobuf message classes and layer types of Caffe.

The classes live in their own descriptor pool. In protobuf's default pool they would clash with
those of a pycaffe in the same process, which is a fatal error.
"""

from __future__ import annotations

from importlib import resources
from types import MappingProxyType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from irv2caffe.errors import UsageError

_POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    resources.files("irv2caffe.proto").joinpath("caffe.desc").read_bytes()
).file:
    _POOL.Add(_file)


def message_class(name: str) -> Any:
    """Returns the class of a message by its name, such as ``NetParameter``.

    Raises:
        UsageError: Caffe has no such message.
    """
    try:
        descriptor = _POOL.FindMessageTypeByName(f"caffe.{name}")
    except KeyError as error:
        raise UsageError(f"Caffe has no message {name!r}") from error
    return message_factory.GetMessageClass(descriptor)


NetParameter: Any = message_class("NetParameter")
SolverParameter: Any = message_class("SolverParameter")
SolverState: Any = message_class("SolverState")
LayerParameter: Any = message_class("LayerParameter")
DataParameter: Any = message_class("DataParameter")
BlobProto: Any = message_class("BlobProto")
Datum: Any = message_class("Datum")

_PHASE = _POOL.FindEnumTypeByName("caffe.Phase").values_by_name
TRAIN: int = _PHASE["TRAIN"].number
TEST: int = _PHASE["TEST"].number

# Fields of builds from 2018 on, such as Debian's. Caffe 1.0 as released, NVCaffe and the Intel
# branch do not load files with them.
AFTER_TAG_1_0 = frozenset(
    {
        "caffe.SolverParameter.weights",
        "caffe.PoolingParameter.round_mode",
        "caffe.LayerParameter.clip_param",
        "caffe.LayerParameter.swish_param",
    }
)

# Layer types of Caffe 1.0 with the field of their parameters.
_PARAM_OF = {
    "Accuracy": "accuracy_param",
    "ArgMax": "argmax_param",
    "BatchNorm": "batch_norm_param",
    "Bias": "bias_param",
    "Concat": "concat_param",
    "ContrastiveLoss": "contrastive_loss_param",
    "Convolution": "convolution_param",
    "Crop": "crop_param",
    "Data": "data_param",
    "Deconvolution": "convolution_param",
    "Dropout": "dropout_param",
    "DummyData": "dummy_data_param",
    "ELU": "elu_param",
    "Eltwise": "eltwise_param",
    "Embed": "embed_param",
    "Exp": "exp_param",
    "Flatten": "flatten_param",
    "HDF5Data": "hdf5_data_param",
    "HDF5Output": "hdf5_output_param",
    "HingeLoss": "hinge_loss_param",
    "Im2col": "convolution_param",
    "ImageData": "image_data_param",
    "InfogainLoss": "infogain_loss_param",
    "InnerProduct": "inner_product_param",
    "Input": "input_param",
    "LRN": "lrn_param",
    "LSTM": "recurrent_param",
    "Log": "log_param",
    "MVN": "mvn_param",
    "MemoryData": "memory_data_param",
    "PReLU": "prelu_param",
    "Parameter": "parameter_param",
    "Pooling": "pooling_param",
    "Power": "power_param",
    "Python": "python_param",
    "RNN": "recurrent_param",
    "ReLU": "relu_param",
    "Reduction": "reduction_param",
    "Reshape": "reshape_param",
    "SPP": "spp_param",
    "Scale": "scale_param",
    "Sigmoid": "sigmoid_param",
    "SigmoidCrossEntropyLoss": "loss_param",
    "Slice": "slice_param",
    "Softmax": "softmax_param",
    "SoftmaxWithLoss": "loss_param",
    "TanH": "tanh_param",
    "Threshold": "threshold_param",
    "Tile": "tile_param",
    "WindowData": "window_data_param",
}
_WITHOUT_PARAM = (
    "AbsVal",
    "BNLL",
    "BatchReindex",
    "EuclideanLoss",
    "Filter",
    "LSTMUnit",
    "MultinomialLogisticLoss",
    "Silence",
    "Split",
)
LAYER_TYPES = MappingProxyType({**_PARAM_OF, **dict.fromkeys(_WITHOUT_PARAM)})
LAYER_TYPES_AFTER_TAG_1_0 = frozenset({"Clip", "Swish"})
