"""Finds where the blocks of a network end."""

import math
from typing import Any

import keras
from keras import layers

#: The strides at which features can be taken.
STRIDES = (2, 4, 8, 16, 32)

#: Large enough for networks that lose some pixels at the border.
PROBE_SIZE = 512

_CONVOLUTIONS = (
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
)
_ACTIVATIONS = (layers.Activation, layers.ReLU)
_OTHERS = (
    layers.AveragePooling2D,
    layers.BatchNormalization,
    layers.MaxPooling2D,
)


def maps_by_stride(network: keras.Model) -> dict[int, Any]:
    """Returns the output of the last block of each stride.

    A block ends where branches meet, in a sum or a concatenation, with the
    activation right behind; at a normalization that a convolution follows, as
    in networks with linear bottlenecks; or at an `Identity`. In a network
    without blocks it is the last convolution, activation or pooling.
    """
    users: dict[int, list[Any]] = {}
    for operation in network.operations:
        for tensor in _inputs(operation):
            users.setdefault(id(tensor), []).append(operation)

    def ends_block(operation: Any) -> bool:
        if isinstance(operation, layers.BatchNormalization):
            following = users.get(id(operation.output), ())
            return any(isinstance(user, _CONVOLUTIONS) for user in following)
        # The product of branches is attention, in the midst of a block.
        return isinstance(operation, layers.Identity) or (
            len(_inputs(operation)) > 1
            and not isinstance(operation, layers.Multiply)
        )

    maps: dict[int, Any] = {}
    plain = _CONVOLUTIONS + _ACTIVATIONS + _OTHERS
    for stride, operations in _by_stride(network).items():
        ends = [item for item in operations if ends_block(item)]
        if ends:
            maps[stride] = ends[-1].output
            following = users.get(id(maps[stride]), ())
            if len(following) == 1 and isinstance(following[0], _ACTIVATIONS):
                maps[stride] = following[0].output
            continue
        for item in operations:
            if isinstance(item, plain):
                maps[stride] = item.output
    return maps


def _inputs(operation: Any) -> list[Any]:
    if isinstance(operation, layers.InputLayer):
        return []
    return keras.tree.flatten(operation.input)


def _by_stride(network: keras.Model) -> dict[int, list[Any]]:
    """Returns the operations with feature maps by their stride, in order."""
    with_maps = [
        operation
        for operation in network.operations
        if _inputs(operation) and len(operation.output.shape) == 4
    ]
    probe = keras.Model(network.input, [item.output for item in with_maps])
    maps = probe.compute_output_spec(
        keras.KerasTensor((1, PROBE_SIZE, PROBE_SIZE, 3), network.input.dtype)
    )
    by_stride: dict[int, list[Any]] = {stride: [] for stride in STRIDES}
    for operation, output in zip(with_maps, maps, strict=True):
        # Convolutions without padding give less than the size by the stride.
        stride = 2 ** round(math.log2(PROBE_SIZE / output.shape[1]))
        if stride in by_stride:
            by_stride[stride].append(operation)
    return by_stride
