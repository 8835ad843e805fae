"""Saves which parts of a model are quantized or frozen in its config."""

import collections
import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras


def quantized_parts(layer: keras.layers.Layer) -> dict[str, Any]:
    """Returns how each part was quantized, by its place, as plain values."""
    return {
        place: keras.saving.serialize_keras_object(
            getattr(part, "quantization_config", None) or part.quantization_mode
        )
        for place, _, part in _placed_parts(layer)
        if part.quantization_mode is not None
    }


def quantize_parts(layer: keras.layers.Layer, parts: Mapping[str, Any]) -> None:
    """Quantizes the parts as they were, so that their weights can be loaded."""
    for place, name, part in _placed_parts(layer) if parts else ():
        # Files of before have names.
        config = parts.get(place, parts.get(name))
        if config is None or part.quantization_mode is not None:
            continue
        given = keras.saving.deserialize_keras_object(config)
        if isinstance(given, str):
            part.quantize(given)
        else:
            part.quantize(config=given)


def trainable_parts(layer: keras.layers.Layer) -> dict[str, bool]:
    """Returns which parts differ in `trainable` from what they are part of.

    The layer itself has the empty name, and differs if it is not trainable.
    """
    flags = {"": bool(layer.trainable)}
    found = {} if layer.trainable else {"": False}
    for place, _, part in _placed_parts(layer):
        flags[place] = bool(part.trainable)
        if flags[place] != flags[place.rpartition("/")[0]]:
            found[place] = flags[place]
    return found


def set_trainable_parts(
    layer: keras.layers.Layer, parts: Mapping[str, bool]
) -> None:
    """Restores the `trainable` flags that `trainable_parts` has returned."""
    flags = {"": parts.get("", True)}
    layer.trainable = flags[""]
    for place, _, part in _placed_parts(layer):
        flags[place] = parts.get(place, flags[place.rpartition("/")[0]])
        part.trainable = flags[place]


def _placed_parts(
    layer: keras.layers.Layer, around: str = "", name_around: str = ""
) -> Iterator[tuple[str, str, Any]]:
    """Yields the place, the name and the layer of each part, at any depth."""
    # Not by their paths, which depend on what is around. Numbers in names may
    # be those that Keras counts in a process.
    counts: collections.Counter[str] = collections.Counter()
    for part in layer._layers:
        stem = re.sub(r"_\d+$", "", part.name)
        place = f"{around}{stem}:{counts[stem]}"
        name = name_around + part.name
        counts[stem] += 1
        yield place, name, part
        yield from _placed_parts(part, f"{place}/", f"{name}/")
