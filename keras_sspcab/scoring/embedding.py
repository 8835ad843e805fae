"""From embeddings to scores and maps."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_int
from keras_sspcab.layers import auxiliary_losses_disabled
from keras_sspcab.scoring.density import Density


@keras.saving.register_keras_serializable(package="keras_sspcab")
class EmbeddingScore(keras.layers.Layer):
    """Scores embeddings by a density, and says what raises the score.

    Args:
        density: A `Density`.
        normalize: Whether embeddings are scaled to unit length first.
        **kwargs: Base layer keyword arguments.

    Call arguments:
        inputs: Tensor `(..., dimensions)`, such as one embedding an image or
            one for each of its patches.

    Output:
        Scores `(...)` and their derivatives by the embeddings `(...,
        dimensions)`, in closed form: exported graphs need no gradients.
    """

    def __init__(
        self, density: Density, normalize: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.density = density
        self.normalize = bool(normalize)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.density.build((None, input_shape[-1]))

    def call(self, inputs: Any) -> tuple[Any, Any]:
        shape = ops.shape(inputs)
        scores, slopes = self._score(ops.reshape(inputs, (-1, shape[-1])))
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

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
        return tuple(input_shape[:-1]), tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "density": keras.saving.serialize_keras_object(self.density),
            "normalize": self.normalize,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "EmbeddingScore":
        density = keras.saving.deserialize_keras_object(config.pop("density"))
        return cls(density, **config)


def _unit(embeddings: Any) -> tuple[Any, Any]:
    """Returns embeddings of unit length, and their lengths before."""
    squares = ops.sum(ops.square(embeddings), axis=-1, keepdims=True)
    length = ops.sqrt(ops.maximum(squares, keras.config.epsilon() ** 2))
    return embeddings / length, length


@keras.saving.register_keras_serializable(package="keras_sspcab")
class GradCAM(keras.layers.Layer):
    """Gradient-weighted class activation map of a globally pooled network.

    Where the score depends on a feature map only through its mean over all
    places, its derivative is the same at all of them: that by the pooled
    features divided by the number of places. The map is the sum of the channels
    with these weights, negative parts cut off.

    References:
    - [Selvaraju et al., ICCV 2017](https://arxiv.org/abs/1610.02391)

    Call arguments:
        features: Tensor `(batch, height, width, channels)`.
        slope: Derivative of the score by the pooled features, `(batch,
            channels)`.

    Output shape:
        `(batch, height, width)`, float32.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, features: Any, slope: Any) -> Any:
        batch, height, width, channels = ops.shape(features)
        flat = ops.reshape(features, (batch, height * width, channels))
        slope = ops.expand_dims(slope, -1)
        weighted = ops.matmul(flat, slope)
        # A score that does not depend on the length of the features has a map
        # that sums to zero: with a single place, all of it is rounding.
        rounding = 1e-5 * ops.matmul(ops.absolute(flat), ops.absolute(slope))
        weighted = ops.where(weighted > rounding, weighted, 0.0)
        weighted = ops.reshape(weighted, (batch, height, width))
        return weighted / ops.cast(height * width, self.compute_dtype)

    def compute_output_shape(
        self,
        features_shape: tuple[int | None, ...],
        slope_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return tuple(features_shape[:-1])


@keras.saving.register_keras_serializable(package="keras_sspcab")
class PatchEmbedding(keras.layers.Layer):
    """Applies a network to all patches of an image.

    All patches of a batch are worked at together. They are many: of an image of
    256 x 256, 3,249 patches of 32 x 32 take 0.2 GB for each map of 64 channels
    behind the first convolution of a ResNet-18. Keep batches small.

    Args:
        network: A Keras model from patches to feature maps, which are averaged.
        patch_size: Side of the patches in pixels.
        stride: Distance between two patches in pixels. Pixels at the lower and
            right border that do not fill a step lie in no patch.
        **kwargs: Base layer keyword arguments.

    Call arguments:
        inputs: Tensor `(batch, height, width, channels)`.
        stride: Another stride, or None.

    Output shape:
        `(batch, rows, columns, features)`, float32.
    """

    def __init__(
        self,
        network: keras.Model,
        patch_size: int = 32,
        stride: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.network = network
        self.patch_size = standardize_int(patch_size, "patch_size", 1)
        self.stride = standardize_int(stride, "stride", 1)

    def call(self, inputs: Any, stride: int | None = None) -> Any:
        _require_size(inputs.shape, self.patch_size)
        patches, grid = _patches(inputs, self.patch_size, stride or self.stride)
        # Blocks have added their loss for the image already.
        with auxiliary_losses_disabled():
            features = self.network(patches, training=False)
        features = ops.mean(ops.cast(features, self.compute_dtype), axis=(1, 2))
        return ops.reshape(features, (*grid, features.shape[-1]))

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        rows, columns = (
            side and (side - self.patch_size) // self.stride + 1
            for side in input_shape[1:3]
        )
        return (input_shape[0], rows, columns, self.network.output_shape[-1])

    def compute_output_spec(
        self, inputs: Any, stride: int | None = None
    ) -> Any:
        return keras.KerasTensor(
            self.compute_output_shape(inputs.shape), self.compute_dtype
        )


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
    patches = ops.reshape(
        patches, (batch * rows, size, columns, size * channels)
    )
    patches = ops.transpose(patches, (0, 2, 1, 3))
    return (
        ops.reshape(patches, (-1, size, size, channels)),
        (batch, rows, columns),
    )


def _require_size(shape: tuple[int | None, ...], minimum: int) -> None:
    if any(side is not None and side < minimum for side in shape[1:3]):
        raise ValueError(
            f"Images must have at least {minimum} x {minimum} pixels, the size "
            f"of a patch. Received: images of shape {tuple(shape)}"
        )


@keras.saving.register_keras_serializable(package="keras_sspcab")
class ReceptiveFieldUpsampling(keras.layers.Layer):
    """Spreads the score of each patch over its pixels, by a Gaussian.

    A transposed convolution with one kernel of the size of the patches, divided
    by that of ones: a pixel gets the weighted mean of the scores of the patches
    in which it lies, also at the border, where these are fewer. As the kernel
    is separable, the whole is two products of matrices.

    References:
    - [Liznerski et al., ICLR 2021](https://arxiv.org/abs/2007.01760), and its
      code for the standard deviation of the kernel.

    Args:
        patch_size: Side of the patches in pixels.
        stride: Distance between two patches in pixels.
        **kwargs: Base layer keyword arguments.

    Call arguments:
        inputs: Scores of patches, `(batch, rows, columns)`.
        image: The image that they were cut from, `(batch, height, width,
            channels)`. Pixels that lie in no patch are like their neighbors.

    Output shape:
        `(batch, height, width)`, float32.
    """

    def __init__(
        self, patch_size: int = 32, stride: int = 4, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.patch_size = standardize_int(patch_size, "patch_size", 1)
        self.stride = standardize_int(stride, "stride", 1)

    def call(self, inputs: Any, image: Any) -> Any:
        _, rows, columns = ops.shape(inputs)
        _, height, width, _ = ops.shape(image)
        spread = ops.matmul(self._shares(height, rows), inputs)
        return ops.matmul(spread, ops.transpose(self._shares(width, columns)))

    def _shares(self, side: Any, count: Any) -> Any:
        """Shares of the patches along an axis in each pixel."""
        covered = (count - 1) * self.stride + self.patch_size
        pixels = ops.minimum(ops.arange(side), covered - 1)
        dtype = self.compute_dtype
        centers = ops.cast(ops.arange(count) * self.stride, dtype)
        centers = centers + (self.patch_size - 1) / 2
        distances = ops.expand_dims(ops.cast(pixels, dtype), 1) - centers
        squares = ops.square(distances / gaussian_std(self.patch_size))
        inside = ops.absolute(distances) < self.patch_size / 2
        shares = ops.where(inside, ops.exp(-squares / 2), 0.0)
        return shares / ops.sum(shares, axis=1, keepdims=True)

    def compute_output_shape(
        self,
        inputs_shape: tuple[int | None, ...],
        image_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return (inputs_shape[0], *image_shape[1:3])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "patch_size": self.patch_size,
            "stride": self.stride,
        }


def gaussian_std(size: int) -> float:
    """Standard deviation, in pixels, that FCDD gives a kernel of `size`."""
    return 10.0 if size >= 32 else math.log10(0.45 * size + 1) + 0.25
