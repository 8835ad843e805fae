import io

import numpy as np
import pytest
from PIL import Image
from video_writing import noise

from keras_sspcab.data import decode_image, resize
from keras_sspcab.data.video import fit_frame


@pytest.mark.parametrize("size", [(24, 40), (9, 7), (31, 50), (60, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_that_of_images_to_one_step(size, channels):
    frame = noise(1, (31, 50), channels)[0]
    fitted = fit_frame(frame, size, channels)
    assert fitted.dtype == np.uint8
    assert fitted.shape == (*size, channels)
    expected = resize(frame, size).numpy() * 255
    assert np.abs(fitted - expected).max() <= 1.5
    assert np.abs(fitted - expected).mean() < 0.5


def test_gray_is_the_luma_of_images():
    frame = noise(1, (31, 50), 3)[0]
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "PNG")
    expected = decode_image(stream.getvalue(), channels=1).numpy()
    gray = fit_frame(frame, None, 1)
    assert np.abs(gray.astype(int) - expected).max() <= 1


def test_palettes_and_alpha_are_decoded():
    frame = noise(1, (4, 5), 3)[0]
    image = Image.fromarray(frame).convert("RGBA")
    np.testing.assert_array_equal(fit_frame(image, None, 3), frame)
    palette = Image.fromarray(frame[..., 0]).convert("P")
    np.testing.assert_array_equal(
        fit_frame(palette, None, 1)[..., 0], frame[..., 0]
    )
