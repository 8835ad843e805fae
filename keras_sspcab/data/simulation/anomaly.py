"""One simulated anomaly: a texture blended into an image, by a mask."""

import dataclasses
import functools
from typing import Any

import tensorflow as tf

from keras_sspcab.checks import standardize_number, standardize_range
from keras_sspcab.data.simulation._arguments import check_size, require_images
from keras_sspcab.data.simulation._random import (
    chance,
    fold_in,
    split,
    standardize_seed,
    uniform,
)
from keras_sspcab.data.simulation.augmenters import augment_texture
from keras_sspcab.data.simulation.color import to_gray
from keras_sspcab.data.simulation.embedded import EmbeddedTextures
from keras_sspcab.data.simulation.geometry import rotate
from keras_sspcab.data.simulation.perlin import perlin_mask
from keras_sspcab.data.simulation.textures import FolderTextures, TextureSource


@dataclasses.dataclass(frozen=True)
class Simulation:
    """What `simulate_anomalies` does to a batch; its arguments are there."""

    textures: TextureSource
    anomaly_probability: float
    opacity: tuple[float, float]
    rotation_probability: float
    max_rotation: float
    threshold: float

    def batch(
        self, images: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Simulates anomalies in some images of a batch."""
        images = check_size(tf.cast(images, tf.float32))
        image = tf.TensorSpec(images.shape[1:], tf.float32)
        mask = tf.TensorSpec(images.shape[1:3], tf.float32)
        augmented, clean, masks = tf.map_fn(
            lambda index: self._image(images, index, fold_in(seed, index)),
            tf.range(tf.shape(images)[0]),
            fn_output_signature=(image, image, mask),
        )
        targets = {"reconstruction": clean, "segmentation": masks}
        count = images.shape[0]
        for value in (augmented, *targets.values()):
            value.set_shape((count, *value.shape[1:]))
        return augmented, targets

    def corrupt(
        self,
        image: tf.Tensor,
        images: tf.Tensor,
        index: tf.Tensor,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Blends a texture into an image; returns it and the mask."""
        mask_seed, texture_seed, change_seed, opacity_seed = split(seed, 4)
        size = tf.unstack(tf.shape(image)[:2])
        mask = perlin_mask(size, mask_seed, self.threshold)[..., tf.newaxis]

        def paint() -> tf.Tensor:
            texture = self.textures.draw(images, index, texture_seed)
            texture = augment_texture(texture, change_seed) / 255.0
            if image.shape[-1] == 1:
                texture = to_gray(texture)
            opacity = uniform(opacity_seed, *self.opacity)
            blend = (1.0 - opacity) * image + opacity * texture
            return tf.where(mask, tf.clip_by_value(blend, 0.0, 1.0), image)

        # Most of the work is saved where nothing would be seen of it.
        augmented = tf.cond(tf.reduce_any(mask), paint, lambda: image)
        augmented = tf.ensure_shape(augmented, image.shape)
        mask = tf.ensure_shape(mask[..., 0], image.shape[:2])
        return augmented, tf.cast(mask, tf.float32)

    def _image(
        self, images: tf.Tensor, index: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the augmented image, the clean one and the mask."""
        turn_seed, angle_seed, chance_seed, anomaly_seed = split(seed, 4)
        image = images[index]
        angle = uniform(angle_seed, -self.max_rotation, self.max_rotation)
        clean = tf.cond(
            chance(turn_seed, self.rotation_probability),
            lambda: rotate(image, angle),
            lambda: image,
        )
        clean = tf.ensure_shape(clean, image.shape)
        augmented, mask = tf.cond(
            chance(chance_seed, self.anomaly_probability),
            lambda: self.corrupt(clean, images, index, anomaly_seed),
            lambda: (clean, tf.zeros(tf.shape(clean)[:2])),
        )
        return augmented, clean, mask


def make_simulation(
    textures: Any,
    anomaly_probability: Any = 1.0,
    opacity: Any = (0.2, 1.0),
    rotation_probability: Any = 0.0,
    max_rotation: Any = 90.0,
    threshold: Any = 0.5,
) -> Simulation:
    """Checks the arguments of a simulation."""
    if textures is None:
        textures = _default_textures()
    elif not isinstance(textures, TextureSource):
        textures = FolderTextures(textures)

    def fraction(value: Any, name: str) -> float:
        return standardize_number(value, name, 0.0, 1.0)

    return Simulation(
        textures,
        fraction(anomaly_probability, "anomaly_probability"),
        standardize_range(opacity, "opacity"),
        fraction(rotation_probability, "rotation_probability"),
        standardize_number(max_rotation, "max_rotation", 0.0, 180.0),
        standardize_number(threshold, "threshold", -1.0, 1.0),
    )


_default_textures = functools.cache(EmbeddedTextures)


def simulate_anomaly(
    image: Any,
    seed: Any,
    textures: Any = None,
    *,
    opacity: Any = (0.2, 1.0),
    threshold: float = 0.5,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Simulates an anomaly in a single image, to look at it.

    See `simulate_anomalies`, of which this is the part that corrupts.

    Args:
        image: Floating point `(height, width, channels)` in [0, 1], of 1 or 3
            channels and at least 32 x 32 pixels.
        seed: Integer, or an integer tensor of shape `(2,)`.
        textures: None, a folder or a `TextureSource`.
        opacity: Least and greatest opacity of the texture.
        threshold: Perlin noise above it belongs to the anomaly.

    Returns:
        The image with the anomaly, float32 `(height, width, channels)`, and the
        mask of it, float32 `(height, width)` of 0 and 1. The mask may be zero
        everywhere; the image is then unchanged.

    Raises:
        ValueError: If an argument is out of range or has a wrong shape.
    """
    simulation = make_simulation(textures, opacity=opacity, threshold=threshold)
    image = tf.convert_to_tensor(image)
    require_images(image.shape, image.dtype, rank=3)
    image = check_size(tf.cast(image, tf.float32))
    seed = standardize_seed(seed)
    return simulation.corrupt(image, image[tf.newaxis], tf.constant(0), seed)
