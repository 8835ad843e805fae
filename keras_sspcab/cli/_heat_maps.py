"""Pictures of images with their anomaly maps on top."""

from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_sspcab.data import decode_image
from keras_sspcab.report import overlay
from keras_sspcab.runs import files
from keras_sspcab.scoring import Calibration


def write_heat_map(
    path: str, image_path: str, anomaly_map: Any, calibration: Calibration
) -> None:
    """Writes a PNG of an image, in its own size, with its map on top.

    The colors do not depend on the image: the scale ends at twice the
    threshold of pixels, so that normal images stay as they are.

    Args:
        path: The PNG to write.
        image_path: The image.
        anomaly_map: Array `(height, width)` in standard deviations.
        calibration: That of the model; without one, the scale ends at the
            map's maximum.
    """
    pixels = decode_image(tf.io.read_file(image_path), 3).numpy()
    threshold = calibration.pixel_threshold or 0.0
    scale = 2 * threshold if threshold > 0 else float(np.max(anomaly_map))
    picture = overlay(pixels, anomaly_map, max(scale, 1e-6))
    with files.replacing(path) as temporary:
        Image.fromarray(picture).save(temporary)
