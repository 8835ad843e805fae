"""The graph of hosts on pretrained features, from images to features."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_sspcab.backbones import describe_weights, load_backbone
from keras_sspcab.backbones.taps import PROBE_SIZE
from keras_sspcab.checks import (
    standardize_choice,
    standardize_int,
    standardize_odd,
)
from keras_sspcab.hosts.arguments import check_input_shape, check_places
from keras_sspcab.hosts.graph import LAST, sspcab_block
from keras_sspcab.layers.base import ConfigLayer

PLACES = ("features",)
RESIDUALS = ("append", "replace")


@dataclasses.dataclass(frozen=True)
class FeatureGraph:
    """What `feature_graph` has built.

    Attributes:
        image: The symbolic input.
        features: `(batch, rows, columns, channels)`, the residual included; a
            list of these for several groups of taps.
        residual: What the block could not predict; None without a block.
        weights: Where those of the backbone come from.
        maps: What the backbone gives, `(batch, rows, columns, channels)` for
            each tap.
    """

    image: Any
    features: Any
    residual: Any
    weights: dict[str, str | None]
    maps: list[Any]


def feature_graph(
    input_shape: Sequence[int | None],
    sspcab: str | Sequence[str] | None = None,
    backbone: str = "efficientnet_lite0",
    taps: Sequence[int | str] | Sequence[Sequence[int | str]] = (8, 16),
    weights: str | os.PathLike | None = "imagenet",
    neighborhood: int | Sequence[int] = 3,
    residual: str = "append",
    sspcab_options: dict[str, Any] | None = None,
) -> FeatureGraph:
    """Builds the graph from images to features.

    The maps of the taps are each averaged over a neighborhood, brought to the
    grid of the finest by repeating values, and joined. With a block, features
    are standardized for each channel before it predicts them.

    Args:
        input_shape: `(height, width, channels)` with 1 or 3 channels; sides of
            at least 32, or None.
        sspcab: `"features"` or None.
        backbone: As `name` of `load_backbone`.
        taps: As for `load_backbone`, or several groups of them. Each group
            gives features on the grid of its finest tap; a block predicts those
            of the first group.
        weights: As for `load_backbone`.
        neighborhood: Odd integer, side of the square over which the features of
            a tap are averaged; 1 leaves them. One for each group, where there
            are several. At the border only what lies inside counts.
        residual: `"append"` joins features and what the block could not
            predict, `"replace"` keeps the latter alone.
        sspcab_options: Arguments of the `SSPCABLayer`. Features have signs, so
            its activation is None unless given.

    Returns:
        A `FeatureGraph` of the symbolic tensors.

    Raises:
        ValueError: If an argument is out of its range.
        ImportError: If the package with the weights is not installed.
        OSError: If the weights cannot be downloaded.

    Example:
    >>> feature_graph((64, 64, 3), taps=(8,), weights=None).features.shape
    (None, 8, 8, 40)
    """
    shape = check_input_shape(input_shape, minimum=32)
    places = check_places(sspcab, PLACES)
    residual = standardize_choice(residual, RESIDUALS, "residual")
    has_groups = any(isinstance(tap, (list, tuple)) for tap in taps)
    groups: Any = taps if has_groups else (taps,)
    sizes = (
        (neighborhood,) * len(groups)
        if isinstance(neighborhood, int)
        else tuple(neighborhood)
    )
    for size in sizes:
        standardize_odd(size, "neighborhood")
    image = keras.Input(shape, name="image")
    taps = list(dict.fromkeys(tap for group in groups for tap in group))
    network = load_backbone(backbone, taps, weights, image.shape[-1])
    maps = [
        # Models can begin here, which takes one layer for each.
        layers.Identity(name=f"backbone_map{number}")(tap_map)
        for number, tap_map in enumerate(keras.tree.flatten(network(image)))
    ]
    features, *others = _joined_groups(groups, sizes, taps, network, maps)
    unpredicted = None
    if places:
        features = layers.BatchNormalization(
            # Trainings are short.
            momentum=0.9,
            center=False,
            scale=False,
            name="standardization",
        )(features)
        predicted = sspcab_block(
            features, "features", sspcab_options, activation=None
        )
        unpredicted = layers.Subtract(name="residual")([features, predicted])
        features = (
            unpredicted
            if residual == "replace"
            else layers.Concatenate(name="features")([features, unpredicted])
        )
    return FeatureGraph(
        image,
        [features, *others] if has_groups else features,
        unpredicted,
        describe_weights(backbone, weights),
        maps,
    )


@keras.saving.register_keras_serializable(package="keras_sspcab")
class NearestAlignment(ConfigLayer):
    """Repeats the values of a coarse map, on the grid of a reference.

    Each stands for `factor` cells along each axis; the last goes on.
    """

    config_names = ("factor",)

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = standardize_int(factor, "factor", 1)

    def call(self, inputs: Any, reference: Any) -> Any:
        have, wanted = ops.shape(inputs), ops.shape(reference)
        for axis in (1, 2):
            places = self._places(wanted[axis], have[axis])
            inputs = ops.take(inputs, places, axis=axis)
        return inputs

    def _places(self, wanted: Any, have: Any) -> Any:
        if isinstance(wanted, int) and isinstance(have, int):
            # A constant in the graph.
            places = np.minimum(np.arange(wanted) // self.factor, have - 1)
            return places.astype("int32")
        places = ops.arange(wanted, dtype="int32") // self.factor
        return ops.minimum(places, have - 1)

    def compute_output_shape(
        self,
        inputs_shape: tuple[int | None, ...],
        reference_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return (inputs_shape[0], *reference_shape[1:3], inputs_shape[3])


def _joined_groups(
    groups: Sequence[Sequence[int | str]],
    neighborhoods: Sequence[int],
    taps: list[int | str],
    network: keras.Model,
    maps: list[Any],
) -> list[Any]:
    """Joins the maps of each group of taps on the grid of its finest."""
    image = network.inputs[0]
    shape = (1, PROBE_SIZE, PROBE_SIZE, image.shape[-1])
    probe = network.compute_output_spec(keras.KerasTensor(shape, image.dtype))
    sides = [spec.shape[1] for spec in keras.tree.flatten(probe)]
    return [
        _joined(
            [taps.index(tap) for tap in group],
            maps,
            sides,
            size,
            "taps" if len(groups) == 1 else f"taps{index}",
        )
        for index, (group, size) in enumerate(
            zip(groups, neighborhoods, strict=True)
        )
    ]


def _joined(
    members: list[int],
    maps: list[Any],
    sides: list[int],
    neighborhood: int,
    name: str,
) -> Any:
    """Joins some of the maps on the grid of the finest of them."""
    finest = max(members, key=lambda index: sides[index])
    aligned = []
    for index in members:
        x = average(maps[index], neighborhood, f"{name}_neighborhood{index}")
        if sides[index] < sides[finest]:
            factor = round(sides[finest] / sides[index])
            x = NearestAlignment(factor, name=f"{name}_aligned{index}")(
                x, maps[finest]
            )
        aligned.append(x)
    if len(aligned) == 1:
        return aligned[0]
    return layers.Concatenate(name=name)(aligned)


def average(features: Any, size: int, name: str) -> Any:
    """Averages features over squares; at the border only what lies inside."""
    if size == 1:
        return features
    return layers.AveragePooling2D(
        size, strides=1, padding="same", name=name, **LAST
    )(features)
