"""Frames of any size and color to the frames that models see."""

from typing import Any

import numpy as np
from PIL import Image

#: Pixels of 16-bit images, as Pillow names them.
_WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def fit_frame(
    frame: Any, image_size: tuple[int, int] | None, channels: int
) -> np.ndarray:
    """Resizes a frame and turns it into gray or color.

    Bilinear with antialiasing, rounded to 8 bits: of the values of
    `keras_sspcab.data.resize`, none differs by more than one step of 255. The
    aspect ratio is not kept.

    Args:
        frame: Pillow image, or uint8 array `(height, width)` or
            `(height, width, 1 or 3)`.
        image_size: Height and width, in pixels; None keeps the frame's.
        channels: 1 for gray (luma of BT.601) or 3 for color.

    Returns:
        uint8 array `(height, width, channels)`.
    """
    image = frame
    if not isinstance(frame, Image.Image):
        pixels = np.asarray(frame)
        image = Image.fromarray(
            pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
        )
    if image.mode in _WIDE_MODES:
        # The upper 8 bits, as `decode_image` takes them.
        wide = np.asarray(image).astype("int64").clip(0, 65535)
        image = Image.fromarray((wide >> 8).astype("uint8"))
    image = image.convert("L" if channels == 1 else "RGB")
    if image_size is not None and image.size != image_size[::-1]:
        image = image.resize(image_size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, channels)
