"""Where the textures of simulated anomalies come from."""

import abc
import functools
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from keras_sspcab.checks import standardize_number
from keras_sspcab.data.batching import read_in_graph
from keras_sspcab.data.checking import check_images
from keras_sspcab.data.decoding import decode_plain
from keras_sspcab.data.image_files import PLAIN_SPEC, plain_reader
from keras_sspcab.data.random import chance, integers, split, uniform
from keras_sspcab.data.resizing import resize
from keras_sspcab.data.scanning import scan_image_folder
from keras_sspcab.data.textures import read_photograph

#: Pictures in scikit-image's wheel.
# fmt: off
PICTURES = (
    "brick", "cell", "chelsea", "coffee", "grass", "gravel",
    "hubble_deep_field", "ihc", "moon", "retina",
)
# fmt: on

# Files of a folder that are decoded at once.
_NUM_CHECKED = 32

# Height and width that the pictures are brought to, in pixels.
_SIDE = 512


class TextureSource(abc.ABC):
    """Draws textures, in graph code; the base class of all sources of them.

    Example:
    >>> class Black(TextureSource):
    ...     def draw(self, images, index, seed):
    ...         return tf.zeros((*images.shape[1:3], 3))
    >>> Black().draw(tf.zeros((1, 32, 32, 3)), 0, None).shape
    TensorShape([32, 32, 3])
    """

    @abc.abstractmethod
    def draw(
        self, images: tf.Tensor, index: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Draws the texture of an anomaly.

        Args:
            images: float32 `(batch, height, width, channels)` in [0, 1].
            index: Which of them is to be changed.
            seed: uint64 tensor of shape `(2,)`.

        Returns:
            float32 tensor `(height, width, 3)`, whole numbers from 0 to 255.
        """

    def draw_picture(
        self, size: tuple[int, int], channels: int, seed: tf.Tensor
    ) -> tf.Tensor:
        """Draws a picture of its own, float32 in [0, 1].

        By default a texture is drawn four times as large and then shrunk, so
        that there is no aliasing; of color, green makes the gray one.
        """
        images = tf.zeros((1, 4 * size[0], 4 * size[1], 3))
        picture = self.draw(images, tf.constant(0), seed) / 255.0
        if channels == 1:
            # Near to gray: the mean of recolored channels would cancel out.
            picture = picture[..., 1:2]
        return tf.ensure_shape(resize(picture, size), (*size, channels))


class FolderTextures(TextureSource):
    """Images below folders, such as the Describable Textures Dataset (DTD).

    An image is decoded when it is needed and resized to the size of the images,
    bilinear without antialiasing, as in DRAEM's code. Of the files, 32 that are
    evenly spread are decoded at once, to find broken ones.

    Args:
        folders: Local folder or URL, or several. Every image below them is a
            texture, at any depth.

    Example:
    >>> FolderTextures("dtd/images").paths  # doctest: +SKIP
    ('dtd/images/banded/banded_0002.jpg', ...)
    """

    def __init__(self, folders: Any) -> None:
        several = isinstance(folders, (list, tuple))
        samples = [
            sample
            for root in (folders if several else [folders])
            for sample in scan_image_folder(root, layout="plain").train
        ]
        if not samples:
            raise ValueError(
                "There must be at least one folder of textures. Received: "
                f"folders={folders!r}"
            )
        chosen = samples[:: -(-len(samples) // _NUM_CHECKED)]
        check_images(chosen)
        self.paths = tuple(sample.path for sample in samples)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FolderTextures) and self.paths == other.paths

    def __hash__(self) -> int:
        return hash(self.paths)

    def draw(
        self, images: tf.Tensor, index: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """See `TextureSource.draw`."""
        pixels = self._decode(seed, 3, tf.uint8)
        resized = tf.image.resize(pixels, tf.shape(images)[1:3])
        return tf.ensure_shape(tf.round(resized), (*images.shape[1:3], 3))

    def draw_picture(
        self, size: tuple[int, int], channels: int, seed: tf.Tensor
    ) -> tf.Tensor:
        """Draws an image, resized as `image_dataset` does it."""
        pixels = self._decode(seed, channels, tf.float32)
        return tf.ensure_shape(resize(pixels, size), (*size, channels))

    def _decode(
        self, seed: tf.Tensor, channels: int, dtype: tf.DType
    ) -> tf.Tensor:
        number = integers(seed, 0, len(self.paths) - 1)
        files = read_in_graph(
            plain_reader(self.paths, channels), number[None], PLAIN_SPEC
        )
        encoded, form = (value[0] for value in files)
        return decode_plain(encoded, form, channels, dtype=dtype)


class EmbeddedTextures(TextureSource):
    """Textures from scikit-image's pictures, where there is no folder of them.

    Random windows of pictures, zoomed, mirrored and in half of the cases
    recolored. Some textures are windows of another image of the batch instead,
    or of the same one where it is alone.

    Args:
        batch_share: Share of the textures that are windows of images of the
            batch, 0 to 1. Defaults to 0.25.

    Example:
    >>> EmbeddedTextures().batch_share
    0.25
    """

    def __init__(self, batch_share: float = 0.25) -> None:
        self.batch_share = standardize_number(batch_share, "batch_share", 0, 1)
        pictures = np.stack([_picture(name) for name in PICTURES])
        self._pictures = tf.constant(pictures)

    def draw(
        self, images: tf.Tensor, index: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """See `TextureSource.draw`."""
        choice_seed, seed = split(seed, 2)
        texture = tf.cond(
            chance(choice_seed, self.batch_share),
            lambda: _window_of_another(images, index, seed),
            lambda: self._window_of_a_picture(tf.shape(images)[1:3], seed),
        )
        return tf.ensure_shape(texture, (*images.shape[1:3], 3))

    def _window_of_a_picture(
        self, size: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        picture_seed, window_seed, *seeds = split(seed, 4)
        picture = integers(picture_seed, 0, len(PICTURES) - 1)
        # In the shape of the images, so that nothing is stretched.
        shape = tf.cast(size, tf.float32)
        shape /= tf.reduce_max(shape)
        sides = shape * uniform(window_seed, 0.25, 1.0)
        window = _crop(self._pictures, picture, sides, size, seeds[0])
        return _recolor(window, seeds[1])


def _window_of_another(
    images: tf.Tensor, index: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    other_seed, window_seed, crop_seed = split(seed, 3)
    count = tf.shape(images)[0]
    step = integers(other_seed, 1, tf.maximum(count - 1, 1))
    other = (index + step) % count
    sides = tf.fill([2], uniform(window_seed, 0.25, 0.75))
    size = tf.shape(images)[1:3]
    window = tf.round(_crop(images, other, sides, size, crop_seed) * 255.0)
    return window if images.shape[-1] == 3 else tf.repeat(window, 3, axis=-1)


def _crop(
    pictures: tf.Tensor,
    index: tf.Tensor,
    sides: tf.Tensor,
    size: tf.Tensor,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Cuts a random window of relative `sides`; half are mirrored each way."""
    place_seed, flip_seed = split(seed, 2)
    first = uniform(place_seed, shape=(2,)) * (1.0 - sides)
    flipped = uniform(flip_seed, shape=(2,)) < 0.5
    begin = tf.where(flipped, first + sides, first)
    end = tf.where(flipped, first, first + sides)
    box = tf.concat([begin, end], 0)
    window = tf.image.crop_and_resize(
        pictures, box[tf.newaxis], index[tf.newaxis], size
    )
    return window[0]


def _recolor(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """In half of the cases, stretches channels between random values."""
    chance_seed, color_seed = split(seed, 2)

    def stretch() -> tf.Tensor:
        dark, light = tf.unstack(uniform(color_seed, shape=(2, 3)))
        return image * (light - dark) + dark * 255.0

    changed = tf.cond(chance(chance_seed, 0.5), stretch, lambda: image)
    return tf.round(changed)


@functools.cache
def _picture(name: str) -> np.ndarray:
    """Reads a picture as RGB; its short side fills a square, centered."""
    kind = "jpg" if name in ("hubble_deep_field", "retina") else "png"
    picture = Image.fromarray(read_photograph(f"{name}.{kind}", "RGB"))
    return np.asarray(ImageOps.fit(picture, (_SIDE, _SIDE)))
