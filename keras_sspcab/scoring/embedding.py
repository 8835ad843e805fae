"""From embeddings to scores and maps."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.layers import auxiliary_losses_disabled
from keras_sspcab.layers._arguments import standardize_int
from keras_sspcab.scoring.density import Density


@keras.saving.register_keras_serializable(package="keras_sspcab")
class EmbeddingScore(keras.layers.Layer):
    """Scores embeddings by a density, and says what raises the score.

    Args:
        density: A `Density`.
        normalize: Whether embeddings are scaled to unit length first.
        **kwargs: Base layer keyword arguments.

    Call arguments:
        inputs: Tensor `(samples, dimensions)`.

    Output:
        Scores `(samples,)` and their derivatives by the embeddings `(samples,
        dimensions)`, in closed form: exported graphs need no gradients.
    """

    def __init__(
        self, density: Density, normalize: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.density = density
        self.normalize = bool(normalize)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.density.build(input_shape)

    def call(self, inputs: Any) -> tuple[Any, Any]:
        if not self.normalize:
            return self.density(inputs), self.density.gradient(inputs)
        unit, length = _unit(inputs)
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
        return tuple(input_shape[:1]), tuple(input_shape)

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
        weighted = ops.matmul(flat, ops.expand_dims(slope, -1))
        weighted = ops.reshape(weighted, (batch, height, width))
        return ops.relu(weighted) / ops.cast(height * width, "float32")

    def compute_output_shape(
        self,
        features_shape: tuple[int | None, ...],
        slope_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return tuple(features_shape[:-1])


@keras.saving.register_keras_serializable(package="keras_sspcab")
class PatchEmbedding(keras.layers.Layer):
    """Applies a network to all patches of an image.

    Args:
        network: A Keras model from patches to feature maps, which are averaged.
        patch_size: Side of the patches in pixels.
        stride: Distance between two patches in pixels.
        **kwargs: Base layer keyword arguments.

    Call arguments:
        inputs: Tensor `(batch, height, width, channels)`.
        stride: Another stride, or None.

    Output shape:
        `(batch, rows, columns, features)`.
    """

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
        channels = inputs.shape[-1]
        size = self.patch_size
        patches = ops.image.extract_patches(
            inputs,
            size,
            strides=stride or self.stride,
            padding="valid",
            data_format="channels_last",
        )
        batch, rows, columns, _ = ops.shape(patches)
        patches = ops.reshape(patches, (-1, size, size, channels))
        # Blocks have added their loss for the image already.
        with auxiliary_losses_disabled():
            features = self.network(patches, training=False)
        features = ops.mean(features, axis=(1, 2))
        return ops.reshape(features, (batch, rows, columns, features.shape[-1]))

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


@keras.saving.register_keras_serializable(package="keras_sspcab")
class ReceptiveFieldUpsampling(keras.layers.Layer):
    """Spreads the score of each patch over its pixels, by a Gaussian.

    A transposed convolution with one kernel of the size of the patches.

    References:
    - [Liznerski et al., ICLR 2021](https://arxiv.org/abs/2007.01760), and its
      code for the standard deviation of the kernel.

    Args:
        patch_size: Side of the patches in pixels.
        stride: Distance between two patches in pixels.
        **kwargs: Base layer keyword arguments.

    Input shape:
        `(batch, rows, columns)`.

    Output shape:
        `(batch, height, width)`, float32.
    """

    def __init__(
        self, patch_size: int = 32, stride: int = 4, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.patch_size = standardize_int(patch_size, "patch_size", 1)
        self.stride = standardize_int(stride, "stride", 1)

    def call(self, inputs: Any) -> Any:
        kernel = ops.convert_to_tensor(
            gaussian_kernel(self.patch_size)[:, :, None, None], "float32"
        )
        spread = ops.conv_transpose(
            ops.expand_dims(inputs, -1),
            kernel,
            strides=self.stride,
            padding="valid",
            data_format="channels_last",
        )
        return ops.squeeze(spread, -1)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        height, width = (
            side and (side - 1) * self.stride + self.patch_size
            for side in input_shape[1:]
        )
        return (input_shape[0], height, width)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "patch_size": self.patch_size,
            "stride": self.stride,
        }


def gaussian_kernel(size: int) -> np.ndarray:
    """Kernel `(size, size)` that sums to 1, as wide as FCDD has it."""
    std = 10.0 if size >= 32 else np.log10(0.45 * size + 1) + 0.25
    offsets = np.arange(size) - (size - 1) / 2
    window = np.exp(-(offsets**2) / (2 * std**2))
    return np.outer(window, window) / window.sum() ** 2
