"""Datasets with simulated anomalies."""

import functools
from typing import Any

import tensorflow as tf

from keras_sspcab.data.simulation._arguments import require_images
from keras_sspcab.data.simulation._random import fold_in, standardize_seed
from keras_sspcab.data.simulation.anomaly import Simulation, make_simulation
from keras_sspcab.layers._arguments import standardize_int


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
            images in [0, 1], RGB or grey, at least 32 x 32 pixels; from
            `image_dataset`, for example. For grey images the textures are
            changed in colour, then turned to grey.
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
    _require_batches(dataset)
    simulation = make_simulation(
        textures,
        anomaly_probability,
        opacity,
        rotation_probability,
        max_rotation,
        threshold,
    )
    seed = standardize_int(seed, "seed", 0)
    start = standardize_seed(seed)
    batch = _compiled(simulation, dataset.element_spec)

    @tf.autograph.experimental.do_not_convert
    def simulate(
        numbered: tuple[tf.Tensor, tf.Tensor], number: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        position, images = numbered
        return batch(images, fold_in(fold_in(start, number), position))

    return (
        tf.data.Dataset.zip((dataset.enumerate(), random_numbers(seed)))
        .map(simulate, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def random_numbers(seed: int) -> tf.data.Dataset:
    """Random int64 numbers without end, others in each iteration.

    The first iteration follows from the seed alone. That of
    `tf.data.Dataset.random` follows from TensorFlow's global seed as well.
    """
    variant = tf.raw_ops.RandomDatasetV2(
        seed=tf.constant(seed % 2**63, tf.int64),
        # Two zeros would stand for a seed from the clock.
        seed2=tf.constant(1, tf.int64),
        seed_generator=tf.raw_ops.DummySeedGenerator(),
        rerandomize_each_iteration=True,
        output_types=[tf.int64],
        output_shapes=[tf.TensorShape([])],
    )
    spec = tf.TensorSpec((), tf.int64)
    return tf.data.experimental.from_variant(variant, spec)


@functools.lru_cache(maxsize=4)
def _compiled(simulation: Simulation, spec: tf.TensorSpec) -> Any:
    """Builds the graph once, although every epoch has a dataset of its own."""
    return tf.function(
        simulation.batch,
        input_signature=[spec, tf.TensorSpec((2,), tf.uint64)],
        autograph=False,
    )


def _require_batches(dataset: Any) -> None:
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            "Anomalies are simulated in a tf.data.Dataset. Received: "
            f"dataset={dataset!r}. tf.data.Dataset.from_tensor_slices(images)"
            ".batch(8) makes one from an array."
        )
    spec = dataset.element_spec
    if not isinstance(spec, tf.TensorSpec):
        raise ValueError(
            "The dataset must yield batches of images and nothing else. "
            f"Received: elements {spec}"
        )
    require_images(spec.shape, spec.dtype, rank=4)
