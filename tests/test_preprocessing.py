import dataclasses

import pytest

from keras_sspcab.preprocessing import Preprocessing


@pytest.mark.parametrize(
    ("brightest", "white_level"),
    [
        (0, 255),
        (255, 255),
        (256, 1023),
        (1024, 4095),
        (4096, 16383),
        (16384, 65535),
        (65535, 65535),
    ],
)
def test_the_white_level_covers_the_brightest_value(brightest, white_level):
    assert Preprocessing.covering(brightest) == Preprocessing(white_level)


def test_fields_travel_as_plain_values():
    kept = Preprocessing(4095, "opencv")
    assert Preprocessing(**kept.to_dict()) == kept
    assert Preprocessing() == Preprocessing(65535, "bilinear")
    with pytest.raises(dataclasses.FrozenInstanceError):
        kept.white_level = 255


@pytest.mark.parametrize("white_level", [0, 4096, 70000, "4095", None])
def test_white_levels_are_checked(white_level):
    with pytest.raises(ValueError, match="1023, 4095, 16383, 65535"):
        Preprocessing(white_level)


@pytest.mark.parametrize("method", ["linear", "cv2", "", None, 1])
def test_methods_are_checked(method):
    with pytest.raises(ValueError, match=r"bilinear.*area.*opencv"):
        Preprocessing(resize=method)
