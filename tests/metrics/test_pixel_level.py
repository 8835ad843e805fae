import sys
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn_metrics

from keras_sspcab.metrics import (
    PixelScores,
    pixel_level,
    pixel_metrics,
    score_counts,
)
from tests.metrics.oracles import brute_force_aupro, pro_points
from tests.scripts import run_script


def gather(images):
    pixels = PixelScores()
    for mask, scores in images:
        pixels.add(mask, scores)
    return pixels


def test_auroc_of_more_pairs_than_int64_counts():
    pixels = gather([([[1, 0]], [[0.7, 0.7]]), ([[1, 0]], [[0.2, 0.1]])])
    # Of the anomalous ones 9 in 10 lie above all normal ones, the others below.
    pixels._counts = pixel_level._Counts(
        hits=np.array([900_000_000, 10**9]),
        alarms_before=np.array([0, 10**10]),
        alarms=np.array([0, 10**10]),
        overlap=np.array([0.9, 1.0]),
    )
    (normal,), (anomalous,) = pixels._normal, pixels._anomalous
    normal.total, anomalous.total = 10**10, 10**9
    assert pixels.auroc() == pytest.approx(0.9, abs=1e-12)


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


@settings(max_examples=150)
@given(
    masks_and_maps(),
    st.sampled_from([0.05, 0.3, 0.5, 1.0]),
    st.sampled_from([1, 7, 2**22]),
)
def test_pixel_metrics_are_those_of_the_definitions(case, limit, block_size):
    masks, maps = case
    labels = np.concatenate([m.ravel() for m in masks])
    scores = np.concatenate([m.ravel() for m in maps])
    with mock.patch.object(score_counts, "BLOCK_SIZE", block_size):
        metrics = pixel_metrics(masks, maps, limit)
    assert metrics == {
        "pixel_auroc": pytest.approx(
            sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12
        ),
        "pixel_ap": pytest.approx(
            sklearn_metrics.average_precision_score(labels, scores), abs=1e-12
        ),
        "aupro": pytest.approx(
            brute_force_aupro(masks, maps, limit), abs=1e-12
        ),
    }


def test_components_touch_at_corners_and_weigh_the_same():
    # One diagonal pair and one region of 4: 8 neighbors make 2 regions.
    mask = np.zeros((4, 8), bool)
    mask[0, 0] = mask[1, 1] = True
    mask[0:2, 5:7] = True
    scores = np.where(mask, 0.0, 1.0)
    scores[0:2, 5:7] = 2.0
    # The square is found before any normal pixel, the pair after all.
    assert pixel_metrics([mask], [scores])["aupro"] == pytest.approx(0.5)
    scores[0, 0] = 2.0
    assert pixel_metrics([mask], [scores])["aupro"] == pytest.approx(0.75)


def test_arrays_generators_and_none_agree():
    rng = np.random.default_rng(0)
    masks = rng.random((4, 9, 7)) > 0.8
    masks[1] = False
    maps = rng.normal(size=masks.shape).astype("float16")
    expected = pixel_metrics(masks, maps)
    items = [m if m.any() else None for m in masks.astype("uint8")]
    assert pixel_metrics(iter(items), (m for m in maps)) == expected


@pytest.mark.parametrize("value", [0, 1, None])
def test_one_class_is_an_error_or_no_key(value):
    masks = [] if value is None else np.full((2, 3, 3), value)
    pixels = gather((mask, np.zeros((3, 3))) for mask in masks)
    for metric in (pixels.auroc, pixels.average_precision, pixels.aupro):
        with pytest.raises(ValueError, match="at least one of each"):
            metric()
    assert pixel_metrics(masks, np.zeros((len(masks), 3, 3))) == {}


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
    with pytest.raises(ValueError, match=message):
        pixel_metrics(masks, maps)


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.5, np.nan])
def test_bad_fpr_limit(limit):
    with pytest.raises(ValueError, match="fpr_limit"):
        pixel_metrics([[[0, 1]]], [[[0.0, 1.0]]], limit)


def make_images(count, side, decimals=None, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mask = np.zeros((side, side), bool)
        row, column = rng.integers(0, side - side // 4, 2)
        mask[row : row + side // 4, column : column + side // 5] = True
        scores = rng.normal(size=mask.shape) + mask
        if decimals is not None:
            scores = scores.round(decimals)
        yield mask, scores.astype("float32")


def test_adding_after_computing_counts():
    images = list(make_images(6, 32))
    pixels = gather(images[:3])
    masks = np.stack([mask for mask, _ in images[:3]])
    assert pixels.num_images == 3
    assert pixels.num_anomalous == masks.sum()
    assert pixels.num_normal == (~masks).sum()
    first = pixels.compute()
    for image in images[3:]:
        pixels.add(*image)
    assert pixels.compute() == gather(images).compute() != first


def test_a_rejected_image_changes_nothing():
    pixels = gather(make_images(2, 16))
    before = pixels.compute()
    with pytest.raises(ValueError, match="anomaly_map"):
        pixels.add(np.ones((16, 16)), np.full((16, 16), np.nan))
    with pytest.raises(ValueError, match="mask"):
        pixels.add(np.full((16, 16), 7), np.zeros((16, 16)))
    assert pixels.compute() == before
    assert pixels.num_images == 2


def test_the_maps_are_not_kept_alive_or_changed():
    mask, scores = next(make_images(1, 16))
    original = scores.copy()
    pixels = PixelScores()
    pixels.add(mask, scores)
    before = pixels.compute()
    np.testing.assert_array_equal(scores, original)
    scores[:] = 0.0
    pixels.add(np.zeros((0, 0)), np.zeros((0, 0)))  # forces a new count
    assert pixels.compute() == before


def test_curves_are_the_exact_ones():
    images = list(make_images(3, 12, decimals=1))
    pixels = gather(images)
    labels = np.concatenate([m.ravel() for m, _ in images])
    scores = np.concatenate([s.ravel() for _, s in images])

    curve = pixels.roc_curve(10_000)
    assert_same_curve(curve, sklearn_metrics.roc_curve(labels, scores)[:2])

    curve = pixels.precision_recall_curve(10_000)
    steps = np.diff(curve.x) * curve.y[1:]
    assert steps.sum() == pytest.approx(pixels.average_precision())

    masks, maps = zip(*images, strict=True)
    points = np.array(pro_points(masks, maps)).T
    assert_same_curve(pixels.pro_curve(10_000), points)


def assert_same_curve(curve, expected):
    # Where a curve jumps it has two values: compare between the points.
    for x in (curve[0], expected[0]):
        levels = (np.unique(x)[1:] + np.unique(x)[:-1]) / 2
        np.testing.assert_allclose(
            np.interp(levels, *curve), np.interp(levels, *expected), atol=1e-12
        )


def test_more_pixels_than_memory_are_rounded_a_little():
    images = list(make_images(40, 64))
    exact = gather(images)
    labels = np.concatenate([m.ravel() for m, _ in images])
    scores = np.concatenate([s.ravel() for _, s in images])
    few = PixelScores(max_normal=20_000, max_anomalous=4_000)
    with mock.patch.object(score_counts, "BLOCK_SIZE", 5_000):
        for image in images:
            few.add(*image)
            assert few.num_kept <= 20_000 + 4_000 + 2 * 5_000
    assert exact.rounding == 0 < few.rounding < 2e-3
    assert few.num_normal == exact.num_normal == (~labels).sum()
    assert few.num_anomalous == exact.num_anomalous
    # With the limits that are the default, a thousand times as many scores
    # are told apart.
    bounds = {"pixel_auroc": 1e-5, "pixel_ap": 1e-3, "aupro": 2e-5}
    expected = exact.compute()
    for name, value in few.compute().items():
        assert value == pytest.approx(expected[name], abs=bounds[name])
    # No score is further off than it says: the truth lies between those where
    # all anomalous pixels are that much lower and higher.
    low, high = (
        sklearn_metrics.roc_auc_score(labels, scores + sign * labels)
        for sign in np.array([-2, 2]) * few.rounding
    )
    assert low < few.auroc() < high
    assert high - low < 2e-3


def test_rounding_is_the_largest_change():
    """Scores are rounded again and again, and what is lost adds up."""
    scores = np.random.default_rng(0).normal(size=30_000).astype("float32")
    few = PixelScores(max_normal=1_000)
    with mock.patch.object(score_counts, "BLOCK_SIZE", 500):
        for part in np.split(scores, 60):
            few.add(np.zeros((1, 500), bool), part[np.newaxis])
        blocks = few._normal[0].blocks()
    kept = np.sort(
        np.concatenate(
            [
                np.repeat(b.scores, 1 if b.counts is None else b.counts)
                for b in blocks
            ]
        )
    )
    change = np.abs(kept - np.sort(scores)).max()
    assert few.rounding / 2 < change < few.rounding


def test_parts_are_measured_together():
    images = list(make_images(6, 32))
    parts = [gather(images[:2]), gather(images[2:3]), gather(images[3:])]
    joined = PixelScores.joined(parts)
    assert joined.compute() == gather(images).compute()
    assert (joined.num_images, joined.rounding) == (6, 0)


def test_parts_share_their_memory():
    images = list(make_images(60, 64))
    parts = [PixelScores() for _ in range(3)]
    limits = {"max_normal": 20_000, "max_anomalous": 4_000}
    for number, image in enumerate(images):
        parts[number % 3].add(*image)
        PixelScores.bound(parts, **limits)
        assert sum(part.num_kept for part in parts) <= sum(limits.values())
    joined = PixelScores.joined(parts)
    assert joined.rounding > 0
    assert joined.compute() == pytest.approx(gather(images).compute(), abs=1e-3)


MEASURE = """
    import json, resource, numpy as np
    from keras_sspcab.metrics import PixelScores

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    rng = np.random.default_rng(0)
    pixels = PixelScores()
    mask = np.zeros((512, 512), bool)
    mask[100:{end}, 100:{end}] = True
    pixels.add(mask, rng.random(mask.shape, dtype="float32") + mask)
    pixels.compute()  # all code is loaded
    before = peak()
    pixels = PixelScores()
    for _ in range({count}):
        scores = rng.standard_normal(mask.shape, dtype="float32")
        pixels.add(mask, scores + mask)
    pixels.compute()
    used = peak() - before
    print(json.dumps([pixels.num_normal, pixels.num_anomalous, used]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB there")
@pytest.mark.parametrize(
    ("count", "end"),
    [
        pytest.param(80, 151, id="one percent of 21 million anomalous"),
        pytest.param(20, 400, id="a third of 5 million anomalous"),
    ],
)
def test_memory_stays_below_what_is_promised(count, end):
    output = run_script(MEASURE.format(count=count, end=end))
    normal, anomalous, used = map(int, output.strip("[]").split(","))
    assert normal + anomalous == count * 512 * 512
    # What the class promises, the block at work and images in flight.
    promised = 4 * normal + 150 * anomalous + 2**25
    assert used < promised + 2**24, f"{used / 2**20:.0f} MiB used"
