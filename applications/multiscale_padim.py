"""Position-wise Gaussians of features at two scales."""

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from keras_sspcab.applications.padim import KNOWN_SIZE, choose_channels
from keras_sspcab.hosts.arguments import check_input_shape
from keras_sspcab.hosts.base import HostGuide, Settings
from keras_sspcab.hosts.feature_graph import average, feature_graph
from keras_sspcab.hosts.feature_model import FeatureModel, untracked_model
from keras_sspcab.hosts.registry import register_application
from keras_sspcab.scoring import (
    Calibration,
    MapPooling,
    MapUpsampling,
    PositionGaussian,
    StandardizedSum,
)

#: Where the features of each scale are taken, fine and coarse.
LITE_SCALES = ((8, 16), ("stage4", "stage5", "stage6"))
SCALES = ((8, 16), (16, 32))

# Chosen on MVTec AD's screw (corrected for its gain) and half of the magnetic
# tiles: a small defect is seen in few pixels of the fine map, a change of the
# texture in many of the coarse one.
_TOP_SHARES = (0.005, 0.05)
_MAP_WEIGHTS = (1.0, 0.5)

# The layers that add both scales, and what of held-out images they are for.
_SUMS = {"score_sum": "scores", "map_sum": "pixels"}


@register_application("multiscale_padim")
@keras.saving.register_keras_serializable(package="keras_sspcab")
class MultiScalePaDiM(FeatureModel):
    """Compares features with those of normal images at the same position.

    PaDiM at two scales, with two changes that make it stronger where normal
    images differ a lot: the covariance at each position borrows a little from
    that of all positions, and only its leading directions are kept, so that the
    model stays small. The score of a scale is the mean of the largest values of
    its map. Scores and maps of both scales are added, each in standard
    deviations of held-out normal images.

    Nothing is trained without a block. With `sspcab="features"`, a block
    predicts the features of the fine scale from their surroundings, and what it
    could not predict counts as further features.

    References:
    - [Defard et al., 2021](https://arxiv.org/abs/2011.08785), PaDiM
    - [Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099), the block

    Args:
        input_shape: `(height, width, channels)`, all known. Defaults to `(320,
            320, 3)`.
        scales: Taps of the fine and of the coarse scale, as for
            `load_backbone`. None (the default) takes stages of strides 8 and
            16, and of strides 16 and 32.
        num_features: Channels chosen at random at each scale; None keeps all.
            Defaults to 100.
        shrinkage: Share of the covariance that is common to all positions.
            Defaults to 0.05.
        regularization: Share of its variance that is added to each feature's.
            Defaults to 0.02.
        rank: Leading directions kept of the covariance at each position.
            Defaults to 64.
        sigma: Defaults to 5.
        neighborhood: Defaults to 3.

    All other arguments are those of `FeatureModel`.

    Example:
    >>> model = MultiScalePaDiM((64, 64, 3), weights=None)
    >>> model.needs_training
    False
    """

    default_settings: ClassVar[Settings] = {"data": {"image_size": 320}}

    guide: ClassVar[HostGuide] = HostGuide(
        purpose="aligned parts and even surfaces; the default for images",
        training_time="half a minute; with the block, one to two",
        expectation="image AUROC 0.94 on magnetic tiles, 0.95 on screws of "
        "corrected gain",
    )

    def __init__(
        self,
        input_shape: Sequence[int | None] = (320, 320, 3),
        sspcab: str | Sequence[str] | None = None,
        backbone: str = "efficientnet_lite0",
        scales: Sequence[Sequence[int | str]] | None = None,
        num_features: int | None = 100,
        shrinkage: float = 0.05,
        regularization: float = 0.02,
        rank: int | None = 64,
        sigma: float = 5.0,
        neighborhood: int = 3,
        weights: str | os.PathLike | None = "imagenet",
        residual: str = "append",
        sspcab_options: dict[str, Any] | None = None,
        seed: int = 0,
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "multiscale_padim",
    ) -> None:
        if scales is None:
            is_lite = backbone.startswith("efficientnet_lite")
            scales = LITE_SCALES if is_lite else SCALES
        if len(scales) != 2:
            raise ValueError(
                "`scales` must be the taps of two scales, fine and coarse. "
                f"Received: scales={scales}"
            )
        # === Functional model ===
        graph = feature_graph(
            check_input_shape(input_shape, needs_size=KNOWN_SIZE),
            sspcab,
            backbone,
            scales,
            weights,
            neighborhood=(1, neighborhood),
            residual=residual,
            sspcab_options=sspcab_options,
        )
        statistics, maps, scores = {}, [], []
        for scale, features, share in zip(
            ("fine", "coarse"), graph.features, _TOP_SHARES, strict=True
        ):
            if scale == "fine":
                # Once joined: deep features see far enough already.
                features = average(features, neighborhood, "fine_neighborhood")
            features = choose_channels(
                features, num_features, seed, f"{scale}_chosen"
            )
            gaussian = PositionGaussian(
                shrinkage,
                regularization,
                relative=True,
                rank=rank,
                name=f"{scale}_gaussian",
            )
            statistics[gaussian.name] = features
            scale_map = MapUpsampling(sigma, name=f"{scale}_map")(
                gaussian(features), graph.image
            )
            maps.append(scale_map)
            scores.append(
                MapPooling("top", share, name=f"{scale}_score")(scale_map)
            )
        raw_map = StandardizedSum(_MAP_WEIGHTS, name="map_sum")(maps)
        raw_score = StandardizedSum((1.0, 1.0), name="score_sum")(scores)
        super().__init__(
            graph, statistics, raw_score, raw_map, calibration, name
        )
        self._scales = untracked_model(
            graph.image, {"scores": scores, "maps": maps}
        )

    def score_held_out(self, images: Any, step: int) -> dict[str, np.ndarray]:
        """Keeps the scores of both scales, and a part of their maps."""
        outputs = self._scales.value.predict_on_batch(images)
        maps = np.stack(outputs["maps"], axis=-1)
        return {
            "scores": np.stack(outputs["scores"], axis=-1),
            # Of each image as many, so that they can be told apart.
            "pixels": maps.reshape(len(maps), -1, len(_MAP_WEIGHTS))[
                :, ::step
            ].reshape(-1, len(_MAP_WEIGHTS)),
        }

    def fit_sums(self, held_out: dict[str, np.ndarray]) -> None:
        for name, key in _SUMS.items():
            self.get_layer(name).fit(held_out[key])

    def finish_scoring(
        self, held_out: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the sums of both scales."""
        scores, pixels = (
            keras.ops.convert_to_numpy(
                self.get_layer(name)(list(np.moveaxis(held_out[key], -1, 0)))
            )
            for name, key in _SUMS.items()
        )
        return scores, pixels, pixels.reshape(len(scores), -1).max(axis=1)
