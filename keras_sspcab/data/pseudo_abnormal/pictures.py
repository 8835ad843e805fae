"""Where the appearance of pseudo-abnormal objects comes from."""

import abc
import os
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.checking import check_images
from keras_sspcab.data.decoding import decode_image, resize
from keras_sspcab.data.scanning import scan_image_folder
from keras_sspcab.data.simulation._random import integers
from keras_sspcab.data.simulation.embedded import EmbeddedTextures

# Windows are cut out that much larger and then shrunk: no aliasing.
_OVERSAMPLING = 4


class PictureSource(abc.ABC):
    """Draws pictures of things that are no normal objects, in graph code."""

    @abc.abstractmethod
    def draw(
        self, size: tuple[int, int], channels: int, seed: tf.Tensor
    ) -> tf.Tensor:
        """Draws a picture.

        Args:
            size: Height and width, in pixels.
            channels: 1 for gray or 3 for color.
            seed: uint64 tensor of shape `(2,)`.

        Returns:
            float32 tensor `(height, width, channels)` in [0, 1].
        """


class FolderPictures(PictureSource):
    """Images below one or several folders, each as likely as any other.

    The framework's authors take UIUC textures, Oxford flowers, anime faces and
    68 classes of Tiny ImageNet (`tiny_imagenet_folders`). An image is decoded
    when it is needed and resized to the crop, whatever its aspect ratio.

    Args:
        folders: Local folder or URL, or several. Every image below them is a
            picture, at any depth.
        checked: How many files are decoded at once, evenly spread, to find
            broken ones; None for all. Defaults to 32.
        on_error: `"raise"`, or `"skip"` to leave out broken files among the
            checked ones and warn with their names.

    Raises:
        ValueError: If there is no folder, one does not exist, or one holds no
            images.
        BadImagesError: If checked files cannot be decoded, with their names.
    """

    def __init__(
        self,
        folders: Any,
        checked: int | None = 32,
        on_error: str = "raise",
    ) -> None:
        single = isinstance(folders, (str, os.PathLike))
        roots = [folders] if single else list(folders)
        if not roots:
            raise ValueError(
                "There must be at least one folder of pictures. Received: "
                f"folders={folders!r}"
            )
        samples = [
            sample
            for root in roots
            for sample in scan_image_folder(root, layout="plain").train
        ]
        chosen = samples
        if checked is not None:
            checked = standardize_int(checked, "checked", 1)
            chosen = samples[:: -(-len(samples) // checked)]
        good = check_images(chosen, on_error=on_error, progress=checked is None)
        bad = {s.path for s in chosen} - {s.path for s in good}
        self.paths = tuple(s.path for s in samples if s.path not in bad)

    def draw(
        self, size: tuple[int, int], channels: int, seed: tf.Tensor
    ) -> tf.Tensor:
        """See `PictureSource.draw`."""
        paths = tf.constant(self.paths)
        path = paths[integers(seed, 0, len(self.paths) - 1)]
        pixels = decode_image(tf.io.read_file(path), channels)
        return tf.ensure_shape(resize(pixels, size), (*size, channels))


class EmbeddedPictures(PictureSource):
    """Pictures for where no folder of them is given; nothing is downloaded.

    Random windows, from a quarter of the side of a picture to all of it, of
    photographs of things and textures that are part of scikit-image; mirrored,
    and in half of the cases recolored. There are ten pictures only: enough to
    show how the training works, few for a result that counts.

    Args:
        exclude: Names of pictures to leave out, of
            `keras_sspcab.data.simulation.PICTURES`.

    Raises:
        ValueError: If a name is unknown or no picture is left.
    """

    def __init__(self, exclude: Iterable[str] = ()) -> None:
        self._textures = EmbeddedTextures(exclude, batch_share=0.0)

    def draw(
        self, size: tuple[int, int], channels: int, seed: tf.Tensor
    ) -> tf.Tensor:
        """See `PictureSource.draw`."""
        height, width = (_OVERSAMPLING * side for side in size)
        # It looks at the size of the batch alone.
        batch = tf.zeros((1, height, width, 3))
        window = self._textures.draw(batch, tf.constant(0), seed) / 255.0
        if channels == 1:
            # Green, near to gray: recolored channels would cancel out.
            window = window[..., 1:2]
        return tf.ensure_shape(resize(window, size), (*size, channels))


def standardize_pictures(images: Any) -> PictureSource:
    """Returns the source of pictures that an argument stands for.

    Args:
        images: A `PictureSource`; a folder or several; or None for
            `EmbeddedPictures()`.
    """
    if isinstance(images, PictureSource):
        return images
    if images is None:
        return EmbeddedPictures()
    if isinstance(images, (str, os.PathLike, tuple, list)):
        return FolderPictures(images)
    raise ValueError(
        "The `images` argument must be a folder, a list of folders, a "
        f"PictureSource or None. Received: images={images!r}"
    )
