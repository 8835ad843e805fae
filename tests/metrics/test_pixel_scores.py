import subprocess
import sys
import textwrap

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from keras_sspcab.metrics import PixelScores, pixel_scores
from tests.metrics.oracles import pro_points


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


def gather(images):
    pixels = PixelScores()
    for mask, scores in images:
        pixels.add(mask, scores)
    return pixels


@pytest.mark.parametrize("decimals", [None, 2, 0], ids=str)
@pytest.mark.parametrize("block_size", [1, 1000, 2**22])
def test_blocks_and_ties_equal_scikit_learn(monkeypatch, decimals, block_size):
    monkeypatch.setattr(pixel_scores, "BLOCK_SIZE", block_size)
    images = list(make_images(12, 64, decimals))
    pixels = gather(images)
    labels = np.concatenate([m.ravel() for m, _ in images])
    scores = np.concatenate([s.ravel() for _, s in images])
    assert pixels.auroc() == pytest.approx(
        sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12
    )
    assert pixels.average_precision() == pytest.approx(
        sklearn_metrics.average_precision_score(labels, scores), abs=1e-12
    )
    assert pixels.num_anomalous == labels.sum()
    assert pixels.num_normal == (~labels).sum()
    assert pixels.num_images == 12


def test_adding_after_computing_counts():
    images = list(make_images(6, 32))
    pixels = gather(images[:3])
    first = pixels.compute()
    for image in images[3:]:
        pixels.add(*image)
    assert pixels.compute() == gather(images).compute() != first


def test_order_of_images_does_not_matter():
    images = list(make_images(6, 32, decimals=1))
    forwards = gather(images).compute()
    backwards = gather(images[::-1]).compute()
    assert forwards == pytest.approx(backwards, abs=1e-12)


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
    code = textwrap.dedent(MEASURE.format(count=count, end=end))
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True
    ).stdout
    normal, anomalous, used = map(int, output.strip(b"[]\n").split(b","))
    assert normal + anomalous == count * 512 * 512
    # What the class promises, and 16 MiB for images in flight.
    promised = 4 * normal + (8 + 100) * anomalous + 2**25
    assert used < promised + 2**24, f"{used / 2**20:.0f} MiB used"
