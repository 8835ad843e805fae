import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_sspcab.data.objects.boxes import (
    BoxFilter,
    clip_boxes,
    drop_covered,
    standardize_boxes,
)


def covered_share(box, other):
    """Counts pixels, as an independent oracle."""
    masks = np.zeros((2, 8, 8), bool)
    for mask, (x_min, y_min, x_max, y_max) in zip(
        masks, (box, other), strict=True
    ):
        mask[y_min : y_max + 1, x_min : x_max + 1] = True
    return masks.all(0).sum() / masks[0].sum()


interval = st.lists(st.integers(0, 7), min_size=2, max_size=2).map(sorted)
box = st.tuples(interval, interval).map(
    lambda c: (c[0][0], c[1][0], c[0][1], c[1][1])
)


@settings(max_examples=60)
@given(st.lists(box, min_size=1, max_size=6), st.sampled_from([0.3, 0.5, 0.9]))
def test_covered_boxes_are_those_that_counting_pixels_finds(boxes, threshold):
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in boxes]
    kept = [
        box
        for i, box in enumerate(boxes)
        if not any(
            covered_share(box, other) > threshold
            for j, other in enumerate(boxes)
            if (areas[j], j) > (areas[i], i)
        )
    ]
    result = drop_covered(np.array(boxes), threshold)
    assert result[:, :4].tolist() == [list(box) for box in kept]


def test_small_and_unsure_boxes_are_left_out():
    boxes = np.array(
        [[0, 0, 9, 9, 0.5], [0, 0, 9, 8, 0.9], [5, 5, 14, 14, 0.51]]
    )
    assert BoxFilter(0.5, 100)(boxes).tolist() == [boxes[2].tolist()]
    assert len(BoxFilter()(boxes)) == 3


def test_boxes_are_clipped_and_completed():
    clipped = clip_boxes(np.array([[-3, -1, 60, 40], [2, 3, 4, 5]]), (32, 48))
    assert clipped.tolist() == [[0, 0, 47, 31], [2, 3, 4, 5]]
    boxes = standardize_boxes([[1, 2, 3, 4]], "Boxes")
    assert boxes.tolist() == [[1, 2, 3, 4, 1]]
    assert standardize_boxes([], "Boxes").shape == (0, 5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1, 2, 3]], r"Boxes must be an array .* \(1, 3\)"),
        ([1, 2, 3, 4], r"shape \(4,\)"),
        ([[0, 0, 1, 1], [0, np.nan, 1, 1]], "must be finite.*row 1"),
    ],
)
def test_arrays_that_are_no_boxes_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        standardize_boxes(values, "Boxes")


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_confidence": 1.0},
        {"min_area": float("nan")},
        {"cover_threshold": 1.5},
    ],
)
def test_filters_out_of_range_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}`"):
        BoxFilter(**arguments)
