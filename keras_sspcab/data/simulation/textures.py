"""Where the textures of simulated anomalies come from."""

import abc
from typing import Any

import tensorflow as tf

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.file_system import (
    describe_folder,
    join,
    list_files,
    require_folder,
    standardize_path,
)
from keras_sspcab.data.checking import check_images
from keras_sspcab.data.decoding import decode_image
from keras_sspcab.data.folder import ImageSample
from keras_sspcab.data.scanning import IMAGE_EXTENSIONS
from keras_sspcab.data.simulation._random import integers


class TextureSource(abc.ABC):
    """Draws textures, in graph code."""

    @abc.abstractmethod
    def draw(
        self, images: tf.Tensor, index: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Draws the texture of an anomaly.

        Args:
            images: float32 `(batch, height, width, channels)` in [0, 1]: the
                images among which is the one to be changed.
            index: Its place in the batch.
            seed: Integer tensor of shape `(2,)`.

        Returns:
            float32 tensor `(height, width, 3)`, whole numbers from 0 to 255.
        """


class FolderTextures(TextureSource):
    """Images below a folder, such as the Describable Textures Dataset (DTD).

    An image is decoded when it is needed and resized to the size of the images,
    bilinear without antialiasing, as in DRAEM's code.

    Args:
        root: Local folder or URL. Every image below it is a texture, at any
            depth.
        checked: How many files are decoded at once, evenly spread, to find
            broken ones; None for all. Defaults to 32.
        on_error: `"raise"`, or `"skip"` to leave out broken files among the
            checked ones and warn with their names.

    Raises:
        ValueError: If the folder does not exist or holds no images.
        BadImagesError: If checked files cannot be decoded, with their names.
    """

    def __init__(
        self, root: Any, checked: int | None = 32, on_error: str = "raise"
    ) -> None:
        root = standardize_path(root, "textures")
        require_folder(root)
        paths = [
            join(root, file)
            for file in list_files(root)
            if file.lower().endswith(IMAGE_EXTENSIONS)
        ]
        if not paths:
            raise ValueError(
                "There is no image below the folder of textures. Received: "
                f"textures={root!r}, which holds {describe_folder(root)}. "
                f"Accepted extensions: {' '.join(IMAGE_EXTENSIONS)}"
            )
        chosen = paths
        if checked is not None:
            checked = standardize_int(checked, "checked", 1)
            chosen = paths[:: -(-len(paths) // checked)]
        samples = [ImageSample(path) for path in chosen]
        good = check_images(
            samples, channels=3, on_error=on_error, progress=checked is None
        )
        bad = set(chosen) - {sample.path for sample in good}
        self.paths = tuple(path for path in paths if path not in bad)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FolderTextures) and self.paths == other.paths

    def __hash__(self) -> int:
        return hash(self.paths)

    def draw(
        self, images: tf.Tensor, index: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """See `TextureSource.draw`."""
        del index
        paths = tf.constant(self.paths)
        path = paths[integers(seed, 0, len(self.paths) - 1)]
        pixels = decode_image(tf.io.read_file(path), channels=3)
        resized = tf.image.resize(pixels, tf.shape(images)[1:3])
        return tf.ensure_shape(tf.round(resized), (*images.shape[1:3], 3))
