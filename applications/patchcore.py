"""PatchCore: the nearest of many normal patches."""

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import keras

from keras_sspcab.hosts.feature_model import FeatureModel, feature_graph
from keras_sspcab.hosts.guide import HostGuide
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

    Open points: the paper has a Wide ResNet-50, whose features it averages down
    to 1024 channels; here they stay as they are. It brings coarse maps to the
    finer grid bilinearly, here values are repeated. It keeps a share of all
    patches, here their number is fixed. It resizes images to 256 x 256 and
    crops to 224 x 224, which is left to the reader of the images.

    Args:
        input_shape: `(height, width, channels)` with 1 or 3 channels; sides of
            at least 32, or None. Defaults to `(256, 256, 3)`.
        sspcab: `"features"` lets a block predict the features, or None (the
            default), the published method.
        backbone: One of `keras_sspcab.backbones.available_backbones()`.
            Defaults to `"efficientnet_lite0"`.
        taps: Strides or names of layers where features are taken. Defaults to
            `(8, 16)`.
        memory_size: Patches that are kept. Defaults to 2048.
        num_neighbors: Entries of the memory that the weight of the score takes
            into account; 1 does not weigh. Defaults to 9.
        max_candidates: Patches that those kept are chosen from. Defaults to
            100,000.
        sigma: Standard deviation of the Gaussian that smooths the map, in
            pixels. Defaults to 4.
        neighborhood: Side of the square over which features are averaged.
            Defaults to 3.
        weights: Those of the backbone: `"imagenet"` (the default), a file, or
            None for random ones. Read once, here; the path is not kept.
        residual: What the block gives: `"append"` (the default) or `"replace"`,
            see `feature_graph`.
        sspcab_options: Arguments of the `SSPCABLayer`.
        seed: Seed of the choice of patches. Defaults to 0.
        calibration: A `Calibration`; set by `calibrate`.
        name: Name of the model.

    Raises:
        ValueError: If an argument is out of its range.
        ImportError: If the package with the weights is not installed.

    Example:
    >>> model = PatchCore(input_shape=(256, 256, 3))
    >>> model.fit(normal_images)
    >>> model.calibrate()
    >>> model.predict(images)["is_anomalous"]
    """

    guide: ClassVar[HostGuide] = HostGuide(
        purpose="parts that lie anywhere in the image; the published method",
        training_time="half a minute",
        expectation="image AUROC 0.83 on magnetic tiles",
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
            {
                "taps": tuple(taps),
                "memory_size": bank.capacity,
                "num_neighbors": bank.num_neighbors,
                "max_candidates": bank.max_candidates,
                "sigma": sigma,
                "seed": bank.seed,
            },
            name,
        )
