"""In how many bits the layers of a model compute while it is exported."""

import contextlib
from collections.abc import Iterable, Iterator

import keras

#: Precisions that an exported graph can compute in.
COMPUTE_PRECISIONS = ("float32", "float16", "bfloat16")

# Others, of integers or quantized weights, say more than a precision.
_FLOAT_POLICIES = {
    *COMPUTE_PRECISIONS,
    "mixed_float16",
    "mixed_bfloat16",
}


@contextlib.contextmanager
def computing_in(model: keras.Model, precision: str) -> Iterator[None]:
    """Lets the layers of a model compute in a precision for a while.

    Nothing happens to the weights. In float32 everything is computed so,
    whatever the model was trained under: 16-bit kernels are missing from LiteRT
    and slow on CPUs. In 16 bits inputs stay float32, and so do the layers of
    `keras_sspcab.scoring` and what lies between them and the last weights: a
    score is the small difference of two images, of which 16 bits leave little.

    Args:
        model: Any Keras model.
        precision: One of `COMPUTE_PRECISIONS`.
    """
    layers = [
        layer
        for layer in model._flatten_layers()
        if layer.dtype_policy.name in _FLOAT_POLICIES
    ]
    precise = _precise_layers(layers)
    changed = []
    try:
        for layer in layers:
            in_float32 = (
                precision == "float32"
                or id(layer) in precise
                # What a model does itself is to cast its inputs.
                or isinstance(layer, keras.Model)
            )
            policy = "float32" if in_float32 else f"mixed_{precision}"
            if layer.dtype_policy.name != policy:
                changed.append((layer, layer.dtype_policy))
                layer.dtype_policy = policy
        yield
    finally:
        for layer, before in changed:
            layer.dtype_policy = before


def _precise_layers(layers: Iterable[keras.layers.Layer]) -> set[int]:
    """Ids of the scoring layers, and of the weightless ones before them."""
    waiting = [
        layer
        for layer in layers
        if type(layer).__module__.startswith("keras_sspcab.scoring")
    ]
    precise = {
        id(part) for layer in waiting for part in layer._flatten_layers()
    }
    while waiting:
        for node in waiting.pop()._inbound_nodes:
            for parent in node.parent_nodes:
                layer = parent.operation
                is_new = id(layer) not in precise
                if is_new and not getattr(layer, "weights", None):
                    precise.add(id(layer))
                    waiting.append(layer)
    return precise
