"""Checks of arguments that hosts share."""

import pytest

from keras_sspcab.hosts import (
    check_clip_shape,
    check_input_shape,
    check_places,
    check_weights,
)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((64, 64), {}, "must be .height, width, channels."),
        ((64, 64, None), {}, "known channels"),
        ((0, 64, 1), {}, "must be positive"),
        ((100, 64, 3), {"multiple_of": 8}, "a multiple of 8.*100, 64, 3"),
        ((8, 64, 3), {"multiple_of": 8, "minimum": 16}, "at least 16 and a m"),
        ((31, 64, 3), {"minimum": 32}, "must each be at least 32. Received"),
        ((None, 64, 1), {"needs_size": "why"}, "known: why.*None, 64, 1"),
    ],
)
def test_shapes_of_images(shape, options, message):
    with pytest.raises(ValueError, match=message):
        check_input_shape(shape, **options)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((64, 64, 3), {}, "frames, height, width, channels"),
        ((None, 64, 64, 3), {}, "known number of frames"),
        ((1, 64, 64, 3), {}, "two frames or more"),
        ((5, 64, 64, 3), {"single": True}, "one frame"),
        ((3, 100, 64, 3), {"multiple_of": 8}, "a multiple of 8.*100, 64, 3"),
    ],
)
def test_shapes_of_clips(shape, options, message):
    with pytest.raises(ValueError, match=message):
        check_clip_shape(shape, **options)


def test_places_and_weights():
    with pytest.raises(ValueError, match=r"one or several of \['a'\].*'late'"):
        check_places(("a", "late"), ["a"])
    with pytest.raises(ValueError, match="flow_weight=-1"):
        check_weights(flow=-1)
