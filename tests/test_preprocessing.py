import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_sspcab.preprocessing import Preprocessing, content_of
from keras_sspcab.scoring import input_statistics


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
    assert Preprocessing() == Preprocessing(65535, "bilinear", "stretch")
    # Caches of before have these names.
    assert Preprocessing().identity() == {"white_level": 65535}
    assert Preprocessing(fit="pad").identity()["fit"] == "pad"
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


@pytest.mark.parametrize("fit", ["squeeze", "", None])
def test_fits_are_checked(fit):
    with pytest.raises(ValueError, match=r"stretch.*pad.*crop"):
        Preprocessing(fit=fit)


# === Aspect ratio ===

SIDES = st.tuples(st.integers(1, 90), st.integers(1, 90))


@given(SIDES, SIDES, st.sampled_from(["stretch", "pad", "crop"]))
def test_what_is_seen_keeps_its_ratio_and_fills_what_it_can(source, size, fit):
    seen, filled = (
        [part.stop - part.start for part in box]
        for box in Preprocessing(fit=fit).place(source, size)
    )
    if fit != "pad":
        assert filled == [*size]
    if fit != "crop":
        assert seen == [*source]
    if fit != "stretch":
        # But for the rounding of a side, which is at least one pixel.
        rows = filled[0] * seen[1] / filled[1]
        columns = filled[1] * seen[0] / filled[0]
        step = max(seen[0] / filled[0], seen[1] / filled[1], 1)
        assert (
            abs(rows - seen[0]) <= step * max(1, seen[0] / seen[1])
            or abs(columns - seen[1]) <= step * max(1, seen[1] / seen[0])
            or 1 in (*seen, *filled)
        )


@pytest.mark.parametrize("source", [(40, 80), (80, 40), (33, 33)])
@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_maps_come_back_to_where_they_were_seen(fit, source):
    how, size = Preprocessing(fit=fit), (32, 32)
    placed, filled = how.place(source, size)
    photo = np.zeros(source)
    photo[placed][::7, ::5] = 1.0
    seen = photo[placed]
    rows, columns = (
        np.minimum(
            (np.arange(part.stop - part.start) + 0.5)
            * length
            / (part.stop - part.start),
            length - 1,
        ).astype(int)
        for part, length in zip(filled, seen.shape, strict=True)
    )
    anomaly_map = np.full(size, -1.0)
    anomaly_map[filled] = seen[np.ix_(rows, columns)]
    restored = how.restore(anomaly_map, source, outside=-2.0)
    ratio = restored.shape[1] / restored.shape[0]
    assert ratio == pytest.approx(
        1 if fit == "stretch" else source[1] / source[0], rel=0.05
    )
    assert (restored == -1.0).sum() == 0
    # What is cut off has no value of its own.
    share = (restored == -2.0).mean()
    is_cut = fit == "crop" and source[0] != source[1]
    assert share == pytest.approx(0.5 if is_cut else 0.0, abs=0.02)
    lowest = how.restore(anomaly_map, source).min()
    assert lowest == anomaly_map[filled].min()


def test_padding_is_told_from_content():
    image = np.full((8, 10, 3), 0.5)
    assert content_of(image) == (slice(None), slice(None))
    image[2:5, 3:9] = np.random.default_rng(0).random((3, 6, 3))
    image[3, 5] = 0.5
    assert content_of(image) == (slice(2, 5), slice(3, 9))


def test_a_single_row_of_padding_is_told():
    image = np.random.default_rng(0).random((8, 10, 3))
    assert content_of(image) == (slice(None), slice(None))
    # Of an odd number of rows the last one is the one too many.
    padded = np.pad(image, [(0, 1), (0, 0), (0, 0)], constant_values=0.5)
    assert content_of(padded) == (slice(0, 8), slice(0, 10))
    expected = input_statistics(image[np.newaxis])
    for name, values in input_statistics(padded[np.newaxis]).items():
        np.testing.assert_array_equal(values, expected[name])
