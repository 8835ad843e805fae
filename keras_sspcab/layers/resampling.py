"""Rotating and shifting images and maps."""

import math
from typing import Any

import keras
from keras import ops

from keras_sspcab.checks import standardize_number
from keras_sspcab.layers.base import ConfigLayer, Shape


@keras.saving.register_keras_serializable(package="keras_sspcab")
class RigidResampling(ConfigLayer):
    """Rotates and shifts images or maps, by bilinear interpolation.

    A transform, two rows of three numbers, takes a pixel `(x, y, 1)` of the
    output to the place `(x, y)` of the input that it is read from, as that of
    `cv2.warpAffine` with `WARP_INVERSE_MAP` does. Those of `ImageRegistration`
    make aligned images of images; with `inverse=True` maps of aligned images
    are moved back to where the images have what they show.

    Args:
        inverse: Whether to undo the transforms. Defaults to False.
        fill_value: What pixels get that lie outside of the input. None (the
            default) repeats its border.

    Call arguments:
        inputs: Tensor `(batch, height, width)` or `(batch, height, width,
            channels)`.
        transforms: Tensor `(batch, 2, 3)`: rotations and shifts, in pixels.

    Output shape:
        That of the inputs; float32, whatever the dtype policy.

    Example:
    >>> maps = np.arange(9.0).reshape(1, 3, 3)
    >>> shift = np.array([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
    >>> moved = RigidResampling(fill_value=-1)(maps, shift)
    >>> ops.convert_to_numpy(moved)[0]
    array([[ 1.,  2., -1.],
           [ 4.,  5., -1.],
           [ 7.,  8., -1.]], dtype=float32)
    """

    config_names = ("inverse", "fill_value")
    # Half precision cannot tell the pixels of a large image apart.
    default_dtype = "float32"

    def __init__(
        self,
        inverse: bool = False,
        fill_value: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.inverse = bool(inverse)
        self.fill_value = fill_value
        if fill_value is not None:
            self.fill_value = standardize_number(
                fill_value, "fill_value", -math.inf
            )

    def call(self, inputs: Any, transforms: Any) -> Any:
        is_image = len(inputs.shape) == 4
        x = ops.cast(inputs, self.compute_dtype)
        cos, sin = transforms[:, 0, 0], transforms[:, 1, 0]
        right, down = transforms[:, 0, 2], transforms[:, 1, 2]
        if self.inverse:
            right, down = (
                -(cos * right + sin * down),
                sin * right - cos * down,
            )
            sin = -sin
        x = resample_rigidly(
            x if is_image else x[..., None],
            (cos, sin, right, down),
            self.fill_value,
        )
        return x if is_image else x[..., 0]

    def compute_output_shape(
        self, inputs_shape: Shape, transforms_shape: Shape
    ) -> Shape:
        return tuple(inputs_shape)


def resample_rigidly(
    images: Any, pose: tuple[Any, Any, Any, Any], fill_value: Any = None
) -> Any:
    """Reads pixels `(x, y)` of images, which have channels, elsewhere.

    With a pose `(cos, sin, right, down)`, one of each for every image, at
    `(cos x - sin y + right, sin x + cos y + down)`.
    """
    batch, height, width, channels = ops.shape(images)
    dtype = images.dtype
    cos, sin, right, down = (part[:, None, None] for part in pose)
    x = ops.cast(ops.arange(width), dtype)[None, None, :]
    y = ops.cast(ops.arange(height), dtype)[None, :, None]
    columns, rows = cos * x - sin * y + right, sin * x + cos * y + down
    last_column = ops.cast(width - 1, dtype)
    last_row = ops.cast(height - 1, dtype)
    column = ops.clip(columns, 0.0, last_column)
    row = ops.clip(rows, 0.0, last_row)
    left, top = ops.floor(column), ops.floor(row)
    right_share, bottom_share = (column - left)[..., None], row - top
    left, top = ops.cast(left, "int32"), ops.cast(top, "int32")

    # One gather from all images: every format of export has that.
    pixels = ops.reshape(images, (-1, channels))
    first = ops.arange(batch, dtype="int32")[:, None, None] * (height * width)
    right = ops.minimum(left + 1, width - 1)

    def read(row: Any) -> Any:
        start = first + row * width
        at_left = ops.take(pixels, start + left, axis=0)
        at_right = ops.take(pixels, start + right, axis=0)
        return at_left + (at_right - at_left) * right_share

    above, below = read(top), read(ops.minimum(top + 1, height - 1))
    result = above + (below - above) * bottom_share[..., None]
    if fill_value is None:
        return result
    outside = ops.maximum(ops.abs(columns - column), ops.abs(rows - row))
    # A turn and the same back are not exact.
    is_outside = (outside > 1e-3)[..., None]
    return ops.where(is_outside, ops.cast(fill_value, dtype), result)
