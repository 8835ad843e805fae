"""Layers that enlarge a map to the size of an image."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_int, standardize_number
from keras_sspcab.layers.base import Shape
from keras_sspcab.scoring.base import ScoringLayer


class _SeparableUpsampling(ScoringLayer):
    """Upsampling as two products of matrices, one for each axis."""

    def call(self, inputs: Any, image: Any) -> Any:
        _, rows, columns = ops.shape(inputs)
        _, height, width, _ = ops.shape(image)
        enlarged = ops.matmul(self._shares(height, rows), inputs)
        return ops.matmul(enlarged, ops.transpose(self._shares(width, columns)))

    def _shares(self, side: Any, count: Any) -> Any:
        """Returns the shares of the values along an axis in each pixel."""
        raise NotImplementedError

    def compute_output_shape(
        self, inputs_shape: Shape, image_shape: Shape
    ) -> Shape:
        return (inputs_shape[0], *image_shape[1:3])


@keras.saving.register_keras_serializable(package="keras_sspcab")
class MapUpsampling(_SeparableUpsampling):
    """Enlarges a coarse map to the size of an image, and smooths it.

    Bilinear interpolation that aligns the outer edges of the pixels, then a
    Gaussian filter, beyond the border of which the map goes on as it is there.

    Args:
        sigma: Standard deviation of the Gaussian, in pixels of the image. It is
            cut off at four of them. 0 does not smooth. Defaults to 4.

    Call arguments:
        inputs: Tensor `(batch, rows, columns)`.
        image: Tensor `(batch, height, width, channels)` of the size wanted.

    Output shape:
        `(batch, height, width)`, float32.

    Example:
    >>> coarse, image = np.random.rand(1, 4, 4), np.zeros((1, 32, 32, 3))
    >>> tuple(MapUpsampling(sigma=2)(coarse, image).shape)
    (1, 32, 32)
    """

    config_names = ("sigma",)

    def __init__(self, sigma: float = 4.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sigma = standardize_number(sigma, "sigma")

    def _shares(self, side: Any, count: Any) -> Any:
        """Shares of the values along an axis in each pixel."""
        is_known = isinstance(side, int) and isinstance(count, int)
        # Constants in the graph, instead of operations that make them.
        shares = self._matrix(side, count, np if is_known else ops)
        return ops.convert_to_tensor(shares, self.compute_dtype)

    def _matrix(self, side: Any, count: Any, library: Any) -> Any:
        radius = int(4 * self.sigma + 0.5)
        # Beyond the border as well, where it is like the last pixel.
        dtype = self.compute_dtype
        pixels = library.arange(-radius, side + radius, dtype=dtype)
        values = library.arange(count, dtype=dtype)
        last_pixel = library.max(pixels) - radius
        last_value = library.max(values)
        nearest = library.clip(pixels, 0.0, last_pixel)
        source = (nearest + 0.5) * ((last_value + 1.0) / (last_pixel + 1.0))
        source = library.clip(source - 0.5, 0.0, last_value)
        distances = library.abs(source[:, None] - values)
        bilinear = library.maximum(1.0 - distances, 0.0)
        if not radius:
            return bilinear
        distances = pixels[radius:-radius, None] - pixels
        inside = library.abs(distances) < radius + 0.5
        weights = library.exp(-library.square(distances / self.sigma) / 2)
        weights = library.where(inside, weights, 0.0)
        weights = weights / library.sum(weights, axis=1, keepdims=True)
        return library.matmul(weights, bilinear)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class ReceptiveFieldUpsampling(_SeparableUpsampling):
    """Spreads the score of each patch over its pixels, by a Gaussian.

    A transposed convolution with one kernel of the size of the patches, divided
    by that of ones: a pixel gets the weighted mean of the scores of the patches
    in which it lies.

    References:
    - [Liznerski et al., ICLR 2021](https://arxiv.org/abs/2007.01760), and its
      code for the standard deviation of the kernel.

    Args:
        patch_size: Side of the patches in pixels.
        stride: Distance between two patches in pixels.

    Call arguments:
        inputs: Scores of patches, `(batch, rows, columns)`.
        image: The image that they were cut from, `(batch, height, width,
            channels)`. Pixels that lie in no patch are like their neighbors.

    Output shape:
        `(batch, height, width)`, float32.

    Example:
    >>> scores, image = np.random.rand(1, 5, 5), np.zeros((1, 24, 24, 3))
    >>> upsampling = ReceptiveFieldUpsampling(patch_size=8, stride=4)
    >>> tuple(upsampling(scores, image).shape)
    (1, 24, 24)
    """

    config_names = ("patch_size", "stride")

    def __init__(
        self, patch_size: int = 32, stride: int = 4, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.patch_size = standardize_int(patch_size, "patch_size", 1)
        self.stride = standardize_int(stride, "stride", 1)

    def _shares(self, side: Any, count: Any) -> Any:
        """Shares of the patches along an axis in each pixel."""
        covered = (count - 1) * self.stride + self.patch_size
        pixels = ops.minimum(ops.arange(side), covered - 1)
        if self.stride > self.patch_size:
            # Those between two patches are like the nearest one that is in one.
            place = ops.mod(pixels, self.stride)
            to_last, to_next = place - self.patch_size + 1, self.stride - place
            step = ops.where(to_last <= to_next, -to_last, to_next)
            pixels = ops.where(place < self.patch_size, pixels, pixels + step)
        dtype = self.compute_dtype
        centers = ops.cast(ops.arange(count) * self.stride, dtype)
        centers = centers + (self.patch_size - 1) / 2
        distances = ops.expand_dims(ops.cast(pixels, dtype), 1) - centers
        squares = ops.square(distances / _gaussian_std(self.patch_size))
        inside = ops.absolute(distances) < self.patch_size / 2
        shares = ops.where(inside, ops.exp(-squares / 2), 0.0)
        return shares / ops.sum(shares, axis=1, keepdims=True)


def _gaussian_std(size: int) -> float:
    """Standard deviation, in pixels, that FCDD gives a kernel of `size`."""
    return 10.0 if size >= 32 else math.log10(0.45 * size + 1) + 0.25
