"""Values of a net that do not depend on its input, such as the TF-exact average pool's borders."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from irv2caffe.deploy.graph import Graph, Node, Value

    Array = NDArray[np.float64]

# Values of a constant, which a small file can make large, and of the weights that it becomes; the
# maps in question have about a thousand, in some hundred channels.
_LARGEST, _LARGEST_MAP = 1 << 18, 1 << 24


def make_constants(graph: Graph) -> list[Node]:
    """Replaces each constant second bottom of a Scale by weights.

    The weights have the shape of the whole image, channels x height x width: parsers that compare
    the number of weights with that of channels or of values of an image recognise it (NVDLA), and
    OpenCV reads it as well as one of height x width.

    Returns:
        The Scale layers that were changed.
    """
    constants = _constants(graph)
    changed = []
    for node in graph.nodes:
        if node.type != "Scale" or len(node.bottoms) != 2 or node.bottoms[1] not in constants:
            continue
        shape = node.bottoms[0].shape
        if len(shape) < 2 or math.prod(shape[1:]) > _LARGEST_MAP:
            continue
        factor = constants[node.bottoms[1]]
        axis = node.proto.scale_param.axis
        axis += len(shape) if axis < 0 else 0
        if factor.ndim and axis == 0:
            continue  # differs between the images of a batch
        inner = factor.reshape(factor.shape + (1,) * (len(shape) - axis - factor.ndim))
        biases = node.blobs[:1] if node.proto.scale_param.bias_term else [np.zeros(factor.shape)]
        bias = biases[0].reshape(inner.shape)
        node.blobs = [
            np.ascontiguousarray(np.broadcast_to(each, shape[1:]), "f4") for each in (inner, bias)
        ]
        param = node.proto.scale_param
        param.axis, param.num_axes, param.bias_term = 1, len(shape) - 1, True
        node.bottoms = node.bottoms[:1]
        changed.append(node)
    graph.remove_unused()
    return changed


def border_maps(graph: Graph) -> list[Node]:
    """The Scale layers that undo the counting of padding by the average pool before them.

    Their weights are the inverse of the share of pixels under each window, as TensorFlow divides.
    """
    producers = graph.producers()
    found = []
    for node in graph.nodes:
        pool = producers.get(node.bottoms[0]) if node.type == "Scale" and node.bottoms else None
        if pool is None or pool.type != "Pooling" or len(node.blobs) != 2:
            continue
        if node.blobs[0].shape != node.bottoms[0].shape[1:] or np.any(node.blobs[1]):
            continue
        share = _average_pool(pool, np.ones((1, 1, *pool.bottoms[0].shape[2:])))
        if share is not None and np.allclose(share[0] * node.blobs[0], 1, rtol=1e-5):
            found.append(node)
    return found


def _constants(graph: Graph) -> dict[Value, Array]:
    known: dict[Value, Array] = {}
    for node in graph.nodes:
        function = _FUNCTIONS.get(node.type)
        if function is None or len(node.tops) != 1 or not all(b in known for b in node.bottoms):
            continue
        if math.prod(node.tops[0].shape) > _LARGEST:
            continue
        value = function(node, *(known[bottom] for bottom in node.bottoms))
        if value is not None:
            known[node.tops[0]] = value
    return known


def _dummy_data(node: Node) -> Array | None:
    """dummy_data_layer.cpp: without a filler, zeros."""
    fillers = node.proto.dummy_data_param.data_filler
    if fillers and fillers[0].type != "constant":
        return None
    return np.full(node.tops[0].shape, fillers[0].value if fillers else 0.0)


def _parameter(node: Node) -> Array | None:
    return node.blobs[0].astype("f8") if node.blobs else None


def _power(node: Node, x: Array) -> Array:
    param = node.proto.power_param
    with np.errstate(divide="ignore"):
        return np.asarray((param.scale * x + param.shift) ** param.power)


def _reshape(node: Node, x: Array) -> Array:
    return x.reshape(node.tops[0].shape)


def _average_pool(node: Node, x: Array) -> Array | None:
    """pooling_layer.cpp: divides by the window's size within the padded image."""
    param = node.proto.pooling_param
    if param.pool != param.AVE or x.ndim != 4:
        return None
    size, stride, pad = window(param, x.shape[2:])
    divisors = average_divisors(node)
    top = np.zeros((*x.shape[:2], *divisors.shape))
    for row, column in np.ndindex(*divisors.shape):
        at = zip((row, column), size, stride, pad, strict=True)
        rows, columns = (slice(max(0, i * s - p), max(0, i * s - p + k)) for i, k, s, p in at)
        top[:, :, row, column] = x[:, :, rows, columns].sum((2, 3)) / divisors[row, column]
    return top


def average_divisors(node: Node) -> Array:
    """What an average pool divides by at each place of its output [height, width].

    The size of the window within the padded image: padding counts, what lies behind it does not.
    """
    image = node.bottoms[0].shape[2:]
    sides = []
    for out, length, size, stride, pad in zip(
        node.tops[0].shape[2:], image, *window(node.proto.pooling_param, image), strict=True
    ):
        start = np.arange(out) * stride - pad
        sides.append(np.minimum(start + size, length + pad) - start)
    return np.asarray(np.outer(*sides), "f8")


def window(param: Any, image: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Kernel, stride and padding of a pooling layer, each (height, width)."""
    if param.global_pooling:
        return (image[0], image[1]), (1, 1), (0, 0)
    result = []
    for name, default in (("kernel", 0), ("stride", 1), ("pad", 0)):
        both = getattr(param, "kernel_size" if name == "kernel" else name) or default
        pair = [getattr(param, f"{name}_{side}") for side in "hw"]
        has_pair = any(param.HasField(f"{name}_{side}") for side in "hw")
        result.append((pair[0], pair[1]) if has_pair else (both, both))
    return tuple(result)


_FUNCTIONS: dict[str, Callable[..., Array | None]] = {
    "DummyData": _dummy_data,
    "Parameter": _parameter,
    "Pooling": _average_pool,
    "Power": _power,
    "Reshape": _reshape,
}
