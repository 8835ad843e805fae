"""The anomalies of DRAEM: textures, blended into images by noise."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_sspcab.checks import (
    standardize_int,
    standardize_number,
    standardize_range,
)
from keras_sspcab.data.random import (
    chance,
    fold_in,
    integers,
    split,
    uniform,
)
from keras_sspcab.data.simulation.batches import (
    as_float32,
    map_with_seeds,
    require_batches,
)
from keras_sspcab.data.simulation.operations import (
    augment_texture,
    rotate,
    to_gray,
)
from keras_sspcab.data.simulation.textures import (
    EmbeddedTextures,
    FolderTextures,
    TextureSource,
)

_LARGEST_EXPONENT = 5
_THRESHOLD = 0.5


def simulate_anomalies(
    dataset: tf.data.Dataset,
    textures: Any = None,
    *,
    anomaly_probability: float = 0.5,
    opacity: Any = (0.2, 1.0),
    rotation_probability: float = 0.3,
    seed: int = 0,
) -> tf.data.Dataset:
    """Turns batches of normal images into the training data of DRAEM.

    Some images are first rotated by up to 90 degrees either way: this is the
    target of the reconstruction. Into some, a texture that has undergone three
    of ten random changes is blended where a rotated Perlin noise exceeds 0.5.
    With mask `M`, texture `A` and opacity `o`, the image `I` becomes `(1 - M) I
    + M (o A + (1 - o) I)`: outside of the mask nothing changes.

    The elements follow from the seed and their number alone: they are the same
    in every process, and `.skip(n)` gives what follows the first `n`. But when
    the same dataset is iterated again, it gives new anomalies, as `fit` needs
    in its next epoch.

    Source: Zavrtanik et al., "DRAEM - A discriminatively trained reconstruction
    embedding for surface anomaly detection" (ICCV 2021), section 3.3; ranges
    from https://github.com/VitjanZ/DRAEM, where they differ from the paper's.

    Args:
        dataset: Batches `(batch, height, width, channels)` of floating point
            images in [0, 1], RGB or gray, at least 32 x 32 pixels.
        textures: Folder or URL of images, such as that of the Describable
            Textures Dataset; a `FolderTextures` or `EmbeddedTextures`; or None
            (the default) for `EmbeddedTextures()`.
        anomaly_probability: Share of images that are corrupted; of these, a few
            have an empty mask.
        opacity: Least and greatest opacity of the texture. The paper has
            `(0.1, 1.0)`.
        rotation_probability: Share of images that are rotated.
        seed: Integer, 0 or more.

    Returns:
        A `tf.data.Dataset` of as many elements `(images, targets)`: float32
        `(batch, height, width, channels)` in [0, 1], and a dict of
        `"reconstruction"`, the clean images, of the same shape, and
        `"segmentation"`, float32 `(batch, height, width)`: 1 where the anomaly
        is, else 0.

    Example:
    >>> normal = tf.data.Dataset.from_tensors(tf.zeros((2, 32, 32, 3)))
    >>> images, targets = simulate_anomalies(normal).element_spec
    >>> images.shape, targets["segmentation"].shape
    (TensorShape([2, 32, 32, 3]), TensorShape([2, 32, 32]))
    """
    require_batches(dataset)
    if textures is None:
        textures = _default_textures()
    elif not isinstance(textures, TextureSource):
        textures = FolderTextures(textures)

    def share(value: Any, name: str) -> float:
        return standardize_number(value, name, 0.0, 1.0)

    simulate = _simulation(
        textures,
        share(anomaly_probability, "anomaly_probability"),
        standardize_range(opacity, "opacity"),
        share(rotation_probability, "rotation_probability"),
        dataset.element_spec,
    )
    return map_with_seeds(dataset, simulate, standardize_int(seed, "seed", 0))


_default_textures = functools.cache(EmbeddedTextures)


@functools.lru_cache(maxsize=4)
def _simulation(
    textures: TextureSource,
    anomaly_probability: float,
    opacity: tuple[float, float],
    rotation_probability: float,
    spec: tf.TensorSpec,
) -> Any:
    """Returns a function of a batch and a seed; epochs share its graph."""

    def corrupt(
        image: tf.Tensor, images: tf.Tensor, index: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Blends a texture into an image; returns it and the mask."""
        mask_seed, texture_seed, change_seed, opacity_seed = split(seed, 4)
        size = tf.unstack(tf.shape(image)[:2])
        mask = perlin_mask(size, mask_seed)[..., tf.newaxis]

        def paint() -> tf.Tensor:
            texture = textures.draw(images, index, texture_seed)
            texture = augment_texture(texture, change_seed) / 255.0
            if image.shape[-1] == 1:
                texture = to_gray(texture)
            share = uniform(opacity_seed, *opacity)
            blend = (1.0 - share) * image + share * texture
            return tf.where(mask, tf.clip_by_value(blend, 0.0, 1.0), image)

        # Most of the work is saved where nothing would be seen of it.
        augmented = tf.cond(tf.reduce_any(mask), paint, lambda: image)
        augmented = tf.ensure_shape(augmented, image.shape)
        mask = tf.ensure_shape(mask[..., 0], image.shape[:2])
        return augmented, tf.cast(mask, tf.float32)

    def change(
        images: tf.Tensor, index: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns an image as augmented, as clean, and the mask."""
        turn_seed, angle_seed, chance_seed, anomaly_seed = split(seed, 4)
        image = images[index]
        angle = uniform(angle_seed, -90.0, 90.0)
        clean = tf.cond(
            chance(turn_seed, rotation_probability),
            lambda: rotate(image, angle),
            lambda: image,
        )
        clean = tf.ensure_shape(clean, image.shape)
        augmented, mask = tf.cond(
            chance(chance_seed, anomaly_probability),
            lambda: corrupt(clean, images, index, anomaly_seed),
            lambda: (clean, tf.zeros(tf.shape(clean)[:2])),
        )
        return augmented, clean, mask

    def simulate(
        images: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        images = as_float32(images)
        image = tf.TensorSpec(images.shape[1:], tf.float32)
        mask = tf.TensorSpec(images.shape[1:3], tf.float32)
        results = tf.map_fn(
            lambda index: change(images, index, fold_in(seed, index)),
            tf.range(tf.shape(images)[0]),
            fn_output_signature=(image, image, mask),
        )
        for result in results:
            result.set_shape((images.shape[0], *result.shape[1:]))
        augmented, clean, masks = results
        return augmented, {"reconstruction": clean, "segmentation": masks}

    return tf.function(
        simulate,
        input_signature=[spec, tf.TensorSpec((2,), tf.uint64)],
        autograph=False,
    )


# === Perlin noise: where the anomalies lie ===


def perlin_noise(size: Sequence[Any], seed: tf.Tensor) -> tf.Tensor:
    """Draws Perlin noise (Perlin, "Improving noise", 2002), times `sqrt(2)`.

    A lattice of cells has a random unit gradient at each of its points. At a
    pixel, the slopes of the four points around are blended by the quintic
    `6 t^5 - 15 t^4 + 10 t^3`. As in DRAEM, there are `2^n` cells along height
    and along width, with a random `n` from 0 to 5 for each; of those that leave
    a cell 2 pixels or more. Returns float32 `(height, width)`, from -1 to 1.
    """
    cell_seed, angle_seed = split(seed, 2)
    rows, columns = (
        _draw_cells(side, own)
        for side, own in zip(size, split(cell_seed, 2), strict=True)
    )
    angles = uniform(angle_seed, 0.0, 2.0 * math.pi, (rows + 1, columns + 1))
    return lattice_noise(angles, size)


def perlin_mask(size: Sequence[Any], seed: tf.Tensor) -> tf.Tensor:
    """Draws the mask of an anomaly: where noise, rotated, is above 0.5."""
    noise_seed, angle_seed = split(seed, 2)
    noise = perlin_noise(size, noise_seed)
    angle = uniform(angle_seed, -90.0, 90.0)
    return rotate(noise[..., tf.newaxis], angle)[..., 0] > _THRESHOLD


def lattice_noise(angles: tf.Tensor, size: Sequence[Any]) -> tf.Tensor:
    """Blends the gradients of a lattice to a noise of `size`.

    With `u` and `v` the distances to a lattice point in cells, and `s` the
    quintic, its part is `s(1 - |u|) s(1 - |v|) (u cos + v sin)`. So the sum
    over all points is two products of matrices.
    """
    lattice = tf.shape(angles)
    rows, slopes_of_rows = _influence(size[0], lattice[0])
    columns, slopes_of_columns = _influence(size[1], lattice[1])
    vertical = tf.matmul(slopes_of_rows, tf.cos(angles))
    horizontal = tf.matmul(rows, tf.sin(angles))
    noise = tf.matmul(vertical, columns, transpose_b=True)
    noise += tf.matmul(horizontal, slopes_of_columns, transpose_b=True)
    return math.sqrt(2.0) * noise


def _influence(side: Any, points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Weights of the points at each pixel, and those times the distance."""
    cell = tf.cast(points - 1, tf.float32) / tf.cast(side, tf.float32)
    places = tf.range(side, dtype=tf.float32) * cell
    distances = places[:, tf.newaxis] - tf.range(points, dtype=tf.float32)
    t = tf.maximum(1.0 - tf.abs(distances), 0.0)
    weights = t * t * t * (t * (6.0 * t - 15.0) + 10.0)
    return weights, weights * distances


def _draw_cells(side: Any, seed: tf.Tensor) -> tf.Tensor:
    powers = 2 ** tf.range(_LARGEST_EXPONENT + 1)
    possible = tf.math.count_nonzero(powers * 2 <= side, dtype=tf.int32)
    return powers[integers(seed, 0, tf.maximum(possible, 1) - 1)]
