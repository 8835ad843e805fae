import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_sspcab.metrics import regions_from_maps
from tests.metrics.oracles import flood_fill_components

BOX_NAMES = ("x_min", "y_min", "x_max", "y_max")


def rows_of(table):
    return list(
        zip(*(column.tolist() for column in table.values()), strict=True)
    )


def slow_regions(anomaly_map, levels, min_area, measure):
    best = {}
    for level in levels:
        for component in flood_fill_components(anomaly_map >= level):
            if len(component) < min_area:
                continue
            ys, xs = zip(*component, strict=True)
            box = (min(xs), min(ys), max(xs), max(ys))
            value = measure([anomaly_map[pixel] for pixel in component])
            best[box] = max(value, best.get(box, value))
    return best


@settings(deadline=None)
@given(
    hnp.arrays("float32", (3, 5, 6), elements=st.integers(0, 4).map(float)),
    st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0]), min_size=1, max_size=3),
    st.integers(1, 3),
    st.sampled_from(["max", "mean"]),
)
def test_equals_the_flood_fill(maps, levels, min_area, score):
    measure = {"max": max, "mean": np.mean}[score]
    table = regions_from_maps({"v": maps}, levels, min_area, score)
    rows = rows_of(table)
    assert [row[:2] for row in rows] == sorted(row[:2] for row in rows)
    for frame, anomaly_map in enumerate(maps):
        found = {row[2:6]: row[6] for row in rows if row[1] == frame}
        expected = slow_regions(anomaly_map, levels, min_area, measure)
        assert found == pytest.approx(expected, abs=1e-6)
    assert len(rows) == len({row[:6] for row in rows})


def test_names_frames_and_generators():
    maps = np.ones((2, 3, 3))
    table = regions_from_maps(
        {"b": (m for m in maps), "a": maps[:1]}, [0.5], first_frame=4
    )
    assert table["video"].tolist() == ["b", "b", "a"]
    assert table["frame"].tolist() == [4, 5, 4]


def test_boxes_are_scaled_to_the_frame():
    anomaly_map = np.zeros((4, 4))
    anomaly_map[1, 2:4] = 1.0
    table = regions_from_maps([[anomaly_map]], [0.5], frame_size=(8, 12))
    # Columns 2 and 3 of 4 are pixels 6 to 11 of 12.
    assert [table[name][0] for name in BOX_NAMES] == [6, 2, 11, 3]
    table = regions_from_maps([[anomaly_map]], [0.5], frame_size=(2, 2))
    assert [table[name][0] for name in BOX_NAMES] == [1, 0.5, 1, 0]
    whole = regions_from_maps([[np.ones((3, 7))]], [0.5], frame_size=(50, 90))
    np.testing.assert_allclose(
        [whole[name][0] for name in BOX_NAMES], [0, 0, 89, 49], atol=1e-12
    )


@pytest.mark.parametrize(
    ("maps", "thresholds", "options", "message"),
    [
        ([np.ones((1, 2, 2))], [], {}, "thresholds"),
        ([np.ones((1, 2, 2))], [np.nan], {}, "thresholds"),
        ([np.ones((1, 2, 2))], [1.0], {"score": "sum"}, "score='sum'"),
        (
            {"v": [np.ones((2, 2)), np.full((2, 2), np.nan)]},
            [1.0],
            {"first_frame": 4},
            r"maps_by_video\['v'\], frame 5",
        ),
        ({"v": np.ones((2, 2))}, [1.0], {}, r"shape \(2,\) in frame 0"),
        ({}, [1.0], {}, "at least one video"),
    ],
)
def test_bad_arguments_are_named(maps, thresholds, options, message):
    with pytest.raises(ValueError, match=message):
        regions_from_maps(maps, thresholds, **options)
