import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn_metrics

from keras_sspcab.metrics import (
    aupro,
    pixel_auroc,
    pixel_average_precision,
    pixel_metrics,
)
from tests.metrics.oracles import brute_force_aupro


@st.composite
def masks_and_maps(draw):
    count = draw(st.integers(1, 3))
    masks, maps = [], []
    for _ in range(count):
        shape = draw(st.tuples(st.integers(1, 6), st.integers(2, 6)))
        masks.append(draw(hnp.arrays(bool, shape)))
        # Few distinct values: many ties between and within the classes.
        maps.append(
            draw(
                hnp.arrays(
                    "float32",
                    shape,
                    elements=st.integers(-3, 3).map(float)
                    | st.floats(-1e3, 1e3, width=32),
                )
            )
        )
    masks[0][0, :2] = False, True
    return masks, maps


@settings(max_examples=150, deadline=None)
@given(masks_and_maps(), st.sampled_from([0.05, 0.3, 0.5, 1.0]))
def test_aupro_is_the_brute_force_area(case, limit):
    masks, maps = case
    assert aupro(masks, maps, limit) == pytest.approx(
        brute_force_aupro(masks, maps, limit), abs=1e-12
    )


@settings(deadline=None)
@given(masks_and_maps())
def test_pixel_metrics_equal_scikit_learn(case):
    masks, maps = case
    labels = np.concatenate([m.ravel() for m in masks])
    scores = np.concatenate([m.ravel() for m in maps])
    assert pixel_metrics(masks, maps) == {
        "pixel_auroc": pytest.approx(
            sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12
        ),
        "pixel_ap": pytest.approx(
            sklearn_metrics.average_precision_score(labels, scores), abs=1e-12
        ),
        "aupro": pytest.approx(brute_force_aupro(masks, maps, 0.3), abs=1e-12),
    }


def test_aupro_by_hand():
    # One region of 2 pixels; 4 normal pixels. Falling thresholds reach the
    # (fpr, pro) points (0, .5), (.25, .5), (.5, .5), (.75, .5), (.75, 1).
    mask = np.array([[1, 1, 0, 0, 0, 0]])
    scores = np.array([[6.0, 2.0, 5.0, 4.0, 3.0, 1.0]])
    assert aupro([mask], [scores], 0.3) == pytest.approx(0.5)
    assert aupro([mask], [scores], 0.75) == pytest.approx(0.5)
    expected = 0.75 * 0.5 + 0.25 * 1.0
    assert aupro([mask], [scores], 1.0) == pytest.approx(expected)


def test_aupro_interpolates_at_the_limit():
    # All scores tie: one straight line from (0, 0) to (1, 1).
    mask = np.array([[1, 0, 0]])
    assert aupro([mask], [np.zeros((1, 3))], 0.3) == pytest.approx(0.15)


def test_components_touch_at_corners_and_weigh_the_same():
    # One diagonal pair and one region of 4: 8 neighbors make 2 regions.
    mask = np.zeros((4, 8), bool)
    mask[0, 0] = mask[1, 1] = True
    mask[0:2, 5:7] = True
    scores = np.where(mask, 0.0, 1.0)
    scores[0:2, 5:7] = 2.0
    # The square is found before any normal pixel, the pair after all.
    assert aupro([mask], [scores], 0.3) == pytest.approx(0.5)
    scores[0, 0] = 2.0
    assert aupro([mask], [scores], 0.3) == pytest.approx(0.75)


def test_perfect_and_inverted_maps():
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    good = mask.astype("float32")
    assert pixel_metrics([mask], [good]) == {
        "pixel_auroc": 1.0,
        "pixel_ap": 1.0,
        "aupro": 1.0,
    }
    assert pixel_auroc([mask], [-good]) == 0.0
    assert aupro([mask], [-good]) == 0.0


def test_arrays_generators_and_none_agree():
    rng = np.random.default_rng(0)
    masks = rng.random((4, 9, 7)) > 0.8
    masks[1] = False
    maps = rng.normal(size=masks.shape).astype("float16")
    expected = pixel_metrics(masks, maps)
    items = [m if m.any() else None for m in masks.astype("uint8")]
    assert pixel_metrics(iter(items), (m for m in maps)) == expected


@pytest.mark.parametrize("value", [0, 1])
def test_one_class_is_an_error_or_no_key(value):
    masks, maps = np.full((2, 3, 3), value), np.zeros((2, 3, 3))
    for metric in (pixel_auroc, pixel_average_precision, aupro):
        with pytest.raises(ValueError, match="at least one of each"):
            metric(masks, maps)
    assert pixel_metrics(masks, maps) == {}


def test_nothing_at_all():
    assert pixel_metrics([], []) == {}
    with pytest.raises(ValueError, match="0 normal and 0 anomalous pixels"):
        pixel_auroc([], [])


@pytest.mark.parametrize(
    ("masks", "maps", "message"),
    [
        (np.zeros((1, 2, 3)), np.zeros((1, 3, 2)), r"mask of shape \(2, 3\)"),
        (np.zeros((1, 3)), np.zeros((1, 3)), "one shape .height, width."),
        (np.zeros((1, 2, 2)), np.full((1, 2, 2), np.nan), "4 of 4 values NaN"),
        (np.zeros((1, 2, 2)), np.full((1, 2, 2), 1e300), "infinite"),
        (np.full((1, 2, 2), 255), np.zeros((1, 2, 2)), "mask > 127"),
        (np.zeros((2, 2, 2)), np.zeros((3, 2, 2)), "masks that ends after 2"),
        (np.zeros((3, 2, 2)), np.zeros((2, 2, 2)), "maps that ends after 2"),
    ],
)
def test_bad_arguments_are_named(masks, maps, message):
    for metric in (pixel_auroc, aupro, pixel_metrics):
        with pytest.raises(ValueError, match=message):
            metric(masks, maps)


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.5, np.nan])
def test_bad_fpr_limit(limit):
    with pytest.raises(ValueError, match="fpr_limit"):
        aupro([[[0, 1]]], [[[0.0, 1.0]]], limit)
