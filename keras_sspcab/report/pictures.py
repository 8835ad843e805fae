"""Images, maps and masks, small enough to be part of a page."""

import base64
import io

import numpy as np
from PIL import Image
from skimage import measure

from keras_sspcab.data import image_files, masks
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.report.heat import COLOR_TABLE, LEVELS, heat_levels

# Coarser colors halve the size of the page; no eye tells 64 steps from 256.
_STEPS = 64


def load_photo(
    path: str,
    max_side: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> Image.Image | None:
    """Opens an image file as 8-bit RGB, as the model sees it.

    Returns None if the file is gone or cannot be read.
    """
    try:
        photo = image_files.load_photo(path, preprocessing)
    except ValueError:
        return None
    if max_side is not None:
        photo.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return photo


def load_mask(path: str, size: tuple[int, int]) -> np.ndarray | None:
    """Opens a mask as bool `(height, width)`; None if it cannot be read."""
    try:
        return masks.resize_mask(masks.read_mask(path), size)[0]
    except ValueError:
        return None


def photo_uri(photo: Image.Image) -> str:
    """Returns an image as a JPEG data URI."""
    return _uri(photo, "jpeg", quality=85, optimize=True)


def heat_uri(anomaly_map: np.ndarray, scale: float, max_side: int) -> str:
    """Returns the colors of a map as a transparent PNG data URI."""
    height, width = anomaly_map.shape
    picture = Image.fromarray(anomaly_map.astype("float32"))
    shrink = max_side / max(height, width)
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    levels = heat_levels(np.asarray(picture), scale)
    step = (levels.astype("uint16") * (_STEPS - 1) + LEVELS // 2) // LEVELS
    indexed = Image.fromarray(step.astype("uint8"))
    kept = np.rint(np.linspace(0, LEVELS - 1, _STEPS)).astype(int)
    indexed.putpalette(COLOR_TABLE[kept, :3].tobytes())
    return _uri(
        indexed, "png", optimize=True, transparency=bytes(COLOR_TABLE[kept, 3])
    )


def outline(mask: np.ndarray) -> str:
    """Returns the border of a mask as the `d` of an SVG path, in pixels."""
    padded = np.pad(mask.astype("float32"), 1)
    parts = []
    for contour in measure.find_contours(padded, 0.5):
        corners = measure.approximate_polygon(contour, 0.4) - 0.5
        points = "L".join(f"{column:.1f} {row:.1f}" for row, column in corners)
        parts.append(f"M{points}Z")
    return "".join(parts)


def _uri(image: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind};base64,{encoded}"
