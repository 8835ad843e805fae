"""What `quantize` has done to the parts of a layer or model, for its config."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras


def quantized_parts(layer: keras.layers.Layer) -> dict[str, Any]:
    """Returns how each part was quantized, by its name, as plain values."""
    return {
        name: keras.saving.serialize_keras_object(
            getattr(part, "quantization_config", None) or part.quantization_mode
        )
        for name, part in _named_parts(layer)
        if part.quantization_mode is not None
    }


def quantize_parts(layer: keras.layers.Layer, parts: Mapping[str, Any]) -> None:
    """Quantizes the parts as they were, so that their weights can be loaded."""
    for name, part in _named_parts(layer) if parts else ():
        if name not in parts or part.quantization_mode is not None:
            continue
        given = keras.saving.deserialize_keras_object(parts[name])
        if isinstance(given, str):
            part.quantize(given)
        else:
            part.quantize(config=given)


def _named_parts(
    layer: keras.layers.Layer, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    # Not by their paths, which depend on what is around.
    for part in layer._layers:
        name = prefix + part.name
        yield name, part
        yield from _named_parts(part, f"{name}/")
