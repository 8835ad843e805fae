"""Datasets with simulated anomalies."""

import functools
from typing import Any

import tensorflow as tf

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.simulation._batches import (
    map_with_seeds,
    require_batches,
)
from keras_sspcab.data.simulation.anomaly import Simulation, make_simulation


def simulate_anomalies(
    dataset: tf.data.Dataset,
    textures: Any = None,
    *,
    anomaly_probability: float = 0.5,
    opacity: Any = (0.2, 1.0),
    rotation_probability: float = 0.3,
    max_rotation: float = 90.0,
    threshold: float = 0.5,
    seed: int = 0,
) -> tf.data.Dataset:
    """Turns batches of normal images into the training data of DRAEM.

    Each image is, with `rotation_probability`, rotated first: this is the
    target of the reconstruction. Then, with `anomaly_probability`, a texture is
    blended into it where a rotated Perlin noise exceeds the threshold. The
    texture has undergone three of ten random changes (`augment_texture`). With
    mask `M`, texture `A` and opacity `o`, the image `I` becomes
    `(1 - M) I + M (o A + (1 - o) I)`: outside of the mask nothing changes.

    A mask may turn out empty, so somewhat fewer images than
    `anomaly_probability` have an anomaly.

    The elements follow from the seed and their number alone: they are the same
    in every process, and `.skip(n)` gives what follows the first `n`. But when
    the same dataset is iterated again, it gives new anomalies, as `fit` needs
    in its next epoch.

    Source: Zavrtanik et al., "DRAEM - A discriminatively trained reconstruction
    embedding for surface anomaly detection" (ICCV 2021), section 3.3; ranges
    from https://github.com/VitjanZ/DRAEM, where they differ from the paper's.

    Args:
        dataset: Batches `(batch, height, width, channels)` of floating point
            images in [0, 1], RGB or gray, at least 32 x 32 pixels; from
            `image_dataset`, for example. For gray images the textures are
            changed in color, then turned to gray.
        textures: Folder or URL of images, such as that of the Describable
            Textures Dataset; a `FolderTextures` or `EmbeddedTextures`; or None
            (the default) for `EmbeddedTextures()`.
        anomaly_probability: Share of images that are corrupted.
        opacity: Least and greatest opacity of the texture. The paper has
            `(0.1, 1.0)`.
        rotation_probability: Share of images that are rotated.
        max_rotation: Greatest angle of these, in degrees, either way.
        threshold: Noise above it belongs to the anomaly. It lies within -1 and
            1.
        seed: Integer, 0 or more.

    Returns:
        A `tf.data.Dataset` of as many elements `(images, targets)`: float32
        `(batch, height, width, channels)` in [0, 1], and a dict of
        `"reconstruction"`, the clean images, of the same shape, and
        `"segmentation"`, float32 `(batch, height, width)`: 1 where the anomaly
        is, else 0.

    Raises:
        ValueError: If the dataset has other elements, an argument is out of
            range, or the textures cannot be read.
    """
    require_batches(dataset)
    simulation = make_simulation(
        textures,
        anomaly_probability,
        opacity,
        rotation_probability,
        max_rotation,
        threshold,
    )
    seed = standardize_int(seed, "seed", 0)
    batch = _compiled(simulation, dataset.element_spec)
    return map_with_seeds(dataset, batch, seed)


@functools.lru_cache(maxsize=4)
def _compiled(simulation: Simulation, spec: tf.TensorSpec) -> Any:
    """Builds the graph once, although every epoch has a dataset of its own."""
    return tf.function(
        simulation.batch,
        input_signature=[spec, tf.TensorSpec((2,), tf.uint64)],
        autograph=False,
    )
