"""PaDiM: a Gaussian of pretrained features at each position."""

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_int
from keras_sspcab.hosts.arguments import check_input_shape
from keras_sspcab.hosts.base import HostGuide
from keras_sspcab.hosts.feature_graph import feature_graph
from keras_sspcab.hosts.feature_model import FeatureModel
from keras_sspcab.hosts.registry import register_application
from keras_sspcab.layers.base import ConfigLayer
from keras_sspcab.scoring import (
    Calibration,
    MapPooling,
    MapUpsampling,
    PositionGaussian,
)

#: Why the hosts with statistics for each position must know it.
KNOWN_SIZE = "there are statistics for each position"


@register_application("padim")
@keras.saving.register_keras_serializable(package="keras_sspcab")
class PaDiM(FeatureModel):
    """Scores by the distance to the normal features at the same position.

    For images that are aligned, such as parts in a holder or textures. Features
    of several depths of a pretrained network are joined, some channels are
    chosen at random, and a Gaussian is fitted at each position. The map is the
    Mahalanobis distance, the score its maximum. There is nothing to train
    without a block: `fit` looks at the normal images once for the Gaussians and
    once for the thresholds.

    Reference:
    - [Defard et al., 2021](https://arxiv.org/abs/2011.08785). Mean image AUROC
      over MVTec AD 95.3 % and pixel AUROC 97.5 % with a Wide ResNet-50 and 550
      channels, pixel AUROC 96.7 % with a ResNet-18 and 100.

    Args:
        input_shape: `(height, width, channels)`, all known. Defaults to `(256,
            256, 3)`.
        taps: Defaults to `(4, 8, 16)`.
        num_features: Channels chosen at random, of those of the features and,
            with a block, of the residuals. None takes all. Defaults to 100.
        shrinkage: As for `PositionGaussian`. A few tenths help where there are
            fewer images than channels. Defaults to 0.
        regularization: As for `PositionGaussian`. Defaults to 0.01.
        rank: As for `PositionGaussian`. At 256 x 256, 100 channels take 164 MB
            without. Defaults to None.
        sigma: Defaults to 4.
        neighborhood: Defaults to 1: features are not averaged.

    All other arguments are those of `FeatureModel`.

    Example:
    >>> model = PaDiM((64, 64, 3), weights=None)
    >>> model.needs_training
    False
    """

    guide: ClassVar[HostGuide] = HostGuide(
        purpose="aligned parts and even surfaces; the published method",
        training_time="half a minute",
        expectation="image AUROC 0.90 on magnetic tiles",
    )

    def __init__(
        self,
        input_shape: Sequence[int] = (256, 256, 3),
        sspcab: str | Sequence[str] | None = None,
        backbone: str = "efficientnet_lite0",
        taps: Sequence[int | str] = (4, 8, 16),
        num_features: int | None = 100,
        shrinkage: float = 0.0,
        regularization: float = 0.01,
        rank: int | None = None,
        sigma: float = 4.0,
        neighborhood: int = 1,
        weights: str | os.PathLike | None = "imagenet",
        residual: str = "append",
        sspcab_options: dict[str, Any] | None = None,
        seed: int = 0,
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "padim",
    ) -> None:
        graph = feature_graph(
            check_input_shape(input_shape, needs_size=KNOWN_SIZE),
            sspcab,
            backbone,
            taps,
            weights,
            neighborhood,
            residual,
            sspcab_options,
        )
        seed = standardize_int(seed, "seed", 0)
        features = choose_channels(graph.features, num_features, seed, "chosen")
        gaussian = PositionGaussian(
            shrinkage, regularization, rank=rank, name="position_gaussian"
        )
        raw_map = MapUpsampling(sigma, name="map")(
            gaussian(features), graph.image
        )
        super().__init__(
            graph,
            {gaussian.name: features},
            MapPooling("max", name="pooling")(raw_map),
            raw_map,
            calibration,
            name,
        )


def choose_channels(
    features: Any, num_features: int | None, seed: int, name: str
) -> Any:
    """Returns so many channels of features, chosen at random; None for all."""
    if num_features is None:
        return features
    count = standardize_int(num_features, "num_features", 1)
    return ChannelChoice(count, seed, name=name)(features)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class ChannelChoice(ConfigLayer):
    """Keeps some of the channels, chosen at random once and for all."""

    config_names = ("count", "seed")

    def __init__(self, count: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = standardize_int(count, "count", 1)
        self.seed = standardize_int(seed, "seed", 0)

    def call(self, inputs: Any) -> Any:
        channels = inputs.shape[-1]
        if channels <= self.count:
            return inputs
        rng = np.random.default_rng(self.seed)
        chosen = np.sort(rng.choice(channels, self.count, replace=False))
        return ops.take(inputs, chosen.astype("int32"), axis=-1)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        *sizes, channels = input_shape
        return (*sizes, channels and min(channels, self.count))
