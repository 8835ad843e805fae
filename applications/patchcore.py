"""PatchCore: the nearest of many normal patches."""

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import keras

from keras_sspcab.hosts.base import HostGuide
from keras_sspcab.hosts.feature_graph import feature_graph
from keras_sspcab.hosts.feature_model import FeatureModel
from keras_sspcab.hosts.registry import register_application
from keras_sspcab.scoring import Calibration, MapUpsampling, MemoryBank


@register_application("patchcore")
@keras.saving.register_keras_serializable(package="keras_sspcab")
class PatchCore(FeatureModel):
    """Scores by the distance to the most similar patch of normal images.

    Where in an image a patch lies does not matter, so that parts may lie
    anywhere. Features of a pretrained network are averaged over small
    neighborhoods, and a memory keeps those that represent all normal ones best.
    The map is the distance to the nearest entry; the score is the largest
    distance, weighted by how usual its neighborhood in the memory is. There is
    nothing to train without a block.

    Reference:
    - [Roth et al., CVPR 2022](https://arxiv.org/abs/2106.08265). Mean image
      AUROC over MVTec AD 99.1 % and pixel AUROC 98.1 % with a Wide ResNet-50
      and a quarter of all patches, 99.0 % and 98.0 % with a hundredth.

    Args:
        input_shape: `(height, width, channels)`; sides may be None. Defaults to
            `(256, 256, 3)`.
        taps: Defaults to `(8, 16)`.
        memory_size: Patches that are kept. Defaults to 2048.
        num_neighbors: Entries of the memory that the weight of the score takes
            into account; 1 does not weigh. Defaults to 9.
        max_candidates: Patches that those kept are chosen from. Defaults to
            100,000.
        sigma: Defaults to 4.
        neighborhood: Defaults to 3.

    All other arguments are those of `FeatureModel`.

    Example:
    >>> model = PatchCore((64, 64, 3), weights=None)
    >>> model.needs_training
    False
    """

    guide: ClassVar[HostGuide] = HostGuide(
        purpose="parts that lie anywhere in the image; the published method",
        training_time="a minute",
        expectation="image AUROC 0.86 on magnetic tiles",
    )

    def __init__(
        self,
        input_shape: Sequence[int | None] = (256, 256, 3),
        sspcab: str | Sequence[str] | None = None,
        backbone: str = "efficientnet_lite0",
        taps: Sequence[int | str] = (8, 16),
        memory_size: int = 2048,
        num_neighbors: int = 9,
        max_candidates: int = 100_000,
        sigma: float = 4.0,
        neighborhood: int = 3,
        weights: str | os.PathLike | None = "imagenet",
        residual: str = "append",
        sspcab_options: dict[str, Any] | None = None,
        seed: int = 0,
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "patchcore",
    ) -> None:
        graph = feature_graph(
            input_shape,
            sspcab,
            backbone,
            taps,
            weights,
            neighborhood,
            residual,
            sspcab_options,
        )
        bank = MemoryBank(
            memory_size, num_neighbors, max_candidates, seed, name="memory_bank"
        )
        distances, raw_score = bank(graph.features)
        raw_map = MapUpsampling(sigma, name="map")(distances, graph.image)
        super().__init__(
            graph,
            {bank.name: graph.features},
            raw_score,
            raw_map,
            calibration,
            name,
        )
