import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path

from keras_sspcab.regions import Region, Regions, fill_polygon

points = st.lists(
    st.tuples(*2 * [st.floats(0, 12).map(lambda x: round(x, 1) + 0.03)]),
    min_size=3,
    max_size=3,
)


@given(points)
def test_triangles_are_filled_as_by_another_program(corners):
    y, x = np.mgrid[:12, :12] + 0.5
    centers = np.stack([x.ravel(), y.ravel()], axis=-1)
    expected = Path([*corners, corners[0]]).contains_points(centers)
    found = fill_polygon(corners, (12, 12)).ravel()
    # What lies on an edge may be on either side.
    near = np.zeros(len(centers), bool)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        edge = np.subtract(end, start)
        share = (centers - start) @ edge / max(edge @ edge, 1e-9)
        foot = start + np.clip(share, 0, 1)[:, np.newaxis] * edge
        near |= np.hypot(*(centers - foot).T) < 0.01
    np.testing.assert_array_equal(found[~near], expected[~near])


def test_plain_values_give_it_back():
    labels = np.random.default_rng(0).integers(0, 3, (5, 7))
    parts = (Region("a", quantile=0.9), Region("b", threshold=-1.5))
    regions = Regions(labels, parts)
    text = json.dumps(regions.to_dict())
    again = Regions.from_dict(json.loads(text))
    np.testing.assert_array_equal(again.labels, labels)
    assert again.parts == parts


@pytest.mark.parametrize(
    ("labels", "parts", "message"),
    [
        (np.zeros((2, 2)), (Region("a"),), "no pixel of 2 x 2 lies in: a"),
        (np.full((2, 2), 2), (Region("a"),), "labels are 0 to 1"),
        (np.ones(4), (Region("a"),), r"labels of shape \(4,\)"),
        (np.ones((2, 2)), (), "0 names"),
        (np.ones((2, 2)), (Region("a"), Region("a")), "must differ"),
    ],
)
def test_says_what_is_wrong(labels, parts, message):
    with pytest.raises(ValueError, match=f"(?i){message}"):
        Regions(labels, parts)


def test_regions_have_names_and_sane_limits():
    with pytest.raises(ValueError, match="needs a name"):
        Region("")
    with pytest.raises(ValueError, match="`quantile`"):
        Region("a", quantile=0.0)
    with pytest.raises(ValueError, match="`threshold`"):
        Region("a", threshold=float("nan"))
