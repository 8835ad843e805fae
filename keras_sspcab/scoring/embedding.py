"""Embeddings of images and of their patches, and their scores."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_int
from keras_sspcab.layers import auxiliary_losses_disabled
from keras_sspcab.layers.base import Shape
from keras_sspcab.scoring.base import ScoringLayer
from keras_sspcab.scoring.density import Density


@keras.saving.register_keras_serializable(package="keras_sspcab")
class EmbeddingScore(ScoringLayer):
    """Scores embeddings by a density, and says what raises the score.

    Args:
        density: A `Density`.
        normalize: Whether embeddings are scaled to unit length first.

    Call arguments:
        inputs: Tensor `(..., dimensions)`, such as one embedding an image or
            one for each of its patches.

    Output:
        Scores `(...)` and their derivatives by the embeddings `(...,
        dimensions)`, in closed form: exported graphs need no gradients.

    Example:
    >>> layer = EmbeddingScore(GaussianDensity(), normalize=True)
    >>> layer.build((None, 4))
    >>> layer.fit(np.random.rand(20, 4))
    >>> scores, slopes = layer(np.random.rand(5, 4))
    >>> tuple(scores.shape), tuple(slopes.shape)
    ((5,), (5, 4))
    """

    def __init__(
        self, density: Density, normalize: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.density = density
        self.normalize = bool(normalize)

    def build(self, input_shape: Shape) -> None:
        # That of a saved layer is built already.
        if not self.density.built:
            self.density.build((None, input_shape[-1]))

    def call(self, inputs: Any) -> tuple[Any, Any]:
        shape = ops.shape(inputs)
        embeddings = ops.reshape(inputs, (-1, shape[-1]))
        embeddings = ops.cast(embeddings, self.density.compute_dtype)
        scores, slopes = (
            ops.cast(values, self.compute_dtype)
            for values in self._score(embeddings)
        )
        return ops.reshape(scores, shape[:-1]), ops.reshape(slopes, shape)

    def _score(self, embeddings: Any) -> tuple[Any, Any]:
        if not self.normalize:
            return self.density(embeddings), self.density.gradient(embeddings)
        unit, length = _unit(embeddings)
        slope = self.density.gradient(unit)
        # What changes the length alone does not change the score.
        along = ops.sum(slope * unit, axis=-1, keepdims=True)
        return self.density(unit), (slope - along * unit) / length

    def fit(self, embeddings: Any) -> None:
        """Fits the density to embeddings `(samples, dimensions)`."""
        if self.normalize:
            embeddings, _ = _unit(np.asarray(embeddings, "float32"))
        self.density.fit(ops.convert_to_numpy(embeddings))

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape]:
        return tuple(input_shape[:-1]), tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "density": keras.saving.serialize_keras_object(self.density),
            "normalize": self.normalize,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "EmbeddingScore":
        density = keras.saving.deserialize_keras_object(config["density"])
        return cls(**{**config, "density": density})


def _unit(embeddings: Any) -> tuple[Any, Any]:
    """Returns embeddings of unit length, and their lengths before."""
    squares = ops.sum(ops.square(embeddings), axis=-1, keepdims=True)
    length = ops.sqrt(ops.maximum(squares, keras.config.epsilon() ** 2))
    return embeddings / length, length


@keras.saving.register_keras_serializable(package="keras_sspcab")
class PatchEmbedding(ScoringLayer):
    """Applies a network to all patches of an image.

    All patches of a batch are worked at together. They are many: keep batches
    small.

    Args:
        network: A Keras model from patches to feature maps, which are averaged.
        patch_size: Side of the patches in pixels.
        stride: Distance between two patches in pixels. Pixels at the lower and
            right border that do not fill a step lie in no patch.

    Call arguments:
        inputs: Tensor `(batch, height, width, channels)`.
        stride: Another stride, or None.

    Output shape:
        `(batch, rows, columns, features)`, float32.

    Example:
    >>> image = keras.Input((None, None, 3))
    >>> network = keras.Model(image, keras.layers.Conv2D(4, 3)(image))
    >>> embedding = PatchEmbedding(network, patch_size=8, stride=4)
    >>> tuple(embedding(np.zeros((1, 24, 24, 3))).shape)
    (1, 5, 5, 4)
    """

    config_names = ("patch_size", "stride")

    def __init__(
        self,
        network: keras.Model,
        patch_size: int = 32,
        stride: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.network = network
        self.patch_size = standardize_int(patch_size, "patch_size", 1)
        self.stride = standardize_int(stride, "stride", 1)

    def call(self, inputs: Any, stride: int | None = None) -> Any:
        size = self.patch_size
        if any(side is not None and side < size for side in inputs.shape[1:3]):
            raise ValueError(
                f"Images must have at least {size} x {size} pixels, the size "
                f"of a patch. Received: images of shape {tuple(inputs.shape)}"
            )
        patches, grid = _patches(inputs, self.patch_size, stride or self.stride)
        # Blocks have added their loss for the image already.
        with auxiliary_losses_disabled():
            features = self.network(patches, training=False)
        features = ops.mean(ops.cast(features, self.compute_dtype), axis=(1, 2))
        return ops.reshape(features, (*grid, features.shape[-1]))

    def compute_output_shape(
        self, input_shape: Shape, stride: int | None = None
    ) -> Shape:
        rows, columns = (
            side and (side - self.patch_size) // (stride or self.stride) + 1
            for side in input_shape[1:3]
        )
        return (input_shape[0], rows, columns, self.network.output_shape[-1])

    def compute_output_spec(
        self, inputs: Any, stride: int | None = None
    ) -> Any:
        shape = self.compute_output_shape(inputs.shape, stride)
        return keras.KerasTensor(shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        network = keras.saving.serialize_keras_object(self.network)
        return {**super().get_config(), "network": network}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PatchEmbedding":
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


def _patches(
    images: Any, size: int, stride: int
) -> tuple[Any, tuple[Any, ...]]:
    """Cuts images into patches; returns them, and batch, rows and columns.

    By gathering: as a convolution, which `ops.image.extract_patches` is, it
    would take a kernel of 38 MB for color patches of 32 x 32.
    """
    batch, height, width, channels = ops.shape(images)
    rows = (height - size) // stride + 1
    columns = (width - size) // stride + 1

    def places(count: Any) -> Any:
        starts = ops.expand_dims(ops.arange(count) * stride, 1)
        return ops.reshape(starts + ops.arange(size), (-1,))

    bands = ops.take(images, places(rows), axis=1)
    bands = ops.reshape(bands, (batch * rows, size, width, channels))
    patches = ops.take(bands, places(columns), axis=2)
    split = batch * rows, size, columns, size * channels
    patches = ops.transpose(ops.reshape(patches, split), (0, 2, 1, 3))
    patches = ops.reshape(patches, (-1, size, size, channels))
    return patches, (batch, rows, columns)
